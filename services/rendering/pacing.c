#include "pacing.h"

enum { MOVING_MS = 2000 }; /* a lane that nothing was taken from for so long has no part of the rate */

#define FADES_TO 0.8 /* what is left of a rate after a poll that saw a lower one: one slow moment is no news */

void pace_init(struct pace *pace)
{
    *pace = (struct pace){.last_offset = -1};
}

static int64_t allowance(const struct pace_rate *rate, int64_t ahead_ms, int64_t most)
{
    double by_rate = rate->per_s * (double)ahead_ms / 1000;
    int64_t mails = by_rate < PACING_LEAST ? PACING_LEAST : by_rate > (double)most ? most : (int64_t)by_rate;

    return mails < most ? mails : most;
}

bool pace_allows(const struct pace *pace, const struct pace_rate *rate, int64_t ahead_ms, int64_t most)
{
    int64_t allowed = allowance(rate, ahead_ms, most), waiting;

    if (pace->last_offset < 0 || !pace->polled)
        return pace->sent < PACING_LEAST && pace->in_flight < allowed;
    waiting = pace->last_offset + 1 - pace->committed - pace->done;
    if (waiting < 0)
        waiting = 0; /* another process fills this lane too, and we have not seen its offsets */
    return waiting + pace->in_flight < allowed;
}

void pace_sent(struct pace *pace)
{
    pace->in_flight++;
    if (pace->sent < PACING_LEAST)
        pace->sent++;
}

void pace_reported(struct pace *pace, bool written, int64_t offset)
{
    if (pace->in_flight > 0)
        pace->in_flight--;
    if (!written && pace->sent > 0)
        pace->sent--; /* it does not use up the first portion */
    else if (written && offset < 0 && pace->last_offset >= 0)
        pace->last_offset++; /* behind the last one, wherever that is */
    else if (written && offset > pace->last_offset)
        pace->last_offset = offset;
}

int64_t pace_committed(struct pace *pace, int64_t offset, int64_t done, uint64_t now_ms)
{
    int64_t before = pace->committed + pace->done, taken;
    bool first = !pace->polled;

    pace->committed = offset < 0 ? 0 : offset;
    pace->done = offset < 0 || done < 0 ? 0 : done;
    pace->polled = true;
    taken = pace->committed + pace->done - before;
    if (first || taken <= 0) /* less: another dispatcher, which does not know what the one before had done */
        return 0;
    pace->moved_ms = now_ms;
    return taken;
}

/* Over two polls: dispatch commits about as often as it is asked, so one alone may see two commits or none. */
void pace_learn(struct pace_rate *rate, const struct pace *lanes, size_t count, int64_t taken, uint64_t now_ms)
{
    int at = rate->at_ms[1] ? 1 : 0;
    size_t moving = 0;
    double per_s = 0;

    taken += rate->taken[0];
    if (rate->at_ms[at] && now_ms > rate->at_ms[at])
        per_s = (double)(taken - rate->taken[at]) * 1000 / (double)(now_ms - rate->at_ms[at]);
    for (size_t i = 0; i < count; i++)
        moving += lanes[i].moved_ms > 0 && now_ms - lanes[i].moved_ms < MOVING_MS;
    rate->all_per_s = per_s > rate->all_per_s * FADES_TO ? per_s : rate->all_per_s * FADES_TO;
    rate->per_s = rate->all_per_s / (double)(moving ? moving : 1);
    rate->at_ms[1] = rate->at_ms[0];
    rate->taken[1] = rate->taken[0];
    rate->at_ms[0] = now_ms;
    rate->taken[0] = taken;
}
