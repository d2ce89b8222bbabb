/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* One large body: a download read slowly through a small receive buffer, or an upload sent as fast
 * as it is taken. Prints one JSON object; ok is true only if every byte has arrived.
 */
#define _GNU_SOURCE
#include "net.h"

#include <stdbool.h>

#define CHUNK 65536
#define RECEIVE_BUFFER 65536

static char buffer[CHUNK + 1];

static int connect_to(int port, bool small_buffer)
{
    const struct sockaddr_in sa = loopback(port);
    const int size = RECEIVE_BUFFER;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die("socket");
    /* Before connect: afterwards the window has already been offered. */
    if (small_buffer)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0)
        die("connect");
    return fd;
}

static bool put(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t sent = send(fd, bytes, len, MSG_NOSIGNAL);

        if (sent <= 0)
            return false;
        bytes += sent;
        len -= (size_t)sent;
    }
    return true;
}

/* Reads the response's head: its status, 0 where none came; *extra: bytes of the body read too. */
static int read_head(int fd, size_t *extra)
{
    size_t len = 0;

    while (len < CHUNK) {
        ssize_t got = recv(fd, buffer + len, CHUNK - len, 0);
        const char *end;

        if (got <= 0)
            return 0;
        len += (size_t)got;
        buffer[len] = '\0';
        end = strstr(buffer, "\r\n\r\n");
        if (end) {
            *extra = len - (size_t)(end + 4 - buffer);
            return strncmp(buffer, "HTTP/1.1 ", 9) == 0 ? atoi(buffer + 9) : 0;
        }
    }
    return 0;
}

/* Reads up to size bytes at rate bytes a second; returns how many came. */
static unsigned long long read_slowly(int fd, unsigned long long size, size_t extra, double rate)
{
    const double start = now();
    unsigned long long got_all = extra;

    while (got_all < size) {
        const double ahead = (double)got_all / rate - (now() - start);
        ssize_t got;

        if (ahead > 0.001)
            usleep((unsigned)(ahead * 1e6));
        got = recv(fd, buffer, CHUNK, 0);
        if (got <= 0)
            break;
        got_all += (unsigned long long)got;
    }
    return got_all;
}

int main(int argc, char **argv)
{
    const bool download = argc == 6 && strcmp(argv[1], "download") == 0;
    const bool upload = argc == 5 && strcmp(argv[1], "upload") == 0;
    unsigned long long size, moved = 0;
    size_t extra = 0, len;
    int fd, port, status;
    double start;
    char head[1024];

    if (!download && !upload)
        usage("body_client download PORT PATH BYTES RATE | upload PORT PATH BYTES");
    port = atoi(argv[2]);
    size = strtoull(argv[4], NULL, 10);
    fd = connect_to(port, download);
    start = now();
    if (download)
        len = make_get(head, sizeof(head), argv[3], port);
    else
        len = (size_t)snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\nHost: localhost:%d\r\n"
                               "Content-Length: %llu\r\n\r\n", argv[3], port, size);
    if (!put(fd, head, len))
        die("send");
    while (upload && moved < size) {
        const size_t part = size - moved < CHUNK ? (size_t)(size - moved) : CHUNK;

        if (!put(fd, buffer, part))
            break;
        moved += part;
    }
    status = read_head(fd, &extra);
    if (download && status == 200)
        moved = read_slowly(fd, size, extra, atof(argv[5]));
    printf("{\"ok\":%s,\"status\":%d,\"bytes\":%llu,\"seconds\":%.3f}\n",
           status == 200 && moved == size ? "true" : "false", status, moved, now() - start);
    return 0;
}
