#include "relays.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "health_campaign.h"
#include "pace.h"
#include "reply_rules.h"
#include "tandem/clock.h"
#include "tandem/gcra.h"
#include "tandem/log.h"

enum {
    OVERFLOW_WAIT_US = 50000,        /* a limited relay whose next slot is further away lets mail flow on */
    MAILS_PER_S_OF_A_CONNECTION = 10, /* about, so that a few are made at once when mail begins */
    THROTTLED_SHARE = 2500            /* per 10,000: bulk's part of a relay that throttles it, of mails and of its rate */
};

struct relay {
    struct relays *owner;
    size_t index;
    const struct td_relay_settings *settings;
    struct reply_rules *rules; /* NULL: the built-in ones alone */
    struct pool *pool;
    struct td_gcra spare; /* what bulk may have beyond its part while this relay throttles it and no other is fit */
    struct td_metric *state, *failovers, *left, *bounce_level, *bounce_ratio;
};

struct relays {
    const struct td_settings *settings;
    struct td_metrics *metrics;
    struct health *health;
    struct pace *pace;
    struct relays_ops ops;
    void *user;
    struct relay relay[TD_RELAYS_MAX];
    size_t count, stopping;
    void (*stopped)(void *user);
    void *stopped_user;
    struct td_metric *campaigns_held;
};

static void on_done(void *user, struct mail_job *job, const struct attempt_result *result)
{
    struct relay *r = user;

    if (result->kind == ATTEMPT_ACCEPTED) {
        health_report(r->owner->health, r->index, HEALTH_OK, "");
        health_latency(r->owner->health, r->index, result->final_us);
    }
    r->owner->ops.attempted(r->owner->user, job->user, result);
}

static void on_sent(void *user, struct mail_job *job, uint64_t now_us)
{
    struct relay *r = user;
    struct mail *mail = job->user;

    pace_sent(r->owner->pace, r->index, mail->slot_us, now_us);
    mail->slot_us = 0;
}

/* "refused" is proof by itself: nobody listens there. All else may be the way to the relay, so it takes more than one. */
static void down_reason(char *out, size_t size, enum relay_event event, const char *detail)
{
    bool refused = event == RELAY_CONNECT && strstr(detail, "refused");

    if (event == RELAY_QUOTA)
        snprintf(out, size, "overloaded.quota");
    else if (event == RELAY_SUSPENDED)
        snprintf(out, size, "down.paused");
    else
        snprintf(out, size, "down.%s", refused ? "refused" : relay_event_name(event));
}

static enum health_kind kind_of(enum relay_event event)
{
    return event == RELAY_QUOTA ? HEALTH_EXHAUSTED : event == RELAY_SUSPENDED ? HEALTH_PAUSED : HEALTH_HARD;
}

static void on_event(void *user, struct pool *pool, enum relay_event event, const char *detail)
{
    struct relay *r = user;
    char reason[48];

    if (event == RELAY_UP) {
        r->owner->ops.moved(r->owner->user); /* a paced mail may have waited for it */
        return;
    }
    td_log(TD_WARN, "relay.trouble", "relay=%s what=%s detail=\"%s\"", r->settings->name, relay_event_name(event), detail);
    if (event == RELAY_TOO_MANY) {
        size_t n = pool_connections(pool);

        pool_limit(pool, n > 1 ? n - 1 : 1);
        health_report(r->owner->health, r->index, HEALTH_CONNECTIONS, "overloaded.connections");
        return;
    }
    down_reason(reason, sizeof(reason), event, detail);
    health_report(r->owner->health, r->index, kind_of(event), reason);
    if (event == RELAY_SILENT) /* mails that were to wait for it may have the next relay, whatever the others see */
        r->owner->ops.moved(r->owner->user);
}

static uint64_t on_silent_ms(void *user, size_t i)
{
    struct relays *relays = user;

    return pool_silent_ms(relays->relay[i].pool);
}

static void on_room(void *user, struct pool *pool)
{
    struct relay *r = user;

    (void)pool;
    r->owner->ops.moved(r->owner->user);
}

