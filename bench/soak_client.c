/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The clients of bench/soak: threads, each with one connection after the other, that ask at random
 * and check every answer. Commands come on stdin, one a line; each is answered with "ok":
 *
 *   down N, up N    backend N (0, 1, ..) is about to be killed; serves again
 *   graceful        the server is about to be restarted gracefully
 *   drain, resume   ends all connections and waits; goes on
 *   stop            ends, and prints one JSON object
 *
 * What counts as an error: an answer that isn't the one of its request; a request without a whole
 * answer, or with a status of 5xx, unless its backend was down meanwhile; a connection closed
 * without notice (no Connection: close before) unless it was idle, a graceful restart was near and
 * no backend had the request; a request that a backend got twice, unless it may be repeated and the
 * backend was down. The first of them are told on stderr.
 */
#define _GNU_SOURCE
#include "soak.h"
#include "soak_link.h"

#include <pthread.h>
#include <stdarg.h>

#define BACKENDS_MAX 8
#define DOWN 1e300
#define HEAD_MAX 16384
#define PIPELINE_MAX 8
#define TELL_MAX 40         /* errors that are told */
#define NEAR 15.0           /* seconds after a graceful restart in which idle ones are closed */
#define ECHO_MAX 16384

typedef enum { ANSWERED, REPEAT, FAILED } outcome_t;

typedef struct {
    uint64_t id, size, upload, sum;
    unsigned backend, delay;
    bool pipeline, chunked, hints, close, head;
    bool upload_chunked, expect;
    const char *method, *version;
    double start;
} request_t;

typedef struct {
    link_t link;
    uint64_t random;
    bool tls, used, closing;    /* has answered before; the server said Connection: close */
    bool lost;                  /* what came before on the connection was lost, and may have been */
    request_t requests[PIPELINE_MAX];
} client_t;

/* Sums, printed at the end. */
static struct {
    atomic_ullong answered, pipeline, bytes, uploads, tunnels, vanished, connections;
    atomic_ullong excused, repeated, errors;
} sums;

static int ports[2];
static unsigned backends;
static SSL_CTX *tls;
static mark_t *marks;
static atomic_ullong last_id;
static atomic_bool ending;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;   /* guards what follows */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static double last_up[BACKENDS_MAX];    /* when it was started again; DOWN while it is not */
static double last_graceful = -1e9;
static unsigned running;
static bool draining;

/* ---- what happened --------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4)))
static outcome_t failure(const client_t *c, const request_t *q, const char *format, ...)
{
    char text[256];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (atomic_fetch_add(&sums.errors, 1) < TELL_MAX)
        fprintf(stderr, "%.3f %s%s id=%llu %s %c/%s size=%llu%s upload=%llu%s, %.0f ms: %s\n",
                now(), c->tls ? "TLS" : "plain", c->used ? ", used" : ", new",
                (unsigned long long)q->id, q->method, 'a' + (int)q->backend,
                q->pipeline ? "pipeline" : "engine", (unsigned long long)q->size,
                q->chunked ? " chunked" : "", (unsigned long long)q->upload,
                q->upload_chunked ? " chunked" : "", (now() - q->start) * 1000, text);
    return FAILED;
}

/* Whether the request's backend was down at any time since it began. */
static bool was_down(const request_t *q)
{
    bool down;

    pthread_mutex_lock(&lock);
    down = last_up[q->backend] >= q->start;
    pthread_mutex_unlock(&lock);
    return down;
}

static double since_graceful(void)
{
    double since;

    pthread_mutex_lock(&lock);
    since = now() - last_graceful;
    pthread_mutex_unlock(&lock);
    return since;
}

/* The request's connection has ended before the first byte of an answer. */
static outcome_t closed(client_t *c, const request_t *q)
{
    const unsigned had = atomic_load(&marks[q->id % MARKS]);

    if (c->link.stalled)
        return failure(c, q, "no answer for %d s", LINK_LIMIT);
    if (was_down(q) || c->lost) {
        c->lost = true;
        atomic_fetch_add(&sums.excused, 1);
        return REPEAT;
    }
    if (had > 0)
        return failure(c, q, "the backend had it, but no answer came");
    if (!c->closing && !(c->used && since_graceful() < NEAR))
        return failure(c, q, "connection closed without an answer%s",
                       since_graceful() < NEAR ? ", after a graceful restart" : "");
    c->closing = true;
    atomic_fetch_add(&sums.repeated, 1);
    return REPEAT;
}

