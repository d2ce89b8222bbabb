/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the files of HTTP/2 share; nobody else includes it. */
#ifndef RP_H2_PRIVATE_H
#define RP_H2_PRIVATE_H

#include <nghttp2/nghttp2.h>
#include "rproxy/engine/rp_engine_request.h"
#include "rproxy/engine/rp_h2.h"

#define RP_H2_STREAMS 100               /* at once on a connection */
#define RP_H2_WINDOW 65535              /* bytes of a request body that wait for the upstream */
#define RP_H2_PIECES 2                  /* response body pieces of a stream not sent yet */
#define RP_H2_SMALL 2048                /* a piece up to this is copied: its buffer is free again */

/** Things that a client may do, but not for long: each has a budget (RFC 9113 section 10.5). */
typedef enum rp_h2_nuisance {
    RP_H2_RESET,                        /* RST_STREAM */
    RP_H2_SETTINGS,
    RP_H2_PING,
    RP_H2_EMPTY,                        /* DATA without bytes that ends nothing */
    RP_H2_PRIORITY,                     /* PRIORITY and PRIORITY_UPDATE */
    RP_H2_WINDOW_UPDATE,
    RP_H2_MALFORMED,                    /* requests that are refused as malformed */
    RP_H2_CONTINUATION,                 /* of one head; counted by nghttp2 */
    RP_H2_HEAD,                         /* a few bytes that stand for many */
    RP_H2_NUISANCES
} rp_h2_nuisance;

typedef struct rp_h2_stream rp_h2_stream;

typedef struct rp_h2_session {
    rp_downstream *d;
    nghttp2_session *ng;
    rp_h2_stream *streams;              /* all; those whose client has gone, too */
    rp_h2_stream *due, **due_end;       /* to be stepped, in turn */
    int due_count;
    int prepared;                       /* of the first of them, what they will send is under way */
    int stream_count;
    int abandoned;                      /* streams whose client has gone, for now still here */
    char *out;                          /* frames not written yet, a loop's buffer; NULL: none */
    unsigned int out_start, out_end;
    apr_time_t idle_since;              /* no stream; also when it began */
    apr_time_t preface_by;              /* the first stream, or it ends */
    apr_time_t progress_at;             /* the client took something; only while it is blocked */
    apr_time_t goaway_at;               /* when the final GOAWAY is due; 0: not draining, or sent */
    apr_time_t refilled_at;             /* the budgets */
    int budget[RP_H2_NUISANCES];
    unsigned int blocked:1;             /* the client doesn't take what is in out */
    unsigned int lost:1;                /* the client is gone or told to; some exchange goes on */
    unsigned int ending:1;              /* no more streams: close when all is sent */
    unsigned int any_stream:1;          /* there was one */
    unsigned int yielding:1;            /* step first: a stream may have more of what is urgent */
} rp_h2_session;

/** Bytes of a response body. */
typedef struct rp_h2_piece {
    char *buffer;                       /* the loop's, or NULL */
    char *copy;                         /* malloc, or NULL */
    char *data;                         /* in either */
    apr_size_t len;
} rp_h2_piece;

/** Lives on a free list of its loop, with its pool. */
struct rp_h2_stream {
    rp_engine_request base;             /* first */
    rp_loop_timer timer;
    rp_h2_session *session;
    rp_h2_stream *next, **link;         /* the session's */
    rp_h2_stream *next_due;
    int32_t id;
    const char *protocol;               /* :protocol of extended CONNECT, or NULL */
    apr_size_t head_size;               /* of the fields so far, as RFC 9113 section 6.5.2 counts */
    rp_fields request_trailers;
    rp_buffer cookie;                   /* of several fields, not ended yet; len 0: none */
    char *body;                         /* malloc: request bytes that wait; NULL: none */
    apr_size_t body_len, body_off, body_size;
    rp_h2_piece pieces[RP_H2_PIECES];
    int piece_count;
    const rp_fields *response_trailers; /* to be sent behind the body, or NULL */
    apr_int64_t wire_in, wire_out;
    unsigned int is_due:1;
    unsigned int answers:1;             /* something came from the upstream since its last step */
    unsigned int open:1;                /* nghttp2 knows it */
    unsigned int left:1;                /* ... not any more, and the exchange was told */
    unsigned int in_trailers:1;
    unsigned int in_ended:1;            /* the client has ended its direction */
    unsigned int out_ended:1;           /* nothing comes behind the pieces */
    unsigned int broken:1;              /* ... and the client must see that something is missing */
    unsigned int deferred:1;            /* nghttp2 waits for us to have more */
    unsigned int malformed:1;
    unsigned int too_large:1;           /* its head */
    unsigned int expects_100:1;
    unsigned int answered:1;            /* all of the answer was sent, the request goes on */
    unsigned int over:1;                /* the exchange has ended, or there was none */
};

