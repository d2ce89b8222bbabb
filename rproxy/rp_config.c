/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Configuration objects: made, merged, and read by the lanes. */
#include <stddef.h>
#include <strings.h>
#include <apr_strings.h>

#include "rproxy/rp_config_private.h"

/* ---- timeouts as a list ---------------------------------------------------------------------- */

const char *const rp_timeout_names[RP_TIMEOUT_KEYS + 1] = {
    "connect", "first-byte", "idle", "total", "tunnel", "drain", NULL
};

static const struct timeout_key {
    apr_size_t offset;
    apr_interval_time_t standard;
} timeout_keys[RP_TIMEOUT_KEYS] = {
    { offsetof(rp_timeouts, connect), apr_time_from_sec(5) },
    { offsetof(rp_timeouts, first_byte), apr_time_from_sec(60) },
    { offsetof(rp_timeouts, idle), apr_time_from_sec(60) },
    { offsetof(rp_timeouts, total), 0 },
    { offsetof(rp_timeouts, tunnel), apr_time_from_sec(3600) },
    { offsetof(rp_timeouts, drain), apr_time_from_sec(30) },
};

apr_interval_time_t *rp_timeout_at(rp_timeouts *timeouts, int key)
{
    return (apr_interval_time_t *)((char *)timeouts + timeout_keys[key].offset);
}

/* ---- what was written ------------------------------------------------------------------------ */

static rp_config_written *written;

static apr_status_t forget_written(void *unused)
{
    (void)unused;
    written = NULL;
    return APR_SUCCESS;
}

int rp_config_begin(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    (void)plog;
    (void)ptemp;
    written = apr_pcalloc(pconf, sizeof(*written));
    written->tls = apr_array_make(pconf, 4, sizeof(rp_tls *));
    written->sections = apr_array_make(pconf, 4, sizeof(rp_config_section_rule));
    apr_pool_cleanup_register(pconf, NULL, forget_written, apr_pool_cleanup_null);
    return OK;
}

rp_config_written *rp_config_written_get(void)
{
    return written;
}

/* ---- sections -------------------------------------------------------------------------------- */

void *rp_config_create_dir(apr_pool_t *pool, char *path)
{
    rp_dir_config *dir = apr_pcalloc(pool, sizeof(*dir));

    (void)path;
    for (int i = 0; i < RP_TIMEOUT_KEYS; i++)
        *rp_timeout_at(&dir->timeouts, i) = RP_UNSET;
    dir->upgrade = RP_UNSET;
    dir->forwarded = RP_UNSET;
    dir->preserve_host = RP_UNSET;
    dir->ignore_client_abort = RP_UNSET;
    return dir;
}

static const rp_retry *merge_retry(apr_pool_t *pool, const rp_retry *base, const rp_retry *add)
{
    const rp_retry_setting *from = (const rp_retry_setting *)add;
    rp_retry_setting *merged;

    if (!base || !add)
        return add ? add : base;
    merged = apr_pmemdup(pool, base, sizeof(*merged));
    merged->written |= from->written;
    rp_retry_put(&merged->values, from);
    return &merged->values;
}

static const rp_keepalive *merge_keepalive(apr_pool_t *pool, const rp_keepalive *base,
                                           const rp_keepalive *add)
{
    const rp_keepalive_setting *from = (const rp_keepalive_setting *)add;
    rp_keepalive_setting *merged;

    if (!base || !add)
        return add ? add : base;
    merged = apr_pmemdup(pool, base, sizeof(*merged));
    merged->written |= from->written;
    rp_keepalive_put(&merged->values, from);
    return &merged->values;
}

static const apr_array_header_t *join(apr_pool_t *pool, const apr_array_header_t *first,
                                      const apr_array_header_t *second)
{
    if (!first || !second)
        return first ? first : second;
    return apr_array_append(pool, first, second);
}

/** Runs for each request in which sections meet. */
void *rp_config_merge_dir(apr_pool_t *pool, void *base_config, void *add_config)
{
    rp_dir_config *base = base_config, *add = add_config;
    rp_dir_config *merged = apr_pmemdup(pool, base, sizeof(*base));

    for (int i = 0; i < RP_TIMEOUT_KEYS; i++) {
        apr_interval_time_t time = *rp_timeout_at(&add->timeouts, i);

        if (time != RP_UNSET)
            *rp_timeout_at(&merged->timeouts, i) = time;
    }
    merged->retry = merge_retry(pool, base->retry, add->retry);
    merged->keepalive = merge_keepalive(pool, base->keepalive, add->keepalive);
    if (add->tls)
        merged->tls = add->tls;
    if (add->error_override)
        merged->error_override = add->error_override;
    if (add->rule)
        merged->rule = add->rule;
    /* Rewrites are applied in turn, from the general to the special; of the others the first that
     * matches decides, so the special come first. */
    merged->rewrites = join(pool, base->rewrites, add->rewrites);
    merged->reverse_rules = join(pool, add->reverse_rules, base->reverse_rules);
    merged->cookie_domains = join(pool, add->cookie_domains, base->cookie_domains);
    merged->cookie_paths = join(pool, add->cookie_paths, base->cookie_paths);
    if (add->upgrade != RP_UNSET)
        merged->upgrade = add->upgrade;
    if (add->forwarded != RP_UNSET)
        merged->forwarded = add->forwarded;
    if (add->preserve_host != RP_UNSET)
        merged->preserve_host = add->preserve_host;
    if (add->ignore_client_abort != RP_UNSET)
        merged->ignore_client_abort = add->ignore_client_abort;
    return merged;
}

