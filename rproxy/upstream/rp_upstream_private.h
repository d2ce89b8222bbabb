/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the files of this room share; nobody else includes it.
 *
 * Memory: endpoints, names and connections come from malloc (ap_malloc), not from pools: they
 * outlive requests, move between threads and are given back one by one while the child lives.
 *
 * A shelf (rp_shelf.c) and the idle connections on it belong to one thread, which takes no lock.
 *
 * Locks: rp_endpoint.lock guards an endpoint's lists, the table's lock (rp_endpoint.c) the set of
 * endpoints, the names' lock (rp_name.c) all names. Taken in this order: table, endpoint,
 * names. None is held over a call that can block or over an SSL call.
 */
#ifndef RP_UPSTREAM_PRIVATE_H
#define RP_UPSTREAM_PRIVATE_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <openssl/ssl.h>
#include <apr_ring.h>
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "rproxy/upstream/rp_upstream.h"

/* ---- addresses ------------------------------------------------------------------------------- */

typedef union rp_sockaddr {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} rp_sockaddr;

#define RP_ADDRESSES_MAX 64             /* addresses of one name; more are left out */

static inline socklen_t rp_sockaddr_length(const rp_sockaddr *address)
{
    return address->any.sa_family == AF_INET6 ? sizeof(address->v6) : sizeof(address->v4);
}

/** Reads an IP literal (no brackets, no port); nonzero if text is one. */
int rp_sockaddr_parse(const char *text, int port, rp_sockaddr *address);

/** Nonzero if host and family are equal; ports don't matter. */
int rp_sockaddr_same_host(const rp_sockaddr *a, const rp_sockaddr *b);
int rp_sockaddr_among(const rp_sockaddr *address, const rp_sockaddr *list, int count);

#define RP_SOCKADDR_TEXT 64             /* "[" INET6_ADDRSTRLEN "]:65535" and the final NUL */

/** "192.0.2.1:80", "[2001:db8::1]:443". */
void rp_sockaddr_text(const rp_sockaddr *address, char text[RP_SOCKADDR_TEXT]);

/* ---- counters -------------------------------------------------------------------------------- */

typedef struct rp_upstream_counters {
    atomic_ullong connects, reuses, connect_failures, lookups, lookup_failures, retired;
    atomic_uint idle, active, endpoints;
} rp_upstream_counters;

extern rp_upstream_counters rp_counters;

/** What shelves count, by their numbers: each is written by one thread alone. */
extern rp_upstream_counters rp_shelf_counters[RP_SHELVES_MAX];

/* Relaxed: each is a figure for the status page, nothing else is ordered by it. */
#define RP_COUNT(field, n) \
    ((void)atomic_fetch_add_explicit(&rp_counters.field, n, memory_order_relaxed))
#define RP_UNCOUNT(field, n) \
    ((void)atomic_fetch_sub_explicit(&rp_counters.field, n, memory_order_relaxed))
/* Of a shelf: with a single writer no locked instruction is needed. */
#define RP_COUNT_ON(counters, field, n) \
    atomic_store_explicit(&(counters)->field, \
                          atomic_load_explicit(&(counters)->field, memory_order_relaxed) + (n), \
                          memory_order_relaxed)

/* ---- names (rp_name.c) --------------------------------------------------------------------- */

/** A host name and its addresses; shared by the endpoints of that host. */
typedef struct rp_name rp_name;

typedef enum rp_name_answer {
    RP_NAME_READY,                      /* addresses are filled in */
    RP_NAME_WAIT,                       /* a lookup runs: wait for rp_name_event() */
    RP_NAME_FAILED                      /* no addresses; see the reason */
} rp_name_answer;

typedef struct rp_name_result {
    rp_sockaddr addresses[RP_ADDRESSES_MAX];    /* in the order of RFC 6724, ports 0 */
    int count;
    unsigned int generation;            /* changes when the set of addresses does */
    apr_time_t until;                   /* RP_NAME_WAIT: ask again by then; 0: no limit */
    rp_reason reason;                   /* RP_NAME_FAILED */
    const char *detail;                 /* RP_NAME_FAILED: static text */
} rp_name_result;

/** The name object of host, one reference more; starts no lookup. */
rp_name *rp_name_get(const char *host);
void rp_name_release(rp_name *name);

/** Addresses to connect to now; starts a lookup if need be. Any thread. */
rp_name_answer rp_name_resolve(rp_name *name, rp_name_result *result);

/** Starts a lookup unless there are addresses or one is running. */
void rp_name_prefetch(rp_name *name);

/** The name is in use: its addresses stay fresh. Cheap. */
void rp_name_touch(rp_name *name, apr_time_t now);

/** Readable once the lookup that rp_name_resolve() waits for has ended; -1 if there is none. */
int rp_name_event(const rp_name *name);

unsigned int rp_name_generation(const rp_name *name);

/** Nonzero if address is still one of the name's; *generation is set to that of the set asked. */
int rp_name_has(rp_name *name, const rp_sockaddr *address, unsigned int *generation);

/* For the resolver's thread alone. It may use a name that it looks up without the lock: nobody else
 * frees names, and it frees none that is being looked up. */

