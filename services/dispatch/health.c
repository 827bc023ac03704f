/* health.c - counts evidence, reports it to relay_report.lua, tells what comes back.
 *
 * A relay has at most one report under way, so that replies and counts never cross; what happens meanwhile goes
 * with the next one. A report goes at once for anything that is not well, else every report_ms when there is
 * something to say, else as a poll every 500 ms +-20 %. A pub/sub message only means: poll now.
 *
 * Redis away (link down, or no answer for 3 s): health_local.c decides from here on. When it is back, a relay that
 * was found down here meanwhile is reported as such, under the epoch seen last: if others know better that epoch
 * is old. */
#include "health.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "health_campaign.h"
#include "health_local.h"
#include "tandem/backoff.h"
#include "tandem/clock.h"
#include "tandem/log.h"
#include "tandem/rng.h"
#include "tandem/scripts.h"

enum {
    POLL_MS = 500,
    POLL_JITTER_PERCENT = 20,
    STALE_MS = 3000,  /* a shared view older than this is not believed */
    START_MS = 1000,  /* how long a new process waits for the first view: an operator may have drained a relay */
    RAMP_MS = 10000,  /* from 10 % of new mail to all of it, after a return */
    TRIAL_GRANTS = 2, /* held at once while half-open: the fleet has 5 a second */
    SLOW_US = 10000000,
    SILENT_MS = 3000 /* a silence that has lasted for longer while others were served is ours alone, also when they pause */
};

struct counts {
    uint32_t ok, hard, soft, fatal, exhausted, paused;
    uint32_t row, refused; /* connection failures since the last success */
    uint32_t latencies, slow, used;
    uint64_t ok_ms; /* when something was last accepted */
    enum health_kind worst;
    char reason[48]; /* of the worst */
};

enum source { FROM_NOBODY, FROM_REDIS, FROM_HERE };

struct relay {
    struct health *health;
    size_t index;
    const char *name;
    char state_key[64], window_key[64], hours_key[64];
    enum source source;
    struct relay_view view;
    struct counts counts;
    bool under_way, urgent;
    uint64_t next_poll_ms, heard_ms;
    bool probing;
    bool probed; /* the result below has not been reported */
    bool probe_well;
    char probe_reason[48];
    uint64_t probe_epoch;
    struct local_health local;
};

struct health {
    uv_timer_t timer;
    struct td_redis *redis;
    const struct td_settings *settings;
    struct health_ops ops;
    void *user;
    struct campaigns *campaigns;
    struct td_rng rng;
    uint64_t started_ms;
    bool closing;
    char me[40]; /* unique to this run */
    struct relay relay[TD_RELAYS_MAX];
    size_t count;
};

static const char *const level_name[] = {"well", "warn", "throttle", "stop"};

const char *bounce_level_name(enum bounce_level level)
{
    return (size_t)level < sizeof(level_name) / sizeof(level_name[0]) ? level_name[level] : "unknown";
}

static const char *const state_name[] = {"closed", "limited", "open", "half-open", "exhausted", "paused"};

const char *relay_state_name(enum relay_state state)
{
    return (size_t)state < sizeof(state_name) / sizeof(state_name[0]) ? state_name[state] : "unknown";
}

static bool state_of(const char *name, enum relay_state *ret)
{
    for (size_t i = 0; i < sizeof(state_name) / sizeof(state_name[0]); i++)
        if (strcmp(name, state_name[i]) == 0) {
            *ret = (enum relay_state)i;
            return true;
        }
    return false;
}

/* ---- the view ---- */

