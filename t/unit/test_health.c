/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What members answer to probes, and what checks make of members. */
#include "t/unit/httpd_shim.h"
#include "t/unit/tap.h"
#include "t/unit/balancer_fixture.h"
#include "balancer/rp_health.h"

static apr_pool_t *pool;

/* ---- statuses -------------------------------------------------------------------------------- */

static void statuses(void)
{
    static const char *const wrong[] = { "", "20", "2000", "600", "099", "200-", "300-200",
                                         "200,", ",200", "200 ", "2xx", "200--300" };
    rp_status_set set;

    ok(rp_status_set_parse(&set, "200-399,401,599"), "a list is read");
    ok(rp_status_set_has(&set, 200) && rp_status_set_has(&set, 399) && rp_status_set_has(&set, 401)
       && rp_status_set_has(&set, 599), "what it names is in it");
    ok(!rp_status_set_has(&set, 199) && !rp_status_set_has(&set, 400)
       && !rp_status_set_has(&set, 402) && !rp_status_set_has(&set, 598)
       && !rp_status_set_has(&set, 600) && !rp_status_set_has(&set, 0), "and nothing else");
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ok(!rp_status_set_parse(&set, wrong[i]), "\"%s\" is no list", wrong[i]);
}

/* ---- responses ------------------------------------------------------------------------------- */

/** Reads text in pieces of step bytes; then the connection ends. */
static const char *read_in(rp_probe_response *response, const char *text, size_t step)
{
    static char body[64];
    const char *message = NULL;
    size_t len = strlen(text);

    memset(response, 0, sizeof(*response));
    response->body = body;
    response->body_max = sizeof(body);
    for (size_t at = 0; at < len && !message; at += step)
        message = rp_probe_response_read(response, text + at, len - at < step ? len - at : step);
    return message || response->is_complete ? message : rp_probe_response_end(response);
}

static void good_response(const char *name, const char *text, int status, const char *body)
{
    for (size_t step = 1; step < 100; step += 33) {
        rp_probe_response response;
        const char *message = read_in(&response, text, step);

        ok(!message && response.is_complete && response.has_head && response.status == status
           && response.body_len == strlen(body)
           && !memcmp(response.body, body, response.body_len), "%s, in pieces of %d", name,
           (int)step);
        if (message)
            printf("# %s\n", message);
    }
}

static void bad_response(const char *text, const char *expected)
{
    rp_probe_response response;

    is_text(read_in(&response, text, 7), expected, expected);
}

static void responses(void)
{
    char *long_body = apr_psprintf(pool, "HTTP/1.0 200 OK\r\n\r\n%0100d", 0);
    char *long_line = apr_psprintf(pool, "HTTP/1.1 200 OK\r\nX: %01000d\r\n"
                                   "Content-Length: 2\r\n\r\nok", 0);
    rp_probe_response response;

    good_response("with a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello more", 200,
                  "hello");
    good_response("until the end", "HTTP/1.0 503 No\n\nhello", 503, "hello");
    good_response("after 1xx", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nContent-Length: "
                  "9\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, "");
    good_response("chunked", "HTTP/1.1 200 OK\r\nTransfer-encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n"
                  "02\r\nde\r\n0\r\nX: y\r\n\r\n", 200, "abcde");
    good_response("a long line", long_line, 200, "ok");
    ok(!read_in(&response, long_body, 50) && response.body_len == 64, "a body is cut");
    bad_response("220 mail.example.com ESMTP\r\n", "the answer is not HTTP/1");
    bad_response("HTTP/2 200\r\n", "the answer is not HTTP/1");
    bad_response("HTTP/1.1 2000 OK\r\n", "the answer is not HTTP/1");
    bad_response("\x15\x03\x01\n", "the answer is not HTTP/1");
    bad_response("HTTP/1.1 101 Switching\r\n\r\n", "the answer switches protocols");
    bad_response("HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\n",
                 "the answer has a bad Content-Length");
    bad_response("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
                 "the answer has a bad Content-Length");
    bad_response("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                 "the answer has an unknown transfer coding");
    bad_response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
                 "the answer has a bad chunk");
    bad_response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
                 "the answer has a bad chunk");
    bad_response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "the answer broke off");
    bad_response("", "the connection ended without an answer");
    bad_response(apr_psprintf(pool, "HTTP/1.1 200 OK\r\nX: %040000d", 0),
                 "the answer's head is too long");
}

/* ---- agents ---------------------------------------------------------------------------------- */

static void advice_is(const char *line, int percent, int max, int mode, int health)
{
    rproxy_advice advice;

    ok(rp_agent_parse(line, strlen(line), &advice) && advice.percent == percent
       && advice.max == max && advice.mode == mode && advice.health == health, "\"%s\"", line);
}

