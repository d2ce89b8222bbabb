/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What c-ares now calls by other names is there in all of its versions. */
#define CARES_NO_DEPRECATED
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <apr_strings.h>
#include <ares.h>
#include "httpd.h"

#include "balancer/rp_dns.h"

#define STEP (50 * 1000)                /* looks for timeouts, while queries are under way */

/** Of the child that leads. */
typedef struct channel {
    struct channel *next;
    rp_keeper *keeper;
    char *servers;                      /* "": those of the system */
    ares_channel ares;
    rp_keeper_timer timer;
    int asking;
} channel;

static channel *channels;

struct rp_dns_query {
    rp_keeper_timer timer;              /* tells, when the answer is there */
    channel *channel;
    rp_dns_ended *ended;                /* one of these; neither: cancelled */
    rp_dns_found *found;
    void *baton;
    int is_asking;                      /* c-ares still has it */
    rp_dns_address addresses[RP_DNS_ADDRESSES_MAX];
    rp_dns_record *records;             /* malloc'ed */
    rp_dns_answer answer;
};

/* ---- channels -------------------------------------------------------------------------------- */

static void ready(rp_keeper *keeper, int fd, int events, void *baton)
{
    channel *c = baton;

    (void)keeper;
    ares_process_fd(c->ares, events & RP_KEEPER_READ ? fd : ARES_SOCKET_BAD,
                    events & RP_KEEPER_WRITE ? fd : ARES_SOCKET_BAD);
}

/** c-ares tells which of its sockets wants what. */
static void socket_changed(void *baton, ares_socket_t fd, int readable, int writable)
{
    int events = (readable ? RP_KEEPER_READ : 0) | (writable ? RP_KEEPER_WRITE : 0);
    channel *c = baton;

    if (!events)
        rp_keeper_unwatch(c->keeper, fd);
    else
        rp_keeper_watch(c->keeper, fd, events, ready, c);
}