/* Alone writes relay->view. */
static void show(struct relay *relay, const struct relay_view *view, enum source source, bool first)
{
    enum relay_state from = relay->view.state;
    bool moved = view->state != from;
    bool told = moved || view->share < relay->view.share || view->share > relay->view.share ||
                view->rate_factor < relay->view.rate_factor || view->rate_factor > relay->view.rate_factor;

    /* Evidence about a fit relay is not evidence about its trial; closed and limited are the same relay. */
    if (moved && !(view->state <= RELAY_LIMITED && from <= RELAY_LIMITED))
        memset(&relay->counts, 0, sizeof(relay->counts));
    relay->view = *view;
    relay->source = source;
    if (moved)
        td_log(view->state <= RELAY_LIMITED ? TD_INFO : TD_WARN, "relay.state",
               "relay=%s from=%s to=%s epoch=%" PRIu64 " reason=%s evidence=\"%s\" local=%d first=%d", relay->name,
               relay_state_name(from), relay_state_name(view->state), view->epoch, view->reason, view->evidence,
               view->local, first);
    if (told)
        relay->health->ops.changed(relay->health->user, relay->index, from, &relay->view, first);
}

static void show_local(struct relay *relay)
{
    struct relay_view view = relay->view;

    local_fill(&relay->local, &view, td_mono_ms());
    show(relay, &view, FROM_HERE, true); /* decided alone: each process says what it did */
}

static void start_probe(struct relay *relay)
{
    relay->probing = true;
    relay->probe_epoch = relay->view.epoch;
    relay->health->ops.probe(relay->health->user, relay->index);
}

/* ---- reports ---- */

static void report(struct relay *relay);

static enum bounce_level level_of(const struct td_reply *reply, size_t at)
{
    long long level = td_reply_int(td_reply_at(reply, at));

    return level < BOUNCES_WELL || level > BOUNCES_STOP ? BOUNCES_STOP : (enum bounce_level)level; /* a newer version's: be careful */
}

static void read_view(const struct relay *relay, const struct td_reply *reply, struct relay_view *view)
{
    enum relay_state state;
    size_t at = 0;

    *view = relay->view;
    if (!state_of(td_reply_str(td_reply_at(reply, at++), NULL), &state))
        state = RELAY_OPEN; /* a newer version's state that we do not know: stay away */
    view->state = state;
    view->epoch = (uint64_t)td_reply_int(td_reply_at(reply, at++));
    if (view->epoch != relay->view.epoch || relay->view.local)
        view->grants = 0;
    view->share = strtod(td_reply_str(td_reply_at(reply, at++), NULL), NULL);
    view->rate_factor = strtod(td_reply_str(td_reply_at(reply, at++), NULL), NULL);
    view->grants += (uint32_t)td_reply_int(td_reply_at(reply, at++));
    at++; /* probe */
    view->next_change_ms = td_reply_int(td_reply_at(reply, at++));
    snprintf(view->reason, sizeof(view->reason), "%s", td_reply_str(td_reply_at(reply, at++), NULL));
    snprintf(view->evidence, sizeof(view->evidence), "%s", td_reply_str(td_reply_at(reply, at), NULL));
    view->bounce_level = level_of(reply, 11);
    snprintf(view->bounces, sizeof(view->bounces), "%s", td_reply_str(td_reply_at(reply, 12), NULL));
    view->bounce_hard = (uint64_t)td_reply_int(td_reply_at(reply, 14));
    view->bounce_taken = (uint64_t)td_reply_int(td_reply_at(reply, 15));
    view->local = false;
}

/* level_from: as the script says, which is not what this process saw before when another one has raised it. */
static void tell_level(struct relay *relay, enum bounce_level seen, enum bounce_level level_from)
{
    const struct relay_view *view = &relay->view;
    bool first = level_from != view->bounce_level;

    if (seen == view->bounce_level && !first)
        return;
    td_log(view->bounce_level > seen ? TD_WARN : TD_INFO, "relay.bounces", "relay=%s from=%s to=%s evidence=\"%s\" first=%d",
           relay->name, bounce_level_name(first ? level_from : seen), bounce_level_name(view->bounce_level), view->bounces, first);
    if (view->bounce_level < BOUNCES_STOP && seen == BOUNCES_STOP)
        campaigns_release(relay->health->campaigns);
    relay->health->ops.bounces(relay->health->user, relay->index, first ? level_from : seen, view, first);
}

