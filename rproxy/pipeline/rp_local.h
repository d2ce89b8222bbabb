/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Rules that are known only once a request's sections are merged: <If>, <Directory>, .htaccess. */
#ifndef RP_LOCAL_H
#define RP_LOCAL_H

#include "rproxy/pipeline/rp_task.h"

/** Whether the rule takes the request; sets the match of task, which is new, then (its route's
 * target is NULL if the rule exempts). OK, DECLINED: the path isn't under the rule; else an HTTP
 * status. */
int rp_local_apply(request_rec *r, const rp_local_rule *rule, rp_task *task);

/** After rewriting: OK, or HTTP_FORBIDDEN if a .htaccess file led outside of what is allowed. */
int rp_local_check_target(const rp_task *task);

#endif
