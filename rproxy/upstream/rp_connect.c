/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* From a name to a connected socket: addresses in the order of RFC 8305, several attempts in
 * flight, the first to connect wins. */

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
#include "rproxy/upstream/rp_upstream_private.h"

#define ATTEMPTS_MAX (RP_CONN_WAITS_MAX - 1)
#define ATTEMPT_DELAY apr_time_from_msec(250)   /* RFC 8305 section 5 */
/* With more addresses than attempts may be in flight, the oldest attempt makes room after this. */
#define ATTEMPT_PATIENCE apr_time_from_sec(2)
#define BACKLOG_DELAY apr_time_from_msec(5)     /* no descriptor tells of room in a Unix backlog */
#define NO_EVENT_DELAY apr_time_from_msec(50)   /* polling a lookup if there is no eventfd for it */

typedef struct attempt {
    int fd;
    int address;                        /* index */
    apr_time_t started;
} attempt;

struct rp_connecting {
    apr_time_t next_time;               /* when to go on without an event; 0: never, or at once */
    int count;                          /* addresses, in the order to try them */
    int next;                           /* first one not tried yet */
    int running;
    attempt attempts[ATTEMPTS_MAX];
    int rank;                           /* of the failure kept in conn->reason */
    rp_sockaddr addresses[];
};

/* ---- order ----------------------------------------------------------------------------------- */

/* Appends list interleaved by family, the family of the first entry first. In each family the start
 * is rotated by turn, so that connections spread over all addresses. */
static int append_interleaved(rp_sockaddr *into, int at, const rp_sockaddr *list, int count,
                              unsigned int turn)
{
    const rp_sockaddr *families[2][RP_ADDRESSES_MAX];
    unsigned int sizes[2] = { 0, 0 };
    for (int i = 0; i < count; i++) {
        int second = list[i].any.sa_family != list[0].any.sa_family;
        families[second][sizes[second]++] = &list[i];
    }
    for (unsigned int i = 0; i < sizes[0] || i < sizes[1]; i++) {
        for (int family = 0; family < 2; family++) {
            if (i < sizes[family]) {
                into[at++] = *families[family][(i + turn) % sizes[family]];
            }
        }
    }
    return at;
}

/* Those that failed lately come last, not never. */
static void order_addresses(rp_conn *conn, const rp_name_result *result)
{
    rp_endpoint *endpoint = conn->endpoint;
    rp_sockaddr good[RP_ADDRESSES_MAX];
    rp_sockaddr bad[RP_ADDRESSES_MAX];
    int goods = 0, bads = 0;
    apr_time_t now = apr_time_now();
    for (int i = 0; i < result->count; i++) {
        if (rp_endpoint_failed_lately(endpoint, &result->addresses[i], now)) {
            bad[bads++] = result->addresses[i];
        }
        else {
            good[goods++] = result->addresses[i];
        }
    }
    /* Relaxed: only spreads the load. */
    unsigned int turn = atomic_fetch_add_explicit(&endpoint->turn, 1, memory_order_relaxed);
    rp_connecting *connecting = conn->connecting;
    int count = append_interleaved(connecting->addresses, 0, good, goods, turn);
    connecting->count = append_interleaved(connecting->addresses, count, bad, bads, turn);
    for (int i = 0; i < connecting->count; i++) {
        rp_sockaddr *address = &connecting->addresses[i];
        if (address->any.sa_family == AF_INET6) {
            address->v6.sin6_port = htons((in_port_t)endpoint->port);
        }
        else {
            address->v4.sin_port = htons((in_port_t)endpoint->port);
        }
    }
}

void rp_connecting_begin(rp_conn *conn)
{
    rp_endpoint *endpoint = conn->endpoint;
    int literal = !endpoint->name && !endpoint->socket;
    conn->connecting = ap_calloc(1, sizeof(rp_connecting)
                                 + (literal ? sizeof(rp_sockaddr) : 0));
    if (literal) {
        conn->connecting->addresses[0] = endpoint->literal;
        conn->connecting->count = 1;
    }
    conn->state = endpoint->name ? RP_CONN_RESOLVING : RP_CONN_CONNECTING;
}

static rp_io resolve_step(rp_conn *conn)
{
    rp_name_result result;
    rp_name *name = conn->endpoint->name;
    switch (rp_name_resolve(name, &result)) {
    case RP_NAME_WAIT:
        conn->connecting->next_time = result.until;
        if (rp_name_event(name) < 0) {
            conn->connecting->next_time = apr_time_now() + NO_EVENT_DELAY;
        }
        return RP_IO_AGAIN;
    case RP_NAME_FAILED:
        return rp_conn_fail(conn, result.reason, "%s", result.detail);
    case RP_NAME_READY:
        break;
    }
    size_t size = sizeof(rp_connecting) + (size_t)result.count * sizeof(rp_sockaddr);
    conn->connecting = ap_realloc(conn->connecting, size);
    conn->connecting->next_time = 0;
    order_addresses(conn, &result);
    conn->generation = result.generation;
    conn->state = RP_CONN_CONNECTING;
    return RP_IO_DONE;
}

