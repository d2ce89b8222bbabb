/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The parts of the manager's pages. All texts come from rp_manager_json.c and go out by rp_html(),
 * which escapes them; what the script keeps up to date has data-key. */
#include <string.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_protocol.h"

#include "balancer/rp_manager_page.h"

static const char *const states[] = {
    "up", "drain", "down", "ejected", "unhealthy", "unchecked", "removed", NULL
};

/* ---- the frame ------------------------------------------------------------------------------- */

static const char content_security_policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

static void set_headers(request_rec *r)
{
    apr_table_t *headers = r->headers_out;

    ap_set_content_type(r, "text/html; charset=utf-8");
    apr_table_setn(headers, "Cache-Control", "no-store");
    apr_table_setn(headers, "Content-Security-Policy", content_security_policy);
    apr_table_setn(headers, "X-Content-Type-Options", "nosniff");
    apr_table_setn(headers, "X-Frame-Options", "DENY");
    /* Not no-referrer: then browsers would not say either where a form comes from. */
    apr_table_setn(headers, "Referrer-Policy", "same-origin");
    apr_table_setn(headers, "Cross-Origin-Resource-Policy", "same-origin");
}

void rp_page_begin(const rp_page *page, int status, const char *title)
{
    request_rec *r = page->r;

    set_headers(r);
    r->status = status;
    rp_html(r, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
               "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
               "<meta name=\"color-scheme\" content=\"light dark\">\n"
               "<title>%s - %s</title>\n<link rel=\"icon\" href=\"data:,\">\n"
               "<link rel=\"stylesheet\" href=\"app.css\">\n"
               "<script src=\"app.js\" defer></script>\n</head>\n<body>\n"
               "<a class=\"skip\" href=\"#main\">Skip to the content</a>\n"
               "<header>\n<p class=\"title\"><a href=\"./\">Pools of %s</a></p>\n",
            title, r->server->server_hostname, r->server->server_hostname);
    rp_html(r, "<p class=\"about\">%s, %s. <span id=\"live\">As of ",
            r->user ? r->user : r->useragent_ip,
            page->token ? "may change members" : "read only");
    rp_html_time(r, apr_pstrcat(r->pool, ap_ht_time(r->pool, r->request_time, "%Y-%m-%dT%H:%M:%S",
                                                    1), "Z", NULL));
    rp_html(r, "</span></p>\n</header>\n<main id=\"main\" tabindex=\"-1\">\n");
}

void rp_page_end(const rp_page *page)
{
    rp_html(page->r, "</main>\n<p id=\"news\" class=\"unseen\" role=\"status\"></p>\n"
                     "</body>\n</html>\n");
}

void rp_page_message(const rp_page *page, const char *kind, const char *text)
{
    rp_html(page->r, "<p class=\"message %s\" id=\"message\" role=\"%s\">%s</p>\n", kind,
            !strcmp(kind, "failed") ? "alert" : "status", text);
}

/* ---- filter ---------------------------------------------------------------------------------- */

/** What the page is limited to. */
typedef struct page_filter {
    const char *text;                   /* "": nothing */
    const char *state;
} page_filter;

static page_filter get_filter(const rp_page *page)
{
    const char *text = apr_table_get(page->query, "q");
    const char *state = apr_table_get(page->query, "state");

    return (page_filter){ .text = text ? text : "", .state = state ? state : "" };
}

static int has(const char *text, const char *part)
{
    return ap_strcasestr(text, part) != NULL;
}

static int is_wanted(const page_filter *filter, const char *pool, const json_t *member)
{
    if (*filter->state && strcmp(filter->state, rp_html_text(member, "state")) != 0)
        return 0;
    return !*filter->text || has(pool, filter->text) || has(rp_html_text(member, "url"),
                                                            filter->text)
        || has(rp_html_text(member, "values.zone"), filter->text)
        || has(rp_html_text(member, "values.route"), filter->text);
}

