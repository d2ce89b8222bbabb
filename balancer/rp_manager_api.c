/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The API of the manager: JSON (RFC 8259), errors as problem details (RFC 9457), changes with PUT,
 * merge patch (RFC 7396) and DELETE, conditional by ETag (RFC 9110 section 13). */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_protocol.h"

#include "balancer/rp_manager.h"

#define JSON "application/json"
#define MERGE_PATCH "application/merge-patch+json"
#define PROBLEM "application/problem+json"

/** A request for what a path of the API names. */
typedef struct api_call {
    rp_manager *manager;
    request_rec *r;
    rp_balancer *balancer;
    const char *id;                     /* of the member; NULL: none */
    json_t *body;                       /* NULL: none */
} api_call;

/* ---- answers --------------------------------------------------------------------------------- */

/** Sends the tree, which it frees; NULL: there is no memory for one. */
static int send_json(request_rec *r, int status, const char *type, json_t *tree)
{
    char *text = tree ? json_dumps(tree, JSON_INDENT(1) | JSON_REAL_PRECISION(12)) : NULL;
    apr_bucket_brigade *bb;
    apr_size_t len;

    json_decref(tree);
    if (!text)
        return HTTP_SERVICE_UNAVAILABLE;
    len = strlen(text);
    r->status = status;
    ap_set_content_type(r, type);
    ap_set_content_length(r, (apr_off_t)len);
    bb = apr_brigade_create(r->pool, r->connection->bucket_alloc);
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_heap_create(text, len, free,
                                                       r->connection->bucket_alloc));
    APR_BRIGADE_INSERT_TAIL(bb, apr_bucket_eos_create(r->connection->bucket_alloc));
    ap_pass_brigade(r->output_filters, bb);
    return OK;
}

/** A problem: detail names the cause and a remedy. */
static int fail(request_rec *r, int status, const char *detail)
{
    const char *line = ap_get_status_line(status);
    json_t *problem = json_object();

    json_object_set_new(problem, "type", json_string("about:blank"));
    json_object_set_new(problem, "title", json_string(strlen(line) > 4 ? line + 4 : line));
    json_object_set_new(problem, "status", json_integer(status));
    /* The detail may repeat what the client has sent, in any encoding. */
    if (json_object_set_new(problem, "detail", json_string(detail)) != 0)
        json_object_set_new(problem, "detail",
                            json_string(ap_escape_logitem(r->pool, detail)));
    return send_json(r, status, PROBLEM, problem);
}

static void set_etag(const api_call *call, unsigned long long version)
{
    apr_table_setn(call->r->headers_out, "ETag",
                   rp_manager_etag(call->r->pool, call->balancer, version));
}

/* ---- conditions ------------------------------------------------------------------------------ */

/** The version if one of the ETags in the list is of the pool as it is now; else 0. With weak
 * nonzero a W/ in front counts as well. */
static unsigned long long match(const api_call *call, const char *list, int weak)
{
    unsigned long long now = rp_roster_version(call->balancer);
    char *last, *copy = apr_pstrdup(call->r->pool, list);

    for (const char *tag = apr_strtok(copy, ", \t", &last); tag;
         tag = apr_strtok(NULL, ", \t", &last)) {
        if (weak && !strncmp(tag, "W/", 2))
            tag += 2;
        if (rp_manager_etag_version(call->balancer, tag) == now)
            return now;
    }
    return 0;
}

/** The version that If-Match asks for, 0: any. Nonzero: it isn't met. */
static int if_match(const api_call *call, unsigned long long *version)
{
    const char *list = apr_table_get(call->r->headers_in, "If-Match");

    *version = 0;
    if (!list || !strcmp(list, "*"))
        return 0;
    *version = match(call, list, 0);
    return !*version;
}

static int is_not_modified(const api_call *call)
{
    const char *list = apr_table_get(call->r->headers_in, "If-None-Match");

    return list && (!strcmp(list, "*") || match(call, list, 1));
}

static int outdated(request_rec *r)
{
    return fail(r, HTTP_PRECONDITION_FAILED, "the pool has another version than If-Match says; GET "
                "it again, then repeat the change with its ETag");
}

/* ---- reading --------------------------------------------------------------------------------- */

static int get_all(api_call *call)
{
    return send_json(call->r, HTTP_OK, JSON, rp_manager_json_all(call->manager));
}

