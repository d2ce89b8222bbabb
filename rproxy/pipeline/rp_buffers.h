/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Buffers for response bodies. They come from short lists of the child, not from the connection's
 * allocator, so that idle connections and tunnels keep none. Any thread may give back what another
 * one took. */
#ifndef RP_BUFFERS_H
#define RP_BUFFERS_H

#include <apr.h>

/** Size of each buffer. Together with a response head it stays below httpd's FlushMaxThreshold (64
 * KiB), above which core_output_filter blocks. */
#define RP_CLIENT_BUFFER 49152

/** Prepares the lists of a new child; in child_init. */
void rp_buffers_child_init(void);

/** A buffer of RP_CLIENT_BUFFER bytes, not initialised. Never NULL (the process ends without
 * memory, as in httpd's own pools). */
char *rp_buffers_get(void);

/** Gives a buffer back; the type suits apr_bucket_heap_create(). */
void rp_buffers_put(void *buffer);

#endif
