/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Shelves: idle connections that belong to one thread. */

#include <pthread.h>
#include "t/unit/upstream_fixture.h"

static apr_pool_t *pool;
static int port, listener;

static rp_target *target_here(void)
{
    return make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", port, NULL);
}

static rp_endpoint *endpoint_with(rp_keepalive keepalive)
{
    return rp_endpoint_get(target_here(), 0, NULL, &keepalive);
}

/* What a shelf told its loop. */
typedef struct told {
    int idle, gone;                     /* calls */
    int fd;                             /* of the last one */
    rp_conn *conn;
} told;

static void tell(void *baton, int fd, rp_conn *conn)
{
    told *news = baton;
    news->idle += conn != NULL;
    news->gone += conn == NULL;
    news->fd = fd;
    news->conn = conn;
}

/* Lets the peer say text and reads it, with room for more. */
static void hear(rp_conn *conn, int peer, const char *text)
{
    char buffer[64];
    apr_size_t got;
    apr_size_t size = strlen(text);
    rp_io io;
    if (write(peer, text, size) != (ssize_t)size) {
        bail_out("write");
    }
    while ((io = rp_conn_read(conn, buffer, sizeof(buffer), &got)) == RP_IO_AGAIN) {
        wait_for(conn, 1, 0, apr_time_now() + PATIENCE);
    }
    ok(io == RP_IO_DONE && got == size, "an answer of %d bytes", (int)size);
}

/* ---- taking and giving back ------------------------------------------------------------------ */

static void test_reuse(void)
{
    told news = { 0 }, other_news = { 0 };
    rp_shelf *shelf = rp_shelf_create(tell, &news);
    rp_shelf *other = rp_shelf_create(tell, &other_news);
    rp_endpoint *endpoint = endpoint_with((rp_keepalive){ .max = 2, .idle = 30000000 });
    rp_upstream_stats before = stats();
    rp_conn *conns[3];
    int peers[3];
    char byte;
    for (int i = 0; i < 3; i++) {
        conns[i] = connected(endpoint, shelf, listener, &peers[i]);
    }
    is_number(stats().active - before.active, 3, "connections in use are counted");
    int fd = rp_conn_fd(conns[0]);
    rp_conn_release(conns[0], 1);
    ok(news.idle == 1 && news.fd == fd && news.conn == conns[0], "the loop hears of an idle one");
    rp_conn_release(conns[1], 1);
    is_number(stats().idle - before.idle, 2, "idle ones are counted");
    is_number(news.gone, 0, "and kept");
    rp_conn_release(conns[2], 1);
    rp_shelf_maintain(shelf, apr_time_now());
    is_number(news.gone, 0, "also over max=, for the next request may take one");
    rp_shelf_maintain(shelf, apr_time_now() + apr_time_from_sec(2));
    is_number(read(peers[0], &byte, 1), 0, "then the one idle for longest is closed");
    is_number(news.gone, 1, "and the loop hears of that");
    is_number(stats().active, before.active, "nothing is in use");

    rp_conn *elsewhere = rp_conn_acquire(endpoint, other, 0);
    ok(!rp_conn_is_reused(elsewhere), "another shelf doesn't get it");
    rp_conn_release(elsewhere, 0);
    elsewhere = rp_conn_acquire(endpoint, NULL, 0);
    ok(!rp_conn_is_reused(elsewhere), "nor do those that share");
    rp_conn_release(elsewhere, 0);
    is_number(other_news.idle + other_news.gone, 0, "a new one that wasn't kept is no news");

    rp_conn *first = rp_conn_acquire(endpoint, shelf, 0);
    rp_conn *second = rp_conn_acquire(endpoint, shelf, 0);
    ok(first == conns[2] && second == conns[1], "the most recently used comes first");
    is_number(stats().reuses - before.reuses, 2, "reuses are counted");
    rp_conn *third = rp_conn_acquire(endpoint, shelf, 0);
    ok(!rp_conn_is_reused(third), "an empty shelf gives a new one");
    rp_conn_release(third, 0);
    rp_conn_release(first, 0);
    is_number(read(peers[2], &byte, 1), 0, "one that isn't reusable is closed");
    rp_conn_release(second, 1);
    rp_shelf_destroy(shelf);
    is_number(read(peers[1], &byte, 1), 0, "with the shelf its connections go");
    is_number(stats().idle, before.idle, "and are uncounted");
    rp_shelf_destroy(other);
    for (int i = 0; i < 3; i++) {
        close(peers[i]);
    }
}

