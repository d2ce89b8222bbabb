/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The TLS client: settings, verification, sessions, data and ends. Certificates are made here; the
 * server's side is stepped by the test itself, without a thread. */

#include <sys/stat.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include "t/unit/upstream_fixture.h"

static apr_pool_t *pool;
static const char *directory;
static int port, listener;

/* ---- certificates ---------------------------------------------------------------------------- */

typedef struct identity {
    X509 *cert;
    EVP_PKEY *key;
    const char *cert_file;
    const char *key_file;
} identity;

static identity ca, other_ca, server_id, named_id, client_id;

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    X509_add_ext(cert, extension, -1);
    X509_EXTENSION_free(extension);
}

static const char *file_of(const char *name, const char *suffix)
{
    return apr_psprintf(pool, "%s/%s%s", directory, name, suffix);
}

static FILE *open_file(const char *path)
{
    FILE *file = fopen(path, "w");
    if (!file) {
        bail_out(path);
    }
    return file;
}

/* Signed by issuer, or by itself. names: a subjectAltName, or NULL for a CA. */
static identity make_identity(const char *name, const identity *issuer, const char *names)
{
    static long serial = 1;
    identity made = { .cert = X509_new(), .cert_file = file_of(name, ".pem"),
                      .key_file = file_of(name, ".key") };
    EVP_PKEY_CTX *generator = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, NULL);
    EVP_PKEY_keygen_init(generator);
    EVP_PKEY_CTX_set_ec_paramgen_curve_nid(generator, NID_X9_62_prime256v1);
    EVP_PKEY_keygen(generator, &made.key);
    EVP_PKEY_CTX_free(generator);
    X509_set_version(made.cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(made.cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(made.cert), 3600);
    X509_set_pubkey(made.cert, made.key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made.cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509 *signer = issuer ? issuer->cert : made.cert;
    X509_set_issuer_name(made.cert, X509_get_subject_name(signer));
    if (names) {
        add_extension(made.cert, signer, NID_subject_alt_name, names);
    }
    else {
        add_extension(made.cert, signer, NID_basic_constraints, "critical,CA:TRUE");
    }
    X509_sign(made.cert, issuer ? issuer->key : made.key, EVP_sha256());
    FILE *file = open_file(made.cert_file);
    PEM_write_X509(file, made.cert);
    fclose(file);
    file = open_file(made.key_file);
    PEM_write_PrivateKey(file, made.key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
    return made;
}

static void free_identity(identity *old)
{
    X509_free(old->cert);
    EVP_PKEY_free(old->key);
    unlink(old->cert_file);
    unlink(old->key_file);
}

/* ---- settings -------------------------------------------------------------------------------- */

/* Parses arguments separated by blanks; sets the message. */
static rp_tls *parse(const char *text, const rp_tls *base, const char **message)
{
    apr_array_header_t *arguments = apr_array_make(pool, 4, sizeof(const char *));
    char *last, *copy = apr_pstrdup(pool, text);
    for (char *word = apr_strtok(copy, " ", &last); word; word = apr_strtok(NULL, " ", &last)) {
        APR_ARRAY_PUSH(arguments, const char *) = word;
    }
    rp_tls *tls = NULL;
    *message = rp_tls_parse(pool, arguments, base, &tls);
    return tls;
}

/* Parses and loads what must be right. */
static rp_tls *settings(apr_pool_t *config, const char *text)
{
    const char *message;
    rp_tls *tls = parse(text, NULL, &message);
    if (!message) {
        message = rp_tls_finish(config, tls);
    }
    if (message) {
        printf("# %s\n", message);
        bail_out(text);
    }
    return tls;
}

static void refuses(const char *text, const char *id, const char *mentions)
{
    const char *message;
    rp_tls *tls = parse(text, NULL, &message);
    if (!message) {
        message = rp_tls_finish(pool, tls);
    }
    if (!ok(message && strstr(message, id) && strstr(message, mentions), "%s is refused", text)) {
        printf("# %s\n", message ? message : "no message");
    }
}

static void test_parse(void)
{
    const char *message;
    rp_tls *tls = parse("", NULL, &message);
    ok(!message && tls->verify == 1 && !tls->ca && !tls->cert, "verification is on by default");
    rp_tls *base = parse("ca=certs/ca.pem name=App.Test protocols=TLSv1.3", NULL, &message);
    is_text(base->ca, "/server-root/certs/ca.pem", "relative files belong to the server root");
    is_text(base->name, "app.test", "names are lower case");
    tls = parse("verify=off", base, &message);
    ok(!message && !tls->verify && tls->name == base->name && tls->protocols == base->protocols,
       "unset keys come from the base");
    base = parse("cert=/a key=/b", NULL, &message);
    tls = parse("cert=/c", base, &message);
    ok(!message && !tls->key, "the base's key isn't taken for another certificate");
    refuses("verify=maybe", "RP0212", "verify=on or verify=off");
    refuses("color=red", "RP0210", "color=red");
    refuses("verify", "RP0210", "verify=on|off");
    refuses("ca=", "RP0210", "ca=");
    refuses("name=a name=b", "RP0218", "name=");
    refuses("name=a/b", "RP0213", "a/b");
    refuses("protocols=SSLv3", "RP0214", "SSLv3");
    refuses("protocols=TLSv1.2,", "RP0214", "TLSv1.2,");
    refuses("verify=off ca=/x", "RP0215", "ca=");
    refuses("key=/x", "RP0216", "cert=FILE");
    refuses("protocols=TLSv1.3 ciphers=HIGH", "RP0217", "TLSv1.2");
    refuses("ciphers=NONESUCH", "RP0227", "NONESUCH");
    refuses("ca=/nonexistent/ca.pem", "RP0226", "/nonexistent/ca.pem");
    refuses("cert=/nonexistent/c.pem", "RP0220", "/nonexistent/c.pem");
    const char *cert = apr_psprintf(pool, "cert=%s", client_id.cert_file);
    refuses(cert, "RP0223", client_id.cert_file);
    refuses(apr_psprintf(pool, "%s key=/nonexistent/k", cert), "RP0221", "/nonexistent/k");
    refuses(apr_psprintf(pool, "%s key=%s", cert, ca.key_file), "RP0224", ca.key_file);

    const char *locked = file_of("locked", ".key");
    FILE *file = open_file(locked);
    PEM_write_PKCS8PrivateKey(file, client_id.key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL);
    fclose(file);
    refuses(apr_psprintf(pool, "%s key=%s", cert, locked), "RP0222", "passphrase");
    unlink(locked);
}

static void test_sharing(void)
{
    const char *plain = apr_psprintf(pool, "ca=%s", ca.cert_file);
    rp_tls *a = settings(pool, plain);
    rp_tls *same = settings(pool, plain);
    rp_tls *named = settings(pool, apr_psprintf(pool, "%s name=app.test", plain));
    rp_tls *other_name = settings(pool, apr_psprintf(pool, "%s name=other.test", plain));
    rp_tls *unverified = settings(pool, "verify=off");
    rp_tls *with_cert = settings(pool, apr_psprintf(pool, "%s cert=%s key=%s", plain,
                                                    client_id.cert_file, client_id.key_file));
    rp_target *target = make_target(pool, RP_SCHEME_HTTPS, "app.test", 443, NULL);
    rp_endpoint *endpoint = rp_endpoint_get(target, 0, a, NULL);
    ok(endpoint == rp_endpoint_get(target, 0, same, NULL), "equal settings share a pool");
    ok(endpoint == rp_endpoint_get(target, 0, named, NULL),
       "so does the host's own name written out");
    ok(endpoint != rp_endpoint_get(target, 0, other_name, NULL), "another name doesn't");
    ok(endpoint != rp_endpoint_get(target, 0, unverified, NULL), "another verification doesn't");
    ok(endpoint != rp_endpoint_get(target, 0, with_cert, NULL), "a client certificate doesn't");
    ok(endpoint != rp_endpoint_get(target, 0, NULL, NULL), "the default settings don't");
    ok(endpoint != rp_endpoint_get(make_target(pool, RP_SCHEME_HTTP, "app.test", 443, NULL), 0, a,
                                   NULL), "plain HTTP to that port doesn't");
}

/* ---- a stepped server ------------------------------------------------------------------------ */

static SSL_CTX *server_context(const identity *own, const identity *client_ca, int version)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(ctx, own->cert);
    SSL_CTX_use_PrivateKey(ctx, own->key);
    SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"test", 4);
    if (version) {
        SSL_CTX_set_max_proto_version(ctx, version);
    }
    if (client_ca) {
        X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), client_ca->cert);
        SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    return ctx;
}

