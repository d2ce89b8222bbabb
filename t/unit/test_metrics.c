/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Metrics: buckets, counters in shared memory, and the text of the page. */

#include <unistd.h>
#include <sys/wait.h>
#include "rproxy/metrics/rp_metrics_rows.h"
#include "rproxy/metrics/rp_metrics_text.h"
#include "t/unit/tap.h"

static const char *no_reason(int reason)
{
    (void)reason;
    return NULL;
}

/** Nonzero if the page is expected; ends the page. */
static void is_page(rp_metrics_text *text, const char *expected, const char *name)
{
    char *got = calloc(1, text->len + 1);

    memcpy(got, text->data, text->len);
    is_text(got, expected, name);
    free(got);
    rp_metrics_text_drop(text);
}

static void buckets(void)
{
    is_number(rproxy_histogram_bucket(0), 0, "nothing takes the first bucket");
    is_number(rproxy_histogram_bucket(1000), 0, "a bound belongs to its bucket");
    is_number(rproxy_histogram_bucket(1001), 1, "what is above it does not");
    is_number(rproxy_histogram_bucket(60000000), RPROXY_HISTOGRAM_BUCKETS - 2, "the last bound");
    is_number(rproxy_histogram_bucket(60000001), RPROXY_HISTOGRAM_BUCKETS - 1, "and above");
    is_number(rproxy_status_class(599), 5, "a class of status codes");
    is_number(rproxy_status_class(0), 0, "none");
    is_number(rproxy_status_class(999), 0, "nor one that is no status");
}

static void labels(void)
{
    const rproxy_label odd[] = {
        { "a", "q\"b\\n\nl" }, { "b", "\xc3\xa4\xff\xe2\x82\xac\xc0\x80\xed\xa0\x80" }, { "c", "" }
    };
    rp_metrics_text text;
    rproxy_metrics_page *page = &text.page;

    rp_metrics_text_init(&text, no_reason);
    page->family(page, "x_total", RPROXY_COUNTER, "Quotes \" stay, \\ and\nlines don't.");
    page->value(page, odd, 3, 7);
    page->value(page, NULL, 0, -1);
    is_page(&text, "# HELP x_total Quotes \" stay, \\\\ and\\nlines don't.\n"
            "# TYPE x_total counter\n"
            "x_total{a=\"q\\\"b\\\\n\\nl\",b=\"\xc3\xa4\xef\xbf\xbd\xe2\x82\xac"
            "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\",c=\"\"} 7\n"
            "x_total -1\n", "labels are escaped");
}

static void seconds(void)
{
    rp_metrics_text text;
    rproxy_metrics_page *page = &text.page;

    rp_metrics_text_init(&text, no_reason);
    page->family(page, "y", RPROXY_GAUGE, "Y.");
    page->seconds(page, NULL, 0, 0);
    page->seconds(page, NULL, 0, 1);
    page->seconds(page, NULL, 0, 2500000);
    page->seconds(page, NULL, 0, 100000000);
    page->seconds(page, NULL, 0, -1500);
    is_page(&text, "# HELP y Y.\n# TYPE y gauge\ny 0\ny 0.000001\ny 2.5\ny 100\ny -0.0015\n",
            "microseconds become seconds");
}