static void test_rounds(void)
{
    told news = { 0 };
    rp_shelf *shelf = rp_shelf_create(tell, &news);
    rp_endpoint *endpoint = endpoint_with((rp_keepalive){ .max = 4, .idle = 30000000 });
    int peers[2];
    rp_conn *early = connected(endpoint, shelf, listener, &peers[0]);
    rp_conn *late = connected(endpoint, shelf, listener, &peers[1]);
    rp_conn_release(early, 1);
    rp_shelf_begin_round(shelf, apr_time_now(), 1);
    rp_conn_release(late, 1);
    ok(rp_conn_acquire(endpoint, shelf, 0) == early, "one idle before this round is taken");
    ok(rp_conn_acquire(endpoint, shelf, 0) == late, "before one that has just become idle");
    rp_conn_release(late, 1);
    if (write(peers[1], "x", 1) != 1) {
        bail_out("write");
    }
    rp_shelf_begin_round(shelf, apr_time_now(), 0);
    rp_conn *other = rp_conn_acquire(endpoint, shelf, 0);
    ok(!rp_conn_is_reused(other), "where events are untold, one that has spoken isn't");
    rp_conn_release(other, 0);
    rp_conn_release(early, 0);
    rp_shelf_destroy(shelf);
    close(peers[0]);
    close(peers[1]);
}

static void test_number(void)
{
    rp_shelf *shelves[RP_SHELVES_MAX];
    int made = 0;
    for (int i = 0; i < RP_SHELVES_MAX; i++) {
        shelves[i] = rp_shelf_create(tell, NULL);
        made += shelves[i] != NULL;
    }
    is_number(made, RP_SHELVES_MAX, "so many shelves there may be");
    ok(!rp_shelf_create(tell, NULL), "and no more");
    rp_shelf_destroy(shelves[3]);
    shelves[3] = rp_shelf_create(tell, NULL);
    ok(shelves[3] != NULL, "unless one has ended");
    for (int i = 0; i < RP_SHELVES_MAX; i++) {
        rp_shelf_destroy(shelves[i]);
    }
}

/* ---- what the peer does to idle ones --------------------------------------------------------- */

