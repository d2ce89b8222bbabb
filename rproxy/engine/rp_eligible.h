/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Which requests the engine may serve: proven once, when the configuration has been read.
 *
 * The engine bypasses httpd's request hooks and filters, so a route is the engine's only where
 * nothing but proxying and simple rules of mod_headers apply to it. The proof walks the
 * configuration tree and the loaded modules against an allow-list: a directive or a module that
 * isn't known to be neutral sends the route to the pipeline. What applies to a part of a route only
 * (a <Location> below it, a User-Agent that BrowserMatch names) is a guard: such requests go to the
 * pipeline one by one.
 *
 * A stream of HTTP/2 can't go to the pipeline: the engine takes such a connection only where every
 * request that may come on it is the engine's, or for one of the pages about the server itself: for
 * these the client is asked to come back with HTTP/1.1.
 *
 * Made in check_config, immutable afterwards: any thread may read it. */
#ifndef RP_ELIGIBLE_H
#define RP_ELIGIBLE_H

#include "httpd.h"
#include "rproxy/engine/rp_header_rules.h"
#include "rproxy/rp_config.h"

/** A route in one virtual host, with all that applies to its requests. */
typedef struct rp_engine_route {
    const rp_route *route;
    const apr_array_header_t *reasons;  /* const char *: why the pipeline has it; empty: engine */
    ap_conf_vector_t *per_dir;          /* the sections that cover the whole route, merged */
    const rp_dir_config *dir;           /* ours of it */
    const rp_header_rules *header_rules;    /* mod_headers' of it; NULL: none */
    rp_exchange_settings settings;
} rp_engine_route;

/** One limit of RequestReadTimeout, as mod_reqtimeout counts: seconds and bytes/second. */
typedef struct rp_read_limit {
    int first;                          /* seconds at first, 0: no limit */
    int max;                            /* seconds at most however many bytes come; 0: no bound */
    int rate;                           /* bytes that earn a second more; 0: first is the limit */
} rp_read_limit;

typedef struct rp_engine_guards rp_engine_guards;

/** A server or virtual host that has routes for the engine. */
typedef struct rp_engine_host {
    const server_rec *server;
    const rp_server_config *config;
    rp_engine_guards *guards;
    rp_read_limit head;                 /* RequestReadTimeout header=; 0: no mod_reqtimeout */
    rp_read_limit body;                 /* RequestReadTimeout body= */
    int merges_slashes;                 /* MergeSlashes */
    int strict_sni;                     /* SSLStrictSNIVHostCheck on, here or in the main server */
    const char *no_http2;               /* why the engine doesn't take HTTP/2 connections for it;
                                         * NULL: every request for it is the engine's, but for
                                         * those of rp_eligible_needs_http1() */
    rp_engine_route *routes;            /* all routes of the table, also the pipeline's */
    int route_count;
} rp_engine_host;

/** Facts about log formats, anywhere in the configuration: what needn't be prepared for them. */
typedef struct rp_log_needs {
    int env;                            /* %{...}e: rproxy-* variables are looked at */
    int request_fields;                 /* %{...}i */
    int response_fields;                /* %{...}o, or a module that may look */
} rp_log_needs;

/** check_config: decides for every route of every server. OK, or an HTTP status after a message for
 * each route that RProxyEngine on insists upon in vain. */
int rp_eligible_decide(apr_pool_t *pconf, apr_pool_t *ptemp, server_rec *main_server);

/** post_config: tells in the log which lane each route has, and why. */
int rp_eligible_tell(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                     server_rec *main_server);

/** Nonzero if some server has a route for the engine. */
int rp_eligible_any(void);

const rp_log_needs *rp_eligible_log_needs(void);

/** NULL: the server has no route for the engine. */
const rp_engine_host *rp_eligible_host(const server_rec *server);

/** The engine's view of a route that rp_route_match() found in the server's table; NULL: the
 * pipeline's. */
const rp_engine_route *rp_eligible_route(const rp_engine_host *host, const rp_route *route);

/** Why a route of server isn't the engine's: const char *, empty if it is. For RPROXY_EXPLAIN. */
const apr_array_header_t *rp_eligible_reasons(const server_rec *server, const rp_route *route);

/** Nonzero if the engine may serve HTTP/2 on the connection: every virtual host that a request on
 * it can reach has no_http2 == NULL. Protocols isn't looked at. Any thread; once a connection. */
int rp_eligible_http2(conn_rec *c);

/** Who serves the server's HTTP/2 clients, for people: "engine", "mod_http2 (REASON)"; NULL:
 * Protocols doesn't offer it, or it is a main server without rules. */
const char *rp_eligible_http2_text(apr_pool_t *pool, const server_rec *server);

/** Which requests for routes of the engine go to the pipeline all the same, for people:
 * const char *, "/server-status (file:12)". */
const apr_array_header_t *rp_eligible_guards(apr_pool_t *pool, const server_rec *server);

/** Nonzero if the request goes to the pipeline though its route is the engine's. request->path and
 * the fields are set. pool: of the request. */
int rp_eligible_is_guarded(const rp_engine_host *host, apr_pool_t *pool,
                           const rp_request *request);

/** The same for a stream of HTTP/2 where host->no_http2 is NULL: nonzero if the client has to
 * repeat the request in HTTP/1.1 (RFC 9113 section 7, HTTP_1_1_REQUIRED). */
int rp_eligible_needs_http1(const rp_engine_host *host, apr_pool_t *pool,
                            const rp_request *request);

#endif
