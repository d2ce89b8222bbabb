/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The same member for the same key of a request. */
#include <stdlib.h>
#include <strings.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "balancer/rp_hash.h"
#include "balancer/rp_mix.h"

typedef enum key_kind { KEY_IP, KEY_URI, KEY_PATH, KEY_HEADER, KEY_COOKIE, KEY_ARG } key_kind;

typedef struct hash_config {
    key_kind kind;
    const char *name;                   /* of the header, cookie or argument */
    apr_size_t name_len;
    double bounded;                     /* of the average load; 0: not bounded */
    int is_maglev;
} hash_config;

/** One of these, of all members. */
typedef struct table {
    rp_ring *ring;
    rp_maglev *maglev;
} table;

/* ---- configuration --------------------------------------------------------------------------- */

static const struct {
    const char *text;
    key_kind kind;
    int has_name;
} kinds[] = {
    { "ip", KEY_IP, 0 }, { "uri", KEY_URI, 0 }, { "path", KEY_PATH, 0 },
    { "header:", KEY_HEADER, 1 }, { "cookie:", KEY_COOKIE, 1 }, { "arg:", KEY_ARG, 1 },
};

static const char *parse_kind(apr_pool_t *pool, const char *word, hash_config *config)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        apr_size_t len = strlen(kinds[i].text);

        if (strncasecmp(word, kinds[i].text, len) != 0 || (word[len] != '\0') != kinds[i].has_name
            || strpbrk(word + len, " \t;,=&?\""))
            continue;
        config->kind = kinds[i].kind;
        config->name = word + len;
        config->name_len = strlen(config->name);
        return NULL;
    }
    return apr_psprintf(pool, "\"%s\" is no key; write ip, uri, path, header:NAME, cookie:NAME or "
                        "arg:NAME", word);
}

static const char *parse_bounded(apr_pool_t *pool, const char *word, hash_config *config)
{
    const char *text = word + strlen("bounded=");
    char *end;

    if (config->bounded != 0)
        return "bounded= stands twice; keep one";
    config->bounded = strtod(text, &end);
    if (!apr_isdigit(*text) || *end || config->bounded < 1.01 || config->bounded > 100)
        return apr_psprintf(pool, "\"%s\": write how much above the average a member's load may "
                            "be, 1.01 to 100, as in bounded=1.25", word);
    return NULL;
}

static const char *configure(apr_pool_t *pool, const apr_array_header_t *words, void **made)
{
    hash_config *config = apr_pcalloc(pool, sizeof(*config));
    const char *message;

    if (!words->nelts)
        return "it needs a key: ip, uri, path, header:NAME, cookie:NAME or arg:NAME";
    message = parse_kind(pool, APR_ARRAY_IDX(words, 0, const char *), config);
    for (int i = 1; i < words->nelts && !message; i++) {
        const char *word = APR_ARRAY_IDX(words, i, const char *);

        if (!strncasecmp(word, "bounded=", 8))
            message = parse_bounded(pool, word, config);
        else if (strcasecmp(word, "maglev") != 0)
            message = apr_psprintf(pool, "\"%s\" is unknown; behind the key there may be bounded= "
                                   "and maglev", word);
        else if (config->is_maglev)
            message = "maglev stands twice; keep one";
        else
            config->is_maglev = 1;
    }
    *made = config;
    return message;
}

static void *prepare(const void *config, const rproxy_member *members, int count)
{
    table *made = calloc(1, sizeof(*made));

    if (made && ((const hash_config *)config)->is_maglev)
        made->maglev = rp_maglev_make(members, count);
    else if (made)
        made->ring = rp_ring_make(members, count);
    if (made && !made->maglev && !made->ring) {
        free(made);
        return NULL;
    }
    return made;
}

static void discard(void *prepared)
{
    table *made = prepared;

    if (made->maglev)
        rp_maglev_free(made->maglev);
    if (made->ring)
        rp_ring_free(made->ring);
    free(made);
}

/* ---- keys ------------------------------------------------------------------------------------ */

