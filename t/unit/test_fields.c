/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Field lists, ids of names, list values, and which fields end at each hop. */

#include <ctype.h>
#include "rproxy/http/rp_http.h"
#include "t/unit/tap.h"

static apr_pool_t *pool;

static void test_ids(void)
{
    static const struct {
        const char *name;
        rp_field_id id;
    } cases[] = {
        { "Connection", RP_FIELD_CONNECTION },
        { "Content-Length", RP_FIELD_CONTENT_LENGTH },
        { "Content-Location", RP_FIELD_CONTENT_LOCATION },
        { "Content-Type", RP_FIELD_CONTENT_TYPE },
        { "Date", RP_FIELD_DATE },
        { "Destination", RP_FIELD_DESTINATION },
        { "Expect", RP_FIELD_EXPECT },
        { "Forwarded", RP_FIELD_FORWARDED },
        { "Host", RP_FIELD_HOST },
        { "HTTP2-Settings", RP_FIELD_HTTP2_SETTINGS },
        { "Keep-Alive", RP_FIELD_KEEP_ALIVE },
        { "Link", RP_FIELD_LINK },
        { "Location", RP_FIELD_LOCATION },
        { "Proxy", RP_FIELD_PROXY },
        { "Proxy-Authenticate", RP_FIELD_PROXY_AUTHENTICATE },
        { "Proxy-Authorization", RP_FIELD_PROXY_AUTHORIZATION },
        { "Proxy-Connection", RP_FIELD_PROXY_CONNECTION },
        { "Proxy-Status", RP_FIELD_PROXY_STATUS },
        { "Refresh", RP_FIELD_REFRESH },
        { "Server", RP_FIELD_SERVER },
        { "Set-Cookie", RP_FIELD_SET_COOKIE },
        { "TE", RP_FIELD_TE },
        { "Trailer", RP_FIELD_TRAILER },
        { "Transfer-Encoding", RP_FIELD_TRANSFER_ENCODING },
        { "Upgrade", RP_FIELD_UPGRADE },
        { "Via", RP_FIELD_VIA },
        { "X-Accel-Buffering", RP_FIELD_X_ACCEL_BUFFERING },
        { "X-Forwarded-For", RP_FIELD_X_FORWARDED_FOR },
        { "X-Forwarded-Host", RP_FIELD_X_FORWARDED_HOST },
        { "X-Forwarded-Port", RP_FIELD_X_FORWARDED_PORT },
        { "X-Forwarded-Proto", RP_FIELD_X_FORWARDED_PROTO },
        { "X-Request-ID", RP_FIELD_X_REQUEST_ID },
    };
    const int count = sizeof(cases) / sizeof(cases[0]);

    is_number(count, RP_FIELD_ID_COUNT - 1, "every id is in this test");
    for (int i = 0; i < count; i++) {
        apr_size_t len = strlen(cases[i].name);
        char text[32];

        strcpy(text, cases[i].name);
        is_number(rp_field_id_of(text, len), cases[i].id, text);
        is_number(rp_field_id_of(text, len - 1), RP_FIELD_OTHER, "but not without its last byte");
        for (apr_size_t at = 0; at < len; at++) {
            text[at] = (char)toupper((unsigned char)text[at]);
        }
        is_number(rp_field_id_of(text, len), cases[i].id, text);
        text[len / 2] ^= 0x10;
        is_number(rp_field_id_of(text, len), RP_FIELD_OTHER, "but not with another byte in it");
    }
    is_number(rp_field_id_of("Content\rLength", 14), RP_FIELD_OTHER, "CR is no hyphen");
    is_number(rp_field_id_of("", 0), RP_FIELD_OTHER, "the empty name");
    is_number(rp_field_id_of("A-Name-That-Is-Longer-Than-All-Known", 36), RP_FIELD_OTHER, "long");
}

static void test_list(void)
{
    rp_fields fields;
    rp_field *field;

    rp_fields_init(&fields, pool, 1);
    for (int i = 0; i < 100; i++) {
        rp_fields_add(&fields, i % 2 ? "Via" : "X-Other", i % 3 ? "a" : "bc");
    }
    is_number(fields.count, 100, "a list grows");
    field = rp_fields_get(&fields, RP_FIELD_VIA, 0);
    ok(field == &fields.items[1], "the first of an id");
    ok(rp_fields_get(&fields, RP_FIELD_VIA, 2) == &fields.items[3], "the next one");
    ok(rp_fields_get(&fields, RP_FIELD_VIA, 100) == NULL, "none is left");
    ok(rp_fields_get(&fields, RP_FIELD_DATE, 0) == NULL, "none at all");
    ok(rp_fields_find(&fields, "x-oTHER") == &fields.items[0], "by name, in any case");
    ok(rp_fields_find(&fields, "x-othe") == NULL, "not by a part of it");
    is_number(field->name_len, 3, "length of a name");
    is_number(fields.items[3].value_len, 2, "length of a value");
    rp_fields_remove(&fields, RP_FIELD_VIA);
    is_number(fields.count, 50, "one id removed");
    ok(rp_fields_get(&fields, RP_FIELD_VIA, 0) == NULL, "all of it");
    is_text(fields.items[3].value, "bc", "the others stay in order");
    rp_fields_remove(&fields, RP_FIELD_OTHER);
    is_number(fields.count, 0, "all removed");
}

