/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What an exchange that has ended leaves behind, in both lanes alike: variables for logs, counters,
 * a line in the error log. */
#ifndef RP_REPORT_H
#define RP_REPORT_H

#include "httpd.h"
#include "rproxy/exchange/rp_exchange.h"
#include "rproxy/metrics/rp_metrics_rows.h"

/** Variables for logs and fields: %{rproxy-...}e. Times in microseconds, as %D; total is until now.
 * The texts live as long as r. */
void rp_report_variables(request_rec *r, const rp_exchange *x, apr_interval_time_t total,
                         const char *lane, const char *driver, const char *target,
                         const char *request_id);

/** What the counters are told of an exchange's end beyond what it knows itself. */
typedef struct rp_report_facts {
    const rp_route *route;
    rp_metrics_lane lane;
    apr_interval_time_t total;          /* how long it was */
    int was_tunnel;
    int body_status;                    /* HTTP status for a request body that failed, 0: none */
} rp_report_facts;

/** An exchange begins: counts it. */
void rp_report_begin(const rp_route *route);

/** It has ended, once for each that began: adds it to the counters of the status page and of the
 * rule. */
void rp_report_counts(const rp_exchange *x, const rp_report_facts *facts);

/** Says in the error log why it ended. */
void rp_report_failure(request_rec *r, const rp_exchange *x, const char *target);

#endif
