/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include "rproxy/http/rp_http_private.h"

/* ---- names ----------------------------------------------------------------------------------- */

typedef struct known_name {
    const char *lower;
    rp_field_id id;
} known_name;

#define KNOWN_LENGTHS 20                /* the longest known name has 19 bytes */
#define KNOWN_PER_LENGTH 5              /* the last entry of a row is empty */

static const known_name known_names[KNOWN_LENGTHS][KNOWN_PER_LENGTH] = {
    [2] = { { "te", RP_FIELD_TE } },
    [3] = { { "via", RP_FIELD_VIA } },
    [4] = { { "host", RP_FIELD_HOST }, { "date", RP_FIELD_DATE }, { "link", RP_FIELD_LINK } },
    [5] = { { "proxy", RP_FIELD_PROXY } },
    [6] = { { "server", RP_FIELD_SERVER }, { "expect", RP_FIELD_EXPECT } },
    [7] = { { "upgrade", RP_FIELD_UPGRADE }, { "trailer", RP_FIELD_TRAILER },
            { "refresh", RP_FIELD_REFRESH } },
    [8] = { { "location", RP_FIELD_LOCATION } },
    [9] = { { "forwarded", RP_FIELD_FORWARDED } },
    [10] = { { "connection", RP_FIELD_CONNECTION }, { "set-cookie", RP_FIELD_SET_COOKIE },
             { "keep-alive", RP_FIELD_KEEP_ALIVE } },
    [11] = { { "destination", RP_FIELD_DESTINATION } },
    [12] = { { "content-type", RP_FIELD_CONTENT_TYPE }, { "x-request-id", RP_FIELD_X_REQUEST_ID },
             { "proxy-status", RP_FIELD_PROXY_STATUS } },
    [14] = { { "content-length", RP_FIELD_CONTENT_LENGTH },
             { "http2-settings", RP_FIELD_HTTP2_SETTINGS } },
    [15] = { { "x-forwarded-for", RP_FIELD_X_FORWARDED_FOR } },
    [16] = { { "x-forwarded-host", RP_FIELD_X_FORWARDED_HOST },
             { "x-forwarded-port", RP_FIELD_X_FORWARDED_PORT },
             { "content-location", RP_FIELD_CONTENT_LOCATION },
             { "proxy-connection", RP_FIELD_PROXY_CONNECTION } },
    [17] = { { "transfer-encoding", RP_FIELD_TRANSFER_ENCODING },
             { "x-forwarded-proto", RP_FIELD_X_FORWARDED_PROTO },
             { "x-accel-buffering", RP_FIELD_X_ACCEL_BUFFERING } },
    [18] = { { "proxy-authenticate", RP_FIELD_PROXY_AUTHENTICATE } },
    [19] = { { "proxy-authorization", RP_FIELD_PROXY_AUTHORIZATION } },
};

rp_field_id rp_field_id_of(const char *name, apr_size_t len)
{
    if (len < KNOWN_LENGTHS) {
        for (const known_name *known = known_names[len]; known->lower != NULL; known++) {
            if (rp_equals_lower(name, known->lower, len)) {
                return known->id;
            }
        }
    }
    return RP_FIELD_OTHER;
}

/* ---- the list -------------------------------------------------------------------------------- */

#define FIRST_CAPACITY 16

static void grow(rp_fields *fields, int capacity)
{
    rp_field *items = apr_palloc(fields->pool, (apr_size_t)capacity * sizeof(*items));

    if (fields->count > 0) {
        memcpy(items, fields->items, (apr_size_t)fields->count * sizeof(*items));
    }
    fields->items = items;
    fields->capacity = capacity;
}

void rp_fields_init(rp_fields *fields, apr_pool_t *pool, int capacity)
{
    fields->pool = pool;
    fields->items = NULL;
    fields->count = 0;
    fields->capacity = 0;
    if (capacity > 0) {
        grow(fields, capacity);
    }
}

rp_field *rp_fields_push(rp_fields *fields)
{
    if (fields->count == fields->capacity) {
        grow(fields, fields->capacity > 0 ? 2 * fields->capacity : FIRST_CAPACITY);
    }
    return &fields->items[fields->count++];
}

rp_field *rp_fields_add(rp_fields *fields, const char *name, const char *value)
{
    rp_field *field = rp_fields_push(fields);
    apr_size_t name_len = strlen(name);

    field->name = name;
    field->value = value;
    field->name_len = (apr_uint32_t)name_len;
    field->value_len = (apr_uint32_t)strlen(value);
    field->id = rp_field_id_of(name, name_len);
    return field;
}

rp_field *rp_fields_get(const rp_fields *fields, rp_field_id id, int start)
{
    for (int i = start; i < fields->count; i++) {
        if (fields->items[i].id == id) {
            return &fields->items[i];
        }
    }
    return NULL;
}

rp_field *rp_fields_find(const rp_fields *fields, const char *name)
{
    apr_size_t len = strlen(name);

    for (int i = 0; i < fields->count; i++) {
        rp_field *field = &fields->items[i];

        if (field->name_len == len && rp_equals_nocase(field->name, name, len)) {
            return field;
        }
    }
    return NULL;
}

void rp_fields_remove(rp_fields *fields, rp_field_id id)
{
    int kept = 0;

    for (int i = 0; i < fields->count; i++) {
        if (fields->items[i].id != id) {
            if (kept != i) {
                fields->items[kept] = fields->items[i];
            }
            kept++;
        }
    }
    fields->count = kept;
}

