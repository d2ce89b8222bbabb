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
#include "rproxy/pipeline/rp_report.h"
#include "rproxy/pipeline/rp_stats.h"
#include "rproxy/pipeline/rp_task.h"

APLOG_USE_MODULE(rproxy);

#define RP_STATUS_CLIENT_CLOSED 499     /* in the log only: nobody is there to get it */

/* ---- start ----------------------------------------------------------------------------------- */

static apr_status_t end_with_pool(void *baton)
{
    rp_task *task = baton;

    if (task->started && task->parking) {
        rp_park_end(task->parking);
    }
    rp_exchange_end(&task->x, RP_REASON_CLIENT_GONE);
    if (task->from_htaccess && !task->x.member) {
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
    rp_reason reason;

    if (status != OK) {
        return status;
    }
    rp_config_exchange_settings(dir, rp_server_config_of(r->server), &task->settings);
    task->error_override = dir->error_override;
    rp_config_fill_reverse(dir, &task->settings, &task->request, task->match.route->target,
                           task->client_prefix ? task->client_prefix : task->match.route->path,
                           &task->reverse);
    x->pool = r->pool;
    x->request = &task->request;
    x->settings = &task->settings;
    x->reverse = &task->reverse;
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
    rp_report_begin(task->match.route);
    reason = rp_config_aim(x, dir, r->server, task->match.route->target, task->from_htaccess);
    if (reason != RP_REASON_NONE) {
        x->peer = "";
        x->started = apr_time_now();
        x->queue_time = x->connect_time = x->first_byte_time = -1;
        rp_exchange_end(x, reason);
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
    const char *retry_after;
    int status = task->body_status ? task->body_status : rp_reason_get(reason)->http_status;

    leave_rest_of_body(task);
    if (reason == RP_REASON_CLIENT_GONE) {
        task->c->aborted = !task->c->master;
        r->status = RP_STATUS_CLIENT_CLOSED;
        return OK;
    }
    apr_table_setn(r->err_headers_out, "Proxy-Status",
                   rp_reason_proxy_status(r->pool, task->x.reason, task->settings.via));
    retry_after = rp_reason_retry_after(reason);
    if (retry_after) {
        apr_table_setn(r->err_headers_out, "Retry-After", retry_after);
    }
    return status ? status : HTTP_INTERNAL_SERVER_ERROR;
}

int rp_task_adopt(rp_task *task, const rp_task_preset *preset)
{
    rp_exchange *x = &task->x;
    int status = rp_task_read_request(task);

    if (status != OK) {
        return status;
    }
    rp_config_exchange_settings(rp_dir_config_of(task->r->per_dir_config),
                                rp_server_config_of(task->r->server), &task->settings);
    *x = *preset->x;
    x->pool = task->r->pool;
    x->settings = &task->settings;
    x->peer = apr_pstrdup(x->pool, x->peer);
    task->match = *preset->match;
    task->request.request_id = apr_pstrdup(x->pool, preset->request_id);
    task->body_status = preset->body_status;
    task->body_ended = preset->body_ended != 0;
    task->preset = 1;
    if (preset->fields) {
        rp_task_keep_fields(task->r, preset->fields);
    }
    return rp_task_finish(task);
}

int rp_task_finish(rp_task *task)
{
    rp_exchange *x = &task->x;
    rp_report_facts facts = {
        .route = task->match.route, .lane = RP_METRICS_PIPELINE,
        .total = apr_time_now() - x->started, .was_tunnel = task->tunnel,
        .body_status = task->body_status
    };
    int status = OK;

    rp_report_variables(task->r, x, facts.total, task->preset ? "engine" : "pipeline",
                        task->preset ? "engine" : task->was_parked ? "parked" : "blocking",
                        task->match.route->target->text, task->request.request_id);
    if (!task->preset) {
        rp_report_counts(x, &facts);
    }
    if (task->parking) {
        rp_park_end(task->parking);
    }
    switch (x->outcome) {
    case RP_OUTCOME_REPLACED:
        leave_rest_of_body(task);
        status = x->response.status;
        break;
    case RP_OUTCOME_ERROR:
        rp_report_failure(task->r, x, task->match.route->target->text);
        status = answer_error(task);
        break;
    case RP_OUTCOME_BROKEN:
        rp_report_failure(task->r, x, task->match.route->target->text);
        rp_client_break(task);
        break;
    default:
        break;
    }
    task->started = 0;
    return status;
}
