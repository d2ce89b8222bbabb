/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What is learnt of sessions whose cookies the members themselves make: which member has set which
 * value. A table of fixed size in shared memory, for all pools and children, without locks; it
 * stays over restarts of the configuration. Values are not stored, only keyed hashes of them. When
 * a place is needed, one of those used longest ago is forgotten. */
#ifndef RP_LEARNED_H
#define RP_LEARNED_H

#include <apr_time.h>
#include "balancer/rp_cookie.h"

/** Sessions that are remembered: about this many. */
#define RP_LEARNED_MAX 262144

/** The parent, before children: makes the table, or finds that of the last configuration. */
apr_status_t rp_learned_open(apr_pool_t *process_pool);

/** What a session is known by: the hash of a cookie's value, in the pool with this name. Never 0.
 * Any thread, as all below. */
apr_uint64_t rp_learned_key(const char *pool_name, rp_span value);

/** The id of the member that has set the value; only its upper 40 bits count. Nonzero: found. */
int rp_learned_find(apr_uint64_t key, apr_time_t now, apr_uint64_t *id);

void rp_learned_put(apr_uint64_t key, apr_uint64_t id, apr_time_t now);

/** Nonzero if both ids are the same as far as the table knows them. */
int rp_learned_is_same(apr_uint64_t id, apr_uint64_t other);

#endif
