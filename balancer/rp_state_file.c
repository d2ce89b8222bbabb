/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <apr_strings.h>
#include <jansson.h>
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"

#include "balancer/rp_entry.h"
#include "balancer/rp_keeper.h"
#include "balancer/rp_state_file.h"

APLOG_USE_MODULE(rproxy_balancer);

#define FORMAT 1
#define LOOK_EVERY (APR_USEC_PER_SEC / 4)

static struct {
    const char *path;                   /* NULL: there is none */
    /* The keeper's: */
    rp_keeper_timer timer;
    unsigned long long written;         /* sum of the rosters' versions */
    int has_failed;
} state;

const char *rp_state_file_directive(cmd_parms *cmd, void *dir, const char *path)
{
    const char *message = ap_check_cmd_context(cmd, GLOBAL_ONLY);

    (void)dir;
    if (message)
        return "RProxyStateFile is for all pools; move it out of all sections";
    if (state.path)
        return "RProxyStateFile stands twice; keep one";
    if (!(state.path = ap_server_root_relative(cmd->pool, path)))
        return apr_psprintf(cmd->pool, "RProxyStateFile \"%s\" is no path", path);
    return NULL;
}

void rp_state_file_reset(void)
{
    memset(&state, 0, sizeof(state));
}

/* ---- writing --------------------------------------------------------------------------------- */

static json_t *values_to_json(const rp_roster_values *values, unsigned int which)
{
    json_t *made = json_object();

    if (which & RP_VALUE_WEIGHT)
        json_object_set_new(made, "weight", json_integer(values->weight));
    if (which & RP_VALUE_MAX)
        json_object_set_new(made, "max", json_integer(values->max));
    if (which & RP_VALUE_STATE)
        json_object_set_new(made, "state", json_string(rp_state_names[values->state]));
    if (which & RP_VALUE_BACKUP)
        json_object_set_new(made, "backup", json_boolean(values->is_backup));
    if (which & RP_VALUE_ZONE)
        json_object_set_new(made, "zone", json_string(values->zone));
    if (which & RP_VALUE_ROUTE)
        json_object_set_new(made, "route", json_string(values->route));
    if (which & RP_VALUE_SLOW_START)
        json_object_set_new(made, "slowstart", json_integer(values->slow_start));
    return made;
}

static void set_hash(json_t *member, const char *key, apr_uint64_t hash)
{
    char text[20];

    apr_snprintf(text, sizeof(text), "%016" APR_UINT64_T_HEX_FMT, hash);
    json_object_set_new(member, key, json_string(text));
}

/** With the lock. */
static void add_pool(json_t *members, const rp_balancer *balancer)
{
    for (const rp_entry *entry = rp_entry_first(balancer->slot); entry;
         entry = rp_entry_next(entry)) {
        const char *url = entry->url;
        int is_found = entry->is_added && entry->from == RP_FROM_DISCOVERY;
        json_t *member;

        /* What discovery finds it finds again, but not what was changed of it. */
        if (is_found && !entry->is_removed && !entry->overridden)
            continue;
        if (!entry->is_added && entry->number >= balancer->count)
            continue;
        if (!entry->is_added)
            url = balancer->more[entry->number].url;
        member = json_pack("{s:s,s:s,s:b,s:b,s:s,s:I,s:o}", "pool", balancer->name, "url", url,
                           "added", entry->is_added, "removed", entry->is_removed,
                           "who", entry->who, "changed", (json_int_t)entry->changed,
                           "set", values_to_json(&entry->values, entry->overridden));
        set_hash(member, is_found ? "source" : "stanza", is_found ? entry->source : entry->stanza);
        if (is_found)
            json_object_set_new(member, "found", values_to_json(&entry->base, RP_VALUES_ALL));
        json_array_append_new(members, member);
    }
}

