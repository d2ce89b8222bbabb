/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Each session has the four places of one cache line. A place is two words that others may write at
 * the same moment: the first is the session's key XORed with the second, so that halves of two
 * entries match no key. */
#include <stdatomic.h>
#include <string.h>
#include <apr_shm.h>
#include <apr_siphash.h>
#include <openssl/rand.h>

#include "balancer/rp_learned.h"

#define MEMORY "rproxy-balancer-learned-1"
#define PLACES 4
#define LINES (RP_LEARNED_MAX / PLACES)

/* The second word: the member's id, and when the entry was last used, in units of 16 s. */
#define TIME_BITS 24
#define TIME_MASK ((1u << TIME_BITS) - 1)
#define TIME_UNIT 16

_Static_assert((LINES & (LINES - 1)) == 0, "a line is chosen by bits of the key");

typedef struct place {
    atomic_ullong check;                /* key ^ data */
    atomic_ullong data;                 /* 0: free */
} place;

typedef struct table {
    unsigned char secret[APR_SIPHASH_KSIZE];
    _Alignas(64) place lines[LINES][PLACES];
} table;

static table *learned;

apr_status_t rp_learned_open(apr_pool_t *process_pool)
{
    void *found = NULL;
    apr_shm_t *shm;
    apr_status_t rv;

    apr_pool_userdata_get(&found, MEMORY, process_pool);
    learned = found;
    if (found)
        return APR_SUCCESS;
    if ((rv = apr_shm_create(&shm, sizeof(table) + 64, NULL, process_pool)) != APR_SUCCESS)
        return rv;
    learned = (table *)(((apr_uintptr_t)apr_shm_baseaddr_get(shm) + 63) & ~(apr_uintptr_t)63);
    if (RAND_bytes(learned->secret, sizeof(learned->secret)) != 1)
        return APR_EGENERAL;
    return apr_pool_userdata_set(learned, MEMORY, NULL, process_pool);
}

apr_uint64_t rp_learned_key(const char *pool_name, rp_span value)
{
    /* Twice, so that nothing has to be copied: the name's hash takes part in the value's. */
    unsigned char secret[APR_SIPHASH_KSIZE];
    apr_uint64_t name = apr_siphash24(pool_name, strlen(pool_name), learned->secret), key;

    memcpy(secret, learned->secret, sizeof(secret));
    for (apr_size_t i = 0; i < sizeof(name); i++)
        secret[i] ^= (unsigned char)(name >> (8 * i));
    key = apr_siphash24(value.at, value.len, secret);
    return key ? key : 1;
}

static place *line_of(apr_uint64_t key)
{
    return learned->lines[key & (LINES - 1)];
}

static apr_uint64_t data_of(apr_uint64_t id, apr_time_t now)
{
    apr_uint64_t time = (apr_uint64_t)apr_time_sec(now) / TIME_UNIT & TIME_MASK;

    return (id & ~(apr_uint64_t)TIME_MASK) | time;
}

static void write_place(place *at, apr_uint64_t key, apr_uint64_t data)
{
    atomic_store_explicit(&at->data, data, memory_order_relaxed);
    atomic_store_explicit(&at->check, key ^ data, memory_order_relaxed);
}

static apr_uint64_t read_place(place *at, apr_uint64_t key)
{
    apr_uint64_t data = atomic_load_explicit(&at->data, memory_order_relaxed);

    return (atomic_load_explicit(&at->check, memory_order_relaxed) ^ data) == key ? data : 0;
}

int rp_learned_find(apr_uint64_t key, apr_time_t now, apr_uint64_t *id)
{
    place *line = line_of(key);

    for (int i = 0; i < PLACES; i++) {
        apr_uint64_t data = read_place(&line[i], key);

        if (!data)
            continue;
        *id = data & ~(apr_uint64_t)TIME_MASK;
        if (data_of(*id, now) != data)
            write_place(&line[i], key, data_of(*id, now));
        return 1;
    }
    return 0;
}

void rp_learned_put(apr_uint64_t key, apr_uint64_t id, apr_time_t now)
{
    place *line = line_of(key), *best = line;
    apr_uint64_t time = data_of(0, now), oldest = 0;

    for (int i = 0; i < PLACES; i++) {
        apr_uint64_t data = atomic_load_explicit(&line[i].data, memory_order_relaxed);
        apr_uint64_t age = data ? ((time - data) & TIME_MASK) + 1 : TIME_MASK + 2ull;

        if (read_place(&line[i], key)) {
            best = &line[i];
            break;
        }
        if (age > oldest) {
            oldest = age;
            best = &line[i];
        }
    }
    write_place(best, key, data_of(id, now));
}

int rp_learned_is_same(apr_uint64_t id, apr_uint64_t other)
{
    return ((id ^ other) & ~(apr_uint64_t)TIME_MASK) == 0;
}
