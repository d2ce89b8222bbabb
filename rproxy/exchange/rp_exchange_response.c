/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The response's way to the client: heads (interim ones too), body, framing, trailers. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE                     /* memmem */
#endif
#include <errno.h>
#include <string.h>
#include <apr_errno.h>
#include <apr_lib.h>
#include "rproxy/exchange/rp_exchange_private.h"

#define RP_PEER_IDLE_MAX 86400          /* seconds; a longer Keep-Alive: timeout= tells nothing */

/* What became of bytes that were read. */
typedef enum taken {
    TAKEN_ALL,                          /* more is needed */
    TAKEN_HEAD,                         /* a final head; the rest of the bytes is body */
    TAKEN_END                           /* the state changed or the exchange ended */
} taken;

static void bad_response(rp_exchange *x, const char *detail)
{
    rp_exchange_finish(x, x->head_done ? RP_OUTCOME_BROKEN : RP_OUTCOME_ERROR,
                       RP_REASON_BAD_RESPONSE, detail);
}

/* ---- heads ----------------------------------------------------------------------------------- */

/* An upgrade that we asked for, to what we asked for, and nothing else, becomes a tunnel. */
static void switch_protocols(rp_exchange *x)
{
    const rp_field *upgrade = rp_fields_get(&x->response.fields, RP_FIELD_UPGRADE, 0);
    rp_fields fields;

    if (!x->upgrade_protocol || !upgrade || strcasecmp(upgrade->value, x->upgrade_protocol) != 0) {
        rp_exchange_finish(x, RP_OUTCOME_ERROR, RP_REASON_BAD_UPGRADE, NULL);
        return;
    }
    rp_exchange_answer_fields(x, &fields);
    x->head_done = 1;
    if (x->ops->head(x->client, &x->response, &fields, 0) != RP_HEAD_RELAY) {
        rp_exchange_finish(x, RP_OUTCOME_BROKEN, RP_REASON_CLIENT_GONE, NULL);
        return;
    }
    x->ops->tunnel(x->client);
    x->client_eof = x->upstream_eof = 0;
    x->state = RP_X_TUNNEL;
}

static void interim_response(rp_exchange *x, apr_time_t now)
{
    x->sent_at = now;
    if (!x->client_gone) {
        rp_fields fields;

        rp_exchange_map_fields(x, &fields);
        x->ops->interim(x->client, x->response.status, &fields);
    }
}

/* The peer's word on how long it keeps an idle connection. */
static void learn_keep_alive(rp_exchange *x)
{
    const rp_field *field = rp_fields_get(&x->response.fields, RP_FIELD_KEEP_ALIVE, 0);
    const char *at = field ? field->value : "";
    int seconds = 0;

    while (*at && strncasecmp(at, "timeout=", 8) != 0) {
        at += strcspn(at, ",");
        at += strspn(at, ", \t");
    }
    if (!*at || at[8] < '0' || at[8] > '9') {
        return;
    }
    for (at += 8; *at >= '0' && *at <= '9' && seconds < RP_PEER_IDLE_MAX; at++) {
        seconds = seconds * 10 + (*at - '0');
    }
    if (seconds < RP_PEER_IDLE_MAX) {
        rp_conn_set_peer_idle(x->conn, apr_time_from_sec(seconds));
    }
}

static taken final_response(rp_exchange *x, apr_time_t now)
{
    const rp_field *buffering;
    rp_fields fields;

    if (rp_exchange_retries_status(x)) {
        return TAKEN_END;
    }
    x->answered_at = now;
    if (x->first_byte_time < 0) {
        x->first_byte_time = now - x->started;
    }
    learn_keep_alive(x);
    buffering = rp_fields_get(&x->response.fields, RP_FIELD_X_ACCEL_BUFFERING, 0);
    x->hold_back = buffering && strcasecmp(buffering->value, "yes") == 0;
    x->body_left = x->response.framing == RP_BODY_LENGTH ? x->response.content_length : 0;
    if (x->response.framing == RP_BODY_CHUNKED) {
        rp_chunked_init(&x->chunked, x->pool);
    }
    if (x->client_gone) {
        x->head_done = 1;
        return TAKEN_HEAD;
    }
    rp_exchange_answer_fields(x, &fields);
    switch (x->ops->head(x->client, &x->response, &fields, !x->request_done || x->send_broken)) {
    case RP_HEAD_RELAY:
        x->head_done = 1;
        x->unflushed = 1;
        return TAKEN_HEAD;
    case RP_HEAD_REPLACE:
        rp_exchange_finish(x, RP_OUTCOME_REPLACED, RP_REASON_NONE, NULL);
        return TAKEN_END;
    default:
        x->head_done = 1;
        rp_exchange_finish(x, RP_OUTCOME_BROKEN, RP_REASON_CLIENT_GONE, NULL);
        return TAKEN_END;
    }
}

