/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The way back: addresses in response fields, from the upstream's view to the client's. */
#include <string.h>
#include <strings.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "rproxy/route/rp_route_private.h"

/* ---- pieces ---------------------------------------------------------------------------------- */

void rp_mapped_add(rp_mapped *mapped, const char *part, apr_size_t len)
{
    mapped->parts[mapped->count] = part;
    mapped->lens[mapped->count++] = len;
}

/** Nonzero if the parts are what already stands at text. */
static int is_same(const rp_mapped *mapped, const char *text)
{
    apr_size_t at = 0;

    for (int i = 0; i < mapped->count; i++) {
        if (mapped->lens[i] > mapped->rest - at
            || memcmp(text + at, mapped->parts[i], mapped->lens[i]) != 0)
            return 0;
        at += mapped->lens[i];
    }
    return at == mapped->rest;
}

void rp_splice_apply(rp_splice *splice, apr_size_t at, const rp_mapped *mapped)
{
    if (is_same(mapped, splice->value + at))
        return;
    if (!splice->changed) {
        rp_buffer_init(&splice->out, splice->pool, splice->len + 128);
        splice->changed = 1;
    }
    rp_buffer_add(&splice->out, splice->value + splice->copied, at - splice->copied);
    for (int i = 0; i < mapped->count; i++)
        rp_buffer_add(&splice->out, mapped->parts[i], mapped->lens[i]);
    splice->copied = at + mapped->rest;
}

const char *rp_splice_result(rp_splice *splice)
{
    if (!splice->changed)
        return splice->value;
    rp_buffer_add(&splice->out, splice->value + splice->copied, splice->len - splice->copied);
    rp_buffer_add(&splice->out, "", 1);
    return splice->out.data;
}

/* ---- paths and authorities ------------------------------------------------------------------- */

static apr_size_t len_without_final_slash(const char *path)
{
    apr_size_t len = strlen(path);

    return len && path[len - 1] == '/' ? len - 1 : len;
}

int rp_map_path(const char *path, apr_size_t len, const char *from, const char *to,
                rp_mapped *mapped)
{
    apr_size_t from_len = len_without_final_slash(from);
    apr_size_t to_len = len_without_final_slash(to);
    int border;

    if (len < from_len || memcmp(path, from, from_len) != 0)
        return 0;
    border = len == from_len ? '\0' : path[from_len];
    if (border != '\0' && border != '/' && border != '?' && border != '#')
        return 0;
    mapped->rest = from_len;
    rp_mapped_add(mapped, to, to_len);
    /* A URL without path is one with "/"; and a path is never empty. */
    if (border != '/' && (!from_len || !to_len))
        rp_mapped_add(mapped, "/", 1);
    else if (border == '/' && from_len && !to_len && !mapped->lens[0]) {
        /* "/base//host" must not become "//host", nor what browsers read as that. */
        rp_mapped_add(mapped, "/", 1);
        while (mapped->rest < len && strchr("/\\\t", path[mapped->rest]))
            mapped->rest++;
    }
    return 1;
}

apr_size_t rp_authority_host_len(const char *authority, apr_size_t len)
{
    const char *end = len && *authority == '[' ? memchr(authority, ']', len) : NULL;
    const char *colon = end ? end + 1 : memchr(authority, ':', len);

    return colon ? (apr_size_t)(colon - authority) : len;
}

/** Length of an authority without a port that is empty or the scheme's default. */
static apr_size_t plain_len(const char *authority, apr_size_t len, int is_https)
{
    apr_size_t host = rp_authority_host_len(authority, len);
    const char *port = is_https ? ":443" : ":80";

    if (len - host == 1
        || (len - host == strlen(port) && !memcmp(authority + host, port, len - host)))
        return host;
    return len;
}

static int same_authority(const char *a, apr_size_t a_len, const char *b, apr_size_t b_len,
                          int is_https)
{
    a_len = plain_len(a, a_len, is_https);
    return a_len && a_len == plain_len(b, b_len, is_https) && !strncasecmp(a, b, a_len);
}

/* ---- URLs ------------------------------------------------------------------------------------ */

typedef enum url_kind { URL_OTHER, URL_PATH, URL_SCHEME_RELATIVE, URL_ABSOLUTE } url_kind;

/** A URL taken apart as far as mapping needs it. */
typedef struct url_view {
    url_kind kind;
    const char *text;
    apr_size_t len;
    int is_https;                       /* of URL_ABSOLUTE */
    const char *authority;
    apr_size_t authority_len;
    apr_size_t path;                    /* offset of the path in text */
} url_view;

