/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* From request_rec to the neutral request. The path that travels is the client's, byte for byte, in
 * the same normal form that httpd's access control saw; where an earlier rule changed r->uri, that
 * counts. */

#include <string.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "ap_mmn.h"
#include "rproxy/pipeline/rp_task.h"
#include "rproxy/pipeline/rp_request_id.h"

APLOG_USE_MODULE(rproxy);

#define RP_PREFETCH 16384               /* bytes of a body that is read before its head is sent */

static const char *authority_of(const request_rec *r)
{
    const char *host;

    /* An absolute-form target overrides Host (RFC 9112 section 3.2.2). */
    if (r->parsed_uri.scheme && r->parsed_uri.hostname) {
        return r->parsed_uri.hostinfo;
    }
    host = apr_table_get(r->headers_in, "Host");
    return host ? host : "";
}

static int merges_slashes(const server_rec *server)
{
#if AP_MODULE_MAGIC_AT_LEAST(20120211, 84)
    const core_server_config *core = ap_get_core_module_config(server->module_config);

    return core->merge_slashes != AP_CORE_CONFIG_OFF;
#else
    (void)server;
    return 1;
#endif
}

/* What httpd makes of path for access control, see rp_pipeline.c: decoded, and where %2F passes, it
 * counts as a border there nevertheless. */
static const char *seen_by_access_control(request_rec *r, const char *path,
                                          rp_encoded_slashes slashes)
{
    const char *query;

    if (slashes == RP_SLASHES_PASS
        && rp_uri_path(r->pool, path, RP_SLASHES_DECODE, merges_slashes(r->server), &path,
                       &query) != RP_HTTP_OK) {
        return "";
    }
    return rp_uri_decode(r->pool, path, strlen(path));
}

int rp_task_read_target(request_rec *r, rp_request *request)
{
    int configured = rp_server_config_of(r->server)->encoded_slashes;
    rp_encoded_slashes slashes = configured == RP_UNSET ? RP_SLASHES_PASS
                                                        : (rp_encoded_slashes)configured;
    const char *query;

    request->method = r->method;
    request->target = r->unparsed_uri;
    request->authority = authority_of(r);
    if (*request->authority && !rp_uri_is_authority(request->authority)) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, "RP0002: Host is not a valid authority");
        return HTTP_BAD_REQUEST;
    }
    if (rp_uri_path(r->pool, r->unparsed_uri, slashes, merges_slashes(r->server), &request->path,
                    &query) != RP_HTTP_OK) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                      "RP0003: the request target is refused: %s", r->unparsed_uri);
        return HTTP_BAD_REQUEST;
    }
    request->query = r->args;
    if (strcmp(seen_by_access_control(r, request->path, slashes), r->uri) != 0) {
        /* A rule of another module (RewriteRule with PT, Alias) has changed the path. */
        request->path = rp_uri_encode(r->pool, r->uri);
    }
    return OK;
}

static int add_header(void *baton, const char *name, const char *value)
{
    rp_fields_add(baton, name, value);
    return 1;
}

/* httpd unsets Content-Length where Transfer-Encoding came with it, and marks the connection for
 * closing: the trace of a request that we refuse rather than reinterpret. */
static int had_length_and_coding(const request_rec *r)
{
    return !r->connection->master && r->connection->keepalive == AP_CONN_CLOSE
        && apr_table_get(r->headers_in, "Transfer-Encoding") != NULL;
}

/* mod_http2 turns an extended CONNECT (RFC 8441) into a GET with Upgrade, which no HTTP/2 request
 * has otherwise. What follows on the stream belongs to the tunnel, not to a body. */
static int is_extended_connect(const request_rec *r)
{
    return r->connection->master && apr_table_get(r->headers_in, "Upgrade") != NULL;
}

