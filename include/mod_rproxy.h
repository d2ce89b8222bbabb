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
#include "apr_tables.h"

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
#define RPROXY_ENV_QUEUE "rproxy-queue"             /* waited for a member of the pool */
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

/** Parses http://, https:// or unix:/SOCKET|http://, as RProxyPass does; or one of the first two
 * with #ADDRESS behind it, which is where connections go instead of to what the host's name means.
 * Returns NULL or a message with a remedy. The target lives in pool: the configuration's, or one
 * that isn't destroyed before rproxy_target_drop(). At run time from any thread. */
APR_DECLARE_OPTIONAL_FN(const char *, rproxy_target_parse,
                        (apr_pool_t *pool, const char *text, rproxy_target **target));

/** A target that isn't the configuration's: no request has it any more, nor ever will. Gives back
 * what is remembered of it. From any thread of the child that used it. */
APR_DECLARE_OPTIONAL_FN(void, rproxy_target_drop, (rproxy_target *target));

/** What directives of the core say in sections about a pool or a member of it. It comes before what
 * the request's server and sections say, key by key. Constant. */
typedef struct rproxy_settings rproxy_settings;

/** Names of the directives that may stand in such a section, NULL at the end. of_member: in one
 * about a single member, so without those that are needed before a member has been chosen. */
APR_DECLARE_OPTIONAL_FN(const char *const *, rproxy_settings_directives, (int of_member));

/** What was set in the per-directory configurations that the sections were read into, each NULL if
 * there is none; the member's comes first. NULL: nothing. */
APR_DECLARE_OPTIONAL_FN(const rproxy_settings *, rproxy_settings_make,
                        (apr_pool_t *pool, const struct ap_conf_vector_t *pool_section,
                         const struct ap_conf_vector_t *member_section));

/** How a connection of another module's to a member with these settings (NULL: none) does TLS, as
 * requests of the server outside of all sections would: *name is name= of RProxyTLS, NULL: the
 * member's host. In children. The context is that of the core's connections: it is not to be
 * changed, and SSL_set_app_data() not to be used. NULL: it was not made. */
APR_DECLARE_OPTIONAL_FN(struct ssl_ctx_st *, rproxy_settings_tls,
                        (const server_rec *server, const rproxy_settings *settings,
                         const char **name));

/** RProxyResolver, for what else looks names up. Constant. */
typedef struct rproxy_resolver {
    const char *servers;                /* for c-ares, with commas between; NULL: the system's */
    apr_interval_time_t min_ttl, max_ttl;
    apr_interval_time_t timeout;        /* of one lookup */
} rproxy_resolver;

/** That of the main server. In children. */
APR_DECLARE_OPTIONAL_FN(const rproxy_resolver *, rproxy_resolver_get,
                        (const server_rec *main_server));

/** What a pool may know of a request. Everything lives as long as the request. */
typedef struct rproxy_request {
    apr_pool_t *pool;
    const char *method;
    const char *scheme;                 /* "http" or "https", as the client reached us */
    const char *host;                   /* without port, lower case; "" if there is none */
    const char *path;                   /* in normal form, encoded; begins with '/' */
    const char *query;                  /* without '?'; NULL: none */
    const char *client_ip;
    const void *fields;                 /* for header() and next() */
    /** Value of the first field with that name, NULL if there is none. */
    const char *(*header)(const struct rproxy_request *request, const char *name);
    /** Value of the next field with that name from *position on, which moves behind it; 0 at first.
     * NULL: no more. */
    const char *(*next)(const struct rproxy_request *request, const char *name, int *position);
} rproxy_request;

/** A final response, or a 101, before it is sent to the client. */
typedef struct rproxy_answer {
    int status;
    void *fields;                       /* for next() and add() */
    /** As in rproxy_request: of the fields that the client is going to get. */
    const char *(*next)(const struct rproxy_answer *answer, const char *name, int *position);
    /** Adds a field. Both strings live as long as the request. */
    void (*add)(struct rproxy_answer *answer, const char *name, const char *value);
} rproxy_answer;

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
    void *session;                      /* the provider's, with the request */
    const char *name;                   /* of the member, for logs; set by choose() */
    const rproxy_settings *settings;    /* of the pool and the member; NULL: none; by choose() */
    const char *route;                  /* the provider's, with the attempt */
    const char *cookie;                 /* the Cookie field for the member instead of the client's,
                                         * "": none; NULL: as it came; set by choose() */
    int wait_fd;                        /* while RPROXY_QUEUED: readable, choose() is to be called
                                         * again; the provider's, only to be waited for */
    apr_time_t wait_until;              /* and then at the latest; set by choose() */
    void *waiting;                      /* the provider's, while RPROXY_QUEUED */
    int retry;                          /* the provider's, over all attempts */
} rproxy_use;

typedef enum rproxy_verdict {
    RPROXY_CHOSEN,                      /* a member was chosen, and counts as in use by it */
    RPROXY_NONE_AVAILABLE,              /* none is up: the request fails with 503 */
    RPROXY_ALL_BUSY,                    /* those that are up are at their max=: 503 */
    RPROXY_QUEUED,                      /* the request waits for a member that is: see wait_fd */
    RPROXY_QUEUE_FULL,                  /* too many wait already: 503 */
    RPROXY_QUEUE_TIMEOUT                /* it has waited too long: 503 */
} rproxy_verdict;

/** How an attempt went. Times are microseconds, -1: it did not come to that. */
typedef struct rproxy_result {
    int failed;                         /* nonzero: no connection, broken off, or too late */
    int is_clients_fault;               /* nonzero: it says nothing about the member */
    int was_idle;                       /* nonzero: it failed because the connection, an idle one,
                                         * was closed when the request came; it is sent again */
    int reason;                         /* why it failed, whoever's fault it is; 0: it did not. Its
                                         * name: mod_rproxy_metrics.h */
    int reused;                         /* nonzero: on a connection that was open already */
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

    /** The pool's own settings, NULL: none. They hold until a member has been chosen. */
    const rproxy_settings *(*settings)(void *pool);

    /** Chooses a member for an attempt; *target is its address. now is microseconds since 1970. */
    rproxy_verdict (*choose)(rproxy_use *use, apr_time_t now, rproxy_target **target);

    /** A request that waits gives up. Not after any other verdict. NULL: requests never wait. */
    void (*leave)(rproxy_use *use);

    /** An attempt has failed, but is not released yet: nonzero if there may be another one. NULL:
     * always. */
    int (*retry)(rproxy_use *use);

    /** The attempt is over, once for each RPROXY_CHOSEN. */
    void (*release)(rproxy_use *use, const rproxy_result *result, apr_time_t now);

    /** Once for a request, while its last attempt is under way: the member's response is going to
     * be sent. NULL: never. */
    void (*answer)(rproxy_use *use, rproxy_answer *answer, apr_time_t now);

    /** Adds variables to env, for logs and for what handles the response; they live as long as
     * pool. Called after a choose() that chose a member, perhaps twice. NULL: there are none. */
    void (*variables)(const rproxy_use *use, apr_pool_t *pool, apr_table_t *env);
} rproxy_pools;

#endif
