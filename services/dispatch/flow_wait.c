/* What waits: retries, delayed mails, lanes that are given back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flow_int.h"
#include "tandem/clock.h"
#include "tandem/ledger.h"
#include "tandem/log.h"
#include "tandem/pb.h"
#include "tandem/stop.h"

enum { COMMIT_MS = 200, COMMIT_WAIT_MS = 2000, REDIS_AGAIN_MS = 500, ASIDE_SHORT_MS = 600000 };

/* ---- retry topics: one constant delay a topic, so the head of each is due first ---- */

static const struct {
    enum td_topic_id topic;
    int64_t delay_ms;
    unsigned up_to_attempts;
} retry_steps[] = {{TD_T_RETRY_1M, 60000, 3}, {TD_T_RETRY_10M, 600000, 6}, {TD_T_RETRY_1H, 3600000, ~0u}};

/* A campaign that is held for long goes round less often. */
static size_t aside_step(const struct dispatch *d, const struct mail *mail)
{
    return relays_held_ms(d->relays, mail) < ASIDE_SHORT_MS ? 0 : 1;
}

static size_t retry_step(const struct dispatch *d, const struct mail *mail)
{
    unsigned attempts = mail->attempts;
    size_t i = 0;

    if (flow_doubts(mail)) {
        flow_doubt_round(mail, td_wall_ms(), &i);
        return i;
    }
    if (mail->set_aside)
        return aside_step(d, mail);
    while (attempts > retry_steps[i].up_to_attempts)
        i++;
    return i;
}

static void on_retry_delivered(void *user, int64_t offset, const struct td_err *err)
{
    struct mail *mail = user;
    struct dispatch *d = mail->dispatch;

    (void)offset;
    if (!err) {
        flow_finished(d, mail);
        return;
    }
    if (err->code == TD_EFATAL)
        td_app_fail(d->app, err);
    mail->retrying = true;
    flow_delay(d, mail, td_wall_ms() + REDIS_AGAIN_MS);
}

/* When it comes round; a wait for evidence chooses its topic, too. */
static int64_t again_at(const struct mail *mail, size_t *step)
{
    int64_t now = td_wall_ms(), deadline = mail->msg->deadline_unix_ms, at;

    if (flow_doubts(mail))
        return now + flow_doubt_round(mail, now, step);
    at = now + retry_steps[*step].delay_ms;
    return deadline > 0 && at > deadline ? deadline + 1 : at;
}

void flow_retry_produce(struct dispatch *d, struct mail *mail)
{
    size_t step = retry_step(d, mail), len;
    int32_t partition = mail->lane ? mail->lane->id.partition : -1;
    struct td_err err;
    void *packed;
    int rc;

    mail->state = MAIL_RETRYING;
    mail->msg->attempts = mail->attempts;
    mail->msg->paused = mail->msg->paused && mail->set_aside;
    mail->msg->not_before_unix_ms = again_at(mail, &step);
    packed = td_pb_write(&mail->msg->base, &len);
    rc = packed ? td_kafka_out_send(d->out, retry_steps[step].topic, partition, mail->key, mail->key_len, packed, len, NULL, 0,
                                    on_retry_delivered, mail, &err)
                : TD_ENOMEM;
    free(packed);
    if (rc == TD_OK) {
        td_metric_add(d->m.retries, 1);
        return;
    }
    mail->retrying = true;
    flow_delay(d, mail, td_wall_ms() + REDIS_AGAIN_MS);
}

static void on_undone(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct mail *mail = user;
    struct dispatch *d = mail->dispatch;

    (void)reply;
    if (err) {
        mail->retrying = true;
        flow_delay(d, mail, td_wall_ms() + REDIS_AGAIN_MS);
        return;
    }
    mail->begun = false;
    flow_retry_produce(d, mail);
}

/* First the ledger, then the topic: a crash between them repeats the record at hand, which is then free to go. The other
 * way round the retry would find `tried` set by nobody knows whom. */
