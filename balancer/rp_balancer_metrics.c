/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What rproxy-metrics shows of pools and members. */
#include <stddef.h>
#include "ap_provider.h"

#include "balancer/rp_health.h"

/* ---- what both have -------------------------------------------------------------------------- */

enum { POOL_LABELS = 1, MEMBER_LABELS = 2, LABELS_MAX = 3 };

/** A pool or member on the page: its labels come first, values may add one. */
typedef struct shown {
    rproxy_label labels[LABELS_MAX];
    int label_count;
    rp_balancer *balancer;
    const rp_member *member;            /* NULL: the pool itself */
    rp_slot *slot;
} shown;

typedef void writer(rproxy_metrics_page *page, shown *one);

typedef struct family {
    const char *name;
    rproxy_metric_type type;
    const char *help;
    writer *write;                      /* NULL: just what is at offset in rp_slot */
    apr_size_t offset;
    int only_checked;                   /* of those that have active checks */
} family;

static void write_number(rproxy_metrics_page *page, const shown *one, apr_int64_t number)
{
    page->value(page, one->labels, one->label_count, number);
}

/** With a label more. */
static void write_labelled(rproxy_metrics_page *page, shown *one, const char *label,
                           const char *value, apr_int64_t number)
{
    one->labels[one->label_count] = (rproxy_label){ label, value };
    page->value(page, one->labels, one->label_count + 1, number);
}

static apr_int64_t counted(const atomic_ullong *counter)
{
    return (apr_int64_t)atomic_load_explicit(counter, memory_order_relaxed);
}

static void write_family(rproxy_metrics_page *page, const family *shown_as, shown *one)
{
    void *at = (char *)one->slot + shown_as->offset;
    rproxy_histogram_values values = { 0 };

    if (shown_as->only_checked && !one->balancer->check)
        return;
    if (shown_as->write)
        shown_as->write(page, one);
    else if (shown_as->type == RPROXY_HISTOGRAM) {
        rproxy_histogram_read(at, &values);
        page->histogram(page, one->labels, one->label_count, &values);
    }
    else
        write_number(page, one, counted(at));
}

static void write_answers(rproxy_metrics_page *page, shown *one)
{
    for (int i = 0; i < RPROXY_STATUS_CLASSES; i++)
        write_labelled(page, one, "code", rproxy_status_class_name(i),
                       counted(&one->slot->counts.answers[i]));
}

static void write_errors(rproxy_metrics_page *page, shown *one)
{
    for (int i = 1; i < RPROXY_REASONS_MAX && page->reason(i); i++) {
        apr_int64_t errors = counted(&one->slot->counts.errors[i]);

        if (errors)
            write_labelled(page, one, "reason", page->reason(i), errors);
    }
}

/* ---- members --------------------------------------------------------------------------------- */

static void write_in_flight(rproxy_metrics_page *page, shown *one)
{
    write_number(page, one, atomic_load(&one->slot->shared.in_flight));
}

static void write_state(rproxy_metrics_page *page, shown *one)
{
    rp_shown state = rp_member_shown(one->balancer, one->member);

    for (int i = 0; i < RP_SHOWN_COUNT; i++)
        write_labelled(page, one, "state", rp_shown_names[i], i == (int)state);
}

static void write_healthy(rproxy_metrics_page *page, shown *one)
{
    int health = atomic_load(&one->slot->health);

    if (health != RP_HEALTH_UNKNOWN)
        write_number(page, one, health == RP_HEALTH_UP);
}

static void write_check_time(rproxy_metrics_page *page, shown *one)
{
    if (atomic_load(&one->slot->checked_at))
        page->seconds(page, one->labels, one->label_count, atomic_load(&one->slot->check_time));
}

