/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <string.h>
#include <strings.h>
#include <apr_strings.h>
#include "rproxy/engine/rp_header_rules.h"

/* ---- parsing --------------------------------------------------------------------------------- */

static int read_action(const char *word, rp_header_action *action)
{
    static const struct {
        const char *name;
        rp_header_action action;
    } known[] = {
        { "set", RP_HEADER_SET },
        { "setifempty", RP_HEADER_SET_IF_EMPTY },
        { "add", RP_HEADER_ADD },
        { "append", RP_HEADER_APPEND },
        { "unset", RP_HEADER_UNSET }
    };

    for (apr_size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcasecmp(word, known[i].name) == 0) {
            *action = known[i].action;
            return 1;
        }
    }
    return 0;
}

/* Nonzero for fields that say how a message or its connection ends, that httpd keeps elsewhere than
 * among the fields, or rewrites behind mod_headers (Vary). */
static int is_special(const rp_field *field, int is_request)
{
    switch (field->id) {
    case RP_FIELD_CONNECTION:
    case RP_FIELD_CONTENT_LENGTH:
    case RP_FIELD_KEEP_ALIVE:
    case RP_FIELD_TE:
    case RP_FIELD_TRAILER:
    case RP_FIELD_TRANSFER_ENCODING:
    case RP_FIELD_UPGRADE:
        return 1;
    case RP_FIELD_EXPECT:
    case RP_FIELD_HOST:
        return is_request;
    case RP_FIELD_CONTENT_TYPE:
    case RP_FIELD_DATE:
    case RP_FIELD_SERVER:
        return !is_request;
    default:
        return !is_request && strcasecmp(field->name, "Vary") == 0;
    }
}

/* The value as mod_headers sends it; NULL if it isn't the same for each request. */
static const char *constant_value(apr_pool_t *pool, const char *text)
{
    char *value = apr_palloc(pool, strlen(text) + 1);
    char *out = value;

    if (strncmp(text, "expr=", 5) == 0) {
        return NULL;
    }
    for (const char *p = text; *p; p++) {
        *out++ = *p;
        if (*p == '%' && p[1] == '%') {
            p++;
        }
        else if (*p == '%' && p[1]) {
            return NULL;
        }
        else if (*p == '\\' && (p[1] == '\\' || p[1] == 't')) {
            out[-1] = *++p == 't' ? '\t' : '\\';
        }
        else if (*p == '\\' && (p[1] == 'r' || p[1] == 'n')) {
            return NULL;                /* a line end, which httpd refuses to send */
        }
    }
    *out = '\0';
    return value;
}

/* Fills in field. Zero: it isn't one for a rule. */
static int read_field(apr_pool_t *pool, int is_request, const char *name, const char *value,
                      rp_field *field)
{
    apr_size_t len = strcspn(name, ":");

    field->name = apr_pstrmemdup(pool, name, len);
    field->name_len = (apr_uint32_t)len;
    field->id = rp_field_id_of(field->name, len);
    field->value = constant_value(pool, value);
    if (!field->value) {
        return 0;
    }
    field->value_len = (apr_uint32_t)strlen(field->value);
    return rp_is_token(field->name, len) && rp_is_field_value(field->value, field->value_len)
        && !is_special(field, is_request);
}

int rp_header_rule_parse(apr_pool_t *pool, int is_request, const char *const *words, int count,
                         rp_header_rule *rule)
{
    rule->place = is_request ? RP_HEADER_REQUEST : RP_HEADER_RESPONSE;
    if (!is_request && count > 0) {
        if (strcasecmp(words[0], "always") == 0) {
            rule->place = RP_HEADER_ALWAYS;
        }
        if (rule->place == RP_HEADER_ALWAYS || strcasecmp(words[0], "onsuccess") == 0) {
            words++;
            count--;
        }
    }
    /* One word more is a condition. */
    return count >= 2 && read_action(words[0], &rule->action)
        && count == (rule->action == RP_HEADER_UNSET ? 2 : 3)
        && read_field(pool, is_request, words[1], count == 3 ? words[2] : "", &rule->field);
}

/* ---- applying: as the functions for apr_table_t that mod_headers uses ------------------------ */

static int has_name_of(const rp_field *field, const rp_field *other)
{
    return field->id == other->id && field->name_len == other->name_len
        && (field->id != RP_FIELD_OTHER
            || strncasecmp(field->name, other->name, other->name_len) == 0);
}

static rp_field *find(const rp_fields *fields, const rp_field *like)
{
    for (int i = 0; i < fields->count; i++) {
        if (has_name_of(&fields->items[i], like)) {
            return &fields->items[i];
        }
    }
    return NULL;
}

