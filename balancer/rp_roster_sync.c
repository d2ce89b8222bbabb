/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Makes what a provider has found part of the roster: new members come, those it has no more go,
 * values change. What administrators said of a member beside these values stays. */
#include <string.h>
#include <apr_hash.h>
#include <apr_strings.h>

#include "balancer/rp_discovery.h"
#include "balancer/rp_entry.h"

typedef struct syncing {
    rp_balancer *balancer;
    const rp_source *source;
    apr_pool_t *pool;
    apr_hash_t *others;                 /* keys of members that aren't the source's */
    apr_hash_t *own;                    /* by key: rp_entry *, those not found again yet */
    rp_roster_change change;
    const char *message;
    int has_changed;
} syncing;

static void note(syncing *s, const char *url, const char *what)
{
    s->has_changed = 1;
    rp_journal_write(RP_FROM_DISCOVERY, s->balancer->name, s->source->who,
                     apr_pstrcat(s->pool, url, ": ", what, NULL));
}

/** Who is there now. */
static void look(syncing *s)
{
    const rp_balancer *balancer = s->balancer;

    for (int i = 0; i < balancer->count; i++)
        apr_hash_set(s->others, balancer->more[i].url, APR_HASH_KEY_STRING, s);
    for (rp_entry *entry = rp_entry_first(balancer->slot); entry; entry = rp_entry_next(entry)) {
        const char *key = rp_balancer_normal_url(s->pool, apr_pstrdup(s->pool, entry->url));

        /* Whoever finds one first has it: one that another source has to find is nobody's. */
        if (entry->is_added && (!entry->is_awaited || entry->source == s->source->id))
            apr_hash_set(entry->source == s->source->id ? s->own : s->others, key,
                         APR_HASH_KEY_STRING, entry);
    }
}

static const char *values_of(apr_pool_t *pool, const rproxy_found *found, rp_roster_values *values)
{
    _Static_assert((int)RPROXY_FOUND_UP == RP_MEMBER_UP
                   && (int)RPROXY_FOUND_DRAIN == RP_MEMBER_DRAIN
                   && (int)RPROXY_FOUND_DOWN == RP_MEMBER_DOWN, "as in the public header");
    memset(values, 0, sizeof(*values));
    values->weight = found->weight;
    values->max = found->max;
    values->state = (rp_admin_state)found->state;
    values->is_backup = found->is_backup != 0;
    values->slow_start = found->slow_start;
    if ((found->zone && strlen(found->zone) > RP_ROSTER_NAME_MAX)
        || (found->route && strlen(found->route) > RP_ROSTER_NAME_MAX))
        return apr_psprintf(pool, "zones and routes have at most %d letters; use a shorter one",
                            RP_ROSTER_NAME_MAX);
    apr_cpystrn(values->zone, found->zone ? found->zone : "", sizeof(values->zone));
    apr_cpystrn(values->route, found->route ? found->route : "", sizeof(values->route));
    return rp_roster_check_values(pool, values, RP_VALUES_ALL);
}

/** What administrators said of a value that is another one now counts no more. */
static void change_base(rp_entry *entry, const rp_roster_values *values)
{
    entry->overridden &= ~rp_roster_differing(&entry->base, values);
    entry->base = *values;
}

/** awaited: what is known of it from before; NULL: nothing. */
static void put(syncing *s, const char *url, const char *key, const rp_roster_values *values,
                const rp_entry *awaited)
{
    rp_entry made = { .from = RP_FROM_DISCOVERY, .source = s->source->id, .base = *values,
                      .changed = apr_time_now() };

    apr_cpystrn(made.who, s->source->who, sizeof(made.who));
    if (awaited) {
        made = *awaited;
        made.is_awaited = 0;
        change_base(&made, values);
    }
    if (rp_roster_put(s->balancer, url, key, &made, &s->change) == RP_ROSTER_OK) {
        note(s, url, "found");
        apr_hash_set(s->others, key, APR_HASH_KEY_STRING, s);
    }
    else
        s->message = apr_psprintf(s->pool, "%s: %s", url, s->change.message);
}

static void take(syncing *s, const rproxy_found *found)
{
    rp_roster_values values;
    const char *key, *message;
    rp_entry *entry;

    if ((message = rp_roster_check_url(s->pool, found->url))
        || (message = values_of(s->pool, found, &values))) {
        s->message = apr_psprintf(s->pool, "%s: %s", found->url, message);
        return;
    }
    key = rp_balancer_normal_url(s->pool, found->url);
    entry = apr_hash_get(s->own, key, APR_HASH_KEY_STRING);
    if (!entry || entry->is_awaited) {
        apr_hash_set(s->own, key, APR_HASH_KEY_STRING, NULL);
        /* Once is enough; one that the configuration has is as it says there. */
        if (!apr_hash_get(s->others, key, APR_HASH_KEY_STRING))
            put(s, found->url, key, &values, entry);
        return;
    }
    apr_hash_set(s->own, key, APR_HASH_KEY_STRING, NULL);
    apr_hash_set(s->others, key, APR_HASH_KEY_STRING, s);
    if (rp_roster_differing(&entry->base, &values)) {
        change_base(entry, &values);
        entry->changed = apr_time_now();
        note(s, found->url, "found with other values");
    }
}

static void drop_rest(syncing *s)
{
    for (apr_hash_index_t *at = apr_hash_first(s->pool, s->own); at; at = apr_hash_next(at)) {
        rp_slot *slot = rp_entry_slot(apr_hash_this_val(at));

        note(s, rp_entry_of(slot)->url, "not there any more");
        rp_entry_drop(slot);
        rp_shared_retire(slot);
    }
}

const char *rp_roster_sync(rp_balancer *balancer, const rp_source *source,
                           const rproxy_found *found, int count, apr_pool_t *pool)
{
    syncing s = { .balancer = balancer, .source = source, .pool = pool,
                  .others = apr_hash_make(pool),
                  .own = apr_hash_make(pool), .change = { .pool = pool } };

    rp_roster_lock();
    look(&s);
    for (int i = 0; i < count; i++)
        take(&s, &found[i]);
    drop_rest(&s);
    if (s.has_changed)
        rp_roster_changed(balancer);
    rp_roster_unlock();
    return s.message;
}
