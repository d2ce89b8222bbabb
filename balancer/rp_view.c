/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Views are read without locks: a reader announces itself at the view that is current, and looks
 * again whether it still is. The few views of a pool are used in turn, never freed while the child
 * lives; one is made anew only while it is not current and has no readers. One thread at a time
 * makes one, the others go on with the old one. */
#include <stdlib.h>
#include <string.h>

#include "balancer/rp_health.h"

#define VIEWS 3                         /* current, one that late readers still have, the next */
#define SLOW_START_STEPS 16
#define AGAIN (20 * 1000)               /* microseconds until a table that can't be made is tried */

struct rp_views {
    _Atomic(rp_view *) current;
    atomic_flag is_being_made;          /* guards all else */
    rp_table *table;                    /* the latest; this is a reference, too */
    rp_view views[VIEWS];
};

/* ---- making one ------------------------------------------------------------------------------ */

static void leave_table(const rp_balancer *balancer, rp_table *table)
{
    if (table && --table->references == 0)
        rp_table_free(balancer, table);
}

static void free_view(const rp_balancer *balancer, rp_view *view)
{
    for (int rank = 0; rank < RP_RANKS; rank++) {
        if (view->groups[rank].built && balancer->method->drop)
            balancer->method->drop(view->groups[rank].built);
    }
    leave_table(balancer, view->table);
    view->table = NULL;
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
    const rp_table *table = view->table;
    rproxy_set *set = &view->groups[rank].set;
    int *numbers = view->numbers + first, *weights = view->weights + first;
    int *places = view->places + (apr_size_t)rank * (apr_size_t)table->count;
    int is_slow = 0, is_advised = 0;

    *set = (rproxy_set){ .members = table->members, .member_count = table->count,
                         .numbers = numbers, .weights = weights, .places = places };
    for (int i = 0; i < table->count; i++) {
        const rp_member *member = &table->more[i];

        places[i] = -1;
        if (member->rank != rank || rp_member_state(balancer, member) != RP_MEMBER_UP
            || !rp_member_is_usable(member->slot, now, &view->valid_until))
            continue;
        weights[set->count] = steps_of(member, now, &view->valid_until);
        is_slow |= weights[set->count] != SLOW_START_STEPS;
        is_advised |= rp_health_percent(balancer, member->slot) != 100;
        places[i] = set->count;
        numbers[set->count++] = i;
    }
    for (int i = 0; i < set->count; i++) {
        weights[i] = table->members[numbers[i]].weight * (is_slow ? weights[i] : 1);
        if (is_advised)
            weights[i] *= rp_health_percent(balancer, table->more[numbers[i]].slot);
        set->weight_sum += weights[i];
    }
}

/** The latest table, made anew if the roster has changed. One that can't be made now is tried again
 * soon; meanwhile the old one does. */
static rp_table *renew_table(const rp_balancer *balancer, apr_time_t now, apr_time_t *again)
{
    rp_views *views = balancer->views;
    rp_table *made;

    if (views->table
        && views->table->version == atomic_load(&balancer->slot->roster_version))
        return views->table;
    if ((made = rp_table_make(balancer, views->table))) {
        leave_table(balancer, views->table);
        views->table = made;
        made->references = 1;
    }
    else
        *again = now + AGAIN;
    return views->table;
}

static int make(const rp_balancer *balancer, rp_view *view, unsigned long long version,
                apr_time_t now)
{
    apr_size_t count;
    int first = 0;

    free_view(balancer, view);
    view->valid_until = 0;
    if (!(view->table = renew_table(balancer, now, &view->valid_until)))
        return 0;
    view->table->references++;
    count = (apr_size_t)view->table->count + 1;
    view->numbers = calloc(count, sizeof(int));
    view->weights = calloc(count, sizeof(int));
    view->places = calloc(count * RP_RANKS, sizeof(int));
    if (!view->numbers || !view->weights || !view->places)
        return 0;
    view->version = version;
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

/** Makes a new view current, unless somebody else is at it or all are in use, or there is no
 * memory. */
static void renew(rp_balancer *balancer, apr_time_t now)
{
    rp_views *views = balancer->views;
    const rp_view *current;

    if (atomic_flag_test_and_set(&views->is_being_made))
        return;
    current = atomic_load(&views->current);
    for (int i = 0; i < VIEWS && is_outdated(balancer, current, now); i++) {
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

/** The current view, announced as in use. */
static rp_view *hold(rp_views *views)
{
    for (;;) {
        rp_view *view = atomic_load(&views->current);

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

    if (!is_outdated(balancer, view, now))
        return view;
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
        free_view(balancer, &balancer->views->views[i]);
    leave_table(balancer, balancer->views->table);
    return APR_SUCCESS;
}

int rp_views_create(apr_pool_t *pool, rp_balancer *balancer, apr_time_t now)
{
    rp_views *views = apr_pcalloc(pool, sizeof(*views));

    balancer->views = views;
    atomic_flag_clear(&views->is_being_made);
    /* Where one process does it all, it sees many configurations. */
    apr_pool_cleanup_register(pool, balancer, drop_views, apr_pool_cleanup_null);
    /* The first one is made here, so that children have it in common as long as nothing changes. */
    if (!make(balancer, &views->views[0], atomic_load(&balancer->slot->version), now))
        return 0;
    atomic_store(&views->current, &views->views[0]);
    return 1;
}
