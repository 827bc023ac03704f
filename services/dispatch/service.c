/* dispatch: from a record on a lane to one outcome.
 *
 *   record -> lane owned? -> ledger begin -> static pieces -> campaign's queue -> relay and slot -> SMTP
 *          -> classify -> ledger end -> mail.outcomes -> watermark -> offset
 *
 * flow.c moves one mail through these steps; this file joins it to Kafka, Redis, the clock and the signals. */
#include "flow.h"

#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reply_rules.h"
#include "tandem/app.h"
#include "tandem/clock.h"
#include "tandem/log.h"
#include "tandem/pb.h"
#include "tandem/stages.h"
#include "tandem/stop.h"

#include "tandem/internal/v1/content.pb-c.h"

enum { TICK_MS = 50 };

static const enum td_topic_id topics[] = {TD_T_EXPRESS, TD_T_OUTBOUND, TD_T_RETRY_1M, TD_T_RETRY_10M, TD_T_RETRY_1H};

/* ---- Kafka ---- */

static void on_record(void *user, const struct td_record *rec)
{
    struct dispatch *d = user;
    struct lane *lane = lane_find(d->lanes, rec->lane);
    enum td_stage before = td_stage(TD_STAGE_TAKE);

    if (lane && !lane->revoked)
        flow_record(d, lane, rec);
    td_stage(before);
}

static void on_assigned(void *user, const struct td_lane *lanes, const int64_t *offsets, size_t count)
{
    struct dispatch *d = user;

    (void)offsets;
    for (size_t i = 0; i < count; i++)
        if (!lane_find(d->lanes, lanes[i]) && !lane_add(d->lanes, lanes[i], td_kafka_in_note(d->in, lanes[i])))
            td_app_fail(d->app, &(struct td_err){TD_ENOMEM, "no memory for a lane"});
    td_log(TD_INFO, "lanes.assigned", "count=%zu", count);
    relays_part(d->relays, td_kafka_in_part(d->in));
    lane_set_tick(d->lanes, td_mono_ms());
}

static void on_revoked(void *user, const struct td_lane *lanes, size_t count, bool lost)
{
    struct dispatch *d = user;

    (void)lanes;
    td_log(TD_INFO, "lanes.revoked", "count=%zu lost=%s", count, lost ? "true" : "false");
    d->draining = true;
    d->lost = lost;
    d->drain_until_ms = td_stop_sooner(td_mono_ms() + (uint64_t)d->settings->dispatch_drain_ms / 2, TD_STOP_WORK);
    flow_drain(d);
    flow_drained_check(d);
}

static void on_fatal(void *user, const struct td_err *err)
{
    struct dispatch *d = user;

    td_app_fail(d->app, err);
}

/* ---- contents: a campaign's state ---- */

static void on_content(void *user, const void *key, size_t key_len, const void *value, size_t len)
{
    struct dispatch *d = user;
    Tandem__Internal__V1__CampaignContent *content = NULL;
    struct td_arena *arena;
    struct campaign *c;
    char id[TD_CAMPAIGN_ID_MAX + 1];

    if (key_len > TD_CAMPAIGN_ID_MAX || !value)
        return; /* a content part, or gone */
    memcpy(id, key, key_len);
    id[key_len] = '\0';
    if (!td_campaign_id_valid(id))
        return;
    arena = td_arena_new(td_pb_budget(len));
    if (arena && td_pb_read(&tandem__internal__v1__campaign_content__descriptor, value, len, arena,
                            (ProtobufCMessage **)&content, NULL) == TD_OK) {
        c = campaign_get(d->campaigns, id);
        if (c) {
            c->paused = content->state == TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_PAUSED;
            c->cancelled = content->state == TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_CANCELLED;
            c->recipients = content->sealed       ? content->recipient_count
                            : content->campaign ? content->campaign->expected_recipients
                                                : 0;
            c->cap_per_s = content->campaign ? content->campaign->max_mails_per_s : 0;
            memset(c->lane, 0, sizeof(c->lane));
            c->lane_count = 0;
            for (size_t i = 0; i < content->n_lanes; i++) {
                uint32_t lane = content->lanes[i] % (uint32_t)d->settings->kafka_lanes;

                c->lane_count += lane < TD_LANES_MAX && !c->lane[lane];
                if (lane < TD_LANES_MAX)
                    c->lane[lane] = true;
            }
            flow_pump_soon(d);
        }
    }
    td_arena_free(arena);
}

