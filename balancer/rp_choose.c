/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A member for each attempt of a request. */
#include <apr_strings.h>

#include "balancer/rp_balancer.h"
#include "balancer/rp_health.h"
#include "balancer/rp_sticky.h"

/** Takes a place for the request, which has the member then. */
static int take(const rp_table *table, int number, int limit, rp_attempt attempt, rproxy_use *use)
{
    rp_origin *origin = table->more[number].origin;
    int max = rp_health_max(origin->slot, table->members[number].max);

    if (max && (!limit || max < limit))
        limit = max;
    if (!rp_shared_take(origin->slot, limit))
        return 0;
    if (!rp_slot_is(origin->slot, origin->incarnation)) {
        /* It was removed, and the slot may be another's by now. */
        rp_shared_give_back(origin->slot);
        return 0;
    }
    use->member = number;
    use->data = &origin->holdings[attempt];
    return 1;
}

/* ---- sessions: the member is known ----------------------------------------------------------- */

int rp_member_is_at_max(const rp_table *table, int number)
{
    int max = rp_health_max(table->more[number].slot, table->members[number].max);

    return max && atomic_load_explicit(&table->more[number].slot->shared.in_flight,
                                       memory_order_relaxed) >= max;
}

/** Takes a place at the session's member. *is_busy: it has none. */
static int take_own(rp_balancer *balancer, const rp_table *table, rproxy_use *use, int number,
                    apr_time_t now, int *is_busy)
{
    rp_slot *slot = table->more[number].slot;
    rp_attempt attempt;
    apr_time_t until = 0;

    if (!rp_member_is_usable(slot, now, &until))
        return 0;
    *is_busy = rp_member_is_at_max(table, number);
    if (*is_busy || !rp_outlier_begin(balancer, slot, use->request, now, &attempt))
        return 0;
    *is_busy = !take(table, number, 0, attempt, use);
    return !*is_busy;
}

/** Nonzero: the request's session decides, as *verdict says; 0: any member may serve it. */
static int choose_for_session(rp_balancer *balancer, const rp_table *table, rproxy_use *use,
                              apr_time_t now, rproxy_verdict *verdict)
{
    rp_session *session = rp_sticky_session(balancer, table, use, now);
    int number = session ? session->member : -1;
    rp_admin_state state;
    int is_busy = 0;

    if (number < 0 || number >= table->count)
        return 0;
    state = rp_member_state(balancer, &table->more[number]);
    *verdict = RPROXY_CHOSEN;
    if (state < RP_MEMBER_DOWN && !rp_has_tried(use, number)
        && take_own(balancer, table, use, number, now, &is_busy))
        return 1;
    if (!rp_session_is_bound(balancer->sticky, session))
        return 0;
    session->was_busy = is_busy != 0;
    *verdict = is_busy ? RPROXY_ALL_BUSY : RPROXY_NONE_AVAILABLE;
    /* Room at a drained member calls nobody in the queue. */
    return balancer->sticky->down == RP_DOWN_FAIL
        || (is_busy && balancer->queue && state == RP_MEMBER_UP);
}

/* ---- the way it should be: the method chooses ------------------------------------------------ */

/** Asks the method until it names one that can be had. Nonzero: a place was taken. */
static int choose_in(rp_balancer *balancer, const rp_view *view, int rank, rproxy_choice *choice,
                     rproxy_use *use)
{
    const rp_table *table = view->table;

    choice->set = &view->groups[rank].set;
    choice->built = view->groups[rank].built;
    while (choice->avoid_count < RPROXY_AVOID_MAX) {
        rp_attempt attempt;
        int number;

        choice->limit = 0;
        number = balancer->method->choose(choice);
        if (number < 0)
            return 0;
        if (rp_outlier_begin(balancer, table->more[number].slot, use->request, choice->now,
                             &attempt)
            && take(table, number, choice->limit, attempt, use))
            return 1;
        choice->avoid[choice->avoid_count++] = number;
    }
    return 0;
}

/* ---- when it has none ------------------------------------------------------------------------ */

