/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Pools made by hand, for the tests of the balancer and its benchmark: no server, no sockets, the
 * shared memory is real. */
#ifndef BALANCER_FIXTURE_H
#define BALANCER_FIXTURE_H

#include <stdlib.h>
#include <string.h>
#include <apr_strings.h>

#include "balancer/rp_entry.h"

#define FIXTURE_START (1000 * APR_USEC_PER_SEC)

static inline apr_array_header_t *fixture_words(apr_pool_t *pool, const char *arguments)
{
    apr_array_header_t *words = apr_array_make(pool, 4, sizeof(const char *));
    char *state, *word = apr_strtok(apr_pstrdup(pool, arguments), " ", &state);

    for (; word; word = apr_strtok(NULL, " ", &state))
        APR_ARRAY_PUSH(words, const char *) = word;
    return words;
}

/** A pool with count members that are up: weights as given, then 1. */
static inline rp_balancer *fixture_pool(apr_pool_t *pool, const char *name,
                                        const rproxy_method *method, const char *arguments,
                                        int count, const int *weights)
{
    rp_balancer *balancer = apr_pcalloc(pool, sizeof(*balancer));
    const char *message = NULL;

    balancer->name = name;
    balancer->method = method;
    balancer->method_name = "mine";
    balancer->outlier = rp_outlier_default;
    balancer->parsed_members = apr_array_make(pool, count, sizeof(rproxy_member));
    balancer->parsed_more = apr_array_make(pool, count, sizeof(rp_member));
    for (int i = 0; i < count; i++) {
        rproxy_member *member = apr_array_push(balancer->parsed_members);
        rp_member *more = apr_array_push(balancer->parsed_more);

        member->name = apr_psprintf(pool, "http://10.0.%d.%d:8080", i / 250, i % 250);
        member->weight = weights ? weights[i] : 1;
        more->url = member->name;
        more->target = (rproxy_target *)more;
    }
    balancer->members = (rproxy_member *)balancer->parsed_members->elts;
    balancer->more = (rp_member *)balancer->parsed_more->elts;
    balancer->count = count;
    if (method->configure)
        message = method->configure(pool, fixture_words(pool, arguments),
                                    &balancer->method_config);
    if (message) {
        printf("Bail out! %s\n", message);
        exit(1);
    }
    return balancer;
}

/** As a server that starts or is restarted: slots for the pool. */
static inline void fixture_start(apr_pool_t *pool, rp_balancer *balancer)
{
    if (rp_roster_open(pool) != APR_SUCCESS || rp_shared_open(pool, pool, 16) != APR_SUCCESS
        || !rp_balancer_claim(pool, balancer, 0)
        || !rp_shared_enter()) {
        puts("Bail out! no shared memory");
        exit(1);
    }
    rp_views_create(pool, balancer, FIXTURE_START);
}

/** Values of members were changed after the start. */
static inline void fixture_changed(rp_balancer *balancer)
{
    rp_roster_changed(balancer);
}

static inline rproxy_member *fixture_member(const rp_balancer *balancer, int number)
{
    return &APR_ARRAY_IDX(balancer->parsed_members, number, rproxy_member);
}

/* ---- requests -------------------------------------------------------------------------------- */

static inline const char *fixture_header(const rproxy_request *request, const char *name)
{
    return !strcmp(name, "Cookie") ? request->fields : NULL;
}

static inline rproxy_request fixture_request(const char *path)
{
    return (rproxy_request){ .method = "GET", .host = "www.example", .path = path,
                             .client_ip = "192.0.2.1", .header = fixture_header };
}

/** The number of the member that the request got, -1: none. */
static inline int fixture_choose(rp_balancer *balancer, rproxy_use *use,
                                 const rproxy_request *request, apr_time_t now)
{
    rproxy_target *target;

    *use = (rproxy_use){ .pool = balancer, .request = request };
    return rp_balancer_choose(use, now, &target) == RPROXY_CHOSEN ? use->member : -1;
}

static inline void fixture_release(rproxy_use *use, apr_interval_time_t time, apr_time_t now)
{
    rproxy_result result = { .status = 200, .connect = 0, .first_byte = time, .total = time,
                             .received = 1000 };

    rp_balancer_release(use, &result, now);
}

static inline void fixture_fail(rproxy_use *use, apr_time_t now)
{
    rproxy_result result = { .failed = 1, .connect = -1, .first_byte = -1, .total = 100 };

    rp_balancer_release(use, &result, now);
}

#endif
