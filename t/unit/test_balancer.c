/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Who may be chosen: places, tiers, passive health, slow start; and what survives: counts over
 * children that are killed, state over restarts of the configuration. */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "t/unit/httpd_shim.h"
#include "t/unit/tap.h"
#include "t/unit/balancer_fixture.h"

#define SECOND APR_USEC_PER_SEC

static apr_pool_t *pool;
static const rproxy_request get = { .method = "GET", .path = "/", .client_ip = "192.0.2.1",
                                    .header = fixture_header };
static const rproxy_request post = { .method = "POST", .path = "/", .client_ip = "192.0.2.1",
                                     .header = fixture_header };

static rp_balancer *pool_of(const char *name, int count)
{
    return fixture_pool(pool, name, &rp_method_roundrobin, "", count, NULL);
}

static int in_flight(const rp_balancer *balancer, int number)
{
    return atomic_load(&balancer->more[number].slot->shared.in_flight);
}

/** How many of requests one after the other each member gets. */
static void spread(rp_balancer *balancer, int requests, apr_time_t now, int *counts)
{
    memset(counts, 0, (size_t)balancer->count * sizeof(int));
    while (requests--) {
        rproxy_use use;
        int number = fixture_choose(balancer, &use, &get, now);

        if (number < 0)
            continue;
        counts[number]++;
        fixture_release(&use, 1000, now);
    }
}

/** Asks until number got as many requests, which all fail; other members answer. */
static void fail_at(rp_balancer *balancer, int number, int failures, apr_time_t now)
{
    for (int i = 0; failures && i < 1000; i++) {
        rproxy_use use;

        if (fixture_choose(balancer, &use, &get, now) == number) {
            failures--;
            fixture_fail(&use, now);
        }
        else
            fixture_release(&use, 1000, now);
    }
}

/* ---- tiers ----------------------------------------------------------------------------------- */

static void tiers(void)
{
    rp_balancer *balancer = pool_of("tiers", 5);
    static const int ranks[] = { 0, 1, 1, 2, 0 };
    int counts[5];
    rproxy_use held[2];

    for (int i = 0; i < 5; i++)
        balancer->more[i].rank = ranks[i];
    balancer->more[4].state = RP_MEMBER_DRAIN;
    fixture_member(balancer, 0)->max = 1;
    fixture_start(pool, balancer);
    spread(balancer, 100, FIXTURE_START, counts);
    is_number(counts[0], 100, "only the lowest rank, without the one that is drained");
    ok(fixture_choose(balancer, &held[0], &get, FIXTURE_START) == 0, "while it is full");
    spread(balancer, 100, FIXTURE_START, counts);
    ok(counts[1] == 50 && counts[2] == 50, "the next rank helps out");
    fixture_release(&held[0], 1, FIXTURE_START);
    fail_at(balancer, 0, 5, FIXTURE_START);
    spread(balancer, 100, FIXTURE_START, counts);
    ok(counts[0] == 0 && counts[1] == 50 && counts[2] == 50, "as when it is ejected");
    balancer = pool_of("backups", 2);
    balancer->more[1].rank = 2;
    balancer->more[0].state = RP_MEMBER_DOWN;
    fixture_start(pool, balancer);
    spread(balancer, 10, FIXTURE_START, counts);
    is_number(counts[1], 10, "a backup serves when all others are down");
}

static void busy_or_gone(void)
{
    rp_balancer *balancer = pool_of("busy", 2);
    rproxy_target *target;
    rproxy_use held[2], use = { .request = &get };

    fixture_member(balancer, 0)->max = 1;
    fixture_member(balancer, 1)->max = 1;
    fixture_start(pool, balancer);
    fixture_choose(balancer, &held[0], &get, FIXTURE_START);
    fixture_choose(balancer, &held[1], &get, FIXTURE_START);
    use.pool = balancer;
    is_number(rp_balancer_choose(&use, FIXTURE_START, &target), RPROXY_ALL_BUSY, "all are full");
    fixture_release(&held[0], 1, FIXTURE_START);
    is_number(rp_balancer_choose(&use, FIXTURE_START, &target), RPROXY_CHOSEN, "one is free again");
    is_text(use.name, balancer->members[use.member].name, "its name");
    ok(target == balancer->more[use.member].target, "and target");
    fixture_release(&use, 1, FIXTURE_START);
    fixture_release(&held[1], 1, FIXTURE_START);
    balancer = pool_of("gone", 1);
    balancer->more[0].state = RP_MEMBER_DOWN;
    fixture_start(pool, balancer);
    use = (rproxy_use){ .request = &get, .pool = balancer };
    is_number(rp_balancer_choose(&use, FIXTURE_START, &target), RPROXY_NONE_AVAILABLE,
              "none is up");
}

