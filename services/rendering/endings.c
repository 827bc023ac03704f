#include "endings.h"

#include <inttypes.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tandem/clock.h"
#include "tandem/id.h"
#include "tandem/ledger.h"
#include "tandem/log.h"
#include "tandem/pb.h"

enum { RETRY_MS = 1000 };

enum step { STEP_ASK, STEP_END, STEP_PUBLISH };

enum item_state { ITEM_OPEN = 0, ITEM_ENDED, ITEM_SENT, ITEM_DONE };

struct batch;

struct item {
    struct batch *batch;
    struct ending ending;
    uint8_t hash[TD_HASH_BYTES];
    void *outcome; /* packed, owned */
    size_t outcome_len;
    enum item_state state;
};

struct batch {
    struct endings *all;
    struct batch *next;
    char campaign_id[TD_CAMPAIGN_ID_MAX + 1];
    char token[64]; /* of td_ledger_begin_as: this process run and a number, so that asking may be repeated */
    void *user;
    enum step step;
    bool busy;            /* a call to Redis is under way */
    uint64_t retry_at_ms; /* 0: nothing to try again */
    size_t unsent;        /* on their way to mail.outcomes */
    size_t left;          /* items not done */
    size_t count;
    struct item item[];
};

struct endings {
    struct td_app *app;
    struct td_redis *redis;
    struct td_kafka_out *out;
    ending_done *done;
    struct batch *batches;
    uint64_t run, number; /* make tokens */
};

static void run(struct batch *batch);
static void ended(void *user, const struct td_reply *reply, const struct td_err *err);

static const char *result_name(Tandem__Mail__V1__RecipientResult result)
{
    if (result == TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_CANCELLED)
        return "cancelled";
    return result == TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_EXPIRED ? "expired" : "invalid";
}

static void again_later(struct batch *batch)
{
    batch->retry_at_ms = td_mono_ms() + RETRY_MS;
}

static void batch_free(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        free(batch->item[i].outcome);
    free(batch);
}

static void finish_item(struct item *item, bool tried)
{
    struct batch *batch = item->batch;

    item->state = ITEM_DONE;
    batch->left--;
    batch->all->done(batch->user, item->ending.position, tried);
}

/* Free batches that are done. Only from the tick, so that no callback frees the batch under its caller. */
static void sweep(struct endings *endings)
{
    for (struct batch **at = &endings->batches; *at;) {
        struct batch *batch = *at;

        if (batch->left > 0 || batch->busy || batch->unsent > 0) {
            at = &batch->next;
            continue;
        }
        *at = batch->next;
        batch_free(batch);
    }
}

/* ---- publish ---- */

static void count_ended(const struct item *item)
{
    char labels[96];

    snprintf(labels, sizeof(labels), "result=\"%s\",reason=\"%s\"", result_name(item->ending.result),
             item->ending.reason);
    td_metric_add(td_metric(item->batch->all->app->metrics, TD_COUNTER, "tandem_rendering_recipients_ended_total",
                            "Recipients that ended without a mail.", labels),
                  1);
}

static void published(void *user, int64_t offset, const struct td_err *err)
{
    struct item *item = user;
    struct batch *batch = item->batch;

    (void)offset;
    batch->unsent--;
    if (err) {
        item->state = ITEM_ENDED;
        again_later(batch);
        if (err->code == TD_EFATAL)
            td_app_fail(batch->all->app, err);
        return;
    }
    /* Should this get lost, the ledger keeps its copy, and who meets it publishes the same outcome again. */
    td_ledger_published(batch->all->redis, batch->campaign_id, &item->ending.index, 1, NULL, NULL);
    count_ended(item);
    finish_item(item, false);
}

static void publish(struct batch *batch)
{
    char key[TD_MAIL_KEY_MAX];

    for (size_t i = 0; i < batch->count; i++) {
        struct item *item = &batch->item[i];
        struct td_err err;
        size_t len;

        if (item->state != ITEM_ENDED)
            continue;
        len = td_mail_key(key, batch->campaign_id, item->ending.index);
        if (td_kafka_out_send(batch->all->out, TD_T_OUTCOMES, -1, key, len, item->outcome, item->outcome_len, NULL,
                              0, published, item, &err) != TD_OK) {
            again_later(batch);
            return;
        }
        item->state = ITEM_SENT;
        batch->unsent++;
    }
}

/* After these two no callback comes; all other failures are told by it. An index or a name that the ledger does
 * not take is wrong for ever: ingestion lets none through, so it is a record that somebody else made. Its outcome
 * is told all the same. */
static void called(struct batch *batch, int rc)
{
    if (rc == TD_ENOMEM) {
        batch->busy = false;
        again_later(batch);
    } else if (rc == TD_EINVAL) {
        td_log(TD_ERROR, "ledger.refused", "campaign=%s count=%zu", batch->campaign_id, batch->count);
        ended(batch, NULL, NULL);
    }
}

/* ---- end ---- */

static void ended(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct batch *batch = user;

    (void)reply;
    batch->busy = false;
    if (err) {
        again_later(batch);
        return;
    }
    for (size_t i = 0; i < batch->count; i++)
        if (batch->item[i].state == ITEM_OPEN)
            batch->item[i].state = ITEM_ENDED;
    batch->step = STEP_PUBLISH;
    run(batch);
}

