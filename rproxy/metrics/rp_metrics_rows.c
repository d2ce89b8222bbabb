/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include <apr_hash.h>
#include <apr_md5.h>
#include <apr_shm.h>
#include <apr_strings.h>
#include "rproxy/metrics/rp_metrics_rows.h"

#define STRIPES 16
#define ROWS_SPARE 1024                 /* for rules of later configurations */
#define CHILDREN_SPARE 64               /* that are still ending */
#define BEING_SETTLED (-1)

typedef struct row {
    unsigned char identity[APR_MD5_DIGESTSIZE];
    apr_uint32_t generation;            /* of the last configuration that has it; 0: free */
} row;

typedef struct child {
    _Alignas(64) atomic_int pid;        /* 0: free */
    atomic_uint generation;
} child;

/** The beginning of the memory; children, rows, in-flight counts of each child and stripes follow.
 * Most of it is never touched, thus never there. */
typedef struct header {
    _Alignas(64) atomic_uint next_stripe;
    apr_uint32_t generation;            /* of the last configuration */
    int row_count, child_count;
} header;

static struct {
    header *header;                     /* NULL: there is no memory */
    child *children;
    row *rows;
    atomic_int *in_flight;              /* row_count for each child */
    rp_metrics_cell *cells;             /* row_count for each stripe */
} memory;

static apr_hash_t *by_identity;         /* from open to the last claim */
static apr_uint32_t generation;
static atomic_int *mine;                /* this child's in-flight counts, NULL: it has none */
static _Thread_local rp_metrics_cell *stripe;   /* this thread's */

/* ---- the parent ------------------------------------------------------------------------------ */

static apr_size_t aligned(apr_size_t size)
{
    return (size + 63) & ~(apr_size_t)63;
}

/** Where the parts are, in bytes from the header. */
typedef struct layout {
    apr_size_t children, rows, in_flight, cells, end;
} layout;

static layout lay_out(int rows, int children)
{
    layout at;

    at.children = aligned(sizeof(header));
    at.rows = at.children + aligned((apr_size_t)children * sizeof(child));
    at.in_flight = at.rows + aligned((apr_size_t)rows * sizeof(row));
    at.cells = at.in_flight + aligned((apr_size_t)rows * (apr_size_t)children * sizeof(atomic_int));
    at.end = at.cells + (apr_size_t)rows * STRIPES * sizeof(rp_metrics_cell);
    return at;
}

static void find_parts(header *base)
{
    layout at = lay_out(base->row_count, base->child_count);
    char *start = (char *)base;

    memory.header = base;
    memory.children = (child *)(void *)(start + at.children);
    memory.rows = (row *)(void *)(start + at.rows);
    memory.in_flight = (atomic_int *)(void *)(start + at.in_flight);
    memory.cells = (rp_metrics_cell *)(void *)(start + at.cells);
}

static apr_status_t create(apr_pool_t *process_pool, const char *key, int rows, int children)
{
    apr_shm_t *shm;
    apr_status_t rv = apr_shm_create(&shm, lay_out(rows, children).end + 64, NULL, process_pool);
    header *base;

    if (rv != APR_SUCCESS)
        return rv;
    base = (header *)aligned((apr_size_t)apr_shm_baseaddr_get(shm));
    base->row_count = rows;
    base->child_count = children;
    find_parts(base);
    return apr_pool_userdata_set(base, key, NULL, process_pool);
}

apr_status_t rp_metrics_rows_open(apr_pool_t *process_pool, apr_pool_t *temp_pool, int wanted,
                                  int max_children)
{
    /* The module is loaded anew for each configuration: only the pool remembers. What another
     * version of it has left is laid out in another way. */
    char key[48];
    void *found = NULL;
    apr_status_t rv = APR_SUCCESS;

    apr_snprintf(key, sizeof(key), "rproxy-metrics-1-%lu", (unsigned long)sizeof(rp_metrics_cell));
    apr_pool_userdata_get(&found, key, process_pool);
    if (found)
        find_parts(found);
    else
        rv = create(process_pool, key, 2 * wanted + ROWS_SPARE, max_children + CHILDREN_SPARE);
    if (rv != APR_SUCCESS) {
        memory.header = NULL;
        return rv;
    }
    rp_metrics_rows_settle();
    generation = ++memory.header->generation;
    by_identity = apr_hash_make(temp_pool);
    for (int i = 1; i < memory.header->row_count && memory.rows[i].generation; i++)
        apr_hash_set(by_identity, memory.rows[i].identity, APR_MD5_DIGESTSIZE, &memory.rows[i]);
    mine = NULL;
    stripe = NULL;
    return rv;
}

static apr_uint32_t oldest_generation(void)
{
    apr_uint32_t oldest = generation;

    for (int i = 0; i < memory.header->child_count; i++) {
        apr_uint32_t its = atomic_load(&memory.children[i].generation);

        if (atomic_load(&memory.children[i].pid) != 0 && its < oldest)
            oldest = its;
    }
    return oldest;
}

static void clear(int number)
{
    int rows = memory.header->row_count;

    for (int i = 0; i < STRIPES; i++)
        memset(&memory.cells[(apr_size_t)i * (apr_size_t)rows + (apr_size_t)number], 0,
               sizeof(rp_metrics_cell));
    for (int i = 0; i < memory.header->child_count; i++)
        atomic_store(&memory.in_flight[(apr_size_t)i * (apr_size_t)rows + (apr_size_t)number], 0);
}

