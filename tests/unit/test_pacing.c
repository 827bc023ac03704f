#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pacing.h"

enum { AHEAD_MS = 1500, MOST = 500, POLL_MS = 200 };

static struct pace_rate rate; /* all zero where a test does not say: nothing is known */

static unsigned fill(struct pace *pace)
{
    unsigned count = 0;

    for (; pace_allows(pace, &rate, AHEAD_MS, MOST); count++)
        pace_sent(pace);
    return count;
}

static void an_unknown_lane_gets_a_small_first_portion(void **unused)
{
    struct pace pace;

    (void)unused;
    rate = (struct pace_rate){0};
    pace_init(&pace);
    assert_int_equal(fill(&pace), PACING_LEAST);
    pace_committed(&pace, -1, 0, 1000); /* half of what must be known */
    assert_int_equal(fill(&pace), 0);
}

/* Dispatch takes per_s mails from each lane, for so many polls; the lanes are empty then. */
static void drain(struct pace *lanes, size_t count, double per_s, unsigned polls, uint64_t *now_ms)
{
    for (unsigned i = 0; i < polls; i++) {
        int64_t taken = 0;

        *now_ms += POLL_MS;
        for (size_t k = 0; k < count; k++) {
            int64_t next = lanes[k].committed + (int64_t)(per_s * POLL_MS / 1000);

            taken += pace_committed(&lanes[k], next, 0, *now_ms);
            lanes[k].last_offset = next - 1;
        }
        pace_learn(&rate, lanes, count, taken, *now_ms);
    }
}

static void begin(struct pace *lanes, size_t count)
{
    rate = (struct pace_rate){0};
    for (size_t i = 0; i < count; i++) {
        pace_init(&lanes[i]);
        pace_committed(&lanes[i], 0, 0, 1000);
        pace_reported(&lanes[i], true, 0);
    }
}

static void lanes_hold_what_is_taken_in_their_time(void **unused)
{
    static const unsigned row[][2] = {/* mails a second and lane, mails ahead */
                                      {0, PACING_LEAST}, {10, PACING_LEAST}, {100, 150}, {200, 300}, {5000, MOST}};

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct pace lanes[8];
        uint64_t now_ms = 1000;

        begin(lanes, 8);
        drain(lanes, 8, row[i][0], 5, &now_ms);
        for (size_t k = 0; k < 8; k++)
            assert_int_equal(fill(&lanes[k]), row[i][1]);
    }
}

/* Dispatch takes from one lane after another: each holds its part of the whole rate, not its own of that moment. */
static void a_burst_from_one_lane_is_no_rate(void **unused)
{
    struct pace lanes[4];
    uint64_t now_ms = 1000;

    (void)unused;
    begin(lanes, 4);
    for (unsigned i = 0; i < 20; i++) {
        int64_t taken = 0;

        now_ms += POLL_MS;
        for (size_t k = 0; k < 4; k++)
            taken += pace_committed(&lanes[k], lanes[k].committed + (k == i % 4 ? 80 : 0), 0, now_ms);
        pace_learn(&rate, lanes, 4, taken, now_ms);
    }
    assert_in_range((int)rate.all_per_s, 390, 410);
    lanes[0].last_offset = lanes[0].committed - 1;
    assert_in_range(fill(&lanes[0]), 145, 155);
}

static void a_lane_that_stands_has_no_part(void **unused)
{
    struct pace lanes[2];
    uint64_t now_ms = 1000;

    (void)unused;
    begin(lanes, 2);
    drain(lanes, 2, 100, 5, &now_ms);
    assert_in_range((int)rate.per_s, 95, 105);
    for (unsigned i = 0; i < 15; i++) {
        now_ms += POLL_MS;
        pace_learn(&rate, lanes, 2, pace_committed(&lanes[0], lanes[0].committed + 40, 0, now_ms), now_ms);
    }
    assert_in_range((int)rate.per_s, 195, 205);
}

