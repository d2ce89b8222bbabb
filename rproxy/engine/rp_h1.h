/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* HTTP/1.1 with clients in the engine (RFC 9112): heads come in, an exchange answers, one request
 * after the other. What the engine does not serve is handed to the pipeline with the bytes read so
 * far: other routes, guarded paths, malformed heads, odd targets and methods, and every answer that
 * the proxy makes itself, so that there is one place that words them. */
#ifndef RP_H1_H
#define RP_H1_H

#include "rproxy/engine/rp_downstream.h"

extern const rp_protocol rp_h1_protocol;

/** Closes the pipes that a loop keeps for large bodies. */
void rp_h1_end(rp_engine_loop *engine);

#endif
