#include "unit.h"

#include "tandem/backoff.h"
#include "tandem/rng.h"

static void wait_doubles_and_stops_at_cap(void **unused)
{
    static const struct {
        unsigned tries;
        uint64_t base, cap, wait;
    } row[] = {
        {0, 60000, 14400000, 60000},
        {1, 60000, 14400000, 60000},
        {2, 60000, 14400000, 120000},
        {8, 60000, 14400000, 7680000},
        {9, 60000, 14400000, 14400000},
        {4000000000, 60000, 14400000, 14400000},
        {1, 500, 100, 100},
        {7, 0, 100, 0},
        {70, 1, UINT64_MAX, UINT64_MAX},
        {64, 1, UINT64_MAX, UINT64_C(1) << 63},
        {65, 1, UINT64_MAX, UINT64_MAX},
    };

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++)
        assert_true(td_backoff_ms(row[i].tries, row[i].base, row[i].cap) == row[i].wait);
}

static void jitter_reaches_both_ends_and_no_further(void **unused)
{
    struct td_rng rng;

    (void)unused;
    assert_int_equal(td_jitter_ms(1000, 20, 0), 800);
    assert_int_equal(td_jitter_ms(1000, 20, UINT32_MAX), 1200);
    assert_int_equal(td_jitter_ms(1000, 20, UINT32_MAX / 2), 1000);
    assert_int_equal(td_jitter_ms(1000, 0, 12345), 1000);
    assert_int_equal(td_jitter_ms(1000, 900, 0), 0);
    assert_int_equal(td_jitter_ms(0, 50, UINT32_MAX), 0);
    assert_int_equal(td_jitter_ms(3, 50, UINT32_MAX), 4);
    assert_true(td_jitter_ms(UINT64_MAX, 100, UINT32_MAX) > UINT64_MAX / 2);
    td_rng_seed(&rng, 6);
    for (unsigned i = 0; i < 10000; i++)
        assert_in_range(td_jitter_ms(60000, 10, (uint32_t)td_rng_next(&rng)), 54000, 66000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wait_doubles_and_stops_at_cap),
        cmocka_unit_test(jitter_reaches_both_ends_and_no_further),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
