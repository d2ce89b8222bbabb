/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Heads of HTTP/2: fields to a neutral request, and a neutral response to fields. nghttp2 has
 * checked what RFC 9113 section 8 says of names, pseudo-header fields, connection-specific fields
 * and Content-Length. */

#include <string.h>
#include <apr_base64.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_protocol.h"
#include "rproxy/engine/rp_access_log.h"
#include "rproxy/engine/rp_h2_private.h"
#include "rproxy/pipeline/rp_request_id.h"

#define FIELD_OVERHEAD 32               /* as SETTINGS_MAX_HEADER_LIST_SIZE counts */
#define OWN_FIELDS 6                    /* room for those of an answer of ours */

/* ---- requests -------------------------------------------------------------------------------- */

static const char *copy_of(apr_pool_t *pool, nghttp2_vec text)
{
    return apr_pstrmemdup(pool, (const char *)text.base, text.len);
}

static void add_pseudo(rp_h2_stream *stream, const char *name, const char *value)
{
    rp_request *request = &stream->base.request;

    if (strcmp(name, ":method") == 0) {
        request->method = value;
    }
    else if (strcmp(name, ":path") == 0) {
        request->target = value;
    }
    else if (strcmp(name, ":authority") == 0) {
        request->authority = value;
    }
    else if (strcmp(name, ":protocol") == 0) {
        stream->protocol = value;
    }
    else if (strcmp(name, ":scheme") == 0) {
        stream->malformed |= strcasecmp(value, "http") != 0 && strcasecmp(value, "https") != 0;
    }
}

/* Cookie may come in pieces, which are one field in HTTP/1.1 (RFC 9113 section 8.2.3). */
static int join_cookie(rp_h2_stream *stream, const char *name, apr_size_t name_len,
                       const char *value, apr_size_t len)
{
    rp_fields *fields = &stream->base.request.fields;
    const rp_field *before;

    if (name_len != 6 || memcmp(name, "cookie", 6) != 0
        || !(before = rp_fields_find(fields, "cookie"))) {
        return 0;
    }
    if (stream->cookie.len == 0) {
        rp_buffer_init(&stream->cookie, fields->pool, 2 * (before->value_len + len + 2));
        rp_buffer_add(&stream->cookie, before->value, before->value_len);
    }
    rp_buffer_add(&stream->cookie, "; ", 2);
    rp_buffer_add(&stream->cookie, value, len);
    return 1;
}

static void end_cookie(rp_h2_stream *stream)
{
    rp_field *cookie;

    if (stream->cookie.len > 0) {
        cookie = rp_fields_find(&stream->base.request.fields, "cookie");
        cookie->value_len = (apr_uint32_t)stream->cookie.len;
        rp_buffer_add(&stream->cookie, "", 1);
        cookie->value = stream->cookie.data;
    }
}

void rp_h2_add_field(rp_h2_stream *stream, nghttp2_rcbuf *name_buffer, nghttp2_rcbuf *value_buffer)
{
    rp_fields *fields = stream->in_trailers ? &stream->request_trailers
                                            : &stream->base.request.fields;
    nghttp2_vec name = nghttp2_rcbuf_get_buf(name_buffer);
    nghttp2_vec value = nghttp2_rcbuf_get_buf(value_buffer);
    const char *name_text, *value_text;
    rp_field *field;
    rp_field_id id;

    stream->head_size += name.len + value.len + FIELD_OVERHEAD;
    if (stream->head_size > RP_HTTP_HEAD_MAX || fields->count == RP_HTTP_FIELDS_MAX) {
        stream->too_large = 1;          /* what is left of it is read and forgotten */
        return;
    }
    name_text = nghttp2_rcbuf_is_static(name_buffer) ? (const char *)name.base
                                                     : copy_of(fields->pool, name);
    value_text = copy_of(fields->pool, value);
    if (name.base[0] == ':') {
        add_pseudo(stream, name_text, value_text);
        return;
    }
    if (!rp_is_token(name_text, name.len) || !rp_is_field_value(value_text, value.len)
        || strlen(value_text) != value.len) {
        stream->malformed = 1;
        return;
    }
    id = rp_field_id_of(name_text, name.len);
    if (stream->in_trailers && id == RP_FIELD_TE) {
        return;                         /* is between us and the client */
    }
    if (!stream->in_trailers && join_cookie(stream, name_text, name.len, value_text, value.len)) {
        return;
    }
    field = rp_fields_push(fields);
    field->name = name_text;
    field->value = value_text;
    field->name_len = (apr_uint32_t)name.len;
    field->value_len = (apr_uint32_t)value.len;
    field->id = id;
}

