/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Whether a response is for many clients (RFC 9111 section 3): a cookie of one of them must not be
 * in it. In doubt it is. */
#include <string.h>
#include <strings.h>
#include <apr_date.h>

#include "balancer/rp_sticky.h"

typedef struct facts {
    int is_private;                     /* private or no-store, for all of the response */
    int is_fresh;                       /* public, max-age or s-maxage above 0 */
} facts;

static int is_directive(const char *at, apr_size_t len, const char *name)
{
    return len == strlen(name) && !strncasecmp(at, name, len);
}

/** The end of a value: a quoted one may hold commas. */
static const char *end_of_value(const char *at)
{
    if (*at == '"') {
        for (at++; *at && *at != '"'; at++) {
            if (*at == '\\' && at[1])
                at++;
        }
    }
    return at + strcspn(at, ",");
}

static void read_directive(const char *name, apr_size_t len, const char *value, facts *found)
{
    if (!value && (is_directive(name, len, "private") || is_directive(name, len, "no-store")))
        found->is_private = 1;
    else if (is_directive(name, len, "public"))
        found->is_fresh = 1;
    else if (value && (is_directive(name, len, "max-age") || is_directive(name, len, "s-maxage"))) {
        value += *value == '"';
        /* "0", "00": nothing; whatever else is written there may be taken for a time. */
        found->is_fresh |= value[strspn(value, "0")] && *value != '-'
            && !strchr(", \"", value[strspn(value, "0")]);
    }
}

/** A field in the form of Cache-Control. */
static void read_list(const char *at, facts *found)
{
    while (*at) {
        apr_size_t len;

        at += strspn(at, " \t,");
        len = strcspn(at, " \t,=");
        if (at[len] == '=') {
            read_directive(at, len, at + len + 1, found);
            at = end_of_value(at + len + 1);
        }
        else {
            read_directive(at, len, NULL, found);
            at += len;
        }
    }
}

static void read_fields(const rproxy_answer *answer, const char *name, facts *found)
{
    const char *field;
    int position = 0;

    while ((field = answer->next(answer, name, &position)))
        read_list(field, found);
}

int rp_answer_is_shared(const rproxy_answer *answer, apr_time_t now, int *is_private)
{
    facts all = { 0, 0 }, targeted = { 0, 0 };
    const char *expires;
    int position = 0;

    /* What is meant for certain caches only counts there more than Cache-Control (RFC 9213). */
    read_fields(answer, "CDN-Cache-Control", &targeted);
    read_fields(answer, "Surrogate-Control", &targeted);
    read_fields(answer, "Cache-Control", &all);
    *is_private = all.is_private;
    if (targeted.is_fresh && !targeted.is_private)
        return 1;
    if (all.is_private)
        return 0;
    expires = answer->next(answer, "Expires", &position);
    return all.is_fresh || (expires && apr_date_parse_http(expires) > now);
}
