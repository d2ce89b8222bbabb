/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include "httpd.h"
#include "http_config.h"
#include "http_connection.h"
#include "util_filter.h"
#include "rproxy/engine/rp_access_log.h"
#include "rproxy/engine/rp_handover.h"
#include "rproxy/engine/rp_lane.h"
#include "rproxy/pipeline/rp_park.h"
#include "rproxy/pipeline/rp_task.h"

/* The states of a connection have got new names in httpd 2.4.63. */
#if AP_MODULE_MAGIC_AT_LEAST(20120211, 137)
#define RP_STATE_BEGIN CONN_STATE_PROCESSING
#define RP_STATE_KEEPALIVE CONN_STATE_KEEPALIVE
#else
#define RP_STATE_BEGIN CONN_STATE_READ_REQUEST_LINE
#define RP_STATE_KEEPALIVE CONN_STATE_CHECK_REQUEST_LINE_READABLE
#endif

#define RP_FILLER_MOST (1 << 26)        /* bytes that stand in for a body that was read already */

/* What a connection in the pipeline's hands is about to do. Set by whoever has it: the loop's
 * thread, or the lane's between rp_lane_push() and rp_loop_send(). */
typedef enum phase {
    PHASE_BEGIN,                        /* a request is to be read and served */
    PHASE_WRITE,                        /* output waits for the client */
    PHASE_PARKED,                       /* the request is parked */
    PHASE_BACK,                         /* done, the connection stays open */
    PHASE_CLOSE,                        /* done, to be closed in good order */
    PHASE_ABORT                         /* done, the client is gone */
} phase;

typedef struct rp_handover {
    rp_downstream *d;
    rp_lane_job job;
    rp_loop_mail mail;
    phase phase;
    apr_bucket_brigade *bytes;          /* read by the engine, not yet by httpd; NULL: first use */
    apr_status_t then;                  /* behind them; APR_SUCCESS: what the filters below have */
    rp_h1_request *ended;               /* whose outcome the pipeline words; or NULL */
    rp_task_preset preset;
    ap_filter_t *filter;
    int writable;                       /* the loop's: an event came since the lane has it */
    int waiting;                        /* the loop's: it waits for PHASE_WRITE or PHASE_PARKED */
} rp_handover;

static ap_filter_rec_t *replay_filter;

/* ---- the filter ------------------------------------------------------------------------------ */

/* Moves up to size bytes, or copies them. */
static apr_status_t take_bytes(apr_bucket_brigade *bytes, apr_bucket_brigade *bb, apr_off_t size,
                               int copy)
{
    apr_bucket *border, *next;
    apr_status_t rv = apr_brigade_partition(bytes, size, &border);

    if (rv != APR_SUCCESS && rv != APR_INCOMPLETE) {
        return rv;
    }
    for (apr_bucket *b = APR_BRIGADE_FIRST(bytes); b != border; b = next) {
        next = APR_BUCKET_NEXT(b);
        if (copy) {
            rv = apr_bucket_copy(b, &b);
            if (rv != APR_SUCCESS) {
                return rv;
            }
        }
        else {
            APR_BUCKET_REMOVE(b);
        }
        APR_BRIGADE_INSERT_TAIL(bb, b);
    }
    return APR_SUCCESS;
}

static void skip_line_ends(apr_bucket_brigade *bytes)
{
    while (!APR_BRIGADE_EMPTY(bytes)) {
        apr_bucket *b = APR_BRIGADE_FIRST(bytes);
        const char *data;
        apr_size_t len, skip = 0;

        if (apr_bucket_read(b, &data, &len, APR_BLOCK_READ) != APR_SUCCESS) {
            return;
        }
        while (skip < len && (data[skip] == '\r' || data[skip] == '\n')) {
            skip++;
        }
        if (skip < len) {
            if (skip > 0) {
                apr_bucket_split(b, skip);
                apr_bucket_delete(b);
            }
            return;
        }
        apr_bucket_delete(b);
    }
}

static int has_line(const apr_bucket_brigade *bytes)
{
    for (apr_bucket *b = APR_BRIGADE_FIRST(bytes); b != APR_BRIGADE_SENTINEL(bytes);
         b = APR_BUCKET_NEXT(b)) {
        const char *data;
        apr_size_t len;

        if (apr_bucket_read(b, &data, &len, APR_BLOCK_READ) == APR_SUCCESS
            && memchr(data, '\n', len)) {
            return 1;
        }
    }
    return 0;
}

