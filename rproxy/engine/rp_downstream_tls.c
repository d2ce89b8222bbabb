/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* TLS with the client: mod_ssl has made the session and shaken hands; the engine speaks with
 * OpenSSL directly, without brigades in between, through a BIO of its own. That one reads from the
 * socket and gathers what is to be written, so that the records of one response leave in one system
 * call. mod_ssl's own BIOs come back when a request goes to the pipeline, and at the end. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include "rproxy/engine/rp_engine_private.h"

#define RECORD_MOST (SSL3_RT_MAX_PLAIN_LENGTH + 512)    /* with header, tag and padding */

struct rp_downstream_tls {
    SSL *ssl;
    BIO *filter_read, *filter_write;    /* mod_ssl's, one reference each */
    char *out;                          /* a loop's buffer: records out[out_start..out_end) */
    unsigned int out_start, out_end;
    int write_failed;
    int holds_back;                     /* what is encrypted isn't sent yet */
    int ours;                           /* our BIO is in place */
    int deaf;                           /* our BIO reads nothing more */
    int read_ahead;                     /* mod_ssl's setting */
    long added_modes;
    uint64_t added_options;
};

#define MODES (SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER)

/* ---- the BIO --------------------------------------------------------------------------------- */

static int bio_read(BIO *bio, char *buffer, int size)
{
    rp_downstream *d = BIO_get_data(bio);
    ssize_t count;

    BIO_clear_retry_flags(bio);
    if (d->tls->deaf) {
        BIO_set_retry_read(bio);
        return -1;
    }
    count = rp_receive(&d->ahead, d->fd, buffer, (apr_size_t)size);
    d->drained = count > 0 && count < size && !d->left;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        BIO_set_retry_read(bio);
    }
    else if (count > 0) {
        rp_engine_count_in(d->c, (apr_off_t)count);
    }
    return (int)count;
}

static int bio_write(BIO *bio, const char *bytes, int size)
{
    rp_downstream *d = BIO_get_data(bio);
    rp_downstream_tls *tls = d->tls;

    BIO_clear_retry_flags(bio);
    if (!tls->out) {
        tls->out = rp_loop_buffer_get(d->loop);
        tls->out_start = tls->out_end = 0;
    }
    if (size > RP_LOOP_BUFFER - (int)tls->out_end) {
        size = RP_LOOP_BUFFER - (int)tls->out_end;
    }
    if (size == 0) {
        BIO_set_retry_write(bio);
        return -1;
    }
    memcpy(tls->out + tls->out_end, bytes, (apr_size_t)size);
    tls->out_end += (unsigned int)size;
    return size;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP;
}

static BIO_METHOD *method;              /* constant once the child has begun */

int rp_downstream_tls_init(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "rproxy");
    if (method) {
        BIO_meth_set_read(method, bio_read);
        BIO_meth_set_write(method, bio_write);
        BIO_meth_set_ctrl(method, bio_control);
    }
    return method != NULL;
}

/* ---- coming and going ------------------------------------------------------------------------ */

void rp_downstream_tls_retake(rp_downstream *d)
{
    rp_downstream_tls *tls = d->tls;
    SSL *ssl = tls->ssl;
    BIO *bio = BIO_new(method);

    if (!bio) {
        abort();
    }
    BIO_set_data(bio, d);
    BIO_set_init(bio, 1);
    tls->filter_read = SSL_get_rbio(ssl);
    tls->filter_write = SSL_get_wbio(ssl);
    BIO_up_ref(tls->filter_read);
    BIO_up_ref(tls->filter_write);
    BIO_up_ref(bio);
    SSL_set0_rbio(ssl, bio);
    SSL_set0_wbio(ssl, bio);
    tls->read_ahead = SSL_get_read_ahead(ssl);
    SSL_set_read_ahead(ssl, 1);
    tls->added_modes = MODES & ~SSL_get_mode(ssl);
    SSL_set_mode(ssl, tls->added_modes);
    /* mod_ssl watches renegotiations in its filters, which don't run meanwhile. */
    tls->added_options = SSL_OP_NO_RENEGOTIATION & ~SSL_get_options(ssl);
    SSL_set_options(ssl, tls->added_options);
    tls->ours = 1;
}

rp_downstream_tls *rp_downstream_tls_take(rp_downstream *d, SSL *ssl)
{
    rp_downstream_tls *tls = calloc(1, sizeof(*tls));

    if (tls) {
        tls->ssl = ssl;
        d->tls = tls;
        rp_downstream_tls_retake(d);
    }
    return tls;
}

void rp_downstream_tls_drain(rp_downstream *d)
{
    apr_size_t got;

    d->tls->deaf = 1;
    do {
        rp_downstream_make_room(d, RP_LOOP_BLOCK / 2);
        got = 0;
        if (SSL_read_ex(d->tls->ssl, d->in + d->in_end, d->in_size - d->in_end, &got) != 1) {
            ERR_clear_error();
            got = 0;
        }
        d->in_end += (unsigned int)got;
    } while (got > 0);
    d->tls->deaf = 0;
}

