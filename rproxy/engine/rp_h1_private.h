/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the files of HTTP/1.1 share: a request under way. Nobody else includes it, but for
 * rp_handover.c and rp_access_log.c, which read it. */
#ifndef RP_H1_PRIVATE_H
#define RP_H1_PRIVATE_H

#include "rproxy/engine/rp_engine_private.h"
#include "rproxy/exchange/rp_exchange.h"

#define RP_H1_PIECES 2                  /* body pieces not written yet */
#define RP_H1_CLOSED 499                /* in the log only: nobody is there to get it */

/** Bytes of a body on their way to the client, in a buffer of the loop's. */
typedef struct rp_h1_piece {
    char *buffer;
    char *data;
    apr_size_t len;
} rp_h1_piece;

/** Lives on a free list of its loop, with its pool. */
struct rp_h1_request {
    rp_h1_request *next;                /* on the free list */
    rp_h1_request *next_resolving, **resolving_link;    /* waits for a name */
    apr_pool_t *pool;                   /* cleared after each request; everything below is gone */
    rp_downstream *d;
    const rp_engine_host *host;
    const rp_engine_route *route;
    rp_match match;
    rp_request request;
    rp_reverse reverse;
    rp_exchange x;
    const char *the_request;            /* the request line, for the log */
    const char *log_id;                 /* of its message in the error log; NULL: none */
    apr_time_t began;
    const char *raw_head;               /* as it came */
    apr_size_t head_len;
    int watched[RP_CONN_WAITS_MAX];     /* upstream descriptors whose events we get */
    int watched_count;
    int attempt;                        /* that they belong to */
    apr_int64_t body_left;              /* of a request body with a length */
    apr_int64_t body_limit;             /* LimitRequestBody, 0: none */
    apr_int64_t body_bytes;             /* of the body read from the client */
    apr_time_t body_began;
    rp_chunked chunked;                 /* of the request body */
    rp_response response;               /* what the client was sent: for the log */
    rp_fields response_fields;
    rp_buffer head;                     /* of the response, not written yet */
    apr_size_t head_off;
    rp_h1_piece pieces[RP_H1_PIECES];
    int piece_count;
    rp_buffer tail;                     /* last chunk, behind the pieces */
    apr_size_t tail_off;
    int pipe[2];                        /* of splice; valid if has_pipe */
    apr_size_t in_pipe;
    apr_int64_t sent_body;              /* body bytes handed to the socket */
    int body_status;                    /* HTTP status for a request body that failed, 0: none */
    unsigned int in_exchange:1;         /* x was started and is not ended */
    unsigned int body_ended:1;
    unsigned int expects_100:1;
    unsigned int keep_alive:1;
    unsigned int head_sent:1;           /* the final head was serialised */
    unsigned int chunk_out:1;           /* the response is sent chunked */
    unsigned int close_delimited:1;
    unsigned int tunnel:1;
    unsigned int end_write_due:1;       /* tunnel: half-close once everything is written */
    unsigned int upstream_hup:1;
    unsigned int finishing:1;           /* the exchange is over, output isn't written yet */
    unsigned int has_pipe:1;
    unsigned int more_follows:1;        /* behind what is in the pipe */
    unsigned int write_failed:1;
};

/* rp_h1_client.c: the exchange's client */

extern const rp_client_ops rp_h1_client_ops;

/** Writes what is not written yet. */
rp_io rp_h1_write(rp_h1_request *q);

/** Forgets output that will not be written. */
void rp_h1_drop_output(rp_h1_request *q);

/* rp_h1_head.c: the decision on a head */

typedef enum rp_h1_verdict { RP_H1_ENGINE, RP_H1_PIPELINE } rp_h1_verdict;

/** Parses the head of head_len bytes at the beginning of q->d->in (from a copy) and decides who
 * serves it. Fills in q as far as the exchange needs it. */
rp_h1_verdict rp_h1_take_head(rp_h1_request *q, apr_size_t head_len);

/** Fields of a response as this client gets them: framing, persistence, Date, Server. Sets the bits
 * of q. */
void rp_h1_complete_fields(rp_h1_request *q, const rp_response *response, rp_fields *fields,
                           int body_unread);

/* rp_h1.c */

/** Gives a request back to its loop, with what it holds. */
void rp_h1_drop_request(rp_h1_request *q);

/** A tunnel, and the child stops gracefully: ends it in time. */
void rp_h1_bound_tunnel(rp_h1_request *q);

/** The exchange is about to give back or close its connection. */
void rp_h1_detach(void *client);

#endif
