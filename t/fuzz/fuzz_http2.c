/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The engine's HTTP/2 (rproxy/engine/rp_h2*.c) between a client and upstreams that both do as the
 * input says. Its first byte holds options; with RAW what follows is what the client sends, in
 * pieces. Otherwise each following byte is something that happens, its operands behind it: the
 * client sends a frame, an upstream answers, time passes, the client takes output or does not.
 * Header blocks are made here, so that the search need not find out compression.
 *
 * Checked: the frames sent make sense (RFC 9113 section 5.1), nobody is told of a stream that is
 * over, an exchange begins and ends once, and nothing is left behind. */

#include "t/fuzz/fuzz_http2.h"

#define ROUNDS_MOST 2000                /* of the loop for one event: else it is busy for ever */
#define STREAMS_SEEN 4096               /* ids up to this are looked at */

enum option {
    RAW = 1,
    DRAINING = 2,                       /* the child stops already when the connection begins */
    ANY_UPGRADE = 4,
    KEEPS_ON = 8,                       /* RProxyIgnoreClientAbort */
    NO_WINDOW = 16                      /* the client allows no DATA at first */
};

typedef struct input {
    const uint8_t *at, *end;
} input;

/* What the upstream of one exchange does next; rp_exchange.conn points to it. */
typedef struct upstream {
    int reads;                          /* bytes of the request it has room for */
    int interim;                        /* a status to send, 0: none */
    int status;                         /* of its final response, 0: none yet */
    int length;                         /* of its body, -1: chunked */
    int ready;                          /* body bytes that came */
    int trailers;
    int ended, broken;
} upstream;

/* What the client has learnt of a stream. */
typedef struct view {
    unsigned int head:1, ended:1, reset:1;
} view;

static rp_downstream connection;
static rp_engine_loop engine;
static conn_rec client_conn;
static apr_sockaddr_t local = { .port = 80 };
static server_rec *const base_server = &fuzz_server;
static struct {
    char *in;                           /* bytes on their way to us */
    size_t in_len, in_size;
    char *out;                          /* the frame being sent to it */
    size_t out_len, out_size;
    size_t room;                        /* bytes it takes */
    int left, told_to_go, again, exchanges;
    apr_time_t due;
    int newest;                         /* stream id */
    nghttp2_hd_deflater *deflater;
    nghttp2_hd_inflater *inflater;
    uint8_t block[1 << 16];             /* header block being received */
    size_t block_len;
    view seen[STREAMS_SEEN];
} peer;

static uint8_t take(input *in)
{
    return in->at < in->end ? *in->at++ : 0;
}

static unsigned int take2(input *in)
{
    unsigned int high = take(in);

    return high << 8 | take(in);
}

/* ---- exchanges: rp_exchange.h, as far as a lane sees them ----------------------------------- */

static void end_exchange(rp_exchange *x, rp_outcome outcome, rp_reason reason)
{
    FUZZ_ASSERT(x->conn && x->outcome == RP_OUTCOME_RUNNING);
    free(x->conn);
    x->conn = NULL;
    x->state = RP_X_ENDED;
    x->outcome = outcome;
    x->reason = reason;
    x->ops->detach(x->client);
}

static void fail(rp_exchange *x, rp_reason reason)
{
    end_exchange(x, x->head_done ? RP_OUTCOME_BROKEN : RP_OUTCOME_ERROR, reason);
}

static upstream *new_upstream(void)
{
    return calloc(1, sizeof(upstream));
}

rp_reason rp_exchange_start(rp_exchange *x)
{
    x->client_eof = x->request->framing == RP_BODY_NONE;
    x->outcome = RP_OUTCOME_RUNNING;
    x->conn = (rp_conn *)(void *)new_upstream();
    if (strncmp(x->request->path, "/fail", 5) == 0) {
        fail(x, RP_REASON_REFUSED);
    }
    return x->outcome == RP_OUTCOME_RUNNING ? RP_REASON_NONE : x->reason;
}