static SSL *accept_tls(SSL_CTX *ctx)
{
    int fd = accept_one(listener);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    SSL *ssl = SSL_new(ctx);
    SSL_set_fd(ssl, fd);
    SSL_set_accept_state(ssl);
    return ssl;
}

static void close_server(SSL *ssl)
{
    int fd = SSL_get_fd(ssl);
    SSL_free(ssl);
    close(fd);
    ERR_clear_error();
}

static rp_endpoint *endpoint_with(const char *host, const rp_tls *tls)
{
    return rp_endpoint_get(make_target(pool, RP_SCHEME_HTTPS, host, port, NULL), 0, tls, NULL);
}

/* Steps both sides until ours has ended one way or the other; *ssl is the server's side. */
static rp_conn *handshake(rp_endpoint *endpoint, SSL_CTX *ctx, SSL **ssl, rp_io *result)
{
    rp_conn *conn = rp_conn_acquire(endpoint, NULL, 1);
    apr_time_t deadline = apr_time_now() + PATIENCE;
    while ((*result = rp_conn_connect(conn)) == RP_IO_AGAIN && !has_waiting(listener)
           && wait_for(conn, 0, 0, deadline)) {
    }
    *ssl = accept_tls(ctx);
    while ((*result = rp_conn_connect(conn)) == RP_IO_AGAIN && apr_time_now() < deadline) {
        ERR_clear_error();
        SSL_do_handshake(*ssl);
    }
    for (int i = 0; i < 100 && !SSL_is_init_finished(*ssl) && *result == RP_IO_DONE; i++) {
        ERR_clear_error();
        SSL_do_handshake(*ssl);         /* the client's last flight */
        poll(NULL, 0, 1);
    }
    return conn;
}

