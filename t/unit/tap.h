/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Test Anything Protocol for the unit tests: one program a concept, main() ends with
 * "return tap_done();". Every check prints one line; a failed one also where it stands. */
#ifndef TAP_H
#define TAP_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <apr_general.h>
#include <apr_pools.h>

static int tap_count, tap_failures;

__attribute__((format(printf, 4, 5)))
static inline int tap_result(int good, const char *file, int line, const char *format, ...)
{
    va_list arguments;

    tap_count++;
    tap_failures += !good;
    printf("%sok %d - ", good ? "" : "not ", tap_count);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    if (!good) {
        printf("# at %s line %d\n", file, line);
    }
    return good;
}

static inline void tap_text(const char *got, const char *expected, const char *file, int line,
                            const char *name)
{
    int same = got == NULL || expected == NULL ? got == expected : strcmp(got, expected) == 0;

    if (!tap_result(same, file, line, "%s", name)) {
        printf("#      got: %s\n", got != NULL ? got : "NULL");
        printf("# expected: %s\n", expected != NULL ? expected : "NULL");
    }
}

static inline void tap_number(long long got, long long expected, const char *file, int line,
                              const char *name)
{
    if (!tap_result(got == expected, file, line, "%s", name)) {
        printf("#      got: %lld\n# expected: %lld\n", got, expected);
    }
}

/** ok(condition, format, ...): the condition holds. */
#define ok(condition, ...) tap_result(!!(condition), __FILE__, __LINE__, __VA_ARGS__)

/** is_text(got, expected, name): equal strings, both may be NULL. */
#define is_text(got, expected, name) tap_text((got), (expected), __FILE__, __LINE__, (name))

/** is_number(got, expected, name): equal numbers. */
#define is_number(got, expected, name) \
    tap_number((long long)(got), (long long)(expected), __FILE__, __LINE__, (name))

/** A pool for the whole program. */
static inline apr_pool_t *tap_pool(void)
{
    apr_pool_t *pool = NULL;

    if (apr_initialize() != APR_SUCCESS || apr_pool_create(&pool, NULL) != APR_SUCCESS) {
        puts("Bail out! APR cannot be initialised");
        exit(1);
    }
    return pool;
}

/** Prints the plan; the value is main()'s. */
static inline int tap_done(void)
{
    printf("1..%d\n", tap_count);
    apr_terminate();
    return tap_failures != 0;
}

#endif
