/* A compacted topic as a table.
 *
 * The follower is assigned to all partitions from their beginning and never commits. A partition counts as loaded
 * when its end was reached once; before that a key's newest record may still be to come, so nothing is answered
 * from it. Gets that cannot be answered at once wait in `waits`, one entry a key, until a record, a re-read or a
 * deadline. */
#include "kafka_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/log.h"
#include "tandem/map.h"

enum {
    TICK_MS = 100,
    RECORDS_A_TURN = 500,
    PARTITIONS_MAX = UINT16_MAX,
    METADATA_TIMEOUT_MS = 5000,
    METADATA_AGAIN_MS = 1000,
    READ_MAX_MS =
        15000, /* over the reader's own limit, for a record that compaction took before we saw its successor */
};

struct get {
    struct get *next;
    uint64_t deadline_ms;
    bool when_loaded; /* timeout 0: no deadline, answered as soon as all is loaded */
    td_table_get_fn *cb;
    void *user;
};

struct wait {
    struct wait *next, **from;
    struct td_kafka_table *table;
    struct get *gets;
    uint64_t read_since_ms; /* 0: nothing was to be read yet */
    bool reading;
    size_t key_len;
    char key[];
};

struct td_kafka_table {
    uv_loop_t *loop;
    const struct td_settings *settings;
    enum td_topic_id topic;
    char name[KAFKA_TEXT_MAX];
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    struct kafka_wake *wake;
    struct kafka_index *index;
    struct td_kafka_reader *reader; /* made when first needed */
    struct td_map *wait_map;
    struct wait *waits;
    void (*on_change)(void *user, const void *key, size_t key_len, const void *value, size_t len);
    void *user;

    uv_work_t work; /* asks how many partitions there are */
    bool working, closing;
    uint64_t ask_at_ms;
    int found; /* by work: partitions, 0 when not there yet */
    bool *at_end;
    int partitions, at_end_count;

    struct td_metric *m_keys, *m_cached, *m_reads;
};

/* ---- waiting gets ---- */

static struct td_table_value *make_value(const void *data, size_t len)
{
    struct td_table_value *value = malloc(sizeof(*value) + len);

    if (!value)
        return NULL;
    value->len = len;
    value->refs = 1;
    if (len > 0)
        memcpy(value->data, data, len);
    return value;
}

static void free_wait(struct wait *wait)
{
    *wait->from = wait->next;
    if (wait->next)
        wait->next->from = wait->from;
    td_map_remove(wait->table->wait_map, wait->key, wait->key_len);
    free(wait);
}

/* Answer all gets of a key. The wait goes first: a callback may ask for the same key again. */
static void answer(struct wait *wait, struct td_table_value *value, const struct td_err *err)
{
    struct get *gets = wait->gets;

    wait->gets = NULL;
    if (!wait->reading)
        free_wait(wait);
    while (gets) {
        struct get *get = gets;

        gets = get->next;
        get->cb(get->user, value, err);
        free(get);
    }
}

static void on_read(void *user, const void *key, size_t key_len, const void *data, size_t len,
                    const struct td_err *err);

static int begin_read(struct wait *wait, const struct kafka_item *item, struct td_err *reterr)
{
    struct td_kafka_table *table = wait->table;
    int rc = TD_OK;

    if (!table->reader)
        rc = td_kafka_reader_new(table->loop, table->settings, table->topic, &table->reader, reterr);
    if (rc < 0)
        return rc;
    rc = td_kafka_reader_read(table->reader, item->partition, item->offset, on_read, wait);
    if (rc < 0)
        return td_fail(reterr, rc, "read %s again", table->name);
    td_metric_add(table->m_reads, 1);
    wait->reading = true;
    if (wait->read_since_ms == 0)
        wait->read_since_ms = td_mono_ms();
    return TD_OK;
}

/* The key has a record and it is the newest: answer from the cache or begin to read. @return true when answered */
static bool serve(struct wait *wait)
{
    struct td_kafka_table *table = wait->table;
    struct kafka_item *item = kafka_index_find(table->index, wait->key, wait->key_len);
    struct td_table_value *value;
    struct td_err err;

    if (!item || !table->at_end[item->partition] || wait->reading)
        return false;
    value = kafka_index_cached(table->index, item);
    if (value) {
        td_table_value_ref(value);
        answer(wait, value, NULL);
        td_table_value_unref(value);
        return true;
    }
    if (wait->read_since_ms > 0 && td_mono_ms() - wait->read_since_ms > READ_MAX_MS)
        td_fail(&err, TD_ETIMEOUT, "a record of %s could not be read again in time", table->name);
    else if (begin_read(wait, item, &err) == TD_OK)
        return false;
    answer(wait, NULL, &err);
    return true;
}

