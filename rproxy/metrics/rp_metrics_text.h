/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A page in the text format of Prometheus (version 0.0.4), in memory of its own: it outlives no
 * pool, and nothing of it stays behind. One thread's. */
#ifndef RP_METRICS_TEXT_H
#define RP_METRICS_TEXT_H

#include <apr.h>
#include "include/mod_rproxy_metrics.h"

#define RP_METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

typedef struct rp_metrics_text {
    rproxy_metrics_page page;           /* first: what writers see */
    const char *family;                 /* that was begun last */
    char *data;
    apr_size_t len, capacity;
    int failed;                         /* there was no memory: what is there isn't all */
} rp_metrics_text;

/** reason: see rproxy_metrics_page. */
void rp_metrics_text_init(rp_metrics_text *text, const char *(*reason)(int reason));

/** Frees the data. */
void rp_metrics_text_drop(rp_metrics_text *text);

#endif
