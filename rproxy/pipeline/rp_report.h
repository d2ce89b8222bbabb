/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What an exchange that has ended leaves behind, in both lanes alike: variables for logs, counters,
 * a line in the error log. */
#ifndef RP_REPORT_H
#define RP_REPORT_H

#include "httpd.h"
#include "rproxy/exchange/rp_exchange.h"

/** Variables for logs and fields: %{rproxy-...}e. Times in microseconds, as %D. The texts live as
 * long as r. */
void rp_report_variables(request_rec *r, const rp_exchange *x, const char *lane,
                         const char *driver, const char *target, const char *request_id);

/** Adds it to the counters of the status page. */
void rp_report_counts(const rp_exchange *x, int was_tunnel);

/** Says in the error log why it ended. */
void rp_report_failure(request_rec *r, const rp_exchange *x, const char *target);

#endif
