/* record -> token and what it says (settle_read.c) -> ledger: has the mail its outcome? in doubt: it is ACCEPTED; else noted
 *        -> address hash -> ledger: counter of bounces -> relay's hours -> suppression (Redis) -> topics (settle_write.c) -> done
 *
 * Each step may be repeated: the ledger ends and counts a recipient once, and all else is named by its key. Whatever
 * fails is tried again from the start a little later. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ses_event.h"
#include "settle_int.h"
#include "tandem/clock.h"
#include "tandem/ledger.h"
#include "tandem/log.h"
#include "tandem/stages.h"
#include "tandem/stop.h"

enum {
    AGAIN_MS = 500,
    DRAIN_MS = 10000,
    GRACE_MS = 3000,     /* dispatch ends what its relay has answered */
    REDIS_GRACE_MS = 10000 /* and writes back what it ended while Redis was away */
};

static void report_start(struct report *r);

/* ---- the end of a report ---- */

static void check_drained(struct settle *s)
{
    void (*drained)(void *) = s->drained;

    if (!drained || s->busy)
        return;
    s->drained = NULL;
    drained(s->user);
}

static void report_free(struct report *r)
{
    if (r->prev)
        r->prev->next = r->next;
    else
        r->owner->all = r->next;
    if (r->next)
        r->next->prev = r->prev;
    free(r->outcome);
    free(r->raw);
    free(r);
}

/* done: false leaves it to whoever reads the record next. */
static void report_end(struct report *r, bool done)
{
    struct settle *s = r->owner;
    struct td_lane lane = r->lane;
    int64_t offset = r->offset;
    bool forgotten = r->forgotten;

    report_free(r);
    if (forgotten)
        return;
    td_metric_set(s->m_busy, (double)--s->busy);
    if (done)
        s->ops.done(s->user, lane, offset);
    check_drained(s);
}

static void report_again(struct report *r)
{
    struct settle *s = r->owner;

    if (r->forgotten || s->drained) {
        report_end(r, false);
        return;
    }
    r->again_next = s->again;
    s->again = r;
}

/* The pending copy of an outcome goes once mail.outcomes has it; should that fail it stays until it expires. */
void settle_written(struct report *r, bool all)
{
    if (all && r->outcome)
        td_ledger_published(r->owner->redis, r->token.campaign_id, &r->token.index, 1, NULL, NULL);
    if (all)
        report_end(r, true);
    else
        report_again(r);
}

/* ---- Redis ---- */

/* A call of Redis that failed has told so, or will, by its callback, except for these two. */
static void asked(struct report *r, int rc)
{
    if (rc == TD_ENOMEM) {
        report_again(r);
    } else if (rc == TD_EINVAL) { /* the ledger has no such number: a token of another installation with our key */
        td_metric_add(r->owner->ignored[IGNORED_UNFIT], 1);
        td_log(TD_WARN, "report.ignored", "msg=%s/%" PRIu32 " why=\"no such mail can be\"", r->token.campaign_id,
               r->token.index);
        report_end(r, true);
    }
}

static void on_suppressed(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct report *r = user;

    if (err) {
        report_again(r);
        return;
    }
    if (r->complained && td_reply_int(reply))
        td_metric_add(r->owner->complaints, 1);
    settle_publish(r);
}

static void suppress(struct report *r)
{
    if (r->suppress && r->has_hash)
        asked(r, td_suppression_add(r->owner->redis, r->hash, on_suppressed, r));
    else
        settle_publish(r);
}

/* Each call, and the function that makes them. */
static void on_told(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct report *r = user;

    (void)reply;
    r->failed = r->failed || err != NULL;
    if (--r->tells)
        return;
    if (r->failed) {
        r->failed = false;
        report_again(r);
    } else {
        r->then(r);
    }
}

/* The relay's own rate is counted beside the campaign's, from what the ledger says the campaign has there: so a crash between
 * the two is made good when the record comes again. */
static void tell_relay(struct report *r, const struct td_reply *hours, void (*then)(struct report *r))
{
    r->then = then;
    r->tells = 1;
    for (size_t i = 0; i < td_reply_count(hours); i++) {
        int rc = td_relay_count(r->owner->redis, r->token.campaign_id, td_reply_str(td_reply_at(hours, i), NULL), on_told, r);

        r->tells += td_redis_answers(rc);
        r->failed = r->failed || rc == TD_ENOMEM;
    }
    on_told(r, NULL, NULL);
}

static void on_counted(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct report *r = user;

    if (err) {
        report_again(r);
        return;
    }
    if (td_reply_int(td_reply_at(reply, 0)))
        td_metric_add(r->owner->by_class[r->verdict.class], 1);
    tell_relay(r, td_reply_at(reply, 1), suppress);
}

