/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The requests of one child that wait in line, and what wakes them: each has a number and a
 * descriptor (an eventfd) that is readable when it has its turn.
 *
 * Descriptors are never closed while the child lives, they go from one request to the next. So
 * somebody who is late may wake the wrong request, which then finds that it wasn't called; never
 * anything else. Any thread; no locks. */
#ifndef RP_WAITERS_H
#define RP_WAITERS_H

#include "balancer/rp_queue.h"

/** A number; -1: there is none, or no descriptor. Its descriptor isn't readable. */
int rp_waiter_take(void);
void rp_waiter_give_back(int waiter);

/** How many are taken. */
int rp_waiters_count(void);

int rp_waiter_fd(int waiter);

/** Makes the descriptor readable. */
void rp_waiter_wake(int waiter);

/** Makes it unreadable. */
void rp_waiter_calm(int waiter);

#endif