/* A complete head is in x->in. */
static taken take_head(rp_exchange *x, apr_time_t now)
{
    x->in = NULL;
    x->in_len = x->in_scanned = 0;
    if (x->response.status >= 200) {
        return final_response(x, now);
    }
    if (x->response.status == 101) {
        switch_protocols(x);
        return TAKEN_END;
    }
    if (++x->interim_count > RP_INTERIM_MAX) {
        bad_response(x, "too many interim responses");
        return TAKEN_END;
    }
    interim_response(x, now);
    return TAKEN_ALL;
}

/* Adds bytes to the head so far: up to and including its end if that is in sight, else all. Returns
 * how many of len were used. */
static apr_size_t gather_head(rp_exchange *x, const char *data, apr_size_t len)
{
    apr_size_t take = len;

    if (x->in_len == 0) {
        const char *end = memmem(data, len, "\r\n\r\n", 4);
        apr_size_t capacity;

        if (end) {
            take = (apr_size_t)(end - data) + 4;
        }
        capacity = end ? take + 1 : RP_HTTP_HEAD_MAX + 1;
        /* A head that comes in pieces is rare: room for the largest one at once. */
        x->in = apr_palloc(x->pool, capacity);
        x->in_capacity = capacity - 1;
    }
    /* Also for the first piece: a lane's buffer may be larger than a head may be. */
    if (take > x->in_capacity - x->in_len) {
        take = x->in_capacity - x->in_len;
    }
    memcpy(x->in + x->in_len, data, take);
    x->in_len += take;
    return take;
}

/* Nonzero if the body that follows the head is none: while the head waits here, the client can
 * still be told so. */
static int begins_with_bad_chunk(const rp_exchange *x, const char *body, apr_size_t len)
{
    return x->response.status >= 200 && x->response.framing == RP_BODY_CHUNKED && len > 0
        && !apr_isxdigit(*body);
}

/* Takes head bytes from data; *used says how many. */
static taken take_head_bytes(rp_exchange *x, const char *data, apr_size_t len, apr_size_t *used,
                             apr_time_t now)
{
    *used = 0;
    while (*used < len) {
        apr_size_t before = x->in_len;
        apr_size_t head_len = 0;
        rp_http_error error = RP_HTTP_OK;
        apr_size_t took = gather_head(x, data + *used, len - *used);
        rp_parse parsed = rp_http_parse_response(x->pool, x->in, x->in_len, x->request->method,
                                                 &x->in_scanned, &head_len, &x->response, &error);

        if (parsed == RP_PARSE_FAILED || (parsed == RP_PARSE_MORE && took == 0)) {
            bad_response(x, rp_http_error_text(error ? error : RP_HTTP_HEAD_TOO_LARGE));
            return TAKEN_END;
        }
        if (parsed == RP_PARSE_MORE) {
            *used += took;
            continue;
        }
        /* Bytes behind the head that were gathered with it stay in data. */
        *used += head_len - before;
        if (begins_with_bad_chunk(x, data + *used, len - *used)) {
            bad_response(x, rp_http_error_text(RP_HTTP_BAD_CHUNK_SIZE));
            return TAKEN_END;
        }
        switch (take_head(x, now)) {
        case TAKEN_ALL:
            continue;
        case TAKEN_HEAD:
            return TAKEN_HEAD;
        case TAKEN_END:
            return TAKEN_END;
        }
    }
    return TAKEN_ALL;
}

/* ---- body ------------------------------------------------------------------------------------ */

static void response_complete(rp_exchange *x, const rp_fields *trailers)
{
    x->response_done = 1;
    /* First of all: with the end in hand, the client's next request may be quicker than we are. */
    rp_exchange_release(x, RP_REASON_NONE);
    if (!x->client_gone && x->ops->finish(x->client, trailers) == RP_IO_FAILED) {
        rp_exchange_finish(x, RP_OUTCOME_BROKEN, RP_REASON_CLIENT_GONE, NULL);
        return;
    }
    rp_exchange_finish(x, x->client_gone ? RP_OUTCOME_BROKEN : RP_OUTCOME_DONE,
                       x->client_gone ? RP_REASON_CLIENT_GONE : RP_REASON_NONE, NULL);
}