static void on_due(void *user, size_t relay)
{
    struct relays *relays = user;

    (void)relay;
    relays->ops.moved(relays->user);
}

static void on_changed(void *user, size_t i, enum relay_state from, const struct relay_view *view, bool first)
{
    struct relays *relays = user;
    struct relay *r = &relays->relay[i];
    bool away = view->state != RELAY_CLOSED && view->state != RELAY_LIMITED;

    pace_factor(relays->pace, i, view->rate_factor);
    pool_others_silent(r->pool, view->state == RELAY_OPEN && strcmp(view->reason, "down.silent") == 0);
    td_metric_set(r->state, view->state);
    if (from != view->state) {
        if (away && (from == RELAY_CLOSED || from == RELAY_LIMITED)) {
            td_metric_add(r->failovers, 1);
            /* Mails that wait for its connections have not been begun: they take the other relay at once. */
            pool_give_back(r->pool);
        }
        relays->ops.changed(relays->user, r->settings->name, from, view, first);
    }
    relays->ops.moved(relays->user);
}

static void on_bounces(void *user, size_t i, enum bounce_level from, const struct relay_view *view, bool first)
{
    struct relays *relays = user;
    struct relay *r = &relays->relay[i];

    td_metric_set(r->bounce_level, view->bounce_level);
    if (view->bounce_level == BOUNCES_STOP)
        pool_give_back(r->pool); /* mails that wait for its connections; express among them comes again at once */
    relays->ops.bounces(relays->user, r->settings->name, from, view, first);
    relays->ops.moved(relays->user);
}

static void on_campaign_left(void *user, size_t i, const char *campaign_id, const char *evidence)
{
    struct relays *relays = user;

    td_metric_add(relays->relay[i].left, 1);
    relays->ops.campaign_left(relays->user, relays->relay[i].settings->name, campaign_id, evidence);
    relays->ops.moved(relays->user);
}

static void on_campaign_held(void *user, const char *campaign_id, bool held)
{
    struct relays *relays = user;

    (void)campaign_id;
    td_metric_add(relays->campaigns_held, held ? 1 : -1);
}

static void on_probed(void *user, enum relay_event event, const char *detail)
{
    struct relay *r = user;
    char reason[48] = "well.probe";

    if (event != RELAY_UP)
        down_reason(reason, sizeof(reason), event, detail);
    health_probed(r->owner->health, r->index, event == RELAY_UP, reason);
}

static void on_probe(void *user, size_t i)
{
    struct relays *relays = user;
    struct relay *r = &relays->relay[i];

    if (pool_probe(r->pool, on_probed, r) < 0)
        health_probed(relays->health, i, false, "down.probe");
}

static int relay_open(struct relays *relays, uv_loop_t *loop, size_t i, struct td_err *reterr)
{
    static const struct pool_ops ops = {on_done, on_sent, on_event, on_room};
    struct relay *r = &relays->relay[i];
    char labels[64];
    int rc;

    r->owner = relays;
    r->index = i;
    r->settings = &relays->settings->relays[i];
    if (!r->settings->return_path_domain)
        return td_fail(reterr, TD_ECONFIG, "relays[%zu] (%s) needs return_path_domain: bounces have to come back", i,
                       r->settings->name);
    snprintf(labels, sizeof(labels), "relay=\"%s\"", r->settings->name);
    r->state = td_metric(relays->metrics, TD_GAUGE, "tandem_dispatch_relay_state",
                         "0 closed, 1 limited, 2 open, 3 half-open, 4 exhausted, 5 paused", labels);
    r->failovers = td_metric(relays->metrics, TD_COUNTER, "tandem_dispatch_relay_left_total",
                             "Times mail left this relay because it was unfit", labels);
    r->left = td_metric(relays->metrics, TD_COUNTER, "tandem_dispatch_campaigns_left_total",
                        "Campaigns that left this relay because they bounced too much there", labels);
    r->bounce_level = td_metric(relays->metrics, TD_GAUGE, "tandem_dispatch_relay_bounce_level",
                                "By bounces of all campaigns: 0 well, 1 warn, 2 bulk throttled, 3 bulk stopped", labels);
    r->bounce_ratio = td_metric(relays->metrics, TD_GAUGE, "tandem_dispatch_relay_bounce_ratio",
                                "Hard bounces of 24 hours as a part of the mails taken, at the last look", labels);
    rc = reply_rules_of(relays->settings, r->settings, &r->rules, reterr);
    if (rc == TD_OK)
        rc = pool_new(loop, r->settings, relays->metrics, &ops, r, &r->pool, reterr);
    if (rc == TD_OK)
        pool_rules(r->pool, r->rules);
    return rc;
}

