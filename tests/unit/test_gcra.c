#include "unit.h"

#include <math.h>

#include "tandem/gcra.h"
#include "tandem/rng.h"

static void slots_are_evenly_spaced(void **unused)
{
    struct td_gcra gcra = {0};
    uint64_t first = 0;

    (void)unused;
    assert_int_equal(td_gcra_take(&gcra, 10, 1, 0, 5000000, &first), 1);
    assert_int_equal(first, 5000000);
    assert_int_equal(td_gcra_take(&gcra, 10, 3, 1000000, 5000000, &first), 3);
    assert_int_equal(first, 5100000);
    assert_int_equal(td_gcra_take(&gcra, 10, 1, 1000000, 5000000, &first), 1);
    assert_int_equal(first, 5400000);
}

static void nothing_is_granted_past_the_horizon(void **unused)
{
    struct td_gcra gcra = {0};
    uint64_t first = 0;

    (void)unused;
    assert_int_equal(td_gcra_take(&gcra, 10, 100, 500000, 1000000, &first), 6); /* 0, 100, ..., 500 ms */
    assert_int_equal(td_gcra_take(&gcra, 10, 100, 500000, 1000000, &first), 0);
    assert_int_equal(td_gcra_take(&gcra, 10, 100, 500000, 1099999, &first), 0);
    assert_int_equal(td_gcra_take(&gcra, 10, 100, 500000, 1100000, &first), 1);
    assert_int_equal(first, 1600000);
}

static void no_burst_follows_a_pause(void **unused)
{
    struct td_gcra gcra = {0};
    uint64_t first = 0;

    (void)unused;
    td_gcra_take(&gcra, 10, 1, 0, 0, &first);
    assert_int_equal(td_gcra_take(&gcra, 10, 100, 0, 3600000000, &first), 1);
    assert_int_equal(first, 3600000000);
    assert_int_equal(td_gcra_take(&gcra, 10, 100, 0, 3600000001, &first), 0);
}

static void useless_rates_grant_nothing(void **unused)
{
    static const double rate[] = {0, -1, NAN, -INFINITY};
    struct td_gcra gcra = {7};
    uint64_t first = 3;

    (void)unused;
    for (size_t i = 0; i < COUNT(rate); i++)
        assert_int_equal(td_gcra_take(&gcra, rate[i], 5, 1000, 10, &first), 0);
    assert_int_equal(td_gcra_take(&gcra, 5, 0, 1000, 10, &first), 0);
    assert_int_equal(gcra.tat_us, 7);
    assert_int_equal(first, 3);
}

static void extreme_rates_neither_wrap_nor_hang(void **unused)
{
    struct td_gcra slow = {0}, fast = {0};
    uint64_t first = 0;

    (void)unused;
    assert_int_equal(td_gcra_take(&slow, 1e-300, 9, 1000000, 1000, &first), 1);
    assert_int_equal(td_gcra_take(&slow, 1e-300, 9, 1000000, 2000, &first), 0);
    assert_int_equal(td_gcra_take(&fast, 1e12, UINT32_MAX, 1000000, 1000, &first), UINT32_MAX);
    assert_int_equal(td_gcra_take(&fast, INFINITY, UINT32_MAX, 1000000, 1000, &first), UINT32_MAX);
}

/* The point of it: whoever asks however often, never more than the quota in any second. */
static void rate_is_reached_but_never_passed(void **unused)
{
    static const double rates[] = {1, 3, 14, 100, 333, 2000};
    struct td_rng rng;

    (void)unused;
    td_rng_seed(&rng, 9);
    for (size_t r = 0; r < COUNT(rates); r++) {
        struct td_gcra gcra = {0};
        uint64_t now = 1000000, last_slot = 0, granted = 0;
        double interval = 1e6 / rates[r];

        while (now < 61000000) {
            uint64_t first = 0;
            uint32_t got =
                td_gcra_take(&gcra, rates[r], 1 + (uint32_t)td_rng_below(&rng, 20), 200000, now, &first);

            if (got > 0) {
                assert_true(first >= now);
                assert_true(last_slot == 0 || (double)(first - last_slot) >= interval - 1);
                last_slot = first + (uint64_t)((got - 1) * interval);
                granted += got;
            }
            now += 1 + td_rng_below(&rng, 5000);
        }
        assert_true((double)granted <= rates[r] * 60.2 + 1);
        assert_true((double)granted >= rates[r] * 60 * 0.995 - 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_evenly_spaced),
        cmocka_unit_test(nothing_is_granted_past_the_horizon),
        cmocka_unit_test(no_burst_follows_a_pause),
        cmocka_unit_test(useless_rates_grant_nothing),
        cmocka_unit_test(extreme_rates_neither_wrap_nor_hang),
        cmocka_unit_test(rate_is_reached_but_never_passed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
