/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The exchange's client in the pipeline lane: request body and response go through httpd's filters.
 *
 * Output must not block (a parked request has no thread to block). core_output_filter blocks on
 * FLUSH buckets and above FlushMaxThreshold, so: a filter of ours right in front of it takes FLUSH
 * buckets out, after the filters above (TLS, compression) have acted on them, and asks it to write
 * what goes; and no more than RP_CLIENT_BUFFER bytes are passed on before it is empty again. Where
 * nobody else could wait in our place anyway (HTTP/2 streams, subrequests), output blocks as usual.
 */

#include <poll.h>
#include <string.h>
#include <apr_strings.h>
#include <openssl/ssl.h>
#include "httpd.h"
#include "ap_mmn.h"
#include "http_connection.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "rproxy/pipeline/rp_buffers.h"
#include "rproxy/pipeline/rp_park.h"
#include "rproxy/pipeline/rp_stats.h"
#include "rproxy/pipeline/rp_task.h"

APLOG_USE_MODULE(rproxy);

#define RP_CLIENT_SMALL 4096            /* core_output_filter holds back less than this */

#define RP_CLIENT_LARGE_HEAD 12288      /* a response head of more is written before its body */

static ap_filter_rec_t *flow_filter;
static ap_filter_rec_t *trailer_filter;

/* ---- filters --------------------------------------------------------------------------------- */

apr_status_t rp_client_nudge(conn_rec *c)
{
    ap_filter_t *f = c->output_filters;

    while (f->next) {
        f = f->next;
    }
    return f->frec->filter_func.out_func(f, NULL);
}

/* Takes FLUSH out of what goes to core_output_filter and makes it write without blocking instead.
 * ctx is set while a task with non-blocking output has the connection. */
static apr_status_t flow_out(ap_filter_t *f, apr_bucket_brigade *bb)
{
    const rp_parking *parking = f->ctx;
    int flush = 0;
    apr_status_t rv;

    if (!rp_park_is_nonblocking(parking)) {
        return ap_pass_brigade(f->next, bb);
    }
    for (apr_bucket *b = APR_BRIGADE_FIRST(bb), *next; b != APR_BRIGADE_SENTINEL(bb); b = next) {
        next = APR_BUCKET_NEXT(b);
        if (APR_BUCKET_IS_FLUSH(b)) {
            apr_bucket_delete(b);
            flush = 1;
        }
    }
    rv = APR_BRIGADE_EMPTY(bb) ? APR_SUCCESS : ap_pass_brigade(f->next, bb);
    if (rv == APR_SUCCESS && flush) {
        rv = rp_client_nudge(f->c);
    }
    return rv;
}

void rp_client_add_flow_filter(rp_parking *parking, request_rec *r)
{
    /* With r: its own filters must lead into ours too where ours becomes the connection's first. */
    ap_add_output_filter_handle(flow_filter, parking, r, r->connection);
}

/* httpd's CHUNK filter ends a body with "0 CRLF CRLF" and knows no trailers: they go in between. */
static apr_status_t trailers_out(ap_filter_t *f, apr_bucket_brigade *bb)
{
    const rp_buffer *trailers = f->ctx;
    apr_bucket *eos = APR_BRIGADE_LAST(bb);
    apr_bucket *last;
    const char *data;
    apr_size_t len;

    if (eos == APR_BRIGADE_SENTINEL(bb) || !APR_BUCKET_IS_EOS(eos)) {
        return ap_pass_brigade(f->next, bb);
    }
    last = APR_BUCKET_PREV(eos);
    if (last != APR_BRIGADE_SENTINEL(bb)
        && apr_bucket_read(last, &data, &len, APR_BLOCK_READ) == APR_SUCCESS
        && len == 5 && memcmp(data, "0\r\n\r\n", 5) == 0) {
        apr_bucket *b = apr_bucket_pool_create(trailers->data, trailers->len, f->r->pool,
                                               f->c->bucket_alloc);

        APR_BUCKET_INSERT_BEFORE(last, b);
        apr_bucket_delete(last);
    }
    ap_remove_output_filter(f);
    return ap_pass_brigade(f->next, bb);
}

void rp_client_register(void)
{
    /* Behind mod_ssl and everything else, right in front of core_output_filter. */
    flow_filter = ap_register_output_filter("RPROXY_FLOW", flow_out, NULL,
                                            (ap_filter_type)(AP_FTYPE_NETWORK - 1));
    trailer_filter = ap_register_output_filter("RPROXY_TRAILERS", trailers_out, NULL,
                                               (ap_filter_type)(AP_FTYPE_TRANSCODE + 1));
}

/* ---- request body ---------------------------------------------------------------------------- */

