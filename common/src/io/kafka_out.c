/* One idempotent producer. Delivery reports come through the main queue; a record's opaque is its callback. */
#include "kafka_int.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/log.h"
#include "tandem/stop.h"

enum { TICK_MS = 100, EVENTS_A_TURN = 100 };

struct delivery {
    td_delivered_fn *cb;
    void *user;
};

struct committed_ask {
    struct committed_ask *next, **from; /* from: the pointer that points to us */
    td_committed_fn *cb;
    void *user;
    size_t partitions;
};

struct td_kafka_out {
    const struct td_settings *settings;
    rd_kafka_t *rk;
    rd_kafka_queue_t *main_queue;
    rd_kafka_t *asker;         /* made when first used, for committed offsets alone */
    rd_kafka_queue_t *answers; /* to it */
    struct kafka_wake *wake;
    rd_kafka_topic_t *topics[TD_T_COUNT]; /* made when first used */
    struct committed_ask *asks;
    size_t pending;
    bool closing;
    struct td_metric *m_pending, *m_failures, *m_brokers, *m_rtt;
};

/* ---- delivery reports ---- */

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *msg, void *opaque)
{
    struct td_kafka_out *out = opaque;
    struct delivery *delivery = msg->_private;
    struct td_err err;

    assert(out->pending > 0);
    out->pending--;
    if (msg->err) {
        td_metric_add(out->m_failures, 1);
        kafka_fail(&err, msg->err, "record");
        /* Once the idempotent producer has lost its sequence nothing else will be taken by this process. */
        if (rd_kafka_fatal_error(rk, NULL, 0))
            err.code = TD_EFATAL;
    }
    if (!delivery)
        return;
    delivery->cb(delivery->user, msg->offset, msg->err ? &err : NULL);
    free(delivery);
}

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
    (void)rk;
    (void)opaque;
    kafka_log_error("producer", (rd_kafka_resp_err_t)err, reason);
}

static void on_asker_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
    (void)rk;
    (void)opaque;
    kafka_log_error("committed offsets", (rd_kafka_resp_err_t)err, reason);
}

/* Brokers connected and the slowest one's mean round trip: all the rest of the statistics has its own source. */
static int on_stats(rd_kafka_t *rk, char *json, size_t len, void *opaque)
{
    struct td_kafka_out *out = opaque;
    json_t *root = json_loadb(json, len, 0, NULL), *broker;
    const char *name;
    double up = 0, rtt_us = 0;

    (void)rk;
    json_object_foreach(json_object_get(root, "brokers"), name, broker)
    {
        const char *state = json_string_value(json_object_get(broker, "state"));
        double avg = json_number_value(json_object_get(json_object_get(broker, "rtt"), "avg"));

        /* Bootstrap entries (-1) are the same brokers once more. */
        if (json_integer_value(json_object_get(broker, "nodeid")) < 0 || !state || strcmp(state, "UP") != 0)
            continue;
        up++;
        if (avg > rtt_us)
            rtt_us = avg;
    }
    td_metric_set(out->m_brokers, up);
    td_metric_set(out->m_rtt, rtt_us / 1e6);
    json_decref(root);
    return 0; /* json stays librdkafka's */
}

/* ---- committed offsets of other groups ---- */

static void ask_done(struct committed_ask *ask, const struct td_committed *list, const struct td_err *err)
{
    *ask->from = ask->next;
    if (ask->next)
        ask->next->from = ask->from;
    ask->cb(ask->user, err ? NULL : list, err ? 0 : ask->partitions, err);
    free(ask);
}

/* Offsets and notes by partition; the notes lie behind the list. @return NULL when out of memory */
static struct td_committed *by_partition(const rd_kafka_topic_partition_list_t *list, size_t partitions)
{
    size_t bytes = partitions * sizeof(struct td_committed);
    struct td_committed *out;
    char *text;

