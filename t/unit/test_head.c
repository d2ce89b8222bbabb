/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Request and response heads: what is accepted, what is refused and why, how the body is framed.
 * Every case is parsed as a whole and byte by byte; both must come to the same result. */

#include "rproxy/http/rp_http.h"
#include "t/unit/tap.h"

#define H11 "HTTP/1.1 200 OK\r\n"
#define GET11 "GET / HTTP/1.1\r\nHost: a\r\n"

static apr_pool_t *pool;

/** Bytes in a block of their own, so that a sanitizer sees every read beyond them. */
static char *exactly(const char *text, apr_size_t len)
{
    char *copy = malloc(len > 0 ? len : 1);

    memcpy(copy, text, len);
    return copy;
}

typedef struct outcome {
    rp_parse parse;
    rp_http_error error;
    apr_size_t head_len;
} outcome;

static outcome parse_response(char *buf, apr_size_t len, apr_size_t step, const char *method,
                              rp_response *response)
{
    outcome result = { RP_PARSE_MORE, RP_HTTP_OK, 0 };
    apr_size_t scanned = 0;

    for (apr_size_t have = step; result.parse == RP_PARSE_MORE; have += step) {
        result.parse = rp_http_parse_response(pool, buf, have < len ? have : len, method, &scanned,
                                              &result.head_len, response, &result.error);
        if (have >= len) {
            break;
        }
    }
    return result;
}

static outcome parse_request(char *buf, apr_size_t len, apr_size_t step, apr_size_t limit_line,
                             int limit_fields, rp_request *request)
{
    outcome result = { RP_PARSE_MORE, RP_HTTP_OK, 0 };
    apr_size_t scanned = 0;

    for (apr_size_t have = step; result.parse == RP_PARSE_MORE; have += step) {
        result.parse = rp_http_parse_request(pool, buf, have < len ? have : len, limit_line,
                                             limit_fields, &scanned, &result.head_len, request,
                                             &result.error);
        if (have >= len) {
            break;
        }
    }
    return result;
}

static void print_name(char *name, apr_size_t size, const char *text, apr_size_t len)
{
    apr_size_t used = 0;

    for (apr_size_t i = 0; i < len && used + 6 < size; i++) {
        unsigned char byte = (unsigned char)text[i];

        if (byte >= 0x20 && byte < 0x7f && byte != '#' && byte != '\\') {
            name[used++] = (char)byte;
        }
        else {
            used += (apr_size_t)snprintf(name + used, size - used, "\\x%02x", byte);
        }
    }
    name[used] = '\0';
}

/** The response must be refused with this error (RP_HTTP_OK: accepted). */
static void response_error(const char *text, apr_size_t len, const char *method,
                           rp_http_error expected)
{
    char *whole = exactly(text, len), *pieces = exactly(text, len), name[120];
    rp_response response;
    outcome one = parse_response(whole, len, len, method, &response);
    outcome two = parse_response(pieces, len, 1, method, &response);
    rp_parse parse = expected == RP_HTTP_OK ? RP_PARSE_DONE : RP_PARSE_FAILED;

    print_name(name, sizeof(name), text, len);
    ok(one.parse == parse && one.error == expected, "%s to %s: %s (got: %s)", name, method,
       rp_http_error_text(expected), rp_http_error_text(one.error));
    ok(two.parse == parse && two.error == expected, "  the same byte by byte");
    free(whole);
    free(pieces);
}

static void request_error(const char *text, apr_size_t len, rp_http_error expected)
{
    char *whole = exactly(text, len), *pieces = exactly(text, len), name[120];
    rp_request request;
    outcome one = parse_request(whole, len, len, 0, 0, &request);
    outcome two = parse_request(pieces, len, 1, 0, 0, &request);
    rp_parse parse = expected == RP_HTTP_OK ? RP_PARSE_DONE : RP_PARSE_FAILED;

    print_name(name, sizeof(name), text, len);
    ok(one.parse == parse && one.error == expected, "%s: %s (got: %s)", name,
       rp_http_error_text(expected), rp_http_error_text(one.error));
    ok(two.parse == parse && two.error == expected, "  the same byte by byte");
    free(whole);
    free(pieces);
}

#define RESPONSE(text, expected) response_error(text, sizeof(text) - 1, "GET", expected)
#define RESPONSE_TO(method, text, expected) \
    response_error(text, sizeof(text) - 1, method, expected)
