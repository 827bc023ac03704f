/* The old simple consumer: it knows no group, so it needs no coordinator and leaves nothing behind. */
#include "tandem/kafka_follow.h"

#include <inttypes.h>
#include <stdlib.h>

#include "kafka_int.h"

enum { FOLLOW_TICK_MS = 50, FOLLOW_BUDGET = 2000 /* records a turn of the loop */ };

struct follow_part {
    int64_t end; /* where the partition ended when we began */
    bool reached;
};

struct td_kafka_follow {
    rd_kafka_t *rk;
    rd_kafka_topic_t *topic;
    rd_kafka_queue_t *queue;
    struct kafka_wake *wake;
    enum td_topic_id id;
    struct td_kafka_follow_ops ops;
    void *user;
    struct follow_part *parts;
    int32_t count, started, left; /* left: partitions whose end has not been reached */
    bool told, freed, in_pump, held;
};

static void follow_destroy(struct td_kafka_follow *follow)
{
    for (int32_t p = 0; p < follow->started; p++)
        rd_kafka_consume_stop(follow->topic, p);
    kafka_wake_free(follow->wake);
    if (follow->queue) {
        rd_kafka_queue_io_event_enable(follow->queue, -1, NULL, 0);
        rd_kafka_queue_destroy(follow->queue);
    }
    if (follow->topic)
        rd_kafka_topic_destroy(follow->topic);
    if (follow->rk)
        kafka_handle_end(follow->rk);
    free(follow->parts);
    free(follow);
}

static void part_reached(struct td_kafka_follow *follow, int32_t partition, int64_t next)
{
    struct follow_part *part = &follow->parts[partition];

    if (part->reached || next < part->end)
        return;
    part->reached = true;
    follow->left--;
}

static void take(struct td_kafka_follow *follow, const rd_kafka_message_t *message)
{
    struct td_record rec = {{follow->id, message->partition},
                            message->offset,
                            0,
                            message->key,
                            message->key_len,
                            message->payload,
                            message->len};
    rd_kafka_timestamp_type_t type;

    if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        /* The last records may be gone (compacted, or a transaction's marks): the end is told, not only counted
         * to. */
        part_reached(follow, message->partition, message->offset);
        return;
    }
    if (message->err) {
        kafka_log_error("follow", message->err, rd_kafka_message_errstr(message));
        return;
    }
    rec.timestamp_ms = rd_kafka_message_timestamp(message, &type);
    follow->ops.on_record(follow->user, &rec);
    part_reached(follow, message->partition, message->offset + 1);
}

static void pump(void *user)
{
    struct td_kafka_follow *follow = user;
    rd_kafka_message_t *message = NULL;
    int budget = FOLLOW_BUDGET;

    follow->in_pump = true;
    while (!follow->freed && !follow->held && budget-- > 0 && (message = rd_kafka_consume_queue(follow->queue, 0))) {
        take(follow, message);
        rd_kafka_message_destroy(message);
    }
    if (!follow->freed && follow->left == 0 && !follow->told) {
        follow->told = true;
        if (follow->ops.on_end)
            follow->ops.on_end(follow->user);
    }
    follow->in_pump = false;
    if (follow->freed)
        follow_destroy(follow);
    else if (budget < 0 && !follow->held)
        kafka_wake_soon(follow->wake);
}

static int count_partitions(struct td_kafka_follow *follow, int timeout_ms, struct td_err *reterr)
{
    const struct rd_kafka_metadata *metadata;
    rd_kafka_resp_err_t err = rd_kafka_metadata(follow->rk, 0, follow->topic, &metadata, timeout_ms);
    int rc = TD_OK;

    if (err)
        return kafka_fail(reterr, err, "no broker answers");
    if (metadata->topic_cnt == 1 && metadata->topics[0].err == RD_KAFKA_RESP_ERR_NO_ERROR)
        follow->count = metadata->topics[0].partition_cnt;
    if (follow->count == 0)
        rc = td_fail(reterr, TD_ENOTFOUND, "there is no topic %s; `tandemctl topics apply` makes it",
                     rd_kafka_topic_name(follow->topic));
    rd_kafka_metadata_destroy(metadata);
    return rc;
}

