/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "httpd.h"
#include "rproxy/upstream/rp_ahead.h"

#define PIECES_MAX 64                   /* handed to one sendmsg(); below every IOV_MAX */

static ssize_t receive(int fd, char *buffer, apr_size_t size)
{
    ssize_t count;

    do {
        count = recv(fd, buffer, size, MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR);
    return count;
}

ssize_t rp_receive(rp_ahead **holder, int fd, char *buffer, apr_size_t size)
{
    rp_ahead *ahead = *holder;
    apr_ssize_t count = ahead ? ahead->count : -EINTR;
    apr_size_t left, taken;

    if (count == -EINTR) {
        rp_ahead_drop(holder);
        return receive(fd, buffer, size);
    }
    if (count <= 0) {
        rp_ahead_drop(holder);
        errno = (int)-count;
        return count < 0 ? -1 : 0;
    }
    left = (apr_size_t)count - ahead->taken;
    taken = left < size ? left : size;
    memcpy(buffer, ahead->bytes + ahead->taken, taken);
    ahead->taken += taken;
    if (taken == left) {
        rp_ahead_drop(holder);
        if (count == RP_AHEAD_MAX && taken < size) {
            ssize_t more = receive(fd, buffer + taken, size - taken);

            taken += more > 0 ? (apr_size_t)more : 0;
        }
    }
    return (ssize_t)taken;
}

ssize_t rp_send(apr_ssize_t *sent_ahead, int fd, const struct iovec *vector, int count)
{
    struct msghdr message = {
        .msg_iov = (struct iovec *)vector,      /* sendmsg() does not write to it */
        .msg_iovlen = (apr_size_t)(count < PIECES_MAX ? count : PIECES_MAX)
    };
    ssize_t sent = *sent_ahead;

    *sent_ahead = 0;
    if (sent > 0) {
        return sent;
    }
    do {
        /* One piece is what there is mostly; the shorter way into the kernel counts. */
        sent = count == 1
            ? send(fd, vector->iov_base, vector->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
            : sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return sent;
}

void rp_ahead_keep(rp_ahead *ahead)
{
    rp_ahead *kept;

    if (ahead->is_kept) {
        return;
    }
    kept = ap_malloc(sizeof(*kept));
    memcpy(kept, ahead, sizeof(*kept));
    kept->is_kept = 1;
    *kept->holder = kept;
    ahead->holder = NULL;
}

void rp_ahead_drop(rp_ahead **holder)
{
    rp_ahead *ahead = *holder;

    if (ahead) {
        *holder = NULL;
        ahead->holder = NULL;
        if (ahead->is_kept) {
            free(ahead);
        }
    }
}
