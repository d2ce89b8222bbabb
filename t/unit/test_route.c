/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Rules, matching, and the upstream's target. */
#include <time.h>
#include <apr_strings.h>

#include "rproxy/route/rp_route.h"
#include "t/unit/tap.h"

static apr_pool_t *pool;

#define is_str(got, want, ...) is_text((got), (want), apr_psprintf(pool, __VA_ARGS__))
#define is_int(got, want, ...) is_number((got), (want), apr_psprintf(pool, __VA_ARGS__))
static int conf_line;

/* ---- helpers --------------------------------------------------------------------------------- */

static const char *parse(const char *path, int is_regex, const char *target, const char *options,
                         rp_route **route)
{
    apr_array_header_t *list = apr_array_make(pool, 2, sizeof(const char *));
    char *state, *copy = apr_pstrdup(pool, options);

    for (char *option = apr_strtok(copy, " ", &state); option;
         option = apr_strtok(NULL, " ", &state))
        APR_ARRAY_PUSH(list, const char *) = option;
    return rp_route_parse(pool, path, is_regex, target, list, "conf", conf_line, route);
}

/** Adds rules, one a line: "PATH TARGET [options]", a regex with '~' before it. */
static void add_rules(rp_route_table *table, const char *lines)
{
    char *state, *copy = apr_pstrdup(pool, lines);

    for (char *line = apr_strtok(copy, "\n", &state); line; line = apr_strtok(NULL, "\n", &state)) {
        char *inner;
        const char *path = apr_strtok(line, " ", &inner);
        const char *target = apr_strtok(NULL, " ", &inner);
        rp_route *route;
        const char *message = parse(path + (*path == '~'), *path == '~', target, inner, &route);

        conf_line++;
        if (message)
            ok(0, "%s", message);
        else
            rp_route_table_add(table, route);
    }
}

static rp_route_table *rules(const char *lines)
{
    rp_route_table *table = rp_route_table_make(pool);

    conf_line = 1;
    add_rules(table, lines);
    return table;
}

static rp_route_table *finished(const char *lines)
{
    rp_route_table *table = rules(lines);
    const char *message = rp_route_table_finish(pool, table);

    if (message)
        ok(0, "%s", message);
    return table;
}

/** Conditions in tests: "yes", "no", "error". */
static int condition(void *baton, const rp_route *route)
{
    ++*(int *)baton;
    if (!strcmp(route->condition_text, "error"))
        return -1;
    return !strcmp(route->condition_text, "yes");
}

static int find(const rp_route_table *table, const char *path, apr_uint32_t random, rp_match *match)
{
    int calls = 0;
    rp_match_context context = { pool, condition, random, &calls };

    return rp_route_match(table, &context, path, match);
}

/** The target text of the rule that takes path; "!" for exempt, "-" for none. */
static const char *taken(const rp_route_table *table, const char *path)
{
    rp_match match;

    if (!find(table, path, 0, &match))
        return "-";
    return match.route->target ? match.route->target->text : "!";
}

static apr_array_header_t *rewrites(const char *lines)
{
    apr_array_header_t *list = apr_array_make(pool, 2, sizeof(rp_rewrite *));
    char *state, *copy = apr_pstrdup(pool, lines);

    for (char *line = apr_strtok(copy, "\n", &state); line; line = apr_strtok(NULL, "\n", &state)) {
        char *inner;
        const char *regex = apr_strtok(line, " ", &inner);
        const char *subst = apr_strtok(NULL, " ", &inner);
        rp_rewrite *rewrite = NULL;
        const char *message = rp_rewrite_parse(pool, regex, subst, apr_strtok(NULL, " ", &inner),
                                               &rewrite);

        if (message)
            ok(0, "%s", message);
        else
            APR_ARRAY_PUSH(list, rp_rewrite *) = rewrite;
    }
    return list;
}

