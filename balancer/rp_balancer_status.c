/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What mod_status shows of pools. */
#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_protocol.h"
#include "mod_status.h"

#include "balancer/rp_balancer.h"

#define NUMBER APR_UINT64_T_FMT

static const char *state_of(const rp_member *member)
{
    if (member->state != RP_MEMBER_UP)
        return member->state == RP_MEMBER_DOWN ? "down" : "drain";
    return atomic_load(&member->slot->ejected_until) ? "ejected" : "up";
}

static void show_member(request_rec *r, const rp_balancer *balancer, int number, int is_brief)
{
    const rp_member *member = &balancer->more[number];
    rp_slot *slot = member->slot;
    const char *name = balancer->members[number].name;

    apr_uint64_t requests = atomic_load(&slot->requests), failures = atomic_load(&slot->failures);
    apr_uint64_t sent = atomic_load(&slot->sent), received = atomic_load(&slot->received);

    ap_rprintf(r, is_brief ? "RProxyMember-%s-%s: state=%s in-flight=%d requests=%" NUMBER
                             " failures=%" NUMBER " sent=%" NUMBER " received=%" NUMBER
                             " ejections=%u\n"
                           : "<tr><td>%s</td><td>%s</td><td>%s</td><td>%d</td><td>%" NUMBER "</td>"
                             "<td>%" NUMBER "</td><td>%" NUMBER "</td><td>%" NUMBER "</td>"
                             "<td>%u</td></tr>\n",
               balancer->name, ap_escape_html(r->pool, name), state_of(member),
               atomic_load(&slot->shared.in_flight), requests, failures, sent, received,
               atomic_load(&slot->ejections));
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
        const rp_balancer *balancer = APR_ARRAY_IDX(all, i, rp_balancer *);

        for (int number = 0; number < balancer->count; number++)
            show_member(r, balancer, number, is_brief);
    }
    if (!is_brief)
        ap_rputs("</table>\n", r);
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
