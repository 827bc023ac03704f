/* A member of a consumer group on the loop.
 *
 * Each lane (partition) has its own queue inside librdkafka, taken out of the consumer's queue when it is
 * assigned. So group calls, commits and errors are always read, while records are read only when somebody wants
 * them: a pause or a hold simply leaves them where they are (a few MiB a lane, bounded by
 * queued.max.messages.kbytes), nothing is thrown away and fetched again, and lanes are served in turn.
 *
 * kafka_group.c has the states; this file has the pump, the records and the service's calls. */
#include "kafka_in_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/log.h"
#include "tandem/stop.h"

enum {
    TICK_MS = 100,
    RECORDS_A_TURN = 500, /* then the rest of the loop gets its turn */
    RECORDS_A_LANE = 32,  /* then the next lane gets its turn */
    COMMIT_GAP_MS = 100,
    HURRY_GAP_MS = 20,
    REVOKE_MAX_MS = 20000, /* the promise is 15 s; a group must not wait for a service that forgot it */
    FLUSH_MAX_MS = 5000,
    LEAVE_MAX_MS = 1000,
    CLOSE_MAX_MS = 15000, /* librdkafka #4187, #4527: close may never end */
    ASK_AGAIN_MS = 500,
    LAG_EVERY_MS = 5000,
    FORGIVE_MS = 60000, /* a fence this soon after lanes were lost is our own */
};

static struct kafka_lane *find_lane(struct td_kafka_in *in, struct td_lane lane)
{
    return kafka_lane_find(in->lanes, in->lane_count, in->topics[lane.topic], lane.partition);
}

void td_kafka_in_revoke_done(struct td_kafka_in *in)
{
    if (in->state != IN_REVOKING)
        return;
    kafka_in_enter(in, IN_FLUSHING); /* the end comes from the pump, not from inside the service's callback */
    kafka_wake_soon(in->wake);
}

/* ---- what the group's queue brings ---- */

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
    struct td_kafka_in *in = opaque;

    (void)rk;
    kafka_log_error(in->group_id, (rd_kafka_resp_err_t)err, reason);
    if (err == RD_KAFKA_RESP_ERR__FATAL)
        in->fatal = true;
}

static void on_commit_answer(rd_kafka_t *rk, rd_kafka_resp_err_t err, rd_kafka_topic_partition_list_t *list,
                             void *generation)
{
    struct td_kafka_in *in = rd_kafka_opaque(rk);

    kafka_commits_answer(&in->commits, err, list, (uintptr_t)generation);
}

/* An error that came as a message: of the consumer or of one lane. All but a fatal one heal inside. */
static void note_error(struct td_kafka_in *in, const rd_kafka_message_t *msg)
{
    if (msg->err == RD_KAFKA_RESP_ERR__FATAL || kafka_code(msg->err) == TD_EFATAL)
        in->fatal = true;
    kafka_log_error(in->group_id, msg->err, rd_kafka_message_errstr(msg));
}

static void poll_group(struct td_kafka_in *in)
{
    rd_kafka_message_t *msg;
    rd_kafka_event_t *event;

    in->polled_before_ms = in->polled_ms;
    in->polled_ms = td_mono_ms();
    while (
        (msg = in->close_queue ? rd_kafka_consume_queue(in->close_queue, 0) : rd_kafka_consumer_poll(in->rk, 0))) {
        if (msg->err)
            note_error(in, msg);
        rd_kafka_message_destroy(msg);
    }
    while ((event = rd_kafka_queue_poll(in->answers, 0))) {
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT)
            kafka_group_answer_offsets(in, event);
        rd_kafka_event_destroy(event);
    }
}

/* ---- records ---- */

static void deliver(struct td_kafka_in *in, const struct kafka_lane *lane, const rd_kafka_message_t *msg)
{
    struct td_record rec = {
        .lane = lane->lane,
        .offset = msg->offset,
        .timestamp_ms = rd_kafka_message_timestamp(msg, NULL),
        .key = msg->key,
        .key_len = msg->key_len,
        .value = msg->payload,
        .len = msg->len,
    };

    in->ops.on_record(in->user, &rec);
}

static bool reading(const struct td_kafka_in *in)
{
    return in->state == IN_ASSIGNED && !in->held && !in->stop_wanted && !in->fatal;
}

