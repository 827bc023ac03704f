/* pacing.h - how far a lane of outbound may be filled ahead of dispatch. Pure.
 *
 * A mail on the topic can no longer be changed, and it is old by the time it is sent. So a lane holds at most
 * `ahead` mails that dispatch has not committed. What stands in a lane is only known from delivery reports (the
 * offset of the last mail written) and from what group "dispatch" has committed; until both are known once, a
 * small first portion goes out, whose reports tell. */
#ifndef RENDERING_PACING_H
#define RENDERING_PACING_H

#include <stdbool.h>
#include <stdint.h>

#define PACING_FIRST_PORTION 100 /* mails a lane gets before anything is known about it */

struct pace {
    int64_t last_offset; /* of the last mail known to be written; -1: not known */
    int64_t committed;   /* next offset dispatch will read after a crash */
    bool polled;         /* committed is known */
    uint32_t in_flight;  /* sent, not yet acknowledged */
    uint32_t sent;       /* since pace_init, up to PACING_FIRST_PORTION */
};

void pace_init(struct pace *pace);
bool pace_allows(const struct pace *pace, int64_t ahead);
void pace_sent(struct pace *pace);
/** A delivery report. offset: of the mail, -1 when it is not told. */
void pace_reported(struct pace *pace, bool written, int64_t offset);
/** What the group has committed; -1: nothing yet, so it will begin at the start. */
void pace_committed(struct pace *pace, int64_t offset);

#endif /* RENDERING_PACING_H */
