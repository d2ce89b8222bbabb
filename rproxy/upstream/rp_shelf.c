/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Shelves: idle connections of one thread, by endpoint. What is found here, is found through the
 * endpoint: the shelf's number leads to its bin there.
 *
 * A bin has a reference to its endpoint for as long as it is there, of the kind that doesn't keep
 * it in the table, and one of the other kind while a connection is in use. So the endpoint and
 * the bin outlive every connection, at the price of two atomic operations whenever the number of
 * connections in use becomes or ceases to be 0. */

#include "rproxy/upstream/rp_upstream_private.h"

#define SURPLUS_KEPT apr_time_from_sec(1)   /* idle ones over the limit */

struct rp_bin {
    APR_RING_ENTRY(rp_bin) link;        /* of the shelf's */
    rp_shelf *shelf;
    rp_endpoint *endpoint;
    struct rp_conn_ring idle;           /* most recently used first */
    struct rp_conn_ring fresh;          /* the same, given back in this round */
    int idle_count;                     /* both */
    unsigned int round;                 /* that fresh is of */
    int in_use;                         /* connections */
};

struct rp_shelf {
    int number;
    unsigned int round;                 /* of those in which all events were told */
    apr_time_t now;                     /* when the loop woke */
    rp_upstream_counters *counters;
    void (*idle)(void *baton, int fd, rp_conn *conn);
    void *baton;
    APR_RING_HEAD(rp_bin_ring, rp_bin) bins;
};

static struct {
    pthread_mutex_t lock;
    apr_uint64_t taken;                 /* a bit for each number */
} numbers = { .lock = PTHREAD_MUTEX_INITIALIZER };

_Static_assert(RP_SHELVES_MAX <= 64, "the numbers taken are bits of a word");

static int take_number(void)
{
    int number = 0;
    pthread_mutex_lock(&numbers.lock);
    while (number < RP_SHELVES_MAX && numbers.taken >> number & 1) {
        number++;
    }
    if (number < RP_SHELVES_MAX) {
        numbers.taken |= (apr_uint64_t)1 << number;
    }
    pthread_mutex_unlock(&numbers.lock);
    return number;
}

static void give_number_back(int number)
{
    pthread_mutex_lock(&numbers.lock);
    numbers.taken &= ~((apr_uint64_t)1 << number);
    pthread_mutex_unlock(&numbers.lock);
}

rp_shelf *rp_shelf_create(void (*idle)(void *baton, int fd, rp_conn *conn), void *baton)
{
    int number = take_number();
    if (number == RP_SHELVES_MAX) {
        return NULL;
    }
    rp_shelf *shelf = ap_calloc(1, sizeof(*shelf));
    shelf->number = number;
    shelf->counters = &rp_shelf_counters[number];
    shelf->idle = idle;
    shelf->baton = baton;
    shelf->now = apr_time_now();
    APR_RING_INIT(&shelf->bins, rp_bin, link);
    return shelf;
}

/* ---- bins ------------------------------------------------------------------------------------ */

static rp_bin *bin_make(rp_shelf *shelf, rp_endpoint *endpoint)
{
    rp_bin *bin = ap_calloc(1, sizeof(*bin));
    bin->shelf = shelf;
    bin->endpoint = endpoint;
    APR_RING_INIT(&bin->idle, rp_conn, link);
    APR_RING_INIT(&bin->fresh, rp_conn, link);
    APR_RING_INSERT_TAIL(&shelf->bins, bin, rp_bin, link);
    rp_endpoint_hold_for_shelf(endpoint);
    endpoint->bins[shelf->number] = bin;
    return bin;
}

rp_shelf *rp_bin_shelf(const rp_bin *bin)
{
    return bin->shelf;
}

/* Nothing of it is in use, nothing is idle. */
static void bin_free(rp_bin *bin)
{
    rp_endpoint *endpoint = bin->endpoint;
    endpoint->bins[bin->shelf->number] = NULL;
    APR_RING_REMOVE(bin, link);
    free(bin);
    rp_endpoint_drop_for_shelf(endpoint);
}

static void remove_idle(rp_bin *bin, rp_conn *conn)
{
    APR_RING_REMOVE(conn, link);
    bin->idle_count--;
    RP_COUNT_ON(bin->shelf->counters, idle, -1);
}

/* Closes an idle one. */
static void retire(rp_bin *bin, rp_conn *conn)
{
    rp_shelf *shelf = bin->shelf;
    remove_idle(bin, conn);
    if (shelf->idle) {
        shelf->idle(shelf->baton, conn->fd, NULL);
    }
    rp_conn_destroy(conn);
    RP_COUNT_ON(shelf->counters, retired, 1);
}

rp_bin *rp_bin_use(rp_shelf *shelf, rp_endpoint *endpoint)
{
    rp_bin *bin = endpoint->bins[shelf->number];
    if (!bin) {
        bin = bin_make(shelf, endpoint);
    }
    if (bin->in_use++ == 0) {
        rp_endpoint_hold(endpoint);
    }
    RP_COUNT_ON(shelf->counters, active, 1);
    return bin;
}

