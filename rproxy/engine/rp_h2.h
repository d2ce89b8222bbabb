/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* HTTP/2 (RFC 9113) on connections of the engine: one nghttp2 session each, every stream an
 * exchange like any other. Only for connections all of whose requests are the engine's, or to be
 * repeated in HTTP/1.1 (rp_eligible_http2()): a stream cannot be handed over. */
#ifndef RP_H2_H
#define RP_H2_H

#include "rproxy/engine/rp_downstream.h"

#define RP_H2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define RP_H2_PREFACE_LEN (sizeof(RP_H2_PREFACE) - 1)

extern const rp_protocol rp_h2_protocol;

/** In child_init, before connections come; pool lives as long as the child. */
apr_status_t rp_h2_init(apr_pool_t *pool);

#endif