static void on_report(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct relay *relay = user;
    enum bounce_level seen = relay->view.bounce_level;
    struct relay_view view;

    relay->under_way = false;
    if (err || td_reply_count(reply) < 16) {
        if (err && err->code == TD_EFATAL)
            td_log(TD_ERROR, "relay.report", "relay=%s error=\"%s\"", relay->name, err->text);
        return; /* those counts are gone: nobody knows whether they were counted */
    }
    relay->heard_ms = td_mono_ms();
    read_view(relay, reply, &view);
    show(relay, &view, FROM_REDIS, td_reply_int(td_reply_at(reply, 9)) == 1);
    tell_level(relay, seen, level_of(reply, 13));
    if (td_reply_int(td_reply_at(reply, 5)) == 1 && !relay->probing)
        start_probe(relay);
    if (relay->urgent)
        report(relay);
}

/* Names and values for the script; text must live until td_redis_eval has copied it. */
struct pairs {
    struct td_arg arg[64];
    char text[32][24];
    size_t count, texts;
};

static void put(struct pairs *pairs, const char *name, const char *value)
{
    pairs->arg[pairs->count++] = TD_ARG_STR(name);
    pairs->arg[pairs->count++] = TD_ARG_STR(value);
}

static void put_number(struct pairs *pairs, const char *name, uint64_t value)
{
    char *text = pairs->text[pairs->texts++];

    snprintf(text, sizeof(pairs->text[0]), "%" PRIu64, value);
    put(pairs, name, text);
}

static uint32_t wanted(const struct relay *relay)
{
    if (relay->view.state == RELAY_HALF_OPEN)
        return relay->view.grants < TRIAL_GRANTS ? TRIAL_GRANTS - relay->view.grants : 0;
    return relay->view.grants == 0;
}

/* How long a relay has been silent to us, as far as that may concern the others, ms. */
static uint64_t silent_ms(const struct relay *relay)
{
    uint64_t ms = relay->health->ops.silent_ms(relay->health->user, relay->index);

    return ms <= SILENT_MS ? ms : 0;
}

/* No relay is fit: mails wait. */
static bool holding(const struct health *health)
{
    for (size_t i = 0; i < health->count; i++)
        if (health->relay[i].view.state <= RELAY_LIMITED)
            return false;
    return true;
}

