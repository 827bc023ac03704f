/* tandem/rng.h - random numbers from a seed, for simulation and jitter, never for secrets. Pure. Not thread-safe.
 */
#ifndef TD_RNG_H
#define TD_RNG_H

#include <stddef.h>
#include <stdint.h>

struct td_rng {
    uint64_t s[4]; /* xoshiro256** */
};

/** Any seed will do; the same seed gives the same numbers. */
void td_rng_seed(struct td_rng *rng, uint64_t seed);
uint64_t td_rng_next(struct td_rng *rng);
/** Uniform in 0..bound-1; bound > 0. */
uint64_t td_rng_below(struct td_rng *rng, uint64_t bound);

#endif /* TD_RNG_H */
