/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The roster: who the members of a pool are. The configuration begins it; at run time members come,
 * go and change, in all children at once. What differs from the configuration stands in shared
 * memory, thus it outlives restarts of the configuration, and full ones with RProxyStateFile. Where
 * the configuration of a member was edited, it wins.
 *
 * A member has a number in its pool. It stays the same as long as the configuration does, in all
 * children; those of members that are gone are given to others later.
 *
 * All functions may be called by any thread of any child, and by the parent after post_config. They
 * take a lock of all processes for some microseconds (a holder that is killed does not keep it):
 * they are for administration and discovery, not for requests: these have tables (rp_balancer.h).
 */
#ifndef RP_ROSTER_H
#define RP_ROSTER_H

#include "balancer/rp_balancer.h"

#define RP_ROSTER_MEMBERS_MAX 4096      /* of a pool; all pools together: RP_SLOTS_MAX */
#define RP_ROSTER_URL_MAX 511           /* bytes of the URL of a member that is added */
#define RP_ROSTER_NAME_MAX 64           /* of zones and routes */
#define RP_ROSTER_WHO_MAX 95
#define RP_ROSTER_WEIGHT_MAX 1000

/** Where a member, or a change, comes from. */
typedef enum rp_roster_from {
    RP_FROM_CONFIGURATION,
    RP_FROM_API,
    RP_FROM_DISCOVERY                   /* DNS, a file, another provider: who says which */
} rp_roster_from;

/** What can be changed of a member. */
enum {
    RP_VALUE_WEIGHT = 1,
    RP_VALUE_MAX = 2,
    RP_VALUE_STATE = 4,
    RP_VALUE_BACKUP = 8,
    RP_VALUE_ZONE = 16,
    RP_VALUE_ROUTE = 32,
    RP_VALUE_SLOW_START = 64,
    RP_VALUES_ALL = 127
};

typedef struct rp_roster_values {
    int weight;                         /* 1 to RP_ROSTER_WEIGHT_MAX */
    int max;                            /* 0: no limit */
    rp_admin_state state;
    int is_backup;
    apr_interval_time_t slow_start;     /* 0: none */
    char zone[RP_ROSTER_NAME_MAX + 1];  /* "": none */
    char route[RP_ROSTER_NAME_MAX + 1]; /* "": none */
} rp_roster_values;

/** A copy of what is known of a member. */
typedef struct rp_roster_member {
    int number;
    const char *url;                    /* as it was written */
    const char *key;                    /* the same for all URLs that mean the same server */
    rp_slot *slot;                      /* what is counted, and its health */
    rp_roster_from from;
    const char *who;                    /* added or changed it last; "": the configuration */
    apr_time_t changed;                 /* 0: never */
    int is_removed;                     /* of the configuration, gone until it is forgotten */
    unsigned int overridden;            /* RP_VALUE_*: those that differ from the configuration */
    rp_roster_values now;
    rp_roster_values configured;        /* of others than configured members: the defaults */
} rp_roster_member;

typedef enum rp_roster_result {
    RP_ROSTER_OK,
    RP_ROSTER_BAD,                      /* a value or URL */
    RP_ROSTER_UNKNOWN,                  /* no such member */
    RP_ROSTER_DUPLICATE,                /* it is there already */
    RP_ROSTER_FULL,                     /* a limit is reached */
    RP_ROSTER_OUTDATED                  /* the version is another one by now */
} rp_roster_result;

/** A change. Members that stay 0 do nothing. */
typedef struct rp_roster_change {
    rp_roster_from from;
    const char *who;                    /* the user and address, or the provider; for the journal */
    unsigned long long if_version;      /* only if that is the version; 0: whatever it is */
    unsigned int set;                   /* RP_VALUE_*: takes these from values */
    unsigned int forget;                /* RP_VALUE_*: these as configured again */
    rp_roster_values values;
    apr_pool_t *pool;                   /* for the message, and for what is only made meanwhile */
    const char *message;                /* out: why not, with a remedy */
} rp_roster_change;

/** Grows with each change of the pool's members or their values; for an ETag. Never 0. */
unsigned long long rp_roster_version(const rp_balancer *balancer);

/** Of all these pools (rp_balancer *): another number when one of them has changed. */
unsigned long long rp_roster_versions(const apr_array_header_t *balancers);

/** All members, by number: rp_roster_member, those of the configuration that are removed included.
 * *version may be NULL. */
apr_array_header_t *rp_roster_list(apr_pool_t *pool, rp_balancer *balancer,
                                   unsigned long long *version);

/** The member with this URL, or any that means the same server. NULL: there is none. */
const rp_roster_member *rp_roster_find(apr_pool_t *pool, rp_balancer *balancer, const char *url);

/** Adds a member, http://, https:// or unix:/SOCKET|http://; values that aren't set are the
 * defaults. One of the configuration that was removed comes back. *number may be NULL. */
rp_roster_result rp_roster_add(rp_balancer *balancer, const char *url, rp_roster_change *change,
                               int *number);

/** Changes values. */
rp_roster_result rp_roster_change_member(rp_balancer *balancer, int number,
                                         rp_roster_change *change);

/** Removes a member: no new requests, those in flight end as usual. One of the configuration is
 * removed until it is forgotten, or its line edited. */
rp_roster_result rp_roster_remove(rp_balancer *balancer, int number, rp_roster_change *change);

/** Back to the configuration: a configured member is as its line says; one that was added goes. */
rp_roster_result rp_roster_forget(rp_balancer *balancer, int number, rp_roster_change *change);

/** The same for all of a pool that doesn't come from discovery. */
rp_roster_result rp_roster_forget_all(rp_balancer *balancer, rp_roster_change *change);

/** NULL, or what is wrong with the name of a zone or route, which may be ""; what is the word for
 * it. */
const char *rp_roster_check_name(apr_pool_t *pool, const char *what, const char *name);

/* ---- the journal ----------------------------------------------------------------------------- */

#define RP_JOURNAL_ENTRIES 256          /* the last ones, of all pools */

typedef struct rp_journal_entry {
    apr_uint64_t number;                /* counts from 1 */
    apr_time_t time;
    rp_roster_from from;
    char pool[RP_ROSTER_NAME_MAX + 1];
    char who[RP_ROSTER_WHO_MAX + 1];
    char what[320];                     /* "http://10.0.0.1:8080: weight=3 (was 1)" */
} rp_journal_entry;

/** The last changes, newest first: rp_journal_entry; of one pool, or of all (NULL). */
apr_array_header_t *rp_roster_journal(apr_pool_t *pool, const rp_balancer *balancer);

#endif
