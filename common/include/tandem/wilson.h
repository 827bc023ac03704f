/* tandem/wilson.h - how sure a rate is. Pure. */
#ifndef TD_WILSON_H
#define TD_WILSON_H

#include <stdint.h>

/** Lower bound of the two-sided 95 % Wilson score interval of hits/n, in 0..1; 0 when n = 0. hits <= n. */
double td_wilson_lower(uint64_t hits, uint64_t n);

#endif /* TD_WILSON_H */
