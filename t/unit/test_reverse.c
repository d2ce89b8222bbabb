/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The way back: what the client sees of the upstream's addresses. */
#include <time.h>
#include <apr_strings.h>

#include "rproxy/route/rp_route.h"
#include "t/unit/tap.h"

static apr_pool_t *pool;

/** RProxyPass /app http://b:8080/base, Host kept, client over TLS. */
static const rp_reverse usual = {
    .upstream_scheme = "http", .upstream_authority = "b:8080", .sent_host = "www.example.org",
    .upstream_base = "/base", .client_scheme = "https", .client_authority = "www.example.org",
    .client_prefix = "/app",
};

/** RProxyPass /app/ http://b/ */
static const rp_reverse root = {
    .upstream_scheme = "http", .upstream_authority = "b", .sent_host = "b", .upstream_base = "/",
    .client_scheme = "http", .client_authority = "c:8000", .client_prefix = "/app/",
};

/** RProxyPass / http://b/ without TLS */
static const rp_reverse same = {
    .upstream_scheme = "http", .upstream_authority = "b", .sent_host = "c", .upstream_base = "/",
    .client_scheme = "http", .client_authority = "c", .client_prefix = "/",
};

static void map_len(const rp_reverse *reverse, rp_field_id id, const char *value, apr_size_t len,
                    const char *expected)
{
    rp_field field = { "", value, 0, (apr_uint32_t)len, id };
    const char *got = rp_reverse_field(pool, reverse, &field);

    if (expected)
        is_text(got, expected, value);
    else
        ok(got == value, "unchanged: %.80s%s%.200s", value, got == value ? "" : " became ",
           got == value ? "" : got);
}

/** @param expected  NULL: unchanged, the very same pointer */
static void map(const rp_reverse *reverse, rp_field_id id, const char *value, const char *expected)
{
    map_len(reverse, id, value, strlen(value), expected);
}

static void location(const rp_reverse *reverse, const char *value, const char *expected)
{
    map(reverse, RP_FIELD_LOCATION, value, expected);
}

static void cookie(const rp_reverse *reverse, const char *value, const char *expected)
{
    map(reverse, RP_FIELD_SET_COOKIE, value, expected);
}

static apr_array_header_t *rules(const char *from, const char *to, const char *from2,
                                 const char *to2)
{
    apr_array_header_t *list = apr_array_make(pool, 2, sizeof(rp_reverse_rule));

    APR_ARRAY_PUSH(list, rp_reverse_rule) = (rp_reverse_rule){ from, to };
    if (from2)
        APR_ARRAY_PUSH(list, rp_reverse_rule) = (rp_reverse_rule){ from2, to2 };
    return list;
}

