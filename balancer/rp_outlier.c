/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Passive health. A member is ejected when too many of its requests fail; when its time is over,
 * one request tries it first, and decides. Each ejection is twice as long as the one before, until
 * the member has been well for as long as the longest. */
#include <apr_strings.h>
#include "httpd.h"
#include "http_log.h"

#include "balancer/rp_balancer.h"

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

void rp_balancer_changed(rp_balancer *balancer)
{
    atomic_fetch_add_explicit(&balancer->slot->version, 1, memory_order_release);
}

/* ---- trials ---------------------------------------------------------------------------------- */

/** What may be repeated elsewhere if it fails. */
static int is_harmless(const rproxy_request *request)
{
    return !strcmp(request->method, "GET") || !strcmp(request->method, "HEAD")
        || !strcmp(request->method, "OPTIONS");
}

int rp_outlier_begin(rp_balancer *balancer, int number, const rproxy_request *request,
                     apr_time_t now, rp_attempt *attempt)
{
    rp_slot *slot = balancer->more[number].slot;
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

static int count_ejected(const rp_balancer *balancer)
{
    int count = 0;

    for (int i = 0; i < balancer->count; i++) {
        const rp_member *member = &balancer->more[i];

        count += member->state == RP_MEMBER_UP && atomic_load(&member->slot->ejected_until) != 0;
    }
    return count;
}

/** How many members may be ejected at once; one always stays. */
static int most_ejected(const rp_balancer *balancer)
{
    int share = (balancer->up_count * balancer->outlier.max_percent + 99) / 100;

    return share < balancer->up_count ? share : balancer->up_count - 1;
}

static apr_interval_time_t duration_of(const rp_outlier *outlier, unsigned int level)
{
    apr_interval_time_t duration = outlier->eject;

    while (level-- && duration < outlier->max_eject)
        duration *= 2;
    return duration < outlier->max_eject ? duration : outlier->max_eject;
}

/** expected is what ejected_until is: 0 for the first ejection, else of a trial that has failed. */
static void eject(rp_balancer *balancer, int number, long long expected, apr_time_t now)
{
    rp_slot *slot = balancer->more[number].slot;
    apr_time_t since = atomic_load(&slot->in_service_since);
    unsigned int level;
    apr_interval_time_t duration;

    if (!expected && now - since > balancer->outlier.max_eject)
        atomic_store(&slot->ejections, 0);
    level = atomic_load(&slot->ejections);
    duration = duration_of(&balancer->outlier, level);
    if (!expected && count_ejected(balancer) >= most_ejected(balancer))
        return;
    if (!atomic_compare_exchange_strong(&slot->ejected_until, &expected, now + duration))
        return;
    if (!expected && count_ejected(balancer) > most_ejected(balancer)) {
        /* Another child ejected another one at the same moment. */
        atomic_store(&slot->ejected_until, 0);
        return;
    }
    if (level < LEVEL_MAX)
        atomic_store(&slot->ejections, level + 1);
    atomic_store(&slot->trial_until, 0);
    atomic_store(&slot->window, 0);
    rp_balancer_changed(balancer);
    ap_log_error(APLOG_MARK, APLOG_WARNING, 0, balancer->server, "RP0402: pool %s: member %s is "
                 "ejected for %" APR_TIME_T_FMT " ms, %s", balancer->name,
                 balancer->members[number].name, apr_time_as_msec(duration),
                 expected ? "it failed again when it was tried" : "too many requests failed");
}

static void bring_back(rp_balancer *balancer, int number, apr_time_t now)
{
    rp_slot *slot = balancer->more[number].slot;
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
                 "back", balancer->name, balancer->members[number].name);
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

void rp_outlier_finished(rp_balancer *balancer, int number, const rproxy_result *result,
                         rp_attempt attempt, apr_time_t now)
{
    rp_slot *slot = balancer->more[number].slot;
    long long ejected = atomic_load(&slot->ejected_until);

    if (result->failed) {
        if (attempt == RP_ATTEMPT_TRIAL && ejected)
            eject(balancer, number, ejected, now);
        else if (balancer->outlier.errors && !ejected
                 && has_too_many(slot, &balancer->outlier, now))
            eject(balancer, number, 0, now);
    }
    else if (!result->is_clients_fault) {
        if (atomic_load_explicit(&slot->failures_in_a_row, memory_order_relaxed))
            atomic_store(&slot->failures_in_a_row, 0);
        if (attempt != RP_ATTEMPT_USUAL)
            bring_back(balancer, number, now);
    }
    else if (attempt == RP_ATTEMPT_TRIAL) {
        atomic_store(&slot->trial_until, 0);
        rp_balancer_changed(balancer);
    }
}