static const family member_families[] = {
    { "rproxy_member_requests_total", RPROXY_COUNTER,
      "Attempts at the member, by class of its response's status; code \"none\": there was none.",
      write_answers, 0, 0 },
    { "rproxy_member_requests_in_flight", RPROXY_GAUGE, "Attempts at the member under way.",
      write_in_flight, 0, 0 },
    { "rproxy_member_retries_total", RPROXY_COUNTER,
      "Attempts at the member for requests that had failed before.",
      NULL, offsetof(rp_slot, counts.repeated), 0 },
    { "rproxy_member_errors_total", RPROXY_COUNTER,
      "Attempts that failed, by the reason that the log names.", write_errors, 0, 0 },
    { "rproxy_member_connections_opened_total", RPROXY_COUNTER,
      "Attempts on a new connection.", NULL, offsetof(rp_slot, counts.opened), 0 },
    { "rproxy_member_connections_reused_total", RPROXY_COUNTER,
      "Attempts on a connection that was open already.",
      NULL, offsetof(rp_slot, counts.reused), 0 },
    { "rproxy_member_request_body_bytes_total", RPROXY_COUNTER,
      "Bytes of request bodies to the member.", NULL, offsetof(rp_slot, sent), 0 },
    { "rproxy_member_response_body_bytes_total", RPROXY_COUNTER,
      "Bytes of response bodies from the member.", NULL, offsetof(rp_slot, received), 0 },
    { "rproxy_member_first_byte_seconds", RPROXY_HISTOGRAM,
      "Time from the beginning of an attempt to the response's first byte.",
      NULL, offsetof(rp_slot, counts.first_byte), 0 },
    { "rproxy_member_duration_seconds", RPROXY_HISTOGRAM,
      "Time of an attempt until its end, tunnels excepted.",
      NULL, offsetof(rp_slot, counts.total), 0 },
    { "rproxy_member_ejections_total", RPROXY_COUNTER,
      "How often the member was ejected since too many requests failed.",
      NULL, offsetof(rp_slot, counts.ejections), 0 },
    { "rproxy_member_state", RPROXY_GAUGE, "1 for the state in which the member is.",
      write_state, 0, 0 },
    { "rproxy_member_healthy", RPROXY_GAUGE,
      "1 if active checks find the member well, 0 if not.", write_healthy, 0, 1 },
    { "rproxy_member_health_checks_total", RPROXY_COUNTER, "Active checks of the member.",
      NULL, offsetof(rp_slot, checks), 1 },
    { "rproxy_member_health_check_failures_total", RPROXY_COUNTER,
      "Active checks that the member failed.", NULL, offsetof(rp_slot, checks_failed), 1 },
    { "rproxy_member_health_check_seconds", RPROXY_GAUGE, "Time that the last active check took.",
      write_check_time, 0, 1 },
};

/* ---- pools ----------------------------------------------------------------------------------- */

static void write_pool_in_flight(rproxy_metrics_page *page, shown *pool)
{
    rp_view *view = rp_view_enter(pool->balancer, apr_time_now());
    const rp_table *table = view->table;
    apr_int64_t sum = 0;

    for (int i = 0; i < table->count; i++) {
        if (table->more[i].state != RP_MEMBER_GONE)
            sum += atomic_load(&table->more[i].slot->shared.in_flight);
    }
    rp_view_leave(view);
    write_number(page, pool, sum);
}

static void write_unserved(rproxy_metrics_page *page, shown *pool)
{
    const rp_slot *slot = pool->slot;

    write_labelled(page, pool, "reason", "no-member", counted(&slot->counts.no_member));
    write_labelled(page, pool, "reason", "pool-busy", counted(&slot->counts.busy));
    write_labelled(page, pool, "reason", "queue-full", counted(&slot->queue_full));
    write_labelled(page, pool, "reason", "queue-timeout", counted(&slot->queue_timeouts));
}

static void write_member_states(rproxy_metrics_page *page, shown *pool)
{
    rp_view *view = rp_view_enter(pool->balancer, apr_time_now());
    const rp_table *table = view->table;
    int counts[RP_SHOWN_COUNT] = { 0 };

    for (int number = 0; number < table->count; number++) {
        const rp_member *member = &table->more[number];

        if (member->state != RP_MEMBER_GONE)
            counts[rp_member_shown(pool->balancer, member)]++;
    }
    rp_view_leave(view);
    for (int i = 0; i < RP_SHOWN_COUNT; i++)
        write_labelled(page, pool, "state", rp_shown_names[i], counts[i]);
}

static void write_queue_length(rproxy_metrics_page *page, shown *pool)
{
    rp_queue *queue = pool->balancer->queue;

    write_number(page, pool, queue ? rp_queue_count(queue) : 0);
}

static void write_panic(rproxy_metrics_page *page, shown *pool)
{
    write_number(page, pool, atomic_load(&pool->slot->panic) != 0);
}