static void show_filter(const rp_page *page, const page_filter *filter)
{
    request_rec *r = page->r;

    rp_html(r, "<form id=\"filter\" method=\"get\" action=\"./\" role=\"search\">\n"
               "<label>Pool, member, zone or route <input type=\"search\" name=\"q\" "
               "value=\"%s\"></label>\n<label>State <select name=\"state\">\n"
               "<option value=\"\">any</option>\n", filter->text);
    for (int i = 0; states[i]; i++)
        rp_html(r, "<option%s>%s</option>\n",
                strcmp(states[i], filter->state) != 0 ? "" : " selected", states[i]);
    rp_html(r, "</select></label>\n<button>Filter</button>\n");
    if (*filter->text || *filter->state)
        rp_html(r, "<a href=\"./\">Show all</a>\n");
    rp_html(r, "</form>\n");
}

/* ---- a member's row -------------------------------------------------------------------------- */

static const struct column {
    const char *label, *key, *as;
} columns[] = {
    { "Weight", "values.weight", NULL }, { "Max", "values.max", "limit" },
    { "In flight", "traffic.in_flight", NULL }, { "Requests", "traffic.requests", NULL },
    { "Failures", "traffic.failures", NULL }, { "Retries", "traffic.retries", NULL },
    { "p50", "latency.total.p50", "ms" }, { "p90", "latency.total.p90", "ms" },
    { "p99", "latency.total.p99", "ms" }, { "Ejections", "ejections", NULL }, { NULL, NULL, NULL }
};

static void show_tags(request_rec *r, const json_t *member)
{
    const char *from = rp_html_text(member, "from"), *who = rp_html_text(member, "who");

    if (json_is_true(rp_html_find(member, "values.backup")))
        rp_html(r, " <span class=\"tag\">backup</span>");
    if (*rp_html_text(member, "values.zone"))
        rp_html(r, " <span class=\"tag\">zone %s</span>", rp_html_text(member, "values.zone"));
    if (*rp_html_text(member, "values.route"))
        rp_html(r, " <span class=\"tag\">route %s</span>", rp_html_text(member, "values.route"));
    if (!strcmp(from, "discovery"))
        rp_html(r, " <span class=\"tag\">found by %s</span>", *who ? who : "discovery");
    else if (!strcmp(from, "api"))
        rp_html(r, " <span class=\"tag changed\">added</span>");
    if (json_array_size(json_object_get(member, "overridden")))
        rp_html(r, " <span class=\"tag changed\">changed</span>");
}

static void show_row(const rp_page *page, const char *pool, const json_t *member)
{
    request_rec *r = page->r;
    const char *id = rp_html_text(member, "id"), *url = rp_html_text(member, "url");

    rp_html(r, "<tr data-member=\"%s\" data-state=\"%s\">\n"
               "<th scope=\"row\"><a class=\"ask\" href=\"member?pool=%s&amp;member=%s\">%s</a>",
            id, rp_html_text(member, "state"), pool, id, url);
    show_tags(r, member);
    rp_html(r, "</th>\n<td data-label=\"State\">");
    rp_html_live(r, "span", "state", member, "state", NULL);
    rp_html(r, " ");
    rp_html_live(r, "span", "why", member, "why", "or-nothing");
    rp_html(r, "</td>\n");
    for (const struct column *column = columns; column->label; column++) {
        rp_html(r, "<td class=\"number\" data-label=\"%s\">", column->label);
        rp_html_live(r, "span", NULL, member, column->key, column->as);
        rp_html(r, "</td>\n");
    }
    rp_html(r, "<td data-label=\"Checks\">");
    rp_html_live(r, "span", NULL, member, "health.state", NULL);
    rp_html(r, " ");
    rp_html_live(r, "span", "why", member, "health.cause", "or-nothing");
    rp_html(r, "</td>\n");
    if (page->token)
        rp_html(r, "<td class=\"do\"><a class=\"ask button\" href=\"member?pool=%s&amp;member=%s\">"
                   "Change<span class=\"unseen\"> %s</span></a></td>\n", pool, id, url);
    rp_html(r, "</tr>\n");
}