static rp_io read_failed(rp_task *task, apr_status_t rv)
{
    /* AP_FILTER_ERROR stays: the HTTP_IN filter has sent the answer already. */
    task->body_status = ap_map_http_request_error(rv, HTTP_BAD_REQUEST);
    return RP_IO_FAILED;
}

/* Takes up to size bytes out of task->in. */
static rp_io take_input(rp_task *task, char *buffer, apr_size_t size, apr_size_t *got)
{
    while (*got < size && !APR_BRIGADE_EMPTY(task->in)) {
        apr_bucket *b = APR_BRIGADE_FIRST(task->in);
        const char *data;
        apr_size_t len;
        apr_status_t rv;

        if (APR_BUCKET_IS_EOS(b)) {
            task->body_ended = 1;
            apr_brigade_cleanup(task->in);
            break;
        }
        if (AP_BUCKET_IS_ERROR(b)) {
            task->body_status = ((ap_bucket_error *)b->data)->status;
            return RP_IO_FAILED;
        }
        if (APR_BUCKET_IS_METADATA(b)) {
            apr_bucket_delete(b);
            continue;
        }
        rv = apr_bucket_read(b, &data, &len, APR_BLOCK_READ);
        if (rv != APR_SUCCESS) {
            return read_failed(task, rv);
        }
        if (len > size - *got) {
            len = size - *got;
            apr_bucket_split(b, len);
        }
        memcpy(buffer + *got, data, len);
        *got += len;
        apr_bucket_delete(b);
    }
    return RP_IO_DONE;
}

static rp_io client_read(void *client, char *buffer, apr_size_t size, apr_size_t *got)
{
    rp_task *task = client;
    apr_status_t rv;

    *got = 0;
    if (task->body_ended) {
        return RP_IO_EOF;
    }
    if (APR_BRIGADE_EMPTY(task->in)) {
        rv = ap_get_brigade(task->tunnel ? task->c->input_filters : task->r->input_filters,
                            task->in, AP_MODE_READBYTES, APR_NONBLOCK_READ, (apr_off_t)size);
        if (APR_STATUS_IS_EAGAIN(rv) || (rv == APR_SUCCESS && APR_BRIGADE_EMPTY(task->in))) {
            return RP_IO_AGAIN;
        }
        if (APR_STATUS_IS_EOF(rv) && task->tunnel) {
            task->body_ended = 1;
            return RP_IO_EOF;
        }
        if (rv != APR_SUCCESS) {
            return read_failed(task, rv);
        }
    }
    if (take_input(task, buffer, size, got) != RP_IO_DONE) {
        return RP_IO_FAILED;
    }
    if (*got > 0 || task->body_ended) {
        /* Who sends the body doesn't wait for a 100; httpd would close the connection for it. */
        task->r->expecting_100 = 0;
    }
    if (*got > 0) {
        return RP_IO_DONE;
    }
    return task->body_ended ? RP_IO_EOF : RP_IO_AGAIN;
}

static int add_trailer(void *baton, const char *name, const char *value)
{
    if (rp_is_token(name, strlen(name)) && rp_is_field_value(value, strlen(value))) {
        rp_fields_add(baton, name, value);
    }
    return 1;
}

static const rp_fields *client_request_trailers(void *client)
{
    rp_task *task = client;

    if (apr_is_empty_table(task->r->trailers_in)) {
        return NULL;
    }
    rp_fields_init(&task->request_trailers, task->r->pool, 4);
    apr_table_do(add_trailer, &task->request_trailers, task->r->trailers_in, NULL);
    return &task->request_trailers;
}

/* ---- response heads -------------------------------------------------------------------------- */

static void fill_headers_out(request_rec *r, const rp_fields *fields)
{
    r->headers_out = apr_table_make(r->pool, fields->count + 6);
    for (int i = 0; i < fields->count; i++) {
        const rp_field *field = &fields->items[i];

        if (field->id == RP_FIELD_CONTENT_TYPE) {
            ap_set_content_type(r, field->value);
        }
        else {
            apr_table_addn(r->headers_out, field->name, field->value);
        }
    }
}

/* Sends an interim response or a 101 with these fields. */
static void send_interim(request_rec *r, int status, const rp_fields *fields)
{
    apr_table_t *headers = r->headers_out;
    const char *content_type = r->content_type;
    const char *status_line = r->status_line;
    int saved = r->status;

    fill_headers_out(r, fields);
    r->status = status;
    r->status_line = NULL;
    ap_send_interim_response(r, 1);
    r->status = saved;
    r->status_line = status_line;
    r->content_type = content_type;
    r->headers_out = headers;
}