    for (int i = 0; i < list->cnt; i++)
        bytes += list->elems[i].metadata_size + 1;
    out = malloc(bytes);
    if (!out)
        return NULL;
    text = (char *)(out + partitions);
    for (size_t i = 0; i < partitions; i++)
        out[i] = (struct td_committed){-1, ""};
    for (int i = 0; i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *part = &list->elems[i];

        if (part->partition < 0 || (size_t)part->partition >= partitions || part->offset < 0)
            continue;
        out[part->partition] = (struct td_committed){part->offset, text};
        if (part->metadata)
            text = (char *)memcpy(text, part->metadata, part->metadata_size) + part->metadata_size;
        *text++ = '\0';
    }
    return out;
}

static void answer_ask(rd_kafka_event_t *event)
{
    struct committed_ask *ask = rd_kafka_event_opaque(event);
    struct td_err err;
    const rd_kafka_topic_partition_list_t *list = kafka_offsets_answer(event, &err);
    struct td_committed *committed;

    if (!list) {
        ask_done(ask, NULL, &err);
        return;
    }
    committed = by_partition(list, ask->partitions);
    if (!committed)
        td_fail(&err, TD_ENOMEM, "committed offsets");
    ask_done(ask, committed, committed ? NULL : &err);
    free(committed);
}

/* A consumer that subscribes to nothing. Asked on the producer, librdkafka (2.0.2 to 2.10, #5040) tells the group of its own
 * handle to look for the coordinator when that has moved or is not there yet, and a producer has none: it crashes. */
static int make_asker(struct td_kafka_out *out, const char *group_id, struct td_err *reterr)
{
    const struct kafka_prop props[] = {{"group.id", group_id}, {"enable.auto.commit", "false"}};
    rd_kafka_conf_t *conf;
    int rc = kafka_conf_new(out->settings, props, sizeof(props) / sizeof(props[0]), &conf, reterr);

    if (rc < 0)
        return rc;
    rd_kafka_conf_set_error_cb(conf, on_asker_error);
    rc = kafka_handle_new(RD_KAFKA_CONSUMER, conf, &out->asker, reterr);
    if (rc < 0)
        return rc;
    out->answers = rd_kafka_queue_new(out->asker);
    kafka_wake_watch(out->wake, out->answers);
    return TD_OK;
}

int td_kafka_committed(struct td_kafka_out *out, const char *group, enum td_topic_id topic, td_committed_fn *cb,
                       void *user, struct td_err *reterr)
{
    char name[KAFKA_TEXT_MAX], group_id[KAFKA_TEXT_MAX];
    int partitions = kafka_partitions(out->settings, topic);
    rd_kafka_topic_partition_list_t *list;
    struct committed_ask *ask;
    int rc;

    if (out->closing)
        return td_fail(reterr, TD_EIO, "the producer is closing");
    rc = kafka_group_name(group_id, out->settings, group, reterr);
    if (rc == TD_OK && !out->asker)
        rc = make_asker(out, group_id, reterr);
    if (rc < 0)
        return rc;
    ask = calloc(1, sizeof(*ask));
    if (!ask)
        return td_fail(reterr, TD_ENOMEM, "committed offsets of %s", group);
    td_topic_name(name, sizeof(name), out->settings->kafka_topic_prefix, topic);
    list = rd_kafka_topic_partition_list_new(partitions);
    rd_kafka_topic_partition_list_add_range(list, name, 0, partitions - 1);
    ask->cb = cb;
    ask->user = user;
    ask->partitions = (size_t)partitions;
    rc = kafka_offsets_ask(out->asker, group_id, list, ask, out->answers, reterr);
    rd_kafka_topic_partition_list_destroy(list);
    if (rc < 0) {
        free(ask);
        return rc;
    }
    ask->from = &out->asks;
    ask->next = out->asks;
    if (ask->next)
        ask->next->from = &ask->next;
    out->asks = ask;
    return TD_OK;
}

/* ---- the loop ---- */

