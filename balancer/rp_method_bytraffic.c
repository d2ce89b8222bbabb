/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The member that has moved the fewest bytes for its weight, of late: what was long ago counts less
 * and less. Requests in flight count as if they were of average size. */
#include <float.h>

#include "balancer/rp_balancer.h"

/* Words of a member. */
#define BYTES 0
#define HAS_JOINED 1

/* Words of the pool. */
#define AVERAGE 0
#define PERIOD 1

#define HEADS 512                       /* bytes that a request without any body counts for */
#define HALVED_EVERY (60 * APR_USEC_PER_SEC)
#define AVERAGE_OF 64                   /* requests */

static unsigned long long load(const atomic_ullong *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static void halve(const rproxy_choice *choice)
{
    unsigned long long old = load(&choice->pool->method[PERIOD]);
    apr_uint64_t now = (apr_uint64_t)choice->now, period = now / HALVED_EVERY;

    if (old >= period
        || !atomic_compare_exchange_strong(&choice->pool->method[PERIOD], &old, period) || !old)
        return;
    for (int i = 0; i < choice->set->member_count; i++) {
        atomic_ullong *bytes = &choice->set->members[i].shared->method[BYTES];

        atomic_fetch_sub(bytes, load(bytes) / 2);
    }
}

/** A member that has just come has no arrears to make up for: it begins with what the others have
 * on average. */
static void join(const rproxy_set *set, int place)
{
    rproxy_shared *joining = set->members[set->numbers[place]].shared;
    unsigned long long expected = 0;
    double bytes = 0, weights = 0;

    if (!atomic_compare_exchange_strong(&joining->method[HAS_JOINED], &expected, 1))
        return;
    for (int i = 0; i < set->count; i++) {
        const rproxy_shared *shared = set->members[set->numbers[i]].shared;

        if (i != place && load(&shared->method[HAS_JOINED])) {
            bytes += (double)load(&shared->method[BYTES]);
            weights += set->weights[i];
        }
    }
    if (weights > 0)
        atomic_fetch_add(&joining->method[BYTES],
                         (unsigned long long)(bytes / weights * set->weights[place]));
}

static int choose(rproxy_choice *choice)
{
    const rproxy_set *set = choice->set;
    double least = DBL_MAX, average = (double)load(&choice->pool->method[AVERAGE]) + HEADS;
    int best = -1;

    halve(choice);
    for (int i = 0; i < set->count; i++) {
        const rproxy_shared *shared = set->members[set->numbers[i]].shared;
        double bytes;

        if (!load(&shared->method[HAS_JOINED]))
            join(set, i);
        bytes = (double)load(&shared->method[BYTES])
            + average * (atomic_load_explicit(&shared->in_flight, memory_order_relaxed) + 1);
        if (bytes / set->weights[i] < least && rproxy_choice_takes(choice, set->numbers[i])) {
            least = bytes / set->weights[i];
            best = set->numbers[i];
        }
    }
    return best;
}

static void finished(const rproxy_member *member, rproxy_shared *pool, const rproxy_result *result,
                     apr_time_t now)
{
    apr_uint64_t sent = (apr_uint64_t)result->sent, bytes = sent + (apr_uint64_t)result->received;
    unsigned long long old = load(&pool->method[AVERAGE]), average;

    (void)now;
    atomic_fetch_add_explicit(&member->shared->method[BYTES], bytes + HEADS, memory_order_relaxed);
    do {
        average = old - old / AVERAGE_OF + bytes / AVERAGE_OF;
    } while (!atomic_compare_exchange_weak_explicit(&pool->method[AVERAGE], &old, average,
                                                    memory_order_relaxed, memory_order_relaxed));
}

const rproxy_method rp_method_bytraffic = { .choose = choose, .finished = finished };
