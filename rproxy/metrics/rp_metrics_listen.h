/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyMetricsListen: GET /metrics on a socket of its own, answered by a thread of its own in each
 * child, so that it answers also while all workers are busy. Small and strict: HTTP/1.0 and 1.1
 * without keep-alive, a head of at most 8 KiB within 5 s, eight clients of a child at a time: one
 * more replaces the oldest. The parent opens the socket, which stays open over restarts of the
 * configuration. */
#ifndef RP_METRICS_LISTEN_H
#define RP_METRICS_LISTEN_H

#include <sys/socket.h>
#include "httpd.h"
#include "rproxy/metrics/rp_metrics_text.h"

typedef struct rp_metrics_address {
    struct sockaddr_storage address;
    socklen_t len;
    const char *text;                   /* "127.0.0.1:9145" */
} rp_metrics_address;

/** Parses [ADDRESS:]PORT. Returns NULL or a message with a remedy. */
const char *rp_metrics_address_parse(apr_pool_t *pool, const char *text,
                                     rp_metrics_address *address);

/** The parent, in post_config: opens the socket, keeps the one that is open, or closes it where
 * address is NULL or another one. process_pool is the process's. */
apr_status_t rp_metrics_listen_open(apr_pool_t *process_pool, const rp_metrics_address *address);

/** What the page shows: called in the thread. */
typedef void rp_metrics_writer(rp_metrics_text *text);

/** In child_init: starts the thread if there is a socket; it ends before pool goes. A child that
 * stops gracefully leaves new clients to others. */
apr_status_t rp_metrics_listen_start(apr_pool_t *pool, rp_metrics_writer *write);

#endif
