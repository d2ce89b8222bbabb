/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What nghttp2 tells of a connection's frames, and how many of some kinds a client may send. */

#include "httpd.h"
#include "http_log.h"
#include "rproxy/engine/rp_h2_private.h"
#include "rproxy/pipeline/rp_stats.h"

APLOG_USE_MODULE(rproxy);

#define LINGER apr_time_from_sec(1)     /* a request body may go on behind its answer */
#define REFILL apr_time_from_sec(1)
#define HEAD_MOST (2 * RP_HTTP_HEAD_MAX)    /* bytes of a head that is read to its end */

static nghttp2_session_callbacks *callbacks;
static nghttp2_option *options;

_Static_assert((int)RP_H2_NUISANCES == RP_STAT_H2_NUISANCE_COUNT, "each has a name");

/* What a client may do at once and again each second. */
static const struct {
    int most, each_second;
} tolerance[RP_H2_NUISANCES] = {
    [RP_H2_RESET] = { 200, 20 },
    [RP_H2_SETTINGS] = { 20, 2 },
    [RP_H2_PING] = { 100, 10 },
    [RP_H2_EMPTY] = { 100, 10 },
    [RP_H2_PRIORITY] = { 500, 100 },
    [RP_H2_WINDOW_UPDATE] = { 5000, 500 },
    [RP_H2_MALFORMED] = { 100, 10 },
    [RP_H2_CONTINUATION] = { 0, 0 },
    [RP_H2_HEAD] = { 0, 0 }
};

/* ---- nuisances ------------------------------------------------------------------------------- */

static void refill(rp_h2_session *session)
{
    apr_interval_time_t passed = session->d->loop->now - session->refilled_at;
    int seconds = passed > 60 * REFILL ? 60 : (int)(passed / REFILL);

    if (seconds == 0) {
        return;
    }
    session->refilled_at = session->d->loop->now;
    for (int i = 0; i < RP_H2_NUISANCES; i++) {
        session->budget[i] += seconds * tolerance[i].each_second;
        if (session->budget[i] > tolerance[i].most) {
            session->budget[i] = tolerance[i].most;
        }
    }
}

void rp_h2_earn(rp_h2_session *session)
{
    if (session->budget[RP_H2_WINDOW_UPDATE] < tolerance[RP_H2_WINDOW_UPDATE].most) {
        session->budget[RP_H2_WINDOW_UPDATE] += 4;
    }
    session->budget[RP_H2_PING] += session->budget[RP_H2_PING] < tolerance[RP_H2_PING].most;
}

static int has_spent_much(const rp_h2_session *session, rp_h2_nuisance nuisance)
{
    return session->budget[nuisance] < tolerance[nuisance].most * 7 / 8;
}

void rp_h2_forgive(rp_h2_session *session)
{
    refill(session);
    session->d->costly = 0;
    for (int i = 0; i < RP_H2_NUISANCES; i++) {
        session->d->costly |= has_spent_much(session, (rp_h2_nuisance)i) != 0;
    }
}

int rp_h2_tolerates(rp_h2_session *session, rp_h2_nuisance nuisance)
{
    if (has_spent_much(session, nuisance)) {
        refill(session);
        session->d->costly |= has_spent_much(session, nuisance) != 0;
    }
    if (session->budget[nuisance] > 0) {
        session->budget[nuisance]--;
        return 1;
    }
    if (!session->ending) {
        rp_stats_add(RP_STAT_H2_NUISANCES + (int)nuisance, 1);
        ap_log_cerror(APLOG_MARK, APLOG_INFO, 0, session->d->c,
                      "RP0604: an HTTP/2 connection ends since its client sends too many: %s",
                      rp_stats_h2_nuisances[nuisance]);
        nghttp2_session_terminate_session(session->ng, NGHTTP2_ENHANCE_YOUR_CALM);
        session->ending = 1;
        rp_h2_make_ready(session);
    }
    return 0;
}

apr_time_t rp_h2_head_deadline(const rp_h2_session *session)
{
    const rp_engine_host *host = rp_eligible_host(session->d->c->base_server);
    apr_time_t now = session->d->loop->now;
    apr_time_t due = host ? rp_engine_read_deadline(&host->head, now, 0) : 0;

    return due ? due : now + session->d->c->base_server->timeout;
}

/* ---- callbacks of nghttp2 -------------------------------------------------------------------- */

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *baton)
{
    rp_h2_session *session = baton;
    rp_h2_stream *stream;

    if (frame->hd.type != NGHTTP2_HEADERS) {
        return 0;
    }
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        if (session->abandoned >= RP_H2_STREAMS || session->ending) {
            nghttp2_submit_rst_stream(ng, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                      NGHTTP2_REFUSED_STREAM);
            return 0;
        }
        stream = rp_h2_new_stream(session, frame->hd.stream_id);
        rp_loop_set_timer(session->d->loop, &stream->timer, rp_h2_head_deadline(session));
        nghttp2_session_set_stream_user_data(ng, frame->hd.stream_id, stream);
        return 0;
    }
    stream = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    if (stream) {
        stream->in_trailers = 1;
        stream->head_size = 0;
    }
    return 0;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, nghttp2_rcbuf *name,
                     nghttp2_rcbuf *value, uint8_t flags, void *baton)
{
    rp_h2_stream *stream = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);

    (void)flags;
    if (!stream) {
        return 0;
    }
    rp_h2_add_field(stream, name, value);
    if (stream->head_size > HEAD_MOST) {
        /* Not even the table of its fields is kept right: that alone would take milliseconds. */
        rp_h2_tolerates(baton, RP_H2_HEAD);
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return 0;
}

