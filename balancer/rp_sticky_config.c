/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxySticky as it is written. */
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <apr_file_io.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_log.h"

#include "balancer/rp_balancer_config.h"
#include "balancer/rp_learned.h"
#include "balancer/rp_sticky.h"
#include "rproxy/rp_argument.h"

APLOG_USE_MODULE(rproxy_balancer);

#define KEY_FILE_MAX 65536
#define KEY_MIN 16                      /* characters of a key */

enum {
    KEY_COOKIE, KEY_ROUTE, KEY_LEARN, KEY_HEADER, KEY_DOWN, KEY_TTL, KEY_SAMESITE, KEY_DOMAIN,
    KEY_PATH, KEY_SECURE, KEY_HTTPONLY, KEY_FILE
};

#define BIT(key) (1u << (key))
#define KINDS (BIT(KEY_COOKIE) | BIT(KEY_ROUTE) | BIT(KEY_LEARN) | BIT(KEY_HEADER))
#define OF_COOKIE (BIT(KEY_TTL) | BIT(KEY_SAMESITE) | BIT(KEY_DOMAIN) | BIT(KEY_PATH)       \
                   | BIT(KEY_SECURE) | BIT(KEY_HTTPONLY) | BIT(KEY_FILE))

/** What is put together when the line is complete. */
typedef struct parsing {
    apr_pool_t *pool;
    rp_sticky *sticky;
    const char *samesite, *domain, *path;
    int http_only;
    unsigned int seen;
    int is_ip;
} parsing;

/* ---- the file of keys ------------------------------------------------------------------------ */

static const char *read_file(apr_pool_t *pool, const char *name, char **text)
{
    apr_size_t len = KEY_FILE_MAX;
    apr_file_t *file;
    apr_status_t rv = apr_file_open(&file, name, APR_FOPEN_READ, APR_FPROT_OS_DEFAULT, pool);
    char error[200];

    if (rv != APR_SUCCESS)
        return apr_psprintf(pool, "key=%s can't be read: %s; correct the path or its permissions",
                            name, apr_strerror(rv, error, sizeof(error)));
    *text = apr_pcalloc(pool, KEY_FILE_MAX + 1);
    rv = apr_file_read_full(file, *text, KEY_FILE_MAX, &len);
    apr_file_close(file);
    if (rv != APR_SUCCESS && rv != APR_EOF)
        return apr_psprintf(pool, "key=%s can't be read: %s", name,
                            apr_strerror(rv, error, sizeof(error)));
    return len < KEY_FILE_MAX ? NULL : apr_psprintf(pool, "key=%s is too large for some lines of "
                                                    "text; name the file with the keys", name);
}

static const char *read_keys(parsing *parse, const char *value)
{
    apr_array_header_t *keys = apr_array_make(parse->pool, 4, sizeof(rp_span));
    const char *name = ap_server_root_relative(parse->pool, value);
    char *text = NULL, *line, *state;
    const char *message;

    if (!name)
        return apr_psprintf(parse->pool, "key=%s is no path", value);
    if ((message = read_file(parse->pool, name, &text)))
        return message;
    for (line = apr_strtok(text, "\r\n", &state); line; line = apr_strtok(NULL, "\r\n", &state)) {
        apr_collapse_spaces(line, line);
        if (!*line || *line == '#')
            continue;
        if (strlen(line) < KEY_MIN)
            return apr_psprintf(parse->pool, "a key in %s is too short, it needs at least %d "
                                "characters; make one with openssl rand -base64 32", name,
                                KEY_MIN);
        if (keys->nelts == RP_SEAL_KEYS_MAX)
            return apr_psprintf(parse->pool, "%s has more than %d keys; remove those whose time "
                                "is over", name, RP_SEAL_KEYS_MAX);
        APR_ARRAY_PUSH(keys, rp_span) = (rp_span){ line, strlen(line) };
    }
    parse->sticky->keys = keys;
    return keys->nelts ? NULL : apr_psprintf(parse->pool, "%s has no key; make one with openssl "
                                             "rand -base64 32", name);
}

