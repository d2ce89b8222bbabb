/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/eventfd.h>
#include <netinet/in.h>
#include <apr_strings.h>
#include "ap_mpm.h"
#include "rproxy/http/rp_http.h"
#include "rproxy/metrics/rp_metrics_listen.h"
#include "rproxy/rp_signals.h"

#define KEY "rproxy-metrics-listen-1"
#define BACKLOG 64
#define CLIENTS 8
#define HEAD_MAX 8192
#define FIELDS_MAX 64
#define HEAD_SECONDS 5                  /* for the request */
#define SEND_SECONDS 30                 /* for the answer */
#define LINGER_SECONDS 1                /* what a client still sends is read so long */
#define REST_MS 100                     /* when there are no descriptors */
#define STOP_PATIENCE 2                 /* seconds that the thread gets to end */

/** The parent's, in the process's pool. */
typedef struct kept_socket {
    int fd;                             /* -1: none */
    struct sockaddr_storage address;
    socklen_t len;
} kept_socket;

typedef enum client_phase { CLIENT_NONE, CLIENT_READS, CLIENT_SENDS, CLIENT_LINGERS } client_phase;

typedef struct client {
    client_phase phase;
    int fd;
    apr_int64_t since, until;           /* milliseconds of the monotonic clock */
    char head[HEAD_MAX];
    apr_size_t len, scanned;            /* of head */
    char answer[512];                   /* head of the answer, or all of it */
    apr_size_t answer_len, sent;        /* sent: of answer and text */
    rp_metrics_text text;
    int has_text;                       /* it is sent behind the answer */
} client;

static int listening = -1;

static struct {
    pthread_t thread;
    int wake;                           /* an eventfd */
    atomic_int stopping;
    rp_metrics_writer *write;
    /* the thread's own */
    apr_pool_t *pool;
    client clients[CLIENTS];
    apr_int64_t rest_until;
    int is_quiet;                       /* takes no new clients */
} server = { .wake = -1 };

/* ---- the address ----------------------------------------------------------------------------- */

