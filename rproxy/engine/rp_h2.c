/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A connection that speaks HTTP/2: what comes is given to nghttp2, whose callbacks begin and end
 * streams; what is to be sent is gathered from it at the end of a round of the loop, for all
 * streams at once.
 *
 * No callback writes, and none steps an exchange: a stream that has something to do is due, and is
 * stepped when the bytes that came have all been looked at. */

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "httpd.h"
#include "http_log.h"
#include "rproxy/engine/rp_access_log.h"
#include "rproxy/engine/rp_h2_private.h"
#include "rproxy/pipeline/rp_park_timer.h"
#include "rproxy/pipeline/rp_stats.h"

APLOG_USE_MODULE(rproxy);

#define STREAMS_KEPT 256                /* free streams of a loop, each with a pool of 8 KiB */
#define READ_ROUNDS 16                  /* reads before others have their turn */
#define FRAME_MOST 16402                /* bytes that nghttp2 may hand out at once */
#define CONNECTION_WINDOW (1 << 24)     /* streams' own windows bound what waits */
#define GOAWAY_NOTICE apr_time_from_msec(500)   /* from the announcement to the last GOAWAY */
#define LINGER apr_time_from_sec(1)     /* a request body may go on behind its answer */
#define REFILL apr_time_from_sec(1)

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
    [RP_H2_MALFORMED] = { 100, 10 }
};

/* ---- streams --------------------------------------------------------------------------------- */

static void stream_expired(rp_loop_timer *timer);
static void step_stream(rp_engine_request *q, int upstream_ready);

static rp_h2_stream *new_stream(rp_h2_session *session, int32_t id)
{
    rp_engine_loop *engine = session->d->engine;
    rp_h2_stream *stream = engine->free_streams;
    apr_pool_t *pool;

    if (stream) {
        engine->free_streams = stream->next;
        engine->free_stream_count--;
        pool = stream->base.pool;
        memset(stream, 0, sizeof(*stream));
    }
    else {
        apr_pool_create(&pool, session->d->loop->pool);
        stream = calloc(1, sizeof(*stream));
        if (!stream) {
            abort();
        }
    }
    stream->base.pool = pool;
    stream->base.d = session->d;
    stream->base.step = step_stream;
    stream->base.major_version = 2;
    stream->base.keep_alive = 1;
    stream->base.began = session->d->loop->now;
    stream->base.server = session->d->c->base_server;
    stream->timer.expired = stream_expired;
    stream->session = session;
    stream->id = id;
    stream->open = 1;
    rp_fields_init(&stream->base.request.fields, pool, 16);
    rp_fields_init(&stream->request_trailers, pool, 0);
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
    rp_h2_stream **link = &stream->session->due;

    while (stream->is_due && *link) {
        if (*link == stream) {
            *link = stream->next_due;
            stream->is_due = 0;
            return;
        }
        link = &(*link)->next_due;
    }
}

static void drop_stream(rp_h2_stream *stream)
{
    rp_h2_session *session = stream->session;
    rp_engine_loop *engine = session->d->engine;

    forget_due(stream);
    rp_loop_drop_timer(session->d->loop, &stream->timer);
    rp_h2_drop_bytes(stream);
    *stream->link = stream->next;
    if (stream->next) {
        stream->next->link = stream->link;
    }
    session->stream_count--;
    session->idle_since = session->d->loop->now;
    apr_pool_clear(stream->base.pool);
    if (engine->free_stream_count < STREAMS_KEPT) {
        stream->next = engine->free_streams;
        engine->free_streams = stream;
        engine->free_stream_count++;
    }
    else {
        apr_pool_destroy(stream->base.pool);
        free(stream);
    }
}

void rp_h2_end(rp_engine_loop *engine)
{
    while (engine->free_streams) {
        rp_h2_stream *stream = engine->free_streams;

        engine->free_streams = stream->next;
        free(stream);
    }
    engine->free_stream_count = 0;
}

void rp_h2_make_ready(rp_h2_session *session)
{
    rp_downstream_again(session->d);
}

void rp_h2_make_due(rp_h2_stream *stream)
{
    if (!stream->is_due) {
        stream->is_due = 1;
        stream->next_due = stream->session->due;
        stream->session->due = stream;
        rp_h2_make_ready(stream->session);
    }
}

