/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Endpoints, pools and plain connections. */

#include <pthread.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "t/unit/upstream_fixture.h"

static apr_pool_t *pool;
static int port, listener;

/* ---- endpoints ------------------------------------------------------------------------------- */

static void test_keys(void)
{
    rp_target *a = make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", port, NULL);
    rp_target *same = make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", port, NULL);
    rp_target *other = make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", port + 1, NULL);
    rp_keepalive defaults = rp_keepalive_default;
    rp_keepalive few = { .max = 1, .idle = apr_time_from_sec(60) };
    rp_tls tls = { .verify = 1, .name = "x.test" };
    rp_endpoint *endpoint = rp_endpoint_get(a, 0, NULL, NULL);
    ok(endpoint && endpoint == rp_endpoint_get(a, 0, NULL, &defaults),
       "settings are compared by value, none means the defaults");
    ok(endpoint == rp_endpoint_get(same, 0, NULL, NULL), "equal targets share an endpoint");
    ok(endpoint == rp_endpoint_get(a, 0, &tls, NULL), "TLS settings don't matter to plain targets");
    ok(endpoint != rp_endpoint_get(other, 0, NULL, NULL), "another port is another endpoint");
    ok(endpoint != rp_endpoint_get(a, 0, NULL, &few), "other keep-alive, another endpoint");
    ok(rp_endpoint_get(a, 0, NULL, &few) == rp_endpoint_get(same, 0, NULL, &few),
       "and that one is shared again");
    ok(endpoint == rp_endpoint_get(same, 1, NULL, NULL), "a dynamic target finds it too");
    rp_endpoint_release(endpoint);
}

/* Targets that come and go while the child runs. */
static void test_forget(void)
{
    rp_target *a = make_target(pool, RP_SCHEME_HTTP, "127.0.0.9", port, NULL);
    rp_target *same = make_target(pool, RP_SCHEME_HTTP, "127.0.0.9", port, NULL);
    rp_keepalive few = { .max = 1, .idle = apr_time_from_sec(60) };
    unsigned int before = stats().endpoints;
    rp_endpoint *endpoint = rp_endpoint_get(a, 0, NULL, NULL);
    rp_endpoint_get(a, 0, NULL, &few);
    rp_endpoint_get(same, 0, NULL, NULL);
    is_number(stats().endpoints, before + 2, "one for each kind of settings");
    rp_endpoint_forget(a);
    is_number(stats().endpoints, before + 1, "one that another target has stays");
    ok(rp_endpoint_get(same, 1, NULL, NULL) == endpoint, "a .htaccess file uses it");
    rp_endpoint_forget(same);
    is_number(stats().endpoints, before + 1, "so it stays as a dynamic one");
    rp_endpoint_release(endpoint);
    ok(rp_endpoint_get(a, 0, NULL, NULL) == endpoint, "until a target has it again");
    rp_endpoint_forget(a);
    rp_endpoint_forget(a);
    is_number(stats().endpoints, before, "then it goes with the last");
}

static void test_dynamic_limit(void)
{
    rp_endpoint *endpoints[RP_DYNAMIC_ENDPOINTS_MAX];
    unsigned int before = stats().endpoints;
    int made = fill_dynamic(pool, endpoints);
    is_number(made, RP_DYNAMIC_ENDPOINTS_MAX, "so many dynamic endpoints may be in use at once");
    rp_target *more = make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", 40000, NULL);
    ok(!rp_endpoint_get(more, 1, NULL, NULL), "one more is refused while all are in use");
    ok(rp_endpoint_get(more, 0, NULL, NULL) != NULL, "the configuration's are not limited");
    rp_conn *conn = rp_conn_acquire(endpoints[0], NULL, 0);
    rp_endpoint_release(endpoints[0]);
    more = make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", 40001, NULL);
    ok(!rp_endpoint_get(more, 1, NULL, NULL), "an endpoint with a connection is in use");
    rp_conn_release(conn, 0);
    rp_endpoint *latest = rp_endpoint_get(more, 1, NULL, NULL);
    ok(latest != NULL, "once it is unused it makes room");
    is_number(stats().endpoints, before + RP_DYNAMIC_ENDPOINTS_MAX + 1, "and is gone itself");
    rp_endpoint_release(latest);
    for (int i = 1; i < RP_DYNAMIC_ENDPOINTS_MAX; i++) {
        rp_endpoint_release(endpoints[i]);
    }
}

