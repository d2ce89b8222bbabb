/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* rproxy/route: which rule takes a request, what the upstream's target becomes, and the way back.
 *
 * Routes are made while the configuration is read, checked and indexed once (rp_route_table_finish)
 * and never change afterwards: every function below "matching" may be called from any thread. Knows
 * neutral requests only (rp_http.h); expressions go through a callback that the lane brings.
 */
#ifndef RP_ROUTE_H
#define RP_ROUTE_H

#include <apr_pools.h>
#include <apr_tables.h>
#include "httpd.h"                      /* ap_regex_t; nothing of request_rec */
#include "rproxy/http/rp_http.h"

/* ---- targets --------------------------------------------------------------------------------- */

typedef enum rp_scheme { RP_SCHEME_HTTP, RP_SCHEME_HTTPS, RP_SCHEME_BALANCER } rp_scheme;

/** Where requests go: parsed from http://host[:port]/base, https://...,
 * unix:/path|http://host/base. One object for each target as written; pointer identity may be used
 * as its key. */
typedef struct rp_target {
    const char *text;                   /* as written */
    const char *key;                    /* normal form of scheme, host, port, socket; no base */
    rp_scheme scheme;
    const char *host;                   /* lower case, IPv6 without brackets; balancer name */
    int port;                           /* explicit or the scheme's default; 0 for balancers */
    const char *authority;              /* host[:port] as sent in Host when it isn't preserved */
    const char *socket;                 /* path of a Unix socket, or NULL */
    const char *address;                /* where host is, or NULL: wherever its name says */
    const char *base;                   /* base path in normal form, begins with '/' */
    void *upstream;                     /* the upstream room's cache of endpoints; its own */
} rp_target;

/** The one parser of target addresses. Returns NULL or a message with a remedy. Refuses userinfo,
 * query, fragment, unknown schemes, blanks, ports out of range. No length limits but
 * RP_HTTP_HEAD_MAX. */
const char *rp_target_parse(apr_pool_t *pool, const char *text, rp_target **target);

/** Connections to a target without a socket go to this IP address. Returns NULL or a message. */
const char *rp_target_set_address(apr_pool_t *pool, rp_target *target, const char *address);

/** Nonzero if target lies under allowed (RProxyAllowTarget): same scheme, host, port and socket,
 * base on a segment border. */
int rp_target_under(const rp_target *target, const rp_target *allowed);

/* ---- rules ----------------------------------------------------------------------------------- */

/** One RProxyRewrite rule. */
typedef struct rp_rewrite {
    ap_regex_t *regex;                  /* on the canonical encoded path (rp_uri_canonical) */
    const char *subst;                  /* $0..$9, $$; may set a query after '?' */
    int query_append;                   /* [QSA] */
    int last;                           /* [L] */
} rp_rewrite;

/** Parses REGEX SUBST [flags] ("[NC,QSA,L]"); NULL or a message. */
const char *rp_rewrite_parse(apr_pool_t *pool, const char *regex, const char *subst,
                             const char *flags, rp_rewrite **rewrite);

/** One RProxyPass or RProxyPassMatch rule. */
typedef struct rp_route {
    const char *path;                   /* prefix as written, normal form; NULL for regex rules */
    const char *pattern;                /* text of the regex; NULL for prefix rules */
    ap_regex_t *regex;
    const char *target_path;            /* regex rules: path template with $0..$9 */
    rp_target *target;                  /* NULL: "!", exempt from proxying */
    const void *condition;              /* compiled if=EXPR, opaque here; NULL: always */
    const char *condition_text;
    int weight;                         /* of rules with one path; 1 by default */
    int weighted;                       /* nonzero: weight= was written */
    const char *file;                   /* where it was written */
    int line;
    int inherited;                      /* nonzero in a merged table: from the main server */
    int row;                            /* of its counters (rp_metrics_rows.h) */
} rp_route;

/**
 * Makes a rule from the arguments of RProxyPass / RProxyPassMatch, checked as far as one rule can
 * be: unknown keys, weight out of range, captures ($1) in scheme, host, port or socket (client text
 * never chooses those), path not beginning with '/', and the like. Options are "if=EXPR"
 * (condition_text is set, the caller compiles) and "weight=N".
 * @param path     prefix or regex; is_regex tells which
 * @param options  array of const char *, "key=value"
 * @return NULL or a message with a remedy
 */
const char *rp_route_parse(apr_pool_t *pool, const char *path, int is_regex, const char *target,
                           const apr_array_header_t *options, const char *file, int line,
                           rp_route **route);

/** The rules of a server or virtual host. */
typedef struct rp_route_table rp_route_table;

rp_route_table *rp_route_table_make(apr_pool_t *pool);
void rp_route_table_add(rp_route_table *table, rp_route *route);

/** A virtual host's table: its own rules, then those of the main server that they don't replace
 * (same path, or same pattern text). */
rp_route_table *rp_route_table_merge(apr_pool_t *pool, const rp_route_table *base,
                                     const rp_route_table *add);

/**
 * Checks the rules against each other and builds the index. Errors name both places with file and
 * line: the same path twice with different targets and neither if= nor weight=; a rule behind an
 * unconditional one of the same path or the same pattern (could never take effect); "!" with
 * weight=; weights that sum to 0. Returns NULL or the message.
 */
const char *rp_route_table_finish(apr_pool_t *pool, rp_route_table *table);

/** Nonzero if there is no rule in it. */
int rp_route_table_is_empty(const rp_route_table *table);