static outcome_t broken(client_t *c, const request_t *q, const char *where)
{
    if (c->link.stalled)
        return failure(c, q, "stalled in %s", where);
    if (!was_down(q))
        return failure(c, q, "broken off in %s", where);
    c->lost = true;
    atomic_fetch_add(&sums.excused, 1);
    return REPEAT;
}

/* any: a part of a head came. */
static outcome_t no_head(client_t *c, const request_t *q, bool any)
{
    return any ? broken(c, q, "the head") : closed(c, q);
}

/* ---- requests -------------------------------------------------------------------------------- */

static uint64_t random_below(client_t *c, uint64_t limit)
{
    c->random = mix(c->random);
    return c->random % limit;
}

static bool chance(client_t *c, unsigned percent)
{
    return random_below(c, 100) < percent;
}

static uint64_t random_size(client_t *c)
{
    const unsigned kind = (unsigned)random_below(c, 100);

    return random_below(c, kind < 60 ? 2048 : kind < 85 ? 65536 : kind < 97 ? 1 << 20 : 4 << 20);
}

static void make_request(client_t *c, request_t *q, uint64_t most)
{
    memset(q, 0, sizeof(*q));
    q->id = atomic_fetch_add(&last_id, 1) + 1;
    q->size = random_size(c) % most;
    q->backend = (unsigned)random_below(c, backends);
    q->pipeline = chance(c, 25);
    q->chunked = chance(c, 30);
    q->hints = chance(c, 3);
    q->close = chance(c, 3);
    q->head = chance(c, 3);
    q->delay = (unsigned)(chance(c, 10) ? random_below(c, chance(c, 10) ? 2000 : 100) : 0);
    q->method = q->head ? "HEAD" : "GET";
    q->version = "1.1";
    q->sum = SUM_START;
    atomic_store(&marks[q->id % MARKS], 0);
}

static void make_upload(client_t *c, request_t *q)
{
    make_request(c, q, 65536);
    q->head = false;
    q->method = chance(c, 50) ? "POST" : "PUT";
    q->upload = random_size(c);
    q->upload_chunked = chance(c, 50);
    q->expect = chance(c, 15);
}

/* The head of a request; returns its length. */
static size_t head_of(const request_t *q, char *text, size_t room, const char *fields)
{
    return (size_t)snprintf(text, room,
                            "%s /%c/%s?id=%llu&size=%llu&chunked=%d&delay=%u&hints=%d&close=%d "
                            "HTTP/%s\r\nHost: localhost\r\n%s\r\n",
                            q->method, 'a' + (int)q->backend, q->pipeline ? "pipeline" : "engine",
                            (unsigned long long)q->id, (unsigned long long)q->size, q->chunked,
                            q->delay, q->hints, q->close, q->version, fields);
}

/* Sends a request's body of so many bytes; sums it up. */
static bool put_body(client_t *c, request_t *q, uint64_t len)
{
    unsigned char bytes[32768 + 2];
    char line[32];

    for (uint64_t at = 0; at < len;) {
        const uint64_t most = 1 + random_below(c, sizeof(bytes) - 2);
        const size_t part = (size_t)(len - at < most ? len - at : most);

        fill(~q->id, at, bytes, part);
        q->sum = sum_more(q->sum, bytes, part);
        if (q->upload_chunked) {
            memcpy(bytes + part, "\r\n", 2);
            if (!link_put(&c->link, line, (size_t)snprintf(line, sizeof(line), "%zx\r\n", part)))
                return false;
        }
        if (!link_put(&c->link, bytes, part + (q->upload_chunked ? 2 : 0)))
            return false;
        at += part;
    }
    return true;
}