#define REQUEST(text, expected) request_error(text, sizeof(text) - 1, expected)

/* ---- responses ------------------------------------------------------------------------------- */

static void test_response_parts(void)
{
    static const char text[] = "HTTP/1.1 404 Not \xc3\xa9 there\r\n"
                               "Date: now\r\nX-A:  \t one\ttwo  \t\r\nempty:\r\nx-a: \r\n\r\nbody";
    rp_response response;
    char *buf = exactly(text, sizeof(text) - 1);
    outcome result = parse_response(buf, sizeof(text) - 1, sizeof(text) - 1, "GET", &response);

    is_number(result.parse, RP_PARSE_DONE, "a response head is complete");
    is_number(result.head_len, sizeof(text) - 1 - 4, "its length ends before the body");
    is_number(response.status, 404, "status");
    is_number(response.minor_version, 1, "version");
    is_text(response.reason, "Not \xc3\xa9 there", "reason with bytes above 127");
    is_number(response.fields.count, 4, "fields");
    is_number(response.fields.items[0].id, RP_FIELD_DATE, "known field");
    is_text(response.fields.items[1].name, "X-A", "name keeps its case");
    is_text(response.fields.items[1].value, "one\ttwo", "value without surrounding blanks");
    is_number(response.fields.items[1].value_len, 7, "length of the value");
    is_text(response.fields.items[2].value, "", "empty value");
    is_text(response.fields.items[3].value, "", "value of blanks only");
    free(buf);
}

static void test_status_lines(void)
{
    RESPONSE("HTTP/1.1 200 OK\r\n\r\n", RP_HTTP_OK);
    RESPONSE("HTTP/1.0 200 OK\r\n\r\n", RP_HTTP_OK);
    RESPONSE("HTTP/1.1 200 \r\n\r\n", RP_HTTP_OK);
    RESPONSE("HTTP/1.1 200\r\n\r\n", RP_HTTP_OK);
    RESPONSE("HTTP/1.1 599 a\tb c\r\n\r\n", RP_HTTP_OK);
    RESPONSE("HTTP/1.1 200 a\x01\r\n\r\n", RP_HTTP_BAD_REASON);
    RESPONSE("HTTP/1.1 200 a\0b\r\n\r\n", RP_HTTP_BAD_REASON);
    RESPONSE("HTTP/1.1 200 a\x7f\r\n\r\n", RP_HTTP_BAD_REASON);
    RESPONSE("HTTP/1.1 200 a\rb: c\r\n\r\n", RP_HTTP_BARE_CR_OR_LF);
    RESPONSE("HTTP/1.1 200 a\nSet-Cookie: x\r\n\r\n", RP_HTTP_BARE_CR_OR_LF);
    RESPONSE("HTTP/1.1 200\r\r\n\r\n", RP_HTTP_BARE_CR_OR_LF);
    RESPONSE("HTTP/1.1 099 x\r\n\r\n", RP_HTTP_BAD_STATUS);
    RESPONSE("HTTP/1.1 600 x\r\n\r\n", RP_HTTP_BAD_STATUS);
    RESPONSE("HTTP/1.1 20 x\r\n\r\n", RP_HTTP_BAD_STATUS);
    RESPONSE("HTTP/1.1 2000 x\r\n\r\n", RP_HTTP_BAD_STATUS);
    RESPONSE("HTTP/1.1 -20 x\r\n\r\n", RP_HTTP_BAD_STATUS);
    RESPONSE("HTTP/1.1 200\tOK\r\n\r\n", RP_HTTP_BAD_STATUS);
    RESPONSE("HTTP/1.1 \r\n\r\n", RP_HTTP_BAD_STATUS);
    RESPONSE("HTTP/1.1  200 OK\r\n\r\n", RP_HTTP_BAD_STATUS);
    RESPONSE("HTTP/1.1\t200 OK\r\n\r\n", RP_HTTP_BAD_START_LINE);
    RESPONSE("HTTP/1.1\r\n\r\n", RP_HTTP_BAD_START_LINE);
    RESPONSE("HTTP/1.11 200 OK\r\n\r\n", RP_HTTP_BAD_START_LINE);
    RESPONSE("HTTP/1.2 200 OK\r\n\r\n", RP_HTTP_BAD_VERSION);
    RESPONSE("HTTP/2.0 200 OK\r\n\r\n", RP_HTTP_BAD_VERSION);
    RESPONSE("HTTP/2 200 OK\r\n\r\n", RP_HTTP_BAD_VERSION);
    RESPONSE("http/1.1 200 OK\r\n\r\n", RP_HTTP_BAD_START_LINE);
    RESPONSE("\r\nHTTP/1.1 200 OK\r\n\r\n", RP_HTTP_BAD_START_LINE);
    RESPONSE(" HTTP/1.1 200 OK\r\n\r\n", RP_HTTP_BAD_START_LINE);
    RESPONSE("SSH-2.0-OpenSSH_9.2\r\n", RP_HTTP_BAD_START_LINE);
    RESPONSE("HTTP/1.1 200 OK\n\n", RP_HTTP_BARE_CR_OR_LF);
}

