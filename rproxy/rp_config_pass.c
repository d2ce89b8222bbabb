/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* RProxyPass and RProxyPassMatch: by where a rule stands, it goes into the server's table of routes
 * or becomes a section's own rule. */
#include <string.h>
#include <strings.h>
#include <apr_fnmatch.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include "http_core.h"
#include "http_log.h"
#include "ap_expr.h"

#include "rproxy/rp_config_private.h"

APLOG_USE_MODULE(rproxy);

/** The argument of a section. */
typedef struct section_argument {
    const char *text;
    int is_regex;
} section_argument;

static section_argument argument_of(apr_pool_t *pool, const ap_directive_t *section)
{
    const char *end = strrchr(section->args, '>');
    const char *rest = end ? apr_pstrmemdup(pool, section->args, (apr_size_t)(end - section->args))
                           : section->args;
    apr_size_t name_len = strlen(section->directive);
    section_argument argument = { ap_getword_conf(pool, &rest), 0 };

    argument.is_regex = name_len > 5 && !strcasecmp(section->directive + name_len - 5, "Match");
    if (!argument.is_regex && !strcmp(argument.text, "~")) {
        argument.text = ap_getword_conf(pool, &rest);
        argument.is_regex = 1;
    }
    return argument;
}

static const char *name_of(apr_pool_t *pool, const ap_directive_t *section)
{
    const char *end = strrchr(section->args, '>');

    return apr_pstrcat(pool, section->directive, *section->args == '>' ? "" : " ",
                       end ? apr_pstrmemdup(pool, section->args, (apr_size_t)(end - section->args))
                           : section->args, ">", NULL);
}

/** The path of a <Location>, which is compared with decoded paths, as a prefix of encoded ones. */
static const char *encode_path(apr_pool_t *pool, const char *path)
{
    static const char hex[] = "0123456789ABCDEF";
    char *encoded = apr_palloc(pool, strlen(path) * 3 + 1), *out = encoded;

    for (; *path; path++) {
        unsigned char byte = (unsigned char)*path;

        if (byte <= ' ' || byte >= 0x7f || strchr("%?#\\", byte)) {
            *out++ = '%';
            *out++ = hex[byte >> 4];
            *out++ = hex[byte & 15];
        }
        else
            *out++ = *path;
    }
    *out = '\0';
    return encoded;
}

static apr_array_header_t *words_from(apr_pool_t *pool, const apr_array_header_t *words, int first)
{
    apr_array_header_t *rest = apr_array_make(pool, 2, sizeof(const char *));

    for (int i = first; i < words->nelts; i++)
        APR_ARRAY_PUSH(rest, const char *) = APR_ARRAY_IDX(words, i, const char *);
    return rest;
}

/* ---- rules in the server's table ------------------------------------------------------------- */

static const char *add_route(cmd_parms *cmd, const char *path, int is_regex,
                             const apr_array_header_t *words, int first)
{
    rp_server_config *config = rp_server_config_of(cmd->server);
    const char *error = NULL, *message;
    rp_route *route;

    message = rp_route_parse(cmd->pool, path, is_regex, APR_ARRAY_IDX(words, first, const char *),
                             words_from(cmd->pool, words, first + 1),
                             apr_pstrdup(cmd->pool, cmd->directive->filename),
                             cmd->directive->line_num, &route);
    if (message)
        return message;
    if (route->condition_text) {
        route->condition = ap_expr_parse_cmd(cmd, route->condition_text, 0, &error, NULL);
        if (error)
            return apr_psprintf(cmd->pool, "%s %s: if=\"%s\" can't be read: %s; write a condition "
                                "as for <If>, like if=\"%%{HTTPS} == 'on'\"", cmd->cmd->name, path,
                                route->condition_text, error);
    }
    rp_route_table_add(config->routes, route);
    return NULL;
}

