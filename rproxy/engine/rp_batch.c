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

/* The flags spare the kernel locks; older ones (before 6.1) don't know them. */
static int open_ring(struct io_uring *ring)
{
    return io_uring_queue_init(AT_ONCE, ring, IORING_SETUP_SINGLE_ISSUER
                                              | IORING_SETUP_DEFER_TASKRUN) == 0
        || io_uring_queue_init(AT_ONCE, ring, 0) == 0;
}

rp_batch *rp_batch_create(void)
{
    rp_batch *batch = calloc(1, sizeof(*batch));

    if (batch && !open_ring(&batch->ring)) {
        free(batch);
        batch = NULL;
    }
    if (batch) {
        io_uring_register_ring_fd(&batch->ring);        /* cheaper to find; works without */
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

/* NULL: nothing more is taken. */
static struct io_uring_sqe *next_entry(rp_batch *batch)
{
    struct io_uring_sqe *entry;

    if (batch->count == AT_ONCE) {
        rp_batch_submit(batch);
    }
    entry = batch->failed ? NULL : io_uring_get_sqe(&batch->ring);
    batch->count += entry != NULL;
    return entry;
}

/* Without MSG_DONTWAIT the kernel would keep what doesn't go now, and send it some time. */
void rp_batch_send(rp_batch *batch, int fd, const void *data, apr_size_t len, apr_ssize_t *result)
{
    struct io_uring_sqe *entry = next_entry(batch);

    if (entry) {
        io_uring_prep_send(entry, fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        io_uring_sqe_set_data(entry, result);
    }
}

void rp_batch_receive(rp_batch *batch, int fd, void *buffer, apr_size_t size, apr_ssize_t *result)
{
    struct io_uring_sqe *entry = next_entry(batch);

    if (entry) {
        io_uring_prep_recv(entry, fd, buffer, size, MSG_DONTWAIT);
        io_uring_sqe_set_data(entry, result);
    }
}

int rp_batch_submit(rp_batch *batch)
{
    unsigned int seen = 0, head;
    struct io_uring_cqe *done;
    int submitted = 0;

    if (batch->count > 0) {
        submitted = io_uring_submit_and_wait(&batch->ring, batch->count);
    }
    io_uring_for_each_cqe(&batch->ring, head, done) {
        *(apr_ssize_t *)io_uring_cqe_get_data(done) = done->res;
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

void rp_batch_send(rp_batch *batch, int fd, const void *data, apr_size_t len, apr_ssize_t *result)
{
    (void)batch;
    (void)fd;
    (void)data;
    (void)len;
    (void)result;
}

void rp_batch_receive(rp_batch *batch, int fd, void *buffer, apr_size_t size, apr_ssize_t *result)
{
    (void)batch;
    (void)fd;
    (void)buffer;
    (void)size;
    (void)result;
}

int rp_batch_submit(rp_batch *batch)
{
    (void)batch;
    return 0;
}

#endif
