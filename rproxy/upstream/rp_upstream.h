/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* rproxy/upstream: endpoints, name resolution, connection pools, TLS client.
 *
 * An endpoint is one address as written (host:port or Unix socket) with one set of TLS and
 * keep-alive settings; it owns the idle connections of this child, except those on a thread's own
 * shelf. A connection belongs to
 * one exchange at a time; only that exchange's current thread may touch it. Nothing here blocks:
 * what would block returns RP_IO_AGAIN and says which descriptors to wait for. Names are resolved
 * on a thread of the child's own (c-ares), by TTL.
 */
#ifndef RP_UPSTREAM_H
#define RP_UPSTREAM_H

#include <sys/uio.h>
#include <apr_pools.h>
#include <apr_tables.h>
#include <apr_time.h>
#include "httpd.h"                      /* server_rec for logging; nothing of request_rec */
#include "include/mod_rproxy.h"
#include "rproxy/rp_reason.h"
#include "rproxy/route/rp_route.h"      /* rp_target */
#include "rproxy/upstream/rp_ahead.h"

/* ---- settings, made while the configuration is read ------------------------------------------ */

/** RProxyKeepAlive. Times in microseconds, 0: no limit. */
typedef struct rp_keepalive {
    int max;                            /* idle connections kept per endpoint and child; on
                                         * shelves: per endpoint and shelf */
    apr_interval_time_t idle;           /* closed after being idle for this long */
    int requests;                       /* retired after this many exchanges */
    apr_interval_time_t age;            /* retired when older */
} rp_keepalive;

extern const rp_keepalive rp_keepalive_default;     /* max=64 idle=60s requests=0 age=0 */

/** RProxyTLS: one object for each directive as written; merged settings get their own object. */
typedef struct rp_tls {
    int verify;                         /* default 1 */
    const char *ca;                     /* file or directory; NULL: the system's */
    const char *name;                   /* SNI and name to verify; NULL: the target's host */
    const char *cert;                   /* PEM, with chain */
    const char *key;                    /* PEM; NULL: in cert */
    const char *protocols;              /* "TLSv1.2+", "TLSv1.3" or a list */
    const char *ciphers;                /* OpenSSL list for TLS 1.2; NULL: default */
    const char *file;                   /* where it was written */
    int line;
    void *ctx;                          /* SSL_CTX, after rp_tls_finish() */
} rp_tls;

/** Parses "key=value" arguments (array of const char *) into a new object whose unset keys come
 * from base (may be NULL). Relative files are resolved against the server root. NULL or message. */
const char *rp_tls_parse(apr_pool_t *pool, const apr_array_header_t *arguments, const rp_tls *base,
                         rp_tls **tls);

/** Loads certificates and keys (as root, at startup), makes the SSL_CTX; it is freed with pool. tls
 * NULL: prepares the default settings. NULL or a message naming file and remedy. */
const char *rp_tls_finish(apr_pool_t *pool, rp_tls *tls);

/** The SSL_CTX of rp_tls_finish(); NULL: it did not run. For connections that are made elsewhere:
 * no rp_conn is their app data. */
struct ssl_ctx_st *rp_tls_get(const rp_tls *tls);

/** RProxyResolver: servers "address[:port]" and limits, 0: the default (1 s, 1 h, 5 s). The hosts
 * file comes first either way. */
typedef rproxy_resolver rp_resolver_settings;

/* ---- life of a child ------------------------------------------------------------------------- */

/** In child_init: pools, resolver and maintenance thread (closes idle connections when their time
 * is up, refreshes names before their TTL ends while they are in use). Ends with pool. */
apr_status_t rp_upstream_child_init(apr_pool_t *pool, server_rec *server,
                                    const rp_resolver_settings *resolver);

/** Starts resolving a target's name early, so that the first request need not wait. */
void rp_upstream_prefetch(rp_target *target);

