/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What soak_client and soak_backend agree on.
 *
 * A request is METHOD /LANE?id=ID&size=N&... with an id of its own; the parameters say what the
 * answer is to be like:
 *   size=N      the body: N bytes that follow from the id
 *   chunked=1   without Content-Length, in pieces, with a trailer X-End: ID
 *   delay=MS    before the answer
 *   hints=1     a 103 goes first
 *   close=1     the backend closes the connection afterwards
 * The answer has X-Id: ID and X-Sum: the sum of the request's body. An upgrade to a WebSocket makes
 * a tunnel that echoes every byte.
 *
 * Both map a file with a counter for each id (modulo MARKS): how often a backend had the complete
 * request. So the client knows whether a request without an answer was lost or never sent on, and
 * whether one was sent twice.
 */
#ifndef BENCH_SOAK_H
#define BENCH_SOAK_H

#include "net.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define MARKS (1u << 25)
#define SUM_START 14695981039346656037ull

/* The key of RFC 6455 section 1.3 and the answer to it. */
#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

typedef _Atomic unsigned char mark_t;

static inline mark_t *map_marks(const char *file)
{
    const int fd = open(file, O_RDWR | O_CLOEXEC);
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, MARKS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (map == MAP_FAILED)
        die(file);
    close(fd);
    return map;
}

/* Ends with the program that has started this one. */
static inline void end_with_parent(void)
{
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* splitmix64 */
static inline uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* len bytes of the body that follows from id, from offset on. */
static inline void fill(uint64_t id, uint64_t offset, unsigned char *to, size_t len)
{
    uint64_t word = 0;

    for (size_t i = 0; i < len; i++) {
        if (i == 0 || (offset + i) % 8 == 0)
            word = mix(id * 0x100000001b3ull + (offset + i) / 8);
        to[i] = (unsigned char)(word >> 8 * ((offset + i) % 8));
    }
}

/* FNV-1a, continued. */
static inline uint64_t sum_more(uint64_t sum, const unsigned char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        sum = (sum ^ bytes[i]) * 1099511628211ull;
    return sum;
}

#endif
