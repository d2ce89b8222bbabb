/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What is known of pools and members, as JSON. Without memory for a value the value is left out. */
#include <stdlib.h>
#include <string.h>
#include <apr_strings.h>
#include "httpd.h"

#include "balancer/rp_health.h"
#include "balancer/rp_manager.h"
#include "balancer/rp_sticky.h"
#include "include/mod_rproxy_metrics.h"
#include "rproxy/rp_argument.h"

/* ---- values ---------------------------------------------------------------------------------- */

static void put(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value);
}

/** Bytes that aren't UTF-8 become '?'. NULL becomes null. */
static json_t *text(const char *value)
{
    json_t *made;
    char *copy;

    if (!value)
        return json_null();
    made = json_string(value);
    if (made || !(copy = strdup(value)))
        return made;
    for (char *p = copy; *p; p++) {
        if (*p & 0x80)
            *p = '?';
    }
    made = json_string(copy);
    free(copy);
    return made;
}

static json_t *counter(const atomic_ullong *value)
{
    return json_integer((json_int_t)atomic_load_explicit(value, memory_order_relaxed));
}

/** 0: null. */
static json_t *moment(apr_time_t time)
{
    apr_time_exp_t exploded;
    char made[40];

    if (!time || apr_time_exp_gmt(&exploded, time) != APR_SUCCESS)
        return json_null();
    apr_snprintf(made, sizeof(made), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
                 exploded.tm_year + 1900, exploded.tm_mon + 1, exploded.tm_mday, exploded.tm_hour,
                 exploded.tm_min, exploded.tm_sec, exploded.tm_usec / 1000);
    return json_string(made);
}

static json_t *milliseconds(double microseconds)
{
    return json_real((double)(long long)(microseconds + 0.5) / 1000);
}

/* ---- latency --------------------------------------------------------------------------------- */

/** The time that this share of all stays below, taken as even within a bucket. */
static json_t *percentile(const rproxy_histogram_values *values, double share)
{
    static const apr_interval_time_t bounds[] = RPROXY_HISTOGRAM_BOUNDS;
    double all = 0, below = 0, wanted;

    for (int i = 0; i < RPROXY_HISTOGRAM_BUCKETS; i++)
        all += (double)values->buckets[i];
    if (all < 1)
        return json_null();
    wanted = all * share;
    for (int i = 0; i < RPROXY_HISTOGRAM_BUCKETS - 1; i++) {
        double count = (double)values->buckets[i], from = i ? (double)bounds[i - 1] : 0;

        if (count > 0 && below + count >= wanted)
            return milliseconds(from + ((double)bounds[i] - from) * (wanted - below) / count);
        below += count;
    }
    return milliseconds((double)bounds[RPROXY_HISTOGRAM_BUCKETS - 2]);
}

static json_t *percentiles(const rproxy_histogram_values *values)
{
    json_t *made = json_object();
    json_int_t count = 0;

    for (int i = 0; i < RPROXY_HISTOGRAM_BUCKETS; i++)
        count += (json_int_t)values->buckets[i];
    put(made, "count", json_integer(count));
    put(made, "sum", milliseconds((double)values->sum));
    put(made, "p50", percentile(values, 0.5));
    put(made, "p90", percentile(values, 0.9));
    put(made, "p99", percentile(values, 0.99));
    return made;
}

/** Of a member or pool. */
static json_t *latency_json(rp_slot *slot)
{
    rproxy_histogram_values first_byte = { 0 }, total = { 0 };
    json_t *made = json_object();

    rproxy_histogram_read(&slot->counts.first_byte, &first_byte);
    rproxy_histogram_read(&slot->counts.total, &total);
    put(made, "first_byte", percentiles(&first_byte));
    put(made, "total", percentiles(&total));
    return made;
}

/* ---- members --------------------------------------------------------------------------------- */