static void look_for_timeouts(rp_keeper *keeper, void *baton)
{
    channel *c = baton;

    ares_process_fd(c->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    if (c->asking)
        rp_keeper_at(keeper, &c->timer, rp_keeper_now(keeper) + STEP, look_for_timeouts, c);
}

static apr_status_t close_channel(void *data)
{
    channel *c = data, **at = &channels;

    rp_keeper_cancel(c->keeper, &c->timer);
    /* Ends all queries: nobody waits for them any more. */
    ares_destroy(c->ares);
    ares_library_cleanup();
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    free(c->servers);
    free(c);
    return APR_SUCCESS;
}

const rproxy_resolver *rp_dns_resolver(const rp_keeper *keeper)
{
    APR_OPTIONAL_FN_TYPE(rproxy_resolver_get) *get = APR_RETRIEVE_OPTIONAL_FN(rproxy_resolver_get);

    return get(rp_keeper_server(keeper));
}

/** Two tries, the second twice as long, that fill the time of one lookup. */
static int start_ares(channel *c)
{
    struct ares_options options = {
        .timeout = (int)(apr_time_as_msec(rp_dns_resolver(c->keeper)->timeout) / 3) + 1,
        .tries = 2, .sock_state_cb = socket_changed, .sock_state_cb_data = c
    };

    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
        return 0;
    if (ares_init_options(&c->ares, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES
                                                  | ARES_OPT_SOCK_STATE_CB) != ARES_SUCCESS) {
        ares_library_cleanup();
        return 0;
    }
    if (!*c->servers || ares_set_servers_ports_csv(c->ares, c->servers) == ARES_SUCCESS)
        return 1;
    ares_destroy(c->ares);
    ares_library_cleanup();
    return 0;
}

/** NULL: there is no memory, or c-ares doesn't want to. */
static channel *channel_for(rp_keeper *keeper, const char *servers)
{
    channel *c = channels;

    while (c && strcmp(c->servers, servers) != 0)
        c = c->next;
    if (c || !(c = calloc(1, sizeof(*c))))
        return c;
    c->keeper = keeper;
    c->servers = strdup(servers);
    if (!c->servers || !start_ares(c)) {
        free(c->servers);
        free(c);
        return NULL;
    }
    c->next = channels;
    channels = c;
    apr_pool_cleanup_register(rp_keeper_pool(keeper), c, close_channel, apr_pool_cleanup_null);
    return c;
}

/* ---- queries --------------------------------------------------------------------------------- */

static void free_query(rp_dns_query *query)
{
    free(query->records);
    free(query);
}

static void tell(rp_keeper *keeper, void *baton)
{
    rp_dns_query *query = baton;

    (void)keeper;
    query->answer.records = query->records;
    if (query->ended)
        query->ended(query->baton, query->addresses, query->answer.count, query->answer.cause);
    else
        query->found(query->baton, &query->answer);
    free_query(query);
}

static rp_dns_query *begin(rp_keeper *keeper, const char *servers)
{
    const char *usual = servers ? servers : rp_dns_resolver(keeper)->servers;
    channel *c = channel_for(keeper, usual ? usual : "");
    rp_dns_query *query = c ? calloc(1, sizeof(*query)) : NULL;

    if (!query)
        return NULL;
    query->channel = c;
    query->is_asking = 1;
    c->asking++;
    return query;
}

static rp_dns_query *started(rp_dns_query *query)
{
    channel *c = query->channel;

    if (c->asking)
        rp_keeper_at(c->keeper, &c->timer, rp_keeper_now(c->keeper) + STEP, look_for_timeouts, c);
    return query;
}

static void has_ended(rp_dns_query *query, int status)
{
    channel *c = query->channel;

    c->asking--;
    query->is_asking = 0;
    query->answer.is_absent = status == ARES_SUCCESS || status == ARES_ENODATA
        || status == ARES_ENOTFOUND;
    query->answer.cause = ares_strerror(status == ARES_SUCCESS ? ARES_ENODATA : status);
    if (!query->ended && !query->found)
        free_query(query);
    else
        rp_keeper_at(c->keeper, &query->timer, rp_keeper_now(c->keeper), tell, query);
}

void rp_dns_cancel(rp_dns_query *query)
{
    query->ended = NULL;
    query->found = NULL;
    if (query->is_asking)
        return;
    rp_keeper_cancel(query->channel->keeper, &query->timer);
    free_query(query);
}

/* ---- addresses ------------------------------------------------------------------------------- */

static void take_addresses(rp_dns_query *query, const struct ares_addrinfo *answer)
{
    for (const struct ares_addrinfo_node *node = answer->nodes;
         node && query->answer.count < RP_DNS_ADDRESSES_MAX; node = node->ai_next) {
        rp_dns_address *address = &query->addresses[query->answer.count];

        if ((node->ai_family != AF_INET && node->ai_family != AF_INET6)
            || node->ai_addrlen > sizeof(address->at))
            continue;
        memcpy(&address->at, node->ai_addr, node->ai_addrlen);
        address->len = node->ai_addrlen;
        query->answer.count++;
    }
}

/** Room for one more record; NULL: there is none. */
static rp_dns_record *add_record(rp_dns_query *query, int ttl)
{
    rp_dns_answer *answer = &query->answer;

    if (!query->records)
        query->records = calloc(RP_DNS_RECORDS_MAX, sizeof(*query->records));
    if (!query->records || answer->count == RP_DNS_RECORDS_MAX)
        return NULL;
    if (!answer->count || ttl < answer->ttl)
        answer->ttl = ttl;
    return &query->records[answer->count++];
}

static void take_records(rp_dns_query *query, const struct ares_addrinfo *answer)
{
    for (const struct ares_addrinfo_node *node = answer->nodes; node; node = node->ai_next) {
        const void *bytes = node->ai_family == AF_INET
            ? (const void *)&((struct sockaddr_in *)(void *)node->ai_addr)->sin_addr
            : (const void *)&((struct sockaddr_in6 *)(void *)node->ai_addr)->sin6_addr;
        rp_dns_record *record = add_record(query, node->ai_ttl);

        if (record)
            inet_ntop(node->ai_family, bytes, record->text, sizeof(record->text));
    }
}

static void answered(void *baton, int status, int timeouts, struct ares_addrinfo *answer)
{
    rp_dns_query *query = baton;

    (void)timeouts;
    if (status == ARES_SUCCESS && answer && query->ended)
        take_addresses(query, answer);
    else if (status == ARES_SUCCESS && answer)
        take_records(query, answer);
    if (answer)
        ares_freeaddrinfo(answer);
    has_ended(query, status);
}

rp_dns_query *rp_dns_addresses(rp_keeper *keeper, const char *host, int port, rp_dns_ended *ended,
                               void *baton)
{
    struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM,
                                         .ai_flags = ARES_AI_NUMERICSERV };
    rp_dns_query *query = begin(keeper, NULL);
    char service[12];

    if (!query)
        return NULL;
    query->ended = ended;
    query->baton = baton;
    apr_snprintf(service, sizeof(service), "%d", port);
    ares_getaddrinfo(query->channel->ares, host, service, &hints, answered, query);
    return started(query);
}

