/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* mod_rproxy_balancer: the balancer's face.
 *
 * Registers nothing yet: no directive, no hook, no provider. A server may load it, and a
 * configuration may ask for it with <IfModule>, but targets of the form balancer://NAME are not
 * served by it.
 */
#include "httpd.h"
#include "http_config.h"

AP_DECLARE_MODULE(rproxy_balancer) = {
    STANDARD20_MODULE_STUFF,
    NULL,                               /* create per-directory configuration */
    NULL,                               /* merge per-directory configurations */
    NULL,                               /* create per-server configuration */
    NULL,                               /* merge per-server configurations */
    NULL,                               /* directives */
    NULL,                               /* register hooks */
    AP_MODULE_FLAG_NONE
};
