/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What idle does, with HTTP/2 over TLS: opens N connections with one request each and keeps them
 * idle. With STREAMS and WAITING-PATH, each then asks for WAITING-PATH on so many streams, which
 * nothing is expected to answer, and a PING makes sure that the server has got all of them.
 * Prints a JSON line when that is done, waits for a line on stdin, then sends a second request on
 * each. A second JSON line says how many were idle when that line came, and how many were answered
 * again. A connection that is closed, says that it will be (GOAWAY), resets a stream, answers a
 * waiting stream or anything with another status than 200 is dead.
 */
#define _GNU_SOURCE
#include "crowd.h"
#include "http2.h"

#include <signal.h>

#define STREAMS_MAX 90      /* servers allow 100 */

/* What a connection has besides its state. */
typedef struct {
    SSL *ssl;
    uint32_t stream;            /* the last one opened */
    uint32_t awaited;           /* the one whose answer is awaited; 0: none */
    bool has_status;            /* its 200 has come */
    frame_t frame;
} session_t;

static void begin(member_t *m);
static void readable(member_t *m);

static crowd_t crowd = {
    .window = 8,            /* the MPM must not run out of workers */
    .limit = 60.0,
    .connected = begin,
    .readable = readable,
};
static session_t *sessions;
static SSL_CTX *tls;
static int port;
static block_t request, waiting_request;
static size_t streams;

static session_t *session_of(const member_t *m)
{
    return &sessions[m - crowd.members];
}

/* ---- what is sent ---------------------------------------------------------------------------- */

/* A new stream with this request. */
static void put_request(output_t *out, session_t *s, const block_t *block)
{
    s->stream = s->stream ? s->stream + 2 : 1;
    put_frame(out, HEADERS, END_STREAM | END_HEADERS, s->stream, block->bytes, block->len);
}

/* The same, and its answer is awaited. */
static void put_awaited_request(output_t *out, session_t *s)
{
    put_request(out, s, &request);
    s->awaited = s->stream;
    s->has_status = false;
}

/* All at once, which is little enough for the socket; false: it cannot be sent. */
static bool send_output(session_t *s, const output_t *out)
{
    ERR_clear_error();
    return SSL_write(s->ssl, out->bytes, (int)out->len) == (int)out->len;
}

/* ---- what comes ------------------------------------------------------------------------------ */

static bool settled(member_t *m)
{
    crowd_enter(&crowd, m, m->state == SECOND ? DONE : IDLE);
    return true;
}

/* The answer is complete. Opens the waiting streams after the first one. */
static bool answered(member_t *m, session_t *s)
{
    static const unsigned char data[8] = "waiting";
    output_t out;

    s->awaited = 0;
    if (!s->has_status)
        return false;
    if (m->state == SECOND || streams == 0)
        return settled(m);
    out.len = 0;
    for (size_t i = 0; i < streams; i++)
        put_request(&out, s, &waiting_request);
    put_frame(&out, PING, 0, 0, data, sizeof(data));
    return send_output(s, &out);
}

/* False: the connection is no good. */
static bool take_frame(void *who, const frame_t *frame)
{
    member_t *m = who;
    session_t *s = session_of(m);
    const uint32_t stream = frame_stream(frame);
    output_t out;

    out.len = 0;
    switch (frame_type(frame)) {
    case HEADERS:
        if (stream != s->awaited || !begins_with_200(frame))
            return false;
        s->has_status = true;
        return frame_has(frame, END_STREAM) ? answered(m, s) : true;
    case DATA:
        if (stream != s->awaited)
            return false;
        return frame_has(frame, END_STREAM) ? answered(m, s) : true;
    case SETTINGS:
        if (frame_has(frame, ACK))
            return true;
        put_frame(&out, SETTINGS, ACK, 0, "", 0);
        return send_output(s, &out);
    case PING:
        if (frame_has(frame, ACK))
            return m->state == FIRST ? settled(m) : false;
        put_frame(&out, PING, ACK, 0, frame->bytes + FRAME_HEAD, 8);
        return send_output(s, &out);
    case RST_STREAM:
    case PUSH_PROMISE:
    case GOAWAY:
        return false;
    default:
        return true;
    }
}

/* ---- a connection's life --------------------------------------------------------------------- */

/* One more step of the handshake, with the first request once it is done. */
static bool begin_session(session_t *s)
{
    output_t out;

    if (!shake_hands(s->ssl))
        return false;
    if (!SSL_is_init_finished(s->ssl))
        return true;
    out.len = 0;
    put_preface(&out, 65535);
    put_awaited_request(&out, s);
    return send_output(s, &out);
}

/* Reads and takes what is there. */
static bool advance(member_t *m, session_t *s)
{
    if (!SSL_is_init_finished(s->ssl) && !begin_session(s))
        return false;
    return !SSL_is_init_finished(s->ssl) || h2_receive(s->ssl, &s->frame, take_frame, m);
}

static void readable(member_t *m)
{
    if (!advance(m, session_of(m)))
        crowd_dead(&crowd, m);
}

static void begin(member_t *m)
{
    session_t *s = session_of(m);

    s->ssl = make_ssl(tls, m->fd);
    readable(m);
}

static void open_connection(member_t *m)
{
    crowd_open(&crowd, m, connect_start_from(crowd_address(&crowd, m), port));
}

static void ask_again(member_t *m)
{
    session_t *s = session_of(m);
    output_t out;

    out.len = 0;
    crowd_enter(&crowd, m, SECOND);
    put_awaited_request(&out, s);
    if (!send_output(s, &out))
        crowd_dead(&crowd, m);
}

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 6)
        usage("idle_http2 PORT PATH COUNT [STREAMS WAITING-PATH]");
    port = atoi(argv[1]);
    encode(&request, false, argv[2]);
    if (argc == 6) {
        streams = (size_t)atoi(argv[4]);
        encode(&waiting_request, false, argv[5]);
    }
    if (streams > STREAMS_MAX)
        usage("too many streams");
    signal(SIGPIPE, SIG_IGN);
    tls = make_tls();
    crowd_make(&crowd, (size_t)atoi(argv[3]));
    sessions = calloc(crowd.count, sizeof(*sessions));
    if (!sessions)
        die("cannot start");
    crowd_run(&crowd, open_connection, ask_again);
    return 0;
}
