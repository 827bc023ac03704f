/* pacing.h - how far a lane of outbound may be filled ahead of dispatch. Pure.
 *
 * A mail on the topic can no longer be changed, and it is old by the time it is sent. So the lanes together hold what
 * dispatch takes from them in some time, by the rate at which it did lately, each an equal part of it, and no more
 * than a number of mails. (By its own rate a lane would grow: dispatch takes from it in bursts.) However slow
 * dispatch is, a lane may hold PACING_LEAST, from which a rate can show.
 *
 * What stands in a lane is known from delivery reports (the offset of the last mail written) and from what group
 * "dispatch" has committed: an offset, and how many mails above it are done, too (campaigns overtake each other).
 * Until both are known once, PACING_LEAST mails go out, whose reports tell. */
#ifndef RENDERING_PACING_H
#define RENDERING_PACING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACING_LEAST 25 /* mails a lane may hold however slow dispatch is */

struct pace {
    int64_t last_offset; /* of the last mail known to be written; -1: not known */
    int64_t committed;   /* next offset dispatch will read after a crash */
    int64_t done;        /* mails from there on that it has done */
    bool polled;         /* both are known */
    uint32_t in_flight;  /* sent, not yet acknowledged */
    uint32_t sent;       /* since pace_init, up to PACING_LEAST */
    uint64_t moved_ms;   /* when it was seen that dispatch had taken more; 0: not yet */
};

struct pace_rate { /* of a topic: all its lanes, whoever fills them */
    double per_s; /* mails dispatch takes from a lane that it takes from */
    double all_per_s;
    uint64_t at_ms[2];   /* the last polls, newest first; 0: none */
    int64_t taken[2];    /* by then, of the lanes together, since pace_rate was all zero */
};

void pace_init(struct pace *pace);
/** @param ahead_ms  time's worth of mails. @param most  mails, whatever the rate. @return room for one more */
bool pace_allows(const struct pace *pace, const struct pace_rate *rate, int64_t ahead_ms, int64_t most);
void pace_sent(struct pace *pace);
/** A delivery report. offset: of the mail, -1 when it is not told. */
void pace_reported(struct pace *pace, bool written, int64_t offset);
/**
 * What the group has committed; -1: nothing yet, so it will begin at the start. done: mails done above it.
 * @return mails taken since the last time; 0 the first time
 */
int64_t pace_committed(struct pace *pace, int64_t offset, int64_t done, uint64_t now_ms);
/** After a poll. taken: the sum of what pace_committed returned. */
void pace_learn(struct pace_rate *rate, const struct pace *lanes, size_t count, int64_t taken, uint64_t now_ms);

#endif /* RENDERING_PACING_H */
