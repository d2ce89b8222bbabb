/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A load generator that counts full rounds: N keep-alive connections, each sending R requests one
 * after the other. The clock starts when all are connected and stops with the last answer, so a
 * slow backend's answers that are under way when a fixed time ends are not lost. What is not
 * answered at LIMIT seconds counts as unfinished, not as an error.
 *
 * A server may close an idle connection while the next request is on its way. As any client would,
 * this one repeats such a request on a new connection (RFC 9112 section 9.3.1) and only counts it
 * as closed; a connection that ends at any other point is an error.
 *
 * Prints one JSON object.
 */
#define _GNU_SOURCE
#include "net.h"

#include <stdbool.h>

#define HEAD_MAX 4096
#define CONNECT_LIMIT 15.0 /* seconds */

typedef enum { CONNECTING, READY, HEAD, BODY, ENDED } state_t;

typedef struct {
    int fd;
    state_t state;
    int to_send;            /* requests not yet sent */
    bool last_answer;       /* the server said Connection: close */
    bool used;              /* has answered before: may be closed when idle */
    bool repeating;         /* the request has been sent before; sent_at says when */
    double sent_at;
    long long body_left;
    size_t len;             /* bytes of the head so far */
    char head[HEAD_MAX];
} connection_t;

static int epoll, port;
static char request[1024];
static size_t request_len;
static bool started;

static size_t completed, running, connecting, closed;
static size_t connect_errors, status_errors, broken_errors, format_errors;
static double *latencies, last_answer_at;

static void end(connection_t *c)
{
    if (c->state == CONNECTING)
        connecting--;
    c->state = ENDED;
    close(c->fd);
    running--;
}

static void fail(connection_t *c, size_t *counter)
{
    (*counter)++;
    end(c);
}

static void open_connection(connection_t *c)
{
    c->fd = connect_start(port);
    if (c->fd < 0) {
        connect_errors++;
        c->state = ENDED;
        running--;
        return;
    }
    c->state = CONNECTING;
    c->used = false;
    connecting++;
    watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLOUT, c);
}

static void reopen(connection_t *c)
{
    close(c->fd);
    open_connection(c);
}

/* The server has ended the connection, or a request could not be sent on it. */
static void broken(connection_t *c)
{
    if (c->state != HEAD || c->len > 0 || !c->used) {
        fail(c, &broken_errors);
        return;
    }
    closed++;
    c->repeating = true;
    reopen(c);
}

static void send_request(connection_t *c)
{
    c->state = HEAD;
    c->len = 0;
    c->last_answer = false;
    if (!c->repeating) {
        c->to_send--;
        c->sent_at = now();
    }
    if (send(c->fd, request, request_len, MSG_NOSIGNAL) != (ssize_t)request_len)
        broken(c);
}

static void connected(connection_t *c)
{
    if (connect_result(c->fd) != 0) {
        fail(c, &connect_errors);
        return;
    }
    connecting--;
    c->state = READY;
    watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
    if (started)
        send_request(c);
}

static void answered(connection_t *c)
{
    last_answer_at = now();
    latencies[completed++] = last_answer_at - c->sent_at;
    c->used = true;
    c->repeating = false;
    if (c->to_send == 0)
        end(c);
    else if (c->last_answer)
        reopen(c);
    else
        send_request(c);
}

/* The head has ended at body: its status and framing. False: the connection has ended. */
static bool head_done(connection_t *c, const char *body)
{
    const char *length = strcasestr(c->head, "\r\nContent-Length:");

    if (strncmp(c->head, "HTTP/1.1 2", 10) != 0) {
        fail(c, &status_errors);
        return false;
    }
    if (!length || length > body) {
        fail(c, &format_errors);
        return false;
    }
    c->last_answer = strcasestr(c->head, "\r\nConnection: close") != NULL;
    c->body_left = strtoll(length + 17, NULL, 10) - (c->head + c->len - body);
    c->state = BODY;
    return true;
}

static void readable(connection_t *c)
{
    static char scratch[65536];
    const bool in_head = c->state != BODY;
    ssize_t got = in_head ? recv(c->fd, c->head + c->len, HEAD_MAX - 1 - c->len, 0)
                          : recv(c->fd, scratch, sizeof(scratch), 0);

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0 || c->state == READY) {
        broken(c);
        return;
    }
    if (in_head) {
        const char *end_of_head;

        c->len += (size_t)got;
        c->head[c->len] = '\0';
        end_of_head = strstr(c->head, "\r\n\r\n");
        if (!end_of_head && c->len < HEAD_MAX - 1)
            return;
        if (!end_of_head) {
            fail(c, &format_errors);
            return;
        }
        if (!head_done(c, end_of_head + 4))
            return;
    }
    else
        c->body_left -= got;
    if (c->body_left < 0)
        fail(c, &format_errors);
    else if (c->body_left == 0)
        answered(c);
}

static void turn(double until)
{
    struct epoll_event events[512];
    const int n = await_events(epoll, events, 512, ms_until(until));

    for (int i = 0; i < n; i++) {
        connection_t *c = events[i].data.ptr;

        if (c->state == CONNECTING)
            connected(c);
        else
            readable(c);
    }
}

static void report(size_t total, double seconds)
{
    qsort(latencies, completed, sizeof(*latencies), by_value);
    printf("{\"completed\":%zu,\"unfinished\":%zu,\"seconds\":%.6f,\"rps\":%.3f,"
           "\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"closed\":%zu,"
           "\"errors\":{\"connect\":%zu,\"status\":%zu,\"broken\":%zu,\"format\":%zu}}\n",
           completed, total - completed, seconds, (double)completed / seconds,
           percentile(latencies, completed, 50) * 1000, percentile(latencies, completed, 99) * 1000,
           closed, connect_errors, status_errors, broken_errors, format_errors);
}

int main(int argc, char **argv)
{
    connection_t *all;
    size_t count, total;
    double start, limit;

    if (argc != 6)
        usage("load PORT PATH CONNECTIONS REQUESTS-PER-CONNECTION LIMIT-SECONDS");
    port = atoi(argv[1]);
    count = (size_t)atoi(argv[3]);
    total = count * (size_t)atoi(argv[4]);
    limit = atof(argv[5]);
    request_len = make_get(request, sizeof(request), argv[2], port);
    all = calloc(count, sizeof(*all));
    latencies = calloc(total, sizeof(*latencies));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!all || !latencies || epoll < 0 || total == 0)
        die("cannot start");

    running = count;
    start = now();
    for (size_t i = 0; i < count; i++) {
        all[i].to_send = atoi(argv[4]);
        open_connection(&all[i]);
    }
    while (connecting > 0 && now() < start + CONNECT_LIMIT)
        turn(start + CONNECT_LIMIT);

    started = true;
    start = now();
    for (size_t i = 0; i < count; i++) {
        if (all[i].state == CONNECTING)
            fail(&all[i], &connect_errors);
        else if (all[i].state == READY)
            send_request(&all[i]);
    }
    while (running > 0 && now() < start + limit)
        turn(start + limit);
    report(total, running > 0 || completed == 0 ? now() - start : last_answer_at - start);
    return 0;
}
