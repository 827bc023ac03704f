/* The topics one after the other, each to the end it had when its reading began:
 *
 *   IDLE --the mark is missing, the lease is ours--> SUPPRESSIONS -> RECIPIENTS -> OUTCOMES -> LINGER --10 s-->
 * IDLE
 *     ^------------- lease lost, Redis or Kafka failed: all again, a little later ----------------+
 *
 * Recipients come before outcomes because they carry the address hashes. Outcomes are followed for a while after
 * the mark is set: until a dispatcher sees it, it publishes without the ledger, and may die before it has written
 * that back. Whatever is read twice, or written by others meanwhile, counts once (ledger_restore.lua). */
#include "view.h"

#include <inttypes.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/kafka_follow.h"
#include "tandem/ledger.h"
#include "tandem/log.h"
#include "tandem/pb.h"

#include "tandem/internal/v1/recipients.pb-c.h"
#include "tandem/mail/v1/outcome.pb-c.h"

enum {
    TICK_MS = 250,
    LEASE_MS = 15000,
    TIMEOUT_MS = 10000, /* of Redis: scripts of 500 facts queue up */
    KAFKA_MS = 2000,    /* the loop stands still so long at most for each question when a topic is opened */
    AFTER_FAILURE_MS = 2000,
    LINGER_MS = 10000,
    TELL_MS = 5000,
    OPEN_BATCHES = 64, /* campaigns whose facts are gathered at once */
    CALLS_HIGH = 32,
    CALLS_LOW = 8, /* scripts under way: above, reading waits */
    SMALL_CALLS_HIGH = 8000,
    SMALL_CALLS_LOW = 2000, /* one hash each */
    RELAY_MAX = 33,
};
#define KEEP_MS (30 * INT64_C(86400000)) /* what is older would have expired in Redis */

enum stage { IDLE, SUPPRESSIONS, RECIPIENTS, OUTCOMES, LINGER };

static const char *const stage_names[] = {"idle", "suppressions", "recipients", "outcomes", "linger"};

struct gathered {
    char campaign_id[TD_CAMPAIGN_ID_MAX + 1];
    uint64_t used; /* when last, by record count: the one least lately used makes room */
    size_t count;
    struct {
        uint32_t index;
        const char *what; /* static */
        char relay[RELAY_MAX];
        bool has_hash;
        uint8_t hash[TD_HASH_BYTES];
        int64_t at_unix_ms;
    } fact[TD_LEDGER_BATCH];
};

struct view {
    struct td_app *app;
    const struct td_kafka_table *contents;
    const struct campaigns *campaigns;
    struct td_redis *redis; /* its own: this one does not need the view */
    uv_timer_t *timer;
    char owner[64 + 25];
    enum stage stage;
    struct td_kafka_follow *follow;
    struct gathered *open; /* OPEN_BATCHES while there is something to build */
    struct td_arena *arena;
    unsigned attempt; /* answers of an attempt given up count no more */
    size_t calls;
    bool held, at_end, asking, publishing;
    uint64_t begun_ms, again_ms, tell_ms, linger_ms;
    uint64_t records, facts;
    int64_t oldest_ms;
    bool any_mail; /* a mail was ever taken in */
    struct td_metric *m_stage, *m_records;
};

struct call {
    struct view *view;
    unsigned attempt;
    char campaign_id[TD_CAMPAIGN_ID_MAX + 1]; /* "" when it is about none */
};

static void stage_begin(struct view *v, enum stage stage);
static void proceed(struct view *v);

/* ---- giving up and beginning ---- */

static void let_go(struct view *v)
{
    td_kafka_follow_free(v->follow);
    v->follow = NULL;
    free(v->open);
    v->open = NULL;
    td_arena_free(v->arena);
    v->arena = NULL;
    v->attempt++;
    v->calls = 0;
    v->held = v->at_end = v->publishing = false;
    v->stage = IDLE;
    td_metric_set(v->m_stage, 0);
}

