/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <string.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_core.h"
#include "http_log.h"
#include "http_request.h"
#include "rproxy/pipeline/rp_local.h"

APLOG_USE_MODULE(rproxy);

/* The URL path of a directory, in normal form; "/" where the two aren't related. */
static const char *url_of_directory(request_rec *r, const char *directory)
{
    const char *root = ap_context_document_root(r);
    const char *prefix = ap_context_prefix(r);
    apr_size_t root_len = strlen(root);
    char *url;
    apr_size_t len;

    while (root_len > 0 && root[root_len - 1] == '/') {
        root_len--;
    }
    if (strncmp(directory, root, root_len) != 0
        || (directory[root_len] != '/' && directory[root_len] != '\0')) {
        return "/";
    }
    url = apr_pstrcat(r->pool, prefix ? prefix : "", directory + root_len, NULL);
    len = strlen(url);
    while (len > 1 && url[len - 1] == '/') {
        url[--len] = '\0';
    }
    return *url == '/' ? rp_uri_encode(r->pool, url) : "/";
}

/* Nonzero if the server's administrator lets .htaccess files proxy to target. */
static int is_allowed(const request_rec *r, const rp_target *target)
{
    const apr_array_header_t *allowed = rp_server_config_of(r->server)->allowed_targets;

    for (int i = 0; allowed && i < allowed->nelts; i++) {
        if (rp_target_under(target, APR_ARRAY_IDX(allowed, i, rp_target *))) {
            return 1;
        }
    }
    return 0;
}

/* Whether the rule's path covers the request's; fills in match. */
static int matches(request_rec *r, const rp_local_rule *rule, const char *prefix, const char *path,
                   rp_match *match)
{
    rp_match_context context = { r->pool, NULL, 0, r };
    rp_route_table *table = rp_route_table_make(r->pool);
    rp_route *route = apr_pcalloc(r->pool, sizeof(*route));

    route->path = prefix;
    route->target = rule->address;
    route->weight = 1;
    route->file = rule->file;
    route->line = rule->line;
    route->row = rule->row;
    rp_route_table_add(table, route);
    return rp_route_table_finish(r->pool, table) == NULL
        && rp_route_match(table, &context, path, match);
}

int rp_local_apply(request_rec *r, const rp_local_rule *rule, rp_task *task)
{
    const char *prefix = rule->path ? rule->path : url_of_directory(r, rule->directory);
    int status = rp_task_read_target(r, &task->request);

    if (status != OK) {
        return status;
    }
    if (!matches(r, rule, prefix, task->request.path, &task->match)) {
        return DECLINED;
    }
    if (rule->from_htaccess && rule->address && !is_allowed(r, rule->address)) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      "RP0010: %s (%s:%d) is not under a target that RProxyAllowTarget lists; "
                      "the server's administrator can add it there", rule->target, rule->file,
                      rule->line);
        return HTTP_FORBIDDEN;
    }
    task->client_prefix = prefix;
    task->from_htaccess = rule->from_htaccess != 0;
    return OK;
}

int rp_local_check_target(const rp_task *task)
{
    rp_target sent;

    if (!task->from_htaccess) {
        return OK;
    }
    sent = *task->match.route->target;
    sent.base = apr_pstrndup(task->r->pool, task->x.target, strcspn(task->x.target, "?"));
    if (is_allowed(task->r, &sent)) {
        return OK;
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, task->r,
                  "RP0011: RProxyRewrite leads to %s, outside the targets that RProxyAllowTarget "
                  "lists; the server's administrator can add it there", sent.base);
    return HTTP_FORBIDDEN;
}
