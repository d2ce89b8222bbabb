/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What members answer to health checks: the input is a response, an agent's line, a gRPC message
 * and a list of statuses. */

#include "balancer/rp_probe.h"
#include "t/fuzz/fuzz.h"

#define BODY_MAX 100

typedef struct outcome {
    rp_probe_response response;
    const char *message;
    char body[BODY_MAX];
} outcome;

static void read_response(const uint8_t *data, size_t size, size_t step, outcome *result)
{
    memset(result, 0, sizeof(*result));
    result->response.body = result->body;
    result->response.body_max = BODY_MAX;
    for (size_t at = 0; at < size && !result->message; at += step) {
        size_t len = size - at < step ? size - at : step;

        result->message =
            rp_probe_response_read(&result->response, fuzz_copy(data + at, len), len);
        FUZZ_ASSERT(result->response.body_len <= BODY_MAX);
    }
    if (!result->message)
        result->message = rp_probe_response_end(&result->response);
    FUZZ_ASSERT(result->message || result->response.is_complete);
    FUZZ_ASSERT(!result->response.is_complete || result->response.has_head);
}

static void check_response(const uint8_t *data, size_t size)
{
    outcome whole, other;

    read_response(data, size, size ? size : 1, &whole);
    for (size_t step = 1; step < size; step += 1 + size / FUZZ_PIECES) {
        read_response(data, size, step, &other);
        /* How long heads are is counted by pieces. */
        if (size > 8192)
            continue;
        FUZZ_ASSERT(!whole.message == !other.message);
        FUZZ_ASSERT(whole.response.status == other.response.status);
        FUZZ_ASSERT(whole.response.is_complete == other.response.is_complete);
        FUZZ_ASSERT(whole.response.body_len == other.response.body_len);
        FUZZ_ASSERT(!memcmp(whole.body, other.body, whole.response.body_len));
    }
}

static void check_agent(const uint8_t *data, size_t size)
{
    rproxy_advice advice;

    if (!rp_agent_parse(fuzz_copy(data, size), size, &advice))
        return;
    FUZZ_ASSERT(advice.percent >= -1 && advice.percent <= 1000 && advice.max >= -1);
    FUZZ_ASSERT(advice.mode >= 0 && advice.mode <= RPROXY_ADVICE_MAINT);
    FUZZ_ASSERT(advice.health >= 0 && advice.health <= RPROXY_ADVICE_DOWN);
    FUZZ_ASSERT(advice.percent >= 0 || advice.max >= 0 || advice.mode || advice.health);
}

static void check_statuses(const uint8_t *data, size_t size)
{
    rp_status_set set;
    int count = 0;

    if (!rp_status_set_parse(&set, fuzz_string(data, size)))
        return;
    for (int status = -10; status < 1000; status++)
        count += rp_status_set_has(&set, status);
    FUZZ_ASSERT(count > 0 && count <= 500);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int status = rp_grpc_health_parse((unsigned char *)fuzz_copy(data, size), size);

    FUZZ_ASSERT(status >= -1 && status <= 3);
    check_response(data, size);
    check_agent(data, size);
    check_statuses(data, size);
    fuzz_free();
    return 0;
}