static const char *location_route(cmd_parms *cmd, const ap_directive_t *location,
                                  const apr_array_header_t *words)
{
    section_argument argument = argument_of(cmd->pool, location);
    const char *first = words->nelts ? APR_ARRAY_IDX(words, 0, const char *) : "";

    if (!*first)
        return apr_psprintf(cmd->pool, "RProxyPass needs a target, or ! to exempt %s",
                            name_of(cmd->pool, location));
    if (*first == '/')
        return apr_psprintf(cmd->pool, "RProxyPass in %s takes the path of that section; remove "
                            "\"%s\", or move the line out", name_of(cmd->pool, location), first);
    if (!argument.is_regex && apr_fnmatch_test(argument.text))
        return apr_psprintf(cmd->pool, "RProxyPass takes no wildcards, and %s has some; write the "
                            "section as <LocationMatch>", name_of(cmd->pool, location));
    if (!argument.is_regex && *argument.text != '/')
        return apr_psprintf(cmd->pool, "RProxyPass in %s could not take effect: the section's path "
                            "must begin with '/'", name_of(cmd->pool, location));
    return add_route(cmd, argument.is_regex ? argument.text : encode_path(cmd->pool, argument.text),
                     argument.is_regex, words, 0);
}

/* ---- a section's own rule -------------------------------------------------------------------- */

/** Directory of a .htaccess file, with a final slash. Inside of <If> or <Files> cmd->path is no
 * more that directory, so it is taken from the file's name. */
static const char *htaccess_directory(const cmd_parms *cmd)
{
    const core_server_config *core = ap_get_core_module_config(cmd->server->module_config);
    const char *file = cmd->directive->filename;
    const char *names = core->access_name ? core->access_name : ".htaccess";
    apr_size_t len = strlen(file);

    while (*names) {
        const char *name = ap_getword_conf(cmd->pool, &names);
        apr_size_t name_len = strlen(name);

        if (name_len < len && file[len - name_len - 1] == '/'
            && !strcmp(file + len - name_len, name))
            return apr_pstrmemdup(cmd->pool, file, len - name_len);
    }
    return ap_make_dirstr_parent(cmd->pool, file);
}

/** Directory of the rule, NULL if there is none, or (wild set) none that can be told beforehand. */
static const char *rule_directory(const cmd_parms *cmd, int *wild)
{
    const ap_directive_t *section = rp_config_enclosing(cmd->directive, "<Directory");
    section_argument argument;
    char *path;
    apr_status_t rv;

    *wild = 0;
    if (rp_config_in_htaccess(cmd))
        return htaccess_directory(cmd);
    if (!section)
        return NULL;
    argument = argument_of(cmd->pool, section);
    if (argument.is_regex || apr_fnmatch_test(argument.text)) {
        *wild = 1;
        return NULL;
    }
    rv = apr_filepath_merge(&path, NULL, argument.text, APR_FILEPATH_TRUENAME, cmd->pool);
    if (rv != APR_SUCCESS && rv != APR_EPATHWILD)
        return argument.text;
    return path[strlen(path) - 1] == '/' ? path : apr_pstrcat(cmd->pool, path, "/", NULL);
}

/** Name of the innermost section around the rule. */
static const char *rule_section(const cmd_parms *cmd)
{
    return cmd->directive->parent ? name_of(cmd->pool, cmd->directive->parent) : "a .htaccess file";
}

/** Settles path and directory of a rule from where it stands. */
static const char *place_rule(cmd_parms *cmd, const char *written_path, rp_local_rule *rule)
{
    const ap_directive_t *location = rp_config_enclosing(cmd->directive, "<Location");
    int wild;

    if (location && written_path)
        return apr_psprintf(cmd->pool, "RProxyPass in %s takes the path of the section around it; "
                            "remove \"%s\"", name_of(cmd->pool, location), written_path);
    rule->from_htaccess = rp_config_in_htaccess(cmd);
    rule->directory = rule_directory(cmd, &wild);
    if (location) {
        section_argument argument = argument_of(cmd->pool, location);

        rule->path = argument.is_regex || apr_fnmatch_test(argument.text)
                     ? "/" : encode_path(cmd->pool, argument.text);
    }
    else if (written_path)
        rule->path = written_path;
    else if (wild)
        return apr_psprintf(cmd->pool, "RProxyPass in %s can't know its path, for the section "
                            "stands for many directories; write RProxyPass PATH TARGET",
                            rule_section(cmd));
    else if (!rule->directory)
        rule->path = "/";
    return NULL;
}

