/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* How long a new connection waits for its answer while others are in a slow handler: N connections
 * repeat a slow request all the time (after a fast one if FIRST is 0: the connection has been
 * answered before), meanwhile a new connection is opened every 2 ms, asks for something fast, and
 * is closed. The clock of each starts before connect() and stops with the answer's last byte.
 *
 * Connections are opened on time, not when the last one is done: a stall delays all that come
 * meanwhile. Prints one JSON object.
 */
#define _GNU_SOURCE
#include "net.h"

#include <stdbool.h>

#define HEAD_MAX 1024       /* a response: its body is short */
#define INTERVAL 0.002      /* seconds between two new connections */
#define LEAD_TIME 0.5       /* seconds the slow requests have to get under way */
#define GRACE 10.0          /* seconds the last connections have to be answered */

typedef enum { CONNECTING, ASKED } state_t;

typedef struct {
    int fd;
    state_t state;
    bool slow;              /* one of the N */
    bool answered;          /* at least once */
    bool started;           /* a slow request has been sent */
    double start;
    size_t len;
    char head[HEAD_MAX];
} connection_t;

static int epoll, port;
static bool slow_at_once;
static char fast_request[1024], slow_request[1024];
static size_t slow_started, slow_answered, slow_errors, errors, waiting, done;
static double *latencies;

static void end(connection_t *c, bool good)
{
    if (!good)
        *(c->slow ? &slow_errors : &errors) += 1;
    if (!c->slow)
        waiting--;
    close(c->fd);
    free(c);
}

static void ask(connection_t *c)
{
    const bool slow = c->slow && (c->answered || slow_at_once);
    const char *text = slow ? slow_request : fast_request;
    const size_t len = strlen(text);

    c->state = ASKED;
    c->len = 0;
    slow_started += slow && !c->started;
    c->started |= slow;
    if (send(c->fd, text, len, MSG_NOSIGNAL) != (ssize_t)len)
        end(c, false);
}

static void open_connection(bool slow)
{
    connection_t *c = calloc(1, sizeof(*c));

    if (!c)
        die("calloc");
    c->slow = slow;
    c->start = now();
    c->fd = connect_start(port);
    waiting += !slow;
    if (c->fd < 0) {
        end(c, false);
        return;
    }
    watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLOUT, c);
}

static void answered(connection_t *c)
{
    if (!c->slow) {
        latencies[done++] = now() - c->start;
        end(c, true);
        return;
    }
    slow_answered += c->answered || slow_at_once;
    c->answered = true;
    ask(c);
}

static void readable(connection_t *c)
{
    const ssize_t got = recv(c->fd, c->head + c->len, HEAD_MAX - 1 - c->len, 0);
    const char *body, *length;

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        end(c, false);
        return;
    }
    c->len += (size_t)got;
    c->head[c->len] = '\0';
    body = strstr(c->head, "\r\n\r\n");
    length = body ? strcasestr(c->head, "\r\nContent-Length:") : NULL;
    if (body && (!length || length > body || strncmp(c->head, "HTTP/1.1 200 ", 13) != 0))
        end(c, false);
    else if (body && body + 4 + strtol(length + 17, NULL, 10) <= c->head + c->len)
        answered(c);
    else if (c->len == HEAD_MAX - 1)
        end(c, false);
}

static void turn(double until)
{
    struct epoll_event events[512];
    const int n = await_events(epoll, events, 512, ms_until(until));

    for (int i = 0; i < n; i++) {
        connection_t *c = events[i].data.ptr;

        if (c->state == ASKED)
            readable(c);
        else if (connect_result(c->fd) != 0)
            end(c, false);
        else {
            watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
            ask(c);
        }
    }
}

int main(int argc, char **argv)
{
    size_t slow, total, opened = 0;
    double start, seconds;

    if (argc != 7)
        usage("beside PORT FAST-PATH SLOW-PATH N SECONDS FIRST");
    port = atoi(argv[1]);
    make_get(fast_request, sizeof(fast_request), argv[2], port);
    make_get(slow_request, sizeof(slow_request), argv[3], port);
    slow = (size_t)atoi(argv[4]);
    seconds = atof(argv[5]);
    slow_at_once = atoi(argv[6]) != 0;
    total = (size_t)(seconds / INTERVAL);
    latencies = calloc(total + 1, sizeof(*latencies));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!latencies || epoll < 0 || total == 0)
        die("cannot start");

    for (size_t i = 0; i < slow; i++)
        open_connection(true);
    start = now() + (slow > 0 ? LEAD_TIME : 0);
    while (now() < start)
        turn(start);
    if (slow_started < slow)
        slow_errors += slow - slow_started;
    while (opened < total) {
        for (; opened < total && start + (double)opened * INTERVAL <= now(); opened++)
            open_connection(false);
        turn(start + (double)opened * INTERVAL);
    }
    start = now();
    while (waiting > 0 && now() < start + GRACE)
        turn(start + 0.1);

    qsort(latencies, done, sizeof(*latencies), by_value);
    printf("{\"completed\":%zu,\"seconds\":%.3f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,"
           "\"slow_answered\":%zu,"
           "\"errors\":{\"fast\":%zu,\"unanswered\":%zu,\"slow\":%zu}}\n",
           done, seconds, percentile(latencies, done, 50) * 1000,
           percentile(latencies, done, 99) * 1000, percentile(latencies, done, 100) * 1000,
           slow_answered, errors, waiting, slow_errors);
    return 0;
}
