/* What a report becomes on topics: an outcome when the mail had none, a bounce or a complaint, a suppression. */
#include <stdlib.h>
#include <string.h>

#include "settle_int.h"
#include "tandem/dead_letter.h"
#include "tandem/pb.h"

static void on_delivered(void *user, int64_t offset, const struct td_err *err)
{
    struct report *r = user;

    (void)offset;
    if (err && err->code == TD_EFATAL)
        r->owner->ops.fatal(r->owner->user, err);
    r->failed = r->failed || err != NULL;
    if (--r->deliveries)
        return;
    settle_written(r, !r->failed);
}

static void written(struct report *r, int rc, const struct td_err *err)
{
    if (rc == TD_OK)
        r->deliveries++;
    else
        r->failed = true;
    if (rc == TD_EFATAL)
        r->owner->ops.fatal(r->owner->user, err);
}

/* packed: NULL when there was no memory for it; taken. */
static void record_send(struct report *r, enum td_topic_id topic, const void *key, size_t key_len, void *packed, size_t len)
{
    struct td_err err = {TD_ENOMEM, "no memory for a record"};
    int rc = TD_ENOMEM;

    if (packed)
        rc = td_kafka_out_send(r->owner->out, topic, -1, key, key_len, packed, len, NULL, 0, on_delivered, r, &err);
    written(r, rc, &err);
    free(packed);
}

static void fact_send(struct report *r, const Tandem__Mail__V1__Outcome *outcome)
{
    char key[TD_MAIL_KEY_MAX];
    size_t key_len = td_mail_key(key, r->token.campaign_id, r->token.index), len = 0;
    void *packed = td_pb_write(&outcome->base, &len);

    record_send(r, TD_T_OUTCOMES, key, key_len, packed, len);
}

static Tandem__Mail__V1__BounceClass class_of(enum bounce_class class)
{
    static const Tandem__Mail__V1__BounceClass to[] = {
        [BOUNCE_HARD] = TANDEM__MAIL__V1__BOUNCE_CLASS__BOUNCE_CLASS_HARD,
        [BOUNCE_SOFT] = TANDEM__MAIL__V1__BOUNCE_CLASS__BOUNCE_CLASS_SOFT,
        [BOUNCE_BLOCK] = TANDEM__MAIL__V1__BOUNCE_CLASS__BOUNCE_CLASS_BLOCK,
        [BOUNCE_MESSAGE] = TANDEM__MAIL__V1__BOUNCE_CLASS__BOUNCE_CLASS_MESSAGE,
        [BOUNCE_CAMPAIGN] = TANDEM__MAIL__V1__BOUNCE_CLASS__BOUNCE_CLASS_CAMPAIGN,
        [BOUNCE_UNKNOWN] = TANDEM__MAIL__V1__BOUNCE_CLASS__BOUNCE_CLASS_UNKNOWN,
    };

    return to[class];
}

static void about(Tandem__Mail__V1__Outcome *outcome, const struct report *r)
{
    outcome->campaign_id = (char *)(uintptr_t)r->token.campaign_id;
    outcome->index = r->token.index;
    outcome->at_unix_ms = r->received_ms;
    outcome->service = (char *)(uintptr_t) "bounce";
}

static ProtobufCBinaryData hash_of(const struct report *r)
{
    return r->has_hash ? (ProtobufCBinaryData){sizeof(r->hash), (uint8_t *)(uintptr_t)r->hash} : (ProtobufCBinaryData){0, NULL};
}

void *settle_outcome(const struct report *r, size_t *ret_len)
{
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;
    Tandem__Mail__V1__RecipientOutcome rcpt = TANDEM__MAIL__V1__RECIPIENT_OUTCOME__INIT;

    rcpt.result = TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_ACCEPTED;
    rcpt.relay = (char *)(uintptr_t)r->relay;
    rcpt.reason = (char *)(uintptr_t)r->evidence;
    rcpt.relay_message_id = (char *)(uintptr_t)r->relay_message_id;
    rcpt.attempts = 1; /* at least; dispatch alone knows, and has not said */
    rcpt.address_hash = hash_of(r);
    about(&outcome, r);
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT;
    outcome.recipient = &rcpt;
    return td_pb_write(&outcome.base, ret_len);
}

static void send_bounce(struct report *r)
{
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;
    Tandem__Mail__V1__BounceFact fact = TANDEM__MAIL__V1__BOUNCE_FACT__INIT;

    fact.class_ = class_of(r->verdict.class);
    fact.relay = (char *)(uintptr_t)r->relay;
    fact.enhanced_status = r->status;
    fact.reason = (char *)(uintptr_t)r->verdict.reason;
    fact.address_hash = hash_of(r);
    about(&outcome, r);
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_BOUNCE;
    outcome.bounce = &fact;
    fact_send(r, &outcome);
}

static void send_complaint(struct report *r)
{
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;
    Tandem__Mail__V1__ComplaintFact fact = TANDEM__MAIL__V1__COMPLAINT_FACT__INIT;

    fact.relay = (char *)(uintptr_t)r->relay;
    fact.feedback_type = r->feedback;
    fact.address_hash = hash_of(r);
    about(&outcome, r);
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_COMPLAINT;
    outcome.complaint = &fact;
    fact_send(r, &outcome);
}

static void send_suppression(struct report *r)
{
    Tandem__Mail__V1__Suppression suppression = TANDEM__MAIL__V1__SUPPRESSION__INIT;
    size_t len = 0;
    void *packed;

    suppression.address_hash = (ProtobufCBinaryData){sizeof(r->hash), r->hash};
    suppression.reason = r->suppress_why;
    suppression.at_unix_ms = r->received_ms;
    suppression.campaign_id = r->token.campaign_id;
    packed = td_pb_write(&suppression.base, &len);
    record_send(r, TD_T_SUPPRESSIONS, r->hash, sizeof(r->hash), packed, len);
}

/* The outcome as the ledger has it. */
static void send_outcome(struct report *r)
{
    char key[TD_MAIL_KEY_MAX];
    size_t key_len = td_mail_key(key, r->token.campaign_id, r->token.index);
    struct td_err err;

    written(r, td_kafka_out_send(r->owner->out, TD_T_OUTCOMES, -1, key, key_len, r->outcome, r->outcome_len, NULL, 0, on_delivered, r, &err),
            &err);
}

void settle_publish(struct report *r)
{
    r->failed = false;
    r->deliveries = 1; /* this function, so that the report does not end before all are sent */
    if (r->outcome)
        send_outcome(r);
    if (r->bounced)
        send_bounce(r);
    if (r->complained)
        send_complaint(r);
    if (r->suppress && r->has_hash)
        send_suppression(r);
    on_delivered(r, -1, NULL);
}

void settle_dead_letter(struct report *r)
{
    const struct td_record rec = {
        .lane = r->lane,
        .offset = r->offset,
        .key = r->raw,
        .key_len = r->key_len,
        .value = r->raw + r->key_len,
        .len = r->raw_len,
    };
    struct td_err err;

    r->failed = false;
    r->deliveries = 1; /* this function */
    written(r, td_dead_letter(r->owner->out, "bounce", &rec, r->dead_reason, on_delivered, r, &err), &err);
    on_delivered(r, -1, NULL);
}
