/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the bench programs that speak HTTP/2 over TLS share: frames (RFC 9113 section 4), requests
 * in HPACK's static table, and connections that send what has been put in line for them.
 */
#ifndef BENCH_HTTP2_H
#define BENCH_HTTP2_H

#include "net.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#define FRAME_HEAD 9
#define PAYLOAD_KEPT 16     /* of a frame of the server: no more is looked at */
#define OUTPUT_MAX 131072   /* what waits to be sent */
#define BLOCK_MAX 256       /* a request, encoded */
#define H2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

enum {
    DATA = 0,
    HEADERS = 1,
    PRIORITY = 2,
    RST_STREAM = 3,
    SETTINGS = 4,
    PUSH_PROMISE = 5,
    PING = 6,
    GOAWAY = 7,
    WINDOW_UPDATE = 8,
    CONTINUATION = 9,
    PRIORITY_UPDATE = 16,
};
enum { ACK = 0x1, END_STREAM = 0x1, END_HEADERS = 0x4 };

typedef struct {
    size_t len;
    unsigned char bytes[OUTPUT_MAX];
} output_t;

/* A head, encoded. */
typedef struct {
    size_t len;
    unsigned char bytes[BLOCK_MAX];
} block_t;

/* A frame of the server, which may come in pieces. */
typedef struct {
    size_t got;             /* bytes of it so far, with its head */
    unsigned char bytes[FRAME_HEAD + PAYLOAD_KEPT];
} frame_t;

/* A connection; its owner watches fd. */
typedef struct {
    int fd;
    SSL *ssl;
    frame_t frame;
    size_t sent;            /* of out */
    output_t out;
} h2_t;

/* ---- what is sent ---------------------------------------------------------------------------- */

static inline void put(output_t *out, const void *bytes, size_t len)
{
    if (len > sizeof(out->bytes) - out->len) {
        errno = ENOBUFS;
        die("output");
    }
    memcpy(out->bytes + out->len, bytes, len);
    out->len += len;
}

static inline void put_number(output_t *out, uint32_t number)
{
    const unsigned char bytes[4] = { (unsigned char)(number >> 24), (unsigned char)(number >> 16),
                                     (unsigned char)(number >> 8), (unsigned char)number };

    put(out, bytes, sizeof(bytes));
}

/* The head of a frame whose payload has so many bytes. */
static inline void put_frame_head(output_t *out, int type, int flags, uint32_t stream, size_t len)
{
    const unsigned char head[FRAME_HEAD - 4] = {
        (unsigned char)(len >> 16), (unsigned char)(len >> 8), (unsigned char)len,
        (unsigned char)type, (unsigned char)flags,
    };

    put(out, head, sizeof(head));
    put_number(out, stream);
}

static inline void put_frame(output_t *out, int type, int flags, uint32_t stream,
                             const void *payload, size_t len)
{
    put_frame_head(out, type, flags, stream, len);
    put(out, payload, len);
}

/* The preface with SETTINGS: no pushes, and the window of each stream. */
static inline void put_preface(output_t *out, uint32_t window)
{
    static const unsigned char no_push[] = { 0, 2, 0, 0, 0, 0 };
    static const unsigned char initial_window[] = { 0, 4 };

    put(out, H2_PREFACE, sizeof(H2_PREFACE) - 1);
    put_frame_head(out, SETTINGS, 0, 0, sizeof(no_push) + sizeof(initial_window) + 4);
    put(out, no_push, sizeof(no_push));
    put(out, initial_window, sizeof(initial_window));
    put_number(out, window);
}

/* A request, encoded with HPACK's static table only (RFC 7541, appendix A). */
static inline void encode(block_t *block, bool post, const char *path)
{
    static const unsigned char scheme_and_authority[] = "\x87\x01\x09localhost";
    const size_t len = strlen(path);
    unsigned char *at = block->bytes;

    if (len > 126 || sizeof(scheme_and_authority) + 3 + len > BLOCK_MAX) {
        errno = ENAMETOOLONG;
        die(path);
    }
    *at++ = post ? 0x83 : 0x82;
    memcpy(at, scheme_and_authority, sizeof(scheme_and_authority) - 1);
    at += sizeof(scheme_and_authority) - 1;
    *at++ = 0x04;    /* :path, literal */
    *at++ = (unsigned char)len;
    memcpy(at, path, len);
    block->len = (size_t)(at + len - block->bytes);
}

/* ---- what comes ------------------------------------------------------------------------------ */

