/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Which member a request belongs to, and how its client comes to say so. */
#include <math.h>
#include <string.h>
#include <apr_strings.h>

#include "balancer/rp_learned.h"
#include "balancer/rp_mix.h"
#include "balancer/rp_sticky.h"

#define VALUES_MOST 4                   /* cookies of one name that are looked at */
#define COOKIE_MOST 4096                /* bytes of a cookie's value that is learnt */

/* ---- members --------------------------------------------------------------------------------- */

/** What a member is known by outside of this server's memory, for as long as its URL stays. */
static apr_uint64_t id_of(const rp_slot *slot)
{
    apr_uint64_t id;

    memcpy(&id, slot->identity, sizeof(id));
    return id;
}

/** Of the attempt under way. */
static apr_uint64_t id_of_chosen(const rproxy_use *use)
{
    return id_of(((const rp_holding *)use->data)->origin->slot);
}

static int find_sealed(const rp_table *table, const rp_sealed *sealed)
{
    if (sealed->number < table->count && id_of(table->more[sealed->number].slot) == sealed->id)
        return sealed->number;
    for (int i = 0; i < table->count; i++) {
        if (id_of(table->more[i].slot) == sealed->id)
            return i;
    }
    return -1;
}

static int find_learned(const rp_table *table, apr_uint64_t id)
{
    for (int i = 0; i < table->count; i++) {
        if (rp_learned_is_same(id_of(table->more[i].slot), id))
            return i;
    }
    return -1;
}

static int find_route(const rp_table *table, rp_span route)
{
    for (int i = 0; i < table->count; i++) {
        const char *its = table->more[i].route;

        if (its && !strncmp(its, route.at, route.len) && !its[route.len])
            return i;
    }
    return -1;
}

/** How far a member is from a key: the nearest one serves it. Of two members the one that is nearer
 * stays so whoever else comes or goes, and weights are the chances to be nearest. */
static double distance(const rproxy_member *member, apr_uint64_t id, apr_uint64_t key)
{
    double chance = ((double)(rp_mix(id ^ key) >> 11) + 0.5) * 0x1.0p-53;

    return -log(chance) / member->weight;
}

/** The member for a key, of those that can be had now. -1: none. */
static int find_hashed(const rp_balancer *balancer, const rp_table *table,
                       const rproxy_use *use, apr_uint64_t key, apr_time_t now)
{
    double least = 0;
    int best = -1;

    for (int i = 0; i < table->count; i++) {
        const rproxy_member *public = &table->members[i];
        const rp_member *member = &table->more[i];
        apr_time_t until = 0;
        double its;

        if (rp_member_state(balancer, member) != RP_MEMBER_UP
            || !rp_member_is_usable(member->slot, now, &until)
            || (best >= 0 && member->rank > table->more[best].rank)
            || rp_member_is_at_max(table, i)
            || rp_has_tried(use, i))
            continue;
        its = distance(public, id_of(table->more[i].slot), key);
        if (best < 0 || member->rank < table->more[best].rank || its < least) {
            best = i;
            least = its;
        }
    }
    return best;
}

/* ---- what the request says ------------------------------------------------------------------- */

/** Calls back for each cookie with the name, until that returns nonzero. */
typedef int seen_cookie(void *baton, rp_span value);

static void each_cookie(const rproxy_request *request, const char *name, seen_cookie *seen,
                        void *baton)
{
    const char *field;
    int position = 0, count = 0;

    while ((field = request->next(request, "Cookie", &position))) {
        rp_span value;

        while (rp_cookie_next(&field, name, &value)) {
            if (seen(baton, value) || ++count == VALUES_MOST)
                return;
        }
    }
}

typedef struct reading {
    const rp_balancer *balancer;
    const rp_table *table;
    rproxy_use *use;
    rp_session *session;
    apr_time_t now;
    int has_cookie;
} reading;

/** The Cookie field without our own, which is nobody else's business. */
static const char *cookies_of_others(const rproxy_request *request, const char *name)
{
    const char *all = NULL, *field;
    int position = 0;

    while ((field = request->next(request, "Cookie", &position))) {
        const char *others = rp_cookie_without(request->pool, field, name);

        if (*others)
            all = all ? apr_pstrcat(request->pool, all, "; ", others, NULL) : others;
    }
    return all ? all : "";
}

