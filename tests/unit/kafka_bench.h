/* kafka_bench.h - a mock cluster in this process, settings that point to it, and a loop to turn. For cmocka tests.
 */
#ifndef KAFKA_BENCH_H
#define KAFKA_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/kafka.h"
#include "tandem/log.h"

enum { LANES = 4, PATIENCE_MS = 30000 };

struct bench {
    rd_kafka_t *host; /* carries the mock cluster */
    rd_kafka_mock_cluster_t *cluster;
    char brokers[512];
    struct td_settings settings;
    struct td_metrics *metrics; /* NULL unless a test wants them */
    uv_loop_t loop;
};

static inline int bench_up(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));
    char text[200];

    td_log_setup("test", "unit", TD_ERROR);
    b->host = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), text, sizeof(text));
    assert_non_null(b->host);
    b->cluster = rd_kafka_mock_cluster_new(b->host, 1);
    assert_non_null(b->cluster);
    snprintf(b->brokers, sizeof(b->brokers), "%s", rd_kafka_mock_cluster_bootstraps(b->cluster));
    b->settings.kafka_brokers = b->brokers;
    b->settings.kafka_topic_prefix = (char *)(uintptr_t) "t.";
    b->settings.instance = (char *)(uintptr_t) "one";
    b->settings.kafka_lanes = LANES;
    b->settings.kafka_replication = 1;
    b->settings.kafka_session_timeout_ms = 6000;
    assert_int_equal(uv_loop_init(&b->loop), 0);
    *state = b;
    return 0;
}

static inline int bench_down(void **state)
{
    struct bench *b = *state;

    uv_run(&b->loop, UV_RUN_DEFAULT); /* what was freed closes its handles; anything left open would hang here */
    assert_int_equal(uv_loop_close(&b->loop), 0);
    rd_kafka_mock_cluster_destroy(b->cluster);
    rd_kafka_destroy(b->host);
    free(b);
    return 0;
}

static inline void make_topic(struct bench *b, enum td_topic_id id, int partitions)
{
    char name[256];

    td_topic_name(name, sizeof(name), "t.", id);
    assert_int_equal(rd_kafka_mock_topic_create(b->cluster, name, partitions, 1), RD_KAFKA_RESP_ERR_NO_ERROR);
}

/* Run the loop until *done or out of patience. */
static inline void turn_until(struct bench *b, const bool *done)
{
    uint64_t end = td_mono_ms() + PATIENCE_MS;

    while (!*done && td_mono_ms() < end)
        uv_run(&b->loop, UV_RUN_ONCE);
    assert_true(*done);
}

static inline void turn_for(struct bench *b, uint64_t ms)
{
    uint64_t end = td_mono_ms() + ms;

    while (td_mono_ms() < end)
        uv_run(&b->loop, UV_RUN_ONCE);
}

/* ---- sending ---- */

struct sent {
    int count, failed, want;
    enum td_code code;
    int64_t offset;
    bool done;
};

static inline void on_sent(void *user, int64_t offset, const struct td_err *err)
{
    struct sent *sent = user;

    sent->count++;
    sent->offset = offset;
    if (err) {
        sent->failed++;
        sent->code = err->code;
    }
    sent->done = sent->count >= sent->want;
}

static inline void send_numbers(struct td_kafka_out *out, enum td_topic_id topic, int first, int count,
                                struct sent *sent)
{
    for (int i = first; i < first + count; i++) {
        char key[16];

        snprintf(key, sizeof(key), "%d", i);
        assert_int_equal(td_kafka_out_send(out, topic, i % LANES, key, strlen(key), key, strlen(key), NULL, 0,
                                           on_sent, sent, NULL),
                         TD_OK);
    }
}

#define ON_BENCH(name) cmocka_unit_test_setup_teardown(name, bench_up, bench_down)

#endif /* KAFKA_BENCH_H */