/** The whole way of a request target: normal form, match, upstream target. */
static const char *sent(const char *lines, const char *rewrite_lines, const char *target)
{
    const rp_route_table *table = finished(lines);
    const char *path, *query, *result = NULL;
    rp_match match;

    if (rp_uri_path(pool, target, RP_SLASHES_PASS, 0, &path, &query) != RP_HTTP_OK)
        return "bad request";
    if (!find(table, path, 0, &match))
        return "-";
    if (rp_route_target(pool, &match, path, query, rewrite_lines ? rewrites(rewrite_lines) : NULL,
                        &result) != RP_HTTP_OK)
        return "refused";
    return result;
}

static void error(const char *lines, const char *message)
{
    is_str(rp_route_table_finish(pool, rules(lines)), message, "%s", message);
}

static void bad_rule(const char *path, int is_regex, const char *target, const char *options,
                     const char *words)
{
    rp_route *route = NULL;
    const char *message;

    conf_line = 7;
    message = parse(path, is_regex, target, options, &route);
    ok(message && strstr(message, words) && strstr(message, "(conf:7)"), "refused: %s",
       message ? message : path);
}

/* ---- parsing --------------------------------------------------------------------------------- */

static void test_parse(void)
{
    rp_route *route = NULL;

    bad_rule("app", 0, "http://b/", "", "must begin with '/'");
    bad_rule("", 0, "http://b/", "", "must begin with '/'");
    bad_rule("/app?x", 0, "http://b/", "", "no query");
    bad_rule("/app#x", 0, "http://b/", "", "'#'");
    bad_rule("/a%2Fb", 0, "http://b/", "", "%2F");
    bad_rule("/a%2fb", 0, "http://b/", "", "%2F");
    bad_rule("/..", 0, "http://b/", "", "no valid path");
    bad_rule("/%zz", 0, "http://b/", "", "no valid path");
    bad_rule("/\xc3\xa9", 0, "http://b/", "", "percent-encoded");
    bad_rule("/app", 0, "b/", "", "unknown scheme");
    bad_rule("/app", 0, "http://b/$1", "", "need RProxyPassMatch");
    bad_rule("/app", 0, "http://b/", "if=", "needs an expression");
    bad_rule("/app", 0, "http://b/", "if=a if=b", "stands twice");
    bad_rule("/app", 0, "http://b/", "weight=1 weight=1", "stands twice");
    bad_rule("/app", 0, "http://b/", "weight=", "whole number");
    bad_rule("/app", 0, "http://b/", "weight=-1", "whole number");
    bad_rule("/app", 0, "http://b/", "weight=1.5", "whole number");
    bad_rule("/app", 0, "http://b/", "weight=1000001", "whole number");
    bad_rule("/app", 0, "http://b/", "weight=99999999999999999999", "whole number");
    bad_rule("/app", 0, "http://b/", "timeout=5", "unknown key");
    bad_rule("/app", 0, "http://b/", "retry", "unknown key");
    bad_rule("/app", 0, "!", "weight=1", "takes no weight=");
    bad_rule("^/(", 1, "http://b/", "", "doesn't compile");
    bad_rule("^/(.*)", 1, "http://$1/", "", "never chooses scheme, host");
    bad_rule("^(/.*)", 1, "http://b$1", "", "never chooses scheme, host");
    bad_rule("^/(.*)", 1, "http://b:$1/", "", "never chooses scheme, host");
    bad_rule("^/(.*)", 1, "$1://b/", "", "never chooses scheme, host");
    bad_rule("^/(.*)", 1, "$1", "", "never chooses scheme, host");
    bad_rule("^/(.*)", 1, "unix:/run/$1|http://b/", "", "never chooses scheme, host");
    bad_rule("^/(.*)", 1, "unix:/run/a|http://$1/", "", "never chooses scheme, host");
    bad_rule("^/(.*)", 1, "http://b/?x=$1", "", "RProxyRewrite");
    bad_rule("^/(.*)", 1, "http://b/$1?x", "", "RProxyRewrite");
    bad_rule("^/(.*)", 1, "http://b?$1", "", "RProxyRewrite");
    bad_rule("^/(.*)", 1, "http://b/$2", "", "there is no $2");
    bad_rule("^/(.*)", 1, "http://b/$x", "", "write $$");
    bad_rule("^/(.*)", 1, "http://b/x$", "", "write $$");
    bad_rule("^/(.*)", 1, "http://b/%$1", "", "no valid path");
    bad_rule("^/(.*)", 1, "http://b/a/$1/../../c", "", "segments");
    bad_rule("^/(.*)", 1, "ftp://b/$1", "", "unknown scheme");

    is_str(parse("/a/./b//c/", 0, "http://b/", "if=yes weight=3", &route), NULL, "a good rule");
    is_str(route->path, "/a/b/c/", "path in normal form");
    is_str(route->condition_text, "yes", "if=");
    is_int(route->weight, 3, "weight=");
    is_str(parse("^/x/(.*)$", 1, "http://b/y/z-$1", "", &route), NULL, "a good regex rule");
    is_str(route->path, NULL, "no path");
    is_str(route->target->text, "http://b/y/z-$1", "target as written");
    is_str(route->target->base, "/y/", "base: what holds for every request");
    is_str(route->target_path, "/y/z-$1", "template");
    is_int(route->weight, 1, "weight by default");
    is_str(parse("^/x", 1, "!", "if=yes", &route), NULL, "exempt by regex");
    ok(!route->target, "no target");
}

