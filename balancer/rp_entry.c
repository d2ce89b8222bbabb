/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A process may be killed while it has the lock. So whatever is done here is done in steps after
 * each of which others can go on: an entry is complete before it is linked, and unlinked by one
 * store; texts end within their memory at any time. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <apr_shm.h>
#include <apr_strings.h>

#include "balancer/rp_entry.h"

#define KEY "rproxy-balancer-roster-2"

typedef struct memory {
    pthread_mutex_t lock;
    apr_uint64_t journal_count;         /* entries ever written */
    rp_journal_entry journal[RP_JOURNAL_ENTRIES];
    /* Mostly never touched, thus never there. */
    rp_entry entries[RP_SLOTS_MAX];
} memory;

static memory *roster;

static apr_status_t create(apr_pool_t *process_pool)
{
    pthread_mutexattr_t attributes;
    apr_shm_t *shm;
    apr_status_t rv = apr_shm_create(&shm, sizeof(memory), NULL, process_pool);
    int error;

    if (rv != APR_SUCCESS)
        return rv;
    roster = apr_shm_baseaddr_get(shm);
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    error = pthread_mutex_init(&roster->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return error ? (apr_status_t)error : apr_pool_userdata_set(roster, KEY, NULL, process_pool);
}

apr_status_t rp_roster_open(apr_pool_t *process_pool)
{
    void *found = NULL;

    apr_pool_userdata_get(&found, KEY, process_pool);
    roster = found;
    return found ? APR_SUCCESS : create(process_pool);
}

/* ---- the lock -------------------------------------------------------------------------------- */

/** Nonzero: the lock is ours. */
static int is_ours(int error)
{
    if (error == EOWNERDEAD)
        error = pthread_mutex_consistent(&roster->lock);
    return !error;
}

void rp_roster_lock(void)
{
    /* No other error is possible: it is never destroyed, and nobody locks it twice. */
    ap_assert(is_ours(pthread_mutex_lock(&roster->lock)));
}

int rp_roster_try_lock(void)
{
    return is_ours(pthread_mutex_trylock(&roster->lock));
}

void rp_roster_unlock(void)
{
    pthread_mutex_unlock(&roster->lock);
}

/* ---- entries --------------------------------------------------------------------------------- */

rp_entry *rp_entry_of(const rp_slot *slot)
{
    return &roster->entries[rp_slot_number(slot)];
}

rp_slot *rp_entry_slot(const rp_entry *entry)
{
    return rp_slot_at((int)(entry - roster->entries));
}

static rp_entry *at(int link)
{
    return link ? &roster->entries[link - 1] : NULL;
}

rp_entry *rp_entry_first(const rp_slot *pool)
{
    return at(atomic_load(&pool->first_entry));
}

rp_entry *rp_entry_next(const rp_entry *entry)
{
    return at(entry->next);
}

rp_entry *rp_entry_put(const rp_slot *pool, const rp_slot *slot, const rp_entry *made)
{
    rp_entry *entry = rp_entry_of(slot);
    rp_slot *its_pool = rp_slot_at(rp_slot_number(pool));

    *entry = *made;
    entry->is_used = 1;
    entry->pool = rp_slot_number(pool);
    entry->next = atomic_load(&pool->first_entry);
    atomic_store(&its_pool->first_entry, rp_slot_number(slot) + 1);
    return entry;
}

void rp_entry_drop(const rp_slot *slot)
{
    rp_entry *entry = rp_entry_of(slot);
    rp_slot *pool = rp_slot_at(entry->pool);
    int link = rp_slot_number(slot) + 1;

    if (!entry->is_used)
        return;
    if (atomic_load(&pool->first_entry) == link)
        atomic_store(&pool->first_entry, entry->next);
    else {
        rp_entry *before = rp_entry_first(pool);

        while (before && before->next != link)
            before = rp_entry_next(before);
        /* Its pool may be gone, and its slot another's. */
        if (before)
            before->next = entry->next;
    }
    entry->is_used = 0;
}

/* ---- the journal ----------------------------------------------------------------------------- */

void rp_journal_write(rp_roster_from from, const char *pool, const char *who, const char *what)
{
    rp_journal_entry *entry;

    entry = &roster->journal[roster->journal_count % RP_JOURNAL_ENTRIES];
    entry->number = roster->journal_count + 1;
    entry->time = apr_time_now();
    entry->from = from;
    apr_cpystrn(entry->pool, pool, sizeof(entry->pool));
    apr_cpystrn(entry->who, who, sizeof(entry->who));
    apr_cpystrn(entry->what, what, sizeof(entry->what));
    roster->journal_count++;
}

apr_array_header_t *rp_roster_journal(apr_pool_t *pool, const rp_balancer *balancer)
{
    apr_array_header_t *entries =
        apr_array_make(pool, RP_JOURNAL_ENTRIES, sizeof(rp_journal_entry));
    apr_uint64_t count;

    rp_roster_lock();
    count = roster->journal_count;
    for (apr_uint64_t i = 0; i < count && i < RP_JOURNAL_ENTRIES; i++) {
        const rp_journal_entry *entry = &roster->journal[(count - 1 - i) % RP_JOURNAL_ENTRIES];

        if (!balancer || !strcmp(entry->pool, balancer->name))
            APR_ARRAY_PUSH(entries, rp_journal_entry) = *entry;
    }
    rp_roster_unlock();
    return entries;
}