/* ---- pooling --------------------------------------------------------------------------------- */

static rp_endpoint *endpoint_with(rp_keepalive keepalive)
{
    return rp_endpoint_get(make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", port, NULL), 0, NULL,
                           &keepalive);
}

static void test_reuse(void)
{
    rp_endpoint *endpoint = endpoint_with((rp_keepalive){ .max = 4, .idle = 30000000 });
    rp_upstream_stats before = stats();
    char buffer[64];
    rp_io last;
    int peer;
    rp_conn *conn = connected(endpoint, NULL, listener, &peer);
    ok(!rp_conn_is_reused(conn), "a new connection is new");
    is_text(rp_conn_peer(conn), apr_psprintf(pool, "127.0.0.1:%d", port), "it tells its address");
    ok(rp_conn_fd(conn) >= 0, "a plain connection gives its descriptor");
    is_number(write_now(conn, "ping"), RP_IO_DONE, "it writes");
    ok(recv(peer, buffer, 4, MSG_WAITALL) == 4 && !memcmp(buffer, "ping", 4), "the peer has that");
    is_number(rp_conn_read(conn, buffer, 4, &(apr_size_t){ 0 }), RP_IO_AGAIN, "nothing to read");
    ok(write(peer, "pong", 4) == 4 && read_now(conn, buffer, 4, &last) == 4
       && !memcmp(buffer, "pong", 4), "it reads what the peer answers");
    rp_conn_release(conn, 1);
    is_number(stats().idle, before.idle + 1, "given back, it is idle");

    rp_conn *again = rp_conn_acquire(endpoint, NULL, 0);
    ok(again == conn && rp_conn_is_reused(again), "the next exchange gets it");
    is_number(rp_conn_connect(again), RP_IO_DONE, "connecting it is nothing");
    rp_conn_release(again, 1);
    rp_conn *fresh = rp_conn_acquire(endpoint, NULL, 1);
    ok(!rp_conn_is_reused(fresh), "who asks for a fresh one gets a fresh one");
    rp_conn_release(fresh, 1);

    again = rp_conn_acquire(endpoint, NULL, 0);
    rp_conn_release(again, 0);
    is_number(read(peer, buffer, 1), 0, "a connection that isn't reusable is closed at once");
    rp_upstream_stats after = stats();
    is_number(after.idle, before.idle, "nothing is idle");
    is_number(after.active, before.active, "nothing is active");
    is_number(after.reuses - before.reuses, 2, "reuses are counted");
    is_number(after.connects - before.connects, 1, "connects are counted");
    close(peer);
}

static void test_order(void)
{
    rp_endpoint *endpoint = endpoint_with((rp_keepalive){ .max = 2, .idle = 40000000 });
    rp_conn *conns[3];
    int peers[3];
    char byte;
    for (int i = 0; i < 3; i++) {
        conns[i] = connected(endpoint, NULL, listener, &peers[i]);
    }
    for (int i = 0; i < 3; i++) {
        rp_conn_release(conns[i], 1);
    }
    is_number(read(peers[0], &byte, 1), 0, "over the limit the one idle for longest is closed");
    rp_conn *first = rp_conn_acquire(endpoint, NULL, 0);
    rp_conn *second = rp_conn_acquire(endpoint, NULL, 0);
    ok(first == conns[2] && second == conns[1], "the most recently used comes first");
    rp_conn_release(first, 0);
    rp_conn_release(second, 0);
    for (int i = 0; i < 3; i++) {
        close(peers[i]);
    }
    endpoint = endpoint_with((rp_keepalive){ .max = 0 });
    rp_conn_release(connected(endpoint, NULL, listener, &peers[0]), 1);
    is_number(read(peers[0], &byte, 1), 0, "max=0 keeps nothing");
    close(peers[0]);
}

