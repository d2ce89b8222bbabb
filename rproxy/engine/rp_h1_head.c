/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Heads of HTTP/1.1: who serves a request, and what its client is told besides the upstream's
 * fields. Where httpd has a say in it, this does as httpd does: virtual hosts, limits, persistence
 * (ap_set_keepalive). */

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_core.h"
#include "http_protocol.h"
#include "util_time.h"
#include "rproxy/engine/rp_access_log.h"
#include "rproxy/engine/rp_h1_private.h"
#include "rproxy/pipeline/rp_park_timer.h"
#include "rproxy/pipeline/rp_request_id.h"

#define RP_LINE_MARGIN 64               /* blanks that a field line may have had */

/* ---- virtual hosts --------------------------------------------------------------------------- */

/* What mod_ssl demands of Host (RFC 9110 section 7.4): where it isn't plain, mod_ssl decides. */
static int fits_handshake(const rp_downstream *d, const char *authority)
{
    const char *name;
    apr_size_t len;

    if (!d->tls) {
        return 1;
    }
    name = rp_downstream_tls_name(d);
    if (!name) {
        return d->server == d->c->base_server && !d->host->strict_sni;
    }
    len = strlen(name);
    return strncasecmp(authority, name, len) == 0
        && (authority[len] == '\0' || authority[len] == ':');
}

/* Sets d->host from Host, as httpd would; NULL: the pipeline's. */
static void choose_host(rp_h1_request *q)
{
    rp_downstream *d = q->d;
    const char *authority = q->request.authority;

    if (*authority && d->host_text && strcmp(d->host_text, authority) == 0) {
        return;
    }
    free(d->host_text);
    free(d->hostname);
    d->host_text = d->hostname = NULL;
    d->server = rp_access_log_find_server(d->engine->log, d->c, &q->request, &d->hostname);
    d->host = d->server ? rp_eligible_host(d->server) : NULL;
    if (!d->host || !fits_handshake(d, authority)) {
        d->host = NULL;
        return;
    }
    d->peer_trusted = rp_config_trusts(d->host->config, d->c->client_addr) != 0;
    if (*authority) {
        d->host_text = strdup(authority);
    }
}

/* ---- the decision ---------------------------------------------------------------------------- */

static int is_within_limits(const rp_h1_request *q)
{
    const server_rec *server = q->host->server;
    const rp_fields *fields = &q->request.fields;

    if ((server->limit_req_fields > 0 && fields->count > server->limit_req_fields)
        || strlen(q->the_request) >= (apr_size_t)server->limit_req_line) {
        return 0;
    }
    for (int i = 0; i < fields->count; i++) {
        const rp_field *field = &fields->items[i];

        if (field->name_len + field->value_len + RP_LINE_MARGIN
            > (apr_uint32_t)server->limit_req_fieldsize) {
            return 0;
        }
    }
    return 1;
}

/* Host without a name is httpd's to refuse; Expect and Upgrade mean things to it that the engine
 * doesn't do. */
static int has_plain_fields(rp_h1_request *q)
{
    const rp_fields *fields = &q->request.fields;
    const rp_field *host = rp_fields_get(fields, RP_FIELD_HOST, 0);
    const rp_field *expect = rp_fields_get(fields, RP_FIELD_EXPECT, 0);
    const rp_field *upgrade = rp_fields_get(fields, RP_FIELD_UPGRADE, 0);

    if (expect) {
        if (q->request.minor_version < 1 || strcasecmp(expect->value, "100-continue") != 0) {
            return 0;
        }
        q->expects_100 = 1;
    }
    return (!host || host->value_len > 0)
        && (!upgrade || strncasecmp(upgrade->value, "h2c", 3) != 0);
}

static int needs_pipeline(void *baton, const rp_route *route)
{
    (void)route;
    *(int *)baton = 1;                  /* only a request_rec can evaluate a condition */
    return 1;
}

static int find_route(rp_h1_request *q)
{
    int conditional = 0;
    rp_match_context context = { q->pool, needs_pipeline, (apr_uint32_t)rp_random_next(),
                                 &conditional };

    if (!rp_route_match(q->host->config->routes, &context, q->request.path, &q->match)
        || conditional || !q->match.route->target) {
        return 0;
    }
    q->route = rp_eligible_route(q->host, q->match.route);
    return q->route != NULL;
}

static int is_plain_method(const char *method)
{
    int number = ap_method_number_of(method);

    return number != M_INVALID && number != M_CONNECT && number != M_TRACE;
}

/* Limits of the body that httpd would answer at once. */
static int is_body_allowed(rp_h1_request *q)
{
    q->body_limit = rp_access_log_body_limit(q->d->engine->log, q->route->per_dir);
    return q->body_limit == 0 || q->request.framing != RP_BODY_LENGTH
        || q->request.content_length <= q->body_limit;
}

