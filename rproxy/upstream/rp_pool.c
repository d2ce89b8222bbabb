/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Taking connections and giving them back; the idle ones that all threads share. */

#include <errno.h>
#include <poll.h>
#include "rproxy/upstream/rp_upstream_private.h"

#define POLL_MAX 64                     /* idle connections looked at in one poll() */

/* ---- what is fit for use --------------------------------------------------------------------- */

static int is_past(const rp_conn *conn, apr_time_t now)
{
    const rp_keepalive *limits = &conn->endpoint->keepalive;
    apr_interval_time_t idle = now - conn->idle_since;
    return (limits->idle && idle >= limits->idle)
           || (conn->peer_idle >= 0 && idle >= conn->peer_idle)
           || (limits->age && now - conn->created >= limits->age);
}

int rp_conn_is_over(rp_conn *conn, apr_time_t now)
{
    rp_name *name = conn->endpoint->name;
    return is_past(conn, now)
           || (name && conn->generation != rp_name_generation(name)
               && !rp_name_has(name, &conn->peer, &conn->generation));
}

int rp_conn_is_quiet(rp_conn *conn)
{
    char byte;
    ssize_t count = recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    int silent = count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
    if (conn->ssl) {
        return (silent && !SSL_has_pending(conn->ssl)) || (count > 0 && rp_tls_is_quiet(conn));
    }
    return silent;
}

static int may_be_kept(rp_conn *conn, apr_time_t now)
{
    const rp_keepalive *limits = &conn->endpoint->keepalive;
    return conn->state == RP_CONN_READY && !conn->broken && !conn->ended && !conn->finished
           && !conn->ahead && limits->max > 0
           && (!limits->requests || conn->exchanges < limits->requests)
           && !rp_conn_is_over(conn, now)
           && (!conn->ssl || !SSL_has_pending(conn->ssl) || rp_tls_is_quiet(conn));
}

/* ---- the shared ones ------------------------------------------------------------------------- */

static rp_conn *pop_idle(rp_endpoint *endpoint)
{
    rp_conn *conn = NULL;
    pthread_mutex_lock(&endpoint->lock);
    if (!APR_RING_EMPTY(&endpoint->idle, rp_conn, link)) {
        conn = APR_RING_FIRST(&endpoint->idle);
        APR_RING_REMOVE(conn, link);
        endpoint->idle_count--;
    }
    pthread_mutex_unlock(&endpoint->lock);
    if (conn) {
        RP_UNCOUNT(idle, 1);
    }
    return conn;
}

static rp_conn *take_shared(rp_endpoint *endpoint, apr_time_t now)
{
    rp_conn *conn;
    while ((conn = pop_idle(endpoint))) {
        if (!rp_conn_is_over(conn, now) && rp_conn_is_quiet(conn)) {
            RP_COUNT(reuses, 1);
            return conn;
        }
        rp_conn_destroy(conn);
        RP_COUNT(retired, 1);
    }
    return NULL;
}

/* Puts it in front; returns what has to go to stay within the limit, or NULL. */
static rp_conn *push_idle(rp_endpoint *endpoint, rp_conn *conn)
{
    rp_conn *surplus = NULL;
    pthread_mutex_lock(&endpoint->lock);
    APR_RING_INSERT_HEAD(&endpoint->idle, conn, rp_conn, link);
    if (endpoint->idle_count < endpoint->keepalive.max) {
        endpoint->idle_count++;
    }
    else {
        surplus = APR_RING_LAST(&endpoint->idle);
        APR_RING_REMOVE(surplus, link);
    }
    pthread_mutex_unlock(&endpoint->lock);
    if (!surplus) {
        RP_COUNT(idle, 1);
    }
    return surplus;
}

/* ---- taking and giving back ------------------------------------------------------------------ */

rp_conn *rp_conn_acquire(rp_endpoint *endpoint, rp_shelf *shelf, int fresh)
{
    apr_time_t now = shelf ? rp_shelf_now(shelf) : apr_time_now();
    rp_conn *conn = NULL;
    rp_bin *bin = NULL;
    if (endpoint->name) {
        rp_name_touch(endpoint->name, now);
    }
    if (shelf) {
        bin = rp_bin_use(shelf, endpoint);
        conn = fresh ? NULL : rp_bin_take(bin, now);
    }
    else {
        rp_endpoint_hold(endpoint);
        RP_COUNT(active, 1);
        conn = fresh ? NULL : take_shared(endpoint, now);
    }
    if (!conn) {
        conn = ap_calloc(1, sizeof(*conn));
        conn->endpoint = endpoint;
        conn->bin = bin;
        conn->fd = -1;
        conn->peer_idle = -1;
        conn->created = now;
        rp_connecting_begin(conn);
    }
    return conn;
}

