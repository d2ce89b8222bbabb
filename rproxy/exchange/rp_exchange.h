/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* rproxy/exchange: one client request and the upstream attempts made for it.
 *
 * A state machine over non-blocking sockets. rp_exchange_step() does what can be done now and
 * returns; rp_exchange_waits() then says what it waits for: descriptors of the upstream, the
 * client's direction (through the lane), and a deadline. A driver waits for any of them and steps
 * again. Which lane and which driver it is, the exchange doesn't know: the client is behind
 * rp_client_ops.
 *
 * An exchange belongs to one thread at a time (the one that steps it); it lives in the request's
 * pool and must be ended with rp_exchange_end() before that pool goes. */
#ifndef RP_EXCHANGE_H
#define RP_EXCHANGE_H

#include <string.h>
#include <strings.h>
#include <apr_pools.h>
#include <apr_time.h>
#include "include/mod_rproxy.h"
#include "rproxy/http/rp_http.h"
#include "rproxy/route/rp_route.h"
#include "rproxy/upstream/rp_upstream.h"

/* ---- settings: immutable while requests run -------------------------------------------------- */

/** RProxyTimeout, microseconds; 0: none. */
typedef struct rp_timeouts {
    apr_interval_time_t connect;        /* name, TCP, TLS of one attempt */
    apr_interval_time_t first_byte;     /* from the sent request to the first byte of the answer */
    apr_interval_time_t idle;           /* nothing moved in either direction */
    apr_interval_time_t total;          /* the whole exchange, tunnels excepted */
    apr_interval_time_t tunnel;         /* nothing moved in a tunnel */
    apr_interval_time_t drain;        /* how long a tunnel may outlive a graceful restart or stop */
} rp_timeouts;

/** RProxyRetry on=: what makes another attempt. */
enum {
    RP_RETRY_ERROR = 1,                 /* no connection, or broken off before a response */
    RP_RETRY_TIMEOUT = 2                /* connect or first-byte timeout */
};

#define RP_RETRY_STATUS_MAX 8           /* status codes in one on= list */

typedef struct rp_retry {
    int tries;                          /* attempts in all, 1: never repeat */
    unsigned int on;                    /* RP_RETRY_ bits */
    int statuses[RP_RETRY_STATUS_MAX];  /* ended by 0 if there are fewer */
    int any_method;                     /* methods=all: POST and PATCH too */
} rp_retry;

typedef enum rp_upgrade { RP_UPGRADE_WEBSOCKET, RP_UPGRADE_ANY, RP_UPGRADE_OFF } rp_upgrade;

/** Nonzero if a client may ask for the protocol; a list of them, and h2c, never. */
static inline int rp_upgrade_allows(rp_upgrade allowed, const char *protocol)
{
    if (allowed == RP_UPGRADE_OFF || strncasecmp(protocol, "h2c", 3) == 0) {
        return 0;
    }
    return strcasecmp(protocol, "websocket") == 0
        || (allowed == RP_UPGRADE_ANY && !strpbrk(protocol, ", \t;"));
}

typedef enum rp_forwarded {
    RP_FORWARDED_X = 1,                 /* X-Forwarded-For, -Proto, -Host, -Port */
    RP_FORWARDED_RFC7239 = 2,
    RP_FORWARDED_BOTH = 3,
    RP_FORWARDED_OFF = 0                /* neither sent nor passed on */
} rp_forwarded;

/** A directive with keys as it was written: its values, and which of them were (bits by index of
 * key), so that sections merge key by key. */
typedef struct rp_retry_setting {
    rp_retry values;                    /* first: a pointer to it is one to the setting */
    unsigned int written;
} rp_retry_setting;

typedef struct rp_keepalive_setting {
    rp_keepalive values;                /* first */
    unsigned int written;
} rp_keepalive_setting;

enum { RP_RETRY_KEY_TRIES, RP_RETRY_KEY_ON, RP_RETRY_KEY_METHODS };
enum {
    RP_KEEPALIVE_KEY_MAX, RP_KEEPALIVE_KEY_IDLE, RP_KEEPALIVE_KEY_REQUESTS, RP_KEEPALIVE_KEY_AGE
};

typedef struct rp_exchange_settings {
    rp_timeouts timeouts;
    rp_retry retry;
    rp_upgrade upgrade;
    rp_forwarded forwarded;
    int preserve_host;
    int ignore_client_abort;            /* go on with the upstream when the client has left */
    const char *via;                    /* "1.1 NAME": what we add to Via of HTTP/1.1 requests */
} rp_exchange_settings;

