/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Endpoints: the table of them, and what tells them apart. */

#include <string.h>
#include "rproxy/upstream/rp_upstream_private.h"

#define BUCKETS 256                     /* of the table; a power of two */
#define FAILED_LATELY apr_time_from_sec(10)

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
    else if (!rp_sockaddr_parse(target->address ? target->address : target->host, target->port,
                                &endpoint->literal)) {
        endpoint->name = rp_name_get(target->host);
    }
    atomic_init(&endpoint->references, 1);
    atomic_init(&endpoint->turn, 0);
    atomic_init(&endpoint->dropped, 0);
    pthread_mutex_init(&endpoint->lock, NULL);
    APR_RING_INIT(&endpoint->idle, rp_conn, link);
    RP_COUNT(endpoints, 1);
    return endpoint;
}

static void endpoint_free(rp_endpoint *endpoint)
{
    RP_UNCOUNT(idle, (unsigned int)endpoint->idle_count);
    rp_conns_close(&endpoint->idle);
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

static void hold(rp_endpoint *endpoint, unsigned int n)
{
    /* Relaxed: whoever adds a reference has one, or holds the table's lock. */
    atomic_fetch_add_explicit(&endpoint->references, n, memory_order_relaxed);
}

static void drop(rp_endpoint *endpoint, unsigned int n)
{
    /* Release and acquire: what other users did to it must be done before it is freed. */
    if (atomic_fetch_sub_explicit(&endpoint->references, n, memory_order_acq_rel) == n) {
        endpoint_free(endpoint);
    }
}

void rp_endpoint_hold(rp_endpoint *endpoint)
{
    hold(endpoint, 1);
}

void rp_endpoint_drop(rp_endpoint *endpoint)
{
    drop(endpoint, 1);
}

void rp_endpoint_hold_for_shelf(rp_endpoint *endpoint)
{
    hold(endpoint, RP_SHELF_REFERENCE);
}

void rp_endpoint_drop_for_shelf(rp_endpoint *endpoint)
{
    drop(endpoint, RP_SHELF_REFERENCE);
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

static int is_unused(const rp_endpoint *endpoint)
{
    /* Acquire: pairs with the release in rp_endpoint_drop(). */
    unsigned int references = atomic_load_explicit(&endpoint->references, memory_order_acquire);
    return (references & (RP_SHELF_REFERENCE - 1)) == 1;
}

/* Takes the dynamic endpoint that nobody has used for longest out of the table; NULL if all are in
 * use. Beside the table only shelves have references to it then, and nobody can get another one:
 * they close what they have of it when they see that it was dropped. */
static rp_endpoint *remove_unused(void)
{
    rp_endpoint **oldest = NULL;
    for (int i = 0; i < BUCKETS; i++) {
        for (rp_endpoint **at = &table.buckets[i]; *at; at = &(*at)->next) {
            if (!(*at)->permanent && is_unused(*at)
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
    /* Relaxed: the owners of shelves look again soon. */
    atomic_store_explicit(&endpoint->dropped, 1, memory_order_relaxed);
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
        endpoint->next = *bucket;
        *bucket = endpoint;
        table.dynamic++;
    }
    if (dynamic) {
        rp_endpoint_hold(endpoint);
    }
    else if (endpoint->permanent++ == 0) {
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

/* The list is the target's alone by now; all_cached is everybody's. */
static void forget_cached(cached *entry)
{
    cached **at = &table.all_cached;
    while (*at != entry) {
        at = &(*at)->next_of_all;
    }
    *at = entry->next_of_all;
    free(entry);
}

/* Takes an endpoint that no target remembers out of the table; if .htaccess files use it, it is as
 * dynamic as theirs are. Nonzero: the table's reference is the caller's. */
static int remove_forgotten(rp_endpoint *endpoint)
{
    rp_endpoint **at = bucket_of(endpoint->key);
    if (--endpoint->permanent > 0) {
        return 0;
    }
    if (!is_unused(endpoint)) {
        table.dynamic++;
        return 0;
    }
    while (*at != endpoint) {
        at = &(*at)->next;
    }
    *at = endpoint->next;
    /* Relaxed: the owners of shelves look again soon. */
    atomic_store_explicit(&endpoint->dropped, 1, memory_order_relaxed);
    return 1;
}

void rp_endpoint_forget(rp_target *target)
{
    rp_endpoint *removed = NULL;
    pthread_mutex_lock(&table.lock);
    /* Where the child has ended meanwhile, its endpoints and what remembered them are gone. */
    cached *entry = table.running ? target->upstream : NULL;
    target->upstream = NULL;
    while (entry) {
        cached *next = entry->next;
        rp_endpoint *endpoint = entry->endpoint;
        forget_cached(entry);
        if (remove_forgotten(endpoint)) {
            endpoint->next = removed;
            removed = endpoint;
        }
        entry = next;
    }
    pthread_mutex_unlock(&table.lock);
    while (removed) {
        rp_endpoint *next = removed->next;
        rp_endpoint_drop(removed);
        removed = next;
    }
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

/* ---- maintenance ----------------------------------------------------------------------------- */

void rp_endpoints_maintain(apr_time_t now)
{
    struct rp_conn_ring doomed;
    APR_RING_INIT(&doomed, rp_conn, link);
    pthread_mutex_lock(&table.lock);
    for (int i = 0; i < BUCKETS; i++) {
        for (rp_endpoint *endpoint = table.buckets[i]; endpoint; endpoint = endpoint->next) {
            rp_pool_collect(endpoint, now, &doomed);
        }
    }
    pthread_mutex_unlock(&table.lock);
    rp_conns_close(&doomed);
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
