/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What leastconn and leasttime share: the member where a request costs least.
 *
 * A member's price is cost * in flight / weight, where cost is 1, or the time that an answer takes;
 * and cost / weight, as one more would make it, unless the member is due: each has its turn once in
 * sum of weights / weight turns. So members of equal cost are chosen in turn and by weight also
 * when there are few requests at a time. What a member that is late is owed makes up for four
 * requests at the least cost of all, and the less the more it costs: never for being slow. */
#ifndef RP_LEAST_H
#define RP_LEAST_H

#include <stdlib.h>
#include "balancer/rp_balancer.h"

/* Words of a member. */
#define RP_LEAST_DUE 0                  /* the turn when it is due, times RP_LEAST_TURN */
#define RP_LEAST_COST 1

#define RP_LEAST_TURN 1024
#define RP_LEAST_OWED 4                 /* requests that being late or early makes up for */

typedef struct rp_least {
    _Atomic(float) least_cost;          /* of the last look */
    float per_turn;                     /* 1 / sum of weights, by RP_LEAST_TURN */
    struct {                            /* by place: what a look needs, side by side */
        const rproxy_shared *shared;
        float per_weight;               /* 1 / weight */
    } members[];
} rp_least;

static inline void *rp_least_build(const rproxy_set *set, const void *config)
{
    rp_least *made =
        malloc(sizeof(*made) + (apr_size_t)set->count * sizeof(made->members[0]));

    (void)config;
    if (!made)
        return NULL;
    atomic_init(&made->least_cost, 1.0f);
    made->per_turn = 1.0f / RP_LEAST_TURN / (float)set->weight_sum;
    for (int i = 0; i < set->count; i++) {
        made->members[i].shared = set->members[set->numbers[i]].shared;
        made->members[i].per_weight = 1.0f / (float)set->weights[i];
    }
    return made;
}

/** How long until the member is due, as requests / weight; below 0: it is late. */
static inline float rp_least_wait(const rp_least *made, int place, apr_uint64_t turn)
{
    apr_int64_t due = (apr_int64_t)atomic_load_explicit(
        &made->members[place].shared->method[RP_LEAST_DUE], memory_order_relaxed);
    float wait = (float)(due - (apr_int64_t)(turn * RP_LEAST_TURN)) * made->per_turn;
    float most = RP_LEAST_OWED * made->members[place].per_weight;

    /* It can't be early by more than rp_least_chosen() allows. */
    return wait > -most ? wait : -most;
}

static inline void rp_least_chosen(const rproxy_choice *choice, int number)
{
    const rproxy_set *set = choice->set;
    atomic_ullong *word = &set->members[number].shared->method[RP_LEAST_DUE];
    apr_int64_t due = (apr_int64_t)atomic_load_explicit(word, memory_order_relaxed);
    apr_int64_t turn = (apr_int64_t)(choice->turn * RP_LEAST_TURN);
    apr_int64_t period =
        (apr_int64_t)set->weight_sum * RP_LEAST_TURN / set->weights[set->places[number]];

    /* Retries have turns of their own. */
    if (choice->attempt)
        turn = due;
    if (due < turn - RP_LEAST_OWED * period)
        due = turn - RP_LEAST_OWED * period;
    else if (due > turn + RP_LEAST_OWED * period)
        due = turn + RP_LEAST_OWED * period;
    atomic_store_explicit(word, (unsigned long long)(due + period), memory_order_relaxed);
}

#endif