void flow_retry(struct dispatch *d, struct mail *mail, const char *reason)
{
    int64_t now = td_wall_ms(), delay = retry_steps[retry_step(d, mail)].delay_ms, deadline = mail->msg->deadline_unix_ms;

    if (flow_doubts(mail)) { /* whatever its deadline, and also when its lane goes: the record must bear its mark */
        flow_retry_produce(d, mail);
        return;
    }
    if (mail->dropped) {
        flow_drop(d, mail);
        return;
    }
    /* One that has not begun comes round once more, at its deadline: an owner before us may have sent it, which the ledger says. */
    if (deadline > 0 && mail->begun && now + delay > deadline) {
        flow_end(d, mail, TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_EXPIRED,
                 mail->reply.code ? relays_name(d->relays, mail->relay) : "", &mail->reply, reason);
        return;
    }
    if (deadline > 0 && now > deadline) {
        campaign_ready(d->campaigns, mail, false);
        flow_pump_soon(d);
        return;
    }
    flow_blob_back(d, mail);
    mail->state = MAIL_RETRYING;
    if (!mail->begun || !mail->tried || mail->in_doubt) { /* in doubt: whoever goes on with it must meet `tried` */
        flow_retry_produce(d, mail);
        return;
    }
    if (!td_redis_answers(td_ledger_undo(d->redis, mail->campaign->id, &mail->msg->index, 1, on_undone, mail)))
        on_undone(mail, NULL, &(struct td_err){.code = TD_ENOMEM});
}

static void on_unbegun(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct mail *mail = user;
    struct dispatch *d = mail->dispatch;

    (void)reply;
    mail->unbegin = err != NULL; /* perhaps carried out, perhaps later: not sent before that is certain */
    mail->begun = err != NULL;
    if (mail->dropped) {
        flow_drop(d, mail);
        return;
    }
    flow_blob_back(d, mail);
    flow_delay(d, mail, td_wall_ms() + (err ? REDIS_AGAIN_MS : LOOK_AGAIN_MS));
}

/* Only so many mails as README.md says may have begun: those that wait for one relay would come on top without end. */
void flow_unbegin(struct dispatch *d, struct mail *mail)
{
    if (!mail->tried && !mail->in_doubt) {
        mail->begun = false;
        flow_blob_back(d, mail);
    }
    if (!mail->begun || mail->in_doubt || (!td_redis_up(d->redis) && !mail->unbegin)) {
        flow_delay(d, mail, td_wall_ms() + LOOK_AGAIN_MS);
        return;
    }
    mail->state = MAIL_RETRYING;
    if (!td_redis_answers(td_ledger_undo(d->redis, mail->campaign->id, &mail->msg->index, 1, on_unbegun, mail)))
        on_unbegun(mail, NULL, &(struct td_err){.code = TD_ENOMEM});
}

/* ---- letting go ---- */

void flow_drop(struct dispatch *d, struct mail *mail)
{
    /* A lane that is lost may have a new owner, whose bit it would be that we clear. */
    bool ours = mail->lane && !d->lost && !mail->lane->fenced;

    if (mail->begun && mail->tried && ours && !mail->in_doubt)
        td_ledger_undo(d->redis, mail->campaign->id, &mail->msg->index, 1, NULL, NULL);
    flow_release(d, mail);
    flow_drained_check(d);
}

/* Drop what nobody else holds; mark what a call or a relay holds, so that it is dropped, or ended, when that returns. */
static void lane_let_go(struct dispatch *d, struct lane *lane)
{
    struct mail *next;

    lane->revoked = true;
    for (struct mail *mail = lane->mails; mail; mail = next) {
        next = mail->lane_next;
        switch (mail->state) {
        case MAIL_DELAYED:
            mail_unlink(&d->delayed, mail);
            flow_drop(d, mail);
            break;
        case MAIL_READY:
            mail_unlink(&mail->campaign->ready, mail);
            flow_drop(d, mail);
            break;
        case MAIL_GO:
            mail_unlink(&mail->campaign->go, mail);
            flow_begun(d, mail, -1);
            flow_drop(d, mail);
            break;
        case MAIL_LANE:
            flow_drop(d, mail);
            break;
        case MAIL_BEGIN:
        case MAIL_LEDGER:
        case MAIL_STATICS:
        case MAIL_SENDING:
        case MAIL_RETRYING:
        case MAIL_ENDING:
            mail->dropped = true;
            break;
        }
    }
}

