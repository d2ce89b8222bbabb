/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The lease, in one word that all children see: who leads, of which configuration, and a count that
 * the leader changes in each lap. The others look once a lap; who sees the same word for some laps
 * takes the lease. No clocks are compared, and a leader that was only stuck finds out in its next
 * lap that it leads no longer. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <apr_thread_proc.h>
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "ap_mpm.h"

#include "balancer/rp_keeper.h"
#include "balancer/rp_shared.h"
#include "rproxy/rp_signals.h"

APLOG_USE_MODULE(rproxy_balancer);

#define LAP (APR_USEC_PER_SEC / 4)
#define LAPS_PATIENCE 12                /* laps in which a leader must have changed the word */
#define EVENTS 64
#define TIMERS_A_ROUND 1000             /* or sockets would wait for a flood of timers */

typedef struct watch {
    rp_keeper_ready *ready;             /* NULL: nobody watches */
    void *baton;
    int events;
    unsigned int generation;            /* tells registrations of one number apart */
} watch;

struct rp_keeper {
    const server_rec *server;
    apr_pool_t *parent_pool;            /* for pool; this thread's alone */
    apr_pool_t *pool;                   /* NULL: doesn't lead */
    apr_thread_t *thread;
    int epfd;
    int end_fd;                         /* readable: the child ends */
    int is_ending;
    apr_time_t now;
    rp_heap timers;
    watch *watches;                     /* by descriptor */
    int watch_count;
    rp_keeper_timer lap;
    apr_uint64_t seen;                  /* the lease as it was in the last lap */
    int laps_unchanged;
};

typedef struct duty {
    const rp_duty *duty;
    void *baton;
} duty;

static apr_array_header_t *duties;      /* duty; of the configuration */

/* ---- the configuration ----------------------------------------------------------------------- */

void rp_keeper_reset(apr_pool_t *pconf)
{
    duties = apr_array_make(pconf, 4, sizeof(duty));
}

void rp_keeper_add(const rp_duty *added, void *baton)
{
    APR_ARRAY_PUSH(duties, duty) = (duty){ added, baton };
}

/* ---- the loop -------------------------------------------------------------------------------- */

static apr_time_t monotonic(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (apr_time_t)time.tv_sec * APR_USEC_PER_SEC + time.tv_nsec / 1000;
}

static watch *watch_of(rp_keeper *keeper, int fd)
{
    if (fd >= keeper->watch_count) {
        int count = fd + 64;
        watch *larger = realloc(keeper->watches, (size_t)count * sizeof(watch));

        if (!larger)
            return NULL;
        for (int i = keeper->watch_count; i < count; i++)
            larger[i] = (watch){ 0 };
        keeper->watches = larger;
        keeper->watch_count = count;
    }
    return &keeper->watches[fd];
}

int rp_keeper_watch(rp_keeper *keeper, int fd, int events, rp_keeper_ready *ready, void *baton)
{
    watch *w = watch_of(keeper, fd);
    int is_known = w && w->ready;
    struct epoll_event event = { 0 };

    if (!w)
        return 0;
    if (!is_known)
        w->generation++;
    event.events = (events & RP_KEEPER_READ ? EPOLLIN | EPOLLRDHUP : 0u)
        | (events & RP_KEEPER_WRITE ? EPOLLOUT : 0u);
    event.data.u64 = (apr_uint64_t)w->generation << 32 | (apr_uint32_t)fd;
    if ((!is_known || w->events != events)
        && epoll_ctl(keeper->epfd, is_known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0)
        return 0;
    w->ready = ready;
    w->baton = baton;
    w->events = events;
    return 1;
}

void rp_keeper_unwatch(rp_keeper *keeper, int fd)
{
    if (fd < 0 || fd >= keeper->watch_count || !keeper->watches[fd].ready)
        return;
    keeper->watches[fd].ready = NULL;
    epoll_ctl(keeper->epfd, EPOLL_CTL_DEL, fd, NULL);
}

void rp_keeper_at(rp_keeper *keeper, rp_keeper_timer *timer, apr_time_t due,
                  void (*expired)(rp_keeper *keeper, void *baton), void *baton)
{
    timer->expired = expired;
    timer->baton = baton;
    rp_heap_set(&keeper->timers, &timer->entry, due);
}

void rp_keeper_cancel(rp_keeper *keeper, rp_keeper_timer *timer)
{
    rp_heap_remove(&keeper->timers, &timer->entry);
}

apr_time_t rp_keeper_now(const rp_keeper *keeper)
{
    return keeper->now;
}

apr_pool_t *rp_keeper_pool(const rp_keeper *keeper)
{
    return keeper->pool;
}

const server_rec *rp_keeper_server(const rp_keeper *keeper)
{
    return keeper->server;
}

static void tell(rp_keeper *keeper, const struct epoll_event *event)
{
    int fd = (int)(event->data.u64 & 0xffffffffu), events;
    const watch *w = fd < keeper->watch_count ? &keeper->watches[fd] : NULL;

    /* What was told before in this round may have ended this one. */
    if (!w || !w->ready || w->generation != (unsigned int)(event->data.u64 >> 32))
        return;
    events = (event->events & EPOLLIN ? RP_KEEPER_READ : 0)
        | (event->events & EPOLLOUT ? RP_KEEPER_WRITE : 0);
    if (event->events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP))
        events = w->events;
    w->ready(keeper, fd, events & w->events, w->baton);
}

