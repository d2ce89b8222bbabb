/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyHealthCheck, and what checks need once the configuration is complete. */
#include <string.h>
#include <strings.h>
#include <apr_file_info.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include <openssl/err.h>
#include "httpd.h"
#include "http_config.h"
#include "ap_provider.h"

#include "balancer/rp_balancer_config.h"
#include "balancer/rp_health.h"
#include "rproxy/rp_argument.h"

#define COUNT_MAX 100                   /* of rise= and fall= */

/* ---- RProxyHealthCheck ----------------------------------------------------------------------- */

enum { KEY_INTERVAL, KEY_TIMEOUT, KEY_RISE, KEY_FALL, KEY_FAST, KEY_DOWN, KEY_FIRST, KEY_PANIC,
       KEY_PORT, KEY_HOST, KEY_NAME, KEY_VERIFY, KEY_CA };

static const char *const key_names[] = {
    "interval", "timeout", "rise", "fall", "fast", "down-interval", "first", "panic", "port",
    "host", "name", "verify", "ca", NULL
};

static int is_ours(const char *word)
{
    const char *equals = strchr(word, '=');

    for (int i = 0; equals && key_names[i]; i++) {
        if (strlen(key_names[i]) == (apr_size_t)(equals - word)
            && !strncmp(key_names[i], word, (apr_size_t)(equals - word)))
            return 1;
    }
    return 0;
}

static const char *parse_choice(apr_pool_t *pool, const char *word, const char *value,
                                const char *yes, const char *no, int *choice)
{
    *choice = !strcasecmp(value, yes);
    if (*choice || !strcasecmp(value, no))
        return NULL;
    return apr_psprintf(pool, "\"%s\": write %.*s=%s or %.*s=%s", word,
                        (int)(value - word - 1), word, yes, (int)(value - word - 1), word, no);
}

static const char *parse_host(apr_pool_t *pool, const char *word, const char *value,
                              const char **host)
{
    for (const char *at = value; *at; at++) {
        if (!apr_isalnum(*at) && !strchr("-._:[]", *at))
            return apr_psprintf(pool, "\"%s\" has a byte that no host has", word);
    }
    *host = value;
    return NULL;
}

static const char *parse_key(apr_pool_t *pool, const char *word, int key, const char *value,
                             rp_health_check *check)
{
    switch (key) {
    case KEY_INTERVAL:
        return rp_argument_time(pool, word, value, 0, &check->interval);
    case KEY_TIMEOUT:
        return rp_argument_time(pool, word, value, 0, &check->probe.timeout);
    case KEY_RISE:
        return rp_argument_number(pool, word, value, 1, COUNT_MAX, &check->rise);
    case KEY_FALL:
        return rp_argument_number(pool, word, value, 1, COUNT_MAX, &check->fall);
    case KEY_FAST:
        return rp_argument_time(pool, word, value, 0, &check->fast);
    case KEY_DOWN:
        return rp_argument_time(pool, word, value, 0, &check->down_interval);
    case KEY_FIRST:
        return parse_choice(pool, word, value, "wait", "assume-up", &check->waits);
    case KEY_PANIC:
        return rp_argument_number(pool, word, value, 0, 100, &check->panic_percent);
    case KEY_PORT:
        return rp_argument_number(pool, word, value, 1, 65535, &check->probe.port);
    case KEY_HOST:
        return parse_host(pool, word, value, &check->probe.host);
    case KEY_NAME:
        return parse_host(pool, word, value, &check->probe.name);
    case KEY_VERIFY:
        return parse_choice(pool, word, value, "on", "off", &check->probe.verify);
    default:
        check->ca = ap_server_root_relative(pool, value);
        return check->ca ? NULL : apr_psprintf(pool, "\"%s\" is not a usable path", word);
    }
}

/** What was written must be able to take effect. */
static const char *check_together(apr_pool_t *pool, rp_health_check *check, unsigned int seen)
{
    if (check->probe.probe->gives_advice) {
        if (!check->probe.port)
            return "an agent has a port of its own; write it, as in port=9707";
        if (seen & (1u << KEY_RISE | 1u << KEY_FALL | 1u << KEY_FAST | 1u << KEY_DOWN
                    | 1u << KEY_FIRST | 1u << KEY_PANIC))
            return "rise=, fall=, fast=, down-interval=, first= and panic= are not for what an "
                   "agent says, which holds at once; remove them";
    }
    if (check->probe.probe->tls == RPROXY_PROBE_PLAIN
        && seen & (1u << KEY_NAME | 1u << KEY_VERIFY | 1u << KEY_CA))
        return apr_psprintf(pool, "%s has no TLS, so name=, verify= and ca= have no effect; "
                            "remove them", check->kind);
    check->has_tls = (seen & (1u << KEY_VERIFY | 1u << KEY_CA)) != 0;
    if (check->ca && !check->probe.verify)
        return "ca= has no effect together with verify=off; remove one of them";
    if (!(seen & 1u << KEY_FAST))
        check->fast = check->interval < APR_USEC_PER_SEC ? check->interval : APR_USEC_PER_SEC;
    if (!(seen & 1u << KEY_DOWN))
        check->down_interval = check->fast;
    if (check->fast > check->interval)
        return "fast= is longer than interval=; make it shorter, or interval= longer";
    return NULL;
}

