/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What may stand in <RProxyBalancer> and <RProxyMember>, and the settings of the core among it. */
#include <strings.h>
#include <apr_strings.h>

#include "balancer/rp_balancer_config.h"

/** Ours; beside them stand those of the core about upstreams. */
static const char *const of_pool[] = {
    "RProxyDiscover", "RProxyHealthCheck", "RProxyMember", "<RProxyMember", "RProxyMembersFile",
    "RProxyMethod", "RProxyOutlier",
    "RProxyQueue", "RProxyRetryBudget", "RProxyResolve", "RProxySticky", NULL
};
static const char *const none[] = { NULL };

/* ---- what may stand there -------------------------------------------------------------------- */

static const char *const *of_core(int of_member)
{
    APR_OPTIONAL_FN_TYPE(rproxy_settings_directives) *directives =
        APR_RETRIEVE_OPTIONAL_FN(rproxy_settings_directives);

    return directives ? directives(of_member) : none;
}

static int is_in(const char *const *names, const char *name)
{
    while (*names && strcasecmp(*names, name) != 0)
        names++;
    return *names != NULL;
}

static void add_lines(apr_array_header_t *list, const char *const *names)
{
    for (; *names; names++) {
        if (**names != '<')
            APR_ARRAY_PUSH(list, const char *) = *names;
    }
}

/** "A, B and C" */
static const char *allowed(apr_pool_t *pool, int of_member)
{
    apr_array_header_t *list = apr_array_make(pool, 16, sizeof(const char *));
    const char *text = "";

    add_lines(list, of_member ? none : of_pool);
    add_lines(list, of_core(of_member));
    for (int i = 0; i < list->nelts; i++)
        text = apr_pstrcat(pool, text, !i ? "" : i + 1 < list->nelts ? ", " : " and ",
                           APR_ARRAY_IDX(list, i, const char *), NULL);
    return text;
}

/** Nothing but what describes a pool: a directive of the server would hold for all of it. */
static const char *check(cmd_parms *cmd, const ap_directive_t *inside, int of_member)
{
    const char *section = of_member ? "<RProxyMember>" : "<RProxyBalancer>", *name;

    while (inside && (is_in(of_core(of_member), inside->directive)
                      || (!of_member && is_in(of_pool, inside->directive))))
        inside = inside->next;
    if (!inside)
        return NULL;
    name = apr_psprintf(cmd->pool, "%s%s (%s:%d)", inside->directive,
                        *inside->directive == '<' ? ">" : "", inside->filename, inside->line_num);
    if (of_member && is_in(of_core(0), inside->directive))
        return apr_psprintf(cmd->pool, "%s can't differ by member, it is needed before one is "
                            "chosen; move it out of %s, into <RProxyBalancer>", name, section);
    return apr_psprintf(cmd->pool, "%s is not for %s, which takes %s; move it out", name, section,
                        allowed(cmd->pool, of_member));
}

/* ---- reading --------------------------------------------------------------------------------- */

const char *rp_balancer_read_inside(cmd_parms *cmd, ap_directive_t *first, int of_member,
                                    ap_conf_vector_t **section)
{
    ap_directive_t *at = cmd->directive;
    const char *message = check(cmd, first, of_member);

    if (message || !first)
        return message;
    *section = ap_create_per_dir_config(cmd->pool);
    message = ap_walk_config(first, cmd, *section);
    cmd->directive = at;
    return message;
}

void rp_balancer_make_settings(apr_pool_t *pool, rp_balancer *balancer)
{
    APR_OPTIONAL_FN_TYPE(rproxy_settings_make) *make =
        APR_RETRIEVE_OPTIONAL_FN(rproxy_settings_make);

    balancer->settings = make(pool, balancer->section, NULL);
    for (int i = 0; i < balancer->parsed_more->nelts; i++) {
        rp_member *more = &APR_ARRAY_IDX(balancer->parsed_more, i, rp_member);

        if (more->section)
            more->settings = make(pool, balancer->section, more->section);
    }
}

const rproxy_settings *rp_balancer_settings(void *pool)
{
    return ((const rp_balancer *)pool)->settings;
}
