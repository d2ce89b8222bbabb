/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Chunked coding: what decodes to what, what is refused, trailers, and the encoder. Every case is
 * decoded as a whole and cut in two at each place; the results must be the same. */

#include "rproxy/http/rp_http.h"
#include "t/unit/tap.h"

static apr_pool_t *pool;

typedef struct decoding {
    rp_parse parse;
    rp_http_error error;
    apr_size_t consumed;
    apr_size_t len;
    char data[256];
    char trailers[256];
} decoding;

/** Decodes the piece; the bytes are in a block of their own, so that a sanitizer sees overruns. */
static void decode_piece(rp_chunked *chunked, const char *text, apr_size_t len, decoding *result)
{
    apr_size_t consumed, decoded;
    char *buf = malloc(len > 0 ? len : 1);

    memcpy(buf, text, len);
    result->parse = rp_chunked_decode(chunked, buf, len, &consumed, &decoded);
    if (result->len + decoded < sizeof(result->data)) {
        memcpy(result->data + result->len, buf, decoded);
    }
    result->len += decoded;
    result->consumed += consumed;
    free(buf);
}

static void decode(const char *text, apr_size_t len, apr_size_t cut, decoding *result)
{
    rp_chunked chunked;

    memset(result, 0, sizeof(*result));
    rp_chunked_init(&chunked, pool);
    decode_piece(&chunked, text, cut, result);
    if (result->parse == RP_PARSE_MORE && cut < len) {
        decode_piece(&chunked, text + cut, len - cut, result);
    }
    result->error = chunked.error;
    for (int i = 0; i < chunked.trailers.count; i++) {
        const rp_field *field = &chunked.trailers.items[i];
        apr_size_t used = strlen(result->trailers);

        snprintf(result->trailers + used, sizeof(result->trailers) - used, "%s=%s;", field->name,
                 field->value);
    }
}

static void check(const char *name, const char *text, apr_size_t len, rp_http_error error,
                  const char *data, const char *trailers)
{
    rp_parse parse = error == RP_HTTP_OK ? RP_PARSE_DONE : RP_PARSE_FAILED;
    decoding whole;
    int same = 1;

    decode(text, len, len, &whole);
    ok(whole.parse == parse && whole.error == error, "%s: %s (got: %s)", name,
       rp_http_error_text(error), rp_http_error_text(whole.error));
    is_text(whole.data, data, "  data");
    is_text(whole.trailers, trailers, "  trailers");
    for (apr_size_t cut = 0; cut < len; cut++) {
        decoding cut_in_two;

        decode(text, len, cut, &cut_in_two);
        same = same && memcmp(&cut_in_two, &whole, sizeof(whole)) == 0;
    }
    ok(same, "  the same wherever it is cut");
}

#define GOOD(name, text, data, trailers) \
    check(name, text, sizeof(text) - 1, RP_HTTP_OK, data, trailers)
#define BAD(name, text, error, data) check(name, text, sizeof(text) - 1, error, data, "")

static void test_good(void)
{
    GOOD("empty", "0\r\n\r\n", "", "");
    GOOD("zeros", "0000\r\n\r\n", "", "");
    GOOD("two chunks", "5\r\nHello\r\n6\r\n world\r\n0\r\n\r\n", "Hello world", "");
    GOOD("hex digits", "a\r\n0123456789\r\n00B\r\n0123456789a\r\n0\r\n\r\n",
         "01234567890123456789a", "");
    GOOD("CRLF in the data", "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", "");
    GOOD("extensions", "1;a\r\nx\r\n1 ;\ta = b;c=\"d\"\r\ny\r\n0;z\r\n\r\n", "xy", "");
    GOOD("quoted extension", "1;a=\"b;\\\"\\\\;c\"\r\nx\r\n0\r\n\r\n", "x", "");
    GOOD("trailers", "1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n", "x", "A=b;C=;");
    GOOD("trailers that are dropped",
         "0\r\nA: b\r\nCookie: c\r\nSet-Cookie: c\r\nX-Forwarded-Anything: x\r\nConnection: D\r\n"
         "D: e\r\nAuthorization: f\r\nIf-Match: g\r\nContent-Type: h\r\n\r\n",
         "", "A=b;D=e;");
}

