/* Campaign, SingleMail, Seal, Command: what changes a campaign's content. */
#include "job.h"

#include <stdio.h>
#include <string.h>

#include "content.h"
#include "split.h"
#include "tandem/clock.h"
#include "tandem/ledger.h"
#include "tandem/log.h"
#include "tandem/pb.h"
#include "validate.h"

#define YOUNG_LANE_MS                                                                                             \
    30000 /* so long after an assignment the last owner's records may still be on their way to us */
#define YOUNG_WAIT_MS 3000

/* ---- the content as it stands ---- */

static void fetched(void *user, struct td_table_value *value, const struct td_err *err)
{
    struct job *job = user;
    struct td_err late = {TD_EAGAIN, "the topic has an older revision than the one written"};
    const struct known_campaign *known;
    ProtobufCMessage *message;
    CampaignContent *content;
    struct td_arena *arena;

    known = campaigns_find(job->svc->campaigns, job->submission->campaign_id);
    if (err || !value) {
        job_came(job, err || !known ? err : &late);
        return;
    }
    arena = job->lane ? td_arena_new(td_pb_budget(value->len)) : NULL;
    if (!arena || td_pb_read(&tandem__internal__v1__campaign_content__descriptor, value->data, value->len, arena,
                             &message, NULL) < 0) {
        td_arena_free(arena);
        job_came(job, &late);
        return;
    }
    content = (CampaignContent *)message;
    if (known && content->revision < known->revision) {
        td_arena_free(arena);
        job_came(job, &late);
        return;
    }
    campaigns_note_content(job->svc->campaigns, content);
    td_arena_free(job->content_arena);
    job->content_arena = arena;
    job->content = *content;
    job->fetched = true;
    job_came(job, NULL);
}

enum phase_result phase_fetch(struct job *job)
{
    const char *id = job->submission->campaign_id;
    const struct known_campaign *known = campaigns_find(job->svc->campaigns, id);
    bool young = td_mono_ms() - job->lane->since_ms < YOUNG_LANE_MS;

    /* One that was never heard of is refused at once, unless the last owner of this lane may have heard of it. */
    if (!known && !young)
        return PHASE_NEXT;
    job_expect(job);
    if (td_kafka_table_get(job->svc->contents, id, strlen(id), YOUNG_WAIT_MS, fetched, job) < 0) {
        job->waiting--;
        return PHASE_AGAIN;
    }
    return PHASE_NEXT;
}

struct known_campaign *job_campaign(struct job *job)
{
    struct known_campaign *known = campaigns_find(job->svc->campaigns, job->submission->campaign_id);

    if (!known)
        refuse(job->refusals, "campaign.unknown", "campaign_id",
               "No campaign of this id was accepted; submit the Campaign first, under the same key.");
    return known;
}

static enum phase_result phase_publish_content(struct job *job)
{
    if (!job->publish)
        return PHASE_NEXT;
    if (job_send_message(job, TD_T_CONTENTS, -1, job->submission->campaign_id, &job->content.base) == TD_ETOOBIG) {
        refuse(job->refusals, "campaign.too_large", "campaign",
               "The campaign is larger than a Kafka record may be.");
        return PHASE_REFUSED;
    }
    return PHASE_NEXT;
}

static enum phase_result phase_note(struct job *job)
{
    struct known_campaign *known;

    if (!job->publish)
        return PHASE_NEXT;
    known = campaigns_note_content(job->svc->campaigns, &job->content);
    if (!known)
        return PHASE_AGAIN;
    if (job->campaign && !known->needed_known) {
        known->needed = job->needed;
        known->needed_known = true;
        job->needed = (struct needed_fields){NULL, 0};
    }
    return PHASE_NEXT;
}

/* ---- Campaign ---- */

static void taken_reply(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct job *job = user;
    struct known_campaign *known = campaigns_find(job->svc->campaigns, job->submission->campaign_id);

    if (!err && known && td_reply_int(reply) > 0)
        known->taken = true;
    job_came(job, err);
}

/* Has the campaign's content changed after recipients were taken? After a restart only the ledger knows of them.
 */
static enum phase_result phase_campaign_known(struct job *job)
{
    const struct known_campaign *known = campaigns_find(job->svc->campaigns, job->submission->campaign_id);
    char key[TD_CAMPAIGN_ID_MAX + 24];

    if (!job->campaign) {
        job->campaign = job->submission->body_case == TANDEM__MAIL__V1__SUBMISSION__BODY_CAMPAIGN
                            ? job->submission->campaign
                            : job->submission->single_mail->campaign;
        if (!job->campaign || (job->submission->body_case == TANDEM__MAIL__V1__SUBMISSION__BODY_SINGLE_MAIL &&
                               !job->submission->single_mail->recipient)) {
            refuse(job->refusals, "submission.body", job->body, "A part of the submission is missing.");
            return PHASE_REFUSED;
        }
        job->inline_bytes = content_detach(job->campaign, job->arena);
        if (!job->inline_bytes || content_sha256(job->campaign, job->campaign_sha256) < 0) {
            td_log(TD_ERROR, "memory", "campaign=%s", job->submission->campaign_id);
            job->campaign = NULL;
            return PHASE_AGAIN;
        }
    }
    job->publish = !known || memcmp(job->campaign_sha256, known->sha256, sizeof(known->sha256)) != 0;
    if (!known || !job->publish || known->taken)
        return PHASE_NEXT;
    snprintf(key, sizeof(key), "td:{c:%s}:totals", known->id);
    job_expect(job);
    const struct td_arg args[] = {TD_ARG_STR("HGET"), TD_ARG_STR(key), TD_ARG_STR("submitted")};
    job_asked(job, td_redis_command(job->svc->redis, args, 3, taken_reply, job));
    return PHASE_NEXT;
}

