/* Ends are gathered for a moment and go to the ledger in batches of one campaign. Each end then goes to mail.outcomes by
 * itself; when that is acknowledged the pending copy in the ledger is dropped, again in batches.
 *
 *   end: WAIT (gathered) -> LEDGER (script) -> KAFKA (produced) -> durable, PUBLISHED (script)
 *                             | Redis away: KAFKA at once, and OWED: written back later
 *                             |   one that others may end, too: HELD until Redis is back */
#include "outcomes.h"

#include <stdlib.h>
#include <string.h>

#include "campaign.h"
#include "hours.h"
#include "tandem/ledger.h"
#include "tandem/log.h"
#include "tandem/stages.h"

enum { GATHER_MS = 2, AGAIN_MS = 100, OWED_MAX = 2000000, HOURS_MS = 250 };

struct end {
    struct end *next;
    struct outcomes *owner;
    struct mail *mail; /* NULL once it is durable */
    char campaign_id[TD_CAMPAIGN_ID_MAX + 1];
    uint32_t index;
    char key[TD_MAIL_KEY_MAX];
    size_t key_len;
    const char *result; /* static */
    char relay[RELAY_NAME_MAX + 1];
    void *packed;
    size_t packed_len;
    bool owed;     /* the ledger does not know it yet */
    bool shared;   /* others may end it, too */
    bool unproven; /* UNCONFIRMED unless its relay has told that it took it */
};

struct end_list {
    struct end *first, *last;
    size_t count;
};

/* Ends of one campaign that a script call carries. */
struct batch {
    struct outcomes *owner;
    struct end_list ends;
};

struct outcomes {
    struct td_redis *redis;
    struct td_kafka_out *out;
    struct outcomes_ops ops;
    void *user;
    uv_timer_t *timer, *hours_timer;
    struct hours *hours;
    struct end_list waiting, stuck, published, owed; /* stuck: the producer's queue was full or a delivery failed */
    struct end_list held;                            /* for Redis */
    size_t calls; /* scripts and deliveries whose callbacks are to come */
    bool told_full;
};

static void list_push(struct end_list *list, struct end *end)
{
    end->next = NULL;
    if (list->last)
        list->last->next = end;
    else
        list->first = end;
    list->last = end;
    list->count++;
}

static struct end *list_pop(struct end_list *list)
{
    struct end *end = list->first;

    if (!end)
        return NULL;
    list->first = end->next;
    if (!list->first)
        list->last = NULL;
    list->count--;
    return end;
}

static void end_free(struct end *end)
{
    if (end)
        free(end->packed);
    free(end);
}

static void list_clear(struct end_list *list)
{
    struct end *end;

    while ((end = list_pop(list)))
        end_free(end);
}

/* Take up to a batch of ends of the first one's campaign out of the list, keeping the order of the rest. */
static struct batch *batch_take(struct outcomes *o, struct end_list *list)
{
    struct batch *batch = calloc(1, sizeof(*batch));
    struct end_list rest = {NULL, NULL, 0};
    struct end *end;

    if (!batch)
        return NULL;
    batch->owner = o;
    while ((end = list_pop(list))) {
        if (batch->ends.count < TD_LEDGER_BATCH &&
            (!batch->ends.first || strcmp(batch->ends.first->campaign_id, end->campaign_id) == 0))
            list_push(&batch->ends, end);
        else
            list_push(&rest, end);
    }
    *list = rest;
    return batch;
}

static void arm(struct outcomes *o, uint64_t ms);

static void durable(struct end *end)
{
    struct outcomes *o = end->owner;
    struct mail *mail = end->mail;

    end->mail = NULL;
    if (mail)
        o->ops.durable(o->user, mail);
}

static void on_delivered(void *user, int64_t offset, const struct td_err *err)
{
    struct end *end = user;
    struct outcomes *o = end->owner;

    (void)offset;
    o->calls--;
    if (err && err->code == TD_EFATAL) {
        list_push(&o->stuck, end);
        o->ops.fatal(o->user, err);
        return;
    }
    if (err) { /* perhaps written: the key and the content are the same, so a second record says nothing new */
        list_push(&o->stuck, end);
        arm(o, AGAIN_MS);
        return;
    }
    durable(end);
    list_push(end->owed ? &o->owed : &o->published, end);
    arm(o, GATHER_MS);
}

static void publish(struct end *end)
{
    struct outcomes *o = end->owner;
    struct td_err err;
    int rc = td_kafka_out_send(o->out, TD_T_OUTCOMES, -1, end->key, end->key_len, end->packed, end->packed_len, NULL, 0,
                               on_delivered, end, &err);

    if (rc == TD_OK) {
        o->calls++;
        return;
    }
    list_push(&o->stuck, end);
    if (rc == TD_EAGAIN)
        arm(o, AGAIN_MS);
    else
        o->ops.fatal(o->user, &err);
}

