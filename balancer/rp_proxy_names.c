/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* mod_proxy's parameters of a BalancerMember on RProxyMember. What means the same is taken: a
 * directive of the core is put into the member's section. What means something else, or belongs
 * elsewhere, is refused with what to write instead. loadfactor= and route= are keys like ours. */
#include <string.h>
#include <strings.h>
#include <apr_strings.h>

#include "balancer/rp_balancer_config.h"
#include "rproxy/rp_argument.h"

/* ---- what is refused ------------------------------------------------------------------------- */

#define NOT_NEEDED "remove it: "
#define HEALTH_CHECK "write RProxyHealthCheck in the pool"
#define NO_COUNTERPART "remove it: nothing corresponds to it here"

static const struct refused {
    const char *name;
    const char *instead;
} refused[] = {
    { "acquire", "write RProxyQueue in the pool: how long requests wait for a member" },
    { "addressttl", NOT_NEEDED "names are resolved by their TTL, see RProxyResolver" },
    { "flushpackets", NOT_NEEDED "output follows the upstream's pauses" },
    { "flushwait", NOT_NEEDED "output follows the upstream's pauses" },
    { "hcexpr", HEALTH_CHECK },
    { "hcfails", HEALTH_CHECK },
    { "hcinterval", HEALTH_CHECK },
    { "hcmethod", HEALTH_CHECK },
    { "hcpasses", HEALTH_CHECK },
    { "hctemplate", HEALTH_CHECK },
    { "hcuri", HEALTH_CHECK },
    { "iobuffersize", NO_COUNTERPART },
    { "lbset", "write backup for the members of all sets but the first" },
    { "min", NOT_NEEDED "connections are made when they are needed, then kept" },
    { "ping", NOT_NEEDED "a connection that proves dead is replaced" },
    { "receivebuffersize", NO_COUNTERPART },
    { "redirect", "write state=drain: sessions stay, new ones go elsewhere" },
    { "responsefieldsize", NO_COUNTERPART },
    { "retry", "write RProxyOutlier eject= in the pool: how long a failing member is left alone" },
    { "secret", NO_COUNTERPART },
    { "smax", "write RProxyKeepAlive max= in <RProxyMember>: idle connections that are kept" },
    { "status", "write state=down for D and S, state=drain for N, backup for H and R; for I "
                "RProxyOutlier off in the pool" },
    { "upgrade", NOT_NEEDED "RProxyUpgrade says what clients may switch to" },
};

static const char *refuse(apr_pool_t *pool, const char *word)
{
    for (apr_size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        apr_size_t len = strlen(refused[i].name);

        if (!strncasecmp(word, refused[i].name, len) && word[len] == '=')
            return apr_psprintf(pool, "\"%s\" is written as in mod_proxy; %s", word,
                                refused[i].instead);
    }
    return NULL;
}

/* ---- what is taken --------------------------------------------------------------------------- */

/** Arguments of the core's directives, each with a space in front; "": none. */
typedef struct taken {
    const char *timeouts, *keepalive;
    unsigned int seen;
} taken;

enum { CONNECTION_TIMEOUT, TIMEOUT, TTL, DISABLE_REUSE, ENABLE_REUSE, KEEPALIVE };

static const char *const names[] = {
    "connectiontimeout", "timeout", "ttl", "disablereuse", "enablereuse", "keepalive", NULL
};

/** mod_proxy's times are seconds, or have a unit. */
static const char *take_time(apr_pool_t *pool, const char *word, int key, const char *value,
                             taken *into)
{
    apr_interval_time_t time;
    const char *message = rp_argument_time(pool, word, value, 1, &time);

    if (message)
        return message;
    if (key == CONNECTION_TIMEOUT)
        into->timeouts = apr_pstrcat(pool, into->timeouts, " connect=", value, NULL);
    else if (key == TIMEOUT)
        into->timeouts = apr_pstrcat(pool, into->timeouts, " first-byte=", value, " idle=", value,
                                     NULL);
    else
        into->keepalive = apr_pstrcat(pool, into->keepalive, " idle=", value, NULL);
    return NULL;
}

static const char *take_switch(apr_pool_t *pool, const char *word, int key, const char *value,
                               taken *into)
{
    int is_on = !strcasecmp(value, "on");

    if (!is_on && strcasecmp(value, "off") != 0)
        return apr_psprintf(pool, "\"%s\": write on or off", word);
    if (key == KEEPALIVE)
        return is_on ? NULL : apr_psprintf(pool, "\"%s\": TCP keep-alive is always on; remove it",
                                           word);
    if (is_on == (key == DISABLE_REUSE))
        into->keepalive = apr_pstrcat(pool, into->keepalive, " max=0", NULL);
    return NULL;
}

/** *is_theirs: the word is a parameter of mod_proxy, and was taken if there is no message. */
static const char *take(apr_pool_t *pool, const char *word, taken *into, int *is_theirs)
{
    apr_size_t len = strcspn(word, "=");
    const char *message, *value;
    int key = 0;

    while (names[key] && (strlen(names[key]) != len || strncasecmp(names[key], word, len) != 0))
        key++;
    *is_theirs = names[key] && word[len];
    if (!*is_theirs)
        return refuse(pool, word);
    message = rp_argument_key(pool, apr_pstrcat(pool, names[key], word + len, NULL), names,
                              &into->seen, &key, &value);
    if (message)
        return message;
    return key <= TTL ? take_time(pool, word, key, value, into)
                      : take_switch(pool, word, key, value, into);
}

/** Puts a directive in front, as if it stood in the member's section. */
static void put_directive(cmd_parms *cmd, const char *name, const char *arguments,
                          ap_directive_t **first)
{
    ap_directive_t *directive = apr_pcalloc(cmd->pool, sizeof(*directive));

    if (!*arguments)
        return;
    directive->directive = name;
    directive->args = arguments + 1;
    directive->filename = cmd->directive->filename;
    directive->line_num = cmd->directive->line_num;
    directive->parent = cmd->directive;
    directive->next = *first;
    *first = directive;
}

const char *rp_proxy_names_take(cmd_parms *cmd, apr_array_header_t *words, ap_directive_t **first)
{
    taken into = { "", "", 0 };
    int kept = 0;

    for (int i = 0; i < words->nelts; i++) {
        const char *word = APR_ARRAY_IDX(words, i, const char *);
        int is_theirs = 0;
        const char *message = i ? take(cmd->pool, word, &into, &is_theirs) : NULL;

        if (message)
            return message;
        if (!is_theirs)
            APR_ARRAY_IDX(words, kept++, const char *) = word;
    }
    words->nelts = kept;
    put_directive(cmd, "RProxyKeepAlive", into.keepalive, first);
    put_directive(cmd, "RProxyTimeout", into.timeouts, first);
    return NULL;
}
