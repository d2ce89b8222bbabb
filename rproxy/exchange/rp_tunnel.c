/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A tunnel after 101 (Switching Protocols): bytes both ways, each direction ends by itself. An idle
 * tunnel holds no buffer: scratch space is on the stack, a lane's buffer is lent for one call. */

#include <string.h>
#include "rproxy/exchange/rp_exchange_private.h"

#define RP_TUNNEL_READ 16384            /* bytes of the client's read at once, on the stack */

static void tunnel_over(rp_exchange *x, rp_outcome outcome, rp_reason reason)
{
    rp_exchange_finish(x, outcome, reason, NULL);
}

static void client_to_upstream(rp_exchange *x, apr_time_t now)
{
    char scratch[RP_TUNNEL_READ];
    apr_int64_t before = x->sent_body;

    for (;;) {
        apr_size_t got = 0;
        apr_size_t written = 0;
        struct iovec vector;

        switch (rp_exchange_flush_wire(x, now)) {
        case RP_IO_AGAIN:
            x->want_upstream_write = 1;
            return;
        case RP_IO_DONE:
            break;
        default:
            tunnel_over(x, RP_OUTCOME_DONE, RP_REASON_NONE);
            return;
        }
        if (x->client_eof || rp_exchange_yields(x, x->sent_body - before)) {
            return;
        }
        switch (x->ops->read(x->client, scratch, sizeof(scratch), &got)) {
        case RP_IO_AGAIN:
            x->want_client_read = 1;
            return;
        case RP_IO_EOF:
            x->client_eof = 1;
            rp_conn_end_write(x->conn);
            return;
        case RP_IO_FAILED:
            tunnel_over(x, RP_OUTCOME_DONE, RP_REASON_CLIENT_GONE);
            return;
        default:
            break;
        }
        x->progress_at = now;
        x->sent_body += (apr_int64_t)got;
        vector.iov_base = scratch;
        vector.iov_len = got;
        if (rp_conn_write(x->conn, &vector, 1, &written) == RP_IO_FAILED) {
            tunnel_over(x, RP_OUTCOME_DONE, RP_REASON_NONE);
            return;
        }
        if (written < got) {
            if (!x->tunnel_wire) {
                rp_buffer_init(&x->wire, x->pool, RP_TUNNEL_READ);
                x->tunnel_wire = 1;
            }
            rp_buffer_add(&x->wire, scratch + written, got - written);
        }
    }
}

static void upstream_to_client(rp_exchange *x, apr_time_t now)
{
    apr_int64_t before = x->received_body;

    while (x->state == RP_X_TUNNEL && (!x->upstream_eof || x->client_blocked)) {
        apr_size_t size;
        apr_size_t got = 0;
        char *buffer;
        rp_io io;

        if (x->client_blocked) {
            io = x->ops->flush(x->client, 0);
            if (io == RP_IO_AGAIN) {
                x->want_client_write = 1;
                return;
            }
            if (io != RP_IO_DONE) {
                tunnel_over(x, RP_OUTCOME_DONE, RP_REASON_CLIENT_GONE);
                return;
            }
            x->client_blocked = 0;
            continue;
        }
        if (rp_exchange_yields(x, x->received_body - before)) {
            return;
        }
        buffer = x->ops->reserve(x->client, &size);
        io = rp_conn_read(x->conn, buffer, size, &got);
        if (io == RP_IO_DONE) {
            x->progress_at = now;
            x->received_body += (apr_int64_t)got;
            x->unflushed = 1;
            io = x->ops->send(x->client, buffer, buffer, got);
            if (io == RP_IO_AGAIN) {
                x->client_blocked = 1;
            }
            else if (io != RP_IO_DONE) {
                tunnel_over(x, RP_OUTCOME_DONE, RP_REASON_CLIENT_GONE);
            }
            continue;
        }
        x->ops->release(x->client, buffer);
        if (x->unflushed && x->ops->flush(x->client, 1) == RP_IO_AGAIN) {
            x->client_blocked = x->want_client_write = 1;
        }
        x->unflushed = 0;
        if (io == RP_IO_AGAIN) {
            x->want_upstream_read = 1;
            return;
        }
        /* Over TLS an end without close_notify ends a tunnel as a reset would. */
        x->upstream_eof = 1;
        x->ops->end_write(x->client);
        if (io == RP_IO_FAILED) {
            tunnel_over(x, RP_OUTCOME_DONE, RP_REASON_NONE);
        }
    }
}

void rp_exchange_tunnel_step(rp_exchange *x, apr_time_t now)
{
    upstream_to_client(x, now);
    if (x->state == RP_X_TUNNEL) {
        client_to_upstream(x, now);
    }
    if (x->state == RP_X_TUNNEL && x->client_eof && x->upstream_eof && x->wire_off == x->wire.len
        && !x->client_blocked) {
        tunnel_over(x, RP_OUTCOME_DONE, RP_REASON_NONE);
    }
}
