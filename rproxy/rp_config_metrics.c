/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Metrics: RProxyMetricsListen, and which counters are a rule's. */
#include <apr_strings.h>
#include "ap_mpm.h"
#include "http_core.h"
#include "http_log.h"

#include "rproxy/rp_config_private.h"
#include "rproxy/metrics/rp_metrics_rows.h"
#include "rproxy/pipeline/rp_metrics_page.h"

APLOG_USE_MODULE(rproxy);

/** Of what has no row of its own. */
#define OTHERS "(other)"

const char *rp_config_metrics_listen(cmd_parms *cmd, void *dir, const char *text)
{
    rp_metrics_address *address = apr_pcalloc(cmd->pool, sizeof(*address));
    const char *message = rp_config_guard(cmd, RP_GUARD_SERVER | RP_GUARD_ONCE);

    (void)dir;
    if (!message && cmd->server->is_virtual)
        message = "RProxyMetricsListen serves all virtual hosts; move it out of <VirtualHost>";
    if (!message)
        message = rp_metrics_address_parse(cmd->pool, text, address);
    rp_server_config_of(cmd->server)->metrics = address;
    return message;
}

/* ---- rows ------------------------------------------------------------------------------------ */

typedef struct numbering {
    apr_pool_t *pool, *temp_pool;
    const char *server;
    apr_array_header_t *routes;         /* rp_metrics_route */
    int left_over;                      /* rules for which there was no room */
} numbering;

static int add_row(numbering *n, const char *route, const char *target)
{
    int is_new, row;

    row = rp_metrics_row_claim(apr_pstrcat(n->temp_pool, n->server, "\n", route, "\n", target,
                                           NULL), &is_new);
    n->left_over += !row;
    if (is_new)
        APR_ARRAY_PUSH(n->routes, rp_metrics_route) = (rp_metrics_route){
            row, n->server, route, target
        };
    return row;
}

/** Rules that differ in conditions or weights only are one on the page. */
static int row_of(void *baton, const rp_route *route)
{
    numbering *n = baton;

    if (!route->target)
        return 0;
    return add_row(n, route->path ? route->path : apr_pstrcat(n->pool, "~ ", route->pattern, NULL),
                   route->target->text);
}

static int count_rule(void *baton, const rp_route *route)
{
    (void)route;
    ++*(int *)baton;
    return 1;
}

static const char *name_of(apr_pool_t *pool, const server_rec *server)
{
    const char *name = server->server_hostname ? server->server_hostname : "";
    int port = server->is_virtual && server->addrs ? server->addrs->host_port : server->port;

    return port ? apr_psprintf(pool, "%s:%d", name, port) : name;
}

/** Nonzero if the server's rules aren't those of the main server. */
static int has_own_rules(const server_rec *server, const server_rec *main_server)
{
    return server == main_server
        || rp_server_config_of(server)->routes != rp_server_config_of(main_server)->routes;
}

static int rule_count(const server_rec *main_server)
{
    int count = rp_config_written_get()->sections->nelts;

    for (const server_rec *server = main_server; server; server = server->next) {
        if (has_own_rules(server, main_server))
            rp_route_table_each(rp_server_config_of(server)->routes, count_rule, &count);
    }
    return count;
}

static void number_rules(numbering *n, const server_rec *main_server)
{
    const apr_array_header_t *sections = rp_config_written_get()->sections;

    APR_ARRAY_PUSH(n->routes, rp_metrics_route) = (rp_metrics_route){ 0, "", OTHERS, "" };
    for (const server_rec *server = main_server; server; server = server->next) {
        if (!has_own_rules(server, main_server))
            continue;
        n->server = name_of(n->pool, server);
        rp_route_table_number(rp_server_config_of(server)->routes, row_of, n);
    }
    for (int i = 0; i < sections->nelts; i++) {
        rp_config_section_rule *noted = &APR_ARRAY_IDX(sections, i, rp_config_section_rule);

        if (!noted->rule->address)
            continue;
        n->server = name_of(n->pool, noted->server);
        noted->rule->row = add_row(n, noted->section, noted->rule->target);
    }
}

/* ---- hooks ----------------------------------------------------------------------------------- */

int rp_config_prepare_metrics(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                              server_rec *main_server)
{
    const rp_metrics_address *address = rp_server_config_of(main_server)->metrics;
    numbering n = { .pool = pconf, .temp_pool = ptemp };
    int children = 0;
    apr_status_t rv;

    (void)plog;
    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG)
        return OK;
    rv = rp_metrics_listen_open(main_server->process->pool, address);
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, main_server, "RP0440: RProxyMetricsListen can't "
                     "listen on %s: choose another address or port, or stop what listens there",
                     address->text);
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    ap_mpm_query(AP_MPMQ_HARD_LIMIT_DAEMONS, &children);
    rv = rp_metrics_rows_open(main_server->process->pool, ptemp, rule_count(main_server), children);
    if (rv != APR_SUCCESS)
        ap_log_error(APLOG_MARK, APLOG_WARNING, rv, main_server, "RP0441: no shared memory for the "
                     "counters of rules, rproxy-metrics will show none: raise the limits of shared "
                     "memory, or lower ServerLimit");
    n.routes = apr_array_make(pconf, 16, sizeof(rp_metrics_route));
    number_rules(&n, main_server);
    if (rv == APR_SUCCESS && n.left_over)
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, main_server, "RP0442: there is no room for the "
                     "counters of %d rules, which rproxy-metrics shows together as %s: stop and "
                     "start the server", n.left_over, OTHERS);
    rp_metrics_page_prepare(pconf, n.routes);
    return OK;
}

void rp_config_start_metrics(apr_pool_t *pool, server_rec *main_server)
{
    apr_status_t rv;

    rp_metrics_rows_enter(pool);
    rv = rp_metrics_listen_start(pool, rp_metrics_page_write);
    if (rv != APR_SUCCESS)
        ap_log_error(APLOG_MARK, APLOG_ERR, rv, main_server, "RP0443: this child can't serve "
                     "RProxyMetricsListen: raise the limits of threads and descriptors");
}