static int get_journal(api_call *call)
{
    return send_json(call->r, HTTP_OK, JSON, rp_manager_json_journal(call->manager));
}

static int get_diff(api_call *call)
{
    return send_json(call->r, HTTP_OK, JSON, rp_manager_json_diff(call->manager));
}

/** The pool's tree; the answer gets the ETag of what stands there. */
static json_t *pool_tree(const api_call *call)
{
    json_t *tree = rp_manager_json_pool(call->manager, call->balancer);
    const char *etag = json_string_value(json_object_get(tree, "etag"));

    if (etag)
        apr_table_set(call->r->headers_out, "ETag", etag);
    return tree;
}

static int get_pool(api_call *call)
{
    if (is_not_modified(call)) {
        set_etag(call, rp_roster_version(call->balancer));
        return HTTP_NOT_MODIFIED;
    }
    return send_json(call->r, HTTP_OK, JSON, pool_tree(call));
}

static int get_members(api_call *call)
{
    json_t *tree = pool_tree(call), *made = json_object();

    json_object_set(made, "members", json_object_get(tree, "members"));
    json_decref(tree);
    return send_json(call->r, HTTP_OK, JSON, made);
}

static int no_member(const api_call *call)
{
    return fail(call->r, HTTP_NOT_FOUND,
                apr_psprintf(call->r->pool, "the pool %s has no member with this id; GET the pool "
                             "for those it has, PUT adds one", call->balancer->name));
}

static int get_member(api_call *call)
{
    unsigned long long version;
    const rp_roster_member *member =
        rp_manager_member(call->manager, call->balancer, call->id, &version);

    if (!member)
        return no_member(call);
    set_etag(call, version);
    return is_not_modified(call)
        ? HTTP_NOT_MODIFIED
        : send_json(call->r, HTTP_OK, JSON,
                    rp_manager_json_member(call->manager, call->balancer, member));
}

/* ---- bodies ---------------------------------------------------------------------------------- */

static int is_type(const char *type, const char *wanted)
{
    apr_size_t len = type ? strcspn(type, "; \t") : 0;

    return len == strlen(wanted) && !strncasecmp(type, wanted, len);
}

/** Reads the body of JSON. Returns OK, or why not; *detail is what to say then, NULL: nothing. */
static int read_body(api_call *call, const char **detail)
{
    request_rec *r = call->r;
    const char *type = apr_table_get(r->headers_in, "Content-Type");
    int is_patch = r->method_number == M_PATCH, status;
    json_error_t error;
    apr_size_t len;
    char *text;

    *detail = NULL;
    if (!is_type(type, JSON) && !(is_patch && is_type(type, MERGE_PATCH))) {
        if (is_patch)
            apr_table_setn(r->headers_out, "Accept-Patch", MERGE_PATCH ", " JSON);
        *detail = is_patch ? "send JSON with Content-Type: " MERGE_PATCH
                           : "send JSON with Content-Type: " JSON;
        return HTTP_UNSUPPORTED_MEDIA_TYPE;
    }
    if ((status = rp_manager_read(call->manager, &text, &len)) == HTTP_REQUEST_ENTITY_TOO_LARGE)
        *detail = "the body has more than 64 KiB; send less";
    if (status != OK || !len)
        return status;
    if (!(call->body = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error)))
        *detail = apr_psprintf(r->pool, "the body is no JSON: line %d, column %d: %s", error.line,
                               error.column, error.text);
    else if (!json_is_object(call->body))
        *detail = "the body is no object; send one, like {\"weight\": 2}";
    return *detail ? HTTP_BAD_REQUEST : OK;
}

static int is_known(const char *key)
{
    for (int i = 0; i < RP_MANAGER_KEYS; i++) {
        if (!strcmp(key, rp_manager_keys[i].name))
            return 1;
    }
    return 0;
}

/** The value as rp_manager_set() takes it, *text NULL for null. Returns NULL, or a message; what is
 * unknown is for rp_manager_set() to refuse. */
static const char *value_text(apr_pool_t *pool, const char *key, const json_t *value,
                              const char **text)
{
    int is_number = !strcmp(key, "weight") || !strcmp(key, "max");
    int is_boolean = !strcmp(key, "backup");

    *text = NULL;
    if (json_is_null(value))
        return NULL;
    if (is_number && json_is_integer(value))
        *text = apr_psprintf(pool, "%" APR_INT64_T_FMT, (apr_int64_t)json_integer_value(value));
    else if (is_boolean && json_is_boolean(value))
        *text = json_is_true(value) ? "true" : "false";
    else if (!is_number && !is_boolean && json_is_string(value))
        *text = apr_pstrdup(pool, json_string_value(value));
    else if (is_known(key))
        return apr_psprintf(pool, "\"%s\" is %s; or null, for what the configuration says", key,
                            is_number ? "a whole number" : is_boolean ? "true or false"
                                                                      : "a text in quotes");
    return NULL;
}

