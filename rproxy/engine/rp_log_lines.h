/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What mod_log_config writes into its files for the requests of a loop: the lines of a round go by
 * one system call, not by one each. They are there before the loop waits again. Where another
 * module or BufferedLogs has taken over the writing of lines, that is left to them. */
#ifndef RP_LOG_LINES_H
#define RP_LOG_LINES_H

#include <apr_pools.h>

/** A loop's. */
typedef struct rp_log_lines rp_log_lines;

void rp_log_lines_register(void);

/** Once in a child, before its loops. */
void rp_log_lines_child_init(void);

rp_log_lines *rp_log_lines_create(apr_pool_t *pool);

/** From now on what this thread logs is collected; NULL: is written at once. */
void rp_log_lines_collect(rp_log_lines *lines);

void rp_log_lines_write(rp_log_lines *lines);

#endif
