/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Where requests for the manager come in. */
#include <string.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_log.h"
#include "ap_expr.h"

#include "balancer/rp_balancer_config.h"
#include "balancer/rp_manager.h"
#include "rproxy/rp_argument.h"

APLOG_USE_MODULE(rproxy_balancer);

/** RProxyManager of a section. */
typedef struct manager_config {
    int is_set;
    int changes;                        /* nonzero: allowed */
    const ap_expr_info_t *when;         /* only if that holds; NULL: always */
} manager_config;

/* ---- the directive --------------------------------------------------------------------------- */

void *rp_manager_create_dir(apr_pool_t *pool, char *dir)
{
    (void)dir;
    return apr_pcalloc(pool, sizeof(manager_config));
}

void *rp_manager_merge_dir(apr_pool_t *pool, void *base, void *add)
{
    (void)pool;
    return ((const manager_config *)add)->is_set ? add : base;
}

const char *rp_manager_directive(cmd_parms *cmd, void *dir, const char *arguments)
{
    static const char *const names[] = { "changes", NULL };
    const apr_array_header_t *words = rp_argument_words(cmd->pool, arguments);
    const char *message = ap_check_cmd_context(cmd, NOT_IN_LIMIT), *value, *error;
    manager_config *config = dir;
    unsigned int seen = 0;
    int key;

    if (message)
        return message;
    if (!cmd->path)
        return "RProxyManager says who may change things; move it into the <Location> with "
               "SetHandler " RP_MANAGER_HANDLER;
    if (config->is_set)
        return "RProxyManager stands twice in the section; keep one";
    if (words->nelts != 1)
        return "RProxyManager needs changes=on, changes=off or changes=\"EXPRESSION\", no more";
    message = rp_argument_key(cmd->pool, APR_ARRAY_IDX(words, 0, const char *), names, &seen, &key,
                              &value);
    if (message)
        return apr_pstrcat(cmd->pool, "RProxyManager: ", message, NULL);
    config->is_set = 1;
    config->changes = strcasecmp(value, "off") != 0;
    if (config->changes && strcasecmp(value, "on") != 0) {
        config->when = ap_expr_parse_cmd(cmd, value, AP_EXPR_FLAG_DONT_VARY, &error, NULL);
        if (error)
            return apr_psprintf(cmd->pool, "RProxyManager changes=%s: %s; write on, off, or an "
                                "expression as in changes=\"%%{REMOTE_USER} == 'admin'\"", value,
                                error);
    }
    if (config->changes)
        rp_manager_access_want();
    return NULL;
}

static int may_change(request_rec *r)
{
    const manager_config *config =
        ap_get_module_config(r->per_dir_config, &rproxy_balancer_module);
    const char *error = NULL;

    if (!config->changes || !config->when)
        return config->changes;
    /* An error is no leave. */
    return ap_expr_exec(r, config->when, &error) > 0 && !error;
}

/* ---- requests -------------------------------------------------------------------------------- */

/** Where the API begins in the path; NULL: it isn't the API's. A pool may be called "api", and the
 * Location's path may have a part of this name too: the first that is followed by what the API
 * has, else the last. */
static const char *find_api(const char *path)
{
    static const char *const known[] = { "/pools", "/journal", "/diff" };
    const char *last = NULL;

    for (const char *at = strstr(path, "/api"); at; at = strstr(at + 1, "/api")) {
        const char *rest = at + 4;

        if (*rest && *rest != '/')
            continue;
        last = at;
        for (apr_size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
            apr_size_t len = strlen(known[i]);

            if (!strncmp(rest, known[i], len) && (!rest[len] || rest[len] == '/'))
                return at;
        }
    }
    return last;
}

/** What isn't UTF-8 can't be shown, and must not be cut in the middle of a character. */
static const char *clean(apr_pool_t *pool, const char *text)
{
    json_t *string = json_string(text);
    char *copy = apr_pstrdup(pool, text);

    for (char *p = copy; *p; p++) {
        if (apr_iscntrl(*p) || ((*p & 0x80) && (!string || strlen(text) > RP_ROSTER_WHO_MAX / 2)))
            *p = '?';
    }
    json_decref(string);
    return copy;
}

static int handler(request_rec *r)
{
    rp_manager manager = { .r = r, .who = r->useragent_ip };
    const char *api;

    if (!r->handler || strcmp(r->handler, RP_MANAGER_HANDLER) != 0)
        return DECLINED;
    api = find_api(r->uri);
    manager.path = api ? api : strrchr(r->uri, '/');
    if (!manager.path)
        return HTTP_NOT_FOUND;          /* OPTIONS * */
    manager.base = apr_pstrmemdup(r->pool, r->uri, (apr_size_t)(manager.path - r->uri));
    manager.may_change = may_change(r);
    if (r->user)
        manager.who = apr_pstrcat(r->pool, clean(r->pool, r->user), " ", r->useragent_ip, NULL);
    return api ? rp_manager_api(&manager) : rp_manager_page(&manager);
}

static int pre_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    (void)pconf;
    (void)plog;
    (void)ptemp;
    rp_manager_access_begin();
    return OK;
}

static int post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *server)
{
    (void)plog;
    (void)ptemp;
    if (ap_state_query(AP_SQ_MAIN_STATE) != AP_SQ_MS_CREATE_PRE_CONFIG)
        rp_manager_access_start(pconf, server);
    rp_manager_id_start(server->process->pool);
    return OK;
}

void rp_manager_register(void)
{
    ap_hook_pre_config(pre_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(post_config, NULL, NULL, APR_HOOK_MIDDLE);
    /* Before the handler of routes: SetHandler for the manager's own path says more than a rule for
     * all paths around it. */
    ap_hook_handler(handler, NULL, NULL, APR_HOOK_REALLY_FIRST);
}
