/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Many reads or writes by one system call: what went is said, what didn't go stays the caller's. */

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "rproxy/engine/rp_batch.h"
#include "rproxy/upstream/rp_ahead.h"
#include "t/unit/tap.h"

#define PAIRS 300                       /* more than go at once */

static int ours[PAIRS], theirs[PAIRS];

static void open_pairs(void)
{
    for (int i = 0; i < PAIRS; i++) {
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) {
            perror("socketpair");
            exit(1);
        }
        ours[i] = pair[0];
        theirs[i] = pair[1];
        fcntl(theirs[i], F_SETFL, O_NONBLOCK);
    }
}

static void sends_to_many(rp_batch *batch)
{
    static char text[PAIRS][16];
    static apr_ssize_t sent[PAIRS];
    int arrived = 0, said = 0;

    for (int i = 0; i < PAIRS; i++) {
        snprintf(text[i], sizeof(text[i]), "to %d", i);
        rp_batch_send(batch, ours[i], text[i], strlen(text[i]), &sent[i]);
    }
    ok(rp_batch_submit(batch), "a batch of %d is sent", PAIRS);
    for (int i = 0; i < PAIRS; i++) {
        char got[64];
        ssize_t count = recv(theirs[i], got, sizeof(got), 0);

        arrived += count == (ssize_t)strlen(text[i]) && memcmp(got, text[i], strlen(text[i])) == 0;
        said += sent[i] == (apr_ssize_t)strlen(text[i]);
    }
    is_number(arrived, PAIRS, "each socket has its bytes, once");
    is_number(said, PAIRS, "each sender knows");
}

static void tells_what_did_not_go(rp_batch *batch)
{
    static char large[8 * 1024 * 1024];
    apr_ssize_t part = 0, full = 0, gone = 0, closed = 0, fine = 0;
    char got[8];

    close(theirs[2]);
    rp_batch_send(batch, ours[0], large, sizeof(large), &part);
    rp_batch_send(batch, ours[0], large, sizeof(large), &full);
    rp_batch_send(batch, ours[2], "x", 1, &gone);
    rp_batch_send(batch, -1, "x", 1, &closed);
    rp_batch_send(batch, ours[3], "fine", 4, &fine);
    ok(rp_batch_submit(batch), "a batch with failures is sent");
    ok(part > 0 && part < (apr_ssize_t)sizeof(large), "a part went into a small buffer");
    is_number((long long)full, -EAGAIN, "nothing into a full one");
    is_number((long long)gone, -EPIPE, "nothing to who has left, and no signal");
    is_number((long long)closed, -EBADF, "nothing to what is no descriptor");
    is_number((long long)fine, 4, "the others are sent");
    is_number(recv(theirs[3], got, sizeof(got), 0), 4, "and arrive");
    ok(rp_batch_submit(batch), "an empty batch is nothing");
}

static void receives(rp_batch *batch)
{
    apr_ssize_t some = 0, none = 0, end = -1, closed = 0;
    char got[3][8];

    if (write(theirs[4], "bytes", 5) != 5) {
        perror("write");
        exit(1);
    }
    close(theirs[6]);
    rp_batch_receive(batch, ours[4], got[0], 4, &some);
    rp_batch_receive(batch, ours[5], got[1], sizeof(got[1]), &none);
    rp_batch_receive(batch, ours[6], got[2], sizeof(got[2]), &end);
    rp_batch_receive(batch, -1, got[2], sizeof(got[2]), &closed);
    ok(rp_batch_submit(batch), "a batch that receives");
    ok(some == 4 && memcmp(got[0], "byte", 4) == 0, "as many bytes as there is room for");
    is_number((long long)none, -EAGAIN, "none where there are none, without waiting");
    is_number((long long)end, 0, "the end");
    is_number((long long)closed, -EBADF, "no descriptor");
}

