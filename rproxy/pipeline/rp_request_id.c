/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <stdatomic.h>
#include <apr_general.h>
#include "rproxy/pipeline/rp_request_id.h"

static atomic_ullong counter;
static apr_uint64_t child_key;

void rp_request_id_seed(void)
{
    unsigned char random[16];
    apr_uint64_t parts[2];

    apr_generate_random_bytes(random, sizeof(random));
    memcpy(parts, random, sizeof(parts));
    atomic_store(&counter, parts[0]);
    child_key = parts[1];
}

apr_uint64_t rp_random_next(void)
{
    /* splitmix64 over a shared counter; relaxed: only distinct values matter. */
    apr_uint64_t z = atomic_fetch_add_explicit(&counter, 0x9e3779b97f4a7c15ULL,
                                               memory_order_relaxed);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static char *hex64(char *out, apr_uint64_t value)
{
    static const char digits[] = "0123456789abcdef";

    for (int shift = 60; shift >= 0; shift -= 4) {
        *out++ = digits[(value >> shift) & 15];
    }
    return out;
}

const char *rp_request_id(apr_pool_t *pool, const rp_request *request, const char *unique)
{
    const rp_field *sent = request->peer_trusted
        ? rp_fields_get(&request->fields, RP_FIELD_X_REQUEST_ID, 0) : NULL;
    char *id;

    if (sent && sent->value_len > 0) {
        return sent->value;
    }
    if (unique) {
        return unique;
    }
    id = apr_palloc(pool, 33);
    *hex64(hex64(id, child_key), rp_random_next()) = '\0';
    return id;
}