static void test_checks(void)
{
    error("/app http://a/\n/app http://b/",
          "RProxyPass /app: the same path was sent to http://a/ at conf:1; add if= or weight= to "
          "both, or remove one (conf:2)");
    error("/app http://a/\n/%61pp/ http://b/",
          "RProxyPass /%61pp/: the same path was sent to http://a/ at conf:1; add if= or weight= "
          "to both, or remove one (conf:2)");
    error("/app http://a/\n/app http://a/",
          "RProxyPass /app: the same path was sent to http://a/ at conf:1 already; remove one "
          "(conf:2)");
    error("/app !\n/app http://b/",
          "RProxyPass /app: the same path was sent to ! at conf:1; add if= or weight= to both, or "
          "remove one (conf:2)");
    error("/app http://a/\n/app http://b/ if=yes",
          "RProxyPass /app: could never take effect, the rule at conf:1 takes every request of "
          "this path; put the one with if= before it (conf:2)");
    error("/app http://a/\n/app http://b/ weight=2",
          "RProxyPass /app: could never take effect, the rule at conf:1 takes every request of "
          "this path; add weight= to that one too, or put it last (conf:2)");
    error("/app http://a/ weight=1\n/app http://b/",
          "RProxyPass /app: could never take effect, the rules with weight= before it (conf:1) "
          "share every request of this path; add weight=, or put it before them (conf:2)");
    error("/app http://a/ weight=0\n/app http://b/ weight=0",
          "RProxyPass /app: the weights of its rules sum to 0; give one of them a weight above 0 "
          "(conf:1)");
    error("~^/a http://a/\n~^/a http://b/",
          "RProxyPassMatch ^/a: the same pattern was sent to http://a/ at conf:1; add if= or "
          "weight= to both, or remove one (conf:2)");
    error("/app http://a/ if=yes\n/app http://b/", NULL);
    error("/app http://a/ if=yes\n/app http://b/ if=yes\n/app !", NULL);
    error("/app http://a/ weight=0\n/app http://b/ weight=1", NULL);
    error("/app http://a/ if=yes weight=1\n/app http://b/ if=yes weight=1\n/app http://c/", NULL);
    error("/app http://a/\n/app/x http://b/\n/apple http://c/\n/ http://d/", NULL);
    error("~^/a http://a/\n~^/a/b http://b/\n/a http://c/", NULL);
}

static int collect(void *baton, const rp_route *route)
{
    char **out = baton;

    *out = apr_pstrcat(pool, *out, **out ? " " : "", route->path ? route->path : route->pattern,
                       route->inherited ? "*" : "", NULL);
    return 1;
}

static int first_only(void *baton, const rp_route *route)
{
    collect(baton, route);
    return 0;
}

