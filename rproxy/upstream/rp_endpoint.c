/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Endpoints: the table of them, what tells them apart, and their idle connections. */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include "rproxy/upstream/rp_upstream_private.h"

#define BUCKETS 256                     /* of the table; a power of two */
#define FAILED_LATELY apr_time_from_sec(10)
#define POLL_MAX 64                     /* idle connections looked at in one poll() */

/* Remembers in rp_target.upstream which endpoint goes with which settings. Entries are only ever
 * put in front, so that readers need no lock. */
typedef struct cached {
    struct cached *next;                /* of the same target */
    struct cached *next_of_all;         /* table lock; for freeing */
    rp_endpoint *endpoint;
} cached;

static struct {
    pthread_mutex_t lock;
    rp_endpoint *buckets[BUCKETS];
    int dynamic;                        /* endpoints that are not permanent */
    cached *all_cached;
    int running;
} table = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* ---- making and finding endpoints ------------------------------------------------------------ */

/* What tells pools apart, beside the target's key. */
typedef struct settings {
    const rp_tls_context *tls;
    const char *server_name;
    const rp_keepalive *keepalive;
} settings;

static int settings_match(const rp_endpoint *endpoint, const settings *wanted)
{
    const rp_keepalive *a = &endpoint->keepalive;
    const rp_keepalive *b = wanted->keepalive;
    return endpoint->tls == wanted->tls && a->max == b->max && a->idle == b->idle
           && a->requests == b->requests && a->age == b->age
           && !strcmp(endpoint->server_name, wanted->server_name);
}

static char *copy_text(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(ap_malloc(size), text, size);
}

static rp_endpoint *endpoint_make(const rp_target *target, const settings *wanted)
{
    rp_endpoint *endpoint = ap_calloc(1, sizeof(*endpoint));
    endpoint->key = copy_text(target->key);
    endpoint->port = target->port;
    endpoint->secure = target->scheme == RP_SCHEME_HTTPS;
    endpoint->tls = wanted->tls;
    endpoint->server_name = copy_text(wanted->server_name);
    endpoint->keepalive = *wanted->keepalive;
    if (target->socket) {
        endpoint->socket = copy_text(target->socket);
    }
    else if (!rp_sockaddr_parse(target->host, target->port, &endpoint->literal)) {
        endpoint->name = rp_name_get(target->host);
    }
    atomic_init(&endpoint->references, 1);
    atomic_init(&endpoint->turn, 0);
    pthread_mutex_init(&endpoint->lock, NULL);
    APR_RING_INIT(&endpoint->idle, rp_conn, link);
    RP_COUNT(endpoints, 1);
    return endpoint;
}

static void close_all(struct rp_conn_ring *connections)
{
    while (!APR_RING_EMPTY(connections, rp_conn, link)) {
        rp_conn *conn = APR_RING_FIRST(connections);
        APR_RING_REMOVE(conn, link);
        rp_conn_destroy(conn);
        RP_COUNT(retired, 1);
    }
}

static void endpoint_free(rp_endpoint *endpoint)
{
    RP_UNCOUNT(idle, (unsigned int)endpoint->idle_count);
    close_all(&endpoint->idle);
    if (endpoint->name) {
        rp_name_release(endpoint->name);
    }
    if (endpoint->session) {
        SSL_SESSION_free(endpoint->session);
    }
    pthread_mutex_destroy(&endpoint->lock);
    free(endpoint->key);
    free(endpoint->socket);
    free(endpoint->server_name);
    free(endpoint);
    RP_UNCOUNT(endpoints, 1);
}

void rp_endpoint_hold(rp_endpoint *endpoint)
{
    /* Relaxed: whoever adds a reference has one, or holds the table's lock. */
    atomic_fetch_add_explicit(&endpoint->references, 1, memory_order_relaxed);
}

void rp_endpoint_drop(rp_endpoint *endpoint)
{
    /* Release and acquire: what other users did to it must be done before it is freed. */
    if (atomic_fetch_sub_explicit(&endpoint->references, 1, memory_order_acq_rel) == 1) {
        endpoint_free(endpoint);
    }
}

void rp_endpoint_release(rp_endpoint *endpoint)
{
    rp_endpoint_drop(endpoint);
}

static rp_endpoint **bucket_of(const char *key)
{
    apr_uint32_t hash = 2166136261u;    /* FNV-1a */
    for (const char *at = key; *at; at++) {
        hash = (hash ^ (unsigned char)*at) * 16777619u;
    }
    return &table.buckets[(hash ^ hash >> 16) & (BUCKETS - 1)];
}

/* Takes the dynamic endpoint that nobody has used for longest out of the table; NULL if all are in
 * use. Only the table has a reference to it then, and nobody can get another one. */