static const char *local_rule(cmd_parms *cmd, rp_dir_config *dir, const apr_array_header_t *words)
{
    rp_local_rule *rule = apr_pcalloc(cmd->pool, sizeof(*rule));
    const char *first = words->nelts ? APR_ARRAY_IDX(words, 0, const char *) : "";
    const char *path = *first == '/' ? first : NULL;
    int used = path ? 2 : 1;
    const char *message = rp_config_guard(cmd, RP_GUARD_ONCE);
    rp_route *route;

    if (message)
        return message;
    if (words->nelts < used)
        return "RProxyPass needs a target like http://host:port/, or ! to exempt";
    if (words->nelts > used)
        return apr_psprintf(cmd->pool, "RProxyPass in %s takes no \"%s\"; %s", rule_section(cmd),
                            APR_ARRAY_IDX(words, used, const char *),
                            rp_config_in_htaccess(cmd)
                            ? "put the rule into <If \"EXPR\"> to make it depend on something"
                            : "put the rule into a <If \"EXPR\"> of its own, or into <Location>");
    if ((message = place_rule(cmd, path, rule)))
        return message;
    rule->target = APR_ARRAY_IDX(words, used - 1, const char *);
    rule->file = apr_pstrdup(cmd->pool, cmd->directive->filename);
    rule->line = cmd->directive->line_num;
    message = rp_route_parse(cmd->pool, rule->path ? rule->path : "/", 0, rule->target, NULL,
                             rule->file, rule->line, &route);
    if (message)
        return message;
    rule->address = route->target;
    if (rule->path)
        rule->path = route->path;
    dir->rule = rule;
    if (!rule->from_htaccess) {
        rp_config_section_rule *noted = apr_array_push(rp_config_written_get()->sections);

        noted->server = cmd->server;
        noted->rule = rule;
        noted->section = rule_section(cmd);
    }
    return NULL;
}

/* ---- the directives -------------------------------------------------------------------------- */

const char *rp_config_pass(cmd_parms *cmd, void *dir, const char *arguments)
{
    static const char *const own_rule[] = {
        "<If", "<ElseIf", "<Else", "<Directory", "<Files", NULL
    };
    const apr_array_header_t *words = rp_argument_words(cmd->pool, arguments);
    const ap_directive_t *location = rp_config_enclosing(cmd->directive, "<Location");
    const char *message = rp_config_guard(cmd, 0);
    const char *path;

    if (message)
        return message;
    if (rp_config_in_htaccess(cmd))
        return local_rule(cmd, dir, words);
    for (int i = 0; own_rule[i]; i++) {
        if (rp_config_enclosing(cmd->directive, own_rule[i]))
            return local_rule(cmd, dir, words);
    }
    if (location)
        return location_route(cmd, location, words);
    if (words->nelts < 2)
        return "RProxyPass needs a path and a target here, as in RProxyPass /app "
               "http://host:port/; only in <Location> and <If> the path may be left out";
    path = APR_ARRAY_IDX(words, 0, const char *);
    return add_route(cmd, path, 0, words, 1);
}

const char *rp_config_pass_match(cmd_parms *cmd, void *dir, const char *arguments)
{
    const apr_array_header_t *words = rp_argument_words(cmd->pool, arguments);
    const char *message = rp_config_guard(cmd, RP_GUARD_SERVER);

    (void)dir;
    if (message)
        return message;
    if (words->nelts < 2)
        return "RProxyPassMatch needs a regular expression and a target, as in RProxyPassMatch "
               "^/user/(.+)$ http://host:port/$1";
    return add_route(cmd, APR_ARRAY_IDX(words, 0, const char *), 1, words, 1);
}
