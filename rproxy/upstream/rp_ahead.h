/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Bytes that were received for a connection before it asked for them: an event loop asks for many
 * at once (rp_batch.h). Whoever reads from a socket that may have some reads by rp_receive(). */
#ifndef RP_AHEAD_H
#define RP_AHEAD_H

#include <sys/types.h>
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

/** Nobody has taken it yet, and its memory will be used for something else: moves it. */
void rp_ahead_keep(rp_ahead *ahead);

/** The connection that holds it closes, or there is none to hold. */
void rp_ahead_drop(rp_ahead **holder);

#endif