/* ---- answers --------------------------------------------------------------------------------- */

/* Checks len bytes of the body from offset on; NULL: as they should be, else what is wrong. */
static const char *check_body(client_t *c, const request_t *q, uint64_t offset, uint64_t len)
{
    unsigned char want[LINK_BUFFER];

    while (len > 0) {
        size_t part;

        if (c->link.start == c->link.end && !link_more(&c->link))
            return "";
        part = c->link.end - c->link.start;
        if (part > len)
            part = (size_t)len;
        fill(q->id, offset, want, part);
        if (memcmp(want, c->link.buffer + c->link.start, part) != 0)
            return "another body";
        c->link.start += part;
        offset += part;
        len -= part;
    }
    return NULL;
}

/* As check_body, for a chunked body with its trailers. */
static const char *check_chunks(client_t *c, const request_t *q)
{
    char line[1024];
    uint64_t at = 0;

    for (;;) {
        const char *wrong;
        uint64_t len;

        if (!link_take_until(&c->link, "\r\n", line, sizeof(line)))
            return "";
        len = strtoull(line, NULL, 16);
        if (len == 0)
            break;
        if (at + len > q->size)
            return "a body too long";
        wrong = check_body(c, q, at, len);
        if (wrong)
            return wrong;
        at += len;
        if (!link_take_until(&c->link, "\r\n", line, sizeof(line)))
            return "";
    }
    do {
        if (!link_take_until(&c->link, "\r\n", line, sizeof(line)))
            return "";
        if (strncasecmp(line, "X-End:", 6) == 0 && strtoull(line + 6, NULL, 10) != q->id)
            return "another one's trailer";
    } while (line[0] != '\r');
    return at == q->size ? NULL : "a body too short that ends well";
}

/* Up to the end of the connection. */
static const char *check_rest(client_t *c, const request_t *q)
{
    const char *wrong = check_body(c, q, 0, q->size);

    if (!wrong && (c->link.start < c->link.end || link_more(&c->link)))
        return "a body too long";
    return wrong;
}

static uint64_t field(const char *head, const char *name, int base)
{
    const char *found = strcasestr(head, name);

    return found ? strtoull(found + strlen(name), NULL, base) : 0;
}

/* Takes a head; interim ones go by, but for 100 where interim is given: that is told by it. False:
 * none came (*any: but a part of one). */
static bool take_head(client_t *c, char *head, int *status, bool *interim, bool *any)
{
    do {
        *any = false;
        if (!link_take_until(&c->link, "\r\n\r\n", head, HEAD_MAX)) {
            *any = c->link.end > c->link.start;
            return false;
        }
        *status = strncmp(head, "HTTP/1.", 7) == 0 ? atoi(head + 9) : 0;
        if (*status == 100 && interim) {
            *interim = true;
            return true;
        }
    } while (*status / 100 == 1 && *status != 101);
    return true;
}

static outcome_t check_status(client_t *c, const request_t *q, const char *head, int status)
{
    const uint64_t len = field(head, "\r\nContent-Length:", 10);

    c->lost |= strcasestr(head, "\r\nTransfer-Encoding:") != NULL;
    if (status < 502 || status > 504)
        return failure(c, q, "status %d", status);
    if (!was_down(q))
        return failure(c, q, "status %d while the backend is up", status);
    atomic_fetch_add(&sums.excused, 1);
    /* An error's page is short: it is read, so that the connection can go on. */
    while (!q->head && c->link.end - c->link.start < len && link_more(&c->link))
        ;
    if (q->head || c->link.end - c->link.start >= len)
        c->link.start += q->head ? 0 : (size_t)len;
    else
        c->lost = true;
    return REPEAT;
}

