/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <limits.h>
#include <string.h>
#include <strings.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_log.h"

#include "balancer/rp_discovery.h"
#include "balancer/rp_entry.h"

APLOG_USE_MODULE(rproxy_balancer);

static const rp_roster_values defaults = { .weight = 1 };

unsigned long long rp_roster_version(const rp_balancer *balancer)
{
    return atomic_load(&balancer->slot->roster_version);
}

unsigned long long rp_roster_versions(const apr_array_header_t *balancers)
{
    unsigned long long sum = 0;

    for (int i = 0; i < balancers->nelts; i++)
        sum += rp_roster_version(APR_ARRAY_IDX(balancers, i, const rp_balancer *));
    return sum;
}

void rp_roster_changed(rp_balancer *balancer)
{
    atomic_fetch_add(&balancer->slot->roster_version, 1);
    rp_balancer_changed(balancer);
}

/* ---- values ---------------------------------------------------------------------------------- */

static rp_roster_values configured_values(const rproxy_member *member, const rp_member *more)
{
    rp_roster_values values = { .weight = member->weight, .max = member->max, .state = more->state,
                                .is_backup = more->is_backup, .slow_start = more->slow_start };

    apr_cpystrn(values.zone, more->zone ? more->zone : "", sizeof(values.zone));
    apr_cpystrn(values.route, more->route ? more->route : "", sizeof(values.route));
    return values;
}

unsigned int rp_roster_differing(const rp_roster_values *a, const rp_roster_values *b)
{
    return (a->weight != b->weight ? RP_VALUE_WEIGHT : 0u)
        | (a->max != b->max ? RP_VALUE_MAX : 0u)
        | (a->state != b->state ? RP_VALUE_STATE : 0u)
        | (a->is_backup != b->is_backup ? RP_VALUE_BACKUP : 0u)
        | (strcmp(a->zone, b->zone) ? RP_VALUE_ZONE : 0u)
        | (strcmp(a->route, b->route) ? RP_VALUE_ROUTE : 0u)
        | (a->slow_start != b->slow_start ? RP_VALUE_SLOW_START : 0u);
}

void rp_roster_take(rp_roster_values *values, const rp_roster_values *from, unsigned int which)
{
    if (which & RP_VALUE_WEIGHT)
        values->weight = from->weight;
    if (which & RP_VALUE_MAX)
        values->max = from->max;
    if (which & RP_VALUE_STATE)
        values->state = from->state;
    if (which & RP_VALUE_BACKUP)
        values->is_backup = from->is_backup;
    if (which & RP_VALUE_ZONE)
        memcpy(values->zone, from->zone, sizeof(values->zone));
    if (which & RP_VALUE_ROUTE)
        memcpy(values->route, from->route, sizeof(values->route));
    if (which & RP_VALUE_SLOW_START)
        values->slow_start = from->slow_start;
}

/** What is set, for the journal: " weight=3 state=drain". */
static const char *describe(apr_pool_t *pool, const rp_roster_values *values, unsigned int which)
{
    const char *text = "";

    if (which & RP_VALUE_WEIGHT)
        text = apr_psprintf(pool, "%s weight=%d", text, values->weight);
    if (which & RP_VALUE_MAX)
        text = apr_psprintf(pool, "%s max=%d", text, values->max);
    if (which & RP_VALUE_STATE)
        text = apr_psprintf(pool, "%s state=%s", text, rp_state_names[values->state]);
    if (which & RP_VALUE_BACKUP)
        text = apr_pstrcat(pool, text, values->is_backup ? " backup" : " no backup", NULL);
    if (which & RP_VALUE_ZONE)
        text = apr_psprintf(pool, "%s zone=%s", text, values->zone);
    if (which & RP_VALUE_ROUTE)
        text = apr_psprintf(pool, "%s route=%s", text, values->route);
    if (which & RP_VALUE_SLOW_START)
        text = apr_psprintf(pool, "%s slowstart=%" APR_TIME_T_FMT "ms", text,
                            apr_time_as_msec(values->slow_start));
    return text;
}

const char *rp_roster_check_name(apr_pool_t *pool, const char *what, const char *name)
{
    if (!*name || rp_balancer_is_name(name))
        return NULL;
    return apr_psprintf(pool, "%s \"%s\": write 1 to %d letters, digits, '.', '-' and '_', or "
                        "nothing", what, name, RP_ROSTER_NAME_MAX);
}