/* ---- attempts -------------------------------------------------------------------------------- */

/* Keeps the failure that tells most: a refusal says more than a missing route (of IPv6, mostly), a
 * timeout more than a refusal, anything else most. */
static void note_failure(rp_conn *conn, const rp_sockaddr *address, const char *call, int error)
{
    int rank = 4;
    rp_reason reason = RP_REASON_CONNECT_FAILED;
    if (error == EADDRNOTAVAIL && address->any.sa_family == AF_INET6) {
        error = ENETUNREACH;            /* IPv6 is not set up here; with IPv4: no local port left */
    }
    switch (error) {
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case EAFNOSUPPORT:
        rank = 1;
        reason = RP_REASON_UNROUTABLE;
        break;
    case ECONNREFUSED:
        rank = 2;
        reason = RP_REASON_REFUSED;
        break;
    case ETIMEDOUT:
        rank = 3;
        reason = RP_REASON_CONNECT_TIMEOUT;
        break;
    default:
        break;
    }
    if (rank > conn->connecting->rank) {
        char text[RP_SOCKADDR_TEXT], what[RP_SOCKADDR_TEXT + 32];
        rp_sockaddr_text(address, text);
        snprintf(what, sizeof(what), "%s %s", call, text);
        conn->connecting->rank = rank;
        rp_conn_fail_errno(conn, reason, what, error);
    }
}

static void remove_attempt(rp_connecting *connecting, int index)
{
    close(connecting->attempts[index].fd);
    connecting->running--;
    for (int i = index; i < connecting->running; i++) {
        connecting->attempts[i] = connecting->attempts[i + 1];
    }
}

/* The outcome of an attempt that poll() reports: 0 connected, or the error. */
static int attempt_error(const attempt *tried, const rp_sockaddr *address)
{
    int error = 0;
    socklen_t length = sizeof(error);
    if (getsockopt(tried->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) {
        return errno;
    }
    rp_sockaddr local = { .v6 = { .sin6_family = AF_UNSPEC } };
    length = sizeof(local);
    if (!error && getsockname(tried->fd, &local.any, &length) == 0
        && length == rp_sockaddr_length(address) && rp_sockaddr_same_host(&local, address)
        && local.v4.sin_port == address->v4.sin_port) {
        /* A port that nobody listens on, in the range of ephemeral ports: TCP's simultaneous open
         * has connected the socket to itself. (sin_port and sin6_port share their place.) */
        return ECONNREFUSED;
    }
    return error;
}

static void set_up_socket(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
}

/* Starts the next address. Failure is noted; the caller looks at the attempts afterwards. */
static void start_attempt(rp_conn *conn, apr_time_t now)
{
    rp_connecting *connecting = conn->connecting;
    int index = connecting->next++;
    const rp_sockaddr *address = &connecting->addresses[index];
    connecting->next_time = 0;
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        note_failure(conn, address, "socket for", errno);
        return;
    }
    set_up_socket(fd);
    if (connect(fd, &address->any, rp_sockaddr_length(address)) < 0 && errno != EINPROGRESS) {
        int error = errno;
        close(fd);
        note_failure(conn, address, "connecting to", error);
        rp_endpoint_mark_failed(conn->endpoint, address, now);
        return;
    }
    connecting->attempts[connecting->running++] = (attempt){ fd, index, now };
    if (connecting->next < connecting->count) {
        connecting->next_time = now + ATTEMPT_DELAY;
        apr_time_t room = connecting->attempts[0].started + ATTEMPT_PATIENCE;
        if (connecting->running == ATTEMPTS_MAX && connecting->next_time < room) {
            connecting->next_time = room;
        }
    }
}

/* Looks at the attempts in flight: the index of one that has connected, or -1. The failed are gone
 * afterwards, and the next address may start at once. */
static int collect_attempts(rp_conn *conn, apr_time_t now)
{
    rp_connecting *connecting = conn->connecting;
    struct pollfd descriptors[ATTEMPTS_MAX];
    for (int i = 0; i < connecting->running; i++) {
        descriptors[i] = (struct pollfd){ .fd = connecting->attempts[i].fd, .events = POLLOUT };
    }
    int running = connecting->running;
    if (!running || poll(descriptors, (nfds_t)running, 0) <= 0) {
        return -1;
    }
    for (int i = running - 1; i >= 0; i--) {
        if (!descriptors[i].revents) {
            continue;
        }
        const rp_sockaddr *address = &connecting->addresses[connecting->attempts[i].address];
        int error = attempt_error(&connecting->attempts[i], address);
        if (!error) {
            return i;
        }
        note_failure(conn, address, "connecting to", error);
        rp_endpoint_mark_failed(conn->endpoint, address, now);
        remove_attempt(connecting, i);
        connecting->next_time = 0;
    }
    return -1;
}

