/* The ledger: may this mail go? Asked for a campaign's mails together; who has begun what, and what that says about the owner
 * before us. */
#include <stdio.h>
#include <stdlib.h>

#include "flow_int.h"
#include "place.h"
#include "tandem/clock.h"
#include "tandem/log.h"
#include "tandem/stages.h"

void flow_begun(struct dispatch *d, const struct mail *mail, int change)
{
    d->begun[mail_is_express(mail)] += (size_t)change;
}

/* Was it written after Redis' view was built, so that every `tried` bit it ever had is there? */
static bool is_of_view(const struct dispatch *d, const struct mail *mail)
{
    int64_t view_ms = td_redis_view_ms(d->redis);

    return view_ms == 0 || mail->timestamp_ms > view_ms + CLOCKS_MS;
}

/* Nobody else can have begun it: the owner before left nothing in doubt, or it was written after we owned the lane, or the
 * lane had no owner since before it was written. */
static bool is_fresh(const struct dispatch *d, const struct mail *mail)
{
    const struct lane *lane = mail->lane;

    return lane && lane->owned && !bits_get(&mail->campaign->doubted, mail->msg->index) &&
           (lane->clean || mail->timestamp_ms > lane->owned_at_ms + CLOCKS_MS || (lane->first && is_of_view(d, mail)));
}

/* The ledger says GO, but `tried` bits of before Redis' loss are in no topic: the owner before may have begun this mail if it
 * is one of the first of its campaign in the lane (README.md: of how many, and why). Counts each mail that is not done. */
static bool is_unproven(struct dispatch *d, struct mail *mail)
{
    struct lane *lane = mail->lane;
    size_t *left;

    if (!lane || mail->counted || lane->unproven == 0 || mail->timestamp_ms > lane->owned_at_ms + CLOCKS_MS)
        return false;
    mail->counted = true;
    left = lane_unproven(lane, mail->campaign);
    if (left && *left == 0)
        return false;
    if (left)
        --*left;
    return !is_of_view(d, mail);
}

/* What an owner has begun of a lane (with its relays, and its reserve), and one more a connection: ended, and on its way to
 * mail.outcomes. */
static size_t in_flight_max(const struct td_settings *s, const struct lane *lane)
{
    size_t connections = 0, sending = 0;

    for (size_t i = 0; i < s->relay_count; i++) {
        const struct td_relay_settings *relay = &s->relays[i];
        size_t each = !relay->pipelining ? 1 : relay->bdat_window > 2 ? (size_t)relay->bdat_window : 2;

        connections += (size_t)relay->max_connections;
        sending += (size_t)relay->max_connections * each;
    }
    return sending + connections + place_most(connections, lane->id.topic != TD_T_OUTBOUND);
}

void flow_lane_owned(struct dispatch *d, struct lane *lane)
{
    struct mail *oldest = lane->mails;

    td_log(TD_DEBUG, "lane.owned", "lane=%s", lane->name);
    lane->unproven = lane->clean ? 0 : in_flight_max(d->settings, lane);
    /* In the order in which they were read: `unproven` is about the first of the lane. */
    while (oldest && oldest->lane_next)
        oldest = oldest->lane_next;
    for (struct mail *mail = oldest, *next; mail; mail = next) {
        next = mail->lane_prev;
        if (mail->state == MAIL_LANE)
            flow_prepare(d, mail);
    }
}

void flow_begin(struct dispatch *d, struct mail *mail)
{
    struct campaign *c = mail->campaign;

    mail->state = MAIL_BEGIN;
    flow_begun(d, mail, 1);
    mail_push(&c->begin, mail);
    if (!c->in_begin) {
        c->in_begin = true;
        c->begin_next = d->begins;
        d->begins = c;
    }
}

/* One question to the ledger. When its answer is lost it is asked again with the same token: a new question would meet the
 * `tried` bits that this one may have set. */
struct begin_call {
    struct begin_call *next;
    struct dispatch *d;
    const struct campaign *campaign;
    char token[64];
    bool sent; /* it may have been carried out */
    size_t count;
    struct mail *mail[TD_LEDGER_BATCH]; /* NULL: went without the ledger */
    uint32_t index[TD_LEDGER_BATCH];
};

static void go(struct dispatch *d, struct mail *mail)
{
    mail->begun = true;
    flow_begun(d, mail, 1);
    campaign_ready(d->campaigns, mail, false);
}

