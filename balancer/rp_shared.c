/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <apr_hash.h>
#include <apr_shm.h>
#include <apr_strings.h>

#include "balancer/rp_shared.h"
#include "balancer/rp_waiters.h"

#define KEY "rproxy-balancer-memory-2-%u-%u"    /* with the sizes of what is in it */
#define ROWS_SPARE 64                   /* children that aren't the MPM's, and those just gone */
#define LOOKS_MAX 1000                  /* for a moment in which no child changes anything */
#define BEING_SETTLED (-1)

/** A child's part of the counts. */
typedef struct row {
    _Alignas(64) atomic_int pid;        /* 0: free */
    atomic_uint generation;
    atomic_ullong begun, ended;         /* changes; different: one is under way */
    int has_semaphore;                  /* the last child that had the row made it */
    sem_t called;                       /* posted when requests of the child are to be woken */
    _Alignas(64) atomic_int counts[RP_SLOTS_MAX];
} row;

typedef struct memory {
    atomic_int slots_used;              /* all behind have never been used */
    atomic_uint generation;             /* of the last configuration */
    atomic_ullong lease;                /* who leads */
    int row_count;
    int is_unsettled;                   /* the parent's: totals may be off */
    unsigned long long incarnations;    /* the last one; under the roster's lock */
    int retired;                        /* slots; under the same */
    rp_slot slots[RP_SLOTS_MAX];
    rp_slot *queue_slots[RP_QUEUES_MAX];    /* the parent's: whose lines they are, or were */
    /* Mostly never touched, thus never there. */
    rp_queue queues[RP_QUEUES_MAX];
    row rows[];
} memory;

static memory *shared;
static row *mine;
static apr_hash_t *by_identity;         /* from open to the last claim */
static apr_uint32_t generation;
static int is_fresh;

/* ---- the parent ------------------------------------------------------------------------------ */

/** A module of another version, after a restart, must not find this memory. */
static const char *key(apr_pool_t *pool)
{
    return apr_psprintf(pool, KEY, (unsigned int)sizeof(rp_slot), (unsigned int)sizeof(memory));
}

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
    return apr_pool_userdata_set(shared, key(process_pool), NULL, process_pool);
}

/** There may be room: those in line look, wherever they are. */
static void call_all(void)
{
    for (int i = 0; i < RP_QUEUES_MAX && shared->queue_slots[i]; i++)
        rp_shared_call(&shared->queues[i], 0, 0);
}

