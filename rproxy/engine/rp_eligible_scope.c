/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the directives of the main server, or of one virtual host, amount to. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <apr_fnmatch.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "rproxy/engine/rp_eligible_private.h"

#define NAME_MAX_LEN 60                 /* of a directive in a message */

/* ---- names ----------------------------------------------------------------------------------- */

/** Arguments without the '>' of a section. */
static const char *arguments_of(apr_pool_t *pool, const ap_directive_t *directive)
{
    const char *end = *directive->directive == '<' ? strrchr(directive->args, '>') : NULL;

    return end ? apr_pstrmemdup(pool, directive->args, (apr_size_t)(end - directive->args))
               : directive->args;
}

const char *rp_scope_name(apr_pool_t *pool, const ap_directive_t *directive)
{
    const char *arguments = arguments_of(pool, directive);
    const char *text = apr_pstrcat(pool, directive->directive, *arguments ? " " : "", arguments,
                                   NULL);

    if (strlen(text) > NAME_MAX_LEN)
        text = apr_pstrcat(pool, apr_pstrmemdup(pool, text, NAME_MAX_LEN), "...", NULL);
    return apr_psprintf(pool, "%s%s (%s:%d)", text, *directive->directive == '<' ? ">" : "",
                        directive->filename, directive->line_num);
}

static void add_reason(const rp_scope_context *context, apr_array_header_t *reasons,
                       const ap_directive_t *directive)
{
    APR_ARRAY_PUSH(reasons, const char *) = rp_scope_name(context->pool, directive);
}

/** name: of the first such directive. */
static void note_http1(const rp_scope_context *context, const char **name,
                       const ap_directive_t *directive)
{
    if (!*name)
        *name = rp_scope_name(context->pool, directive);
}

static void add_header_rule(const rp_scope_context *context, apr_array_header_t *rules,
                            const ap_directive_t *directive)
{
    rp_known_header(context->pool, !strcasecmp(directive->directive, "RequestHeader"),
                    directive->args, apr_array_push(rules));
}

/* ---- <Location> ------------------------------------------------------------------------------ */

/** What stands in a <Location>: what is merged, and what is the pipeline's. */
static void read_section(const rp_scope_context *context, const ap_directive_t *first,
                         rp_section *section)
{
    for (const ap_directive_t *at = first; at; at = at->next) {
        switch (rp_known_effect(context->temp, context->cache, at, 1, context->log)) {
        case RP_EFFECT_NONE:
        case RP_EFFECT_UNREACHED:
            break;
        case RP_EFFECT_SETTING:
            section->has_settings = 1;
            break;
        case RP_EFFECT_HEADER:
            section->has_settings = 1;
            add_header_rule(context, section->header_rules, at);
            break;
        case RP_EFFECT_HTTP1:
            note_http1(context, &section->no_http2, at);
            break;
        case RP_EFFECT_INSIDE:
            read_section(context, at->first_child, section);
            break;
        case RP_EFFECT_STATUS_PAGE:
            section->audience = RP_FOR_OPERATORS;
            add_reason(context, section->reasons, at);
            break;
        case RP_EFFECT_HANDLER:
            section->audience = RP_FOR_OTHERS;
            add_reason(context, section->reasons, at);
            break;
        default:
            add_reason(context, section->reasons, at);
        }
    }
}

static rp_section *add_section(const rp_scope_context *context, rp_scope *scope,
                               const ap_directive_t *directive, const char *path, int is_regex)
{
    rp_section *section = apr_array_push(scope->sections);

    section->directive = directive;
    section->path = path;
    section->reasons = apr_array_make(context->pool, 1, sizeof(const char *));
    section->header_rules = apr_array_make(context->pool, 0, sizeof(rp_header_rule));
    section->has_wildcards = !is_regex && apr_fnmatch_test(path);
    if (is_regex && !(section->regex = ap_pregcomp(context->pool, path, AP_REG_EXTENDED)))
        add_reason(context, scope->reasons, directive);
    return section;
}

