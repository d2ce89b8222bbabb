/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the exchange's own files share; nobody else includes it. */
#ifndef RP_EXCHANGE_PRIVATE_H
#define RP_EXCHANGE_PRIVATE_H

#include <apr_strings.h>
#include "rproxy/exchange/rp_exchange.h"

#define RP_BODY_READ        32768       /* bytes read from the client at once */
#define RP_SEND_ROUNDS      16          /* such reads before an answer is looked for */
#define RP_REPLAY_BODY_MAX  65536       /* request body bytes kept for another attempt */
#define RP_INTERIM_MAX      32          /* 1xx responses of one attempt */
#define RP_SPLICE_MIN       262144      /* body bytes left from which on a pipe pays off */

/** Nonzero if so many bytes are enough for one step; remembers that something is left to do. */
static inline int rp_exchange_yields(rp_exchange *x, apr_int64_t taken)
{
    if (x->budget == 0 || taken < x->budget) {
        return 0;
    }
    x->yielded = 1;
    return 1;
}

/** The time: a loop's is as old as what it is doing now, and costs nothing. */
static inline apr_time_t rp_exchange_now(const rp_exchange *x)
{
    return x->clock ? *x->clock : apr_time_now();
}

/** Chooses a member for an attempt and writes the head for it; or the request waits for one, in
 * RP_X_QUEUE until this is called again. RP_REASON_NONE, or why there is none. */
rp_reason rp_exchange_choose_member(rp_exchange *x, apr_time_t now);

/** In RP_X_QUEUE: gives up waiting. */
void rp_exchange_leave_queue(rp_exchange *x, apr_time_t now);

/** In RP_X_QUEUE: what says that a member is there, and when to ask again at the latest. */
rp_wait_fd rp_exchange_queue_wait(const rp_exchange *x, apr_time_t *until);

/** Before the member of an attempt that has failed is released: nonzero if the pool lets the
 * request have another one. */
int rp_exchange_may_retry(rp_exchange *x);

/** The attempt is over; reason NONE: nothing is wrong with it. Once more does nothing. */
void rp_exchange_release_member(rp_exchange *x, rp_reason reason);

/** The Cookie field that the member gets instead of the client's, "": none. NULL: the client's. */
const char *rp_exchange_member_cookie(const rp_exchange *x);

/** Fields of x->response, the one that the client gets in the end: mapped back, and what the pool
 * adds to them. Once. */
void rp_exchange_answer_fields(rp_exchange *x, rp_fields *fields);

/** Puts the request head, and body bytes kept from an earlier attempt, in line for sending. */
void rp_exchange_queue_request(rp_exchange *x);

/** Sends as much of the request as goes now, in portions: nonzero says that more may go at once.
 * Ends the exchange if the client's body is broken. */
int rp_exchange_pump_request(rp_exchange *x, apr_time_t now);

/** Receives as much of the response as goes now and hands it to the lane. */
void rp_exchange_pump_response(rp_exchange *x, apr_time_t now);

/** Both, for RP_X_RELAY. upstream_ready 0: nothing can have come from the upstream yet. */
void rp_exchange_relay_step(rp_exchange *x, apr_time_t now, int upstream_ready);

/** One step of a tunnel. */
void rp_exchange_tunnel_step(rp_exchange *x, apr_time_t now);

/** Writes what is in line. RP_IO_DONE: nothing is left. */
rp_io rp_exchange_flush_wire(rp_exchange *x, apr_time_t now);

/** An attempt ended without a response: begins another one if that is allowed and safe, else ends
 * the exchange. detail lives in the exchange's pool or is constant. */
void rp_exchange_attempt_failed(rp_exchange *x, rp_reason reason, const char *detail);

/** The response's status is one that RProxyRetry on= names and another attempt is possible: begins
 * it and returns nonzero. */
int rp_exchange_retries_status(rp_exchange *x);

/** Gives connection and member back: for reuse if both messages are complete, else to be closed. */
void rp_exchange_release(rp_exchange *x, rp_reason reason);

/** Records the end; only the first one counts. Gives the connection back. */
void rp_exchange_finish(rp_exchange *x, rp_outcome outcome, rp_reason reason, const char *detail);

#endif
