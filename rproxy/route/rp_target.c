/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The one parser of target addresses. */
#include <string.h>
#include <strings.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <apr_strings.h>
#include <apr_lib.h>

#include "rproxy/route/rp_route_private.h"

/** A scheme's name in targets, and what it means. */
typedef struct scheme_info {
    const char *name;
    rp_scheme scheme;
    int port;                           /* default */
} scheme_info;

static const scheme_info schemes[] = {
    { "http", RP_SCHEME_HTTP, 80 },
    { "https", RP_SCHEME_HTTPS, 443 },
    { "balancer", RP_SCHEME_BALANCER, 0 },
};

/** The part of text behind "unix:/path|", or text itself. */
static const char *after_socket(const char *text)
{
    const char *bar;

    if (strncasecmp(text, "unix:", 5) != 0)
        return text;
    bar = strchr(text, '|');
    return bar ? bar + 1 : text + strlen(text);
}

const char *rp_target_path_start(const char *text)
{
    const char *url = after_socket(text);
    const char *authority = strstr(url, "://");

    url = authority ? authority + 3 : url;
    return url + strcspn(url, "/?#");
}

static const char *check_bytes(apr_pool_t *pool, const char *text)
{
    if (strlen(text) > RP_HTTP_HEAD_MAX)
        return apr_psprintf(pool,
                            "target of %" APR_SIZE_T_FMT " bytes: the limit is %d; shorten it",
                            strlen(text), RP_HTTP_HEAD_MAX);
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f)
            return apr_psprintf(pool, "target %.*s: byte 0x%02x follows, blanks, control bytes and "
                                "bytes outside ASCII aren't allowed; write them percent-encoded in "
                                "the path and as xn--... in the host", (int)(p - text), text,
                                (unsigned char)*p);
    }
    return NULL;
}

