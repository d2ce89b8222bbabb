/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "httpd.h"
#include "ap_provider.h"
#include "http_config.h"
#include "http_protocol.h"
#include "http_request.h"
#include "include/mod_rproxy.h"
#include "rproxy/metrics/rp_metrics_rows.h"
#include "rproxy/pipeline/rp_metrics_page.h"
#include "rproxy/pipeline/rp_stats.h"

#define HANDLER "rproxy-metrics"

/* Immutable once children exist. */
static const apr_array_header_t *routes;        /* rp_metrics_route; NULL: none were prepared */
static const apr_array_header_t *providers;     /* const rproxy_metrics * */

void rp_metrics_page_prepare(apr_pool_t *pool, const apr_array_header_t *all)
{
    const apr_array_header_t *names = ap_list_provider_names(pool, RPROXY_METRICS_GROUP,
                                                             RPROXY_METRICS_VERSION);
    apr_array_header_t *found = apr_array_make(pool, names->nelts, sizeof(const rproxy_metrics *));

    for (int i = 0; i < names->nelts; i++) {
        const char *name = APR_ARRAY_IDX(names, i, ap_list_provider_names_t).provider_name;
        const rproxy_metrics *one = ap_lookup_provider(RPROXY_METRICS_GROUP, name,
                                                       RPROXY_METRICS_VERSION);

        if (one) {
            APR_ARRAY_PUSH(found, const rproxy_metrics *) = one;
        }
    }
    routes = all;
    providers = found;
}

static const char *reason_name(int reason)
{
    return reason > RP_REASON_NONE && reason < RP_REASON_COUNT
        ? rp_reason_get((rp_reason)reason)->name : NULL;
}

/* ---- the process as a whole ------------------------------------------------------------------ */

static void write_whole(rproxy_metrics_page *page)
{
    const rproxy_label version = { "version", RPROXY_VERSION };

    page->family(page, "rproxy_info", RPROXY_GAUGE, "The version of mod_rproxy that runs.");
    page->value(page, &version, 1, 1);
    page->family(page, "rproxy_requests_parked", RPROXY_GAUGE,
                 "Requests in flight that hold no thread: parked, or in the engine.");
    page->value(page, NULL, 0, rp_stats_sum(RP_STAT_PARKED));
    page->family(page, "rproxy_tunnels_open", RPROXY_GAUGE, "Requests in flight that are tunnels.");
    page->value(page, NULL, 0, rp_stats_sum(RP_STAT_TUNNELS));
    page->family(page, "rproxy_http2_connections_ended_total", RPROXY_COUNTER,
                 "HTTP/2 connections of clients that were ended for too many of something.");
    for (int i = 0; i < RP_STAT_H2_NUISANCE_COUNT; i++) {
        const rproxy_label cause = { "cause", rp_stats_h2_nuisances[i] };

        page->value(page, &cause, 1, rp_stats_sum(RP_STAT_H2_NUISANCES + i));
    }
}

/* ---- rules ----------------------------------------------------------------------------------- */

#define ROUTE_LABELS 3
#define LABELS_MAX 5

/** What is shown of a rule: the labels of the rule come first, values may add to them. */
typedef void route_writer(rproxy_metrics_page *page, rproxy_label labels[LABELS_MAX],
                          const rp_metrics_values *values);

static void write_requests(rproxy_metrics_page *page, rproxy_label labels[LABELS_MAX],
                           const rp_metrics_values *values)
{
    static const char *const lanes[] = { "engine", "pipeline" };

    _Static_assert(RP_METRICS_ENGINE == 0 && RP_METRICS_PIPELINE == 1, "names in this order");
    for (int lane = 0; lane < RP_METRICS_LANES; lane++) {
        for (int i = 0; i < RPROXY_STATUS_CLASSES; i++) {
            labels[ROUTE_LABELS] = (rproxy_label){ "lane", lanes[lane] };
            labels[ROUTE_LABELS + 1] = (rproxy_label){ "code", rproxy_status_class_name(i) };
            page->value(page, labels, ROUTE_LABELS + 2, (apr_int64_t)values->requests[lane][i]);
        }
    }
}

static void write_in_flight(rproxy_metrics_page *page, rproxy_label labels[LABELS_MAX],
                            const rp_metrics_values *values)
{
    page->value(page, labels, ROUTE_LABELS, values->in_flight);
}

static void write_errors(rproxy_metrics_page *page, rproxy_label labels[LABELS_MAX],
                         const rp_metrics_values *values)
{
    for (int i = RP_REASON_NONE + 1; i < RP_REASON_COUNT; i++) {
        labels[ROUTE_LABELS] = (rproxy_label){ "reason", reason_name(i) };
        if (values->errors[i]) {
            page->value(page, labels, ROUTE_LABELS + 1, (apr_int64_t)values->errors[i]);
        }
    }
}