static char *make_text(const apr_array_header_t *all)
{
    json_t *members = json_array();
    json_t *root = json_pack("{s:i,s:o}", "format", FORMAT, "members", members);
    char *text;

    rp_roster_lock();
    for (int i = 0; i < all->nelts; i++)
        add_pool(members, APR_ARRAY_IDX(all, i, const rp_balancer *));
    rp_roster_unlock();
    text = json_dumps(root, JSON_INDENT(1));
    json_decref(root);
    return text;
}

/** Nonzero: all of it is on the disk. */
static int write_text(int fd, const char *text)
{
    apr_size_t left = strlen(text);

    while (left) {
        ssize_t done = write(fd, text, left);

        if (done < 0 && errno != EINTR)
            return 0;
        if (done > 0) {
            text += done;
            left -= (apr_size_t)done;
        }
    }
    return fsync(fd) == 0;
}

/** Replaces the file as a whole. Nonzero: done; else errno says why not. */
static int replace(apr_pool_t *pool, const char *text)
{
    const char *new = apr_psprintf(pool, "%s.%d", state.path, (int)getpid());
    int fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int done = fd >= 0 && write_text(fd, text), error = errno;

    if (fd >= 0 && close(fd) != 0 && done) {
        error = errno;
        done = 0;
    }
    if (done && rename(new, state.path) != 0) {
        error = errno;
        done = 0;
    }
    if (!done && fd >= 0)
        unlink(new);
    errno = error;
    return done;
}

static void write_now(rp_keeper *keeper)
{
    unsigned long long now = rp_roster_versions(rp_balancer_all());
    apr_pool_t *pool;
    char *text;

    if (now == state.written)
        return;
    apr_pool_create(&pool, rp_keeper_pool(keeper));
    text = make_text(rp_balancer_all());
    if (text && replace(pool, text)) {
        state.written = now;
        state.has_failed = 0;
    }
    else if (!state.has_failed) {
        ap_log_error(APLOG_MARK, APLOG_ERR, APR_FROM_OS_ERROR(errno), rp_keeper_server(keeper),
                     "RP0429: RProxyStateFile %s can't be written, changes of members will be lost "
                     "when the server stops; its directory must be writable for User", state.path);
        state.has_failed = 1;
    }
    free(text);
    apr_pool_destroy(pool);
}

/* ---- the duty -------------------------------------------------------------------------------- */

static void look(rp_keeper *keeper, void *baton)
{
    write_now(keeper);
    rp_keeper_at(keeper, &state.timer, rp_keeper_now(keeper) + LOOK_EVERY, look, baton);
}

static void begin(rp_keeper *keeper, void *baton)
{
    state.written = 0;
    memset(&state.timer, 0, sizeof(state.timer));
    look(keeper, baton);
}

static void end(rp_keeper *keeper, void *baton)
{
    (void)baton;
    rp_keeper_cancel(keeper, &state.timer);
    write_now(keeper);
}

static void poked(rp_keeper *keeper, void *baton)
{
    (void)baton;
    write_now(keeper);
}

