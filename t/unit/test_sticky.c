/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Sessions: cookies in fields, values that are sealed, what is learnt, which responses may carry a
 * cookie, and which member a request gets. Fields come as lines "Name: value". */
#include <strings.h>

#include "t/unit/httpd_shim.h"
#include "t/unit/tap.h"
#include "t/unit/balancer_fixture.h"
#include "balancer/rp_learned.h"
#include "balancer/rp_sticky.h"

#define NOW FIXTURE_START
#define KEY_A "0123456789abcdefA"
#define KEY_B "0123456789abcdefB"

static apr_pool_t *pool;

static rp_span span(const char *text)
{
    return (rp_span){ text, strlen(text) };
}

static const char *text_of(rp_span value)
{
    return apr_pstrmemdup(pool, value.at, value.len);
}

/* ---- cookies --------------------------------------------------------------------------------- */

/** The values of all cookies named "id", each with a bar behind it. */
static const char *values(const char *field)
{
    const char *all = "";
    rp_span value;

    while (rp_cookie_next(&field, "id", &value))
        all = apr_pstrcat(pool, all, text_of(value), "|", NULL);
    return all;
}

static void cookies(void)
{
    static const char *const found[][2] = {
        { "id=1", "1|" }, { "a=b; id=1; c=d", "1|" }, { "id=1;id=2 ; id =3;\tid= 4 ", "1|2|3|4|" },
        { "xid=1; idx=2; ID=3; id", "" }, { "id=", "|" }, { "id=a=b", "a=b|" }, { "", "" },
        { "id=\"q\"", "q|" }, { "id=\"", "\"|" }, { "id=\"\"", "|" }, { ";;;", "" }, { "=1", "" },
        { "a=\"; id=1; b=\"", "1|" }, { "id=1, id=2", "1, id=2|" },
    };
    static const char *const others[][2] = {
        { "a=b; c=d", "a=b; c=d" }, { "id=1", "" }, { "id=1; a=b", "a=b" }, { "a=b;id=1", "a=b" },
        { "a=b;id=1;c=d", "a=b; c=d" }, { " ;a ; id=1;id=2;; b", "a; b" }, { "id=1;;;", "" },
        { "a;b;c;d;e;id=", "a; b; c; d; e" },
    };
    rp_span value;

    for (size_t i = 0; i < sizeof(found) / sizeof(found[0]); i++)
        is_text(values(found[i][0]), found[i][1], found[i][0]);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        is_text(rp_cookie_without(pool, others[i][0], "id"), others[i][1], others[i][0]);
    ok(rp_cookie_without(pool, others[0][0], "id") == others[0][0], "nothing to remove");
    ok(rp_cookie_is_set("id=v; Path=/", "id", &value) && !strcmp(text_of(value), "v"), "set");
    ok(!rp_cookie_is_set("a=b; id=v", "id", &value), "an attribute is no cookie");
    ok(!rp_cookie_is_set("", "id", &value), "nothing is set");
}

/* ---- sealed values --------------------------------------------------------------------------- */

static const apr_array_header_t *keys_of(const char *first, const char *second)
{
    apr_array_header_t *keys = apr_array_make(pool, 2, sizeof(rp_span));

    APR_ARRAY_PUSH(keys, rp_span) = span(first);
    if (second)
        APR_ARRAY_PUSH(keys, rp_span) = span(second);
    return keys;
}

static void seals(void)
{
    const rp_seal *seal = rp_seal_make(pool, "app", keys_of(KEY_A, NULL));
    const rp_seal *rotated = rp_seal_make(pool, "app", keys_of(KEY_B, KEY_A));
    const rp_seal *other_pool = rp_seal_make(pool, "app2", keys_of(KEY_A, NULL));
    rp_sealed what = { .id = 0x0123456789abcdefu, .number = 300, .expires = 0xfedcba98u }, got;
    char text[RP_SEAL_TEXT + 1], other[RP_SEAL_TEXT + 1], changed[RP_SEAL_TEXT + 2];
    int forged = 0;

    rp_seal_close(seal, &what, text);
    is_number(strlen(text), RP_SEAL_TEXT, "its length");
    is_number(rp_seal_open(seal, span(text), &got), 0, "opened by its key");
    ok(got.id == what.id && got.number == 300 && got.expires == what.expires, "as it was");
    is_number(rp_seal_open(rotated, span(text), &got), 1, "by the second of two");
    ok(got.id == what.id, "also as it was");
    rp_seal_close(rotated, &what, other);
    is_number(rp_seal_open(rotated, span(other), &got), 0, "the first one seals");
    is_number(rp_seal_open(seal, span(other), &got), -1, "not by another key");
    is_number(rp_seal_open(other_pool, span(text), &got), -1, "nor for another pool");
    for (int i = 0; i < RP_SEAL_TEXT; i++) {
        static const char digits[] =
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/ .;\x80";

        for (const char *c = digits; *c; c++) {
            strcpy(changed, text);
            changed[i] = *c;
            forged += *c != text[i] && rp_seal_open(seal, span(changed), &got) >= 0;
        }
    }
    is_number(forged, 0, "no character can be changed");
    strcpy(changed, text);
    strcat(changed, "A");
    is_number(rp_seal_open(seal, span(changed), &got), -1, "nor added");
    is_number(rp_seal_open(seal, (rp_span){ text, RP_SEAL_TEXT - 1 }, &got), -1, "nor left out");
    is_number(rp_seal_open(seal, span(""), &got), -1, "nothing is no value");
    what.number++;
    rp_seal_close(seal, &what, other);
    ok(strncmp(text + 7, other + 7, 13) != 0, "what is inside doesn't show");
}

