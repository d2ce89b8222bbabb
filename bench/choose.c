/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* How long the balancer takes to choose a member and to give it back: each method, without a
 * server. Built with "make bench/choose", since it links the balancer.
 *
 *   bench/choose [MEMBERS]         1000 if not said
 */
#include <stdio.h>
#include <time.h>
#include <apr_general.h>

#include "t/unit/balancer_fixture.h"

#define WARM_UP 20000
#define ROUND 20000
#define ROUNDS 15
#define HELD 200                        /* requests in flight meanwhile */

static const struct {
    const char *name;
    const rproxy_method *method;
    const char *arguments;
} methods[] = {
    { "roundrobin", &rp_method_roundrobin, "" },
    { "random2", &rp_method_random2, "" },
    { "hash ip", &rp_method_hash, "ip" },
    { "hash ip bounded=1.25", &rp_method_hash, "ip bounded=1.25" },
    { "hash ip maglev", &rp_method_hash, "ip maglev" },
    { "leastconn", &rp_method_leastconn, "" },
    { "leasttime", &rp_method_leasttime, "" },
    { "bytraffic", &rp_method_bytraffic, "" },
    { "first", &rp_method_first, "" },
};

/** Of CPU time: whatever else the machine does shows only in the caches. */
static double nanoseconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/** Nanoseconds for choosing, without giving back, which comes in between. */
static double run(rp_balancer *balancer, int count, apr_time_t *now)
{
    static rproxy_use uses[HELD];
    static rproxy_request requests[HELD];
    static char addresses[HELD][24];
    static apr_uint32_t address;
    double spent = 0;

    for (int i = 0; i < count; i += HELD) {
        double start;

        for (int j = 0; j < HELD; j++) {
            address = address * 1664525u + 1013904223u;
            snprintf(addresses[j], sizeof(addresses[j]), "10.%u.%u.%u", address >> 24,
                     address >> 16 & 255, address >> 8 & 255);
            requests[j] = fixture_request("/");
            requests[j].client_ip = addresses[j];
        }
        start = nanoseconds();
        for (int j = 0; j < HELD; j++)
            fixture_choose(balancer, &uses[j], &requests[j], *now);
        spent += nanoseconds() - start;
        *now += 1000;
        for (int j = 0; j < HELD; j++)
            fixture_release(&uses[j], 1000 + j, *now);
    }
    return spent / count;
}

static int ascending(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;

    return (difference > 0) - (difference < 0);
}

int main(int argc, char **argv)
{
    int members = argc > 1 ? atoi(argv[1]) : 1000;
    apr_pool_t *pool;
    int *weights;

    if (members < 1 || members > 10000) {
        fputs("usage: choose [MEMBERS]   (1 to 10000)\n", stderr);
        return 2;
    }
    apr_initialize();
    apr_pool_create(&pool, NULL);
    weights = apr_palloc(pool, (apr_size_t)members * sizeof(int));
    for (int i = 0; i < members; i++)
        weights[i] = 1 + i % 5;
    printf("%d members: ns for one choice, median of %d rounds (least, most); us to prepare\n",
           members, ROUNDS);
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        double rounds[ROUNDS], start = nanoseconds(), prepared;
        apr_time_t now = FIXTURE_START;
        rp_balancer *balancer = fixture_pool(pool, methods[i].name, methods[i].method,
                                             methods[i].arguments, members, weights);

        fixture_start(pool, balancer);
        prepared = nanoseconds() - start;
        run(balancer, WARM_UP, &now);
        for (int round = 0; round < ROUNDS; round++)
            rounds[round] = run(balancer, ROUND, &now);
        qsort(rounds, ROUNDS, sizeof(rounds[0]), ascending);
        printf("%-22s %7.0f  (%.0f, %.0f)  %.0f\n", methods[i].name, rounds[ROUNDS / 2], rounds[0],
               rounds[ROUNDS - 1], prepared / 1000);
    }
    apr_terminate();
    return 0;
}
