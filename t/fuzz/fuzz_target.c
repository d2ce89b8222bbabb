/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Addresses and what is made of requests with them. Input: a target, and after a line feed a
 * request target. Holds for every input: a parsed target is in normal form, and what would be sent
 * upstream is an origin-form target that begins with exactly one slash and has no blank or control
 * byte. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <apr_general.h>
#include <apr_strings.h>

#include "rproxy/route/rp_route.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void check_target(apr_pool_t *pool, const rp_target *target)
{
    rp_target *again = NULL;
    const char *message = rp_target_parse(pool, apr_pstrcat(pool, target->key, target->base, NULL),
                                          &again);

    assert(!message || strlen(target->text) + 8 > RP_HTTP_HEAD_MAX);
    if (message)
        return;
    assert(!strcmp(again->key, target->key) && !strcmp(again->base, target->base));
    assert(!strcmp(again->authority, target->authority));
    assert(target->base[0] == '/' && target->base[1] != '/');
    assert(rp_target_under(target, again) == rp_target_under(again, target));
}

static void check_sent(const char *sent)
{
    assert(sent[0] == '/' && sent[1] != '/');
    for (; *sent; sent++)
        assert((unsigned char)*sent > ' ' && *sent != 0x7f && *sent != '#');
}

static void check_request(apr_pool_t *pool, const char *address, int is_regex, const char *request,
                          const apr_array_header_t *rewrites)
{
    rp_route_table *table = rp_route_table_make(pool);
    rp_match_context context = { .pool = pool };
    rp_route *route = NULL;
    rp_match match;
    const char *path, *query, *sent;

    if (rp_route_parse(pool, is_regex ? "^(/a.)(.*)$" : "/app/", is_regex, address, NULL, "conf", 1,
                       &route))
        return;
    rp_route_table_add(table, route);
    assert(!rp_route_table_finish(pool, table));
    if (rp_uri_path(pool, request, RP_SLASHES_PASS, 0, &path, &query) != RP_HTTP_OK
        || !rp_route_match(table, &context, path, &match))
        return;
    if (rp_route_target(pool, &match, path, query, NULL, &sent) == RP_HTTP_OK)
        check_sent(sent);
    if (rp_route_target(pool, &match, path, query, rewrites, &sent) == RP_HTTP_OK)
        check_sent(sent);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static apr_pool_t *root;
    static apr_array_header_t *rewrites;
    apr_pool_t *pool;
    char *address, *request;
    rp_target *target = NULL;

    if (!root) {
        apr_initialize();
        atexit(apr_terminate);
        apr_pool_create(&root, NULL);
        rewrites = apr_array_make(root, 2, sizeof(rp_rewrite *));
        rp_rewrite_parse(root, "^/b(.*)/(.*)$", "$1/$2?x=$1", "[QSA]", apr_array_push(rewrites));
        rp_rewrite_parse(root, "(.)(.*)$", "/$2$1", NULL, apr_array_push(rewrites));
    }
    apr_pool_create(&pool, root);
    address = apr_pstrmemdup(pool, (const char *)data, size);
    request = strchr(address, '\n');
    if (request)
        *request++ = '\0';
    if (!rp_target_parse(pool, address, &target))
        check_target(pool, target);
    if (request) {
        check_request(pool, address, 0, request, rewrites);
        check_request(pool, address, 1, request, rewrites);
        check_request(pool, "http://b/base/$2/$1", 1, request, rewrites);
    }
    apr_pool_destroy(pool);
    return 0;
}
