/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Chunked coding: the input is a coded body and what follows it. */

#include "t/fuzz/fuzz_fields.h"

typedef struct decoding {
    rp_parse parse;
    rp_chunked chunked;
    size_t consumed;
    char *data;
    size_t len;
} decoding;

/** Decodes in pieces of step bytes, the first one of first bytes. */
static void decode(const void *coded, size_t size, size_t first, size_t step, decoding *result)
{
    const char *bytes = coded;
    size_t at = 0, piece = first;

    memset(result, 0, sizeof(*result));
    result->parse = RP_PARSE_MORE;
    result->data = apr_palloc(FUZZ_POOL, size);
    rp_chunked_init(&result->chunked, FUZZ_POOL);
    while (result->parse == RP_PARSE_MORE && at < size) {
        size_t len = size - at > piece ? piece : size - at;
        char *buf = fuzz_copy(bytes + at, len);
        apr_size_t consumed, decoded;

        result->parse = rp_chunked_decode(&result->chunked, buf, len, &consumed, &decoded);
        FUZZ_ASSERT(decoded <= consumed && consumed <= len);
        FUZZ_ASSERT(result->parse != RP_PARSE_MORE || consumed == len);
        FUZZ_ASSERT((result->parse == RP_PARSE_FAILED) == (result->chunked.error != RP_HTTP_OK));
        if (decoded > 0) {
            memcpy(result->data + result->len, buf, decoded);
        }
        result->len += decoded;
        result->consumed += consumed;
        at += len;
        piece = step;
    }
}

static void same_decoding(const decoding *a, const decoding *b)
{
    FUZZ_ASSERT(a->parse == b->parse && a->chunked.error == b->chunked.error);
    FUZZ_ASSERT(a->len == b->len && memcmp(a->data, b->data, a->len) == 0);
    if (a->parse == RP_PARSE_DONE) {
        fuzz_same_fields(&a->chunked.trailers, &b->chunked.trailers);
    }
}

/** Encodes again, in chunks of at most size bytes. */
static void encode(const decoding *body, size_t size, rp_buffer *out)
{
    for (size_t at = 0; at < body->len; at += size) {
        size_t len = body->len - at > size ? size : body->len - at;
        char head[RP_CHUNK_HEAD_MAX];

        rp_buffer_add(out, head, rp_chunk_head(head, len));
        rp_buffer_add(out, body->data + at, len);
        rp_buffer_add(out, "\r\n", 2);
    }
    FUZZ_ASSERT(rp_chunk_last(out, &body->chunked.trailers) == RP_HTTP_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    decoding whole, other;
    rp_buffer out;

    decode(data, size, size, size, &whole);
    decode(data, size, 1, 1, &other);
    same_decoding(&whole, &other);
    if (whole.parse == RP_PARSE_DONE) {
        FUZZ_ASSERT(other.consumed == whole.consumed);
    }
    for (size_t cut = 1; cut < size; cut += 1 + size / FUZZ_PIECES) {
        decode(data, size, cut, size, &other);
        same_decoding(&whole, &other);
    }
    if (whole.parse == RP_PARSE_DONE) {
        fuzz_check_fields(&whole.chunked.trailers);
        rp_buffer_init(&out, FUZZ_POOL, 0);
        encode(&whole, 17, &out);
        decode(out.data, out.len, out.len, 1, &other);
        same_decoding(&whole, &other);
        FUZZ_ASSERT(other.consumed == out.len);
    }
    fuzz_free();
    return 0;
}
