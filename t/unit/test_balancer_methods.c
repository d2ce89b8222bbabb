/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Who gets how much: each method over 100,000 requests. */
#include "t/unit/tap.h"
#include "t/unit/balancer_fixture.h"

#define REQUESTS 100000

static apr_pool_t *pool;
static const int weights[] = { 5, 3, 1 };
static apr_uint64_t chance = 1;

static unsigned int any(unsigned int below)
{
    chance = chance * 6364136223846793005u + 1442695040888963407u;
    return (unsigned int)(chance >> 33) % below;
}

/** How far the counts are from their ideal, in hundredths of a percent of it; the worst. */
static int worst(const int *counts, const int *ideal, int members)
{
    long long all = 0, sum = 0;
    int most = 0;

    for (int i = 0; i < members; i++) {
        all += counts[i];
        sum += ideal[i];
    }
    for (int i = 0; i < members; i++) {
        long long off = llabs(counts[i] * sum - all * ideal[i]) * 10000 / (all * ideal[i]);

        most = off > most ? (int)off : most;
    }
    return most;
}

/** Requests with that many in flight at once, which end in any order; counts who gets them. */
static void run(rp_balancer *balancer, int at_once, int *counts)
{
    rproxy_use *uses = calloc((size_t)at_once, sizeof(*uses));
    rproxy_request *requests = calloc((size_t)at_once, sizeof(*requests));
    char (*paths)[16] = calloc((size_t)at_once, sizeof(*paths));
    apr_time_t now = FIXTURE_START;

    memset(counts, 0, (size_t)balancer->count * sizeof(int));
    for (int i = 0; i < REQUESTS; i++, now += 100) {
        int at = i < at_once ? i : (int)any((unsigned)at_once), number;

        if (i >= at_once)
            fixture_release(&uses[at], 10000, now);
        snprintf(paths[at], sizeof(paths[at]), "/%d", i);
        requests[at] = fixture_request(paths[at]);
        number = fixture_choose(balancer, &uses[at], &requests[at], now);
        if (number >= 0)
            counts[number]++;
    }
    for (int i = 0; i < at_once; i++)
        fixture_release(&uses[i], 10000, now);
    free(uses);
    free(requests);
    free(paths);
}

static void shares(const char *name, const rproxy_method *method, const char *arguments)
{
    static const int at_once[] = { 1, 4, 100 };

    for (size_t i = 0; i < sizeof(at_once) / sizeof(at_once[0]); i++) {
        const char *text = apr_psprintf(pool, "%s %s with %d at once", name, arguments, at_once[i]);
        rp_balancer *balancer = fixture_pool(pool, text, method, arguments, 3, weights);
        int counts[3], off;

        fixture_start(pool, balancer);
        run(balancer, at_once[i], counts);
        off = worst(counts, weights, 3);
        ok(off <= 200, "%s: %d:%d:%d, within 2 %% of 5:3:1 (%d.%02d %%)", text, counts[0],
           counts[1], counts[2], off / 100, off % 100);
        is_number(atomic_load(&balancer->slot->shared.in_flight), 0, "none is left in the pool");
        is_number(atomic_load(&balancer->more[0].slot->shared.in_flight), 0, "nor in a member");
    }
}

static void smooth(void)
{
    rp_balancer *balancer =
        fixture_pool(pool, "smooth", &rp_method_roundrobin, "", 3, weights);
    char order[19] = "";
    rproxy_request request = fixture_request("/");
    rproxy_use use;

    fixture_start(pool, balancer);
    for (int i = 0; i < 18; i++) {
        order[i] = (char)('a' + fixture_choose(balancer, &use, &request, FIXTURE_START));
        fixture_release(&use, 1, FIXTURE_START);
    }
    is_text(order, "abaabcabaabaabcaba", "turns of 5:3:1 are spread evenly");
}

/** Weights whose schedule would be too long are met all the same. */
static void odd_weights(void)
{
    int many[200], counts[200];
    rp_balancer *balancer;

    for (int i = 0; i < 200; i++)
        many[i] = 400 + (i * 37) % 601;
    balancer = fixture_pool(pool, "odd weights", &rp_method_roundrobin, "", 200, many);
    fixture_start(pool, balancer);
    run(balancer, 1, counts);
    ok(worst(counts, many, 200) <= 200, "200 members with weights from 400 to 1000: within 2 %% "
       "(%d)", worst(counts, many, 200));
    for (int i = 0; i < 3; i++)
        many[i] = i == 0 ? 1000 : i == 1 ? 999 : 1;
    balancer = fixture_pool(pool, "one of 2000", &rp_method_roundrobin, "", 3, many);
    fixture_start(pool, balancer);
    run(balancer, 1, counts);
    ok(worst(counts, many, 3) <= 200, "1000:999:1, within 2 %% (%d)", worst(counts, many, 3));
}