/* ---- values ---------------------------------------------------------------------------------- */

/** Nonzero if all of text can stand in a Cookie field as a name, or in a URL as one. */
static int is_name(const char *text)
{
    apr_size_t len = 0;

    while (apr_isalnum(text[len]) || (text[len] && strchr("!#$%&'*+-.^_`~", text[len])))
        len++;
    return len > 0 && len <= 256 && !text[len];
}

static const char *parse_name(parsing *parse, const char *argument, rp_sticky_kind kind,
                              const char *value)
{
    parse->sticky->kind = kind;
    parse->sticky->name = value;
    return is_name(value) ? NULL : apr_psprintf(parse->pool, "\"%s\": a name has letters, digits "
                                                "and some of !#$%%&'*+-.^_`~", argument);
}

static const char *parse_route(parsing *parse, const char *argument, const char *value)
{
    const char *bar = strchr(value, '|');
    const char *cookie = bar ? apr_pstrmemdup(parse->pool, value, (apr_size_t)(bar - value))
                             : value;

    parse->sticky->param = bar ? bar + 1 : value;
    if (bar && !is_name(bar + 1))
        return apr_psprintf(parse->pool, "\"%s\": behind | stands the name of a parameter, as in "
                            "route=JSESSIONID|jsessionid", argument);
    return parse_name(parse, argument, RP_STICKY_ROUTE, cookie);
}

static const char *parse_choice(parsing *parse, const char *argument, const char *value,
                                const char *const *names, int *choice)
{
    const char *list = "";

    for (int i = 0; names[i]; i++) {
        if (!strcasecmp(value, names[i])) {
            *choice = i;
            return NULL;
        }
        list = apr_pstrcat(parse->pool, list, !i ? "" : names[i + 1] ? ", " : " or ", names[i],
                           NULL);
    }
    return apr_psprintf(parse->pool, "\"%s\": write %s", argument, list);
}

static const char *parse_samesite(parsing *parse, const char *argument, const char *value)
{
    static const char *const names[] = { "lax", "strict", "none", "off", NULL };
    static const char *const attributes[] = { "Lax", "Strict", "None", NULL };
    int choice = 0;
    const char *message = parse_choice(parse, argument, value, names, &choice);

    parse->samesite = attributes[choice];
    return message;
}

static const char *parse_switch(parsing *parse, const char *argument, const char *value, int *on)
{
    static const char *const names[] = { "off", "on", NULL };

    return parse_choice(parse, argument, value, names, on);
}

static const char *parse_attribute(parsing *parse, const char *argument, const char *value,
                                   const char *allowed, const char **attribute)
{
    *attribute = value;
    for (; *value; value++) {
        if (!apr_isalnum(*value) && !strchr(allowed, *value))
            return apr_psprintf(parse->pool, "\"%s\": '%c' can't stand there", argument, *value);
    }
    return NULL;
}

static const char *parse_ttl(parsing *parse, const char *argument, const char *value)
{
    apr_interval_time_t time = 0;
    const char *message = rp_argument_time(parse->pool, argument, value, 0, &time);

    parse->sticky->ttl = (apr_uint32_t)apr_time_sec(time);
    if (!message && time < 2 * APR_USEC_PER_SEC)
        message = apr_psprintf(parse->pool, "\"%s\": at least 2s", argument);
    return message;
}

