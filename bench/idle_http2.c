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

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdint.h>

#define FRAME_HEAD 9
#define FRAME_MAX 2048      /* a frame of the server: its body is short */
#define OUTPUT_MAX 16384    /* what is sent at once: preface, or the requests of all streams */
#define BLOCK_MAX 256       /* a request, encoded */
#define STREAMS_MAX 90      /* servers allow 100 */

enum {
    DATA = 0,
    HEADERS = 1,
    RST_STREAM = 3,
    SETTINGS = 4,
    PUSH_PROMISE = 5,
    PING = 6,
    GOAWAY = 7,
};
enum { ACK = 0x1, END_STREAM = 0x1, END_HEADERS = 0x4 };

/* What a connection has besides its state. */
typedef struct {
    SSL *ssl;
    uint32_t stream;            /* the last one opened */
    uint32_t awaited;           /* the one whose answer is awaited; 0: none */
    bool has_status;            /* its 200 has come */
    size_t len;
    unsigned char buffer[FRAME_MAX];
} session_t;

typedef struct {
    size_t len;
    unsigned char bytes[OUTPUT_MAX];
} output_t;

typedef struct {
    size_t len;
    unsigned char bytes[BLOCK_MAX];
} block_t;

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

static void put(output_t *out, const void *bytes, size_t len)
{
    if (len > sizeof(out->bytes) - out->len) {
        errno = ENOBUFS;
        die("output");
    }
    memcpy(out->bytes + out->len, bytes, len);
    out->len += len;
}

static void put_frame(output_t *out, int type, int flags, uint32_t stream, const void *payload,
                      size_t len)
{
    const unsigned char head[FRAME_HEAD] = {
        (unsigned char)(len >> 16), (unsigned char)(len >> 8), (unsigned char)len,
        (unsigned char)type, (unsigned char)flags,
        (unsigned char)(stream >> 24), (unsigned char)(stream >> 16), (unsigned char)(stream >> 8),
        (unsigned char)stream,
    };

    put(out, head, sizeof(head));
    put(out, payload, len);
}

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

/* GET, encoded with HPACK's static table only (RFC 7541, appendix A). */
static void encode_get(block_t *block, const char *path)
{
    static const unsigned char method_and_scheme[] = { 0x82, 0x87 };
    static const unsigned char authority[] = "\x01\x09localhost";
    const size_t len = strlen(path);
    unsigned char *at = block->bytes;

    if (len > 126 || sizeof(method_and_scheme) + sizeof(authority) + 2 + len > BLOCK_MAX) {
        errno = ENAMETOOLONG;
        die(path);
    }
    memcpy(at, method_and_scheme, sizeof(method_and_scheme));
    at += sizeof(method_and_scheme);
    memcpy(at, authority, sizeof(authority) - 1);
    at += sizeof(authority) - 1;
    *at++ = 0x04;    /* :path, literal */
    *at++ = (unsigned char)len;
    memcpy(at, path, len);
    block->len = (size_t)(at + len - block->bytes);
}

/* ---- what comes ------------------------------------------------------------------------------ */

/* Whether a header block begins with ":status: 200", after changes of the table's size. */
static bool begins_with_200(const unsigned char *block, size_t len)
{
    size_t i = 0;

    while (i < len && (block[i] & 0xe0) == 0x20) {
        if ((block[i++] & 0x1f) == 0x1f) {
            while (i < len && block[i++] & 0x80)
                ;
        }
    }
    return i < len && block[i] == 0x88;
}

static bool settled(member_t *m)
{
    crowd_enter(&crowd, m, m->state == SECOND ? DONE : IDLE);
    return true;
}

/* The answer is complete. Opens the waiting streams after the first one. */
static bool answered(member_t *m, session_t *s)
{
    static const unsigned char data[8] = "waiting";
    output_t out = { .len = 0 };

    s->awaited = 0;
    if (!s->has_status)
        return false;
    if (m->state == SECOND || streams == 0)
        return settled(m);
    for (size_t i = 0; i < streams; i++)
        put_request(&out, s, &waiting_request);
    put_frame(&out, PING, 0, 0, data, sizeof(data));
    return send_output(s, &out);
}

