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
#include "rproxy/pipeline/rp_park.h"
#include "rproxy/pipeline/rp_park_timer.h"
#include "rproxy/pipeline/rp_pipeline.h"
#include "rproxy/pipeline/rp_stats.h"

APLOG_USE_MODULE(rproxy);

#define RP_IDLE_THREADS_MIN 2           /* left for new connections, whatever waits in threads */
#define RP_TIMED_BODY_MS    500         /* how often a timed request body is looked at */
#define RP_NEXT_REQUEST_MS  4    /* wait this long in the thread for a busy client's next request */

#ifndef AP_MPMQ_CAN_WAITIO
/* Never reached: can_wait_io stays 0 in a module built for httpd before 2.4.63. */
#define CONN_STATE_ASYNC_WAITIO CONN_STATE_SUSPENDED
#endif

struct rp_parking {
    conn_rec *c;
    apr_socket_t *socket;               /* the client's, whose descriptor is swapped */
    SSL *tls;                           /* mod_ssl's on this connection; NULL: none */
    rp_task *task;                      /* whose output must not block; parked or about to be */
    rp_park_timer timer;
    rp_wait_fd fds[RP_CONN_WAITS_MAX];  /* upstream descriptors in the epoll set */
    int fd_count;
    int client_fd;
    int epfd;                           /* -1 before the first parking */
    apr_uint32_t client_events;         /* registered for client_fd; 0: not in the set */
    unsigned int in_hook:1;             /* our process_connection hook is below on the stack */
    unsigned int parked:1;              /* the MPM is to wait for epfd */
    unsigned int swapped:1;             /* socket carries epfd */
    unsigned int has_filter:1;          /* the flow filter is on the connection */
    unsigned int idle:1;              /* waits for the client's next request in the MPM's pollset */
    unsigned int slow_client:1;        /* its last request took longer to come than is waited for */
    apr_interval_time_t keep_alive;     /* KeepAliveTimeout after a request of ours; 0: the MPM's
                                         * Timeout is shorter, or no request was ours yet */
    apr_time_t answered_at;          /* end of the last request, while slow_client is to be known */
};

static int can_wait_io;                 /* the MPM offers CONN_STATE_ASYNC_WAITIO */
static int threads_per_child;
static atomic_int busy_threads;         /* in process_connection, this child */
static _Atomic apr_time_t stopping_since;   /* gracefully; 0: the child goes on */
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

/* ---- the child's end ------------------------------------------------------------------------ */

static void begin_to_stop(void)
{
    apr_time_t never = 0;

    atomic_compare_exchange_strong(&stopping_since, &never, apr_time_now());
}

void rp_park_bound_tunnel(rp_task *task)
{
    int state = AP_MPMQ_RUNNING;
    apr_time_t since;

    if (task->x.state != RP_X_TUNNEL || !task->settings.timeouts.drain) {
        return;
    }
    /* Prefork has no hook for a child that stops gracefully. */
    if (ap_mpm_query(AP_MPMQ_MPM_STATE, &state) == APR_SUCCESS && state == AP_MPMQ_STOPPING) {
        begin_to_stop();
    }
    since = atomic_load_explicit(&stopping_since, memory_order_relaxed);
    if (since) {
        task->x.drain_by = since + task->settings.timeouts.drain;
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
                                         "log_input_output" };

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
    return !atomic_load_explicit(&stopping_since, memory_order_relaxed)
        || atomic_load_explicit(&parked_count, memory_order_relaxed) > 0;
}

