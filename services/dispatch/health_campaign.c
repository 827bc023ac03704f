#include "health_campaign.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/id.h"
#include "tandem/log.h"
#include "tandem/map.h"
#include "tandem/wilson.h"

enum {
    LOOK_MS = 1000,    /* how often totals are read */
    ACTIVE_MS = 10000, /* of campaigns asked for within this time */
    FORGET_MS = 600000, /* three times as long while held: its mails come round every ten minutes */
    CAMPAIGNS_MAX = 4096,
    FIELDS = 4 /* accepted, refused, hard, tripped of each relay; behind them `held` */
};

struct verdict {
    struct campaign *campaign;
    uint64_t tested; /* at this many mails that had the relay's final word */
    bool tripped;
    bool shared;  /* Redis has it */
    bool telling; /* Redis was asked to take it */
    char evidence[CAMPAIGN_EVIDENCE_MAX];
};

struct campaign {
    struct campaigns *owner;
    char id[TD_CAMPAIGN_ID_MAX + 1];
    uint32_t ceiling_per_10000;
    uint64_t asked_ms, looked_ms, held_ms; /* held_ms: when held changed */
    bool looking;
    const char *held; /* HELD_..., NULL */
    struct verdict verdict[TD_RELAYS_MAX];
};

struct campaigns {
    struct td_redis *redis;
    const struct td_settings *settings;
    const struct campaigns_ops *ops;
    void *user;
    struct td_map *map;
    uint64_t full_ms; /* when it was last said that there are too many */
};

uint64_t campaign_test_size(uint64_t mails)
{
    uint64_t size = 100;

    if (mails < size)
        return 0;
    if (mails >= 1000)
        return mails / 1000 * 1000;
    while (size * 2 <= mails)
        size *= 2;
    return size;
}

/* What a campaign has at a relay. */
struct counts {
    uint64_t accepted, refused, hard; /* refused because the address takes no mail; bounced hard after it was accepted */
};

static uint64_t mails_of(const struct counts *counts)
{
    return counts->accepted + counts->refused;
}

static uint64_t bad_of(const struct counts *counts)
{
    return counts->hard + counts->refused;
}

static void totals_key(char *key, size_t size, const struct campaign *campaign)
{
    snprintf(key, size, "td:{c:%s}:totals", campaign->id);
}

/* 1: nobody has said so before, so this process tells. */
static void on_tripped(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct verdict *verdict = user;
    struct campaign *campaign = verdict->campaign;
    size_t relay = (size_t)(verdict - campaign->verdict);

    verdict->telling = false;
    if (!err && td_reply_int(reply) == 1)
        campaign->owner->ops->left(campaign->owner->user, relay, campaign->id, verdict->evidence);
}

/* Lost with Redis: this process holds to its verdict, and says it again at the next look. */
static void trip(struct campaign *campaign, size_t relay, const struct counts *counts)
{
    struct verdict *verdict = &campaign->verdict[relay];
    char key[96], field[64];

    if (verdict->telling)
        return;
    if (!verdict->tripped)
        td_log(TD_WARN, "campaign.tripped",
               "campaign=%s relay=%s accepted=%" PRIu64 " refused=%" PRIu64 " hard=%" PRIu64 " ceiling_per_10000=%" PRIu32,
               campaign->id, campaign->owner->settings->relays[relay].name, counts->accepted, counts->refused, counts->hard,
               campaign->ceiling_per_10000);
    verdict->tripped = true;
    verdict->shared = false;
    totals_key(key, sizeof(key), campaign);
    snprintf(field, sizeof(field), "tripped:%s", campaign->owner->settings->relays[relay].name);
    snprintf(verdict->evidence, sizeof(verdict->evidence),
             "%" PRIu64 " of %" PRIu64 " bounced hard (%" PRIu64 " refused by the relay, %" PRIu64
             " reported later), surely above %.2f %%, ceiling %.2f %%",
             bad_of(counts), mails_of(counts), counts->refused, counts->hard,
             td_wilson_lower(bad_of(counts), mails_of(counts)) * 100, campaign->ceiling_per_10000 / 100.0);
    verdict->telling =
        td_redis_answers(td_redis_command(campaign->owner->redis,
                                          (struct td_arg[]){TD_ARG_STR("HSETNX"), TD_ARG_STR(key), TD_ARG_STR(field),
                                                            TD_ARG_STR(verdict->evidence)},
                                          4, on_tripped, verdict));
}

static uint64_t count_at(const struct td_reply *reply, size_t at)
{
    long long value = td_reply_int(td_reply_at(reply, at));

    return value > 0 ? (uint64_t)value : 0;
}

