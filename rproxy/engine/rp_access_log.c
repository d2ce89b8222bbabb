/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <string.h>
#include <strings.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_vhost.h"
#include "scoreboard.h"
#include "rproxy/engine/rp_access_log.h"
#include "rproxy/engine/rp_log_lines.h"
#include "rproxy/pipeline/rp_report.h"

APLOG_USE_MODULE(rproxy);

struct rp_access_log {
    request_rec *r;                     /* its tables live as long, r->pool for one line */
    const rp_log_needs *needs;
    rp_log_lines *lines;
    apr_pool_t *lasting;                /* the loop's */
    ap_sb_handle_t *sbh;                /* where mod_status finds what we count; NULL: nowhere */
    int has_place;                      /* sbh was asked for */
    ap_sb_handle_t *nowhere;            /* no place in the scoreboard */
};

rp_access_log *rp_access_log_create(apr_pool_t *pool, server_rec *server)
{
    rp_access_log *log = apr_pcalloc(pool, sizeof(*log));
    request_rec *r = apr_pcalloc(pool, sizeof(*r));

    log->r = r;
    log->needs = rp_eligible_log_needs();
    log->lines = rp_log_lines_create(pool);
    ap_create_sb_handle(&log->nowhere, pool, -1, -1);
    log->lasting = pool;
    r->allowed_methods = ap_make_method_list(pool, 2);
    r->headers_in = apr_table_make(pool, 32);
    r->trailers_in = apr_table_make(pool, 4);
    r->subprocess_env = apr_table_make(pool, 16);
    r->headers_out = apr_table_make(pool, 32);
    r->err_headers_out = apr_table_make(pool, 4);
    r->trailers_out = apr_table_make(pool, 4);
    r->notes = apr_table_make(pool, 4);
    r->request_config = ap_create_request_config(pool);
    ap_set_core_module_config(r->request_config, apr_pcalloc(pool, sizeof(core_request_config)));
    r->server = server;
    r->per_dir_config = server->lookup_defaults;
    apr_pool_create(&r->pool, pool);
    r->handler = "rproxy";
    r->protocol = "HTTP/1.1";
    r->proto_num = HTTP_VERSION(1, 1);
    r->proxyreq = PROXYREQ_NONE;
    return log;
}

static void begin(rp_access_log *log, conn_rec *c)
{
    request_rec *r = log->r;

    apr_table_clear(r->headers_in);
    c->sbh = log->nowhere;              /* the error log calls those without one "remote" */
    r->connection = c;
    r->useragent_addr = c->client_addr;
    r->useragent_ip = c->client_ip;
    r->server = c->base_server;
    r->hostname = NULL;
    r->status = HTTP_OK;
    r->log = NULL;
    r->log_id = NULL;
}

static void end(rp_access_log *log)
{
    log->r->connection->sbh = NULL;
    log->r->connection = NULL;
    apr_pool_clear(log->r->pool);
}

server_rec *rp_access_log_find_server(rp_access_log *log, conn_rec *c, const rp_request *request,
                                      char **hostname)
{
    request_rec *r = log->r;
    server_rec *server;

    begin(log, c);
    if (*request->authority) {
        apr_table_setn(r->headers_in, "Host", request->authority);
    }
    r->unparsed_uri = r->uri = apr_pstrdup(r->pool, request->target);
    memset(&r->parsed_uri, 0, sizeof(r->parsed_uri));
    ap_update_vhost_from_headers(r);
    server = r->status == HTTP_OK ? r->server : NULL;
    *hostname = r->hostname ? strdup(r->hostname) : NULL;
    end(log);
    return server;
}

apr_off_t rp_access_log_body_limit(rp_access_log *log, ap_conf_vector_t *per_dir)
{
    log->r->per_dir_config = per_dir;
    return ap_get_limit_req_body(log->r);
}

static void fill_table(apr_table_t *table, const rp_fields *fields)
{
    for (int i = 0; i < fields->count; i++) {
        apr_table_addn(table, fields->items[i].name, fields->items[i].value);
    }
}

static int have_one_name(const rp_field *a, const rp_field *b)
{
    return a->name_len == b->name_len && strncasecmp(a->name, b->name, a->name_len) == 0;
}

/* rules: of the route, or NULL. Those that they made stand apart. */
static int is_clients(const rp_header_rules *rules, const rp_field *field)
{
    return !rules || !rp_header_rules_made(rules, field);
}

/* Puts the client's fields with one name, from the first on, behind each other. */
static const char *joined_value(apr_pool_t *pool, const rp_fields *fields, int from,
                                const rp_header_rules *rules)
{
    const rp_field *first = &fields->items[from];
    rp_buffer value = { .len = 0 };

    for (int i = from + 1; i < fields->count; i++) {
        const rp_field *field = &fields->items[i];

        if (have_one_name(first, field) && is_clients(rules, field)) {
            if (value.len == 0) {
                rp_buffer_init(&value, pool, 256);
                rp_buffer_add(&value, first->value, first->value_len);
            }
            rp_buffer_add(&value, ", ", 2);
            rp_buffer_add(&value, field->value, field->value_len);
        }
    }
    if (value.len == 0) {
        return first->value;
    }
    rp_buffer_add(&value, "", 1);
    return value.data;
}

/* As httpd does with fields that a client sends more than once, but in pool: the table's own lives
 * as long as the loop. rules: of the route, or NULL. */