/* Visible bytes and nothing else: a blank or a control byte would be somebody's next request. */
static int is_target(const char *target)
{
    for (const char *p = target; *p; p++) {
        if ((unsigned char)*p <= ' ' || *p == 0x7f) {
            return 0;
        }
    }
    return *target != '\0';
}

/* Host is the authority's other name: both or one of them, and the same (RFC 9113 section 8.3.1).
 * Zero: malformed. */
static int take_authority(rp_request *request)
{
    rp_field *host = rp_fields_get(&request->fields, RP_FIELD_HOST, 0);

    if (host) {
        if (rp_fields_get(&request->fields, RP_FIELD_HOST,
                          (int)(host - request->fields.items) + 1)
            || (request->authority && strcasecmp(request->authority, host->value) != 0)) {
            return 0;
        }
        request->authority = request->authority ? request->authority : host->value;
    }
    if (!request->authority) {
        request->authority = "";
    }
    else if (*request->authority && !rp_uri_is_authority(request->authority)) {
        return 0;
    }
    if (!host && *request->authority) {
        rp_fields_add_known(&request->fields, RP_FIELD_HOST, "Host", request->authority);
    }
    return 1;
}

/* Zero: malformed. The length is checked against the bytes by nghttp2. */
static int take_framing(rp_h2_stream *stream)
{
    rp_request *request = &stream->base.request;

    if (rp_http_request_framing(&request->fields, 1, &request->framing, &request->content_length)
            != RP_HTTP_OK) {
        return 0;
    }
    if (request->framing == RP_BODY_NONE && !stream->in_ended) {
        request->framing = RP_BODY_CHUNKED;
    }
    return !stream->in_ended || request->framing == RP_BODY_NONE || request->content_length == 0;
}

/* Extended CONNECT (RFC 8441): what the upstream gets in HTTP/1.1. */
static void ask_for_upgrade(rp_h2_stream *stream)
{
    rp_request *request = &stream->base.request;
    apr_uint64_t random[2] = { rp_random_next(), rp_random_next() };
    char *key = apr_palloc(stream->base.pool, (apr_size_t)apr_base64_encode_len(sizeof(random)));

    request->method = "GET";
    request->framing = RP_BODY_NONE;
    rp_fields_add_known(&request->fields, RP_FIELD_CONNECTION, "Connection", "Upgrade");
    rp_fields_add(&request->fields, "Upgrade", stream->protocol);
    if (strcasecmp(stream->protocol, "websocket") == 0
        && !rp_fields_find(&request->fields, "Sec-WebSocket-Key")) {
        apr_base64_encode_binary(key, (const unsigned char *)random, sizeof(random));
        rp_fields_add(&request->fields, "Sec-WebSocket-Key", key);
    }
}

/* Zero: something else is expected, which nobody has promised. */
static int take_expect(rp_h2_stream *stream)
{
    const rp_fields *fields = &stream->base.request.fields;
    const rp_field *expect = rp_fields_get(fields, RP_FIELD_EXPECT, 0);

    for (; expect; expect = rp_fields_get(fields, RP_FIELD_EXPECT,
                                          (int)(expect - fields->items) + 1)) {
        if (*expect->value && strcasecmp(expect->value, "100-continue") != 0) {
            return 0;
        }
        stream->expects_100 = *expect->value && !stream->in_ended;
    }
    return 1;
}

/* The version that a log shows. */
static void name_request(rp_engine_request *q)
{
    q->the_request = apr_pstrcat(q->pool, q->request.method, " ", q->request.target, " HTTP/2.0",
                                 NULL);
}

