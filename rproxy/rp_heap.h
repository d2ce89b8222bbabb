/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Deadlines in order: a binary heap of entries that are embedded in their owners. No locks: the
 * heap's owner guards it. Memory for the array comes from malloc and is given back with
 * rp_heap_free(). */
#ifndef RP_HEAP_H
#define RP_HEAP_H

#include <apr_time.h>

/** Zero-initialise. */
typedef struct rp_heap_entry {
    apr_time_t due;
    unsigned int index;                 /* place in the heap, from 1; 0: not in it */
} rp_heap_entry;

typedef struct rp_heap {
    rp_heap_entry **entries;            /* from 1 */
    unsigned int count;
    unsigned int capacity;
} rp_heap;

/** Adds an entry, or moves one that is in it already, to due. Aborts without memory, as httpd
 * does. */
void rp_heap_set(rp_heap *heap, rp_heap_entry *entry, apr_time_t due);

/** Takes an entry out; also one that isn't in it. */
void rp_heap_remove(rp_heap *heap, rp_heap_entry *entry);

/** The entry that is due first; NULL: none. */
static inline rp_heap_entry *rp_heap_first(const rp_heap *heap)
{
    return heap->count ? heap->entries[1] : NULL;
}

void rp_heap_free(rp_heap *heap);

#endif
