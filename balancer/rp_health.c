/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The keeper's duty: checks all members of pools that have RProxyHealthCheck, and says in their
 * slots what came of it. What is checked, a URL in one way, is an endpoint; the members of any
 * number of pools use it. */
#include <stdlib.h>
#include <string.h>
#include <apr_hash.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_log.h"

#include "balancer/rp_health.h"
#include "balancer/rp_mix.h"
#include "balancer/rp_roster.h"

APLOG_USE_MODULE(rproxy_balancer);

#define RUNNING_MAX 256                 /* checks at once; others wait a little */
#define WAIT (10 * 1000)
#define LOOK (APR_USEC_PER_SEC / 4)     /* between looks for changes of the rosters */
#define FIRST APR_USEC_PER_SEC          /* all that nobody knows are checked in this time */
#define JITTER 10                       /* percent of the interval, all in all */

typedef struct health_duty health_duty;

/** A member that wants to know. */
typedef struct user {
    rp_balancer *balancer;
    const char *name;
    rp_slot *slot;
    unsigned long long incarnation;
} user;

typedef struct endpoint {
    health_duty *owner;
    apr_pool_t *pool;
    const char *key;
    const rp_health_check *check;
    rp_probe_settings probe;            /* those of check, with the member's TLS */
    rproxy_place *place;
    user *users;
    int user_count, user_room;
    rp_probe_run *run;                  /* NULL: none under way */
    rp_keeper_timer timer;              /* for the next one */
    apr_time_t began;                   /* the one under way or the last; the keeper's clock */
    apr_time_t began_at;                /* the same, the time of day */
    int passed, failed;                 /* in a row */
    int is_apart;                       /* from those that began at the same time */
} endpoint;

struct health_duty {
    rp_keeper *keeper;                  /* NULL: this child doesn't lead */
    apr_hash_t *endpoints;              /* by key */
    int running;
    apr_uint64_t chance;
    rp_keeper_timer look;
    unsigned long long seen;            /* versions of all rosters together, as they were found */
};

static health_duty duty_data;

/* ---- what came of a check -------------------------------------------------------------------- */

static void log_change(const user *u, const endpoint *e, const rproxy_check *check, int is_up)
{
    const rp_balancer *balancer = u->balancer;

    if (is_up)
        ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, balancer->server, "RP0421: pool %s: member %s is "
                     "up, %d of its checks passed in a row", balancer->name, u->name, e->passed);
    else
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, balancer->server, "RP0420: pool %s: member %s "
                     "is down and gets no requests, %d of its checks failed in a row, the last "
                     "one: %s; look after it, or correct RProxyHealthCheck", balancer->name,
                     u->name, e->failed, check->cause);
}

static void look_for_panic(rp_balancer *balancer)
{
    if (!rp_health_look_for_panic(balancer))
        return;
    rp_balancer_changed(balancer);
    if (atomic_load(&balancer->slot->panic))
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, balancer->server, "RP0422: pool %s: too few members "
                     "are up, so all are used; look after those that are down", balancer->name);
    else
        ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, balancer->server, "RP0422: pool %s: enough "
                     "members are up again, the others are not used", balancer->name);
}

/** It came up: everything that was held against it is forgotten. */
static void enter_service(const user *u)
{
    apr_time_t now = apr_time_now();

    rp_outlier_forgive(u->balancer, u->slot, u->name, now);
    rp_slot_reset_method(u->slot);
    atomic_store(&u->slot->in_service_since, now);
}

static void set_health(const user *u, const endpoint *e, const rproxy_check *check, int health)
{
    int before = atomic_load(&u->slot->health);

    if (health == before)
        return;
    if (health == RP_HEALTH_UP
        && (before == RP_HEALTH_DOWN || (u->balancer->check->waits
                                         && atomic_load(&u->slot->in_service_since))))
        enter_service(u);
    atomic_store(&u->slot->health_since, apr_time_now());
    atomic_store(&u->slot->health, health);
    if (health == RP_HEALTH_DOWN || before == RP_HEALTH_DOWN)
        log_change(u, e, check, health == RP_HEALTH_UP);
    look_for_panic(u->balancer);
    rp_balancer_changed(u->balancer);
}

