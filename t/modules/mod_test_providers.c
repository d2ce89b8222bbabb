/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* A module of somebody else, for t/85-providers.t: one of each that the balancer takes from others,
 * with nothing of it included but the public header. */
#include <errno.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_config.h"
#include "ap_provider.h"
#include "include/mod_rproxy_balancer.h"

#define LINE_MAX_BYTES 512
#define SOON (10 * APR_TIME_C(1000))

/** What has come of a line. */
typedef struct line {
    char text[LINE_MAX_BYTES];
    apr_size_t len;
} line;

/** Nonzero: the line is whole; its end isn't part of it. */
static int take_byte(line *into, char byte)
{
    if (byte != '\n' && into->len < LINE_MAX_BYTES - 1)
        into->text[into->len++] = byte;
    into->text[into->len] = '\0';
    return byte == '\n';
}

static const char *one_word(const apr_array_header_t *words, void **config)
{
    *config = words->nelts ? APR_ARRAY_IDX(words, 0, void *) : NULL;
    return words->nelts == 1 ? NULL : "it needs one word";
}

/* ---- a method: the last member --------------------------------------------------------------- */

static int choose(rproxy_choice *choice)
{
    for (int i = choice->set->count; i-- > 0;) {
        if (rproxy_choice_takes(choice, choice->set->numbers[i]))
            return choice->set->numbers[i];
    }
    return -1;
}

static const rproxy_method method_last = { .choose = choose };

/* ---- a probe: the member has to say its word ------------------------------------------------- */

static const char *probe_configure(apr_pool_t *pool, const apr_array_header_t *words,
                                   void **config)
{
    (void)pool;
    return one_word(words, config);
}

static rproxy_check_verdict probe_begin(rproxy_check *check)
{
    const char *text = apr_pstrcat(check->pool, "how is ", check->place->authority, "\n", NULL);

    check->data = apr_pcalloc(check->pool, sizeof(line));
    check->send(check, text, strlen(text));
    return RPROXY_CHECK_GOES_ON;
}

static rproxy_check_verdict probe_received(rproxy_check *check, const char *data, apr_size_t len)
{
    line *answer = check->data;

    for (apr_size_t i = 0; i < len; i++) {
        if (take_byte(answer, data[i])) {
            apr_snprintf(check->cause, sizeof(check->cause), "it is %s", answer->text);
            return strcmp(answer->text, check->config) != 0 ? RPROXY_CHECK_FAILED
                                                            : RPROXY_CHECK_PASSED;
        }
    }
    apr_cpystrn(check->cause, "it says nothing", sizeof(check->cause));
    return len ? RPROXY_CHECK_GOES_ON : RPROXY_CHECK_FAILED;
}

static const rproxy_probe probe_word = {
    .configure = probe_configure, .begin = probe_begin, .received = probe_received
};

/* ---- a provider of members: somebody who writes lines of URLs -------------------------------- */

typedef struct lines_data {
    int fd;                             /* -1: not connected */
    line line;
} lines_data;

static const char *lines_configure(apr_pool_t *pool, const apr_array_header_t *words,
                                   void **config)
{
    (void)pool;
    return one_word(words, config);
}

static void disconnect(rproxy_source *source)
{
    lines_data *data = source->data;

    if (data->fd < 0)
        return;
    source->watch(source, data->fd, 0, NULL);
    close(data->fd);
    data->fd = -1;
}

static void give_up(rproxy_source *source, const char *why)
{
    disconnect(source);
    source->failed(source, why, SOON);
}

static void tell(rproxy_source *source, char *text)
{
    rproxy_found members[8];
    int count = 0;
    char *last;

    for (char *url = apr_strtok(text, " ", &last); url && count < 8;
         url = apr_strtok(NULL, " ", &last))
        members[count++] = (rproxy_found){ .url = url, .weight = 1 };
    source->found(source, members, count, SOON);
}

static void readable(rproxy_source *source, int fd, int events)
{
    lines_data *data = source->data;
    ssize_t got;
    char byte;

    (void)events;
    while ((got = recv(fd, &byte, 1, 0)) == 1) {
        if (take_byte(&data->line, byte)) {
            /* Nobody asks before that: what comes meanwhile waits in the socket. */
            source->watch(source, fd, 0, NULL);
            data->line.len = 0;
            tell(source, data->line.text);
            return;
        }
    }
    if (!got || errno != EAGAIN)
        give_up(source, "whoever writes has ended; start it again");
}

static void connected(rproxy_source *source, int fd, int events)
{
    const char *text = apr_pstrcat(source->pool, source->pool_name, "\n", NULL);

    if (!(events & 2))
        return;
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text))
        give_up(source, "nobody writes; start it");
    else
        source->watch(source, fd, 1, readable);
}

static void connect_to(rproxy_source *source, int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((in_port_t)port) };
    lines_data *data = source->data;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    data->line.len = 0;
    data->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (data->fd < 0)
        source->failed(source, "no socket; raise the limit of open files", SOON);
    else if (connect(data->fd, (struct sockaddr *)&address, sizeof(address)) != 0
             && errno != EINPROGRESS)
        give_up(source, "nobody listens; start it");
    else
        source->watch(source, data->fd, 3, connected);
}

static void lines_ask(rproxy_source *source)
{
    lines_data *data = source->data;

    if (!data) {
        data = source->data = apr_pcalloc(source->pool, sizeof(*data));
        data->fd = -1;
    }
    if (data->fd < 0)
        connect_to(source, (int)apr_atoi64(source->config));
    else
        source->watch(source, data->fd, 1, readable);
}

static void lines_end(rproxy_source *source)
{
    if (source->data)
        disconnect(source);
}

static const rproxy_discovery discovery_lines = {
    .configure = lines_configure, .ask = lines_ask, .end = lines_end
};

/* ---- the module ------------------------------------------------------------------------------ */

static void register_hooks(apr_pool_t *pool)
{
    ap_register_provider(pool, RPROXY_METHOD_GROUP, "last", RPROXY_METHOD_VERSION, &method_last);
    ap_register_provider(pool, RPROXY_PROBE_GROUP, "word", RPROXY_PROBE_VERSION, &probe_word);
    ap_register_provider(pool, RPROXY_DISCOVERY_GROUP, "lines", RPROXY_DISCOVERY_VERSION,
                         &discovery_lines);
}

AP_DECLARE_MODULE(test_providers) = {
    STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks,
#ifdef AP_MODULE_FLAG_NONE
    AP_MODULE_FLAG_NONE
#endif
};