/* ---- what is learnt -------------------------------------------------------------------------- */

static void table(void)
{
    apr_uint64_t id, key, first;
    char name[20];
    int known = 0;

    ok(rp_learned_open(pool) == APR_SUCCESS, "a table");
    first = key = rp_learned_key("app", span("abc"));
    ok(key == rp_learned_key("app", span("abc")) && key != rp_learned_key("app2", span("abc"))
       && key != rp_learned_key("app", span("abd")), "keys of values");
    ok(!rp_learned_find(key, NOW, &id), "not known yet");
    rp_learned_put(key, 0x1111222233334444u, NOW);
    ok(rp_learned_find(key, NOW, &id) && rp_learned_is_same(id, 0x1111222233334444u), "known");
    ok(!rp_learned_is_same(id, 0x1111222333334444u), "another one isn't the same");
    rp_learned_put(key, 0x5555666677778888u, NOW);
    ok(rp_learned_find(key, NOW, &id) && rp_learned_is_same(id, 0x5555666677778888u), "moved");
    for (int i = 0; i < RP_LEARNED_MAX * 4; i++) {
        snprintf(name, sizeof(name), "s%d", i);
        key = rp_learned_key("app", span(name));
        rp_learned_put(key, key << 24, NOW + i * 1000LL);
        /* One that is in use stays. */
        if (i % 10000 == 0)
            known += rp_learned_find(first, NOW + i * 1000LL, &id);
    }
    is_number(known, (RP_LEARNED_MAX * 4 + 9999) / 10000, "what is used isn't forgotten");
    ok(rp_learned_find(key, NOW, &id), "the last one is known");
    ok(!rp_learned_find(rp_learned_key("app", span("s0")), NOW, &id), "the first isn't");
}

/* ---- responses ------------------------------------------------------------------------------- */

/** The next value in lines, from *position on. */
static const char *next_in(const char *lines, const char *name, int *position)
{
    apr_size_t len = strlen(name);

    for (const char *at = lines + *position; *at;) {
        apr_size_t end = strcspn(at, "\n");
        const char *value = NULL;

        if (!strncasecmp(at, name, len) && at[len] == ':')
            value = apr_pstrmemdup(pool, at + len + 2, end - len - 2);
        at += end + (at[end] != '\0');
        *position = (int)(at - lines);
        if (value)
            return value;
    }
    return NULL;
}

static const char *answer_next(const rproxy_answer *answer, const char *name, int *position)
{
    return next_in(*(const char **)answer->fields, name, position);
}

static void answer_add(rproxy_answer *answer, const char *name, const char *value)
{
    const char **lines = answer->fields;

    *lines = apr_pstrcat(pool, *lines, name, ": ", value, "\n", NULL);
}

static const char *request_next(const rproxy_request *request, const char *name, int *position)
{
    return next_in(request->fields, name, position);
}

static const char *request_header(const rproxy_request *request, const char *name)
{
    int position = 0;

    return request_next(request, name, &position);
}

