/* tandem/lanes.h - which k of N lanes a campaign uses. Pure. */
#ifndef TD_LANES_H
#define TD_LANES_H

#include <stdint.h>

#define TD_LANES_MAX 256

/**
 * Rendezvous hash: the k lanes with the highest hash of (campaign_id, lane). A campaign keeps its lanes when k
 * grows. Campaigns that share a lane take turns in it (tandem/turns.h), so k only has to be large enough that every
 * dispatcher has its part of a campaign, and small enough that a few mails do not occupy all.
 * @param expected_recipients  k = one for each 25, but at least 2 and never more than n; 0 = not known = n
 * @param n    lanes there are, 1..TD_LANES_MAX (more count as TD_LANES_MAX)
 * @param out  TD_LANES_MAX entries, ascending
 * @return k
 */
uint32_t td_lanes_pick(const char *campaign_id, uint32_t expected_recipients, uint32_t n, uint32_t *out);

#endif /* TD_LANES_H */
