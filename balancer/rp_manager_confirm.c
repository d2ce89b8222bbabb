/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What becomes of the manager's forms: a page that says what will happen, with a form that repeats
 * all of it and "yes", and then the action. The second form has the version that the first page
 * was about: if the pool has changed in between, the question is asked again. */
#include <string.h>
#include <strings.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_protocol.h"

#include "balancer/rp_manager_page.h"

/** What a form asks for. */
typedef struct page_wish {
    const rp_page *page;
    const apr_table_t *fields;
    const struct verb *verb;
    rp_balancer *balancer;
    json_t *pool;                       /* as it is now */
    const json_t *member;               /* in there; NULL: the verb needs none */
    rp_manager_action action;
} page_wish;

typedef void sayer(const page_wish *wish);

static sayer say_add, say_change, say_remove, say_forget, say_forget_all;

static const struct verb {
    const char *name;
    rp_manager_verb verb;
    int needs_member, has_values;
    const char *title, *button;
    sayer *say;
} verbs[] = {
    { "add", RP_MANAGER_ADD, 0, 1, "Add a member?", "Add it", say_add },
    { "change", RP_MANAGER_CHANGE, 1, 1, "Change a member?", "Change it", say_change },
    { "remove", RP_MANAGER_REMOVE, 1, 0, "Remove a member?", "Remove it", say_remove },
    { "forget", RP_MANAGER_FORGET, 1, 0, "Forget changes of a member?", "Forget them",
      say_forget },
    { "forget-all", RP_MANAGER_FORGET_ALL, 0, 0, "Forget all changes of a pool?",
      "Forget all of them", say_forget_all },
};

static const struct value {
    const char *key, *label;
    unsigned int bit;
} values[] = {
    { "state", "state", RP_VALUE_STATE }, { "weight", "weight", RP_VALUE_WEIGHT },
    { "max", "max in flight", RP_VALUE_MAX }, { "backup", "backup", RP_VALUE_BACKUP },
    { "zone", "zone", RP_VALUE_ZONE }, { "route", "route", RP_VALUE_ROUTE },
    { "slowstart", "slow start", RP_VALUE_SLOW_START }, { NULL, NULL, 0 }
};

static const char *field(const page_wish *wish, const char *name)
{
    const char *text = apr_table_get(wish->fields, name);

    return text ? text : "";
}

/* ---- answers --------------------------------------------------------------------------------- */

static int answer_failed(const rp_page *page, int status, const char *message)
{
    rp_page_begin(page, status, "Not done");
    rp_html(page->r, "<h1 id=\"question\">Not done</h1>\n");
    rp_page_message(page, "failed", message);
    rp_html(page->r, "<p><a class=\"cancel\" href=\"./\">Back</a></p>\n");
    rp_page_end(page);
    return OK;
}

static const char *newest_change(const page_wish *wish)
{
    apr_pool_t *pool = wish->page->r->pool;
    apr_array_header_t *journal = rp_roster_journal(pool, wish->balancer);

    return !journal->nelts ? "0" : apr_psprintf(pool, "%" APR_UINT64_T_FMT,
                                                APR_ARRAY_IDX(journal, 0, rp_journal_entry).number);
}

static int answer_done(const page_wish *wish, const char *before)
{
    request_rec *r = wish->page->r;
    const char *now = newest_change(wish);

    apr_table_setn(r->headers_out, "Cache-Control", "no-store");
    apr_table_setn(r->headers_out, "Location",
                   apr_pstrcat(r->pool, "./?done=", strcmp(now, before) != 0 ? now : "0", NULL));
    return HTTP_SEE_OTHER;
}

/* ---- what will happen ------------------------------------------------------------------------ */

static const char *or_none(const char *text)
{
    return *text ? text : "none";
}

/** What is said about a value; "max" 0 is no limit. */
static const char *shown(const page_wish *wish, const struct value *value, const json_t *json)
{
    return or_none(rp_html_shown(wish->page->r->pool, json,
                                 value->bit == RP_VALUE_MAX ? "limit" : NULL));
}