static void retries(void)
{
    rp_balancer *balancer = pool_of("retries", 3);
    rproxy_use use = { .request = &get };
    rproxy_target *target;
    int seen = 0;

    fixture_start(pool, balancer);
    use.pool = balancer;
    for (int i = 0; i < 3; i++) {
        is_number(rp_balancer_choose(&use, FIXTURE_START, &target), RPROXY_CHOSEN, "an attempt");
        seen |= 1 << use.member;
        fixture_fail(&use, FIXTURE_START);
    }
    is_number(seen, 7, "three attempts of one request try three members");
    is_number(rp_balancer_choose(&use, FIXTURE_START, &target), RPROXY_CHOSEN,
              "the fourth tries one again");
    fixture_release(&use, 1, FIXTURE_START);
    is_number((int)atomic_load(&balancer->slot->counts.answers[0]), 3, "the pool counts failures");
    is_number((int)atomic_load(&balancer->slot->counts.answers[2]), 1, "and answers");
    is_number((int)atomic_load(&balancer->slot->received), 1000, "and bytes");
}

/* ---- passive health -------------------------------------------------------------------------- */

static void ejection(void)
{
    rp_balancer *balancer = pool_of("ejection", 3);
    apr_time_t now = FIXTURE_START;
    rproxy_use use, other;
    int counts[3];

    fixture_start(pool, balancer);
    fail_at(balancer, 1, 4, now);
    spread(balancer, 30, now, counts);
    is_number(counts[1], 10, "four failures are not enough");
    fail_at(balancer, 1, 5, now);
    spread(balancer, 30, now, counts);
    ok(counts[0] == 15 && counts[1] == 0 && counts[2] == 15, "five in a row eject");
    is_number(shim_logged("RP0402: pool ejection"), 1, "it is logged");
    spread(balancer, 30, now + 4 * SECOND, counts);
    is_number(counts[1], 0, "still ejected after 4 s");

    now += 5 * SECOND;
    for (int i = 0; i < 10; i++) {
        ok(fixture_choose(balancer, &use, &post, now) != 1, "a POST does not try it");
        fixture_release(&use, 1, now);
    }
    while (fixture_choose(balancer, &use, &get, now) != 1)
        fixture_release(&use, 1, now);
    for (int i = 0; i < 10; i++) {
        ok(fixture_choose(balancer, &other, &get, now) != 1, "one request tries it, no other");
        fixture_release(&other, 1, now);
    }
    fixture_fail(&use, now);
    spread(balancer, 30, now + 9 * SECOND, counts);
    is_number(counts[1], 0, "it failed: twice as long");
    now += 10 * SECOND;
    spread(balancer, 300, now, counts);
    ok(counts[1] >= 98, "it answered: back in traffic (%d of 300)", counts[1]);
    is_number(shim_logged("RP0403: pool ejection"), 1, "it is logged");
}

static void ejection_grows(void)
{
    rp_balancer *balancer = pool_of("growing", 3);
    apr_time_t now = FIXTURE_START, until;
    apr_interval_time_t expected[] = { 5, 10, 20, 40, 60, 60 };

    fixture_start(pool, balancer);
    fail_at(balancer, 0, 5, now);
    for (int i = 0; i < 6; i++) {
        until = atomic_load(&balancer->more[0].slot->ejected_until);
        is_number((until - now) / SECOND, expected[i], "length of the ejection");
        now = until;
        fail_at(balancer, 0, 1, now);
    }
}

static void most_stay(void)
{
    rp_balancer *balancer = pool_of("most", 4);
    int counts[4];

    fixture_start(pool, balancer);
    for (int number = 0; number < 4; number++)
        fail_at(balancer, number, 20, FIXTURE_START);
    spread(balancer, 100, FIXTURE_START, counts);
    ok(counts[0] == 0 && counts[1] == 0 && counts[2] == 50 && counts[3] == 50,
       "half of four at most");
    balancer = pool_of("last", 3);
    balancer->outlier.max_percent = 100;
    fixture_start(pool, balancer);
    for (int number = 0; number < 3; number++)
        fail_at(balancer, number, 20, FIXTURE_START);
    spread(balancer, 100, FIXTURE_START, counts);
    ok(counts[0] == 0 && counts[1] == 0 && counts[2] == 100, "never the last");
    balancer = pool_of("off", 2);
    balancer->outlier.errors = 0;
    fixture_start(pool, balancer);
    fail_at(balancer, 0, 100, FIXTURE_START);
    spread(balancer, 100, FIXTURE_START, counts);
    is_number(counts[0], 50, "RProxyOutlier off ejects none");
}

