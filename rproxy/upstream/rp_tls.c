/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The client side of TLS on a connection. OpenSSL writes to the socket with write(): that no
 * SIGPIPE comes of it relies on httpd, whose MPMs all ignore that signal.
 *
 * Before the handshake has ended nothing but OpenSSL reads from the socket, so plain text that
 * someone sends ahead of it is a handshake error and never the beginning of an answer. */

#include <errno.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <apr_strings.h>
#include "rproxy/upstream/rp_upstream_private.h"

#define GATHER_MAX 16384                /* bytes of a TLS record; gathered on the stack */

/* ---- errors ---------------------------------------------------------------------------------- */

/* The oldest error of the queue tells the cause. */
static const char *queue_text(char *text, size_t size)
{
    unsigned long error = ERR_get_error();
    const char *reason = error ? ERR_reason_error_string(error) : NULL;
    if (reason) {
        apr_cpystrn(text, reason, size);
    }
    else {
        ERR_error_string_n(error, text, size);
    }
    return text;
}

/* A connection that ended without close_notify; OpenSSL 3 and older ones say it differently. */
static int is_cut(int kind, int saved_errno)
{
#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
    if (kind == SSL_ERROR_SSL
        && ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        return 1;
    }
#endif
    return kind == SSL_ERROR_SYSCALL && (!saved_errno || saved_errno == ECONNRESET);
}

/* ---- handshake ------------------------------------------------------------------------------- */

/* OpenSSL calls this when the upstream hands out a session, with TLS 1.3 while reading. */
int rp_tls_new_session(SSL *ssl, SSL_SESSION *session)
{
    rp_conn *conn = SSL_get_app_data(ssl);
    if (!conn) {
        return 0;                       /* of another module */
    }
    rp_endpoint *endpoint = conn->endpoint;
    pthread_mutex_lock(&endpoint->lock);
    SSL_SESSION *old = endpoint->session;
    endpoint->session = session;
    pthread_mutex_unlock(&endpoint->lock);
    if (old) {
        SSL_SESSION_free(old);
    }
    return 1;                           /* the reference is ours now */
}

/* A session belongs to its endpoint alone, and an endpoint to one set of CA, name and client
 * certificate: resumption cannot carry a verification over to other settings. */
static void offer_session(rp_conn *conn)
{
    rp_endpoint *endpoint = conn->endpoint;
    pthread_mutex_lock(&endpoint->lock);
    SSL_SESSION *session = endpoint->session;
    if (session) {
        SSL_SESSION_up_ref(session);
    }
    pthread_mutex_unlock(&endpoint->lock);
    if (session) {
        if (SSL_SESSION_is_resumable(session)) {
            SSL_set_session(conn->ssl, session);
        }
        SSL_SESSION_free(session);
    }
}

static void forget_session(rp_endpoint *endpoint)
{
    pthread_mutex_lock(&endpoint->lock);
    SSL_SESSION *session = endpoint->session;
    endpoint->session = NULL;
    pthread_mutex_unlock(&endpoint->lock);
    if (session) {
        SSL_SESSION_free(session);
    }
}

/* SNI and the name to verify; an IP address is verified, but never sent (RFC 6066 section 3). */
static int set_server_name(SSL *ssl, const rp_endpoint *endpoint)
{
    char name[TLSEXT_MAXLEN_host_name + 1];
    rp_sockaddr ignored;
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    if (rp_sockaddr_parse(endpoint->server_name, 0, &ignored)) {
        return !endpoint->tls->verify
               || X509_VERIFY_PARAM_set1_ip_asc(param, endpoint->server_name);
    }
    size_t length = strlen(endpoint->server_name);
    if (length > 1 && endpoint->server_name[length - 1] == '.') {
        length--;                       /* certificates and SNI have no final dot */
    }
    if (length >= sizeof(name)) {
        return 0;
    }
    memcpy(name, endpoint->server_name, length);
    name[length] = '\0';
    if (!SSL_set_tlsext_host_name(ssl, name)) {
        return 0;
    }
    if (!endpoint->tls->verify) {
        return 1;
    }
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return X509_VERIFY_PARAM_set1_host(param, name, 0);
}