static void test_field_lines(void)
{
    RESPONSE(H11 "A: b\r\nC: \xff\xfe\r\n\r\n", RP_HTTP_OK);
    RESPONSE(H11 "!#$%&'*+-.^_`|~09azAZ: b\r\n\r\n", RP_HTTP_OK);
    RESPONSE(H11 "A: b\n\r\n", RP_HTTP_BARE_CR_OR_LF);
    RESPONSE(H11 "A: b\r\n\n", RP_HTTP_BARE_CR_OR_LF);
    RESPONSE(H11 "A: b\rC: d\r\n\r\n", RP_HTTP_BARE_CR_OR_LF);
    RESPONSE(H11 "A: b\r\r\n\r\n", RP_HTTP_BARE_CR_OR_LF);
    RESPONSE(H11 "A\r: b\r\n\r\n", RP_HTTP_BARE_CR_OR_LF);
    RESPONSE(H11 "A: b\0c\r\n\r\n", RP_HTTP_BAD_FIELD_VALUE);
    RESPONSE(H11 "A: 0123456789abcde\x1f\r\n\r\n", RP_HTTP_BAD_FIELD_VALUE);
    RESPONSE(H11 "A: 012345678\tabcde\x7f\r\n\r\n", RP_HTTP_BAD_FIELD_VALUE);
    RESPONSE(H11 "A:\v\r\n\r\n", RP_HTTP_BAD_FIELD_VALUE);
    RESPONSE(H11 ": b\r\n\r\n", RP_HTTP_BAD_FIELD_NAME);
    RESPONSE(H11 "A : b\r\n\r\n", RP_HTTP_BAD_FIELD_NAME);
    RESPONSE(H11 "A\t: b\r\n\r\n", RP_HTTP_BAD_FIELD_NAME);
    RESPONSE(H11 "A b: c\r\n\r\n", RP_HTTP_BAD_FIELD_NAME);
    RESPONSE(H11 "A\0: c\r\n\r\n", RP_HTTP_BAD_FIELD_NAME);
    RESPONSE(H11 "A\xe9: c\r\n\r\n", RP_HTTP_BAD_FIELD_NAME);
    RESPONSE(H11 "novalue\r\n\r\n", RP_HTTP_BAD_FIELD_NAME);
    RESPONSE(H11 " A: b\r\n\r\n", RP_HTTP_OBSOLETE_FOLDING);
    RESPONSE(H11 "A: b\r\n c\r\n\r\n", RP_HTTP_OBSOLETE_FOLDING);
    RESPONSE(H11 "A: b\r\n\tc: d\r\n\r\n", RP_HTTP_OBSOLETE_FOLDING);
    RESPONSE(H11 "A: b\r\n \r\n\r\n", RP_HTTP_OBSOLETE_FOLDING);
}

