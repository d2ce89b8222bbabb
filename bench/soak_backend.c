/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A backend of bench/soak: a thread for each connection; what it answers is in soak.h. It may be
 * killed at any time.
 */
#define _GNU_SOURCE
#include "soak.h"

#include <pthread.h>

#define BUFFER 65536
#define HEAD_MAX 16384
#define PIECE 8000          /* a chunk of an answer is shorter */

typedef struct {
    int fd;
    size_t start, end;      /* what has been read and not yet been used */
    char buffer[BUFFER];
} connection_t;

typedef struct {
    uint64_t id, size, sum;
    unsigned delay;
    bool head, chunked, hints, close, upgrade;
} request_t;

static mark_t *marks;

static bool put(connection_t *c, const void *bytes, size_t len)
{
    const char *at = bytes;

    while (len > 0) {
        const ssize_t sent = send(c->fd, at, len, MSG_NOSIGNAL);

        if (sent <= 0)
            return false;
        at += sent;
        len -= (size_t)sent;
    }
    return true;
}

/* Reads more into the buffer; false: the end. */
static bool more(connection_t *c)
{
    ssize_t got;

    if (c->start > 0) {
        memmove(c->buffer, c->buffer + c->start, c->end - c->start);
        c->end -= c->start;
        c->start = 0;
    }
    got = c->end < BUFFER ? recv(c->fd, c->buffer + c->end, BUFFER - c->end, 0) : 0;
    if (got <= 0)
        return false;
    c->end += (size_t)got;
    return true;
}

/* The bytes up to and with the mark, ended with a zero; false: there is none. */
static bool take_until(connection_t *c, const char *mark, char *text, size_t room)
{
    const size_t len = strlen(mark);
    const char *found;

    while (!(found = memmem(c->buffer + c->start, c->end - c->start, mark, len))) {
        if (c->end - c->start >= room || !more(c))
            return false;
    }
    found += len;
    if ((size_t)(found - c->buffer) - c->start >= room)
        return false;
    memcpy(text, c->buffer + c->start, (size_t)(found - c->buffer) - c->start);
    text[(size_t)(found - c->buffer) - c->start] = '\0';
    c->start = (size_t)(found - c->buffer);
    return true;
}

static bool sum_body(connection_t *c, request_t *q, uint64_t len)
{
    while (len > 0) {
        size_t part;

        if (c->start == c->end && !more(c))
            return false;
        part = c->end - c->start;
        if (part > len)
            part = (size_t)len;
        q->sum = sum_more(q->sum, (unsigned char *)c->buffer + c->start, part);
        c->start += part;
        len -= part;
    }
    return true;
}

static bool sum_chunks(connection_t *c, request_t *q)
{
    char line[1024];

    for (;;) {
        uint64_t len;

        if (!take_until(c, "\r\n", line, sizeof(line)))
            return false;
        len = strtoull(line, NULL, 16);
        if (len == 0)
            break;
        if (!sum_body(c, q, len) || !take_until(c, "\r\n", line, sizeof(line)) || line[0] != '\r')
            return false;
    }
    do {
        if (!take_until(c, "\r\n", line, sizeof(line)))
            return false;
    } while (line[0] != '\r');
    return true;
}

static uint64_t parameter(const char *line, const char *name)
{
    const char *found = strstr(line, name);

    return found ? strtoull(found + strlen(name), NULL, 10) : 0;
}