#define RP_UNSET (-1)

/** rproxy_settings: what a pool, or a member with its pool, has instead of what the route has. */
struct rproxy_settings {
    rp_timeouts timeouts;               /* each RP_UNSET or microseconds */
    const rp_retry_setting *retry;      /* NULL: not set */
    const rp_keepalive_setting *keepalive;
    const rp_tls *tls;
    int forwarded;                      /* rp_forwarded or RP_UNSET */
    int preserve_host;
};

/** Puts what is written in from over what is in into. */
void rp_retry_put(rp_retry *into, const rp_retry_setting *from);
void rp_keepalive_put(rp_keepalive *into, const rp_keepalive_setting *from);
void rp_exchange_settings_put(rp_exchange_settings *into, const rproxy_settings *from);

/* ---- the client's side, brought by the lane -------------------------------------------------- */

/** What to do with an upstream's response head. */
typedef enum rp_head_verdict {
    RP_HEAD_RELAY,                      /* it was sent on, body follows */
    RP_HEAD_REPLACE,                    /* the lane answers itself (RProxyErrorOverride) */
    RP_HEAD_FAILED                      /* the client is gone or the head could not be sent */
} rp_head_verdict;

/** What became of a splice(). In every case *moved bytes were taken from the upstream's socket. */
typedef enum rp_splice {
    RP_SPLICE_MOVED,                    /* at least one byte */
    RP_SPLICE_EMPTY,                    /* none: the upstream has nothing now */
    RP_SPLICE_FULL,                     /* the client must become writable before more, as send() */
    RP_SPLICE_EOF,                      /* none: the upstream has ended its direction */
    RP_SPLICE_FAILED,                   /* reading from the upstream failed: errno */
    RP_SPLICE_CLIENT_GONE,
    RP_SPLICE_UNABLE                    /* none: it can't be done here, now; copy instead */
} rp_splice;

/** All calls come from the thread that steps the exchange; none may block in a parked or engine
 * driver. client is rp_exchange.client. */
typedef struct rp_client_ops {
    /** Reads the request body (in a tunnel: the client's bytes). RP_IO_EOF: complete (tunnel: the
     * client ended its direction). RP_IO_FAILED: it broke off or was malformed. */
    rp_io (*read)(void *client, char *buffer, apr_size_t size, apr_size_t *got);

    /** Trailers of a request body that has been read to its end; NULL if there are none. */
    const rp_fields *(*request_trailers)(void *client);

    /** Sends a 1xx response other than 101. */
    rp_io (*interim)(void *client, int status, const rp_fields *fields);

    /** Sends the final response head or a 101; fields are ready for the client (end-to-end,
     * mapped). body_unread nonzero: the request body was not read to its end. */
    rp_head_verdict (*head)(void *client, const rp_response *response, const rp_fields *fields,
                            int body_unread);

    /** Lends a buffer to read response bytes into; given back with send() or release(). */
    char *(*reserve)(void *client, apr_size_t *size);
    void (*release)(void *client, char *buffer);

    /** Sends len bytes at data, which lie in buffer (from reserve(), now the lane's again).
     * RP_IO_AGAIN: taken, but more would pile up: wait for the client to become writable. */
    rp_io (*send)(void *client, char *buffer, char *data, apr_size_t len);

    /** Hands on what was sent so far without waiting for more; also after RP_IO_AGAIN. RP_IO_DONE:
     * the client can take more. push: the upstream has paused, nothing may be held back. */
    rp_io (*flush)(void *client, int push);

    /** The body is complete. trailers may be NULL. */
    rp_io (*finish)(void *client, const rp_fields *trailers);

    /** After head() with 101: bytes from now on are the tunnel's, both ways. */
    void (*tunnel)(void *client);

    /** In a tunnel: the upstream ended its direction. */
    void (*end_write)(void *client);

    /** The upstream connection is about to be given back or closed: its descriptors are no longer
     * the exchange's. */
    void (*detach)(void *client);

    /** NULL: never. Moves up to limit body bytes (behind all that was sent before) from the
     * upstream's socket to the client without copying. After FULL, flush() says when to go on, as
     * it does for send(). */
    rp_splice (*splice)(void *client, int fd, apr_size_t limit, apr_size_t *moved);
} rp_client_ops;

