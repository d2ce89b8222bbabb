/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyQueue: requests that wait until a member has room. The line itself is rp_queue.h; here is
 * what a request does in it, and each child's thread that wakes those of its requests that others
 * have called.
 *
 * Whoever makes room calls the first in line: who gives a place back, a change of who can be chosen
 * (rp_balancer_changed), the parent when it has settled the places of a child that died. Who was
 * called and got a place, or can't use the one there is, calls the next one as long as there is
 * room. A call is lost only with the child it was for; the threads look after that. */
#include <apr_strings.h>
#include <apr_thread_proc.h>
#include "httpd.h"
#include "http_log.h"

#include "balancer/rp_balancer.h"
#include "balancer/rp_sticky.h"
#include "balancer/rp_waiters.h"
#include "rproxy/rp_signals.h"

APLOG_USE_MODULE(rproxy_balancer);

#define LOOK_AFTER (APR_USEC_PER_SEC / 4)   /* how often lines are looked after */
#define LOOKS_STUCK 4                   /* whoever does not answer so long is not waited for */
#define STUCK_GRACE (5 * APR_USEC_PER_SEC)
#define TRIES 3                         /* at once, when others take what was just free */

static atomic_int sleeps;               /* the thread, until it is woken: nobody waited here */

/** A request in line: rproxy_use.waiting. */
typedef struct waiting {
    rp_ticket ticket;
    int waiter;
} waiting;

/* ---- requests -------------------------------------------------------------------------------- */

/** Takes the request out of the line. Nonzero: it was called and hasn't answered. */
static int leave(rp_balancer *balancer, rproxy_use *use)
{
    waiting *own = use->waiting;
    int was_called = rp_queue_leave(balancer->queue, own->ticket);

    rp_waiter_give_back(own->waiter);
    use->waiting = NULL;
    return was_called;
}

static void call_next(rp_balancer *balancer, rp_ticket from, apr_time_t now)
{
    if (rp_queue_has_waiting(balancer->queue) && rp_balancer_has_room(balancer, NULL, now))
        rp_shared_call(balancer->queue, from, 0);
}

static rproxy_verdict join(rp_balancer *balancer, rproxy_use *use, apr_time_t now)
{
    rp_queue_owner owner = { rp_shared_row(), rp_waiter_take() };
    waiting *own;
    rp_ticket ticket;

    if (owner.waiter < 0
        || !rp_queue_join(balancer->queue, owner, balancer->queue_max, &ticket)) {
        if (owner.waiter >= 0)
            rp_waiter_give_back(owner.waiter);
        rp_count(&balancer->slot->queue_full);
        return RPROXY_QUEUE_FULL;
    }
    own = apr_palloc(use->request->pool, sizeof(*own));
    *own = (waiting){ ticket, owner.waiter };
    use->waiting = own;
    use->wait_fd = rp_waiter_fd(owner.waiter);
    use->wait_until = now + balancer->queue_timeout;
    rp_count(&balancer->slot->queued);
    if (atomic_load(&sleeps) && atomic_exchange(&sleeps, 0))
        rp_shared_wake_thread();
    /* What has become free before nobody else was told of. */
    call_next(balancer, 0, now);
    return RPROXY_QUEUED;
}

/** It is this request's turn: nonzero if it is out of the line. */
static int take_turn(rp_balancer *balancer, rproxy_use *use, apr_time_t now,
                     rproxy_verdict *verdict)
{
    rp_ticket ticket = ((waiting *)use->waiting)->ticket;
    int tries = 0;

    do {
        *verdict = rp_choose_member(balancer, use, now);
    } while (*verdict == RPROXY_ALL_BUSY && ++tries < TRIES
             && rp_balancer_has_room(balancer, use, now));
    if (*verdict != RPROXY_ALL_BUSY)
        leave(balancer, use);
    /* Others can use the member that has failed this one already, or isn't its session's. */
    if (*verdict != RPROXY_ALL_BUSY || use->tried_count || rp_session_waits(use))
        call_next(balancer, ticket + 1, now);
    return *verdict != RPROXY_ALL_BUSY;
}

static rproxy_verdict look_again(rp_balancer *balancer, rproxy_use *use, apr_time_t now)
{
    waiting *own = use->waiting;
    rproxy_verdict verdict;

    rp_waiter_calm(own->waiter);
    switch (rp_queue_answer(balancer->queue, own->ticket)) {
    case RP_QUEUE_CALLED:
        if (take_turn(balancer, use, now, &verdict))
            return verdict;
        break;
    case RP_QUEUE_NOT_YET:
        break;
    case RP_QUEUE_GONE:
        use->wait_until = now;
        break;
    }
    if (now < use->wait_until)
        return RPROXY_QUEUED;
    if (leave(balancer, use))
        call_next(balancer, 0, now);
    rp_count(&balancer->slot->queue_timeouts);
    return RPROXY_QUEUE_TIMEOUT;
}

