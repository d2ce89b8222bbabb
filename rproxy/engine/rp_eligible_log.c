/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What log formats ask for: %{...}e, %{...}i, %{...}o. Read from the directives' arguments, for
 * mod_log_config tells nobody. */
#include <string.h>
#include <strings.h>
#include <apr_strings.h>

#include "rproxy/engine/rp_eligible_private.h"

/** Behind "%": modifiers like ">", "!200,304", "-", "^" may stand before and behind "{...}". */
static void read_item(apr_pool_t *pool, const char *item, rp_log_facts *facts)
{
    static const char modifiers[] = "0123456789!,<>+-^ ";
    const char *name, *end;

    item += strspn(item, modifiers);
    if (*item != '{')
        return;
    name = item + 1;
    end = strchr(name, '}');
    if (!end)
        return;
    item = end + 1 + strspn(end + 1, modifiers);
    if (item[-1] == '^' && *item == 't' && item[1])
        item++;                         /* %{...}^ti, %{...}^to: trailers */
    if (*item == 'x' && !strncmp(name, "ENV:", 4)) {
        name += 4;                      /* mod_ssl's way to say the same */
        item = "e";
    }
    if (*item == 'e') {
        facts->needs.env = 1;
        APR_ARRAY_PUSH(facts->variables, const char *)
            = apr_pstrmemdup(pool, name, (apr_size_t)(end - name));
    }
    else if (*item == 'i' || *item == 'C') {
        facts->needs.request_fields = 1;
    }
    else if (*item == 'o') {
        facts->needs.response_fields = 1;
    }
}

static void read_format(apr_pool_t *pool, const char *text, rp_log_facts *facts)
{
    for (const char *at = strchr(text, '%'); at; at = strchr(at, '%')) {
        at++;
        if (*at == '%')
            at++;
        else
            read_item(pool, at, facts);
    }
}

static int has_format(const char *directive)
{
    static const char *const names[] = {
        "CustomLog", "ErrorLogFormat", "GlobalLog", "LogFormat", "TransferLog", NULL
    };

    for (int i = 0; names[i]; i++) {
        if (!strcasecmp(directive, names[i]))
            return 1;
    }
    return 0;
}

static void read_level(apr_pool_t *pool, const ap_directive_t *tree, rp_log_facts *facts)
{
    for (; tree; tree = tree->next) {
        if (has_format(tree->directive))
            read_format(pool, tree->args, facts);
        if (tree->first_child)
            read_level(pool, tree->first_child, facts);
    }
}

void rp_log_facts_read(apr_pool_t *pool, const ap_directive_t *tree, rp_log_facts *facts)
{
    memset(&facts->needs, 0, sizeof(facts->needs));
    facts->variables = apr_array_make(pool, 4, sizeof(const char *));
    read_level(pool, tree, facts);
}

int rp_log_shows(const rp_log_facts *facts, const char *variable)
{
    for (int i = 0; i < facts->variables->nelts; i++) {
        if (!strcasecmp(APR_ARRAY_IDX(facts->variables, i, const char *), variable))
            return 1;
    }
    return 0;
}
