/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The member that will probably answer first: the moving average of the time until its responses
 * began, times the requests that are there. A slower response counts at once, faster ones by and by
 * (peak-EWMA): after a dozen a single slow one is forgotten, or every member that is asked often
 * would look as slow as its slowest response. Without responses the average falls, so that one that
 * was slow is tried again. */
#include <float.h>

#include "balancer/rp_least.h"

/* The average is half as high, or half way to where it should be, after 4096 ms. */
#define HALF_LIFE_BITS 12
#define HALF_LIFE (1 << HALF_LIFE_BITS)
#define JUST_NOW 256                    /* ms */
#define FASTER_COUNTS (1.0f / 16)       /* at least, of a response that is faster */

/* A word: milliseconds when it was set, in the upper half; microseconds, at least 1. 0: unknown. */
static apr_uint32_t milliseconds(apr_time_t now)
{
    return (apr_uint32_t)apr_time_as_msec(now);
}

/** The average now; 0: unknown, or long ago. */
static inline float cost_at(unsigned long long word, apr_uint32_t now)
{
    apr_int32_t age = (apr_int32_t)(now - (apr_uint32_t)(word >> 32)), halvings;
    apr_int32_t cost = (apr_int32_t)(apr_uint32_t)word;

    /* Usually there was a response just now. Another thread may even have a later time. */
    if (age < JUST_NOW)
        return (float)cost;
    halvings = age >> HALF_LIFE_BITS;
    halvings = halvings < 31 ? halvings : 31;
    /* Between two halvings a straight line does. */
    return (float)(cost >> halvings)
        * (1.0f - (float)(age & (HALF_LIFE - 1)) * (0.5f / HALF_LIFE));
}

static int choose(rproxy_choice *choice)
{
    const rproxy_set *set = choice->set;
    rp_least *made = choice->built;
    apr_uint32_t now = milliseconds(choice->now);
    float usual = atomic_load_explicit(&made->least_cost, memory_order_relaxed);
    float least = FLT_MAX, least_cost = FLT_MAX, per_usual = 1 / usual;
    /* No constant: then compilers take a minimum, where a jump would often be mispredicted. */
    float twice = usual * per_usual * 2;
    int best = -1;

    for (int i = 0; i < set->count; i++) {
        const rproxy_shared *shared = made->members[i].shared;
        float in_flight = (float)atomic_load_explicit(&shared->in_flight, memory_order_relaxed);
        float cost = cost_at(atomic_load_explicit(&shared->method[RP_LEAST_COST],
                                                  memory_order_relaxed), now);
        float price, share;

        if (cost == 0)
            cost = usual;               /* as good as any */
        else
            least_cost = cost < least_cost ? cost : least_cost;
        /* Relative to the usual cost: with 1 that is what leastconn does. One that costs twice as
         * much is owed nothing. */
        cost *= per_usual;
        share = twice - (cost < twice ? cost : twice);
        price = (cost * in_flight + cost - 1) * made->members[i].per_weight
            + share * rp_least_wait(made, i, choice->turn);
        if (price < least && rproxy_choice_takes(choice, set->numbers[i])) {
            least = price;
            best = set->numbers[i];
        }
    }
    if (least_cost < FLT_MAX)
        atomic_store_explicit(&made->least_cost, least_cost, memory_order_relaxed);
    if (best >= 0)
        rp_least_chosen(choice, best);
    return best;
}

static void finished(const rproxy_member *member, rproxy_shared *pool, const rproxy_result *result,
                     apr_time_t now)
{
    atomic_ullong *word = &member->shared->method[RP_LEAST_COST];
    unsigned long long old = atomic_load_explicit(word, memory_order_relaxed), changed;
    apr_interval_time_t time = result->first_byte >= 0 ? result->first_byte : result->total;
    float sample = time < 1 ? 1 : time > APR_INT32_MAX ? (float)APR_INT32_MAX : (float)time;
    apr_uint32_t stamp = milliseconds(now);

    (void)pool;
    if (result->is_clients_fault)
        return;
    do {
        float cost = cost_at(old, stamp);
        float before = (float)(apr_uint32_t)old, counts;

        /* To fail fast is no merit. */
        if (sample > cost)
            cost = sample;
        else if (!result->failed) {
            counts = 1.0f - cost / before;
            counts = counts > FASTER_COUNTS ? counts : FASTER_COUNTS;
            cost = before + (sample - before) * counts;
        }
        changed = (unsigned long long)stamp << 32 | (apr_uint32_t)(cost > 1 ? cost : 1);
    } while (!atomic_compare_exchange_weak_explicit(word, &old, changed, memory_order_relaxed,
                                                    memory_order_relaxed));
}

const rproxy_method rp_method_leasttime = {
    .build = rp_least_build, .drop = free, .choose = choose, .finished = finished
};
