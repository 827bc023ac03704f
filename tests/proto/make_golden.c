/* Writes the golden records that tests/proto/check.py reads with another protobuf, and decodes what that one
 * wrote. Usage: td_make_golden DIRECTORY          one file a record td_make_golden --decode TYPE      standard
 * input -> JSON on standard output Every field is set to something that is not its default, so that a swapped or
 * lost one shows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/internal/v1/content.pb-c.h"
#include "tandem/internal/v1/feedback.pb-c.h"
#include "tandem/internal/v1/outbound.pb-c.h"
#include "tandem/internal/v1/recipients.pb-c.h"
#include "tandem/mail/v1/outcome.pb-c.h"
#include "tandem/mail/v1/submission.pb-c.h"
#include "tandem/mail/v1/suppression.pb-c.h"
#include "tandem/pb.h"

#define TEXT(literal)                                                                                             \
    ((char *)(uintptr_t)(literal)) /* protobuf-c's strings are not const; nobody writes to these */
#define BYTES(literal)                                                                                            \
    {                                                                                                             \
        sizeof(literal) - 1, (uint8_t *)(uintptr_t)(literal)                                                      \
    }
#define HASH16 BYTES("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\xff")
#define SHA256 BYTES("0123456789abcdef0123456789abcde\xff")

static const char *directory;
static int failed;

static void put(const char *name, const ProtobufCMessage *msg)
{
    char path[4096];
    size_t len = 0;
    uint8_t *bytes = td_pb_write(msg, &len);
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s.bin", directory, name);
    file = bytes ? fopen(path, "wb") : NULL;
    if (!file || fwrite(bytes, 1, len, file) != len || fclose(file) != 0) {
        fprintf(stderr, "td_make_golden: cannot write %s\n", path);
        failed = 1;
    }
    free(bytes);
}

static void put_submission(const char *name, Tandem__Mail__V1__Submission__BodyCase body, void *msg)
{
    Tandem__Mail__V1__Submission submission = TANDEM__MAIL__V1__SUBMISSION__INIT;

    submission.campaign_id = TEXT("spring-2024");
    submission.submission_id = TEXT("s-17");
    submission.tenant = TEXT("north");
    submission.body_case = body;
    submission.campaign = msg; /* the members of the oneof are pointers in one place */
    put(name, &submission.base);
}

static Tandem__Mail__V1__Mailbox from = {PROTOBUF_C_MESSAGE_INIT(&tandem__mail__v1__mailbox__descriptor),
                                         TEXT("news@example.se"), TEXT("V\xc3\xa5rnytt")};
static Tandem__Mail__V1__Mailbox reply_to = {PROTOBUF_C_MESSAGE_INIT(&tandem__mail__v1__mailbox__descriptor),
                                             TEXT("svar@example.se"), TEXT("Svar")};
static Tandem__Mail__V1__Attachment attachment = {
    PROTOBUF_C_MESSAGE_INIT(&tandem__mail__v1__attachment__descriptor),
    TEXT("\xc3\xa5rsbok.pdf"),
    TEXT("application/pdf"),
    TEXT("bok"),
    SHA256,
    5000000000,
    BYTES("%PDF\x00\xff")};
static Tandem__Mail__V1__HeaderField header = {
    PROTOBUF_C_MESSAGE_INIT(&tandem__mail__v1__header_field__descriptor), TEXT("X-Campaign"), TEXT("spring")};
static Tandem__Mail__V1__Unsubscribe unsubscribe = {
    PROTOBUF_C_MESSAGE_INIT(&tandem__mail__v1__unsubscribe__descriptor), TEXT("off@example.se"),
    TEXT("https://example.se/u/{{token}}"), 1};
static char *route[] = {TEXT("ses"), TEXT("backup")};
static char *countries[] = {TEXT("SE"), TEXT("DE")};

