/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Target addresses: what is understood, what is refused and with which words. */
#include <apr_strings.h>

#include "rproxy/route/rp_route.h"
#include "t/unit/tap.h"

static apr_pool_t *pool;

#define is_str(got, want, ...) is_text((got), (want), apr_psprintf(pool, __VA_ARGS__))
#define is_int(got, want, ...) is_number((got), (want), apr_psprintf(pool, __VA_ARGS__))

static void good(const char *text, const char *key, const char *authority, const char *base)
{
    rp_target *target = NULL;
    const char *message = rp_target_parse(pool, text, &target);

    is_str(message, NULL, "%s is a target", text);
    if (message)
        return;
    is_str(target->text, text, "%s: text as written", text);
    is_str(target->key, key, "%s: key", text);
    is_str(target->authority, authority, "%s: authority", text);
    is_str(target->base, base, "%s: base", text);
}

static void bad(const char *text, const char *words)
{
    rp_target *target = NULL;
    const char *message = rp_target_parse(pool, text, &target);

    ok(message && strstr(message, words), "refused: %s", message ? message : text);
    ok(!target, "and no target made");
}

static int under(const char *text, const char *allowed)
{
    rp_target *a, *b;

    if (rp_target_parse(pool, text, &a) || rp_target_parse(pool, allowed, &b))
        return -1;
    return rp_target_under(a, b);
}

static void test_address(void)
{
    rp_target *target = NULL;

    rp_target_parse(pool, "https://b:8443/x", &target);
    is_str(rp_target_set_address(pool, target, "::0001"), NULL, "an address");
    is_str(target->address, "::1", "in normal form");
    is_str(target->key, "https://b:8443#::1", "it is another endpoint");
    is_str(target->text, "https://b:8443/x#::1", "and named so");
    is_str(target->authority, "b:8443", "with the name for the request");
    ok(rp_target_set_address(pool, target, "b") != NULL, "a name is none");
    rp_target_parse(pool, "unix:/s|http://b", &target);
    ok(rp_target_set_address(pool, target, "127.0.0.1") != NULL, "a socket has none");
}

static void test_good(void)
{
    rp_target *target;

    good("http://b", "http://b:80", "b", "/");
    good("http://b/", "http://b:80", "b", "/");
    good("HTTP://Back.End:80/Base", "http://back.end:80", "back.end", "/Base");
    good("http://b:8080/x/", "http://b:8080", "b:8080", "/x/");
    good("https://b/", "https://b:443", "b", "/");
    good("https://b:443/", "https://b:443", "b", "/");
    good("https://b:80/", "https://b:80", "b:80", "/");
    good("http://10.0.0.1:65535/", "http://10.0.0.1:65535", "10.0.0.1:65535", "/");
    good("http://[::1]/", "http://[::1]:80", "[::1]", "/");
    good("http://[2001:DB8:0:0::1]:8080/", "http://[2001:db8::1]:8080", "[2001:db8::1]:8080", "/");
    good("unix:/run/app.sock|http://localhost/", "unix:/run/app.sock|http://localhost:80",
         "localhost", "/");
    good("UNIX:/run/a:b@c.sock|https://app:8443/x", "unix:/run/a:b@c.sock|https://app:8443",
         "app:8443", "/x");
    good("unix:/run/a|http://h", "unix:/run/a|http://h:80", "h", "/");
    good("balancer://Pool_1/base", "balancer://pool_1", "pool_1", "/base");
    good("http://b/a/../c/./d", "http://b:80", "b", "/c/d");
    good("http://b/a%2fb%20c", "http://b:80", "b", "/a%2fb%20c");
    good("http://b/unix:/x|http://y/", "http://b:80", "b", "/unix:/x|http://y/");

    rp_target_parse(pool, "unix:/run/app.sock|http://[::1]:81/x", &target);
    is_str(target->socket, "/run/app.sock", "socket");
    is_str(target->host, "::1", "IPv6 host without brackets");
    is_int(target->port, 81, "port");
    rp_target_parse(pool, "balancer://b", &target);
    is_int(target->port, 0, "balancers have no port");
    is_int(target->scheme, RP_SCHEME_BALANCER, "scheme");
    is_str(target->socket, NULL, "no socket");
}

