/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include "rproxy/http/rp_http_private.h"

enum state {
    SIZE_FIRST,                         /* first digit of a size line, RFC 9112 section 7.1 */
    SIZE_DIGITS,
    SIZE_BLANKS,                        /* between size and ';': nothing else may follow them */
    EXTENSION,
    QUOTED,                             /* in a quoted-string of an extension */
    QUOTED_PAIR,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_LINE,                       /* at the beginning of a line of the trailer section */
    TRAILER_REST,                       /* in such a line */
    LAST_LF,
    COMPLETE,
    FAILED
};

#define SIZE_MOST APR_INT64_MAX

void rp_chunked_init(rp_chunked *chunked, apr_pool_t *pool)
{
    memset(chunked, 0, sizeof(*chunked));
    chunked->pool = pool;
    chunked->state = SIZE_FIRST;
    rp_buffer_init(&chunked->trailer_bytes, pool, 0);
    rp_fields_init(&chunked->trailers, pool, 0);
}

static void fail(rp_chunked *chunked, rp_http_error error)
{
    chunked->error = error;
    chunked->state = FAILED;
}

/** The state after one byte of a size line; FAILED if it may not stand there. */
static enum state next_in_size_line(rp_chunked *chunked, char byte)
{
    unsigned digit;

    switch (chunked->state) {
    case SIZE_FIRST:
    case SIZE_DIGITS:
        digit = rp_hex(byte);
        if (digit < 16 && chunked->left <= (apr_uint64_t)SIZE_MOST >> 4) {
            chunked->left = chunked->left << 4 | digit;
            return SIZE_DIGITS;
        }
        if (chunked->state == SIZE_FIRST) {
            return FAILED;
        }
        if (byte == '\r') {
            return SIZE_LF;
        }
        /* fall through */
    case SIZE_BLANKS:
        return byte == ';' ? EXTENSION : rp_is_blank(byte) ? SIZE_BLANKS : FAILED;
    case EXTENSION:
        if (byte == '\r') {
            return SIZE_LF;
        }
        return byte == '"' ? QUOTED : rp_byte_is(byte, RP_BYTE_VALUE) ? EXTENSION : FAILED;
    case QUOTED:
        if (byte == '"' || byte == '\\') {
            return byte == '"' ? EXTENSION : QUOTED_PAIR;
        }
        return rp_byte_is(byte, RP_BYTE_VALUE) ? QUOTED : FAILED;
    case QUOTED_PAIR:
        return rp_byte_is(byte, RP_BYTE_VALUE) ? QUOTED : FAILED;
    default:
        return byte != '\n' ? FAILED : chunked->left > 0 ? DATA : TRAILER_LINE;
    }
}

static char *size_line(rp_chunked *chunked, char *p, const char *end)
{
    while (p < end && chunked->state < DATA) {
        char byte = *p++;
        enum state next;

        if (++chunked->line > RP_HTTP_CHUNK_LINE_MAX) {
            fail(chunked, RP_HTTP_CHUNK_LINE_TOO_LONG);
            return p;
        }
        next = next_in_size_line(chunked, byte);
        if (next == FAILED) {
            fail(chunked, byte == '\n' || chunked->state == SIZE_LF ? RP_HTTP_BARE_CR_OR_LF
                                                                    : RP_HTTP_BAD_CHUNK_SIZE);
            return p;
        }
        if (next == DATA) {
            chunked->line = 0;
        }
        chunked->state = (int)next;
    }
    return p;
}

/* ---- trailer section (RFC 9112 section 7.1.2) ------------------------------------------------ */

/** Fields that mean nothing, or something dangerous, when they come after the content (RFC 9110
 * section 6.5.1): routing, authentication, conditions and controls of requests and responses,
 * format of the content. In lower case; those that begin with X-Forwarded- come to them. */
static const char *const dropped_names[] = {
    "age", "authorization", "cache-control", "connection", "content-encoding", "content-location",
    "content-range", "content-type", "cookie", "date", "expect", "expires", "forwarded",
    "http2-settings", "if-match", "if-modified-since", "if-none-match", "if-range",
    "if-unmodified-since", "keep-alive", "location", "max-forwards", "proxy", "proxy-authenticate",
    "proxy-authorization", "proxy-connection", "range", "retry-after", "set-cookie", "te",
    "trailer", "upgrade", "vary", "www-authenticate", "x-accel-buffering",
};

static int is_dropped(const rp_field *field)
{
    static const char forwarded[] = "x-forwarded-";

    if (field->name_len >= sizeof(forwarded) - 1
        && rp_equals_lower(field->name, forwarded, sizeof(forwarded) - 1)) {
        return 1;
    }
    for (apr_size_t i = 0; i < sizeof(dropped_names) / sizeof(dropped_names[0]); i++) {
        const char *name = dropped_names[i];

        if (strlen(name) == field->name_len
            && rp_equals_lower(field->name, name, field->name_len)) {
            return 1;
        }
    }
    return 0;
}

