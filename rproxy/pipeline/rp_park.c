/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <poll.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <apr_portable.h>
#include <openssl/ssl.h>
#include "httpd.h"
#include <apr_optional_hooks.h>
#include "ap_mpm.h"
#include "ap_mmn.h"
#include "http_config.h"
#include "http_connection.h"
#include "http_core.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"
#include "mpm_common.h"
#include "scoreboard.h"
#include "rproxy/pipeline/rp_park_private.h"
#include "rproxy/pipeline/rp_pipeline.h"
#include "rproxy/pipeline/rp_stats.h"

APLOG_USE_MODULE(rproxy);

#define RP_IDLE_THREADS_MIN 2           /* left for new connections, whatever waits in threads */
#define RP_TIMED_BODY_MS    500         /* how often a timed request body is looked at */

static int can_wait_io;                 /* the MPM offers CONN_STATE_ASYNC_WAITIO */
static int threads_per_child;
static atomic_int busy_threads;         /* in process_connection, this child */
static atomic_int stops_at_once;        /* ungracefully */
static atomic_int parked_count;         /* exchanges parked in this child */
static _Atomic apr_time_t last_parked;  /* when one was parked last */

/* ---- the connection's state ------------------------------------------------------------------ */

static apr_status_t close_epfd(void *baton)
{
    rp_parking *parking = baton;

    rp_park_timer_remove(&parking->timer);
    if (parking->epfd >= 0) {
        close(parking->epfd);
        parking->epfd = -1;
    }
    return APR_SUCCESS;
}

static rp_parking *parking_of(conn_rec *c)
{
    rp_parking *parking = ap_get_module_config(c->conn_config, &rproxy_module);

    if (!parking) {
        parking = apr_pcalloc(c->pool, sizeof(*parking));
        parking->c = c;
        parking->epfd = -1;
        apr_pool_cleanup_register(c->pool, parking, close_epfd, apr_pool_cleanup_null);
        ap_set_module_config(c->conn_config, &rproxy_module, parking);
    }
    return parking;
}

rp_parking *rp_park_of(conn_rec *c)
{
    rp_parking *parking;

    if (c->master) {
        return NULL;
    }
    parking = parking_of(c);
    if (!parking->socket) {
        parking->socket = ap_get_conn_socket(c);
        apr_os_sock_get(&parking->client_fd, parking->socket);
    }
    return parking;
}

SSL *rp_park_tls(const rp_parking *parking)
{
    return parking->tls;
}

int rp_park_client_fd(const rp_parking *parking)
{
    return parking->client_fd;
}

void rp_park_set_engine(rp_parking *parking, void *engine)
{
    parking->engine = engine;
}

static const rp_parking *found_parking(const conn_rec *c)
{
    return c->master ? NULL : ap_get_module_config(c->conn_config, &rproxy_module);
}

void *rp_park_engine(const conn_rec *c)
{
    const rp_parking *parking = found_parking(c);

    return parking ? parking->engine : NULL;
}

void rp_park_set_protocol(rp_parking *parking, const char *protocol)
{
    parking->protocol = protocol;
}

const char *rp_park_protocol(const conn_rec *c)
{
    const rp_parking *parking = found_parking(c);

    return parking ? parking->protocol : NULL;
}

void rp_park_set_preset(rp_parking *parking, const rp_task_preset *preset)
{
    parking->preset = preset;
}

const rp_task_preset *rp_park_take_preset(const conn_rec *c)
{
    rp_parking *parking = c->master ? NULL
        : ap_get_module_config(c->conn_config, &rproxy_module);
    const rp_task_preset *preset = parking ? parking->preset : NULL;

    if (preset) {
        parking->preset = NULL;
    }
    return preset;
}

int rp_park_is_parked(const rp_parking *parking)
{
    return parking->parked;
}

int rp_park_fd(const rp_parking *parking)
{
    return parking->epfd;
}

void rp_park_begin(rp_parking *parking, rp_task *task)
{
    if (!parking->has_filter) {
        parking->has_filter = 1;
        rp_client_add_flow_filter(parking, task->r);
    }
    parking->task = task;
}

