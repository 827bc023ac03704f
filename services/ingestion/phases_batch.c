/* Recipients: judge each, count them in, end those that cannot or must not be written to, hand the others on.
 *
 * A recipient that ends here follows the ledger's order: end (which keeps a copy of the outcome), then
 * mail.outcomes, then the copy is dropped. What goes to mail.outcomes is the copy that the ledger holds, so a
 * batch that comes again with other recipients under the same numbers cannot give one number two outcomes.
 *
 * A suppressed one is claimed first: when the batch comes a second time (after a crash) a mail that was let
 * through the first time may be on its way, and then its end is dispatch's to tell. Such a recipient is handed on
 * like the others. */
#include "job.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "split.h"
#include "tandem/clock.h"
#include "tandem/ledger.h"
#include "tandem/log.h"
#include "tandem/metrics.h"
#include "tandem/pb.h"
#include "validate.h"

_Static_assert(SPLIT_RECIPIENTS <= TD_LEDGER_BATCH, "a batch is one call to the ledger");
_Static_assert(SPLIT_INDEX_MAX <= TD_LEDGER_INDEX_MAX, "every number has a place in the ledger");

enum item_state {
    ITEM_GOOD = 0,   /* goes to mail.recipients */
    ITEM_INVALID,    /* ends here */
    ITEM_SUPPRESSED, /* on the list; not yet claimed */
    ITEM_CLAIMED,    /* suppressed and ours to end */
    ITEM_ENDED       /* had its end before, or is not ours to end */
};

struct item {
    struct job *job; /* for callbacks about this one */
    enum item_state state;
    const char *address; /* checked; NULL when invalid */
    const char *reason;
    void *outcome; /* packed, to be published; NULL: mail.outcomes has it */
    size_t outcome_len;
};

struct batch {
    uint32_t first;
    size_t count;
    Recipient **recipients;
    struct item item[SPLIT_RECIPIENTS];
    uint8_t hash[SPLIT_RECIPIENTS][TD_HASH_BYTES]; /* by item; zeros when it has no address */
    /* of the call under way: which items it is about */
    size_t some[SPLIT_RECIPIENTS], some_count;
    uint32_t index[SPLIT_RECIPIENTS];
    uint8_t some_hash[SPLIT_RECIPIENTS][TD_HASH_BYTES];
};

/* The items in the states of a mask, as arguments of the next call. */
static size_t choose(struct batch *batch, unsigned states, bool only_unpublished)
{
    batch->some_count = 0;
    for (size_t i = 0; i < batch->count; i++) {
        if (!(states & (1u << batch->item[i].state)) || (only_unpublished && !batch->item[i].outcome))
            continue;
        batch->index[batch->some_count] = batch->first + (uint32_t)i;
        memcpy(batch->some_hash[batch->some_count], batch->hash[i], TD_HASH_BYTES);
        batch->some[batch->some_count++] = i;
    }
    return batch->some_count;
}

#define ENDING ((1u << ITEM_INVALID) | (1u << ITEM_CLAIMED))
#define ALL_STATES (~0u)

/* ---- judge ---- */

enum phase_result phase_batch_fetch(struct job *job)
{
    const struct known_campaign *known = campaigns_find(job->svc->campaigns, job->submission->campaign_id);

    return known && known->needed_known ? PHASE_NEXT : phase_fetch(job);
}

static bool batch_allowed(struct job *job, const struct known_campaign *known)
{
    const RecipientBatch *batch = job->submission->recipient_batch;

    if (known->cancelled) {
        refuse(job->refusals, "campaign.cancelled", "campaign_id", "The campaign was cancelled; that is final.");
        return false;
    }
    if (job->submission->body_case != TANDEM__MAIL__V1__SUBMISSION__BODY_RECIPIENT_BATCH)
        return true;
    validate_batch(batch, job->refusals);
    if (job->refusals->total > 0)
        return false;
    if (known->sealed && batch->first_index + batch->n_recipients > known->recipient_count)
        refuse(job->refusals, "batch.beyond_seal", "recipient_batch.first_index",
               "The campaign was sealed with %" PRIu32 " recipients.", known->recipient_count);
    return job->refusals->total == 0;
}