static json_t *value_json(apr_pool_t *pool, const rp_roster_values *values, unsigned int which)
{
    switch (which) {
    case RP_VALUE_STATE:
        return text(rp_state_names[values->state]);
    case RP_VALUE_WEIGHT:
        return json_integer(values->weight);
    case RP_VALUE_MAX:
        return json_integer(values->max);
    case RP_VALUE_BACKUP:
        return json_boolean(values->is_backup);
    case RP_VALUE_ZONE:
        return text(values->zone);
    case RP_VALUE_ROUTE:
        return text(values->route);
    default:
        return text(values->slow_start ? rp_argument_time_text(pool, values->slow_start) : "0");
    }
}

static json_t *values_json(apr_pool_t *pool, const rp_roster_values *values)
{
    json_t *made = json_object();

    for (int i = 0; i < RP_MANAGER_KEYS; i++)
        put(made, rp_manager_keys[i].name, value_json(pool, values, rp_manager_keys[i].which));
    return made;
}

static const char *from_name(rp_roster_from from)
{
    return from == RP_FROM_API ? "api" : from == RP_FROM_DISCOVERY ? "discovery" : "configuration";
}

/** A member as those see it who choose. */
static rp_member as_member(const rp_roster_member *member)
{
    return (rp_member){ .slot = member->slot, .state = member->now.state };
}

static const char *state_of(const rp_balancer *balancer, const rp_roster_member *member)
{
    rp_member one = as_member(member);

    return member->is_removed ? "removed" : rp_shown_names[rp_member_shown(balancer, &one)];
}

static const char *by_whom(apr_pool_t *pool, const rp_roster_member *member)
{
    return *member->who ? apr_pstrcat(pool, " by ", member->who, NULL) : "";
}

/** Why a member is in this state. */
static const char *why(apr_pool_t *pool, const rp_balancer *balancer,
                       const rp_roster_member *member, const char *state,
                       const rp_health_view *health)
{
    if (member->is_removed)
        return apr_pstrcat(pool, "removed", by_whom(pool, member), NULL);
    if (member->now.state != RP_MEMBER_UP)
        return member->overridden & RP_VALUE_STATE
            ? apr_pstrcat(pool, "set", by_whom(pool, member), NULL) : "";
    if (!strcmp(state, "unhealthy"))
        return apr_psprintf(pool, "health checks fail: %s%s", health->cause,
                            atomic_load(&balancer->slot->panic)
                                ? "; used all the same, as too few members are well" : "");
    if (!strcmp(state, "unchecked"))
        return "waits for its first health check";
    if (!strcmp(state, "drain") || !strcmp(state, "down"))
        return "its agent says so";
    if (!strcmp(state, "ejected"))
        return "too many requests failed there";
    if (health->is_checked && health->health == RP_HEALTH_UNKNOWN)
        return "not yet checked";
    return "";
}

static json_t *health_json(const rp_health_view *health)
{
    json_t *made;

    if (!health->is_checked)
        return json_null();
    made = json_object();
    put(made, "state", text(rp_health_name(health)));
    put(made, "cause", text(health->cause));
    put(made, "since", moment(health->since));
    put(made, "checked", moment(health->checked_at));
    put(made, "took", health->checked_at ? milliseconds((double)health->latency) : json_null());
    put(made, "checks", json_integer((json_int_t)health->checks));
    put(made, "failures", json_integer((json_int_t)health->failures));
    return made;
}

static json_t *agent_json(const rp_balancer *balancer, const rp_health_view *health)
{
    static const char *const modes[] = { NULL, "ready", "drain", "maint" };
    static const char *const states[] = { NULL, "up", "down" };
    json_t *made;

    if (!balancer->agent)
        return json_null();
    made = json_object();
    put(made, "percent", health->percent < 0 ? json_null() : json_integer(health->percent));
    put(made, "max", health->max < 0 ? json_null() : json_integer(health->max));
    put(made, "mode", text(modes[health->agent_mode]));
    put(made, "health", text(states[health->agent_health]));
    return made;
}

