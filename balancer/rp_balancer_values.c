/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* How arguments of directives are read. */
#include <string.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "balancer/rp_balancer.h"

apr_array_header_t *rp_balancer_words(apr_pool_t *pool, const char *arguments)
{
    apr_array_header_t *words = apr_array_make(pool, 8, sizeof(const char *));
    const char *word;

    while (*(word = ap_getword_conf(pool, &arguments)))
        APR_ARRAY_PUSH(words, const char *) = word;
    return words;
}

/** "a=, b= and c=" */
static const char *list_of(apr_pool_t *pool, const char *const *names)
{
    const char *list = "";

    for (int i = 0; names[i]; i++)
        list = apr_pstrcat(pool, list, !i ? "" : names[i + 1] ? ", " : " and ", names[i], "=",
                           NULL);
    return list;
}

const char *rp_balancer_key(apr_pool_t *pool, const char *argument, const char *const *names,
                            unsigned int *seen, int *key, const char **value)
{
    const char *equals = strchr(argument, '=');
    apr_size_t len = equals ? (apr_size_t)(equals - argument) : 0;

    if (!equals)
        return apr_psprintf(pool, "\"%s\" is no key=value; known keys are %s", argument,
                            list_of(pool, names));
    for (int i = 0; names[i]; i++) {
        if (strlen(names[i]) != len || strncmp(names[i], argument, len) != 0)
            continue;
        if (*seen & 1u << i)
            return apr_psprintf(pool, "%s= stands twice; keep one", names[i]);
        if (!equals[1])
            return apr_psprintf(pool, "%s= needs a value", names[i]);
        *seen |= 1u << i;
        *key = i;
        *value = equals + 1;
        return NULL;
    }
    return apr_psprintf(pool, "unknown key \"%s\"; known are %s", argument, list_of(pool, names));
}

static const struct time_unit {
    const char *name;
    apr_interval_time_t size;
} time_units[] = {
    { "d", 86400 * APR_USEC_PER_SEC },
    { "h", 3600 * APR_USEC_PER_SEC },
    { "min", 60 * APR_USEC_PER_SEC },
    { "mi", 60 * APR_USEC_PER_SEC },
    { "m", 60 * APR_USEC_PER_SEC },
    { "s", APR_USEC_PER_SEC },
    { "", APR_USEC_PER_SEC },
    { "ms", 1000 },
};

#define TIME_UNITS ((int)(sizeof(time_units) / sizeof(time_units[0])))
#define TIME_MAX_DAYS 3650

const char *rp_balancer_time(apr_pool_t *pool, const char *argument, const char *text,
                             apr_interval_time_t *time)
{
    const apr_interval_time_t max = TIME_MAX_DAYS * 86400 * APR_USEC_PER_SEC;
    apr_size_t digits = strspn(text, "0123456789");
    apr_int64_t number = digits < 16 ? apr_atoi64(text) : APR_INT64_MAX;
    int unit = 0;

    while (unit < TIME_UNITS && strcmp(time_units[unit].name, text + digits) != 0)
        unit++;
    if (!digits || unit == TIME_UNITS || !number)
        return apr_psprintf(pool, "\"%s\": write a time above 0 as a whole number with its unit, "
                            "like 250ms, 5s, 2min or 1h", argument);
    if (number > max / time_units[unit].size)
        return apr_psprintf(pool, "\"%s\": a time is at most %d days", argument, TIME_MAX_DAYS);
    *time = number * time_units[unit].size;
    return NULL;
}

const char *rp_balancer_number(apr_pool_t *pool, const char *argument, const char *text, int min,
                               int max, int *number)
{
    apr_size_t digits = strspn(text, "0123456789");
    apr_int64_t value = digits < 16 ? apr_atoi64(text) : APR_INT64_MAX;

    if (!digits || text[digits] || value < min || value > max)
        return apr_psprintf(pool, "\"%s\": write a whole number from %d to %d", argument, min, max);
    *number = (int)value;
    return NULL;
}

int rp_balancer_is_name(const char *text)
{
    apr_size_t len = 0;

    while (apr_isalnum(text[len]) || (text[len] && strchr("._-", text[len])))
        len++;
    return len > 0 && len <= 64 && !text[len];
}
