/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the files rp_eligible*.c share; nobody else includes it. All of it runs in check_config, in
 * one thread, but rp_guards_match(). */
#ifndef RP_ELIGIBLE_PRIVATE_H
#define RP_ELIGIBLE_PRIVATE_H

#include <apr_hash.h>
#include "rproxy/engine/rp_eligible.h"

/* ---- rp_eligible_known.c: what is known of httpd's modules and directives -------------------- */

/** What a directive does to a request that a route of ours takes. */
typedef enum rp_effect {
    RP_EFFECT_NONE,                     /* nothing: neutral */
    RP_EFFECT_SETTING,                  /* of ours: merged where its section covers the route */
    RP_EFFECT_HEADER,                   /* a rule of mod_headers, which is merged likewise */
    RP_EFFECT_HTTP1,                    /* nothing, but only where the pipeline can be asked: not
                                         * in HTTP/2 */
    RP_EFFECT_PIPELINE,                 /* something that only the pipeline does, or unknown */
    RP_EFFECT_STATUS_PAGE,              /* PIPELINE: a page about the server itself */
    RP_EFFECT_HANDLER,                  /* PIPELINE: another handler */
    RP_EFFECT_PATH,                     /* PIPELINE, under the path that is its first argument */
    RP_EFFECT_PATH_REGEX,               /* the same with a regular expression */
    RP_EFFECT_BROWSER,                  /* PIPELINE where a User-Agent matches */
    RP_EFFECT_REQUEST,                  /* PIPELINE where what the first argument names matches */
    RP_EFFECT_INSIDE,                   /* a section: what is in it counts as if outside */
    RP_EFFECT_LOCATION,                 /* a section: for a part of the paths */
    RP_EFFECT_UNREACHED                 /* a section: never taken by a routed request */
} rp_effect;

/** What the log formats of the whole configuration ask for. */
typedef struct rp_log_facts {
    rp_log_needs needs;
    apr_array_header_t *variables;      /* const char *: names of %{...}e */
} rp_log_facts;

/** Nonzero if a module without directives changes nothing about a routed request. */
int rp_known_module(const module *loaded);

/** in_section: the directive stands in a <Location>. pool: of the process of deciding; must be the
 * same in all calls with one cache. */
rp_effect rp_known_effect(apr_pool_t *pool, apr_hash_t *cache, const ap_directive_t *directive,
                          int in_section, const rp_log_facts *log);

/** Nonzero if nothing but a log format may show the variable of SetEnvIf where a route of the
 * engine is asked over HTTP/2. */
int rp_known_idle_variable(const char *name);

/** Reads the arguments of Header or RequestHeader; zero: only the pipeline does that. */
int rp_known_header(apr_pool_t *pool, int is_request, const char *arguments,
                    rp_header_rule *rule);

/* ---- rp_eligible_log.c ----------------------------------------------------------------------- */

/** Reads every log format below tree. */
void rp_log_facts_read(apr_pool_t *pool, const ap_directive_t *tree, rp_log_facts *facts);

/** Nonzero if a log format shows the environment variable. */
int rp_log_shows(const rp_log_facts *facts, const char *variable);

/* ---- rp_eligible_scope.c: what the directives of one server amount to ------------------------ */

/** Who wants what is in a section, as far as SetHandler tells. */
typedef enum rp_audience {
    RP_FOR_UNKNOWN,                     /* it has no SetHandler */
    RP_FOR_OPERATORS,                   /* a page about the server itself */
    RP_FOR_OTHERS
} rp_audience;

/** A <Location>, or a directive that acts like one. */
typedef struct rp_section {
    const ap_directive_t *directive;
    const char *path;                   /* plain or with wildcards; text of regex */
    const ap_regex_t *regex;            /* NULL: path */
    int has_wildcards;
    ap_conf_vector_t *per_dir;          /* NULL: none of its own */
    int has_settings;                   /* RProxy* directives that requests see, or rules */
    apr_array_header_t *header_rules;   /* rp_header_rule */
    apr_array_header_t *reasons;        /* const char *: what in it is the pipeline's; may be
                                         * empty */
    rp_audience audience;
    const char *no_http2;               /* the first RP_EFFECT_HTTP1 in it; NULL: none */
} rp_section;

/** The directives of the main server outside of virtual hosts, or of one virtual host. */
typedef struct rp_scope {
    apr_array_header_t *reasons;        /* const char *: for every request */
    apr_array_header_t *sections;       /* rp_section */
    apr_array_header_t *guards;         /* rp_guard: by what requests are, not by their path */
    apr_array_header_t *header_rules;   /* rp_header_rule: for every request */
    apr_array_header_t *hosts;          /* const ap_directive_t *: <VirtualHost>, in order */
    const char *no_http2;               /* the first RP_EFFECT_HTTP1 outside of sections, or NULL */
    rp_read_limit head;                 /* first == RP_UNSET: not written */
    rp_read_limit body;
    int strict_sni;
    int tls;                            /* SSLEngine; RP_UNSET: not written */
} rp_scope;

/** What reading a scope needs. */
typedef struct rp_scope_context {
    apr_pool_t *pool;                   /* of the result */
    apr_pool_t *temp;
    apr_hash_t *cache;                  /* rp_known_effect()'s */
    const rp_log_facts *log;
} rp_scope_context;

rp_scope *rp_scope_read(const rp_scope_context *context, const ap_directive_t *first);

/** "Header set A b (file:12)" */
const char *rp_scope_name(apr_pool_t *pool, const ap_directive_t *directive);

/* ---- rp_eligible_guards.c -------------------------------------------------------------------- */

