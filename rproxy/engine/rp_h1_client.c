/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The exchange's client in HTTP/1.1 of the engine.
 *
 * A response is written in as few system calls as there can be: its head is put in front of the
 * first bytes of its body where these lie in the buffer already, chunk framing around them, and
 * small pieces wait for the next one or for the end. Large ones go at once, so that the same
 * buffer, still in the CPU's cache, takes the next. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE                     /* splice, pipe2 */
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_protocol.h"
#include "rproxy/engine/rp_h1_private.h"
#include "rproxy/pipeline/rp_stats.h"

#define RP_H1_HEADROOM 1024             /* in front of what is read: for the head and a chunk's */
#define RP_H1_TAILROOM 16               /* behind it: CRLF, last chunk */
#define RP_H1_LAZY 16384                /* smaller pieces wait for more */
#define RP_H1_PIPE (1 << 18)            /* bytes of a pipe for splice */

/* ---- request body ---------------------------------------------------------------------------- */

/* Bytes that came with the head or before. */
static apr_size_t take_buffered(rp_downstream *d, char *buffer, apr_size_t size)
{
    apr_size_t held = d->in_end - d->in_start;

    if (held > size) {
        held = size;
    }
    if (held > 0) {
        memcpy(buffer, d->in + d->in_start, held);
        d->in_start += (unsigned int)held;
    }
    return held;
}

static rp_io read_some(rp_downstream *d, char *buffer, apr_size_t size, apr_size_t *got)
{
    *got = take_buffered(d, buffer, size);
    if (*got > 0) {
        return RP_IO_DONE;
    }
    rp_downstream_trim(d);
    if (!d->readable) {
        return RP_IO_AGAIN;
    }
    return rp_downstream_read(d, buffer, size, got);
}

static rp_io read_sized(rp_h1_request *q, char *buffer, apr_size_t size, apr_size_t *got)
{
    rp_io io;

    if (q->body_left == 0) {
        q->base.body_ended = 1;
        return RP_IO_EOF;
    }
    if ((apr_int64_t)size > q->body_left) {
        size = (apr_size_t)q->body_left;
    }
    io = read_some(q->base.d, buffer, size, got);
    q->body_left -= (apr_int64_t)*got;
    return io == RP_IO_EOF ? rp_engine_fail_body(&q->base, HTTP_BAD_REQUEST) : io;
}

/* Coded bytes go through the connection's own buffer: what follows the body is the next request. */
static rp_io read_chunked(rp_h1_request *q, char *buffer, apr_size_t size, apr_size_t *got)
{
    rp_downstream *d = q->base.d;
    apr_size_t coded, consumed = 0;
    rp_parse parsed;

    if (d->in_start == d->in_end) {
        rp_io io;

        if (!d->readable) {
            rp_downstream_trim(d);
            return RP_IO_AGAIN;
        }
        d->in_start = d->in_end = 0;
        io = rp_downstream_fill(d, RP_LOOP_BLOCK);
        if (io != RP_IO_DONE) {
            return io == RP_IO_AGAIN ? io : rp_engine_fail_body(&q->base, HTTP_BAD_REQUEST);
        }
    }
    coded = d->in_end - d->in_start;
    if (coded > size) {
        coded = size;
    }
    /* Decoded in a copy: the rest of the connection's bytes stay as they came. */
    memcpy(buffer, d->in + d->in_start, coded);
    parsed = rp_chunked_decode(&q->chunked, buffer, coded, &consumed, got);
    d->in_start += (unsigned int)consumed;
    if (parsed == RP_PARSE_FAILED) {
        return rp_engine_fail_body(&q->base, HTTP_BAD_REQUEST);
    }
    if (parsed == RP_PARSE_DONE) {
        if (!rp_engine_allows_trailers(&q->base, &q->chunked.trailers)) {
            return rp_engine_fail_body(&q->base, HTTP_BAD_REQUEST);
        }
        q->base.trailers = q->chunked.trailers.count ? &q->chunked.trailers : NULL;
        q->base.body_ended = 1;
    }
    return *got > 0 ? RP_IO_DONE : parsed == RP_PARSE_DONE ? RP_IO_EOF : RP_IO_AGAIN;
}

