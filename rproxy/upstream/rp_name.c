/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Host names, their addresses and when to ask again. Everyone reads and marks names under one lock;
 * only the resolver's thread (rp_resolver.c) changes addresses and frees names. */

#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "rproxy/upstream/rp_upstream_private.h"

extern module AP_MODULE_DECLARE_DATA rproxy_module;
APLOG_USE_MODULE(rproxy);

#define UNUSED_TTLS 3                           /* a name unused for so many TTLs isn't refreshed */
#define UNKNOWN_TTL apr_time_from_sec(10)       /* assumed until the first answer */
#define REFRESH_MARGIN_MAX apr_time_from_sec(5) /* how long before the TTL's end to look up again */
#define RETRY_MIN apr_time_from_sec(1)          /* after a failure; doubles with each */
#define RETRY_MAX apr_time_from_sec(30)
#define STALE_WAIT apr_time_from_msec(500)      /* for an answer, before old addresses must do */
#define ABSENT_MAX 3                            /* "no such name" in a row: old addresses go */
#define FORGET_AFTER apr_time_from_sec(10)      /* names of no endpoint */

enum looking { LOOKING_NOT, LOOKING_WANTED, LOOKING_RUNNING };
enum news { NEWS_NONE, NEWS_FAILS, NEWS_GONE, NEWS_BACK };

struct rp_name {
    rp_name *next;
    char *host;
    int event;                          /* eventfd; readable when nobody needs to wait */
    _Atomic apr_time_t last_used;
    atomic_uint generation;

    /* the lock guards what follows */
    int references;
    enum looking looking;
    int waited_for;                     /* connections wait for event */
    apr_time_t wait_began;
    apr_time_t deadline;                /* when those that wait are told of a timeout */
    apr_interval_time_t ttl;
    apr_time_t refresh_at, expires_at;  /* of the addresses */
    apr_time_t retry_at, failed_at;     /* with failures > 0 */
    int failures;                       /* in a row */
    int absences;                       /* "no such name" among them, in a row */
    rp_reason reason;                   /* of the last failure */
    const char *detail;
    rp_sockaddr addresses[RP_ADDRESSES_MAX];
    int count;

    /* the thread's own */
    enum news news;                     /* to be logged */
    rp_name *next_news;
};

static struct {
    pthread_mutex_t lock;
    rp_name *all;
    rp_name *news;                      /* the thread's own: names with something to log */

    /* set before the thread starts */
    server_rec *server;
    rp_resolver_settings settings;
    int wake;                           /* eventfd: the thread has something to do */
} names = { .lock = PTHREAD_MUTEX_INITIALIZER, .wake = -1 };

/* ---- events ---------------------------------------------------------------------------------- */

void rp_event_set(int event)
{
    apr_uint64_t one = 1;
    if (event >= 0 && write(event, &one, sizeof(one)) < 0) {
        return;                         /* EAGAIN: the counter is full, so it is readable */
    }
}

void rp_event_clear(int event)
{
    apr_uint64_t count;
    if (event >= 0 && read(event, &count, sizeof(count)) < 0) {
        return;                         /* EAGAIN: it was clear */
    }
}

/* ---- names, for everyone --------------------------------------------------------------------- */

rp_name *rp_name_get(const char *host)
{
    pthread_mutex_lock(&names.lock);
    rp_name *name = names.all;
    while (name && strcmp(name->host, host)) {
        name = name->next;
    }
    if (!name) {
        name = ap_calloc(1, sizeof(*name));
        size_t size = strlen(host) + 1;
        name->host = memcpy(ap_malloc(size), host, size);
        name->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        name->ttl = UNKNOWN_TTL;
        name->next = names.all;
        names.all = name;
    }
    name->references++;
    pthread_mutex_unlock(&names.lock);
    return name;
}

static void name_free(rp_name *name)
{
    if (name->event >= 0) {
        close(name->event);
    }
    free(name->host);
    free(name);
}

/* The thread forgets it after a while; soon used again, it still has its addresses. */
void rp_name_release(rp_name *name)
{
    pthread_mutex_lock(&names.lock);
    name->references--;
    pthread_mutex_unlock(&names.lock);
}

void rp_name_touch(rp_name *name, apr_time_t now)
{
    /* Relaxed: only says whether to refresh; nothing else depends on it. */
    atomic_store_explicit(&name->last_used, now, memory_order_relaxed);
}

int rp_name_event(const rp_name *name)
{
    return name->event;
}

unsigned int rp_name_generation(const rp_name *name)
{
    /* Relaxed: whoever sees a new one takes the lock to look at the addresses. */
    return atomic_load_explicit(&name->generation, memory_order_relaxed);
}

int rp_name_has(rp_name *name, const rp_sockaddr *address, unsigned int *generation)
{
    pthread_mutex_lock(&names.lock);
    int has = rp_sockaddr_among(address, name->addresses, name->count);
    *generation = rp_name_generation(name);
    pthread_mutex_unlock(&names.lock);
    return has;
}