int rp_h2_take_head(rp_h2_stream *stream)
{
    rp_engine_request *q = &stream->base;
    rp_request *request = &q->request;
    int misdirected, found, status;

    if (stream->malformed || !request->method
        || !rp_is_token(request->method, strlen(request->method))
        || (request->target && !is_target(request->target))) {
        return RP_H2_MALFORMED_HEAD;
    }
    if (!request->target) {
        request->target = "";           /* plain CONNECT */
    }
    name_request(q);
    end_cookie(stream);
    if (stream->too_large) {
        return HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE;
    }
    request->minor_version = 1;
    if (!take_authority(request) || !take_framing(stream)) {
        return RP_H2_MALFORMED_HEAD;
    }
    if (strcmp(request->method, "CONNECT") == 0) {
        if (!stream->protocol) {
            return HTTP_METHOD_NOT_ALLOWED;
        }
        ask_for_upgrade(stream);
    }
    else if (strcmp(request->method, "TRACE") == 0) {
        return HTTP_METHOD_NOT_ALLOWED;
    }
    found = rp_engine_choose_host(q, &misdirected);
    /* The connection's own goes with the next stream that asks for another host. */
    q->hostname = q->hostname ? apr_pstrdup(q->pool, q->hostname) : NULL;
    if (!found) {
        return misdirected ? HTTP_MISDIRECTED_REQUEST : HTTP_BAD_REQUEST;
    }
    if (q->host->no_http2) {
        return HTTP_MISDIRECTED_REQUEST;
    }
    status = rp_engine_exceeded_limit(q);
    if (status != 0) {
        return status;
    }
    if (!take_expect(stream)) {
        return HTTP_EXPECTATION_FAILED;
    }
    if (request->target[0] != '/') {
        return HTTP_BAD_REQUEST;
    }
    status = rp_engine_find_route(q, &found);
    if (status != 0) {
        return status;
    }
    if (!found) {
        return RP_H2_HEAD_FOR_HTTP1;
    }
    if (stream->protocol && !rp_upgrade_allows(q->route->settings.upgrade, stream->protocol)) {
        return HTTP_NOT_IMPLEMENTED;    /* RFC 9220 section 3 */
    }
    if (!rp_engine_allows_body(q)) {
        return HTTP_REQUEST_ENTITY_TOO_LARGE;
    }
    rp_engine_fill_request(q);
    return rp_engine_prepare_exchange(q, &rp_h2_client_ops) ? 0 : HTTP_BAD_GATEWAY;
}

/* ---- responses ------------------------------------------------------------------------------- */

static nghttp2_nv pair(const char *name, apr_size_t name_len, const char *value,
                       apr_size_t value_len)
{
    /* Both stay until the stream is closed. */
    return (nghttp2_nv){ (uint8_t *)name, (uint8_t *)value, name_len, value_len,
                         NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE };
}

/* Names are in lower case (RFC 9113 section 8.2.1); status 0: they are trailers. Returns how many
 * there are. */
static size_t pairs_of(rp_h2_stream *stream, int status, const rp_fields *fields,
                       nghttp2_nv **pairs)
{
    apr_pool_t *pool = stream->base.pool;
    nghttp2_nv *nv = apr_palloc(pool, (apr_size_t)(fields->count + 1) * sizeof(*nv));
    size_t count = 0;

    *pairs = nv;
    if (status) {
        nv[count++] = pair(":status", 7, apr_itoa(pool, status), 3);
        stream->wire_out += FIELD_OVERHEAD / 2;
    }
    for (int i = 0; i < fields->count; i++) {
        const rp_field *field = &fields->items[i];
        char *name = apr_palloc(pool, field->name_len);

        for (apr_uint32_t k = 0; k < field->name_len; k++) {
            name[k] = (char)apr_tolower(field->name[k]);
        }
        nv[count++] = pair(name, field->name_len, field->value, field->value_len);
        stream->wire_out += (apr_int64_t)field->name_len + field->value_len + 2;
    }
    return count;
}

