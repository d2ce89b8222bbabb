/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Active health: RProxyHealthCheck. The leading child's keeper makes the checks and writes what
 * comes of them into the members' slots, where all children read it. */
#ifndef RP_HEALTH_H
#define RP_HEALTH_H

#include "balancer/rp_balancer.h"
#include "balancer/rp_probe.h"

/** One RProxyHealthCheck. */
typedef struct rp_health_check {
    rp_probe_settings probe;
    const char *kind;
    const char *text;                   /* the directive's words: those with the same text share
                                         * their checks of the same URL */
    apr_interval_time_t interval;       /* between starts, while all is as it was */
    apr_interval_time_t fast;           /* while results say something else, or none is there yet */
    apr_interval_time_t down_interval;  /* while the member is down */
    int rise, fall;
    int waits;                          /* a member isn't used before it has passed a check */
    int panic_percent;                  /* fewer up than that: all are used */
    int has_tls;                        /* verify= or ca= stand there: not as RProxyTLS says */
    const char *ca;                     /* NULL: those of the system */
} rp_health_check;

/* ---- the configuration (rp_health_config.c) -------------------------------------------------- */

const char *rp_health_directive(cmd_parms *cmd, void *dir, const char *arguments);

/** In check_config: loads what checks need. Returns NULL or a message with a remedy. */
const char *rp_health_complete(apr_pool_t *pool, rp_balancer *balancer);

/** In post_config: the checks of all pools become a duty of the keeper, if there are any. */
void rp_health_add_duty(void);

/* ---- what is known (rp_health_state.c); any thread ------------------------------------------- */

/** What a member that is state as far as administrators are concerned is for requests. */
rp_admin_state rp_health_limit(const rp_balancer *balancer, const rp_slot *slot,
                               rp_admin_state state);

/** The leader: looks whether so few members are up that all are used, and sets the pool's panic.
 * Nonzero if that is another value now. */
int rp_health_look_for_panic(rp_balancer *balancer);

/** The share of its weight that the member's agent wants, in percent. */
int rp_health_percent(const rp_balancer *balancer, const rp_slot *slot);

/** max as configured or less, as the member's agent wants; 0: no limit. */
int rp_health_max(const rp_slot *slot, int max);

/** For display. */
typedef struct rp_health_view {
    int is_checked;
    int health;                         /* rp_health */
    int agent_mode, agent_health;       /* RPROXY_ADVICE_*; 0: nothing said */
    int percent, max;                   /* -1: nothing said */
    apr_time_t since;                   /* when health became what it is; 0: never decided */
    apr_time_t checked_at;              /* the end of the last check; 0: none */
    apr_interval_time_t latency;        /* of the last check */
    apr_uint64_t checks, failures;
    char cause[RPROXY_CAUSE_BYTES];     /* of the last failure; "": none */
} rp_health_view;

void rp_health_look(const rp_balancer *balancer, const rp_slot *slot, rp_health_view *view);

/** "up", "down", or "unknown"; "unchecked" in a pool without checks. */
const char *rp_health_name(const rp_health_view *view);

/** The leader: writes down why a check has failed. */
void rp_health_write_cause(rp_slot *slot, const char *cause);

#endif
