/* How lanes come and go.
 *
 *   IDLE --assign--> ASKING --offsets known--> ASSIGNED --revoke, stop--> REVOKING --revoke_done--> FLUSHING -->
 * IDLE
 *
 * After td_kafka_in_stop: IDLE, ASKING --> LEAVING --> CLOSING --> CLOSED.
 *
 * In ASKING the group waits for our rd_kafka_assign, in REVOKING and FLUSHING for rd_kafka_assign(NULL);
 * librdkafka sends heartbeats all the while. It rejoins behind our back when it is thrown out during that time, so
 * a new assignment can arrive while the old one is still being handed back: it waits in `next`. */
#include "kafka_in_int.h"

#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/log.h"

void kafka_in_enter(struct td_kafka_in *in, enum in_state state)
{
    in->state = state;
    in->since_ms = td_mono_ms();
}

/* ---- lanes ---- */

static bool topic_of(const struct td_kafka_in *in, const char *name, enum td_topic_id *ret)
{
    for (enum td_topic_id id = 0; id < TD_T_COUNT; id++)
        if (in->topics[id][0] && strcmp(in->topics[id], name) == 0) {
            *ret = id;
            return true;
        }
    return false;
}

void kafka_group_drop_lanes(struct td_kafka_in *in)
{
    kafka_commits_end(&in->commits);
    for (size_t i = 0; i < in->lane_count; i++) {
        rd_kafka_queue_destroy(in->lanes[i].queue);
        free(in->lanes[i].note);
    }
    free(in->lanes);
    in->lanes = NULL;
    in->lane_count = 0;
}

/* What came beside a committed offset; NULL when nothing did. */
static char *note_of(const rd_kafka_topic_partition_t *part)
{
    if (part->offset < 0 || !part->metadata || part->metadata_size == 0)
        return NULL;
    return strndup(part->metadata, part->metadata_size);
}

static struct kafka_lane *make_lanes(struct td_kafka_in *in, const rd_kafka_topic_partition_list_t *list,
                                     size_t *ret_count)
{
    struct kafka_lane *lanes = calloc(list->cnt > 0 ? (size_t)list->cnt : 1, sizeof(*lanes));
    size_t count = 0;

    for (int i = 0; lanes && i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *part = &list->elems[i];
        enum td_topic_id topic;

        if (!topic_of(in, part->topic, &topic))
            continue; /* the group was subscribed to more by an older release; that member will see to it */
        lanes[count].lane = (struct td_lane){topic, part->partition};
        lanes[count].topic = in->topics[topic];
        lanes[count].start = part->offset >= 0 ? part->offset : -1;
        lanes[count].wanted = lanes[count].acked = -1;
        lanes[count].note = note_of(part);
        lanes[count].queue = rd_kafka_queue_get_partition(in->rk, part->topic, part->partition);
        rd_kafka_queue_forward(lanes[count].queue, NULL); /* out of the consumer's queue */
        kafka_wake_watch(in->wake, lanes[count].queue);
        count++;
    }
    if (lanes)
        qsort(lanes, count, sizeof(*lanes), kafka_lane_compare);
    *ret_count = count;
    return lanes;
}

/* Plain arrays of what is assigned, for the service. NULL when out of memory. */
static struct td_lane *list_lanes(const struct td_kafka_in *in, int64_t *offsets)
{
    struct td_lane *list = malloc((in->lane_count ? in->lane_count : 1) * sizeof(*list));

    for (size_t i = 0; list && i < in->lane_count; i++) {
        list[i] = in->lanes[i].lane;
        if (offsets)
            offsets[i] = in->lanes[i].start < 0 ? 0 : in->lanes[i].start;
    }
    return list;
}

/* ---- assignment ---- */

void kafka_group_forget_next(struct td_kafka_in *in)
{
    if (in->next)
        rd_kafka_topic_partition_list_destroy(in->next);
    in->next = NULL;
    in->ask_generation++;
}

static void out_of_memory(struct td_kafka_in *in)
{
    td_log(TD_ERROR, "kafka.memory", "group=%s", in->group_id);
    in->fatal = true;
}

