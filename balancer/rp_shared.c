/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include <apr_hash.h>
#include <apr_shm.h>

#include "balancer/rp_shared.h"

#define KEY "rproxy-balancer-memory-1"
#define ROWS_SPARE 64                   /* children that aren't the MPM's, and those just gone */
#define LOOKS_MAX 1000                  /* for a moment in which no child changes anything */
#define BEING_SETTLED (-1)

/** A child's part of the counts. */
typedef struct row {
    _Alignas(64) atomic_int pid;        /* 0: free */
    atomic_uint generation;
    atomic_ullong begun, ended;         /* changes; different: one is under way */
    _Alignas(64) atomic_int counts[RP_SLOTS_MAX];
} row;

typedef struct memory {
    atomic_int slots_used;              /* all behind have never been used */
    apr_uint32_t generation;            /* of the last configuration */
    int row_count;
    int is_unsettled;                   /* the parent's: totals may be off */
    rp_slot slots[RP_SLOTS_MAX];
    /* Mostly never touched, thus never there. */
    row rows[];
} memory;

static memory *shared;
static row *mine;
static apr_hash_t *by_identity;         /* from open to the last claim */
static apr_uint32_t generation;
static int is_fresh;

/* ---- the parent ------------------------------------------------------------------------------ */

static apr_status_t create(apr_pool_t *process_pool, int rows)
{
    apr_size_t size = sizeof(memory) + (apr_size_t)rows * sizeof(row);
    apr_shm_t *shm;
    apr_status_t rv = apr_shm_create(&shm, size + 64, NULL, process_pool);

    if (rv != APR_SUCCESS)
        return rv;
    shared = (memory *)(((apr_uintptr_t)apr_shm_baseaddr_get(shm) + 63) & ~(apr_uintptr_t)63);
    shared->row_count = rows;
    /* The module is loaded anew for each configuration: only the pool remembers. */
    return apr_pool_userdata_set(shared, KEY, NULL, process_pool);
}

static void settle(row *r)
{
    int used = atomic_load(&shared->slots_used);
    int is_exact = atomic_load(&r->begun) == atomic_load(&r->ended);

    for (int i = 0; i < used; i++) {
        /* Look first: a page that was never written need not come into being. */
        int count = atomic_load(&r->counts[i]);

        if (count && is_exact)
            atomic_fetch_sub(&shared->slots[i].shared.in_flight, count);
        if (count)
            atomic_store(&r->counts[i], 0);
    }
    atomic_store(&r->ended, atomic_load(&r->begun));
    atomic_store(&r->pid, 0);
    if (!is_exact)
        shared->is_unsettled = 1;
}

/** A configuration without pools, or without this module, does not hear of children that end. */
static void settle_dead(void)
{
    for (int i = 0; i < shared->row_count; i++) {
        int pid = atomic_load(&shared->rows[i].pid);

        if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH)
            settle(&shared->rows[i]);
    }
}

apr_status_t rp_shared_open(apr_pool_t *process_pool, apr_pool_t *temp_pool, int max_children)
{
    void *found = NULL;
    apr_status_t rv = APR_SUCCESS;

    apr_pool_userdata_get(&found, KEY, process_pool);
    shared = found;
    is_fresh = !found;
    if (!found && (rv = create(process_pool, max_children + ROWS_SPARE)) != APR_SUCCESS) {
        shared = NULL;
        return rv;
    }
    settle_dead();
    generation = ++shared->generation;
    by_identity = apr_hash_make(temp_pool);
    for (int i = 0; i < atomic_load(&shared->slots_used); i++) {
        rp_slot *slot = &shared->slots[i];

        apr_hash_set(by_identity, slot->identity, RP_IDENTITY_BYTES, slot);
    }
    mine = NULL;
    return rv;
}

int rp_shared_is_fresh(void)
{
    return is_fresh;
}

static apr_uint32_t oldest_generation(void)
{
    apr_uint32_t oldest = generation;

    for (int i = 0; i < shared->row_count; i++) {
        const row *r = &shared->rows[i];
        apr_uint32_t its = atomic_load(&r->generation);

        if (atomic_load(&r->pid) != 0 && its < oldest)
            oldest = its;
    }
    return oldest;
}

/** A slot that nobody uses any more: not the children of the last configurations, of which one may
 * have no row yet. */
static rp_slot *free_slot(void)
{
    int used = atomic_load(&shared->slots_used);
    apr_uint32_t oldest;

    if (used < RP_SLOTS_MAX) {
        atomic_store(&shared->slots_used, used + 1);
        return &shared->slots[used];
    }
    oldest = oldest_generation();
    for (int i = 0; i < used; i++) {
        rp_slot *slot = &shared->slots[i];

        if (slot->generation < oldest && slot->generation + 1 < generation
            && atomic_load(&slot->shared.in_flight) == 0)
            return slot;
    }
    return NULL;
}

