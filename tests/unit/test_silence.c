/* Is a relay slow, or gone? */
#include "unit.h"

#include "silence.h"

enum { LOOK_MS = 25 };
#define MS UINT64_C(1000)

/* A dispatcher that looks every 25 ms; a probe that it opens is answered as `relay` says. */
struct watch {
    struct silence silence;
    struct silence_view view;
    enum relay { HANGS, TLS_ONLY, SLOW } relay;
    uint64_t ms, probe_ms; /* probe_ms: since it was opened; 0: none */
    unsigned asked, stale;
};

static struct watch watch_of(enum relay relay, size_t waiting)
{
    struct watch watch = {.relay = relay, .view = {.now_us = 1000000 * MS, .waiting = waiting, .most = 20}};

    watch.silence.looked_us = watch.view.now_us;
    for (int i = 0; i < 20; i++) { /* it answers mails in 20 ms, connections in 30 ms */
        silence_final(&watch.silence, 20 * MS);
        took_add(&watch.silence.secure, 30 * MS);
    }
    return watch;
}

static enum silence_step look(struct watch *watch)
{
    enum silence_step step;

    watch->ms += LOOK_MS;
    watch->view.now_us += LOOK_MS * MS;
    watch->probe_ms += watch->probe_ms > 0 ? LOOK_MS : 0;
    watch->view.probe = watch->probe_ms == 0                               ? PROBE_NONE
                        : watch->relay == HANGS || watch->probe_ms < 100 ? PROBE_REACHING
                        : watch->relay == TLS_ONLY                       ? PROBE_SECURED
                                                                         : PROBE_GREETED;
    step = silence_look(&watch->silence, &watch->view);
    if (watch->view.probe == PROBE_GREETED)
        watch->probe_ms = 0; /* NOOP, QUIT */
    watch->stale += step == SILENCE_STALE;
    if (step == SILENCE_ASK) {
        watch->asked++;
        watch->probe_ms = 1;
    }
    return step;
}

/* @return ms until it is gone; 0: it is not within so many */
static uint64_t gone_after(struct watch *watch, uint64_t within_ms)
{
    while (watch->ms < within_ms)
        if (look(watch) == SILENCE_GONE)
            return watch->ms;
    return 0;
}

static void one_that_hangs_is_left_within_a_second_however_few_wait(void **unused)
{
    (void)unused;
    for (size_t waiting = 1; waiting <= 20; waiting++) {
        struct watch watch = watch_of(HANGS, waiting);

        assert_in_range(gone_after(&watch, 5000), 550, 650);
        assert_int_equal(watch.asked, 1);
    }
}

static void one_that_answers_a_probe_is_only_slow_and_asked_less_and_less(void **unused)
{
    struct watch watch = watch_of(SLOW, 1);

    (void)unused;
    assert_int_equal(gone_after(&watch, 60 * 1000), 0);
    assert_in_range(watch.asked, 4, 8); /* after 0.3, 0.6, 1.2 ... 19.2 s */
}

static void where_others_found_it_silent_patience_is_enough(void **unused)
{
    struct watch watch = watch_of(HANGS, 1);

    (void)unused;
    watch.view.others = true;
    assert_in_range(gone_after(&watch, 5000), 300, 450);
    watch = watch_of(SLOW, 1);
    watch.view.others = true;
    watch.view.heard_us = 1;
    for (int i = 0; i < 5; i++)
        assert_int_equal(look(&watch), SILENCE_NONE);
}

static void any_octet_on_any_connection_begins_the_wait_anew(void **unused)
{
    struct watch watch = watch_of(HANGS, 3);

    (void)unused;
    for (int i = 0; i < 100; i++) {
        watch.view.heard_us = watch.view.now_us;
        for (int k = 0; k < 10; k++)
            assert_int_equal(look(&watch), SILENCE_NONE);
    }
    assert_int_equal(watch.asked, 0);
    for (int i = 0; watch.asked == 0; i++) /* and while the probe is under way */
        look(&watch);
    watch.view.heard_us = watch.view.now_us;
    for (int i = 0; i < 12; i++)
        assert_int_not_equal(look(&watch), SILENCE_GONE);
    watch.ms = 0;
    assert_in_range(gone_after(&watch, 5000), 200, 900); /* nothing more came: 600 ms of patience now */
}

static void nobody_who_waits_hears_nothing(void **unused)
{
    struct watch watch = watch_of(HANGS, 0);

    (void)unused;
    assert_int_equal(gone_after(&watch, 60 * 1000), 0);
    assert_int_equal(watch.asked, 0);
}