/** Puts the body's values into the action. url, if it may be there, goes to action->url. Returns
 * NULL, or a message. */
static const char *take_body(const api_call *call, rp_manager_action *action, int may_have_url)
{
    apr_pool_t *pool = call->r->pool;
    const char *key, *message, *text;
    json_t *value;

    json_object_foreach(call->body, key, value) {
        if (may_have_url && !strcmp(key, "url")) {
            if (!json_is_string(value))
                return "\"url\" is a text in quotes, like \"http://10.0.0.1:8080\"";
            action->url = apr_pstrdup(pool, json_string_value(value));
            continue;
        }
        if (!(message = value_text(pool, key, value, &text)))
            message = rp_manager_set(action, key, text);
        if (message)
            return message;
    }
    return NULL;
}

/* ---- changes --------------------------------------------------------------------------------- */

/** Answers with the member that has this URL in the form that is compared. */
static int answer_member(api_call *call, int status, const char *url)
{
    unsigned long long version = 0;
    apr_pool_t *pool = call->r->pool;
    const rp_roster_member wanted = { .key = rp_balancer_normal_url(pool, url) };
    const rp_roster_member *member =
        rp_manager_member(call->manager, call->balancer, rp_manager_id(pool, &wanted), &version);
    json_t *tree;

    set_etag(call, version);
    if (!member)                        /* somebody has removed it already */
        return HTTP_NO_CONTENT;
    tree = rp_manager_json_member(call->manager, call->balancer, member);
    if (status == HTTP_CREATED)
        apr_table_set(call->r->headers_out, "Location",
                      json_string_value(json_object_get(tree, "href")));
    return send_json(call->r, status, JSON, tree);
}

static int post_member(api_call *call)
{
    rp_manager_action action = rp_manager_action_begin(call->manager, call->balancer);
    const char *message = take_body(call, &action, 1);
    int status;

    if (message)
        return fail(call->r, HTTP_BAD_REQUEST, message);
    if (!action.url)
        return fail(call->r, HTTP_BAD_REQUEST, "there is no \"url\"; send one, like {\"url\": "
                    "\"http://10.0.0.1:8080\"}");
    if (if_match(call, &action.change.if_version))
        return outdated(call->r);
    status = rp_manager_act(&action, RP_MANAGER_ADD);
    return status == HTTP_CREATED ? answer_member(call, status, action.url)
                                  : fail(call->r, status, action.change.message);
}

/** Somebody else may change the pool between a look at the member and its change: then it is done
 * again, unless the client has said which version it means. */
#define TRIES 20

/** What a request does to the member it names; NULL, for PUT only: there is none. Returns a status,
 * or 0: it has been answered, *answer is what to return. */
typedef int member_change(api_call *call, rp_manager_action *action,
                          const rp_roster_member *member, int *answer);

static int change_member(api_call *call, rp_manager_action *action, member_change *change)
{
    const rp_manager_action begun = *action;
    unsigned long long wanted, version;
    int status, answer = OK, tries = 0;

    do {
        const rp_roster_member *member =
            rp_manager_member(call->manager, call->balancer, call->id, &version);

        *action = begun;
        if (if_match(call, &wanted) || (wanted && wanted != version)
            || (!member && apr_table_get(call->r->headers_in, "If-Match")))
            return outdated(call->r);
        if (!member && call->r->method_number != M_PUT)
            return no_member(call);
        action->change.if_version = version;
        if (member) {
            action->number = member->number;
            action->url = member->url;
        }
        status = change(call, action, member, &answer);
        if (!status)
            return answer;
    } while (status == HTTP_PRECONDITION_FAILED && !wanted && ++tries < TRIES);
    if (status == HTTP_OK || status == HTTP_CREATED)
        return answer_member(call, status, action->url);
    return fail(call->r, status, action->change.message);
}