void rp_state_file_add_duty(void)
{
    static const rp_duty duty = { .begin = begin, .end = end, .poked = poked };

    if (state.path)
        rp_keeper_add(&duty, NULL);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void number_from(const json_t *set, const char *key, int *value, unsigned int bit,
                        unsigned int *which)
{
    const json_t *found = json_object_get(set, key);

    if (json_is_integer(found)) {
        *value = (int)json_integer_value(found);
        *which |= bit;
    }
}

static void name_from(const json_t *set, const char *key, char *value, unsigned int bit,
                      unsigned int *which)
{
    const char *found = json_string_value(json_object_get(set, key));

    if (found) {
        apr_cpystrn(value, found, RP_ROSTER_NAME_MAX + 1);
        *which |= bit;
    }
}

static unsigned int values_from_json(const json_t *set, rp_roster_values *values)
{
    const char *name = json_string_value(json_object_get(set, "state"));
    int found = name ? rp_state_named(name) : -1;
    unsigned int which = 0;

    number_from(set, "weight", &values->weight, RP_VALUE_WEIGHT, &which);
    number_from(set, "max", &values->max, RP_VALUE_MAX, &which);
    if (found >= 0) {
        values->state = (rp_admin_state)found;
        which |= RP_VALUE_STATE;
    }
    if (json_is_boolean(json_object_get(set, "backup"))) {
        values->is_backup = json_is_true(json_object_get(set, "backup"));
        which |= RP_VALUE_BACKUP;
    }
    name_from(set, "zone", values->zone, RP_VALUE_ZONE, &which);
    name_from(set, "route", values->route, RP_VALUE_ROUTE, &which);
    if (json_is_integer(json_object_get(set, "slowstart"))) {
        values->slow_start = json_integer_value(json_object_get(set, "slowstart"));
        which |= RP_VALUE_SLOW_START;
    }
    return which;
}

static const char *text_of(const json_t *member, const char *key)
{
    const char *text = json_string_value(json_object_get(member, key));

    return text ? text : "";
}

static apr_uint64_t hash_of(const json_t *member, const char *key)
{
    return (apr_uint64_t)strtoull(text_of(member, key), NULL, 16);
}

/** The member's slot if it is configured, NULL: it isn't. */
static rp_slot *configured_slot(const rp_balancer *balancer, const char *url, int *number)
{
    for (int i = 0; i < balancer->count; i++) {
        if (!strcmp(balancer->more[i].url, url)) {
            *number = i;
            return balancer->more[i].slot;
        }
    }
    return NULL;
}

/** What rp_roster_adopt() would have found in memory. */
static void restore(apr_pool_t *pool, rp_balancer *balancer, const json_t *member)
{
    const char *url = text_of(member, "url");
    rp_entry made = { .from = RP_FROM_API, .base = { .weight = 1 } };
    rp_roster_change change = { .pool = pool };
    int number = 0;
    const char *key = rp_balancer_normal_url(pool, url);
    rp_slot *slot = configured_slot(balancer, key, &number);
    int is_added = json_is_true(json_object_get(member, "added"));

    made.stanza = hash_of(member, "stanza");
    made.source = hash_of(member, "source");
    made.changed = json_integer_value(json_object_get(member, "changed"));
    made.is_removed = json_is_true(json_object_get(member, "removed"));
    made.overridden = values_from_json(json_object_get(member, "set"), &made.values);
    apr_cpystrn(made.who, text_of(member, "who"), sizeof(made.who));
    if (rp_roster_check_values(pool, &made.values, made.overridden))
        return;
    if (slot && !is_added) {
        made.number = number;
        rp_entry_put(balancer->slot, slot, &made);
    }
    else if (!slot && is_added && !rp_roster_check_url(pool, url)) {
        if (!made.source)
            rp_roster_put(balancer, url, key, &made, &change);
        else if (values_from_json(json_object_get(member, "found"), &made.base)
                 == RP_VALUES_ALL) {
            made.from = RP_FROM_DISCOVERY;
            rp_roster_await(balancer, url, key, &made);
        }
    }
}

void rp_state_file_read(apr_pool_t *pool, const server_rec *server, const apr_array_header_t *all)
{
    json_error_t error;
    json_t *root, *member;
    apr_size_t at;

    if (!state.path || (access(state.path, F_OK) != 0 && errno == ENOENT))
        return;
    root = json_load_file(state.path, 0, &error);
    if (!root || json_integer_value(json_object_get(root, "format")) != FORMAT) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, server, "RP0430: RProxyStateFile %s can't be read, "
                     "members are as configured: line %d, column %d: %s", state.path, error.line,
                     error.column, root ? "it is of another version" : error.text);
        json_decref(root);
        return;
    }
    json_array_foreach(json_object_get(root, "members"), at, member) {
        for (int i = 0; i < all->nelts; i++) {
            rp_balancer *balancer = APR_ARRAY_IDX(all, i, rp_balancer *);

            if (!strcmp(balancer->name, text_of(member, "pool")))
                restore(pool, balancer, member);
        }
    }
    json_decref(root);
    /* What has been edited since goes again. */
    for (int i = 0; i < all->nelts; i++)
        rp_roster_adopt(APR_ARRAY_IDX(all, i, rp_balancer *));
}
