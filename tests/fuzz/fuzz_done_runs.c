/* No text makes a note say more than its runs, and what is read can be passed on. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "done_runs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct done_runs runs, again;
    char written[DONE_RUNS_TEXT], *text = malloc(size + 1);
    struct td_watermark *wm = td_watermark_new(8);
    int64_t first;

    PROMISE(text && wm);
    memcpy(text, data, size);
    text[size] = '\0';
    PROMISE(done_runs_read(&runs, text) || runs.count == 0);
    PROMISE(!done_runs_has(&runs, INT64_MIN) && !done_runs_has(&runs, INT64_MAX) && !done_runs_has(&runs, -1));
    for (size_t i = 0; i < runs.count; i++) {
        PROMISE(runs.run[i].first < runs.run[i].end && (i == 0 || runs.run[i - 1].end <= runs.run[i].first));
        PROMISE(done_runs_has(&runs, runs.run[i].first) && done_runs_has(&runs, runs.run[i].end - 1));
    }
    /* An owner that has read nothing but the record before them all. */
    if (runs.count > 0 && (first = runs.run[0].first) > 0) {
        PROMISE(td_watermark_begin(wm, first - 1));
        done_runs_write(written, 0, wm, &runs);
        PROMISE(done_runs_read(&again, written) && again.count <= runs.count);
        for (size_t i = 0; i < again.count; i++)
            PROMISE(again.run[i].first == runs.run[i].first && again.run[i].end == runs.run[i].end);
    }
    td_watermark_free(wm);
    free(text);
    return 0;
}