static void give_up(struct view *v, const char *why)
{
    td_log(TD_WARN, "view.again", "stage=%s records=%" PRIu64 " why=\"%s\"", stage_names[v->stage], v->records,
           why);
    let_go(v);
    v->again_ms = td_mono_ms() + AFTER_FAILURE_MS;
}

static void begin(struct view *v)
{
    v->open = calloc(OPEN_BATCHES, sizeof(*v->open));
    v->arena = td_arena_new(64 << 20);
    v->begun_ms = td_mono_ms();
    v->tell_ms = v->begun_ms + TELL_MS;
    v->records = v->facts = 0;
    v->oldest_ms = td_wall_ms() - KEEP_MS;
    v->any_mail = false;
    if (!v->open || !v->arena) {
        give_up(v, "out of memory");
        return;
    }
    td_log(TD_WARN, "view.rebuilding", "msg=\"Redis is new or has lost its data; reading what topics say\"");
    stage_begin(v, SUPPRESSIONS);
}

/* ---- to Redis ---- */

static struct call *call_new(struct view *v, const char *campaign_id)
{
    struct call *call = malloc(sizeof(*call));

    if (call) {
        *call = (struct call){.view = v, .attempt = v->attempt};
        snprintf(call->campaign_id, sizeof(call->campaign_id), "%s", campaign_id);
        v->calls++;
    }
    return call;
}

static void hold_check(struct view *v)
{
    bool small = v->stage == SUPPRESSIONS;
    bool hold =
        v->calls > (v->held ? (small ? SMALL_CALLS_LOW : CALLS_LOW) : (small ? SMALL_CALLS_HIGH : CALLS_HIGH));

    if (!v->follow || hold == v->held)
        return;
    v->held = hold;
    td_kafka_follow_hold(v->follow, hold);
}

/* rc: what the call returned that was to answer `call`. */
static void called(struct view *v, struct call *call, int rc)
{
    if (td_redis_answers(rc))
        return;
    free(call);
    if (rc == TD_EINVAL)
        v->calls--; /* not ours: nothing such is in the ledger */
    else
        give_up(v, "out of memory");
}

static void on_told(void *user, const struct td_reply *reply, const struct td_err *err);

/* The relays' bounce rates are rebuilt, too: each is told what this campaign has. */
static void tell_hours(struct view *v, const char *campaign_id, const struct td_reply *hours)
{
    for (size_t i = 0; i < td_reply_count(hours) && v->open; i++) {
        struct call *call = call_new(v, campaign_id);

        if (!call)
            give_up(v, "out of memory");
        else
            called(v, call,
                   td_relay_count(v->redis, campaign_id, td_reply_str(td_reply_at(hours, i), NULL), on_told, call));
    }
}

static void answered(struct call *call, long long facts, const struct td_reply *hours, const struct td_err *err)
{
    struct view *v = call->view;

    if (call->attempt == v->attempt) {
        v->calls--;
        if (err) {
            give_up(v, err->text);
        } else {
            v->facts += (uint64_t)facts;
            tell_hours(v, call->campaign_id, hours);
            hold_check(v);
            proceed(v);
        }
    }
    free(call);
}

static void on_told(void *user, const struct td_reply *reply, const struct td_err *err)
{
    (void)reply;
    answered(user, 0, NULL, err);
}

static void on_restored(void *user, const struct td_reply *reply, const struct td_err *err)
{
    answered(user, td_reply_int(td_reply_at(reply, 0)), td_reply_at(reply, 1), err);
}

static void on_suppressed(void *user, const struct td_reply *reply, const struct td_err *err)
{
    answered(user, td_reply_int(reply), NULL, err);
}