static void count(struct report *r)
{
    /* The ledger has three counters. What is neither about the address nor about its mailbox counts as a block. */
    enum bounce_class class = r->verdict.class > BOUNCE_BLOCK ? BOUNCE_BLOCK : r->verdict.class;

    if (r->bounced)
        asked(r, td_ledger_bounce(r->owner->redis, r->token.campaign_id, r->token.index, r->relay,
                                  bounce_class_name(class), on_counted, r));
    else
        suppress(r);
}

static void on_ended(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct report *r = user;

    if (err || td_reply_count(reply) > TD_ENDED_OTHERS) { /* not told, or somebody was faster: it is looked at again */
        report_again(r);
        return;
    }
    r->ended = true;
    td_metric_add(r->owner->settled, 1);
    td_log(TD_INFO, "mail.settled", "msg=%s/%" PRIu32 " relay=%s to=accepted by=%s", r->token.campaign_id, r->token.index,
           r->relay, r->evidence);
    tell_relay(r, td_reply_at(reply, TD_ENDED_HOURS), count);
}

static void on_noted(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct report *r = user;

    if (err || td_reply_int(reply) != TD_NOTED) { /* not told; or it has ended meanwhile, or is in doubt now */
        report_again(r);
        return;
    }
    free(r->outcome);
    r->outcome = NULL;
    r->noted = true;
    td_metric_add(r->owner->noted, 1);
    td_log(TD_DEBUG, "mail.noted", "msg=%s/%" PRIu32 " relay=%s by=%s", r->token.campaign_id, r->token.index, r->relay, r->evidence);
    count(r);
}

/* It has no outcome, and what came back proves that the relay took it. Only a mail in doubt is ended: a dispatcher that has it under
 * way will say what became of it, perhaps without the ledger, when it is cut off from Redis. */
static void end_mail(struct report *r)
{
    struct td_ended ended = {.index = r->token.index, .result = "accepted", .relay = r->relay};

    r->outcome = settle_outcome(r, &r->outcome_len);
    if (!r->outcome) {
        report_again(r);
        return;
    }
    ended.outcome = r->outcome;
    ended.outcome_len = r->outcome_len;
    if (r->doubted)
        asked(r, td_ledger_end(r->owner->redis, r->token.campaign_id, &ended, 1, on_ended, r));
    else
        asked(r, td_ledger_note(r->owner->redis, r->token.campaign_id, r->token.index, r->outcome, r->outcome_len, on_noted, r));
}

/* What came back names nobody we trust; the hash that ingestion stored for this number does. A number that was never
 * stored (Redis has lost it) reads as nothing or as zeros. */
static void on_hash(void *user, const struct td_reply *reply, const struct td_err *err)
{
    static const uint8_t zeros[TD_HASH_BYTES];
    struct report *r = user;
    const char *hash;
    size_t len = 0;

    if (err) {
        report_again(r);
        return;
    }
    hash = td_reply_str(reply, &len);
    r->has_hash = len == sizeof(r->hash) && memcmp(hash, zeros, sizeof(zeros)) != 0;
    if (r->has_hash) {
        memcpy(r->hash, hash, sizeof(r->hash));
    } else if (r->suppress) {
        td_metric_add(r->owner->no_hash, 1);
        td_log(TD_WARN, "bounce.not_suppressed",
               "msg=%s/%" PRIu32 " why=\"Redis does not know whose mail it was\"", r->token.campaign_id,
               r->token.index);
    }
    if (r->outcome || r->known || r->noted)
        count(r);
    else
        end_mail(r);
}

static void ask_hash(struct report *r)
{
    char key[TD_CAMPAIGN_ID_MAX + 32], from[24], to[24];
    struct td_arg args[4];

    snprintf(key, sizeof(key), "td:{c:%s}:addr", r->token.campaign_id);
    snprintf(from, sizeof(from), "%" PRIu64, (uint64_t)r->token.index * TD_HASH_BYTES);
    snprintf(to, sizeof(to), "%" PRIu64, (uint64_t)r->token.index * TD_HASH_BYTES + TD_HASH_BYTES - 1);
    args[0] = TD_ARG_STR("GETRANGE");
    args[1] = TD_ARG_STR(key);
    args[2] = TD_ARG_STR(from);
    args[3] = TD_ARG_STR(to);
    asked(r, td_redis_command(r->owner->redis, args, 4, on_hash, r));
}

/* Who ended it may have died before mail.outcomes had it, this process included, in an earlier life. */
static bool take_pending(struct report *r, const char *pending, size_t len)
{
    r->outcome = malloc(len);
    if (!r->outcome)
        return false;
    memcpy(r->outcome, pending, len);
    r->outcome_len = len;
    return true;
}

/* A mail whose relay has answered is ended by dispatch, a moment after it was taken: an event that is faster waits for
 * that, and there is nothing to note. So does one that comes when Redis has just come back: what dispatch ended without it
 * is on mail.outcomes, and not yet in the ledger. */
