/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Guards: which requests of the engine's routes are the pipeline's. */
#include <apr_fnmatch.h>
#include <apr_strings.h>

#include "rproxy/engine/rp_eligible_private.h"
#include "t/unit/tap.h"

static apr_pool_t *pool;
static rp_server_config config;
static rp_engine_host host;

/* ---- helpers --------------------------------------------------------------------------------- */

static void no_guards(void)
{
    config.routes = rp_route_table_make(pool);
    host.config = &config;
    host.guards = rp_guards_make(pool);
}

static void add_route(const char *path, int is_regex, const char *target)
{
    rp_route *route;
    const char *message = rp_route_parse(pool, path, is_regex, target, NULL, "conf", 1, &route);

    ok(!message, "route %s", path);
    if (!message)
        rp_route_table_add(config.routes, route);
}

static void finish_routes(void)
{
    is_text(rp_route_table_finish(pool, config.routes), NULL, "routes");
}

static rp_section *section_of(const char *path, int is_regex, int has_reason)
{
    static const ap_directive_t directive = { .directive = "<Location", .filename = "conf" };
    rp_section *section = apr_pcalloc(pool, sizeof(*section));

    section->directive = &directive;
    section->path = path;
    section->regex = is_regex ? ap_pregcomp(pool, path, AP_REG_EXTENDED) : NULL;
    section->has_wildcards = !is_regex && apr_fnmatch_test(path);
    section->reasons = apr_array_make(pool, 1, sizeof(const char *));
    section->has_settings = !has_reason;
    if (has_reason)
        APR_ARRAY_PUSH(section->reasons, const char *) = "reason";
    return section;
}

static void guard_section(const char *path, int is_regex, int has_reason)
{
    rp_guards_add_section(pool, host.guards, section_of(path, is_regex, has_reason));
}

static void guard_request(rp_guard_kind kind, const char *text, const char *regex, int ignore_case)
{
    rp_guard guard = { .kind = kind, .text = text, .len = strlen(text), .name = regex };

    ok(rp_pattern_make(pool, regex, ignore_case, &guard.pattern), "pattern %s", regex);
    rp_guards_add(host.guards, &guard);
}

static rp_request request_for(const char *target)
{
    rp_request request = { .method = "GET", .target = target };

    if (rp_uri_path(pool, target, RP_SLASHES_PASS, 0, &request.path, &request.query) != RP_HTTP_OK)
        ok(0, "target %s", target);
    rp_fields_init(&request.fields, pool, 4);
    return request;
}

static int guarded(const char *target)
{
    rp_request request = request_for(target);

    return rp_eligible_is_guarded(&host, pool, &request);
}

#define is_guarded(target) ok(guarded(target), "guarded: %s", (target))
#define is_free(target) ok(!guarded(target), "free: %s", (target))

