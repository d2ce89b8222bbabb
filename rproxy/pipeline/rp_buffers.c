/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <stdlib.h>
#include "rproxy/pipeline/rp_buffers.h"

#define RP_BUFFERS_KEPT 4               /* per thread; more go back to malloc */

static _Thread_local char *kept[RP_BUFFERS_KEPT];
static _Thread_local int kept_count;

char *rp_buffers_get(void)
{
    char *buffer;

    if (kept_count > 0) {
        return kept[--kept_count];
    }
    buffer = malloc(RP_CLIENT_BUFFER);
    if (!buffer) {
        abort();
    }
    return buffer;
}

void rp_buffers_put(void *buffer)
{
    if (kept_count < RP_BUFFERS_KEPT) {
        kept[kept_count++] = buffer;
        return;
    }
    free(buffer);
}
