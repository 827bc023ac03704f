/* Topics made from the one table, and committed offsets asked for without blocking. */
#include "kafka_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADMIN_TIMEOUT_MS = 15000 };

int kafka_offsets_ask(rd_kafka_t *rk, const char *group_id, const rd_kafka_topic_partition_list_t *list,
                      void *opaque, rd_kafka_queue_t *queue, struct td_err *reterr)
{
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS);
    rd_kafka_ListConsumerGroupOffsets_t *ask = rd_kafka_ListConsumerGroupOffsets_new(group_id, list);
    int rc = TD_OK;

    if (!options || !ask) {
        rc = td_fail(reterr, TD_ENOMEM, "committed offsets of %s", group_id);
        goto out;
    }
    rd_kafka_AdminOptions_set_opaque(options, opaque);
    rd_kafka_ListConsumerGroupOffsets(rk, &ask, 1, options, queue); /* copies both */
out:
    if (ask)
        rd_kafka_ListConsumerGroupOffsets_destroy(ask);
    if (options)
        rd_kafka_AdminOptions_destroy(options);
    return rc;
}

const rd_kafka_topic_partition_list_t *kafka_offsets_answer(rd_kafka_event_t *event, struct td_err *reterr)
{
    const rd_kafka_ListConsumerGroupOffsets_result_t *result =
        rd_kafka_event_ListConsumerGroupOffsets_result(event);
    const rd_kafka_topic_partition_list_t *list;
    const rd_kafka_group_result_t **groups;
    const rd_kafka_error_t *error;
    size_t count = 0;

    if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR || !result) {
        kafka_fail(reterr, rd_kafka_event_error(event), "committed offsets");
        return NULL;
    }
    groups = rd_kafka_ListConsumerGroupOffsets_result_groups(result, &count);
    if (count != 1) {
        td_fail(reterr, TD_EIO, "committed offsets: %zu groups in the answer", count);
        return NULL;
    }
    error = rd_kafka_group_result_error(groups[0]);
    if (error) {
        kafka_fail(reterr, rd_kafka_error_code(error), "committed offsets");
        return NULL;
    }
    list = rd_kafka_group_result_partitions(groups[0]);
    for (int i = 0; i < list->cnt; i++)
        if (list->elems[i].err != RD_KAFKA_RESP_ERR_NO_ERROR) {
            kafka_fail(reterr, list->elems[i].err, "committed offsets");
            return NULL;
        }
    return list;
}

/* ---- topics ---- */

typedef void report_fn(void *user, const char *topic, const char *what);

static int partitions_there(const struct rd_kafka_metadata *metadata, const char *name)
{
    for (int i = 0; i < metadata->topic_cnt; i++)
        if (strcmp(metadata->topics[i].topic, name) == 0)
            return metadata->topics[i].partition_cnt;
    return 0;
}

static int new_topic(const struct td_settings *settings, enum td_topic_id id, rd_kafka_NewTopic_t **ret,
                     struct td_err *reterr)
{
    char name[KAFKA_TEXT_MAX], text[200], retention[32];
    rd_kafka_NewTopic_t *topic;

    td_topic_name(name, sizeof(name), settings->kafka_topic_prefix, id);
    topic = rd_kafka_NewTopic_new(name, kafka_partitions(settings, id), (int)settings->kafka_replication, text,
                                  sizeof(text));
    if (!topic)
        return td_fail(reterr, TD_ECONFIG, "topic %s: %s", name, text);
    snprintf(retention, sizeof(retention), "%lld", td_topics[id].retention_ms);
    if (rd_kafka_NewTopic_set_config(topic, "cleanup.policy", td_topics[id].compacted ? "compact" : "delete") ||
        rd_kafka_NewTopic_set_config(topic, "retention.ms", retention)) {
        rd_kafka_NewTopic_destroy(topic);
        return td_fail(reterr, TD_ENOMEM, "topic %s", name);
    }
    *ret = topic;
    return TD_OK;
}

