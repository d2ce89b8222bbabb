/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Templates with captures, RProxyRewrite, and the check that every upstream path passes.
 *
 * A capture is always a piece of a path that is still percent-encoded: it cannot hold a blank, a
 * control byte, '?' or '#', and nothing here decodes it. */
#include <string.h>
#include <strings.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "rproxy/route/rp_route_private.h"

/* ---- paths ----------------------------------------------------------------------------------- */

/** Bytes of a dot at p, plain or encoded; 0: there is none. */
static apr_size_t dot_len(const char *p, const char *end)
{
    if (p < end && *p == '.')
        return 1;
    if (end - p >= 3 && p[0] == '%' && p[1] == '2' && (p[2] == 'e' || p[2] == 'E'))
        return 3;
    return 0;
}

/** Bytes at p of what some upstream takes for the end of a segment: '/', %2F, %5C; 0: nothing. */
static apr_size_t border_len(const char *p, const char *end)
{
    if (p < end && *p == '/')
        return 1;
    if (end - p >= 3 && p[0] == '%'
        && (!strncasecmp(p + 1, "2f", 2) || !strncasecmp(p + 1, "5c", 2)))
        return 3;
    return 0;
}

int rp_path_has_dot_segment(const char *path, apr_size_t len)
{
    const char *end = path + len;

    for (const char *p = path; p < end; p++) {
        const char *at = p + border_len(p, end);
        apr_size_t dot;

        if (at == p || !(dot = dot_len(at, end)))
            continue;
        at += dot;
        at += dot_len(at, end);
        if (at == end || *at == ';' || border_len(at, end))
            return 1;
    }
    return 0;
}

rp_http_error rp_upstream_path_check(const char *path, apr_size_t len)
{
    if (len == 0 || path[0] != '/' || (len > 1 && path[1] == '/'))
        return RP_HTTP_BAD_TARGET;
    for (apr_size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)path[i];

        if (byte <= ' ' || byte == 0x7f || byte == '#' || byte == '?' || byte == '\\')
            return RP_HTTP_BAD_TARGET;
        if (byte != '%')
            continue;
        if (len - i < 3 || rp_hex_value(path[i + 1]) < 0 || rp_hex_value(path[i + 2]) < 0
            || (path[i + 1] == '0' && path[i + 2] == '0'))
            return RP_HTTP_BAD_TARGET;
    }
    return rp_path_has_dot_segment(path, len) ? RP_HTTP_BAD_TARGET : RP_HTTP_OK;
}

int rp_query_is_valid(const char *query)
{
    for (; *query; query++) {
        if ((unsigned char)*query <= ' ' || *query == 0x7f || *query == '#')
            return 0;
    }
    return 1;
}

/* ---- templates ------------------------------------------------------------------------------- */

const char *rp_template_check(apr_pool_t *pool, const char *text, apr_size_t groups)
{
    for (const char *p = strchr(text, '$'); p; p = strchr(p + 2, '$')) {
        if (p[1] == '$')
            continue;
        if (!apr_isdigit(p[1]))
            return apr_psprintf(pool,
                                "\"%s\": '$' is followed by neither a digit nor '$'; write $$ "
                                "for a plain dollar",
                                text);
        if ((apr_size_t)(p[1] - '0') > groups)
            return apr_psprintf(pool, "\"%s\": there is no $%c, the expression has %"
                                APR_SIZE_T_FMT " groups; add parentheses or use a smaller number",
                                text, p[1], groups);
    }
    return NULL;
}

/** Appends a capture to a query: path bytes that would separate arguments there are data here. */
static void add_to_query(rp_buffer *out, const char *text, apr_size_t len)
{
    static const char hex[] = "0123456789ABCDEF";

    for (apr_size_t i = 0; i < len; i++) {
        if (text[i] == '&' || text[i] == '+' || text[i] == ';') {
            char encoded[3] = { '%', hex[(text[i] >> 4) & 15], hex[text[i] & 15] };

            rp_buffer_add(out, encoded, sizeof(encoded));
        }
        else
            rp_buffer_add(out, text + i, 1);
    }
}

static void add_capture(rp_buffer *out, const char *text, apr_size_t len, int in_query)
{
    if (in_query) {
        add_to_query(out, text, len);
        return;
    }
    if (out->len && out->data[out->len - 1] == '/') {
        while (len && *text == '/') {
            text++;
            len--;
        }
    }
    rp_buffer_add(out, text, len);
}

int rp_template_fill(rp_buffer *out, const char *text, apr_size_t len,
                     const rp_template_source *source, int in_query)
{
    const char *end = text + len;

    while (text < end) {
        const char *dollar = memchr(text, '$', (apr_size_t)(end - text));
        const ap_regmatch_t *group;

        if (!dollar || end - dollar < 2) {
            rp_buffer_add(out, text, (apr_size_t)(end - text));
            break;
        }
        rp_buffer_add(out, text, (apr_size_t)(dollar - text));
        text = dollar + 2;
        if (!apr_isdigit(dollar[1])) {
            rp_buffer_add(out, "$", 1);
            continue;
        }
        group = &source->groups[dollar[1] - '0'];
        if (group->rm_so >= 0 && group->rm_eo > group->rm_so)
            add_capture(out, source->subject + group->rm_so,
                        (apr_size_t)(group->rm_eo - group->rm_so), in_query);
        if (out->len > RP_HTTP_HEAD_MAX)
            return 0;
    }
    return out->len <= RP_HTTP_HEAD_MAX;
}

/* ---- RProxyRewrite --------------------------------------------------------------------------- */

