/* health.h - shared relay health: reports to Redis, hears changes, keeps deciding alone while Redis is away. Loop thread only.
 *
 *  closed --busy--> limited --sustained--> open        state, epoch, reason, evidence and next change live in Redis and are
 *    ^ ^               |                     |         changed by common/lua/relay_report.lua alone, with Redis TIME.
 *    | +---recovered---+                   time        Evidence that carries an older epoch is ignored.
 *    +--ramp-- half-open <--- probe well ----+         exhausted: quota used up, hours.  paused: operator or account pause.
 */
#ifndef HEALTH_H
#define HEALTH_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "reply_classify.h"
#include "tandem/err.h"
#include "tandem/redis.h"
#include "tandem/settings.h"

enum relay_state { RELAY_CLOSED, RELAY_LIMITED, RELAY_OPEN, RELAY_HALF_OPEN, RELAY_EXHAUSTED, RELAY_PAUSED };
const char *relay_state_name(enum relay_state state);

/* What bulk mail may do at a relay, by the bounces of all campaigns together; beside the state. Express is never touched. */
enum bounce_level { BOUNCES_WELL, BOUNCES_WARN, BOUNCES_THROTTLE, BOUNCES_STOP };
const char *bounce_level_name(enum bounce_level level); /* "well", "warn", "throttle", "stop" */

struct relay_view {
    enum relay_state state;
    uint64_t epoch;
    double share;           /* 0..1: part of new mail it may get now (ramp after a return); 0 unless closed or limited */
    double rate_factor;     /* 0..1: part of its configured rate (cut while limited) */
    uint32_t grants;        /* half-open: mails this process may try now; each use lowers it */
    int64_t next_change_ms; /* Unix ms; 0 = none planned */
    char reason[48];        /* "down.connect", "overloaded.rate", "well.ramp" */
    char evidence[160];     /* counts and codes, no personal data */
    bool local;             /* decided here because Redis is away; the level below stays as it was */
    enum bounce_level bounce_level;
    uint64_t bounce_hard, bounce_taken; /* in the window, at the last look */
    char bounces[160];                  /* the same in words, and what followed */
};

struct health;

struct health_ops {
    /** State, share or factor changed. from: the state before. first_to_know: of the fleet; while view->local always.
     * Also called inside health_report and health_probed. */
    void (*changed)(void *user, size_t relay, enum relay_state from, const struct relay_view *view, bool first_to_know);
    /** The bounce level is another one. first_to_know: of the fleet. */
    void (*bounces)(void *user, size_t relay, enum bounce_level from, const struct relay_view *view, bool first_to_know);
    /** An open relay is due for a probe without mail and this process holds the fleet's grant: call health_probed after. */
    void (*probe)(void *user, size_t relay);
    /** How long this process has heard nothing from a relay that it found silent, ms; 0: it is not. Asked at each report. */
    uint64_t (*silent_ms)(void *user, size_t relay);
    /** A campaign bounces too much at this relay and leaves it; told by one process of the fleet. */
    void (*campaign_left)(void *user, size_t relay, const char *campaign_id, const char *evidence);
    /** A campaign has no relay left because of bounces, its own or a relay's, or has one again; each process tells what it sees. */
    void (*campaign_held)(void *user, const char *campaign_id, bool held);
};

/** Until the first shared view, at most one second, each relay shows as open ("start.unknown"): an operator may have
 * drained it. health_free comes before td_redis_free. */
int health_new(uv_loop_t *loop, struct td_redis *redis, const struct td_settings *settings, const struct health_ops *ops,
               void *user, struct health **ret, struct td_err *reterr);
void health_free(struct health *health);

/** Count evidence; sent in aggregate every dispatch.report_ms, at once for SOFT and worse. reason: as reply_class.reason
 * or "down.<relay_event_name>". "down.connect" means unreachable or timed out; say "down.refused" when the connection was
 * refused, which opens a relay at once unless something was accepted in the last second. "down.silent": a probe was not
 * answered either; it opens a relay when nobody was served since that silence began, or for a second. These and down.connect,
 * tls, banner, dns, auth and reset count as connection failures: three in a row within 5 s, fleet-wide, open it too. */
void health_report(struct health *health, size_t relay, enum health_kind kind, const char *reason);
/** Final-reply latency of an accepted mail, for the tarpit trigger. */
void health_latency(struct health *health, size_t relay, uint64_t final_us);
void health_probed(struct health *health, size_t relay, bool well, const char *reason);

const struct relay_view *health_view(const struct health *health, size_t relay);
/** Use one half-open grant. @return false when there is none */
bool health_take_grant(struct health *health, size_t relay);

/** Bounce trigger: may this campaign use this relay? Unknown campaigns: true. Looked up in Redis in the background. */
bool health_campaign_fit(struct health *health, size_t relay, const char *campaign_id, uint32_t ceiling_per_10000);
/** Whether any relay that may take it is left to it. Cheap to say again and again. why: HELD_...; NULL: one is left. */
void health_campaign_hold(struct health *health, const char *campaign_id, const char *why);
/** How long it has been so, ms; 0: it is not. */
uint64_t health_campaign_held_ms(const struct health *health, const char *campaign_id);

#endif /* HEALTH_H */
