/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The manager's page inside: what its files share. All of it is one request's, in its thread. */
#ifndef RP_MANAGER_PAGE_H
#define RP_MANAGER_PAGE_H

#include "balancer/rp_manager.h"

/** A page that is being answered. */
typedef struct rp_page {
    const rp_manager *manager;
    request_rec *r;
    const char *token;                  /* for forms; NULL: there are none */
    const apr_table_t *query;           /* what stands behind '?' */
} rp_page;

/* ---- writing (rp_manager_html.c) ------------------------------------------------------------- */

/** Writes format, as it is, with %s (escaped for text and quoted attributes; NULL: nothing), %d,
 * %lld and %% in it. Thus nothing that isn't a literal of ours gets out without being escaped. */
void rp_html(request_rec *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** The value at a path like "traffic.requests"; NULL if there is none, or null. */
const json_t *rp_html_find(const json_t *object, const char *path);

/** A text at a path; "": there is none. */
const char *rp_html_text(const json_t *object, const char *path);

/** A number at a path; 0: there is none. */
json_int_t rp_html_number(const json_t *object, const char *path);

/** A value as people read it; nothing and null are a dash. as: NULL, or "ms" (milliseconds),
 * "limit" (0: none), "or-nothing" (null is nothing). */
const char *rp_html_shown(apr_pool_t *pool, const json_t *value, const char *as);

/** <tag class="class" data-key="path" data-as="as">value</tag>: what the script keeps up to date.
 * class and as may be NULL. */
void rp_html_live(request_rec *r, const char *tag, const char *class, const json_t *object,
                  const char *path, const char *as);

/** <time>, of a text as RFC 3339 has it; a dash for "". */
void rp_html_time(request_rec *r, const char *time);

/** The fields of a form or query. NULL: they are no such thing. text is changed. */
apr_table_t *rp_html_fields(apr_pool_t *pool, char *text);

/* ---- parts of pages (rp_manager_view.c) ------------------------------------------------------ */

/** Headers, and everything above the content of <main>. status as in r->status; title may be
 * anything. */
void rp_page_begin(const rp_page *page, int status, const char *title);
void rp_page_end(const rp_page *page);

/** A line above everything else; kind: "done" or "failed". */
void rp_page_message(const rp_page *page, const char *kind, const char *text);

/** The sections of the page; all: of rp_manager_json_all(). */
void rp_page_pools(const rp_page *page, const json_t *all);
void rp_page_diff(const rp_page *page, const json_t *diff);
void rp_page_journal(const rp_page *page, const json_t *journal);

/** What is known of a member. */
void rp_page_member(const rp_page *page, const char *pool, const json_t *member);

/* ---- forms (rp_manager_form.c) --------------------------------------------------------------- */

/** Opens a form that asks for verb ("change", "add", ...), with its hidden fields. member: its id,
 * or NULL. */
void rp_form_open(const rp_page *page, const char *verb, const char *pool, const char *member);

/** A member that is added. */
void rp_form_add(const rp_page *page, const char *pool);

/** What can be done with a member. */
void rp_form_member(const rp_page *page, const char *pool, const json_t *member);

/* rp_manager_confirm.c */

/** Answers a form that was sent: asks, does it and redirects, or says why not. */
int rp_page_change(const rp_page *page);

/* ---- files (made of balancer/manager/ by embed.sh) ------------------------------------------- */

typedef struct rp_manager_asset {
    const char *name;                   /* "app.js" */
    const char *etag;                   /* with its quotes */
    const unsigned char *data;
    apr_size_t len;
} rp_manager_asset;

/** Ends with one without a name. */
extern const rp_manager_asset rp_manager_assets[];

#endif
