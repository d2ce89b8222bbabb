/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What a lane with event loops asks of the exchange: budgets, spliced bodies, its own connections,
 * edges. The client is scripted by what its operations return. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE                     /* memmem */
#endif
#include <pthread.h>
#include <sys/ioctl.h>
#include "rproxy/exchange/rp_exchange.h"
#include "t/unit/upstream_fixture.h"

#define BUFFER 8192                     /* of the client's reserve() */
#define LARGE 1000000                   /* body bytes; more than any socket takes at once */

static apr_pool_t *pool;
static int port, listener;

static char byte_at(apr_int64_t position)
{
    return (char)(position * 31 + (position >> 8));
}

/* ---- the upstream ---------------------------------------------------------------------------- */

typedef struct upstream {
    pthread_t thread;
    const char *head;
    apr_int64_t size;                   /* of the body, or of what it sends in a tunnel */
    const char *extra;                  /* sent right behind the body */
    int closes;                         /* ends the connection then */
    apr_int64_t echo;                   /* bytes to read: in a tunnel, of a request body */
    int late;                           /* reads them before it answers */
    apr_int64_t read;                   /* of these, as they ought to be */
    int fd;
} upstream;

static void send_all(int fd, const char *data, apr_size_t len)
{
    while (len > 0) {
        ssize_t sent = send(fd, data, len, MSG_NOSIGNAL);
        if (sent <= 0) {
            return;
        }
        data += sent;
        len -= (apr_size_t)sent;
    }
}

static void take(upstream *up, const char *data, apr_size_t len)
{
    for (apr_size_t i = 0; i < len; i++) {
        up->read += data[i] == byte_at(up->read);
    }
}

static void take_rest(upstream *up)
{
    char buffer[65536];
    ssize_t got;
    while (up->read < up->echo && (got = recv(up->fd, buffer, sizeof(buffer), 0)) > 0) {
        take(up, buffer, (apr_size_t)got);
    }
}

static void *serve(void *data)
{
    upstream *up = data;
    char buffer[65536];
    char *end = NULL;
    apr_size_t len = 0;
    ssize_t got;
    if (up->fd < 0) {
        up->fd = accept_one(listener);
    }
    while (!end && (got = recv(up->fd, buffer + len, sizeof(buffer) - len, 0)) > 0) {
        len += (apr_size_t)got;
        end = memmem(buffer, len, "\r\n\r\n", 4);
    }
    if (end) {
        take(up, end + 4, len - (apr_size_t)(end + 4 - buffer));
    }
    if (up->late) {
        take_rest(up);
    }
    /* The head and what comes with it go out in one piece. */
    len = strlen(up->head);
    memcpy(buffer, up->head, len);
    for (apr_int64_t i = 0; i < up->size; i++) {
        buffer[len++] = byte_at(i);
        if (len == sizeof(buffer)) {
            send_all(up->fd, buffer, len);
            len = 0;
        }
    }
    memcpy(buffer + len, up->extra, strlen(up->extra));
    send_all(up->fd, buffer, len + strlen(up->extra));
    if (up->closes) {
        shutdown(up->fd, SHUT_WR);
    }
    take_rest(up);
    return NULL;
}

/* ---- the client ------------------------------------------------------------------------------ */

typedef struct client {
    rp_exchange x;
    rp_request request;
    rp_exchange_settings settings;
    char buffer[BUFFER];
    apr_int64_t received;               /* as it ought to be */
    apr_int64_t copied;                 /* of these through send() */
    apr_int64_t to_send;                /* the client's bytes in a tunnel */
    apr_int64_t sent;
    int finished;
    int full_every;                     /* a splice() of so many says FULL */
    int unable_after, gone_after;       /* that many splices; 0: never */
    int splices, fulls, flushes_after_full;
    int blocked;
    int polls;                          /* times the driver waited */
    int steps, yields;
    apr_int64_t most;                   /* bytes taken in one step */
} client;

static void receive(client *c, const char *data, apr_size_t len)
{
    for (apr_size_t i = 0; i < len; i++) {
        c->received += data[i] == byte_at(c->received);
    }
}