static void finish_trailers(rp_chunked *chunked)
{
    rp_buffer *bytes = &chunked->trailer_bytes;
    rp_fields *trailers = &chunked->trailers;
    rp_http_error error;
    int kept = 0;

    chunked->state = COMPLETE;
    if (bytes->len == 0) {
        return;
    }
    rp_buffer_add(bytes, "\r\n", 2);
    error = rp_fields_parse(trailers, bytes->data, bytes->data + bytes->len, RP_HTTP_FIELDS_MAX);
    for (int i = 0; error == RP_HTTP_OK && i < trailers->count; i++) {
        const rp_field *field = &trailers->items[i];

        if (rp_field_is_framing(field->id)) {
            error = RP_HTTP_BAD_TRAILER;
        }
        else if (!is_dropped(field)) {
            trailers->items[kept++] = *field;
        }
    }
    trailers->count = error == RP_HTTP_OK ? kept : 0;
    if (error == RP_HTTP_TOO_MANY_FIELDS || error == RP_HTTP_BARE_CR_OR_LF) {
        fail(chunked, error);
    }
    else if (error != RP_HTTP_OK) {
        fail(chunked, RP_HTTP_BAD_TRAILER);
    }
}

/** Collects the lines up to the empty one, which most often comes at once. */
static char *trailer_section(rp_chunked *chunked, char *p, const char *end)
{
    rp_buffer *bytes = &chunked->trailer_bytes;

    while (p < end && chunked->state < COMPLETE) {
        const char *lf;
        apr_size_t len;

        if (chunked->state == LAST_LF) {
            if (*p++ == '\n') {
                finish_trailers(chunked);
            }
            else {
                fail(chunked, RP_HTTP_BARE_CR_OR_LF);
            }
            break;
        }
        if (chunked->state == TRAILER_LINE && *p == '\r') {
            chunked->state = LAST_LF;
            p++;
            continue;
        }
        lf = memchr(p, '\n', (apr_size_t)(end - p));
        len = (apr_size_t)((lf != NULL ? lf + 1 : end) - p);
        if (len > RP_HTTP_TRAILERS_MAX - bytes->len) {
            fail(chunked, RP_HTTP_TRAILERS_TOO_LARGE);
            break;
        }
        rp_buffer_add(bytes, p, len);
        p += len;
        chunked->state = lf != NULL ? TRAILER_LINE : TRAILER_REST;
        if (lf != NULL && (bytes->len < 2 || bytes->data[bytes->len - 2] != '\r')) {
            fail(chunked, RP_HTTP_BARE_CR_OR_LF);
        }
    }
    return p;
}

/* ---- decoder --------------------------------------------------------------------------------- */

static char *chunk_data(rp_chunked *chunked, char *p, const char *end, char **out)
{
    apr_size_t available = (apr_size_t)(end - p);
    apr_size_t len = chunked->left < available ? (apr_size_t)chunked->left : available;

    if (*out != p) {
        memmove(*out, p, len);
    }
    *out += len;
    chunked->left -= len;
    if (chunked->left == 0) {
        chunked->state = DATA_CR;
    }
    return p + len;
}

rp_parse rp_chunked_decode(rp_chunked *chunked, char *buf, apr_size_t len,
                           apr_size_t *consumed, apr_size_t *decoded)
{
    const char *end = buf + len;
    char *p = buf, *out = buf;

    while (p < end && chunked->state < COMPLETE) {
        if (chunked->state < DATA) {
            p = size_line(chunked, p, end);
        }
        else if (chunked->state == DATA) {
            p = chunk_data(chunked, p, end, &out);
        }
        else if (chunked->state >= TRAILER_LINE) {
            p = trailer_section(chunked, p, end);
        }
        else if (*p++ != (chunked->state == DATA_CR ? '\r' : '\n')) {
            fail(chunked, RP_HTTP_BAD_CHUNK_END);
        }
        else {
            chunked->state = chunked->state == DATA_CR ? DATA_LF : SIZE_FIRST;
        }
    }
    *consumed = (apr_size_t)(p - buf);
    *decoded = (apr_size_t)(out - buf);
    if (chunked->state >= COMPLETE) {
        return chunked->state == COMPLETE ? RP_PARSE_DONE : RP_PARSE_FAILED;
    }
    return RP_PARSE_MORE;
}

/* ---- encoder --------------------------------------------------------------------------------- */

apr_size_t rp_chunk_head(char out[RP_CHUNK_HEAD_MAX], apr_size_t size)
{
    static const char digits[] = "0123456789abcdef";
    apr_size_t len = 1;

    for (apr_size_t rest = size >> 4; rest != 0; rest >>= 4) {
        len++;
    }
    for (apr_size_t i = len; i > 0; i--) {
        out[i - 1] = digits[size & 15];
        size >>= 4;
    }
    out[len] = '\r';
    out[len + 1] = '\n';
    return len + 2;
}

rp_http_error rp_chunk_last(rp_buffer *out, const rp_fields *trailers)
{
    apr_size_t before = out->len;
    rp_http_error error;

    if (trailers == NULL || trailers->count == 0) {
        rp_buffer_add(out, "0\r\n\r\n", 5);
        return RP_HTTP_OK;
    }
    for (int i = 0; i < trailers->count; i++) {
        if (rp_field_is_framing(trailers->items[i].id)) {
            return RP_HTTP_BAD_TRAILER;
        }
    }
    rp_buffer_add(out, "0\r\n", 3);
    error = rp_buffer_add_fields(out, trailers);
    if (error != RP_HTTP_OK) {
        out->len = before;
    }
    return error;
}