static void test_absolute(void)
{
    rp_reverse v6 = usual, tls = usual;

    location(&usual, "http://b:8080/base/x?y#z", "https://www.example.org/app/x?y#z");
    location(&usual, "HTTP://B:8080/base/x", "https://www.example.org/app/x");
    location(&usual, "http://www.example.org/base/x", "https://www.example.org/app/x");
    location(&usual, "http://www.example.org:80/base/", "https://www.example.org/app/");
    location(&usual, "http://www.example.org:/base", "https://www.example.org/app");
    location(&usual, "http://b:8080/base?x", "https://www.example.org/app?x");
    location(&usual, "//b:8080/base/x", "//www.example.org/app/x");
    location(&usual, "//www.example.org/base/x", "//www.example.org/app/x");
    location(&usual, "http://b:8080/based", NULL);
    location(&usual, "http://b:8080/", NULL);
    location(&usual, "http://b:8080", NULL);
    location(&usual, "http://b/base/x", NULL);
    location(&usual, "http://b:80800/base/x", NULL);
    location(&usual, "http://bb:8080/base/x", NULL);
    location(&usual, "http://b:8080.evil/base/x", NULL);
    location(&usual, "http://b:8080@evil/base/x", NULL);
    location(&usual, "http://u@b:8080/base/x", NULL);
    location(&usual, "http://b:8080\\@evil/base/x", NULL);
    location(&usual, "https://b:8080/base/x", NULL);
    location(&usual, "https://www.example.org/base/x", NULL);
    location(&usual, "ftp://b:8080/base/x", NULL);
    location(&usual, "http:/b:8080/base/x", NULL);
    location(&usual, "mailto:x@b", NULL);
    location(&usual, "http://", NULL);
    location(&usual, "//", NULL);
    location(&usual, "", NULL);

    location(&root, "http://b/x", "http://c:8000/app/x");
    location(&root, "http://b:80/x", "http://c:8000/app/x");
    location(&root, "http://b", "http://c:8000/app/");
    location(&root, "http://b?x", "http://c:8000/app/?x");
    location(&root, "http://b#x", "http://c:8000/app/#x");
    location(&root, "http://b//x", "http://c:8000/app//x");
    location(&root, "http://c:8000/x", NULL);
    location(&same, "http://b/x", "http://c/x");
    location(&same, "http://c/x", NULL);
    location(&same, "http://c:80/x", "http://c/x");

    tls.upstream_scheme = "https";
    tls.upstream_authority = "b:443";
    location(&tls, "https://b/base/", "https://www.example.org/app/");
    location(&tls, "https://www.example.org:443/base/", "https://www.example.org/app/");
    location(&tls, "http://b:443/base/", NULL);
    location(&tls, "https://b:80/base/", NULL);

    v6.upstream_authority = "[2001:db8::1]";
    v6.client_authority = "[::2]:8443";
    location(&v6, "http://[2001:DB8::1]/base/x", "https://[::2]:8443/app/x");
    location(&v6, "http://[2001:db8::1]:80/base/x", "https://[::2]:8443/app/x");
    location(&v6, "http://[2001:db8::1]:81/base/x", NULL);
    location(&v6, "http://[2001:db8::1/base/x", NULL);
    v6.client_authority = "";
    location(&v6, "http://[2001:db8::1]/base/x", NULL);
    location(&v6, "/base/x", "/app/x");
}

static void test_paths(void)
{
    rp_reverse top = usual, regex = usual;

    location(&usual, "/base/x?y", "/app/x?y");
    location(&usual, "/base", "/app");
    location(&usual, "/base/", "/app/");
    location(&usual, "/base#x", "/app#x");
    location(&usual, "/based/x", NULL);
    location(&usual, "/", NULL);
    location(&usual, "base/x", NULL);
    location(&usual, "?x", NULL);
    location(&usual, "x://base", NULL);
    location(&root, "/signin", "/app/signin");
    location(&root, "/", "/app/");
    location(&same, "/x", NULL);
    location(&same, "/\\x", NULL);
    map(&usual, RP_FIELD_CONTENT_LOCATION, "/base/x", "/app/x");
    map(&usual, RP_FIELD_DESTINATION, "http://b:8080/base/x", "https://www.example.org/app/x");
    map(&usual, RP_FIELD_OTHER, "/base/x", NULL);
    map(&usual, RP_FIELD_CONTENT_TYPE, "/base/x", NULL);

    top.client_prefix = "/";
    location(&top, "/base/x", "/x");
    location(&top, "/base", "/");
    location(&top, "/base?x", "/?x");
    location(&top, "/base//evil/x", "/evil/x");
    location(&top, "/base/\\evil/x", "/evil/x");
    location(&top, "/base/\t/\\/evil/x", "/evil/x");
    location(&top, "/base//", "/");
    location(&top, "http://b:8080/base//x", "https://www.example.org//x");
    location(&top, "http://b:8080/base", "https://www.example.org/");

    regex.client_prefix = NULL;
    location(&regex, "/base/x", NULL);
    location(&regex, "http://b:8080/base/x", "https://www.example.org/base/x");
    location(&regex, "http://b:8080", "https://www.example.org");
    cookie(&regex, "a=b; Path=/base", NULL);
}

