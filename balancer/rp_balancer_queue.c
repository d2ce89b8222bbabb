/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyQueue, RProxyRetryBudget. */
#include <strings.h>
#include <apr_strings.h>

#include "balancer/rp_balancer_config.h"
#include "rproxy/rp_argument.h"

#define QUEUE_MAX_DEFAULT 100
#define QUEUE_TIMEOUT_DEFAULT (5 * APR_USEC_PER_SEC)
#define BUDGET_MIN_MAX 1000000

/** Nonzero if the words are just "off". */
static int is_off(const apr_array_header_t *words)
{
    return words->nelts == 1 && !strcasecmp(APR_ARRAY_IDX(words, 0, const char *), "off");
}

static const char *parse_queue(apr_pool_t *pool, const apr_array_header_t *words,
                               rp_balancer *balancer)
{
    static const char *const names[] = { "max", "timeout", NULL };
    const char *message = NULL;
    unsigned int seen = 0;

    if (!words->nelts)
        return "it needs off or keys, as in RProxyQueue max=100 timeout=5s";
    balancer->queue_max = is_off(words) ? 0 : QUEUE_MAX_DEFAULT;
    balancer->queue_timeout = QUEUE_TIMEOUT_DEFAULT;
    for (int i = 0; i < words->nelts && !message && balancer->queue_max; i++) {
        const char *argument = APR_ARRAY_IDX(words, i, const char *), *value;
        int key;

        if (!strcasecmp(argument, "off"))
            return "off stands alone; write it, or keys";
        message = rp_argument_key(pool, argument, names, &seen, &key, &value);
        if (!message)
            message = key == 0
                ? rp_argument_number(pool, argument, value, 1, RP_QUEUE_MAX, &balancer->queue_max)
                : rp_argument_time(pool, argument, value, 0, &balancer->queue_timeout);
    }
    return message;
}

const char *rp_balancer_queue(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer;
    apr_array_header_t *words;
    const char *message = rp_balancer_once(cmd, arguments, RP_ONCE_QUEUE, &balancer,
                                           &words);

    (void)dir;
    if (message)
        return message;
    message = parse_queue(cmd->pool, words, balancer);
    return message ? apr_psprintf(cmd->pool, "RProxyQueue: %s", message) : NULL;
}

static const char *parse_budget(apr_pool_t *pool, const apr_array_header_t *words,
                                rp_budget *budget)
{
    static const char *const names[] = { "percent", "min", NULL };
    const char *message = NULL;
    unsigned int seen = 0;

    if (!words->nelts)
        return "it needs off or keys, as in RProxyRetryBudget percent=50 min=20";
    if (is_off(words)) {
        budget->percent = 0;
        return NULL;
    }
    for (int i = 0; i < words->nelts && !message; i++) {
        const char *argument = APR_ARRAY_IDX(words, i, const char *), *value;
        int key;

        if (!strcasecmp(argument, "off"))
            return "off stands alone; write it, or keys";
        message = rp_argument_key(pool, argument, names, &seen, &key, &value);
        if (!message)
            message = key == 0
                ? rp_argument_number(pool, argument, value, 1, 100, &budget->percent)
                : rp_argument_number(pool, argument, value, 0, BUDGET_MIN_MAX, &budget->min);
    }
    return message;
}

const char *rp_balancer_retry_budget(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer;
    apr_array_header_t *words;
    const char *message = rp_balancer_once(cmd, arguments, RP_ONCE_BUDGET, &balancer,
                                           &words);

    (void)dir;
    if (message)
        return message;
    message = parse_budget(cmd->pool, words, &balancer->budget);
    return message ? apr_psprintf(cmd->pool, "RProxyRetryBudget: %s", message) : NULL;
}
