/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rproxy/metrics/rp_metrics_text.h"

#define FIRST_CAPACITY 16384
#define NUMBER_MAX 48                   /* bytes of one, and what stands around it */
#define MICRO 1000000

/* ---- bytes ----------------------------------------------------------------------------------- */

static int make_room(rp_metrics_text *text, apr_size_t more)
{
    apr_size_t capacity = text->capacity ? text->capacity : FIRST_CAPACITY;
    char *data;

    if (text->failed)
        return 0;
    if (text->len + more <= text->capacity)
        return 1;
    while (capacity < text->len + more)
        capacity *= 2;
    if (!(data = realloc(text->data, capacity))) {
        text->failed = 1;
        return 0;
    }
    text->data = data;
    text->capacity = capacity;
    return 1;
}

static void add(rp_metrics_text *text, const char *bytes, apr_size_t len)
{
    if (len && make_room(text, len)) {
        memcpy(text->data + text->len, bytes, len);
        text->len += len;
    }
}

static void add_text(rp_metrics_text *text, const char *string)
{
    add(text, string, strlen(string));
}

/** Bytes of the character at bytes, 0: it is no UTF-8 (RFC 3629 section 4). */
static int character_len(const unsigned char *bytes)
{
    unsigned char first = bytes[0], low = 0x80, high = 0xbf;
    int len = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3
        : first < 0xf5 ? 4 : 0;

    if (first == 0xe0)
        low = 0xa0;                     /* not longer than needed */
    else if (first == 0xed)
        high = 0x9f;                    /* no surrogate */
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;                    /* not above the last character */
    for (int i = 1; i < len; i++) {
        if (bytes[i] < low || bytes[i] > high)
            return 0;
        low = 0x80;
        high = 0xbf;
    }
    return len;
}

/** A page with a byte that isn't UTF-8 would be refused as a whole. Quotes are escaped in values of
 * labels, not in help. */
static void add_escaped(rp_metrics_text *text, const char *string, int is_label)
{
    const unsigned char *at = (const unsigned char *)string;

    while (*at) {
        int len = character_len(at);

        if (!len)
            add_text(text, "\xef\xbf\xbd");
        else if (*at == '\n')
            add_text(text, "\\n");
        else if (*at == '\\' || (*at == '"' && is_label)) {
            add_text(text, "\\");
            add(text, (const char *)at, 1);
        }
        else
            add(text, (const char *)at, (apr_size_t)len);
        at += len ? len : 1;
    }
}

/** Zeros behind the point that say nothing are left out, as Prometheus writes numbers. */
static void format_seconds(char *out, apr_size_t size, apr_int64_t microseconds)
{
    apr_int64_t whole = microseconds / MICRO, rest = microseconds % MICRO;
    apr_size_t len = (apr_size_t)snprintf(out, size, "%s%lld.%06lld", microseconds < 0 ? "-" : "",
                                          (long long)(whole < 0 ? -whole : whole),
                                          (long long)(rest < 0 ? -rest : rest));

    while (out[len - 1] == '0')
        len--;
    out[out[len - 1] == '.' ? len - 1 : len] = '\0';
}

/* ---- series ---------------------------------------------------------------------------------- */

/** The name and labels of a sample; le is that of a bucket, NULL: none. */
static void add_sample(rp_metrics_text *text, const char *suffix, const rproxy_label *labels,
                       int count, const char *le)
{
    const char *between = "{";

    add_text(text, text->family);
    add_text(text, suffix);
    for (int i = 0; i < count; i++) {
        add_text(text, between);
        add_text(text, labels[i].name);
        add_text(text, "=\"");
        add_escaped(text, labels[i].value, 1);
        add_text(text, "\"");
        between = ",";
    }
    if (le) {
        add_text(text, between);
        add_text(text, "le=\"");
        add_text(text, le);
        add_text(text, "\"");
    }
    if (count || le)
        add_text(text, "}");
    add_text(text, " ");
}

static void add_number(rp_metrics_text *text, apr_int64_t number)
{
    char line[NUMBER_MAX];

    snprintf(line, sizeof(line), "%lld\n", (long long)number);
    add_text(text, line);
}

static void add_seconds(rp_metrics_text *text, apr_int64_t microseconds)
{
    char line[NUMBER_MAX];

    format_seconds(line, sizeof(line), microseconds);
    add_text(text, line);
    add_text(text, "\n");
}

/* ---- what writers call ----------------------------------------------------------------------- */

static void family(rproxy_metrics_page *page, const char *name, rproxy_metric_type type,
                   const char *help)
{
    static const char *const types[] = { "counter", "gauge", "histogram" };
    rp_metrics_text *text = (rp_metrics_text *)page;

    text->family = name;
    add_text(text, "# HELP ");
    add_text(text, name);
    add_text(text, " ");
    add_escaped(text, help, 0);
    add_text(text, "\n# TYPE ");
    add_text(text, name);
    add_text(text, " ");
    add_text(text, types[type]);
    add_text(text, "\n");
}

static void value(rproxy_metrics_page *page, const rproxy_label *labels, int label_count,
                  apr_int64_t number)
{
    rp_metrics_text *text = (rp_metrics_text *)page;

    add_sample(text, "", labels, label_count, NULL);
    add_number(text, number);
}

static void seconds(rproxy_metrics_page *page, const rproxy_label *labels, int label_count,
                    apr_int64_t microseconds)
{
    rp_metrics_text *text = (rp_metrics_text *)page;

    add_sample(text, "", labels, label_count, NULL);
    add_seconds(text, microseconds);
}

/** The count is that of the buckets, so that a page which is written while others count has no
 * histogram that contradicts itself. */
static void histogram(rproxy_metrics_page *page, const rproxy_label *labels, int label_count,
                      const rproxy_histogram_values *values)
{
    static const apr_interval_time_t bounds[] = RPROXY_HISTOGRAM_BOUNDS;
    rp_metrics_text *text = (rp_metrics_text *)page;
    apr_uint64_t count = 0;

    for (int i = 0; i < RPROXY_HISTOGRAM_BUCKETS; i++) {
        char bound[NUMBER_MAX] = "+Inf";

        if (i < RPROXY_HISTOGRAM_BUCKETS - 1)
            format_seconds(bound, sizeof(bound), bounds[i]);
        count += values->buckets[i];
        add_sample(text, "_bucket", labels, label_count, bound);
        add_number(text, (apr_int64_t)count);
    }
    add_sample(text, "_sum", labels, label_count, NULL);
    add_seconds(text, (apr_int64_t)values->sum);
    add_sample(text, "_count", labels, label_count, NULL);
    add_number(text, (apr_int64_t)count);
}

/* ---- life ------------------------------------------------------------------------------------ */

void rp_metrics_text_init(rp_metrics_text *text, const char *(*reason)(int reason))
{
    *text = (rp_metrics_text){
        .page = { family, value, seconds, histogram, reason }
    };
}

void rp_metrics_text_drop(rp_metrics_text *text)
{
    free(text->data);
    text->data = NULL;
    text->len = text->capacity = 0;
}