static void agents(void)
{
    static const char *const wrong[] = { "", " ,\t", "# up", "well", "75", "%", "-5%", "7x%",
                                         "maxconn:", "maxconn:x", "maxconn:-1", "up well",
                                         "123456789%" };
    rproxy_advice advice;

    advice_is("75%", 75, -1, 0, 0);
    advice_is(" Up, 50% maxconn:30 ready # all is well", 50, 30, RPROXY_ADVICE_READY,
              RPROXY_ADVICE_UP);
    advice_is("drain", -1, -1, RPROXY_ADVICE_DRAIN, 0);
    advice_is("maint", -1, -1, RPROXY_ADVICE_MAINT, 0);
    advice_is("down#disk full", -1, -1, 0, RPROXY_ADVICE_DOWN);
    advice_is("stopped", -1, -1, 0, RPROXY_ADVICE_DOWN);
    advice_is("0%", 0, -1, 0, 0);
    advice_is("9999%", 1000, -1, 0, 0);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ok(!rp_agent_parse(wrong[i], strlen(wrong[i]), &advice), "\"%s\" says nothing", wrong[i]);
    ok(!rp_agent_parse("up\0up", 5, &advice), "nor does NUL");
}

/* ---- gRPC ------------------------------------------------------------------------------------ */

static int grpc(const char *bytes, size_t len)
{
    return rp_grpc_health_parse((const unsigned char *)bytes, len);
}

static void grpc_messages(void)
{
    is_number(grpc("\0\0\0\0\2\x08\1", 7), 1, "SERVING");
    is_number(grpc("\0\0\0\0\2\x08\2", 7), 2, "NOT_SERVING");
    is_number(grpc("\0\0\0\0\0", 5), 0, "nothing is UNKNOWN");
    is_number(grpc("\0\0\0\0\7\x12\3abc\x08\1", 12), 1, "other fields are passed over");
    is_number(grpc("\0\0\0\0\3\x08\x81\0", 8), 1, "a number of two bytes");
    is_number(grpc("\1\0\0\0\2\x08\1", 7), -1, "compressed");
    is_number(grpc("\0\0\0\0\3\x08\1", 7), -1, "too short");
    is_number(grpc("\0\0\0\0\1\x08\1", 7), -1, "too long");
    is_number(grpc("\0\0\0\0\2\x08\x81", 7), -1, "a number that breaks off");
    is_number(grpc("\0\0\0\0\2\x12\x7f", 7), -1, "a text that breaks off");
    is_number(grpc("\0\0\0\0\2\x08\x09", 7), -1, "a status that nobody knows");
    is_number(grpc("\0\0\0\0", 4), -1, "less than a message");
}

/* ---- places ---------------------------------------------------------------------------------- */

static void place_is(const char *url, const char *host, int port, const char *authority,
                     const char *base, int is_tls, const char *socket)
{
    const rproxy_place *place = rp_place_parse(pool, url);

    ok(place && !strcmp(place->host, host) && place->port == port
       && !strcmp(place->authority, authority) && !strcmp(place->base, base)
       && place->is_tls == is_tls && !place->socket == !socket
       && (!socket || !strcmp(place->socket, socket)), "%s", url);
}

static void places(void)
{
    place_is("http://Example.com", "example.com", 80, "Example.com", "", 0, NULL);
    place_is("https://a.b:8443/base/", "a.b", 8443, "a.b:8443", "/base", 1, NULL);
    place_is("https://[2001:db8::1]", "2001:db8::1", 443, "[2001:db8::1]", "", 1, NULL);
    place_is("http://[::1]:81/", "::1", 81, "[::1]:81", "", 0, NULL);
    place_is("unix:/run/a.sock|http://app/x", "app", 80, "app", "/x", 0, "/run/a.sock");
    place_is("http://a.b:81/x#2001:db8::1", "a.b", 81, "a.b:81", "/x", 0, NULL);
    is_text(rp_place_parse(pool, "http://a.b:81/x#2001:db8::1")->address, "2001:db8::1",
            "an address that is known");
    ok(!rp_place_parse(pool, "ftp://a"), "another scheme is none");
}

/* ---- members --------------------------------------------------------------------------------- */

static rp_balancer *checked_pool(const char *name, int waits, int panic_percent)
{
    rp_balancer *balancer = fixture_pool(pool, name, &rp_method_roundrobin, "", 4, NULL);

    balancer->check = apr_pcalloc(pool, sizeof(*balancer->check));
    balancer->check->waits = waits;
    balancer->check->panic_percent = panic_percent;
    fixture_start(pool, balancer);
    return balancer;
}

static void set(rp_balancer *balancer, int number, int health)
{
    atomic_store(&balancer->more[number].slot->health, health);
    rp_health_look_for_panic(balancer);
    rp_balancer_changed(balancer);
}

/** The members that requests get, as bits. */
static int used(rp_balancer *balancer)
{
    static const rproxy_request get = { .method = "GET", .path = "/", .client_ip = "192.0.2.1",
                                        .header = fixture_header };
    int bits = 0;

    for (int i = 0; i < 16; i++) {
        rproxy_use use;
        int number = fixture_choose(balancer, &use, &get, FIXTURE_START);

        if (number < 0)
            continue;
        bits |= 1 << number;
        fixture_release(&use, 1, FIXTURE_START);
    }
    return bits;
}

