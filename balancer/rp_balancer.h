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

typedef enum rp_admin_state {
    RP_MEMBER_UP,
    RP_MEMBER_DRAIN,
    RP_MEMBER_DOWN,
    RP_MEMBER_GONE                      /* removed at run time, or nobody has this number */
} rp_admin_state;

/** Why a request goes to a member. */
typedef enum rp_attempt {
    RP_ATTEMPT_USUAL,
    RP_ATTEMPT_TRIAL,                   /* its ejection is over: the result decides */
    RP_ATTEMPT_DESPITE                  /* it is ejected, but there is no other */
} rp_attempt;

typedef struct rp_origin rp_origin;

/** An attempt under way, as rproxy_use.data. */
typedef struct rp_holding {
    rp_origin *origin;
    rp_attempt attempt;
} rp_holding;

/** Of a member, what never changes: that is what a request has of it, while tables with the values
 * come and go. One that was added at run time may be removed meanwhile: then the last request that
 * has seen it frees it. */
struct rp_origin {
    rproxy_member member;               /* as it was first in this child */
    const char *url;
    rproxy_target *target;
    rp_slot *slot;
    unsigned long long incarnation;     /* of the slot: another one there now means it is gone */
    apr_pool_t *pool;                   /* of an added member, its own; NULL: the configuration's */
    atomic_int references;              /* to an added member, by tables and requests */
    rp_holding holdings[RP_ATTEMPT_DESPITE + 1];
};