enum { AVOID_EJECTED = 1, AVOID_TRIED = 2 };

/** The emptiest of the lowest rank that can be had, all methods put aside. */
static int take_any(const rp_balancer *balancer, const rp_table *table,
                    const rproxy_choice *choice, rproxy_use *use, int avoid)
{
    int start = table->count ? (int)(choice->turn % (apr_uint64_t)table->count) : 0;
    int best = -1, least = 0;

    for (int i = 0; i < table->count; i++) {
        int number = (start + i) % table->count;
        const rp_member *member = &table->more[number];
        int in_flight = atomic_load(&member->slot->shared.in_flight);
        int max = rp_health_max(member->slot, table->members[number].max);

        if (rp_member_state(balancer, member) != RP_MEMBER_UP || (max && in_flight >= max)
            || ((avoid & AVOID_EJECTED) && atomic_load(&member->slot->ejected_until) != 0)
            || ((avoid & AVOID_TRIED) && rp_has_tried(use, number)))
            continue;
        if (best < 0 || member->rank < table->more[best].rank
            || (member->rank == table->more[best].rank && in_flight < least)) {
            best = number;
            least = in_flight;
        }
    }
    /* One that answers is well: no need to wait for the end of its ejection. */
    return best >= 0
        && take(table, best, 0, atomic_load(&table->more[best].slot->ejected_until)
                ? RP_ATTEMPT_DESPITE : RP_ATTEMPT_USUAL, use);
}

/** Nonzero if a member that is neither ejected nor tried is only full. */
static int is_only_busy(const rp_balancer *balancer, const rp_table *table, const rproxy_use *use)
{
    for (int i = 0; i < table->count; i++) {
        const rp_member *member = &table->more[i];

        if (rp_member_state(balancer, member) == RP_MEMBER_UP
            && !atomic_load(&member->slot->ejected_until)
            && !rp_has_tried(use, i))
            return 1;
    }
    return 0;
}

int rp_balancer_has_room(rp_balancer *balancer, const rproxy_use *use, apr_time_t now)
{
    rp_view *view = rp_view_enter(balancer, now);
    const rp_table *table = view->table;
    int is_up = 0, waits = 0, has_ejected = 0, has_room = 0;
    apr_time_t until = 0;

    for (int i = 0; i < table->count && !has_room; i++) {
        const rp_member *member = &table->more[i];

        if (rp_member_state(balancer, member) != RP_MEMBER_UP)
            continue;
        is_up = 1;
        if (use && rp_has_tried(use, i))
            continue;
        has_room = !rp_member_is_at_max(table, i) && rp_member_is_usable(member->slot, now, &until);
        if (!atomic_load(&member->slot->ejected_until))
            waits = 1;
        else
            has_ejected |= !rp_member_is_at_max(table, i);
    }
    has_room |= !is_up || (!waits && has_ejected);
    rp_view_leave(view);
    return has_room;
}

static int has_any_up(const rp_balancer *balancer, const rp_table *table)
{
    for (int i = 0; i < table->count; i++) {
        if (rp_member_state(balancer, &table->more[i]) == RP_MEMBER_UP)
            return 1;
    }
    return 0;
}

static rproxy_verdict last_resort(const rp_balancer *balancer, const rp_table *table,
                                  const rproxy_choice *choice, rproxy_use *use)
{
    if (take_any(balancer, table, choice, use, AVOID_EJECTED | AVOID_TRIED))
        return RPROXY_CHOSEN;
    if (!table->up_count)
        return RPROXY_NONE_AVAILABLE;
    if (is_only_busy(balancer, table, use))
        return RPROXY_ALL_BUSY;
    /* Better one that may be down, or one that has failed, than no answer for sure. */
    if (take_any(balancer, table, choice, use, AVOID_TRIED)
        || take_any(balancer, table, choice, use, AVOID_EJECTED)
        || take_any(balancer, table, choice, use, 0))
        return RPROXY_CHOSEN;
    return has_any_up(balancer, table) ? RPROXY_ALL_BUSY : RPROXY_NONE_AVAILABLE;
}

