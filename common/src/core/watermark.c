/* A ring of bits over [next, next + span): set = begun and not done. `next` moves over clear bits up to `end`. */
#include "tandem/watermark.h"

#include <stdlib.h>

struct td_watermark {
    int64_t next, end; /* all below next are done; end = newest begun + 1; -1 before the first */
    size_t span, open; /* span is a power of two and a multiple of 8 */
    unsigned char bits[];
};

struct td_watermark *td_watermark_new(size_t span)
{
    struct td_watermark *wm;
    size_t n = 8;

    while (n < span)
        n *= 2;
    wm = calloc(1, sizeof(*wm) + n / 8);
    if (!wm)
        return NULL;
    wm->span = n;
    wm->next = wm->end = -1;
    return wm;
}

void td_watermark_free(struct td_watermark *wm)
{
    free(wm);
}

static unsigned char *byte_of(struct td_watermark *wm, int64_t offset)
{
    return &wm->bits[((size_t)offset & (wm->span - 1)) / 8];
}

static unsigned char mask_of(int64_t offset)
{
    return (unsigned char)(1u << ((unsigned)offset & 7));
}

bool td_watermark_begin(struct td_watermark *wm, int64_t offset)
{
    if (wm->next < 0)
        wm->next = wm->end = offset;
    if (wm->open == 0 && offset >= wm->end)
        wm->next = offset; /* a gap before it is done */
    if (offset < wm->end || offset - wm->next >= (int64_t)wm->span)
        return false;
    *byte_of(wm, offset) |= mask_of(offset);
    wm->end = offset + 1;
    wm->open++;
    return true;
}

void td_watermark_done(struct td_watermark *wm, int64_t offset)
{
    if (offset < wm->next || offset >= wm->end || !(*byte_of(wm, offset) & mask_of(offset)))
        return;
    *byte_of(wm, offset) &= (unsigned char)~mask_of(offset);
    wm->open--;
    while (wm->next < wm->end && !(*byte_of(wm, wm->next) & mask_of(wm->next)))
        wm->next++;
}

int64_t td_watermark_next(const struct td_watermark *wm)
{
    return wm->next;
}

bool td_watermark_is_done(const struct td_watermark *wm, int64_t offset)
{
    return offset >= wm->next && offset < wm->end &&
           !(wm->bits[((size_t)offset & (wm->span - 1)) / 8] & mask_of(offset));
}

size_t td_watermark_run(const struct td_watermark *wm, int64_t offset)
{
    int64_t at = offset;
    bool done = td_watermark_is_done(wm, offset);
    unsigned char same = done ? 0x00 : 0xff;

    if (offset < wm->next || offset >= wm->end)
        return 0;
    while (at < wm->end) {
        if ((at & 7) == 0 && at + 8 <= wm->end && wm->bits[((size_t)at & (wm->span - 1)) / 8] == same)
            at += 8;
        else if (td_watermark_is_done(wm, at) == done)
            at++;
        else
            break;
    }
    return (size_t)(at - offset);
}

size_t td_watermark_open(const struct td_watermark *wm)
{
    return wm->open;
}

size_t td_watermark_spread(const struct td_watermark *wm)
{
    return (size_t)(wm->end - wm->next);
}

bool td_watermark_room(const struct td_watermark *wm)
{
    return wm->next < 0 || wm->open == 0 || wm->end - wm->next < (int64_t)wm->span;
}