static rp_io begin(rp_conn *conn)
{
    const rp_endpoint *endpoint = conn->endpoint;
    if (!endpoint->tls) {
        return rp_conn_fail(conn, RP_REASON_INTERNAL,
                            "the TLS settings for %s were not loaded at startup",
                            endpoint->server_name);
    }
    ERR_clear_error();
    conn->ssl = SSL_new(endpoint->tls->ctx);
    if (!conn->ssl || !SSL_set_fd(conn->ssl, conn->fd)
        || !set_server_name(conn->ssl, endpoint)) {
        char text[256];
        return rp_conn_fail(conn, RP_REASON_INTERNAL, "preparing TLS for %s: %s",
                            endpoint->server_name, queue_text(text, sizeof(text)));
    }
    SSL_set_app_data(conn->ssl, conn);
    SSL_set_connect_state(conn->ssl);
    offer_session(conn);
    return RP_IO_DONE;
}

static rp_io handshake_failed(rp_conn *conn, int kind, int saved_errno)
{
    char text[256];
    const char *name = conn->endpoint->server_name;
    long verified = SSL_get_verify_result(conn->ssl);
    forget_session(conn->endpoint);
    if (conn->endpoint->tls->verify && verified != X509_V_OK) {
        return rp_conn_fail(conn, RP_REASON_TLS_CERTIFICATE, "certificate of %s: %s", name,
                            X509_verify_cert_error_string(verified));
    }
    if (is_cut(kind, saved_errno)) {
        return rp_conn_fail(conn, RP_REASON_TLS_PROTOCOL,
                            "the upstream closed the connection in the TLS handshake");
    }
    if (kind == SSL_ERROR_SYSCALL) {
        return rp_conn_fail_errno(conn, RP_REASON_TLS_PROTOCOL, "TLS handshake", saved_errno);
    }
    return rp_conn_fail(conn, RP_REASON_TLS_PROTOCOL, "TLS handshake with %s: %s", name,
                        queue_text(text, sizeof(text)));
}

rp_io rp_tls_handshake(rp_conn *conn)
{
    if (!conn->ssl && begin(conn) != RP_IO_DONE) {
        return RP_IO_FAILED;
    }
    ERR_clear_error();
    errno = 0;
    int result = SSL_do_handshake(conn->ssl);
    int saved_errno = errno;
    conn->read_wants_write = 0;
    if (result == 1) {
        /* A resumed session brings the result of its own verification along. */
        if (conn->endpoint->tls->verify && SSL_get_verify_result(conn->ssl) != X509_V_OK) {
            return handshake_failed(conn, SSL_ERROR_SSL, 0);
        }
        conn->state = RP_CONN_READY;
        return RP_IO_DONE;
    }
    int kind = SSL_get_error(conn->ssl, result);
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
        conn->read_wants_write = kind == SSL_ERROR_WANT_WRITE;
        return RP_IO_AGAIN;
    }
    return handshake_failed(conn, kind, saved_errno);
}

/* ---- data ------------------------------------------------------------------------------------ */

static rp_io data_failed(rp_conn *conn, const char *doing, int kind, int saved_errno)
{
    char text[256];
    if (is_cut(kind, saved_errno)) {
        return rp_conn_fail(conn, RP_REASON_INCOMPLETE, "%s: cut off without TLS close_notify",
                            doing);
    }
    if (kind == SSL_ERROR_SYSCALL) {
        return rp_conn_fail_errno(conn, RP_REASON_INCOMPLETE, doing, saved_errno);
    }
    return rp_conn_fail(conn, RP_REASON_TLS_PROTOCOL, "%s: TLS: %s", doing,
                        queue_text(text, sizeof(text)));
}

