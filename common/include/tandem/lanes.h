/* tandem/lanes.h - which k of N lanes a campaign uses. Pure. */
#ifndef TD_LANES_H
#define TD_LANES_H

#include <stdint.h>

#define TD_LANES_MAX 256

/**
 * Rendezvous hash: the k lanes with the highest hash of (campaign_id, lane). Two campaigns rarely share all their
 * lanes, and a campaign keeps its lanes when k grows.
 * @param expected_recipients  k = 2 up to 1,000; 4 up to 20,000; 8 up to 200,000; above that half of n, but
 *             at least 8; never more than n; 0 = 4
 * @param n    lanes there are, 1..TD_LANES_MAX (more count as TD_LANES_MAX)
 * @param out  TD_LANES_MAX entries, ascending
 * @return k
 */
uint32_t td_lanes_pick(const char *campaign_id, uint32_t expected_recipients, uint32_t n, uint32_t *out);

#endif /* TD_LANES_H */
