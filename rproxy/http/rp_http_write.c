/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include "rproxy/http/rp_http_private.h"

/* ---- buffer ---------------------------------------------------------------------------------- */

#define FIRST_CAPACITY 256

void rp_buffer_init(rp_buffer *buffer, apr_pool_t *pool, apr_size_t capacity)
{
    buffer->pool = pool;
    buffer->data = capacity > 0 ? apr_palloc(pool, capacity) : NULL;
    buffer->len = 0;
    buffer->capacity = capacity;
}

void rp_buffer_reserve(rp_buffer *buffer, apr_size_t more)
{
    apr_size_t needed = buffer->len + more;
    apr_size_t capacity = 2 * buffer->capacity;
    char *data;

    if (needed <= buffer->capacity) {
        return;
    }
    if (capacity < FIRST_CAPACITY) {
        capacity = FIRST_CAPACITY;
    }
    if (capacity < needed) {
        capacity = needed;
    }
    data = apr_palloc(buffer->pool, capacity);
    if (buffer->len > 0) {
        memcpy(data, buffer->data, buffer->len);
    }
    buffer->data = data;
    buffer->capacity = capacity;
}

void rp_buffer_add(rp_buffer *buffer, const char *bytes, apr_size_t len)
{
    if (len > 0) {
        rp_buffer_reserve(buffer, len);
        memmove(buffer->data + buffer->len, bytes, len);
        buffer->len += len;
    }
}

/* ---- heads ----------------------------------------------------------------------------------- */

/** Appends without a check for room: the callers have reserved all of it. */
static char *put(char *p, const char *bytes, apr_size_t len)
{
    memcpy(p, bytes, len);
    return p + len;
}

#define PUT_TEXT(p, literal) put((p), literal, sizeof(literal) - 1)

static apr_size_t fields_size(const rp_fields *fields)
{
    apr_size_t size = 2;                /* of the empty line */

    for (int i = 0; i < fields->count; i++) {
        size += (apr_size_t)fields->items[i].name_len + fields->items[i].value_len + 4;
    }
    return size;
}

rp_http_error rp_buffer_add_fields(rp_buffer *out, const rp_fields *fields)
{
    char *p;

    rp_buffer_reserve(out, fields_size(fields));
    p = out->data + out->len;
    for (int i = 0; i < fields->count; i++) {
        const rp_field *field = &fields->items[i];

        if (!rp_is_token(field->name, field->name_len)) {
            return RP_HTTP_BAD_FIELD_NAME;
        }
        if (!rp_is_field_value(field->value, field->value_len)) {
            return RP_HTTP_BAD_FIELD_VALUE;
        }
        p = put(p, field->name, field->name_len);
        p = PUT_TEXT(p, ": ");
        p = put(p, field->value, field->value_len);
        p = PUT_TEXT(p, "\r\n");
    }
    p = PUT_TEXT(p, "\r\n");
    out->len = (apr_size_t)(p - out->data);
    return RP_HTTP_OK;
}

rp_http_error rp_http_write_request(rp_buffer *out, const char *method, const char *target,
                                    const rp_fields *fields)
{
    apr_size_t method_len = strlen(method), target_len = strlen(target), before = out->len;
    rp_http_error error;
    char *p;

    if (!rp_is_token(method, method_len)) {
        return RP_HTTP_BAD_METHOD;
    }
    if (target_len == 0
        || rp_scan_class(target, target + target_len, RP_BYTE_VISIBLE) != target + target_len) {
        return RP_HTTP_BAD_TARGET;
    }
    rp_buffer_reserve(out, method_len + target_len + sizeof("  HTTP/1.1\r\n")
                               + fields_size(fields));
    p = put(out->data + out->len, method, method_len);
    p = PUT_TEXT(p, " ");
    p = put(p, target, target_len);
    p = PUT_TEXT(p, " HTTP/1.1\r\n");
    out->len = (apr_size_t)(p - out->data);
    error = rp_buffer_add_fields(out, fields);
    if (error != RP_HTTP_OK) {
        out->len = before;
    }
    return error;
}

rp_http_error rp_http_write_response(rp_buffer *out, int status, const char *reason,
                                     const rp_fields *fields)
{
    apr_size_t reason_len = reason != NULL ? strlen(reason) : 0, before = out->len;
    char digits[3];
    rp_http_error error;
    char *p;

    if (status < 100 || status > 599) {
        return RP_HTTP_BAD_STATUS;
    }
    if (reason_len > 0 && !rp_is_field_value(reason, reason_len)) {
        return RP_HTTP_BAD_REASON;
    }
    digits[0] = (char)('0' + status / 100);
    digits[1] = (char)('0' + status / 10 % 10);
    digits[2] = (char)('0' + status % 10);
    rp_buffer_reserve(out, sizeof("HTTP/1.1 200 \r\n") + reason_len + fields_size(fields));
    p = PUT_TEXT(out->data + out->len, "HTTP/1.1 ");
    p = put(p, digits, sizeof(digits));
    p = PUT_TEXT(p, " ");
    if (reason_len > 0) {
        p = put(p, reason, reason_len);
    }
    p = PUT_TEXT(p, "\r\n");
    out->len = (apr_size_t)(p - out->data);
    error = rp_buffer_add_fields(out, fields);
    if (error != RP_HTTP_OK) {
        out->len = before;
    }
    return error;
}
