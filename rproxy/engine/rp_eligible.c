/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The proof: what applies to the requests of each route, from what the configuration says. */
#include <string.h>
#include <apr_hash.h>
#include <apr_strings.h>
#include "ap_mpm.h"
#include "http_core.h"
#include "http_log.h"

#include "rproxy/engine/rp_eligible_private.h"

APLOG_USE_MODULE(rproxy);

/** All of it, for one reading of the configuration. */
typedef struct rp_proof {
    apr_pool_t *pool;
    rp_scope_context context;
    rp_log_facts log;
    const server_rec *main_server;
    rp_scope *main_scope;
    apr_array_header_t *servers;        /* rp_eligible_server *: those that are decided */
    apr_array_header_t *reasons;        /* const char *: of the whole process */
    int reqtimeout;                     /* mod_reqtimeout is loaded */
    int md;                             /* mod_md is loaded */
} rp_proof;

static rp_log_needs log_needs;
static int any_route;

/* ---- the process ----------------------------------------------------------------------------- */

static void add_reason(apr_array_header_t *reasons, const char *reason)
{
    APR_ARRAY_PUSH(reasons, const char *) = reason;
}

/** Why this httpd has no engine at all, or NULL. */
static const char *no_engine(void)
{
    int is_async = 0;

    if (ap_mpm_query(AP_MPMQ_IS_ASYNC, &is_async) != APR_SUCCESS || !is_async)
        return "the MPM is not event";
    if (ap_exists_config_define("DEBUG") || ap_exists_config_define("ONE_PROCESS"))
        return "httpd runs in a single process for debugging (-X)";
    return NULL;
}

static void read_modules(rp_proof *proof)
{
    for (module **loaded = ap_loaded_modules; *loaded; loaded++) {
        if (!rp_known_module(*loaded))
            add_reason(proof->reasons, apr_psprintf(proof->pool, "module %s is not known to be "
                                                    "neutral", (*loaded)->name));
        proof->reqtimeout |= !strcmp((*loaded)->name, "mod_reqtimeout.c");
        proof->md |= !strcmp((*loaded)->name, "mod_md.c");
    }
}

/** What mod_ssl puts into the environment, and logs show. */
static void read_variables(rp_proof *proof)
{
    for (int i = 0; i < proof->log.variables->nelts; i++) {
        const char *name = APR_ARRAY_IDX(proof->log.variables, i, const char *);

        if (!strncasecmp(name, "SSL_", 4) || !strcasecmp(name, "HTTPS"))
            add_reason(proof->reasons, apr_psprintf(proof->pool, "a log format shows %%{%s}e, "
                                                    "which the pipeline sets", name));
    }
}

/* ---- sections -------------------------------------------------------------------------------- */

/** Finds the configuration of each <Location>: httpd has them in the order of the file. Returns 0
 * if it doesn't fit. */
static int assign_sections(const rp_scope *scope, const apr_array_header_t *configs, int first,
                           int count)
{
    int found = 0;

    for (int i = 0; i < scope->sections->nelts; i++) {
        rp_section *section = &APR_ARRAY_IDX(scope->sections, i, rp_section);
        const core_dir_config *core;

        if (*section->directive->directive != '<')
            continue;
        if (found == count)
            return 0;
        section->per_dir = APR_ARRAY_IDX(configs, first + found, ap_conf_vector_t *);
        core = ap_get_core_module_config(section->per_dir);
        if (!core || strcmp(core->d, section->path) != 0)
            return 0;
        found++;
    }
    return found == count;
}

static const apr_array_header_t *configs_of(const server_rec *server)
{
    const core_server_config *core = ap_get_core_module_config(server->module_config);

    return core->sec_url;
}

/** The scope of a virtual host, or NULL: its section can't be told. */
static rp_scope *scope_of(const rp_proof *proof, const server_rec *server,
                          const ap_directive_t *section)
{
    int inherited = configs_of(proof->main_server)->nelts;
    rp_scope *scope;

    if (!section || !server->defn_name || strcmp(section->filename, server->defn_name) != 0
        || section->line_num != (int)server->defn_line_number)
        return NULL;
    scope = rp_scope_read(&proof->context, section->first_child);
    if (!assign_sections(scope, configs_of(server), inherited,
                         configs_of(server)->nelts - inherited))
        return NULL;
    return scope;
}

/* ---- one route ------------------------------------------------------------------------------- */