static struct batch *batch_open(struct job *job)
{
    const Submission *submission = job->submission;
    struct batch *batch = td_arena_zalloc(job->arena, sizeof(*batch));

    if (!batch)
        return NULL;
    if (submission->body_case == TANDEM__MAIL__V1__SUBMISSION__BODY_RECIPIENT_BATCH) {
        batch->first = submission->recipient_batch->first_index;
        batch->count = submission->recipient_batch->n_recipients;
        batch->recipients = submission->recipient_batch->recipients;
    } else {
        batch->count = 1;
        batch->recipients = &submission->single_mail->recipient;
    }
    return batch;
}

static int judge(struct job *job, struct batch *batch, size_t i, const struct needed_fields *needed)
{
    const struct td_settings *settings = job->svc->settings;
    struct item *item = &batch->item[i];
    struct recipient_fault fault;
    char address[TD_ADDR_MAX], field[REFUSAL_FIELD_MAX];

    item->job = job;
    if (validate_recipient(batch->recipients[i], needed, address, &fault)) {
        td_address_hash(settings->keys_address, strlen(settings->keys_address), address, batch->hash[i]);
        item->address = td_arena_strdup(job->arena, address);
        return item->address ? TD_OK : TD_ENOMEM;
    }
    item->state = ITEM_INVALID;
    item->reason = fault.code;
    if (job->submission->body_case == TANDEM__MAIL__V1__SUBMISSION__BODY_RECIPIENT_BATCH)
        snprintf(field, sizeof(field), "recipient_batch.recipients[%zu]%s%s", i, *fault.field ? "." : "",
                 fault.field);
    else
        snprintf(field, sizeof(field), "single_mail.recipient%s%s", *fault.field ? "." : "", fault.field);
    refuse(job->refusals, fault.code, field, "%s", fault.sentence);
    return TD_OK;
}

enum phase_result phase_batch_validate(struct job *job)
{
    struct known_campaign *known = job_campaign(job);
    struct batch *batch;

    if (!known || !batch_allowed(job, known))
        return PHASE_REFUSED;
    if (!known->needed_known && job->fetched) {
        if (validate_needed(job->content.campaign, &known->needed) < 0)
            return PHASE_AGAIN;
        known->needed_known = true;
    }
    batch = batch_open(job);
    if (!batch)
        return PHASE_AGAIN;
    known->taken = true;
    for (size_t i = 0; i < batch->count; i++)
        if (judge(job, batch, i, &known->needed) < 0) {
            *job->refusals = (struct refusals){.total = 0};
            return PHASE_AGAIN;
        }
    job->batch = batch;
    return PHASE_NEXT;
}

/* ---- who must not be written to ---- */

static void suppress_reply(void *user, const uint8_t *suppressed, size_t count, const struct td_err *err)
{
    struct job *job = user;
    struct batch *batch = job->batch;

    for (size_t i = 0; !err && i < count; i++)
        if (suppressed[i]) {
            batch->item[batch->some[i]].state = ITEM_SUPPRESSED;
            batch->item[batch->some[i]].reason = "suppressed";
        }
    job_came(job, err);
}

enum phase_result phase_batch_suppress(struct job *job)
{
    struct batch *batch = job->batch;

    if (choose(batch, 1u << ITEM_GOOD, false) == 0)
        return PHASE_NEXT;
    job_expect(job);
    job_asked(job, td_suppression_check(job->svc->redis, (const uint8_t(*)[TD_HASH_BYTES])batch->some_hash,
                                        batch->some_count, suppress_reply, job));
    return PHASE_NEXT;
}

static void plain_reply(void *user, const struct td_reply *reply, const struct td_err *err)
{
    (void)reply;
    job_came(user, err);
}

/* All numbers count as submitted, also those that end at once. */
enum phase_result phase_batch_admit(struct job *job)
{
    struct batch *batch = job->batch;

    choose(batch, ALL_STATES, false);
    job_expect(job);
    job_asked(job, td_ledger_admit(job->svc->redis, job->submission->campaign_id, batch->index,
                                   (const uint8_t(*)[TD_HASH_BYTES])batch->some_hash, batch->some_count,
                                   plain_reply, job));
    return PHASE_NEXT;
}