/* What was given back before this round has been looked at: the loop would have told. */
static void settle(rp_bin *bin)
{
    if (bin->round != bin->shelf->round) {
        bin->round = bin->shelf->round;
        APR_RING_PREPEND(&bin->idle, &bin->fresh, rp_conn, link);
    }
}

rp_conn *rp_bin_take(rp_bin *bin, apr_time_t now)
{
    settle(bin);
    while (bin->idle_count > 0) {
        int is_fresh = APR_RING_EMPTY(&bin->idle, rp_conn, link);
        rp_conn *conn = APR_RING_FIRST(is_fresh ? &bin->fresh : &bin->idle);
        /* A system call for each exchange, but where many are under way at once. */
        if (!rp_conn_is_over(conn, now) && (!is_fresh || rp_conn_is_quiet(conn))) {
            remove_idle(bin, conn);
            RP_COUNT_ON(bin->shelf->counters, reuses, 1);
            return conn;
        }
        retire(bin, conn);
    }
    return NULL;
}

static int is_dropped(const rp_endpoint *endpoint)
{
    /* Relaxed: who sees it late closes what is idle a second later. */
    return atomic_load_explicit(&endpoint->dropped, memory_order_relaxed);
}

void rp_bin_give_back(rp_bin *bin, rp_conn *conn, int keep, int reusable)
{
    rp_shelf *shelf = bin->shelf;
    RP_COUNT_ON(shelf->counters, active, -1);
    /* Nobody tells of what had arrived before: bytes behind an answer would open the next one. */
    if (keep && !is_dropped(bin->endpoint) && (conn->drained || rp_conn_is_quiet(conn))) {
        settle(bin);
        APR_RING_INSERT_HEAD(&bin->fresh, conn, rp_conn, link);
        bin->idle_count++;
        RP_COUNT_ON(shelf->counters, idle, 1);
        shelf->idle(shelf->baton, conn->fd, conn);
    }
    else {
        rp_conn_destroy(conn);
        if (reusable) {
            RP_COUNT_ON(shelf->counters, retired, 1);
        }
    }
    if (--bin->in_use == 0) {
        rp_endpoint_drop(bin->endpoint);
    }
}

/* ---- the shelf's own calls ------------------------------------------------------------------- */

void rp_shelf_begin_round(rp_shelf *shelf, apr_time_t now, int all)
{
    shelf->now = now;
    if (all) {
        shelf->round++;
    }
}

apr_time_t rp_shelf_now(const rp_shelf *shelf)
{
    return shelf->now;
}

void rp_shelf_ready(rp_shelf *shelf, rp_conn *conn)
{
    ap_assert(conn->bin && conn->bin->shelf == shelf);
    if (!rp_conn_is_quiet(conn)) {
        retire(conn->bin, conn);
    }
}

/* all nonzero: whatever their limits. */
static void retire_over(rp_bin *bin, struct rp_conn_ring *ring, int all, apr_time_t now)
{
    rp_conn *next;
    for (rp_conn *conn = APR_RING_FIRST(ring); conn != APR_RING_SENTINEL(ring, rp_conn, link);
         conn = next) {
        next = APR_RING_NEXT(conn, link);
        if (all || rp_conn_is_over(conn, now)) {
            retire(bin, conn);
        }
    }
}

/* Those over the limit that nobody has needed for a while: where many requests run at once, many
 * connections are idle for a moment. */
static void retire_surplus(rp_bin *bin, apr_time_t now)
{
    while (bin->idle_count > bin->endpoint->keepalive.max) {
        rp_conn *oldest = APR_RING_LAST(APR_RING_EMPTY(&bin->idle, rp_conn, link) ? &bin->fresh
                                                                                : &bin->idle);
        if (now - oldest->idle_since < SURPLUS_KEPT) {
            return;
        }
        retire(bin, oldest);
    }
}

static void maintain_bin(rp_bin *bin, apr_time_t now)
{
    int dropped = is_dropped(bin->endpoint);
    retire_over(bin, &bin->idle, dropped, now);
    retire_over(bin, &bin->fresh, dropped, now);
    retire_surplus(bin, now);
    if (dropped && !bin->in_use) {
        bin_free(bin);
    }
}

void rp_shelf_maintain(rp_shelf *shelf, apr_time_t now)
{
    rp_bin *next;
    for (rp_bin *bin = APR_RING_FIRST(&shelf->bins);
         bin != APR_RING_SENTINEL(&shelf->bins, rp_bin, link); bin = next) {
        next = APR_RING_NEXT(bin, link);
        maintain_bin(bin, now);
    }
}

void rp_shelf_destroy(rp_shelf *shelf)
{
    rp_bin *next;
    shelf->idle = NULL;
    for (rp_bin *bin = APR_RING_FIRST(&shelf->bins);
         bin != APR_RING_SENTINEL(&shelf->bins, rp_bin, link); bin = next) {
        next = APR_RING_NEXT(bin, link);
        ap_assert(!bin->in_use);
        retire_over(bin, &bin->idle, 1, 0);
        retire_over(bin, &bin->fresh, 1, 0);
        bin_free(bin);
    }
    give_number_back(shelf->number);
    free(shelf);
}
