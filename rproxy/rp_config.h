/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The configuration as requests see it. Written by rp_config*.c while the configuration is read,
 * checked in check_config, immutable afterwards (per-directory objects of .htaccess files live as
 * long as their request). Unset members hold RP_UNSET or NULL so that sections can be merged. */
#ifndef RP_CONFIG_H
#define RP_CONFIG_H

#include <apr_tables.h>
#include "httpd.h"
#include "http_config.h"
#include "rproxy/exchange/rp_exchange.h"
#include "rproxy/metrics/rp_metrics_listen.h"
#include "rproxy/route/rp_route.h"
#include "rproxy/upstream/rp_upstream.h"

/** A rule from <If>, <Directory> or a .htaccess file: decided upon when the request's sections are
 * merged, i.e. after access control. */
typedef struct rp_local_rule {
    const char *path;                   /* prefix as written or of the enclosing <Location>, normal
                                         * form; NULL: the URL path of directory */
    const char *directory;              /* of <Directory> or .htaccess; NULL in <If> */
    const char *target;                 /* as written; "!" exempts */
    rp_target *address;                 /* target, parsed; lives as the rule does; NULL: exempt */
    const apr_array_header_t *options;
    const char *file;
    int line;
    int from_htaccess;                  /* checked against RProxyAllowTarget */
    int row;                            /* of its counters (rp_metrics_rows.h) */
} rp_local_rule;

/** RProxyErrorOverride. */
typedef struct rp_error_override {
    int all;                            /* every status from 400 on */
    apr_array_header_t *statuses;       /* int; NULL: none listed */
} rp_error_override;

/** Settings that may stand everywhere: server, virtual host, sections, .htaccess. */
typedef struct rp_dir_config {
    rp_timeouts timeouts;               /* each RP_UNSET or microseconds */
    const rp_retry *retry;              /* of an rp_retry_setting */
    const rp_keepalive *keepalive;      /* of an rp_keepalive_setting */
    rp_tls *tls;
    const rp_error_override *error_override;
    const rp_local_rule *rule;
    const apr_array_header_t *rewrites;         /* rp_rewrite * */
    const apr_array_header_t *reverse_rules;    /* rp_reverse_rule */
    const apr_array_header_t *cookie_domains;
    const apr_array_header_t *cookie_paths;
    int upgrade;                        /* rp_upgrade or RP_UNSET */
    int forwarded;                      /* rp_forwarded or RP_UNSET */
    int preserve_host;
    int ignore_client_abort;
} rp_dir_config;

/** RProxyEngine. */
typedef enum rp_engine_mode { RP_ENGINE_AUTO, RP_ENGINE_ON, RP_ENGINE_OFF } rp_engine_mode;

/** Settings of a server or virtual host. */
typedef struct rp_server_config {
    rp_route_table *routes;
    apr_array_header_t *allowed_targets;        /* rp_target *, RProxyAllowTarget */
    apr_array_header_t *trusted_proxies;        /* apr_ipsubnet_t *, RProxyTrustedProxy */
    int encoded_slashes;                        /* rp_encoded_slashes or RP_UNSET */
    rp_resolver_settings resolver;              /* main server only */
    int engine;                                 /* rp_engine_mode or RP_UNSET */
    int engine_threads;                         /* main server only; 0 until check_config fills in
                                                 * the default */
    const rp_metrics_address *metrics;          /* RProxyMetricsListen; main server only; NULL:
                                                 * none */
    const char *via;                            /* value for Via, after post_config */
    const struct rp_eligible_server *eligible;  /* rproxy/engine/rp_eligible.c's, after
                                                 * check_config */
} rp_server_config;

extern module AP_MODULE_DECLARE_DATA rproxy_module;

/** Never NULL. */
static inline rp_server_config *rp_server_config_of(const server_rec *server)
{
    return ap_get_module_config(server->module_config, &rproxy_module);
}

static inline rp_dir_config *rp_dir_config_of(const ap_conf_vector_t *per_dir)
{
    return ap_get_module_config(per_dir, &rproxy_module);
}

/** Nonzero if RProxyErrorOverride (NULL: not written) puts an error page of ours in place of a
 * response with this status. */
int rp_error_override_covers(const rp_error_override *override, int status);

/** Adds the fields of the replaced response that the client needs with the page of ours. */
void rp_error_override_keep(const rp_fields *replaced, rp_fields *kept);

/** Nonzero if RProxyTrustedProxy lists the peer at address. */
int rp_config_trusts(const rp_server_config *server, apr_sockaddr_t *address);

/** How the upstream's addresses become the client's. client_prefix is the path of the route as the
 * client knows it. */
void rp_config_fill_reverse(const rp_dir_config *dir, const rp_exchange_settings *settings,
                            const rp_request *request, const rp_target *target,
                            const char *client_prefix, rp_reverse *reverse);

/** Decides where x's attempts go: to the endpoint of target, or to a member of the pool that it
 * names. What else the lane gives x is set. RP_REASON_NONE, or why there is none. */
rp_reason rp_config_aim(rp_exchange *x, const rp_dir_config *dir, const server_rec *server,
                        rp_target *target, int from_htaccess);

/** What an exchange needs, from the merged sections of a request, defaults filled in. */
void rp_config_exchange_settings(const rp_dir_config *dir, const rp_server_config *server,
                                 rp_exchange_settings *settings);

#endif
