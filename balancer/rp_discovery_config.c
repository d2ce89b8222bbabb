/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyMembersFile, RProxyResolve, RProxyDiscover: where members come from. */
#include <string.h>
#include <strings.h>
#include <arpa/inet.h>
#include <apr_strings.h>
#include "ap_provider.h"

#include "balancer/rp_balancer_config.h"
#include "balancer/rp_discovery.h"
#include "balancer/rp_mix.h"
#include "balancer/rp_probe.h"
#include "rproxy/rp_argument.h"

/* ---- sources --------------------------------------------------------------------------------- */

static rp_source *add_source(apr_pool_t *pool, rp_balancer *balancer, const char *who,
                             const rproxy_discovery *provider, const void *config)
{
    rp_source *source = apr_pcalloc(pool, sizeof(*source));

    source->public.pool_name = balancer->name;
    source->public.config = config;
    source->provider = provider;
    source->balancer = balancer;
    source->who = who;
    source->id = rp_hash_text(who) | 1;
    APR_ARRAY_PUSH(balancer->discovered, rp_source *) = source;
    return source;
}

static const char *add_provider(cmd_parms *cmd, rp_balancer *balancer, const char *name,
                                const rproxy_discovery *provider, const apr_array_header_t *words)
{
    const char *who = apr_pstrcat(cmd->pool, name, " ",
                                  apr_array_pstrcat(cmd->pool, words, ' '), NULL);
    const char *message = NULL;
    void *config = NULL;

    for (int i = 0; i < balancer->discovered->nelts; i++) {
        if (!strcmp(APR_ARRAY_IDX(balancer->discovered, i, rp_source *)->who, who))
            return apr_psprintf(cmd->pool, "%s: the pool has \"%s\" twice; keep one",
                                cmd->cmd->name, who);
    }
    if (provider->configure)
        message = provider->configure(cmd->pool, words, &config);
    else if (words->nelts)
        message = apr_psprintf(cmd->pool, "it takes no arguments; remove \"%s\"",
                               APR_ARRAY_IDX(words, 0, const char *));
    if (message)
        return apr_psprintf(cmd->pool, "%s: %s", cmd->cmd->name, message);
    add_source(cmd->pool, balancer, who, provider, config);
    return NULL;
}

const char *rp_discovery_members_file(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer = rp_balancer_section_of(cmd);

    (void)dir;
    return balancer ? add_provider(cmd, balancer, "file", &rp_discovery_file,
                                   rp_argument_words(cmd->pool, arguments))
                    : rp_balancer_misplaced(cmd);
}

const char *rp_discovery_directive(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer = rp_balancer_section_of(cmd);
    apr_array_header_t *words = rp_argument_words(cmd->pool, arguments);
    const rproxy_discovery *provider;
    const char *name;

    (void)dir;
    if (!balancer)
        return rp_balancer_misplaced(cmd);
    if (!words->nelts)
        return "RProxyDiscover needs the name of a provider of members; one is file";
    name = APR_ARRAY_IDX(words, 0, const char *);
    provider = ap_lookup_provider(RPROXY_DISCOVERY_GROUP, name, RPROXY_DISCOVERY_VERSION);
    if (!provider)
        return apr_psprintf(cmd->pool, "RProxyDiscover \"%s\" is unknown; load the module that has "
                            "it, or write file", name);
    words->elts += words->elt_size;
    words->nelts--;
    return add_provider(cmd, balancer, name, provider, words);
}

void rp_discovery_register(apr_pool_t *pool)
{
    ap_register_provider(pool, RPROXY_DISCOVERY_GROUP, "file", RPROXY_DISCOVERY_VERSION,
                         &rp_discovery_file);
}

/* ---- RProxyResolve --------------------------------------------------------------------------- */

static const rp_resolve resolve_default = {
    .ttl = -1,
    .min = -1,
    .max = -1,
    .ipv4 = 1,
    .ipv6 = 1
};

enum { KEY_TTL, KEY_MIN, KEY_MAX, KEY_RESOLVERS };

