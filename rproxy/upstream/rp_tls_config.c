/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyTLS: arguments to settings, settings to loaded certificates. While the configuration is
 * read, by one thread. */

#include <string.h>
#include <apr_file_info.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include "rproxy/upstream/rp_upstream_private.h"

/* All that are loaded; equal settings share one, since each loads its own copy of the CAs. */
static rp_tls_context *contexts;
static rp_tls_context *default_context;

/* ---- arguments ------------------------------------------------------------------------------- */

typedef struct protocol {
    const char *name;
    int version;
    unsigned long off;                  /* the option that excludes it */
} protocol;

static const protocol protocols[] = {
    { "TLSv1", TLS1_VERSION, SSL_OP_NO_TLSv1 },
    { "TLSv1.1", TLS1_1_VERSION, SSL_OP_NO_TLSv1_1 },
    { "TLSv1.2", TLS1_2_VERSION, SSL_OP_NO_TLSv1_2 },
    { "TLSv1.3", TLS1_3_VERSION, SSL_OP_NO_TLSv1_3 },
};
#define PROTOCOLS ((int)(sizeof(protocols) / sizeof(protocols[0])))
#define PROTOCOLS_DEFAULT "TLSv1.2+"

/* Sets a bit for each protocol in text ("TLSv1.2+", "TLSv1.2,TLSv1.3"); 0: malformed. */
static unsigned int protocol_set(const char *text)
{
    unsigned int set = 0;
    while (*text) {
        size_t length = strcspn(text, ",");
        int plus = length && text[length - 1] == '+';
        int found = 0;
        for (int i = 0; i < PROTOCOLS; i++) {
            const char *name = protocols[i].name;
            if (strlen(name) == length - (size_t)plus
                && !strncasecmp(name, text, strlen(name))) {
                found = 1;
                set |= plus ? ((1u << PROTOCOLS) - (1u << i)) : 1u << i;
            }
        }
        if (!found) {
            return 0;
        }
        text += length;
        if (*text && !*++text) {
            return 0;                   /* a comma at the end */
        }
    }
    return set;
}

/* A host name for SNI, or an IP address. */
static int is_server_name(const char *name)
{
    rp_sockaddr ignored;
    if (rp_sockaddr_parse(name, 0, &ignored)) {
        return 1;
    }
    size_t length = strlen(name);
    if (!length || length > TLSEXT_MAXLEN_host_name || *name == '.') {
        return 0;
    }
    for (const char *at = name; *at; at++) {
        if (!apr_isalnum(*at) && *at != '-' && *at != '_' && *at != '.') {
            return 0;
        }
        if (at[0] == '.' && at[1] == '.') {
            return 0;
        }
    }
    return 1;
}

static const char *set_file(apr_pool_t *pool, const char *key, const char *value,
                            const char **into)
{
    *into = ap_server_root_relative(pool, value);
    if (!*into) {
        return apr_psprintf(pool, "RP0211: RProxyTLS %s=%s is not a usable path: write an absolute "
                            "one, or one relative to ServerRoot", key, value);
    }
    return NULL;
}

static const char *set_verify(apr_pool_t *pool, const char *value, rp_tls *tls)
{
    if (!strcasecmp(value, "on") || !strcasecmp(value, "off")) {
        tls->verify = !strcasecmp(value, "on");
        return NULL;
    }
    return apr_psprintf(pool, "RP0212: RProxyTLS verify=%s: write verify=on or verify=off", value);
}

static const char *set_name(apr_pool_t *pool, const char *value, rp_tls *tls)
{
    char *name = apr_pstrdup(pool, value);
    ap_str_tolower(name);
    tls->name = name;
    return is_server_name(name) ? NULL
        : apr_psprintf(pool, "RP0213: RProxyTLS name=%s is neither a host name nor an IP address: "
                       "write the name that the upstream's certificate has", value);
}