static void poll_answers(struct td_kafka_out *out)
{
    rd_kafka_event_t *event;

    rd_kafka_poll(out->asker, 0); /* its errors */
    for (int i = 0; i < EVENTS_A_TURN && (event = rd_kafka_queue_poll(out->answers, 0)); i++) {
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT)
            answer_ask(event);
        rd_kafka_event_destroy(event);
    }
}

static void pump(void *user)
{
    struct td_kafka_out *out = user;

    rd_kafka_poll(out->rk, 0);
    if (out->asker)
        poll_answers(out);
    td_metric_set(out->m_pending, (double)out->pending);
}

static void make_metrics(struct td_kafka_out *out, struct td_metrics *metrics)
{
    if (!metrics)
        return;
    out->m_pending = td_metric(metrics, TD_GAUGE, "tandem_kafka_producer_pending_records",
                               "Records handed to Kafka and not yet acknowledged.", "");
    out->m_failures = td_metric(metrics, TD_COUNTER, "tandem_kafka_producer_failures_total",
                                "Records that Kafka did not acknowledge in time or refused.", "");
    out->m_brokers = td_metric(metrics, TD_GAUGE, "tandem_kafka_brokers_up", "Brokers connected.", "");
    out->m_rtt = td_metric(metrics, TD_GAUGE, "tandem_kafka_broker_rtt_seconds",
                           "Mean round trip to the slowest broker in the last 5 s.", "");
}

/* Some builds of librdkafka have no LZ4; then records go as they are. */
static const char *compression(void)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_res_t res = rd_kafka_conf_set(conf, "compression.codec", "lz4", NULL, 0);

    rd_kafka_conf_destroy(conf);
    return res == RD_KAFKA_CONF_OK ? "lz4" : "none";
}

static int make_handle(struct td_kafka_out *out, struct td_err *reterr)
{
    const struct kafka_prop props[] = {
        {"enable.idempotence", "true"},
        {"acks", "all"},
        {"partitioner", "murmur2_random"}, /* as Java clients do, so that a key has one partition for all */
        {"linger.ms", "5"},
        {"message.timeout.ms", "120000"},
        {"queue.buffering.max.kbytes", "65536"},
        {"compression.codec", compression()},
        {"statistics.interval.ms", "5000"},
    };
    rd_kafka_conf_t *conf;
    int rc = kafka_conf_new(out->settings, props, sizeof(props) / sizeof(props[0]), &conf, reterr);

    if (rc < 0)
        return rc;
    rd_kafka_conf_set_opaque(conf, out);
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_stats_cb(conf, on_stats);
    return kafka_handle_new(RD_KAFKA_PRODUCER, conf, &out->rk, reterr);
}

int td_kafka_out_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics,
                     struct td_kafka_out **ret, struct td_err *reterr)
{
    struct td_kafka_out *out = calloc(1, sizeof(*out));
    int rc;

    if (!out)
        return td_fail(reterr, TD_ENOMEM, "Kafka producer");
    out->settings = settings;
    make_metrics(out, metrics);
    rc = make_handle(out, reterr);
    if (rc < 0) {
        free(out);
        return rc;
    }
    out->main_queue = rd_kafka_queue_get_main(out->rk);
    out->wake = kafka_wake_new(loop, TICK_MS, TD_STAGE_PUBLISH, pump, out);
    if (!out->wake) {
        td_kafka_out_free(out, 0);
        return td_fail(reterr, TD_ENOMEM, "Kafka producer");
    }
    kafka_wake_watch(out->wake, out->main_queue);
    *ret = out;
    return TD_OK;
}

/* ---- sending ---- */

static rd_kafka_topic_t *topic_handle(struct td_kafka_out *out, enum td_topic_id id)
{
    char name[KAFKA_TEXT_MAX];

    if (!out->topics[id]) {
        td_topic_name(name, sizeof(name), out->settings->kafka_topic_prefix, id);
        out->topics[id] = rd_kafka_topic_new(out->rk, name, NULL);
    }
    return out->topics[id];
}