static void test_response_framing(void)
{
    static const struct {
        const char *name, *method, *text;
        rp_framing framing;
        apr_int64_t length;
        int keep_alive;
    } cases[] = {
        { "length", "GET", H11 "Content-Length: 5\r\n\r\n", RP_BODY_LENGTH, 5, 1 },
        { "length 0", "GET", H11 "Content-Length: 0\r\n\r\n", RP_BODY_LENGTH, 0, 1 },
        { "leading zeros", "GET", H11 "content-length: 0007\r\n\r\n", RP_BODY_LENGTH, 7, 1 },
        { "greatest length", "GET", H11 "Content-Length: 9223372036854775807\r\n\r\n",
          RP_BODY_LENGTH, 9223372036854775807, 1 },
        { "chunked", "GET", H11 "Transfer-Encoding: chunked\r\n\r\n", RP_BODY_CHUNKED, -1, 1 },
        { "chunked in capitals", "GET", H11 "TRANSFER-ENCODING: ChunkeD\r\n\r\n", RP_BODY_CHUNKED,
          -1, 1 },
        { "neither", "GET", H11 "\r\n", RP_BODY_CLOSE, -1, 0 },
        { "neither, keep-alive", "GET", H11 "Connection: keep-alive\r\n\r\n", RP_BODY_CLOSE, -1,
          0 },
        { "HEAD", "HEAD", H11 "Content-Length: 5\r\n\r\n", RP_BODY_NONE, 5, 1 },
        { "HEAD without length", "HEAD", H11 "\r\n", RP_BODY_NONE, -1, 1 },
        { "HEAD chunked", "HEAD", H11 "Transfer-Encoding: chunked\r\n\r\n", RP_BODY_NONE, -1, 1 },
        { "304", "GET", "HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n", RP_BODY_NONE, 9, 1 },
        { "204", "GET", "HTTP/1.1 204 x\r\n\r\n", RP_BODY_NONE, -1, 1 },
        { "205", "GET", "HTTP/1.1 205 x\r\n\r\n", RP_BODY_CLOSE, -1, 0 },
        { "100", "POST", "HTTP/1.1 100 Continue\r\n\r\n", RP_BODY_NONE, -1, 1 },
        { "101", "GET", "HTTP/1.1 101 x\r\nConnection: upgrade\r\n\r\n", RP_BODY_NONE, -1, 0 },
        { "200 to CONNECT", "CONNECT", H11 "\r\n", RP_BODY_NONE, -1, 0 },
        { "404 to CONNECT", "CONNECT", "HTTP/1.1 404 x\r\nContent-Length: 1\r\n\r\n",
          RP_BODY_LENGTH, 1, 1 },
        { "close", "GET", H11 "Content-Length: 5\r\nConnection: Close\r\n\r\n", RP_BODY_LENGTH, 5,
          0 },
        { "close in a list", "GET", H11 "Content-Length: 5\r\nConnection: x, close ,y\r\n\r\n",
          RP_BODY_LENGTH, 5, 0 },
        { "close in a second field", "GET",
          H11 "Connection: keep-alive\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
          RP_BODY_LENGTH, 5, 0 },
        { "HTTP/1.0", "GET", "HTTP/1.0 200 x\r\nContent-Length: 5\r\n\r\n", RP_BODY_LENGTH, 5, 0 },
        { "HTTP/1.0 keep-alive", "GET",
          "HTTP/1.0 200 x\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\n", RP_BODY_LENGTH,
          5, 1 },
        { "HTTP/1.0 keep-alive and close", "GET",
          "HTTP/1.0 200 x\r\nContent-Length: 5\r\nConnection: keep-alive, close\r\n\r\n",
          RP_BODY_LENGTH, 5, 0 },
    };

    for (apr_size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        apr_size_t len = strlen(cases[i].text);
        char *buf = exactly(cases[i].text, len);
        rp_response response;
        outcome result = parse_response(buf, len, len, cases[i].method, &response);

        ok(result.parse == RP_PARSE_DONE && response.framing == cases[i].framing
           && response.content_length == cases[i].length
           && response.keep_alive == cases[i].keep_alive,
           "framing of a response: %s", cases[i].name);
        free(buf);
    }
}

