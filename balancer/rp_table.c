/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A pool's members as the configuration and the roster make them together. What the roster says is
 * copied under its lock, which is not waited for; all else is done with the copy. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <apr_strings.h>

#include "balancer/rp_entry.h"

/** In place of a member's where nobody has the number, so that nobody has to ask. */
static rp_slot nobody;

/* ---- origins --------------------------------------------------------------------------------- */

static void destroy_origin(rp_origin *origin)
{
    APR_OPTIONAL_FN_TYPE(rproxy_target_drop) *drop = APR_RETRIEVE_OPTIONAL_FN(rproxy_target_drop);

    if (drop)
        drop(origin->target);
    apr_pool_destroy(origin->pool);
}

/** One reference less to a member that was added. */
static apr_status_t leave_origin(void *data)
{
    rp_origin *origin = data;

    /* Release and acquire: others are done with it before it is freed. */
    if (origin->pool
        && atomic_fetch_sub_explicit(&origin->references, 1, memory_order_acq_rel) == 1)
        destroy_origin(origin);
    return APR_SUCCESS;
}

void rp_origin_keep(rp_origin *origin, apr_pool_t *pool)
{
    if (!origin->pool)
        return;
    /* Relaxed: the table has a reference meanwhile. */
    atomic_fetch_add_explicit(&origin->references, 1, memory_order_relaxed);
    apr_pool_cleanup_register(pool, origin, leave_origin, apr_pool_cleanup_null);
}

static void begin_holdings(rp_origin *origin)
{
    for (int i = 0; i <= RP_ATTEMPT_DESPITE; i++)
        origin->holdings[i] = (rp_holding){ origin, (rp_attempt)i };
}

/** What the roster says of a member, copied. */
typedef struct rp_differing {
    rp_slot *slot;
    unsigned long long incarnation;
    rp_entry entry;
} rp_differing;

/** Of a member that was added. NULL: no memory, or its URL is none, which is what another version
 * of this module may have left. */
static rp_origin *make_origin(const rp_differing *added)
{
    APR_OPTIONAL_FN_TYPE(rproxy_target_parse) *parse =
        APR_RETRIEVE_OPTIONAL_FN(rproxy_target_parse);
    rp_origin *origin;
    apr_pool_t *pool;

    /* With memory of its own: one thread makes it, another one frees it. */
    if (!parse || apr_pool_create_unmanaged_ex(&pool, NULL, NULL) != APR_SUCCESS)
        return NULL;
    origin = apr_pcalloc(pool, sizeof(*origin));
    origin->member = (rproxy_member){ .name = apr_pstrdup(pool, added->entry.url), .weight = 1,
                                      .shared = &added->slot->shared };
    origin->url = rp_balancer_normal_url(pool, origin->member.name);
    origin->slot = added->slot;
    origin->incarnation = added->incarnation;
    origin->pool = pool;
    begin_holdings(origin);
    if (parse(pool, origin->member.name, &origin->target)) {
        apr_pool_destroy(pool);
        return NULL;
    }
    return origin;
}

void rp_origin_configure(apr_pool_t *pool, const rproxy_member *member, rp_member *more)
{
    rp_origin *origin = apr_pcalloc(pool, sizeof(*origin));

    origin->member = *member;
    origin->url = more->url;
    origin->target = more->target;
    origin->slot = more->slot;
    origin->incarnation = atomic_load(&more->slot->incarnation);
    begin_holdings(origin);
    more->origin = origin;
}

/** The origin of an added member: the one that is known already, or a new one. One reference is the
 * caller's. */
static rp_origin *origin_of(const rp_differing *added, const rp_table *old)
{
    rp_origin *origin;

    for (int i = 0; old && i < old->count; i++) {
        /* Nearly always it has the number that it had. */
        int number = (added->entry.number + i) % old->count;

        origin = old->more[number].origin;
        if (origin && origin->pool && origin->slot == added->slot
            && origin->incarnation == added->incarnation) {
            atomic_fetch_add_explicit(&origin->references, 1, memory_order_relaxed);
            return origin;
        }
    }
    if ((origin = make_origin(added)))
        atomic_init(&origin->references, 1);
    return origin;
}

