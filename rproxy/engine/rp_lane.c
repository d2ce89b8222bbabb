/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

#include <pthread.h>
#include <stdatomic.h>
#include <apr_strings.h>
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"
#include "http_main.h"
#include "rproxy/engine/rp_engine_private.h"
#include "rproxy/engine/rp_lane.h"

APLOG_USE_MODULE(rproxy);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;    /* guards what follows */
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static rp_lane_job *first, **end = &first;
static int queued, idle, count, most;
static apr_pool_t *pool;

static atomic_int numbers;              /* given to threads */

static rp_lane_job *next_job(void)
{
    rp_lane_job *job;

    pthread_mutex_lock(&lock);
    idle++;
    while (!first) {
        pthread_cond_wait(&more, &lock);
    }
    idle--;
    job = first;
    first = job->next;
    queued--;
    if (!first) {
        end = &first;
    }
    pthread_mutex_unlock(&lock);
    return job;
}

static void *APR_THREAD_FUNC work(apr_thread_t *self, void *baton)
{
    rp_lane_thread thread = { self, baton,
                              rp_engine_connection_id(atomic_fetch_add(&numbers, 1)) };

    for (;;) {
        rp_lane_job *job = next_job();

        job->run(job, &thread);
    }
    return NULL;
}

/* With the lock. */
static void add_thread(void)
{
    apr_threadattr_t *attributes;
    apr_thread_t *thread;
    apr_pool_t *own;

    if (apr_pool_create(&own, pool) != APR_SUCCESS
        || apr_threadattr_create(&attributes, own) != APR_SUCCESS
        || apr_threadattr_detach_set(attributes, 1) != APR_SUCCESS
        || apr_thread_create(&thread, attributes, work, rp_engine_scoreboard_place(own), own)
            != APR_SUCCESS) {
        if (count == 0) {
            ap_log_error(APLOG_MARK, APLOG_CRIT, 0, ap_server_conf,
                         "RP0602: no thread for requests that the engine hands to the pipeline: "
                         "raise the limit of threads; they wait meanwhile");
        }
        return;
    }
    count++;
}

void rp_lane_push(rp_lane_job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&lock);
    *end = job;
    end = &job->next;
    queued++;
    if (queued > idle && count < most) {
        add_thread();
    }
    pthread_cond_signal(&more);
    pthread_mutex_unlock(&lock);
}

apr_status_t rp_lane_start(apr_pool_t *child_pool, int threads)
{
    most = threads;
    return apr_pool_create(&pool, child_pool);
}