/* @return true: an operator has given it this relay back */
static bool judge(struct campaign *campaign, size_t relay, const struct td_reply *reply)
{
    struct verdict *verdict = &campaign->verdict[relay];
    size_t at = FIELDS * relay;
    struct counts counts = {count_at(reply, at), count_at(reply, at + 1), count_at(reply, at + 2)};
    bool shared = td_reply_type(td_reply_at(reply, at + 3)) != TD_REPLY_NIL;
    bool given_back = verdict->shared && !shared;
    uint64_t size;

    if (given_back)
        verdict->tripped = false;
    verdict->shared = shared;
    if (shared)
        verdict->tripped = true;
    if (counts.hard > counts.accepted) /* a report may overtake the outcome of its mail */
        counts.hard = counts.accepted;
    if (mails_of(&counts) == 0)
        return given_back;
    size = campaign_test_size(mails_of(&counts));
    if (verdict->tripped && !shared) {
        trip(campaign, relay, &counts);
    } else if (!verdict->tripped && size > verdict->tested) {
        verdict->tested = size;
        if (td_wilson_lower(bad_of(&counts), mails_of(&counts)) > campaign->ceiling_per_10000 / 10000.0)
            trip(campaign, relay, &counts);
    }
    return given_back;
}

static bool is_same(const char *held, const char *why)
{
    return held && why ? strcmp(held, why) == 0 : held == why;
}

static void write_held(const struct campaign *campaign)
{
    char key[96];

    totals_key(key, sizeof(key), campaign);
    if (campaign->held)
        td_redis_command(
            campaign->owner->redis,
            (struct td_arg[]){TD_ARG_STR("HSET"), TD_ARG_STR(key), TD_ARG_STR("held"), TD_ARG_STR(campaign->held)}, 4, NULL, NULL);
    else
        td_redis_command(campaign->owner->redis, (struct td_arg[]){TD_ARG_STR("HDEL"), TD_ARG_STR(key), TD_ARG_STR("held")}, 3, NULL,
                         NULL);
}

static void set_held(struct campaign *campaign, const char *why, uint64_t now)
{
    const char *was = campaign->held;

    campaign->held = why;
    if (!was || !why)
        campaign->held_ms = now;
    write_held(campaign);
    td_log(why ? TD_WARN : TD_INFO, why ? "campaign.held" : "campaign.released", "campaign=%s why=%s", campaign->id, why ? why : was);
    if (!was != !why)
        campaign->owner->ops->held(campaign->owner->user, campaign->id, why != NULL);
}

static void on_totals(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct campaign *campaign = user;
    const struct td_settings *settings = campaign->owner->settings;
    bool given_back = false;

    campaign->looking = false;
    if (err)
        return;
    for (size_t i = 0; i < settings->relay_count; i++)
        given_back = judge(campaign, i, reply) || given_back;
    if (!campaign->held)
        return;
    /* Should it have no relay all the same, its next mail says so. A mark that is lost with Redis is written again. */
    if (given_back)
        set_held(campaign, NULL, td_mono_ms());
    else if (td_reply_type(td_reply_at(reply, FIELDS * settings->relay_count)) == TD_REPLY_NIL)
        write_held(campaign);
}

static void look(struct campaign *campaign, uint64_t now)
{
    const struct td_settings *settings = campaign->owner->settings;
    static const char *const prefix[FIELDS] = {"accepted", "refused", "hard", "tripped"};
    char key[96], field[FIELDS * TD_RELAYS_MAX][64];
    struct td_arg args[3 + FIELDS * TD_RELAYS_MAX] = {TD_ARG_STR("HMGET")};

    totals_key(key, sizeof(key), campaign);
    args[1] = TD_ARG_STR(key);
    for (size_t i = 0; i < FIELDS * settings->relay_count; i++) {
        snprintf(field[i], sizeof(field[i]), "%s:%s", prefix[i % FIELDS], settings->relays[i / FIELDS].name);
        args[2 + i] = TD_ARG_STR(field[i]);
    }
    args[2 + FIELDS * settings->relay_count] = TD_ARG_STR("held");
    campaign->looked_ms = now;
    campaign->looking = td_redis_command(campaign->owner->redis, args, 3 + FIELDS * settings->relay_count,
                                         on_totals, campaign) != TD_ENOMEM;
}

static struct campaign *campaign_add(struct campaigns *campaigns, const char *id)
{
    struct campaign *campaign;