/** What is the same for all routes of a server while they are decided. */
typedef struct decision {
    const rp_proof *proof;
    rp_eligible_server *server;
    const apr_array_header_t *reasons;  /* const char *: of every route */
    const apr_array_header_t *header_rules; /* rp_header_rule: of every route */
    const apr_array_header_t *sections; /* const rp_section * */
    apr_hash_t *conditions;             /* name of a group -> its first rule with if= */
    const char **keys;                  /* of each route; "" of a regular expression's: its paths
                                         * may be anywhere */
    int has_regex;                      /* one of the routes is a regular expression's */
} decision;

/** What makes rules compete with each other: path or pattern. */
static const char *group_of(const decision *d, int index)
{
    const rp_route *route = d->server->host.routes[index].route;

    return route->pattern ? apr_pstrcat(d->proof->context.temp, "~", route->pattern, NULL)
                          : d->keys[index];
}

static int note_route(void *baton, const rp_route *route)
{
    decision *d = baton;
    int index = d->server->host.route_count++;

    d->server->host.routes[index].route = route;
    d->keys[index] = route->path ? rp_section_key(d->proof->context.temp, route) : "";
    d->has_regex |= route->pattern != NULL;
    if (route->condition_text) {
        const char *group = group_of(d, index);

        if (!apr_hash_get(d->conditions, group, APR_HASH_KEY_STRING))
            apr_hash_set(d->conditions, group, APR_HASH_KEY_STRING, route);
    }
    return 1;
}

static int count_route(void *baton, const rp_route *route)
{
    (void)route;
    ++*(int *)baton;
    return 1;
}

/** Merges the sections that cover the whole route as ap_location_walk() does: among each other in
 * the order written, then into what the server has outside of sections. */
static void merge_sections(const decision *d, int index, apr_array_header_t *reasons)
{
    apr_pool_t *pool = d->proof->pool;
    rp_engine_route *route = &d->server->host.routes[index];
    apr_array_header_t *rules = apr_array_copy(pool, d->header_rules);
    ap_conf_vector_t *merged = NULL;

    for (int i = 0; i < d->sections->nelts; i++) {
        const rp_section *section = APR_ARRAY_IDX(d->sections, i, const rp_section *);

        if (!rp_section_covers(section, d->keys[index]))
            continue;
        apr_array_cat(reasons, section->reasons);
        apr_array_cat(rules, section->header_rules);
        if (section->per_dir)
            merged = merged ? ap_merge_per_dir_configs(pool, merged, section->per_dir)
                            : section->per_dir;
    }
    route->per_dir = d->server->host.server->lookup_defaults;
    if (merged)
        route->per_dir = ap_merge_per_dir_configs(pool, route->per_dir, merged);
    route->header_rules = rp_header_rules_make(pool, (const rp_header_rule *)rules->elts,
                                               rules->nelts);
    route->dir = rp_dir_config_of(route->per_dir);
    rp_config_exchange_settings(route->dir, d->server->host.config, &route->settings);
}

static void decide_route(const decision *d, int index)
{
    apr_pool_t *pool = d->proof->pool;
    rp_engine_route *route = &d->server->host.routes[index];
    const rp_route *conditional = apr_hash_get(d->conditions, group_of(d, index),
                                               APR_HASH_KEY_STRING);
    apr_array_header_t *reasons = apr_array_copy(pool, d->reasons);

    route->reasons = reasons;
    if (!route->route->target) {
        add_reason(reasons, "it is not proxied");
        return;
    }
    if (conditional)
        add_reason(reasons, apr_psprintf(pool, "if=%s (%s:%d)", conditional->condition_text,
                                         conditional->file, conditional->line));
    merge_sections(d, index, reasons);
    d->server->any |= !reasons->nelts;
}

/* ---- guards ---------------------------------------------------------------------------------- */

/** Nonzero if the section is for a part of the requests of one of the engine's routes. */
static int section_guards(const decision *d, const rp_section *section)
{
    const rp_engine_host *host = &d->server->host;

    if (!section->reasons->nelts && !section->has_settings)
        return 0;
    for (int i = 0; i < host->route_count; i++) {
        if (!host->routes[i].reasons->nelts && !rp_section_covers(section, d->keys[i])
            && rp_section_is_below(section, d->keys[i]))
            return 1;
    }
    return 0;
}

/** Nonzero if all requests in the section belong to a route at or below its path, which has the
 * settings merged: there is a route of just this path. */
static int section_is_route(const decision *d, const rp_section *section)
{
    apr_size_t len = rp_section_bare_len(section);

    if (d->has_regex || section->regex || section->has_wildcards || section->reasons->nelts)
        return 0;
    for (int i = 0; i < d->server->host.route_count; i++) {
        if (!strncmp(d->keys[i], section->path, len) && !d->keys[i][len])
            return 1;
    }
    return 0;
}

