/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What the files that read the balancer's configuration share; nobody else includes it. */
#ifndef RP_BALANCER_CONFIG_H
#define RP_BALANCER_CONFIG_H

#include "balancer/rp_balancer.h"

extern module AP_MODULE_DECLARE_DATA rproxy_balancer_module;

/** What a server or virtual host has. */
typedef struct rp_balancer_server {
    apr_hash_t *balancers;              /* by name: rp_balancer *; merged: those it sees */
} rp_balancer_server;

/** The pool whose section a directive stands in, or NULL. */
rp_balancer *rp_balancer_section_of(cmd_parms *cmd);

/** The message for a directive that stands outside of all pools. */
const char *rp_balancer_misplaced(cmd_parms *cmd);

/** Directives of which a pool has one. */
enum {
    RP_ONCE_METHOD = 1,
    RP_ONCE_OUTLIER = 2,
    RP_ONCE_QUEUE = 4,
    RP_ONCE_BUDGET = 8,
    RP_ONCE_RESOLVE = 16,
    RP_ONCE_STICKY = 32
};

/** The pool that a directive of which there is one stands in, and its words. Returns NULL or a
 * message. */
const char *rp_balancer_once(cmd_parms *cmd, const char *arguments, unsigned int which,
                             rp_balancer **balancer, apr_array_header_t **words);

/** The arguments of a section, as "<NAME arguments>". Returns NULL or a message. */
const char *rp_balancer_section_words(cmd_parms *cmd, const char *arguments,
                                      apr_array_header_t **words);

/** The names of all providers, for messages: "a, b, c". */
const char *rp_balancer_provider_names(apr_pool_t *pool, const char *group, const char *version);

/** What the words of a directive that takes "off" or keys say: the index of a key, and its value;
 * RP_KEY_OFF: off. argument is the word as it was written. Returns NULL or a message. */
typedef const char *rp_balancer_take(apr_pool_t *pool, const char *argument, int key,
                                     const char *value, rp_balancer *balancer);

#define RP_KEY_OFF (-1)

/** Gives all words to take; names ends with NULL. Returns NULL or a message. */
const char *rp_balancer_off_or_keys(apr_pool_t *pool, const apr_array_header_t *words,
                                    const char *const *names, rp_balancer_take *take,
                                    rp_balancer *balancer);

/* rp_balancer_settings.c */

/** Reads what stands in <RProxyBalancer>, or of_member in <RProxyMember>: first and those behind.
 * What the core's directives set goes to *section, which stays as it is if there are none. Returns
 * NULL or a message. */
const char *rp_balancer_read_inside(cmd_parms *cmd, ap_directive_t *first, int of_member,
                                    ap_conf_vector_t **section);

/** All of the section has been read: makes the settings of the pool and of its members. */
void rp_balancer_make_settings(apr_pool_t *pool, rp_balancer *balancer);

/* rp_proxy_names.c */

/** Takes the parameters of mod_proxy out of a member's words, and puts what they set in front of
 * *first as directives of the core. Returns NULL or a message: what to write instead. */
const char *rp_proxy_names_take(cmd_parms *cmd, apr_array_header_t *words, ap_directive_t **first);

#endif
