/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What Header and RequestHeader of mod_headers do to the requests of a route, where that is easy to
 * do without it: set, setifempty, add, append and unset with a constant value.
 *
 * Rules are parsed in check_config and immutable afterwards: any thread may apply them. They know
 * lists of fields only, no protocol. As in httpd, where:
 * - RequestHeader acts on the client's fields before the proxy adds its own;
 * - Header acts on the upstream's fields, after reverse mapping and before httpd adds its own;
 * - Header always acts on a table of its own, empty at first, that goes in front of the others: it
 *   neither replaces nor removes what the upstream has sent.
 * None of them sees interim responses and 101. */
#ifndef RP_HEADER_RULES_H
#define RP_HEADER_RULES_H

#include "rproxy/http/rp_http.h"

typedef enum rp_header_place {
    RP_HEADER_REQUEST,                  /* RequestHeader */
    RP_HEADER_RESPONSE,                 /* Header, Header onsuccess */
    RP_HEADER_ALWAYS                    /* Header always */
} rp_header_place;

typedef enum rp_header_action {
    RP_HEADER_SET,
    RP_HEADER_SET_IF_EMPTY,
    RP_HEADER_ADD,
    RP_HEADER_APPEND,
    RP_HEADER_UNSET,
    RP_HEADER_JOIN                      /* made in front of append: httpd joins the client's fields
                                         * of one name before mod_headers sees them */
} rp_header_action;

typedef struct rp_header_rule {
    rp_header_place place;
    rp_header_action action;
    rp_field field;                     /* of UNSET and JOIN only the name counts */
} rp_header_rule;

/** All rules of a route, in the order in which they apply. */
typedef struct rp_header_rules {
    const rp_header_rule *request;
    const rp_header_rule *response;
    const rp_field *always;             /* what the rules for it make of an empty table */
    int request_count;
    int response_count;
    int always_count;
} rp_header_rules;

/** Reads the words of a directive. Zero: only mod_headers can do it, for it is another action, a
 * value with format specifiers, a condition, or a field that is more than text to httpd. */
int rp_header_rule_parse(apr_pool_t *pool, int is_request, const char *const *words, int count,
                         rp_header_rule *rule);

/** Prepares rules for use; NULL if count is 0. Shares the strings. */
const rp_header_rules *rp_header_rules_make(apr_pool_t *pool, const rp_header_rule *rules,
                                            int count);

/** Applies what is for requests: fields as received, ids filled in. */
void rp_header_rules_request(const rp_header_rules *rules, rp_fields *fields);

/** Applies what is for responses: the final head's fields without those that we add. */
void rp_header_rules_response(const rp_header_rules *rules, rp_fields *fields);

/** Of these, what is for answers of the proxy's own, too. */
void rp_header_rules_always(const rp_header_rules *rules, rp_fields *fields);

/** Nonzero if a field of a request that the rules were applied to is not the client's: where httpd
 * joins fields of one name, it stays on its own. */
int rp_header_rules_made(const rp_header_rules *rules, const rp_field *field);

#endif
