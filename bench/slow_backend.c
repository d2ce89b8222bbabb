/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A backend that is slow on purpose: one thread, epoll, thousands of connections.
 *
 *   GET  /delay/MS    37 bytes, MS milliseconds after the request has arrived
 *   GET  /bytes/N     N bytes, as fast as they are taken
 *   POST /sink/RATE   reads a body at RATE bytes a second (0: no limit), then answers 200
 *   GET  /ws          101, then echoes each WebSocket message (up to 125 bytes, for ws_idle)
 *
 * Anything else is answered with 400 and closed.
 */
#define _GNU_SOURCE
#include "net.h"

#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define HEAD_MAX 4096       /* a request's head, or the WebSocket bytes not yet echoed */
#define SINK_TICK 0.01      /* seconds between two helpings of a rate-limited body */
#define READ_SIZE 65536

/* ws_idle sends the key of RFC 6455 section 1.3; this is the answer to it. */
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

typedef enum { HEAD, DELAY, BYTES, SINK, TUNNEL } state_t;

typedef struct {
    int fd;
    state_t state;
    size_t timer;           /* index in timers[] plus one; 0: none */
    double due;             /* when that timer fires */
    uint64_t left;          /* BYTES: to send, SINK: to read */
    double rate;            /* SINK: bytes a second, 0: no limit */
    double helping;         /* SINK: bytes that may still be read before the next tick */
    size_t len;             /* bytes in buffer */
    char buffer[HEAD_MAX];
} connection_t;

static int epoll;
static char scratch[READ_SIZE];

/* ---- timers: a binary heap, the next one first ----------------------------------------------- */

static connection_t **timers;
static size_t timer_count, timer_room;

static void timer_place(size_t i, connection_t *c)
{
    timers[i] = c;
    c->timer = i + 1;
}