int relays_new(uv_loop_t *loop, const struct td_settings *settings, struct td_redis *redis, struct td_metrics *metrics,
               const struct relays_ops *ops, void *user, struct relays **ret, struct td_err *reterr)
{
    static const struct health_ops health_ops = {on_changed, on_bounces, on_probe, on_silent_ms, on_campaign_left, on_campaign_held};
    struct relays *relays = calloc(1, sizeof(*relays));
    int rc = TD_OK;

    if (!relays)
        return td_fail(reterr, TD_ENOMEM, "relays");
    relays->settings = settings;
    relays->metrics = metrics;
    relays->ops = *ops;
    relays->user = user;
    relays->count = settings->relay_count;
    relays->campaigns_held = td_metric(metrics, TD_GAUGE, "tandem_dispatch_campaigns_held",
                                       "Campaigns without a relay: it bounced too much at each, or bulk is stopped there", "");
    for (size_t i = 0; i < relays->count && rc == TD_OK; i++)
        rc = relay_open(relays, loop, i, reterr);
    if (rc == TD_OK)
        rc = pace_new(loop, redis, settings, on_due, relays, &relays->pace, reterr);
    if (rc == TD_OK)
        rc = health_new(loop, redis, settings, &health_ops, relays, &relays->health, reterr);
    if (rc < 0) {
        relays_free(relays);
        return rc;
    }
    *ret = relays;
    return TD_OK;
}

void relays_free(struct relays *relays)
{
    if (!relays)
        return;
    health_free(relays->health);
    pace_free(relays->pace);
    for (size_t i = 0; i < relays->count; i++) {
        pool_free(relays->relay[i].pool);
        reply_rules_free(relays->relay[i].rules);
    }
    free(relays);
}

static void on_pool_stopped(void *user)
{
    struct relays *relays = user;

    if (--relays->stopping == 0)
        relays->stopped(relays->stopped_user);
}

void relays_stop(struct relays *relays, void (*cb)(void *user), void *user)
{
    relays->stopped = cb;
    relays->stopped_user = user;
    relays->stopping = relays->count + 1;
    for (size_t i = 0; i < relays->count; i++)
        pool_stop(relays->relay[i].pool, on_pool_stopped, relays);
    on_pool_stopped(relays);
}

static size_t find(const struct relays *relays, const char *name)
{
    for (size_t i = 0; i < relays->count; i++)
        if (strcmp(relays->relay[i].settings->name, name) == 0)
            return i;
    return TD_RELAYS_MAX;
}

static bool may_ever(const struct relays *relays, const struct mail *mail, size_t i)
{
    const struct td_relay_settings *s = relays->relay[i].settings;

    return td_relay_allowed(relays->settings, s, (const char *const *)mail->msg->allowed_countries,
                            mail->msg->n_allowed_countries) &&
           (s->max_message_bytes <= 0 || mail->msg->message_bytes <= s->max_message_bytes);
}

bool relays_left(const struct relays *relays, const struct mail *mail)
{
    for (size_t k = 0; k < mail->msg->n_route; k++) {
        size_t i = find(relays, mail->msg->route[k]);

        if (i < TD_RELAYS_MAX && !(mail->avoid >> i & 1) && may_ever(relays, mail, i))
            return true;
    }
    return false;
}

