/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <string.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>
#include "httpd.h"
#include "ap_mpm.h"
#include "ap_mmn.h"
#include "http_config.h"
#include "http_connection.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_ssl.h"
#include "mpm_common.h"
#include "scoreboard.h"
#include "rproxy/engine/rp_access_log.h"
#include "rproxy/engine/rp_engine.h"
#include "rproxy/engine/rp_engine_request.h"
#include "rproxy/engine/rp_handover.h"
#include "rproxy/engine/rp_h1.h"
#include "rproxy/engine/rp_h2.h"
#include "rproxy/engine/rp_lane.h"
#include "rproxy/engine/rp_log_lines.h"
#include "rproxy/pipeline/rp_park.h"
#include "rproxy/pipeline/rp_park_timer.h"
#include "rproxy/pipeline/rp_pipeline.h"

APLOG_USE_MODULE(rproxy);

#define LAST_CONNECTIONS apr_time_from_sec(10)

static rp_engine_loop *loops;
static atomic_int loop_count;           /* 0: the engine isn't running */
static atomic_uint next_loop;
static atomic_flag told_to_drain = ATOMIC_FLAG_INIT;
static int silent[2] = { -1, -1 };      /* a pair of sockets on which nobody writes */

static APR_OPTIONAL_FN_TYPE(ap_logio_add_bytes_in) *add_bytes_in;
static APR_OPTIONAL_FN_TYPE(ap_logio_add_bytes_out) *add_bytes_out;
static APR_OPTIONAL_FN_TYPE(ap_logio_get_last_bytes) *get_last_bytes;

rp_engine_loop *rp_engine_next_loop(void)
{
    int count = loop_count;

    /* Relaxed: in turn, roughly. */
    return count == 0 ? NULL
        : &loops[atomic_fetch_add_explicit(&next_loop, 1, memory_order_relaxed)
                 % (unsigned int)count];
}

int rp_engine_silent_socket(void)
{
    return silent[0];
}

void rp_engine_count_in(conn_rec *c, apr_off_t bytes)
{
    if (add_bytes_in && bytes > 0) {
        add_bytes_in(c, bytes);
    }
}

void rp_engine_count_out(conn_rec *c, apr_off_t bytes)
{
    if (add_bytes_out) {
        add_bytes_out(c, bytes);
    }
}

apr_off_t rp_engine_bytes_out(request_rec *r)
{
    return get_last_bytes ? get_last_bytes(r->connection) : r->bytes_sent;
}

/* ---- places in the scoreboard ---------------------------------------------------------------- */

static atomic_int child_number = -1;    /* the row of this process */

void rp_engine_learn_child(const conn_rec *c)
{
    int limit = 0;

    if (atomic_load_explicit(&child_number, memory_order_relaxed) < 0
        && ap_mpm_query(AP_MPMQ_HARD_LIMIT_THREADS, &limit) == APR_SUCCESS && limit > 0) {
        atomic_store_explicit(&child_number, (int)(c->id / limit), memory_order_relaxed);
    }
}

/* Beyond those of the MPM, which are places in the scoreboard. */
long rp_engine_connection_id(int lane_number)
{
    int child = atomic_load_explicit(&child_number, memory_order_relaxed);
    int limit = 0, daemons = 0;

    ap_mpm_query(AP_MPMQ_HARD_LIMIT_THREADS, &limit);
    ap_mpm_query(AP_MPMQ_HARD_LIMIT_DAEMONS, &daemons);
    return (long)daemons * limit + (long)child * limit + lane_number;
}

/* The MPM uses the first ThreadsPerChild places of a child's row; where ThreadLimit leaves more,
 * loops and lane threads take these, so that mod_status shows and counts them. */
ap_sb_handle_t *rp_engine_scoreboard_place(apr_pool_t *pool)
{
    static atomic_int taken;
    ap_sb_handle_t *sbh = NULL;
    int threads = 0, limit = 0;
    int child = atomic_load_explicit(&child_number, memory_order_relaxed);
    int place;

    ap_mpm_query(AP_MPMQ_MAX_THREADS, &threads);
    ap_mpm_query(AP_MPMQ_HARD_LIMIT_THREADS, &limit);
    place = threads + atomic_fetch_add_explicit(&taken, 1, memory_order_relaxed);
    if (child >= 0 && place < limit) {
        ap_create_sb_handle(&sbh, pool, child, place);
    }
    return sbh;
}