static const char *parse_words(apr_pool_t *pool, const apr_array_header_t *words,
                               rp_health_check *check)
{
    apr_array_header_t *others = apr_array_make(pool, 4, sizeof(const char *));
    const char *message = NULL;
    unsigned int seen = 0;

    for (int i = 1; i < words->nelts && !message; i++) {
        const char *word = APR_ARRAY_IDX(words, i, const char *), *value;
        int key;

        if (!is_ours(word)) {
            APR_ARRAY_PUSH(others, const char *) = word;
            continue;
        }
        message = rp_argument_key(pool, word, key_names, &seen, &key, &value);
        if (!message)
            message = parse_key(pool, word, key, value, check);
    }
    if (message || (message = check_together(pool, check, seen)))
        return message;
    if (check->probe.probe->configure)
        message = check->probe.probe->configure(pool, others, &check->probe.config);
    else if (others->nelts)
        message = apr_psprintf(pool, "\"%s\" is not for this kind of check; remove it",
                               APR_ARRAY_IDX(others, 0, const char *));
    return message;
}

static rp_health_check *make_check(apr_pool_t *pool, const apr_array_header_t *words,
                                   const char *kind)
{
    rp_health_check *check = apr_pcalloc(pool, sizeof(*check));

    check->kind = kind;
    check->text = apr_array_pstrcat(pool, words, '\n');
    check->interval = 5 * APR_USEC_PER_SEC;
    check->rise = 2;
    check->fall = 3;
    check->probe.timeout = 2 * APR_USEC_PER_SEC;
    check->probe.verify = 1;
    check->probe.probe = ap_lookup_provider(RPROXY_PROBE_GROUP, kind, RPROXY_PROBE_VERSION);
    return check;
}

const char *rp_health_directive(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer = rp_balancer_section_of(cmd);
    const apr_array_header_t *words = rp_argument_words(cmd->pool, arguments);
    rp_health_check *check, **place;
    const char *message;
    char *kind;

    (void)dir;
    if (!balancer)
        return rp_balancer_misplaced(cmd);
    if (!words->nelts)
        return "RProxyHealthCheck needs a kind, as in RProxyHealthCheck http uri=/health";
    kind = apr_pstrdup(cmd->pool, APR_ARRAY_IDX(words, 0, const char *));
    ap_str_tolower(kind);
    check = make_check(cmd->pool, words, kind);
    if (!check->probe.probe)
        return apr_psprintf(cmd->pool, "RProxyHealthCheck \"%s\" is unknown; there are %s", kind,
                            rp_balancer_provider_names(cmd->pool, RPROXY_PROBE_GROUP,
                                                       RPROXY_PROBE_VERSION));
    if ((message = parse_words(cmd->pool, words, check)))
        return apr_psprintf(cmd->pool, "RProxyHealthCheck %s: %s", kind, message);
    place = check->probe.probe->gives_advice ? &balancer->agent : &balancer->check;
    if (*place)
        return apr_psprintf(cmd->pool, "the pool \"%s\" has RProxyHealthCheck %s and %s; keep one "
                            "of them, an agent may stand beside it", balancer->name,
                            (*place)->kind, kind);
    *place = check;
    return NULL;
}

/* ---- TLS ------------------------------------------------------------------------------------- */

static apr_status_t free_tls(void *tls)
{
    SSL_CTX_free(tls);
    return APR_SUCCESS;
}

static const char *load_ca(apr_pool_t *pool, SSL_CTX *tls, const char *ca)
{
    apr_finfo_t info;
    int is_dir = ca && apr_stat(&info, ca, APR_FINFO_TYPE, pool) == APR_SUCCESS
        && info.filetype == APR_DIR;

    ERR_clear_error();
    if (!ca)
        return SSL_CTX_set_default_verify_paths(tls) == 1 ? NULL
            : "the system's CA certificates cannot be loaded; install them, or name a file with "
              "ca=";
    return SSL_CTX_load_verify_locations(tls, is_dir ? NULL : ca, is_dir ? ca : NULL) == 1 ? NULL
        : apr_psprintf(pool, "no CA certificate can be read from %s; check its path, permissions "
                       "and that it is PEM", ca);
}

static const char *make_tls(apr_pool_t *pool, const rp_health_check *check, SSL_CTX **made)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());

    if (!tls)
        return "OpenSSL cannot start; check its installation";
    apr_pool_cleanup_register(pool, tls, free_tls, apr_pool_cleanup_null);
    SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_verify(tls, check->probe.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    *made = tls;
    return check->probe.verify ? load_ca(pool, tls, check->ca) : NULL;
}

const char *rp_health_complete(apr_pool_t *pool, rp_balancer *balancer)
{
    rp_health_check *check = balancer->check;
    const char *key, *message;
    void *found = NULL;
    SSL_CTX *tls;

    if (!check || !check->has_tls)
        return NULL;
    /* Checks with the same CAs share what was loaded: it is much. */
    key = apr_psprintf(pool, "rproxy-health-tls %d %s", check->probe.verify,
                       check->ca ? check->ca : "");
    apr_pool_userdata_get(&found, key, pool);
    if (!(tls = found)) {
        if ((message = make_tls(pool, check, &tls)))
            return message;
        apr_pool_userdata_set(tls, key, NULL, pool);
    }
    check->probe.tls = tls;
    return NULL;
}