/* ---- a pool ---------------------------------------------------------------------------------- */

static void show_states(request_rec *r, const json_t *pool)
{
    rp_html(r, "<div><dt>Members</dt><dd>");
    for (int i = 0; states[i]; i++) {
        const char *path = apr_pstrcat(r->pool, "states.", states[i], NULL);

        rp_html(r, "<span class=\"count\" data-state=\"%s\"%s>", states[i],
                rp_html_number(pool, path) ? "" : " hidden");
        rp_html_live(r, "span", NULL, pool, path, NULL);
        rp_html(r, " %s</span> ", states[i]);
    }
    rp_html(r, "</dd></div>\n");
}

/** "12 requests, ": a number that stays up to date, and what it counts. */
static void show_count(request_rec *r, const json_t *pool, const char *path, const char *what)
{
    rp_html_live(r, "span", NULL, pool, path, NULL);
    rp_html(r, " %s", what);
}

static void show_queue(request_rec *r, const json_t *pool)
{
    if (!rp_html_find(pool, "queue"))
        return;
    rp_html(r, "<div><dt>Queue</dt><dd>");
    show_count(r, pool, "queue.waiting", "of ");
    show_count(r, pool, "queue.max", "places taken, for at most ");
    show_count(r, pool, "queue.timeout", "ms; ");
    show_count(r, pool, "queue.queued", "have waited, ");
    show_count(r, pool, "queue.timeouts", "too long, ");
    show_count(r, pool, "queue.full", "found it full");
    rp_html(r, "</dd></div>\n");
}

static void show_sessions(request_rec *r, const json_t *pool)
{
    const char *name = rp_html_text(pool, "sessions.name");

    if (!rp_html_find(pool, "sessions"))
        return;
    rp_html(r, "<div><dt>Sessions</dt><dd>by %s%s%s; without its member: %s</dd></div>\n",
            rp_html_text(pool, "sessions.kind"), *name ? " " : "", name,
            rp_html_text(pool, "sessions.down"));
}

static void show_traffic(request_rec *r, const json_t *pool)
{
    rp_html(r, "<div><dt>Requests</dt><dd>");
    show_count(r, pool, "traffic.requests", "so far, ");
    show_count(r, pool, "traffic.in_flight", "in flight, ");
    show_count(r, pool, "traffic.retries", "retries; without a member: ");
    show_count(r, pool, "traffic.no_member", "none up, ");
    show_count(r, pool, "traffic.busy", "all busy");
    rp_html(r, "</dd></div>\n<div><dt>Latency</dt><dd>");
    rp_html_live(r, "span", NULL, pool, "latency.total.p50", "ms");
    rp_html(r, " / ");
    rp_html_live(r, "span", NULL, pool, "latency.total.p90", "ms");
    rp_html(r, " / ");
    rp_html_live(r, "span", NULL, pool, "latency.total.p99", "ms");
    rp_html(r, " ms (p50, p90, p99)</dd></div>\n");
}

static void show_facts(request_rec *r, const json_t *pool)
{
    const char *zone = rp_html_text(pool, "zone");

    rp_html(r, "<dl class=\"facts\">\n<div><dt>Method</dt><dd>%s%s%s</dd></div>\n",
            rp_html_text(pool, "method"), *zone ? ", zone " : "", zone);
    show_states(r, pool);
    show_traffic(r, pool);
    show_sessions(r, pool);
    show_queue(r, pool);
    if (rp_html_find(pool, "retry_budget")) {
        rp_html(r, "<div><dt>Retry budget</dt><dd>");
        show_count(r, pool, "retry_budget.percent", "% and ");
        show_count(r, pool, "retry_budget.min", "more; ");
        show_count(r, pool, "retry_budget.retrying", "retrying, ");
        show_count(r, pool, "retry_budget.refused", "refused");
        rp_html(r, "</dd></div>\n");
    }
    if (rp_html_find(pool, "health"))
        rp_html(r, "<div><dt>Checks</dt><dd>%s<span class=\"panic\"%s>: too few members are well, "
                   "all are used</span></dd></div>\n", rp_html_text(pool, "health.kind"),
                json_is_true(rp_html_find(pool, "health.panic")) ? "" : " hidden");
    rp_html(r, "</dl>\n<div class=\"charts\"></div>\n");
}

