/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* An event loop: one thread of a child with an epoll set, deadlines, a queue of things to go on
 * with, and a mailbox for other threads. It knows nothing of connections.
 *
 * Everything belongs to the loop's thread, except rp_loop_send() and rp_loop_stop(). Descriptors
 * are registered once, edge-triggered, for reading and writing alike: who watches one must go on
 * until it would block. A descriptor that is closed leaves the set by itself; what is registered
 * under its number later is told apart by a generation. */
#ifndef RP_LOOP_H
#define RP_LOOP_H

#include <pthread.h>
#include <apr_pools.h>
#include <apr_thread_proc.h>
#include "rproxy/engine/rp_batch.h"
#include "rproxy/rp_heap.h"
#include "rproxy/upstream/rp_upstream.h"

#define RP_LOOP_BLOCK 16384             /* bytes of an input block: requests as they come */
#define RP_LOOP_BUFFER 73728            /* bytes of an output buffer: responses as they go */

typedef struct rp_loop rp_loop;

/** Tells of events (EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR) on a descriptor. */
typedef void rp_loop_ready(rp_loop *loop, void *owner, unsigned int events);

/** Of events that came at the same time, who is told first. */
typedef enum rp_loop_rank {
    RP_LOOP_FIRST,                      /* what must be known before anything is done */
    RP_LOOP_NEXT,                       /* what sets resources free */
    RP_LOOP_LAST                        /* what asks for them */
} rp_loop_rank;

/** One for each kind of descriptor. */
typedef struct rp_loop_listener {
    rp_loop_ready *ready;
    rp_loop_rank rank;
    /** NULL, or: where the owner holds what was received ahead. It returns NULL unless the next
     * thing that it does, when it is told that there is something to read, is to read it all. */
    rp_ahead **(*reads)(void *owner);
} rp_loop_listener;

/** Who is told of a descriptor's events; an array of them is indexed by descriptor. */
typedef struct rp_watch {
    const rp_loop_listener *listener;   /* NULL: nobody */
    void *owner;
    unsigned int generation;            /* of the registration */
} rp_watch;

/** Something to go on with, once what happened at the same time has been seen. Embed; zero. */
typedef struct rp_loop_task {
    struct rp_loop_task *next;
    void (*run)(struct rp_loop_task *task);
    /** NULL, or: what run() is about to write, if that is known, goes to the batch. */
    void (*prepare)(struct rp_loop_task *task, rp_batch *batch);
    int queued;
} rp_loop_task;

/** A queue. */
typedef struct rp_loop_tasks {
    rp_loop_task *first, **end;
} rp_loop_tasks;

/** A deadline. Embed as a member; zero-initialise but for expired. */
typedef struct rp_loop_timer {
    rp_heap_entry entry;                /* its due time may be earlier than due: see set */
    apr_time_t due;                     /* 0: off */
    void (*expired)(struct rp_loop_timer *timer);
} rp_loop_timer;

/** A message to the loop's thread. Embed; must stay until it is delivered. */
typedef struct rp_loop_mail {
    struct rp_loop_mail *next;
    void (*deliver)(rp_loop *loop, struct rp_loop_mail *mail);
} rp_loop_mail;

/** Pieces of memory of one size that nobody uses now. */
typedef struct rp_loop_spares {
    void *first;                        /* the others through its first word */
    int count;
    int idle;                           /* the fewest that lay here since the last tick */
} rp_loop_spares;

struct rp_loop {
    int epfd;
    int wake;                           /* eventfd of the mailbox */
    apr_thread_t *thread;
    apr_pool_t *pool;                   /* with an allocator of its own */
    apr_time_t now;                     /* when this round began */
    rp_watch *watches;
    int watch_count;
    rp_heap deadlines;
    rp_loop_tasks tasks;
    rp_loop_tasks last;                 /* one of them a round, behind everything else */
    rp_batch *batch;                    /* NULL: everyone reads and writes by himself */
    rp_ahead *aheads;                   /* what was received ahead in this round */
    int ahead_count;
    rp_shelf *shelf;                    /* idle upstream connections */
    void (*tick)(rp_loop *loop);        /* about once a second */
    void (*round_ends)(rp_loop *loop);  /* before it may wait */
    void *owner;                        /* the engine's */
    apr_time_t next_tick;
    rp_loop_spares blocks, buffers;
    pthread_mutex_t lock;               /* guards mail, woken */
    rp_loop_mail *mail;
    int woken;
    int quit;                           /* guarded by lock */
    int ending;                         /* the thread's copy of quit */
};

/** Prepares a loop; nothing runs yet. The loop lives in pool. */
apr_status_t rp_loop_create(rp_loop **created, apr_pool_t *pool);

/** Starts its thread. */
apr_status_t rp_loop_start(rp_loop *loop);

/** Ends the thread and waits for it; any other thread. */
void rp_loop_stop(rp_loop *loop);

/** Gives back what the loop holds; after rp_loop_stop(). */
void rp_loop_destroy(rp_loop *loop);

/** Registers fd and says who is told. Nonzero if it is watched (also if it was already). */
int rp_loop_watch(rp_loop *loop, int fd, const rp_loop_listener *listener, void *owner);

/** fd is registered: from now on owner is told; listener NULL: nobody. */
void rp_loop_pass_on(rp_loop *loop, int fd, const rp_loop_listener *listener, void *owner);

/** owner, if it is still told of fd, isn't any more. */
void rp_loop_forget(rp_loop *loop, int fd, const void *owner);

/** Takes fd, which stays open, out of the set. */
void rp_loop_unwatch(rp_loop *loop, int fd);

/** Sets a deadline, 0: none. Cheap to move later, which is what mostly happens. */
void rp_loop_set_timer(rp_loop *loop, rp_loop_timer *timer, apr_time_t due);

/** Takes the timer out for good: before its memory goes. */
void rp_loop_drop_timer(rp_loop *loop, rp_loop_timer *timer);

/** Runs the task in this round or the next. */
void rp_loop_later(rp_loop *loop, rp_loop_task *task);

/** Runs the task when it is its turn among those that were queued like this. Each of them lets all
 * that has happened meanwhile go first; prepare() isn't called. A task is in one queue at most. */
void rp_loop_last(rp_loop *loop, rp_loop_task *task);

/** From any thread. */
void rp_loop_send(rp_loop *loop, rp_loop_mail *mail);

/** Memory of RP_LOOP_BLOCK and RP_LOOP_BUFFER bytes, the one given back last first. What was not
 * needed for a second goes back to malloc(). The process ends without memory, as in httpd's own
 * pools. */
char *rp_loop_block_get(rp_loop *loop);
void rp_loop_block_put(rp_loop *loop, char *block);
char *rp_loop_buffer_get(rp_loop *loop);
void rp_loop_buffer_put(rp_loop *loop, char *buffer);

#endif
