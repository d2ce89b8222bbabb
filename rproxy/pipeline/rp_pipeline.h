/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* rproxy/pipeline: the lane through httpd's whole request pipeline, with its two drivers.
 *
 * The lane turns a request_rec into neutral heads, decides on the route (translate_name, and fixups
 * for <If> and .htaccess), and is the exchange's client through httpd's filters. The blocking
 * driver waits with poll() in the worker thread; the parked driver gives the thread back and lets
 * the event MPM's own pollset wait (rp_park.h). */
#ifndef RP_PIPELINE_H
#define RP_PIPELINE_H

#include "httpd.h"

/** Registers every hook and filter of the lane. */
void rp_pipeline_register_hooks(apr_pool_t *pool);

/** In child_init, after the upstream room's. */
apr_status_t rp_pipeline_child_init(apr_pool_t *pool, server_rec *server);

/** Nonzero if the running MPM can park requests. why (may be NULL) is set to a short reason if not.
 */
int rp_pipeline_can_park(const char **why);

#endif