static void read_request(rp_exchange *x, upstream *up)
{
    char bytes[4096];

    while (up->reads > 0 && !x->client_eof) {
        apr_size_t size = up->reads < (int)sizeof(bytes) ? (apr_size_t)up->reads : sizeof(bytes);
        apr_size_t got = 0;

        switch (x->ops->read(x->client, bytes, size, &got)) {
        case RP_IO_DONE:
            FUZZ_ASSERT(got > 0 && got <= size);
            up->reads -= (int)got;
            break;
        case RP_IO_EOF:
            x->client_eof = 1;
            if (x->state != RP_X_TUNNEL) {
                const rp_fields *trailers = x->ops->request_trailers(x->client);

                FUZZ_ASSERT(!trailers || trailers->count > 0);
            }
            break;
        case RP_IO_AGAIN:
            x->want_client_read = 1;
            return;
        default:
            fail(x, RP_REASON_REQUEST_BODY);
            return;
        }
    }
}

/* Zero: the exchange has ended, or there is no head yet. */
static int send_head(rp_exchange *x, upstream *up)
{
    rp_fields fields;
    int asked = rp_fields_get(&x->request->fields, RP_FIELD_UPGRADE, 0) != NULL;
    int is_head = strcmp(x->request->method, "HEAD") == 0;

    if (x->head_done || !up->status) {
        return x->head_done;
    }
    if (up->status == 101 && !asked) {
        up->status = 200;
    }
    rp_fields_init(&fields, x->pool, 0);
    rp_fields_add(&fields, "Content-Type", "text/plain");
    rp_fields_add(&fields, "X-Upstream", "value");
    x->response.status = up->status;
    x->response.reason = "";
    x->response.content_length = up->length;
    x->response.framing = up->status == 204 || up->status == 304 || is_head ? RP_BODY_NONE
        : up->length >= 0 ? RP_BODY_LENGTH : RP_BODY_CHUNKED;
    if (up->length >= 0) {
        rp_fields_add(&fields, "Content-Length", apr_itoa(x->pool, up->length));
    }
    x->head_done = 1;
    if (x->client_gone) {
        return 1;
    }
    switch (x->ops->head(x->client, &x->response, &fields, !x->client_eof)) {
    case RP_HEAD_RELAY:
        break;
    case RP_HEAD_REPLACE:
        x->head_done = 0;
        end_exchange(x, RP_OUTCOME_REPLACED, RP_REASON_NONE);
        return 0;
    default:
        end_exchange(x, RP_OUTCOME_BROKEN, RP_REASON_CLIENT_GONE);
        return 0;
    }
    if (up->status == 101) {
        x->ops->tunnel(x->client);
        x->state = RP_X_TUNNEL;
        x->client_eof = 0;
    }
    return 1;
}

static int has_body(const rp_exchange *x)
{
    return x->state == RP_X_TUNNEL || x->response.framing != RP_BODY_NONE;
}

/* Zero: the exchange has ended. */
static int send_body(rp_exchange *x, upstream *up)
{
    if (!has_body(x)) {
        up->ready = 0;
    }
    while (up->ready > 0) {
        char *buffer;
        apr_size_t size;

        if (x->client_blocked && !x->client_gone) {
            rp_io io = x->ops->flush(x->client, 0);

            if (io == RP_IO_FAILED) {
                return rp_exchange_client_left(x);
            }
            if (io == RP_IO_AGAIN) {
                x->want_client_write = 1;
                return 1;
            }
            x->client_blocked = 0;
        }
        buffer = x->ops->reserve(x->client, &size);
        if ((int)size > up->ready) {
            size = (apr_size_t)up->ready;
        }
        memset(buffer, 'b', size);
        up->ready -= (int)size;
        if (x->client_gone) {
            x->ops->release(x->client, buffer);
            continue;
        }
        switch (x->ops->send(x->client, buffer, buffer, size)) {
        case RP_IO_DONE:
            break;
        case RP_IO_AGAIN:
            x->client_blocked = 1;
            break;
        default:
            return rp_exchange_client_left(x);
        }
    }
    return 1;
}

static void send_end(rp_exchange *x, upstream *up)
{
    rp_fields *trailers = NULL;

    if (x->state == RP_X_TUNNEL) {
        if (!x->upstream_eof) {
            x->upstream_eof = 1;
            x->ops->end_write(x->client);
        }
        if (x->client_eof) {
            end_exchange(x, RP_OUTCOME_DONE, RP_REASON_NONE);
        }
        return;
    }
    if (up->trailers && x->response.framing == RP_BODY_CHUNKED) {
        trailers = apr_palloc(x->pool, sizeof(*trailers));
        rp_fields_init(trailers, x->pool, 0);
        rp_fields_add(trailers, "X-Sum", "six");
    }
    if (x->client_gone || x->ops->finish(x->client, trailers) == RP_IO_FAILED) {
        end_exchange(x, RP_OUTCOME_BROKEN, RP_REASON_CLIENT_GONE);
        return;
    }
    end_exchange(x, RP_OUTCOME_DONE, RP_REASON_NONE);
}