/** <Location /app/> covers a route for /app but for /app itself. */
static int misses_own_path(const decision *d, const rp_section *section)
{
    const rp_engine_host *host = &d->server->host;
    apr_size_t len = rp_section_bare_len(section);

    if (!len || !section->path[len] || !section->has_settings)
        return 0;
    for (int i = 0; i < host->route_count; i++) {
        if (!host->routes[i].reasons->nelts && rp_section_covers(section, d->keys[i])
            && !d->keys[i][len])
            return 1;
    }
    return 0;
}

/** mod_md answers these before any hook of a route. */
static void add_md_guard(const rp_proof *proof, rp_engine_guards *guards)
{
    static const char *const paths[] = { "^/\\.well-known/acme-challenge/", "^/\\.httpd/", NULL };

    for (int i = 0; paths[i]; i++) {
        rp_guard guard = { .kind = RP_BY_URI };

        if (!rp_pattern_make(proof->pool, paths[i], 0, &guard.pattern))
            continue;
        guard.name = apr_psprintf(proof->pool, "%s (mod_md)", guard.pattern.literal);
        rp_guards_add(guards, &guard);
    }
}

static void add_request_guard(const rp_proof *proof, const rp_scope *own, rp_guard guard,
                              rp_engine_guards *guards)
{
    guard.http2 = rp_http2_of_request(proof->main_scope, own, &guard);
    rp_guards_add(guards, &guard);
}

static void make_guards(decision *d, const rp_scope *own)
{
    const rp_proof *proof = d->proof;
    rp_engine_guards *guards = rp_guards_make(proof->pool);

    for (int i = 0; i < d->sections->nelts; i++) {
        const rp_section *section = APR_ARRAY_IDX(d->sections, i, const rp_section *);

        if (section_guards(d, section) && !section_is_route(d, section))
            rp_guards_add_section(proof->pool, guards, section)->http2
                = rp_http2_of_section(d->sections, section);
        if (misses_own_path(d, section))
            rp_guards_add_bare(proof->pool, guards, section);
    }
    for (const rp_scope *scope = proof->main_scope; scope;
         scope = scope == own ? NULL : own) {
        for (int i = 0; i < scope->guards->nelts; i++)
            add_request_guard(proof, own, APR_ARRAY_IDX(scope->guards, i, rp_guard), guards);
    }
    if (proof->md)
        add_md_guard(proof, guards);
    if (rp_guards_count(guards))
        d->server->host.guards = guards;
}

/* ---- one server ------------------------------------------------------------------------------ */

static apr_size_t slot_of(const rp_eligible_server *server, const rp_route *route)
{
    apr_uint64_t hash = (apr_uint64_t)(apr_uintptr_t)route * APR_UINT64_C(0x9e3779b97f4a7c15);

    return (apr_size_t)(hash >> 32) & server->slot_mask;
}

/** Builds the index over the engine's routes. */
static void index_routes(apr_pool_t *pool, rp_eligible_server *server)
{
    apr_size_t size = 4;

    while (size < (apr_size_t)server->host.route_count * 2)
        size *= 2;
    server->slot_mask = size - 1;
    server->slots = apr_pcalloc(pool, size * sizeof(*server->slots));
    for (int i = 0; i < server->host.route_count; i++) {
        const rp_engine_route *route = &server->host.routes[i];
        apr_size_t slot = slot_of(server, route->route);

        while (server->slots[slot])
            slot = (slot + 1) & server->slot_mask;
        server->slots[slot] = route;
    }
}

static rp_read_limit limit_of(const rp_proof *proof, const rp_read_limit *own,
                              const rp_read_limit *inherited, rp_read_limit standard)
{
    static const rp_read_limit none;

    if (!proof->reqtimeout)
        return none;
    return own->first != RP_UNSET ? *own : inherited->first != RP_UNSET ? *inherited : standard;
}

/** What mod_reqtimeout, mod_ssl and the core have been told. */
static void read_values(const rp_proof *proof, const rp_scope *own, rp_engine_host *host)
{
    /* mod_reqtimeout's own defaults. */
    static const rp_read_limit head = { 20, 40, 500 }, body = { 20, 0, 500 };
    const core_server_config *core = ap_get_core_module_config(host->server->module_config);
    const rp_scope *inherited = proof->main_scope;

    host->head = limit_of(proof, &own->head, &inherited->head, head);
    host->body = limit_of(proof, &own->body, &inherited->body, body);
    host->merges_slashes = core->merge_slashes != AP_CORE_CONFIG_OFF;
    host->strict_sni = own->strict_sni > 0 || inherited->strict_sni > 0;
}

