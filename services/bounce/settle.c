/* report -> token -> class -> ledger counter -> suppression (Redis, topic) -> outcome -> done
 *
 * The ledger's counter comes first: it says whether this recipient was counted before, and a report that comes twice counts
 * once. All later steps are idempotent by key. Whatever fails is tried again from the start a little later. */
#include "settle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bounce_classify.h"
#include "tandem/clock.h"
#include "tandem/ledger.h"
#include "tandem/log.h"
#include "tandem/pb.h"
#include "tandem/token.h"

#include "tandem/internal/v1/feedback.pb-c.h"
#include "tandem/mail/v1/outcome.pb-c.h"
#include "tandem/mail/v1/suppression.pb-c.h"

enum { AGAIN_MS = 500 };

struct report {
    struct report *next;
    struct settle *owner;
    struct td_lane lane;
    int64_t offset, received_ms;
    bool forgotten;
    struct td_token token;
    const char *relay;
    struct bounce_verdict verdict;
    char status[12];
    uint8_t hash[TD_HASH_BYTES];
    bool has_hash;
    size_t deliveries; /* records on their way */
    bool failed;
};

struct settle {
    const struct td_settings *settings;
    struct td_redis *redis;
    struct td_kafka_out *out;
    void (*done)(void *user, struct td_lane lane, int64_t offset);
    void *user;
    const char *relays[TD_RELAYS_MAX];
    uv_timer_t *timer;
    struct report *again; /* wait for their next try */
    size_t busy;
    struct td_metric *by_class[BOUNCE_UNKNOWN + 1], *forged, *no_report;
};

static void report_end(struct report *r)
{
    struct settle *s = r->owner;

    s->busy--;
    if (!r->forgotten)
        s->done(s->user, r->lane, r->offset);
    free(r);
}

static void report_again(struct report *r)
{
    r->next = r->owner->again;
    r->owner->again = r;
}

static void on_delivered(void *user, int64_t offset, const struct td_err *err)
{
    struct report *r = user;

    (void)offset;
    r->failed = r->failed || err != NULL;
    if (--r->deliveries)
        return;
    if (r->failed) {
        r->failed = false;
        report_again(r);
    } else {
        report_end(r);
    }
}

