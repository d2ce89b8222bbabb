/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include "rproxy/http/rp_http.h"

static const char *const texts[RP_HTTP_ERROR_COUNT] = {
    [RP_HTTP_OK] = "no error",
    [RP_HTTP_BAD_START_LINE] = "the request line or status line is malformed",
    [RP_HTTP_BAD_VERSION] = "the version is neither HTTP/1.0 nor HTTP/1.1",
    [RP_HTTP_BAD_STATUS] = "the status code is not three digits from 100 to 599",
    [RP_HTTP_BAD_REASON] = "the reason phrase contains a control byte",
    [RP_HTTP_BAD_METHOD] = "the method is not a token",
    [RP_HTTP_BAD_TARGET] = "the request target is malformed",
    [RP_HTTP_BAD_FIELD_NAME] = "a field name is empty, not a token or not followed by a colon",
    [RP_HTTP_BAD_FIELD_VALUE] = "a field value contains a control byte",
    [RP_HTTP_OBSOLETE_FOLDING] = "a field line begins with a blank (obsolete line folding)",
    [RP_HTTP_BARE_CR_OR_LF] = "a line does not end in CR LF",
    [RP_HTTP_HEAD_TOO_LARGE] = "the head or its first line is too long",
    [RP_HTTP_TOO_MANY_FIELDS] = "there are too many fields",
    [RP_HTTP_BAD_CONTENT_LENGTH] = "Content-Length is not a decimal number in range",
    [RP_HTTP_REPEATED_CONTENT_LENGTH] = "Content-Length occurs more than once",
    [RP_HTTP_LENGTH_AND_CODING] = "both Content-Length and Transfer-Encoding are present",
    [RP_HTTP_BAD_TRANSFER_ENCODING] =
        "Transfer-Encoding is not \"chunked\" alone or not allowed here",
    [RP_HTTP_BAD_HOST] = "Host is missing, repeated or malformed",
    [RP_HTTP_BAD_CHUNK_SIZE] = "a chunk size line is malformed",
    [RP_HTTP_CHUNK_LINE_TOO_LONG] = "a chunk size line is too long",
    [RP_HTTP_BAD_CHUNK_END] = "the data of a chunk is not followed by CR LF",
    [RP_HTTP_TRAILERS_TOO_LARGE] = "the trailer section is too long",
    [RP_HTTP_BAD_TRAILER] = "the trailer section is malformed or holds a forbidden field",
};

const char *rp_http_error_text(rp_http_error error)
{
    unsigned index = (unsigned)error;

    return index < RP_HTTP_ERROR_COUNT ? texts[index] : "unknown error";
}
