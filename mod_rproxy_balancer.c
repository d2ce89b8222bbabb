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

#include "balancer/rp_balancer.h"

/* In sections too, so that a message of ours can say where they belong. */
#define IN_SERVER (RSRC_CONF | ACCESS_CONF)

static const command_rec directives[] = {
    AP_INIT_RAW_ARGS("<RProxyBalancer", rp_balancer_section, NULL, IN_SERVER,
                     "NAME: a pool of servers, for the target balancer://NAME/"),
    AP_INIT_RAW_ARGS("RProxyMember", rp_balancer_member, NULL, IN_SERVER,
                     "URL [weight=1 max=0 backup zone=Z slowstart=30s state=up|drain|down]"),
    AP_INIT_RAW_ARGS("RProxyMethod", rp_balancer_method, NULL, IN_SERVER,
                     "roundrobin (default), leastconn, leasttime, random2, bytraffic, first or "
                     "hash KEY [bounded=1.25] [maglev]"),
    AP_INIT_RAW_ARGS("RProxyOutlier", rp_balancer_outlier, NULL, IN_SERVER,
                     "errors=5 window=10s eject=5s max-eject=60s max-percent=50, or off"),
    AP_INIT_TAKE1("RProxyZone", rp_balancer_zone, NULL, IN_SERVER,
                  "NAME: the zone this server is in; members of it are preferred"),
    { .name = NULL }
};

static const rproxy_pools pools = {
    .find = rp_balancer_find,
    .choose = rp_balancer_choose,
    .release = rp_balancer_release
};

static void child_init(apr_pool_t *pool, server_rec *server)
{
    const apr_array_header_t *all = rp_balancer_all();

    (void)pool;
    if (all->nelts && !rp_shared_enter())
        ap_log_error(APLOG_MARK, APLOG_CRIT, 0, server, "RP0404: this child can't use pools, more "
                     "children live than ServerLimit says; restart the server");
}

static void child_status(server_rec *server, pid_t pid, ap_generation_t generation, int slot,
                         mpm_child_status state)
{
    (void)server;
    (void)generation;
    (void)slot;
    if (state == MPM_CHILD_EXITED)
        rp_shared_settle((int)pid);
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
    rp_balancer_register_status();
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
    NULL,                               /* create per-directory configuration */
    NULL,                               /* merge per-directory configurations */
    rp_balancer_create_server,
    rp_balancer_merge_server,
    directives,
    register_hooks,
    AP_MODULE_FLAG_NONE
};