static void test_rules(void)
{
    rp_reverse reverse = usual;

    reverse.rules = rules("http://other:80/x", "/other/", "/base/old", "/new");
    location(&reverse, "http://OTHER/x/y", "https://www.example.org/other/y");
    location(&reverse, "http://other/x", "https://www.example.org/other");
    location(&reverse, "http://other/xy", NULL);
    location(&reverse, "//other/x/y", "//www.example.org/other/y");
    location(&reverse, "https://other/x/y", NULL);
    location(&reverse, "/x/y", NULL);
    location(&reverse, "/base/old/y", "/new/y");
    location(&reverse, "http://b:8080/base/old/y", "https://www.example.org/new/y");
    location(&reverse, "/base/older", "/app/older");
    reverse.rules = rules("http://other", "https://cdn.example.org/o", "/", "http://x");
    location(&reverse, "http://other/y", "https://cdn.example.org/o/y");
    location(&reverse, "http://other", "https://cdn.example.org/o/");
    location(&reverse, "/y", "http://x/y");
    location(&reverse, "http://b:8080/y", "http://x/y");
    location(&reverse, "http://elsewhere/y", NULL);
    reverse.rules = rules("/base/keep", "/base/keep", "nonsense", "/x");
    location(&reverse, "/base/keep/y", NULL);
    location(&reverse, "nonsense", NULL);
    reverse.rules = rules("/base", "/", NULL, NULL);
    location(&reverse, "/base//evil", "/evil");
    reverse.client_authority = "";
    reverse.rules = rules("http://other/x", "/", NULL, NULL);
    location(&reverse, "http://other/x//evil", NULL);
}

static void test_refresh(void)
{
    map(&usual, RP_FIELD_REFRESH, "5; url=http://b:8080/base/x",
        "5; url=https://www.example.org/app/x");
    map(&usual, RP_FIELD_REFRESH, "0;URL=/base/x", "0;URL=/app/x");
    map(&usual, RP_FIELD_REFRESH, "0.5 , url = '/base/x'", "0.5 , url = '/app/x'");
    map(&usual, RP_FIELD_REFRESH, "1; url=\"/base/x\"; y", "1; url=\"/app/x\"; y");
    map(&usual, RP_FIELD_REFRESH, "1; url=\"/base", "1; url=\"/app");
    map(&usual, RP_FIELD_REFRESH, "5; /base/x", "5; /app/x");
    map(&usual, RP_FIELD_REFRESH, "5 /base/x", "5 /app/x");
    map(&usual, RP_FIELD_REFRESH, "5", NULL);
    map(&usual, RP_FIELD_REFRESH, "5;", NULL);
    map(&usual, RP_FIELD_REFRESH, "5; url=", NULL);
    map(&usual, RP_FIELD_REFRESH, "5; url", NULL);
    map(&usual, RP_FIELD_REFRESH, "5; url='", NULL);
    map(&usual, RP_FIELD_REFRESH, "5; url=x", NULL);
    map(&usual, RP_FIELD_REFRESH, "url=/base/x", NULL);
    map(&usual, RP_FIELD_REFRESH, "5; url=http://elsewhere/base", NULL);
    map(&usual, RP_FIELD_REFRESH, "", NULL);
    map(&usual, RP_FIELD_REFRESH, ";", NULL);
}

static void test_link(void)
{
    map(&usual, RP_FIELD_LINK, "</base/a.css>; rel=preload; as=style",
        "</app/a.css>; rel=preload; as=style");
    map(&usual, RP_FIELD_LINK,
        "<http://b:8080/base/2>; rel=\"next\", </base/1>;rel=prev,<http://elsewhere/base/9>; "
        "rel=last",
        "<https://www.example.org/app/2>; rel=\"next\", "
        "</app/1>;rel=prev,<http://elsewhere/base/9>; "
        "rel=last");
    map(&usual, RP_FIELD_LINK, "</base/1>; title=\"a, </base/2>; \\\" </base/3>\", </base/4>",
        "</app/1>; title=\"a, </base/2>; \\\" </base/3>\", </app/4>");
    map(&usual, RP_FIELD_LINK, "</base/a,b;c>; rel=x, , </base/d>",
        "</app/a,b;c>; rel=x, , </app/d>");
    map(&usual, RP_FIELD_LINK, ", x </base/1>, </base/2>", ", x </base/1>, </app/2>");
    map(&usual, RP_FIELD_LINK, "</x>; rel=y", NULL);
    map(&usual, RP_FIELD_LINK, "</base/1", NULL);
    map(&usual, RP_FIELD_LINK, "<", NULL);
    map(&usual, RP_FIELD_LINK, "<>", NULL);
    map(&usual, RP_FIELD_LINK, "", NULL);
    map(&usual, RP_FIELD_LINK, ",", NULL);
    map(&usual, RP_FIELD_LINK, "</x>; title=\"", NULL);
    map(&usual, RP_FIELD_LINK, "</x>; title=\"\\", NULL);
    map(&usual, RP_FIELD_LINK, "</x>; title=\"</base/1>, </base/2>", NULL);
}

