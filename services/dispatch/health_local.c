#include "health_local.h"

#include <stdio.h>
#include <string.h>

#include "tandem/backoff.h"
#include "tandem/wilson.h"

/* As in relay_report.lua. */
enum {
    MIN_N = 20,
    ROW_MS = 5000,
    QUIET_MS = 1000,
    OPENS_MAX = 16,
    PROBES = 2,
    WINS = 20,
    FEW = 3,
    FEW_MS = 3000,
    CUT_MS = 500,
    HOLD_MS = 2000,
    GRANT_MS = 1000, /* one a second: 5 a second for the fleet, shared by about as many */
    EXHAUSTED_MS = 3600000
};
#define LOWER 0.30
#define CUT 0.7
#define FLOOR 0.05
#define CREEP_PER_MS 0.00002
#define RAMP_FIRST 0.10

static void enter(struct local_health *local, enum relay_state state, const char *reason)
{
    local->state = state;
    snprintf(local->reason, sizeof(local->reason), "%s", reason);
    local->row_count = 0;
    local->grants = 0;
    local->wins = 0;
    if (state != RELAY_LIMITED && state != RELAY_CLOSED)
        memset(local->bucket, 0, sizeof(local->bucket));
}

static void open_relay(struct local_health *local, const char *reason, uint64_t now)
{
    if (!local->eager && local->opens < OPENS_MAX)
        local->opens++;
    local->till = now + td_backoff_ms(local->opens, local->probe_ms, local->probe_max_ms);
    if (local->eager && local->due > now)
        local->till = local->due; /* as planned, had it not been tried early */
    local->eager = false;
    local->opened_at = now;
    local->factor = 1;
    enter(local, RELAY_OPEN, reason);
}

static void half_open(struct local_health *local, unsigned probes, uint64_t now)
{
    local->eager = local->state == RELAY_OPEN && local->till > now;
    local->due = local->till;
    local->probes = probes;
    local->probe_out = false;
    local->trial_at = now;
    local->grant_at = 0;
    enter(local, RELAY_HALF_OPEN, "well.probing");
}

void local_seed(struct local_health *local, const struct relay_view *view, uint64_t now_ms)
{
    local->opens = 0;
    local->found_down = local->eager = false;
    local->row_count = 0;
    local->last_ok = 0;
    local->closed_at = 0;
    local->cut_at = 0;
    local->factor = view->rate_factor > FLOOR ? view->rate_factor : FLOOR;
    local->factor_at = now_ms;
    memset(local->bucket, 0, sizeof(local->bucket));
    if (view->state == RELAY_OPEN || view->state == RELAY_HALF_OPEN) {
        open_relay(local, view->reason,
                   now_ms); /* whoever held the probe may not be there any more: begin again */
        return;
    }
    enter(local, view->state, view->reason);
    local->till = view->state == RELAY_EXHAUSTED ? now_ms + EXHAUSTED_MS : 0;
    if (view->share < 1 && view->state == RELAY_CLOSED)
        local->closed_at = now_ms;
}

static void window_add(struct local_health *local, bool bad, uint64_t now, uint64_t *ret_bad, uint64_t *ret_all)
{
    uint64_t second = now / 1000;

    *ret_bad = *ret_all = 0;
    if (local->bucket[second % LOCAL_BUCKETS].second != second) {
        local->bucket[second % LOCAL_BUCKETS].second = second;
        local->bucket[second % LOCAL_BUCKETS].all = local->bucket[second % LOCAL_BUCKETS].bad = 0;
    }
    local->bucket[second % LOCAL_BUCKETS].all++;
    local->bucket[second % LOCAL_BUCKETS].bad += bad;
    for (size_t i = 0; i < LOCAL_BUCKETS; i++)
        if (second - local->bucket[i].second < LOCAL_BUCKETS) {
            *ret_all += local->bucket[i].all;
            *ret_bad += local->bucket[i].bad;
        }
}

/* @return connection failures in a row within ROW_MS, this one included */
static unsigned row_add(struct local_health *local, uint64_t now)
{
    unsigned recent = 0;

    if (local->row_count == LOCAL_ROW)
        memmove(local->row, local->row + 1, (LOCAL_ROW - 1) * sizeof(local->row[0]));
    else
        local->row_count++;
    local->row[local->row_count - 1] = now;
    for (unsigned i = 0; i < local->row_count; i++)
        recent += now - local->row[i] <= ROW_MS;
    return recent;
}

