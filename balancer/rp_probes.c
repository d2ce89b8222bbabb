/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The probes that come with the balancer. */
#include "ap_provider.h"

#include "balancer/rp_probe.h"

static const struct {
    const char *name;
    const rproxy_probe *probe;
} probes[] = {
    { "agent", &rp_probe_agent },
    { "grpc", &rp_probe_grpc },
    { "http", &rp_probe_http },
    { "tcp", &rp_probe_tcp },
    { "tls", &rp_probe_tls },
};

void rp_probe_register(apr_pool_t *pool)
{
    for (apr_size_t i = 0; i < sizeof(probes) / sizeof(probes[0]); i++)
        ap_register_provider(pool, RPROXY_PROBE_GROUP, probes[i].name, RPROXY_PROBE_VERSION,
                             probes[i].probe);
}
