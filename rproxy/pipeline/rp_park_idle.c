/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Between two requests of a connection: a fast client's next one is waited for in the thread, other
 * clients wait in the MPM's pollset as parked exchanges do. */

#include <poll.h>
#include <apr_time.h>
#include "httpd.h"
#include "http_connection.h"
#include "scoreboard.h"
#include "rproxy/pipeline/rp_park_private.h"

#define RP_NEXT_REQUEST_MS 10           /* wait this long in the thread */

int rp_park_idle_is(const rp_parking *parking)
{
    conn_rec *c = parking->c;

    return c->cs->state == CONN_STATE_WRITE_COMPLETION && c->keepalive == AP_CONN_KEEPALIVE
        && !c->aborted && !c->data_in_input_filters && parking->keep_alive > 0
        && !rp_park_timer_draining_since()
        && rp_client_nudge(c) == APR_SUCCESS && !c->data_in_output_filters;
}

/* The way through the MPM's listener and back costs more than the request. Only while threads are
 * plentiful, for a moment, and for clients whose last request came that fast. */
int rp_park_idle_next_came(rp_parking *parking)
{
    conn_rec *c = parking->c;
    struct pollfd fd = { parking->client_fd, POLLIN, 0 };

    if (parking->slow_client || !rp_park_threads_are_plentiful()) {
        parking->answered_at = apr_time_now();
        return 0;
    }
    parking->answered_at = 0;
    ap_update_child_status(c->sbh, SERVER_BUSY_KEEPALIVE, NULL);
    if (poll(&fd, 1, RP_NEXT_REQUEST_MS) <= 0) {
        parking->slow_client = 1;
        parking->answered_at = apr_time_now();
        return 0;
    }
    c->cs->state = CONN_STATE_PROCESSING;
    return 1;
}

void rp_park_idle_learn_pace(rp_parking *parking)
{
    if (parking->answered_at) {
        parking->slow_client = apr_time_now() - parking->answered_at
            > apr_time_from_msec(RP_NEXT_REQUEST_MS);
        parking->answered_at = 0;
    }
}

/* The MPM closes all kept-alive connections whenever no thread is idle, to get rid of those who
 * might hold one; where exchanges get parked, a moment without an idle thread is ordinary. So it
 * waits for these clients as it does for parked exchanges, and the timer keeps KeepAliveTimeout. */
void rp_park_idle_wait(rp_parking *parking)
{
    conn_rec *c = parking->c;

    if (!rp_park_was_used_lately(parking->keep_alive)) {
        return;
    }
    parking->idle = 1;
    parking->timer.drain = 0;
    parking->timer.idle_fd = parking->client_fd;
    rp_park_timer_add(&parking->timer, apr_time_now() + parking->keep_alive);
    c->cs->state = CONN_STATE_ASYNC_WAITIO;
    c->cs->sense = CONN_SENSE_WANT_READ;
}

int rp_park_idle_end(rp_parking *parking)
{
    if (!parking->idle) {
        return 0;
    }
    parking->idle = 0;
    return rp_park_timer_remove(&parking->timer);
}