static void storable(void)
{
    static const struct {
        const char *fields;
        int is_shared, is_private;
    } cases[] = {
        { "", 0, 0 },
        { "Cache-Control: public", 1, 0 },
        { "cache-control: no-cache, Max-Age=60", 1, 0 },
        { "Cache-Control: max-age=0", 0, 0 },
        { "Cache-Control: max-age=00, must-revalidate", 0, 0 },
        { "Cache-Control: s-maxage=\"5\"", 1, 0 },
        { "Cache-Control: private, max-age=60", 0, 1 },
        { "Cache-Control: max-age=60\nCache-Control: PRIVATE", 0, 1 },
        { "Cache-Control: private=\"X-Private, X\", max-age=60", 1, 0 },
        { "Cache-Control: x=\"private\", max-age=60", 1, 0 },
        { "Cache-Control: no-store\nExpires: Thu, 01 Jan 2099 00:00:00 GMT", 0, 1 },
        { "Cache-Control: no-cache", 0, 0 },
        { "Expires: Thu, 01 Jan 2099 00:00:00 GMT", 1, 0 },
        { "Expires: Thu, 01 Jan 1970 00:00:01 GMT", 0, 0 },
        { "Expires: 0", 0, 0 },
        { "Cache-Control: private\nSurrogate-Control: max-age=60", 1, 1 },
        { "CDN-Cache-Control: max-age=60, private", 0, 0 },
        { "Cache-Control: ,=,,=\"\\\",max-age=1", 0, 0 },
        { "Cache-Control: max-age=-1", 0, 0 },
        { "Cache-Control: max-age", 0, 0 },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *lines = cases[i].fields;
        rproxy_answer answer = { .status = 200, .fields = (void *)&lines, .next = answer_next,
                                 .add = answer_add };
        int is_private = -1;

        ok(rp_answer_is_shared(&answer, NOW, &is_private) == cases[i].is_shared
           && is_private == cases[i].is_private, "%.*s", (int)strcspn(lines, "\n"), lines);
    }
}

/* ---- requests -------------------------------------------------------------------------------- */

static rproxy_request request_of(const char *fields)
{
    return (rproxy_request){ .pool = pool, .method = "GET", .scheme = "http", .host = "www.example",
                             .path = "/", .client_ip = "192.0.2.1", .fields = fields,
                             .header = request_header, .next = request_next };
}

static rp_balancer *sticky_pool(const char *name, int count, rp_sticky sticky)
{
    rp_balancer *balancer =
        fixture_pool(pool, name, &rp_method_roundrobin, "", count, NULL);

    balancer->sticky = apr_pmemdup(pool, &sticky, sizeof(sticky));
    if (sticky.kind == RP_STICKY_COOKIE) {
        balancer->sticky->attributes = "; Path=/";
        balancer->sticky->seal = rp_seal_make(pool, name, keys_of(KEY_A, NULL));
    }
    for (int i = 0; i < count; i++)
        balancer->more[i].route = apr_psprintf(pool, "r%d", i);
    fixture_start(pool, balancer);
    return balancer;
}

/** What the client gets to see of a response with these fields, by the member that was chosen. */
static const char *answer_with(rproxy_use *use, int status, const char *fields, apr_time_t now)
{
    rproxy_answer answer = { .status = status, .fields = (void *)&fields, .next = answer_next,
                             .add = answer_add };

    rp_sticky_answer(use, &answer, now);
    fixture_release(use, 1, now);
    return fields;
}

static const char *answer_of(rproxy_use *use, const char *fields, apr_time_t now)
{
    return answer_with(use, 200, fields, now);
}

/** The same for a request; *member got it, -1: none. */
static const char *ask(rp_balancer *balancer, const char *request_fields, apr_time_t now,
                       int *member)
{
    rproxy_request request = request_of(request_fields);
    rproxy_use use;

    *member = fixture_choose(balancer, &use, &request, now);
    return *member < 0 ? "" : answer_of(&use, "", now);
}

/** The Cookie field that goes with what was set. */
static const char *cookie_of(const char *fields)
{
    int position = 0;
    const char *set = next_in(fields, "Set-Cookie", &position);

    return set ? apr_pstrcat(pool, "Cookie: a=b; ", apr_pstrmemdup(pool, set, strcspn(set, ";")),
                             NULL) : "";
}

