/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What all children know of pools and members: one piece of shared memory, made once by the process
 * that starts the children. It outlives restarts of the configuration: what has the same identity
 * gets its slot back. No locks; everything that requests touch is atomic.
 *
 * In-flight counts survive a child that is killed. Each child has a row with its own part of every
 * count; when it is gone, that part is taken off. Total and row change one after the other, so a
 * child that dies just between them leaves a total that is off by one: the row says that this is
 * possible, and then the totals are compared with the sum of all rows. */
#ifndef RP_SHARED_H
#define RP_SHARED_H

#include "include/mod_rproxy_balancer.h"

/** Pools and members at once, those included that only children of the last configurations use. */
#define RP_SLOTS_MAX 16384

#define RP_IDENTITY_BYTES 16

/** A member's or a pool's. New ones are all zero but for identity and created. */
typedef struct rp_slot {
    rproxy_shared shared;               /* first: what methods see */
    atomic_llong ejected_until;         /* member: 0: not ejected; microseconds since 1970 */
    atomic_llong trial_until;           /* member: until then a request tries whether it is back */
    atomic_llong in_service_since;      /* member: slow start counts from there; 0: ever since */

    _Alignas(64) atomic_ullong version; /* pool: counts what changes who can be chosen */
    atomic_ullong requests;             /* member: attempts; pool: first attempts */
    atomic_ullong retries;              /* pool: other attempts */
    atomic_ullong failures;             /* member */
    atomic_ullong sent, received;       /* bytes of bodies */
    atomic_ullong window;               /* member: failures of late, see rp_outlier.c */
    atomic_ullong window_requests;      /* member: requests when the window began */
    atomic_uint failures_in_a_row;      /* member */
    atomic_uint ejections;              /* member: in a row */

    /* Written before the children that use it exist. */
    _Alignas(64) unsigned char identity[RP_IDENTITY_BYTES];
    apr_uint64_t method;                /* pool: hash of its method's name */
    apr_uint32_t generation;            /* of the last configuration that had it; 0: free */
} rp_slot;

/** The parent, before children: makes the memory, or finds that of the last configuration, and
 * begins a new generation. process_pool is the process's, temp_pool lives until the last claim;
 * max_children is at least how many children may live at once. */
apr_status_t rp_shared_open(apr_pool_t *process_pool, apr_pool_t *temp_pool, int max_children);

/** The parent, after open: the slot of what has this identity. *is_new: it had none. Returns NULL
 * if all slots are taken. */
rp_slot *rp_shared_claim(const unsigned char *identity, int *is_new);

/** The method begins anew. */
void rp_slot_reset_method(rp_slot *slot);

/** Nonzero if this process is the first one to use the memory, not a later configuration. */
int rp_shared_is_fresh(void);

/** A child, before its first request: takes a row. Nonzero: it has one. */
int rp_shared_enter(void);

/** The parent: the child with this process id is gone. */
void rp_shared_settle(int pid);

/** The parent, now and then: settles what could not be settled while all were busy. */
void rp_shared_settle_rest(void);

/** Nonzero if this process may take places. */
int rp_shared_has_row(void);

/** Takes a place if fewer than limit are in flight (0: always). Nonzero: taken. */
int rp_shared_take(rp_slot *slot, int limit);
void rp_shared_give_back(rp_slot *slot);

#endif
