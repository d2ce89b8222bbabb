/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Settings that may stand everywhere. */
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <apr_strings.h>

#include "rproxy/rp_config_private.h"

/** Index of value in names (ends with NULL), or -1. */
static int choice_of(const char *value, const char *const *names)
{
    for (int i = 0; names[i]; i++) {
        if (!strcasecmp(value, names[i]))
            return i;
    }
    return -1;
}

/* ---- one word -------------------------------------------------------------------------------- */

const char *rp_config_preserve_host(cmd_parms *cmd, void *dir, int on)
{
    ((rp_dir_config *)dir)->preserve_host = on;
    return rp_config_guard(cmd, RP_GUARD_ONCE);
}

const char *rp_config_ignore_client_abort(cmd_parms *cmd, void *dir, int on)
{
    ((rp_dir_config *)dir)->ignore_client_abort = on;
    return rp_config_guard(cmd, RP_GUARD_ONCE | RP_GUARD_NOT_HTACCESS);
}

const char *rp_config_forwarded(cmd_parms *cmd, void *dir, const char *value)
{
    static const char *const names[] = { "off", "x", "rfc7239", "both", NULL };
    int choice = choice_of(value, names);

    if (choice < 0)
        return apr_psprintf(cmd->pool, "RProxyForwarded \"%s\": write x, rfc7239, both or off",
                            value);
    _Static_assert(RP_FORWARDED_OFF == 0 && RP_FORWARDED_X == 1 && RP_FORWARDED_RFC7239 == 2
                   && RP_FORWARDED_BOTH == 3, "names stand in this order");
    ((rp_dir_config *)dir)->forwarded = choice;
    return rp_config_guard(cmd, RP_GUARD_ONCE | RP_GUARD_NOT_HTACCESS);
}

const char *rp_config_upgrade(cmd_parms *cmd, void *dir, const char *value)
{
    static const char *const names[] = { "websocket", "any", "off", NULL };
    int choice = choice_of(value, names);

    if (choice < 0)
        return apr_psprintf(cmd->pool, "RProxyUpgrade \"%s\": write websocket, any or off", value);
    if (choice == RP_UPGRADE_ANY && rp_config_in_htaccess(cmd))
        return "RProxyUpgrade any is not for .htaccess files, a tunnel of any protocol is up to "
               "the server's administrator; write websocket or off";
    _Static_assert(RP_UPGRADE_WEBSOCKET == 0 && RP_UPGRADE_ANY == 1 && RP_UPGRADE_OFF == 2,
                   "names stand in this order");
    ((rp_dir_config *)dir)->upgrade = choice;
    return rp_config_guard(cmd, RP_GUARD_ONCE);
}

/* ---- RProxyTimeout --------------------------------------------------------------------------- */

const char *rp_config_timeout(cmd_parms *cmd, void *dir, const char *arguments)
{
    static const char *const within_total[] = { "connect", "first-byte", "idle", NULL };
    rp_dir_config *config = dir;
    const apr_array_header_t *words = rp_argument_words(cmd->pool, arguments);
    const char *message = rp_config_guard(cmd, RP_GUARD_ONCE);
    apr_interval_time_t total;
    unsigned int seen = 0;

    if (!message && !words->nelts)
        message = "RProxyTimeout needs at least one time, as in RProxyTimeout connect=2s";
    for (int i = 0; i < words->nelts && !message; i++) {
        const char *argument = APR_ARRAY_IDX(words, i, const char *), *value;
        int key;

        message = rp_argument_key(cmd->pool, argument, rp_timeout_names, &seen, &key, &value);
        if (!message)
            message = rp_argument_time(cmd->pool, argument, value, 1,
                                       rp_timeout_at(&config->timeouts, key));
    }
    if (!message && config->timeouts.total != RP_UNSET
        && rp_config_enclosing(cmd->directive, "<RProxyMember"))
        message = "RProxyTimeout: total= is for the whole request, whichever members it is sent "
                  "to; move it out of <RProxyMember>, into <RProxyBalancer>";
    total = config->timeouts.total;
    for (int i = 0; total > 0 && within_total[i] && !message; i++) {
        apr_interval_time_t time = *rp_timeout_at(&config->timeouts, i);

        if (time > total)
            message = apr_psprintf(cmd->pool, "RProxyTimeout: %s=%s could never take effect, "
                                   "total=%s is over before; make one of them fit", within_total[i],
                                   rp_argument_time_text(cmd->pool, time),
                                   rp_argument_time_text(cmd->pool, total));
    }
    return message;
}

/* ---- RProxyRetry ----------------------------------------------------------------------------- */

