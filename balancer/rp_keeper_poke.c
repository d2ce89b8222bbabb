/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* How any process wakes the one that leads: all of them have the same descriptor, only the leader
 * waits for it. */
#include <errno.h>
#include <unistd.h>
#include <sys/eventfd.h>

#include "balancer/rp_keeper.h"

#define KEY "rproxy-balancer-keeper-1"

static int poke_fd = -1;

apr_status_t rp_keeper_prepare(apr_pool_t *process_pool)
{
    void *found = NULL;
    int *fd;

    apr_pool_userdata_get(&found, KEY, process_pool);
    if (!(fd = found)) {
        fd = apr_palloc(process_pool, sizeof(*fd));
        if ((*fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) < 0)
            return errno;
        apr_pool_userdata_set(fd, KEY, NULL, process_pool);
    }
    poke_fd = *fd;
    return APR_SUCCESS;
}

int rp_keeper_poke_fd(void)
{
    return poke_fd;
}

void rp_keeper_poke(void)
{
    apr_uint64_t one = 1;

    /* It can only fail because it is readable already. */
    if (poke_fd >= 0 && write(poke_fd, &one, sizeof(one)) < 0)
        return;
}
