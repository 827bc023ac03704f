#include "lane.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/ledger.h"
#include "tandem/log.h"

struct lane_set {
    struct td_redis *redis;
    const struct td_settings *settings;
    void (*owned)(void *user, struct lane *lane);
    void (*lost)(void *user, struct lane *lane);
    void *user;
    struct lane *lanes;
    uint64_t away_since_ms; /* Redis; 0: it is there */
    char owner[64 + 41]; /* instance and run: a restarted process is someone else */
};

/* A call may outlive its lane: it finds it again by name. */
struct ask {
    struct lane_set *set;
    struct td_lane id;
    uint64_t asked_at_ms;
};

int lane_set_new(struct td_redis *redis, const struct td_settings *settings, const char *run,
                 void (*owned)(void *user, struct lane *lane), void (*lost)(void *user, struct lane *lane), void *user,
                 struct lane_set **ret, struct td_err *reterr)
{
    struct lane_set *set = calloc(1, sizeof(*set));

    if (!set)
        return td_fail(reterr, TD_ENOMEM, "lanes");
    snprintf(set->owner, sizeof(set->owner), "%.63s-%s", settings->instance, run);
    set->redis = redis;
    set->settings = settings;
    set->owned = owned;
    set->lost = lost;
    set->user = user;
    *ret = set;
    return TD_OK;
}

void lane_set_free(struct lane_set *set)
{
    if (!set)
        return;
    lane_set_clear(set, false);
    free(set);
}

struct lane *lane_find(const struct lane_set *set, struct td_lane id)
{
    for (struct lane *lane = set->lanes; lane; lane = lane->next)
        if (lane->id.topic == id.topic && lane->id.partition == id.partition)
            return lane;
    return NULL;
}

struct lane *lane_first(const struct lane_set *set)
{
    return set->lanes;
}

static void lane_name(char name[LANE_NAME_MAX], struct td_lane id)
{
    snprintf(name, LANE_NAME_MAX, "%s-%d", td_topics[id.topic].name, (int)id.partition);
}

static void unproven_free(struct unproven *list)
{
    struct unproven *next;

    for (; list; list = next) {
        next = list->next;
        free(list);
    }
}

static void lane_free(struct lane *lane)
{
    if (!lane)
        return;
    unproven_free(lane->left);
    td_watermark_free(lane->wm);
    free(lane->before);
    free(lane);
}

struct lane *lane_add(struct lane_set *set, struct td_lane id, const char *note)
{
    struct lane *lane = calloc(1, sizeof(*lane));

    if (lane) {
        lane->wm = td_watermark_new(LANE_SPAN);
        lane->before = malloc(sizeof(*lane->before));
    }
    if (!lane || !lane->wm || !lane->before) {
        lane_free(lane);
        return NULL;
    }
    lane->id = id;
    lane_name(lane->name, id);
    if (*note && !done_runs_read(lane->before, note))
        td_log(TD_WARN, "lane.note", "lane=%s msg=\"what is beside the offset cannot be read\"", lane->name);
    if (!*note || lane->before->count == 0) {
        free(lane->before);
        lane->before = NULL;
    }
    lane->committed = lane->fresh_from = -1;
    lane->asked_at_ms = td_mono_ms();
    lane->next = set->lanes;
    set->lanes = lane;
    return lane;
}

size_t *lane_unproven(struct lane *lane, const struct campaign *campaign)
{
    struct unproven *at = lane->left;

    while (at && at->campaign != campaign)
        at = at->next;
    if (!at) {
        at = malloc(sizeof(*at));
        if (!at)
            return NULL;
        *at = (struct unproven){lane->left, campaign, lane->unproven};
        lane->left = at;
    }
    return &at->left;
}

/* Has whatever the next owner will read from it never been begun? Nothing that a relay has, nothing done above the offset
 * where it begins to read, and all done that an owner before us may have begun. */
static bool leaves_clean(const struct lane *lane)
{
    return !lane->in_doubt && td_watermark_open(lane->wm) == td_watermark_spread(lane->wm) &&
           (lane->clean || (lane->fresh_from >= 0 && td_watermark_next(lane->wm) >= lane->fresh_from));
}

void lane_set_clear(struct lane_set *set, bool committed)
{
    struct lane *next;

    for (struct lane *lane = set->lanes; lane; lane = next) {
        next = lane->next;
        if (lane->owned && !lane->fenced)
            td_lane_release(set->redis, lane->name, set->owner,
                            committed && leaves_clean(lane), NULL, NULL);
        lane_free(lane);
    }
    set->lanes = NULL;
}

static void own(struct lane_set *set, struct lane *lane)
{
    if (lane->owned)
        return;
    lane->owned = true;
    lane->owned_at_ms = td_wall_ms();
    set->owned(set->user, lane);
}

