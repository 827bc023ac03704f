/* health_dispatcher.h - for tests of relay health: the module as a dispatcher has it, in real time. */
#ifndef HEALTH_DISPATCHER_H
#define HEALTH_DISPATCHER_H

#include "health_fleet.h"

struct dispatcher {
    uint64_t silent_ms; /* what it says of its relay */
    struct health *health;
    unsigned opened, firsts, probes, changes;
    bool probe_well, fit, open, half, local;
    unsigned campaigns_left, levels_told;
    enum bounce_level level;
    int campaigns_held;
    char evidence[160];
};

static inline void on_changed(void *user, size_t relay, enum relay_state from, const struct relay_view *view, bool first)
{
    struct dispatcher *dispatcher = user;

    assert_int_equal(relay, 0);
    dispatcher->changes++;
    dispatcher->opened += view->state == RELAY_OPEN && from != RELAY_OPEN;
    dispatcher->firsts += first;
    dispatcher->fit = view->state == RELAY_CLOSED;
    dispatcher->open = view->state == RELAY_OPEN;
    dispatcher->half = view->state == RELAY_HALF_OPEN;
    dispatcher->local = view->local;
}

static inline void on_bounces(void *user, size_t relay, enum bounce_level from, const struct relay_view *view, bool first)
{
    struct dispatcher *dispatcher = user;

    (void)from;
    assert_int_equal(relay, 0);
    dispatcher->level = view->bounce_level;
    dispatcher->levels_told += first;
}

static inline void on_probe(void *user, size_t relay)
{
    struct dispatcher *dispatcher = user;

    dispatcher->probes++;
    health_probed(dispatcher->health, relay, dispatcher->probe_well,
                  dispatcher->probe_well ? "well.probe" : "down.connect");
}

static inline void on_campaign_left(void *user, size_t relay, const char *campaign_id, const char *evidence)
{
    struct dispatcher *dispatcher = user;

    assert_int_equal(relay, 0);
    assert_true(campaign_id[0]);
    dispatcher->campaigns_left++;
    snprintf(dispatcher->evidence, sizeof(dispatcher->evidence), "%s", evidence);
}

static inline uint64_t on_silent_ms(void *user, size_t relay)
{
    const struct dispatcher *dispatcher = user;

    return relay == 0 ? dispatcher->silent_ms : 0;
}

static inline void on_campaign_held(void *user, const char *campaign_id, bool held)
{
    struct dispatcher *dispatcher = user;

    assert_true(campaign_id[0]);
    dispatcher->campaigns_held += held ? 1 : -1;
}

static char relay_name[32];

static inline struct td_settings settings_for(const char *name)
{
    struct td_settings settings = {
        .relay_count = 1, .dispatch_report_ms = 100, .health_probe_ms = 200, .health_probe_max_ms = 2000};

    snprintf(relay_name, sizeof(relay_name), "%s", name);
    settings.relays[0].name = relay_name;
    settings.relays[0].bounce_warn = 200;
    settings.relays[0].bounce_throttle = 400;
    settings.relays[0].bounce_stop = 500;
    return settings;
}

static inline void dispatcher_open(struct dispatcher *dispatcher, const struct td_settings *settings, struct td_redis *at)
{
    static const struct health_ops ops = {on_changed, on_bounces, on_probe, on_silent_ms, on_campaign_left, on_campaign_held};
    struct td_err err;

    memset(dispatcher, 0, sizeof(*dispatcher));
    dispatcher->probe_well = true;
    assert_int_equal(health_new(&loop, at, settings, &ops, dispatcher, &dispatcher->health, &err), TD_OK);
}

#endif /* HEALTH_DISPATCHER_H */
