/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A task's beginning and end: endpoint and target, settings, log, variables, counters, and what the
 * client gets where the upstream gave no answer. */

#include <apr_strings.h>
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "rproxy/pipeline/rp_local.h"
#include "rproxy/pipeline/rp_park.h"
#include "rproxy/pipeline/rp_stats.h"
#include "rproxy/pipeline/rp_task.h"

APLOG_USE_MODULE(rproxy);

#define RP_STATUS_CLIENT_CLOSED 499     /* in the log only: nobody is there to get it */

/* ---- start ----------------------------------------------------------------------------------- */

static void set_reverse(rp_task *task, const rp_dir_config *dir)
{
    const rp_target *target = task->match.route->target;
    rp_reverse *reverse = &task->reverse;

    reverse->upstream_scheme = target->scheme == RP_SCHEME_HTTPS ? "https" : "http";
    reverse->upstream_authority = target->authority;
    reverse->sent_host = task->settings.preserve_host ? task->request.authority : target->authority;
    reverse->upstream_base = target->base;
    reverse->client_scheme = task->request.scheme;
    reverse->client_authority = task->request.authority;
    reverse->client_prefix = task->client_prefix ? task->client_prefix : task->match.route->path;
    reverse->rules = dir->reverse_rules;
    reverse->cookie_domains = dir->cookie_domains;
    reverse->cookie_paths = dir->cookie_paths;
}

static apr_status_t end_with_pool(void *baton)
{
    rp_task *task = baton;

    if (task->started && task->parking) {
        rp_park_end(task->parking);
    }
    rp_exchange_end(&task->x, RP_REASON_CLIENT_GONE);
    if (task->from_htaccess) {
        rp_endpoint_release(task->x.endpoint);
    }
    return APR_SUCCESS;
}

int rp_task_start(rp_task *task)
{
    request_rec *r = task->r;
    const rp_dir_config *dir = rp_dir_config_of(r->per_dir_config);
    rp_exchange *x = &task->x;
    int status = rp_task_read_request(task);

    if (status != OK) {
        return status;
    }
    rp_config_exchange_settings(dir, rp_server_config_of(r->server), &task->settings);
    task->error_override = dir->error_override;
    set_reverse(task, dir);
    x->pool = r->pool;
    x->request = &task->request;
    x->settings = &task->settings;
    x->reverse = &task->reverse;
    x->address = task->match.route->target;
    x->ops = &rp_client_ops_pipeline;
    x->client = task;
    if (rp_route_target(r->pool, &task->match, task->request.path, task->request.query,
                        dir->rewrites, &x->target) != RP_HTTP_OK) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                      "RP0006: %s does not become a valid request target; check the rule's "
                      "substitution", task->request.path);
        return HTTP_BAD_REQUEST;
    }
    status = rp_local_check_target(task);
    if (status != OK) {
        return status;
    }
    rp_client_open(task);
    status = rp_task_prefetch_body(task);
    if (status != OK) {
        return status;
    }
    task->started = 1;
    rp_stats_add(RP_STAT_REQUESTS, 1);
    rp_stats_add(RP_STAT_ACTIVE, 1);
    x->endpoint = rp_endpoint_get(task->match.route->target, task->from_htaccess, dir->tls,
                                  dir->keepalive ? dir->keepalive : &rp_keepalive_default);
    if (!x->endpoint) {
        x->peer = "";
        x->started = apr_time_now();
        x->connect_time = x->first_byte_time = -1;
        rp_exchange_end(x, RP_REASON_TOO_MANY_ENDPOINTS);
        return OK;
    }
    apr_pool_pre_cleanup_register(r->pool, task, end_with_pool);
    if (task->parking) {
        rp_park_begin(task->parking, task);
    }
    rp_exchange_start(x);
    return OK;
}

/* ---- end ------------------------------------------------------------------------------------- */

static void set_number(request_rec *r, const char *name, apr_int64_t number)
{
    if (number >= 0) {
        apr_table_setn(r->subprocess_env, name, apr_off_t_toa(r->pool, (apr_off_t)number));
    }
}

