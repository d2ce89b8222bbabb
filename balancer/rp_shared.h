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
#include "include/mod_rproxy_metrics.h"
#include "balancer/rp_queue.h"

/** Pools and members at once, those included that only children of the last configurations use. */
#define RP_SLOTS_MAX 16384

/** Pools with a line for waiting requests. */
#define RP_QUEUES_MAX 256

#define RP_IDENTITY_BYTES 16

/** What active checks say of a member. */
typedef enum rp_health { RP_HEALTH_UNKNOWN, RP_HEALTH_UP, RP_HEALTH_DOWN } rp_health;

/** What is only shown: written at the end of an attempt, by rp_counts.c and rp_outlier.c. */
typedef struct rp_counts {
    /* Member and pool. */
    atomic_ullong answers[RPROXY_STATUS_CLASSES];   /* attempts, by class of the status */
    atomic_ullong opened, reused;       /* connections of attempts */
    rproxy_histogram first_byte, total;
    atomic_ullong repeated;             /* attempts of requests that had failed before */
    atomic_ullong ejections;            /* member: ever */
    atomic_ullong errors[RPROXY_REASONS_MAX];
    /* Pool. */
    atomic_ullong no_member, busy;      /* requests that were not served, queues apart */
} rp_counts;

/** A member's or a pool's. New ones are all zero but for identity and incarnation. */
typedef struct rp_slot {
    rproxy_shared shared;               /* first: what methods see */
    atomic_llong ejected_until;         /* member: 0: not ejected; microseconds since 1970 */
    atomic_llong trial_until;           /* member: until then a request tries whether it is back */
    atomic_llong in_service_since;      /* member: slow start counts from there; 0: ever since */
    atomic_ullong incarnation;          /* another number for whoever has it next; 0: nobody has */

    _Alignas(64) atomic_ullong version; /* pool: counts what changes who can be chosen */
    atomic_ullong requests;             /* member: attempts; pool: first attempts */
    atomic_ullong retries;              /* pool: other attempts */
    atomic_ullong failures;             /* attempts without a complete answer */
    atomic_ullong sent, received;       /* bytes of bodies */
    atomic_ullong window;               /* member: failures of late, see rp_outlier.c */
    atomic_ullong window_requests;      /* member: requests when the window began */
    atomic_uint failures_in_a_row;      /* member */
    atomic_uint ejections;              /* member: in a row */

    /* Active health, written by the child that leads: rp_health.c. Members, and panic of the
     * pool. */
    atomic_int health;                  /* rp_health */
    atomic_int panic;                   /* too few members are up: all are used */
    atomic_int agent_percent;           /* what the agent said, + 1; 0: nothing */
    atomic_int agent_max;               /* the same */
    atomic_int agent_mode, agent_health;    /* RPROXY_ADVICE_* */
    atomic_llong health_since;          /* 0: never decided; microseconds since 1970 */
    atomic_llong checked_at;            /* 0: never */
    atomic_llong check_time;            /* how long the last check took */
    atomic_ullong checks, checks_failed;
    atomic_uint cause_version;          /* of cause; odd: it is being written */
    atomic_ullong cause[RPROXY_CAUSE_BYTES / 8];    /* of the last failure, a text */

    /* Pool, written by rp_waiting.c and rp_budget.c. */
    atomic_ullong queued;               /* requests that waited */
    atomic_ullong queue_timeouts;       /* of these: too long */
    atomic_ullong queue_full;           /* requests that found no place in line */
    atomic_ullong retries_refused;      /* no budget was left */

    _Alignas(64) rp_counts counts;

    /* Written under the roster's lock (rp_entry.h). */
    _Alignas(64) unsigned char identity[RP_IDENTITY_BYTES];
    apr_uint64_t method;                /* pool: hash of its method's name */
    int queue;                          /* pool: number of its line, from 1; 0: none */
    apr_uint32_t generation;            /* of the last configuration that had it; 0: free */
    atomic_int first_entry;             /* pool: 1 + slot of a member that differs; 0: none does */
    atomic_ullong roster_version;       /* pool: counts changes of members and their values */
} rp_slot;

/** Relaxed: whoever reads it needs the number alone, in no order with anything else. */
static inline void rp_count(atomic_ullong *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/** The parent, before children: makes the memory, or finds that of the last configuration, and
 * begins a new generation. process_pool is the process's, temp_pool lives until the last claim;
 * max_children is at least how many children may live at once. */
apr_status_t rp_shared_open(apr_pool_t *process_pool, apr_pool_t *temp_pool, int max_children);

/** The parent, after open, under the roster's lock: the slot of what has this identity. *is_new: it
 * had none. Returns NULL if all slots are taken. */
rp_slot *rp_shared_claim(const unsigned char *identity, int *is_new);

/** The parent, after the claim: the pool's line, made when it is asked for first. NULL: there are
 * RP_QUEUES_MAX already. */
rp_queue *rp_shared_claim_queue(rp_slot *slot);

/** The same at run time, in any process. */
rp_slot *rp_shared_claim_late(const unsigned char *identity, int *is_new);

/** Under the roster's lock: the newest configuration has it, too. */
void rp_shared_renew(rp_slot *slot);

/** Under the roster's lock: nobody gets a place in it any more; when those who have one have left,
 * somebody else may claim it. */
void rp_shared_retire(rp_slot *slot);

/** A slot's number among all, below RP_SLOTS_MAX, and back. */
int rp_slot_number(const rp_slot *slot);
rp_slot *rp_slot_at(int number);

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

/** The number of this process's configuration, and whether none came after it. */
apr_uint32_t rp_shared_generation(void);
int rp_shared_is_newest(void);

/** The word that says who leads, see rp_keeper.c. NULL: there is no memory. */
atomic_ullong *rp_shared_lease(void);

/** Nonzero if this process may take places. */
int rp_shared_has_row(void);

/** Takes a place if fewer than limit are in flight (0: always). Nonzero: taken. */
int rp_shared_take(rp_slot *slot, int limit);
void rp_shared_give_back(rp_slot *slot);

/* ---- lines: who is woken where --------------------------------------------------------------- */

/** The number of this process's row; -1: it has none. */
int rp_shared_row(void);

/** Calls the first in line, from this ticket on, and wakes it wherever it is; if it was called
 * already, only with again nonzero. Any process. */
void rp_shared_call(rp_queue *queue, rp_ticket from, int again);

/** Wakes this request: here, or the child's thread that waits in rp_shared_wait(). */
void rp_shared_wake(rp_queue_owner owner);

/** Until another process wakes requests of this child, or rp_shared_wake_thread(), or the time is
 * over (0: never). Several reasons may become one. */
void rp_shared_wait(apr_interval_time_t time);
void rp_shared_wake_thread(void);

/** Nonzero if this is still the same slot: whoever had it hasn't gone, nor come back. */
static inline int rp_slot_is(const rp_slot *slot, unsigned long long incarnation)
{
    return atomic_load(&slot->incarnation) == incarnation;
}

#endif
