/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Name resolution and happy eyeballs, with a name server of the test's own. */

#include <pthread.h>
#include <sys/epoll.h>
#include "t/unit/upstream_fixture.h"

static apr_pool_t *pool;

/* ---- a tiny name server ---------------------------------------------------------------------- */

#define RECORDS_MAX 16
#define NAME_BYTES 64

enum { DNS_NOERROR = 0, DNS_SERVFAIL = 2, DNS_NXDOMAIN = 3, DNS_SILENT = 99 };

typedef struct record {
    char name[NAME_BYTES];
    int code;
    unsigned int ttl;
    const char *v4[4];                  /* NULL ends it */
    const char *v6[4];
    int queries;                        /* for A so far */
} record;

static struct {
    pthread_mutex_t lock;
    record records[RECORDS_MAX];
    int count;
    int fd;
    pthread_t thread;
} dns = { .lock = PTHREAD_MUTEX_INITIALIZER };

static record *dns_find(const char *name)
{
    for (int i = 0; i < dns.count; i++) {
        if (!strcmp(dns.records[i].name, name)) {
            return &dns.records[i];
        }
    }
    return NULL;
}

/* Sets what the server says of name from now on. */
static void dns_set(record wanted)
{
    pthread_mutex_lock(&dns.lock);
    record *known = dns_find(wanted.name);
    if (!known) {
        known = &dns.records[dns.count++];
    }
    wanted.queries = known->queries;
    *known = wanted;
    pthread_mutex_unlock(&dns.lock);
}

static int dns_queries(const char *name)
{
    pthread_mutex_lock(&dns.lock);
    int queries = dns_find(name)->queries;
    pthread_mutex_unlock(&dns.lock);
    return queries;
}

/* The name of the question, in text; returns the position behind it. */
static size_t question_name(const unsigned char *packet, size_t size, char text[NAME_BYTES])
{
    size_t at = 12, length = 0;
    while (at < size && packet[at] && length + packet[at] + 1 < NAME_BYTES) {
        memcpy(text + length, packet + at + 1, packet[at]);
        length += packet[at];
        at += packet[at] + 1u;
        text[length++] = '.';
    }
    text[length ? length - 1 : 0] = '\0';
    return at + 1;
}

static size_t put_answer(unsigned char *packet, size_t at, int type, unsigned int ttl,
                         const char *address)
{
    size_t size = type == 1 ? 4 : 16;
    const unsigned char head[12] = {
        0xc0, 12, 0, (unsigned char)type, 0, 1, (unsigned char)(ttl >> 24),
        (unsigned char)(ttl >> 16), (unsigned char)(ttl >> 8), (unsigned char)ttl, 0,
        (unsigned char)size
    };
    memcpy(packet + at, head, sizeof(head));
    inet_pton(type == 1 ? AF_INET : AF_INET6, address, packet + at + sizeof(head));
    packet[7]++;
    return at + sizeof(head) + size;
}

/* Turns the query into its answer; returns its size, 0: say nothing. */
static size_t dns_answer(unsigned char *packet, size_t size)
{
    char name[NAME_BYTES];
    size_t at = question_name(packet, size, name) + 4;
    int type = packet[at - 3];
    pthread_mutex_lock(&dns.lock);
    record *known = dns_find(name);
    int code = known ? known->code : DNS_NXDOMAIN;
    packet[2] |= 0x80;
    packet[3] = (unsigned char)code;
    memset(packet + 6, 0, 6);
    if (known && type == 1) {
        known->queries++;
    }
    if (known && code == DNS_NOERROR) {
        const char **list = type == 1 ? known->v4 : type == 28 ? known->v6 : NULL;
        for (int i = 0; list && i < 4 && list[i]; i++) {
            at = put_answer(packet, at, type, known->ttl, list[i]);
        }
    }
    pthread_mutex_unlock(&dns.lock);
    return code == DNS_SILENT ? 0 : at;
}

static void *dns_main(void *unused)
{
    unsigned char packet[1024];
    struct sockaddr_in from;
    (void)unused;
    for (;;) {
        socklen_t length = sizeof(from);
        ssize_t got = recvfrom(dns.fd, packet, 512, 0, (struct sockaddr *)&from, &length);
        if (got < 17) {
            return NULL;                /* an empty packet of dns_stop() */
        }
        size_t size = dns_answer(packet, (size_t)got);
        if (size) {
            sendto(dns.fd, packet, size, 0, (struct sockaddr *)&from, length);
        }
    }
}

static struct sockaddr_in dns_address;