/* ---- relays ---- */

static void on_attempted(void *user, struct mail *mail, const struct attempt_result *result)
{
    enum td_stage before = td_stage(TD_STAGE_OUTCOME);

    flow_attempted(user, mail, result);
    td_stage(before);
}

static void on_moved(void *user)
{
    flow_pump_soon(user);
}

static void publish_change(struct dispatch *d, Tandem__Mail__V1__RelayChange *change, const char *key)
{
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;
    void *packed;
    size_t len;

    outcome.campaign_id = change->campaign_id;
    outcome.at_unix_ms = td_wall_ms();
    outcome.service = (char *)(uintptr_t) "dispatch";
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_RELAY;
    outcome.relay = change;
    packed = td_pb_write(&outcome.base, &len);
    if (packed)
        td_kafka_out_send(d->out, TD_T_OUTCOMES, -1, key, strlen(key), packed, len, NULL, 0, NULL, NULL, NULL);
    free(packed);
}

/* The relay's state stays what it is: this is about bulk mail alone. */
static void on_relay_bounces(void *user, const char *relay, enum bounce_level from, const struct relay_view *view, bool first)
{
    static const char *const reason[] = {"bounces.fell", "bounces.warn", "bounces.throttle", "bounces.stop"};
    Tandem__Mail__V1__RelayChange change = TANDEM__MAIL__V1__RELAY_CHANGE__INIT;
    char key[64];

    if (!first)
        return;
    change.relay = (char *)(uintptr_t)relay;
    change.from_state = change.to_state = (char *)(uintptr_t)relay_state_name(view->state);
    change.epoch = view->epoch;
    change.reason = (char *)(uintptr_t)(view->bounce_level < from ? reason[0] : reason[view->bounce_level]);
    change.evidence = (char *)(uintptr_t)view->bounces;
    snprintf(key, sizeof(key), "relay/%s", relay);
    publish_change(user, &change, key);
}

/* The ledger's `tripped` field is the state; this tells others of it. */
static void on_campaign_left(void *user, const char *relay, const char *campaign_id, const char *evidence)
{
    Tandem__Mail__V1__RelayChange change = TANDEM__MAIL__V1__RELAY_CHANGE__INIT;

    td_log(TD_WARN, "campaign.left", "campaign=%s relay=%s reason=bounces.ceiling evidence=\"%s\"", campaign_id, relay, evidence);
    change.relay = (char *)(uintptr_t)relay;
    change.from_state = (char *)(uintptr_t)relay_state_name(RELAY_CLOSED);
    change.to_state = (char *)(uintptr_t)relay_state_name(RELAY_OPEN);
    change.reason = (char *)(uintptr_t) "bounces.ceiling";
    change.evidence = (char *)(uintptr_t)evidence;
    change.campaign_id = (char *)(uintptr_t)campaign_id;
    publish_change(user, &change, campaign_id);
}

static void on_relay_changed(void *user, const char *relay, enum relay_state from, const struct relay_view *view, bool first)
{
    struct dispatch *d = user;
    Tandem__Mail__V1__RelayChange change = TANDEM__MAIL__V1__RELAY_CHANGE__INIT;
    char key[64];

    td_log(view->state == RELAY_CLOSED ? TD_INFO : TD_WARN, "relay.changed",
           "relay=%s from=%s to=%s epoch=%llu reason=%s evidence=\"%s\" local=%s", relay, relay_state_name(from),
           relay_state_name(view->state), (unsigned long long)view->epoch, view->reason, view->evidence,
           view->local ? "true" : "false");
    if (!first)
        return;
    change.relay = (char *)(uintptr_t)relay;
    change.from_state = (char *)(uintptr_t)relay_state_name(from);
    change.to_state = (char *)(uintptr_t)relay_state_name(view->state);
    change.epoch = view->epoch;
    change.reason = (char *)(uintptr_t)view->reason;
    change.evidence = (char *)(uintptr_t)view->evidence;
    change.next_change_unix_ms = view->next_change_ms;
    snprintf(key, sizeof(key), "relay/%s", relay);
    publish_change(d, &change, key);
}

/* ---- outcomes ---- */

