/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A member for each attempt of a request. */
#include "balancer/rp_balancer.h"

/** What rproxy_use.data says of the attempt under way. */
static rp_attempt attempts[] = { RP_ATTEMPT_USUAL, RP_ATTEMPT_TRIAL, RP_ATTEMPT_DESPITE };

static int has_tried(const rproxy_use *use, int number)
{
    for (int i = 0; i < use->tried_count; i++) {
        if (use->tried[i] == number)
            return 1;
    }
    return 0;
}

static int take(rp_balancer *balancer, int number, int limit)
{
    int max = balancer->members[number].max;

    if (max && (!limit || max < limit))
        limit = max;
    return rp_shared_take(balancer->more[number].slot, limit);
}

/* ---- the way it should be: the method chooses ------------------------------------------------ */

/** Asks the method until it names one that can be had. Nonzero: a place was taken. */
static int choose_in(rp_balancer *balancer, const rp_view_group *group, rproxy_choice *choice,
                     rproxy_use *use)
{
    choice->set = &group->set;
    choice->built = group->built;
    while (choice->avoid_count < RPROXY_AVOID_MAX) {
        rp_attempt attempt;
        int number;

        choice->limit = 0;
        number = balancer->method->choose(choice);
        if (number < 0)
            return 0;
        if (rp_outlier_begin(balancer, number, use->request, choice->now, &attempt)
            && take(balancer, number, choice->limit)) {
            use->member = number;
            use->data = &attempts[attempt];
            return 1;
        }
        choice->avoid[choice->avoid_count++] = number;
    }
    return 0;
}

/* ---- when it has none ------------------------------------------------------------------------ */

enum { AVOID_EJECTED = 1, AVOID_TRIED = 2 };

/** The emptiest of the lowest rank that can be had, all methods put aside. */
static int take_any(rp_balancer *balancer, const rproxy_choice *choice, rproxy_use *use, int avoid)
{
    int start = (int)(choice->turn % (apr_uint64_t)balancer->count), best = -1, least = 0;

    for (int i = 0; i < balancer->count; i++) {
        int number = (start + i) % balancer->count;
        const rp_member *member = &balancer->more[number];
        int in_flight = atomic_load(&member->slot->shared.in_flight);
        int max = balancer->members[number].max;

        if (member->state != RP_MEMBER_UP || (max && in_flight >= max)
            || ((avoid & AVOID_EJECTED) && atomic_load(&member->slot->ejected_until) != 0)
            || ((avoid & AVOID_TRIED) && has_tried(use, number)))
            continue;
        if (best < 0 || member->rank < balancer->more[best].rank
            || (member->rank == balancer->more[best].rank && in_flight < least)) {
            best = number;
            least = in_flight;
        }
    }
    if (best < 0 || !take(balancer, best, 0))
        return 0;
    use->member = best;
    /* One that answers is well: no need to wait for the end of its ejection. */
    use->data = &attempts[atomic_load(&balancer->more[best].slot->ejected_until)
                          ? RP_ATTEMPT_DESPITE : RP_ATTEMPT_USUAL];
    return 1;
}

/** Nonzero if a member that is neither ejected nor tried is only full. */
static int is_only_busy(const rp_balancer *balancer, const rproxy_use *use)
{
    for (int i = 0; i < balancer->count; i++) {
        const rp_member *member = &balancer->more[i];

        if (member->state == RP_MEMBER_UP && !atomic_load(&member->slot->ejected_until)
            && !has_tried(use, i))
            return 1;
    }
    return 0;
}

static rproxy_verdict last_resort(rp_balancer *balancer, const rproxy_choice *choice,
                                  rproxy_use *use)
{
    if (take_any(balancer, choice, use, AVOID_EJECTED | AVOID_TRIED))
        return RPROXY_CHOSEN;
    if (!balancer->up_count)
        return RPROXY_NONE_AVAILABLE;
    if (is_only_busy(balancer, use))
        return RPROXY_ALL_BUSY;
    /* Better one that may be down, or one that has failed, than no answer for sure. */
    if (take_any(balancer, choice, use, AVOID_TRIED)
        || take_any(balancer, choice, use, AVOID_EJECTED) || take_any(balancer, choice, use, 0))
        return RPROXY_CHOSEN;
    return RPROXY_ALL_BUSY;
}

/* ---- rproxy_pools ---------------------------------------------------------------------------- */

static rproxy_verdict choose_member(rp_balancer *balancer, rproxy_use *use, apr_time_t now)
{
    rproxy_choice choice = {
        .request = use->request, .now = now, .pool = &balancer->slot->shared,
        .config = balancer->method_config, .attempt = use->tried_count,
        .avoid_count = use->tried_count
    };
    atomic_ullong *turns = choice.attempt ? &balancer->slot->retries : &balancer->slot->requests;
    rp_view *view = rp_view_enter(balancer, now);
    int is_chosen = 0;

    choice.turn = atomic_fetch_add_explicit(turns, 1, memory_order_relaxed);
    for (int i = 0; i < use->tried_count; i++)
        choice.avoid[i] = use->tried[i];
    for (int rank = 0; view && !is_chosen && rank < RP_RANKS; rank++) {
        if (view->groups[rank].set.count)
            is_chosen = choose_in(balancer, &view->groups[rank], &choice, use);
    }
    if (view)
        rp_view_leave(view);
    return is_chosen ? RPROXY_CHOSEN : last_resort(balancer, &choice, use);
}

rproxy_verdict rp_balancer_choose(rproxy_use *use, apr_time_t now, rproxy_target **target)
{
    rp_balancer *balancer = use->pool;
    rproxy_verdict verdict;

    if (!rp_shared_has_row())
        return RPROXY_NONE_AVAILABLE;
    verdict = choose_member(balancer, use, now);
    if (verdict != RPROXY_CHOSEN)
        return verdict;
    if (balancer->method->counts_total)
        rp_shared_take(balancer->slot, 0);
    atomic_fetch_add_explicit(&balancer->more[use->member].slot->requests, 1,
                              memory_order_relaxed);
    use->name = balancer->members[use->member].name;
    *target = balancer->more[use->member].target;
    return RPROXY_CHOSEN;
}

void rp_balancer_release(rproxy_use *use, const rproxy_result *result, apr_time_t now)
{
    rp_balancer *balancer = use->pool;
    rp_slot *slot = balancer->more[use->member].slot;

    rp_shared_give_back(slot);
    if (balancer->method->counts_total)
        rp_shared_give_back(balancer->slot);
    /* For display and by traffic: nothing else depends on these. */
    atomic_fetch_add_explicit(&slot->sent, (unsigned long long)result->sent, memory_order_relaxed);
    atomic_fetch_add_explicit(&slot->received, (unsigned long long)result->received,
                              memory_order_relaxed);
    if (result->failed)
        atomic_fetch_add_explicit(&slot->failures, 1, memory_order_relaxed);
    /* If there is another attempt, this was why. */
    if ((result->failed || result->status >= 500) && use->tried_count < RPROXY_TRIED_MAX)
        use->tried[use->tried_count++] = use->member;
    if (balancer->method->finished)
        balancer->method->finished(&balancer->members[use->member], &balancer->slot->shared,
                                   result, now);
    rp_outlier_finished(balancer, use->member, result, *(rp_attempt *)use->data, now);
}
