/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyHealthCheck tcp and tls: a member that takes up a connection is well. */
#include "balancer/rp_probe.h"

const rproxy_probe rp_probe_tcp = { .tls = RPROXY_PROBE_PLAIN };
const rproxy_probe rp_probe_tls = { .tls = RPROXY_PROBE_TLS };
