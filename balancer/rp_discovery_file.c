/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Members from a file of JSON, which is read when it is another one than before. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <apr_strings.h>
#include <jansson.h>

#include "balancer/rp_discovery.h"
#include "rproxy/rp_argument.h"

#define SIZE_MAX_BYTES (4 << 20)        /* of the file */
#define INTERVAL (2 * APR_USEC_PER_SEC)

typedef struct file_config {
    const char *path;
    apr_interval_time_t interval;
} file_config;

/** What was read last. */
typedef struct file_data {
    struct stat seen;
} file_data;

/* ---- configuration --------------------------------------------------------------------------- */

static const char *configure(apr_pool_t *pool, const apr_array_header_t *words, void **made)
{
    static const char *const names[] = { "interval", NULL };
    file_config *config = apr_pcalloc(pool, sizeof(*config));
    const char *message = NULL, *value;
    unsigned int seen = 0;
    int key;

    if (!words->nelts)
        return "it needs the path of a file, as in /etc/apache2/app-members.json";
    config->path = ap_server_root_relative(pool, APR_ARRAY_IDX(words, 0, const char *));
    config->interval = INTERVAL;
    if (!config->path)
        return apr_psprintf(pool, "\"%s\" is no path", APR_ARRAY_IDX(words, 0, const char *));
    for (int i = 1; i < words->nelts && !message; i++) {
        const char *argument = APR_ARRAY_IDX(words, i, const char *);

        message = rp_argument_key(pool, argument, names, &seen, &key, &value);
        if (!message)
            message = rp_argument_time(pool, argument, value, 0, &config->interval);
    }
    *made = config;
    return message;
}

/* ---- what the file says ---------------------------------------------------------------------- */

static const char *take_number(apr_pool_t *pool, const char *key, const json_t *value, int *number)
{
    json_int_t whole = json_integer_value(value);

    if (!json_is_integer(value) || whole < 0 || whole > INT_MAX)
        return apr_psprintf(pool, "\"%s\" is no whole number from 0 to %d", key, INT_MAX);
    *number = (int)whole;
    return NULL;
}

static const char *take_text(apr_pool_t *pool, const char *key, const json_t *value,
                             const char **text)
{
    if (!json_is_string(value))
        return apr_psprintf(pool, "\"%s\" is no text in quotes", key);
    *text = apr_pstrdup(pool, json_string_value(value));
    return NULL;
}

static const char *take_state(apr_pool_t *pool, const char *key, const json_t *value, int *state)
{
    const char *text = "", *message = take_text(pool, key, value, &text);

    if (!message && (*state = rp_state_named(text)) < 0)
        return apr_psprintf(pool, "\"state\" is \"%s\"; write up, drain or down", text);
    return message;
}

static const char *take_slow_start(apr_pool_t *pool, const char *key, const json_t *value,
                                   apr_interval_time_t *time)
{
    const char *text = "", *message = take_text(pool, key, value, &text);

    if (message || !strcmp(text, "0"))
        return message;
    return rp_argument_time(pool, key, text, 0, time);
}

static const char *take_key(apr_pool_t *pool, const char *key, const json_t *value,
                            rproxy_found *found)
{
    if (!strcmp(key, "url"))
        return take_text(pool, key, value, &found->url);
    if (!strcmp(key, "weight"))
        return take_number(pool, key, value, &found->weight);
    if (!strcmp(key, "max"))
        return take_number(pool, key, value, &found->max);
    if (!strcmp(key, "state"))
        return take_state(pool, key, value, &found->state);
    if (!strcmp(key, "zone"))
        return take_text(pool, key, value, &found->zone);
    if (!strcmp(key, "route"))
        return take_text(pool, key, value, &found->route);
    if (!strcmp(key, "slowstart"))
        return take_slow_start(pool, key, value, &found->slow_start);
    if (!strcmp(key, "backup")) {
        found->is_backup = json_is_true(value);
        return json_is_boolean(value) ? NULL : "\"backup\" is neither true nor false";
    }
    return apr_psprintf(pool, "\"%s\" is unknown; there are url, weight, max, state, backup, zone, "
                        "route and slowstart", key);
}

