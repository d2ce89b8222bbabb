/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the tests of rproxy/upstream share: listeners on loopback, targets made by hand, and loops
 * that drive a connection as a blocking driver would. Most servers need no thread: the kernel
 * completes the connection and the test accepts it afterwards. */
#ifndef UPSTREAM_FIXTURE_H
#define UPSTREAM_FIXTURE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#include <apr_strings.h>
#include "rproxy/upstream/rp_upstream.h"
#include "t/unit/httpd_shim.h"
#include "t/unit/tap.h"

#define PATIENCE apr_time_from_sec(10)  /* of a test before it fails */

static server_rec test_server;

__attribute__((unused))
static void bail_out(const char *what)
{
    printf("Bail out! %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Listens on ip (v4 or v6) and *port (0: any, is set); returns the descriptor. */
__attribute__((unused))
static int listen_at(const char *ip, int *port, int backlog)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address;
    memset(&address, 0, sizeof(address));
    int is_v6 = strchr(ip, ':') != NULL;
    socklen_t length = is_v6 ? sizeof(address.v6) : sizeof(address.v4);
    address.any.sa_family = is_v6 ? AF_INET6 : AF_INET;
    inet_pton(address.any.sa_family, ip,
              is_v6 ? (void *)&address.v6.sin6_addr : (void *)&address.v4.sin_addr);
    address.v4.sin_port = htons((in_port_t)*port);      /* sin6_port has the same place */
    int one = 1;
    int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, &address.any, length) < 0 || listen(fd, backlog) < 0) {
        bail_out(ip);
    }
    getsockname(fd, &address.any, &length);
    *port = ntohs(address.v4.sin_port);
    return fd;
}

