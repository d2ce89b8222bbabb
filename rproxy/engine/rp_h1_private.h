/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the files of HTTP/1.1 share: a request under way. Nobody else includes it, but for
 * rp_handover.c, which reads it. */
#ifndef RP_H1_PRIVATE_H
#define RP_H1_PRIVATE_H

#include "rproxy/engine/rp_engine_request.h"

#define RP_H1_PIECES 2                  /* body pieces not written yet */
#define RP_H1_VECTOR (RP_H1_PIECES + 2) /* with a head and a tail */

/** Bytes of a body on their way to the client, in a buffer of the loop's. */
typedef struct rp_h1_piece {
    char *buffer;
    char *data;
    apr_size_t len;
} rp_h1_piece;

/** Lives on a free list of its loop, with its pool. */
typedef struct rp_h1_request {
    rp_engine_request base;             /* first */
    const char *raw_head;               /* as it came */
    apr_size_t head_len;
    apr_int64_t body_left;              /* of a request body with a length */
    rp_chunked chunked;                 /* of the request body */
    rp_buffer head;                     /* of the response, not written yet */
    apr_size_t head_off;
    rp_h1_piece pieces[RP_H1_PIECES];
    int piece_count;
    rp_buffer tail;                     /* last chunk, behind the pieces */
    apr_size_t tail_off;
    int pipe[2];                        /* of splice; valid if has_pipe */
    apr_size_t in_pipe;
    unsigned int expects_100:1;
    unsigned int chunk_out:1;           /* the response is sent chunked */
    unsigned int close_delimited:1;
    unsigned int end_write_due:1;       /* tunnel: half-close once everything is written */
    unsigned int finishing:1;           /* the exchange is over, output isn't written yet */
    unsigned int has_pipe:1;
    unsigned int more_follows:1;        /* behind what is in the pipe */
} rp_h1_request;

/* rp_h1_client.c: the exchange's client */

extern const rp_client_ops rp_h1_client_ops;

/** Writes what is not written yet. */
rp_io rp_h1_write(rp_h1_request *q);

/** rp_protocol.prepare(). */
void rp_h1_prepare(rp_downstream *d, rp_batch *batch);

/** Forgets output that will not be written. */
void rp_h1_drop_output(rp_h1_request *q);

/* rp_h1_head.c: the decision on a head */

typedef enum rp_h1_verdict { RP_H1_ENGINE, RP_H1_PIPELINE } rp_h1_verdict;

/** Parses the head of head_len bytes at the beginning of q->d->in (from a copy) and decides who
 * serves it. Fills in q as far as the exchange needs it. */
rp_h1_verdict rp_h1_take_head(rp_h1_request *q, apr_size_t head_len);

/** Fields of a response as this client gets them, with framing and persistence. Sets the bits of
 * q. */
void rp_h1_complete_fields(rp_h1_request *q, const rp_response *response, rp_fields *fields,
                           int body_unread);

/* rp_h1.c */

/** Gives a request back to its loop, with what it holds. */
void rp_h1_drop_request(rp_h1_request *q);

#endif