static const char *take_member(apr_pool_t *pool, json_t *member, int number, rproxy_found *found)
{
    const char *key, *message;
    json_t *value;

    *found = (rproxy_found){ .weight = 1 };
    if (!json_is_object(member))
        return apr_psprintf(pool, "member %d is no object; write {\"url\": \"http://...\"}",
                            number);
    json_object_foreach(member, key, value) {
        if ((message = take_key(pool, key, value, found)))
            return apr_psprintf(pool, "member %d: %s", number, message);
    }
    return found->url ? NULL : apr_psprintf(pool, "member %d has no \"url\"", number);
}

static const char *take_all(apr_pool_t *pool, const json_t *root, apr_array_header_t *all)
{
    const json_t *members = json_object_get(root, "members");
    const char *message = NULL;

    if (!json_is_array(members))
        return "there is no list \"members\"; write {\"members\": [{\"url\": \"http://...\"}]}";
    for (apr_size_t i = 0; i < json_array_size(members) && !message; i++)
        message = take_member(pool, json_array_get(members, i), (int)i + 1,
                              apr_array_push(all));
    return message;
}

static const char *parse(apr_pool_t *pool, const char *text, apr_size_t len,
                         apr_array_header_t *all)
{
    json_error_t error;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    const char *message;

    if (!root)
        return apr_psprintf(pool, "line %d, column %d: %s", error.line, error.column, error.text);
    message = take_all(pool, root, all);
    json_decref(root);
    return message;
}

/* ---- reading --------------------------------------------------------------------------------- */

/** Its text, malloc'ed; NULL: *message says why not. */
static char *read_text(apr_pool_t *pool, int fd, apr_size_t size, const char **message)
{
    char *text = malloc(size + 1);
    apr_size_t len = 0;
    ssize_t got = 1;

    while (text && len < size && got > 0) {
        got = read(fd, text + len, size - len);
        if (got > 0)
            len += (apr_size_t)got;
    }
    if (text && len == size)
        return text;
    *message = !text ? "there is no memory"
        : got < 0 ? apr_pstrdup(pool, strerror(errno))
                  : "it became shorter while it was read; replace it with mv instead of writing "
                    "into it";
    free(text);
    return NULL;
}

static int is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size
        && a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/** Reads the open file into all. Returns NULL or a message. */
static const char *read_file(apr_pool_t *pool, int fd, const struct stat *now,
                             apr_array_header_t *all)
{
    const char *message = NULL;
    char *text;

    if (!S_ISREG(now->st_mode))
        return "it is no file";
    if (now->st_size > SIZE_MAX_BYTES)
        return apr_psprintf(pool, "it has more than %d bytes", SIZE_MAX_BYTES);
    if ((text = read_text(pool, fd, (apr_size_t)now->st_size, &message))) {
        message = parse(pool, text, (apr_size_t)now->st_size, all);
        free(text);
    }
    return message;
}

static void look(rproxy_source *source, apr_pool_t *pool)
{
    const file_config *config = source->config;
    file_data *data = source->data;
    apr_array_header_t *all = apr_array_make(pool, 16, sizeof(rproxy_found));
    /* Not to wait for whoever would write into a pipe. */
    int fd = open(config->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    const char *message;
    struct stat now;

    if (fd < 0 || fstat(fd, &now) != 0) {
        message = apr_pstrdup(pool, strerror(errno));
        memset(&data->seen, 0, sizeof(data->seen));
        source->failed(source, message, config->interval);
    }
    else if (is_same(&data->seen, &now))
        source->unchanged(source, config->interval);
    else if ((message = read_file(pool, fd, &now, all))) {
        memset(&data->seen, 0, sizeof(data->seen));
        source->failed(source, message, config->interval);
    }
    else {
        data->seen = now;
        source->found(source, (const rproxy_found *)all->elts, all->nelts, config->interval);
    }
    if (fd >= 0)
        close(fd);
}

static void ask(rproxy_source *source)
{
    apr_pool_t *pool;

    if (!source->data)
        source->data = apr_pcalloc(source->pool, sizeof(file_data));
    apr_pool_create(&pool, source->pool);
    look(source, pool);
    apr_pool_destroy(pool);
}

const rproxy_discovery rp_discovery_file = { .configure = configure, .ask = ask };