/* What the engine has read comes first, then what the filters below give. Always the first of the
 * connection's filters, above mod_ssl's: these bytes are plain. */
static apr_status_t replay_in(ap_filter_t *f, apr_bucket_brigade *bb, ap_input_mode_t mode,
                              apr_read_type_e block, apr_off_t size)
{
    rp_handover *h = f->ctx;
    apr_bucket_brigade *bytes = h->bytes;

    if (bytes && mode == AP_MODE_EATCRLF) {
        skip_line_ends(bytes);
    }
    /* A line that was split off at the end of a bucket leaves an empty one. */
    while (bytes && !APR_BRIGADE_EMPTY(bytes) && APR_BRIGADE_FIRST(bytes)->length == 0) {
        apr_bucket_delete(APR_BRIGADE_FIRST(bytes));
    }
    if (!bytes || APR_BRIGADE_EMPTY(bytes) || mode == AP_MODE_INIT) {
        return h->then == APR_SUCCESS || mode == AP_MODE_INIT
            ? ap_get_brigade(f->next, bb, mode, block, size) : h->then;
    }
    switch (mode) {
    case AP_MODE_GETLINE:
        if (h->then == APR_TIMEUP && !has_line(bytes)) {
            return h->then;             /* as who waited for the rest of the line */
        }
        return apr_brigade_split_line(bb, bytes, block, HUGE_STRING_LEN);
    case AP_MODE_READBYTES:
        return take_bytes(bytes, bb, size, 0);
    case AP_MODE_SPECULATIVE:
        return take_bytes(bytes, bb, size, 1);
    case AP_MODE_EXHAUSTIVE:
        APR_BRIGADE_CONCAT(bb, bytes);
        return APR_SUCCESS;
    default:
        return APR_SUCCESS;
    }
}

void rp_handover_register(void)
{
    /* In front of AP_FTYPE_CONNECTION's own, which are below mod_ssl's. */
    replay_filter = ap_register_input_filter("RPROXY_REPLAY", replay_in, NULL,
                                             AP_FTYPE_CONNECTION);
}

/* ---- the lane's thread ----------------------------------------------------------------------- */

static void add_copy(rp_handover *h, apr_size_t size)
{
    rp_downstream *d = h->d;

    if (size > 0) {
        APR_BRIGADE_INSERT_TAIL(h->bytes,
                                apr_bucket_heap_create(d->in + d->in_start, size, NULL,
                                                       d->c->bucket_alloc));
        d->in_start += (unsigned int)size;
    }
}

/* httpd will discard the body that its request has: one that the engine has read is gone, and
 * anything of the same length will do. */
static void stand_in_for_body(rp_handover *h, const rp_h1_request *q)
{
    static const char last_chunk[] = "0\r\n\r\n";
    static const char filler[65536];
    apr_bucket_alloc_t *list = h->d->c->bucket_alloc;
    apr_int64_t left = q->base.request.content_length;

    if (q->base.request.framing == RP_BODY_CHUNKED) {
        APR_BRIGADE_INSERT_TAIL(h->bytes,
                                apr_bucket_immortal_create(last_chunk, sizeof(last_chunk) - 1,
                                                           list));
        return;
    }
    while (left > 0) {
        apr_size_t size = left < (apr_int64_t)sizeof(filler) ? (apr_size_t)left : sizeof(filler);

        APR_BRIGADE_INSERT_TAIL(h->bytes, apr_bucket_immortal_create(filler, size, list));
        left -= (apr_int64_t)size;
    }
}

static void give_bytes(rp_handover *h)
{
    rp_downstream *d = h->d;
    conn_rec *c = d->c;

    if (!h->bytes) {
        h->bytes = apr_brigade_create(c->pool, c->bucket_alloc);
    }
    if (!d->tls) {
        rp_engine_count_in(c, (apr_off_t)d->bytes_in);
    }
    d->bytes_in = 0;
    if (h->ended && h->ended->base.body_ended) {
        add_copy(h, h->ended->head_len);
        stand_in_for_body(h, h->ended);
    }
    add_copy(h, d->in_end - d->in_start);
    d->in_start = d->in_end = 0;
}