static void show_table(const rp_page *page, const json_t *pool, const page_filter *filter)
{
    request_rec *r = page->r;
    const char *name = rp_html_text(pool, "name");
    const json_t *members = json_object_get(pool, "members");
    apr_size_t shown = 0;

    rp_html(r, "<div class=\"scroll\">\n<table class=\"members\">\n"
               "<caption class=\"unseen\">Members of %s; latency in milliseconds</caption>\n"
               "<thead>\n<tr><th scope=\"col\">Member</th><th scope=\"col\">State</th>", name);
    for (const struct column *column = columns; column->label; column++)
        rp_html(r, "<th scope=\"col\" class=\"number\">%s</th>", column->label);
    rp_html(r, "<th scope=\"col\">Checks</th>");
    if (page->token)
        rp_html(r, "<th scope=\"col\"><span class=\"unseen\">Actions</span></th>");
    rp_html(r, "</tr>\n</thead>\n<tbody>\n");
    for (apr_size_t i = 0; i < json_array_size(members); i++) {
        const json_t *member = json_array_get(members, i);

        if (is_wanted(filter, name, member)) {
            show_row(page, name, member);
            shown++;
        }
    }
    rp_html(r, "</tbody>\n</table>\n</div>\n");
    if (!json_array_size(members))
        rp_html(r, "<p>This pool has no members.</p>\n");
    else if (shown < json_array_size(members))
        rp_html(r, "<p>%d of %d members are shown.</p>\n", (int)shown,
                (int)json_array_size(members));
}

static void show_pool(const rp_page *page, const json_t *pool, const page_filter *filter)
{
    request_rec *r = page->r;
    const char *name = rp_html_text(pool, "name");

    rp_html(r, "<section class=\"pool\" id=\"pool-%s\" data-pool=\"%s\" data-etag=\"%s\" "
               "aria-labelledby=\"name-%s\">\n<h2 id=\"name-%s\">%s</h2>\n",
            name, name, rp_html_text(pool, "etag"), name, name, name);
    show_facts(r, pool);
    show_table(page, pool, filter);
    if (page->token)
        rp_form_add(page, name);
    rp_html(r, "</section>\n");
}

static int is_pool_wanted(const json_t *pool, const page_filter *filter)
{
    const json_t *members = json_object_get(pool, "members");

    if (!*filter->text && !*filter->state)
        return 1;
    for (apr_size_t i = 0; i < json_array_size(members); i++) {
        if (is_wanted(filter, rp_html_text(pool, "name"), json_array_get(members, i)))
            return 1;
    }
    return 0;
}

void rp_page_pools(const rp_page *page, const json_t *all)
{
    const json_t *pools = json_object_get(all, "pools");
    page_filter filter = get_filter(page);
    int shown = 0;

    rp_html(page->r, "<h1 class=\"unseen\">Pools of %s</h1>\n", page->r->server->server_hostname);
    show_filter(page, &filter);
    rp_html(page->r, "<div id=\"pools\"%s>\n",
            *filter.text || *filter.state ? " data-filtered" : "");
    for (apr_size_t i = 0; i < json_array_size(pools); i++) {
        const json_t *pool = json_array_get(pools, i);

        if (is_pool_wanted(pool, &filter)) {
            show_pool(page, pool, &filter);
            shown++;
        }
    }
    rp_html(page->r, "<p id=\"none\"%s>%s</p>\n</div>\n", shown ? " hidden" : "",
            json_array_size(pools) ? "No member is like that." : "There are no pools.");
}

/* ---- what differs from the configuration ----------------------------------------------------- */

