/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Which slots of the shared memory are a pool's: those that its name and its members' URLs had. */
#include <string.h>
#include <apr_md5.h>

#include "balancer/rp_balancer.h"

static apr_uint64_t method_hash(const char *name)
{
    apr_uint64_t hash = 0xcbf29ce484222325u;

    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    return hash;
}

static rp_slot *claim(const rp_balancer *balancer, const char *url, int *is_new)
{
    unsigned char identity[RP_IDENTITY_BYTES];
    apr_md5_ctx_t md5;

    _Static_assert(RP_IDENTITY_BYTES == APR_MD5_DIGESTSIZE, "an identity is an MD5 digest");
    apr_md5_init(&md5);
    apr_md5_update(&md5, balancer->name, strlen(balancer->name) + 1);
    apr_md5_update(&md5, url, strlen(url));
    apr_md5_final(identity, &md5);
    return rp_shared_claim(identity, is_new);
}

int rp_balancer_claim(rp_balancer *balancer, apr_time_t now)
{
    apr_uint64_t method = method_hash(balancer->method_name);
    rproxy_member *members = (rproxy_member *)balancer->parsed_members->elts;
    int is_new, is_other_method;

    if (!(balancer->slot = claim(balancer, "", &is_new)))
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
    }
    atomic_fetch_add(&balancer->slot->version, 1);
    return 1;
}