void rp_downstream_tls_give_back(rp_downstream *d)
{
    rp_downstream_tls *tls = d->tls;

    if (!tls->ours) {
        return;
    }
    tls->ours = 0;
    SSL_set0_rbio(tls->ssl, tls->filter_read);
    SSL_set0_wbio(tls->ssl, tls->filter_write);
    SSL_set_read_ahead(tls->ssl, tls->read_ahead);
    SSL_clear_mode(tls->ssl, tls->added_modes);
    SSL_clear_options(tls->ssl, tls->added_options);
}

static void drop_output(rp_downstream *d)
{
    if (d->tls->out) {
        rp_loop_buffer_put(d->loop, d->tls->out);
        d->tls->out = NULL;
    }
}

void rp_downstream_tls_free(rp_downstream *d)
{
    /* mod_ssl ends the session with the connection's pool, and shall not try to say so. */
    SSL_set_shutdown(d->tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    rp_downstream_tls_give_back(d);
    drop_output(d);
    free(d->tls);
    d->tls = NULL;
}

const char *rp_downstream_tls_name(const rp_downstream *d)
{
    return SSL_get_servername(d->tls->ssl, TLSEXT_NAMETYPE_host_name);
}

/* ---- reading and writing --------------------------------------------------------------------- */

static rp_io outcome(rp_downstream *d, int result)
{
    switch (SSL_get_error(d->tls->ssl, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return RP_IO_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return RP_IO_EOF;
    default:
        ERR_clear_error();
        return RP_IO_FAILED;
    }
}

rp_io rp_downstream_tls_read(rp_downstream *d, char *buffer, apr_size_t size, apr_size_t *got)
{
    int result;

    ERR_clear_error();
    result = SSL_read_ex(d->tls->ssl, buffer, size, got);
    if (result == 1) {
        if (d->drained && !SSL_has_pending(d->tls->ssl)) {
            d->readable = 0;            /* the next bytes are an event */
        }
        return RP_IO_DONE;
    }
    *got = 0;
    if (d->tls->out && rp_downstream_tls_flush(d) == RP_IO_FAILED) {
        return RP_IO_FAILED;            /* a key update or an alert was to be answered */
    }
    return outcome(d, result);
}

rp_io rp_downstream_tls_flush(rp_downstream *d)
{
    rp_downstream_tls *tls = d->tls;

    if (tls->holds_back) {
        return RP_IO_AGAIN;
    }
    while (tls->out && tls->out_start < tls->out_end) {
        const struct iovec rest = { tls->out + tls->out_start, tls->out_end - tls->out_start };
        ssize_t sent = rp_send(&d->sent_ahead, d->fd, &rest, 1);

        if (sent >= 0) {
            tls->out_start += (unsigned int)sent;
            rp_downstream_count_out(d, (apr_size_t)sent);
        }
        else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return RP_IO_AGAIN;
        }
        else {
            tls->write_failed = 1;
            drop_output(d);
            return RP_IO_FAILED;
        }
    }
    drop_output(d);
    return tls->write_failed ? RP_IO_FAILED : RP_IO_DONE;
}

/* Encrypts as long as the records have room, then sends them. */
rp_io rp_downstream_tls_write(rp_downstream *d, const struct iovec *vector, int count,
                              apr_size_t *written)
{
    rp_downstream_tls *tls = d->tls;
    rp_io io;

    *written = 0;
    for (int i = 0; i < count; i++) {
        const char *bytes = vector[i].iov_base;
        apr_size_t left = vector[i].iov_len;

        while (left > 0) {
            apr_size_t taken = 0;
            int result;

            if (tls->out && RP_LOOP_BUFFER - tls->out_end < RECORD_MOST) {
                io = rp_downstream_tls_flush(d);
                if (io != RP_IO_DONE) {
                    return *written > 0 && io == RP_IO_AGAIN ? RP_IO_DONE : io;
                }
            }
            ERR_clear_error();
            result = SSL_write_ex(tls->ssl, bytes, left, &taken);
            if (result != 1) {
                io = outcome(d, result);
                return *written > 0 && io == RP_IO_AGAIN ? RP_IO_DONE : io;
            }
            bytes += taken;
            left -= taken;
            *written += taken;
        }
    }
    io = rp_downstream_tls_flush(d);
    return io == RP_IO_AGAIN ? RP_IO_DONE : io;
}

void rp_downstream_tls_prepare(rp_downstream *d, const struct iovec *vector, int count,
                               apr_size_t *written, rp_batch *batch)
{
    rp_downstream_tls *tls = d->tls;

    tls->holds_back = 1;
    rp_downstream_tls_write(d, vector, count, written);
    tls->holds_back = 0;
    if (tls->out) {
        rp_batch_send(batch, d->fd, tls->out + tls->out_start, tls->out_end - tls->out_start,
                      &d->sent_ahead);
    }
}

int rp_downstream_tls_has_pending(const rp_downstream *d)
{
    return SSL_has_pending(d->tls->ssl);
}

void rp_downstream_tls_end(rp_downstream *d)
{
    ERR_clear_error();
    SSL_shutdown(d->tls->ssl);
}