static void few_failures(void)
{
    rp_balancer *balancer = pool_of("few", 2);
    int counts[2];

    fixture_start(pool, balancer);
    for (int i = 0; i < 50; i++) {
        fail_at(balancer, 0, 1, FIXTURE_START);
        spread(balancer, 40, FIXTURE_START, counts);
    }
    is_number(counts[0], 20, "one failure in twenty requests does not eject");
    for (int i = 0; i < 20; i++) {
        fail_at(balancer, 0, 1, FIXTURE_START + (i + 2) * 11 * SECOND);
    }
    spread(balancer, 40, FIXTURE_START + 22 * 11 * SECOND, counts);
    is_number(counts[0], 20, "nor do failures that are far apart");
}

static void despite(void)
{
    rp_balancer *balancer = pool_of("despite", 2);
    rproxy_target *target;
    rproxy_use use = { .request = &get };
    int counts[2];

    fixture_start(pool, balancer);
    fail_at(balancer, 0, 5, FIXTURE_START);
    use.pool = balancer;
    rp_balancer_choose(&use, FIXTURE_START, &target);
    is_number(use.member, 1, "first the one that is not ejected");
    fixture_fail(&use, FIXTURE_START);
    is_number(rp_balancer_choose(&use, FIXTURE_START, &target), RPROXY_CHOSEN, "when it fails");
    is_number(use.member, 0, "the ejected one is better than none");
    fixture_release(&use, 1, FIXTURE_START);
    spread(balancer, 100, FIXTURE_START, counts);
    is_number(counts[0], 50, "it answered, so it is back at once");
}

static void slow_start(void)
{
    rp_balancer *balancer = pool_of("slow start", 2);
    apr_time_t now = FIXTURE_START;
    int counts[2];

    balancer->more[0].slow_start = 16 * SECOND;
    fixture_start(pool, balancer);
    spread(balancer, 100, now, counts);
    is_number(counts[0], 50, "no slow start when all begin");
    fail_at(balancer, 0, 5, now);
    now += 5 * SECOND;
    spread(balancer, 2, now, counts);
    spread(balancer, 170, now, counts);
    is_number(counts[0], 10, "a member that comes back begins with a sixteenth");
    spread(balancer, 240, now + 8 * SECOND - 1, counts);
    is_number(counts[0], 80, "after half of the time it has half of its weight");
    spread(balancer, 100, now + 16 * SECOND, counts);
    is_number(counts[0], 50, "then all of it");
}

/* ---- children -------------------------------------------------------------------------------- */

static void wait_for(pid_t child)
{
    int status;

    while (waitpid(child, &status, 0) != child)
        continue;
}

/** Takes and gives back at random, with some held all the time, until it is killed. */
static void child(rp_balancer *balancer, atomic_int *most)
{
    rproxy_use uses[8];
    int busy[8] = { 0 };
    unsigned int chance = (unsigned int)getpid();

    rp_shared_enter();
    for (;;) {
        unsigned int at = (chance = chance * 1103515245 + 12345) >> 16 & 7;

        if (busy[at])
            fixture_release(&uses[at], 1, FIXTURE_START);
        busy[at] = !busy[at] && fixture_choose(balancer, &uses[at], &get, FIXTURE_START) >= 0;
        for (int i = 0; i < balancer->count; i++) {
            int now = in_flight(balancer, i), before = atomic_load(most);

            while (now > before && !atomic_compare_exchange_weak(most, &before, now))
                continue;
        }
    }
}

