/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The duty: asks each source when its time has come. */
#include <string.h>
#include <apr_pools.h>
#include "httpd.h"
#include "http_log.h"

#include "balancer/rp_discovery.h"

APLOG_USE_MODULE(rproxy_balancer);

static rp_source *source_of(rproxy_source *public)
{
    return (rp_source *)public;
}

static void ask(rp_keeper *keeper, void *baton)
{
    rp_source *source = baton;

    (void)keeper;
    source->provider->ask(&source->public);
}

static void ask_again(rp_source *source, apr_interval_time_t again)
{
    rp_keeper *keeper = source->public.loop;

    rp_keeper_at(keeper, &source->timer, rp_keeper_now(keeper) + again, ask, source);
}

static void is_well(rp_source *source)
{
    if (source->failures)
        ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, source->balancer->server, "RP0427: pool %s: %s: "
                     "members are found again", source->balancer->name, source->who);
    source->failures = 0;
}

static void found(rproxy_source *public, const rproxy_found *members, int count,
                  apr_interval_time_t again)
{
    rp_source *source = source_of(public);
    apr_pool_t *temp;
    const char *message;

    apr_pool_create(&temp, public->pool);
    is_well(source);
    message = rp_roster_sync(source->balancer, source, members, count, temp);
    /* Once, not with each look. */
    if (message && !source->has_bad)
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, source->balancer->server, "RP0428: pool %s: %s: not "
                     "all members can be taken: %s", source->balancer->name, source->who, message);
    source->has_bad = message != NULL;
    apr_pool_destroy(temp);
    ask_again(source, again);
}

static void failed(rproxy_source *public, const char *why, apr_interval_time_t again)
{
    rp_source *source = source_of(public);
    apr_interval_time_t pause = RP_DISCOVERY_AGAIN << (source->failures < 6 ? source->failures : 6);

    if (!source->failures++)
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, source->balancer->server, "RP0426: pool %s: %s: no "
                     "members are found, those known last stay: %s", source->balancer->name,
                     source->who, why);
    if (pause > RP_DISCOVERY_PAUSE)
        pause = RP_DISCOVERY_PAUSE;
    ask_again(source, again && again < pause ? again : pause);
}

static void unchanged(rproxy_source *public, apr_interval_time_t again)
{
    ask_again(source_of(public), again);
}

/* ---- descriptors of providers ---------------------------------------------------------------- */

typedef struct watching {
    int fd;
    rproxy_source *source;
    void (*ready)(rproxy_source *source, int fd, int events);
} watching;

static void is_ready(rp_keeper *keeper, int fd, int events, void *baton)
{
    const watching *w = baton;

    (void)keeper;
    w->ready(w->source, fd, events);
}

static void watch(rproxy_source *public, int fd, int events,
                  void (*ready)(rproxy_source *source, int fd, int events))
{
    apr_hash_t *watches = source_of(public)->watches;
    watching *w = apr_hash_get(watches, &fd, sizeof(fd));

    _Static_assert(RP_KEEPER_READ == 1 && RP_KEEPER_WRITE == 2, "as in the public header");
    if (!events) {
        rp_keeper_unwatch(public->loop, fd);
        return;
    }
    if (!w) {
        w = apr_palloc(public->pool, sizeof(*w));
        w->fd = fd;
        w->source = public;
        apr_hash_set(watches, &w->fd, sizeof(w->fd), w);
    }
    w->ready = ready;
    rp_keeper_watch(public->loop, fd, events, is_ready, w);
}

/* ---- the duty -------------------------------------------------------------------------------- */

static void each(void (*call)(rp_source *source, rp_keeper *keeper), rp_keeper *keeper)
{
    const apr_array_header_t *all = rp_balancer_all();

    for (int i = 0; i < all->nelts; i++) {
        const rp_balancer *balancer = APR_ARRAY_IDX(all, i, rp_balancer *);

        for (int j = 0; j < balancer->discovered->nelts; j++)
            call(APR_ARRAY_IDX(balancer->discovered, j, rp_source *), keeper);
    }
}

static void begin_source(rp_source *source, rp_keeper *keeper)
{
    rproxy_source *public = &source->public;

    public->loop = keeper;
    public->data = NULL;
    public->found = found;
    public->failed = failed;
    public->unchanged = unchanged;
    public->watch = watch;
    apr_pool_create(&public->pool, rp_keeper_pool(keeper));
    source->watches = apr_hash_make(public->pool);
    memset(&source->timer, 0, sizeof(source->timer));
    source->failures = 0;
    source->has_bad = 0;
    ask_again(source, 0);
}

static void end_source(rp_source *source, rp_keeper *keeper)
{
    rp_keeper_cancel(keeper, &source->timer);
    if (source->provider->end)
        source->provider->end(&source->public);
}

static void begin(rp_keeper *keeper, void *baton)
{
    (void)baton;
    each(begin_source, keeper);
}

static void end(rp_keeper *keeper, void *baton)
{
    (void)baton;
    each(end_source, keeper);
}

void rp_discovery_add_duty(void)
{
    static const rp_duty duty = { .begin = begin, .end = end };
    const apr_array_header_t *all = rp_balancer_all();

    for (int i = 0; i < all->nelts; i++) {
        if (APR_ARRAY_IDX(all, i, rp_balancer *)->discovered->nelts) {
            rp_keeper_add(&duty, NULL);
            return;
        }
    }
}