static void hand_to_client(rp_exchange *x, char *buffer, char *data, apr_size_t len)
{
    if (len == 0 || x->client_gone) {
        x->ops->release(x->client, buffer);
        return;
    }
    x->received_body += (apr_int64_t)len;
    x->unflushed = 1;
    switch (x->ops->send(x->client, buffer, data, len)) {
    case RP_IO_DONE:
        /* Where output may block, the client's pause must not count as one of the upstream. */
        x->progress_at = rp_exchange_now(x);
        break;
    case RP_IO_AGAIN:
        x->client_blocked = 1;
        break;
    default:
        if (rp_exchange_client_left(x)) {
            break;
        }
    }
}

/* Takes len body bytes at data in buffer, which becomes the lane's. */
static void take_body(rp_exchange *x, char *buffer, char *data, apr_size_t len)
{
    apr_size_t consumed = len;
    apr_size_t usable = len;
    rp_parse parsed = RP_PARSE_MORE;

    switch (x->response.framing) {
    case RP_BODY_LENGTH:
        if ((apr_int64_t)len > x->body_left) {
            usable = (apr_size_t)x->body_left;
        }
        consumed = usable;
        x->body_left -= (apr_int64_t)usable;
        parsed = x->body_left == 0 ? RP_PARSE_DONE : RP_PARSE_MORE;
        break;
    case RP_BODY_CHUNKED:
        parsed = rp_chunked_decode(&x->chunked, data, len, &consumed, &usable);
        break;
    case RP_BODY_NONE:
        consumed = usable = 0;
        parsed = RP_PARSE_DONE;
        break;
    case RP_BODY_CLOSE:
        break;
    }
    if (consumed < len) {
        /* More than the message: nobody knows whose bytes these are. */
        x->response.keep_alive = 0;
    }
    hand_to_client(x, buffer, data, usable);
    if (x->state == RP_X_ENDED) {
        return;
    }
    if (parsed == RP_PARSE_FAILED) {
        bad_response(x, rp_http_error_text(x->chunked.error));
    }
    else if (parsed == RP_PARSE_DONE) {
        response_complete(x, x->response.framing == RP_BODY_CHUNKED && x->chunked.trailers.count
                          ? &x->chunked.trailers : NULL);
    }
}

/* ---- reading --------------------------------------------------------------------------------- */

static void upstream_ended(rp_exchange *x, rp_io io)
{
    const char *detail = "";
    rp_reason reason = RP_REASON_NONE;

    if (io == RP_IO_EOF && x->head_done && x->response.framing == RP_BODY_CLOSE) {
        response_complete(x, NULL);
        return;
    }
    if (io == RP_IO_FAILED) {
        reason = rp_conn_reason(x->conn, &detail);
        detail = apr_pstrdup(x->pool, detail);
    }
    if (x->head_done) {
        rp_exchange_finish(x, RP_OUTCOME_BROKEN, RP_REASON_INCOMPLETE, detail);
    }
    else if (x->in_len > 0 || x->interim_count > 0) {
        rp_exchange_finish(x, RP_OUTCOME_ERROR, RP_REASON_INCOMPLETE, detail);
    }
    else {
        rp_exchange_attempt_failed(x, reason == RP_REASON_TLS_PROTOCOL ? reason
                                                                       : RP_REASON_CLOSED_EARLY,
                                   detail);
    }
}

/* Takes what one read brought. */
static void take(rp_exchange *x, char *buffer, apr_size_t len, apr_time_t now)
{
    apr_size_t used = 0;

    x->progress_at = now;
    if (!x->head_done) {
        taken what = take_head_bytes(x, buffer, len, &used, now);

        if (what == TAKEN_END && x->state == RP_X_TUNNEL && used < len) {
            /* The tunnel's first bytes came with the head. */
            hand_to_client(x, buffer, buffer + used, len - used);
            return;
        }
        if (what != TAKEN_HEAD) {
            x->ops->release(x->client, buffer);
            return;
        }
    }
    take_body(x, buffer, buffer + used, len - used);
}

/* Nonzero if the client's side can go on. */
static int unblock_client(rp_exchange *x, apr_time_t now)
{
    if (!x->client_blocked || x->client_gone) {
        return 1;
    }
    switch (x->ops->flush(x->client, 0)) {
    case RP_IO_DONE:
        x->client_blocked = 0;
        x->progress_at = now;
        return 1;
    case RP_IO_AGAIN:
        x->want_client_write = 1;
        return 0;
    default:
        return rp_exchange_client_left(x);
    }
}

