/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Guards: which requests of an engine's route are the pipeline's. In doubt they are: paths compare
 * without regard to case, and an encoded slash is one or is none. */
#include <string.h>
#include <strings.h>
#include <apr_fnmatch.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "rproxy/engine/rp_eligible_private.h"

struct rp_engine_guards {
    apr_array_header_t *paths;          /* rp_guard: by path */
    apr_array_header_t *requests;       /* rp_guard: the other kinds */
};

/* ---- patterns -------------------------------------------------------------------------------- */

/** Takes the literal text that text begins with, escaped punctuation included. Returns where it
 * ends. */
static const char *read_literal(const char *text, char *literal)
{
    while (*text) {
        if (*text == '\\' && apr_ispunct(text[1]))
            text++;
        else if (strchr("\\.[]()*+?{}^$|", *text))
            break;
        *literal++ = *text++;
    }
    *literal = '\0';
    return text;
}

/** Most regular expressions of BrowserMatch are plain text, or begin with it: a look for that text
 * is much cheaper than a match. */
int rp_pattern_make(apr_pool_t *pool, const char *text, int ignore_case, rp_pattern *pattern)
{
    const char *start = *text == '^' ? text + 1 : text, *end;
    char *literal = apr_palloc(pool, strlen(text) + 1);
    apr_size_t len;

    pattern->regex = ap_pregcomp(pool, text, AP_REG_EXTENDED | (ignore_case ? AP_REG_ICASE : 0));
    pattern->literal = NULL;
    pattern->len = 0;
    pattern->at_start = *text == '^';
    if (!pattern->regex)
        return 0;
    end = read_literal(start, literal);
    len = strlen(literal);
    /* What the last byte's quantifier makes optional, and alternatives, need not be there. Groups
     * may set options. */
    if (len && *end && strchr("*?{", *end))
        literal[--len] = '\0';
    if (!len || ignore_case || strchr(end, '|') || strchr(end, '('))
        return 1;
    pattern->literal = literal;
    pattern->len = len;
    if (!*end)
        pattern->regex = NULL;
    return 1;
}

int rp_pattern_matches(const rp_pattern *pattern, const char *value)
{
    if (pattern->literal
        && (pattern->at_start ? strncmp(value, pattern->literal, pattern->len) != 0
                              : !strstr(value, pattern->literal)))
        return 0;
    return !pattern->regex || ap_regexec(pattern->regex, value, 0, NULL, 0) == 0;
}

/* ---- sections and paths ---------------------------------------------------------------------- */

const char *rp_section_key(apr_pool_t *pool, const rp_route *route)
{
    char *key = rp_uri_decode(pool, route->path, strlen(route->path));
    apr_size_t len = strlen(key);

    if (len && key[len - 1] == '/')
        key[len - 1] = '\0';
    return key;
}

apr_size_t rp_section_bare_len(const rp_section *section)
{
    apr_size_t len = strlen(section->path);

    return len && section->path[len - 1] == '/' ? len - 1 : len;
}

int rp_section_covers(const rp_section *section, const char *path)
{
    apr_size_t len = rp_section_bare_len(section);

    if (section->regex || section->has_wildcards || strstr(section->path, "//"))
        return 0;
    return !strncmp(section->path, path, len) && (path[len] == '/' || path[len] == '\0');
}

int rp_section_is_below(const rp_section *section, const char *path)
{
    apr_size_t len = strlen(path);

    if (section->regex || section->has_wildcards || strstr(section->path, "//"))
        return 1;
    return !strncasecmp(section->path, path, len)
           && (section->path[len] == '/' || section->path[len] == '\0');
}

/* ---- making ---------------------------------------------------------------------------------- */

rp_engine_guards *rp_guards_make(apr_pool_t *pool)
{
    rp_engine_guards *guards = apr_palloc(pool, sizeof(*guards));

    guards->paths = apr_array_make(pool, 4, sizeof(rp_guard));
    guards->requests = apr_array_make(pool, 4, sizeof(rp_guard));
    return guards;
}

rp_guard *rp_guards_add(rp_engine_guards *guards, const rp_guard *guard)
{
    rp_guard *added = apr_array_push(guard->kind <= RP_BY_REGEX ? guards->paths
                                                                : guards->requests);

    *added = *guard;
    return added;
}

/** path with repeated slashes merged and without a final one. */
static char *bare_path(apr_pool_t *pool, const char *path)
{
    char *bare = apr_pstrdup(pool, path);
    apr_size_t len;

    ap_no2slash(bare);
    len = strlen(bare);
    if (len && bare[len - 1] == '/')
        bare[len - 1] = '\0';
    return bare;
}