const char *rp_metrics_address_parse(apr_pool_t *pool, const char *text,
                                     rp_metrics_address *address)
{
    struct sockaddr_in *four = (struct sockaddr_in *)&address->address;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&address->address;
    char *host = NULL, *scope = NULL;
    apr_port_t port = 0;

    memset(address, 0, sizeof(*address));
    if (apr_parse_addr_port(&host, &scope, &port, text, pool) != APR_SUCCESS || !port || scope)
        return apr_psprintf(pool, "RProxyMetricsListen \"%s\": write a port, or an address and a "
                            "port, like 9145, 192.0.2.1:9145 or [2001:db8::1]:9145", text);
    if (!host)
        host = apr_pstrdup(pool, "127.0.0.1");
    if (inet_pton(AF_INET, host, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(port);
        address->len = sizeof(*four);
    }
    else if (inet_pton(AF_INET6, host, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(port);
        address->len = sizeof(*six);
    }
    else
        return apr_psprintf(pool, "RProxyMetricsListen \"%s\": \"%s\" is no IP address; names are "
                            "not resolved. Everybody who reaches the port can read the page: to "
                            "listen on all addresses write 0.0.0.0:%d or [::]:%d", text, host,
                            (int)port, (int)port);
    address->text = apr_psprintf(pool, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, (int)port);
    return NULL;
}

/* ---- the parent ------------------------------------------------------------------------------ */

static int open_socket(const rp_metrics_address *address)
{
    int fd = socket(address->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1, error;

    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0
        && bind(fd, (const struct sockaddr *)&address->address, address->len) == 0
        && listen(fd, BACKLOG) == 0)
        return fd;
    error = errno;
    close(fd);
    errno = error;
    return -1;
}

apr_status_t rp_metrics_listen_open(apr_pool_t *process_pool, const rp_metrics_address *address)
{
    void *found = NULL;
    kept_socket *kept;

    /* The module is loaded anew for each configuration: only the pool remembers. */
    apr_pool_userdata_get(&found, KEY, process_pool);
    if (!found) {
        kept = apr_pcalloc(process_pool, sizeof(*kept));
        kept->fd = -1;
        apr_pool_userdata_set(kept, KEY, NULL, process_pool);
    }
    else
        kept = found;
    if (kept->fd >= 0 && (!address || address->len != kept->len
                          || memcmp(&address->address, &kept->address, kept->len) != 0)) {
        /* Children of the last configuration have it too: this ends it for all. */
        shutdown(kept->fd, SHUT_RDWR);
        close(kept->fd);
        kept->fd = -1;
    }
    if (address && kept->fd < 0) {
        if ((kept->fd = open_socket(address)) < 0)
            return errno;
        kept->address = address->address;
        kept->len = address->len;
    }
    listening = kept->fd;
    return APR_SUCCESS;
}

/* ---- clients --------------------------------------------------------------------------------- */

static apr_int64_t milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (apr_int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void drop(client *c)
{
    close(c->fd);
    rp_metrics_text_drop(&c->text);
    c->phase = CLIENT_NONE;
}

/** An answer without a page. */
static void answer_briefly(client *c, int status, const char *reason, const char *more)
{
    c->answer_len = (apr_size_t)snprintf(c->answer, sizeof(c->answer),
                                         "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain\r\n"
                                         "Content-Length: %d\r\nConnection: close\r\n\r\n%s\n",
                                         status, reason, more, (int)strlen(reason) + 1, reason);
}

static void answer_page(client *c, int is_head)
{
    server.write(&c->text);
    if (c->text.failed) {
        rp_metrics_text_drop(&c->text);
        answer_briefly(c, 503, "Service Unavailable", "");
        return;
    }
    c->answer_len = (apr_size_t)snprintf(c->answer, sizeof(c->answer),
                                         "HTTP/1.1 200 OK\r\nContent-Type: %s\r\n"
                                         "Content-Length: %" APR_SIZE_T_FMT "\r\n"
                                         "Cache-Control: no-store\r\nConnection: close\r\n\r\n",
                                         RP_METRICS_TYPE, c->text.len);
    c->has_text = !is_head;
}

static void answer_request(client *c, const rp_request *request)
{
    const char *path = "", *query;
    int is_head = strcmp(request->method, "HEAD") == 0;

    if (request->framing != RP_BODY_NONE && request->content_length != 0)
        answer_briefly(c, 400, "Bad Request", "");
    else if (rp_uri_path(server.pool, request->target, RP_SLASHES_REJECT, 0, &path, &query)
             != RP_HTTP_OK)
        answer_briefly(c, 400, "Bad Request", "");
    else if (strcmp(path, "/metrics") != 0)
        answer_briefly(c, 404, "Not Found", "");
    else if (!is_head && strcmp(request->method, "GET") != 0)
        answer_briefly(c, 405, "Method Not Allowed", "Allow: GET, HEAD\r\n");
    else
        answer_page(c, is_head);
}

/** Sends what goes. */
static void send_answer(client *c)
{
    apr_size_t total = c->answer_len + (c->has_text ? c->text.len : 0);

    while (c->sent < total) {
        int in_head = c->sent < c->answer_len;
        const char *data = in_head ? c->answer + c->sent : c->text.data + (c->sent - c->answer_len);
        ssize_t n = send(c->fd, data, (in_head ? c->answer_len : total) - c->sent,
                         MSG_NOSIGNAL | (in_head && c->has_text ? MSG_MORE : 0));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n < 0) {
            drop(c);
            return;
        }
        c->sent += (apr_size_t)n;
    }
    /* Closed with bytes of the client unread the connection would be reset, the answer lost. */
    shutdown(c->fd, SHUT_WR);
    rp_metrics_text_drop(&c->text);
    c->has_text = 0;
    c->phase = CLIENT_LINGERS;
    c->until = milliseconds() + LINGER_SECONDS * 1000;
}

static void begin_answer(client *c)
{
    c->phase = CLIENT_SENDS;
    c->until = milliseconds() + SEND_SECONDS * 1000;
    send_answer(c);
}

static void parse(client *c)
{
    rp_request request = { .method = "" };
    rp_http_error error = RP_HTTP_OK;
    apr_size_t head_len = 0;

    switch (rp_http_parse_request(server.pool, c->head, c->len, HEAD_MAX, FIELDS_MAX, &c->scanned,
                                  &head_len, &request, &error)) {
    case RP_PARSE_DONE:
        answer_request(c, &request);
        begin_answer(c);
        break;
    case RP_PARSE_FAILED:
        answer_briefly(c, 400, "Bad Request", "");
        begin_answer(c);
        break;
    default:
        if (c->len == sizeof(c->head)) {
            answer_briefly(c, 431, "Request Header Fields Too Large", "");
            begin_answer(c);
        }
        break;
    }
    apr_pool_clear(server.pool);
}

static void read_client(client *c)
{
    char rest[HEAD_MAX];
    int reads = c->phase == CLIENT_READS;
    ssize_t n = reads ? recv(c->fd, c->head + c->len, sizeof(c->head) - c->len, 0)
                      : recv(c->fd, rest, sizeof(rest), 0);

    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n <= 0)
        drop(c);
    else if (reads) {
        c->len += (apr_size_t)n;
        parse(c);
    }
}

/* ---- the thread ------------------------------------------------------------------------------ */

static int takes_clients(apr_int64_t now)
{
    return !server.is_quiet && now >= server.rest_until;
}

/** A place for a client: a free one, else that of the oldest. */
static client *place(void)
{
    client *oldest = &server.clients[0];

    for (int i = 0; i < CLIENTS; i++) {
        client *c = &server.clients[i];

        if (c->phase == CLIENT_NONE)
            return c;
        if (c->since < oldest->since)
            oldest = c;
    }
    drop(oldest);
    return oldest;
}

static void accept_client(apr_int64_t now)
{
    int state = AP_MPMQ_RUNNING;
    client *c;
    int fd;

    if (ap_mpm_query(AP_MPMQ_MPM_STATE, &state) == APR_SUCCESS && state == AP_MPMQ_STOPPING) {
        server.is_quiet = 1;
        return;
    }
    fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EINVAL)
            server.is_quiet = 1;        /* the parent has closed it */
        else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR
                 && errno != ECONNABORTED)
            server.rest_until = now + REST_MS;
        return;
    }
    c = place();
    c->phase = CLIENT_READS;
    c->fd = fd;
    c->since = now;
    c->until = now + HEAD_SECONDS * 1000;
    c->len = c->scanned = c->answer_len = c->sent = 0;
    c->has_text = 0;
}

