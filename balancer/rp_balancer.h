/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The balancer inside: a pool of members as the configuration describes it, and how a request gets
 * one. Written while the configuration is read, completed in check_config and post_config,
 * immutable afterwards but for views, which are each child's own. */
#ifndef RP_BALANCER_H
#define RP_BALANCER_H

#include <apr_hash.h>
#include "httpd.h"
#include "http_config.h"
#include "balancer/rp_shared.h"

typedef enum rp_admin_state { RP_MEMBER_UP, RP_MEMBER_DRAIN, RP_MEMBER_DOWN } rp_admin_state;

/** Of a member, what methods don't see. */
typedef struct rp_member {
    rproxy_target *target;
    const char *url;                    /* in the form that is compared; public.name as written */
    rp_slot *slot;                      /* NULL before post_config */
    rp_admin_state state;
    int is_backup;
    const char *zone;                   /* NULL: none */
    apr_interval_time_t slow_start;     /* 0: none */
    int rank;                           /* of those that can serve, the lowest rank does */
} rp_member;

/** 0: a primary of this zone; 1: of another; 2 and 3: backups. */
#define RP_RANKS 4

/** RProxyOutlier. */
typedef struct rp_outlier {
    int errors;                         /* 0: off */
    apr_interval_time_t window, eject, max_eject;
    int max_percent;
} rp_outlier;

extern const rp_outlier rp_outlier_default;

typedef struct rp_views rp_views;       /* rp_view.c */

/** <RProxyBalancer>. */
typedef struct rp_balancer {
    const char *name;                   /* lower case */
    const char *file;
    int line;
    const server_rec *server;
    const rproxy_member *members;       /* after check_config; the same numbers as in more */
    rp_member *more;
    int count;
    int up_count;                       /* members that are up */
    const rproxy_method *method;
    const char *method_name;
    void *method_config;
    rp_outlier outlier;
    rp_slot *slot;                      /* NULL before post_config */
    rp_views *views;
    apr_array_header_t *parsed_members; /* rproxy_member, while the section is read */
    apr_array_header_t *parsed_more;    /* rp_member */
    int has_method, has_outlier;
} rp_balancer;

/* ---- the configuration (rp_balancer_config.c, rp_balancer_member.c) -------------------------- */

/** Of a server; pool is the configuration's. Also makes what a virtual host sees. */
void *rp_balancer_create_server(apr_pool_t *pool, server_rec *server);
void *rp_balancer_merge_server(apr_pool_t *pool, void *base, void *add);

const char *rp_balancer_section(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_balancer_member(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_balancer_method(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_balancer_outlier(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_balancer_zone(cmd_parms *cmd, void *dir, const char *name);

/** Forgets the last configuration. */
int rp_balancer_begin(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp);

/** Completes pools, before those who look for them. */
int rp_balancer_check(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *server);

/** Makes or finds shared memory. */
int rp_balancer_post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                            server_rec *server);

/** All pools in the order of the configuration: rp_balancer *. NULL before check_config. */
const apr_array_header_t *rp_balancer_all(void);

/** rproxy_pools.find(). */
void *rp_balancer_find(const server_rec *server, const char *name);

/* rp_claim.c */

/** Gives pools and members their slots; what the method left there goes if it is another one now.
 * now is 0 with fresh memory: then slow start has nothing to do. Nonzero: there are enough. */
int rp_balancer_claim(rp_balancer *balancer, apr_time_t now);

/* ---- requests (rp_choose.c); any thread of a child ------------------------------------------- */

rproxy_verdict rp_balancer_choose(rproxy_use *use, apr_time_t now, rproxy_target **target);
void rp_balancer_release(rproxy_use *use, const rproxy_result *result, apr_time_t now);

/* ---- views (rp_view.c) ----------------------------------------------------------------------- */

/** Who can be chosen now: a snapshot for one child, made anew when the pool's version says that
 * something has changed, and when its time is over. */
typedef struct rp_view_group {
    rproxy_set set;
    void *built;
} rp_view_group;

typedef struct rp_view {
    atomic_int readers;
    unsigned long long version;
    apr_time_t valid_until;
    rp_view_group groups[RP_RANKS];     /* by rank; those without members have a count of 0 */
    int *numbers, *weights, *places;    /* what the sets point into */
} rp_view;

/** Before children, after the members have their slots; pool is the configuration's. */
void rp_views_create(apr_pool_t *pool, rp_balancer *balancer);

/** The current view; NULL: there is none yet, for another thread makes it, or there is no memory.
 * Nobody changes it before it is left. */
rp_view *rp_view_enter(rp_balancer *balancer, apr_time_t now);
void rp_view_leave(rp_view *view);

/* ---- passive health (rp_outlier.c); any thread of a child ------------------------------------ */

/** Nonzero if a request may go to the member: it is not ejected, or its time is over and nobody
 * else tries whether it is back. *until is when that changes by itself, 0: not at all. */
int rp_member_is_usable(const rp_slot *slot, apr_time_t now, apr_time_t *until);

/** Why a request goes to a member. */
typedef enum rp_attempt {
    RP_ATTEMPT_USUAL,
    RP_ATTEMPT_TRIAL,                   /* its ejection is over: the result decides */
    RP_ATTEMPT_DESPITE                  /* it is ejected, but there is no other */
} rp_attempt;

/** For a member that is usable: nonzero if the request may go there. If the member's ejection is
 * over the request becomes the only one that tries it. */
int rp_outlier_begin(rp_balancer *balancer, int number, const rproxy_request *request,
                     apr_time_t now, rp_attempt *attempt);

/** A request has left the member. */
void rp_outlier_finished(rp_balancer *balancer, int number, const rproxy_result *result,
                         rp_attempt attempt, apr_time_t now);

/** Tells all children that members have become usable or unusable. */
void rp_balancer_changed(rp_balancer *balancer);

/* ---- what is shown (rp_balancer_status.c) ---------------------------------------------------- */

void rp_balancer_register_status(void);

/* ---- methods (rp_method_*.c) ----------------------------------------------------------------- */

extern const rproxy_method rp_method_bytraffic, rp_method_first, rp_method_hash,
    rp_method_leastconn, rp_method_leasttime, rp_method_random2, rp_method_roundrobin;

void rp_balancer_register_methods(apr_pool_t *pool);

#endif