/* When no rate is known: about what its connections carry. */
static double spare_per_s(const struct relays *relays, const struct relay *r)
{
    double per_s = r->settings->max_mails_per_s > 0
                       ? (double)r->settings->max_mails_per_s / pace_members(relays->pace, r->index)
                       : (double)(r->settings->max_connections * MAILS_PER_S_OF_A_CONNECTION);

    return per_s * THROTTLED_SHARE / 10000;
}

static void throttle(const struct relay *r, const struct relay_view *view, struct route_relay *fit)
{
    fit->throttled = view->bounce_level == BOUNCES_THROTTLE;
    if (!fit->throttled)
        return;
    fit->share = fit->share < THROTTLED_SHARE ? fit->share : THROTTLED_SHARE;
    fit->spare = r->spare.tat_us <= td_mono_us();
}

static bool is_well(const struct relay *r, const struct relay_view *view)
{
    return (view->state == RELAY_CLOSED || view->state == RELAY_LIMITED) && pool_silent_ms(r->pool) == 0;
}

/* why: HELD_..., when bounces keep it from this relay; else NULL. */
static struct route_relay look(struct relays *relays, const struct mail *mail, size_t i, uint64_t now_ms, const char **why)
{
    const Tandem__Internal__V1__OutboundMessage *msg = mail->msg;
    struct route_relay fit = {.never = true};
    const struct relay_view *view;
    const struct relay *r;
    bool bulk = !mail_is_express(mail);

    if (i == TD_RELAYS_MAX)
        return fit;
    r = &relays->relay[i];
    view = health_view(relays->health, i);
    fit.never = !may_ever(relays, mail, i);
    if (!health_campaign_fit(relays->health, i, msg->campaign_id, msg->bounce_ceiling_per_10000))
        *why = HELD_BOUNCES;
    else if (bulk && view->bounce_level == BOUNCES_STOP)
        *why = HELD_RELAYS;
    fit.avoided = (mail->pinned >= 0 && (size_t)mail->pinned != i) ||
                  ((mail->avoid >> i & 1) && now_ms < mail->avoid_until_ms) || *why;
    fit.well = is_well(r, view);
    fit.limited = view->state == RELAY_LIMITED;
    /* Silent: it may be our own way to it that is cut, so others may still use it, and its trial is theirs. */
    /* A grant is for half-open, and for the rare mail that finds out when a pause is over. */
    fit.grant = !fit.well && view->grants > 0 && pool_silent_ms(r->pool) == 0;
    fit.share = view->share >= 1 ? 10000 : view->share <= 0 ? 0 : (uint32_t)(view->share * 10000);
    fit.room = pool_room(r->pool) > 0 &&
               !(fit.limited && pace_full(relays->pace, i, OVERFLOW_WAIT_US));
    if (bulk)
        throttle(r, view, &fit);
    return fit;
}

struct choice {
    size_t relay;
    bool grant; /* half-open: takes one of its mails */
    bool spare; /* throttled: takes a slot beyond bulk's part */
};

static enum route_answer choose(struct relays *relays, const struct mail *mail, struct choice *ret)
{
    struct route_relay fit[TD_RELAYS_MAX];
    size_t index[TD_RELAYS_MAX], n = mail->msg->n_route, chosen = 0, may = 0, left = 0;
    uint64_t now_ms = td_mono_ms();
    enum route_answer answer;
    const char *held = NULL;

    if (n > TD_RELAYS_MAX) /* mail_new has refused it */
        return ROUTE_NEVER;
    for (size_t k = 0; k < n; k++) {
        const char *why = NULL;

        index[k] = find(relays, mail->msg->route[k]);
        fit[k] = look(relays, mail, index[k], now_ms, &why);
        may += !fit[k].never;
        left += !fit[k].never && !why;
        if (!fit[k].never && why && (!held || strcmp(held, HELD_BOUNCES) == 0))
            held = why;
    }
    health_campaign_hold(relays->health, mail->msg->campaign_id, may > 0 && left == 0 ? held : NULL);
    answer = route_choose(fit, n, mail->dice, &chosen);
    if (answer == ROUTE_SEND) {
        ret->relay = index[chosen];
        ret->grant = fit[chosen].grant;
        ret->spare = !ret->grant && fit[chosen].throttled && mail->dice >= fit[chosen].share;
    }
    return answer;
}

