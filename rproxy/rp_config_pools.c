/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Targets that are pools (balancer://NAME): who has them, and what their module gets from us. Its
 * sections are read like any others, but not merged with those of requests: their settings come on
 * top when it is known where an attempt goes. */
#include <string.h>
#include <strings.h>
#include <apr_strings.h>
#include "ap_provider.h"

#include "rproxy/rp_config_private.h"

/** Set in check_config, NULL: no module has pools. */
static const rproxy_pools *pools;

/** rproxy_target_parse() for other modules. */
static const char *rproxy_target_parse(apr_pool_t *pool, const char *text, rproxy_target **target)
{
    const char *mark = strncasecmp(text, "unix:", 5) != 0 ? strchr(text, '#') : NULL;
    const char *url = mark ? apr_pstrmemdup(pool, text, (apr_size_t)(mark - text)) : text;
    rp_target *parsed = NULL;
    const char *message = rp_target_parse(pool, url, &parsed);

    if (!message && parsed->scheme == RP_SCHEME_BALANCER)
        message = apr_psprintf(pool, "target %s: a pool has no other pool as a member; name a "
                               "server", text);
    if (!message && mark)
        message = rp_target_set_address(pool, parsed, mark + 1);
    *target = (rproxy_target *)parsed;
    return message;
}

static void rproxy_target_drop(rproxy_target *target)
{
    rp_endpoint_forget((rp_target *)target);
}

/** What can change from one attempt to the next. RProxyRetry decides whether there is one. */
static const char *const *rproxy_settings_directives(int of_member)
{
    static const char *const names[] = { "RProxyRetry", "RProxyForwarded", "RProxyKeepAlive",
                                         "RProxyPreserveHost", "RProxyTLS", "RProxyTimeout", NULL };

    return of_member ? names + 1 : names;
}

static const rproxy_settings *rproxy_settings_make(apr_pool_t *pool,
                                                   const struct ap_conf_vector_t *pool_section,
                                                   const struct ap_conf_vector_t *member_section)
{
    rp_dir_config *outer = pool_section ? rp_dir_config_of(pool_section) : NULL;
    rp_dir_config *inner = member_section ? rp_dir_config_of(member_section) : NULL;
    const rp_dir_config *dir = inner ? inner : outer;
    rproxy_settings *settings;

    if (!dir)
        return NULL;
    if (outer && inner)
        dir = rp_config_merge_dir(pool, outer, inner);
    settings = apr_pcalloc(pool, sizeof(*settings));
    settings->timeouts = dir->timeouts;
    settings->retry = (const rp_retry_setting *)dir->retry;
    settings->keepalive = (const rp_keepalive_setting *)dir->keepalive;
    settings->tls = dir->tls;
    settings->forwarded = dir->forwarded;
    settings->preserve_host = dir->preserve_host;
    return settings;
}

static struct ssl_ctx_st *rproxy_settings_tls(const server_rec *server,
                                              const rproxy_settings *settings, const char **name)
{
    const rp_dir_config *dir = rp_dir_config_of(server->lookup_defaults);
    const rp_tls *tls = settings && settings->tls ? settings->tls : dir ? dir->tls : NULL;

    *name = tls ? tls->name : NULL;
    return rp_tls_get(tls);
}

static const rproxy_resolver *rproxy_resolver_get(const server_rec *main_server)
{
    return &rp_server_config_of(main_server)->resolver;
}

void rp_config_register_pools(void)
{
    APR_REGISTER_OPTIONAL_FN(rproxy_target_parse);
    APR_REGISTER_OPTIONAL_FN(rproxy_target_drop);
    APR_REGISTER_OPTIONAL_FN(rproxy_settings_directives);
    APR_REGISTER_OPTIONAL_FN(rproxy_settings_make);
    APR_REGISTER_OPTIONAL_FN(rproxy_settings_tls);
    APR_REGISTER_OPTIONAL_FN(rproxy_resolver_get);
}

/* ---- check_config ---------------------------------------------------------------------------- */

static const char *check_target(apr_pool_t *pool, const server_rec *server,
                                const rp_target *target, const char *file, int line)
{
    if (!target || target->scheme != RP_SCHEME_BALANCER)
        return NULL;
    if (!pools)
        return apr_psprintf(pool, "target %s: nothing serves balancer:// targets; load "
                            "mod_rproxy_balancer (%s:%d)", target->text, file, line);
    if (!pools->find(server, target->host))
        return apr_psprintf(pool, "target %s: there is no pool of this name here; write "
                            "<RProxyBalancer %s> in this virtual host or outside of all of them "
                            "(%s:%d)", target->text, target->host, file, line);
    return NULL;
}

typedef struct checking {
    apr_pool_t *pool;
    const server_rec *server;
    const char *message;
} checking;

static int check_route(void *baton, const rp_route *route)
{
    checking *check = baton;

    check->message = check_target(check->pool, check->server, route->target, route->file,
                                  route->line);
    return !check->message;
}

const char *rp_config_check_pools(apr_pool_t *pool, const server_rec *main_server)
{
    const apr_array_header_t *sections = rp_config_written_get()->sections;
    checking check = { pool, main_server, NULL };

    pools = ap_lookup_provider(RPROXY_POOLS_GROUP, RPROXY_POOLS_NAME, RPROXY_POOLS_VERSION);
    for (; check.server && !check.message; check.server = check.server->next)
        rp_route_table_each(rp_server_config_of(check.server)->routes, check_route, &check);
    for (int i = 0; i < sections->nelts && !check.message; i++) {
        const rp_config_section_rule *noted = &APR_ARRAY_IDX(sections, i, rp_config_section_rule);

        check.message = check_target(pool, noted->server, noted->rule->address, noted->rule->file,
                                     noted->rule->line);
    }
    return check.message;
}

/* ---- requests -------------------------------------------------------------------------------- */

rp_reason rp_config_aim(rp_exchange *x, const rp_dir_config *dir, const server_rec *server,
                        rp_target *target, int from_htaccess)
{
    const rp_keepalive *keepalive = dir->keepalive ? dir->keepalive : &rp_keepalive_default;
    void *pool;

    x->address = target;
    if (target->scheme == RP_SCHEME_BALANCER) {
        /* A .htaccess file may name one that isn't there. */
        if (!pools || !(pool = pools->find(server, target->host)))
            return RP_REASON_NO_MEMBER;
        rp_exchange_use_pool(x, pools, pool, dir->tls, keepalive);
        return RP_REASON_NONE;
    }
    x->endpoint = rp_endpoint_get(target, from_htaccess, dir->tls, keepalive);
    return x->endpoint ? RP_REASON_NONE : RP_REASON_TOO_MANY_ENDPOINTS;
}
