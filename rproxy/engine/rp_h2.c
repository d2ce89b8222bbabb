/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A connection that speaks HTTP/2: what comes is given to nghttp2, whose callbacks begin and end
 * streams; what is to be sent is gathered from it at the end of a round of the loop, for all
 * streams at once.
 *
 * No callback writes, and none steps an exchange: a stream that has something to do is due, and is
 * stepped behind the events of the round, as many of a connection as its turn has time for: few
 * bytes may ask for a hundred upstream connections to be opened or closed. */

#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include "httpd.h"
#include "rproxy/engine/rp_h2_private.h"
#include "rproxy/pipeline/rp_park_timer.h"

#define READ_ROUNDS 16                  /* reads before others have their turn */
#define TURN (apr_time_from_msec(1) / 4)    /* of due streams, before others have theirs */
#define COSTLY_TURN (TURN / 4)          /* ... of a client that does what costs much */
#define FRAME_MOST 16402                /* bytes that nghttp2 may hand out at once */
#define CONNECTION_WINDOW (1 << 24)     /* streams' own windows bound what waits */
#define UNSENT_MOST (1 << 17)           /* bytes in the socket that are not sent yet */
#define GOAWAY_NOTICE apr_time_from_msec(500)   /* from the announcement to the last GOAWAY */

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
    int unsent = UNSENT_MOST;

    if (!session) {
        return NULL;
    }
    session->d = d;
    session->due_end = &session->due;
    if (!rp_h2_open(session)) {
        free(session);
        return NULL;
    }
    session->idle_since = d->loop->now;
    session->preface_by = rp_h2_head_deadline(session);
    nghttp2_submit_settings(session->ng, NGHTTP2_FLAG_NONE, settings,
                            sizeof(settings) / sizeof(settings[0]));
    nghttp2_session_set_local_window_size(session->ng, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW);
    /* What lies in the socket can't be overtaken any more. */
    setsockopt(d->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
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
    while (RP_LOOP_BUFFER - session->out_end >= FRAME_MOST && !session->yielding) {
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

    session->yielding = 0;
    do {
        gather(session);
        if (session->out_end == 0) {
            break;
        }
        io = write_out(session);
    } while (io == RP_IO_DONE && !session->yielding);
    if (session->out_end == 0) {
        drop_out(session);
    }
    if (!session->blocked) {
        session->progress_at = session->d->loop->now;
    }
    session->blocked = io == RP_IO_AGAIN;
    return io;
}

/* Zero: the connection is over. Garbage instead of the preface, or no memory: there is no frame to
 * answer it with. */
static int feed(rp_h2_session *session, const char *bytes, apr_size_t len)
{
    ssize_t taken = nghttp2_session_mem_recv(session->ng, (const uint8_t *)bytes, len);

#ifdef RP_HAVE_CONTINUATION_LIMIT
    if (taken == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS) {
        rp_h2_tolerates(session, RP_H2_CONTINUATION);
    }
#endif
    return taken == (ssize_t)len;
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

static apr_time_t end_of_turn(const rp_h2_session *session)
{
    return apr_time_now() + (session->d->costly ? COSTLY_TURN : TURN);
}

/* The clock is asked for each, since the dearest step takes fifty times as long as the cheapest. */
static void step_due(rp_h2_session *session)
{
    int left = session->due_count;      /* those that it makes due are not among them */
    apr_time_t until = left > 0 ? end_of_turn(session) : 0;

    while (left-- > 0 && session->due) {
        rp_h2_stream *stream = rp_h2_next_due(session);

        rp_h2_step(stream, stream->base.x.yielded || stream->answers);
        /* What was prepared has to be stepped in this round. */
        if (--session->prepared <= 0 && apr_time_now() >= until) {
            break;
        }
    }
    session->prepared = 0;
    if (session->due) {
        rp_h2_make_ready(session);
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

/* The client has gone, or is told to, with what waits for it. */
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
            rp_h2_lose_client(stream);
        }
    }
    rp_downstream_set_deadline(session->d, 0);
}

static void drain(rp_downstream *d);

/* Exchanges may go on, and end, behind the client's back. */
static void end_if_empty(rp_h2_session *session)
{
    rp_downstream *d = session->d;

    if (session->stream_count > 0) {
        return;
    }
    if (d->ended) {
        rp_downstream_abort(d, 0);
    }
    else {
        rp_downstream_close(d);
    }
}

/* Nothing more is read or written. */
static void leave(rp_h2_session *session)
{
    if (session->stream_count > 0) {
        rp_downstream_end_write(session->d);
        lose_all(session);
    }
    end_if_empty(session);
}

static int is_at_end(const rp_h2_session *session)
{
    return !session->blocked && !session->due
        && ((!nghttp2_session_want_read(session->ng) && !nghttp2_session_want_write(session->ng))
            || (session->ending && session->stream_count == 0));
}

static void ready(rp_downstream *d)
{
    rp_h2_session *session = d->session ? d->session : open_session(d);
    int were_due, fine;

    if (!session) {
        rp_downstream_abort(d, 0);
        return;
    }
    if (!session->any_stream && rp_park_timer_draining_since()) {
        drain(d);
    }
    if (d->costly) {
        rp_h2_forgive(session);
    }
    /* First, as it was prepared: see prepare(). */
    were_due = session->due_count;
    step_due(session);
    fine = session->lost || read_all(session);
    if (!fine && d->ended) {
        lose_all(session);
    }
    if (session->lost) {
        end_if_empty(session);
        return;
    }
    if (fine && were_due == 0 && session->due) {
        return;                         /* what has come is prepared with that of others */
    }
    if (send_all(session) == RP_IO_FAILED || !fine || is_at_end(session)) {
        leave(session);                 /* a GOAWAY, if there is one, says why */
        return;
    }
    set_deadline(session);
}

/* ---- the protocol ---------------------------------------------------------------------------- */

/* Requests that came since the last round go to their upstreams together. */
static void prepare(rp_downstream *d, rp_batch *batch)
{
    rp_h2_session *session = d->session;
    apr_time_t until;

    if (!session || !session->due) {
        return;
    }
    until = end_of_turn(session);
    for (rp_h2_stream *stream = session->due; stream; stream = stream->next_due) {
        if (stream->open) {
            rp_engine_send_ahead(&stream->base, batch);
        }
        session->prepared++;
        if (apr_time_now() >= until) {
            break;
        }
    }
}

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
        session->abandoned += stream->open;
        stream->open = 0;
        if (!stream->over && stream->base.in_exchange) {
            stream->base.x.client_gone = 1;
            rp_exchange_end(&stream->base.x, RP_REASON_CLIENT_GONE);
            rp_h2_end_exchange(stream);
        }
        else {
            rp_h2_finish_stream(stream);
        }
    }
    nghttp2_session_del(session->ng);
    drop_out(session);
    free(session);
    d->session = NULL;
}

const rp_protocol rp_h2_protocol = { ready, prepare, expired, drain, returned, closed };