static const char *parse_socket(apr_pool_t *pool, rp_target *target, const char *url)
{
    const char *path = target->text + 5;
    apr_size_t len;

    if (url == target->text + strlen(target->text))
        return apr_psprintf(pool, "target %s: say what is spoken on the socket, as in "
                            "unix:/run/app.sock|http://localhost/", target->text);
    len = (apr_size_t)(url - 1 - path);
    if (*path != '/' || path[len - 1] == '/')
        return apr_psprintf(pool,
                            "target %s: write the absolute path of a socket between \"unix:\" "
                            "and '|'",
                            target->text);
    if (len >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return apr_psprintf(pool, "target %s: the system allows %" APR_SIZE_T_FMT " bytes for the "
                            "path of a socket; use a shorter one or a symbolic link", target->text,
                            sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
    target->socket = apr_pstrmemdup(pool, path, len);
    return NULL;
}

static const char *parse_scheme(apr_pool_t *pool, rp_target *target, const char **url)
{
    const char *text = target->text;
    const char *end = strstr(*url, "://");

    for (size_t i = 0; end && i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        if (strlen(schemes[i].name) != (size_t)(end - *url)
            || strncasecmp(*url, schemes[i].name, (size_t)(end - *url)) != 0)
            continue;
        if (schemes[i].scheme == RP_SCHEME_BALANCER && target->socket)
            return apr_psprintf(pool, "target %s: a balancer isn't behind a socket; put the socket "
                                "into RProxyMember", text);
        target->scheme = schemes[i].scheme;
        target->port = schemes[i].port;
        *url = end + 3;
        return NULL;
    }
    if (strncasecmp(*url, "ws://", 5) == 0 || strncasecmp(*url, "wss://", 6) == 0)
        return apr_psprintf(pool, "target %s: write http:// or https:// instead, WebSockets pass "
                            "through them (RProxyUpgrade)", text);
    return apr_psprintf(pool, "target %s: unknown scheme; begin it with http://, https://, "
                        "balancer:// or unix:/SOCKET|http://", text);
}

/** Port of an authority; rest begins behind the host: "" or ":PORT". */
static const char *parse_port(apr_pool_t *pool, rp_target *target, const char *rest)
{
    int port = 0;

    if (!*rest)
        return NULL;
    if (target->scheme == RP_SCHEME_BALANCER)
        return apr_psprintf(pool, "target %s: a balancer has no port; remove \"%s\"", target->text,
                            rest);
    for (const char *p = rest + 1; apr_isdigit(*p) && port <= 65535; p++)
        port = port * 10 + (*p - '0');
    if (*rest != ':' || rest[1 + strspn(rest + 1, "0123456789")] || port < 1 || port > 65535)
        return apr_psprintf(pool, "target %s: \"%s\" is no port; write :1 to :65535 or nothing",
                            target->text, rest);
    target->port = port;
    return NULL;
}

static const char *parse_authority(apr_pool_t *pool, rp_target *target, char *authority)
{
    const char *text = target->text;
    apr_size_t len;
    char *host = authority;

    if (strchr(authority, '@'))
        return apr_psprintf(pool,
                            "target %s: user and password aren't supported; remove what stands "
                            "before '@' and set Authorization with RequestHeader",
                            text);
    if (*authority == '[') {
        struct in6_addr address;
        char normal[INET6_ADDRSTRLEN];

        len = strcspn(authority, "]");
        host = apr_pstrmemdup(pool, authority + 1, len - 1);
        if (authority[len] != ']' || target->scheme == RP_SCHEME_BALANCER
            || inet_pton(AF_INET6, host, &address) != 1)
            return apr_psprintf(pool,
                                "target %s: no IPv6 address between '[' and ']'; write one as "
                                "in http://[2001:db8::1]:8080/",
                                text);
        target->host = apr_pstrdup(pool, inet_ntop(AF_INET6, &address, normal, sizeof(normal)));
        return parse_port(pool, target, authority + len + 1);
    }
    len = strcspn(authority, ":");
    host = apr_pstrmemdup(pool, authority, len);
    for (char *p = host; *p; p++) {
        *p = (char)apr_tolower(*p);
        if (!apr_isalnum(*p) && *p != '.' && *p != '-' && *p != '_')
            return apr_psprintf(pool, "target %s: '%c' can't be in a %s; use letters, digits, '.', "
                                "'-' and '_'", text, *p,
                                target->scheme == RP_SCHEME_BALANCER ? "balancer's name" : "host");
    }
    if (!*host)
        return apr_psprintf(pool, "target %s: the %s is missing behind \"://\"", text,
                            target->scheme == RP_SCHEME_BALANCER ? "balancer's name" : "host");
    target->host = host;
    return parse_port(pool, target, authority + len);
}

/** Sets authority and key from the parts. */
static void make_names(apr_pool_t *pool, rp_target *target)
{
    const char *open = strchr(target->host, ':') ? "[" : "";
    const char *close = *open ? "]" : "";
    const scheme_info *info = schemes;

    while (info->scheme != target->scheme)
        info++;
    if (target->port == info->port)
        target->authority = apr_pstrcat(pool, open, target->host, close, NULL);
    else
        target->authority =
            apr_psprintf(pool, "%s%s%s:%d", open, target->host, close, target->port);
    if (target->scheme == RP_SCHEME_BALANCER)
        target->key = apr_pstrcat(pool, "balancer://", target->host, NULL);
    else
        target->key = apr_psprintf(pool, "%s%s%s%s://%s%s%s:%d", target->socket ? "unix:" : "",
                                   target->socket ? target->socket : "", target->socket ? "|" : "",
                                   info->name, open, target->host, close, target->port);
}

static const char *parse_base(apr_pool_t *pool, rp_target *target, const char *base)
{
    const char *query;

    if (strchr(base, '?'))
        return apr_psprintf(pool, "target %s: a target has no query; set one with RProxyRewrite",
                            target->text);
    if (strchr(base, '#'))
        return apr_psprintf(pool,
                            "target %s: a target has no fragment; remove what begins with '#'",
                            target->text);
    if (!*base)
        base = "/";
    if (base[0] == '/' && base[1] == '/')
        return apr_psprintf(pool, "target %s: begin the path with one slash", target->text);
    if (rp_uri_path(pool, base, RP_SLASHES_PASS, 0, &target->base, &query) != RP_HTTP_OK
        || target->base[1] == '/')
        return apr_psprintf(pool, "target %s: \"%s\" is no valid path; check its %%XX, \"..\" and "
                            "backslashes", target->text, base);
    return NULL;
}

const char *rp_target_parse(apr_pool_t *pool, const char *text, rp_target **target)
{
    rp_target *made = apr_pcalloc(pool, sizeof(*made));
    const char *url = after_socket(text);
    const char *path = rp_target_path_start(text);
    const char *message = check_bytes(pool, text);

    if (message)
        return message;
    made->text = apr_pstrdup(pool, text);
    path = made->text + (path - text);
    url = made->text + (url - text);
    if (url != made->text && (message = parse_socket(pool, made, url)))
        return message;
    if ((message = parse_scheme(pool, made, &url))
        || (message =
                parse_authority(pool, made, apr_pstrmemdup(pool, url, (apr_size_t)(path - url))))
        || (message = parse_base(pool, made, path)))
        return message;
    make_names(pool, made);
    *target = made;
    return NULL;
}

const char *rp_target_set_address(apr_pool_t *pool, rp_target *target, const char *address)
{
    unsigned char bytes[sizeof(struct in6_addr)];
    char normal[INET6_ADDRSTRLEN];
    int family = strchr(address, ':') ? AF_INET6 : AF_INET;

    if (target->socket)
        return apr_psprintf(pool, "target %s: a socket has no address; remove \"#%s\"",
                            target->text, address);
    if (inet_pton(family, address, bytes) != 1)
        return apr_psprintf(pool, "target %s: \"%s\" behind '#' is no IP address; write one, as in "
                            "#192.0.2.1 or #2001:db8::1", target->text, address);
    target->address = apr_pstrdup(pool, inet_ntop(family, bytes, normal, sizeof(normal)));
    target->text = apr_pstrcat(pool, target->text, "#", target->address, NULL);
    target->key = apr_pstrcat(pool, target->key, "#", target->address, NULL);
    return NULL;
}

/** Nonzero if a server that reads %2F or %5C as '/' would see a dot segment. */
static int hides_dot_segment(const char *path)
{
    apr_size_t dots = 0, other = 0;

    for (;;) {
        int end = !*path;
        unsigned char byte = end ? '/' : rp_path_byte(&path);

        if (byte == '/' || byte == '\0' || byte == '\\') {
            if (!other && (dots == 1 || dots == 2))
                return 1;
            if (end)
                return 0;
            dots = other = 0;
        }
        else if (byte == '.')
            dots++;
        else
            other++;
    }
}

int rp_target_under(const rp_target *target, const rp_target *allowed)
{
    const char *base = target->base, *wanted = allowed->base;
    const char *end = wanted + strlen(wanted);

    if (strcmp(target->key, allowed->key) != 0 || hides_dot_segment(base))
        return 0;
    if (end[-1] == '/')
        end--;
    while (wanted < end) {
        if (!*base || rp_path_byte(&wanted) != rp_path_byte(&base))
            return 0;
    }
    return !*base || *base == '/';
}