static rp_endpoint *remove_unused(void)
{
    rp_endpoint **oldest = NULL;
    for (int i = 0; i < BUCKETS; i++) {
        for (rp_endpoint **at = &table.buckets[i]; *at; at = &(*at)->next) {
            /* Acquire: pairs with the release in rp_endpoint_drop(). */
            if (!(*at)->permanent
                && atomic_load_explicit(&(*at)->references, memory_order_acquire) == 1
                && (!oldest || (*at)->last_used < (*oldest)->last_used)) {
                oldest = at;
            }
        }
    }
    if (!oldest) {
        return NULL;
    }
    rp_endpoint *endpoint = *oldest;
    *oldest = endpoint->next;
    table.dynamic--;
    return endpoint;
}

/* Finds or makes it, under the table's lock. An endpoint removed to make room goes to *removed. */
static rp_endpoint *table_get(const rp_target *target, int dynamic, const settings *wanted,
                              rp_endpoint **removed)
{
    rp_endpoint **bucket = bucket_of(target->key);
    rp_endpoint *endpoint = *bucket;
    while (endpoint
           && (strcmp(endpoint->key, target->key) || !settings_match(endpoint, wanted))) {
        endpoint = endpoint->next;
    }
    if (!endpoint) {
        if (dynamic && table.dynamic >= RP_DYNAMIC_ENDPOINTS_MAX
            && !(*removed = remove_unused())) {
            return NULL;
        }
        endpoint = endpoint_make(target, wanted);
        endpoint->permanent = !dynamic;
        endpoint->next = *bucket;
        *bucket = endpoint;
        table.dynamic += dynamic ? 1 : 0;
    }
    if (dynamic) {
        rp_endpoint_hold(endpoint);
    }
    else if (!endpoint->permanent) {
        endpoint->permanent = 1;
        table.dynamic--;
    }
    endpoint->last_used = apr_time_now();
    return endpoint;
}

/* Puts it in front of the target's list, under the table's lock. */
static void remember(rp_target *target, rp_endpoint *endpoint)
{
    cached *entry = ap_calloc(1, sizeof(*entry));
    entry->endpoint = endpoint;
    entry->next = target->upstream;
    entry->next_of_all = table.all_cached;
    table.all_cached = entry;
    /* Release: readers see the entry complete. The member's type is the contract's, hence no C11
     * atomic. */
    __atomic_store_n(&target->upstream, (void *)entry, __ATOMIC_RELEASE);
}

static rp_endpoint *find_cached(const rp_target *target, const settings *wanted)
{
    const cached *entry = __atomic_load_n(&target->upstream, __ATOMIC_ACQUIRE);
    while (entry && !settings_match(entry->endpoint, wanted)) {
        entry = entry->next;
    }
    return entry ? entry->endpoint : NULL;
}

rp_endpoint *rp_endpoint_get(rp_target *target, int dynamic, const rp_tls *tls,
                             const rp_keepalive *keepalive)
{
    settings wanted = {
        .server_name = "",
        .keepalive = keepalive ? keepalive : &rp_keepalive_default
    };
    if (target->scheme == RP_SCHEME_HTTPS) {
        wanted.tls = rp_tls_context_of(tls);
        wanted.server_name = tls && tls->name ? tls->name : target->host;
    }
    rp_endpoint *endpoint = dynamic ? NULL : find_cached(target, &wanted);
    if (endpoint) {
        return endpoint;
    }
    rp_endpoint *removed = NULL;
    pthread_mutex_lock(&table.lock);
    if (table.running) {
        /* Two threads may come here for one target: the second finds what the first cached. */
        endpoint = dynamic ? NULL : find_cached(target, &wanted);
        if (!endpoint) {
            endpoint = table_get(target, dynamic, &wanted, &removed);
            if (!dynamic) {
                remember(target, endpoint);
            }
        }
    }
    pthread_mutex_unlock(&table.lock);
    if (removed) {
        rp_endpoint_drop(removed);
    }
    return endpoint;
}

void rp_upstream_prefetch(rp_target *target)
{
    rp_sockaddr literal;
    if (target->scheme == RP_SCHEME_BALANCER || target->socket
        || rp_sockaddr_parse(target->host, target->port, &literal)) {
        return;
    }
    /* The reference is kept: names of the configuration stay known. */
    rp_name_prefetch(rp_name_get(target->host));
}

/* ---- addresses that failed ------------------------------------------------------------------- */

void rp_endpoint_mark_failed(rp_endpoint *endpoint, const rp_sockaddr *address, apr_time_t now)
{
    pthread_mutex_lock(&endpoint->lock);
    int oldest = 0;
    for (int i = 0; i < RP_FAILED_ADDRESSES_MAX; i++) {
        if (endpoint->failed[i].time
            && rp_sockaddr_same_host(&endpoint->failed[i].address, address)) {
            oldest = i;
            break;
        }
        if (endpoint->failed[i].time < endpoint->failed[oldest].time) {
            oldest = i;
        }
    }
    endpoint->failed[oldest].address = *address;
    endpoint->failed[oldest].time = now;
    pthread_mutex_unlock(&endpoint->lock);
}

