/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Which rule takes a request, and what the upstream's target becomes. */
#include <string.h>
#include <apr_strings.h>

#include "rproxy/route/rp_route_private.h"

/* ---- rules of one path or pattern ------------------------------------------------------------ */

static int holds(const rp_match_context *context, const rp_route *route)
{
    return !route->condition_text
           || (context->condition && context->condition(context->baton, route) > 0);
}

/** Shares requests among the rules with weight= whose condition holds; NULL: none has a share. */
static const rp_route *choose_weighted(const rp_match_context *context, const rp_route_group *group)
{
    const rp_route **candidates = apr_palloc(context->pool,
                                             (apr_size_t)group->rules->nelts * sizeof(*candidates));
    apr_uint64_t total = 0, share;
    int count = 0;

    for (int i = 0; i < group->rules->nelts; i++) {
        const rp_route *route = APR_ARRAY_IDX(group->rules, i, const rp_route *);

        if (route->weighted && route->weight && holds(context, route)) {
            candidates[count++] = route;
            total += (apr_uint64_t)route->weight;
        }
    }
    if (!count)
        return NULL;
    share = ((apr_uint64_t)context->random * total) >> 32;
    for (int i = 0; i < count - 1; i++) {
        if (share < (apr_uint64_t)candidates[i]->weight)
            return candidates[i];
        share -= (apr_uint64_t)candidates[i]->weight;
    }
    return candidates[count - 1];
}

/** The rule that takes the request where route's turn has come, or NULL. */
static const rp_route *try_rule(const rp_match_context *context, const rp_route_group *group,
                                const rp_route *route)
{
    if (!route->weighted)
        return holds(context, route) ? route : NULL;
    return route == group->first_weighted ? choose_weighted(context, group) : NULL;
}

/* ---- prefixes -------------------------------------------------------------------------------- */

/** Nonzero if path begins with the len decoded bytes of key. */
static int begins_with(const char *path, const char *key, apr_size_t len)
{
    for (apr_size_t i = 0; i < len; i++) {
        if (rp_path_byte(&path) != (unsigned char)key[i])
            return 0;
    }
    return 1;
}

static const rp_route_group *lookup(const rp_route_table *table, apr_uint64_t hash, apr_size_t len,
                                    const char *path)
{
    apr_size_t slot = (apr_size_t)hash & table->slot_mask;
    const rp_route_group *group;

    while ((group = table->slots[slot])) {
        if (group->hash == hash && group->key_len == len && begins_with(path, group->key, len))
            return group;
        slot = (slot + 1) & table->slot_mask;
    }
    return NULL;
}

/** The longest prefix with rules: one pass over the path, a look into the index at each border. */
static const rp_route_group *longest_prefix(const rp_route_table *table, const char *path)
{
    const rp_route_group *found = NULL;
    apr_uint64_t hash = RP_PREFIX_HASH_START;
    apr_size_t len = 0;

    for (const char *at = path; len <= table->longest; len++) {
        if (*at == '/' || !*at) {
            const rp_route_group *group = lookup(table, hash, len, path);

            found = group ? group : found;
            if (!*at)
                break;
        }
        hash = rp_prefix_hash_step(hash, rp_path_byte(&at));
    }
    return found;
}

/** Bytes of path, as it is, that make len decoded ones. */
static apr_size_t encoded_len(const char *path, apr_size_t len)
{
    const char *at = path;

    while (len--)
        rp_path_byte(&at);
    return (apr_size_t)(at - path);
}

/* ---- matching -------------------------------------------------------------------------------- */

static const rp_route *match_regexes(const rp_route_table *table, const rp_match_context *context,
                                     const char *path, rp_match *match)
{
    match->subject = rp_uri_canonical(context->pool, path);
    for (int i = 0; i < table->regexes->nelts; i++) {
        const rp_route_regex *entry = &APR_ARRAY_IDX(table->regexes, i, rp_route_regex);
        const rp_route *taken;

        if (ap_regexec(entry->route->regex, match->subject, 10, match->groups, 0) == 0
            && (taken = try_rule(context, entry->group, entry->route)))
            return taken;
    }
    return NULL;
}

int rp_route_match(const rp_route_table *table, const rp_match_context *context, const char *path,
                   rp_match *match)
{
    match->route = NULL;
    match->prefix_len = 0;
    match->subject = NULL;
    if (path[0] != '/')
        return 0;
    if (table->regexes->nelts && (match->route = match_regexes(table, context, path, match)))
        return 1;
    match->subject = NULL;
    for (const rp_route_group *group = longest_prefix(table, path); group; group = group->parent) {
        for (int i = 0; i < group->rules->nelts; i++) {
            match->route = try_rule(context, group,
                                    APR_ARRAY_IDX(group->rules, i, const rp_route *));
            if (match->route) {
                match->prefix_len = encoded_len(path, group->key_len);
                return 1;
            }
        }
    }
    return 0;
}

/* ---- the upstream's target ------------------------------------------------------------------- */

/** Base and the rest of the path, with exactly one slash between them. */
static const char *join(apr_pool_t *pool, const char *base, const char *rest)
{
    apr_size_t base_len = strlen(base), rest_len;
    char *path;

    if (!*rest)
        return base;
    if (base_len == 1 && rest[0] == '/' && rest[1] != '/')
        return rest;
    while (base_len && base[base_len - 1] == '/')
        base_len--;
    rest += strspn(rest, "/");
    rest_len = strlen(rest);
    path = apr_palloc(pool, base_len + rest_len + 2);
    memcpy(path, base, base_len);
    path[base_len] = '/';
    memcpy(path + base_len + 1, rest, rest_len + 1);
    return path;
}

static const char *fill_template(apr_pool_t *pool, const rp_match *match)
{
    const char *template = match->route->target_path;
    rp_template_source source = { match->subject, match->groups };
    rp_buffer out;

    rp_buffer_init(&out, pool, 256);
    if (!rp_template_fill(&out, template, strlen(template), &source, 0))
        return NULL;
    return apr_pstrmemdup(pool, out.data, out.len);
}

rp_http_error rp_route_target(apr_pool_t *pool, const rp_match *match, const char *path,
                              const char *query, const apr_array_header_t *rewrites,
                              const char **upstream_target)
{
    const rp_route *route = match->route;
    const char *upstream_path;
    rp_http_error error;

    if (!route || !route->target)
        return RP_HTTP_BAD_TARGET;
    upstream_path = route->pattern ? fill_template(pool, match)
                                   : join(pool, route->target->base, path + match->prefix_len);
    if (!upstream_path
        || rp_upstream_path_check(upstream_path, strlen(upstream_path)) != RP_HTTP_OK)
        return RP_HTTP_BAD_TARGET;
    error = rp_rewrite_apply(pool, rewrites, &upstream_path, &query);
    if (error != RP_HTTP_OK)
        return error;
    if (query && !rp_query_is_valid(query))
        return RP_HTTP_BAD_TARGET;
    *upstream_target = query ? apr_pstrcat(pool, upstream_path, "?", query, NULL) : upstream_path;
    return RP_HTTP_OK;
}