/* @return records read, of at most `most` */
static unsigned drain_lane(struct td_kafka_in *in, struct kafka_lane *lane, unsigned most)
{
    unsigned count = 0;
    rd_kafka_message_t *msg;

    /* on_record may pause the lane or hold us. */
    while (count < most && !lane->paused && !in->topic_held[lane->lane.topic] && reading(in) &&
           (msg = rd_kafka_consume_queue(lane->queue, 0))) {
        if (msg->err)
            note_error(in, msg);
        else
            deliver(in, lane, msg);
        rd_kafka_message_destroy(msg);
        count++;
    }
    return count;
}

/* Lanes in turn, some records each, so that a long backlog in one does not hide the others. */
static void drain(struct td_kafka_in *in)
{
    unsigned left = RECORDS_A_TURN;
    size_t idle = 0;

    while (left > 0 && idle < in->lane_count && reading(in)) {
        struct kafka_lane *lane = &in->lanes[in->turn % in->lane_count];
        unsigned most = left < RECORDS_A_LANE ? left : RECORDS_A_LANE, count = drain_lane(in, lane, most);

        in->turn++;
        left -= count;
        idle = count > 0 ? 0 : idle + 1;
    }
    if (left == 0)
        kafka_wake_soon(in->wake);
}

/* ---- the loop ---- */

static void update_lag(struct td_kafka_in *in)
{
    double lag[TD_T_COUNT] = {0};

    in->lag_ms = td_mono_ms();
    for (size_t i = 0; i < in->lane_count; i++) {
        const struct kafka_lane *lane = &in->lanes[i];
        int64_t low, high, at = lane->acked > lane->start ? lane->acked : lane->start;

        /* What the last fetch said, from memory. */
        if (rd_kafka_get_watermark_offsets(in->rk, lane->topic, lane->lane.partition, &low, &high) || high < 0)
            continue;
        if (at < low)
            at = low < 0 ? 0 : low;
        if (high > at)
            lag[lane->lane.topic] += (double)(high - at);
    }
    for (size_t i = 0; i < TD_T_COUNT; i++)
        td_metric_set(in->m_lag[i], lag[i]);
}

/* Has this state lasted for so long, or until the end of this stage of a stop? */
static bool overdue(const struct td_kafka_in *in, uint64_t most_ms, enum td_stop_stage stage)
{
    return td_mono_ms() > td_stop_sooner(in->since_ms + most_ms, stage);
}

static void step_closing(struct td_kafka_in *in)
{
    if (in->state == IN_CLOSING && rd_kafka_consumer_closed(in->rk)) {
        kafka_in_enter(in, IN_CLOSED);
    } else if (in->state == IN_CLOSING && overdue(in, CLOSE_MAX_MS, TD_STOP_LEAVE)) {
        td_log(TD_WARN, "kafka.close", "group=%s msg=\"close did not end in time\"", in->group_id);
        kafka_in_enter(in, IN_CLOSED);
    }
}

/* Deadlines, and what was put off because it was asked for inside a callback. */
static void step(struct td_kafka_in *in)
{
    if (in->state == IN_REVOKING && overdue(in, REVOKE_MAX_MS, TD_STOP_HAND_BACK)) {
        td_log(TD_ERROR, "kafka.revoke_late", "group=%s ms=%llu", in->group_id,
               (unsigned long long)(td_mono_ms() - in->since_ms));
        kafka_in_enter(in, IN_FLUSHING);
    }
    if (in->state == IN_FLUSHING && (in->lost || kafka_commits_settled(&in->commits) ||
                                     overdue(in, FLUSH_MAX_MS, TD_STOP_HAND_BACK)))
        kafka_group_end_revoke(in);
    if (in->state == IN_ASKING && in->asked == 0 && td_mono_ms() - in->asked_ms > ASK_AGAIN_MS)
        kafka_group_ask_offsets(in);
    if (in->stop_wanted && in->fatal && in->state < IN_CLOSING)
        kafka_in_enter(in, IN_CLOSED); /* it is in no group any more */
    else if (in->stop_wanted && in->state == IN_ASSIGNED)
        kafka_group_begin_revoke(in, false); /* before close: as long as we are a member, commits are taken */
    else if (in->stop_wanted && (in->state == IN_IDLE || in->state == IN_ASKING))
        kafka_group_begin_leave(in);
    else if (in->state == IN_LEAVING && (kafka_group_has_left(in) || overdue(in, LEAVE_MAX_MS, TD_STOP_LEAVE)))
        kafka_group_begin_close(in);
}

