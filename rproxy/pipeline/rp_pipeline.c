/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The lane's hooks in the order of a request: translate_name finds the route, map_to_storage and
 * type_checker keep the file system and MIME types out of it, fixups lets <If> and .htaccess
 * decide, the handler runs the exchange with the blocking driver or parks it. */

#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <apr_strings.h>
#include "httpd.h"
#include "ap_expr.h"
#include "ap_mmn.h"
#include "http_config.h"
#include "http_connection.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "rproxy/pipeline/rp_buffers.h"
#include "rproxy/pipeline/rp_local.h"
#include "rproxy/pipeline/rp_park.h"
#include "rproxy/pipeline/rp_pipeline.h"
#include "rproxy/pipeline/rp_request_id.h"
#include "rproxy/pipeline/rp_stats.h"
#include "rproxy/pipeline/rp_task.h"

APLOG_USE_MODULE(rproxy);

#define RP_HANDLER "rproxy"
#define RP_GRACE_MS 10                  /* wait this long in the thread before parking */
#define RP_GRACE_MISSES 4               /* in a row: then park at once */
#define RP_GRACE_RETRY 64               /* one request in so many tries the grace again */
#define RP_GRACE_PLACES 64
#define RP_TICK_MS  500              /* nothing to poll says that the child is to stop, nor that the
                                      * client of an HTTP/2 stream has left */

static const char exempt_note[] = "rproxy-exempt";

rp_task *rp_task_of(const request_rec *r)
{
    return ap_get_module_config(r->request_config, &rproxy_module);
}

/* ---- routing --------------------------------------------------------------------------------- */

static int condition_holds(void *baton, const rp_route *route)
{
    request_rec *r = baton;
    const char *error = NULL;
    int rv = ap_expr_exec(r, route->condition, &error);

    if (error) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "RP0007: if=%s (%s:%d) failed: %s",
                      route->condition_text, route->file, route->line, error);
        return -1;
    }
    return rv > 0;
}

static int is_exempt(const request_rec *r)
{
    return r->prev && apr_table_get(r->prev->notes, exempt_note) != NULL;
}

static rp_task *new_task(request_rec *r)
{
    rp_task *task = apr_pcalloc(r->pool, sizeof(*task));

    task->r = r;
    task->c = r->connection;
    return task;
}

static void take(rp_task *task)
{
    request_rec *r = task->r;

    ap_set_module_config(r->request_config, &rproxy_module, task);
    r->handler = RP_HANDLER;
    /* Not a file: a name for logs that no other module takes for one. */
    r->filename = apr_pstrcat(r->pool, "rproxy:", task->match.route->target->text, NULL);
    r->finfo.filetype = APR_NOFILE;
}

static int translate_name(request_rec *r)
{
    const rp_server_config *config = rp_server_config_of(r->server);
    rp_match_context context = { r->pool, condition_holds, 0, r };
    rp_task *task;
    int status;

    if (rp_route_table_is_empty(config->routes) || is_exempt(r) || r->method_number == M_CONNECT
        || r->uri[0] != '/') {
        return DECLINED;
    }
    task = new_task(r);
    status = rp_task_read_target(r, &task->request);
    if (status != OK) {
        return status;
    }
    context.random = (apr_uint32_t)rp_random_next();
    if (!rp_route_match(config->routes, &context, task->request.path, &task->match)
        || !task->match.route->target) {
        return DECLINED;
    }
    take(task);
    return OK;
}

static int map_to_storage(request_rec *r)
{
    /* TRACE is httpd's to answer or to refuse (TraceEnable). */
    return rp_task_of(r) && r->method_number != M_TRACE ? OK : DECLINED;
}

static int type_checker(request_rec *r)
{
    return rp_task_of(r) ? OK : DECLINED;
}

static int always(void *baton, const rp_route *route)
{
    (void)baton;
    (void)route;
    return 1;
}

static int has_encoded_slash(const char *target)
{
    for (; (target = strchr(target, '%')) != NULL; target++) {
        if (target[1] == '2' && (target[2] == 'f' || target[2] == 'F')) {
            return 1;
        }
    }
    return 0;
}

/* httpd answers 404 to %2F by itself unless AllowEncodedSlashes says otherwise. For a request of
 * ours the vhost's RProxyEncodedSlashes decides: this request alone gets a copy of the setting.
 * Access control reads %2F as a slash also where it passes, since the upstream may do the same. */
