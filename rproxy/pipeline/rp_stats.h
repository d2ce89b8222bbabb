/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Counters for the status page, in shared memory: each child counts in a slot of its own (no line
 * of memory is shared on the request path); a slot whose child has died is added to the totals.
 * They live over graceful restarts. */
#ifndef RP_STATS_H
#define RP_STATS_H

#include "httpd.h"
#include "rproxy/rp_reason.h"

#define RP_STAT_H2_NUISANCE_COUNT 9     /* names in rp_stats.c */

typedef enum rp_stat {
    RP_STAT_REQUESTS,                   /* exchanges started */
    RP_STAT_CONNECTS,                   /* attempts on new connections */
    RP_STAT_REUSES,                     /* attempts on pooled connections */
    RP_STAT_RETRIES,                    /* attempts beyond the first */
    RP_STAT_BYTES_SENT,                 /* request body bytes to upstreams */
    RP_STAT_BYTES_RECEIVED,             /* response body bytes from upstreams */
    RP_STAT_ACTIVE,                     /* exchanges running now: a gauge, as are the next two */
    RP_STAT_PARKED,                     /* of them, parked now */
    RP_STAT_TUNNELS,                    /* of them, tunnels */
    RP_STAT_ERRORS,                     /* RP_STAT_ERRORS + reason: exchanges that ended so */
    RP_STAT_H2_NUISANCES = RP_STAT_ERRORS + RP_REASON_COUNT,    /* + what: HTTP/2 connections that
                                         * were ended for too many of it */
    RP_STAT_COUNT = RP_STAT_H2_NUISANCES + RP_STAT_H2_NUISANCE_COUNT
} rp_stat;

/** In post_config: makes the memory once for the life of the server process. */
apr_status_t rp_stats_create(apr_pool_t *process_pool);

/** In child_init: claims a slot; given back with pool. */
void rp_stats_child_init(apr_pool_t *pool);

/** Adds n to this child's slot. Any thread; does nothing before rp_stats_child_init(). */
void rp_stats_add(int stat, apr_int64_t n);

/** Sum over all children, gauges over living ones. */
apr_int64_t rp_stats_sum(int stat);

/** What clients of HTTP/2 may send too many of, for people. */
extern const char *const rp_stats_h2_nuisances[RP_STAT_H2_NUISANCE_COUNT];

/** Registers the section of mod_status. */
void rp_stats_register_hooks(void);

#endif