static rp_io client_read(void *client, char *buffer, apr_size_t size, apr_size_t *got)
{
    rp_h1_request *q = client;
    rp_downstream *d = q->base.d;
    rp_io io;

    *got = 0;
    if (q->base.tunnel) {
        return read_some(d, buffer, size, got);
    }
    if (q->base.body_ended) {
        return RP_IO_EOF;
    }
    if (q->base.request.framing == RP_BODY_CHUNKED) {
        do {
            io = read_chunked(q, buffer, size, got);
        } while (io == RP_IO_AGAIN && (d->readable || d->in_start < d->in_end));
    }
    else {
        io = read_sized(q, buffer, size, got);
    }
    if (*got > 0 || q->base.body_ended) {
        q->expects_100 = 0;             /* who sends the body doesn't wait for a 100 */
    }
    return rp_engine_count_body(&q->base, *got, io);
}

static const rp_fields *client_request_trailers(void *client)
{
    rp_h1_request *q = client;

    return q->base.trailers;
}

/* ---- output ---------------------------------------------------------------------------------- */

static void drop_piece(rp_h1_request *q)
{
    rp_loop_buffer_put(q->base.d->loop, q->pieces[0].buffer);
    q->piece_count--;
    for (int i = 0; i < q->piece_count; i++) {
        q->pieces[i] = q->pieces[i + 1];
    }
}

static void drop_head(rp_h1_request *q)
{
    q->head.len = q->head_off = 0;
}

void rp_h1_drop_output(rp_h1_request *q)
{
    drop_head(q);
    q->tail.len = q->tail_off = 0;
    while (q->piece_count > 0) {
        drop_piece(q);
    }
    if (q->has_pipe) {
        rp_engine_loop *engine = q->base.d->engine;

        if (q->in_pipe == 0 && engine->pipe_count < RP_ENGINE_PIPES) {
            memcpy(engine->pipes[engine->pipe_count++], q->pipe, sizeof(q->pipe));
        }
        else {
            close(q->pipe[0]);
            close(q->pipe[1]);
        }
        q->has_pipe = 0;
        q->in_pipe = 0;
    }
}

static void advance(rp_h1_request *q, apr_size_t written)
{
    apr_size_t of_head = q->head.len - q->head_off;

    if (written < of_head) {
        q->head_off += written;
        return;
    }
    written -= of_head;
    drop_head(q);
    while (q->piece_count > 0) {
        rp_h1_piece *piece = &q->pieces[0];

        if (written < piece->len) {
            piece->data += written;
            piece->len -= written;
            return;
        }
        written -= piece->len;
        drop_piece(q);
    }
    q->tail_off += written;
}

static rp_io write_pipe(rp_h1_request *q)
{
    while (q->in_pipe > 0) {
        ssize_t count = splice(q->pipe[0], NULL, q->base.d->fd, NULL, q->in_pipe,
                               SPLICE_F_MOVE | SPLICE_F_NONBLOCK
                               | (q->more_follows ? SPLICE_F_MORE : 0));

        if (count > 0) {
            q->in_pipe -= (apr_size_t)count;
            rp_downstream_count_out(q->base.d, (apr_size_t)count);
        }
        else if (count < 0 && errno == EAGAIN) {
            return RP_IO_AGAIN;
        }
        else if (count == 0 || errno != EINTR) {
            q->base.write_failed = 1;
            return RP_IO_FAILED;
        }
    }
    return RP_IO_DONE;
}

/* What is to be written, in order; how many pieces it is. */
static int gather(const rp_h1_request *q, struct iovec *vector)
{
    int count = 0;

    if (q->head.len > q->head_off) {
        vector[count].iov_base = q->head.data + q->head_off;
        vector[count++].iov_len = q->head.len - q->head_off;
    }
    for (int i = 0; i < q->piece_count; i++) {
        vector[count].iov_base = q->pieces[i].data;
        vector[count++].iov_len = q->pieces[i].len;
    }
    if (q->tail.len > q->tail_off) {
        vector[count].iov_base = q->tail.data + q->tail_off;
        vector[count++].iov_len = q->tail.len - q->tail_off;
    }
    return count;
}

void rp_h1_prepare(rp_downstream *d, rp_batch *batch)
{
    rp_h1_request *q = d->session;
    struct iovec vector[RP_H1_VECTOR];
    apr_size_t written = 0;
    int count;

    if (!q) {
        return;
    }
    if (!q->finishing) {
        rp_engine_send_ahead(&q->base, batch);
        return;
    }
    count = gather(q, vector);
    if (d->tls) {
        rp_downstream_tls_prepare(d, vector, count, &written, batch);
        advance(q, written);
    }
    else if (count == 1) {
        rp_batch_send(batch, d->fd, vector->iov_base, vector->iov_len, &d->sent_ahead);
    }
}