static const char *parse_key(parsing *parse, const char *argument, int key, const char *value)
{
    static const char *const downs[] = { "repin", "temporary", "fail", NULL };
    static const char *const secures[] = { "auto", "on", "off", NULL };
    int choice = 0;
    const char *message;

    _Static_assert(RP_DOWN_REPIN == 0 && RP_DOWN_TEMPORARY == 1 && RP_DOWN_FAIL == 2
                   && RP_SECURE_AUTO == 0 && RP_SECURE_ON == 1 && RP_SECURE_OFF == 2,
                   "names stand in this order");
    switch (key) {
    case KEY_COOKIE:
        return parse_name(parse, argument, RP_STICKY_COOKIE, value);
    case KEY_ROUTE:
        return parse_route(parse, argument, value);
    case KEY_LEARN:
        return parse_name(parse, argument, RP_STICKY_LEARN, value);
    case KEY_HEADER:
        return parse_name(parse, argument, RP_STICKY_HEADER, value);
    case KEY_DOWN:
        message = parse_choice(parse, argument, value, downs, &choice);
        parse->sticky->down = (rp_sticky_down)choice;
        return message;
    case KEY_TTL:
        return parse_ttl(parse, argument, value);
    case KEY_SAMESITE:
        return parse_samesite(parse, argument, value);
    case KEY_DOMAIN:
        return parse_attribute(parse, argument, value, ".-", &parse->domain);
    case KEY_PATH:
        if (*value != '/')
            return apr_psprintf(parse->pool, "\"%s\": a path begins with /", argument);
        return parse_attribute(parse, argument, value, "/!#$%&'()*+,-.:=@_~", &parse->path);
    case KEY_SECURE:
        message = parse_choice(parse, argument, value, secures, &choice);
        parse->sticky->secure = (rp_sticky_secure)choice;
        return message;
    case KEY_HTTPONLY:
        return parse_switch(parse, argument, value, &parse->http_only);
    default:
        return read_keys(parse, value);
    }
}

/* ---- the line -------------------------------------------------------------------------------- */

/** What browsers would refuse. */
static const char *check_cookie(const parsing *parse)
{
    const rp_sticky *sticky = parse->sticky;
    int is_host = !strncasecmp(sticky->name, "__Host-", 7);

    if (sticky->secure != RP_SECURE_ON
        && (is_host || !strncasecmp(sticky->name, "__Secure-", 9)))
        return apr_psprintf(parse->pool, "browsers take %s with Secure only; add secure",
                            sticky->name);
    if (is_host && (parse->domain || (parse->path && strcmp(parse->path, "/") != 0)))
        return apr_psprintf(parse->pool, "browsers take %s for one host and all of its paths only; "
                            "remove domain= and path=", sticky->name);
    if (parse->samesite && !strcmp(parse->samesite, "None") && sticky->secure != RP_SECURE_ON)
        return "browsers take samesite=none with Secure only; add secure";
    return NULL;
}

static const char *check(const parsing *parse)
{
    unsigned int kinds = parse->seen & KINDS;

    if ((kinds != 0) + (parse->is_ip != 0) != 1 || (kinds & (kinds - 1)))
        return "write one of cookie=NAME, route=COOKIE, learn=COOKIE, header=NAME and ip";
    if ((parse->seen & OF_COOKIE) && parse->sticky->kind != RP_STICKY_COOKIE)
        return "ttl=, samesite=, domain=, path=, secure, httponly and key= are for cookie=; remove "
               "them";
    if ((parse->seen & BIT(KEY_DOWN)) && parse->sticky->kind >= RP_STICKY_HEADER)
        return "down= has no use with header= and ip, where another member takes over in any case; "
               "remove it";
    return parse->sticky->kind == RP_STICKY_COOKIE ? check_cookie(parse) : NULL;
}

static const char *parse_words(parsing *parse, const apr_array_header_t *words)
{
    static const char *const names[] = { "cookie", "route", "learn", "header", "down", "ttl",
                                         "samesite", "domain", "path", "secure", "httponly", "key",
                                         NULL };
    const char *message = NULL;

    for (int i = 0; i < words->nelts && !message; i++) {
        const char *argument = APR_ARRAY_IDX(words, i, const char *), *value;
        int key;

        if (!strcasecmp(argument, "ip")) {
            parse->is_ip = 1;
            parse->sticky->kind = RP_STICKY_IP;
            continue;
        }
        if (!strcasecmp(argument, "secure") || !strcasecmp(argument, "httponly"))
            argument = apr_pstrcat(parse->pool, argument, "=on", NULL);
        message = rp_argument_key(parse->pool, argument, names, &parse->seen, &key, &value);
        if (!message)
            message = parse_key(parse, argument, key, value);
    }
    return message ? message : check(parse);
}

