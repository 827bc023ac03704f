#include "pacing.h"

void pace_init(struct pace *pace)
{
    *pace = (struct pace){.last_offset = -1};
}

bool pace_allows(const struct pace *pace, int64_t ahead)
{
    int64_t waiting;

    if (pace->last_offset < 0 || !pace->polled)
        return pace->sent < PACING_FIRST_PORTION && pace->in_flight < ahead;
    waiting = pace->last_offset + 1 - pace->committed;
    if (waiting < 0)
        waiting = 0; /* another process fills this lane too, and we have not seen its offsets */
    return waiting + pace->in_flight < ahead;
}

void pace_sent(struct pace *pace)
{
    pace->in_flight++;
    if (pace->sent < PACING_FIRST_PORTION)
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

void pace_committed(struct pace *pace, int64_t offset)
{
    pace->committed = offset < 0 ? 0 : offset;
    pace->polled = true;
}
