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
    unsigned int preset:1;              /* its exchange was the engine's, and is over */
} rp_task;

/** An exchange that ended in the engine, with nothing that its client could be sent: the pipeline
 * words the answer. Everything lives until that has happened. */
typedef struct rp_task_preset {
    const rp_exchange *x;               /* outcome ERROR or REPLACED */
    const rp_match *match;
    const rp_fields *fields;            /* of the response that is replaced; NULL: there is none */
    const char *request_id;
    int body_status;                    /* HTTP status for a request body that failed, 0: none */
    int body_ended;                     /* the request body was read to its end */
} rp_task_preset;

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

/** An error page of ours in place of the upstream's keeps what the client needs to go on. fields
 * are copied. */
void rp_task_keep_fields(request_rec *r, const rp_fields *fields);

/** Passes task->out on to the output filters. */
apr_status_t rp_client_pass(rp_task *task);

/** See rp_client_ops.flush. */
rp_io rp_client_flush(void *client, int push);

/* rp_client_tunnel.c; see rp_client_ops */

void rp_client_tunnel(void *client);
void rp_client_end_write(void *client);

/* rp_task.c */

/** Decides on endpoint and target and starts the exchange. OK, or an HTTP status to answer with. */
int rp_task_start(rp_task *task);

/** Ends a task with what the engine has found out. Returns what a handler returns. */
int rp_task_adopt(rp_task *task, const rp_task_preset *preset);

/** Ends a task whose exchange has ended: log, variables, counters, and what the client gets.
 * Returns what a handler returns. */
int rp_task_finish(rp_task *task);

#endif
