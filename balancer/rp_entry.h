/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The roster's shared memory: an entry for each member that differs from the configuration or was
 * added at run time, found by the number of the member's slot; and the journal. One lock of all
 * processes guards everything here and who has which slot. Only what makes or changes a roster uses
 * this (rp_roster*.c, rp_table.c, rp_claim.c). */
#ifndef RP_ENTRY_H
#define RP_ENTRY_H

#include "balancer/rp_roster.h"

typedef struct rp_entry {
    int next;                           /* 1 + slot of the next one of the pool; 0: there is none */
    int pool;                           /* the pool's slot */
    int number;                         /* of the member, in its pool */
    unsigned char is_used;
    unsigned char is_added;             /* not of the configuration */
    unsigned char is_removed;           /* until it is forgotten */
    unsigned char from;                 /* rp_roster_from: who added it, or else changed it */
    unsigned char is_awaited;           /* of discovery, which hasn't found it again yet: nobody's
                                         * member, just what is to hold of it */
    unsigned int overridden;            /* RP_VALUE_*: taken from values */
    apr_uint64_t stanza;                /* hash of the configuration that it goes with */
    apr_uint64_t source;                /* discovery: hash of what found it; else 0 */
    apr_time_t changed;
    rp_roster_values base;              /* of an added member: what it is without overrides */
    rp_roster_values values;
    char who[RP_ROSTER_WHO_MAX + 1];
    char url[RP_ROSTER_URL_MAX + 1];    /* of an added member, as written */
} rp_entry;

/** The parent, before rp_shared_open(): makes the memory, or finds that of the last configuration.
 */
apr_status_t rp_roster_open(apr_pool_t *process_pool);

/** Waits for the lock, never long. */
void rp_roster_lock(void);
/** Nonzero: it is ours. */
int rp_roster_try_lock(void);
void rp_roster_unlock(void);

/* ---- with the lock --------------------------------------------------------------------------- */

/** The slot's; may not be in use. */
rp_entry *rp_entry_of(const rp_slot *slot);

/** The slot that an entry belongs to. */
rp_slot *rp_entry_slot(const rp_entry *entry);

/** The entries of a pool, in no order. NULL: no more. */
rp_entry *rp_entry_first(const rp_slot *pool);
rp_entry *rp_entry_next(const rp_entry *entry);

/** Gives the slot, which has none, a copy of made as its entry, one of the pool's. */
rp_entry *rp_entry_put(const rp_slot *pool, const rp_slot *slot, const rp_entry *made);

/** Takes the slot's entry, if it has one, out of its pool. */
void rp_entry_drop(const rp_slot *slot);

/* rp_roster.c */

/** A new configuration: what it has edited or doesn't have any more goes. The pool has its slots.
 */
void rp_roster_adopt(rp_balancer *balancer);

/** made is what holds of a member once its source finds it again. */
void rp_roster_await(const rp_balancer *balancer, const char *url, const char *key,
                     const rp_entry *made);

/** Adds a member that isn't there, awaited or not; made has its values, and whose it is. */
rp_roster_result rp_roster_put(rp_balancer *balancer, const char *url, const char *key,
                               const rp_entry *made, rp_roster_change *change);

/** Tells all children. */
void rp_roster_changed(rp_balancer *balancer);

/** Writes into the journal. */
void rp_journal_write(rp_roster_from from, const char *pool, const char *who, const char *what);

/* ---- with and without ------------------------------------------------------------------------ */

/** RP_VALUE_*: which are not the same. */
unsigned int rp_roster_differing(const rp_roster_values *a, const rp_roster_values *b);

/** Copies which of from. */
void rp_roster_take(rp_roster_values *values, const rp_roster_values *from, unsigned int which);

/** NULL, or what is wrong with which of the values, or with a URL, with a remedy. */
const char *rp_roster_check_values(apr_pool_t *pool, const rp_roster_values *values,
                                   unsigned int which);
const char *rp_roster_check_url(apr_pool_t *pool, const char *url);

#endif
