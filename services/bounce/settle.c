/* report -> token -> class -> ledger counter -> relay's hours -> address hash -> suppression (Redis, then topic) and outcome ->
 * done
 *
 * The ledger's counter comes first: it says whether this recipient was counted before, so a report that comes
 * twice counts once. All later steps are idempotent by key. Whatever fails is tried again from the counter a
 * little later. */
#include "settle.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bounce_classify.h"
#include "tandem/clock.h"
#include "tandem/dead_letter.h"
#include "tandem/ledger.h"
#include "tandem/log.h"
#include "tandem/pb.h"
#include "tandem/token.h"

#include "tandem/internal/v1/feedback.pb-c.h"
#include "tandem/mail/v1/outcome.pb-c.h"
#include "tandem/mail/v1/suppression.pb-c.h"

enum { AGAIN_MS = 500, DRAIN_MS = 10000 };

struct report {
    struct report *prev, *next; /* of all that are under way */
    struct report *again_next;
    struct settle *owner;
    struct td_lane lane;
    int64_t offset, received_ms;
    bool forgotten; /* its lane is gone: it ends without `done`, and counts no more as under way */
    bool dead;      /* not readable: it only goes to the dead letters, from raw */
    struct td_token token;
    const char *relay;
    struct bounce_verdict verdict;
    char status[12];
    uint8_t hash[TD_HASH_BYTES];
    bool has_hash;
    size_t tells;      /* calls that tell its relay what the campaign has there */
    size_t deliveries; /* records on their way */
    bool failed;       /* one of them was not written */
    const char *dead_reason;
    size_t key_len, raw_len;
    char *raw; /* key and value of the record, when dead */
};

struct settle {
    const struct td_settings *settings;
    struct td_redis *redis;
    struct td_kafka_out *out;
    struct settle_ops ops;
    void *user;
    const char *relays[TD_RELAYS_MAX];
    uv_timer_t *timer;
    struct report *all, *again; /* again: those that wait for their next try */
    size_t busy;
    void (*drained)(void *user);
    uint64_t drain_until_ms;
    struct td_metric *by_class[BOUNCE_UNKNOWN + 1], *ignored[3], *dead, *no_hash, *m_busy;
};

enum { IGNORED_FORGED, IGNORED_NO_FAILURE, IGNORED_UNFIT };

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

/* ---- Kafka ---- */

static void on_delivered(void *user, int64_t offset, const struct td_err *err)
{
    struct report *r = user;

    (void)offset;
    if (err && err->code == TD_EFATAL)
        r->owner->ops.fatal(r->owner->user, err);
    r->failed = r->failed || err != NULL;
    if (--r->deliveries)
        return;
    if (r->failed) {
        r->failed = false;
        report_again(r);
    } else {
        report_end(r, true);
    }
}

static void written(struct report *r, int rc, const struct td_err *err)
{
    if (rc == TD_OK)
        r->deliveries++;
    else
        r->failed = true;
    if (rc == TD_EFATAL)
        r->owner->ops.fatal(r->owner->user, err);
}

static void message_send(struct report *r, enum td_topic_id topic, const void *key, size_t key_len,
                         const ProtobufCMessage *msg)
{
    size_t len;
    void *packed = td_pb_write(msg, &len);
    struct td_err err = {TD_ENOMEM, "no memory for a record"};
    int rc = TD_ENOMEM;

    if (packed)
        rc =
            td_kafka_out_send(r->owner->out, topic, -1, key, key_len, packed, len, NULL, 0, on_delivered, r, &err);
    written(r, rc, &err);
    free(packed);
}

static Tandem__Mail__V1__BounceClass class_of(enum bounce_class class)
{
    static const Tandem__Mail__V1__BounceClass to[] = {
        [BOUNCE_HARD] = TANDEM__MAIL__V1__BOUNCE_CLASS__BOUNCE_CLASS_HARD,
        [BOUNCE_SOFT] = TANDEM__MAIL__V1__BOUNCE_CLASS__BOUNCE_CLASS_SOFT,
        [BOUNCE_BLOCK] = TANDEM__MAIL__V1__BOUNCE_CLASS__BOUNCE_CLASS_BLOCK,
        [BOUNCE_MESSAGE] = TANDEM__MAIL__V1__BOUNCE_CLASS__BOUNCE_CLASS_MESSAGE,
        [BOUNCE_CAMPAIGN] = TANDEM__MAIL__V1__BOUNCE_CLASS__BOUNCE_CLASS_CAMPAIGN,
        [BOUNCE_UNKNOWN] = TANDEM__MAIL__V1__BOUNCE_CLASS__BOUNCE_CLASS_UNKNOWN,
    };

    return to[class];
}

