#include "unit.h"

#include "tandem/rng.h"

/* From the reference programs: splitmix64 of seed 0, then xoshiro256** of {1, 2, 3, 4}. */
static void numbers_are_those_of_the_reference(void **unused)
{
    static const uint64_t state[4] = {0xe220a8397b1dcdafU, 0x6e789e6aa1b965f4U, 0x06c45d188009454fU,
                                      0xf88bb8a8724c81ecU};
    static const uint64_t next[4] = {11520, 0, 1509978240, 1215971899390074240};
    struct td_rng rng;

    (void)unused;
    td_rng_seed(&rng, 0);
    for (size_t i = 0; i < 4; i++)
        assert_true(rng.s[i] == state[i]);
    rng = (struct td_rng){{1, 2, 3, 4}};
    for (size_t i = 0; i < 4; i++)
        assert_true(td_rng_next(&rng) == next[i]);
}

static void below_stays_below_and_reaches_every_number_about_equally(void **unused)
{
    struct td_rng rng;
    unsigned seen[6] = {0};

    (void)unused;
    td_rng_seed(&rng, 42);
    for (unsigned i = 0; i < 60000; i++)
        seen[td_rng_below(&rng, 6)]++; /* the sanitizer sees an index too far */
    for (size_t i = 0; i < 6; i++)
        assert_in_range(seen[i], 9600, 10400); /* four standard deviations */
    assert_int_equal(td_rng_below(&rng, 1), 0);
    for (unsigned i = 0; i < 1000; i++)
        assert_true(td_rng_below(&rng, UINT64_MAX) < UINT64_MAX);
}

static void one_seed_gives_one_sequence(void **unused)
{
    struct td_rng a, b, c;

    (void)unused;
    td_rng_seed(&a, 7);
    td_rng_seed(&b, 7);
    td_rng_seed(&c, 8);
    for (unsigned i = 0; i < 100; i++) {
        uint64_t x = td_rng_next(&a);

        assert_true(x == td_rng_next(&b));
        assert_true(x != td_rng_next(&c));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_those_of_the_reference),
        cmocka_unit_test(below_stays_below_and_reaches_every_number_about_equally),
        cmocka_unit_test(one_seed_gives_one_sequence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