static rp_io op_read(void *baton, char *buffer, apr_size_t size, apr_size_t *got)
{
    client *c = baton;
    *got = 0;
    while (*got < size && c->sent < c->to_send) {
        buffer[(*got)++] = byte_at(c->sent++);
    }
    return *got ? RP_IO_DONE : RP_IO_EOF;
}

static const rp_fields *op_trailers(void *baton)
{
    (void)baton;
    return NULL;
}

static rp_io op_interim(void *baton, int status, const rp_fields *fields)
{
    (void)baton;
    (void)status;
    (void)fields;
    return RP_IO_DONE;
}

static rp_head_verdict op_head(void *baton, const rp_response *response, const rp_fields *fields,
                               int body_unread)
{
    (void)baton;
    (void)response;
    (void)fields;
    (void)body_unread;
    return RP_HEAD_RELAY;
}

static char *op_reserve(void *baton, apr_size_t *size)
{
    *size = BUFFER;
    return ((client *)baton)->buffer;
}

static void op_release(void *baton, char *buffer)
{
    (void)baton;
    (void)buffer;
}

static rp_io op_send(void *baton, char *buffer, char *data, apr_size_t len)
{
    client *c = baton;
    (void)buffer;
    receive(c, data, len);
    c->copied += (apr_int64_t)len;
    return RP_IO_DONE;
}

static rp_io op_flush(void *baton, int push)
{
    client *c = baton;
    (void)push;
    c->flushes_after_full += c->blocked;
    c->blocked = 0;
    return RP_IO_DONE;
}

static rp_io op_finish(void *baton, const rp_fields *trailers)
{
    (void)trailers;
    ((client *)baton)->finished++;
    return RP_IO_DONE;
}

static void op_nothing(void *baton)
{
    (void)baton;
}

static rp_splice op_splice(void *baton, int fd, apr_size_t limit, apr_size_t *moved)
{
    client *c = baton;
    char scratch[20000];
    ssize_t got;
    if (c->unable_after && c->splices == c->unable_after) {
        return RP_SPLICE_UNABLE;
    }
    got = recv(fd, scratch, limit < sizeof(scratch) ? limit : sizeof(scratch), 0);
    if (got < 0) {
        return errno == EAGAIN ? RP_SPLICE_EMPTY : RP_SPLICE_FAILED;
    }
    if (got == 0) {
        return RP_SPLICE_EOF;
    }
    *moved = (apr_size_t)got;
    c->splices++;
    if (c->gone_after && c->splices == c->gone_after) {
        return RP_SPLICE_CLIENT_GONE;
    }
    receive(c, scratch, *moved);
    /* Not behind the last byte: nothing more would be flushed. */
    if (c->full_every && c->splices % c->full_every == 0 && *moved < limit) {
        c->blocked = 1;
        c->fulls++;
        return RP_SPLICE_FULL;
    }
    return RP_SPLICE_MOVED;
}

#define OPS(splice) { op_read, op_trailers, op_interim, op_head, op_reserve, op_release, op_send, \
                      op_flush, op_finish, op_nothing, op_nothing, op_nothing, splice }

static const rp_client_ops copying = OPS(NULL);
static const rp_client_ops splicing = OPS(op_splice);

/* ---- driver ---------------------------------------------------------------------------------- */

static rp_endpoint *endpoint;

static client *new_client(const rp_client_ops *ops)
{
    static const rp_reverse no_rules;
    client *c = apr_pcalloc(pool, sizeof(*c));
    c->settings.retry.tries = 1;
    c->settings.via = "1.1 test";
    c->request = (rp_request){
        .method = "GET", .scheme = "http", .authority = "test", .target = "/", .path = "/",
        .minor_version = 1, .framing = RP_BODY_NONE, .content_length = -1, .client_ip = "::1",
        .peer_ip = "::1", .request_id = "1"
    };
    rp_fields_init(&c->request.fields, pool, 4);
    c->x.pool = pool;
    c->x.request = &c->request;
    c->x.settings = &c->settings;
    c->x.reverse = &no_rules;
    c->x.target = "/";
    c->x.endpoint = endpoint;
    c->x.address = make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", port, NULL);
    c->x.ops = ops;
    c->x.client = c;
    return c;
}

