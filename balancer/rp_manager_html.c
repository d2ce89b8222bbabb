/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Writing HTML that cannot be broken by what is shown. */
#include <stdarg.h>
#include <string.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_protocol.h"

#include "balancer/rp_manager_page.h"

#define DASH "\xe2\x80\x93"

/* ---- escaping -------------------------------------------------------------------------------- */

/** What stands for a byte; NULL: itself. */
static const char *escaped(unsigned char byte)
{
    switch (byte) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    case '\n':
    case '\t':
        return NULL;
    default:
        return byte < ' ' || byte == 0x7f ? "\xef\xbf\xbd" : NULL;
    }
}

static void put_escaped(request_rec *r, const char *text)
{
    const char *from = text;

    for (; *text; text++) {
        const char *instead = escaped((unsigned char)*text);

        if (instead) {
            ap_rwrite(from, (int)(text - from), r);
            ap_rputs(instead, r);
            from = text + 1;
        }
    }
    ap_rwrite(from, (int)(text - from), r);
}

void rp_html(request_rec *r, const char *format, ...)
{
    const char *from = format, *at;
    va_list arguments;

    va_start(arguments, format);
    for (; (at = strchr(from, '%')) != NULL; from = at) {
        ap_rwrite(from, (int)(at - from), r);
        at++;
        if (*at == 's') {
            const char *text = va_arg(arguments, const char *);

            put_escaped(r, text ? text : "");
            at++;
        }
        else if (*at == 'd') {
            ap_rprintf(r, "%d", va_arg(arguments, int));
            at++;
        }
        else if (!strncmp(at, "lld", 3)) {
            ap_rprintf(r, "%" APR_INT64_T_FMT, (apr_int64_t)va_arg(arguments, long long));
            at += 3;
        }
        else {
            ap_rputc('%', r);
            at += *at == '%';
        }
    }
    ap_rputs(from, r);
    va_end(arguments);
}

/* ---- values ---------------------------------------------------------------------------------- */

const json_t *rp_html_find(const json_t *object, const char *path)
{
    char key[32];

    while (object && *path) {
        apr_size_t len = strcspn(path, ".");

        if (len >= sizeof(key))
            return NULL;
        memcpy(key, path, len);
        key[len] = '\0';
        object = json_object_get(object, key);
        path += len + (path[len] == '.');
    }
    return json_is_null(object) ? NULL : object;
}

const char *rp_html_text(const json_t *object, const char *path)
{
    const char *text = json_string_value(rp_html_find(object, path));

    return text ? text : "";
}

json_int_t rp_html_number(const json_t *object, const char *path)
{
    return json_integer_value(rp_html_find(object, path));
}

const char *rp_html_shown(apr_pool_t *pool, const json_t *value, const char *as)
{
    if (!value || json_is_null(value))
        return as && !strcmp(as, "or-nothing") ? "" : DASH;
    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_boolean(value))
        return json_is_true(value) ? "yes" : "no";
    if (as && !strcmp(as, "limit") && json_integer_value(value) == 0)
        return "no limit";
    if (as && !strcmp(as, "ms")) {
        double number = json_number_value(value);

        return apr_psprintf(pool, number < 10 ? "%.1f" : "%.0f", number);
    }
    return apr_psprintf(pool, "%" APR_INT64_T_FMT, (apr_int64_t)json_integer_value(value));
}

void rp_html_live(request_rec *r, const char *tag, const char *class, const json_t *object,
                  const char *path, const char *as)
{
    rp_html(r, "<%s", tag);
    if (class)
        rp_html(r, " class=\"%s\"", class);
    rp_html(r, " data-key=\"%s\"", path);
    if (as)
        rp_html(r, " data-as=\"%s\"", as);
    rp_html(r, ">%s</%s>", rp_html_shown(r->pool, rp_html_find(object, path), as), tag);
}

/** "2026-11-21T20:00:00.123Z" becomes "2026-11-21 20:00:00 UTC". */
void rp_html_time(request_rec *r, const char *time)
{
    char *shown;

    if (strlen(time) < 19) {
        ap_rputs(DASH, r);
        return;
    }
    shown = apr_pstrcat(r->pool, apr_pstrndup(r->pool, time, 19), " UTC", NULL);
    shown[10] = ' ';
    rp_html(r, "<time datetime=\"%s\" title=\"%s\">%s</time>", time, shown, shown);
}

/* ---- fields ---------------------------------------------------------------------------------- */

apr_table_t *rp_html_fields(apr_pool_t *pool, char *text)
{
    apr_table_t *fields = apr_table_make(pool, 16);
    char *last, *pair;

    for (pair = apr_strtok(text, "&", &last); pair; pair = apr_strtok(NULL, "&", &last)) {
        char *value = strchr(pair, '=');

        if (value)
            *value++ = '\0';
        else
            value = pair + strlen(pair);
        if (ap_unescape_urlencoded(pair) != OK || ap_unescape_urlencoded(value) != OK)
            return NULL;
        apr_table_setn(fields, pair, value);
    }
    return fields;
}
