/* relay_state.h - what dispatchers keep of a relay in Redis (relay_report.lua), and in words. Pure. */
#ifndef CTL_RELAY_STATE_H
#define CTL_RELAY_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tandem/settings.h"

struct relay_state { /* all zero at first */
    char st[16], reason[48], by[16], evidence[160], bounces[160];
    uint64_t epoch;
    int64_t till_ms, next_mail_ms, closed_at_ms, factor_at_ms;
    double factor; /* 0: not said, as 1 */
    unsigned opens;
    unsigned level; /* of bounces: 0 well, 1 warn, 2 throttle, 3 stop */
    uint64_t bounce_hard, bounce_taken;
    bool known;
};

/** Take in one field of td:{r:X}:state. Unknown ones are passed over. */
void relay_state_field(struct relay_state *state, const char *name, const char *value);
double relay_state_factor(const struct relay_state *state, int64_t now_ms);

#define RELAY_WINDOW_S 30

struct relay_window { /* of the last RELAY_WINDOW_S seconds */
    uint64_t accepted, failed, busy, timed, slow;
};

/** Add one bucket of td:{r:X}:window: "second accepted failed busy timed slow". Old and unreadable ones count nothing. */
void relay_window_add(struct relay_window *window, const char *bucket, int64_t now_ms);

/** A sentence without full stop for a reason code; for unknown ones what their first word says. Static. */
const char *relay_reason_words(const char *reason);
/** What bulk mail may do there, in a word: full, warned, quarter, stopped. */
const char *relay_bulk_word(const struct relay_state *state);
/** The same in a sentence, with what follows and which settings decide. */
void relay_bulk_words(const struct relay_state *state, const struct td_relay_settings *settings, char *out, size_t size);
/** What comes next, and what brings it. */
void relay_next_words(const struct relay_state *state, int64_t now_ms, char *out, size_t size);
/** 2027-01-31T12:00:00Z; "" for 0. */
void relay_time_words(int64_t unix_ms, char out[32]);

#endif /* CTL_RELAY_STATE_H */