/* @return false when it waits for the answer to this very question */
static bool begin_without_ledger(struct dispatch *d, struct mail *mail, bool sent)
{
    if (mail->dropped) {
        flow_drop(d, mail);
    } else if (bits_get(&mail->campaign->done, mail->msg->index)) {
        td_metric_add(d->m.repeats, 1);
        flow_finished(d, mail);
    } else if (is_fresh(d, mail)) {
        td_metric_add(d->m.ledger_away, 1);
        mail->tried = sent;
        go(d, mail);
    } else if (sent) {
        mail->state = MAIL_LEDGER;
        return false;
    } else {
        mail->parked = true; /* not asked, not in doubt: it is asked like any other when Redis is back */
        flow_delay(d, mail, 0);
    }
    return true;
}

static void begun(struct dispatch *d, struct mail *mail, const struct td_begun *b)
{
    enum td_verdict verdict = b->verdict;

    mail->tried = true;
    if (mail->dropped) {
        mail->begun = verdict == TD_GO;
        flow_drop(d, mail);
        return;
    }
    if (verdict == TD_PROVEN && flow_proven(d, mail, b->outcome, b->outcome_len))
        return;
    if (verdict != TD_DONE && (verdict == TD_PROVEN || is_unproven(d, mail)))
        verdict = TD_TRIED;
    switch (verdict) {
    case TD_GO:
        go(d, mail);
        return;
    case TD_DONE:
        td_metric_add(d->m.repeats, 1);
        if (b->outcome)
            outcomes_again(d->outcomes, mail, b->outcome, b->outcome_len);
        else
            flow_finished(d, mail);
        return;
    case TD_PROVEN: /* above */
    case TD_TRIED:
        if (mail->msg->on_unconfirmed == TANDEM__MAIL__V1__ON_UNCONFIRMED__ON_UNCONFIRMED_RESEND) {
            mail->in_doubt = true;
            go(d, mail);
            return;
        }
        flow_doubt(d, mail, -1, "unconfirmed.owner_gone");
        return;
    }
}

static void ask(struct begin_call *call);

static void on_begun(void *user, const struct td_begun *b, size_t count, const struct td_err *err)
{
    struct begin_call *call = user;
    struct dispatch *d = call->d;
    enum td_stage before = td_stage(TD_STAGE_TURN);
    size_t waiting = 0;

    for (size_t i = 0; i < call->count; i++) {
        struct mail *mail = call->mail[i];

        if (!mail)
            continue;
        if (mail->state == MAIL_BEGIN)
            flow_begun(d, mail, -1);
        if (err || i >= count) {
            if (begin_without_ledger(d, mail, call->sent))
                call->mail[i] = NULL;
            else
                waiting++;
        } else {
            begun(d, mail, &b[i]);
        }
    }
    flow_pump_soon(d);
    if (waiting) {
        call->next = d->unanswered;
        d->unanswered = call;
    } else {
        free(call);
    }
    td_stage(before);
}

static void ask(struct begin_call *call)
{
    enum td_stage before = td_stage(TD_STAGE_REDIS);
    int rc = td_ledger_begin_as(call->d->redis, call->campaign->id, call->token, call->index, call->count, on_begun, call);

    td_stage(before);
    call->sent = call->sent || rc == TD_OK;
    if (!td_redis_answers(rc))
        on_begun(call, NULL, 0, &(struct td_err){.code = TD_ENOMEM});
}

static void begin_batch(struct dispatch *d, struct campaign *c)
{
    struct begin_call *call = malloc(sizeof(*call));

    if (!call) {
        td_app_fail(d->app, &(struct td_err){TD_ENOMEM, "ledger call"});
        return;
    }
    call->d = d;
    call->campaign = c;
    call->sent = false;
    snprintf(call->token, sizeof(call->token), "%s:%llu", d->run, (unsigned long long)++d->begin_count);
    for (call->count = 0; call->count < TD_LEDGER_BATCH && c->begin.first; call->count++) {
        call->mail[call->count] = mail_pop(&c->begin);
        call->index[call->count] = call->mail[call->count]->msg->index;
    }
    ask(call);
}

void flow_flush_begins(struct dispatch *d)
{
    struct campaign *c;

    while ((c = d->begins)) {
        d->begins = c->begin_next;
        c->in_begin = false;
        while (c->begin.first)
            begin_batch(d, c);
    }
}

void flow_ledger_back(struct dispatch *d)
{
    struct begin_call *call = d->unanswered, *next;

    d->unanswered = NULL;
    for (; call; call = next) {
        next = call->next;
        ask(call);
    }
}

void flow_forget_questions(struct dispatch *d)
{
    struct begin_call *call;

    while ((call = d->unanswered)) {
        d->unanswered = call->next;
        free(call);
    }
}