rp_guard *rp_guards_add_section(apr_pool_t *pool, rp_engine_guards *guards,
                                const rp_section *section)
{
    rp_guard guard = { .kind = RP_BY_PATH };

    if (section->regex)
        guard.kind = RP_BY_REGEX;
    else if (section->has_wildcards)
        guard.kind = RP_BY_WILDCARD;
    guard.regex = section->regex;
    guard.text = guard.kind == RP_BY_PATH ? bare_path(pool, section->path) : section->path;
    guard.len = strlen(guard.text);
    guard.settings = guard.kind == RP_BY_PATH && !section->reasons->nelts ? section : NULL;
    guard.name = apr_psprintf(pool, "%s%s (%s:%d)", section->regex ? "regex " : "", section->path,
                              section->directive->filename, section->directive->line_num);
    return rp_guards_add(guards, &guard);
}

void rp_guards_add_bare(apr_pool_t *pool, rp_engine_guards *guards, const rp_section *section)
{
    rp_guard guard = { .kind = RP_BY_BARE_PATH };

    guard.text = bare_path(pool, section->path);
    guard.len = strlen(guard.text);
    guard.name = apr_psprintf(pool, "%s alone (%s:%d)", guard.text, section->directive->filename,
                              section->directive->line_num);
    rp_guards_add(guards, &guard);
}

int rp_guards_count(const rp_engine_guards *guards)
{
    return guards->paths->nelts + guards->requests->nelts;
}

const apr_array_header_t *rp_guards_names(apr_pool_t *pool, const rp_engine_guards *guards)
{
    apr_array_header_t *names = apr_array_make(pool, 4, sizeof(const char *));

    for (int i = 0; i < guards->paths->nelts; i++)
        APR_ARRAY_PUSH(names, const char *) = APR_ARRAY_IDX(guards->paths, i, rp_guard).name;
    for (int i = 0; i < guards->requests->nelts; i++)
        APR_ARRAY_PUSH(names, const char *) = APR_ARRAY_IDX(guards->requests, i, rp_guard).name;
    return names;
}

static void push_names(apr_array_header_t *names, const apr_array_header_t *guards,
                       rp_guard_http2 http2)
{
    for (int i = 0; i < guards->nelts; i++) {
        const rp_guard *guard = &APR_ARRAY_IDX(guards, i, rp_guard);

        if (guard->http2 == http2)
            APR_ARRAY_PUSH(names, const char *) = guard->name;
    }
}

const apr_array_header_t *rp_guards_names_of(apr_pool_t *pool, const rp_engine_guards *guards,
                                             rp_guard_http2 http2)
{
    apr_array_header_t *names = apr_array_make(pool, 2, sizeof(const char *));

    if (guards) {
        push_names(names, guards->paths, http2);
        push_names(names, guards->requests, http2);
    }
    return names;
}

int rp_guards_retry_all(const rp_engine_guards *guards, const char *path)
{
    for (int i = 0; i < guards->paths->nelts; i++) {
        const rp_guard *guard = &APR_ARRAY_IDX(guards->paths, i, rp_guard);

        if (guard->http2 == RP_GUARD_RETRIES && !strncmp(guard->text, path, guard->len)
            && (path[guard->len] == '/' || path[guard->len] == '\0'))
            return 1;
    }
    return 0;
}

/* ---- by path --------------------------------------------------------------------------------- */

/** The forms of a path that httpd's sections are compared with. */
typedef struct path_forms {
    const char *decoded;
    const char *merged;                 /* repeated slashes as one, whatever MergeSlashes says */
} path_forms;

static int has_encoded_slash(const char *path)
{
    for (; (path = strchr(path, '%')) != NULL; path++) {
        if (path[1] == '2' && (path[2] == 'f' || path[2] == 'F'))
            return 1;
    }
    return 0;
}

static path_forms forms_of(apr_pool_t *pool, const char *path)
{
    path_forms forms = { path, path };

    if (strchr(path, '%'))
        forms.merged = forms.decoded = rp_uri_decode(pool, path, strlen(path));
    if (strstr(forms.decoded, "//")) {
        char *merged = apr_pstrdup(pool, forms.decoded);

        ap_no2slash(merged);
        forms.merged = merged;
    }
    return forms;
}

static int always(void *baton, const rp_route *route)
{
    (void)baton;
    (void)route;
    return 1;
}

/** Nonzero if the request's route has the section's settings merged. */
static int is_merged(const rp_engine_host *host, apr_pool_t *pool, const rp_request *request,
                     const rp_section *section)
{
    rp_match_context context = { pool, always, 0, NULL };
    rp_match match;

    return rp_route_match(host->config->routes, &context, request->path, &match)
           && match.route->path
           && rp_section_covers(section, rp_section_key(pool, match.route));
}

