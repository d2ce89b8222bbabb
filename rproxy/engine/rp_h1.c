/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "rproxy/engine/rp_access_log.h"
#include "rproxy/engine/rp_h1.h"
#include "rproxy/engine/rp_h1_private.h"
#include "rproxy/engine/rp_handover.h"
#include "rproxy/pipeline/rp_park_timer.h"
#include "rproxy/pipeline/rp_report.h"
#include "rproxy/pipeline/rp_stats.h"

#define RP_H1_REQUESTS_KEPT 256         /* free requests of a loop, each with a pool of 8 KiB */
#define RP_H1_BUDGET (1 << 20)          /* bytes of one exchange before others have their turn */

static void serve(rp_downstream *d);

/* ---- requests -------------------------------------------------------------------------------- */

static rp_h1_request *new_request(rp_downstream *d)
{
    rp_engine_loop *engine = d->engine;
    rp_h1_request *q = engine->free_requests;
    apr_pool_t *pool;

    if (q) {
        engine->free_requests = q->next;
        engine->free_request_count--;
        pool = q->pool;
        memset(q, 0, sizeof(*q));
    }
    else {
        apr_pool_create(&pool, d->loop->pool);
        q = calloc(1, sizeof(*q));
        if (!q) {
            abort();
        }
    }
    q->pool = pool;
    q->d = d;
    q->began = d->loop->now;
    d->session = q;
    return q;
}

void rp_h1_drop_request(rp_h1_request *q)
{
    rp_engine_loop *engine = q->d->engine;

    q->d->session = NULL;
    rp_h1_drop_output(q);
    apr_pool_clear(q->pool);
    if (engine->free_request_count < RP_H1_REQUESTS_KEPT) {
        q->next = engine->free_requests;
        engine->free_requests = q;
        engine->free_request_count++;
    }
    else {
        apr_pool_destroy(q->pool);
        free(q);
    }
}

void rp_h1_end(rp_engine_loop *engine)
{
    while (engine->free_requests) {
        rp_h1_request *q = engine->free_requests;

        engine->free_requests = q->next;
        free(q);
    }
    for (int i = 0; i < engine->pipe_count; i++) {
        close(engine->pipes[i][0]);
        close(engine->pipes[i][1]);
    }
    engine->free_request_count = engine->pipe_count = 0;
}

/* ---- deadlines of reading -------------------------------------------------------------------- */

/* When mod_reqtimeout would give up, seconds earned by the bytes that came included; 0: never. */
static apr_time_t read_deadline(const rp_read_limit *limit, apr_time_t from, apr_int64_t bytes)
{
    apr_int64_t seconds = limit->first;

    if (seconds == 0) {
        return 0;
    }
    if (limit->rate > 0) {
        seconds += bytes / limit->rate;
        if (limit->max > 0 && seconds > limit->max) {
            seconds = limit->max;
        }
    }
    return from + apr_time_from_sec(seconds);
}

static const rp_engine_host *host_of(const rp_downstream *d)
{
    return d->host ? d->host : rp_eligible_host(d->c->base_server);
}

/* Waits for a request, or for the rest of its head. */
static void wait_for_head(rp_downstream *d)
{
    const rp_engine_host *host = host_of(d);
    const server_rec *server = d->server ? d->server : d->c->base_server;
    apr_time_t now = d->loop->now;
    apr_time_t due = 0;

    if (d->in_start == d->in_end && d->requests > 0) {
        if (rp_park_timer_draining_since()) {
            rp_downstream_close(d);
            return;
        }
        due = d->answered_at + server->keep_alive_timeout;
        d->head_began = 0;
    }
    else {
        if (!d->head_began) {
            d->head_began = d->requests > 0 ? now : d->since;
        }
        if (host) {
            due = read_deadline(&host->head, d->head_began, (apr_int64_t)(d->in_end - d->in_start));
        }
        if (due == 0 || due > now + server->timeout) {
            due = now + server->timeout;
        }
    }
    rp_downstream_trim(d);
    rp_downstream_set_deadline(d, due);
}

