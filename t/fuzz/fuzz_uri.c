/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Request targets: the input is one, and also a path to encode and an authority. */

#include "rproxy/http/rp_http.h"
#include "t/fuzz/fuzz.h"

static unsigned digit(char byte)
{
    return byte <= '9' ? (unsigned)(byte - '0') : (unsigned)((byte | 0x20) - 'a') + 10;
}

/** Decodes all of a valid path, slashes too. */
static char *decode_all(const char *path)
{
    char *text = apr_palloc(FUZZ_POOL, strlen(path) + 1), *write = text;

    while (*path != '\0') {
        if (*path == '%') {
            *write++ = (char)(digit(path[1]) << 4 | digit(path[2]));
            path += 3;
        }
        else {
            *write++ = *path++;
        }
    }
    *write = '\0';
    return text;
}

/** Nonzero if a segment of the path is "." or "..". */
static int has_dot_segment(const char *path)
{
    for (const char *p = strchr(path, '/'); p != NULL; p = strchr(p + 1, '/')) {
        size_t len = strcspn(p + 1, "/");

        if ((len == 1 && p[1] == '.') || (len == 2 && p[1] == '.' && p[2] == '.')) {
            return 1;
        }
    }
    return 0;
}

static void check_normal_form(const char *path, rp_encoded_slashes slashes, int merge_slashes)
{
    const char *again, *query, *canonical;
    rp_fields none;
    rp_buffer out;

    FUZZ_ASSERT(path[0] == '/');
    FUZZ_ASSERT(rp_uri_path(FUZZ_POOL, path, slashes, merge_slashes, &again, &query)
                == RP_HTTP_OK);
    FUZZ_ASSERT(strcmp(again, path) == 0 && query == NULL);
    FUZZ_ASSERT(!merge_slashes || strstr(path, "//") == NULL);
    FUZZ_ASSERT(slashes == RP_SLASHES_PASS || strstr(path, "%2F") == NULL);
    FUZZ_ASSERT(slashes != RP_SLASHES_REJECT || strstr(path, "%5c") == NULL);

    canonical = rp_uri_canonical(FUZZ_POOL, path);
    FUZZ_ASSERT(strlen(canonical) <= strlen(path));
    FUZZ_ASSERT(rp_uri_canonical(FUZZ_POOL, canonical) == canonical);
    FUZZ_ASSERT(!has_dot_segment(canonical));
    FUZZ_ASSERT(strcmp(decode_all(canonical), decode_all(path)) == 0);
    FUZZ_ASSERT(rp_uri_path(FUZZ_POOL, canonical, slashes, merge_slashes, &again, &query)
                == RP_HTTP_OK);
    FUZZ_ASSERT(strcmp(again, canonical) == 0);

    rp_fields_init(&none, FUZZ_POOL, 0);
    rp_buffer_init(&out, FUZZ_POOL, 0);
    FUZZ_ASSERT(rp_http_write_request(&out, "GET", path, &none) == RP_HTTP_OK);
}

static void check_target(const char *target)
{
    for (int merge_slashes = 0; merge_slashes <= 1; merge_slashes++) {
        for (int slashes = RP_SLASHES_PASS; slashes <= RP_SLASHES_REJECT; slashes++) {
            const char *path, *query;

            if (rp_uri_path(FUZZ_POOL, target, (rp_encoded_slashes)slashes, merge_slashes, &path,
                            &query) != RP_HTTP_OK) {
                continue;
            }
            if (strcmp(target, "*") == 0) {
                FUZZ_ASSERT(strcmp(path, "*") == 0);
                continue;
            }
            FUZZ_ASSERT(query == NULL || query[-1] == '?');
            check_normal_form(path, (rp_encoded_slashes)slashes, merge_slashes);
        }
    }
}

static void check_coding(const char *text)
{
    const char *encoded = rp_uri_encode(FUZZ_POOL, text);
    size_t len = strlen(text);
    char *cut = apr_palloc(FUZZ_POOL, len);

    FUZZ_ASSERT(strcmp(rp_uri_decode(FUZZ_POOL, encoded, strlen(encoded)), text) == 0);
    FUZZ_ASSERT(strcmp(decode_all(encoded), text) == 0);
    memcpy(cut, text, len);             /* without a NUL: nothing may be read behind len */
    FUZZ_ASSERT(strlen(rp_uri_decode(FUZZ_POOL, cut, len)) <= len);
    FUZZ_ASSERT(strlen(rp_uri_canonical(FUZZ_POOL, text)) <= len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_string(data, size);
    size_t len = strlen(text);

    check_target(text);
    check_coding(text);
    if (rp_uri_is_authority(text)) {
        char *target = apr_palloc(FUZZ_POOL, len + 8);
        const char *path, *query;

        memcpy(target, "http://", 7);
        memcpy(target + 7, text, len + 1);
        FUZZ_ASSERT(rp_uri_path(FUZZ_POOL, target, RP_SLASHES_REJECT, 1, &path, &query)
                    == RP_HTTP_OK);
        FUZZ_ASSERT(strcmp(path, "/") == 0 && query == NULL);
    }
    fuzz_free();
    return 0;
}
