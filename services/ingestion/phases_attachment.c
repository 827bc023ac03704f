/* Attachments: parts on mail.contents under "part/<sha256>/<n>", trusted only once all of them together were read
 * back and have that SHA-256. A part is written before that, so somebody who knows the name of a file still on its
 * way can spoil it; the check then says so, the parts are taken away, and nothing is ever sent with other bytes
 * than its name says. Parts that passed are never written again with other bytes. */
#include "job.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/sha.h>

#include "split.h"
#include "tandem/log.h"
#include "tandem/pb.h"
#include "validate.h"

#define GET_TIMEOUT_MS 3000

struct verify {
    struct known_attachment item[VALIDATE_ATTACHMENTS_MAX];
    size_t count, at;
    /* of item[at] */
    uint32_t part_count;
    bool gone; /* a part is not on the topic any more */
    struct verify_get {
        struct job *job;
        struct td_table_value *value; /* packed ContentPart, a reference of ours */
    } part[CAMPAIGNS_PARTS_MAX];
    /* the verdict, when it is against it */
    const char *code, *sentence;
    bool spoilt; /* the parts are not what their name says: take them away */
};

static void parts_drop(struct verify *verify)
{
    for (size_t i = 0; i < CAMPAIGNS_PARTS_MAX; i++) {
        if (verify->part[i].value)
            td_table_value_unref(verify->part[i].value);
        verify->part[i].value = NULL;
    }
}

void verify_release(struct verify *verify)
{
    if (!verify)
        return;
    parts_drop(verify);
    free(verify);
}

bool job_verify(struct job *job, const struct known_attachment *attachments, size_t count)
{
    char field[64];

    if (!job->verify)
        job->verify = calloc(1, sizeof(*job->verify));
    if (!job->verify)
        return false;
    job->verify->count = job->verify->at = 0;
    for (size_t i = 0; i < count && i < VALIDATE_ATTACHMENTS_MAX; i++) {
        const struct known_parts *parts = campaigns_parts(job->svc->campaigns, attachments[i].sha256);

        if (!parts || parts->seen < parts->part_count) {
            snprintf(field, sizeof(field), "campaign.attachments[%zu]", i);
            refuse(job->refusals, "attachment.missing", field,
                   "%" PRIu32 " of its %" PRIu32 " parts were handed in.", parts ? parts->seen : 0,
                   parts ? parts->part_count : split_part_count(attachments[i].size_bytes));
        } else {
            /* One that was verified before is looked at only for its size, which is each campaign's own claim. */
            job->verify->item[job->verify->count++] = attachments[i];
        }
    }
    return job->refusals->total == 0;
}

static void part_read(void *user, struct td_table_value *value, const struct td_err *err)
{
    struct verify_get *get = user;

    if (value)
        get->value = td_table_value_ref(value);
    else if (!err)
        get->job->verify->gone = true;
    job_came(get->job, err);
}

enum phase_result phase_verify_read(struct job *job)
{
    struct verify *verify = job->verify;
    const struct known_parts *parts;
    char key[SPLIT_PART_KEY_MAX];

    if (!verify || verify->at == verify->count)
        return PHASE_NEXT;
    parts_drop(verify);
    verify->gone = false;
    parts = campaigns_parts(job->svc->campaigns, verify->item[verify->at].sha256);
    verify->part_count = parts ? parts->part_count : 0;
    verify->gone = !parts;
    for (uint32_t i = 0; i < verify->part_count; i++) {
        size_t key_len = split_part_key(key, verify->item[verify->at].sha256, i);

        verify->part[i].job = job;
        job_expect(job);
        if (td_kafka_table_get(job->svc->contents, key, key_len, GET_TIMEOUT_MS, part_read, &verify->part[i]) <
            0) {
            job->waiting--;
            job->failed = true;
        }
    }
    return PHASE_NEXT;
}

/* One part as it is on the topic. The arena holds it until the next clear. */
static const ContentPart *part_open(const struct td_table_value *value, struct td_arena *arena)
{
    ProtobufCMessage *message;

    td_arena_clear(arena);
    if (td_pb_read(&tandem__internal__v1__content_part__descriptor, value->data, value->len, arena, &message,
                   NULL) < 0)
        return NULL;
    return (const ContentPart *)message;
}