int rp_task_read_request(rp_task *task)
{
    request_rec *r = task->r;
    rp_request *request = &task->request;
    rp_http_error error;

    request->scheme = ap_http_scheme(r);
    request->major_version = HTTP_VERSION_MAJOR(r->proto_num);
    request->minor_version = r->proto_num >= HTTP_VERSION(1, 1) ? 1 : 0;
    request->client_ip = r->useragent_ip;
    request->peer_ip = r->connection->client_ip;
    request->peer_trusted = rp_config_trusts(rp_server_config_of(r->server),
                                             r->connection->client_addr);
    request->local_port = r->connection->local_addr->port;
    rp_fields_init(&request->fields, r->pool, apr_table_elts(r->headers_in)->nelts + 2);
    apr_table_do(add_header, &request->fields, r->headers_in, NULL);
    request->request_id = rp_request_id(r->pool, request,
                                        apr_table_get(r->subprocess_env, "UNIQUE_ID"));
    if (is_extended_connect(r)) {
        rp_fields_remove(&request->fields, RP_FIELD_TRANSFER_ENCODING);
    }
    if (r->main || (r->prev && r->status != HTTP_OK)) {
        /* The body, if there was one, belongs to the request that came first. An internal redirect
         * takes it along, unless it leads to an error page. */
        rp_fields_remove(&request->fields, RP_FIELD_EXPECT);
        rp_fields_remove(&request->fields, RP_FIELD_UPGRADE);
        request->framing = RP_BODY_NONE;
        return OK;
    }
    error = rp_http_request_framing(&request->fields, request->minor_version, &request->framing,
                                    &request->content_length);
    if (!r->connection->master
        && (r->proto_num < HTTP_VERSION(1, 0) || r->proto_num >= HTTP_VERSION(2, 0))) {
        error = RP_HTTP_BAD_VERSION;
    }
    if (error == RP_HTTP_OK && had_length_and_coding(r)) {
        error = RP_HTTP_LENGTH_AND_CODING;
    }
    if (error != RP_HTTP_OK) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, "RP0004: request refused: %s",
                      rp_http_error_text(error));
        r->connection->keepalive = AP_CONN_CLOSE;
        return HTTP_BAD_REQUEST;
    }
    return OK;
}

/* ---- bodies behind filters ------------------------------------------------------------------- */

static int has_content_filter(const request_rec *r)
{
    for (const ap_filter_t *f = r->input_filters; f && f != r->proto_input_filters; f = f->next) {
        if (f->frec->ftype < AP_FTYPE_PROTOCOL) {
            return 1;
        }
    }
    return 0;
}

/* Reads into task->in until the body has ended or enough is there. OK or an HTTP status. */
static int read_beginning(rp_task *task, int *ended, apr_off_t *length)
{
    request_rec *r = task->r;
    apr_bucket_brigade *piece = apr_brigade_create(r->pool, r->connection->bucket_alloc);

    *ended = 0;
    *length = 0;
    while (!*ended && *length < RP_PREFETCH) {
        apr_off_t got = 0;
        apr_status_t rv = ap_get_brigade(r->input_filters, piece, AP_MODE_READBYTES,
                                         APR_BLOCK_READ, RP_PREFETCH);

        if (rv != APR_SUCCESS) {
            return rv == AP_FILTER_ERROR ? rv : ap_map_http_request_error(rv, HTTP_BAD_REQUEST);
        }
        for (apr_bucket *b = APR_BRIGADE_FIRST(piece); b != APR_BRIGADE_SENTINEL(piece);
             b = APR_BUCKET_NEXT(b)) {
            if (AP_BUCKET_IS_ERROR(b)) {
                return ((ap_bucket_error *)b->data)->status;
            }
            *ended |= APR_BUCKET_IS_EOS(b);
        }
        apr_brigade_length(piece, 1, &got);
        *length += got;
        ap_save_brigade(NULL, &task->in, &piece, r->pool);
    }
    return OK;
}

int rp_task_prefetch_body(rp_task *task)
{
    request_rec *r = task->r;
    rp_request *request = &task->request;
    apr_off_t length;
    int ended;
    int status;

    if (request->framing == RP_BODY_NONE || !has_content_filter(r)) {
        return OK;
    }
    status = read_beginning(task, &ended, &length);
    if (status != OK) {
        r->connection->keepalive = AP_CONN_CLOSE;
        return status;
    }
    rp_fields_init(&request->fields, r->pool, apr_table_elts(r->headers_in)->nelts + 2);
    apr_table_do(add_header, &request->fields, r->headers_in, NULL);
    rp_fields_remove(&request->fields, RP_FIELD_EXPECT);
    if (ended && request->framing == RP_BODY_LENGTH) {
        request->content_length = length;
    }
    else {
        request->framing = RP_BODY_CHUNKED;
    }
    return OK;
}
