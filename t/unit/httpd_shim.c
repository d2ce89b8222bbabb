/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The few functions of httpd that the rooms below the lanes call, for tests without a server. Log
 * lines are printed as TAP comments and kept for shim_logged(). */

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "t/unit/httpd_shim.h"

#define LINES_MAX 100
#define LINE_MAX_BYTES 1024

module AP_MODULE_DECLARE_DATA rproxy_module = { .name = "rproxy" };
module AP_MODULE_DECLARE_DATA rproxy_balancer_module = { .name = "rproxy_balancer" };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char lines[LINES_MAX][LINE_MAX_BYTES];
static int line_count;

AP_DECLARE(void) ap_log_error_(const char *file, int line, int module_index, int level,
                               apr_status_t status, const server_rec *s, const char *format, ...)
{
    char text[LINE_MAX_BYTES];
    va_list arguments;
    (void)file;
    (void)line;
    (void)module_index;
    (void)level;
    (void)status;
    (void)s;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&lock);
    strcpy(lines[line_count++ % LINES_MAX], text);
    pthread_mutex_unlock(&lock);
    fprintf(stderr, "# log: %s\n", text);
}

int shim_logged(const char *text)
{
    int found = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < line_count && i < LINES_MAX; i++) {
        found += strstr(lines[i], text) != NULL;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

AP_DECLARE(void) ap_log_assert(const char *expression, const char *file, int line)
{
    printf("Bail out! %s:%d: %s does not hold\n", file, line, expression);
    fflush(stdout);
    abort();
}

AP_DECLARE(void *) ap_malloc(size_t size)
{
    void *made = malloc(size);
    if (!made && size) {
        abort();
    }
    return made;
}

AP_DECLARE(void *) ap_calloc(size_t count, size_t size)
{
    void *made = calloc(count, size);
    if (!made && count && size) {
        abort();
    }
    return made;
}

AP_DECLARE(void *) ap_realloc(void *old, size_t size)
{
    void *made = realloc(old, size);
    if (!made && size) {
        abort();
    }
    return made;
}

AP_DECLARE(char *) ap_server_root_relative(apr_pool_t *p, const char *name)
{
    return *name == '/' ? apr_pstrdup(p, name) : apr_pstrcat(p, "/server-root/", name, NULL);
}

AP_DECLARE(void) ap_str_tolower(char *text)
{
    for (; *text; text++) {
        *text = (char)apr_tolower(*text);
    }
}

AP_DECLARE(void) ap_no2slash(char *name)
{
    char *to = name;

    for (const char *from = name; *from; from++) {
        if (*from != '/' || from[1] != '/') {
            *to++ = *from;
        }
    }
    *to = '\0';
}