static apr_int64_t moved_by(const client *c)
{
    return c->x.received_body + c->x.sent_body;
}

static void wait_for_upstream(client *c, const rp_waits *waits)
{
    struct pollfd fds[RP_CONN_WAITS_MAX];
    for (int i = 0; i < waits->count; i++) {
        fds[i] = (struct pollfd){ .fd = waits->fds[i].fd, .events = waits->fds[i].events };
    }
    if (!waits->client_read && !waits->client_write
        && poll(fds, (nfds_t)waits->count, 10000) <= 0) {
        bail_out("nothing came from the upstream");
    }
    c->polls++;
}

static void step(client *c, rp_waits *waits)
{
    apr_int64_t before = moved_by(c);
    rp_exchange_step(&c->x, 1);
    c->steps++;
    if (moved_by(c) - before > c->most) {
        c->most = moved_by(c) - before;
    }
    if (c->x.outcome == RP_OUTCOME_RUNNING) {
        rp_exchange_waits(&c->x, waits);
        c->yields += waits->again;
    }
}

/* Sends the request; then nothing before so many bytes are there to read. */
static void begin(client *c, int available)
{
    rp_waits waits;
    int there = 0;
    if (rp_exchange_start(&c->x) != RP_REASON_NONE) {
        bail_out("start");
    }
    while (rp_exchange_step(&c->x, 0) == RP_OUTCOME_RUNNING && !c->x.request_done) {
        rp_exchange_waits(&c->x, &waits);
        wait_for_upstream(c, &waits);
    }
    for (int i = 0; i < 2000 && there < available; i++) {
        apr_sleep(5000);
        ioctl(rp_conn_fd(c->x.conn), FIONREAD, &there);
    }
}

static void drive(client *c)
{
    rp_waits waits;
    step(c, &waits);
    while (c->x.outcome == RP_OUTCOME_RUNNING) {
        if (!waits.again) {
            wait_for_upstream(c, &waits);
        }
        step(c, &waits);
    }
}

static void start_upstream(upstream *up)
{
    up->extra = up->extra ? up->extra : "";
    if (pthread_create(&up->thread, NULL, serve, up)) {
        bail_out("pthread_create");
    }
}

static void end_upstream(upstream *up)
{
    pthread_join(up->thread, NULL);
    close(up->fd);
}

/* Runs one exchange to its end. */
static void run(client *c, upstream *up, int available)
{
    start_upstream(up);
    begin(c, available);
    drive(c);
    pthread_join(up->thread, NULL);
}

static const char large_head[] = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_budget(void)
{
    upstream up = { .fd = -1, .head = large_head, .size = LARGE };
    client *c = new_client(&copying);
    run(c, &up, 50000);
    is_number(c->received, LARGE, "without a budget the body arrives");
    is_number(c->yields, 0, "and nobody yields");
    close(up.fd);

    up.fd = -1;
    c = new_client(&copying);
    c->x.budget = 16384;
    run(c, &up, 50000);
    is_number(c->received, LARGE, "with a budget the body arrives");
    ok(c->most < 16384 + BUFFER, "and no step takes much more");
    ok(c->yields >= 2, "the step is to be repeated without waiting");
    ok(c->x.outcome == RP_OUTCOME_DONE && c->finished == 1, "it ends well");
    close(up.fd);
}

