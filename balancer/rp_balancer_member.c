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
#include "balancer/rp_discovery.h"
#include "balancer/rp_mix.h"
#include "balancer/rp_roster.h"
#include "rproxy/rp_argument.h"

/* ---- RProxyMember ---------------------------------------------------------------------------- */

enum { KEY_WEIGHT, KEY_LOADFACTOR, KEY_MAX, KEY_ZONE, KEY_ROUTE, KEY_SLOWSTART,
       KEY_STATE };

static const char *parse_state(apr_pool_t *pool, const char *argument, const char *value,
                               rp_admin_state *state)
{
    int found = rp_state_named(value);

    if (found < 0)
        return apr_psprintf(pool, "\"%s\": write state=up, state=drain or state=down", argument);
    *state = (rp_admin_state)found;
    return NULL;
}

static const char *parse_name(apr_pool_t *pool, const char *argument, const char *value,
                              const char *what, const char **name)
{
    *name = value;
    if (rp_balancer_is_name(value))
        return NULL;
    return apr_psprintf(pool, "\"%s\": a %s has 1 to 64 letters, digits, '.', '-' and '_'",
                        argument, what);
}

static const char *parse_weight(apr_pool_t *pool, const char *argument, const char *value,
                                int *weight)
{
    if (!strcmp(value, "0"))
        return apr_psprintf(pool, "\"%s\": a member without weight would get no request; write "
                            "state=drain instead", argument);
    if (strchr(value, '.'))
        return apr_psprintf(pool, "\"%s\": weights are whole numbers from 1 to %d; multiply all "
                            "of the pool by the same number", argument, RP_ROSTER_WEIGHT_MAX);
    return rp_argument_number(pool, argument, value, 1, RP_ROSTER_WEIGHT_MAX, weight);
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
        return parse_name(pool, argument, value, "zone", &more->zone);
    case KEY_ROUTE:
        return parse_name(pool, argument, value, "route", &more->route);
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
    static const char *const names[] = { "weight", "loadfactor", "max", "zone", "route",
                                         "slowstart", "state", NULL };
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
    more->url = rp_balancer_normal_url(pool, url);
    if (strncasecmp(url, "unix:", 5) != 0 && strchr(url, '#'))
        return apr_psprintf(pool, "%s: a member has no fragment; remove what begins with '#'", url);
    more->is_service = rp_discovery_is_service(pool, url, &url);
    return parse(pool, url, &more->target);
}

/** Another number when what is written of a member is edited. */
static apr_uint64_t hash_of(apr_pool_t *pool, const apr_array_header_t *words,
                            const ap_directive_t *inside)
{
    apr_uint64_t hash = rp_hash_text(apr_array_pstrcat(pool, words, ' '));

    for (; inside; inside = inside->next)
        hash = rp_mix(hash ^ rp_hash_text(apr_pstrcat(pool, inside->directive, " ", inside->args,
                                                      NULL)));
    return hash;
}

/** inside: what stands in the member's section, NULL: nothing, or it is a line. */
static const char *add_member(cmd_parms *cmd, rp_balancer *balancer, apr_array_header_t *words,
                              ap_directive_t *inside)
{
    rproxy_member member = { .weight = 1 };
    rp_member more = { 0 };
    const char *message;

    if (!words->nelts)
        return "RProxyMember needs the URL of a server, as in RProxyMember http://10.0.0.1:8080";
    member.name = APR_ARRAY_IDX(words, 0, const char *);
    more.stanza = hash_of(cmd->pool, words, inside);
    if ((message = parse_url(cmd->pool, member.name, &more))
        || (message = rp_proxy_names_take(cmd, words, &inside))
        || (message = parse_keys(cmd->pool, words, &member, &more)))
        return apr_psprintf(cmd->pool, "RProxyMember: %s", message);
    for (int i = 0; i < balancer->parsed_more->nelts; i++) {
        if (!strcmp(APR_ARRAY_IDX(balancer->parsed_more, i, rp_member).url, more.url))
            return apr_psprintf(cmd->pool, "RProxyMember %s stands twice in the pool \"%s\"; keep "
                                "one, with a higher weight= if it is to get more", member.name,
                                balancer->name);
    }
    if ((message = rp_balancer_read_inside(cmd, inside, 1, &more.section)))
        return message;
    APR_ARRAY_PUSH(balancer->parsed_members, rproxy_member) = member;
    APR_ARRAY_PUSH(balancer->parsed_more, rp_member) = more;
    return NULL;
}

const char *rp_balancer_member(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer = rp_balancer_section_of(cmd);

    (void)dir;
    return balancer ? add_member(cmd, balancer, rp_argument_words(cmd->pool, arguments), NULL)
                    : rp_balancer_misplaced(cmd);
}

const char *rp_balancer_member_section(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer = rp_balancer_section_of(cmd);
    apr_array_header_t *words;
    const char *message;

    (void)dir;
    if (!balancer)
        return rp_balancer_misplaced(cmd);
    message = rp_balancer_section_words(cmd, arguments, &words);
    return message ? message : add_member(cmd, balancer, words, cmd->directive->first_child);
}

/* ---- RProxyOutlier --------------------------------------------------------------------------- */

static const char *take_outlier(apr_pool_t *pool, const char *argument, int key, const char *value,
                                rp_balancer *balancer)
{
    rp_outlier *outlier = &balancer->outlier;

    switch (key) {
    case RP_KEY_OFF:
        outlier->errors = 0;
        return NULL;
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
                                 rp_balancer *balancer)
{
    static const char *const names[] = { "errors", "window", "eject", "max-eject", "max-percent",
                                         NULL };
    const char *message = rp_balancer_off_or_keys(pool, words, names, take_outlier, balancer);

    if (!message && balancer->outlier.eject > balancer->outlier.max_eject)
        return "eject= is longer than max-eject=, which would cut it; raise max-eject=";
    return message;
}

const char *rp_balancer_outlier(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer;
    apr_array_header_t *words;
    const char *message = rp_balancer_once(cmd, arguments, RP_ONCE_OUTLIER, &balancer, &words);

    (void)dir;
    if (message)
        return message;
    if (!words->nelts)
        return "RProxyOutlier needs off or at least one key, as in RProxyOutlier errors=10";
    message = parse_outlier(cmd->pool, words, balancer);
    return message ? apr_psprintf(cmd->pool, "RProxyOutlier: %s", message) : NULL;
}