typedef enum rp_guard_kind {
    RP_BY_PATH,                         /* text and everything below */
    RP_BY_BARE_PATH,                    /* text alone */
    RP_BY_WILDCARD,                     /* text, compared with the path */
    RP_BY_REGEX,                        /* regex on the path */
    RP_BY_URI,                          /* pattern on the path, also as the client wrote it */
    RP_BY_METHOD,                       /* pattern on the method */
    RP_BY_FIELD                         /* pattern on the value of the field that text names */
} rp_guard_kind;

/** What a guard is to HTTP/2, where a stream can't go to the pipeline. */
typedef enum rp_guard_http2 {
    RP_GUARD_BARS,                      /* no HTTP/2 in the engine beside it */
    RP_GUARD_RETRIES,                   /* a stream has to be repeated in HTTP/1.1; RP_BY_PATH */
    RP_GUARD_IDLE                       /* what it is for doesn't exist in HTTP/2 */
} rp_guard_http2;

/** A regular expression with what can be told without it. */
typedef struct rp_pattern {
    const ap_regex_t *regex;            /* NULL: literal says it all */
    const char *literal;                /* every match contains it; NULL: nothing known */
    apr_size_t len;
    int at_start;                       /* ... at the beginning */
} rp_pattern;

typedef struct rp_guard {
    rp_guard_kind kind;
    const char *text;
    apr_size_t len;
    const ap_regex_t *regex;
    rp_pattern pattern;
    const rp_section *settings;         /* what is merged alone: the routes that it covers have it
                                         * already; NULL: for other reasons */
    rp_guard_http2 http2;
    const apr_array_header_t *variables;    /* const char *: what SetEnvIf sets, where all of it is
                                             * rp_known_idle_variable(); NULL: something else */
    const char *name;                   /* for people: "/server-status (file:12)" */
} rp_guard;

/** Compiles a regular expression of the configuration; 0: it doesn't compile. */
int rp_pattern_make(apr_pool_t *pool, const char *text, int ignore_case, rp_pattern *pattern);

int rp_pattern_matches(const rp_pattern *pattern, const char *value);

/** A route's path in the form that the next two take: decoded, without a final slash. */
const char *rp_section_key(apr_pool_t *pool, const rp_route *route);

/** Length of the section's path without a final slash. */
apr_size_t rp_section_bare_len(const rp_section *section);

/** Nonzero if every path at or below path is in the section; path itself may be missing where the
 * section's ends with a slash. */
int rp_section_covers(const rp_section *section, const char *path);

/** Nonzero if a path below path may be in the section, though not all are. */
int rp_section_is_below(const rp_section *section, const char *path);

rp_engine_guards *rp_guards_make(apr_pool_t *pool);

/** Adds a copy; the caller may change it before the next one is added. */
rp_guard *rp_guards_add(rp_engine_guards *guards, const rp_guard *guard);

/** The same with a guard of the part of the paths that section is for. */
rp_guard *rp_guards_add_section(apr_pool_t *pool, rp_engine_guards *guards,
                                const rp_section *section);

/** A guard of the path that section would have without its final slash, and of nothing below. */
void rp_guards_add_bare(apr_pool_t *pool, rp_engine_guards *guards, const rp_section *section);

int rp_guards_count(const rp_engine_guards *guards);

/** const char *: the guards for people. */
const apr_array_header_t *rp_guards_names(apr_pool_t *pool, const rp_engine_guards *guards);

/** Those that are so to HTTP/2: const char *, for people. guards may be NULL. */
const apr_array_header_t *rp_guards_names_of(apr_pool_t *pool, const rp_engine_guards *guards,
                                             rp_guard_http2 http2);

/** Nonzero if a guard makes every stream at or below path be repeated in HTTP/1.1. */
int rp_guards_retry_all(const rp_engine_guards *guards, const char *path);

/* ---- rp_eligible.c, rp_eligible_http2.c ------------------------------------------------------ */

/** A server's part of the proof. */
typedef struct rp_eligible_server {
    rp_engine_host host;                /* first: a pointer to it is one to this */
    int any;                            /* the engine has a route */
    const rp_engine_route **slots;      /* by address of the route, open addressing */
    apr_size_t slot_mask;
    /* Of other virtual hosts on its addresses; meaningful where host.no_http2 is NULL. */
    const char *near_no_http2;          /* the first of their reasons; NULL: they have none */
    const char *near_address;           /* where, for people */
    int near_everywhere;                /* such a reason holds on each address of the server */
} rp_eligible_server;

/** What the guard of a section is to HTTP/2. sections: const rp_section *, all of the server. */
rp_guard_http2 rp_http2_of_section(const apr_array_header_t *sections, const rp_section *section);

/** What a guard of BrowserMatch or SetEnvIf is to HTTP/2. own: the server's scope; may be
 * main_scope. */
rp_guard_http2 rp_http2_of_request(const rp_scope *main_scope, const rp_scope *own,
                                   const rp_guard *guard);

/** Why the engine can't take HTTP/2 connections for a server of which everything else is decided,
 * or NULL. own: the server's scope; may be main_scope. */
const char *rp_http2_obstacle(apr_pool_t *pool, const rp_engine_host *host,
                              const rp_scope *main_scope, const rp_scope *own,
                              const rp_log_facts *log);

/** Sets near_*, when no_http2 of all servers is known. servers: rp_eligible_server *, as httpd
 * links them. */
void rp_http2_compare(apr_pool_t *pool, const apr_array_header_t *servers);

/** Tells in the log who serves HTTP/2 clients. */
void rp_http2_tell(apr_pool_t *pool, const server_rec *server);

#endif
