/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A request that the engine serves, whatever protocol its client speaks: virtual host, route,
 * exchange, and what the loop has to tell it. A protocol's own request begins with it. All of it is
 * the loop's thread's, but while a lane thread words its outcome (rp_handover.h). */
#ifndef RP_ENGINE_REQUEST_H
#define RP_ENGINE_REQUEST_H

#include "rproxy/engine/rp_engine_private.h"
#include "rproxy/exchange/rp_exchange.h"

#define RP_STATUS_CLIENT_CLOSED 499     /* in the log only: nobody is there to get it */

struct rp_engine_request {
    apr_pool_t *pool;                   /* everything that is not the structure's is in it */
    rp_downstream *d;
    /** The protocol's: something came from the upstream (upstream_ready) or a wait is over. */
    void (*step)(rp_engine_request *q, int upstream_ready);
    rp_engine_request *next_free;       /* on the free list */
    rp_engine_request *next_resolving, **resolving_link;    /* waits for a name */
    const rp_engine_host *host;
    server_rec *server;
    const char *hostname;               /* what httpd makes of the authority for logs, or NULL */
    const rp_engine_route *route;
    rp_match match;
    rp_request request;
    rp_reverse reverse;
    rp_exchange x;
    const char *the_request;            /* the request line, for the log */
    const char *log_id;                 /* of its message in the error log; NULL: none */
    apr_time_t began;
    int watched[RP_CONN_WAITS_MAX];     /* upstream descriptors whose events we get */
    int watched_count;
    int attempt;                        /* that they belong to */
    apr_int64_t body_limit;             /* LimitRequestBody, 0: none */
    apr_int64_t body_bytes;             /* of the body read from the client */
    apr_time_t body_began;
    const rp_fields *trailers;          /* of the request body, once it has ended; NULL: none */
    rp_response response;               /* what the client was sent: for the log */
    rp_fields response_fields;
    apr_int64_t sent_body;              /* body bytes handed to the client's side */
    int body_status;                    /* HTTP status for a request body that failed, 0: none */
    unsigned int in_exchange:1;         /* x was started and is not ended */
    unsigned int body_ended:1;
    unsigned int head_sent:1;           /* the final head was serialised */
    unsigned int tunnel:1;
    unsigned int write_failed:1;
    unsigned int keep_alive:1;          /* for the log, too */
};

/* ---- rp_engine_free_list.c ------------------------------------------------------------------- */

/** A request of size bytes, which begin with an rp_engine_request, from the list where that has
 * one. All of it is zero but for pool, d and began. */
void *rp_engine_new_request(rp_engine_free_list *list, rp_downstream *d, apr_size_t size);

/** Gives it back, and what is in its pool. */
void rp_engine_drop_request(rp_engine_free_list *list, rp_engine_request *q);

/** The loop ends. */
void rp_engine_free_requests(rp_engine_free_list *list);

/* ---- rp_engine_decide.c: the decision on a head ---------------------------------------------- */

/** Sets q->host, server, hostname from the authority, as httpd would. Zero: the host is not the
 * engine's, or not one that this connection's handshake was for (misdirected is set then). */
int rp_engine_choose_host(rp_engine_request *q, int *misdirected);

/** The status for a request over LimitRequestLine, LimitRequestFields or LimitRequestFieldSize;
 * 0: it is within them. */
int rp_engine_exceeded_limit(const rp_engine_request *q);

/** Sets path, query and route. The status of the error where the path is refused, 0: none; found is
 * zero where no route of the engine takes it. */
int rp_engine_find_route(rp_engine_request *q, int *found);

/** Zero: LimitRequestBody forbids the body that is announced. Sets q->body_limit. */
int rp_engine_allows_body(rp_engine_request *q);

/** Counts bytes of the body, and returns io; or fails it with the status where they are more than
 * LimitRequestBody. */
rp_io rp_engine_count_body(rp_engine_request *q, apr_size_t bytes, rp_io io);

/** The body cannot be had: RP_IO_FAILED, and status is what the client gets. */
rp_io rp_engine_fail_body(rp_engine_request *q, int status);

/** What the client's address and the connection say. */
void rp_engine_fill_request(rp_engine_request *q);

/** Nonzero if trailers are within LimitRequestFields and LimitRequestFieldSize. */
int rp_engine_allows_trailers(const rp_engine_request *q, const rp_fields *trailers);

/** Fields of the upstream's final response as any client gets them: mod_headers' constants, nothing
 * that its status forbids, Date and Server. */
void rp_engine_complete_fields(const rp_engine_request *q, const rp_response *response,
                               rp_fields *fields);

/** Where nobody has sent them. */
void rp_engine_add_date_and_server(const rp_engine_request *q, rp_fields *fields);

/** The phrase for a status: the upstream's, or httpd's where that is empty. */
const char *rp_engine_reason(int status, const char *reason);

/* ---- rp_engine_request.c: the exchange and its waits ----------------------------------------- */

/** Of a request whose exchange was not stepped yet: begins it, and puts what that will send to the
 * upstream into the batch. */
void rp_engine_send_ahead(rp_engine_request *q, rp_batch *batch);

/** Prepares x for rp_exchange_start(). Zero: no target, endpoint or pool; nothing was counted. */
int rp_engine_prepare_exchange(rp_engine_request *q, const rp_client_ops *ops);

/** Waits for what x waits for. When it has to be stepped at the latest, the deadline for a body
 * that comes too slowly included; 0: never. */
apr_time_t rp_engine_wait(rp_engine_request *q, int *again);

/** Nonzero if the body that is waited for has come too slowly: that has ended x. */
int rp_engine_is_body_late(rp_engine_request *q);

/** rp_client_ops.detach; client is the rp_engine_request. */
void rp_engine_detach(void *client);

/** Once x has ended: counters. */
void rp_engine_account(rp_engine_request *q);

/** The client has left: nonzero if that has ended x. */
int rp_engine_client_left(rp_engine_request *q);

/** A tunnel, and the child stops gracefully: ends it in time. */
void rp_engine_bound_tunnel(rp_engine_request *q);

/** When mod_reqtimeout would give up, seconds earned by the bytes that came included; 0: never. */
apr_time_t rp_engine_read_deadline(const rp_read_limit *limit, apr_time_t from, apr_int64_t bytes);

#endif
