#include "flow.h"

#include <stdio.h>
#include <stdlib.h>

#include "flow_int.h"
#include "place.h"
#include "tandem/clock.h"
#include "tandem/log.h"

#define RESULT(name) TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_##name

enum {
    CAP_LATE_US = 10000,        /* how late a pump may be and a campaign's cap still be reached */
    PUMP_BURST = 256,           /* mails started before the loop looks at other things */
    RECONNECTS_MAX = 3,         /* "idle too long" on this many connections in a row is something else */
    AVOID_RELAY_MS = 1000,      /* a relay that was busy gets this mail again after that, if no other took it */
    AVOID_MESSAGE_MS = 86400000 /* a relay that refused the message itself */
};

void flow_metrics(struct dispatch *d)
{
    struct td_metrics *m = d->app->metrics;
    char labels[48];

    for (int r = RESULT(ACCEPTED); r <= RESULT(UNCONFIRMED); r++) {
        snprintf(labels, sizeof(labels), "outcome=\"%s\"", mail_result_name((Tandem__Mail__V1__RecipientResult)r));
        d->m.outcome[r] = td_metric(m, TD_COUNTER, "tandem_dispatch_outcomes_total", "Mails by outcome", labels);
    }
    d->m.in_memory = td_metric(m, TD_GAUGE, "tandem_dispatch_mails_in_memory", "Mails taken from Kafka and not finished", "");
    d->m.attempts = td_metric(m, TD_COUNTER, "tandem_dispatch_attempts_total", "Mails handed to a relay's connections", "");
    d->m.retries = td_metric(m, TD_COUNTER, "tandem_dispatch_retries_total", "Mails sent to a retry topic", "");
    d->m.unconfirmed_attempts =
        td_metric(m, TD_COUNTER, "tandem_dispatch_unconfirmed_attempts_total", "Attempts whose final reply was lost", "");
    d->m.doubts = td_metric(m, TD_COUNTER, "tandem_dispatch_doubts_total", "Mails that began to wait for evidence", "");
    d->m.proven = td_metric(m, TD_COUNTER, "tandem_dispatch_doubts_settled_total", "Of those, mails that had their outcome when they came round", "");
    d->m.ledger_away =
        td_metric(m, TD_COUNTER, "tandem_dispatch_unledgered_total", "Mails begun while Redis was away", "");
    d->m.repeats = td_metric(m, TD_COUNTER, "tandem_dispatch_repeats_total", "Records whose mail already had its outcome", "");
    d->m.dead_letters = td_metric(m, TD_COUNTER, "tandem_dispatch_dead_letters_total", "Records that could not be read", "");
}

/* ---- static pieces: what it needs before it asks the ledger ---- */

static void on_blob(void *user, const struct static_blob *blob, const struct td_err *err);

void flow_prepare(struct dispatch *d, struct mail *mail)
{
    if (flow_doubts(mail)) { /* never sent: it needs no bytes and no relay, only the ledger's word */
        campaign_ready(d->campaigns, mail, true);
        flow_pump_soon(d);
        return;
    }
    mail->state = MAIL_STATICS;
    statics_get(d->statics, mail->msg->static_sha256.data, mail->msg->static_bytes, on_blob, mail);
}

static void on_blob(void *user, const struct static_blob *blob, const struct td_err *err)
{
    struct mail *mail = user;
    struct dispatch *d = mail->dispatch;
    struct td_err why;

    mail->blob = blob;
    if (mail->dropped) {
        flow_drop(d, mail);
    } else if (!blob && td_code_retriable(err->code)) {
        td_log(TD_WARN, "content.missing", "msg=%s why=\"%s\"", mail->key, err->text);
        flow_retry(d, mail, "content.missing");
    } else if (!blob || mail_slice(mail, blob, &why) < 0) {
        td_log(TD_ERROR, "content.damaged", "msg=%s why=\"%s\"", mail->key, blob ? why.text : err->text);
        flow_end(d, mail, RESULT(INVALID), "", NULL, "content.damaged");
    } else {
        campaign_ready(d->campaigns, mail, false);
        flow_pump_soon(d);
    }
}

/* ---- offering to relays ---- */

void flow_pump_soon(struct dispatch *d)
{
    /* It may be armed for later, by a campaign that waits for its cap. */
    if (!uv_is_active((uv_handle_t *)d->pump) || uv_timer_get_due_in(d->pump) > 0)
        uv_timer_start(d->pump, d->on_pump, 0, 0);
}