static void report(struct relay *relay)
{
    struct health *health = relay->health;
    const struct td_relay_settings *settings = &health->settings->relays[relay->index];
    struct counts *counts = &relay->counts;
    struct pairs pairs = {.count = 0};
    char random[16];
    bool down = relay->source == FROM_HERE && relay->local.found_down; /* while Redis was away */
    int rc;

    if (relay->under_way || !td_redis_up(health->redis))
        return;
    snprintf(random, sizeof(random), "0.%06u", (unsigned)td_rng_below(&health->rng, 1000000));
    put(&pairs, "me", health->me);
    put(&pairs, "state", relay_state_name(relay->view.state));
    put(&pairs, "reason",
        counts->reason[0] && !relay->probed ? counts->reason
        : relay->probed                     ? relay->probe_reason
                                            : relay->view.reason);
    put(&pairs, "random", random);
    put_number(&pairs, "epoch", relay->view.epoch);
    put_number(&pairs, "ok", counts->ok);
    put_number(&pairs, "hard", counts->hard);
    put_number(&pairs, "soft", counts->soft);
    put_number(&pairs, "fatal", counts->fatal + down);
    put_number(&pairs, "exhausted", counts->exhausted);
    put_number(&pairs, "paused", counts->paused);
    put_number(&pairs, "row", counts->row);
    put_number(&pairs, "refused", counts->refused);
    put_number(&pairs, "ok_ago", counts->ok > 0 ? td_mono_ms() - counts->ok_ms : 0);
    put_number(&pairs, "silent", silent_ms(relay));
    put_number(&pairs, "latencies", counts->latencies);
    put_number(&pairs, "slow", counts->slow);
    put_number(&pairs, "used", counts->used);
    put_number(&pairs, "want", wanted(relay));
    put_number(&pairs, "can", !relay->probing);
    put_number(&pairs, "hold", holding(health));
    put_number(&pairs, "probe_ms", (uint64_t)health->settings->health_probe_ms);
    put_number(&pairs, "probe_max_ms", (uint64_t)health->settings->health_probe_max_ms);
    put_number(&pairs, "ramp_ms", RAMP_MS);
    put_number(&pairs, "bounce_warn", (uint64_t)settings->bounce_warn);
    put_number(&pairs, "bounce_throttle", (uint64_t)settings->bounce_throttle);
    put_number(&pairs, "bounce_stop", (uint64_t)settings->bounce_stop);
    if (relay->probed) {
        put(&pairs, "probe", relay->probe_well ? "well" : "bad");
        put_number(&pairs, "probe_epoch", relay->probe_epoch);
    }
    rc = td_redis_eval(health->redis, &td_script_relay_report,
                       (struct td_arg[]){TD_ARG_STR(relay->state_key), TD_ARG_STR(relay->window_key),
                                         TD_ARG_STR(relay->hours_key)},
                       3, pairs.arg, pairs.count, on_report, relay);
    relay->under_way = rc != TD_ENOMEM;
    relay->urgent = false;
    relay->probed = false;
    relay->next_poll_ms =
        td_mono_ms() + td_jitter_ms(POLL_MS, POLL_JITTER_PERCENT, (uint32_t)td_rng_next(&health->rng));
    memset(counts, 0, sizeof(*counts));
}

/* ---- Redis away ---- */

static void local_step(struct relay *relay)
{
    if (local_tick(&relay->local, holding(relay->health), td_mono_ms()) && !relay->probing) {
        show_local(relay);
        start_probe(relay);
    }
    show_local(relay);
}

static void check_source(struct relay *relay, uint64_t now)
{
    bool away = relay->source == FROM_NOBODY
                    ? now - relay->health->started_ms > START_MS
                    : !td_redis_up(relay->health->redis) || now - relay->heard_ms > STALE_MS;

    if (relay->source == FROM_HERE || !away)
        return;
    if (relay->source == FROM_NOBODY) { /* nothing is known: begin well */
        relay->view.state = RELAY_CLOSED;
        relay->view.share = relay->view.rate_factor = 1;
        snprintf(relay->view.reason, sizeof(relay->view.reason), "well.start");
        local_seed(&relay->local, &relay->view, now);
        relay->view.state = RELAY_OPEN; /* what was shown until now */
        relay->view.share = 0;
    } else {
        local_seed(&relay->local, &relay->view, now);
    }
    relay->source = FROM_HERE;
    show_local(relay);
}

static void on_timer(uv_timer_t *timer)
{
    struct health *health = timer->data;
    uint64_t now = td_mono_ms();

    for (size_t i = 0; i < health->count && !health->closing; i++) {
        struct relay *relay = &health->relay[i];

        check_source(relay, now);
        if (relay->source == FROM_HERE)
            local_step(relay);
        if (relay->urgent || relay->counts.ok > 0 || silent_ms(relay) > 0 || relay->counts.used > 0 || now >= relay->next_poll_ms ||
            relay->view.state == RELAY_HALF_OPEN)
            report(relay);
    }
    if (!health->closing)
        campaigns_tick(health->campaigns);
}

static void on_redis_state(void *user, bool up, const char *run_id)
{
    struct health *health = user;
    uint64_t now = td_mono_ms();

    (void)run_id;
    for (size_t i = 0; i < health->count && !health->closing; i++) {
        health->relay[i].under_way = false; /* its callback has been told, or will be, as failed */
        if (up)
            report(&health->relay[i]);
        else
            check_source(&health->relay[i], now);
    }
}