void flow_lane_lost(struct dispatch *d, struct lane *lane)
{
    lane_let_go(d, lane);
}

void flow_drain(struct dispatch *d)
{
    bool was = d->draining;

    d->draining = false; /* not half-way: the check comes after all lanes */
    for (struct lane *lane = lane_first(d->lanes); lane; lane = lane->next)
        lane_let_go(d, lane);
    d->draining = was;
}

/* A relay still has these: their records go to the next owner, who finds `tried` and calls them unconfirmed; should their
 * reply still come, it is written down. */
static void orphan(struct dispatch *d, struct lane *lane)
{
    struct mail *next;

    for (struct mail *mail = lane->mails; mail; mail = next) {
        next = mail->lane_next;
        mail->orphan = true;
        lane->in_doubt = true;
        mail->lane = NULL;
        mail->lane_prev = NULL;
        mail->lane_next = d->orphans;
        if (d->orphans)
            d->orphans->lane_prev = mail;
        d->orphans = mail;
    }
    lane->mails = NULL;
}

/* A paused campaign's mails are in nobody's way. */
static size_t resting(const struct lane *lane)
{
    size_t count = 0;

    for (const struct mail *mail = lane->mails; mail; mail = mail->lane_next)
        count += mail->campaign->paused;
    return count;
}

/* The note beside the offset says which mails above it are done, too, and how many are or rest: rendering keeps a lane filled by what
 * is left in it, and where campaigns overtake each other the offset alone says little. */
static void lane_commit(struct dispatch *d, struct lane *lane)
{
    int64_t next = td_watermark_next(lane->wm);
    size_t done = next < 0 ? 0 : td_watermark_spread(lane->wm) - td_watermark_open(lane->wm), rest = resting(lane);
    char note[DONE_RUNS_TEXT];

    if (next < 0 || (next <= lane->committed && done == lane->committed_done && rest == lane->committed_resting))
        return;
    lane->committed = next;
    lane->committed_done = done;
    lane->committed_resting = rest;
    done_runs_write(note, done + rest, lane->wm, lane->before);
    td_kafka_in_commit_note(d->in, lane->id, next, note);
}

/* No lane has anything left to wait for: commit what is done. */
static void give_back(struct dispatch *d)
{
    d->giving_back = true;
    d->give_back_until_ms = td_stop_sooner(td_mono_ms() + COMMIT_WAIT_MS, TD_STOP_COMMIT);
    for (struct lane *lane = lane_first(d->lanes); lane; lane = lane->next) {
        orphan(d, lane);
        if (!d->lost && !lane->fenced)
            lane_commit(d, lane);
    }
}

void flow_drained_check(struct dispatch *d)
{
    size_t left = 0;
    bool committed;

    if (!d->draining || !d->in) /* not at exit, when the consumer is gone */
        return;
    for (struct lane *lane = lane_first(d->lanes); lane; lane = lane->next)
        for (const struct mail *mail = lane->mails; mail; mail = mail->lane_next)
            left++;
    if (left && td_mono_ms() < d->drain_until_ms)
        return;
    if (left)
        td_log(TD_WARN, "drain.overdue", "mails=%zu msg=\"a relay has not answered; they may become unconfirmed\"", left);
    if (!d->giving_back)
        give_back(d);
    committed = !d->lost && td_kafka_in_committed(d->in);
    if (!committed && !d->lost && td_mono_ms() < d->give_back_until_ms)
        return; /* the next tick looks again */
    d->draining = d->giving_back = false;
    lane_set_clear(d->lanes, committed);
    d->lost = false;
    td_kafka_in_revoke_done(d->in);
}

/* ---- time passes ---- */

bool flow_may_go_early(const struct mail *mail)
{
    const struct campaign *c = mail->campaign;

    /* lane_count: its content has been read, so it is known whether it is paused. */
    if (flow_doubts(mail)) /* it waits for evidence, whatever becomes of its campaign */
        return false;
    return c->cancelled || (mail->msg->paused && c->lane_count > 0 && !c->paused);
}