static void judge(const user *u, const endpoint *e, const rproxy_check *check)
{
    int health = atomic_load(&u->slot->health);

    if (health == RP_HEALTH_UNKNOWN)
        set_health(u, e, check, e->passed ? RP_HEALTH_UP : RP_HEALTH_DOWN);
    else if (health == RP_HEALTH_DOWN && e->passed >= e->check->rise)
        set_health(u, e, check, RP_HEALTH_UP);
    else if (health == RP_HEALTH_UP && e->failed >= e->check->fall)
        set_health(u, e, check, RP_HEALTH_DOWN);
    else if (health == RP_HEALTH_UP && e->passed)
        rp_outlier_passed(u->balancer, u->slot, e->began_at, apr_time_now());
}

/* ---- what agents say ------------------------------------------------------------------------- */

static int set_said(atomic_int *word, int said)
{
    return said && atomic_exchange(word, said) != said;
}

static void take_advice(const user *u, const rproxy_advice *advice)
{
    rp_slot *slot = u->slot;
    int mode = advice->mode, changed;
    char max[40] = "";

    /* What puts a member out of service stays until the agent takes it back, in so many words. */
    changed = set_said(&slot->agent_percent, advice->percent + 1);
    changed |= set_said(&slot->agent_max, advice->max + 1);
    changed |= set_said(&slot->agent_mode, mode);
    changed |= set_said(&slot->agent_health, advice->health);
    if (!changed)
        return;
    rp_balancer_changed(u->balancer);
    if (advice->max >= 0)
        apr_snprintf(max, sizeof(max), ", at most %d requests", advice->max);
    ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, u->balancer->server, "RP0424: pool %s: the agent of "
                 "member %s says: weight %d%%%s%s%s", u->balancer->name,
                 u->name, rp_health_percent(u->balancer, slot),
                 mode == RPROXY_ADVICE_DRAIN ? ", drain" : mode == RPROXY_ADVICE_MAINT ? ", maint"
                 : mode ? ", ready" : "",
                 advice->health == RPROXY_ADVICE_DOWN ? ", down" : advice->health ? ", up" : "",
                 max);
}

/* ---- when checks are made -------------------------------------------------------------------- */

static apr_interval_time_t pace(const endpoint *e)
{
    int is_changing = 0, down = 0;

    if (e->check->probe.probe->gives_advice)
        return e->check->interval;
    for (int i = 0; i < e->user_count; i++) {
        int health = atomic_load(&e->users[i].slot->health);

        is_changing |= health == RP_HEALTH_UNKNOWN || (health == RP_HEALTH_UP && e->failed)
            || (health == RP_HEALTH_DOWN && e->passed)
            || atomic_load(&e->users[i].slot->ejected_until) != 0;
        down += health == RP_HEALTH_DOWN;
    }
    return is_changing ? e->check->fast : down ? e->check->down_interval : e->check->interval;
}

static void begin_check(rp_keeper *keeper, void *baton);

/** Not all at once, and never in step: those that began together go apart as soon as they have the
 * time. */
static void schedule(endpoint *e)
{
    apr_interval_time_t interval = pace(e), spread = interval * JITTER / 100;
    apr_time_t now = rp_keeper_now(e->owner->keeper), due;

    e->owner->chance = rp_mix(e->owner->chance);
    due = e->began + interval - spread / 2;
    if (!e->is_apart && interval == e->check->interval) {
        e->is_apart = 1;
        due = e->began;
        spread = interval;
    }
    if (spread)
        due += (apr_interval_time_t)(e->owner->chance % (apr_uint64_t)spread);
    rp_keeper_at(e->owner->keeper, &e->timer, due > now + WAIT ? due : now + WAIT, begin_check, e);
}

static void ended(void *baton, const rproxy_check *check, int passed, apr_interval_time_t latency)
{
    endpoint *e = baton;

    e->run = NULL;
    e->owner->running--;
    e->passed = passed ? e->passed + 1 : 0;
    e->failed = passed ? 0 : e->failed + 1;
    for (int i = 0; i < e->user_count; i++) {
        const user *u = &e->users[i];

        /* It was removed a moment ago, and another member has its slot. */
        if (!rp_slot_is(u->slot, u->incarnation))
            continue;
        if (e->check->probe.probe->gives_advice) {
            if (passed)
                take_advice(u, &check->advice);
            continue;
        }
        atomic_store(&u->slot->checked_at, apr_time_now());
        atomic_store(&u->slot->check_time, latency);
        atomic_fetch_add(&u->slot->checks, 1);
        if (!passed) {
            atomic_fetch_add(&u->slot->checks_failed, 1);
            rp_health_write_cause(u->slot, check->cause);
        }
        judge(u, e, check);
    }
    schedule(e);
}