/** Drops clients that are too late. Returns when something is due next, -1: never. */
static apr_int64_t expire(apr_int64_t now)
{
    apr_int64_t next = now < server.rest_until ? server.rest_until : -1;

    for (int i = 0; i < CLIENTS; i++) {
        client *c = &server.clients[i];

        if (c->phase != CLIENT_NONE && now >= c->until)
            drop(c);
        if (c->phase != CLIENT_NONE && (next < 0 || c->until < next))
            next = c->until;
    }
    return next;
}

static void step(void)
{
    apr_int64_t now = milliseconds(), due = expire(now);
    struct pollfd fds[CLIENTS + 2] = {
        { .fd = server.wake, .events = POLLIN },
        { .fd = takes_clients(now) ? listening : -1, .events = POLLIN }
    };

    for (int i = 0; i < CLIENTS; i++) {
        const client *c = &server.clients[i];

        fds[i + 2].fd = c->phase == CLIENT_NONE ? -1 : c->fd;
        fds[i + 2].events = c->phase == CLIENT_SENDS ? POLLOUT : POLLIN;
    }
    if (poll(fds, CLIENTS + 2, due < 0 ? -1 : (int)(due - now)) <= 0)
        return;
    if (fds[0].revents) {
        apr_uint64_t count;

        /* What it says is in stopping. */
        if (read(server.wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
            return;
    }
    for (int i = 0; i < CLIENTS; i++) {
        client *c = &server.clients[i];

        if (!fds[i + 2].revents)
            continue;
        if (c->phase == CLIENT_SENDS)
            send_answer(c);
        else
            read_client(c);
    }
    if (fds[1].revents)
        accept_client(milliseconds());
}

static void *run(void *baton)
{
    (void)baton;
    while (!atomic_load(&server.stopping))
        step();
    for (int i = 0; i < CLIENTS; i++) {
        if (server.clients[i].phase != CLIENT_NONE)
            drop(&server.clients[i]);
    }
    return NULL;
}

/* ---- start and stop -------------------------------------------------------------------------- */

static void wake_up(void)
{
    apr_uint64_t one = 1;

    /* It can only fail where the thread is to wake already. */
    if (server.wake >= 0 && write(server.wake, &one, sizeof(one)) < 0)
        return;
}

/** The wait is bounded: the child may be ending from within a signal handler that interrupted a
 * holder of some lock. */
static apr_status_t stop(void *baton)
{
    struct timespec until;

    (void)baton;
    atomic_store(&server.stopping, 1);
    wake_up();
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_PATIENCE;
    if (pthread_timedjoin_np(server.thread, NULL, &until) == 0) {
        apr_pool_destroy(server.pool);
        close(server.wake);
        server.wake = -1;
    }
    return APR_SUCCESS;
}

static int start_thread(void)
{
    sigset_t before;
    int error;

    rp_signals_block(&before);
    error = pthread_create(&server.thread, NULL, run, NULL);
    rp_signals_restore(&before);
    return error;
}

apr_status_t rp_metrics_listen_start(apr_pool_t *pool, rp_metrics_writer *write)
{
    apr_allocator_t *allocator;
    int error;

    if (listening < 0)
        return APR_SUCCESS;
    server.write = write;
    atomic_store(&server.stopping, 0);
    server.is_quiet = 0;
    server.rest_until = 0;
    if ((server.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0)
        return errno;
    /* Its own memory, which no other thread touches, and which outlives a thread that hangs. */
    if (apr_allocator_create(&allocator) != APR_SUCCESS
        || apr_pool_create_unmanaged_ex(&server.pool, NULL, allocator) != APR_SUCCESS)
        return APR_ENOMEM;
    apr_allocator_owner_set(allocator, server.pool);
    if ((error = start_thread()) != 0)
        return error;
    apr_pool_pre_cleanup_register(pool, NULL, stop);
    return APR_SUCCESS;
}