const char *rp_roster_check_values(apr_pool_t *pool, const rp_roster_values *values,
                                   unsigned int which)
{
    const char *message = NULL;

    if ((which & RP_VALUE_WEIGHT)
        && (values->weight < 1 || values->weight > RP_ROSTER_WEIGHT_MAX))
        return apr_psprintf(pool, "weight %d: write 1 to %d; for a member that is to get no "
                            "request use the state drain", values->weight, RP_ROSTER_WEIGHT_MAX);
    if ((which & RP_VALUE_MAX) && values->max < 0)
        return apr_psprintf(pool, "max %d: write the most requests at once, or 0 for no limit",
                            values->max);
    if ((which & RP_VALUE_STATE)
        && (values->state < RP_MEMBER_UP || values->state > RP_MEMBER_DOWN))
        return "the state is unknown; write up, drain or down";
    if ((which & RP_VALUE_SLOW_START) && values->slow_start < 0)
        return "slowstart is negative; write a time, or 0 for none";
    if (which & RP_VALUE_ZONE)
        message = rp_roster_check_name(pool, "zone", values->zone);
    if (!message && (which & RP_VALUE_ROUTE))
        message = rp_roster_check_name(pool, "route", values->route);
    return message;
}

/* ---- members, with the lock ------------------------------------------------------------------ */

static rp_roster_member configured_member(const rp_balancer *balancer, int number)
{
    const rp_member *more = &balancer->more[number];
    const rp_entry *entry = rp_entry_of(more->slot);
    rp_roster_member member = { .number = number, .url = balancer->members[number].name,
                                .key = more->url, .slot = more->slot, .who = "" };

    member.configured = member.now = configured_values(&balancer->members[number], more);
    if (!entry->is_used || entry->is_added)
        return member;
    member.who = entry->who;
    member.changed = entry->changed;
    member.is_removed = entry->is_removed;
    member.overridden = entry->overridden;
    rp_roster_take(&member.now, &entry->values, entry->overridden);
    return member;
}

static rp_roster_member added_member(apr_pool_t *pool, const rp_entry *entry)
{
    rp_roster_member member = { .number = entry->number, .url = apr_pstrdup(pool, entry->url),
                                .slot = rp_entry_slot(entry), .from = entry->from,
                                .who = apr_pstrdup(pool, entry->who), .changed = entry->changed,
                                .is_removed = entry->is_removed, .overridden = entry->overridden,
                                .configured = entry->base, .now = entry->base };

    member.key = rp_balancer_normal_url(pool, member.url);
    rp_roster_take(&member.now, &entry->values, entry->overridden);
    return member;
}

static int is_configured(const rp_balancer *balancer, const rp_slot *slot)
{
    for (int i = 0; i < balancer->count; i++) {
        if (balancer->more[i].slot == slot)
            return 1;
    }
    return 0;
}

static int by_number(const void *a, const void *b)
{
    return ((const rp_roster_member *)a)->number - ((const rp_roster_member *)b)->number;
}

/** Both kinds, by number. */
static apr_array_header_t *list(apr_pool_t *pool, const rp_balancer *balancer)
{
    apr_array_header_t *members =
        apr_array_make(pool, balancer->count + 8, sizeof(rp_roster_member));

    for (int i = 0; i < balancer->count; i++) {
        rp_roster_member member = configured_member(balancer, i);

        member.who = apr_pstrdup(pool, member.who);
        APR_ARRAY_PUSH(members, rp_roster_member) = member;
    }
    for (const rp_entry *entry = rp_entry_first(balancer->slot); entry;
         entry = rp_entry_next(entry)) {
        if (entry->is_added && !entry->is_awaited
            && !is_configured(balancer, rp_entry_slot(entry)))
            APR_ARRAY_PUSH(members, rp_roster_member) = added_member(pool, entry);
    }
    qsort(members->elts, (size_t)members->nelts, sizeof(rp_roster_member), by_number);
    return members;
}

apr_array_header_t *rp_roster_list(apr_pool_t *pool, rp_balancer *balancer,
                                   unsigned long long *version)
{
    apr_array_header_t *members;

    rp_roster_lock();
    if (version)
        *version = rp_roster_version(balancer);
    members = list(pool, balancer);
    rp_roster_unlock();
    return members;
}

static const rp_roster_member *find(const apr_array_header_t *members, const char *key)
{
    for (int i = 0; i < members->nelts; i++) {
        const rp_roster_member *member = &APR_ARRAY_IDX(members, i, rp_roster_member);

        if (!strcmp(member->key, key))
            return member;
    }
    return NULL;
}

