/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the files that read the balancer's configuration share; nobody else includes it. */
#ifndef RP_BALANCER_CONFIG_H
#define RP_BALANCER_CONFIG_H

#include "balancer/rp_balancer.h"

extern module AP_MODULE_DECLARE_DATA rproxy_balancer_module;

/** What a server or virtual host has. */
typedef struct rp_balancer_server {
    apr_hash_t *balancers;              /* by name: rp_balancer *; merged: those it sees */
} rp_balancer_server;

/** The pool whose section a directive stands in, or NULL. */
rp_balancer *rp_balancer_section_of(cmd_parms *cmd);

/** The message for a directive that stands outside of all pools. */
const char *rp_balancer_misplaced(cmd_parms *cmd);

/** Nonzero if text can be the name of a pool or a zone: 1 to 64 of a-z, A-Z, 0-9, '.', '_', '-'. */
int rp_balancer_is_name(const char *text);

#endif
