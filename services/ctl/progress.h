/* progress.h - the sums of a campaign, and the line that shows them. Pure: time is an argument. */
#ifndef CTL_PROGRESS_H
#define CTL_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tandem/buf.h"

#define PROGRESS_RELAYS_MAX 16
#define PROGRESS_NAME_MAX 33
#define PROGRESS_SAMPLES 32

struct totals_relay {
    char name[PROGRESS_NAME_MAX];
    uint64_t accepted, refused, hard, soft, block; /* refused: because the address takes no mail */
    char left[160];                                /* why the campaign left this relay; "" = it has not */
};

struct totals {                /* all zero at first */
    uint64_t submitted, count; /* count: sealed, 0 = not yet */
    uint64_t accepted, refused, invalid, suppressed, expired, cancelled, unconfirmed;
    struct totals_relay relay[PROGRESS_RELAYS_MAX];
    size_t relay_count;
    char held[16]; /* why it has no relay: "bounces", "relays"; "" = it has one */
};

/** Take in one field of td:{c:X}:totals, such as "accepted:ses-eu". Unknown ones are passed over. */
void totals_field(struct totals *totals, const char *name, uint64_t value);
/** The same for fields that hold a text: "tripped:ses-eu", "held". */
void totals_text(struct totals *totals, const char *name, const char *text);
uint64_t totals_done(const struct totals *totals);
/** Sealed, and every number has its outcome. */
bool totals_finished(const struct totals *totals);
/** Finished and somebody got nothing, other than by being suppressed. */
bool totals_partly(const struct totals *totals);
/** Sentences about relays it has left and about being held, each on a line of its own; nothing when there is
 * nothing. */
int totals_why(const struct totals *totals, struct td_buf *out);
/** As one JSON object. */
int totals_json(const struct totals *totals, const char *campaign_id, struct td_buf *out);

struct progress { /* all zero at first */
    struct {
        uint64_t at_ms, done;
    } sample[PROGRESS_SAMPLES]; /* a ring, about a quarter of a second apart */
    size_t next, used;
    uint64_t first_ms, first_done;
    struct totals last;
    char active[PROGRESS_NAME_MAX]; /* the relay that accepted most since the last sample */
};

/** @param now_ms  monotonic */
void progress_add(struct progress *progress, const struct totals *totals, uint64_t now_ms);
/** Mails per second over the last seconds, and since the first sample. */
double progress_rate_now(const struct progress *progress);
double progress_rate_mean(const struct progress *progress);
/** Seconds until the end at the present rate; -1 when nobody can tell. */
int64_t progress_eta_s(const struct progress *progress);
/** The line for a person, without line end. @param bar  characters of the bar, 0 = none */
int progress_line(const struct progress *progress, unsigned bar, struct td_buf *out);
/** As totals_json, and rates, eta_s, active_relay. */
int progress_json(const struct progress *progress, const char *campaign_id, struct td_buf *out);

#endif /* CTL_PROGRESS_H */
