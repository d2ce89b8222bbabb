/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The roster: members that are added, changed and removed at run time, seen by other processes, by
 * requests that are under way, and by the next configuration. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t/unit/httpd_shim.h"
#include "t/unit/tap.h"
#include "t/unit/balancer_fixture.h"
#include "balancer/rp_discovery.h"

#define ADDED "http://192.0.2.1:80"

static apr_pool_t *pool;
static int dropped;                     /* targets given back */

/* ---- what the core offers -------------------------------------------------------------------- */

static const char *rproxy_target_parse(apr_pool_t *its, const char *text, rproxy_target **target)
{
    *target = (rproxy_target *)apr_pstrdup(its, text);
    return strncmp(text, "http", 4) != 0 ? "unknown scheme" : NULL;
}

static void rproxy_target_drop(rproxy_target *target)
{
    (void)target;
    dropped++;
}

/* ---- helpers --------------------------------------------------------------------------------- */

static rp_balancer *start(const char *name, int count)
{
    rp_balancer *balancer = fixture_pool(pool, name, &rp_method_roundrobin, "", count, NULL);

    for (int i = 0; i < count; i++)
        balancer->more[i].stanza = (apr_uint64_t)i + 1;
    balancer->stanza = 99;
    fixture_start(pool, balancer);
    return balancer;
}

static rp_roster_change change_of(unsigned int set, rp_roster_values values)
{
    return (rp_roster_change){ .from = RP_FROM_API, .who = "tester", .set = set, .values = values,
                               .pool = pool };
}

/** How many of so many requests each number gets, as "0=2 1=4". */
static const char *spread(rp_balancer *balancer, int requests)
{
    int counts[64] = { 0 };
    const char *text = "";

    for (int i = 0; i < requests; i++) {
        apr_pool_t *its;
        rproxy_request request = fixture_request("/");
        rproxy_use use;
        int number;

        apr_pool_create(&its, pool);
        request.pool = its;
        number = fixture_choose(balancer, &use, &request, FIXTURE_START);
        if (number >= 0) {
            counts[number]++;
            fixture_release(&use, 1, FIXTURE_START);
        }
        apr_pool_destroy(its);
    }
    for (int i = 0; i < 64; i++) {
        if (counts[i])
            text = apr_psprintf(pool, "%s%s%d=%d", text, *text ? " " : "", i, counts[i]);
    }
    return text;
}

static const rp_roster_member *member_at(rp_balancer *balancer, const char *url)
{
    return rp_roster_find(pool, balancer, url);
}

/* ---- changes --------------------------------------------------------------------------------- */

static void add_and_remove(void)
{
    rp_balancer *balancer = start("add", 2);
    rp_roster_change change = change_of(RP_VALUE_WEIGHT, (rp_roster_values){ .weight = 2 });
    unsigned long long version = rp_roster_version(balancer);
    int number = -1;

    is_number(rp_roster_add(balancer, ADDED, &change, &number), RP_ROSTER_OK, "one is added");
    is_number(number, 2, "its number");
    ok(rp_roster_version(balancer) != version, "the version is another one");
    is_text(spread(balancer, 8), "0=2 1=2 2=4", "it serves");
    is_number(rp_roster_add(balancer, "http://192.0.2.1/", &change, NULL), RP_ROSTER_DUPLICATE,
              "twice is once too often, however it is written");
    is_number(rp_roster_add(balancer, "ftp://a", &change, NULL), RP_ROSTER_BAD, "a bad URL");
    change.values.weight = 0;
    is_number(rp_roster_change_member(balancer, 2, &change), RP_ROSTER_BAD, "a bad weight");
    ok(change.message && strstr(change.message, "use the state drain"), "and what to do");
    change.values.weight = 1;
    change.if_version = version;
    is_number(rp_roster_change_member(balancer, 2, &change), RP_ROSTER_OUTDATED, "an old version");
    change.if_version = rp_roster_version(balancer);
    is_number(rp_roster_change_member(balancer, 2, &change), RP_ROSTER_OK, "the version of now");
    is_text(spread(balancer, 6), "0=2 1=2 2=2", "the new weight");
    change.if_version = 0;
    is_number(rp_roster_remove(balancer, 7, &change), RP_ROSTER_UNKNOWN, "nobody is number 7");
    is_number(rp_roster_remove(balancer, 2, &change), RP_ROSTER_OK, "it is removed");
    is_text(spread(balancer, 4), "0=2 1=2", "it doesn't serve");
    ok(!member_at(balancer, ADDED), "nor is it known");
    /* Views are used in turn: the last one with the member goes when its turn comes. */
    for (int i = 0; i < 3; i++) {
        rp_roster_changed(balancer);
        spread(balancer, 1);
    }
    is_number(dropped, 1, "what it had is given back");
}

