/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyReverse, RProxyCookieDomain, RProxyCookiePath: checked when they are read, so that a rule
 * that could never match, or would make a malformed field, stops the start. */
#include <string.h>
#include <strings.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "rproxy/route/rp_route.h"

static int is_path(const char *text)
{
    return text[0] == '/' && text[1] != '/';
}

static int is_url(apr_pool_t *pool, const char *text)
{
    const char *authority;

    if (is_path(text))
        return 1;
    if (strncasecmp(text, "http://", 7) != 0 && strncasecmp(text, "https://", 8) != 0)
        return 0;
    authority = strchr(text, '/') + 2;
    return rp_uri_is_authority(apr_pstrmemdup(pool, authority, strcspn(authority, "/")));
}

static int is_domain(const char *text)
{
    text += *text == '.';
    if (!*text)
        return 0;
    for (; *text; text++) {
        if (!apr_isalnum(*text) && !strchr(".-_[]:", *text))
            return 0;
    }
    return 1;
}

static const char *check(apr_pool_t *pool, rp_reverse_kind kind, const char *text)
{
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f || strchr("?#;,\"<>\\", *p))
            return apr_psprintf(pool,
                                "\"%.*s\": byte 0x%02x follows, which can't be in it; write it "
                                "percent-encoded in a path, and leave query and fragment out, they "
                                "stay as they are",
                                (int)(p - text), text, (unsigned char)*p);
    }
    if (kind == RP_REVERSE_URL && !is_url(pool, text))
        return apr_psprintf(pool, "\"%s\": write a path that begins with one '/' or an http:// or "
                            "https:// address", text);
    if (kind == RP_REVERSE_COOKIE_PATH && !is_path(text))
        return apr_psprintf(pool, "\"%s\": write a path that begins with one '/'", text);
    if (kind == RP_REVERSE_COOKIE_DOMAIN && !is_domain(text))
        return apr_psprintf(pool, "\"%s\": write a host name", text);
    return NULL;
}

const char *rp_reverse_rule_parse(apr_pool_t *pool, rp_reverse_kind kind, const char *from,
                                  const char *to, rp_reverse_rule *rule)
{
    const char *message = check(pool, kind, from);

    if (!message)
        message = check(pool, kind, to);
    if (message)
        return message;
    rule->from = apr_pstrdup(pool, from);
    rule->to = apr_pstrdup(pool, to);
    return NULL;
}