/* ---- draining -------------------------------------------------------------------------------- */

static void drain_loop(rp_loop *loop, rp_loop_mail *mail)
{
    rp_engine_loop *engine = loop->owner;
    rp_downstream *next;

    (void)mail;
    for (rp_downstream *d = engine->connections; d; d = next) {
        next = d->next;
        if (d->state == RP_DOWN_OPEN) {
            d->protocol->drain(d);
        }
    }
}

static void begin_to_drain(void)
{
    if (loop_count == 0 || atomic_flag_test_and_set(&told_to_drain)) {
        return;
    }
    rp_park_timer_drain();
    for (int i = 0; i < loop_count; i++) {
        rp_loop_send(loops[i].loop, &loops[i].drain_mail);
    }
}

static void tick(rp_loop *loop)
{
    int state = AP_MPMQ_RUNNING;

    rp_shelf_maintain(loop->shelf, loop->now);
    if (ap_mpm_query(AP_MPMQ_MPM_STATE, &state) == APR_SUCCESS && state == AP_MPMQ_STOPPING) {
        begin_to_drain();               /* MPMs that have no child_stopping hook */
    }
}

#if AP_MODULE_MAGIC_AT_LEAST(20120211, 110)
static void child_stopping(apr_pool_t *pool, int graceful)
{
    (void)pool;
    if (graceful) {
        begin_to_drain();
    }
}
#endif

/* ---- idle upstream connections --------------------------------------------------------------- */

static void on_idle(rp_loop *loop, void *owner, unsigned int events)
{
    (void)events;
    rp_shelf_ready(loop->shelf, owner);
}

static const rp_loop_listener idle_upstream = { on_idle, RP_LOOP_FIRST, NULL };

static void idle(void *baton, int fd, rp_conn *conn)
{
    rp_loop_pass_on(baton, fd, conn ? &idle_upstream : NULL, conn);
}

/* ---- life ------------------------------------------------------------------------------------ */

static int open_connections(void)
{
    int open = 0;

    for (int i = 0; i < loop_count; i++) {
        open += loops[i].connection_count;
    }
    return open;
}

/* The MPM waits for open connections before it ends gracefully, but not for one that was accepted
 * and had no thread yet when it looked. */
static void wait_for_connections(void)
{
    apr_time_t most = apr_time_now() + LAST_CONNECTIONS;

    while (rp_park_timer_draining_since() && !rp_park_stops_at_once() && open_connections() > 0
           && apr_time_now() < most) {
        apr_sleep(apr_time_from_msec(10));
    }
}

static apr_status_t stop(void *ignored)
{
    int count = loop_count;

    (void)ignored;
    wait_for_connections();
    loop_count = 0;
    for (int i = 0; i < count; i++) {
        rp_loop_stop(loops[i].loop);
    }
    /* Connections that are open now end with the process, as in the MPM. */
    for (int i = 0; i < count; i++) {
        if (!loops[i].connections) {
            rp_h1_end(&loops[i]);
            rp_engine_free_requests(&loops[i].h1_requests);
            rp_engine_free_requests(&loops[i].h2_streams);
            rp_shelf_destroy(loops[i].loop->shelf);
            rp_loop_destroy(loops[i].loop);
        }
    }
    return APR_SUCCESS;
}

static void round_ends(rp_loop *loop)
{
    rp_engine_loop *engine = loop->owner;

    rp_access_log_flush(engine->log);
}

static apr_status_t start_loop(rp_engine_loop *engine, apr_pool_t *pool, server_rec *server)
{
    apr_status_t rv = rp_loop_create(&engine->loop, pool);
    rp_loop *loop = engine->loop;

    if (rv != APR_SUCCESS) {
        return rv;
    }
    loop->owner = engine;
    loop->tick = tick;
    loop->round_ends = round_ends;
    loop->shelf = rp_shelf_create(idle, loop);
    if (!loop->shelf) {
        return APR_ENOMEM;
    }
    engine->drain_mail.deliver = drain_loop;
    engine->log = rp_access_log_create(loop->pool, server);
    return rp_loop_start(loop);
}