static void add_location(const rp_scope_context *context, rp_scope *scope,
                         const ap_directive_t *directive)
{
    const char *arguments = arguments_of(context->pool, directive);
    const char *path = ap_getword_conf(context->pool, &arguments);
    int is_regex = !strcasecmp(directive->directive, "<LocationMatch");

    if (!is_regex && !strcmp(path, "~")) {
        path = ap_getword_conf(context->pool, &arguments);
        is_regex = 1;
    }
    read_section(context, directive->first_child,
                 add_section(context, scope, directive, path, is_regex));
}

/** A directive that takes a part of the paths. */
static void add_path(const rp_scope_context *context, rp_scope *scope,
                     const ap_directive_t *directive, int is_regex)
{
    const char *arguments = directive->args;
    char *path = ap_getword_conf(context->pool, &arguments);
    rp_section *section = add_section(context, scope, directive, path, is_regex);

    section->has_wildcards = 0;
    add_reason(context, section->reasons, directive);
}

/* ---- BrowserMatch, SetEnvIf ------------------------------------------------------------------ */

/** What SetEnvIf calls an attribute. */
static int attribute_kind(const char *name, rp_guard_kind *kind)
{
    if (!strcasecmp(name, "Request_URI")) {
        *kind = RP_BY_URI;
        return 1;
    }
    if (!strcasecmp(name, "Request_Method")) {
        *kind = RP_BY_METHOD;
        return 1;
    }
    /* Another attribute, a variable, or a regular expression on names of fields: a variable that
     * an earlier line sets is guarded there, those of other modules have a '_' in their name. */
    for (const char *p = name; *p; p++) {
        if (!apr_isalnum(*p) && *p != '-')
            return 0;
    }
    *kind = RP_BY_FIELD;
    return *name != '\0';
}

/** What the rest of the arguments sets, where none of it matters in HTTP/2; NULL: some does. */
static const apr_array_header_t *idle_variables(const rp_scope_context *context,
                                                const char *arguments)
{
    apr_array_header_t *variables = apr_array_make(context->pool, 2, sizeof(const char *));

    while (*arguments) {
        const char *word = ap_getword_conf(context->pool, &arguments);
        const char *name = ap_getword(context->pool, &word, '=');

        if (!*word && *name == '!')     /* unset */
            name++;
        if (!rp_known_idle_variable(name) || rp_log_shows(context->log, name))
            return NULL;
        APR_ARRAY_PUSH(variables, const char *) = name;
    }
    return variables;
}

/** field: NULL where the first argument names it. */
static void add_request(const rp_scope_context *context, rp_scope *scope,
                        const ap_directive_t *directive, const char *field)
{
    const char *arguments = directive->args, *end = strchr(directive->directive, 'N');
    int ignore_case = end && !strcasecmp(end, "NoCase");
    rp_guard guard = { .kind = RP_BY_FIELD };
    const char *name = field ? field : ap_getword_conf(context->pool, &arguments);
    const char *regex = ap_getword_conf(context->pool, &arguments);

    if (!attribute_kind(name, &guard.kind)
        || !rp_pattern_make(context->pool, regex, ignore_case, &guard.pattern)
        /* A request without the field counts as one with an empty value: this is for all. */
        || (guard.kind == RP_BY_FIELD && rp_pattern_matches(&guard.pattern, ""))) {
        add_reason(context, scope->reasons, directive);
        return;
    }
    guard.text = name;
    guard.len = strlen(name);
    guard.name = rp_scope_name(context->pool, directive);
    guard.variables = idle_variables(context, arguments);
    APR_ARRAY_PUSH(scope->guards, rp_guard) = guard;
}

/* ---- values that the engine needs ------------------------------------------------------------ */