static void finish(rp_conn *conn, SSL *ssl, int reusable)
{
    rp_conn_release(conn, reusable);
    close_server(ssl);
}

/* ---- verification ---------------------------------------------------------------------------- */

static void verifies(const char *what, const char *host, const char *text, const identity *own,
                     rp_reason expected)
{
    SSL_CTX *ctx = server_context(own, NULL, 0);
    rp_io result;
    SSL *ssl;
    rp_conn *conn = handshake(endpoint_with(host, settings(pool, text)), ctx, &ssl, &result);
    is_reason(conn, expected, what);
    if (expected == RP_REASON_NONE) {
        is_number(result, RP_IO_DONE, "and it is connected");
        is_number(rp_conn_fd(conn), -1, "a TLS connection gives no descriptor");
    }
    else {
        is_number(result, RP_IO_FAILED, "and it has failed");
        ok(*detail_of(conn), "with a detail: %s", detail_of(conn));
    }
    finish(conn, ssl, 0);
    SSL_CTX_free(ctx);
}

static void test_verification(void)
{
    const char *by_ca = apr_psprintf(pool, "ca=%s", ca.cert_file);
    const char *by_other = apr_psprintf(pool, "ca=%s", other_ca.cert_file);
    verifies("a certificate for the IP address", "127.0.0.1", by_ca, &server_id, RP_REASON_NONE);
    verifies("a certificate of another CA", "127.0.0.1", by_other, &server_id,
             RP_REASON_TLS_CERTIFICATE);
    verifies("no CA given: the system doesn't know ours", "127.0.0.1", "verify=on", &server_id,
             RP_REASON_TLS_CERTIFICATE);
    verifies("a certificate without the IP address", "127.0.0.1", by_ca, &named_id,
             RP_REASON_TLS_CERTIFICATE);
    verifies("the name given instead", "127.0.0.1",
             apr_psprintf(pool, "%s name=app.test", by_ca), &named_id, RP_REASON_NONE);
    verifies("a wildcard", "127.0.0.1", apr_psprintf(pool, "%s name=x.wild.test", by_ca), &named_id,
             RP_REASON_NONE);
    verifies("another name", "127.0.0.1", apr_psprintf(pool, "%s name=bad.test", by_ca), &named_id,
             RP_REASON_TLS_CERTIFICATE);
    verifies("verify=off asks for nothing", "127.0.0.1", "verify=off", &named_id, RP_REASON_NONE);
    verifies("protocols=TLSv1.2 works", "127.0.0.1",
             apr_psprintf(pool, "%s protocols=TLSv1.2", by_ca), &server_id, RP_REASON_NONE);
}

