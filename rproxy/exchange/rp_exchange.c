/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The exchange's frame: start, step, deadlines, attempts and their repetition, the end. */

#include <string.h>
#include "rproxy/exchange/rp_exchange_private.h"

/* ---- end ------------------------------------------------------------------------------------- */

static void drop_connection(rp_exchange *x, int reusable, rp_reason reason)
{
    rp_exchange_release_member(x, reason);
    if (x->conn) {
        x->peer = apr_pstrdup(x->pool, rp_conn_peer(x->conn));
        x->ops->detach(x->client);
        rp_conn_release(x->conn, reusable);
        x->conn = NULL;
    }
}

void rp_exchange_release(rp_exchange *x, rp_reason reason)
{
    if (x->state == RP_X_QUEUE) {
        x->ops->detach(x->client);
        rp_exchange_leave_queue(x, rp_exchange_now(x));
    }
    /* Whatever became of the client: the upstream's side is complete. */
    drop_connection(x, x->state == RP_X_RELAY && x->request_done && !x->send_broken
                    && x->response_done && x->response.keep_alive && !x->upstream_hup, reason);
}

void rp_exchange_finish(rp_exchange *x, rp_outcome outcome, rp_reason reason, const char *detail)
{
    if (x->state == RP_X_ENDED) {
        return;
    }
    rp_exchange_release(x, reason);
    x->state = RP_X_ENDED;
    x->outcome = outcome;
    if (reason != RP_REASON_NONE) {
        x->reason = reason;
        x->detail = detail;
    }
}

/* Ends with an error: as an answer of the proxy's own if nothing was sent, else visibly broken. */
static void fail(rp_exchange *x, rp_reason reason, const char *detail)
{
    rp_exchange_finish(x, x->head_done ? RP_OUTCOME_BROKEN : RP_OUTCOME_ERROR, reason, detail);
}

void rp_exchange_end(rp_exchange *x, rp_reason reason)
{
    fail(x, reason, NULL);
}

int rp_exchange_client_left(rp_exchange *x)
{
    x->client_gone = 1;
    if (x->settings->ignore_client_abort && x->state != RP_X_TUNNEL) {
        return 1;
    }
    if (x->state == RP_X_TUNNEL) {
        /* A tunnel has no end that it could miss. */
        rp_exchange_finish(x, RP_OUTCOME_DONE, RP_REASON_CLIENT_GONE, NULL);
        return 0;
    }
    fail(x, RP_REASON_CLIENT_GONE, NULL);
    return 0;
}

/* ---- attempts -------------------------------------------------------------------------------- */

/* Also once more for an attempt that has waited for a member. */
static void begin_attempt(rp_exchange *x, apr_time_t now)
{
    rp_reason reason = RP_REASON_NONE;

    x->state = RP_X_CONNECT;
    x->attempt_at = x->progress_at = now;
    x->connected_at = x->answered_at = 0;
    if (x->member && (reason = rp_exchange_choose_member(x, now)) != RP_REASON_NONE) {
        fail(x, reason, NULL);
        return;
    }
    if (x->state == RP_X_QUEUE) {
        return;
    }
    x->attempts++;
    /* What makes another attempt may be wrong with all idle connections. */
    x->conn = rp_conn_acquire(x->endpoint, x->shelf, x->attempts > 1);
    x->reused = rp_conn_is_reused(x->conn);
    x->request_done = x->send_broken = x->any_byte_sent = 0;
    x->upstream_hup = 0;
    x->in = NULL;
    x->in_len = x->in_scanned = 0;
    x->interim_count = 0;
    x->sent_body = (apr_int64_t)x->body_kept.len;
    rp_exchange_queue_request(x);
}

/* Nonzero if the request can be sent once more, with every byte of its body. */
static int is_replayable(const rp_exchange *x)
{
    return !x->head_done && (x->keep_body || x->request->framing == RP_BODY_NONE
                             || x->body_read == 0);
}

static int wants_retry(const rp_exchange *x, rp_reason reason)
{
    const rp_retry *retry = &x->settings->retry;

    switch (reason) {
    case RP_REASON_CONNECT_TIMEOUT:
    case RP_REASON_FIRST_BYTE_TIMEOUT:
        return (retry->on & RP_RETRY_TIMEOUT) != 0;
    case RP_REASON_DNS_ERROR:
    case RP_REASON_DNS_TIMEOUT:
    case RP_REASON_REFUSED:
    case RP_REASON_UNROUTABLE:
    case RP_REASON_CONNECT_FAILED:
    case RP_REASON_CLOSED_EARLY:
        return (retry->on & RP_RETRY_ERROR) != 0;
    case RP_REASON_TLS_PROTOCOL:
        /* A handshake that broke off is a connection that was not made. */
        return (retry->on & RP_RETRY_ERROR) != 0 && x->state == RP_X_CONNECT;
    default:
        return 0;
    }
}

