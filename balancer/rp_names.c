/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Names: which there can be, when two are the same, and those of states. */
#include <string.h>
#include <strings.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "balancer/rp_balancer.h"

int rp_balancer_is_name(const char *text)
{
    apr_size_t len = 0;

    while (apr_isalnum(text[len]) || (text[len] && strchr("._-", text[len])))
        len++;
    return len > 0 && len <= 64 && !text[len];
}

const char *const rp_state_names[RP_MEMBER_GONE + 1] = {
    [RP_MEMBER_UP] = "up", [RP_MEMBER_DRAIN] = "drain", [RP_MEMBER_DOWN] = "down",
    [RP_MEMBER_GONE] = "gone"
};

int rp_state_named(const char *name)
{
    for (int i = 0; i < RP_MEMBER_GONE; i++) {
        if (!strcasecmp(name, rp_state_names[i]))
            return i;
    }
    return -1;
}

const char *rp_balancer_normal_url(apr_pool_t *pool, const char *text)
{
    const char *mark = strchr(text, '#');
    const char *bar = !strncasecmp(text, "unix:", 5) ? strchr(text, '|') : NULL;
    const char *socket = bar ? apr_pstrmemdup(pool, text + 5, (apr_size_t)(bar - text) - 5) : NULL;
    char *url = apr_pstrdup(pool, bar ? bar + 1 : text);
    char *host = strstr(url, "://");
    const char *base, *port;
    apr_size_t len;

    if (!host)
        return text;
    if (mark && !bar)
        return apr_pstrcat(pool, rp_balancer_normal_url(pool, apr_pstrmemdup(pool, text,
                           (apr_size_t)(mark - text))), mark, NULL);
    host += 3;
    base = apr_pstrdup(pool, host + strcspn(host, "/"));
    host[strcspn(host, "/")] = '\0';
    for (char *p = url; *p; p++)
        *p = (char)apr_tolower(*p);
    len = strlen(url);
    port = !strncmp(url, "https:", 6) ? ":443" : ":80";
    if (len > strlen(port) && !strcmp(url + len - strlen(port), port))
        url[len - strlen(port)] = '\0';
    len = strlen(base);
    while (len && base[len - 1] == '/')
        len--;
    return apr_pstrcat(pool, socket ? "unix:" : "", socket ? socket : "", socket ? "|" : "", url,
                       apr_pstrmemdup(pool, base, len), NULL);
}
