/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What stands in the cookie of a session: which member it is on, in a form that nobody else can
 * read or make. 31 bytes as base64url (RFC 4648 section 5) without padding:
 *
 *     version (1) | expires (4) | hidden (10) | tag (16)
 *
 * tag is the beginning of HMAC-SHA256 of version, expires and what is hidden; hidden is XORed with
 * the beginning of HMAC-SHA256 of tag. Both keys are derived from the configured one and the name
 * of the pool: the value of one pool means nothing to another. */
#ifndef RP_SEAL_H
#define RP_SEAL_H

#include <apr_pools.h>
#include <apr_tables.h>
#include "balancer/rp_cookie.h"

#define RP_SEAL_TEXT 42                 /* characters of a value */
#define RP_SEAL_KEYS_MAX 16

/** The keys of a pool. Immutable. */
typedef struct rp_seal rp_seal;

typedef struct rp_sealed {
    apr_uint64_t id;                    /* of the member */
    int number;                         /* it had, up to 65535: a hint where to look for id */
    apr_uint32_t expires;               /* seconds since 1970, 0: never */
} rp_sealed;

/** keys: rp_span, 1 to RP_SEAL_KEYS_MAX. The first seals, all are tried to open. */
rp_seal *rp_seal_make(apr_pool_t *pool, const char *pool_name, const apr_array_header_t *keys);

/** Writes RP_SEAL_TEXT characters and a NUL. */
void rp_seal_close(const rp_seal *seal, const rp_sealed *what, char *text);

/** The number of the key that has sealed the value, 0: the one that seals now. -1: none has. When
 * it expires is for the caller to look at. */
int rp_seal_open(const rp_seal *seal, rp_span value, rp_sealed *what);

#endif
