/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyHealthCheck grpc: grpc.health.v1.Health/Check, over HTTP/2 with prior knowledge, or as TLS
 * agrees on it. */
#include <stdlib.h>
#include <string.h>
#include <apr_strings.h>
#include <nghttp2/nghttp2.h>

#include "balancer/rp_probe.h"
#include "rproxy/rp_argument.h"

#define SERVICE_MAX 100                 /* its length is one byte of the message */
#define RECEIVED_MAX (256 * 1024)       /* the answer is a handful of frames */

typedef struct grpc_config {
    const char *service;
} grpc_config;

typedef struct grpc_check {
    rproxy_check *check;
    nghttp2_session *session;
    int32_t stream;
    unsigned char request[7 + SERVICE_MAX];
    apr_size_t request_len, request_sent;
    unsigned char message[256];
    apr_size_t message_len, received;
    char http_status[4], grpc_status[4], content_type[24];
    int has_ended;                      /* the stream, for good or ill */
    int is_reset;
} grpc_check;

static const char *configure(apr_pool_t *pool, const apr_array_header_t *words, void **made)
{
    static const char *const names[] = { "service", NULL };
    grpc_config *config = apr_pcalloc(pool, sizeof(*config));
    const char *message = NULL;
    unsigned int seen = 0;

    config->service = "";
    for (int i = 0; i < words->nelts && !message; i++) {
        int key;

        message = rp_argument_key(pool, APR_ARRAY_IDX(words, i, const char *), names, &seen, &key,
                                  &config->service);
    }
    if (!message && strlen(config->service) > SERVICE_MAX)
        message = apr_psprintf(pool, "\"service=%s\" has more than %d bytes", config->service,
                               SERVICE_MAX);
    *made = config;
    return message;
}

/* ---- what nghttp2 tells ---------------------------------------------------------------------- */

static void keep(char *into, apr_size_t size, const uint8_t *value, size_t len)
{
    len = len < size - 1 ? len : size - 1;
    memcpy(into, value, len);
    into[len] = '\0';
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *data)
{
    grpc_check *g = data;

    (void)session;
    (void)flags;
    if (frame->hd.stream_id != g->stream)
        return 0;
    if (name_len == 7 && !memcmp(name, ":status", 7))
        keep(g->http_status, sizeof(g->http_status), value, value_len);
    else if (name_len == 11 && !memcmp(name, "grpc-status", 11))
        keep(g->grpc_status, sizeof(g->grpc_status), value, value_len);
    else if (name_len == 12 && !memcmp(name, "content-type", 12))
        keep(g->content_type, sizeof(g->content_type), value, value_len);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes,
                   size_t len, void *data)
{
    grpc_check *g = data;
    apr_size_t room = sizeof(g->message) - g->message_len;

    (void)session;
    (void)flags;
    /* One more than fits is as good as none: its length is wrong. */
    if (stream == g->stream) {
        memcpy(g->message + g->message_len, bytes, len < room ? len : room);
        g->message_len += len < room ? len : room;
    }
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error, void *data)
{
    grpc_check *g = data;

    (void)session;
    if (stream == g->stream) {
        g->has_ended = 1;
        g->is_reset = error != NGHTTP2_NO_ERROR;
    }
    return 0;
}

static ssize_t read_request(nghttp2_session *session, int32_t stream, uint8_t *into, size_t size,
                            uint32_t *flags, nghttp2_data_source *source, void *data)
{
    grpc_check *g = data;
    apr_size_t left = g->request_len - g->request_sent;

    (void)session;
    (void)stream;
    (void)source;
    size = size < left ? size : left;
    memcpy(into, g->request + g->request_sent, size);
    g->request_sent += size;
    if (g->request_sent == g->request_len)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)size;
}

/* ---- a check --------------------------------------------------------------------------------- */

static int send_all(grpc_check *g)
{
    const uint8_t *bytes;
    ssize_t len;

    while ((len = nghttp2_session_mem_send(g->session, &bytes)) > 0)
        g->check->send(g->check, bytes, (apr_size_t)len);
    return len == 0;
}

