/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Members that providers find (include/mod_rproxy_balancer.h): who is asked for which pool, and how
 * what they find becomes part of its roster. The child that leads does it. */
#ifndef RP_DISCOVERY_H
#define RP_DISCOVERY_H

#include "balancer/rp_balancer.h"
#include "balancer/rp_keeper.h"

#define RP_DISCOVERY_AGAIN APR_USEC_PER_SEC             /* first pause after a failure */
#define RP_DISCOVERY_PAUSE (60 * APR_USEC_PER_SEC)      /* the longest one */

/** Of a pool: a line that names a provider, or a member whose name is looked up. */
typedef struct rp_source {
    rproxy_source public;               /* first */
    const rproxy_discovery *provider;
    rp_balancer *balancer;
    const char *who;                    /* "file /etc/app.json", for logs and the journal */
    apr_uint64_t id;                    /* hash of who, in this pool */
    const rp_member *member;            /* whose name it is; NULL: none */
    rp_keeper_timer timer;
    apr_hash_t *watches;                /* by descriptor */
    unsigned int failures;              /* in a row */
    int has_bad;                        /* of what was found last something wasn't taken */
} rp_source;

/** RProxyResolve. */
typedef struct rp_resolve {
    apr_interval_time_t ttl;            /* -1: as DNS says */
    apr_interval_time_t min, max;       /* -1: as RProxyResolver says */
    int ipv4, ipv6;
    const char *servers;                /* for c-ares; NULL: those of RProxyResolver */
} rp_resolve;

/* ---- the configuration (rp_discovery_config.c) ----------------------------------------------- */

const char *rp_discovery_directive(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_discovery_members_file(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_discovery_resolve(cmd_parms *cmd, void *dir, const char *arguments);

/** Nonzero if the URL of a member is a service (http+srv://); *url is where its members would be,
 * for what checks URLs. */
int rp_discovery_is_service(apr_pool_t *pool, const char *text, const char **url);

/** In check_config, when all of the section is known. Returns NULL or a message. */
const char *rp_discovery_complete(apr_pool_t *pool, rp_balancer *balancer);

/** In post_config: what there is to ask becomes a duty of the keeper. */
void rp_discovery_add_duty(void);

/* ---- what was found (rp_roster_sync.c) ------------------------------------------------------- */

/** These are the members that source has now, no others. NULL, or what was wrong with one of them;
 * it lives in pool. */
const char *rp_roster_sync(rp_balancer *balancer, const rp_source *source,
                           const rproxy_found *found, int count, apr_pool_t *pool);

/* ---- providers ------------------------------------------------------------------------------- */

extern const rproxy_discovery rp_discovery_file, rp_discovery_dns;

/** What rp_discovery_dns asks for: its config. */
typedef struct rp_dns_source {
    const rp_resolve *resolve;
    const char *scheme;                 /* "http" or "https" */
    const char *name;                   /* host or service */
    int port;
    const char *base;                   /* path behind the host; "": none */
    int is_service;
    const rproxy_member *member;        /* what those found are like */
    const rp_member *more;
} rp_dns_source;

void rp_discovery_register(apr_pool_t *pool);

#endif
