/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Streams of HTTP/2: their life, and the exchange of each. */

#include <stddef.h>
#include "httpd.h"
#include "rproxy/engine/rp_access_log.h"
#include "rproxy/engine/rp_h2_private.h"

/* ---- streams --------------------------------------------------------------------------------- */

static void stream_expired(rp_loop_timer *timer);
static void upstream_answers(rp_engine_request *q, int upstream_ready);

rp_h2_stream *rp_h2_new_stream(rp_h2_session *session, int32_t id)
{
    rp_downstream *d = session->d;
    rp_h2_stream *stream = rp_engine_new_request(&d->engine->h2_streams, d, sizeof(*stream));

    stream->base.step = upstream_answers;
    stream->base.request.major_version = 2;
    stream->base.keep_alive = 1;
    stream->base.server = d->c->base_server;
    stream->timer.expired = stream_expired;
    stream->session = session;
    stream->id = id;
    stream->open = 1;
    rp_fields_init(&stream->base.request.fields, stream->base.pool, 16);
    rp_fields_init(&stream->request_trailers, stream->base.pool, 0);
    stream->next = session->streams;
    stream->link = &session->streams;
    if (stream->next) {
        stream->next->link = &stream->next;
    }
    session->streams = stream;
    session->stream_count++;
    session->any_stream = 1;
    return stream;
}

static void forget_due(rp_h2_stream *stream)
{
    rp_h2_session *session = stream->session;
    rp_h2_stream **link = &session->due;

    if (!stream->is_due) {
        return;
    }
    while (*link != stream) {
        link = &(*link)->next_due;
    }
    *link = stream->next_due;
    if (!*link) {
        session->due_end = link;
    }
    stream->is_due = 0;
    session->due_count--;
}

static void drop_stream(rp_h2_stream *stream)
{
    rp_h2_session *session = stream->session;

    forget_due(stream);
    rp_loop_drop_timer(session->d->loop, &stream->timer);
    rp_h2_drop_bytes(stream);
    *stream->link = stream->next;
    if (stream->next) {
        stream->next->link = stream->link;
    }
    session->stream_count--;
    session->abandoned -= !stream->open;
    session->idle_since = session->d->loop->now;
    rp_engine_drop_request(&session->d->engine->h2_streams, &stream->base);
}

void rp_h2_make_ready(rp_h2_session *session)
{
    rp_downstream_again(session->d);
}

void rp_h2_make_due(rp_h2_stream *stream)
{
    rp_h2_session *session = stream->session;

    if (!stream->is_due) {
        stream->is_due = 1;
        stream->next_due = NULL;
        *session->due_end = stream;
        session->due_end = &stream->next_due;
        session->due_count++;
        rp_h2_make_ready(session);
    }
}

rp_h2_stream *rp_h2_next_due(rp_h2_session *session)
{
    rp_h2_stream *stream = session->due;

    if (stream) {
        forget_due(stream);
    }
    return stream;
}

void rp_h2_reset(rp_h2_stream *stream, uint32_t error)
{
    if (stream->open) {
        nghttp2_submit_rst_stream(stream->session->ng, NGHTTP2_FLAG_NONE, stream->id, error);
        rp_h2_make_ready(stream->session);
    }
}

void rp_h2_finish_stream(rp_h2_stream *stream)
{
    rp_engine_request *q = &stream->base;

    if (q->the_request) {
        q->d->c->keepalives++;
        rp_engine_count_in(q->d->c, (apr_off_t)stream->wire_in);
        rp_engine_count_out(q->d->c, (apr_off_t)stream->wire_out);
        rp_access_log_write(q->d->engine->log, q);
    }
    drop_stream(stream);
}

/* ---- the exchange of a stream ---------------------------------------------------------------- */

/* Nothing of the proxy's holds the stream any more: the client takes what there is, in time. */
static void be_over(rp_h2_stream *stream)
{
    stream->over = 1;
    rp_h2_expect_progress(stream);
}

void rp_h2_expect_progress(rp_h2_stream *stream)
{
    rp_engine_request *q = &stream->base;

    rp_loop_set_timer(q->d->loop, &stream->timer, q->d->loop->now + q->server->timeout);
}