static inline uint32_t number_at(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static inline size_t frame_len(const frame_t *f)
{
    return (size_t)f->bytes[0] << 16 | (size_t)f->bytes[1] << 8 | f->bytes[2];
}

static inline int frame_type(const frame_t *f)
{
    return f->bytes[3];
}

static inline bool frame_has(const frame_t *f, int flag)
{
    return (f->bytes[4] & flag) != 0;
}

static inline uint32_t frame_stream(const frame_t *f)
{
    return number_at(f->bytes + 5) & 0x7fffffff;
}

/* Whether the frame's block begins with ":status: 200", after changes of the table's size. */
static inline bool begins_with_200(const frame_t *f)
{
    const unsigned char *block = f->bytes + FRAME_HEAD;
    const size_t len = frame_len(f) < PAYLOAD_KEPT ? frame_len(f) : PAYLOAD_KEPT;
    size_t i = 0;

    while (i < len && (block[i] & 0xe0) == 0x20) {
        if ((block[i++] & 0x1f) == 0x1f) {
            while (i < len && block[i++] & 0x80)
                ;
        }
    }
    return i < len && block[i] == 0x88;
}

/* Calls take with each frame that is whole; false: it said so. */
static inline bool take_frames(frame_t *f, const unsigned char *bytes, size_t len,
                               bool (*take)(void *who, const frame_t *frame), void *who)
{
    while (len > 0) {
        const size_t whole = f->got < FRAME_HEAD ? FRAME_HEAD : FRAME_HEAD + frame_len(f);
        const size_t part = len < whole - f->got ? len : whole - f->got;

        for (size_t i = 0; i < part && f->got + i < sizeof(f->bytes); i++)
            f->bytes[f->got + i] = bytes[i];
        f->got += part;
        bytes += part;
        len -= part;
        if (f->got >= FRAME_HEAD && f->got == FRAME_HEAD + frame_len(f)) {
            f->got = 0;
            if (!take(who, f))
                return false;
        }
    }
    return true;
}

/* ---- connections ----------------------------------------------------------------------------- */

/* For clients that offer nothing but HTTP/2. One cipher: left to themselves some servers choose a
 * dearer one than others. */
static inline SSL_CTX *make_tls(void)
{
    static const unsigned char protocols[] = "\x02h2";
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());

    if (!tls || SSL_CTX_set_alpn_protos(tls, protocols, sizeof(protocols) - 1) != 0
        || SSL_CTX_set_ciphersuites(tls, "TLS_AES_128_GCM_SHA256") != 1)
        die("SSL_CTX_new");
    SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE
                          | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return tls;
}

/* TLS on a connected socket. */
static inline SSL *make_ssl(SSL_CTX *tls, int fd)
{
    SSL *ssl = SSL_new(tls);

    if (!ssl || SSL_set_fd(ssl, fd) != 1)
        die("SSL_new");
    SSL_set_connect_state(ssl);
    return ssl;
}

/* One more step of the handshake; false: it has failed, or HTTP/2 was not chosen. */
static inline bool shake_hands(SSL *ssl)
{
    const unsigned char *protocol;
    unsigned len;
    int rc;

    ERR_clear_error();
    rc = SSL_do_handshake(ssl);
    if (rc != 1)
        return SSL_get_error(ssl, rc) == SSL_ERROR_WANT_READ;
    SSL_get0_alpn_selected(ssl, &protocol, &len);
    return len == 2 && memcmp(protocol, "h2", 2) == 0;
}

/* Sends what waits, as far as the socket takes it; false: the connection is over. */
static inline bool h2_send(h2_t *h)
{
    while (h->sent < h->out.len) {
        int rc;

        ERR_clear_error();
        rc = SSL_write(h->ssl, h->out.bytes + h->sent, (int)(h->out.len - h->sent));
        if (rc <= 0)
            return SSL_get_error(h->ssl, rc) == SSL_ERROR_WANT_WRITE;
        h->sent += (size_t)rc;
    }
    h->sent = h->out.len = 0;
    return true;
}

/* Takes what has come; false: the connection is over. */
static inline bool h2_receive(SSL *ssl, frame_t *frame,
                              bool (*take)(void *who, const frame_t *frame), void *who)
{
    static unsigned char scratch[65536];

    for (;;) {
        int got;

        ERR_clear_error();
        got = SSL_read(ssl, scratch, sizeof(scratch));
        if (got <= 0)
            return SSL_get_error(ssl, got) == SSL_ERROR_WANT_READ;
        if (!take_frames(frame, scratch, (size_t)got, take, who))
            return false;
    }
}

static inline void h2_close(h2_t *h)
{
    SSL_free(h->ssl);
    close(h->fd);
    h->ssl = NULL;
    h->frame.got = h->sent = h->out.len = 0;
}

#endif
