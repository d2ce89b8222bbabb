/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Many writes by one system call: what went is said, what didn't go stays the caller's. */

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "rproxy/engine/rp_batch.h"
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
    static apr_size_t sent[PAIRS];
    int arrived = 0, said = 0;

    for (int i = 0; i < PAIRS; i++) {
        snprintf(text[i], sizeof(text[i]), "to %d", i);
        rp_batch_add(batch, ours[i], text[i], strlen(text[i]), &sent[i]);
    }
    ok(rp_batch_send(batch), "a batch of %d is sent", PAIRS);
    for (int i = 0; i < PAIRS; i++) {
        char got[64];
        ssize_t count = recv(theirs[i], got, sizeof(got), 0);

        arrived += count == (ssize_t)strlen(text[i]) && memcmp(got, text[i], strlen(text[i])) == 0;
        said += sent[i] == strlen(text[i]);
    }
    is_number(arrived, PAIRS, "each socket has its bytes, once");
    is_number(said, PAIRS, "each sender knows");
}

static void tells_what_did_not_go(rp_batch *batch)
{
    static char large[8 * 1024 * 1024];
    apr_size_t part = 0, full = 0, gone = 0, closed = 0, fine = 0;
    char got[8];

    close(theirs[2]);
    rp_batch_add(batch, ours[0], large, sizeof(large), &part);
    rp_batch_add(batch, ours[0], large, sizeof(large), &full);
    rp_batch_add(batch, ours[2], "x", 1, &gone);
    rp_batch_add(batch, -1, "x", 1, &closed);
    rp_batch_add(batch, ours[3], "fine", 4, &fine);
    ok(rp_batch_send(batch), "a batch with failures is sent");
    ok(part > 0 && part < sizeof(large), "a part went into a small buffer");
    is_number((long long)full, 0, "nothing into a full one");
    is_number((long long)gone, 0, "nothing to who has left, and no signal");
    is_number((long long)closed, 0, "nothing to what is no descriptor");
    is_number((long long)fine, 4, "the others are sent");
    is_number(recv(theirs[3], got, sizeof(got), 0), 4, "and arrive");
    ok(rp_batch_send(batch), "an empty batch is nothing");
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
    if (batch) {
        open_pairs();
        sends_to_many(batch);
        tells_what_did_not_go(batch);
        rp_batch_destroy(batch);
    }
    else {
        printf("# io_uring isn't to be had here: each task of a loop writes by itself\n");
    }
    return tap_done();
}
