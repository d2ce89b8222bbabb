/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The heads of an exchange: what the upstream is told about the request and the client, and what
 * the client gets to see of the response's fields. Everything set here comes after the hop-by-hop
 * fields were removed, so that no Connection option can make it vanish (CVE-2022-31813). */

#include <string.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include "rproxy/exchange/rp_exchange_private.h"

int rp_method_is_idempotent(const char *method)
{
    static const char *const idempotent[] = { "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE",
                                              "PROPFIND", "SEARCH", "REPORT", "QUERY" };

    for (apr_size_t i = 0; i < sizeof(idempotent) / sizeof(idempotent[0]); i++) {
        if (strcmp(method, idempotent[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

static int has_body(const rp_request *request)
{
    return request->framing != RP_BODY_NONE
        && !(request->framing == RP_BODY_LENGTH && request->content_length == 0);
}

/* Nonzero if a list field, which may stand there more than once, has this member. */
static int names(const rp_fields *fields, rp_field_id id, const char *member)
{
    const rp_field *field = rp_fields_get(fields, id, 0);

    while (field && !rp_list_has_token(field->value, member)) {
        field = rp_fields_get(fields, id, (int)(field - fields->items) + 1);
    }
    return field != NULL;
}

/* The protocol to ask the upstream to switch to, as RProxyUpgrade allows; NULL: none. An upgrade is
 * one token; h2c is mod_http2's business and never travels (RFC 9113 section 3.1). */
static const char *wanted_upgrade(const rp_exchange *x)
{
    const rp_request *request = x->request;
    const rp_field *upgrade = rp_fields_get(&request->fields, RP_FIELD_UPGRADE, 0);

    if (!upgrade || !rp_upgrade_allows(x->settings->upgrade, upgrade->value)
        || request->minor_version < 1 || has_body(request)
        || !names(&request->fields, RP_FIELD_CONNECTION, "upgrade")
        || (strcasecmp(upgrade->value, "websocket") == 0 && strcmp(request->method, "GET") != 0)) {
        return NULL;
    }
    return upgrade->value;
}

/* An address in the form of RFC 7239 section 6: IPv6 in brackets and quotes. */
static const char *forwarded_node(apr_pool_t *pool, const char *address)
{
    return strchr(address, ':') ? apr_psprintf(pool, "\"[%s]\"", address) : address;
}

/* Fields that tell of the way so far: only a trusted peer's word counts. */
#define FORWARDING_FIELDS                                                                   \
    (RP_FIELD_BIT(RP_FIELD_X_FORWARDED_FOR) | RP_FIELD_BIT(RP_FIELD_X_FORWARDED_PROTO)      \
     | RP_FIELD_BIT(RP_FIELD_X_FORWARDED_HOST) | RP_FIELD_BIT(RP_FIELD_X_FORWARDED_PORT)    \
     | RP_FIELD_BIT(RP_FIELD_FORWARDED))

/* Behind what a trusted peer sent; of others nothing is left in out. */
static void append_or_set(rp_fields *out, rp_field_id id, const char *name, const char *value,
                          int trusted)
{
    const rp_field *before = trusted ? rp_fields_get(out, id, 0) : NULL;
    const char *joined = value;

    if (before) {
        for (; before; before = rp_fields_get(out, id, (int)(before - out->items) + 1)) {
            joined = joined == value ? before->value
                                     : apr_pstrcat(out->pool, joined, ", ", before->value, NULL);
        }
        joined = apr_pstrcat(out->pool, joined, ", ", value, NULL);
        rp_fields_remove(out, id);
    }
    rp_fields_add_known(out, id, name, joined);
}

/* X-Forwarded-Proto, -Host and -Port describe the client's side of the first proxy: a trusted
 * peer's word counts. */
static void keep_or_set(rp_fields *out, rp_field_id id, const char *name, const char *value,
                        int trusted)
{
    if (!trusted || !rp_fields_get(out, id, 0)) {
        rp_fields_add_known(out, id, name, value);
    }
}

static void add_forwarding(const rp_exchange *x, rp_fields *out)
{
    const rp_request *request = x->request;
    int trusted = request->peer_trusted;
    rp_forwarded mode = x->settings->forwarded;

    if (mode & RP_FORWARDED_X) {
        append_or_set(out, RP_FIELD_X_FORWARDED_FOR, "X-Forwarded-For", request->peer_ip, trusted);
        keep_or_set(out, RP_FIELD_X_FORWARDED_PROTO, "X-Forwarded-Proto", request->scheme, trusted);
        if (*request->authority) {
            keep_or_set(out, RP_FIELD_X_FORWARDED_HOST, "X-Forwarded-Host", request->authority,
                        trusted);
        }
        keep_or_set(out, RP_FIELD_X_FORWARDED_PORT, "X-Forwarded-Port",
                    apr_itoa(out->pool, request->local_port), trusted);
    }
    if (mode & RP_FORWARDED_RFC7239) {
        const char *host = *request->authority
            ? apr_pstrcat(out->pool, ";host=\"", request->authority, "\"", NULL) : "";

        append_or_set(out, RP_FIELD_FORWARDED, "Forwarded",
                      apr_pstrcat(out->pool, "for=", forwarded_node(out->pool, request->peer_ip),
                                  host, ";proto=", request->scheme, NULL), trusted);
    }
}

static void add_framing(const rp_exchange *x, rp_fields *out)
{
    if (x->request->framing == RP_BODY_LENGTH) {
        rp_fields_add_known(out, RP_FIELD_CONTENT_LENGTH, "Content-Length",
                      apr_off_t_toa(out->pool, (apr_off_t)x->request->content_length));
    }
    else if (x->request->framing == RP_BODY_CHUNKED) {
        rp_fields_add_known(out, RP_FIELD_TRANSFER_ENCODING, "Transfer-Encoding", "chunked");
    }
}

/* Connection and the fields it names. Without an upgrade and trailers nothing is said: HTTP/1.1
 * connections persist by default. */
static void add_connection(rp_exchange *x, rp_fields *out)
{
    int trailers = names(&x->request->fields, RP_FIELD_TE, "trailers");

    x->upgrade_protocol = wanted_upgrade(x);
    if (x->upgrade_protocol) {
        rp_fields_add_known(out, RP_FIELD_CONNECTION, "Connection", "Upgrade");
        rp_fields_add_known(out, RP_FIELD_UPGRADE, "Upgrade", x->upgrade_protocol);
    }
    else if (trailers) {
        rp_fields_add_known(out, RP_FIELD_CONNECTION, "Connection", "TE");
    }
    if (trailers && !x->upgrade_protocol) {
        rp_fields_add_known(out, RP_FIELD_TE, "TE", "trailers");
    }
}

/* With the version received (RFC 9110 section 7.6.3); nearly always that of the settings. */
static const char *via_of(const rp_exchange *x)
{
    const char *via = x->settings->via;
    const char *version = x->request->major_version > 1 ? "2.0"
        : x->request->minor_version < 1 ? "1.0" : NULL;

    return version ? apr_pstrcat(x->pool, version, via + strlen(version), NULL) : via;
}

static void set_cookie_field(rp_fields *out, const char *value)
{
    const rp_field *field;

    while ((field = rp_fields_find(out, "Cookie"))) {
        rp_fields_remove_at(out, (int)(field - out->items));
    }
    if (*value) {
        rp_fields_add(out, "Cookie", value);
    }
}

rp_reason rp_exchange_write_head(rp_exchange *x)
{
    const rp_request *request = x->request;
    const char *host = x->settings->preserve_host && *request->authority
        ? request->authority : x->address->authority;
    rp_field_set drop = RP_FIELD_BIT(RP_FIELD_HOST) | RP_FIELD_BIT(RP_FIELD_CONTENT_LENGTH)
        | RP_FIELD_BIT(RP_FIELD_X_REQUEST_ID);
    rp_fields fields;

    if (!request->peer_trusted) {
        drop |= FORWARDING_FIELDS;
    }
    if (request->framing != RP_BODY_CHUNKED) {
        drop |= RP_FIELD_BIT(RP_FIELD_TRAILER);
    }
    rp_fields_init(&fields, x->pool, request->fields.count + 12);
    rp_fields_add_known(&fields, RP_FIELD_HOST, "Host", host);
    rp_fields_end_to_end(&request->fields, drop, &fields);
    if (rp_exchange_member_cookie(x)) {
        set_cookie_field(&fields, rp_exchange_member_cookie(x));
    }
    add_forwarding(x, &fields);
    rp_fields_add_known(&fields, RP_FIELD_VIA, "Via", via_of(x));
    rp_fields_add_known(&fields, RP_FIELD_X_REQUEST_ID, "X-Request-ID", request->request_id);
    add_framing(x, &fields);
    add_connection(x, &fields);

    rp_buffer_init(&x->head, x->pool, 1024);
    return rp_http_write_request(&x->head, request->method, x->target, &fields) == RP_HTTP_OK
        ? RP_REASON_NONE : RP_REASON_BAD_REQUEST;
}

/* Fields whose values may name the upstream's own addresses. */
#define MAPPED_FIELDS                                                                           \
    (RP_FIELD_BIT(RP_FIELD_LOCATION) | RP_FIELD_BIT(RP_FIELD_CONTENT_LOCATION)                  \
     | RP_FIELD_BIT(RP_FIELD_DESTINATION) | RP_FIELD_BIT(RP_FIELD_REFRESH)                      \
     | RP_FIELD_BIT(RP_FIELD_LINK) | RP_FIELD_BIT(RP_FIELD_SET_COOKIE))

void rp_exchange_map_fields(const rp_exchange *x, rp_fields *out)
{
    rp_field_set drop = RP_FIELD_BIT(RP_FIELD_X_ACCEL_BUFFERING);
    int type = -1;                      /* where Content-Type is */

    if (x->response.framing != RP_BODY_CHUNKED) {
        drop |= RP_FIELD_BIT(RP_FIELD_TRAILER);
    }
    rp_fields_init(out, x->pool, x->response.fields.count + 8);
    rp_fields_end_to_end(&x->response.fields, drop, out);
    for (int i = 0; i < out->count; i++) {
        rp_field *field = &out->items[i];

        if (field->id == RP_FIELD_CONTENT_TYPE) {
            /* The last one counts, where an upstream sends more. */
            if (type >= 0) {
                rp_fields_remove_at(out, type);
                i--;
            }
            type = i;
        }
        else if (RP_FIELD_BIT(field->id) & MAPPED_FIELDS) {
            const char *value = rp_reverse_field(x->pool, x->reverse, field);

            if (value != field->value) {
                field->value = value;
                field->value_len = (apr_uint32_t)strlen(value);
            }
        }
    }
    if (x->response.status == 101) {
        rp_fields_add_known(out, RP_FIELD_CONNECTION, "Connection", "Upgrade");
        rp_fields_add_known(out, RP_FIELD_UPGRADE, "Upgrade", x->upgrade_protocol);
    }
}
