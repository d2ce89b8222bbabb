/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Exchanges with pools: which member an attempt goes to, and what the pool is told of it. */

#include <poll.h>
#include <string.h>
#include <apr_lib.h>
#include "rproxy/exchange/rp_exchange_private.h"

/* Settings of the route with those of the pool or member on top. */
typedef struct own_settings {
    rp_exchange_settings exchange;
    rp_keepalive keepalive;
} own_settings;

struct rp_pool_use {
    const rproxy_pools *pools;
    const rp_exchange_settings *route_settings;
    const rp_tls *route_tls;
    const rp_keepalive *route_keepalive;
    const rproxy_settings *on_top;      /* what x->settings, tls and keepalive have of the pool */
    own_settings *own;                  /* where they are made; NULL: not needed yet */
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

static const char *next_value(const rp_fields *fields, const char *name, int *position)
{
    for (int i = *position; i < fields->count; i++) {
        if (strcasecmp(fields->items[i].name, name) == 0) {
            *position = i + 1;
            return fields->items[i].value;
        }
    }
    *position = fields->count;
    return NULL;
}

static const char *next_of_request(const rproxy_request *request, const char *name, int *position)
{
    return next_value(request->fields, name, position);
}

static const char *next_of_answer(const rproxy_answer *answer, const char *name, int *position)
{
    return next_value(answer->fields, name, position);
}

static void add_to_answer(rproxy_answer *answer, const char *name, const char *value)
{
    rp_fields_add(answer->fields, name, value);
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

static void use_settings(rp_exchange *x, const rproxy_settings *settings)
{
    rp_pool_use *member = x->member;
    own_settings *own = member->own;

    if (settings == member->on_top) {
        return;
    }
    member->on_top = settings;
    x->settings = member->route_settings;
    member->tls = member->route_tls;
    member->keepalive = member->route_keepalive;
    if (!settings) {
        return;
    }
    if (!own) {
        own = member->own = apr_palloc(x->pool, sizeof(*own));
    }
    own->exchange = *member->route_settings;
    rp_exchange_settings_put(&own->exchange, settings);
    x->settings = &own->exchange;
    if (settings->keepalive) {
        own->keepalive = *member->route_keepalive;
        rp_keepalive_put(&own->keepalive, settings->keepalive);
        member->keepalive = &own->keepalive;
    }
    if (settings->tls) {
        member->tls = settings->tls;
    }
}

void rp_exchange_use_pool(rp_exchange *x, const rproxy_pools *pools, void *pool,
                          const rp_tls *tls, const rp_keepalive *keepalive)
{
    rp_pool_use *member = apr_pcalloc(x->pool, sizeof(*member));
    rproxy_request *seen = &member->request;

    seen->pool = x->pool;
    seen->method = x->request->method;
    seen->scheme = x->request->scheme;
    seen->host = host_of(x->pool, x->request->authority);
    seen->path = x->request->path;
    seen->query = x->request->query;
    seen->client_ip = x->request->client_ip;
    seen->fields = &x->request->fields;
    seen->header = header;
    seen->next = next_of_request;
    member->pools = pools;
    member->route_settings = x->settings;
    member->tls = member->route_tls = tls;
    member->keepalive = member->route_keepalive = keepalive;
    member->use.pool = pool;
    member->use.request = seen;
    member->target = x->target;
    member->route_reverse = x->reverse;
    x->member = member;
    use_settings(x, pools->settings(pool));
}

const char *rp_exchange_member_name(const rp_exchange *x)
{
    return x->member ? x->member->use.name : NULL;
}

const char *rp_exchange_member_cookie(const rp_exchange *x)
{
    return x->member ? x->member->use.cookie : NULL;
}

void rp_exchange_member_variables(const rp_exchange *x, apr_pool_t *pool, apr_table_t *env)
{
    const rp_pool_use *member = x->member;

    if (member && member->use.name && member->pools->variables) {
        member->pools->variables(&member->use, pool, env);
    }
}

void rp_exchange_answer_fields(rp_exchange *x, rp_fields *fields)
{
    rp_pool_use *member = x->member;

    rp_exchange_map_fields(x, fields);
    if (member && member->pools->answer) {
        rproxy_answer answer = {
            .status = x->response.status, .fields = fields, .next = next_of_answer,
            .add = add_to_answer
        };

        member->pools->answer(&member->use, &answer, rp_exchange_now(x));
    }
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

    use_settings(x, member->use.settings);
    x->address = address;
    x->endpoint = rp_endpoint_get(address, 0, member->tls, member->keepalive);
    x->target = join(x->pool, address->base, member->target);
    *reverse = *route;
    rp_reverse_set_upstream(reverse, address,
                            x->settings->preserve_host ? x->request->authority : NULL);
    reverse->upstream_base = join(x->pool, address->base, route->upstream_base);
    x->reverse = reverse;
}

/* A request may wait once for each attempt. */
static void end_queue_time(rp_exchange *x, apr_time_t now)
{
    if (x->queued_at) {
        x->queue_time = (x->queue_time < 0 ? 0 : x->queue_time) + now - x->queued_at;
        x->queued_at = 0;
    }
}

rp_reason rp_exchange_choose_member(rp_exchange *x, apr_time_t now)
{
    rp_pool_use *member = x->member;
    rproxy_target *chosen = NULL;

    rproxy_verdict verdict = member->pools->choose(&member->use, now, &chosen);

    if (verdict == RPROXY_QUEUED) {
        x->state = RP_X_QUEUE;
        x->queued_at = x->queued_at ? x->queued_at : now;
        return RP_REASON_NONE;
    }
    end_queue_time(x, now);
    switch (verdict) {
    case RPROXY_CHOSEN:
        member->in_use = 1;
        aim_at(x, (rp_target *)chosen);
        return rp_exchange_write_head(x);
    case RPROXY_ALL_BUSY:
        return RP_REASON_POOL_BUSY;
    case RPROXY_QUEUE_FULL:
        return RP_REASON_QUEUE_FULL;
    case RPROXY_QUEUE_TIMEOUT:
        return RP_REASON_QUEUE_TIMEOUT;
    default:
        return RP_REASON_NO_MEMBER;
    }
}

void rp_exchange_leave_queue(rp_exchange *x, apr_time_t now)
{
    end_queue_time(x, now);
    x->member->pools->leave(&x->member->use);
}

rp_wait_fd rp_exchange_queue_wait(const rp_exchange *x, apr_time_t *until)
{
    *until = x->member->use.wait_until;
    return (rp_wait_fd){ x->member->use.wait_fd, POLLIN };
}

int rp_exchange_may_retry(rp_exchange *x)
{
    rp_pool_use *member = x->member;

    return !member || !member->in_use || !member->pools->retry
        || member->pools->retry(&member->use);
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
    result.was_idle = reason == RP_REASON_CLOSED_EARLY && x->reused && x->replayed;
    result.reason = result.failed || result.is_clients_fault ? (int)reason : 0;
    result.reused = x->reused;
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
