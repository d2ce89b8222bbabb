/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <apr_strings.h>
#include "rproxy/engine/rp_loop.h"

#define SLICE 200000                    /* ns on a CPU, if others want it */
#define EVENTS_AT_ONCE 256              /* an index fits a byte */
#define WATCHED_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)
#define TICK apr_time_from_sec(1)

static void *must(void *memory)
{
    if (!memory) {
        abort();
    }
    return memory;
}

/* ---- descriptors ----------------------------------------------------------------------------- */

static rp_watch *watch_of(rp_loop *loop, int fd)
{
    if (fd >= loop->watch_count) {
        int count = fd + fd / 2 + 256;

        loop->watches = must(realloc(loop->watches, (apr_size_t)count * sizeof(rp_watch)));
        memset(loop->watches + loop->watch_count, 0,
               (apr_size_t)(count - loop->watch_count) * sizeof(rp_watch));
        loop->watch_count = count;
    }
    return &loop->watches[fd];
}

int rp_loop_watch(rp_loop *loop, int fd, const rp_loop_listener *listener, void *owner)
{
    rp_watch *watch = watch_of(loop, fd);
    struct epoll_event event = { .events = WATCHED_EVENTS };

    event.data.u64 = (uint64_t)(watch->generation + 1) << 32 | (uint32_t)fd;
    if (epoll_ctl(loop->epfd, EPOLL_CTL_ADD, fd, &event) == 0) {
        watch->generation++;
    }
    else if (errno != EEXIST) {
        return 0;
    }
    watch->listener = listener;
    watch->owner = owner;
    return 1;
}

void rp_loop_pass_on(rp_loop *loop, int fd, const rp_loop_listener *listener, void *owner)
{
    rp_watch *watch = watch_of(loop, fd);

    watch->listener = listener;
    watch->owner = owner;
}

void rp_loop_forget(rp_loop *loop, int fd, const void *owner)
{
    rp_watch *watch = watch_of(loop, fd);

    if (watch->owner == owner) {
        watch->listener = NULL;
        watch->owner = NULL;
    }
}

void rp_loop_unwatch(rp_loop *loop, int fd)
{
    epoll_ctl(loop->epfd, EPOLL_CTL_DEL, fd, NULL);
    rp_loop_pass_on(loop, fd, NULL, NULL);
}

static int fd_of(const struct epoll_event *event)
{
    return (int)(uint32_t)event->data.u64;
}

/* NULL: nobody's, or another descriptor has the number meanwhile. */
static const rp_watch *watch_told_by(const rp_loop *loop, const struct epoll_event *event)
{
    const rp_watch *watch = &loop->watches[fd_of(event)];

    return watch->listener && watch->generation == (unsigned int)(event->data.u64 >> 32)
        ? watch : NULL;
}

static void tell(rp_loop *loop, const struct epoll_event *event)
{
    const rp_watch *watch = watch_told_by(loop, event);

    if (watch) {
        watch->listener->ready(loop, watch->owner, event->events);
    }
}

static void submit(rp_loop *loop)
{
    if (!rp_batch_submit(loop->batch)) {
        rp_batch_destroy(loop->batch);
        loop->batch = NULL;
    }
}

/* Receives for all who are going to read now. */
static void receive_ahead(rp_loop *loop, const struct epoll_event *events, int count)
{
    if (!loop->batch || count < 2) {
        return;                         /* one alone would gain nothing */
    }
    for (int i = 0; i < count; i++) {
        const rp_watch *watch = watch_told_by(loop, &events[i]);
        rp_ahead **holder = watch && watch->listener->reads && (events[i].events & EPOLLIN)
            ? watch->listener->reads(watch->owner) : NULL;

        if (holder && !*holder) {
            rp_ahead *ahead = &loop->aheads[loop->ahead_count++];

            ahead->holder = holder;
            ahead->count = -EINTR;      /* unless the kernel says something else */
            ahead->taken = 0;
            *holder = ahead;
            rp_batch_receive(loop->batch, fd_of(&events[i]), ahead->bytes, RP_AHEAD_MAX,
                             &ahead->count);
        }
    }
    submit(loop);
}

/* The next round uses the memory again. */
static void keep_unread(rp_loop *loop)
{
    for (int i = 0; i < loop->ahead_count; i++) {
        if (loop->aheads[i].holder) {
            rp_ahead_keep(&loop->aheads[i]);
        }
    }
    loop->ahead_count = 0;
}

/* In order of rank: an idle connection that has ended is out of the way, and one that has become
 * free is there, before the next request takes one. */
static void tell_all(rp_loop *loop, const struct epoll_event *events, int count)
{
    unsigned char later[2][EVENTS_AT_ONCE] = { { 0 } };
    int counts[2] = { 0, 0 };

    for (int i = 0; i < count; i++) {
        const rp_watch *watch = watch_told_by(loop, &events[i]);
        rp_loop_rank rank = watch ? watch->listener->rank : RP_LOOP_LAST;

        if (rank == RP_LOOP_FIRST) {
            tell(loop, &events[i]);
        }
        else {
            later[rank - 1][counts[rank - 1]++] = (unsigned char)i;
        }
    }
    for (int rank = 0; rank < 2; rank++) {
        for (int i = 0; i < counts[rank]; i++) {
            tell(loop, &events[later[rank][i]]);
        }
    }
}

