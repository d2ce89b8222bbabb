/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyStateFile: what administrators changed at run time, kept while the server is stopped. The
 * child that leads writes it soon after each change; a server that starts reads it. */
#ifndef RP_STATE_FILE_H
#define RP_STATE_FILE_H

#include "balancer/rp_balancer.h"

const char *rp_state_file_directive(cmd_parms *cmd, void *dir, const char *path);

/** Forgets the last configuration's. */
void rp_state_file_reset(void);

/** The parent, with the roster's lock, when pools have their slots and the memory is fresh: what
 * the file says becomes part of the rosters. */
void rp_state_file_read(apr_pool_t *pool, const server_rec *server,
                        const apr_array_header_t *all);

/** In post_config: writing becomes a duty of the keeper. */
void rp_state_file_add_duty(void);

#endif