static void test_dead_connections(void)
{
    rp_endpoint *endpoint = endpoint_with((rp_keepalive){ .max = 8 });
    rp_upstream_stats before = stats();
    int peer;
    rp_conn *conn = connected(endpoint, NULL, listener, &peer);
    int fd = rp_conn_fd(conn);
    rp_conn_release(conn, 1);
    close(peer);
    await_readable(fd);
    conn = rp_conn_acquire(endpoint, NULL, 0);
    ok(!rp_conn_is_reused(conn), "an idle connection that the peer closed is not used");
    rp_conn_release(conn, 0);
    ok(stats().retired > before.retired, "it is counted as retired");

    conn = connected(endpoint, NULL, listener, &peer);
    fd = rp_conn_fd(conn);
    rp_conn_release(conn, 1);
    ok(write(peer, "HTTP/1.1 408 Timeout\r\n\r\n", 24) == 24, "the peer says something unasked");
    await_readable(fd);
    conn = rp_conn_acquire(endpoint, NULL, 0);
    ok(!rp_conn_is_reused(conn), "an idle connection with something to read is not used");
    rp_conn_release(conn, 0);
    close(peer);

    rp_conn_release(connected(endpoint, NULL, listener, &peer), 1);
    close(peer);
    ok(eventually(stats().idle == before.idle), "maintenance closes what the peer has closed");
}

static void test_limits(void)
{
    int peer;
    char byte;
    rp_endpoint *endpoint = endpoint_with((rp_keepalive){ .max = 8, .requests = 2 });
    rp_conn_release(connected(endpoint, NULL, listener, &peer), 1);
    rp_conn *conn = rp_conn_acquire(endpoint, NULL, 0);
    ok(rp_conn_is_reused(conn), "requests=2 allows a second exchange");
    rp_conn_release(conn, 1);
    is_number(read(peer, &byte, 1), 0, "and closes after it");
    close(peer);

    endpoint = endpoint_with((rp_keepalive){ .max = 8, .age = apr_time_from_msec(100) });
    conn = connected(endpoint, NULL, listener, &peer);
    apr_sleep(apr_time_from_msec(120));
    rp_conn_release(conn, 1);
    is_number(read(peer, &byte, 1), 0, "older than age= it is not kept");
    close(peer);

    endpoint = endpoint_with((rp_keepalive){ .max = 8, .idle = apr_time_from_msec(100) });
    rp_conn_release(connected(endpoint, NULL, listener, &peer), 1);
    apr_sleep(apr_time_from_msec(120));
    conn = rp_conn_acquire(endpoint, NULL, 0);
    ok(!rp_conn_is_reused(conn), "idle for longer than idle= it is not used");
    rp_conn_release(conn, 0);
    close(peer);
    rp_conn_release(connected(endpoint, NULL, listener, &peer), 1);
    is_number(read(peer, &byte, 1), 0, "maintenance closes it without anyone asking");
    close(peer);

    endpoint = endpoint_with((rp_keepalive){ .max = 8, .idle = apr_time_from_sec(60) });
    conn = connected(endpoint, NULL, listener, &peer);
    rp_conn_set_peer_idle(conn, apr_time_from_sec(1));
    rp_conn_release(conn, 1);
    is_number(read(peer, &byte, 1), 0, "Keep-Alive: timeout=1 is too short to keep it");
    close(peer);
    conn = connected(endpoint, NULL, listener, &peer);
    rp_conn_set_peer_idle(conn, apr_time_from_sec(30));
    rp_conn_release(conn, 1);
    conn = rp_conn_acquire(endpoint, NULL, 0);
    ok(rp_conn_is_reused(conn), "Keep-Alive: timeout=30 is long enough");
    rp_conn_release(conn, 0);
    close(peer);
}

