/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Two by chance, as likely as their weights say; of these the one that leastconn would choose. */
#include "balancer/rp_least.h"
#include "balancer/rp_mix.h"

#define DRAWS_MAX 8                     /* for two that are different and can take the request */

typedef struct drawn {
    rp_least *least;
    apr_int64_t sums[];                 /* of weights, up to each place */
} drawn;

static void drop(void *built)
{
    drawn *made = built;

    free(made->least);
    free(made);
}

static void *build(const rproxy_set *set, const void *config)
{
    drawn *made = malloc(sizeof(*made) + (apr_size_t)set->count * sizeof(made->sums[0]));
    apr_int64_t sum = 0;

    if (!made)
        return NULL;
    for (int i = 0; i < set->count; i++)
        made->sums[i] = sum += set->weights[i];
    made->least = rp_least_build(set, config);
    if (!made->least) {
        drop(made);
        return NULL;
    }
    return made;
}

static int draw(const rproxy_choice *choice, apr_uint64_t *chance)
{
    const apr_int64_t *sums = ((const drawn *)choice->built)->sums;
    int low = 0, high = choice->set->count - 1;
    apr_int64_t at;

    *chance = rp_mix(*chance);
    at = (apr_int64_t)(*chance % (apr_uint64_t)choice->set->weight_sum);
    while (low < high) {
        int middle = (low + high) / 2;

        if (sums[middle] > at)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static float price_of(const rproxy_choice *choice, int place)
{
    const drawn *made = choice->built;
    const rp_least *least = made->least;

    return (float)atomic_load_explicit(&least->members[place].shared->in_flight,
                                       memory_order_relaxed) * least->members[place].per_weight
        + rp_least_wait(least, place, choice->turn);
}

static int choose(rproxy_choice *choice)
{
    const rproxy_set *set = choice->set;
    apr_uint64_t chance = choice->turn ^ (apr_uint64_t)choice->now;
    int first = -1;

    for (int i = 0; i < DRAWS_MAX; i++) {
        int place = draw(choice, &chance);

        if (place == first || !rproxy_choice_takes(choice, set->numbers[place]))
            continue;
        if (first < 0)
            first = place;
        else {
            if (price_of(choice, place) < price_of(choice, first))
                first = place;
            break;
        }
    }
    /* Nearly all are full, or there is but one. */
    for (int i = 0; first < 0 && i < set->count; i++) {
        int place = (int)((chance + (apr_uint64_t)i) % (apr_uint64_t)set->count);

        if (rproxy_choice_takes(choice, set->numbers[place]))
            first = place;
    }
    if (first < 0)
        return -1;
    rp_least_chosen(choice, set->numbers[first]);
    return set->numbers[first];
}

const rproxy_method rp_method_random2 = { .build = build, .drop = drop, .choose = choose };
