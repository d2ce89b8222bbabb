/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Rules: parsing, merging tables, and the checks of rules against each other. */
#include <stdlib.h>
#include <string.h>
#include <apr_hash.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "rproxy/route/rp_route_private.h"

#define WEIGHT_MAX 1000000

/* ---- one rule -------------------------------------------------------------------------------- */

static const char *directive_of(const rp_route *route)
{
    return route->path ? "RProxyPass" : "RProxyPassMatch";
}

/** The path or pattern as the administrator knows it. */
static const char *name_of(const rp_route *route)
{
    return route->path ? route->path : route->pattern;
}

static const char *check_prefix(apr_pool_t *pool, const char *path, const char **normal)
{
    const char *query;

    if (path[0] != '/')
        return "the path must begin with '/'; for a regular expression use RProxyPassMatch";
    if (strchr(path, '?'))
        return "a path has no query; use if= to choose by %{QUERY_STRING}";
    for (const char *p = path; *p; p++) {
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f || *p == '#')
            return "blanks, control bytes, '#' and bytes outside ASCII aren't allowed; write them "
                   "percent-encoded, it matches both forms";
        if (p[0] == '%' && p[1] == '2' && (p[2] == 'f' || p[2] == 'F'))
            return "%2F is no border between segments and can't be matched by a prefix; use "
                   "RProxyPassMatch, or '/' with RProxyEncodedSlashes decode";
    }
    if (rp_uri_path(pool, path, RP_SLASHES_PASS, 1, normal, &query) != RP_HTTP_OK)
        return "this is no valid path; check its %XX, \"..\" and backslashes";
    return NULL;
}

/** The target of a rule with a prefix: no captures in it. */
static const char *plain_target(apr_pool_t *pool, const char *text, rp_route *route)
{
    for (const char *p = strchr(text, '$'); p; p = strchr(p + 1, '$')) {
        if (apr_isdigit(p[1]))
            return apr_psprintf(pool,
                                "target %s: captures ($%c) need RProxyPassMatch; write %%24 for "
                                "a dollar",
                                text, p[1]);
    }
    return rp_target_parse(pool, text, &route->target);
}

/** The target of a regex rule: address, then a template that captures may fill. */
static const char *template_target(apr_pool_t *pool, const char *text, rp_route *route)
{
    const char *path = rp_target_path_start(text);
    const char *first = strchr(text, '$');
    const char *literal = text + strlen(text);
    const char *message, *query;

    if (first && first < path)
        return apr_psprintf(pool,
                            "target %s: captures may stand only in the path of a target, what a "
                            "client sends never chooses scheme, host, port or socket; write those "
                            "out, and a '/' before the first capture",
                            text);
    if (strpbrk(path, "?#"))
        return apr_psprintf(pool, "target %s: a target has neither query nor fragment; set a query "
                            "with RProxyRewrite", text);
    if (first && rp_path_has_dot_segment(path, strlen(path)))
        return apr_psprintf(pool, "target %s: remove the \".\" and \"..\" segments", text);
    if (first) {
        literal = first;
        while (literal[-1] != '/')
            literal--;
    }
    /* What stands before the first capture is the base: it holds for every request. */
    message = rp_target_parse(pool, apr_pstrmemdup(pool, text, (apr_size_t)(literal - text)),
                              &route->target);
    if (message)
        return message;
    if (rp_uri_path(pool, *path ? path : "/", RP_SLASHES_PASS, 0, &route->target_path, &query)
        != RP_HTTP_OK)
        return apr_psprintf(pool, "target %s: \"%s\" is no valid path; check its %%XX, \"..\" and "
                            "backslashes", text, path);
    route->target->text = apr_pstrdup(pool, text);
    return rp_template_check(pool, route->target_path, route->regex->re_nsub);
}

static const char *parse_option(apr_pool_t *pool, const char *option, rp_route *route)
{
    if (!strncmp(option, "if=", 3)) {
        if (route->condition_text)
            return "if= stands twice; join the expressions with &&";
        if (!option[3])
            return "if= needs an expression";
        route->condition_text = apr_pstrdup(pool, option + 3);
        return NULL;
    }
    if (!strncmp(option, "weight=", 7)) {
        int weight = 0;

        if (route->weighted)
            return "weight= stands twice; keep one";
        for (const char *p = option + 7; apr_isdigit(*p) && weight <= WEIGHT_MAX; p++)
            weight = weight * 10 + (*p - '0');
        if (!option[7] || option[7 + strspn(option + 7, "0123456789")] || weight > WEIGHT_MAX)
            return apr_psprintf(pool, "\"%s\": write a whole number from 0 to %d", option,
                                WEIGHT_MAX);
        route->weight = weight;
        route->weighted = 1;
        return NULL;
    }
    return apr_psprintf(pool, "unknown key \"%s\"; known are if=EXPR and weight=N", option);
}