/* ---- waiting for the exchange ---------------------------------------------------------------- */

static void step(rp_h1_request *q, int upstream_ready);

static void on_upstream(rp_loop *loop, void *owner, unsigned int events)
{
    rp_h1_request *q = owner;

    (void)loop;
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) && q->x.state != RP_X_CONNECT) {
        q->x.upstream_hup = 1;
    }
    step(q, 1);
}

/* A name was resolved, or couldn't be: one event for all that wait for it. */
static void on_name(rp_loop *loop, void *owner, unsigned int events)
{
    rp_engine_loop *engine = owner;
    rp_h1_request *waiting = engine->resolving;

    (void)loop;
    (void)events;
    /* Those that go on waiting put themselves on the list again. */
    engine->resolving = NULL;
    if (waiting) {
        waiting->resolving_link = &waiting;
    }
    while (waiting) {
        rp_h1_request *q = waiting;

        waiting = q->next_resolving;
        if (waiting) {
            waiting->resolving_link = &waiting;
        }
        q->resolving_link = NULL;
        step(q, 1);
    }
}

static const rp_loop_listener upstream = { on_upstream, RP_LOOP_NEXT };
static const rp_loop_listener name = { on_name, RP_LOOP_NEXT };

static void wait_for_name(rp_h1_request *q)
{
    rp_engine_loop *engine = q->d->engine;

    if (!q->resolving_link) {
        q->next_resolving = engine->resolving;
        q->resolving_link = &engine->resolving;
        if (q->next_resolving) {
            q->next_resolving->resolving_link = &q->next_resolving;
        }
        engine->resolving = q;
    }
}

static void forget_upstream(rp_h1_request *q)
{
    for (int i = 0; i < q->watched_count; i++) {
        rp_loop_forget(q->d->loop, q->watched[i], q);
    }
    q->watched_count = 0;
    if (q->resolving_link) {
        *q->resolving_link = q->next_resolving;
        if (q->next_resolving) {
            q->next_resolving->resolving_link = q->resolving_link;
        }
        q->resolving_link = NULL;
    }
}

void rp_h1_detach(void *client)
{
    rp_h1_request *q = client;
    rp_wait_fd fds[RP_CONN_WAITS_MAX];

    forget_upstream(q);
    if (q->x.state != RP_X_CONNECT && rp_conn_waits(q->x.conn, 1, 0, fds, NULL) == 1) {
        /* Also where nobody waited for it since it was idle. */
        rp_loop_pass_on(q->d->loop, fds[0].fd, NULL, NULL);
    }
}

static void watch_upstream(rp_h1_request *q, const rp_waits *waits)
{
    rp_loop *loop = q->d->loop;

    if (q->x.state == RP_X_CONNECT) {
        forget_upstream(q);
        if (rp_conn_is_resolving(q->x.conn)) {
            wait_for_name(q);
            for (int i = 0; i < waits->count; i++) {
                rp_loop_watch(loop, waits->fds[i].fd, &name, q->d->engine);
            }
            return;
        }
        /* Attempts open and close descriptors as they like: registered anew each time. */
        for (int i = 0; i < waits->count; i++) {
            rp_loop_watch(loop, waits->fds[i].fd, &upstream, q);
            q->watched[q->watched_count++] = waits->fds[i].fd;
        }
        q->attempt = 0;
        return;
    }
    if (waits->count > 0 && q->attempt != q->x.attempts) {
        int fd = waits->fds[0].fd;

        forget_upstream(q);
        if (q->x.reused) {
            rp_loop_pass_on(loop, fd, &upstream, q);
        }
        else {
            rp_loop_watch(loop, fd, &upstream, q);
        }
        q->watched[0] = fd;
        q->watched_count = 1;
        q->attempt = q->x.attempts;
    }
}

/* When the body that is waited for comes too slowly; 0: never, or none is waited for. */
static apr_time_t body_deadline(const rp_h1_request *q)
{
    return q->x.want_client_read && !q->tunnel
        ? read_deadline(&q->host->body, q->body_began, q->body_bytes) : 0;
}