/* The server whose Timeout and KeepAliveTimeout the event MPM takes for the connection. */
static const server_rec *timeout_server(const rp_task *task)
{
    return task->r->server->keep_alive_timeout_set ? task->r->server : task->c->base_server;
}

void rp_park_end(rp_parking *parking)
{
    if (parking->task) {
        const server_rec *server = timeout_server(parking->task);

        parking->keep_alive = server->keep_alive_timeout < server->timeout
            ? server->keep_alive_timeout : 0;
    }
    parking->task = NULL;
}

int rp_park_is_nonblocking(const rp_parking *parking)
{
    return parking->task != NULL && !parking->task->blocking_output;
}

int rp_park_threads_are_plentiful(void)
{
    int idle = threads_per_child - atomic_load_explicit(&busy_threads, memory_order_relaxed);

    /* Relaxed: a guess that is off by a thread does no harm. */
    return idle > RP_IDLE_THREADS_MIN && idle > threads_per_child / 8;
}

int rp_park_was_used_lately(apr_interval_time_t lately)
{
    /* Relaxed: it only says which way to wait is the better one. */
    return atomic_load_explicit(&parked_count, memory_order_relaxed) > 0
        || apr_time_now() - atomic_load_explicit(&last_parked, memory_order_relaxed) <= lately;
}

/* ---- the child's end ------------------------------------------------------------------------ */

void rp_park_bound_tunnel(rp_task *task)
{
    int state = AP_MPMQ_RUNNING;
    apr_time_t since;

    if (task->x.state != RP_X_TUNNEL || !task->x.settings->timeouts.drain) {
        return;
    }
    /* Prefork has no hook for a child that stops gracefully. */
    if (ap_mpm_query(AP_MPMQ_MPM_STATE, &state) == APR_SUCCESS && state == AP_MPMQ_STOPPING) {
        rp_park_timer_drain();
    }
    since = rp_park_timer_draining_since();
    if (since) {
        task->x.drain_by = since + task->x.settings->timeouts.drain;
    }
}

int rp_park_stops_at_once(void)
{
    return atomic_load_explicit(&stops_at_once, memory_order_relaxed);
}

/* ---- may this request be parked -------------------------------------------------------------- */

/* Input filters of httpd itself that read without blocking when told so. A body behind any other
 * filter waits in a thread. */
static int input_is_known(const request_rec *r)
{
    static const char *const known[] = { "http_in", "reqtimeout", "ssl/tls filter", "core_in",
                                         "log_input_output", "rproxy_replay" };

    for (const ap_filter_t *f = r->input_filters; f; f = f->next) {
        apr_size_t i = 0;

        while (i < sizeof(known) / sizeof(known[0]) && strcmp(f->frec->name, known[i]) != 0) {
            i++;
        }
        if (i == sizeof(known) / sizeof(known[0])) {
            return 0;
        }
    }
    return 1;
}

/* The MPM's listener ends once a child that stops has no connection left. It may have ended while
 * this one waited for its thread: only another parked one shows that it goes on. */
static int listener_lasts(void)
{
    return !rp_park_timer_draining_since()
        || atomic_load_explicit(&parked_count, memory_order_relaxed) > 0;
}

int rp_park_is_possible(const rp_task *task)
{
    const request_rec *r = task->r;

    return ((can_wait_io && listener_lasts()) || (task->parking && task->parking->engine))
        && task->parking && task->parking->in_hook
        && r->connection->cs && !r->main && !r->prev && !r->connection->clogging_input_filters
        && (task->request.framing == RP_BODY_NONE || task->x.client_eof || input_is_known(r));
}

/* ---- the epoll set --------------------------------------------------------------------------- */

static void set_fd(int epfd, int op, int fd, apr_uint32_t events)
{
    struct epoll_event event = { .events = events, .data = { .fd = fd } };

    epoll_ctl(epfd, op, fd, &event);
}

void rp_park_forget_upstream(rp_parking *parking)
{
    for (int i = 0; i < parking->fd_count; i++) {
        /* Fails harmlessly for a descriptor that was closed meanwhile. */
        epoll_ctl(parking->epfd, EPOLL_CTL_DEL, parking->fds[i].fd, NULL);
    }
    parking->fd_count = 0;
}