static rp_io client_interim(void *client, int status, const rp_fields *fields)
{
    rp_task *task = client;

    /* A 100 that this client did not ask for stays here, as httpd does. */
    if (!task->r->main) {
        send_interim(task->r, status, fields);
    }
    task->x.client_blocked = !task->blocking_output && task->c->data_in_output_filters;
    return task->c->aborted ? RP_IO_FAILED : RP_IO_DONE;
}

void rp_task_keep_fields(request_rec *r, const rp_fields *fields)
{
    rp_fields kept;

    rp_fields_init(&kept, r->pool, 0);
    rp_error_override_keep(fields, &kept);
    for (int i = 0; i < kept.count; i++) {
        apr_table_add(r->err_headers_out, kept.items[i].name, kept.items[i].value);
    }
}

static void set_status(request_rec *r, const rp_response *response)
{
    const char *code = apr_psprintf(r->pool, "%03d", response->status);
    const char *known = ap_get_status_line(response->status);
    const char *reason = response->reason;

    if (r->prev && r->status != HTTP_OK && response->status == HTTP_OK) {
        return;                         /* the page of an ErrorDocument: the error's status stays */
    }
    if (!*reason && strncmp(known, code, 3) == 0) {
        reason = known + 4;
    }
    r->status = response->status;
    r->status_line = apr_pstrcat(r->pool, code, " ", reason, NULL);
}

static int is_large(const rp_fields *fields)
{
    apr_size_t size = 0;

    for (int i = 0; i < fields->count; i++) {
        size += fields->items[i].name_len + fields->items[i].value_len;
    }
    return size > RP_CLIENT_LARGE_HEAD;
}

static rp_head_verdict client_head(void *client, const rp_response *response,
                                   const rp_fields *fields, int body_unread)
{
    rp_task *task = client;
    request_rec *r = task->r;

    if (response->status == 101) {
        send_interim(r, 101, fields);
        r->status = 101;
        return task->c->aborted ? RP_HEAD_FAILED : RP_HEAD_RELAY;
    }
    if (rp_error_override_covers(task->error_override, response->status)) {
        rp_task_keep_fields(r, fields);
        return RP_HEAD_REPLACE;
    }
    /* From here on r is a proxied response: Date and Server are the upstream's. Not earlier, since
     * LimitRequestBody would not hold. */
    r->proxyreq = PROXYREQ_REVERSE;
    fill_headers_out(r, fields);
    rp_exchange_member_variables(&task->x, r->pool, r->subprocess_env);  /* mod_headers sees it */
    set_status(r, response);
    if (response->content_length >= 0) {
        r->clength = response->content_length;
    }
    if (body_unread && !task->c->master) {
        /* What is left of the upload is nobody's next request. */
        task->c->keepalive = AP_CONN_CLOSE;
    }
    if (is_large(fields)) {
        /* On its own, so that head and body together stay below FlushMaxThreshold. */
        task->x.client_blocked = rp_client_flush(client, 1) == RP_IO_AGAIN;
    }
    return RP_HEAD_RELAY;
}

/* ---- response body --------------------------------------------------------------------------- */

static char *client_reserve(void *client, apr_size_t *size)
{
    *size = ((rp_task *)client)->read_size;
    return rp_buffers_get();
}

static void client_release(void *client, char *buffer)
{
    (void)client;
    rp_buffers_put(buffer);
}

apr_status_t rp_client_pass(rp_task *task)
{
    apr_status_t rv = ap_pass_brigade(task->tunnel ? task->c->output_filters
                                                   : task->r->output_filters, task->out);

    apr_brigade_cleanup(task->out);
    return rv;
}

static rp_io drained(rp_task *task)
{
    if (task->c->data_in_output_filters) {
        return RP_IO_AGAIN;
    }
    task->unsent = 0;
    if (task->end_write_due) {
        task->end_write_due = 0;
        apr_socket_shutdown(ap_get_conn_socket(task->c), APR_SHUTDOWN_WRITE);
    }
    return RP_IO_DONE;
}

rp_io rp_client_flush(void *client, int push)
{
    rp_task *task = client;
    conn_rec *c = task->c;
    apr_status_t rv = APR_SUCCESS;

    if (push) {
        APR_BRIGADE_INSERT_TAIL(task->out, apr_bucket_flush_create(c->bucket_alloc));
        rv = rp_client_pass(task);
    }
    else if (!task->blocking_output) {
        struct pollfd fd = { rp_park_client_fd(task->parking), POLLOUT, 0 };

        if (poll(&fd, 1, 0) > 0) {
            task->x.progress_at = apr_time_now();   /* the client has taken something */
        }
        rv = rp_client_nudge(c);
    }
    if (rv != APR_SUCCESS || c->aborted) {
        return RP_IO_FAILED;
    }
    return task->blocking_output ? RP_IO_DONE : drained(task);
}