/* Reads and checks the answer of a request; a final head that was read already may be given. */
static outcome_t take_answer(client_t *c, const request_t *q, char *head, int status)
{
    const char *wrong = NULL;
    unsigned had;
    bool any;

    if (status == 0 && !take_head(c, head, &status, NULL, &any))
        return no_head(c, q, any);
    c->closing = strcasestr(head, "\r\nConnection: close") != NULL;
    if (status != 200)
        return check_status(c, q, head, status);
    if (field(head, "\r\nX-Id:", 10) != q->id)
        return failure(c, q, "the answer of id=%llu",
                       (unsigned long long)field(head, "\r\nX-Id:", 10));
    if (field(head, "\r\nX-Sum:", 16) != q->sum)
        return failure(c, q, "the backend had another body");
    if ((strcasestr(head, "\r\nX-Lane: pipeline") != NULL) != q->pipeline)
        return failure(c, q, "answered by the other lane");
    if (q->head)
        wrong = NULL;
    else if (strcasestr(head, "\r\nTransfer-Encoding: chunked"))
        wrong = check_chunks(c, q);
    else if (!strcasestr(head, "\r\nContent-Length:"))
        wrong = check_rest(c, q);
    else if (field(head, "\r\nContent-Length:", 10) != q->size)
        wrong = "another length";
    else
        wrong = check_body(c, q, 0, q->size);
    if (wrong && *wrong)
        return failure(c, q, "%s", wrong);
    if (wrong)
        return broken(c, q, "the body");
    had = atomic_load(&marks[q->id % MARKS]);
    if (had != 1 && (strcmp(q->method, "POST") == 0 || !was_down(q)))
        return failure(c, q, "backends had it %u times", had);
    c->used = true;
    atomic_fetch_add(&sums.answered, 1);
    atomic_fetch_add(&sums.pipeline, q->pipeline);
    atomic_fetch_add(&sums.bytes, q->head ? 0 : q->size);
    return ANSWERED;
}

/* ---- what a client does; each returns whether the connection can go on ---------------------- */

static bool one_request(client_t *c)
{
    request_t *q = c->requests;
    char head[HEAD_MAX];

    make_request(c, q, 8 << 20);
    q->start = now();
    link_put(&c->link, head, head_of(q, head, sizeof(head), ""));
    return take_answer(c, q, head, 0) != FAILED && !c->closing && !c->lost;
}

static bool old_request(client_t *c)
{
    request_t *q = c->requests;
    char head[HEAD_MAX];

    make_request(c, q, 8 << 20);
    q->version = "1.0";
    q->start = now();
    link_put(&c->link, head, head_of(q, head, sizeof(head), ""));
    take_answer(c, q, head, 0);
    return false;
}

static bool pipelined_requests(client_t *c)
{
    const unsigned count = 2 + (unsigned)random_below(c, PIPELINE_MAX - 1);
    const double start = now();
    char text[HEAD_MAX];
    size_t len = 0;

    for (unsigned i = 0; i < count; i++) {
        make_request(c, &c->requests[i], 65536);
        c->requests[i].start = start;
        len += head_of(&c->requests[i], text + len, sizeof(text) - len, "");
    }
    link_put(&c->link, text, len);
    for (unsigned i = 0; i < count; i++) {
        const outcome_t outcome = take_answer(c, &c->requests[i], text, 0);

        if (outcome == FAILED)
            return false;
        /* What came after the last answer has to be repeated, and no backend may have had it. */
        if (c->closing || c->lost) {
            for (unsigned left = i + 1; left < count; left++) {
                if (atomic_load(&marks[c->requests[left].id % MARKS]) > 0
                    && !was_down(&c->requests[left]))
                    failure(c, &c->requests[left], "sent on, but never answered");
                atomic_fetch_add(&sums.repeated, 1);
            }
            return false;
        }
    }
    return true;
}

static bool upload(client_t *c)
{
    request_t *q = c->requests;
    char head[HEAD_MAX], fields[128];
    const char *expect;
    int status = 0;
    bool may_send = true, any;

    make_upload(c, q);
    expect = q->expect ? "Expect: 100-continue\r\n" : "";
    if (q->upload_chunked)
        snprintf(fields, sizeof(fields), "Transfer-Encoding: chunked\r\n%s", expect);
    else
        snprintf(fields, sizeof(fields), "Content-Length: %llu\r\n%s",
                 (unsigned long long)q->upload, expect);
    q->start = now();
    link_put(&c->link, head, head_of(q, head, sizeof(head), fields));
    if (q->expect) {
        may_send = false;
        if (!take_head(c, head, &status, &may_send, &any)) {
            no_head(c, q, any);
            return false;
        }
        if (may_send)
            status = 0;
    }
    if (may_send && put_body(c, q, q->upload) && q->upload_chunked)
        link_put(&c->link, "0\r\nX-Trailer: 1\r\n\r\n", 19);
    if (take_answer(c, q, head, status) != ANSWERED)
        return false;
    atomic_fetch_add(&sums.uploads, 1);
    return !c->closing && may_send;
}