static void wait_for_exchange(rp_h1_request *q)
{
    rp_downstream *d = q->d;
    rp_waits waits;
    apr_time_t due;

    rp_exchange_waits(&q->x, &waits);
    watch_upstream(q, &waits);
    if (waits.again) {
        rp_downstream_again(d);
    }
    due = body_deadline(q);
    if (!due || (waits.deadline && waits.deadline < due)) {
        due = waits.deadline;
    }
    rp_downstream_set_deadline(d, due);
}

/* ---- the end of a request -------------------------------------------------------------------- */

/* Everything is written, or never will be. */
static void end_request(rp_h1_request *q, int close)
{
    rp_downstream *d = q->d;

    rp_access_log_write(d->engine->log, q);
    close |= !q->keep_alive || rp_park_timer_draining_since() || d->ended;
    d->answered_at = d->loop->now;
    rp_h1_drop_request(q);
    if (close) {
        rp_downstream_close(d);
    }
    else if (d->in_start < d->in_end || d->readable) {
        rp_downstream_again(d);
    }
    else {
        wait_for_head(d);
    }
}

/* The response is complete, but for what the client hasn't taken yet. */
static void finish(rp_h1_request *q)
{
    switch (rp_h1_write(q)) {
    case RP_IO_AGAIN:
        q->finishing = 1;
        rp_downstream_set_deadline(q->d, q->d->loop->now + q->host->server->timeout);
        break;
    case RP_IO_DONE:
        end_request(q, 0);
        break;
    default:
        end_request(q, 1);
        break;
    }
}

/* What is small is sent when everything that happened at the same time has been read and answered:
 * sending goes through so much of the kernel that code in between would have to come from far
 * memory each time. */
static void finish_later(rp_h1_request *q)
{
    q->finishing = 1;
    rp_downstream_again(q->d);
}

/* The client must see that the response broke off: what has no length looks complete unless the
 * connection is reset. */
static void break_off(rp_h1_request *q)
{
    rp_downstream *d = q->d;
    int reset = q->close_delimited;

    rp_access_log_failure(d->engine->log, q);
    if (!q->write_failed) {
        rp_h1_write(q);
    }
    rp_access_log_write(d->engine->log, q);
    rp_h1_drop_request(q);
    rp_downstream_abort(d, reset);
}

static void account(rp_h1_request *q)
{
    q->in_exchange = 0;
    rp_stats_add(RP_STAT_PARKED, -1);
    rp_report_counts(&q->x, q->tunnel);
}

static void end_exchange(rp_h1_request *q)
{
    rp_exchange *x = &q->x;

    account(q);
    switch (x->outcome) {
    case RP_OUTCOME_DONE:
        finish_later(q);
        break;
    case RP_OUTCOME_ERROR:
        if (x->reason == RP_REASON_CLIENT_GONE) {
            break_off(q);
            break;
        }
        /* FALLTHROUGH */
    case RP_OUTCOME_REPLACED:
        rp_handover_outcome(q->d, q);
        break;
    default:
        break_off(q);
        break;
    }
}

static void step(rp_h1_request *q, int upstream_ready)
{
    if (q->finishing) {
        finish(q);
    }
    else if (rp_exchange_step(&q->x, upstream_ready) == RP_OUTCOME_RUNNING) {
        wait_for_exchange(q);
    }
    else {
        end_exchange(q);
    }
}

/* ---- the beginning of a request -------------------------------------------------------------- */