rproxy_verdict rp_waiting_choose(rp_balancer *balancer, rproxy_use *use, apr_time_t now)
{
    if (use->waiting)
        return look_again(balancer, use, now);
    /* Nobody overtakes those in line; a request that makes another attempt had its turn. */
    if (use->tried_count || !rp_queue_has_waiting(balancer->queue)) {
        rproxy_verdict verdict = rp_choose_member(balancer, use, now);

        if (verdict != RPROXY_ALL_BUSY)
            return verdict;
    }
    else
        rp_count(&balancer->slot->requests);
    return join(balancer, use, now);
}

void rp_balancer_leave(rproxy_use *use)
{
    rp_balancer *balancer = use->pool;

    if (use->waiting && leave(balancer, use))
        call_next(balancer, 0, apr_time_now());
    rp_budget_end(use);
}

/* ---- the thread ------------------------------------------------------------------------------ */

/** What a child knows of a line that it looks after. */
typedef struct line {
    rp_balancer *balancer;
    rp_ticket first;                    /* in line when it looked last */
    int looks;                          /* since then, with room all the time */
} line;

static apr_thread_t *thread;
static atomic_int ends;
static apr_array_header_t *lines;       /* line; NULL: no pool has one */

/** Those of this child that others have called. */
static void wake_called(rp_queue *queue)
{
    rp_queue_owner owner;
    rp_ticket ticket = 0;

    while (rp_queue_next_called(queue, rp_shared_row(), &ticket, &owner))
        rp_shared_wake(owner);
}

/** There is room, and the first in line doesn't take it: its child was stopped, or hangs. */
static void pass_over(const line *l, rp_queue_owner first)
{
    rp_queue *queue = l->balancer->queue;
    rp_queue_owner owner;

    if (rp_queue_call_row(queue, rp_shared_row(), &owner))
        rp_shared_wake(owner);
    if (l->looks * LOOK_AFTER > l->balancer->queue_timeout + STUCK_GRACE)
        rp_queue_drop_row(queue, first.row);
}

static void look_after(line *l, apr_time_t now)
{
    rp_queue *queue = l->balancer->queue;
    rp_queue_owner owner;
    rp_ticket first;

    if (!rp_queue_first(queue, &first, &owner)
        || !rp_balancer_has_room(l->balancer, NULL, now)) {
        l->looks = 0;
        return;
    }
    rp_shared_call(queue, 0, 1);
    if (first != l->first)
        l->looks = 0;
    l->first = first;
    if (++l->looks > LOOKS_STUCK && owner.row != rp_shared_row())
        pass_over(l, owner);
}

static void *APR_THREAD_FUNC run(apr_thread_t *self, void *baton)
{
    apr_time_t looked = 0;

    (void)self;
    (void)baton;
    while (!atomic_load(&ends)) {
        apr_time_t now;
        int is_due;

        atomic_store(&sleeps, 1);
        if (rp_waiters_count())
            atomic_store(&sleeps, 0);
        rp_shared_wait(atomic_load(&sleeps) ? 0 : LOOK_AFTER);
        now = apr_time_now();
        is_due = now < looked || now >= looked + LOOK_AFTER;
        looked = is_due ? now : looked;
        for (int i = 0; i < lines->nelts; i++) {
            line *l = &APR_ARRAY_IDX(lines, i, line);

            wake_called(l->balancer->queue);
            if (is_due && rp_waiters_count())
                look_after(l, now);
        }
    }
    return NULL;
}

static apr_status_t stop(void *data)
{
    apr_status_t ignored;

    (void)data;
    atomic_store(&ends, 1);
    rp_shared_wake_thread();
    apr_thread_join(&ignored, thread);
    return APR_SUCCESS;
}

static void add_lines(apr_pool_t *pool, const apr_array_header_t *all)
{
    lines = apr_array_make(pool, 4, sizeof(line));
    for (int i = 0; i < all->nelts; i++) {
        rp_balancer *balancer = APR_ARRAY_IDX(all, i, rp_balancer *);

        if (balancer->queue)
            APR_ARRAY_PUSH(lines, line) = (line){ .balancer = balancer };
    }
}

apr_status_t rp_waiting_start(apr_pool_t *child_pool, const apr_array_header_t *all)
{
    sigset_t before;
    apr_status_t rv;

    add_lines(child_pool, all);
    if (!lines->nelts)
        return APR_SUCCESS;
    atomic_store(&ends, 0);
    rp_signals_block(&before);
    rv = apr_thread_create(&thread, NULL, run, NULL, child_pool);
    rp_signals_restore(&before);
    if (rv == APR_SUCCESS)
        apr_pool_pre_cleanup_register(child_pool, NULL, stop);
    else {
        /* Nobody waits in this child. */
        for (int i = 0; i < lines->nelts; i++)
            APR_ARRAY_IDX(lines, i, line).balancer->queue = NULL;
    }
    return rv;
}
