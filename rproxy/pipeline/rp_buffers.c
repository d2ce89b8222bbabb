/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* One short list for each CPU: the buffer that was given back last is the one whose bytes still are
 * in that CPU's cache. A lock guards each list, since a thread may be moved in between; it is
 * nearly always free. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE                     /* sched_getcpu */
#endif
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include "rproxy/pipeline/rp_buffers.h"

#define RP_BUFFERS_LISTS 64             /* CPUs beyond share */
#define RP_BUFFERS_KEPT 8               /* in each list; more go back to malloc */

typedef struct buffer_list {
    _Alignas(64) pthread_mutex_t lock;
    int count;
    char *kept[RP_BUFFERS_KEPT];
} buffer_list;

static buffer_list lists[RP_BUFFERS_LISTS];

void rp_buffers_child_init(void)
{
    for (int i = 0; i < RP_BUFFERS_LISTS; i++) {
        pthread_mutex_init(&lists[i].lock, NULL);
    }
}

static buffer_list *lock_list(void)
{
    buffer_list *list = &lists[(unsigned int)sched_getcpu() % RP_BUFFERS_LISTS];

    pthread_mutex_lock(&list->lock);
    return list;
}

char *rp_buffers_get(void)
{
    buffer_list *list = lock_list();
    char *buffer = list->count > 0 ? list->kept[--list->count] : NULL;

    pthread_mutex_unlock(&list->lock);
    if (!buffer) {
        buffer = malloc(RP_CLIENT_BUFFER);
        if (!buffer) {
            abort();
        }
    }
    return buffer;
}

void rp_buffers_put(void *buffer)
{
    buffer_list *list = lock_list();

    if (list->count < RP_BUFFERS_KEPT) {
        list->kept[list->count++] = buffer;
        buffer = NULL;
    }
    pthread_mutex_unlock(&list->lock);
    free(buffer);
}
