/* Commits go one request at a time, with the newest offset of every lane, so two of them can never overtake each
 * other and take an offset back. A commit is also the one thing that proves membership: the coordinator takes it
 * only from a member of the current generation, and it renews that member's session. */
#include "kafka_int.h"

#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/log.h"

int kafka_lane_compare(const void *a, const void *b)
{
    const struct kafka_lane *x = a, *y = b;
    int order = strcmp(x->topic, y->topic);

    if (order != 0)
        return order;
    return (x->lane.partition > y->lane.partition) - (x->lane.partition < y->lane.partition);
}

struct kafka_lane *kafka_lane_find(struct kafka_lane *lanes, size_t count, const char *topic, int32_t partition)
{
    struct kafka_lane key = {.topic = topic, .lane = {.partition = partition}};

    return count > 0 ? bsearch(&key, lanes, count, sizeof(*lanes), kafka_lane_compare) : NULL;
}

void kafka_commits_begin(struct kafka_commits *commits, struct kafka_lane *lanes, size_t count, uint64_t proof_ms)
{
    commits->lanes = lanes;
    commits->count = count;
    commits->generation++;
    commits->sent_ms = 0;
    commits->proof_ms = proof_ms;
    commits->on_its_way = false;
    commits->rejected = false;
}

void kafka_commits_end(struct kafka_commits *commits)
{
    commits->lanes = NULL;
    commits->count = 0;
    commits->generation++;
    commits->on_its_way = false;
}

static bool has_news(const struct kafka_lane *lane)
{
    return lane->wanted > lane->acked || lane->note_now != lane->note_acked;
}

size_t kafka_commits_unsettled(const struct kafka_commits *commits)
{
    size_t count = 0;

    for (size_t i = 0; i < commits->count && !commits->rejected; i++) /* rejected: nothing will come of it */
        count += has_news(&commits->lanes[i]);
    return count;
}

bool kafka_commits_settled(const struct kafka_commits *commits)
{
    return kafka_commits_unsettled(commits) == 0;
}

/* The note goes along whenever an offset is sent: a commit without one would wipe it. */
static void add_lane(rd_kafka_topic_partition_list_t *list, struct kafka_lane *lane, int64_t offset)
{
    rd_kafka_topic_partition_t *part = rd_kafka_topic_partition_list_add(list, lane->topic, lane->lane.partition);
    char *copy = lane->note ? rd_kafka_mem_malloc(NULL, strlen(lane->note) + 1) : NULL;

    part->offset = offset;
    lane->note_sent = lane->note_now;
    if (!copy)
        return;
    part->metadata_size = strlen(lane->note);
    part->metadata = memcpy(copy, lane->note, part->metadata_size + 1); /* freed with the list */
}

/* A lane that never had an offset gets 0, which begins where none would: at the earliest. */
static int64_t committed_now(const struct kafka_lane *lane)
{
    int64_t same = lane->acked > lane->start ? lane->acked : lane->start;

    return lane->wanted > same ? lane->wanted : same < 0 ? 0 : same;
}

static void send_request(struct kafka_commits *commits, rd_kafka_topic_partition_list_t *list, uint64_t now)
{
    /* In the background: the answer arrives on the queue. */
    rd_kafka_resp_err_t err =
        rd_kafka_commit_queue(commits->rk, list, commits->queue, commits->on_answer, (void *)commits->generation);

    commits->sent_ms = now;
    commits->on_its_way = err == RD_KAFKA_RESP_ERR_NO_ERROR;
    if (err)
        td_log(TD_WARN, "kafka.commit", "code=%s", rd_kafka_err2name(err));
}

void kafka_commits_pump(struct kafka_commits *commits, uint64_t min_gap_ms, uint64_t proof_every_ms)
{
    uint64_t now = td_mono_ms();
    rd_kafka_topic_partition_list_t *list;

    if (commits->count == 0 || commits->on_its_way || commits->rejected || now - commits->sent_ms < min_gap_ms)
        return;
    list = rd_kafka_topic_partition_list_new((int)commits->count);
    for (size_t i = 0; i < commits->count; i++)
        if (has_news(&commits->lanes[i]))
            add_lane(list, &commits->lanes[i], committed_now(&commits->lanes[i]));
    if (list->cnt == 0 && now - commits->proof_ms >= proof_every_ms && now - commits->sent_ms >= proof_every_ms)
        add_lane(list, &commits->lanes[0], committed_now(&commits->lanes[0]));
    if (list->cnt > 0)
        send_request(commits, list, now);
    rd_kafka_topic_partition_list_destroy(list);
}

/* The coordinator has moved on without us; librdkafka revokes the lanes as lost by itself. */
static bool means_lost(rd_kafka_resp_err_t err)
{
    return err == RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION || err == RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID ||
           err == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID || err == RD_KAFKA_RESP_ERR__FATAL ||
           err == RD_KAFKA_RESP_ERR__FENCED || err == RD_KAFKA_RESP_ERR__ASSIGNMENT_LOST;
}

void kafka_commits_answer(struct kafka_commits *commits, rd_kafka_resp_err_t err,
                          const rd_kafka_topic_partition_list_t *list, uintptr_t generation)
{
    if (generation != commits->generation)
        return;
    commits->on_its_way = false;
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
        commits->proof_ms = commits->sent_ms;
    for (int i = 0; list && i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *part = &list->elems[i];
        struct kafka_lane *lane = kafka_lane_find(commits->lanes, commits->count, part->topic, part->partition);

        if (means_lost(part->err))
            commits->rejected = true;
        if (!lane || err != RD_KAFKA_RESP_ERR_NO_ERROR || part->err != RD_KAFKA_RESP_ERR_NO_ERROR)
            continue;
        lane->note_acked = lane->note_sent;
        if (part->offset > lane->acked)
            lane->acked = part->offset;
    }
    if (means_lost(err))
        commits->rejected = true;
    /* What else failed (coordinator moving, a timeout, a rebalance under way) is still wanted and goes again. */
    if (err)
        td_log(commits->rejected ? TD_WARN : TD_INFO, "kafka.commit", "code=%s lost=%d", rd_kafka_err2name(err),
               commits->rejected);
}
