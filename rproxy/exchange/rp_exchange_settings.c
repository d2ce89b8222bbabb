/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Settings put over each other: what is written counts, key by key. */

#include "rproxy/exchange/rp_exchange.h"

void rp_retry_put(rp_retry *into, const rp_retry_setting *from)
{
    if (from->written & 1u << RP_RETRY_KEY_TRIES) {
        into->tries = from->values.tries;
    }
    if (from->written & 1u << RP_RETRY_KEY_METHODS) {
        into->any_method = from->values.any_method;
    }
    if (from->written & 1u << RP_RETRY_KEY_ON) {
        into->on = from->values.on;
        memcpy(into->statuses, from->values.statuses, sizeof(into->statuses));
    }
}

void rp_keepalive_put(rp_keepalive *into, const rp_keepalive_setting *from)
{
    if (from->written & 1u << RP_KEEPALIVE_KEY_MAX) {
        into->max = from->values.max;
    }
    if (from->written & 1u << RP_KEEPALIVE_KEY_IDLE) {
        into->idle = from->values.idle;
    }
    if (from->written & 1u << RP_KEEPALIVE_KEY_REQUESTS) {
        into->requests = from->values.requests;
    }
    if (from->written & 1u << RP_KEEPALIVE_KEY_AGE) {
        into->age = from->values.age;
    }
}

static void put_time(apr_interval_time_t *into, apr_interval_time_t from)
{
    if (from != RP_UNSET) {
        *into = from;
    }
}

void rp_exchange_settings_put(rp_exchange_settings *into, const rproxy_settings *from)
{
    put_time(&into->timeouts.connect, from->timeouts.connect);
    put_time(&into->timeouts.first_byte, from->timeouts.first_byte);
    put_time(&into->timeouts.idle, from->timeouts.idle);
    put_time(&into->timeouts.total, from->timeouts.total);
    put_time(&into->timeouts.tunnel, from->timeouts.tunnel);
    put_time(&into->timeouts.drain, from->timeouts.drain);
    if (from->retry) {
        rp_retry_put(&into->retry, from->retry);
    }
    if (from->forwarded != RP_UNSET) {
        into->forwarded = (rp_forwarded)from->forwarded;
    }
    if (from->preserve_host != RP_UNSET) {
        into->preserve_host = from->preserve_host;
    }
}
