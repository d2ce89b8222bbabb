/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Names for duties of the keeper: c-ares in its loop, with the servers and times of RProxyResolver.
 * A channel for each list of servers in the child that leads, made with the first query, gone when
 * it leads no longer. Only the keeper's thread may call. */
#ifndef RP_DNS_H
#define RP_DNS_H

#include <netinet/in.h>
#include <sys/socket.h>
#include "include/mod_rproxy.h"
#include "balancer/rp_keeper.h"

#define RP_DNS_ADDRESSES_MAX 8

typedef struct rp_dns_address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } at;
    socklen_t len;
} rp_dns_address;

/** A query ended. count 0: there are no addresses, cause says why. */
typedef void rp_dns_ended(void *baton, const rp_dns_address *addresses, int count,
                          const char *cause);

typedef struct rp_dns_query rp_dns_query;

/** Asks for the addresses of a name, IPv4 and IPv6. ended() is called once, never from within this
 * call. NULL: there is no memory, or c-ares can't start. Who asks gives up with rp_dns_cancel()
 * before the keeper's pool goes. */
rp_dns_query *rp_dns_addresses(rp_keeper *keeper, const char *host, int port, rp_dns_ended *ended,
                               void *baton);

/* ---- records --------------------------------------------------------------------------------- */

#define RP_DNS_RECORDS_MAX 256

typedef enum rp_dns_type { RP_DNS_A, RP_DNS_AAAA, RP_DNS_SRV } rp_dns_type;

typedef struct rp_dns_record {
    char text[256];                     /* the address, or SRV: the host's name */
    int port, priority, weight;         /* SRV */
} rp_dns_record;

typedef struct rp_dns_answer {
    const rp_dns_record *records;
    int count;                          /* 0: cause says why */
    int ttl;                            /* seconds, of the record that ends first */
    int is_absent;                      /* nonzero: the name is known not to have such records */
    const char *cause;
} rp_dns_answer;

typedef void rp_dns_found(void *baton, const rp_dns_answer *answer);

/** Asks for records of a name, at servers (for c-ares; NULL: those of RProxyResolver). found() is
 * called once, never from within this call; what it gets lives until it returns. Otherwise as
 * above. */
rp_dns_query *rp_dns_find(rp_keeper *keeper, const char *servers, const char *name,
                          rp_dns_type type, rp_dns_found *found, void *baton);

/** RProxyResolver. */
const rproxy_resolver *rp_dns_resolver(const rp_keeper *keeper);

/** Nobody is told any more. */
void rp_dns_cancel(rp_dns_query *query);

#endif