/* The upstream has nothing more for now: hand on what the client should not wait for. */
static void upstream_paused(rp_exchange *x)
{
    x->want_upstream_read = 1;
    if (!x->unflushed || x->hold_back || x->client_gone) {
        return;
    }
    x->unflushed = 0;
    switch (x->ops->flush(x->client, 1)) {
    case RP_IO_AGAIN:
        x->client_blocked = 1;
        x->want_client_write = 1;
        break;
    case RP_IO_FAILED:
        rp_exchange_client_left(x);
        break;
    default:
        break;
    }
}

/* Nonzero if the rest of the body is large enough to go past our memory, and can. */
static int is_spliced(rp_exchange *x)
{
    if (!x->splicing) {
        x->splicing = x->head_done && x->response.framing == RP_BODY_LENGTH
            && x->body_left >= RP_SPLICE_MIN && x->ops->splice && !x->no_splice
            && rp_conn_fd(x->conn) >= 0;
    }
    return x->splicing && !x->client_gone;
}

static apr_int64_t splice_limit(const rp_exchange *x, apr_int64_t bytes)
{
    apr_int64_t left = x->budget - bytes;

    return x->budget && left < x->body_left ? left : x->body_left;
}

/* Moves body bytes, at most limit, and adds to *bytes. Zero: nothing more can be done now. */
static int splice_body(rp_exchange *x, apr_int64_t limit, apr_int64_t *bytes, apr_time_t now)
{
    apr_size_t moved = 0;
    rp_splice result = x->ops->splice(x->client, rp_conn_fd(x->conn), (apr_size_t)limit, &moved);
    int error = errno;
    char text[200];

    if (moved > 0) {
        rp_conn_spliced(x->conn);
        x->progress_at = now;
        x->received_body += (apr_int64_t)moved;
        x->body_left -= (apr_int64_t)moved;
        *bytes += (apr_int64_t)moved;
    }
    switch (result) {
    case RP_SPLICE_EMPTY:
        upstream_paused(x);
        return 0;
    case RP_SPLICE_EOF:
        upstream_ended(x, RP_IO_EOF);
        return 0;
    case RP_SPLICE_FAILED:
        apr_strerror(error, text, sizeof(text));
        rp_exchange_finish(x, RP_OUTCOME_BROKEN, RP_REASON_INCOMPLETE,
                           apr_pstrcat(x->pool, "reading from the upstream: ", text, NULL));
        return 0;
    case RP_SPLICE_CLIENT_GONE:
        if (!rp_exchange_client_left(x)) {
            return 0;
        }
        break;
    case RP_SPLICE_FULL:
        x->client_blocked = 1;
        break;
    case RP_SPLICE_UNABLE:
        x->splicing = 0;
        x->no_splice = 1;
        break;
    case RP_SPLICE_MOVED:
        break;
    }
    if (x->body_left == 0) {
        response_complete(x, NULL);
        return 0;
    }
    return 1;
}

/* Reads once, at most a buffer, and adds to *bytes. Zero: nothing more can be done now. */
static int read_response(rp_exchange *x, apr_int64_t *bytes, apr_time_t now)
{
    int attempts = x->attempts;
    apr_size_t size;
    apr_size_t got = 0;
    char *buffer = x->ops->reserve(x->client, &size);
    rp_io io = rp_conn_read(x->conn, buffer, size, &got);

    if (io != RP_IO_DONE) {
        x->ops->release(x->client, buffer);
        if (io == RP_IO_AGAIN) {
            upstream_paused(x);
        }
        else {
            upstream_ended(x, io);
        }
        return 0;
    }
    *bytes += (apr_int64_t)got;
    take(x, buffer, got, now);
    if (x->state != RP_X_RELAY || x->attempts != attempts) {
        return 0;
    }
    if (got < size && !x->upstream_hup && rp_conn_fd(x->conn) >= 0) {
        /* A short read drained the socket: no need to ask it again. */
        upstream_paused(x);
        return 0;
    }
    return 1;
}

void rp_exchange_pump_response(rp_exchange *x, apr_time_t now)
{
    apr_int64_t bytes = 0;
    int more = x->state == RP_X_RELAY;

    while (more && unblock_client(x, now) && !rp_exchange_yields(x, bytes)) {
        more = is_spliced(x) ? splice_body(x, splice_limit(x, bytes), &bytes, now)
                             : read_response(x, &bytes, now);
    }
}