static void own_cookie(void)
{
    rp_balancer *balancer =
        sticky_pool("own", 3, (rp_sticky){ .kind = RP_STICKY_COOKIE, .name = "S", .ttl = 100 });
    const char *fields, *cookie;
    rproxy_request request;
    rproxy_use use;
    int first, again, same = 0;

    cookie = cookie_of(ask(balancer, "", NOW, &first));
    ok(strlen(cookie) > RP_SEAL_TEXT, "a cookie is set");
    for (int i = 0; i < 9; i++) {
        fields = ask(balancer, cookie, NOW, &again);
        same += again == first && !*fields;
    }
    is_number(same, 9, "it leads to the same member, and is not set again");
    request = request_of(apr_pstrcat(pool, cookie, "\nCookie: S=x; c=d", NULL));
    fixture_choose(balancer, &use, &request, NOW);
    is_text(use.cookie, "a=b; c=d", "the member gets the others only");
    is_text(answer_of(&use, "", NOW), "", "a wrong one beside it is no matter");
    ok(*ask(balancer, cookie, NOW + 60 * APR_USEC_PER_SEC, &again) && again == first,
       "after half of its time it is set again");
    ask(balancer, "", NOW, &again);
    fields = ask(balancer, cookie, NOW + 100 * APR_USEC_PER_SEC, &again);
    ok(*fields && again != first, "after all of it it counts no more");
    fields = ask(balancer, "Cookie: S=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", NOW, &again);
    ok(*fields, "nor does one that is made up");
    balancer->more[first].state = RP_MEMBER_DRAIN;
    fixture_changed(balancer);
    fields = ask(balancer, cookie, NOW, &again);
    ok(again == first && !*fields, "a drained member keeps it");
    ask(balancer, "", NOW, &again);
    ask(balancer, "", NOW, &same);
    ok(again != first && same != first, "and gets no new ones");
    balancer->more[first].state = RP_MEMBER_DOWN;
    fixture_changed(balancer);
    fields = ask(balancer, cookie, NOW, &again);
    ok(again != first && *cookie_of(fields), "when it is down another takes over");
    balancer->sticky->down = RP_DOWN_TEMPORARY;
    fields = ask(balancer, cookie, NOW, &again);
    ok(again >= 0 && again != first && !*fields, "for a while: the cookie stays");
    balancer->sticky->down = RP_DOWN_FAIL;
    ask(balancer, cookie, NOW, &again);
    is_number(again, -1, "or none");
}

static void attempts(void)
{
    rp_balancer *balancer =
        sticky_pool("attempts", 3, (rp_sticky){ .kind = RP_STICKY_COOKIE, .name = "S" });
    rproxy_result idle = { .failed = 1, .was_idle = 1, .connect = -1, .first_byte = -1 };
    rproxy_target *target;
    rproxy_request request;
    rproxy_use use;
    const char *cookie;
    int first, again;

    cookie = cookie_of(ask(balancer, "", NOW, &first));
    request = request_of(cookie);
    fixture_choose(balancer, &use, &request, NOW);
    rp_balancer_release(&use, &idle, NOW);
    rp_balancer_choose(&use, NOW, &target);
    is_number(use.member, first, "an idle connection that was closed moves no session");
    fixture_fail(&use, NOW);
    rp_balancer_choose(&use, NOW, &target);
    ok(use.member != first, "a failure does");
    ok(*answer_of(&use, "", NOW), "and the cookie follows");
    fixture_member(balancer, first)->max = 1;
    fixture_changed(balancer);
    fixture_choose(balancer, &use, &request, NOW);
    is_number(use.member, first, "a place is taken");
    ok(!*ask(balancer, cookie, NOW, &again) && again != first,
       "while the member is full another serves, and the cookie stays");
    balancer->sticky->down = RP_DOWN_FAIL;
    ask(balancer, cookie, NOW, &again);
    is_number(again, -1, "or none");
    is_text(answer_of(&use, "Cache-Control: public\n", NOW), "Cache-Control: public\n", "nothing");
}

static void shared_answers(void)
{
    rp_balancer *balancer =
        sticky_pool("shared", 2, (rp_sticky){ .kind = RP_STICKY_COOKIE, .name = "S",
                                              .secure = RP_SECURE_AUTO });
    rproxy_request request = request_of("");
    rproxy_use use;
    const char *fields;

    fixture_choose(balancer, &use, &request, NOW);
    is_text(answer_of(&use, "Cache-Control: max-age=9\n", NOW), "Cache-Control: max-age=9\n",
            "no cookie in what many clients may get");
    fixture_choose(balancer, &use, &request, NOW);
    fields = answer_of(&use, "Cache-Control: no-store\n", NOW);
    ok(*cookie_of(fields) && !strstr(fields, "private"), "one where nobody may store it");
    fixture_choose(balancer, &use, &request, NOW);
    is_text(answer_with(&use, 304, "", NOW), "", "none in a 304, which goes into stored responses");
    request.scheme = "https";
    fixture_choose(balancer, &use, &request, NOW);
    fields = answer_of(&use, "", NOW);
    ok(strstr(fields, "; Path=/; Secure\n") && strstr(fields, "Cache-Control: private\n"),
       "else it is made private; and over TLS Secure");
}