static const struct family {
    const char *name;
    rproxy_metric_type type;
    const char *help;
    route_writer *write;                /* NULL: just what is at offset in the values */
    apr_size_t offset;
} families[] = {
    { "rproxy_route_requests_total", RPROXY_COUNTER,
      "Requests that have ended, by lane and by class of the status that the client got; code "
      "\"none\": it had left.", write_requests, 0 },
    { "rproxy_route_requests_in_flight", RPROXY_GAUGE, "Requests that are being served.",
      write_in_flight, 0 },
    { "rproxy_route_retries_total", RPROXY_COUNTER, "Attempts beyond the first of a request.",
      NULL, offsetof(rp_metrics_values, retries) },
    { "rproxy_route_errors_total", RPROXY_COUNTER,
      "Requests that failed in the proxy, by the reason that the log names.", write_errors, 0 },
    { "rproxy_route_connections_opened_total", RPROXY_COUNTER,
      "Requests whose last attempt was on a new connection.",
      NULL, offsetof(rp_metrics_values, opened) },
    { "rproxy_route_connections_reused_total", RPROXY_COUNTER,
      "Requests whose last attempt was on a connection that was open already.",
      NULL, offsetof(rp_metrics_values, reused) },
    { "rproxy_route_request_body_bytes_total", RPROXY_COUNTER,
      "Bytes of request bodies to upstreams.",
      NULL, offsetof(rp_metrics_values, sent) },
    { "rproxy_route_response_body_bytes_total", RPROXY_COUNTER,
      "Bytes of response bodies from upstreams.",
      NULL, offsetof(rp_metrics_values, received) },
    { "rproxy_route_first_byte_seconds", RPROXY_HISTOGRAM,
      "Time until the head of the response was there.",
      NULL, offsetof(rp_metrics_values, first_byte) },
    { "rproxy_route_duration_seconds", RPROXY_HISTOGRAM,
      "Time until the end of a request, tunnels excepted.",
      NULL, offsetof(rp_metrics_values, total) },
};

static void write_family(rproxy_metrics_page *page, const struct family *family,
                         rproxy_label labels[LABELS_MAX], const rp_metrics_values *values)
{
    const void *at = (const char *)values + family->offset;

    if (family->write) {
        family->write(page, labels, values);
    }
    else if (family->type == RPROXY_HISTOGRAM) {
        page->histogram(page, labels, ROUTE_LABELS, at);
    }
    else {
        page->value(page, labels, ROUTE_LABELS, (apr_int64_t)*(const apr_uint64_t *)at);
    }
}

static void write_routes(rp_metrics_text *text)
{
    rproxy_metrics_page *page = &text->page;
    int count = routes ? routes->nelts : 0;
    rp_metrics_values *values = malloc((apr_size_t)(count + 1) * sizeof(*values));

    if (!values) {
        text->failed = 1;
        return;
    }
    for (int i = 0; i < count; i++) {
        rp_metrics_row_read(APR_ARRAY_IDX(routes, i, rp_metrics_route).row, &values[i]);
    }
    for (apr_size_t f = 0; f < sizeof(families) / sizeof(families[0]); f++) {
        page->family(page, families[f].name, families[f].type, families[f].help);
        for (int i = 0; i < count; i++) {
            const rp_metrics_route *route = &APR_ARRAY_IDX(routes, i, rp_metrics_route);
            rproxy_label labels[LABELS_MAX] = {
                { "server", route->server }, { "route", route->route }, { "target", route->target }
            };

            write_family(page, &families[f], labels, &values[i]);
        }
    }
    free(values);
}

void rp_metrics_page_write(rp_metrics_text *text)
{
    rp_metrics_text_init(text, reason_name);
    rp_metrics_rows_settle();
    write_whole(&text->page);
    write_routes(text);
    for (int i = 0; providers && i < providers->nelts; i++) {
        APR_ARRAY_IDX(providers, i, const rproxy_metrics *)->write(&text->page);
    }
}

/* ---- the handler ----------------------------------------------------------------------------- */

static int handler(request_rec *r)
{
    apr_bucket_brigade *bb;
    apr_bucket *bucket;
    rp_metrics_text text;
    int status;

    if (!r->handler || strcmp(r->handler, HANDLER) != 0) {
        return DECLINED;
    }
    if (r->method_number != M_GET) {
        ap_allow_methods(r, REPLACE_ALLOW, "GET", NULL);
        return HTTP_METHOD_NOT_ALLOWED;
    }
    if ((status = ap_discard_request_body(r)) != OK) {
        return status;
    }
    rp_metrics_page_write(&text);
    if (text.failed) {
        rp_metrics_text_drop(&text);
        return HTTP_SERVICE_UNAVAILABLE;
    }
    ap_set_content_type(r, RP_METRICS_TYPE);
    apr_table_setn(r->headers_out, "Cache-Control", "no-store");
    ap_set_content_length(r, (apr_off_t)text.len);
    bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    bucket = apr_bucket_heap_create(text.data, text.len, free, r->connection->bucket_alloc);
    APR_BRIGADE_INSERT_TAIL(bb, bucket);
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(r->connection->bucket_alloc));
    status = ap_pass_brigade(r->output_filters, bb);
    return status == APR_SUCCESS || r->status != HTTP_OK || r->connection->aborted
        ? OK : HTTP_INTERNAL_SERVER_ERROR;
}

void rp_metrics_page_register_hooks(void)
{
    /* Before the handler of routes: SetHandler for the page's own path says more than a rule for
     * all paths around it. */
    ap_hook_handler(handler, NULL, NULL, APR_HOOK_REALLY_FIRST);
}