/** The value behind NAME= in a list of such; separators are of one kind. */
static const char *value_in(const char *list, const hash_config *config, char separator,
                            apr_size_t *len)
{
    while (list && *list) {
        const char *end;

        while (*list == ' ' || *list == separator)
            list++;
        end = strchr(list, separator);
        if (!strncmp(list, config->name, config->name_len) && list[config->name_len] == '=') {
            list += config->name_len + 1;
            *len = end ? (apr_size_t)(end - list) : strlen(list);
            return list;
        }
        list = end;
    }
    return NULL;
}

/** The request's key. One that has none gets any. */
static apr_uint64_t key_of(const rproxy_choice *choice, const hash_config *config)
{
    const rproxy_request *request = choice->request;
    apr_size_t len = 0;
    const char *text = NULL;

    switch (config->kind) {
    case KEY_IP:
        text = request->client_ip;
        break;
    case KEY_PATH:
    case KEY_URI:
        text = request->path;
        break;
    case KEY_HEADER:
        text = request->header(request, config->name);
        break;
    case KEY_COOKIE:
        text = value_in(request->header(request, "Cookie"), config, ';', &len);
        break;
    case KEY_ARG:
        text = value_in(request->query, config, '&', &len);
        break;
    }
    if (text && config->kind != KEY_COOKIE && config->kind != KEY_ARG)
        len = strlen(text);
    if (!text || !len)
        return rp_mix(choice->turn);
    if (config->kind == KEY_URI && request->query)
        return rp_mix(rp_hash_bytes(text, len) ^ rp_hash_text(request->query));
    return rp_hash_bytes(text, len);
}

/* ---- members --------------------------------------------------------------------------------- */

typedef struct seeking {
    const rproxy_choice *choice;
    double per_weight;                  /* requests that a member may have; 0: no bound */
} seeking;

static int bound_of(const seeking *seek, int number)
{
    const rproxy_set *set = seek->choice->set;
    double bound = seek->per_weight * set->weights[set->places[number]];
    int rounded = (int)bound;

    return rounded + (rounded < bound);
}

static int takes(const void *baton, int number)
{
    const seeking *seek = baton;
    const rproxy_set *set = seek->choice->set;

    if (set->places[number] < 0 || !rproxy_choice_takes(seek->choice, number))
        return 0;
    return seek->per_weight == 0
        || atomic_load_explicit(&set->members[number].shared->in_flight, memory_order_relaxed)
            < bound_of(seek, number);
}

/** When tables find nothing: the one of all members that has the highest number with this key. */
static int highest(const seeking *seek, apr_uint64_t key)
{
    const rproxy_set *set = seek->choice->set;
    apr_uint64_t most = 0;
    int found = -1;

    for (int i = 0; i < set->count; i++) {
        apr_uint64_t number = rp_mix(key ^ rp_mix((apr_uint64_t)set->numbers[i]));

        if ((found < 0 || number > most) && takes(seek, set->numbers[i])) {
            most = number;
            found = set->numbers[i];
        }
    }
    return found;
}

static int choose(rproxy_choice *choice)
{
    const hash_config *config = choice->config;
    const table *prepared = choice->prepared;
    apr_uint64_t key = key_of(choice, config);
    seeking seek = { .choice = choice };
    int number;

    if (config->bounded != 0) {
        int total = atomic_load_explicit(&choice->pool->in_flight, memory_order_relaxed);

        seek.per_weight = config->bounded * (total + 1) / (double)choice->set->weight_sum;
    }
    number = prepared->maglev ? rp_maglev_find(prepared->maglev, key, takes, &seek)
                              : rp_ring_find(prepared->ring, key, takes, &seek);
    if (number < 0)
        number = highest(&seek, key);
    if (number >= 0 && seek.per_weight != 0)
        choice->limit = bound_of(&seek, number);
    return number;
}

const rproxy_method rp_method_hash = {
    .counts_total = 1, .configure = configure, .prepare = prepare, .discard = discard,
    .choose = choose
};