static void test_peer(void)
{
    told news = { 0 };
    rp_shelf *shelf = rp_shelf_create(tell, &news);
    rp_endpoint *endpoint = endpoint_with((rp_keepalive){ .max = 8, .idle = 31000000 });
    rp_upstream_stats before = stats();
    int peer;
    rp_conn *conn = connected(endpoint, shelf, listener, &peer);
    int fd = rp_conn_fd(conn);
    hear(conn, peer, "answer");
    rp_conn_release(conn, 1);
    rp_shelf_ready(shelf, conn);
    is_number(news.gone, 0, "an event without anything behind it is passed over");
    close(peer);
    await_readable(fd);
    rp_shelf_ready(shelf, conn);
    ok(news.gone == 1 && news.fd == fd, "an idle one that the peer closed goes");
    is_number(stats().retired - before.retired, 1, "as retired");

    conn = connected(endpoint, shelf, listener, &peer);
    fd = rp_conn_fd(conn);
    rp_conn_release(conn, 1);
    ok(write(peer, "HTTP/1.1 408 Timeout\r\n\r\n", 24) == 24, "the peer says something unasked");
    await_readable(fd);
    rp_shelf_ready(shelf, conn);
    is_number(stats().retired - before.retired, 2, "one with something to read goes too");
    close(peer);

    conn = connected(endpoint, shelf, listener, &peer);
    fd = rp_conn_fd(conn);
    rp_conn_release(conn, 1);
    close(peer);
    await_readable(fd);
    rp_conn *fresh = rp_conn_acquire(endpoint, shelf, 0);
    ok(!rp_conn_is_reused(fresh), "a closed one isn't used before the loop saw its event either");
    is_number(news.gone, 3, "the loop hears of that");
    rp_conn_release(fresh, 0);

    conn = connected(endpoint, shelf, listener, &peer);
    fd = rp_conn_fd(conn);
    ok(write(peer, "answer+", 7) == 7, "the peer says more than an answer");
    await_readable(fd);
    char buffer[6];
    rp_io last;
    ok(read_now(conn, buffer, 6, &last) == 6, "of which the answer is read");
    int idle = news.idle;
    rp_conn_release(conn, 1);
    is_number(news.idle, idle, "what was left unread doesn't wait for the next request");
    close(peer);

    conn = connected(endpoint, shelf, listener, &peer);
    hear(conn, peer, "answer");
    ok(write(peer, "+", 1) == 1, "the peer says more after an answer");
    await_readable(rp_conn_fd(conn));
    rp_conn_spliced(conn);
    rp_conn_release(conn, 1);
    is_number(news.idle, idle, "and somebody else read from the socket: it is looked at");
    close(peer);
    is_number(stats().idle, before.idle, "nothing is idle");
    rp_shelf_destroy(shelf);
}

static void test_maintain(void)
{
    told news = { 0 };
    rp_shelf *shelf = rp_shelf_create(tell, &news);
    rp_endpoint *endpoint = endpoint_with((rp_keepalive){ .max = 8, .idle = apr_time_from_sec(20),
                                                          .requests = 2 });
    int peer;
    char byte;
    apr_time_t now = apr_time_now();
    rp_conn *conn = connected(endpoint, shelf, listener, &peer);
    rp_conn_release(conn, 1);
    rp_shelf_maintain(shelf, now + apr_time_from_sec(19));
    is_number(news.gone, 0, "within its limits it stays");
    rp_shelf_maintain(shelf, now + apr_time_from_sec(21));
    is_number(read(peer, &byte, 1), 0, "idle for too long it is closed");
    is_number(news.gone, 1, "and the loop hears of it");
    close(peer);

    conn = connected(endpoint, shelf, listener, &peer);
    rp_conn_release(conn, 1);
    conn = rp_conn_acquire(endpoint, shelf, 0);
    ok(rp_conn_is_reused(conn), "requests=2 allows a second exchange");
    rp_conn_release(conn, 1);
    is_number(read(peer, &byte, 1), 0, "and closes after it");
    close(peer);
    rp_shelf_destroy(shelf);
}

/* ---- endpoints that are dropped -------------------------------------------------------------- */

/* Fills the table of dynamic endpoints, which drops the one that is unused. */
static void drop_unused(void)
{
    rp_endpoint *endpoints[RP_DYNAMIC_ENDPOINTS_MAX];
    int made = fill_dynamic(pool, endpoints);
    is_number(made, RP_DYNAMIC_ENDPOINTS_MAX, "an endpoint only shelves know makes room");
    for (int i = 0; i < made; i++) {
        rp_endpoint_release(endpoints[i]);
    }
}