static void routes(void)
{
    rp_balancer *balancer = sticky_pool("routes", 9, (rp_sticky){ .kind = RP_STICKY_ROUTE,
                                                     .name = "JSESSIONID", .param = "jsessionid" });
    static const struct {
        const char *path, *query, *fields;
        int member;
    } cases[] = {
        { "/", NULL, "Cookie: JSESSIONID=abc.r4", 4 },
        { "/", NULL, "Cookie: JSESSIONID=abc.r9; JSESSIONID=def.r5", 5 },
        { "/", NULL, "Cookie: a=b\nCookie: JSESSIONID=x.r6", 6 },
        { "/a;jsessionid=0.r7", NULL, "", 7 },
        { "/a;x=y;jsessionid=0.r7;z/b", NULL, "Cookie: JSESSIONID=abc.r4", 7 },
        { "/a", "x=1&jsessionid=a.r8&y", "", 8 },
        { "/a;xjsessionid=0.r7;jsessionid", NULL, "Cookie: JSESSIONID=abc.r4", 4 },
    };
    rproxy_use use;
    int known = 0;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rproxy_request request = request_of(cases[i].fields);

        request.path = cases[i].path;
        request.query = cases[i].query;
        is_number(fixture_choose(balancer, &use, &request, NOW), cases[i].member, cases[i].path);
        known += ((rp_session *)use.session)->route != NULL;
        is_text(answer_of(&use, "", NOW), "", "nothing is added");
    }
    is_number(known, (int)(sizeof(cases) / sizeof(cases[0])), "all have routes");
}

static void learning(void)
{
    rp_balancer *balancer =
        sticky_pool("learning", 5, (rp_sticky){ .kind = RP_STICKY_LEARN, .name = "sid" });
    rproxy_request request = request_of("");
    rproxy_use use;
    int first, again, unknown, same = 0;

    first = fixture_choose(balancer, &use, &request, NOW);
    answer_of(&use, "Set-Cookie: a=b\nSet-Cookie: sid=one; Path=/\n", NOW);
    ask(balancer, "Cookie: sid=two", NOW, &unknown);
    for (int i = 0; i < 5; i++) {
        ask(balancer, "Cookie: sid=one", NOW, &again);
        same += again == first;
        ask(balancer, "Cookie: sid=two", NOW, &again);
        same += again == unknown;
    }
    is_number(same, 10, "one that was learnt, and one that wasn't, keep their members");
    balancer->more[first].state = RP_MEMBER_DOWN;
    fixture_changed(balancer);
    ask(balancer, "Cookie: sid=one", NOW, &again);
    balancer->more[first].state = RP_MEMBER_UP;
    fixture_changed(balancer);
    ask(balancer, "Cookie: sid=one", NOW, &unknown);
    ok(again != first && unknown == again, "it moves for good");
}

static void hashed(void)
{
    static const int weights[] = { 3, 1 };
    rp_balancer *balancer =
        sticky_pool("hashed", 10, (rp_sticky){ .kind = RP_STICKY_HEADER, .name = "X-User" });
    int before[1000], moved = 0, away = 0, first = 0, member;

    for (int i = 0; i < 1000; i++)
        ask(balancer, apr_psprintf(pool, "X-User: u%d", i), NOW, &before[i]);
    balancer->more[3].state = RP_MEMBER_DRAIN;
    fixture_changed(balancer);
    for (int i = 0; i < 1000; i++) {
        ask(balancer, apr_psprintf(pool, "X-User: u%d", i), NOW, &member);
        moved += member != before[i];
        away += before[i] == 3;
    }
    ok(moved == away && away > 60 && away < 150, "only those of the one that left move (%d)",
       moved);
    balancer = fixture_pool(pool, "weights", &rp_method_roundrobin, "", 2, weights);
    balancer->sticky = apr_pmemdup(pool, &(rp_sticky){ .kind = RP_STICKY_HEADER, .name = "X-User" },
                                   sizeof(rp_sticky));
    fixture_start(pool, balancer);
    for (int i = 0; i < 1000; i++) {
        ask(balancer, apr_psprintf(pool, "X-User: u%d", i), NOW, &member);
        first += member == 0;
    }
    ok(first > 700 && first < 800, "weights are shares (%d)", first);
}

int main(void)
{
    pool = tap_pool();
    cookies();
    seals();
    table();
    storable();
    own_cookie();
    attempts();
    shared_answers();
    routes();
    learning();
    hashed();
    return tap_done();
}
