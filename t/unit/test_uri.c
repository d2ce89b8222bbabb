/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Request targets: normal form of paths, percent-encoding, authorities. */

#include "rproxy/http/rp_http.h"
#include "t/unit/tap.h"

static apr_pool_t *pool;

/** path NULL: the target must be refused. */
static void check_path(const char *target, rp_encoded_slashes slashes, int merge, const char *path,
                       const char *query)
{
    const char *got_path = NULL, *got_query = NULL;
    rp_http_error error = rp_uri_path(pool, target, slashes, merge, &got_path, &got_query);

    if (path == NULL) {
        ok(error == RP_HTTP_BAD_TARGET, "%s is refused", target);
    }
    else {
        is_number(error, RP_HTTP_OK, target);
        is_text(got_path, path, "  path");
        is_text(got_query, query, "  query");
    }
}

static void pass(const char *target, const char *path, const char *query)
{
    check_path(target, RP_SLASHES_PASS, 0, path, query);
}

static void test_forms(void)
{
    pass("/", "/", NULL);
    pass("/a/b", "/a/b", NULL);
    pass("/a?", "/a", "");
    pass("/a?b=/../c?d", "/a", "b=/../c?d");
    pass("http://h/a?b", "/a", "b");
    pass("HTTPS://h:1/a/../b", "/b", NULL);
    pass("http://h", "/", NULL);
    pass("http://h?q", "/", "q");
    pass("*", "*", NULL);
    pass("", NULL, NULL);
    pass("a", NULL, NULL);
    pass("*a", NULL, NULL);
    pass("ftp://h/", NULL, NULL);
    pass("http:/h/", NULL, NULL);
    pass("httpx://h/", NULL, NULL);
    pass("http://h#x", NULL, NULL);
}

static void test_unchanged(void)
{
    static const char *const paths[] = {
        "/%7Euser", "/%7euser/x.y", "/a%2Fb", "/a%5Cb", "/.../x", "/.a/..b/c./d..", "/%2e%2e%2e/",
        "//a///b//", "/a;b=c/...;/d", "/\xc3\xa9", "/a|b{c}\"<>^`", "/%252e%252e/", "/a%2Fb..%2Fc",
        "/%0d%0a",
    };
    const char *path, *query;

    for (apr_size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        pass(paths[i], paths[i], NULL);
    }
    rp_uri_path(pool, paths[0], RP_SLASHES_PASS, 0, &path, &query);
    ok(path == paths[0], "a path in normal form is not copied");
}

static void test_dots(void)
{
    pass("/a/./b", "/a/b", NULL);
    pass("/a/../b", "/b", NULL);
    pass("/a/b/..", "/a/", NULL);
    pass("/a/..", "/", NULL);
    pass("/a/.", "/a/", NULL);
    pass("/.", "/", NULL);
    pass("/./", "/", NULL);
    pass("/a/b/c/../../d", "/a/d", NULL);
    pass("/a//../b", "/a/b", NULL);
    pass("/%2e/a/%2E%2e/b", "/b", NULL);
    pass("/a/.%2e/b", "/b", NULL);
    pass("/a/%2e.", "/", NULL);
    pass("/a/../x%2fy", "/x%2fy", NULL);
    pass("/..", NULL, NULL);
    pass("/../a", NULL, NULL);
    pass("/%2e%2e/a", NULL, NULL);
    pass("/a/../../b", NULL, NULL);
    pass("/a/./../../b", NULL, NULL);
    pass("http://h/..", NULL, NULL);
    pass("/a/..%2fb", NULL, NULL);
    pass("/a%2F..%2Fb", NULL, NULL);
    pass("/a%5c%2E%2e/b", NULL, NULL);
    pass("/a/.%5Cb", NULL, NULL);
    pass("/a/..;x/b", NULL, NULL);
    pass("/a/.%3B", NULL, NULL);
}

static void test_refused(void)
{
    static const char *const targets[] = {
        "/a%00", "/%", "/%4", "/%4g", "/%g4", "/a b", "/a\tb", "/a\rb", "/a\nb", "/\x7f", "/a#b",
        "/a\\b", "/a?b c", "/a?b#c", "/a?\r\n", "/a?\x01",
    };

    for (apr_size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        const char *path, *query;

        is_number(rp_uri_path(pool, targets[i], RP_SLASHES_PASS, 1, &path, &query),
                  RP_HTTP_BAD_TARGET, "a bad byte in a target");
    }
    pass("/a?%zz\\", "/a", "%zz\\");
}

