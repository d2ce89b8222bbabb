/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Targets that are pools (balancer://NAME): who has them, and what their module gets from us. */
#include <apr_strings.h>
#include "ap_provider.h"

#include "rproxy/rp_config_private.h"

/** Set in check_config, NULL: no module has pools. */
static const rproxy_pools *pools;

/** rproxy_target_parse() for other modules. */
static const char *rproxy_target_parse(apr_pool_t *pool, const char *text, rproxy_target **target)
{
    rp_target *parsed = NULL;
    const char *message = rp_target_parse(pool, text, &parsed);

    if (!message && parsed->scheme == RP_SCHEME_BALANCER)
        message = apr_psprintf(pool, "target %s: a pool has no other pool as a member; name a "
                               "server", text);
    *target = (rproxy_target *)parsed;
    return message;
}

void rp_config_register_pools(void)
{
    APR_REGISTER_OPTIONAL_FN(rproxy_target_parse);
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