rp_slot *rp_shared_claim(const unsigned char *identity, int *is_new)
{
    rp_slot *slot = apr_hash_get(by_identity, identity, RP_IDENTITY_BYTES);

    *is_new = !slot;
    if (!slot) {
        if (!(slot = free_slot()))
            return NULL;
        if (slot->generation)
            apr_hash_set(by_identity, slot->identity, RP_IDENTITY_BYTES, NULL);
        memset(slot, 0, sizeof(*slot));
        memcpy(slot->identity, identity, RP_IDENTITY_BYTES);
        apr_hash_set(by_identity, slot->identity, RP_IDENTITY_BYTES, slot);
    }
    slot->generation = generation;
    return slot;
}

void rp_slot_reset_method(rp_slot *slot)
{
    for (int i = 0; i < RPROXY_METHOD_WORDS; i++)
        atomic_store(&slot->shared.method[i], 0);
}

/* ---- children that are gone ------------------------------------------------------------------ */

/** How many changes have begun, if none of them is under way; else 0. Changes count from 1. */
static unsigned long long quiet(void)
{
    unsigned long long begun = 1, ended = 1;

    /* Those that have ended first: what ends meanwhile doesn't hide one that is under way. */
    for (int i = 0; i < shared->row_count; i++)
        ended += atomic_load(&shared->rows[i].ended);
    for (int i = 0; i < shared->row_count; i++)
        begun += atomic_load(&shared->rows[i].begun);
    return begun == ended ? begun : 0;
}

/** Makes a total what its rows sum up to. The difference stays the same whatever living children do
 * between two changes, so one quiet moment is enough. */
static int compare(int slot)
{
    for (int look = 0; look < LOOKS_MAX; look++) {
        unsigned long long before = quiet();
        int total, sum = 0;

        if (!before)
            continue;
        total = atomic_load(&shared->slots[slot].shared.in_flight);
        for (int i = 0; i < shared->row_count; i++) {
            if (atomic_load(&shared->rows[i].begun))
                sum += atomic_load(&shared->rows[i].counts[slot]);
        }
        if (quiet() == before) {
            atomic_fetch_sub(&shared->slots[slot].shared.in_flight, total - sum);
            return 1;
        }
    }
    return 0;
}

void rp_shared_settle_rest(void)
{
    int used = shared && shared->is_unsettled ? atomic_load(&shared->slots_used) : 0;

    if (used)
        shared->is_unsettled = 0;
    for (int i = 0; i < used; i++) {
        if (!compare(i)) {
            shared->is_unsettled = 1;
            return;
        }
    }
}

void rp_shared_settle(int pid)
{
    for (int i = 0; shared && i < shared->row_count; i++) {
        int expected = pid;

        if (atomic_compare_exchange_strong(&shared->rows[i].pid, &expected, BEING_SETTLED)) {
            settle(&shared->rows[i]);
            break;
        }
    }
    rp_shared_settle_rest();
}

/* ---- a child --------------------------------------------------------------------------------- */

int rp_shared_has_row(void)
{
    return mine != NULL;
}

int rp_shared_enter(void)
{
    int self = (int)getpid();

    mine = NULL;
    for (int i = 0; shared && !mine && i < shared->row_count; i++) {
        int pid = atomic_load(&shared->rows[i].pid);

        /* One process that serves by itself, after a restart of its configuration. */
        if (pid == self)
            mine = &shared->rows[i];
    }
    for (int i = 0; shared && !mine && i < shared->row_count; i++) {
        int expected = 0;

        if (atomic_compare_exchange_strong(&shared->rows[i].pid, &expected, self))
            mine = &shared->rows[i];
    }
    if (mine)
        atomic_store(&mine->generation, generation);
    return mine != NULL;
}

static void count(rp_slot *slot, int change)
{
    atomic_fetch_add_explicit(&mine->counts[slot - shared->slots], change, memory_order_relaxed);
}

int rp_shared_take(rp_slot *slot, int limit)
{
    atomic_int *in_flight = &slot->shared.in_flight;
    int now;

    if (limit && atomic_load_explicit(in_flight, memory_order_relaxed) >= limit)
        return 0;
    atomic_fetch_add(&mine->begun, 1);
    if (!limit)
        atomic_fetch_add(in_flight, 1);
    else {
        /* Not add, look and undo: someone else would find it full in between. */
        now = atomic_load(in_flight);
        do {
            if (now >= limit) {
                atomic_fetch_add(&mine->ended, 1);
                return 0;
            }
        } while (!atomic_compare_exchange_weak(in_flight, &now, now + 1));
    }
    count(slot, 1);
    atomic_fetch_add(&mine->ended, 1);
    return 1;
}

void rp_shared_give_back(rp_slot *slot)
{
    atomic_fetch_add(&mine->begun, 1);
    atomic_fetch_sub(&slot->shared.in_flight, 1);
    count(slot, -1);
    atomic_fetch_add(&mine->ended, 1);
}