static int read_sealed(void *baton, rp_span value)
{
    reading *read = baton;
    const rp_sticky *sticky = read->balancer->sticky;
    apr_int64_t now = apr_time_sec(read->now), left;
    rp_sealed sealed;
    int key;

    read->has_cookie = 1;
    if ((key = rp_seal_open(sticky->seal, value, &sealed)) < 0)
        return 0;
    left = sealed.expires ? (apr_int64_t)sealed.expires - now : APR_INT64_MAX;
    if (left <= 0)
        return 0;
    read->session->member = find_sealed(read->table, &sealed);
    read->session->is_stale = key > 0 || !sealed.expires != !sticky->ttl
        || (sticky->ttl && left < sticky->ttl / 2);
    return read->session->member >= 0;
}

/** Whatever is behind the first '.' is a route, as with mod_proxy. */
static int read_route(void *baton, rp_span value)
{
    reading *read = baton;
    const char *dot = memchr(value.at, '.', value.len);
    rp_span route = { dot ? dot + 1 : "", 0 };

    if (!dot || !(route.len = value.len - (apr_size_t)(route.at - value.at)))
        return 0;
    read->session->member = find_route(read->table, route);
    if (!read->session->route || read->session->member >= 0)
        read->session->route = apr_pstrmemdup(read->use->request->pool, route.at, route.len);
    return read->session->member >= 0;
}

static int read_learned(void *baton, rp_span value)
{
    reading *read = baton;
    rp_session *session = read->session;
    apr_uint64_t key, id;

    if (!value.len || value.len > COOKIE_MOST)
        return 0;
    key = rp_learned_key(read->balancer->name, value);
    if (!session->learned)
        session->learned = key;
    if (!rp_learned_find(key, read->now, &id)
        || (session->member = find_learned(read->table, id)) < 0)
        return 0;
    session->learned = key;
    session->is_known = 1;
    return 1;
}

/** The value of name= in text, where it stands behind one of before and ends with one of ends. */
static int find_param(const char *text, const char *before, const char *ends, const char *name,
                      rp_span *value)
{
    apr_size_t len = strlen(name);

    for (const char *at = strstr(text, name); at; at = strstr(at + 1, name)) {
        if (at[len] != '=' || (at > text && !strchr(before, at[-1])))
            continue;
        value->at = at + len + 1;
        value->len = strcspn(value->at, ends);
        return value->len != 0;
    }
    return 0;
}

static void find_by_route(reading *read)
{
    const rproxy_request *request = read->use->request;
    const rp_sticky *sticky = read->balancer->sticky;
    rp_span value;

    read->session->by = sticky->param;
    /* A path begins with '/', so its parameters never stand at the beginning. */
    if (find_param(request->path, ";", ";/", sticky->param, &value) && read_route(read, value))
        return;
    if (request->query && find_param(request->query, "&;", "&;", sticky->param, &value)
        && read_route(read, value))
        return;
    read->session->by = sticky->name;
    each_cookie(request, sticky->name, read_route, read);
}

static void find_by_hash(reading *read, const char *text)
{
    if (text)
        read->session->member =
            find_hashed(read->balancer, read->table, read->use, rp_hash_text(text), read->now);
}

static void find_session(reading *read)
{
    const rproxy_request *request = read->use->request;
    const rp_sticky *sticky = read->balancer->sticky;

    switch (sticky->kind) {
    case RP_STICKY_COOKIE:
        each_cookie(request, sticky->name, read_sealed, read);
        if (read->has_cookie)
            read->use->cookie = cookies_of_others(request, sticky->name);
        break;
    case RP_STICKY_ROUTE:
        find_by_route(read);
        break;
    case RP_STICKY_LEARN:
        each_cookie(request, sticky->name, read_learned, read);
        /* Forgotten, or of before a restart: then all of its requests go to the same one again. */
        if (read->session->learned && !read->session->is_known)
            read->session->member = find_hashed(read->balancer, read->table, read->use,
                                                read->session->learned, read->now);
        break;
    case RP_STICKY_HEADER:
        find_by_hash(read, request->header(request, sticky->name));
        break;
    case RP_STICKY_IP:
        find_by_hash(read, request->client_ip);
        break;
    }
}