/* ---- deadlines ------------------------------------------------------------------------------- */

/* Deadlines mostly move later while things go well: the heap keeps the old place then, and the
 * entry finds its new one when the old comes up. */
void rp_loop_set_timer(rp_loop *loop, rp_loop_timer *timer, apr_time_t due)
{
    timer->due = due;
    if (due && (!timer->entry.index || due < timer->entry.due)) {
        rp_heap_set(&loop->deadlines, &timer->entry, due);
    }
}

void rp_loop_drop_timer(rp_loop *loop, rp_loop_timer *timer)
{
    timer->due = 0;
    rp_heap_remove(&loop->deadlines, &timer->entry);
}

static void run_timers(rp_loop *loop)
{
    rp_heap_entry *entry;

    while ((entry = rp_heap_first(&loop->deadlines)) && entry->due <= loop->now) {
        rp_loop_timer *timer = (rp_loop_timer *)entry;

        rp_heap_remove(&loop->deadlines, entry);
        if (timer->due > loop->now) {
            rp_heap_set(&loop->deadlines, entry, timer->due);
        }
        else if (timer->due) {
            timer->due = 0;
            timer->expired(timer);
        }
    }
}

/* ---- tasks and mail -------------------------------------------------------------------------- */

static void clear(rp_loop_tasks *tasks)
{
    tasks->first = NULL;
    tasks->end = &tasks->first;
}

static void append(rp_loop_tasks *tasks, rp_loop_task *task)
{
    if (!task->queued) {
        task->queued = 1;
        task->next = NULL;
        *tasks->end = task;
        tasks->end = &task->next;
    }
}

void rp_loop_later(rp_loop *loop, rp_loop_task *task)
{
    append(&loop->tasks, task);
}

void rp_loop_last(rp_loop *loop, rp_loop_task *task)
{
    append(&loop->last, task);
}

/* One alone would gain nothing. */
static void prepare_tasks(rp_loop *loop)
{
    if (!loop->batch || !loop->tasks.first || !loop->tasks.first->next) {
        return;
    }
    for (rp_loop_task *task = loop->tasks.first; task; task = task->next) {
        if (task->prepare) {
            task->prepare(task, loop->batch);
        }
    }
    submit(loop);
}

/* Runs what is queued now; what these queue again waits for the next round, so that no connection
 * keeps the others waiting. */
static void run_tasks(rp_loop *loop)
{
    rp_loop_task *task = loop->tasks.first;

    prepare_tasks(loop);
    clear(&loop->tasks);
    while (task) {
        rp_loop_task *next = task->next;

        task->queued = 0;
        task->run(task);
        task = next;
    }
}

static void run_one_of_last(rp_loop *loop)
{
    rp_loop_task *task = loop->last.first;

    if (!task) {
        return;
    }
    loop->last.first = task->next;
    if (!task->next) {
        clear(&loop->last);
    }
    task->queued = 0;
    task->run(task);
}

void rp_loop_send(rp_loop *loop, rp_loop_mail *mail)
{
    int wake;

    pthread_mutex_lock(&loop->lock);
    mail->next = loop->mail;
    loop->mail = mail;
    wake = !loop->woken;
    loop->woken = 1;
    pthread_mutex_unlock(&loop->lock);
    if (wake) {
        eventfd_write(loop->wake, 1);
    }
}

static void take_mail(rp_loop *loop, void *owner, unsigned int events)
{
    rp_loop_mail *mail;
    rp_loop_mail *in_order = NULL;
    eventfd_t ignored;

    (void)owner;
    (void)events;
    eventfd_read(loop->wake, &ignored);
    pthread_mutex_lock(&loop->lock);
    mail = loop->mail;
    loop->mail = NULL;
    loop->woken = 0;
    loop->ending = loop->quit;
    pthread_mutex_unlock(&loop->lock);
    while (mail) {
        rp_loop_mail *next = mail->next;

        mail->next = in_order;
        in_order = mail;
        mail = next;
    }
    while (in_order) {
        mail = in_order;
        in_order = mail->next;
        mail->deliver(loop, mail);
    }
}

static const rp_loop_listener mailbox = { take_mail, RP_LOOP_LAST, NULL };

/* ---- memory ---------------------------------------------------------------------------------- */

static char *get(rp_loop_spares *spares, apr_size_t size)
{
    char *memory = spares->first;

    if (!memory) {
        return must(malloc(size));
    }
    spares->first = *(void **)memory;
    spares->count--;
    if (spares->count < spares->idle) {
        spares->idle = spares->count;
    }
    return memory;
}

static void put(rp_loop_spares *spares, char *memory)
{
    *(void **)memory = spares->first;
    spares->first = memory;
    spares->count++;
}

