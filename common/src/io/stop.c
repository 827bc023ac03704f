#include "tandem/stop.h"

#include "tandem/clock.h"

static uint64_t begun_ms, whole_ms; /* whole_ms 0: not begun */

void td_stop_begin(uint64_t drain_ms)
{
    if (whole_ms > 0 || drain_ms == 0)
        return;
    begun_ms = td_mono_ms();
    whole_ms = drain_ms;
}

uint64_t td_stop_by(enum td_stop_stage stage)
{
    return whole_ms == 0 ? UINT64_MAX : begun_ms + whole_ms * (uint64_t)stage / TD_STOP_END;
}

uint64_t td_stop_sooner(uint64_t by_ms, enum td_stop_stage stage)
{
    uint64_t stage_ms = td_stop_by(stage);

    return by_ms < stage_ms ? by_ms : stage_ms;
}
