/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Each in turn, as often as its weight says and evenly spread, over all children: these count turns
 * together, and go by the same schedule. */
#include <math.h>
#include <stdlib.h>

#include "balancer/rp_balancer.h"

/* A schedule of that many turns is exact for all weights in use. Others are rounded down, and the
 * turns that are left go to each by what rounding took. */
#define EXACT_MAX 8192
#define ROUNDED 4096
#define LEFT_OVER (-1)

typedef struct schedule {
    apr_uint64_t length;
    apr_uint64_t left_over;             /* turns of a round that are nobody's */
    double *shares;                     /* of these, summed up by place; NULL: none are left */
    int turns[];                        /* numbers of members, or LEFT_OVER - n for the n-th */
} schedule;

/** When a member is due next. */
typedef struct due {
    double time;
    double period;
    int place;                          /* set.count: what is left over */
} due;

static int is_before(const due *a, const due *b)
{
    if (a->time != b->time)
        return a->time < b->time;
    return a->period != b->period ? a->period < b->period : a->place < b->place;
}

static void sink(due *heap, int count)
{
    due moving = heap[0];
    int at = 0;

    for (int child = 1; child < count; child = 2 * at + 1) {
        child += child + 1 < count && is_before(&heap[child + 1], &heap[child]);
        if (!is_before(&heap[child], &moving))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

static void heapify(due *heap, int count)
{
    for (int i = 1; i < count; i++) {
        due moving = heap[i];
        int at = i;

        for (; at && is_before(&moving, &heap[(at - 1) / 2]); at = (at - 1) / 2)
            heap[at] = heap[(at - 1) / 2];
        heap[at] = moving;
    }
}

static apr_int64_t common_divisor(const rproxy_set *set)
{
    apr_int64_t divisor = 0;            /* weights are at least 1 */

    for (int i = 0; i < set->count && divisor != 1; i++) {
        apr_int64_t other = set->weights[i];

        while (other) {
            apr_int64_t rest = divisor % other;

            divisor = other;
            other = rest;
        }
    }
    return divisor > 1 ? divisor : 1;
}

/** Turns of each place in a round, and of what is left over behind them. */
static int count_turns(const rproxy_set *set, schedule *made, apr_int64_t *turns)
{
    apr_int64_t divisor = common_divisor(set), left = (apr_int64_t)made->length;
    int is_exact = set->weight_sum / divisor == left;
    double sum = 0;

    if (!is_exact && !(made->shares = calloc((apr_size_t)set->count, sizeof(double))))
        return 0;
    for (int i = 0; i < set->count; i++) {
        double exact = (double)set->weights[i] * (double)made->length / (double)set->weight_sum;

        turns[i] = is_exact ? set->weights[i] / divisor : (apr_int64_t)exact;
        left -= turns[i];
        if (!is_exact)
            made->shares[i] = sum += exact - (double)turns[i];
    }
    turns[set->count] = left;
    made->left_over = (apr_uint64_t)left;
    return 1;
}

/** Each is due in the middle of its periods. */
static void spread(const rproxy_set *set, schedule *made, const apr_int64_t *turns, due *heap)
{
    int count = 0, nth = 0;

    for (int i = 0; i <= set->count; i++) {
        if (turns[i])
            heap[count++] = (due){ 0.5 / (double)turns[i], 1.0 / (double)turns[i], i };
    }
    heapify(heap, count);
    for (apr_uint64_t turn = 0; turn < made->length; turn++) {
        int place = heap->place;

        made->turns[turn] = place < set->count ? set->numbers[place] : LEFT_OVER - nth++;
        heap->time += heap->period;
        sink(heap, count);
    }
}

static void drop(void *built)
{
    schedule *made = built;

    free(made->shares);
    free(made);
}

static void *build(const rproxy_set *set, const void *config)
{
    apr_int64_t length = set->weight_sum / common_divisor(set);
    apr_size_t places = (apr_size_t)set->count + 1;
    apr_int64_t *turns = calloc(places, sizeof(*turns));
    due *heap = calloc(places, sizeof(*heap));
    schedule *made;

    (void)config;
    if (length > EXACT_MAX)
        length = 2 * set->count > ROUNDED ? 2 * set->count : ROUNDED;
    made = calloc(1, sizeof(*made) + (apr_size_t)length * sizeof(made->turns[0]));
    if (made)
        made->length = (apr_uint64_t)length;
    if (made && (!turns || !heap || !count_turns(set, made, turns))) {
        drop(made);
        made = NULL;
    }
    if (made)
        spread(set, made, turns, heap);
    free(turns);
    free(heap);
    return made;
}

/** Whose turn it is when nobody's is: by shares, evenly over many rounds. */
static int left_over(const rproxy_set *set, const schedule *made, apr_uint64_t round, int nth)
{
    const double golden = 0.618033988749894848;
    apr_uint64_t all = round * made->left_over + (apr_uint64_t)nth;
    double at = (double)(all & 0xffffffffu) * golden;
    int low = 0, high = set->count - 1;

    at = (at - floor(at)) * made->shares[high];
    while (low < high) {
        int middle = (low + high) / 2;

        if (made->shares[middle] > at)
            high = middle;
        else
            low = middle + 1;
    }
    return set->numbers[low];
}

static int choose(rproxy_choice *choice)
{
    const schedule *made = choice->built;
    apr_uint64_t round = choice->turn / made->length, at = choice->turn % made->length;

    for (apr_uint64_t i = 0; i < made->length; i++) {
        int number = made->turns[at];

        if (number < 0)
            number = left_over(choice->set, made, round, LEFT_OVER - number);
        if (rproxy_choice_takes(choice, number))
            return number;
        if (++at == made->length) {
            at = 0;
            round++;
        }
    }
    return -1;
}

const rproxy_method rp_method_roundrobin = { .build = build, .drop = drop, .choose = choose };
