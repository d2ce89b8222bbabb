/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <stdatomic.h>
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
static rp_heap heap;                    /* of rp_park_timer.entry */
static apr_time_t sleeping_until;
static int stopping;
static int readable_fd = -1;            /* an eventfd that is always readable */
static _Atomic apr_time_t draining_since;

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

        rp_heap_entry *first;

        while ((first = rp_heap_first(&heap)) && first->due <= now) {
            rp_heap_remove(&heap, first);
            poke((rp_park_timer *)first);
        }
        sleeping_until = first ? first->due : NEVER;
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

/* due, or earlier since the child is to stop. */
static apr_time_t bound_by_drain(const rp_park_timer *timer, apr_time_t due)
{
    apr_time_t since = rp_park_timer_draining_since();

    if (since && timer->idle_fd) {
        return since;
    }
    return since && timer->drain && due > since + timer->drain ? since + timer->drain : due;
}

void rp_park_timer_add(rp_park_timer *timer, apr_time_t due)
{
    apr_thread_mutex_lock(lock);
    due = bound_by_drain(timer, due);
    rp_heap_set(&heap, &timer->entry, due);
    if (due < sleeping_until) {
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
    rp_heap_remove(&heap, &timer->entry);
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
    apr_time_t never = 0;

    if (!atomic_compare_exchange_strong(&draining_since, &never, apr_time_now()) || !lock) {
        return;
    }
    apr_thread_mutex_lock(lock);
    /* An entry can only move forth, and changes places with earlier ones, which are done. */
    for (unsigned int i = 1; i <= heap.count; i++) {
        rp_park_timer *timer = (rp_park_timer *)heap.entries[i];

        rp_heap_set(&heap, &timer->entry, bound_by_drain(timer, timer->entry.due));
    }
    apr_thread_cond_signal(earlier);
    apr_thread_mutex_unlock(lock);
}

apr_time_t rp_park_timer_draining_since(void)
{
    return atomic_load_explicit(&draining_since, memory_order_relaxed);
}