static const char *parse_resolve(apr_pool_t *pool, const apr_array_header_t *words,
                                 rp_resolve *resolve)
{
    static const char *const names[] = { "ttl", "min", "max", "resolvers", NULL };
    const char *message = NULL, *value;
    int key, ipv4 = 0, ipv6 = 0;
    unsigned int seen = 0;

    for (int i = 0; i < words->nelts && !message; i++) {
        const char *argument = APR_ARRAY_IDX(words, i, const char *);

        if (!strcasecmp(argument, "ipv4") || !strcasecmp(argument, "ipv6")) {
            *(argument[3] == '4' ? &ipv4 : &ipv6) = 1;
            continue;
        }
        if ((message = rp_argument_key(pool, argument, names, &seen, &key, &value)))
            break;
        if (key == KEY_RESOLVERS)
            resolve->servers = value;
        else if (key != KEY_TTL || strcasecmp(value, "auto") != 0)
            message = rp_argument_time(pool, argument, value, 0,
                                       key == KEY_TTL ? &resolve->ttl
                                       : key == KEY_MIN ? &resolve->min : &resolve->max);
    }
    if (ipv4 != ipv6) {
        resolve->ipv4 = ipv4;
        resolve->ipv6 = ipv6;
    }
    if (!message && resolve->max >= 0 && resolve->min > resolve->max)
        return "min= is longer than max=; raise max=";
    if (!message && resolve->ttl >= 0 && (seen & (1u << KEY_MIN | 1u << KEY_MAX)))
        return "min= and max= are for ttl=auto; remove them, or ttl=";
    return message;
}

const char *rp_discovery_resolve(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer;
    apr_array_header_t *words;
    const char *message = rp_balancer_once(cmd, arguments, RP_ONCE_RESOLVE, &balancer, &words);

    (void)dir;
    if (message)
        return message;
    if (!words->nelts)
        return "RProxyResolve needs ttl=, as in RProxyResolve ttl=auto";
    balancer->resolve = apr_pmemdup(cmd->pool, &resolve_default, sizeof(resolve_default));
    message = parse_resolve(cmd->pool, words, balancer->resolve);
    return message ? apr_psprintf(cmd->pool, "RProxyResolve: %s", message) : NULL;
}

/* ---- members whose names are looked up ------------------------------------------------------- */

#define MARK "+srv://"

int rp_discovery_is_service(apr_pool_t *pool, const char *text, const char **url)
{
    const char *mark = strchr(text, '+');

    if (!mark || strncasecmp(mark, MARK, strlen(MARK)) != 0
        || strspn(text, "htpsHTPS") < (apr_size_t)(mark - text))
        return 0;
    *url = apr_pstrcat(pool, apr_pstrmemdup(pool, text, (apr_size_t)(mark - text)), "://",
                       mark + strlen(MARK), NULL);
    return 1;
}

/** Takes the normal form of a URL apart. Nonzero: it has a name that can be looked up. */
static int take_apart(apr_pool_t *pool, const char *url, rp_dns_source *config)
{
    unsigned char bytes[sizeof(struct in_addr)];
    const rproxy_place *place;

    rp_discovery_is_service(pool, url, &url);
    place = rp_place_parse(pool, url);
    if (!place || place->socket || place->address || *place->authority == '[')
        return 0;
    config->scheme = place->is_tls ? "https" : "http";
    config->name = place->host;
    config->port = place->port;
    config->base = place->base;
    return inet_pton(AF_INET, place->host, bytes) != 1;
}

const char *rp_discovery_complete(apr_pool_t *pool, rp_balancer *balancer)
{
    int has_names = 0;

    for (int i = 0; i < balancer->count; i++) {
        rp_member *more = &balancer->more[i];
        rp_dns_source *config = apr_pcalloc(pool, sizeof(*config));
        rp_source *source;

        if ((!balancer->resolve && !more->is_service) || !take_apart(pool, more->url, config))
            continue;
        if (more->is_service && strchr(strstr(balancer->members[i].name, "://") + 3, ':'))
            return apr_psprintf(pool, "member %s: ports come from DNS; remove that behind ':'",
                                balancer->members[i].name);
        has_names = 1;
        config->resolve = balancer->resolve ? balancer->resolve : &resolve_default;
        config->is_service = more->is_service;
        config->member = &balancer->members[i];
        config->more = more;
        source = add_source(pool, balancer, apr_pstrcat(pool, "DNS of ", more->url, NULL),
                            &rp_discovery_dns, config);
        source->member = more;
        more->source = source->id;
    }
    if (balancer->resolve && !has_names)
        return "RProxyResolve has no effect, for no member has a name that could be looked up; "
               "remove it";
    return NULL;
}
