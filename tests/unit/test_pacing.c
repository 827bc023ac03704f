#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pacing.h"

enum { AHEAD = 500 };

static unsigned fill(struct pace *pace)
{
    unsigned count = 0;

    for (; pace_allows(pace, AHEAD); count++)
        pace_sent(pace);
    return count;
}

static void an_unknown_lane_gets_a_small_first_portion(void **unused)
{
    struct pace pace;

    (void)unused;
    pace_init(&pace);
    assert_int_equal(fill(&pace), PACING_FIRST_PORTION);
    pace_committed(&pace, -1); /* half of what must be known */
    assert_int_equal(fill(&pace), 0);
}

static void a_known_lane_holds_at_most_ahead(void **unused)
{
    struct pace pace;
    int64_t offset = 1000000; /* the lane has a past */

    (void)unused;
    pace_init(&pace);
    pace_committed(&pace, 1000000);
    for (unsigned i = fill(&pace); i > 0; i--)
        pace_reported(&pace, true, offset++);
    assert_int_equal(fill(&pace), AHEAD - PACING_FIRST_PORTION);
    for (unsigned i = pace.in_flight; i > 0; i--)
        pace_reported(&pace, true, offset++);
    assert_int_equal(fill(&pace), 0);
    pace_committed(&pace, 1000200);
    assert_int_equal(fill(&pace), 200);
}

static void a_lane_that_dispatch_never_read_is_counted_from_its_start(void **unused)
{
    struct pace pace;

    (void)unused;
    pace_init(&pace);
    pace_committed(&pace, -1);
    pace_sent(&pace);
    pace_reported(&pace, true, 499);
    assert_int_equal(fill(&pace), 0);
}

static void a_failed_mail_gives_its_place_back(void **unused)
{
    struct pace pace;

    (void)unused;
    pace_init(&pace);
    fill(&pace);
    pace_reported(&pace, false, -1);
    assert_int_equal(pace.in_flight, PACING_FIRST_PORTION - 1);
    assert_int_equal(fill(&pace), 1);
}

static void a_report_without_offset_counts_behind_the_last(void **unused)
{
    struct pace pace;

    (void)unused;
    pace_init(&pace);
    pace_committed(&pace, 0);
    pace_sent(&pace);
    pace_sent(&pace);
    pace_reported(&pace, true, 7);
    pace_reported(&pace, true, -1);
    assert_int_equal(pace.last_offset, 8);
    assert_int_equal(pace.in_flight, 0);
}

static void offsets_of_others_do_not_make_room_negative(void **unused)
{
    struct pace pace;

    (void)unused;
    pace_init(&pace);
    pace_sent(&pace);
    pace_reported(&pace, true, 10);
    pace_committed(&pace, 5000); /* another process wrote the rest */
    assert_int_equal(fill(&pace), AHEAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_lane_gets_a_small_first_portion),
        cmocka_unit_test(a_known_lane_holds_at_most_ahead),
        cmocka_unit_test(a_lane_that_dispatch_never_read_is_counted_from_its_start),
        cmocka_unit_test(a_failed_mail_gives_its_place_back),
        cmocka_unit_test(a_report_without_offset_counts_behind_the_last),
        cmocka_unit_test(offsets_of_others_do_not_make_room_negative),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
