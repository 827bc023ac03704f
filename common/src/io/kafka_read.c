/* Read single records again, by a consumer that is assigned to just the places wanted: a round begins at the
 * lowest offset wanted in each partition and takes what else is wanted nearby. */
#include "kafka_int.h"

#include <stdio.h>
#include <stdlib.h>

#include "tandem/clock.h"
#include "tandem/log.h"

enum {
    TICK_MS = 200,
    READ_MAX_MS = 10000,
    NEAR = 8, /* records that are read in passing rather than begin at a new place: parts lie next to each other */
};

struct read {
    struct read *next;
    int32_t partition;
    int64_t offset;
    uint64_t deadline_ms;
    bool under_way; /* of this round */
    td_kafka_read_fn *fn;
    void *user;
};

struct td_kafka_reader {
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    struct kafka_wake *wake;
    char topic[KAFKA_TEXT_MAX];
    struct read *first, **last; /* in the order they were asked for */
    bool assigned, closing;
};

static void unlink_read(struct td_kafka_reader *reader, struct read **at)
{
    struct read *read = *at;

    *at = read->next;
    if (reader->last == &read->next)
        reader->last = at;
}

/* What a read got. The callback may ask for more, so the list is looked at from the start afterwards. */
static void answer(struct td_kafka_reader *reader, struct read **at, const rd_kafka_message_t *msg,
                   const struct td_err *err)
{
    struct read *read = *at;

    unlink_read(reader, at);
    if (msg)
        read->fn(read->user, msg->key, msg->key_len, msg->payload, msg->len, NULL);
    else
        read->fn(read->user, NULL, 0, NULL, 0, err);
    free(read);
}

static struct read **find_exact(struct td_kafka_reader *reader, int32_t partition, int64_t offset)
{
    for (struct read **at = &reader->first; *at; at = &(*at)->next)
        if ((*at)->partition == partition && (*at)->offset == offset)
            return at;
    return NULL;
}

/* The read under way in this partition that wants something before `offset`: it cannot be there any more. */
static struct read **find_passed(struct td_kafka_reader *reader, int32_t partition, int64_t offset)
{
    for (struct read **at = &reader->first; *at; at = &(*at)->next)
        if ((*at)->under_way && (*at)->partition == partition && (*at)->offset < offset)
            return at;
    return NULL;
}

/* Reads that want one of the next few records of a partition join the round. */
static void join_round(struct td_kafka_reader *reader, int32_t partition, int64_t offset)
{
    for (struct read *read = reader->first; read; read = read->next)
        if (read->partition == partition && read->offset >= offset && read->offset - offset <= NEAR)
            read->under_way = true;
}

static void take_message(struct td_kafka_reader *reader, const rd_kafka_message_t *msg)
{
    struct read **at;

    if (msg->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        while ((at = find_exact(reader, msg->partition, msg->offset))) {
            answer(reader, at, msg, NULL);
            join_round(reader, msg->partition, msg->offset);
        }
        while ((at = find_passed(reader, msg->partition, msg->offset)))
            answer(reader, at, NULL, NULL);
    } else if (msg->err == RD_KAFKA_RESP_ERR__PARTITION_EOF || msg->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
               msg->err == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE) {
        while ((at = find_passed(reader, msg->partition, INT64_MAX)))
            answer(reader, at, NULL, NULL);
    } else {
        kafka_log_error("reader", msg->err, rd_kafka_message_errstr(msg));
    }
}

static bool round_under_way(const struct td_kafka_reader *reader)
{
    for (const struct read *read = reader->first; read; read = read->next)
        if (read->under_way)
            return true;
    return false;
}

static void begin_round(struct td_kafka_reader *reader)
{
    rd_kafka_topic_partition_list_t *list;
    rd_kafka_resp_err_t err;

    if (!reader->first) {
        if (reader->assigned)
            rd_kafka_assign(reader->rk, NULL); /* or it would go on fetching what follows */
        reader->assigned = false;
        return;
    }
    list = rd_kafka_topic_partition_list_new(1);
    for (const struct read *read = reader->first; read; read = read->next) {
        rd_kafka_topic_partition_t *part =
            rd_kafka_topic_partition_list_find(list, reader->topic, read->partition);

        if (!part)
            rd_kafka_topic_partition_list_add(list, reader->topic, read->partition)->offset = read->offset;
        else if (read->offset < part->offset)
            part->offset = read->offset;
    }
    for (int i = 0; i < list->cnt; i++)
        join_round(reader, list->elems[i].partition, list->elems[i].offset);
    err = rd_kafka_assign(reader->rk, list);
    if (err)
        td_log(TD_WARN, "kafka.read", "code=%s", rd_kafka_err2name(err)); /* the deadline ends these reads */
    reader->assigned = true;
    /* What is left in the queue is of the last round and vanishes when it is read; until then the queue is not
     * empty, and what arrives would not wake us. */
    kafka_wake_soon(reader->wake);
    rd_kafka_topic_partition_list_destroy(list);
}