static const family pool_families[] = {
    { "rproxy_pool_requests_total", RPROXY_COUNTER, "Requests that asked the pool for a member.",
      NULL, offsetof(rp_slot, requests), 0 },
    { "rproxy_pool_requests_in_flight", RPROXY_GAUGE, "Attempts at members under way.",
      write_pool_in_flight, 0, 0 },
    { "rproxy_pool_attempts_total", RPROXY_COUNTER,
      "Attempts at members, by class of the response's status; code \"none\": there was none.",
      write_answers, 0, 0 },
    { "rproxy_pool_retries_total", RPROXY_COUNTER, "Further attempts of requests.",
      NULL, offsetof(rp_slot, retries), 0 },
    { "rproxy_pool_retries_refused_total", RPROXY_COUNTER,
      "Further attempts that the retry budget did not allow.",
      NULL, offsetof(rp_slot, retries_refused), 0 },
    { "rproxy_pool_errors_total", RPROXY_COUNTER,
      "Attempts that failed, by the reason that the log names.", write_errors, 0, 0 },
    { "rproxy_pool_unserved_total", RPROXY_COUNTER,
      "Requests that got no member, by the reason that the log names.", write_unserved, 0, 0 },
    { "rproxy_pool_connections_opened_total", RPROXY_COUNTER,
      "Attempts on a new connection.", NULL, offsetof(rp_slot, counts.opened), 0 },
    { "rproxy_pool_connections_reused_total", RPROXY_COUNTER,
      "Attempts on a connection that was open already.",
      NULL, offsetof(rp_slot, counts.reused), 0 },
    { "rproxy_pool_request_body_bytes_total", RPROXY_COUNTER,
      "Bytes of request bodies to members.", NULL, offsetof(rp_slot, sent), 0 },
    { "rproxy_pool_response_body_bytes_total", RPROXY_COUNTER,
      "Bytes of response bodies from members.", NULL, offsetof(rp_slot, received), 0 },
    { "rproxy_pool_first_byte_seconds", RPROXY_HISTOGRAM,
      "Time from the beginning of an attempt to the response's first byte.",
      NULL, offsetof(rp_slot, counts.first_byte), 0 },
    { "rproxy_pool_duration_seconds", RPROXY_HISTOGRAM,
      "Time of an attempt until its end, tunnels excepted.",
      NULL, offsetof(rp_slot, counts.total), 0 },
    { "rproxy_pool_members", RPROXY_GAUGE, "Members in each state.", write_member_states, 0, 0 },
    { "rproxy_pool_queued_total", RPROXY_COUNTER, "Requests that waited for a member.",
      NULL, offsetof(rp_slot, queued), 0 },
    { "rproxy_pool_queue_length", RPROXY_GAUGE, "Requests that are waiting for a member.",
      write_queue_length, 0, 0 },
    { "rproxy_pool_panic", RPROXY_GAUGE,
      "1 while so few members are well that all are used.", write_panic, 0, 1 },
};

/* ---- the page -------------------------------------------------------------------------------- */

static void write_pool(rproxy_metrics_page *page, rp_balancer *balancer, const family *shown_as)
{
    shown pool = { .labels = { { "pool", balancer->name } }, .label_count = POOL_LABELS,
                   .balancer = balancer, .slot = balancer->slot };

    write_family(page, shown_as, &pool);
}

static void write_members(rproxy_metrics_page *page, rp_balancer *balancer, const family *shown_as)
{
    rp_view *view = rp_view_enter(balancer, apr_time_now());
    const rp_table *table = view->table;

    for (int number = 0; number < table->count; number++) {
        const rp_member *member = &table->more[number];
        shown one = {
            .labels = { { "pool", balancer->name }, { "member", table->members[number].name } },
            .label_count = MEMBER_LABELS, .balancer = balancer, .member = member,
            .slot = member->slot
        };

        if (member->state != RP_MEMBER_GONE)
            write_family(page, shown_as, &one);
    }
    rp_view_leave(view);
}

static void write_families(rproxy_metrics_page *page, const family *families, apr_size_t count,
                           void (*write)(rproxy_metrics_page *, rp_balancer *, const family *))
{
    const apr_array_header_t *all = rp_balancer_all();

    for (apr_size_t f = 0; f < count; f++) {
        page->family(page, families[f].name, families[f].type, families[f].help);
        for (int i = 0; i < all->nelts; i++)
            write(page, APR_ARRAY_IDX(all, i, rp_balancer *), &families[f]);
    }
}

static void write_page(rproxy_metrics_page *page)
{
    if (!rp_balancer_all()->nelts)
        return;
    write_families(page, pool_families, sizeof(pool_families) / sizeof(pool_families[0]),
                   write_pool);
    write_families(page, member_families, sizeof(member_families) / sizeof(member_families[0]),
                   write_members);
}

static const rproxy_metrics metrics = { write_page };

void rp_balancer_register_metrics(apr_pool_t *pool)
{
    ap_register_provider(pool, RPROXY_METRICS_GROUP, "balancer", RPROXY_METRICS_VERSION, &metrics);
}