static void test_cookie_path(void)
{
    rp_reverse reverse = usual;

    cookie(&usual, "a=b; Path=/base", "a=b; Path=/app");
    cookie(&usual, "a=b;path=/base/;HttpOnly", "a=b;path=/app/;HttpOnly");
    cookie(&usual, "a=\"x; PATH = /base/x ; Secure", "a=\"x; PATH = /app/x ; Secure");
    cookie(&usual, "a=b; Path=/base; path=/base/y; x=/base",
           "a=b; Path=/app; path=/app/y; x=/base");
    cookie(&usual, "Path=/base; a=b", NULL);
    cookie(&usual, "a=b; Path=/based", NULL);
    cookie(&usual, "a=b; Path=/", NULL);
    cookie(&usual, "a=b; Path=", NULL);
    cookie(&usual, "a=b; Path", NULL);
    cookie(&usual, "a=b; Path=\"/base\"", NULL);
    cookie(&usual, "a=/base", NULL);
    cookie(&usual, "", NULL);
    cookie(&usual, ";", NULL);
    cookie(&usual, ";;;=;=;path;", NULL);
    cookie(&root, "a=b; Path=/; Secure", "a=b; Path=/app; Secure");
    cookie(&root, "a=b; Path=/x", "a=b; Path=/app/x");
    cookie(&root, "__Host-a=b; Secure; Path=/", NULL);
    cookie(&root, " __host-a=b; Secure; Path=/", NULL);
    cookie(&root, "__Secure-a=b; Secure; Path=/", "__Secure-a=b; Secure; Path=/app");
    cookie(&same, "a=b; Path=/; Path=/x", NULL);

    reverse.cookie_paths = rules("/base/deep", "/d", "/", "/all");
    cookie(&reverse, "a=b; Path=/base/deep/er", "a=b; Path=/d/er");
    cookie(&reverse, "a=b; Path=/base", "a=b; Path=/all/base");
    cookie(&reverse, "a=b; Path=/", "a=b; Path=/all");
    reverse.client_prefix = "/";
    reverse.cookie_paths = NULL;
    cookie(&reverse, "a=b; Path=/base", "a=b; Path=/");
    cookie(&reverse, "a=b; Path=/base/x; y", "a=b; Path=/x; y");
}

static void test_cookie_domain(void)
{
    rp_reverse reverse = usual;

    cookie(&usual, "a=b; Domain=b; Secure", "a=b; Secure");
    cookie(&usual, "a=b;domain = .B ;x", "a=b;x");
    cookie(&usual, "a=b; Domain=b; Path=/base; domain=b", "a=b; Path=/app");
    cookie(&usual, "a=b; Domain=bb", NULL);
    cookie(&usual, "a=b; Domain=www.example.org", NULL);
    cookie(&usual, "a=b; Domain=example.org", NULL);
    cookie(&usual, "a=b; Domain=", NULL);
    cookie(&usual, "a=b; Domain=.", NULL);
    cookie(&usual, "Domain=b", NULL);
    reverse.upstream_authority = "example.org:81";
    cookie(&reverse, "a=b; Domain=example.org", NULL);
    reverse.client_authority = "badexample.org";
    reverse.sent_host = "sent.example.org:99";
    cookie(&reverse, "a=b; Domain=example.org", "a=b");
    cookie(&reverse, "a=b; Domain=sent.example.org", "a=b");
    reverse.cookie_domains =
        rules("internal", "www.example.org", ".example.org", ".public.example.net");
    cookie(&reverse, "a=b; Domain=.Internal; x", "a=b; Domain=www.example.org; x");
    cookie(&reverse, "a=b; Domain=example.org", "a=b; Domain=.public.example.net");
    cookie(&reverse, "a=b; Domain=x.internal", NULL);
}

static void bad_rule(rp_reverse_kind kind, const char *from, const char *to, const char *words)
{
    rp_reverse_rule rule = { NULL, NULL };
    const char *message = rp_reverse_rule_parse(pool, kind, from, to, &rule);

    ok(message && strstr(message, words) && !rule.from, "refused: %s", message ? message : from);
}