void rp_h2_reset(rp_h2_stream *stream, uint32_t error)
{
    if (stream->open) {
        nghttp2_submit_rst_stream(stream->session->ng, NGHTTP2_FLAG_NONE, stream->id, error);
        rp_h2_make_ready(stream->session);
    }
}

/* One line of the access log, when both the exchange and the client are done with it. */
static void finish_stream(rp_h2_stream *stream)
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

static void end_exchange(rp_h2_stream *stream)
{
    rp_engine_request *q = &stream->base;
    rp_exchange *x = &q->x;

    rp_engine_account(q);
    stream->over = 1;
    rp_loop_set_timer(q->d->loop, &stream->timer, q->d->loop->now + q->host->server->timeout);
    if (x->outcome != RP_OUTCOME_DONE && x->outcome != RP_OUTCOME_REPLACED) {
        rp_access_log_failure(q->d->engine->log, q);
    }
    if (!stream->open) {
        stream->session->abandoned -= x->client_gone && x->settings->ignore_client_abort;
        finish_stream(stream);
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

/* The client has gone: what goes on nevertheless does so without it. */
static void lose_client(rp_h2_stream *stream)
{
    rp_engine_request *q = &stream->base;

    stream->open = 0;
    if (stream->over || !q->in_exchange) {
        finish_stream(stream);
    }
    else if (rp_engine_client_left(q)) {
        end_exchange(stream);
    }
    else {
        q->x.client_gone = 1;           /* the upstream gets all of it */
        stream->session->abandoned++;
        rp_h2_make_due(stream);
    }
}

static void step_stream(rp_engine_request *q, int upstream_ready)
{
    rp_h2_stream *stream = (rp_h2_stream *)q;
    int again;

    if (stream->over) {
        return;
    }
    if (rp_exchange_step(&q->x, upstream_ready) != RP_OUTCOME_RUNNING) {
        end_exchange(stream);
        return;
    }
    rp_loop_set_timer(q->d->loop, &stream->timer, rp_engine_wait(q, &again));
    if (again) {
        rp_h2_make_due(stream);
    }
}

static void stream_expired(rp_loop_timer *timer)
{
    rp_h2_stream *stream = (rp_h2_stream *)((char *)timer - offsetof(rp_h2_stream, timer));
    rp_engine_request *q = &stream->base;
    apr_time_t due;

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
    due = rp_engine_body_deadline(q);
    if (due && due <= q->d->loop->now) {
        q->body_status = HTTP_REQUEST_TIME_OUT;
        rp_exchange_end(&q->x, RP_REASON_REQUEST_BODY);
        end_exchange(stream);
        return;
    }
    step_stream(q, 0);
}

static void begin_exchange(rp_h2_stream *stream)
{
    int status = rp_h2_take_head(stream);

    if (status == 0) {
        if (rp_exchange_start(&stream->base.x) != RP_REASON_NONE) {
            end_exchange(stream);
            return;
        }
        rp_h2_make_due(stream);
        return;
    }
    stream->over = 1;
    rp_loop_set_timer(stream->base.d->loop, &stream->timer,
                      stream->base.d->loop->now + stream->base.server->timeout);
    if (status > 0) {
        rp_h2_answer(stream, status);
    }
    else {
        rp_h2_reset(stream, NGHTTP2_PROTOCOL_ERROR);
    }
}

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

int rp_h2_tolerates(rp_h2_session *session, rp_h2_nuisance nuisance)
{
    if (session->budget[nuisance] > 0) {
        session->budget[nuisance]--;
        return 1;
    }
    refill(session);
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

/* When the head that begins now has to be complete. */
static apr_time_t head_deadline(const rp_h2_session *session)
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
        stream = new_stream(session, frame->hd.stream_id);
        rp_loop_set_timer(session->d->loop, &stream->timer, head_deadline(session));
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
    (void)baton;
    if (stream) {
        rp_h2_add_field(stream, name, value);
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
        begin_exchange(stream);
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
    lose_client(stream);
    return 0;
}

/* ---- the session ----------------------------------------------------------------------------- */

static rp_h2_session *open_session(rp_downstream *d)
{
    static const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, RP_H2_STREAMS },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, RP_H2_WINDOW },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, RP_HTTP_HEAD_MAX },
        { NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1 },
        { NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1 }
    };
    rp_h2_session *session = calloc(1, sizeof(*session));

    if (!session || nghttp2_session_server_new2(&session->ng, callbacks, session, options) != 0) {
        free(session);
        return NULL;
    }
    session->d = d;
    session->idle_since = session->refilled_at = d->loop->now;
    session->preface_by = head_deadline(session);
    for (int i = 0; i < RP_H2_NUISANCES; i++) {
        session->budget[i] = tolerance[i].most;
    }
    nghttp2_submit_settings(session->ng, NGHTTP2_FLAG_NONE, settings,
                            sizeof(settings) / sizeof(settings[0]));
    nghttp2_session_set_local_window_size(session->ng, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
    d->session = session;
    d->multiplexed = 1;
    return session;
}

