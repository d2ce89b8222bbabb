/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A client connection that the engine owns: the socket or the TLS session that httpd accepted, its
 * life, and the seam to the protocol that is spoken on it.
 *
 * httpd's worker brings the connection after the handshake (rp_downstream_take() in
 * process_connection, rp_downstream_depart() in suspend_connection) and forgets it; from then on it
 * belongs to one loop's thread, except while a lane thread serves a request of it in httpd's
 * pipeline (rp_handover.h). Its memory comes from malloc and ends with rp_downstream_close() and
 * what follows by itself. Only the pool of the conn_rec is httpd's: it is destroyed at the end,
 * which gives the connection back to the MPM's accounts. */
#ifndef RP_DOWNSTREAM_H
#define RP_DOWNSTREAM_H

#include <sys/uio.h>
#include "httpd.h"
#include "rproxy/engine/rp_eligible.h"
#include "rproxy/engine/rp_loop.h"

typedef struct rp_downstream rp_downstream;
typedef struct rp_downstream_tls rp_downstream_tls;     /* rp_downstream_tls.c */
typedef struct rp_engine_loop rp_engine_loop;           /* rp_engine_private.h */

/** What a protocol does on a connection. Called on the loop's thread; each may close it. */
typedef struct rp_protocol {
    /** Something has changed: bytes may be read (d->readable), output that was held up may go on,
     * or the client has ended its direction (d->left). */
    void (*ready)(rp_downstream *d);

    /** ready() is about to be called by rp_downstream_again(), for a connection that isn't costly:
     * puts into the batch what it will write first, where that is known. NULL: never. */
    void (*prepare)(rp_downstream *d, rp_batch *batch);

    /** The deadline of rp_downstream_set_deadline() is over. */
    void (*expired)(rp_downstream *d);

    /** The child stops gracefully: ends what is idle, finishes what is under way. */
    void (*drain)(rp_downstream *d);

    /** The pipeline has served what was handed over; bytes it did not use are in d->in. */
    void (*returned)(rp_downstream *d);

    /** The connection is about to close: ends what is under way. */
    void (*closed)(rp_downstream *d);
} rp_protocol;

typedef enum rp_downstream_state {
    RP_DOWN_ARRIVING,                   /* the worker that brought it has not let go of it yet */
    RP_DOWN_OPEN,                       /* the protocol's */
    RP_DOWN_LANE,                       /* a lane thread's, or waiting for one */
    RP_DOWN_LINGER,                     /* closed by us, the client may still be sending */
    RP_DOWN_CLOSED
} rp_downstream_state;

struct rp_downstream {
    rp_loop_timer timer;                /* first */
    rp_loop_task task;
    rp_loop_mail mail;
    rp_loop *loop;
    rp_engine_loop *engine;
    rp_downstream *next, **link;        /* all of the loop */
    conn_rec *c;
    apr_socket_t *socket;
    int fd;
    rp_downstream_tls *tls;             /* NULL: plain */
    const rp_protocol *protocol;
    void *session;                      /* the protocol's */
    rp_downstream_state state;
    unsigned int readable:1;            /* reading may give something */
    unsigned int left:1;                /* the client ended its direction (or the connection) */
    unsigned int ended:1;               /* that end, or an error, was read */
    unsigned int may_be_http2:1;        /* its first bytes tell */
    unsigned int misdirected:1;         /* host_text is not what the handshake was for */
    unsigned int multiplexed:1;         /* the protocol counts the bytes of each request itself */
    unsigned int peer_trusted:1;        /* RProxyTrustedProxy of the host it was asked for */
    unsigned int shut:1;                /* lingering over TLS: our direction has ended */
    unsigned int costly:1;              /* it does what costs much: others go first */
    unsigned int drained:1;             /* TLS: the socket had no more when it was read last */
    char *in;                           /* bytes that were read: in[in_start..in_end) */
    unsigned int in_size, in_start, in_end;
    unsigned int scanned;               /* of them, from in_start: no head's end is there */
    apr_time_t head_began;              /* first byte of the next request; 0: not yet */
    apr_time_t answered_at;             /* the last one was done with */
    apr_time_t since;                   /* arrival; LINGER: when we closed */
    apr_time_t released_at;             /* when the worker was seen to have let go of it */
    int requests;                       /* begun */
    const rp_engine_host *host;         /* what host_text led to; NULL: not the engine's */
    server_rec *server;                 /* likewise, never NULL once host_text is set */
    char *host_text;                    /* the last Host, malloc; NULL: none yet */
    char *hostname;                     /* what httpd makes of it for logs, malloc; NULL: none */
    apr_ssize_t sent_ahead;             /* by a batch, of what is written next; below 1: nothing */
    rp_ahead *ahead;                    /* received by a batch; NULL: nothing was */
    apr_uint64_t bytes_in;              /* read since the last access log line */
    void *handover;                     /* rp_handover.c's */
};