/* ---- what the roster says -------------------------------------------------------------------- */

typedef struct differing {
    rp_differing *all;
    int count;
    unsigned long long version;
} differing;

static int copy_roster(const rp_balancer *balancer, differing *copied)
{
    const rp_entry *entry;
    int count = 0;

    memset(copied, 0, sizeof(*copied));
    if (!rp_roster_try_lock())
        return 0;
    copied->version = atomic_load(&balancer->slot->roster_version);
    for (entry = rp_entry_first(balancer->slot); entry; entry = rp_entry_next(entry))
        count++;
    copied->all = calloc((apr_size_t)count + 1, sizeof(*copied->all));
    for (entry = rp_entry_first(balancer->slot); entry && copied->all;
         entry = rp_entry_next(entry)) {
        rp_differing *copy;

        if (entry->is_awaited)
            continue;
        copy = &copied->all[copied->count++];
        copy->slot = rp_entry_slot(entry);
        copy->incarnation = atomic_load(&copy->slot->incarnation);
        copy->entry = *entry;
    }
    rp_roster_unlock();
    return copied->all != NULL;
}

/** The number of the configured member with this slot, -1: it is none. */
static int configured_number(const rp_balancer *balancer, const rp_differing *one)
{
    for (int i = 0; i < balancer->count; i++) {
        int number = (one->entry.number + i) % balancer->count;

        if (balancer->more[number].slot == one->slot)
            return number;
    }
    return -1;
}

/* ---- making a table -------------------------------------------------------------------------- */

static rp_member *more_of(rp_table *table)
{
    return (rp_member *)table->more;
}

static rproxy_member *member_of(rp_table *table, int number)
{
    return (rproxy_member *)&table->members[number];
}

/** Gives every added member a number in this table: its own, if the configuration of this child
 * leaves it free. Returns how many numbers there are. */
static int assign_numbers(const rp_balancer *balancer, differing *copied)
{
    unsigned char taken[RP_ROSTER_MEMBERS_MAX] = { 0 };
    int count = balancer->count;

    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < copied->count; i++) {
            rp_entry *entry = &copied->all[i].entry;
            int number = entry->number;

            if (!entry->is_added)
                continue;
            if (pass == 0 && (number < balancer->count || number >= RP_ROSTER_MEMBERS_MAX
                              || taken[number]))
                entry->number = -1;
            if (pass == 1 && entry->number < 0) {
                for (number = balancer->count; number < RP_ROSTER_MEMBERS_MAX && taken[number];)
                    number++;
                entry->number = number;
            }
            if (entry->number < 0 || entry->number >= RP_ROSTER_MEMBERS_MAX)
                continue;
            taken[entry->number] = 1;
            if (entry->number >= count)
                count = entry->number + 1;
        }
    }
    return count;
}

static void take_values(const rp_balancer *balancer, rproxy_member *member, rp_member *more,
                        const rp_roster_values *values, unsigned int which)
{
    if (which & RP_VALUE_WEIGHT)
        member->weight = values->weight;
    if (which & RP_VALUE_MAX)
        member->max = values->max;
    if (which & RP_VALUE_STATE)
        more->state = values->state;
    if (which & RP_VALUE_BACKUP)
        more->is_backup = values->is_backup;
    if (which & RP_VALUE_ZONE)
        more->zone = *values->zone ? values->zone : NULL;
    if (which & RP_VALUE_ROUTE)
        more->route = *values->route ? values->route : NULL;
    if (which & RP_VALUE_SLOW_START)
        more->slow_start = values->slow_start;
    more->rank = rp_member_rank(balancer, more);
}

int rp_member_rank(const rp_balancer *balancer, const rp_member *member)
{
    return 2 * member->is_backup
        + (balancer->zone && (!member->zone || strcasecmp(member->zone, balancer->zone) != 0));
}

static void remove_member(rproxy_member *member, rp_member *more)
{
    member->weight = 0;
    more->state = RP_MEMBER_GONE;
}