static int post_read_request(request_rec *r)
{
    const rp_server_config *config = rp_server_config_of(r->server);
    rp_match_context context = { r->pool, always, 0, NULL };
    rp_request request;
    rp_match match;
    core_dir_config *core;

    if (!has_encoded_slash(r->unparsed_uri) || rp_route_table_is_empty(config->routes)
        || config->encoded_slashes == RP_SLASHES_REJECT
        || rp_task_read_target(r, &request) != OK
        || !rp_route_match(config->routes, &context, request.path, &match)
        || !match.route->target) {
        return DECLINED;
    }
    core = apr_pmemdup(r->pool, ap_get_core_module_config(r->per_dir_config), sizeof(*core));
    core->allow_encoded_slashes = 1;
    core->decode_encoded_slashes = 1;
    r->per_dir_config = ap_merge_per_dir_configs(r->pool, r->per_dir_config,
                                                 ap_create_per_dir_config(r->pool));
    ap_set_core_module_config(r->per_dir_config, core);
    return DECLINED;
}

static int fixups(request_rec *r)
{
    const rp_dir_config *dir = rp_dir_config_of(r->per_dir_config);
    rp_task *task;
    int status;

    if (!dir->rule || is_exempt(r) || r->method_number == M_CONNECT) {
        return DECLINED;
    }
    task = new_task(r);
    status = rp_local_apply(r, dir->rule, task);
    if (status != OK) {
        return status;
    }
    if (task->match.route->target) {
        take(task);
    }
    else if (rp_task_of(r)) {
        /* A route has kept the file system out already: the handler starts over without routes. */
        apr_table_setn(r->notes, exempt_note, "1");
    }
    return OK;
}

/* ---- the blocking driver --------------------------------------------------------------------- */

/* Adds the client's side to what to poll. Returns the count. */
static int add_client(const rp_task *task, const rp_waits *waits, struct pollfd *fds, int count)
{
    if (task->parking) {
        short events = (short)((waits->client_read ? POLLIN : 0)
                               | (waits->client_write ? POLLOUT : 0));

        if (!task->x.client_gone && !task->settings.ignore_client_abort && !task->tunnel) {
            events |= POLLRDHUP;
        }
        if (events) {
            fds[count].fd = rp_park_client_fd(task->parking);
            fds[count++].events = events;
        }
    }
#if AP_MODULE_MAGIC_AT_LEAST(20120211, 129)
    else if (waits->client_read) {
        apr_pollfd_t client = { 0 };
        apr_interval_time_t ignored;

        if (ap_get_pollfd_from_conn(task->c, &client, &ignored) == APR_SUCCESS) {
            apr_os_file_t fd = -1;

            if (client.desc_type == APR_POLL_FILE) {
                apr_os_file_get(&fd, client.desc.f);
            }
            else if (client.desc_type == APR_POLL_SOCKET) {
                apr_os_sock_get(&fd, client.desc.s);
            }
            if (fd >= 0) {
                fds[count].fd = fd;
                fds[count++].events = POLLIN;
            }
        }
    }
#endif
    return count;
}

static int milliseconds_until(apr_time_t deadline)
{
    apr_time_t now;

    if (!deadline) {
        return -1;
    }
    now = apr_time_now();
    return deadline <= now ? 0 : (int)((deadline - now + 999) / 1000);
}

/* Waits in this thread. limit_ms bounds the wait, -1: only by the exchange. Returns 0 if nothing
 * came before limit_ms was over. */
static int wait_here(rp_task *task, int limit_ms, int *upstream_ready)
{
    struct pollfd fds[RP_CONN_WAITS_MAX + 1];
    rp_waits waits;
    int upstream_count, count, timeout, rv;
    int bounded = 0;

    rp_exchange_waits(&task->x, &waits);
    for (upstream_count = 0; upstream_count < waits.count; upstream_count++) {
        fds[upstream_count].fd = waits.fds[upstream_count].fd;
        fds[upstream_count].events = waits.fds[upstream_count].events;
    }
    count = add_client(task, &waits, fds, upstream_count);
    timeout = milliseconds_until(waits.deadline);
    if (timeout < 0 || timeout > RP_TICK_MS) {
        timeout = RP_TICK_MS;
    }
    if (limit_ms >= 0 && (timeout < 0 || timeout > limit_ms)) {
        timeout = limit_ms;
        bounded = 1;
    }
    do {
        rv = poll(fds, (nfds_t)count, timeout);
    } while (rv < 0 && errno == EINTR);
    *upstream_ready = 0;
    if (rv == 0) {
        return !bounded;
    }
    for (int i = 0; i < upstream_count; i++) {
        *upstream_ready |= fds[i].revents != 0;
    }
    if (task->parking && count > upstream_count && !task->tunnel
        && (fds[upstream_count].revents & (POLLRDHUP | POLLHUP | POLLERR)) && !*upstream_ready
        && !task->settings.ignore_client_abort) {
        rp_exchange_client_left(&task->x);
    }
    return 1;
}

