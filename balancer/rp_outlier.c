/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Passive health. A member is ejected when too many of its requests fail; when its time is over,
 * one request tries it first, and decides. Each ejection is twice as long as the one before, until
 * the member has been well for as long as the longest. */
#include <apr_strings.h>
#include "httpd.h"
#include "http_log.h"

#include "balancer/rp_health.h"
#include "balancer/rp_keeper.h"

APLOG_USE_MODULE(rproxy_balancer);

/* Failures count only if nothing else happens, or if they are more than that share of what the
 * member was asked meanwhile: some broken downloads on a busy member, or one bad client, say
 * nothing about it. */
#define FAILURES_PER_REQUESTS 10
#define TRIAL_TIME (10 * APR_USEC_PER_SEC)      /* a trial that takes longer isn't waited for */
#define LEVEL_MAX 20

const rp_outlier rp_outlier_default = {
    .errors = 5,
    .window = 10 * APR_USEC_PER_SEC,
    .eject = 5 * APR_USEC_PER_SEC,
    .max_eject = 60 * APR_USEC_PER_SEC,
    .max_percent = 50
};

int rp_member_is_usable(const rp_slot *slot, apr_time_t now, apr_time_t *until)
{
    apr_time_t ejected = atomic_load(&slot->ejected_until);
    apr_time_t trial = atomic_load(&slot->trial_until);
    apr_time_t free_at = ejected > trial ? ejected : trial;

    if (!ejected || free_at <= now)
        return 1;
    if (!*until || free_at < *until)
        *until = free_at;
    return 0;
}

rp_admin_state rp_member_state(const rp_balancer *balancer, const rp_member *member)
{
    return rp_health_limit(balancer, member->slot, member->state);
}

void rp_balancer_changed(rp_balancer *balancer)
{
    atomic_fetch_add_explicit(&balancer->slot->version, 1, memory_order_release);
    if (balancer->queue)
        rp_shared_call(balancer->queue, 0, 0);
}

/* ---- trials ---------------------------------------------------------------------------------- */

/** What may be repeated elsewhere if it fails. */
static int is_harmless(const rproxy_request *request)
{
    return !strcmp(request->method, "GET") || !strcmp(request->method, "HEAD")
        || !strcmp(request->method, "OPTIONS");
}

int rp_outlier_begin(rp_balancer *balancer, rp_slot *slot, const rproxy_request *request,
                     apr_time_t now, rp_attempt *attempt)
{
    long long ejected = atomic_load(&slot->ejected_until);
    long long trial = atomic_load(&slot->trial_until);

    *attempt = RP_ATTEMPT_USUAL;
    if (!ejected)
        return 1;
    /* After a while any request has to do: perhaps there are no others. */
    if (ejected > now || trial > now
        || (!is_harmless(request) && now < ejected + balancer->outlier.eject)
        || !atomic_compare_exchange_strong(&slot->trial_until, &trial, now + TRIAL_TIME))
        return 0;
    *attempt = RP_ATTEMPT_TRIAL;
    rp_balancer_changed(balancer);
    return 1;
}

/* ---- ejections ------------------------------------------------------------------------------- */

static int count_ejected(const rp_table *table)
{
    int count = 0;

    for (int i = 0; i < table->count; i++) {
        const rp_member *member = &table->more[i];

        count += member->state == RP_MEMBER_UP && atomic_load(&member->slot->ejected_until) != 0;
    }
    return count;
}

/** How many members may be ejected at once; one always stays. */
static int most_ejected(const rp_balancer *balancer, const rp_table *table)
{
    int share = (table->up_count * balancer->outlier.max_percent + 99) / 100;

    return share < table->up_count ? share : table->up_count - 1;
}

/** Nonzero if with so many more there would be more ejected than may be. */
static int are_too_many(rp_balancer *balancer, int more, apr_time_t now)
{
    rp_view *view = rp_view_enter(balancer, now);
    int too_many = count_ejected(view->table) + more > most_ejected(balancer, view->table);

    rp_view_leave(view);
    return too_many;
}

static apr_interval_time_t duration_of(const rp_outlier *outlier, unsigned int level)
{
    apr_interval_time_t duration = outlier->eject;

    while (level-- && duration < outlier->max_eject)
        duration *= 2;
    return duration < outlier->max_eject ? duration : outlier->max_eject;
}