/* ---- rproxy_pools ---------------------------------------------------------------------------- */

static rproxy_verdict choose_in_view(rp_balancer *balancer, const rp_view *view, rproxy_use *use,
                                     apr_time_t now)
{
    rproxy_choice choice = {
        .request = use->request, .now = now, .pool = &balancer->slot->shared,
        .config = balancer->method_config, .prepared = view->table->prepared,
        .attempt = use->tried_count, .avoid_count = use->tried_count
    };
    atomic_ullong *turns = choice.attempt ? &balancer->slot->retries : &balancer->slot->requests;
    rproxy_verdict verdict;
    int is_chosen = 0;

    if (choose_for_session(balancer, view->table, use, now, &verdict))
        return verdict;
    /* A request that has waited asks more than once. */
    choice.turn = atomic_fetch_add_explicit(turns, !use->waiting, memory_order_relaxed);
    for (int i = 0; i < use->tried_count; i++)
        choice.avoid[i] = use->tried[i];
    for (int rank = 0; !is_chosen && rank < RP_RANKS; rank++) {
        if (view->groups[rank].set.count)
            is_chosen = choose_in(balancer, view, rank, &choice, use);
    }
    return is_chosen ? RPROXY_CHOSEN : last_resort(balancer, view->table, &choice, use);
}

rproxy_verdict rp_choose_member(rp_balancer *balancer, rproxy_use *use, apr_time_t now)
{
    rp_view *view = rp_view_enter(balancer, now);
    rproxy_verdict verdict = choose_in_view(balancer, view, use, now);

    if (verdict == RPROXY_CHOSEN) {
        const rp_member *member = &view->table->more[use->member];

        rp_origin_keep(member->origin, use->request->pool);
        use->name = member->origin->member.name;
        use->settings = member->settings ? member->settings : balancer->settings;
        use->route = member->route ? apr_pstrdup(use->request->pool, member->route) : NULL;
    }
    rp_view_leave(view);
    return verdict;
}

rproxy_verdict rp_balancer_choose(rproxy_use *use, apr_time_t now, rproxy_target **target)
{
    rp_balancer *balancer = use->pool;
    const rp_origin *origin;
    rproxy_verdict verdict;

    if (!rp_shared_has_row())
        return RPROXY_NONE_AVAILABLE;
    verdict = balancer->queue ? rp_waiting_choose(balancer, use, now)
                              : rp_choose_member(balancer, use, now);
    if (verdict != RPROXY_CHOSEN) {
        rp_counts_unserved(balancer->slot, verdict);
        if (use->retry && verdict != RPROXY_QUEUED)
            rp_budget_end(use);
        return verdict;
    }
    origin = ((const rp_holding *)use->data)->origin;
    if (balancer->method->counts_total)
        rp_shared_take(balancer->slot, 0);
    rp_count(&origin->slot->requests);
    *target = origin->target;
    return RPROXY_CHOSEN;
}

void rp_balancer_release(rproxy_use *use, const rproxy_result *result, apr_time_t now)
{
    rp_balancer *balancer = use->pool;
    const rp_holding *holding = use->data;
    const rp_origin *origin = holding->origin;
    rp_slot *slot = origin->slot;

    rp_counts_attempt(slot, balancer->slot, use, result);
    /* If there is another attempt, this was why. */
    if ((result->failed || result->status >= 500) && use->tried_count < RPROXY_TRIED_MAX
        && !(result->was_idle && rp_session_is_on(use, use->member)))
        use->tried[use->tried_count++] = use->member;
    if (balancer->method->finished)
        balancer->method->finished(&origin->member, &balancer->slot->shared, result, now);
    rp_outlier_finished(balancer, holding, result, now);
    if (use->retry)
        rp_budget_released(use);
    /* At last: of a member that was removed, the slot may be another's from here on. */
    rp_shared_give_back(slot);
    if (balancer->method->counts_total)
        rp_shared_give_back(balancer->slot);
    if (balancer->queue)
        rp_shared_call(balancer->queue, 0, 0);
}
