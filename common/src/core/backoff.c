#include "tandem/backoff.h"

uint64_t td_backoff_ms(unsigned tries, uint64_t base_ms, uint64_t cap_ms)
{
    uint64_t wait = base_ms;

    for (unsigned i = 1; i < tries && wait > 0 && wait < cap_ms; i++)
        wait = wait > UINT64_MAX / 2 ? UINT64_MAX : wait * 2;
    return wait < cap_ms ? wait : cap_ms;
}

uint64_t td_jitter_ms(uint64_t wait_ms, unsigned percent, uint32_t random)
{
    uint64_t span, width, moved;

    if (percent > 100)
        percent = 100;
    span = wait_ms / 100 * percent + wait_ms % 100 * percent / 100;
    width = span > UINT64_MAX / 2 - 1 ? UINT64_MAX : 2 * span + 1;
    /* width * random / 2^32 without a 128-bit product */
    moved = (width >> 32) * random + ((width & UINT32_MAX) * random >> 32);
    wait_ms -= span;
    return moved > UINT64_MAX - wait_ms ? UINT64_MAX : wait_ms + moved;
}
