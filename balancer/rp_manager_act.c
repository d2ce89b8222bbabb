/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the manager does with members. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_log.h"

#include "balancer/rp_manager.h"
#include "rproxy/rp_argument.h"

APLOG_USE_MODULE(rproxy_balancer);

rp_balancer *rp_manager_pool(const char *name)
{
    const apr_array_header_t *all = rp_balancer_all();

    for (int i = 0; i < all->nelts; i++) {
        rp_balancer *balancer = APR_ARRAY_IDX(all, i, rp_balancer *);

        if (!strcasecmp(balancer->name, name))
            return balancer;
    }
    return NULL;
}

const rp_roster_member *rp_manager_member(const rp_manager *manager, rp_balancer *balancer,
                                          const char *id, unsigned long long *version)
{
    const char *url = rp_manager_id_url(manager->r->pool, id);
    const apr_array_header_t *members = rp_roster_list(manager->r->pool, balancer, version);

    for (int i = 0; i < members->nelts && url; i++) {
        const rp_roster_member *member = &APR_ARRAY_IDX(members, i, const rp_roster_member);

        if (!strcmp(member->key, url))
            return member;
    }
    return NULL;
}

rp_manager_action rp_manager_action_begin(const rp_manager *manager, rp_balancer *balancer)
{
    return (rp_manager_action){
        .balancer = balancer, .number = -1, .what = "",
        .change = { .from = RP_FROM_API, .who = manager->who, .pool = manager->r->pool }
    };
}

/* ---- values ---------------------------------------------------------------------------------- */

static const char *take_state(apr_pool_t *pool, const char *text, rp_admin_state *state)
{
    int found = rp_state_named(text);

    if (found < 0)
        return apr_psprintf(pool, "state \"%s\": write up, drain or down", text);
    *state = (rp_admin_state)found;
    return NULL;
}

static const char *take_number(apr_pool_t *pool, const char *key, const char *text, int min,
                               int max, int *number)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (!apr_isdigit(*text) || *end || value < min || value > max || strlen(text) > 10)
        return apr_psprintf(pool, "%s \"%s\": write a whole number from %d to %d", key, text, min,
                            max);
    *number = (int)value;
    return NULL;
}

static const char *take_name(apr_pool_t *pool, const char *key, const char *text, char *name)
{
    apr_cpystrn(name, text, RP_ROSTER_NAME_MAX + 1);
    return rp_roster_check_name(pool, key, text);
}

static const char *take(rp_manager_action *action, unsigned int which, const char *key,
                        const char *text)
{
    apr_pool_t *pool = action->change.pool;
    rp_roster_values *values = &action->change.values;

    switch (which) {
    case RP_VALUE_STATE:
        return take_state(pool, text, &values->state);
    case RP_VALUE_WEIGHT:
        return take_number(pool, key, text, 1, RP_ROSTER_WEIGHT_MAX, &values->weight);
    case RP_VALUE_MAX:
        return take_number(pool, key, text, 0, 1000000000, &values->max);
    case RP_VALUE_BACKUP:
        values->is_backup = !strcasecmp(text, "true");
        return values->is_backup || !strcasecmp(text, "false")
            ? NULL : apr_psprintf(pool, "backup \"%s\": write true or false", text);
    case RP_VALUE_ZONE:
        return take_name(pool, key, text, values->zone);
    case RP_VALUE_ROUTE:
        return take_name(pool, key, text, values->route);
    default:
        return rp_argument_time(pool, apr_pstrcat(pool, key, "=", text, NULL), text, 1,
                                &values->slow_start);
    }
}

const rp_manager_key rp_manager_keys[RP_MANAGER_KEYS] = {
    { "state", RP_VALUE_STATE }, { "weight", RP_VALUE_WEIGHT }, { "max", RP_VALUE_MAX },
    { "backup", RP_VALUE_BACKUP }, { "zone", RP_VALUE_ZONE }, { "route", RP_VALUE_ROUTE },
    { "slowstart", RP_VALUE_SLOW_START }
};

const char *rp_manager_set(rp_manager_action *action, const char *key, const char *text)
{
    apr_pool_t *pool = action->change.pool;
    const char *message;

    for (int i = 0; i < RP_MANAGER_KEYS; i++) {
        unsigned int which = rp_manager_keys[i].which;

        if (strcmp(key, rp_manager_keys[i].name) != 0)
            continue;
        if (text && (message = take(action, which, key, text)))
            return message;
        action->change.set = text ? action->change.set | which : action->change.set & ~which;
        action->change.forget = text ? action->change.forget & ~which
                                     : action->change.forget | which;
        action->what = apr_pstrcat(pool, action->what, " ", key, "=", text ? text : "(configured)",
                                   NULL);
        return NULL;
    }
    return apr_psprintf(pool, "\"%s\" is unknown; there are state, weight, max, backup, zone, "
                        "route and slowstart", key);
}

/* ---- actions --------------------------------------------------------------------------------- */

/** URLs are written in ASCII: other characters as %XX. */
static int is_writable(const char *url)
{
    for (; *url; url++) {
        if (!apr_isgraph(*url))
            return 0;
    }
    return 1;
}

static rp_roster_result add(rp_manager_action *action)
{
    if (!action->url || !*action->url || !is_writable(action->url)) {
        action->change.message = "there is no URL, or it has characters that don't belong there; "
                                 "write one as in http://10.0.0.1:8080, with %XX for others than "
                                 "ASCII";
        return RP_ROSTER_BAD;
    }
    return rp_roster_add(action->balancer, action->url, &action->change, &action->number);
}

static int status_of(rp_roster_result result, rp_manager_verb verb)
{
    switch (result) {
    case RP_ROSTER_OK:
        return verb == RP_MANAGER_ADD ? HTTP_CREATED : HTTP_OK;
    case RP_ROSTER_BAD:
        return HTTP_BAD_REQUEST;
    case RP_ROSTER_UNKNOWN:
        return HTTP_NOT_FOUND;
    case RP_ROSTER_DUPLICATE:
        return HTTP_CONFLICT;
    case RP_ROSTER_OUTDATED:
        return HTTP_PRECONDITION_FAILED;
    default:
        return HTTP_INSUFFICIENT_STORAGE;
    }
}

int rp_manager_act(rp_manager_action *action, rp_manager_verb verb)
{
    static const char *const did[] = { "added", "changed", "removed", "as configured again",
                                       "all members as configured again" };
    rp_balancer *balancer = action->balancer;
    rp_roster_result result;

    switch (verb) {
    case RP_MANAGER_ADD:
        result = add(action);
        break;
    case RP_MANAGER_CHANGE:
        result = rp_roster_change_member(balancer, action->number, &action->change);
        break;
    case RP_MANAGER_REMOVE:
        result = rp_roster_remove(balancer, action->number, &action->change);
        break;
    case RP_MANAGER_FORGET:
        result = rp_roster_forget(balancer, action->number, &action->change);
        break;
    default:
        result = rp_roster_forget_all(balancer, &action->change);
        break;
    }
    if (result == RP_ROSTER_OK)
        ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, balancer->server, "RP0436: pool %s: %s%s%s%s%s, "
                     "by %s", balancer->name, action->url ? action->url : "",
                     action->url ? " " : "", did[verb], *action->what ? ":" : "", action->what,
                     action->change.who);
    return status_of(result, verb);
}