static void on_message(void *user, const char *message, size_t len)
{
    struct health *health = user;

    for (size_t i = 0; i < health->count; i++) {
        const char *name = health->relay[i].name;
        size_t name_len = strlen(name);

        if (len > 6 + name_len && memcmp(message, "relay=", 6) == 0 && memcmp(message + 6, name, name_len) == 0 &&
            message[6 + name_len] == ' ') {
            health->relay[i].urgent = true;
            report(&health->relay[i]);
        }
    }
}

/* ---- evidence ---- */

/* Facts about reaching the relay at all, of which three in a row are enough. */
static bool is_connection(const char *reason)
{
    static const char *const what[] = {"connect", "refused", "tls", "banner", "dns", "auth", "reset", "silent"};

    if (strncmp(reason, "down.", 5) != 0)
        return false;
    for (size_t i = 0; i < sizeof(what) / sizeof(what[0]); i++)
        if (strcmp(reason + 5, what[i]) == 0)
            return true;
    return false;
}

static void count(struct counts *counts, enum health_kind kind, const char *reason, bool connection, bool refused)
{
    uint32_t *const number[] = {[HEALTH_OK] = &counts->ok,
                                [HEALTH_SOFT] = &counts->soft,
                                [HEALTH_HARD] = &counts->hard,
                                [HEALTH_FATAL] = &counts->fatal,
                                [HEALTH_EXHAUSTED] = &counts->exhausted,
                                [HEALTH_PAUSED] = &counts->paused};

    (*number[kind])++;
    if (kind == HEALTH_OK) {
        counts->row = counts->refused = 0;
        counts->ok_ms = td_mono_ms();
        return;
    }
    counts->row += connection;
    counts->refused += refused;
    if (kind >= counts->worst) {
        counts->worst = kind;
        snprintf(counts->reason, sizeof(counts->reason), "%s", reason);
    }
}

void health_report(struct health *health, size_t index, enum health_kind kind, const char *reason)
{
    struct relay *relay = &health->relay[index];
    bool connection = kind == HEALTH_HARD && is_connection(reason);
    bool refused = connection && strcmp(reason, "down.refused") == 0, silent = connection && strcmp(reason, "down.silent") == 0;

    if (kind == HEALTH_NONE || kind == HEALTH_CONNECTIONS) /* the pool shrinks; the relay is as fit as before */
        return;
    if (relay->source == FROM_HERE) {
        /* Nobody else is heard of, and here nothing was accepted since the silence began. */
        local_count(&relay->local, silent ? HEALTH_FATAL : kind, connection, refused, reason, td_mono_ms());
        show_local(relay);
        return;
    }
    count(&relay->counts, kind, reason, connection, refused);
    if (kind != HEALTH_OK) {
        relay->urgent = true;
        report(relay);
    }
}

void health_latency(struct health *health, size_t relay, uint64_t final_us)
{
    health->relay[relay].counts.latencies++;
    health->relay[relay].counts.slow += final_us > SLOW_US;
}

void health_probed(struct health *health, size_t index, bool well, const char *reason)
{
    struct relay *relay = &health->relay[index];

    relay->probing = false;
    if (relay->source == FROM_HERE) {
        local_probed(&relay->local, well, reason, td_mono_ms());
        local_step(relay);
        return;
    }
    relay->probed = relay->urgent = true;
    relay->probe_well = well;
    snprintf(relay->probe_reason, sizeof(relay->probe_reason), "%s", reason);
    report(relay);
}

const struct relay_view *health_view(const struct health *health, size_t relay)
{
    return &health->relay[relay].view;
}

bool health_take_grant(struct health *health, size_t index)
{
    struct relay *relay = &health->relay[index];

    if (relay->view.grants == 0)
        return false;
    relay->view.grants--;
    relay->counts.used++;
    if (relay->source == FROM_HERE && relay->local.grants > 0)
        relay->local.grants--;
    return true;
}

