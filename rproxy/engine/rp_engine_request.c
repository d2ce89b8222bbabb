/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <sys/epoll.h>
#include "rproxy/engine/rp_engine_request.h"
#include "rproxy/pipeline/rp_park_timer.h"
#include "rproxy/pipeline/rp_report.h"
#include "rproxy/pipeline/rp_stats.h"

#define RP_ENGINE_BUDGET (1 << 20)      /* bytes of one exchange before others have their turn */

/* ---- deadlines of reading -------------------------------------------------------------------- */

apr_time_t rp_engine_read_deadline(const rp_read_limit *limit, apr_time_t from, apr_int64_t bytes)
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

/* 0: never, or no body is waited for. */
static apr_time_t body_deadline(const rp_engine_request *q)
{
    return q->x.want_client_read && !q->tunnel
        ? rp_engine_read_deadline(&q->host->body, q->body_began, q->body_bytes) : 0;
}

int rp_engine_is_body_late(rp_engine_request *q)
{
    apr_time_t due = body_deadline(q);

    if (!due || due > q->d->loop->now) {
        return 0;
    }
    q->body_status = HTTP_REQUEST_TIME_OUT;
    rp_exchange_end(&q->x, RP_REASON_REQUEST_BODY);
    return 1;
}

/* ---- waiting for the exchange ---------------------------------------------------------------- */

/* In the other states descriptors change with every step. */
static int is_connected(const rp_engine_request *q)
{
    return q->x.state != RP_X_QUEUE && q->x.state != RP_X_CONNECT;
}

static void on_upstream(rp_loop *loop, void *owner, unsigned int events)
{
    rp_engine_request *q = owner;

    (void)loop;
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) && is_connected(q)) {
        q->x.upstream_hup = 1;
    }
    q->step(q, 1);
}

/* A name was resolved, or couldn't be: one event for all that wait for it. */
static void on_name(rp_loop *loop, void *owner, unsigned int events)
{
    rp_engine_loop *engine = owner;
    rp_engine_request *waiting = engine->resolving;

    (void)loop;
    (void)events;
    /* Those that go on waiting put themselves on the list again. */
    engine->resolving = NULL;
    if (waiting) {
        waiting->resolving_link = &waiting;
    }
    while (waiting) {
        rp_engine_request *q = waiting;

        waiting = q->next_resolving;
        if (waiting) {
            waiting->resolving_link = &waiting;
        }
        q->resolving_link = NULL;
        q->step(q, 1);
    }
}

static rp_ahead **reads(void *owner)
{
    rp_engine_request *q = owner;

    return q->d->costly ? NULL : rp_exchange_reads(&q->x);
}

static const rp_loop_listener upstream = { on_upstream, RP_LOOP_NEXT, reads };
static const rp_loop_listener name = { on_name, RP_LOOP_NEXT, NULL };

static void wait_for_name(rp_engine_request *q)
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

static void forget_upstream(rp_engine_request *q)
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

void rp_engine_detach(void *client)
{
    rp_engine_request *q = client;
    rp_wait_fd fds[RP_CONN_WAITS_MAX];

    forget_upstream(q);
    if (is_connected(q) && rp_conn_waits(q->x.conn, 1, 0, fds, NULL) == 1) {
        rp_ahead **ahead = rp_conn_ahead(q->x.conn);

        /* Also where nobody waited for it since it was idle. */
        rp_loop_pass_on(q->d->loop, fds[0].fd, NULL, NULL);
        if (ahead && *ahead) {
            rp_ahead_keep(*ahead);      /* another thread may read it */
        }
    }
}

static void watch_upstream(rp_engine_request *q, const rp_waits *waits)
{
    rp_loop *loop = q->d->loop;

    if (!is_connected(q)) {
        forget_upstream(q);
        if (q->x.state == RP_X_CONNECT && rp_conn_is_resolving(q->x.conn)) {
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

apr_time_t rp_engine_wait(rp_engine_request *q, int *again)
{
    rp_waits waits;
    apr_time_t due;

    rp_exchange_waits(&q->x, &waits);
    watch_upstream(q, &waits);
    *again = waits.again;
    due = body_deadline(q);
    return !due || (waits.deadline && waits.deadline < due) ? waits.deadline : due;
}

/* ---- beginning and end ----------------------------------------------------------------------- */

int rp_engine_prepare_exchange(rp_engine_request *q, const rp_client_ops *ops)
{
    const rp_dir_config *dir = q->route->dir;
    rp_exchange *x = &q->x;

    x->pool = q->pool;
    x->request = &q->request;
    x->settings = &q->route->settings;
    x->reverse = &q->reverse;
    x->ops = ops;
    x->client = q;
    x->shelf = q->d->loop->shelf;
    x->clock = &q->d->loop->now;
    x->budget = RP_ENGINE_BUDGET;
    if (rp_route_target(q->pool, &q->match, q->request.path, q->request.query, dir->rewrites,
                        &x->target) != RP_HTTP_OK) {
        return 0;
    }
    rp_config_fill_reverse(dir, x->settings, &q->request, q->match.route->target,
                           q->match.route->path, &q->reverse);
    if (rp_config_aim(x, dir, q->server, q->match.route->target, 0) != RP_REASON_NONE) {
        return 0;
    }
    q->body_began = q->d->loop->now;
    rp_report_begin(q->match.route);
    rp_stats_add(RP_STAT_PARKED, 1);    /* it never holds a thread */
    q->in_exchange = 1;
    return 1;
}

void rp_engine_send_ahead(rp_engine_request *q, rp_batch *batch)
{
    const char *data;
    apr_size_t len;
    apr_ssize_t *result;
    int fd;

    if (q->in_exchange && rp_exchange_begin(&q->x, &fd, &data, &len, &result)) {
        rp_batch_send(batch, fd, data, len, result);
    }
}

void rp_engine_account(rp_engine_request *q)
{
    rp_report_facts facts = {
        .route = q->match.route, .lane = RP_METRICS_ENGINE,
        .total = q->d->loop->now - q->x.started, .was_tunnel = q->tunnel,
        .body_status = q->body_status
    };

    q->in_exchange = 0;
    rp_stats_add(RP_STAT_PARKED, -1);
    rp_report_counts(&q->x, &facts);
}

int rp_engine_client_left(rp_engine_request *q)
{
    return !q->x.client_gone && !q->x.settings->ignore_client_abort
        && !rp_exchange_client_left(&q->x);
}

void rp_engine_bound_tunnel(rp_engine_request *q)
{
    apr_time_t since = rp_park_timer_draining_since();

    if (since) {
        q->x.drain_by = since + q->x.settings->timeouts.drain;
    }
}
