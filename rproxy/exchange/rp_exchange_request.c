/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The request's way to the upstream: head, body, chunked coding, trailers. Bytes go through the
 * wire buffer: the head alone for requests without a body (no copy), else the client's bytes are
 * read straight behind room for the head and a chunk-size line. */

#include <string.h>
#include "rproxy/exchange/rp_exchange_private.h"

/* Puts body bytes in line; they may lie in the wire buffer's room, behind that for a chunk head. */
static void frame_body(rp_exchange *x, const char *data, apr_size_t len)
{
    char chunk_head[RP_CHUNK_HEAD_MAX];

    if (x->request->framing == RP_BODY_CHUNKED) {
        rp_buffer_add(&x->wire, chunk_head, rp_chunk_head(chunk_head, len));
        rp_buffer_add(&x->wire, data, len);
        rp_buffer_add(&x->wire, "\r\n", 2);
    }
    else {
        rp_buffer_add(&x->wire, data, len);
    }
}

/* Zero: the request has trailers that must not be sent on. */
static int end_body(rp_exchange *x)
{
    return x->request->framing != RP_BODY_CHUNKED
        || rp_chunk_last(&x->wire, x->ops->request_trailers(x->client)) == RP_HTTP_OK;
}

void rp_exchange_queue_request(rp_exchange *x)
{
    if (x->request->framing == RP_BODY_NONE) {
        x->wire = x->head;
    }
    else {
        if (!x->wire.data) {
            rp_buffer_init(&x->wire, x->pool, x->head.len + RP_CHUNK_HEAD_MAX + RP_BODY_READ + 2);
        }
        x->wire.len = 0;
        rp_buffer_add(&x->wire, x->head.data, x->head.len);
        if (x->body_kept.len > 0) {
            frame_body(x, x->body_kept.data, x->body_kept.len);
        }
        if (x->client_eof) {
            end_body(x);
        }
    }
    x->wire_off = 0;
}

rp_io rp_exchange_flush_wire(rp_exchange *x, apr_time_t now)
{
    while (x->wire_off < x->wire.len) {
        struct iovec vector = { x->wire.data + x->wire_off, x->wire.len - x->wire_off };
        apr_size_t written = 0;
        rp_io io = rp_conn_write(x->conn, &vector, 1, &written);

        if (io != RP_IO_DONE) {
            return io;
        }
        x->wire_off += written;
        x->progress_at = now;
        x->any_byte_sent = 1;
    }
    x->wire_off = x->wire.len = 0;
    return RP_IO_DONE;
}

static void keep_for_replay(rp_exchange *x, const char *data, apr_size_t len)
{
    if (x->body_kept.len + len > RP_REPLAY_BODY_MAX) {
        x->keep_body = 0;
        return;
    }
    rp_buffer_add(&x->body_kept, data, len);
}

/* Nonzero if the body, read so far, cannot have or cannot reach the length that was announced:
 * input filters may change it. What is too much would be the upstream's next request. */
static int is_wrong_length(const rp_exchange *x, int ended)
{
    return x->request->framing == RP_BODY_LENGTH
        && (x->body_read > x->request->content_length
            || (ended && x->body_read < x->request->content_length));
}

/* Reads body bytes behind what is in the wire buffer already (at most the head). */
static rp_io read_body(rp_exchange *x, apr_time_t now)
{
    apr_size_t before = x->request->framing == RP_BODY_CHUNKED ? RP_CHUNK_HEAD_MAX : 0;
    char *room = x->wire.data + x->wire.len + before;
    apr_size_t size = x->wire.capacity - x->wire.len - before - 2;
    apr_size_t got = 0;
    rp_io io = x->ops->read(x->client, room, size, &got);

    switch (io) {
    case RP_IO_DONE:
        x->body_read += (apr_int64_t)got;
        if (is_wrong_length(x, 0)) {
            return RP_IO_FAILED;
        }
        x->progress_at = now;
        x->sent_body += (apr_int64_t)got;
        if (x->keep_body) {
            keep_for_replay(x, room, got);
        }
        frame_body(x, room, got);
        break;
    case RP_IO_EOF:
        if (is_wrong_length(x, 1)) {
            return RP_IO_FAILED;
        }
        x->client_eof = 1;
        if (!end_body(x)) {
            return RP_IO_FAILED;
        }
        break;
    default:
        break;
    }
    return io;
}

static void request_sent(rp_exchange *x, apr_time_t now)
{
    x->request_done = 1;
    x->sent_at = now;
}

int rp_exchange_pump_request(rp_exchange *x, apr_time_t now)
{
    int has_body = x->request->framing != RP_BODY_NONE;
    apr_int64_t before = x->body_read;

    for (int round = 0; !x->request_done; round++) {
        int fits = x->wire_off == 0
            && x->wire.len + RP_CHUNK_HEAD_MAX + RP_BODY_READ / 2 + 2 <= x->wire.capacity;

        if (round == RP_SEND_ROUNDS || rp_exchange_yields(x, x->body_read - before)) {
            return 1;
        }
        if (has_body && !x->client_eof && fits) {
            switch (read_body(x, now)) {
            case RP_IO_AGAIN:
                x->want_client_read = 1;
                break;
            case RP_IO_FAILED:
                rp_exchange_finish(x, x->head_done ? RP_OUTCOME_BROKEN : RP_OUTCOME_ERROR,
                                   RP_REASON_REQUEST_BODY, NULL);
                return 0;
            default:
                x->want_client_read = 0;
                break;
            }
        }
        switch (rp_exchange_flush_wire(x, now)) {
        case RP_IO_AGAIN:
            x->want_upstream_write = 1;
            x->want_client_read = 0;
            return 0;
        case RP_IO_DONE:
            break;
        default:
            /* It no longer reads; what it had to say may still be on its way to us. */
            x->send_broken = 1;
            x->want_client_read = 0;
            request_sent(x, now);
            return 0;
        }
        if (!has_body || x->client_eof) {
            request_sent(x, now);
        }
        else if (x->want_client_read) {
            return 0;
        }
    }
    return 0;
}

void rp_exchange_relay_step(rp_exchange *x, apr_time_t now, int upstream_ready)
{
    int sent_before = x->request_done;
    int more;

    do {
        more = rp_exchange_pump_request(x, now);
        if (x->state != RP_X_RELAY) {
            return;
        }
        if (!sent_before && x->request_done && !upstream_ready && !x->send_broken
            && !x->head_done) {
            /* Just sent: an answer can't be there yet, so save the read that would say so. */
            x->want_upstream_read = 1;
            return;
        }
        /* An upload that flows without a pause must not hide an answer that is there already. */
        rp_exchange_pump_response(x, now);
        if (more && x->budget) {
            x->yielded = 1;
        }
        now = more ? rp_exchange_now(x) : now;
    } while (more && !x->yielded && x->state == RP_X_RELAY);
}
