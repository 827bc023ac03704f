/* The life of a chunk:
 *
 *   AWAY <-> READING                                                                 lane.c
 *     |          |
 *     `--> NEW <-'  --parsed--> OPEN --all mails MAIL_DONE--> DONE, and freed by the lane
 *           `--not a RecipientChunk--> DEAD --acknowledged--> DONE
 *
 * and of a mail:  WAITING -> SENT -> DONE        rendered, on mail.outbound; WAITING again when it was not written
 *                 WAITING -> ENDING -> DONE      INVALID, EXPIRED, CANCELLED; WAITING again when dispatch has it */
#include <stdlib.h>
#include <string.h>

#include "service.h"
#include "tandem/clock.h"
#include "tandem/dead_letter.h"
#include "tandem/id.h"
#include "tandem/ledger.h"
#include "tandem/log.h"
#include "tandem/pb.h"
#include "tandem/stages.h"

enum {
    RECIPIENTS_A_CHUNK = 500,
    MAILS_A_STEP = 16
};

/* ---- memory ---- */

void chunk_free(struct chunk *chunk)
{
    if (chunk->campaign)
        campaigns_release(chunk->r->campaigns, chunk->campaign);
    td_arena_free(chunk->arena);
    free(chunk->mails);
    free(chunk->key);
    free(chunk->raw);
    free(chunk);
}

static void chunk_check_done(struct chunk *chunk)
{
    if (chunk->state == CHUNK_OPEN && chunk->todo == 0 && chunk->under_way == 0)
        lane_chunk_done(chunk);
}

/* A callback that belonged to the chunk has come. */
static void came_back(struct chunk *chunk)
{
    chunk->under_way--;
    chunk_check_done(chunk);
    if (chunk->lane && (chunk->state == CHUNK_DONE || chunk->todo > 0))
        lane_wake(chunk->r, chunk->lane);
    else
        rendering_wake(chunk->r);
}

/* Again a second later, unless the producer is beyond help. */
static void not_written(struct chunk *chunk, const struct td_err *err)
{
    chunk->retry_at_ms = td_mono_ms() + CHUNK_RETRY_MS;
    if (err->code == TD_EFATAL)
        td_app_fail(chunk->r->app, err);
}

/* ---- dead letters ---- */

static void dead_delivered(void *user, int64_t offset, const struct td_err *err)
{
    struct chunk *chunk = user;

    (void)offset;
    chunk->dead_sent = false;
    if (err)
        not_written(chunk, err);
    else
        lane_chunk_done(chunk);
    came_back(chunk);
}

static unsigned send_dead_letter(struct chunk *chunk)
{
    const struct td_record rec = {
        .lane = chunk->lane->id,
        .offset = chunk->offset,
        .key = chunk->key,
        .key_len = chunk->key_len,
        .value = chunk->raw,
        .len = chunk->raw_len,
    };

    if (chunk->dead_sent)
        return 0;
    if (td_dead_letter(chunk->r->out, "rendering", &rec, chunk->dead_reason, dead_delivered, chunk, NULL) !=
        TD_OK) {
        chunk->retry_at_ms = td_mono_ms() + CHUNK_RETRY_MS;
        return 0;
    }
    td_metric_add(chunk->r->m_dead, 1);
    chunk->dead_sent = true;
    chunk->under_way++;
    return 1;
}

/* ---- reading ---- */

static const char *problem_of(const Tandem__Internal__V1__RecipientChunk *msg)
{
    if (!td_campaign_id_valid(msg->campaign_id))
        return "chunk.campaign_id";
    if (msg->n_recipients > RECIPIENTS_A_CHUNK)
        return "chunk.too_many_recipients";
    for (size_t i = 0; i < msg->n_recipients; i++)
        if (!*msg->recipients[i]->address ||
            (msg->recipients[i]->address_hash.len != 0 && msg->recipients[i]->address_hash.len != TD_HASH_BYTES))
            return "chunk.recipient";
    return NULL;
}