const rp_roster_member *rp_roster_find(apr_pool_t *pool, rp_balancer *balancer, const char *url)
{
    return find(rp_roster_list(pool, balancer, NULL), rp_balancer_normal_url(pool, url));
}

static const rp_roster_member *find_number(const apr_array_header_t *members, int number)
{
    for (int i = 0; i < members->nelts; i++) {
        if (APR_ARRAY_IDX(members, i, rp_roster_member).number == number)
            return &APR_ARRAY_IDX(members, i, rp_roster_member);
    }
    return NULL;
}

/* ---- changes, with the lock ------------------------------------------------------------------ */

static rp_roster_result refuse(rp_roster_change *change, rp_roster_result result,
                               const char *message)
{
    change->message = message;
    return result;
}

static rp_roster_result check_version(const rp_balancer *balancer, rp_roster_change *change)
{
    if (!change->if_version || change->if_version == rp_roster_version(balancer))
        return RP_ROSTER_OK;
    return refuse(change, RP_ROSTER_OUTDATED, "somebody else has changed the pool meanwhile; look "
                  "again, then repeat the change");
}

static void note(const rp_balancer *balancer, const rp_roster_change *change, const char *url,
                 const char *what)
{
    rp_journal_write(change->from, balancer->name, change->who ? change->who : "",
                     apr_pstrcat(change->pool, url, ":", what, NULL));
}

static void sign(rp_entry *entry, const rp_roster_change *change)
{
    entry->changed = apr_time_now();
    apr_cpystrn(entry->who, change->who ? change->who : "", sizeof(entry->who));
}

/** The entry of a member, made if it has none. */
static rp_entry *entry_for(const rp_balancer *balancer, const rp_roster_member *member)
{
    rp_entry *entry = rp_entry_of(member->slot);
    rp_entry made = { .number = member->number };

    if (entry->is_used)
        return entry;
    made.stanza = balancer->more[member->number].stanza;
    return rp_entry_put(balancer->slot, member->slot, &made);
}

/** An entry of a configured member that says nothing goes. */
static void tidy(const rp_entry *entry)
{
    if (!entry->is_added && !entry->is_removed && !entry->overridden)
        rp_entry_drop(rp_entry_slot(entry));
}

static void drop_added(const rp_entry *entry)
{
    rp_slot *slot = rp_entry_slot(entry);

    rp_entry_drop(slot);
    rp_shared_retire(slot);
}

static int free_number(const rp_balancer *balancer)
{
    unsigned char taken[RP_ROSTER_MEMBERS_MAX] = { 0 };
    int number = balancer->count;

    for (const rp_entry *entry = rp_entry_first(balancer->slot); entry;
         entry = rp_entry_next(entry)) {
        if (entry->is_added && entry->number >= 0 && entry->number < RP_ROSTER_MEMBERS_MAX)
            taken[entry->number] = 1;
    }
    while (number < RP_ROSTER_MEMBERS_MAX && taken[number])
        number++;
    return number;
}

rp_roster_result rp_roster_put(rp_balancer *balancer, const char *url, const char *key,
                               const rp_entry *made, rp_roster_change *change)
{
    rp_entry entry = *made;
    rp_slot *slot;
    int is_new;

    entry.is_added = 1;
    entry.number = free_number(balancer);
    if (entry.number >= RP_ROSTER_MEMBERS_MAX)
        return refuse(change, RP_ROSTER_FULL,
                      apr_psprintf(change->pool, "the pool has %d members, which is the limit; "
                                   "remove some", RP_ROSTER_MEMBERS_MAX));
    if (!(slot = rp_balancer_claim_late(balancer, key, &is_new)))
        return refuse(change, RP_ROSTER_FULL,
                      apr_psprintf(change->pool, "all pools together have %d members, which is the "
                                   "limit; remove some", RP_SLOTS_MAX));
    apr_cpystrn(entry.url, url, sizeof(entry.url));
    if (is_new || rp_entry_of(slot)->is_used)
        atomic_store(&slot->in_service_since, apr_time_now());
    rp_entry_drop(slot);                /* one that awaited it */
    rp_entry_put(balancer->slot, slot, &entry);
    return RP_ROSTER_OK;
}

void rp_roster_await(const rp_balancer *balancer, const char *url, const char *key,
                     const rp_entry *made)
{
    int is_new;
    rp_slot *slot = rp_balancer_claim_late(balancer, key, &is_new);
    rp_entry entry = *made;

    if (!slot || rp_entry_of(slot)->is_used)
        return;
    entry.is_added = entry.is_awaited = 1;
    entry.number = -1;
    apr_cpystrn(entry.url, url, sizeof(entry.url));
    rp_entry_put(balancer->slot, slot, &entry);
}

