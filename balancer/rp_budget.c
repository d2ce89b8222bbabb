/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyRetryBudget: how many requests of a pool may be at another attempt than their first, over
 * all children, as a share of those that are at its members. A request counts from its first
 * failed attempt to its end, in a slot of shared memory, as requests do at members: so the count
 * survives children that are killed. */
#include "httpd.h"
#include "http_log.h"

#include "balancer/rp_balancer.h"

APLOG_USE_MODULE(rproxy_balancer);

/* rproxy_use.retry */
enum {
    COUNTED = 1,                        /* in the budget */
    GOES_ON = 2                         /* another attempt follows the one that is released */
};

const rp_budget rp_budget_default = { .percent = 50, .min = 20 };

/** All that are at members; only failures ask. */
static int live_requests(rp_balancer *balancer)
{
    rp_view *view = rp_view_enter(balancer, apr_time_now());
    const rp_table *table = view->table;
    int live = 0;

    for (int i = 0; i < table->count; i++)
        live += atomic_load_explicit(&table->more[i].slot->shared.in_flight, memory_order_relaxed);
    rp_view_leave(view);
    return live;
}

static int most_retries(rp_balancer *balancer)
{
    apr_int64_t share = (apr_int64_t)live_requests(balancer) * balancer->budget.percent / 100;

    /* On top, not at least: members seldom have just equal shares of what is live. */
    return balancer->budget.min + (int)share;
}

int rp_balancer_retry(rproxy_use *use)
{
    rp_balancer *balancer = use->pool;
    int most;

    if (!balancer->retries)
        return 1;
    if (!(use->retry & COUNTED)) {
        most = most_retries(balancer);
        if (!most || !rp_shared_take(balancer->retries, most)) {
            rp_count(&balancer->slot->retries_refused);
            ap_log_error(APLOG_MARK, APLOG_INFO, 0, balancer->server, "RP0415: pool %s: a request "
                         "that failed at %s is not tried again, for %d are already",
                         balancer->name, use->name, most);
            return 0;
        }
    }
    use->retry = COUNTED | GOES_ON;
    return 1;
}

void rp_budget_end(rproxy_use *use)
{
    const rp_balancer *balancer = use->pool;

    if (use->retry & COUNTED)
        rp_shared_give_back(balancer->retries);
    use->retry = 0;
}

void rp_budget_released(rproxy_use *use)
{
    if (use->retry & GOES_ON)
        use->retry = COUNTED;
    else
        rp_budget_end(use);
}