static void begin_check(rp_keeper *keeper, void *baton)
{
    endpoint *e = baton;

    if (e->owner->running >= RUNNING_MAX) {
        rp_keeper_at(keeper, &e->timer, rp_keeper_now(keeper) + WAIT, begin_check, e);
        return;
    }
    e->owner->running++;
    e->began = rp_keeper_now(keeper);
    e->began_at = apr_time_now();
    e->run = rp_probe_begin(keeper, e->pool, &e->probe, e->place, ended, e);
}

/** A member was ejected: its next check is made in short. */
static void poked(rp_keeper *keeper, void *baton)
{
    health_duty *h = baton;

    for (apr_hash_index_t *at = apr_hash_first(NULL, h->endpoints); at; at = apr_hash_next(at)) {
        endpoint *e = apr_hash_this_val(at);
        apr_time_t due = e->began + pace(e);

        if (e->timer.entry.index && due < e->timer.entry.due)
            rp_keeper_at(keeper, &e->timer, due, begin_check, e);
    }
}

/* ---- who is checked -------------------------------------------------------------------------- */

/** How a check of the member is made: with the TLS of its requests, unless it has its own. */
static rp_probe_settings probe_of(const rp_health_check *check, const rp_balancer *balancer,
                                  const rp_member *member)
{
    APR_OPTIONAL_FN_TYPE(rproxy_settings_tls) *tls_of =
        APR_RETRIEVE_OPTIONAL_FN(rproxy_settings_tls);
    rp_probe_settings probe = check->probe;
    const char *name = NULL;

    if (check->has_tls || probe.probe->tls == RPROXY_PROBE_PLAIN || !tls_of)
        return probe;
    probe.tls = tls_of(balancer->server, member->settings ? member->settings : balancer->settings,
                       &name);
    if (!probe.name && !probe.host)
        probe.name = name;
    return probe;
}

static endpoint *make_endpoint(health_duty *h, const rp_health_check *check,
                               const rp_probe_settings *probe, const char *url, const char *key)
{
    apr_pool_t *pool;
    endpoint *e;

    apr_pool_create(&pool, rp_keeper_pool(h->keeper));
    e = apr_pcalloc(pool, sizeof(*e));
    e->owner = h;
    e->pool = pool;
    e->check = check;
    e->probe = *probe;
    e->key = apr_pstrdup(pool, key);
    if (!(e->place = rp_place_parse(pool, apr_pstrdup(pool, url)))) {
        apr_pool_destroy(pool);
        return NULL;
    }
    apr_hash_set(h->endpoints, e->key, APR_HASH_KEY_STRING, e);
    return e;
}

static void drop_endpoint(endpoint *e)
{
    if (e->run) {
        rp_probe_cancel(e->run);
        e->owner->running--;
    }
    rp_keeper_cancel(e->owner->keeper, &e->timer);
    apr_hash_set(e->owner->endpoints, e->key, APR_HASH_KEY_STRING, NULL);
    free(e->users);
    apr_pool_destroy(e->pool);
}

static void use(health_duty *h, const rp_health_check *check, apr_pool_t *temp,
                rp_balancer *balancer, const rp_member *member)
{
    rp_probe_settings probe = probe_of(check, balancer, member);
    const char *key = apr_psprintf(temp, "%s\n%s\n%pp\n%s", check->text, member->url,
                                   (void *)probe.tls, probe.name ? probe.name : "");
    endpoint *e = apr_hash_get(h->endpoints, key, APR_HASH_KEY_STRING);

    if (!e && !(e = make_endpoint(h, check, &probe, member->url, key)))
        return;
    if (e->user_count == e->user_room) {
        int room = e->user_room ? e->user_room * 2 : 1;
        user *larger = realloc(e->users, (size_t)room * sizeof(user));

        if (!larger)
            return;
        e->users = larger;
        e->user_room = room;
    }
    e->users[e->user_count++] = (user){ balancer, e->place->url, member->slot,
                                          member->origin->incarnation };
}

