/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* HTTP/2 in the engine: a stream can't be handed to the pipeline, and one connection may ask for
 * every virtual host of its address. So there must be nothing left to hand over in any of them; but
 * for pages about the server itself, which a client gets that comes back with HTTP/1.1. That costs
 * it a connection, and not all clients do so by themselves: too much for anything else. */
#include <string.h>
#include <strings.h>
#include <apr_network_io.h>
#include <apr_strings.h>
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_vhost.h"

#include "rproxy/engine/rp_eligible_private.h"

APLOG_USE_MODULE(rproxy);

/* ---- guards ---------------------------------------------------------------------------------- */

static int is_plain(const rp_section *section)
{
    return !section->regex && !section->has_wildcards;
}

static int are_same_path(const rp_section *one, const rp_section *other)
{
    apr_size_t len = rp_section_bare_len(one);

    return rp_section_bare_len(other) == len && !strncmp(one->path, other->path, len);
}

rp_guard_http2 rp_http2_of_section(const apr_array_header_t *sections, const rp_section *section)
{
    if (!is_plain(section) || section->audience == RP_FOR_OTHERS)
        return RP_GUARD_BARS;
    /* Another section of this path may say who may see the page. */
    for (int i = 0; i < sections->nelts; i++) {
        const rp_section *other = APR_ARRAY_IDX(sections, i, const rp_section *);

        if (other->audience == RP_FOR_OPERATORS && is_plain(other) && are_same_path(other, section))
            return RP_GUARD_RETRIES;
    }
    return RP_GUARD_BARS;
}

/** Nonzero if a line of the scope's SetEnvIf looks at what guard sets. */
static int is_tested(const rp_scope *scope, const rp_guard *guard)
{
    for (int i = 0; i < scope->guards->nelts; i++) {
        const rp_guard *tester = &APR_ARRAY_IDX(scope->guards, i, rp_guard);

        for (int k = 0; k < guard->variables->nelts; k++) {
            if (tester->kind == RP_BY_FIELD
                && !strcasecmp(tester->text, APR_ARRAY_IDX(guard->variables, k, const char *)))
                return 1;
        }
    }
    return 0;
}

rp_guard_http2 rp_http2_of_request(const rp_scope *main_scope, const rp_scope *own,
                                   const rp_guard *guard)
{
    return guard->variables && !is_tested(main_scope, guard) && !is_tested(own, guard)
           ? RP_GUARD_IDLE : RP_GUARD_BARS;
}

/* ---- one server ------------------------------------------------------------------------------ */

static int offers(const server_rec *server, const char *protocol)
{
    const core_server_config *core = ap_get_core_module_config(server->module_config);

    for (int i = 0; core->protocols && i < core->protocols->nelts; i++) {
        if (!strcmp(APR_ARRAY_IDX(core->protocols, i, const char *), protocol))
            return 1;
    }
    return 0;
}

/** Nonzero if a client can come back with HTTP/1.1: it chooses the protocol in the handshake. */
static int can_retry(const server_rec *server, const rp_scope *main_scope, const rp_scope *own)
{
    int tls = own->tls != RP_UNSET ? own->tls : main_scope->tls;

    return tls > 0 && offers(server, AP_PROTOCOL_HTTP1);
}

/** Nonzero if nothing is left of the route for streams of HTTP/2. */
static int is_retried(apr_pool_t *pool, const rp_engine_host *host, const rp_route *route)
{
    return host->guards && route->path && !route->target
           && rp_guards_retry_all(host->guards, rp_section_key(pool, route));
}

static const char *path_text(apr_pool_t *pool, const rp_route *route)
{
    return route->pattern ? apr_pstrcat(pool, "regex ", route->pattern, NULL) : route->path;
}

/** The first route that isn't the engine's; those with a target first, whose reason may be the
 * others' too. */
static const char *foreign_route(apr_pool_t *pool, const rp_engine_host *host, int retries)
{
    const rp_route *unproxied = NULL;

    for (int i = 0; i < host->route_count; i++) {
        const rp_engine_route *route = &host->routes[i];

        if (!route->route->target) {
            if (!unproxied && !(retries && is_retried(pool, host, route->route)))
                unproxied = route->route;
        }
        else if (route->reasons->nelts) {
            return apr_psprintf(pool, "%s: %s", path_text(pool, route->route),
                                APR_ARRAY_IDX(route->reasons, 0, const char *));
        }
    }
    return unproxied ? apr_psprintf(pool, "%s is not proxied (%s:%d)", path_text(pool, unproxied),
                                    unproxied->file, unproxied->line) : NULL;
}

