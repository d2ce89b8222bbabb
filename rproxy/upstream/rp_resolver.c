/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The child's own thread: it runs c-ares, which nobody else touches, for the names that rp_name.c
 * finds due, and once a second the upkeep of endpoints. */

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <ares.h>
#include "rproxy/rp_signals.h"
#include "rproxy/upstream/rp_upstream_private.h"

extern module AP_MODULE_DECLARE_DATA rproxy_module;
APLOG_USE_MODULE(rproxy);

#define RESOLV_CONF "/etc/resolv.conf"
#define STOP_PATIENCE 2                 /* seconds that the thread gets to end */
#define EVENTS_MAX 16

static struct {
    /* set before the thread starts */
    server_rec *server;
    rp_resolver_settings settings;
    pthread_t thread;
    int wake;                           /* eventfd: there is something to do */

    atomic_int stopping;

    /* the thread's own */
    ares_channel channel;
    int open;                           /* channel is usable */
    int epoll;
    int lookups;                        /* running */
    struct timespec conf_time;          /* of resolv.conf when the channel was opened */
} resolver = { .wake = -1, .epoll = -1 };

/* ---- the end of a lookup --------------------------------------------------------------------- */

/* Takes the usable addresses of an answer; sets the least TTL in seconds. */
static int read_answer(const struct ares_addrinfo *answer, rp_sockaddr *addresses, int *ttl)
{
    int count = 0;
    *ttl = -1;
    for (const struct ares_addrinfo_node *node = answer->nodes;
         node && count < RP_ADDRESSES_MAX; node = node->ai_next) {
        rp_sockaddr address;
        memset(&address, 0, sizeof(address));
        if (node->ai_family == AF_INET && node->ai_addrlen >= sizeof(address.v4)) {
            memcpy(&address.v4, node->ai_addr, sizeof(address.v4));
        }
        else if (node->ai_family == AF_INET6 && node->ai_addrlen >= sizeof(address.v6)) {
            memcpy(&address.v6, node->ai_addr, sizeof(address.v6));
        }
        else {
            continue;
        }
        if (!rp_sockaddr_among(&address, addresses, count)) {
            addresses[count++] = address;
        }
        if (*ttl < 0 || node->ai_ttl < *ttl) {
            *ttl = node->ai_ttl;
        }
    }
    for (const struct ares_addrinfo_cname *alias = answer->cnames; alias; alias = alias->next) {
        if (*ttl < 0 || alias->ttl < *ttl) {
            *ttl = alias->ttl;
        }
    }
    return count;
}

/* c-ares calls this on its thread. A late answer counts, even after a timeout was declared. */
static void lookup_ended(void *baton, int status, int timeouts, struct ares_addrinfo *answer)
{
    rp_name *name = baton;
    rp_sockaddr addresses[RP_ADDRESSES_MAX];
    int ttl = 0;
    int count = status == ARES_SUCCESS && answer ? read_answer(answer, addresses, &ttl) : 0;
    (void)timeouts;
    if (answer) {
        ares_freeaddrinfo(answer);
    }
    resolver.lookups--;
    if (count) {
        rp_name_answered(name, addresses, count, ttl);
        return;
    }
    if (status == ARES_SUCCESS) {
        status = ARES_ENODATA;
    }
    int absent = status == ARES_ENOTFOUND || status == ARES_ENODATA;
    rp_reason reason = status == ARES_ETIMEOUT ? RP_REASON_DNS_TIMEOUT : RP_REASON_DNS_ERROR;
    rp_name_failed(name, reason, absent, ares_strerror(status));
}

/* ---- the thread ------------------------------------------------------------------------------ */

/* c-ares tells which of its sockets wants what. */
static void socket_changed(void *baton, ares_socket_t fd, int readable, int writable)
{
    struct epoll_event event = { .data.fd = fd };
    (void)baton;
    if (!readable && !writable) {
        epoll_ctl(resolver.epoll, EPOLL_CTL_DEL, fd, &event);
        return;
    }
    event.events = (readable ? (unsigned int)EPOLLIN : 0) | (writable ? (unsigned int)EPOLLOUT : 0);
    if (epoll_ctl(resolver.epoll, EPOLL_CTL_ADD, fd, &event) < 0 && errno == EEXIST) {
        epoll_ctl(resolver.epoll, EPOLL_CTL_MOD, fd, &event);
    }
}

static struct timespec conf_time(void)
{
    struct stat info;
    return stat(RESOLV_CONF, &info) == 0 ? info.st_mtim : (struct timespec){ 0 };
}

/* Two tries, the second twice as long, that fill the time of one lookup. */
static int open_channel(void)
{
    struct ares_options options = {
        .timeout = (int)(apr_time_as_msec(resolver.settings.timeout) / 3) + 1,
        .tries = 2,
        .sock_state_cb = socket_changed
    };
    resolver.conf_time = conf_time();
    int status = ares_init_options(&resolver.channel, &options,
                                   ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
    if (status != ARES_SUCCESS) {
        return status;
    }
    if (resolver.settings.servers) {
        status = ares_set_servers_ports_csv(resolver.channel, resolver.settings.servers);
        if (status != ARES_SUCCESS) {
            ares_destroy(resolver.channel);
            return status;
        }
    }
    resolver.open = 1;
    return ARES_SUCCESS;
}

/* Machines get their network, and with it resolv.conf, late or anew. */
static void follow_resolv_conf(void)
{
    struct timespec current = conf_time();
    if (resolver.open
        && (resolver.lookups || resolver.settings.servers
            || (current.tv_sec == resolver.conf_time.tv_sec
                && current.tv_nsec == resolver.conf_time.tv_nsec))) {
        return;
    }
    if (resolver.open) {
        ares_destroy(resolver.channel);
        resolver.open = 0;
    }
    int status = open_channel();
    if (status != ARES_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, resolver.server,
                     "RP0204: the resolver could not read %s anew (%s): correct that file",
                     RESOLV_CONF, ares_strerror(status));
    }
}