apr_status_t rp_engine_child_init(apr_pool_t *pool, server_rec *server)
{
    int wanted = rp_server_config_of(server)->engine_threads;
    int threads = 0;
    apr_status_t rv;

    if (!rp_eligible_any()) {
        return APR_SUCCESS;
    }
    ap_mpm_query(AP_MPMQ_MAX_THREADS, &threads);
    add_bytes_in = APR_RETRIEVE_OPTIONAL_FN(ap_logio_add_bytes_in);
    add_bytes_out = APR_RETRIEVE_OPTIONAL_FN(ap_logio_add_bytes_out);
    get_last_bytes = APR_RETRIEVE_OPTIONAL_FN(ap_logio_get_last_bytes);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, silent) != 0) {
        return errno;
    }
    if (!rp_pipeline_can_park(NULL) && (rv = rp_park_timer_start(pool)) != APR_SUCCESS) {
        return rv;                      /* requests that are handed over park all the same */
    }
    if ((rv = rp_h2_init(pool)) != APR_SUCCESS) {
        return rv;
    }
    if (!rp_downstream_tls_init()) {
        return APR_ENOMEM;
    }
    rp_log_lines_child_init();
    rv = rp_lane_start(pool, threads);
    loops = apr_pcalloc(pool, (apr_size_t)wanted * sizeof(*loops));
    for (int i = 0; i < wanted && rv == APR_SUCCESS; i++) {
        rv = start_loop(&loops[i], pool, server);
        loop_count += rv == APR_SUCCESS;
    }
    apr_pool_pre_cleanup_register(pool, NULL, stop);
    if (rv != APR_SUCCESS && loop_count > 0) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, rv, server,
                     "RP0603: only %d of %d event loops could be started: raise the limits of "
                     "threads and descriptors", loop_count, wanted);
        rv = APR_SUCCESS;
    }
    return rv;
}

/* ---- hooks ----------------------------------------------------------------------------------- */

static int process_connection(conn_rec *c)
{
    return loop_count > 0 && rp_downstream_take(c) ? OK : DECLINED;
}

static void suspend_connection(conn_rec *c, request_rec *r)
{
    (void)r;
    if (loop_count > 0 && !c->master) {
        rp_downstream_depart(c);
    }
}

/* HTTP/2 that was chosen in the handshake, before mod_http2 has a look at it. */
static int process_http2(conn_rec *c)
{
    return loop_count > 0 && !c->master && strcmp(ap_get_protocol(c), "h2") == 0
        && rp_downstream_take(c) ? OK : DECLINED;
}

static int offers_http2(conn_rec *c)
{
    return loop_count > 0 && !c->master && !ap_find_linked_module("mod_http2.c")
        && ap_ssl_conn_is_ssl(c) && rp_eligible_http2(c);
}

/* Where mod_http2 isn't loaded. Protocols decides whether it is taken. */
static int propose_http2(conn_rec *c, request_rec *r, server_rec *server,
                         const apr_array_header_t *offers, apr_array_header_t *proposals)
{
    (void)server;
    if (!r && offers_http2(c) && (!offers || ap_array_str_contains(offers, "h2"))) {
        APR_ARRAY_PUSH(proposals, const char *) = "h2";
    }
    return OK;
}

static int switch_to_http2(conn_rec *c, request_rec *r, server_rec *server, const char *protocol)
{
    (void)server;
    if (r || strcmp(protocol, "h2") != 0 || !offers_http2(c)) {
        return DECLINED;
    }
    rp_park_set_protocol(rp_park_of(c), "h2");
    return OK;
}

void rp_engine_register_hooks(apr_pool_t *pool)
{
    static const char *const first[] = { "mod_ssl.c", "mod_http2.c", "mod_reqtimeout.c", NULL };
    static const char *const ssl[] = { "mod_ssl.c", NULL };
    static const char *const http2[] = { "mod_http2.c", NULL };

    (void)pool;
    rp_handover_register();
    rp_log_lines_register();
    ap_hook_process_connection(process_http2, ssl, http2, APR_HOOK_LAST);
    ap_hook_protocol_propose(propose_http2, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_protocol_switch(switch_to_http2, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_protocol_get(rp_park_protocol, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_process_connection(process_connection, first, NULL, APR_HOOK_LAST);
    ap_hook_suspend_connection(suspend_connection, NULL, NULL, APR_HOOK_REALLY_LAST);
#if AP_MODULE_MAGIC_AT_LEAST(20120211, 110)
    ap_hook_child_stopping(child_stopping, NULL, NULL, APR_HOOK_MIDDLE);
#endif
}