/** Counters of this child, for the status page. */
typedef struct rp_upstream_stats {
    apr_uint64_t connects, reuses, connect_failures, lookups, lookup_failures, retired;
    unsigned int idle, active, endpoints;
} rp_upstream_stats;

void rp_upstream_stats_get(rp_upstream_stats *stats);

/* ---- endpoints ------------------------------------------------------------------------------- */

typedef struct rp_endpoint rp_endpoint;
typedef struct rp_conn rp_conn;

/** The endpoint for target with these settings (tls NULL: defaults). Made at first use, lives as
 * long as the child. Pools are shared by equal key (rp_target.key), equal TLS settings (contents,
 * effective SNI) and equal keep-alive settings, whoever wrote them, and by nothing less. Targets
 * from the configuration are cached in target->upstream; dynamic (from .htaccess, request pool)
 * targets go through a table of at most RP_DYNAMIC_ENDPOINTS_MAX; beyond that unused ones are
 * dropped, and if all are in use NULL is returned. */
#define RP_DYNAMIC_ENDPOINTS_MAX 1024
rp_endpoint *rp_endpoint_get(rp_target *target, int dynamic, const rp_tls *tls,
                             const rp_keepalive *keepalive);

/** For a target that isn't dynamic but doesn't live as long as the child, before it goes: nobody
 * uses it any more. What only it had is dropped. */
void rp_endpoint_forget(rp_target *target);

/** Ends the use of an endpoint that rp_endpoint_get() returned with dynamic set, once for each such
 * call: only then may it be dropped for others. Connections taken from it may live on. */
void rp_endpoint_release(rp_endpoint *endpoint);

/* ---- shelves --------------------------------------------------------------------------------- */

/** Idle connections of one thread that never shares them. No locks: every call from that thread,
 * with it the release of connections that were acquired with the shelf. */
typedef struct rp_shelf rp_shelf;

#define RP_SHELVES_MAX 64               /* at once in a child */

/** idle is called within rp_conn_release() when a connection of this shelf becomes idle: its socket
 * fd stays registered in the loop's epoll set, and events on it are for rp_shelf_ready() from now
 * on. With conn NULL: the idle connection with this fd is about to be closed by one of the shelf's
 * calls, so no event on it that was fetched already may reach rp_shelf_ready(). (That one is taken
 * into use again the loop learns from the exchange that waits for it.) Made at child start before
 * requests run, after rp_upstream_child_init(); NULL: there are too many. */
rp_shelf *rp_shelf_create(void (*idle)(void *baton, int fd, rp_conn *conn), void *baton);

/** The loop has woken: now is the shelf's time until it does so again. all nonzero: the loop has
 * learnt of all events there are, and tells rp_shelf_ready() of those on idle connections before
 * anything else; a connection that was given back earlier is known to be quiet then, and preferred,
 * for it is taken without a system call to ask. */
void rp_shelf_begin_round(rp_shelf *shelf, apr_time_t now, int all);

/** The socket of an idle connection has become readable or was hung up: closes it, unless it is
 * just a TLS session ticket that came, or nothing at all (an event of its last exchange). */
void rp_shelf_ready(rp_shelf *shelf, rp_conn *conn);

/** Closes idle connections over their limits, at addresses that are gone, and of dropped endpoints;
 * about once a second. */
void rp_shelf_maintain(rp_shelf *shelf, apr_time_t now);

/** Closes them all without calling idle; none of the shelf's connections is in use any more. To be
 * called when its thread has ended and before the pool of rp_upstream_child_init() goes. */
void rp_shelf_destroy(rp_shelf *shelf);

/* ---- connections ----------------------------------------------------------------------------- */

typedef enum rp_io {
    RP_IO_DONE,                         /* progress as asked */
    RP_IO_AGAIN,                        /* would block: see rp_conn_waits() */
    RP_IO_EOF,                          /* read: the other side has ended its direction cleanly */
    RP_IO_FAILED                        /* see rp_conn_reason(); the connection is of no more use */
} rp_io;