static void tell_fatal(struct td_kafka_in *in)
{
    struct td_err err;
    char text[200] = "";
    rd_kafka_resp_err_t code = rd_kafka_fatal_error(in->rk, text, sizeof(text));

    in->fatal_told = true;
    td_fail(&err, TD_EFATAL, "Kafka group %s: %s", in->group_id, code ? text : "out of memory");
    td_log(TD_ERROR, "kafka.fatal", "group=%s code=%s", in->group_id, rd_kafka_err2name(code));
    if (in->ops.on_fatal)
        in->ops.on_fatal(in->user, &err);
}

static int join(struct td_kafka_in *in, struct td_err *reterr);
static void leave(struct td_kafka_in *in);

/* When the coordinator was away for longer than the session, librdkafka joins again as a new member of the same
 * instance, while a commit of the member before may still be on its way: that one is answered FENCED_INSTANCE_ID,
 * which ends the handle although nobody else has our name. Then join anew, once: a second fence is another
 * process. */
static bool fenced_by_itself(const struct td_kafka_in *in)
{
    return rd_kafka_fatal_error(in->rk, NULL, 0) == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID && in->lost_ms > 0 &&
           td_mono_ms() - in->lost_ms < FORGIVE_MS && !in->stop_wanted;
}

static void join_again(struct td_kafka_in *in)
{
    struct td_err err;

    if (in->state == IN_ASSIGNED)
        kafka_group_begin_revoke(in, true);
    if (in->state != IN_IDLE && in->state != IN_ASKING)
        return; /* the service is giving its lanes back */
    td_log(TD_WARN, "kafka.join_again", "group=%s msg=\"fenced by an earlier self\"", in->group_id);
    leave(in);
    in->lost_ms = 0;
    in->fatal = false;
    if (join(in, &err) == TD_OK)
        return;
    in->fatal = in->fatal_told = true;
    td_log(TD_ERROR, "kafka.fatal", "group=%s why=\"%s\"", in->group_id, err.text);
    if (in->ops.on_fatal)
        in->ops.on_fatal(in->user, &err);
}

static void pump(void *user)
{
    struct td_kafka_in *in = user;
    void (*stopped)(void *) = in->stopped;
    /* While lanes are given back the group waits. */
    bool hurry = in->state == IN_REVOKING || in->state == IN_FLUSHING;

    if (in->state == IN_CLOSED && !stopped)
        return;
    poll_group(in);
    step(in);
    step_closing(in);
    if (in->state == IN_CLOSED) {
        in->stopped = NULL;
        if (stopped)
            stopped(in->stopped_user); /* may free us */
        return;
    }
    if (in->fatal && !in->fatal_told && fenced_by_itself(in)) {
        join_again(in);
        return;
    }
    if (in->fatal && !in->fatal_told) {
        tell_fatal(in);
        return; /* the service is on its way out */
    }
    kafka_commits_pump(&in->commits, hurry ? HURRY_GAP_MS : COMMIT_GAP_MS, in->proof_every_ms);
    if (reading(in))
        drain(in);
    if (td_mono_ms() - in->lag_ms >= LAG_EVERY_MS)
        update_lag(in);
}

/* ---- begin ---- */

static void make_metrics(struct td_kafka_in *in, struct td_metrics *metrics, const char *group)
{
    char labels[128];

    if (!metrics)
        return;
    snprintf(labels, sizeof(labels), "group=\"%s\"", group);
    in->m_rebalances = td_metric(metrics, TD_COUNTER, "tandem_kafka_assignments_total",
                                 "Times the group gave this process its lanes.", labels);
    for (size_t i = 0; i < TD_T_COUNT; i++) {
        if (!in->topics[i][0])
            continue;
        snprintf(labels, sizeof(labels), "group=\"%s\",topic=\"%s\"", group, td_topics[i].name);
        in->m_lag[i] = td_metric(metrics, TD_GAUGE, "tandem_kafka_consumer_lag_records",
                                 "Records of this process's lanes that are not committed yet.", labels);
    }
}

