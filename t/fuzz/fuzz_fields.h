/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What must hold for the fields of any head that was accepted. */
#ifndef FUZZ_FIELDS_H
#define FUZZ_FIELDS_H

#include "rproxy/http/rp_http.h"
#include "t/fuzz/fuzz.h"

static inline void fuzz_same_fields(const rp_fields *a, const rp_fields *b)
{
    FUZZ_ASSERT(a->count == b->count);
    for (int i = 0; i < a->count; i++) {
        FUZZ_ASSERT(strcmp(a->items[i].name, b->items[i].name) == 0);
        FUZZ_ASSERT(strcmp(a->items[i].value, b->items[i].value) == 0);
        FUZZ_ASSERT(a->items[i].id == b->items[i].id);
    }
}

static inline void fuzz_check_fields(const rp_fields *fields)
{
    rp_fields once, twice;

    FUZZ_ASSERT(fields->count <= RP_HTTP_FIELDS_MAX);
    for (int i = 0; i < fields->count; i++) {
        const rp_field *field = &fields->items[i];

        FUZZ_ASSERT(strlen(field->name) == field->name_len);
        FUZZ_ASSERT(strlen(field->value) == field->value_len);
        FUZZ_ASSERT(rp_is_token(field->name, field->name_len));
        FUZZ_ASSERT(rp_is_field_value(field->value, field->value_len));
        FUZZ_ASSERT(field->id == rp_field_id_of(field->name, field->name_len));
        FUZZ_ASSERT(rp_fields_find(fields, field->name) != NULL);
    }
    rp_fields_init(&once, FUZZ_POOL, 0);
    rp_fields_init(&twice, FUZZ_POOL, 0);
    rp_fields_end_to_end(fields, RP_FIELD_BIT(RP_FIELD_TRAILER), &once);
    FUZZ_ASSERT(once.count <= fields->count);
    FUZZ_ASSERT(rp_fields_get(&once, RP_FIELD_CONNECTION, 0) == NULL);
    FUZZ_ASSERT(rp_fields_get(&once, RP_FIELD_TRANSFER_ENCODING, 0) == NULL);
    for (int i = 0; i < once.count; i++) {
        const rp_field *field = &once.items[i];

        for (int j = 0; j < fields->count; j++) {
            FUZZ_ASSERT(fields->items[j].id != RP_FIELD_CONNECTION
                        || field->id == RP_FIELD_HOST || field->id == RP_FIELD_CONTENT_LENGTH
                        || field->id == RP_FIELD_CONTENT_TYPE
                        || !rp_list_has_token(fields->items[j].value, field->name));
        }
    }
    rp_fields_end_to_end(&once, RP_FIELD_BIT(RP_FIELD_TRAILER), &twice);
    fuzz_same_fields(&once, &twice);
}

#endif