static void histograms(void)
{
    const rproxy_label label = { "l", "v" };
    rproxy_histogram histogram = { 0 };
    rproxy_histogram_values values = { 0 };
    rp_metrics_text text;
    rproxy_metrics_page *page = &text.page;

    rproxy_histogram_add(&histogram, 500);
    rproxy_histogram_add(&histogram, 2000);
    rproxy_histogram_add(&histogram, 90000000);
    rproxy_histogram_add(&histogram, -5);
    rproxy_histogram_read(&histogram, &values);
    rp_metrics_text_init(&text, no_reason);
    page->family(page, "z_seconds", RPROXY_HISTOGRAM, "Z.");
    page->histogram(page, &label, 1, &values);
    is_page(&text, "# HELP z_seconds Z.\n# TYPE z_seconds histogram\n"
            "z_seconds_bucket{l=\"v\",le=\"0.001\"} 2\nz_seconds_bucket{l=\"v\",le=\"0.0025\"} 3\n"
            "z_seconds_bucket{l=\"v\",le=\"0.005\"} 3\nz_seconds_bucket{l=\"v\",le=\"0.01\"} 3\n"
            "z_seconds_bucket{l=\"v\",le=\"0.025\"} 3\nz_seconds_bucket{l=\"v\",le=\"0.05\"} 3\n"
            "z_seconds_bucket{l=\"v\",le=\"0.1\"} 3\nz_seconds_bucket{l=\"v\",le=\"0.25\"} 3\n"
            "z_seconds_bucket{l=\"v\",le=\"0.5\"} 3\nz_seconds_bucket{l=\"v\",le=\"1\"} 3\n"
            "z_seconds_bucket{l=\"v\",le=\"2.5\"} 3\nz_seconds_bucket{l=\"v\",le=\"5\"} 3\n"
            "z_seconds_bucket{l=\"v\",le=\"10\"} 3\nz_seconds_bucket{l=\"v\",le=\"30\"} 3\n"
            "z_seconds_bucket{l=\"v\",le=\"60\"} 3\nz_seconds_bucket{l=\"v\",le=\"+Inf\"} 4\n"
            "z_seconds_sum{l=\"v\"} 90.0025\nz_seconds_count{l=\"v\"} 4\n", "a histogram");
}

/* ---- rows ------------------------------------------------------------------------------------ */

/** A child that counts and dies without a word. */
static void count_and_die(apr_pool_t *pool, int row)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        rp_metrics_rows_enter(pool);
        rp_metrics_in_flight(row, 1);
        atomic_fetch_add(&rp_metrics_cell_of(row)->sent, 100);
        _exit(0);
    }
    waitpid(pid, &status, 0);
}

static apr_uint64_t sent(int row)
{
    rp_metrics_values values;

    rp_metrics_row_read(row, &values);
    return values.sent;
}

static apr_int64_t in_flight(int row)
{
    rp_metrics_values values;

    rp_metrics_row_read(row, &values);
    return values.in_flight;
}

static void rows(apr_pool_t *pool)
{
    apr_pool_t *child;
    int is_new, a, b;

    ok(rp_metrics_cell_of(0) == NULL, "nowhere to count before there is memory");
    is_number(rp_metrics_rows_open(pool, pool, 2, 4), APR_SUCCESS, "memory");
    a = rp_metrics_row_claim("a", &is_new);
    ok(a > 0 && is_new, "a row");
    b = rp_metrics_row_claim("b", &is_new);
    ok(b > 0 && b != a && is_new, "another one");
    ok(rp_metrics_row_claim("a", &is_new) == a && !is_new, "the same name, the same row");

    count_and_die(pool, a);
    count_and_die(pool, a);
    is_number(sent(a), 200, "what dead children have counted stays");
    is_number(sent(b), 0, "for their row");
    rp_metrics_rows_settle();
    is_number(in_flight(a), 0, "nothing of them is in flight");

    apr_pool_create(&child, pool);
    rp_metrics_rows_enter(child);
    rp_metrics_in_flight(a, 1);
    is_number(in_flight(a), 1, "of one that lives it is");
    apr_pool_destroy(child);
    is_number(in_flight(a), 0, "until it ends");

    rp_metrics_rows_open(pool, pool, 2, 4);
    ok(rp_metrics_row_claim("a", &is_new) == a && is_new, "the next configuration finds its row");
    is_number(sent(a), 200, "with its counts");
    rp_metrics_row_claim("b", &is_new);
}

static void reuse(apr_pool_t *pool)
{
    int is_new, row, count = 0;
    char name[32];

    while (snprintf(name, sizeof(name), "r%d", count), rp_metrics_row_claim(name, &is_new))
        count++;
    ok(count >= 1000, "there is room for %d more rules", count);
    rp_metrics_rows_open(pool, pool, 2, 4);
    is_number(rp_metrics_row_claim("new", &is_new), 0, "those of the last configuration stay");
    rp_metrics_rows_open(pool, pool, 2, 4);
    row = rp_metrics_row_claim("new", &is_new);
    ok(row > 0 && is_new, "older ones make room");
    is_number(sent(row), 0, "which begins with nothing");
}

int main(void)
{
    apr_pool_t *pool = tap_pool();

    buckets();
    labels();
    seconds();
    histograms();
    rows(pool);
    reuse(pool);
    return tap_done();
}