static void fill_campaign(Tandem__Mail__V1__Campaign *campaign)
{
    static Tandem__Mail__V1__Attachment *attachments[] = {&attachment};
    static Tandem__Mail__V1__HeaderField *headers[] = {&header};

    tandem__mail__v1__campaign__init(campaign);
    campaign->from = &from;
    campaign->reply_to = &reply_to;
    campaign->subject_template = TEXT("Hej {{name}}");
    campaign->html_template = TEXT("<p>Hej {{name}}</p>");
    campaign->text_template = TEXT("Hej {{name}}\n");
    campaign->language = TEXT("sv");
    campaign->attachments = attachments;
    campaign->n_attachments = 1;
    campaign->headers = headers;
    campaign->n_headers = 1;
    campaign->list_id = TEXT("weekly.news.example.se");
    campaign->unsubscribe = &unsubscribe;
    campaign->route = route;
    campaign->n_route = 2;
    campaign->allowed_countries = countries;
    campaign->n_allowed_countries = 2;
    campaign->on_unconfirmed = TANDEM__MAIL__V1__ON_UNCONFIRMED__ON_UNCONFIRMED_RESEND;
    campaign->bounce_ceiling_per_10000 = 300;
    campaign->max_mails_per_s = 4000000000;
    campaign->not_before_unix_ms = 1714550400000;
    campaign->deadline_unix_ms = 1714636800001;
    campaign->class_ = TANDEM__MAIL__V1__CAMPAIGN_CLASS__CAMPAIGN_CLASS_EXPRESS;
    campaign->expected_recipients = 1000000;
}

static void put_campaign(void)
{
    Tandem__Mail__V1__Campaign campaign;
    Tandem__Internal__V1__CampaignContent content = TANDEM__INTERNAL__V1__CAMPAIGN_CONTENT__INIT;
    uint32_t lanes[] = {0, 5, 300};

    fill_campaign(&campaign);
    put_submission("submission_campaign", TANDEM__MAIL__V1__SUBMISSION__BODY_CAMPAIGN, &campaign);
    content.campaign_id = TEXT("spring-2024");
    content.tenant = TEXT("north");
    content.campaign = &campaign;
    content.lanes = lanes;
    content.n_lanes = 3;
    content.sealed = 1;
    content.recipient_count = 3;
    content.state = TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_PAUSED;
    content.submitted_at_unix_ms = 1714550000000;
    content.revision = 4;
    put("campaign_content", &content.base);
}

static void put_recipients(void)
{
    Tandem__Mail__V1__Recipient__FieldsEntry city = TANDEM__MAIL__V1__RECIPIENT__FIELDS_ENTRY__INIT, name = city;
    Tandem__Mail__V1__Recipient__FieldsEntry *fields[] = {&city, &name};
    Tandem__Mail__V1__Recipient a = TANDEM__MAIL__V1__RECIPIENT__INIT, b = a, *recipients[] = {&a, &b};
    Tandem__Mail__V1__RecipientBatch batch = TANDEM__MAIL__V1__RECIPIENT_BATCH__INIT;
    Tandem__Mail__V1__SingleMail single = TANDEM__MAIL__V1__SINGLE_MAIL__INIT;
    Tandem__Mail__V1__Campaign campaign = TANDEM__MAIL__V1__CAMPAIGN__INIT;

    city.key = TEXT("city");
    city.value = TEXT("G\xc3\xb6teborg");
    name.key = TEXT("name");
    name.value = TEXT("Anna \"A\" \xf0\x9f\x8e\x89");
    a.address = TEXT("anna@example.se");
    a.name = TEXT("Anna");
    a.fields = fields;
    a.n_fields = 2;
    b.address = TEXT("bo@example.se");
    batch.first_index = 500;
    batch.recipients = recipients;
    batch.n_recipients = 2;
    put_submission("submission_recipient_batch", TANDEM__MAIL__V1__SUBMISSION__BODY_RECIPIENT_BATCH, &batch);
    campaign.from = &from;
    campaign.text_template = TEXT("Kvitto");
    single.campaign = &campaign;
    single.recipient = &a;
    put_submission("submission_single_mail", TANDEM__MAIL__V1__SUBMISSION__BODY_SINGLE_MAIL, &single);
}

