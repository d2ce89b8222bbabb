/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Requests that wait for a place: the order over threads and processes, bounds, gaps, children that
 * are killed; and the budget of retries. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "balancer/rp_waiters.h"
#include "t/unit/httpd_shim.h"
#include "t/unit/tap.h"
#include "t/unit/balancer_fixture.h"

#define SECOND APR_USEC_PER_SEC
#define THREADS 4
#define TURNS 5000
#define CHILDREN 3

static apr_pool_t *pool;

/* ---- the line -------------------------------------------------------------------------------- */

static rp_queue *new_queue(void)
{
    rp_queue *queue = mmap(NULL, sizeof(*queue), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    rp_queue_init(queue);
    return queue;
}

static rp_ticket join(rp_queue *queue, int row, int waiter, int max)
{
    rp_ticket ticket = 0;

    return rp_queue_join(queue, (rp_queue_owner){ row, waiter }, max, &ticket) ? ticket : 0;
}

/** The waiter who is called now, -1: nobody new. */
static int call(rp_queue *queue, rp_ticket from)
{
    rp_queue_owner owner;

    return rp_queue_call(queue, from, 0, &owner) ? owner.waiter : -1;
}

static void order(void)
{
    rp_queue *queue = new_queue();
    rp_ticket a = join(queue, 0, 10, 3), b = join(queue, 1, 11, 3), c = join(queue, 0, 12, 3);
    rp_ticket ticket = 0;
    rp_queue_owner owner;

    ok(a && b && c && !join(queue, 0, 13, 3), "as many as max=, no more");
    is_number(call(queue, 0), 10, "the first is called");
    is_number(call(queue, 0), -1, "once");
    is_number(rp_queue_answer(queue, b), RP_QUEUE_NOT_YET, "others are not");
    is_number(rp_queue_answer(queue, a), RP_QUEUE_CALLED, "it answers");
    is_number(rp_queue_answer(queue, a), RP_QUEUE_NOT_YET, "and is called no more");
    is_number(call(queue, a + 1), 11, "who can't use the place calls the next one");
    is_number(call(queue, 0), 10, "the first is called again when another place is free");
    ok(rp_queue_next_called(queue, 1, &ticket, &owner) && owner.waiter == 11
       && !rp_queue_next_called(queue, 1, &ticket, &owner), "who is called of a row");
    ok(rp_queue_leave(queue, b), "who leaves says that it was called");
    ok(!rp_queue_leave(queue, b), "once");
    is_number(rp_queue_count(queue), 2, "a gap is not counted");
    ok(join(queue, 2, 14, 3) && !join(queue, 2, 15, 3), "and its place is free at once");
    rp_queue_drop_row(queue, 0);
    is_number(rp_queue_count(queue), 1, "a row is gone");
    is_number(rp_queue_answer(queue, c), RP_QUEUE_GONE, "and its tickets");
    is_number(call(queue, 0), 14, "the next is called");
    rp_queue_drop_row(queue, 2);
    ok(!rp_queue_has_waiting(queue), "nobody waits");
}

static void long_line(void)
{
    rp_queue *queue = new_queue();
    rp_ticket first = join(queue, 0, 0, RP_QUEUE_MAX), last = first;
    int joined = 1;

    while (join(queue, 0, joined, RP_QUEUE_MAX))
        joined++;
    is_number(joined, RP_QUEUE_MAX, "the longest line");
    rp_queue_drop_row(queue, 0);
    for (int i = 0; i < 3 * RP_QUEUE_PLACES && last; i++) {
        rp_ticket next = join(queue, 0, i % 100, RP_QUEUE_MAX);

        if (!next || next <= last || rp_queue_leave(queue, next))
            break;
        last = next;
    }
    ok(last > first + 3 * RP_QUEUE_PLACES, "tickets count on around the ring");
    first = join(queue, 0, 1, 2);
    for (joined = 0; (last = join(queue, 1, 2, 2)); joined++)
        rp_queue_leave(queue, last);
    is_number(joined, RP_QUEUE_PLACES - 1, "gaps behind one who stays fill the ring");
    rp_queue_leave(queue, first);
    ok(join(queue, 1, 3, 2), "until it leaves");
}

static struct {
    rp_queue *queue;
    atomic_ullong last;                 /* ticket that had its turn last */
    atomic_int wrong, at_once;
} shared_turns;

static void *take_turns(void *data)
{
    rp_queue *queue = shared_turns.queue;
    int row = (int)(apr_uintptr_t)data;

    for (int i = 0; i < TURNS; i++) {
        rp_ticket ticket = join(queue, row, 0, THREADS);
        rp_queue_owner owner;
        rp_ticket first;

        /* Nobody was called if it is the first, unless it was called meanwhile. */
        while (rp_queue_answer(queue, ticket) != RP_QUEUE_CALLED) {
            if (rp_queue_first(queue, &first, &owner) && first == ticket)
                rp_queue_call(queue, 0, 0, &owner);
            sched_yield();
        }
        shared_turns.wrong += atomic_exchange(&shared_turns.last, ticket) >= ticket;
        shared_turns.wrong += atomic_fetch_add(&shared_turns.at_once, 1) != 0;
        atomic_fetch_sub(&shared_turns.at_once, 1);
        rp_queue_leave(queue, ticket);
        rp_queue_call(queue, 0, 0, &owner);
    }
    return NULL;
}

static void threads(void)
{
    pthread_t ids[THREADS];

    shared_turns.queue = new_queue();
    for (int i = 0; i < THREADS; i++)
        pthread_create(&ids[i], NULL, take_turns, (void *)(apr_uintptr_t)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(ids[i], NULL);
    is_number(shared_turns.wrong, 0, "threads have their turns in order, one at a time");
    is_number(rp_queue_count(shared_turns.queue), 0, "and nobody is left");
}

/* ---- requests -------------------------------------------------------------------------------- */

static rp_balancer *pool_of(const char *name, int count, int max, int queue_max)
{
    rp_balancer *balancer = fixture_pool(pool, name, &rp_method_roundrobin, "", count, NULL);

    for (int i = 0; i < count; i++)
        fixture_member(balancer, i)->max = max;
    balancer->queue_max = queue_max;
    balancer->queue_timeout = 5 * SECOND;
    fixture_start(pool, balancer);
    return balancer;
}

static rproxy_request request(void)
{
    rproxy_request made = fixture_request("/");

    made.pool = pool;
    return made;
}

static rproxy_verdict choose(rproxy_use *use, apr_time_t now)
{
    rproxy_target *target;

    return rp_balancer_choose(use, now, &target);
}

static int is_ready(const rproxy_use *use)
{
    struct pollfd fd = { use->wait_fd, POLLIN, 0 };

    return poll(&fd, 1, 0) == 1;
}

static void waits(void)
{
    rp_balancer *balancer = pool_of("waits", 1, 1, 2);
    rproxy_request get = request();
    rproxy_use uses[5];

    for (int i = 0; i < 5; i++)
        uses[i] = (rproxy_use){ .pool = balancer, .request = &get };
    is_number(choose(&uses[0], FIXTURE_START), RPROXY_CHOSEN, "there is a place");
    is_number(choose(&uses[1], FIXTURE_START), RPROXY_QUEUED, "the next one waits");
    is_number(choose(&uses[2], FIXTURE_START), RPROXY_QUEUED, "and one more");
    is_number(choose(&uses[3], FIXTURE_START), RPROXY_QUEUE_FULL, "but no third");
    ok(!is_ready(&uses[1]), "nothing is free yet");
    is_number(choose(&uses[1], FIXTURE_START), RPROXY_QUEUED, "it asks in vain");
    fixture_release(&uses[0], 1, FIXTURE_START);
    ok(is_ready(&uses[1]) && !is_ready(&uses[2]), "the first is told when a place is free");
    is_number(choose(&uses[3], FIXTURE_START), RPROXY_QUEUE_FULL, "a new one doesn't overtake it");
    is_number(choose(&uses[2], FIXTURE_START), RPROXY_QUEUED, "nor the one behind it");
    is_number(choose(&uses[1], FIXTURE_START), RPROXY_CHOSEN, "it has the place");
    is_number(choose(&uses[3], FIXTURE_START), RPROXY_QUEUED, "one more may wait");
    rp_balancer_leave(&uses[2]);
    is_number(choose(&uses[4], FIXTURE_START), RPROXY_QUEUED, "and another one for one that left");
    is_number(choose(&uses[3], FIXTURE_START + 5 * SECOND), RPROXY_QUEUE_TIMEOUT, "not for ever");
    fixture_release(&uses[1], 1, FIXTURE_START);
    rp_balancer_leave(&uses[4]);
    is_number(rp_queue_count(balancer->queue), 0, "all are gone");
    is_number(rp_waiters_count(), 0, "from here, too");
    is_number(choose(&uses[0], FIXTURE_START), RPROXY_CHOSEN, "the place is free");
    fixture_release(&uses[0], 1, FIXTURE_START);
}

static void passes_on(void)
{
    rp_balancer *balancer = pool_of("passes on", 2, 1, 10);
    rproxy_request get = request();
    rproxy_use uses[4];

    for (int i = 0; i < 4; i++)
        uses[i] = (rproxy_use){ .pool = balancer, .request = &get };
    choose(&uses[0], FIXTURE_START);
    choose(&uses[1], FIXTURE_START);
    is_number(choose(&uses[2], FIXTURE_START), RPROXY_QUEUED, "one waits");
    fixture_fail(&uses[0], FIXTURE_START);
    is_number(choose(&uses[2], FIXTURE_START), RPROXY_CHOSEN, "it has the place of one that fails");
    is_number(choose(&uses[0], FIXTURE_START), RPROXY_QUEUED, "which waits for the other member");
    is_number(choose(&uses[3], FIXTURE_START), RPROXY_QUEUED, "behind it another one");
    fixture_release(&uses[2], 1, FIXTURE_START);
    ok(is_ready(&uses[0]) && !is_ready(&uses[3]), "the first is told of a place");
    is_number(choose(&uses[0], FIXTURE_START), RPROXY_QUEUED, "where it has failed already");
    ok(is_ready(&uses[3]), "so the next is told");
    is_number(choose(&uses[3], FIXTURE_START), RPROXY_CHOSEN, "and takes it");
    fixture_release(&uses[1], 1, FIXTURE_START);
    is_number(choose(&uses[0], FIXTURE_START), RPROXY_CHOSEN, "the first has the other");
    is_number(uses[0].member, uses[1].member, "that it waited for");
    fixture_release(&uses[0], 1, FIXTURE_START);
    fixture_release(&uses[3], 1, FIXTURE_START);
}

/* ---- children -------------------------------------------------------------------------------- */

/** What children tell the parent. */
static struct report {
    atomic_int at_once, most, served, failed;
} *report;

/** A request as a lane drives it. */
static void drive(rp_balancer *balancer, const rproxy_request *get)
{
    rproxy_use use = { .pool = balancer, .request = get };
    rproxy_verdict verdict;

    while ((verdict = choose(&use, apr_time_now())) == RPROXY_QUEUED) {
        struct pollfd fd = { use.wait_fd, POLLIN, 0 };

        poll(&fd, 1, (int)apr_time_as_msec(use.wait_until - apr_time_now()) + 1);
    }
    if (verdict != RPROXY_CHOSEN) {
        atomic_fetch_add(&report->failed, 1);
        return;
    }
    usleep(200);
    fixture_release(&use, 1, apr_time_now());
    atomic_fetch_add(&report->served, 1);
}

static void *drive_all(void *data)
{
    rproxy_request get = request();

    apr_pool_create_unmanaged_ex(&get.pool, NULL, NULL);
    for (;;) {
        drive(data, &get);
        apr_pool_clear(get.pool);
    }
    return NULL;
}

static pid_t start_child(rp_balancer *balancer)
{
    pid_t pid = fork();
    apr_array_header_t *all = apr_array_make(pool, 1, sizeof(rp_balancer *));
    pthread_t id;

    if (pid)
        return pid;
    APR_ARRAY_PUSH(all, rp_balancer *) = balancer;
    if (!rp_shared_enter() || rp_waiting_start(pool, all) != APR_SUCCESS)
        _exit(1);
    for (int i = 0; i < 3; i++)
        pthread_create(&id, NULL, drive_all, balancer);
    drive_all(balancer);
    _exit(0);
}

static void end_child(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    rp_shared_settle((int)pid);
}

static int in_flight(const rp_balancer *balancer)
{
    int sum = 0;

    for (int i = 0; i < balancer->count; i++)
        sum += abs(atomic_load(&balancer->more[i].slot->shared.in_flight));
    return sum;
}

/** Until so many more have been served. */
static int progress(int more)
{
    int goal = atomic_load(&report->served) + more;

    for (int i = 0; i < 30000 && atomic_load(&report->served) < goal; i++)
        usleep(1000);
    return atomic_load(&report->served) >= goal;
}

static void killed(void)
{
    rp_balancer *balancer = pool_of("killed", 2, 2, 100);
    pid_t children[CHILDREN];
    int goes_on = 1;

    for (int i = 0; i < CHILDREN; i++)
        children[i] = start_child(balancer);
    for (int i = 0; i < 60 && goes_on; i++) {
        goes_on = progress(20);
        end_child(children[i % CHILDREN]);
        children[i % CHILDREN] = start_child(balancer);
    }
    ok(goes_on, "requests are served while children are killed");
    for (int i = 0; i < CHILDREN; i++)
        end_child(children[i]);
    rp_shared_settle_rest();
    is_number(in_flight(balancer), 0, "nothing is left in flight");
    is_number(rp_queue_count(balancer->queue), 0, "nor in line");
    is_number(atomic_load(&report->failed), 0, "and no request has waited in vain");
}

/** A child that is first in line, and stops there. */
static pid_t start_stopped(rp_balancer *balancer)
{
    pid_t pid = fork();
    rproxy_request get = request();
    rproxy_use use = { .pool = balancer, .request = &get };

    if (pid) {
        waitpid(pid, NULL, WUNTRACED);
        return pid;
    }
    if (!rp_shared_enter() || choose(&use, apr_time_now()) != RPROXY_QUEUED)
        _exit(1);
    raise(SIGSTOP);
    _exit(0);
}

static void stuck(void)
{
    rp_balancer *balancer = pool_of("stuck", 1, 1, 100);
    rproxy_request get = request();
    rproxy_use use = { .pool = balancer, .request = &get };
    pid_t stopped, other;

    choose(&use, apr_time_now());
    stopped = start_stopped(balancer);
    other = start_child(balancer);
    for (int i = 0; i < 10000 && rp_queue_count(balancer->queue) < 5; i++)
        usleep(1000);
    is_number(rp_queue_count(balancer->queue), 5, "the first in line hangs, others are behind it");
    fixture_release(&use, 1, apr_time_now());
    ok(progress(20), "they have their turns nevertheless");
    end_child(stopped);
    end_child(other);
    rp_shared_settle_rest();
    is_number(in_flight(balancer) + rp_queue_count(balancer->queue), 0, "nothing is left");
}

/* ---- the budget ------------------------------------------------------------------------------ */

static int fails_and_may_retry(rproxy_use *use)
{
    int may = rp_balancer_retry(use);

    fixture_fail(use, FIXTURE_START);
    return may;
}

static void budget(void)
{
    rp_balancer *balancer = fixture_pool(pool, "budget", &rp_method_roundrobin, "", 4, NULL);
    rproxy_request get = request();
    rproxy_use uses[20];
    int allowed = 0;

    balancer->budget = (rp_budget){ .percent = 25, .min = 2 };
    fixture_start(pool, balancer);
    for (int i = 0; i < 20; i++)
        fixture_choose(balancer, &uses[i], &get, FIXTURE_START);
    for (int i = 0; i < 10; i++) {
        if (!fails_and_may_retry(&uses[i]))
            continue;
        allowed++;
        choose(&uses[i], FIXTURE_START);
    }
    is_number(allowed, 7, "a share of the live requests may be retries");
    ok(rp_balancer_retry(&uses[0]), "one that is a retry goes on being one");
    fixture_fail(&uses[0], FIXTURE_START);
    choose(&uses[0], FIXTURE_START);
    ok(!fails_and_may_retry(&uses[10]), "others may not");
    for (int i = 0; i < 20; i++) {
        if (i < 7 || i > 10)
            fixture_release(&uses[i], 1, FIXTURE_START);
    }
    is_number(atomic_load(&balancer->retries->shared.in_flight), 0, "all are over");
    is_number((long long)atomic_load(&balancer->slot->retries_refused), 4, "refusals are counted");
    fixture_choose(balancer, &uses[0], &get, FIXTURE_START);
    ok(fails_and_may_retry(&uses[0]), "the smallest budget is there always");
    rp_balancer_leave(&uses[0]);
    is_number(atomic_load(&balancer->retries->shared.in_flight), 0, "who gives up is over, too");
}

int main(void)
{
    pool = tap_pool();
    report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                  0);
    order();
    long_line();
    threads();
    killed();
    stuck();
    waits();
    passes_on();
    budget();
    return tap_done();
}