static const char *read_chunk(struct chunk *chunk)
{
    ProtobufCMessage *msg = NULL;
    const char *problem;

    if (td_pb_read(&tandem__internal__v1__recipient_chunk__descriptor, chunk->raw, chunk->raw_len, chunk->arena,
                   &msg, NULL) < 0)
        return "chunk.syntax";
    chunk->msg = (Tandem__Internal__V1__RecipientChunk *)msg;
    problem = problem_of(chunk->msg);
    return problem;
}

static bool open_chunk(struct chunk *chunk)
{
    enum td_stage before;

    chunk->arena = td_arena_new(td_pb_budget(chunk->raw_len));
    if (!chunk->arena)
        return false; /* again at the next tick */
    before = td_stage(TD_STAGE_TAKE);
    chunk->dead_reason = read_chunk(chunk);
    td_stage(before);
    if (chunk->dead_reason) {
        chunk->state = CHUNK_DEAD;
        return true;
    }
    chunk->mails = calloc(chunk->msg->n_recipients + 1, sizeof(*chunk->mails));
    chunk->campaign = chunk->mails ? campaigns_use(chunk->r->campaigns, chunk->msg->campaign_id) : NULL;
    if (!chunk->campaign) {
        td_arena_free(chunk->arena);
        chunk->arena = NULL;
        free(chunk->mails);
        chunk->mails = NULL;
        return false;
    }
    for (size_t i = 0; i < chunk->msg->n_recipients; i++)
        chunk->mails[i].chunk = chunk;
    chunk->todo = chunk->msg->n_recipients;
    chunk->state = CHUNK_OPEN;
    chunk_check_done(chunk); /* of no recipients */
    return true;
}

/* ---- ending without a mail ---- */

void chunk_ended(void *user, size_t position, bool tried)
{
    struct chunk *chunk = user;
    struct mail *mail = &chunk->mails[position];

    mail->state = MAIL_DONE;
    if (tried) {
        mail->owed_to_dispatch = true;
        mail->state = MAIL_WAITING;
        chunk->todo++;
    }
    came_back(chunk);
}

struct end_list {
    struct ending item[TD_LEDGER_BATCH];
    size_t count;
};

static void add_ending(struct end_list *list, const struct chunk *chunk, size_t position,
                       Tandem__Mail__V1__RecipientResult result, const char *reason, bool ask)
{
    const Tandem__Internal__V1__ChunkRecipient *rcpt = chunk->msg->recipients[position];

    list->item[list->count++] = (struct ending){
        rcpt->index, position, rcpt->address_hash.len ? rcpt->address_hash.data : NULL, result, reason, ask};
}

static void send_endings(struct chunk *chunk, const struct end_list *list)
{
    if (list->count == 0)
        return;
    for (size_t i = 0; i < list->count; i++)
        chunk->mails[list->item[i].position].state = MAIL_ENDING;
    chunk->todo -= list->count;
    chunk->under_way += list->count;
    if (endings_add(chunk->r->endings, chunk->msg->campaign_id, list->item, list->count, chunk) == TD_OK)
        return;
    for (size_t i = 0; i < list->count; i++)
        chunk->mails[list->item[i].position].state = MAIL_WAITING;
    chunk->todo += list->count;
    chunk->under_way -= list->count;
    chunk->retry_at_ms = td_mono_ms() + CHUNK_RETRY_MS;
}

/* All recipients that are left end for the same reason, unless dispatch must have them. */
static bool end_rest(struct chunk *chunk, Tandem__Mail__V1__RecipientResult result, const char *reason)
{
    struct end_list list = {.count = 0};

    for (size_t i = 0; i < chunk->msg->n_recipients; i++)
        if (chunk->mails[i].state == MAIL_WAITING && !chunk->mails[i].owed_to_dispatch)
            add_ending(&list, chunk, i, result, reason, true);
    send_endings(chunk, &list);
    return list.count > 0;
}