static void on_read(void *user, const void *key, size_t key_len, const void *data, size_t len,
                    const struct td_err *err)
{
    struct wait *wait = user;
    struct td_kafka_table *table = wait->table;
    struct kafka_item *item;
    struct td_table_value *value;
    struct td_err own;

    wait->reading = false;
    if (err || !wait->gets) {
        answer(wait, NULL, err);
        return;
    }
    item = kafka_index_find(table->index, wait->key, wait->key_len);
    /* Compaction may have taken the record, or a newer one came meanwhile: the tick looks at it again. */
    if (!data || !item || key_len != wait->key_len || memcmp(key, wait->key, key_len) != 0)
        return;
    value = make_value(data, len);
    if (!value) {
        td_fail(&own, TD_ENOMEM, "value of %s", table->name);
        answer(wait, NULL, &own);
        return;
    }
    if (!item->cached)
        kafka_index_cache(table->index, item, value);
    answer(wait, value, NULL);
    td_table_value_unref(value);
}

/* Take out the gets whose time is up. */
static struct get *take_due(struct wait *wait, bool loaded, uint64_t now)
{
    struct get *due = NULL, **at = &wait->gets;

    while (*at) {
        struct get *get = *at;

        if (get->when_loaded ? !loaded : now < get->deadline_ms) {
            at = &get->next;
            continue;
        }
        *at = get->next;
        get->next = due;
        due = get;
    }
    return due;
}

/* No newest record is known: the key is not there, or its partition is still loading. */
static void expire(struct wait *wait, uint64_t now)
{
    struct td_kafka_table *table = wait->table;
    bool loaded = td_kafka_table_loaded(table);
    bool there = kafka_index_find(table->index, wait->key, wait->key_len) != NULL;
    struct get *due;
    struct td_err err;

    if (wait->reading || (there && loaded))
        return; /* it has its own deadline */
    due = take_due(wait, loaded, now);
    if (!wait->gets)
        free_wait(wait);
    td_fail(&err, TD_ETIMEOUT, "%s is still being loaded", table->name);
    while (due) {
        struct get *get = due;

        due = get->next;
        get->cb(get->user, NULL, loaded ? NULL : &err);
        free(get);
    }
}

static void tend_waits(struct td_kafka_table *table)
{
    uint64_t now = td_mono_ms();
    struct wait *next;

    for (struct wait *wait = table->waits; wait; wait = next) {
        next = wait->next; /* callbacks add waits at the front and remove none */
        if (!serve(wait))
            expire(wait, now);
    }
}

/* ---- the follower ---- */

static void take_record(struct td_kafka_table *table, const rd_kafka_message_t *msg)
{
    struct td_table_value *value = NULL;
    struct kafka_item *item;
    struct wait *wait;

    if (!msg->key || msg->key_len > KAFKA_KEY_MAX) {
        td_log(TD_WARN, "kafka.table", "topic=%s partition=%d offset=%lld msg=\"key missing or too long\"",
               table->name, (int)msg->partition, (long long)msg->offset);
        return;
    }
    if (!msg->payload) {
        kafka_index_remove(table->index, msg->key, msg->key_len);
    } else {
        item = kafka_index_put(table->index, msg->key, msg->key_len, (uint16_t)msg->partition, msg->offset);
        value = item ? make_value(msg->payload, msg->len) : NULL;
        if (value)
            kafka_index_cache(table->index, item, value);
        if (!item)
            td_log(TD_ERROR, "kafka.memory", "topic=%s", table->name);
    }
    if (table->on_change)
        table->on_change(table->user, msg->key, msg->key_len, msg->payload, msg->len);
    wait = td_map_get(table->wait_map, msg->key, msg->key_len);
    if (wait && value && table->at_end[msg->partition])
        answer(wait, value, NULL);
    td_table_value_unref(value);
}

static void take_end(struct td_kafka_table *table, int32_t partition)
{
    if (partition < 0 || partition >= table->partitions || table->at_end[partition])
        return;
    table->at_end[partition] = true;
    table->at_end_count++;
    if (td_kafka_table_loaded(table))
        td_log(TD_INFO, "kafka.table_loaded", "topic=%s keys=%zu", table->name, kafka_index_count(table->index));
    tend_waits(table);
}

