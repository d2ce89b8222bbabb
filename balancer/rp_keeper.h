/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The keeper: what has to be done for all children, but by one of them only (checks of health,
 * discovery). If the configuration has duties, each child has one thread for them; one child of the
 * newest configuration leads and does them all. A lease in shared memory says who. When the leader
 * dies, stops or gets stuck, another one takes over; what it did is begun anew there.
 *
 * Duties run on the leader's thread, in an event loop: they must never block, not for files nor
 * names nor locks that others hold for long. Unless said otherwise everything here is for that
 * thread only, from begin() to end(). */
#ifndef RP_KEEPER_H
#define RP_KEEPER_H

#include <apr_pools.h>
#include <apr_time.h>
#include "httpd.h"
#include "rproxy/rp_heap.h"

typedef struct rp_keeper rp_keeper;

/** Something that the leader does. */
typedef struct rp_duty {
    /** This child leads from now on. */
    void (*begin)(rp_keeper *keeper, void *baton);
    /** It doesn't any more, or it ends: gives back everything that begin() and others took.
     * What is still watched, and timers that are still set, are forgotten after it. */
    void (*end)(rp_keeper *keeper, void *baton);
    /** Somebody called rp_keeper_poke(). NULL: no matter. */
    void (*poked)(rp_keeper *keeper, void *baton);
} rp_duty;

/* ---- the configuration; one thread ----------------------------------------------------------- */

/** Forgets the duties of the last configuration: in pre_config. */
void rp_keeper_reset(apr_pool_t *pconf);

/** The configuration has this duty: in check_config or post_config. Both live as long as
 * the configuration. */
void rp_keeper_add(const rp_duty *added, void *baton);

/** In the parent, after rp_shared_open(); process_pool is the process's. */
apr_status_t rp_keeper_prepare(apr_pool_t *process_pool);

/** In each child, after rp_shared_enter(): starts the thread if there are duties. It ends with
 * child_pool. */
apr_status_t rp_keeper_start(apr_pool_t *child_pool, const server_rec *server);

/** The parent: the child with this process id is gone; if it led, another one may. */
void rp_keeper_settle(int pid);

/* ---- any thread of any process --------------------------------------------------------------- */

/** Wakes the leader, wherever it is, to call poked() of all duties soon; several calls may become
 * one. Does not block. */
void rp_keeper_poke(void);

/** What becomes readable then. */
int rp_keeper_poke_fd(void);

/* ---- duties ---------------------------------------------------------------------------------- */

enum { RP_KEEPER_READ = 1, RP_KEEPER_WRITE = 2 };

/** fd is readable or writable: events has RP_KEEPER_READ, RP_KEEPER_WRITE or both; an error or the
 * other side's end counts as all that was asked for. */
typedef void rp_keeper_ready(rp_keeper *keeper, int fd, int events, void *baton);

/** Watches fd until rp_keeper_unwatch(): as long as it is ready, ready() is called (level
 * triggered). For a descriptor that is watched already it changes events and baton. Nonzero: done;
 * 0: the system refuses it. fd must be non-blocking. */
int rp_keeper_watch(rp_keeper *keeper, int fd, int events, rp_keeper_ready *ready, void *baton);

/** Before fd is closed; also for one that isn't watched. ready() is not called for it any more. */
void rp_keeper_unwatch(rp_keeper *keeper, int fd);

/** A timer. Embed, zero-initialise. */
typedef struct rp_keeper_timer {
    rp_heap_entry entry;                /* first */
    void (*expired)(rp_keeper *keeper, void *baton);
    void *baton;
} rp_keeper_timer;

/** Calls expired() once, at due or soon after; one that is set already is moved. It may be set
 * again in expired(). due is compared with rp_keeper_now(). */
void rp_keeper_at(rp_keeper *keeper, rp_keeper_timer *timer, apr_time_t due,
                  void (*expired)(rp_keeper *keeper, void *baton), void *baton);

/** Also for one that isn't set. */
void rp_keeper_cancel(rp_keeper *keeper, rp_keeper_timer *timer);

/** Microseconds on a clock that is never set; it says nothing about the time of day, for which
 * there is apr_time_now(). The same during one round of the loop. */
apr_time_t rp_keeper_now(const rp_keeper *keeper);

/** Lives until this child doesn't lead any more, after end(). */
apr_pool_t *rp_keeper_pool(const rp_keeper *keeper);

/** For logs. */
const server_rec *rp_keeper_server(const rp_keeper *keeper);

#endif