static void test_splice(void)
{
    upstream up = { .fd = -1, .head = large_head, .size = LARGE };
    client *c = new_client(&splicing);
    c->full_every = 3;
    run(c, &up, 50000);
    is_number(c->received, LARGE, "a large body is spliced");
    ok(c->copied <= BUFFER, "all but what came with the head");
    is_number(c->x.received_body, LARGE, "and counted");
    ok(c->fulls > 0 && c->flushes_after_full == c->fulls, "a full client is waited for");
    ok(c->x.outcome == RP_OUTCOME_DONE && c->finished == 1, "it ends well");
    close(up.fd);

    up.fd = -1;
    c = new_client(&splicing);
    c->x.budget = 30000;
    run(c, &up, 50000);
    is_number(c->received, LARGE, "with a budget too");
    ok(c->yields > 0 && c->most < 30000 + BUFFER, "which holds");
    close(up.fd);

    up.fd = -1;
    c = new_client(&splicing);
    c->unable_after = 2;
    run(c, &up, 50000);
    is_number(c->received, LARGE, "where no pipe is to be had any more, the rest is copied");
    is_number(c->splices, 2, "without further trials");
    close(up.fd);

    up.fd = -1;
    c = new_client(&splicing);
    c->gone_after = 2;
    c->settings.ignore_client_abort = 1;
    run(c, &up, 50000);
    ok(c->x.client_gone && c->x.response_done && c->x.body_left == 0,
       "when the client has gone, the rest may be read regardless");
    close(up.fd);

    up.fd = -1;
    c = new_client(&splicing);
    c->gone_after = 2;
    start_upstream(&up);
    begin(c, 50000);
    drive(c);
    ok(c->x.outcome == RP_OUTCOME_BROKEN && c->x.reason == RP_REASON_CLIENT_GONE,
       "or it ends the exchange");
    end_upstream(&up);

    up = (upstream){ .fd = -1, .head = large_head, .size = LARGE - 1, .closes = 1 };
    c = new_client(&splicing);
    run(c, &up, 50000);
    ok(c->x.outcome == RP_OUTCOME_BROKEN && c->x.reason == RP_REASON_INCOMPLETE,
       "a spliced body that lacks a byte is broken");
    is_number(c->received, LARGE - 1, "behind what had arrived");
    close(up.fd);

    up = (upstream){ .fd = -1, .head = "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n",
                     .size = 200000 };
    c = new_client(&splicing);
    run(c, &up, 50000);
    ok(c->received == 200000 && c->splices == 0, "a body of moderate size is copied");
    close(up.fd);
}

static void tell(void *baton, int fd, rp_conn *conn)
{
    (void)fd;
    *(rp_conn **)baton = conn;
}