static const apr_array_header_t *sections_of(const rp_proof *proof, const rp_scope *own)
{
    apr_array_header_t *sections = apr_array_make(proof->context.temp, 8,
                                                  sizeof(const rp_section *));

    for (const rp_scope *scope = proof->main_scope; scope; scope = scope == own ? NULL : own) {
        for (int i = 0; i < scope->sections->nelts; i++)
            APR_ARRAY_PUSH(sections, const rp_section *)
                = &APR_ARRAY_IDX(scope->sections, i, rp_section);
    }
    return sections;
}

/** Why no route of the server is the engine's. */
static const apr_array_header_t *server_reasons(const rp_proof *proof, const server_rec *server,
                                                const rp_scope *own)
{
    apr_array_header_t *reasons = apr_array_make(proof->pool, 4, sizeof(const char *));
    const char *whole = no_engine();

    if (!whole && rp_server_config_of(server)->engine == RP_ENGINE_OFF)
        whole = "RProxyEngine off";
    if (whole) {
        add_reason(reasons, whole);
        return reasons;
    }
    apr_array_cat(reasons, proof->reasons);
    apr_array_cat(reasons, proof->main_scope->reasons);
    if (!own)
        add_reason(reasons, "its section can't be found in the configuration");
    else if (own != proof->main_scope)
        apr_array_cat(reasons, own->reasons);
    return reasons;
}

/** own: NULL if the server's directives can't be told. */
static void decide_server(const rp_proof *proof, server_rec *server, const rp_scope *own)
{
    rp_server_config *config = rp_server_config_of(server);
    rp_eligible_server *decided = apr_pcalloc(proof->pool, sizeof(*decided));
    decision d = { .proof = proof, .server = decided };
    int count = 0;

    d.reasons = server_reasons(proof, server, own);
    d.header_rules = proof->main_scope->header_rules;
    if (own && own != proof->main_scope)
        d.header_rules = apr_array_append(proof->context.temp, d.header_rules, own->header_rules);
    d.conditions = apr_hash_make(proof->context.temp);
    own = own ? own : proof->main_scope;
    d.sections = sections_of(proof, own);
    decided->host.server = server;
    decided->host.config = config;
    rp_route_table_each(config->routes, count_route, &count);
    decided->host.routes = apr_pcalloc(proof->pool, (apr_size_t)(count + 1)
                                                    * sizeof(*decided->host.routes));
    d.keys = apr_pcalloc(proof->context.temp, (apr_size_t)(count + 1) * sizeof(*d.keys));
    rp_route_table_each(config->routes, note_route, &d);
    for (int i = 0; i < count; i++)
        decide_route(&d, i);
    index_routes(proof->pool, decided);
    if (decided->any) {
        read_values(proof, own, &decided->host);
        make_guards(&d, own);
        any_route = 1;
    }
    decided->host.no_http2 = rp_http2_obstacle(proof->pool, &decided->host, proof->main_scope, own,
                                               &proof->log);
    APR_ARRAY_PUSH(proof->servers, rp_eligible_server *) = decided;
    config->eligible = decided;
}

/* ---- RProxyEngine on ------------------------------------------------------------------------- */

static const char *route_text(apr_pool_t *pool, const rp_route *route)
{
    return apr_psprintf(pool, "%s%s -> %s (%s:%d)", route->pattern ? "regex " : "",
                        route->pattern ? route->pattern : route->path, route->target->text,
                        route->file, route->line);
}

static const char *joined(apr_pool_t *pool, const apr_array_header_t *reasons)
{
    const char *text = APR_ARRAY_IDX(reasons, 0, const char *);

    for (int i = 1; i < reasons->nelts; i++)
        text = apr_pstrcat(pool, text, "; ", APR_ARRAY_IDX(reasons, i, const char *), NULL);
    return text;
}

/** Nonzero if no route is the engine's in vain. */
static int check_insisted(apr_pool_t *pool, const server_rec *server)
{
    const rp_server_config *config = rp_server_config_of(server);
    const rp_engine_host *host = &config->eligible->host;
    int fine = 1;

    for (int i = 0; config->engine == RP_ENGINE_ON && i < host->route_count; i++) {
        const rp_engine_route *route = &host->routes[i];

        if (!route->reasons->nelts || !route->route->target)
            continue;
        ap_log_error(APLOG_MARK, APLOG_STARTUP | APLOG_EMERG, 0, NULL, "RP0310: RProxyEngine on, "
                     "but only the pipeline can serve %s because of: %s; remove these, or write "
                     "RProxyEngine auto", route_text(pool, route->route),
                     joined(pool, route->reasons));
        fine = 0;
    }
    return fine;
}

