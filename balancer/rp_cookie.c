/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <string.h>

#include "balancer/rp_cookie.h"

static rp_span trimmed(const char *from, const char *to)
{
    while (from < to && (*from == ' ' || *from == '\t'))
        from++;
    while (to > from && (to[-1] == ' ' || to[-1] == '\t'))
        to--;
    return (rp_span){ from, (apr_size_t)(to - from) };
}

/** Nonzero if the piece, of a field, is a cookie with this name. */
static int is_named(rp_span piece, const char *name, rp_span *value)
{
    const char *end = piece.at + piece.len;
    const char *equals = memchr(piece.at, '=', piece.len);
    rp_span its;

    if (!equals)
        return 0;
    its = trimmed(piece.at, equals);
    if (its.len != strlen(name) || memcmp(its.at, name, its.len) != 0)
        return 0;
    *value = trimmed(equals + 1, end);
    if (value->len >= 2 && *value->at == '"' && value->at[value->len - 1] == '"') {
        value->at++;
        value->len -= 2;
    }
    return 1;
}

/** The piece that begins at *field, which moves behind it. */
static rp_span next_piece(const char **field)
{
    const char *begin = *field, *end = begin + strcspn(begin, ";");

    *field = *end ? end + 1 : end;
    return trimmed(begin, end);
}

int rp_cookie_next(const char **field, const char *name, rp_span *value)
{
    while (**field) {
        if (is_named(next_piece(field), name, value))
            return 1;
    }
    return 0;
}

const char *rp_cookie_without(apr_pool_t *pool, const char *field, const char *name)
{
    const char *at = field;
    rp_span value;
    char *rest, *to;

    if (!rp_cookie_next(&at, name, &value))
        return field;
    /* A blank that was not there may come behind each ';'. */
    rest = to = apr_palloc(pool, 2 * strlen(field) + 1);
    while (*field) {
        rp_span piece = next_piece(&field);

        if (!piece.len || is_named(piece, name, &value))
            continue;
        if (to > rest) {
            *to++ = ';';
            *to++ = ' ';
        }
        memcpy(to, piece.at, piece.len);
        to += piece.len;
    }
    *to = '\0';
    return rest;
}

int rp_cookie_is_set(const char *field, const char *name, rp_span *value)
{
    return is_named(next_piece(&field), name, value);
}
