/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Opens N keep-alive connections from two address ranges of 127/8, one request each, and keeps them
 * idle. Prints a JSON line when all have been answered, waits for a line on stdin, then sends a
 * second request on each. A second JSON line says how many were idle when that line came, and how
 * many were answered again. A connection that is closed, or answers anything but 200 with a length,
 * is dead.
 */
#define _GNU_SOURCE
#include "net.h"

#include <stdbool.h>

#define HEAD_MAX 1024       /* a response: its body is short */
#define WINDOW 8            /* requests under way at once: the MPM must not run out of workers */
#define STEP_LIMIT 60.0     /* seconds for the first requests, and for the second ones */
#define PER_ADDRESS 4096    /* connections from one address */

typedef enum { NEW, CONNECTING, ASKED, IDLE, ANSWERED, DEAD } state_t;

typedef struct {
    int fd;
    state_t state;
    bool again;             /* the second request */
} connection_t;

static connection_t *connections;
static int epoll, port;
static char request[1024];
static size_t request_len, count, under_way, opened, idle, alive;

static void dead(connection_t *c)
{
    idle -= c->state == IDLE;
    if (c->state == CONNECTING || c->state == ASKED)
        under_way--;
    c->state = DEAD;
    close(c->fd);
}

/* 127.1.0.0/16 and 127.2.0.0/16 in turn. */
static in_addr_t address_of(const connection_t *c)
{
    const size_t i = (size_t)(c - connections);

    return (in_addr_t)((i % 2 ? 0x7f020001 : 0x7f010001) + i / 2 / PER_ADDRESS);
}

static void open_connection(connection_t *c)
{
    c->fd = connect_start_from(address_of(c), port);
    if (c->fd < 0) {
        c->state = DEAD;
        return;
    }
    under_way++;
    c->state = CONNECTING;
    watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLOUT, c);
}

static void ask(connection_t *c)
{
    c->state = ASKED;
    if (send(c->fd, request, request_len, MSG_NOSIGNAL) != (ssize_t)request_len)
        dead(c);
}

static void ask_again(connection_t *c)
{
    under_way++;
    c->again = true;
    ask(c);
}

/* Answers are short: peeks until all of one is there. */
static void readable(connection_t *c)
{
    char head[HEAD_MAX];
    const char *end, *length;
    ssize_t got = recv(c->fd, head, HEAD_MAX - 1, MSG_PEEK), whole;

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0 || c->state != ASKED) {
        dead(c);
        return;
    }
    head[got] = '\0';
    end = strstr(head, "\r\n\r\n");
    if (!end && got < HEAD_MAX - 1)
        return;
    length = end ? strcasestr(head, "\r\nContent-Length:") : NULL;
    if (!length || length > end || strncmp(head, "HTTP/1.1 200 ", 13) != 0) {
        dead(c);
        return;
    }
    whole = end + 4 - head + strtol(length + 17, NULL, 10);
    if (got < whole && whole < HEAD_MAX)
        return;
    if (got != whole || recv(c->fd, head, (size_t)whole, 0) != whole) {
        dead(c);
        return;
    }
    under_way--;
    c->state = c->again ? ANSWERED : IDLE;
    *(c->again ? &alive : &idle) += 1;
    opened += !c->again;
}

static void on_event(connection_t *c)
{
    if (c->state != CONNECTING)
        readable(c);
    else if (connect_result(c->fd) != 0)
        dead(c);
    else {
        watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
        ask(c);
    }
}

/* One turn of the loop; true: a line (or the end) has come on stdin. */
static bool turn(int wait_ms)
{
    struct epoll_event events[512];
    int n = epoll_wait(epoll, events, 512, wait_ms);
    bool told = false;

    if (n < 0 && errno != EINTR)
        die("epoll_wait");
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr)
            on_event(events[i].data.ptr);
        else
            told = true;
    }
    return told;
}

/* Takes each connection in the state from through a step, a window at a time. Those that have not
 * come through in time are dead. Returns the seconds it took.
 */
static double for_all(state_t from, void (*step)(connection_t *))
{
    const double start = now();
    size_t next = 0;

    while ((next < count || under_way > 0) && now() < start + STEP_LIMIT) {
        for (; next < count && under_way < WINDOW; next++) {
            if (connections[next].state == from)
                step(&connections[next]);
        }
        if (under_way > 0)
            turn(100);
    }
    for (size_t i = 0; i < count; i++) {
        if (connections[i].state == CONNECTING || connections[i].state == ASKED)
            dead(&connections[i]);
    }
    return now() - start;
}

int main(int argc, char **argv)
{
    double seconds;
    size_t still;

    if (argc != 4)
        usage("idle PORT PATH COUNT");
    port = atoi(argv[1]);
    count = (size_t)atoi(argv[3]);
    request_len = (size_t)snprintf(request, sizeof(request),
                                   "GET %s HTTP/1.1\r\nHost: localhost:%d\r\n\r\n", argv[2], port);
    connections = calloc(count, sizeof(*connections));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!connections || request_len >= sizeof(request) || epoll < 0)
        die("cannot start");

    seconds = for_all(NEW, open_connection);
    printf("{\"opened\":%zu,\"seconds\":%.3f}\n", opened, seconds);
    fflush(stdout);

    watch(epoll, EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, NULL);
    while (!turn(-1))
        ;
    epoll_ctl(epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);

    still = idle;
    seconds = for_all(IDLE, ask_again);
    printf("{\"idle\":%zu,\"alive\":%zu,\"seconds\":%.3f}\n", still, alive, seconds);
    return 0;
}
