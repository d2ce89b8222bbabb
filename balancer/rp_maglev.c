/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Maglev's table (Eisenbud and others, NSDI 2016, section 3.4), with weights. */
#include <stdlib.h>

#include "balancer/rp_hash.h"
#include "balancer/rp_mix.h"

/* Entries. Were the size to change with each member that comes or goes, all keys would move. */
#define SIZE_USUAL 65537
#define SIZE_LARGE 655373
#define LARGE_COUNT 500                 /* members from which it is large */
#define LOOKS_MAX 32                    /* for a member that can be had */

struct rp_maglev {
    apr_uint32_t size;                  /* a prime number, for permutations to be complete */
    short *table;                       /* numbers of members */
};

_Static_assert(RP_SLOTS_MAX <= 32767, "numbers of members fit into short");

/** Where a member is in its own permutation of the table. */
typedef struct turn {
    apr_uint32_t at, skip;
    apr_int64_t credit;
} turn;

/** The next free entry of the member's permutation becomes its own. */
static void place(rp_maglev *maglev, turn *its, int number)
{
    while (maglev->table[its->at] >= 0)
        its->at = (its->at + its->skip) % maglev->size;
    maglev->table[its->at] = (short)number;
}

/** Members take entries in turn, as often as their weights say. */
static void fill(rp_maglev *maglev, turn *turns, const rproxy_member *members, int count)
{
    apr_uint32_t left = maglev->size;
    int heaviest = 0;

    if (left < 2)
        return;
    for (int i = 0; i < count; i++) {
        apr_uint64_t hash = members[i].weight ? rp_hash_text(members[i].name) : 0;

        turns[i].at = (apr_uint32_t)(hash % maglev->size);
        turns[i].skip = (apr_uint32_t)(rp_mix(hash) % (maglev->size - 1)) + 1;
        if (members[i].weight > heaviest)
            heaviest = members[i].weight;
    }
    while (left && heaviest) {
        for (int i = 0; i < count && left; i++) {
            turns[i].credit += members[i].weight;
            if (!members[i].weight || turns[i].credit < heaviest)
                continue;
            turns[i].credit -= heaviest;
            place(maglev, &turns[i], i);
            left--;
        }
    }
}

/** Those that have a number without a member don't count: the size must not depend on them. */
static apr_uint32_t size_for(const rproxy_member *members, int count)
{
    int there = 0;

    for (int i = 0; i < count; i++)
        there += members[i].weight != 0;
    return there < LARGE_COUNT ? SIZE_USUAL : SIZE_LARGE;
}

rp_maglev *rp_maglev_make(const rproxy_member *members, int count)
{
    rp_maglev *maglev = calloc(1, sizeof(*maglev));
    turn *turns = calloc((apr_size_t)count + 1, sizeof(*turns));
    apr_uint32_t size = size_for(members, count);

    if (maglev && turns && (maglev->table = malloc(size * sizeof(*maglev->table)))) {
        maglev->size = size;
        for (apr_uint32_t i = 0; i < size; i++)
            maglev->table[i] = -1;
        fill(maglev, turns, members, count);
    }
    else {
        free(maglev);
        maglev = NULL;
    }
    free(turns);
    return maglev;
}

void rp_maglev_free(rp_maglev *maglev)
{
    free(maglev->table);
    free(maglev);
}

int rp_maglev_find(const rp_maglev *maglev, apr_uint64_t key, rp_hash_takes *takes,
                   const void *baton)
{
    for (int look = 0; look < LOOKS_MAX; look++) {
        int number = maglev->table[rp_mix(key + (apr_uint64_t)look) % maglev->size];

        if (number >= 0 && takes(baton, number))
            return number;
    }
    return -1;
}
