/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The parked driver: while an exchange waits, its worker thread is given back and the event MPM's
 * own pollset waits for it (httpd 2.4.63 and later, AP_MPMQ_CAN_WAITIO).
 *
 * The MPM knows one descriptor a connection, the client's. While parked, the client's apr_socket_t
 * carries the descriptor of an epoll set instead, which holds the upstream's descriptors and the
 * client's (its leaving, reading or writing): the set becomes readable when any of them is. The
 * swap happens in the suspend_connection hook and is undone in resume_connection. Deadlines come
 * from a timer thread, which makes the set readable (rp_park_timer.h).
 *
 * An rp_parking belongs to a connection (c->pool); it is touched by the thread that processes the
 * connection, except for what rp_park_timer.h guards. Private to rproxy/pipeline. */
#ifndef RP_PARK_H
#define RP_PARK_H

#include "httpd.h"
#include "rproxy/pipeline/rp_task.h"

/** The connection's parking state, made when there is none; NULL for HTTP/2 streams. */
rp_parking *rp_park_of(conn_rec *c);

/** The client's TLS where mod_ssl does it (struct ssl_st is OpenSSL's SSL), else NULL. Valid as
 * long as a request has the connection. */
struct ssl_st *rp_park_tls(const rp_parking *parking);

/** The client's socket, for poll(). */
int rp_park_client_fd(const rp_parking *parking);

/** Begins and ends a task's hold on the connection; in between, output must not block. */
void rp_park_begin(rp_parking *parking, rp_task *task);
void rp_park_end(rp_parking *parking);

/** Nonzero between the two for a task whose output must not block. parking may be NULL. */
int rp_park_is_nonblocking(const rp_parking *parking);

/** Nonzero if the task may return SUSPENDED from its handler. */
int rp_park_is_possible(const rp_task *task);

/** The upstream's descriptors are about to be closed or given to another exchange. */
void rp_park_forget_upstream(rp_parking *parking);

/** Bounds a tunnel by its drain time if this child stops gracefully. */
void rp_park_bound_tunnel(rp_task *task);

/** Nonzero if this child is to stop at once. */
int rp_park_stops_at_once(void);

/** Nonzero while enough threads of this child are idle that waiting in one harms nobody. */
int rp_park_threads_are_plentiful(void);

/** The engine has taken the connection (NULL: no longer), and waits in the MPM's place where a
 * request of it is parked: for rp_park_fd() to become readable, until rp_park_is_parked() is zero
 * again. protocol: what the engine is to speak, chosen before. The next request served in the
 * pipeline has ended already where preset isn't NULL. */
void rp_park_set_engine(rp_parking *parking, void *engine);
void *rp_park_engine(const conn_rec *c);
void rp_park_set_protocol(rp_parking *parking, const char *protocol);
const char *rp_park_protocol(const conn_rec *c);
void rp_park_set_preset(rp_parking *parking, const rp_task_preset *preset);
const rp_task_preset *rp_park_take_preset(const conn_rec *c);
int rp_park_is_parked(const rp_parking *parking);
int rp_park_fd(const rp_parking *parking);

/** Registers the hooks. */
void rp_park_register_hooks(void);

/** In child_init: starts the timer thread where the MPM can park. */
apr_status_t rp_park_child_init(apr_pool_t *pool, server_rec *server);

/** rp_client.c: puts the filter that keeps output from blocking on the connection. */
void rp_client_add_flow_filter(rp_parking *parking, request_rec *r);


#endif
