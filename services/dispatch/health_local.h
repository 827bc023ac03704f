/* health_local.h - what one dispatcher decides about a relay alone while Redis is away: the rules of
 * relay_report.lua that matter most (fatal, connection failures in a row, the Wilson bound, growing waits, a
 * careful return, early trials while no relay is fit), on its own evidence, beginning with the last shared state. Pure: time is an argument (monotonic
 * ms). */
#ifndef HEALTH_LOCAL_H
#define HEALTH_LOCAL_H

#include <stdbool.h>
#include <stdint.h>

#include "health.h"

#define LOCAL_BUCKETS 30
#define LOCAL_ROW 3

struct local_health {
    uint64_t probe_ms, probe_max_ms, ramp_ms; /* as settings say */
    enum relay_state state;
    char reason[48];
    unsigned opens, probes, wins, grants;
    bool found_down; /* from closed or limited, by own evidence, and not well since */
    bool eager;      /* on trial before its wait was over: a failure costs nothing, it waits on until `due` */
    bool probe_out;  /* health_probed has not been called yet */
    uint64_t till, due, opened_at, closed_at, trial_at, grant_at, cut_at, factor_at, last_ok;
    double factor;
    uint64_t row[LOCAL_ROW];
    unsigned row_count;
    struct {
        uint64_t second;
        uint32_t all, bad;
    } bucket[LOCAL_BUCKETS];
};

/** Forget own samples; begin as the shared view ended. An open relay is probed after probe_ms. */
void local_seed(struct local_health *local, const struct relay_view *view, uint64_t now_ms);
/** One piece of evidence. connection: it counts for the row; refused: see relay_report.lua. */
void local_count(struct local_health *local, enum health_kind kind, bool connection, bool refused,
                 const char *reason, uint64_t now_ms);
/** Let time pass. hold: no relay at all is fit, so mails wait and a probe costs none of them: an open one is tried every 2 s.
 * @return true: probe it now and call local_probed */
bool local_tick(struct local_health *local, bool hold, uint64_t now_ms);
void local_probed(struct local_health *local, bool well, const char *reason, uint64_t now_ms);
/** state, share, rate_factor, grants, reason of view; epoch stays. */
void local_fill(const struct local_health *local, struct relay_view *view, uint64_t now_ms);

#endif /* HEALTH_LOCAL_H */
