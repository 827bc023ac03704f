/* tandem/rng.h - random numbers: a seeded generator for simulation and jitter, the system's for secrets. */
#ifndef TD_RNG_H
#define TD_RNG_H

#include <stddef.h>
#include <stdint.h>

struct td_rng {
    uint64_t s[4]; /* xoshiro256** */
};

void td_rng_seed(struct td_rng *rng, uint64_t seed);
uint64_t td_rng_next(struct td_rng *rng);
/** Uniform in 0..bound-1; bound > 0. */
uint64_t td_rng_below(struct td_rng *rng, uint64_t bound);

#endif /* TD_RNG_H */