#define FIELD(name, value) \
    { (uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, strlen(value), \
      NGHTTP2_NV_FLAG_NONE }

static int submit(grpc_check *g)
{
    const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, 16384 }
    };
    const char *scheme = g->check->place->is_tls ? "https" : "http";
    const nghttp2_nv fields[] = {
        FIELD(":method", "POST"), FIELD(":scheme", scheme), FIELD(":authority", g->check->host),
        FIELD(":path", "/grpc.health.v1.Health/Check"), FIELD("content-type", "application/grpc"),
        FIELD("te", "trailers"), FIELD("user-agent", "mod_rproxy/" RPROXY_VERSION " health-check")
    };
    const nghttp2_data_provider body = { .read_callback = read_request };

    return nghttp2_submit_settings(g->session, NGHTTP2_FLAG_NONE, settings,
                                   sizeof(settings) / sizeof(settings[0])) == 0
        && (g->stream = nghttp2_submit_request(g->session, NULL, fields,
                                               sizeof(fields) / sizeof(fields[0]), &body,
                                               NULL)) > 0;
}

static int open_session(grpc_check *g)
{
    nghttp2_session_callbacks *callbacks;
    int rv;

    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        return 0;
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    rv = nghttp2_session_client_new(&g->session, callbacks, g);
    nghttp2_session_callbacks_del(callbacks);
    return rv == 0;
}

/** HealthCheckRequest: field 1 is the service. */
static void write_message(grpc_check *g, const char *service)
{
    apr_size_t len = strlen(service), size = len ? len + 2 : 0;

    memset(g->request, 0, 5);
    g->request[4] = (unsigned char)size;
    if (len) {
        g->request[5] = 1 << 3 | 2;
        g->request[6] = (unsigned char)len;
        memcpy(g->request + 7, service, len);
    }
    g->request_len = 5 + size;
}

static rproxy_check_verdict begin(rproxy_check *check)
{
    const grpc_config *config = check->config;
    grpc_check *g = apr_pcalloc(check->pool, sizeof(*g));

    g->check = check;
    check->data = g;
    write_message(g, config->service);
    if (check->place->is_tls && (!check->protocol || strcmp(check->protocol, "h2") != 0))
        rp_probe_say(check, "the member doesn't offer HTTP/2 (ALPN)");
    else if (!open_session(g) || !submit(g) || !send_all(g))
        rp_probe_say(check, "HTTP/2 could not be started");
    else
        return RPROXY_CHECK_GOES_ON;
    return RPROXY_CHECK_FAILED;
}

static rproxy_check_verdict judge(rproxy_check *check, const grpc_check *g)
{
    static const char *const states[] = { "UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN" };
    int state;

    if (g->is_reset)
        rp_probe_say(check, "the member has reset the stream");
    else if (strcmp(g->http_status, "200") != 0)
        rp_probe_say(check, "status %s instead of 200", g->http_status);
    else if (strncmp(g->content_type, "application/grpc", 16) != 0)
        rp_probe_say(check, "the answer is not gRPC");
    else if (strcmp(g->grpc_status, "0") != 0)
        rp_probe_say(check, "grpc-status %.3s%s", *g->grpc_status ? g->grpc_status : "missing",
                     !strcmp(g->grpc_status, "12") ? ": there is no health service"
                     : !strcmp(g->grpc_status, "5") ? ": the service is unknown" : "");
    else if ((state = rp_grpc_health_parse(g->message, g->message_len)) < 0)
        rp_probe_say(check, "the answer is no HealthCheckResponse");
    else if (state != 1)
        rp_probe_say(check, "the service is %s", states[state]);
    else
        return RPROXY_CHECK_PASSED;
    return RPROXY_CHECK_FAILED;
}

static rproxy_check_verdict received(rproxy_check *check, const char *data, apr_size_t len)
{
    grpc_check *g = check->data;
    ssize_t taken;

    if (!len) {
        rp_probe_say(check, "the connection ended without an answer");
        return RPROXY_CHECK_FAILED;
    }
    g->received += len;
    taken = nghttp2_session_mem_recv(g->session, (const uint8_t *)data, len);
    if (g->has_ended)
        return judge(check, g);
    if (taken < 0 || !send_all(g))
        rp_probe_say(check, "HTTP/2: %s", taken < 0 ? nghttp2_strerror((int)taken) : "broken");
    else if (g->received > RECEIVED_MAX)
        rp_probe_say(check, "the answer is too long");
    else if (!nghttp2_session_want_read(g->session))
        rp_probe_say(check, "the member broke HTTP/2 off");
    else
        return RPROXY_CHECK_GOES_ON;
    return RPROXY_CHECK_FAILED;
}

static void end(rproxy_check *check)
{
    grpc_check *g = check->data;

    if (g)
        nghttp2_session_del(g->session);
}

const rproxy_probe rp_probe_grpc = {
    .tls = RPROXY_PROBE_AS_MEMBER,
    .protocols = "\x02h2",
    .configure = configure,
    .begin = begin,
    .received = received,
    .end = end
};
