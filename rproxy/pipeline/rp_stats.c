/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>
#include <apr_shm.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_config.h"
#include "http_protocol.h"
#include "mod_status.h"
#include "rproxy/pipeline/rp_stats.h"

#define RP_STATS_SLOTS 512              /* children at once; more share the last one */

typedef struct stats_slot {
    _Alignas(64) atomic_int pid;        /* 0: free */
    atomic_llong values[RP_STAT_COUNT];
} stats_slot;

typedef struct stats_memory {
    atomic_llong totals[RP_STAT_COUNT]; /* of children that are gone */
    stats_slot slots[RP_STATS_SLOTS];
} stats_memory;

static stats_memory *memory;
static stats_slot *mine;

static int is_gauge(int stat)
{
    return stat >= RP_STAT_ACTIVE && stat <= RP_STAT_TUNNELS;
}

static int is_dead(int pid)
{
    return pid != 0 && kill(pid, 0) != 0 && errno == ESRCH;
}

/* All orders relaxed: counters for display, nothing else depends on them. */
static apr_int64_t load(atomic_llong *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

apr_status_t rp_stats_create(apr_pool_t *process_pool)
{
    char key[48];
    void *found = NULL;
    apr_shm_t *shm;
    apr_status_t rv;

    /* The module is loaded anew for each configuration: only the pool remembers. */
    apr_snprintf(key, sizeof(key), "rproxy-stats-%lu", (unsigned long)sizeof(stats_memory));
    apr_pool_userdata_get(&found, key, process_pool);
    memory = found;
    if (memory) {
        return APR_SUCCESS;
    }
    rv = apr_shm_create(&shm, sizeof(stats_memory) + 64, NULL, process_pool);
    if (rv == APR_SUCCESS) {
        apr_uintptr_t base = (apr_uintptr_t)apr_shm_baseaddr_get(shm);

        memory = (stats_memory *)((base + 63) & ~(apr_uintptr_t)63);
        rv = apr_pool_userdata_set(memory, key, NULL, process_pool);
    }
    return rv;
}

static void fold(stats_slot *slot)
{
    for (int i = 0; i < RP_STAT_COUNT; i++) {
        apr_int64_t value = atomic_exchange(&slot->values[i], 0);

        if (!is_gauge(i)) {
            atomic_fetch_add(&memory->totals[i], value);
        }
    }
}

static apr_status_t give_back(void *baton)
{
    stats_slot *slot = baton;

    mine = NULL;
    fold(slot);
    atomic_store(&slot->pid, 0);
    return APR_SUCCESS;
}

void rp_stats_child_init(apr_pool_t *pool)
{
    int self = (int)getpid();

    for (int i = 0; memory && i < RP_STATS_SLOTS; i++) {
        stats_slot *slot = &memory->slots[i];
        int pid = atomic_load(&slot->pid);

        if ((pid == 0 || is_dead(pid)) && atomic_compare_exchange_strong(&slot->pid, &pid, self)) {
            fold(slot);
            mine = slot;
            apr_pool_cleanup_register(pool, slot, give_back, apr_pool_cleanup_null);
            return;
        }
    }
}

void rp_stats_add(int stat, apr_int64_t n)
{
    if (mine && n) {
        atomic_fetch_add_explicit(&mine->values[stat], n, memory_order_relaxed);
    }
}

apr_int64_t rp_stats_sum(int stat)
{
    apr_int64_t sum = memory ? load(&memory->totals[stat]) : 0;

    for (int i = 0; memory && i < RP_STATS_SLOTS; i++) {
        stats_slot *slot = &memory->slots[i];
        int pid = atomic_load(&slot->pid);

        if (pid != 0 && !(is_gauge(stat) && is_dead(pid))) {
            sum += load(&slot->values[stat]);
        }
    }
    return sum;
}

/* ---- mod_status ------------------------------------------------------------------------------ */

static const struct {
    int stat;
    const char *key;                    /* for ?auto */
    const char *text;
} shown[] = {
    { RP_STAT_REQUESTS, "Requests", "requests" },
    { RP_STAT_ACTIVE, "Active", "active now" },
    { RP_STAT_PARKED, "Parked", "parked now (holding no thread)" },
    { RP_STAT_TUNNELS, "Tunnels", "tunnels now" },
    { RP_STAT_CONNECTS, "Connects", "new upstream connections" },
    { RP_STAT_REUSES, "Reuses", "reused upstream connections" },
    { RP_STAT_RETRIES, "Retries", "repeated attempts" },
    { RP_STAT_BYTES_SENT, "BytesSent", "body bytes to upstreams" },
    { RP_STAT_BYTES_RECEIVED, "BytesReceived", "body bytes from upstreams" }
};

/* In the order of rp_h2_nuisance. */
const char *const rp_stats_h2_nuisances[RP_STAT_H2_NUISANCE_COUNT] = {
    "RST_STREAM", "SETTINGS", "PING", "empty-DATA", "PRIORITY", "WINDOW_UPDATE", "malformed",
    "CONTINUATION", "head"
};

static int status_hook(request_rec *r, int flags)
{
    int brief = flags & AP_STATUS_SHORT;

    if (!brief) {
        ap_rputs("<hr />\n<h2>Reverse proxy (mod_rproxy)</h2>\n<table>\n", r);
    }
    for (apr_size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
        apr_int64_t value = rp_stats_sum(shown[i].stat);

        if (brief) {
            ap_rprintf(r, "RProxy%s: %" APR_INT64_T_FMT "\n", shown[i].key, value);
        }
        else {
            ap_rprintf(r, "<tr><td>%s</td><td>%" APR_INT64_T_FMT "</td></tr>\n", shown[i].text,
                       value);
        }
    }
    for (int reason = RP_REASON_NONE + 1; reason < RP_REASON_COUNT; reason++) {
        apr_int64_t value = rp_stats_sum(RP_STAT_ERRORS + reason);

        if (brief) {
            ap_rprintf(r, "RProxyError-%s: %" APR_INT64_T_FMT "\n",
                       rp_reason_get(reason)->name, value);
        }
        else if (value) {
            ap_rprintf(r, "<tr><td>ended by %s</td><td>%" APR_INT64_T_FMT "</td></tr>\n",
                       rp_reason_get(reason)->name, value);
        }
    }
    for (int i = 0; i < RP_STAT_H2_NUISANCE_COUNT; i++) {
        apr_int64_t value = rp_stats_sum(RP_STAT_H2_NUISANCES + i);

        if (brief) {
            ap_rprintf(r, "RProxyHTTP2Ended-%s: %" APR_INT64_T_FMT "\n", rp_stats_h2_nuisances[i],
                       value);
        }
        else if (value) {
            ap_rprintf(r, "<tr><td>HTTP/2 connections ended for too many: %s</td><td>%"
                       APR_INT64_T_FMT "</td></tr>\n", rp_stats_h2_nuisances[i], value);
        }
    }
    if (!brief) {
        ap_rputs("</table>\n", r);
    }
    return OK;
}

static int pre_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    (void)plog;
    (void)ptemp;
    APR_OPTIONAL_HOOK(ap, status_hook, status_hook, NULL, NULL, APR_HOOK_MIDDLE);
    (void)pconf;
    return OK;
}

void rp_stats_register_hooks(void)
{
    ap_hook_pre_config(pre_config, NULL, NULL, APR_HOOK_MIDDLE);
}
