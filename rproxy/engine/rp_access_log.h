/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* httpd's access log for requests of the engine: its own log_transaction hook, with one request_rec
 * a loop that is used again and again. A loop's thread's. */
#ifndef RP_ACCESS_LOG_H
#define RP_ACCESS_LOG_H

#include "rproxy/engine/rp_engine_request.h"

/** Made in child_init; pool is the loop's. */
rp_access_log *rp_access_log_create(apr_pool_t *pool, server_rec *server);

/** The virtual host that httpd chooses for a request on c; NULL: it would refuse Host. hostname is
 * set to what it makes of Host (malloc), NULL: there is none. */
server_rec *rp_access_log_find_server(rp_access_log *log, conn_rec *c, const rp_request *request,
                                      char **hostname);

/** LimitRequestBody of these sections, 0: none. */
apr_off_t rp_access_log_body_limit(rp_access_log *log, ap_conf_vector_t *per_dir);

/** Writes the log line of a request that has ended, and counts it for mod_status. */
void rp_access_log_write(rp_access_log *log, const rp_engine_request *q);

/** The lines so far are in their files then. At the end of each round, and before another thread
 * goes on with the same connection. */
void rp_access_log_flush(rp_access_log *log);

/** Logs why a request ended, as the pipeline does. Before its line in the access log, which has the
 * message's id then (%L). */
void rp_access_log_failure(rp_access_log *log, rp_engine_request *q);

#endif
