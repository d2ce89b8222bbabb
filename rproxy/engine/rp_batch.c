/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <stdlib.h>
#include "rproxy/engine/rp_batch.h"

#ifdef RP_HAVE_URING

#include <sys/socket.h>
#include <liburing.h>

#define AT_ONCE 256

struct rp_batch {
    struct io_uring ring;
    unsigned int count;                 /* in line */
    int failed;
};

rp_batch *rp_batch_create(void)
{
    rp_batch *batch = calloc(1, sizeof(*batch));

    if (batch && io_uring_queue_init(AT_ONCE, &batch->ring, 0) != 0) {
        free(batch);
        batch = NULL;
    }
    return batch;
}

void rp_batch_destroy(rp_batch *batch)
{
    if (batch) {
        io_uring_queue_exit(&batch->ring);
        free(batch);
    }
}

void rp_batch_add(rp_batch *batch, int fd, const void *data, apr_size_t len, apr_size_t *sent)
{
    struct io_uring_sqe *entry;

    if (batch->count == AT_ONCE) {
        rp_batch_send(batch);
    }
    if (batch->failed || !(entry = io_uring_get_sqe(&batch->ring))) {
        return;
    }
    /* Without MSG_DONTWAIT the kernel would keep what doesn't go now, and send it some time. */
    io_uring_prep_send(entry, fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    io_uring_sqe_set_data(entry, sent);
    batch->count++;
}

int rp_batch_send(rp_batch *batch)
{
    unsigned int seen = 0, head;
    struct io_uring_cqe *done;
    int submitted = 0;

    if (batch->count > 0) {
        submitted = io_uring_submit_and_wait(&batch->ring, batch->count);
    }
    io_uring_for_each_cqe(&batch->ring, head, done) {
        if (done->res > 0) {
            *(apr_size_t *)io_uring_cqe_get_data(done) = (apr_size_t)done->res;
        }
        seen++;
    }
    io_uring_cq_advance(&batch->ring, seen);
    /* Entries left over would point to memory that is somebody else's next time. */
    if (submitted != (int)batch->count || seen != batch->count) {
        batch->failed = 1;
    }
    batch->count = 0;
    return !batch->failed;
}

#else

rp_batch *rp_batch_create(void)
{
    return NULL;
}

void rp_batch_destroy(rp_batch *batch)
{
    (void)batch;
}

void rp_batch_add(rp_batch *batch, int fd, const void *data, apr_size_t len, apr_size_t *sent)
{
    (void)batch;
    (void)fd;
    (void)data;
    (void)len;
    (void)sent;
}

int rp_batch_send(rp_batch *batch)
{
    (void)batch;
    return 0;
}

#endif