static void drop_out(rp_h2_session *session)
{
    if (session->out) {
        rp_loop_buffer_put(session->d->loop, session->out);
        session->out = NULL;
    }
}

/* Gathers frames as long as there is room for the next one. */
static void gather(rp_h2_session *session)
{
    if (!session->out) {
        session->out = rp_loop_buffer_get(session->d->loop);
        session->out_start = session->out_end = 0;
    }
    while (RP_LOOP_BUFFER - session->out_end >= FRAME_MOST) {
        const uint8_t *frames;
        ssize_t len = nghttp2_session_mem_send(session->ng, &frames);

        if (len <= 0) {
            session->ending |= len < 0;
            return;
        }
        memcpy(session->out + session->out_end, frames, (apr_size_t)len);
        session->out_end += (unsigned int)len;
    }
}

static rp_io write_out(rp_h2_session *session)
{
    while (session->out_start < session->out_end) {
        struct iovec vector = { session->out + session->out_start,
                                session->out_end - session->out_start };
        apr_size_t written = 0;
        rp_io io = rp_downstream_write(session->d, &vector, 1, &written);

        if (io != RP_IO_DONE) {
            return io;
        }
        session->out_start += (unsigned int)written;
        session->progress_at = session->d->loop->now;
    }
    session->out_start = session->out_end = 0;
    return rp_downstream_flush(session->d);
}

/* Sends what there is. RP_IO_AGAIN: the client doesn't take it now. */
static rp_io send_all(rp_h2_session *session)
{
    rp_io io = RP_IO_DONE;

    do {
        gather(session);
        if (session->out_end == 0) {
            break;
        }
        io = write_out(session);
    } while (io == RP_IO_DONE);
    if (session->out_end == 0) {
        drop_out(session);
    }
    if (!session->blocked) {
        session->progress_at = session->d->loop->now;
    }
    session->blocked = io == RP_IO_AGAIN;
    return io;
}

/* Zero: the connection is over. */
static int feed(rp_h2_session *session, const char *bytes, apr_size_t len)
{
    ssize_t used = nghttp2_session_mem_recv(session->ng, (const uint8_t *)bytes, len);

    if (used == (ssize_t)len) {
        return 1;
    }
    /* Garbage instead of the preface, or no memory: there is no frame to answer it with. */
    return 0;
}

/* Zero: the connection is over. */
static int read_all(rp_h2_session *session)
{
    rp_downstream *d = session->d;
    char *block;
    int fine = 1, rounds = 0;

    if (d->in_start < d->in_end) {
        fine = feed(session, d->in + d->in_start, d->in_end - d->in_start);
        d->in_start = d->in_end = 0;
        rp_downstream_trim(d);
    }
    block = rp_loop_block_get(d->loop);
    while (fine && d->readable && rounds++ < READ_ROUNDS) {
        apr_size_t got = 0;
        rp_io io = rp_downstream_read(d, block, RP_LOOP_BLOCK, &got);

        if (io == RP_IO_DONE) {
            fine = feed(session, block, got);
        }
        else if (io != RP_IO_AGAIN) {
            fine = 0;
        }
    }
    rp_loop_block_put(d->loop, block);
    if (fine && d->readable) {
        rp_downstream_again(d);
    }
    return fine;
}

static void step_due(rp_h2_session *session)
{
    rp_h2_stream *due = session->due;

    session->due = NULL;
    while (due) {
        rp_h2_stream *stream = due;

        due = stream->next_due;
        stream->is_due = 0;
        /* What the next step does to the others does not reach this list: they are in it, or put
         * themselves on the session's. */
        step_stream(&stream->base, stream->base.x.yielded);
    }
}