/** Of a member, what methods don't see. */
typedef struct rp_member {
    rp_origin *origin;                  /* NULL before post_config, and if nobody has this number */
    rproxy_target *target;
    const char *url;                    /* in the form that is compared; public.name as written */
    ap_conf_vector_t *section;          /* what <RProxyMember> sets; NULL: nothing */
    const rproxy_settings *settings;    /* that and the pool's; NULL: there is only the pool's */
    rp_slot *slot;                      /* NULL before post_config */
    apr_uint64_t stanza;                /* hash of its line */
    int is_service;                     /* http+srv://: others serve in its place, never it */
    rp_admin_state state;
    int is_backup;
    const char *zone;                   /* NULL: none */
    const char *route;                  /* what sessions call it; NULL: nothing */
    apr_uint64_t source;                /* what discovery found it by, or for; 0: nothing */
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

/** RProxyRetryBudget. */
typedef struct rp_budget {
    int percent;                        /* of the requests that are at members; 0: off */
    int min;                            /* and as many in addition */
} rp_budget;

extern const rp_budget rp_budget_default;

typedef struct rp_views rp_views;       /* rp_view.c */
typedef struct rp_sticky rp_sticky;     /* rp_sticky.h */

/** The members of a pool as one version of its roster (rp_roster.h) has them. Made in each child
 * when that changes, then immutable; lives as long as the view that has it. The index is a member's
 * number, the same in all children. Where nobody has a number, the state is RP_MEMBER_GONE. */
typedef struct rp_table {
    const rproxy_member *members;
    const rp_member *more;
    int count;                          /* of numbers */
    int up_count;                       /* members that are up */
    void *prepared;                     /* by the method */
    unsigned long long version;         /* of the roster */
    int references;                     /* views; whoever makes these */
    void *entries;                      /* what members point into */
} rp_table;

/** <RProxyBalancer>. */
typedef struct rp_balancer {
    const char *name;                   /* lower case */
    const char *file;
    int line;
    const server_rec *server;
    ap_conf_vector_t *section;          /* what it sets beside its members; NULL: nothing */
    const rproxy_settings *settings;    /* the same, as the core wants it */
    /* As configured, after check_config. Who the members are at run time, tables say. */
    const rproxy_member *members;       /* the same numbers as in more */
    rp_member *more;
    int count;
    const char *zone;                   /* of the server; NULL: none */
    apr_array_header_t *discovered;     /* where members come from: struct rp_source * */
    struct rp_resolve *resolve;         /* RProxyResolve; NULL: none */
    apr_uint64_t stanza;                /* hash of the members' lines */
    const rproxy_method *method;
    const char *method_name;
    void *method_config;
    rp_outlier outlier;
    rp_sticky *sticky;                  /* RProxySticky; NULL: no sessions */
    struct rp_health_check *check;      /* RProxyHealthCheck; NULL: none */
    struct rp_health_check *agent;      /* RProxyHealthCheck agent; NULL: none */
    int queue_max;                      /* RProxyQueue; 0: off */
    apr_interval_time_t queue_timeout;
    rp_budget budget;
    rp_slot *slot;                      /* NULL before post_config */
    rp_slot *retries;                   /* counts requests at further attempts; NULL: no budget */
    rp_queue *queue;                    /* NULL: there is none */
    rp_views *views;
    apr_array_header_t *parsed_members; /* rproxy_member, while the section is read */
    apr_array_header_t *parsed_more;    /* rp_member */
    unsigned int once;                  /* RP_ONCE_*: directives that were there */
} rp_balancer;

/* ---- the configuration (rp_balancer_config.c, rp_balancer_member.c) -------------------------- */

/** Of a server; pool is the configuration's. Also makes what a virtual host sees. */
void *rp_balancer_create_server(apr_pool_t *pool, server_rec *server);
void *rp_balancer_merge_server(apr_pool_t *pool, void *base, void *add);

const char *rp_balancer_section(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_balancer_member(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_balancer_member_section(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_balancer_method(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_balancer_outlier(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_balancer_queue(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_balancer_retry_budget(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_balancer_sticky(cmd_parms *cmd, void *dir, const char *arguments);
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

/** rproxy_pools.settings(). */
const rproxy_settings *rp_balancer_settings(void *pool);

/* rp_names.c */

/** Nonzero if text can be the name of a pool, zone or route: 1 to 64 of a-z, A-Z, 0-9, '.', '_',
 * '-'. */
int rp_balancer_is_name(const char *text);

/** What states are called, wherever they are read, shown or stored. */
extern const char *const rp_state_names[RP_MEMBER_GONE + 1];

/** The state with this name, in any case, of those that can be set. -1: there is none. */
int rp_state_named(const char *name);

/** Two URLs that mean the same server are the same text then: host in lower case, no port that goes
 * without saying, no slash at the end. An address behind '#' stays. */
const char *rp_balancer_normal_url(apr_pool_t *pool, const char *text);

/* rp_claim.c */

/** Gives pools and members their slots; what the method left there goes if it is another one now,
 * and so does what the roster says of members whose lines were edited. now is 0 with fresh memory:
 * then slow start has nothing to do. pool is the configuration's. Under the roster's lock. Nonzero:
 * there are enough. */
int rp_balancer_claim(apr_pool_t *pool, rp_balancer *balancer, apr_time_t now);

/** At run time: a slot for the member with this URL (in the form that is compared). */
rp_slot *rp_balancer_claim_late(const rp_balancer *balancer, const char *url, int *is_new);

/* ---- requests (rp_choose.c); any thread of a child ------------------------------------------- */

rproxy_verdict rp_balancer_choose(rproxy_use *use, apr_time_t now, rproxy_target **target);
void rp_balancer_release(rproxy_use *use, const rproxy_result *result, apr_time_t now);

/** Whoever waits put aside: a member, and a place there, or why there is none. */
rproxy_verdict rp_choose_member(rp_balancer *balancer, rproxy_use *use, apr_time_t now);

/** Nonzero if a request that asks now gets a member, or hears that there is none, without waiting;
 * with use, this request. */
int rp_balancer_has_room(rp_balancer *balancer, const rproxy_use *use, apr_time_t now);

/* ---- requests that wait (rp_waiting.c); any thread of a child -------------------------------- */

/** rp_choose_member() for a pool with a queue: or the request waits. */
rproxy_verdict rp_waiting_choose(rp_balancer *balancer, rproxy_use *use, apr_time_t now);

/** rproxy_pools.leave(). */
void rp_balancer_leave(rproxy_use *use);

/** In each child, after rp_shared_enter(): starts the thread if pools (rp_balancer *) have queues.
 * It ends with child_pool. */
apr_status_t rp_waiting_start(apr_pool_t *child_pool, const apr_array_header_t *all);

/* ---- the retry budget (rp_budget.c); any thread of a child ----------------------------------- */

/** rproxy_pools.retry(). */
int rp_balancer_retry(rproxy_use *use);

/** An attempt was released. */
void rp_budget_released(rproxy_use *use);

/** The request is over. */
void rp_budget_end(rproxy_use *use);

/* ---- views (rp_view.c) ----------------------------------------------------------------------- */

/** Who can be chosen now: a snapshot for one child, made anew when the pool's version says that
 * something has changed, and when its time is over. */
typedef struct rp_view_group {
    rproxy_set set;
    void *built;
} rp_view_group;

typedef struct rp_view {
    atomic_int readers;
    rp_table *table;
    unsigned long long version;
    apr_time_t valid_until;
    rp_view_group groups[RP_RANKS];     /* by rank; those without members have a count of 0 */
    int *numbers, *weights, *places;    /* what the sets point into */
} rp_view;

/** Before children, after the members have their slots; pool is the configuration's. Nonzero: done;
 * 0: there is no memory. */
int rp_views_create(apr_pool_t *pool, rp_balancer *balancer, apr_time_t now);

/** The current view. Nobody changes it before it is left. */
rp_view *rp_view_enter(rp_balancer *balancer, apr_time_t now);
void rp_view_leave(rp_view *view);

/* ---- tables (rp_table.c); one thread at a time, as it makes a view --------------------------- */

/** The table for the roster as it is now; what old, which may be NULL, knows of members stays.
 * NULL: there is no memory, or somebody changes the roster just now. */
rp_table *rp_table_make(const rp_balancer *balancer, const rp_table *old);
void rp_table_free(const rp_balancer *balancer, rp_table *table);

/** Of a configured member, which keeps it; the member has its slot. */
void rp_origin_configure(apr_pool_t *pool, const rproxy_member *member, rp_member *more);

/** A request, which lives as long as pool, has the member from now on; the member's table is still
 * there. */
void rp_origin_keep(rp_origin *origin, apr_pool_t *pool);

/** Of a member in this pool; see RP_RANKS. */
int rp_member_rank(const rp_balancer *balancer, const rp_member *member);

/* ---- passive health (rp_outlier.c); any thread of a child ------------------------------------ */

/** What the member is for requests now, ejections aside: what administrators say, unless active
 * checks or its agent say less. RP_MEMBER_DRAIN: only for those of its sessions. */
rp_admin_state rp_member_state(const rp_balancer *balancer, const rp_member *member);

/** Nonzero if a request may go to the member: it is not ejected, or its time is over and nobody
 * else tries whether it is back. *until is when that changes by itself, 0: not at all. */
int rp_member_is_usable(const rp_slot *slot, apr_time_t now, apr_time_t *until);

/** Nonzero if the member has as many requests as its max= and its agent allow. rp_choose.c. */
int rp_member_is_at_max(const rp_table *table, int number);

/** Nonzero if an attempt of the request has failed there. */
static inline int rp_has_tried(const rproxy_use *use, int number)
{
    for (int i = 0; i < use->tried_count; i++) {
        if (use->tried[i] == number)
            return 1;
    }
    return 0;
}

/** For a member that is usable: nonzero if the request may go there. If the member's ejection is
 * over the request becomes the only one that tries it. */
int rp_outlier_begin(rp_balancer *balancer, rp_slot *slot, const rproxy_request *request,
                     apr_time_t now, rp_attempt *attempt);

/** A request has left the member. */
void rp_outlier_finished(rp_balancer *balancer, const rp_holding *holding,
                         const rproxy_result *result, apr_time_t now);

/** An active check, which began at began, has passed: an ejection that is older ends now, so that
 * the next request may try the member. */
void rp_outlier_passed(rp_balancer *balancer, rp_slot *slot, apr_time_t began, apr_time_t now);

/** The member is back after it was down: no ejection counts any more. */
void rp_outlier_forgive(rp_balancer *balancer, rp_slot *slot, const char *name, apr_time_t now);

/** Tells all children that members have become usable or unusable. */
void rp_balancer_changed(rp_balancer *balancer);

/* ---- what is shown (rp_balancer_status.c) ---------------------------------------------------- */

void rp_balancer_register_status(void);

/** What a member is now, in one word. Unhealthy and unchecked are those of which active checks say
 * so. */
typedef enum rp_shown {
    RP_SHOWN_UP, RP_SHOWN_DRAIN, RP_SHOWN_DOWN, RP_SHOWN_EJECTED, RP_SHOWN_UNHEALTHY,
    RP_SHOWN_UNCHECKED, RP_SHOWN_COUNT
} rp_shown;

extern const char *const rp_shown_names[RP_SHOWN_COUNT];

rp_shown rp_member_shown(const rp_balancer *balancer, const rp_member *member);

/* rp_counts.c */

/** An attempt at the member of this slot, one of the pool with that, is over; use->tried is as it
 * was when it began. Any thread of a child. */
void rp_counts_attempt(rp_slot *member, rp_slot *pool, const rproxy_use *use,
                       const rproxy_result *result);

/** A request got no member. */
void rp_counts_unserved(rp_slot *pool, rproxy_verdict verdict);

/* rp_balancer_metrics.c */

/** Registers what goes onto the page of rproxy-metrics. */
void rp_balancer_register_metrics(apr_pool_t *pool);

/* ---- methods (rp_method_*.c) ----------------------------------------------------------------- */

extern const rproxy_method rp_method_bytraffic, rp_method_first, rp_method_hash,
    rp_method_leastconn, rp_method_leasttime, rp_method_random2, rp_method_roundrobin;

void rp_balancer_register_methods(apr_pool_t *pool);

#endif