/* Nonzero: the exchange was started. */
static int start_exchange(rp_h1_request *q)
{
    const rp_dir_config *dir = q->route->dir;
    rp_exchange *x = &q->x;

    x->pool = q->pool;
    x->request = &q->request;
    x->settings = &q->route->settings;
    x->reverse = &q->reverse;
    x->address = q->match.route->target;
    x->ops = &rp_h1_client_ops;
    x->client = q;
    x->shelf = q->d->loop->shelf;
    x->clock = &q->d->loop->now;
    x->budget = RP_H1_BUDGET;
    if (rp_route_target(q->pool, &q->match, q->request.path, q->request.query, dir->rewrites,
                        &x->target) != RP_HTTP_OK) {
        return 0;
    }
    x->endpoint = rp_endpoint_get(q->match.route->target, 0, dir->tls,
                                  dir->keepalive ? dir->keepalive : &rp_keepalive_default);
    if (!x->endpoint) {
        return 0;
    }
    rp_config_fill_reverse(dir, x->settings, &q->request, x->address, q->match.route->path,
                           &q->reverse);
    q->body_left = q->request.framing == RP_BODY_LENGTH ? q->request.content_length : 0;
    if (q->request.framing == RP_BODY_CHUNKED) {
        rp_chunked_init(&q->chunked, q->pool);
    }
    q->body_began = q->d->loop->now;
    rp_stats_add(RP_STAT_REQUESTS, 1);
    rp_stats_add(RP_STAT_ACTIVE, 1);
    rp_stats_add(RP_STAT_PARKED, 1);    /* it never holds a thread */
    q->in_exchange = 1;
    return 1;
}

/* A head of head_len bytes is there. */
static void begin_request(rp_downstream *d, apr_size_t head_len)
{
    rp_h1_request *q = new_request(d);

    if (rp_h1_take_head(q, head_len) != RP_H1_ENGINE || !start_exchange(q)) {
        rp_h1_drop_request(q);
        rp_handover_begin(d, APR_SUCCESS);
        return;
    }
    d->requests++;
    d->head_began = 0;
    d->scanned = 0;
    d->in_start += (unsigned int)head_len;
    if (q->request.framing == RP_BODY_NONE) {
        rp_downstream_trim(d);
    }
    if (rp_exchange_start(&q->x) == RP_REASON_NONE) {
        rp_downstream_again(d);         /* see finish_later() */
    }
    else {
        end_exchange(q);
    }
}

/* A head that is broken whatever comes next is httpd's to refuse; with its end, so that no thread
 * waits for one that need not come. Nonzero if that is there. */
static int has_broken_head(rp_downstream *d)
{
    const char *begin = d->in + d->in_start;
    const char *end = d->in + d->in_end;
    const char *p;

    while (begin < end && (*begin == '\r' || *begin == '\n')) {
        begin++;
    }
    p = d->in + d->in_start + d->scanned;
    p = p > begin ? p : begin;
    while ((p = memchr(p, '\n', (apr_size_t)(end - p)))) {
        p++;
        if (end - p >= 1 && (*p == '\n' || (end - p >= 2 && p[0] == '\r' && p[1] == '\n'))) {
            return 1;
        }
    }
    /* The last line end may be followed by the empty line yet. */
    d->scanned = end - begin > 2 ? (unsigned int)(end - (d->in + d->in_start)) - 2 : 0;
    return 0;
}

/* Empty lines behind a request are no part of the next one, as httpd has it (ap_check_pipeline). */
static void skip_empty_lines(rp_downstream *d)
{
    while (d->requests > 0 && d->in_start < d->in_end) {
        const char *at = d->in + d->in_start;
        unsigned int len = *at == '\n' ? 1 : 2;

        if (*at != '\n' && (*at != '\r' || d->in_end - d->in_start < 2 || at[1] != '\n')) {
            return;
        }
        d->in_start += len;
        d->scanned = 0;
    }
}