/* ---- the exchange ---------------------------------------------------------------------------- */

typedef enum rp_outcome {
    RP_OUTCOME_RUNNING,
    RP_OUTCOME_DONE,                    /* complete answer (or tunnel) delivered to the lane */
    RP_OUTCOME_REPLACED,                /* the lane answers with response.status itself */
    RP_OUTCOME_ERROR,                   /* nothing was sent: the lane answers from reason */
    RP_OUTCOME_BROKEN                 /* broke off behind the head: the client must see it broken */
} rp_outcome;

typedef enum rp_exchange_state {
    RP_X_CONNECT,                       /* waits for an upstream connection; at first */
    RP_X_QUEUE,                         /* waits for a member of the pool */
    RP_X_RELAY,                         /* request and response under way */
    RP_X_TUNNEL,
    RP_X_ENDED
} rp_exchange_state;

typedef struct rp_pool_use rp_pool_use; /* rp_exchange_pool.c */

typedef struct rp_exchange {
    /* given by the lane, constant */
    apr_pool_t *pool;
    const rp_request *request;
    const rp_exchange_settings *settings;
    const rp_reverse *reverse;
    const char *target;                 /* request-target for the upstream */
    rp_endpoint *endpoint;              /* NULL with a pool, until a member was chosen */
    rp_pool_use *member;                /* set by rp_exchange_use_pool(); NULL: no pool */
    rp_shelf *shelf;                    /* of the thread that steps; NULL: what all threads share */
    const apr_time_t *clock;            /* the loop's: when it woke; NULL: the system's */
    const rp_target *address;           /* the endpoint's, for Host */
    const rp_client_ops *ops;
    void *client;
    int budget;                         /* bytes taken from either side in one step, roughly, before
                                         * other exchanges have their turn; 0: no bound */
    apr_time_t drain_by;             /* a tunnel ends then, since the child is to stop; 0: no bound;
                                         * may be set between steps */

    /* result */
    rp_outcome outcome;
    rp_reason reason;                   /* with ERROR and BROKEN; else of the last failed attempt */
    const char *detail;                 /* text for the log, may hold bytes of a peer; or NULL */
    rp_response response;               /* the final head, once head_sent */

    /* for the log; times in microseconds since start, -1: did not happen */
    apr_time_t started;
    apr_interval_time_t queue_time;     /* spent in RP_X_QUEUE */
    apr_interval_time_t connect_time;
    apr_interval_time_t first_byte_time;
    int attempts;                       /* connections tried, replays included */
    const char *peer;                   /* address of the last attempt, "" before */
    int reused;                         /* the last attempt's connection was from the pool */
    apr_int64_t sent_body;              /* request body bytes sent upstream by the last attempt */
    apr_int64_t received_body;          /* response body bytes passed on */

    /* own state */
    rp_exchange_state state;
    rp_conn *conn;
    rp_buffer head;                     /* serialised request head */
    rp_buffer body_kept;                /* request body bytes so far, for another attempt */
    rp_buffer wire;                     /* bytes in line for the upstream */
    apr_size_t wire_off;                /* of wire: sent so far */
    char *in;                           /* response head so far */
    apr_size_t in_len, in_capacity, in_scanned;
    int interim_count;                  /* 1xx responses of this attempt */
    rp_chunked chunked;                 /* of the response */
    apr_int64_t body_left;              /* of a response with a length */
    apr_int64_t body_read;              /* bytes of the request body read from the client */
    apr_time_t attempt_at, sent_at, progress_at, deadline;
    apr_time_t connected_at, answered_at;   /* of this attempt; 0: not yet */
    apr_time_t queued_at;               /* in RP_X_QUEUE: since then; else 0 */
    const char *upgrade_protocol;       /* what we asked to switch to, NULL: nothing */
    unsigned int request_done:1;        /* the request is sent, or its sending was given up */
    unsigned int send_broken:1;        /* the upstream stopped reading; its answer may still come */
    unsigned int response_done:1;       /* the whole response was received */
    unsigned int client_eof:1;         /* the request body (tunnel: client's direction) has ended */
    unsigned int keep_body:1;           /* request bytes are kept for another attempt */
    unsigned int replayed:1;            /* a dead reused connection was replaced once already */
    unsigned int any_byte_sent:1;       /* some byte of this attempt's request was sent */
    unsigned int head_done:1;           /* final response head handed to the lane */
    unsigned int upstream_eof:1;        /* tunnel: the upstream's direction has ended */
    unsigned int tunnel_wire:1;         /* wire has the tunnel's own buffer */
    unsigned int unflushed:1;           /* bytes handed to the lane since the last flush */
    unsigned int hold_back:1;           /* X-Accel-Buffering: yes */
    unsigned int client_blocked:1;      /* the client can't take more now */
    unsigned int client_gone:1;
    unsigned int upstream_hup:1;        /* set by a driver that waits for edges, in RELAY and
                                         * TUNNEL: an event told that the upstream has closed its
                                         * side, and none will tell again: read to the end */
    unsigned int splicing:1;            /* the body is moved by splice() */
    unsigned int no_splice:1;           /* tried in vain */
    unsigned int yielded:1;             /* the last step stopped only because of the budget */
    unsigned int want_upstream_read:1;  /* what the last step waits for */
    unsigned int want_upstream_write:1;
    unsigned int want_client_read:1;
    unsigned int want_client_write:1;
} rp_exchange;