static void watch_upstream(rp_parking *parking, const rp_waits *waits)
{
    int same = parking->fd_count == waits->count;

    for (int i = 0; same && i < waits->count; i++) {
        same = parking->fds[i].fd == waits->fds[i].fd
            && parking->fds[i].events == waits->fds[i].events;
    }
    if (same) {
        return;
    }
    rp_park_forget_upstream(parking);
    for (int i = 0; i < waits->count; i++) {
        if (waits->fds[i].events) {
            /* EPOLLIN and EPOLLOUT have the values of POLLIN and POLLOUT. */
            set_fd(parking->epfd, EPOLL_CTL_ADD, waits->fds[i].fd,
                   (apr_uint32_t)waits->fds[i].events);
            parking->fds[parking->fd_count++] = waits->fds[i];
        }
    }
}

static void watch_client(rp_parking *parking, const rp_waits *waits)
{
    const rp_exchange *x = &parking->task->x;
    apr_uint32_t events = 0;

    if (!x->client_gone && !x->settings->ignore_client_abort
        && x->state != RP_X_TUNNEL) {
        events |= EPOLLRDHUP;
    }
    if (waits->client_read) {
        events |= EPOLLIN;
    }
    if (waits->client_write) {
        events |= EPOLLOUT;
    }
    if (events == parking->client_events) {
        return;
    }
    set_fd(parking->epfd, events == 0 ? EPOLL_CTL_DEL
           : parking->client_events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD,
           parking->client_fd, events);
    parking->client_events = events;
}

/* Nonzero if the client has closed its side, which counts as leaving unless it is a tunnel's half.
 */
static int client_has_left(const rp_parking *parking)
{
    struct pollfd fd = { parking->client_fd, POLLRDHUP, 0 };

    return parking->task->x.state != RP_X_TUNNEL && poll(&fd, 1, 0) > 0;
}

/* ---- park and resume ------------------------------------------------------------------------- */

/* Nonzero if mod_reqtimeout limits the time of the body: it finds out when it is read. */
static int is_body_timed(const conn_rec *c)
{
    for (const ap_filter_t *f = c->input_filters; f; f = f->next) {
        if (strcmp(f->frec->name, "reqtimeout") == 0) {
            return 1;
        }
    }
    return 0;
}

/* Leaves the connection to the MPM. Its Timeout must not end what waits longer on purpose: the
 * timer wakes the exchange before that, and it parks again. */
static int park(rp_parking *parking)
{
    conn_rec *c = parking->c;
    rp_task *task = parking->task;
    apr_time_t refresh = apr_time_now() + timeout_server(task)->timeout / 4 * 3;
    rp_waits waits;

    if (parking->epfd < 0) {
        parking->epfd = epoll_create1(EPOLL_CLOEXEC);
        if (parking->epfd < 0) {
            return 0;
        }
        parking->timer.epfd = parking->epfd;
    }
    rp_exchange_waits(&task->x, &waits);
    if (waits.client_read && is_body_timed(c)) {
        refresh = apr_time_now() + apr_time_from_msec(RP_TIMED_BODY_MS);
    }
    watch_upstream(parking, &waits);
    watch_client(parking, &waits);
    parking->timer.idle_fd = 0;
    parking->timer.drain = task->x.state == RP_X_TUNNEL ? task->x.settings->timeouts.drain : 0;
    if (task->x.client_gone) {
        /* The upstream may finish, but the MPM would close an aborted connection: see complete().
         */
        c->aborted = 0;
    }
    parking->parked = 1;
    atomic_fetch_add_explicit(&parked_count, 1, memory_order_relaxed);
    rp_stats_add(RP_STAT_PARKED, 1);
    rp_park_timer_add(&parking->timer, waits.deadline && waits.deadline < refresh
                      ? waits.deadline : refresh);
    c->cs->state = CONN_STATE_ASYNC_WAITIO;
    c->cs->sense = CONN_SENSE_WANT_READ;
    return 1;
}

