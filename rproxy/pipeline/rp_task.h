/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A task: one proxied request_rec in the pipeline lane. Made in the request's pool when a route
 * takes the request, run by a driver in the handler. One thread at a time: the worker that
 * processes the connection. Private to rproxy/pipeline. */
#ifndef RP_TASK_H
#define RP_TASK_H

#include "httpd.h"
#include "util_filter.h"
#include "rproxy/rp_config.h"
#include "rproxy/exchange/rp_exchange.h"

typedef struct rp_parking rp_parking;   /* rp_park.h */

typedef struct rp_task {
    request_rec *r;
    conn_rec *c;
    rp_match match;                     /* route NULL: not decided yet */
    const char *client_prefix;          /* prefix of a local rule; NULL: the route's */
    rp_request request;
    rp_exchange_settings settings;
    rp_reverse reverse;
    rp_exchange x;
    apr_bucket_brigade *in;             /* request body read but not taken yet */
    apr_bucket_brigade *out;            /* scratch for passing things on, empty between calls */
    rp_fields request_trailers;
    const rp_error_override *error_override;
    rp_parking *parking;                /* the connection's; NULL: this request can't be parked */
    apr_size_t unsent;                /* bytes passed on since the output filters were last empty */
    apr_size_t read_size;               /* of an upstream at once: below FlushMaxThreshold */
    int body_status;                    /* HTTP status for a request body that failed, 0: none */
    unsigned int blocking_output:1;     /* HTTP/2 streams and subrequests: output may block */
    unsigned int started:1;             /* x is valid */
    unsigned int body_ended:1;
    unsigned int tunnel:1;
    unsigned int end_write_due:1;       /* half-close once the output is drained */
    unsigned int was_parked:1;
    unsigned int from_htaccess:1;       /* the rule is a .htaccess file's */
} rp_task;

/** The task of a request; NULL if no route took it. */
rp_task *rp_task_of(const request_rec *r);

/* rp_task_request.c */

/** Fills in what routing needs: normal path, query, authority. OK or an HTTP status. */
int rp_task_read_target(request_rec *r, rp_request *request);

/** Fills in the rest of the neutral request. OK or an HTTP status. */
int rp_task_read_request(rp_task *task);

/** Reads the beginning of a body that input filters may change (mod_deflate unpacks it): only then
 * are its length and its fields known. Blocks. Needs rp_client_open(). OK or an HTTP status. */
int rp_task_prefetch_body(rp_task *task);

/* rp_client.c */

extern const rp_client_ops rp_client_ops_pipeline;

/** Registers the filters that the client side uses. */
void rp_client_register(void);

/** Prepares the client's side of a task. */
void rp_client_open(rp_task *task);

/** Lets the client see that the response broke off. */
void rp_client_break(rp_task *task);

/** Writes what the core output filter holds, without blocking. */
apr_status_t rp_client_nudge(conn_rec *c);

/* rp_task.c */

/** Decides on endpoint and target and starts the exchange. OK, or an HTTP status to answer with. */
int rp_task_start(rp_task *task);

/** Ends a task whose exchange has ended: log, variables, counters, and what the client gets.
 * Returns what a handler returns. */
int rp_task_finish(rp_task *task);

#endif