static void settle(row *r)
{
    int used = atomic_load(&shared->slots_used);
    int is_exact = atomic_load(&r->begun) == atomic_load(&r->ended);

    for (int i = 0; i < RP_QUEUES_MAX && shared->queue_slots[i]; i++)
        rp_queue_drop_row(&shared->queues[i], (int)(r - shared->rows));
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
    call_all();
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

    apr_pool_userdata_get(&found, key(temp_pool), process_pool);
    shared = found;
    is_fresh = !found;
    if (!found && (rv = create(process_pool, max_children + ROWS_SPARE)) != APR_SUCCESS) {
        shared = NULL;
        return rv;
    }
    settle_dead();
    generation = atomic_fetch_add(&shared->generation, 1) + 1;
    by_identity = apr_hash_make(temp_pool);
    for (int i = 0; i < atomic_load(&shared->slots_used); i++) {
        rp_slot *slot = &shared->slots[i];

        if (slot->generation)
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

/** Nonzero if nobody uses the slot any more: not the children of the last configurations, of which
 * one may have no row yet. */
static int is_unused(const rp_slot *slot, apr_uint32_t oldest)
{
    return slot->generation < oldest && slot->generation + 1 < shared->generation
        && atomic_load(&slot->shared.in_flight) == 0;
}

/** One that was retired may be in the tables of children, but not for long, and they see that it
 * isn't what they meant. */
static rp_slot *free_slot(void)
{
    int used = atomic_load(&shared->slots_used);
    apr_uint32_t oldest;

    for (int i = 0; shared->retired && i < used; i++) {
        rp_slot *slot = &shared->slots[i];

        if (!slot->generation && atomic_load(&slot->shared.in_flight) == 0) {
            shared->retired--;
            return slot;
        }
    }
    if (used < RP_SLOTS_MAX) {
        atomic_store(&shared->slots_used, used + 1);
        return &shared->slots[used];
    }
    oldest = oldest_generation();
    for (int i = 0; i < used; i++) {
        rp_slot *slot = &shared->slots[i];

        if (is_unused(slot, oldest))
            return slot;
    }
    return NULL;
}

/** As new; the requests in flight stay, for somebody may just take a place to see that it is the
 * wrong one, and give it back. */
static void begin_slot(rp_slot *slot, const unsigned char *identity)
{
    const apr_size_t kept = offsetof(rp_slot, shared.method);

    atomic_store(&slot->incarnation, 0);
    memset((char *)slot + kept, 0, sizeof(*slot) - kept);
    memcpy(slot->identity, identity, RP_IDENTITY_BYTES);
    atomic_store(&slot->roster_version, 1);
    atomic_store(&slot->incarnation, ++shared->incarnations);
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
        begin_slot(slot, identity);
        apr_hash_set(by_identity, slot->identity, RP_IDENTITY_BYTES, slot);
    }
    slot->generation = generation;
    return slot;
}

rp_queue *rp_shared_claim_queue(rp_slot *slot)
{
    if (slot->queue)
        return &shared->queues[slot->queue - 1];
    for (int i = 0; i < RP_QUEUES_MAX; i++) {
        rp_slot *before = shared->queue_slots[i];

        if (!before)
            rp_queue_init(&shared->queues[i]);
        /* A slot that is somebody else's now has forgotten its line. */
        else if (before->queue == i + 1 && !is_unused(before, oldest_generation()))
            continue;
        else if (before->queue == i + 1)
            before->queue = 0;
        shared->queue_slots[i] = slot;
        slot->queue = i + 1;
        return &shared->queues[i];
    }
    return NULL;
}

rp_slot *rp_shared_claim_late(const unsigned char *identity, int *is_new)
{
    int used = atomic_load(&shared->slots_used);
    rp_slot *slot = NULL;

    for (int i = 0; i < used && !slot; i++) {
        if (shared->slots[i].generation
            && !memcmp(shared->slots[i].identity, identity, RP_IDENTITY_BYTES))
            slot = &shared->slots[i];
    }
    *is_new = !slot;
    if (!slot) {
        if (!(slot = free_slot()))
            return NULL;
        begin_slot(slot, identity);
    }
    slot->generation = shared->generation;
    return slot;
}

void rp_shared_renew(rp_slot *slot)
{
    slot->generation = shared->generation;
}

void rp_shared_retire(rp_slot *slot)
{
    atomic_store(&slot->incarnation, 0);
    slot->generation = 0;
    shared->retired++;
}

int rp_slot_number(const rp_slot *slot)
{
    return (int)(slot - shared->slots);
}

rp_slot *rp_slot_at(int number)
{
    return &shared->slots[number];
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
    if (used)
        call_all();
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

apr_uint32_t rp_shared_generation(void)
{
    return generation;
}

int rp_shared_is_newest(void)
{
    return shared && atomic_load(&shared->generation) == generation;
}

atomic_ullong *rp_shared_lease(void)
{
    return shared ? &shared->lease : NULL;
}

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
    if (!mine)
        return 0;
    if (!mine->has_semaphore)
        mine->has_semaphore = sem_init(&mine->called, 1, 0) == 0;
    atomic_store(&mine->generation, generation);
    return 1;
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

/* ---- lines ----------------------------------------------------------------------------------- */

int rp_shared_row(void)
{
    return mine ? (int)(mine - shared->rows) : -1;
}

void rp_shared_wake(rp_queue_owner owner)
{
    if (owner.row == rp_shared_row())
        rp_waiter_wake(owner.waiter);
    else
        sem_post(&shared->rows[owner.row].called);
}

void rp_shared_call(rp_queue *queue, rp_ticket from, int again)
{
    rp_queue_owner owner;

    if (rp_queue_call(queue, from, again, &owner))
        rp_shared_wake(owner);
}

void rp_shared_wake_thread(void)
{
    sem_post(&mine->called);
}

void rp_shared_wait(apr_interval_time_t time)
{
    apr_time_t until = apr_time_now() + time;
    struct timespec limit = { .tv_sec = (time_t)apr_time_sec(until),
                              .tv_nsec = (long)apr_time_usec(until) * 1000 };

    /* An interruption only makes the next look earlier. */
    if (time)
        sem_timedwait(&mine->called, &limit);
    else
        sem_wait(&mine->called);
    while (sem_trywait(&mine->called) == 0)
        continue;
}
