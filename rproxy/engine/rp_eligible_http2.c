/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* HTTP/2 in the engine: a stream can't be handed to the pipeline, and one connection may ask for
 * every virtual host of its address. So there must be nothing left to hand over in any of them. */
#include <string.h>
#include <strings.h>
#include <apr_network_io.h>
#include <apr_strings.h>
#include "http_core.h"
#include "http_log.h"
#include "http_vhost.h"

#include "rproxy/engine/rp_eligible_private.h"

APLOG_USE_MODULE(rproxy);

/* ---- one server ------------------------------------------------------------------------------ */

/** The first route that isn't the engine's. */
static const char *foreign_route(apr_pool_t *pool, const rp_engine_host *host)
{
    for (int i = 0; i < host->route_count; i++) {
        const rp_engine_route *route = &host->routes[i];
        const char *path = route->route->pattern
            ? apr_pstrcat(pool, "regex ", route->route->pattern, NULL) : route->route->path;

        if (!route->route->target)
            return apr_psprintf(pool, "%s is not proxied (%s:%d)", path, route->route->file,
                                route->route->line);
        if (route->reasons->nelts)
            return apr_psprintf(pool, "%s: %s", path,
                                APR_ARRAY_IDX(route->reasons, 0, const char *));
    }
    return NULL;
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
    const char *reason = foreign_route(pool, host);

    if (reason)
        return reason;
    if (!covers_all(host))
        return host->route_count ? "no rule is for /, so that not every path has one"
                                 : "it has no rules";
    if (host->guards)
        return apr_psprintf(pool, "the pipeline takes %s",
                            APR_ARRAY_IDX(rp_guards_names(pool, host->guards), 0, const char *));
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

static int offers_http2(const server_rec *server)
{
    const core_server_config *core = ap_get_core_module_config(server->module_config);

    for (int i = 0; core->protocols && i < core->protocols->nelts; i++) {
        const char *name = APR_ARRAY_IDX(core->protocols, i, const char *);

        if (!strcmp(name, "h2") || !strcmp(name, "h2c"))
            return 1;
    }
    return 0;
}

const char *rp_eligible_http2_text(apr_pool_t *pool, const server_rec *server)
{
    const rp_eligible_server *decided = rp_server_config_of(server)->eligible;
    const char *others = ap_find_linked_module("mod_http2.c") ? "mod_http2" : "not offered";

    if (!offers_http2(server) || (!server->is_virtual && !decided->host.route_count))
        return NULL;
    if (decided->host.no_http2)
        return apr_psprintf(pool, "%s (%s)", others, decided->host.no_http2);
    if (!decided->near_no_http2)
        return "engine";
    if (decided->near_everywhere)
        return apr_psprintf(pool, "%s (%s)", others, decided->near_no_http2);
    return apr_psprintf(pool, "engine; on %s %s (%s)", decided->near_address, others,
                        decided->near_no_http2);
}

void rp_http2_tell(apr_pool_t *pool, const server_rec *server)
{
    const char *text = rp_eligible_http2_text(pool, server);
    const char *name = server->server_hostname;

    if (!text)
        return;
    if (!name)
        name = "a server without a name";
    if (!strcmp(text, "engine"))
        ap_log_error(APLOG_MARK, APLOG_INFO, 0, server,
                     "RP0313: the engine serves HTTP/2 clients of %s", name);
    else
        ap_log_error(APLOG_MARK, APLOG_INFO, 0, server, "RP0314: HTTP/2 clients of %s: %s", name,
                     text);
}
