/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The member with the fewest requests in flight for its weight. */
#include <float.h>

#include "balancer/rp_least.h"

static int choose(rproxy_choice *choice)
{
    const rproxy_set *set = choice->set;
    const rp_least *made = choice->built;
    float least = FLT_MAX;
    int best = -1;

    for (int i = 0; i < set->count; i++) {
        int in_flight = atomic_load_explicit(&made->members[i].shared->in_flight,
                                             memory_order_relaxed);
        float price = (float)in_flight * made->members[i].per_weight
            + rp_least_wait(made, i, choice->turn);

        if (price < least && rproxy_choice_takes(choice, set->numbers[i])) {
            least = price;
            best = set->numbers[i];
        }
    }
    if (best >= 0)
        rp_least_chosen(choice, best);
    return best;
}

const rproxy_method rp_method_leastconn = {
    .build = rp_least_build, .drop = free, .choose = choose
};