/* ---- ends ---- */

static void first_reply(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct item *item = user;
    const struct batch *batch = item->job->batch;
    size_t len = 0;
    const char *first = err ? "" : td_reply_str(reply, &len);

    if (len == TD_HASH_BYTES && memcmp(first, batch->hash[item - batch->item], TD_HASH_BYTES) != 0)
        item->state = ITEM_ENDED;
    job_came(item->job, err);
}

/* A number means whom it meant first. If the ledger holds another address for one that would end here, an earlier
 * batch gave the number to somebody else, whose mail goes on: this batch has no effect on it. */
enum phase_result phase_batch_first(struct job *job)
{
    struct batch *batch = job->batch;
    char key[TD_CAMPAIGN_ID_MAX + 24], from[16], to[16];

    choose(batch, (1u << ITEM_INVALID) | (1u << ITEM_SUPPRESSED), false);
    snprintf(key, sizeof(key), "td:{c:%s}:addr", job->submission->campaign_id);
    for (size_t i = 0; i < batch->some_count; i++) {
        uint32_t at = batch->index[i] * TD_HASH_BYTES;

        snprintf(from, sizeof(from), "%" PRIu32, at);
        snprintf(to, sizeof(to), "%" PRIu32, at + TD_HASH_BYTES - 1);
        const struct td_arg args[] = {TD_ARG_STR("GETRANGE"), TD_ARG_STR(key), TD_ARG_STR(from), TD_ARG_STR(to)};
        job_expect(job);
        job_asked(job, td_redis_command(job->svc->redis, args, 4, first_reply, &batch->item[batch->some[i]]));
    }
    return PHASE_NEXT;
}

static void keep_outcome(struct job *job, struct item *item, const void *outcome, size_t len)
{
    item->outcome = td_arena_memdup(job->arena, outcome, len);
    item->outcome_len = len;
    if (!item->outcome)
        job->failed = true;
}

static void claim_reply(void *user, const struct td_begun *begun, size_t count, const struct td_err *err)
{
    struct job *job = user;
    struct batch *batch = job->batch;

    for (size_t i = 0; !err && i < count; i++) {
        struct item *item = &batch->item[batch->some[i]];

        switch (begun[i].verdict) {
        case TD_GO:
            item->state = ITEM_CLAIMED;
            break;
        case TD_DONE:
            item->state = ITEM_ENDED;
            if (begun[i].outcome)
                keep_outcome(job, item, begun[i].outcome, begun[i].outcome_len);
            break;
        case TD_TRIED:
        case TD_PROVEN: /* dispatch has it */
            item->state = ITEM_GOOD;
            break;
        }
    }
    job_came(job, err);
}

enum phase_result phase_batch_claim(struct job *job)
{
    struct batch *batch = job->batch;
    char token[65];

    if (choose(batch, 1u << ITEM_SUPPRESSED, false) == 0)
        return PHASE_NEXT;
    job_expect(job);
    /* Asked again after a lost answer it must answer the same: see td_ledger_begin_as. */
    snprintf(token, sizeof(token), "ingestion:%d:%" PRIu64 ":%" PRIu32 ":%" PRId64, (int)getpid(), job->begun_us,
             (uint32_t)job->lane->id.partition, job->offset);
    job_asked(job, td_ledger_begin_as(job->svc->redis, job->submission->campaign_id, token, batch->index,
                                      batch->some_count, claim_reply, job));
    return PHASE_NEXT;
}

static int pack_outcome(struct job *job, size_t i)
{
    struct batch *batch = job->batch;
    struct item *item = &batch->item[i];
    size_t len;
    void *packed = refusals_recipient(job->submission->campaign_id, batch->first + (uint32_t)i, td_wall_ms(),
                                      item->state == ITEM_INVALID
                                          ? TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_INVALID
                                          : TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_SUPPRESSED,
                                      item->reason, item->address ? batch->hash[i] : NULL, &len);

    if (!packed)
        return TD_ENOMEM;
    keep_outcome(job, item, packed, len);
    free(packed);
    return item->outcome ? TD_OK : TD_ENOMEM;
}

