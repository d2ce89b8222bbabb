/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What sessions read: the input is a Cookie field, a Set-Cookie field, the value of a cookie of
 * ours, and Cache-Control. */

#include "balancer/rp_cookie.h"
#include "balancer/rp_sticky.h"
#include "t/fuzz/fuzz.h"

/** The next cookie with the name is in both fields or in none, with the same value. */
static int next_is_same(const char **field, const char **other, const char *name)
{
    rp_span value, its;
    int is_there = rp_cookie_next(field, name, &value);

    FUZZ_ASSERT(rp_cookie_next(other, name, &its) == is_there);
    FUZZ_ASSERT(!is_there || (value.len == its.len && !memcmp(value.at, its.at, its.len)));
    return is_there;
}

static void check_cookies(const char *field)
{
    const char *end = field + strlen(field), *rest = rp_cookie_without(FUZZ_POOL, field, "id");
    const char *at = field, *in_rest = rest;
    rp_span value;
    int count = 0;

    FUZZ_ASSERT(strlen(rest) <= 2 * strlen(field));
    while (rp_cookie_next(&at, "id", &value)) {
        FUZZ_ASSERT(value.at >= field && value.at + value.len <= end && at <= end);
        FUZZ_ASSERT(!memchr(value.at, ';', value.len));
        count++;
    }
    FUZZ_ASSERT((rest == field) == !count);
    FUZZ_ASSERT(!rp_cookie_next(&in_rest, "id", &value));
    at = field;
    in_rest = rest;
    while (next_is_same(&at, &in_rest, "a"))
        ;
    if (rp_cookie_is_set(field, "id", &value))
        FUZZ_ASSERT(value.at >= field && value.at + value.len <= end);
}

static void check_seal(const char *text, size_t len)
{
    rp_span key = { "0123456789abcdef", 16 };
    apr_array_header_t keys = { .elt_size = sizeof(key), .nelts = 1, .nalloc = 1,
                                .elts = (char *)&key };
    const rp_seal *seal = rp_seal_make(FUZZ_POOL, "app", &keys);
    char again[RP_SEAL_TEXT + 1];
    rp_sealed what;

    if (rp_seal_open(seal, (rp_span){ text, len }, &what) < 0)
        return;
    rp_seal_close(seal, &what, again);
    FUZZ_ASSERT(len == RP_SEAL_TEXT && !memcmp(again, text, len));
}

static const char *next_field(const rproxy_answer *answer, const char *name, int *position)
{
    (void)name;
    return (*position)++ ? NULL : answer->fields;
}

static void check_answer(char *field)
{
    rproxy_answer answer = { .status = 200, .fields = field, .next = next_field };
    int is_private = -1;

    rp_answer_is_shared(&answer, 0, &is_private);
    FUZZ_ASSERT(is_private == 0 || is_private == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_string(data, size);

    check_cookies(text);
    check_seal(fuzz_copy(data, size), size);
    check_answer(text);
    fuzz_free();
    return 0;
}