static int put(api_call *call, rp_manager_action *action, const rp_roster_member *member,
               int *answer)
{
    const char *only_new = apr_table_get(call->r->headers_in, "If-None-Match");

    if (member && !member->is_removed) {
        if (only_new && !strcmp(only_new, "*")) {
            *answer = fail(call->r, HTTP_PRECONDITION_FAILED, "the member is there already; leave "
                           "out If-None-Match to replace its values");
            return 0;
        }
        action->change.forget = RP_VALUES_ALL & ~action->change.set;
        return rp_manager_act(action, RP_MANAGER_CHANGE);
    }
    action->change.forget = 0;
    if (!action->url)
        action->url = rp_manager_id_url(call->r->pool, call->id);
    return rp_manager_act(action, RP_MANAGER_ADD);
}

static int put_member(api_call *call)
{
    apr_pool_t *pool = call->r->pool;
    rp_manager_action action = rp_manager_action_begin(call->manager, call->balancer);
    const char *message = take_body(call, &action, 1), *url = rp_manager_id_url(pool, call->id);

    if (!message && !url)
        message = "the id is none: it is the URL of the member as base64url (RFC 4648 section 5) "
                  "without padding; or POST {\"url\": ...} to .../members";
    if (!message && action.url && strcmp(rp_balancer_normal_url(pool, action.url), url) != 0)
        message = apr_psprintf(pool, "\"url\" is not that of the id, which is %s; leave it out, or "
                               "PUT to the other id", url);
    return message ? fail(call->r, HTTP_BAD_REQUEST, message) : change_member(call, &action, put);
}

static int patch(api_call *call, rp_manager_action *action, const rp_roster_member *member,
                 int *answer)
{
    if (member->is_removed)
        *answer = fail(call->r, HTTP_CONFLICT, "the member is removed; PUT it, or POST forget, to "
                       "have it back");
    else if (!action->change.set && !action->change.forget)
        *answer = answer_member(call, HTTP_OK, member->url);
    else
        return rp_manager_act(action, RP_MANAGER_CHANGE);
    return 0;
}

static int patch_member(api_call *call)
{
    rp_manager_action action = rp_manager_action_begin(call->manager, call->balancer);
    const char *message = take_body(call, &action, 0);

    return message ? fail(call->r, HTTP_BAD_REQUEST, message)
                   : change_member(call, &action, patch);
}

/** Removed is removed, however often. */
static int removal(api_call *call, rp_manager_action *action, const rp_roster_member *member,
                   int *answer)
{
    int status = member->is_removed ? HTTP_OK : rp_manager_act(action, RP_MANAGER_REMOVE);

    if (status != HTTP_OK)
        return status;
    set_etag(call, rp_roster_version(call->balancer));
    *answer = HTTP_NO_CONTENT;
    return 0;
}

static int delete_member(api_call *call)
{
    rp_manager_action action = rp_manager_action_begin(call->manager, call->balancer);

    return change_member(call, &action, removal);
}

static int forgetting(api_call *call, rp_manager_action *action, const rp_roster_member *member,
                      int *answer)
{
    (void)call;
    (void)member;
    (void)answer;
    return rp_manager_act(action, RP_MANAGER_FORGET);
}

static int refuse_keys(const api_call *call)
{
    return fail(call->r, HTTP_BAD_REQUEST, "forget takes no keys; send {}, or nothing");
}

static int post_forget(api_call *call)
{
    rp_manager_action action = rp_manager_action_begin(call->manager, call->balancer);

    return json_object_size(call->body) ? refuse_keys(call)
                                        : change_member(call, &action, forgetting);
}

static int post_forget_all(api_call *call)
{
    rp_manager_action action = rp_manager_action_begin(call->manager, call->balancer);
    int status;

    if (json_object_size(call->body))
        return refuse_keys(call);
    if (if_match(call, &action.change.if_version))
        return outdated(call->r);
    status = rp_manager_act(&action, RP_MANAGER_FORGET_ALL);
    return status == HTTP_OK ? get_pool(call) : fail(call->r, status, action.change.message);
}

/* ---- what there is --------------------------------------------------------------------------- */

typedef int api_function(api_call *call);

