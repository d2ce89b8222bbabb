/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyMember and RProxyOutlier: one line each in <RProxyBalancer>. */
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "balancer/rp_balancer_config.h"
#include "rproxy/rp_argument.h"

#define WEIGHT_MAX 1000

/* ---- RProxyMember ---------------------------------------------------------------------------- */

/** Two URLs that mean the same server are the same text: host in lower case, no port that goes
 * without saying, no slash at the end. */
static const char *normal_url(apr_pool_t *pool, const char *text)
{
    const char *bar = !strncasecmp(text, "unix:", 5) ? strchr(text, '|') : NULL;
    const char *socket = bar ? apr_pstrmemdup(pool, text + 5, (apr_size_t)(bar - text) - 5) : NULL;
    char *url = apr_pstrdup(pool, bar ? bar + 1 : text);
    char *host = strstr(url, "://");
    const char *base, *port;
    apr_size_t len;

    if (!host)
        return text;
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

enum { KEY_WEIGHT, KEY_LOADFACTOR, KEY_MAX, KEY_ZONE, KEY_SLOWSTART, KEY_STATE };

static const char *parse_state(apr_pool_t *pool, const char *argument, const char *value,
                               rp_admin_state *state)
{
    static const char *const names[] = { "up", "drain", "down" };

    _Static_assert(RP_MEMBER_UP == 0 && RP_MEMBER_DRAIN == 1 && RP_MEMBER_DOWN == 2,
                   "names stand in this order");
    for (int i = 0; i < 3; i++) {
        if (!strcasecmp(value, names[i])) {
            *state = (rp_admin_state)i;
            return NULL;
        }
    }
    return apr_psprintf(pool, "\"%s\": write state=up, state=drain or state=down", argument);
}

static const char *parse_weight(apr_pool_t *pool, const char *argument, const char *value,
                                int *weight)
{
    if (!strcmp(value, "0"))
        return apr_psprintf(pool, "\"%s\": a member without weight would get no request; write "
                            "state=drain instead", argument);
    if (strchr(value, '.'))
        return apr_psprintf(pool, "\"%s\": weights are whole numbers from 1 to %d; multiply all "
                            "of the pool by the same number", argument, WEIGHT_MAX);
    return rp_argument_number(pool, argument, value, 1, WEIGHT_MAX, weight);
}

static const char *parse_key(apr_pool_t *pool, const char *argument, int key, const char *value,
                             rproxy_member *member, rp_member *more)
{
    switch (key) {
    case KEY_WEIGHT:
    case KEY_LOADFACTOR:
        return parse_weight(pool, argument, value, &member->weight);
    case KEY_MAX:
        return rp_argument_number(pool, argument, value, 0, INT_MAX, &member->max);
    case KEY_ZONE:
        more->zone = value;
        if (!rp_balancer_is_name(value))
            return apr_psprintf(pool, "\"%s\": a zone has 1 to 64 letters, digits, '.', '-' and "
                                "'_'", argument);
        return NULL;
    case KEY_SLOWSTART:
        if (!strcmp(value, "0"))
            return NULL;
        return rp_argument_time(pool, argument, value, 0, &more->slow_start);
    default:
        return parse_state(pool, argument, value, &more->state);
    }
}

static const char *parse_keys(apr_pool_t *pool, const apr_array_header_t *words,
                              rproxy_member *member, rp_member *more)
{
    static const char *const names[] = { "weight", "loadfactor", "max", "zone", "slowstart",
                                         "state", NULL };
    const char *message = NULL;
    unsigned int seen = 0;

    for (int i = 1; i < words->nelts && !message; i++) {
        const char *argument = APR_ARRAY_IDX(words, i, const char *), *value;
        int key;

        if (!strcasecmp(argument, "backup")) {
            message = more->is_backup ? "backup stands twice; keep one" : NULL;
            more->is_backup = 1;
            continue;
        }
        if (!strchr(argument, '='))
            return apr_psprintf(pool, "\"%s\" is neither backup nor key=value", argument);
        message = rp_argument_key(pool, argument, names, &seen, &key, &value);
        if (!message)
            message = parse_key(pool, argument, key, value, member, more);
    }
    if (!message && (seen & 1u << KEY_WEIGHT) && (seen & 1u << KEY_LOADFACTOR))
        return "weight= and loadfactor= are two names of one thing; keep one";
    return message;
}

static const char *parse_url(apr_pool_t *pool, const char *url, rp_member *more)
{
    APR_OPTIONAL_FN_TYPE(rproxy_target_parse) *parse =
        APR_RETRIEVE_OPTIONAL_FN(rproxy_target_parse);

    if (!parse)
        return "RProxyMember needs mod_rproxy; load it: LoadModule rproxy_module "
               "modules/mod_rproxy.so";
    more->url = normal_url(pool, url);
    return parse(pool, url, &more->target);
}

const char *rp_balancer_member(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer = rp_balancer_section_of(cmd);
    const apr_array_header_t *words = rp_argument_words(cmd->pool, arguments);
    rproxy_member member = { .weight = 1 };
    rp_member more = { 0 };
    const char *message;

    (void)dir;
    if (!balancer)
        return rp_balancer_misplaced(cmd);
    if (!words->nelts)
        return "RProxyMember needs the URL of a server, as in RProxyMember http://10.0.0.1:8080";
    member.name = APR_ARRAY_IDX(words, 0, const char *);
    if ((message = parse_url(cmd->pool, member.name, &more))
        || (message = parse_keys(cmd->pool, words, &member, &more)))
        return apr_psprintf(cmd->pool, "RProxyMember: %s", message);
    for (int i = 0; i < balancer->parsed_more->nelts; i++) {
        if (!strcmp(APR_ARRAY_IDX(balancer->parsed_more, i, rp_member).url, more.url))
            return apr_psprintf(cmd->pool, "RProxyMember %s stands twice in the pool \"%s\"; keep "
                                "one, with a higher weight= if it is to get more", member.name,
                                balancer->name);
    }
    APR_ARRAY_PUSH(balancer->parsed_members, rproxy_member) = member;
    APR_ARRAY_PUSH(balancer->parsed_more, rp_member) = more;
    return NULL;
}

/* ---- RProxyOutlier --------------------------------------------------------------------------- */

static const char *parse_outlier_key(apr_pool_t *pool, const char *argument, int key,
                                     const char *value, rp_outlier *outlier)
{
    switch (key) {
    case 0:
        return rp_argument_number(pool, argument, value, 1, 10000, &outlier->errors);
    case 1:
        return rp_argument_time(pool, argument, value, 0, &outlier->window);
    case 2:
        return rp_argument_time(pool, argument, value, 0, &outlier->eject);
    case 3:
        return rp_argument_time(pool, argument, value, 0, &outlier->max_eject);
    default:
        return rp_argument_number(pool, argument, value, 1, 100, &outlier->max_percent);
    }
}

static const char *parse_outlier(apr_pool_t *pool, const apr_array_header_t *words,
                                 rp_outlier *outlier)
{
    static const char *const names[] = { "errors", "window", "eject", "max-eject", "max-percent",
                                         NULL };
    const char *message = NULL;
    unsigned int seen = 0;

    for (int i = 0; i < words->nelts && !message; i++) {
        const char *argument = APR_ARRAY_IDX(words, i, const char *), *value;
        int key;

        if (!strcasecmp(argument, "off"))
            return words->nelts == 1 ? NULL : "off stands alone; write it, or keys";
        message = rp_argument_key(pool, argument, names, &seen, &key, &value);
        if (!message)
            message = parse_outlier_key(pool, argument, key, value, outlier);
    }
    if (!message && outlier->eject > outlier->max_eject)
        return "eject= is longer than max-eject=, which would cut it; raise max-eject=";
    return message;
}

const char *rp_balancer_outlier(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer = rp_balancer_section_of(cmd);
    const apr_array_header_t *words = rp_argument_words(cmd->pool, arguments);
    const char *message;

    (void)dir;
    if (!balancer)
        return rp_balancer_misplaced(cmd);
    if (balancer->has_outlier)
        return apr_psprintf(cmd->pool, "RProxyOutlier stands twice in the pool \"%s\"; keep one",
                            balancer->name);
    if (!words->nelts)
        return "RProxyOutlier needs off or at least one key, as in RProxyOutlier errors=10";
    if ((message = parse_outlier(cmd->pool, words, &balancer->outlier)))
        return apr_psprintf(cmd->pool, "RProxyOutlier: %s", message);
    if (!strcasecmp(APR_ARRAY_IDX(words, 0, const char *), "off"))
        balancer->outlier.errors = 0;
    balancer->has_outlier = 1;
    return NULL;
}
