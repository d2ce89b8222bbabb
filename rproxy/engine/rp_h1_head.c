/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Heads of HTTP/1.1: who serves a request, and what its client is told besides the upstream's
 * fields. Where httpd has a say in it, this does as httpd does: virtual hosts, limits, persistence
 * (ap_set_keepalive). */

#include <string.h>
#include <strings.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_protocol.h"
#include "rproxy/engine/rp_h1_private.h"
#include "rproxy/pipeline/rp_park_timer.h"

/* Host without a name is httpd's to refuse; Expect and Upgrade mean things to it that the engine
 * doesn't do. */
static int has_plain_fields(rp_h1_request *q)
{
    const rp_fields *fields = &q->base.request.fields;
    const rp_field *host = rp_fields_get(fields, RP_FIELD_HOST, 0);
    const rp_field *expect = rp_fields_get(fields, RP_FIELD_EXPECT, 0);
    const rp_field *upgrade = rp_fields_get(fields, RP_FIELD_UPGRADE, 0);

    if (expect) {
        if (q->base.request.minor_version < 1 || strcasecmp(expect->value, "100-continue") != 0) {
            return 0;
        }
        q->expects_100 = 1;
    }
    return (!host || host->value_len > 0)
        && (!upgrade || strncasecmp(upgrade->value, "h2c", 3) != 0);
}

static int is_plain_method(const char *method)
{
    int number = ap_method_number_of(method);

    return number != M_INVALID && number != M_CONNECT && number != M_TRACE;
}

static char *request_line(const rp_h1_request *q)
{
    const char *line = *q->raw_head == '\r' ? q->raw_head + 2 : q->raw_head;
    const char *end = memchr(line, '\r', q->head_len - (apr_size_t)(line - q->raw_head));

    return apr_pstrmemdup(q->base.pool, line, (apr_size_t)(end - line));
}

rp_h1_verdict rp_h1_take_head(rp_h1_request *q, apr_size_t head_len)
{
    rp_engine_request *base = &q->base;
    rp_downstream *d = base->d;
    const char *raw = d->in + d->in_start;
    char *copy = apr_pstrmemdup(base->pool, raw, head_len);
    apr_size_t scanned = 0;
    rp_http_error error;
    int misdirected, found;

    q->raw_head = apr_pstrmemdup(base->pool, raw, head_len);
    q->head_len = head_len;
    base->the_request = request_line(q);
    if (rp_http_parse_request(base->pool, copy, head_len, 0, 0, &scanned, &head_len,
                              &base->request, &error) != RP_PARSE_DONE
        || base->request.target[0] != '/' || !rp_engine_choose_host(base, &misdirected)
        || rp_engine_exceeded_limit(base) != 0 || !is_plain_method(base->request.method)
        || !has_plain_fields(q) || rp_engine_find_route(base, &found) != 0 || !found
        || !rp_engine_allows_body(base)) {
        return RP_H1_PIPELINE;
    }
    rp_engine_fill_request(base);
    return RP_H1_ENGINE;
}

/* ---- responses ------------------------------------------------------------------------------- */

/* Statuses after which httpd closes (ap_status_drops_connection). */
static int drops_connection(int status)
{
    return status == 400 || status == 408 || status == 411 || status == 413 || status == 414
        || status == 500 || status == 501 || status == 503;
}

/* As httpd reads Connection. */
static int has_token(const rp_fields *fields, const char *token)
{
    const rp_field *field = rp_fields_get(fields, RP_FIELD_CONNECTION, 0);

    for (; field; field = rp_fields_get(fields, RP_FIELD_CONNECTION,
                                        (int)(field - fields->items) + 1)) {
        if (ap_find_token(fields->pool, field->value, token)) {
            return 1;
        }
    }
    return 0;
}

static int may_persist(const rp_h1_request *q, int status, int sent_keep_alive)
{
    const server_rec *server = q->base.host->server;

    return !q->close_delimited && !q->expects_100 && !rp_park_timer_draining_since()
        && server->keep_alive
        && server->keep_alive_timeout > 0
        && (server->keep_alive_max == 0 || q->base.d->c->keepalives < server->keep_alive_max)
        && !drops_connection(status) && !has_token(&q->base.request.fields, "close")
        && (sent_keep_alive || q->base.request.minor_version > 0);
}

static void add_persistence(rp_h1_request *q, int status, rp_fields *fields)
{
    const server_rec *server = q->base.host->server;
    int sent = has_token(&q->base.request.fields, "keep-alive");
    int left = server->keep_alive_max - q->base.d->c->keepalives;

    if (!q->base.keep_alive || !may_persist(q, status, sent)) {
        q->base.keep_alive = 0;
        rp_fields_add_known(fields, RP_FIELD_CONNECTION, "Connection", "close");
        return;
    }
    q->base.d->c->keepalives++;
    if (sent) {
        int timeout = (int)apr_time_sec(server->keep_alive_timeout);

        rp_fields_add_known(fields, RP_FIELD_KEEP_ALIVE, "Keep-Alive", server->keep_alive_max
                      ? apr_psprintf(q->base.pool, "timeout=%d, max=%d", timeout, left)
                      : apr_psprintf(q->base.pool, "timeout=%d", timeout));
        rp_fields_add_known(fields, RP_FIELD_CONNECTION, "Connection", "Keep-Alive");
    }
}

void rp_h1_complete_fields(rp_h1_request *q, const rp_response *response, rp_fields *fields,
                           int body_unread)
{
    int status = response->status;

    q->base.keep_alive = !body_unread;
    if (response->content_length < 0 && status != 204 && status != 304
        && strcmp(q->base.request.method, "HEAD") != 0) {
        q->chunk_out = q->base.request.minor_version > 0;
        q->close_delimited = !q->chunk_out;
    }
    rp_engine_complete_fields(&q->base, response, fields);
    add_persistence(q, status, fields);
    if (q->chunk_out) {
        rp_fields_add_known(fields, RP_FIELD_TRANSFER_ENCODING, "Transfer-Encoding", "chunked");
    }
}