static url_view view_url(const char *text, apr_size_t len)
{
    url_view url = { URL_OTHER, text, len, 0, text, 0, 0 };
    apr_size_t at;

    if (len >= 7 && !strncasecmp(text, "http://", 7)) {
        url.kind = URL_ABSOLUTE;
        at = 7;
    }
    else if (len >= 8 && !strncasecmp(text, "https://", 8)) {
        url.kind = URL_ABSOLUTE;
        url.is_https = 1;
        at = 8;
    }
    else if (len >= 2 && text[0] == '/' && text[1] == '/') {
        url.kind = URL_SCHEME_RELATIVE;
        at = 2;
    }
    else {
        url.kind = len && text[0] == '/' ? URL_PATH : URL_OTHER;
        return url;
    }
    url.authority = text + at;
    while (at < len && text[at] != '/' && text[at] != '?' && text[at] != '#')
        at++;
    url.authority_len = (apr_size_t)(text + at - url.authority);
    url.path = at;
    return url;
}

static int upstream_is_https(const rp_reverse *reverse)
{
    return !strcasecmp(reverse->upstream_scheme, "https");
}

/** Nonzero if url is an address of the upstream itself. */
static int is_own(const rp_reverse *reverse, const url_view *url)
{
    const char *names[2] = { reverse->upstream_authority, reverse->sent_host };
    int is_https = upstream_is_https(reverse);

    if (url->kind == URL_PATH)
        return 1;
    if (url->kind == URL_OTHER || (url->kind == URL_ABSOLUTE && url->is_https != is_https))
        return 0;
    for (int i = 0; i < 2; i++) {
        if (names[i] && same_authority(url->authority, url->authority_len, names[i],
                                       strlen(names[i]), is_https))
            return 1;
    }
    return 0;
}

/** Adds scheme and authority as the client knows them, in url's form. Returns 0 if the client named
 * no authority: then an absolute URL can't be mapped. */
static int add_client(const rp_reverse *reverse, const url_view *url, rp_mapped *mapped)
{
    if (url->kind == URL_PATH)
        return 1;
    if (!reverse->client_authority || !*reverse->client_authority)
        return 0;
    if (url->kind == URL_ABSOLUTE) {
        rp_mapped_add(mapped, reverse->client_scheme, strlen(reverse->client_scheme));
        rp_mapped_add(mapped, "://", 3);
    }
    else
        rp_mapped_add(mapped, "//", 2);
    rp_mapped_add(mapped, reverse->client_authority, strlen(reverse->client_authority));
    return 1;
}

/** Adds what the path of url becomes. */
static int map_path_of(const url_view *url, const char *from, const char *to, rp_mapped *mapped)
{
    if (!rp_map_path(url->text + url->path, url->len - url->path, from, to, mapped))
        return 0;
    mapped->rest += url->path;
    return 1;
}

static int map_by_rule(const rp_reverse *reverse, const rp_reverse_rule *rule, const url_view *url,
                       rp_mapped *mapped)
{
    url_view from = view_url(rule->from, strlen(rule->from));

    memset(mapped, 0, sizeof(*mapped));
    if (from.kind == URL_PATH) {
        if (!is_own(reverse, url))
            return 0;
    }
    else {
        int is_https = url->kind == URL_ABSOLUTE ? url->is_https : upstream_is_https(reverse);

        if (from.kind != URL_ABSOLUTE || url->kind < URL_SCHEME_RELATIVE
            || from.is_https != is_https
            || !same_authority(url->authority, url->authority_len, from.authority,
                               from.authority_len, is_https))
            return 0;
    }
    if (*rule->to == '/' && rule->to[1] != '/' && !add_client(reverse, url, mapped))
        return 0;
    return map_path_of(url, rule->from + from.path, rule->to, mapped);
}

static int map_by_route(const rp_reverse *reverse, const url_view *url, rp_mapped *mapped)
{
    memset(mapped, 0, sizeof(*mapped));
    if (!is_own(reverse, url) || (url->kind == URL_PATH && !reverse->client_prefix)
        || !add_client(reverse, url, mapped))
        return 0;
    if (reverse->client_prefix)
        return map_path_of(url, reverse->upstream_base, reverse->client_prefix, mapped);
    mapped->rest = url->path;
    return 1;
}

