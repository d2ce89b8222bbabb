/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <apr_strings.h>
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "rproxy/pipeline/rp_report.h"
#include "rproxy/pipeline/rp_stats.h"

APLOG_USE_MODULE(rproxy);

static void set_number(request_rec *r, const char *name, apr_int64_t number)
{
    if (number >= 0) {
        apr_table_setn(r->subprocess_env, name, apr_off_t_toa(r->pool, (apr_off_t)number));
    }
}

void rp_report_variables(request_rec *r, const rp_exchange *x, const char *lane,
                         const char *driver, const char *target, const char *request_id)
{
    apr_table_t *env = r->subprocess_env;

    apr_table_setn(env, "rproxy-lane", lane);
    apr_table_setn(env, "rproxy-driver", driver);
    apr_table_setn(env, "rproxy-target", target);
    apr_table_setn(env, "rproxy-upstream", x->peer);
    apr_table_setn(env, "rproxy-request-id", request_id);
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

void rp_report_counts(const rp_exchange *x, int was_tunnel)
{
    rp_stats_add(RP_STAT_ACTIVE, -1);
    rp_stats_add(RP_STAT_TUNNELS, was_tunnel ? -1 : 0);
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

void rp_report_failure(request_rec *r, const rp_exchange *x, const char *target)
{
    const rp_reason_info *info = rp_reason_get(x->reason);
    const char *detail = x->detail && *x->detail ? ap_escape_logitem(r->pool, x->detail) : NULL;

    ap_log_rerror(APLOG_MARK, is_clients_doing(x->reason) ? APLOG_INFO : APLOG_ERR, 0, r,
                  "%s: %s%s%s (%s): %s%s%s", info->message_id, target,
                  *x->peer ? " at " : "", x->peer, info->name,
                  x->head_done ? "the response broke off: " : "", info->text,
                  detail ? apr_psprintf(r->pool, " [%s]", detail) : "");
}