#define RP_LOOKUPS_AT_ONCE 64           /* names handed out in one go */
#define RP_TICK apr_time_from_sec(1)    /* how often the thread wakes up at least */

void rp_names_start(server_rec *server, const rp_resolver_settings *settings, int wake);
void rp_names_free(void);

/** Takes names to look up now; tells those that wait of timeouts. Returns when to come again. */
apr_time_t rp_names_collect_due(apr_time_t now, rp_name *due[RP_LOOKUPS_AT_ONCE], int *count);

/** Each name taken ends with one of these. ttl in seconds; absent: there is no such name. */
void rp_name_answered(rp_name *name, const rp_sockaddr *addresses, int count, int ttl);
void rp_name_failed(rp_name *name, rp_reason reason, int absent, const char *detail);

const char *rp_name_host(const rp_name *name);
void rp_names_forget(apr_time_t now);
void rp_names_log_news(void);

/** Makes an eventfd readable or unreadable; -1 is passed over. */
void rp_event_set(int event);
void rp_event_clear(int event);

/* ---- the resolver's thread (rp_resolver.c) --------------------------------------------------- */

apr_status_t rp_resolver_start(server_rec *server, const rp_resolver_settings *settings);

/** Ends the thread. Nonzero if it ended in time, so that memory may be freed. */
int rp_resolver_stop(void);
void rp_resolver_free(void);

/* ---- TLS settings (rp_tls_config.c) ---------------------------------------------------------- */

/** Loaded TLS settings; equal settings share one. Made at startup, never changed afterwards. */
typedef struct rp_tls_context {
    struct rp_tls_context *next;
    SSL_CTX *ctx;
    char *key;                          /* the settings in text form, without name= */
    int verify;
    int references;                     /* rp_tls objects that use it */
} rp_tls_context;

/** NULL if the settings were not finished. */
const rp_tls_context *rp_tls_context_of(const rp_tls *tls);


/* ---- endpoints (rp_endpoint.c) --------------------------------------------------------------- */

#define RP_FAILED_ADDRESSES_MAX 16      /* addresses remembered for having failed lately */
#define RP_SHELF_REFERENCE (1u << 24)   /* leaves room for more uses than there are descriptors */

/** Connections of one endpoint on one shelf. The shelf's thread alone touches it; it is there from
 * the first use until the endpoint was dropped or the shelf ends. */
typedef struct rp_bin rp_bin;

APR_RING_HEAD(rp_conn_ring, rp_conn);

struct rp_endpoint {
    /* set when it is made */
    char *key;                          /* rp_target.key */
    char *socket;                       /* path of a Unix socket, or NULL */
    rp_name *name;                      /* NULL: Unix socket or IP literal */
    rp_sockaddr literal;
    int port;
    int secure;                         /* over TLS */
    const rp_tls_context *tls;          /* NULL with secure: settings missing, connecting fails */
    char *server_name;                  /* SNI and name to verify; "" if plain */
    rp_keepalive keepalive;

    /* table lock */
    rp_endpoint *next;                  /* in its bucket */
    int permanent;                      /* targets that remember it; while there are any, it is
                                         * never dropped */
    apr_time_t last_used;

    /* any thread */
    atomic_uint references;             /* the table, users of a dynamic one, connections in use;
                                         * in steps of RP_SHELF_REFERENCE: shelves that know it */
    atomic_int dropped;                 /* it is no longer in the table: keep nothing */
    atomic_uint turn;                   /* which address comes first in the next new connection */

    pthread_mutex_t lock;               /* for what follows */
    struct rp_conn_ring idle;           /* most recently used first */
    int idle_count;
    SSL_SESSION *session;               /* latest that the upstream gave us */
    struct {
        rp_sockaddr address;
        apr_time_t time;                /* 0: free */
    } failed[RP_FAILED_ADDRESSES_MAX];

    rp_bin *bins[RP_SHELVES_MAX];       /* by the shelf's number: each its thread's own */
};

void rp_endpoint_hold(rp_endpoint *endpoint);
void rp_endpoint_drop(rp_endpoint *endpoint);

/** References of shelves, which don't keep a dynamic endpoint from being dropped. */
void rp_endpoint_hold_for_shelf(rp_endpoint *endpoint);
void rp_endpoint_drop_for_shelf(rp_endpoint *endpoint);

/** Remembers, or asks, whether connecting to address failed in the last 10 s. */
void rp_endpoint_mark_failed(rp_endpoint *endpoint, const rp_sockaddr *address, apr_time_t now);
int rp_endpoint_failed_lately(rp_endpoint *endpoint, const rp_sockaddr *address, apr_time_t now);

/** Once a second on the resolver's thread, and when addresses changed: closes what is due. */
void rp_endpoints_maintain(apr_time_t now);

void rp_endpoints_start(void);
void rp_endpoints_stop(void);

/* ---- connections ----------------------------------------------------------------------------- */

typedef enum rp_conn_state {
    RP_CONN_RESOLVING,
    RP_CONN_CONNECTING,
    RP_CONN_HANDSHAKE,
    RP_CONN_READY,
    RP_CONN_FAILED
} rp_conn_state;

