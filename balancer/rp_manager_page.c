/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The manager's page: which path is what, and the page of all pools. It works without script; with
 * it, app.js keeps numbers up to date and asks in dialogs, by the same forms. */
#include <string.h>
#include <strings.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_log.h"
#include "http_protocol.h"
#include "http_request.h"

#include "balancer/rp_manager_page.h"

APLOG_USE_MODULE(rproxy_balancer);

static int no_memory(const rp_page *page)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, page->r, "RP0438: there is no memory for the manager's "
                  "page; give the server more, or look at one pool by the API");
    return HTTP_SERVICE_UNAVAILABLE;
}

/* ---- files ----------------------------------------------------------------------------------- */

static int send_asset(request_rec *r, const rp_manager_asset *asset)
{
    const char *dot = strrchr(asset->name, '.');
    int status;

    ap_set_content_type(r, !strcmp(dot, ".js") ? "text/javascript; charset=utf-8"
                                               : "text/css; charset=utf-8");
    apr_table_setn(r->headers_out, "ETag", asset->etag);
    apr_table_setn(r->headers_out, "Cache-Control", "private, no-cache");
    apr_table_setn(r->err_headers_out, "X-Content-Type-Options", "nosniff");
    if ((status = ap_meets_conditions(r)) != OK)
        return status;
    ap_set_content_length(r, (apr_off_t)asset->len);
    ap_rwrite(asset->data, (int)asset->len, r);
    return OK;
}

/* ---- pages ----------------------------------------------------------------------------------- */

/** The journal's entry that the last action made, by its number; 0: it made none. */
static void show_done(const rp_page *page, const char *done, const json_t *journal)
{
    const json_t *entries = json_object_get(journal, "entries");

    if (!strcmp(done, "0"))
        rp_page_message(page, "done", "Nothing has changed: it was like that already.");
    for (apr_size_t i = 0; i < json_array_size(entries); i++) {
        const json_t *entry = json_array_get(entries, i);

        if (!strcmp(done, rp_html_shown(page->r->pool, rp_html_find(entry, "number"), NULL)))
            rp_page_message(page, "done", apr_psprintf(page->r->pool, "Done, in pool %s: %s",
                                                       rp_html_text(entry, "pool"),
                                                       rp_html_text(entry, "what")));
    }
}

static int show_all(const rp_page *page)
{
    json_t *all = rp_manager_json_all(page->manager);
    json_t *diff = rp_manager_json_diff(page->manager);
    json_t *journal = rp_manager_json_journal(page->manager);
    const char *done = apr_table_get(page->query, "done");
    int is_there = all && diff && journal;

    if (is_there) {
        rp_page_begin(page, HTTP_OK, "Pools");
        if (done)
            show_done(page, done, journal);
        rp_page_pools(page, all);
        rp_page_diff(page, diff);
        rp_page_journal(page, journal);
        rp_page_end(page);
    }
    json_decref(all);
    json_decref(diff);
    json_decref(journal);
    return is_there ? OK : no_memory(page);
}

static int show_member(const rp_page *page)
{
    const char *name = apr_table_get(page->query, "pool");
    const char *id = apr_table_get(page->query, "member");
    rp_balancer *balancer = name ? rp_manager_pool(name) : NULL;
    const rp_roster_member *member = balancer && id
        ? rp_manager_member(page->manager, balancer, id, NULL) : NULL;
    json_t *json;

    if (!member) {
        rp_page_begin(page, HTTP_NOT_FOUND, "No such member");
        rp_html(page->r, "<h1 id=\"question\">No such member</h1>\n");
        rp_page_message(page, "failed", "There is no such member, at least not any more.");
        rp_page_end(page);
        return OK;
    }
    if (!(json = rp_manager_json_member(page->manager, balancer, member)))
        return no_memory(page);
    rp_page_begin(page, HTTP_OK, rp_html_text(json, "url"));
    rp_page_member(page, balancer->name, json);
    if (page->token)
        rp_form_member(page, balancer->name, json);
    rp_page_end(page);
    json_decref(json);
    return OK;
}

/* ---- which is asked for ---------------------------------------------------------------------- */

/** To a place beside this one; never to another host, whatever the path looks like. */
static int redirect(request_rec *r, int status, const char *name)
{
    apr_table_setn(r->headers_out, "Location", apr_pstrcat(r->pool, "./", name, NULL));
    return status;
}

static int only(request_rec *r, const char *first, const char *second)
{
    ap_allow_methods(r, REPLACE_ALLOW, first, second, NULL);
    return HTTP_METHOD_NOT_ALLOWED;
}

int rp_manager_page(rp_manager *manager)
{
    request_rec *r = manager->r;
    const char *path = manager->path;
    rp_page page = { .manager = manager, .r = r };
    int is_change = !strcmp(path, "/change");

    if (r->method_number != M_GET && !(is_change && r->method_number == M_POST))
        return is_change ? only(r, "GET", "POST") : only(r, "GET", NULL);
    if (!(page.query = rp_html_fields(r->pool, apr_pstrdup(r->pool, r->args ? r->args : ""))))
        return HTTP_BAD_REQUEST;
    page.token = manager->may_change ? rp_manager_token(manager) : NULL;
    if (r->method_number == M_POST)
        return rp_page_change(&page);
    for (const rp_manager_asset *asset = rp_manager_assets; asset->name; asset++) {
        if (!strcmp(path + 1, asset->name))
            return send_asset(r, asset);
    }
    if (!strcmp(path, "/"))
        return show_all(&page);
    if (!strcmp(path, "/member"))
        return show_member(&page);
    if (is_change)
        return redirect(r, HTTP_SEE_OTHER, "");
    return redirect(r, HTTP_TEMPORARY_REDIRECT,
                    apr_pstrcat(r->pool, ap_escape_path_segment(r->pool, path + 1), "/", NULL));
}
