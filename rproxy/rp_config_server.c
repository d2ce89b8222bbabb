/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Settings of a server or virtual host. */
#include <string.h>
#include <strings.h>
#include <arpa/inet.h>
#include <apr_lib.h>
#include <apr_network_io.h>
#include <apr_strings.h>

#include "rproxy/rp_config_private.h"

const char *rp_config_allow_target(cmd_parms *cmd, void *dir, const char *text)
{
    rp_server_config *config = rp_server_config_of(cmd->server);
    const char *message = rp_config_guard(cmd, RP_GUARD_SERVER);
    rp_target *target;

    (void)dir;
    if (!message)
        message = rp_target_parse(cmd->pool, text, &target);
    if (message)
        return message;
    if (!config->allowed_targets)
        config->allowed_targets = apr_array_make(cmd->pool, 2, sizeof(rp_target *));
    APR_ARRAY_PUSH(config->allowed_targets, rp_target *) = target;
    return NULL;
}

const char *rp_config_trusted_proxy(cmd_parms *cmd, void *dir, const char *text)
{
    rp_server_config *config = rp_server_config_of(cmd->server);
    const char *message = rp_config_guard(cmd, RP_GUARD_SERVER);
    char *address = apr_pstrdup(cmd->pool, text);
    char *mask = strchr(address, '/');
    apr_ipsubnet_t *subnet;

    (void)dir;
    if (message)
        return message;
    if (mask)
        *mask++ = '\0';
    if (apr_ipsubnet_create(&subnet, address, mask, cmd->pool) != APR_SUCCESS)
        return apr_psprintf(cmd->pool, "RProxyTrustedProxy \"%s\": write an address or a network, "
                            "like 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32; names are not resolved",
                            text);
    if (!config->trusted_proxies)
        config->trusted_proxies = apr_array_make(cmd->pool, 4, sizeof(apr_ipsubnet_t *));
    APR_ARRAY_PUSH(config->trusted_proxies, apr_ipsubnet_t *) = subnet;
    return NULL;
}

const char *rp_config_encoded_slashes(cmd_parms *cmd, void *dir, const char *value)
{
    static const char *const names[] = { "pass", "decode", "reject" };
    const char *message = rp_config_guard(cmd, RP_GUARD_SERVER | RP_GUARD_ONCE);

    (void)dir;
    _Static_assert(RP_SLASHES_PASS == 0 && RP_SLASHES_DECODE == 1 && RP_SLASHES_REJECT == 2,
                   "names stand in this order");
    if (message)
        return message;
    for (int i = 0; i < 3; i++) {
        if (!strcasecmp(value, names[i])) {
            rp_server_config_of(cmd->server)->encoded_slashes = i;
            return NULL;
        }
    }
    return apr_psprintf(cmd->pool, "RProxyEncodedSlashes \"%s\": write pass, decode or reject",
                        value);
}

/* ---- the engine ------------------------------------------------------------------------------ */

const char *rp_config_engine(cmd_parms *cmd, void *dir, const char *value)
{
    static const char *const names[] = { "auto", "on", "off" };
    const char *message = rp_config_guard(cmd, RP_GUARD_SERVER | RP_GUARD_ONCE);

    (void)dir;
    _Static_assert(RP_ENGINE_AUTO == 0 && RP_ENGINE_ON == 1 && RP_ENGINE_OFF == 2,
                   "names stand in this order");
    if (message)
        return message;
    for (int i = 0; i < 3; i++) {
        if (!strcasecmp(value, names[i])) {
            rp_server_config_of(cmd->server)->engine = i;
            return NULL;
        }
    }
    return apr_psprintf(cmd->pool, "RProxyEngine \"%s\": write auto, on or off", value);
}