/* nghttp2 would only leave it out. */
static int on_invalid_header(nghttp2_session *ng, const nghttp2_frame *frame, nghttp2_rcbuf *name,
                             nghttp2_rcbuf *value, uint8_t flags, void *baton)
{
    rp_h2_stream *stream = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);

    (void)name;
    (void)value;
    (void)flags;
    (void)baton;
    if (stream) {
        stream->malformed = 1;
    }
    return 0;
}

static void on_end_of_head(rp_h2_stream *stream, int ends)
{
    if (!stream->in_trailers) {
        stream->in_ended |= ends != 0;
        rp_h2_begin_exchange(stream);
        return;
    }
    if (stream->malformed || stream->too_large) {
        stream->malformed = 1;          /* the upstream must not see the end of it */
        rp_h2_reset(stream, NGHTTP2_PROTOCOL_ERROR);
    }
    else {
        stream->in_ended |= ends != 0;
    }
    if (!stream->over) {
        rp_h2_make_due(stream);
    }
}

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *baton)
{
    rp_h2_session *session = baton;
    rp_h2_stream *stream = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    int ends = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;

    if (stream) {
        stream->wire_in += (apr_int64_t)frame->hd.length + 9;
    }
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        if (stream && (frame->hd.flags & NGHTTP2_FLAG_END_HEADERS)) {
            on_end_of_head(stream, ends);
        }
        break;
    case NGHTTP2_DATA:
        if (stream && ends) {
            stream->in_ended = 1;
            if (!stream->over) {
                rp_h2_make_due(stream);
            }
        }
        if (frame->hd.length == frame->data.padlen && !ends) {
            rp_h2_tolerates(session, RP_H2_EMPTY);
        }
        break;
    case NGHTTP2_RST_STREAM:
        rp_h2_tolerates(session, RP_H2_RESET);
        break;
    case NGHTTP2_SETTINGS:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) {
            rp_h2_tolerates(session, RP_H2_SETTINGS);
        }
        break;
    case NGHTTP2_PING:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) {
            rp_h2_tolerates(session, RP_H2_PING);
        }
        break;
    case NGHTTP2_PRIORITY:
    case NGHTTP2_PRIORITY_UPDATE:
        rp_h2_tolerates(session, RP_H2_PRIORITY);
        break;
    case NGHTTP2_WINDOW_UPDATE:
        rp_h2_tolerates(session, RP_H2_WINDOW_UPDATE);
        break;
    default:
        break;
    }
    return 0;
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *bytes,
                   size_t len, void *baton)
{
    rp_h2_stream *stream = nghttp2_session_get_stream_user_data(ng, id);

    (void)flags;
    (void)baton;
    nghttp2_session_consume_connection(ng, len);
    if (!stream || stream->over) {
        nghttp2_session_consume_stream(ng, id, len);
        return 0;
    }
    if (!rp_h2_take_body(stream, bytes, len)) {
        rp_h2_reset(stream, NGHTTP2_FLOW_CONTROL_ERROR);
        return 0;
    }
    rp_h2_make_due(stream);
    return 0;
}

/* Streams that the client makes us reset cost as much as those that it resets. */
static int is_clients_fault(uint32_t error)
{
    return error != NGHTTP2_NO_ERROR && error != NGHTTP2_REFUSED_STREAM
        && error != NGHTTP2_INTERNAL_ERROR && error != NGHTTP2_CANCEL;
}

/* An answer is complete before its request: the rest of that is of no use (RFC 9113 section 8.1),
 * but clients there are that forget the answer when they are told so at once. */
static int on_frame_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *baton)
{
    rp_h2_session *session = baton;
    rp_h2_stream *stream;

    if (frame->hd.type == NGHTTP2_RST_STREAM && is_clients_fault(frame->rst_stream.error_code)) {
        rp_h2_tolerates(session, RP_H2_MALFORMED);
    }
    if ((frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS)
        || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM)) {
        return 0;
    }
    stream = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    if (stream && !stream->in_ended) {
        stream->answered = 1;
        rp_loop_set_timer(session->d->loop, &stream->timer, session->d->loop->now + LINGER);
    }
    return 0;
}

static int on_close(nghttp2_session *ng, int32_t id, uint32_t error, void *baton)
{
    rp_h2_session *session = baton;
    rp_h2_stream *stream = nghttp2_session_get_stream_user_data(ng, id);

    if (!stream) {
        return 0;
    }
    nghttp2_session_set_stream_user_data(ng, id, NULL);
    rp_h2_make_ready(session);
    stream->base.write_failed |= error != NGHTTP2_NO_ERROR && stream->over;
    rp_h2_lose_client(stream);
    return 0;
}

int rp_h2_open(rp_h2_session *session)
{
    for (int i = 0; i < RP_H2_NUISANCES; i++) {
        session->budget[i] = tolerance[i].most;
    }
    session->refilled_at = session->d->loop->now;
    return nghttp2_session_server_new2(&session->ng, callbacks, session, options) == 0;
}

/* ---- life ------------------------------------------------------------------------------------ */

static apr_status_t forget(void *ignored)
{
    (void)ignored;
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(options);
    callbacks = NULL;
    options = NULL;
    return APR_SUCCESS;
}

apr_status_t rp_h2_init(apr_pool_t *pool)
{
    if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&options) != 0) {
        return APR_ENOMEM;
    }
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback2(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, rp_h2_send_data);
    nghttp2_option_set_no_auto_window_update(options, 1);
    nghttp2_option_set_no_closed_streams(options, 1);
    nghttp2_option_set_builtin_recv_extension_type(options, NGHTTP2_PRIORITY_UPDATE);
    apr_pool_cleanup_register(pool, NULL, forget, apr_pool_cleanup_null);
    return APR_SUCCESS;
}
