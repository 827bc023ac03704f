#include "unit.h"

#include <stdbool.h>
#include <math.h>

#include "tandem/wilson.h"

static bool near(double a, double b)
{
    return fabs(a - b) < 5e-5;
}

static void bound_is_that_of_the_tables(void **unused)
{
    /* Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29 (lower limits of the score method without correction). */
    static const struct {
        uint64_t hits, n;
        double lower;
    } row[] = {{81, 263, 0.2553}, {15, 148, 0.0624}, {0, 20, 0}, {1, 29, 0.0061}, {10, 10, 0.7225}};

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++)
        assert_true(near(td_wilson_lower(row[i].hits, row[i].n), row[i].lower));
}

static void nothing_known_is_zero(void **unused)
{
    (void)unused;
    assert_true(td_wilson_lower(0, 0) == 0);
    assert_true(td_wilson_lower(0, UINT64_MAX) >= 0);
}

static void bound_is_below_the_rate_and_rises_with_the_sample(void **unused)
{
    double before = 0;

    (void)unused;
    for (uint64_t n = 20; n <= 20000000000; n *= 10) {
        double lower = td_wilson_lower(n / 20, n);

        assert_true(lower > before && lower < 0.05);
        before = lower;
    }
    assert_true(near(before, 0.05));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bound_is_that_of_the_tables),
        cmocka_unit_test(nothing_known_is_zero),
        cmocka_unit_test(bound_is_below_the_rate_and_rises_with_the_sample),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