static void produce(struct report *r, enum td_topic_id topic, const void *key, size_t key_len, const ProtobufCMessage *msg)
{
    size_t len;
    void *packed = td_pb_write(msg, &len);

    if (!packed || td_kafka_out_send(r->owner->out, topic, -1, key, key_len, packed, len, NULL, 0, on_delivered, r, NULL) < 0)
        r->failed = true;
    else
        r->deliveries++;
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

static void publish(struct report *r)
{
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;
    Tandem__Mail__V1__BounceFact fact = TANDEM__MAIL__V1__BOUNCE_FACT__INIT;
    Tandem__Mail__V1__Suppression supp = TANDEM__MAIL__V1__SUPPRESSION__INIT;
    char key[TD_MAIL_KEY_MAX];
    size_t key_len = td_mail_key(key, r->token.campaign_id, r->token.index);

    r->deliveries = 1; /* this function: a delivery may fail at once */
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
    produce(r, TD_T_OUTCOMES, key, key_len, &outcome.base);
    if (r->verdict.class == BOUNCE_HARD && r->has_hash) {
        supp.address_hash = fact.address_hash;
        supp.reason = TANDEM__MAIL__V1__SUPPRESSION_REASON__SUPPRESSION_REASON_HARD_BOUNCE;
        supp.at_unix_ms = r->received_ms;
        supp.campaign_id = r->token.campaign_id;
        produce(r, TD_T_SUPPRESSIONS, r->hash, sizeof(r->hash), &supp.base);
    }
    on_delivered(r, -1, NULL);
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

/* The report names nobody we trust; the hash that ingestion stored for this number does. */
static void on_hash(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct report *r = user;
    const char *hash;
    size_t len = 0;

    if (err) {
        report_again(r);
        return;
    }
    hash = td_reply_str(reply, &len);
    r->has_hash = len == sizeof(r->hash);
    if (r->has_hash)
        memcpy(r->hash, hash, sizeof(r->hash));
    if (r->verdict.class != BOUNCE_HARD || !r->has_hash)
        publish(r);
    else if (td_suppression_add(r->owner->redis, r->hash, on_suppressed, r) < 0)
        report_again(r);
}

static void on_counted(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct report *r = user;
    char key[TD_CAMPAIGN_ID_MAX + 32], from[24], to[24];
    struct td_arg args[4];

    if (err) {
        report_again(r);
        return;
    }
    if (td_reply_int(reply))
        td_metric_add(r->owner->by_class[r->verdict.class], 1);
    snprintf(key, sizeof(key), "td:{c:%s}:addr", r->token.campaign_id);
    snprintf(from, sizeof(from), "%llu", (unsigned long long)r->token.index * TD_HASH_BYTES);
    snprintf(to, sizeof(to), "%llu", (unsigned long long)r->token.index * TD_HASH_BYTES + TD_HASH_BYTES - 1);
    args[0] = TD_ARG_STR("GETRANGE");
    args[1] = TD_ARG_STR(key);
    args[2] = TD_ARG_STR(from);
    args[3] = TD_ARG_STR(to);
    if (td_redis_command(r->owner->redis, args, 4, on_hash, r) < 0)
        report_again(r);
}

static void report_count(struct report *r)
{
    const char *class = bounce_class_name(r->verdict.class);

    /* What is neither about the address nor about its mailbox counts as a block: it never moves a campaign. */
    if (r->verdict.class > BOUNCE_BLOCK)
        class = bounce_class_name(BOUNCE_BLOCK);
    if (td_ledger_bounce(r->owner->redis, r->token.campaign_id, r->token.index, r->relay, class, on_counted, r) < 0)
        report_again(r);
}

/* Try again what failed. */
static void on_timer(uv_timer_t *timer)
{
    struct settle *s = timer->data;
    struct report *r = s->again, *next;

    if (!td_redis_up(s->redis))
        return;
    s->again = NULL;
    for (; r; r = next) {
        next = r->next;
        if (r->forgotten)
            report_end(r);
        else
            report_count(r);
    }
}

static int read_report(struct settle *s, const struct td_record *rec, struct report *r, struct td_err *reterr)
{
    struct td_arena *arena = td_arena_new(rec->len * 4 + 65536);
    Tandem__Internal__V1__Feedback *msg = NULL;
    struct dsn dsn;
    int rc;

    if (!arena)
        return td_fail(reterr, TD_ENOMEM, "report");
    rc = td_pb_read(&tandem__internal__v1__feedback__descriptor, rec->value, rec->len, arena, (ProtobufCMessage **)&msg, reterr);
    if (rc == TD_OK)
        rc = td_token_read(msg->envelope_recipient, strlen(msg->envelope_recipient), TD_TOKEN_BOUNCE, s->settings->keys_token,
                           strlen(s->settings->keys_token), s->relays, s->settings->relay_count, &r->token, reterr);
    if (rc == TD_OK)
        rc = dsn_read(msg->raw.data, msg->raw.len, &dsn, reterr);
    if (rc == TD_OK && dsn.kind != REPORT_FAILED)
        rc = td_fail(reterr, TD_ENOTFOUND, "%s", dsn.kind == REPORT_NONE ? "no delivery report" : "nobody bounced");
    if (rc == TD_OK) {
        r->received_ms = msg->received_at_unix_ms;
        r->verdict = bounce_classify(&dsn);
        r->relay = s->relays[r->token.relay];
        memcpy(r->status, dsn.status, sizeof(r->status));
    }
    td_arena_free(arena);
    return rc;
}

void settle_record(struct settle *s, const struct td_record *rec)
{
    struct report *r = calloc(1, sizeof(*r));
    struct td_err err;
    int rc;

    if (!r)
        abort(); /* the record stays uncommitted: a restart reads it again */
    r->owner = s;
    r->lane = rec->lane;
    r->offset = rec->offset;
    s->busy++;
    rc = rec->value ? read_report(s, rec, r, &err) : TD_ENOTFOUND;
    if (rc < 0) {
        td_metric_add(rc == TD_EDENIED || rc == TD_ESYNTAX ? s->forged : s->no_report, 1);
        td_log(TD_INFO, "report.ignored", "partition=%d offset=%lld why=\"%s\"", (int)rec->lane.partition, (long long)rec->offset,
               rec->value ? err.text : "empty");
        report_end(r);
        return;
    }
    td_log(TD_INFO, "bounce", "msg=%s/%u relay=%s class=%s status=%s reason=%s", r->token.campaign_id, (unsigned)r->token.index,
           r->relay, bounce_class_name(r->verdict.class), r->status[0] ? r->status : "-", r->verdict.reason);
    report_count(r);
}

size_t settle_busy(const struct settle *s)
{
    return s->busy;
}

void settle_forget(struct settle *s)
{
    struct report *r = s->again, *next;

    s->again = NULL;
    for (; r; r = next) {
        next = r->next;
        r->forgotten = true;
        report_end(r);
    }
}

int settle_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics, struct td_redis *redis,
               struct td_kafka_out *out, void (*done)(void *user, struct td_lane lane, int64_t offset), void *user,
               struct settle **ret, struct td_err *reterr)
{
    struct settle *s = calloc(1, sizeof(*s));
    char labels[32];

    if (s)
        s->timer = malloc(sizeof(*s->timer));
    if (!s || !s->timer) {
        free(s);
        return td_fail(reterr, TD_ENOMEM, "reports");
    }
    s->settings = settings;
    s->redis = redis;
    s->out = out;
    s->done = done;
    s->user = user;
    for (size_t i = 0; i < settings->relay_count; i++)
        s->relays[i] = settings->relays[i].name;
    for (int c = BOUNCE_HARD; c <= BOUNCE_UNKNOWN; c++) {
        snprintf(labels, sizeof(labels), "class=\"%s\"", bounce_class_name((enum bounce_class)c));
        s->by_class[c] = td_metric(metrics, TD_COUNTER, "tandem_bounce_bounces_total", "Bounced mails, each counted once", labels);
    }
    s->forged = td_metric(metrics, TD_COUNTER, "tandem_bounce_forged_total", "Reports whose return path does not verify", "");
    s->no_report = td_metric(metrics, TD_COUNTER, "tandem_bounce_ignored_total", "Mails that report no failure", "");
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
    uv_close((uv_handle_t *)s->timer, on_timer_closed);
    free(s);
}