static int make_handle(struct td_kafka_in *in, struct td_err *reterr)
{
    const struct td_settings *settings = in->settings;
    char instance[KAFKA_TEXT_MAX], session[24], max_poll[24];
    int64_t session_ms = settings->kafka_session_timeout_ms;
    const struct kafka_prop props[] = {
        {"group.id", in->group_id},
        {"group.instance.id", instance},
        {"session.timeout.ms", session},
        /* Members hear of a rebalance by the answer to a heartbeat: who leaves or joins makes all lanes wait so long. */
        {"heartbeat.interval.ms", "500"},
        {"max.poll.interval.ms", max_poll},
        {"partition.assignment.strategy", "roundrobin"}, /* eager: librdkafka #4059, #4783 below 2.10 */
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "earliest"},
        {"fetch.wait.max.ms", "100"},
        {"fetch.message.max.bytes", "1048576"},
        /* A lane that is not read (pause, hold) keeps up to this much in memory. When it is full, librdkafka looks
         * again after a second (newer ones: after what is set), so this is also about what a lane can read a
         * second. */
        {"queued.min.messages", "10000"},
        {"queued.max.messages.kbytes", "4096"},
        {"?fetch.queue.backoff.ms", "50"},
    };
    rd_kafka_conf_t *conf;
    int rc;

    in->proof_every_ms = (uint64_t)(session_ms / 4 < 3000 ? session_ms / 4 : 3000);
    if (snprintf(instance, sizeof(instance), "%s-%s", in->group_id, settings->instance) >= (int)sizeof(instance))
        return td_fail(reterr, TD_ECONFIG, "instance: too long for a member of group %s", in->group);
    snprintf(session, sizeof(session), "%lld", (long long)session_ms);
    /* Also how long the group waits for a member that gives its lanes back: 60 s covers REVOKE_MAX_MS by far. */
    snprintf(max_poll, sizeof(max_poll), "%lld", (long long)(session_ms > 60000 ? session_ms : 60000));
    rc = kafka_conf_new(settings, props, sizeof(props) / sizeof(props[0]), &conf, reterr);
    if (rc < 0)
        return rc;
    rd_kafka_conf_set_opaque(conf, in);
    rd_kafka_conf_set_rebalance_cb(conf, kafka_group_on_rebalance);
    rd_kafka_conf_set_error_cb(conf, on_error);
    return kafka_handle_new(RD_KAFKA_CONSUMER, conf, &in->rk, reterr);
}

static int subscribe(struct td_kafka_in *in, struct td_err *reterr)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(TD_T_COUNT);
    rd_kafka_resp_err_t err;

    for (size_t i = 0; i < TD_T_COUNT; i++)
        if (in->topics[i][0])
            rd_kafka_topic_partition_list_add(list, in->topics[i], RD_KAFKA_PARTITION_UA);
    err = rd_kafka_subscribe(in->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    return err ? kafka_fail(reterr, err, "subscribe") : TD_OK;
}

/* A handle, its queues, and the wish to be a member. */
static int join(struct td_kafka_in *in, struct td_err *reterr)
{
    int rc = make_handle(in, reterr);

    if (rc < 0)
        return rc;
    rd_kafka_poll_set_consumer(in->rk);
    in->group_queue = rd_kafka_queue_get_consumer(in->rk);
    in->answers = rd_kafka_queue_new(in->rk);
    in->commits.rk = in->rk;
    in->commits.queue = in->group_queue;
    in->commits.on_answer = on_commit_answer;
    kafka_in_enter(in, IN_IDLE);
    rc = subscribe(in, reterr);
    kafka_wake_watch(in->wake, in->group_queue);
    kafka_wake_watch(in->wake, in->answers);
    return rc;
}

/* Drop the handle. Either td_kafka_in_stop has closed it, or we leave like a crash: the group notices by the
 * session timeout. */
static void leave(struct td_kafka_in *in)
{
    kafka_group_drop_lanes(in);
    kafka_group_forget_next(in);
    in->asked = 0;
    if (!in->rk)
        return;
    if (in->close_queue)
        rd_kafka_queue_destroy(in->close_queue);
    rd_kafka_queue_destroy(in->answers);
    rd_kafka_queue_destroy(in->group_queue);
    kafka_handle_end(in->rk);
    in->close_queue = in->answers = in->group_queue = NULL;
    in->rk = NULL;
}