/* The campaign cannot be rendered at all, and the ledger says that dispatch has or had these: it ends them. */
static void leave_to_dispatch(struct chunk *chunk)
{
    size_t count = 0;

    for (size_t i = 0; i < chunk->msg->n_recipients; i++) {
        if (chunk->mails[i].state != MAIL_WAITING || !chunk->mails[i].owed_to_dispatch)
            continue;
        chunk->mails[i].state = MAIL_DONE;
        chunk->todo--;
        count++;
    }
    if (count > 0)
        td_log(TD_WARN, "chunk.left_to_dispatch", "campaign=%s count=%zu", chunk->msg->campaign_id, count);
    chunk_check_done(chunk);
}

/* ---- rendering ---- */

static void mail_delivered(void *user, int64_t offset, const struct td_err *err)
{
    struct mail *mail = user;
    struct chunk *chunk = mail->chunk;

    pace_reported(mail->pace, !err, offset);
    mail->state = err ? MAIL_WAITING : MAIL_DONE;
    if (err) {
        chunk->todo++;
        not_written(chunk, err);
    }
    came_back(chunk);
}

static enum td_topic_id topic_of(const Tandem__Mail__V1__Campaign *campaign)
{
    return campaign->class_ == TANDEM__MAIL__V1__CAMPAIGN_CLASS__CAMPAIGN_CLASS_EXPRESS ? TD_T_EXPRESS
                                                                                        : TD_T_OUTBOUND;
}

static int32_t partition_of(const struct chunk *chunk, enum td_topic_id topic)
{
    int64_t count = td_topics[topic].partitions ? td_topics[topic].partitions : chunk->r->settings->kafka_lanes;

    return (int32_t)(chunk->msg->lane % (uint32_t)count);
}

/* @return TD_OK; TD_EAGAIN: no room now; TD_ETOOBIG: never; other: again later */
static int send_mail(struct chunk *chunk, struct mail *mail, Tandem__Internal__V1__OutboundMessage *msg,
                     enum td_topic_id topic)
{
    struct rendering *r = chunk->r;
    char key[TD_MAIL_KEY_MAX];
    size_t key_len = td_mail_key(key, msg->campaign_id, msg->index);
    int32_t partition = partition_of(chunk, topic);
    size_t size = tandem__internal__v1__outbound_message__get_packed_size(msg);
    int rc;

    td_buf_clear(&r->packed);
    rc = td_buf_reserve(&r->packed, size);
    if (rc < 0)
        return rc;
    tandem__internal__v1__outbound_message__pack(msg, (uint8_t *)r->packed.data);
    rc = td_kafka_out_send(r->out, topic, partition, key, key_len, r->packed.data, size, NULL, 0, mail_delivered,
                           mail, NULL);
    if (rc < 0)
        return rc;
    mail->pace = &r->paces[topic == TD_T_EXPRESS][partition];
    mail->state = MAIL_SENT;
    pace_sent(mail->pace);
    chunk->todo--;
    chunk->under_way++;
    td_metric_add(r->m_mails, 1);
    td_metric_add(r->m_bytes, msg->message_bytes);
    return TD_OK;
}

static int render_one(struct chunk *chunk, size_t position, struct end_list *invalid)
{
    const Tandem__Mail__V1__Campaign *campaign = campaign_content(chunk->campaign)->campaign;
    struct rendering *r = chunk->r;
    Tandem__Internal__V1__OutboundMessage *msg = NULL;
    const char *reason = "message.too_large";
    enum td_stage before = td_stage(TD_STAGE_RENDER);
    int rc;

    td_arena_clear(r->scratch);
    rc = recipe_render(&r->recipe, campaign_program(chunk->campaign), chunk->msg->recipients[position], r->scratch,
                       &msg, &reason);
    td_stage(before);
    if (rc == TD_OK) {
        recipe_set_policy(msg, campaign);
        before = td_stage(TD_STAGE_PUBLISH);
        rc = send_mail(chunk, &chunk->mails[position], msg, topic_of(campaign));
        td_stage(before);
    }
    if (rc == TD_EINVAL || rc == TD_ETOOBIG) {
        add_ending(invalid, chunk, position, TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_INVALID, reason,
                   false);
        return TD_OK;
    }
    return rc;
}

