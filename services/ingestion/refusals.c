/* Refusals are kept as text at once: what they speak of may be gone when the answer is packed. */
#include "refusals.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tandem/id.h"
#include "tandem/pb.h"

void refuse(struct refusals *refusals, const char *code, const char *field, const char *fmt, ...)
{
    struct refusal *item;
    va_list ap;

    refusals->total++;
    if (refusals->kept == REFUSALS_MAX)
        return;
    item = &refusals->item[refusals->kept++];
    item->code = code;
    snprintf(item->field, sizeof(item->field), "%s", field);
    va_start(ap, fmt);
    vsnprintf(item->sentence, sizeof(item->sentence), fmt, ap);
    va_end(ap);
}

void *refusals_answer(const struct refusals *refusals, const struct answer *answer, size_t *ret_len)
{
    Refusal entry[REFUSALS_MAX], *list[REFUSALS_MAX];
    char last[REFUSAL_SENTENCE_MAX + 40];
    SubmissionAnswer body = TANDEM__MAIL__V1__SUBMISSION_ANSWER__INIT;
    Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;

    for (size_t i = 0; i < refusals->kept; i++) {
        const struct refusal *item = &refusals->item[i];

        tandem__mail__v1__refusal__init(&entry[i]);
        entry[i].code = (char *)item->code;
        entry[i].field = (char *)item->field;
        entry[i].sentence = (char *)item->sentence;
        list[i] = &entry[i];
    }
    if (refusals->total > refusals->kept) {
        snprintf(last, sizeof(last), "%s (and %zu more)", refusals->item[REFUSALS_MAX - 1].sentence,
                 refusals->total - refusals->kept);
        entry[REFUSALS_MAX - 1].sentence = last;
    }
    body.submission_id = (char *)answer->submission_id;
    body.accepted = answer->accepted;
    body.body = (char *)answer->body;
    body.first_index = answer->first_index;
    body.recipient_count = answer->recipient_count;
    body.n_refusals = refusals->kept;
    body.refusals = list;
    outcome.campaign_id = (char *)answer->campaign_id;
    outcome.at_unix_ms = answer->at_ms;
    outcome.service = (char *)"ingestion";
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_ANSWER;
    outcome.answer = &body;
    return td_pb_write(&outcome.base, ret_len);
}

void *refusals_recipient(const char *campaign_id, uint32_t index, int64_t at_ms,
                         Tandem__Mail__V1__RecipientResult result, const char *reason, const uint8_t *hash,
                         size_t *ret_len)
{
    RecipientOutcome body = TANDEM__MAIL__V1__RECIPIENT_OUTCOME__INIT;
    Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;

    body.result = result;
    body.reason = (char *)reason;
    if (hash)
        body.address_hash = (ProtobufCBinaryData){TD_HASH_BYTES, (uint8_t *)hash};
    outcome.campaign_id = (char *)campaign_id;
    outcome.index = index;
    outcome.at_unix_ms = at_ms;
    outcome.service = (char *)"ingestion";
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT;
    outcome.recipient = &body;
    return td_pb_write(&outcome.base, ret_len);
}
