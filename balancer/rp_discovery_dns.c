/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A member for each address of a name, or for each server of a service. */
#include <string.h>
#include <apr_strings.h>

#include "balancer/rp_discovery.h"
#include "balancer/rp_dns.h"
#include "balancer/rp_roster.h"

/** A look: one question or two. */
typedef struct look {
    rp_dns_query *queries[2];
    int waiting;                        /* for so many answers */
    apr_pool_t *pool;                   /* lives as long as the look */
    apr_array_header_t *found;          /* rproxy_found */
    int ttl;                            /* of what was found */
    int is_incomplete;                  /* one of the answers didn't come */
    const char *cause;
    /* SRV */
    int lowest;                         /* priority */
    int heaviest;                       /* weight */
} look;

/** ttl 0: as soon as possible. */
static apr_interval_time_t until_next(const rproxy_source *source, int ttl)
{
    const rp_resolve *resolve = ((const rp_dns_source *)source->config)->resolve;
    const rproxy_resolver *usual = rp_dns_resolver(source->loop);
    apr_interval_time_t min = resolve->min < 0 ? usual->min_ttl : resolve->min;
    apr_interval_time_t max = resolve->max < 0 ? usual->max_ttl : resolve->max;
    apr_interval_time_t time = apr_time_from_sec(ttl);

    if (resolve->ttl >= 0)
        return resolve->ttl;
    if (time > max)
        time = max;
    return time > min ? time : min;
}

/* ---- members --------------------------------------------------------------------------------- */

static rproxy_found like_member(const rp_dns_source *config)
{
    return (rproxy_found){ .weight = config->member->weight, .max = config->member->max,
                           .state = (int)config->more->state, .is_backup = config->more->is_backup,
                           .zone = config->more->zone, .route = config->more->route,
                           .slow_start = config->more->slow_start };
}

static void add_address(look *l, const rp_dns_source *config, const rp_dns_record *record)
{
    rproxy_found found = like_member(config);

    found.url = apr_psprintf(l->pool, "%s://%s:%d%s#%s", config->scheme, config->name, config->port,
                             config->base, record->text);
    APR_ARRAY_PUSH(l->found, rproxy_found) = found;
}

/** The lowest priority serves, all others are backups. Weights are shares of at most 1000. */
static void add_server(look *l, const rp_dns_source *config, const rp_dns_record *record)
{
    rproxy_found found = like_member(config);
    int most = RP_ROSTER_WEIGHT_MAX / (config->member->weight > 1 ? config->member->weight : 1);

    if (l->heaviest > most)
        found.weight = record->weight * most / l->heaviest;
    else if (record->weight)
        found.weight = record->weight;
    found.weight *= config->member->weight;
    if (found.weight < 1)
        found.weight = 1;
    found.is_backup |= record->priority > l->lowest;
    found.url = apr_psprintf(l->pool, "%s://%s:%d%s", config->scheme, record->text, record->port,
                             config->base);
    APR_ARRAY_PUSH(l->found, rproxy_found) = found;
}

static void measure(look *l, const rp_dns_answer *answer)
{
    for (int i = 0; i < answer->count; i++) {
        const rp_dns_record *record = &answer->records[i];

        if (!i || record->priority < l->lowest)
            l->lowest = record->priority;
        if (record->weight > l->heaviest)
            l->heaviest = record->weight;
    }
}

/* ---- answers --------------------------------------------------------------------------------- */

static void finish(rproxy_source *source, look *l)
{
    source->data = NULL;
    /* Half of the addresses are no reason to take the others away. */
    if (!l->found->nelts || l->is_incomplete)
        source->failed(source, l->cause, until_next(source, 0));
    else
        source->found(source, (const rproxy_found *)l->found->elts, l->found->nelts,
                      until_next(source, l->ttl));
    apr_pool_destroy(l->pool);
}

static void answered(rproxy_source *source, const rp_dns_answer *answer, int which)
{
    const rp_dns_source *config = source->config;
    look *l = source->data;

    l->queries[which] = NULL;
    if (config->is_service)
        measure(l, answer);
    for (int i = 0; i < answer->count; i++) {
        if (config->is_service)
            add_server(l, config, &answer->records[i]);
        else
            add_address(l, config, &answer->records[i]);
    }
    if (answer->count && (!l->ttl || answer->ttl < l->ttl))
        l->ttl = answer->ttl;
    if (!answer->count && (!l->cause || !answer->is_absent))
        l->cause = apr_pstrdup(l->pool, answer->cause);
    l->is_incomplete |= !answer->count && !answer->is_absent;
    if (--l->waiting == 0)
        finish(source, l);
}

static void first_answered(void *baton, const rp_dns_answer *answer)
{
    answered(baton, answer, 0);
}

static void second_answered(void *baton, const rp_dns_answer *answer)
{
    answered(baton, answer, 1);
}

/* ---- the provider ---------------------------------------------------------------------------- */

static void begin(rproxy_source *source, look *l, rp_dns_type type)
{
    const rp_dns_source *config = source->config;
    int which = l->waiting;

    l->queries[which] = rp_dns_find(source->loop, config->resolve->servers, config->name, type,
                                    which ? second_answered : first_answered, source);
    l->waiting += l->queries[which] != NULL;
}

static void ask(rproxy_source *source)
{
    const rp_dns_source *config = source->config;
    apr_pool_t *pool;
    look *l;

    apr_pool_create(&pool, source->pool);
    l = apr_pcalloc(pool, sizeof(*l));
    l->pool = pool;
    l->found = apr_array_make(pool, 8, sizeof(rproxy_found));
    source->data = l;
    if (config->is_service)
        begin(source, l, RP_DNS_SRV);
    else {
        if (config->resolve->ipv4)
            begin(source, l, RP_DNS_A);
        if (config->resolve->ipv6)
            begin(source, l, RP_DNS_AAAA);
    }
    if (l->waiting)
        return;
    l->cause = "no query could be sent; check the name servers, and the limit of open files";
    finish(source, l);
}

static void end(rproxy_source *source)
{
    look *l = source->data;

    for (int i = 0; l && i < 2; i++) {
        if (l->queries[i])
            rp_dns_cancel(l->queries[i]);
    }
    source->data = NULL;
}

const rproxy_discovery rp_discovery_dns = { .ask = ask, .end = end };
