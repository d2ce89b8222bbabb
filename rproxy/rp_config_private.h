/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What mod_rproxy.c and the files rproxy/rp_config*.c and rp_explain.c share; nobody else includes
 * it. Directive functions return NULL or a message: httpd adds the directive's file and line. */
#ifndef RP_CONFIG_PRIVATE_H
#define RP_CONFIG_PRIVATE_H

#include "rproxy/rp_argument.h"
#include "rproxy/rp_config.h"

/* ---- rp_config.c: life of the configuration objects ------------------------------------------ */

void *rp_config_create_dir(apr_pool_t *pool, char *path);
void *rp_config_merge_dir(apr_pool_t *pool, void *base, void *add);
void *rp_config_create_server(apr_pool_t *pool, server_rec *server);
void *rp_config_merge_server(apr_pool_t *pool, void *base, void *add);

/** RProxyRetry where it is not written. */
extern const rp_retry rp_retry_default;

#define RP_TIMEOUT_KEYS 6

/** Keys of RProxyTimeout, NULL at the end, and the member of the one with this index. */
extern const char *const rp_timeout_names[RP_TIMEOUT_KEYS + 1];
apr_interval_time_t *rp_timeout_at(rp_timeouts *timeouts, int key);

/** What was written, as far as only the end of the configuration can check or print it. Made anew
 * for each reading of the configuration; .htaccess files add nothing. */
typedef struct rp_config_written {
    apr_array_header_t *tls;            /* rp_tls * */
    apr_array_header_t *sections;       /* rp_config_section_rule */
} rp_config_written;

/** A rule that no table holds. */
typedef struct rp_config_section_rule {
    const server_rec *server;
    rp_local_rule *rule;
    const char *section;                /* "<If ...>" */
} rp_config_section_rule;

/** Never NULL between pre_config and the end of the configuration's pool. */
rp_config_written *rp_config_written_get(void);
int rp_config_begin(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp);

/* ---- rp_config_values.c: where a directive may stand, and its arguments ---------------------- */

enum {
    RP_GUARD_ONCE = 1,                  /* one value: not twice in a section */
    RP_GUARD_NOT_HTACCESS = 2,          /* the administrator's, not the site owner's */
    RP_GUARD_SERVER = 4                 /* outside of all sections but <VirtualHost> */
};

/** Checks where a directive stands. Refuses sections in which none of ours could take effect. */
const char *rp_config_guard(cmd_parms *cmd, unsigned int rules);

int rp_config_in_htaccess(const cmd_parms *cmd);

/** The nearest section around directive whose name is name or nameMatch ("<Location"), or NULL. */
const ap_directive_t *rp_config_enclosing(const ap_directive_t *directive, const char *name);

/** Offers rproxy_target_parse() and rproxy_settings_...() to the module that has pools. */
void rp_config_register_pools(void);

/** Every pool that a rule names is there. Returns NULL or the message. */
const char *rp_config_check_pools(apr_pool_t *pool, const server_rec *main_server);

/* ---- directives ------------------------------------------------------------------------------ */

/* rp_config_pass.c */
const char *rp_config_pass(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_config_pass_match(cmd_parms *cmd, void *dir, const char *arguments);

/* rp_config_rules.c: rules on paths, URLs and cookies, which may be repeated */
const char *rp_config_rewrite(cmd_parms *cmd, void *dir, const char *regex, const char *subst,
                              const char *flags);
const char *rp_config_reverse(cmd_parms *cmd, void *dir, const char *from, const char *to);
const char *rp_config_cookie_domain(cmd_parms *cmd, void *dir, const char *from, const char *to);
const char *rp_config_cookie_path(cmd_parms *cmd, void *dir, const char *from, const char *to);

/* rp_config_settings.c: settings that may stand everywhere */
const char *rp_config_preserve_host(cmd_parms *cmd, void *dir, int on);
const char *rp_config_forwarded(cmd_parms *cmd, void *dir, const char *value);
const char *rp_config_timeout(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_config_retry(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_config_keepalive(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_config_tls(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_config_error_override(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_config_upgrade(cmd_parms *cmd, void *dir, const char *value);
const char *rp_config_ignore_client_abort(cmd_parms *cmd, void *dir, int on);

/* rp_config_server.c: settings of a server or virtual host */
const char *rp_config_allow_target(cmd_parms *cmd, void *dir, const char *text);
const char *rp_config_trusted_proxy(cmd_parms *cmd, void *dir, const char *text);
const char *rp_config_encoded_slashes(cmd_parms *cmd, void *dir, const char *value);
const char *rp_config_resolver(cmd_parms *cmd, void *dir, const char *arguments);
const char *rp_config_engine(cmd_parms *cmd, void *dir, const char *value);
const char *rp_config_engine_threads(cmd_parms *cmd, void *dir, const char *value);

#define RP_ENGINE_THREADS_MAX 64

/* rp_config_metrics.c */
const char *rp_config_metrics_listen(cmd_parms *cmd, void *dir, const char *text);

/** post_config: rules get their counters, the page knows what there is, the socket is opened. */
int rp_config_prepare_metrics(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                              server_rec *main_server);

/** child_init: counts, and serves the page on the socket. */
void rp_config_start_metrics(apr_pool_t *pool, server_rec *main_server);

/* ---- rp_config_check.c: at the end of the configuration -------------------------------------- */

/** check_config, at startup and in httpd -t: checks and indexes routes, loads certificates, fills
 * in defaults that sections may not override. */
int rp_config_check(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                    server_rec *main_server);

/** post_config: tells how many connections a child takes. */
int rp_config_tell_capacity(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                            server_rec *main_server);

/** Connections that a child of the event MPM takes while all its threads are idle; 0: requests
 * can't be parked. threads and factor may be NULL. */
int rp_config_capacity(int *threads, int *factor);

/** child_init, after the upstream room's: the names of all targets are looked up. */
void rp_config_prefetch(const server_rec *main_server);

#endif