/* Looks for the next request in what was read, and reads as long as there is none. */
static void serve(rp_downstream *d)
{
    while (d->state == RP_DOWN_OPEN && !d->session) {
        apr_size_t scanned, head_len = 0;
        rp_http_error error;

        skip_empty_lines(d);
        scanned = d->scanned;
        if (d->in_start < d->in_end) {
            switch (rp_http_scan_request(d->in + d->in_start, d->in_end - d->in_start, &scanned,
                                         &head_len, &error)) {
            case RP_PARSE_DONE:
                begin_request(d, head_len);
                continue;
            case RP_PARSE_FAILED:
                /* One larger than ours may be within httpd's limits. */
                if (has_broken_head(d) || d->in_end - d->in_start >= RP_HTTP_HEAD_MAX) {
                    rp_handover_begin(d, APR_SUCCESS);
                    continue;
                }
                scanned = d->scanned;
                break;
            case RP_PARSE_MORE:
                break;
            }
            d->scanned = (unsigned int)scanned;
        }
        if (!d->readable) {
            wait_for_head(d);
            return;
        }
        switch (rp_downstream_fill(d, RP_HTTP_HEAD_MAX)) {
        case RP_IO_DONE:
            break;
        case RP_IO_AGAIN:
            wait_for_head(d);
            return;
        case RP_IO_EOF:
            if (d->in_start < d->in_end) {
                rp_handover_begin(d, APR_EOF);
                return;
            }
            rp_downstream_close(d);
            return;
        default:
            rp_downstream_abort(d, 0);
            return;
        }
    }
}

/* ---- the protocol ---------------------------------------------------------------------------- */

/* Nonzero if the client's leaving has ended the exchange or it has no one to go on for. */
static int client_left(rp_h1_request *q)
{
    if (q->finishing || q->tunnel || q->x.client_gone || q->x.settings->ignore_client_abort
        || (q->request.framing != RP_BODY_NONE && !q->body_ended && q->d->readable)) {
        return 0;                       /* writing or reading tells */
    }
    return !rp_exchange_client_left(&q->x);
}

static void ready(rp_downstream *d)
{
    rp_h1_request *q = d->session;

    if (!q) {
        serve(d);
        return;
    }
    if (d->left && client_left(q)) {
        end_exchange(q);
        return;
    }
    step(q, q->x.yielded);
}

static void body_too_slow(rp_h1_request *q)
{
    q->body_status = HTTP_REQUEST_TIME_OUT;
    rp_exchange_end(&q->x, RP_REASON_REQUEST_BODY);
    end_exchange(q);
}

static void expired(rp_downstream *d)
{
    rp_h1_request *q = d->session;

    if (!q) {
        if (d->in_start < d->in_end || d->requests == 0) {
            rp_handover_begin(d, APR_TIMEUP);
        }
        else {
            rp_downstream_close(d);
        }
    }
    else if (q->finishing) {
        rp_h1_drop_output(q);
        q->x.outcome = RP_OUTCOME_BROKEN;
        q->x.reason = RP_REASON_CLIENT_TIMEOUT;
        break_off(q);
    }
    else {
        apr_time_t due = body_deadline(q);

        if (due && due <= d->loop->now) {
            body_too_slow(q);
        }
        else {
            step(q, 0);
        }
    }
}

void rp_h1_bound_tunnel(rp_h1_request *q)
{
    apr_time_t since = rp_park_timer_draining_since();

    if (since) {
        q->x.drain_by = since + q->route->settings.timeouts.drain;
    }
}

static void drain(rp_downstream *d)
{
    rp_h1_request *q = d->session;

    if (!q && d->in_start == d->in_end && !d->readable && d->requests > 0) {
        rp_downstream_close(d);         /* a new one has been promised an answer */
    }
    else if (q && q->tunnel) {
        rp_h1_bound_tunnel(q);
        wait_for_exchange(q);
    }
}

static void returned(rp_downstream *d)
{
    d->answered_at = d->loop->now;
    d->scanned = 0;
    d->head_began = 0;
    d->requests++;
    serve(d);
}

static void closed(rp_downstream *d)
{
    rp_h1_request *q = d->session;

    if (q->in_exchange) {
        rp_exchange_end(&q->x, RP_REASON_CLIENT_GONE);
        account(q);
        rp_access_log_write(d->engine->log, q);
    }
    rp_h1_drop_request(q);
}

const rp_protocol rp_h1_protocol = { ready, expired, drain, returned, closed };