/** Children killed anywhere: afterwards nothing is left. */
static void killed(void)
{
    rp_balancer *balancer = pool_of("killed", 3);
    atomic_int *most = mmap(NULL, sizeof(*most), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[4] = { 0 };
    int left = 0;

    for (int i = 0; i < 3; i++)
        fixture_member(balancer, i)->max = 5;
    fixture_start(pool, balancer);
    for (int round = 0; round < 200; round++) {
        int at = round % 4;

        if (children[at]) {
            kill(children[at], SIGKILL);
            wait_for(children[at]);
            rp_shared_settle((int)children[at]);
        }
        children[at] = fork();
        if (!children[at])
            child(balancer, most);
        usleep(1000);
    }
    for (int i = 0; i < 4; i++) {
        kill(children[i], SIGKILL);
        wait_for(children[i]);
        rp_shared_settle((int)children[i]);
    }
    rp_shared_settle_rest();
    for (int i = 0; i < 3; i++)
        left += abs(in_flight(balancer, i));
    is_number(left, 0, "200 children killed: nothing is left in flight");
    ok(atomic_load(most) == 5, "max= was reached, never passed, by four at once (%d)",
       atomic_load(most));
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *thread(void *data)
{
    for (int i = 0; i < 20000; i++) {
        rproxy_use use;

        if (fixture_choose(data, &use, &get, FIXTURE_START) < 0)
            continue;
        if (i % 16 == 0)
            rp_balancer_changed(data);
        fixture_release(&use, 1, FIXTURE_START);
    }
    return NULL;
}

static void threads(const char *name, const rproxy_method *method)
{
    rp_balancer *balancer = fixture_pool(pool, name, method, "path", 20, NULL);
    pthread_t ids[4];
    int left = 0;

    fixture_start(pool, balancer);
    for (int i = 0; i < 4; i++)
        pthread_create(&ids[i], NULL, thread, balancer);
    for (int i = 0; i < 4; i++)
        pthread_join(ids[i], NULL);
    for (int i = 0; i < 20; i++)
        left += abs(in_flight(balancer, i));
    is_number(left, 0, apr_pstrcat(pool, name, ": four threads while the set changes", NULL));
}

/* ---- restarts -------------------------------------------------------------------------------- */

static void restart(void)
{
    rp_balancer *before = pool_of("restart", 3), *after;
    int counts[4];
    rproxy_use use;

    fixture_start(pool, before);
    spread(before, 30, FIXTURE_START, counts);
    fail_at(before, 1, 5, FIXTURE_START);
    fixture_choose(before, &use, &get, FIXTURE_START);
    after = pool_of("restart", 4);
    after->more[3].slow_start = 16 * SECOND;
    fixture_member(after, 0)->weight = 3;
    rp_shared_open(pool, pool, 16);
    ok(!rp_shared_is_fresh(), "the memory is there already");
    rp_balancer_claim(pool, after, FIXTURE_START);
    rp_views_create(pool, after, FIXTURE_START);
    ok(after->more[0].slot == before->more[0].slot, "the same URL has the same slot");
    ok(atomic_load(&after->more[0].slot->requests) >= 10, "with its counters");
    is_number(in_flight(after, 0) + in_flight(after, 2), 1, "and what is in flight");
    rp_shared_enter();
    spread(after, 65, FIXTURE_START, counts);
    ok(counts[0] == 48 && counts[1] == 0 && counts[2] == 16 && counts[3] == 1,
       "weights are the new ones, the ejected one stays so, the new one starts slowly (%d %d %d "
       "%d)", counts[0], counts[1], counts[2], counts[3]);
    fixture_release(&use, 1, FIXTURE_START);
    is_number(in_flight(after, 0) + in_flight(after, 2), 0, "a request of before has ended");
}

/** A child that ends while nobody looks is settled by the next configuration. */
static void unseen(void)
{
    rp_balancer *balancer = pool_of("unseen", 1);
    pid_t child_pid;

    fixture_start(pool, balancer);
    child_pid = fork();
    if (!child_pid) {
        rproxy_use use;

        rp_shared_enter();
        fixture_choose(balancer, &use, &get, FIXTURE_START);
        _exit(0);
    }
    wait_for(child_pid);
    is_number(in_flight(balancer, 0), 1, "a child has ended with a request");
    rp_shared_open(pool, pool, 16);
    is_number(in_flight(balancer, 0), 0, "the next configuration settles it");
}

/** Slots of pools that are gone are used again, but not while a child may know them. */
static void slots(void)
{
    unsigned char identity[RP_IDENTITY_BYTES] = "slots";
    int is_new, claimed = 0;

    rp_shared_open(pool, pool, 16);
    for (int i = 0; i < RP_SLOTS_MAX; i++) {
        memcpy(identity + 8, &i, sizeof(i));
        claimed += rp_shared_claim(identity, &is_new) != NULL;
    }
    ok(claimed < RP_SLOTS_MAX, "as many as are left (%d), for those of old pools are still known",
       claimed);
    for (int i = 0; i < 3; i++) {
        rp_shared_open(pool, pool, 16);
        rp_shared_enter();
    }
    memset(identity, 1, sizeof(identity));
    ok(rp_shared_claim(identity, &is_new) && is_new, "three configurations later they are free");
}

int main(void)
{
    pool = tap_pool();
    tiers();
    busy_or_gone();
    retries();
    ejection();
    ejection_grows();
    most_stay();
    few_failures();
    despite();
    slow_start();
    killed();
    threads("roundrobin", &rp_method_roundrobin);
    threads("leasttime", &rp_method_leasttime);
    threads("random2", &rp_method_random2);
    threads("hash", &rp_method_hash);
    restart();
    unseen();
    slots();
    return tap_done();
}