/** A row that was never used, else one that no living child's configuration has, and not the last
 * one either: a child of it may not have entered yet. */
static row *free_row(void)
{
    apr_uint32_t oldest = oldest_generation();

    for (int i = 1; i < memory.header->row_count; i++) {
        if (!memory.rows[i].generation)
            return &memory.rows[i];
    }
    for (int i = 1; i < memory.header->row_count; i++) {
        row *old = &memory.rows[i];

        if (old->generation < oldest && old->generation + 1 < generation) {
            apr_hash_set(by_identity, old->identity, APR_MD5_DIGESTSIZE, NULL);
            clear(i);
            return old;
        }
    }
    return NULL;
}

int rp_metrics_row_claim(const char *identity, int *is_new)
{
    unsigned char digest[APR_MD5_DIGESTSIZE];
    row *found;

    *is_new = 0;
    if (!memory.header)
        return 0;
    apr_md5(digest, identity, strlen(identity));
    found = apr_hash_get(by_identity, digest, APR_MD5_DIGESTSIZE);
    if (!found) {
        if (!(found = free_row()))
            return 0;
        memcpy(found->identity, digest, APR_MD5_DIGESTSIZE);
        found->generation = 0;
        apr_hash_set(by_identity, found->identity, APR_MD5_DIGESTSIZE, found);
    }
    *is_new = found->generation != generation;
    found->generation = generation;
    return (int)(found - memory.rows);
}

/* ---- children -------------------------------------------------------------------------------- */

static atomic_int *in_flight_of(int number)
{
    return memory.in_flight + (apr_size_t)number * (apr_size_t)memory.header->row_count;
}

static void forget_in_flight(int number)
{
    atomic_int *counts = in_flight_of(number);

    for (int i = 0; i < memory.header->row_count; i++) {
        /* Look first: a page that was never written need not come into being. */
        if (atomic_load_explicit(&counts[i], memory_order_relaxed))
            atomic_store_explicit(&counts[i], 0, memory_order_relaxed);
    }
}

void rp_metrics_rows_settle(void)
{
    for (int i = 0; memory.header && i < memory.header->child_count; i++) {
        int pid = atomic_load(&memory.children[i].pid);

        if (pid > 0 && kill(pid, 0) != 0 && errno == ESRCH
            && atomic_compare_exchange_strong(&memory.children[i].pid, &pid, BEING_SETTLED)) {
            forget_in_flight(i);
            atomic_store(&memory.children[i].pid, 0);
        }
    }
}

static apr_status_t leave(void *baton)
{
    child *self = baton;

    mine = NULL;
    forget_in_flight((int)(self - memory.children));
    atomic_store(&self->pid, 0);
    return APR_SUCCESS;
}

void rp_metrics_rows_enter(apr_pool_t *pool)
{
    mine = NULL;
    rp_metrics_rows_settle();
    for (int i = 0; memory.header && !mine && i < memory.header->child_count; i++) {
        child *self = &memory.children[i];
        int expected = 0;

        if (atomic_compare_exchange_strong(&self->pid, &expected, (int)getpid())) {
            atomic_store(&self->generation, generation);
            mine = in_flight_of(i);
            apr_pool_cleanup_register(pool, self, leave, apr_pool_cleanup_null);
        }
    }
}

/* ---- counting -------------------------------------------------------------------------------- */

rp_metrics_cell *rp_metrics_cell_of(int number)
{
    if (!stripe) {
        unsigned int next;

        if (!memory.header)
            return NULL;
        next = atomic_fetch_add_explicit(&memory.header->next_stripe, 1, memory_order_relaxed);
        stripe = memory.cells + (apr_size_t)(next % STRIPES) * (apr_size_t)memory.header->row_count;
    }
    return stripe + number;
}

void rp_metrics_in_flight(int number, int change)
{
    if (mine)
        atomic_fetch_add_explicit(&mine[number], change, memory_order_relaxed);
}

/* ---- reading --------------------------------------------------------------------------------- */

static void sum_up(apr_uint64_t *sums, atomic_ullong *counts, int count)
{
    for (int i = 0; i < count; i++)
        sums[i] += atomic_load_explicit(&counts[i], memory_order_relaxed);
}

void rp_metrics_row_read(int number, rp_metrics_values *values)
{
    int rows = memory.header ? memory.header->row_count : 0;

    memset(values, 0, sizeof(*values));
    for (int i = 0; rows && i < STRIPES; i++) {
        rp_metrics_cell *cell = &memory.cells[(apr_size_t)i * (apr_size_t)rows
                                              + (apr_size_t)number];

        for (int lane = 0; lane < RP_METRICS_LANES; lane++)
            sum_up(values->requests[lane], cell->requests[lane], RPROXY_STATUS_CLASSES);
        sum_up(&values->opened, &cell->opened, 1);
        sum_up(&values->reused, &cell->reused, 1);
        sum_up(&values->sent, &cell->sent, 1);
        sum_up(&values->received, &cell->received, 1);
        sum_up(&values->retries, &cell->retries, 1);
        sum_up(values->errors, cell->errors, RPROXY_REASONS_MAX);
        rproxy_histogram_read(&cell->first_byte, &values->first_byte);
        rproxy_histogram_read(&cell->total, &values->total);
    }
    for (int i = 0; rows && i < memory.header->child_count; i++) {
        if (atomic_load(&memory.children[i].pid) > 0)
            values->in_flight += atomic_load_explicit(&in_flight_of(i)[number],
                                                      memory_order_relaxed);
    }
}