static void test_rest(void)
{
    static const char text[] = "1\r\nx\r\n0\r\n\r\nHTTP/1.1";
    char buf[sizeof(text)];
    rp_chunked chunked;
    apr_size_t consumed, decoded;

    memcpy(buf, text, sizeof(text));
    rp_chunked_init(&chunked, pool);
    is_number(rp_chunked_decode(&chunked, buf, sizeof(text) - 1, &consumed, &decoded),
              RP_PARSE_DONE, "what follows the body");
    is_number(consumed, sizeof(text) - 1 - 8, "is not consumed");
    is_number(decoded, 1, "nor decoded");
    is_number(rp_chunked_decode(&chunked, buf, 8, &consumed, &decoded), RP_PARSE_DONE, "nor later");
    is_number(consumed, 0, "not a byte");
}

static void test_bad_sizes(void)
{
    BAD("no size", "\r\nx\r\n", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("sign", "+1\r\nx\r\n", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("negative", "-1\r\nx\r\n", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("0x", "0x1\r\nx\r\n", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("no digit", "g\r\n", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("blank in front", " 1\r\nx\r\n", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("blank behind", "1 \r\nx\r\n", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("blank within", "1 1\r\nx\r\n", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("NUL", "1\0\r\nx\r\n", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("too great", "8000000000000000\r\nx", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("far too great", "10000000000000001\r\nx", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("too many digits", "fffffffffffffffffffffff\r\nx", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("second size", "1\r\nx\r\nz\r\n", RP_HTTP_BAD_CHUNK_SIZE, "x");
    BAD("control byte in an extension", "1;a\x01\r\nx\r\n", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("quote not closed", "1;a=\"b\r\nx\r\n0\r\n\r\n", RP_HTTP_BAD_CHUNK_SIZE, "");
    BAD("quoted pair with CR", "1;a=\"\\\r\nx\r\n0\r\n\r\n", RP_HTTP_BAD_CHUNK_SIZE, "");
}

static void test_bad_line_ends(void)
{
    BAD("LF after the size", "1\nx\r\n0\r\n\r\n", RP_HTTP_BARE_CR_OR_LF, "");
    BAD("CR after the size", "1\rx\r\n0\r\n\r\n", RP_HTTP_BARE_CR_OR_LF, "");
    BAD("LF in an extension", "1;a\nx\r\n0\r\n\r\n", RP_HTTP_BARE_CR_OR_LF, "");
    BAD("CR in an extension", "1;a\rx\r\n0\r\n\r\n", RP_HTTP_BARE_CR_OR_LF, "");
    BAD("LF in a quoted string", "1;a=\"\n\"\r\nx\r\n0\r\n\r\n", RP_HTTP_BARE_CR_OR_LF, "");
    BAD("LF after the data", "1\r\nx\n0\r\n\r\n", RP_HTTP_BAD_CHUNK_END, "x");
    BAD("more data than announced", "1\r\nxyz\r\n0\r\n\r\n", RP_HTTP_BAD_CHUNK_END, "x");
    BAD("CR only after the data", "1\r\nx\r0\r\n\r\n", RP_HTTP_BAD_CHUNK_END, "x");
    BAD("LF at the end", "0\r\n\n", RP_HTTP_BARE_CR_OR_LF, "");
    BAD("CR at the end", "0\r\n\rx", RP_HTTP_BARE_CR_OR_LF, "");
    BAD("LF after a trailer", "0\r\nA: b\n\r\n", RP_HTTP_BARE_CR_OR_LF, "");
    BAD("LF after trailers", "0\r\nA: b\r\n\n", RP_HTTP_BARE_CR_OR_LF, "");
    BAD("CR in a trailer", "0\r\nA: b\rC: d\r\n\r\n", RP_HTTP_BARE_CR_OR_LF, "");
}

static void test_bad_trailers(void)
{
    BAD("malformed", "1\r\nx\r\n0\r\nA b\r\n\r\n", RP_HTTP_BAD_TRAILER, "x");
    BAD("folded", "0\r\nA: b\r\n c\r\n\r\n", RP_HTTP_BAD_TRAILER, "");
    BAD("control byte", "0\r\nA: b\x01\r\n\r\n", RP_HTTP_BAD_TRAILER, "");
    BAD("Content-Length", "0\r\nA: b\r\ncontent-length: 1\r\n\r\n", RP_HTTP_BAD_TRAILER, "");
    BAD("Transfer-Encoding", "0\r\nTransfer-Encoding: chunked\r\n\r\n", RP_HTTP_BAD_TRAILER, "");
    BAD("Host", "0\r\nHost: x\r\n\r\n", RP_HTTP_BAD_TRAILER, "");
}

static rp_http_error decode_filled(const char *before, char filler, apr_size_t count,
                                   const char *after, apr_size_t step)
{
    apr_size_t len = strlen(before) + count + strlen(after);
    char *text = malloc(len);
    rp_chunked chunked;

    memcpy(text, before, strlen(before));
    memset(text + strlen(before), filler, count);
    memcpy(text + strlen(before) + count, after, strlen(after));
    rp_chunked_init(&chunked, pool);
    for (apr_size_t at = 0; at < len; at += step) {
        apr_size_t consumed, decoded;

        if (rp_chunked_decode(&chunked, text + at, len - at < step ? len - at : step, &consumed,
                              &decoded) != RP_PARSE_MORE) {
            break;
        }
    }
    free(text);
    return chunked.error;
}

static void test_limits(void)
{
    const apr_size_t line = RP_HTTP_CHUNK_LINE_MAX, section = RP_HTTP_TRAILERS_MAX;
    const apr_size_t steps[] = { 1, 1000, 1000000 };

    for (int i = 0; i < 3; i++) {
        is_number(decode_filled("", '0', line - 2, "\r\n\r\n", steps[i]), RP_HTTP_OK,
                  "the longest size line");
        is_number(decode_filled("", '0', line - 1, "\r\n\r\n", steps[i]),
                  RP_HTTP_CHUNK_LINE_TOO_LONG, "one digit more");
        is_number(decode_filled("1;", 'a', line, "\r\n", steps[i]), RP_HTTP_CHUNK_LINE_TOO_LONG,
                  "a long extension");
        is_number(decode_filled("1\r\nx\r\n0;", 'a', line - 4, "\r\n\r\n", steps[i]), RP_HTTP_OK,
                  "each line is counted by itself");
        is_number(decode_filled("0\r\nA:", 'b', section - 4, "\r\n\r\n", steps[i]), RP_HTTP_OK,
                  "the longest trailer section");
        is_number(decode_filled("0\r\nA:", 'b', section - 3, "\r\n\r\n", steps[i]),
                  RP_HTTP_TRAILERS_TOO_LARGE, "one byte more");
    }
}

static void test_too_many_trailers(void)
{
    static char text[5 * RP_HTTP_FIELDS_MAX + 40] = "0\r\n";
    rp_chunked chunked;
    apr_size_t consumed, decoded;

    for (int i = 0; i <= RP_HTTP_FIELDS_MAX; i++) {
        strcat(text, "a:b\r\n");
    }
    strcat(text, "\r\n");
    rp_chunked_init(&chunked, pool);
    rp_chunked_decode(&chunked, text, strlen(text), &consumed, &decoded);
    is_number(chunked.error, RP_HTTP_TOO_MANY_FIELDS, "too many trailer fields");
}

static void test_encoder(void)
{
    static const struct {
        apr_size_t size;
        const char *text;
    } cases[] = {
        { 1, "1\r\n" }, { 15, "f\r\n" }, { 16, "10\r\n" }, { 65536, "10000\r\n" },
        { (apr_size_t)0x123456789abcdef0, "123456789abcdef0\r\n" },
        { (apr_size_t)-1, "ffffffffffffffff\r\n" },
    };
    rp_fields trailers;
    rp_buffer out;

    for (apr_size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[RP_CHUNK_HEAD_MAX + 1];

        text[rp_chunk_head(text, cases[i].size)] = '\0';
        is_text(text, cases[i].text, "size line");
    }
    rp_buffer_init(&out, pool, 0);
    rp_fields_init(&trailers, pool, 0);
    is_number(rp_chunk_last(&out, NULL), RP_HTTP_OK, "last chunk without trailers");
    is_number(rp_chunk_last(&out, &trailers), RP_HTTP_OK, "with an empty list");
    rp_fields_add(&trailers, "A", "b");
    is_number(rp_chunk_last(&out, &trailers), RP_HTTP_OK, "with trailers");
    rp_buffer_add(&out, "", 1);
    is_text(out.data, "0\r\n\r\n0\r\n\r\n0\r\nA: b\r\n\r\n", "the bytes of all");
    rp_fields_add(&trailers, "B", "\n");
    is_number(rp_chunk_last(&out, &trailers), RP_HTTP_BAD_FIELD_VALUE, "a bad value");
    trailers.count = 0;
    rp_fields_add(&trailers, "Content-Length", "1");
    is_number(rp_chunk_last(&out, &trailers), RP_HTTP_BAD_TRAILER, "a field of the framing");
    is_text(out.data, "0\r\n\r\n0\r\n\r\n0\r\nA: b\r\n\r\n", "nothing was added");
}

int main(void)
{
    pool = tap_pool();
    test_good();
    test_rest();
    test_bad_sizes();
    test_bad_line_ends();
    test_bad_trailers();
    test_limits();
    test_too_many_trailers();
    test_encoder();
    return tap_done();
}
