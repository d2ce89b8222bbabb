/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The exchange's client in HTTP/2. Nothing is written here: frames are submitted, and the session
 * writes those of all its streams at the end of the round. */

#include <stdlib.h>
#include <string.h>
#include <apr_strings.h>
#include "httpd.h"
#include "rproxy/engine/rp_h2_private.h"
#include "rproxy/pipeline/rp_stats.h"

#define FRAME_HEAD 9                    /* bytes (RFC 9113 section 4.1) */

/* ---- request body ---------------------------------------------------------------------------- */

int rp_h2_take_body(rp_h2_stream *stream, const uint8_t *bytes, apr_size_t len)
{
    apr_size_t held = stream->body_len - stream->body_off;

    if (held + len > RP_H2_WINDOW) {
        return 0;
    }
    if (stream->body && stream->body_len + len > stream->body_size) {
        memmove(stream->body, stream->body + stream->body_off, held);
        stream->body_len = held;
        stream->body_off = 0;
    }
    if (!stream->body || held + len > stream->body_size) {
        apr_size_t size = stream->body_size ? stream->body_size : RP_LOOP_BLOCK / 4;
        char *memory;

        while (size < held + len) {
            size *= 2;
        }
        memory = realloc(stream->body, size);
        if (!memory) {
            abort();
        }
        stream->body = memory;
        stream->body_size = size;
    }
    memcpy(stream->body + stream->body_len, bytes, len);
    stream->body_len += len;
    return 1;
}

static void drop_body(rp_h2_stream *stream)
{
    free(stream->body);
    stream->body = NULL;
    stream->body_len = stream->body_off = stream->body_size = 0;
}

static rp_io client_read(void *client, char *buffer, apr_size_t size, apr_size_t *got)
{
    rp_h2_stream *stream = client;
    rp_engine_request *q = &stream->base;
    apr_size_t held = stream->body_len - stream->body_off;

    *got = 0;
    if (stream->malformed) {
        return rp_engine_fail_body(q, HTTP_BAD_REQUEST);
    }
    *got = held < size ? held : size;
    if (*got == 0) {
        /* nghttp2 sees to it that the length is kept. */
        int complete = stream->in_ended
            || (!q->tunnel && q->request.framing == RP_BODY_LENGTH
                && q->body_bytes == q->request.content_length);

        if (!complete) {
            return stream->open ? RP_IO_AGAIN : RP_IO_FAILED;
        }
        if (stream->request_trailers.count > 0) {
            if (!rp_engine_allows_trailers(q, &stream->request_trailers)) {
                return rp_engine_fail_body(q, HTTP_BAD_REQUEST);
            }
            q->trailers = &stream->request_trailers;
        }
        q->body_ended = 1;
        return RP_IO_EOF;
    }
    memcpy(buffer, stream->body + stream->body_off, *got);
    stream->body_off += *got;
    if (stream->body_off == stream->body_len) {
        drop_body(stream);
    }
    stream->expects_100 = 0;            /* who sends the body doesn't wait for a 100 */
    if (stream->open) {
        nghttp2_session_consume_stream(stream->session->ng, stream->id, *got);
        rp_h2_make_ready(stream->session);
    }
    return q->tunnel ? RP_IO_DONE : rp_engine_count_body(q, *got, RP_IO_DONE);
}

static const rp_fields *client_request_trailers(void *client)
{
    rp_h2_stream *stream = client;

    return stream->base.trailers;
}

/* ---- heads ----------------------------------------------------------------------------------- */

static rp_io client_interim(void *client, int status, const rp_fields *fields)
{
    rp_h2_stream *stream = client;

    if (status == 100) {
        if (!stream->expects_100) {
            return RP_IO_DONE;          /* one that this client did not ask for stays here */
        }
        stream->expects_100 = 0;
    }
    return !stream->open || rp_h2_submit_interim(stream, status, fields) ? RP_IO_DONE
                                                                         : RP_IO_FAILED;
}

static rp_head_verdict client_head(void *client, const rp_response *response,
                                   const rp_fields *fields, int body_unread)
{
    rp_h2_stream *stream = client;
    rp_engine_request *q = &stream->base;
    rp_fields *all = &q->response_fields;
    int switches = response->status == 101;

    (void)body_unread;
    *all = *fields;                     /* its items have room for more, and nobody else's use */
    if (!switches
        && rp_error_override_covers(q->route->dir->error_override, response->status)) {
        return RP_HEAD_REPLACE;
    }
    if (stream->protocol && !switches && response->status / 100 == 2) {
        return RP_HEAD_REPLACE;         /* to this client it would say that the tunnel is open */
    }
    q->response = *response;
    if (switches) {
        rp_fields_remove(all, RP_FIELD_CONNECTION);
        rp_fields_remove(all, RP_FIELD_UPGRADE);
        if (rp_fields_find(all, "Sec-WebSocket-Accept")) {
            rp_fields_remove_at(all, (int)(rp_fields_find(all, "Sec-WebSocket-Accept")
                                           - all->items));
        }
    }
    else {
        rp_engine_complete_fields(q, response, all);
    }
    q->head_sent = 1;
    /* Whether a body follows shows in finish(): where none comes, an empty DATA frame ends the
     * stream, unless it is known here. */
    if (!stream->open
        || !rp_h2_submit_head(stream, switches ? 200 : response->status, all,  /* RFC 8441 */
                              switches || (response->framing != RP_BODY_NONE
                                           && response->content_length != 0))) {
        return RP_HEAD_FAILED;
    }
    return RP_HEAD_RELAY;
}

/* ---- response body --------------------------------------------------------------------------- */