static void send_outcome(struct report *r)
{
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;
    Tandem__Mail__V1__BounceFact fact = TANDEM__MAIL__V1__BOUNCE_FACT__INIT;
    char key[TD_MAIL_KEY_MAX];
    size_t key_len = td_mail_key(key, r->token.campaign_id, r->token.index);

    fact.class_ = class_of(r->verdict.class);
    fact.relay = (char *)(uintptr_t)r->relay;
    fact.enhanced_status = r->status;
    fact.reason = (char *)(uintptr_t)r->verdict.reason;
    if (r->has_hash)
        fact.address_hash = (ProtobufCBinaryData){sizeof(r->hash), r->hash};
    outcome.campaign_id = r->token.campaign_id;
    outcome.index = r->token.index;
    outcome.at_unix_ms = r->received_ms;
    outcome.service = (char *)(uintptr_t) "bounce";
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_BOUNCE;
    outcome.bounce = &fact;
    message_send(r, TD_T_OUTCOMES, key, key_len, &outcome.base);
}

static void send_suppression(struct report *r)
{
    Tandem__Mail__V1__Suppression suppression = TANDEM__MAIL__V1__SUPPRESSION__INIT;

    suppression.address_hash = (ProtobufCBinaryData){sizeof(r->hash), r->hash};
    suppression.reason = TANDEM__MAIL__V1__SUPPRESSION_REASON__SUPPRESSION_REASON_HARD_BOUNCE;
    suppression.at_unix_ms = r->received_ms;
    suppression.campaign_id = r->token.campaign_id;
    message_send(r, TD_T_SUPPRESSIONS, r->hash, sizeof(r->hash), &suppression.base);
}

static void publish(struct report *r)
{
    r->deliveries = 1; /* this function, so that the report does not end before both are sent */
    send_outcome(r);
    if (r->verdict.class == BOUNCE_HARD && r->has_hash)
        send_suppression(r);
    on_delivered(r, -1, NULL);
}

static void send_dead_letter(struct report *r)
{
    const struct td_record rec = {
        .lane = r->lane,
        .offset = r->offset,
        .key = r->raw,
        .key_len = r->key_len,
        .value = r->raw + r->key_len,
        .len = r->raw_len,
    };
    struct td_err err;

    r->deliveries = 1; /* this function */
    written(r, td_dead_letter(r->owner->out, "bounce", &rec, r->dead_reason, on_delivered, r, &err), &err);
    on_delivered(r, -1, NULL);
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

    (void)reply;
    if (err)
        report_again(r);
    else
        publish(r);
}

/* The report names nobody we trust; the hash that ingestion stored for this number does. A number that was never
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
    } else if (r->verdict.class == BOUNCE_HARD) {
        td_metric_add(r->owner->no_hash, 1);
        td_log(TD_WARN, "bounce.not_suppressed",
               "msg=%s/%" PRIu32 " why=\"Redis does not know whose mail it was\"", r->token.campaign_id,
               r->token.index);
    }
    if (r->verdict.class == BOUNCE_HARD && r->has_hash)
        asked(r, td_suppression_add(r->owner->redis, r->hash, on_suppressed, r));
    else
        publish(r);
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
        ask_hash(r);
    }
}

/* The relay's own bounce rate is counted beside the campaign's, from what the ledger says the campaign has: so a crash between
 * the two is made good when the report comes again. */
