/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The room's life in a child, its counters, and socket addresses as text. */

#include <arpa/inet.h>
#include <string.h>
#include "rproxy/upstream/rp_upstream_private.h"

const rp_keepalive rp_keepalive_default = { .max = 64, .idle = apr_time_from_sec(60) };

rp_upstream_counters rp_counters;
rp_upstream_counters rp_shelf_counters[RP_SHELVES_MAX];

/* ---- addresses ------------------------------------------------------------------------------- */

int rp_sockaddr_parse(const char *text, int port, rp_sockaddr *address)
{
    memset(address, 0, sizeof(*address));
    if (inet_pton(AF_INET, text, &address->v4.sin_addr) == 1) {
        address->v4.sin_family = AF_INET;
        address->v4.sin_port = htons((in_port_t)port);
        return 1;
    }
    if (inet_pton(AF_INET6, text, &address->v6.sin6_addr) == 1) {
        address->v6.sin6_family = AF_INET6;
        address->v6.sin6_port = htons((in_port_t)port);
        return 1;
    }
    return 0;
}

int rp_sockaddr_same_host(const rp_sockaddr *a, const rp_sockaddr *b)
{
    if (a->any.sa_family != b->any.sa_family) {
        return 0;
    }
    if (a->any.sa_family == AF_INET6) {
        return !memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof(a->v6.sin6_addr))
               && a->v6.sin6_scope_id == b->v6.sin6_scope_id;
    }
    return a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
}

int rp_sockaddr_among(const rp_sockaddr *address, const rp_sockaddr *list, int count)
{
    for (int i = 0; i < count; i++) {
        if (rp_sockaddr_same_host(&list[i], address)) {
            return 1;
        }
    }
    return 0;
}

void rp_sockaddr_text(const rp_sockaddr *address, char text[RP_SOCKADDR_TEXT])
{
    char host[INET6_ADDRSTRLEN] = "";
    if (address->any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof(host));
        snprintf(text, RP_SOCKADDR_TEXT, "[%s]:%d", host, ntohs(address->v6.sin6_port));
    }
    else {
        inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof(host));
        snprintf(text, RP_SOCKADDR_TEXT, "%s:%d", host, ntohs(address->v4.sin_port));
    }
}

/* ---- the child's life ------------------------------------------------------------------------ */

static apr_status_t stop(void *unused)
{
    (void)unused;
    if (rp_resolver_stop()) {
        rp_endpoints_stop();
        rp_resolver_free();
    }
    return APR_SUCCESS;
}

apr_status_t rp_upstream_child_init(apr_pool_t *pool, server_rec *server,
                                    const rp_resolver_settings *resolver)
{
    apr_status_t rv = rp_resolver_start(server, resolver);
    if (rv == APR_SUCCESS) {
        rp_endpoints_start();
        apr_pool_cleanup_register(pool, NULL, stop, apr_pool_cleanup_null);
    }
    return rv;
}

static void add_counters(rp_upstream_stats *stats, const rp_upstream_counters *counters)
{
    /* Relaxed: the figures need not belong to one moment. */
#define ADD(field) \
    stats->field += atomic_load_explicit(&counters->field, memory_order_relaxed)
    ADD(connects);
    ADD(reuses);
    ADD(connect_failures);
    ADD(lookups);
    ADD(lookup_failures);
    ADD(retired);
    ADD(idle);
    ADD(active);
    ADD(endpoints);
#undef ADD
}

void rp_upstream_stats_get(rp_upstream_stats *stats)
{
    *stats = (rp_upstream_stats){ 0 };
    add_counters(stats, &rp_counters);
    for (int i = 0; i < RP_SHELVES_MAX; i++) {
        add_counters(stats, &rp_shelf_counters[i]);
    }
}