static void time_asleep_does_not_count(void **unused)
{
    struct watch watch = watch_of(HANGS, 3);

    (void)unused;
    watch.view.now_us += 60 * 1000 * MS; /* SIGSTOP, CONT: what the relay said is unread */
    assert_int_equal(look(&watch), SILENCE_NONE);
    while (watch.asked == 0)
        look(&watch);
    watch.view.now_us += 60 * 1000 * MS;
    assert_int_equal(look(&watch), SILENCE_NONE);
}

static void its_own_times_make_the_patience(void **unused)
{
    struct silence silence = {.looked_us = 0};

    (void)unused;
    assert_int_equal(silence_patience_us(&silence), 1000 * MS); /* nothing is known */
    assert_int_equal(silence_probe_patience_us(&silence), 1000 * MS);
    silence_final(&silence, 10 * MS);
    took_add(&silence.secure, 10 * MS);
    assert_int_equal(silence_patience_us(&silence), 300 * MS);
    assert_int_equal(silence_probe_patience_us(&silence), 250 * MS);
    for (int i = 0; i < 100; i++) {
        silence_final(&silence, i % 2 ? 900 * MS : 700 * MS);
        took_add(&silence.secure, 500 * MS);
    }
    assert_in_range(silence_patience_us(&silence), 2200 * MS, 2600 * MS); /* 2 x (800 + 4 x 100) */
    assert_in_range(silence_probe_patience_us(&silence), 480 * MS, 550 * MS);
}

static void a_quick_reply_makes_it_impatient_again(void **unused)
{
    struct watch watch = watch_of(SLOW, 1);
    uint64_t patience_us = silence_patience_us(&watch.silence);

    (void)unused;
    gone_after(&watch, 3000);
    assert_int_equal(watch.asked, 3);
    assert_int_equal(silence_patience_us(&watch.silence), patience_us << 3);
    silence_final(&watch.silence, 20 * MS);
    assert_int_equal(silence_patience_us(&watch.silence), patience_us);
}

static void tls_alone_is_an_answer_unless_all_wait_for_long(void **unused)
{
    struct watch watch = watch_of(TLS_ONLY, 2); /* of 20 */

    (void)unused;
    assert_int_equal(gone_after(&watch, 60 * 1000), 0);
    watch = watch_of(TLS_ONLY, 3);
    assert_in_range(gone_after(&watch, 60 * 1000), 1300, 1400);
    watch = watch_of(TLS_ONLY, 1);
    watch.view.most = 1; /* all there is */
    assert_in_range(gone_after(&watch, 60 * 1000), 1300, 1400);
}

static void connections_that_hear_nothing_while_new_ones_do_are_stale(void **unused)
{
    struct watch watch = watch_of(SLOW, 2); /* of 20 */

    (void)unused;
    assert_int_equal(gone_after(&watch, 60 * 1000), 0);
    assert_int_equal(watch.stale, 0);
    watch = watch_of(SLOW, 3);
    assert_int_equal(gone_after(&watch, 1300), 0);
    assert_int_equal(watch.stale, 1);
    watch = watch_of(HANGS, 3);
    gone_after(&watch, 5000);
    assert_int_equal(watch.stale, 0);
}

static void a_probe_that_is_over_is_repeated_later(void **unused)
{
    struct watch watch = watch_of(HANGS, 1);

    (void)unused;
    while (watch.asked == 0)
        look(&watch);
    silence_answered(&watch.silence); /* such as: its name does not resolve */
    watch.probe_ms = watch.ms = 0;
    while (watch.asked == 1)
        assert_int_not_equal(look(&watch), SILENCE_GONE);
    assert_in_range(watch.ms, 600, 650);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_hangs_is_left_within_a_second_however_few_wait),
        cmocka_unit_test(one_that_answers_a_probe_is_only_slow_and_asked_less_and_less),
        cmocka_unit_test(where_others_found_it_silent_patience_is_enough),
        cmocka_unit_test(any_octet_on_any_connection_begins_the_wait_anew),
        cmocka_unit_test(nobody_who_waits_hears_nothing),
        cmocka_unit_test(time_asleep_does_not_count),
        cmocka_unit_test(its_own_times_make_the_patience),
        cmocka_unit_test(a_quick_reply_makes_it_impatient_again),
        cmocka_unit_test(tls_alone_is_an_answer_unless_all_wait_for_long),
        cmocka_unit_test(connections_that_hear_nothing_while_new_ones_do_are_stale),
        cmocka_unit_test(a_probe_that_is_over_is_repeated_later),
    };

    return cmocka_run_group_tests_name("silence", tests, NULL, NULL);
}
