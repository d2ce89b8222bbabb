/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What slots say of health. Only pools that have checks heed it: what others have left in a slot
 * is of no effect. */
#include <string.h>

#include "balancer/rp_health.h"

#define CAUSE_WORDS (RPROXY_CAUSE_BYTES / 8)

static int is_member_well(const rp_balancer *balancer, const rp_slot *slot)
{
    int health = atomic_load_explicit(&slot->health, memory_order_relaxed);

    return !balancer->check || health == RP_HEALTH_UP
        || (health == RP_HEALTH_UNKNOWN && !balancer->check->waits);
}

/** What an agent says is meant: panic doesn't override it. */
static rp_admin_state agent_state(const rp_slot *slot)
{
    int mode = atomic_load_explicit(&slot->agent_mode, memory_order_relaxed);

    if (mode == RPROXY_ADVICE_MAINT
        || atomic_load_explicit(&slot->agent_health, memory_order_relaxed) == RPROXY_ADVICE_DOWN)
        return RP_MEMBER_DOWN;
    return mode == RPROXY_ADVICE_DRAIN
            || atomic_load_explicit(&slot->agent_percent, memory_order_relaxed) == 1
        ? RP_MEMBER_DRAIN : RP_MEMBER_UP;
}

rp_admin_state rp_health_limit(const rp_balancer *balancer, const rp_slot *slot,
                               rp_admin_state state)
{
    rp_admin_state agents;

    if (state == RP_MEMBER_GONE)
        return state;
    agents = balancer->agent ? agent_state(slot) : RP_MEMBER_UP;
    /* The states stand in this order: each is less than the one before. */
    if (agents > state)
        state = agents;
    return is_member_well(balancer, slot)
            || atomic_load_explicit(&balancer->slot->panic, memory_order_relaxed)
        ? state : RP_MEMBER_DOWN;
}

int rp_health_look_for_panic(rp_balancer *balancer)
{
    rp_view *view = rp_view_enter(balancer, apr_time_now());
    int up = 0, all = 0, waiting = 0, panic;

    for (int i = 0; i < view->table->count; i++) {
        const rp_member *member = &view->table->more[i];

        if (member->state != RP_MEMBER_UP)
            continue;
        waiting += atomic_load(&member->slot->health) == RP_HEALTH_UNKNOWN;
        up += is_member_well(balancer, member->slot);
        all++;
    }
    rp_view_leave(view);
    /* Those that wait for their first check are decided in a moment. */
    panic = balancer->check && all && !(balancer->check->waits && waiting)
        && (!up || up * 100 < all * balancer->check->panic_percent);
    return atomic_exchange(&balancer->slot->panic, panic) != panic;
}

int rp_health_percent(const rp_balancer *balancer, const rp_slot *slot)
{
    int said = balancer->agent
        ? atomic_load_explicit(&slot->agent_percent, memory_order_relaxed) : 0;

    return said > 1 ? said - 1 : 100;
}

int rp_health_max(const rp_slot *slot, int max)
{
    int said = atomic_load_explicit(&slot->agent_max, memory_order_relaxed);

    return said > 1 && (!max || said - 1 < max) ? said - 1 : max;
}

/* ---- causes ---------------------------------------------------------------------------------- */

/* One writer, many readers: an odd version says that the words are being changed. */

void rp_health_write_cause(rp_slot *slot, const char *cause)
{
    apr_uint64_t words[CAUSE_WORDS] = { 0 };

    strncpy((char *)words, cause, RPROXY_CAUSE_BYTES - 1);
    atomic_fetch_add(&slot->cause_version, 1);
    for (int i = 0; i < CAUSE_WORDS; i++)
        atomic_store(&slot->cause[i], words[i]);
    atomic_fetch_add(&slot->cause_version, 1);
}

static void read_cause(const rp_slot *slot, char *cause)
{
    apr_uint64_t words[CAUSE_WORDS];

    cause[0] = '\0';
    for (int tries = 0; tries < 100; tries++) {
        unsigned int version = atomic_load(&slot->cause_version);

        for (int i = 0; i < CAUSE_WORDS; i++)
            words[i] = atomic_load(&slot->cause[i]);
        if (!(version & 1) && atomic_load(&slot->cause_version) == version) {
            memcpy(cause, words, RPROXY_CAUSE_BYTES);
            cause[RPROXY_CAUSE_BYTES - 1] = '\0';
            return;
        }
    }
}

/* ---- for display ----------------------------------------------------------------------------- */

void rp_health_look(const rp_balancer *balancer, const rp_slot *slot, rp_health_view *view)
{
    memset(view, 0, sizeof(*view));
    view->percent = view->max = -1;
    if (balancer->agent) {
        view->agent_mode = atomic_load(&slot->agent_mode);
        view->agent_health = atomic_load(&slot->agent_health);
        view->percent = atomic_load(&slot->agent_percent) - 1;
        view->max = atomic_load(&slot->agent_max) - 1;
    }
    if (!balancer->check)
        return;
    view->is_checked = 1;
    view->health = atomic_load(&slot->health);
    view->since = atomic_load(&slot->health_since);
    view->checked_at = atomic_load(&slot->checked_at);
    view->latency = atomic_load(&slot->check_time);
    view->checks = atomic_load(&slot->checks);
    view->failures = atomic_load(&slot->checks_failed);
    read_cause(slot, view->cause);
}

const char *rp_health_name(const rp_health_view *view)
{
    static const char *const names[] = { "unknown", "up", "down" };

    return view->is_checked ? names[view->health] : "unchecked";
}