static void test_tables(void)
{
    rp_route_table *base =
        rules("/ http://m/\n/app http://m/app\n~^/r http://m/r\n~^/s http://m/s");
    rp_route_table *own = rules("/app/ http://v/ if=no\n~^/s !\n/app/deep http://v/deep");
    rp_route_table *merged = rp_route_table_merge(pool, base, own);
    char *list = "";

    ok(rp_route_table_is_empty(rp_route_table_make(pool)), "an empty table");
    ok(!rp_route_table_is_empty(base), "a table that isn't empty");
    is_str(rp_route_table_finish(pool, merged), NULL, "merged tables have no conflicts");
    rp_route_table_each(merged, collect, &list);
    is_str(list, "^/s ^/r* /app/deep /app/ /*", "in the order tried; inherited ones marked");
    list = "";
    rp_route_table_each(merged, first_only, &list);
    is_str(list, "^/s", "iteration stops when told");
    list = "";
    rp_route_table_finish(pool, base);
    rp_route_table_each(base, collect, &list);
    is_str(list, "^/r ^/s /app /", "the main server's own table isn't marked");
    is_str(taken(merged, "/app/x"), "http://m/", "own rules replace all inherited ones of a path");
    is_str(taken(merged, "/s"), "!", "own pattern replaces the inherited one");
    is_str(taken(merged, "/r"), "http://m/r", "an inherited pattern");
    rp_route_table_finish(pool, own = rp_route_table_make(pool));
    is_str(taken(own, "/x"), "-", "an empty table takes nothing");
}

/* ---- matching -------------------------------------------------------------------------------- */

static void test_prefixes(void)
{
    static const char *const orders[] = {
        "/ http://r/\n/app http://a/\n/app/deep/er http://d/\n/application/ http://l/\n/app/no !",
        "/app/no !\n/application/ http://l/\n/app/deep/er http://d/\n/app http://a/\n/ http://r/",
    };

    for (int i = 0; i < 2; i++) {
        const rp_route_table *table = finished(orders[i]);

        is_str(taken(table, "/"), "http://r/", "order %d: /", i);
        is_str(taken(table, "/app"), "http://a/", "order %d: /app", i);
        is_str(taken(table, "/app/"), "http://a/", "order %d: /app/", i);
        is_str(taken(table, "/app/x"), "http://a/", "order %d: /app/x", i);
        is_str(taken(table, "/app/deep"), "http://a/", "order %d: /app/deep", i);
        is_str(taken(table, "/app/deep/er"), "http://d/", "order %d: /app/deep/er", i);
        is_str(taken(table, "/app/deep/er/x/y"), "http://d/", "order %d: below it", i);
        is_str(taken(table, "/app/deep/erx"), "http://a/", "order %d: not on a border", i);
        is_str(taken(table, "/apple"), "http://r/", "order %d: /apple isn't /app", i);
        is_str(taken(table, "/application"), "http://l/", "order %d: /application without slash",
               i);
        is_str(taken(table, "/app/no"), "!", "order %d: exempt", i);
        is_str(taken(table, "/app/no/x"), "!", "order %d: below exempt", i);
        is_str(taken(table, "/app/nox"), "http://a/", "order %d: not exempt", i);
        is_str(taken(table, "/%61pp/x"), "http://a/", "order %d: decoded path matches", i);
        is_str(taken(table, "/app%2Fdeep%2Fer"), "http://r/", "order %d: %%2F is no border", i);
        is_str(taken(table, "/app/n%6f"), "!", "order %d: encoding doesn't get around '!'", i);
        is_str(taken(table, "/App"), "http://r/", "order %d: case matters", i);
        is_str(taken(table, "*"), "-", "order %d: OPTIONS *", i);
    }
    is_str(taken(finished("/app http://a/"), "/"), "-", "no rule");
    is_str(taken(finished("/app http://a/"), "/ap"), "-", "shorter than any rule");
    is_str(taken(finished("/a%252Fb http://a/"), "/a%2Fb"), "-", "%%252F isn't %%2F");
    is_str(taken(finished("/a%252Fb http://a/"), "/%61%252Fb/x"), "http://a/", "but itself");
    is_str(taken(finished("/caf%C3%A9 http://a/"), "/caf\xc3\xa9/x"), "http://a/", "raw UTF-8");
    is_str(taken(finished("/a%20b http://a/"), "/a%20b"), "http://a/", "a blank in a prefix");
}