static char *request_line(const rp_h1_request *q)
{
    const char *line = *q->raw_head == '\r' ? q->raw_head + 2 : q->raw_head;
    const char *end = memchr(line, '\r', q->head_len - (apr_size_t)(line - q->raw_head));

    return apr_pstrmemdup(q->pool, line, (apr_size_t)(end - line));
}

rp_h1_verdict rp_h1_take_head(rp_h1_request *q, apr_size_t head_len)
{
    rp_downstream *d = q->d;
    rp_request *request = &q->request;
    const char *raw = d->in + d->in_start;
    char *copy = apr_pstrmemdup(q->pool, raw, head_len);
    apr_size_t scanned = 0;
    rp_http_error error;

    q->raw_head = apr_pstrmemdup(q->pool, raw, head_len);
    q->head_len = head_len;
    q->the_request = request_line(q);
    if (rp_http_parse_request(q->pool, copy, head_len, 0, 0, &scanned, &head_len, request, &error)
            != RP_PARSE_DONE
        || request->target[0] != '/') {
        return RP_H1_PIPELINE;
    }
    choose_host(q);
    q->host = d->host;
    if (!q->host || !is_within_limits(q) || !is_plain_method(request->method)
        || !has_plain_fields(q)
        || rp_uri_path(q->pool, request->target,
                       (rp_encoded_slashes)q->host->config->encoded_slashes,
                       q->host->merges_slashes, &request->path, &request->query) != RP_HTTP_OK) {
        return RP_H1_PIPELINE;
    }
    if (rp_eligible_is_guarded(q->host, q->pool, request) || !find_route(q)
        || !is_body_allowed(q)) {
        return RP_H1_PIPELINE;
    }
    request->scheme = d->tls ? "https" : "http";
    request->client_ip = request->peer_ip = d->c->client_ip;
    request->peer_trusted = d->peer_trusted;
    request->local_port = d->c->local_addr->port;
    if (q->route->header_rules) {
        rp_header_rules_request(q->route->header_rules, &request->fields);
    }
    request->request_id = rp_request_id(q->pool, request, NULL);
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
    const server_rec *server = q->host->server;

    return !q->close_delimited && !q->expects_100 && !rp_park_timer_draining_since()
        && server->keep_alive
        && server->keep_alive_timeout > 0
        && (server->keep_alive_max == 0 || q->d->c->keepalives < server->keep_alive_max)
        && !drops_connection(status) && !has_token(&q->request.fields, "close")
        && (sent_keep_alive || q->request.minor_version > 0);
}

static void add_persistence(rp_h1_request *q, int status, rp_fields *fields)
{
    const server_rec *server = q->host->server;
    int sent = has_token(&q->request.fields, "keep-alive");
    int left = server->keep_alive_max - q->d->c->keepalives;

    if (!q->keep_alive || !may_persist(q, status, sent)) {
        q->keep_alive = 0;
        rp_fields_add_known(fields, RP_FIELD_CONNECTION, "Connection", "close");
        return;
    }
    q->d->c->keepalives++;
    if (sent) {
        int timeout = (int)apr_time_sec(server->keep_alive_timeout);

        rp_fields_add_known(fields, RP_FIELD_KEEP_ALIVE, "Keep-Alive", server->keep_alive_max
                      ? apr_psprintf(q->pool, "timeout=%d, max=%d", timeout, left)
                      : apr_psprintf(q->pool, "timeout=%d", timeout));
        rp_fields_add_known(fields, RP_FIELD_CONNECTION, "Connection", "Keep-Alive");
    }
}

void rp_h1_complete_fields(rp_h1_request *q, const rp_response *response, rp_fields *fields,
                           int body_unread)
{
    int status = response->status;
    int head_only = strcmp(q->request.method, "HEAD") == 0;
    const char *banner = ap_get_server_banner();

    q->keep_alive = !body_unread;
    if (status == 204 || status == 304) {
        rp_fields_remove(fields, RP_FIELD_CONTENT_LENGTH);
        rp_fields_remove(fields, RP_FIELD_CONTENT_TYPE);
    }
    else if (head_only) {
        if (response->content_length == 0) {
            rp_fields_remove(fields, RP_FIELD_CONTENT_LENGTH);
        }
    }
    else if (response->content_length < 0) {
        q->chunk_out = q->request.minor_version > 0;
        q->close_delimited = !q->chunk_out;
    }
    if (!rp_fields_get(fields, RP_FIELD_DATE, 0)) {
        char *date = apr_palloc(q->pool, APR_RFC822_DATE_LEN);

        ap_recent_rfc822_date(date, q->began);
        rp_fields_add_known(fields, RP_FIELD_DATE, "Date", date);
    }
    if (*banner && !rp_fields_get(fields, RP_FIELD_SERVER, 0)) {
        rp_fields_add_known(fields, RP_FIELD_SERVER, "Server", banner);
    }
    add_persistence(q, status, fields);
    if (q->chunk_out) {
        rp_fields_add_known(fields, RP_FIELD_TRANSFER_ENCODING, "Transfer-Encoding", "chunked");
    }
}
