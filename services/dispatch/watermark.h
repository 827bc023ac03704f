/* watermark.h - offsets of one lane that finish out of order, committed in order. Pure. Not thread-safe. */
#ifndef WATERMARK_H
#define WATERMARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct watermark; /* opaque */

/** @param span  most records between the oldest unfinished and the newest begun, rounded up to a power of two */
struct watermark *watermark_new(size_t span);
void watermark_free(struct watermark *wm); /* NULL is fine */

/**
 * A record was taken. Offsets come in rising order; gaps (compacted or control records) count as done.
 * @return false: below or at one seen before (a repeat), or past the span (take no more until it moved): not begun
 */
bool watermark_begin(struct watermark *wm, int64_t offset);
/** Its work is durable elsewhere. Unknown offsets and repeats have no effect. */
void watermark_done(struct watermark *wm, int64_t offset);
/** First offset not done: what to commit. -1 before the first begin. Never falls. */
int64_t watermark_next(const struct watermark *wm);
/** Begun and not done. */
size_t watermark_open(const struct watermark *wm);
/** Records from the oldest not done to the newest begun: when it nears the span, take no more. */
size_t watermark_spread(const struct watermark *wm);
/** true when one more record would still fit. */
bool watermark_room(const struct watermark *wm);

#endif /* WATERMARK_H */