/* What the MPM does with a connection when its hooks have run. */
static phase next_phase(rp_handover *h, int rv)
{
    conn_rec *c = h->d->c;

    if (c->aborted) {
        return PHASE_ABORT;
    }
    if (rv == OK && rp_park_is_parked(rp_park_of(c))) {
        return PHASE_PARKED;
    }
    if ((rv != OK && rv != DONE)
        || (c->cs->state != CONN_STATE_WRITE_COMPLETION && c->cs->state != RP_STATE_KEEPALIVE)) {
        c->keepalive = AP_CONN_CLOSE;   /* once everything is written */
    }
    if (rp_client_nudge(c) != APR_SUCCESS) {
        return PHASE_ABORT;
    }
    if (c->data_in_output_filters) {
        return PHASE_WRITE;
    }
    return c->keepalive == AP_CONN_KEEPALIVE ? PHASE_BACK : PHASE_CLOSE;
}

static void take_back(rp_handover *h)
{
    rp_downstream *d = h->d;
    conn_rec *c = d->c;

    if (h->phase == PHASE_BACK) {
        rp_downstream_collect(d);
    }
    apr_brigade_cleanup(h->bytes);
    h->then = APR_SUCCESS;
    c->data_in_input_filters = 0;
    if (d->tls) {
        rp_downstream_tls_retake(d);
    }
}

static void run(rp_lane_job *job, const rp_lane_thread *thread)
{
    rp_handover *h = (rp_handover *)((char *)job - offsetof(rp_handover, job));
    rp_downstream *d = h->d;
    conn_rec *c = d->c;
    rp_parking *parking = rp_park_of(c);
    int rv = OK;

    c->sbh = thread->sbh;
    c->current_thread = thread->thread;
    c->id = thread->id;
    if (h->phase == PHASE_BEGIN) {
        if (d->tls) {
            rp_downstream_tls_drain(d);
            rp_downstream_tls_give_back(d);
        }
        give_bytes(h);
        rp_park_set_preset(parking, h->ended ? &h->preset : NULL);
        c->cs->state = RP_STATE_BEGIN;
    }
    if (h->phase == PHASE_WRITE) {
        c->cs->state = CONN_STATE_WRITE_COMPLETION;
    }
    else {
        rv = ap_run_process_connection(c);
        rp_park_set_preset(parking, NULL);
    }
    h->phase = next_phase(h, rv);
    if (h->phase >= PHASE_BACK) {
        take_back(h);
    }
    /* For whoever looks at it meanwhile: the MPM has it as suspended. */
    c->cs->state = CONN_STATE_SUSPENDED;
    if (c->sbh) {
        ap_update_child_status(c->sbh, SERVER_DEAD, NULL);
    }
    c->sbh = NULL;
    c->current_thread = NULL;
    rp_loop_send(d->loop, &h->mail);
}

/* ---- the loop's thread ----------------------------------------------------------------------- */

static void push(rp_handover *h)
{
    h->writable = 0;
    rp_loop_set_timer(h->d->loop, &h->d->timer, 0);
    rp_lane_push(&h->job);
}

static void on_parked(rp_loop *loop, void *owner, unsigned int events)
{
    rp_handover *h = owner;

    (void)loop;
    (void)events;
    if (h->waiting && h->phase == PHASE_PARKED) {   /* phase is a lane thread's otherwise */
        h->waiting = 0;
        push(h);
    }
}

static const rp_loop_listener parked = { on_parked, RP_LOOP_LAST, NULL };

static void wait_parked(rp_handover *h)
{
    rp_downstream *d = h->d;
    struct pollfd set = { .fd = rp_park_fd(rp_park_of(d->c)), .events = POLLIN };

    h->waiting = 1;
    if (!rp_loop_watch(d->loop, set.fd, &parked, h) || poll(&set, 1, 0) > 0) {
        h->waiting = 0;                 /* ready before it was watched, or again */
        push(h);
    }
}

static void wait_writable(rp_handover *h)
{
    const server_rec *server = h->d->server ? h->d->server : h->d->c->base_server;

    if (h->writable) {
        push(h);
        return;
    }
    h->waiting = 1;
    rp_loop_set_timer(h->d->loop, &h->d->timer, h->d->loop->now + server->timeout);
}