/* The next request with its body; false: the connection is over. */
static bool read_request(connection_t *c, request_t *q)
{
    char head[HEAD_MAX], *line_end;
    const char *length, *coding;

    if (!take_until(c, "\r\n\r\n", head, sizeof(head)))
        return false;
    length = strcasestr(head, "\r\nContent-Length:");
    coding = strcasestr(head, "\r\nTransfer-Encoding: chunked");
    q->upgrade = strcasestr(head, "\r\nUpgrade: websocket") != NULL;
    if (strcasestr(head, "\r\nExpect: 100-continue")
        && !put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25))
        return false;
    line_end = strstr(head, "\r\n");
    *line_end = '\0';
    q->head = strncmp(head, "HEAD ", 5) == 0;
    q->id = parameter(head, "?id=");
    q->size = parameter(head, "&size=");
    q->delay = (unsigned)parameter(head, "&delay=");
    q->chunked = parameter(head, "&chunked=") != 0;
    q->hints = parameter(head, "&hints=") != 0;
    q->close = parameter(head, "&close=") != 0;
    q->sum = SUM_START;
    if (coding ? !sum_chunks(c, q)
               : length && !sum_body(c, q, strtoull(length + 17, NULL, 10)))
        return false;
    atomic_fetch_add(&marks[q->id % MARKS], 1);
    return true;
}

static bool send_body(connection_t *c, const request_t *q)
{
    unsigned char bytes[BUFFER];
    char line[64];

    for (uint64_t at = 0; at < q->size;) {
        const uint64_t most = q->chunked ? 1 + mix(q->id + at) % PIECE : BUFFER;
        const size_t part = (size_t)(q->size - at < most ? q->size - at : most);
        int len = q->chunked ? snprintf(line, sizeof(line), "%zx\r\n", part) : 0;

        fill(q->id, at, bytes, part);
        if (!put(c, line, (size_t)len) || !put(c, bytes, part)
            || (q->chunked && !put(c, "\r\n", 2)))
            return false;
        at += part;
    }
    if (q->chunked) {
        int len = snprintf(line, sizeof(line), "0\r\nX-End: %llu\r\n\r\n",
                           (unsigned long long)q->id);

        return put(c, line, (size_t)len);
    }
    return true;
}

static bool answer(connection_t *c, const request_t *q)
{
    static const char hints[] = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    char head[512], framing[64] = "Transfer-Encoding: chunked";
    int len;

    if (q->hints && !put(c, hints, sizeof(hints) - 1))
        return false;
    if (q->delay > 0)
        usleep(q->delay * 1000);
    if (!q->chunked)
        snprintf(framing, sizeof(framing), "Content-Length: %llu", (unsigned long long)q->size);
    len = snprintf(head, sizeof(head),
                   "HTTP/1.1 200 OK\r\nX-Id: %llu\r\nX-Sum: %016llx\r\n%s\r\n%s\r\n",
                   (unsigned long long)q->id, (unsigned long long)q->sum, framing,
                   q->close ? "Connection: close\r\n" : "");
    return put(c, head, (size_t)len) && (q->head || send_body(c, q)) && !q->close;
}

static void tunnel(connection_t *c)
{
    static const char head[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                               "Connection: Upgrade\r\nSec-WebSocket-Accept: " WS_ACCEPT "\r\n\r\n";
    bool open = put(c, head, sizeof(head) - 1);

    while (open && (c->start < c->end || more(c))) {
        open = put(c, c->buffer + c->start, c->end - c->start);
        c->start = c->end;
    }
}

static void *serve(void *data)
{
    connection_t *c = data;
    request_t q;

    while (read_request(c, &q)) {
        if (q.upgrade) {
            tunnel(c);
            break;
        }
        if (!answer(c, &q))
            break;
    }
    close(c->fd);
    free(c);
    return NULL;
}

int main(int argc, char **argv)
{
    const int on = 1;
    struct sockaddr_in sa;
    pthread_attr_t detached;
    int listener;

    if (argc != 3)
        usage("soak_backend PORT MARKS");
    end_with_parent();
    marks = map_marks(argv[2]);
    sa = loopback(atoi(argv[1]));
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0)
        die("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener, (const struct sockaddr *)&sa, sizeof(sa)) != 0
        || listen(listener, 1024) != 0)
        die("bind and listen");
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, 1 << 18);
    for (;;) {
        const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        connection_t *c = fd >= 0 ? malloc(sizeof(*c)) : NULL;
        pthread_t thread;

        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (!c)
            die("accept");
        c->fd = fd;
        c->start = c->end = 0;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (pthread_create(&thread, &detached, serve, c) != 0)
            die("pthread_create");
    }
}
