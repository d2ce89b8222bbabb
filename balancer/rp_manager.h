/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The manager: SetHandler rproxy-manager in a <Location>. An API of JSON below the path api/ of the
 * Location (rp_manager_api.c), and a page of HTML at the Location itself (rp_manager_page.c). Both
 * show what rp_manager_json.c makes, and change members with rp_manager_set() and rp_manager_act().
 *
 * Who may read, httpd's authorisation has decided when a request comes here (Require). Changes are
 * refused unless RProxyManager changes=on, or changes=EXPR holds for the request; <Limit> and
 * <LimitExcept> with Require of their own come on top of that.
 *
 * A browser can be made to send requests by other sites (CSRF). A change is only made if the
 * browser doesn't say that it comes from elsewhere (Sec-Fetch-Site, else Origin), and
 * - of the API: its method, or its media type of JSON, is one that needs the leave of this server
 *   across sites, which nobody gets;
 * - of a form: it has the token of rp_manager_token(). */
#ifndef RP_MANAGER_H
#define RP_MANAGER_H

#include <jansson.h>
#include "balancer/rp_roster.h"

#define RP_MANAGER_HANDLER "rproxy-manager"
#define RP_MANAGER_TOKEN "token"        /* name of the form's field */
#define RP_MANAGER_BODY_MAX (64 * 1024)

/** A request for the manager. */
typedef struct rp_manager {
    request_rec *r;
    const char *base;                   /* the Location's path, without '/' at its end, not encoded;
                                         * of a page's path what is before the last '/' */
    const char *path;                   /* behind it: "/api..." the API, "/" the page, "/NAME" what
                                         * belongs to it, or the page without '/' at its end */
    int may_change;                     /* nonzero: this request's user may change things */
    const char *who;                    /* for the journal: "alice 192.0.2.1", or the address */
} rp_manager;

/* ---- the configuration (rp_manager.c) -------------------------------------------------------- */

/** Of a section: RProxyManager. */
void *rp_manager_create_dir(apr_pool_t *pool, char *dir);
void *rp_manager_merge_dir(apr_pool_t *pool, void *base, void *add);
const char *rp_manager_directive(cmd_parms *cmd, void *dir, const char *arguments);

void rp_manager_register(void);

/* ---- access (rp_manager_access.c) ------------------------------------------------------------ */

/** The parent, in post_config: the key of tokens, if changes are allowed anywhere. */
void rp_manager_access_start(apr_pool_t *pconf, const server_rec *server);
/** In pre_config. */
void rp_manager_access_begin(void);
/** Changes are allowed somewhere. */
void rp_manager_access_want(void);

/** NULL if the request may change things as far as its user, method and origin are concerned; else
 * why not, with a remedy: for 403. */
const char *rp_manager_refuse(const rp_manager *manager);

/** What a form has to send as RP_MANAGER_TOKEN: good for this user (without one: this address) for
 * an hour at least. URL-safe text. NULL: there is no key, forms can't be used. */
const char *rp_manager_token(const rp_manager *manager);

/** Nonzero if text, which may be NULL, is a token as above. */
int rp_manager_token_is_good(const rp_manager *manager, const char *text);

/** The request's body, at most RP_MANAGER_BODY_MAX bytes with a NUL behind them. Returns 0, or the
 * status to answer: 413, or what httpd says. */
int rp_manager_read(const rp_manager *manager, char **body, apr_size_t *len);

/* ---- actions (rp_manager_act.c) -------------------------------------------------------------- */

typedef enum rp_manager_verb {
    RP_MANAGER_ADD,                     /* needs url */
    RP_MANAGER_CHANGE,                  /* the others number */
    RP_MANAGER_REMOVE,
    RP_MANAGER_FORGET,                  /* back to the configuration */
    RP_MANAGER_FORGET_ALL               /* all of the pool */
} rp_manager_verb;

typedef struct rp_manager_action {
    rp_balancer *balancer;
    int number;                         /* of the member; out: that of one that was added */
    const char *url;                    /* of the member, for the log too; NULL: of none */
    const char *what;                   /* what rp_manager_set() took: " weight=3 state=drain" */
    rp_roster_change change;            /* if_version may be set; message: out */
} rp_manager_action;

/** An action that does nothing yet, signed by the request's user. */
rp_manager_action rp_manager_action_begin(const rp_manager *manager, rp_balancer *balancer);

/** The values a member has, and their names. */
typedef struct rp_manager_key {
    const char *name;
    unsigned int which;                 /* RP_VALUE_* */
} rp_manager_key;

#define RP_MANAGER_KEYS 7
extern const rp_manager_key rp_manager_keys[RP_MANAGER_KEYS];

/** Takes a value: "state", "weight", "max", "backup" (true, false), "zone", "route", "slowstart"
 * (0, 30s, ...). text NULL: as configured. Returns NULL, or what is wrong, with a remedy. */
const char *rp_manager_set(rp_manager_action *action, const char *key, const char *text);

/** Does it; the caller has asked rp_manager_refuse(). Returns 200 (201: a member was added) or 400,
 * 404, 409, 412, 507: then action->change.message says why not, with a remedy. */
int rp_manager_act(rp_manager_action *action, rp_manager_verb verb);

