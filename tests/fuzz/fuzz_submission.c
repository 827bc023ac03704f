/* Any bytes as a record of mail.submissions, judged as ingestion does: what is taken holds no line end where a
 * header or an SMTP command will be made of it, the answer to what is refused can be read again, and nothing reads
 * or writes past its memory. */
#include <string.h>

#include "campaigns.h"
#include "content.h"
#include "fuzz.h"
#include "../unit/ingestion_settings.h"
#include "split.h"
#include "tandem/pb.h"
#include "validate.h"

#define NOW 1767225600000

static void one_line(const char *text)
{
    PROMISE(strpbrk(text, "\r\n") == NULL);
}

static void check_recipient(const Recipient *recipient, const struct needed_fields *needed)
{
    struct recipient_fault fault;
    char address[TD_ADDR_MAX];

    if (validate_recipient(recipient, needed, address, &fault)) {
        one_line(address);
        one_line(recipient->name);
        PROMISE(strlen(address) > 2 && strlen(address) < TD_ADDR_MAX && strchr(address, '@'));
    } else {
        PROMISE(fault.code && fault.sentence[0]);
    }
}

static void check_campaign(const Submission *submission, Campaign *campaign, const struct td_settings *settings,
                           struct td_arena *arena, struct refusals *refusals, struct needed_fields *needed)
{
    ProtobufCBinaryData *content = content_detach(campaign, arena);
    size_t before = refusals->total;
    struct campaigns *campaigns;
    CampaignContent made;
    uint8_t sha256[32];

    if (!content || content_sha256(campaign, sha256) < 0 || content_defaults(campaign, settings, NOW, arena) < 0 ||
        validate_campaign(campaign, content, settings, NOW, arena, refusals, needed) < 0 ||
        refusals->total > before)
        return;
    one_line(campaign->subject_template);
    one_line(campaign->from->name);
    one_line(campaign->from->address);
    one_line(campaign->language);
    one_line(campaign->list_id);
    for (size_t i = 0; i < campaign->n_headers; i++) {
        one_line(campaign->headers[i]->name);
        one_line(campaign->headers[i]->value);
    }
    for (size_t i = 0; i < campaign->n_attachments; i++)
        PROMISE(!strpbrk(campaign->attachments[i]->filename, "/\\\r\n") &&
                campaign->attachments[i]->sha256.len == 32);
    PROMISE(campaign->n_route > 0 && (*campaign->html_template || *campaign->text_template));
    if (content_new(&made, submission, campaign, sha256, settings, NOW, arena) < 0)
        return;
    campaigns = campaigns_new();
    PROMISE(campaigns && campaigns_note_content(campaigns, &made));
    PROMISE(campaigns_find(campaigns, submission->campaign_id)->lane_count == made.n_lanes);
    campaigns_free(campaigns);
}

static void check_batch(const RecipientBatch *batch, struct refusals *refusals)
{
    static const struct needed_fields none = {NULL, 0};
    size_t before = refusals->total;

    validate_batch(batch, refusals);
    if (refusals->total > before)
        return;
    PROMISE(batch->n_recipients <= SPLIT_RECIPIENTS &&
            batch->first_index + batch->n_recipients <= SPLIT_INDEX_MAX + 1u);
    for (size_t i = 0; i < batch->n_recipients; i++)
        check_recipient(batch->recipients[i], &none);
}

static void check_answer(const Submission *submission, const struct refusals *refusals)
{
    struct answer answer = {submission->campaign_id, submission->submission_id, "x", NOW, false, 0, 0};
    struct td_arena *arena = td_arena_new(1 << 22);
    ProtobufCMessage *message;
    size_t len;
    void *packed = refusals_answer(refusals, &answer, &len);

    PROMISE(arena && packed);
    PROMISE(td_pb_read(&tandem__mail__v1__outcome__descriptor, packed, len, arena, &message, NULL) == TD_OK);
    PROMISE(((const Outcome *)message)->answer->n_refusals == refusals->kept);
    free(packed);
    td_arena_free(arena);
}

static void check_body(const Submission *submission, struct td_arena *arena, struct refusals *refusals,
                       struct needed_fields *needed)
{
    struct td_settings settings = ingestion_settings();

    switch (submission->body_case) {
    case TANDEM__MAIL__V1__SUBMISSION__BODY_CAMPAIGN:
        check_campaign(submission, submission->campaign, &settings, arena, refusals, needed);
        break;
    case TANDEM__MAIL__V1__SUBMISSION__BODY_SINGLE_MAIL:
        if (submission->single_mail->campaign)
            check_campaign(submission, submission->single_mail->campaign, &settings, arena, refusals, needed);
        if (submission->single_mail->recipient)
            check_recipient(submission->single_mail->recipient, needed);
        break;
    case TANDEM__MAIL__V1__SUBMISSION__BODY_RECIPIENT_BATCH:
        check_batch(submission->recipient_batch, refusals);
        break;
    case TANDEM__MAIL__V1__SUBMISSION__BODY_ATTACHMENT_CHUNK:
        validate_chunk(submission->attachment_chunk, &settings, refusals);
        break;
    case TANDEM__MAIL__V1__SUBMISSION__BODY_SEAL:
    case TANDEM__MAIL__V1__SUBMISSION__BODY_COMMAND:
    case TANDEM__MAIL__V1__SUBMISSION__BODY__NOT_SET:
    case _TANDEM__MAIL__V1__SUBMISSION__BODY__CASE_IS_INT_SIZE:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct td_arena *arena = td_arena_new(16 * size + (1 << 20));
    struct needed_fields needed = {NULL, 0};
    struct refusals refusals = {.total = 0};
    ProtobufCMessage *message;

    PROMISE(arena);
    if (td_pb_read(&tandem__mail__v1__submission__descriptor, data, size, arena, &message, NULL) == TD_OK) {
        const Submission *submission = (const Submission *)message;

        validate_envelope(submission, "key", 3, &refusals);
        if (strlen(submission->campaign_id) > 0 && strlen(submission->campaign_id) <= TD_CAMPAIGN_ID_MAX)
            check_body(submission, arena, &refusals, &needed);
        check_answer(submission, &refusals);
    }
    needed_fields_release(&needed);
    td_arena_free(arena);
    return 0;
}
