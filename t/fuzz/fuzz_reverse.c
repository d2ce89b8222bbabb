/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Reverse maps with hostile values. Input: one byte that chooses field and configuration, the
 * value. Holds for every input: nothing that could split a response comes out, the same pointer
 * comes back exactly if nothing changed, and a path never becomes an address of another host. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <apr_general.h>
#include <apr_strings.h>

#include "rproxy/route/rp_route.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static const rp_field_id ids[] = { RP_FIELD_LOCATION, RP_FIELD_REFRESH, RP_FIELD_LINK,
                                   RP_FIELD_SET_COOKIE };

static void configure(apr_pool_t *pool, int which, rp_reverse *reverse)
{
    static const char *const pairs[][2] = { { "http://other/x", "/y" }, { "/old", "/" },
                                            { "https://b", "/s/" } };
    static const char *const domains[][2] = { { "internal", "a-longer-name.example.org" } };
    apr_array_header_t *rules = apr_array_make(pool, 3, sizeof(rp_reverse_rule));
    apr_array_header_t *names = apr_array_make(pool, 1, sizeof(rp_reverse_rule));

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
        APR_ARRAY_PUSH(rules, rp_reverse_rule) = (rp_reverse_rule){ pairs[i][0], pairs[i][1] };
    APR_ARRAY_PUSH(names, rp_reverse_rule) = (rp_reverse_rule){ domains[0][0], domains[0][1] };
    memset(reverse, 0, sizeof(*reverse));
    reverse->upstream_scheme = which & 1 ? "https" : "http";
    reverse->upstream_authority = which & 1 ? "[::1]:8080" : "b:80";
    reverse->sent_host = which & 2 ? "c" : "b";
    reverse->upstream_base = which & 4 ? "/base" : "/";
    reverse->client_scheme = "https";
    reverse->client_authority = "c";
    reverse->client_prefix = which & 8 ? "/" : which & 16 ? "/a/much/longer/prefix/" : NULL;
    reverse->rules = which & 32 ? rules : NULL;
    reverse->cookie_domains = which & 32 ? names : NULL;
    reverse->cookie_paths = which & 32 ? rules : NULL;
}

static int is_host_reference(const char *text)
{
    const char *p = text + 1;

    return *text == '/' && (p += strspn(p, "\t"), *p == '/' || *p == '\\');
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static apr_pool_t *root;
    apr_pool_t *pool;
    rp_reverse reverse;
    rp_field field = { .name = "", .id = RP_FIELD_OTHER };
    const char *result;

    if (size < 1 || !rp_is_field_value((const char *)data + 1, size - 1))
        return 0;
    if (!root) {
        apr_initialize();
        atexit(apr_terminate);
        apr_pool_create(&root, NULL);
    }
    apr_pool_create(&pool, root);
    configure(pool, data[0] >> 2, &reverse);
    field.id = ids[data[0] & 3];
    field.value = apr_pstrmemdup(pool, (const char *)data + 1, size - 1);
    field.value_len = (apr_uint32_t)(size - 1);

    result = rp_reverse_field(pool, &reverse, &field);
    assert(rp_is_field_value(result, strlen(result)));
    assert((result == field.value) == !strcmp(result, field.value));
    assert(strlen(result) <= 40 * (size + 1));
    if (field.id == RP_FIELD_LOCATION && field.value[0] == '/' && !is_host_reference(field.value))
        assert(!is_host_reference(result) && result[0] == '/');
    apr_pool_destroy(pool);
    return 0;
}