int td_kafka_in_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics,
                    const char *group, const enum td_topic_id *topics, size_t topic_count,
                    const struct td_kafka_in_ops *ops, void *user, struct td_kafka_in **ret, struct td_err *reterr)
{
    struct td_kafka_in *in = calloc(1, sizeof(*in));
    int rc;

    if (!in)
        return td_fail(reterr, TD_ENOMEM, "Kafka group %s", group);
    in->ops = *ops;
    in->user = user;
    for (size_t i = 0; i < topic_count; i++)
        td_topic_name(in->topics[topics[i]], KAFKA_TEXT_MAX, settings->kafka_topic_prefix, topics[i]);
    in->settings = settings;
    snprintf(in->group, sizeof(in->group), "%s", group);
    make_metrics(in, metrics, group);
    in->polled_ms = in->polled_before_ms = in->lag_ms = td_mono_ms();
    rc = kafka_group_name(in->group_id, settings, group, reterr);
    if (rc == TD_OK) {
        in->wake = kafka_wake_new(loop, TICK_MS, TD_STAGE_READ, pump, in);
        rc = in->wake ? join(in, reterr) : td_fail(reterr, TD_ENOMEM, "Kafka group %s", group);
    }
    if (rc < 0) {
        td_kafka_in_free(in);
        return rc;
    }
    *ret = in;
    return TD_OK;
}

/* ---- the service's calls ---- */

void td_kafka_in_pause(struct td_kafka_in *in, struct td_lane lane)
{
    struct kafka_lane *found = find_lane(in, lane);

    if (found)
        found->paused = true;
}

void td_kafka_in_resume(struct td_kafka_in *in, struct td_lane lane)
{
    struct kafka_lane *found = find_lane(in, lane);

    if (!found || !found->paused)
        return;
    found->paused = false;
    kafka_wake_soon(in->wake); /* what lies in its queue has been announced already */
}

void td_kafka_in_hold(struct td_kafka_in *in, bool hold)
{
    if (in->held && !hold)
        kafka_wake_soon(in->wake);
    in->held = hold;
}

void td_kafka_in_hold_topic(struct td_kafka_in *in, enum td_topic_id topic, bool hold)
{
    if (in->topic_held[topic] && !hold)
        kafka_wake_soon(in->wake);
    in->topic_held[topic] = hold;
}

static void want_offset(struct kafka_lane *lane, int64_t next_offset)
{
    if (next_offset > lane->wanted && next_offset > lane->start)
        lane->wanted = next_offset; /* the pump sends it */
}

void td_kafka_in_commit(struct td_kafka_in *in, struct td_lane lane, int64_t next_offset)
{
    struct kafka_lane *found = find_lane(in, lane);

    if (found)
        want_offset(found, next_offset);
}

void td_kafka_in_commit_note(struct td_kafka_in *in, struct td_lane lane, int64_t next_offset, const char *note)
{
    struct kafka_lane *found = find_lane(in, lane);
    size_t len = strlen(note);
    char *copy;

    if (!found)
        return;
    want_offset(found, next_offset);
    if (len > TD_KAFKA_NOTE_MAX)
        note = "";
    if (strcmp(found->note ? found->note : "", note) == 0)
        return;
    copy = strdup(note);
    if (!copy)
        return; /* the one of before still goes along; the next commit tries again */
    free(found->note);
    found->note = copy;
    found->note_now++;
}

const char *td_kafka_in_note(const struct td_kafka_in *in, struct td_lane lane)
{
    const struct kafka_lane *found =
        kafka_lane_find(in->lanes, in->lane_count, in->topics[lane.topic], lane.partition);

    return found && found->note ? found->note : "";
}

bool td_kafka_in_committed(const struct td_kafka_in *in)
{
    return kafka_commits_settled(&in->commits) && !in->commits.rejected;
}

uint64_t td_kafka_in_alive_ms(const struct td_kafka_in *in)
{
    return in->commits.count > 0 ? in->commits.proof_ms : in->polled_before_ms;
}

bool td_kafka_in_assigned(const struct td_kafka_in *in)
{
    return in->state == IN_ASSIGNED;
}

double td_kafka_in_part(const struct td_kafka_in *in)
{
    size_t all = 0;

    for (enum td_topic_id id = 0; id < TD_T_COUNT; id++)
        if (in->topics[id][0])
            all += (size_t)kafka_partitions(in->settings, id);
    return in->state == IN_ASSIGNED && all > 0 ? (double)in->lane_count / (double)all : 0;
}

void td_kafka_in_stop(struct td_kafka_in *in, void (*cb)(void *user), void *user)
{
    if (!in->stop_wanted)
        in->alone = td_kafka_in_part(in) >= 1;
    in->stop_wanted = true;
    in->stopped = cb;
    in->stopped_user = user;
    kafka_wake_soon(in->wake);
}

size_t td_kafka_in_free(struct td_kafka_in *in)
{
    size_t uncommitted;

    if (!in)
        return 0;
    uncommitted = in->uncommitted;
    leave(in);
    kafka_wake_free(in->wake);
    free(in);
    return uncommitted;
}