/* What the broker said to each topic. The first refusal is the result; the others are reported all the same. */
static int read_created(rd_kafka_event_t *event, report_fn *report, void *user, struct td_err *reterr)
{
    const rd_kafka_CreateTopics_result_t *result = rd_kafka_event_CreateTopics_result(event);
    const rd_kafka_topic_result_t **topics;
    size_t count = 0;
    int rc = TD_OK;

    if (rd_kafka_event_error(event) != RD_KAFKA_RESP_ERR_NO_ERROR || !result)
        return td_fail(reterr, kafka_code(rd_kafka_event_error(event)), "create topics: %s",
                       rd_kafka_event_error_string(event));
    topics = rd_kafka_CreateTopics_result_topics(result, &count);
    for (size_t i = 0; i < count; i++) {
        rd_kafka_resp_err_t err = rd_kafka_topic_result_error(topics[i]);
        const char *name = rd_kafka_topic_result_name(topics[i]);
        const char *why = rd_kafka_topic_result_error_string(topics[i]);

        if (err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            report(user, name, "created");
        } else if (err == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) {
            report(user, name, "exists"); /* somebody else ran this at the same time */
        } else {
            report(user, name, why ? why : rd_kafka_err2str(err));
            if (rc == TD_OK)
                rc = td_fail(reterr, kafka_code(err), "topic %s: %s", name, why ? why : rd_kafka_err2str(err));
        }
    }
    return rc;
}

static int create_topics(rd_kafka_t *rk, rd_kafka_NewTopic_t **topics, size_t count, report_fn *report, void *user,
                         struct td_err *reterr)
{
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_event_t *event = NULL;
    char text[200];
    int rc;

    if (rd_kafka_AdminOptions_set_operation_timeout(options, ADMIN_TIMEOUT_MS, text, sizeof(text)) ||
        rd_kafka_AdminOptions_set_request_timeout(options, ADMIN_TIMEOUT_MS, text, sizeof(text))) {
        rc = td_fail(reterr, TD_EBUG, "create topics: %s", text);
        goto out;
    }
    rd_kafka_CreateTopics(rk, topics, count, options, queue);
    event = rd_kafka_queue_poll(queue, 2 * ADMIN_TIMEOUT_MS);
    rc = event ? read_created(event, report, user, reterr)
               : td_fail(reterr, TD_ETIMEOUT, "create topics: no answer");
out:
    if (event)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_AdminOptions_destroy(options);
    return rc;
}

int td_kafka_topics_apply(const struct td_settings *settings,
                          void (*report)(void *user, const char *topic, const char *what), void *user,
                          struct td_err *reterr)
{
    rd_kafka_NewTopic_t *missing[TD_T_COUNT];
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_conf_t *conf;
    rd_kafka_t *rk = NULL;
    size_t count = 0;
    int rc = kafka_conf_new(settings, NULL, 0, &conf, reterr);

    if (rc == TD_OK)
        rc = kafka_handle_new(RD_KAFKA_PRODUCER, conf, &rk, reterr);
    if (rc < 0)
        return rc;
    rd_kafka_resp_err_t err = rd_kafka_metadata(rk, 1, NULL, &metadata, ADMIN_TIMEOUT_MS);
    if (err) {
        rc = kafka_fail(reterr, err, "list of topics");
        goto out;
    }
    for (enum td_topic_id id = 0; id < TD_T_COUNT; id++) {
        char name[KAFKA_TEXT_MAX], what[64];
        int there, want = kafka_partitions(settings, id);

        td_topic_name(name, sizeof(name), settings->kafka_topic_prefix, id);
        there = partitions_there(metadata, name);
        if (there == 0) {
            rc = new_topic(settings, id, &missing[count], reterr);
            if (rc < 0)
                goto out;
            count++;
            continue;
        }
        /* More partitions would move keys to other lanes while records wait: that is for a person to decide. */
        snprintf(what, sizeof(what), there == want ? "exists" : "has %d partitions, wants %d", there, want);
        report(user, name, what);
    }
    if (count > 0)
        rc = create_topics(rk, missing, count, report, user, reterr);
out:
    rd_kafka_NewTopic_destroy_array(missing, count);
    if (metadata)
        rd_kafka_metadata_destroy(metadata);
    rd_kafka_destroy(rk);
    return rc;
}