void rp_handover_ready(rp_downstream *d, unsigned int events)
{
    rp_handover *h = d->handover;

    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        h->writable = 1;
        if (h->waiting && h->phase == PHASE_WRITE) {
            h->waiting = 0;
            push(h);
        }
    }
}

void rp_handover_expired(rp_downstream *d)
{
    rp_handover *h = d->handover;

    if (h->waiting && h->phase == PHASE_WRITE) {
        h->waiting = 0;
        if (d->tls) {
            rp_downstream_tls_retake(d);
        }
        rp_downstream_abort(d, 0);
    }
}

static void came_back(rp_loop *loop, rp_loop_mail *mail)
{
    rp_handover *h = (rp_handover *)((char *)mail - offsetof(rp_handover, mail));
    rp_downstream *d = h->d;

    (void)loop;
    switch (h->phase) {
    case PHASE_WRITE:
        wait_writable(h);
        return;
    case PHASE_PARKED:
        wait_parked(h);
        return;
    default:
        break;
    }
    if (h->ended) {
        rp_h1_request *q = h->ended;

        h->ended = NULL;
        rp_h1_drop_request(q);
    }
    d->state = RP_DOWN_OPEN;
    d->readable = 1;                    /* events meanwhile were nobody's */
    d->drained = 0;
    switch (h->phase) {
    case PHASE_BACK:
        d->protocol->returned(d);
        break;
    case PHASE_CLOSE:
        rp_downstream_close(d);
        break;
    default:
        rp_downstream_abort(d, 0);
        break;
    }
}

void rp_handover_begin(rp_downstream *d, apr_status_t then)
{
    rp_handover *h = d->handover;

    h->phase = PHASE_BEGIN;
    h->then = then;
    d->state = RP_DOWN_LANE;
    rp_access_log_flush(d->engine->log);
    push(h);
}

/* Puts the head of q back in front of what was read. */
static void put_back(rp_downstream *d, const rp_h1_request *q)
{
    rp_downstream_make_room(d, (unsigned int)q->head_len);
    memmove(d->in + d->in_start + q->head_len, d->in + d->in_start, d->in_end - d->in_start);
    d->in_end += (unsigned int)q->head_len;
    memcpy(d->in + d->in_start, q->raw_head, q->head_len);
}

void rp_handover_outcome(rp_downstream *d, rp_h1_request *q)
{
    rp_handover *h = d->handover;

    if (rp_h1_write(q) != RP_IO_DONE) {
        /* Interim responses that the client doesn't take: it won't take an answer either. */
        rp_access_log_failure(d->engine->log, &q->base);
        rp_access_log_write(d->engine->log, &q->base);
        rp_h1_drop_request(q);
        rp_downstream_abort(d, 0);
        return;
    }
    if (q->base.body_ended && q->base.request.framing == RP_BODY_LENGTH
        && q->base.request.content_length > RP_FILLER_MOST) {
        q->base.body_ended = 0;              /* the connection closes then */
    }
    h->ended = q;
    d->session = NULL;
    h->preset = (rp_task_preset){
        .x = &q->base.x,
        .match = &q->base.match,
        .fields = q->base.x.outcome == RP_OUTCOME_REPLACED ? &q->base.response_fields : NULL,
        .request_id = q->base.request.request_id,
        .body_status = q->base.body_status,
        .body_ended = q->base.body_ended
    };
    put_back(d, q);
    rp_handover_begin(d, APR_SUCCESS);
}

/* ---- life ------------------------------------------------------------------------------------ */

int rp_handover_prepare(rp_downstream *d)
{
    rp_handover *h = calloc(1, sizeof(*h));

    if (!h) {
        return 0;
    }
    h->d = d;
    h->job.run = run;
    h->mail.deliver = came_back;
    d->handover = h;
    h->filter = ap_add_input_filter_handle(replay_filter, h, NULL, d->c);
    return 1;
}

void rp_handover_give_up(rp_downstream *d)
{
    rp_handover *h = d->handover;

    if (h->filter) {
        ap_remove_input_filter(h->filter);
    }
    if (h->ended) {
        rp_h1_drop_request(h->ended);
    }
    free(h);
    d->handover = NULL;
}