/* rp_h2_stream.c */

/** A stream whose head begins. */
rp_h2_stream *rp_h2_new_stream(rp_h2_session *session, int32_t id);

/** Its head is complete: decides and starts the exchange, or answers. */
void rp_h2_begin_exchange(rp_h2_stream *stream);

/** Steps its exchange; upstream_ready: something may have come from there. */
void rp_h2_step(rp_h2_stream *stream, int upstream_ready);

/** The exchange has ended: what the client gets. */
void rp_h2_end_exchange(rp_h2_stream *stream);

/** The client has to take something of the answer in the server's Timeout from now. */
void rp_h2_expect_progress(rp_h2_stream *stream);

/** The client has gone: the exchange learns of it in its turn. */
void rp_h2_lose_client(rp_h2_stream *stream);

/** One line of the access log, when both the exchange and the client are done with it. */
void rp_h2_finish_stream(rp_h2_stream *stream);

/** Steps the stream's exchange in its turn. */
void rp_h2_make_due(rp_h2_stream *stream);

/** Takes the first of the due streams, or NULL. */
rp_h2_stream *rp_h2_next_due(rp_h2_session *session);

/** Frames were submitted: they are sent at the end of the round. */
void rp_h2_make_ready(rp_h2_session *session);

/** Refuses the stream as malformed, or since the server is busy. */
void rp_h2_reset(rp_h2_stream *stream, uint32_t error);

/* rp_h2_frames.c */

/** Makes the session's nghttp2 side; session->d is set. Zero: no memory. */
int rp_h2_open(rp_h2_session *session);

/** When a head that begins now has to be complete. */
apr_time_t rp_h2_head_deadline(const rp_h2_session *session);

/** A DATA frame was sent: a client that takes much has to answer for it. */
void rp_h2_earn(rp_h2_session *session);

/** Takes one from the budget, and makes the connection costly when much of it is spent. Zero: it
 * was used up, and the connection ends. */
int rp_h2_tolerates(rp_h2_session *session, rp_h2_nuisance nuisance);

/** Time has passed: what the client did may not count any more. */
void rp_h2_forgive(rp_h2_session *session);

/* rp_h2_head.c */

/** A field of the request's head, or of its trailers. */
void rp_h2_add_field(rp_h2_stream *stream, nghttp2_rcbuf *name, nghttp2_rcbuf *value);

#define RP_H2_MALFORMED_HEAD (-1)
#define RP_H2_HEAD_FOR_HTTP1 (-2)       /* a page that only the pipeline has */

/** The head is complete: decides and prepares the exchange. 0: it was prepared; an HTTP status: the
 * request is answered with that; negative: the stream is reset, for one of the reasons above. */
int rp_h2_take_head(rp_h2_stream *stream);

/** Submits the head of a final response; has_body zero: it ends the stream. Zero: it cannot be
 * sent. */
int rp_h2_submit_head(rp_h2_stream *stream, int status, const rp_fields *fields, int has_body);

/** Submits an interim response. */
int rp_h2_submit_interim(rp_h2_stream *stream, int status, const rp_fields *fields);

/** Submits trailers. */
int rp_h2_submit_trailers(rp_h2_stream *stream, const rp_fields *fields);

/** An answer of the proxy's own. */
void rp_h2_answer(rp_h2_stream *stream, int status);

/* rp_h2_client.c */

extern const rp_client_ops rp_h2_client_ops;
extern const nghttp2_data_provider rp_h2_body;

/** Bytes of the request body came. Zero: more than the window allows. */
int rp_h2_take_body(rp_h2_stream *stream, const uint8_t *bytes, apr_size_t len);

/** nghttp2_send_data_callback: puts a DATA frame in line. */
int rp_h2_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *head,
                    size_t length, nghttp2_data_source *source, void *baton);

/** Nothing more comes behind what waits to be sent. */
void rp_h2_end_output(rp_h2_stream *stream);

/** Forgets bytes that wait in either direction. */
void rp_h2_drop_bytes(rp_h2_stream *stream);

#endif