static void put_small_submissions(void)
{
    Tandem__Mail__V1__AttachmentChunk chunk = TANDEM__MAIL__V1__ATTACHMENT_CHUNK__INIT;
    Tandem__Mail__V1__Seal seal = TANDEM__MAIL__V1__SEAL__INIT;
    Tandem__Mail__V1__Command command = TANDEM__MAIL__V1__COMMAND__INIT;

    chunk.sha256 = (ProtobufCBinaryData)SHA256;
    chunk.part = 1;
    chunk.part_count = 2;
    chunk.content = (ProtobufCBinaryData)BYTES("last\x00part");
    put_submission("submission_attachment_chunk", TANDEM__MAIL__V1__SUBMISSION__BODY_ATTACHMENT_CHUNK, &chunk);
    put_submission("submission_empty_seal", TANDEM__MAIL__V1__SUBMISSION__BODY_SEAL, &seal);
    seal.recipient_count = UINT32_MAX;
    put_submission("submission_seal", TANDEM__MAIL__V1__SUBMISSION__BODY_SEAL, &seal);
    command.kind = TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_SET_ROUTE;
    command.max_mails_per_s = 12;
    command.route = route;
    command.n_route = 2;
    put_submission("submission_command", TANDEM__MAIL__V1__SUBMISSION__BODY_COMMAND, &command);
}

static void put_internal(void)
{
    Tandem__Internal__V1__ContentPart part = TANDEM__INTERNAL__V1__CONTENT_PART__INIT;
    Tandem__Internal__V1__ChunkRecipient__FieldsEntry city =
        TANDEM__INTERNAL__V1__CHUNK_RECIPIENT__FIELDS_ENTRY__INIT;
    Tandem__Internal__V1__ChunkRecipient__FieldsEntry *fields[] = {&city};
    Tandem__Internal__V1__ChunkRecipient recipient = TANDEM__INTERNAL__V1__CHUNK_RECIPIENT__INIT,
                                         *all[] = {&recipient};
    Tandem__Internal__V1__RecipientChunk chunk = TANDEM__INTERNAL__V1__RECIPIENT_CHUNK__INIT;
    Tandem__Internal__V1__Feedback feedback = TANDEM__INTERNAL__V1__FEEDBACK__INIT;
    Tandem__Mail__V1__Suppression suppression = TANDEM__MAIL__V1__SUPPRESSION__INIT;

    part.sha256 = (ProtobufCBinaryData)SHA256;
    part.part = 2;
    part.part_count = 3;
    part.total_bytes = 1900000;
    part.content = (ProtobufCBinaryData)BYTES("=20\r\n");
    put("content_part", &part.base);
    city.key = TEXT("city");
    city.value = TEXT("Lund");
    recipient.index = 7;
    recipient.address = TEXT("cia@xn--mller-kva.de");
    recipient.address_hash = (ProtobufCBinaryData)HASH16;
    recipient.name = TEXT("Cia");
    recipient.fields = fields;
    recipient.n_fields = 1;
    chunk.campaign_id = TEXT("spring-2024");
    chunk.lane = 5;
    chunk.recipients = all;
    chunk.n_recipients = 1;
    put("recipient_chunk", &chunk.base);
    feedback.source = TANDEM__INTERNAL__V1__FEEDBACK_SOURCE__FEEDBACK_SOURCE_SES_EVENT;
    feedback.received_at_unix_ms = 1714550400001;
    feedback.envelope_recipient = TEXT("b+spring@bounces.example.se");
    feedback.envelope_sender = TEXT("mailer-daemon@example.org");
    feedback.raw = (ProtobufCBinaryData)BYTES("{}\xff\x00");
    feedback.truncated = 1;
    feedback.peer = TEXT("198.51.100.7");
    put("feedback", &feedback.base);
    suppression.address_hash = (ProtobufCBinaryData)HASH16;
    suppression.reason = TANDEM__MAIL__V1__SUPPRESSION_REASON__SUPPRESSION_REASON_COMPLAINT;
    suppression.at_unix_ms = 1714550400002;
    suppression.campaign_id = TEXT("spring-2024");
    put("suppression", &suppression.base);
}

