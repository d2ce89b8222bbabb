/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyHealthCheck agent: the member sends a line that says how it is, as agents for HAProxy
 * do. */
#include <string.h>

#include "balancer/rp_probe.h"

typedef struct line {
    apr_size_t len;
    char text[256];
} line;

static rproxy_check_verdict begin(rproxy_check *check)
{
    line *l = apr_palloc(check->pool, sizeof(*l));

    l->len = 0;
    check->data = l;
    return RPROXY_CHECK_GOES_ON;
}

static rproxy_check_verdict received(rproxy_check *check, const char *data, apr_size_t len)
{
    line *l = check->data;
    apr_size_t room = sizeof(l->text) - l->len, take = len < room ? len : room, end;

    memcpy(l->text + l->len, data, take);
    l->len += take;
    for (end = 0; end < l->len && l->text[end] != '\n' && l->text[end] != '\r'; end++)
        ;
    if (len && end == l->len && l->len < sizeof(l->text))
        return RPROXY_CHECK_GOES_ON;
    if (end == sizeof(l->text)) {
        rp_probe_say(check, "the agent's line is too long");
        return RPROXY_CHECK_FAILED;
    }
    if (rp_agent_parse(l->text, end, &check->advice))
        return RPROXY_CHECK_PASSED;
    rp_probe_say(check, end ? "the agent says something else" : "the agent says nothing");
    return RPROXY_CHECK_FAILED;
}

const rproxy_probe rp_probe_agent = {
    .tls = RPROXY_PROBE_PLAIN,
    .gives_advice = 1,
    .begin = begin,
    .received = received
};