static void test_slashes(void)
{
    check_path("//a///b//", RP_SLASHES_PASS, 1, "/a/b/", NULL);
    check_path("//", RP_SLASHES_PASS, 1, "/", NULL);
    check_path("/a//../b", RP_SLASHES_PASS, 1, "/b", NULL);
    check_path("//..", RP_SLASHES_PASS, 1, NULL, NULL);
    check_path("//..", RP_SLASHES_PASS, 0, "/", NULL);
    check_path("/a/.//b", RP_SLASHES_PASS, 1, "/a/b", NULL);
    check_path("/a%2fb%2F", RP_SLASHES_DECODE, 0, "/a/b/", NULL);
    check_path("/a%2f%2e%2e%2fb", RP_SLASHES_DECODE, 0, "/b", NULL);
    check_path("/%2f..%2f..", RP_SLASHES_DECODE, 0, NULL, NULL);
    check_path("/a%2f/b", RP_SLASHES_DECODE, 1, "/a/b", NULL);
    check_path("/a%252fb%5c", RP_SLASHES_DECODE, 0, "/a%252fb%5c", NULL);
    check_path("/a%2fb", RP_SLASHES_REJECT, 0, NULL, NULL);
    check_path("/a%5Cb", RP_SLASHES_REJECT, 0, NULL, NULL);
    check_path("/a%252fb?%2f", RP_SLASHES_REJECT, 0, "/a%252fb", "%2f");
}

static void test_canonical(void)
{
    static const char same[] = "/a%2Fb%C3%A9";

    is_text(rp_uri_canonical(pool, "/%61dmin"), "/admin", "letters are decoded");
    is_text(rp_uri_canonical(pool, "/%7e%2D%2e%5F%30"), "/~-._0", "so are the other unreserved");
    is_text(rp_uri_canonical(pool, "/a%2fb%c3%A9"), "/a%2Fb%C3%A9", "digits in upper case");
    is_text(rp_uri_canonical(pool, "/%2541%20"), "/%2541%20", "others stay encoded");
    ok(rp_uri_canonical(pool, same) == same, "a canonical path is not copied");
}

static void test_coding(void)
{
    is_text(rp_uri_decode(pool, "/%61%20%2f%2F%25%c3%a9xyz", 22), "/a %2f%2F%\xc3\xa9",
            "decoded, the slash is not");
    is_text(rp_uri_decode(pool, "/%00%4", 6), "/%00%4", "what cannot be decoded stays");
    is_text(rp_uri_decode(pool, "/%41", 3), "/%4", "nothing is read behind the end");
    is_text(rp_uri_decode(pool, "", 0), "", "the empty path");
    is_text(rp_uri_encode(pool, "/a b%\r\n?#[]\xc3\xa9\\\""),
            "/a%20b%25%0D%0A%3F%23%5B%5D%C3%A9%5C%22", "encoded");
    is_text(rp_uri_encode(pool, "/az09-._~!$&'()*+,;=:@/"), "/az09-._~!$&'()*+,;=:@/",
            "what may stand in a path stays");
}

static void test_authorities(void)
{
    static const char *const good[] = {
        "a", "A.example:1", "a:65535", "127.0.0.1:80", "[::1]", "[::1]:80", "[2001:db8::1]:443",
        "[::ffff:192.0.2.1]", "a_b-c~d", "a%41", "xn--bcher-kva.example", "a!$&'()*+,;=", "a.",
    };
    static const char *const bad[] = {
        "", ":80", "a:", "a:0", "a:65536", "a:99999999999999999999", "a:8x", "a:80:80", "u@a",
        "a/b", "a?b", "a#b", "a b", "a\tb", "a\\b", "[::1", "::1", "[::1]x", "[::1]:", "[]",
        "[:::]", "[1.2.3.4]", "[::1%25eth0]", "[v1.x]", "a%", "a%4", "a%00", "a%0a", "a%20", "a\"b",
        "a<b", "a\xc3\xa9", "a|b", "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]",
    };

    for (apr_size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        ok(rp_uri_is_authority(good[i]), "%s is an authority", good[i]);
    }
    for (apr_size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ok(!rp_uri_is_authority(bad[i]), "authority %d is refused", (int)i);
    }
}

int main(void)
{
    pool = tap_pool();
    test_forms();
    test_unchanged();
    test_dots();
    test_refused();
    test_slashes();
    test_canonical();
    test_coding();
    test_authorities();
    return tap_done();
}
