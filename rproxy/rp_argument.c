/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <string.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include "httpd.h"
#include "rproxy/rp_argument.h"

apr_array_header_t *rp_argument_words(apr_pool_t *pool, const char *arguments)
{
    apr_array_header_t *words = apr_array_make(pool, 8, sizeof(const char *));

    while (apr_isspace(*arguments))
        arguments++;
    while (*arguments) {
        apr_size_t key = strspn(arguments, "abcdefghijklmnopqrstuvwxyz-");
        const char *word;

        if (key && arguments[key] == '='
            && (arguments[key + 1] == '"' || arguments[key + 1] == '\'')) {
            const char *value = arguments + key + 1;

            word = apr_pstrcat(pool, apr_pstrmemdup(pool, arguments, key + 1),
                               ap_getword_conf(pool, &value), NULL);
            arguments = value;
        }
        else
            word = ap_getword_conf(pool, &arguments);
        APR_ARRAY_PUSH(words, const char *) = word;
    }
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

const char *rp_argument_key(apr_pool_t *pool, const char *argument, const char *const *names,
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

const char *rp_argument_time(apr_pool_t *pool, const char *argument, const char *text,
                             int may_be_0, apr_interval_time_t *time)
{
    const apr_interval_time_t max = TIME_MAX_DAYS * 86400 * APR_USEC_PER_SEC;
    apr_size_t digits = strspn(text, "0123456789");
    int unit = 0;
    apr_int64_t number;

    while (unit < TIME_UNITS && strcmp(time_units[unit].name, text + digits) != 0)
        unit++;
    number = digits < 16 ? apr_atoi64(text) : APR_INT64_MAX;
    if (!digits || unit == TIME_UNITS || (number == 0 && !may_be_0))
        return apr_psprintf(pool, "\"%s\": write a time%s as a whole number with its unit, like "
                            "250ms, 5s, 2min, 1h or 1d", argument, may_be_0 ? "" : " above 0");
    if (number > max / time_units[unit].size)
        return apr_psprintf(pool, "\"%s\": a time is at most %d days%s", argument, TIME_MAX_DAYS,
                            may_be_0 ? "; write 0 for no limit" : "");
    *time = number * time_units[unit].size;
    return NULL;
}

const char *rp_argument_time_text(apr_pool_t *pool, apr_interval_time_t time)
{
    if (!time)
        return "0";
    for (int i = 0; i < TIME_UNITS; i++) {
        if (*time_units[i].name && time % time_units[i].size == 0)
            return apr_psprintf(pool, "%" APR_TIME_T_FMT "%s", time / time_units[i].size,
                                time_units[i].name);
    }
    return apr_psprintf(pool, "%" APR_TIME_T_FMT "us", time);
}

const char *rp_argument_number(apr_pool_t *pool, const char *argument, const char *text, int min,
                               int max, int *number)
{
    apr_size_t digits = strspn(text, "0123456789");
    apr_int64_t value = digits < 16 ? apr_atoi64(text) : APR_INT64_MAX;

    if (!digits || text[digits] || value < min || value > max)
        return apr_psprintf(pool, "\"%s\": write a whole number from %d to %d", argument, min, max);
    *number = (int)value;
    return NULL;
}