/** A path below /api; ":" stands for a name. Methods that are NULL aren't allowed. */
static const struct resource {
    const char *parts[5];
    api_function *get, *post, *put, *patch, *remove;
} resources[] = {
    { { NULL }, get_all, NULL, NULL, NULL, NULL },
    { { "journal" }, get_journal, NULL, NULL, NULL, NULL },
    { { "diff" }, get_diff, NULL, NULL, NULL, NULL },
    { { "pools" }, get_all, NULL, NULL, NULL, NULL },
    { { "pools", ":" }, get_pool, NULL, NULL, NULL, NULL },
    { { "pools", ":", "forget" }, NULL, post_forget_all, NULL, NULL, NULL },
    { { "pools", ":", "members" }, get_members, post_member, NULL, NULL, NULL },
    { { "pools", ":", "members", ":" }, get_member, NULL, put_member, patch_member, delete_member },
    { { "pools", ":", "members", ":", "forget" }, NULL, post_forget, NULL, NULL, NULL }
};

#define RESOURCES ((int)(sizeof(resources) / sizeof(resources[0])))
#define PARTS 5

/** The parts of the path, at most PARTS and one more. */
static int split(apr_pool_t *pool, const char *path, const char *parts[PARTS + 1])
{
    char *last, *copy = apr_pstrdup(pool, path);
    int count = 0;

    for (const char *part = apr_strtok(copy, "/", &last); part && count <= PARTS;
         part = apr_strtok(NULL, "/", &last))
        parts[count++] = part;
    return count;
}

static const struct resource *find(const char *const *parts, int count)
{
    for (int i = 0; i < RESOURCES; i++) {
        int part = 0;

        while (part < PARTS && part < count && resources[i].parts[part]
               && (!strcmp(resources[i].parts[part], ":")
                   || !strcmp(resources[i].parts[part], parts[part])))
            part++;
        if (part == count && (part == PARTS || !resources[i].parts[part]))
            return &resources[i];
    }
    return NULL;
}

static void set_allow(request_rec *r, const struct resource *resource)
{
    apr_table_setn(r->headers_out, "Allow",
                   apr_pstrcat(r->pool, "OPTIONS", resource->get ? ", GET, HEAD" : "",
                               resource->post ? ", POST" : "", resource->put ? ", PUT" : "",
                               resource->patch ? ", PATCH" : "",
                               resource->remove ? ", DELETE" : "", NULL));
}

static api_function *function_of(const struct resource *resource, int method)
{
    return method == M_GET ? resource->get
        : method == M_POST ? resource->post
        : method == M_PUT ? resource->put
        : method == M_PATCH ? resource->patch
        : method == M_DELETE ? resource->remove : NULL;
}

static int run(api_call *call, api_function *function)
{
    request_rec *r = call->r;
    const char *detail = NULL;
    int status = OK;

    if (r->method_number == M_GET)
        return function(call);
    if ((detail = rp_manager_refuse(call->manager)))
        return fail(r, HTTP_FORBIDDEN, detail);
    /* Across sites a browser asks before DELETE, but not before a POST of text. */
    if (r->method_number != M_DELETE)
        status = read_body(call, &detail);
    if (status == OK)
        status = function(call);
    else if (detail)
        status = fail(r, status, detail);
    json_decref(call->body);
    return status;
}

int rp_manager_api(rp_manager *manager)
{
    request_rec *r = manager->r;
    api_call call = { .manager = manager, .r = r };
    const char *parts[PARTS + 1];
    int count = split(r->pool, manager->path + 4, parts);
    const struct resource *resource = find(parts, count);
    api_function *function;

    apr_table_setn(r->err_headers_out, "Cache-Control", "no-store");
    apr_table_setn(r->err_headers_out, "X-Content-Type-Options", "nosniff");
    if (!resource)
        return fail(r, HTTP_NOT_FOUND, "the API has no such path; it has /api/, /api/pools/NAME, "
                    "/api/pools/NAME/members/ID, /api/journal and /api/diff");
    if (r->method_number == M_OPTIONS) {
        set_allow(r, resource);
        return HTTP_NO_CONTENT;
    }
    if (!(function = function_of(resource, r->method_number))) {
        set_allow(r, resource);
        return fail(r, HTTP_METHOD_NOT_ALLOWED, apr_psprintf(r->pool, "%s isn't possible here; "
                    "Allow says what is", ap_escape_logitem(r->pool, r->method)));
    }
    if (count > 1 && !(call.balancer = rp_manager_pool(parts[1])))
        return fail(r, HTTP_NOT_FOUND, apr_psprintf(r->pool, "there is no pool \"%s\"; GET /api/ "
                    "for those there are", ap_escape_logitem(r->pool, parts[1])));
    call.id = count > 3 ? parts[3] : NULL;
    return run(&call, function);
}
