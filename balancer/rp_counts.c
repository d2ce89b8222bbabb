/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Counters of members and pools that only rproxy-metrics shows. */
#include "httpd.h"

#include "balancer/rp_balancer.h"

static void count(atomic_ullong *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

void rp_counts_attempt(rp_slot *slot, const rproxy_use *use, const rproxy_result *result)
{
    rp_counts *counts = &slot->counts;

    count(&counts->answers[rproxy_status_class(result->status)]);
    count(result->reused ? &counts->reused : &counts->opened);
    if (result->first_byte >= 0)
        rproxy_histogram_add(&counts->first_byte, result->first_byte);
    if (result->status != HTTP_SWITCHING_PROTOCOLS)
        rproxy_histogram_add(&counts->total, result->total);
    if (use->tried_count)
        count(&counts->repeated);
    if (result->reason > 0 && result->reason < RPROXY_REASONS_MAX)
        count(&counts->errors[result->reason]);
}

void rp_counts_unserved(rp_slot *pool, rproxy_verdict verdict)
{
    if (verdict == RPROXY_NONE_AVAILABLE)
        count(&pool->counts.no_member);
    else if (verdict == RPROXY_ALL_BUSY)
        count(&pool->counts.busy);
}
