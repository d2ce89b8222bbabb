/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Cookies in fields: of requests (RFC 6265 section 4.2) and of responses (section 5.2). Nothing is
 * decoded; names are compared byte by byte. Quotes around a whole value don't belong to it; blanks
 * around names and values don't either. */
#ifndef RP_COOKIE_H
#define RP_COOKIE_H

#include <apr_pools.h>

/** Bytes of a longer text. */
typedef struct rp_span {
    const char *at;
    apr_size_t len;
} rp_span;

/** The next cookie with this name in a Cookie field, from *field on, which moves behind it.
 * Nonzero: there is one. */
int rp_cookie_next(const char **field, const char *name, rp_span *value);

/** A Cookie field without all cookies with this name: field itself if there are none, "" if there
 * are no others. */
const char *rp_cookie_without(apr_pool_t *pool, const char *field, const char *name);

/** Nonzero if a Set-Cookie field sets a cookie with this name. */
int rp_cookie_is_set(const char *field, const char *name, rp_span *value);

#endif