static void put_outbound(void)
{
    Tandem__Internal__V1__Segment own = TANDEM__INTERNAL__V1__SEGMENT__INIT, shared = own,
                                  *segments[] = {&own, &shared};
    Tandem__Internal__V1__OutboundMessage message = TANDEM__INTERNAL__V1__OUTBOUND_MESSAGE__INIT;

    own.inline_bytes = (ProtobufCBinaryData)BYTES("To: anna@example.se\r\n");
    shared.static_offset = 70000;
    shared.static_length = 128;
    message.campaign_id = TEXT("spring-2024");
    message.index = 7;
    message.recipient = TEXT("anna@example.se");
    message.address_hash = (ProtobufCBinaryData)HASH16;
    message.message_id = TEXT("spring-2024.7@mail.example.se");
    message.static_sha256 = (ProtobufCBinaryData)SHA256;
    message.static_bytes = 70128;
    message.segments = segments;
    message.n_segments = 2;
    message.message_bytes = 149;
    message.message_sha256 = (ProtobufCBinaryData)SHA256;
    message.not_before_unix_ms = 1714550400000;
    message.deadline_unix_ms = 1714636800001;
    message.route = route;
    message.n_route = 2;
    message.allowed_countries = countries;
    message.n_allowed_countries = 2;
    message.on_unconfirmed = TANDEM__MAIL__V1__ON_UNCONFIRMED__ON_UNCONFIRMED_HOLD;
    message.class_ = TANDEM__MAIL__V1__CAMPAIGN_CLASS__CAMPAIGN_CLASS_BULK;
    message.bounce_ceiling_per_10000 = 500;
    message.max_mails_per_s = 14;
    message.attempts = 2;
    message.evidence_until_unix_ms = 1800000600000;
    message.evidence_relay = TEXT("ses");
    message.evidence_reason = TEXT("unconfirmed.reply_lost");
    put("outbound_message", &message.base);
}

static void put_outcome(const char *name, Tandem__Mail__V1__Outcome__KindCase kind, void *msg)
{
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;

    outcome.campaign_id = TEXT("spring-2024");
    outcome.index = 7;
    outcome.at_unix_ms = -1; /* before 1970: ten bytes on the wire */
    outcome.service = TEXT("dispatch");
    outcome.kind_case = kind;
    outcome.answer = msg; /* the members of the oneof are pointers in one place */
    put(name, &outcome.base);
}