/* Under the lock. */
static void want_lookup(rp_name *name)
{
    if (name->looking == LOOKING_NOT) {
        name->looking = LOOKING_WANTED;
        rp_event_set(names.wake);
    }
}

/* Under the lock: makes the event unreadable until the lookup ends. */
static void want_answer(rp_name *name, apr_time_t now)
{
    want_lookup(name);
    if (!name->waited_for) {
        name->waited_for = 1;
        name->wait_began = now;
        name->deadline = now + names.settings.timeout;
        rp_event_clear(name->event);
        rp_event_set(names.wake);       /* the thread has one more deadline to keep */
    }
}

void rp_name_prefetch(rp_name *name)
{
    rp_name_touch(name, apr_time_now());
    pthread_mutex_lock(&names.lock);
    if (!name->count) {
        want_lookup(name);
    }
    pthread_mutex_unlock(&names.lock);
}

rp_name_answer rp_name_resolve(rp_name *name, rp_name_result *result)
{
    rp_name_answer answer = RP_NAME_READY;
    apr_time_t now = apr_time_now();
    rp_name_touch(name, now);
    pthread_mutex_lock(&names.lock);
    apr_interval_time_t failed_for = name->failures ? now - name->failed_at : RETRY_MAX;
    result->until = 0;
    if (name->count) {
        /* Past its TTL an address is asked for again, and used all the same when the resolver has
         * just failed or takes too long. */
        if (now >= name->expires_at && failed_for >= RETRY_MAX) {
            want_answer(name, now);
            result->until = name->wait_began + STALE_WAIT;
            if (now < result->until) {
                answer = RP_NAME_WAIT;
            }
        }
    }
    else if (failed_for < RETRY_MIN) {
        answer = RP_NAME_FAILED;
        result->reason = name->reason;
        result->detail = name->detail;
    }
    else {
        want_answer(name, now);
        answer = RP_NAME_WAIT;
    }
    if (answer == RP_NAME_READY) {
        memcpy(result->addresses, name->addresses, (size_t)name->count * sizeof(rp_sockaddr));
        result->count = name->count;
        result->generation = rp_name_generation(name);
    }
    pthread_mutex_unlock(&names.lock);
    return answer;
}

/* ---- the end of a lookup --------------------------------------------------------------------- */

/* Under the lock. */
static void answer_waiting(rp_name *name)
{
    if (name->waited_for) {
        name->waited_for = 0;
        rp_event_set(name->event);
    }
}

/* Logging may block, so it waits until the lock is free. */
static void note_news(rp_name *name, enum news news)
{
    if (!name->news) {
        name->next_news = names.news;
        names.news = name;
    }
    name->news = news;
}

/* Without the lock: only this thread writes these members and frees names. */
void rp_names_log_news(void)
{
    for (rp_name *name = names.news; name; name = names.news) {
        names.news = name->next_news;
        if (name->news == NEWS_FAILS) {
            ap_log_error(APLOG_MARK, APLOG_WARNING, 0, names.server,
                         "RP0201: the name %s could not be resolved (%s): %s, and it is looked up "
                         "again while it is used; check the name, and the servers of "
                         "RProxyResolver or resolv.conf", name->host, name->detail,
                         name->count ? "its old addresses stay in use" : "it has no address yet");
        }
        else if (name->news == NEWS_GONE) {
            ap_log_error(APLOG_MARK, APLOG_WARNING, 0, names.server,
                         "RP0202: the name %s does not exist any more (%s, %d times in a row): its "
                         "old addresses are dropped; correct the target or the name server's data",
                         name->host, name->detail, name->absences);
        }
        else {
            ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, names.server,
                         "RP0203: the name %s resolves again", name->host);
        }
        name->news = NEWS_NONE;
    }
}

/* Under the lock. The addresses of a name that has really gone are dropped after some confirmation;
 * any other failure keeps them. */
static void note_failure(rp_name *name, rp_reason reason, int absent, const char *detail)
{
    apr_interval_time_t delay = RETRY_MIN;
    for (int i = 0; i < name->failures && delay < RETRY_MAX; i++) {
        delay *= 2;
    }
    name->failed_at = apr_time_now();
    name->retry_at = name->failed_at + (delay < RETRY_MAX ? delay : RETRY_MAX);
    name->reason = reason;
    name->detail = detail;
    name->absences = absent ? name->absences + 1 : 0;
    RP_COUNT(lookup_failures, 1);
    if (name->absences >= ABSENT_MAX && name->count) {
        name->count = 0;
        atomic_fetch_add_explicit(&name->generation, 1, memory_order_relaxed);
        note_news(name, NEWS_GONE);
    }
    else if (!name->failures) {
        note_news(name, NEWS_FAILS);
    }
    name->failures++;
    answer_waiting(name);
}

