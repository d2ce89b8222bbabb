/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "balancer/rp_waiters.h"

/** One that has been used before is on the list of free ones, or in use. */
static struct waiter {
    atomic_uint next;                   /* on the list: number + 1 of the one below, 0: the last */
    atomic_int fd;
} waiters[RP_QUEUE_WAITERS];

/* The list's top: number + 1, and in the upper half how often it changed, for a top that is the
 * same may have another one below by now. */
static atomic_ullong top;
static atomic_uint used;                /* all behind have never been used */
static atomic_int taken;

static int pop(void)
{
    unsigned long long now = atomic_load(&top), below;
    unsigned int number;

    do {
        number = (unsigned int)now;
        if (!number)
            return -1;
        below = atomic_load(&waiters[number - 1].next);
    } while (!atomic_compare_exchange_weak(&top, &now, ((now >> 32) + 1) << 32 | below));
    return (int)number - 1;
}

static void push(int waiter)
{
    unsigned long long now = atomic_load(&top);

    do {
        atomic_store(&waiters[waiter].next, (unsigned int)now);
    } while (!atomic_compare_exchange_weak(&top, &now, ((now >> 32) + 1) << 32
                                                           | (unsigned int)(waiter + 1)));
}

/** One that was never used; its descriptor stays with it for good. */
static int make(void)
{
    unsigned int number = atomic_load(&used);
    int fd;

    if (number >= RP_QUEUE_WAITERS || (fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        return -1;
    while (number < RP_QUEUE_WAITERS) {
        if (atomic_compare_exchange_weak(&used, &number, number + 1)) {
            atomic_store(&waiters[number].fd, fd);
            return (int)number;
        }
    }
    close(fd);
    return -1;
}

int rp_waiter_take(void)
{
    int waiter = pop();

    if (waiter < 0)
        waiter = make();
    else
        rp_waiter_calm(waiter);
    if (waiter >= 0)
        atomic_fetch_add(&taken, 1);
    return waiter;
}

void rp_waiter_give_back(int waiter)
{
    atomic_fetch_sub(&taken, 1);
    push(waiter);
}

int rp_waiters_count(void)
{
    return atomic_load(&taken);
}

int rp_waiter_fd(int waiter)
{
    return atomic_load(&waiters[waiter].fd);
}

void rp_waiter_wake(int waiter)
{
    uint64_t one = 1;

    /* It fails when it is readable many times over. */
    (void)!write(rp_waiter_fd(waiter), &one, sizeof(one));
}

void rp_waiter_calm(int waiter)
{
    uint64_t count;

    (void)!read(rp_waiter_fd(waiter), &count, sizeof(count));
}
