/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <apr_portable.h>
#include "httpd.h"
#include "http_config.h"
#include "http_connection.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_vhost.h"
#include "util_filter.h"
#include "rproxy/engine/rp_engine_private.h"
#include "rproxy/engine/rp_h1.h"
#include "rproxy/engine/rp_h2.h"
#include "rproxy/engine/rp_handover.h"
#include "rproxy/pipeline/rp_park.h"
#include "rproxy/pipeline/rp_park_timer.h"

APLOG_USE_MODULE(rproxy);

#define RP_LINGER apr_time_from_sec(2)          /* without a byte from a client we closed */
#define RP_LINGER_MOST apr_time_from_sec(30)    /* however many bytes it sends */
#define RP_LINGER_ROUNDS 16                     /* reads before others have their turn */

/* A worker that leaves the connection to us still writes to it after its suspend_connection hook:
 * first it clears c->sbh, then it notes, one instruction later, that the connection is suspended.
 * The first can be seen; the memory is kept this much longer for the second. */
#define RP_WORKERS_LAST_WRITE apr_time_from_msec(50)

/* A thread of a child that ends gracefully leaves without a look at the queue of accepted
 * connections if others are left for those that the MPM counts, and it counts none that still waits
 * in the queue. So each one counts this much longer: its thread is back at the queue by then. */
#define RP_LAST_ACCEPTED apr_time_from_sec(1)

/* ---- taking: the worker's thread ------------------------------------------------------------ */

