/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Metrics of other modules on the page that mod_rproxy serves (SetHandler rproxy-metrics,
 * RProxyMetricsListen): a provider, registered in register_hooks with ap_register_provider() under
 * this group and version and the module's own name:
 *
 *     ap_register_provider(pool, RPROXY_METRICS_GROUP, "mine", RPROXY_METRICS_VERSION, &mine);
 *
 * Its write() puts families of metrics on the page, in the text format of Prometheus: it begins a
 * family, then gives the values of all of its series. Names have the unit in them (_seconds,
 * _bytes), counters end in _total. Escaping is the page's. */
#ifndef MOD_RPROXY_METRICS_H
#define MOD_RPROXY_METRICS_H

#include <stdatomic.h>
#include <apr.h>
#include <apr_time.h>

#define RPROXY_METRICS_GROUP "rproxy-metrics"
#define RPROXY_METRICS_VERSION "1"

/* ---- counting -------------------------------------------------------------------------------- */

#define RPROXY_HISTOGRAM_BUCKETS 16

/** Upper bounds in microseconds of all buckets but the last, which has none. */
#define RPROXY_HISTOGRAM_BOUNDS { \
    1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, \
    10000000, 30000000, 60000000 }

/** How long something took, in shared memory. Zero at first; any thread of any process. */
typedef struct rproxy_histogram {
    atomic_ullong sum;                  /* microseconds */
    atomic_ullong buckets[RPROXY_HISTOGRAM_BUCKETS];    /* each for itself, not those below it */
} rproxy_histogram;

/** The bucket of a time. */
static inline int rproxy_histogram_bucket(apr_interval_time_t time)
{
    static const apr_interval_time_t bounds[] = RPROXY_HISTOGRAM_BOUNDS;
    int bucket = 0;

    _Static_assert(sizeof(bounds) / sizeof(bounds[0]) == RPROXY_HISTOGRAM_BUCKETS - 1,
                   "each bucket but the last has a bound");
    while (bucket < RPROXY_HISTOGRAM_BUCKETS - 1 && time > bounds[bucket])
        bucket++;
    return bucket;
}

/** Relaxed, as all that is only shown: nothing else depends on it. */
static inline void rproxy_histogram_add(rproxy_histogram *histogram, apr_interval_time_t time)
{
    if (time < 0)
        time = 0;                       /* the clock was set back */
    atomic_fetch_add_explicit(&histogram->buckets[rproxy_histogram_bucket(time)], 1,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->sum, (unsigned long long)time, memory_order_relaxed);
}

/** Classes of status codes: 1 to 5, and 0 for no response. */
#define RPROXY_STATUS_CLASSES 6

static inline int rproxy_status_class(int status)
{
    return status >= 100 && status < 600 ? status / 100 : 0;
}

static inline const char *rproxy_status_class_name(int status_class)
{
    static const char *const names[] = { "none", "1xx", "2xx", "3xx", "4xx", "5xx" };

    _Static_assert(sizeof(names) / sizeof(names[0]) == RPROXY_STATUS_CLASSES, "one for each");
    return names[status_class];
}

/** More than there are reasons for failures, see rproxy_result.reason. */
#define RPROXY_REASONS_MAX 40

/* ---- the page -------------------------------------------------------------------------------- */

typedef struct rproxy_label {
    const char *name;
    const char *value;                  /* any text; what isn't UTF-8 is replaced */
} rproxy_label;

/** Values that were read before they are written. */
typedef struct rproxy_histogram_values {
    apr_uint64_t sum;                   /* microseconds */
    apr_uint64_t buckets[RPROXY_HISTOGRAM_BUCKETS];
} rproxy_histogram_values;

/** Adds what a histogram has now to values. */
static inline void rproxy_histogram_read(rproxy_histogram *histogram,
                                         rproxy_histogram_values *values)
{
    values->sum += atomic_load_explicit(&histogram->sum, memory_order_relaxed);
    for (int i = 0; i < RPROXY_HISTOGRAM_BUCKETS; i++)
        values->buckets[i] += atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
}

typedef enum rproxy_metric_type {
    RPROXY_COUNTER, RPROXY_GAUGE, RPROXY_HISTOGRAM
} rproxy_metric_type;

/** A page that is being written; one thread's. */
typedef struct rproxy_metrics_page rproxy_metrics_page;
struct rproxy_metrics_page {
    /** Begins a family: its name, and a sentence about it. Once for each name. */
    void (*family)(rproxy_metrics_page *page, const char *name, rproxy_metric_type type,
                   const char *help);
    /** A value of the family that was begun, of a counter or gauge. */
    void (*value)(rproxy_metrics_page *page, const rproxy_label *labels, int label_count,
                  apr_int64_t value);
    /** The same; microseconds become seconds. */
    void (*seconds)(rproxy_metrics_page *page, const rproxy_label *labels, int label_count,
                    apr_int64_t microseconds);
    void (*histogram)(rproxy_metrics_page *page, const rproxy_label *labels, int label_count,
                      const rproxy_histogram_values *values);
    /** The name of a reason (rproxy_result.reason), NULL: there is none of this number. */
    const char *(*reason)(int reason);
};

typedef struct rproxy_metrics {
    /** Writes what the module knows, in any thread of a child, several at once: it must neither
     * block nor change anything. */
    void (*write)(rproxy_metrics_page *page);
} rproxy_metrics;

#endif
