/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The public C interface of mod_rproxy.
 *
 * Once the configuration has been read, another module can find out from any thread whether it is
 * loaded:
 *
 *     if (ap_find_linked_module(RPROXY_MODULE_NAME)) ...
 */
#ifndef MOD_RPROXY_H
#define MOD_RPROXY_H

/** The version these headers belong to. */
#define RPROXY_VERSION_MAJOR 0
#define RPROXY_VERSION_MINOR 1
#define RPROXY_VERSION_PATCH 0
#define RPROXY_VERSION "0.1.0"

/** The name under which the server lists the module. */
#define RPROXY_MODULE_NAME "mod_rproxy.c"

/* Variables in subprocess_env of a proxied request once its exchange has ended, for logs
 * (%{rproxy-total}e) and log_transaction hooks. Times are microseconds. One that doesn't apply
 * isn't set. */
#define RPROXY_ENV_LANE "rproxy-lane"               /* "pipeline" */
#define RPROXY_ENV_DRIVER "rproxy-driver"           /* "parked" or "blocking" */
#define RPROXY_ENV_TARGET "rproxy-target"           /* the rule's target as written */
#define RPROXY_ENV_UPSTREAM "rproxy-upstream"       /* address of the last attempt */
#define RPROXY_ENV_REQUEST_ID "rproxy-request-id"
#define RPROXY_ENV_ATTEMPTS "rproxy-attempts"       /* connections tried, replays included */
#define RPROXY_ENV_CONNECT "rproxy-connect"         /* from the start until connected */
#define RPROXY_ENV_FIRST_BYTE "rproxy-first-byte"   /* from the start to the answer's first byte */
#define RPROXY_ENV_TOTAL "rproxy-total"
#define RPROXY_ENV_STATUS "rproxy-status"           /* the upstream's */
#define RPROXY_ENV_REUSED "rproxy-reused"           /* "1": the connection came from the pool */
#define RPROXY_ENV_ERROR "rproxy-error"             /* why it failed, as "connect-timeout" */

#endif