static void test_conditions(void)
{
    rp_match match;
    int calls = 0, hits[3] = { 0, 0, 0 };
    rp_match_context context = { pool, condition, 0, &calls };
    const rp_route_table *table;

    table = finished("/ http://r/\n/a http://a1/ if=no\n/a http://a2/ if=yes\n/a http://a3/");
    is_str(taken(table, "/a/x"), "http://a2/", "the first whose condition holds");
    table =
        finished("/ http://r/\n/a http://a1/ if=no\n/a http://a2/ if=error\n/a/b http://b/ if=no");
    is_str(taken(table, "/a/b/c"), "http://r/", "none holds: shorter prefixes, an error is no");
    find(table, "/%61/b/c", 0, &match);
    is_int(match.prefix_len, 0, "and what the shorter prefix covers");
    table = finished("/%61a http://a/\n/aa/b http://b/ if=no");
    find(table, "/%61%61/b/c", 0, &match);
    is_int(match.prefix_len, 7, "in encoded form");
    is_str(taken(finished("~^/a http://a/ if=no\n~^/a http://b/\n/ http://r/"), "/a"), "http://b/",
           "conditions of regex rules");
    is_str(taken(finished("/a ! if=no\n/a http://b/"), "/a"), "http://b/", "exempt if");

    table = finished("/a http://a/ weight=1\n/a http://b/ weight=0\n/a http://c/ weight=3");
    for (apr_uint32_t i = 0; i < 1000; i++) {
        find(table, "/a", i * 4294967U, &match);
        hits[match.route->target->host[0] - 'a']++;
    }
    ok(hits[0] >= 249 && hits[0] <= 251 && hits[1] == 0, "weights 1:0:3 give %d:%d:%d", hits[0],
       hits[1], hits[2]);
    find(table, "/a", 0xffffffff, &match);
    is_str(match.route->target->text, "http://c/", "the largest random number");
    table = finished("/a http://x/ if=yes\n/a http://a/ weight=1\n/a http://c/ weight=3");
    is_str(taken(table, "/a"), "http://x/", "if= before the weighted rules");
    table = finished("/a http://a/ weight=5 if=no\n/a http://b/ weight=1 if=yes\n/a http://c/");
    find(table, "/a", 0x10000000, &match);
    is_str(match.route->target->text, "http://b/", "weight only among those that hold");
    table = finished("/a http://a/ weight=5 if=no\n/a http://b/ weight=0\n/a http://c/");
    is_str(taken(table, "/a"), "http://c/", "no weight left: the next rule");
    table = finished("~^/a http://a/ weight=1\n~^/a http://b/ weight=1");
    find(table, "/a", 0xf0000000, &match);
    is_str(match.route->target->text, "http://b/", "weights of one pattern");

    table =
        finished("/a http://a/ weight=1 if=yes\n/a http://b/ weight=1 if=no\n/a http://c/ if=no");
    rp_route_match(table, &context, "/a", &match);
    is_int(calls, 2, "a condition is evaluated once at most");
}

static void test_large(void)
{
    rp_route_table *table = rp_route_table_make(pool);
    char *path = apr_pcalloc(pool, 60001);
    rp_route *route;
    clock_t start;
    int wrong = 0;

    for (int i = 0; i < 5000; i++) {
        rp_route_parse(pool, apr_psprintf(pool, "/%d/%d", i % 50, i), 0,
                       apr_psprintf(pool, "http://h%d/", i), NULL, "conf", i, &route);
        rp_route_table_add(table, route);
    }
    for (int i = 0; i < 60000; i += 2)
        memcpy(path + i, "/1", 2);
    rp_route_parse(pool, apr_pstrmemdup(pool, path, 59998), 0, "http://deep/", NULL, "conf", 1,
                   &route);
    rp_route_table_add(table, route);
    is_str(rp_route_table_finish(pool, table), NULL, "5000 rules");
    for (int i = 0; i < 5000; i++)
        wrong += strcmp(taken(table, apr_psprintf(pool, "/%d/%d/x", i % 50, i)),
                        apr_psprintf(pool, "http://h%d/", i)) != 0;
    is_int(wrong, 0, "each of 5000 rules is found");
    start = clock();
    for (int i = 0; i < 100; i++)
        wrong += strcmp(taken(table, path), "http://deep/") != 0;
    is_int(wrong, 0, "a path of 30000 segments");
    ok((clock() - start) / (double)CLOCKS_PER_SEC < 5, "in linear time");
}