static void run_timers(rp_keeper *keeper)
{
    rp_heap_entry *first;

    for (int i = 0; i < TIMERS_A_ROUND && (first = rp_heap_first(&keeper->timers))
             && first->due <= keeper->now; i++) {
        rp_keeper_timer *timer = (rp_keeper_timer *)first;

        rp_heap_remove(&keeper->timers, first);
        timer->expired(keeper, timer->baton);
    }
}

static int wait_time(const rp_keeper *keeper)
{
    const rp_heap_entry *first = rp_heap_first(&keeper->timers);
    apr_interval_time_t wait = first ? first->due - monotonic() : LAP;

    return wait <= 0 ? 0 : (int)((wait + 999) / 1000);
}

static void run(rp_keeper *keeper)
{
    struct epoll_event events[EVENTS];

    while (!keeper->is_ending) {
        int count = epoll_wait(keeper->epfd, events, EVENTS, wait_time(keeper));

        keeper->now = monotonic();
        for (int i = 0; i < count && !keeper->is_ending; i++)
            tell(keeper, &events[i]);
        if (!keeper->is_ending)
            run_timers(keeper);
    }
}

/* ---- pokes ----------------------------------------------------------------------------------- */

static void poked(rp_keeper *keeper, int fd, int events, void *baton)
{
    apr_uint64_t count;

    (void)events;
    (void)baton;
    if (read(fd, &count, sizeof(count)) < 0)
        return;
    for (int i = 0; i < duties->nelts; i++) {
        const duty *d = &APR_ARRAY_IDX(duties, i, duty);

        if (d->duty->poked)
            d->duty->poked(keeper, d->baton);
    }
}

/* ---- leading --------------------------------------------------------------------------------- */

static void begin(rp_keeper *keeper)
{
    ap_log_error(APLOG_MARK, APLOG_DEBUG, 0, keeper->server, "this child leads from now on");
    apr_pool_create(&keeper->pool, keeper->parent_pool);
    rp_keeper_watch(keeper, rp_keeper_poke_fd(), RP_KEEPER_READ, poked, NULL);
    for (int i = 0; i < duties->nelts; i++) {
        const duty *d = &APR_ARRAY_IDX(duties, i, duty);

        d->duty->begin(keeper, d->baton);
    }
}

static void end(rp_keeper *keeper)
{
    if (!keeper->pool)
        return;
    ap_log_error(APLOG_MARK, APLOG_DEBUG, 0, keeper->server, "this child leads no longer");
    for (int i = duties->nelts - 1; i >= 0; i--) {
        const duty *d = &APR_ARRAY_IDX(duties, i, duty);

        d->duty->end(keeper, d->baton);
    }
    for (int fd = 0; fd < keeper->watch_count; fd++) {
        if (fd != keeper->end_fd)
            rp_keeper_unwatch(keeper, fd);
    }
    while (rp_heap_first(&keeper->timers))
        rp_heap_remove(&keeper->timers, rp_heap_first(&keeper->timers));
    apr_pool_destroy(keeper->pool);
    keeper->pool = NULL;
}

static apr_uint64_t pid_of(apr_uint64_t lease)
{
    return lease >> 32;
}

/** What the word is if this child leads, and has beaten once more. */
static apr_uint64_t next_word(apr_uint64_t lease)
{
    return (apr_uint64_t)(apr_uint32_t)getpid() << 32
        | (apr_uint64_t)(rp_shared_generation() & 0xffff) << 16 | ((lease + 1) & 0xffff);
}

static void give_up(const rp_keeper *keeper)
{
    unsigned long long lease = keeper->seen;

    atomic_compare_exchange_strong(rp_shared_lease(), &lease, 0);
}

