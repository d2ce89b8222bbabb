/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Hand-over: a request that the engine does not serve goes through httpd's pipeline on a thread of
 * ours (rp_lane.h), with the bytes that the engine has read in front of what the socket still has;
 * afterwards the connection comes back, and what httpd read of further requests with it. A request
 * that the pipeline parks holds no thread: the loop waits in the MPM's place. */
#ifndef RP_HANDOVER_H
#define RP_HANDOVER_H

#include "rproxy/engine/rp_h1_private.h"

/** Makes what a connection needs for hand-overs; the worker's thread. Nonzero: done. */
int rp_handover_prepare(rp_downstream *d);

/** Frees it. */
void rp_handover_give_up(rp_downstream *d);

/** Hands the next request over, d->in is what was read of it. then: what httpd finds behind these
 * bytes (APR_TIMEUP, APR_EOF); APR_SUCCESS: the socket. protocol->returned() follows. */
void rp_handover_begin(rp_downstream *d, apr_status_t then);

/** Hands over a request whose exchange has ended without a response that could be sent: the
 * pipeline words the answer. The request is still the first in d->in, or what was taken of it is
 * put back there. */
void rp_handover_outcome(rp_downstream *d, rp_h1_request *q);

/** The loop's side while the pipeline has it: the client's socket can be written to (or has
 * failed); a deadline is over. */
void rp_handover_ready(rp_downstream *d, unsigned int events);
void rp_handover_expired(rp_downstream *d);

/** Registers the filter. */
void rp_handover_register(void);

#endif