static void test_sni(void)
{
    SSL_CTX *ctx = server_context(&named_id, NULL, 0);
    rp_tls *named = settings(pool, apr_psprintf(pool, "ca=%s name=app.test", ca.cert_file));
    rp_tls *unnamed = settings(pool, "verify=off");
    rp_io result;
    SSL *ssl;
    rp_conn *conn = handshake(endpoint_with("127.0.0.1", named), ctx, &ssl, &result);
    is_text(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name), "app.test", "the name is sent");
    finish(conn, ssl, 0);
    conn = handshake(endpoint_with("127.0.0.1", unnamed), ctx, &ssl, &result);
    is_text(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name), NULL, "an IP address isn't");
    finish(conn, ssl, 0);
    SSL_CTX_free(ctx);
}

static void test_client_certificate(void)
{
    SSL_CTX *ctx = server_context(&server_id, &ca, 0);
    rp_tls *with = settings(pool, apr_psprintf(pool, "ca=%s cert=%s key=%s", ca.cert_file,
                                               client_id.cert_file, client_id.key_file));
    rp_tls *without = settings(pool, apr_psprintf(pool, "ca=%s", ca.cert_file));
    char byte;
    rp_io result;
    SSL *ssl;
    rp_conn *conn = handshake(endpoint_with("127.0.0.1", with), ctx, &ssl, &result);
    ok(result == RP_IO_DONE && SSL_is_init_finished(ssl), "the client certificate is presented");
    finish(conn, ssl, 0);
    conn = handshake(endpoint_with("127.0.0.1", without), ctx, &ssl, &result);
    if (result == RP_IO_DONE) {         /* TLS 1.3: the refusal comes after our handshake */
        read_now(conn, &byte, 1, &result);
    }
    is_number(result, RP_IO_FAILED, "without it the server refuses");
    is_reason(conn, RP_REASON_TLS_PROTOCOL, "by an alert");
    ok(strstr(detail_of(conn), "certificate required"), "the detail says so: %s", detail_of(conn));
    finish(conn, ssl, 0);
    SSL_CTX_free(ctx);
}

/* CVE-2026-1642 of another proxy: plain text ahead of the handshake must not become an answer. */
static void test_injected_plain_text(void)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    char byte;
    apr_size_t got;
    rp_endpoint *endpoint = endpoint_with("127.0.0.1", settings(pool, "verify=off"));
    rp_conn *conn = rp_conn_acquire(endpoint, NULL, 1);
    rp_conn_connect(conn);
    int fd = accept_one(listener);
    ok(write(fd, answer, sizeof(answer) - 1) > 0, "the peer sends plain text first");
    is_number(connect_now(conn), RP_IO_FAILED, "that is no handshake");
    is_reason(conn, RP_REASON_TLS_PROTOCOL, "but a TLS error");
    is_number(rp_conn_read(conn, &byte, 1, &got), RP_IO_FAILED, "and nothing of it can be read");
    rp_conn_release(conn, 1);
    close(fd);
    conn = rp_conn_acquire(endpoint_with("127.0.0.1", settings(pool, "verify=off")), NULL, 1);
    rp_conn_connect(conn);
    close(accept_one(listener));
    is_number(connect_now(conn), RP_IO_FAILED, "a peer that hangs up in the handshake");
    is_reason(conn, RP_REASON_TLS_PROTOCOL, "is a TLS error too");
    rp_conn_release(conn, 1);
}

static void test_unfinished_settings(void)
{
    rp_tls tls = { .verify = 1 };
    rp_conn *conn = rp_conn_acquire(endpoint_with("127.0.0.1", &tls), NULL, 1);
    is_number(connect_now(conn), RP_IO_FAILED, "settings that were not loaded cannot be used");
    is_reason(conn, RP_REASON_INTERNAL, "and never fall back to others");
    rp_conn_release(conn, 0);
    close(accept_one(listener));
}

/* ---- sessions -------------------------------------------------------------------------------- */