rp_outcome rp_exchange_step(rp_exchange *x, int upstream_ready)
{
    upstream *up = (upstream *)x->conn;

    (void)upstream_ready;
    FUZZ_ASSERT(x->outcome == RP_OUTCOME_RUNNING && up);
    x->want_client_read = x->want_client_write = 0;
    read_request(x, up);
    if (x->outcome == RP_OUTCOME_RUNNING && up->interim && !x->head_done && !x->client_gone) {
        rp_fields fields;

        rp_fields_init(&fields, x->pool, 0);
        rp_fields_add(&fields, "Link", "</a>");
        x->ops->interim(x->client, up->interim, &fields);
        up->interim = 0;
    }
    if (x->outcome == RP_OUTCOME_RUNNING && send_head(x, up) && send_body(x, up)
        && up->ready == 0 && up->ended) {
        send_end(x, up);
    }
    if (x->outcome == RP_OUTCOME_RUNNING && up->broken) {
        fail(x, RP_REASON_BAD_RESPONSE);
    }
    return x->outcome;
}

int rp_exchange_client_left(rp_exchange *x)
{
    x->client_gone = 1;
    if (x->settings->ignore_client_abort && x->state != RP_X_TUNNEL) {
        return 1;
    }
    if (x->state == RP_X_TUNNEL) {
        end_exchange(x, RP_OUTCOME_DONE, RP_REASON_CLIENT_GONE);
    }
    else {
        fail(x, RP_REASON_CLIENT_GONE);
    }
    return 0;
}

void rp_exchange_end(rp_exchange *x, rp_reason reason)
{
    if (x->outcome == RP_OUTCOME_RUNNING) {
        fail(x, reason);
    }
}

/* ---- rp_engine_request.h -------------------------------------------------------------------- */

void rp_engine_send_ahead(rp_engine_request *q, rp_batch *batch)
{
    (void)q;
    (void)batch;
}

int rp_engine_prepare_exchange(rp_engine_request *q, const rp_client_ops *ops)
{
    q->x.pool = q->pool;
    q->x.request = &q->request;
    q->x.settings = &q->route->settings;
    q->x.ops = ops;
    q->x.client = q;
    q->in_exchange = 1;
    q->body_began = q->d->loop->now;
    peer.exchanges++;
    return 1;
}

apr_time_t rp_engine_wait(rp_engine_request *q, int *again)
{
    *again = 0;
    return q->d->loop->now + apr_time_from_sec(10);
}

int rp_engine_is_body_late(rp_engine_request *q)
{
    if (!q->x.want_client_read || q->tunnel
        || q->d->loop->now < q->body_began + apr_time_from_sec(20)) {
        return 0;
    }
    q->body_status = HTTP_REQUEST_TIME_OUT;
    rp_exchange_end(&q->x, RP_REASON_REQUEST_BODY);
    return 1;
}

apr_time_t rp_engine_read_deadline(const rp_read_limit *limit, apr_time_t from, apr_int64_t bytes)
{
    (void)bytes;
    return limit->first ? from + apr_time_from_sec(limit->first) : 0;
}

void rp_engine_detach(void *client)
{
    (void)client;
}

void rp_engine_account(rp_engine_request *q)
{
    FUZZ_ASSERT(q->in_exchange && q->x.outcome != RP_OUTCOME_RUNNING);
    q->in_exchange = 0;
    peer.exchanges--;
}

int rp_engine_client_left(rp_engine_request *q)
{
    return !q->x.client_gone && !q->x.settings->ignore_client_abort
        && !rp_exchange_client_left(&q->x);
}

void rp_engine_bound_tunnel(rp_engine_request *q)
{
    FUZZ_ASSERT(q->tunnel);
}

/* ---- the connection: rp_downstream.h -------------------------------------------------------- */

rp_io rp_downstream_read(rp_downstream *d, char *buffer, apr_size_t size, apr_size_t *got)
{
    *got = peer.in_len < size ? peer.in_len : size;
    if (*got == 0) {
        d->readable = 0;
        d->ended |= peer.left != 0;
        return peer.left ? RP_IO_EOF : RP_IO_AGAIN;
    }
    memcpy(buffer, peer.in, *got);
    memmove(peer.in, peer.in + *got, peer.in_len - *got);
    peer.in_len -= *got;
    return RP_IO_DONE;
}