/** Nonzero: done. */
static int apply(const rp_balancer *balancer, rp_table *table, const rp_differing *one,
                 const rp_table *old)
{
    const rp_entry *entry = &one->entry;
    int number = configured_number(balancer, one);
    rproxy_member *member;
    rp_member *more;

    if (number < 0 && !entry->is_added)
        return 1;                       /* of another configuration */
    if (number < 0 && (number = entry->number) >= table->count)
        return 1;
    member = member_of(table, number);
    more = &more_of(table)[number];
    if (entry->is_added && number >= balancer->count) {
        rp_origin *origin = origin_of(one, old);

        if (!origin)
            return 0;
        *member = origin->member;
        *more = (rp_member){ .origin = origin, .target = origin->target, .url = origin->url,
                             .slot = origin->slot, .source = entry->source };
        take_values(balancer, member, more, &entry->base, RP_VALUES_ALL);
    }
    else if (entry->is_added)
        return 1;                       /* this configuration has it: that wins */
    take_values(balancer, member, more, &entry->values, entry->overridden);
    if (entry->is_removed || more->is_service)
        remove_member(member, more);
    return 1;
}

/** Members that are the addresses of a name take its place, and have its settings. */
static void replace_names(const rp_balancer *balancer, rp_table *table)
{
    for (int i = 0; i < balancer->count; i++) {
        rp_member *name = &more_of(table)[i];

        for (int j = balancer->count; name->source && j < table->count; j++) {
            rp_member *found = &more_of(table)[j];

            if (found->source != name->source || found->state == RP_MEMBER_GONE)
                continue;
            found->settings = name->settings;
            remove_member(member_of(table, i), name);
        }
    }
}

static void fill_configured(const rp_balancer *balancer, rp_table *table)
{
    for (int i = 0; i < table->count; i++) {
        if (i < balancer->count) {
            *member_of(table, i) = balancer->members[i];
            more_of(table)[i] = balancer->more[i];
            if (balancer->more[i].is_service)
                remove_member(member_of(table, i), &more_of(table)[i]);
            continue;
        }
        *member_of(table, i) = (rproxy_member){ .name = "", .shared = &nobody.shared };
        more_of(table)[i] = (rp_member){ .url = "", .slot = &nobody, .state = RP_MEMBER_GONE };
    }
}

static int fill(const rp_balancer *balancer, rp_table *table, const differing *copied,
                const rp_table *old)
{
    fill_configured(balancer, table);
    for (int i = 0; i < copied->count; i++) {
        if (!apply(balancer, table, &copied->all[i], old))
            return 0;
    }
    replace_names(balancer, table);
    for (int i = 0; i < table->count; i++)
        table->up_count += table->more[i].state == RP_MEMBER_UP;
    if (balancer->method->prepare)
        table->prepared = balancer->method->prepare(balancer->method_config, table->members,
                                                    table->count);
    return !balancer->method->prepare || table->prepared;
}

rp_table *rp_table_make(const rp_balancer *balancer, const rp_table *old)
{
    rp_table *table;
    differing copied;

    if (!copy_roster(balancer, &copied))
        return NULL;
    table = calloc(1, sizeof(*table));
    if (!table) {
        free(copied.all);
        return NULL;
    }
    table->entries = copied.all;
    table->version = copied.version;
    table->count = assign_numbers(balancer, &copied);
    table->members = calloc((apr_size_t)table->count + 1, sizeof(*table->members));
    table->more = calloc((apr_size_t)table->count + 1, sizeof(*table->more));
    if (!table->members || !table->more || !fill(balancer, table, &copied, old)) {
        rp_table_free(balancer, table);
        return NULL;
    }
    return table;
}

void rp_table_free(const rp_balancer *balancer, rp_table *table)
{
    for (int i = 0; table->more && i < table->count; i++) {
        rp_origin *origin = table->more[i].origin;

        if (origin)
            leave_origin(origin);
    }
    if (table->prepared && balancer->method->discard)
        balancer->method->discard(table->prepared);
    free((void *)table->members);
    free((void *)table->more);
    free(table->entries);
    free(table);
}