static const char *parse_flags(apr_pool_t *pool, const char *flags, rp_rewrite *rewrite,
                               int *cflags)
{
    apr_size_t len = flags ? strlen(flags) : 0;
    char *list, *state = NULL;

    if (!flags)
        return NULL;
    if (len < 3 || flags[0] != '[' || flags[len - 1] != ']')
        return apr_psprintf(pool, "flags \"%s\": write them in brackets, as in [NC,QSA,L]", flags);
    list = apr_pstrmemdup(pool, flags + 1, len - 2);
    for (char *flag = apr_strtok(list, ",", &state); flag; flag = apr_strtok(NULL, ",", &state)) {
        if (!strcasecmp(flag, "NC"))
            *cflags |= AP_REG_ICASE;
        else if (!strcasecmp(flag, "QSA"))
            rewrite->query_append = 1;
        else if (!strcasecmp(flag, "L"))
            rewrite->last = 1;
        else
            return apr_psprintf(pool,
                                "unknown flag \"%s\"; known are NC, QSA and L (where a request "
                                "goes is said by RProxyPass, redirects by RewriteRule)",
                                flag);
    }
    return NULL;
}

static const char *check_subst(apr_pool_t *pool, const char *subst, apr_size_t groups)
{
    apr_size_t path_len = strcspn(subst, "?");
    char *path;

    for (const char *p = subst; *p; p++) {
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f || *p == '#' || *p == '\\')
            return apr_psprintf(pool, "\"%.*s\": byte 0x%02x follows, blanks, control bytes, '#', "
                                "backslashes and bytes outside ASCII aren't allowed; write them "
                                "percent-encoded", (int)(p - subst), subst, (unsigned char)*p);
    }
    if (subst[0] != '/' && !(subst[0] == '$' && apr_isdigit(subst[1])))
        return apr_psprintf(pool,
                            "\"%s\": the new path must begin with '/'; the target of a request "
                            "is said by RProxyPass",
                            subst);
    if (subst[0] == '/' && subst[1] == '/')
        return apr_psprintf(pool, "\"%s\": begin it with one slash", subst);
    path = apr_pstrmemdup(pool, subst, path_len);
    if (rp_path_has_dot_segment(path, path_len))
        return apr_psprintf(pool, "\"%s\": remove the \".\" and \"..\" segments", subst);
    return rp_template_check(pool, subst, groups);
}

const char *rp_rewrite_parse(apr_pool_t *pool, const char *regex, const char *subst,
                             const char *flags, rp_rewrite **rewrite)
{
    rp_rewrite *made = apr_pcalloc(pool, sizeof(*made));
    int cflags = 0;
    const char *message = parse_flags(pool, flags, made, &cflags);

    if (message)
        return message;
    made->regex = ap_pregcomp(pool, regex, cflags);
    if (!made->regex)
        return apr_psprintf(pool,
                            "regular expression \"%s\" doesn't compile; check its parentheses "
                            "and brackets",
                            regex);
    if ((message = check_subst(pool, subst, made->regex->re_nsub)))
        return message;
    if (made->query_append && !strchr(subst, '?'))
        return apr_psprintf(pool, "QSA has no effect, \"%s\" sets no query; remove the flag or add "
                            "?NAME=VALUE", subst);
    made->subst = apr_pstrdup(pool, subst);
    *rewrite = made;
    return NULL;
}

/** The query that a rewrite with '?' leaves; NULL: none. */
static rp_http_error rewrite_query(apr_pool_t *pool, const rp_rewrite *rewrite,
                                   const char *template, const rp_template_source *source,
                                   const char **query)
{
    rp_buffer out;

    rp_buffer_init(&out, pool, 128);
    if (!rp_template_fill(&out, template, strlen(template), source, 1))
        return RP_HTTP_BAD_TARGET;
    if (rewrite->query_append && *query && **query) {
        if (out.len)
            rp_buffer_add(&out, "&", 1);
        rp_buffer_add(&out, *query, strlen(*query));
    }
    *query = out.len ? apr_pstrmemdup(pool, out.data, out.len) : NULL;
    return !*query || rp_query_is_valid(*query) ? RP_HTTP_OK : RP_HTTP_BAD_TARGET;
}

rp_http_error rp_rewrite_apply(apr_pool_t *pool, const apr_array_header_t *rewrites,
                               const char **path, const char **query)
{
    for (int i = 0; rewrites && i < rewrites->nelts; i++) {
        const rp_rewrite *rewrite = APR_ARRAY_IDX(rewrites, i, const rp_rewrite *);
        ap_regmatch_t groups[10];
        rp_template_source source = { rp_uri_canonical(pool, *path), groups };
        apr_size_t path_len = strcspn(rewrite->subst, "?");
        rp_buffer out;

        if (ap_regexec(rewrite->regex, source.subject, 10, groups, 0) != 0)
            continue;
        rp_buffer_init(&out, pool, 256);
        if (!rp_template_fill(&out, rewrite->subst, path_len, &source, 0)
            || rp_upstream_path_check(out.data, out.len) != RP_HTTP_OK)
            return RP_HTTP_BAD_TARGET;
        *path = apr_pstrmemdup(pool, out.data, out.len);
        if (rewrite->subst[path_len] == '?'
            && rewrite_query(pool, rewrite, rewrite->subst + path_len + 1, &source, query)
               != RP_HTTP_OK)
            return RP_HTTP_BAD_TARGET;
        if (rewrite->last)
            break;
    }
    return RP_HTTP_OK;
}
