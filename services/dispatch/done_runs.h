/* done_runs.h - which records of a lane are done above its committed offset, as a note beside that offset. Pure.
 *
 * "<n>" or "<n> <base>:<open>,<done>,<open>,<done>...": n counts the records that are done or rest (a paused campaign's), which
 * rendering reads to see how full a lane is. Then come runs: from record base on so many are not done, so many are, and so on. While
 * Redis is away one mail that waits for it may hold the offset of thousands sent since; the next owner of the lane
 * knows them by the note. The base is in it, so that it says the same beside any offset. */
#ifndef DISPATCH_DONE_RUNS_H
#define DISPATCH_DONE_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tandem/watermark.h"

enum {
    DONE_RUNS_TEXT = 3900, /* bytes of a note with its NUL, below TD_KAFKA_NOTE_MAX. Runs that do not fit are left out: they are asked
                            * about in the ledger like any other */
    DONE_RUNS_MAX = DONE_RUNS_TEXT / 4 /* "1,1," each */
};

struct done_runs {
    size_t count;
    struct {
        int64_t first, end; /* [first, end) */
    } run[DONE_RUNS_MAX];   /* rising */
};

/** @param before  what the owner before had done, of records that may not have been read again yet; NULL: nothing */
void done_runs_write(char out[DONE_RUNS_TEXT], size_t count, const struct td_watermark *wm, const struct done_runs *before);
/** @return false when it is not such a note (out says that nothing is done) */
bool done_runs_read(struct done_runs *out, const char *text);
bool done_runs_has(const struct done_runs *runs, int64_t offset);

#endif /* DISPATCH_DONE_RUNS_H */
