/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "httpd.h"
#include "rproxy/upstream/rp_ahead.h"

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
