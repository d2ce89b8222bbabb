/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <stdio.h>
#include <string.h>
#include <apr_strings.h>
#include "http_core.h"
#include "ap_mpm.h"

#include "rproxy/rp_explain.h"
#include "rproxy/rp_config_private.h"
#include "rproxy/engine/rp_eligible.h"
#include "rproxy/pipeline/rp_pipeline.h"

/** What is printed where. */
typedef struct explanation {
    apr_pool_t *pool;
    const char *lane;                   /* of the pipeline: "pipeline lane, parked" */
    const server_rec *server;
    int inherited;                      /* the server has none but the main server's rules */
    int number;                         /* of the rule */
} explanation;

/* ---- rules ----------------------------------------------------------------------------------- */

/** Which lane serves the route's requests, and why not the engine. */
static const char *lane_of(const explanation *e, const rp_route *route)
{
    const apr_array_header_t *reasons = rp_eligible_reasons(e->server, route);
    const char *more = "";

    if (!reasons->nelts)
        return "engine lane";
    if (reasons->nelts > 1)
        more = apr_psprintf(e->pool, " and %d more", reasons->nelts - 1);
    return apr_psprintf(e->pool, "%s; not the engine: %s%s", e->lane,
                        APR_ARRAY_IDX(reasons, 0, const char *), more);
}

/** Who serves HTTP/2, where it is offered. */
static void print_http2(const explanation *e)
{
    const char *text = rp_eligible_http2_text(e->pool, e->server);

    if (text)
        printf("  HTTP/2: %s\n", text);
}

/** What of the engine's routes the pipeline takes all the same. */
static void print_guards(const explanation *e)
{
    const apr_array_header_t *guards = rp_eligible_guards(e->pool, e->server);

    for (int i = 0; i < guards->nelts; i++)
        printf("%s%s%s", i ? ", " : "  the pipeline takes: ",
               APR_ARRAY_IDX(guards, i, const char *), i + 1 < guards->nelts ? "" : "\n");
}

static int print_route(void *baton, const rp_route *route)
{
    explanation *e = baton;

    printf("  %d. %s", ++e->number, route->path ? route->path : "");
    if (route->pattern)
        printf("regex %s", route->pattern);
    if (!route->target)
        printf(" is not proxied");
    else
        printf(" -> %s", route->target->text);
    if (route->condition_text)
        printf(", if %s", route->condition_text);
    if (route->weighted)
        printf(", weight %d", route->weight);
    if (route->target)
        printf("; %s", lane_of(e, route));
    printf(" (%s:%d%s)\n", route->file, route->line,
           route->inherited || e->inherited ? ", from the main server" : "");
    return 1;
}

/** Rules in sections: whether one takes a request is known when its sections are. */
static void print_sections(const explanation *e, const server_rec *server)
{
    const apr_array_header_t *sections = rp_config_written_get()->sections;
    int any = 0;

    for (int i = 0; i < sections->nelts; i++) {
        const rp_config_section_rule *noted = &APR_ARRAY_IDX(sections, i, rp_config_section_rule);
        const rp_local_rule *rule = noted->rule;

        if (noted->server != server)
            continue;
        if (!any++)
            printf("  in sections, where they apply before the rules above:\n");
        printf("  - %s: %s", noted->section, rule->path ? rule->path : rule->directory);
        if (!rule->address)
            printf(" is not proxied");
        else
            printf(" -> %s; %s", rule->target, e->lane);
        printf(" (%s:%d)\n", rule->file, rule->line);
    }
}

/* ---- settings -------------------------------------------------------------------------------- */

static const char *timeouts_text(apr_pool_t *pool, rp_timeouts *effective, rp_timeouts *standard)
{
    const char *text = "";

    for (int i = 0; i < RP_TIMEOUT_KEYS; i++) {
        apr_interval_time_t time = *rp_timeout_at(effective, i);

        if (time != *rp_timeout_at(standard, i))
            text = apr_psprintf(pool, "%s %s=%s", text, rp_timeout_names[i],
                                rp_argument_time_text(pool, time));
    }
    return text;
}

static const char *retry_text(apr_pool_t *pool, const rp_retry *retry)
{
    const char *on = retry->on & RP_RETRY_ERROR ? ",error" : "";

    if (retry->on & RP_RETRY_TIMEOUT)
        on = apr_pstrcat(pool, on, ",timeout", NULL);
    for (int i = 0; i < RP_RETRY_STATUS_MAX && retry->statuses[i]; i++)
        on = apr_psprintf(pool, "%s,%d", on, retry->statuses[i]);
    if (!*on)
        return " on=off";
    return apr_psprintf(pool, " tries=%d on=%s methods=%s", retry->tries, on + 1,
                        retry->any_method ? "all" : "idempotent");
}

static const char *keepalive_text(apr_pool_t *pool, const rp_keepalive *keepalive)
{
    return apr_psprintf(pool, " max=%d idle=%s requests=%d age=%s", keepalive->max,
                        rp_argument_time_text(pool, keepalive->idle), keepalive->requests,
                        rp_argument_time_text(pool, keepalive->age));
}