void rp_fields_remove_at(rp_fields *fields, int index)
{
    fields->count--;
    memmove(&fields->items[index], &fields->items[index + 1],
            (apr_size_t)(fields->count - index) * sizeof(*fields->items));
}

/* ---- syntax ---------------------------------------------------------------------------------- */

int rp_is_token(const char *text, apr_size_t len)
{
    return len > 0 && rp_scan_class(text, text + len, RP_BYTE_TOKEN) == text + len;
}

int rp_is_field_value(const char *text, apr_size_t len)
{
    return rp_scan_value(text, text + len) == text + len;
}

/** The byte after the quoted-string that begins at p, or NULL if it isn't closed. */
static const char *skip_quoted(const char *p)
{
    for (p++; *p != '"'; p++) {
        if (*p == '\\' && p[1] != '\0') {
            p++;
        }
        else if (*p == '\0') {
            return NULL;
        }
    }
    return p + 1;
}

int rp_list_has_token(const char *value, const char *token)
{
    apr_size_t len = strlen(token);
    int quotes = 1;                     /* 0 after one that isn't closed: it hides nothing then */
    const char *p = value;

    for (;;) {
        const char *start, *end;

        while (rp_is_blank(*p) || *p == ',') {
            p++;
        }
        if (*p == '\0') {
            return 0;
        }
        start = p;
        while (rp_byte_is(*p, RP_BYTE_TOKEN)) {
            p++;
        }
        end = p;
        while (rp_is_blank(*p)) {
            p++;
        }
        if ((apr_size_t)(end - start) == len && (*p == '\0' || *p == ',' || *p == ';')
            && rp_equals_nocase(start, token, len)) {
            return 1;
        }
        while (*p != '\0' && *p != ',') {
            const char *after = *p == '"' && quotes ? skip_quoted(p) : NULL;

            if (*p == '"' && after == NULL) {
                quotes = 0;
            }
            p = after != NULL ? after : p + 1;
        }
    }
}

/* ---- hop-by-hop fields (RFC 9110 section 7.6.1) ---------------------------------------------- */

_Static_assert(RP_FIELD_ID_COUNT <= 64, "they are bits of a word");

#define HOP_BY_HOP                                                                              \
    (RP_FIELD_BIT(RP_FIELD_CONNECTION) | RP_FIELD_BIT(RP_FIELD_HTTP2_SETTINGS)                  \
     | RP_FIELD_BIT(RP_FIELD_KEEP_ALIVE) | RP_FIELD_BIT(RP_FIELD_PROXY)                         \
     | RP_FIELD_BIT(RP_FIELD_PROXY_AUTHENTICATE) | RP_FIELD_BIT(RP_FIELD_PROXY_AUTHORIZATION)   \
     | RP_FIELD_BIT(RP_FIELD_PROXY_CONNECTION) | RP_FIELD_BIT(RP_FIELD_TE)                      \
     | RP_FIELD_BIT(RP_FIELD_TRANSFER_ENCODING) | RP_FIELD_BIT(RP_FIELD_UPGRADE))

/* Fields that a Connection option does not remove: not there any more, or end to end whatever it
 * says. */
#define NOT_REMOVABLE                                                                           \
    (HOP_BY_HOP | RP_FIELD_BIT(RP_FIELD_HOST) | RP_FIELD_BIT(RP_FIELD_CONTENT_LENGTH)           \
     | RP_FIELD_BIT(RP_FIELD_CONTENT_TYPE))

/** Removes what a Connection option of len bytes names. */
static void remove_option(rp_fields *out, const char *option, apr_size_t len)
{
    rp_field_id id = rp_field_id_of(option, len);
    char first = rp_lower(option[0]);

    if (RP_FIELD_BIT(id) & NOT_REMOVABLE) {
        return;
    }
    for (int i = 0; i < out->count; i++) {
        const rp_field *field = &out->items[i];

        if (field->name_len == len && rp_lower(field->name[0]) == first
            && rp_equals_nocase(field->name, option, len)) {
            rp_fields_remove_at(out, i--);
        }
    }
}

static void remove_listed(rp_fields *out, const char *value)
{
    const char *p = value;

    for (;;) {
        const char *start;

        /* Whatever is no token separates: a badly written list removes more, not less. */
        while (*p != '\0' && !rp_byte_is(*p, RP_BYTE_TOKEN)) {
            p++;
        }
        if (*p == '\0') {
            return;
        }
        start = p;
        while (rp_byte_is(*p, RP_BYTE_TOKEN)) {
            p++;
        }
        remove_option(out, start, (apr_size_t)(p - start));
    }
}

void rp_fields_end_to_end(const rp_fields *fields, rp_field_set drop, rp_fields *out)
{
    rp_field_set seen = 0;

    if (out->capacity < out->count + fields->count) {
        grow(out, out->count + fields->count);
    }
    drop |= HOP_BY_HOP;
    for (int i = 0; i < fields->count; i++) {
        rp_field_set bit = RP_FIELD_BIT(fields->items[i].id);

        seen |= bit;
        if (!(bit & drop)) {
            out->items[out->count++] = fields->items[i];
        }
    }
    for (int i = 0; seen & RP_FIELD_BIT(RP_FIELD_CONNECTION) && i < fields->count; i++) {
        if (fields->items[i].id == RP_FIELD_CONNECTION) {
            remove_listed(out, fields->items[i].value);
        }
    }
}
