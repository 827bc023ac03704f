/* Envelope, recipients, batches and attachment parts. The campaign itself is in validate_campaign.c. */
#include "validate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "split.h"
#include "tandem/header.h"
#include "tandem/id.h"
#include "template_compile.h"

#define NAME_MAX_BYTES 200
#define ECHO_MAX_BYTES 64 /* of submission_id and tenant */

void needed_fields_release(struct needed_fields *needed)
{
    for (size_t i = 0; i < needed->count; i++)
        free(needed->name[i]);
    free(needed->name);
    *needed = (struct needed_fields){NULL, 0};
}

static void check_echoed(const char *value, const char *code, const char *field, struct refusals *refusals)
{
    struct td_err err;

    if (*value && td_header_value_check(value, strlen(value), ECHO_MAX_BYTES, &err) < 0)
        refuse(refusals, code, field, "%s", err.text);
}

void validate_envelope(const Submission *submission, const void *key, size_t key_len, struct refusals *refusals)
{
    size_t id_len = strlen(submission->campaign_id);

    if (!td_campaign_id_valid(submission->campaign_id))
        refuse(refusals, "campaign_id.syntax", "campaign_id",
               "A campaign id has 1 to %d of a-z 0-9 - _ and begins with a letter or digit.", TD_CAMPAIGN_ID_MAX);
    /* Another key would put this step into another partition, where it races the rest of the campaign. */
    else if (key_len > 0 && (key_len != id_len || memcmp(key, submission->campaign_id, id_len) != 0))
        refuse(refusals, "submission.key", "", "The record's key must be the campaign_id, or there must be none.");
    check_echoed(submission->submission_id, "submission.id", "submission_id", refusals);
    check_echoed(submission->tenant, "submission.tenant", "tenant", refusals);
    if (submission->body_case == TANDEM__MAIL__V1__SUBMISSION__BODY__NOT_SET)
        refuse(refusals, "submission.body", "", "The submission has no body that this version knows.");
}

static bool fault(struct recipient_fault *reterr, const char *code, const char *field, const char *sentence)
{
    reterr->code = code;
    snprintf(reterr->field, sizeof(reterr->field), "%s", field);
    snprintf(reterr->sentence, sizeof(reterr->sentence), "%s", sentence);
    return false;
}

static bool fields_unique(const Recipient *recipient, struct recipient_fault *reterr)
{
    for (size_t i = 0; i < recipient->n_fields; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(recipient->fields[i]->key, recipient->fields[k]->key) == 0)
                return fault(reterr, "field.repeated", "fields", "Two fields have the same name.");
    return true;
}

static bool check_fields(const Recipient *recipient, struct recipient_fault *reterr)
{
    size_t bytes = strlen(recipient->name);
    char field[96];

    if (recipient->n_fields > VALIDATE_FIELDS_MAX)
        return fault(reterr, "field.too_many", "fields", "A recipient has at most 100 fields.");
    for (size_t i = 0; i < recipient->n_fields; i++) {
        const FieldsEntry *entry = recipient->fields[i];
        size_t name_len = strlen(entry->key), value_len = strlen(entry->value);

        if (!template_field_name_valid(entry->key, name_len))
            return fault(reterr, "field.name", "fields", "A field's name has 1 to 64 of A-Z a-z 0-9 _ . and -.");
        snprintf(field, sizeof(field), "fields[%s]", entry->key);
        if (value_len > VALIDATE_FIELD_VALUE_MAX)
            return fault(reterr, "field.value", field, "A field's value has at most 8,192 bytes.");
        bytes += name_len + value_len;
    }
    if (bytes > VALIDATE_RECIPIENT_MAX)
        return fault(reterr, "recipient.too_large", "",
                     "Name and fields of a recipient have at most 65,536 bytes.");
    return fields_unique(recipient, reterr);
}

static bool has_field(const Recipient *recipient, const char *name)
{
    for (size_t i = 0; i < recipient->n_fields; i++)
        if (strcmp(recipient->fields[i]->key, name) == 0)
            return true;
    return false;
}

static bool check_needed(const Recipient *recipient, const struct needed_fields *needed,
                         struct recipient_fault *reterr)
{
    char field[96], sentence[160];

    for (size_t i = 0; i < needed->count; i++) {
        if (has_field(recipient, needed->name[i]))
            continue;
        snprintf(field, sizeof(field), "fields[%s]", needed->name[i]);
        snprintf(sentence, sizeof(sentence),
                 "A template uses {{%s}} without a default and the recipient has none.", needed->name[i]);
        return fault(reterr, "field.missing", field, sentence);
    }
    return true;
}

bool validate_recipient(const Recipient *recipient, const struct needed_fields *needed, char address[TD_ADDR_MAX],
                        struct recipient_fault *reterr)
{
    struct td_err err;
    char checked[TD_ADDR_MAX];

    if (td_addr_check(recipient->address, strlen(recipient->address), checked, &err) < 0)
        return fault(reterr, "address.syntax", "address", err.text);
    if (td_header_value_check(recipient->name, strlen(recipient->name), NAME_MAX_BYTES, &err) < 0)
        return fault(reterr, "name.syntax", "name", err.text);
    if (!check_fields(recipient, reterr) || !check_needed(recipient, needed, reterr))
        return false;
    memcpy(address, checked, TD_ADDR_MAX);
    return true;
}

void validate_chunk(const AttachmentChunk *chunk, const struct td_settings *settings, struct refusals *refusals)
{
    uint32_t most = split_part_count((uint64_t)settings->ingestion_max_attachment_bytes);

    if (chunk->sha256.len != 32)
        refuse(refusals, "attachment.sha256", "attachment_chunk.sha256", "A SHA-256 has 32 bytes.");
    if (chunk->part_count == 0 || chunk->part_count > most)
        refuse(refusals, "attachment.part", "attachment_chunk.part_count",
               "An attachment has 1 to %" PRIu32 " parts.", most);
    else if (chunk->part >= chunk->part_count)
        refuse(refusals, "attachment.part", "attachment_chunk.part", "Parts are numbered 0 to part_count - 1.");
    else if (chunk->content.len == 0 || chunk->content.len > SPLIT_PART_BYTES ||
             (chunk->part + 1 < chunk->part_count && chunk->content.len != SPLIT_PART_BYTES))
        refuse(refusals, "attachment.part", "attachment_chunk.content",
               "Every part has exactly %d bytes; the last has 1 to as many.", SPLIT_PART_BYTES);
}

void validate_batch(const RecipientBatch *batch, struct refusals *refusals)
{
    if (batch->n_recipients == 0 || batch->n_recipients > SPLIT_RECIPIENTS)
        refuse(refusals, "batch.size", "recipient_batch.recipients", "A batch has 1 to %d recipients.",
               SPLIT_RECIPIENTS);
    else if (batch->first_index > SPLIT_INDEX_MAX ||
             batch->first_index + batch->n_recipients - 1 > SPLIT_INDEX_MAX)
        refuse(refusals, "batch.range", "recipient_batch.first_index", "Recipients are numbered 0 to %u.",
               SPLIT_INDEX_MAX);
}