/* ---- the interface --------------------------------------------------------------------------- */

const char *rp_roster_check_url(apr_pool_t *pool, const char *url)
{
    APR_OPTIONAL_FN_TYPE(rproxy_target_parse) *parse =
        APR_RETRIEVE_OPTIONAL_FN(rproxy_target_parse);
    rproxy_target *target;

    if (strlen(url) > RP_ROSTER_URL_MAX)
        return apr_psprintf(pool, "the URL has %" APR_SIZE_T_FMT " bytes, the limit is %d; use a "
                            "shorter one", strlen(url), RP_ROSTER_URL_MAX);
    return parse ? parse(pool, url, &target) : "mod_rproxy isn't loaded";
}

rp_roster_result rp_roster_add(rp_balancer *balancer, const char *url, rp_roster_change *change,
                               int *number)
{
    const char *key = rp_balancer_normal_url(change->pool, url);
    const rp_roster_member *there;
    rp_roster_result result;
    rp_entry made = { .from = (unsigned char)change->from, .stanza = balancer->stanza,
                      .base = defaults, .overridden = change->set };

    if ((change->message = rp_roster_check_url(change->pool, url))
        || (change->message = rp_roster_check_values(change->pool, &change->values, change->set)))
        return RP_ROSTER_BAD;
    rp_roster_take(&made.values, &change->values, change->set);
    sign(&made, change);
    rp_roster_lock();
    there = find(list(change->pool, balancer), key);
    result = check_version(balancer, change);
    if (result == RP_ROSTER_OK && there && !there->is_removed)
        result = refuse(change, RP_ROSTER_DUPLICATE,
                        apr_psprintf(change->pool, "%s is a member of the pool already; change "
                                     "that one", url));
    else if (result == RP_ROSTER_OK && there) {
        rp_entry *entry = entry_for(balancer, there);

        entry->is_removed = 0;
        entry->overridden = change->set;
        rp_roster_take(&entry->values, &change->values, change->set);
        sign(entry, change);
        tidy(entry);
    }
    else if (result == RP_ROSTER_OK)
        result = rp_roster_put(balancer, url, key, &made, change);
    if (result == RP_ROSTER_OK) {
        note(balancer, change, url, apr_pstrcat(change->pool, " added",
                                                describe(change->pool, &change->values,
                                                         change->set), NULL));
        rp_roster_changed(balancer);
        there = number ? find(list(change->pool, balancer), key) : NULL;
        if (there)
            *number = there->number;
    }
    rp_roster_unlock();
    return result;
}

/** The member that is to be changed, if it may be now. The lock is held either way. */
static const rp_roster_member *lock_member(rp_balancer *balancer, int number,
                                           rp_roster_change *change, rp_roster_result *result)
{
    const rp_roster_member *member;

    rp_roster_lock();
    member = find_number(list(change->pool, balancer), number);
    *result = member ? check_version(balancer, change)
                     : refuse(change, RP_ROSTER_UNKNOWN,
                              apr_psprintf(change->pool, "the pool %s has no member number %d",
                                           balancer->name, number));
    return *result == RP_ROSTER_OK ? member : NULL;
}

rp_roster_result rp_roster_change_member(rp_balancer *balancer, int number,
                                         rp_roster_change *change)
{
    const rp_roster_member *member;
    rp_roster_result result;

    if ((change->message = rp_roster_check_values(change->pool, &change->values, change->set)))
        return RP_ROSTER_BAD;
    if ((member = lock_member(balancer, number, change, &result))) {
        rp_entry *entry = entry_for(balancer, member);
        const char *what = describe(change->pool, &change->values, change->set);

        rp_roster_take(&entry->values, &change->values, change->set);
        entry->overridden = (entry->overridden | change->set) & ~change->forget;
        if (change->forget)
            what = apr_pstrcat(change->pool, what, " as configured:",
                               describe(change->pool, &member->configured, change->forget), NULL);
        sign(entry, change);
        tidy(entry);
        note(balancer, change, member->url, what);
        rp_roster_changed(balancer);
    }
    rp_roster_unlock();
    return result;
}

rp_roster_result rp_roster_remove(rp_balancer *balancer, int number, rp_roster_change *change)
{
    rp_roster_result result;
    const rp_roster_member *member = lock_member(balancer, number, change, &result);

    if (member) {
        rp_entry *entry = entry_for(balancer, member);

        if (entry->is_added && entry->from == RP_FROM_API)
            drop_added(entry);
        else {
            entry->is_removed = 1;
            sign(entry, change);
        }
        note(balancer, change, member->url, " removed");
        rp_roster_changed(balancer);
    }
    rp_roster_unlock();
    return result;
}