static void on_looked(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct report *r = user;
    bool done, early = td_wall_ms() < r->received_ms + GRACE_MS || td_mono_ms() < r->owner->redis_up_ms + REDIS_GRACE_MS;
    const char *pending;
    size_t len = 0;

    if (err) {
        report_again(r);
        return;
    }
    done = td_reply_int(td_reply_at(reply, 0)) == 1;
    free(r->outcome); /* of an earlier try: what holds is what the ledger has now */
    r->outcome = NULL;
    r->noted = false;
    pending = td_reply_str(td_reply_at(reply, TD_LOOKED_PENDING), &len);
    r->doubted = !done && td_reply_int(td_reply_at(reply, TD_LOOKED_DOUBT)) == 1;
    r->known = done && len == 0;
    if (!r->known && !r->doubted && early) {
        report_again(r);
    } else if (done && len && !take_pending(r, pending, len)) {
        report_again(r);
    } else if (r->known && !r->bounced && !r->complained && !r->suppress) {
        report_end(r, true); /* as nearly all are: the proof of what was known */
    } else {
        ask_hash(r);
    }
}

static void report_start(struct report *r)
{
    if (r->dead)
        settle_dead_letter(r);
    else if (r->ended)
        count(r); /* again: the ledger has it from us, mail.outcomes may not */
    else
        asked(r, td_ledger_look(r->owner->redis, r->token.campaign_id, r->token.index, on_looked, r));
}

/* Try again what failed; give up a drain that takes too long. */
static void on_timer(uv_timer_t *timer)
{
    struct settle *s = timer->data;
    struct report *r = s->again, *next;

    if (s->drained && td_mono_ms() >= s->drain_until_ms) {
        td_log(TD_WARN, "reports.left", "n=%zu why=\"not done in time; the next owner reads them again\"",
               s->busy);
        settle_forget(s);
        check_drained(s);
        return;
    }
    s->again = NULL;
    for (; r; r = next) {
        next = r->again_next;
        report_start(r);
    }
}

/* ---- reading ---- */

static int keep_raw(struct report *r, const struct td_record *rec, const char *reason)
{
    r->raw = malloc(rec->key_len + rec->len + 1);
    if (!r->raw)
        return TD_ENOMEM;
    if (rec->key_len)
        memcpy(r->raw, rec->key, rec->key_len);
    if (rec->len)
        memcpy(r->raw + rec->key_len, rec->value, rec->len);
    r->key_len = rec->key_len;
    r->raw_len = rec->len;
    r->dead = true;
    r->dead_reason = reason;
    return TD_OK;
}

static struct report *report_new(struct settle *s, const struct td_record *rec)
{
    struct report *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->owner = s;
    r->lane = rec->lane;
    r->offset = rec->offset;
    r->next = s->all;
    if (r->next)
        r->next->prev = r;
    s->all = r;
    td_metric_set(s->m_busy, (double)++s->busy);
    return r;
}

static void report_log(const struct report *r)
{
    td_log(TD_INFO, "bounce", "msg=%s/%" PRIu32 " relay=%s class=%s status=%s reason=%s", r->token.campaign_id,
           r->token.index, r->relay, bounce_class_name(r->verdict.class), r->status[0] ? r->status : "-",
           r->verdict.reason);
}

void settle_record(struct settle *s, const struct td_record *rec)
{
    struct report *r = report_new(s, rec);
    struct td_err err = {TD_OK, ""};
    enum ignored why = IGNORED_FORGED;
    enum td_stage before;
    int rc;

    if (!r) {
        s->ops.fatal(s->user, &(struct td_err){TD_ENOMEM, "no memory for a report"});
        return;
    }
    before = td_stage(TD_STAGE_PARSE);
    rc = settle_read(s, rec, r, &why, &err);
    td_stage(before);
    if (rc == TD_ESYNTAX || rc == TD_ETOOBIG) {
        td_metric_add(s->dead, 1);
        rc = keep_raw(r, rec, "feedback.unreadable");
    }
    if (rc == TD_ENOMEM) {
        report_end(r, false);
        s->ops.fatal(s->user, &(struct td_err){TD_ENOMEM, "no memory for a report"});
        return;
    }
    if (rc < 0) {
        td_metric_add(s->ignored[rc == TD_EDENIED ? IGNORED_FORGED : why], 1);
        td_log(why == IGNORED_NO_EVENT && rc != TD_EDENIED ? TD_DEBUG : TD_INFO, "report.ignored", "partition=%" PRId32 " offset=%" PRId64 " why=\"%s\"",
               rec->lane.partition, rec->offset, err.text);
        report_end(r, true);
        return;
    }
    if (r->bounced)
        report_log(r);
    report_start(r);
}

/* ---- life ---- */