static void check_stream(rp_task *task)
{
    if (!task->parking && task->c->aborted) {
        rp_exchange_client_left(&task->x);
    }
}

/* A child that stops gracefully waits for everything but tunnels; one that stops at once has closed
 * the client's socket already. */
static void check_stopping(rp_task *task)
{
    if (rp_park_stops_at_once()) {
        rp_exchange_end(&task->x, RP_REASON_CLIENT_GONE);
    }
    else {
        rp_park_bound_tunnel(task);
    }
}

/* ---- the grace ------------------------------------------------------------------------------- */

/* Whether waiting in the thread for a moment has paid off lately, by endpoint: it would hold
 * threads for nothing where the upstream is slow. Endpoints that share a place mislead each other,
 * which only costs time. */
static atomic_uchar grace_misses[RP_GRACE_PLACES];

static atomic_uchar *misses_of(const rp_task *task)
{
    return &grace_misses[((apr_uintptr_t)task->x.endpoint >> 6) % RP_GRACE_PLACES];
}

static int grace_pays_off(const rp_task *task)
{
    /* Relaxed here and below: a guess. Now and then it is tried again. */
    return atomic_load_explicit(misses_of(task), memory_order_relaxed) < RP_GRACE_MISSES
        || rp_random_next() % RP_GRACE_RETRY == 0;
}

static void learn_grace(const rp_task *task, int missed)
{
    atomic_uchar *misses = misses_of(task);
    unsigned char count = atomic_load_explicit(misses, memory_order_relaxed);

    if (!missed && count > 0) {
        atomic_store_explicit(misses, 0, memory_order_relaxed);
    }
    else if (missed && count < RP_GRACE_MISSES) {
        atomic_store_explicit(misses, count + 1, memory_order_relaxed);
    }
}

/* Runs the exchange to its end, or until it is better parked. */
static rp_outcome drive(rp_task *task)
{
    rp_exchange *x = &task->x;
    int ready = 0;
    rp_outcome outcome = rp_exchange_step(x, 0);

    while (outcome == RP_OUTCOME_RUNNING) {
        int limit = -1;

        if (rp_park_is_possible(task)) {
            if (!rp_park_threads_are_plentiful() || x->state == RP_X_TUNNEL
                || !grace_pays_off(task)) {
                return outcome;
            }
            limit = RP_GRACE_MS;
        }
        if (!wait_here(task, limit, &ready)) {
            learn_grace(task, 1);
            return outcome;
        }
        if (ready) {
            learn_grace(task, 0);
        }
        check_stream(task);
        check_stopping(task);
        outcome = rp_exchange_step(x, ready);
    }
    return outcome;
}

static int handler(request_rec *r)
{
    rp_task *task = rp_task_of(r);
    const rp_task_preset *preset;
    int status;

    if (!task) {
        return DECLINED;
    }
    if (apr_table_get(r->notes, exempt_note)) {
        ap_internal_redirect(r->unparsed_uri, r);
        return OK;
    }
    preset = rp_park_take_preset(r->connection);
    if (preset) {
        return rp_task_adopt(task, preset);
    }
    status = rp_task_start(task);
    if (status != OK) {
        return status;
    }
    if (drive(task) == RP_OUTCOME_RUNNING) {
        task->was_parked = 1;
        return SUSPENDED;
    }
    return rp_task_finish(task);
}

/* ---- registration ---------------------------------------------------------------------------- */

apr_status_t rp_pipeline_child_init(apr_pool_t *pool, server_rec *server)
{
    rp_buffers_child_init();
    rp_request_id_seed();
    rp_stats_child_init(pool);
    return rp_park_child_init(pool, server);
}

static int post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    apr_status_t rv = rp_stats_create(s->process->pool);

    (void)pconf;
    (void)plog;
    (void)ptemp;
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, rv, s,
                     "RP0008: no shared memory for counters: the status page will show none");
    }
    return OK;
}

void rp_pipeline_register_hooks(apr_pool_t *pool)
{
    static const char *const after_rewrite[] = { "mod_rewrite.c", NULL };
    static const char *const before_dir[] = { "mod_dir.c", NULL };

    (void)pool;
    rp_client_register();
    rp_park_register_hooks();
    rp_stats_register_hooks();
    ap_hook_post_config(post_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_read_request(post_read_request, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_translate_name(translate_name, after_rewrite, NULL, APR_HOOK_FIRST);
    ap_hook_map_to_storage(map_to_storage, NULL, NULL, APR_HOOK_FIRST);
    ap_hook_type_checker(type_checker, NULL, NULL, APR_HOOK_FIRST);
    ap_hook_fixups(fixups, after_rewrite, before_dir, APR_HOOK_LAST);
    ap_hook_handler(handler, NULL, NULL, APR_HOOK_FIRST);
}