static bool hash_parts(struct verify *verify, struct td_arena *arena, uint8_t out[32], uint64_t *ret_bytes)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;

    *ret_bytes = 0;
    for (uint32_t i = 0; ok && i < verify->part_count; i++) {
        const ContentPart *part = part_open(verify->part[i].value, arena);

        ok = part && EVP_DigestUpdate(ctx, part->content.data, part->content.len) == 1;
        if (ok)
            *ret_bytes += part->content.len;
    }
    ok = ok && EVP_DigestFinal_ex(ctx, out, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

/* Parts that came before their campaign were written without the size of the whole: now it is known. */
static void write_totals(struct job *job, const struct known_parts *parts, struct td_arena *arena, uint64_t bytes)
{
    char key[SPLIT_PART_KEY_MAX];

    for (uint32_t i = 0; i < job->verify->part_count; i++) {
        const ContentPart *part = part_open(job->verify->part[i].value, arena);
        ContentPart whole;

        if (!part)
            continue;
        whole = *part;
        whole.total_bytes = bytes;
        split_part_key(key, parts->sha256, i);
        job_send_message(job, TD_T_CONTENTS, -1, key, &whole.base);
    }
}

/* Not what their name says: the next reader must not find them. */
static void write_tombstones(struct job *job, const uint8_t sha256[32])
{
    char key[SPLIT_PART_KEY_MAX];

    for (uint32_t i = 0; i < job->verify->part_count; i++) {
        split_part_key(key, sha256, i);
        job_send(job, TD_T_CONTENTS, -1, key, NULL, 0);
    }
}

static void verdict(struct verify *verify, const char *code, bool spoilt, const char *sentence)
{
    verify->code = code;
    verify->sentence = sentence;
    verify->spoilt = spoilt;
}

static enum phase_result judge_item(struct job *job, struct td_arena *arena)
{
    struct verify *verify = job->verify;
    const struct known_attachment *item = &verify->item[verify->at];
    struct known_parts *parts = campaigns_parts(job->svc->campaigns, item->sha256);
    uint8_t sha256[32];
    uint64_t bytes = 0;

    if (verify->gone || !parts || parts->part_count != verify->part_count) {
        campaigns_forget_parts(job->svc->campaigns, item->sha256);
        verdict(verify, "attachment.missing", false, "Parts of the attachment are gone: hand them in again.");
        return PHASE_NEXT;
    }
    if (!hash_parts(verify, arena, sha256, &bytes))
        return PHASE_AGAIN;
    if (memcmp(sha256, item->sha256, sizeof(sha256)) != 0) {
        verdict(verify, "attachment.sha256", true,
                "The parts together have another SHA-256: hand them all in again.");
        write_tombstones(job, item->sha256);
        return PHASE_NEXT;
    }
    if (item->size_bytes != 0 && item->size_bytes != bytes) {
        verdict(verify, "attachment.size", false, "The campaign gives another size than the parts have.");
        return PHASE_NEXT;
    }
    parts->verified = true;
    if (parts->total_wrong)
        write_totals(job, parts, arena, bytes);
    return PHASE_NEXT;
}

enum phase_result phase_verify_hash(struct job *job)
{
    struct verify *verify = job->verify;
    size_t most = 65536;
    struct td_arena *arena;
    enum phase_result result;

    if (!verify || verify->at == verify->count)
        return PHASE_NEXT;
    for (uint32_t i = 0; i < verify->part_count; i++)
        if (verify->part[i].value && verify->part[i].value->len > most)
            most = verify->part[i].value->len;
    arena = td_arena_new(2 * most + 65536);
    if (!arena)
        return PHASE_AGAIN;
    result = judge_item(job, arena);
    td_arena_free(arena);
    return result;
}

/* What is wrong with this attachment, or on to the next. */
enum phase_result phase_verify_judge(struct job *job)
{
    struct verify *verify = job->verify;
    struct known_parts *parts;

    if (!verify || verify->at == verify->count)
        return PHASE_NEXT;
    if (verify->code) {
        if (verify->spoilt)
            campaigns_forget_parts(job->svc->campaigns, verify->item[verify->at].sha256);
        refuse(job->refusals, verify->code, "attachment", "%s", verify->sentence);
        return PHASE_REFUSED;
    }
    parts = campaigns_parts(job->svc->campaigns, verify->item[verify->at].sha256);
    if (parts)
        parts->total_wrong = false;
    parts_drop(verify);
    verify->at++;
    return verify->at == verify->count ? PHASE_NEXT : PHASE_BACK;
}

/* ---- attachments that came with the campaign ---- */

static ContentPart part_of(const uint8_t *sha256, const ProtobufCBinaryData *whole, uint32_t i)
{
    ContentPart part = TANDEM__INTERNAL__V1__CONTENT_PART__INIT;

    part.sha256 = (ProtobufCBinaryData){32, (uint8_t *)sha256};
    part.part = i;
    part.part_count = split_part_count(whole->len);
    part.total_bytes = whole->len;
    part.content =
        (ProtobufCBinaryData){split_part_bytes(whole->len, i), whole->data + (size_t)i * SPLIT_PART_BYTES};
    return part;
}

enum phase_result phase_parts_publish(struct job *job)
{
    char key[SPLIT_PART_KEY_MAX];

    for (size_t i = 0; job->publish && i < job->campaign->n_attachments; i++) {
        const ProtobufCBinaryData *whole = &job->inline_bytes[i];
        const uint8_t *sha256 = job->campaign->attachments[i]->sha256.data;

        for (uint32_t k = 0; whole->len > 0 && k < split_part_count(whole->len); k++) {
            ContentPart part = part_of(sha256, whole, k);

            split_part_key(key, sha256, k);
            if (job_send_message(job, TD_T_CONTENTS, -1, key, &part.base) == TD_ETOOBIG) {
                td_log(TD_ERROR, "content.too_large",
                       "campaign=%s msg=\"a part of 900,000 bytes is larger than a record may be\"",
                       job->submission->campaign_id);
                job->failed = true;
            }
        }
    }
    return PHASE_NEXT;
}

enum phase_result phase_parts_note(struct job *job)
{
    for (size_t i = 0; job->publish && i < job->campaign->n_attachments; i++) {
        const ProtobufCBinaryData *whole = &job->inline_bytes[i];

        for (uint32_t k = 0; whole->len > 0 && k < split_part_count(whole->len); k++) {
            ContentPart part = part_of(job->campaign->attachments[i]->sha256.data, whole, k);

            if (campaigns_note_part(job->svc->campaigns, &part) == TD_ENOMEM)
                return PHASE_AGAIN;
        }
    }
    return PHASE_NEXT;
}

/* ---- AttachmentChunk ---- */

static ContentPart chunk_part(const struct job *job)
{
    const AttachmentChunk *chunk = job->submission->attachment_chunk;
    const struct known_campaign *known = campaigns_find(job->svc->campaigns, job->submission->campaign_id);
    ContentPart part = TANDEM__INTERNAL__V1__CONTENT_PART__INIT;

    part.sha256 = chunk->sha256;
    part.part = chunk->part;
    part.part_count = chunk->part_count;
    part.content = chunk->content;
    part.total_bytes = campaign_attachment_bytes(known, chunk->sha256.data);
    if (chunk->part + 1 == chunk->part_count)
        part.total_bytes = (uint64_t)chunk->part * SPLIT_PART_BYTES + chunk->content.len;
    return part;
}

/* Verified parts stay as they are: the same bytes again are fine, others are refused. */
static enum phase_result phase_chunk_check(struct job *job)
{
    const AttachmentChunk *chunk = job->submission->attachment_chunk;
    const struct known_parts *parts;
    uint8_t digest[32];

    validate_chunk(chunk, job->svc->settings, job->refusals);
    if (job->refusals->total > 0)
        return PHASE_REFUSED;
    job->publish = true;
    parts = campaigns_parts(job->svc->campaigns, chunk->sha256.data);
    if (!parts || !parts->verified)
        return PHASE_NEXT;
    SHA256(chunk->content.data, chunk->content.len, digest);
    if (chunk->part_count != parts->part_count ||
        memcmp(digest, parts->digest[chunk->part], sizeof(digest)) != 0) {
        refuse(job->refusals, "attachment.sha256", "attachment_chunk.content",
               "The attachment of this SHA-256 is here already, with other bytes in this part.");
        return PHASE_REFUSED;
    }
    job->publish = false;
    return PHASE_NEXT;
}

static enum phase_result phase_chunk_publish(struct job *job)
{
    ContentPart part = chunk_part(job);
    char key[SPLIT_PART_KEY_MAX];

    if (!job->publish)
        return PHASE_NEXT;
    split_part_key(key, part.sha256.data, part.part);
    if (job_send_message(job, TD_T_CONTENTS, -1, key, &part.base) == TD_ETOOBIG) {
        refuse(job->refusals, "attachment.part", "attachment_chunk.content",
               "The part is larger than a Kafka record may be here.");
        return PHASE_REFUSED;
    }
    return PHASE_NEXT;
}

static enum phase_result phase_chunk_note(struct job *job)
{
    ContentPart part = chunk_part(job);
    const struct known_parts *parts;
    struct known_attachment whole = {{0}, 0};

    if (!job->publish)
        return PHASE_NEXT;
    if (campaigns_note_part(job->svc->campaigns, &part) == TD_ENOMEM)
        return PHASE_AGAIN;
    parts = campaigns_parts(job->svc->campaigns, part.sha256.data);
    if (!parts || parts->verified || parts->seen < parts->part_count)
        return PHASE_NEXT;
    memcpy(whole.sha256, part.sha256.data, sizeof(whole.sha256));
    return job_verify(job, &whole, 1) ? PHASE_NEXT : PHASE_AGAIN;
}

phase_fn *const chunk_phases[] = {phase_chunk_check,
                                  phase_chunk_publish,
                                  phase_chunk_note,
                                  phase_verify_read,
                                  phase_verify_hash,
                                  phase_verify_judge,
                                  NULL};