static const char *parse_rule(apr_pool_t *pool, const char *path, int is_regex, const char *target,
                              const apr_array_header_t *options, rp_route *route)
{
    const char *message = NULL;

    if (is_regex) {
        route->pattern = apr_pstrdup(pool, path);
        route->regex = ap_pregcomp(pool, path, 0);
        if (!route->regex)
            return "the regular expression doesn't compile; check its parentheses and brackets";
    }
    else if ((message = check_prefix(pool, path, &route->path)))
        return message;
    for (int i = 0; options && i < options->nelts && !message; i++)
        message = parse_option(pool, APR_ARRAY_IDX(options, i, const char *), route);
    if (message)
        return message;
    if (!strcmp(target, "!"))
        return route->weighted ? "\"!\" takes no weight=, it sends nothing anywhere; use if="
                               : NULL;
    return is_regex ? template_target(pool, target, route) : plain_target(pool, target, route);
}

const char *rp_route_parse(apr_pool_t *pool, const char *path, int is_regex, const char *target,
                           const apr_array_header_t *options, const char *file, int line,
                           rp_route **route)
{
    rp_route *made = apr_pcalloc(pool, sizeof(*made));
    const char *message;

    made->weight = 1;
    made->file = file;
    made->line = line;
    message = parse_rule(pool, path, is_regex, target, options, made);
    if (message)
        return apr_psprintf(pool, "%s %s: %s (%s:%d)", is_regex ? "RProxyPassMatch" : "RProxyPass",
                            path, message, file, line);
    *route = made;
    return NULL;
}

/* ---- tables ---------------------------------------------------------------------------------- */

/** Key of a prefix in the index: decoded, without final slash. */
static char *prefix_key(apr_pool_t *pool, const char *path)
{
    char *key = apr_palloc(pool, strlen(path) + 1), *out = key;

    while (*path)
        *out++ = (char)rp_path_byte(&path);
    if (out > key && out[-1] == '/')
        out--;
    *out = '\0';
    return key;
}

/** What makes two rules rules of one path or of one pattern. */
static const char *group_name(apr_pool_t *pool, const rp_route *route)
{
    return route->path ? apr_pstrcat(pool, "=", prefix_key(pool, route->path), NULL)
                       : apr_pstrcat(pool, "~", route->pattern, NULL);
}

rp_route_table *rp_route_table_make(apr_pool_t *pool)
{
    rp_route_table *table = apr_pcalloc(pool, sizeof(*table));

    table->pool = pool;
    table->routes = apr_array_make(pool, 4, sizeof(rp_route *));
    return table;
}

void rp_route_table_add(rp_route_table *table, rp_route *route)
{
    APR_ARRAY_PUSH(table->routes, rp_route *) = route;
}

rp_route_table *rp_route_table_merge(apr_pool_t *pool, const rp_route_table *base,
                                     const rp_route_table *add)
{
    rp_route_table *merged = rp_route_table_make(pool);
    apr_hash_t *own = apr_hash_make(pool);

    for (int i = 0; i < add->routes->nelts; i++) {
        rp_route *route = APR_ARRAY_IDX(add->routes, i, rp_route *);

        apr_hash_set(own, group_name(pool, route), APR_HASH_KEY_STRING, route);
        rp_route_table_add(merged, route);
    }
    for (int i = 0; i < base->routes->nelts; i++) {
        const rp_route *route = APR_ARRAY_IDX(base->routes, i, const rp_route *);

        if (!apr_hash_get(own, group_name(pool, route), APR_HASH_KEY_STRING)) {
            rp_route *copy = apr_pmemdup(pool, route, sizeof(*route));

            copy->inherited = 1;
            rp_route_table_add(merged, copy);
        }
    }
    return merged;
}

int rp_route_table_is_empty(const rp_route_table *table)
{
    return table->routes->nelts == 0;
}

void rp_route_table_each(const rp_route_table *table,
                         int (*callback)(void *baton, const rp_route *route), void *baton)
{
    const apr_array_header_t *list = table->tried ? table->tried : table->routes;

    for (int i = 0; i < list->nelts; i++) {
        if (!callback(baton, APR_ARRAY_IDX(list, i, const rp_route *)))
            break;
    }
}

