/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A place is one word, so that it changes as a whole: the ticket's low bits, whether it was called,
 * who has it (row + 1; 0: nobody any more). A place is taken first and the tail moved then: if a
 * child dies in between, whoever comes next moves the tail for it. A place is taken again only when
 * the head has passed it.
 *
 * All of it is sequentially consistent: who joins looks for room afterwards, who makes room looks
 * for somebody in line afterwards, and one of them must see the other. */
#include "balancer/rp_queue.h"

#define SERIAL_BITS 28
#define CALLED_BIT (1ull << SERIAL_BITS)
#define WAITER_SHIFT (SERIAL_BITS + 1)
#define ROW_SHIFT (WAITER_SHIFT + 14)

_Static_assert(RP_QUEUE_WAITERS == 1 << (ROW_SHIFT - WAITER_SHIFT), "waiters fill their bits");
_Static_assert(RP_QUEUE_ROWS < 1 << (64 - ROW_SHIFT), "rows fit into the rest");

typedef unsigned long long word;

static word serial_of(word place)
{
    return place & (CALLED_BIT - 1);
}

static word make(rp_ticket ticket, rp_queue_owner owner)
{
    return serial_of(ticket) | (word)owner.waiter << WAITER_SHIFT
        | (word)(owner.row + 1) << ROW_SHIFT;
}

static rp_queue_owner owner_of(word place)
{
    return (rp_queue_owner){ (int)(place >> ROW_SHIFT) - 1,
                             (int)(place >> WAITER_SHIFT) & (RP_QUEUE_WAITERS - 1) };
}

/** Nonzero if the ticket is somebody's. */
static int is_waiting(word place, rp_ticket ticket)
{
    return place >> ROW_SHIFT != 0 && serial_of(place) == serial_of(ticket);
}

static word look(const rp_queue *queue, rp_ticket ticket)
{
    return atomic_load(&queue->places[ticket % RP_QUEUE_PLACES]);
}

/** Changes the place of a ticket if it still is what it was. */
static int change(rp_queue *queue, rp_ticket ticket, word from, word to)
{
    return atomic_compare_exchange_strong(&queue->places[ticket % RP_QUEUE_PLACES], &from, to);
}

void rp_queue_init(rp_queue *queue)
{
    /* Places are zero, and no ticket's first use of one must look like that. */
    atomic_store(&queue->head, RP_QUEUE_PLACES);
    atomic_store(&queue->tail, RP_QUEUE_PLACES);
}

int rp_queue_first(rp_queue *queue, rp_ticket *ticket, rp_queue_owner *owner)
{
    for (;;) {
        rp_ticket head = atomic_load(&queue->head), next = head;
        word place;

        if (head == atomic_load(&queue->tail))
            return 0;
        place = look(queue, head);
        if (is_waiting(place, head)) {
            *ticket = head;
            *owner = owner_of(place);
            return 1;
        }
        atomic_compare_exchange_strong(&queue->head, &next, head + 1);
    }
}

int rp_queue_has_waiting(rp_queue *queue)
{
    rp_ticket ticket;
    rp_queue_owner owner;

    return rp_queue_first(queue, &ticket, &owner);
}

int rp_queue_count(const rp_queue *queue)
{
    rp_ticket ticket = atomic_load(&queue->head), tail = atomic_load(&queue->tail);
    int count = 0;

    for (; ticket < tail; ticket++)
        count += is_waiting(look(queue, ticket), ticket);
    return count;
}

int rp_queue_join(rp_queue *queue, rp_queue_owner owner, int max, rp_ticket *ticket)
{
    for (;;) {
        rp_ticket next, tail, head;
        word place;

        rp_queue_has_waiting(queue);
        head = atomic_load(&queue->head);
        next = tail = atomic_load(&queue->tail);
        place = look(queue, tail);
        if (serial_of(place) == serial_of(tail)) {
            /* Whoever took it has not moved the tail yet. */
            atomic_compare_exchange_strong(&queue->tail, &next, tail + 1);
            continue;
        }
        /* Those in line can only become fewer until the place is taken. */
        if (tail - head >= RP_QUEUE_PLACES
            || (tail - head >= (rp_ticket)max && rp_queue_count(queue) >= max))
            return 0;
        if (place >> ROW_SHIFT != 0 || !change(queue, tail, place, make(tail, owner)))
            continue;
        atomic_compare_exchange_strong(&queue->tail, &next, tail + 1);
        *ticket = tail;
        return 1;
    }
}

int rp_queue_leave(rp_queue *queue, rp_ticket ticket)
{
    word place;

    do {
        place = look(queue, ticket);
        if (!is_waiting(place, ticket))
            return 0;
    } while (!change(queue, ticket, place, serial_of(place)));
    rp_queue_has_waiting(queue);
    return (place & CALLED_BIT) != 0;
}

rp_queue_turn rp_queue_answer(rp_queue *queue, rp_ticket ticket)
{
    word place;

    do {
        place = look(queue, ticket);
        if (!is_waiting(place, ticket))
            return RP_QUEUE_GONE;
        if (!(place & CALLED_BIT))
            return RP_QUEUE_NOT_YET;
    } while (!change(queue, ticket, place, place & ~CALLED_BIT));
    return RP_QUEUE_CALLED;
}

/** The first that waits from *ticket on, of this row (-1: of any). 0: none. */
static int find(const rp_queue *queue, rp_ticket *ticket, int row, word *place)
{
    rp_ticket head = atomic_load(&queue->head), tail = atomic_load(&queue->tail);

    for (*ticket = *ticket < head ? head : *ticket; *ticket < tail; ++*ticket) {
        *place = look(queue, *ticket);
        if (is_waiting(*place, *ticket) && (row < 0 || owner_of(*place).row == row))
            return 1;
    }
    return 0;
}

static int call(rp_queue *queue, rp_ticket from, int row, int again, rp_queue_owner *owner)
{
    word place;

    while (find(queue, &from, row, &place)) {
        *owner = owner_of(place);
        if (place & CALLED_BIT)
            return again;
        if (change(queue, from, place, place | CALLED_BIT))
            return 1;
    }
    return 0;
}

int rp_queue_call(rp_queue *queue, rp_ticket from, int again, rp_queue_owner *owner)
{
    return call(queue, from, -1, again, owner);
}

int rp_queue_call_row(rp_queue *queue, int row, rp_queue_owner *owner)
{
    return call(queue, 0, row, 1, owner);
}

int rp_queue_next_called(const rp_queue *queue, int row, rp_ticket *ticket,
                         rp_queue_owner *owner)
{
    word place;

    while (find(queue, ticket, row, &place)) {
        ++*ticket;
        if (place & CALLED_BIT) {
            *owner = owner_of(place);
            return 1;
        }
    }
    return 0;
}

void rp_queue_drop_row(rp_queue *queue, int row)
{
    rp_ticket tail = atomic_load(&queue->tail);

    /* The tail's place, too: it may be taken. */
    for (rp_ticket ticket = atomic_load(&queue->head); ticket <= tail; ticket++) {
        word place = look(queue, ticket);

        if (is_waiting(place, ticket) && owner_of(place).row == row
            && !change(queue, ticket, place, serial_of(place)))
            ticket--;
    }
    rp_queue_has_waiting(queue);
}