static void one_by_one(void)
{
    rp_balancer *balancer = fixture_pool(pool, "first", &rp_method_first, "", 3, NULL);
    rproxy_request request = fixture_request("/");
    rproxy_use uses[5] = { 0 };
    int got[5];

    fixture_member(balancer, 0)->max = 2;
    fixture_member(balancer, 1)->max = 1;
    fixture_start(pool, balancer);
    for (int i = 0; i < 5; i++)
        got[i] = fixture_choose(balancer, &uses[i], &request, FIXTURE_START);
    ok(got[0] == 0 && got[1] == 0, "first: the first member until it is full");
    ok(got[2] == 1 && got[3] == 2 && got[4] == 2, "then the next");
    for (int i = 0; i < 5; i++)
        fixture_release(&uses[i], 1, FIXTURE_START);
}

/* ---- leasttime ------------------------------------------------------------------------------- */

/** Members answer after times[number], one request each step of the clock. */
static void answer(rp_balancer *balancer, const apr_interval_time_t *times, int count,
                   apr_time_t *now, int *counts)
{
    rproxy_request request = fixture_request("/");

    memset(counts, 0, (size_t)balancer->count * sizeof(int));
    for (int i = 0; i < count; i++) {
        rproxy_use use;
        int number = fixture_choose(balancer, &use, &request, *now);

        if (number < 0)
            continue;
        counts[number]++;
        *now += 2000;
        fixture_release(&use, times[number], *now);
    }
}

static void slow_member(void)
{
    rp_balancer *balancer = fixture_pool(pool, "slow", &rp_method_leasttime, "", 4, NULL);
    apr_interval_time_t times[] = { 5000, 5000, 5000, 50000 };
    apr_time_t now = FIXTURE_START;
    int counts[4];

    fixture_start(pool, balancer);
    answer(balancer, times, 10000, &now, counts);
    ok(counts[3] < 20, "leasttime: one that is ten times slower gets next to nothing (%d)",
       counts[3]);
    ok(counts[3] >= 2, "but is tried again now and then");
    ok(worst(counts, (const int[]){ 1, 1, 1 }, 3) < 500, "the others share the rest (%d %d %d)",
       counts[0], counts[1], counts[2]);
    times[3] = 5000;
    answer(balancer, times, 20000, &now, counts);
    ok(counts[3] > 2000, "once it is fast again it gets its share again (%d)", counts[3]);
    times[3] = 4000;
    answer(balancer, times, 1000, &now, counts);
    ok(counts[3] > 240, "with a fair share at the end (%d)", counts[3]);
}

/* ---- bytraffic ------------------------------------------------------------------------------- */

static void traffic(void)
{
    rp_balancer *balancer = fixture_pool(pool, "traffic", &rp_method_bytraffic, "", 3, weights);
    rproxy_request request = fixture_request("/");
    apr_time_t now = FIXTURE_START;
    int bytes[3] = { 0 }, counts[3] = { 0 };

    fixture_start(pool, balancer);
    for (int i = 0; i < REQUESTS; i++) {
        rproxy_result result = { .status = 200, .received = 1 + any(20000) };
        rproxy_use use;
        int number = fixture_choose(balancer, &use, &request, now);

        bytes[number] += (int)result.received + 512;
        counts[number]++;
        now += 100;
        rp_balancer_release(&use, &result, now);
    }
    ok(worst(bytes, weights, 3) <= 200, "bytraffic: bytes as 5:3:1 whatever the sizes (%d)",
       worst(bytes, weights, 3));
}

/* ---- hash ------------------------------------------------------------------------------------ */

static int belongs_to(rp_balancer *balancer, int key)
{
    char path[16];
    rproxy_request request = fixture_request(path);
    rproxy_use use;
    int number;

    snprintf(path, sizeof(path), "/%d", key);
    number = fixture_choose(balancer, &use, &request, FIXTURE_START);
    fixture_release(&use, 1, FIXTURE_START);
    return number;
}