static void on_durable(void *user, struct mail *mail)
{
    enum td_stage before = td_stage(TD_STAGE_OUTCOME);

    flow_finished(user, mail);
    td_stage(before);
}

static void on_out_fatal(void *user, const struct td_err *err)
{
    struct dispatch *d = user;

    td_app_fail(d->app, err);
}

/* ---- Redis ---- */

static void on_redis(void *user, bool up, const char *run_id)
{
    struct dispatch *d = user;

    if (!up) {
        if (d->redis_was_up)
            td_log(TD_WARN, "redis.away", "msg=\"owned lanes go on; results are kept and written back\"");
        return;
    }
    td_log(TD_INFO, "redis.up", "run_id=%s owed=%zu", run_id, outcomes_owed(d->outcomes));
    d->redis_was_up = true;
    outcomes_redis_up(d->outcomes);
    lane_set_tick(d->lanes, td_mono_ms());
    flow_ledger_back(d);
}

static void on_lane_owned(void *user, struct lane *lane)
{
    flow_lane_owned(user, lane);
}

static void on_lane_lost(void *user, struct lane *lane)
{
    flow_lane_lost(user, lane);
}

/* ---- loop ---- */

static void on_tick(uv_timer_t *timer)
{
    struct dispatch *d = timer->data;
    enum td_stage before = td_stage(TD_STAGE_TURN);

    lane_set_tick(d->lanes, td_mono_ms());
    if (!d->draining && lane_set_stuck(d->lanes, td_mono_ms()))
        td_app_fail(d->app, &(struct td_err){TD_EFATAL, "a lane's lease was lost while the group left us the lane"});
    flow_tick(d);
    if (d->quitting && td_mono_ms() > td_stop_by(TD_STOP_QUIT))
        td_app_stopped(d->app); /* a relay still owes a reply */
    td_stage(before);
}

static void on_pump(uv_timer_t *timer)
{
    enum td_stage before = td_stage(TD_STAGE_TURN);

    flow_pump(timer->data);
    td_stage(before);
}