static void put_outcomes(void)
{
    Tandem__Mail__V1__Refusal refusal = TANDEM__MAIL__V1__REFUSAL__INIT, *refusals[] = {&refusal};
    Tandem__Mail__V1__SubmissionAnswer answer = TANDEM__MAIL__V1__SUBMISSION_ANSWER__INIT;
    Tandem__Mail__V1__RecipientOutcome recipient = TANDEM__MAIL__V1__RECIPIENT_OUTCOME__INIT;
    Tandem__Mail__V1__BounceFact bounce = TANDEM__MAIL__V1__BOUNCE_FACT__INIT;
    Tandem__Mail__V1__RelayChange relay = TANDEM__MAIL__V1__RELAY_CHANGE__INIT;
    Tandem__Mail__V1__Settlement settlement = TANDEM__MAIL__V1__SETTLEMENT__INIT;
    Tandem__Mail__V1__ComplaintFact complaint = TANDEM__MAIL__V1__COMPLAINT_FACT__INIT;

    refusal.code = TEXT("address.syntax");
    refusal.field = TEXT("recipient_batch.recipients[3].address");
    refusal.sentence = TEXT("The domain has one label only.");
    answer.submission_id = TEXT("s-17");
    answer.accepted = 1;
    answer.body = TEXT("recipient_batch");
    answer.first_index = 500;
    answer.recipient_count = 2;
    answer.refusals = refusals;
    answer.n_refusals = 1;
    put_outcome("outcome_answer", TANDEM__MAIL__V1__OUTCOME__KIND_ANSWER, &answer);
    recipient.result = TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_REFUSED;
    recipient.relay = TEXT("ses");
    recipient.reply_code = 550;
    recipient.enhanced_status = TEXT("5.1.1");
    recipient.attempts = 2;
    recipient.phase = TEXT("rcpt");
    recipient.reason = TEXT("reply.mailbox_unknown");
    recipient.address_hash = (ProtobufCBinaryData)HASH16;
    recipient.relay_message_id = TEXT("0102018f-000000");
    put_outcome("outcome_recipient", TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT, &recipient);
    bounce.class_ = TANDEM__MAIL__V1__BOUNCE_CLASS__BOUNCE_CLASS_BLOCK;
    bounce.relay = TEXT("backup");
    bounce.enhanced_status = TEXT("5.7.1");
    bounce.reason = TEXT("bounce.policy");
    bounce.address_hash = (ProtobufCBinaryData)HASH16;
    put_outcome("outcome_bounce", TANDEM__MAIL__V1__OUTCOME__KIND_BOUNCE, &bounce);
    relay.relay = TEXT("ses");
    relay.from_state = TEXT("closed");
    relay.to_state = TEXT("open");
    relay.epoch = UINT64_MAX;
    relay.reason = TEXT("down.connect");
    relay.evidence = TEXT("8 of 8 connects");
    relay.next_change_unix_ms = 1714550460000;
    relay.campaign_id = TEXT("spring-2024");
    put_outcome("outcome_relay", TANDEM__MAIL__V1__OUTCOME__KIND_RELAY, &relay);
    settlement.result = TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_ACCEPTED;
    settlement.by = TEXT("operator");
    put_outcome("outcome_settlement", TANDEM__MAIL__V1__OUTCOME__KIND_SETTLEMENT, &settlement);
    complaint.relay = TEXT("ses");
    complaint.feedback_type = TEXT("abuse");
    complaint.address_hash = (ProtobufCBinaryData)HASH16;
    put_outcome("outcome_complaint", TANDEM__MAIL__V1__OUTCOME__KIND_COMPLAINT, &complaint);
}

static int decode(const char *type_name)
{
    const ProtobufCMessageDescriptor *type = td_pb_type(type_name);
    static uint8_t input[1 << 20];
    size_t len = fread(input, 1, sizeof(input), stdin);
    struct td_arena *arena = td_arena_new(td_pb_budget(len));
    struct td_err err = {TD_OK, "no such type"};
    ProtobufCMessage *msg = NULL;
    char *json = NULL;
    int rc = 1;

    if (type && arena && td_pb_read(type, input, len, arena, &msg, &err) == TD_OK)
        json = td_pb_to_json(msg);
    if (json && puts(json) != EOF)
        rc = 0;
    else
        fprintf(stderr, "td_make_golden: %s: %s\n", type_name, err.text);
    td_arena_free(arena);
    free(json);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--decode") == 0)
        return decode(argv[2]);
    if (argc != 2) {
        fprintf(stderr, "usage: td_make_golden DIRECTORY | td_make_golden --decode TYPE\n");
        return 64;
    }
    directory = argv[1];
    put_campaign();
    put_recipients();
    put_small_submissions();
    put_internal();
    put_outbound();
    put_outcomes();
    return failed;
}
