/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Signals are for httpd's own threads. A thread inherits what its maker blocks, so ours are made
 * between these two; in all of our modules alike. */
#ifndef RP_SIGNALS_H
#define RP_SIGNALS_H

#include <pthread.h>
#include <signal.h>

/** Blocks all signals for the calling thread; *before is what was blocked already. */
static inline void rp_signals_block(sigset_t *before)
{
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, before);
}

static inline void rp_signals_restore(const sigset_t *before)
{
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

#endif
