/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Bytes that were received for a connection before it asked for them, or sent before it wrote them:
 * an event loop does this for many at once (rp_batch.h). Whoever reads from a socket that may have
 * some reads by rp_receive(), and writes by rp_send(). */
#ifndef RP_AHEAD_H
#define RP_AHEAD_H

#include <sys/types.h>
#include <sys/uio.h>
#include <apr.h>

#define RP_AHEAD_MAX 4096               /* bytes: a request's head, a small response */

/** One answer of the kernel; where the connection keeps a pointer to it, *holder, NULL means that
 * there is none. */
typedef struct rp_ahead {
    struct rp_ahead **holder;           /* NULL: it was taken */
    apr_ssize_t count;                  /* as of recv(); below zero: -errno */
    apr_size_t taken;
    int is_kept;                        /* made by rp_ahead_keep() */
    char bytes[RP_AHEAD_MAX];
} rp_ahead;

/** As recv() with MSG_DONTWAIT, from *holder first; never fails with EINTR. Fewer bytes than size
 * mean, as ever, that the socket had no more. */
ssize_t rp_receive(rp_ahead **holder, int fd, char *buffer, apr_size_t size);

/** As sendmsg() with MSG_DONTWAIT and MSG_NOSIGNAL; never fails with EINTR. Where *sent_ahead is
 * more than 0, so many of the vector's first bytes have been sent already, and nothing else happens
 * than that it is set to 0. May send fewer pieces than there are. */
ssize_t rp_send(apr_ssize_t *sent_ahead, int fd, const struct iovec *vector, int count);

/** Nobody has taken it yet, and its memory will be used for something else: moves it. */
void rp_ahead_keep(rp_ahead *ahead);

/** The connection that holds it closes, or there is none to hold. */
void rp_ahead_drop(rp_ahead **holder);

#endif