static void drain(struct td_kafka_table *table)
{
    rd_kafka_message_t *msg;
    unsigned count = 0;

    while (count < RECORDS_A_TURN && (msg = rd_kafka_consumer_poll(table->rk, 0))) {
        if (msg->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
            take_end(table, msg->partition);
        else if (msg->err)
            kafka_log_error(table->name, msg->err, rd_kafka_message_errstr(msg));
        else if (msg->partition < table->partitions)
            take_record(table, msg);
        rd_kafka_message_destroy(msg);
        count++;
    }
    if (count == RECORDS_A_TURN)
        kafka_wake_soon(table->wake);
}

/* ---- which partitions there are ---- */

/* On a thread of libuv's pool, because librdkafka's metadata call blocks. */
static void ask_partitions(uv_work_t *work)
{
    struct td_kafka_table *table = work->data;
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(table->rk, table->name, NULL);

    table->found = 0;
    if (!topic)
        return;
    if (rd_kafka_metadata(table->rk, 0, topic, &metadata, METADATA_TIMEOUT_MS) == RD_KAFKA_RESP_ERR_NO_ERROR) {
        if (metadata->topic_cnt == 1 && metadata->topics[0].err == RD_KAFKA_RESP_ERR_NO_ERROR)
            table->found = metadata->topics[0].partition_cnt;
        rd_kafka_metadata_destroy(metadata);
    }
    rd_kafka_topic_destroy(topic);
}

static void follow(struct td_kafka_table *table, int partitions)
{
    rd_kafka_topic_partition_list_t *list;
    rd_kafka_resp_err_t err;

    table->at_end = calloc((size_t)partitions, sizeof(*table->at_end));
    if (!table->at_end)
        return; /* asked again */
    table->partitions = partitions;
    list = rd_kafka_topic_partition_list_new(partitions);
    rd_kafka_topic_partition_list_add_range(list, table->name, 0, partitions - 1);
    for (int i = 0; i < list->cnt; i++)
        list->elems[i].offset = RD_KAFKA_OFFSET_BEGINNING;
    err = rd_kafka_assign(table->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (!err)
        return;
    td_log(TD_WARN, "kafka.table", "topic=%s code=%s", table->name, rd_kafka_err2name(err));
    free(table->at_end);
    table->at_end = NULL;
    table->partitions = 0;
}

static void destroy(struct td_kafka_table *table);

static void on_partitions(uv_work_t *work, int status)
{
    struct td_kafka_table *table = work->data;

    (void)status;
    table->working = false;
    table->ask_at_ms = td_mono_ms() + METADATA_AGAIN_MS;
    if (table->closing)
        destroy(table);
    else if (table->found > 0 && table->found <= PARTITIONS_MAX)
        follow(table, table->found);
}

static void pump(void *user)
{
    struct td_kafka_table *table = user;

    if (table->closing)
        return;
    if (table->partitions == 0 && !table->working && td_mono_ms() >= table->ask_at_ms) {
        table->working = uv_queue_work(table->loop, &table->work, ask_partitions, on_partitions) == 0;
        table->ask_at_ms = td_mono_ms() + METADATA_AGAIN_MS;
    }
    drain(table);
    tend_waits(table);
    td_metric_set(table->m_keys, (double)kafka_index_count(table->index));
    td_metric_set(table->m_cached, (double)kafka_index_cached_bytes(table->index));
}

/* ---- begin ---- */

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
    struct td_kafka_table *table = opaque;

    (void)rk;
    kafka_log_error(table->name, (rd_kafka_resp_err_t)err, reason);
}

static int make_handle(struct td_kafka_table *table, struct td_err *reterr)
{
    char group[KAFKA_TEXT_MAX];
    const struct kafka_prop props[] = {
        {"group.id", group}, /* librdkafka wants one; nothing is ever joined or committed */
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "earliest"},
        {"enable.partition.eof", "true"},
        {"fetch.wait.max.ms", "100"},
        {"fetch.message.max.bytes", "1048576"},
        {"queued.min.messages", "100000"}, /* or a long topic loads in steps of a second */
        {"queued.max.messages.kbytes", "16384"},
        {"?fetch.queue.backoff.ms", "50"},
    };
    rd_kafka_conf_t *conf = NULL;
    int rc = kafka_group_name(group, table->settings, "table", reterr);

    if (rc == TD_OK)
        rc = kafka_conf_new(table->settings, props, sizeof(props) / sizeof(props[0]), &conf, reterr);
    if (rc < 0)
        return rc;
    rd_kafka_conf_set_opaque(conf, table);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rc = kafka_handle_new(RD_KAFKA_CONSUMER, conf, &table->rk, reterr);
    if (rc < 0)
        return rc;
    rd_kafka_poll_set_consumer(table->rk);
    table->queue = rd_kafka_queue_get_consumer(table->rk);
    return TD_OK;
}