static int start_partitions(struct td_kafka_follow *follow, bool from_end, int timeout_ms, struct td_err *reterr)
{
    follow->parts = calloc((size_t)follow->count, sizeof(*follow->parts));
    if (!follow->parts)
        return td_fail(reterr, TD_ENOMEM, "no memory for %" PRId32 " partitions", follow->count);
    follow->left = follow->count;
    for (int32_t p = 0; p < follow->count; p++) {
        int64_t low, high;
        /* Asked now and not left to "end": that would be looked up some time after we returned. */
        rd_kafka_resp_err_t err = rd_kafka_query_watermark_offsets(follow->rk, rd_kafka_topic_name(follow->topic),
                                                                   p, &low, &high, timeout_ms);

        if (err)
            return kafka_fail(reterr, err, "ends of a topic");
        follow->parts[p].end = high;
        part_reached(follow, p, from_end ? high : low);
        if (rd_kafka_consume_start_queue(follow->topic, p, from_end ? high : low, follow->queue) < 0)
            return kafka_fail(reterr, rd_kafka_last_error(), "reading of a topic");
        follow->started++;
    }
    return TD_OK;
}

int td_kafka_follow_new(uv_loop_t *loop, const struct td_settings *settings, enum td_topic_id topic, bool from_end,
                        unsigned timeout_ms, const struct td_kafka_follow_ops *ops, void *user,
                        struct td_kafka_follow **ret, struct td_err *reterr)
{
    static const struct kafka_prop props[] = {{.name = "enable.partition.eof", .value = "true"},
                                              {.name = "auto.offset.reset", .value = "earliest"},
                                              {.name = "fetch.wait.max.ms", .value = "50"},
                                              {.name = "queued.max.messages.kbytes", .value = "16384"}};
    struct td_kafka_follow *follow = calloc(1, sizeof(*follow));
    char name[KAFKA_TEXT_MAX];
    rd_kafka_conf_t *conf;
    int rc;

    if (!follow)
        return td_fail(reterr, TD_ENOMEM, "no memory to follow a topic");
    follow->id = topic;
    follow->ops = *ops;
    follow->user = user;
    rc = kafka_conf_new(settings, props, sizeof(props) / sizeof(props[0]), &conf, reterr);
    if (rc == TD_OK)
        rc = kafka_handle_new(RD_KAFKA_CONSUMER, conf, &follow->rk, reterr);
    if (rc < 0)
        goto out;
    td_topic_name(name, sizeof(name), settings->kafka_topic_prefix, topic);
    follow->topic = rd_kafka_topic_new(follow->rk, name, NULL);
    follow->queue = rd_kafka_queue_new(follow->rk);
    follow->wake = follow->topic ? kafka_wake_new(loop, FOLLOW_TICK_MS, TD_STAGE_READ, pump, follow) : NULL;
    if (!follow->wake) {
        rc = td_fail(reterr, TD_ENOMEM, "no memory to follow a topic");
        goto out;
    }
    rc = count_partitions(follow, (int)timeout_ms, reterr);
    if (rc == TD_OK)
        rc = start_partitions(follow, from_end, (int)timeout_ms, reterr);
    if (rc < 0)
        goto out;
    kafka_wake_watch(follow->wake, follow->queue);
    kafka_wake_soon(follow->wake);
    *ret = follow;
    follow = NULL;
out:
    if (follow)
        follow_destroy(follow);
    return rc;
}

void td_kafka_follow_hold(struct td_kafka_follow *follow, bool hold)
{
    follow->held = hold;
    if (!hold)
        kafka_wake_soon(follow->wake);
}

void td_kafka_follow_free(struct td_kafka_follow *follow)
{
    if (!follow || follow->freed)
        return;
    follow->freed = true;
    if (!follow->in_pump)
        follow_destroy(follow);
}
