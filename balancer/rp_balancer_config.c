/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* <RProxyBalancer>, RProxyMethod, RProxyZone, and the end of the configuration. */
#include <string.h>
#include <strings.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include "ap_mpm.h"
#include "ap_provider.h"
#include "http_core.h"
#include "http_log.h"

#include "balancer/rp_balancer_config.h"
#include "balancer/rp_discovery.h"
#include "balancer/rp_entry.h"
#include "balancer/rp_health.h"
#include "balancer/rp_keeper.h"
#include "balancer/rp_mix.h"
#include "balancer/rp_state_file.h"
#include "balancer/rp_sticky.h"
#include "rproxy/rp_argument.h"

/** Of the configuration that is read, or was read last. */
static struct reading {
    apr_array_header_t *all;            /* rp_balancer * */
    rp_balancer *section;               /* whose section is being read */
    const char *zone;
    const ap_directive_t *zone_at;
} reading;

int rp_balancer_begin(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    (void)plog;
    (void)ptemp;
    memset(&reading, 0, sizeof(reading));
    rp_state_file_reset();
    rp_keeper_reset(pconf);
    reading.all = apr_array_make(pconf, 8, sizeof(rp_balancer *));
    return OK;
}

const apr_array_header_t *rp_balancer_all(void)
{
    return reading.all;
}

void *rp_balancer_create_server(apr_pool_t *pool, server_rec *server)
{
    rp_balancer_server *config = apr_pcalloc(pool, sizeof(*config));

    (void)server;
    config->balancers = apr_hash_make(pool);
    return config;
}

void *rp_balancer_merge_server(apr_pool_t *pool, void *base, void *add)
{
    const rp_balancer_server *outer = base, *inner = add;
    rp_balancer_server *config = apr_pcalloc(pool, sizeof(*config));

    config->balancers = apr_hash_overlay(pool, inner->balancers, outer->balancers);
    return config;
}

static rp_balancer_server *server_config(const server_rec *server)
{
    return ap_get_module_config(server->module_config, &rproxy_balancer_module);
}

void *rp_balancer_find(const server_rec *server, const char *name)
{
    return apr_hash_get(server_config(server)->balancers, name, APR_HASH_KEY_STRING);
}

/* ---- <RProxyBalancer> ------------------------------------------------------------------------ */

rp_balancer *rp_balancer_section_of(cmd_parms *cmd)
{
    const ap_directive_t *parent = cmd->directive->parent;

    return parent && !strcasecmp(parent->directive, "<RProxyBalancer") ? reading.section : NULL;
}

const char *rp_balancer_misplaced(cmd_parms *cmd)
{
    return apr_psprintf(cmd->pool, "%s describes a pool; move it between <RProxyBalancer NAME> and "
                        "</RProxyBalancer>", cmd->cmd->name);
}

const char *rp_balancer_once(cmd_parms *cmd, const char *arguments, unsigned int which,
                             rp_balancer **balancer, apr_array_header_t **words)
{
    *balancer = rp_balancer_section_of(cmd);
    *words = rp_argument_words(cmd->pool, arguments);
    if (!*balancer)
        return rp_balancer_misplaced(cmd);
    if ((*balancer)->once & which)
        return apr_psprintf(cmd->pool, "%s stands twice in the pool \"%s\"; keep one",
                            cmd->cmd->name, (*balancer)->name);
    (*balancer)->once |= which;
    return NULL;
}

const char *rp_balancer_off_or_keys(apr_pool_t *pool, const apr_array_header_t *words,
                                    const char *const *names, rp_balancer_take *take,
                                    rp_balancer *balancer)
{
    const char *message = NULL;
    unsigned int seen = 0;

    for (int i = 0; i < words->nelts && !message; i++) {
        const char *argument = APR_ARRAY_IDX(words, i, const char *), *value = NULL;
        int key = RP_KEY_OFF;

        if (strcasecmp(argument, "off") != 0)
            message = rp_argument_key(pool, argument, names, &seen, &key, &value);
        else if (words->nelts != 1)
            message = "off stands alone; write it, or keys";
        if (!message)
            message = take(pool, argument, key, value, balancer);
    }
    return message;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const ap_list_provider_names_t *)a)->provider_name,
                  ((const ap_list_provider_names_t *)b)->provider_name);
}

