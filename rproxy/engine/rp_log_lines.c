/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <limits.h>
#include <string.h>
#include <apr_file_io.h>
#include <apr_optional.h>
#include "httpd.h"
#include "http_config.h"
#include "mod_log_config.h"
#include "rproxy/engine/rp_log_lines.h"

#define FILES 4                         /* with lines in a round; more take turns */

/* As much as a write into a pipe puts there in one piece, whoever else writes. */
typedef struct log_file {
    apr_file_t *file;
    apr_size_t len;
    char bytes[PIPE_BUF];
} log_file;

struct rp_log_lines {
    log_file files[FILES];
    int next;                           /* to make room for another */
};

typedef APR_OPTIONAL_FN_TYPE(ap_log_set_writer) set_writer_fn;

static ap_log_writer *at_once;          /* mod_log_config's own */
static _Thread_local rp_log_lines *collecting;

rp_log_lines *rp_log_lines_create(apr_pool_t *pool)
{
    return apr_pcalloc(pool, sizeof(rp_log_lines));
}

void rp_log_lines_collect(rp_log_lines *lines)
{
    collecting = lines;
}

/* A failure is nobody's business, as in mod_log_config: there is no log to tell it to. */
static void write_lines(log_file *log)
{
    apr_size_t len = log->len;

    if (len > 0) {
        log->len = 0;
        apr_file_write(log->file, log->bytes, &len);
    }
}

void rp_log_lines_write(rp_log_lines *lines)
{
    for (int i = 0; i < FILES; i++) {
        write_lines(&lines->files[i]);
    }
}

static log_file *place_of(rp_log_lines *lines, apr_file_t *file)
{
    log_file *found;

    for (int i = 0; i < FILES; i++) {
        if (lines->files[i].file == file) {
            return &lines->files[i];
        }
    }
    found = &lines->files[lines->next];
    lines->next = (lines->next + 1) % FILES;
    write_lines(found);
    found->file = file;
    return found;
}

/* handle is what mod_log_config opened, since it would write there itself. */
static apr_status_t write_line(request_rec *r, void *handle, const char **pieces, int *lengths,
                               int count, apr_size_t len)
{
    log_file *log = collecting ? place_of(collecting, handle) : NULL;

    if (log && log->len + len > sizeof(log->bytes)) {
        write_lines(log);
    }
    if (!log || len > sizeof(log->bytes)) {
        return at_once(r, handle, pieces, lengths, count, len);
    }
    for (int i = 0; i < count; i++) {
        memcpy(log->bytes + log->len, pieces[i], (apr_size_t)lengths[i]);
        log->len += (apr_size_t)lengths[i];
    }
    return APR_SUCCESS;
}

/* mod_log_config has just put its own writer back in place. Directives and other modules may
 * still choose another. */
static int pre_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    set_writer_fn *set_writer = APR_RETRIEVE_OPTIONAL_FN(ap_log_set_writer);

    (void)pconf;
    (void)plog;
    (void)ptemp;
    at_once = NULL;
    if (set_writer) {
        at_once = set_writer(write_line);
        set_writer(at_once);
    }
    return OK;
}

void rp_log_lines_child_init(void)
{
    set_writer_fn *set_writer = APR_RETRIEVE_OPTIONAL_FN(ap_log_set_writer);
    ap_log_writer *chosen = at_once ? set_writer(write_line) : NULL;

    if (at_once && chosen != at_once) {
        set_writer(chosen);
    }
}

void rp_log_lines_register(void)
{
    static const char *const after[] = { "mod_log_config.c", NULL };

    ap_hook_pre_config(pre_config, after, NULL, APR_HOOK_REALLY_FIRST);
}