static void append(char **bytes, size_t *len, size_t *size, const void *more, size_t count)
{
    if (*len + count > *size) {
        *size = 2 * (*len + count);
        *bytes = realloc(*bytes, *size);
    }
    if (count > 0) {
        memcpy(*bytes + *len, more, count);
        *len += count;
    }
}

static int status_of(uint8_t *block, size_t len)
{
    int status = 0, flags = NGHTTP2_HD_INFLATE_EMIT;

    while (flags & NGHTTP2_HD_INFLATE_EMIT) {
        nghttp2_nv field = { 0 };
        ssize_t used = nghttp2_hd_inflate_hd2(peer.inflater, &field, &flags, block, len, 1);

        FUZZ_ASSERT(used >= 0);
        block += used;
        len -= (size_t)used;
        if (flags & NGHTTP2_HD_INFLATE_EMIT) {
            for (size_t i = 0; i < field.namelen; i++) {
                FUZZ_ASSERT(field.name[i] < 'A' || field.name[i] > 'Z');
            }
            if (field.namelen == 7 && memcmp(field.name, ":status", 7) == 0) {
                status = (int)strtol((const char *)field.value, NULL, 10);
            }
        }
    }
    nghttp2_hd_inflate_end_headers(peer.inflater);
    return status;
}

static void check_frame(const uint8_t *frame, size_t len)
{
    uint8_t type = frame[3], flags = frame[4];
    uint32_t id = (uint32_t)frame[5] << 24 | (uint32_t)frame[6] << 16 | (uint32_t)frame[7] << 8
        | frame[8];
    view *seen = &peer.seen[id < STREAMS_SEEN ? id : 0];
    int is_head = type == NGHTTP2_HEADERS || type == NGHTTP2_CONTINUATION;

    FUZZ_ASSERT(len <= 16384);
    if (is_head) {
        FUZZ_ASSERT(peer.block_len + len <= sizeof(peer.block));
        memcpy(peer.block + peer.block_len, frame + 9, len);
        peer.block_len += len;
    }
    if (id > 0 && id < STREAMS_SEEN) {
        FUZZ_ASSERT(id % 2 == 1);
        FUZZ_ASSERT((type != NGHTTP2_DATA && !is_head) || (!seen->ended && !seen->reset));
        FUZZ_ASSERT(type != NGHTTP2_DATA || seen->head);
        seen->reset |= type == NGHTTP2_RST_STREAM;
    }
    if (is_head && (flags & NGHTTP2_FLAG_END_HEADERS)) {
        int status = status_of(peer.block, peer.block_len);

        peer.block_len = 0;
        FUZZ_ASSERT(status || seen->head || id >= STREAMS_SEEN);
        FUZZ_ASSERT(!status || !seen->head || id >= STREAMS_SEEN);
        seen->head |= status >= 200 && id < STREAMS_SEEN;
    }
    if ((type == NGHTTP2_DATA || type == NGHTTP2_HEADERS) && (flags & NGHTTP2_FLAG_END_STREAM)
        && id < STREAMS_SEEN) {
        seen->ended = 1;
    }
}

rp_io rp_downstream_write(rp_downstream *d, const struct iovec *vector, int count,
                          apr_size_t *written)
{
    apr_size_t len = vector->iov_len < peer.room ? vector->iov_len : peer.room;

    (void)d;
    FUZZ_ASSERT(count == 1 && vector->iov_len > 0 && !peer.told_to_go);
    if (peer.left) {
        return RP_IO_FAILED;
    }
    if (len == 0) {
        return RP_IO_AGAIN;
    }
    peer.room -= len;
    *written = len;
    append(&peer.out, &peer.out_len, &peer.out_size, vector->iov_base, len);
    while (peer.out_len >= 9) {
        const uint8_t *frame = (uint8_t *)peer.out;
        size_t payload = (size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2];

        if (peer.out_len < 9 + payload) {
            break;
        }
        check_frame(frame, payload);
        peer.out_len -= 9 + payload;
        memmove(peer.out, peer.out + 9 + payload, peer.out_len);
    }
    return RP_IO_DONE;
}

rp_io rp_downstream_flush(rp_downstream *d)
{
    (void)d;
    return RP_IO_DONE;
}