/** A descriptor to wait for. events: POLLIN, POLLOUT of poll(). */
typedef struct rp_wait_fd {
    int fd;
    short events;
} rp_wait_fd;

#define RP_CONN_WAITS_MAX 4

/**
 * Takes an idle connection that is within its limits; or a new one, not yet connected. An idle one
 * is checked, but for rp_shelf_begin_round(): the peer has neither closed it nor sent anything.
 * shelf NULL: from those that all threads share, the most recently used first; else from this
 * shelf's own, to which it goes back. fresh nonzero: always a new one. rp_conn_connect() comes
 * next.
 */
rp_conn *rp_conn_acquire(rp_endpoint *endpoint, rp_shelf *shelf, int fresh);

/** Nonzero if it served another exchange before. */
int rp_conn_is_reused(const rp_conn *conn);

/** Drives name resolution, connecting (happy eyeballs, RFC 8305: all addresses, 250 ms apart,
 * families interleaved; one that failed lately comes last) and the TLS handshake. */
rp_io rp_conn_connect(rp_conn *conn);

/** Nonzero while it waits for its name to be resolved. */
int rp_conn_is_resolving(const rp_conn *conn);

/** Read and write without blocking. Over TLS a read may wait for writability and the other way
 * round: rp_conn_waits() knows. A TLS connection cut without close_notify reads as RP_IO_FAILED
 * with RP_REASON_INCOMPLETE. */
rp_io rp_conn_read(rp_conn *conn, char *buffer, apr_size_t size, apr_size_t *got);
/** After RP_IO_AGAIN the next call begins with the same bytes and offers at least as many (TLS has
 * encrypted them already). After RP_IO_FAILED, rp_conn_read() still gives what had arrived. */
rp_io rp_conn_write(rp_conn *conn, const struct iovec *vector, int count, apr_size_t *written);

/** Ends our direction: shutdown(SHUT_WR), TLS close_notify before it. */
void rp_conn_end_write(rp_conn *conn);

/**
 * Fills in what to wait for: while connecting, whatever that needs (wants are ignored); else for
 * want_read / want_write. Returns the count, at most RP_CONN_WAITS_MAX. next_time (may be NULL) is
 * set to the absolute time of the connection's own next timer (next address to try), 0 for none.
 * Bytes already decrypted and waiting in the TLS layer are returned by rp_conn_read() before it
 * says RP_IO_AGAIN, so waiting after RP_IO_AGAIN is safe.
 */
int rp_conn_waits(const rp_conn *conn, int want_read, int want_write, rp_wait_fd *waits,
                  apr_time_t *next_time);

/** Why RP_IO_FAILED; detail (never NULL) is for the log, may hold text of the peer: escape it. */
rp_reason rp_conn_reason(const rp_conn *conn, const char **detail);

/** The address connected to ("192.0.2.1:80", "[2001:db8::1]:443", "/run/app.sock"), "" before. */
const char *rp_conn_peer(const rp_conn *conn);

/** Socket of a connected plain connection, -1 over TLS: for splice. */
int rp_conn_fd(const rp_conn *conn);

/** Where somebody who sends bytes on rp_conn_fd() before they are given to rp_conn_write() puts how
 * many of them went. */
apr_ssize_t *rp_conn_sent_ahead(rp_conn *conn);

/** Where somebody who receives from a plain connection before rp_conn_read() puts what came; NULL:
 * it isn't plain, or not connected. */
rp_ahead **rp_conn_ahead(rp_conn *conn);

/** Bytes were read from that socket directly. */
void rp_conn_spliced(rp_conn *conn);

/** What the upstream said in Keep-Alive: timeout=N: keeps it idle one second less than that. */
void rp_conn_set_peer_idle(rp_conn *conn, apr_interval_time_t timeout);

/** Gives it back. reusable: the exchange ended cleanly and both sides agree to go on; anything else
 * closes it at once. The caller must not use conn any more. */
void rp_conn_release(rp_conn *conn, int reusable);

#endif