static rp_io client_send(void *client, char *buffer, char *data, apr_size_t len)
{
    rp_task *task = client;
    conn_rec *c = task->c;
    apr_bucket *b = apr_bucket_heap_create(buffer, RP_CLIENT_BUFFER, rp_buffers_put,
                                           c->bucket_alloc);

    b->start = data - buffer;
    b->length = len;
    APR_BRIGADE_INSERT_TAIL(task->out, b);
    if (rp_client_pass(task) != APR_SUCCESS || c->aborted) {
        return RP_IO_FAILED;
    }
    if (task->blocking_output) {
        return RP_IO_DONE;
    }
    if (!c->data_in_output_filters) {
        return drained(task);
    }
    task->unsent += len;
    if (task->unsent < RP_CLIENT_SMALL) {
        return RP_IO_DONE;
    }
    return rp_client_flush(client, 0);
}

static rp_io client_finish(void *client, const rp_fields *trailers)
{
    rp_task *task = client;
    request_rec *r = task->r;

    if (trailers) {
        for (int i = 0; i < trailers->count; i++) {
            apr_table_addn(r->trailers_out, trailers->items[i].name, trailers->items[i].value);
        }
        if (r->chunked && !task->c->master) {
            rp_buffer *last = apr_palloc(r->pool, sizeof(*last));

            rp_buffer_init(last, r->pool, 256);
            if (rp_chunk_last(last, trailers) == RP_HTTP_OK) {
                ap_add_output_filter_handle(trailer_filter, last, r, task->c);
            }
        }
    }
    APR_BRIGADE_INSERT_TAIL(task->out, apr_bucket_eos_create(task->c->bucket_alloc));
    if (rp_client_pass(task) != APR_SUCCESS) {
        return RP_IO_FAILED;
    }
    /* mod_http2 aborts a stream's connection as soon as the client has all of it. */
    return task->c->aborted && !task->c->master ? RP_IO_FAILED : RP_IO_DONE;
}

void rp_client_break(rp_task *task)
{
    request_rec *r = task->r;
    conn_rec *c = task->c;

    if (c->aborted) {
        return;
    }
    if (!r->chunked && !c->master && !apr_table_get(r->headers_out, "Content-Length")) {
        /* Only the end of the connection ends this body, and a plain end would look complete. */
        struct linger reset = { 1, 0 };
        apr_os_sock_t fd;

        rp_client_nudge(c);
        if (apr_os_sock_get(&fd, ap_get_conn_socket(c)) == APR_SUCCESS) {
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        }
        c->aborted = 1;
    }
    /* An error bucket keeps the CHUNK filter from writing the last chunk, and resets an HTTP/2
     * stream. */
    APR_BRIGADE_INSERT_TAIL(task->out, ap_bucket_error_create(HTTP_BAD_GATEWAY, NULL, r->pool,
                                                              c->bucket_alloc));
    APR_BRIGADE_INSERT_TAIL(task->out, apr_bucket_eos_create(c->bucket_alloc));
    rp_client_pass(task);
    c->keepalive = AP_CONN_CLOSE;
}

/* ---- opening --------------------------------------------------------------------------------- */

static void client_detach(void *client)
{
    rp_task *task = client;

    if (task->parking) {
        rp_park_forget_upstream(task->parking);
    }
}

/* As much as a buffer holds, but below FlushMaxThreshold, where core_output_filter begins to block.
 */
static apr_size_t read_size(const server_rec *server)
{
    apr_size_t size = RP_CLIENT_BUFFER;
#if AP_MODULE_MAGIC_AT_LEAST(20120211, 97)
    const core_server_config *core = ap_get_core_module_config(server->module_config);

    if (core->flush_max_threshold > 0 && core->flush_max_threshold / 4 * 3 < size) {
        size = core->flush_max_threshold / 4 * 3;
    }
#else
    (void)server;
#endif
    return size;
}

void rp_client_open(rp_task *task)
{
    request_rec *r = task->r;
    conn_rec *c = task->c;

    task->in = apr_brigade_create(r->pool, c->bucket_alloc);
    task->out = apr_brigade_create(r->pool, c->bucket_alloc);
    task->parking = r->main ? NULL : rp_park_of(c);
    task->blocking_output = c->master != NULL || r->main != NULL || task->parking == NULL;
    task->x.client_blocked = !task->blocking_output && c->data_in_output_filters;
    task->read_size = read_size(c->base_server);
}

const rp_client_ops rp_client_ops_pipeline = {
    client_read,
    client_request_trailers,
    client_interim,
    client_head,
    client_reserve,
    client_release,
    client_send,
    rp_client_flush,
    client_finish,
    rp_client_tunnel,
    rp_client_end_write,
    client_detach,
    NULL                                /* httpd's filters take no pipe */
};