const char *rp_config_engine_threads(cmd_parms *cmd, void *dir, const char *value)
{
    const char *message = rp_config_guard(cmd, RP_GUARD_SERVER | RP_GUARD_ONCE);

    (void)dir;
    if (!message && cmd->server->is_virtual)
        message = "RProxyEngineThreads serves all virtual hosts; move it out of <VirtualHost>";
    if (!message)
        message = rp_argument_number(cmd->pool, "RProxyEngineThreads", value, 1,
                                   RP_ENGINE_THREADS_MAX,
                                   &rp_server_config_of(cmd->server)->engine_threads);
    return message;
}

/* ---- RProxyResolver -------------------------------------------------------------------------- */

/** "192.0.2.1", "192.0.2.1:53", "2001:db8::1", "[2001:db8::1]:53" in the form that c-ares wants. */
static const char *parse_name_server(apr_pool_t *pool, const char *text, const char **server)
{
    unsigned char binary[sizeof(struct in6_addr)];
    const char *close = *text == '[' ? strchr(text, ']') : NULL;
    const char *colon = close ? close + 1 : strchr(text, ':');
    const char *host;
    int port = 53;

    if (!close && colon && strchr(colon + 1, ':'))
        colon = NULL;
    host = close ? apr_pstrmemdup(pool, text + 1, (apr_size_t)(close - text - 1))
                 : colon ? apr_pstrmemdup(pool, text, (apr_size_t)(colon - text)) : text;
    if (colon && *colon
        && (*colon != ':' || rp_argument_number(pool, text, colon + 1, 1, 65535, &port)))
        return apr_psprintf(pool, "RProxyResolver \"%s\": write the port behind a colon, from 1 to "
                            "65535", text);
    if (!close && inet_pton(AF_INET, host, binary) == 1)
        *server = apr_psprintf(pool, "%s:%d", host, port);
    else if (inet_pton(AF_INET6, host, binary) == 1)
        *server = apr_psprintf(pool, "[%s]:%d", host, port);
    else
        return apr_psprintf(pool, "RProxyResolver \"%s\": write the IP address of a name server, "
                            "like 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:53", text);
    return NULL;
}

static const char *parse_resolver_key(apr_pool_t *pool, const char *argument, unsigned int *seen,
                                      rp_resolver_settings *settings)
{
    static const char *const names[] = { "min-ttl", "max-ttl", "timeout", NULL };
    apr_interval_time_t *times[] = { &settings->min_ttl, &settings->max_ttl, &settings->timeout };
    const char *value, *message;
    int key;

    message = rp_argument_key(pool, argument, names, seen, &key, &value);
    if (!message)
        message = rp_argument_time(pool, argument, value, 0, times[key]);
    return message;
}

const char *rp_config_resolver(cmd_parms *cmd, void *dir, const char *arguments)
{
    const apr_array_header_t *words = rp_argument_words(cmd->pool, arguments);
    rp_resolver_settings *settings = &rp_server_config_of(cmd->server)->resolver;
    const char *message = rp_config_guard(cmd, RP_GUARD_SERVER | RP_GUARD_ONCE);
    unsigned int seen = 0;

    (void)dir;
    if (!message && cmd->server->is_virtual)
        message = "RProxyResolver serves all virtual hosts; move it out of <VirtualHost>";
    if (!message && !words->nelts)
        message = "RProxyResolver needs addresses of name servers, or keys like min-ttl=5s";
    for (int i = 0; i < words->nelts && !message; i++) {
        const char *word = APR_ARRAY_IDX(words, i, const char *), *server = NULL;

        if (strchr(word, '='))
            message = parse_resolver_key(cmd->pool, word, &seen, settings);
        else if (!(message = parse_name_server(cmd->pool, word, &server)))
            settings->servers = settings->servers
                                ? apr_pstrcat(cmd->pool, settings->servers, ",", server, NULL)
                                : server;
    }
    if (!message && settings->min_ttl > settings->max_ttl)
        message = apr_psprintf(cmd->pool, "RProxyResolver: min-ttl=%s is above max-ttl=%s; make "
                               "them fit",
                               rp_argument_time_text(cmd->pool, settings->min_ttl),
                               rp_argument_time_text(cmd->pool, settings->max_ttl));
    return message;
}
