/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the files of rproxy/route share among themselves; nobody else includes it. */
#ifndef RP_ROUTE_PRIVATE_H
#define RP_ROUTE_PRIVATE_H

#include "rproxy/route/rp_route.h"

/** All rules of one path, or of one pattern, in the order written. */
typedef struct rp_route_group {
    const char *key;                    /* decoded prefix, no final slash; or pattern */
    apr_size_t key_len;
    apr_uint64_t hash;                  /* of key; prefixes only */
    apr_array_header_t *rules;          /* rp_route * */
    const rp_route *first_weighted;     /* NULL: none of them has weight= */
    const struct rp_route_group *parent;/* longest shorter prefix that has rules, or NULL */
} rp_route_group;

/** A regex rule and the group of rules with the same pattern. */
typedef struct rp_route_regex {
    const rp_route *route;
    const rp_route_group *group;
} rp_route_regex;

/* Everything below routes is made by rp_route_table_finish() and read only afterwards. */
struct rp_route_table {
    apr_pool_t *pool;
    apr_array_header_t *routes;         /* rp_route *, as added */
    apr_array_header_t *tried;          /* rp_route *, in the order tried; NULL: not finished */
    apr_array_header_t *regexes;        /* rp_route_regex, in the order written */
    rp_route_group **slots;             /* prefix groups, open addressing */
    apr_size_t slot_mask;
    apr_size_t longest;                 /* decoded length of the longest prefix */
};

#define RP_PREFIX_HASH_START APR_UINT64_C(14695981039346656037)

/** One step of the hash over the decoded bytes of a prefix (FNV-1a). */
static inline apr_uint64_t rp_prefix_hash_step(apr_uint64_t hash, unsigned char byte)
{
    return (hash ^ byte) * APR_UINT64_C(1099511628211);
}

static inline int rp_hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/** The next byte of a path, decoded; moves *at behind it. An encoded slash comes back as NUL: it is
 * no segment border and equals nothing that a prefix may contain. */
static inline unsigned char rp_path_byte(const char **at)
{
    const char *p = *at;
    int high, low;

    if (*p != '%' || (high = rp_hex_value(p[1])) < 0 || (low = rp_hex_value(p[2])) < 0) {
        *at = p + 1;
        return (unsigned char)*p;
    }
    *at = p + 3;
    return high * 16 + low == '/' ? '\0' : (unsigned char)(high * 16 + low);
}

/** Nonzero if one of the path's segments is "." or "..", the dots also as %2E. */
int rp_path_has_dot_segment(const char *path, apr_size_t len);

/** Where the path of a target's text begins: the first '/' behind the authority, or the end. */
const char *rp_target_path_start(const char *text);

/**
 * Checks a template with $0..$9 and $$.
 * @param groups  captures that the regex has
 * @return NULL or what is wrong with it, with a remedy
 */
const char *rp_template_check(apr_pool_t *pool, const char *text, apr_size_t groups);

/** What filling a template needs. */
typedef struct rp_template_source {
    const char *subject;                /* what the regex matched on */
    const ap_regmatch_t *groups;        /* 10 of them */
} rp_template_source;

/**
 * Appends len bytes of a template to out, captures filled in. Exactly one slash stays where the
 * text before a capture ends and the capture begins with one. With in_query, bytes that separate
 * arguments are percent-encoded in captures.
 * @return 0 if the result would be longer than any request head
 */
int rp_template_fill(rp_buffer *out, const char *text, apr_size_t len,
                     const rp_template_source *source, int in_query);

/**
 * Applies rewrites in order to *path and *query.
 * @return RP_HTTP_OK or RP_HTTP_BAD_TARGET
 */
rp_http_error rp_rewrite_apply(apr_pool_t *pool, const apr_array_header_t *rewrites,
                               const char **path, const char **query);

/** RP_HTTP_OK if path may be sent: begins with exactly one '/', no blank, control byte, '#', '?',
 * backslash, bad %XX or dot segment. */
rp_http_error rp_upstream_path_check(const char *path, apr_size_t len);

/** Nonzero if query may be sent: no blank, control byte or '#'. */
int rp_query_is_valid(const char *query);

/* ---- the way back ---------------------------------------------------------------------------- */

/** A replacement for the beginning of a text: parts, then the text from offset rest on. */
typedef struct rp_mapped {
    const char *parts[5];
    apr_size_t lens[5];
    int count;
    apr_size_t rest;
} rp_mapped;

void rp_mapped_add(rp_mapped *mapped, const char *part, apr_size_t len);

/** If path (len bytes, it may go on with '?' or '#') is under from on a segment border: adds to,
 * with one slash where they meet, sets rest and returns nonzero. Final slashes of from and to don't
 * matter. */
int rp_map_path(const char *path, apr_size_t len, const char *from, const char *to,
                rp_mapped *mapped);

/** A value in which pieces are replaced; nothing is allocated before the first replacement. */
typedef struct rp_splice {
    apr_pool_t *pool;
    const char *value;
    apr_size_t len;
    apr_size_t copied;                  /* offset up to which value is in out, or was replaced */
    int changed;
    rp_buffer out;
} rp_splice;

/** Replaces mapped->rest bytes at offset at by the parts, unless they are the same. Offsets only
 * grow. */
void rp_splice_apply(rp_splice *splice, apr_size_t at, const rp_mapped *mapped);

/** The result: value itself if nothing changed. */
const char *rp_splice_result(rp_splice *splice);

/** Set-Cookie's part of rp_reverse_field(). */
void rp_reverse_cookie(rp_splice *splice, const rp_reverse *reverse);

#endif