/* Nonzero if repeating cannot do harm: idempotent, asked for, or no byte reached the upstream. */
static int is_safe_to_repeat(const rp_exchange *x)
{
    return !x->any_byte_sent || x->settings->retry.any_method
        || rp_method_is_idempotent(x->request->method);
}

void rp_exchange_attempt_failed(rp_exchange *x, rp_reason reason, const char *detail)
{
    apr_time_t now = rp_exchange_now(x);
    unsigned int is_replay;

    if (x->client_gone || !is_replayable(x) || !is_safe_to_repeat(x)) {
        fail(x, reason, detail);
        return;
    }
    /* The upstream closed the idle connection while the request was on its way. */
    is_replay = reason == RP_REASON_CLOSED_EARLY && x->reused && !x->replayed;
    if ((!is_replay && (!wants_retry(x, reason)
                        || x->attempts - x->replayed >= x->settings->retry.tries))
        || !rp_exchange_may_retry(x)) {
        fail(x, reason, detail);
        return;
    }
    x->replayed |= is_replay;
    x->reason = reason;
    x->detail = detail;
    drop_connection(x, 0, reason);
    begin_attempt(x, now);
}

int rp_exchange_retries_status(rp_exchange *x)
{
    const rp_retry *retry = &x->settings->retry;

    for (int i = 0; i < RP_RETRY_STATUS_MAX && retry->statuses[i]; i++) {
        if (retry->statuses[i] == x->response.status) {
            if (x->client_gone || !is_replayable(x) || !is_safe_to_repeat(x)
                || x->attempts - x->replayed >= retry->tries || !rp_exchange_may_retry(x)) {
                return 0;
            }
            x->answered_at = rp_exchange_now(x);
            drop_connection(x, 0, RP_REASON_NONE);
            begin_attempt(x, rp_exchange_now(x));
            return 1;
        }
    }
    return 0;
}

/* ---- deadlines ------------------------------------------------------------------------------- */

static apr_time_t earlier(apr_time_t deadline, apr_time_t from, apr_interval_time_t limit,
                          rp_reason reason, rp_reason *which)
{
    if (limit == 0 || (deadline != 0 && deadline <= from + limit)) {
        return deadline;
    }
    *which = reason;
    return from + limit;
}

/* The next point in time at which something is too late, and what that will be called. */
static apr_time_t next_deadline(const rp_exchange *x, rp_reason *which)
{
    const rp_timeouts *limits = &x->settings->timeouts;
    apr_time_t deadline = 0;

    *which = RP_REASON_NONE;
    switch (x->state) {
    case RP_X_QUEUE:
        break;
    case RP_X_CONNECT:
        deadline = earlier(0, x->attempt_at, limits->connect, RP_REASON_CONNECT_TIMEOUT, which);
        break;
    case RP_X_RELAY:
        if (x->request_done && !x->head_done && x->in_len == 0) {
            deadline = earlier(0, x->sent_at, limits->first_byte, RP_REASON_FIRST_BYTE_TIMEOUT,
                               which);
        }
        else {
            int on_client = x->want_client_write
                || (x->want_client_read && !x->want_upstream_write);

            deadline = earlier(0, x->progress_at, limits->idle,
                               on_client ? RP_REASON_CLIENT_TIMEOUT : RP_REASON_IDLE_TIMEOUT,
                               which);
        }
        break;
    case RP_X_TUNNEL:
        deadline = earlier(0, x->progress_at, limits->tunnel, RP_REASON_TUNNEL_TIMEOUT, which);
        return earlier(deadline, 0, x->drain_by, RP_REASON_TUNNEL_TIMEOUT, which);
    case RP_X_ENDED:
        return 0;
    }
    return earlier(deadline, x->started, limits->total, RP_REASON_TOTAL_TIMEOUT, which);
}