/* ---- ends ------------------------------------------------------------------------------------ */

static void test_half_close(void)
{
    rp_endpoint *endpoint = endpoint_with((rp_keepalive){ .max = 8 });
    char buffer[64];
    rp_io last;
    int peer;
    rp_conn *conn = connected(endpoint, NULL, listener, &peer);
    rp_conn_end_write(conn);
    is_number(read(peer, buffer, 1), 0, "the peer sees our direction end");
    ok(write(peer, "rest", 4) == 4 && read_now(conn, buffer, 4, &last) == 4,
       "the other direction goes on");
    close(peer);
    read_now(conn, buffer, 1, &last);
    is_number(last, RP_IO_EOF, "until it ends too");
    rp_conn_release(conn, 1);
    conn = rp_conn_acquire(endpoint, NULL, 0);
    ok(!rp_conn_is_reused(conn), "a connection with an ended direction is never kept");
    rp_conn_release(conn, 0);
}

static void test_early_answer(void)
{
    rp_endpoint *endpoint = endpoint_with((rp_keepalive){ .max = 8 });
    char buffer[64];
    rp_io last;
    int peer;
    rp_conn *conn = connected(endpoint, NULL, listener, &peer);
    is_number(write_now(conn, "half a request"), RP_IO_DONE, "a request begins");
    ok(write(peer, "413", 3) == 3, "the peer answers early");
    close(peer);                        /* unread bytes: this resets the connection */
    rp_io io = RP_IO_DONE;
    for (int i = 0; i < 1000 && io != RP_IO_FAILED; i++) {
        io = write_now(conn, "more of it");
    }
    is_number(io, RP_IO_FAILED, "writing on fails, and no signal ends the process");
    is_reason(conn, RP_REASON_INCOMPLETE, "with a reason");
    ok(strlen(detail_of(conn)) > 0, "and a detail: %s", detail_of(conn));
    ok(read_now(conn, buffer, 3, &last) == 3 && !memcmp(buffer, "413", 3),
       "the early answer can still be read");
    rp_conn_release(conn, 1);
    conn = rp_conn_acquire(endpoint, NULL, 0);
    ok(!rp_conn_is_reused(conn), "a broken connection is never kept");
    rp_conn_release(conn, 0);
}

/* ---- connecting ------------------------------------------------------------------------------ */