static void unpark(rp_parking *parking)
{
    rp_park_timer_remove(&parking->timer);
    parking->parked = 0;
    atomic_fetch_sub_explicit(&parked_count, 1, memory_order_relaxed);
    atomic_store_explicit(&last_parked, apr_time_now(), memory_order_relaxed);
    rp_stats_add(RP_STAT_PARKED, -1);
    if (parking->task->x.state == RP_X_CONNECT) {
        /* Attempts at connecting open and close descriptors under way. */
        rp_park_forget_upstream(parking);
    }
}

/* The request is over: log it, hand its end to the filters, and let the MPM go on. */
static int complete(rp_parking *parking)
{
    rp_task *task = parking->task;
    request_rec *r = task->r;
    conn_rec *c = parking->c;
    int status;

    c->aborted |= task->x.client_gone;
    status = rp_task_finish(task);
    if (status == OK) {
        ap_finalize_request_protocol(r);
    }
    else {
        ap_die(status, r);
    }
    ap_process_request_after_handler(r);
    c->cs->sense = CONN_SENSE_DEFAULT;
    return OK;
}

static int resume(rp_parking *parking)
{
    conn_rec *c = parking->c;
    rp_task *task = parking->task;
    rp_exchange *x = &task->x;

    unpark(parking);
    c->cs->state = CONN_STATE_HANDLER;
    ap_update_child_status(c->sbh, SERVER_BUSY_WRITE, task->r);
    rp_park_bound_tunnel(task);
    if (rp_exchange_step(x, 1) == RP_OUTCOME_RUNNING
        && (x->settings->ignore_client_abort || !client_has_left(parking)
            || rp_exchange_client_left(x))
        && park(parking)) {
        return OK;
    }
    rp_exchange_end(x, RP_REASON_INTERNAL);
    return complete(parking);
}

/* ---- hooks ----------------------------------------------------------------------------------- */

/* Runs the pipeline for what the client has sent; parks its exchange if that is what it returned
 * for. */
static int run_pipeline(rp_parking *parking)
{
    conn_rec *c = parking->c;
    int rv;

    parking->in_hook = 1;
    rv = ap_run_process_connection(c);
    parking->in_hook = 0;
    if (c->cs->state != CONN_STATE_SUSPENDED || !parking->task) {
        return rv;
    }
    if (!park(parking)) {
        rp_exchange_end(&parking->task->x, RP_REASON_INTERNAL);
        complete(parking);
    }
    return OK;
}

static int process_connection(conn_rec *c)
{
    rp_parking *parking;
    int rv;

    if (c->master || !c->cs || (!can_wait_io && !rp_park_engine(c))
        || !(parking = rp_park_of(c)) || parking->in_hook) {
        return DECLINED;
    }
    atomic_fetch_add_explicit(&busy_threads, 1, memory_order_relaxed);
    if (rp_park_idle_end(parking)) {
        c->keepalive = AP_CONN_CLOSE;
        c->cs->state = CONN_STATE_LINGER;
        atomic_fetch_sub_explicit(&busy_threads, 1, memory_order_relaxed);
        return OK;
    }
    rp_park_idle_learn_pace(parking);
    rv = parking->parked ? resume(parking) : run_pipeline(parking);
    while (rv == OK && !parking->engine && rp_park_idle_is(parking)) {
        if (!rp_park_idle_next_came(parking)) {
            rp_park_idle_wait(parking);
            break;
        }
        rv = run_pipeline(parking);
    }
    atomic_fetch_sub_explicit(&busy_threads, 1, memory_order_relaxed);
    return rv;
}

static void suspend_connection(conn_rec *c, request_rec *r)
{
    rp_parking *parking = c->master ? NULL : ap_get_module_config(c->conn_config, &rproxy_module);

    (void)r;
    if (parking && parking->parked && !parking->swapped) {
        apr_os_sock_put(&parking->socket, &parking->epfd, c->pool);
        parking->swapped = 1;
    }
}