static void timer_sift(size_t i, connection_t *c)
{
    while (i > 0 && timers[(i - 1) / 2]->due > c->due) {
        timer_place(i, timers[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (size_t child; (child = 2 * i + 1) < timer_count; i = child) {
        if (child + 1 < timer_count && timers[child + 1]->due < timers[child]->due)
            child++;
        if (timers[child]->due >= c->due)
            break;
        timer_place(i, timers[child]);
    }
    timer_place(i, c);
}

static void timer_add(connection_t *c, double due)
{
    if (timer_count == timer_room) {
        timer_room = timer_room ? timer_room * 2 : 1024;
        timers = realloc(timers, timer_room * sizeof(*timers));
        if (!timers)
            die("realloc");
    }
    c->due = due;
    timer_sift(timer_count++, c);
}

static void timer_remove(connection_t *c)
{
    const size_t i = c->timer - 1;
    connection_t *last = timers[--timer_count];

    c->timer = 0;
    if (last != c)
        timer_sift(i, last);
}

/* ---- connections ----------------------------------------------------------------------------- */

static void drop(connection_t *c)
{
    if (c->timer)
        timer_remove(c);
    close(c->fd);
    free(c);
}

/* Sends a few bytes on a socket whose buffer is empty; false: the connection is gone. */
static bool put(connection_t *c, const char *bytes, size_t len)
{
    if (send(c->fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len)
        return true;
    drop(c);
    return false;
}

static void next_request(connection_t *c)
{
    c->state = HEAD;
    watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
}

static void answer(connection_t *c)
{
    static const char text[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                               "Content-Length: 37\r\n\r\n"
                               "the thirty-seven bytes of an answer.\n";

    if (put(c, text, sizeof(text) - 1))
        next_request(c);
}

static void send_bytes(connection_t *c)
{
    while (c->left > 0) {
        size_t want = c->left < READ_SIZE ? (size_t)c->left : READ_SIZE;
        ssize_t sent = send(c->fd, scratch, want, MSG_NOSIGNAL);

        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent < 0) {
            drop(c);
            return;
        }
        c->left -= (uint64_t)sent;
    }
    next_request(c);
}

static void sink(connection_t *c)
{
    while (c->left > 0) {
        size_t want = c->left < READ_SIZE ? (size_t)c->left : READ_SIZE;
        ssize_t got;

        if (c->rate > 0 && c->helping < 1) {
            watch(epoll, EPOLL_CTL_MOD, c->fd, 0, c);
            timer_add(c, now() + SINK_TICK);
            return;
        }
        if (c->rate > 0 && (double)want > c->helping)
            want = (size_t)c->helping;
        got = recv(c->fd, scratch, want, 0);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            drop(c);
            return;
        }
        c->left -= (uint64_t)got;
        c->helping -= (double)got;
    }
    answer(c);
}

/* Echoes the complete messages in the buffer; a masked frame becomes an unmasked one. */
static void echo(connection_t *c)
{
    while (c->len >= 6) {
        unsigned char *frame = (unsigned char *)c->buffer;
        const size_t payload = frame[1] & 0x7f;
        const size_t whole = 6 + payload;

        if (payload > 125 || !(frame[1] & 0x80)) {
            drop(c);
            return;
        }
        if (c->len < whole)
            return;
        for (size_t i = 0; i < payload; i++)
            frame[6 + i] ^= frame[2 + i % 4];
        frame[4] = frame[0];
        frame[5] = (unsigned char)payload;
        if (!put(c, c->buffer + 4, 2 + payload))
            return;
        c->len -= whole;
        memmove(c->buffer, c->buffer + whole, c->len);
    }
}

static void start_sink(connection_t *c, double rate, size_t head_len)
{
    const char *field = strcasestr(c->buffer, "\r\nContent-Length:");
    const size_t early = c->len - head_len;

    c->left = field ? strtoull(field + 17, NULL, 10) : 0;
    if (!field || early > c->left) {
        drop(c);
        return;
    }
    c->left -= early;
    c->len = 0;
    c->state = SINK;
    c->rate = rate;
    c->helping = 0;
    sink(c);
}

static void start_bytes(connection_t *c, uint64_t size)
{
    char head[128];
    int len = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\n\r\n",
                       (unsigned long long)size);

    if (!put(c, head, (size_t)len))
        return;
    c->state = BYTES;
    c->left = size;
    watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLOUT, c);
}

static void start_tunnel(connection_t *c)
{
    static const char head[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                               "Connection: Upgrade\r\nSec-WebSocket-Accept: " WS_ACCEPT "\r\n\r\n";

    if (put(c, head, sizeof(head) - 1))
        c->state = TUNNEL;
}

static void refuse(connection_t *c)
{
    static const char text[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n"
                               "Connection: close\r\n\r\n";

    if (put(c, text, sizeof(text) - 1))
        drop(c);
}

static void request(connection_t *c)
{
    char *end;
    size_t head_len;

    c->buffer[c->len] = '\0';
    end = strstr(c->buffer, "\r\n\r\n");
    if (!end) {
        if (c->len == HEAD_MAX - 1)
            refuse(c);
        return;
    }
    head_len = (size_t)(end + 4 - c->buffer);
    if (strncmp(c->buffer, "POST /sink/", 11) == 0) {
        start_sink(c, strtod(c->buffer + 11, NULL), head_len);
        return;
    }
    c->len = 0;
    if (strncmp(c->buffer, "GET /delay/", 11) == 0) {
        const double delay = strtod(c->buffer + 11, NULL) / 1000;

        if (delay <= 0) {
            answer(c);
            return;
        }
        c->state = DELAY;
        watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLRDHUP, c);
        timer_add(c, now() + delay);
    }
    else if (strncmp(c->buffer, "GET /bytes/", 11) == 0)
        start_bytes(c, strtoull(c->buffer + 11, NULL, 10));
    else if (strncmp(c->buffer, "GET /ws ", 8) == 0)
        start_tunnel(c);
    else
        refuse(c);
}

static void readable(connection_t *c)
{
    ssize_t got = recv(c->fd, c->buffer + c->len, HEAD_MAX - 1 - c->len, 0);

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(c);
        return;
    }
    c->len += (size_t)got;
    if (c->state == TUNNEL)
        echo(c);
    else
        request(c);
}

static void on_event(connection_t *c, unsigned events)
{
    if (c->state == BYTES)
        send_bytes(c);
    else if (c->state == SINK && (events & EPOLLIN))
        sink(c);
    else if (c->state == DELAY || c->state == SINK || !(events & EPOLLIN))
        drop(c);
    else
        readable(c);
}

static void on_timer(connection_t *c)
{
    timer_remove(c);
    if (c->state == DELAY) {
        answer(c);
        return;
    }
    c->helping += c->rate * SINK_TICK;
    watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
}

static void accept_all(int listener)
{
    const int on = 1;
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        connection_t *c = calloc(1, sizeof(*c));

        if (!c)
            die("calloc");
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        die("accept4");
}

static int listen_on(int port)
{
    const struct sockaddr_in sa = loopback(port);
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0 || listen(fd, 4096) != 0)
        die("bind and listen");
    return fd;
}

int main(int argc, char **argv)
{
    struct epoll_event events[512];
    int listener;

    if (argc != 2)
        usage("slow_backend PORT");
    signal(SIGPIPE, SIG_IGN);
    memset(scratch, 'x', sizeof(scratch));
    listener = listen_on(atoi(argv[1]));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("epoll_create1");
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);

    for (;;) {
        int wait = -1, n;

        if (timer_count > 0)
            wait = (int)fmax(0, ceil((timers[0]->due - now()) * 1000));
        n = await_events(epoll, events, 512, wait);
        /* One event per descriptor and turn: what a handler frees is not met again. */
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_event(events[i].data.ptr, events[i].events);
            else
                accept_all(listener);
        }
        while (timer_count > 0 && timers[0]->due <= now())
            on_timer(timers[0]);
    }
}