/* Variables for logs and headers: %{rproxy-...}e. Times in microseconds, as %D. */
static void set_variables(const rp_task *task)
{
    request_rec *r = task->r;
    const rp_exchange *x = &task->x;
    apr_table_t *env = r->subprocess_env;

    apr_table_setn(env, "rproxy-lane", "pipeline");
    apr_table_setn(env, "rproxy-driver", task->was_parked ? "parked" : "blocking");
    apr_table_setn(env, "rproxy-target", task->match.route->target->text);
    apr_table_setn(env, "rproxy-upstream", x->peer);
    apr_table_setn(env, "rproxy-request-id", task->request.request_id);
    set_number(r, "rproxy-attempts", x->attempts);
    set_number(r, "rproxy-connect", x->connect_time);
    set_number(r, "rproxy-first-byte", x->first_byte_time);
    set_number(r, "rproxy-total", apr_time_now() - x->started);
    if (x->head_done || x->outcome == RP_OUTCOME_REPLACED) {
        set_number(r, "rproxy-status", x->response.status);
    }
    apr_table_setn(env, "rproxy-reused", x->reused ? "1" : "0");
    if (x->reason != RP_REASON_NONE
        && (x->outcome != RP_OUTCOME_DONE || x->reason == RP_REASON_TUNNEL_TIMEOUT)) {
        apr_table_setn(env, "rproxy-error", rp_reason_get(x->reason)->name);
    }
}

static void count(const rp_task *task)
{
    const rp_exchange *x = &task->x;

    rp_stats_add(RP_STAT_ACTIVE, -1);
    rp_stats_add(RP_STAT_TUNNELS, task->tunnel ? -1 : 0);
    if (x->attempts > 0) {
        rp_stats_add(x->reused ? RP_STAT_REUSES : RP_STAT_CONNECTS, 1);
        rp_stats_add(RP_STAT_RETRIES, x->attempts - 1);
    }
    rp_stats_add(RP_STAT_BYTES_SENT, x->sent_body);
    rp_stats_add(RP_STAT_BYTES_RECEIVED, x->received_body);
    if (x->outcome == RP_OUTCOME_ERROR || x->outcome == RP_OUTCOME_BROKEN) {
        rp_stats_add(RP_STAT_ERRORS + (int)x->reason, 1);
    }
}

static int is_clients_doing(rp_reason reason)
{
    return reason == RP_REASON_CLIENT_GONE || reason == RP_REASON_CLIENT_TIMEOUT
        || reason == RP_REASON_REQUEST_BODY || reason == RP_REASON_BAD_REQUEST;
}

static void log_failure(const rp_task *task)
{
    const rp_exchange *x = &task->x;
    const rp_reason_info *info = rp_reason_get(x->reason);
    const char *detail = x->detail && *x->detail
        ? ap_escape_logitem(x->pool, x->detail) : NULL;

    ap_log_rerror(APLOG_MARK, is_clients_doing(x->reason) ? APLOG_INFO : APLOG_ERR, 0, task->r,
                  "%s: %s%s%s (%s): %s%s%s", info->message_id, task->match.route->target->text,
                  *x->peer ? " at " : "", x->peer, info->name,
                  x->head_done ? "the response broke off: " : "", info->text,
                  detail ? apr_psprintf(x->pool, " [%s]", detail) : "");
}

/* RFC 9209: who failed and how; nothing about addresses inside. */
static void set_proxy_status(const rp_task *task)
{
    const char *name = task->settings.via ? strchr(task->settings.via, ' ') : NULL;

    apr_table_setn(task->r->err_headers_out, "Proxy-Status",
                   apr_psprintf(task->r->pool, "\"%s\"; error=%s", name ? name + 1 : "rproxy",
                                rp_reason_get(task->x.reason)->proxy_status));
}

/* What is left of the body isn't waited for. */
static void leave_rest_of_body(rp_task *task)
{
    if (task->request.framing != RP_BODY_NONE && !task->body_ended && !task->c->master) {
        task->c->keepalive = AP_CONN_CLOSE;
    }
}

/* The answer where nothing was sent yet. */
static int answer_error(rp_task *task)
{
    request_rec *r = task->r;
    rp_reason reason = task->x.reason;
    int status = task->body_status ? task->body_status : rp_reason_get(reason)->http_status;

    leave_rest_of_body(task);
    if (reason == RP_REASON_CLIENT_GONE) {
        task->c->aborted = !task->c->master;
        r->status = RP_STATUS_CLIENT_CLOSED;
        return OK;
    }
    set_proxy_status(task);
    return status ? status : HTTP_INTERNAL_SERVER_ERROR;
}

int rp_task_finish(rp_task *task)
{
    rp_exchange *x = &task->x;
    int status = OK;

    set_variables(task);
    count(task);
    if (task->parking) {
        rp_park_end(task->parking);
    }
    switch (x->outcome) {
    case RP_OUTCOME_REPLACED:
        leave_rest_of_body(task);
        status = x->response.status;
        break;
    case RP_OUTCOME_ERROR:
        log_failure(task);
        status = answer_error(task);
        break;
    case RP_OUTCOME_BROKEN:
        log_failure(task);
        rp_client_break(task);
        break;
    default:
        break;
    }
    task->started = 0;
    return status;
}