int rp_endpoint_failed_lately(rp_endpoint *endpoint, const rp_sockaddr *address, apr_time_t now)
{
    int failed = 0;
    pthread_mutex_lock(&endpoint->lock);
    for (int i = 0; i < RP_FAILED_ADDRESSES_MAX && !failed; i++) {
        failed = endpoint->failed[i].time && now - endpoint->failed[i].time < FAILED_LATELY
                 && rp_sockaddr_same_host(&endpoint->failed[i].address, address);
    }
    pthread_mutex_unlock(&endpoint->lock);
    return failed;
}

/* ---- taking and giving back ------------------------------------------------------------------ */

/* Nonzero if the time it may stay idle, or its age, is over. */
static int is_over(const rp_conn *conn, apr_time_t now)
{
    const rp_keepalive *limits = &conn->endpoint->keepalive;
    apr_interval_time_t idle = now - conn->idle_since;
    return (limits->idle && idle >= limits->idle)
           || (conn->peer_idle >= 0 && idle >= conn->peer_idle)
           || (limits->age && now - conn->created >= limits->age);
}

/* Nonzero if the peer has neither sent nor closed anything: one system call on the way to reuse. */
static int is_quiet(rp_conn *conn)
{
    char byte;
    ssize_t count = recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    int silent = count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
    if (conn->ssl) {
        return (silent && !SSL_has_pending(conn->ssl)) || (count > 0 && rp_tls_is_quiet(conn));
    }
    return silent;
}

/* Nonzero if the endpoint's name no longer has the address that conn is connected to. */
static int address_is_gone(rp_conn *conn)
{
    rp_name *name = conn->endpoint->name;
    return name && conn->generation != rp_name_generation(name)
           && !rp_name_has(name, &conn->peer, &conn->generation);
}

static rp_conn *pop_idle(rp_endpoint *endpoint)
{
    rp_conn *conn = NULL;
    pthread_mutex_lock(&endpoint->lock);
    if (!APR_RING_EMPTY(&endpoint->idle, rp_conn, link)) {
        conn = APR_RING_FIRST(&endpoint->idle);
        APR_RING_REMOVE(conn, link);
        endpoint->idle_count--;
    }
    pthread_mutex_unlock(&endpoint->lock);
    if (conn) {
        RP_UNCOUNT(idle, 1);
    }
    return conn;
}

rp_conn *rp_conn_acquire(rp_endpoint *endpoint, int fresh)
{
    apr_time_t now = apr_time_now();
    rp_conn *conn;
    rp_endpoint_hold(endpoint);
    RP_COUNT(active, 1);
    if (endpoint->name) {
        rp_name_touch(endpoint->name, now);
    }
    while (!fresh && (conn = pop_idle(endpoint))) {
        if (!is_over(conn, now) && !address_is_gone(conn) && is_quiet(conn)) {
            RP_COUNT(reuses, 1);
            return conn;
        }
        rp_conn_destroy(conn);
        RP_COUNT(retired, 1);
    }
    conn = ap_calloc(1, sizeof(*conn));
    conn->endpoint = endpoint;
    conn->fd = -1;
    conn->peer_idle = -1;
    conn->created = now;
    rp_connecting_begin(conn);
    return conn;
}

static int may_be_kept(rp_conn *conn, apr_time_t now)
{
    const rp_keepalive *limits = &conn->endpoint->keepalive;
    return conn->state == RP_CONN_READY && !conn->broken && !conn->ended && !conn->finished
           && limits->max > 0
           && (!limits->requests || conn->exchanges < limits->requests)
           && !is_over(conn, now) && !address_is_gone(conn)
           && (!conn->ssl || !SSL_has_pending(conn->ssl) || rp_tls_is_quiet(conn));
}

/* Puts it in front; returns what has to go to stay within the limit, or NULL. */
static rp_conn *push_idle(rp_endpoint *endpoint, rp_conn *conn)
{
    rp_conn *surplus = NULL;
    pthread_mutex_lock(&endpoint->lock);
    APR_RING_INSERT_HEAD(&endpoint->idle, conn, rp_conn, link);
    if (endpoint->idle_count < endpoint->keepalive.max) {
        endpoint->idle_count++;
    }
    else {
        surplus = APR_RING_LAST(&endpoint->idle);
        APR_RING_REMOVE(surplus, link);
    }
    pthread_mutex_unlock(&endpoint->lock);
    if (!surplus) {
        RP_COUNT(idle, 1);
    }
    return surplus;
}