/* Connection filters that the engine may go around: it does their work itself. */
static int is_known_filter(const char *name)
{
    static const char *const known[] = {
        "core", "core_in", "reqtimeout", "log_input_output", "ssl/tls filter",
        "ssl/tls coalescing filter", "ssl/tls buffer", "rproxy_flow", "rproxy_replay"
    };

    for (apr_size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcasecmp(name, known[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

static int has_foreign_filter(const conn_rec *c)
{
    for (const ap_filter_t *f = c->input_filters; f; f = f->next) {
        if (!is_known_filter(f->frec->name)) {
            return 1;
        }
    }
    for (const ap_filter_t *f = c->output_filters; f; f = f->next) {
        if (!is_known_filter(f->frec->name)) {
            return 1;
        }
    }
    return 0;
}

static int is_engines(void *found, conn_rec *c, server_rec *server)
{
    (void)c;
    *(int *)found |= rp_eligible_host(server) != NULL;
    return *(int *)found;
}

/* Nonzero if a request on this connection can reach a virtual host that has routes for us. */
static int reaches_engine(conn_rec *c)
{
    int found = rp_eligible_host(c->base_server) != NULL;

    if (!found) {
        ap_vhost_iterate_given_conn(c, is_engines, &found);
    }
    return found;
}

/* A client that has chosen HTTP/2 on a plain connection says so first of all. */
static int has_preface(int fd)
{
    char begin[RP_H2_PREFACE_LEN];
    ssize_t count = recv(fd, begin, sizeof(begin), MSG_PEEK | MSG_DONTWAIT);

    return count == (ssize_t)sizeof(begin) && memcmp(begin, RP_H2_PREFACE, sizeof(begin)) == 0;
}

/* NULL: not ours. On a plain connection mod_http2 may take over in the middle of HTTP/1.1, so where
 * that is allowed only HTTP/2 from the start is ours; without mod_http2 we look for it. */
static const rp_protocol *protocol_of(conn_rec *c, int is_tls, int fd, int *may_be_http2)
{
    const char *name = ap_get_protocol(c);

    if (!is_tls && ap_is_allowed_protocol(c, NULL, c->base_server, "h2c")) {
        if (rp_eligible_http2(c)) {
            *may_be_http2 = !ap_find_linked_module("mod_http2.c");
            return has_preface(fd) ? &rp_h2_protocol : *may_be_http2 ? &rp_h1_protocol : NULL;
        }
        return ap_find_linked_module("mod_http2.c") ? NULL : &rp_h1_protocol;
    }
    if (strcmp(name, "h2") == 0) {
        return rp_eligible_http2(c) ? &rp_h2_protocol : NULL;
    }
    return strcmp(name, AP_PROTOCOL_HTTP1) == 0 ? &rp_h1_protocol : NULL;
}

/* Moves what httpd's input filters hold already into d->in: with a socket in place of the client's
 * that has nothing to say, they give that and nothing more. */
void rp_downstream_collect(rp_downstream *d)
{
    conn_rec *c = d->c;
    apr_os_sock_t silent = rp_engine_silent_socket();
    apr_bucket_brigade *bb = apr_brigade_create(c->pool, c->bucket_alloc);

    apr_os_sock_put(&d->socket, &silent, c->pool);
    for (;;) {
        apr_status_t rv = ap_get_brigade(c->input_filters, bb, AP_MODE_READBYTES,
                                         APR_NONBLOCK_READ, RP_LOOP_BLOCK);
        apr_off_t length = 0;
        apr_size_t size;

        if (rv != APR_SUCCESS || apr_brigade_length(bb, 1, &length) != APR_SUCCESS
            || length == 0) {
            break;
        }
        size = (apr_size_t)length;
        rp_downstream_make_room(d, (unsigned int)size);
        apr_brigade_flatten(bb, d->in + d->in_end, &size);
        d->in_end += (unsigned int)size;
        apr_brigade_cleanup(bb);
    }
    apr_brigade_destroy(bb);
    apr_os_sock_put(&d->socket, &d->fd, c->pool);
}

static void arrive(rp_loop *loop, rp_loop_mail *mail);
static void timer_expired(rp_loop_timer *timer);
static void run_task(rp_loop_task *task);
static void prepare_task(rp_loop_task *task, rp_batch *batch);

int rp_downstream_take(conn_rec *c)
{
    rp_engine_loop *engine = rp_engine_next_loop();
    rp_parking *parking;
    rp_downstream *d;
    struct ssl_st *ssl;
    const rp_protocol *protocol;
    int may_be_http2 = 0;

    if (!engine || rp_park_engine(c) || c->master || !c->cs || c->aborted
        || !reaches_engine(c) || has_foreign_filter(c)) {
        return 0;
    }
    parking = rp_park_of(c);
    ssl = rp_park_tls(parking);
    protocol = protocol_of(c, ssl != NULL, rp_park_client_fd(parking), &may_be_http2);
    if (!protocol) {
        return 0;
    }
    d = calloc(1, sizeof(*d));
    if (!d) {
        return 0;
    }
    d->timer.expired = timer_expired;
    d->task.run = run_task;
    d->task.prepare = prepare_task;
    d->mail.deliver = arrive;
    d->loop = engine->loop;
    d->engine = engine;
    d->c = c;
    d->socket = ap_get_conn_socket(c);
    d->fd = rp_park_client_fd(parking);
    d->protocol = protocol;
    d->may_be_http2 = may_be_http2 != 0;
    d->state = RP_DOWN_ARRIVING;
    d->readable = 1;
    if (!rp_handover_prepare(d)) {
        free(d);
        return 0;
    }
    rp_downstream_collect(d);
    if (ssl && !(d->tls = rp_downstream_tls_take(d, ssl))) {
        rp_handover_give_up(d);
        free(d->in);
        free(d);
        return 0;
    }
    rp_park_set_engine(parking, d);
    engine->connection_count++;         /* before its thread ends: see wait_for_connections() */
    rp_engine_learn_child(c);
    c->keepalive = AP_CONN_KEEPALIVE;
    c->cs->state = CONN_STATE_SUSPENDED;
    return 1;
}

void rp_downstream_depart(conn_rec *c)
{
    rp_downstream *d = rp_park_engine(c);

    if (d && d->state == RP_DOWN_ARRIVING) {
        rp_loop_send(d->loop, &d->mail);
    }
}

/* ---- memory of what was read ----------------------------------------------------------------- */

void rp_downstream_make_room(rp_downstream *d, unsigned int size)
{
    unsigned int held = d->in_end - d->in_start;
    unsigned int larger = RP_LOOP_BLOCK;
    char *memory;

    if (d->in && d->in_start > 0) {
        memmove(d->in, d->in + d->in_start, held);
        d->in_start = 0;
        d->in_end = held;
    }
    if (d->in && d->in_size - held >= size) {
        return;
    }
    while (larger < held + size) {
        larger *= 2;
    }
    /* Blocks of the loop's list are malloc's too, so what outgrew one may go back to either. */
    memory = realloc(d->in, larger);
    if (!memory) {
        abort();
    }
    d->in = memory;
    d->in_size = larger;
}

void rp_downstream_trim(rp_downstream *d)
{
    if (d->in && d->in_start == d->in_end) {
        if (d->in_size == RP_LOOP_BLOCK) {
            rp_loop_block_put(d->loop, d->in);
        }
        else {
            free(d->in);
        }
        d->in = NULL;
        d->in_size = d->in_start = d->in_end = 0;
    }
}

/* ---- reading and writing --------------------------------------------------------------------- */

static rp_io plain_read(rp_downstream *d, char *buffer, apr_size_t size, apr_size_t *got)
{
    ssize_t count = rp_receive(&d->ahead, d->fd, buffer, size);

    if (count > 0) {
        *got = (apr_size_t)count;
        if ((apr_size_t)count < size && !d->left) {
            d->readable = 0;            /* a short read drained it: the next bytes are an event */
        }
        return RP_IO_DONE;
    }
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return RP_IO_AGAIN;
    }
    return count == 0 ? RP_IO_EOF : RP_IO_FAILED;
}

rp_io rp_downstream_read(rp_downstream *d, char *buffer, apr_size_t size, apr_size_t *got)
{
    rp_io io = d->tls ? rp_downstream_tls_read(d, buffer, size, got)
                      : plain_read(d, buffer, size, got);

    switch (io) {
    case RP_IO_DONE:
        d->bytes_in += *got;
        break;
    case RP_IO_AGAIN:
        d->readable = 0;
        break;
    default:
        d->ended = d->left = 1;
        break;
    }
    return io;
}

rp_io rp_downstream_fill(rp_downstream *d, apr_size_t limit)
{
    apr_size_t got = 0;
    rp_io io;

    if (!d->in) {
        d->in = rp_loop_block_get(d->loop);
        d->in_size = RP_LOOP_BLOCK;
        d->in_start = d->in_end = 0;
    }
    else if (d->in_end == d->in_size) {
        if (d->in_start == 0 && d->in_size >= limit) {
            return RP_IO_DONE;
        }
        rp_downstream_make_room(d, d->in_size - (d->in_end - d->in_start) + 1);
    }
    io = rp_downstream_read(d, d->in + d->in_end, d->in_size - d->in_end, &got);
    d->in_end += (unsigned int)got;
    return io;
}

void rp_downstream_count_out(rp_downstream *d, apr_size_t bytes)
{
    if (!d->multiplexed) {
        rp_engine_count_out(d->c, (apr_off_t)bytes);
    }
}

static rp_io plain_write(rp_downstream *d, const struct iovec *vector, int count,
                         apr_size_t *written)
{
    ssize_t sent = rp_send(&d->sent_ahead, d->fd, vector, count);

    if (sent >= 0) {
        *written = (apr_size_t)sent;
        rp_downstream_count_out(d, (apr_size_t)sent);
        return RP_IO_DONE;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK ? RP_IO_AGAIN : RP_IO_FAILED;
}

rp_io rp_downstream_write(rp_downstream *d, const struct iovec *vector, int count,
                          apr_size_t *written)
{
    *written = 0;
    return d->tls ? rp_downstream_tls_write(d, vector, count, written)
                  : plain_write(d, vector, count, written);
}

rp_io rp_downstream_flush(rp_downstream *d)
{
    return d->tls ? rp_downstream_tls_flush(d) : RP_IO_DONE;
}

void rp_downstream_end_write(rp_downstream *d)
{
    if (d->tls) {
        rp_downstream_tls_end(d);
        if (rp_downstream_tls_flush(d) == RP_IO_AGAIN) {
            return;                     /* the end of the connection will do */
        }
    }
    shutdown(d->fd, SHUT_WR);
}

void rp_downstream_set_deadline(rp_downstream *d, apr_time_t due)
{
    rp_loop_set_timer(d->loop, &d->timer, due);
}

void rp_downstream_again(rp_downstream *d)
{
    if (d->costly) {
        rp_loop_last(d->loop, &d->task);
    }
    else {
        rp_loop_later(d->loop, &d->task);
    }
}

/* ---- events ---------------------------------------------------------------------------------- */

static void linger(rp_downstream *d);
static void finish(rp_downstream *d);

static void on_events(rp_loop *loop, void *owner, unsigned int events)
{
    rp_downstream *d = owner;

    (void)loop;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        d->readable = 1;
        d->drained = 0;
    }
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        d->left = 1;
    }
    switch (d->state) {
    case RP_DOWN_OPEN:
        if (d->costly) {
            rp_downstream_again(d);
        }
        else {
            d->protocol->ready(d);
        }
        break;
    case RP_DOWN_LANE:
        rp_handover_ready(d, events);
        break;
    case RP_DOWN_LINGER:
        linger(d);
        break;
    default:
        break;
    }
}

/* Between two requests; then all that is received ahead fits into what d->in will be, or OpenSSL's
 * buffer. */
static rp_ahead **reads(void *owner)
{
    rp_downstream *d = owner;

    return d->state == RP_DOWN_OPEN && !d->costly && !d->in && (!d->session || d->multiplexed)
        && !(d->tls && rp_downstream_tls_has_pending(d)) ? &d->ahead : NULL;
}

static const rp_loop_listener client = { on_events, RP_LOOP_LAST, reads };

/* Nonzero while the worker that brought it is still on its way out. */
static int is_held(const rp_downstream *d)
{
    return __atomic_load_n(&d->c->sbh, __ATOMIC_ACQUIRE) != NULL;
}

static void open_for_protocol(rp_downstream *d)
{
    if (is_held(d)) {
        rp_loop_later(d->loop, &d->task);
        return;
    }
    d->released_at = d->loop->now;
    d->state = RP_DOWN_OPEN;
    if (!rp_loop_watch(d->loop, d->fd, &client, d)) {
        ap_log_cerror(APLOG_MARK, APLOG_ERR, errno, d->c,
                      "RP0601: the engine cannot wait for a client: raise the limit of "
                      "fs.epoll.max_user_watches");
        rp_downstream_abort(d, 0);
        return;
    }
    d->protocol->ready(d);
}

static void arrive(rp_loop *loop, rp_loop_mail *mail)
{
    rp_downstream *d = (rp_downstream *)((char *)mail - offsetof(rp_downstream, mail));
    rp_engine_loop *engine = d->engine;

    d->since = loop->now;
    d->next = engine->connections;
    d->link = &engine->connections;
    if (d->next) {
        d->next->link = &d->next;
    }
    engine->connections = d;
    open_for_protocol(d);
}

static void prepare_task(rp_loop_task *task, rp_batch *batch)
{
    rp_downstream *d = (rp_downstream *)((char *)task - offsetof(rp_downstream, task));

    if (d->state == RP_DOWN_OPEN && d->protocol->prepare) {
        d->protocol->prepare(d, batch);
    }
}

static void run_task(rp_loop_task *task)
{
    rp_downstream *d = (rp_downstream *)((char *)task - offsetof(rp_downstream, task));

    switch (d->state) {
    case RP_DOWN_ARRIVING:
        open_for_protocol(d);
        break;
    case RP_DOWN_OPEN:
        d->protocol->ready(d);
        break;
    case RP_DOWN_LINGER:
        linger(d);
        break;
    case RP_DOWN_CLOSED:
        finish(d);
        break;
    default:
        break;
    }
}

static void timer_expired(rp_loop_timer *timer)
{
    rp_downstream *d = (rp_downstream *)timer;

    switch (d->state) {
    case RP_DOWN_OPEN:
        d->protocol->expired(d);
        break;
    case RP_DOWN_LANE:
        rp_handover_expired(d);
        break;
    case RP_DOWN_LINGER:
        rp_downstream_abort(d, 0);
        break;
    case RP_DOWN_CLOSED:
        finish(d);
        break;
    default:
        break;
    }
}

/* ---- the end --------------------------------------------------------------------------------- */

/* The last of it. The MPM's accounts are settled by the pool's cleanups. */
static void destroy(rp_downstream *d)
{
    conn_rec *c = d->c;
    rp_engine_loop *engine = d->engine;

    rp_loop_drop_timer(d->loop, &d->timer);
    *d->link = d->next;
    if (d->next) {
        d->next->link = d->link;
    }
    engine->connection_count--;
    if (d->tls) {
        rp_downstream_tls_free(d);
    }
    d->in_start = d->in_end = 0;
    rp_downstream_trim(d);
    rp_ahead_drop(&d->ahead);
    rp_handover_give_up(d);
    rp_park_set_engine(rp_park_of(c), NULL);
    free(d->host_text);
    free(d->hostname);
    free(d);
    c->aborted = 1;                     /* nothing of it may write any more */
    c->current_thread = NULL;
    ap_run_pre_close_connection(c);
    apr_pool_destroy(c->pool);
}

/* Until when the MPM's side of it has to be there. */
static apr_time_t kept_until(const rp_downstream *d)
{
    apr_time_t draining_since = rp_park_timer_draining_since();

    if (!draining_since) {
        return d->released_at + RP_WORKERS_LAST_WRITE;
    }
    return (d->released_at > draining_since ? d->released_at : draining_since) + RP_LAST_ACCEPTED;
}

static void finish(rp_downstream *d)
{
    apr_time_t until = kept_until(d);

    if (d->loop->now < until) {
        rp_loop_set_timer(d->loop, &d->timer, until);
        return;
    }
    destroy(d);
}

static void end_session(rp_downstream *d)
{
    if (d->session) {
        d->protocol->closed(d);
    }
}

void rp_downstream_abort(rp_downstream *d, int reset)
{
    if (d->state == RP_DOWN_CLOSED) {
        return;
    }
    end_session(d);
    d->state = RP_DOWN_CLOSED;
    rp_loop_unwatch(d->loop, d->fd);
    if (reset) {
        struct linger at_once = { .l_onoff = 1, .l_linger = 0 };

        setsockopt(d->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    }
    else if (d->loop->now < kept_until(d)) {
        shutdown(d->fd, SHUT_RDWR);     /* the client need not wait for it */
    }
    rp_loop_set_timer(d->loop, &d->timer, 0);
    /* Not here: callers further up still have it in their hands. */
    rp_loop_later(d->loop, &d->task);
}

/* Reads what a client that we closed still sends, so that no reset overtakes our last bytes. */
static void linger(rp_downstream *d)
{
    char *scratch;
    ssize_t count;
    int rounds = 0;

    if (d->tls && !d->shut) {
        switch (rp_downstream_tls_flush(d)) {
        case RP_IO_AGAIN:
            return;
        case RP_IO_DONE:
            /* Once: each call is an event of the socket, which would bring us here again. */
            shutdown(d->fd, SHUT_WR);
            d->shut = 1;
            break;
        default:
            rp_downstream_abort(d, 0);
            return;
        }
    }
    scratch = rp_loop_block_get(d->loop);
    do {
        count = recv(d->fd, scratch, RP_LOOP_BLOCK, MSG_DONTWAIT);
    } while ((count == RP_LOOP_BLOCK && ++rounds < RP_LINGER_ROUNDS)
             || (count < 0 && errno == EINTR));
    rp_loop_block_put(d->loop, scratch);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
        || d->loop->now > d->since + RP_LINGER_MOST) {
        rp_downstream_abort(d, 0);
        return;
    }
    if (count > 0) {
        rp_loop_set_timer(d->loop, &d->timer, d->loop->now + RP_LINGER);
    }
    if (count == RP_LOOP_BLOCK) {
        rp_loop_later(d->loop, &d->task);
    }
}

void rp_downstream_close(rp_downstream *d)
{
    if (d->state == RP_DOWN_CLOSED || d->state == RP_DOWN_LINGER) {
        return;
    }
    end_session(d);
    d->in_start = d->in_end = 0;
    rp_downstream_trim(d);
    if (d->tls) {
        rp_downstream_tls_end(d);
    }
    else {
        shutdown(d->fd, SHUT_WR);
    }
    d->state = RP_DOWN_LINGER;
    d->since = d->loop->now;
    rp_loop_set_timer(d->loop, &d->timer, d->loop->now + RP_LINGER);
    linger(d);
}