static void test_response_framing_errors(void)
{
    RESPONSE(H11 "Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
             RP_HTTP_REPEATED_CONTENT_LENGTH);
    RESPONSE(H11 "Content-Length: 5, 5\r\n\r\n", RP_HTTP_REPEATED_CONTENT_LENGTH);
    RESPONSE(H11 "Content-Length: 5,\r\n\r\n", RP_HTTP_REPEATED_CONTENT_LENGTH);
    RESPONSE(H11 "Content-Length: \r\n\r\n", RP_HTTP_BAD_CONTENT_LENGTH);
    RESPONSE(H11 "Content-Length: +5\r\n\r\n", RP_HTTP_BAD_CONTENT_LENGTH);
    RESPONSE(H11 "Content-Length: -5\r\n\r\n", RP_HTTP_BAD_CONTENT_LENGTH);
    RESPONSE(H11 "Content-Length: 0x5\r\n\r\n", RP_HTTP_BAD_CONTENT_LENGTH);
    RESPONSE(H11 "Content-Length: 5 5\r\n\r\n", RP_HTTP_BAD_CONTENT_LENGTH);
    RESPONSE(H11 "Content-Length: 9223372036854775808\r\n\r\n", RP_HTTP_BAD_CONTENT_LENGTH);
    RESPONSE(H11 "Content-Length: 99999999999999999999\r\n\r\n", RP_HTTP_BAD_CONTENT_LENGTH);
    RESPONSE(H11 "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
             RP_HTTP_LENGTH_AND_CODING);
    RESPONSE(H11 "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
             RP_HTTP_LENGTH_AND_CODING);
    RESPONSE_TO("HEAD", H11 "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                RP_HTTP_LENGTH_AND_CODING);
    RESPONSE(H11 "Transfer-Encoding: gzip, chunked\r\n\r\n", RP_HTTP_BAD_TRANSFER_ENCODING);
    RESPONSE(H11 "Transfer-Encoding: chunked, chunked\r\n\r\n", RP_HTTP_BAD_TRANSFER_ENCODING);
    RESPONSE(H11 "Transfer-Encoding: chunked;q=1\r\n\r\n", RP_HTTP_BAD_TRANSFER_ENCODING);
    RESPONSE(H11 "Transfer-Encoding: xchunked\r\n\r\n", RP_HTTP_BAD_TRANSFER_ENCODING);
    RESPONSE(H11 "Transfer-Encoding: \r\n\r\n", RP_HTTP_BAD_TRANSFER_ENCODING);
    RESPONSE(H11 "Transfer-Encoding: identity\r\n\r\n", RP_HTTP_BAD_TRANSFER_ENCODING);
    RESPONSE(H11 "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
             RP_HTTP_BAD_TRANSFER_ENCODING);
    RESPONSE("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
             RP_HTTP_BAD_TRANSFER_ENCODING);
    RESPONSE("HTTP/1.1 100 x\r\nTransfer-Encoding: chunked\r\n\r\n",
             RP_HTTP_BAD_TRANSFER_ENCODING);
    RESPONSE("HTTP/1.1 101 x\r\nTransfer-Encoding: chunked\r\n\r\n",
             RP_HTTP_BAD_TRANSFER_ENCODING);
    RESPONSE("HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n",
             RP_HTTP_BAD_TRANSFER_ENCODING);
    RESPONSE("HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\n\r\n", RP_HTTP_OK);
}

/* ---- limits ---------------------------------------------------------------------------------- */

/** A head of exactly len bytes, one field filled up. */
static char *head_of(apr_size_t len)
{
    char *buf = malloc(len);

    memset(buf, 'x', len);
    memcpy(buf, H11 "A: ", sizeof(H11 "A: ") - 1);
    memcpy(buf + len - 4, "\r\n\r\n", 4);
    return buf;
}

static void test_limits(void)
{
    for (apr_size_t len = RP_HTTP_HEAD_MAX - 1; len <= RP_HTTP_HEAD_MAX + 1; len++) {
        for (apr_size_t step = 4096; step <= 3 * RP_HTTP_HEAD_MAX; step *= 3) {
            char *buf = head_of(len);
            rp_response response;
            outcome result = parse_response(buf, len, step, "GET", &response);

            is_number(result.error, len <= RP_HTTP_HEAD_MAX ? RP_HTTP_OK : RP_HTTP_HEAD_TOO_LARGE,
                      "greatest size of a head");
            free(buf);
        }
    }
    for (int count = RP_HTTP_FIELDS_MAX; count <= RP_HTTP_FIELDS_MAX + 1; count++) {
        static char text[sizeof(H11) + (RP_HTTP_FIELDS_MAX + 2) * 5];
        rp_response response;
        outcome result;

        strcpy(text, H11);
        for (int i = 0; i < count; i++) {
            strcat(text, "a:b\r\n");
        }
        strcat(text, "\r\n");
        result = parse_response(text, strlen(text), 1000, "GET", &response);
        is_number(result.error, count > RP_HTTP_FIELDS_MAX ? RP_HTTP_TOO_MANY_FIELDS : RP_HTTP_OK,
                  "greatest number of fields");
        is_number(response.fields.count, RP_HTTP_FIELDS_MAX, "all of them are there");
    }
}

static void test_request_limits(void)
{
    static const char text[] = "GET /23456789 HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n";
    static const char longer[] = "\r\nGET /23456789/ HTTP/1.1";
    rp_request request;

    for (apr_size_t step = 1; step < sizeof(text); step++) {
        char *buf = exactly(text, sizeof(text) - 1);
        outcome result = parse_request(buf, sizeof(text) - 1, step, 22, 2, &request);

        is_number(result.error, RP_HTTP_OK, "a request line as long as the server allows");
        free(buf);
        buf = exactly(text, sizeof(text) - 1);
        result = parse_request(buf, sizeof(text) - 1, step, 21, 2, &request);
        is_number(result.error, RP_HTTP_HEAD_TOO_LARGE, "a longer one");
        free(buf);
        buf = exactly(text, sizeof(text) - 1);
        result = parse_request(buf, sizeof(text) - 1, step, 0, 1, &request);
        is_number(result.error, RP_HTTP_TOO_MANY_FIELDS, "more fields than the server allows");
        free(buf);
    }
    {
        char *buf = exactly(longer, sizeof(longer) - 1);
        outcome result = parse_request(buf, sizeof(longer) - 1, 1, 20, 0, &request);

        is_number(result.error, RP_HTTP_HEAD_TOO_LARGE, "a line is too long before it ends");
        free(buf);
    }
}

/* ---- requests -------------------------------------------------------------------------------- */

static void test_request_parts(void)
{
    static const char text[] = "\r\nPOST /a?b HTTP/1.1\r\n"
                               "Host: x:80\r\nContent-Length: 3\r\n\r\nabc";
    char *buf = exactly(text, sizeof(text) - 1);
    rp_request request;
    outcome result = parse_request(buf, sizeof(text) - 1, sizeof(text) - 1, 0, 0, &request);

    is_number(result.parse, RP_PARSE_DONE, "a request head is complete");
    is_number(result.head_len, sizeof(text) - 4, "the empty line in front belongs to it");
    is_text(request.method, "POST", "method");
    is_text(request.target, "/a?b", "target");
    is_text(request.authority, "x:80", "authority");
    is_number(request.minor_version, 1, "version");
    is_number(request.fields.count, 2, "fields");
    is_number(request.framing, RP_BODY_LENGTH, "framing");
    is_number(request.content_length, 3, "length");
    free(buf);
}

static void test_request_lines(void)
{
    REQUEST(GET11 "\r\n", RP_HTTP_OK);
    REQUEST("\r\n" GET11 "\r\n", RP_HTTP_OK);
    REQUEST("\r\n\r\n" GET11 "\r\n", RP_HTTP_BAD_START_LINE);
    REQUEST("\n" GET11 "\r\n", RP_HTTP_BARE_CR_OR_LF);
    REQUEST("\r" GET11 "\r\n", RP_HTTP_BARE_CR_OR_LF);
    REQUEST("GET / HTTP/1.0\r\n\r\n", RP_HTTP_OK);
    REQUEST("M-SEARCH / HTTP/1.0\r\n\r\n", RP_HTTP_OK);
    REQUEST("get /\xc3\xa9 HTTP/1.0\r\n\r\n", RP_HTTP_OK);
    REQUEST("GET /\r\n\r\n", RP_HTTP_BAD_START_LINE);
    REQUEST("GET\r\n\r\n", RP_HTTP_BAD_START_LINE);
    REQUEST("GET  / HTTP/1.0\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("GET /  HTTP/1.0\r\n\r\n", RP_HTTP_BAD_START_LINE);
    REQUEST("GET / HTTP/1.0 \r\n\r\n", RP_HTTP_BAD_START_LINE);
    REQUEST("GET / HTTP/1.01\r\n\r\n", RP_HTTP_BAD_START_LINE);
    REQUEST("GET /a b HTTP/1.0\r\n\r\n", RP_HTTP_BAD_START_LINE);
    REQUEST("GET\t/ HTTP/1.0\r\n\r\n", RP_HTTP_BAD_METHOD);
    REQUEST("GET /\tHTTP/1.0\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("GET /\x01 HTTP/1.0\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("GET /\x7f HTTP/1.0\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("GET /\0 HTTP/1.0\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("GET /\r HTTP/1.0\r\n\r\n", RP_HTTP_BARE_CR_OR_LF);
    REQUEST("G(T / HTTP/1.0\r\n\r\n", RP_HTTP_BAD_METHOD);
    REQUEST(" GET / HTTP/1.0\r\n\r\n", RP_HTTP_BAD_METHOD);
    REQUEST("\x16\x03\x01\x02\0\x01\0", RP_HTTP_BAD_METHOD);
    REQUEST("GET / HTTP/1.2\r\n\r\n", RP_HTTP_BAD_VERSION);
    REQUEST("GET / HTTP/0.9\r\n\r\n", RP_HTTP_BAD_VERSION);
    REQUEST("PRI * HTTP/2.0\r\n\r\n", RP_HTTP_BAD_VERSION);
    REQUEST("GET / http/1.1\r\n\r\n", RP_HTTP_BAD_START_LINE);
    REQUEST("GET / HTTP/1.0\r\nA: b\n\r\n", RP_HTTP_BARE_CR_OR_LF);
    REQUEST("GET / HTTP/1.0\r\nA: b\r\n c\r\n\r\n", RP_HTTP_OBSOLETE_FOLDING);
}

static void test_targets_and_hosts(void)
{
    REQUEST("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_OK);
    REQUEST("GET * HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("OPTIONS *x HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("GET a HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_OK);
    REQUEST("GET HTTPS://a?q HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_OK);
    REQUEST("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("GET http://a#/ HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("GET unix:/s|http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", RP_HTTP_OK);
    REQUEST("CONNECT [::1]:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", RP_HTTP_OK);
    REQUEST("CONNECT [::1] HTTP/1.1\r\nHost: a:80\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("CONNECT http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", RP_HTTP_BAD_TARGET);
    REQUEST("GET / HTTP/1.1\r\n\r\n", RP_HTTP_BAD_HOST);
    REQUEST("GET http://a/ HTTP/1.1\r\n\r\n", RP_HTTP_BAD_HOST);
    REQUEST("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", RP_HTTP_BAD_HOST);
    REQUEST("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", RP_HTTP_BAD_HOST);
    REQUEST("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", RP_HTTP_BAD_HOST);
    REQUEST("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", RP_HTTP_BAD_HOST);
    REQUEST("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", RP_HTTP_BAD_HOST);
    REQUEST("GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", RP_HTTP_BAD_HOST);
    REQUEST("GET http://b/ HTTP/1.1\r\nHost: a b\r\n\r\n", RP_HTTP_BAD_HOST);
    REQUEST("GET / HTTP/1.1\r\nHost:\r\n\r\n", RP_HTTP_OK);
    REQUEST("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", RP_HTTP_OK);
}

static void test_absolute_form(void)
{
    static const char text[] = "GET http://Target:81/x HTTP/1.1\r\nHost: other\r\n\r\n";
    char *buf = exactly(text, sizeof(text) - 1);
    rp_request request;

    parse_request(buf, sizeof(text) - 1, sizeof(text) - 1, 0, 0, &request);
    is_text(request.authority, "Target:81", "the authority of an absolute-form target wins");
    is_text(request.fields.items[0].value, "Target:81", "and replaces the one in Host");
    is_number(request.fields.items[0].value_len, 9, "with its length");
    is_text(request.target, "http://Target:81/x", "the target stays as received");
    free(buf);
}

static void test_request_framing(void)
{
    rp_fields fields;
    rp_framing framing;
    apr_int64_t length;

    REQUEST(GET11 "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            RP_HTTP_LENGTH_AND_CODING);
    REQUEST(GET11 "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
            RP_HTTP_REPEATED_CONTENT_LENGTH);
    REQUEST(GET11 "Content-Length: 1, 1\r\n\r\n", RP_HTTP_REPEATED_CONTENT_LENGTH);
    REQUEST(GET11 "Content-Length: 1x\r\n\r\n", RP_HTTP_BAD_CONTENT_LENGTH);
    REQUEST(GET11 "Transfer-Encoding: gzip\r\n\r\n", RP_HTTP_BAD_TRANSFER_ENCODING);
    REQUEST(GET11 "Transfer-Encoding: chunked, identity\r\n\r\n", RP_HTTP_BAD_TRANSFER_ENCODING);
    REQUEST(GET11 "Transfer-Encoding: \"chunked\"\r\n\r\n", RP_HTTP_BAD_TRANSFER_ENCODING);
    REQUEST("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            RP_HTTP_BAD_TRANSFER_ENCODING);

    rp_fields_init(&fields, pool, 0);
    is_number(rp_http_request_framing(&fields, 1, &framing, &length), RP_HTTP_OK, "no fields");
    is_number(framing, RP_BODY_NONE, "no fields: no body");
    is_number(length, -1, "no fields: no length");
    rp_fields_add(&fields, "Transfer-Encoding", "Chunked");
    rp_http_request_framing(&fields, 1, &framing, &length);
    is_number(framing, RP_BODY_CHUNKED, "chunked");
    is_number(rp_http_request_framing(&fields, 0, &framing, &length),
              RP_HTTP_BAD_TRANSFER_ENCODING, "chunked with HTTP/1.0");
    rp_fields_add(&fields, "Content-Length", "0");
    is_number(rp_http_request_framing(&fields, 1, &framing, &length), RP_HTTP_LENGTH_AND_CODING,
              "chunked with a length");
}

/* ---- serialiser ------------------------------------------------------------------------------ */

static void test_write(void)
{
    rp_fields fields;
    rp_buffer out;

    rp_buffer_init(&out, pool, 0);
    rp_fields_init(&fields, pool, 0);
    is_number(rp_http_write_request(&out, "GET", "/x?y", &fields), RP_HTTP_OK, "written");
    rp_fields_add(&fields, "Host", "a");
    rp_fields_add(&fields, "Empty", "");
    is_number(rp_http_write_response(&out, 204, NULL, &fields), RP_HTTP_OK, "written behind it");
    rp_buffer_add(&out, "", 1);
    is_text(out.data, "GET /x?y HTTP/1.1\r\n\r\nHTTP/1.1 204 \r\nHost: a\r\nEmpty: \r\n\r\n",
            "the bytes of both");

    out.len = 0;
    is_number(rp_http_write_request(&out, "G T", "/", &fields), RP_HTTP_BAD_METHOD, "method");
    is_number(rp_http_write_request(&out, "", "/", &fields), RP_HTTP_BAD_METHOD, "no method");
    is_number(rp_http_write_request(&out, "GET", "/ x", &fields), RP_HTTP_BAD_TARGET, "blank");
    is_number(rp_http_write_request(&out, "GET", "/\r\nx", &fields), RP_HTTP_BAD_TARGET, "CRLF");
    is_number(rp_http_write_request(&out, "GET", "", &fields), RP_HTTP_BAD_TARGET, "no target");
    is_number(rp_http_write_response(&out, 99, "", &fields), RP_HTTP_BAD_STATUS, "status 99");
    is_number(rp_http_write_response(&out, 600, "", &fields), RP_HTTP_BAD_STATUS, "status 600");
    is_number(rp_http_write_response(&out, 200, "a\rb", &fields), RP_HTTP_BAD_REASON, "reason");
    rp_fields_add(&fields, "a b", "c");
    is_number(rp_http_write_request(&out, "GET", "/", &fields), RP_HTTP_BAD_FIELD_NAME, "name");
    is_number(rp_http_write_response(&out, 200, "", &fields), RP_HTTP_BAD_FIELD_NAME, "name");
    fields.count--;
    rp_fields_add(&fields, "a", "c\nd");
    is_number(rp_http_write_request(&out, "GET", "/", &fields), RP_HTTP_BAD_FIELD_VALUE, "value");
    is_number(out.len, 0, "nothing is left in the buffer after an error");
}

static void test_error_texts(void)
{
    int all = 1;

    for (int error = 0; error < RP_HTTP_ERROR_COUNT; error++) {
        all = all && rp_http_error_text((rp_http_error)error) != NULL;
    }
    ok(all, "every error has a text");
    is_text(rp_http_error_text(RP_HTTP_ERROR_COUNT), "unknown error", "so has one out of range");
}

int main(void)
{
    pool = tap_pool();
    test_response_parts();
    test_status_lines();
    test_field_lines();
    test_response_framing();
    test_response_framing_errors();
    test_limits();
    test_request_limits();
    test_request_parts();
    test_request_lines();
    test_targets_and_hosts();
    test_absolute_form();
    test_request_framing();
    test_write();
    test_error_texts();
    return tap_done();
}