/* What was received ahead is read before the socket. */
static void is_read_in_order(void)
{
    static rp_ahead ahead;
    rp_ahead *holder = &ahead;
    char got[RP_AHEAD_MAX + 8];

    ahead = (rp_ahead){ .holder = &holder, .count = 5, .bytes = "ahead" };
    if (write(theirs[7], " and behind", 11) != 11) {
        perror("write");
        exit(1);
    }
    is_number(rp_receive(&holder, ours[7], got, 2), 2, "a part of what is ahead");
    rp_ahead_keep(holder);
    rp_ahead_keep(holder);
    ok(holder && holder != &ahead && !ahead.holder, "it moves");
    is_number(rp_receive(&holder, ours[7], got + 2, 100), 3, "the rest, and only that");
    ok(!holder, "it is gone");
    is_number(rp_receive(&holder, ours[7], got + 5, 100), 11, "then what is in the socket");
    ok(memcmp(got, "ahead and behind", 16) == 0, "nothing is lost");

    ahead = (rp_ahead){ .holder = &holder, .count = RP_AHEAD_MAX };
    holder = &ahead;
    ok(write(theirs[7], "more", 4) == 4 && rp_receive(&holder, ours[7], got, sizeof(got))
            == RP_AHEAD_MAX + 4 && memcmp(got + RP_AHEAD_MAX, "more", 4) == 0 && !holder,
       "a full one: there may be more, which is read too");

    ahead = (rp_ahead){ .holder = &holder, .count = 0 };
    holder = &ahead;
    ok(rp_receive(&holder, ours[7], got, 1) == 0 && !holder, "the end is told");
    ahead = (rp_ahead){ .holder = &holder, .count = -ECONNRESET };
    holder = &ahead;
    errno = 0;
    ok(rp_receive(&holder, ours[7], got, 1) == -1 && errno == ECONNRESET && !holder, "an error");
    ahead = (rp_ahead){ .holder = &holder, .count = -EINTR };
    holder = &ahead;
    ok(rp_receive(&holder, ours[7], got, 1) == -1 && errno == EAGAIN && !holder,
       "where nothing was tried the socket is asked");
    ahead = (rp_ahead){ .holder = &holder, .count = 5, .bytes = "ahead" };
    holder = &ahead;
    rp_ahead_keep(holder);
    rp_ahead_drop(&holder);
    rp_ahead_drop(&holder);
    ok(!holder, "nobody wants it");
}

/* What was sent ahead isn't sent again. */
static void is_sent_once(void)
{
    const struct iovec pieces[] = { { "one", 3 }, { "two", 3 } };
    apr_ssize_t ahead = 2;
    char got[16];

    ok(rp_send(&ahead, ours[8], pieces, 2) == 2 && ahead == 0, "what was sent ahead is told, once");
    ok(recv(theirs[8], got, sizeof(got), 0) == -1 && errno == EAGAIN, "and not sent again");
    ahead = -EAGAIN;
    ok(rp_send(&ahead, ours[8], pieces, 2) == 6 && ahead == 0, "what was not is sent now");
    ok(rp_send(&ahead, ours[8], pieces, 1) == 3, "one piece");
    ok(recv(theirs[8], got, sizeof(got), 0) == 9 && memcmp(got, "onetwoone", 9) == 0,
       "all of it arrives in its order");
    close(theirs[9]);
    ok(rp_send(&ahead, ours[9], pieces, 1) == -1 && errno == EPIPE, "an error, and no signal");
}

static void may_be_missing(void)
{
    struct rlimit before, none;

    getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_NOFILE, &none);
    ok(!rp_batch_create(), "no batch where the system has none to give");
    setrlimit(RLIMIT_NOFILE, &before);
    rp_batch_destroy(NULL);
}

int main(void)
{
    rp_batch *batch = rp_batch_create();

    may_be_missing();
    open_pairs();
    is_read_in_order();
    if (batch) {
        sends_to_many(batch);
        tells_what_did_not_go(batch);
        receives(batch);
        rp_batch_destroy(batch);
    }
    else {
        printf("# io_uring isn't to be had here: each task of a loop writes by itself\n");
    }
    is_sent_once();
    return tap_done();
}
