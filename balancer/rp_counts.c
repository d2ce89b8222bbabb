/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Counters of members and pools. They are only shown: nothing else depends on them. */
#include "httpd.h"

#include "balancer/rp_balancer.h"

/** Of nearly all requests one of the two is 0: that costs less than to add it. */
static void add(atomic_ullong *counter, apr_int64_t bytes)
{
    if (bytes)
        atomic_fetch_add_explicit(counter, (unsigned long long)bytes, memory_order_relaxed);
}

static void count_attempt(rp_slot *slot, const rproxy_use *use, const rproxy_result *result)
{
    rp_counts *counts = &slot->counts;

    add(&slot->sent, result->sent);
    add(&slot->received, result->received);
    if (result->failed)
        rp_count(&slot->failures);
    rp_count(&counts->answers[rproxy_status_class(result->status)]);
    rp_count(result->reused ? &counts->reused : &counts->opened);
    if (result->first_byte >= 0)
        rproxy_histogram_add(&counts->first_byte, result->first_byte);
    if (result->status != HTTP_SWITCHING_PROTOCOLS)
        rproxy_histogram_add(&counts->total, result->total);
    if (use->tried_count)
        rp_count(&counts->repeated);
    if (result->reason > 0 && result->reason < RPROXY_REASONS_MAX)
        rp_count(&counts->errors[result->reason]);
}

void rp_counts_attempt(rp_slot *member, rp_slot *pool, const rproxy_use *use,
                       const rproxy_result *result)
{
    /* The pool's are no sums over members: these come and go, and counters must not go down. */
    count_attempt(member, use, result);
    count_attempt(pool, use, result);
}

void rp_counts_unserved(rp_slot *pool, rproxy_verdict verdict)
{
    if (verdict == RPROXY_NONE_AVAILABLE)
        rp_count(&pool->counts.no_member);
    else if (verdict == RPROXY_ALL_BUSY)
        rp_count(&pool->counts.busy);
}
