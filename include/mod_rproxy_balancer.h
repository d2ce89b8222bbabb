/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The public C interface of mod_rproxy_balancer.
 *
 * The module offers no functions or providers yet. Once the configuration has been read, another
 * module can find out from any thread whether it is loaded:
 *
 *     if (ap_find_linked_module(RPROXY_BALANCER_MODULE_NAME)) ...
 */
#ifndef MOD_RPROXY_BALANCER_H
#define MOD_RPROXY_BALANCER_H

/** The name under which the server lists the module. */
#define RPROXY_BALANCER_MODULE_NAME "mod_rproxy_balancer.c"

#endif