int rp_park_is_possible(const rp_task *task)
{
    const request_rec *r = task->r;

    return can_wait_io && listener_lasts() && task->parking && task->parking->in_hook
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
    parking->timer.due = waits.deadline && waits.deadline < refresh ? waits.deadline : refresh;
    parking->timer.drain = task->x.state == RP_X_TUNNEL ? task->settings.timeouts.drain : 0;
    if (task->x.client_gone) {
        /* The upstream may finish, but the MPM would close an aborted connection: see complete().
         */
        c->aborted = 0;
    }
    parking->parked = 1;
    atomic_fetch_add_explicit(&parked_count, 1, memory_order_relaxed);
    rp_stats_add(RP_STAT_PARKED, 1);
    rp_park_timer_add(&parking->timer);
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

/* Nonzero if the connection is kept alive, everything is written and nothing of a next request is
 * read: what the MPM would find out before it waits for that request. */
static int is_between_requests(const rp_parking *parking)
{
    conn_rec *c = parking->c;

    return c->cs->state == CONN_STATE_WRITE_COMPLETION && c->keepalive == AP_CONN_KEEPALIVE
        && !c->aborted && !c->data_in_input_filters && parking->keep_alive > 0
        && !rp_park_timer_draining_since()
        && rp_client_nudge(c) == APR_SUCCESS && !c->data_in_output_filters;
}

/* A client that sends one request after the other gets its next one served by the same thread: the
 * way through the MPM's listener and back costs more than the request. Only while threads are
 * plentiful, for a moment, and for clients whose last request came that fast. */
static int next_request_came(rp_parking *parking)
{
    conn_rec *c = parking->c;
    struct pollfd fd = { parking->client_fd, POLLIN, 0 };

    if (parking->slow_client || !rp_park_threads_are_plentiful()) {
        parking->answered_at = apr_time_now();
        return 0;
    }
    parking->answered_at = 0;
    ap_update_child_status(c->sbh, SERVER_BUSY_KEEPALIVE, NULL);
    if (poll(&fd, 1, RP_NEXT_REQUEST_MS) <= 0) {
        parking->slow_client = 1;
        parking->answered_at = apr_time_now();
        return 0;
    }
    c->cs->state = CONN_STATE_PROCESSING;
    return 1;
}

static void learn_pace(rp_parking *parking)
{
    if (parking->answered_at) {
        parking->slow_client = apr_time_now() - parking->answered_at
            > apr_time_from_msec(RP_NEXT_REQUEST_MS);
        parking->answered_at = 0;
    }
}

/* The MPM closes all kept-alive connections whenever no thread is idle, to get rid of those who
 * might hold one; where exchanges get parked, a moment without an idle thread is ordinary. So it
 * waits for these clients as it does for parked exchanges, and the timer keeps KeepAliveTimeout. */
static void wait_for_next_request(rp_parking *parking)
{
    conn_rec *c = parking->c;

    if (atomic_load_explicit(&parked_count, memory_order_relaxed) == 0
        && apr_time_now() - atomic_load_explicit(&last_parked, memory_order_relaxed)
            > parking->keep_alive) {
        return;
    }
    parking->idle = 1;
    parking->timer.due = apr_time_now() + parking->keep_alive;
    parking->timer.drain = 0;
    parking->timer.idle_fd = parking->client_fd;
    rp_park_timer_add(&parking->timer);
    c->cs->state = CONN_STATE_ASYNC_WAITIO;
    c->cs->sense = CONN_SENSE_WANT_READ;
}

/* Nonzero if KeepAliveTimeout ended the connection meanwhile. */
static int end_waiting(rp_parking *parking)
{
    if (!parking->idle) {
        return 0;
    }
    parking->idle = 0;
    return rp_park_timer_remove(&parking->timer);
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

    if (!can_wait_io || c->master || !c->cs || !(parking = rp_park_of(c)) || parking->in_hook) {
        return DECLINED;
    }
    atomic_fetch_add_explicit(&busy_threads, 1, memory_order_relaxed);
    if (end_waiting(parking)) {
        c->keepalive = AP_CONN_CLOSE;
        c->cs->state = CONN_STATE_LINGER;
        atomic_fetch_sub_explicit(&busy_threads, 1, memory_order_relaxed);
        return OK;
    }
    learn_pace(parking);
    rv = parking->parked ? resume(parking) : run_pipeline(parking);
    while (rv == OK && is_between_requests(parking)) {
        if (!next_request_came(parking)) {
            wait_for_next_request(parking);
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
        end_waiting(parking);
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
        begin_to_stop();
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