static void test_rule_parse(void)
{
    rp_reverse_rule rule;

    bad_rule(RP_REVERSE_URL, "x", "/y", "begins with one '/'");
    bad_rule(RP_REVERSE_URL, "", "/y", "begins with one '/'");
    bad_rule(RP_REVERSE_URL, "/x", "//y", "begins with one '/'");
    bad_rule(RP_REVERSE_URL, "ftp://x/", "/y", "http://");
    bad_rule(RP_REVERSE_URL, "http://", "/y", "http://");
    bad_rule(RP_REVERSE_URL, "http://u@b/", "/y", "http://");
    bad_rule(RP_REVERSE_URL, "/x?y", "/y", "query");
    bad_rule(RP_REVERSE_URL, "/x", "/y\r\n", "0x0d");
    bad_rule(RP_REVERSE_COOKIE_PATH, "http://b/", "/y", "begins with one '/'");
    bad_rule(RP_REVERSE_COOKIE_PATH, "/x", "/y; Secure", "0x3b");
    bad_rule(RP_REVERSE_COOKIE_DOMAIN, ".", "y", "host name");
    bad_rule(RP_REVERSE_COOKIE_DOMAIN, "x", "y/z", "host name");
    is_text(rp_reverse_rule_parse(pool, RP_REVERSE_URL, "HTTPS://[::1]:81/x/", "/", &rule), NULL,
            "a URL and a path");
    is_text(rule.from, "HTTPS://[::1]:81/x/", "as written");
    is_text(rp_reverse_rule_parse(pool, RP_REVERSE_COOKIE_DOMAIN, ".b", "c.org", &rule), NULL,
            "domains");
    is_text(rp_reverse_rule_parse(pool, RP_REVERSE_COOKIE_PATH, "/", "/app", &rule), NULL, "paths");
}

/** Many attributes, each longer after mapping: CVE-2026-34356; long and odd ones: CVE-2021-26690/1.
 */
static void test_hostile(void)
{
    rp_reverse reverse = usual;
    apr_size_t count = 20000, unit = strlen("; Path=/base; Domain=internal");
    char *value = apr_palloc(pool, 3 + count * unit + 1), *expected;
    char *longer = apr_palloc(pool, 1001), *at;
    rp_field field = { "Set-Cookie", value, 10, 0, RP_FIELD_SET_COOKIE };
    clock_t start = clock();

    memset(longer, 'l', 1000);
    longer[0] = '/';
    longer[1000] = '\0';
    reverse.client_prefix = longer;
    reverse.cookie_domains = rules("internal", longer, NULL, NULL);
    memcpy(value, "a=b", 3);
    for (apr_size_t i = 0; i < count; i++)
        memcpy(value + 3 + i * unit, "; Path=/base; Domain=internal", unit + 1);
    field.value_len = (apr_uint32_t)(3 + count * unit);
    expected = at = apr_palloc(pool, 3 + count * 2100);
    at += sprintf(at, "a=b");
    for (apr_size_t i = 0; i < count; i++)
        at += sprintf(at, "; Path=%s; Domain=%s", longer, longer);
    ok(!strcmp(rp_reverse_field(pool, &reverse, &field), expected), "many growing attributes");

    memset(value, ';', count * unit);
    map_len(&reverse, RP_FIELD_SET_COOKIE, value, count, NULL);
    memset(value, '<', count * unit);
    map_len(&reverse, RP_FIELD_LINK, value, count, NULL);
    for (apr_size_t i = 0; i < count; i++)
        memcpy(value + 3 * i, "<>,", 3);
    map_len(&reverse, RP_FIELD_LINK, value, 3 * count, NULL);
    memset(value, '"', count * unit);
    map_len(&reverse, RP_FIELD_LINK, value, count, NULL);
    memset(value, '/', count * unit);
    map_len(&reverse, RP_FIELD_LOCATION, value, count, NULL);
    ok((clock() - start) / (double)CLOCKS_PER_SEC < 5, "in linear time");
}

int main(void)
{
    pool = tap_pool();
    test_absolute();
    test_paths();
    test_rules();
    test_refresh();
    test_link();
    test_cookie_path();
    test_cookie_domain();
    test_rule_parse();
    test_hostile();
    return tap_done();
}