static const char *override_text(apr_pool_t *pool, const rp_error_override *override)
{
    const char *text = "";

    for (int i = 0; override->statuses && i < override->statuses->nelts; i++)
        text = apr_psprintf(pool, "%s %d", text, APR_ARRAY_IDX(override->statuses, i, int));
    return override->all ? " on" : text;
}

static void print_setting(const char *directive, const char *arguments)
{
    if (*arguments)
        printf("  setting: %s%s\n", directive, arguments);
}

/** The server's settings outside of sections, where they aren't the default. */
static void print_settings(const explanation *e, const server_rec *server)
{
    static const char *const slashes[] = { "", " decode", " reject" };
    static const char *const upgrades[] = { "", " any", " off" };
    static const char *const forwarded[] = { " off", "", " rfc7239", " both" };
    const rp_dir_config *dir = rp_dir_config_of(server->lookup_defaults);
    const rp_server_config *config = rp_server_config_of(server);
    const rp_dir_config *empty = rp_config_create_dir(e->pool, NULL);
    rp_exchange_settings effective, standard;

    dir = dir ? dir : empty;
    rp_config_exchange_settings(dir, config, &effective);
    rp_config_exchange_settings(empty, config, &standard);
    print_setting("RProxyTimeout", timeouts_text(e->pool, &effective.timeouts, &standard.timeouts));
    if (dir->retry)
        print_setting("RProxyRetry", retry_text(e->pool, dir->retry));
    if (dir->keepalive)
        print_setting("RProxyKeepAlive", keepalive_text(e->pool, dir->keepalive));
    if (dir->tls)
        print_setting("RProxyTLS",
                      apr_psprintf(e->pool, " of %s:%d%s", dir->tls->file, dir->tls->line,
                                   dir->tls->verify ? "" : ", certificates unverified"));
    if (dir->error_override)
        print_setting("RProxyErrorOverride", override_text(e->pool, dir->error_override));
    print_setting("RProxyUpgrade", upgrades[effective.upgrade]);
    print_setting("RProxyForwarded", forwarded[effective.forwarded]);
    print_setting("RProxyPreserveHost", effective.preserve_host ? "" : " off");
    print_setting("RProxyIgnoreClientAbort", effective.ignore_client_abort ? " on" : "");
    print_setting("RProxyEncodedSlashes", slashes[config->encoded_slashes]);
    for (int i = 0; config->allowed_targets && i < config->allowed_targets->nelts; i++)
        print_setting("RProxyAllowTarget",
                      apr_pstrcat(e->pool, " ", APR_ARRAY_IDX(config->allowed_targets, i,
                                                              rp_target *)->text, NULL));
}

/* ---- servers --------------------------------------------------------------------------------- */

static void print_server(explanation *e, const server_rec *server, const server_rec *main_server)
{
    const rp_server_config *config = rp_server_config_of(server);
    const char *last = "";

    printf("%s %s", server->is_virtual ? "virtual host" : "main server",
           server->server_hostname ? server->server_hostname : "without a name");
    for (const server_addr_rec *address = server->is_virtual ? server->addrs : NULL; address;
         address = address->next) {
        const char *text = address->host_port
                           ? apr_psprintf(e->pool, "%s:%d", address->virthost, address->host_port)
                           : apr_pstrcat(e->pool, address->virthost, ":*", NULL);

        /* "*" and names stand for several addresses, which follow each other. */
        if (strcmp(text, last) != 0)
            printf("%s%s", *last ? ", " : " on ", text);
        last = text;
    }
    if (server->defn_name)
        printf(" (%s:%u)", server->defn_name, server->defn_line_number);
    printf("\n");
    e->number = 0;
    e->server = server;
    e->inherited = server != main_server
                   && config->routes == rp_server_config_of(main_server)->routes;
    if (rp_route_table_is_empty(config->routes))
        printf("  no rules\n");
    rp_route_table_each(config->routes, print_route, e);
    print_guards(e);
    print_http2(e);
    print_sections(e, server);
    print_settings(e, server);
}

void rp_explain(apr_pool_t *pool, server_rec *main_server)
{
    explanation e = { .pool = pool, .lane = "pipeline lane, parked" };
    apr_array_header_t *servers = apr_array_make(pool, 8, sizeof(server_rec *));
    int threads, factor, capacity;
    const char *why = "";

    if (!ap_exists_config_define("RPROXY_EXPLAIN"))
        return;
    if (!rp_pipeline_can_park(&why))
        e.lane = apr_psprintf(pool, "pipeline lane, blocking: %s", why);
    /* httpd links virtual hosts in the reverse order. */
    for (server_rec *server = main_server->next; server; server = server->next)
        APR_ARRAY_PUSH(servers, server_rec *) = server;
    printf("mod_rproxy: the rules of each server in the order in which they are tried\n");
    print_server(&e, main_server, main_server);
    for (int i = servers->nelts; i-- > 0;)
        print_server(&e, APR_ARRAY_IDX(servers, i, server_rec *), main_server);
    if ((capacity = rp_config_capacity(&threads, &factor)))
        printf("a child takes up to %d + %d x %d = %d connections (ThreadsPerChild + "
               "AsyncRequestWorkerFactor x idle threads)\n", threads, factor, threads, capacity);
    fflush(stdout);
}