static void test_shelf(void)
{
    rp_conn *idle = NULL;
    rp_shelf *shelf = rp_shelf_create(tell, &idle);
    upstream up = { .fd = -1, .head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", .size = 10 };
    client *c = new_client(&copying);
    c->x.shelf = shelf;
    run(c, &up, 10);
    ok(c->received == 10 && idle != NULL, "the connection goes to the shelf");
    c = new_client(&copying);
    c->x.shelf = shelf;
    run(c, &up, 10);
    ok(c->received == 10 && c->x.reused, "and serves the next exchange");

    c = new_client(&copying);
    c->x.shelf = shelf;
    ok(idle && rp_exchange_start(&c->x) == RP_REASON_NONE
       && write(up.fd, "unasked", 7) == 7, "an upstream speaks before the first step");
    for (int i = 0; i < 2000 && idle; i++) {
        apr_sleep(5000);
        rp_shelf_ready(shelf, idle);
    }
    ok(!idle, "the connection is closed");
    close(up.fd);
    up.fd = -1;
    start_upstream(&up);
    drive(c);
    pthread_join(up.thread, NULL);
    ok(c->received == 10 && !c->x.reused, "and the exchange has another one");

    idle = NULL;
    up.extra = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    c = new_client(&copying);
    c->x.shelf = shelf;
    run(c, &up, 10);
    ok(c->received == 10 && c->x.reused && !idle, "one that says more than asked for does not");
    close(up.fd);

    up = (upstream){ .fd = -1, .head = large_head, .size = LARGE, .extra = "HTTP/1.1 200 OK" };
    c = new_client(&splicing);
    c->x.shelf = shelf;
    c->x.budget = 20000;                /* so that what is too much has arrived by the end */
    run(c, &up, 50000);
    ok(c->received == LARGE && c->x.outcome == RP_OUTCOME_DONE && !idle,
       "nor when that lies behind a spliced body");
    close(up.fd);
    rp_shelf_destroy(shelf);
}

static void test_hup(void)
{
    rp_conn *idle = NULL;
    rp_shelf *shelf = rp_shelf_create(tell, &idle);
    upstream up = { .fd = -1, .head = "HTTP/1.0 200 OK\r\n\r\n", .size = 10, .closes = 1 };
    client *c = new_client(&copying);
    rp_waits waits;
    c->x.shelf = shelf;
    start_upstream(&up);
    begin(c, 29);
    pthread_join(up.thread, NULL);
    c->x.upstream_hup = 1;
    step(c, &waits);
    ok(c->x.outcome == RP_OUTCOME_DONE && c->received == 10,
       "with the end announced, one step reads to it");
    close(up.fd);

    up = (upstream){ .fd = -1, .head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", .size = 10,
                     .closes = 1 };
    c = new_client(&copying);
    c->x.shelf = shelf;
    start_upstream(&up);
    begin(c, 49);
    pthread_join(up.thread, NULL);
    c->x.upstream_hup = 1;
    step(c, &waits);
    ok(c->x.outcome == RP_OUTCOME_DONE && c->received == 10 && !idle,
       "such a connection is not kept");
    close(up.fd);
    rp_shelf_destroy(shelf);
}

static void test_tunnel(void)
{
    upstream up = { .fd = -1, .size = LARGE, .echo = LARGE, .closes = 1, .head =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" };
    client *c = new_client(&splicing);
    rp_fields_add(&c->request.fields, "Connection", "Upgrade");
    rp_fields_add(&c->request.fields, "Upgrade", "websocket");
    c->to_send = LARGE;
    c->x.budget = 32768;
    run(c, &up, 50000);
    ok(c->received == LARGE && up.read == LARGE, "a tunnel carries everything both ways");
    ok(c->yields > 0 && c->most < 2 * 32768 + BUFFER + 16384, "not more in a step than allowed");
    is_number(c->splices, 0, "and isn't spliced");
    ok(c->x.outcome == RP_OUTCOME_DONE, "it ends when both sides have");
    close(up.fd);
}

static void test_upload(void)
{
    upstream up = { .fd = -1, .head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", .size = 10,
                    .echo = LARGE, .late = 1 };
    client *c = new_client(&copying);
    rp_waits waits;
    c->request.method = "POST";
    c->request.framing = RP_BODY_LENGTH;
    c->request.content_length = c->to_send = LARGE;
    c->x.budget = 20000;                /* less than is read at once */
    start_upstream(&up);
    if (rp_exchange_start(&c->x) != RP_REASON_NONE) {
        bail_out("start");
    }
    for (step(c, &waits); c->x.outcome == RP_OUTCOME_RUNNING; step(c, &waits)) {
        if (!waits.again) {
            wait_for_upstream(c, &waits);
        }
    }
    end_upstream(&up);
    ok(c->yields > 0 && c->most < 20000 + 2 * 65536, "an upload yields too");
    ok(up.read == LARGE && c->received == 10, "it arrives, and its answer");
}

int main(void)
{
    rp_keepalive keepalive = { .max = 8, .idle = apr_time_from_sec(60) };
    apr_pool_t *child;
    pool = tap_pool();
    signal(SIGPIPE, SIG_IGN);
    listener = listen_at("127.0.0.1", &port, 64);
    apr_pool_create(&child, pool);
    is_number(rp_upstream_child_init(child, &test_server, NULL), APR_SUCCESS, "child_init");
    endpoint = rp_endpoint_get(make_target(pool, RP_SCHEME_HTTP, "127.0.0.1", port, NULL), 0, NULL,
                               &keepalive);
    test_budget();
    test_splice();
    test_shelf();
    test_hup();
    test_tunnel();
    test_upload();
    apr_pool_destroy(child);
    close(listener);
    return tap_done();
}
