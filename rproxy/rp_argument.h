/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* How arguments of directives are read, in all of our modules alike: each has a copy of its own.
 * What returns a message returns NULL or a text with a remedy; argument is for that text. */
#ifndef RP_ARGUMENT_H
#define RP_ARGUMENT_H

#include <apr_tables.h>
#include <apr_time.h>

/** Arguments as an array of const char *; quotes may also stand behind '=', as in if="a == b". */
apr_array_header_t *rp_argument_words(apr_pool_t *pool, const char *arguments);

/** Splits "key=value": index of the key in names (ends with NULL), value. Refuses unknown keys,
 * empty values, and keys whose bit is in seen; sets it. */
const char *rp_argument_key(apr_pool_t *pool, const char *argument, const char *const *names,
                            unsigned int *seen, int *key, const char **value);

/** "250ms", "5s", "2m", "1h", "1d", or seconds. */
const char *rp_argument_time(apr_pool_t *pool, const char *argument, const char *text,
                             int may_be_0, apr_interval_time_t *time);

const char *rp_argument_number(apr_pool_t *pool, const char *argument, const char *text, int min,
                               int max, int *number);

/** A time with the largest unit that says it exactly. */
const char *rp_argument_time_text(apr_pool_t *pool, apr_interval_time_t time);

#endif
