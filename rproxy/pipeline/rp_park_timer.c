/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <apr_thread_cond.h>
#include <apr_thread_mutex.h>
#include <apr_thread_proc.h>
#include "rproxy/pipeline/rp_park_timer.h"

#define NEVER ((apr_time_t)0x7fffffffffffffffLL)

static apr_thread_mutex_t *lock;        /* guards everything below */
static apr_thread_cond_t *earlier;      /* the thread must wake earlier, or stop */
static apr_thread_t *thread;
static rp_park_timer **heap;            /* from 1; malloc'ed: it outgrows any pool's purpose */
static unsigned int heap_count, heap_capacity;
static apr_time_t sleeping_until;
static int stopping;
static int readable_fd = -1;            /* an eventfd that is always readable */
static _Atomic apr_time_t draining_since;

/* ---- heap ------------------------------------------------------------------------------------ */

static void place(unsigned int index, rp_park_timer *timer)
{
    heap[index] = timer;
    timer->index = index;
}

static void sift_up(unsigned int index)
{
    rp_park_timer *timer = heap[index];

    for (; index > 1 && heap[index / 2]->due > timer->due; index /= 2) {
        place(index, heap[index / 2]);
    }
    place(index, timer);
}

static void sift_down(unsigned int index)
{
    rp_park_timer *timer = heap[index];

    for (unsigned int child = index * 2; child <= heap_count; child = index * 2) {
        if (child < heap_count && heap[child + 1]->due < heap[child]->due) {
            child++;
        }
        if (heap[child]->due >= timer->due) {
            break;
        }
        place(index, heap[child]);
        index = child;
    }
    place(index, timer);
}

static void take_out(rp_park_timer *timer)
{
    unsigned int index = timer->index;
    rp_park_timer *last = heap[heap_count--];

    timer->index = 0;
    if (last != timer) {
        place(index, last);
        sift_up(index);
        sift_down(last->index);
    }
}

/* ---- thread ---------------------------------------------------------------------------------- */

static void poke(rp_park_timer *timer)
{
    struct epoll_event event = { .events = EPOLLIN, .data = { .fd = readable_fd } };

    if (timer->idle_fd) {
        char byte;

        /* A request that is there already is still served. */
        if (recv(timer->idle_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0) {
            timer->expired = 1;
            shutdown(timer->idle_fd, SHUT_RD);
        }
        return;
    }
    timer->poked = epoll_ctl(timer->epfd, EPOLL_CTL_ADD, readable_fd, &event) == 0
        || errno == EEXIST;
}

static void *APR_THREAD_FUNC run(apr_thread_t *self, void *baton)
{
    (void)self;
    (void)baton;
    apr_thread_mutex_lock(lock);
    while (!stopping) {
        apr_time_t now = apr_time_now();

        while (heap_count > 0 && heap[1]->due <= now) {
            rp_park_timer *timer = heap[1];

            take_out(timer);
            poke(timer);
        }
        sleeping_until = heap_count > 0 ? heap[1]->due : NEVER;
        if (sleeping_until == NEVER) {
            apr_thread_cond_wait(earlier, lock);
        }
        else {
            apr_thread_cond_timedwait(earlier, lock, sleeping_until - now);
        }
    }
    apr_thread_mutex_unlock(lock);
    return NULL;
}

static apr_status_t stop(void *baton)
{
    apr_status_t ignored;

    (void)baton;
    apr_thread_mutex_lock(lock);
    stopping = 1;
    apr_thread_cond_signal(earlier);
    apr_thread_mutex_unlock(lock);
    apr_thread_join(&ignored, thread);
    lock = NULL;                        /* connections may be cleaned up after pool is gone */
    return APR_SUCCESS;
}

apr_status_t rp_park_timer_start(apr_pool_t *pool)
{
    apr_status_t rv;

    readable_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    if (readable_fd < 0) {
        return errno;
    }
    if ((rv = apr_thread_mutex_create(&lock, APR_THREAD_MUTEX_DEFAULT, pool)) != APR_SUCCESS
        || (rv = apr_thread_cond_create(&earlier, pool)) != APR_SUCCESS
        || (rv = apr_thread_create(&thread, NULL, run, NULL, pool)) != APR_SUCCESS) {
        return rv;
    }
    apr_pool_pre_cleanup_register(pool, NULL, stop);
    return APR_SUCCESS;
}

/* ---- entries --------------------------------------------------------------------------------- */

static void bound_by_drain(rp_park_timer *timer)
{
    apr_time_t since = atomic_load_explicit(&draining_since, memory_order_relaxed);

    if (since && timer->idle_fd) {
        timer->due = since;
    }
    else if (since && timer->drain && timer->due > since + timer->drain) {
        timer->due = since + timer->drain;
    }
}

void rp_park_timer_add(rp_park_timer *timer)
{
    apr_thread_mutex_lock(lock);
    bound_by_drain(timer);
    if (heap_count + 1 >= heap_capacity) {
        unsigned int capacity = heap_capacity ? heap_capacity * 2 : 256;
        rp_park_timer **larger = realloc(heap, capacity * sizeof(*heap));

        if (!larger) {
            abort();
        }
        heap = larger;
        heap_capacity = capacity;
    }
    heap[++heap_count] = timer;
    sift_up(heap_count);
    if (timer->due < sleeping_until) {
        apr_thread_cond_signal(earlier);
    }
    apr_thread_mutex_unlock(lock);
}

int rp_park_timer_remove(rp_park_timer *timer)
{
    int poked;
    int expired;

    if (!lock) {
        return 0;
    }
    apr_thread_mutex_lock(lock);
    if (timer->index) {
        take_out(timer);
    }
    poked = timer->poked;
    expired = timer->expired;
    timer->poked = timer->expired = 0;
    apr_thread_mutex_unlock(lock);
    if (poked) {
        epoll_ctl(timer->epfd, EPOLL_CTL_DEL, readable_fd, NULL);
    }
    return expired;
}

void rp_park_timer_drain(void)
{
    if (!lock || draining_since) {
        return;
    }
    apr_thread_mutex_lock(lock);
    atomic_store(&draining_since, apr_time_now());
    for (unsigned int i = 1; i <= heap_count; i++) {
        bound_by_drain(heap[i]);
    }
    for (unsigned int i = heap_count / 2; i >= 1; i--) {
        sift_down(i);
    }
    apr_thread_cond_signal(earlier);
    apr_thread_mutex_unlock(lock);
}

apr_time_t rp_park_timer_draining_since(void)
{
    return atomic_load_explicit(&draining_since, memory_order_relaxed);
}