/* One connection that carries a byte, so that the tickets of TLS 1.3 are read. */
static int resumes(rp_endpoint *endpoint, SSL_CTX *ctx)
{
    char byte;
    rp_io result;
    SSL *ssl;
    rp_conn *conn = handshake(endpoint, ctx, &ssl, &result);
    int resumed = SSL_session_reused(ssl);
    SSL_write(ssl, "x", 1);
    if (read_now(conn, &byte, 1, &result) != 1) {
        bail_out("no byte over TLS");
    }
    finish(conn, ssl, 0);
    return resumed;
}

static void test_sessions(int version, const char *what)
{
    SSL_CTX *ctx = server_context(&named_id, NULL, version);
    const char *common = apr_psprintf(pool, "ca=%s protocols=%s", ca.cert_file, what);
    rp_tls *app = settings(pool, apr_psprintf(pool, "%s name=app.test", common));
    rp_tls *wild = settings(pool, apr_psprintf(pool, "%s name=x.wild.test", common));
    rp_tls *with_cert = settings(pool, apr_psprintf(pool, "%s name=app.test cert=%s key=%s", common,
                                                    client_id.cert_file, client_id.key_file));
    rp_tls *unverified = settings(pool, apr_psprintf(pool, "verify=off name=bad.test protocols=%s",
                                                     what));
    rp_tls *bad = settings(pool, apr_psprintf(pool, "%s name=bad.test", common));
    ok(!resumes(endpoint_with("127.0.0.1", app), ctx), "%s: the first handshake is full", what);
    ok(resumes(endpoint_with("127.0.0.1", app), ctx), "%s: the second resumes", what);
    ok(resumes(endpoint_with("127.0.0.1", app), ctx), "%s: and the third", what);
    ok(!resumes(endpoint_with("127.0.0.1", wild), ctx), "%s: not for another name", what);
    ok(!resumes(endpoint_with("127.0.0.1", with_cert), ctx),
       "%s: not with another client certificate", what);
    ok(!resumes(endpoint_with("127.0.0.1", unverified), ctx), "%s: not unverified", what);
    rp_io result;
    SSL *ssl;
    rp_conn *conn = handshake(endpoint_with("127.0.0.1", bad), ctx, &ssl, &result);
    is_reason(conn, RP_REASON_TLS_CERTIFICATE, "a name once accepted unverified is still refused");
    finish(conn, ssl, 0);
    SSL_CTX_free(ctx);
}

/* ---- pooling, data, ends --------------------------------------------------------------------- */

static void test_pooling(void)
{
    SSL_CTX *ctx = server_context(&server_id, NULL, 0);
    rp_endpoint *endpoint = endpoint_with("127.0.0.1",
                                          settings(pool, apr_psprintf(pool, "ca=%s",
                                                                      ca.cert_file)));
    rp_io result;
    SSL *ssl;
    char byte;
    rp_conn *conn = handshake(endpoint, ctx, &ssl, &result);
    int fd = socket_of(conn);
    rp_conn_release(conn, 1);
    await_readable(fd);
    rp_conn *again = rp_conn_acquire(endpoint, NULL, 0);
    ok(again == conn, "tickets that arrived meanwhile don't spoil an idle connection");
    is_number(rp_conn_connect(again), RP_IO_DONE, "it needs no handshake");
    SSL_write(ssl, "x", 1);
    is_number(read_now(again, &byte, 1, &result), 1, "it carries data");
    rp_conn_release(again, 1);
    SSL_write(ssl, "surprise", 8);
    await_readable(fd);
    again = rp_conn_acquire(endpoint, NULL, 0);
    ok(!rp_conn_is_reused(again), "unasked data does");
    rp_conn_release(again, 0);
    close_server(ssl);

    conn = handshake(endpoint, ctx, &ssl, &result);
    fd = socket_of(conn);
    SSL_write(ssl, "x", 1);
    read_now(conn, &byte, 1, &result);
    rp_conn_release(conn, 1);
    SSL_shutdown(ssl);
    await_readable(fd);
    again = rp_conn_acquire(endpoint, NULL, 0);
    ok(!rp_conn_is_reused(again), "close_notify does");
    rp_conn_release(again, 0);
    close_server(ssl);
    SSL_CTX_free(ctx);
}

#define BULK (4 << 20)