static void send_batch(struct view *v, struct gathered *g)
{
    const struct known_campaign *known = campaigns_find(v->campaigns, g->campaign_id);
    int64_t sealed = known && known->sealed ? (int64_t)known->recipient_count : -1;
    struct td_fact fact[TD_LEDGER_BATCH];
    size_t count = g->count;
    struct call *call;

    for (size_t i = 0; i < count; i++)
        fact[i] = (struct td_fact){g->fact[i].index, g->fact[i].what, g->fact[i].relay,
                                   g->fact[i].has_hash ? g->fact[i].hash : NULL, g->fact[i].at_unix_ms};
    call = call_new(v, g->campaign_id);
    g->count = 0;
    if (!call)
        give_up(v, "out of memory");
    else
        called(v, call, td_ledger_restore(v->redis, g->campaign_id, sealed, fact, count, on_restored, call));
}

static void send_all(struct view *v)
{
    for (size_t i = 0; i < OPEN_BATCHES && v->open; i++)
        if (v->open[i].count)
            send_batch(v, &v->open[i]);
}

/* The batch of this campaign with room for one more; NULL when this attempt has ended. */
static struct gathered *gathered_of(struct view *v, const char *campaign_id)
{
    struct gathered *g = &v->open[0];

    for (size_t i = 0; i < OPEN_BATCHES; i++) {
        if (strcmp(v->open[i].campaign_id, campaign_id) == 0) {
            g = &v->open[i];
            break;
        }
        if (v->open[i].used < g->used)
            g = &v->open[i];
    }
    if (g->count && (g->count == TD_LEDGER_BATCH || strcmp(g->campaign_id, campaign_id) != 0))
        send_batch(v, g);
    if (!v->open)
        return NULL;
    memcpy(g->campaign_id, campaign_id, strlen(campaign_id) + 1);
    g->used = v->records;
    return g;
}

static void gather(struct view *v, const char *campaign_id, uint32_t index, const char *what, const char *relay,
                   const ProtobufCBinaryData *hash, int64_t at_unix_ms)
{
    struct gathered *g;

    if (!v->open || !td_campaign_id_valid(campaign_id) || index > TD_LEDGER_INDEX_MAX)
        return;
    g = gathered_of(v, campaign_id);
    if (!g)
        return;
    g->fact[g->count].index = index;
    g->fact[g->count].what = what;
    snprintf(g->fact[g->count].relay, RELAY_MAX, "%s", relay);
    g->fact[g->count].at_unix_ms = at_unix_ms;
    g->fact[g->count].has_hash = hash->len == TD_HASH_BYTES;
    if (hash->len == TD_HASH_BYTES)
        memcpy(g->fact[g->count].hash, hash->data, TD_HASH_BYTES);
    g->count++;
}

/* ---- from topics ---- */

static void take_suppression(struct view *v, const struct td_record *rec)
{
    struct call *call;

    if (rec->key_len != TD_HASH_BYTES)
        return;
    call = call_new(v, "");
    if (!call)
        give_up(v, "out of memory");
    else
        called(v, call,
               rec->value ? td_suppression_add(v->redis, rec->key, on_suppressed, call)
                          : td_suppression_remove(v->redis, rec->key, on_suppressed, call));
}

static void take_chunk(struct view *v, const struct td_record *rec)
{
    Tandem__Internal__V1__RecipientChunk *chunk;

    v->any_mail = true;
    if (td_pb_read(&tandem__internal__v1__recipient_chunk__descriptor, rec->value, rec->len, v->arena,
                   (ProtobufCMessage **)&chunk, NULL) < 0)
        return; /* rendering has put it aside, too */
    for (size_t i = 0; i < chunk->n_recipients; i++)
        gather(v, chunk->campaign_id, chunk->recipients[i]->index, "", "", &chunk->recipients[i]->address_hash,
               0);
}