static int guarded_agent(const char *agent)
{
    rp_request request = request_for("/");

    if (agent)
        rp_fields_add(&request.fields, "user-agent", agent);
    return rp_eligible_is_guarded(&host, pool, &request);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_plain_paths(void)
{
    no_guards();
    is_free("/anything");
    guard_section("/private", 0, 1);
    is_guarded("/private");
    is_guarded("/private/");
    is_guarded("/private/x?y");
    is_guarded("/%70rivate/x");
    is_guarded("/PRIVATE");
    is_guarded("//private//x");
    is_guarded("/a/../private");
    is_guarded("/private%2Fx");
    is_guarded("/other%2fx");
    is_free("/privately");
    is_free("/other/private");
    is_free("/other%20x");
    is_free("/");
    no_guards();
    guard_section("/dir/", 0, 1);
    is_guarded("/dir/x");
    is_guarded("/dir");
    is_free("/direct");
}

static void test_wildcards_and_regexes(void)
{
    no_guards();
    guard_section("/*/private", 0, 1);
    is_guarded("/a/private");
    is_guarded("/a//private");
    is_guarded("/a/%70rivate");
    is_free("/a/b/private");
    no_guards();
    guard_section("\\.php$", 1, 1);
    is_guarded("/x.php");
    is_guarded("/x%2Ephp?q");
    is_free("/x.php5");
    is_free("/?x.php");
}

static void test_settings(void)
{
    no_guards();
    add_route("/", 0, "http://127.0.0.1:1/");
    add_route("/app/api", 0, "http://127.0.0.1:1/");
    add_route("^/app/v1/.*", 1, "http://127.0.0.1:1/");
    finish_routes();
    guard_section("/app", 0, 0);
    is_guarded("/app/x");
    is_free("/app/api");
    is_free("/app/api/x");
    is_guarded("/app/v1/x");
    is_free("/other");
}

static void test_bare_path(void)
{
    no_guards();
    rp_guards_add_bare(pool, host.guards, section_of("/app/", 0, 0));
    is_guarded("/app");
    is_guarded("/app?x");
    is_free("/app/");
    is_free("/app/x");
    is_free("/appx");
}

static void test_coverage(void)
{
    const rp_section *root = section_of("/", 0, 1), *app = section_of("/app", 0, 1);
    const rp_section *slash = section_of("/app/", 0, 1), *regex = section_of("^/", 1, 1);

    ok(rp_section_covers(root, ""), "/ covers the root");
    ok(rp_section_covers(root, "/app"), "/ covers everything");
    ok(rp_section_covers(app, "/app"), "the path itself");
    ok(rp_section_covers(app, "/app/x"), "what is below");
    ok(!rp_section_covers(app, "/apple"), "borders of segments");
    ok(!rp_section_covers(app, ""), "not what is above");
    ok(!rp_section_covers(app, "/App"), "case counts where it proves");
    ok(rp_section_covers(slash, "/app"), "/app/ covers /app but for itself");
    ok(rp_section_covers(slash, "/app/x"), "/app/x it does");
    ok(!rp_section_covers(slash, "/apple"), "borders of segments, with a slash");
    ok(!rp_section_covers(regex, ""), "of a regex nothing is proven");
    ok(rp_section_is_below(app, ""), "below the root");
    ok(!rp_section_is_below(app, "/a"), "borders of segments, below");
    ok(rp_section_is_below(regex, "/any"), "a regex may be anywhere");
}

/* ---- HTTP/2 ---------------------------------------------------------------------------------- */

static int retried(const char *target)
{
    rp_request request = request_for(target);

    return rp_eligible_needs_http1(&host, pool, &request);
}

#define is_retried(target) ok(retried(target), "HTTP/1.1: %s", (target))
#define is_served(target) ok(!retried(target), "HTTP/2: %s", (target))

static void test_http2(void)
{
    host.guards = NULL;
    is_served("/");
    no_guards();
    is_served("/a%2Fb");
    rp_guards_add_section(pool, host.guards, section_of("/server-status/", 0, 1))->http2
        = RP_GUARD_RETRIES;
    guard_request(RP_BY_FIELD, "User-Agent", "^Old", 0);
    is_retried("/server-status");
    is_retried("/server-status/");
    is_retried("/server-status?auto");
    is_retried("/SERVER-status/x");
    is_retried("/server%2Dstatus");
    is_retried("//server-status");
    is_retried("/x/../server-status");
    is_retried("/server-status%2Fx");
    is_retried("/%2fserver-status");
    is_served("/");
    is_served("/server-statuses");
    is_served("/x/server-status");
    is_served("/packages/@scope%2Fname");
    is_served("/server-status%252Fx%2F");
    is_served("/?/server-status");
    ok(rp_guards_retry_all(host.guards, "/server-status"), "the path itself");
    ok(rp_guards_retry_all(host.guards, "/server-status/x"), "what is below");
    ok(!rp_guards_retry_all(host.guards, "/server"), "not what is above");
    ok(!rp_guards_retry_all(host.guards, "/server-statuses"), "borders of segments");
}

static void test_agents(void)
{
    rp_request twice = request_for("/");

    no_guards();
    guard_request(RP_BY_FIELD, "User-Agent", "Mozilla/2", 0);
    guard_request(RP_BY_FIELD, "User-Agent", "^WebDAVFS/1.[01234]", 0);
    guard_request(RP_BY_FIELD, "User-Agent", "MSIE 4\\.0b2;", 0);
    guard_request(RP_BY_FIELD, "User-Agent", "colou?r", 0);
    guard_request(RP_BY_FIELD, "User-Agent", "badbot", 1);
    ok(!guarded_agent(NULL), "none");
    ok(!guarded_agent("Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/140.0"), "a browser");
    ok(guarded_agent("Mozilla/2.0"), "text at the beginning");
    ok(guarded_agent("x Mozilla/2"), "text anywhere");
    ok(guarded_agent("WebDAVFS/1.3"), "anchored regex");
    ok(!guarded_agent("x WebDAVFS/1.3"), "anchor");
    ok(!guarded_agent("WebDAVFS/1.9"), "regex behind its text");
    ok(guarded_agent("x MSIE 4.0b2; y"), "escaped dot");
    ok(!guarded_agent("x MSIE 4x0b2; y"), "escaped dot is no other byte");
    ok(guarded_agent("color"), "optional byte left out");
    ok(guarded_agent("BadBot"), "case ignored");
    rp_fields_add(&twice.fields, "User-Agent", "a");
    rp_fields_add(&twice.fields, "User-Agent", "b");
    ok(rp_eligible_is_guarded(&host, pool, &twice), "a repeated field");
}

static void test_attributes(void)
{
    rp_request purge = request_for("/");

    no_guards();
    guard_request(RP_BY_URI, "Request_URI", "^/health$|/secret", 0);
    guard_request(RP_BY_METHOD, "Request_Method", "^PURGE$", 0);
    is_guarded("/health");
    is_guarded("/health?x");
    is_guarded("/a/secret/../b");
    is_guarded("/a/%73ecret");
    is_free("/healthy");
    is_free("/?/secret");
    purge.method = "PURGE";
    ok(rp_eligible_is_guarded(&host, pool, &purge), "method");
}

static void test_names(void)
{
    const apr_array_header_t *names;

    no_guards();
    guard_request(RP_BY_METHOD, "Request_Method", "PURGE", 0);
    guard_section("^/x", 1, 1);
    names = rp_guards_names(pool, host.guards);
    is_number(names->nelts, 2, "names");
    is_number(rp_guards_count(host.guards), 2, "count");
    is_text(APR_ARRAY_IDX(names, 0, const char *), "regex ^/x (conf:0)", "paths come first");
    is_text(APR_ARRAY_IDX(names, 1, const char *), "PURGE", "then the others");
}

int main(void)
{
    apr_initialize();
    apr_pool_create(&pool, NULL);
    test_plain_paths();
    test_wildcards_and_regexes();
    test_settings();
    test_bare_path();
    test_coverage();
    test_http2();
    test_agents();
    test_attributes();
    test_names();
    return tap_done();
}