/* Pieces of all sizes go out; the other side, which reads only when ours is stuck, gets it all. */
static void test_bulk(void)
{
    SSL_CTX *ctx = server_context(&server_id, NULL, 0);
    rp_endpoint *endpoint = endpoint_with("127.0.0.1", settings(pool, "verify=off"));
    char *sent = malloc(BULK), *received = malloc(BULK);
    for (int i = 0; i < BULK; i++) {
        sent[i] = (char)(i * 7 + (i >> 11));
    }
    rp_io result = RP_IO_DONE;
    SSL *ssl;
    rp_conn *conn = handshake(endpoint, ctx, &ssl, &result);
    apr_size_t out = 0, in = 0, stuck = 0;
    while (in < BULK && result != RP_IO_FAILED) {
        apr_size_t left = BULK - out, written = 0;
        apr_size_t head = left < 300 ? left : 300;
        apr_size_t next = left - head < 5000 ? left - head : 5000;
        struct iovec vector[4] = {
            { sent + out, head }, { NULL, 0 }, { sent + out + head, next },
            { sent + out + head + next, left - head - next }
        };
        result = left ? rp_conn_write(conn, vector, 4, &written) : RP_IO_AGAIN;
        out += written;
        if (result == RP_IO_AGAIN) {
            rp_wait_fd waits[RP_CONN_WAITS_MAX];
            stuck += left && rp_conn_waits(conn, 0, 1, waits, NULL) == 1
                     && waits[0].events == POLLOUT;
            int got;
            while ((got = SSL_read(ssl, received + in, BULK - (int)in)) > 0) {
                in += (apr_size_t)got;
            }
            ERR_clear_error();
        }
    }
    ok(in == BULK && !memcmp(sent, received, BULK), "4 MiB in pieces arrive as they were");
    ok(stuck > 0, "writing had to wait on the way");
    in = out = 0;
    while (in < BULK) {
        int wrote;
        while (out < BULK && (wrote = SSL_write(ssl, sent + out, BULK - (int)out > 30000
                                                ? 30000 : BULK - (int)out)) > 0) {
            out += (apr_size_t)wrote;
        }
        ERR_clear_error();
        apr_size_t got = 0;
        result = rp_conn_read(conn, received + in, BULK - in, &got);
        in += got;
        if (result == RP_IO_FAILED || result == RP_IO_EOF) {
            break;
        }
    }
    ok(in == BULK && !memcmp(sent, received, BULK), "and back");
    finish(conn, ssl, 0);
    free(sent);
    free(received);
    SSL_CTX_free(ctx);
}

static void test_ends(void)
{
    SSL_CTX *ctx = server_context(&server_id, NULL, 0);
    rp_endpoint *endpoint = endpoint_with("127.0.0.1", settings(pool, "verify=off"));
    char buffer[8];
    rp_io result;
    SSL *ssl;
    rp_conn *conn = handshake(endpoint, ctx, &ssl, &result);
    SSL_write(ssl, "last", 4);
    SSL_shutdown(ssl);
    is_number(read_now(conn, buffer, sizeof(buffer), &result), 4, "all data before close_notify");
    is_number(result, RP_IO_EOF, "close_notify is a clean end");
    finish(conn, ssl, 1);

    conn = handshake(endpoint, ctx, &ssl, &result);
    SSL_write(ssl, "part", 4);
    close_server(ssl);
    is_number(read_now(conn, buffer, sizeof(buffer), &result), 4, "all data before a cut");
    is_number(result, RP_IO_FAILED, "a cut without close_notify is no clean end");
    is_reason(conn, RP_REASON_INCOMPLETE, "but an incomplete answer");
    rp_conn_release(conn, 1);

    conn = handshake(endpoint, ctx, &ssl, &result);
    rp_conn_end_write(conn);
    int got = -1;
    for (int i = 0; i < 1000 && (got = SSL_read(ssl, buffer, 1)) < 0
         && SSL_get_error(ssl, got) == SSL_ERROR_WANT_READ; i++) {
        poll(NULL, 0, 1);
    }
    is_number(SSL_get_error(ssl, got), SSL_ERROR_ZERO_RETURN, "our end is a close_notify");
    SSL_write(ssl, "rest", 4);
    is_number(read_now(conn, buffer, 4, &result), 4, "the other direction goes on");
    finish(conn, ssl, 0);
    SSL_CTX_free(ctx);
}