rp_io rp_h1_write(rp_h1_request *q)
{
    struct iovec vector[RP_H1_VECTOR];
    int count;
    rp_io io;

    while ((count = gather(q, vector)) > 0) {
        apr_size_t written = 0;

        io = rp_downstream_write(q->base.d, vector, count, &written);
        if (io == RP_IO_FAILED) {
            q->base.write_failed = 1;
        }
        if (io != RP_IO_DONE) {
            return io;
        }
        advance(q, written);
    }
    io = q->in_pipe > 0 ? write_pipe(q) : rp_downstream_flush(q->base.d);
    if (io == RP_IO_DONE && q->end_write_due) {
        q->end_write_due = 0;
        rp_downstream_end_write(q->base.d);
    }
    return io;
}

/* ---- heads ----------------------------------------------------------------------------------- */

static rp_io client_interim(void *client, int status, const rp_fields *fields)
{
    rp_h1_request *q = client;
    const char *reason;

    if (q->base.request.minor_version < 1 || (status == 100 && !q->expects_100)) {
        return RP_IO_DONE;              /* one that this client did not ask for stays here */
    }
    if (status == 100) {
        q->expects_100 = 0;
    }
    if (!q->head.pool) {
        rp_buffer_init(&q->head, q->base.pool, RP_H1_HEADROOM);
    }
    reason = rp_engine_reason(status, "");
    if (!*reason) {
        reason = apr_psprintf(q->base.pool, "Status %d", status);
    }
    rp_http_write_response(&q->head, status, reason, fields);
    switch (rp_h1_write(q)) {
    case RP_IO_AGAIN:
        q->base.x.client_blocked = 1;
        return RP_IO_DONE;
    case RP_IO_FAILED:
        return RP_IO_FAILED;
    default:
        return RP_IO_DONE;
    }
}

static rp_head_verdict client_head(void *client, const rp_response *response,
                                   const rp_fields *fields, int body_unread)
{
    rp_h1_request *q = client;
    rp_fields *all = &q->base.response_fields;

    if (response->status != 101 && rp_error_override_covers(q->base.route->dir->error_override,
                                                             response->status)) {
        q->base.response_fields = *fields;
        return RP_HEAD_REPLACE;
    }
    *all = *fields;                     /* its items have room for more, and nobody else's use */
    q->base.response = *response;
    q->base.head_sent = 1;
    if (response->status != 101) {
        rp_h1_complete_fields(q, response, all, body_unread);
    }
    if (!q->head.pool) {
        rp_buffer_init(&q->head, q->base.pool, RP_H1_HEADROOM);
    }
    return rp_http_write_response(&q->head, response->status,
                                  rp_engine_reason(response->status, response->reason), all)
        == RP_HTTP_OK ? RP_HEAD_RELAY : RP_HEAD_FAILED;
}

/* ---- bodies ---------------------------------------------------------------------------------- */

static char *client_reserve(void *client, apr_size_t *size)
{
    rp_h1_request *q = client;

    *size = RP_LOOP_BUFFER - RP_H1_HEADROOM - RP_H1_TAILROOM;
    return rp_loop_buffer_get(q->base.d->loop) + RP_H1_HEADROOM;
}

static void client_release(void *client, char *buffer)
{
    rp_h1_request *q = client;

    rp_loop_buffer_put(q->base.d->loop, buffer - RP_H1_HEADROOM);
}

static void frame(rp_h1_piece *piece)
{
    char head[RP_CHUNK_HEAD_MAX];
    apr_size_t len = rp_chunk_head(head, piece->len);

    memcpy(piece->data + piece->len, "\r\n", 2);
    piece->data -= len;
    memcpy(piece->data, head, len);
    piece->len += len + 2;
}

/* Puts the head in front of its body's first bytes: one piece to write instead of two. */
static void join_head(rp_h1_request *q, rp_h1_piece *piece)
{
    apr_size_t len = q->head.len - q->head_off;

    if (len > 0 && q->piece_count == 0 && len <= (apr_size_t)(piece->data - piece->buffer)) {
        piece->data -= len;
        memcpy(piece->data, q->head.data + q->head_off, len);
        piece->len += len;
        drop_head(q);
    }
}

