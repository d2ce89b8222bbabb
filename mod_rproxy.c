/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* mod_rproxy: the core's face. Directives, hooks and the module's record; what they do is in
 * rproxy/. */
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"

#include "rproxy/rp_config_private.h"
#include "rproxy/rp_explain.h"
#include "rproxy/engine/rp_eligible.h"
#include "rproxy/engine/rp_engine.h"
#include "rproxy/pipeline/rp_metrics_page.h"
#include "rproxy/pipeline/rp_pipeline.h"

/* Where directives may stand; rp_config_guard() refuses the rest with a message that says more. */
#define EVERYWHERE (RSRC_CONF | ACCESS_CONF | OR_FILEINFO)

static const command_rec directives[] = {
    AP_INIT_RAW_ARGS("RProxyPass", rp_config_pass, NULL, EVERYWHERE,
                     "[PATH] TARGET|! [if=EXPR] [weight=N]: sends requests for PATH to TARGET"),
    AP_INIT_RAW_ARGS("RProxyPassMatch", rp_config_pass_match, NULL, EVERYWHERE,
                     "REGEX TARGET|! [if=EXPR] [weight=N]: sends requests whose path matches"),
    AP_INIT_TAKE23("RProxyRewrite", rp_config_rewrite, NULL, EVERYWHERE,
                   "REGEX SUBST [[NC,QSA,L]]: rewrites the path that is sent"),
    AP_INIT_ITERATE("RProxyAllowTarget", rp_config_allow_target, NULL, EVERYWHERE,
                    "TARGET...: what .htaccess files may send requests to"),
    AP_INIT_FLAG("RProxyPreserveHost", rp_config_preserve_host, NULL, EVERYWHERE,
                 "on (default) sends the client's Host, off the target's"),
    AP_INIT_TAKE1("RProxyForwarded", rp_config_forwarded, NULL, EVERYWHERE,
                  "x (default), rfc7239, both or off: how the upstream is told about the client"),
    AP_INIT_ITERATE("RProxyTrustedProxy", rp_config_trusted_proxy, NULL, EVERYWHERE,
                    "CIDR...: clients whose own forwarding fields are kept"),
    AP_INIT_RAW_ARGS("RProxyTimeout", rp_config_timeout, NULL, EVERYWHERE,
                     "connect=5s first-byte=60s idle=60s total=0 tunnel=1h drain=30s"),
    AP_INIT_RAW_ARGS("RProxyRetry", rp_config_retry, NULL, EVERYWHERE,
                     "tries=2 on=error[,timeout][,CODE...]|off methods=idempotent|all"),
    AP_INIT_RAW_ARGS("RProxyKeepAlive", rp_config_keepalive, NULL, EVERYWHERE,
                     "max=64 idle=60s requests=0 age=0: idle connections per endpoint and child"),
    AP_INIT_RAW_ARGS("RProxyTLS", rp_config_tls, NULL, EVERYWHERE,
                     "verify=on ca=FILE name=HOST cert=FILE key=FILE protocols=LIST ciphers=LIST"),
    AP_INIT_RAW_ARGS("RProxyErrorOverride", rp_config_error_override, NULL, EVERYWHERE,
                     "on, off (default) or CODE...: ErrorDocument instead of the upstream's page"),
    AP_INIT_TAKE1("RProxyUpgrade", rp_config_upgrade, NULL, EVERYWHERE,
                  "websocket (default), any or off"),
    AP_INIT_TAKE1("RProxyEncodedSlashes", rp_config_encoded_slashes, NULL, EVERYWHERE,
                  "pass (default), decode or reject: what becomes of %2F in a path"),
    AP_INIT_TAKE2("RProxyReverse", rp_config_reverse, NULL, EVERYWHERE,
                  "FROM TO: maps addresses in the upstream's response fields"),
    AP_INIT_TAKE2("RProxyCookieDomain", rp_config_cookie_domain, NULL, EVERYWHERE,
                  "FROM TO: maps the Domain of cookies"),
    AP_INIT_TAKE2("RProxyCookiePath", rp_config_cookie_path, NULL, EVERYWHERE,
                  "FROM TO: maps the Path of cookies"),
    AP_INIT_FLAG("RProxyIgnoreClientAbort", rp_config_ignore_client_abort, NULL, EVERYWHERE,
                 "on goes on with the upstream when the client has left (default off)"),
    AP_INIT_RAW_ARGS("RProxyResolver", rp_config_resolver, NULL, EVERYWHERE,
                     "ADDRESS[:PORT]... [min-ttl=1s] [max-ttl=1h] [timeout=5s]: name servers"),
    AP_INIT_TAKE1("RProxyMetricsListen", rp_config_metrics_listen, NULL, EVERYWHERE,
                  "[ADDRESS:]PORT: where http://ADDRESS:PORT/metrics is served, by a thread of its "
                  "own"),
    AP_INIT_TAKE1("RProxyEngine", rp_config_engine, NULL, EVERYWHERE,
                  "auto (default), on or off: whether event loops serve what only needs proxying"),
    AP_INIT_TAKE1("RProxyEngineThreads", rp_config_engine_threads, NULL, EVERYWHERE,
                  "event loops per child, 1 to 64; default: one per CPU"),
    { .name = NULL }
};

static void child_init(apr_pool_t *pool, server_rec *server)
{
    apr_status_t rv;

    rp_config_start_metrics(pool, server);
    rv = rp_upstream_child_init(pool, server, &rp_server_config_of(server)->resolver);
    if (rv == APR_SUCCESS) {
        rp_config_prefetch(server);
        rv = rp_pipeline_child_init(pool, server);
    }
    if (rv == APR_SUCCESS) {
        rv = rp_engine_child_init(pool, server);
    }
    if (rv != APR_SUCCESS)
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, server, "RP0303: this child can't proxy, its "
                     "start failed: raise the limits of descriptors, threads and memory, then "
                     "restart");
}

static void register_hooks(apr_pool_t *pool)
{
    ap_hook_pre_config(rp_config_begin, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_check_config(rp_config_check, NULL, NULL, APR_HOOK_LAST);
    ap_hook_test_config(rp_explain, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(rp_config_tell_capacity, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(rp_eligible_tell, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(rp_config_prepare_metrics, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(child_init, NULL, NULL, APR_HOOK_MIDDLE);
    rp_config_register_pools();
    rp_metrics_page_register_hooks();
    rp_pipeline_register_hooks(pool);
    rp_engine_register_hooks(pool);
}

AP_DECLARE_MODULE(rproxy) = {
    STANDARD20_MODULE_STUFF,
    rp_config_create_dir,
    rp_config_merge_dir,
    rp_config_create_server,
    rp_config_merge_server,
    directives,
    register_hooks,
    AP_MODULE_FLAG_NONE
};