static json_t *member_traffic(rp_slot *slot)
{
    json_t *made = json_object(), *answers = json_object();

    put(made, "requests", counter(&slot->requests));
    put(made, "failures", counter(&slot->failures));
    put(made, "retries", counter(&slot->counts.repeated));
    put(made, "in_flight", json_integer(atomic_load(&slot->shared.in_flight)));
    put(made, "sent", counter(&slot->sent));
    put(made, "received", counter(&slot->received));
    put(made, "connections_opened", counter(&slot->counts.opened));
    put(made, "connections_reused", counter(&slot->counts.reused));
    for (int i = 0; i < RPROXY_STATUS_CLASSES; i++)
        put(answers, rproxy_status_class_name(i), counter(&slot->counts.answers[i]));
    put(made, "answers", answers);
    return made;
}

static const char *member_path(const rp_manager *manager, const rp_balancer *balancer,
                               const rp_roster_member *member)
{
    apr_pool_t *pool = manager->r->pool;

    return apr_pstrcat(pool, ap_escape_uri(pool, manager->base), "/api/pools/", balancer->name,
                       "/members/", rp_manager_id(pool, member), NULL);
}

static json_t *overridden(const rp_roster_member *member)
{
    json_t *names = json_array();

    for (int i = 0; i < RP_MANAGER_KEYS; i++) {
        if (member->overridden & rp_manager_keys[i].which)
            json_array_append_new(names, text(rp_manager_keys[i].name));
    }
    return names;
}

json_t *rp_manager_json_member(const rp_manager *manager, rp_balancer *balancer,
                               const rp_roster_member *member)
{
    apr_pool_t *pool = manager->r->pool;
    const char *state = state_of(balancer, member);
    json_t *made = json_object();
    rp_health_view health;

    rp_health_look(balancer, member->slot, &health);
    put(made, "id", text(rp_manager_id(pool, member)));
    put(made, "href", text(member_path(manager, balancer, member)));
    put(made, "number", json_integer(member->number));
    put(made, "url", text(member->url));
    put(made, "from", text(from_name(member->from)));
    put(made, "who", text(member->who));
    put(made, "changed", moment(member->changed));
    put(made, "removed", json_boolean(member->is_removed));
    put(made, "state", text(state));
    put(made, "why", text(why(pool, balancer, member, state, &health)));
    put(made, "values", values_json(pool, &member->now));
    put(made, "configured", values_json(pool, &member->configured));
    put(made, "overridden", overridden(member));
    put(made, "ejected_until", moment(atomic_load(&member->slot->ejected_until)));
    put(made, "ejections", counter(&member->slot->counts.ejections));
    put(made, "traffic", member_traffic(member->slot));
    put(made, "latency", latency_json(member->slot));
    put(made, "health", health_json(&health));
    put(made, "agent", agent_json(balancer, &health));
    return made;
}

/* ---- pools ----------------------------------------------------------------------------------- */

static json_t *states_json(const rp_balancer *balancer, const apr_array_header_t *members)
{
    json_t *made = json_object();
    int counts[RP_SHOWN_COUNT] = { 0 }, removed = 0;

    for (int i = 0; i < members->nelts; i++) {
        const rp_roster_member *member = &APR_ARRAY_IDX(members, i, rp_roster_member);
        rp_member one = as_member(member);

        if (member->is_removed)
            removed++;
        else
            counts[rp_member_shown(balancer, &one)]++;
    }
    for (int i = 0; i < RP_SHOWN_COUNT; i++)
        put(made, rp_shown_names[i], json_integer(counts[i]));
    put(made, "removed", json_integer(removed));
    return made;
}