/** Nonzero if each request reaches some route. */
static int covers_all(const rp_engine_host *host)
{
    for (int i = 0; i < host->route_count; i++) {
        const char *path = host->routes[i].route->path;

        if (path && !strcmp(path, "/"))
            return 1;
    }
    return 0;
}

static const char *foreign_directive(const rp_scope *scope)
{
    if (scope->no_http2)
        return scope->no_http2;
    for (int i = 0; i < scope->sections->nelts; i++) {
        const rp_section *section = &APR_ARRAY_IDX(scope->sections, i, rp_section);

        if (section->no_http2)
            return section->no_http2;
    }
    return NULL;
}

/** The first guard that leaves nothing but the pipeline. */
static const char *foreign_guard(apr_pool_t *pool, const rp_engine_host *host, int retries)
{
    const apr_array_header_t *names = rp_guards_names_of(pool, host->guards, RP_GUARD_BARS);

    if (!names->nelts && !retries)
        names = rp_guards_names_of(pool, host->guards, RP_GUARD_RETRIES);
    return names->nelts ? apr_pstrcat(pool, "the pipeline takes ",
                                      APR_ARRAY_IDX(names, 0, const char *), NULL) : NULL;
}

/** Variables of mod_http2 that logs show; HTTP2 is the engine's too. */
static const char *foreign_variable(apr_pool_t *pool, const rp_log_facts *log)
{
    for (int i = 0; i < log->variables->nelts; i++) {
        const char *name = APR_ARRAY_IDX(log->variables, i, const char *);

        if (!strncasecmp(name, "H2", 2))
            return apr_psprintf(pool, "a log format shows %%{%s}e, which mod_http2 sets", name);
    }
    return NULL;
}

const char *rp_http2_obstacle(apr_pool_t *pool, const rp_engine_host *host,
                              const rp_scope *main_scope, const rp_scope *own,
                              const rp_log_facts *log)
{
    int retries = can_retry(host->server, main_scope, own);
    const char *reason = foreign_route(pool, host, retries);

    if (reason)
        return reason;
    if (!covers_all(host))
        return host->route_count ? "no rule is for /, so that not every path has one"
                                 : "it has no rules";
    reason = foreign_guard(pool, host, retries);
    if (!reason)
        reason = foreign_directive(main_scope);
    if (!reason)
        reason = foreign_directive(own);
    return reason ? reason : foreign_variable(pool, log);
}

/* ---- virtual hosts of one address ------------------------------------------------------------ */

/** As httpd decides which virtual hosts share an address (ap_fini_vhost_config). */
static int is_same_address(const server_addr_rec *one, const server_addr_rec *other)
{
    if (one->host_port != other->host_port)
        return 0;
    return apr_sockaddr_equal(one->host_addr, other->host_addr)
           || (apr_sockaddr_is_wildcard(one->host_addr)
               && apr_sockaddr_is_wildcard(other->host_addr));
}

static int listens_at(const server_rec *server, const server_addr_rec *address)
{
    for (const server_addr_rec *own = server->addrs; own; own = own->next) {
        if (is_same_address(own, address))
            return 1;
    }
    return 0;
}

/** The first of the servers that is at the address too. */
static const rp_engine_host *find_at(const apr_array_header_t *servers,
                                     const server_addr_rec *address)
{
    for (int i = 0; i < servers->nelts; i++) {
        const rp_engine_host *host = APR_ARRAY_IDX(servers, i, const rp_engine_host *);

        if (listens_at(host->server, address))
            return host;
    }
    return NULL;
}

/** blocked: const rp_engine_host *: virtual hosts that the engine has no HTTP/2 for. */
static void compare(apr_pool_t *pool, rp_eligible_server *server,
                    const apr_array_header_t *blocked)
{
    server->near_everywhere = 1;
    for (const server_addr_rec *address = server->host.server->addrs; address;
         address = address->next) {
        const rp_engine_host *other = find_at(blocked, address);
        const char *name;

        if (!other) {
            server->near_everywhere = 0;
            continue;
        }
        if (server->near_no_http2)
            continue;
        name = other->server->server_hostname;
        server->near_address = address->host_port
            ? apr_psprintf(pool, "%s:%d", address->virthost, address->host_port)
            : apr_pstrcat(pool, address->virthost, ":*", NULL);
        server->near_no_http2 = apr_psprintf(pool, "%s is on the same address: %s",
                                             name ? name : "a virtual host without a name",
                                             other->no_http2);
    }
}

