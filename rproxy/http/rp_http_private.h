/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* rproxy/http, private to this room: byte classes and the scanners of the hot paths. */
#ifndef RP_HTTP_PRIVATE_H
#define RP_HTTP_PRIVATE_H

#include <string.h>
#include <apr_pools.h>
#include "rproxy/http/rp_http.h"

/** Classes of a byte, bits of rp_byte_class[]. */
enum {
    RP_BYTE_TOKEN = 0x01,               /* tchar, RFC 9110 section 5.6.2 */
    RP_BYTE_VALUE = 0x02,               /* field value: HTAB, SP, VCHAR, obs-text */
    RP_BYTE_VISIBLE = 0x04,             /* VCHAR, obs-text */
    RP_BYTE_UNRESERVED = 0x08,          /* RFC 3986 section 2.3 */
    RP_BYTE_HOST = 0x10,                /* reg-name without percent-encoding */
    RP_BYTE_PATH = 0x20,                /* pchar without percent-encoding, and '/' */
    RP_BYTE_PLAIN = 0x40                /* visible, and nothing that rp_uri_path() looks at */
};

extern const unsigned char rp_byte_class[256];

static inline int rp_byte_is(char byte, int classes)
{
    return rp_byte_class[(unsigned char)byte] & classes;
}

static inline int rp_is_blank(char byte)
{
    return byte == ' ' || byte == '\t';
}

static inline char rp_lower(char byte)
{
    return byte >= 'A' && byte <= 'Z' ? (char)(byte | 0x20) : byte;
}

/** Value of a hexadecimal digit, 16 if it is none. */
static inline unsigned rp_hex(char byte)
{
    unsigned digit = (unsigned char)byte - (unsigned)'0';
    unsigned letter = ((unsigned char)byte | 0x20u) - (unsigned)'a';

    return digit < 10 ? digit : letter < 6 ? letter + 10 : 16;
}

/** Nonzero if len bytes of text are, apart from case, those of lower (all in lower case). */
static inline int rp_equals_lower(const char *text, const char *lower, apr_size_t len)
{
    for (apr_size_t i = 0; i < len; i++) {
        if (rp_lower(text[i]) != lower[i]) {
            return 0;
        }
    }
    return 1;
}

static inline int rp_equals_nocase(const char *a, const char *b, apr_size_t len)
{
    for (apr_size_t i = 0; i < len; i++) {
        if (rp_lower(a[i]) != rp_lower(b[i])) {
            return 0;
        }
    }
    return 1;
}

/** First byte from p on that may not stand in a field value, or end. Eight bytes at a time: this
 * sees most bytes of every head. */
static inline const char *rp_scan_value(const char *p, const char *end)
{
    const apr_uint64_t ones = 0x0101010101010101u;
    const apr_uint64_t highs = 0x8080808080808080u;

    for (;;) {
        const char *stop;

        while (end - p >= 8) {
            apr_uint64_t word, del;

            memcpy(&word, p, 8);
            del = word ^ (ones * 0x7f);
            if ((((word - ones * 0x20) & ~word) | ((del - ones) & ~del)) & highs) {
                break;                  /* a control byte among the eight, HTAB included */
            }
            p += 8;
        }
        stop = end - p >= 8 ? p + 8 : end;
        while (p < stop && rp_byte_is(*p, RP_BYTE_VALUE)) {
            p++;
        }
        if (p < stop || p == end) {
            return p;
        }
    }
}

/** First byte from p on that is not of these classes, or end. */
static inline const char *rp_scan_class(const char *p, const char *end, int classes)
{
    while (p < end && rp_byte_is(*p, classes)) {
        p++;
    }
    return p;
}

/**
 * Parses the field lines at p, which go up to the empty line that ends at end (its CRLF included;
 * no empty line before it). Modifies the bytes in place.
 */
rp_http_error rp_fields_parse(rp_fields *fields, char *p, const char *end, int max);

/** Makes room for more bytes beyond out->len. */
void rp_buffer_reserve(rp_buffer *buffer, apr_size_t more);

/** Appends field lines; on an error out->len is undefined. */
rp_http_error rp_buffer_add_fields(rp_buffer *out, const rp_fields *fields);

/** What follows "http://" or "https://" (any case), NULL if target begins otherwise. */
const char *rp_uri_after_scheme(const char *target);

/** Nonzero for a field that decides on framing or routing: one in a trailer is an attack. */
static inline int rp_field_is_framing(rp_field_id id)
{
    return id == RP_FIELD_CONTENT_LENGTH || id == RP_FIELD_TRANSFER_ENCODING || id == RP_FIELD_HOST;
}

#endif