static char *client_reserve(void *client, apr_size_t *size)
{
    rp_h2_stream *stream = client;

    *size = RP_LOOP_BUFFER;
    return rp_loop_buffer_get(stream->base.d->loop);
}

static void client_release(void *client, char *buffer)
{
    rp_h2_stream *stream = client;

    rp_loop_buffer_put(stream->base.d->loop, buffer);
}

static void drop_piece(rp_h2_stream *stream)
{
    if (stream->pieces[0].buffer) {
        rp_loop_buffer_put(stream->base.d->loop, stream->pieces[0].buffer);
    }
    free(stream->pieces[0].copy);
    stream->piece_count--;
    for (int i = 0; i < stream->piece_count; i++) {
        stream->pieces[i] = stream->pieces[i + 1];
    }
}

void rp_h2_drop_bytes(rp_h2_stream *stream)
{
    drop_body(stream);
    while (stream->piece_count > 0) {
        drop_piece(stream);
    }
}

/* There is something for nghttp2 to send. */
static void resume(rp_h2_stream *stream)
{
    if (stream->open && stream->deferred) {
        stream->deferred = 0;
        nghttp2_session_resume_data(stream->session->ng, stream->id);
    }
    rp_h2_make_ready(stream->session);
}

static rp_io client_send(void *client, char *buffer, char *data, apr_size_t len)
{
    rp_h2_stream *stream = client;
    rp_h2_piece piece = { buffer, NULL, data, len };

    stream->base.sent_body += (apr_int64_t)len;
    if (!stream->open) {
        client_release(client, buffer);
        return RP_IO_FAILED;
    }
    if (len <= RP_H2_SMALL) {
        piece.copy = piece.data = malloc(len);
        if (!piece.copy) {
            abort();
        }
        memcpy(piece.copy, data, len);
        piece.buffer = NULL;
        client_release(client, buffer);
    }
    stream->pieces[stream->piece_count++] = piece;
    resume(stream);
    return stream->piece_count < RP_H2_PIECES ? RP_IO_DONE : RP_IO_AGAIN;
}

static rp_io client_flush(void *client, int push)
{
    rp_h2_stream *stream = client;

    (void)push;
    if (!stream->open) {
        return RP_IO_FAILED;
    }
    return stream->piece_count < RP_H2_PIECES ? RP_IO_DONE : RP_IO_AGAIN;
}

void rp_h2_end_output(rp_h2_stream *stream)
{
    stream->out_ended = 1;
    resume(stream);
}

static rp_io client_finish(void *client, const rp_fields *trailers)
{
    rp_h2_stream *stream = client;

    stream->response_trailers = trailers;
    rp_h2_end_output(stream);
    return stream->open ? RP_IO_DONE : RP_IO_FAILED;
}

static void client_tunnel(void *client)
{
    rp_h2_stream *stream = client;

    stream->base.tunnel = 1;
    rp_engine_bound_tunnel(&stream->base);
    rp_stats_add(RP_STAT_TUNNELS, 1);
}

static void client_end_write(void *client)
{
    rp_h2_end_output(client);
}

const rp_client_ops rp_h2_client_ops = {
    .read = client_read,
    .request_trailers = client_request_trailers,
    .interim = client_interim,
    .head = client_head,
    .reserve = client_reserve,
    .release = client_release,
    .send = client_send,
    .flush = client_flush,
    .finish = client_finish,
    .tunnel = client_tunnel,
    .end_write = client_end_write,
    .detach = rp_engine_detach
};

/* ---- what nghttp2 asks for ------------------------------------------------------------------- */

static ssize_t read_body(nghttp2_session *ng, int32_t id, uint8_t *ignored, size_t most,
                         uint32_t *flags, nghttp2_data_source *source, void *baton)
{
    rp_h2_stream *stream = nghttp2_session_get_stream_user_data(ng, id);
    apr_size_t held = 0;

    (void)ignored;
    (void)source;
    (void)baton;
    if (!stream) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    for (int i = 0; i < stream->piece_count; i++) {
        held += stream->pieces[i].len;
    }
    if (held == 0 && stream->broken) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;   /* RST_STREAM behind what there was */
    }
    if (held == 0 && !stream->out_ended) {
        stream->deferred = 1;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (held > most) {
        held = most;
    }
    else if (stream->out_ended && !stream->broken) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (stream->response_trailers) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            rp_h2_submit_trailers(stream, stream->response_trailers);
        }
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    return (ssize_t)held;
}

const nghttp2_data_provider rp_h2_body = { .read_callback = read_body };

int rp_h2_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head,
                    size_t length, nghttp2_data_source *source, void *baton)
{
    rp_h2_session *session = baton;
    rp_h2_stream *stream = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    char *out = session->out + session->out_end;

    (void)source;
    if (!stream) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (RP_LOOP_BUFFER - session->out_end < FRAME_HEAD + length) {
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    memcpy(out, head, FRAME_HEAD);
    out += FRAME_HEAD;
    session->out_end += (unsigned int)(FRAME_HEAD + length);
    stream->wire_out += (apr_int64_t)(FRAME_HEAD + length);
    rp_h2_earn(session);
    while (length > 0) {
        rp_h2_piece *piece = &stream->pieces[0];
        apr_size_t part = piece->len < length ? piece->len : length;

        memcpy(out, piece->data, part);
        out += part;
        length -= part;
        piece->data += part;
        piece->len -= part;
        if (piece->len == 0) {
            drop_piece(stream);
        }
    }
    if (stream->over) {
        rp_h2_expect_progress(stream);
    }
    else if (stream->base.x.client_blocked && stream->piece_count < RP_H2_PIECES) {
        stream->session->yielding = 1;
        rp_h2_make_due(stream);
    }
    return 0;
}
