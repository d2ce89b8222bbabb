/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Response heads: the input is what an upstream sent. */

#include "t/fuzz/fuzz_fields.h"

typedef struct outcome {
    rp_parse parse;
    rp_http_error error;
    apr_size_t head_len;
    rp_response response;
} outcome;

/** Parses step bytes more at a time, each time in a block of its own: the buffer may move. */
static outcome parse(const void *data, size_t size, size_t step, const char *method)
{
    outcome result = { .parse = RP_PARSE_MORE };
    apr_size_t scanned = 0;
    size_t have = 0;

    do {
        have = size - have > step ? have + step : size;
        result.parse = rp_http_parse_response(FUZZ_POOL, fuzz_copy(data, have), have, method,
                                              &scanned, &result.head_len, &result.response,
                                              &result.error);
    } while (result.parse == RP_PARSE_MORE && have < size);
    return result;
}

static void same_response(const rp_response *a, const rp_response *b)
{
    FUZZ_ASSERT(a->status == b->status);
    FUZZ_ASSERT(strcmp(a->reason, b->reason) == 0);
    FUZZ_ASSERT(a->framing == b->framing);
    FUZZ_ASSERT(a->content_length == b->content_length);
    fuzz_same_fields(&a->fields, &b->fields);
}

static void check(const uint8_t *data, size_t size, const char *method)
{
    outcome whole = parse(data, size, size, method);
    outcome pieces = parse(data, size, 1 + size / FUZZ_PIECES, method);
    const rp_response *response = &whole.response;
    outcome again;
    rp_buffer out;

    FUZZ_ASSERT(whole.parse == pieces.parse && whole.error == pieces.error);
    FUZZ_ASSERT((whole.parse == RP_PARSE_FAILED) == (whole.error != RP_HTTP_OK));
    if (whole.parse != RP_PARSE_DONE) {
        return;
    }
    FUZZ_ASSERT(whole.head_len == pieces.head_len && whole.head_len <= size);
    same_response(response, &pieces.response);
    FUZZ_ASSERT(response->keep_alive == pieces.response.keep_alive);
    FUZZ_ASSERT(response->status >= 100 && response->status <= 599);
    FUZZ_ASSERT(response->content_length >= -1);
    FUZZ_ASSERT(response->framing != RP_BODY_LENGTH || response->content_length >= 0);
    FUZZ_ASSERT(response->framing != RP_BODY_CLOSE || !response->keep_alive);
    fuzz_check_fields(&response->fields);

    rp_buffer_init(&out, FUZZ_POOL, 0);
    FUZZ_ASSERT(rp_http_write_response(&out, response->status, response->reason, &response->fields)
                == RP_HTTP_OK);
    again = parse(out.data, out.len, out.len, method);
    FUZZ_ASSERT(again.parse == RP_PARSE_DONE && again.head_len == out.len);
    same_response(response, &again.response);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < RP_HTTP_HEAD_MAX / 2) {  /* so that what is written again has room */
        check(data, size, "GET");
        check(data, size, "HEAD");
        check(data, size, "CONNECT");
        fuzz_free();
    }
    return 0;
}
