/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Lane threads: they run httpd's pipeline for requests that the engine hands over. Threads of ours,
 * since the MPM counts a worker that runs a timed callback as idle, and offers no other way back.
 * Made when they are needed, up to ThreadsPerChild of them. */
#ifndef RP_LANE_H
#define RP_LANE_H

#include <apr_pools.h>
#include <apr_thread_proc.h>
#include "httpd.h"
#include "scoreboard.h"

/** The thread that runs a job, and its place in the scoreboard (NULL: none). */
typedef struct rp_lane_thread {
    apr_thread_t *thread;
    ap_sb_handle_t *sbh;
    long id;                            /* for conn_rec.id, see rp_engine_connection_id() */
} rp_lane_thread;

/** Embed; must stay until run is called. */
typedef struct rp_lane_job {
    struct rp_lane_job *next;
    void (*run)(struct rp_lane_job *job, const rp_lane_thread *thread);
} rp_lane_job;

/** In child_init; up to so many threads, which end with the process. */
apr_status_t rp_lane_start(apr_pool_t *child_pool, int threads);

/** From any thread. In order of arrival. */
void rp_lane_push(rp_lane_job *job);

#endif
