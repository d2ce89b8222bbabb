/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Rules of Header and RequestHeader: which the engine takes, and what they do to fields. */
#include <apr_strings.h>

#include "rproxy/engine/rp_header_rules.h"
#include "t/unit/tap.h"

#define RULES_MAX 8

static apr_pool_t *pool;
static rp_header_rule rules[RULES_MAX];
static int rule_count;

/* ---- helpers --------------------------------------------------------------------------------- */

/* Words between '|': "always|set|X-A|a value". */
static int parse(int is_request, const char *text, rp_header_rule *rule)
{
    char *copy = apr_pstrdup(pool, text), *end;
    const char *words[8];
    int count = 0;

    do {
        end = strchr(copy, '|');
        words[count++] = copy;
        if (end) {
            *end = '\0';
            copy = end + 1;
        }
    } while (end);
    return rp_header_rule_parse(pool, is_request, words, count, rule);
}

static void taken(int is_request, const char *text, const char *value)
{
    rp_header_rule rule;

    ok(parse(is_request, text, &rule), "%s %s", is_request ? "request" : "response", text);
    is_text(rule.field.value, value, "  value");
}

static void refused(int is_request, const char *text)
{
    rp_header_rule rule;

    ok(!parse(is_request, text, &rule), "not %s %s", is_request ? "request" : "response", text);
}

static void add_rule(int is_request, const char *text)
{
    ok(parse(is_request, text, &rules[rule_count++]), "rule %s", text);
}

/* Fields as text: "A: 1, A: 2" is read as such a list and written likewise. */
static rp_fields fields_of(const char *text, int room)
{
    rp_fields fields;
    char *copy = apr_pstrdup(pool, text), *name;

    rp_fields_init(&fields, pool, room);
    while ((name = apr_strtok(copy, ";", &copy))) {
        char *value = strchr(name, '=');

        *value = '\0';
        rp_fields_add(&fields, name, value + 1);
    }
    return fields;
}

static const char *text_of(const rp_fields *fields)
{
    const char *text = "";

    for (int i = 0; i < fields->count; i++) {
        const rp_field *field = &fields->items[i];

        ok(strlen(field->name) == field->name_len && strlen(field->value) == field->value_len
           && field->id == rp_field_id_of(field->name, field->name_len), "lengths, id");
        text = apr_pstrcat(pool, text, i ? ";" : "", field->name, "=", field->value, NULL);
    }
    return text;
}