static void resume_connection(conn_rec *c, request_rec *r)
{
    rp_parking *parking = c->master ? NULL : ap_get_module_config(c->conn_config, &rproxy_module);
    apr_os_sock_t fd = -1;

    (void)r;
    if (!parking || !parking->swapped) {
        return;
    }
    parking->swapped = 0;
    if (apr_os_sock_get(&fd, parking->socket) != APR_SUCCESS || fd == -1) {
        /* The MPM could not wait for the set (no memory, no descriptors) and closed "the client".
         */
        parking->epfd = -1;
        close(parking->client_fd);
        return;
    }
    apr_os_sock_put(&parking->socket, &parking->client_fd, c->pool);
}

/* The MPM gave up on a parked connection (its Timeout, or it stops at once). */
static int pre_close_connection(conn_rec *c)
{
    rp_parking *parking = c->master ? NULL : ap_get_module_config(c->conn_config, &rproxy_module);

    if (parking) {
        rp_park_idle_end(parking);
    }
    if (parking && parking->parked) {
        conn_state_e state = c->cs->state;

        resume_connection(c, NULL);
        unpark(parking);
        rp_exchange_end(&parking->task->x, RP_REASON_IDLE_TIMEOUT);
        c->keepalive = AP_CONN_CLOSE;
        complete(parking);
        c->cs->state = state;
    }
    return OK;
}

/* mod_ssl_openssl.h declares this hook, but not every distribution installs it. */
typedef int ssl_HOOK_pre_handshake_t(conn_rec *c, SSL *ssl, int is_proxy);

static int pre_handshake(conn_rec *c, SSL *ssl, int is_proxy)
{
    if (!is_proxy && !c->master) {
        /* The socket is not known yet: this may run before the core's pre_connection. */
        parking_of(c)->tls = ssl;
    }
    return DECLINED;
}

/* Optional hooks are registered anew with each reading of the configuration. */
static int pre_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    (void)pconf;
    (void)plog;
    (void)ptemp;
    APR_OPTIONAL_HOOK(ssl, pre_handshake, pre_handshake, NULL, NULL, APR_HOOK_MIDDLE);
    return OK;
}

#if AP_MODULE_MAGIC_AT_LEAST(20120211, 110)
static void child_stopping(apr_pool_t *pool, int graceful)
{
    (void)pool;
    if (graceful) {
        rp_park_timer_drain();
    }
    else {
        atomic_store_explicit(&stops_at_once, 1, memory_order_relaxed);
    }
}
#endif

void rp_park_register_hooks(void)
{
    ap_hook_pre_config(pre_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_process_connection(process_connection, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_suspend_connection(suspend_connection, NULL, NULL, APR_HOOK_REALLY_LAST);
    ap_hook_resume_connection(resume_connection, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_pre_close_connection(pre_close_connection, NULL, NULL, APR_HOOK_REALLY_FIRST);
#if AP_MODULE_MAGIC_AT_LEAST(20120211, 110)
    ap_hook_child_stopping(child_stopping, NULL, NULL, APR_HOOK_MIDDLE);
#endif
}

int rp_pipeline_can_park(const char **why)
{
    const char *reason = NULL;
    int is_async = 0;

    if (ap_mpm_query(AP_MPMQ_IS_ASYNC, &is_async) != APR_SUCCESS || !is_async) {
        reason = "this MPM gives each connection a thread";
    }
#ifdef AP_MPMQ_CAN_WAITIO
    else {
        int can = 0;

        if (ap_mpm_query(AP_MPMQ_CAN_WAITIO, &can) != APR_SUCCESS || !can) {
            reason = "the MPM is older than httpd 2.4.63";
        }
    }
#else
    else {
        reason = "built for httpd before 2.4.63";
    }
#endif
    if (why) {
        *why = reason;
    }
    return reason == NULL;
}

apr_status_t rp_park_child_init(apr_pool_t *pool, server_rec *server)
{
    apr_status_t rv;

    ap_mpm_query(AP_MPMQ_MAX_THREADS, &threads_per_child);
    if (!rp_pipeline_can_park(NULL)) {
        return APR_SUCCESS;
    }
    rv = rp_park_timer_start(pool);
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_ERR, rv, server,
                     "RP0005: no timer thread: requests wait in their threads in this child");
        return rv;
    }
    can_wait_io = 1;
    return APR_SUCCESS;
}
