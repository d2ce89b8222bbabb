/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxySticky: sessions, i.e. requests that belong to the member that served the client before.
 * What says so is in the request; what is set up for it is immutable once the configuration is
 * read. */
#ifndef RP_STICKY_H
#define RP_STICKY_H

#include "balancer/rp_balancer.h"
#include "balancer/rp_seal.h"

typedef enum rp_sticky_kind {
    RP_STICKY_COOKIE,                   /* our own */
    RP_STICKY_ROUTE,                    /* the application's, with the route of a member */
    RP_STICKY_LEARN,                    /* the application's, remembered */
    RP_STICKY_HEADER,                   /* hash of a field */
    RP_STICKY_IP                        /* hash of the client's address */
} rp_sticky_kind;

/** When the session's member can't be had. */
typedef enum rp_sticky_down {
    RP_DOWN_REPIN,                      /* it goes to another one, for good */
    RP_DOWN_TEMPORARY,                  /* until its own is back */
    RP_DOWN_FAIL                        /* 503 */
} rp_sticky_down;

typedef enum rp_sticky_secure { RP_SECURE_AUTO, RP_SECURE_ON, RP_SECURE_OFF } rp_sticky_secure;

struct rp_sticky {
    rp_sticky_kind kind;
    rp_sticky_down down;
    const char *name;                   /* of the cookie or header; NULL: ip */
    const char *param;                  /* ROUTE: of the path or query */
    /* COOKIE: */
    apr_uint32_t ttl;                   /* seconds, 0: until the browser ends */
    rp_sticky_secure secure;
    const char *attributes;             /* of Set-Cookie, Secure apart: "; Path=/" */
    const apr_array_header_t *keys;     /* of key=: rp_span; NULL: the server's own */
    const rp_seal *seal;                /* NULL before post_config */
};

/* ---- the configuration (rp_sticky_config.c, rp_sticky_key.c) --------------------------------- */

/** What only the whole pool can tell. NULL, or a message. */
const char *rp_sticky_complete(apr_pool_t *pool, const rp_balancer *balancer);

/** The parent, in post_config: keys and tables for all pools (rp_balancer *). Nonzero: they are
 * there, else the log says why not. */
int rp_sticky_start(apr_pool_t *pconf, apr_pool_t *ptemp, const server_rec *server,
                    const apr_array_header_t *all);

/** The key for pools without key=: made once, kept while the server runs, and in a file for the
 * time after. NULL: there is no random number to be had. */
const apr_array_header_t *rp_sticky_own_key(apr_pool_t *pool, const server_rec *server);

/* ---- requests (rp_sticky.c); any thread of a child ------------------------------------------- */

/** What a request says of its session; in its pool, rproxy_use.session. */
typedef struct rp_session {
    int member;                         /* that it is on; -1: none */
    const char *by;                     /* name of the cookie, parameter or header that says so */
    const char *route;                  /* ROUTE: as the request has it, known or not; or NULL */
    apr_uint64_t learned;               /* LEARN: key of its value; 0: the request has none */
    unsigned int is_known:1;            /* LEARN: it is in the table */
    unsigned int is_stale:1;            /* COOKIE: time to set it anew */
    unsigned int was_busy:1;            /* its member could take no more requests */
} rp_session;

/** The session of the request; NULL if the pool has no RProxySticky. Also sets use->cookie. */
rp_session *rp_sticky_session(const rp_balancer *balancer, const rp_table *table,
                              rproxy_use *use, apr_time_t now);

/** Nonzero if its member can't be replaced without loss: it has not just been chosen by a hash. */
static inline int rp_session_is_bound(const rp_sticky *sticky, const rp_session *session)
{
    return sticky->kind < RP_STICKY_LEARN || session->is_known;
}

static inline int rp_session_is_on(const rproxy_use *use, int number)
{
    const rp_session *session = use->session;

    return session && session->member == number;
}

/** rproxy_pools.answer() */
void rp_sticky_answer(rproxy_use *use, rproxy_answer *answer, apr_time_t now);

/** Nonzero if the request waits for one member, whatever is free elsewhere. */
static inline int rp_session_waits(const rproxy_use *use)
{
    const rp_session *session = use->session;

    return session && session->was_busy;
}

/** rproxy_pools.variables(): those that mod_proxy sets. */
void rp_sticky_variables(const rproxy_use *use, apr_pool_t *pool, apr_table_t *env);

/** Nonzero if a cache that many clients share may give the response to others because it says so
 * (RFC 9111 section 3); *is_private: none may. */
int rp_answer_is_shared(const rproxy_answer *answer, apr_time_t now, int *is_private);

#endif