const char *rp_balancer_provider_names(apr_pool_t *pool, const char *group, const char *version)
{
    apr_array_header_t *known = ap_list_provider_names(pool, group, version);
    const char *list = "";

    qsort(known->elts, (size_t)known->nelts, sizeof(ap_list_provider_names_t), by_name);
    for (int i = 0; i < known->nelts; i++)
        list = apr_pstrcat(pool, list, i ? ", " : "",
                           APR_ARRAY_IDX(known, i, ap_list_provider_names_t).provider_name, NULL);
    return list;
}

static const char *check_place(cmd_parms *cmd)
{
    const ap_directive_t *parent = cmd->directive->parent;

    if (cmd->path || (parent && strcasecmp(parent->directive, "<VirtualHost") != 0))
        return apr_psprintf(cmd->pool, "%s%s holds for a whole server; move it out of %s>, into "
                            "<VirtualHost> or the main server", cmd->cmd->name,
                            *cmd->cmd->name == '<' ? ">" : "",
                            parent ? parent->directive : "the section");
    return NULL;
}

const char *rp_balancer_section_words(cmd_parms *cmd, const char *arguments,
                                      apr_array_header_t **words)
{
    const char *end = strrchr(arguments, '>');
    apr_size_t len = end ? (apr_size_t)(end - arguments) : strlen(arguments);

    *words = rp_argument_words(cmd->pool, apr_pstrmemdup(cmd->pool, arguments, len));
    if (!end || end[1])
        return apr_psprintf(cmd->pool, "%s has no \">\" at its end; add it", cmd->cmd->name);
    return NULL;
}

static const char *parse_name(cmd_parms *cmd, const char *arguments, const char **name)
{
    apr_array_header_t *words;
    const char *message = rp_balancer_section_words(cmd, arguments, &words);
    char *lower;

    if (message)
        return message;
    if (words->nelts != 1)
        return "<RProxyBalancer> needs one name, as in <RProxyBalancer app>, for the target "
               "balancer://app/";
    lower = apr_pstrdup(cmd->pool, APR_ARRAY_IDX(words, 0, const char *));
    if (!rp_balancer_is_name(lower))
        return apr_psprintf(cmd->pool, "<RProxyBalancer \"%s\">: a name has 1 to 64 letters, "
                            "digits, '.', '-' and '_'", lower);
    ap_str_tolower(lower);
    *name = lower;
    return NULL;
}

static rp_balancer *make_balancer(cmd_parms *cmd, const char *name)
{
    rp_balancer *balancer = apr_pcalloc(cmd->pool, sizeof(*balancer));

    balancer->name = name;
    balancer->file = cmd->directive->filename;
    balancer->line = cmd->directive->line_num;
    balancer->server = cmd->server;
    balancer->method = &rp_method_roundrobin;
    balancer->method_name = "roundrobin";
    balancer->outlier = rp_outlier_default;
    balancer->budget = rp_budget_default;
    balancer->parsed_members = apr_array_make(cmd->pool, 8, sizeof(rproxy_member));
    balancer->parsed_more = apr_array_make(cmd->pool, 8, sizeof(rp_member));
    balancer->discovered = apr_array_make(cmd->pool, 2, sizeof(rp_source *));
    return balancer;
}

