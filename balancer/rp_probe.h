/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* One check: from a place to a verdict, on the keeper's thread, without blocking. And what the
 * probes of the balancer are made of. */
#ifndef RP_PROBE_H
#define RP_PROBE_H

#include <openssl/ssl.h>
#include "balancer/rp_keeper.h"
#include "include/mod_rproxy_balancer.h"

#define RP_PROBE_BODY_MAX 65536         /* of a response, what a regular expression sees */

/** How a check is to be made. */
typedef struct rp_probe_settings {
    const rproxy_probe *probe;
    void *config;                       /* the probe's; constant */
    apr_interval_time_t timeout;        /* for all of it */
    int port;                           /* 0: the place's */
    const char *host;                   /* for SNI, verification and Host; NULL: the place's */
    const char *name;                   /* instead of host for the first two; NULL: host */
    int verify;
    SSL_CTX *tls;                       /* NULL: no TLS */
} rp_probe_settings;

/** A check ended: passed, or failed because of check->cause. latency is how long it took. */
typedef void rp_probe_ended(void *baton, const rproxy_check *check, int passed,
                            apr_interval_time_t latency);

typedef struct rp_probe_run rp_probe_run;

/** Begins a check, in a pool of its own below pool. settings and place must stay until it has
 * ended. ended() is called once, never from within this call, unless rp_probe_cancel() comes
 * first. */
rp_probe_run *rp_probe_begin(rp_keeper *keeper, apr_pool_t *pool,
                             const rp_probe_settings *settings, const rproxy_place *place,
                             rp_probe_ended *ended, void *baton);
void rp_probe_cancel(rp_probe_run *run);

/** Takes a URL apart, one that the core's parser has accepted. NULL: it isn't one. */
rproxy_place *rp_place_parse(apr_pool_t *pool, const char *url);

/** Writes why a check failed, cut to what fits. */
void rp_probe_say(rproxy_check *check, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- the probes of the balancer -------------------------------------------------------------- */

extern const rproxy_probe rp_probe_tcp, rp_probe_tls, rp_probe_http, rp_probe_grpc, rp_probe_agent;

void rp_probe_register(apr_pool_t *pool);

/* ---- rp_probe_parse.c: what members say ------------------------------------------------------ */

/** Statuses, as "200-399,401". */
typedef struct rp_status_set {
    unsigned char bits[(600 + 7) / 8];  /* of 100 to 599 */
} rp_status_set;

/** Nonzero: text is such a list. */
int rp_status_set_parse(rp_status_set *set, const char *text);
int rp_status_set_has(const rp_status_set *set, int status);

/** A response that is read in pieces; only what a check needs of it. Zero-initialise. */
typedef struct rp_probe_response {
    int status;                         /* of the last status line */
    int has_head;                       /* the head is there, not only one with 1xx */
    int is_complete;                    /* the body has come to its end */
    char *body;                         /* what has come of it, without chunked coding: at most
                                         * body_max bytes; NULL: isn't kept */
    apr_size_t body_len, body_max;
    /* inside */
    int state;
    char line[256];                     /* the start of the line under way */
    apr_size_t line_len;
    apr_size_t head_len;
    int is_chunked, has_length;
    apr_uint64_t left;                  /* of the body or chunk */
} rp_probe_response;

/** Takes the next bytes. Returns NULL, or why it is no response. */
const char *rp_probe_response_read(rp_probe_response *response, const char *data, apr_size_t len);

/** The connection has ended. Returns NULL, or why the response isn't complete. */
const char *rp_probe_response_end(rp_probe_response *response);

/** The line of an agent: words as "up", "75%", "maxconn:30"; up to "#". Nonzero: all of them are
 * known, and at least one is there. */
int rp_agent_parse(const char *line, apr_size_t len, rproxy_advice *advice);

/** A gRPC message with a grpc.health.v1.HealthCheckResponse: its status, 0 to 3; -1: it is none. */
int rp_grpc_health_parse(const unsigned char *data, apr_size_t len);

#endif