static const char *set_protocols(apr_pool_t *pool, const char *value, rp_tls *tls)
{
    tls->protocols = apr_pstrdup(pool, value);
    return protocol_set(value) ? NULL
        : apr_psprintf(pool, "RP0214: RProxyTLS protocols=%s: write one or more of TLSv1, TLSv1.1, "
                       "TLSv1.2, TLSv1.3 with commas, or the lowest with a plus: TLSv1.2+", value);
}

static const char *const keys[] = {
    "verify", "ca", "name", "cert", "key", "protocols", "ciphers"
};
enum { KEY_VERIFY, KEY_CA, KEY_NAME, KEY_CERT, KEY_KEY, KEY_PROTOCOLS, KEY_CIPHERS, KEYS };

static const char *set_key(apr_pool_t *pool, int key, const char *value, rp_tls *tls)
{
    switch (key) {
    case KEY_VERIFY:
        return set_verify(pool, value, tls);
    case KEY_CA:
        return set_file(pool, "ca", value, &tls->ca);
    case KEY_NAME:
        return set_name(pool, value, tls);
    case KEY_CERT:
        return set_file(pool, "cert", value, &tls->cert);
    case KEY_KEY:
        return set_file(pool, "key", value, &tls->key);
    case KEY_PROTOCOLS:
        return set_protocols(pool, value, tls);
    default:
        tls->ciphers = apr_pstrdup(pool, value);
        return NULL;
    }
}

/* What was written must be able to take effect. */
static const char *check_together(const unsigned int seen, const rp_tls *tls)
{
    if ((seen & 1u << KEY_CA) && (seen & 1u << KEY_VERIFY) && !tls->verify) {
        return "RP0215: RProxyTLS ca= has no effect together with verify=off: remove one of them";
    }
    if ((seen & 1u << KEY_KEY) && !tls->cert) {
        return "RP0216: RProxyTLS key= needs a certificate: add cert=FILE";
    }
    if ((seen & 1u << KEY_CIPHERS) && tls->protocols
        && protocol_set(tls->protocols) == 1u << (PROTOCOLS - 1)) {
        return "RP0217: RProxyTLS ciphers= has no effect on TLSv1.3: remove it, or allow TLSv1.2 "
               "in protocols=";
    }
    return NULL;
}

const char *rp_tls_parse(apr_pool_t *pool, const apr_array_header_t *arguments, const rp_tls *base,
                         rp_tls **tls)
{
    rp_tls *made = apr_pcalloc(pool, sizeof(*made));
    unsigned int seen = 0;
    if (base) {
        *made = *base;
        made->ctx = NULL;
    }
    else {
        made->verify = 1;
    }
    for (int i = 0; i < arguments->nelts; i++) {
        const char *argument = APR_ARRAY_IDX(arguments, i, const char *);
        const char *equals = strchr(argument, '=');
        size_t length = equals ? (size_t)(equals - argument) : strlen(argument);
        int key = 0;
        while (key < KEYS && (strlen(keys[key]) != length
                              || strncasecmp(keys[key], argument, length))) {
            key++;
        }
        if (key == KEYS || !equals || !equals[1]) {
            return apr_psprintf(pool, "RP0210: RProxyTLS: \"%s\" is none of verify=on|off, "
                                "ca=FILE, name=HOST, cert=FILE, key=FILE, protocols=LIST, "
                                "ciphers=LIST", argument);
        }
        if (seen & 1u << key) {
            return apr_psprintf(pool, "RP0218: RProxyTLS has %s= twice: remove one", keys[key]);
        }
        seen |= 1u << key;
        const char *message = set_key(pool, key, equals + 1, made);
        if (message) {
            return message;
        }
    }
    if ((seen & 1u << KEY_CERT) && !(seen & 1u << KEY_KEY)) {
        made->key = NULL;               /* the base's key belongs to the base's certificate */
    }
    *tls = made;
    return check_together(seen, made);
}

/* ---- loading --------------------------------------------------------------------------------- */