/** Calls back for each rule in the order in which they are tried; stops when it returns 0. */
void rp_route_table_each(const rp_route_table *table,
                         int (*callback)(void *baton, const rp_route *route), void *baton);

/** Sets the row of each rule to what the callback says. Before requests are matched. */
void rp_route_table_number(rp_route_table *table,
                           int (*row_of)(void *baton, const rp_route *route), void *baton);

/* ---- matching -------------------------------------------------------------------------------- */

/** What a lane brings for matching. */
typedef struct rp_match_context {
    apr_pool_t *pool;                   /* of the request */
    /** Evaluates rp_route.condition; > 0 true, 0 false, < 0 error (counts as false). */
    int (*condition)(void *baton, const rp_route *route);
    apr_uint32_t random;                /* chooses among weights */
    void *baton;
} rp_match_context;

/** A rule that takes a request. */
typedef struct rp_match {
    const rp_route *route;              /* route->target == NULL: exempt */
    apr_size_t prefix_len;              /* bytes of the path, encoded, that the prefix covered */
    ap_regmatch_t groups[10];           /* regex rules: captures in subject */
    const char *subject;                /* regex rules: the canonical path that was matched */
} rp_match;

/**
 * Finds the rule for path (normal form, rp_uri_path()): regex rules in the order written, then the
 * longest prefix that ends on a segment border ("/app" and "/app/" both take "/app" and "/app/x";
 * neither takes "/apple"). Prefixes compare with the decoded path, so "/%61pp" is "/app"; an
 * encoded slash is no segment border. Rules of one path (or pattern) are tried in the order
 * written: the first without weight= whose condition holds takes the request; where the first with
 * weight= is reached, all with weight= whose condition holds share the requests. If none takes it,
 * the next shorter prefix.
 * @return nonzero if a rule took it
 */
int rp_route_match(const rp_route_table *table, const rp_match_context *context, const char *path,
                   rp_match *match);

/**
 * The target of the upstream's request line: base and rest of the path joined by exactly one slash,
 * or the regex rule's template filled with captures; then rewrites in order; then the query.
 * "RProxyPass /app http://b" and all variants of the final slash: /app -> /, /app/ -> /, /app/x ->
 * /x. Captured bytes are still percent-encoded and are never decoded. A result that isn't a valid
 * target (blanks, controls, a new dot segment) is refused.
 * @param rewrites  array of rp_rewrite *, or NULL
 * @return RP_HTTP_OK or RP_HTTP_BAD_TARGET
 */
rp_http_error rp_route_target(apr_pool_t *pool, const rp_match *match, const char *path,
                              const char *query, const apr_array_header_t *rewrites,
                              const char **upstream_target);

/* ---- the way back ---------------------------------------------------------------------------- */

/** One RProxyReverse, RProxyCookieDomain or RProxyCookiePath line. */
typedef struct rp_reverse_rule {
    const char *from;
    const char *to;
} rp_reverse_rule;

/** Which directive a reverse rule is from. */
typedef enum rp_reverse_kind {
    RP_REVERSE_URL,                     /* RProxyReverse: absolute URL or path, each */
    RP_REVERSE_COOKIE_DOMAIN,           /* RProxyCookieDomain: host names */
    RP_REVERSE_COOKIE_PATH              /* RProxyCookiePath: absolute paths */
} rp_reverse_kind;

/** Checks FROM and TO of a directive and fills in rule (copies). Returns NULL or a message with a
 * remedy. */
const char *rp_reverse_rule_parse(apr_pool_t *pool, rp_reverse_kind kind, const char *from,
                                  const char *to, rp_reverse_rule *rule);

/** Maps what an upstream says about its own addresses to the client's view. Made for a request. */
typedef struct rp_reverse {
    const char *upstream_scheme;        /* "http" or "https" */
    const char *upstream_authority;     /* host[:port] of the target */
    const char *sent_host;              /* the Host that the upstream was sent */
    const char *upstream_base;          /* target base path, "/" at least */
    const char *client_scheme;
    const char *client_authority;       /* the client's Host */
    const char *client_prefix;          /* the route's path; NULL: regex rule, paths stay */
    const apr_array_header_t *rules;    /* rp_reverse_rule of RProxyReverse, tried first; or NULL */
    const apr_array_header_t *cookie_domains;
    const apr_array_header_t *cookie_paths;
} rp_reverse;

/** Bytes of an authority's host, without port; brackets belong to it. */
apr_size_t rp_authority_host_len(const char *authority, apr_size_t len);

/** Sets what is the upstream's: requests go to target. kept_host: the client's Host where that is
 * sent on; NULL: the target's is. */
void rp_reverse_set_upstream(rp_reverse *reverse, const rp_target *target, const char *kept_host);

/**
 * Maps the value of one response field: Location, Content-Location, Destination (a URL or an
 * absolute path), Refresh ("5; url=..."), Link ("<...>; rel=..."), Set-Cookie (Path, Domain).
 * Absolute URLs whose scheme and authority are the upstream's (target, or the Host we sent with the
 * upstream's scheme), scheme-relative ones, and path-only ones (absolute path) under upstream_base
 * are mapped; on segment borders; everything else is returned as it is. A cookie Domain that is the
 * upstream's host (and not the client's) is dropped; one mapped by RProxyCookieDomain is replaced.
 * Linear in the value's length, no size limits, safe for hostile values.
 * @return field->value itself where nothing changed, else a new string in pool
 */
const char *rp_reverse_field(apr_pool_t *pool, const rp_reverse *reverse, const rp_field *field);

#endif