static void test_failures(void)
{
    int unused = 0;
    close(listen_at("127.0.0.1", &unused, 1));
    rp_upstream_stats before = stats();
    rp_conn *conn = rp_conn_acquire(rp_endpoint_get(
        make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", unused, NULL), 0, NULL, NULL), NULL, 0);
    is_number(connect_now(conn), RP_IO_FAILED, "nobody listens: failed");
    is_reason(conn, RP_REASON_REFUSED, "refused");
    ok(strstr(detail_of(conn), "127.0.0.1"), "the detail names the address: %s", detail_of(conn));
    is_text(rp_conn_peer(conn), "", "it has no peer");
    is_number(rp_conn_connect(conn), RP_IO_FAILED, "failed for good");
    is_number(stats().connect_failures - before.connect_failures, 1, "counted once");
    rp_conn_release(conn, 1);

    conn = rp_conn_acquire(rp_endpoint_get(
        make_target(pool, RP_SCHEME_HTTP, "255.255.255.255", 80, NULL), 0, NULL, NULL), NULL, 0);
    is_number(connect_now(conn), RP_IO_FAILED, "an address that cannot be connected to: failed");
    ok(rp_conn_reason(conn, NULL) == RP_REASON_CONNECT_FAILED
       || rp_conn_reason(conn, NULL) == RP_REASON_UNROUTABLE, "and said so: %s", detail_of(conn));
    rp_conn_release(conn, 0);
}

static void test_ipv6(void)
{
    int v6_port = 0;
    int v6 = listen_at("::1", &v6_port, 8);
    rp_conn *conn = rp_conn_acquire(rp_endpoint_get(
        make_target(pool, RP_SCHEME_HTTP, "::1", v6_port, NULL), 0, NULL, NULL), NULL, 0);
    is_number(connect_now(conn), RP_IO_DONE, "an IPv6 literal connects");
    is_text(rp_conn_peer(conn), apr_psprintf(pool, "[::1]:%d", v6_port), "and tells its address");
    rp_conn_release(conn, 0);
    close(v6);
}

static void test_unix_socket(void)
{
    const char *directory = apr_psprintf(pool, "/tmp/rp-upstream-%d", (int)getpid());
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (mkdir(directory, 0700) < 0) {
        bail_out(directory);
    }
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", directory);
    int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    rp_target *target = make_target(pool, RP_SCHEME_HTTP, "localhost", 80, address.sun_path);
    rp_endpoint *endpoint = rp_endpoint_get(target, 0, NULL, NULL);
    rp_conn *conn = rp_conn_acquire(endpoint, NULL, 0);
    is_number(connect_now(conn), RP_IO_FAILED, "no socket there: failed");
    is_reason(conn, RP_REASON_REFUSED, "that counts as refused");
    rp_conn_release(conn, 0);
    if (bind(server, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(server, 0) < 0) {
        bail_out("Unix socket");
    }
    conn = rp_conn_acquire(endpoint, NULL, 0);
    is_number(connect_now(conn), RP_IO_DONE, "a Unix socket connects");
    is_text(rp_conn_peer(conn), address.sun_path, "its peer is the path");

    rp_conn *waiting = rp_conn_acquire(endpoint, NULL, 1);
    rp_io io = rp_conn_connect(waiting);
    rp_wait_fd waits[RP_CONN_WAITS_MAX];
    apr_time_t next = 0;
    is_number(io, RP_IO_AGAIN, "with a full backlog it waits");
    is_number(rp_conn_waits(waiting, 0, 0, waits, &next), 0, "for no descriptor");
    ok(next > 0 && next < apr_time_now() + apr_time_from_msec(50), "but a short while");
    int peer = accept_one(server);
    is_number(connect_now(waiting), RP_IO_DONE, "until there is room");
    int second = accept_one(server);
    rp_conn_release(waiting, 0);
    rp_conn_release(conn, 1);
    conn = rp_conn_acquire(endpoint, NULL, 0);
    ok(rp_conn_is_reused(conn), "Unix connections are pooled");
    rp_conn_release(conn, 0);
    close(peer);
    close(second);
    close(server);
    unlink(address.sun_path);
    rmdir(directory);
}

/* ---- many threads ---------------------------------------------------------------------------- */

#define STRESS_THREADS 4
#define STRESS_ROUNDS 500
#define STRESS_CLOSE_EVERY 7            /* the server closes after so many answers */

static int stress_port, stress_listener;

static void *echo_connection(void *data)
{
    int fd = *(int *)data;
    char byte;
    free(data);
    for (int i = 0; i < STRESS_CLOSE_EVERY && read(fd, &byte, 1) == 1; i++) {
        if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1) {
            break;
        }
    }
    close(fd);
    return NULL;
}

static void *echo_server(void *unused)
{
    int fd;
    (void)unused;
    while ((fd = accept4(stress_listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        pthread_t thread;
        int *own = malloc(sizeof(*own));
        *own = fd;
        if (pthread_create(&thread, NULL, echo_connection, own)) {
            bail_out("pthread_create");
        }
        pthread_detach(thread);
    }
    return NULL;
}

static void *stress(void *data)
{
    rp_target *target = data;
    rp_keepalive keepalive = { .max = 3, .idle = apr_time_from_sec(5) };
    long bad = 0;
    for (int i = 0; i < STRESS_ROUNDS; i++) {
        rp_endpoint *endpoint = rp_endpoint_get(target, i & 1, NULL, &keepalive);
        int fresh = 0, done = 0;
        while (!done && fresh < 2) {
            char byte = 0;
            rp_io last;
            rp_conn *conn = rp_conn_acquire(endpoint, NULL, fresh);
            int reused = rp_conn_is_reused(conn);
            done = connect_now(conn) == RP_IO_DONE && write_now(conn, "x") == RP_IO_DONE
                   && read_now(conn, &byte, 1, &last) == 1 && byte == 'x';
            rp_conn_release(conn, done);
            fresh += !done && !reused ? 2 : 1;
        }
        bad += !done;
        if (i & 1) {
            rp_endpoint_release(endpoint);
        }
    }
    return (void *)bad;
}

static void test_threads(void)
{
    pthread_t server, threads[STRESS_THREADS];
    rp_upstream_stats before = stats();
    stress_listener = listen_at("127.0.0.1", &stress_port, 64);
    pthread_create(&server, NULL, echo_server, NULL);
    rp_target *target = make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", stress_port, NULL);
    for (int i = 0; i < STRESS_THREADS; i++) {
        pthread_create(&threads[i], NULL, stress, target);
    }
    long bad = 0;
    for (int i = 0; i < STRESS_THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        bad += (long)result;
    }
    rp_upstream_stats after = stats();
    is_number(bad, 0, "threads share a pool while the peer closes under them");
    ok(after.reuses > before.reuses + 500, "connections were reused: %d times",
       (int)(after.reuses - before.reuses));
    is_number(after.active, before.active, "all were given back");
    ok(after.idle <= before.idle + 3, "no more are idle than allowed");
    shutdown(stress_listener, SHUT_RDWR);
    pthread_join(server, NULL);
    close(stress_listener);
}

static void test_reasons(void)
{
    int complete = 1;
    for (int i = 1; i < RP_REASON_COUNT; i++) {
        const rp_reason_info *info = rp_reason_get((rp_reason)i);
        complete = complete && info->name && *info->name && info->proxy_status
                   && *info->proxy_status && info->text && *info->text
                   && !strcmp(info->message_id, apr_psprintf(pool, "RP01%02d", i));
        for (int other = 0; other < i; other++) {
            complete = complete && strcmp(info->name, rp_reason_get((rp_reason)other)->name);
        }
    }
    ok(complete, "every reason has a name of its own, an error type, an id and a sentence");
    is_number(rp_reason_get(RP_REASON_CONNECT_TIMEOUT)->http_status, 504, "timeouts are 504");
    is_text(rp_reason_get((rp_reason)999)->name, "internal-error", "unknown ones are ours");
}

int main(void)
{
    pool = tap_pool();
    signal(SIGPIPE, SIG_DFL);           /* plain connections must not rely on SIG_IGN */
    listener = listen_at("127.0.0.1", &port, 64);
    apr_pool_t *child;
    apr_pool_create(&child, pool);
    is_number(rp_upstream_child_init(child, &test_server, NULL), APR_SUCCESS, "child_init");
    test_reasons();
    test_keys();
    test_forget();
    test_dynamic_limit();
    test_reuse();
    test_order();
    test_dead_connections();
    test_limits();
    test_half_close();
    test_early_answer();
    test_failures();
    test_ipv6();
    test_unix_socket();
    test_threads();
    apr_pool_destroy(child);
    is_number(stats().endpoints, 0, "nothing is left when the child ends");
    is_number(stats().idle, 0, "no idle connection either");
    ok(!rp_endpoint_get(make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", port, NULL), 0, NULL, NULL),
       "and there is no endpoint to be had any more");
    close(listener);
    return tap_done();
}
