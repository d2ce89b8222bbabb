/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The methods that come with the balancer. */
#include "ap_provider.h"

#include "balancer/rp_balancer.h"

static const struct {
    const char *name;
    const rproxy_method *method;
} methods[] = {
    { "bytraffic", &rp_method_bytraffic },
    { "first", &rp_method_first },
    { "hash", &rp_method_hash },
    { "leastconn", &rp_method_leastconn },
    { "leasttime", &rp_method_leasttime },
    { "random2", &rp_method_random2 },
    { "roundrobin", &rp_method_roundrobin },
};

void rp_balancer_register_methods(apr_pool_t *pool)
{
    for (apr_size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        ap_register_provider(pool, RPROXY_METHOD_GROUP, methods[i].name, RPROXY_METHOD_VERSION,
                             methods[i].method);
}