/* What is delayed for its time alone, and need not be. */
static bool is_early(const struct mail *mail)
{
    bool only_time = !mail->twin && !mail->parked && !mail->retrying && !mail->unbegin && !mail->begun;

    return only_time && mail->due_ms == mail->msg->not_before_unix_ms && flow_may_go_early(mail);
}

static void delayed_due(struct dispatch *d, int64_t wall_ms)
{
    struct mail_list list = d->delayed;
    struct mail *mail;

    d->delayed = (struct mail_list){NULL, NULL, 0};
    while ((mail = mail_pop(&list))) {
        if ((mail->due_ms > wall_ms && !is_early(mail)) || (mail->twin && bits_get(&mail->campaign->busy, mail->msg->index)) ||
            (mail->parked && !td_redis_up(d->redis)) || (mail->lane && !mail->lane->owned)) {
            mail_push(&d->delayed, mail);
        } else if (mail->retrying) {
            mail->retrying = false;
            flow_retry(d, mail, mail->reason);
        } else if (mail->parked) {
            mail->parked = false;
            campaign_ready(d->campaigns, mail, false);
        } else if (mail->unbegin) {
            flow_unbegin(d, mail);
        } else if (mail->begun) {
            flow_begun(d, mail, 1);
            campaign_ready(d->campaigns, mail, false);
        } else {
            mail->twin = false;
            bits_set(&mail->campaign->busy, mail->msg->index, true);
            flow_prepare(d, mail);
        }
    }
}

/* Read on where all that was delivered is due, and stop where one stuck mail holds the watermark far behind. */
static void lanes_pause(struct dispatch *d)
{
    for (struct lane *lane = lane_first(d->lanes); lane; lane = lane->next) {
        bool wait = td_watermark_spread(lane->wm) > LANE_SPAN / 2;

        for (const struct mail *mail = d->delayed.first; mail && !wait; mail = mail->next)
            wait = mail->lane == lane && !mail->twin && mail->due_ms == mail->msg->not_before_unix_ms && !mail->begun &&
                   lane->id.topic != TD_T_OUTBOUND && lane->id.topic != TD_T_EXPRESS;
        if (wait && !lane->paused)
            td_kafka_in_pause(d->in, lane->id);
        else if (!wait && lane->paused)
            td_kafka_in_resume(d->in, lane->id);
        lane->paused = wait;
    }
}

static void lanes_commit(struct dispatch *d)
{
    for (struct lane *lane = lane_first(d->lanes); lane; lane = lane->next)
        if (!lane->fenced && !lane->revoked)
            lane_commit(d, lane);
}

void flow_tick(struct dispatch *d)
{
    uint64_t now_ms = td_mono_ms();

    delayed_due(d, td_wall_ms());
    lanes_pause(d);
    if (now_ms >= d->commit_at_ms) {
        d->commit_at_ms = now_ms + COMMIT_MS;
        lanes_commit(d);
    }
    if (td_redis_up(d->redis) && d->unanswered)
        flow_ledger_back(d);
    flow_drained_check(d);
    flow_pump_soon(d);
}

static size_t without_outcome(const struct mail *mail)
{
    size_t count = 0;

    for (; mail; mail = mail->lane_next)
        count += mail->state == MAIL_SENDING || mail->state == MAIL_LEDGER;
    return count;
}

size_t flow_without_outcome(const struct dispatch *d)
{
    size_t count = without_outcome(d->orphans);

    for (const struct lane *lane = d->lanes ? lane_first(d->lanes) : NULL; lane; lane = lane->next)
        count += without_outcome(lane->mails);
    return count;
}

void flow_free_all(struct dispatch *d)
{
    for (struct lane *lane = lane_first(d->lanes); lane; lane = lane->next)
        while (lane->mails)
            flow_release(d, lane->mails);
    while (d->orphans)
        flow_release(d, d->orphans);
    flow_forget_questions(d);
}
