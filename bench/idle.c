/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Opens N keep-alive connections from two address ranges of 127/8, one request each, and keeps them
 * idle. Prints a JSON line when all have been answered, waits for a line on stdin, then sends a
 * second request on each. A second JSON line says how many were idle when that line came, and how
 * many were answered again. A connection that is closed, or answers anything but 200 with a length,
 * is dead.
 */
#define _GNU_SOURCE
#include "crowd.h"

#define HEAD_MAX 1024       /* a response: its body is short */

static void ask(member_t *m);
static void readable(member_t *m);

static crowd_t crowd = {
    .window = 8,            /* the MPM must not run out of workers */
    .limit = 60.0,
    .connected = ask,
    .readable = readable,
};
static int port;
static char request[1024];
static size_t request_len;

static void open_connection(member_t *m)
{
    crowd_open(&crowd, m, connect_start_from(crowd_address(&crowd, m), port));
}

static void ask(member_t *m)
{
    crowd_send(&crowd, m, request, request_len);
}

static void ask_again(member_t *m)
{
    crowd_enter(&crowd, m, SECOND);
    ask(m);
}

/* Answers are short: peeks until all of one is there. */
static void readable(member_t *m)
{
    char head[HEAD_MAX];
    const char *end, *length;
    ssize_t got = recv(m->fd, head, HEAD_MAX - 1, MSG_PEEK), whole;

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0 || !is_under_way(m->state)) {
        crowd_dead(&crowd, m);
        return;
    }
    head[got] = '\0';
    end = strstr(head, "\r\n\r\n");
    if (!end && got < HEAD_MAX - 1)
        return;
    length = end ? strcasestr(head, "\r\nContent-Length:") : NULL;
    if (!length || length > end || strncmp(head, "HTTP/1.1 200 ", 13) != 0) {
        crowd_dead(&crowd, m);
        return;
    }
    whole = end + 4 - head + strtol(length + 17, NULL, 10);
    if (got < whole && whole < HEAD_MAX)
        return;
    if (got != whole || recv(m->fd, head, (size_t)whole, 0) != whole) {
        crowd_dead(&crowd, m);
        return;
    }
    crowd_enter(&crowd, m, m->state == SECOND ? DONE : IDLE);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        usage("idle PORT PATH COUNT");
    port = atoi(argv[1]);
    request_len = make_get(request, sizeof(request), argv[2], port);
    crowd_make(&crowd, (size_t)atoi(argv[3]));
    crowd_run(&crowd, open_connection, ask_again);
    return 0;
}