bool health_campaign_fit(struct health *health, size_t relay, const char *campaign_id, uint32_t ceiling_per_10000)
{
    return campaigns_fit(health->campaigns, relay, campaign_id, ceiling_per_10000);
}

void health_campaign_hold(struct health *health, const char *campaign_id, const char *why)
{
    campaigns_hold(health->campaigns, campaign_id, why);
}

uint64_t health_campaign_held_ms(const struct health *health, const char *campaign_id)
{
    return campaigns_held_ms(health->campaigns, campaign_id);
}

static void on_campaign_left(void *user, size_t relay, const char *campaign_id, const char *evidence)
{
    struct health *health = user;

    health->ops.campaign_left(health->user, relay, campaign_id, evidence);
}

static void on_campaign_held(void *user, const char *campaign_id, bool held)
{
    struct health *health = user;

    health->ops.campaign_held(health->user, campaign_id, held);
}

static const struct campaigns_ops campaigns_ops = {on_campaign_left, on_campaign_held};

/* ---- life ---- */

static void relay_init(struct health *health, size_t i)
{
    struct relay *relay = &health->relay[i];

    relay->health = health;
    relay->index = i;
    relay->name = health->settings->relays[i].name;
    snprintf(relay->state_key, sizeof(relay->state_key), "td:{r:%s}:state", relay->name);
    snprintf(relay->window_key, sizeof(relay->window_key), "td:{r:%s}:window", relay->name);
    snprintf(relay->hours_key, sizeof(relay->hours_key), "td:{r:%s}:hours", relay->name);
    relay->view.state = RELAY_OPEN;
    relay->view.rate_factor = 1;
    relay->view.local = true;
    snprintf(relay->view.reason, sizeof(relay->view.reason), "start.unknown");
    relay->local.probe_ms = (uint64_t)health->settings->health_probe_ms;
    relay->local.probe_max_ms = (uint64_t)health->settings->health_probe_max_ms;
    relay->local.ramp_ms = RAMP_MS;
}

int health_new(uv_loop_t *loop, struct td_redis *redis, const struct td_settings *settings,
               const struct health_ops *ops, void *user, struct health **ret, struct td_err *reterr)
{
    struct health *health = calloc(1, sizeof(*health));
    uint64_t seed[2];

    if (!health)
        return td_fail(reterr, TD_ENOMEM, "relay health");
    health->redis = redis;
    health->settings = settings;
    health->ops = *ops;
    health->user = user;
    health->count = settings->relay_count;
    health->started_ms = td_mono_ms();
    health->campaigns = campaigns_new(redis, settings, &campaigns_ops, health);
    if (!health->campaigns || td_redis_subscribe(redis, "td:relays", on_message, health) < 0) {
        campaigns_free(health->campaigns);
        free(health);
        return td_fail(reterr, TD_ENOMEM, "relay health");
    }
    if (uv_random(NULL, NULL, seed, sizeof(seed), 0, NULL) < 0)
        seed[0] = td_mono_us(), seed[1] = (uint64_t)uv_os_getpid();
    td_rng_seed(&health->rng, seed[0]);
    snprintf(health->me, sizeof(health->me), "%016" PRIx64 "%016" PRIx64, seed[0], seed[1]);
    for (size_t i = 0; i < health->count; i++)
        relay_init(health, i);
    td_redis_on_state(redis, on_redis_state, health);
    uv_timer_init(loop, &health->timer);
    health->timer.data = health;
    uv_timer_start(&health->timer, on_timer, 0, (uint64_t)settings->dispatch_report_ms);
    *ret = health;
    return TD_OK;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void health_free(struct health *health)
{
    if (!health)
        return;
    health->closing = true;
    td_redis_forget(health->redis, health);
    for (size_t i = 0; i < health->count; i++)
        td_redis_forget(health->redis, &health->relay[i]);
    campaigns_free(health->campaigns);
    health->campaigns = NULL;
    uv_close((uv_handle_t *)&health->timer, on_closed);
}