static int path_is_guarded(const rp_guard *guard, const path_forms *forms)
{
    switch (guard->kind) {
    case RP_BY_PATH:
        return !strncasecmp(forms->merged, guard->text, guard->len)
               && (forms->merged[guard->len] == '/' || forms->merged[guard->len] == '\0');
    case RP_BY_BARE_PATH:
        return !strcasecmp(forms->merged, guard->text);
    case RP_BY_WILDCARD:
        return apr_fnmatch(guard->text, forms->merged, APR_FNM_PATHNAME | APR_FNM_CASE_BLIND)
               == APR_SUCCESS;
    default:
        return ap_regexec(guard->regex, forms->decoded, 0, NULL, 0) == 0;
    }
}

static int is_guarded_by_path(const rp_engine_host *host, apr_pool_t *pool,
                              const rp_request *request)
{
    const apr_array_header_t *paths = host->guards->paths;
    path_forms forms;

    if (!paths->nelts)
        return 0;
    if (has_encoded_slash(request->path))
        return 1;
    forms = forms_of(pool, request->path);
    for (int i = 0; i < paths->nelts; i++) {
        const rp_guard *guard = &APR_ARRAY_IDX(paths, i, rp_guard);

        if (path_is_guarded(guard, &forms)
            && !(guard->settings && is_merged(host, pool, request, guard->settings)))
            return 1;
    }
    return 0;
}

/* ---- by the rest of the request -------------------------------------------------------------- */

static int field_is_guarded(const rp_guard *guard, const rp_fields *fields)
{
    int found = 0;

    for (int i = 0; i < fields->count; i++) {
        const rp_field *field = &fields->items[i];

        if (field->name_len != guard->len || strcasecmp(field->name, guard->text) != 0)
            continue;
        /* httpd joins repeated fields before it looks. */
        if (found++ || rp_pattern_matches(&guard->pattern, field->value))
            return 1;
    }
    return 0;
}

/** The path as the client wrote it; path itself where that is the same. */
static const char *raw_path(apr_pool_t *pool, const rp_request *request)
{
    const char *start = request->target;
    apr_size_t len;

    if (*start != '/') {
        const char *authority = strstr(start, "://");

        start = authority ? strchr(authority + 3, '/') : NULL;
        if (!start)
            return "/";
    }
    len = strcspn(start, "?");
    if (!strncmp(start, request->path, len) && !request->path[len])
        return request->path;
    return apr_pstrmemdup(pool, start, len);
}

static int uri_is_guarded(const rp_guard *guard, apr_pool_t *pool, const rp_request *request)
{
    const char *path = request->path, *raw = raw_path(pool, request);

    return rp_pattern_matches(&guard->pattern, path)
           || (raw != path && rp_pattern_matches(&guard->pattern, raw))
           || (strchr(path, '%')
               && rp_pattern_matches(&guard->pattern, rp_uri_decode(pool, path, strlen(path))));
}

static int request_is_guarded(const rp_guard *guard, apr_pool_t *pool, const rp_request *request)
{
    switch (guard->kind) {
    case RP_BY_URI:
        return uri_is_guarded(guard, pool, request);
    case RP_BY_METHOD:
        return rp_pattern_matches(&guard->pattern, request->method);
    default:
        return field_is_guarded(guard, &request->fields);
    }
}

int rp_eligible_is_guarded(const rp_engine_host *host, apr_pool_t *pool, const rp_request *request)
{
    const apr_array_header_t *requests;

    if (!host->guards)
        return 0;
    requests = host->guards->requests;
    for (int i = 0; i < requests->nelts; i++) {
        if (request_is_guarded(&APR_ARRAY_IDX(requests, i, rp_guard), pool, request))
            return 1;
    }
    return is_guarded_by_path(host, pool, request);
}

/* ---- HTTP/2 ---------------------------------------------------------------------------------- */

/* An encoded slash counts as one, and no more than that: paths with it are ordinary, and a client
 * pays for coming back with a connection. */
int rp_eligible_needs_http1(const rp_engine_host *host, apr_pool_t *pool, const rp_request *request)
{
    const apr_array_header_t *paths = host->guards ? host->guards->paths : NULL;
    const char *path = request->path, *query;
    path_forms forms;

    if (!paths || !paths->nelts)
        return 0;
    if (has_encoded_slash(path)
        && rp_uri_path(pool, path, RP_SLASHES_DECODE, 1, &path, &query) != RP_HTTP_OK)
        return 1;
    forms = forms_of(pool, path);
    for (int i = 0; i < paths->nelts; i++) {
        const rp_guard *guard = &APR_ARRAY_IDX(paths, i, rp_guard);

        if (guard->http2 == RP_GUARD_RETRIES && path_is_guarded(guard, &forms))
            return 1;
    }
    return 0;
}
