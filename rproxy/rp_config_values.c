/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Where directives may stand, and how their arguments are read. */
#include <string.h>
#include <strings.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "rproxy/rp_config_private.h"

/* ---- where a directive stands ---------------------------------------------------------------- */

int rp_config_in_htaccess(const cmd_parms *cmd)
{
    return cmd->pool == cmd->temp_pool;
}

const ap_directive_t *rp_config_enclosing(const ap_directive_t *directive, const char *name)
{
    apr_size_t len = strlen(name);

    for (directive = directive->parent; directive; directive = directive->parent) {
        if (!strncasecmp(directive->directive, name, len)
            && (!directive->directive[len] || !strcasecmp(directive->directive + len, "Match")))
            return directive;
    }
    return NULL;
}

const char *rp_config_guard(cmd_parms *cmd, unsigned int rules)
{
    static const char *const strange[] = { "<Limit", "<LimitExcept", "<Proxy", NULL };
    const char *name = cmd->cmd->name;
    const ap_directive_t *found;

    if ((rules & (RP_GUARD_NOT_HTACCESS | RP_GUARD_SERVER)) && rp_config_in_htaccess(cmd))
        return apr_psprintf(cmd->pool, "%s is not for .htaccess files, only the server's own "
                            "configuration may set it; move it there%s", name,
                            rules & RP_GUARD_SERVER ? "" : ", into <Directory> or <Location>");
    for (int i = 0; strange[i]; i++) {
        if ((found = rp_config_enclosing(cmd->directive, strange[i])))
            return apr_psprintf(cmd->pool, "%s could not take effect in %s>; %s", name,
                                found->directive,
                                i < 2 ? "move it out, and use <If> to choose by method"
                                      : "that section is mod_proxy's, use <Location>");
    }
    if ((rules & RP_GUARD_SERVER) && cmd->path)
        return apr_psprintf(cmd->pool, "%s holds for a whole server; move it out of the section, "
                            "into <VirtualHost> or the main server", name);
    for (found = cmd->directive->next; (rules & RP_GUARD_ONCE) && found; found = found->next) {
        if (!strcasecmp(found->directive, name))
            return apr_psprintf(cmd->pool, "%s stands twice in one section: here (%s:%d) and at "
                                "%s:%d; keep one", name, cmd->directive->filename,
                                cmd->directive->line_num, found->filename, found->line_num);
    }
    return NULL;
}