void rp_downstream_end_write(rp_downstream *d)
{
    (void)d;
    FUZZ_ASSERT(!peer.told_to_go);
    peer.told_to_go = 1;
}

void rp_downstream_trim(rp_downstream *d)
{
    (void)d;
}

void rp_downstream_set_deadline(rp_downstream *d, apr_time_t due)
{
    (void)d;
    peer.due = due;
}

void rp_downstream_again(rp_downstream *d)
{
    (void)d;
    peer.again = 1;
}

void rp_downstream_close(rp_downstream *d)
{
    if (d->state != RP_DOWN_CLOSED) {
        d->state = RP_DOWN_CLOSED;
        if (d->session) {
            d->protocol->closed(d);
        }
    }
}

void rp_downstream_abort(rp_downstream *d, int reset)
{
    (void)reset;
    rp_downstream_close(d);
}

/* ---- what happens --------------------------------------------------------------------------- */

static int is_open(void)
{
    return connection.state == RP_DOWN_OPEN;
}

static void run(void)
{
    int rounds = 0;

    while (peer.again && is_open()) {
        peer.again = 0;
        connection.protocol->ready(&connection);
        FUZZ_ASSERT(rounds++ < ROUNDS_MOST);
    }
}

static void deliver(void)
{
    connection.readable = peer.in_len > 0 || peer.left;
    peer.again = 1;
    run();
}

static void put(const void *bytes, size_t len)
{
    append(&peer.in, &peer.in_len, &peer.in_size, bytes, len);
}