/* Fills the buffer from as many records as are there. */
rp_io rp_tls_read(rp_conn *conn, char *buffer, apr_size_t size, apr_size_t *got)
{
    conn->read_wants_write = 0;
    while (*got < size) {
        size_t count = 0;
        ERR_clear_error();
        errno = 0;
        int result = SSL_read_ex(conn->ssl, buffer + *got, size - *got, &count);
        int saved_errno = errno;
        if (result == 1) {
            *got += count;
            if (!SSL_has_pending(conn->ssl)) {
                return RP_IO_DONE;
            }
            continue;
        }
        int kind = SSL_get_error(conn->ssl, result);
        if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
            conn->read_wants_write = kind == SSL_ERROR_WANT_WRITE;
            return *got ? RP_IO_DONE : RP_IO_AGAIN;
        }
        if (*got) {
            return RP_IO_DONE;          /* the next call meets the end or the error again */
        }
        if (kind == SSL_ERROR_ZERO_RETURN) {
            conn->finished = 1;
            return RP_IO_EOF;
        }
        return data_failed(conn, "reading from the upstream", kind, saved_errno);
    }
    return RP_IO_DONE;
}

/* Many small pieces go into one record; a large first piece goes as it is. Sets what to write. */
static const char *gather(const struct iovec *vector, int count, char *buffer, size_t *length)
{
    if (count == 1 || vector[0].iov_len >= GATHER_MAX) {
        *length = vector[0].iov_len;
        return vector[0].iov_base;
    }
    *length = 0;
    for (int i = 0; i < count && *length < GATHER_MAX; i++) {
        size_t room = GATHER_MAX - *length;
        size_t part = vector[i].iov_len < room ? vector[i].iov_len : room;
        if (part) {
            memcpy(buffer + *length, vector[i].iov_base, part);
            *length += part;
        }
    }
    return buffer;
}

rp_io rp_tls_write(rp_conn *conn, const struct iovec *vector, int count, apr_size_t *written)
{
    char buffer[GATHER_MAX];
    size_t length;
    const char *bytes = gather(vector, count, buffer, &length);
    conn->write_wants_read = 0;
    ERR_clear_error();
    errno = 0;
    int result = SSL_write_ex(conn->ssl, bytes, length, written);
    int saved_errno = errno;
    if (result == 1) {
        return RP_IO_DONE;
    }
    *written = 0;
    int kind = SSL_get_error(conn->ssl, result);
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
        conn->write_wants_read = kind == SSL_ERROR_WANT_READ;
        return RP_IO_AGAIN;
    }
    return data_failed(conn, "writing to the upstream", kind, saved_errno);
}

/* ---- the end --------------------------------------------------------------------------------- */

rp_io rp_tls_end(rp_conn *conn)
{
    ERR_clear_error();
    int result = SSL_shutdown(conn->ssl);
    if (result < 0 && SSL_get_error(conn->ssl, result) == SSL_ERROR_WANT_WRITE) {
        return RP_IO_AGAIN;
    }
    return RP_IO_DONE;
}

int rp_tls_is_quiet(rp_conn *conn)
{
    char byte;
    size_t count;
    ERR_clear_error();
    int result = SSL_peek_ex(conn->ssl, &byte, 1, &count);
    return result != 1 && SSL_get_error(conn->ssl, result) == SSL_ERROR_WANT_READ
           && !SSL_has_pending(conn->ssl);
}

void rp_tls_close(rp_conn *conn)
{
    if (conn->state == RP_CONN_READY && conn->reason != RP_REASON_TLS_PROTOCOL) {
        ERR_clear_error();
        if (!conn->broken) {
            SSL_shutdown(conn->ssl);    /* close_notify, if there is room for it */
        }
        /* OpenSSL takes a session for spoilt whose connection did not end by the book; ours is
         * shared by the connections of an endpoint, and no worse for one that was cut. */
        SSL_set_shutdown(conn->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    }
    SSL_free(conn->ssl);
    conn->ssl = NULL;
    ERR_clear_error();
}
