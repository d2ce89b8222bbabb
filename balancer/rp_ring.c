/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The ring. A key has several places on it and belongs to the point that is nearest to any of them:
 * that evens out the gaps between points (multi-probe consistent hashing, Appleton and O'Reilly
 * 2015), so that fewer points do. */
#include <stdlib.h>

#include "balancer/rp_hash.h"
#include "balancer/rp_mix.h"

#define POINTS_PER_WEIGHT 512
#define POINTS_MAX (1 << 18)
#define PLACES 4
#define STEPS_MAX 64                    /* points looked at from one place */
#define DIGIT_BITS 11                   /* three of these for 32 bits */
#define DIGIT_MASK ((1u << DIGIT_BITS) - 1)

typedef struct point {
    apr_uint32_t at;
    int number;
} point;

struct rp_ring {
    apr_uint32_t count;
    int shift;                          /* a place shifted by it is an index of starts */
    apr_uint32_t *starts;               /* first point at or behind that many shares of the ring */
    point *points;
};

/** Points of a member: depends on as little as possible of the others, for when these come and go
 * its own must stay. */
static apr_uint32_t points_of(const rproxy_member *member, int halvings)
{
    apr_uint32_t points = ((apr_uint32_t)member->weight * POINTS_PER_WEIGHT) >> halvings;

    return points || !member->weight ? points : 1;
}

static void add_points(rp_ring *ring, const rproxy_member *member, int number, int halvings)
{
    apr_uint64_t seed = member->weight ? rp_hash_text(member->name) : 0;

    for (apr_uint32_t i = points_of(member, halvings); i; i--)
        ring->points[ring->count++] =
            (point){ (apr_uint32_t)(rp_mix(seed + i) >> 32), number };
}

/** Copies points in the order of these DIGIT_BITS of their places; equal ones keep theirs. */
static void sort_by_digit(const point *from, point *to, apr_uint32_t count, int shift)
{
    apr_uint32_t next[1 << DIGIT_BITS] = { 0 }, sum = 0;

    for (apr_uint32_t i = 0; i < count; i++)
        next[from[i].at >> shift & DIGIT_MASK]++;
    for (apr_uint32_t digit = 0; digit <= DIGIT_MASK; digit++) {
        apr_uint32_t those = next[digit];

        next[digit] = sum;
        sum += those;
    }
    for (apr_uint32_t i = 0; i < count; i++)
        to[next[from[i].at >> shift & DIGIT_MASK]++] = from[i];
}

/** By place; of points in one place that of the lower number comes first, as they were added. A
 * request waits for it, and qsort() takes several times as long. */
static int sort_points(rp_ring *ring)
{
    point *spare = malloc(((apr_size_t)ring->count + 1) * sizeof(*spare));

    if (!spare)
        return 0;
    for (int shift = 0; shift < 32; shift += DIGIT_BITS) {
        point *unsorted = ring->points;

        sort_by_digit(unsorted, spare, ring->count, shift);
        ring->points = spare;
        spare = unsorted;
    }
    free(spare);
    return 1;
}

/** Where each share of the ring begins, for points that are in order. */
static int index_points(rp_ring *ring)
{
    apr_uint32_t next = 0;
    int bits = 1;

    while (1u << bits < ring->count)
        bits++;
    ring->shift = 32 - bits;
    ring->starts = malloc(sizeof(*ring->starts) << bits);
    for (apr_uint32_t i = 0; ring->starts && i < 1u << bits; i++) {
        while (next < ring->count && ring->points[next].at < i << ring->shift)
            next++;
        ring->starts[i] = next;
    }
    return ring->starts != NULL;
}

rp_ring *rp_ring_make(const rproxy_member *members, int count)
{
    rp_ring *ring = calloc(1, sizeof(*ring));
    apr_uint64_t total = 0;
    int halvings = 0;

    if (!ring)
        return NULL;
    for (int i = 0; i < count; i++)
        total += (apr_uint64_t)members[i].weight * POINTS_PER_WEIGHT;
    while (total >> halvings > POINTS_MAX)
        halvings++;
    total = 0;
    for (int i = 0; i < count; i++)
        total += points_of(&members[i], halvings);
    /* One more, for pools without members. */
    ring->points = calloc(total + 1, sizeof(*ring->points));
    for (int i = 0; ring->points && i < count; i++)
        add_points(ring, &members[i], i, halvings);
    if (ring->points && sort_points(ring) && index_points(ring))
        return ring;
    rp_ring_free(ring);
    return NULL;
}

void rp_ring_free(rp_ring *ring)
{
    free(ring->starts);
    free(ring->points);
    free(ring);
}

/** The first point at or behind a place; count stands for the first one of all. */
static apr_uint32_t point_behind(const rp_ring *ring, apr_uint32_t at)
{
    apr_uint32_t i = ring->starts[at >> ring->shift];

    while (i < ring->count && ring->points[i].at < at)
        i++;
    return i;
}

/** One of a key's places. */
typedef struct place {
    apr_uint32_t at;
    apr_uint32_t point;                 /* the first one behind it */
    apr_uint32_t distance;              /* to that */
} place;

static const point *point_at(const rp_ring *ring, apr_uint32_t i)
{
    return &ring->points[i < ring->count ? i : i - ring->count];
}

/** The key's places, the one with the nearest point first. */
static void find_places(const rp_ring *ring, apr_uint64_t key, place *places)
{
    /* One after the other, so that memory is asked for all at once. */
    for (int i = 0; i < PLACES; i++) {
        places[i].at = (apr_uint32_t)(rp_mix(key + (apr_uint64_t)i) >> 32);
        __builtin_prefetch(&ring->starts[places[i].at >> ring->shift]);
    }
    for (int i = 0; i < PLACES; i++)
        __builtin_prefetch(&ring->points[ring->starts[places[i].at >> ring->shift]]);
    for (int i = 0; i < PLACES; i++) {
        place made = { .at = places[i].at, .point = point_behind(ring, places[i].at) };
        int j = i;

        made.distance = point_at(ring, made.point)->at - made.at;
        for (; j && made.distance < places[j - 1].distance; j--)
            places[j] = places[j - 1];
        places[j] = made;
    }
}

int rp_ring_find(const rp_ring *ring, apr_uint64_t key, rp_hash_takes *takes, const void *baton)
{
    apr_uint32_t nearest = 0;
    place places[PLACES];
    int found = -1;

    find_places(ring, key, places);
    for (int i = 0; i < PLACES; i++) {
        apr_uint32_t steps = ring->count < STEPS_MAX ? ring->count : STEPS_MAX;

        for (apr_uint32_t step = 0; step < steps; step++) {
            const point *next = point_at(ring, places[i].point + step);
            apr_uint32_t distance = next->at - places[i].at;

            if (found >= 0 && distance >= nearest)
                break;
            if (takes(baton, next->number)) {
                nearest = distance;
                found = next->number;
                break;
            }
        }
    }
    return found;
}