static rd_kafka_headers_t *make_headers(const struct td_kafka_header *headers, size_t count)
{
    rd_kafka_headers_t *list = rd_kafka_headers_new(count);

    for (size_t i = 0; i < count; i++)
        rd_kafka_header_add(list, headers[i].name, -1, headers[i].value, -1);
    return list;
}

int td_kafka_out_send(struct td_kafka_out *out, enum td_topic_id topic, int32_t partition, const void *key,
                      size_t key_len, const void *value, size_t len, const struct td_kafka_header *headers,
                      size_t header_count, td_delivered_fn *cb, void *user, struct td_err *reterr)
{
    rd_kafka_topic_t *rkt;
    rd_kafka_headers_t *list = NULL;
    struct delivery *delivery = NULL;
    enum td_stage before;
    rd_kafka_resp_err_t err;

    if (out->closing)
        return td_fail(reterr, TD_EIO, "the producer is closing");
    rkt = topic_handle(out, topic);
    if (!rkt)
        return kafka_fail(reterr, rd_kafka_last_error(), td_topics[topic].name);
    if (cb) {
        delivery = malloc(sizeof(*delivery));
        if (!delivery)
            return td_fail(reterr, TD_ENOMEM, "record");
        *delivery = (struct delivery){cb, user};
    }
    if (header_count > 0)
        list = make_headers(headers, header_count);
    before = td_stage(TD_STAGE_PUBLISH);
    err = rd_kafka_producev(out->rk, RD_KAFKA_V_RKT(rkt), RD_KAFKA_V_PARTITION(partition),
                            RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(key, key_len),
                            RD_KAFKA_V_VALUE((void *)(uintptr_t)value, len), RD_KAFKA_V_OPAQUE(delivery),
                            RD_KAFKA_V_HEADERS(list), RD_KAFKA_V_END);
    td_stage(before);
    if (err) {
        if (list)
            rd_kafka_headers_destroy(list); /* librdkafka takes them only on success */
        free(delivery);
        return kafka_fail(reterr, err, td_topics[topic].name);
    }
    out->pending++;
    return TD_OK;
}

size_t td_kafka_out_pending(const struct td_kafka_out *out)
{
    return out->pending;
}

/* ---- end ---- */

/* Every record's callback runs: with its report, or after the purge with TD_EIO. @return how many had to be purged */
static size_t finish_deliveries(struct td_kafka_out *out, unsigned timeout_ms)
{
    uint64_t now_ms = td_mono_ms(), until_ms = td_stop_sooner(now_ms + timeout_ms, TD_STOP_FLUSH);
    size_t unsent;

    rd_kafka_flush(out->rk, until_ms > now_ms ? (int)(until_ms - now_ms) : 0);
    unsent = out->pending;
    if (unsent == 0)
        return 0;
    td_log(TD_WARN, "kafka.unsent", "records=%zu", unsent);
    rd_kafka_purge(out->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    while (out->pending > 0)
        rd_kafka_poll(out->rk, 100);
    return unsent;
}

size_t td_kafka_out_free(struct td_kafka_out *out, unsigned timeout_ms)
{
    struct td_err err;
    size_t unsent;

    if (!out)
        return 0;
    out->closing = true;
    unsent = finish_deliveries(out, timeout_ms);
    td_fail(&err, TD_EIO, "the producer is closing");
    while (out->asks)
        ask_done(out->asks, NULL, &err);
    for (size_t i = 0; i < TD_T_COUNT; i++)
        if (out->topics[i])
            rd_kafka_topic_destroy(out->topics[i]);
    if (out->asker) {
        rd_kafka_queue_destroy(out->answers);
        kafka_handle_end(out->asker);
    }
    rd_kafka_queue_destroy(out->main_queue);
    kafka_handle_end(out->rk);
    kafka_wake_free(out->wake);
    free(out);
    return unsent;
}
