/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Requests that a loop keeps for the next ones, so that a request allocates neither itself nor its
 * pool. */

#include <stdlib.h>
#include <string.h>
#include "rproxy/engine/rp_engine_request.h"

#define REQUESTS_KEPT 256               /* on a list, each with a pool of 8 KiB */

void *rp_engine_new_request(rp_engine_free_list *list, rp_downstream *d, apr_size_t size)
{
    rp_engine_request *q = list->first;
    apr_pool_t *pool;

    if (q) {
        list->first = q->next_free;
        list->count--;
        pool = q->pool;
        memset(q, 0, size);
    }
    else {
        apr_pool_create(&pool, d->loop->pool);
        q = calloc(1, size);
        if (!q) {
            abort();
        }
    }
    q->pool = pool;
    q->d = d;
    q->began = d->loop->now;
    return q;
}

void rp_engine_drop_request(rp_engine_free_list *list, rp_engine_request *q)
{
    apr_pool_clear(q->pool);
    if (list->count < REQUESTS_KEPT) {
        q->next_free = list->first;
        list->first = q;
        list->count++;
    }
    else {
        apr_pool_destroy(q->pool);
        free(q);
    }
}

void rp_engine_free_requests(rp_engine_free_list *list)
{
    while (list->first) {
        rp_engine_request *q = list->first;

        list->first = q->next_free;
        free(q);                        /* its pool goes with the loop's */
    }
    list->count = 0;
}