/* A name that is being looked up is not forgotten, so it stays valid without the lock. */
static apr_time_t start_lookups(apr_time_t now)
{
    rp_name *due[RP_LOOKUPS_AT_ONCE];
    int count;
    apr_time_t next = rp_names_collect_due(now, due, &count);
    struct ares_addrinfo_hints hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    if (count) {
        follow_resolv_conf();
    }
    for (int i = 0; i < count; i++) {
        RP_COUNT(lookups, 1);
        resolver.lookups++;
        if (resolver.open) {
            ares_getaddrinfo(resolver.channel, rp_name_host(due[i]), NULL, &hints, lookup_ended,
                             due[i]);
        }
        else {
            lookup_ended(due[i], ARES_ENOTINITIALIZED, 0, NULL);
        }
    }
    return next;
}

static void wait_for_events(apr_time_t until)
{
    struct epoll_event events[EVENTS_MAX];
    apr_time_t now = apr_time_now();
    int patience = until > now ? (int)((until - now + 999) / 1000) : 0;
    struct timeval left;
    if (resolver.open && ares_timeout(resolver.channel, NULL, &left)) {
        int own = (int)(left.tv_sec * 1000 + left.tv_usec / 1000) + 1;
        patience = own < patience ? own : patience;
    }
    int count = epoll_wait(resolver.epoll, events, EVENTS_MAX, patience);
    for (int i = 0; i < count; i++) {
        int fd = events[i].data.fd;
        if (fd == resolver.wake) {
            rp_event_clear(fd);
        }
        else if (resolver.open) {
            /* Errors and hang-ups are found by reading. A socket that an earlier event of this
             * round made c-ares close is unknown to it by now, and passed over. */
            ares_process_fd(resolver.channel,
                            events[i].events & ~(unsigned int)EPOLLOUT ? fd : ARES_SOCKET_BAD,
                            events[i].events & EPOLLOUT ? fd : ARES_SOCKET_BAD);
        }
    }
    if (resolver.open && resolver.lookups) {
        ares_process_fd(resolver.channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);    /* timeouts */
    }
}

static void *resolver_main(void *unused)
{
    apr_time_t tick = 0;
    (void)unused;
    while (!atomic_load(&resolver.stopping)) {
        apr_time_t now = apr_time_now();
        if (now >= tick || tick - now > RP_TICK) {         /* or the clock was set back */
            tick = now + RP_TICK;
            rp_endpoints_maintain(now);
            rp_names_forget(now);
        }
        apr_time_t next = start_lookups(now);
        wait_for_events(next < tick ? next : tick);
        rp_names_log_news();
    }
    return NULL;
}

/* ---- start and stop -------------------------------------------------------------------------- */

static void close_descriptor(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static int start_thread(void)
{
    sigset_t before;
    rp_signals_block(&before);
    atomic_store(&resolver.stopping, 0);
    int error = pthread_create(&resolver.thread, NULL, resolver_main, NULL);
    rp_signals_restore(&before);
    return error;
}

apr_status_t rp_resolver_start(server_rec *server, const rp_resolver_settings *settings)
{
    resolver.server = server;
    resolver.settings = settings ? *settings : (rp_resolver_settings){ 0 };
    rp_resolver_settings *own = &resolver.settings;
    own->min_ttl = own->min_ttl > 0 ? own->min_ttl : apr_time_from_sec(1);
    own->max_ttl = own->max_ttl > 0 ? own->max_ttl : apr_time_from_sec(3600);
    own->timeout = own->timeout > 0 ? own->timeout : apr_time_from_sec(5);
    resolver.epoll = epoll_create1(EPOLL_CLOEXEC);
    resolver.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event event = { .events = EPOLLIN, .data.fd = resolver.wake };
    int error = 0;
    rp_names_start(server, own, resolver.wake);
    if (resolver.epoll < 0 || resolver.wake < 0
        || epoll_ctl(resolver.epoll, EPOLL_CTL_ADD, resolver.wake, &event) < 0) {
        error = errno;
    }
    int status = error ? ARES_SUCCESS : ares_library_init(ARES_LIB_INIT_ALL);
    if (!error && status == ARES_SUCCESS) {
        status = open_channel();
    }
    if (!error && status == ARES_SUCCESS && !(error = start_thread())) {
        return APR_SUCCESS;
    }
    ap_log_error(APLOG_MARK, APLOG_ERR, error, server,
                 "RP0205: the resolver could not start%s%s: check the servers of RProxyResolver "
                 "and the limits of descriptors and threads", error ? "" : ": ",
                 error ? "" : ares_strerror(status));
    rp_resolver_free();
    return error ? error : APR_EGENERAL;
}

/* The wait is bounded: the child may be ending from within a signal handler that interrupted a
 * holder of one of the locks. */
int rp_resolver_stop(void)
{
    struct timespec until;
    atomic_store(&resolver.stopping, 1);
    rp_event_set(resolver.wake);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_PATIENCE;
    return pthread_timedjoin_np(resolver.thread, NULL, &until) == 0;
}

void rp_resolver_free(void)
{
    if (resolver.open) {
        ares_destroy(resolver.channel);
        resolver.open = 0;
    }
    ares_library_cleanup();
    rp_names_free();
    close_descriptor(&resolver.epoll);
    close_descriptor(&resolver.wake);
}
