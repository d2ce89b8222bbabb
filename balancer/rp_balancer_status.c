/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What mod_status shows of pools. */
#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_protocol.h"
#include "mod_status.h"

#include "balancer/rp_health.h"

#define NUMBER APR_UINT64_T_FMT

const char *const rp_shown_names[RP_SHOWN_COUNT] = {
    "up", "drain", "down", "ejected", "unhealthy", "unchecked"
};

rp_shown rp_member_shown(const rp_balancer *balancer, const rp_member *member)
{
    rp_health_view health;
    rp_admin_state state;

    if (member->state != RP_MEMBER_UP)
        return member->state == RP_MEMBER_DOWN ? RP_SHOWN_DOWN : RP_SHOWN_DRAIN;
    rp_health_look(balancer, member->slot, &health);
    if (health.is_checked && health.health == RP_HEALTH_DOWN)
        return RP_SHOWN_UNHEALTHY;
    if (health.is_checked && health.health == RP_HEALTH_UNKNOWN && balancer->check->waits)
        return RP_SHOWN_UNCHECKED;
    state = rp_member_state(balancer, member);
    if (state != RP_MEMBER_UP)
        return state == RP_MEMBER_DRAIN ? RP_SHOWN_DRAIN : RP_SHOWN_DOWN;
    return atomic_load(&member->slot->ejected_until) ? RP_SHOWN_EJECTED : RP_SHOWN_UP;
}

static void show_member(request_rec *r, const rp_balancer *balancer, const rp_table *table,
                        int number, int is_brief)
{
    const rp_member *member = &table->more[number];
    rp_slot *slot = member->slot;
    const char *name = table->members[number].name;

    apr_uint64_t requests = atomic_load(&slot->requests), failures = atomic_load(&slot->failures);
    apr_uint64_t sent = atomic_load(&slot->sent), received = atomic_load(&slot->received);

    ap_rprintf(r, is_brief ? "RProxyMember-%s-%s: state=%s in-flight=%d requests=%" NUMBER
                             " failures=%" NUMBER " sent=%" NUMBER " received=%" NUMBER
                             " ejections=%u\n"
                           : "<tr><td>%s</td><td>%s</td><td>%s</td><td>%d</td><td>%" NUMBER "</td>"
                             "<td>%" NUMBER "</td><td>%" NUMBER "</td><td>%" NUMBER "</td>"
                             "<td>%u</td></tr>\n",
               balancer->name, ap_escape_html(r->pool, name),
               rp_shown_names[rp_member_shown(balancer, member)],
               atomic_load(&slot->shared.in_flight),
               requests, failures, sent, received, atomic_load(&slot->ejections));
}

static void show_pool(request_rec *r, const rp_balancer *balancer, int is_brief)
{
    rp_slot *slot = balancer->slot;
    int waiting = balancer->queue ? rp_queue_count(balancer->queue) : 0;
    int retrying = balancer->retries ? atomic_load(&balancer->retries->shared.in_flight) : 0;
    apr_uint64_t queued = atomic_load(&slot->queued), late = atomic_load(&slot->queue_timeouts),
                 full = atomic_load(&slot->queue_full), retries = atomic_load(&slot->retries),
                 refused = atomic_load(&slot->retries_refused);

    ap_rprintf(r, is_brief ? "RProxyPool-%s: waiting=%d queued=%" NUMBER " queue-timeouts=%" NUMBER
                             " queue-full=%" NUMBER " retries=%" NUMBER " retrying=%d"
                             " retries-refused=%" NUMBER "\n"
                           : "<tr><td>%s</td><td>%d</td><td>%" NUMBER "</td><td>%" NUMBER "</td>"
                             "<td>%" NUMBER "</td><td>%" NUMBER "</td><td>%d</td><td>%" NUMBER
                             "</td></tr>\n",
               balancer->name, waiting, queued, late, full, retries, retrying, refused);
}

static void show_pools(request_rec *r, const apr_array_header_t *all, int is_brief)
{
    if (!is_brief)
        ap_rputs("<table>\n<tr><th>pool</th><th>waiting</th><th>have waited</th>"
                 "<th>too long</th><th>found the queue full</th><th>retries</th>"
                 "<th>retrying</th><th>retries refused</th></tr>\n", r);
    for (int i = 0; i < all->nelts; i++)
        show_pool(r, APR_ARRAY_IDX(all, i, const rp_balancer *), is_brief);
    if (!is_brief)
        ap_rputs("</table>\n", r);
}

static int status_hook(request_rec *r, int flags)
{
    const apr_array_header_t *all = rp_balancer_all();
    int is_brief = flags & AP_STATUS_SHORT;

    if (!all->nelts)
        return OK;
    if (!is_brief)
        ap_rputs("<hr />\n<h2>Pools (mod_rproxy_balancer)</h2>\n<table>\n<tr><th>pool</th>"
                 "<th>member</th><th>state</th><th>in flight</th><th>requests</th>"
                 "<th>failures</th><th>body bytes sent</th><th>received</th>"
                 "<th>ejections in a row</th></tr>\n", r);
    for (int i = 0; i < all->nelts; i++) {
        rp_balancer *balancer = APR_ARRAY_IDX(all, i, rp_balancer *);
        rp_view *view = rp_view_enter(balancer, apr_time_now());

        for (int number = 0; number < view->table->count; number++) {
            if (view->table->more[number].state != RP_MEMBER_GONE)
                show_member(r, balancer, view->table, number, is_brief);
        }
        rp_view_leave(view);
    }
    if (!is_brief)
        ap_rputs("</table>\n", r);
    show_pools(r, all, is_brief);
    return OK;
}

static int pre_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    (void)pconf;
    (void)plog;
    (void)ptemp;
    APR_OPTIONAL_HOOK(ap, status_hook, status_hook, NULL, NULL, APR_HOOK_MIDDLE);
    return OK;
}

void rp_balancer_register_status(void)
{
    ap_hook_pre_config(pre_config, NULL, NULL, APR_HOOK_MIDDLE);
}