void rp_conn_release(rp_conn *conn, int reusable)
{
    rp_endpoint *endpoint = conn->endpoint;
    apr_time_t now = apr_time_now();
    int was_ready = conn->state == RP_CONN_READY;
    conn->exchanges++;
    conn->idle_since = now;
    rp_conn *surplus = reusable && may_be_kept(conn, now) ? push_idle(endpoint, conn) : conn;
    if (surplus) {
        rp_conn_destroy(surplus);
        if (was_ready && reusable) {
            RP_COUNT(retired, 1);
        }
    }
    RP_UNCOUNT(active, 1);
    rp_endpoint_drop(endpoint);
}

/* ---- maintenance ----------------------------------------------------------------------------- */

static void doom(rp_endpoint *endpoint, rp_conn *conn, struct rp_conn_ring *doomed)
{
    APR_RING_REMOVE(conn, link);
    APR_RING_INSERT_TAIL(doomed, conn, rp_conn, link);
    endpoint->idle_count--;
    RP_UNCOUNT(idle, 1);
}

/* Moves to doomed those of the idle connections that the peer has closed or spoken on. poll() does
 * not block here, so it may run under the endpoint's lock. */
static void take_closed(rp_endpoint *endpoint, struct rp_conn_ring *doomed)
{
    struct pollfd descriptors[POLL_MAX];
    rp_conn *conns[POLL_MAX];
    rp_conn *conn = APR_RING_FIRST(&endpoint->idle);
    while (conn != APR_RING_SENTINEL(&endpoint->idle, rp_conn, link)) {
        int count = 0;
        for (; count < POLL_MAX && conn != APR_RING_SENTINEL(&endpoint->idle, rp_conn, link);
             conn = APR_RING_NEXT(conn, link)) {
            conns[count] = conn;
            /* Over TLS what has arrived may be a session ticket. The analyzer takes a ring's
             * sentinel for an element. NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Branch) */
            short events = conn->ssl ? POLLRDHUP : POLLRDHUP | POLLIN;
            descriptors[count++] = (struct pollfd){ .fd = conn->fd, .events = events };
        }
        if (poll(descriptors, (nfds_t)count, 0) <= 0) {
            continue;
        }
        for (int i = 0; i < count; i++) {
            if (descriptors[i].revents) {
                doom(endpoint, conns[i], doomed);
            }
        }
    }
}

/* Moves to doomed what is over, or connected to an address that the name no longer has. */
static void take_over(rp_endpoint *endpoint, apr_time_t now, struct rp_conn_ring *doomed)
{
    rp_conn *next;
    for (rp_conn *conn = APR_RING_FIRST(&endpoint->idle);
         conn != APR_RING_SENTINEL(&endpoint->idle, rp_conn, link); conn = next) {
        next = APR_RING_NEXT(conn, link);
        if (is_over(conn, now) || address_is_gone(conn)) {
            doom(endpoint, conn, doomed);
        }
    }
}

void rp_endpoints_maintain(apr_time_t now)
{
    struct rp_conn_ring doomed;
    APR_RING_INIT(&doomed, rp_conn, link);
    pthread_mutex_lock(&table.lock);
    for (int i = 0; i < BUCKETS; i++) {
        for (rp_endpoint *endpoint = table.buckets[i]; endpoint; endpoint = endpoint->next) {
            pthread_mutex_lock(&endpoint->lock);
            take_over(endpoint, now, &doomed);
            take_closed(endpoint, &doomed);
            pthread_mutex_unlock(&endpoint->lock);
        }
    }
    pthread_mutex_unlock(&table.lock);
    close_all(&doomed);
}

/* ---- the child's life ------------------------------------------------------------------------ */

void rp_endpoints_start(void)
{
    pthread_mutex_lock(&table.lock);
    table.running = 1;
    pthread_mutex_unlock(&table.lock);
}

void rp_endpoints_stop(void)
{
    /* The child may be ending from within a signal handler that interrupted a holder of the lock;
     * then the memory is left to the end of the process. */
    if (pthread_mutex_trylock(&table.lock)) {
        return;
    }
    rp_endpoint *all = NULL;
    for (int i = 0; i < BUCKETS; i++) {
        while (table.buckets[i]) {
            rp_endpoint *endpoint = table.buckets[i];
            table.buckets[i] = endpoint->next;
            endpoint->next = all;
            all = endpoint;
        }
    }
    cached *entries = table.all_cached;
    table.all_cached = NULL;
    table.dynamic = 0;
    table.running = 0;
    pthread_mutex_unlock(&table.lock);
    while (entries) {
        cached *entry = entries;
        entries = entry->next_of_all;
        free(entry);
    }
    while (all) {
        rp_endpoint *endpoint = all;
        all = endpoint->next;
        rp_endpoint_drop(endpoint);
    }
}