void rp_route_table_number(rp_route_table *table,
                           int (*row_of)(void *baton, const rp_route *route), void *baton)
{
    for (int i = 0; i < table->routes->nelts; i++) {
        rp_route *route = APR_ARRAY_IDX(table->routes, i, rp_route *);

        route->row = row_of(baton, route);
    }
}

/* ---- rules against each other ---------------------------------------------------------------- */

/** Where a rule was written, for a message. */
static const char *place(apr_pool_t *pool, const rp_route *route)
{
    return apr_psprintf(pool, "%s:%d", route->file, route->line);
}

static const char *target_text(const rp_route *route)
{
    return route->target ? route->target->text : "!";
}

/** The message for a rule that an earlier one of the same path or pattern leaves nothing to. */
static const char *shadowed(apr_pool_t *pool, const rp_route *earlier, const rp_route *route)
{
    const char *what = route->path ? "path" : "pattern";

    if (earlier->weighted)
        return apr_psprintf(
            pool,
            "%s %s: could never take effect, the rules with weight= before it "
            "(%s) share every request of this %s; add weight=, or put it before them "
            "(%s)",
            directive_of(route), name_of(route), place(pool, earlier), what, place(pool, route));
    if (!strcmp(target_text(earlier), target_text(route)) && !route->condition_text
        && !route->weighted)
        return apr_psprintf(pool,
                            "%s %s: the same %s was sent to %s at %s already; remove one (%s)",
                            directive_of(route), name_of(route), what, target_text(earlier),
                            place(pool, earlier), place(pool, route));
    if (!route->condition_text && !route->weighted)
        return apr_psprintf(pool, "%s %s: the same %s was sent to %s at %s; add if= or weight= to "
                            "both, or remove one (%s)", directive_of(route), name_of(route), what,
                            target_text(earlier), place(pool, earlier), place(pool, route));
    return apr_psprintf(pool,
                        "%s %s: could never take effect, the rule at %s takes every request of "
                        "this %s; %s (%s)",
                        directive_of(route), name_of(route), place(pool, earlier), what,
                        route->weighted ? "add weight= to that one too, or put it last"
                                        : "put the one with if= before it",
                        place(pool, route));
}

static const char *check_group(apr_pool_t *pool, const rp_route_group *group)
{
    const rp_route *all = NULL;         /* takes every request that reaches it */
    const rp_route *sharing = NULL;     /* one with weight= and without if= */
    apr_uint64_t weights = 0;

    for (int i = 0; i < group->rules->nelts; i++) {
        const rp_route *route = APR_ARRAY_IDX(group->rules, i, const rp_route *);

        weights += route->weighted ? (apr_uint64_t)route->weight : 0;
        if (route->weighted && route->weight && !route->condition_text && !sharing)
            sharing = route;
    }
    for (int i = 0; i < group->rules->nelts; i++) {
        const rp_route *route = APR_ARRAY_IDX(group->rules, i, const rp_route *);

        /* Rules with weight= are all reached where the first of them stands. */
        if (all && !(route->weighted && all->weighted))
            return shadowed(pool, all, route);
        if (all)
            continue;
        if (route == group->first_weighted && sharing)
            all = sharing;
        else if (!route->weighted && !route->condition_text)
            all = route;
    }
    if (group->first_weighted && !weights)
        return apr_psprintf(pool,
                            "%s %s: the weights of its rules sum to 0; give one of them a weight "
                            "above 0 (%s)",
                            directive_of(group->first_weighted), name_of(group->first_weighted),
                            place(pool, group->first_weighted));
    return NULL;
}

/* ---- the index ------------------------------------------------------------------------------- */

static apr_uint64_t hash_of(const char *key)
{
    apr_uint64_t hash = RP_PREFIX_HASH_START;

    while (*key)
        hash = rp_prefix_hash_step(hash, (unsigned char)*key++);
    return hash;
}