const char *rp_balancer_section(cmd_parms *cmd, void *dir, const char *arguments)
{
    const char *name = "", *message;
    rp_balancer *balancer;

    (void)dir;
    if ((message = check_place(cmd)) || (message = parse_name(cmd, arguments, &name)))
        return message;
    for (int i = 0; i < reading.all->nelts; i++) {
        const rp_balancer *other = APR_ARRAY_IDX(reading.all, i, rp_balancer *);

        /* Not even in two virtual hosts: the name is how state, logs and status know a pool. */
        if (!strcmp(other->name, name))
            return apr_psprintf(cmd->pool, "<RProxyBalancer %s> stands twice: here (%s:%d) and at "
                                "%s:%d; give one of them another name, or keep one outside of "
                                "<VirtualHost> for all", name, cmd->directive->filename,
                                cmd->directive->line_num, other->file, other->line);
    }
    balancer = make_balancer(cmd, name);
    reading.section = balancer;
    message = rp_balancer_read_inside(cmd, cmd->directive->first_child, 0, &balancer->section);
    reading.section = NULL;
    if (message)
        return message;
    if (!balancer->parsed_members->nelts && !balancer->discovered->nelts)
        return apr_psprintf(cmd->pool, "<RProxyBalancer %s> has no members; add at least one, as "
                            "in RProxyMember http://10.0.0.1:8080, or RProxyMembersFile", name);
    rp_balancer_make_settings(cmd->pool, balancer);
    APR_ARRAY_PUSH(reading.all, rp_balancer *) = balancer;
    apr_hash_set(server_config(cmd->server)->balancers, name, APR_HASH_KEY_STRING, balancer);
    return NULL;
}

/* ---- RProxyMethod, RProxyZone ---------------------------------------------------------------- */

const char *rp_balancer_method(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer;
    apr_array_header_t *words;
    const char *message = rp_balancer_once(cmd, arguments, RP_ONCE_METHOD, &balancer, &words);
    char *name;

    (void)dir;
    if (message)
        return message;
    if (!words->nelts)
        return "RProxyMethod needs a name, as in RProxyMethod leastconn";
    name = apr_pstrdup(cmd->pool, APR_ARRAY_IDX(words, 0, const char *));
    ap_str_tolower(name);
    balancer->method = ap_lookup_provider(RPROXY_METHOD_GROUP, name, RPROXY_METHOD_VERSION);
    if (!balancer->method)
        return apr_psprintf(cmd->pool, "RProxyMethod \"%s\" is unknown; there are %s", name,
                            rp_balancer_provider_names(cmd->pool, RPROXY_METHOD_GROUP,
                                                       RPROXY_METHOD_VERSION));
    balancer->method_name = name;
    words->elts += words->elt_size;
    words->nelts--;
    if (balancer->method->configure)
        message = balancer->method->configure(cmd->pool, words, &balancer->method_config);
    else if (words->nelts)
        message = apr_psprintf(cmd->pool, "it takes no arguments; remove \"%s\"",
                               APR_ARRAY_IDX(words, 0, const char *));
    return message ? apr_psprintf(cmd->pool, "RProxyMethod %s: %s", name, message) : NULL;
}

const char *rp_balancer_zone(cmd_parms *cmd, void *dir, const char *name)
{
    const char *message = ap_check_cmd_context(cmd, GLOBAL_ONLY);

    (void)dir;
    if (message)
        return "RProxyZone says where this server stands; move it out of all sections";
    if (reading.zone)
        return apr_psprintf(cmd->pool, "RProxyZone stands twice: here (%s:%d) and at %s:%d; keep "
                            "one", cmd->directive->filename, cmd->directive->line_num,
                            reading.zone_at->filename, reading.zone_at->line_num);
    if (!rp_balancer_is_name(name))
        return apr_psprintf(cmd->pool, "RProxyZone \"%s\": a zone has 1 to 64 letters, digits, "
                            "'.', '-' and '_'", name);
    reading.zone = name;
    reading.zone_at = cmd->directive;
    return NULL;
}

/* ---- check_config ---------------------------------------------------------------------------- */

/** What only the whole section can tell. */
static const char *complete(apr_pool_t *pool, rp_balancer *balancer, int *has_zones)
{
    const char *message;

    balancer->members = (rproxy_member *)balancer->parsed_members->elts;
    balancer->more = (rp_member *)balancer->parsed_more->elts;
    balancer->count = balancer->parsed_members->nelts;
    balancer->zone = reading.zone;
    for (int i = 0; i < balancer->count; i++) {
        rp_member *member = &balancer->more[i];

        if (member->zone && !reading.zone)
            return apr_psprintf(pool, "member %s has zone=%s, but the server doesn't say in which "
                                "zone it is; write RProxyZone, or remove zone=",
                                balancer->members[i].name, member->zone);
        *has_zones |= member->zone != NULL;
        member->rank = rp_member_rank(balancer, member);
        balancer->stanza = rp_mix(balancer->stanza + member->stanza);
    }
    if ((message = rp_discovery_complete(pool, balancer))
        || (message = rp_sticky_complete(pool, balancer)))
        return message;
    return rp_health_complete(pool, balancer);
}

