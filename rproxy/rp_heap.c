/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <stdlib.h>
#include "rproxy/rp_heap.h"

#define FIRST_CAPACITY 64

static void place(rp_heap *heap, unsigned int index, rp_heap_entry *entry)
{
    heap->entries[index] = entry;
    entry->index = index;
}

static void sift_up(rp_heap *heap, rp_heap_entry *entry)
{
    unsigned int index = entry->index;

    for (; index > 1 && heap->entries[index / 2]->due > entry->due; index /= 2) {
        place(heap, index, heap->entries[index / 2]);
    }
    place(heap, index, entry);
}

static void sift_down(rp_heap *heap, rp_heap_entry *entry)
{
    unsigned int index = entry->index;

    for (unsigned int child = index * 2; child <= heap->count; child = index * 2) {
        if (child < heap->count && heap->entries[child + 1]->due < heap->entries[child]->due) {
            child++;
        }
        if (heap->entries[child]->due >= entry->due) {
            break;
        }
        place(heap, index, heap->entries[child]);
        index = child;
    }
    place(heap, index, entry);
}

static void make_room(rp_heap *heap)
{
    unsigned int capacity = heap->capacity ? heap->capacity * 2 : FIRST_CAPACITY;
    rp_heap_entry **larger = realloc(heap->entries, capacity * sizeof(rp_heap_entry *));

    if (!larger) {
        abort();
    }
    heap->entries = larger;
    heap->capacity = capacity;
}

void rp_heap_set(rp_heap *heap, rp_heap_entry *entry, apr_time_t due)
{
    entry->due = due;
    if (!entry->index) {
        if (heap->count + 1 >= heap->capacity) {
            make_room(heap);
        }
        place(heap, ++heap->count, entry);
    }
    sift_up(heap, entry);
    sift_down(heap, entry);
}

void rp_heap_remove(rp_heap *heap, rp_heap_entry *entry)
{
    rp_heap_entry *last;

    if (!entry->index) {
        return;
    }
    last = heap->entries[heap->count--];
    if (last != entry) {
        place(heap, entry->index, last);
        sift_up(heap, last);
        sift_down(heap, last);
    }
    entry->index = 0;
}

void rp_heap_free(rp_heap *heap)
{
    free(heap->entries);
    *heap = (rp_heap){ 0 };
}
