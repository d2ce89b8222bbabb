/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the engine decides on a head, in any protocol. Where httpd has a say in it, this does as
 * httpd does: virtual hosts, limits, the fields that it adds. */

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_core.h"
#include "http_protocol.h"
#include "util_time.h"
#include "rproxy/engine/rp_access_log.h"
#include "rproxy/engine/rp_engine_request.h"
#include "rproxy/pipeline/rp_request_id.h"

#define RP_LINE_MARGIN 64               /* blanks that a field line may have had */

/* ---- virtual hosts --------------------------------------------------------------------------- */

/* What mod_ssl demands of the authority (RFC 9110 section 7.4): where it isn't plain, mod_ssl
 * decides. */
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

/* Sets d->host and what goes with it; NULL: not the engine's. */
static void choose(rp_downstream *d, const rp_request *request)
{
    const char *authority = request->authority;

    if (*authority && d->host_text && strcmp(d->host_text, authority) == 0) {
        return;
    }
    free(d->host_text);
    free(d->hostname);
    d->host_text = d->hostname = NULL;
    d->misdirected = 0;
    d->server = rp_access_log_find_server(d->engine->log, d->c, request, &d->hostname);
    d->host = d->server ? rp_eligible_host(d->server) : NULL;
    if (d->host && !fits_handshake(d, authority)) {
        d->host = NULL;
        d->misdirected = 1;
    }
    if (!d->host) {
        return;
    }
    d->peer_trusted = rp_config_trusts(d->host->config, d->c->client_addr) != 0;
    if (*authority) {
        d->host_text = strdup(authority);
    }
}

int rp_engine_choose_host(rp_engine_request *q, int *misdirected)
{
    rp_downstream *d = q->d;

    choose(d, &q->request);
    q->host = d->host;
    q->server = d->server ? d->server : d->c->base_server;
    q->hostname = d->hostname;
    *misdirected = d->misdirected;
    return q->host != NULL;
}

/* ---- limits ---------------------------------------------------------------------------------- */

static int are_fields_allowed(const rp_engine_request *q, const rp_fields *fields,
                              apr_uint32_t margin)
{
    const server_rec *server = q->host->server;

    if (server->limit_req_fields > 0 && fields->count > server->limit_req_fields) {
        return 0;
    }
    for (int i = 0; i < fields->count; i++) {
        const rp_field *field = &fields->items[i];

        if (field->name_len + field->value_len + margin
            > (apr_uint32_t)server->limit_req_fieldsize) {
            return 0;
        }
    }
    return 1;
}

int rp_engine_exceeded_limit(const rp_engine_request *q)
{
    if (strlen(q->the_request) >= (apr_size_t)q->host->server->limit_req_line) {
        return HTTP_REQUEST_URI_TOO_LARGE;
    }
    return are_fields_allowed(q, &q->request.fields, RP_LINE_MARGIN)
        ? 0 : HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE;
}

int rp_engine_allows_trailers(const rp_engine_request *q, const rp_fields *trailers)
{
    return are_fields_allowed(q, trailers, 2);
}

int rp_engine_allows_body(rp_engine_request *q)
{
    q->body_limit = rp_access_log_body_limit(q->d->engine->log, q->route->per_dir);
    return q->body_limit == 0 || q->request.framing != RP_BODY_LENGTH
        || q->request.content_length <= q->body_limit;
}

rp_io rp_engine_fail_body(rp_engine_request *q, int status)
{
    q->body_status = status;
    return RP_IO_FAILED;
}

rp_io rp_engine_count_body(rp_engine_request *q, apr_size_t bytes, rp_io io)
{
    q->body_bytes += (apr_int64_t)bytes;
    if (q->body_limit > 0 && q->body_bytes > q->body_limit) {
        return rp_engine_fail_body(q, HTTP_REQUEST_ENTITY_TOO_LARGE);
    }
    return io;
}

/* ---- routes ---------------------------------------------------------------------------------- */

static int needs_pipeline(void *baton, const rp_route *route)
{
    (void)route;
    *(int *)baton = 1;                  /* only a request_rec can evaluate a condition */
    return 1;
}

static const rp_engine_route *match_route(rp_engine_request *q)
{
    int conditional = 0;
    rp_match_context context = { q->pool, needs_pipeline, (apr_uint32_t)rp_random_next(),
                                 &conditional };

    if (!rp_route_match(q->host->config->routes, &context, q->request.path, &q->match)
        || conditional || !q->match.route->target) {
        return NULL;
    }
    return rp_eligible_route(q->host, q->match.route);
}

int rp_engine_find_route(rp_engine_request *q, int *found)
{
    rp_request *request = &q->request;

    *found = 0;
    if (rp_uri_path(q->pool, request->target, (rp_encoded_slashes)q->host->config->encoded_slashes,
                    q->host->merges_slashes, &request->path, &request->query) != RP_HTTP_OK) {
        /* An encoded slash or NUL could only be part of a name that isn't there. */
        return strcasestr(request->target, "%2f") || strstr(request->target, "%00")
            ? HTTP_NOT_FOUND : HTTP_BAD_REQUEST;
    }
    if (!(request->major_version > 1 ? rp_eligible_needs_http1(q->host, q->pool, request)
                                     : rp_eligible_is_guarded(q->host, q->pool, request))) {
        q->route = match_route(q);
        *found = q->route != NULL;
    }
    return 0;
}

void rp_engine_fill_request(rp_engine_request *q)
{
    rp_downstream *d = q->d;
    rp_request *request = &q->request;

    request->scheme = d->tls ? "https" : "http";
    request->client_ip = request->peer_ip = d->c->client_ip;
    request->peer_trusted = d->peer_trusted;
    request->local_port = d->c->local_addr->port;
    if (q->route->header_rules) {
        rp_header_rules_request(q->route->header_rules, &request->fields);
    }
    request->request_id = rp_request_id(q->pool, request, NULL);
}

/* ---- responses ------------------------------------------------------------------------------- */

const char *rp_engine_reason(int status, const char *reason)
{
    const char *known = ap_get_status_line(status);

    /* That of another one, where httpd knows none. */
    return !*reason && strtol(known, NULL, 10) == status ? known + 4 : reason;
}

void rp_engine_add_date_and_server(const rp_engine_request *q, rp_fields *fields)
{
    const char *banner = ap_get_server_banner();

    if (!rp_fields_get(fields, RP_FIELD_DATE, 0)) {
        char *date = apr_palloc(q->pool, APR_RFC822_DATE_LEN);

        ap_recent_rfc822_date(date, q->began);
        rp_fields_add_known(fields, RP_FIELD_DATE, "Date", date);
    }
    if (*banner && !rp_fields_get(fields, RP_FIELD_SERVER, 0)) {
        rp_fields_add_known(fields, RP_FIELD_SERVER, "Server", banner);
    }
}

void rp_engine_complete_fields(const rp_engine_request *q, const rp_response *response,
                               rp_fields *fields)
{
    if (q->route->header_rules) {
        rp_header_rules_response(q->route->header_rules, fields);
    }
    if (response->status == 204 || response->status == 304) {
        rp_fields_remove(fields, RP_FIELD_CONTENT_LENGTH);
        rp_fields_remove(fields, RP_FIELD_CONTENT_TYPE);
    }
    else if (response->content_length == 0 && strcmp(q->request.method, "HEAD") == 0) {
        rp_fields_remove(fields, RP_FIELD_CONTENT_LENGTH);
    }
    rp_engine_add_date_and_server(q, fields);
}
