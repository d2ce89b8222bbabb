/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* mod_rproxy_balancer: the balancer's face. Directives, hooks and the module's record; what they do
 * is in balancer/. */
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "ap_mpm.h"
#include "mpm_common.h"
#include "ap_provider.h"

#include "balancer/rp_discovery.h"
#include "balancer/rp_health.h"
#include "balancer/rp_keeper.h"
#include "balancer/rp_manager.h"
#include "balancer/rp_state_file.h"
#include "balancer/rp_sticky.h"

/* In sections too, so that a message of ours can say where they belong. */
#define IN_SERVER (RSRC_CONF | ACCESS_CONF)

static const command_rec directives[] = {
    AP_INIT_RAW_ARGS("<RProxyBalancer", rp_balancer_section, NULL, IN_SERVER,
                     "NAME: a pool of servers, for the target balancer://NAME/"),
    AP_INIT_RAW_ARGS("RProxyMember", rp_balancer_member, NULL, IN_SERVER,
                     "URL [weight=1 max=0 backup zone=Z slowstart=30s state=up|drain|down]"),
    AP_INIT_RAW_ARGS("<RProxyMember", rp_balancer_member_section, NULL, IN_SERVER,
                     "URL ...: a member with settings of its own"),
    AP_INIT_RAW_ARGS("RProxyMembersFile", rp_discovery_members_file, NULL, IN_SERVER,
                     "PATH [interval=2s]: JSON with members that come and go"),
    AP_INIT_RAW_ARGS("RProxyResolve", rp_discovery_resolve, NULL, IN_SERVER,
                     "ttl=auto|TIME [min=1s max=1h ipv4 ipv6 resolvers=ADDRESS,...]: each address "
                     "of a member's name is a member"),
    AP_INIT_RAW_ARGS("RProxyDiscover", rp_discovery_directive, NULL, IN_SERVER,
                     "NAME ...: members that a provider of another module finds"),
    AP_INIT_TAKE1("RProxyStateFile", rp_state_file_directive, NULL, IN_SERVER,
                  "PATH: keeps what was changed of members at run time over a stop"),
    AP_INIT_RAW_ARGS("RProxyMethod", rp_balancer_method, NULL, IN_SERVER,
                     "roundrobin (default), leastconn, leasttime, random2, bytraffic, first or "
                     "hash KEY [bounded=1.25] [maglev]"),
    AP_INIT_RAW_ARGS("RProxyOutlier", rp_balancer_outlier, NULL, IN_SERVER,
                     "errors=5 window=10s eject=5s max-eject=60s max-percent=50, or off"),
    AP_INIT_RAW_ARGS("RProxyHealthCheck", rp_health_directive, NULL, IN_SERVER,
                     "http, tcp, tls or grpc [uri=/ interval=5s timeout=2s rise=2 fall=3 "
                     "expect=200-399 body=REGEX ...], or agent port=N"),
    AP_INIT_RAW_ARGS("RProxyQueue", rp_balancer_queue, NULL, IN_SERVER,
                     "max=100 timeout=5s, or off (default): who waits when all are at max="),
    AP_INIT_RAW_ARGS("RProxyRetryBudget", rp_balancer_retry_budget, NULL, IN_SERVER,
                     "percent=50 min=20 (default), or off: how many requests may be retries"),
    AP_INIT_RAW_ARGS("RProxySticky", rp_balancer_sticky, NULL, IN_SERVER,
                     "cookie=NAME [ttl= key= ...], route=COOKIE[|PARAM], learn=COOKIE, header=NAME "
                     "or ip; down=repin|temporary|fail"),
    AP_INIT_RAW_ARGS("RProxyManager", rp_manager_directive, NULL, IN_SERVER,
                     "changes=on, off (default) or EXPRESSION: whether SetHandler rproxy-manager "
                     "in this Location may change members"),
    AP_INIT_TAKE1("RProxyZone", rp_balancer_zone, NULL, IN_SERVER,
                  "NAME: the zone this server is in; members of it are preferred"),
    { .name = NULL }
};

static const rproxy_pools pools = {
    .find = rp_balancer_find,
    .settings = rp_balancer_settings,
    .choose = rp_balancer_choose,
    .leave = rp_balancer_leave,
    .retry = rp_balancer_retry,
    .release = rp_balancer_release,
    .answer = rp_sticky_answer,
    .variables = rp_sticky_variables
};

static void child_init(apr_pool_t *pool, server_rec *server)
{
    const apr_array_header_t *all = rp_balancer_all();
    apr_status_t rv;

    if (all->nelts && !rp_shared_enter())
        ap_log_error(APLOG_MARK, APLOG_CRIT, 0, server, "RP0404: this child can't use pools, more "
                     "children live than ServerLimit says; restart the server");
    else if (all->nelts && (rv = rp_waiting_start(pool, all)) != APR_SUCCESS)
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, server, "RP0417: no thread for requests that wait "
                     "for members: none waits in this child; raise the limits of threads");
    if (all->nelts && rp_shared_has_row() && (rv = rp_keeper_start(pool, server)) != APR_SUCCESS)
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, server, "RP0423: no thread for health checks and "
                     "discovery in this child; raise the limits of threads and open files");
}

static void child_status(server_rec *server, pid_t pid, ap_generation_t generation, int slot,
                         mpm_child_status state)
{
    (void)server;
    (void)generation;
    (void)slot;
    if (state == MPM_CHILD_EXITED) {
        rp_shared_settle((int)pid);
        rp_keeper_settle((int)pid);
    }
}

static int monitor(apr_pool_t *pool, server_rec *server)
{
    (void)pool;
    (void)server;
    rp_shared_settle_rest();
    return DECLINED;
}

static void register_hooks(apr_pool_t *pool)
{
    rp_balancer_register_methods(pool);
    rp_probe_register(pool);
    rp_discovery_register(pool);
    rp_balancer_register_status();
    rp_balancer_register_metrics(pool);
    rp_manager_register();
    ap_register_provider(pool, RPROXY_POOLS_GROUP, RPROXY_POOLS_NAME, RPROXY_POOLS_VERSION, &pools);
    ap_hook_pre_config(rp_balancer_begin, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_check_config(rp_balancer_check, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(rp_balancer_post_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(child_init, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_status(child_status, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_monitor(monitor, NULL, NULL, APR_HOOK_MIDDLE);
}

AP_DECLARE_MODULE(rproxy_balancer) = {
    STANDARD20_MODULE_STUFF,
    rp_manager_create_dir,
    rp_manager_merge_dir,
    rp_balancer_create_server,
    rp_balancer_merge_server,
    directives,
    register_hooks,
    AP_MODULE_FLAG_NONE
};
