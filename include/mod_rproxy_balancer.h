/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The public C interface of mod_rproxy_balancer: how to add a method of balancing.
 *
 * A method is a provider: it registers an rproxy_method with ap_register_provider() in its
 * register_hooks, under this group and version and the name that RProxyMethod is to know:
 *
 *     ap_register_provider(pool, RPROXY_METHOD_GROUP, "mine", RPROXY_METHOD_VERSION, &mine);
 *
 * The balancer keeps members, their counters and their health. It decides which members a request
 * may go to (those that are up, of the first tier and zone that can serve), asks the method for one
 * of these, and takes a place there for the request. The methods of the balancer itself are made in
 * the same way (balancer/rp_method_*.c).
 *
 * Once the configuration has been read, another module can find out from any thread whether the
 * balancer is loaded:
 *
 *     if (ap_find_linked_module(RPROXY_BALANCER_MODULE_NAME)) ...
 */
#ifndef MOD_RPROXY_BALANCER_H
#define MOD_RPROXY_BALANCER_H

#include <stdatomic.h>
#include <apr_tables.h>
#include "include/mod_rproxy.h"

/** The name under which the server lists the module. */
#define RPROXY_BALANCER_MODULE_NAME "mod_rproxy_balancer.c"

#define RPROXY_METHOD_GROUP "rproxy-balancer-method"
#define RPROXY_METHOD_VERSION "1"

#define RPROXY_METHOD_WORDS 3

/** What all children share of a member, or of a pool as a whole. Plain data in shared memory, kept
 * over graceful restarts; changed by other threads and processes at any time. */
typedef struct rproxy_shared {
    /** Requests that are there now. Only the balancer changes it. Of a pool: see counts_total. */
    _Alignas(64) atomic_int in_flight;
    /** The method's own. They are 0 for a new member, after a change of the pool's method, and for
     * a member that comes back from an ejection. */
    atomic_ullong method[RPROXY_METHOD_WORDS];
} rproxy_shared;

typedef struct rproxy_member {
    const char *name;                   /* its URL */
    int weight;                         /* as configured, at least 1 */
    int max;                            /* most requests at once, 0: no limit */
    rproxy_shared *shared;              /* NULL while the configuration is read */
} rproxy_member;

/** Members that a method may choose among. Constant; lives as long as a call of choose(), or until
 * drop() is called for what build() made of it. A member is named by its number, the index in
 * members, everywhere. */
typedef struct rproxy_set {
    const rproxy_member *members;       /* all of the pool, in the order of the configuration */
    int member_count;
    const int *numbers;                 /* those of the set, ascending */
    const int *weights;                 /* of each of these, now: slow start changes them; only
                                         * their proportions count */
    int count;                          /* of these; at least 1 */
    apr_int64_t weight_sum;
    const int *places;                  /* for each number its index in numbers, -1: not in it */
} rproxy_set;

#define RPROXY_AVOID_MAX (RPROXY_TRIED_MAX + 16)

/** A request that needs a member. */
typedef struct rproxy_choice {
    const rproxy_request *request;
    apr_time_t now;
    int attempt;                        /* 0: the request's first */
    apr_uint64_t turn;                  /* counts the choices of this pool over all children: first
                                         * attempts, and apart from these all others, or each retry
                                         * would take somebody's turn */
    const rproxy_set *set;
    rproxy_shared *pool;                /* the pool's own */
    const void *config;                 /* what configure() made */
    void *built;                        /* what build() made of set */
    int avoid[RPROXY_AVOID_MAX];        /* numbers that can't take this request */
    int avoid_count;
    /** May be set by choose(): the request goes to the chosen member only while fewer than that are
     * in flight there. 0: only its max= counts. */
    int limit;
} rproxy_choice;

/** Nonzero if the member with this number, of the set, can take the request. By the time it is
 * chosen it may be full after all: then choose() is called again, with it in avoid. */
static inline int rproxy_choice_takes(const rproxy_choice *choice, int number)
{
    const rproxy_member *member = &choice->set->members[number];

    if (member->max
        && atomic_load_explicit(&member->shared->in_flight, memory_order_relaxed) >= member->max)
        return 0;
    for (int i = 0; i < choice->avoid_count; i++) {
        if (choice->avoid[i] == number)
            return 0;
    }
    return 1;
}

/** A method of balancing. Members that are NULL are left out; choose() must be there.
 * configure() and prepare() are called by the only thread of the process that reads the
 * configuration, all others by any thread of any child, several at once: they must not block, and
 * share what they change only through atomics. */
typedef struct rproxy_method {
    /** Nonzero: the pool's in_flight counts the requests of all of its members together. */
    int counts_total;

    /** Takes the words behind the method's name (const char *). *config is what choose() gets.
     * Returns NULL or a message with a remedy. Without it there may be no words. */
    const char *(*configure)(apr_pool_t *pool, const apr_array_header_t *words, void **config);

    /** The configuration is complete: makes in pool, which lives as long as it, what depends on the
     * members only. Their shared is NULL. Returns NULL or a message. */
    const char *(*prepare)(apr_pool_t *pool, void *config, const rproxy_member *members,
                           int count);

    /** In each child, when members have left or entered the set or weights have changed: makes what
     * depends on the set, with malloc(). NULL: there is no memory, and the set isn't used. */
    void *(*build)(const rproxy_set *set, const void *config);
    void (*drop)(void *built);

    /** The number of a member of the set for which rproxy_choice_takes() holds, or -1. */
    int (*choose)(rproxy_choice *choice);

    /** A request has left a member. */
    void (*finished)(const rproxy_member *member, rproxy_shared *pool, const rproxy_result *result,
                     apr_time_t now);
} rproxy_method;

#endif
