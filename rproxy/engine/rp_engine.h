/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* rproxy/engine: client connections on event loops of the child, without a thread or httpd's
 * request pipeline for each request.
 *
 * Where rp_eligible.h has proven that nobody can tell the difference, a connection is taken from
 * the event MPM after the handshake and lives on one of the child's loops (rp_loop.h,
 * rp_downstream.h). Requests are parsed, routed and answered there by the same exchange that the
 * pipeline uses (rp_h1.h); what isn't the engine's goes to httpd's pipeline on lane threads and the
 * connection comes back (rp_handover.h). */
#ifndef RP_ENGINE_H
#define RP_ENGINE_H

#include "httpd.h"

/** Registers hooks and filters. */
void rp_engine_register_hooks(apr_pool_t *pool);

/** In child_init, after the pipeline's: starts loops if there are routes for them. */
apr_status_t rp_engine_child_init(apr_pool_t *pool, server_rec *server);

#endif