size_t settle_busy(const struct settle *s)
{
    return s->busy;
}

/* Those that wait for an answer stay until it comes. */
void settle_forget(struct settle *s)
{
    struct report *r, *next;

    for (r = s->all; r; r = r->next)
        r->forgotten = true;
    s->busy = 0;
    td_metric_set(s->m_busy, 0);
    for (r = s->again; r; r = next) {
        next = r->again_next;
        report_end(r, false);
    }
    s->again = NULL;
}

void settle_drain(struct settle *s, void (*drained)(void *user))
{
    struct report *r, *next;

    s->drained = drained;
    s->drain_until_ms = td_stop_sooner(td_mono_ms() + DRAIN_MS, TD_STOP_WORK);
    s->busy++; /* so that the end comes once, below at the earliest */
    r = s->again;
    s->again = NULL;
    for (; r; r = next) {
        next = r->again_next;
        report_end(r, false);
    }
    s->busy--;
    check_drained(s);
}

static void on_redis(void *user, bool up, const char *run_id)
{
    struct settle *s = user;

    (void)run_id;
    if (up && s->redis_was_up)
        s->redis_up_ms = td_mono_ms();
    s->redis_was_up = s->redis_was_up || up;
}

static void make_metrics(struct settle *s, struct td_metrics *metrics)
{
    static const char *const why[] = {
        [IGNORED_FORGED] = "forged", [IGNORED_NO_FAILURE] = "no_failure", [IGNORED_NO_EVENT] = "no_event", [IGNORED_UNFIT] = "unfit"};
    char labels[32];

    for (int c = BOUNCE_HARD; c <= BOUNCE_UNKNOWN; c++) {
        snprintf(labels, sizeof(labels), "class=\"%s\"", bounce_class_name((enum bounce_class)c));
        s->by_class[c] = td_metric(metrics, TD_COUNTER, "tandem_bounce_bounces_total",
                                   "Bounced mails, each counted once.", labels);
    }
    for (size_t i = 0; i < sizeof(why) / sizeof(why[0]); i++) {
        snprintf(labels, sizeof(labels), "why=\"%s\"", why[i]);
        s->ignored[i] = td_metric(metrics, TD_COUNTER, "tandem_bounce_ignored_total",
                                  "Mails that came back and changed nothing.", labels);
    }
    for (int k = SES_OTHER; k <= SES_REJECT; k++) {
        snprintf(labels, sizeof(labels), "kind=\"%s\"", ses_kind_name((enum ses_kind)k));
        s->events[k] = td_metric(metrics, TD_COUNTER, "tandem_bounce_events_total", "Events of SES that were read.", labels);
    }
    s->complaints = td_metric(metrics, TD_COUNTER, "tandem_bounce_complaints_total",
                              "Complaints by addresses that were not suppressed yet.", "");
    s->settled = td_metric(metrics, TD_COUNTER, "tandem_bounce_settled_total",
                           "Mails whose outcome is ACCEPTED because of what came back.", "");
    s->noted = td_metric(metrics, TD_COUNTER, "tandem_bounce_noted_total",
                         "Proofs kept for mails that somebody still has under way.", "");
    s->no_hash = td_metric(metrics, TD_COUNTER, "tandem_bounce_not_suppressed_total",
                           "Bounces and complaints whose address is not known any more, because Redis lost it.", "");
    s->dead = td_metric(metrics, TD_COUNTER, "tandem_bounce_dead_letters_total",
                        "Records of mail.feedback that could not be read.", "");
    s->m_busy =
        td_metric(metrics, TD_GAUGE, "tandem_bounce_reports_under_way", "Reports read and not yet settled.", "");
}

int settle_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics,
               struct td_redis *redis, struct td_kafka_out *out, const struct settle_ops *ops, void *user,
               struct settle **ret, struct td_err *reterr)
{
    struct settle *s = calloc(1, sizeof(*s));

    if (s)
        s->timer = malloc(sizeof(*s->timer));
    if (!s || !s->timer) {
        free(s);
        return td_fail(reterr, TD_ENOMEM, "reports");
    }
    s->settings = settings;
    s->redis = redis;
    s->out = out;
    s->ops = *ops;
    s->user = user;
    for (size_t i = 0; i < settings->relay_count; i++)
        s->relays[i] = settings->relays[i].name;
    make_metrics(s, metrics);
    uv_timer_init(loop, s->timer);
    s->timer->data = s;
    uv_timer_start(s->timer, on_timer, AGAIN_MS, AGAIN_MS);
    td_redis_on_state(redis, on_redis, s);
    *ret = s;
    return TD_OK;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

void settle_free(struct settle *s)
{
    if (!s)
        return;
    settle_forget(s);
    assert(!s->all); /* redis and out have ended all their callbacks */
    uv_close((uv_handle_t *)s->timer, on_timer_closed);
    free(s);
}