/* The offsets are known: reading may begin. */
static void take_assignment(struct td_kafka_in *in)
{
    rd_kafka_topic_partition_list_t *list = in->next;
    struct td_lane *lanes;
    int64_t *offsets;
    rd_kafka_resp_err_t err;

    in->next = NULL;
    in->lanes = make_lanes(in, list, &in->lane_count);
    for (int i = 0; i < list->cnt; i++)
        if (list->elems[i].offset < 0)
            list->elems[i].offset = RD_KAFKA_OFFSET_BEGINNING;
    kafka_commits_begin(&in->commits, in->lanes, in->lane_count, in->joined_ms);
    err = rd_kafka_assign(in->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (err)
        td_log(TD_WARN, "kafka.assign", "group=%s code=%s", in->group_id, rd_kafka_err2name(err));
    kafka_in_enter(in, IN_ASSIGNED);
    td_metric_add(in->m_rebalances, 1);
    td_log(TD_INFO, "kafka.assigned", "group=%s lanes=%zu", in->group_id, in->lane_count);
    if (in->lane_count == 0)
        return;
    offsets = malloc(in->lane_count * sizeof(*offsets));
    lanes = offsets ? list_lanes(in, offsets) : NULL;
    if (lanes)
        in->ops.on_assigned(in->user, lanes, offsets, in->lane_count);
    else
        out_of_memory(in);
    free(lanes);
    free(offsets);
}

void kafka_group_ask_offsets(struct td_kafka_in *in)
{
    struct td_err err;

    in->asked_ms = td_mono_ms();
    in->asked = ++in->ask_generation;
    if (kafka_offsets_ask(in->rk, in->group_id, in->next, (void *)in->asked, in->answers, &err) < 0)
        in->asked = 0; /* step() tries again */
}

static void begin_assignment(struct td_kafka_in *in)
{
    kafka_in_enter(in, IN_ASKING);
    if (in->next->cnt == 0)
        take_assignment(in); /* more members than lanes */
    else
        kafka_group_ask_offsets(in);
}

/* rd_kafka_assign takes the list with its metadata and makes nothing of it. */
static void copy_committed(rd_kafka_topic_partition_t *to, const rd_kafka_topic_partition_t *from)
{
    size_t size = from->metadata ? from->metadata_size : 0;

    to->offset = from->offset;
    rd_kafka_mem_free(NULL, to->metadata);
    to->metadata = size ? rd_kafka_mem_malloc(NULL, size) : NULL;
    to->metadata_size = to->metadata ? size : 0;
    if (to->metadata)
        memcpy(to->metadata, from->metadata, size);
}

void kafka_group_answer_offsets(struct td_kafka_in *in, rd_kafka_event_t *event)
{
    struct td_err err;
    const rd_kafka_topic_partition_list_t *list;

    if ((uintptr_t)rd_kafka_event_opaque(event) != in->ask_generation || in->state != IN_ASKING)
        return; /* of an assignment that is gone */
    in->asked = 0;
    list = kafka_offsets_answer(event, &err);
    if (!list) {
        td_log(TD_INFO, "kafka.offsets", "group=%s code=%s msg=\"%s\"", in->group_id, td_code_name(err.code),
               err.text);
        return; /* step() asks again */
    }
    for (int i = 0; i < list->cnt; i++) {
        rd_kafka_topic_partition_t *part =
            rd_kafka_topic_partition_list_find(in->next, list->elems[i].topic, list->elems[i].partition);

        if (part)
            copy_committed(part, &list->elems[i]);
    }
    take_assignment(in);
}

/* ---- revocation ---- */

void kafka_group_begin_revoke(struct td_kafka_in *in, bool lost)
{
    struct td_lane *lanes;

    in->lost = lost;
    if (lost)
        in->lost_ms = td_mono_ms();
    kafka_in_enter(in, IN_REVOKING);
    td_log(lost ? TD_WARN : TD_INFO, "kafka.revoked", "group=%s lanes=%zu lost=%d", in->group_id, in->lane_count,
           lost);
    if (in->lane_count == 0) {
        kafka_in_enter(in, IN_FLUSHING);
        return;
    }
    lanes = list_lanes(in, NULL);
    if (lanes)
        in->ops.on_revoked(in->user, lanes, in->lane_count, lost);
    else
        out_of_memory(in);
    free(lanes);
}

/* ---- the end ---- */

/* A static member that closes says nothing (KIP-345), so that its lanes would wait until its session ends; one that
 * unsubscribes sends LeaveGroup. The last member says nothing: nobody waits for its lanes, and when it is back within a
 * session it has them at once, where an emptied group makes it wait for group.initial.rebalance.delay.ms, 3 s unless
 * the broker is told otherwise. */
void kafka_group_begin_leave(struct td_kafka_in *in)
{
    rd_kafka_resp_err_t err;

    if (in->alone) {
        kafka_group_begin_close(in);
        return;
    }
    kafka_in_enter(in, IN_LEAVING);
    err = rd_kafka_unsubscribe(in->rk);
    if (err)
        td_log(TD_WARN, "kafka.leave", "group=%s code=%s", in->group_id, rd_kafka_err2name(err));
}

bool kafka_group_has_left(struct td_kafka_in *in)
{
    char *id = rd_kafka_memberid(in->rk); /* librdkafka forgets it as it sends LeaveGroup */
    bool left = !id || !id[0];

    rd_kafka_mem_free(in->rk, id);
    return left;
}

void kafka_group_begin_close(struct td_kafka_in *in)
{
    rd_kafka_error_t *error;

    kafka_in_enter(in, IN_CLOSING);
    in->close_queue = rd_kafka_queue_new(in->rk);
    kafka_wake_watch(in->wake, in->close_queue);
    error = rd_kafka_consumer_close_queue(in->rk, in->close_queue); /* in the background */
    if (!error)
        return;
    td_log(TD_WARN, "kafka.close", "group=%s msg=\"%s\"", in->group_id, rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
    kafka_in_enter(in, IN_CLOSED);
}

/* All commits are in, or it took too long: give the lanes back. */
void kafka_group_end_revoke(struct td_kafka_in *in)
{
    in->uncommitted = in->lost ? 0 : kafka_commits_unsettled(&in->commits);
    if (in->uncommitted > 0)
        td_log(TD_WARN, "kafka.commit", "group=%s msg=\"lanes given back before all commits were taken\"",
               in->group_id);
    rd_kafka_assign(in->rk, NULL);
    kafka_group_drop_lanes(in);
    kafka_in_enter(in, IN_IDLE);
    if (in->next && !in->stop_wanted)
        begin_assignment(in);
}

static void on_assign(struct td_kafka_in *in, const rd_kafka_topic_partition_list_t *list)
{
    kafka_group_forget_next(in);
    in->next = rd_kafka_topic_partition_list_copy(list);
    in->joined_ms = in->polled_before_ms; /* it was not there at that poll, so the group gave it later */
    if (in->state == IN_ASSIGNED)
        kafka_group_begin_revoke(in, true); /* it never told us that the old ones are gone */
    else if (in->state == IN_IDLE || in->state == IN_ASKING)
        begin_assignment(in);
    /* REVOKING, FLUSHING: end_revoke takes it up. */
}

/* By rd_kafka_consumer_poll, on the loop. */
void kafka_group_on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t err, rd_kafka_topic_partition_list_t *list,
                              void *opaque)
{
    struct td_kafka_in *in = opaque;

    if (in->state >= IN_LEAVING) {
        rd_kafka_assign(rk, NULL);
        return;
    }
    if (err == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        on_assign(in, list);
        return;
    }
    if (err != RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS)
        td_log(TD_WARN, "kafka.rebalance", "group=%s code=%s", in->group_id, rd_kafka_err2name(err));
    kafka_group_forget_next(in);
    if (in->state == IN_ASSIGNED) {
        kafka_group_begin_revoke(in, err != RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS || rd_kafka_assignment_lost(rk));
    } else if (in->state == IN_IDLE || in->state == IN_ASKING) {
        rd_kafka_assign(rk, NULL); /* the service never heard of these */
        kafka_in_enter(in, IN_IDLE);
    }
}
