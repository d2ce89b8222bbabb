/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The client's connection as one end of a tunnel: only the connection's own filters are left. */

#include <string.h>
#include <openssl/ssl.h>
#include "httpd.h"
#include "http_request.h"
#include "rproxy/pipeline/rp_park.h"
#include "rproxy/pipeline/rp_stats.h"
#include "rproxy/pipeline/rp_task.h"

/* In front of the bytes of an extended CONNECT, mod_http2 puts the end of the request that it made
 * of it. */
static void skip_end_of_request(rp_task *task)
{
    apr_bucket *b;

    if (ap_get_brigade(task->c->input_filters, task->in, AP_MODE_READBYTES, APR_NONBLOCK_READ, 1)
        == APR_SUCCESS && !APR_BRIGADE_EMPTY(task->in)) {
        b = APR_BRIGADE_FIRST(task->in);
        if (APR_BUCKET_IS_EOS(b)) {
            apr_bucket_delete(b);
        }
    }
}

void rp_client_tunnel(void *client)
{
    rp_task *task = client;
    request_rec *r = task->r;
    conn_rec *c = task->c;

    /* Neither coalescing nor request timeouts make sense for what follows. */
    ap_remove_output_filter_byhandle(c->output_filters, "SSL/TLS Coalescing Filter");
    ap_remove_input_filter_byhandle(c->input_filters, "reqtimeout");
    r->input_filters = r->proto_input_filters = c->input_filters;
    r->output_filters = r->proto_output_filters = c->output_filters;
    c->keepalive = AP_CONN_CLOSE;
    task->tunnel = 1;
    rp_stats_add(RP_STAT_TUNNELS, 1);
    task->body_ended = 0;
    apr_brigade_cleanup(task->in);
    if (c->master) {
        skip_end_of_request(task);
    }
}

/* Ends our direction of a TLS connection and leaves the other one open: mod_ssl's own way of ending
 * (an EOC bucket) frees what the client's bytes still have to come through. */
static void end_tls_write(rp_task *task)
{
    struct ssl_st *ssl = task->parking ? rp_park_tls(task->parking) : NULL;

    if (ssl) {
        SSL_shutdown(ssl);              /* close_notify, through mod_ssl's output */
    }
    else if (strcmp(task->request.scheme, "https") == 0) {
        /* Another module's TLS: nobody knows how to end one direction, so both end. */
        task->body_ended = 1;
    }
}

void rp_client_end_write(void *client)
{
    rp_task *task = client;
    conn_rec *c = task->c;

    if (task->blocking_output) {
        APR_BRIGADE_INSERT_TAIL(task->out, apr_bucket_eos_create(c->bucket_alloc));
        APR_BRIGADE_INSERT_TAIL(task->out, apr_bucket_flush_create(c->bucket_alloc));
        rp_client_pass(task);
        task->r->eos_sent = 1;
        return;
    }
    end_tls_write(task);
    task->end_write_due = 1;
    rp_client_flush(client, 0);
}