/* ---- httpd's side: the worker's thread ------------------------------------------------------- */

/** In process_connection: takes the connection if its first request may be the engine's. Nonzero:
 * taken, the state is SUSPENDED. */
int rp_downstream_take(conn_rec *c);

/** In suspend_connection: tells the loop, if rp_downstream_take() has taken it. */
void rp_downstream_depart(conn_rec *c);

/* ---- the loop's side ------------------------------------------------------------------------- */

/** Reads. RP_IO_AGAIN clears d->readable, RP_IO_EOF and RP_IO_FAILED set d->ended. */
rp_io rp_downstream_read(rp_downstream *d, char *buffer, apr_size_t size, apr_size_t *got);

/** Reads into d->in, which grows up to limit bytes. RP_IO_DONE with nothing read: it is full. */
rp_io rp_downstream_fill(rp_downstream *d, apr_size_t limit);

/** Makes room for size bytes behind what d->in holds. */
void rp_downstream_make_room(rp_downstream *d, unsigned int size);

/** Moves what httpd's filters have read already into d->in. Only while they have the connection. */
void rp_downstream_collect(rp_downstream *d);

/** Gives memory of d->in back that holds nothing. */
void rp_downstream_trim(rp_downstream *d);

/** Writes as much as goes. RP_IO_AGAIN: the rest when protocol->ready() is called again. TLS: what
 * was written is encrypted, and may still wait in rp_downstream_flush(). */
rp_io rp_downstream_write(rp_downstream *d, const struct iovec *vector, int count,
                          apr_size_t *written);

/** For the access log: bytes that were sent. */
void rp_downstream_count_out(rp_downstream *d, apr_size_t bytes);

/** RP_IO_DONE: nothing waits to be sent below us. */
rp_io rp_downstream_flush(rp_downstream *d);

/** Ends our direction: the client reads the end, we may read on. */
void rp_downstream_end_write(rp_downstream *d);

void rp_downstream_set_deadline(rp_downstream *d, apr_time_t due);

/** Calls protocol->ready() once more, after others had their turn. */
void rp_downstream_again(rp_downstream *d);

/** Closes in good order: what was written arrives (RFC 9112 section 9.6). */
void rp_downstream_close(rp_downstream *d);

/** Closes at once; reset nonzero: the client sees that something broke off. */
void rp_downstream_abort(rp_downstream *d, int reset);

/* ---- rp_downstream_tls.c --------------------------------------------------------------------- */

struct ssl_st;

/** Once in a child, before its loops. Zero: no memory. */
int rp_downstream_tls_init(void);

/** Takes over the TLS session from mod_ssl's filters, which hold nothing; NULL: no memory. */
rp_downstream_tls *rp_downstream_tls_take(rp_downstream *d, struct ssl_st *ssl);

/** Moves records that were read from the socket already into d->in: mod_ssl's filter would not
 * look for them. */
void rp_downstream_tls_drain(rp_downstream *d);

/** Gives it back to the filters. Everything written must be flushed, everything read drained. */
void rp_downstream_tls_give_back(rp_downstream *d);

/** Takes it again after that. */
void rp_downstream_tls_retake(rp_downstream *d);

rp_io rp_downstream_tls_read(rp_downstream *d, char *buffer, apr_size_t size, apr_size_t *got);
rp_io rp_downstream_tls_write(rp_downstream *d, const struct iovec *vector, int count,
                              apr_size_t *written);
rp_io rp_downstream_tls_flush(rp_downstream *d);

/** Encrypts what is written then, and gives it to the batch instead of sending it. */
void rp_downstream_tls_prepare(rp_downstream *d, const struct iovec *vector, int count,
                               apr_size_t *written, rp_batch *batch);

/** Nonzero: OpenSSL holds bytes that were received. */
int rp_downstream_tls_has_pending(const rp_downstream *d);

/** Puts a close_notify in line. */
void rp_downstream_tls_end(rp_downstream *d);

/** The server name that the client asked for, NULL: none. */
const char *rp_downstream_tls_name(const rp_downstream *d);

void rp_downstream_tls_free(rp_downstream *d);

#endif