void rp_http2_compare(apr_pool_t *pool, const apr_array_header_t *servers)
{
    apr_array_header_t *blocked = apr_array_make(pool, 8, sizeof(const rp_engine_host *));

    for (int i = servers->nelts; i-- > 0;) {
        const rp_engine_host *host = &APR_ARRAY_IDX(servers, i, rp_eligible_server *)->host;

        if (host->no_http2 && host->server->is_virtual)
            APR_ARRAY_PUSH(blocked, const rp_engine_host *) = host;
    }
    for (int i = 0; i < servers->nelts; i++) {
        rp_eligible_server *server = APR_ARRAY_IDX(servers, i, rp_eligible_server *);

        /* The main server has no address of its own: nobody shares one with it. */
        if (!server->host.no_http2 && server->host.server->is_virtual)
            compare(pool, server, blocked);
    }
}

/* ---- one connection -------------------------------------------------------------------------- */

static int has_obstacle(void *found, conn_rec *c, server_rec *server)
{
    (void)c;
    *(int *)found |= rp_server_config_of(server)->eligible->host.no_http2 != NULL;
    return *(int *)found;
}

int rp_eligible_http2(conn_rec *c)
{
    const rp_eligible_server *base = rp_server_config_of(c->base_server)->eligible;
    int found = base->host.no_http2 != NULL;

    /* All that the connection reaches are on this address of base. */
    if (!found && base->near_no_http2)
        ap_vhost_iterate_given_conn(c, has_obstacle, &found);
    return !found;
}

/* ---- for people ------------------------------------------------------------------------------ */

/** "; in HTTP/1.1 /server-status (file:12)", or "". */
static const char *retried_text(apr_pool_t *pool, const rp_engine_host *host)
{
    const apr_array_header_t *names = rp_guards_names_of(pool, host->guards, RP_GUARD_RETRIES);
    const char *text = "";

    for (int i = 0; i < names->nelts; i++)
        text = apr_pstrcat(pool, text, i ? ", " : "; in HTTP/1.1 ",
                           APR_ARRAY_IDX(names, i, const char *), NULL);
    return text;
}

const char *rp_eligible_http2_text(apr_pool_t *pool, const server_rec *server)
{
    const rp_eligible_server *decided = rp_server_config_of(server)->eligible;
    const char *others = ap_find_linked_module("mod_http2.c") ? "mod_http2" : "not offered";
    const char *retried;

    if ((!offers(server, "h2") && !offers(server, "h2c"))
        || (!server->is_virtual && !decided->host.route_count))
        return NULL;
    if (decided->host.no_http2)
        return apr_psprintf(pool, "%s (%s)", others, decided->host.no_http2);
    retried = retried_text(pool, &decided->host);
    if (!decided->near_no_http2)
        return apr_pstrcat(pool, "engine", retried, NULL);
    if (decided->near_everywhere)
        return apr_psprintf(pool, "%s (%s)", others, decided->near_no_http2);
    return apr_psprintf(pool, "engine%s; on %s %s (%s)", retried, decided->near_address, others,
                        decided->near_no_http2);
}

void rp_http2_tell(apr_pool_t *pool, const server_rec *server)
{
    const rp_eligible_server *decided = rp_server_config_of(server)->eligible;
    const char *text = rp_eligible_http2_text(pool, server);
    const char *name = server->server_hostname;

    if (!text)
        return;
    if (!name)
        name = "a server without a name";
    if (!decided->host.no_http2 && !decided->near_no_http2)
        ap_log_error(APLOG_MARK, APLOG_INFO, 0, server,
                     "RP0313: the engine serves HTTP/2 clients of %s%s", name,
                     retried_text(pool, &decided->host));
    else
        ap_log_error(APLOG_MARK, APLOG_INFO, 0, server, "RP0314: HTTP/2 clients of %s: %s", name,
                     text);
}