/* Our end waits behind a full socket: it goes out once the peer reads. */
static void test_end_behind_full_socket(void)
{
    SSL_CTX *ctx = server_context(&server_id, NULL, 0);
    rp_endpoint *endpoint = endpoint_with("127.0.0.1", settings(pool, "verify=off"));
    char block[16384] = "";
    apr_size_t written, got;
    struct iovec vector = { block, sizeof(block) };
    rp_wait_fd waits[RP_CONN_WAITS_MAX];
    rp_io result;
    SSL *ssl;
    rp_conn *conn = handshake(endpoint, ctx, &ssl, &result);
    while ((result = rp_conn_write(conn, &vector, 1, &written)) == RP_IO_DONE) {
    }
    is_number(result, RP_IO_AGAIN, "the socket is full");
    int open = 1, ended = 0;
    for (int i = 0; i < 100000 && open; i++) {
        int count;
        while ((count = SSL_read(ssl, block, sizeof(block))) > 0) {
        }
        open = SSL_get_error(ssl, count) == SSL_ERROR_WANT_READ;
        ERR_clear_error();
        if (!ended && rp_conn_write(conn, &vector, 1, &written) == RP_IO_DONE) {
            while (rp_conn_write(conn, &vector, 1, &written) == RP_IO_DONE) {
            }
            while (rp_conn_write(conn, &vector, 1, &written) == RP_IO_AGAIN) {
                SSL_read(ssl, block, sizeof(block));
                ERR_clear_error();
            }
            rp_conn_end_write(conn);
            ended = 1;
        }
        if (ended && rp_conn_waits(conn, 0, 0, waits, NULL) == 1) {
            rp_conn_read(conn, block, 1, &got);
        }
    }
    ok(!open && (SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN), "close_notify arrives still");
    is_number(rp_conn_waits(conn, 0, 0, waits, NULL), 0, "nothing is left to wait for");
    finish(conn, ssl, 0);
    SSL_CTX_free(ctx);
}

static void test_default_settings(void)
{
    SSL_CTX *ctx = server_context(&server_id, NULL, 0);
    rp_io result;
    SSL *ssl;
    is_text(rp_tls_finish(pool, NULL), NULL, "the default settings load");
    rp_conn *conn = handshake(endpoint_with("127.0.0.1", NULL), ctx, &ssl, &result);
    is_reason(conn, RP_REASON_TLS_CERTIFICATE, "they verify by the system's CAs");
    finish(conn, ssl, 0);
    SSL_CTX_free(ctx);
}

int main(void)
{
    pool = tap_pool();
    signal(SIGPIPE, SIG_IGN);           /* as httpd does */
    directory = apr_psprintf(pool, "/tmp/rp-tls-%d", (int)getpid());
    if (mkdir(directory, 0700) < 0) {
        bail_out(directory);
    }
    listener = listen_at("127.0.0.1", &port, 64);
    ca = make_identity("ca", NULL, NULL);
    other_ca = make_identity("other", NULL, NULL);
    server_id = make_identity("server", &ca, "IP:127.0.0.1,DNS:ip.test");
    named_id = make_identity("named", &ca, "DNS:app.test,DNS:*.wild.test");
    client_id = make_identity("client", &ca, "DNS:client.test");
    apr_pool_t *child;
    apr_pool_create(&child, pool);
    is_number(rp_upstream_child_init(child, &test_server, NULL), APR_SUCCESS, "child_init");
    test_parse();
    test_sharing();
    test_verification();
    test_sni();
    test_client_certificate();
    test_injected_plain_text();
    test_unfinished_settings();
    test_sessions(TLS1_3_VERSION, "TLSv1.3");
    test_sessions(TLS1_2_VERSION, "TLSv1.2");
    test_pooling();
    test_bulk();
    test_ends();
    test_end_behind_full_socket();
    test_default_settings();
    apr_pool_destroy(child);
    free_identity(&ca);
    free_identity(&other_ca);
    free_identity(&server_id);
    free_identity(&named_id);
    free_identity(&client_id);
    rmdir(directory);
    close(listener);
    apr_pool_destroy(pool);             /* frees the loaded settings */
    return tap_done();
}
