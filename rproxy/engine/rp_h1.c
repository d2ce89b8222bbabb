/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "rproxy/engine/rp_access_log.h"
#include "rproxy/engine/rp_h1.h"
#include "rproxy/engine/rp_h2.h"
#include "rproxy/engine/rp_h1_private.h"
#include "rproxy/engine/rp_handover.h"
#include "rproxy/pipeline/rp_park_timer.h"

static void serve(rp_downstream *d);
static void step_request(rp_engine_request *q, int upstream_ready);

/* ---- requests -------------------------------------------------------------------------------- */

static rp_h1_request *new_request(rp_downstream *d)
{
    rp_h1_request *q = rp_engine_new_request(&d->engine->h1_requests, d, sizeof(*q));

    q->base.step = step_request;
    d->session = q;
    return q;
}

void rp_h1_drop_request(rp_h1_request *q)
{
    q->base.d->session = NULL;
    rp_h1_drop_output(q);
    rp_engine_drop_request(&q->base.d->engine->h1_requests, &q->base);
}

void rp_h1_end(rp_engine_loop *engine)
{
    for (int i = 0; i < engine->pipe_count; i++) {
        close(engine->pipes[i][0]);
        close(engine->pipes[i][1]);
    }
    engine->pipe_count = 0;
}

/* ---- waiting for a request ------------------------------------------------------------------- */

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
            due = rp_engine_read_deadline(&host->head, d->head_began,
                                          (apr_int64_t)(d->in_end - d->in_start));
        }
        if (due == 0 || due > now + server->timeout) {
            due = now + server->timeout;
        }
    }
    rp_downstream_trim(d);
    rp_downstream_set_deadline(d, due);
}

/* ---- waiting for the exchange ---------------------------------------------------------------- */

static void wait_for_exchange(rp_h1_request *q)
{
    int again;

    rp_downstream_set_deadline(q->base.d, rp_engine_wait(&q->base, &again));
    if (again) {
        rp_downstream_again(q->base.d);
    }
}

/* ---- the end of a request -------------------------------------------------------------------- */

/* Everything is written, or never will be. */
static void end_request(rp_h1_request *q, int close)
{
    rp_downstream *d = q->base.d;

    rp_access_log_write(d->engine->log, &q->base);
    close |= !q->base.keep_alive || rp_park_timer_draining_since() || d->ended;
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
        rp_downstream_set_deadline(q->base.d, q->base.d->loop->now + q->base.host->server->timeout);
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
    rp_downstream_again(q->base.d);
}

/* The client must see that the response broke off: what has no length looks complete unless the
 * connection is reset. */
static void break_off(rp_h1_request *q)
{
    rp_downstream *d = q->base.d;
    int reset = q->close_delimited;

    rp_access_log_failure(d->engine->log, &q->base);
    if (!q->base.write_failed) {
        rp_h1_write(q);
    }
    rp_access_log_write(d->engine->log, &q->base);
    rp_h1_drop_request(q);
    rp_downstream_abort(d, reset);
}

static void end_exchange(rp_h1_request *q)
{
    rp_exchange *x = &q->base.x;

    rp_engine_account(&q->base);
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
        rp_handover_outcome(q->base.d, q);
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
    else if (rp_exchange_step(&q->base.x, upstream_ready) == RP_OUTCOME_RUNNING) {
        wait_for_exchange(q);
    }
    else {
        end_exchange(q);
    }
}

static void step_request(rp_engine_request *q, int upstream_ready)
{
    step((rp_h1_request *)q, upstream_ready);
}

/* ---- the beginning of a request -------------------------------------------------------------- */

/* Nonzero: the exchange was started. */
static int start_exchange(rp_h1_request *q)
{
    if (!rp_engine_prepare_exchange(&q->base, &rp_h1_client_ops)) {
        return 0;
    }
    q->body_left = q->base.request.framing == RP_BODY_LENGTH ? q->base.request.content_length : 0;
    if (q->base.request.framing == RP_BODY_CHUNKED) {
        rp_chunked_init(&q->chunked, q->base.pool);
    }
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
    if (q->base.request.framing == RP_BODY_NONE) {
        rp_downstream_trim(d);
    }
    if (rp_exchange_start(&q->base.x) == RP_REASON_NONE) {
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

/* Nonzero if the connection speaks HTTP/2 with prior knowledge: the first bytes tell, and as long
 * as they don't, d->may_be_http2 stays. */
static int speaks_http2(rp_downstream *d)
{
    apr_size_t held = d->in_end - d->in_start;
    apr_size_t len = held < RP_H2_PREFACE_LEN ? held : RP_H2_PREFACE_LEN;
    int fits = len == 0 || memcmp(d->in + d->in_start, RP_H2_PREFACE, len) == 0;

    d->may_be_http2 = fits && len < RP_H2_PREFACE_LEN;
    return fits && len == RP_H2_PREFACE_LEN;
}

/* Looks for the next request in what was read, and reads as long as there is none. */
static void serve(rp_downstream *d)
{
    while (d->state == RP_DOWN_OPEN && !d->session) {
        apr_size_t scanned, head_len = 0;
        rp_http_error error;

        if (d->may_be_http2 && speaks_http2(d)) {
            d->protocol = &rp_h2_protocol;
            d->protocol->ready(d);
            return;
        }
        skip_empty_lines(d);
        scanned = d->scanned;
        if (d->in_start < d->in_end && !d->may_be_http2) {
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

/* Nonzero if the client's leaving has ended the exchange: there is no one to go on for. */
static int client_left(rp_h1_request *q)
{
    if (q->finishing || q->base.tunnel
        || (q->base.request.framing != RP_BODY_NONE && !q->base.body_ended
            && q->base.d->readable)) {
        return 0;                       /* writing or reading tells */
    }
    return rp_engine_client_left(&q->base);
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
    step(q, q->base.x.yielded);
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
        q->base.x.outcome = RP_OUTCOME_BROKEN;
        q->base.x.reason = RP_REASON_CLIENT_TIMEOUT;
        break_off(q);
    }
    else if (rp_engine_is_body_late(&q->base)) {
        end_exchange(q);
    }
    else {
        step(q, 0);
    }
}

static void drain(rp_downstream *d)
{
    rp_h1_request *q = d->session;

    if (!q && d->in_start == d->in_end && !d->readable && d->requests > 0) {
        rp_downstream_close(d);         /* a new one has been promised an answer */
    }
    else if (q && q->base.tunnel) {
        rp_engine_bound_tunnel(&q->base);
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

    if (q->base.in_exchange) {
        rp_exchange_end(&q->base.x, RP_REASON_CLIENT_GONE);
        rp_engine_account(&q->base);
        rp_access_log_write(d->engine->log, &q->base);
    }
    rp_h1_drop_request(q);
}

const rp_protocol rp_h1_protocol = { ready, rp_h1_prepare, expired, drain, returned, closed };