static const char *openssl_text(apr_pool_t *pool)
{
    unsigned long error = ERR_peek_error();
    const char *reason = error ? ERR_reason_error_string(error) : NULL;
    return apr_pstrdup(pool, reason ? reason : "no reason given");
}

/* Nobody is there to type a passphrase when httpd restarts. */
static int no_passphrase(char *buffer, int size, int writing, void *asked)
{
    (void)buffer;
    (void)size;
    (void)writing;
    *(int *)asked = 1;
    return -1;
}

static const char *load_key(apr_pool_t *pool, SSL_CTX *ctx, const char *file, const char *cert)
{
    int encrypted = 0;
    ERR_clear_error();
    BIO *bio = BIO_new_file(file, "r");
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, &encrypted) : NULL;
    const char *message = NULL;
    if (!bio) {
        message = apr_psprintf(pool, "RP0221: RProxyTLS: the key file %s cannot be read (%s): "
                               "check its path and permissions", file, openssl_text(pool));
    }
    else if (encrypted) {
        message = apr_psprintf(pool, "RP0222: RProxyTLS: the key in %s has a passphrase: store it "
                               "without one, readable by root only", file);
    }
    else if (!key) {
        message = apr_psprintf(pool, "RP0223: RProxyTLS: there is no private key in %s (%s): give "
                               "a PEM file with key=", file, openssl_text(pool));
    }
    else if (SSL_CTX_use_PrivateKey(ctx, key) != 1 || SSL_CTX_check_private_key(ctx) != 1) {
        message = apr_psprintf(pool, "RP0224: RProxyTLS: the key in %s does not belong to the "
                               "certificate in %s (%s): the first certificate of the file must be "
                               "the key's", file, cert, openssl_text(pool));
    }
    EVP_PKEY_free(key);
    BIO_free(bio);
    return message;
}

static const char *load_certificate(apr_pool_t *pool, SSL_CTX *ctx, const rp_tls *tls)
{
    if (!tls->cert) {
        return NULL;
    }
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(ctx, tls->cert) != 1) {
        return apr_psprintf(pool, "RP0220: RProxyTLS: no certificate can be read from %s (%s): "
                            "check its path, permissions and that it is PEM", tls->cert,
                            openssl_text(pool));
    }
    return load_key(pool, ctx, tls->key ? tls->key : tls->cert, tls->cert);
}

static const char *load_ca(apr_pool_t *pool, SSL_CTX *ctx, const rp_tls *tls)
{
    apr_finfo_t info;
    int loaded;
    ERR_clear_error();
    if (!tls->verify) {
        return NULL;
    }
    if (!tls->ca) {
        return SSL_CTX_set_default_verify_paths(ctx) == 1 ? NULL
            : apr_psprintf(pool, "RP0225: the system's CA certificates cannot be loaded (%s): "
                           "install them, or name a file with RProxyTLS ca=", openssl_text(pool));
    }
    if (apr_stat(&info, tls->ca, APR_FINFO_TYPE, pool) == APR_SUCCESS && info.filetype == APR_DIR) {
        loaded = SSL_CTX_load_verify_locations(ctx, NULL, tls->ca);
    }
    else {
        loaded = SSL_CTX_load_verify_locations(ctx, tls->ca, NULL);
    }
    return loaded == 1 ? NULL
        : apr_psprintf(pool, "RP0226: RProxyTLS: no CA certificate can be read from %s (%s): check "
                       "its path, permissions and that it is PEM", tls->ca, openssl_text(pool));
}

static const char *limit_protocols(apr_pool_t *pool, SSL_CTX *ctx, const rp_tls *tls)
{
    unsigned int set = protocol_set(tls->protocols ? tls->protocols : PROTOCOLS_DEFAULT);
    for (int i = 0; i < PROTOCOLS; i++) {
        if (!(set & 1u << i)) {
            SSL_CTX_set_options(ctx, protocols[i].off);
        }
    }
    /* The system's configuration may have a higher minimum: what is written here wins. */
    int lowest = 0;
    while (lowest < PROTOCOLS - 1 && !(set & 1u << lowest)) {
        lowest++;
    }
    SSL_CTX_set_min_proto_version(ctx, protocols[lowest].version);
    SSL_CTX_set_max_proto_version(ctx, 0);
    if (tls->ciphers && SSL_CTX_set_cipher_list(ctx, tls->ciphers) != 1) {
        return apr_psprintf(pool, "RP0227: RProxyTLS ciphers=%s names no cipher that OpenSSL has: "
                            "see openssl ciphers", tls->ciphers);
    }
    return NULL;
}

