/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A connection once it is made: reading, writing, waiting, giving back. */

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <apr_errno.h>
#include "rproxy/upstream/rp_upstream_private.h"

#define DETAIL_MAX 512

/* ---- failures -------------------------------------------------------------------------------- */

rp_io rp_conn_fail(rp_conn *conn, rp_reason reason, const char *format, ...)
{
    char text[DETAIL_MAX];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (length < 0) {
        text[0] = '\0';
    }
    free(conn->detail);
    size_t size = strlen(text) + 1;
    conn->detail = memcpy(ap_malloc(size), text, size);
    conn->reason = reason;
    conn->broken = 1;
    return RP_IO_FAILED;
}

rp_io rp_conn_fail_errno(rp_conn *conn, rp_reason reason, const char *what, int error)
{
    char text[200];
    return rp_conn_fail(conn, reason, "%s: %s", what, apr_strerror(error, text, sizeof(text)));
}

rp_reason rp_conn_reason(const rp_conn *conn, const char **detail)
{
    if (detail) {
        *detail = conn->detail ? conn->detail : "";
    }
    return conn->reason;
}

/* ---- connecting ------------------------------------------------------------------------------ */

rp_io rp_conn_connect(rp_conn *conn)
{
    rp_conn_state before = conn->state;
    while (conn->state != RP_CONN_READY && conn->state != RP_CONN_FAILED) {
        rp_io io = conn->state == RP_CONN_HANDSHAKE ? rp_tls_handshake(conn)
                                                    : rp_connecting_step(conn);
        if (io == RP_IO_AGAIN) {
            return io;
        }
        if (io == RP_IO_FAILED) {
            rp_connecting_free(conn);
            conn->state = RP_CONN_FAILED;
            RP_COUNT(connect_failures, 1);
        }
    }
    if (conn->state == RP_CONN_FAILED) {
        return RP_IO_FAILED;
    }
    if (before != RP_CONN_READY) {
        RP_COUNT(connects, 1);
    }
    return RP_IO_DONE;
}

int rp_conn_is_resolving(const rp_conn *conn)
{
    return conn->state == RP_CONN_RESOLVING;
}

int rp_conn_is_reused(const rp_conn *conn)
{
    return conn->exchanges > 0;
}

const char *rp_conn_peer(const rp_conn *conn)
{
    if (conn->state != RP_CONN_READY && conn->state != RP_CONN_HANDSHAKE) {
        return "";
    }
    if (conn->endpoint->socket) {
        return conn->endpoint->socket;
    }
    if (!conn->peer_text) {
        /* Filled in late to keep the structure small; only the owner's thread comes here. */
        rp_conn *owned = (rp_conn *)conn;
        owned->peer_text = ap_malloc(RP_SOCKADDR_TEXT);
        rp_sockaddr_text(&conn->peer, owned->peer_text);
    }
    return conn->peer_text;
}

int rp_conn_fd(const rp_conn *conn)
{
    return conn->state == RP_CONN_READY && !conn->ssl ? conn->fd : -1;
}

apr_ssize_t *rp_conn_sent_ahead(rp_conn *conn)
{
    return &conn->sent_ahead;
}

rp_ahead **rp_conn_ahead(rp_conn *conn)
{
    return conn->state == RP_CONN_READY && !conn->ssl ? &conn->ahead : NULL;
}

void rp_conn_spliced(rp_conn *conn)
{
    conn->drained = 0;
}

/* ---- reading and writing --------------------------------------------------------------------- */

static rp_io plain_read(rp_conn *conn, char *buffer, apr_size_t size, apr_size_t *got)
{
    ssize_t count = rp_receive(&conn->ahead, conn->fd, buffer, size);
    if (count > 0) {
        *got = (apr_size_t)count;
        conn->drained = *got < size;
        return RP_IO_DONE;
    }
    if (count == 0) {
        conn->finished = 1;
        return RP_IO_EOF;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        conn->drained = 1;
        return RP_IO_AGAIN;
    }
    return rp_conn_fail_errno(conn, RP_REASON_INCOMPLETE, "reading from the upstream", errno);
}