/* Render until the step is over, the lane is full, or nothing is left. */
static unsigned render_some(struct chunk *chunk)
{
    enum td_topic_id topic = topic_of(campaign_content(chunk->campaign)->campaign);
    const struct pace *pace = &chunk->r->paces[topic == TD_T_EXPRESS][partition_of(chunk, topic)];
    const struct pace_rate *rate = &chunk->r->rates[topic == TD_T_EXPRESS];
    const struct td_settings *s = chunk->r->settings;
    struct end_list invalid = {.count = 0};
    unsigned done = 0;

    for (size_t seen = 0; seen < chunk->msg->n_recipients && done < MAILS_A_STEP; seen++) {
        size_t position = chunk->cursor;

        if (chunk->mails[position].state == MAIL_WAITING) {
            int rc = pace_allows(pace, rate, s->rendering_ahead_time_ms, s->rendering_ahead)
                         ? render_one(chunk, position, &invalid)
                         : TD_EAGAIN;

            if (rc < 0) {
                if (rc != TD_EAGAIN)
                    chunk->retry_at_ms = td_mono_ms() + CHUNK_RETRY_MS;
                break;
            }
            done++;
        }
        chunk->cursor = (chunk->cursor + 1) % chunk->msg->n_recipients;
    }
    send_endings(chunk, &invalid);
    return done;
}

/* Must the chunk wait, although its campaign is ready? It waits here, however long, where it costs an offset; its
 * mails would fill the lanes of outbound, and be old when they are sent. */
bool must_wait(const Tandem__Internal__V1__CampaignContent *content, int64_t wall_ms)
{
    return content->state == TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_PAUSED ||
           content->campaign->not_before_unix_ms > wall_ms;
}

static unsigned step_open(struct chunk *chunk)
{
    const Tandem__Internal__V1__CampaignContent *content = campaign_content(chunk->campaign);
    enum campaign_step step = campaign_step(chunk->campaign);
    int64_t wall_ms = td_wall_ms();
    bool ended = false;

    if (step == CAMPAIGN_UNKNOWN || step == CAMPAIGN_BROKEN) {
        leave_to_dispatch(chunk);
        return end_rest(chunk, TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_INVALID,
                        step == CAMPAIGN_UNKNOWN ? "campaign.unknown" : "campaign.invalid");
    }
    if (!content)
        return 0;
    if (content->state == TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_CANCELLED)
        ended =
            end_rest(chunk, TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_CANCELLED, "campaign.cancelled");
    else if (content->campaign->deadline_unix_ms > 0 && content->campaign->deadline_unix_ms <= wall_ms)
        ended = end_rest(chunk, TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_EXPIRED, "campaign.deadline");
    else if (must_wait(content, wall_ms))
        return 0;
    if (!ended && step == CAMPAIGN_LOADED)
        campaign_want(chunk->campaign); /* even of a cancelled one: what is owed to dispatch is rendered */
    if (ended || campaign_step(chunk->campaign) != CAMPAIGN_READY || !campaign_may_render(chunk->campaign, td_mono_ms()))
        return ended;
    return render_some(chunk);
}

unsigned chunk_step(struct chunk *chunk, uint64_t now_ms)
{
    if (now_ms < chunk->retry_at_ms)
        return 0;
    if (chunk->state == CHUNK_NEW)
        return open_chunk(chunk);
    if (chunk->state == CHUNK_OPEN)
        return chunk->todo > 0 ? step_open(chunk) : 0;
    return chunk->state == CHUNK_DEAD ? send_dead_letter(chunk) : 0;
}
