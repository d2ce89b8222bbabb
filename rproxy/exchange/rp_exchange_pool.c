/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Exchanges with pools: which member an attempt goes to, and what the pool is told of it. */

#include <string.h>
#include <apr_lib.h>
#include "rproxy/exchange/rp_exchange_private.h"

struct rp_pool_use {
    const rproxy_pools *pools;
    const rp_tls *tls;
    const rp_keepalive *keepalive;
    rproxy_use use;
    rproxy_request request;
    const char *target;                 /* without the member's base */
    const rp_reverse *route_reverse;
    rp_reverse reverse;                 /* route_reverse, for the member */
    int in_use;                         /* a member is: one is to be released */
};

/* ---- what a pool sees ------------------------------------------------------------------------ */

static const char *header(const rproxy_request *request, const char *name)
{
    const rp_field *field = rp_fields_find((rp_fields *)request->fields, name);

    return field ? field->value : NULL;
}

static const char *host_of(apr_pool_t *pool, const char *authority)
{
    char *host = apr_pstrmemdup(pool, authority,
                                rp_authority_host_len(authority, strlen(authority)));

    for (char *p = host; *p; p++) {
        *p = (char)apr_tolower(*p);
    }
    return host;
}

void rp_exchange_use_pool(rp_exchange *x, const rproxy_pools *pools, void *pool,
                          const rp_tls *tls, const rp_keepalive *keepalive)
{
    rp_pool_use *member = apr_pcalloc(x->pool, sizeof(*member));
    rproxy_request *seen = &member->request;

    seen->pool = x->pool;
    seen->method = x->request->method;
    seen->host = host_of(x->pool, x->request->authority);
    seen->path = x->request->path;
    seen->query = x->request->query;
    seen->client_ip = x->request->client_ip;
    seen->fields = &x->request->fields;
    seen->header = header;
    member->pools = pools;
    member->tls = tls;
    member->keepalive = keepalive;
    member->use.pool = pool;
    member->use.request = seen;
    member->target = x->target;
    member->route_reverse = x->reverse;
    x->member = member;
}

const char *rp_exchange_member_name(const rp_exchange *x)
{
    return x->member ? x->member->use.name : NULL;
}

/* ---- attempts -------------------------------------------------------------------------------- */

/* The base of the member's address comes before all that the route has made of the path. */
static const char *join(apr_pool_t *pool, const char *base, const char *path)
{
    apr_size_t len = strlen(base);

    len -= len > 0 && base[len - 1] == '/';
    return len == 0 ? path : apr_pstrcat(pool, apr_pstrmemdup(pool, base, len), path, NULL);
}

static void aim_at(rp_exchange *x, rp_target *address)
{
    rp_pool_use *member = x->member;
    const rp_reverse *route = member->route_reverse;
    rp_reverse *reverse = &member->reverse;

    x->address = address;
    x->endpoint = rp_endpoint_get(address, 0, member->tls, member->keepalive);
    x->target = join(x->pool, address->base, member->target);
    *reverse = *route;
    rp_reverse_set_upstream(reverse, address,
                            x->settings->preserve_host ? x->request->authority : NULL);
    reverse->upstream_base = join(x->pool, address->base, route->upstream_base);
    x->reverse = reverse;
}

rp_reason rp_exchange_choose_member(rp_exchange *x, apr_time_t now)
{
    rp_pool_use *member = x->member;
    rproxy_target *chosen = NULL;

    switch (member->pools->choose(&member->use, now, &chosen)) {
    case RPROXY_CHOSEN:
        member->in_use = 1;
        aim_at(x, (rp_target *)chosen);
        return rp_exchange_write_head(x);
    case RPROXY_ALL_BUSY:
        return RP_REASON_POOL_BUSY;
    default:
        return RP_REASON_NO_MEMBER;
    }
}

static int is_members_fault(rp_reason reason)
{
    switch (reason) {
    case RP_REASON_NONE:
    case RP_REASON_TUNNEL_TIMEOUT:
    case RP_REASON_REQUEST_BODY:
    case RP_REASON_CLIENT_GONE:
    case RP_REASON_CLIENT_TIMEOUT:
    case RP_REASON_BAD_REQUEST:
    case RP_REASON_INTERNAL:
        return 0;
    default:
        return 1;
    }
}

void rp_exchange_release_member(rp_exchange *x, rp_reason reason)
{
    rp_pool_use *member = x->member;
    apr_time_t now = rp_exchange_now(x);
    rproxy_result result = { .connect = -1, .first_byte = -1 };

    if (!member || !member->in_use) {
        return;
    }
    member->in_use = 0;
    result.failed = is_members_fault(reason);
    result.is_clients_fault = !result.failed && reason != RP_REASON_NONE
        && reason != RP_REASON_TUNNEL_TIMEOUT;
    if (x->connected_at) {
        result.connect = x->connected_at - x->attempt_at;
    }
    if (x->answered_at) {
        result.first_byte = x->answered_at - x->attempt_at;
        result.status = x->response.status;
    }
    result.total = now - x->attempt_at;
    result.sent = x->sent_body;
    result.received = x->received_body;
    member->pools->release(&member->use, &result, now);
}
