/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Which requests may change things: not those that another site makes a browser send. */
#include <string.h>
#include <strings.h>
#include <apr_strings.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include "httpd.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_ssl.h"

#include "balancer/rp_manager.h"
#include "balancer/rp_sticky.h"

APLOG_USE_MODULE(rproxy_balancer);

#define PURPOSE "rproxy-manager form 1"
#define PERIOD (3600 * APR_USEC_PER_SEC)
#define TOKEN_BYTES 32

/* Set while the configuration is read, constant in children. */
static int is_wanted;
static const apr_array_header_t *keys;  /* rp_span; NULL: none */

void rp_manager_access_begin(void)
{
    is_wanted = 0;
    keys = NULL;
}

void rp_manager_access_want(void)
{
    is_wanted = 1;
}

void rp_manager_access_start(apr_pool_t *pconf, const server_rec *server)
{
    keys = is_wanted ? rp_sticky_own_key(pconf, server) : NULL;
    if (is_wanted && !keys)
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, server, "RP0435: there is no random number for the "
                     "key of rproxy-manager: its page can't change anything, only its API can; see "
                     "to the system's random numbers, then restart");
}

/* ---- origin ---------------------------------------------------------------------------------- */

/** Nonzero if authority, with the port that the scheme has anyway or without it, is host. */
static int is_same_host(const char *authority, const char *host, const char *default_port)
{
    apr_size_t len = strlen(authority), host_len = strlen(host), port = strlen(default_port);

    if (len > port && !strcmp(authority + len - port, default_port))
        len -= port;
    if (host_len > port && !strcmp(host + host_len - port, default_port))
        host_len -= port;
    return len && len == host_len && !strncasecmp(authority, host, len);
}

/** Nonzero if the browser says that the request was made by a page of this server, or by its user;
 * or if it is no browser. */
static int is_from_here(request_rec *r)
{
    const char *site = apr_table_get(r->headers_in, "Sec-Fetch-Site");
    const char *origin = apr_table_get(r->headers_in, "Origin");
    const char *host = apr_table_get(r->headers_in, "Host");
    int is_tls;

    if (site)
        return !strcmp(site, "same-origin") || !strcmp(site, "none");
    if (!origin)
        return 1;
    is_tls = !strncasecmp(origin, "https://", 8);
    if (!host || (!is_tls && strncasecmp(origin, "http://", 7) != 0))
        return 0;
    /* The other way round there may be a proxy in front that does TLS. */
    if (!is_tls && ap_ssl_conn_is_ssl(r->connection))
        return 0;
    return is_same_host(origin + (is_tls ? 8 : 7), host, is_tls ? ":443" : ":80");
}

const char *rp_manager_refuse(const rp_manager *manager)
{
    if (!manager->may_change)
        return "this user may look, but not change anything; RProxyManager changes=on (or an "
               "expression) in the <Location> allows it";
    if (!is_from_here(manager->r))
        return "the browser says that another site asks for this (Sec-Fetch-Site, Origin); do it "
               "on the manager's own page. If a proxy in front changes Host, let it pass Host on";
    return NULL;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

/** The token of an hour, as hexadecimal digits. Nonzero: done. */
static int make(const rp_manager *manager, apr_time_t hour, char text[2 * TOKEN_BYTES + 1])
{
    const request_rec *r = manager->r;
    unsigned char made[EVP_MAX_MD_SIZE];
    unsigned int len = 0;
    const char *data;
    rp_span key;

    if (!keys)
        return 0;
    key = APR_ARRAY_IDX(keys, 0, rp_span);
    /* A line for each: none of them has a line end in it but the user, who comes last. */
    data = apr_psprintf(r->pool, PURPOSE "\n%" APR_TIME_T_FMT "\n%s\n%d\n%s\n%s", hour,
                        r->server->server_hostname ? r->server->server_hostname : "",
                        r->server->port, r->user ? "user" : "address",
                        r->user ? r->user : r->useragent_ip);
    if (!HMAC(EVP_sha256(), key.at, (int)key.len, (const unsigned char *)data, strlen(data), made,
              &len) || len != TOKEN_BYTES)
        return 0;
    for (int i = 0; i < TOKEN_BYTES; i++)
        apr_snprintf(text + 2 * i, 3, "%02x", made[i]);
    return 1;
}

const char *rp_manager_token(const rp_manager *manager)
{
    char *text = apr_palloc(manager->r->pool, 2 * TOKEN_BYTES + 1);

    return make(manager, apr_time_now() / PERIOD, text) ? text : NULL;
}

int rp_manager_token_is_good(const rp_manager *manager, const char *text)
{
    apr_time_t hour = apr_time_now() / PERIOD;
    char good[2 * TOKEN_BYTES + 1];

    if (!text || strlen(text) != 2 * TOKEN_BYTES)
        return 0;
    for (int age = 0; age < 2; age++) {
        if (make(manager, hour - age, good) && !CRYPTO_memcmp(text, good, 2 * TOKEN_BYTES))
            return 1;
    }
    return 0;
}

/* ---- bodies ---------------------------------------------------------------------------------- */

int rp_manager_read(const rp_manager *manager, char **body, apr_size_t *len)
{
    request_rec *r = manager->r;
    int status = ap_setup_client_block(r, REQUEST_CHUNKED_DECHUNK);
    long got = 0;

    *body = apr_palloc(r->pool, RP_MANAGER_BODY_MAX + 2);
    *len = 0;
    if (status != OK)
        return status;
    if (r->remaining > RP_MANAGER_BODY_MAX)
        return HTTP_REQUEST_ENTITY_TOO_LARGE;
    if (ap_should_client_block(r)) {
        while (*len <= RP_MANAGER_BODY_MAX
               && (got = ap_get_client_block(r, *body + *len, RP_MANAGER_BODY_MAX + 1 - *len)) > 0)
            *len += (apr_size_t)got;
    }
    (*body)[*len] = '\0';
    if (got < 0)
        return HTTP_BAD_REQUEST;
    return *len > RP_MANAGER_BODY_MAX ? HTTP_REQUEST_ENTITY_TOO_LARGE : OK;
}
