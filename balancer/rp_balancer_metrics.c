/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What rproxy-metrics shows of pools and members. */
#include <string.h>
#include "ap_provider.h"

#include "balancer/rp_health.h"

/* ---- members --------------------------------------------------------------------------------- */

enum { POOL_LABELS = 1, MEMBER_LABELS = 2, LABELS_MAX = 3 };

/** A member on the page: its labels come first, values may add one. */
typedef struct shown_member {
    rproxy_label labels[LABELS_MAX];
    const rp_balancer *balancer;
    const rp_member *member;
    rp_slot *slot;
} shown_member;

typedef void member_writer(rproxy_metrics_page *page, shown_member *member);

static void write_number(rproxy_metrics_page *page, const shown_member *member, apr_int64_t number)
{
    page->value(page, member->labels, MEMBER_LABELS, number);
}

static void write_counter(rproxy_metrics_page *page, const shown_member *member,
                          const atomic_ullong *counter)
{
    write_number(page, member, (apr_int64_t)atomic_load_explicit(counter, memory_order_relaxed));
}

static void write_histogram(rproxy_metrics_page *page, const shown_member *member,
                            rproxy_histogram *histogram)
{
    rproxy_histogram_values values = { 0 };

    rproxy_histogram_read(histogram, &values);
    page->histogram(page, member->labels, MEMBER_LABELS, &values);
}

static void write_requests(rproxy_metrics_page *page, shown_member *member)
{
    static const char *const codes[] = { "none", "1xx", "2xx", "3xx", "4xx", "5xx" };

    for (int i = 0; i < RPROXY_STATUS_CLASSES; i++) {
        member->labels[MEMBER_LABELS] = (rproxy_label){ "code", codes[i] };
        page->value(page, member->labels, MEMBER_LABELS + 1,
                    (apr_int64_t)atomic_load(&member->slot->counts.answers[i]));
    }
}

static void write_errors(rproxy_metrics_page *page, shown_member *member)
{
    for (int i = 1; i < RPROXY_REASONS_MAX && page->reason(i); i++) {
        apr_int64_t errors = (apr_int64_t)atomic_load(&member->slot->counts.errors[i]);

        member->labels[MEMBER_LABELS] = (rproxy_label){ "reason", page->reason(i) };
        if (errors)
            page->value(page, member->labels, MEMBER_LABELS + 1, errors);
    }
}

static void write_in_flight(rproxy_metrics_page *page, shown_member *member)
{
    write_number(page, member, atomic_load(&member->slot->shared.in_flight));
}

static void write_repeated(rproxy_metrics_page *page, shown_member *member)
{
    write_counter(page, member, &member->slot->counts.repeated);
}

static void write_opened(rproxy_metrics_page *page, shown_member *member)
{
    write_counter(page, member, &member->slot->counts.opened);
}

static void write_reused(rproxy_metrics_page *page, shown_member *member)
{
    write_counter(page, member, &member->slot->counts.reused);
}

static void write_sent(rproxy_metrics_page *page, shown_member *member)
{
    write_counter(page, member, &member->slot->sent);
}

static void write_received(rproxy_metrics_page *page, shown_member *member)
{
    write_counter(page, member, &member->slot->received);
}

static void write_first_byte(rproxy_metrics_page *page, shown_member *member)
{
    write_histogram(page, member, &member->slot->counts.first_byte);
}

static void write_total(rproxy_metrics_page *page, shown_member *member)
{
    write_histogram(page, member, &member->slot->counts.total);
}

static void write_ejections(rproxy_metrics_page *page, shown_member *member)
{
    write_counter(page, member, &member->slot->counts.ejections);
}

static const char *const states[] = {
    "up", "drain", "down", "ejected", "unhealthy", "unchecked", NULL
};

static void write_state(rproxy_metrics_page *page, shown_member *member)
{
    const char *state = rp_member_state_name(member->balancer, member->member);

    for (int i = 0; states[i]; i++) {
        member->labels[MEMBER_LABELS] = (rproxy_label){ "state", states[i] };
        page->value(page, member->labels, MEMBER_LABELS + 1, !strcmp(states[i], state));
    }
}

static void write_healthy(rproxy_metrics_page *page, shown_member *member)
{
    int health = atomic_load(&member->slot->health);

    if (member->balancer->check && health != RP_HEALTH_UNKNOWN)
        write_number(page, member, health == RP_HEALTH_UP);
}

static void write_checks(rproxy_metrics_page *page, shown_member *member)
{
    if (member->balancer->check)
        write_counter(page, member, &member->slot->checks);
}

static void write_failed_checks(rproxy_metrics_page *page, shown_member *member)
{
    if (member->balancer->check)
        write_counter(page, member, &member->slot->checks_failed);
}

