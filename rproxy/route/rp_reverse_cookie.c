/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Path and Domain of Set-Cookie (RFC 6265 section 5.2). Attributes are split as browsers split
 * them: at every ';', quotes mean nothing. Everything but the two attributes stays byte for byte.
 */
#include <string.h>
#include <strings.h>

#include "rproxy/route/rp_route_private.h"

/** A piece of the cookie. */
typedef struct span {
    apr_size_t start;
    apr_size_t end;
} span;

static span trim(const char *value, apr_size_t start, apr_size_t end)
{
    span piece;

    while (start < end && (value[start] == ' ' || value[start] == '\t'))
        start++;
    while (end > start && (value[end - 1] == ' ' || value[end - 1] == '\t'))
        end--;
    piece.start = start;
    piece.end = end;
    return piece;
}

static int is_name(const char *value, span piece, const char *name)
{
    return piece.end - piece.start == strlen(name)
           && !strncasecmp(value + piece.start, name, piece.end - piece.start);
}

/* ---- Path ------------------------------------------------------------------------------------ */

static int map_path(const char *path, apr_size_t len, const char *from, const char *to,
                    rp_mapped *mapped)
{
    memset(mapped, 0, sizeof(*mapped));
    if (!rp_map_path(path, len, from, to, mapped))
        return 0;
    /* "/" holds for the whole upstream; "/app" does for the client, "/app/" not for "/app". */
    if (len == 1 && mapped->lens[0] > 0)
        mapped->rest = 1;
    return 1;
}

static void reverse_path(rp_splice *splice, const rp_reverse *reverse, span piece)
{
    const char *path = splice->value + piece.start;
    apr_size_t len = piece.end - piece.start;
    const apr_array_header_t *rules = reverse->cookie_paths;
    rp_mapped mapped;

    if (!len || *path != '/')
        return;
    for (int i = 0; rules && i < rules->nelts; i++) {
        const rp_reverse_rule *rule = &APR_ARRAY_IDX(rules, i, rp_reverse_rule);

        if (map_path(path, len, rule->from, rule->to, &mapped)) {
            rp_splice_apply(splice, piece.start, &mapped);
            return;
        }
    }
    if (reverse->client_prefix
        && map_path(path, len, reverse->upstream_base, reverse->client_prefix, &mapped))
        rp_splice_apply(splice, piece.start, &mapped);
}

/* ---- Domain ---------------------------------------------------------------------------------- */

/** Nonzero if domain is the host of authority. */
static int is_host_of(const char *domain, apr_size_t len, const char *authority)
{
    return authority && len && len == rp_authority_host_len(authority, strlen(authority))
           && !strncasecmp(domain, authority, len);
}

/** Nonzero if a browser at authority accepts a cookie for domain (RFC 6265 section 5.1.3). */
static int covers(const char *domain, apr_size_t len, const char *authority)
{
    apr_size_t host = authority ? rp_authority_host_len(authority, strlen(authority)) : 0;

    return host >= len && !strncasecmp(authority + host - len, domain, len)
           && (host == len || authority[host - len - 1] == '.');
}

/** @param whole  the attribute with the ';' before it */
static void reverse_domain(rp_splice *splice, const rp_reverse *reverse, span piece, span whole)
{
    apr_size_t dot = piece.start < piece.end && splice->value[piece.start] == '.';
    const char *domain = splice->value + piece.start + dot;
    apr_size_t len = piece.end - piece.start - dot;
    const apr_array_header_t *rules = reverse->cookie_domains;
    rp_mapped mapped = { .rest = piece.end - piece.start };

    for (int i = 0; rules && i < rules->nelts; i++) {
        const rp_reverse_rule *rule = &APR_ARRAY_IDX(rules, i, rp_reverse_rule);
        const char *from = rule->from + (*rule->from == '.');

        if (len && len == strlen(from) && !strncasecmp(domain, from, len)) {
            rp_mapped_add(&mapped, rule->to, strlen(rule->to));
            rp_splice_apply(splice, piece.start, &mapped);
            return;
        }
    }
    if ((is_host_of(domain, len, reverse->upstream_authority)
         || is_host_of(domain, len, reverse->sent_host))
        && !covers(domain, len, reverse->client_authority)) {
        mapped.rest = whole.end - whole.start;
        rp_splice_apply(splice, whole.start, &mapped);
    }
}

/* ---- the field ------------------------------------------------------------------------------- */

void rp_reverse_cookie(rp_splice *splice, const rp_reverse *reverse)
{
    const char *value = splice->value;
    const char *semicolon = memchr(value, ';', splice->len);
    span name = trim(value, 0, splice->len);
    /* Browsers refuse a __Host- cookie with a path other than "/". */
    int keeps_path = name.end - name.start >= 7 && !strncasecmp(value + name.start, "__Host-", 7);

    while (semicolon) {
        span whole = { (apr_size_t)(semicolon - value), splice->len };
        const char *equals;

        semicolon = memchr(value + whole.start + 1, ';', splice->len - whole.start - 1);
        if (semicolon)
            whole.end = (apr_size_t)(semicolon - value);
        equals = memchr(value + whole.start, '=', whole.end - whole.start);
        if (!equals)
            continue;
        name = trim(value, whole.start + 1, (apr_size_t)(equals - value));
        if (is_name(value, name, "path") && !keeps_path)
            reverse_path(splice, reverse, trim(value, (apr_size_t)(equals - value) + 1, whole.end));
        else if (is_name(value, name, "domain"))
            reverse_domain(splice, reverse,
                           trim(value, (apr_size_t)(equals - value) + 1, whole.end), whole);
    }
}
