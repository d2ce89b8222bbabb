/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A client's connection for soak_client: blocking, plain or TLS, with a buffer for what was read.
 * One thread's at a time.
 */
#ifndef BENCH_SOAK_LINK_H
#define BENCH_SOAK_LINK_H

#include "soak.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/time.h>

#define LINK_BUFFER 65536
#define LINK_LIMIT 30       /* seconds without any progress */

typedef struct {
    int fd;
    SSL *ssl;               /* NULL: plain */
    bool stalled;           /* nothing came, or could be sent, for LINK_LIMIT seconds */
    size_t start, end;      /* what has been read and not yet been used */
    char buffer[LINK_BUFFER];
} link_t;

/* context NULL: plain. False: no connection, or no handshake; *what says which. */
static inline bool link_open(link_t *l, int port, SSL_CTX *context, const char **what)
{
    const struct timeval limit = { .tv_sec = LINK_LIMIT };
    const struct sockaddr_in sa = loopback(port);
    const int on = 1;

    l->ssl = NULL;
    l->stalled = false;
    l->start = l->end = 0;
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (l->fd < 0)
        die("socket");
    setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(l->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(l->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    *what = "no connection";
    if (connect(l->fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0)
        return false;
    if (!context)
        return true;
    *what = "no TLS handshake";
    l->ssl = SSL_new(context);
    if (!l->ssl || SSL_set_fd(l->ssl, l->fd) != 1)
        die("SSL_new");
    ERR_clear_error();
    return SSL_connect(l->ssl) == 1;
}

/* polite: with close_notify and FIN; else with a reset. */
static inline void link_close(link_t *l, bool polite)
{
    const struct linger reset = { .l_onoff = 1 };

    if (!polite)
        setsockopt(l->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    if (l->ssl) {
        ERR_clear_error();
        if (polite)
            SSL_shutdown(l->ssl);
        SSL_free(l->ssl);
    }
    close(l->fd);
}

static inline bool link_put(link_t *l, const void *bytes, size_t len)
{
    const char *at = bytes;

    while (len > 0) {
        ssize_t sent;

        errno = 0;
        ERR_clear_error();
        sent = l->ssl ? SSL_write(l->ssl, at, (int)(len < 1 << 20 ? len : 1 << 20))
                      : send(l->fd, at, len, MSG_NOSIGNAL);
        if (sent <= 0) {
            l->stalled |= errno == EAGAIN;
            return false;
        }
        at += sent;
        len -= (size_t)sent;
    }
    return true;
}

/* Reads more into the buffer; false: the end, an error, or stalled. */
static inline bool link_more(link_t *l)
{
    ssize_t got;

    if (l->start > 0) {
        memmove(l->buffer, l->buffer + l->start, l->end - l->start);
        l->end -= l->start;
        l->start = 0;
    }
    if (l->end == LINK_BUFFER)
        return false;
    errno = 0;
    ERR_clear_error();
    got = l->ssl ? SSL_read(l->ssl, l->buffer + l->end, (int)(LINK_BUFFER - l->end))
                 : recv(l->fd, l->buffer + l->end, LINK_BUFFER - l->end, 0);
    if (got <= 0) {
        l->stalled |= errno == EAGAIN;
        return false;
    }
    l->end += (size_t)got;
    return true;
}

/* The bytes up to and with the mark, ended with a zero; false: there is none. */
static inline bool link_take_until(link_t *l, const char *mark, char *text, size_t room)
{
    const size_t mark_len = strlen(mark);
    const char *found;
    size_t len;

    while (!(found = memmem(l->buffer + l->start, l->end - l->start, mark, mark_len))) {
        if (l->end - l->start >= room || !link_more(l))
            return false;
    }
    len = (size_t)(found - l->buffer) + mark_len - l->start;
    if (len >= room)
        return false;
    memcpy(text, l->buffer + l->start, len);
    text[len] = '\0';
    l->start += len;
    return true;
}

#endif