static void set_deadline(rp_h2_session *session)
{
    rp_downstream *d = session->d;
    const server_rec *server = d->c->base_server;
    apr_time_t due = 0;

    if (session->blocked) {
        due = session->progress_at + server->timeout;
    }
    else if (session->stream_count == 0) {
        due = session->idle_since + server->keep_alive_timeout;
        if (!session->any_stream) {
            due = session->preface_by;
        }
    }
    if (session->goaway_at && (!due || session->goaway_at < due)) {
        due = session->goaway_at;
    }
    rp_downstream_set_deadline(d, due);
}

/* The client has gone, with what waits for it. */
static void lose_all(rp_h2_session *session)
{
    rp_h2_stream *next;

    session->lost = 1;
    session->ending = 1;
    session->goaway_at = 0;
    drop_out(session);
    for (rp_h2_stream *stream = session->streams; stream; stream = next) {
        next = stream->next;
        if (stream->open) {
            nghttp2_session_set_stream_user_data(session->ng, stream->id, NULL);
            lose_client(stream);
        }
    }
    rp_downstream_set_deadline(session->d, 0);
}

static void drain(rp_downstream *d);

static void ready(rp_downstream *d)
{
    rp_h2_session *session = d->session ? d->session : open_session(d);
    int fine;

    if (!session) {
        rp_downstream_abort(d, 0);
        return;
    }
    if (!session->any_stream && rp_park_timer_draining_since()) {
        drain(d);
    }
    fine = session->lost || read_all(session);
    if (!fine && d->ended) {
        lose_all(session);
    }
    step_due(session);
    if (session->lost) {
        if (session->stream_count == 0) {
            rp_downstream_abort(d, 0);
        }
        return;
    }
    if (fine && send_all(session) == RP_IO_FAILED) {
        fine = 0;
    }
    if (!fine) {
        send_all(session);              /* a GOAWAY that says why */
        rp_downstream_close(d);
        return;
    }
    if (!session->blocked && !session->due
        && ((!nghttp2_session_want_read(session->ng) && !nghttp2_session_want_write(session->ng))
            || (session->ending && session->stream_count == 0))) {
        rp_downstream_close(d);
        return;
    }
    set_deadline(session);
}

/* ---- the protocol ---------------------------------------------------------------------------- */

static void expired(rp_downstream *d)
{
    rp_h2_session *session = d->session;

    if (session->goaway_at && d->loop->now >= session->goaway_at) {
        session->goaway_at = 0;
        session->ending = 1;
        nghttp2_submit_goaway(session->ng, NGHTTP2_FLAG_NONE,
                              nghttp2_session_get_last_proc_stream_id(session->ng),
                              NGHTTP2_NO_ERROR, NULL, 0);
        ready(d);
        return;
    }
    if (session->blocked && d->loop->now >= session->progress_at + d->c->base_server->timeout) {
        rp_downstream_abort(d, 0);
        return;
    }
    if (!session->blocked && session->stream_count == 0) {
        nghttp2_session_terminate_session(session->ng, NGHTTP2_NO_ERROR);
        session->ending = 1;
    }
    ready(d);
}

/* Announces the end; what the client sends until it has learnt of it is still served. */
static void drain(rp_downstream *d)
{
    rp_h2_session *session = d->session;

    if (!session) {
        return;                         /* its first round does it */
    }
    for (rp_h2_stream *stream = session->streams; stream; stream = stream->next) {
        if (stream->base.tunnel && !stream->over) {
            rp_engine_bound_tunnel(&stream->base);
            rp_h2_make_due(stream);
        }
    }
    if (!session->goaway_at && !session->ending) {
        nghttp2_submit_shutdown_notice(session->ng);
        session->goaway_at = d->loop->now + GOAWAY_NOTICE;
        rp_h2_make_ready(session);
    }
}

static void returned(rp_downstream *d)
{
    rp_downstream_abort(d, 0);          /* nothing is handed over */
}

static void closed(rp_downstream *d)
{
    rp_h2_session *session = d->session;

    for (rp_h2_stream *stream = session->streams, *next; stream; stream = next) {
        next = stream->next;
        stream->open = 0;
        if (!stream->over && stream->base.in_exchange) {
            stream->base.x.client_gone = 1;
            rp_exchange_end(&stream->base.x, RP_REASON_CLIENT_GONE);
            end_exchange(stream);
        }
        else {
            finish_stream(stream);
        }
    }
    nghttp2_session_del(session->ng);
    drop_out(session);
    free(session);
    d->session = NULL;
}

const rp_protocol rp_h2_protocol = { ready, expired, drain, returned, closed };

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
