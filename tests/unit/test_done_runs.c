/* What dispatch writes beside an offset: it reads back, survives an owner that has not read so far, and nothing else passes for it. */
#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "done_runs.h"

enum { SPAN = 1 << 20 };

static struct td_watermark *begun(int64_t first, size_t count)
{
    struct td_watermark *wm = td_watermark_new(SPAN);

    assert_non_null(wm);
    for (size_t i = 0; i < count; i++)
        assert_true(td_watermark_begin(wm, first + (int64_t)i));
    return wm;
}

static void done_from(struct td_watermark *wm, int64_t first, int64_t end)
{
    for (; first < end; first++)
        td_watermark_done(wm, first);
}

static void a_lane_without_anything_done_has_a_count_only(void **unused)
{
    struct td_watermark *wm = begun(1000, 20);
    char text[DONE_RUNS_TEXT];
    struct done_runs runs;

    (void)unused;
    done_runs_write(text, 3, wm, NULL);
    assert_string_equal(text, "3");
    assert_true(done_runs_read(&runs, text));
    assert_int_equal(runs.count, 0);
    td_watermark_free(wm);
}

/* One mail waits for Redis, and 900,000 behind it are done but for two. */
static void long_runs_are_short_text(void **unused)
{
    struct td_watermark *wm = begun(7, 900010);
    char text[DONE_RUNS_TEXT];
    struct done_runs runs;

    (void)unused;
    done_from(wm, 8, 500000);
    done_from(wm, 500001, 500003);
    done_from(wm, 500004, 900007);
    done_runs_write(text, 900000, wm, NULL);
    assert_string_equal(text, "900000 7:1,499992,1,2,1,400003");
    assert_true(done_runs_read(&runs, text));
    for (int64_t i = 0; i < 900100; i++)
        assert_int_equal(done_runs_has(&runs, i), i > 7 && i < 900007 && i != 500000 && i != 500003);
    td_watermark_free(wm);
}

static void what_does_not_fit_is_not_said_to_be_done(void **unused)
{
    struct td_watermark *wm = begun(100000000000000000, 8000);
    char text[DONE_RUNS_TEXT];
    struct done_runs runs;

    (void)unused;
    for (int64_t i = 1; i < 8000; i += 2)
        td_watermark_done(wm, 100000000000000000 + i);
    done_runs_write(text, 4000, wm, NULL);
    assert_in_range(strlen(text), DONE_RUNS_TEXT - 80, DONE_RUNS_TEXT - 1);
    assert_true(done_runs_read(&runs, text));
    assert_in_range(runs.count, 900, DONE_RUNS_MAX);
    for (int64_t i = 0; i < 8000; i++)
        assert_int_equal(done_runs_has(&runs, 100000000000000000 + i), i % 2 == 1 && i < 2 * (int64_t)runs.count);
    td_watermark_free(wm);
}

/* The next owner commits before it has read again what was done before it, and dies. */
static void what_was_before_is_passed_on(void **unused)
{
    struct td_watermark *wm = begun(50, 10); /* read up to 59 */
    char text[DONE_RUNS_TEXT];
    struct done_runs before, runs;

    (void)unused;
    assert_true(done_runs_read(&before, "40 40:5,5,2,3,5,20,100,7")); /* 45-49, 52-54, 60-79, 180-186 */
    done_from(wm, 52, 55);
    done_runs_write(text, 3, wm, &before);
    assert_string_equal(text, "3 50:2,3,5,20,100,7");
    td_watermark_done(wm, 59); /* the run goes on behind what is read */
    done_runs_write(text, 4, wm, &before);
    assert_string_equal(text, "4 50:2,3,4,1,0,20,100,7");
    assert_true(done_runs_read(&runs, text));
    for (int64_t i = 40; i < 200; i++)
        assert_int_equal(done_runs_has(&runs, i), (i >= 52 && i <= 54) || (i >= 59 && i <= 79) || (i >= 180 && i <= 186));
    td_watermark_free(wm);
}

static void anything_else_says_that_nothing_is_done(void **unused)
{
    static const char *const row[] = {"",        " ",       "x",         "-1",         "3 ",         "3 7",       "3 7:",    "3 7:1",
                                      "3 7:1,",  "3 7:1,0", "3 7:1,2,",  "3 7:1,2,3",  "3 7:1;2",    "3  7:1,2",  "3 7:,2",  "3 7:1,2 ",
                                      "3 7:-1,2", "3\n",    "3 :1,2",    "3 7,1,2",    "8 EA==",     "1234567890123456789",
                                      "3 7:1,9999999999999999999"};
    char text[8 * DONE_RUNS_MAX + 20];
    struct done_runs runs;
    size_t len = 0;

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        assert_false(done_runs_read(&runs, row[i]));
        assert_int_equal(runs.count, 0);
    }
    len += (size_t)snprintf(text, sizeof(text), "1 1:1,1"); /* more runs than any note of ours holds */
    for (size_t i = 0; i < DONE_RUNS_MAX; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, ",1,1");
    assert_false(done_runs_read(&runs, text));
    len = (size_t)snprintf(text, sizeof(text), "1 1:1,1"); /* sums that would pass what an offset can be */
    for (size_t i = 0; i < 40; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, ",%lld,%lld", 999999999999999999ll, 999999999999999999ll);
    assert_false(done_runs_read(&runs, text));
    assert_int_equal(runs.count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lane_without_anything_done_has_a_count_only),
        cmocka_unit_test(long_runs_are_short_text),
        cmocka_unit_test(what_does_not_fit_is_not_said_to_be_done),
        cmocka_unit_test(what_was_before_is_passed_on),
        cmocka_unit_test(anything_else_says_that_nothing_is_done),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
