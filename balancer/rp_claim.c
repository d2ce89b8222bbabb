/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Which slots of the shared memory are a pool's: those that its name and its members' URLs had. */
#include <string.h>
#include <apr_md5.h>
#include "httpd.h"
#include "http_log.h"

#include "balancer/rp_entry.h"
#include "balancer/rp_mix.h"

APLOG_USE_MODULE(rproxy_balancer);

/** rp_shared_claim() or rp_shared_claim_late(). */
typedef rp_slot *claim_function(const unsigned char *identity, int *is_new);

static rp_slot *claim_with(claim_function *function, const rp_balancer *balancer, const char *url,
                           int *is_new)
{
    unsigned char identity[RP_IDENTITY_BYTES];
    apr_md5_ctx_t md5;
    rp_slot *slot;

    _Static_assert(RP_IDENTITY_BYTES == APR_MD5_DIGESTSIZE, "an identity is an MD5 digest");
    apr_md5_init(&md5);
    apr_md5_update(&md5, balancer->name, strlen(balancer->name) + 1);
    apr_md5_update(&md5, url, strlen(url));
    apr_md5_final(identity, &md5);
    slot = function(identity, is_new);
    /* Who had the slot before may have left an entry in the roster. */
    if (slot && *is_new)
        rp_entry_drop(slot);
    return slot;
}

static rp_slot *claim(const rp_balancer *balancer, const char *url, int *is_new)
{
    return claim_with(rp_shared_claim, balancer, url, is_new);
}

rp_slot *rp_balancer_claim_late(const rp_balancer *balancer, const char *url, int *is_new)
{
    return claim_with(rp_shared_claim_late, balancer, url, is_new);
}

/** What stands for no URL. */
#define POOL ""
#define RETRIES "retries"

/** What checks said counts no more once there are none. */
static void forget_unchecked(const rp_balancer *balancer, rp_slot *slot)
{
    if (!balancer->check) {
        atomic_store(&slot->health, RP_HEALTH_UNKNOWN);
        atomic_store(&slot->health_since, 0);
    }
    if (!balancer->agent) {
        atomic_store(&slot->agent_percent, 0);
        atomic_store(&slot->agent_max, 0);
        atomic_store(&slot->agent_mode, 0);
        atomic_store(&slot->agent_health, 0);
    }
}

int rp_balancer_claim(apr_pool_t *pool, rp_balancer *balancer, apr_time_t now)
{
    apr_uint64_t method = rp_hash_text(balancer->method_name);
    rproxy_member *members = (rproxy_member *)balancer->parsed_members->elts;
    int is_new, is_other_method;

    if (!(balancer->slot = claim(balancer, POOL, &is_new)))
        return 0;
    if (balancer->queue_max && !(balancer->queue = rp_shared_claim_queue(balancer->slot)))
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, balancer->server, "RP0416: pool %s: no request "
                     "waits, more than %d pools have RProxyQueue, or had it before the last "
                     "restarts; remove some, or stop and start the server", balancer->name,
                     RP_QUEUES_MAX);
    if (balancer->budget.percent && !(balancer->retries = claim(balancer, RETRIES, &is_new)))
        return 0;
    is_other_method = balancer->slot->method != method;
    balancer->slot->method = method;
    if (is_other_method)
        rp_slot_reset_method(balancer->slot);
    for (int i = 0; i < balancer->count; i++) {
        rp_slot *slot = claim(balancer, balancer->more[i].url, &is_new);

        if (!slot)
            return 0;
        balancer->more[i].slot = slot;
        members[i].shared = &slot->shared;
        if (is_new)
            atomic_store(&slot->in_service_since, now);
        if (is_other_method)
            rp_slot_reset_method(slot);
        forget_unchecked(balancer, slot);
        rp_origin_configure(pool, &members[i], &balancer->more[i]);
    }
    rp_roster_adopt(balancer);
    atomic_fetch_add(&balancer->slot->version, 1);
    return 1;
}
