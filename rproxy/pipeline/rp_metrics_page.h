/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The page of metrics: what the core knows, then what other modules have (see
 * include/mod_rproxy_metrics.h); and the handler rproxy-metrics that shows it. */
#ifndef RP_METRICS_PAGE_H
#define RP_METRICS_PAGE_H

#include <apr_tables.h>
#include "rproxy/metrics/rp_metrics_text.h"

/** A rule on the page. */
typedef struct rp_metrics_route {
    int row;                            /* of its counters */
    const char *server, *route, *target;
} rp_metrics_route;

/** In post_config: all rules (rp_metrics_route), and the modules that add to the page. pool is the
 * configuration's. */
void rp_metrics_page_prepare(apr_pool_t *pool, const apr_array_header_t *all);

/** Writes it; any thread of a child. The text is the caller's to drop. */
void rp_metrics_page_write(rp_metrics_text *text);

/** Registers the handler. */
void rp_metrics_page_register_hooks(void);

#endif
