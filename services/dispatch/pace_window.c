#include "pace_window.h"

#include <string.h>

enum {
    SECOND_MS = 1000,
    SLOTS_MS = 1010, /* 10 ms late is in time: at 0.985 of a quota 1,011 ms hold no more slots than it allows mails */
    AHEAD_MS = 250,  /* for so long a dispatcher may have no slot, when many share a rate */
    LATE_US = 5000,  /* nothing adds up below that */
    WAYS_MIN = 3,    /* before, none is believed */
    WAYS_FIRST = 16,
    STEP_US = 300,
    STEP_A_SECOND_US = 10000,
    GIVEN_UP = 8,  /* where ways always differ it would never end: one slot in so many, ... */
    SPENT_MAX = 32 /* ... and at once so many, and a second's */
};

/* How many it holds of some milliseconds ago; 0: the present one. */
static uint16_t *cell(struct pace_window *w, uint16_t *ring, uint64_t ago_ms)
{
    return &ring[(w->now_ms - ago_ms) % PACE_WINDOW_MS];
}

static void advance(struct pace_window *w, uint64_t now_ms)
{
    if (now_ms > w->now_ms + PACE_WINDOW_MS) { /* all of it is over */
        memset(w->slots, 0, sizeof(w->slots));
        memset(w->started, 0, sizeof(w->started));
        memset(w->sent, 0, sizeof(w->sent));
        w->slots_sum = w->started_sum = w->sent_sum = 0;
        w->now_ms = now_ms;
    }
    while (w->now_ms < now_ms) {
        w->now_ms++;
        *cell(w, w->slots, 0) = *cell(w, w->started, 0) = *cell(w, w->sent, 0) = 0;
        w->slots_sum -= *cell(w, w->slots, SLOTS_MS + 1);
        w->started_sum -= *cell(w, w->started, SECOND_MS + 1);
        w->sent_sum -= *cell(w, w->sent, SECOND_MS + 1);
    }
}

static void add(struct pace_window *w, uint16_t *ring, uint32_t *sum, uint64_t most_ms, uint64_t at_ms, int n)
{
    uint64_t ago = w->now_ms > at_ms ? w->now_ms - at_ms : 0;
    uint16_t *at = cell(w, ring, ago);

    if (ago > most_ms || *at == (n > 0 ? UINT16_MAX : 0))
        return;
    *at = (uint16_t)(*at + n);
    *sum += (uint32_t)n;
}

static uint64_t usual_way(const struct pace_window *w)
{
    return w->ways < WAYS_MIN ? 0 : w->usual_us;
}

/* A mail that begins now is whole when it has gone the usual way, so the second that ends then is looked at, and each that
 * ends later: there a mail that came late is still in, while its slot is over. But slots that come before it ends
 * may be given up as well, when it is sure that they are needed: so many a second as now, from AHEAD_MS on. */
static bool too_full(struct pace_window *w)
{
    uint64_t way_ms = usual_way(w) / 1000, more;
    uint32_t mails = w->started_sum + w->sent_sum, slots = w->slots_sum;

    for (uint64_t ago = SECOND_MS; ago > 0 && ago + way_ms > SECOND_MS; ago--)
        mails -= *cell(w, w->sent, ago);
    for (uint64_t k = 0; mails > 0 && k + way_ms < SECOND_MS; k++) { /* the second that ends k ms later */
        more = k > AHEAD_MS ? w->slots_sum * (k - AHEAD_MS) / SLOTS_MS : 0;
        if (mails > slots + more)
            return true;
        mails -= *cell(w, w->started, SECOND_MS - k) + *cell(w, w->sent, SECOND_MS - way_ms - k);
        slots -= *cell(w, w->slots, SLOTS_MS - k);
    }
    return false;
}

bool pace_window_fits(struct pace_window *w, uint64_t now_us)
{
    if (now_us >= w->late_until_us || w->spent > GIVEN_UP * (SPENT_MAX + w->slots_sum))
        return true;
    advance(w, now_us / 1000);
    if (!too_full(w))
        return true;
    w->spent += GIVEN_UP;
    return false;
}

void pace_window_slot(struct pace_window *w, uint64_t due_us, bool used, uint64_t now_us)
{
    advance(w, now_us / 1000);
    add(w, w->slots, &w->slots_sum, SLOTS_MS, due_us / 1000, 1);
    w->spent -= w->spent > 0;
    if (used)
        add(w, w->started, &w->started_sum, SECOND_MS, due_us / 1000, 1);
}

/* The median: each mail moves it a little, fewer mails a second by more each. So a heap of late ones moves it hardly, and when
 * for a second all were slower, the way itself has become longer. It begins with the shortest of the first: they may have been late. */
static void learn_way(struct pace_window *w, uint64_t way_us, uint64_t now_us)
{
    uint64_t step = w->slots_sum * STEP_US > STEP_A_SECOND_US ? STEP_A_SECOND_US / w->slots_sum : STEP_US;

    if (way_us < w->usual_us)
        w->quicker_at_us = now_us;
    if (w->ways < WAYS_FIRST) {
        w->usual_us = w->ways++ == 0 || way_us < w->usual_us ? way_us : w->usual_us;
    } else if (way_us > w->usual_us) {
        step *= now_us - w->quicker_at_us > SECOND_MS * UINT64_C(1000) ? 16 : 1;
        w->usual_us += way_us - w->usual_us < step ? way_us - w->usual_us : step;
    } else {
        w->usual_us -= w->usual_us - way_us < step ? w->usual_us - way_us : step;
    }
}

void pace_window_sent(struct pace_window *w, uint64_t slot_us, uint64_t now_us)
{
    uint64_t way_us = now_us > slot_us ? now_us - slot_us : 0, usual_us = usual_way(w);

    advance(w, now_us / 1000);
    add(w, w->sent, &w->sent_sum, SECOND_MS, now_us / 1000, 1);
    if (slot_us > 0) {
        add(w, w->started, &w->started_sum, SECOND_MS, slot_us / 1000, -1);
        learn_way(w, way_us, now_us);
    }
    if (way_us > usual_us + LATE_US || usual_us > usual_way(w) + LATE_US) /* it, or those before */
        w->late_until_us = now_us + SECOND_MS * UINT64_C(1000);
}

void pace_window_earlier(struct pace_window *w, uint64_t by_us, uint64_t now_us)
{
    uint64_t by_ms = by_us / 1000;

    advance(w, now_us / 1000);
    w->slots_sum = 0;
    for (uint64_t ago = SLOTS_MS + 1; ago-- > 0;) {
        *cell(w, w->slots, ago) = ago < by_ms ? 0 : *cell(w, w->slots, ago - by_ms);
        w->slots_sum += *cell(w, w->slots, ago);
    }
    w->late_until_us = now_us + SECOND_MS * UINT64_C(1000);
}