/* ---- targets --------------------------------------------------------------------------------- */

static void test_join(void)
{
    static const char *const forms[] = { "/app http://b", "/app http://b/", "/app/ http://b",
                                         "/app/ http://b/" };
    static const char *const deep[] = { "/app http://b/base", "/app/ http://b/base",
                                        "/app http://b/base/", "/app/ http://b/base/" };

    for (int i = 0; i < 4; i++) {
        is_str(sent(forms[i], NULL, "/app"), "/", "%s: /app", forms[i]);
        is_str(sent(forms[i], NULL, "/app/"), "/", "%s: /app/", forms[i]);
        is_str(sent(forms[i], NULL, "/app/x"), "/x", "%s: /app/x", forms[i]);
        is_str(sent(forms[i], NULL, "/app/x/?q=1"), "/x/?q=1", "%s: /app/x/?q=1", forms[i]);
        is_str(sent(forms[i], NULL, "/app//x"), "/x", "%s: one slash where they meet", forms[i]);
        is_str(sent(forms[i], NULL, "/app?"), "/?", "%s: an empty query stays", forms[i]);
        is_str(sent(forms[i], NULL, "/app//evil//y"), "/evil//y", "%s: no //host", forms[i]);
        is_str(sent(deep[i], NULL, "/app/"), "/base/", "%s: /app/", deep[i]);
        is_str(sent(deep[i], NULL, "/app/x"), "/base/x", "%s: /app/x", deep[i]);
        is_str(sent(deep[i], NULL, "/app"), i < 2 ? "/base" : "/base/", "%s: /app", deep[i]);
    }
    is_str(sent("/ http://b/", NULL, "/"), "/", "/ to /");
    is_str(sent("/ http://b/", NULL, "//evil/x"), "/evil/x", "// at the beginning");
    is_str(sent("/ http://b/base", NULL, "/x"), "/base/x", "/ to /base");
    is_str(sent("/ http://b/", NULL, "/%7E/%c3%a9/a;b=%2f,%3F%23%25?x=%0d%0a&y=/../"),
           "/%7E/%c3%a9/a;b=%2f,%3F%23%25?x=%0d%0a&y=/../", "the client's bytes travel unchanged");
    is_str(sent("/app http://b/", NULL, "/%61pp/%7e"), "/%7e",
           "rest unchanged behind encoded prefix");
    is_str(sent("/app http://b/", NULL, "/app/x?unix:/tmp/s|http://h/"),
           "/x?unix:/tmp/s|http://h/", "unix: in a query is only a query (CVE-2021-40438)");
    is_str(sent("/app http://b/", NULL, "/app/x%3fy"), "/x%3fy", "%%3F stays (CVE-2024-38473)");
    is_str(sent("/app http://b/", NULL, "/app/a%2f..b%2fx"), "/a%2f..b%2fx", "%%2F stays");
    is_str(sent("/app http://b/", NULL, "/app/..%2f..%2fx"), "bad request",
           "no hidden dot segment");
    is_str(sent("/app !", NULL, "/app"), "refused", "no target for exempt requests");
}

