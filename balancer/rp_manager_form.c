/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The manager's forms. Each asks for one action; rp_manager_confirm.c answers with what that would
 * do, and a form that does it. */
#include <string.h>
#include "httpd.h"
#include "http_protocol.h"

#include "balancer/rp_manager_page.h"

void rp_form_open(const rp_page *page, const char *verb, const char *pool, const char *member)
{
    request_rec *r = page->r;

    rp_html(r, "<form class=\"ask\" method=\"post\" action=\"change\" autocomplete=\"off\">"
               "<input type=\"hidden\" name=\"" RP_MANAGER_TOKEN "\" value=\"%s\">"
               "<input type=\"hidden\" name=\"do\" value=\"%s\">"
               "<input type=\"hidden\" name=\"pool\" value=\"%s\">", page->token, verb, pool);
    if (member)
        rp_html(r, "<input type=\"hidden\" name=\"member\" value=\"%s\">", member);
    rp_html(r, "\n");
}

static void put_option(request_rec *r, const char *value, const char *shown, int is_selected)
{
    rp_html(r, "<option value=\"%s\"%s>%s</option>", value, is_selected ? " selected" : "", shown);
}

/** What members have but their state; values: what it is now, NULL: nothing yet. */
static void put_values(request_rec *r, const json_t *values)
{
    int is_backup = json_is_true(rp_html_find(values, "backup"));
    int weight = values ? (int)rp_html_number(values, "weight") : 1;
    const char *slow_start = rp_html_text(values, "slowstart");

    rp_html(r, "<label>Weight <input type=\"number\" name=\"weight\" min=\"1\" max=\"%d\" "
               "value=\"%d\" required></label>\n"
               "<label>Max in flight, 0: no limit <input type=\"number\" name=\"max\" min=\"0\" "
               "value=\"%d\" required></label>\n<label>Backup <select name=\"backup\">",
            RP_ROSTER_WEIGHT_MAX, weight, (int)rp_html_number(values, "max"));
    put_option(r, "false", "no", !is_backup);
    put_option(r, "true", "yes", is_backup);
    rp_html(r, "</select></label>\n"
               "<label>Zone <input name=\"zone\" maxlength=\"%d\" value=\"%s\"></label>\n"
               "<label>Route <input name=\"route\" maxlength=\"%d\" value=\"%s\"></label>\n"
               "<label>Slow start, such as 30s <input name=\"slowstart\" value=\"%s\" required>"
               "</label>\n",
            RP_ROSTER_NAME_MAX, rp_html_text(values, "zone"),
            RP_ROSTER_NAME_MAX, rp_html_text(values, "route"), *slow_start ? slow_start : "0");
}

void rp_form_add(const rp_page *page, const char *pool)
{
    request_rec *r = page->r;

    rp_html(r, "<details class=\"add\">\n<summary>Add a member to %s</summary>\n", pool);
    rp_form_open(page, "add", pool, NULL);
    rp_html(r, "<label>URL <input name=\"url\" maxlength=\"%d\" "
               "placeholder=\"http://10.0.0.1:8080\" required></label>\n"
               "<label>State <select name=\"state\">", RP_ROSTER_URL_MAX);
    for (int i = 0; i < RP_MEMBER_GONE; i++)
        put_option(r, rp_state_names[i], rp_state_names[i], i == RP_MEMBER_UP);
    rp_html(r, "</select></label>\n");
    put_values(r, NULL);
    rp_html(r, "<button>Add</button>\n</form>\n</details>\n");
}

static void put_states(const rp_page *page, const char *pool, const json_t *member)
{
    static const struct {
        const char *state, *label;
    } all[] = { { "up", "Up" }, { "drain", "Drain" }, { "down", "Down" } };
    request_rec *r = page->r;
    const char *now = rp_html_text(member, "values.state");

    rp_form_open(page, "change", pool, rp_html_text(member, "id"));
    rp_html(r, "<fieldset>\n<legend>State</legend>\n");
    for (apr_size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        int is_now = !strcmp(now, all[i].state);

        rp_html(r, "<button name=\"state\" value=\"%s\"%s>%s%s</button>\n", all[i].state,
                is_now ? " disabled" : "", all[i].label, is_now ? " (as it is)" : "");
    }
    rp_html(r, "</fieldset>\n</form>\n");
}

void rp_form_member(const rp_page *page, const char *pool, const json_t *member)
{
    request_rec *r = page->r;
    const char *id = rp_html_text(member, "id");
    int is_removed = json_is_true(rp_html_find(member, "removed"));

    rp_html(r, "<section id=\"actions\" aria-labelledby=\"name-of-actions\">\n"
               "<h2 id=\"name-of-actions\">Change</h2>\n");
    if (!is_removed) {
        put_states(page, pool, member);
        rp_form_open(page, "change", pool, id);
        rp_html(r, "<fieldset>\n<legend>Values</legend>\n");
        put_values(r, json_object_get(member, "values"));
        rp_html(r, "<button>Change</button>\n</fieldset>\n</form>\n");
    }
    if (is_removed || json_array_size(json_object_get(member, "overridden"))) {
        rp_form_open(page, "forget", pool, id);
        rp_html(r, "<button>Forget changes</button>\n</form>\n");
    }
    if (!is_removed) {
        rp_form_open(page, "remove", pool, id);
        rp_html(r, "<button class=\"danger\">Remove</button>\n</form>\n");
    }
    rp_html(r, "<p><a class=\"cancel\" href=\"./\">Back</a></p>\n</section>\n");
}