static void make_metrics(struct td_kafka_table *table, struct td_metrics *metrics)
{
    char labels[96];

    if (!metrics)
        return;
    snprintf(labels, sizeof(labels), "topic=\"%s\"", td_topics[table->topic].name);
    table->m_keys = td_metric(metrics, TD_GAUGE, "tandem_kafka_table_keys", "Keys of a table topic.", labels);
    table->m_cached = td_metric(metrics, TD_GAUGE, "tandem_kafka_table_cached_bytes",
                                "Memory of a table's cached values.", labels);
    table->m_reads = td_metric(metrics, TD_COUNTER, "tandem_kafka_table_reads_total",
                               "Values read again because they had left the cache.", labels);
}

int td_kafka_table_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics,
                       enum td_topic_id topic, size_t cache_bytes,
                       void (*on_change)(void *user, const void *key, size_t key_len, const void *value,
                                         size_t len),
                       void *user, struct td_kafka_table **ret, struct td_err *reterr)
{
    struct td_kafka_table *table = calloc(1, sizeof(*table));
    int rc;

    if (!table)
        return td_fail(reterr, TD_ENOMEM, "table %s", td_topics[topic].name);
    table->loop = loop;
    table->settings = settings;
    table->topic = topic;
    table->on_change = on_change;
    table->user = user;
    table->work.data = table;
    td_topic_name(table->name, sizeof(table->name), settings->kafka_topic_prefix, topic);
    rc = make_handle(table, reterr);
    if (rc == TD_OK) {
        table->index = kafka_index_new(cache_bytes);
        table->wait_map = td_map_new();
        table->wake = table->index && table->wait_map ? kafka_wake_new(loop, TICK_MS, TD_STAGE_READ, pump, table) : NULL;
        if (!table->wake)
            rc = td_fail(reterr, TD_ENOMEM, "table %s", table->name);
    }
    if (rc < 0) {
        destroy(table);
        return rc;
    }
    make_metrics(table, metrics);
    kafka_wake_watch(table->wake, table->queue);
    *ret = table;
    return TD_OK;
}

bool td_kafka_table_loaded(const struct td_kafka_table *table)
{
    return table->partitions > 0 && table->at_end_count == table->partitions;
}

/* ---- get ---- */

static struct wait *wait_for(struct td_kafka_table *table, const void *key, size_t key_len)
{
    struct wait *wait = td_map_get(table->wait_map, key, key_len);

    if (wait)
        return wait;
    wait = calloc(1, sizeof(*wait) + key_len);
    if (!wait)
        return NULL;
    wait->table = table;
    wait->key_len = key_len;
    memcpy(wait->key, key, key_len);
    if (td_map_set(table->wait_map, key, key_len, wait) < 0) {
        free(wait);
        return NULL;
    }
    wait->from = &table->waits;
    wait->next = table->waits;
    if (wait->next)
        wait->next->from = &wait->next;
    table->waits = wait;
    return wait;
}

int td_kafka_table_get(struct td_kafka_table *table, const void *key, size_t key_len, unsigned timeout_ms,
                       td_table_get_fn *cb, void *user)
{
    struct kafka_item *item = kafka_index_find(table->index, key, key_len);
    struct td_table_value *value;
    struct wait *wait;
    struct get *get;

    if (table->closing)
        return TD_EIO;
    if (key_len > KAFKA_KEY_MAX)
        return TD_ETOOBIG;
    if (item && table->at_end[item->partition] && (value = kafka_index_cached(table->index, item))) {
        td_table_value_ref(value);
        cb(user, value, NULL);
        td_table_value_unref(value);
        return TD_OK;
    }
    get = malloc(sizeof(*get));
    wait = get ? wait_for(table, key, key_len) : NULL;
    if (!wait) {
        free(get);
        return TD_ENOMEM;
    }
    *get = (struct get){wait->gets, td_mono_ms() + timeout_ms, timeout_ms == 0, cb, user};
    wait->gets = get;
    kafka_wake_soon(table->wake); /* the answer comes from the pump */
    return TD_OK;
}

/* ---- end ---- */

static void destroy(struct td_kafka_table *table)
{
    if (table->queue)
        rd_kafka_queue_destroy(table->queue);
    if (table->rk)
        kafka_handle_end(table->rk);
    kafka_wake_free(table->wake);
    kafka_index_free(table->index);
    td_map_free(table->wait_map);
    free(table->at_end);
    free(table);
}

void td_kafka_table_free(struct td_kafka_table *table)
{
    struct td_err err;

    if (!table)
        return;
    table->closing = true;
    td_kafka_reader_free(table->reader); /* its reads end here, and with them what waits for them */
    table->reader = NULL;
    td_fail(&err, TD_EIO, "closing");
    while (table->waits)
        answer(table->waits, NULL, &err); /* NOLINT(clang-analyzer-unix.Malloc): unlinked before it is freed */
    if (!table->working)
        destroy(table); /* else when the thread that uses rk is back */
}
