/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What unit tests can ask the stand-in for httpd (httpd_shim.c). */
#ifndef HTTPD_SHIM_H
#define HTTPD_SHIM_H

/** How many log lines so far contain text. Any thread. */
int shim_logged(const char *text);

#endif