/** Maps the URL of len bytes at offset at of the value. */
static void map_url(rp_splice *splice, const rp_reverse *reverse, apr_size_t at, apr_size_t len)
{
    url_view url = view_url(splice->value + at, len);
    const apr_array_header_t *rules = reverse->rules;
    rp_mapped mapped;

    if (url.kind == URL_OTHER)
        return;
    for (int i = 0; rules && i < rules->nelts; i++) {
        if (map_by_rule(reverse, &APR_ARRAY_IDX(rules, i, rp_reverse_rule), &url, &mapped)) {
            rp_splice_apply(splice, at, &mapped);
            return;
        }
    }
    if (map_by_route(reverse, &url, &mapped))
        rp_splice_apply(splice, at, &mapped);
}

/* ---- fields ---------------------------------------------------------------------------------- */

static apr_size_t skip_blanks(const rp_splice *splice, apr_size_t at)
{
    while (at < splice->len && (splice->value[at] == ' ' || splice->value[at] == '\t'))
        at++;
    return at;
}

/** "5; url=/x", as browsers read it: ',' for ';', "url=" and quotes may be there or not. */
static void map_refresh(rp_splice *splice, const rp_reverse *reverse)
{
    const char *value = splice->value;
    apr_size_t at = skip_blanks(splice, 0), start;
    apr_size_t end = splice->len;

    while (at < end && (apr_isdigit(value[at]) || value[at] == '.'))
        at++;
    start = at;
    at = skip_blanks(splice, at);
    if (at < end && (value[at] == ';' || value[at] == ','))
        at = skip_blanks(splice, at + 1);
    else if (at == start)
        return;
    if (end - at >= 3 && !strncasecmp(value + at, "url", 3)) {
        apr_size_t equals = skip_blanks(splice, at + 3);

        if (equals < end && value[equals] == '=')
            at = skip_blanks(splice, equals + 1);
    }
    if (at < end && (value[at] == '"' || value[at] == '\'')) {
        const char *quote = memchr(value + at + 1, value[at], end - at - 1);

        at++;
        end = quote ? (apr_size_t)(quote - value) : end;
    }
    map_url(splice, reverse, at, end - at);
}

/** Offset behind the parameters of one link, at its comma or at the end (RFC 8288 section 3). */
static apr_size_t end_of_link(const rp_splice *splice, apr_size_t at)
{
    int quoted = 0;

    for (; at < splice->len && (quoted || splice->value[at] != ','); at++) {
        if (splice->value[at] == '"')
            quoted = !quoted;
        else if (quoted && splice->value[at] == '\\' && at + 1 < splice->len)
            at++;
    }
    return at;
}

static void map_links(rp_splice *splice, const rp_reverse *reverse)
{
    for (apr_size_t at = 0; at < splice->len; at = end_of_link(splice, at) + 1) {
        const char *close;

        at = skip_blanks(splice, at);
        if (at == splice->len || splice->value[at] != '<')
            continue;
        close = memchr(splice->value + at, '>', splice->len - at);
        if (!close)
            return;
        map_url(splice, reverse, at + 1, (apr_size_t)(close - splice->value) - at - 1);
        at = (apr_size_t)(close - splice->value);
    }
}

const char *rp_reverse_field(apr_pool_t *pool, const rp_reverse *reverse, const rp_field *field)
{
    rp_splice splice = { .pool = pool, .value = field->value, .len = field->value_len };

    switch (field->id) {
    case RP_FIELD_LOCATION:
    case RP_FIELD_CONTENT_LOCATION:
    case RP_FIELD_DESTINATION:
        map_url(&splice, reverse, 0, splice.len);
        break;
    case RP_FIELD_REFRESH:
        map_refresh(&splice, reverse);
        break;
    case RP_FIELD_LINK:
        map_links(&splice, reverse);
        break;
    case RP_FIELD_SET_COOKIE:
        rp_reverse_cookie(&splice, reverse);
        break;
    default:
        break;
    }
    return rp_splice_result(&splice);
}

/* ---- the upstream ---------------------------------------------------------------------------- */

void rp_reverse_set_upstream(rp_reverse *reverse, const rp_target *target, const char *kept_host)
{
    reverse->upstream_scheme = target->scheme == RP_SCHEME_HTTPS ? "https" : "http";
    reverse->upstream_authority = target->authority;
    reverse->sent_host = kept_host ? kept_host : target->authority;
    reverse->upstream_base = target->base;
}