static void show_values(request_rec *r, const json_t *values)
{
    const char *key;
    json_t *value;
    int count = 0;

    json_object_foreach((json_t *)values, key, value) {
        const char *configured = rp_html_shown(r->pool, json_object_get(value, "configured"), NULL);
        const char *now = rp_html_shown(r->pool, json_object_get(value, "now"), NULL);

        rp_html(r, "%s%s %s (configured: %s)", count++ ? ", " : "", key, *now ? now : "none",
                *configured ? configured : "none");
    }
}

static void show_difference(const rp_page *page, const char *pool, const json_t *member)
{
    request_rec *r = page->r;
    const char *id = rp_html_text(member, "id");

    rp_html(r, "<tr>\n<th scope=\"row\"><a class=\"ask\" href=\"member?pool=%s&amp;member=%s\">%s"
               "</a></th>\n<td data-label=\"Pool\">%s</td>\n<td data-label=\"Difference\">%s ",
            pool, id, rp_html_text(member, "url"), pool, rp_html_text(member, "difference"));
    show_values(r, json_object_get(member, "values"));
    rp_html(r, "</td>\n<td data-label=\"By\">%s</td>\n<td data-label=\"When\">",
            rp_html_text(member, "who"));
    rp_html_time(r, rp_html_text(member, "changed"));
    rp_html(r, "</td>\n");
    if (page->token) {
        rp_html(r, "<td class=\"do\">");
        rp_form_open(page, "forget", pool, id);
        rp_html(r, "<button>Forget<span class=\"unseen\"> what was changed of %s</span></button>"
                   "</form></td>\n", rp_html_text(member, "url"));
    }
    rp_html(r, "</tr>\n");
}

static void show_forget_all(const rp_page *page, const json_t *pools)
{
    for (apr_size_t i = 0; i < json_array_size(pools); i++) {
        const char *name = rp_html_text(json_array_get(pools, i), "name");

        rp_form_open(page, "forget-all", name, NULL);
        rp_html(page->r, "<button>Forget all changes of %s</button></form>\n", name);
    }
}

void rp_page_diff(const rp_page *page, const json_t *diff)
{
    request_rec *r = page->r;
    const json_t *pools = json_object_get(diff, "pools");

    rp_html(r, "<section id=\"diff\" aria-labelledby=\"name-of-diff\">\n<h2 id=\"name-of-diff\">"
               "What differs from the configuration</h2>\n");
    if (!json_array_size(pools)) {
        rp_html(r, "<p>Nothing: all members are as configured, or found by discovery.</p>\n"
                   "</section>\n");
        return;
    }
    rp_html(r, "<table>\n<thead>\n<tr><th scope=\"col\">Member</th><th scope=\"col\">Pool</th>"
               "<th scope=\"col\">Difference</th><th scope=\"col\">By</th>"
               "<th scope=\"col\">When</th>");
    if (page->token)
        rp_html(r, "<th scope=\"col\"><span class=\"unseen\">Actions</span></th>");
    rp_html(r, "</tr>\n</thead>\n<tbody>\n");
    for (apr_size_t i = 0; i < json_array_size(pools); i++) {
        const json_t *pool = json_array_get(pools, i);
        const json_t *members = json_object_get(pool, "members");

        for (apr_size_t j = 0; j < json_array_size(members); j++)
            show_difference(page, rp_html_text(pool, "name"), json_array_get(members, j));
    }
    rp_html(r, "</tbody>\n</table>\n");
    if (page->token)
        show_forget_all(page, pools);
    rp_html(r, "</section>\n");
}

/* ---- the journal ----------------------------------------------------------------------------- */