static void merge_into_table(apr_table_t *table, apr_pool_t *pool, const rp_fields *fields,
                             const rp_header_rules *rules)
{
    for (int i = 0; i < fields->count; i++) {
        const rp_field *field = &fields->items[i];
        int before = 0;

        if (!is_clients(rules, field)) {
            apr_table_addn(table, field->name, field->value);
            continue;
        }
        while (before < i && !(have_one_name(&fields->items[before], field)
                               && is_clients(rules, &fields->items[before]))) {
            before++;
        }
        if (before == i) {
            apr_table_addn(table, field->name, joined_value(pool, fields, i, rules));
        }
    }
}

static void fill_trailers(request_rec *r, const rp_engine_request *q)
{
    apr_table_clear(r->trailers_in);
    apr_table_clear(r->trailers_out);
    if (q->trailers) {
        fill_table(r->trailers_in, q->trailers);
    }
    if (q->x.chunked.trailers.count > 0) {
        fill_table(r->trailers_out, &q->x.chunked.trailers);
    }
}

/* The request as httpd would show it to those who log. */
static void fill(rp_access_log *log, const rp_engine_request *q)
{
    request_rec *r = log->r;
    const rp_request *request = &q->request;

    begin(log, q->d->c);
    r->server = q->server;
    r->per_dir_config = q->route ? q->route->per_dir : q->server->lookup_defaults;
    r->request_time = q->began;
    r->the_request = (char *)q->the_request;
    r->method = request->method;
    r->method_number = ap_method_number_of(request->method);
    r->header_only = strcmp(request->method, "HEAD") == 0;
    r->protocol = request->major_version > 1 ? "HTTP/2.0"
        : request->minor_version ? "HTTP/1.1" : "HTTP/1.0";
    r->proto_num = request->major_version > 1 ? HTTP_VERSION(2, 0)
        : HTTP_VERSION(1, request->minor_version);
    r->unparsed_uri = (char *)request->target;
    r->uri = !request->path ? (char *)request->target : strchr(request->path, '%')
        ? rp_uri_decode(r->pool, request->path, strlen(request->path)) : (char *)request->path;
    r->args = (char *)request->query;
    r->filename = q->route
        ? apr_pstrcat(r->pool, "rproxy:", q->match.route->target->text, NULL) : NULL;
    r->status = q->head_sent ? q->response.status : RP_STATUS_CLIENT_CLOSED;
    r->bytes_sent = q->tunnel ? 0 : q->sent_body;
    r->read_length = q->body_bytes;
    r->sent_bodyct = q->head_sent;
    if (log->needs->request_fields) {
        merge_into_table(r->headers_in, r->pool, &request->fields,
                         q->route ? q->route->header_rules : NULL);
    }
    r->hostname = q->hostname;
    if (log->needs->response_fields) {
        apr_table_clear(r->headers_out);
        r->content_type = NULL;
        if (q->head_sent) {
            const rp_field *type = rp_fields_get(&q->response_fields, RP_FIELD_CONTENT_TYPE, 0);

            fill_table(r->headers_out, &q->response_fields);
            r->content_type = type ? type->value : NULL;
        }
    }
    apr_table_clear(r->subprocess_env);
    if (log->needs->env && q->route) {
        rp_report_variables(r, &q->x, apr_time_now() - q->x.started, "engine", "engine",
                            q->match.route->target->text, request->request_id);
    }
    if (log->needs->env && request->major_version > 1) {
        apr_table_setn(r->subprocess_env, "HTTP2", "on");
    }
    fill_trailers(r, q);
    r->log_id = q->log_id;
    apr_table_clear(r->notes);
}

/* As ap_increment_counts() does, but for the CPU times, which cost a system call and are no
 * request's here. */
static void count_for_status(rp_access_log *log, const rp_downstream *d)
{
    request_rec *r = log->r;
    worker_score *place;
    apr_off_t bytes = rp_engine_bytes_out(r);

    if (!log->has_place) {
        log->has_place = 1;
        log->sbh = rp_engine_scoreboard_place(log->lasting);
    }
    place = log->sbh ? ap_get_scoreboard_worker(log->sbh) : NULL;
    if (place) {
        place->access_count++;
        place->my_access_count++;
        place->bytes_served += bytes;
        place->my_bytes_served += bytes;
        place->duration += d->loop->now - r->request_time;
    }
}

void rp_access_log_write(rp_access_log *log, const rp_engine_request *q)
{
    rp_downstream *d = q->d;
    conn_rec *c = d->c;

    if (!d->tls && !d->multiplexed) {
        rp_engine_count_in(c, (apr_off_t)d->bytes_in);
    }
    d->bytes_in = 0;
    fill(log, q);
    c->aborted = q->write_failed || q->x.client_gone;
    c->keepalive = q->keep_alive && !d->ended ? AP_CONN_KEEPALIVE : AP_CONN_CLOSE;
    rp_log_lines_collect(log->lines);
    ap_run_log_transaction(log->r);
    rp_log_lines_collect(NULL);
    if (ap_extended_status) {
        count_for_status(log, d);
    }
    c->aborted = 0;
    end(log);
}

void rp_access_log_flush(rp_access_log *log)
{
    rp_log_lines_write(log->lines);
}

void rp_access_log_failure(rp_access_log *log, rp_engine_request *q)
{
    fill(log, q);
    rp_report_failure(log->r, &q->x, q->match.route->target->text);
    q->log_id = log->r->log_id ? apr_pstrdup(q->pool, log->r->log_id) : NULL;
    end(log);
}