static void put_frame(uint8_t type, uint8_t flags, uint32_t id, const void *payload, size_t len)
{
    const uint8_t head[9] = {
        (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, type, flags,
        (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id
    };

    put(head, sizeof(head));
    put(payload, len);
}

static uint32_t stream_id(uint8_t which)
{
    int back = 2 * (which & 15);

    return which & 16 ? 0 : back < peer.newest ? (uint32_t)(peer.newest - back) : 1;
}

static void put_number(uint8_t type, uint32_t id, uint32_t number)
{
    const uint8_t payload[4] = {
        (uint8_t)(number >> 24), (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number
    };

    put_frame(type, 0, id, payload, sizeof(payload));
}

static const char *const words[][2] = {
    { ":method", "GET" }, { ":method", "POST" }, { ":method", "HEAD" }, { ":method", "CONNECT" },
    { ":method", "TRACE" }, { ":scheme", "http" }, { ":path", "/" }, { ":path", "/fail" },
    { ":path", "/%zz" }, { ":path", "/a b" }, { ":path", "*" }, { ":path", "/a?b" },
    { ":authority", "host" }, { ":authority", "Host" }, { ":authority", "other:80" },
    { ":authority", "a/b" }, { ":protocol", "websocket" }, { ":protocol", "h2c" },
    { ":protocol", "x" }, { "host", "host" }, { "host", "x" }, { "cookie", "a=b" },
    { "cookie", "" }, { "content-length", "0" }, { "content-length", "5" },
    { "content-length", "999999" }, { "content-length", "x" }, { "expect", "100-continue" },
    { "te", "trailers" }, { "te", "gzip" }, { "transfer-encoding", "chunked" },
    { "connection", "close" }, { "priority", "u=1, i" }, { "x-a", "b" }, { "X-A", "b" },
    { "x-a", "b\r\nc" }, { "", "x" }, { "sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==" },
    { "upgrade", "websocket" }, { ":status", "200" }
};

#define WORDS (sizeof(words) / sizeof(words[0]))

/* A head or trailers: fields by number, in one frame or two. */
static void put_head(input *in, uint32_t id, int is_head)
{
    nghttp2_nv fields[64];
    size_t count = 0;
    uint8_t flags = take(in);
    unsigned int many = take(in) % 60;
    uint8_t block[1 << 16];
    ssize_t len;

    if (is_head && !(flags & 64)) {     /* what a request needs */
        static const uint8_t usual[3][5] = {
            { 0, 5, 6, 12, 33 }, { 1, 5, 6, 12, 33 }, { 3, 5, 6, 12, 16 }
        };
        const uint8_t *chosen = usual[flags & 2 ? 2 : (flags & 32) != 0];

        many = many % 16;
        for (int i = 0; i < 5; i++) {
            const char *const *word = words[chosen[i]];

            fields[count++] = (nghttp2_nv){ (uint8_t *)word[0], (uint8_t *)word[1],
                                            strlen(word[0]), strlen(word[1]), 0 };
        }
    }
    while (many-- > 0 && count < 60) {
        const char *const *word = words[take(in) % WORDS];

        fields[count++] = (nghttp2_nv){ (uint8_t *)word[0], (uint8_t *)word[1], strlen(word[0]),
                                        strlen(word[1]), 0 };
    }
    len = nghttp2_hd_deflate_hd(peer.deflater, block, sizeof(block), fields, count);
    if (len < 0) {
        return;
    }
    if (flags & 16) {
        ssize_t half = len / 2;

        put_frame(NGHTTP2_HEADERS, flags & 1, id, block, (size_t)half);
        put_frame(NGHTTP2_CONTINUATION, flags & 8 ? 0 : 4, id, block + half, (size_t)(len - half));
        return;
    }
    put_frame(NGHTTP2_HEADERS, (flags & 1) | (flags & 8 ? 0 : 4), id, block, (size_t)len);
}

/* An upstream that has something to say: which counts the streams with an exchange. */
static void answer(uint8_t which, input *in)
{
    static const int statuses[] = { 200, 204, 304, 404, 599, 101, 100, 103 };
    rp_h2_session *session = connection.session;
    rp_h2_stream *stream = session ? session->streams : NULL;
    uint8_t what = take(in);
    unsigned int amount = take2(in);
    upstream *up;

    while (stream && (!stream->base.in_exchange || which-- % 16 > 0)) {
        stream = stream->next;
    }
    if (!stream) {
        return;
    }
    up = (upstream *)stream->base.x.conn;
    switch (what % 8) {
    case 0:
    case 1:
        up->status = up->status ? up->status : statuses[amount % 6];
        up->length = what & 64 ? (int)(amount >> 4) : -1;
        up->ready += what & 64 ? up->length : 0;
        up->ended |= (what & 128) != 0;
        break;
    case 2:
        up->interim = statuses[6 + (amount & 1)];
        break;
    case 3:
        up->ready += up->length < 0 ? (int)(amount * 4) : 0;
        break;
    case 4:
        up->ended = 1;
        up->trailers = what >> 7;
        break;
    case 5:
        up->broken = 1;
        break;
    default:
        up->reads += (int)(amount * 2);
        break;
    }
    stream->base.step(&stream->base, 1);
}

static void pass_time(apr_time_t seconds)
{
    rp_loop_timer *due[FUZZ_TIMERS];

    fuzz_loop.now += apr_time_from_sec(seconds) + 1;
    memcpy(due, fuzz_timers, sizeof(due));
    for (int i = 0; i < FUZZ_TIMERS; i++) {
        if (due[i] && fuzz_timers[i] == due[i] && due[i]->due <= fuzz_loop.now) {
            fuzz_timers[i] = NULL;
            due[i]->due = 0;
            due[i]->expired(due[i]);
        }
    }
    run();
    if (is_open() && peer.due && peer.due <= fuzz_loop.now) {
        peer.due = 0;
        connection.protocol->expired(&connection);
    }
}

static void happen(input *in)
{
    static uint8_t zeros[1 << 16];
    uint8_t what = take(in), which = take(in);
    uint8_t raw[256];
    uint32_t id = stream_id(which);

    switch (what % 16) {
    case 0:
        peer.newest += 2;
        put_head(in, (uint32_t)peer.newest, 1);
        break;
    case 1:
        put_head(in, id, 0);
        break;
    case 2:
        put_frame(NGHTTP2_DATA, (which >> 6) & 1, id, zeros, take2(in) % 16385);
        break;
    case 3:
        put_number(NGHTTP2_RST_STREAM, id, take(in));
        break;
    case 4:
        put_number(NGHTTP2_WINDOW_UPDATE, id, take2(in) << (which & 128 ? 15 : 0));
        break;
    case 5:
        raw[0] = 0;
        raw[1] = which % 16 == NGHTTP2_SETTINGS_HEADER_TABLE_SIZE ? 4 : which % 16;
        raw[2] = which >> 7;
        raw[3] = 0;
        raw[4] = take(in);
        raw[5] = take(in);
        put_frame(NGHTTP2_SETTINGS, 0, 0, raw, 6);
        break;
    case 6:
        put_frame(NGHTTP2_PING, which & 1, 0, zeros, 8);
        break;
    case 7:
        memcpy(raw, "\0\0\0\0u=0,i", 9);
        raw[3] = (uint8_t)id;
        raw[6] = (uint8_t)('0' + which % 8);
        put_frame(NGHTTP2_PRIORITY_UPDATE, 0, 0, raw, 9);
        break;
    case 8:
        memset(raw, 0, sizeof(raw));
        raw[0] = take(in);
        for (int i = 1; i <= raw[0] && i < 256; i++) {
            raw[i] = take(in);
        }
        put_frame(what >> 4, which, stream_id(raw[1]), raw + 1, raw[0]);
        break;
    case 9:
        put(in->at, which < in->end - in->at ? which : (size_t)(in->end - in->at));
        in->at += which < in->end - in->at ? which : in->end - in->at;
        break;
    case 10:
        pass_time(which);
        break;
    case 11:
    case 12:
        answer(which, in);
        break;
    case 13:
        peer.room = which == 255 ? SIZE_MAX / 2 : which * 64u;
        break;
    case 14:
        if (which == 0) {
            fuzz_draining_since = fuzz_loop.now;
            connection.protocol->drain(&connection);
        }
        else if (which == 1) {
            peer.left = connection.left = 1;
        }
        break;
    default:
        break;
    }
    if (!(what & 0x80)) {               /* else together with what follows */
        deliver();
    }
}

/* ---- beginning and end ---------------------------------------------------------------------- */

static void begin(int options)
{
    static const uint8_t no_window[] = { 0, 4, 0, 0, 0, 0 };

    memset(&peer, 0, sizeof(peer));
    memset(&connection, 0, sizeof(connection));
    memset(&engine, 0, sizeof(engine));
    memset(&client_conn, 0, sizeof(client_conn));
    fuzz_loop.now = apr_time_from_sec(1000);
    fuzz_draining_since = options & DRAINING ? fuzz_loop.now : 0;
    fuzz_engine_route.settings.upgrade = options & ANY_UPGRADE ? RP_UPGRADE_ANY
                                                               : RP_UPGRADE_WEBSOCKET;
    fuzz_engine_route.settings.ignore_client_abort = (options & KEEPS_ON) != 0;
    fuzz_engine_route.settings.via = "1.1 fuzz";
    apr_pool_create(&fuzz_loop.pool, NULL);
    engine.loop = &fuzz_loop;
    client_conn.base_server = base_server;
    client_conn.client_ip = (char *)"127.0.0.1";
    client_conn.local_addr = &local;
    connection.loop = &fuzz_loop;
    connection.engine = &engine;
    connection.c = &client_conn;
    connection.protocol = &rp_h2_protocol;
    connection.state = RP_DOWN_OPEN;
    peer.room = SIZE_MAX / 2;
    peer.newest = -1;
    nghttp2_hd_deflate_new(&peer.deflater, 4096);
    nghttp2_hd_inflate_new(&peer.inflater);
    if (!(options & RAW)) {
        put(RP_H2_PREFACE, RP_H2_PREFACE_LEN);
        put_frame(NGHTTP2_SETTINGS, 0, 0, no_window, options & NO_WINDOW ? 6 : 0);
        deliver();
    }
}

static void end(void)
{
    rp_downstream_close(&connection);
    FUZZ_ASSERT(!connection.session && peer.exchanges == 0 && fuzz_lent == 0);
    rp_engine_free_requests(&engine.h2_streams);
    for (int i = 0; i < FUZZ_TIMERS; i++) {
        FUZZ_ASSERT(!fuzz_timers[i]);
    }
    while (fuzz_pools) {
        apr_pool_destroy(fuzz_pools);
    }
    free(connection.host_text);
    free(connection.hostname);
    free(peer.in);
    free(peer.out);
    nghttp2_hd_deflate_del(peer.deflater);
    nghttp2_hd_inflate_del(peer.inflater);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int ready;
    input in = { data, data + size };
    int options = take(&in);

    if (!ready) {
        ready = 1;
        FUZZ_ASSERT(rp_h2_init(NULL) == APR_SUCCESS);
    }
    begin(options);
    while (in.at < in.end && is_open()) {
        if (options & RAW) {
            size_t piece = 1 + size / FUZZ_PIECES;

            piece = piece < (size_t)(in.end - in.at) ? piece : (size_t)(in.end - in.at);
            put(in.at, piece);
            in.at += piece;
            deliver();
        }
        else {
            happen(&in);
        }
    }
    end();
    return 0;
}
