/* tandem/backoff.h - growing waits. Pure. */
#ifndef TD_BACKOFF_H
#define TD_BACKOFF_H

#include <stdint.h>

/** base_ms * 2^(tries-1), at most cap_ms; tries is 1-based (0 counts as 1). */
uint64_t td_backoff_ms(unsigned tries, uint64_t base_ms, uint64_t cap_ms);
/** wait_ms moved by up to +-percent (0..100) of itself; random is any 32-bit random number. */
uint64_t td_jitter_ms(uint64_t wait_ms, unsigned percent, uint32_t random);

#endif /* TD_BACKOFF_H */