static int dns_start(void)
{
    socklen_t length = sizeof(dns_address);
    dns_address.sin_family = AF_INET;
    dns_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    dns.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (bind(dns.fd, (struct sockaddr *)&dns_address, length) < 0
        || pthread_create(&dns.thread, NULL, dns_main, NULL)) {
        bail_out("name server");
    }
    getsockname(dns.fd, (struct sockaddr *)&dns_address, &length);
    return ntohs(dns_address.sin_port);
}

static void dns_stop(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sendto(fd, "", 0, 0, (struct sockaddr *)&dns_address, sizeof(dns_address));
    pthread_join(dns.thread, NULL);
    close(fd);
    close(dns.fd);
}

/* ---- helpers --------------------------------------------------------------------------------- */

static rp_endpoint *endpoint_of(const char *host, int port)
{
    return rp_endpoint_get(make_target(pool, RP_SCHEME_HTTP, host, port, NULL), 0, NULL, NULL);
}

static const char *peer_now(rp_endpoint *endpoint)
{
    rp_conn *conn = rp_conn_acquire(endpoint, NULL, 1);
    rp_io io = connect_now(conn);
    const char *peer = io == RP_IO_DONE ? apr_pstrdup(pool, rp_conn_peer(conn))
                                        : rp_reason_get(rp_conn_reason(conn, NULL))->name;
    rp_conn_release(conn, 0);
    return peer;
}

