/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyRewrite, RProxyReverse, RProxyCookieDomain, RProxyCookiePath. */
#include <string.h>
#include <apr_strings.h>

#include "rproxy/rp_config_private.h"

const char *rp_config_rewrite(cmd_parms *cmd, void *dir, const char *regex, const char *subst,
                              const char *flags)
{
    rp_dir_config *config = dir;
    apr_array_header_t *rewrites;
    rp_rewrite *rewrite;
    const char *message = rp_config_guard(cmd, 0);

    if (!message)
        message = rp_rewrite_parse(cmd->pool, regex, subst, flags, &rewrite);
    if (message)
        return message;
    /* The array is this section's own until it is merged. */
    rewrites = config->rewrites ? (apr_array_header_t *)config->rewrites
                                : apr_array_make(cmd->pool, 2, sizeof(rp_rewrite *));
    APR_ARRAY_PUSH(rewrites, rp_rewrite *) = rewrite;
    config->rewrites = rewrites;
    return NULL;
}

/* ---- the way back ---------------------------------------------------------------------------- */

/** Adds FROM TO to a list. The first rule that matches decides, so a FROM may stand there once. */
static const char *add_rule(cmd_parms *cmd, rp_reverse_kind kind, const apr_array_header_t **list,
                            const char *from, const char *to)
{
    apr_array_header_t *rules = *list ? (apr_array_header_t *)*list
                                      : apr_array_make(cmd->pool, 2, sizeof(rp_reverse_rule));
    const char *message = rp_config_guard(cmd, 0);
    rp_reverse_rule rule;

    if (message)
        return message;
    message = rp_reverse_rule_parse(cmd->pool, kind, from, to, &rule);
    if (message)
        return apr_psprintf(cmd->pool, "%s %s", cmd->cmd->name, message);
    for (int i = 0; i < rules->nelts; i++) {
        const rp_reverse_rule *earlier = &APR_ARRAY_IDX(rules, i, rp_reverse_rule);

        if (!strcmp(earlier->from, from))
            return apr_psprintf(cmd->pool, "%s %s: could never take effect, the same is mapped to "
                                "%s before; remove one", cmd->cmd->name, from, earlier->to);
    }
    APR_ARRAY_PUSH(rules, rp_reverse_rule) = rule;
    *list = rules;
    return NULL;
}

const char *rp_config_reverse(cmd_parms *cmd, void *dir, const char *from, const char *to)
{
    return add_rule(cmd, RP_REVERSE_URL, &((rp_dir_config *)dir)->reverse_rules, from, to);
}

const char *rp_config_cookie_domain(cmd_parms *cmd, void *dir, const char *from, const char *to)
{
    return add_rule(cmd, RP_REVERSE_COOKIE_DOMAIN, &((rp_dir_config *)dir)->cookie_domains, from,
                    to);
}

const char *rp_config_cookie_path(cmd_parms *cmd, void *dir, const char *from, const char *to)
{
    return add_rule(cmd, RP_REVERSE_COOKIE_PATH, &((rp_dir_config *)dir)->cookie_paths, from, to);
}
