/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What is around the engine's HTTP/2, for fuzz_http2.c: pools whose allocations are blocks of their
 * own, the loop's memory and timers, a connection whose other end is the input, one virtual host
 * with one route, and upstreams that do as the input says. */
#ifndef FUZZ_HTTP2_H
#define FUZZ_HTTP2_H

#include <stdarg.h>
#define FUZZ_OWN_POOLS
#include "t/fuzz/fuzz.h"
#include <apr_base64.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "http_protocol.h"
#include "util_time.h"
#include "rproxy/engine/rp_access_log.h"
#include "rproxy/engine/rp_h2_private.h"
#include "rproxy/pipeline/rp_park_timer.h"
#include "rproxy/pipeline/rp_request_id.h"
#include "rproxy/pipeline/rp_stats.h"

#define FUZZ_TIMERS 512

/* ---- pools ----------------------------------------------------------------------------------- */

struct apr_pool_t {
    fuzz_block *blocks;
    apr_pool_t *next, **link;           /* all there are */
};

static apr_pool_t *fuzz_pools;

APR_DECLARE(void *) apr_palloc(apr_pool_t *pool, apr_size_t size)
{
    fuzz_block *block = malloc(sizeof(*block) + size);

    if (!block) {
        abort();
    }
    block->next = pool->blocks;
    pool->blocks = block;
    return block + 1;
}

APR_DECLARE(void) apr_pool_clear(apr_pool_t *pool)
{
    while (pool->blocks) {
        fuzz_block *next = pool->blocks->next;

        free(pool->blocks);
        pool->blocks = next;
    }
}

APR_DECLARE(apr_status_t) apr_pool_create_ex(apr_pool_t **made, apr_pool_t *parent,
                                             apr_abortfunc_t failed, apr_allocator_t *allocator)
{
    apr_pool_t *pool = calloc(1, sizeof(*pool));

    (void)parent;
    (void)failed;
    (void)allocator;
    if (!pool) {
        abort();
    }
    pool->next = fuzz_pools;
    pool->link = &fuzz_pools;
    if (pool->next) {
        pool->next->link = &pool->next;
    }
    fuzz_pools = pool;
    *made = pool;
    return APR_SUCCESS;
}

APR_DECLARE(void) apr_pool_destroy(apr_pool_t *pool)
{
    apr_pool_clear(pool);
    *pool->link = pool->next;
    if (pool->next) {
        pool->next->link = pool->link;
    }
    free(pool);
}

APR_DECLARE(void) apr_pool_cleanup_register(apr_pool_t *pool, const void *data,
                                            apr_status_t (*plain)(void *),
                                            apr_status_t (*child)(void *))
{
    (void)pool;
    (void)data;
    (void)plain;
    (void)child;
}

APR_DECLARE_NONSTD(apr_status_t) apr_pool_cleanup_null(void *data)
{
    (void)data;
    return APR_SUCCESS;
}