/** Nonzero: there was something to forget. */
static int forget(const rp_balancer *balancer, const rp_roster_member *member,
                  const rp_roster_change *change)
{
    rp_entry *entry = rp_entry_of(member->slot);

    if (!entry->is_used || (entry->from == RP_FROM_DISCOVERY && !entry->is_removed
                            && !entry->overridden))
        return 0;
    if (entry->is_added && entry->from == RP_FROM_API)
        drop_added(entry);
    else {
        entry->is_removed = 0;
        entry->overridden = 0;
        sign(entry, change);
        tidy(entry);
    }
    note(balancer, change, member->url, " forgotten: as configured again");
    return 1;
}

rp_roster_result rp_roster_forget(rp_balancer *balancer, int number, rp_roster_change *change)
{
    rp_roster_result result;
    const rp_roster_member *member = lock_member(balancer, number, change, &result);

    if (member && forget(balancer, member, change))
        rp_roster_changed(balancer);
    rp_roster_unlock();
    return result;
}

rp_roster_result rp_roster_forget_all(rp_balancer *balancer, rp_roster_change *change)
{
    rp_roster_result result;

    rp_roster_lock();
    result = check_version(balancer, change);
    if (result == RP_ROSTER_OK) {
        const apr_array_header_t *members = list(change->pool, balancer);
        int forgotten = 0;

        for (int i = 0; i < members->nelts; i++)
            forgotten |= forget(balancer, &APR_ARRAY_IDX(members, i, rp_roster_member), change);
        if (forgotten)
            rp_roster_changed(balancer);
    }
    rp_roster_unlock();
    return result;
}

/* ---- a new configuration --------------------------------------------------------------------- */

/** What the roster says of a member is of no effect any more. */
static void log_dropped(const rp_balancer *balancer, const char *url, const char *why)
{
    char what[256];

    apr_snprintf(what, sizeof(what), "%s: back to the configuration, %s", url, why);
    ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, balancer->server, "RP0425: pool %s: %s",
                 balancer->name, what);
    rp_journal_write(RP_FROM_CONFIGURATION, balancer->name, "", what);
}

static int has_source(const rp_balancer *balancer, apr_uint64_t source)
{
    for (int i = 0; balancer->discovered && i < balancer->discovered->nelts; i++) {
        if (APR_ARRAY_IDX(balancer->discovered, i, const rp_source *)->id == source)
            return 1;
    }
    return 0;
}

/** Of a member that the configuration has. Nonzero: it stays. */
static int adopt_configured(const rp_balancer *balancer, int number, rp_entry *entry)
{
    if (entry->is_added)
        return 0;
    entry->number = number;
    if (entry->stanza == balancer->more[number].stanza)
        return 1;
    log_dropped(balancer, balancer->members[number].name, "for its line was edited");
    return 0;
}

/** Of any other. Nonzero: it stays. */
static int adopt_added(const rp_balancer *balancer, rp_entry *entry)
{
    rp_slot *slot = rp_entry_slot(entry);

    if (entry->is_added && entry->from == RP_FROM_API && entry->stanza != balancer->stanza)
        log_dropped(balancer, entry->url, "for the members of the pool were edited");
    else if (entry->is_added
             && (entry->from == RP_FROM_API || has_source(balancer, entry->source))) {
        rp_shared_renew(slot);
        if (entry->is_awaited)
            return 1;
        if (entry->number < balancer->count)
            entry->number = free_number(balancer);
        return entry->number < RP_ROSTER_MEMBERS_MAX;
    }
    return 0;
}

void rp_roster_adopt(rp_balancer *balancer)
{
    rp_entry *entry = rp_entry_first(balancer->slot), *next;

    for (; entry; entry = next) {
        rp_slot *slot = rp_entry_slot(entry);
        int number = 0;

        next = rp_entry_next(entry);
        while (number < balancer->count && balancer->more[number].slot != slot)
            number++;
        if (number < balancer->count) {
            if (!adopt_configured(balancer, number, entry))
                rp_entry_drop(slot);
        }
        else if (!adopt_added(balancer, entry)) {
            if (entry->is_added)
                drop_added(entry);
            else
                rp_entry_drop(slot);
        }
    }
    atomic_fetch_add(&balancer->slot->roster_version, 1);
}
