/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The part of a check that is the same for all kinds: addresses, connection, TLS, time. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <apr_strings.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "balancer/rp_dns.h"
#include "balancer/rp_probe.h"

#define OUT_BYTES 16384                 /* more is no check */
#define READ_BYTES 16384                /* a TLS record: OpenSSL keeps nothing back */

typedef enum state { RESOLVING, CONNECTING, HANDSHAKE, TALKING, ENDED } state;

struct rp_probe_run {
    rproxy_check check;                 /* first: send() finds the run */
    rp_keeper *keeper;
    const rp_probe_settings *settings;
    const rproxy_place *place;
    rp_probe_ended *ended;
    void *baton;
    apr_time_t began;
    rp_keeper_timer timer;              /* the end of its time, or of it */
    state state;
    int has_passed;
    rp_dns_query *query;                /* while resolving; NULL: no name to look up */
    rp_dns_address addresses[RP_DNS_ADDRESSES_MAX];
    int address_count, next_address;
    int fd;
    SSL *ssl;
    int wants_write;                    /* TLS can't go on before */
    int has_begun;                      /* the probe has been called */
    int has_overflown;                  /* it sent more than there is room for */
    apr_size_t out_len;
    char out[OUT_BYTES];
};

void rp_probe_say(rproxy_check *check, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    apr_vsnprintf(check->cause, sizeof(check->cause), format, arguments);
    va_end(arguments);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void close_connection(rp_probe_run *run)
{
    if (run->ssl) {
        SSL_free(run->ssl);
        run->ssl = NULL;
    }
    if (run->fd >= 0) {
        rp_keeper_unwatch(run->keeper, run->fd);
        close(run->fd);
        run->fd = -1;
    }
}

static void give_back(rp_probe_run *run)
{
    rp_keeper_cancel(run->keeper, &run->timer);
    if (run->query)
        rp_dns_cancel(run->query);
    run->query = NULL;
    close_connection(run);
    if (run->has_begun && run->settings->probe->end)
        run->settings->probe->end(&run->check);
    run->has_begun = 0;
}

void rp_probe_cancel(rp_probe_run *run)
{
    give_back(run);
    apr_pool_destroy(run->check.pool);
}

static void tell(rp_keeper *keeper, void *baton)
{
    rp_probe_run *run = baton;
    apr_pool_t *pool = run->check.pool;

    run->ended(run->baton, &run->check, run->has_passed, rp_keeper_now(keeper) - run->began);
    apr_pool_destroy(pool);
}

/** Told in the loop's next round: whoever called is done with the run by then. */
static void finish(rp_probe_run *run, int has_passed)
{
    if (run->state == ENDED)
        return;
    run->state = ENDED;
    run->has_passed = has_passed;
    give_back(run);
    rp_keeper_at(run->keeper, &run->timer, rp_keeper_now(run->keeper), tell, run);
}

static void fail(rp_probe_run *run, const char *cause)
{
    rp_probe_say(&run->check, "%s", cause);
    finish(run, 0);
}

static void expired(rp_keeper *keeper, void *baton)
{
    static const char *const causes[] = {
        "timeout: the name server does not answer", "timeout: no connection",
        "timeout in the TLS handshake", "timeout: no answer, or not all of it"
    };
    rp_probe_run *run = baton;

    (void)keeper;
    fail(run, causes[run->state]);
}

static void verdict(rp_probe_run *run, rproxy_check_verdict said)
{
    if (run->has_overflown)
        fail(run, "there is more to send than a check may");
    else if (said != RPROXY_CHECK_GOES_ON)
        finish(run, said == RPROXY_CHECK_PASSED);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static const char *tls_cause(const rp_probe_run *run)
{
    long verified = SSL_get_verify_result(run->ssl);
    unsigned long error = ERR_peek_error();
    const char *reason = error ? ERR_reason_error_string(error) : NULL;

    if (verified != X509_V_OK)
        return X509_verify_cert_error_string(verified);
    return reason ? reason : "the connection ended";
}

/** What a call of OpenSSL wants; nonzero: it failed for good. */
static int tls_failed(rp_probe_run *run, int result)
{
    int error = SSL_get_error(run->ssl, result);

    run->wants_write = error == SSL_ERROR_WANT_WRITE;
    return error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE;
}

static void write_out(rp_probe_run *run)
{
    apr_size_t sent = 0;

    while (sent < run->out_len) {
        const char *from = run->out + sent;
        apr_size_t len = run->out_len - sent;
        ssize_t written;

        if (run->ssl) {
            ERR_clear_error();
            written = SSL_write(run->ssl, from, (int)len);
            if (written <= 0 && tls_failed(run, (int)written)) {
                fail(run, "the connection broke while sending");
                return;
            }
        }
        else if ((written = send(run->fd, from, len, MSG_NOSIGNAL)) < 0 && errno != EAGAIN) {
            rp_probe_say(&run->check, "sending failed: %s", strerror(errno));
            finish(run, 0);
            return;
        }
        if (written <= 0)
            break;
        sent += (apr_size_t)written;
    }
    run->out_len -= sent;
    memmove(run->out, run->out + sent, run->out_len);
}

static void queue(rproxy_check *check, const void *data, apr_size_t len)
{
    rp_probe_run *run = (rp_probe_run *)check;

    if (run->state == ENDED)
        return;
    if (len > sizeof(run->out) - run->out_len) {
        run->has_overflown = 1;
        return;
    }
    memcpy(run->out + run->out_len, data, len);
    run->out_len += len;
}

static void read_in(rp_probe_run *run)
{
    char data[READ_BYTES];
    ssize_t got;

    if (run->ssl) {
        ERR_clear_error();
        got = SSL_read(run->ssl, data, sizeof(data));
        if (got <= 0 && !tls_failed(run, (int)got))
            return;
        got = got < 0 ? 0 : got;
    }
    else if ((got = recv(run->fd, data, sizeof(data), 0)) < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return;
        rp_probe_say(&run->check, "the connection broke: %s", strerror(errno));
        finish(run, 0);
        return;
    }
    verdict(run, run->settings->probe->received
                 ? run->settings->probe->received(&run->check, data, (apr_size_t)got)
                 : RPROXY_CHECK_PASSED);
}

/* ---- TLS ------------------------------------------------------------------------------------- */

static void talk(rp_probe_run *run)
{
    run->state = TALKING;
    run->has_begun = 1;
    verdict(run, run->settings->probe->begin ? run->settings->probe->begin(&run->check)
                                             : RPROXY_CHECK_PASSED);
}

static void shake_hands(rp_probe_run *run)
{
    const unsigned char *protocol;
    unsigned int len;
    int result;

    ERR_clear_error();
    result = SSL_connect(run->ssl);
    if (result == 1) {
        SSL_get0_alpn_selected(run->ssl, &protocol, &len);
        if (len)
            run->check.protocol = apr_pstrmemdup(run->check.pool, (const char *)protocol, len);
        run->wants_write = 0;
        talk(run);
    }
    else if (tls_failed(run, result)) {
        rp_probe_say(&run->check, "TLS: %s", tls_cause(run));
        finish(run, 0);
    }
}

static int is_address(const char *name)
{
    struct in6_addr ignored;

    return inet_pton(AF_INET, name, &ignored) == 1 || inet_pton(AF_INET6, name, &ignored) == 1;
}

static int wants_tls(const rp_probe_run *run)
{
    rproxy_probe_tls tls = run->settings->probe->tls;

    return tls == RPROXY_PROBE_TLS || (tls == RPROXY_PROBE_AS_MEMBER && run->place->is_tls);
}

/** The name without a port. */
static const char *name_of(const rp_probe_run *run)
{
    const char *name = run->settings->name ? run->settings->name : run->settings->host, *end;

    if (!name)
        return run->place->host;
    if (*name == '[' && (end = strchr(name, ']')))
        return apr_pstrmemdup(run->check.pool, name + 1, (apr_size_t)(end - name) - 1);
    return is_address(name) ? name
        : apr_pstrmemdup(run->check.pool, name, strcspn(name, ":"));
}

static void start_tls(rp_probe_run *run)
{
    const char *protocols = run->settings->probe->protocols, *name = name_of(run);
    int is_ip = is_address(name), is_set;

    run->ssl = run->settings->tls ? SSL_new(run->settings->tls) : NULL;
    if (!run->ssl || SSL_set_fd(run->ssl, run->fd) != 1) {
        fail(run, "TLS could not be started");
        return;
    }
    is_set = is_ip ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(run->ssl), name)
                   : SSL_set1_host(run->ssl, name);
    if (is_set != 1 || (!is_ip && SSL_set_tlsext_host_name(run->ssl, name) != 1)
        || (protocols && SSL_set_alpn_protos(run->ssl, (const unsigned char *)protocols,
                                             (unsigned int)strlen(protocols)) != 0)) {
        fail(run, "TLS could not be started: a bad name");
        return;
    }
    run->state = HANDSHAKE;
    shake_hands(run);
}

/* ---- the connection -------------------------------------------------------------------------- */

static void connect_next(rp_probe_run *run);

static void connected(rp_probe_run *run)
{
    int error = 0;
    socklen_t len = sizeof(error);

    if (getsockopt(run->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        error = errno;
    if (error) {
        rp_probe_say(&run->check, "no connection: %s", strerror(error));
        close_connection(run);
        connect_next(run);
    }
    else if (wants_tls(run))
        start_tls(run);
    else
        talk(run);
}

static void watch(rp_probe_run *run);

static void ready(rp_keeper *keeper, int fd, int events, void *baton)
{
    rp_probe_run *run = baton;

    (void)keeper;
    (void)fd;
    if (run->state == CONNECTING)
        connected(run);
    else if (run->state == HANDSHAKE)
        shake_hands(run);
    else if (run->state == TALKING) {
        if (run->out_len)
            write_out(run);
        if (run->state == TALKING && (events & RP_KEEPER_READ || run->ssl))
            read_in(run);
    }
    if (run->state == TALKING && run->out_len)
        write_out(run);
    watch(run);
}

/** Waits for what the state needs. */
static void watch(rp_probe_run *run)
{
    int events = RP_KEEPER_READ;

    if (run->state == ENDED || run->fd < 0)
        return;
    if (run->state == CONNECTING)
        events = RP_KEEPER_WRITE;
    else if (run->wants_write || (run->state == TALKING && run->out_len))
        events = RP_KEEPER_READ | RP_KEEPER_WRITE;
    if (!rp_keeper_watch(run->keeper, run->fd, events, ready, run))
        fail(run, "the socket could not be watched");
}

static int begin_connect(rp_probe_run *run, const struct sockaddr *address, socklen_t len)
{
    int on = 1;

    run->fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (run->fd < 0)
        return errno;
    if (address->sa_family != AF_UNIX)
        setsockopt(run->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(run->fd, address, len) == 0 || errno == EINPROGRESS)
        return 0;
    return errno;
}

/** Tries addresses, until one takes up a connection. */
static void connect_next(rp_probe_run *run)
{
    while (run->next_address < run->address_count) {
        const rp_dns_address *address = &run->addresses[run->next_address++];
        int error = begin_connect(run, &address->at.any, address->len);

        if (!error) {
            run->state = CONNECTING;
            watch(run);
            return;
        }
        rp_probe_say(&run->check, "no connection: %s", strerror(error));
        close_connection(run);
    }
    finish(run, 0);
}

static void connect_socket(rp_probe_run *run)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int error;

    apr_cpystrn(address.sun_path, run->place->socket, sizeof(address.sun_path));
    if (!(error = begin_connect(run, (struct sockaddr *)&address, sizeof(address)))) {
        run->state = CONNECTING;
        watch(run);
        return;
    }
    rp_probe_say(&run->check, "no connection: %s", strerror(error));
    finish(run, 0);
}

static void resolved(void *baton, const rp_dns_address *addresses, int count, const char *cause)
{
    rp_probe_run *run = baton;

    run->query = NULL;
    if (!count) {
        rp_probe_say(&run->check, "no address: %s", cause);
        finish(run, 0);
        return;
    }
    memcpy(run->addresses, addresses, (apr_size_t)count * sizeof(*addresses));
    run->address_count = count;
    connect_next(run);
}

static int literal(const char *host, int port, rp_dns_address *address)
{
    memset(address, 0, sizeof(*address));
    if (inet_pton(AF_INET, host, &address->at.v4.sin_addr) == 1) {
        address->at.v4.sin_family = AF_INET;
        address->at.v4.sin_port = htons((apr_uint16_t)port);
        address->len = sizeof(address->at.v4);
        return 1;
    }
    if (inet_pton(AF_INET6, host, &address->at.v6.sin6_addr) == 1) {
        address->at.v6.sin6_family = AF_INET6;
        address->at.v6.sin6_port = htons((apr_uint16_t)port);
        address->len = sizeof(address->at.v6);
        return 1;
    }
    return 0;
}

static void find_address(rp_probe_run *run)
{
    const char *host = run->place->address ? run->place->address : run->place->host;
    int port = run->settings->port ? run->settings->port : run->place->port;

    if (run->place->socket && !run->settings->port)
        connect_socket(run);
    else if (literal(host, port, &run->addresses[0])) {
        run->address_count = 1;
        connect_next(run);
    }
    else if (!(run->query = rp_dns_addresses(run->keeper, host, port, resolved, run)))
        fail(run, "names cannot be looked up");
}

rp_probe_run *rp_probe_begin(rp_keeper *keeper, apr_pool_t *pool,
                             const rp_probe_settings *settings, const rproxy_place *place,
                             rp_probe_ended *ended, void *baton)
{
    apr_pool_t *own;
    rp_probe_run *run;

    apr_pool_create(&own, pool);
    run = apr_palloc(own, sizeof(*run));
    memset(run, 0, offsetof(rp_probe_run, out));
    run->check.pool = own;
    run->check.place = place;
    run->check.host = settings->host ? settings->host : place->authority;
    run->check.config = settings->config;
    run->check.send = queue;
    run->check.advice = (rproxy_advice){ .percent = -1, .max = -1 };
    run->keeper = keeper;
    run->settings = settings;
    run->place = place;
    run->ended = ended;
    run->baton = baton;
    run->began = rp_keeper_now(keeper);
    run->fd = -1;
    rp_keeper_at(keeper, &run->timer, run->began + settings->timeout, expired, run);
    find_address(run);
    return run;
}
