/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <arpa/inet.h>
#include "rproxy/http/rp_http_private.h"

static const char hex_digits[] = "0123456789ABCDEF";

/** The byte that %XX at p stands for, -1 if the two digits aren't there. */
static int percent_byte(const char *p)
{
    unsigned high = rp_hex(p[1]);
    unsigned low = high < 16 ? rp_hex(p[2]) : 16;

    return low < 16 ? (int)(high << 4 | low) : -1;
}

static char *copy_text(apr_pool_t *pool, const char *text, apr_size_t len)
{
    char *copy = apr_palloc(pool, len + 1);

    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

const char *rp_uri_after_scheme(const char *target)
{
    apr_size_t len = 0;

    while (rp_byte_is(target[len], RP_BYTE_UNRESERVED)) {
        len++;
    }
    if ((len != 4 && len != 5) || !rp_equals_lower(target, "https", len)
        || strncmp(target + len, "://", 3) != 0) {
        return NULL;
    }
    return target + len + 3;
}

/* ---- authority ------------------------------------------------------------------------------- */

static int is_ipv6(const char *text, apr_size_t len)
{
    char copy[INET6_ADDRSTRLEN];
    struct in6_addr address;

    if (len >= sizeof(copy)) {
        return 0;
    }
    memcpy(copy, text, len);
    copy[len] = '\0';
    return inet_pton(AF_INET6, copy, &address) == 1;
}

/** Nonzero for ":" and a port from 1 to 65535, or for nothing at all. */
static int is_port_or_end(const char *p)
{
    unsigned port = 0;

    if (*p == '\0') {
        return 1;
    }
    if (*p++ != ':') {
        return 0;
    }
    for (; *p >= '0' && *p <= '9' && port <= 65535; p++) {
        port = port * 10 + (unsigned)(*p - '0');
    }
    return *p == '\0' && port >= 1 && port <= 65535;
}

int rp_uri_is_authority(const char *authority)
{
    const char *p = authority;

    if (*p == '[') {
        const char *close = strchr(p, ']');

        return close != NULL && is_ipv6(p + 1, (apr_size_t)(close - p) - 1)
               && is_port_or_end(close + 1);
    }
    for (;;) {
        if (rp_byte_is(*p, RP_BYTE_HOST)) {
            p++;
        }
        else if (*p == '%' && percent_byte(p) > 0x20 && percent_byte(p) != 0x7f) {
            p += 3;                     /* an encoded blank or control byte is in no name */
        }
        else {
            return p != authority && is_port_or_end(p);
        }
    }
}

/* ---- path ------------------------------------------------------------------------------------ */

typedef struct path_scan {
    const char *end;                    /* '?' or the final NUL */
    int changes;                        /* nonzero: normalise() may have something to do */
    int encoded_slash;                  /* nonzero: %2F or %5C is in it */
} path_scan;

/** Nonzero if the bytes at p begin with a dot, encoded or not. */
static int is_dot(const char *p)
{
    return *p == '.' || (*p == '%' && p[1] == '2' && (p[2] | 0x20) == 'e');
}

static int is_encoded_slash(const char *p)
{
    return p[0] == '%' && p[1] == '2' && (p[2] | 0x20) == 'f';
}

/** Checks the bytes of a path and looks for what normalise() would change. */
static rp_http_error scan_path(const char *path, rp_encoded_slashes slashes, int merge_slashes,
                               path_scan *scan)
{
    const char *p = path;

    scan->changes = 0;
    scan->encoded_slash = 0;
    for (;;) {
        while (rp_byte_is(*p, RP_BYTE_PLAIN)) {
            p++;
        }
        if (*p == '/') {
            p++;
            scan->changes |= is_dot(p) || (merge_slashes && *p == '/');
        }
        else if (*p == '%') {
            int byte = percent_byte(p);

            if (byte <= 0 || (slashes == RP_SLASHES_REJECT && (byte == '/' || byte == '\\'))) {
                return RP_HTTP_BAD_TARGET;
            }
            scan->changes |= slashes == RP_SLASHES_DECODE && byte == '/';
            scan->encoded_slash |= byte == '/' || byte == '\\';
            p += 3;
        }
        else if (*p == '?' || *p == '\0') {
            scan->end = p;
            return RP_HTTP_OK;
        }
        else {
            return RP_HTTP_BAD_TARGET;
        }
    }
}

static rp_http_error scan_query(const char *query)
{
    for (const char *p = query; *p != '\0'; p++) {
        if (!rp_byte_is(*p, RP_BYTE_VISIBLE) || *p == '#') {
            return RP_HTTP_BAD_TARGET;
        }
    }
    return RP_HTTP_OK;
}

/** Number of dots that a segment consists of: 1 or 2, else 0. */
static int dots_of_segment(const char *p, const char *end)
{
    int dots = 0;

    while (p < end && is_dot(p)) {
        p += *p == '.' ? 1 : 3;
        dots++;
    }
    return p == end && dots <= 2 ? dots : 0;
}

/** Removes dot segments (RFC 3986 section 5.2.4) and, if asked to, empty ones, in place. The path
 * begins with '/'. Returns 0 if it leads above the root. */
static int normalise(char *path, int merge_slashes)
{
    const char *read = path;
    char *write = path;

    while (*read == '/') {
        const char *segment = read + 1;
        const char *end = segment + strcspn(segment, "/");
        int dots = dots_of_segment(segment, end);

        if (dots == 2) {
            if (write == path) {
                return 0;
            }
            while (*--write != '/') { }
        }
        if (dots == 0 && (end != segment || *end == '\0' || !merge_slashes)) {
            memmove(write, read, (apr_size_t)(end - read));
            write += end - read;
        }
        else if (*end == '\0') {
            *write++ = '/';             /* "/a/." is "/a/" */
        }
        read = end;
    }
    *write = '\0';
    return 1;
}

/** Length of what some server takes for the end of a segment: '/', %2F, %5C; 0: nothing. */
static int border_len(const char *p)
{
    int byte = *p == '%' ? percent_byte(p) : *p;

    return byte != '/' && byte != '\\' ? 0 : *p == '%' ? 3 : 1;
}

/** Nonzero if a normalised path has a segment that some server takes for "." or "..": one between
 * encoded slashes, or one with parameters ("..;x"), which servlet containers cut off. Nobody who
 * sees a plain segment there can tell where it leads, so it leads nowhere. */
static int hides_dot_segment(const char *p)
{
    for (;;) {
        int dots = 0;

        while (is_dot(p)) {
            p += *p == '.' ? 1 : 3;
            dots++;
        }
        if ((dots == 1 || dots == 2)
            && (*p == '\0' || *p == ';' || border_len(p)
                 || (*p == '%' && percent_byte(p) == ';'))) {
            return 1;
        }
        while (*p != '\0' && !border_len(p)) {
            p++;
        }
        if (*p == '\0') {
            return 0;
        }
        p += border_len(p);
    }
}

static void decode_slashes(char *path)
{
    char *write = path;

    for (const char *read = path; *read != '\0'; ) {
        if (is_encoded_slash(read)) {
            *write++ = '/';
            read += 3;
        }
        else {
            *write++ = *read++;
        }
    }
    *write = '\0';
}

rp_http_error rp_uri_path(apr_pool_t *pool, const char *target, rp_encoded_slashes slashes,
                          int merge_slashes, const char **path, const char **query)
{
    const char *start = target;
    path_scan scan;
    rp_http_error error;
    char *copy;

    *query = NULL;
    if (target[0] == '*' && target[1] == '\0') {
        *path = target;
        return RP_HTTP_OK;
    }
    if (*start != '/') {
        start = rp_uri_after_scheme(target);
        if (start == NULL) {
            return RP_HTTP_BAD_TARGET;
        }
        start += strcspn(start, "/?#");
    }
    error = scan_path(start, slashes, merge_slashes, &scan);
    if (error == RP_HTTP_OK && *scan.end == '?') {
        *query = scan.end + 1;
        error = scan_query(*query);
    }
    if (error != RP_HTTP_OK) {
        return error;
    }
    if (scan.end == start) {
        *path = "/";                    /* an absolute-form target without a path */
        return RP_HTTP_OK;
    }
    if (!scan.changes && !scan.encoded_slash && *scan.end == '\0') {
        *path = start;
        return RP_HTTP_OK;
    }
    *path = copy = copy_text(pool, start, (apr_size_t)(scan.end - start));
    if (scan.changes) {
        if (slashes == RP_SLASHES_DECODE) {
            decode_slashes(copy);
        }
        if (!normalise(copy, merge_slashes)) {
            return RP_HTTP_BAD_TARGET;
        }
    }
    return (scan.changes || scan.encoded_slash) && hides_dot_segment(copy) ? RP_HTTP_BAD_TARGET
                                                                           : RP_HTTP_OK;
}

/* ---- percent-encoding ------------------------------------------------------------------------ */

/** Nonzero if %XX at p is written otherwise in canonical form. */
static int is_not_canonical(const char *p)
{
    int byte = percent_byte(p);

    return byte >= 0 && (rp_byte_is((char)byte, RP_BYTE_UNRESERVED)
                         || p[1] != hex_digits[byte >> 4] || p[2] != hex_digits[byte & 15]);
}

const char *rp_uri_canonical(apr_pool_t *pool, const char *path)
{
    const char *read = strchr(path, '%');
    char *copy, *write;

    while (read != NULL && !is_not_canonical(read)) {
        read = strchr(read + 1, '%');
    }
    if (read == NULL) {
        return path;
    }
    copy = copy_text(pool, path, strlen(path));
    write = copy + (read - path);
    while (*read != '\0') {
        int byte = *read == '%' ? percent_byte(read) : -1;

        if (byte < 0) {
            *write++ = *read++;
            continue;
        }
        if (rp_byte_is((char)byte, RP_BYTE_UNRESERVED)) {
            *write++ = (char)byte;
        }
        else {
            *write++ = '%';
            *write++ = hex_digits[byte >> 4];
            *write++ = hex_digits[byte & 15];
        }
        read += 3;
    }
    *write = '\0';
    return copy;
}

char *rp_uri_decode(apr_pool_t *pool, const char *path, apr_size_t len)
{
    const char *end = path + len;
    char *copy = apr_palloc(pool, len + 1);
    char *write = copy;

    for (const char *read = path; read < end; ) {
        int byte = *read == '%' && end - read >= 3 ? percent_byte(read) : -1;

        /* %00 stays too: decoded, it would end the string. */
        if (byte > 0 && byte != '/') {
            *write++ = (char)byte;
            read += 3;
        }
        else {
            *write++ = *read++;
        }
    }
    *write = '\0';
    return copy;
}

char *rp_uri_encode(apr_pool_t *pool, const char *text)
{
    apr_size_t len = strlen(text);
    apr_size_t encoded = 0;
    char *out, *write;

    for (apr_size_t i = 0; i < len; i++) {
        encoded += !rp_byte_is(text[i], RP_BYTE_PATH);
    }
    write = out = apr_palloc(pool, len + 2 * encoded + 1);
    for (apr_size_t i = 0; i < len; i++) {
        unsigned byte = (unsigned char)text[i];

        if (rp_byte_is(text[i], RP_BYTE_PATH)) {
            *write++ = text[i];
        }
        else {
            *write++ = '%';
            *write++ = hex_digits[byte >> 4];
            *write++ = hex_digits[byte & 15];
        }
    }
    *write = '\0';
    return out;
}