/** Lets a pool choose a member for each attempt, instead of endpoint and address; its part of
 * target, reverse, and Host is the member's. What is given by the lane is set, but for these two.
 * pool is what pools->find() gave. x->settings, tls and keepalive are the route's: what the pool
 * and its members have of these comes before them. */
void rp_exchange_use_pool(rp_exchange *x, const rproxy_pools *pools, void *pool,
                          const rp_tls *tls, const rp_keepalive *keepalive);

/** The member of the last attempt, as logs show it; NULL: there is none. */
const char *rp_exchange_member_name(const rp_exchange *x);

/** Adds what the pool has to say of the last attempt to env; values live as long as pool. */
void rp_exchange_member_variables(const rp_exchange *x, apr_pool_t *pool, apr_table_t *env);

/** Prepares an exchange whose "given by the lane" members are set; the first step takes a
 * connection. Returns RP_REASON_NONE, or why the request cannot be sent on (outcome is then ERROR
 * already). */
rp_reason rp_exchange_start(rp_exchange *x);

/** Before the first step, or not at all: begins the first attempt. Nonzero: that step will write
 * len bytes at data to fd. Who has sent some of them before it puts into *result how many. */
int rp_exchange_begin(rp_exchange *x, int *fd, const char **data, apr_size_t *len,
                      apr_ssize_t **result);

/** Where what is received ahead on the upstream's socket may be put, since the next step will read
 * it all, NULL: nowhere. */
rp_ahead **rp_exchange_reads(rp_exchange *x);

/** Does what can be done now; upstream_ready 0 says that nothing can have come from the upstream
 * since the last step (the first step; a wake-up by the client alone). Afterwards x->outcome is
 * RUNNING and rp_exchange_waits() is valid, or the exchange has ended (its connection is already
 * given back). Never blocks. */
rp_outcome rp_exchange_step(rp_exchange *x, int upstream_ready);

/** What the exchange waits for. */
typedef struct rp_waits {
    rp_wait_fd fds[RP_CONN_WAITS_MAX];  /* upstream descriptors */
    int count;
    int client_read;                    /* the request body or tunnel bytes are wanted */
    int client_write;                   /* the client must become writable */
    int again;                          /* nothing: the budget was spent, so step again with
                                         * upstream_ready set when others had their turn */
    apr_time_t deadline;                /* step again then at the latest; 0: none */
} rp_waits;

void rp_exchange_waits(const rp_exchange *x, rp_waits *waits);

/** A driver noticed that the client has left. Returns nonzero if the exchange goes on regardless
 * (ignore_client_abort), else the exchange has ended. */
int rp_exchange_client_left(rp_exchange *x);

/** Ends it from outside (the server stops, the request's pool goes): outcome becomes ERROR or
 * BROKEN with this reason unless it has ended already. */
void rp_exchange_end(rp_exchange *x, rp_reason reason);

/* ---- pieces for tests and for the exchange's own files --------------------------------------- */

/** Builds the upstream's request head (Host, forwarding, Via, framing, upgrade) into x->head. */
rp_reason rp_exchange_write_head(rp_exchange *x);

/** Fields of x->response as the client shall see them: end-to-end, mapped back. */
void rp_exchange_map_fields(const rp_exchange *x, rp_fields *out);

/** Nonzero if a retry with this method needs no asking (RFC 9110 section 9.2.2). */
int rp_method_is_idempotent(const char *method);

#endif
