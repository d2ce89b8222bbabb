/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the bench programs share: a clock, non-blocking connections to 127.0.0.1, percentiles.
 * Single-threaded programs only; an error nobody can act on ends the program with its reason.
 */
#ifndef BENCH_NET_H
#define BENCH_NET_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static inline _Noreturn void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(2);
}

static inline _Noreturn void usage(const char *text)
{
    fprintf(stderr, "usage: %s\n", text);
    exit(2);
}

/* Seconds of the monotonic clock. */
static inline double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static inline struct sockaddr_in loopback(int port)
{
    struct sockaddr_in sa;

    memset(&sa, 0, sizeof(sa));
    sa.sin_family = AF_INET;
    sa.sin_port = htons((unsigned short)port);
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return sa;
}

/* Starts a non-blocking connect from an address of 127/8 (0: any); the socket is writable when it
 * has ended. -1: refused at once. */
static inline int connect_start_from(in_addr_t from, int port)
{
    const struct sockaddr_in sa = loopback(port);
    struct sockaddr_in own = loopback(0);
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (from != 0) {
        own.sin_addr.s_addr = htonl(from);
        /* The port is chosen by connect(): it need only be free towards this one address. */
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
        if (bind(fd, (const struct sockaddr *)&own, sizeof(own)) != 0)
            die("bind");
    }
    if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline int connect_start(int port)
{
    return connect_start_from(0, port);
}

/* How a connect that was started has ended: 0, or its errno. */
static inline int connect_result(int fd)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        return errno;
    return error;
}

/* Adds fd to the epoll set or changes what it waits for (op: EPOLL_CTL_ADD, EPOLL_CTL_MOD). */
static inline void watch(int epoll, int op, int fd, unsigned events, void *who)
{
    struct epoll_event ev = { .events = events, .data.ptr = who };

    if (epoll_ctl(epoll, op, fd, &ev) != 0)
        die("epoll_ctl");
}

/* Waits so long (-1: without limit) for events; returns how many there are, -1 after a signal. */
static inline int await_events(int epoll, struct epoll_event *events, int room, int wait_ms)
{
    const int n = epoll_wait(epoll, events, room, wait_ms);

    if (n < 0 && errno != EINTR)
        die("epoll_wait");
    return n;
}

/* How long it is until a time of now(), rounded up. */
static inline int ms_until(double time)
{
    const double left = time - now();

    return left > 0 ? (int)(left * 1000) + 1 : 0;
}

/* Writes a GET request; returns its length. */
static inline size_t make_get(char *request, size_t room, const char *path, int port)
{
    const int len = snprintf(request, room, "GET %s HTTP/1.1\r\nHost: localhost:%d\r\n\r\n", path,
                             port);

    if (len < 0 || (size_t)len >= room) {
        errno = ENAMETOOLONG;
        die(path);
    }
    return (size_t)len;
}

static inline int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The p-th percentile (nearest rank) of n sorted values; 0 where there are none. */
static inline double percentile(const double *sorted, size_t n, double p)
{
    size_t rank = (size_t)((double)n * p / 100.0);

    return n == 0 ? 0.0 : sorted[rank < n ? rank : n - 1];
}

#endif