/* Removes the fields of this name from start on. */
static void remove_all(rp_fields *fields, const rp_field *like, int start)
{
    int kept = start;

    for (int i = start; i < fields->count; i++) {
        if (!has_name_of(&fields->items[i], like)) {
            fields->items[kept++] = fields->items[i];
        }
    }
    fields->count = kept;
}

/* field: of the list, which may be that of more. */
static void append(apr_pool_t *pool, rp_field *field, const rp_field *more)
{
    apr_uint32_t len = field->value_len + 2 + more->value_len;
    char *value = apr_palloc(pool, (apr_size_t)len + 1);

    memcpy(value, field->value, field->value_len);
    memcpy(value + field->value_len, ", ", 2);
    memcpy(value + field->value_len + 2, more->value, more->value_len);
    value[len] = '\0';
    field->value = value;
    field->value_len = len;
}

static void join(rp_fields *fields, rp_field *first, const rp_field *like)
{
    int start = (int)(first - fields->items) + 1;

    for (int i = start; i < fields->count; i++) {
        if (has_name_of(&fields->items[i], like)) {
            append(fields->pool, first, &fields->items[i]);
        }
    }
    remove_all(fields, like, start);
}

static void apply(const rp_header_rule *rule, rp_fields *fields)
{
    const rp_field *field = &rule->field;
    rp_field *found = rule->action == RP_HEADER_ADD ? NULL : find(fields, field);

    if (!found) {
        if (rule->action != RP_HEADER_UNSET && rule->action != RP_HEADER_JOIN) {
            *rp_fields_push(fields) = *field;
        }
        return;
    }
    switch (rule->action) {
    case RP_HEADER_SET:
        found->value = field->value;
        found->value_len = field->value_len;
        remove_all(fields, field, (int)(found - fields->items) + 1);
        break;
    case RP_HEADER_APPEND:
        append(fields->pool, found, field);
        break;
    case RP_HEADER_UNSET:
        remove_all(fields, field, (int)(found - fields->items));
        break;
    case RP_HEADER_JOIN:
        join(fields, found, field);
        break;
    case RP_HEADER_ADD:
    case RP_HEADER_SET_IF_EMPTY:
        break;
    }
}

void rp_header_rules_request(const rp_header_rules *rules, rp_fields *fields)
{
    for (int i = 0; i < rules->request_count; i++) {
        apply(&rules->request[i], fields);
    }
}

void rp_header_rules_response(const rp_header_rules *rules, rp_fields *fields)
{
    for (int i = 0; i < rules->response_count; i++) {
        apply(&rules->response[i], fields);
    }
    rp_header_rules_always(rules, fields);
}

void rp_header_rules_always(const rp_header_rules *rules, rp_fields *fields)
{
    int count = fields->count;

    if (rules->always_count == 0) {
        return;
    }
    for (int i = 0; i < rules->always_count; i++) {
        rp_fields_push(fields);
    }
    memmove(fields->items + rules->always_count, fields->items,
            (apr_size_t)count * sizeof(*fields->items));
    memcpy(fields->items, rules->always,
           (apr_size_t)rules->always_count * sizeof(*fields->items));
}

int rp_header_rules_made(const rp_header_rules *rules, const rp_field *field)
{
    for (int i = 0; i < rules->request_count; i++) {
        if (rules->request[i].field.name == field->name) {
            return 1;
        }
    }
    return 0;
}

/* ---- preparing ------------------------------------------------------------------------------- */

const rp_header_rules *rp_header_rules_make(apr_pool_t *pool, const rp_header_rule *rules,
                                            int count)
{
    rp_header_rules *made;
    rp_header_rule *request, *response;
    rp_fields always;

    if (count == 0) {
        return NULL;
    }
    made = apr_pcalloc(pool, sizeof(*made));
    made->request = request = apr_palloc(pool, 2 * (apr_size_t)count * sizeof(*request));
    made->response = response = apr_palloc(pool, (apr_size_t)count * sizeof(*response));
    rp_fields_init(&always, pool, 0);
    for (int i = 0; i < count; i++) {
        if (rules[i].place == RP_HEADER_REQUEST && rules[i].action == RP_HEADER_APPEND) {
            request[made->request_count] = rules[i];
            request[made->request_count++].action = RP_HEADER_JOIN;
        }
    }
    for (int i = 0; i < count; i++) {
        switch (rules[i].place) {
        case RP_HEADER_REQUEST:
            request[made->request_count++] = rules[i];
            break;
        case RP_HEADER_RESPONSE:
            response[made->response_count++] = rules[i];
            break;
        case RP_HEADER_ALWAYS:
            apply(&rules[i], &always);
            break;
        }
    }
    made->always = always.items;
    made->always_count = always.count;
    return made;
}