static bool is_late(const struct mail *mail, int64_t wall_ms)
{
    return mail->msg->deadline_unix_ms > 0 && wall_ms > mail->msg->deadline_unix_ms;
}

/* Back to those that have begun, before the others. */
static void back(struct dispatch *d, struct mail *mail)
{
    flow_begun(d, mail, 1);
    campaign_ready(d->campaigns, mail, true);
}

static void start(struct dispatch *d, struct mail *mail, size_t relay)
{
    mail->state = MAIL_SENDING;
    mail->attempts++;
    td_metric_add(d->m.attempts, 1);
    if (relays_send(d->relays, mail, relay) < 0) {
        mail->attempts--;
        back(d, mail);
    }
}

/* @return true when a mail that has begun moved on */
static bool offer(struct dispatch *d, struct campaign *c, uint64_t now_ms, int64_t wall_ms)
{
    struct mail *mail = c->go.first;
    enum route_answer answer;
    size_t relay = 0;

    if (c->cancelled) {
        mail_pop(&c->go);
        flow_begun(d, mail, -1);
        flow_end(d, mail, RESULT(CANCELLED), "", NULL, "campaign.cancelled");
        return true;
    }
    if (is_late(mail, wall_ms)) {
        mail_pop(&c->go);
        flow_begun(d, mail, -1);
        flow_end(d, mail, RESULT(EXPIRED), "", &mail->reply, "deadline");
        return true;
    }
    if (!lane_may_start(d->lanes, mail->lane, now_ms))
        return false;
    if (c->paused) { /* it would keep others from being begun */
        mail_pop(&c->go);
        flow_begun(d, mail, -1);
        flow_unbegin(d, mail);
        return true;
    }
    answer = relays_choose(d->relays, mail, &relay);
    if (answer == ROUTE_WAIT)
        return false;
    /* A mail that only one relay may have, which is unfit now, must not stand in the way of the others. */
    if (answer == ROUTE_HOLD && mail->pinned < 0 && !mail->avoid && !relays_held_ms(d->relays, mail))
        return false;
    mail_pop(&c->go);
    flow_begun(d, mail, -1);
    if (answer == ROUTE_SEND)
        start(d, mail, relay);
    else if (answer == ROUTE_HOLD)
        flow_unbegin(d, mail);
    else
        flow_end(d, mail, RESULT(INVALID), "", NULL, "route.no_relay_allowed");
    return true;
}

/* Each lane has one owner, and a campaign's recipients are spread evenly over its lanes, by chunks. So every dispatcher takes the part
 * of the cap that its lanes are of the campaign's: together never more than the cap, and nobody has to ask anybody. What
 * comes from a retry topic, or before the campaign's content was read, counts as one lane. */
static double cap_share(const struct dispatch *d, const struct campaign *c)
{
    enum td_topic_id topic = c->express ? TD_T_EXPRESS : TD_T_OUTBOUND;
    size_t owned = 0;

    for (const struct lane *lane = lane_first(d->lanes); lane; lane = lane->next)
        owned += lane->owned && lane->id.topic == topic && lane->id.partition < TD_LANES_MAX && c->lane[lane->id.partition];
    if (c->lane_count == 0)
        return 1.0 / (double)d->settings->kafka_lanes;
    return (double)(owned ? owned : 1) / (double)c->lane_count;
}

/* Take the campaign's next slot. @return false when it is not due yet */
static bool cap_take(struct dispatch *d, struct campaign *c, const struct mail *mail)
{
    uint32_t per_s = c->lane_count ? c->cap_per_s : mail->msg->max_mails_per_s;
    uint64_t now_us = td_mono_us(), first_us;

    if (per_s == 0)
        return true;
    /* A pump that comes a little late makes up for it, so that the cap is reached; a pause is never made up for. */
    if (td_gcra_take(&c->cap, per_s * cap_share(d, c), 1, CAP_LATE_US, now_us - CAP_LATE_US, &first_us) == 1)
        return true;
    if (d->cap_wait_us == 0 || c->cap.tat_us - now_us < d->cap_wait_us)
        d->cap_wait_us = c->cap.tat_us - now_us;
    return false;
}