void rp_conn_release(rp_conn *conn, int reusable)
{
    rp_endpoint *endpoint = conn->endpoint;
    apr_time_t now = conn->bin ? rp_shelf_now(rp_bin_shelf(conn->bin)) : apr_time_now();
    int was_ready = conn->state == RP_CONN_READY;
    conn->exchanges++;
    conn->idle_since = now;
    int keep = reusable && may_be_kept(conn, now);
    if (conn->bin) {
        rp_bin_give_back(conn->bin, conn, keep, was_ready && reusable);
        return;
    }
    rp_conn *surplus = keep ? push_idle(endpoint, conn) : conn;
    if (surplus) {
        rp_conn_destroy(surplus);
        if (was_ready && reusable) {
            RP_COUNT(retired, 1);
        }
    }
    RP_UNCOUNT(active, 1);
    rp_endpoint_drop(endpoint);
}

/* ---- maintenance ----------------------------------------------------------------------------- */

void rp_conns_close(struct rp_conn_ring *connections)
{
    while (!APR_RING_EMPTY(connections, rp_conn, link)) {
        rp_conn *conn = APR_RING_FIRST(connections);
        APR_RING_REMOVE(conn, link);
        rp_conn_destroy(conn);
        RP_COUNT(retired, 1);
    }
}

static void doom(rp_endpoint *endpoint, rp_conn *conn, struct rp_conn_ring *doomed)
{
    APR_RING_REMOVE(conn, link);
    APR_RING_INSERT_TAIL(doomed, conn, rp_conn, link);
    endpoint->idle_count--;
    RP_UNCOUNT(idle, 1);
}

/* Moves to doomed those of the idle connections that the peer has closed or spoken on. poll() does
 * not block here, so it may run under the endpoint's lock. */
static void take_closed(rp_endpoint *endpoint, struct rp_conn_ring *doomed)
{
    struct pollfd descriptors[POLL_MAX];
    rp_conn *conns[POLL_MAX];
    rp_conn *conn = APR_RING_FIRST(&endpoint->idle);
    while (conn != APR_RING_SENTINEL(&endpoint->idle, rp_conn, link)) {
        int count = 0;
        for (; count < POLL_MAX && conn != APR_RING_SENTINEL(&endpoint->idle, rp_conn, link);
             conn = APR_RING_NEXT(conn, link)) {
            conns[count] = conn;
            /* Over TLS what has arrived may be a session ticket. The analyzer takes a ring's
             * sentinel for an element. NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Branch) */
            short events = conn->ssl ? POLLRDHUP : POLLRDHUP | POLLIN;
            descriptors[count++] = (struct pollfd){ .fd = conn->fd, .events = events };
        }
        if (poll(descriptors, (nfds_t)count, 0) <= 0) {
            continue;
        }
        for (int i = 0; i < count; i++) {
            if (descriptors[i].revents) {
                doom(endpoint, conns[i], doomed);
            }
        }
    }
}

/* Moves to doomed what is over. */
static void take_over(rp_endpoint *endpoint, apr_time_t now, struct rp_conn_ring *doomed)
{
    rp_conn *next;
    for (rp_conn *conn = APR_RING_FIRST(&endpoint->idle);
         conn != APR_RING_SENTINEL(&endpoint->idle, rp_conn, link); conn = next) {
        next = APR_RING_NEXT(conn, link);
        if (rp_conn_is_over(conn, now)) {
            doom(endpoint, conn, doomed);
        }
    }
}

void rp_pool_collect(rp_endpoint *endpoint, apr_time_t now, struct rp_conn_ring *doomed)
{
    pthread_mutex_lock(&endpoint->lock);
    take_over(endpoint, now, doomed);
    take_closed(endpoint, doomed);
    pthread_mutex_unlock(&endpoint->lock);
}
