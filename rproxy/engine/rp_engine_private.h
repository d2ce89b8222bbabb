/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the engine's own files share; nobody else includes it. */
#ifndef RP_ENGINE_PRIVATE_H
#define RP_ENGINE_PRIVATE_H

#include <stdatomic.h>
#include "httpd.h"
#include "scoreboard.h"
#include "rproxy/engine/rp_downstream.h"

#define RP_ENGINE_PIPES 64              /* idle pipes kept for splice by a loop */

typedef struct rp_engine_request rp_engine_request;     /* rp_engine_request.h */
typedef struct rp_access_log rp_access_log;     /* rp_access_log.c */

/** Requests of one protocol for the next ones (rp_engine_free_list.c). */
typedef struct rp_engine_free_list {
    rp_engine_request *first;
    int count;
} rp_engine_free_list;

/** A loop with what the engine keeps for it. Its thread's. */
struct rp_engine_loop {
    rp_loop *loop;
    rp_downstream *connections;
    atomic_int connection_count;        /* with those on their way here; any thread may look */
    rp_access_log *log;
    rp_engine_request *resolving;       /* wait for a name */
    rp_engine_free_list h1_requests, h2_streams;
    int pipes[RP_ENGINE_PIPES][2];
    int pipe_count;
    rp_loop_mail drain_mail;
};

/** The loop that gets the next connection; any thread. NULL: the engine isn't running. */
rp_engine_loop *rp_engine_next_loop(void);

/** A socket on which nothing ever comes. */
int rp_engine_silent_socket(void);

/** A connection of this child tells which one it is. Any thread. */
void rp_engine_learn_child(const conn_rec *c);

/** An id for a connection (conn_rec.id) that lane thread number serves: no other one has it now,
 * in any child. mod_cgid tells scripts apart by it. */
long rp_engine_connection_id(int lane_number);

/** A place in the scoreboard that no worker has, NULL: there is none left; any thread. */
ap_sb_handle_t *rp_engine_scoreboard_place(apr_pool_t *pool);

/** Functions of mod_logio; do nothing without it. */
void rp_engine_count_in(conn_rec *c, apr_off_t bytes);
void rp_engine_count_out(conn_rec *c, apr_off_t bytes);

/** Bytes that the response of a request that was just logged had; without mod_logio its body's. */
apr_off_t rp_engine_bytes_out(request_rec *r);

#endif