/* @return true when a mail was taken to the ledger */
static bool admit(struct dispatch *d, struct campaign *c, uint64_t now_ms, int64_t wall_ms)
{
    struct mail *mail = c->ready.first;

    if (!lane_may_start(d->lanes, mail->lane, now_ms))
        return false;
    if (flow_doubts(mail)) {
        flow_doubt_tell(d, mail_pop(&c->ready));
        return true;
    }
    if (c->paused && !is_late(mail, wall_ms)) { /* nor may it stand in this process's window, or hold back its lane's offset */
        mail->msg->paused = true;
        mail->set_aside = true;
        flow_retry(d, mail_pop(&c->ready), "campaign.paused");
        return true;
    }
    if (!place_free(d->begun, relays_connections(d->relays), mail_is_express(mail)))
        return false;
    /* What ends without a relay goes on at once; all else only when a relay would have it. */
    if (!c->cancelled && !is_late(mail, wall_ms)) {
        if (relays_look(d->relays, mail) == ROUTE_HOLD) {
            if (relays_held_ms(d->relays, mail)) {
                mail->set_aside = true;
                flow_retry(d, mail_pop(&c->ready), "campaign.held");
                return true;
            }
            if (!mail->avoid)
                return false;
            flow_delay(d, mail_pop(&c->ready), wall_ms + LOOK_AGAIN_MS);
            flow_blob_back(d, mail);
            return true;
        }
        if (!cap_take(d, c, mail))
            return false;
    }
    flow_begin(d, mail_pop(&c->ready));
    return true;
}

struct pump { /* one run of it */
    struct dispatch *d;
    uint64_t now_ms;
    int64_t wall_ms;
};

static bool offer_next(void *user, struct campaign *c)
{
    const struct pump *pump = user;

    return offer(pump->d, c, pump->now_ms, pump->wall_ms);
}

static bool admit_next(void *user, struct campaign *c)
{
    const struct pump *pump = user;

    return admit(pump->d, c, pump->now_ms, pump->wall_ms);
}

void flow_pump(struct dispatch *d)
{
    struct pump pump = {d, td_mono_ms(), td_wall_ms()};
    struct campaign_round round = {{false, false}};
    unsigned burst = PUMP_BURST;

    /* A process that slept through its session is a zombie: its lanes may be someone else's. */
    if (pump.now_ms - td_kafka_in_alive_ms(d->in) > (uint64_t)d->settings->kafka_session_timeout_ms * 3 / 4)
        return;
    while (burst && campaign_offer(d->campaigns, &round, offer_next, &pump))
        burst--;
    while (burst && campaign_admit(d->campaigns, admit_next, &pump))
        burst--;
    flow_flush_begins(d);
    relays_want(d->relays, campaign_waiting(d->campaigns));
    if (!burst)
        flow_pump_soon(d);
    else if (d->cap_wait_us && !uv_is_active((uv_handle_t *)d->pump))
        uv_timer_start(d->pump, d->on_pump, d->cap_wait_us / 1000 + 1, 0);
    d->cap_wait_us = 0;
}

/* ---- what became of it ---- */

static void avoid(struct mail *mail, uint64_t for_ms)
{
    mail->avoid |= 1u << mail->relay;
    mail->avoid_until_ms = td_mono_ms() + for_ms;
}

static void again(struct dispatch *d, struct mail *mail)
{
    if (mail->dropped)
        flow_drop(d, mail);
    else
        back(d, mail);
}

static void replied(struct dispatch *d, struct mail *mail, const struct attempt_result *result)
{
    struct reply_class class = reply_classify(relays_rules(d->relays, mail->relay), result->phase, &result->reply);
    const char *relay = relays_name(d->relays, mail->relay);
    bool permanent = result->reply.code >= 500;

    mail->reply = result->reply;
    mail->phase = result->phase;
    mail->reason = class.reason;
    relays_report(d->relays, mail->relay, &class);
    td_log(class.scope == SCOPE_RECIPIENT ? TD_DEBUG : TD_INFO, "mail.refused",
           "msg=%s relay=%s phase=%s code=%d status=%s reason=%s", mail->key, relay, smtp_phase_name(result->phase),
           result->reply.code, result->reply.enhanced[0] ? result->reply.enhanced : "-", class.reason);
    switch (class.action) {
    case ACT_REFUSE:
        mail->hard_refusal = class.scope == SCOPE_RECIPIENT;
        flow_end(d, mail, RESULT(REFUSED), relay, &result->reply, class.reason);
        return;
    case ACT_RETRY:
        flow_retry(d, mail, class.reason);
        return;
    case ACT_RECONNECT:
        if (++mail->reconnects > RECONNECTS_MAX) /* it says so on fresh connections, too */
            avoid(mail, AVOID_RELAY_MS);
        again(d, mail);
        return;
    case ACT_OTHER_RELAY:
    case ACT_HOLD:
        avoid(mail, class.scope == SCOPE_RELAY || class.scope == SCOPE_CONNECTION ? AVOID_RELAY_MS : AVOID_MESSAGE_MS);
        if (class.scope == SCOPE_RELAY || class.scope == SCOPE_CONNECTION || relays_left(d->relays, mail))
            again(d, mail); /* a fault of the relay costs the mail nothing: it takes the other, or waits */
        else if (permanent)
            flow_end(d, mail, RESULT(REFUSED), relay, &result->reply, class.reason);
        else
            flow_retry(d, mail, class.reason);
        return;
    }
}

