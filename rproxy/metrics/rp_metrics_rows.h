/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Counters of rules, in shared memory that lives as long as the server process: a row for each
 * rule, known by what it is called on the page, so that a rule which stays keeps its counts over
 * restarts of the configuration. Row 0 is for all that have none of their own.
 *
 * A row has a cell in each of several stripes. Each thread counts in one stripe, mostly its own, so
 * that threads don't fight for the same lines of memory; who reads sums them up. Counts are never
 * taken back: a child that is killed leaves right ones behind. Only what is in flight is counted
 * for each child, and goes with it. */
#ifndef RP_METRICS_ROWS_H
#define RP_METRICS_ROWS_H

#include <apr_pools.h>
#include "include/mod_rproxy_metrics.h"

typedef enum rp_metrics_lane {
    RP_METRICS_ENGINE, RP_METRICS_PIPELINE, RP_METRICS_LANES
} rp_metrics_lane;

/** A thread's counts of a rule, relaxed atomics. What each request touches comes first. */
typedef struct rp_metrics_cell {
    _Alignas(64) atomic_ullong requests[RP_METRICS_LANES][RPROXY_STATUS_CLASSES];
    atomic_ullong opened, reused;       /* connections of last attempts */
    atomic_ullong sent, received;       /* bytes of bodies */
    rproxy_histogram first_byte, total;
    atomic_ullong retries;              /* attempts beyond the first */
    atomic_ullong errors[RPROXY_REASONS_MAX];
} rp_metrics_cell;

/** All counts of a rule. */
typedef struct rp_metrics_values {
    apr_uint64_t requests[RP_METRICS_LANES][RPROXY_STATUS_CLASSES];
    apr_uint64_t opened, reused, sent, received;
    rproxy_histogram_values first_byte, total;
    apr_uint64_t retries;
    apr_uint64_t errors[RPROXY_REASONS_MAX];
    apr_int64_t in_flight;
} rp_metrics_values;

/** The parent, in post_config: makes the memory, with room for more rows than wanted, or finds that
 * of the last configuration. process_pool is the process's, temp_pool lives until the last claim;
 * max_children is how many may live at once. */
apr_status_t rp_metrics_rows_open(apr_pool_t *process_pool, apr_pool_t *temp_pool, int wanted,
                                  int max_children);

/** The parent, after open: the row that is called so; 0: there is no room for another one. *is_new:
 * nothing else of this configuration has asked for it. */
int rp_metrics_row_claim(const char *identity, int *is_new);

/** In child_init; until pool goes. */
void rp_metrics_rows_enter(apr_pool_t *pool);

/** Where this thread counts for the row with this number, NULL: nowhere, there is no memory. */
rp_metrics_cell *rp_metrics_cell_of(int number);

/** A request begins (1) or has ended (-1). */
void rp_metrics_in_flight(int number, int change);

/** Forgets what is in flight in children that are dead. Any process, before it reads. */
void rp_metrics_rows_settle(void);

/** The sums over all stripes and children. */
void rp_metrics_row_read(int number, rp_metrics_values *values);

#endif