static void members(void)
{
    rp_balancer *balancer = checked_pool("assumed", 0, 0);

    is_number(used(balancer), 15, "members are used before they are known");
    set(balancer, 1, RP_HEALTH_DOWN);
    is_number(used(balancer), 13, "one that is down isn't");
    for (int i = 0; i < 4; i++)
        set(balancer, i, RP_HEALTH_DOWN);
    is_number(used(balancer), 15, "when all are down all are");
    set(balancer, 2, RP_HEALTH_UP);
    is_number(used(balancer), 4, "the first that is up again");
    balancer->check = NULL;
    is_number(used(balancer), 4, "nothing has told of a change");
    rp_balancer_changed(balancer);
    is_number(used(balancer), 15, "without checks nothing is down");
}

static void waiting(void)
{
    rp_balancer *balancer = checked_pool("waiting", 1, 0);

    is_number(used(balancer), 0, "none is used before its first check");
    set(balancer, 3, RP_HEALTH_DOWN);
    is_number(used(balancer), 0, "also when the first one fails");
    set(balancer, 0, RP_HEALTH_UP);
    is_number(used(balancer), 1, "those that passed are");
}

static void panic(void)
{
    rp_balancer *balancer = checked_pool("panic", 0, 50);

    set(balancer, 0, RP_HEALTH_DOWN);
    set(balancer, 1, RP_HEALTH_DOWN);
    is_number(used(balancer), 12, "half of them are enough");
    set(balancer, 2, RP_HEALTH_DOWN);
    is_number(used(balancer), 15, "less than half are not: all are used");
    set(balancer, 2, RP_HEALTH_UP);
    is_number(used(balancer), 12, "enough again");
    balancer->more[0].state = RP_MEMBER_DOWN;
    fixture_changed(balancer);
    set(balancer, 3, RP_HEALTH_DOWN);
    is_number(used(balancer), 14, "those that aren't meant to be there don't count");
}

static void advised(void)
{
    rp_balancer *balancer = checked_pool("advised", 0, 0);
    rp_slot *slots[4];

    balancer->agent = balancer->check;
    for (int i = 0; i < 4; i++)
        slots[i] = balancer->more[i].slot;
    atomic_store(&slots[0]->agent_mode, RPROXY_ADVICE_DRAIN);
    atomic_store(&slots[1]->agent_health, RPROXY_ADVICE_DOWN);
    atomic_store(&slots[2]->agent_percent, 0 + 1);
    rp_balancer_changed(balancer);
    is_number(used(balancer), 8, "drained, down, and without weight");
    is_number(rp_member_state(balancer, &balancer->more[0]), RP_MEMBER_DRAIN,
              "drain is for sessions");
    is_number(rp_member_state(balancer, &balancer->more[1]), RP_MEMBER_DOWN,
              "down is for nobody");
    for (int i = 0; i < 4; i++)
        set(balancer, i, RP_HEALTH_DOWN);
    is_number(used(balancer), 8, "when checks say that all are down agents still count");
    is_number(rp_health_percent(balancer, slots[3]), 100, "all of the weight");
    atomic_store(&slots[3]->agent_max, 5 + 1);
    is_number(rp_health_max(slots[3], 0), 5, "an agent limits requests");
    is_number(rp_health_max(slots[3], 3), 3, "never above max=");
}

static void displayed(void)
{
    rp_balancer *balancer = checked_pool("displayed", 0, 0);
    rp_slot *slot = balancer->more[0].slot;
    rp_health_view view;

    rp_health_look(balancer, slot, &view);
    is_text(rp_health_name(&view), "unknown", "nothing is known yet");
    set(balancer, 0, RP_HEALTH_DOWN);
    rp_health_write_cause(slot, "no connection: Connection refused, and much more than what there "
                          "is room for");
    rp_health_look(balancer, slot, &view);
    is_text(rp_health_name(&view), "down", "it is down");
    is_text(view.cause, "no connection: Connection refused, and much more than what ther",
            "and why");
    balancer->check = NULL;
    rp_health_look(balancer, slot, &view);
    is_text(rp_health_name(&view), "unchecked", "without checks");
}

/** An ejection that is older than a check that passes ends; a younger one doesn't. */
static void forgiven(void)
{
    rp_balancer *balancer = checked_pool("forgiven", 0, 0);
    rp_slot *slot = balancer->more[0].slot;
    apr_time_t now = FIXTURE_START;

    atomic_store(&slot->ejections, 1);
    atomic_store(&slot->ejected_until, now + balancer->outlier.eject);
    rp_outlier_passed(balancer, slot, now - 1, now + 1);
    is_number(atomic_load(&slot->ejected_until), now + balancer->outlier.eject,
              "the check began before");
    rp_outlier_passed(balancer, slot, now + 1, now + 2);
    is_number(atomic_load(&slot->ejected_until), now + 2, "its time is over");
    rp_outlier_forgive(balancer, slot, balancer->members[0].name, now + 3);
    is_number(atomic_load(&slot->ejected_until), 0, "it is back");
    is_number(atomic_load(&slot->ejections), 0, "as if nothing had been");
}

int main(void)
{
    pool = tap_pool();
    statuses();
    responses();
    agents();
    grpc_messages();
    places();
    members();
    waiting();
    panic();
    advised();
    displayed();
    forgiven();
    return tap_done();
}