/* Under the lock. */
static void note_answer(rp_name *name, const rp_sockaddr *addresses, int count, int ttl)
{
    apr_time_t now = apr_time_now();
    int same = count == name->count;
    for (int i = 0; i < count && same; i++) {
        same = rp_sockaddr_among(&addresses[i], name->addresses, name->count);
    }
    memcpy(name->addresses, addresses, (size_t)count * sizeof(rp_sockaddr));
    name->count = count;
    if (!same) {
        atomic_fetch_add_explicit(&name->generation, 1, memory_order_relaxed);
    }
    name->ttl = apr_time_from_sec(ttl > 0 ? ttl : 0);
    if (name->ttl < names.settings.min_ttl) {
        name->ttl = names.settings.min_ttl;
    }
    if (name->ttl > names.settings.max_ttl) {
        name->ttl = names.settings.max_ttl;
    }
    apr_interval_time_t margin = name->ttl / 4;
    name->expires_at = now + name->ttl;
    name->refresh_at = name->expires_at
                       - (margin < REFRESH_MARGIN_MAX ? margin : REFRESH_MARGIN_MAX);
    if (name->failures) {
        note_news(name, NEWS_BACK);
    }
    name->failures = 0;
    name->absences = 0;
    answer_waiting(name);
}

/* Under the lock: when name is to be looked up next; 0: not at all. */
static apr_time_t due_at(const rp_name *name, apr_time_t now)
{
    apr_time_t used = atomic_load_explicit(&name->last_used, memory_order_relaxed);
    if (name->looking == LOOKING_WANTED) {
        return now;
    }
    if (name->looking == LOOKING_RUNNING || !used || now - used > UNUSED_TTLS * name->ttl) {
        return 0;
    }
    return name->failures ? name->retry_at : name->refresh_at;
}

/* Tells those that wait of timeouts, and collects names to look up. Returns when to come again. */
apr_time_t rp_names_collect_due(apr_time_t now, rp_name *due[RP_LOOKUPS_AT_ONCE], int *count)
{
    apr_time_t next = now + RP_TICK;
    *count = 0;
    pthread_mutex_lock(&names.lock);
    for (rp_name *name = names.all; name; name = name->next) {
        if (name->waited_for && now >= name->deadline) {
            note_failure(name, RP_REASON_DNS_TIMEOUT, 0, "no answer in time");
        }
        apr_time_t at = due_at(name, now);
        if (at && at <= now) {
            if (*count == RP_LOOKUPS_AT_ONCE) {
                next = now;
                break;
            }
            name->looking = LOOKING_RUNNING;
            due[(*count)++] = name;
        }
        else if (at && at < next) {
            next = at;
        }
        if (name->waited_for && name->deadline < next) {
            next = name->deadline;
        }
    }
    pthread_mutex_unlock(&names.lock);
    return next;
}

void rp_names_forget(apr_time_t now)
{
    pthread_mutex_lock(&names.lock);
    for (rp_name **at = &names.all; *at;) {
        rp_name *name = *at;
        apr_time_t used = atomic_load_explicit(&name->last_used, memory_order_relaxed);
        if (!name->references && name->looking == LOOKING_NOT && now - used > FORGET_AFTER) {
            *at = name->next;
            name_free(name);
        }
        else {
            at = &name->next;
        }
    }
    pthread_mutex_unlock(&names.lock);
}

/* ---- what the resolver's thread reports ------------------------------------------------------ */

const char *rp_name_host(const rp_name *name)
{
    return name->host;
}

void rp_name_answered(rp_name *name, const rp_sockaddr *addresses, int count, int ttl)
{
    pthread_mutex_lock(&names.lock);
    name->looking = LOOKING_NOT;
    note_answer(name, addresses, count, ttl);
    pthread_mutex_unlock(&names.lock);
}

void rp_name_failed(rp_name *name, rp_reason reason, int absent, const char *detail)
{
    pthread_mutex_lock(&names.lock);
    name->looking = LOOKING_NOT;
    note_failure(name, reason, absent, detail);
    pthread_mutex_unlock(&names.lock);
}

/* ---- start and stop -------------------------------------------------------------------------- */

void rp_names_start(server_rec *server, const rp_resolver_settings *settings, int wake)
{
    names.server = server;
    names.settings = *settings;
    names.wake = wake;
}

void rp_names_free(void)
{
    pthread_mutex_lock(&names.lock);
    names.wake = -1;
    names.news = NULL;
    for (rp_name **at = &names.all; *at;) {
        rp_name *name = *at;
        if (name->references) {         /* a connection still uses it */
            name->news = NEWS_NONE;
            at = &name->next;
        }
        else {
            *at = name->next;
            name_free(name);
        }
    }
    pthread_mutex_unlock(&names.lock);
}
