/* xoshiro256** by Blackman and Vigna; the seed is spread by splitmix64, so that seed 0 is as good as any. */
#include "tandem/rng.h"

#include <assert.h>

static uint64_t splitmix64(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15U);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

void td_rng_seed(struct td_rng *rng, uint64_t seed)
{
    for (size_t i = 0; i < 4; i++)
        rng->s[i] = splitmix64(&seed);
}

uint64_t td_rng_next(struct td_rng *rng)
{
    uint64_t *s = rng->s;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

uint64_t td_rng_below(struct td_rng *rng, uint64_t bound)
{
    uint64_t uneven, x;

    assert(bound > 0);
    /* The lowest 2^64 mod bound numbers would make small results likelier: draw again. */
    uneven = (0 - bound) % bound;
    do
        x = td_rng_next(rng);
    while (x < uneven);
    return x % bound;
}