static const char *parse_retry_on(apr_pool_t *pool, const char *argument, const char *value,
                                  rp_retry *retry)
{
    int statuses = 0;
    char *state, *word;

    retry->on = 0;
    memset(retry->statuses, 0, sizeof(retry->statuses));
    if (!strcmp(value, "off"))
        return NULL;
    for (word = apr_strtok(apr_pstrdup(pool, value), ",", &state); word;
         word = apr_strtok(NULL, ",", &state)) {
        unsigned int bit = !strcmp(word, "error") ? RP_RETRY_ERROR
                           : !strcmp(word, "timeout") ? RP_RETRY_TIMEOUT : 0;
        int status = 0, twice = (retry->on & bit) != 0;

        retry->on |= bit;
        if (!bit && (strlen(word) != 3
                     || rp_argument_number(pool, argument, word, 400, 599, &status)))
            return apr_psprintf(pool, "\"%s\": \"%s\" is none of error, timeout, and the status "
                                "codes 400 to 599 (off alone switches retries off)", argument,
                                word);
        for (int i = 0; i < statuses; i++)
            twice |= status && retry->statuses[i] == status;
        if (twice)
            return apr_psprintf(pool, "\"%s\": %s stands twice; keep one", argument, word);
        if (status && statuses == RP_RETRY_STATUS_MAX)
            return apr_psprintf(pool, "\"%s\": at most %d status codes can stand here; remove some",
                                argument, RP_RETRY_STATUS_MAX);
        if (status)
            retry->statuses[statuses++] = status;
    }
    return retry->on || statuses ? NULL : apr_psprintf(pool, "\"%s\" names nothing; write off",
                                                       argument);
}

static const char *parse_retry_key(apr_pool_t *pool, const char *argument, int key,
                                   const char *value, rp_retry *retry)
{
    switch (key) {
    case RP_RETRY_KEY_TRIES:
        return rp_argument_number(pool, argument, value, 1, 10, &retry->tries);
    case RP_RETRY_KEY_ON:
        return parse_retry_on(pool, argument, value, retry);
    default:
        if (strcmp(value, "all") != 0 && strcmp(value, "idempotent") != 0)
            return apr_psprintf(pool, "\"%s\": write methods=idempotent or methods=all", argument);
        retry->any_method = !strcmp(value, "all");
        return NULL;
    }
}

/** Nonzero if anything makes another attempt. */
static int retries_on_something(const rp_retry *retry)
{
    return retry->on || retry->statuses[0];
}

const char *rp_config_retry(cmd_parms *cmd, void *dir, const char *arguments)
{
    static const char *const names[] = { "tries", "on", "methods", NULL };
    const apr_array_header_t *words = rp_argument_words(cmd->pool, arguments);
    rp_retry_setting *setting = apr_pcalloc(cmd->pool, sizeof(*setting));
    rp_retry *retry = &setting->values;
    const char *message = rp_config_guard(cmd, RP_GUARD_ONCE);

    *retry = rp_retry_default;
    if (!message && !words->nelts)
        message = "RProxyRetry needs at least one key, as in RProxyRetry tries=3 on=error,503";
    for (int i = 0; i < words->nelts && !message; i++) {
        const char *argument = APR_ARRAY_IDX(words, i, const char *), *value;
        int key;

        message = rp_argument_key(cmd->pool, argument, names, &setting->written, &key, &value);
        if (!message)
            message = parse_retry_key(cmd->pool, argument, key, value, retry);
    }
    if (message)
        return message;
    if (!retries_on_something(retry) && setting->written != 1u << RP_RETRY_KEY_ON)
        return "RProxyRetry: with on=off no other key could take effect; remove them";
    if (retry->tries == 1 && setting->written != 1u << RP_RETRY_KEY_TRIES)
        return "RProxyRetry: tries=1 never repeats, so no other key could take effect; remove "
               "them, or raise tries=";
    ((rp_dir_config *)dir)->retry = retry;
    return NULL;
}

/* ---- RProxyKeepAlive ------------------------------------------------------------------------- */

const char *rp_config_keepalive(cmd_parms *cmd, void *dir, const char *arguments)
{
    static const char *const names[] = { "max", "idle", "requests", "age", NULL };
    const apr_array_header_t *words = rp_argument_words(cmd->pool, arguments);
    rp_keepalive_setting *setting = apr_pcalloc(cmd->pool, sizeof(*setting));
    rp_keepalive *keepalive = &setting->values;
    const char *message = rp_config_guard(cmd, RP_GUARD_ONCE | RP_GUARD_NOT_HTACCESS);

    *keepalive = rp_keepalive_default;
    if (!message && !words->nelts)
        message = "RProxyKeepAlive needs at least one key, as in RProxyKeepAlive max=128 idle=30s";
    for (int i = 0; i < words->nelts && !message; i++) {
        const char *argument = APR_ARRAY_IDX(words, i, const char *), *value;
        int key;

        message = rp_argument_key(cmd->pool, argument, names, &setting->written, &key, &value);
        if (message)
            break;
        if (key == RP_KEEPALIVE_KEY_MAX)
            message = rp_argument_number(cmd->pool, argument, value, 0, 65536, &keepalive->max);
        else if (key == RP_KEEPALIVE_KEY_REQUESTS)
            message = rp_argument_number(cmd->pool, argument, value, 0, INT_MAX,
                                       &keepalive->requests);
        else
            message = rp_argument_time(cmd->pool, argument, value, 1,
                                       key == RP_KEEPALIVE_KEY_IDLE ? &keepalive->idle
                                                                  : &keepalive->age);
    }
    if (!message && !keepalive->max && setting->written != 1u << RP_KEEPALIVE_KEY_MAX)
        message = "RProxyKeepAlive: max=0 keeps no connection, so no other key could take effect; "
                  "remove them";
    if (!message)
        ((rp_dir_config *)dir)->keepalive = keepalive;
    return message;
}

