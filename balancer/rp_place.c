/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A member's URL, taken apart for probes. The core has accepted it. Behind '#' stands the address
 * where a name has several. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <apr_strings.h>

#include "balancer/rp_probe.h"

rproxy_place *rp_place_parse(apr_pool_t *pool, const char *url)
{
    rproxy_place *place = apr_pcalloc(pool, sizeof(*place));
    const char *bar = !strncasecmp(url, "unix:", 5) ? strchr(url, '|') : NULL;
    const char *hash = strchr(bar ? bar : url, '#'), *text, *end;
    char *host;

    place->url = url;
    if (hash)
        place->address = hash + 1;
    text = apr_pstrmemdup(pool, bar ? bar + 1 : url,
                          (apr_size_t)((hash ? hash : url + strlen(url)) - (bar ? bar + 1 : url)));
    if (bar)
        place->socket = apr_pstrmemdup(pool, url + 5, (apr_size_t)(bar - url) - 5);
    place->is_tls = !strncasecmp(text, "https://", 8);
    if (!place->is_tls && strncasecmp(text, "http://", 7) != 0)
        return NULL;
    text += place->is_tls ? 8 : 7;
    place->port = place->is_tls ? 443 : 80;
    place->authority = apr_pstrmemdup(pool, text, strcspn(text, "/"));
    text += strlen(place->authority);
    place->base = apr_pstrmemdup(pool, text,
                                 strlen(text) - (*text && text[strlen(text) - 1] == '/'));
    host = apr_pstrdup(pool, place->authority);
    end = *host == '[' ? strchr(host, ']') : host;
    if (!end)
        return NULL;
    if ((end = strchr(end, ':'))) {
        place->port = (int)strtol(end + 1, NULL, 10);
        host[end - host] = '\0';
    }
    if (*host == '[') {
        host++;
        host[strlen(host) - 1] = '\0';
    }
    ap_str_tolower(host);
    place->host = host;
    return place;
}