static rp_io client_send(void *client, char *buffer, char *data, apr_size_t len)
{
    rp_h1_request *q = client;
    rp_h1_piece piece = { buffer - RP_H1_HEADROOM, data, len };

    q->base.sent_body += (apr_int64_t)len;
    if (q->chunk_out) {
        frame(&piece);
    }
    join_head(q, &piece);
    q->pieces[q->piece_count++] = piece;
    if (q->piece_count < RP_H1_PIECES && len < RP_H1_LAZY) {
        return RP_IO_DONE;
    }
    return rp_h1_write(q);
}

static rp_io client_flush(void *client, int push)
{
    (void)push;
    return rp_h1_write(client);
}

static rp_io client_finish(void *client, const rp_fields *trailers)
{
    rp_h1_request *q = client;

    if (q->chunk_out) {
        rp_h1_piece *last = q->piece_count > 0 ? &q->pieces[q->piece_count - 1] : NULL;

        if (last && !trailers) {
            memcpy(last->data + last->len, "0\r\n\r\n", 5);
            last->len += 5;
        }
        else {
            rp_buffer_init(&q->tail, q->base.pool, 256);
            rp_chunk_last(&q->tail, trailers);
        }
    }
    return RP_IO_DONE;                  /* the end of the exchange writes */
}

/* ---- splice ---------------------------------------------------------------------------------- */

static int has_pipe(rp_h1_request *q)
{
    rp_engine_loop *engine = q->base.d->engine;

    if (q->has_pipe) {
        return 1;
    }
    if (engine->pipe_count > 0) {
        memcpy(q->pipe, engine->pipes[--engine->pipe_count], sizeof(q->pipe));
    }
    else if (pipe2(q->pipe, O_NONBLOCK | O_CLOEXEC) == 0) {
        /* A smaller one does as well: pipes have a limit for each user. */
        fcntl(q->pipe[1], F_SETPIPE_SZ, RP_H1_PIPE);
    }
    else {
        return 0;
    }
    q->has_pipe = 1;
    return 1;
}

static rp_splice client_splice(void *client, int fd, apr_size_t limit, apr_size_t *moved)
{
    rp_h1_request *q = client;
    ssize_t count;

    *moved = 0;
    if (q->base.d->tls || !has_pipe(q)) {
        return RP_SPLICE_UNABLE;
    }
    switch (rp_h1_write(q)) {
    case RP_IO_AGAIN:
        return RP_SPLICE_FULL;
    case RP_IO_DONE:
        break;
    default:
        return RP_SPLICE_CLIENT_GONE;
    }
    do {
        count = splice(fd, NULL, q->pipe[1], NULL, limit < RP_H1_PIPE ? limit : RP_H1_PIPE,
                       SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    } while (count < 0 && errno == EINTR);
    if (count == 0) {
        return RP_SPLICE_EOF;
    }
    if (count < 0) {
        return errno == EAGAIN ? RP_SPLICE_EMPTY
            : errno == EINVAL ? RP_SPLICE_UNABLE : RP_SPLICE_FAILED;
    }
    *moved = (apr_size_t)count;
    q->in_pipe += *moved;
    q->base.sent_body += (apr_int64_t)count;
    q->more_follows = *moved < limit;
    switch (rp_h1_write(q)) {
    case RP_IO_AGAIN:
        return RP_SPLICE_FULL;
    case RP_IO_DONE:
        return RP_SPLICE_MOVED;
    default:
        return RP_SPLICE_CLIENT_GONE;
    }
}

/* ---- tunnels --------------------------------------------------------------------------------- */

static void client_tunnel(void *client)
{
    rp_h1_request *q = client;

    q->base.tunnel = 1;
    q->base.x.client_blocked = rp_h1_write(q) == RP_IO_AGAIN;
    rp_engine_bound_tunnel(&q->base);
    rp_stats_add(RP_STAT_TUNNELS, 1);
}

static void client_end_write(void *client)
{
    rp_h1_request *q = client;

    q->end_write_due = 1;
    rp_h1_write(q);
}

const rp_client_ops rp_h1_client_ops = {
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
    .detach = rp_engine_detach,
    .splice = client_splice
};
