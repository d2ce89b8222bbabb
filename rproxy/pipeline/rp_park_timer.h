/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Deadlines of parked connections: one thread a child, a heap of entries. When an entry is
 * due, an always readable descriptor is added to its epoll set: that wakes the MPM, whose worker
 * then finds out what is too late. An idle client's socket is shut down for reading instead, which
 * reads as its end. The entry's fields are guarded by the timer's lock. */
#ifndef RP_PARK_TIMER_H
#define RP_PARK_TIMER_H

#include <apr_pools.h>
#include <apr_time.h>
#include "rproxy/rp_heap.h"

/** One parked connection's entry, embedded in its owner. Zero-initialise. */
typedef struct rp_park_timer {
    rp_heap_entry entry;                /* when to wake at the latest; first, so that it leads to
                                         * the whole */
    apr_interval_time_t drain;         /* tunnel: how long after the child began to stop; 0: none */
    int epfd;                           /* the set to make readable */
    int idle_fd;                        /* not 0: an idle client's socket to shut down instead */
    int poked;                          /* the set holds the wake-up descriptor */
    int expired;                        /* idle_fd was shut down */
} rp_park_timer;

/** Starts the thread; it ends with pool. */
apr_status_t rp_park_timer_start(apr_pool_t *pool);

/** Adds an entry that is due then. drain and epfd or idle_fd are set. */
void rp_park_timer_add(rp_park_timer *timer, apr_time_t due);

/** Takes it out again, and the wake-up descriptor out of its set. Afterwards nobody else touches
 * the entry. Also for entries that were never added. Nonzero if an idle client's socket was shut
 * down. */
int rp_park_timer_remove(rp_park_timer *timer);

/** The child begins to stop gracefully: idle clients are due at once, tunnels when their drain time
 * is over. Also where there is no thread: then it is only remembered since when. */
void rp_park_timer_drain(void);

/** When the child began to stop; 0: it doesn't. */
apr_time_t rp_park_timer_draining_since(void);

#endif