void flow_attempted(struct dispatch *d, struct mail *mail, const struct attempt_result *result)
{
    const char *relay = relays_name(d->relays, mail->relay);

    flow_pump_soon(d);
    switch (result->kind) {
    case ATTEMPT_ACCEPTED:
        mail->phase = result->phase;
        flow_end(d, mail, RESULT(ACCEPTED), relay, &result->reply, "");
        return;
    case ATTEMPT_REPLIED:
        replied(d, mail, result);
        return;
    case ATTEMPT_NOT_TAKEN:
        if (result->phase == PHASE_CONNECT)
            mail->attempts--;
        again(d, mail);
        return;
    case ATTEMPT_UNCONFIRMED:
        td_metric_add(d->m.unconfirmed_attempts, 1);
        td_log(TD_WARN, "mail.unconfirmed", "msg=%s relay=%s", mail->key, relay);
        if (mail->msg->on_unconfirmed == TANDEM__MAIL__V1__ON_UNCONFIRMED__ON_UNCONFIRMED_RESEND && !mail->dropped) {
            mail->pinned = (int)mail->relay; /* never a second copy through another relay */
            mail->in_doubt = true;
            again(d, mail);
            return;
        }
        flow_doubt(d, mail, (int)mail->relay, "unconfirmed.reply_lost");
        return;
    case ATTEMPT_INVALID:
        td_log(TD_ERROR, "mail.invalid_bytes", "msg=%s", mail->key);
        flow_end(d, mail, RESULT(INVALID), "", NULL, "message.bytes");
        return;
    }
}

/* ---- ends ---- */

void flow_blob_back(struct dispatch *d, struct mail *mail)
{
    statics_unref(d->statics, mail->blob);
    mail->blob = NULL;
}

void flow_end(struct dispatch *d, struct mail *mail, Tandem__Mail__V1__RecipientResult result, const char *relay,
              const struct smtp_reply *reply, const char *reason)
{
    size_t len;
    void *packed;
    bool counts; /* in the relay's sums */

    /* A resend that was refused, or never got its turn: the first copy may have arrived all the same. */
    if (mail->in_doubt && result != RESULT(ACCEPTED)) {
        result = RESULT(UNCONFIRMED);
        relay = mail->pinned >= 0 ? relays_name(d->relays, (size_t)mail->pinned) : "";
    }
    packed = mail_outcome(mail, result, relay, reply, reason, td_wall_ms(), &len);
    flow_blob_back(d, mail);
    if (!packed || bits_set(&mail->campaign->done, mail->msg->index, true) < 0) {
        free(packed);
        td_app_fail(d->app, &(struct td_err){TD_ENOMEM, "no memory for an outcome"});
        return;
    }
    td_metric_add(d->m.outcome[result], 1);
    counts = result == RESULT(ACCEPTED) || (result == RESULT(REFUSED) && mail->hard_refusal);
    outcomes_end(d->outcomes, mail, mail_result_name(result), counts ? relay : "", packed, len, flow_doubts(mail));
}

void flow_finished(struct dispatch *d, struct mail *mail)
{
    if (mail->lane)
        td_watermark_done(mail->lane->wm, mail->offset);
    flow_release(d, mail);
    flow_drained_check(d);
}

/* Out of all lists but those of its state, and gone. */
void flow_release(struct dispatch *d, struct mail *mail)
{
    if (!mail->twin)
        bits_set(&mail->campaign->busy, mail->msg->index, false);
    if (mail->lane_prev)
        mail->lane_prev->lane_next = mail->lane_next;
    else if (mail->lane)
        mail->lane->mails = mail->lane_next;
    else
        d->orphans = mail->lane_next;
    if (mail->lane_next)
        mail->lane_next->lane_prev = mail->lane_prev;
    flow_blob_back(d, mail);
    flow_count(d, mail->of_express, -1);
    mail_free(mail);
}