/* Applies the rules added so far, with and without room in the list, and forgets them. */
static void becomes(int is_request, const char *before, const char *after, const char *name)
{
    const rp_header_rules *made = rp_header_rules_make(pool, rules, rule_count);

    for (int room = 0; room <= 20; room += 20) {
        rp_fields fields = fields_of(before, room);

        if (is_request) {
            rp_header_rules_request(made, &fields);
        }
        else {
            rp_header_rules_response(made, &fields);
        }
        is_text(text_of(&fields), after, name);
    }
    rule_count = 0;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_actions(void)
{
    taken(0, "set|X-A|b", "b");
    taken(0, "SetIfEmpty|X-A|b", "b");
    taken(0, "onsuccess|add|X-A|b", "b");
    taken(0, "Always|append|X-A:|b", "b");
    taken(0, "unset|X-A", "");
    taken(1, "set|X-A|b", "b");
    refused(0, "merge|X-A|b");
    refused(0, "echo|X-A");
    refused(0, "edit|X-A|b|c");
    refused(0, "edit*|X-A|b|c");
    refused(0, "note|X-A|b");
    refused(1, "always|set|X-A|b");
    refused(0, "set|X-A|b|early");
    refused(0, "set|X-A|b|env=c");
    refused(0, "set|X-A|b|expr=true");
    refused(0, "unset|X-A|early");
    refused(0, "set|X-A");
    refused(0, "always");
    refused(0, "");
}

static void test_values(void)
{
    taken(0, "set|X-A|", "");
    taken(0, "set|X-A|100%%", "100%");
    taken(0, "set|X-A|100%", "100%");
    taken(0, "set|X-A|a\\\\b\\c\\t\\", "a\\b\\c\t\\");
    taken(0, "set|X-A| \xe4 ", " \xe4 ");
    refused(0, "set|X-A|%D");
    refused(0, "set|X-A|a%{REMOTE_ADDR}e");
    refused(0, "set|X-A|a\\%t");
    refused(0, "set|X-A|expr=%{REQUEST_URI}");
    refused(0, "set|X-A|a\\nb");
    refused(0, "set|X-A|a\001");
    refused(0, "set|X A|b");
    refused(0, "set|:|b");
}

static void test_special_fields(void)
{
    static const char *const both[] = { "connection", "Content-Length", "Keep-Alive", "TE",
                                        "Trailer", "Transfer-Encoding", "Upgrade" };
    static const char *const requests[] = { "Host", "Expect" };
    static const char *const responses[] = { "Content-Type", "Date", "Server", "vary" };

    for (apr_size_t i = 0; i < sizeof(both) / sizeof(both[0]); i++) {
        refused(0, apr_pstrcat(pool, "unset|", both[i], NULL));
        refused(1, apr_pstrcat(pool, "unset|", both[i], NULL));
    }
    for (apr_size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        refused(1, apr_pstrcat(pool, "unset|", requests[i], NULL));
    }
    for (apr_size_t i = 0; i < sizeof(responses) / sizeof(responses[0]); i++) {
        refused(0, apr_pstrcat(pool, "always|add|", responses[i], "|x", NULL));
        taken(1, apr_pstrcat(pool, "add|", responses[i], "|x", NULL), "x");
    }
    taken(1, "set|X-Forwarded-Proto|https", "https");
}

static void test_responses(void)
{
    add_rule(0, "set|X-A|new");
    becomes(0, "x-a=1;B=2;X-A=3", "x-a=new;B=2", "set replaces the first and removes the others");
    add_rule(0, "set|X-A|new");
    becomes(0, "B=2", "B=2;X-A=new", "set of none adds");
    add_rule(0, "setifempty|X-A|new");
    add_rule(0, "setifempty|X-B|new");
    becomes(0, "X-A=", "X-A=;X-B=new", "setifempty keeps what is there, also without a value");
    add_rule(0, "add|X-A|new");
    add_rule(0, "add|X-A|new");
    becomes(0, "X-A=1", "X-A=1;X-A=new;X-A=new", "add");
    add_rule(0, "append|Cache-Control|private");
    becomes(0, "Cache-Control=a;Cache-Control=b", "Cache-Control=a, private;Cache-Control=b",
            "append to the first");
    add_rule(0, "append|X-A|1");
    add_rule(0, "append|X-A|2");
    becomes(0, "", "X-A=1, 2", "append to none, and to that");
    add_rule(0, "unset|location");
    add_rule(0, "unset|X-B");
    becomes(0, "Location=1;B=2;LOCATION=3;X-Bc=4", "B=2;X-Bc=4", "unset removes all");
    add_rule(0, "unset|X-A");
    add_rule(0, "add|X-A|new");
    becomes(0, "X-A=1;X-A=2", "X-A=new", "in this order");
    add_rule(1, "set|X-A|1");
    becomes(0, "B=2", "B=2", "nothing for responses");
}

static void test_always(void)
{
    add_rule(0, "always|set|X-A|1");
    add_rule(0, "always|append|X-A|2");
    add_rule(0, "always|unset|X-B");
    add_rule(0, "set|X-A|3");
    becomes(0, "X-B=0;X-A=0", "X-A=1, 2;X-B=0;X-A=3", "a table of its own, in front");
    add_rule(0, "always|add|X-A|1");
    add_rule(0, "always|add|X-C|1");
    add_rule(0, "always|unset|X-A");
    becomes(0, "", "X-C=1", "alone");
}

static void test_requests(void)
{
    const rp_header_rules *made;
    rp_fields fields = fields_of("X-A=1", 8);

    add_rule(1, "append|X-A|new");
    becomes(1, "X-A=1;B=2;x-a=3", "X-A=1, 3, new;B=2", "append to what httpd has joined");
    add_rule(1, "add|X-A|more");
    add_rule(1, "append|X-A|new");
    becomes(1, "X-A=1;X-A=2", "X-A=1, 2, new;X-A=more", "joined before other rules");
    add_rule(1, "add|X-A|2");
    add_rule(1, "set|X-B|3");
    made = rp_header_rules_make(pool, rules, rule_count);
    rp_header_rules_request(made, &fields);
    is_text(text_of(&fields), "X-A=1;X-A=2;X-B=3", "add, set");
    ok(!rp_header_rules_made(made, &fields.items[0]), "the client's");
    ok(rp_header_rules_made(made, &fields.items[1]), "a rule's");
    ok(rp_header_rules_made(made, &fields.items[2]), "a rule's, too");
    ok(!rp_header_rules_make(pool, rules, 0), "no rules at all");
}

int main(void)
{
    apr_initialize();
    apr_pool_create(&pool, NULL);
    test_actions();
    test_values();
    test_special_fields();
    test_responses();
    test_always();
    test_requests();
    return tap_done();
}