static void test_templates(void)
{
    is_str(sent("~^/(.*)$ http://b/$1", NULL, "/x/y?q"), "/x/y?q", "$1, and the query goes on");
    is_str(sent("~^(/.*)$ http://b/$1", NULL, "/x"), "/x", "exactly one slash");
    is_str(sent("~^(/.*)$ http://b/base/$1", NULL, "/x"), "/base/x", "behind a base");
    is_str(sent("~^/u/([^/]+)/(.*)$ http://b/$2/of-$1/$0/$$1", NULL, "/u/me/x"),
           "/x/of-me/u/me/x/$1", "$0, $2, $$");
    is_str(sent("~^/a(/x)?$ http://b/z$1", NULL, "/a"), "/z", "a group that took no part");
    is_str(sent("~^/fixed http://b/to", NULL, "/fixed/x?q"), "/to?q", "no capture");
    is_str(sent("~^/fixed http://b", NULL, "/fixed"), "/", "no path");
    is_str(sent("~^/admin !\n~^/(.*) http://b/$1", NULL, "/%61dmin"), "refused",
           "encoding doesn't get around a regex '!'");
    is_str(sent("~^/(.*) http://b/$1", NULL, "/%61%7e%2f%3a"), "/a~%2F%3A",
           "matches on canonical form");
    is_str(sent("~^/(.*) http://b/$1", NULL, "/x%0d%0aY:%20z%09%20HTTP/1.1"),
           "/x%0D%0AY:%20z%09%20HTTP/1.1", "captures are never decoded (CVE-2023-25690)");
    is_str(sent("~^/(.*) http://b/$1", NULL, "/x%3Fy%23z"), "/x%3Fy%23z",
           "nor %%3F (CVE-2024-38474)");
    is_str(sent("~^/(.*)$ http://b/$1", NULL, "/x%0a"), "/x%0A", "an encoded line feed");
    is_str(sent("~^/x$ http://b/", NULL, "/x%0a"), "-", "does not slip past $ (CVE-2020-1927)");
    is_str(sent("~^/([^/]*)/(.*) http://b/a/$1/$2", NULL, "/x//y"), "/a/x/y", "no empty segment");
    is_str(sent("~^/a(.*) http://b/x/$1", NULL, "/a./y"), "refused", "no new dot segment");
    is_str(sent("~^/a(.*) http://b/x/.$1", NULL, "/a./y"), "refused", "nor a composed one");
    is_str(sent("~^/a(.)(.*) http://b/x/$1$2", NULL, "/a../y"), "refused", "nor of two captures");
    is_str(sent("~^/(...)(.*) http://b/$1", NULL, "/a%2fb"), "refused", "a cut escape");
    is_str(sent("~^/(.)(.)(.) http://b/x/$1$2e/y", NULL, "/%25"), "refused", "a composed escape");
    is_str(sent("~^/a http://b/c\n/ http://r/", NULL, "/b"), "/b", "regex first, then prefixes");
}

