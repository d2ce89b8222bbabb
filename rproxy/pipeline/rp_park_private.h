/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What rp_park.c and rp_park_idle.c share; nobody else includes it. */
#ifndef RP_PARK_PRIVATE_H
#define RP_PARK_PRIVATE_H

#include <openssl/ssl.h>
#include "ap_mpm.h"
#include "rproxy/pipeline/rp_park.h"
#include "rproxy/pipeline/rp_park_timer.h"

#ifndef AP_MPMQ_CAN_WAITIO
/* Never reached: nothing is parked by a module built for httpd before 2.4.63. */
#define CONN_STATE_ASYNC_WAITIO CONN_STATE_SUSPENDED
#endif

struct rp_parking {
    conn_rec *c;
    apr_socket_t *socket;               /* the client's, whose descriptor is swapped */
    SSL *tls;                           /* mod_ssl's on this connection; NULL: none */
    rp_task *task;                      /* whose output must not block; parked or about to be */
    rp_park_timer timer;
    rp_wait_fd fds[RP_CONN_WAITS_MAX];  /* upstream descriptors in the epoll set */
    int fd_count;
    int client_fd;
    int epfd;                           /* -1 before the first parking */
    apr_uint32_t client_events;         /* registered for client_fd; 0: not in the set */
    void *engine;                       /* the engine's, whose connection it is; NULL: the MPM's */
    const char *protocol;               /* chosen in the handshake for the engine; or NULL */
    const rp_task_preset *preset;       /* what became of the next request already; or NULL */
    unsigned int in_hook:1;             /* our process_connection hook is below on the stack */
    unsigned int parked:1;              /* the MPM is to wait for epfd */
    unsigned int swapped:1;             /* socket carries epfd */
    unsigned int has_filter:1;          /* the flow filter is on the connection */
    unsigned int idle:1;              /* waits for the client's next request in the MPM's pollset */
    unsigned int slow_client:1;        /* its last request took longer to come than is waited for */
    apr_interval_time_t keep_alive;     /* KeepAliveTimeout after a request of ours; 0: the MPM's
                                         * Timeout is shorter, or no request was ours yet */
    apr_time_t answered_at;          /* end of the last request, while slow_client is to be known */
};

/** Nonzero if an exchange of this child is parked, or one was so lately. */
int rp_park_was_used_lately(apr_interval_time_t lately);

/** Nonzero if the connection is kept alive, everything is written and nothing of a next request is
 * read: what the MPM would find out before it waits for that request. */
int rp_park_idle_is(const rp_parking *parking);

/** Waits a moment for the next request of a fast client: nonzero if it came. */
int rp_park_idle_next_came(rp_parking *parking);

/** Leaves the connection to the MPM, until its next request comes. */
void rp_park_idle_wait(rp_parking *parking);

/** Ends that, if it was so. Nonzero if KeepAliveTimeout ended the connection meanwhile. */
int rp_park_idle_end(rp_parking *parking);

/** A request has come: was it fast? */
void rp_park_idle_learn_pace(rp_parking *parking);

#endif