static void take_outcome(struct end *end, const struct td_begun *begun)
{
    free(end->packed);
    end->packed = malloc(begun->outcome_len);
    if (!end->packed)
        abort(); /* as in end_new */
    memcpy(end->packed, begun->outcome, begun->outcome_len);
    end->packed_len = begun->outcome_len;
}

static void on_other(void *user, const struct td_begun *begun, size_t count, const struct td_err *err)
{
    struct end *end = user;
    struct outcomes *o = end->owner;

    o->calls--;
    if (!err && count == 1 && begun->verdict == TD_PROVEN) {
        end->unproven = false; /* should that outcome be none, ours stands */
        if (mail_accepted_by(begun->outcome, begun->outcome_len, end->relay)) {
            end->result = "accepted";
            end->shared = true;
            take_outcome(end, begun);
        }
        list_push(&o->waiting, end);
        arm(o, GATHER_MS);
    } else if (err || count != 1 || begun->verdict != TD_DONE) { /* not told: it is found overtaken again, or no longer is */
        list_push(&o->waiting, end);
        arm(o, AGAIN_MS);
    } else if (begun->outcome) {
        take_outcome(end, begun);
        publish(end);
    } else {
        durable(end);
        end_free(end);
    }
}

/* What the other owner wrote down may never have reached mail.outcomes: it may have died in between, and with our offset the
 * record goes. `begin` tells what is done, with its outcome as long as that is not known to be published. */
static void see_other(struct end *end)
{
    end->owner->calls++;
    if (!td_redis_answers(td_ledger_begin(end->owner->redis, end->campaign_id, &end->index, 1, on_other, end)))
        on_other(end, NULL, 0, &(struct td_err){.code = TD_ENOMEM});
}

static void on_ledger(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct batch *batch = user;
    struct outcomes *o = batch->owner;
    struct end *end;
    size_t other = TD_ENDED_OTHERS;
    enum td_stage before = td_stage(TD_STAGE_OUTCOME);

    o->calls--;
    hours_note(o->hours, batch->ends.first->campaign_id, td_reply_at(reply, TD_ENDED_HOURS));
    for (long long at = 0; (end = list_pop(&batch->ends)); at++) {
        /* Another owner ended it otherwise, while we were thought dead: its word stands. */
        if (reply && other < td_reply_count(reply) && td_reply_int(td_reply_at(reply, other)) == at) {
            other++;
            td_log(TD_WARN, "outcome.overtaken", "msg=%s result=%s", end->key, end->result);
            see_other(end);
            continue;
        }
        if (err && end->shared) {
            list_push(&o->held, end);
            arm(o, AGAIN_MS);
            continue;
        }
        end->owed = err != NULL;
        publish(end);
    }
    free(batch);
    td_stage(before);
}

static void batch_end(struct batch *batch, td_redis_cb *cb)
{
    struct td_ended ended[TD_LEDGER_BATCH];
    size_t n = 0;
    enum td_stage before = td_stage(TD_STAGE_REDIS);

    for (const struct end *end = batch->ends.first; end; end = end->next)
        ended[n++] = (struct td_ended){end->index, end->unproven && !end->owed ? TD_UNPROVEN : end->result, end->relay, end->packed,
                                       end->packed_len};
    batch->owner->calls++;
    if (!td_redis_answers(td_ledger_end(batch->owner->redis, batch->ends.first->campaign_id, ended, n, cb, batch)))
        cb(batch, NULL, &(struct td_err){.code = TD_ENOMEM});
    td_stage(before);
}

static void flush_waiting(struct outcomes *o)
{
    while (o->held.first && td_redis_up(o->redis))
        list_push(&o->waiting, list_pop(&o->held));
    while (o->waiting.first) {
        struct batch *batch = batch_take(o, &o->waiting);

        if (!batch) {
            arm(o, AGAIN_MS);
            return;
        }
        batch_end(batch, on_ledger);
    }
}

static void flush_stuck(struct outcomes *o)
{
    struct end_list again = o->stuck;
    struct end *end;

    o->stuck = (struct end_list){NULL, NULL, 0};
    while ((end = list_pop(&again)))
        publish(end);
}

static void flush_published(struct outcomes *o)
{
    uint32_t index[TD_LEDGER_BATCH];

    while (o->published.first) {
        struct batch *batch = batch_take(o, &o->published);
        size_t n = 0;

        if (!batch)
            return;
        for (const struct end *end = batch->ends.first; end; end = end->next)
            index[n++] = end->index;
        /* When this fails the pending copies stay until the campaign's keys expire: they are published again at most
         * if the same record comes again. */
        td_ledger_published(o->redis, batch->ends.first->campaign_id, index, n, NULL, NULL);
        list_clear(&batch->ends);
        free(batch);
    }
}

static void on_written_back(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct batch *batch = user;
    struct outcomes *o = batch->owner;
    struct end *end;

    o->calls--;
    hours_note(o->hours, batch->ends.first->campaign_id, td_reply_at(reply, TD_ENDED_HOURS));
    while ((end = list_pop(&batch->ends))) {
        end->owed = err != NULL;
        list_push(err ? &o->owed : &o->published, end);
    }
    free(batch);
    arm(o, err ? AGAIN_MS : GATHER_MS);
}

