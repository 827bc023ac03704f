/* tandem/watermark.h - offsets of one lane that finish out of order, committed in order. Pure. Not thread-safe. */
#ifndef TD_WATERMARK_H
#define TD_WATERMARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct td_watermark; /* opaque */

/**
 * @param span  most records between the oldest unfinished and the newest begun, rounded up to a power of two
 * @return NULL when out of memory
 */
struct td_watermark *td_watermark_new(size_t span);
void td_watermark_free(struct td_watermark *wm); /* NULL is fine */

/**
 * A record was taken. Offsets come in rising order; gaps (compacted or control records) count as done.
 * @return false: below or at one seen before (a repeat), or past the span (take no more until it moved): not begun
 */
bool td_watermark_begin(struct td_watermark *wm, int64_t offset);
/** Its work is durable elsewhere. Unknown offsets and repeats have no effect. */
void td_watermark_done(struct td_watermark *wm, int64_t offset);
/** First offset not done: what to commit. -1 before the first begin. Never falls. */
int64_t td_watermark_next(const struct td_watermark *wm);
/** Is a record between the watermark and the newest begun done (or a gap)? false for all others. */
bool td_watermark_is_done(const struct td_watermark *wm, int64_t offset);
/** How many records from this one on, up to the newest begun, are all done or all not done. 0 below the watermark and past the newest. */
size_t td_watermark_run(const struct td_watermark *wm, int64_t offset);
/** Begun and not done. */
size_t td_watermark_open(const struct td_watermark *wm);
/** Records from the oldest not done to the newest begun: when it nears the span, take no more. */
size_t td_watermark_spread(const struct td_watermark *wm);
/** true when one more record would still fit. */
bool td_watermark_room(const struct td_watermark *wm);

#endif /* TD_WATERMARK_H */