static int are_sendable(const rp_fields *fields)
{
    for (int i = 0; i < fields->count; i++) {
        const rp_field *field = &fields->items[i];

        if (!rp_is_token(field->name, field->name_len)
            || !rp_is_field_value(field->value, field->value_len)) {
            return 0;
        }
    }
    return 1;
}

/* For the head of a response; 0: it cannot be sent. */
static size_t head_pairs(rp_h2_stream *stream, int status, const rp_fields *fields,
                         nghttp2_nv **pairs)
{
    if (!are_sendable(fields)) {
        return 0;
    }
    rp_h2_make_ready(stream->session);
    return pairs_of(stream, status, fields, pairs);
}

int rp_h2_submit_head(rp_h2_stream *stream, int status, const rp_fields *fields, int has_body)
{
    nghttp2_nv *pairs;
    size_t count = head_pairs(stream, status, fields, &pairs);

    return count > 0
        && nghttp2_submit_response(stream->session->ng, stream->id, pairs, count,
                                   has_body ? &rp_h2_body : NULL) == 0;
}

int rp_h2_submit_interim(rp_h2_stream *stream, int status, const rp_fields *fields)
{
    nghttp2_nv *pairs;
    size_t count = head_pairs(stream, status, fields, &pairs);

    return count > 0
        && nghttp2_submit_headers(stream->session->ng, NGHTTP2_FLAG_NONE, stream->id, NULL, pairs,
                                  count, NULL) == 0;
}

int rp_h2_submit_trailers(rp_h2_stream *stream, const rp_fields *fields)
{
    nghttp2_nv *pairs;
    size_t count = pairs_of(stream, 0, fields, &pairs);

    return nghttp2_submit_trailer(stream->session->ng, stream->id, pairs, count) == 0;
}

/* ---- answers of our own ---------------------------------------------------------------------- */

void rp_h2_answer(rp_h2_stream *stream, int status)
{
    rp_engine_request *q = &stream->base;
    rp_fields replaced = q->response_fields;
    rp_fields *fields = &q->response_fields;
    const char *line = ap_get_status_line(status);
    char *page = apr_psprintf(q->pool, "<!DOCTYPE html>\n<html><head>\n<title>%s</title>\n"
                              "</head><body>\n<h1>%s</h1>\n</body></html>\n", line,
                              strlen(line) > 4 ? line + 4 : line);
    apr_size_t len = strlen(page);
    int has_body = !q->request.method || strcmp(q->request.method, "HEAD") != 0;
    const char *retry_after;

    rp_fields_init(fields, q->pool, OWN_FIELDS);
    rp_fields_add_known(fields, RP_FIELD_CONTENT_TYPE, "Content-Type",
                        "text/html; charset=iso-8859-1");
    rp_fields_add_known(fields, RP_FIELD_CONTENT_LENGTH, "Content-Length",
                        apr_off_t_toa(q->pool, (apr_off_t)len));
    if (q->x.outcome == RP_OUTCOME_REPLACED) {
        rp_error_override_keep(&replaced, fields);
    }
    if (status == HTTP_METHOD_NOT_ALLOWED) {
        rp_fields_add(fields, "Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
    if (q->x.outcome == RP_OUTCOME_ERROR) {
        rp_fields_add_known(fields, RP_FIELD_PROXY_STATUS, "Proxy-Status",
                            rp_reason_proxy_status(q->pool, q->x.reason, q->x.settings->via));
        retry_after = rp_reason_retry_after(q->x.reason);
        if (retry_after) {
            rp_fields_add(fields, "Retry-After", retry_after);
        }
    }
    if (q->route && q->route->header_rules) {
        rp_header_rules_always(q->route->header_rules, fields);
    }
    rp_engine_add_date_and_server(q, fields);
    q->response.status = status;
    q->response.reason = "";
    q->head_sent = 1;
    if (!rp_h2_submit_head(stream, status, fields, has_body)) {
        rp_h2_reset(stream, NGHTTP2_INTERNAL_ERROR);
        return;
    }
    if (has_body) {
        stream->pieces[stream->piece_count++] = (rp_h2_piece){ NULL, NULL, page, len };
        q->sent_body = (apr_int64_t)len;
    }
    stream->out_ended = 1;
}
