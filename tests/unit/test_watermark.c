#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tandem/rng.h"
#include "tandem/watermark.h"

static void moves_only_over_what_is_done(void **unused)
{
    struct td_watermark *wm = td_watermark_new(64);

    (void)unused;
    assert_int_equal(td_watermark_next(wm), -1);
    for (int64_t o = 100; o < 104; o++)
        assert_true(td_watermark_begin(wm, o));
    td_watermark_done(wm, 101);
    td_watermark_done(wm, 103);
    assert_int_equal(td_watermark_next(wm), 100);
    td_watermark_done(wm, 100);
    assert_int_equal(td_watermark_next(wm), 102);
    td_watermark_done(wm, 102);
    assert_int_equal(td_watermark_next(wm), 104);
    assert_int_equal(td_watermark_open(wm), 0);
    td_watermark_free(wm);
}

static void repeats_are_refused_and_gaps_are_done(void **unused)
{
    struct td_watermark *wm = td_watermark_new(8);

    (void)unused;
    assert_true(td_watermark_begin(wm, 5));
    assert_false(td_watermark_begin(wm, 5));
    assert_false(td_watermark_begin(wm, 4));
    assert_true(td_watermark_begin(wm, 9));
    td_watermark_done(wm, 5);
    assert_int_equal(td_watermark_next(wm), 9);
    td_watermark_done(wm, 9);
    assert_int_equal(td_watermark_next(wm), 10);
    assert_true(td_watermark_begin(wm, 1000000)); /* nothing open: any gap fits */
    assert_int_equal(td_watermark_next(wm), 1000000);
    td_watermark_free(wm);
}

static void the_span_is_a_bound(void **unused)
{
    struct td_watermark *wm = td_watermark_new(8);

    (void)unused;
    for (int64_t o = 0; o < 8; o++)
        assert_true(td_watermark_begin(wm, o));
    assert_false(td_watermark_room(wm));
    assert_false(td_watermark_begin(wm, 8));
    td_watermark_done(wm, 3);
    assert_false(td_watermark_begin(wm, 8));
    td_watermark_done(wm, 0);
    assert_true(td_watermark_begin(wm, 8));
    td_watermark_done(wm, 77); /* never begun */
    assert_int_equal(td_watermark_next(wm), 1);
    td_watermark_free(wm);
}

/* Runs cover what is between the watermark and the newest, and no two of a kind lie side by side. */
static size_t open_by_runs(const struct td_watermark *wm)
{
    int64_t at = td_watermark_next(wm), end = at + (int64_t)td_watermark_spread(wm);
    size_t open = 0, n;

    for (bool done = true; (n = td_watermark_run(wm, at)) > 0; at += (int64_t)n) {
        assert_int_equal(td_watermark_is_done(wm, at), !done);
        done = !done;
        open += done ? 0 : n;
    }
    assert_int_equal(at, end);
    return open;
}

static void random_orders_end_at_the_end(void **unused)
{
    struct td_rng rng;

    (void)unused;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct td_watermark *wm = td_watermark_new(256);
        int64_t open[256], offset = 7, before = -1;
        size_t n = 0;

        td_rng_seed(&rng, seed);
        while (offset < 3000 || n) {
            if (offset < 3000 && td_watermark_room(wm) && td_rng_below(&rng, 2)) {
                assert_true(td_watermark_begin(wm, offset));
                open[n++] = offset++;
            } else if (n) {
                size_t i = (size_t)td_rng_below(&rng, n);

                td_watermark_done(wm, open[i]);
                open[i] = open[--n];
                for (size_t k = 0; k < n; k++)
                    assert_true(td_watermark_next(wm) <= open[k]);
            }
            assert_true(td_watermark_next(wm) >= before);
            before = td_watermark_next(wm);
            assert_int_equal(td_watermark_open(wm), n);
            assert_int_equal(open_by_runs(wm), n);
        }
        assert_int_equal(td_watermark_next(wm), 3000);
        td_watermark_free(wm);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moves_only_over_what_is_done),
        cmocka_unit_test(repeats_are_refused_and_gaps_are_done),
        cmocka_unit_test(the_span_is_a_bound),
        cmocka_unit_test(random_orders_end_at_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
