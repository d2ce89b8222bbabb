/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What idle, idle_http2 and ws_idle share: thousands of connections that are opened, have a first
 * exchange each, stay idle until a line comes on stdin, and have a second exchange each. The
 * program brings the exchanges; what it knows of a member is found by the member's place in the
 * array.
 */
#ifndef BENCH_CROWD_H
#define BENCH_CROWD_H

#include "net.h"

#include <stdbool.h>

#define PER_ADDRESS 4096    /* connections from one address */

typedef enum { NEW, CONNECTING, FIRST, IDLE, SECOND, DONE, DEAD, STATES } state_t;

typedef struct {
    int fd;
    state_t state;
} member_t;

typedef struct {
    size_t window;                  /* members in an exchange at once */
    double limit;                   /* seconds for all first exchanges, and for all second ones */
    void (*connected)(member_t *);  /* begins the first exchange */
    void (*readable)(member_t *);
    member_t *members;
    size_t count;
    size_t in[STATES];              /* how many members are in each state */
    size_t opened, answered;        /* how many have ever become IDLE, DONE */
    int epoll;
} crowd_t;

static inline void crowd_make(crowd_t *crowd, size_t count)
{
    crowd->members = calloc(count, sizeof(*crowd->members));
    crowd->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!crowd->members || crowd->epoll < 0)
        die("cannot start");
    crowd->count = crowd->in[NEW] = count;
}

static inline void crowd_enter(crowd_t *crowd, member_t *m, state_t state)
{
    crowd->in[m->state]--;
    crowd->in[state]++;
    crowd->opened += state == IDLE;
    crowd->answered += state == DONE;
    m->state = state;
}

/* Where a member connects from: 127.1.0.0/16 and 127.2.0.0/16 in turn. */
static inline in_addr_t crowd_address(const crowd_t *crowd, const member_t *m)
{
    const size_t i = (size_t)(m - crowd->members);

    return (in_addr_t)((i % 2 ? 0x7f020001 : 0x7f010001) + i / 2 / PER_ADDRESS);
}

static inline void crowd_dead(crowd_t *crowd, member_t *m)
{
    crowd_enter(crowd, m, DEAD);
    close(m->fd);
}

/* A connect has been started on fd, or was refused (-1). */
static inline void crowd_open(crowd_t *crowd, member_t *m, int fd)
{
    m->fd = fd;
    crowd_enter(crowd, m, fd < 0 ? DEAD : CONNECTING);
    if (fd >= 0)
        watch(crowd->epoll, EPOLL_CTL_ADD, fd, EPOLLOUT, m);
}

/* Sends all of the bytes of an exchange, which are few; else the member is dead. */
static inline void crowd_send(crowd_t *crowd, member_t *m, const char *bytes, size_t len)
{
    if (send(m->fd, bytes, len, MSG_NOSIGNAL) != (ssize_t)len)
        crowd_dead(crowd, m);
}

/* One turn of the loop; true: a line (or the end) has come on stdin. */
static inline bool crowd_turn(crowd_t *crowd, int wait_ms)
{
    struct epoll_event events[512];
    const int n = await_events(crowd->epoll, events, 512, wait_ms);
    bool told = false;

    for (int i = 0; i < n; i++) {
        member_t *m = events[i].data.ptr;

        if (!m)
            told = true;
        else if (m->state != CONNECTING)
            crowd->readable(m);
        else if (connect_result(m->fd) != 0)
            crowd_dead(crowd, m);
        else {
            watch(crowd->epoll, EPOLL_CTL_MOD, m->fd, EPOLLIN, m);
            crowd_enter(crowd, m, FIRST);
            crowd->connected(m);
        }
    }
    return told;
}

/* Stays idle until somebody says to go on. */
static inline void crowd_wait(crowd_t *crowd)
{
    watch(crowd->epoll, EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, NULL);
    while (!crowd_turn(crowd, -1))
        ;
    epoll_ctl(crowd->epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
}

static inline bool is_under_way(state_t state)
{
    return state == CONNECTING || state == FIRST || state == SECOND;
}

static inline size_t crowd_under_way(const crowd_t *crowd)
{
    return crowd->in[CONNECTING] + crowd->in[FIRST] + crowd->in[SECOND];
}

/* Takes each member in the state from through a step, a window at a time. Those that have not come
 * through in time are dead. Returns the seconds it took.
 */
static inline double crowd_step(crowd_t *crowd, state_t from, void (*step)(member_t *))
{
    const double start = now();
    size_t next = 0;

    while ((next < crowd->count || crowd_under_way(crowd) > 0) && now() < start + crowd->limit) {
        for (; next < crowd->count && crowd_under_way(crowd) < crowd->window; next++) {
            if (crowd->members[next].state == from)
                step(&crowd->members[next]);
        }
        if (crowd_under_way(crowd) > 0)
            crowd_turn(crowd, 100);
    }
    for (size_t i = 0; i < crowd->count; i++) {
        if (is_under_way(crowd->members[i].state))
            crowd_dead(crowd, &crowd->members[i]);
    }
    return now() - start;
}

/* Opens all and says how many came through, waits, lets those that are still there ask again, and
 * says how many were answered: a JSON line each.
 */
static inline void crowd_run(crowd_t *crowd, void (*open)(member_t *), void (*again)(member_t *))
{
    double seconds = crowd_step(crowd, NEW, open);
    size_t still;

    printf("{\"opened\":%zu,\"seconds\":%.3f}\n", crowd->opened, seconds);
    fflush(stdout);
    crowd_wait(crowd);

    still = crowd->in[IDLE];
    seconds = crowd_step(crowd, IDLE, again);
    printf("{\"idle\":%zu,\"alive\":%zu,\"seconds\":%.3f}\n", still, crowd->answered, seconds);
}

#endif