static void test_dropped(void)
{
    told news = { 0 };
    rp_keepalive keepalive = { .max = 8, .idle = apr_time_from_sec(33) };
    rp_shelf *shelf = rp_shelf_create(tell, &news);
    rp_shelf *other = rp_shelf_create(tell, &news);
    unsigned int endpoints = stats().endpoints;
    int idle_peer, used_peer;
    char byte;
    rp_endpoint *endpoint = rp_endpoint_get(target_here(), 1, NULL, &keepalive);
    rp_conn *idle = connected(endpoint, shelf, listener, &idle_peer);
    rp_conn *used = connected(endpoint, other, listener, &used_peer);
    rp_conn_release(idle, 1);
    rp_endpoint_release(endpoint);
    rp_conn_release(used, 1);
    used = rp_conn_acquire(endpoint, other, 0);         /* as the shelf alone could not keep it */
    ok(rp_conn_is_reused(used), "a connection is in use");
    rp_conn_release(used, 1);
    drop_unused();
    is_number(stats().endpoints - endpoints, RP_DYNAMIC_ENDPOINTS_MAX + 1,
              "out of the table it lives on while shelves have something of it");
    rp_shelf_maintain(shelf, apr_time_now());
    is_number(read(idle_peer, &byte, 1), 0, "each closes its own");
    is_number(recv(used_peer, &byte, 1, MSG_DONTWAIT), -1, "not those of others");
    rp_shelf_maintain(other, apr_time_now());
    is_number(read(used_peer, &byte, 1), 0, "when its turn comes");
    is_number(stats().endpoints - endpoints, RP_DYNAMIC_ENDPOINTS_MAX, "then it is gone");
    close(idle_peer);
    close(used_peer);
    rp_shelf_destroy(shelf);
    rp_shelf_destroy(other);
}

/* ---- many threads ---------------------------------------------------------------------------- */

#define LOOPS 4
#define ROUNDS 400

static void *loop_main(void *data)
{
    rp_target *target = data;
    told news = { 0 };
    rp_keepalive keepalive = { .max = 2, .idle = apr_time_from_sec(5) };
    rp_shelf *shelf = rp_shelf_create(tell, &news);
    long bad = 0;
    for (int i = 0; i < ROUNDS; i++) {
        rp_endpoint *endpoint = rp_endpoint_get(target, i & 1, NULL, &keepalive);
        rp_conn *conns[3];
        rp_shelf_begin_round(shelf, apr_time_now(), 1);
        for (int j = 0; j < 3; j++) {
            conns[j] = rp_conn_acquire(endpoint, shelf, 0);
            bad += connect_now(conns[j]) != RP_IO_DONE;
        }
        for (int j = 0; j < 3; j++) {
            rp_conn_release(conns[j], 1);
        }
        if (i % 50 == 0) {
            rp_shelf_maintain(shelf, apr_time_now());
        }
        if (i & 1) {
            rp_endpoint_release(endpoint);
        }
    }
    rp_shelf_destroy(shelf);
    return (void *)bad;
}

static void test_threads(void)
{
    pthread_t threads[LOOPS];
    rp_upstream_stats before = stats();
    int busy_port = 0;
    int busy = listen_at("127.0.0.1", &busy_port, 4096);
    rp_target *target = make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", busy_port, NULL);
    long bad = 0;
    for (int i = 0; i < LOOPS; i++) {
        pthread_create(&threads[i], NULL, loop_main, target);
    }
    for (int i = 0; i < LOOPS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        bad += (long)result;
    }
    rp_upstream_stats after = stats();
    is_number(bad, 0, "loops share endpoints, not connections");
    is_number(after.reuses - before.reuses, LOOPS * (ROUNDS - 1) * 3, "reuses of all are counted");
    ok(after.active == before.active && after.idle == before.idle, "all were given back");
    close(busy);
}

int main(void)
{
    pool = tap_pool();
    listener = listen_at("127.0.0.1", &port, 64);
    apr_pool_t *child;
    apr_pool_create(&child, pool);
    is_number(rp_upstream_child_init(child, &test_server, NULL), APR_SUCCESS, "child_init");
    test_reuse();
    test_rounds();
    test_number();
    test_peer();
    test_maintain();
    test_dropped();
    test_threads();
    apr_pool_destroy(child);
    is_number(stats().endpoints, 0, "nothing is left when the child ends");
    close(listener);
    return tap_done();
}
