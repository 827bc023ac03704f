#include "tandem/lanes.h"

#include <stdbool.h>
#include <string.h>

#include "../hash.h"

/* The finalizer of splitmix64: FNV alone barely mixes a last byte that differs. */
static uint64_t lane_score(uint64_t campaign_hash, uint32_t lane)
{
    uint64_t z = campaign_hash ^ (lane + 1) * UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint32_t lanes_wanted(uint32_t expected_recipients, uint32_t n)
{
    uint32_t k = expected_recipients == 0 ? n : expected_recipients / 25;

    if (k < 2)
        k = 2;
    return k < n ? k : n;
}

uint32_t td_lanes_pick(const char *campaign_id, uint32_t expected_recipients, uint32_t n, uint32_t *out)
{
    uint64_t hash = td_fnv1a(campaign_id, strlen(campaign_id)), score[TD_LANES_MAX];
    bool picked[TD_LANES_MAX] = {false};
    uint32_t k, count = 0;

    if (n > TD_LANES_MAX)
        n = TD_LANES_MAX;
    k = lanes_wanted(expected_recipients, n);
    for (uint32_t lane = 0; lane < n; lane++)
        score[lane] = lane_score(hash, lane);
    for (uint32_t i = 0; i < k; i++) {
        uint32_t best = n;

        for (uint32_t lane = 0; lane < n; lane++) {
            if (!picked[lane] && (best == n || score[lane] > score[best]))
                best = lane;
        }
        picked[best] = true;
    }
    for (uint32_t lane = 0; lane < n; lane++) {
        if (picked[lane])
            out[count++] = lane;
    }
    return k;
}
