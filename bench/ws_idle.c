/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Opens N WebSockets and keeps them idle. Prints a JSON line when all are open, waits for a line on
 * stdin, then lets every tunnel echo a message of its own and prints a JSON line with the living
 * and the dead. A tunnel that is closed, or gets a byte it did not ask for, is dead.
 */
#define _GNU_SOURCE
#include "net.h"

#include <stdbool.h>

#define BUFFER_MAX 1024
#define WINDOW 200          /* handshakes or echoes under way at once */
#define STEP_LIMIT 30.0     /* seconds for all handshakes, and for all echoes */

typedef enum { NEW, CONNECTING, HANDSHAKE, OPEN, ECHOING, ECHOED, DEAD } state_t;

typedef struct {
    int fd;
    state_t state;
    double sent_at;
    size_t len;
    char buffer[BUFFER_MAX];
} tunnel_t;

static tunnel_t *tunnels;
static int epoll, port;
static const char *path;
static size_t count, under_way, opened, alive;
static double *latencies;

static void dead(tunnel_t *t)
{
    if (t->state == CONNECTING || t->state == HANDSHAKE || t->state == ECHOING)
        under_way--;
    t->state = DEAD;
    close(t->fd);
}

static void put(tunnel_t *t, const char *bytes, size_t len)
{
    if (send(t->fd, bytes, len, MSG_NOSIGNAL) != (ssize_t)len)
        dead(t);
}

/* The message of a tunnel: its number. */
static size_t message(const tunnel_t *t, char *text, size_t room)
{
    return (size_t)snprintf(text, room, "tunnel %zu", (size_t)(t - tunnels));
}

static void open_tunnel(tunnel_t *t)
{
    t->fd = connect_start(port);
    if (t->fd < 0) {
        t->state = DEAD;
        return;
    }
    under_way++;
    t->state = CONNECTING;
    watch(epoll, EPOLL_CTL_ADD, t->fd, EPOLLOUT, t);
}

static void handshake(tunnel_t *t)
{
    char head[512];
    int len = snprintf(head, sizeof(head),
                       "GET %s HTTP/1.1\r\nHost: localhost:%d\r\nConnection: Upgrade\r\n"
                       "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                       "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, port);

    if (connect_result(t->fd) != 0) {
        dead(t);
        return;
    }
    t->state = HANDSHAKE;
    watch(epoll, EPOLL_CTL_MOD, t->fd, EPOLLIN, t);
    put(t, head, (size_t)len);
}

static void send_message(tunnel_t *t)
{
    static const unsigned char mask[4] = { 0x37, 0xfa, 0x21, 0x3d };
    char frame[64];
    const size_t len = message(t, frame + 6, sizeof(frame) - 6);

    frame[0] = (char)0x81;
    frame[1] = (char)(0x80 | len);
    memcpy(frame + 2, mask, 4);
    for (size_t i = 0; i < len; i++)
        frame[6 + i] = (char)(frame[6 + i] ^ mask[i % 4]);
    t->state = ECHOING;
    t->len = 0;
    t->sent_at = now();
    under_way++;
    put(t, frame, 6 + len);
}

static void handshake_bytes(tunnel_t *t)
{
    const char *end;

    t->buffer[t->len] = '\0';
    end = strstr(t->buffer, "\r\n\r\n");
    if (!end && t->len < BUFFER_MAX - 1)
        return;
    if (!end || end + 4 != t->buffer + t->len || strncmp(t->buffer, "HTTP/1.1 101 ", 13) != 0
        || !strstr(t->buffer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) {
        dead(t);
        return;
    }
    t->state = OPEN;
    under_way--;
    opened++;
}

static void echo_bytes(tunnel_t *t)
{
    char want[64];
    const size_t len = message(t, want + 2, sizeof(want) - 2);

    want[0] = (char)0x81;
    want[1] = (char)len;
    if (t->len < len + 2)
        return;
    if (t->len > len + 2 || memcmp(t->buffer, want, len + 2) != 0) {
        dead(t);
        return;
    }
    t->state = ECHOED;
    under_way--;
    latencies[alive++] = now() - t->sent_at;
}

static void on_event(tunnel_t *t)
{
    ssize_t got;

    if (t->state == CONNECTING) {
        handshake(t);
        return;
    }
    got = recv(t->fd, t->buffer + t->len, BUFFER_MAX - 1 - t->len, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0 || (t->state != HANDSHAKE && t->state != ECHOING)) {
        if (t->state == ECHOED)
            alive--;
        dead(t);
        return;
    }
    t->len += (size_t)got;
    if (t->state == HANDSHAKE)
        handshake_bytes(t);
    else
        echo_bytes(t);
}

/* One turn of the loop; true: a line (or the end) has come on stdin. */
static bool turn(int wait_ms)
{
    struct epoll_event events[512];
    int n = epoll_wait(epoll, events, 512, wait_ms);
    bool told = false;

    if (n < 0 && errno != EINTR)
        die("epoll_wait");
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr)
            on_event(events[i].data.ptr);
        else
            told = true;
    }
    return told;
}

/* Takes each tunnel in the state from through a step, a window at a time. Those that have not come
 * through in time are dead. Returns the seconds it took.
 */
static double for_all(state_t from, void (*step)(tunnel_t *))
{
    const double start = now();
    size_t next = 0;

    while ((next < count || under_way > 0) && now() < start + STEP_LIMIT) {
        for (; next < count && under_way < WINDOW; next++) {
            if (tunnels[next].state == from)
                step(&tunnels[next]);
        }
        if (under_way > 0)
            turn(100);
    }
    for (size_t i = 0; i < count; i++) {
        if (tunnels[i].state == CONNECTING || tunnels[i].state == HANDSHAKE
            || tunnels[i].state == ECHOING)
            dead(&tunnels[i]);
    }
    return now() - start;
}

int main(int argc, char **argv)
{
    double seconds;

    if (argc != 4)
        usage("ws_idle PORT PATH COUNT");
    port = atoi(argv[1]);
    path = argv[2];
    count = (size_t)atoi(argv[3]);
    tunnels = calloc(count, sizeof(*tunnels));
    latencies = calloc(count, sizeof(*latencies));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!tunnels || !latencies || epoll < 0)
        die("cannot start");

    seconds = for_all(NEW, open_tunnel);
    printf("{\"opened\":%zu,\"failed\":%zu,\"seconds\":%.3f}\n", opened, count - opened, seconds);
    fflush(stdout);

    watch(epoll, EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, NULL);
    while (!turn(-1))
        ;
    epoll_ctl(epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);

    seconds = for_all(OPEN, send_message);
    qsort(latencies, alive, sizeof(*latencies), by_value);
    printf("{\"alive\":%zu,\"dead\":%zu,\"seconds\":%.3f,\"p50_ms\":%.3f,\"p99_ms\":%.3f}\n",
           alive, count - alive, seconds, percentile(latencies, alive, 50) * 1000,
           percentile(latencies, alive, 99) * 1000);
    return 0;
}