uint64_t relays_held_ms(const struct relays *relays, const struct mail *mail)
{
    return health_campaign_held_ms(relays->health, mail->msg->campaign_id);
}

enum route_answer relays_look(struct relays *relays, const struct mail *mail)
{
    struct choice choice;

    return choose(relays, mail, &choice);
}

/* A slot is a moment for sending: taken while connections are still to be made, mails would wait for them and then come
 * in a heap, above the rate. */
static bool is_cold(struct relay *r)
{
    double per_s = (double)r->settings->max_mails_per_s;

    if (!(per_s > 0) || pool_takes_now(r->pool))
        return false;
    pool_warm(r->pool, 1 + (size_t)(per_s / MAILS_PER_S_OF_A_CONNECTION));
    return true;
}

enum route_answer relays_choose(struct relays *relays, struct mail *mail, size_t *ret_relay)
{
    enum route_answer answer;
    struct choice choice = {0};
    struct relay *r;

    answer = choose(relays, mail, &choice);
    if (answer != ROUTE_SEND)
        return answer;
    r = &relays->relay[choice.relay];
    if (is_cold(r) || pace_take(relays->pace, choice.relay, &mail->slot_us) > 0)
        return ROUTE_WAIT;
    if (choice.grant && !health_take_grant(relays->health, choice.relay))
        return ROUTE_WAIT;
    if (choice.spare)
        td_gcra_take(&r->spare, spare_per_s(relays, r), 1, 0, td_mono_us(), &(uint64_t){0});
    *ret_relay = choice.relay;
    return ROUTE_SEND;
}

size_t relays_connections(const struct relays *relays)
{
    size_t n = 0;

    for (size_t i = 0; i < relays->count; i++)
        n += pool_connections(relays->relay[i].pool);
    return n;
}

int relays_send(struct relays *relays, struct mail *mail, size_t relay)
{
    mail_for_relay(mail, relays->relay[relay].settings, relays->settings->keys_token);
    mail->relay = relay;
    return pool_send(relays->relay[relay].pool, &mail->job);
}

bool relays_tells(const struct relays *relays, size_t relay)
{
    return relays->relay[relay].settings->ses_configuration_set != NULL;
}

bool relays_any_tells(const struct relays *relays, const struct mail *mail)
{
    for (size_t k = 0; k < mail->msg->n_route; k++) {
        size_t i = find(relays, mail->msg->route[k]);

        if (i < TD_RELAYS_MAX && relays_tells(relays, i))
            return true;
    }
    return false;
}

const char *relays_name(const struct relays *relays, size_t relay)
{
    return relays->relay[relay].settings->name;
}

const struct reply_rules *relays_rules(const struct relays *relays, size_t relay)
{
    return relays->relay[relay].rules;
}

void relays_report(struct relays *relays, size_t relay, const struct reply_class *class)
{
    if (class->health != HEALTH_NONE)
        health_report(relays->health, relay, class->health, class->reason);
}

void relays_want(struct relays *relays, size_t waiting)
{
    for (size_t i = 0; i < relays->count; i++)
        pace_want(relays->pace, i, (uint32_t)(waiting > 100000 ? 100000 : waiting));
}

void relays_part(struct relays *relays, double part)
{
    pace_part(relays->pace, part);
}

bool relays_any_fit(const struct relays *relays)
{
    for (size_t i = 0; i < relays->count; i++) {
        const struct relay_view *view = health_view(relays->health, i);

        if (is_well(&relays->relay[i], view) || view->state == RELAY_HALF_OPEN)
            return true;
    }
    return false;
}