/* From the least to thousands a second, when dispatch takes all there is every half second: a matter of seconds. */
static void it_grows_fast(void **unused)
{
    struct pace pace;
    int64_t offset = 1;
    uint64_t now_ms = 1000;
    unsigned rounds = 0, count;

    (void)unused;
    begin(&pace, 1);
    pace_committed(&pace, 1, 0, now_ms);
    while ((count = fill(&pace)) < MOST && rounds++ < 100) {
        while (count-- > 0)
            pace_reported(&pace, true, offset++);
        for (unsigned i = 0; i < 2; i++) {
            int64_t taken = pace_committed(&pace, offset, 0, now_ms += POLL_MS);

            pace_learn(&rate, &pace, 1, taken, now_ms);
        }
    }
    assert_in_range(rounds, 1, 5);
}

static void one_slow_moment_does_not_empty_it(void **unused)
{
    struct pace pace;
    uint64_t now_ms = 1000;

    (void)unused;
    begin(&pace, 1);
    drain(&pace, 1, 200, 5, &now_ms);
    drain(&pace, 1, 0, 2, &now_ms);
    assert_in_range(fill(&pace), 150, 300);
    pace.in_flight = 0;
    drain(&pace, 1, 0, 20, &now_ms);
    assert_int_equal(fill(&pace), PACING_LEAST);
}

/* A new dispatcher does not know what the one before had done above the offset. */
static void less_done_than_before_is_no_rate(void **unused)
{
    struct pace pace;

    (void)unused;
    begin(&pace, 1);
    assert_int_equal(pace_committed(&pace, 100, 50, 2000), 150);
    assert_int_equal(pace_committed(&pace, 100, 0, 2200), 0);
    assert_int_equal(pace_committed(&pace, 120, 0, 2400), 20);
}

/* Campaigns overtake each other: the oldest mail stands, those behind it are done. */
static void mails_done_above_the_offset_make_room(void **unused)
{
    struct pace pace;

    (void)unused;
    pace_init(&pace);
    rate = (struct pace_rate){0};
    pace_reported(&pace, true, 99); /* 0 to 99 are written */
    pace_committed(&pace, 0, 0, 1000);
    assert_int_equal(fill(&pace), 0);
    pace_committed(&pace, 0, 95, 1000);
    assert_int_equal(fill(&pace), PACING_LEAST - 5);
    pace.in_flight = 0;
    pace_committed(&pace, -1, 95, 1000); /* no offset, so the note is none of this lane */
    assert_int_equal(fill(&pace), 0);
}

static void a_lane_that_dispatch_never_read_is_counted_from_its_start(void **unused)
{
    struct pace pace;

    (void)unused;
    rate = (struct pace_rate){0};
    pace_init(&pace);
    pace_committed(&pace, -1, 0, 1000);
    pace_sent(&pace);
    pace_reported(&pace, true, 499);
    assert_int_equal(fill(&pace), 0);
}

static void a_failed_mail_gives_its_place_back(void **unused)
{
    struct pace pace;

    (void)unused;
    rate = (struct pace_rate){0};
    pace_init(&pace);
    fill(&pace);
    pace_reported(&pace, false, -1);
    assert_int_equal(pace.in_flight, PACING_LEAST - 1);
    assert_int_equal(fill(&pace), 1);
}

static void a_report_without_offset_counts_behind_the_last(void **unused)
{
    struct pace pace;

    (void)unused;
    rate = (struct pace_rate){0};
    pace_init(&pace);
    pace_committed(&pace, 0, 0, 1000);
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
    rate = (struct pace_rate){0};
    pace_init(&pace);
    pace_sent(&pace);
    pace_reported(&pace, true, 10);
    pace_committed(&pace, 5000, 0, 1000); /* another process wrote the rest */
    assert_int_equal(fill(&pace), PACING_LEAST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_lane_gets_a_small_first_portion),
        cmocka_unit_test(lanes_hold_what_is_taken_in_their_time),
        cmocka_unit_test(a_burst_from_one_lane_is_no_rate),
        cmocka_unit_test(a_lane_that_stands_has_no_part),
        cmocka_unit_test(less_done_than_before_is_no_rate),
        cmocka_unit_test(it_grows_fast),
        cmocka_unit_test(one_slow_moment_does_not_empty_it),
        cmocka_unit_test(mails_done_above_the_offset_make_room),
        cmocka_unit_test(a_lane_that_dispatch_never_read_is_counted_from_its_start),
        cmocka_unit_test(a_failed_mail_gives_its_place_back),
        cmocka_unit_test(a_report_without_offset_counts_behind_the_last),
        cmocka_unit_test(offsets_of_others_do_not_make_room_negative),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