static void take_outcome(struct view *v, const struct td_record *rec)
{
    static const char *const results[] = {NULL,         "accepted", "refused",   "invalid",
                                          "suppressed", "expired",  "cancelled", "unconfirmed"};
    /* As bounce counts them: what is neither about the address nor about its mailbox is a block. */
    static const char *const classes[] = {NULL, "hard", "soft", "block", "block", "block", "block"};
    Tandem__Mail__V1__Outcome *outcome;
    const char *relay;
    size_t at;

    if (td_pb_read(&tandem__mail__v1__outcome__descriptor, rec->value, rec->len, v->arena,
                   (ProtobufCMessage **)&outcome, NULL) < 0)
        return;
    if (outcome->kind_case == TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT) {
        v->any_mail = true;
        at = (size_t)outcome->recipient->result;
        /* As dispatch tells the ledger: the relay counts where it took the mail, or refused the address itself. */
        relay = at == (size_t)TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_ACCEPTED ||
                        outcome->recipient->hard_refusal
                    ? outcome->recipient->relay
                    : "";
        if (at < sizeof(results) / sizeof(results[0]) && results[at])
            gather(v, outcome->campaign_id, outcome->index, results[at], relay, &outcome->recipient->address_hash,
                   outcome->at_unix_ms);
    } else if (outcome->kind_case == TANDEM__MAIL__V1__OUTCOME__KIND_BOUNCE) {
        at = (size_t)outcome->bounce->class_;
        if (at < sizeof(classes) / sizeof(classes[0]) && classes[at])
            gather(v, outcome->campaign_id, outcome->index, classes[at], outcome->bounce->relay,
                   &outcome->bounce->address_hash, outcome->at_unix_ms);
    }
}

static void on_record(void *user, const struct td_record *rec)
{
    struct view *v = user;

    v->records++;
    td_metric_add(v->m_records, 1);
    if (v->stage == SUPPRESSIONS) {
        take_suppression(v, rec);
    } else if (rec->value && rec->timestamp_ms >= v->oldest_ms) {
        if (v->stage == RECIPIENTS)
            take_chunk(v, rec);
        else
            take_outcome(v, rec);
        if (v->arena)
            td_arena_clear(v->arena);
    }
    if (v->follow)
        hold_check(v);
}

static void on_end(void *user)
{
    struct view *v = user;

    if (v->stage == LINGER)
        return;
    v->at_end = true;
    send_all(v);
    proceed(v);
}

static void stage_begin(struct view *v, enum stage stage)
{
    static const enum td_topic_id topic[] = {
        [SUPPRESSIONS] = TD_T_SUPPRESSIONS, [RECIPIENTS] = TD_T_RECIPIENTS, [OUTCOMES] = TD_T_OUTCOMES};
    static const struct td_kafka_follow_ops ops = {on_record, on_end};
    struct td_err err;

    td_kafka_follow_free(v->follow);
    v->follow = NULL;
    v->held = v->at_end = false;
    v->stage = stage;
    td_metric_set(v->m_stage, (double)stage);
    if (td_kafka_follow_new(v->app->loop, v->app->settings, topic[stage], false, KAFKA_MS, &ops, v, &v->follow,
                            &err) < 0)
        give_up(v, err.text);
}

/* ---- the mark ---- */

static void on_published(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct call *call = user;
    struct view *v = call->view;
    bool old = call->attempt != v->attempt;

    free(call);
    if (old)
        return;
    v->calls--;
    v->publishing = false;
    if (err || td_reply_int(reply) != 1) {
        give_up(v, err ? err->text : "Redis lost its data once more, or somebody else has the work");
        return;
    }
    td_log(TD_INFO, "view.whole", "records=%" PRIu64 " facts=%" PRIu64 " ms=%" PRIu64, v->records, v->facts,
           td_mono_ms() - v->begun_ms);
    v->stage = LINGER;
    td_metric_set(v->m_stage, LINGER);
    v->linger_ms = td_mono_ms() + LINGER_MS;
}

/* 0 when nothing was ever taken in: then no mail can be of before the view, whatever clocks say. */
static void publish(struct view *v)
{
    char mark[24 + sizeof(v->owner)];
    struct call *call = call_new(v, "");

    if (!call) {
        give_up(v, "out of memory");
        return;
    }
    v->publishing = true;
    snprintf(mark, sizeof(mark), "%" PRId64 " %.16s%u", v->any_mail ? td_wall_ms() : 0,
             v->owner + strlen(v->owner) - 16, v->attempt);
    called(v, call, td_view_publish(v->redis, v->owner, mark, on_published, call));
}

