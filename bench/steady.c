/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A load of HTTP/2 over TLS that does not wait for the server: RATE requests a second, taken in
 * turn by N connections, for so many seconds. Each request has a moment when it is meant to be
 * sent, and its latency counts from there: a server that stalls makes those late that come
 * meanwhile, too.
 *
 * Whatever is not answered with 200 is an error, as is a connection that ends, or that says it will
 * (GOAWAY). Prints one JSON object.
 */
#define _GNU_SOURCE
#include "http2.h"

#include <signal.h>
#include <sys/timerfd.h>

#define CONNECT_LIMIT 15.0  /* seconds */
#define ANSWER_LIMIT 10.0   /* seconds after the last request */
#define STREAMS_MAX 90      /* on a connection; servers allow 100 */

typedef struct {
    h2_t h2;
    size_t place;           /* among the connections */
    size_t sent;            /* requests: the next one's stream follows from it */
    size_t under_way;
    uint32_t taken;         /* of the connection's window */
    bool connected, ready, dead;
} client_t;

static int epoll;
static client_t *clients;
static size_t count, total;
static double rate, start;
static SSL_CTX *tls;
static block_t request;

static size_t ready, dead, completed;
static size_t status_errors, reset_errors, broken_errors;
static double *latencies, last_answer_at;

/* When a connection's request of this number is meant to be sent. */
static double due(const client_t *c, size_t number)
{
    return start + (double)(number * count + c->place) / rate;
}

static void ended(client_t *c)
{
    broken_errors++;
    dead++;
    c->dead = true;
    h2_close(&c->h2);
}

static void answered(client_t *c, uint32_t stream)
{
    last_answer_at = now();
    latencies[completed++] = last_answer_at - due(c, stream / 2);
    c->under_way--;
}

/* Gives the connection's window back, now and then. */
static void take_data(client_t *c, size_t len)
{
    c->taken += (uint32_t)len;
    if (c->taken > 16384) {
        put_frame_head(&c->h2.out, WINDOW_UPDATE, 0, 0, 4);
        put_number(&c->h2.out, c->taken);
        c->taken = 0;
    }
}

static bool take_frame(void *who, const frame_t *frame)
{
    client_t *c = who;

    switch (frame_type(frame)) {
    case HEADERS:
    case DATA:
        if (frame_type(frame) == DATA)
            take_data(c, frame_len(frame));
        else
            status_errors += !begins_with_200(frame);
        if (frame_has(frame, END_STREAM))
            answered(c, frame_stream(frame));
        return true;
    case SETTINGS:
        if (!frame_has(frame, ACK))
            put_frame(&c->h2.out, SETTINGS, ACK, 0, "", 0);
        return true;
    case PING:
        if (!frame_has(frame, ACK))
            put_frame(&c->h2.out, PING, ACK, 0, frame->bytes + FRAME_HEAD, 8);
        return true;
    case RST_STREAM:
        reset_errors++;
        c->under_way--;
        return true;
    case GOAWAY:
        return false;
    default:
        return true;
    }
}

/* Sends the requests that are due. */
static void send_due(client_t *c)
{
    const double until = now();

    while (c->under_way < STREAMS_MAX && c->sent * count + c->place < total
           && due(c, c->sent) <= until) {
        put_frame(&c->h2.out, HEADERS, END_STREAM | END_HEADERS, (uint32_t)c->sent * 2 + 1,
                  request.bytes, request.len);
        c->sent++;
        c->under_way++;
    }
    if (!h2_send(&c->h2))
        ended(c);
}

static bool shake(client_t *c)
{
    if (!c->connected) {
        if (connect_result(c->h2.fd) != 0)
            return false;
        c->connected = true;
        c->h2.ssl = make_ssl(tls, c->h2.fd);
        watch(epoll, EPOLL_CTL_MOD, c->h2.fd, EPOLLIN, c);
    }
    if (!shake_hands(c->h2.ssl))
        return false;
    if (!SSL_is_init_finished(c->h2.ssl))
        return true;
    put_preface(&c->h2.out, 65535);
    c->ready = true;
    ready++;
    return h2_send(&c->h2);
}

static void event(client_t *c)
{
    const bool fine = c->ready || shake(c);

    if (!fine || (c->ready && !h2_receive(c->h2.ssl, &c->h2.frame, take_frame, c)))
        ended(c);
    else if (c->ready && !h2_send(&c->h2))
        ended(c);
}

/* who is NULL for the timer. */
static void turn(int timer, double until)
{
    struct epoll_event events[64];
    const int n = await_events(epoll, events, 64, ms_until(until));

    for (int i = 0; i < n; i++) {
        client_t *c = events[i].data.ptr;
        uint64_t ticks;

        if (c && !c->dead)
            event(c);
        else if (!c && read(timer, &ticks, sizeof(ticks)) > 0) {
            for (size_t k = 0; k < count; k++) {
                if (!clients[k].dead)
                    send_due(&clients[k]);
            }
        }
    }
}

/* A tick for each request: milliseconds would be too coarse. */
static int make_timer(void)
{
    const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    const long each = (long)(1e9 / rate);
    const struct timespec tick = { each / 1000000000, each % 1000000000 };
    const struct itimerspec spec = { tick, tick };

    if (timer < 0 || timerfd_settime(timer, 0, &spec, NULL) != 0)
        die("timerfd");
    watch(epoll, EPOLL_CTL_ADD, timer, EPOLLIN, NULL);
    return timer;
}

static void open_connections(int port)
{
    const double until = now() + CONNECT_LIMIT;

    for (size_t i = 0; i < count; i++) {
        client_t *c = &clients[i];

        c->place = i;
        c->h2.fd = connect_start(port);
        if (c->h2.fd < 0)
            die("connect");
        watch(epoll, EPOLL_CTL_ADD, c->h2.fd, EPOLLOUT, c);
    }
    while (ready + dead < count && now() < until)
        turn(-1, until);
    if (ready < count) {
        errno = ETIMEDOUT;
        die("not all connections speak HTTP/2");
    }
}

static void report(double seconds)
{
    qsort(latencies, completed, sizeof(*latencies), by_value);
    printf("{\"completed\":%zu,\"seconds\":%.3f,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,"
           "\"max_ms\":%.3f,\"errors\":{\"status\":%zu,\"reset\":%zu,\"broken\":%zu,"
           "\"unanswered\":%zu}}\n",
           completed, seconds, percentile(latencies, completed, 50) * 1000,
           percentile(latencies, completed, 99) * 1000,
           percentile(latencies, completed, 99.9) * 1000,
           completed ? latencies[completed - 1] * 1000 : 0.0, status_errors, reset_errors,
           broken_errors, total - completed - reset_errors);
}

int main(int argc, char **argv)
{
    double until;
    int timer;

    if (argc != 6)
        usage("steady PORT PATH CONNECTIONS RATE SECONDS");
    encode(&request, false, argv[2]);
    count = (size_t)atoi(argv[3]);
    rate = atof(argv[4]);
    total = (size_t)(rate * atof(argv[5]));
    clients = calloc(count, sizeof(*clients));
    latencies = calloc(total, sizeof(*latencies));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!clients || !latencies || epoll < 0 || total == 0)
        die("cannot start");
    signal(SIGPIPE, SIG_IGN);
    tls = make_tls();
    open_connections(atoi(argv[1]));

    start = now();
    until = start + (double)total / rate + ANSWER_LIMIT;
    timer = make_timer();
    while (completed + reset_errors < total && dead < count && now() < until)
        turn(timer, until);
    report((completed ? last_answer_at : now()) - start);
    return 0;
}
