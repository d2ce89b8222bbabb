/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Opens N WebSockets and keeps them idle. Prints a JSON line when all are open, waits for a line on
 * stdin, then lets every tunnel echo a message of its own and prints a JSON line with the living
 * and the dead. A tunnel that is closed, or gets a byte it did not ask for, is dead.
 */
#define _GNU_SOURCE
#include "crowd.h"

#define BUFFER_MAX 1024

/* What a tunnel has besides its state. */
typedef struct {
    double sent_at;
    size_t len;
    char buffer[BUFFER_MAX];
} tunnel_t;

static void handshake(member_t *m);
static void readable(member_t *m);

static crowd_t crowd = {
    .window = 200,
    .limit = 30.0,
    .connected = handshake,
    .readable = readable,
};
static tunnel_t *tunnels;
static int port;
static const char *path;
static double *latencies;

static size_t number_of(const member_t *m)
{
    return (size_t)(m - crowd.members);
}

/* The message of a tunnel: its number. */
static size_t message(const member_t *m, char *text, size_t room)
{
    return (size_t)snprintf(text, room, "tunnel %zu", number_of(m));
}

static void open_tunnel(member_t *m)
{
    crowd_open(&crowd, m, connect_start(port));
}

static void handshake(member_t *m)
{
    char head[512];
    int len = snprintf(head, sizeof(head),
                       "GET %s HTTP/1.1\r\nHost: localhost:%d\r\nConnection: Upgrade\r\n"
                       "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                       "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, port);

    crowd_send(&crowd, m, head, (size_t)len);
}

static void send_message(member_t *m)
{
    static const unsigned char mask[4] = { 0x37, 0xfa, 0x21, 0x3d };
    tunnel_t *t = &tunnels[number_of(m)];
    char frame[64];
    const size_t len = message(m, frame + 6, sizeof(frame) - 6);

    frame[0] = (char)0x81;
    frame[1] = (char)(0x80 | len);
    memcpy(frame + 2, mask, 4);
    for (size_t i = 0; i < len; i++)
        frame[6 + i] = (char)(frame[6 + i] ^ mask[i % 4]);
    t->len = 0;
    t->sent_at = now();
    crowd_enter(&crowd, m, SECOND);
    crowd_send(&crowd, m, frame, 6 + len);
}

static void handshake_bytes(member_t *m, tunnel_t *t)
{
    const char *end;

    t->buffer[t->len] = '\0';
    end = strstr(t->buffer, "\r\n\r\n");
    if (!end && t->len < BUFFER_MAX - 1)
        return;
    if (!end || end + 4 != t->buffer + t->len || strncmp(t->buffer, "HTTP/1.1 101 ", 13) != 0
        || !strstr(t->buffer, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
        crowd_dead(&crowd, m);
    else
        crowd_enter(&crowd, m, IDLE);
}

static void echo_bytes(member_t *m, tunnel_t *t)
{
    char want[64];
    const size_t len = message(m, want + 2, sizeof(want) - 2);

    want[0] = (char)0x81;
    want[1] = (char)len;
    if (t->len < len + 2)
        return;
    if (t->len > len + 2 || memcmp(t->buffer, want, len + 2) != 0) {
        crowd_dead(&crowd, m);
        return;
    }
    latencies[crowd.in[DONE]] = now() - t->sent_at;
    crowd_enter(&crowd, m, DONE);
}

static void readable(member_t *m)
{
    tunnel_t *t = &tunnels[number_of(m)];
    const ssize_t got = recv(m->fd, t->buffer + t->len, BUFFER_MAX - 1 - t->len, 0);

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0 || !is_under_way(m->state)) {
        crowd_dead(&crowd, m);
        return;
    }
    t->len += (size_t)got;
    if (m->state == FIRST)
        handshake_bytes(m, t);
    else
        echo_bytes(m, t);
}

int main(int argc, char **argv)
{
    double seconds;
    size_t count, alive;

    if (argc != 4)
        usage("ws_idle PORT PATH COUNT");
    port = atoi(argv[1]);
    path = argv[2];
    count = (size_t)atoi(argv[3]);
    tunnels = calloc(count, sizeof(*tunnels));
    latencies = calloc(count, sizeof(*latencies));
    if (!tunnels || !latencies)
        die("cannot start");
    crowd_make(&crowd, count);

    seconds = crowd_step(&crowd, NEW, open_tunnel);
    printf("{\"opened\":%zu,\"failed\":%zu,\"seconds\":%.3f}\n", crowd.opened,
           count - crowd.opened, seconds);
    fflush(stdout);
    crowd_wait(&crowd);

    seconds = crowd_step(&crowd, IDLE, send_message);
    alive = crowd.in[DONE];
    qsort(latencies, alive, sizeof(*latencies), by_value);
    printf("{\"alive\":%zu,\"dead\":%zu,\"seconds\":%.3f,\"p50_ms\":%.3f,\"p99_ms\":%.3f}\n",
           alive, count - alive, seconds, percentile(latencies, alive, 50) * 1000,
           percentile(latencies, alive, 99) * 1000);
    return 0;
}
