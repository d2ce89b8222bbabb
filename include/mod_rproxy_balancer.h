/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The public C interface of mod_rproxy_balancer: how to add a method of balancing, a kind of health
 * check, or a provider of members (at the end).
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
    int weight;                         /* at least 1; 0: no member has this number */
    int max;                            /* most requests at once, 0: no limit */
    rproxy_shared *shared;
} rproxy_member;

/** Members that a method may choose among. Constant; lives as long as a call of choose(), or until
 * drop() is called for what build() made of it. A member is named by its number, the index in
 * members, everywhere; it is the same in all children, and stays with the member. */
typedef struct rproxy_set {
    const rproxy_member *members;       /* all of the pool: in the order of the configuration, then
                                         * those that were added at run time */
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
    void *prepared;                     /* what prepare() made of set->members */
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
 * configure() is called by the only thread of the process that reads the configuration, all others
 * by any thread of any child, several at once: they must not block, and share what they change only
 * through atomics. */
typedef struct rproxy_method {
    /** Nonzero: the pool's in_flight counts the requests of all of its members together. */
    int counts_total;

    /** Takes the words behind the method's name (const char *). *config is what choose() gets.
     * Returns NULL or a message with a remedy. Without it there may be no words. */
    const char *(*configure)(apr_pool_t *pool, const apr_array_header_t *words, void **config);

    /** When the server starts, and in each child when members have been added or removed or are
     * given other weights: makes what depends on all members, those that can't be had now included,
     * with malloc(). It may take a while. NULL: there is no memory, and the old members stay. */
    void *(*prepare)(const void *config, const rproxy_member *members, int count);
    void (*discard)(void *prepared);

    /** When members have left or entered the set, be it only for a moment, or weights have changed:
     * makes what depends on the set, with malloc(). NULL: there is no memory, and the set isn't
     * used. */
    void *(*build)(const rproxy_set *set, const void *config);
    void (*drop)(void *built);

    /** The number of a member of the set for which rproxy_choice_takes() holds, or -1. */
    int (*choose)(rproxy_choice *choice);

    /** A request has left a member. */
    void (*finished)(const rproxy_member *member, rproxy_shared *pool, const rproxy_result *result,
                     apr_time_t now);
} rproxy_method;

/* ---- probes: kinds of RProxyHealthCheck ------------------------------------------------------ */

/* A probe is a provider too, under this group and version and the name that RProxyHealthCheck is to
 * know. The balancer finds addresses, connects, does TLS, keeps the time and decides when a member
 * is down; a probe only says what is sent, and whether what comes back is good. The probes of the
 * balancer itself are made in the same way (balancer/rp_probe_*.c). */
#define RPROXY_PROBE_GROUP "rproxy-balancer-probe"
#define RPROXY_PROBE_VERSION "1"

#define RPROXY_CAUSE_BYTES 64           /* of a text that says why a check failed */

/** What is checked. */
typedef struct rproxy_place {
    const char *url;                    /* the member's */
    const char *host;                   /* lower case, IPv6 without brackets */
    int port;
    const char *authority;              /* host[:port], as in a URL */
    const char *address;                /* of the host, if it is known; NULL: it is looked up */
    const char *socket;                 /* path of a Unix socket, or NULL */
    const char *base;                   /* path, without '/' at its end; "": none */
    int is_tls;                         /* nonzero: an https:// member */
} rproxy_place;

typedef enum rproxy_check_verdict {
    RPROXY_CHECK_GOES_ON,
    RPROXY_CHECK_PASSED,
    RPROXY_CHECK_FAILED                 /* cause says why */
} rproxy_check_verdict;

enum { RPROXY_ADVICE_READY = 1, RPROXY_ADVICE_DRAIN, RPROXY_ADVICE_MAINT };
enum { RPROXY_ADVICE_UP = 1, RPROXY_ADVICE_DOWN };

/** What a member says of itself. */
typedef struct rproxy_advice {
    int percent;                        /* of its weight; -1: says nothing */
    int max;                            /* most requests at once; -1: says nothing */
    int mode;                           /* RPROXY_ADVICE_READY, _DRAIN, _MAINT; 0: says nothing */
    int health;                         /* RPROXY_ADVICE_UP, _DOWN; 0: says nothing */
} rproxy_advice;

/** A check under way: one connection. */
typedef struct rproxy_check {
    apr_pool_t *pool;                   /* lives as long as the check */
    const rproxy_place *place;
    const char *host;                   /* what the connection is to: host=, or as the place says */
    const char *protocol;               /* what TLS agreed on (ALPN); NULL: nothing */
    const void *config;                 /* what configure() made */
    void *data;                         /* the probe's own; NULL at first */
    /** Sends these bytes. Does not block, nor call the probe. */
    void (*send)(struct rproxy_check *check, const void *data, apr_size_t len);
    char cause[RPROXY_CAUSE_BYTES];
    rproxy_advice advice;               /* of a probe that gives advice */
} rproxy_check;

/** When a probe wants TLS. */
typedef enum rproxy_probe_tls {
    RPROXY_PROBE_PLAIN,                 /* never */
    RPROXY_PROBE_AS_MEMBER,             /* with https:// members */
    RPROXY_PROBE_TLS                    /* always */
} rproxy_probe_tls;

/** A kind of check. Members that are NULL are left out. configure() is called by the thread that
 * reads the configuration, all others by one thread of one child: they must not block. */
typedef struct rproxy_probe {
    rproxy_probe_tls tls;
    const char *protocols;              /* for ALPN: each with its length before it; NULL: none */
    int gives_advice;                   /* nonzero: sets advice; what fails changes nothing */

    /** Takes the words that the balancer doesn't know (const char *). Returns NULL or a message
     * with a remedy. Without it there may be no such words. */
    const char *(*configure)(apr_pool_t *pool, const apr_array_header_t *words, void **config);

    /** The connection is there. */
    rproxy_check_verdict (*begin)(rproxy_check *check);

    /** Bytes have come; 0: the other side has ended. */
    rproxy_check_verdict (*received)(rproxy_check *check, const char *data, apr_size_t len);

    /** After the verdict, and when the time is over: gives back what pool doesn't. */
    void (*end)(rproxy_check *check);
} rproxy_probe;

/* ---- discovery: members from elsewhere ------------------------------------------------------- */

/* A provider of members is one too, under this group and version and the name that RProxyDiscover
 * is to know. One child at a time asks it, on the thread of an event loop: it must not block. When
 * that child ends, another one begins anew. The members that were found last stay until others are
 * found. The providers of the balancer itself are made in the same way (balancer/rp_discovery_*.c).
 */
#define RPROXY_DISCOVERY_GROUP "rproxy-balancer-discovery"
#define RPROXY_DISCOVERY_VERSION "1"

enum { RPROXY_FOUND_UP, RPROXY_FOUND_DRAIN, RPROXY_FOUND_DOWN };

/** A member that was found. Texts need not live longer than the call of found(). */
typedef struct rproxy_found {
    const char *url;                    /* as in RProxyMember; or with #ADDRESS behind it, where the
                                         * host is */
    int weight;                         /* 1 to 1000 */
    int max;                            /* 0: no limit */
    int state;                          /* RPROXY_FOUND_* */
    int is_backup;
    const char *zone, *route;           /* NULL: none */
    apr_interval_time_t slow_start;     /* 0: none */
} rproxy_found;

/** A line of the configuration that names a provider. */
typedef struct rproxy_source {
    const char *pool_name;
    const void *config;                 /* what configure() made */
    void *data;                         /* the provider's; NULL at first */
    apr_pool_t *pool;                   /* lives until end() */
    void *loop;                         /* the balancer's own */

    /** What ask() leads to, at once or later, once for each. The provider is asked again after
     * that time. What is wrong with a member is logged; the others are taken. */
    void (*found)(struct rproxy_source *source, const rproxy_found *members, int count,
                  apr_interval_time_t again);
    /** Or this: the last members stay. why names the cause and a remedy. */
    void (*failed)(struct rproxy_source *source, const char *why, apr_interval_time_t again);
    /** Nothing has changed. */
    void (*unchanged)(struct rproxy_source *source, apr_interval_time_t again);

    /** Calls ready() when fd, which must be non-blocking, can be read (1), written (2) or both (3),
     * for as long as it can; events 0: no more, which comes before fd is closed. */
    void (*watch)(struct rproxy_source *source, int fd, int events,
                  void (*ready)(struct rproxy_source *source, int fd, int events));
} rproxy_source;

/** Where members come from. */
typedef struct rproxy_discovery {
    /** Takes the words behind the name (const char *). Returns NULL or a message with a remedy. */
    const char *(*configure)(apr_pool_t *pool, const apr_array_header_t *words, void **config);

    /** Finds members. */
    void (*ask)(rproxy_source *source);

    /** This child doesn't ask any more: gives back what source->pool doesn't. NULL: nothing. */
    void (*end)(rproxy_source *source);
} rproxy_discovery;

#endif