/** Without member gone of ten: by a configuration without it, or because it is down. */
static void moved_keys(const char *arguments, int gone, int most_others)
{
    const char *name = apr_psprintf(pool, "ten %s %d", arguments, gone);
    rp_balancer *ten = fixture_pool(pool, name, &rp_method_hash, arguments, 10, NULL);
    rp_balancer *nine = fixture_pool(pool, apr_pstrcat(pool, name, "-", NULL), &rp_method_hash,
                                     arguments, 10, NULL);
    rp_balancer *down = fixture_pool(pool, apr_pstrcat(pool, name, "!", NULL), &rp_method_hash,
                                     arguments, 10, NULL);
    int moved = 0, others = 0, others_down = 0;

    memmove(fixture_member(nine, gone), fixture_member(nine, gone + 1),
            (size_t)(9 - gone) * sizeof(rproxy_member));
    nine->count = 9;
    down->more[gone].state = RP_MEMBER_DOWN;
    fixture_start(pool, ten);
    fixture_start(pool, nine);
    fixture_start(pool, down);
    for (int key = 0; key < REQUESTS; key++) {
        int before = belongs_to(ten, key), after = belongs_to(nine, key);
        int otherwise = belongs_to(down, key);

        after += after >= gone;
        moved += after != before;
        others += before != gone && after != before;
        others_down += before != gone && otherwise != before;
    }
    ok(moved <= REQUESTS * 11 / 100, "hash %s: without member %d of ten at most 11 %% of the keys "
       "move (%d of %d)", arguments, gone, moved, REQUESTS);
    ok(others <= most_others, "of other members' keys hardly any (%d)", others);
    is_number(others_down, 0, "and none when it is only down");
}

static void bounded(const char *arguments)
{
    rp_balancer *balancer = fixture_pool(pool, apr_pstrcat(pool, "bounded ", arguments, NULL),
                                         &rp_method_hash, arguments, 10, NULL);
    static rproxy_use uses[1000];
    static rproxy_request requests[1000];
    static char paths[1000][16];
    int above = 0, most = 0;

    fixture_start(pool, balancer);
    for (int i = 0; i < REQUESTS; i++) {
        int at = i < 1000 ? i : (int)any(1000), total = i < 1000 ? i + 1 : 1000, load, number;

        if (i >= 1000)
            fixture_release(&uses[at], 1, FIXTURE_START);
        /* Nine of ten requests are for one key. */
        snprintf(paths[at], sizeof(paths[at]), "/%d", any(10) ? 0 : i);
        requests[at] = fixture_request(paths[at]);
        number = fixture_choose(balancer, &uses[at], &requests[at], FIXTURE_START);
        load = number < 0 ? 9999 : atomic_load(&balancer->more[number].slot->shared.in_flight);
        most = load > most ? load : most;
        /* Whole requests: the bound of 1.25 is rounded up. */
        above += load > (total * 5 + 39) / 40;
    }
    is_number(above, 0, apr_psprintf(pool, "hash %s: never above 1.25 of the mean (at most %d of "
                                     "100)", arguments, most));
    for (int i = 0; i < 1000; i++)
        fixture_release(&uses[i], 1, FIXTURE_START);
}

static int key_follows(const char *arguments, const rproxy_request *one,
                       const rproxy_request *other)
{
    static int number;
    rp_balancer *balancer =
        fixture_pool(pool, apr_psprintf(pool, "key %d", number++), &rp_method_hash, arguments, 1000,
                     NULL);
    rproxy_use use;
    int first, second;

    fixture_start(pool, balancer);
    first = fixture_choose(balancer, &use, one, FIXTURE_START);
    fixture_release(&use, 1, FIXTURE_START);
    second = fixture_choose(balancer, &use, other, FIXTURE_START);
    fixture_release(&use, 1, FIXTURE_START);
    return first == second;
}

static void keys(void)
{
    rproxy_request one = fixture_request("/a"), other = fixture_request("/b");

    one.query = "x=1&id=7";
    other.query = "id=7&y=2";
    one.fields = "a=b; sid=42";
    other.fields = "sid=42; xsid=43";
    ok(key_follows("ip", &one, &other), "the key ip");
    ok(key_follows("arg:id", &one, &other), "the key arg:id, wherever it stands");
    ok(key_follows("cookie:sid", &one, &other), "the key cookie:sid");
    ok(!key_follows("path", &one, &other), "the key path");
    other.path = "/a";
    ok(key_follows("path", &one, &other), "is the path alone");
    ok(!key_follows("uri", &one, &other), "the key uri has the query");
    other.fields = "sid=43";
    ok(!key_follows("cookie:sid", &one, &other), "another cookie is another key");
    other.client_ip = "192.0.2.2";
    ok(!key_follows("ip", &one, &other), "so is another address");
}

int main(void)
{
    pool = tap_pool();
    shares("roundrobin", &rp_method_roundrobin, "");
    shares("leastconn", &rp_method_leastconn, "");
    shares("leasttime", &rp_method_leasttime, "");
    shares("random2", &rp_method_random2, "");
    shares("bytraffic", &rp_method_bytraffic, "");
    shares("hash", &rp_method_hash, "path");
    shares("hash", &rp_method_hash, "path maglev");
    smooth();
    odd_weights();
    one_by_one();
    slow_member();
    traffic();
    for (int gone = 0; gone < 10; gone += 3) {
        moved_keys("path", gone, 0);
        moved_keys("path maglev", gone, 3000);
    }
    bounded("path bounded=1.25");
    bounded("path bounded=1.25 maglev");
    keys();
    return tap_done();
}