APR_DECLARE(char *) apr_pstrmemdup(apr_pool_t *pool, const char *text, apr_size_t len)
{
    char *copy = apr_palloc(pool, len + 1);

    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

APR_DECLARE(char *) apr_pstrdup(apr_pool_t *pool, const char *text)
{
    return text ? apr_pstrmemdup(pool, text, strlen(text)) : NULL;
}

APR_DECLARE_NONSTD(char *) apr_pstrcat(apr_pool_t *pool, ...)
{
    char *all = apr_pstrdup(pool, ""), *text;
    va_list texts;

    va_start(texts, pool);
    while ((text = va_arg(texts, char *))) {
        size_t len = strlen(all);
        char *longer = apr_palloc(pool, len + strlen(text) + 1);

        memcpy(longer, all, len);
        memcpy(longer + len, text, strlen(text) + 1);
        all = longer;
    }
    va_end(texts);
    return all;
}

/* No format here has a specifier of APR's own. */
APR_DECLARE_NONSTD(char *) apr_psprintf(apr_pool_t *pool, const char *format, ...)
{
    char text[4096];
    va_list values;

    va_start(values, format);
    vsnprintf(text, sizeof(text), format, values);
    va_end(values);
    return apr_pstrdup(pool, text);
}

APR_DECLARE(char *) apr_itoa(apr_pool_t *pool, int number)
{
    return apr_psprintf(pool, "%d", number);
}

APR_DECLARE(char *) apr_off_t_toa(apr_pool_t *pool, apr_off_t number)
{
    return apr_psprintf(pool, "%ld", (long)number);
}

/* ---- httpd ----------------------------------------------------------------------------------- */

module AP_MODULE_DECLARE_DATA rproxy_module = { .name = "rproxy" };

AP_DECLARE(void) ap_log_cerror_(const char *file, int line, int module_index, int level,
                                apr_status_t status, const conn_rec *c, const char *format, ...)
{
    (void)file;
    (void)line;
    (void)module_index;
    (void)level;
    (void)status;
    (void)c;
    (void)format;
}

AP_DECLARE(const char *) ap_get_status_line(int status)
{
    return status == 200 ? "200 OK" : "500 Internal Server Error";
}

AP_DECLARE(const char *) ap_get_server_banner(void)
{
    return "Apache";
}

AP_DECLARE(apr_status_t) ap_recent_rfc822_date(char *date, apr_time_t t)
{
    (void)t;
    memcpy(date, "Thu, 01 Jan 1970 00:00:00 GMT", APR_RFC822_DATE_LEN);
    return APR_SUCCESS;
}

/* ---- one virtual host with one route --------------------------------------------------------- */

static server_rec fuzz_server = {
    .timeout = apr_time_from_sec(60), .keep_alive_timeout = apr_time_from_sec(5),
    .limit_req_line = 2000, .limit_req_fieldsize = 2000, .limit_req_fields = 50
};
static rp_server_config fuzz_config;
static rp_dir_config fuzz_dir;
static rp_target fuzz_target;
static rp_route fuzz_route = { .target = &fuzz_target };
static rp_engine_route fuzz_engine_route = { .route = &fuzz_route, .dir = &fuzz_dir };
static rp_engine_host fuzz_host = {
    .server = &fuzz_server, .config = &fuzz_config, .routes = &fuzz_engine_route, .route_count = 1
};

/* httpd refuses some names: here those that begin with a capital. */
server_rec *rp_access_log_find_server(rp_access_log *log, conn_rec *c, const rp_request *request,
                                      char **hostname)
{
    char first = request->authority[0];

    (void)log;
    (void)c;
    *hostname = first ? strdup(request->authority) : NULL;
    return first >= 'A' && first <= 'Z' ? NULL : &fuzz_server;
}

apr_off_t rp_access_log_body_limit(rp_access_log *log, ap_conf_vector_t *per_dir)
{
    (void)log;
    (void)per_dir;
    return 100000;
}

/* Reads what the real one reads. */
void rp_access_log_write(rp_access_log *log, const rp_engine_request *q)
{
    size_t bytes = strlen(q->the_request);

    (void)log;
    bytes += q->hostname ? strlen(q->hostname) : 0;
    bytes += strlen(q->request.method) + strlen(q->request.target) + strlen(q->request.authority);
    for (int i = 0; i < q->request.fields.count; i++) {
        bytes += strlen(q->request.fields.items[i].name);
        bytes += strlen(q->request.fields.items[i].value);
    }
    for (int i = 0; i < q->response_fields.count; i++) {
        bytes += strlen(q->response_fields.items[i].name);
        bytes += strlen(q->response_fields.items[i].value);
    }
    FUZZ_ASSERT(bytes > 0 && !q->in_exchange);
    FUZZ_ASSERT(!q->head_sent || q->response.status >= 200 || q->tunnel);
}

void rp_access_log_failure(rp_access_log *log, rp_engine_request *q)
{
    (void)log;
    q->log_id = q->x.detail;
}

const rp_engine_host *rp_eligible_host(const server_rec *server)
{
    FUZZ_ASSERT(server);
    return &fuzz_host;
}

const rp_engine_route *rp_eligible_route(const rp_engine_host *host, const rp_route *route)
{
    (void)host;
    (void)route;
    return &fuzz_engine_route;
}

/* HTTP/1.1's, which is never here. */
int rp_eligible_is_guarded(const rp_engine_host *host, apr_pool_t *pool, const rp_request *request)
{
    FUZZ_ASSERT(!host || !pool || !request);
    return 0;
}

int rp_eligible_needs_http1(const rp_engine_host *host, apr_pool_t *pool,
                            const rp_request *request)
{
    (void)host;
    (void)pool;
    return strcmp(request->path, "/status") == 0;
}

int rp_route_match(const rp_route_table *table, const rp_match_context *context, const char *path,
                   rp_match *match)
{
    (void)table;
    (void)context;
    match->route = &fuzz_route;
    return path[0] == '/';
}

int rp_config_trusts(const rp_server_config *server, apr_sockaddr_t *address)
{
    (void)server;
    (void)address;
    return 0;
}

/* Of the status a byte can name. */
int rp_error_override_covers(const rp_error_override *override, int status)
{
    (void)override;
    return status == 599;
}

void rp_error_override_keep(const rp_fields *replaced, rp_fields *kept)
{
    for (int i = 0; i < replaced->count; i++) {
        if (replaced->items[i].name[0] == 'X') {
            *rp_fields_push(kept) = replaced->items[i];
        }
    }
}

const char *rp_downstream_tls_name(const rp_downstream *d)
{
    (void)d;
    return NULL;
}

const char *rp_request_id(apr_pool_t *pool, const rp_request *request, const char *unique)
{
    (void)request;
    (void)unique;
    return apr_pstrdup(pool, "id");
}

apr_uint64_t rp_random_next(void)
{
    return 4;
}

void rp_header_rules_request(const rp_header_rules *rules, rp_fields *fields)
{
    (void)rules;
    (void)fields;
}

void rp_header_rules_response(const rp_header_rules *rules, rp_fields *fields)
{
    (void)rules;
    (void)fields;
}

void rp_header_rules_always(const rp_header_rules *rules, rp_fields *fields)
{
    (void)rules;
    (void)fields;
}

/* ---- counters -------------------------------------------------------------------------------- */

const char *const rp_stats_h2_nuisances[RP_STAT_H2_NUISANCE_COUNT] = {
    "a", "b", "c", "d", "e", "f", "g"
};

void rp_stats_add(int stat, apr_int64_t n)
{
    (void)stat;
    (void)n;
}

void rp_engine_count_in(conn_rec *c, apr_off_t bytes)
{
    FUZZ_ASSERT(c && bytes >= 0);
}

void rp_engine_count_out(conn_rec *c, apr_off_t bytes)
{
    FUZZ_ASSERT(c && bytes >= 0);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static rp_loop fuzz_loop;
static rp_loop_timer *fuzz_timers[FUZZ_TIMERS];
static int fuzz_lent;                   /* blocks and buffers */
static apr_time_t fuzz_draining_since;

apr_time_t rp_park_timer_draining_since(void)
{
    return fuzz_draining_since;
}

char *rp_loop_block_get(rp_loop *loop)
{
    (void)loop;
    fuzz_lent++;
    return malloc(RP_LOOP_BLOCK);
}

void rp_loop_block_put(rp_loop *loop, char *block)
{
    (void)loop;
    FUZZ_ASSERT(block);
    fuzz_lent--;
    free(block);
}

char *rp_loop_buffer_get(rp_loop *loop)
{
    (void)loop;
    fuzz_lent++;
    return malloc(RP_LOOP_BUFFER);
}

void rp_loop_buffer_put(rp_loop *loop, char *buffer)
{
    (void)loop;
    FUZZ_ASSERT(buffer);
    fuzz_lent--;
    free(buffer);
}

void rp_loop_drop_timer(rp_loop *loop, rp_loop_timer *timer)
{
    (void)loop;
    for (int i = 0; i < FUZZ_TIMERS; i++) {
        if (fuzz_timers[i] == timer) {
            fuzz_timers[i] = NULL;
        }
    }
}

void rp_loop_set_timer(rp_loop *loop, rp_loop_timer *timer, apr_time_t due)
{
    rp_loop_drop_timer(loop, timer);
    timer->due = due;
    for (int i = 0; due && i < FUZZ_TIMERS; i++) {
        if (!fuzz_timers[i]) {
            fuzz_timers[i] = timer;
            return;
        }
    }
    FUZZ_ASSERT(!due);                  /* that many streams cannot be */
}

#endif