static void test_rewrites(void)
{
    const char *all = "/ http://b/";

    is_str(sent(all, "^/old/(.*)$ /new/$1", "/old/x?q=1"), "/new/x?q=1", "path, query kept");
    is_str(sent(all, "^/old /new", "/x"), "/x", "no match");
    is_str(sent("/app http://b/base", "^/base/(.*) /$1", "/app/x"), "/x", "after joining");
    is_str(sent(all, "^/OLD(.*) /new$1 [NC]", "/old/x"), "/new/x", "NC");
    is_str(sent(all, "^/a /b\n^/b /c", "/a"), "/c", "in order");
    is_str(sent(all, "^/a /b [L]\n^/b /c", "/a"), "/b", "L");
    is_str(sent(all, "^/a /b [NC,L]\n^/b /c", "/b"), "/c", "L only if it matched");
    is_str(sent(all, "^/i/(.*)$ /index?id=$1", "/i/7?x=1"), "/index?id=7", "sets the query");
    is_str(sent(all, "^/i/(.*)$ /index?id=$1 [QSA]", "/i/7?x=1"), "/index?id=7&x=1", "QSA");
    is_str(sent(all, "^/i/(.*)$ /index?id=$1 [QSA]", "/i/7"), "/index?id=7", "QSA without query");
    is_str(sent(all, "^/i /index?", "/i?x=1"), "/index", "an empty query removes it");
    is_str(sent(all, "^/i /index? [QSA]", "/i?x=1"), "/index?x=1", "QSA to an empty query");
    is_str(sent(all, "^/(.*)$ /p?u=$1&a=$$", "/a/b&admin=1+2;c"),
           "/p?u=a/b%26admin=1%2B2%3Bc&a=$", "a capture adds no argument");
    is_str(sent(all, "^/(.*)$ /p?u=$1", "/a%26b%0d%0a"), "/p?u=a%26b%0D%0A", "and isn't decoded");
    is_str(sent(all, "^/(.*)$ /z/$1", "/a%3Fb=c"), "/z/a%3Fb=c", "%%3F sets no query");
    is_str(sent(all, "^/x(.*)$ $1", "/x/y"), "/y", "a path that is a capture");
    is_str(sent(all, "^/x(.*)$ $1", "/x//evil/y"), "refused", "no //host");
    is_str(sent(all, "^/x(.*)$ $1", "/xhttp://evil/"), "refused",
           "no absolute form (CVE-2024-39573)");
    is_str(sent(all, "^/x/(.*)$ $1", "/x/proxy:http://evil/"), "refused", "no proxy:");
    is_str(sent(all, "^/x(.*)$ $1", "/x"), "refused", "no empty path");
    is_str(sent(all, "^/x(.*)$ /d/$1", "/x..%2fy/z"), "refused", "nor one before an encoded slash");
    is_str(sent(all, "^/x(.*)$ /d/$1", "/x../z"), "refused", "no new dot segment");
    is_str(sent(all, "^/x(.*)$ /d/$1", "/x%2e%2E/z"), "refused", "encoded dots neither");
    is_str(sent(all, "^/a$ /%61dmin/$$", "/a"), "/%61dmin/$", "literal escapes and dollars");
    is_str(sent(all, "^/(.*)$ /$1$1$1$1$1$1$1$1\n^/(.*)$ /$1$1$1$1$1$1$1$1\n"
                     "^/(.*)$ /$1$1$1$1$1$1$1$1\n^/(.*)$ /$1$1$1$1$1$1$1$1\n"
                     "^/(.*)$ /$1$1$1$1$1$1$1$1\n^/(.*)$ /$1$1$1$1$1$1$1$1", "/aaaa"),
           "refused", "results don't grow without bound");
}

static void bad_rewrite(const char *regex, const char *subst, const char *flags, const char *words)
{
    rp_rewrite *rewrite = NULL;
    const char *message = rp_rewrite_parse(pool, regex, subst, flags, &rewrite);

    ok(message && strstr(message, words) && !rewrite, "refused: %s", message ? message : subst);
}

static void test_rewrite_parse(void)
{
    bad_rewrite("^/(", "/x", NULL, "doesn't compile");
    bad_rewrite("^/", "http://evil/", NULL, "must begin with '/'");
    bad_rewrite("^/", "x", NULL, "must begin with '/'");
    bad_rewrite("^/", "", NULL, "must begin with '/'");
    bad_rewrite("^/", "$$", NULL, "must begin with '/'");
    bad_rewrite("^/", "//evil/", NULL, "one slash");
    bad_rewrite("^/", "/a/../b", NULL, "segments");
    bad_rewrite("^/", "/a b", NULL, "blanks");
    bad_rewrite("^/", "/a\r\n", NULL, "control bytes");
    bad_rewrite("^/", "/a#b", NULL, "'#'");
    bad_rewrite("^/", "/a\\b", NULL, "backslashes");
    bad_rewrite("^/", "/$1", NULL, "there is no $1");
    bad_rewrite("^/", "/x?y=$2", NULL, "there is no $2");
    bad_rewrite("^/", "/x$", NULL, "write $$");
    bad_rewrite("^/", "/x", "NC", "in brackets");
    bad_rewrite("^/", "/x", "[]", "in brackets");
    bad_rewrite("^/", "/x", "[P]", "unknown flag \"P\"");
    bad_rewrite("^/", "/x", "[NC,R=301]", "unknown flag \"R=301\"");
    bad_rewrite("^/", "/x", "[QSA]", "sets no query");
}

int main(void)
{
    pool = tap_pool();
    test_parse();
    test_checks();
    test_tables();
    test_prefixes();
    test_conditions();
    test_large();
    test_join();
    test_templates();
    test_rewrites();
    test_rewrite_parse();
    return tap_done();
}
