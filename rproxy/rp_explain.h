/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* httpd -t -D RPROXY_EXPLAIN: prints what the configuration means. */
#ifndef RP_EXPLAIN_H
#define RP_EXPLAIN_H

#include "httpd.h"

/** In test_config, after the configuration was checked: prints to the standard output, for the main
 * server and each virtual host, the rules in the order in which they are tried, each with its
 * lane, who serves HTTP/2, and the settings that aren't the default. Does nothing unless
 * RPROXY_EXPLAIN is defined. */
void rp_explain(apr_pool_t *pool, server_rec *main_server);

#endif