static enum phase_result phase_campaign_check(struct job *job)
{
    const struct td_settings *settings = job->svc->settings;
    const struct known_campaign *known = campaigns_find(job->svc->campaigns, job->submission->campaign_id);
    int64_t now_ms = td_wall_ms();

    if (!job->publish || job->content.base.descriptor)
        return PHASE_NEXT; /* known already, or checked when this phase ran before */
    if (known && (known->taken || known->sealed || known->cancelled)) {
        refuse(job->refusals, "campaign.changed", "campaign",
               "Recipients of this campaign were taken: its content can no longer change.");
        return PHASE_REFUSED;
    }
    needed_fields_release(&job->needed);
    if (content_defaults(job->campaign, settings, now_ms, job->arena) < 0 ||
        validate_campaign(job->campaign, job->inline_bytes, settings, now_ms, job->arena, job->refusals,
                          &job->needed) < 0) {
        *job->refusals = (struct refusals){.total = 0}; /* out of memory half-way: judged afresh next time */
        return PHASE_AGAIN;
    }
    if (job->refusals->total > 0)
        return PHASE_REFUSED;
    if (content_new(&job->content, job->submission, job->campaign, job->campaign_sha256, settings, now_ms,
                    job->arena) < 0) {
        memset(&job->content, 0, sizeof(job->content));
        return PHASE_AGAIN;
    }
    if (known)
        job->content.revision = known->revision + 1;
    return PHASE_NEXT;
}

phase_fn *const campaign_phases[] = {phase_campaign_known,
                                     phase_campaign_check,
                                     phase_parts_publish,
                                     phase_parts_note,
                                     phase_publish_content,
                                     phase_note,
                                     NULL};

/* ---- Seal ---- */

/* What phase_fetch found. It only finds nothing when the campaign is unknown. */
static struct known_campaign *fetched_campaign(struct job *job)
{
    struct known_campaign *known = job_campaign(job);

    if (known && !job->fetched) {
        refuse(job->refusals, "campaign.unknown", "campaign_id",
               "The campaign was not there when this was looked at.");
        return NULL;
    }
    return known;
}

static enum phase_result phase_seal_attachments(struct job *job)
{
    const struct known_campaign *known = fetched_campaign(job);

    if (!known)
        return PHASE_REFUSED;
    if (job_verify(job, known->attachments, known->attachment_count))
        return PHASE_NEXT;
    return job->refusals->total > 0 ? PHASE_REFUSED : PHASE_AGAIN;
}

static enum phase_result phase_seal(struct job *job)
{
    uint32_t count = job->submission->seal->recipient_count;

    if (!job->publish)
        job->publish = content_seal(&job->content, count, job->refusals);
    return job->refusals->total > 0 ? PHASE_REFUSED : PHASE_NEXT;
}

static void ledger_reply(void *user, const struct td_reply *reply, const struct td_err *err)
{
    (void)reply;
    job_came(user, err);
}

static enum phase_result phase_ledger_seal(struct job *job)
{
    uint32_t count = job->submission->body_case == TANDEM__MAIL__V1__SUBMISSION__BODY_SEAL
                         ? job->submission->seal->recipient_count
                         : 1;

    job_expect(job);
    job_asked(job, td_ledger_seal(job->svc->redis, job->submission->campaign_id, count, ledger_reply, job));
    return PHASE_NEXT;
}

phase_fn *const seal_phases[] = {
    phase_fetch, phase_seal_attachments, phase_verify_read, phase_verify_hash, phase_verify_judge,
    phase_seal,  phase_publish_content,  phase_note,        phase_ledger_seal, NULL};

/* ---- Command ---- */

static enum phase_result phase_command(struct job *job)
{
    if (!fetched_campaign(job))
        return PHASE_REFUSED;
    if (!job->publish)
        job->publish = content_command(&job->content, job->submission->command, job->svc->settings, job->refusals);
    return job->refusals->total > 0 ? PHASE_REFUSED : PHASE_NEXT;
}

phase_fn *const command_phases[] = {phase_fetch, phase_command, phase_publish_content, phase_note, NULL};

/* ---- SingleMail: campaign, seal and recipient 0 in one ---- */

/* Whole before it is accepted: there is no later Seal that could find a part missing. */
static enum phase_result phase_single_attachments(struct job *job)
{
    size_t count = job->publish ? job->campaign->n_attachments : 0;
    struct known_attachment list[VALIDATE_ATTACHMENTS_MAX];

    if (!job->publish)
        return PHASE_NEXT;
    job->content.sealed = true;
    job->content.recipient_count = 1;
    for (size_t i = 0; i < count; i++) {
        memcpy(list[i].sha256, job->campaign->attachments[i]->sha256.data, sizeof(list[i].sha256));
        list[i].size_bytes = job->campaign->attachments[i]->size_bytes;
    }
    if (job_verify(job, list, count))
        return PHASE_NEXT;
    return job->refusals->total > 0 ? PHASE_REFUSED : PHASE_AGAIN;
}

phase_fn *const single_phases[] = {
    phase_campaign_known,     phase_campaign_check, phase_parts_publish, phase_parts_note,
    phase_single_attachments, phase_verify_read,    phase_verify_hash,   phase_verify_judge,
    phase_publish_content,    phase_note,           phase_ledger_seal,   phase_batch_fetch,
    phase_batch_validate,     phase_batch_suppress, phase_batch_admit,   phase_batch_first,
    phase_batch_claim,        phase_batch_end,      phase_batch_pending, phase_batch_outcomes,
    phase_batch_published,    phase_batch_chunks,   phase_batch_count,   NULL};
