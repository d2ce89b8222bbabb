/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Deadlines in order. */

#include <stdlib.h>
#include "rproxy/rp_heap.h"
#include "t/unit/tap.h"

#define MANY 1000

static rp_heap heap;
static rp_heap_entry entries[MANY];

/* A fixed sequence that jumps about. */
static apr_time_t next_value(void)
{
    static apr_uint32_t state = 12345;

    state = state * 1664525u + 1013904223u;
    return state >> 16;
}

static int is_sound(void)
{
    for (unsigned int i = 1; i <= heap.count; i++) {
        if (heap.entries[i]->index != i
            || (i > 1 && heap.entries[i / 2]->due > heap.entries[i]->due)) {
            return 0;
        }
    }
    return 1;
}

/* Takes all out, first one first: nonzero if they come in order, expected of them. */
static int comes_in_order(unsigned int expected)
{
    apr_time_t before = 0;
    unsigned int count = 0;
    rp_heap_entry *first;

    while ((first = rp_heap_first(&heap))) {
        if (first->due < before) {
            return 0;
        }
        before = first->due;
        rp_heap_remove(&heap, first);
        count += first->index == 0;
    }
    return count == expected;
}

int main(void)
{
    int sound = 1;

    ok(rp_heap_first(&heap) == NULL, "an empty heap has no first entry");
    rp_heap_remove(&heap, &entries[0]);
    is_number(heap.count, 0, "taking out what isn't in it is nothing");

    rp_heap_set(&heap, &entries[0], 30);
    rp_heap_set(&heap, &entries[1], 10);
    rp_heap_set(&heap, &entries[2], 20);
    ok(rp_heap_first(&heap) == &entries[1], "what is due first is first");
    rp_heap_set(&heap, &entries[1], 40);
    ok(rp_heap_first(&heap) == &entries[2], "an entry moves back");
    rp_heap_set(&heap, &entries[0], 5);
    ok(rp_heap_first(&heap) == &entries[0], "and forth");
    is_number(heap.count, 3, "without being added twice");
    rp_heap_remove(&heap, &entries[2]);
    is_number(entries[2].index, 0, "an entry taken out knows it");
    ok(comes_in_order(2), "the others are still there, in order");

    for (int i = 0; i < MANY; i++) {
        rp_heap_set(&heap, &entries[i], next_value());
    }
    ok(is_sound(), "it grows with what is in it");
    for (int i = 0; i < MANY; i += 3) {
        rp_heap_remove(&heap, &entries[i]);
        rp_heap_set(&heap, &entries[(i + 1) % MANY], next_value());
        sound = sound && is_sound();
    }
    ok(sound, "it stays in order while entries go and move");
    ok(comes_in_order(heap.count), "all come out in order");
    rp_heap_free(&heap);
    ok(heap.entries == NULL && heap.capacity == 0, "freed it is as new");
    rp_heap_set(&heap, &entries[0], 1);
    ok(rp_heap_first(&heap) == &entries[0], "and can be used again");
    rp_heap_free(&heap);
    return tap_done();
}
