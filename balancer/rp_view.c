/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Views are read without locks: a reader announces itself at the view that is current, and looks
 * again whether it still is. The few views of a pool are used in turn, never freed while the child
 * lives; one is made anew only while it is not current and has no readers. One thread at a time
 * makes one, the others go on with the old one. */
#include <stdlib.h>
#include <string.h>

#include "balancer/rp_balancer.h"

#define VIEWS 3                         /* current, one that late readers still have, the next */
#define SLOW_START_STEPS 16

struct rp_views {
    _Atomic(rp_view *) current;         /* NULL: none was made yet */
    atomic_flag is_being_made;
    rp_view views[VIEWS];
};

/* ---- making one ------------------------------------------------------------------------------ */

static void free_view(rp_view *view, const rproxy_method *method)
{
    for (int rank = 0; rank < RP_RANKS; rank++) {
        if (view->groups[rank].built && method->drop)
            method->drop(view->groups[rank].built);
    }
    free(view->numbers);
    free(view->weights);
    free(view->places);
    memset(view->groups, 0, sizeof(view->groups));
    view->numbers = view->weights = view->places = NULL;
}

static void earlier(apr_time_t *time, apr_time_t other)
{
    if (other && (!*time || other < *time))
        *time = other;
}

/** How many steps of its weight a member has, of SLOW_START_STEPS. */
static int steps_of(const rp_member *member, apr_time_t now, apr_time_t *until)
{
    apr_time_t since = atomic_load(&member->slot->in_service_since);
    apr_interval_time_t step = member->slow_start / SLOW_START_STEPS;
    apr_time_t done;

    if (!since || !step || now >= since + member->slow_start)
        return SLOW_START_STEPS;
    done = now > since ? (now - since) / step : 0;
    earlier(until, since + (done + 1) * step);
    return done < SLOW_START_STEPS ? (int)done + 1 : SLOW_START_STEPS;
}

static void fill_group(const rp_balancer *balancer, rp_view *view, int rank, int first,
                       apr_time_t now)
{
    rproxy_set *set = &view->groups[rank].set;
    int *numbers = view->numbers + first, *weights = view->weights + first;
    int *places = view->places + (apr_size_t)rank * (apr_size_t)balancer->count;
    int is_slow = 0;

    *set = (rproxy_set){ .members = balancer->members, .member_count = balancer->count,
                         .numbers = numbers, .weights = weights, .places = places };
    for (int i = 0; i < balancer->count; i++) {
        const rp_member *member = &balancer->more[i];

        places[i] = -1;
        if (member->rank != rank || member->state != RP_MEMBER_UP
            || !rp_member_is_usable(member->slot, now, &view->valid_until))
            continue;
        weights[set->count] = steps_of(member, now, &view->valid_until);
        is_slow |= weights[set->count] != SLOW_START_STEPS;
        places[i] = set->count;
        numbers[set->count++] = i;
    }
    for (int i = 0; i < set->count; i++) {
        weights[i] = balancer->members[numbers[i]].weight * (is_slow ? weights[i] : 1);
        set->weight_sum += weights[i];
    }
}

static int make(const rp_balancer *balancer, rp_view *view, unsigned long long version,
                apr_time_t now)
{
    apr_size_t count = (apr_size_t)balancer->count;
    int first = 0;

    free_view(view, balancer->method);
    view->numbers = calloc(count, sizeof(int));
    view->weights = calloc(count, sizeof(int));
    view->places = calloc(count * RP_RANKS, sizeof(int));
    if (!view->numbers || !view->weights || !view->places)
        return 0;
    view->version = version;
    view->valid_until = 0;
    for (int rank = 0; rank < RP_RANKS; rank++) {
        rp_view_group *group = &view->groups[rank];

        fill_group(balancer, view, rank, first, now);
        first += group->set.count;
        if (!group->set.count || !balancer->method->build)
            continue;
        group->built = balancer->method->build(&group->set, balancer->method_config);
        if (!group->built)
            return 0;
    }
    return 1;
}

static int is_outdated(const rp_balancer *balancer, const rp_view *view, apr_time_t now)
{
    return view->version
            != atomic_load_explicit(&balancer->slot->version, memory_order_acquire)
        || (view->valid_until && now >= view->valid_until);
}

/** Makes a new view current, unless somebody else is at it or all are in use. */
static void renew(rp_balancer *balancer, apr_time_t now)
{
    rp_views *views = balancer->views;
    rp_view *current;

    if (atomic_flag_test_and_set(&views->is_being_made))
        return;
    current = atomic_load(&views->current);
    for (int i = 0; i < VIEWS && (!current || is_outdated(balancer, current, now)); i++) {
        rp_view *view = &views->views[i];
        unsigned long long version = atomic_load(&balancer->slot->version);

        if (view == current || atomic_load(&view->readers) != 0)
            continue;
        if (make(balancer, view, version, now))
            atomic_store(&views->current, view);
        break;
    }
    atomic_flag_clear(&views->is_being_made);
}

/* ---- using one ------------------------------------------------------------------------------- */

/** The current view, announced as in use; NULL: there is none. */
static rp_view *hold(rp_views *views)
{
    for (;;) {
        rp_view *view = atomic_load(&views->current);

        if (!view)
            return NULL;
        atomic_fetch_add(&view->readers, 1);
        if (atomic_load(&views->current) == view)
            return view;
        /* It may be made anew just now. */
        atomic_fetch_sub(&view->readers, 1);
    }
}

rp_view *rp_view_enter(rp_balancer *balancer, apr_time_t now)
{
    rp_view *view = hold(balancer->views);

    if (view && !is_outdated(balancer, view, now))
        return view;
    if (view)
        rp_view_leave(view);
    renew(balancer, now);
    return hold(balancer->views);
}

void rp_view_leave(rp_view *view)
{
    atomic_fetch_sub(&view->readers, 1);
}

static apr_status_t drop_views(void *data)
{
    rp_balancer *balancer = data;

    for (int i = 0; i < VIEWS; i++)
        free_view(&balancer->views->views[i], balancer->method);
    return APR_SUCCESS;
}

void rp_views_create(apr_pool_t *pool, rp_balancer *balancer)
{
    balancer->views = apr_pcalloc(pool, sizeof(*balancer->views));
    atomic_flag_clear(&balancer->views->is_being_made);
    /* Where one process does it all, it sees many configurations. */
    apr_pool_cleanup_register(pool, balancer, drop_views, apr_pool_cleanup_null);
}
