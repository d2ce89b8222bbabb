/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyQueue, RProxyRetryBudget. */
#include <apr_strings.h>

#include "balancer/rp_balancer_config.h"
#include "rproxy/rp_argument.h"

#define QUEUE_MAX_DEFAULT 100
#define QUEUE_TIMEOUT_DEFAULT (5 * APR_USEC_PER_SEC)
#define BUDGET_MIN_MAX 1000000

static const char *take_queue(apr_pool_t *pool, const char *argument, int key, const char *value,
                              rp_balancer *balancer)
{
    switch (key) {
    case RP_KEY_OFF:
        balancer->queue_max = 0;
        return NULL;
    case 0:
        return rp_argument_number(pool, argument, value, 1, RP_QUEUE_MAX, &balancer->queue_max);
    default:
        return rp_argument_time(pool, argument, value, 0, &balancer->queue_timeout);
    }
}

static const char *parse_queue(apr_pool_t *pool, const apr_array_header_t *words,
                               rp_balancer *balancer)
{
    static const char *const names[] = { "max", "timeout", NULL };

    if (!words->nelts)
        return "it needs off or keys, as in RProxyQueue max=100 timeout=5s";
    balancer->queue_max = QUEUE_MAX_DEFAULT;
    balancer->queue_timeout = QUEUE_TIMEOUT_DEFAULT;
    return rp_balancer_off_or_keys(pool, words, names, take_queue, balancer);
}

const char *rp_balancer_queue(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer;
    apr_array_header_t *words;
    const char *message = rp_balancer_once(cmd, arguments, RP_ONCE_QUEUE, &balancer, &words);

    (void)dir;
    if (message)
        return message;
    message = parse_queue(cmd->pool, words, balancer);
    return message ? apr_psprintf(cmd->pool, "RProxyQueue: %s", message) : NULL;
}

static const char *take_budget(apr_pool_t *pool, const char *argument, int key, const char *value,
                               rp_balancer *balancer)
{
    switch (key) {
    case RP_KEY_OFF:
        balancer->budget.percent = 0;
        return NULL;
    case 0:
        return rp_argument_number(pool, argument, value, 1, 100, &balancer->budget.percent);
    default:
        return rp_argument_number(pool, argument, value, 0, BUDGET_MIN_MAX, &balancer->budget.min);
    }
}

static const char *parse_budget(apr_pool_t *pool, const apr_array_header_t *words,
                                rp_balancer *balancer)
{
    static const char *const names[] = { "percent", "min", NULL };

    if (!words->nelts)
        return "it needs off or keys, as in RProxyRetryBudget percent=50 min=20";
    return rp_balancer_off_or_keys(pool, words, names, take_budget, balancer);
}

const char *rp_balancer_retry_budget(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer;
    apr_array_header_t *words;
    const char *message = rp_balancer_once(cmd, arguments, RP_ONCE_BUDGET, &balancer, &words);

    (void)dir;
    if (message)
        return message;
    message = parse_budget(cmd->pool, words, balancer);
    return message ? apr_psprintf(cmd->pool, "RProxyRetryBudget: %s", message) : NULL;
}