static const char *load(apr_pool_t *pool, const rp_tls *tls, SSL_CTX **loaded)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    if (!ctx) {
        return apr_psprintf(pool, "RP0228: OpenSSL cannot start (%s): check its installation",
                            openssl_text(pool));
    }
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION);
    if (!tls->cert) {
        /* Some servers ask for a client certificate only after they have seen the request. */
        SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION);
    }
    /* Buffers are given back while a connection is idle: thousands of tunnels are. */
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
                          | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1);     /* one system call a record instead of two */
    SSL_CTX_set_verify(ctx, tls->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, rp_tls_new_session);
    const char *message = limit_protocols(pool, ctx, tls);
    if (!message) {
        message = load_ca(pool, ctx, tls);
    }
    if (!message) {
        message = load_certificate(pool, ctx, tls);
    }
    ERR_clear_error();
    if (message) {
        SSL_CTX_free(ctx);
        return message;
    }
    *loaded = ctx;
    return NULL;
}

/* ---- sharing --------------------------------------------------------------------------------- */

static apr_status_t context_release(void *data)
{
    rp_tls_context *context = data;
    if (--context->references) {
        return APR_SUCCESS;
    }
    rp_tls_context **at = &contexts;
    while (*at != context) {
        at = &(*at)->next;
    }
    *at = context->next;
    if (default_context == context) {
        default_context = NULL;
    }
    SSL_CTX_free(context->ctx);
    free(context->key);
    free(context);
    return APR_SUCCESS;
}

/* Text of everything that makes a connection differ, name= apart: endpoints compare that. */
static const char *settings_text(apr_pool_t *pool, const rp_tls *tls)
{
    return apr_psprintf(pool, "%d\n%s\n%s\n%s\n%x\n%s", tls->verify,
                        tls->verify && tls->ca ? tls->ca : "", tls->cert ? tls->cert : "",
                        !tls->cert ? "" : tls->key ? tls->key : tls->cert,
                        protocol_set(tls->protocols ? tls->protocols : PROTOCOLS_DEFAULT),
                        tls->ciphers ? tls->ciphers : "");
}

const char *rp_tls_finish(apr_pool_t *pool, rp_tls *tls)
{
    const rp_tls defaults = { .verify = 1 };
    const rp_tls *wanted = tls ? tls : &defaults;
    const char *key = settings_text(pool, wanted);
    rp_tls_context *context = contexts;
    while (context && strcmp(context->key, key)) {
        context = context->next;
    }
    if (!context) {
        SSL_CTX *ctx = NULL;
        const char *message = load(pool, wanted, &ctx);
        if (message) {
            return message;
        }
        context = ap_calloc(1, sizeof(*context));
        size_t size = strlen(key) + 1;
        context->key = memcpy(ap_malloc(size), key, size);
        context->ctx = ctx;
        context->verify = wanted->verify;
        context->next = contexts;
        contexts = context;
    }
    context->references++;
    apr_pool_cleanup_register(pool, context, context_release, apr_pool_cleanup_null);
    if (tls) {
        tls->ctx = context;
    }
    else {
        default_context = context;
    }
    return NULL;
}

const rp_tls_context *rp_tls_context_of(const rp_tls *tls)
{
    return tls ? tls->ctx : default_context;
}

struct ssl_ctx_st *rp_tls_get(const rp_tls *tls)
{
    const rp_tls_context *context = rp_tls_context_of(tls);
    return context ? context->ctx : NULL;
}