/* ---- RProxyTLS ------------------------------------------------------------------------------- */

/** The RProxyTLS among the children of parent (NULL: the file's top level), or NULL. */
static const ap_directive_t *tls_in(const ap_directive_t *parent, const char *name)
{
    const ap_directive_t *found = parent ? parent->first_child : ap_conftree;

    while (found && strcasecmp(found->directive, name) != 0)
        found = found->next;
    return found;
}

/**
 * Keys not written come from the RProxyTLS of the section around, and so on outwards. An SSL_CTX is
 * made at startup for each line, so unlike the other settings this one can't be merged by requests:
 * where several sections meet, the last one's line counts as a whole.
 */
static rp_tls *parse_tls(cmd_parms *cmd, const ap_directive_t *directive, const char **message)
{
    const ap_directive_t *parent = directive->parent, *outer = NULL;
    const apr_array_header_t *words = rp_argument_words(cmd->pool, directive->args);
    rp_tls *base = NULL, *tls = NULL;

    while (parent && !outer) {
        parent = parent->parent;
        outer = tls_in(parent, directive->directive);
    }
    if (outer && !(base = parse_tls(cmd, outer, message)))
        return NULL;
    if (!words->nelts)
        *message = "RProxyTLS needs at least one key, as in RProxyTLS ca=FILE";
    else
        *message = rp_tls_parse(cmd->pool, words, base, &tls);
    if (*message)
        return NULL;
    tls->file = apr_pstrdup(cmd->pool, directive->filename);
    tls->line = directive->line_num;
    return tls;
}

const char *rp_config_tls(cmd_parms *cmd, void *dir, const char *arguments)
{
    const char *message = rp_config_guard(cmd, RP_GUARD_ONCE | RP_GUARD_NOT_HTACCESS);
    rp_tls *tls;

    (void)arguments;
    if (message || !(tls = parse_tls(cmd, cmd->directive, &message)))
        return message;
    APR_ARRAY_PUSH(rp_config_written_get()->tls, rp_tls *) = tls;
    ((rp_dir_config *)dir)->tls = tls;
    return NULL;
}

/* ---- RProxyErrorOverride --------------------------------------------------------------------- */

static const char *add_status(apr_pool_t *pool, const char *word, rp_error_override *override)
{
    int status;

    if (strlen(word) != 3 || rp_argument_number(pool, word, word, 400, 599, &status))
        return apr_psprintf(pool, "RProxyErrorOverride \"%s\": write on, off, or status codes from "
                            "400 to 599", word);
    if (!override->statuses)
        override->statuses = apr_array_make(pool, 4, sizeof(int));
    for (int i = 0; i < override->statuses->nelts; i++) {
        if (APR_ARRAY_IDX(override->statuses, i, int) == status)
            return apr_psprintf(pool, "RProxyErrorOverride: %d stands twice; keep one", status);
    }
    APR_ARRAY_PUSH(override->statuses, int) = status;
    return NULL;
}

const char *rp_config_error_override(cmd_parms *cmd, void *dir, const char *arguments)
{
    const apr_array_header_t *words = rp_argument_words(cmd->pool, arguments);
    rp_error_override *override = apr_pcalloc(cmd->pool, sizeof(*override));
    const char *message = rp_config_guard(cmd, RP_GUARD_ONCE);

    if (!message && !words->nelts)
        message = "RProxyErrorOverride needs on, off, or status codes";
    for (int i = 0; i < words->nelts && !message; i++) {
        const char *word = APR_ARRAY_IDX(words, i, const char *);
        int on = !strcasecmp(word, "on");

        if (!on && strcasecmp(word, "off") != 0)
            message = add_status(cmd->pool, word, override);
        else if (words->nelts > 1)
            message = apr_psprintf(cmd->pool, "RProxyErrorOverride: \"%s\" stands alone; write it, "
                                   "or status codes", word);
        else
            override->all = on;
    }
    if (!message)
        ((rp_dir_config *)dir)->error_override = override;
    return message;
}