static const char *wanted(const page_wish *wish, const struct value *value)
{
    const char *text = field(wish, value->key);

    if (value->bit == RP_VALUE_BACKUP)
        return !strcasecmp(text, "true") ? "yes" : "no";
    return value->bit == RP_VALUE_MAX && !strcmp(text, "0") ? "no limit" : or_none(text);
}

static void say_who(const page_wish *wish, const char *what)
{
    rp_html(wish->page->r, "<p>Member <strong>%s</strong> of pool <strong>%s</strong> %s</p>\n",
            rp_html_text(wish->member, "url"), wish->balancer->name, what);
}

/** What a state means for requests, and whether anybody else takes them. */
static void say_state(const page_wish *wish, const char *state)
{
    static const struct {
        const char *state, *meaning;
    } all[] = {
        { "up", "It gets requests." },
        { "drain", "It gets no new clients, only requests of the sessions it has. Requests in "
                   "flight end as usual." },
        { "down", "It gets no requests any more, not even those of its sessions. Requests in "
                  "flight end as usual." },
    };

    for (apr_size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (!strcasecmp(state, all[i].state))
            rp_html(wish->page->r, "<p>%s</p>\n", all[i].meaning);
    }
}

static void warn_if_last(const page_wish *wish)
{
    const json_t *members = json_object_get(wish->pool, "members");
    request_rec *r = wish->page->r;
    json_int_t in_flight = rp_html_number(wish->member, "traffic.in_flight");
    int others = 0;

    for (apr_size_t i = 0; i < json_array_size(members); i++) {
        const json_t *member = json_array_get(members, i);

        others += member != wish->member && !strcmp(rp_html_text(member, "state"), "up");
    }
    if (in_flight)
        rp_html(r, "<p>In flight there now: %lld.</p>\n", (long long)in_flight);
    if (!others)
        rp_html(r, "<p class=\"warning\">No other member of this pool is up: new requests for it "
                   "will fail.</p>\n");
}

static void say_values(const page_wish *wish)
{
    request_rec *r = wish->page->r;

    rp_html(r, "<ul>\n");
    for (const struct value *value = values; value->key; value++) {
        const json_t *now = json_object_get(json_object_get(wish->member, "values"), value->key);

        if (!(wish->action.change.set & value->bit))
            continue;
        if (wish->member)
            rp_html(r, "<li>%s: from %s to <strong>%s</strong></li>\n", value->label,
                    shown(wish, value, now), wanted(wish, value));
        else
            rp_html(r, "<li>%s: %s</li>\n", value->label, wanted(wish, value));
    }
    rp_html(r, "</ul>\n");
}

static void say_add(const page_wish *wish)
{
    rp_html(wish->page->r, "<p>Pool <strong>%s</strong> gets the member <strong>%s</strong>:</p>\n",
            wish->balancer->name, field(wish, "url"));
    say_values(wish);
    say_state(wish, field(wish, "state"));
}

static void say_change(const page_wish *wish)
{
    const char *state = field(wish, "state");

    say_who(wish, "is changed:");
    say_values(wish);
    if (wish->action.change.set & RP_VALUE_STATE) {
        say_state(wish, state);
        if (strcasecmp(state, "up") != 0)
            warn_if_last(wish);
    }
}

static int is_configured(const json_t *member)
{
    return !strcmp(rp_html_text(member, "from"), "configuration");
}

static void say_remove(const page_wish *wish)
{
    say_who(wish, "is removed. It gets no requests any more; requests in flight end as usual.");
    if (is_configured(wish->member))
        rp_html(wish->page->r, "<p>It stays in the configuration, and comes back when this is "
                               "forgotten or its line there is edited.</p>\n");
    warn_if_last(wish);
}