static json_t *pool_traffic(const rp_balancer *balancer, const apr_array_header_t *members)
{
    json_t *made = json_object();
    json_int_t in_flight = 0;

    for (int i = 0; i < members->nelts; i++)
        in_flight +=
            atomic_load(&APR_ARRAY_IDX(members, i, rp_roster_member).slot->shared.in_flight);
    put(made, "requests", counter(&balancer->slot->requests));
    put(made, "retries", counter(&balancer->slot->retries));
    put(made, "in_flight", json_integer(in_flight));
    put(made, "no_member", counter(&balancer->slot->counts.no_member));
    put(made, "busy", counter(&balancer->slot->counts.busy));
    return made;
}

static json_t *queue_json(const rp_balancer *balancer)
{
    json_t *made;

    if (!balancer->queue)
        return json_null();
    made = json_object();
    put(made, "max", json_integer(balancer->queue_max));
    put(made, "timeout", milliseconds((double)balancer->queue_timeout));
    put(made, "waiting", json_integer(rp_queue_count(balancer->queue)));
    put(made, "queued", counter(&balancer->slot->queued));
    put(made, "full", counter(&balancer->slot->queue_full));
    put(made, "timeouts", counter(&balancer->slot->queue_timeouts));
    return made;
}

static json_t *budget_json(const rp_balancer *balancer)
{
    json_t *made;

    if (!balancer->retries)
        return json_null();
    made = json_object();
    put(made, "percent", json_integer(balancer->budget.percent));
    put(made, "min", json_integer(balancer->budget.min));
    put(made, "retrying", json_integer(atomic_load(&balancer->retries->shared.in_flight)));
    put(made, "refused", counter(&balancer->slot->retries_refused));
    return made;
}

static json_t *sessions_json(const rp_balancer *balancer)
{
    static const char *const kinds[] = { "cookie", "route", "learn", "header", "ip" };
    static const char *const downs[] = { "repin", "temporary", "fail" };
    json_t *made;

    if (!balancer->sticky)
        return json_null();
    made = json_object();
    put(made, "kind", text(kinds[balancer->sticky->kind]));
    put(made, "name", text(balancer->sticky->name));
    put(made, "down", text(downs[balancer->sticky->down]));
    return made;
}

static json_t *checks_json(const rp_balancer *balancer)
{
    json_t *made;

    if (!balancer->check)
        return json_null();
    made = json_object();
    put(made, "kind", text(balancer->check->kind));
    put(made, "panic", json_boolean(atomic_load(&balancer->slot->panic)));
    return made;
}

json_t *rp_manager_json_pool(const rp_manager *manager, rp_balancer *balancer)
{
    apr_pool_t *pool = manager->r->pool;
    unsigned long long version;
    const apr_array_header_t *members = rp_roster_list(pool, balancer, &version);
    json_t *made = json_object(), *list = json_array();

    for (int i = 0; i < members->nelts; i++) {
        const rp_roster_member *member = &APR_ARRAY_IDX(members, i, const rp_roster_member);

        json_array_append_new(list, rp_manager_json_member(manager, balancer, member));
    }
    put(made, "name", text(balancer->name));
    put(made, "href", text(apr_pstrcat(pool, ap_escape_uri(pool, manager->base), "/api/pools/",
                                       balancer->name, NULL)));
    put(made, "etag", text(rp_manager_etag(pool, balancer, version)));
    put(made, "method", text(balancer->method_name));
    put(made, "zone", text(balancer->zone));
    put(made, "states", states_json(balancer, members));
    put(made, "traffic", pool_traffic(balancer, members));
    put(made, "latency", latency_json(balancer->slot));
    put(made, "queue", queue_json(balancer));
    put(made, "retry_budget", budget_json(balancer));
    put(made, "sessions", sessions_json(balancer));
    put(made, "health", checks_json(balancer));
    put(made, "members", list);
    return made;
}

