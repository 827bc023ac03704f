/* The first step of a mail's way: its record is read, and it waits for its lane, for its time, or for its twin. */
#include <stdlib.h>

#include "flow_int.h"
#include "tandem/clock.h"
#include "tandem/dead_letter.h"
#include "tandem/log.h"

struct dead {
    struct dispatch *d;
    struct td_lane lane;
    int64_t offset;
};

static void on_dead_delivered(void *user, int64_t offset, const struct td_err *err)
{
    struct dead *dead = user;
    struct lane *lane = lane_find(dead->d->lanes, dead->lane);

    (void)offset;
    if (err)
        td_app_fail(dead->d->app, err); /* the record stays uncommitted and comes again after the restart */
    else if (lane)
        td_watermark_done(lane->wm, dead->offset);
    free(dead);
}

static void dead_letter(struct dispatch *d, const struct td_record *rec, const struct td_err *why)
{
    struct dead *dead = malloc(sizeof(*dead));
    struct td_err err = {TD_ENOMEM, "dead letter"};

    td_metric_add(d->m.dead_letters, 1);
    if (dead)
        *dead = (struct dead){d, rec->lane, rec->offset};
    if (!dead || td_dead_letter(d->out, "dispatch", rec, why->text, on_dead_delivered, dead, &err) < 0) {
        free(dead);
        td_app_fail(d->app, &err);
    }
}

static bool is_retry(const struct lane *lane)
{
    return lane->id.topic == TD_T_RETRY_1M || lane->id.topic == TD_T_RETRY_10M || lane->id.topic == TD_T_RETRY_1H;
}

void flow_delay(struct dispatch *d, struct mail *mail, int64_t due_ms)
{
    mail->state = MAIL_DELAYED;
    mail->due_ms = due_ms;
    mail_push(&d->delayed, mail);
}

/* Bulk and express have a window each: however much bulk waits, express is read. */
void flow_count(struct dispatch *d, bool express, int change)
{
    size_t count = d->in_memory[express] += (size_t)change, window = (size_t)d->settings->dispatch_window;
    bool hold = d->held[express] ? count * 4 >= window * 3 : count >= window;

    td_metric_set(d->m.in_memory, (double)(d->in_memory[0] + d->in_memory[1]));
    if (hold == d->held[express] || !d->in)
        return;
    d->held[express] = hold;
    for (enum td_topic_id topic = 0; topic < TD_T_COUNT; topic++)
        if ((topic == TD_T_EXPRESS) == express)
            td_kafka_in_hold_topic(d->in, topic, hold);
}

static void take(struct dispatch *d, struct lane *lane, struct mail *mail)
{
    mail->dispatch = d;
    mail->lane = lane;
    mail->lane_next = lane->mails;
    if (lane->mails)
        lane->mails->lane_prev = mail;
    lane->mails = mail;
    mail->of_express = lane->id.topic == TD_T_EXPRESS;
    flow_count(d, mail->of_express, 1);
}

void flow_record(struct dispatch *d, struct lane *lane, const struct td_record *rec)
{
    struct mail *mail;
    struct td_err err;
    int rc;

    if (!td_watermark_begin(lane->wm, rec->offset))
        return; /* a repeat of something under way or done */
    if (lane->before && done_runs_has(lane->before, rec->offset)) {
        td_metric_add(d->m.repeats, 1);
        td_watermark_done(lane->wm, rec->offset);
        return;
    }
    if (!rec->value) {
        td_watermark_done(lane->wm, rec->offset);
        return;
    }
    rc = mail_new(rec, &mail, &err);
    if (rc == TD_ENOMEM) {
        td_app_fail(d->app, &err);
        return;
    }
    if (rc < 0) {
        dead_letter(d, rec, &err);
        return;
    }
    mail->campaign = campaign_get(d->campaigns, mail->msg->campaign_id);
    if (!mail->campaign) {
        mail_free(mail);
        td_app_fail(d->app, &(struct td_err){TD_ENOMEM, "no memory for a campaign"});
        return;
    }
    mail->campaign->express = mail_is_express(mail);
    take(d, lane, mail);
    if (lane->owned && lane->fresh_from < 0 && mail->timestamp_ms > lane->owned_at_ms + CLOCKS_MS)
        lane->fresh_from = mail->offset;
    if (bits_get(&mail->campaign->busy, mail->msg->index)) {
        mail->twin = true;
        flow_delay(d, mail, 0);
        return;
    }
    bits_set(&mail->campaign->busy, mail->msg->index, true);
    mail->state = MAIL_LANE;
    if (mail->msg->not_before_unix_ms > td_wall_ms() && !flow_may_go_early(mail)) {
        flow_delay(d, mail, mail->msg->not_before_unix_ms);
        /* A retry topic has one delay, so what comes after its head is due later still: stop reading until then. */
        if (is_retry(lane) && !lane->paused) {
            lane->paused = true;
            td_kafka_in_pause(d->in, lane->id);
        }
    } else if (lane->owned) {
        flow_prepare(d, mail);
    }
}