/* All of a topic was read and Redis has it: the next. */
static void proceed(struct view *v)
{
    if (!v->at_end || v->calls || v->publishing || v->stage == IDLE || v->stage == LINGER)
        return;
    if (v->stage == OUTCOMES)
        publish(v);
    else
        stage_begin(v, v->stage == SUPPRESSIONS ? RECIPIENTS : OUTCOMES);
}

/* ---- the lease ---- */

static void on_taken(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct view *v = user;
    long long answer = td_reply_int(reply);
    bool ours = !err && (answer == 1 || answer == 3);

    v->asking = false;
    if (err) {
        if (v->stage != IDLE)
            give_up(v, err->text);
    } else if (v->stage == IDLE || (v->stage == LINGER && answer != 2)) {
        if (v->stage != IDLE)
            let_go(v);
        if (ours && td_mono_ms() >= v->again_ms)
            begin(v);
    } else if (v->stage != LINGER && answer != 1) {
        give_up(v, "the lease is gone: Redis lost its data once more, or this process slept");
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct view *v = timer->data;
    uint64_t now_ms = td_mono_ms();

    if (v->stage == LINGER && now_ms >= v->linger_ms)
        let_go(v);
    if (v->stage == LINGER)
        send_all(v);
    if (v->stage != IDLE && v->stage != LINGER && now_ms >= v->tell_ms) {
        v->tell_ms = now_ms + TELL_MS;
        td_log(TD_INFO, "view.progress", "stage=%s records=%" PRIu64 " facts=%" PRIu64, stage_names[v->stage],
               v->records, v->facts);
    }
    if (v->asking || !td_redis_up(v->redis) || !td_kafka_table_loaded(v->contents))
        return;
    v->asking = td_redis_answers(td_view_take(v->redis, v->owner, LEASE_MS, on_taken, v));
}

/* ---- life ---- */

static void on_closed(uv_handle_t *handle)
{
    free(handle);
}

void view_free(struct view *v)
{
    if (!v)
        return;
    let_go(v);
    td_redis_free(v->redis); /* answers what is pending, which is of no attempt now */
    if (v->timer)
        uv_close((uv_handle_t *)v->timer, on_closed);
    free(v);
}

int view_new(struct td_app *app, const struct td_kafka_table *contents, const struct campaigns *campaigns,
             struct view **ret, struct td_err *reterr)
{
    const struct td_settings *settings = app->settings;
    unsigned char random[12];
    char hex[2 * sizeof(random) + 1];
    struct view *v = calloc(1, sizeof(*v));
    int rc;

    if (v)
        v->timer = malloc(sizeof(*v->timer));
    if (!v || !v->timer) {
        free(v);
        return td_fail(reterr, TD_ENOMEM, "no memory for the view");
    }
    uv_timer_init(app->loop, v->timer);
    v->timer->data = v;
    v->app = app;
    v->contents = contents;
    v->campaigns = campaigns;
    v->m_stage =
        td_metric(app->metrics, TD_GAUGE, "tandem_ingestion_view_stage",
                  "Rebuilding Redis: 0 not, 1 suppressions, 2 recipients, 3 outcomes, 4 done, following on.", "");
    v->m_records = td_metric(app->metrics, TD_COUNTER, "tandem_ingestion_view_records_total",
                             "Records read to rebuild Redis.", "");
    if (RAND_bytes(random, sizeof(random)) != 1)
        rc = td_fail(reterr, TD_EFATAL, "no random numbers from the system");
    else
        rc = td_redis_new(app->loop, settings->redis_url, settings->redis_password, TIMEOUT_MS, &v->redis, reterr);
    if (rc < 0) {
        view_free(v);
        return rc;
    }
    td_hex(hex, random, sizeof(random));
    snprintf(v->owner, sizeof(v->owner), "%.63s-%s", settings->instance, hex);
    uv_timer_start(v->timer, on_tick, TICK_MS, TICK_MS);
    *ret = v;
    return TD_OK;
}