static rp_io plain_write(rp_conn *conn, const struct iovec *vector, int count,
                         apr_size_t *written)
{
    ssize_t sent = rp_send(&conn->sent_ahead, conn->fd, vector, count);

    if (sent >= 0) {
        *written = (apr_size_t)sent;
        return RP_IO_DONE;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return RP_IO_AGAIN;
    }
    return rp_conn_fail_errno(conn, RP_REASON_INCOMPLETE, "writing to the upstream", errno);
}

/* Sends what rp_conn_end_write() could not send at once. */
static void finish_end(rp_conn *conn)
{
    if (conn->ssl && rp_tls_end(conn) == RP_IO_AGAIN) {
        return;
    }
    conn->ending = 0;
    shutdown(conn->fd, SHUT_WR);
}

void rp_conn_end_write(rp_conn *conn)
{
    if (conn->state == RP_CONN_READY && !conn->ended) {
        conn->ended = 1;
        conn->ending = 1;
        finish_end(conn);
    }
}

/* Reading goes on after a failed write: an upstream that answers early and closes makes the write
 * fail while its answer waits in the socket. */
rp_io rp_conn_read(rp_conn *conn, char *buffer, apr_size_t size, apr_size_t *got)
{
    *got = 0;
    if (conn->state != RP_CONN_READY) {
        return rp_conn_fail(conn, RP_REASON_INTERNAL, "read before the connection was made");
    }
    if (conn->ending) {
        finish_end(conn);
    }
    return conn->ssl ? rp_tls_read(conn, buffer, size, got) : plain_read(conn, buffer, size, got);
}

rp_io rp_conn_write(rp_conn *conn, const struct iovec *vector, int count, apr_size_t *written)
{
    *written = 0;
    if (conn->state != RP_CONN_READY || conn->ended) {
        return rp_conn_fail(conn, RP_REASON_INTERNAL, "write to a connection not open for it");
    }
    while (count > 0 && vector->iov_len == 0) {
        vector++;
        count--;
    }
    if (count == 0) {
        return RP_IO_DONE;
    }
    return conn->ssl ? rp_tls_write(conn, vector, count, written)
                     : plain_write(conn, vector, count, written);
}

int rp_conn_waits(const rp_conn *conn, int want_read, int want_write, rp_wait_fd *waits,
                  apr_time_t *next_time)
{
    if (next_time) {
        *next_time = 0;
    }
    short events = 0;
    switch ((rp_conn_state)conn->state) {
    case RP_CONN_RESOLVING:
    case RP_CONN_CONNECTING:
        return rp_connecting_waits(conn, waits, next_time);
    case RP_CONN_HANDSHAKE:
        events = conn->read_wants_write ? POLLOUT : POLLIN;
        break;
    case RP_CONN_READY:
        if (want_read) {
            events |= conn->read_wants_write ? POLLOUT : POLLIN;
        }
        if (want_write) {
            events |= conn->write_wants_read ? POLLIN : POLLOUT;
        }
        if (conn->ending) {
            events |= POLLOUT;
        }
        break;
    case RP_CONN_FAILED:
        break;
    }
    if (!events) {
        return 0;
    }
    waits[0].fd = conn->fd;
    waits[0].events = events;
    return 1;
}

/* ---- the end --------------------------------------------------------------------------------- */

void rp_conn_set_peer_idle(rp_conn *conn, apr_interval_time_t timeout)
{
    apr_interval_time_t margin = apr_time_from_sec(1);
    conn->peer_idle = timeout > margin ? timeout - margin : 0;
}

void rp_conn_destroy(rp_conn *conn)
{
    rp_connecting_free(conn);
    rp_ahead_drop(&conn->ahead);
    if (conn->ssl) {
        rp_tls_close(conn);
    }
    if (conn->fd >= 0) {
        close(conn->fd);
    }
    free(conn->detail);
    free(conn->peer_text);
    free(conn);
}
