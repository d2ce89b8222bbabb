/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Consistent hashing: which member a key belongs to, such that the keys of a member that is gone go
 * to all the others and no other key moves. Tables are made from all members of a pool, immutable;
 * members that can't be had are passed over when a key is looked up. Made with malloc(); NULL:
 * there is no memory. */
#ifndef RP_HASH_H
#define RP_HASH_H

#include "balancer/rp_balancer.h"

/** Nonzero if the member with this number is to be had for a key. */
typedef int rp_hash_takes(const void *baton, int number);

typedef struct rp_ring rp_ring;
typedef struct rp_maglev rp_maglev;

/** A ring of points, 512 for each unit of weight (less by a power of two in pools of more than 512
 * units). */
rp_ring *rp_ring_make(const rproxy_member *members, int count);
void rp_ring_free(rp_ring *ring);

/** The member whose point is nearest behind one of the places that the key has on the ring. -1: it
 * isn't among the points looked at. */
int rp_ring_find(const rp_ring *ring, apr_uint64_t key, rp_hash_takes *takes, const void *baton);

/** Maglev's table: shares are exact, one look finds the member; but when members come or go a few
 * keys of others move as well, and nearly all when the pool grows beyond 500 members or shrinks
 * below. */
rp_maglev *rp_maglev_make(const rproxy_member *members, int count);
void rp_maglev_free(rp_maglev *maglev);
int rp_maglev_find(const rp_maglev *maglev, apr_uint64_t key, rp_hash_takes *takes,
                   const void *baton);

#endif