/** Sorts the rules into groups; the array holds them in the order of their first rules. */
static apr_array_header_t *make_groups(apr_pool_t *pool, rp_route_table *table)
{
    apr_array_header_t *groups = apr_array_make(pool, 8, sizeof(rp_route_group *));
    apr_hash_t *by_name = apr_hash_make(pool);

    table->regexes = apr_array_make(pool, 4, sizeof(rp_route_regex));
    for (int i = 0; i < table->routes->nelts; i++) {
        const rp_route *route = APR_ARRAY_IDX(table->routes, i, const rp_route *);
        const char *name = group_name(pool, route);
        rp_route_group *group = apr_hash_get(by_name, name, APR_HASH_KEY_STRING);

        if (!group) {
            group = apr_pcalloc(pool, sizeof(*group));
            group->key = name + 1;
            group->key_len = strlen(group->key);
            group->hash = hash_of(group->key);
            group->rules = apr_array_make(pool, 1, sizeof(rp_route *));
            apr_hash_set(by_name, name, APR_HASH_KEY_STRING, group);
            APR_ARRAY_PUSH(groups, rp_route_group *) = group;
        }
        APR_ARRAY_PUSH(group->rules, const rp_route *) = route;
        if (route->weighted && !group->first_weighted)
            group->first_weighted = route;
        if (route->pattern) {
            rp_route_regex *regex = apr_array_push(table->regexes);

            regex->route = route;
            regex->group = group;
        }
    }
    return groups;
}

static int is_prefix_group(const rp_route_group *group)
{
    return APR_ARRAY_IDX(group->rules, 0, const rp_route *)->path != NULL;
}

/** Longest first, so that the order is the one in which rules are tried. */
static int compare_groups(const void *left, const void *right)
{
    const rp_route_group *a = *(rp_route_group *const *)left;
    const rp_route_group *b = *(rp_route_group *const *)right;

    if (a->key_len != b->key_len)
        return a->key_len > b->key_len ? -1 : 1;
    return strcmp(a->key, b->key);
}

static void insert(rp_route_table *table, rp_route_group *group)
{
    apr_size_t slot = (apr_size_t)group->hash & table->slot_mask;

    while (table->slots[slot])
        slot = (slot + 1) & table->slot_mask;
    table->slots[slot] = group;
}

/** The longest other prefix of group's key that has rules itself. */
static const rp_route_group *find_parent(apr_pool_t *pool, apr_hash_t *by_key,
                                         const rp_route_group *group)
{
    char *key = apr_pstrdup(pool, group->key);
    char *slash;

    while ((slash = strrchr(key, '/'))) {
        const rp_route_group *parent;

        *slash = '\0';
        parent = apr_hash_get(by_key, key, APR_HASH_KEY_STRING);
        if (parent)
            return parent;
    }
    return NULL;
}

static void make_index(apr_pool_t *pool, rp_route_table *table, const apr_array_header_t *groups)
{
    apr_array_header_t *prefixes =
        apr_array_make(pool, groups->nelts + 1, sizeof(rp_route_group *));
    apr_hash_t *by_key = apr_hash_make(pool);

    for (int i = 0; i < groups->nelts; i++) {
        rp_route_group *group = APR_ARRAY_IDX(groups, i, rp_route_group *);

        if (is_prefix_group(group)) {
            APR_ARRAY_PUSH(prefixes, rp_route_group *) = group;
            apr_hash_set(by_key, group->key, (apr_ssize_t)group->key_len, group);
        }
    }
    qsort(prefixes->elts, (size_t)prefixes->nelts, sizeof(rp_route_group *), compare_groups);

    table->slot_mask = 7;
    while (table->slot_mask < (apr_size_t)prefixes->nelts * 2)
        table->slot_mask = table->slot_mask * 2 + 1;
    table->slots = apr_pcalloc(pool, (table->slot_mask + 1) * sizeof(rp_route_group *));
    table->tried = apr_array_make(pool, table->routes->nelts + 1, sizeof(rp_route *));
    for (int i = 0; i < table->regexes->nelts; i++)
        APR_ARRAY_PUSH(table->tried, const rp_route *)
            = APR_ARRAY_IDX(table->regexes, i, rp_route_regex).route;
    for (int i = 0; i < prefixes->nelts; i++) {
        rp_route_group *group = APR_ARRAY_IDX(prefixes, i, rp_route_group *);

        insert(table, group);
        group->parent = find_parent(pool, by_key, group);
        table->longest = group->key_len > table->longest ? group->key_len : table->longest;
        apr_array_cat(table->tried, group->rules);
    }
}

const char *rp_route_table_finish(apr_pool_t *pool, rp_route_table *table)
{
    apr_array_header_t *groups = make_groups(pool, table);

    for (int i = 0; i < groups->nelts; i++) {
        const char *message = check_group(pool, APR_ARRAY_IDX(groups, i, rp_route_group *));

        if (message)
            return message;
    }
    make_index(pool, table, groups);
    return NULL;
}
