/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Why an exchange or an upstream connection failed: one enumerated reason that reaches the client's
 * status, Proxy-Status (RFC 9209), the log and the counters. Plain data, any thread. */
#ifndef RP_REASON_H
#define RP_REASON_H

#include <apr_pools.h>

typedef enum rp_reason {
    RP_REASON_NONE = 0,
    RP_REASON_DNS_ERROR,                /* the upstream's name has no address */
    RP_REASON_DNS_TIMEOUT,              /* no answer from the resolver in time */
    RP_REASON_REFUSED,                  /* every address refused the connection */
    RP_REASON_UNROUTABLE,               /* no route to any address */
    RP_REASON_CONNECT_FAILED,           /* another error of socket() or connect() */
    RP_REASON_CONNECT_TIMEOUT,          /* RProxyTimeout connect= */
    RP_REASON_TLS_CERTIFICATE,          /* the upstream's certificate did not verify */
    RP_REASON_TLS_PROTOCOL,             /* handshake or record failure, alert */
    RP_REASON_CLOSED_EARLY,             /* closed before any byte of a response */
    RP_REASON_INCOMPLETE,               /* closed in the middle of a response */
    RP_REASON_BAD_RESPONSE,             /* malformed head, framing or chunk; see rp_http_error */
    RP_REASON_FIRST_BYTE_TIMEOUT,       /* RProxyTimeout first-byte= */
    RP_REASON_IDLE_TIMEOUT,             /* RProxyTimeout idle=, either side */
    RP_REASON_TOTAL_TIMEOUT,            /* RProxyTimeout total= */
    RP_REASON_TUNNEL_TIMEOUT,           /* RProxyTimeout tunnel= */
    RP_REASON_BAD_UPGRADE,              /* 101 that nobody asked for, or to another protocol */
    RP_REASON_REQUEST_BODY,             /* the client's body broke off or was malformed */
    RP_REASON_CLIENT_GONE,              /* the client left before the answer was complete */
    RP_REASON_CLIENT_TIMEOUT,           /* the client's body or reading stalled */
    RP_REASON_BAD_REQUEST,              /* the request cannot be sent on: framing, target, Host */
    RP_REASON_NOT_ALLOWED,              /* .htaccess target outside RProxyAllowTarget */
    RP_REASON_TOO_MANY_ENDPOINTS,       /* limit of dynamic endpoints reached */
    RP_REASON_INTERNAL,
    RP_REASON_NO_MEMBER,                /* no member of the pool is up */
    RP_REASON_POOL_BUSY,                /* all that are up are at their max= */
    RP_REASON_QUEUE_FULL,               /* and RProxyQueue max= requests wait already */
    RP_REASON_QUEUE_TIMEOUT,            /* RProxyQueue timeout= */
    RP_REASON_COUNT
} rp_reason;

typedef struct rp_reason_info {
    const char *name;                   /* for log and rproxy-error, stable: "connect-timeout" */
    const char *proxy_status;           /* RFC 9209 section 2.3 error type */
    int http_status;                    /* answer if nothing was sent yet; 0: none possible */
    const char *message_id;             /* "RP0101", see docs/messages.md */
    const char *text;                   /* sentence with a remedy */
} rp_reason_info;

/** Never NULL. */
const rp_reason_info *rp_reason_get(rp_reason reason);

/** Value of Retry-After in the answer, seconds; NULL: it has none. */
const char *rp_reason_retry_after(rp_reason reason);

/** Value of Proxy-Status (RFC 9209): who failed and how; nothing about addresses inside. via is our
 * value of Via, NULL: none. */
const char *rp_reason_proxy_status(apr_pool_t *pool, rp_reason reason, const char *via);

#endif