void rp_h2_end_exchange(rp_h2_stream *stream)
{
    rp_engine_request *q = &stream->base;
    rp_exchange *x = &q->x;

    rp_engine_account(q);
    be_over(stream);
    if (x->outcome != RP_OUTCOME_DONE && x->outcome != RP_OUTCOME_REPLACED) {
        rp_access_log_failure(q->d->engine->log, q);
    }
    if (!stream->open) {
        rp_h2_finish_stream(stream);
        return;
    }
    switch (x->outcome) {
    case RP_OUTCOME_DONE:
        if (!stream->out_ended) {
            rp_h2_end_output(stream);   /* a tunnel whose time is over */
        }
        break;
    case RP_OUTCOME_REPLACED:
        rp_h2_answer(stream, x->response.status / 100 == 2 ? HTTP_BAD_GATEWAY
                                                           : x->response.status);
        break;
    case RP_OUTCOME_ERROR:
        rp_h2_answer(stream, q->body_status ? q->body_status
                                            : rp_reason_get(x->reason)->http_status);
        break;
    default:
        if (stream->piece_count > 0) {
            stream->broken = 1;
            rp_h2_end_output(stream);
        }
        else {
            rp_h2_reset(stream, NGHTTP2_INTERNAL_ERROR);
        }
        break;
    }
}

/* Closing what the upstream still works on takes longer than anything else that a client can ask
 * for with a few bytes: not here, where it may be one of a hundred. */
void rp_h2_lose_client(rp_h2_stream *stream)
{
    stream->session->abandoned += stream->open;
    stream->open = 0;
    if (stream->over || !stream->base.in_exchange) {
        rp_h2_finish_stream(stream);
    }
    else {
        rp_h2_make_due(stream);
    }
}

/* Nonzero if that has ended the exchange, and the stream. */
static int has_left(rp_h2_stream *stream)
{
    if (stream->open || stream->left) {
        return 0;
    }
    stream->left = 1;
    if (rp_engine_client_left(&stream->base)) {
        rp_h2_end_exchange(stream);
        return 1;
    }
    stream->base.x.client_gone = 1;     /* the upstream gets all of it */
    return 0;
}

void rp_h2_step(rp_h2_stream *stream, int upstream_ready)
{
    rp_engine_request *q = &stream->base;
    int again;

    stream->answers = 0;
    if (stream->over || has_left(stream)) {
        return;
    }
    if (rp_exchange_step(&q->x, upstream_ready) != RP_OUTCOME_RUNNING) {
        rp_h2_end_exchange(stream);
        return;
    }
    rp_loop_set_timer(q->d->loop, &stream->timer, rp_engine_wait(q, &again));
    if (again) {
        rp_h2_make_due(stream);
    }
}

/* rp_engine_request.step */
static void upstream_answers(rp_engine_request *q, int upstream_ready)
{
    rp_h2_stream *stream = (rp_h2_stream *)q;

    if (q->d->costly) {
        stream->answers |= upstream_ready != 0;
        rp_h2_make_due(stream);
    }
    else {
        rp_h2_step(stream, upstream_ready);
    }
}

static void stream_expired(rp_loop_timer *timer)
{
    rp_h2_stream *stream = (rp_h2_stream *)((char *)timer - offsetof(rp_h2_stream, timer));
    rp_engine_request *q = &stream->base;

    if (stream->answered) {
        rp_h2_reset(stream, NGHTTP2_NO_ERROR);
        return;
    }
    if (stream->over) {
        q->write_failed = 1;            /* the client doesn't take what is left of the answer */
        rp_h2_reset(stream, NGHTTP2_CANCEL);
        return;
    }
    if (!q->in_exchange) {
        /* Its head doesn't end, and nothing else may come before that. */
        stream->session->ending = 1;
        nghttp2_session_terminate_session(stream->session->ng, NGHTTP2_ENHANCE_YOUR_CALM);
        rp_h2_make_ready(stream->session);
        return;
    }
    if (rp_engine_is_body_late(q)) {
        rp_h2_end_exchange(stream);
        return;
    }
    rp_h2_step(stream, stream->answers);
}

/* The client repeats the request on a connection of its own (RFC 9113 section 7). The log says
 * "misdirected", which is what a status would be: it isn't sent, since clients would come back with
 * HTTP/2. */
static void require_http1(rp_h2_stream *stream)
{
    stream->base.response.status = HTTP_MISDIRECTED_REQUEST;
    stream->base.head_sent = 1;
    rp_h2_reset(stream, NGHTTP2_HTTP_1_1_REQUIRED);
}

void rp_h2_begin_exchange(rp_h2_stream *stream)
{
    int status = rp_h2_take_head(stream);

    if (status == 0) {
        if (rp_exchange_start(&stream->base.x) != RP_REASON_NONE) {
            rp_h2_end_exchange(stream);
            return;
        }
        rp_h2_make_due(stream);
        return;
    }
    be_over(stream);
    if (status > 0) {
        rp_h2_answer(stream, status);
    }
    else if (status == RP_H2_HEAD_FOR_HTTP1) {
        require_http1(stream);
    }
    else {
        rp_h2_reset(stream, NGHTTP2_PROTOCOL_ERROR);
    }
}
