/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What stands for members in URLs, and for versions of rosters in ETag. */
#include <stdio.h>
#include <string.h>
#include <apr_base64.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "balancer/rp_manager.h"

#define KEPT "rproxy-manager-run"
#define NUMBER "%" APR_UINT64_T_HEX_FMT

static apr_uint64_t run;                /* another one each time the server is started */

const char *rp_manager_id(apr_pool_t *pool, const rp_roster_member *member)
{
    int len = (int)strlen(member->key);
    char *id = apr_palloc(pool, (apr_size_t)apr_base64_encode_len(len));

    apr_base64_encode(id, member->key, len);
    for (char *p = id; *p; p++)
        *p = *p == '+' ? '-' : *p == '/' ? '_' : *p == '=' ? '\0' : *p;
    return id;
}

const char *rp_manager_id_url(apr_pool_t *pool, const char *id)
{
    char *text = apr_pstrdup(pool, id), *url;
    int len;

    for (char *p = text; *p; p++) {
        if (!apr_isalnum(*p) && *p != '-' && *p != '_')
            return NULL;
        *p = *p == '-' ? '+' : *p == '_' ? '/' : *p;
    }
    url = apr_palloc(pool, (apr_size_t)apr_base64_decode_len(text) + 1);
    len = apr_base64_decode(url, text);
    url[len] = '\0';
    return len && strlen(url) == (apr_size_t)len ? rp_balancer_normal_url(pool, url) : NULL;
}

void rp_manager_id_start(apr_pool_t *process_pool)
{
    void *kept = NULL;

    apr_pool_userdata_get(&kept, KEPT, process_pool);
    if (!kept) {
        apr_uint64_t *made = apr_palloc(process_pool, sizeof(*made));

        *made = (apr_uint64_t)apr_time_now();
        apr_pool_userdata_set(kept = made, KEPT, NULL, process_pool);
    }
    run = *(const apr_uint64_t *)kept;
}

const char *rp_manager_etag(apr_pool_t *pool, const rp_balancer *balancer,
                            unsigned long long version)
{
    return apr_psprintf(pool, "\"" NUMBER "-" NUMBER "-" NUMBER "\"", run,
                        (apr_uint64_t)atomic_load(&balancer->slot->incarnation),
                        (apr_uint64_t)version);
}

/** Takes a hexadecimal number that ends with stop off the text. */
static int take_number(const char **text, char stop, unsigned long long *value)
{
    char *end;

    *value = strtoull(*text, &end, 16);
    if (end == *text || *end != stop)
        return 0;
    *text = end + 1;
    return 1;
}

unsigned long long rp_manager_etag_version(const rp_balancer *balancer, const char *text)
{
    unsigned long long its_run, incarnation, version;

    if (*text++ != '"' || !take_number(&text, '-', &its_run)
        || !take_number(&text, '-', &incarnation) || !take_number(&text, '"', &version)
        || *text || its_run != run
        || incarnation != atomic_load(&balancer->slot->incarnation))
        return 0;
    return version;
}