enum phase_result phase_batch_end(struct job *job)
{
    struct batch *batch = job->batch;
    struct td_ended ended[SPLIT_RECIPIENTS];

    if (choose(batch, ENDING, false) == 0)
        return PHASE_NEXT;
    for (size_t i = 0; i < batch->some_count; i++) {
        struct item *item = &batch->item[batch->some[i]];

        if (!item->outcome && pack_outcome(job, batch->some[i]) < 0)
            return PHASE_AGAIN;
        ended[i] = (struct td_ended){batch->index[i], item->state == ITEM_INVALID ? "invalid" : "suppressed", "",
                                     item->outcome, item->outcome_len};
    }
    job_expect(job);
    job_asked(job, td_ledger_end(job->svc->redis, job->submission->campaign_id, ended, batch->some_count,
                                 plain_reply, job));
    return PHASE_NEXT;
}

/* A number that had its end before keeps the outcome it had: that one is published, or none. An answer other than
 * DONE means that Redis lost it just now; then ours is published. */
static void pending_reply(void *user, const struct td_begun *begun, size_t count, const struct td_err *err)
{
    struct job *job = user;
    struct batch *batch = job->batch;

    for (size_t i = 0; !err && i < count; i++) {
        struct item *item = &batch->item[batch->some[i]];

        if (begun[i].verdict != TD_DONE)
            continue;
        item->state = ITEM_ENDED;
        item->outcome = NULL;
        if (begun[i].outcome)
            keep_outcome(job, item, begun[i].outcome, begun[i].outcome_len);
    }
    job_came(job, err);
}

enum phase_result phase_batch_pending(struct job *job)
{
    struct batch *batch = job->batch;

    if (choose(batch, ENDING, false) == 0)
        return PHASE_NEXT;
    job_expect(job);
    job_asked(job, td_ledger_begin(job->svc->redis, job->submission->campaign_id, batch->index, batch->some_count,
                                   pending_reply, job));
    return PHASE_NEXT;
}

#define WITH_OUTCOME (ENDING | (1u << ITEM_ENDED))

enum phase_result phase_batch_outcomes(struct job *job)
{
    struct batch *batch = job->batch;
    char key[TD_MAIL_KEY_MAX];

    choose(batch, WITH_OUTCOME, true);
    for (size_t i = 0; i < batch->some_count; i++) {
        const struct item *item = &batch->item[batch->some[i]];

        td_mail_key(key, job->submission->campaign_id, batch->index[i]);
        job_send(job, TD_T_OUTCOMES, -1, key, item->outcome, item->outcome_len);
    }
    return PHASE_NEXT;
}

enum phase_result phase_batch_published(struct job *job)
{
    struct batch *batch = job->batch;

    if (choose(batch, WITH_OUTCOME, true) == 0)
        return PHASE_NEXT;
    job_expect(job);
    job_asked(job, td_ledger_published(job->svc->redis, job->submission->campaign_id, batch->index,
                                       batch->some_count, plain_reply, job));
    return PHASE_NEXT;
}

/* ---- on to rendering ---- */

/* What a chunk is made of, for the time of one phase: the producer copies. Strings are the submission's. */
struct outgoing {
    ChunkRecipient *recipient, **list;
    ChunkFieldsEntry *entry, **entries;
    struct split_item *items;
    struct split_chunk *chunks;
};

static void outgoing_release(struct outgoing *out)
{
    free(out->recipient);
    free(out->list);
    free(out->entry);
    free(out->entries);
    free(out->items);
    free(out->chunks);
}

static bool outgoing_init(struct outgoing *out, const struct batch *batch)
{
    size_t n = batch->some_count + 1, fields = 1;

    for (size_t i = 0; i < batch->some_count; i++)
        fields += batch->recipients[batch->some[i]]->n_fields;
    *out = (struct outgoing){malloc(n * sizeof(*out->recipient)),  malloc(n * sizeof(*out->list)),
                             malloc(fields * sizeof(*out->entry)), malloc(fields * sizeof(*out->entries)),
                             malloc(n * sizeof(*out->items)),      malloc(n * sizeof(*out->chunks))};
    return out->recipient && out->list && out->entry && out->entries && out->items && out->chunks;
}