    if (td_map_count(campaigns->map) >= CAMPAIGNS_MAX || !td_campaign_id_valid(id))
        return NULL;
    campaign = calloc(1, sizeof(*campaign));
    if (!campaign)
        return NULL;
    campaign->owner = campaigns;
    for (size_t i = 0; i < TD_RELAYS_MAX; i++)
        campaign->verdict[i].campaign = campaign;
    snprintf(campaign->id, sizeof(campaign->id), "%s", id);
    if (td_map_set(campaigns->map, id, strlen(id), campaign) < 0) {
        free(campaign);
        return NULL;
    }
    return campaign;
}

bool campaigns_fit(struct campaigns *campaigns, size_t relay, const char *campaign_id, uint32_t ceiling_per_10000)
{
    struct campaign *campaign = td_map_get(campaigns->map, campaign_id, strlen(campaign_id));
    uint64_t now = td_mono_ms();

    if (!campaign) {
        campaign = campaign_add(campaigns, campaign_id);
        if (!campaign) {
            if (now - campaigns->full_ms > 60000)
                td_log(TD_WARN, "campaign.unwatched", "watched=%zu", td_map_count(campaigns->map));
            campaigns->full_ms = now;
            return true;
        }
    }
    campaign->asked_ms = now;
    campaign->ceiling_per_10000 = ceiling_per_10000 ? ceiling_per_10000 : CAMPAIGN_CEILING_PER_10000;
    if (campaign->looked_ms == 0)
        look(campaign, now);
    return !campaign->verdict[relay].tripped;
}

void campaigns_hold(struct campaigns *campaigns, const char *campaign_id, const char *why)
{
    struct campaign *campaign = td_map_get(campaigns->map, campaign_id, strlen(campaign_id));
    uint64_t now = td_mono_ms();

    /* Not more often than a look: mails of one campaign may differ in which relays they fit. */
    if (!campaign || is_same(campaign->held, why) || now - campaign->held_ms < LOOK_MS)
        return;
    set_held(campaign, why, now);
}

void campaigns_release(struct campaigns *campaigns)
{
    struct campaign *campaign;
    size_t cursor = 0;

    while ((campaign = td_map_next(campaigns->map, &cursor)))
        if (is_same(campaign->held, HELD_RELAYS))
            set_held(campaign, NULL, td_mono_ms());
}

uint64_t campaigns_held_ms(const struct campaigns *campaigns, const char *campaign_id)
{
    const struct campaign *campaign = td_map_get(campaigns->map, campaign_id, strlen(campaign_id));

    return campaign && campaign->held ? td_mono_ms() - campaign->held_ms + 1 : 0;
}

static bool is_telling(const struct campaign *campaign)
{
    for (size_t i = 0; i < TD_RELAYS_MAX; i++)
        if (campaign->verdict[i].telling)
            return true;
    return false;
}

void campaigns_tick(struct campaigns *campaigns)
{
    uint64_t now = td_mono_ms();
    struct campaign *campaign, *old = NULL;
    size_t cursor = 0;

    while ((campaign = td_map_next(campaigns->map, &cursor))) {
        if ((now - campaign->asked_ms < ACTIVE_MS || campaign->held) && now - campaign->looked_ms >= LOOK_MS && !campaign->looking)
            look(campaign, now);
        if (now - campaign->asked_ms > (campaign->held ? 3 : 1) * FORGET_MS && !campaign->looking && !is_telling(campaign))
            old = campaign;
    }
    if (old) { /* one a tick: the map must not change under the walk */
        if (old->held)
            campaigns->ops->held(campaigns->user, old->id, false); /* nothing of it is left here to hold */
        td_map_remove(campaigns->map, old->id, strlen(old->id));
        free(old);
    }
}

struct campaigns *campaigns_new(struct td_redis *redis, const struct td_settings *settings, const struct campaigns_ops *ops,
                                void *user)
{
    struct campaigns *campaigns = calloc(1, sizeof(*campaigns));

    if (!campaigns)
        return NULL;
    campaigns->redis = redis;
    campaigns->settings = settings;
    campaigns->ops = ops;
    campaigns->user = user;
    campaigns->map = td_map_new();
    if (!campaigns->map) {
        free(campaigns);
        return NULL;
    }
    return campaigns;
}

void campaigns_free(struct campaigns *campaigns)
{
    struct campaign *campaign;
    size_t cursor = 0;

    if (!campaigns)
        return;
    while ((campaign = td_map_next(campaigns->map, &cursor))) {
        td_redis_forget(campaigns->redis, campaign);
        for (size_t i = 0; i < TD_RELAYS_MAX; i++)
            td_redis_forget(campaigns->redis, &campaign->verdict[i]);
        free(campaign);
    }
    td_map_free(campaigns->map);
    free(campaigns);
}
