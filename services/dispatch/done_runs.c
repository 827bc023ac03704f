#include "done_runs.h"

#include <inttypes.h>
#include <stdio.h>

enum { DIGITS_MAX = 18, RUN_TEXT = 2 * (DIGITS_MAX + 1) };

struct writer {
    char *out;
    size_t len;
    int64_t base, at;
};

/* [first, end) is done, and nothing between writer->at and it. @return false: no room for more */
static bool write_run(struct writer *w, int64_t first, int64_t end)
{
    if (w->len + 2 + DIGITS_MAX + RUN_TEXT >= DONE_RUNS_TEXT)
        return false;
    if (w->at == w->base)
        w->len += (size_t)snprintf(w->out + w->len, DONE_RUNS_TEXT - w->len, " %" PRId64, w->base);
    w->len += (size_t)snprintf(w->out + w->len, DONE_RUNS_TEXT - w->len, "%c%" PRId64 ",%" PRId64, w->at == w->base ? ':' : ',',
                               first - w->at, end - first);
    w->at = end;
    return true;
}

void done_runs_write(char out[DONE_RUNS_TEXT], size_t count, const struct td_watermark *wm, const struct done_runs *before)
{
    int64_t base = td_watermark_next(wm), at = base, read_to = base + (int64_t)td_watermark_spread(wm);
    struct writer w = {out, (size_t)snprintf(out, DONE_RUNS_TEXT, "%zu", count), base, base};

    for (size_t n; (n = td_watermark_run(wm, at)) > 0; at += (int64_t)n)
        if (td_watermark_is_done(wm, at) && !write_run(&w, at, at + (int64_t)n))
            return;
    for (size_t i = 0; before && i < before->count; i++) {
        int64_t first = before->run[i].first > read_to ? before->run[i].first : read_to;

        if (first < before->run[i].end && !write_run(&w, first, before->run[i].end))
            return;
    }
}

/* So few digits that sums of an offset and all runs of a note stay far from overflow. @return what follows, or NULL */
static const char *read_number(const char *text, int64_t *ret)
{
    int64_t n = 0;
    size_t digits = 0;

    for (; *text >= '0' && *text <= '9' && digits < DIGITS_MAX; text++, digits++)
        n = n * 10 + (*text - '0');
    *ret = n;
    return digits > 0 && !(*text >= '0' && *text <= '9') ? text : NULL;
}

static const char *read_after(const char *text, char before, int64_t *ret)
{
    return text && *text == before ? read_number(text + 1, ret) : NULL;
}

static bool read_runs(struct done_runs *out, const char *text)
{
    int64_t at, open, done;

    text = read_after(text, ' ', &at);
    for (char before = ':'; text && *text; before = ',') {
        text = read_after(text, before, &open);
        text = read_after(text, ',', &done);
        if (!text || done == 0 || out->count == DONE_RUNS_MAX || open > INT64_MAX / 4 - at ||
            done > INT64_MAX / 2 - at - open)
            return false;
        out->run[out->count].first = at + open;
        out->run[out->count++].end = at = at + open + done;
    }
    return text && out->count > 0;
}

bool done_runs_read(struct done_runs *out, const char *text)
{
    int64_t n;

    out->count = 0;
    text = read_number(text, &n);
    if (text && *text == '\0')
        return true;
    if (text && read_runs(out, text))
        return true;
    out->count = 0;
    return false;
}

bool done_runs_has(const struct done_runs *runs, int64_t offset)
{
    size_t low = 0, high = runs->count;

    while (low < high) {
        size_t middle = (low + high) / 2;

        if (runs->run[middle].end <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low < runs->count && offset >= runs->run[low].first;
}
