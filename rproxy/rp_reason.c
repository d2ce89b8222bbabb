/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <string.h>
#include <apr_strings.h>
#include "rproxy/rp_reason.h"

static const rp_reason_info reasons[] = {
    [RP_REASON_NONE] = {
        "none", "", 0, "RP0100",
        "Nothing failed."
    },
    [RP_REASON_DNS_ERROR] = {
        "dns-error", "dns_error", 502, "RP0101",
        "The upstream's name has no address: check its spelling in the target and that the "
        "servers of RProxyResolver (or resolv.conf) know it."
    },
    [RP_REASON_DNS_TIMEOUT] = {
        "dns-timeout", "dns_timeout", 504, "RP0102",
        "The name servers did not answer in time: check that they can be reached, or name "
        "others with RProxyResolver."
    },
    [RP_REASON_REFUSED] = {
        "connection-refused", "connection_refused", 502, "RP0103",
        "Every address of the upstream refused the connection: check that it runs and listens on "
        "the target's port or socket."
    },
    [RP_REASON_UNROUTABLE] = {
        "unroutable", "destination_ip_unroutable", 502, "RP0104",
        "There is no route to any address of the upstream: check this machine's network and "
        "the address in the target."
    },
    [RP_REASON_CONNECT_FAILED] = {
        "connect-failed", "destination_unavailable", 502, "RP0105",
        "The connection to the upstream could not be made: the log names the system's error; check "
        "limits of descriptors and ports, and the permissions of a Unix socket."
    },
    [RP_REASON_CONNECT_TIMEOUT] = {
        "connect-timeout", "connection_timeout", 504, "RP0106",
        "The upstream did not take the connection in time: check that it runs and that no firewall "
        "drops packets, or raise RProxyTimeout connect=."
    },
    [RP_REASON_TLS_CERTIFICATE] = {
        "tls-certificate", "tls_certificate_error", 502, "RP0107",
        "The upstream's certificate did not verify: name its CA with RProxyTLS ca=, its name with "
        "RProxyTLS name=, or renew it."
    },
    [RP_REASON_TLS_PROTOCOL] = {
        "tls-protocol", "tls_protocol_error", 502, "RP0108",
        "TLS with the upstream failed: check that the port speaks TLS and that protocols, ciphers "
        "and a client certificate of RProxyTLS are what it asks for."
    },
    [RP_REASON_CLOSED_EARLY] = {
        "closed-early", "connection_terminated", 502, "RP0109",
        "The upstream closed the connection before it answered: look into its log for a crash or a "
        "limit."
    },
    [RP_REASON_INCOMPLETE] = {
        "incomplete-response", "http_response_incomplete", 502, "RP0110",
        "The upstream closed the connection in the middle of its answer: look into its log for a "
        "crash or a time limit."
    },
    [RP_REASON_BAD_RESPONSE] = {
        "bad-response", "http_protocol_error", 502, "RP0111",
        "The upstream's answer is not valid HTTP: the log says what is wrong; repair the upstream, "
        "or check that the target's port speaks HTTP."
    },
    [RP_REASON_FIRST_BYTE_TIMEOUT] = {
        "first-byte-timeout", "http_response_timeout", 504, "RP0112",
        "The upstream did not begin to answer in time: find out why it is slow, or raise "
        "RProxyTimeout first-byte=."
    },
    [RP_REASON_IDLE_TIMEOUT] = {
        "idle-timeout", "connection_read_timeout", 504, "RP0113",
        "No byte moved for too long: find out which side stalled, or raise RProxyTimeout idle=."
    },
    [RP_REASON_TOTAL_TIMEOUT] = {
        "total-timeout", "http_response_timeout", 504, "RP0114",
        "The exchange took longer than it may: find out why it is slow, or raise RProxyTimeout "
        "total=."
    },
    [RP_REASON_TUNNEL_TIMEOUT] = {
        "tunnel-timeout", "connection_read_timeout", 0, "RP0115",
        "The tunnel was silent for too long: let one side send pings, or raise RProxyTimeout "
        "tunnel=."
    },
    [RP_REASON_BAD_UPGRADE] = {
        "bad-upgrade", "http_upgrade_failed", 502, "RP0116",
        "The upstream switched to a protocol that was not asked for: repair the upstream, or check "
        "that the target is the intended one."
    },
    [RP_REASON_REQUEST_BODY] = {
        "request-body", "http_request_error", 400, "RP0117",
        "The client's request body broke off or is malformed: the client has to send it again, "
        "complete."
    },
    [RP_REASON_CLIENT_GONE] = {
        "client-gone", "http_request_error", 0, "RP0118",
        "The client left before the answer was complete: nothing to do, unless many leave because "
        "answers are slow."
    },
    [RP_REASON_CLIENT_TIMEOUT] = {
        "client-timeout", "http_request_error", 408, "RP0119",
        "The client stalled while it sent or read: nothing to do, unless slow clients are "
        "expected; then raise RProxyTimeout idle=."
    },
    [RP_REASON_BAD_REQUEST] = {
        "bad-request", "http_request_error", 400, "RP0120",
        "The request cannot be sent on safely: the log names the field or part at fault; the "
        "client has to be repaired."
    },
    [RP_REASON_NOT_ALLOWED] = {
        "not-allowed", "http_request_denied", 403, "RP0121",
        "The target of an .htaccess file is not allowed: permit it in the server's configuration "
        "with RProxyAllowTarget, or remove the rule."
    },
    [RP_REASON_TOO_MANY_ENDPOINTS] = {
        "too-many-endpoints", "connection_limit_reached", 503, "RP0122",
        "Too many different targets of .htaccess files are in use at once: use fewer, or move them "
        "into the server's configuration."
    },
    [RP_REASON_INTERNAL] = {
        "internal-error", "proxy_internal_error", 500, "RP0123",
        "The proxy failed on its own: the log has the detail; please report it with the log lines."
    },
    [RP_REASON_NO_MEMBER] = {
        "no-member", "destination_unavailable", 503, "RP0124",
        "No member of the pool can take the request: see why they are down, draining or ejected, "
        "and repair or add members of its <RProxyBalancer>."
    },
    [RP_REASON_POOL_BUSY] = {
        "pool-busy", "connection_limit_reached", 503, "RP0125",
        "All members of the pool that are up have as many requests as their max= allows: raise it, "
        "add members, or let requests wait with RProxyQueue."
    },
    [RP_REASON_QUEUE_FULL] = {
        "queue-full", "connection_limit_reached", 503, "RP0126",
        "All members of the pool are at their max=, and as many requests wait as RProxyQueue "
        "allows: add members, or raise max= of either."
    },
    [RP_REASON_QUEUE_TIMEOUT] = {
        "queue-timeout", "connection_limit_reached", 503, "RP0127",
        "No member of the pool had room for the request in the time of RProxyQueue timeout=: find "
        "out why they are slow, add members, or raise their max=."
    },
};

_Static_assert(sizeof(reasons) / sizeof(reasons[0]) == RP_REASON_COUNT,
               "each reason needs its line");

const rp_reason_info *rp_reason_get(rp_reason reason)
{
    if ((unsigned int)reason >= RP_REASON_COUNT) {
        return &reasons[RP_REASON_INTERNAL];
    }
    return &reasons[reason];
}

const char *rp_reason_retry_after(rp_reason reason)
{
    switch (reason) {
    case RP_REASON_NO_MEMBER:
    case RP_REASON_POOL_BUSY:
    case RP_REASON_QUEUE_FULL:
    case RP_REASON_QUEUE_TIMEOUT:
        return "5";                     /* what keeps a pool from serving seldom lasts longer */
    default:
        return NULL;
    }
}

const char *rp_reason_proxy_status(apr_pool_t *pool, rp_reason reason, const char *via)
{
    const char *name = via ? strchr(via, ' ') : NULL;

    return apr_psprintf(pool, "\"%s\"; error=%s", name ? name + 1 : "rproxy",
                        rp_reason_get(reason)->proxy_status);
}
