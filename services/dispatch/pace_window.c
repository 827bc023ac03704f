#include "pace_window.h"

#include <string.h>

enum {
    SECOND_MS = 1000,
    SLOTS_MS = 1010, /* 10 ms late is in time: at 0.985 of a quota 1,011 ms hold no more slots than it allows mails */
    LATE_MS = 5, /* nothing adds up below that */
    WAYS_MIN = 3,
    WAY_US = 10 * 1000 * 1000 /* how long a shortest way is believed in: once to twice */
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

/* In ms. Few mails may all have been late: of them only what is shorter than before is believed. */
static uint64_t shortest_way(const struct pace_window *w)
{
    uint64_t now = w->way_us[0], before = w->way_us[1];

    if (before ? now == 0 || now > before : w->ways < WAYS_MIN)
        return before / 1000;
    return now / 1000;
}

/* A mail that begins now is whole after the shortest way at the earliest, so the second that ends then is looked at, and
 * each that ends later: there a mail that came late is still in, while its slot is over. */
bool pace_window_fits(struct pace_window *w, uint64_t now_us)
{
    uint64_t way_ms = shortest_way(w);
    uint32_t mails, slots;

    if (now_us >= w->late_until_us)
        return true;
    advance(w, now_us / 1000);
    mails = w->started_sum + w->sent_sum;
    slots = w->slots_sum;
    for (uint64_t ago = SECOND_MS; ago > 0 && ago + way_ms > SECOND_MS; ago--)
        mails -= *cell(w, w->sent, ago);
    for (uint64_t k = 0; mails > 0 && k + way_ms < SECOND_MS; k++) { /* the second that ends k ms later */
        if (mails > slots)
            return false;
        mails -= *cell(w, w->started, SECOND_MS - k) + *cell(w, w->sent, SECOND_MS - way_ms - k);
        slots -= *cell(w, w->slots, SLOTS_MS - k);
    }
    return true;
}

void pace_window_slot(struct pace_window *w, uint64_t due_us, bool used, uint64_t now_us)
{
    advance(w, now_us / 1000);
    add(w, w->slots, &w->slots_sum, SLOTS_MS, due_us / 1000, 1);
    if (used)
        add(w, w->started, &w->started_sum, SECOND_MS, due_us / 1000, 1);
}

static void learn_way(struct pace_window *w, uint64_t way_us, uint64_t now_us)
{
    uint64_t age_us = now_us - w->way_since_us;

    if (age_us > WAY_US) {
        w->way_us[1] = age_us > 2 * WAY_US || w->ways < WAYS_MIN ? 0 : w->way_us[0];
        w->way_us[0] = w->ways = 0;
        w->way_since_us = now_us;
    }
    w->ways += w->ways < WAYS_MIN;
    if (way_us == 0)
        way_us = 1;
    if (w->way_us[0] == 0 || way_us < w->way_us[0])
        w->way_us[0] = way_us;
}

void pace_window_sent(struct pace_window *w, uint64_t slot_us, uint64_t now_us)
{
    uint64_t way_us = now_us > slot_us ? now_us - slot_us : 0, shortest = shortest_way(w);

    advance(w, now_us / 1000);
    add(w, w->sent, &w->sent_sum, SECOND_MS, now_us / 1000, 1);
    if (slot_us > 0) {
        add(w, w->started, &w->started_sum, SECOND_MS, slot_us / 1000, -1);
        learn_way(w, way_us, now_us);
    }
    /* When the shortest way turns out to be shorter, it is those before that were late. */
    if (way_us / 1000 > shortest + LATE_MS || shortest_way(w) < shortest)
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