static bool tunnel(client_t *c)
{
    request_t *q = c->requests;
    unsigned char bytes[ECHO_MAX];
    char head[HEAD_MAX];
    uint64_t at = 0;
    int status;
    bool any;

    make_request(c, q, 1);
    q->head = false;
    q->method = "GET";
    q->start = now();
    link_put(&c->link, head,
             head_of(q, head, sizeof(head), "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_KEY "\r\n"));
    if (!take_head(c, head, &status, NULL, &any)) {
        no_head(c, q, any);
        return false;
    }
    if (status != 101) {
        check_status(c, q, head, status);
        return false;
    }
    for (unsigned left = 1 + (unsigned)random_below(c, 20); left > 0; left--) {
        const size_t len = 1 + (size_t)random_below(c, sizeof(bytes));
        const char *wrong;

        fill(q->id, at, bytes, len);
        link_put(&c->link, bytes, len);
        wrong = check_body(c, q, at, len);
        if (wrong) {
            if (*wrong)
                failure(c, q, "%s in a tunnel", wrong);
            else
                broken(c, q, "a tunnel");
            return false;
        }
        at += len;
        usleep((unsigned)random_below(c, 200000));
    }
    atomic_fetch_add(&sums.tunnels, 1);
    return false;
}

/* Begins something and is gone; nothing is expected. */
static bool vanish(client_t *c)
{
    request_t *q = c->requests;
    char head[HEAD_MAX], fields[64];
    size_t len;

    make_upload(c, q);
    q->upload_chunked = false;
    q->size = random_size(c);
    snprintf(fields, sizeof(fields), "Content-Length: %llu\r\n", (unsigned long long)q->upload);
    switch (random_below(c, 4)) {
    case 0:                                             /* in the head */
        len = head_of(q, head, sizeof(head), fields);
        link_put(&c->link, head, (size_t)random_below(c, len));
        break;
    case 1:                                             /* in the body of the request */
        len = head_of(q, head, sizeof(head), fields);
        if (link_put(&c->link, head, len))
            put_body(c, q, random_below(c, q->upload + 1));
        break;
    case 2:                                             /* before the answer */
        q->method = "GET";
        q->delay = (unsigned)random_below(c, 1000);
        link_put(&c->link, head, head_of(q, head, sizeof(head), ""));
        usleep((unsigned)random_below(c, 50000));
        break;
    default:                                            /* in the answer */
        q->method = "GET";
        q->size += 1 << 20;
        link_put(&c->link, head, head_of(q, head, sizeof(head), ""));
        link_more(&c->link);
        break;
    }
    atomic_fetch_add(&sums.vanished, 1);
    return false;
}

/* A connection with up to 30 turns. */
static void one_connection(client_t *c)
{
    unsigned left = 1 + (unsigned)random_below(c, 30);
    const char *what;
    bool open, gone = false;

    c->tls = chance(c, 40);
    c->used = c->closing = c->lost = false;
    atomic_fetch_add(&sums.connections, 1);
    c->requests[0] = (request_t){ .method = "-", .start = now() };
    open = link_open(&c->link, ports[c->tls], c->tls ? tls : NULL, &what);
    if (!open && !atomic_load(&ending))
        failure(c, &c->requests[0], "%s", what);
    while (open && left-- > 0 && !atomic_load(&ending)) {
        const unsigned turn = (unsigned)random_below(c, 100);

        usleep((unsigned)random_below(c, chance(c, 1) ? 2000000 : 40000));
        gone = turn >= 97;
        open = turn < 55 ? one_request(c) : turn < 72 ? pipelined_requests(c)
             : turn < 93 ? upload(c) : turn < 95 ? tunnel(c) : turn < 97 ? old_request(c)
             : vanish(c);
        pthread_mutex_lock(&lock);
        open &= !draining;
        pthread_mutex_unlock(&lock);
    }
    link_close(&c->link, gone ? chance(c, 50) : true);
}

static void *client(void *data)
{
    client_t *c = data;

    while (!atomic_load(&ending)) {
        one_connection(c);
        pthread_mutex_lock(&lock);
        running--;
        pthread_cond_broadcast(&changed);
        while (draining && !atomic_load(&ending))
            pthread_cond_wait(&changed, &lock);
        running++;
        pthread_mutex_unlock(&lock);
    }
    pthread_mutex_lock(&lock);
    running--;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* ---- commands -------------------------------------------------------------------------------- */

static void wait_for_all(void)
{
    while (running > 0)
        pthread_cond_wait(&changed, &lock);
}

/* With the lock held. */
static void command(const char *line)
{
    const char *number = strchr(line, ' ');
    const unsigned backend = number ? (unsigned)atoi(number + 1) % BACKENDS_MAX : 0;

    if (strncmp(line, "down ", 5) == 0)
        last_up[backend] = DOWN;
    else if (strncmp(line, "up ", 3) == 0)
        last_up[backend] = now();
    else if (strncmp(line, "graceful", 8) == 0)
        last_graceful = now();
    else if (strncmp(line, "drain", 5) == 0) {
        draining = true;
        wait_for_all();
    }
    else if (strncmp(line, "resume", 6) == 0) {
        draining = false;
        pthread_cond_broadcast(&changed);
    }
    else if (strncmp(line, "stop", 4) == 0) {
        atomic_store(&ending, true);
        pthread_cond_broadcast(&changed);
        wait_for_all();
    }
    else {
        fprintf(stderr, "soak_client: unknown command %s", line);
        exit(2);
    }
}

static void start_clients(unsigned count, uint64_t seed)
{
    pthread_attr_t detached;

    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, 1 << 19);
    for (unsigned i = 0; i < count; i++) {
        client_t *c = calloc(1, sizeof(*c));
        pthread_t thread;

        if (!c)
            die("calloc");
        c->random = mix(seed + i);
        pthread_mutex_lock(&lock);
        running++;
        pthread_mutex_unlock(&lock);
        if (pthread_create(&thread, &detached, client, c) != 0)
            die("pthread_create");
    }
}

int main(int argc, char **argv)
{
    char line[128];

    if (argc != 7)
        usage("soak_client PORT TLS-PORT BACKENDS CLIENTS SEED MARKS");
    end_with_parent();
    ports[0] = atoi(argv[1]);
    ports[1] = atoi(argv[2]);
    backends = (unsigned)atoi(argv[3]);
    if (backends < 1 || backends > BACKENDS_MAX)
        usage("soak_client: 1 to 8 backends");
    tls = SSL_CTX_new(TLS_client_method());
    if (!tls)
        die("SSL_CTX_new");
    marks = map_marks(argv[6]);
    start_clients((unsigned)atoi(argv[4]), strtoull(argv[5], NULL, 10));
    while (!atomic_load(&ending) && fgets(line, sizeof(line), stdin)) {
        pthread_mutex_lock(&lock);
        command(line);
        pthread_mutex_unlock(&lock);
        printf("ok\n");
        fflush(stdout);
    }
    printf("{\"answered\":%llu,\"pipeline\":%llu,\"bytes\":%llu,\"uploads\":%llu,"
           "\"tunnels\":%llu,\"vanished\":%llu,\"connections\":%llu,\"excused\":%llu,"
           "\"repeated\":%llu,\"errors\":%llu}\n",
           sums.answered, sums.pipeline, sums.bytes, sums.uploads, sums.tunnels, sums.vanished,
           sums.connections, sums.excused, sums.repeated, sums.errors);
    return sums.errors > 0;
}
