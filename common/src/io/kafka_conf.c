/* One place for the properties of all handles, and for what librdkafka's errors mean to us. */
#include "kafka_int.h"

#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "tandem/log.h"

/* The promises of kafka.h rest on these, so kafka.properties may not touch them. */
static const char *const ours[] = {
    "acks",
    "allow.auto.create.topics",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "partitioner",
    "request.required.acks",
};

/* On an internal thread of librdkafka. Its lines name brokers, topics and groups, never what records hold. */
static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void)rk;
    td_log(level <= LOG_WARNING ? TD_WARN : TD_DEBUG, "kafka.client", "facility=%s msg=\"%s\"", facility, text);
}

static int set(rd_kafka_conf_t *conf, const char *name, const char *value, struct td_err *reterr)
{
    bool optional = name[0] == '?';
    char text[200];
    rd_kafka_conf_res_t res = rd_kafka_conf_set(conf, name + optional, value, text, sizeof(text));

    if (res == RD_KAFKA_CONF_OK || (res == RD_KAFKA_CONF_UNKNOWN && optional))
        return TD_OK;
    return td_fail(reterr, TD_ECONFIG, "Kafka property %s: %s", name, text);
}

static int set_user_property(rd_kafka_conf_t *conf, const char *property, struct td_err *reterr)
{
    const char *equals = strchr(property, '=');
    char name[KAFKA_TEXT_MAX];

    if (!equals || equals == property || property[0] == '?' || (size_t)(equals - property) >= sizeof(name))
        return td_fail(reterr, TD_ECONFIG, "kafka.properties: wants name=value");
    snprintf(name, sizeof(name), "%.*s", (int)(equals - property), property);
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        if (strcmp(name, ours[i]) == 0)
            return td_fail(reterr, TD_ECONFIG, "kafka.properties: %s is set by Tandem and cannot be changed",
                           name);
    return set(conf, name, equals + 1, reterr);
}

int kafka_conf_new(const struct td_settings *settings, const struct kafka_prop *props, size_t count,
                   rd_kafka_conf_t **ret, struct td_err *reterr)
{
    const struct kafka_prop base[] = {
        {"bootstrap.servers", settings->kafka_brokers},
        {"client.id", settings->instance},
        {"allow.auto.create.topics", "false"},
        {"socket.nagle.disable", "true"},
        {"socket.keepalive.enable", "true"},
        {"log.connection.close", "false"}, /* brokers close idle connections; that is no news */
        /* A broker that comes back is found within two seconds, a topic made later within five. */
        {"reconnect.backoff.max.ms", "2000"},
        {"topic.metadata.refresh.interval.ms", "5000"},
    };
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    int rc = TD_OK;

    rd_kafka_conf_set_log_cb(conf, on_log);
    for (size_t i = 0; i < sizeof(base) / sizeof(base[0]) && rc == TD_OK; i++)
        if (base[i].value)
            rc = set(conf, base[i].name, base[i].value, reterr);
    for (size_t i = 0; i < count && rc == TD_OK; i++)
        if (props[i].value)
            rc = set(conf, props[i].name, props[i].value, reterr);
    for (size_t i = 0; i < settings->kafka_properties.count && rc == TD_OK; i++)
        rc = set_user_property(conf, settings->kafka_properties.item[i], reterr);
    if (rc < 0) {
        rd_kafka_conf_destroy(conf);
        return rc;
    }
    *ret = conf;
    return TD_OK;
}

int kafka_handle_new(rd_kafka_type_t type, rd_kafka_conf_t *conf, rd_kafka_t **ret, struct td_err *reterr)
{
    char text[200];
    rd_kafka_t *rk = rd_kafka_new(type, conf, text, sizeof(text));

    if (!rk) {
        rd_kafka_conf_destroy(conf); /* rd_kafka_new takes it only on success */
        return td_fail(reterr, TD_ECONFIG, "Kafka client: %s", text);
    }
    *ret = rk;
    return TD_OK;
}

enum td_code kafka_code(rd_kafka_resp_err_t err)
{
    switch ((int)err) { /* as int: the enum has a hundred values, and new releases add some */
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        return TD_OK;
    case RD_KAFKA_RESP_ERR__QUEUE_FULL:
        return TD_EAGAIN;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
        return TD_ETOOBIG;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        return TD_ENOTFOUND;
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
        return TD_ETIMEOUT;
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
        return TD_EDENIED;
    case RD_KAFKA_RESP_ERR__INVALID_ARG:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
        return TD_EINVAL;
    case RD_KAFKA_RESP_ERR__FATAL:
    case RD_KAFKA_RESP_ERR__FENCED:
    case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
        return TD_EFATAL;
    default:
        return TD_EIO;
    }
}

int kafka_fail(struct td_err *reterr, rd_kafka_resp_err_t err, const char *what)
{
    return td_fail(reterr, kafka_code(err), "%s: %s", what, rd_kafka_err2str(err));
}

void kafka_log_error(const char *what, rd_kafka_resp_err_t err, const char *reason)
{
    bool news = err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || err == RD_KAFKA_RESP_ERR__FATAL ||
                kafka_code(err) == TD_EDENIED || kafka_code(err) == TD_ENOTFOUND;

    /* The rest (one broker away, a timeout) is retried inside and comes several times a second. */
    td_log(news ? TD_WARN : TD_DEBUG, "kafka.error", "client=%s code=%s msg=\"%s\"", what, rd_kafka_err2name(err),
           reason ? reason : "");
}

int kafka_group_name(char out[KAFKA_TEXT_MAX], const struct td_settings *settings, const char *group,
                     struct td_err *reterr)
{
    const char *prefix = settings->kafka_topic_prefix ? settings->kafka_topic_prefix : "";
    int len = snprintf(out, KAFKA_TEXT_MAX, "%s%s", prefix, group);

    if (len < 0 || len >= KAFKA_TEXT_MAX)
        return td_fail(reterr, TD_ECONFIG, "kafka.topic_prefix: too long for the name of group %s", group);
    return TD_OK;
}

int kafka_partitions(const struct td_settings *settings, enum td_topic_id topic)
{
    return td_topics[topic].partitions > 0 ? td_topics[topic].partitions : (int)settings->kafka_lanes;
}