static void write_check_time(rproxy_metrics_page *page, shown_member *member)
{
    if (member->balancer->check && atomic_load(&member->slot->checked_at))
        page->seconds(page, member->labels, MEMBER_LABELS,
                      atomic_load(&member->slot->check_time));
}

static const struct member_family {
    const char *name;
    rproxy_metric_type type;
    const char *help;
    member_writer *write;
} member_families[] = {
    { "rproxy_member_requests_total", RPROXY_COUNTER,
      "Attempts at the member, by class of its response's status; code \"none\": there was none.",
      write_requests },
    { "rproxy_member_requests_in_flight", RPROXY_GAUGE, "Attempts at the member under way.",
      write_in_flight },
    { "rproxy_member_retries_total", RPROXY_COUNTER,
      "Attempts at the member for requests that had failed before.", write_repeated },
    { "rproxy_member_errors_total", RPROXY_COUNTER,
      "Attempts that failed, by the reason that the log names.", write_errors },
    { "rproxy_member_connections_opened_total", RPROXY_COUNTER,
      "Attempts on a new connection.", write_opened },
    { "rproxy_member_connections_reused_total", RPROXY_COUNTER,
      "Attempts on a connection that was open already.", write_reused },
    { "rproxy_member_request_body_bytes_total", RPROXY_COUNTER,
      "Bytes of request bodies to the member.", write_sent },
    { "rproxy_member_response_body_bytes_total", RPROXY_COUNTER,
      "Bytes of response bodies from the member.", write_received },
    { "rproxy_member_first_byte_seconds", RPROXY_HISTOGRAM,
      "Time from the beginning of an attempt to the response's first byte.", write_first_byte },
    { "rproxy_member_duration_seconds", RPROXY_HISTOGRAM,
      "Time of an attempt until its end, tunnels excepted.", write_total },
    { "rproxy_member_ejections_total", RPROXY_COUNTER,
      "How often the member was ejected since too many requests failed.", write_ejections },
    { "rproxy_member_state", RPROXY_GAUGE, "1 for the state in which the member is.",
      write_state },
    { "rproxy_member_healthy", RPROXY_GAUGE,
      "1 if active checks find the member well, 0 if not.", write_healthy },
    { "rproxy_member_health_checks_total", RPROXY_COUNTER, "Active checks of the member.",
      write_checks },
    { "rproxy_member_health_check_failures_total", RPROXY_COUNTER,
      "Active checks that the member failed.", write_failed_checks },
    { "rproxy_member_health_check_seconds", RPROXY_GAUGE, "Time that the last active check took.",
      write_check_time },
};

static void write_members(rproxy_metrics_page *page, rp_balancer *balancer, member_writer *write)
{
    rp_view *view = rp_view_enter(balancer, apr_time_now());
    const rp_table *table = view->table;

    for (int number = 0; number < table->count; number++) {
        const rp_member *member = &table->more[number];
        shown_member shown = {
            .labels = { { "pool", balancer->name }, { "member", table->members[number].name } },
            .balancer = balancer, .member = member, .slot = member->slot
        };

        if (member->state != RP_MEMBER_GONE)
            write(page, &shown);
    }
    rp_view_leave(view);
}

/* ---- pools ----------------------------------------------------------------------------------- */

typedef void pool_writer(rproxy_metrics_page *page, rproxy_label *labels, rp_balancer *balancer);

static void write_pool_counter(rproxy_metrics_page *page, const rproxy_label *labels,
                               const atomic_ullong *counter)
{
    page->value(page, labels, POOL_LABELS, (apr_int64_t)atomic_load(counter));
}

static void write_pool_requests(rproxy_metrics_page *page, rproxy_label *labels,
                                rp_balancer *balancer)
{
    write_pool_counter(page, labels, &balancer->slot->requests);
}

static void write_pool_retries(rproxy_metrics_page *page, rproxy_label *labels,
                               rp_balancer *balancer)
{
    write_pool_counter(page, labels, &balancer->slot->retries);
}

static void write_retries_refused(rproxy_metrics_page *page, rproxy_label *labels,
                                  rp_balancer *balancer)
{
    write_pool_counter(page, labels, &balancer->slot->retries_refused);
}

static void write_pool_in_flight(rproxy_metrics_page *page, rproxy_label *labels,
                                 rp_balancer *balancer)
{
    rp_view *view = rp_view_enter(balancer, apr_time_now());
    const rp_table *table = view->table;
    apr_int64_t sum = 0;

    for (int i = 0; i < table->count; i++) {
        if (table->more[i].state != RP_MEMBER_GONE)
            sum += atomic_load(&table->more[i].slot->shared.in_flight);
    }
    rp_view_leave(view);
    page->value(page, labels, POOL_LABELS, sum);
}

