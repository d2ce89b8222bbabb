/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyHealthCheck http: a request of its own, and what its response must be. */
#include <string.h>
#include <strings.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "balancer/rp_probe.h"
#include "rproxy/rp_argument.h"

typedef struct http_config {
    const char *method, *uri, *fields;
    int has_host, has_agent;            /* the fields have these */
    rp_status_set expect;
    const char *expect_text;
    ap_regex_t *body;                   /* NULL: any */
} http_config;

/* ---- the configuration ----------------------------------------------------------------------- */

enum { KEY_URI, KEY_METHOD, KEY_EXPECT, KEY_BODY };

static int is_token(const char *text, apr_size_t len)
{
    for (apr_size_t i = 0; i < len; i++) {
        if (!apr_isalnum(text[i]) && (!text[i] || !strchr("!#$%&'*+-.^_`|~", text[i])))
            return 0;
    }
    return len > 0;
}

static const char *parse_uri(apr_pool_t *pool, const char *value, http_config *config)
{
    config->uri = value;
    for (const char *at = value; *at; at++) {
        if ((unsigned char)*at <= ' ' || (unsigned char)*at >= 0x7f || *at == '#')
            return apr_psprintf(pool, "\"uri=%s\" has a byte that a request can't have; write it "
                                "percent-encoded", value);
    }
    return *value == '/' || !strcmp(value, "*") ? NULL
        : apr_psprintf(pool, "\"uri=%s\" must begin with \"/\"", value);
}

static const char *parse_header(apr_pool_t *pool, const char *value, http_config *config)
{
    const char *colon = strchr(value, ':');

    if (!colon || !is_token(value, (apr_size_t)(colon - value)))
        return apr_psprintf(pool, "\"header=%s\": write header=\"Name: value\"", value);
    for (const char *at = colon; *at; at++) {
        if (((unsigned char)*at < ' ' && *at != '\t') || *at == 0x7f)
            return apr_psprintf(pool, "\"header=%s\" has a control byte; remove it", value);
    }
    if (!strncasecmp(value, "Content-Length:", 15) || !strncasecmp(value, "Connection:", 11)
        || !strncasecmp(value, "Transfer-Encoding:", 18))
        return apr_psprintf(pool, "\"header=%s\": a check has no body and a connection of its own; "
                            "remove it", value);
    config->has_host |= !strncasecmp(value, "Host:", 5);
    config->has_agent |= !strncasecmp(value, "User-Agent:", 11);
    config->fields = apr_pstrcat(pool, config->fields, value, "\r\n", NULL);
    return NULL;
}

static const char *parse_key(apr_pool_t *pool, int key, const char *value, http_config *config)
{
    switch (key) {
    case KEY_URI:
        return parse_uri(pool, value, config);
    case KEY_METHOD:
        config->method = value;
        return is_token(value, strlen(value)) && strcasecmp(value, "CONNECT") != 0 ? NULL
            : apr_psprintf(pool, "\"method=%s\" is no method for a check; write GET, HEAD or "
                           "OPTIONS", value);
    case KEY_EXPECT:
        config->expect_text = value;
        return rp_status_set_parse(&config->expect, value) ? NULL
            : apr_psprintf(pool, "\"expect=%s\": write statuses as in expect=200-399,401", value);
    default:
        config->body = ap_pregcomp(pool, value, 0);
        return config->body ? NULL
            : apr_psprintf(pool, "\"body=%s\" is no regular expression; see what PCRE allows",
                           value);
    }
}

static const char *configure(apr_pool_t *pool, const apr_array_header_t *words, void **made)
{
    static const char *const names[] = { "uri", "method", "expect", "body", NULL };
    http_config *config = apr_pcalloc(pool, sizeof(*config));
    const char *message = NULL;
    unsigned int seen = 0;

    config->method = "GET";
    config->uri = "/";
    config->fields = "";
    config->expect_text = "200-399";
    rp_status_set_parse(&config->expect, config->expect_text);
    for (int i = 0; i < words->nelts && !message; i++) {
        const char *word = APR_ARRAY_IDX(words, i, const char *), *value;
        int key;

        if (!strncasecmp(word, "header=", 7)) {
            message = parse_header(pool, word + 7, config);
            continue;
        }
        message = rp_argument_key(pool, word, names, &seen, &key, &value);
        if (!message)
            message = parse_key(pool, key, value, config);
    }
    if (!message && config->body && !strcmp(config->method, "HEAD"))
        message = "body= needs a body, which HEAD doesn't bring; write method=GET";
    *made = config;
    return message;
}

/* ---- a check --------------------------------------------------------------------------------- */

static rproxy_check_verdict begin(rproxy_check *check)
{
    const http_config *config = check->config;
    rp_probe_response *response = apr_pcalloc(check->pool, sizeof(*response));
    const char *request = apr_pstrcat(
        check->pool, config->method, " ", *config->uri == '/' ? check->place->base : "",
        config->uri, " HTTP/1.1\r\n", config->has_host ? "" : "Host: ",
        config->has_host ? "" : check->host, config->has_host ? "" : "\r\n",
        config->has_agent ? "" : "User-Agent: mod_rproxy/" RPROXY_VERSION " health-check\r\n",
        config->fields, "Connection: close\r\n\r\n", NULL);

    if (config->body) {
        response->body = apr_palloc(check->pool, RP_PROBE_BODY_MAX);
        response->body_max = RP_PROBE_BODY_MAX;
    }
    check->data = response;
    check->send(check, request, strlen(request));
    return RPROXY_CHECK_GOES_ON;
}

static rproxy_check_verdict judge_body(rproxy_check *check, const rp_probe_response *response)
{
    const http_config *config = check->config;

    if (ap_regexec_len(config->body, response->body, response->body_len, 0, NULL, 0) == 0)
        return RPROXY_CHECK_PASSED;
    rp_probe_say(check, "the body does not match");
    return RPROXY_CHECK_FAILED;
}

static rproxy_check_verdict received(rproxy_check *check, const char *data, apr_size_t len)
{
    const http_config *config = check->config;
    rp_probe_response *response = check->data;
    const char *message = len ? rp_probe_response_read(response, data, len)
                              : rp_probe_response_end(response);

    /* What follows is of no matter once the status says it all. */
    if (response->has_head && !rp_status_set_has(&config->expect, response->status)) {
        rp_probe_say(check, "status %d instead of %s", response->status, config->expect_text);
        return RPROXY_CHECK_FAILED;
    }
    if (response->has_head && !config->body)
        return RPROXY_CHECK_PASSED;
    if (message) {
        rp_probe_say(check, "%s", message);
        return RPROXY_CHECK_FAILED;
    }
    return response->is_complete || response->body_len == RP_PROBE_BODY_MAX
        ? judge_body(check, response) : RPROXY_CHECK_GOES_ON;
}

const rproxy_probe rp_probe_http = {
    .tls = RPROXY_PROBE_AS_MEMBER,
    .configure = configure,
    .begin = begin,
    .received = received
};