static void expire(struct td_kafka_reader *reader)
{
    uint64_t now = td_mono_ms();
    struct td_err err;

    /* Deadlines are in the order of the list. */
    while (reader->first && now >= reader->first->deadline_ms) {
        td_fail(&err, TD_ETIMEOUT, "a record of %s could not be read again in time", reader->topic);
        answer(reader, &reader->first, NULL, &err);
    }
}

static void pump(void *user)
{
    struct td_kafka_reader *reader = user;
    rd_kafka_message_t *msg;

    while ((msg = rd_kafka_consumer_poll(reader->rk, 0))) {
        take_message(reader, msg);
        rd_kafka_message_destroy(msg);
        if (!round_under_way(reader))
            break; /* what follows in the queue was fetched for nothing */
    }
    expire(reader);
    if (!round_under_way(reader))
        begin_round(reader);
}

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
    (void)rk;
    (void)opaque;
    kafka_log_error("reader", (rd_kafka_resp_err_t)err, reason);
}

static int make_handle(struct td_kafka_reader *reader, const struct td_settings *settings, struct td_err *reterr)
{
    char group[KAFKA_TEXT_MAX];
    const struct kafka_prop props[] = {
        {"group.id", group}, /* librdkafka wants one; nothing is ever joined or committed */
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "error"},
        {"enable.partition.eof", "true"},
        /* A read takes 3 ms this way. A fetch that waits at the end of a partition would hold up the next round,
         * and so would a full queue (librdkafka looks at it again after a second); nothing is fetched between
         * reads. */
        {"fetch.wait.max.ms", "1"},
        {"fetch.message.max.bytes", "262144"},
        {"queued.min.messages", "100000"},
        {"queued.max.messages.kbytes", "65536"},
    };
    rd_kafka_conf_t *conf = NULL;
    int rc = kafka_group_name(group, settings, "table", reterr);

    if (rc == TD_OK)
        rc = kafka_conf_new(settings, props, sizeof(props) / sizeof(props[0]), &conf, reterr);
    if (rc < 0)
        return rc;
    rd_kafka_conf_set_error_cb(conf, on_error);
    return kafka_handle_new(RD_KAFKA_CONSUMER, conf, &reader->rk, reterr);
}

int td_kafka_reader_new(uv_loop_t *loop, const struct td_settings *settings, enum td_topic_id topic,
                        struct td_kafka_reader **ret, struct td_err *reterr)
{
    struct td_kafka_reader *reader = calloc(1, sizeof(*reader));
    int rc;

    if (!reader)
        return td_fail(reterr, TD_ENOMEM, "reader of %s", td_topics[topic].name);
    td_topic_name(reader->topic, sizeof(reader->topic), settings->kafka_topic_prefix, topic);
    reader->last = &reader->first;
    rc = make_handle(reader, settings, reterr);
    if (rc < 0) {
        free(reader);
        return rc;
    }
    rd_kafka_poll_set_consumer(reader->rk);
    reader->queue = rd_kafka_queue_get_consumer(reader->rk);
    reader->wake = kafka_wake_new(loop, TICK_MS, TD_STAGE_READ, pump, reader);
    if (!reader->wake) {
        td_kafka_reader_free(reader);
        return td_fail(reterr, TD_ENOMEM, "reader of %s", td_topics[topic].name);
    }
    kafka_wake_watch(reader->wake, reader->queue);
    *ret = reader;
    return TD_OK;
}

int td_kafka_reader_read(struct td_kafka_reader *reader, int32_t partition, int64_t offset, td_kafka_read_fn *fn,
                         void *user)
{
    struct read *read = reader->closing ? NULL : calloc(1, sizeof(*read));

    if (!read)
        return reader->closing ? TD_EIO : TD_ENOMEM;
    read->partition = partition;
    read->offset = offset;
    read->deadline_ms = td_mono_ms() + READ_MAX_MS;
    read->fn = fn;
    read->user = user;
    *reader->last = read;
    reader->last = &read->next;
    kafka_wake_soon(reader->wake);
    return TD_OK;
}

void td_kafka_reader_free(struct td_kafka_reader *reader)
{
    struct td_err err;

    if (!reader)
        return;
    reader->closing = true;
    td_fail(&err, TD_EIO, "closing");
    while (reader->first)
        answer(reader, &reader->first, NULL, &err);
    rd_kafka_queue_destroy(reader->queue);
    kafka_handle_end(reader->rk);
    kafka_wake_free(reader->wake);
    free(reader);
}
