/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The public C interface of mod_rproxy.
 *
 * Once the configuration has been read, another module can find out from any thread whether it is
 * loaded:
 *
 *     if (ap_find_linked_module(RPROXY_MODULE_NAME)) ...
 */
#ifndef MOD_RPROXY_H
#define MOD_RPROXY_H

#include "httpd.h"
#include "apr_optional.h"

/** The version these headers belong to. */
#define RPROXY_VERSION_MAJOR 0
#define RPROXY_VERSION_MINOR 1
#define RPROXY_VERSION_PATCH 0
#define RPROXY_VERSION "0.1.0"

/** The name under which the server lists the module. */
#define RPROXY_MODULE_NAME "mod_rproxy.c"

/* Variables in subprocess_env of a proxied request once its exchange has ended, for logs
 * (%{rproxy-total}e) and log_transaction hooks. Times are microseconds. One that doesn't apply
 * isn't set. */
#define RPROXY_ENV_LANE "rproxy-lane"               /* "pipeline" */
#define RPROXY_ENV_DRIVER "rproxy-driver"           /* "parked" or "blocking" */
#define RPROXY_ENV_TARGET "rproxy-target"           /* the rule's target as written */
#define RPROXY_ENV_UPSTREAM "rproxy-upstream"       /* address of the last attempt */
#define RPROXY_ENV_MEMBER "rproxy-member"           /* of the pool, of the last attempt */
#define RPROXY_ENV_REQUEST_ID "rproxy-request-id"
#define RPROXY_ENV_ATTEMPTS "rproxy-attempts"       /* connections tried, replays included */
#define RPROXY_ENV_CONNECT "rproxy-connect"         /* from the start until connected */
#define RPROXY_ENV_FIRST_BYTE "rproxy-first-byte"   /* from the start to the answer's first byte */
#define RPROXY_ENV_TOTAL "rproxy-total"
#define RPROXY_ENV_STATUS "rproxy-status"           /* the upstream's */
#define RPROXY_ENV_REUSED "rproxy-reused"           /* "1": the connection came from the pool */
#define RPROXY_ENV_ERROR "rproxy-error"             /* why it failed, as "connect-timeout" */

/* ---- pools: who serves balancer://NAME/ ------------------------------------------------------ */

/* The core knows targets; what stands behind a name, and which of its members gets a request, is
 * another module's, which registers an rproxy_pools with ap_register_provider() under this group,
 * name and version. The core looks for it once the configuration has been read. Both lanes use it
 * in the same way: from any thread, without blocking, for many requests at once. */
#define RPROXY_POOLS_GROUP "rproxy-pools"
#define RPROXY_POOLS_NAME "default"
#define RPROXY_POOLS_VERSION "1"

/** An address that requests can be sent to. */
typedef struct rproxy_target rproxy_target;

/** Parses http://, https:// or unix:/SOCKET|http://, as RProxyPass does. Returns NULL or a message
 * with a remedy. The target lives in pool, which must be the configuration's. */
APR_DECLARE_OPTIONAL_FN(const char *, rproxy_target_parse,
                        (apr_pool_t *pool, const char *text, rproxy_target **target));

/** What a pool may know of a request. Everything lives as long as the request. */
typedef struct rproxy_request {
    apr_pool_t *pool;
    const char *method;
    const char *host;                   /* without port, lower case; "" if there is none */
    const char *path;                   /* in normal form, encoded; begins with '/' */
    const char *query;                  /* without '?'; NULL: none */
    const char *client_ip;
    const void *fields;                 /* for header() */
    /** Value of the first field with that name, NULL if there is none. */
    const char *(*header)(const struct rproxy_request *request, const char *name);
} rproxy_request;

#define RPROXY_TRIED_MAX 16             /* members that a request remembers to have tried */

/** One request's use of a pool. The core sets pool and request, zeroes the rest and keeps it as
 * long as the exchange; all calls for it come from one thread at a time. */
typedef struct rproxy_use {
    void *pool;                         /* what find() gave */
    const rproxy_request *request;
    int member;                         /* of the attempt under way: the provider's number for it */
    int tried[RPROXY_TRIED_MAX];        /* members of failed attempts; the provider's */
    int tried_count;
    void *data;                         /* the provider's, with the attempt */
    const char *name;                   /* of the member, for logs; set by choose() */
} rproxy_use;

typedef enum rproxy_verdict {
    RPROXY_CHOSEN,                      /* a member was chosen, and counts as in use by it */
    RPROXY_NONE_AVAILABLE,              /* none is up: the request fails with 503 */
    RPROXY_ALL_BUSY                     /* those that are up are at their max=: 503 */
} rproxy_verdict;

/** How an attempt went. Times are microseconds, -1: it did not come to that. */
typedef struct rproxy_result {
    int failed;                         /* nonzero: no connection, broken off, or too late */
    int is_clients_fault;               /* nonzero: it says nothing about the member */
    int status;                         /* of the response, 0: none came */
    apr_interval_time_t connect;        /* until the connection was there */
    apr_interval_time_t first_byte;     /* until the response began */
    apr_interval_time_t total;
    apr_int64_t sent, received;         /* bytes of the bodies */
} rproxy_result;

typedef struct rproxy_pools {
    /** The pool with this name that server sees, NULL: there is none. In check_config and after;
     * lives as long as the configuration. */
    void *(*find)(const server_rec *server, const char *name);

    /** Chooses a member for an attempt; *target is its address. now is microseconds since 1970. */
    rproxy_verdict (*choose)(rproxy_use *use, apr_time_t now, rproxy_target **target);

    /** The attempt is over, once for each RPROXY_CHOSEN. */
    void (*release)(rproxy_use *use, const rproxy_result *result, apr_time_t now);
} rproxy_pools;

#endif