static void give_back(rp_loop_spares *spares, int count)
{
    spares->count -= count;
    while (count-- > 0) {
        void *memory = spares->first;

        spares->first = *(void **)memory;
        free(memory);
    }
    spares->idle = spares->count;
}

char *rp_loop_block_get(rp_loop *loop)
{
    return get(&loop->blocks, RP_LOOP_BLOCK);
}

void rp_loop_block_put(rp_loop *loop, char *block)
{
    put(&loop->blocks, block);
}

char *rp_loop_buffer_get(rp_loop *loop)
{
    return get(&loop->buffers, RP_LOOP_BUFFER);
}

void rp_loop_buffer_put(rp_loop *loop, char *buffer)
{
    put(&loop->buffers, buffer);
}

/* ---- the thread ------------------------------------------------------------------------------ */

static int milliseconds_to_wait(const rp_loop *loop)
{
    const rp_heap_entry *first = rp_heap_first(&loop->deadlines);
    apr_time_t until = loop->next_tick;

    if (loop->tasks.first || loop->last.first) {
        return 0;
    }
    if (first && first->due < until) {
        until = first->due;
    }
    return until <= loop->now ? 0 : (int)((until - loop->now + 999) / 1000);
}

/* Where the kernel knows it (Linux 6.12): a slice so short that a thread which computes for long,
 * as in a handshake of TLS, lets this one go first. Elsewhere the call says nothing new. */
static void ask_for_short_slices(void)
{
    struct {
        unsigned int size, policy;
        unsigned long long flags;
        int nice;
        unsigned int priority;
        unsigned long long runtime, deadline, period;
    } attributes = { .size = sizeof(attributes) };

    if (syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) == 0
        && attributes.policy == SCHED_OTHER) {
        attributes.runtime = SLICE;
        syscall(SYS_sched_setattr, 0, &attributes, 0);
    }
}

static void *APR_THREAD_FUNC run(apr_thread_t *thread, void *baton)
{
    rp_loop *loop = baton;
    struct epoll_event events[EVENTS_AT_ONCE];

    (void)thread;
    ask_for_short_slices();
    loop->batch = rp_batch_create();
    loop->aheads = must(calloc(EVENTS_AT_ONCE, sizeof(*loop->aheads)));
    loop->now = apr_time_now();
    loop->next_tick = loop->now + TICK;
    while (!loop->ending) {
        int count = epoll_wait(loop->epfd, events, EVENTS_AT_ONCE, milliseconds_to_wait(loop));

        loop->now = apr_time_now();
        rp_shelf_begin_round(loop->shelf, loop->now, count < EVENTS_AT_ONCE);
        receive_ahead(loop, events, count);
        tell_all(loop, events, count);
        run_timers(loop);
        run_tasks(loop);
        run_one_of_last(loop);
        keep_unread(loop);
        if (loop->now >= loop->next_tick) {
            loop->next_tick = loop->now + TICK;
            give_back(&loop->blocks, loop->blocks.idle);
            give_back(&loop->buffers, loop->buffers.idle);
            loop->tick(loop);
        }
        loop->round_ends(loop);
    }
    rp_batch_destroy(loop->batch);
    loop->batch = NULL;
    free(loop->aheads);
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

apr_status_t rp_loop_create(rp_loop **created, apr_pool_t *pool)
{
    rp_loop *loop = apr_pcalloc(pool, sizeof(*loop));
    apr_allocator_t *allocator;

    clear(&loop->tasks);
    clear(&loop->last);
    pthread_mutex_init(&loop->lock, NULL);
    loop->epfd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->epfd < 0 || loop->wake < 0 || apr_allocator_create(&allocator) != APR_SUCCESS
        || apr_pool_create_ex(&loop->pool, pool, NULL, allocator) != APR_SUCCESS) {
        return errno ? errno : APR_ENOMEM;
    }
    apr_allocator_owner_set(allocator, loop->pool);
    if (!rp_loop_watch(loop, loop->wake, &mailbox, loop)) {
        return errno;
    }
    *created = loop;
    return APR_SUCCESS;
}

apr_status_t rp_loop_start(rp_loop *loop)
{
    return apr_thread_create(&loop->thread, NULL, run, loop, loop->pool);
}

void rp_loop_stop(rp_loop *loop)
{
    apr_status_t ignored;

    if (!loop->thread) {
        return;
    }
    pthread_mutex_lock(&loop->lock);
    loop->quit = 1;
    pthread_mutex_unlock(&loop->lock);
    eventfd_write(loop->wake, 1);
    apr_thread_join(&ignored, loop->thread);
    loop->thread = NULL;
}

void rp_loop_destroy(rp_loop *loop)
{
    close(loop->epfd);
    close(loop->wake);
    free(loop->watches);
    rp_heap_free(&loop->deadlines);
    give_back(&loop->blocks, loop->blocks.count);
    give_back(&loop->buffers, loop->buffers.count);
    pthread_mutex_destroy(&loop->lock);
}