/* Takes the winner's socket. Attempts that began before it were overtaken: their addresses count as
 * failed, or each new connection would wait for them again. */
static void adopt(rp_conn *conn, int winner, apr_time_t now)
{
    rp_connecting *connecting = conn->connecting;
    attempt won = connecting->attempts[winner];
    conn->fd = won.fd;
    conn->peer = connecting->addresses[won.address];
    for (int i = 0; i < connecting->running; i++) {
        const attempt *other = &connecting->attempts[i];
        if (other->fd == won.fd) {
            continue;
        }
        if (other->started < won.started) {
            rp_endpoint_mark_failed(conn->endpoint, &connecting->addresses[other->address], now);
        }
        close(other->fd);
    }
    free(connecting);
    conn->connecting = NULL;
}

static rp_io tcp_step(rp_conn *conn)
{
    rp_connecting *connecting = conn->connecting;
    for (;;) {
        apr_time_t now = apr_time_now();
        /* Asked right after connect() too: on one machine the answer is mostly there already. */
        int winner = collect_attempts(conn, now);
        if (winner >= 0) {
            adopt(conn, winner, now);
            return RP_IO_DONE;
        }
        if (connecting->next < connecting->count && now >= connecting->next_time) {
            if (connecting->running == ATTEMPTS_MAX) {
                const rp_sockaddr *oldest =
                    &connecting->addresses[connecting->attempts[0].address];
                note_failure(conn, oldest, "connecting to", ETIMEDOUT);
                rp_endpoint_mark_failed(conn->endpoint, oldest, now);
                remove_attempt(connecting, 0);
            }
            start_attempt(conn, now);
            continue;
        }
        return connecting->running ? RP_IO_AGAIN : RP_IO_FAILED;
    }
}

static rp_io unix_step(rp_conn *conn)
{
    const char *path = conn->endpoint->socket;
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    size_t length = strlen(path);
    if (length >= sizeof(address.sun_path)) {
        return rp_conn_fail(conn, RP_REASON_CONNECT_FAILED, "the path %s is too long for a socket",
                            path);
    }
    memcpy(address.sun_path, path, length);
    if (conn->fd < 0) {
        conn->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (conn->fd < 0) {
            return rp_conn_fail_errno(conn, RP_REASON_CONNECT_FAILED, "socket", errno);
        }
    }
    if (connect(conn->fd, (const struct sockaddr *)&address, sizeof(address)) == 0) {
        free(conn->connecting);
        conn->connecting = NULL;
        return RP_IO_DONE;
    }
    if (errno == EAGAIN) {              /* the backlog is full */
        conn->connecting->next_time = apr_time_now() + BACKLOG_DELAY;
        return RP_IO_AGAIN;
    }
    int refused = errno == ECONNREFUSED || errno == ENOENT;
    return rp_conn_fail_errno(conn, refused ? RP_REASON_REFUSED : RP_REASON_CONNECT_FAILED, path,
                              errno);
}

rp_io rp_connecting_step(rp_conn *conn)
{
    if (conn->state == RP_CONN_RESOLVING) {
        return resolve_step(conn);
    }
    rp_io io = conn->endpoint->socket ? unix_step(conn) : tcp_step(conn);
    if (io == RP_IO_DONE) {
        /* What earlier addresses met is of no interest any more. */
        free(conn->detail);
        conn->detail = NULL;
        conn->reason = RP_REASON_NONE;
        conn->broken = 0;
        conn->state = conn->endpoint->secure ? RP_CONN_HANDSHAKE : RP_CONN_READY;
    }
    return io;
}

int rp_connecting_waits(const rp_conn *conn, rp_wait_fd *waits, apr_time_t *next_time)
{
    const rp_connecting *connecting = conn->connecting;
    if (next_time) {
        *next_time = connecting->next_time;
    }
    if (conn->state == RP_CONN_RESOLVING) {
        waits[0].fd = rp_name_event(conn->endpoint->name);
        waits[0].events = POLLIN;
        return waits[0].fd >= 0;
    }
    for (int i = 0; i < connecting->running; i++) {
        waits[i].fd = connecting->attempts[i].fd;
        waits[i].events = POLLOUT;
    }
    return connecting->running;
}

void rp_connecting_free(rp_conn *conn)
{
    rp_connecting *connecting = conn->connecting;
    if (!connecting) {
        return;
    }
    apr_time_t now = connecting->running ? apr_time_now() : 0;
    for (int i = 0; i < connecting->running; i++) {
        const attempt *open = &connecting->attempts[i];
        /* Given up (by a timeout, mostly) after it had its chance: counts as failed. */
        if (now - open->started >= ATTEMPT_DELAY) {
            rp_endpoint_mark_failed(conn->endpoint, &connecting->addresses[open->address], now);
        }
        close(open->fd);
    }
    free(connecting);
    conn->connecting = NULL;
}
