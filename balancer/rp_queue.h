/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The line of requests that wait for a place in a pool, one for all children: plain data in shared
 * memory, no locks. A request that joins gets a ticket; tickets count up, and the place of a ticket
 * in the ring says whose it is. Who leaves, or dies, leaves a gap that is passed over.
 *
 * Who may look for a free member is called: the first in line, when a place becomes free. It looks,
 * and if there is still room it calls the next one. So turns go down the line whatever the children
 * do, one at a time; a call that gets lost (the child was killed) is made good by those who look
 * after the line now and then (rp_waiting.c). */
#ifndef RP_QUEUE_H
#define RP_QUEUE_H

#include <stdatomic.h>

#define RP_QUEUE_PLACES 8192            /* of a line, gaps included */
#define RP_QUEUE_MAX 4096               /* most requests that RProxyQueue max= lets wait */
#define RP_QUEUE_WAITERS (1 << 14)      /* numbers of those who wait in one child */
#define RP_QUEUE_ROWS ((1 << 21) - 2)   /* children */

typedef unsigned long long rp_ticket;

typedef struct rp_queue {
    _Alignas(64) atomic_ullong head;    /* all tickets before it are gone */
    _Alignas(64) atomic_ullong tail;    /* the next ticket */
    _Alignas(64) atomic_ullong places[RP_QUEUE_PLACES];
} rp_queue;

/** Whose a ticket is: the child's row (rp_shared.h) and a number of its own. */
typedef struct rp_queue_owner {
    int row, waiter;
} rp_queue_owner;

/** Before anybody uses it, all zero. */
void rp_queue_init(rp_queue *queue);

/** Nonzero if somebody waits. */
int rp_queue_has_waiting(rp_queue *queue);

/** How many wait. Looks at all of them. */
int rp_queue_count(const rp_queue *queue);

/** Takes a ticket if fewer than max wait. Nonzero: *ticket is it. */
int rp_queue_join(rp_queue *queue, rp_queue_owner owner, int max, rp_ticket *ticket);

/** Gives the ticket back. Nonzero if it was called, and has not answered: somebody else must be. */
int rp_queue_leave(rp_queue *queue, rp_ticket ticket);

typedef enum rp_queue_turn {
    RP_QUEUE_NOT_YET,
    RP_QUEUE_CALLED,
    RP_QUEUE_GONE                       /* somebody took the ticket away */
} rp_queue_turn;

/** Whether the ticket was called since it asked last. */
rp_queue_turn rp_queue_answer(rp_queue *queue, rp_ticket ticket);

/** Calls the first in line, from this ticket on. Nonzero: *owner is to be woken. 0: nobody waits
 * there, or the first was called already; with again nonzero that one is to be woken once more. */
int rp_queue_call(rp_queue *queue, rp_ticket from, int again, rp_queue_owner *owner);

/** Calls the first in line that is of this row. */
int rp_queue_call_row(rp_queue *queue, int row, rp_queue_owner *owner);

/** Who is called, by one child's row, from *ticket on; moves it behind. 0: no more. */
int rp_queue_next_called(const rp_queue *queue, int row, rp_ticket *ticket,
                         rp_queue_owner *owner);

/** The first in line. 0: nobody. */
int rp_queue_first(rp_queue *queue, rp_ticket *ticket, rp_queue_owner *owner);

/** The child with this row is gone, or as good as gone: so are its tickets. */
void rp_queue_drop_row(rp_queue *queue, int row);

#endif