/* False: the connection is no good, here and below. */
static bool take_frame(member_t *m, session_t *s, const unsigned char *head, size_t len)
{
    const unsigned char *payload = head + FRAME_HEAD;
    const int type = head[3], flags = head[4];
    const uint32_t stream = (uint32_t)(head[5] & 0x7f) << 24 | (uint32_t)head[6] << 16
                          | (uint32_t)head[7] << 8 | head[8];
    output_t out = { .len = 0 };

    switch (type) {
    case HEADERS:
        if (stream != s->awaited || !begins_with_200(payload, len))
            return false;
        s->has_status = true;
        return flags & END_STREAM ? answered(m, s) : true;
    case DATA:
        if (stream != s->awaited)
            return false;
        return flags & END_STREAM ? answered(m, s) : true;
    case SETTINGS:
        if (flags & ACK)
            return true;
        put_frame(&out, SETTINGS, ACK, 0, "", 0);
        return send_output(s, &out);
    case PING:
        if (flags & ACK)
            return m->state == FIRST ? settled(m) : false;
        put_frame(&out, PING, ACK, 0, payload, len);
        return send_output(s, &out);
    case RST_STREAM:
    case PUSH_PROMISE:
    case GOAWAY:
        return false;
    default:
        return true;
    }
}

/* Takes the whole frames out of the buffer. */
static bool take_frames(member_t *m, session_t *s)
{
    size_t at = 0;

    while (s->len - at >= FRAME_HEAD) {
        const unsigned char *head = s->buffer + at;
        const size_t len = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];

        if (len > FRAME_MAX - FRAME_HEAD)
            return false;
        if (s->len - at < FRAME_HEAD + len)
            break;
        if (!take_frame(m, s, head, len))
            return false;
        at += FRAME_HEAD + len;
    }
    s->len -= at;
    memmove(s->buffer, s->buffer + at, s->len);
    return true;
}

/* ---- a connection's life --------------------------------------------------------------------- */

/* One more step of the handshake, with the first request once it is done. */
static bool shake_hands(session_t *s)
{
    static const unsigned char no_push[] = { 0, 2, 0, 0, 0, 0 };
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const unsigned char *protocol;
    unsigned protocol_len;
    output_t out = { .len = 0 };
    int rc;

    ERR_clear_error();
    rc = SSL_do_handshake(s->ssl);
    if (rc != 1)
        return SSL_get_error(s->ssl, rc) == SSL_ERROR_WANT_READ;
    SSL_get0_alpn_selected(s->ssl, &protocol, &protocol_len);
    if (protocol_len != 2 || memcmp(protocol, "h2", 2) != 0)
        return false;
    put(&out, preface, sizeof(preface) - 1);
    put_frame(&out, SETTINGS, 0, 0, no_push, sizeof(no_push));
    put_awaited_request(&out, s);
    return send_output(s, &out);
}

/* Reads and takes what is there. */
static bool advance(member_t *m, session_t *s)
{
    if (!SSL_is_init_finished(s->ssl) && !shake_hands(s))
        return false;
    while (SSL_is_init_finished(s->ssl)) {
        int got;

        ERR_clear_error();
        got = SSL_read(s->ssl, s->buffer + s->len, (int)(FRAME_MAX - s->len));
        if (got <= 0)
            return SSL_get_error(s->ssl, got) == SSL_ERROR_WANT_READ;
        s->len += (size_t)got;
        if (!take_frames(m, s))
            return false;
    }
    return true;
}

static void readable(member_t *m)
{
    if (!advance(m, session_of(m)))
        crowd_dead(&crowd, m);
}

static void begin(member_t *m)
{
    session_t *s = session_of(m);

    s->ssl = SSL_new(tls);
    if (!s->ssl || SSL_set_fd(s->ssl, m->fd) != 1)
        die("SSL_new");
    SSL_set_connect_state(s->ssl);
    readable(m);
}

static void open_connection(member_t *m)
{
    crowd_open(&crowd, m, connect_start_from(crowd_address(&crowd, m), port));
}

static void ask_again(member_t *m)
{
    session_t *s = session_of(m);
    output_t out = { .len = 0 };

    crowd_enter(&crowd, m, SECOND);
    put_awaited_request(&out, s);
    if (!send_output(s, &out))
        crowd_dead(&crowd, m);
}

static void make_tls(void)
{
    static const unsigned char protocols[] = "\x02h2";

    tls = SSL_CTX_new(TLS_client_method());
    if (!tls || SSL_CTX_set_alpn_protos(tls, protocols, sizeof(protocols) - 1) != 0)
        die("SSL_CTX_new");
    SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS);
}

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 6)
        usage("idle_http2 PORT PATH COUNT [STREAMS WAITING-PATH]");
    port = atoi(argv[1]);
    encode_get(&request, argv[2]);
    if (argc == 6) {
        streams = (size_t)atoi(argv[4]);
        encode_get(&waiting_request, argv[5]);
    }
    if (streams > STREAMS_MAX)
        usage("too many streams");
    signal(SIGPIPE, SIG_IGN);
    make_tls();
    crowd_make(&crowd, (size_t)atoi(argv[3]));
    sessions = calloc(crowd.count, sizeof(*sessions));
    if (!sessions)
        die("cannot start");
    crowd_run(&crowd, open_connection, ask_again);
    return 0;
}
