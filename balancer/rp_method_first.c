/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The first one in the configuration until it is full, then the next: as few as possible work. */
#include "balancer/rp_balancer.h"

static int choose(rproxy_choice *choice)
{
    for (int i = 0; i < choice->set->count; i++) {
        if (rproxy_choice_takes(choice, choice->set->numbers[i]))
            return choice->set->numbers[i];
    }
    return -1;
}

const rproxy_method rp_method_first = { .choose = choose };
