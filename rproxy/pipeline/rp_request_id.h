/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The id under which a request is known to the upstream (X-Request-ID) and to the log. */
#ifndef RP_REQUEST_ID_H
#define RP_REQUEST_ID_H

#include "httpd.h"
#include "rproxy/http/rp_http.h"

/** A trusted peer's X-Request-ID, else mod_unique_id's UNIQUE_ID, else 128 bits of our own in hex
 * that are unique over children and restarts, though not secret. unique: UNIQUE_ID, or NULL. Lives
 * in pool, or as long as what it was taken from. Any thread. */
const char *rp_request_id(apr_pool_t *pool, const rp_request *request, const char *unique);

/** Seeds the generator of a new child; in child_init. */
void rp_request_id_seed(void);

/** A well-mixed 64-bit number, different at each call. Any thread. */
apr_uint64_t rp_random_next(void);

#endif