static void write_unserved(rproxy_metrics_page *page, rproxy_label *labels,
                           rp_balancer *balancer)
{
    rp_slot *slot = balancer->slot;
    const struct {
        const char *reason;
        const atomic_ullong *counter;
    } all[] = {
        { "no-member", &slot->counts.no_member }, { "pool-busy", &slot->counts.busy },
        { "queue-full", &slot->queue_full }, { "queue-timeout", &slot->queue_timeouts }
    };

    for (apr_size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        labels[POOL_LABELS] = (rproxy_label){ "reason", all[i].reason };
        page->value(page, labels, POOL_LABELS + 1, (apr_int64_t)atomic_load(all[i].counter));
    }
}

static void write_member_states(rproxy_metrics_page *page, rproxy_label *labels,
                                rp_balancer *balancer)
{
    rp_view *view = rp_view_enter(balancer, apr_time_now());
    const rp_table *table = view->table;
    int counts[sizeof(states) / sizeof(states[0])] = { 0 };

    for (int number = 0; number < table->count; number++) {
        const rp_member *member = &table->more[number];

        for (int i = 0; states[i] && member->state != RP_MEMBER_GONE; i++)
            counts[i] += !strcmp(states[i], rp_member_state_name(balancer, member));
    }
    rp_view_leave(view);
    for (int i = 0; states[i]; i++) {
        labels[POOL_LABELS] = (rproxy_label){ "state", states[i] };
        page->value(page, labels, POOL_LABELS + 1, counts[i]);
    }
}

static void write_queued(rproxy_metrics_page *page, rproxy_label *labels,
                         rp_balancer *balancer)
{
    write_pool_counter(page, labels, &balancer->slot->queued);
}

static void write_queue_length(rproxy_metrics_page *page, rproxy_label *labels,
                               rp_balancer *balancer)
{
    page->value(page, labels, POOL_LABELS, balancer->queue ? rp_queue_count(balancer->queue) : 0);
}

static void write_panic(rproxy_metrics_page *page, rproxy_label *labels,
                        rp_balancer *balancer)
{
    if (balancer->check)
        page->value(page, labels, POOL_LABELS, atomic_load(&balancer->slot->panic) != 0);
}

static const struct pool_family {
    const char *name;
    rproxy_metric_type type;
    const char *help;
    pool_writer *write;
} pool_families[] = {
    { "rproxy_pool_requests_total", RPROXY_COUNTER, "Requests that asked the pool for a member.",
      write_pool_requests },
    { "rproxy_pool_requests_in_flight", RPROXY_GAUGE, "Attempts at members under way.",
      write_pool_in_flight },
    { "rproxy_pool_retries_total", RPROXY_COUNTER, "Further attempts of requests.",
      write_pool_retries },
    { "rproxy_pool_retries_refused_total", RPROXY_COUNTER,
      "Further attempts that the retry budget did not allow.", write_retries_refused },
    { "rproxy_pool_unserved_total", RPROXY_COUNTER,
      "Requests that got no member, by the reason that the log names.", write_unserved },
    { "rproxy_pool_members", RPROXY_GAUGE, "Members in each state.", write_member_states },
    { "rproxy_pool_queued_total", RPROXY_COUNTER, "Requests that waited for a member.",
      write_queued },
    { "rproxy_pool_queue_length", RPROXY_GAUGE, "Requests that are waiting for a member.",
      write_queue_length },
    { "rproxy_pool_panic", RPROXY_GAUGE,
      "1 while so few members are well that all are used.", write_panic },
};

/* ---- the page -------------------------------------------------------------------------------- */

static void write_page(rproxy_metrics_page *page)
{
    const apr_array_header_t *all = rp_balancer_all();

    if (!all->nelts)
        return;
    for (apr_size_t f = 0; f < sizeof(pool_families) / sizeof(pool_families[0]); f++) {
        const struct pool_family *family = &pool_families[f];

        page->family(page, family->name, family->type, family->help);
        for (int i = 0; i < all->nelts; i++) {
            rp_balancer *balancer = APR_ARRAY_IDX(all, i, rp_balancer *);
            rproxy_label labels[POOL_LABELS + 1] = { { "pool", balancer->name } };

            family->write(page, labels, balancer);
        }
    }
    for (apr_size_t f = 0; f < sizeof(member_families) / sizeof(member_families[0]); f++) {
        const struct member_family *family = &member_families[f];

        page->family(page, family->name, family->type, family->help);
        for (int i = 0; i < all->nelts; i++)
            write_members(page, APR_ARRAY_IDX(all, i, rp_balancer *), family->write);
    }
}

static const rproxy_metrics metrics = { write_page };

void rp_balancer_register_metrics(apr_pool_t *pool)
{
    ap_register_provider(pool, RPROXY_METRICS_GROUP, "balancer", RPROXY_METRICS_VERSION, &metrics);
}