static void end(struct batch *batch)
{
    struct td_ended list[TD_LEDGER_BATCH];
    size_t count = 0;

    for (size_t i = 0; i < batch->count; i++) {
        const struct item *item = &batch->item[i];

        if (item->state == ITEM_OPEN)
            list[count++] = (struct td_ended){item->ending.index, result_name(item->ending.result), "",
                                              item->outcome, item->outcome_len};
    }
    if (count == 0) {
        batch->step = STEP_PUBLISH;
        publish(batch);
        return;
    }
    batch->busy = true;
    called(batch, td_ledger_end(batch->all->redis, batch->campaign_id, list, count, ended, batch));
}

/* ---- ask ---- */

/* Somebody else ended it; when mail.outcomes may lack that outcome, it is published in our stead. */
static void adopt_outcome(struct item *item, const struct td_begun *begun)
{
    void *copy = begun->outcome ? malloc(begun->outcome_len) : NULL;

    if (!copy) {
        finish_item(item, false);
        return;
    }
    memcpy(copy, begun->outcome, begun->outcome_len);
    free(item->outcome);
    item->outcome = copy;
    item->outcome_len = begun->outcome_len;
    item->state = ITEM_ENDED;
}

static void asked(void *user, const struct td_begun *begun, size_t count, const struct td_err *err)
{
    struct batch *batch = user;

    batch->busy = false;
    if (err || count != batch->count) {
        again_later(batch);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (begun[i].verdict == TD_TRIED || begun[i].verdict == TD_PROVEN)
            finish_item(&batch->item[i], true);
        else if (begun[i].verdict == TD_DONE)
            adopt_outcome(&batch->item[i], &begun[i]);
    }
    batch->step = STEP_END;
    run(batch);
}

static void ask(struct batch *batch)
{
    uint32_t index[TD_LEDGER_BATCH];

    for (size_t i = 0; i < batch->count; i++)
        index[i] = batch->item[i].ending.index;
    batch->busy = true;
    called(batch, td_ledger_begin_as(batch->all->redis, batch->campaign_id, batch->token, index, batch->count,
                                     asked, batch));
}

static void run(struct batch *batch)
{
    batch->retry_at_ms = 0;
    switch (batch->step) {
    case STEP_ASK:
        ask(batch);
        break;
    case STEP_END:
        end(batch);
        break;
    case STEP_PUBLISH:
        publish(batch);
        break;
    }
}

/* ---- outside ---- */

static bool pack_outcome(struct item *item, int64_t now_ms)
{
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;
    Tandem__Mail__V1__RecipientOutcome recipient = TANDEM__MAIL__V1__RECIPIENT_OUTCOME__INIT;

    outcome.campaign_id = item->batch->campaign_id;
    outcome.index = item->ending.index;
    outcome.at_unix_ms = now_ms;
    outcome.service = (char *)(uintptr_t) "rendering";
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT;
    outcome.recipient = &recipient;
    recipient.result = item->ending.result;
    recipient.reason = (char *)(uintptr_t)item->ending.reason;
    if (item->ending.hash)
        recipient.address_hash = (ProtobufCBinaryData){TD_HASH_BYTES, item->hash};
    item->outcome = td_pb_write(&outcome.base, &item->outcome_len);
    return item->outcome != NULL;
}

int endings_add(struct endings *endings, const char *campaign_id, const struct ending *item, size_t count,
                void *user)
{
    struct batch *batch = calloc(1, sizeof(*batch) + count * sizeof(batch->item[0]));
    int64_t now_ms = td_wall_ms();

    if (!batch)
        return TD_ENOMEM;
    batch->all = endings;
    batch->user = user;
    batch->step = count > 0 && item[0].ask ? STEP_ASK : STEP_END;
    snprintf(batch->campaign_id, sizeof(batch->campaign_id), "%s", campaign_id);
    for (size_t i = 0; i < count; i++) {
        struct item *to = &batch->item[i];

        to->batch = batch;
        to->ending = item[i];
        if (item[i].hash)
            memcpy(to->hash, item[i].hash, TD_HASH_BYTES);
        batch->count++;
        if (!pack_outcome(to, now_ms)) {
            batch_free(batch);
            return TD_ENOMEM;
        }
    }
    batch->left = count;
    snprintf(batch->token, sizeof(batch->token), "rendering:%" PRIx64 ":%" PRIu64, endings->run,
             ++endings->number);
    batch->next = endings->batches;
    endings->batches = batch;
    run(batch);
    return TD_OK;
}

void endings_tick(struct endings *endings, uint64_t now_ms)
{
    for (struct batch *batch = endings->batches; batch; batch = batch->next)
        if (!batch->busy && batch->retry_at_ms && now_ms >= batch->retry_at_ms)
            run(batch);
    sweep(endings);
}

size_t endings_pending(const struct endings *endings)
{
    size_t count = 0;

    for (const struct batch *batch = endings->batches; batch; batch = batch->next)
        count += batch->left;
    return count;
}

/* Different for each process run: the clock alone would be the same for two that start together. */
static uint64_t run_id(void)
{
    uint64_t id = td_mono_us() ^ (uint64_t)td_wall_ms() << 20;

    if (RAND_bytes((unsigned char *)&id, sizeof(id)) != 1)
        id ^= (uint64_t)getpid() << 40;
    return id;
}

struct endings *endings_new(struct td_app *app, struct td_redis *redis, struct td_kafka_out *out,
                            ending_done *done)
{
    struct endings *endings = calloc(1, sizeof(*endings));

    if (endings)
        *endings = (struct endings){.app = app, .redis = redis, .out = out, .done = done, .run = run_id()};
    return endings;
}

void endings_free(struct endings *endings)
{
    if (!endings)
        return;
    while (endings->batches) {
        struct batch *batch = endings->batches;

        endings->batches = batch->next;
        batch_free(batch);
    }
    free(endings);
}
