/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What a pool or member has set over what the route has: each key by itself, and nothing else. */

#include "rproxy/exchange/rp_exchange.h"
#include "t/unit/tap.h"

#define TIMEOUTS ((int)(sizeof(rp_timeouts) / sizeof(apr_interval_time_t)))

static const rp_exchange_settings route = {
    .timeouts = { 1, 2, 3, 4, 5, 6 },
    .retry = { .tries = 2, .on = RP_RETRY_ERROR, .statuses = { 502, 503 }, .any_method = 1 },
    .forwarded = RP_FORWARDED_X, .preserve_host = 1, .ignore_client_abort = 1, .via = "1.1 here"
};
static const rproxy_settings nothing = {
    .timeouts = { RP_UNSET, RP_UNSET, RP_UNSET, RP_UNSET, RP_UNSET, RP_UNSET },
    .forwarded = RP_UNSET, .preserve_host = RP_UNSET
};

static apr_interval_time_t *time_at(rp_timeouts *timeouts, int i)
{
    return (apr_interval_time_t *)timeouts + i;
}

/* from over route; nonzero if it is what was expected. */
static int becomes(const rproxy_settings *from, const rp_exchange_settings *expected)
{
    rp_exchange_settings into;

    memcpy(&into, &route, sizeof(into));
    rp_exchange_settings_put(&into, from);
    return memcmp(&into.timeouts, &expected->timeouts, sizeof(into.timeouts)) == 0
        && memcmp(&into.retry, &expected->retry, sizeof(into.retry)) == 0
        && into.upgrade == expected->upgrade && into.forwarded == expected->forwarded
        && into.preserve_host == expected->preserve_host
        && into.ignore_client_abort == expected->ignore_client_abort
        && into.via == expected->via;
}

static void test_timeouts(void)
{
    ok(becomes(&nothing, &route), "nothing is set, nothing changes");
    for (int i = 0; i < TIMEOUTS; i++) {
        rproxy_settings from = nothing;
        rp_exchange_settings expected;

        memcpy(&expected, &route, sizeof(expected));
        *time_at(&from.timeouts, i) = *time_at(&expected.timeouts, i) = 0;
        ok(becomes(&from, &expected), "no limit for time %d", i);
    }
}

static void test_words(void)
{
    rproxy_settings from = nothing;
    rp_exchange_settings expected;

    memcpy(&expected, &route, sizeof(expected));
    from.preserve_host = expected.preserve_host = 0;
    ok(becomes(&from, &expected), "preserve_host");
    from.forwarded = RP_FORWARDED_OFF;
    expected.forwarded = RP_FORWARDED_OFF;
    ok(becomes(&from, &expected), "forwarded");
}

static void test_retry(void)
{
    rp_retry_setting setting = {
        { .tries = 5, .on = RP_RETRY_TIMEOUT, .statuses = { 504 } }, 0
    };
    rproxy_settings from = nothing;
    rp_exchange_settings expected;

    memcpy(&expected, &route, sizeof(expected));
    from.retry = &setting;
    ok(becomes(&from, &expected), "no key of RProxyRetry is written");
    setting.written = 1u << RP_RETRY_KEY_TRIES;
    expected.retry.tries = 5;
    ok(becomes(&from, &expected), "tries=");
    setting.written |= 1u << RP_RETRY_KEY_ON;
    expected.retry.on = RP_RETRY_TIMEOUT;
    expected.retry.statuses[0] = 504;
    expected.retry.statuses[1] = 0;
    ok(becomes(&from, &expected), "on= as a whole");
    setting.written |= 1u << RP_RETRY_KEY_METHODS;
    expected.retry.any_method = 0;
    ok(becomes(&from, &expected), "methods=");
}

static void test_keepalive(void)
{
    const rp_keepalive_setting setting = {
        { .max = 10, .idle = 20, .requests = 30, .age = 40 }, 0
    };

    for (unsigned int written = 0; written < 16; written++) {
        rp_keepalive into = { .max = 1, .idle = 2, .requests = 3, .age = 4 };
        rp_keepalive_setting from = setting;

        from.written = written;
        rp_keepalive_put(&into, &from);
        ok(into.max == (written & 1u << RP_KEEPALIVE_KEY_MAX ? 10 : 1)
           && into.idle == (written & 1u << RP_KEEPALIVE_KEY_IDLE ? 20 : 2)
           && into.requests == (written & 1u << RP_KEEPALIVE_KEY_REQUESTS ? 30 : 3)
           && into.age == (written & 1u << RP_KEEPALIVE_KEY_AGE ? 40 : 4),
           "keys %u of RProxyKeepAlive", written);
    }
}

int main(void)
{
    tap_pool();
    test_timeouts();
    test_words();
    test_retry();
    test_keepalive();
    return tap_done();
}