const char *rp_balancer_sticky(cmd_parms *cmd, void *dir, const char *arguments)
{
    rp_balancer *balancer;
    apr_array_header_t *words;
    parsing parse = { .pool = cmd->pool, .samesite = "Lax", .http_only = 1 };
    const char *message = rp_balancer_once(cmd, arguments, RP_ONCE_STICKY, &balancer, &words);

    (void)dir;
    if (message)
        return message;
    balancer->sticky = parse.sticky = apr_pcalloc(cmd->pool, sizeof(*parse.sticky));
    if ((message = parse_words(&parse, words)))
        return apr_psprintf(cmd->pool, "RProxySticky: %s", message);
    parse.sticky->attributes = apr_pstrcat(
        cmd->pool, "; Path=", parse.path ? parse.path : "/",
        parse.domain ? "; Domain=" : "", parse.domain ? parse.domain : "",
        parse.sticky->ttl ? apr_psprintf(cmd->pool, "; Max-Age=%u", parse.sticky->ttl) : "",
        parse.http_only ? "; HttpOnly" : "",
        parse.samesite ? "; SameSite=" : "", parse.samesite ? parse.samesite : "", NULL);
    return NULL;
}

/* ---- when all is read ------------------------------------------------------------------------ */

static int has_routes(const rp_balancer *balancer)
{
    for (int i = 0; i < balancer->count; i++) {
        if (balancer->more[i].route)
            return 1;
    }
    return 0;
}

const char *rp_sticky_complete(apr_pool_t *pool, const rp_balancer *balancer)
{
    if (balancer->sticky && balancer->sticky->kind == RP_STICKY_ROUTE && !has_routes(balancer)
        && !balancer->discovered->nelts)
        return "RProxySticky route= finds nothing, for no member has route=; add it to the members";
    for (int i = 0; i < balancer->count; i++) {
        for (int j = 0; balancer->more[i].route && j < i; j++) {
            if (balancer->more[j].route
                && !strcmp(balancer->more[i].route, balancer->more[j].route))
                return apr_psprintf(pool, "members %s and %s have the same route=%s; give each "
                                    "its own", balancer->members[j].name,
                                    balancer->members[i].name, balancer->more[i].route);
        }
    }
    return NULL;
}

/** NULL, or why the pool can't have its sessions. */
static const char *start_pool(apr_pool_t *pconf, apr_pool_t *ptemp, const server_rec *server,
                              const rp_balancer *balancer)
{
    rp_sticky *sticky = balancer->sticky;
    apr_status_t rv;

    if (sticky->kind == RP_STICKY_LEARN
        && (rv = rp_learned_open(server->process->pool)) != APR_SUCCESS)
        return apr_psprintf(ptemp, "no shared memory for sessions that are learnt: %pm; raise the "
                            "limits of shared memory", &rv);
    if (sticky->kind != RP_STICKY_COOKIE)
        return NULL;
    if (!sticky->keys && !(sticky->keys = rp_sticky_own_key(pconf, server)))
        return "OpenSSL has no random numbers for a key; add key=FILE";
    sticky->seal = rp_seal_make(pconf, balancer->name, sticky->keys);
    return NULL;
}

int rp_sticky_start(apr_pool_t *pconf, apr_pool_t *ptemp, const server_rec *server,
                    const apr_array_header_t *all)
{
    for (int i = 0; i < all->nelts; i++) {
        const rp_balancer *balancer = APR_ARRAY_IDX(all, i, rp_balancer *);
        const char *message =
            balancer->sticky ? start_pool(pconf, ptemp, server, balancer) : NULL;

        if (message) {
            ap_log_error(APLOG_MARK, APLOG_CRIT, 0, server, "RP0411: RProxySticky in "
                         "<RProxyBalancer %s>: %s", balancer->name, message);
            return 0;
        }
    }
    return 1;
}