static void flush_owed(struct outcomes *o)
{
    /* The oldest are let go past the bound: mail.outcomes has them, the view only lacks their bits. */
    while (o->owed.count > OWED_MAX) {
        if (!o->told_full)
            td_log(TD_WARN, "ledger.owed_full", "owed=%zu", o->owed.count);
        o->told_full = true;
        end_free(list_pop(&o->owed));
    }
    while (o->owed.first && td_redis_up(o->redis)) {
        struct batch *batch = batch_take(o, &o->owed);

        if (!batch)
            return;
        batch_end(batch, on_written_back);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct outcomes *o = timer->data;
    enum td_stage before = td_stage(TD_STAGE_OUTCOME);

    flush_waiting(o);
    flush_stuck(o);
    flush_owed(o);
    flush_published(o);
    td_stage(before);
}

static void on_hours(uv_timer_t *timer)
{
    struct outcomes *o = timer->data;

    hours_flush(o->hours);
}

static void arm(struct outcomes *o, uint64_t ms)
{
    if (!uv_is_active((uv_handle_t *)o->timer) || uv_timer_get_due_in(o->timer) > ms)
        uv_timer_start(o->timer, on_timer, ms, 0);
}

int outcomes_new(uv_loop_t *loop, struct td_redis *redis, struct td_kafka_out *out, const struct outcomes_ops *ops,
                 void *user, struct outcomes **ret, struct td_err *reterr)
{
    struct outcomes *o = calloc(1, sizeof(*o));

    if (o) {
        o->timer = malloc(sizeof(*o->timer));
        o->hours_timer = malloc(sizeof(*o->hours_timer));
        o->hours = hours_new(redis);
    }
    if (!o || !o->timer || !o->hours_timer || !o->hours) {
        if (o) {
            free(o->timer);
            free(o->hours_timer);
            hours_free(o->hours);
        }
        free(o);
        return td_fail(reterr, TD_ENOMEM, "outcomes");
    }
    uv_timer_init(loop, o->timer);
    o->timer->data = o;
    uv_timer_init(loop, o->hours_timer);
    o->hours_timer->data = o;
    uv_timer_start(o->hours_timer, on_hours, HOURS_MS, HOURS_MS);
    o->redis = redis;
    o->out = out;
    o->ops = *ops;
    o->user = user;
    *ret = o;
    return TD_OK;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

void outcomes_free(struct outcomes *o)
{
    if (!o)
        return;
    uv_close((uv_handle_t *)o->timer, on_timer_closed);
    uv_close((uv_handle_t *)o->hours_timer, on_timer_closed);
    hours_free(o->hours);
    list_clear(&o->waiting);
    list_clear(&o->held);
    list_clear(&o->stuck);
    list_clear(&o->owed);
    list_clear(&o->published);
    free(o);
}

static struct end *end_new(struct outcomes *o, struct mail *mail, void *packed, size_t packed_len)
{
    struct end *end = calloc(1, sizeof(*end));

    if (!end)
        abort(); /* an outcome that cannot even be noted: restart, Kafka still has the record */
    end->owner = o;
    end->mail = mail;
    memcpy(end->campaign_id, mail->campaign->id, sizeof(end->campaign_id));
    end->index = mail->msg->index;
    memcpy(end->key, mail->key, sizeof(end->key));
    end->key_len = mail->key_len;
    end->packed = packed;
    end->packed_len = packed_len;
    mail->state = MAIL_ENDING;
    return end;
}

void outcomes_end(struct outcomes *o, struct mail *mail, const char *result, const char *relay, void *packed, size_t packed_len,
                  bool shared)
{
    struct end *end = end_new(o, mail, packed, packed_len);

    end->result = result;
    end->shared = shared;
    end->unproven = strcmp(result, "unconfirmed") == 0;
    memcpy(end->relay, relay, strnlen(relay, sizeof(end->relay) - 1));
    list_push(&o->waiting, end);
    if (o->waiting.count >= TD_LEDGER_BATCH)
        flush_waiting(o);
    else
        arm(o, GATHER_MS);
}

void outcomes_again(struct outcomes *o, struct mail *mail, const void *packed, size_t packed_len)
{
    void *copy = malloc(packed_len ? packed_len : 1);

    if (!copy)
        abort();
    memcpy(copy, packed, packed_len);
    publish(end_new(o, mail, copy, packed_len));
}

void outcomes_tell(struct outcomes *o)
{
    hours_flush(o->hours);
}

void outcomes_redis_up(struct outcomes *o)
{
    arm(o, GATHER_MS);
}

size_t outcomes_unsent(const struct outcomes *o)
{
    return o ? o->stuck.count + o->waiting.count + o->held.count : 0;
}

size_t outcomes_owed(const struct outcomes *o)
{
    return o->owed.count + o->waiting.count + o->held.count + o->published.count;
}