int rp_balancer_check(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *server)
{
    int has_zones = 0;

    (void)plog;
    (void)ptemp;
    for (int i = 0; i < reading.all->nelts; i++) {
        rp_balancer *balancer = APR_ARRAY_IDX(reading.all, i, rp_balancer *);
        const char *message = complete(pconf, balancer, &has_zones);

        if (message) {
            ap_log_error(APLOG_MARK, APLOG_STARTUP | APLOG_ERR, 0, server,
                         "RP0405: <RProxyBalancer %s> (%s:%d): %s", balancer->name, balancer->file,
                         balancer->line, message);
            return HTTP_INTERNAL_SERVER_ERROR;
        }
    }
    if (reading.zone && !has_zones) {
        ap_log_error(APLOG_MARK, APLOG_STARTUP | APLOG_ERR, 0, server,
                     "RP0405: RProxyZone %s (%s:%d) has no effect, for no member has zone=; remove "
                     "it, or add zone= to members", reading.zone, reading.zone_at->filename,
                     reading.zone_at->line_num);
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    return OK;
}

/* ---- post_config ----------------------------------------------------------------------------- */

static int fail(const server_rec *server, apr_status_t rv, const char *message)
{
    ap_log_error(APLOG_MARK, APLOG_CRIT, rv, server, "RP0401: %s", message);
    return HTTP_INTERNAL_SERVER_ERROR;
}

/** With the roster's lock, for children of the last configuration may change rosters meanwhile.
 * Returns NULL or a message. */
static const char *claim_all(apr_pool_t *pconf, apr_pool_t *ptemp, const server_rec *server)
{
    apr_time_t now = rp_shared_is_fresh() ? 0 : apr_time_now();

    for (int i = 0; i < reading.all->nelts; i++) {
        if (!rp_balancer_claim(pconf, APR_ARRAY_IDX(reading.all, i, rp_balancer *), now))
            return apr_psprintf(ptemp, "pools and their members are more than %d; remove some, or "
                                "stop and start the server if many of former configurations are "
                                "gone", RP_SLOTS_MAX);
    }
    if (rp_shared_is_fresh())
        rp_state_file_read(ptemp, server, reading.all);
    return NULL;
}

int rp_balancer_post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                            server_rec *server)
{
    const char *message = NULL;
    int children = 0;
    apr_status_t rv;

    (void)plog;
    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG || !reading.all->nelts)
        return OK;
    ap_mpm_query(AP_MPMQ_HARD_LIMIT_DAEMONS, &children);
    rv = rp_roster_open(server->process->pool);
    if (rv == APR_SUCCESS) {
        rp_roster_lock();
        rv = rp_shared_open(server->process->pool, ptemp, children);
        if (rv == APR_SUCCESS)
            message = claim_all(pconf, ptemp, server);
        rp_roster_unlock();
    }
    if (rv != APR_SUCCESS)
        return fail(server, rv, "no shared memory for the pools; raise the limits of shared "
                    "memory, or lower ServerLimit");
    if (message)
        return fail(server, 0, message);
    if ((rv = rp_keeper_prepare(server->process->pool)) != APR_SUCCESS)
        return fail(server, rv, "no descriptor for health checks; raise the limit of open files");
    rp_health_add_duty();
    rp_discovery_add_duty();
    rp_state_file_add_duty();
    for (int i = 0; i < reading.all->nelts; i++) {
        if (!rp_views_create(pconf, APR_ARRAY_IDX(reading.all, i, rp_balancer *), apr_time_now()))
            return fail(server, APR_ENOMEM, "no memory for the pools; there must be more, or fewer "
                        "members");
    }
    return rp_sticky_start(pconf, ptemp, server, reading.all) ? OK : HTTP_INTERNAL_SERVER_ERROR;
}