/** The pool of this name; NULL: none. */
rp_balancer *rp_manager_pool(const char *name);

/** The member with this id, those that are removed included; NULL: none. *version may be NULL. */
const rp_roster_member *rp_manager_member(const rp_manager *manager, rp_balancer *balancer,
                                          const char *id, unsigned long long *version);

/* ---- what is shown (rp_manager_json.c) ------------------------------------------------------- */

/* The caller frees what these return. NULL: there is no memory. Times are texts as RFC 3339 has
 * them, in UTC with milliseconds; times that something takes are milliseconds, but for "slowstart",
 * which is written as in the configuration. Texts are UTF-8; they aren't escaped for HTML.
 *
 * Everything: {
 *   "version": "1.2.3", "time": now, "user": text or null, "changes": true (may_change),
 *   "pools": [ pool, ... ]
 * }
 *
 * A pool: {
 *   "name": "app", "href": path of it in the API, "etag": "\"...\"",
 *   "method": "roundrobin", "zone": text or null (the server's),
 *   "states": { "up": 3, "drain": 0, "down": 0, "ejected": 0, "unhealthy": 0, "unchecked": 0,
 *               "removed": 0 },
 *   "traffic": { "requests", "retries", "in_flight", "no_member", "busy" },     (numbers)
 *   "latency": { "first_byte": { "count", "sum", "p50", "p90", "p99" }, "total": the same },
 *                                                                     (ms; pNN null without any)
 *   "queue": null or { "max", "timeout", "waiting", "queued", "full", "timeouts" },
 *   "retry_budget": null or { "percent", "min", "retrying", "refused" },
 *   "sessions": null or { "kind": "cookie", "name": text or null, "down": "repin" },
 *   "health": null or { "kind": "http", "panic": false },
 *   "members": [ member, ... ]
 * }
 *
 * A member: {
 *   "id", "href", "number", "url",
 *   "from": "configuration", "api" or "discovery", "who": text, "changed": time or null,
 *   "removed": false,
 *   "state": "up", "drain", "down", "ejected", "unhealthy", "unchecked" or "removed": what it is,
 *   "why": text: why it is that; "": as configured,
 *   "values": { "state": "up", "weight": 1, "max": 0, "backup": false, "zone": "", "route": "",
 *               "slowstart": "0" },
 *   "configured": the same, or of a member that isn't of the configuration what it began with,
 *   "overridden": [ "weight", ... ],
 *   "ejected_until": time or null, "ejections": number (ever),
 *   "traffic": { "requests", "failures", "retries", "in_flight", "sent", "received",   (bytes)
 *                "connections_opened", "connections_reused",
 *                "answers": { "none", "1xx", "2xx", "3xx", "4xx", "5xx" } },
 *   "latency": as of a pool,
 *   "health": null or { "state": "up", "down" or "unknown", "cause": text, "since": time or null,
 *                       "checked": time or null, "took": ms or null, "checks", "failures" },
 *   "agent": null or { "percent": number or null, "max": number or null,
 *                      "mode": "ready", "drain", "maint" or null, "health": "up", "down" or null }
 * }
 *
 * The journal, newest first: { "entries": [ { "number", "time", "pool", "from", "who", "what" },
 * ... ] }
 *
 * The diff: { "pools": [ { "name", "members": [ { "id", "href", "url", "difference": "added",
 * "removed" or "changed", "who", "changed",
 * "values": { "weight": { "configured": 1, "now": 3 } } }, ... ] }, ... ] }: pools with a
 * difference only; what discovery has found is none. */
json_t *rp_manager_json_all(const rp_manager *manager);
json_t *rp_manager_json_pool(const rp_manager *manager, rp_balancer *balancer);
json_t *rp_manager_json_member(const rp_manager *manager, rp_balancer *balancer,
                               const rp_roster_member *member);
json_t *rp_manager_json_journal(const rp_manager *manager);
json_t *rp_manager_json_diff(const rp_manager *manager);

/* ---- names of members and versions (rp_manager_id.c) ----------------------------------------- */

/** What stands for the member in URLs: its URL, in the form that is compared, as base64url (RFC
 * 4648 section 5) without padding. The same in all pools, and as long as the member has that URL.
 */
const char *rp_manager_id(apr_pool_t *pool, const rp_roster_member *member);

/** The URL (in the form that is compared) for an id; NULL: it is none. */
const char *rp_manager_id_url(apr_pool_t *pool, const char *id);

/** The parent, in post_config: so that ETags of the last run of the server are others. */
void rp_manager_id_start(apr_pool_t *process_pool);

/** "\"...\"", of a version of the pool's roster. */
const char *rp_manager_etag(apr_pool_t *pool, const rp_balancer *balancer,
                            unsigned long long version);

/** The version if text is such an ETag of the pool as it is in this run of the server; else 0. */
unsigned long long rp_manager_etag_version(const rp_balancer *balancer, const char *text);

/* ---- the two faces --------------------------------------------------------------------------- */

/* Handlers: they answer, or return a status. */
int rp_manager_api(rp_manager *manager);        /* path begins with "/api" */
int rp_manager_page(rp_manager *manager);       /* any other path; GET, HEAD and POST */

#endif