/** Exists only until the connection is made. */
typedef struct rp_connecting rp_connecting;

/** Kept small: a tunnel keeps one for hours. Malloc'ed, since it outlives requests and moves
 * between threads unless it has a bin. Owned by the exchange that uses it or, idle, by its
 * endpoint under the lock or by its bin. */
struct rp_conn {
    APR_RING_ENTRY(rp_conn) link;
    rp_endpoint *endpoint;
    rp_bin *bin;                        /* where it goes when it is idle; NULL: the endpoint */
    SSL *ssl;                           /* NULL: plain, or no handshake yet */
    rp_connecting *connecting;
    char *detail;                       /* of the failure, or NULL */
    char *peer_text;                    /* made when asked for */
    apr_time_t created;                 /* when connecting began */
    apr_time_t idle_since;
    apr_interval_time_t peer_idle;      /* what the upstream allows, less 1 s; -1: unknown */
    apr_ssize_t sent_ahead;             /* of what is written next; below 1: nothing */
    rp_ahead *ahead;                    /* NULL: nothing was received ahead */
    int exchanges;                      /* that it served before this one */
    unsigned int generation;            /* of the addresses when it was compared last */
    int fd;
    rp_sockaddr peer;                   /* family AF_UNSPEC: Unix socket or not connected */
    unsigned int state : 3;             /* rp_conn_state */
    unsigned int reason : 6;            /* rp_reason */
    unsigned int read_wants_write : 1;  /* TLS; in the handshake: it waits for writability */
    unsigned int write_wants_read : 1;  /* TLS */
    unsigned int ending : 1;            /* close_notify and FIN are still to be sent */
    unsigned int ended : 1;             /* our direction is closed */
    unsigned int finished : 1;          /* the upstream has closed its direction */
    unsigned int broken : 1;            /* a read or write failed */
    unsigned int drained : 1;           /* plain: the last read left nothing in the socket */
};

_Static_assert(RP_REASON_COUNT <= 64 && RP_CONN_FAILED < 8, "the bit fields must hold them");

/** Sets reason and detail (printf form); returns RP_IO_FAILED. */
rp_io rp_conn_fail(rp_conn *conn, rp_reason reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** The same with the text of a system error. */
rp_io rp_conn_fail_errno(rp_conn *conn, rp_reason reason, const char *what, int error);

/** Closes and frees; the connection is in no list. */
void rp_conn_destroy(rp_conn *conn);

/* ---- idle connections (rp_pool.c) ------------------------------------------------------------ */

/** Nonzero if the time it may stay idle, or its age, is over, or the endpoint's name no longer has
 * the address that it is connected to. */
int rp_conn_is_over(rp_conn *conn, apr_time_t now);

/** Nonzero if the peer has neither sent nor closed anything: one system call. */
int rp_conn_is_quiet(rp_conn *conn);

/** Moves what is over or was closed by the peer from the endpoint's idle ones to doomed. */
void rp_pool_collect(rp_endpoint *endpoint, apr_time_t now, struct rp_conn_ring *doomed);

/** Closes and counts those in the ring. */
void rp_conns_close(struct rp_conn_ring *connections);

/* ---- shelves (rp_shelf.c) -------------------------------------------------------------------- */

/** The shelf's bin for endpoint; counts one more connection in use. */
rp_bin *rp_bin_use(rp_shelf *shelf, rp_endpoint *endpoint);

/** When its loop woke. */
apr_time_t rp_shelf_now(const rp_shelf *shelf);

/** The shelf that the bin is of. */
rp_shelf *rp_bin_shelf(const rp_bin *bin);

/** An idle connection that can be used again, or NULL. */
rp_conn *rp_bin_take(rp_bin *bin, apr_time_t now);

/** The end of a connection's use: puts it in front of the idle ones or, keep 0, closes it; reusable
 * nonzero: to be closed for its limits only, which counts as retired. */
void rp_bin_give_back(rp_bin *bin, rp_conn *conn, int keep, int reusable);

/* ---- stages of a connection ------------------------------------------------------------------ */

/** rp_connect.c: the states before the handshake. RP_IO_DONE: the next state is set. */
void rp_connecting_begin(rp_conn *conn);
rp_io rp_connecting_step(rp_conn *conn);
int rp_connecting_waits(const rp_conn *conn, rp_wait_fd *waits, apr_time_t *next_time);
void rp_connecting_free(rp_conn *conn);

/** rp_tls.c: the client side of TLS on a connection. */
rp_io rp_tls_handshake(rp_conn *conn);
rp_io rp_tls_read(rp_conn *conn, char *buffer, apr_size_t size, apr_size_t *got);
rp_io rp_tls_write(rp_conn *conn, const struct iovec *vector, int count, apr_size_t *written);
rp_io rp_tls_end(rp_conn *conn);        /* close_notify: RP_IO_DONE when it is out */
int rp_tls_is_quiet(rp_conn *conn);     /* nothing but session tickets has arrived */
void rp_tls_close(rp_conn *conn);
int rp_tls_new_session(SSL *ssl, SSL_SESSION *session);

#endif