/** From what a member has to what its line says. */
static void say_as_configured(const page_wish *wish, const json_t *member)
{
    request_rec *r = wish->page->r;
    const json_t *overridden = json_object_get(member, "overridden");

    rp_html(r, "<ul>\n");
    if (json_is_true(rp_html_find(member, "removed")))
        rp_html(r, "<li>it comes back</li>\n");
    for (const struct value *value = values; value->key; value++) {
        const json_t *now = json_object_get(json_object_get(member, "values"), value->key);
        const json_t *then = json_object_get(json_object_get(member, "configured"), value->key);

        for (apr_size_t i = 0; i < json_array_size(overridden); i++) {
            if (!strcmp(json_string_value(json_array_get(overridden, i)), value->key))
                rp_html(r, "<li>%s: from %s to <strong>%s</strong></li>\n", value->label,
                        shown(wish, value, now), shown(wish, value, then));
        }
    }
    rp_html(r, "</ul>\n");
}

static void say_forget(const page_wish *wish)
{
    if (!strcmp(rp_html_text(wish->member, "from"), "api")) {
        say_who(wish, "was added at run time, and is removed. Requests in flight end as usual.");
        warn_if_last(wish);
        return;
    }
    say_who(wish, "becomes again what it was:");
    say_as_configured(wish, wish->member);
}

static void say_forget_all(const page_wish *wish)
{
    request_rec *r = wish->page->r;
    const json_t *members = json_object_get(wish->pool, "members");

    rp_html(r, "<p>Pool <strong>%s</strong> becomes again what the configuration says:</p>\n<ul>\n",
            wish->balancer->name);
    for (apr_size_t i = 0; i < json_array_size(members); i++) {
        const json_t *member = json_array_get(members, i);
        int is_added = !strcmp(rp_html_text(member, "from"), "api");

        if (is_added)
            rp_html(r, "<li><strong>%s</strong> is removed</li>\n", rp_html_text(member, "url"));
        else if (is_configured(member) && (json_is_true(rp_html_find(member, "removed"))
                 || json_array_size(json_object_get(member, "overridden")))) {
            rp_html(r, "<li><strong>%s</strong>\n", rp_html_text(member, "url"));
            say_as_configured(wish, member);
            rp_html(r, "</li>\n");
        }
    }
    rp_html(r, "</ul>\n");
}

static int ask(const page_wish *wish, const char *message)
{
    const rp_page *page = wish->page;
    request_rec *r = page->r;
    const struct verb *verb = wish->verb;

    rp_page_begin(page, message ? HTTP_PRECONDITION_FAILED : HTTP_OK, verb->title);
    if (message)
        rp_page_message(page, "failed", message);
    rp_html(r, "<section id=\"confirm\" aria-labelledby=\"question\">\n"
               "<h1 id=\"question\">%s</h1>\n", verb->title);
    verb->say(wish);
    rp_form_open(page, verb->name, wish->balancer->name,
                 verb->needs_member ? rp_html_text(wish->member, "id") : NULL);
    rp_html(r, "<input type=\"hidden\" name=\"etag\" value=\"%s\">\n",
            rp_html_text(wish->pool, "etag"));
    if (wish->verb->verb == RP_MANAGER_ADD)
        rp_html(r, "<input type=\"hidden\" name=\"url\" value=\"%s\">\n", field(wish, "url"));
    for (const struct value *value = values; value->key; value++) {
        if (wish->action.change.set & value->bit)
            rp_html(r, "<input type=\"hidden\" name=\"%s\" value=\"%s\">\n", value->key,
                    field(wish, value->key));
    }
    rp_html(r, "<button class=\"yes\" name=\"yes\" value=\"1\">%s</button>\n"
               "<a class=\"cancel button\" href=\"./\">Cancel</a>\n</form>\n</section>\n",
            verb->button);
    rp_page_end(page);
    return OK;
}

/* ---- what was sent --------------------------------------------------------------------------- */

/** Nonzero if that is what the member has. */
static int is_same(const page_wish *wish, const struct value *value, const char *text)
{
    const json_t *now = json_object_get(json_object_get(wish->member, "values"), value->key);

    if (!wish->member)
        return !*text;
    if (json_is_boolean(now))
        return !strcasecmp(text, json_is_true(now) ? "true" : "false");
    return !strcmp(text, rp_html_shown(wish->page->r->pool, now, NULL));
}

