/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <strings.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "rproxy/pipeline/rp_report.h"
#include "rproxy/pipeline/rp_stats.h"

APLOG_USE_MODULE(rproxy);

/* ---- variables ------------------------------------------------------------------------------- */

typedef void set_variable(apr_table_t *env, const char *name, const char *value);

/* apr_table_setn() compares with what is there, and these names are nearly alike: only where the
 * configuration has set one of them already. */
static set_variable *setter_for(const apr_table_t *env)
{
    const apr_array_header_t *array = apr_table_elts(env);

    for (int i = 0; i < array->nelts; i++) {
        const char *name = APR_ARRAY_IDX(array, i, apr_table_entry_t).key;

        if (name && strncasecmp(name, "rproxy-", 7) == 0) {
            return apr_table_setn;
        }
    }
    return apr_table_addn;
}

void rp_report_variables(request_rec *r, const rp_exchange *x, apr_interval_time_t total,
                         const char *lane, const char *driver, const char *target,
                         const char *request_id)
{
    apr_table_t *env = r->subprocess_env;
    set_variable *set = setter_for(env);
    const struct {
        const char *name;
        apr_int64_t value;              /* negative: there is none */
    } numbers[] = {
        { "rproxy-attempts", x->attempts },
        { "rproxy-queue", x->queue_time },
        { "rproxy-connect", x->connect_time },
        { "rproxy-first-byte", x->first_byte_time },
        { "rproxy-total", total },
        { "rproxy-status", x->head_done || x->outcome == RP_OUTCOME_REPLACED ? x->response.status
                                                                             : -1 },
    };

    set(env, "rproxy-lane", lane);
    set(env, "rproxy-driver", driver);
    set(env, "rproxy-target", target);
    set(env, "rproxy-upstream", x->peer);
    if (rp_exchange_member_name(x)) {
        set(env, "rproxy-member", rp_exchange_member_name(x));
        rp_exchange_member_variables(x, r->pool, env);
    }
    set(env, "rproxy-request-id", request_id);
    for (apr_size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (numbers[i].value >= 0) {
            set(env, numbers[i].name, apr_off_t_toa(r->pool, (apr_off_t)numbers[i].value));
        }
    }
    set(env, "rproxy-reused", x->reused ? "1" : "0");
    if (x->reason != RP_REASON_NONE
        && (x->outcome != RP_OUTCOME_DONE || x->reason == RP_REASON_TUNNEL_TIMEOUT)) {
        set(env, "rproxy-error", rp_reason_get(x->reason)->name);
    }
}

/* ---- counters -------------------------------------------------------------------------------- */

void rp_report_begin(const rp_route *route)
{
    rp_stats_add(RP_STAT_REQUESTS, 1);
    rp_stats_add(RP_STAT_ACTIVE, 1);
    rp_metrics_in_flight(route->row, 1);
}

/* The status that the client gets; 0: it has left. */
static int status_of(const rp_exchange *x, int body_status)
{
    if (x->outcome != RP_OUTCOME_ERROR) {
        return x->response.status;
    }
    if (body_status && x->reason != RP_REASON_CLIENT_GONE) {
        return body_status;
    }
    return rp_reason_get(x->reason)->http_status;
}

static void add(atomic_ullong *count, apr_int64_t n)
{
    if (n > 0) {
        atomic_fetch_add_explicit(count, (unsigned long long)n, memory_order_relaxed);
    }
}

static void count_for_rule(const rp_exchange *x, const rp_report_facts *facts)
{
    int status = status_of(x, facts->body_status);
    rp_metrics_cell *cell = rp_metrics_cell_of(facts->route->row);

    _Static_assert(RP_REASON_COUNT <= RPROXY_REASONS_MAX, "each reason has its counter");
    rp_metrics_in_flight(facts->route->row, -1);
    if (!cell) {
        return;
    }
    add(&cell->requests[facts->lane][rproxy_status_class(status)], 1);
    if (x->attempts > 0) {
        add(x->reused ? &cell->reused : &cell->opened, 1);
        add(&cell->retries, x->attempts - 1);
    }
    add(&cell->sent, x->sent_body);
    add(&cell->received, x->received_body);
    if (x->first_byte_time >= 0) {
        rproxy_histogram_add(&cell->first_byte, x->first_byte_time);
    }
    if (!facts->was_tunnel) {
        rproxy_histogram_add(&cell->total, facts->total);
    }
    if (x->outcome == RP_OUTCOME_ERROR || x->outcome == RP_OUTCOME_BROKEN) {
        add(&cell->errors[x->reason], 1);
    }
}

void rp_report_counts(const rp_exchange *x, const rp_report_facts *facts)
{
    count_for_rule(x, facts);
    rp_stats_add(RP_STAT_ACTIVE, -1);
    rp_stats_add(RP_STAT_TUNNELS, facts->was_tunnel ? -1 : 0);
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

/* ---- the error log --------------------------------------------------------------------------- */

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