static int milliseconds_since(apr_time_t start)
{
    return (int)apr_time_as_msec(apr_time_now() - start);
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Connections that wait for one name all wake, in poll() and in epoll, and the descriptor stays
 * readable. */
static void test_first_lookup(void)
{
    int port = 0;
    int listener = listen_at("127.0.0.1", &port, 8);
    rp_wait_fd waits[RP_CONN_WAITS_MAX];
    struct epoll_event event = { .events = EPOLLIN };
    dns_set((record){ .name = "first.test", .ttl = 60, .v4 = { "127.0.0.1" } });
    rp_endpoint *endpoint = endpoint_of("first.test", port);
    rp_conn *a = rp_conn_acquire(endpoint, NULL, 0);
    rp_conn *b = rp_conn_acquire(endpoint, NULL, 0);
    is_number(rp_conn_connect(a), RP_IO_AGAIN, "a name never resolved: wait");
    ok(rp_conn_is_resolving(a), "for its lookup");
    is_number(rp_conn_connect(b), RP_IO_AGAIN, "a second connection waits too");
    is_number(rp_conn_waits(b, 0, 0, waits, NULL), 1, "for one descriptor");
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(epoll, EPOLL_CTL_ADD, waits[0].fd, &event);
    is_number(connect_now(a), RP_IO_DONE, "the first connects");
    is_number(epoll_wait(epoll, &event, 1, 5000), 1, "the descriptor stays readable for others");
    is_number(connect_now(b), RP_IO_DONE, "the second connects");
    ok(!rp_conn_is_resolving(b), "nothing is being looked up then");
    is_number(dns_queries("first.test"), 1, "one lookup served both");
    rp_conn_release(a, 0);
    rp_conn_release(b, 0);
    rp_conn *c = rp_conn_acquire(endpoint, NULL, 0);
    ok(rp_conn_connect(c) == RP_IO_DONE, "later connections don't wait");
    is_text(rp_conn_peer(c), apr_psprintf(pool, "127.0.0.1:%d", port), "and go to the address");
    rp_conn_release(c, 0);
    is_number(dns_queries("first.test"), 1, "within the TTL nobody is asked again");
    close(epoll);
    close(listener);
}

static void test_prefetch(void)
{
    dns_set((record){ .name = "early.test", .ttl = 60, .v4 = { "127.0.0.1" } });
    rp_target *target = make_target(pool, RP_SCHEME_HTTP, "early.test", 9, NULL);
    rp_upstream_prefetch(target);
    ok(eventually(dns_queries("early.test") == 1), "prefetch looks the name up");
    rp_upstream_prefetch(make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", 9, NULL));
    rp_upstream_prefetch(make_target(pool, RP_SCHEME_HTTP, "x.test", 9, "/run/x"));
    rp_upstream_prefetch(make_target(pool, RP_SCHEME_BALANCER, "x.test", 0, NULL));
}

static void test_absent(void)
{
    apr_time_t start = apr_time_now();
    rp_endpoint *endpoint = endpoint_of("absent.test", 80);
    is_text(peer_now(endpoint), "dns-error", "a name that doesn't exist is a DNS error");
    rp_conn *conn = rp_conn_acquire(endpoint, NULL, 0);
    if (milliseconds_since(start) < 900) {
        is_number(rp_conn_connect(conn), RP_IO_FAILED, "at once for the next connection");
    }
    else {
        is_number(connect_now(conn), RP_IO_FAILED, "for the next connection too");
    }
    ok(strlen(detail_of(conn)) > 0, "with a detail: %s", detail_of(conn));
    rp_conn_release(conn, 0);
    ok(eventually(shim_logged("RP0201: the name absent.test") == 1), "it is logged once");
    int port = 0;
    int listener = listen_at("127.0.0.1", &port, 8);
    dns_set((record){ .name = "absent.test", .ttl = 60, .v4 = { "127.0.0.1" } });
    endpoint = endpoint_of("absent.test", port);
    apr_sleep(apr_time_from_msec(1050));
    is_text(peer_now(endpoint), apr_psprintf(pool, "127.0.0.1:%d", port),
            "a second later it is asked for again");
    ok(eventually(shim_logged("RP0203: the name absent.test")), "its return is logged");
    close(listener);
}

static void test_silent(void)
{
    dns_set((record){ .name = "silent.test", .code = DNS_SILENT });
    apr_time_t start = apr_time_now();
    is_text(peer_now(endpoint_of("silent.test", 80)), "dns-timeout",
            "a name server that doesn't answer is a DNS timeout");
    int took = milliseconds_since(start);
    ok(took >= 500 && took < 3000, "after the lookup's time: %d ms", took);
}

/* With a TTL of one second: refreshed while in use, before its end; left alone when not. */
static void test_refresh(void)
{
    int port = 0;
    int listener = listen_at("127.0.0.1", &port, 64);
    dns_set((record){ .name = "short.test", .ttl = 1, .v4 = { "127.0.0.1" } });
    rp_endpoint *endpoint = endpoint_of("short.test", port);
    peer_now(endpoint);
    int waited = 0;
    apr_time_t start = apr_time_now();
    for (int i = 0; i < 25; i++) {
        rp_conn *conn = rp_conn_acquire(endpoint, NULL, 1);
        waited += rp_conn_connect(conn) != RP_IO_DONE;
        rp_conn_release(conn, 0);
        apr_sleep(apr_time_from_msec(100));
    }
    int queries = dns_queries("short.test");
    int took = milliseconds_since(start);
    ok(queries >= took / 1000 && queries <= took / 700 + 2,
       "a name in use is refreshed by its TTL: %d lookups in %d ms", queries, took);
    is_number(waited, 0, "so early that no connection waits");
    apr_sleep(apr_time_from_sec(4));
    int later = dns_queries("short.test");
    apr_sleep(apr_time_from_sec(2));
    is_number(dns_queries("short.test"), later, "unused for several TTLs it is left alone");
    is_text(peer_now(endpoint), apr_psprintf(pool, "127.0.0.1:%d", port),
            "used again it still connects");
    ok(dns_queries("short.test") > later, "after a new lookup");
    close(listener);
}

static void test_changed_address(void)
{
    int port = 0;
    int before = listen_at("127.0.0.1", &port, 8);
    int after = listen_at("127.0.0.2", &port, 8);
    dns_set((record){ .name = "moving.test", .ttl = 1, .v4 = { "127.0.0.1" } });
    rp_endpoint *endpoint = endpoint_of("moving.test", port);
    rp_conn *idle = rp_conn_acquire(endpoint, NULL, 1);
    rp_conn *busy = rp_conn_acquire(endpoint, NULL, 1);
    connect_now(idle);
    connect_now(busy);
    rp_conn_release(idle, 1);
    unsigned int count = stats().idle;
    dns_set((record){ .name = "moving.test", .ttl = 1, .v4 = { "127.0.0.2" } });
    ok(eventually(stats().idle == count - 1), "idle connections to an address that is gone end");
    is_text(peer_now(endpoint), apr_psprintf(pool, "127.0.0.2:%d", port),
            "new connections go to the new address");
    is_text(rp_conn_peer(busy), apr_psprintf(pool, "127.0.0.1:%d", port),
            "a connection in use goes on");
    rp_conn_release(busy, 1);
    is_number(stats().idle, count - 1, "but isn't kept afterwards");
    close(before);
    close(after);
}

static void test_failing_resolver(void)
{
    int port = 0;
    int listener = listen_at("127.0.0.1", &port, 64);
    const char *peer = apr_psprintf(pool, "127.0.0.1:%d", port);
    dns_set((record){ .name = "flaky.test", .ttl = 1, .v4 = { "127.0.0.1" } });
    rp_endpoint *endpoint = endpoint_of("flaky.test", port);
    peer_now(endpoint);
    dns_set((record){ .name = "flaky.test", .code = DNS_SERVFAIL });
    int bad = 0;
    apr_time_t until = apr_time_now() + apr_time_from_msec(3500);
    while (apr_time_now() < until) {
        bad += strcmp(peer_now(endpoint), peer) != 0;
        apr_sleep(apr_time_from_msec(100));
    }
    is_number(bad, 0, "old addresses are used while the resolver fails");
    ok(eventually(shim_logged("RP0201: the name flaky.test") == 1), "that is logged once");
    dns_set((record){ .name = "flaky.test", .code = DNS_SILENT });
    apr_time_t start = apr_time_now();
    is_text(peer_now(endpoint), peer, "and while it is silent");
    ok(milliseconds_since(start) < 1000, "with no long wait");
    dns_set((record){ .name = "flaky.test", .ttl = 60, .v4 = { "127.0.0.1" } });
    ok(eventually(peer_now(endpoint) && shim_logged("RP0203: the name flaky.test")),
       "failed lookups are tried again until they succeed");
    close(listener);
}

/* Expired while nobody used it, and the resolver is silent: the old address after a short wait. */
static void test_stale(void)
{
    int port = 0;
    int listener = listen_at("127.0.0.1", &port, 64);
    dns_set((record){ .name = "stale.test", .ttl = 1, .v4 = { "127.0.0.1" } });
    rp_endpoint *endpoint = endpoint_of("stale.test", port);
    peer_now(endpoint);
    apr_sleep(apr_time_from_msec(4500));
    dns_set((record){ .name = "stale.test", .code = DNS_SILENT });
    apr_time_t start = apr_time_now();
    is_text(peer_now(endpoint), apr_psprintf(pool, "127.0.0.1:%d", port),
            "an expired address serves when no answer comes");
    int took = milliseconds_since(start);
    ok(took >= 400 && took < 3000, "after a short wait for a new one: %d ms", took);
    close(listener);
}

static void test_gone(void)
{
    int port = 0;
    int listener = listen_at("127.0.0.1", &port, 64);
    dns_set((record){ .name = "gone.test", .ttl = 1, .v4 = { "127.0.0.1" } });
    rp_endpoint *endpoint = endpoint_of("gone.test", port);
    const char *peer = peer_now(endpoint);
    dns_set((record){ .name = "gone.test", .code = DNS_NXDOMAIN });
    apr_sleep(apr_time_from_msec(1200));
    is_text(peer_now(endpoint), peer, "one answer that there is no such name is not enough");
    ok(eventually(!strcmp(peer_now(endpoint), "dns-error")), "several in a row are");
    ok(eventually(shim_logged("RP0202: the name gone.test") == 1), "that is logged");
    close(listener);
}

/* ---- happy eyeballs -------------------------------------------------------------------------- */

static void test_all_addresses(void)
{
    int port = 0, seen[2] = { 0, 0 };
    int first = listen_at("127.0.0.1", &port, 64);
    int second = listen_at("127.0.0.2", &port, 64);
    dns_set((record){ .name = "pair.test", .ttl = 60, .v4 = { "127.0.0.1", "127.0.0.2" } });
    rp_endpoint *endpoint = endpoint_of("pair.test", port);
    for (int i = 0; i < 6; i++) {
        seen[!strncmp(peer_now(endpoint), "127.0.0.2", 9)]++;
    }
    ok(seen[0] == 3 && seen[1] == 3, "connections spread over all addresses");
    close(second);
    int bad = 0;
    for (int i = 0; i < 4; i++) {
        bad += strncmp(peer_now(endpoint), "127.0.0.1", 9) != 0;
    }
    is_number(bad, 0, "an address that refuses is passed over at once");
    close(first);
    is_text(peer_now(endpoint), "connection-refused", "if all refuse, it is refused");
    first = listen_at("127.0.0.2", &port, 64);
    ok(!strncmp(peer_now(endpoint), "127.0.0.2", 9), "a failed address is tried last, not never");
    close(first);
}

/* A listener whose backlog is full answers no more: like a machine that is down. */
static void test_dead_address(void)
{
    int port = 0, fillers[4];
    int dead = listen_at("127.0.0.2", &port, 0);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((in_port_t)port) };
    inet_pton(AF_INET, "127.0.0.2", &address.sin_addr);
    for (int i = 0; i < 4; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (connect(fillers[i], (struct sockaddr *)&address, sizeof(address)) < 0
            && errno != EINPROGRESS) {
            bail_out("filling a backlog");
        }
    }
    int alive = listen_at("127.0.0.3", &port, 64);
    dns_set((record){ .name = "half.test", .ttl = 60, .v4 = { "127.0.0.2", "127.0.0.3" } });
    rp_endpoint *endpoint = endpoint_of("half.test", port);
    peer_now(endpoint_of("half.test", 9));      /* resolved now, so that times show connecting */
    int slowest = 0, slow = 0, bad = 0;
    for (int i = 0; i < 6; i++) {
        apr_time_t start = apr_time_now();
        bad += strncmp(peer_now(endpoint), "127.0.0.3", 9) != 0;
        int took = milliseconds_since(start);
        slow += took >= 240;
        slowest = took > slowest ? took : slowest;
    }
    is_number(bad, 0, "every connection reaches the address that lives");
    ok(slowest >= 240 && slowest < 2000, "the next address starts after 250 ms: %d ms", slowest);
    is_number(slow, 1, "afterwards the dead one comes last");
    for (int i = 0; i < 4; i++) {
        close(fillers[i]);
    }
    close(dead);
    close(alive);
}

static void test_families(void)
{
    int port = 0;
    int v6 = listen_at("::1", &port, 64);
    int v4 = listen_at("127.0.0.1", &port, 64);
    dns_set((record){ .name = "both.test", .ttl = 60, .v4 = { "127.0.0.1" }, .v6 = { "::1" } });
    rp_endpoint *endpoint = endpoint_of("both.test", port);
    const char *preferred = peer_now(endpoint);
    is_text(peer_now(endpoint), preferred, "one family is preferred");
    int v6_first = *preferred == '[';
    close(v6_first ? v6 : v4);
    ok((*peer_now(endpoint) == '[') != v6_first, "the other one takes over at once");
    close(v6_first ? v4 : v6);
}

/* ---- threads --------------------------------------------------------------------------------- */

#define CHURN_THREADS 4
#define CHURN_ROUNDS 300

static void *churn(void *data)
{
    rp_endpoint *endpoint = data;
    long bad = 0;
    for (int i = 0; i < CHURN_ROUNDS; i++) {
        rp_conn *conn = rp_conn_acquire(endpoint, NULL, i % 3 == 0);
        int done = connect_now(conn) == RP_IO_DONE;
        bad += !done;
        rp_conn_release(conn, done);
        apr_sleep(apr_time_from_msec(5));
    }
    return (void *)bad;
}

/* Threads take and give back connections while the addresses change every second. */
static void test_threads(void)
{
    int port = 0;
    pthread_t threads[CHURN_THREADS];
    int first = listen_at("127.0.0.1", &port, 4096);
    int second = listen_at("127.0.0.2", &port, 4096);
    dns_set((record){ .name = "churn.test", .ttl = 1, .v4 = { "127.0.0.1" } });
    rp_endpoint *endpoint = endpoint_of("churn.test", port);
    for (int i = 0; i < CHURN_THREADS; i++) {
        pthread_create(&threads[i], NULL, churn, endpoint);
    }
    for (int i = 0; i < 4; i++) {
        apr_sleep(apr_time_from_msec(400));
        dns_set((record){ .name = "churn.test", .ttl = 1,
                          .v4 = { i & 1 ? "127.0.0.1" : "127.0.0.2" } });
    }
    long bad = 0;
    for (int i = 0; i < CHURN_THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        bad += (long)result;
    }
    is_number(bad, 0, "every connection is made while addresses change");
    close(first);
    close(second);
}

int main(void)
{
    pool = tap_pool();
    apr_pool_t *child;
    apr_pool_create(&child, pool);
    rp_resolver_settings settings = {
        .servers = apr_psprintf(pool, "127.0.0.1:%d", dns_start()),
        .min_ttl = apr_time_from_sec(1),
        .max_ttl = apr_time_from_sec(3600),
        .timeout = apr_time_from_msec(600)
    };
    is_number(rp_upstream_child_init(child, &test_server, &settings), APR_SUCCESS, "child_init");
    test_first_lookup();
    test_prefetch();
    test_absent();
    test_silent();
    test_refresh();
    test_changed_address();
    test_failing_resolver();
    test_stale();
    test_gone();
    test_all_addresses();
    test_dead_address();
    test_families();
    test_threads();
    rp_upstream_stats counted = stats();
    ok(counted.lookups > 10 && counted.lookup_failures > 3, "lookups and failures are counted");
    apr_pool_destroy(child);
    rp_resolver_settings wrong = { .servers = "nonsense" };
    apr_pool_create(&child, pool);
    ok(rp_upstream_child_init(child, &test_server, &wrong) != APR_SUCCESS
       && shim_logged("RP0205"), "servers that are no addresses are reported at startup");
    apr_pool_destroy(child);
    dns_stop();
    return tap_done();
}