rp_session *rp_sticky_session(const rp_balancer *balancer, const rp_table *table,
                              rproxy_use *use, apr_time_t now)
{
    const rp_sticky *sticky = balancer->sticky;
    reading read = { .balancer = balancer, .table = table, .use = use, .now = now };
    rp_session *session = use->session;

    if (!sticky)
        return NULL;
    if (session && rp_session_is_bound(sticky, session))
        return session;
    /* What is hashed may mean another member with each attempt. */
    if (!session)
        session = apr_palloc(use->request->pool, sizeof(*session));
    *session = (rp_session){ .member = -1, .by = sticky->name };
    use->session = read.session = session;
    find_session(&read);
    return session;
}

/* ---- what the client is told ----------------------------------------------------------------- */

static void set_cookie(rproxy_use *use, rproxy_answer *answer, apr_time_t now)
{
    const rp_balancer *balancer = use->pool;
    const rp_sticky *sticky = balancer->sticky;
    rp_sealed sealed = { .id = id_of_chosen(use), .number = use->member };
    int is_private, is_secure;
    char text[RP_SEAL_TEXT + 1];

    /* 304 changes what caches have stored: nothing of one client may come into that. */
    if (answer->status == HTTP_NOT_MODIFIED || rp_answer_is_shared(answer, now, &is_private))
        return;
    if (sticky->ttl)
        sealed.expires = (apr_uint32_t)(apr_time_sec(now) + sticky->ttl);
    rp_seal_close(sticky->seal, &sealed, text);
    is_secure = sticky->secure == RP_SECURE_ON
        || (sticky->secure == RP_SECURE_AUTO && !strcmp(use->request->scheme, "https"));
    answer->add(answer, "Set-Cookie", apr_pstrcat(use->request->pool, sticky->name, "=", text,
                                                  sticky->attributes, is_secure ? "; Secure" : NULL,
                                                  NULL));
    /* Without a word on it a cache might store what is one client's only. */
    if (!is_private)
        answer->add(answer, "Cache-Control", "private");
}

/** Whether the session is now on the member that answers. */
static int moves(const rp_session *session, const rproxy_use *use, const rp_sticky *sticky)
{
    return session->member != use->member
        && (session->member < 0 || (sticky->down == RP_DOWN_REPIN && !session->was_busy));
}

static void learn(const rproxy_use *use, const rproxy_answer *answer, apr_time_t now)
{
    const rp_balancer *balancer = use->pool;
    const rp_session *session = use->session;
    apr_uint64_t id = id_of_chosen(use);
    const char *field;
    int position = 0;

    if (session->is_known && moves(session, use, balancer->sticky))
        rp_learned_put(session->learned, id, now);
    while ((field = answer->next(answer, "Set-Cookie", &position))) {
        rp_span value;

        if (rp_cookie_is_set(field, balancer->sticky->name, &value) && value.len
            && value.len <= COOKIE_MOST)
            rp_learned_put(rp_learned_key(balancer->name, value), id, now);
    }
}

void rp_sticky_answer(rproxy_use *use, rproxy_answer *answer, apr_time_t now)
{
    const rp_balancer *balancer = use->pool;
    const rp_sticky *sticky = balancer->sticky;
    const rp_session *session = use->session;

    if (!sticky || !session)
        return;
    if (sticky->kind == RP_STICKY_LEARN)
        learn(use, answer, now);
    else if (sticky->kind == RP_STICKY_COOKIE
             && (moves(session, use, sticky)
                 || (session->member == use->member && session->is_stale)))
        set_cookie(use, answer, now);
}

void rp_sticky_variables(const rproxy_use *use, apr_pool_t *pool, apr_table_t *env)
{
    const rp_balancer *balancer = use->pool;
    const rp_session *session = use->session;

    apr_table_setn(env, "BALANCER_NAME", apr_pstrcat(pool, "balancer://", balancer->name, NULL));
    apr_table_setn(env, "BALANCER_WORKER_NAME", use->name);
    if (use->route)
        apr_table_setn(env, "BALANCER_WORKER_ROUTE", apr_pstrdup(pool, use->route));
    if (!session)
        return;
    if (session->route)
        apr_table_setn(env, "BALANCER_SESSION_ROUTE", apr_pstrdup(pool, session->route));
    if (session->by && (session->member >= 0 || session->route))
        apr_table_setn(env, "BALANCER_SESSION_STICKY", session->by);
    if (session->member != use->member)
        apr_table_setn(env, "BALANCER_ROUTE_CHANGED", "1");
}