static void test_bad(void)
{
    char *longer = apr_pcalloc(pool, RP_HTTP_HEAD_MAX + 32);
    rp_target *target;

    bad("", "unknown scheme");
    bad("b:8080", "unknown scheme");
    bad("/app", "unknown scheme");
    bad("//b/", "unknown scheme");
    bad("http:/b/", "unknown scheme");
    bad("ftp://b/", "unknown scheme");
    bad("proxy:http://b/", "unknown scheme");
    bad("ws://b/", "write http://");
    bad("http://", "host is missing");
    bad("http:///x", "host is missing");
    bad("http://:80/", "host is missing");
    bad("balancer://", "balancer's name is missing");
    bad("balancer://a:80/", "no port");
    bad("http://u:p@b/", "RequestHeader");
    bad("http://u@b/", "RequestHeader");
    bad("http://b/?x", "no query");
    bad("http://b?x", "no query");
    bad("http://b/#x", "fragment");
    bad("http://b#x", "fragment");
    bad("http://b:/", "is no port");
    bad("http://b:0/", "is no port");
    bad("http://b:65536/", "is no port");
    bad("http://b:99999999999999999999/", "is no port");
    bad("http://b:8x/", "is no port");
    bad("http://b:-1/", "is no port");
    bad("http://b:80:80/", "is no port");
    bad("http://b b/", "blanks");
    bad("http://b/\t", "blanks");
    bad("http://b/\r\nX: y", "control bytes");
    bad("http://b/\xc3\xa9", "outside ASCII");
    bad("http://b$1/", "can't be in a host");
    bad("http://b%41/", "can't be in a host");
    bad("http://b\\c/", "can't be in a host");
    bad("http://[::1/", "IPv6");
    bad("http://[]/", "IPv6");
    bad("http://[::g]/", "IPv6");
    bad("http://[::1]x/", "is no port");
    bad("http://[1.2.3.4]/", "IPv6");
    bad("http://b/..", "no valid path");
    bad("http://b//x", "one slash");
    bad("http://b/.//x", "no valid path");
    bad("http://b/%zz", "no valid path");
    bad("http://b/%00", "no valid path");
    bad("unix:/run/a", "what is spoken");
    bad("unix:/run/a|", "what is spoken");
    bad("unix:run/a|http://h/", "absolute path");
    bad("unix:|http://h/", "absolute path");
    bad("unix:/run/|http://h/", "absolute path");
    bad("unix:/a|balancer://b/", "RProxyMember");
    bad("unix:/a|unix:/b|http://h/", "unknown scheme");
    bad(apr_pstrcat(pool, "unix:/",
                    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa|http://h/", NULL), "107 bytes");
    memset(longer, 'a', RP_HTTP_HEAD_MAX + 31);
    memcpy(longer, "http://b/", 9);
    bad(longer, "shorten");
    longer[RP_HTTP_HEAD_MAX] = '\0';
    is_str(rp_target_parse(pool, longer, &target), NULL, "no other length limit");
}

static void test_under(void)
{
    is_int(under("http://b/app", "http://b/app"), 1, "equal");
    is_int(under("http://b/app/x", "http://b/app"), 1, "below");
    is_int(under("http://b/app/x", "http://b/app/"), 1, "below, final slash");
    is_int(under("http://b/app", "http://b/app/"), 1, "equal but for the final slash");
    is_int(under("http://b/apple", "http://b/app"), 0, "not on a segment border");
    is_int(under("http://b/ap", "http://b/app"), 0, "shorter");
    is_int(under("http://b/x", "http://b/"), 1, "everything of a host");
    is_int(under("http://b/x", "http://b"), 1, "everything of a host, no slash");
    is_int(under("http://B:80/x", "http://b"), 1, "host and port in normal form");
    is_int(under("http://b/%61pp/x", "http://b/app"), 1, "paths compare decoded");
    is_int(under("http://b/app%2Fx", "http://b/app"), 0, "an encoded slash is no border");
    is_int(under("http://b/app/../x", "http://b/app"), 0, "dot segments are resolved first");
    is_int(under("http://b/app/%2e%2e/x", "http://b/app"), 0, "also encoded ones");
    is_int(under("http://b/app/..%2fx", "http://b/app"), -1, "hidden behind an encoded slash");
    is_int(under("http://b/app/%2e%2e%5cx", "http://b/app"), -1, "or an encoded backslash");
    is_int(under("https://b/app", "http://b/app"), 0, "other scheme");
    is_int(under("http://b:81/app", "http://b/app"), 0, "other port");
    is_int(under("http://bb/app", "http://b/app"), 0, "other host");
    is_int(under("unix:/s|http://b/app", "http://b/app"), 0, "a socket isn't the host");
    is_int(under("http://b/app", "unix:/s|http://b/app"), 0, "the host isn't a socket");
    is_int(under("unix:/s|http://b/app", "unix:/s|http://b/"), 1, "same socket");
    is_int(under("unix:/t|http://b/app", "unix:/s|http://b/"), 0, "other socket");
    is_int(under("balancer://b/app", "http://b/"), 0, "a balancer isn't a host");
    is_int(under("balancer://b/app", "balancer://b"), 1, "same balancer");
}

int main(void)
{
    pool = tap_pool();
    test_good();
    test_address();
    test_bad();
    test_under();
    return tap_done();
}
