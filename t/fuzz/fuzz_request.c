/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Request heads: the input is what a client sent. */

#include "t/fuzz/fuzz_fields.h"

typedef struct outcome {
    rp_parse parse;
    rp_http_error error;
    apr_size_t head_len;
    rp_request request;
} outcome;

typedef struct limits {
    apr_size_t line;
    int fields;
} limits;

/** Parses step bytes more at a time, each time in a block of its own: the buffer may move. */
static outcome parse(const void *data, size_t size, size_t step, limits limit)
{
    outcome result = { .parse = RP_PARSE_MORE };
    apr_size_t scanned = 0;
    size_t have = 0;

    do {
        have = size - have > step ? have + step : size;
        result.parse = rp_http_parse_request(FUZZ_POOL, fuzz_copy(data, have), have, limit.line,
                                             limit.fields, &scanned, &result.head_len,
                                             &result.request, &result.error);
    } while (result.parse == RP_PARSE_MORE && have < size);
    return result;
}

static void same_request(const rp_request *a, const rp_request *b)
{
    FUZZ_ASSERT(strcmp(a->method, b->method) == 0);
    FUZZ_ASSERT(strcmp(a->target, b->target) == 0);
    FUZZ_ASSERT(strcmp(a->authority, b->authority) == 0);
    FUZZ_ASSERT(a->minor_version == b->minor_version);
    FUZZ_ASSERT(a->framing == b->framing);
    FUZZ_ASSERT(a->content_length == b->content_length);
    fuzz_same_fields(&a->fields, &b->fields);
}

static void check_request(const rp_request *request)
{
    rp_framing framing;
    apr_int64_t length;

    FUZZ_ASSERT(rp_is_token(request->method, strlen(request->method)));
    FUZZ_ASSERT(request->authority[0] == '\0' || rp_uri_is_authority(request->authority));
    FUZZ_ASSERT(request->framing != RP_BODY_CLOSE);
    FUZZ_ASSERT((request->framing == RP_BODY_LENGTH) == (request->content_length >= 0));
    FUZZ_ASSERT(rp_http_request_framing(&request->fields, request->minor_version, &framing,
                                        &length) == RP_HTTP_OK);
    FUZZ_ASSERT(framing == request->framing && length == request->content_length);
    fuzz_check_fields(&request->fields);
}

static void check(const uint8_t *data, size_t size, limits limit)
{
    outcome whole = parse(data, size, size, limit);
    outcome pieces = parse(data, size, 1 + size / FUZZ_PIECES, limit);
    const rp_request *request = &whole.request;
    outcome again;
    rp_buffer out;

    FUZZ_ASSERT(whole.parse == pieces.parse && whole.error == pieces.error);
    FUZZ_ASSERT((whole.parse == RP_PARSE_FAILED) == (whole.error != RP_HTTP_OK));
    if (whole.parse != RP_PARSE_DONE) {
        return;
    }
    FUZZ_ASSERT(whole.head_len == pieces.head_len && whole.head_len <= size);
    same_request(request, &pieces.request);
    check_request(request);

    rp_buffer_init(&out, FUZZ_POOL, 0);
    FUZZ_ASSERT(rp_http_write_request(&out, request->method, request->target, &request->fields)
                == RP_HTTP_OK);
    if (request->minor_version == 1) {  /* one of HTTP/1.0 may lack the Host of HTTP/1.1 */
        again = parse(out.data, out.len, out.len, limit);
        FUZZ_ASSERT(again.parse == RP_PARSE_DONE && again.head_len == out.len);
        same_request(request, &again.request);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const limits none = { 0, 0 }, some = { 40, 3 };

    if (size < RP_HTTP_HEAD_MAX / 4) {  /* so that what is written again has room */
        check(data, size, none);
        check(data, size, some);
        fuzz_free();
    }
    return 0;
}