static int timer_make(struct dispatch *d, uv_timer_t **ret)
{
    *ret = malloc(sizeof(**ret));
    if (!*ret)
        return TD_ENOMEM;
    uv_timer_init(d->app->loop, *ret);
    (*ret)->data = d;
    return TD_OK;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

static void timer_close(uv_timer_t *timer)
{
    if (timer)
        uv_close((uv_handle_t *)timer, on_timer_closed);
}

static void dispatch_free(void *state)
{
    struct dispatch *d = state;
    size_t uncommitted, unsent, without;

    if (!d)
        return;
    /* Those that answer what is pending go first, while what they answer to is still there. */
    uncommitted = td_kafka_in_free(d->in);
    d->in = NULL;
    without = flow_without_outcome(d);
    td_kafka_table_free(d->contents);
    td_redis_free(d->redis);
    unsent = td_kafka_out_free(d->out, 5000);
    td_app_left(d->app, "outcomes_unsent", outcomes_unsent(d->outcomes));
    td_app_left(d->app, "mails_without_outcome", without);
    td_app_left(d->app, "records_unsent", unsent);
    td_app_left(d->app, "offsets_uncommitted", uncommitted);
    relays_free(d->relays);
    flow_free_all(d);
    outcomes_free(d->outcomes);
    statics_free(d->statics);
    lane_set_free(d->lanes);
    campaign_set_free(d->campaigns);
    timer_close(d->tick);
    timer_close(d->pump);
    free(d);
}

static int dispatch_open(struct dispatch *d, struct td_err *reterr)
{
    static const struct td_kafka_in_ops in_ops = {on_record, on_assigned, on_revoked, on_fatal};
    static const struct relays_ops relay_ops = {on_attempted, on_moved, on_relay_changed, on_relay_bounces, on_campaign_left};
    static const struct outcomes_ops out_ops = {on_durable, on_out_fatal};
    uv_loop_t *loop = d->app->loop;
    const struct td_settings *s = d->settings;
    int rc;

    rc = td_redis_new(loop, s->redis_url, s->redis_password, (unsigned)s->redis_timeout_ms, &d->redis, reterr);
    if (rc == TD_OK) {
        td_redis_need_view(d->redis);
        rc = td_kafka_out_new(loop, s, d->app->metrics, &d->out, reterr);
    }
    if (rc == TD_OK)
        rc = outcomes_new(loop, d->redis, d->out, &out_ops, d, &d->outcomes, reterr);
    if (rc == TD_OK)
        rc = lane_set_new(d->redis, s, d->run, on_lane_owned, on_lane_lost, d, &d->lanes, reterr);
    if (rc == TD_OK)
        rc = relays_new(loop, s, d->redis, d->app->metrics, &relay_ops, d, &d->relays, reterr);
    if (rc == TD_OK)
        rc = td_kafka_table_new(loop, s, d->app->metrics, TD_T_CONTENTS, 16 * 1024 * 1024, on_content, d, &d->contents, reterr);
    if (rc == TD_OK)
        rc = statics_new(d->contents, (size_t)s->dispatch_cache_bytes, &d->statics, reterr);
    if (rc == TD_OK)
        rc = td_kafka_in_new(loop, s, d->app->metrics, "dispatch", topics, sizeof(topics) / sizeof(topics[0]), &in_ops, d,
                             &d->in, reterr);
    if (rc == TD_OK)
        td_redis_on_state(d->redis, on_redis, d);
    return rc;
}

static int dispatch_start(struct td_app *app, void **ret_state, struct td_err *reterr)
{
    const struct td_settings *s = app->settings;
    unsigned char random[12];
    struct dispatch *d;
    int rc;

    if (!s->keys_token || strlen(s->keys_token) < TD_KEY_BYTES_MIN)
        return td_fail(reterr, TD_ECONFIG, "keys.token is needed: at least %d bytes, the same for all services", TD_KEY_BYTES_MIN);
    if (s->relay_count == 0)
        return td_fail(reterr, TD_ECONFIG, "no relays are configured");
    d = calloc(1, sizeof(*d));
    if (!d)
        return td_fail(reterr, TD_ENOMEM, "dispatch");
    d->app = app;
    d->settings = s;
    if (RAND_bytes(random, sizeof(random)) != 1) {
        free(d);
        return td_fail(reterr, TD_EFATAL, "no random numbers from the system");
    }
    td_hex(d->run, random, sizeof(random));
    d->campaigns = campaign_set_new();
    if (!d->campaigns || timer_make(d, &d->tick) < 0 || timer_make(d, &d->pump) < 0)
        rc = td_fail(reterr, TD_ENOMEM, "dispatch");
    else
        rc = dispatch_open(d, reterr);
    if (rc < 0) {
        dispatch_free(d);
        return rc;
    }
    flow_metrics(d);
    uv_timer_start(d->tick, on_tick, TICK_MS, TICK_MS);
    d->on_pump = on_pump;
    *ret_state = d;
    return TD_OK;
}

/* Stop in order: the group gives the lanes back (on_revoked drains them), connections say QUIT, then the loop ends. */
static void on_pools_closed(void *user)
{
    struct dispatch *d = user;

    td_app_stopped(d->app);
}

static void on_in_stopped(void *user)
{
    struct dispatch *d = user;

    outcomes_tell(d->outcomes);
    d->quitting = true;
    relays_stop(d->relays, on_pools_closed, d);
}

static void dispatch_stop(void *state)
{
    struct dispatch *d = state;

    td_kafka_in_stop(d->in, on_in_stopped, d);
}

static bool dispatch_ready(void *state, char *why, size_t size)
{
    const struct dispatch *d = state;

    if (!td_kafka_in_assigned(d->in)) {
        snprintf(why, size, "not a member of the group yet");
        return false;
    }
    if (!relays_any_fit(d->relays)) {
        snprintf(why, size, "no relay is fit; mail is held");
        return false;
    }
    return true; /* Redis away is a mode, not a failure: see /metrics */
}

static int dispatch_check(const struct td_settings *settings, struct td_err *reterr)
{
    int rc = TD_OK;

    for (size_t i = 0; i < settings->relay_count && rc == TD_OK; i++) {
        struct reply_rules *rules = NULL;

        rc = reply_rules_of(settings, &settings->relays[i], &rules, reterr);
        reply_rules_free(rules);
    }
    return rc;
}

const struct td_service dispatch_service = {
    .name = "dispatch",
    .summary = "send mail through the relays",
    .check = dispatch_check,
    .start = dispatch_start,
    .stop = dispatch_stop,
    .ready = dispatch_ready,
    .free = dispatch_free,
};