/** Takes the values that differ. NULL, or what is wrong. */
static const char *take_values(page_wish *wish)
{
    const char *error = NULL;

    for (const struct value *value = values; value->key && !error; value++) {
        const char *text = apr_table_get(wish->fields, value->key);

        if (text && !is_same(wish, value, text))
            error = rp_manager_set(&wish->action, value->key, text);
    }
    return error;
}

static int find_member(page_wish *wish)
{
    const char *id = field(wish, "member");
    const json_t *members = json_object_get(wish->pool, "members");

    for (apr_size_t i = 0; i < json_array_size(members) && !wish->member; i++) {
        const json_t *member = json_array_get(members, i);

        if (!strcmp(rp_html_text(member, "id"), id))
            wish->member = member;
    }
    wish->action.number = (int)rp_html_number(wish->member, "number");
    wish->action.url = rp_html_text(wish->member, "url");
    return wish->member != NULL;
}

/** Does what was confirmed. */
static int act(page_wish *wish)
{
    rp_manager_action *action = &wish->action;
    const char *before = newest_change(wish);
    int status = HTTP_PRECONDITION_FAILED;

    action->change.if_version = rp_manager_etag_version(wish->balancer, field(wish, "etag"));
    if (action->change.if_version)
        status = rp_manager_act(action, wish->verb->verb);
    if (status == HTTP_OK || status == HTTP_CREATED)
        return answer_done(wish, before);
    if (status == HTTP_PRECONDITION_FAILED)
        return ask(wish, "Meanwhile the pool has changed. This is what would happen now:");
    return answer_failed(wish->page, status, action->change.message);
}

static int fulfil(page_wish *wish)
{
    const rp_page *page = wish->page;
    const char *error;

    wish->action = rp_manager_action_begin(page->manager, wish->balancer);
    wish->action.url = field(wish, "url");
    if (!(wish->pool = rp_manager_json_pool(page->manager, wish->balancer)))
        return HTTP_SERVICE_UNAVAILABLE;
    if (wish->verb->needs_member && !find_member(wish))
        return answer_failed(page, HTTP_NOT_FOUND, "There is no such member, at least not any "
                             "more.");
    if (wish->verb->has_values && (error = take_values(wish)) != NULL)
        return answer_failed(page, HTTP_BAD_REQUEST, error);
    if (wish->verb->verb == RP_MANAGER_CHANGE && !wish->action.change.set)
        return answer_failed(page, HTTP_BAD_REQUEST, "Nothing would change: the member has these "
                             "values already.");
    return *field(wish, "yes") ? act(wish) : ask(wish, NULL);
}

static const struct verb *find_verb(const char *name)
{
    for (apr_size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (!strcmp(name, verbs[i].name))
            return &verbs[i];
    }
    return NULL;
}

int rp_page_change(const rp_page *page)
{
    request_rec *r = page->r;
    page_wish wish = { .page = page };
    const char *refused;
    char *body;
    apr_size_t len;
    int status;

    if ((status = rp_manager_read(page->manager, &body, &len)) != 0)
        return status;
    if ((refused = rp_manager_refuse(page->manager)) != NULL)
        return answer_failed(page, HTTP_FORBIDDEN, refused);
    if (strlen(body) != len || !(wish.fields = rp_html_fields(r->pool, body)))
        return HTTP_BAD_REQUEST;
    if (!rp_manager_token_is_good(page->manager, apr_table_get(wish.fields, RP_MANAGER_TOKEN)))
        return answer_failed(page, HTTP_FORBIDDEN, "This form is too old, or not from this page: "
                             "go back, load the page again and repeat it.");
    wish.verb = find_verb(field(&wish, "do"));
    wish.balancer = rp_manager_pool(field(&wish, "pool"));
    if (!wish.verb)
        return answer_failed(page, HTTP_BAD_REQUEST, "The form doesn't say what to do.");
    if (!wish.balancer)
        return answer_failed(page, HTTP_NOT_FOUND, "There is no such pool, at least not any more.");
    status = fulfil(&wish);
    json_decref(wish.pool);
    return status;
}