/* ---- services -------------------------------------------------------------------------------- */

/** Behind the name at at; NULL: it isn't one. */
static const unsigned char *behind_name(const unsigned char *at, const unsigned char *end)
{
    while (at < end && *at && (*at & 0xc0) != 0xc0)
        at += 1 + *at;
    if (at >= end)
        return NULL;
    at += *at ? 2 : 1;
    return at <= end ? at : NULL;
}

/** The shortest TTL of an answer's records; 0: it can't be told. RFC 1035 section 4.1. */
static int shortest_ttl(const unsigned char *bytes, int len)
{
    const unsigned char *end = bytes + len, *at = bytes + 12;
    unsigned int least = INT_MAX, left;

    if (len < 12 || !(at = behind_name(at, end)) || end - at < 4)
        return 0;
    at += 4;
    for (left = (unsigned)bytes[6] << 8 | bytes[7]; left; left--) {
        unsigned int ttl, size;

        if (!(at = behind_name(at, end)) || end - at < 10)
            return 0;
        ttl = (unsigned)at[4] << 24 | (unsigned)at[5] << 16 | (unsigned)at[6] << 8 | at[7];
        size = (unsigned)at[8] << 8 | at[9];
        if (end - at - 10 < (int)size)
            return 0;
        if (ttl < least)
            least = ttl;
        at += 10 + size;
    }
    return (int)least;
}

static void service_answered(void *baton, int status, int timeouts, unsigned char *bytes, int len)
{
    rp_dns_query *query = baton;
    struct ares_srv_reply *reply = NULL;

    (void)timeouts;
    if (status == ARES_SUCCESS)
        status = ares_parse_srv_reply(bytes, len, &reply);
    for (const struct ares_srv_reply *at = reply; at; at = at->next) {
        /* A host of "." says that there is no such service. */
        rp_dns_record *record = *at->host && strlen(at->host) < sizeof(record->text)
            ? add_record(query, shortest_ttl(bytes, len)) : NULL;

        if (!record)
            continue;
        apr_cpystrn(record->text, at->host, sizeof(record->text));
        record->port = at->port;
        record->priority = at->priority;
        record->weight = at->weight;
    }
    if (reply)
        ares_free_data(reply);
    has_ended(query, status);
}

rp_dns_query *rp_dns_find(rp_keeper *keeper, const char *servers, const char *name,
                          rp_dns_type type, rp_dns_found *found, void *baton)
{
    struct ares_addrinfo_hints hints = { .ai_family = type == RP_DNS_A ? AF_INET : AF_INET6,
                                         .ai_socktype = SOCK_STREAM };
    rp_dns_query *query = begin(keeper, servers);

    if (!query)
        return NULL;
    query->found = found;
    query->baton = baton;
    if (type == RP_DNS_SRV)
        ares_query(query->channel->ares, name, ns_c_in, ns_t_srv, service_answered, query);
    else
        ares_getaddrinfo(query->channel->ares, name, NULL, &hints, answered, query);
    return started(query);
}