/** Nonzero if this child may lead: it doesn't stop, and no other configuration came after its. */
static int may_lead(void)
{
    int state = 0;

    return rp_shared_is_newest()
        && !(ap_mpm_query(AP_MPMQ_MPM_STATE, &state) == APR_SUCCESS
             && state == AP_MPMQ_STOPPING);
}

static void lap(rp_keeper *keeper, void *baton)
{
    unsigned long long lease = atomic_load(rp_shared_lease());
    apr_uint64_t mine = next_word(lease);
    int may = may_lead(), is_mine = lease == keeper->seen && pid_of(lease) == pid_of(mine);

    (void)baton;
    keeper->laps_unchanged = lease == keeper->seen ? keeper->laps_unchanged + 1 : 0;
    keeper->seen = lease;
    if (keeper->pool && may && is_mine
        && atomic_compare_exchange_strong(rp_shared_lease(), &lease, mine))
        keeper->seen = mine;
    else if (keeper->pool) {
        end(keeper);
        if (is_mine)
            give_up(keeper);
    }
    else if (may && (!pid_of(lease) || ((lease ^ mine) & 0xffff0000u)
                     || keeper->laps_unchanged >= LAPS_PATIENCE)
             && atomic_compare_exchange_strong(rp_shared_lease(), &lease, mine)) {
        keeper->seen = mine;
        begin(keeper);
    }
    rp_keeper_at(keeper, &keeper->lap, keeper->now + LAP, lap, NULL);
}

void rp_keeper_settle(int pid)
{
    unsigned long long lease = rp_shared_lease() ? atomic_load(rp_shared_lease()) : 0;

    if (pid_of(lease) == (apr_uint32_t)pid)
        atomic_compare_exchange_strong(rp_shared_lease(), &lease, 0);
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void must_end(rp_keeper *keeper, int fd, int events, void *baton)
{
    (void)fd;
    (void)events;
    (void)baton;
    keeper->is_ending = 1;
}

static void * APR_THREAD_FUNC thread_main(apr_thread_t *thread, void *data)
{
    rp_keeper *keeper = data;

    (void)thread;
    keeper->now = monotonic();
    rp_keeper_watch(keeper, keeper->end_fd, RP_KEEPER_READ, must_end, NULL);
    rp_keeper_at(keeper, &keeper->lap, keeper->now, lap, NULL);
    run(keeper);
    if (keeper->pool) {
        end(keeper);
        give_up(keeper);
    }
    return NULL;
}

static apr_status_t join(void *data)
{
    rp_keeper *keeper = data;
    apr_uint64_t one = 1;
    apr_status_t ignored;

    if (keeper->thread && write(keeper->end_fd, &one, sizeof(one)) == sizeof(one))
        apr_thread_join(&ignored, keeper->thread);
    close(keeper->epfd);
    close(keeper->end_fd);
    rp_heap_free(&keeper->timers);
    free(keeper->watches);
    apr_pool_destroy(keeper->parent_pool);
    return APR_SUCCESS;
}

/** A pool that no other thread allocates from, nor from its allocator. */
static apr_status_t own_pool(apr_pool_t **pool)
{
    apr_allocator_t *allocator;
    apr_status_t rv = apr_allocator_create(&allocator);

    if (rv == APR_SUCCESS && (rv = apr_pool_create_ex(pool, NULL, NULL, allocator)) == APR_SUCCESS)
        apr_allocator_owner_set(allocator, *pool);
    return rv;
}

apr_status_t rp_keeper_start(apr_pool_t *child_pool, const server_rec *server)
{
    rp_keeper *keeper;
    sigset_t before;
    apr_status_t rv;

    if (!duties || !duties->nelts)
        return APR_SUCCESS;
    keeper = apr_pcalloc(child_pool, sizeof(*keeper));
    keeper->server = server;
    if ((rv = own_pool(&keeper->parent_pool)) != APR_SUCCESS)
        return rv;
    keeper->epfd = epoll_create1(EPOLL_CLOEXEC);
    keeper->end_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    /* Before the pools are gone that duties have made below it. */
    apr_pool_pre_cleanup_register(child_pool, keeper, join);
    if (keeper->epfd < 0 || keeper->end_fd < 0)
        return errno;
    rp_signals_block(&before);
    rv = apr_thread_create(&keeper->thread, NULL, thread_main, keeper, child_pool);
    rp_signals_restore(&before);
    if (rv != APR_SUCCESS)
        keeper->thread = NULL;
    return rv;
}