json_t *rp_manager_json_all(const rp_manager *manager)
{
    const apr_array_header_t *all = rp_balancer_all();
    json_t *made = json_object(), *list = json_array();

    for (int i = 0; i < all->nelts; i++)
        json_array_append_new(list, rp_manager_json_pool(manager,
                                                         APR_ARRAY_IDX(all, i, rp_balancer *)));
    put(made, "version", text(RPROXY_VERSION));
    put(made, "time", moment(apr_time_now()));
    put(made, "user", text(manager->r->user));
    put(made, "changes", json_boolean(manager->may_change));
    put(made, "pools", list);
    return made;
}

/* ---- the journal, and what differs ----------------------------------------------------------- */

json_t *rp_manager_json_journal(const rp_manager *manager)
{
    const apr_array_header_t *entries = rp_balancer_all()->nelts
        ? rp_roster_journal(manager->r->pool, NULL)
        : apr_array_make(manager->r->pool, 1, sizeof(rp_journal_entry));
    json_t *made = json_object(), *list = json_array();

    for (int i = 0; i < entries->nelts; i++) {
        const rp_journal_entry *entry = &APR_ARRAY_IDX(entries, i, rp_journal_entry);
        json_t *one = json_object();

        put(one, "number", json_integer((json_int_t)entry->number));
        put(one, "time", moment(entry->time));
        put(one, "pool", text(entry->pool));
        put(one, "from", text(from_name(entry->from)));
        put(one, "who", text(entry->who));
        put(one, "what", text(entry->what));
        json_array_append_new(list, one);
    }
    put(made, "entries", list);
    return made;
}

/** The values that differ; NULL: none does. */
static json_t *different_values(apr_pool_t *pool, const rp_roster_member *member)
{
    json_t *made = json_object();

    for (int i = 0; i < RP_MANAGER_KEYS; i++) {
        json_t *configured = value_json(pool, &member->configured, rp_manager_keys[i].which);
        json_t *now = value_json(pool, &member->now, rp_manager_keys[i].which);

        if (json_equal(configured, now)) {
            json_decref(configured);
            json_decref(now);
            continue;
        }
        json_t *both = json_object();

        put(both, "configured", configured);
        put(both, "now", now);
        put(made, rp_manager_keys[i].name, both);
    }
    return made;
}

/** NULL: it is as the configuration says. */
static const char *difference(const rp_roster_member *member, const json_t *values)
{
    if (member->is_removed)
        return "removed";
    if (member->from == RP_FROM_API)
        return "added";
    return json_object_size(values) ? "changed" : NULL;
}

static json_t *pool_diff(const rp_manager *manager, rp_balancer *balancer)
{
    apr_pool_t *pool = manager->r->pool;
    const apr_array_header_t *members = rp_roster_list(pool, balancer, NULL);
    json_t *list = json_array();

    for (int i = 0; i < members->nelts; i++) {
        const rp_roster_member *member = &APR_ARRAY_IDX(members, i, const rp_roster_member);
        json_t *values = different_values(pool, member);
        const char *what = difference(member, values);
        json_t *one;

        if (!what) {
            json_decref(values);
            continue;
        }
        one = json_object();
        put(one, "id", text(rp_manager_id(pool, member)));
        put(one, "href", text(member_path(manager, balancer, member)));
        put(one, "url", text(member->url));
        put(one, "difference", text(what));
        put(one, "who", text(member->who));
        put(one, "changed", moment(member->changed));
        put(one, "values", values);
        json_array_append_new(list, one);
    }
    return list;
}

json_t *rp_manager_json_diff(const rp_manager *manager)
{
    const apr_array_header_t *all = rp_balancer_all();
    json_t *made = json_object(), *list = json_array();

    for (int i = 0; i < all->nelts; i++) {
        rp_balancer *balancer = APR_ARRAY_IDX(all, i, rp_balancer *);
        json_t *members = pool_diff(manager, balancer), *one;

        if (!json_array_size(members)) {
            json_decref(members);
            continue;
        }
        one = json_object();
        put(one, "name", text(balancer->name));
        put(one, "members", members);
        json_array_append_new(list, one);
    }
    put(made, "pools", list);
    return made;
}