static void use_pool(health_duty *h, apr_pool_t *temp, rp_balancer *balancer)
{
    rp_view *view = rp_view_enter(balancer, apr_time_now());

    h->seen += view->table->version;
    for (int i = 0; i < view->table->count; i++) {
        const rp_member *member = &view->table->more[i];

        if (member->state == RP_MEMBER_GONE)
            continue;
        /* One that isn't meant to be there is judged anew when it is. */
        if (member->state == RP_MEMBER_DOWN) {
            atomic_store(&member->slot->health, RP_HEALTH_UNKNOWN);
            continue;
        }
        if (balancer->check)
            use(h, balancer->check, temp, balancer, member);
        if (balancer->agent)
            use(h, balancer->agent, temp, balancer, member);
    }
    rp_view_leave(view);
    look_for_panic(balancer);
}

/** In which time the first check is to be made. */
static apr_interval_time_t time_for_first(const endpoint *e)
{
    apr_interval_time_t time = pace(e);

    for (int i = 0; i < e->user_count; i++) {
        if (time > FIRST && atomic_load(&e->users[i].slot->health) == RP_HEALTH_UNKNOWN)
            time = FIRST;
    }
    return time;
}

/** Endpoints that are new begin one after the other within the time that they have. */
static void begin_new(health_duty *h, const apr_array_header_t *new)
{
    apr_time_t now = rp_keeper_now(h->keeper);

    for (int i = 0; i < new->nelts; i++) {
        endpoint *e = APR_ARRAY_IDX(new, i, endpoint *);

        e->began = now;
        rp_keeper_at(h->keeper, &e->timer, now + time_for_first(e) * i / new->nelts, begin_check,
                     e);
    }
}

static void find_endpoints(health_duty *h)
{
    const apr_array_header_t *all = rp_balancer_all();
    apr_pool_t *temp;
    apr_array_header_t *new;

    apr_pool_create(&temp, rp_keeper_pool(h->keeper));
    h->seen = 0;
    for (apr_hash_index_t *at = apr_hash_first(temp, h->endpoints); at; at = apr_hash_next(at))
        ((endpoint *)apr_hash_this_val(at))->user_count = 0;
    for (int i = 0; i < all->nelts; i++)
        use_pool(h, temp, APR_ARRAY_IDX(all, i, rp_balancer *));
    new = apr_array_make(temp, 64, sizeof(endpoint *));
    for (apr_hash_index_t *at = apr_hash_first(temp, h->endpoints); at; at = apr_hash_next(at)) {
        endpoint *e = apr_hash_this_val(at);

        if (!e->user_count)
            drop_endpoint(e);
        else if (!e->began)
            APR_ARRAY_PUSH(new, endpoint *) = e;
    }
    begin_new(h, new);
    apr_pool_destroy(temp);
}

static void look(rp_keeper *keeper, void *baton)
{
    health_duty *h = baton;

    if (rp_roster_versions(rp_balancer_all()) != h->seen)
        find_endpoints(h);
    rp_keeper_at(keeper, &h->look, rp_keeper_now(keeper) + LOOK, look, h);
}

/* ---- the duty -------------------------------------------------------------------------------- */

static void begin(rp_keeper *keeper, void *baton)
{
    health_duty *h = baton;

    memset(h, 0, sizeof(*h));
    h->keeper = keeper;
    h->endpoints = apr_hash_make(rp_keeper_pool(keeper));
    h->chance = (apr_uint64_t)apr_time_now();
    look(keeper, h);
}

static void end(rp_keeper *keeper, void *baton)
{
    health_duty *h = baton;

    for (apr_hash_index_t *at = apr_hash_first(rp_keeper_pool(keeper), h->endpoints); at;
         at = apr_hash_next(at))
        drop_endpoint(apr_hash_this_val(at));
    h->keeper = NULL;
}

void rp_health_add_duty(void)
{
    static const rp_duty duty = { .begin = begin, .end = end, .poked = poked };
    const apr_array_header_t *all = rp_balancer_all();

    for (int i = 0; i < all->nelts; i++) {
        const rp_balancer *balancer = APR_ARRAY_IDX(all, i, rp_balancer *);

        if (balancer->check || balancer->agent) {
            rp_keeper_add(&duty, &duty_data);
            return;
        }
    }
}