__attribute__((unused))
static int accept_one(int listener)
{
    struct pollfd waiting = { .fd = listener, .events = POLLIN };
    if (poll(&waiting, 1, 10000) != 1) {
        bail_out("nobody connected");
    }
    return accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

/* Nonzero if a connection waits to be accepted. */
__attribute__((unused))
static int has_waiting(int listener)
{
    struct pollfd waiting = { .fd = listener, .events = POLLIN };
    return poll(&waiting, 1, 0) == 1;
}

__attribute__((unused))
static rp_target *make_target(apr_pool_t *pool, rp_scheme scheme, const char *host, int port,
                              const char *path)
{
    rp_target *target = apr_pcalloc(pool, sizeof(*target));
    target->scheme = scheme;
    target->host = host;
    target->port = port;
    target->socket = path;
    target->base = "/";
    target->key = apr_psprintf(pool, "%s|%s|%d|%s", scheme == RP_SCHEME_HTTPS ? "https" : "http",
                               host, port, path ? path : "");
    target->text = target->key;
    target->authority = apr_psprintf(pool, "%s:%d", host, port);
    return target;
}

/* Fills the table of dynamic endpoints; returns how many could be made. */
__attribute__((unused))
static int fill_dynamic(apr_pool_t *pool, rp_endpoint *endpoints[RP_DYNAMIC_ENDPOINTS_MAX])
{
    int made = 0;
    for (int i = 0; i < RP_DYNAMIC_ENDPOINTS_MAX; i++) {
        rp_target *target = make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", 20000 + i, NULL);
        endpoints[i] = rp_endpoint_get(target, 1, NULL, NULL);
        made += endpoints[i] != NULL;
    }
    return made;
}

/* Waits as a blocking driver does; 0 if time is up. */
__attribute__((unused))
static int wait_for(const rp_conn *conn, int want_read, int want_write, apr_time_t deadline)
{
    rp_wait_fd waits[RP_CONN_WAITS_MAX];
    struct pollfd descriptors[RP_CONN_WAITS_MAX];
    apr_time_t next;
    int count = rp_conn_waits(conn, want_read, want_write, waits, &next);
    for (int i = 0; i < count; i++) {
        descriptors[i] = (struct pollfd){ .fd = waits[i].fd, .events = waits[i].events };
    }
    apr_time_t now = apr_time_now();
    apr_time_t until = next && next < deadline ? next : deadline;
    poll(descriptors, (nfds_t)count, until > now ? (int)((until - now + 999) / 1000) : 0);
    return apr_time_now() < deadline;
}

/* Drives connecting to its end; RP_IO_AGAIN if that takes too long. */
__attribute__((unused))
static rp_io connect_now(rp_conn *conn)
{
    apr_time_t deadline = apr_time_now() + PATIENCE;
    rp_io io;
    while ((io = rp_conn_connect(conn)) == RP_IO_AGAIN && wait_for(conn, 0, 0, deadline)) {
    }
    return io;
}

/* A fresh, connected connection and its other end. */
__attribute__((unused))
static rp_conn *connected(rp_endpoint *endpoint, rp_shelf *shelf, int listener, int *peer)
{
    rp_conn *conn = rp_conn_acquire(endpoint, shelf, 1);
    if (connect_now(conn) != RP_IO_DONE) {
        bail_out("cannot connect on loopback");
    }
    *peer = accept_one(listener);
    return conn;
}

/* Reads exactly size bytes or until the end; sets the last result. */
__attribute__((unused))
static apr_size_t read_now(rp_conn *conn, char *buffer, apr_size_t size, rp_io *last)
{
    apr_time_t deadline = apr_time_now() + PATIENCE;
    apr_size_t total = 0;
    *last = RP_IO_DONE;
    while (total < size) {
        apr_size_t got;
        *last = rp_conn_read(conn, buffer + total, size - total, &got);
        total += got;
        if (*last == RP_IO_AGAIN ? !wait_for(conn, 1, 0, deadline) : *last != RP_IO_DONE) {
            break;
        }
    }
    return total;
}

__attribute__((unused))
static rp_io write_now(rp_conn *conn, const char *text)
{
    apr_time_t deadline = apr_time_now() + PATIENCE;
    struct iovec rest = { (void *)text, strlen(text) };
    while (rest.iov_len) {
        apr_size_t written;
        rp_io io = rp_conn_write(conn, &rest, 1, &written);
        if (io == RP_IO_FAILED || (io == RP_IO_AGAIN && !wait_for(conn, 0, 1, deadline))) {
            return io;
        }
        rest.iov_base = (char *)rest.iov_base + written;
        rest.iov_len -= written;
    }
    return RP_IO_DONE;
}

/* The socket of a connected one, to watch it while it is idle. */
__attribute__((unused))
static int socket_of(const rp_conn *conn)
{
    rp_wait_fd waits[RP_CONN_WAITS_MAX];
    return rp_conn_waits(conn, 1, 0, waits, NULL) == 1 ? waits[0].fd : -1;
}

/* What the peer did has arrived once the socket is readable. */
__attribute__((unused))
static void await_readable(int fd)
{
    struct pollfd waiting = { .fd = fd, .events = POLLIN };
    if (poll(&waiting, 1, 10000) != 1) {
        bail_out("nothing arrived");
    }
}

__attribute__((unused))
static const char *detail_of(const rp_conn *conn)
{
    const char *detail;
    rp_conn_reason(conn, &detail);
    return detail;
}

/* Counters of this child as they are now. */
__attribute__((unused))
static rp_upstream_stats stats(void)
{
    rp_upstream_stats now;
    rp_upstream_stats_get(&now);
    return now;
}

#define is_reason(conn, expected, what) \
    is_text(rp_reason_get(rp_conn_reason(conn, NULL))->name, rp_reason_get(expected)->name, what)

/* Waits until the counter has the value, since another thread changes it. */
#define eventually(condition) ({ \
        apr_time_t eventually_until = apr_time_now() + PATIENCE; \
        while (!(condition) && apr_time_now() < eventually_until) { \
            apr_sleep(5000); \
        } \
        (condition); \
    })

#endif
