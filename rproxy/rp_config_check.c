/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The end of the configuration: what only the whole of it can tell. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include "ap_mpm.h"
#include "http_core.h"
#include "http_log.h"

#include "rproxy/rp_config_private.h"
#include "rproxy/engine/rp_eligible.h"
#include "rproxy/pipeline/rp_pipeline.h"

APLOG_USE_MODULE(rproxy);

/* ---- Via ------------------------------------------------------------------------------------- */

/** Nonzero if name may stand in Via as a pseudonym or host (RFC 9110 section 7.6.3). */
static int is_via_name(const char *name)
{
    int bracket = *name == '[';
    apr_size_t len = strlen(name);

    if (bracket)
        return len > 3 && name[len - 1] == ']'
               && strspn(name + 1, "0123456789abcdefABCDEF:.") == len - 2;
    for (const char *p = name; *p; p++) {
        if (!apr_isalnum(*p) && !strchr("!#$%&'*+-.^_`|~", *p))
            return 0;
    }
    return len > 0;
}

static const char *via_of(apr_pool_t *pool, const server_rec *server)
{
    const char *name = server->server_hostname;

    return apr_pstrcat(pool, "1.1 ", name && is_via_name(name) ? name : "httpd", NULL);
}

/* ---- check_config ---------------------------------------------------------------------------- */

/** @param id  "RP0301: ", or "" for a message with an id of its own */
static int refuse(const char *id, const char *message)
{
    ap_log_error(APLOG_MARK, APLOG_STARTUP | APLOG_EMERG, 0, NULL, "%s%s", id, message);
    return HTTP_INTERNAL_SERVER_ERROR;
}

/** Gives a virtual host without any directive of ours, which shares the main server's object, its
 * own; the routes stay shared. */
static rp_server_config *own_config(apr_pool_t *pool, server_rec *server,
                                    const server_rec *main_server)
{
    rp_server_config *config = rp_server_config_of(server);

    if (server != main_server && config == rp_server_config_of(main_server)) {
        config = apr_pmemdup(pool, config, sizeof(*config));
        ap_set_module_config(server->module_config, &rproxy_module, config);
    }
    return config;
}

static const char *check_tls(apr_pool_t *pool)
{
    const apr_array_header_t *written = rp_config_written_get()->tls;
    const char *message = rp_tls_finish(pool, NULL);

    for (int i = 0; i < written->nelts && !message; i++) {
        rp_tls *tls = APR_ARRAY_IDX(written, i, rp_tls *);

        if ((message = rp_tls_finish(pool, tls)))
            message = apr_psprintf(pool, "%s (%s:%d)", message, tls->file, tls->line);
    }
    return message;
}

/** CPUs that this process may run on. */
static int cpus(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return count < 1 ? 1 : count > RP_ENGINE_THREADS_MAX ? RP_ENGINE_THREADS_MAX : count;
}

int rp_config_check(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *main_server)
{
    const rp_route_table *main_routes = rp_server_config_of(main_server)->routes;
    const char *message;

    (void)plog;
    if (!rp_server_config_of(main_server)->engine_threads)
        rp_server_config_of(main_server)->engine_threads = cpus();
    for (server_rec *server = main_server; server; server = server->next) {
        rp_server_config *config = own_config(pconf, server, main_server);

        config->via = via_of(pconf, server);
        if (config->encoded_slashes == RP_UNSET)
            config->encoded_slashes = RP_SLASHES_PASS;
        if (config->engine == RP_UNSET)
            config->engine = RP_ENGINE_AUTO;
        if (server != main_server && config->routes == main_routes)
            continue;
        if ((message = rp_route_table_finish(pconf, config->routes)))
            return refuse("RP0301: ", message);
    }
    if ((message = rp_config_check_pools(pconf, main_server)))
        return refuse("RP0301: ", message);
    message = check_tls(pconf);
    return message ? refuse("", message) : rp_eligible_decide(pconf, ptemp, main_server);
}

/* ---- how much a child takes ------------------------------------------------------------------ */

#define FACTOR_DEFAULT 2
#define CAPACITY_WANTED 1000

/** AsyncRequestWorkerFactor as the event MPM uses it: a whole number, at least 1. */
static int worker_factor(void)
{
    double factor = FACTOR_DEFAULT;

    for (const ap_directive_t *directive = ap_conftree; directive; directive = directive->next) {
        if (!strcasecmp(directive->directive, "AsyncRequestWorkerFactor"))
            factor = strtod(directive->args + strspn(directive->args, " \t\"'"), NULL);
    }
    return factor < 1 ? 1 : factor > 1e6 ? 1000000 : (int)factor;
}

int rp_config_capacity(int *threads, int *factor)
{
    int found_threads = 0, found_factor = worker_factor();

    if (!rp_pipeline_can_park(NULL)
        || ap_mpm_query(AP_MPMQ_MAX_THREADS, &found_threads) != APR_SUCCESS || found_threads < 1)
        return 0;
    if (threads)
        *threads = found_threads;
    if (factor)
        *factor = found_factor;
    return found_threads + found_threads * found_factor;
}

static int has_rules(const server_rec *main_server)
{
    for (const server_rec *server = main_server; server; server = server->next) {
        const rp_server_config *config = rp_server_config_of(server);

        if (!rp_route_table_is_empty(config->routes) || config->allowed_targets)
            return 1;
    }
    return rp_config_written_get()->sections->nelts > 0;
}

int rp_config_tell_capacity(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                            server_rec *main_server)
{
    int threads, factor, capacity;
    const char *advice = "";

    (void)pconf;
    (void)plog;
    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG || !has_rules(main_server)
        || !(capacity = rp_config_capacity(&threads, &factor)))
        return OK;
    if (capacity < CAPACITY_WANTED)
        advice = apr_psprintf(ptemp, "; set AsyncRequestWorkerFactor %d if it shall take %d",
                              (CAPACITY_WANTED - threads + threads - 1) / threads, CAPACITY_WANTED);
    ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, main_server,
                 "RP0302: a child takes connections, those with parked requests included, up to "
                 "ThreadsPerChild + AsyncRequestWorkerFactor x idle threads: %d + %d x %d = %d "
                 "while all are idle%s", threads, factor, threads, capacity, advice);
    return OK;
}

/* ---- child_init ------------------------------------------------------------------------------ */

static int prefetch(void *baton, const rp_route *route)
{
    (void)baton;
    if (route->target && route->target->scheme != RP_SCHEME_BALANCER)
        rp_upstream_prefetch(route->target);
    return 1;
}

void rp_config_prefetch(const server_rec *main_server)
{
    const rp_route_table *main_routes = rp_server_config_of(main_server)->routes;

    for (const server_rec *server = main_server; server; server = server->next) {
        const rp_route_table *routes = rp_server_config_of(server)->routes;

        if (server == main_server || routes != main_routes)
            rp_route_table_each(routes, prefetch, NULL);
    }
}