static void configured(void)
{
    rp_balancer *balancer = start("configured", 2);
    rp_roster_change change = change_of(RP_VALUE_STATE | RP_VALUE_MAX,
                                        (rp_roster_values){ .state = RP_MEMBER_DRAIN, .max = 3 });
    const rp_roster_member *member;

    rp_roster_change_member(balancer, 1, &change);
    is_text(spread(balancer, 4), "0=4", "a drained one");
    member = member_at(balancer, balancer->members[1].name);
    ok(member->overridden == (RP_VALUE_STATE | RP_VALUE_MAX) && member->now.max == 3
       && member->configured.max == 0, "what is set, and what is configured");
    is_text(member->who, "tester", "by whom");
    change.set = 0;
    change.forget = RP_VALUE_STATE;
    rp_roster_change_member(balancer, 1, &change);
    is_text(spread(balancer, 4), "0=2 1=2", "its state as configured");
    is_number(member_at(balancer, balancer->members[1].name)->now.max, 3, "but not its limit");
    rp_roster_remove(balancer, 0, &change);
    is_text(spread(balancer, 4), "1=4", "a configured one is removed");
    ok(member_at(balancer, balancer->members[0].name)->is_removed, "and known to be");
    rp_roster_forget_all(balancer, &change);
    is_text(spread(balancer, 4), "0=2 1=2", "all is forgotten");
    is_number(member_at(balancer, balancer->members[1].name)->overridden, 0, "really all");
}

static void journal(void)
{
    rp_balancer *balancer = start("journal", 1);
    rp_roster_change change = change_of(RP_VALUE_WEIGHT, (rp_roster_values){ .weight = 3 });
    const apr_array_header_t *entries;

    rp_roster_change_member(balancer, 0, &change);
    rp_roster_remove(balancer, 0, &change);
    entries = rp_roster_journal(pool, balancer);
    is_number(entries->nelts, 2, "two entries");
    is_text(APR_ARRAY_IDX(entries, 0, rp_journal_entry).what, "http://10.0.0.0:8080: removed",
            "the last one first");
    is_text(APR_ARRAY_IDX(entries, 1, rp_journal_entry).what, "http://10.0.0.0:8080: weight=3",
            "what was set");
    is_text(APR_ARRAY_IDX(entries, 1, rp_journal_entry).who, "tester", "by whom");
}

/* ---- requests under way ---------------------------------------------------------------------- */

static void held(void)
{
    rp_balancer *balancer = start("held", 1);
    rp_roster_change change = change_of(RP_VALUE_WEIGHT, (rp_roster_values){ .weight = 1000 });
    rproxy_request request = fixture_request("/");
    rproxy_target *target;
    rproxy_use use = { .pool = balancer, .request = &request };
    int before = dropped;
    apr_pool_t *its;
    rp_slot *slot;

    apr_pool_create(&its, pool);
    request.pool = its;
    rp_roster_add(balancer, ADDED, &change, NULL);
    do {
        use.tried_count = 0;
        if (rp_balancer_choose(&use, FIXTURE_START, &target) == RPROXY_CHOSEN && use.member != 1)
            fixture_release(&use, 1, FIXTURE_START);
    } while (use.member != 1);
    slot = member_at(balancer, ADDED)->slot;
    rp_roster_remove(balancer, 1, &change);
    for (int i = 0; i < 3; i++) {
        rp_roster_changed(balancer);
        is_text(spread(balancer, 2), "0=2", "nobody else goes there");
    }
    is_number(dropped, before, "what the request has is still there");
    is_text((char *)target, ADDED, "its target");
    is_text(use.name, ADDED, "and the name");
    rp_roster_add(balancer, "http://192.0.2.2:80", &change, NULL);
    ok(member_at(balancer, "http://192.0.2.2")->slot != slot, "nobody gets its slot meanwhile");
    fixture_release(&use, 1, FIXTURE_START);
    is_number(atomic_load(&slot->shared.in_flight), 0, "it has ended");
    apr_pool_destroy(its);
    is_number(dropped, before + 1, "now all is given back");
    rp_roster_add(balancer, "http://192.0.2.3:80", &change, NULL);
    ok(member_at(balancer, "http://192.0.2.3")->slot == slot, "the slot is the next one's");
    is_number(atomic_load(&slot->requests), 0, "who finds it as new");
}