/** expected is what ejected_until is: 0 for the first ejection, else of a trial that has failed. */
static void eject(rp_balancer *balancer, const rp_origin *origin, long long expected,
                  apr_time_t now)
{
    rp_slot *slot = origin->slot;
    apr_time_t since = atomic_load(&slot->in_service_since);
    unsigned int level;
    apr_interval_time_t duration;

    if (!expected && now - since > balancer->outlier.max_eject)
        atomic_store(&slot->ejections, 0);
    level = atomic_load(&slot->ejections);
    duration = duration_of(&balancer->outlier, level);
    if (!expected && are_too_many(balancer, 1, now))
        return;
    if (!atomic_compare_exchange_strong(&slot->ejected_until, &expected, now + duration))
        return;
    if (!expected && are_too_many(balancer, 0, now)) {
        /* Another child ejected another one at the same moment. */
        atomic_store(&slot->ejected_until, 0);
        return;
    }
    if (level < LEVEL_MAX)
        atomic_store(&slot->ejections, level + 1);
    atomic_fetch_add(&slot->counts.ejections, 1);
    atomic_store(&slot->trial_until, 0);
    atomic_store(&slot->window, 0);
    rp_balancer_changed(balancer);
    if (balancer->check)
        rp_keeper_poke();
    ap_log_error(APLOG_MARK, APLOG_WARNING, 0, balancer->server, "RP0402: pool %s: member %s is "
                 "ejected for %" APR_TIME_T_FMT " ms, %s", balancer->name,
                 origin->member.name, apr_time_as_msec(duration),
                 expected ? "it failed again when it was tried" : "too many requests failed");
}

static void bring_back(rp_balancer *balancer, rp_slot *slot, const char *name, apr_time_t now)
{
    long long ejected = atomic_load(&slot->ejected_until);

    if (!ejected)
        return;
    rp_slot_reset_method(slot);
    atomic_store(&slot->in_service_since, now);
    atomic_store(&slot->window, 0);
    if (!atomic_compare_exchange_strong(&slot->ejected_until, &ejected, 0))
        return;
    atomic_store(&slot->trial_until, 0);
    rp_balancer_changed(balancer);
    ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, balancer->server, "RP0403: pool %s: member %s is "
                 "back", balancer->name, name);
}

void rp_outlier_passed(rp_balancer *balancer, rp_slot *slot, apr_time_t began, apr_time_t now)
{
    long long until = atomic_load(&slot->ejected_until);
    unsigned int level = atomic_load(&slot->ejections);

    if (until <= now || until - duration_of(&balancer->outlier, level ? level - 1 : 0) >= began)
        return;
    if (atomic_compare_exchange_strong(&slot->ejected_until, &until, now))
        rp_balancer_changed(balancer);
}

void rp_outlier_forgive(rp_balancer *balancer, rp_slot *slot, const char *name, apr_time_t now)
{
    atomic_store(&slot->ejections, 0);
    atomic_store(&slot->failures_in_a_row, 0);
    bring_back(balancer, slot, name, now);
}

/** Counts a failure; nonzero if there are too many. The window is one word: when it began in
 * milliseconds, in 40 bits, and failures since. */
static int has_too_many(rp_slot *slot, const rp_outlier *outlier, apr_time_t now)
{
    apr_uint64_t time = (apr_uint64_t)apr_time_as_msec(now) & 0xffffffffffu;
    apr_uint64_t length = (apr_uint64_t)apr_time_as_msec(outlier->window);
    unsigned long long old = atomic_load(&slot->window), changed, requests, failures;
    unsigned int in_a_row = atomic_fetch_add(&slot->failures_in_a_row, 1) + 1;

    do {
        apr_uint64_t age = (time - (old >> 24)) & 0xffffffffffu;

        changed = !old || age > length ? time << 24 | 1 : old + 1;
        failures = changed & 0xffffffu;
    } while (!atomic_compare_exchange_weak(&slot->window, &old, changed));
    requests = atomic_load(&slot->requests);
    if (failures == 1)
        atomic_store(&slot->window_requests, requests);
    requests -= atomic_load(&slot->window_requests);
    return failures >= (unsigned)outlier->errors
        && (in_a_row >= (unsigned)outlier->errors
            || failures * FAILURES_PER_REQUESTS > requests);
}

void rp_outlier_finished(rp_balancer *balancer, const rp_holding *holding,
                         const rproxy_result *result, apr_time_t now)
{
    const rp_origin *origin = holding->origin;
    rp_attempt attempt = holding->attempt;
    rp_slot *slot = origin->slot;
    long long ejected = atomic_load(&slot->ejected_until);

    if (result->failed) {
        if (attempt == RP_ATTEMPT_TRIAL && ejected)
            eject(balancer, origin, ejected, now);
        else if (balancer->outlier.errors && !ejected
                 && has_too_many(slot, &balancer->outlier, now))
            eject(balancer, origin, 0, now);
    }
    else if (!result->is_clients_fault) {
        if (atomic_load_explicit(&slot->failures_in_a_row, memory_order_relaxed))
            atomic_store(&slot->failures_in_a_row, 0);
        if (attempt != RP_ATTEMPT_USUAL)
            bring_back(balancer, slot, origin->member.name, now);
    }
    else if (attempt == RP_ATTEMPT_TRIAL) {
        atomic_store(&slot->trial_until, 0);
        rp_balancer_changed(balancer);
    }
}