void rp_page_journal(const rp_page *page, const json_t *journal)
{
    request_rec *r = page->r;
    const json_t *entries = json_object_get(journal, "entries");

    rp_html(r, "<section id=\"journal\" aria-labelledby=\"name-of-journal\">\n"
               "<h2 id=\"name-of-journal\">Journal of changes</h2>\n");
    if (!json_array_size(entries)) {
        rp_html(r, "<p>Nothing was changed yet.</p>\n</section>\n");
        return;
    }
    rp_html(r, "<table>\n<thead>\n<tr><th scope=\"col\">When</th><th scope=\"col\">Pool</th>"
               "<th scope=\"col\">What</th><th scope=\"col\">By</th></tr>\n</thead>\n<tbody>\n");
    for (apr_size_t i = 0; i < json_array_size(entries); i++) {
        const json_t *entry = json_array_get(entries, i);

        rp_html(r, "<tr>\n<td data-label=\"When\">");
        rp_html_time(r, rp_html_text(entry, "time"));
        rp_html(r, "</td>\n<td data-label=\"Pool\">%s</td>\n<td data-label=\"What\">%s</td>\n"
                   "<td data-label=\"By\">%s%s</td>\n</tr>\n", rp_html_text(entry, "pool"),
                rp_html_text(entry, "what"), rp_html_text(entry, "who"),
                strcmp(rp_html_text(entry, "from"), "discovery") != 0 ? "" : " (discovery)");
    }
    rp_html(r, "</tbody>\n</table>\n</section>\n");
}

/* ---- a member -------------------------------------------------------------------------------- */

static void show_fact(request_rec *r, const char *name, const json_t *member, const char *path,
                      const char *as)
{
    rp_html(r, "<div><dt>%s</dt>", name);
    rp_html_live(r, "dd", NULL, member, path, as);
    rp_html(r, "</div>\n");
}

static void show_time(request_rec *r, const char *name, const json_t *member, const char *path)
{
    rp_html(r, "<div><dt>%s</dt><dd>", name);
    rp_html_time(r, rp_html_text(member, path));
    rp_html(r, "</dd></div>\n");
}

void rp_page_member(const rp_page *page, const char *pool, const json_t *member)
{
    static const struct column facts[] = {
        { "Why", "why", NULL }, { "Weight", "values.weight", NULL },
        { "Max", "values.max", "limit" },
        { "Backup", "values.backup", NULL }, { "Zone", "values.zone", NULL },
        { "Route", "values.route", NULL }, { "Slow start", "values.slowstart", NULL },
        { "Requests", "traffic.requests", NULL }, { "In flight", "traffic.in_flight", NULL },
        { "Failures", "traffic.failures", NULL }, { "Retries", "traffic.retries", NULL },
        { "Bytes sent", "traffic.sent", NULL }, { "Bytes received", "traffic.received", NULL },
        { "Connections opened", "traffic.connections_opened", NULL },
        { "Connections reused", "traffic.connections_reused", NULL },
        { "p50, ms", "latency.total.p50", "ms" }, { "p90, ms", "latency.total.p90", "ms" },
        { "p99, ms", "latency.total.p99", "ms" }, { "Ejections", "ejections", NULL },
        { "Checks say", "health.state", NULL }, { "Last cause", "health.cause", NULL },
        { NULL, NULL, NULL }
    };
    request_rec *r = page->r;

    rp_html(r, "<section id=\"member\" aria-labelledby=\"name-of-member\">\n"
               "<h1 id=\"name-of-member\">%s</h1>\n<p>In pool %s; ", rp_html_text(member, "url"),
            pool);
    rp_html(r, "<span class=\"count\" data-state=\"%s\">%s</span>", rp_html_text(member, "state"),
            rp_html_text(member, "state"));
    show_tags(r, member);
    rp_html(r, "</p>\n<dl class=\"facts\">\n");
    for (const struct column *fact = facts; fact->label; fact++) {
        const json_t *value = rp_html_find(member, fact->key);

        if (value && (!json_is_string(value) || *json_string_value(value)))
            show_fact(r, fact->label, member, fact->key, fact->as);
    }
    if (rp_html_find(member, "health.checked"))
        show_time(r, "Checked", member, "health.checked");
    if (rp_html_find(member, "ejected_until"))
        show_time(r, "Ejected until", member, "ejected_until");
    if (rp_html_find(member, "changed")) {
        show_time(r, "Changed", member, "changed");
        show_fact(r, "By", member, "who", NULL);
    }
    rp_html(r, "</dl>\n</section>\n");
}