/** "20-40,MinRate=500", as mod_reqtimeout has checked it already. */
static rp_read_limit read_limit(const char *value)
{
    rp_read_limit limit = { 0, 0, 0 };
    const char *rate = ap_strcasestr(value, ",minrate=");
    char *end;

    limit.first = (int)strtol(value, &end, 10);
    if (rate && *end == '-')
        limit.max = (int)strtol(end + 1, NULL, 10);
    if (rate)
        limit.rate = (int)strtol(rate + strlen(",minrate="), NULL, 10);
    return limit;
}

static void read_limits(const rp_scope_context *context, rp_scope *scope, const char *arguments)
{
    while (*arguments) {
        const char *word = ap_getword_conf(context->temp, &arguments);

        if (!strncasecmp(word, "header=", 7))
            scope->head = read_limit(word + 7);
        else if (!strncasecmp(word, "body=", 5))
            scope->body = read_limit(word + 5);
    }
}

static void read_value(const rp_scope_context *context, rp_scope *scope,
                       const ap_directive_t *directive)
{
    const char *arguments = directive->args;

    if (!strcasecmp(directive->directive, "RequestReadTimeout"))
        read_limits(context, scope, arguments);
    else if (!strcasecmp(directive->directive, "SSLStrictSNIVHostCheck"))
        scope->strict_sni = !strcasecmp(ap_getword_conf(context->temp, &arguments), "on");
    else if (!strcasecmp(directive->directive, "SSLEngine"))
        scope->tls = !strcasecmp(ap_getword_conf(context->temp, &arguments), "on");
}

/* ---- the walk -------------------------------------------------------------------------------- */

static void read_directive(const rp_scope_context *context, rp_scope *scope,
                           const ap_directive_t *directive)
{
    if (!strcasecmp(directive->directive, "<VirtualHost")) {
        APR_ARRAY_PUSH(scope->hosts, const ap_directive_t *) = directive;
        return;
    }
    switch (rp_known_effect(context->temp, context->cache, directive, 0, context->log)) {
    case RP_EFFECT_NONE:
        read_value(context, scope, directive);
        break;
    case RP_EFFECT_SETTING:
    case RP_EFFECT_UNREACHED:
        break;
    case RP_EFFECT_HEADER:
        add_header_rule(context, scope->header_rules, directive);
        break;
    case RP_EFFECT_HTTP1:
        note_http1(context, &scope->no_http2, directive);
        break;
    case RP_EFFECT_INSIDE:
        for (const ap_directive_t *at = directive->first_child; at; at = at->next)
            read_directive(context, scope, at);
        break;
    case RP_EFFECT_LOCATION:
        add_location(context, scope, directive);
        break;
    case RP_EFFECT_PATH:
    case RP_EFFECT_PATH_REGEX:
        add_path(context, scope, directive,
                 rp_known_effect(context->temp, context->cache, directive, 0, context->log)
                 == RP_EFFECT_PATH_REGEX);
        break;
    case RP_EFFECT_BROWSER:
        add_request(context, scope, directive, "User-Agent");
        break;
    case RP_EFFECT_REQUEST:
        add_request(context, scope, directive, NULL);
        break;
    default:
        add_reason(context, scope->reasons, directive);
    }
}

rp_scope *rp_scope_read(const rp_scope_context *context, const ap_directive_t *first)
{
    rp_scope *scope = apr_pcalloc(context->pool, sizeof(*scope));

    scope->reasons = apr_array_make(context->pool, 4, sizeof(const char *));
    scope->sections = apr_array_make(context->pool, 4, sizeof(rp_section));
    scope->guards = apr_array_make(context->pool, 4, sizeof(rp_guard));
    scope->header_rules = apr_array_make(context->pool, 4, sizeof(rp_header_rule));
    scope->hosts = apr_array_make(context->pool, 4, sizeof(const ap_directive_t *));
    scope->head.first = RP_UNSET;
    scope->body.first = RP_UNSET;
    scope->strict_sni = RP_UNSET;
    scope->tls = RP_UNSET;
    for (; first; first = first->next)
        read_directive(context, scope, first);
    return scope;
}