/* ---- the proof ------------------------------------------------------------------------------- */

static void read_main(rp_proof *proof)
{
    const apr_array_header_t *configs = configs_of(proof->main_server);

    rp_log_facts_read(proof->pool, ap_conftree, &proof->log);
    log_needs = proof->log.needs;
    read_modules(proof);
    read_variables(proof);
    proof->main_scope = rp_scope_read(&proof->context, ap_conftree);
    if (!assign_sections(proof->main_scope, configs, 0, configs->nelts))
        add_reason(proof->reasons, "the sections of the main server can't be told");
}

int rp_eligible_decide(apr_pool_t *pconf, apr_pool_t *ptemp, server_rec *main_server)
{
    rp_proof proof = { .pool = pconf, .main_server = main_server };
    int fine = 1, index;

    any_route = 0;
    proof.context = (rp_scope_context){ pconf, ptemp, apr_hash_make(ptemp), &proof.log };
    proof.reasons = apr_array_make(pconf, 4, sizeof(const char *));
    proof.servers = apr_array_make(ptemp, 8, sizeof(rp_eligible_server *));
    read_main(&proof);
    decide_server(&proof, main_server, proof.main_scope);
    /* httpd links virtual hosts in the reverse order. */
    index = proof.main_scope->hosts->nelts;
    for (server_rec *server = main_server->next; server; server = server->next) {
        const ap_directive_t *section = --index < 0
            ? NULL : APR_ARRAY_IDX(proof.main_scope->hosts, index, const ap_directive_t *);

        decide_server(&proof, server, scope_of(&proof, server, section));
    }
    rp_http2_compare(pconf, proof.servers);
    for (const server_rec *server = main_server; server; server = server->next)
        fine &= check_insisted(ptemp, server);
    return fine ? OK : HTTP_INTERNAL_SERVER_ERROR;
}

static void tell_route(apr_pool_t *pool, const server_rec *server, const rp_engine_route *route)
{
    const char *text = route_text(pool, route->route);

    if (!route->reasons->nelts)
        ap_log_error(APLOG_MARK, APLOG_INFO, 0, server, "RP0311: the engine serves %s", text);
    else
        ap_log_error(APLOG_MARK, APLOG_INFO, 0, server, "RP0312: the pipeline serves %s because "
                     "of: %s", text, joined(pool, route->reasons));
}

int rp_eligible_tell(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                     server_rec *main_server)
{
    (void)pconf;
    (void)plog;
    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG)
        return OK;
    for (const server_rec *server = main_server; server; server = server->next) {
        const rp_engine_host *host = &rp_server_config_of(server)->eligible->host;

        for (int i = 0; i < host->route_count; i++) {
            if (host->routes[i].route->target)
                tell_route(ptemp, server, &host->routes[i]);
        }
        rp_http2_tell(ptemp, server);
    }
    return OK;
}

/* ---- reading it ------------------------------------------------------------------------------ */

int rp_eligible_any(void)
{
    return any_route;
}

const rp_log_needs *rp_eligible_log_needs(void)
{
    return &log_needs;
}

const rp_engine_host *rp_eligible_host(const server_rec *server)
{
    const rp_eligible_server *decided = rp_server_config_of(server)->eligible;

    return decided && decided->any ? &decided->host : NULL;
}

static const rp_engine_route *find_route(const rp_eligible_server *server, const rp_route *route)
{
    const rp_engine_route *found;

    for (apr_size_t slot = slot_of(server, route); (found = server->slots[slot]);
         slot = (slot + 1) & server->slot_mask) {
        if (found->route == route)
            return found;
    }
    return NULL;
}

const rp_engine_route *rp_eligible_route(const rp_engine_host *host, const rp_route *route)
{
    const rp_engine_route *found = find_route((const rp_eligible_server *)host, route);

    return found && !found->reasons->nelts ? found : NULL;
}

const apr_array_header_t *rp_eligible_reasons(const server_rec *server, const rp_route *route)
{
    return find_route(rp_server_config_of(server)->eligible, route)->reasons;
}

const apr_array_header_t *rp_eligible_guards(apr_pool_t *pool, const server_rec *server)
{
    const rp_engine_host *host = rp_eligible_host(server);

    return host && host->guards ? rp_guards_names(pool, host->guards)
                                : apr_array_make(pool, 1, sizeof(const char *));
}