static void check_deadline(rp_exchange *x, apr_time_t now)
{
    rp_reason which;
    apr_time_t deadline = next_deadline(x, &which);

    if (deadline == 0 || now < deadline) {
        return;
    }
    if (which == RP_REASON_CONNECT_TIMEOUT && rp_conn_is_resolving(x->conn)) {
        which = RP_REASON_DNS_TIMEOUT;
    }
    if (which == RP_REASON_TUNNEL_TIMEOUT) {
        rp_exchange_finish(x, RP_OUTCOME_DONE, which, NULL);
    }
    else if (which == RP_REASON_CONNECT_TIMEOUT || which == RP_REASON_FIRST_BYTE_TIMEOUT
             || which == RP_REASON_DNS_TIMEOUT) {
        rp_exchange_attempt_failed(x, which, NULL);
    }
    else {
        fail(x, which, NULL);
    }
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void queue_step(rp_exchange *x, apr_time_t now)
{
    /* What is waited for is somebody else's as soon as there is a member. */
    x->ops->detach(x->client);
    begin_attempt(x, now);
}

static void connect_step(rp_exchange *x, apr_time_t now)
{
    const char *detail;

    switch (rp_conn_connect(x->conn)) {
    case RP_IO_DONE:
        if (x->connect_time < 0) {
            x->connect_time = now - x->started;
        }
        x->progress_at = x->connected_at = now;
        x->state = RP_X_RELAY;
        break;
    case RP_IO_AGAIN:
        break;
    default: {
        rp_reason reason = rp_conn_reason(x->conn, &detail);

        rp_exchange_attempt_failed(x, reason, apr_pstrdup(x->pool, detail));
        break;
    }
    }
}

rp_reason rp_exchange_start(rp_exchange *x)
{
    rp_reason reason;

    x->started = rp_exchange_now(x);
    x->queue_time = x->connect_time = x->first_byte_time = -1;
    x->peer = "";
    x->outcome = RP_OUTCOME_RUNNING;
    x->keep_body = x->request->framing != RP_BODY_NONE
        && (x->settings->retry.any_method || rp_method_is_idempotent(x->request->method));
    rp_buffer_init(&x->body_kept, x->pool, 0);
    reason = x->member ? RP_REASON_NONE : rp_exchange_write_head(x);
    if (reason != RP_REASON_NONE) {
        fail(x, reason, "the request cannot be written as HTTP/1.1");
        return reason;
    }
    x->state = RP_X_CONNECT;
    return RP_REASON_NONE;
}

int rp_exchange_begin(rp_exchange *x, int *fd, const char **data, apr_size_t *len,
                      apr_ssize_t **result)
{
    if (x->attempts != 0 || x->state != RP_X_CONNECT) {
        return 0;
    }
    begin_attempt(x, rp_exchange_now(x));
    if (x->state != RP_X_CONNECT || !x->reused || (*fd = rp_conn_fd(x->conn)) < 0) {
        return 0;
    }
    *data = x->wire.data;
    *len = x->wire.len;
    *result = rp_conn_sent_ahead(x->conn);
    return x->request->framing == RP_BODY_NONE;
}

/* A body may be spliced, or be more than is worth a copy. */
rp_ahead **rp_exchange_reads(rp_exchange *x)
{
    return x->state == RP_X_RELAY && !x->head_done && !x->client_blocked
        ? rp_conn_ahead(x->conn) : NULL;
}

rp_outcome rp_exchange_step(rp_exchange *x, int upstream_ready)
{
    apr_time_t now = rp_exchange_now(x);
    int again;

    x->yielded = 0;
    if (x->attempts == 0 && x->state == RP_X_CONNECT) {
        /* Not in rp_exchange_start(): an idle connection is its shelf's until it is used. */
        begin_attempt(x, now);
    }
    do {
        rp_exchange_state before = x->state;
        int attempts = x->attempts;

        x->want_upstream_read = x->want_upstream_write = 0;
        x->want_client_read = x->want_client_write = 0;
        switch (x->state) {
        case RP_X_QUEUE:
            queue_step(x, now);
            break;
        case RP_X_CONNECT:
            connect_step(x, now);
            upstream_ready = 0;
            break;
        case RP_X_RELAY:
            rp_exchange_relay_step(x, now, upstream_ready);
            break;
        case RP_X_TUNNEL:
            rp_exchange_tunnel_step(x, now);
            break;
        case RP_X_ENDED:
            return x->outcome;
        }
        if (x->state == before && x->attempts == attempts) {
            /* Only now: what came in time is taken, however late this thread got to it. */
            check_deadline(x, now);
        }
        again = x->state != before || x->attempts != attempts;
    } while (again);
    return x->outcome;
}

void rp_exchange_waits(const rp_exchange *x, rp_waits *waits)
{
    rp_reason which;
    apr_time_t conn_time = 0;

    if (x->state == RP_X_QUEUE) {
        waits->fds[0] = rp_exchange_queue_wait(x, &conn_time);
        waits->count = 1;
    }
    else {
        waits->count = rp_conn_waits(x->conn, x->want_upstream_read, x->want_upstream_write,
                                     waits->fds, &conn_time);
    }
    waits->client_read = x->want_client_read;
    waits->client_write = x->want_client_write;
    waits->again = x->yielded;
    waits->deadline = next_deadline(x, &which);
    if (conn_time != 0 && (waits->deadline == 0 || conn_time < waits->deadline)) {
        waits->deadline = conn_time;
    }
}
