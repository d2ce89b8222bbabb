/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* httpd's regular expressions for programs that run without httpd: the functions live inside its
 * binary. Same defaults (AP_REG_DEFAULT) and results. For tests only. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>
#include "httpd.h"

int ap_regcomp(ap_regex_t *preg, const char *regex, int cflags)
{
    uint32_t options = PCRE2_DUPNAMES | PCRE2_DOTALL | PCRE2_DOLLAR_ENDONLY;
    uint32_t groups = 0;
    PCRE2_SIZE offset;
    int error;

    if (cflags & AP_REG_ICASE)
        options |= PCRE2_CASELESS;
    preg->re_pcre =
        pcre2_compile((PCRE2_SPTR)regex, PCRE2_ZERO_TERMINATED, options, &error, &offset, NULL);
    preg->re_erroffset = offset;
    if (!preg->re_pcre)
        return AP_REG_INVARG;
    pcre2_pattern_info(preg->re_pcre, PCRE2_INFO_CAPTURECOUNT, &groups);
    preg->re_nsub = groups;
    return 0;
}

void ap_regfree(ap_regex_t *preg)
{
    pcre2_code_free(preg->re_pcre);
}

static apr_status_t free_regex(void *preg)
{
    ap_regfree(preg);
    return APR_SUCCESS;
}

ap_regex_t *ap_pregcomp(apr_pool_t *p, const char *pattern, int cflags)
{
    ap_regex_t *preg = apr_pcalloc(p, sizeof(*preg));

    if (ap_regcomp(preg, pattern, cflags) != 0)
        return NULL;
    apr_pool_cleanup_register(p, preg, free_regex, apr_pool_cleanup_null);
    return preg;
}

int ap_regexec(const ap_regex_t *preg, const char *string, apr_size_t nmatch, ap_regmatch_t *pmatch,
               int eflags)
{
    pcre2_match_data *data = pcre2_match_data_create((uint32_t)nmatch, NULL);
    const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(data);
    int count = pcre2_match(preg->re_pcre, (PCRE2_SPTR)string, strlen(string), 0, 0, data, NULL);

    (void)eflags;                       /* none is used here */
    if (count == 0)
        count = (int)nmatch;
    for (int i = 0; i < (int)nmatch; i++) {
        int set = i < count && offsets[2 * i] != PCRE2_UNSET;

        pmatch[i].rm_so = set ? (int)offsets[2 * i] : -1;
        pmatch[i].rm_eo = set ? (int)offsets[2 * i + 1] : -1;
    }
    pcre2_match_data_free(data);
    return count < 0 ? AP_REG_NOMATCH : 0;
}