/* ---- servers --------------------------------------------------------------------------------- */

void *rp_config_create_server(apr_pool_t *pool, server_rec *server)
{
    rp_server_config *config = apr_pcalloc(pool, sizeof(*config));

    (void)server;
    config->routes = rp_route_table_make(pool);
    config->encoded_slashes = RP_UNSET;
    config->engine = RP_UNSET;
    config->resolver.min_ttl = apr_time_from_sec(1);
    config->resolver.max_ttl = apr_time_from_sec(3600);
    config->resolver.timeout = apr_time_from_sec(5);
    return config;
}

/** Lists of a virtual host replace those of the main server: it can allow or trust less, too. */
void *rp_config_merge_server(apr_pool_t *pool, void *base_config, void *add_config)
{
    const rp_server_config *base = base_config, *add = add_config;
    rp_server_config *merged = apr_pmemdup(pool, base, sizeof(*base));

    merged->routes = rp_route_table_merge(pool, base->routes, add->routes);
    if (add->allowed_targets)
        merged->allowed_targets = add->allowed_targets;
    if (add->trusted_proxies)
        merged->trusted_proxies = add->trusted_proxies;
    if (add->encoded_slashes != RP_UNSET)
        merged->encoded_slashes = add->encoded_slashes;
    if (add->engine != RP_UNSET)
        merged->engine = add->engine;
    return merged;
}

/* ---- for the lanes --------------------------------------------------------------------------- */

const rp_retry rp_retry_default = { .tries = 2, .on = RP_RETRY_ERROR };

static int is_kept(const rp_field *field)
{
    static const char *const names[] = { "WWW-Authenticate", "Retry-After", "Set-Cookie", "Allow" };

    for (apr_size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!strcasecmp(field->name, names[i]))
            return 1;
    }
    return 0;
}

void rp_error_override_keep(const rp_fields *replaced, rp_fields *kept)
{
    int has_cookie = 0;

    for (int i = 0; i < replaced->count; i++) {
        if (is_kept(&replaced->items[i])) {
            *rp_fields_push(kept) = replaced->items[i];
            has_cookie |= replaced->items[i].id == RP_FIELD_SET_COOKIE;
        }
    }
    /* What the response said of caches is gone with its page; a cookie is one client's only. */
    if (has_cookie)
        rp_fields_add(kept, "Cache-Control", "private");
}

int rp_config_trusts(const rp_server_config *server, apr_sockaddr_t *address)
{
    const apr_array_header_t *trusted = server->trusted_proxies;

    for (int i = 0; trusted && i < trusted->nelts; i++) {
        if (apr_ipsubnet_test(APR_ARRAY_IDX(trusted, i, apr_ipsubnet_t *), address))
            return 1;
    }
    return 0;
}

void rp_config_fill_reverse(const rp_dir_config *dir, const rp_exchange_settings *settings,
                            const rp_request *request, const rp_target *target,
                            const char *client_prefix, rp_reverse *reverse)
{
    rp_reverse_set_upstream(reverse, target, settings->preserve_host ? request->authority : NULL);
    reverse->client_scheme = request->scheme;
    reverse->client_authority = request->authority;
    reverse->client_prefix = client_prefix;
    reverse->rules = dir->reverse_rules;
    reverse->cookie_domains = dir->cookie_domains;
    reverse->cookie_paths = dir->cookie_paths;
}

void rp_config_exchange_settings(const rp_dir_config *dir, const rp_server_config *server,
                                 rp_exchange_settings *settings)
{
    settings->timeouts = dir->timeouts;
    for (int i = 0; i < RP_TIMEOUT_KEYS; i++) {
        apr_interval_time_t *time = rp_timeout_at(&settings->timeouts, i);

        if (*time == RP_UNSET)
            *time = timeout_keys[i].standard;
    }
    settings->retry = dir->retry ? *dir->retry : rp_retry_default;
    settings->upgrade = dir->upgrade == RP_UNSET ? RP_UPGRADE_WEBSOCKET : (rp_upgrade)dir->upgrade;
    settings->forwarded = dir->forwarded == RP_UNSET ? RP_FORWARDED_X
                                                     : (rp_forwarded)dir->forwarded;
    settings->preserve_host = dir->preserve_host != 0;
    settings->ignore_client_abort = dir->ignore_client_abort > 0;
    settings->via = server->via;
}

int rp_error_override_covers(const rp_error_override *override, int status)
{
    if (!override || status < 400)
        return 0;
    if (override->all)
        return 1;
    for (int i = 0; override->statuses && i < override->statuses->nelts; i++) {
        if (APR_ARRAY_IDX(override->statuses, i, int) == status)
            return 1;
    }
    return 0;
}
