/* How many mails may have begun: bounded in all, and neither class keeps the other out. */
#include "unit.h"

#include "place.h"
#include "tandem/turns.h"

static const size_t connections[] = {0, 1, 10, 16, 17, 40, 100, 511, 512, 1000, 100000};

/* Begin as many as may, of one class. */
static void fill(size_t begun[2], size_t conns, bool express)
{
    while (place_free(begun, conns, express))
        begun[express]++;
}

static void alone_bulk_has_half_as_many_as_connections(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(connections); i++) {
        size_t begun[2] = {0, 0}, half = connections[i] / 2;

        fill(begun, connections[i], false);
        assert_int_equal(begun[0], half < 8 ? 8 : half > 256 ? 256 : half);
        assert_int_equal(begun[0], place_most(connections[i], false));
    }
}

static void express_finds_eight_places_that_bulk_cannot_take(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(connections); i++) {
        size_t begun[2] = {0, 0};

        fill(begun, connections[i], false);
        fill(begun, connections[i], true);
        assert_int_equal(begun[1], 8);
        assert_int_equal(begun[0] + begun[1], place_most(connections[i], true));
    }
}

static void bulk_finds_a_fifth_that_express_cannot_take(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(connections); i++) {
        size_t begun[2] = {0, 0}, all = place_most(connections[i], true);

        fill(begun, connections[i], true);
        assert_in_range(begun[1], all / 2, all);
        fill(begun, connections[i], false);
        assert_in_range(begun[0], all / (TD_TURNS_EXPRESS + 1), all);
        assert_true(begun[0] >= 3);
        assert_int_equal(begun[0] + begun[1], all);
    }
}

/* Mails come back from a relay without being asked whether they may. */
static void over_full_is_full(void **unused)
{
    const size_t begun[2] = {500, 500};

    (void)unused;
    assert_false(place_free(begun, 10, false));
    assert_false(place_free(begun, 10, true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_bulk_has_half_as_many_as_connections),
        cmocka_unit_test(express_finds_eight_places_that_bulk_cannot_take),
        cmocka_unit_test(bulk_finds_a_fifth_that_express_cannot_take),
        cmocka_unit_test(over_full_is_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