/** Much coming and going costs nothing that isn't given back. */
static void for_a_year(void)
{
    rp_balancer *balancer = start("year", 1);
    rp_roster_change change = change_of(0, (rp_roster_values){ 0 });
    int before = dropped, failed = 0;
    apr_pool_t *temp;

    apr_pool_create(&temp, pool);
    change.pool = temp;
    for (int i = 0; i < 2 * RP_SLOTS_MAX; i++) {
        int number;

        failed += rp_roster_add(balancer, apr_psprintf(temp, "http://192.0.2.1:%d", i % 60000 + 1),
                                &change, &number) != RP_ROSTER_OK;
        if (i % 64 == 0)
            spread(balancer, 2);
        failed += rp_roster_remove(balancer, number, &change) != RP_ROSTER_OK;
        if (i % 1024 == 0)
            apr_pool_clear(temp);
    }
    is_number(failed, 0, "twice as many members come and go as there can be at once");
    for (int i = 0; i < 3; i++) {
        rp_roster_changed(balancer);
        spread(balancer, 1);
    }
    is_number(dropped - before, 2 * RP_SLOTS_MAX / 64, "all that were seen are given back");
}

/* ---- other processes ------------------------------------------------------------------------- */

/** Runs call in a child; the status that it returns. */
static int in_child(int (*call)(rp_balancer *balancer), rp_balancer *balancer)
{
    pid_t child = fork();
    int status = 0;

    if (!child) {
        rp_shared_enter();
        _exit(call(balancer));
    }
    waitpid(child, &status, 0);
    rp_shared_settle((int)child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int adds(rp_balancer *balancer)
{
    rp_roster_change change = change_of(0, (rp_roster_values){ 0 });

    return rp_roster_add(balancer, ADDED, &change, NULL);
}

static int dies_with_the_lock(rp_balancer *balancer)
{
    (void)balancer;
    rp_roster_lock();
    kill(getpid(), SIGKILL);
    return 0;
}

static int adds_many(rp_balancer *balancer)
{
    rp_roster_change change = change_of(0, (rp_roster_values){ 0 });
    int failed = 0;

    for (int i = 0; i < 200; i++) {
        int number;

        failed += rp_roster_add(balancer, apr_psprintf(pool, "http://p%d:%d", (int)getpid(), i + 1),
                                &change, &number) != RP_ROSTER_OK;
        failed += rp_roster_remove(balancer, number, &change) != RP_ROSTER_OK;
    }
    return failed != 0;
}

static void processes(void)
{
    rp_balancer *balancer = start("processes", 2);
    pid_t children[4];
    int status, failed = 0;

    spread(balancer, 2);
    is_number(in_child(adds, balancer), RP_ROSTER_OK, "another process adds one");
    is_text(spread(balancer, 6), "0=2 1=2 2=2", "it serves here");
    is_number(in_child(dies_with_the_lock, balancer), -1, "a process is killed with the lock");
    is_number(in_child(adds, balancer), RP_ROSTER_DUPLICATE, "others go on");
    for (int i = 0; i < 4; i++) {
        if (!(children[i] = fork()))
            _exit(adds_many(balancer));
    }
    for (int i = 0; i < 4; i++) {
        waitpid(children[i], &status, 0);
        failed += status != 0;
    }
    is_number(failed, 0, "four at once");
    is_text(spread(balancer, 6), "0=2 1=2 2=2", "all is as before");
}

/* ---- the next configuration ------------------------------------------------------------------ */

static void next_configuration(void)
{
    rp_balancer *before = start("next", 3), *after;
    rp_roster_change change = change_of(RP_VALUE_WEIGHT, (rp_roster_values){ .weight = 3 });

    rp_roster_change_member(before, 0, &change);
    rp_roster_change_member(before, 1, &change);
    rp_roster_add(before, ADDED, &change, NULL);
    after = start("next", 3);
    is_text(spread(after, 10), "0=3 1=3 2=1 3=3", "all stays");
    after = fixture_pool(pool, "next", &rp_method_roundrobin, "", 3, NULL);
    after->more[0].stanza = 1;
    after->more[1].stanza = 77;
    after->more[2].stanza = 3;
    after->stanza = 99;
    fixture_start(pool, after);
    is_text(spread(after, 8), "0=3 1=1 2=1 3=3", "a line that was edited wins");
    ok(shim_logged("RP0425: pool next: http://10.0.0.1:8080"), "it is logged");
    after = fixture_pool(pool, "next", &rp_method_roundrobin, "", 4, NULL);
    after->more[0].stanza = 1;
    after->stanza = 98;
    fixture_start(pool, after);
    is_text(spread(after, 6), "0=3 1=1 2=1 3=1", "one that was added goes with the list");
    ok(shim_logged("RP0425: pool next: " ADDED), "it is logged");
}

/* ---- discovery ------------------------------------------------------------------------------- */

#define SECOND "http://192.0.2.2:80"

/** The source named "file a" is to find it: it has another weight then, and a limit. */
static void await(const rp_balancer *balancer, const char *url)
{
    rp_entry made = { .from = RP_FROM_DISCOVERY, .source = 11, .base = { .weight = 1 },
                      .overridden = RP_VALUE_WEIGHT | RP_VALUE_MAX,
                      .values = { .weight = 3, .max = 50 } };

    rp_roster_lock();
    rp_roster_await(balancer, url, rp_balancer_normal_url(pool, url), &made);
    rp_roster_unlock();
}

static void found(void)
{
    static const rp_source source = { .who = "file a", .id = 11 }, other = { .who = "b", .id = 12 };
    rp_balancer *balancer = start("found", 1);
    rproxy_found members[] = { { .url = ADDED, .weight = 1 }, { .url = SECOND, .weight = 1 } };
    rp_roster_change change = change_of(0, (rp_roster_values){ 0 });

    await(balancer, ADDED);
    rp_roster_changed(balancer);
    is_text(spread(balancer, 4), "0=4", "one that is awaited doesn't serve");
    ok(!member_at(balancer, ADDED), "nor is it shown");
    rp_roster_sync(balancer, &source, members, 2, pool);
    is_text(spread(balancer, 10), "0=2 1=6 2=2", "it is found: its changes hold");
    members[0].weight = 2;
    rp_roster_sync(balancer, &source, members, 2, pool);
    is_text(spread(balancer, 8), "0=2 1=4 2=2", "what is found with another value has that");
    is_number(member_at(balancer, ADDED)->overridden, RP_VALUE_MAX, "other changes hold");
    rp_roster_sync(balancer, &source, NULL, 0, pool);
    is_text(spread(balancer, 4), "0=4", "none is found");
    rp_roster_sync(balancer, &source, members, 1, pool);
    is_number(member_at(balancer, ADDED)->overridden, 0, "one that was away has no changes");

    await(balancer, SECOND);
    rp_roster_sync(balancer, &other, members + 1, 1, pool);
    is_number(member_at(balancer, SECOND)->overridden, 0, "who finds it first has it");
    rp_roster_sync(balancer, &source, members, 2, pool);
    is_text(spread(balancer, 8), "0=2 1=4 2=2", "and keeps it");
    rp_roster_sync(balancer, &other, NULL, 0, pool);
    await(balancer, SECOND);
    is_number(rp_roster_add(balancer, SECOND, &change, NULL), RP_ROSTER_OK, "so does who adds it");
    is_text(spread(balancer, 8), "0=2 1=4 2=2", "as it was added");
    await(balancer, "http://192.0.2.3:80");
    rp_roster_sync(balancer, &source, members, 1, pool);
    await(balancer, "http://192.0.2.3:80");
    is_number(rp_roster_list(pool, balancer, NULL)->nelts, 3, "those not found go, and may return");
}

static void limits(void)
{
    rp_balancer *balancer = start("limits", 2);
    rp_roster_change change = change_of(0, (rp_roster_values){ 0 });
    rp_roster_result result = RP_ROSTER_OK;
    rp_entry made = { .base = { .weight = 1 } };
    int added = 0;

    rp_roster_lock();
    while ((result = rp_roster_put(balancer, ADDED, apr_psprintf(pool, "%d", added), &made,
                                   &change)) == RP_ROSTER_OK)
        added++;
    rp_roster_unlock();
    is_number(added, RP_ROSTER_MEMBERS_MAX - 2, "as many as a pool can have");
    is_number(result, RP_ROSTER_FULL, "no more");
    ok(strstr(change.message, "remove some") != NULL, "it says what to do");
}

int main(void)
{
    pool = tap_pool();
    apr_hook_global_pool = pool;
    APR_REGISTER_OPTIONAL_FN(rproxy_target_parse);
    APR_REGISTER_OPTIONAL_FN(rproxy_target_drop);
    add_and_remove();
    configured();
    journal();
    held();
    for_a_year();
    processes();
    next_configuration();
    found();
    limits();
    return tap_done();
}