static void test_tokens(void)
{
    static const struct {
        const char *value, *token;
        int has;
    } cases[] = {
        { "close", "close", 1 },
        { "Close", "close", 1 },
        { "keep-alive, close", "close", 1 },
        { " ,,\tclose\t ,", "close", 1 },
        { "close;q=1", "close", 1 },
        { "close ; q=1", "close", 1 },
        { "closed", "close", 0 },
        { "not-close", "close", 0 },
        { "close d", "close", 0 },
        { "x close", "close", 0 },
        { "\"close\"", "close", 0 },
        { "x;y=\"a, close, b\"", "close", 0 },
        { "x;y=\"a\\\", close, b\"", "close", 0 },
        { "x;y=\"a\", close", "close", 1 },
        { "x;y=\"a, close", "close", 1 },
        { "x;y=\"\\", "close", 0 },
        { "", "close", 0 },
        { ",", "close", 0 },
        { "chunked", "chunke", 0 },
        { "clos", "close", 0 },
    };

    for (apr_size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ok(!!rp_list_has_token(cases[i].value, cases[i].token) == cases[i].has,
           "list '%s' %s %s", cases[i].value, cases[i].has ? "has" : "has no", cases[i].token);
    }
}

/** The syntax of bytes against a second, slow opinion. */
static void test_syntax(void)
{
    int tokens = 1, values = 1;

    for (int byte = 0; byte < 256; byte++) {
        int is_token = byte != 0 && byte < 128
                       && (isalnum(byte) || strchr("!#$%&'*+-.^_`|~", byte) != NULL);
        int is_value = byte == '\t' || (byte >= ' ' && byte != 0x7f);

        for (int at = 0; at < 20; at++) {
            char text[20];

            memset(text, 'a', sizeof(text));
            text[at] = (char)byte;
            tokens = tokens && !!rp_is_token(text, sizeof(text)) == is_token;
            values = values && !!rp_is_field_value(text, sizeof(text)) == is_value;
            values = values && rp_is_field_value(text, (apr_size_t)at);
        }
    }
    ok(tokens, "token bytes, at every place");
    ok(values, "field value bytes, at every place");
    ok(!rp_is_token("", 0), "a token isn't empty");
    ok(rp_is_field_value("", 0), "a field value may be empty");
    ok(!rp_is_field_value("\t\t\t\t\t\t\t\t\t\t\t\t\n", 13), "a control byte after many tabs");
}

static void names_of(const rp_fields *fields, char *text)
{
    text[0] = '\0';
    for (int i = 0; i < fields->count; i++) {
        strcat(text, i > 0 ? " " : "");
        strcat(text, fields->items[i].name);
    }
}

static void test_end_to_end(void)
{
    static const char *const names[] = {
        "A", "Host", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Type",
        "HTTP2-Settings", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Proxy",
        "X-Listed", "Content-Length", "b", "x-LISTED", "X-Forwarded-For", "C", "Via", NULL
    };
    rp_fields fields, out;
    char text[400];

    rp_fields_init(&fields, pool, 0);
    rp_fields_init(&out, pool, 0);
    for (int i = 0; names[i] != NULL; i++) {
        rp_fields_add(&fields, names[i], "v");
    }
    out.count = 0;
    rp_fields_end_to_end(&fields, RP_FIELD_BIT(RP_FIELD_TRAILER), &out);
    names_of(&out, text);
    is_text(text, "A Host Content-Type X-Listed Content-Length b x-LISTED X-Forwarded-For C Via",
            "hop-by-hop fields are left behind");
    rp_fields_add(&fields, "Connection", "x-listed, B;\"c\" host,Content-Length , CONTENT-TYPE");
    rp_fields_add(&fields, "D", "d");
    rp_fields_add(&fields, "connection", "d,,close,x-forwarded-for, none, via");
    out.count = 0;
    rp_fields_end_to_end(&fields, RP_FIELD_BIT(RP_FIELD_TRAILER), &out);
    names_of(&out, text);
    is_text(text, "A Host Content-Type Content-Length",
            "so are those that Connection lists, but for Host, length and type");
    out.count = 0;
    rp_fields_end_to_end(&fields, 0, &out);
    names_of(&out, text);
    is_text(text, "A Host Trailer Content-Type Content-Length", "Trailer may be kept");
    is_number(fields.count, 23, "the list itself stays");
    rp_fields_end_to_end(&fields, RP_FIELD_BIT(RP_FIELD_TRAILER) | RP_FIELD_BIT(RP_FIELD_HOST),
                         &out);
    names_of(&out, text);
    is_text(text, "A Host Trailer Content-Type Content-Length A Content-Type Content-Length",
            "others may be left out; what the list held stays");
}

int main(void)
{
    pool = tap_pool();
    test_ids();
    test_list();
    test_tokens();
    test_syntax();
    test_end_to_end();
    return tap_done();
}