/* of: what td_lane_acquire said. A view that nothing was before knows of every owner there ever was. */
static bool is_clean(const struct lane_set *set, long long of)
{
    return of == 1 || (of == 2 && td_redis_view_ms(set->redis) == 0);
}

static void on_lease(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct ask *ask = user;
    struct lane *lane = lane_find(ask->set, ask->id);
    uint64_t asked_at_ms = ask->asked_at_ms;
    struct lane_set *set = ask->set;
    char name[LANE_NAME_MAX];
    long long answer;

    lane_name(name, ask->id);
    free(ask);
    answer = err ? 0 : td_reply_int(td_reply_at(reply, 0));
    if (!lane || (lane->revoked && !lane->owned)) {
        /* It went away before it was ours: its next owner must not wait for a lease that nobody uses. */
        if (answer > 0)
            td_lane_release(set->redis, name, set->owner, is_clean(set, td_reply_int(td_reply_at(reply, 1))), NULL, NULL);
        return;
    }
    if (lane->revoked)
        return;
    lane->asking = false;
    if (err) /* away: what is owned stays owned, what is not waits */
        return;
    if (answer > 0) {
        lane->fresh_at_ms = asked_at_ms;
        lane->ask_again_ms = asked_at_ms + (uint64_t)set->settings->dispatch_lane_lease_ms / 3;
        if (!lane->owned) {
            lane->first = td_reply_int(td_reply_at(reply, 1)) == 2;
            lane->clean = is_clean(set, td_reply_int(td_reply_at(reply, 1)));
        }
        own(set, lane);
        return;
    }
    if (lane->owned && !lane->fenced) {
        lane->fenced = true;
        lane->fenced_at_ms = td_mono_ms();
        td_log(TD_WARN, "lane.fenced", "lane=%s msg=\"another dispatcher holds the lease; starting nothing more\"", lane->name);
        set->lost(set->user, lane);
        return;
    }
    /* The other's lease ends in -answer ms; look a little more often, it may let go before. */
    lane->ask_again_ms = td_mono_ms() + (answer < -500 || answer == 0 ? 500u : (uint64_t)(-answer) + 5);
}

static void ask(struct lane_set *set, struct lane *lane, uint64_t now_ms)
{
    struct ask *a = malloc(sizeof(*a));

    lane->ask_again_ms = now_ms + 500;
    if (!a)
        return;
    *a = (struct ask){set, lane->id, now_ms};
    lane->asking = true;
    if (!td_redis_answers(td_lane_acquire(set->redis, lane->name, set->owner, (unsigned)set->settings->dispatch_lane_lease_ms,
                                          on_lease, a))) {
        lane->asking = false;
        free(a);
    }
}

bool lane_may_start(const struct lane_set *set, const struct lane *lane, uint64_t now_ms)
{
    if (!lane->owned || lane->fenced || lane->revoked)
        return false;
    return !td_redis_up(set->redis) || now_ms - lane->fresh_at_ms < (uint64_t)set->settings->dispatch_lane_lease_ms;
}

bool lane_set_stuck(const struct lane_set *set, uint64_t now_ms)
{
    uint64_t patience_ms = (uint64_t)(set->settings->dispatch_lane_lease_ms + set->settings->kafka_session_timeout_ms);

    for (const struct lane *lane = set->lanes; lane; lane = lane->next)
        if (lane->fenced && now_ms - lane->fenced_at_ms > patience_ms)
            return true;
    return false;
}

/* Away for too long for this lane? Only the time that both have lasted counts; the owner before, who could not give its lease back,
 * has none any more then. */
static bool waited(const struct lane_set *set, const struct lane *lane, uint64_t now_ms)
{
    const struct td_settings *s = set->settings;
    uint64_t since_ms = lane->asked_at_ms > set->away_since_ms ? lane->asked_at_ms : set->away_since_ms;
    int64_t wait_ms = s->dispatch_redis_wait_ms > s->dispatch_lane_lease_ms ? s->dispatch_redis_wait_ms : s->dispatch_lane_lease_ms;

    return set->away_since_ms && now_ms - since_ms >= (uint64_t)wait_ms;
}

void lane_set_tick(struct lane_set *set, uint64_t now_ms)
{
    if (td_redis_up(set->redis))
        set->away_since_ms = 0;
    else if (set->away_since_ms == 0)
        set->away_since_ms = now_ms;
    for (struct lane *lane = set->lanes; lane; lane = lane->next) {
        if (lane->revoked || lane->fenced)
            continue;
        if (!lane->owned && waited(set, lane, now_ms)) {
            td_log(TD_WARN, "lane.no_lease", "lane=%s msg=\"Redis is away for too long; going on without a lease\"", lane->name);
            own(set, lane);
        }
        if (!lane->asking && now_ms >= lane->ask_again_ms && td_redis_up(set->redis))
            ask(set, lane, now_ms);
    }
}