static void on_counted(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct report *r = user;
    const struct td_reply *hours = td_reply_at(reply, 1);

    if (err) {
        report_again(r);
        return;
    }
    if (td_reply_int(td_reply_at(reply, 0)))
        td_metric_add(r->owner->by_class[r->verdict.class], 1);
    r->tells = 1;
    for (size_t i = 0; i < td_reply_count(hours); i++) {
        int rc = td_relay_count(r->owner->redis, r->token.campaign_id, td_reply_str(td_reply_at(hours, i), NULL), on_told, r);

        r->tells += td_redis_answers(rc);
        r->failed = r->failed || rc == TD_ENOMEM;
    }
    on_told(r, NULL, NULL);
}

static void report_start(struct report *r)
{
    /* The ledger has three counters. What is neither about the address nor about its mailbox counts as a block. */
    enum bounce_class class = r->verdict.class > BOUNCE_BLOCK ? BOUNCE_BLOCK : r->verdict.class;

    if (r->dead)
        send_dead_letter(r);
    else
        asked(r, td_ledger_bounce(r->owner->redis, r->token.campaign_id, r->token.index, r->relay,
                                  bounce_class_name(class), on_counted, r));
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

/* @return TD_OK; TD_ENOTFOUND: no failure is reported; TD_EDENIED: forged or not ours; TD_ESYNTAX, TD_ETOOBIG: no
 * Feedback; TD_ENOMEM */
static int read_report(struct settle *s, const struct td_record *rec, struct report *r, struct td_err *reterr)
{
    struct td_arena *arena = td_arena_new(td_pb_budget(rec->len));
    Tandem__Internal__V1__Feedback *msg = NULL;
    struct dsn dsn = {.kind = REPORT_NONE};
    int rc;

    if (!arena)
        return td_fail(reterr, TD_ENOMEM, "report");
    rc = td_pb_read(&tandem__internal__v1__feedback__descriptor, rec->value, rec->len, arena,
                    (ProtobufCMessage **)&msg, reterr);
    if (rc < 0)
        goto out;
    if (msg->source != TANDEM__INTERNAL__V1__FEEDBACK_SOURCE__FEEDBACK_SOURCE_MAIL) {
        rc = td_fail(reterr, TD_ESYNTAX, "feedback of a kind that this release does not know");
        goto out;
    }
    if (td_token_read(msg->envelope_recipient, strlen(msg->envelope_recipient), TD_TOKEN_BOUNCE,
                      s->settings->keys_token, strlen(s->settings->keys_token), s->relays,
                      s->settings->relay_count, &r->token, NULL) < 0) {
        rc = td_fail(reterr, TD_EDENIED, "its return path does not verify");
        goto out;
    }
    /* What cannot be read as mail, or is too deep, reports nothing. */
    if (dsn_read(msg->raw.data, msg->raw.len, &dsn, reterr) < 0 || dsn.kind != REPORT_FAILED) {
        rc =
            td_fail(reterr, TD_ENOTFOUND, "%s", dsn.kind == REPORT_NONE ? "no delivery report" : "nobody bounced");
        goto out;
    }
    r->received_ms = msg->received_at_unix_ms;
    r->verdict = bounce_classify(&dsn);
    r->relay = s->relays[r->token.relay];
    memcpy(r->status, dsn.status, sizeof(r->status));
out:
    td_arena_free(arena);
    return rc;
}

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
    int rc;

    if (!r) {
        s->ops.fatal(s->user, &(struct td_err){TD_ENOMEM, "no memory for a report"});
        return;
    }
    rc = read_report(s, rec, r, &err);
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
        td_metric_add(s->ignored[rc == TD_EDENIED ? IGNORED_FORGED : IGNORED_NO_FAILURE], 1);
        td_log(TD_INFO, "report.ignored", "partition=%" PRId32 " offset=%" PRId64 " why=\"%s\"",
               rec->lane.partition, rec->offset, err.text);
        report_end(r, true);
        return;
    }
    if (!r->dead)
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
    s->drain_until_ms = td_mono_ms() + DRAIN_MS;
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

static void make_metrics(struct settle *s, struct td_metrics *metrics)
{
    static const char *const why[] = {
        [IGNORED_FORGED] = "forged", [IGNORED_NO_FAILURE] = "no_failure", [IGNORED_UNFIT] = "unfit"};
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
    s->no_hash = td_metric(metrics, TD_COUNTER, "tandem_bounce_not_suppressed_total",
                           "Hard bounces whose address is not known any more, because Redis lost it.", "");
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