static void outgoing_fill(struct outgoing *out, struct batch *batch)
{
    size_t field = 0;

    for (size_t i = 0; i < batch->some_count; i++) {
        const Recipient *from = batch->recipients[batch->some[i]];
        ChunkRecipient *to = &out->recipient[i];

        tandem__internal__v1__chunk_recipient__init(to);
        to->index = batch->index[i];
        to->address = (char *)batch->item[batch->some[i]].address;
        to->address_hash = (ProtobufCBinaryData){TD_HASH_BYTES, batch->hash[batch->some[i]]};
        to->name = from->name;
        to->n_fields = from->n_fields;
        to->fields = &out->entries[field];
        for (size_t k = 0; k < from->n_fields; k++, field++) {
            tandem__internal__v1__chunk_recipient__fields_entry__init(&out->entry[field]);
            out->entry[field].key = from->fields[k]->key;
            out->entry[field].value = from->fields[k]->value;
            out->entries[field] = &out->entry[field];
        }
        out->list[i] = to;
        /* 8: tag and length of the sub-message */
        out->items[i] = (struct split_item){to->index, protobuf_c_message_get_packed_size(&to->base) + 8};
    }
}

static void send_chunk(struct job *job, const struct split_chunk *split, ChunkRecipient **recipients)
{
    RecipientChunk chunk = TANDEM__INTERNAL__V1__RECIPIENT_CHUNK__INIT;
    char key[TD_MAIL_KEY_MAX];

    chunk.campaign_id = job->submission->campaign_id;
    chunk.lane = split->lane;
    chunk.n_recipients = split->count;
    chunk.recipients = recipients + split->first;
    td_mail_key(key, chunk.campaign_id, split->group);
    if (job_send_message(job, TD_T_RECIPIENTS, (int32_t)split->lane, key, &chunk.base) == TD_ETOOBIG) {
        td_log(TD_ERROR, "chunk.too_large",
               "campaign=%s msg=\"a record of 800,000 bytes is larger than Kafka takes here\"", chunk.campaign_id);
        job->failed = true;
    }
}

enum phase_result phase_batch_chunks(struct job *job)
{
    const struct known_campaign *known = campaigns_find(job->svc->campaigns, job->submission->campaign_id);
    struct batch *batch = job->batch;
    struct outgoing out;
    bool ok;

    choose(batch, 1u << ITEM_GOOD, false);
    ok = outgoing_init(&out, batch) && known;
    if (ok) {
        size_t count;

        outgoing_fill(&out, batch);
        count = split_recipients(out.items, batch->some_count, known->lanes, known->lane_count, out.chunks);
        for (size_t i = 0; i < count; i++)
            send_chunk(job, &out.chunks[i], out.list);
    }
    outgoing_release(&out);
    return ok ? PHASE_NEXT : PHASE_AGAIN;
}

static void count_recipients(struct job *job, const char *labels, size_t n)
{
    td_metric_add(td_metric(job->svc->app->metrics, TD_COUNTER, "tandem_ingestion_recipients_total",
                            "Recipients judged: taken, invalid, suppressed.", labels),
                  (double)n);
}

enum phase_result phase_batch_count(struct job *job)
{
    size_t taken = 0, invalid = 0, suppressed = 0;

    for (size_t i = 0; i < job->batch->count; i++) {
        if (job->batch->item[i].state == ITEM_GOOD)
            taken++;
        else if (!job->batch->item[i].address)
            invalid++;
        else
            suppressed++;
    }
    count_recipients(job, "result=\"taken\"", taken);
    count_recipients(job, "result=\"invalid\"", invalid);
    count_recipients(job, "result=\"suppressed\"", suppressed);
    return PHASE_NEXT;
}

phase_fn *const batch_phases[] = {phase_batch_fetch,
                                  phase_batch_validate,
                                  phase_batch_suppress,
                                  phase_batch_admit,
                                  phase_batch_first,
                                  phase_batch_claim,
                                  phase_batch_end,
                                  phase_batch_pending,
                                  phase_batch_outcomes,
                                  phase_batch_published,
                                  phase_batch_chunks,
                                  phase_batch_count,
                                  NULL};
