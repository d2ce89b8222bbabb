/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Numbers that look like chance (splitmix64), and hashes of text. The same on every machine. */
#ifndef RP_MIX_H
#define RP_MIX_H

#include <string.h>
#include <apr.h>

static inline apr_uint64_t rp_mix(apr_uint64_t value)
{
    value += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

static inline apr_uint64_t rp_hash_bytes(const char *text, apr_size_t len)
{
    apr_uint64_t hash = len * 0x9e3779b97f4a7c15u;

    while (len) {
        apr_size_t take = len < 8 ? len : 8;
        apr_uint64_t word = 0;

        for (apr_size_t i = 0; i < take; i++)
            word |= (apr_uint64_t)(unsigned char)text[i] << (8 * i);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
        text += take;
        len -= take;
    }
    return rp_mix(hash);
}

static inline apr_uint64_t rp_hash_text(const char *text)
{
    return rp_hash_bytes(text, strlen(text));
}

#endif