static void judge(struct local_health *local, enum health_kind kind, bool connection, bool refused,
                  const char *reason, uint64_t now)
{
    uint64_t bad, all;

    window_add(local, kind == HEALTH_HARD, now, &bad, &all);
    if (kind == HEALTH_OK) {
        local->row_count = 0;
        local->last_ok = now;
    } else if (kind == HEALTH_FATAL || (refused && now - local->last_ok > QUIET_MS) ||
               (connection && row_add(local, now) >= LOCAL_ROW) ||
               (kind == HEALTH_HARD && all >= MIN_N && td_wilson_lower(bad, all) > LOWER)) {
        open_relay(local, reason, now);
        local->found_down = true;
    } else if (kind == HEALTH_SOFT && now - local->cut_at >= CUT_MS) {
        local->factor = local->factor * CUT > FLOOR ? local->factor * CUT : FLOOR;
        local->cut_at = local->factor_at = now;
        local->state = RELAY_LIMITED;
        snprintf(local->reason, sizeof(local->reason), "%s", reason);
    }
}

static void close_relay(struct local_health *local, uint64_t now)
{
    local->closed_at = now;
    local->found_down = local->eager = false;
    local->factor = 1;
    enter(local, RELAY_CLOSED, "well.ramp");
}

void local_count(struct local_health *local, enum health_kind kind, bool connection, bool refused,
                 const char *reason, uint64_t now_ms)
{
    if (kind == HEALTH_NONE || kind == HEALTH_CONNECTIONS)
        return;
    if (kind == HEALTH_EXHAUSTED || kind == HEALTH_PAUSED) {
        local->till = kind == HEALTH_EXHAUSTED ? now_ms + EXHAUSTED_MS : 0;
        enter(local, kind == HEALTH_EXHAUSTED ? RELAY_EXHAUSTED : RELAY_PAUSED, reason);
    } else if (local->state == RELAY_CLOSED || local->state == RELAY_LIMITED) {
        judge(local, kind, connection, refused, reason, now_ms);
    } else if (local->state == RELAY_HALF_OPEN && (kind == HEALTH_HARD || kind == HEALTH_FATAL)) {
        open_relay(local, reason, now_ms);
    } else if (local->state == RELAY_HALF_OPEN && kind == HEALTH_OK) {
        local->wins++;
        if (local->wins >= WINS || (local->wins >= FEW && now_ms - local->trial_at >= FEW_MS))
            close_relay(local, now_ms);
    }
}

bool local_tick(struct local_health *local, bool hold, uint64_t now_ms)
{
    bool early = hold && local->state == RELAY_OPEN && now_ms - local->opened_at >= HOLD_MS;

    if (((local->state == RELAY_OPEN || local->state == RELAY_EXHAUSTED) && now_ms >= local->till) || early)
        half_open(local, local->state == RELAY_OPEN ? 0 : PROBES, now_ms);
    if (local->state == RELAY_LIMITED) {
        local->factor += CREEP_PER_MS * (double)(now_ms - local->factor_at);
        local->factor_at = now_ms;
        if (local->factor >= 1) {
            local->factor = 1;
            local->state = RELAY_CLOSED;
            snprintf(local->reason, sizeof(local->reason), "well.recovered");
        }
    }
    if (local->state != RELAY_HALF_OPEN)
        return false;
    if (local->probes < PROBES) {
        bool go = !local->probe_out;

        local->probe_out = true;
        return go;
    }
    if (now_ms - local->grant_at >= GRANT_MS) {
        local->grants = 1;
        local->grant_at = now_ms;
    }
    return false;
}

void local_probed(struct local_health *local, bool well, const char *reason, uint64_t now_ms)
{
    local->probe_out = false;
    if (local->state != RELAY_HALF_OPEN || local->probes >= PROBES)
        return;
    if (!well) {
        open_relay(local, reason, now_ms);
        return;
    }
    local->probes++;
    local->trial_at = now_ms;
}

void local_fill(const struct local_health *local, struct relay_view *view, uint64_t now_ms)
{
    bool fit = local->state == RELAY_CLOSED || local->state == RELAY_LIMITED;
    uint64_t since = now_ms - local->closed_at;

    view->state = local->state;
    view->rate_factor = local->factor;
    view->grants = local->grants;
    view->share = fit ? 1 : 0;
    if (fit && local->closed_at && since < local->ramp_ms)
        view->share = RAMP_FIRST + (1 - RAMP_FIRST) * (double)since / (double)local->ramp_ms;
    view->next_change_ms = 0;
    view->local = true;
    memcpy(view->reason, local->reason, sizeof(view->reason));
    snprintf(view->evidence, sizeof(view->evidence), "decided here: Redis is away");
}
