/* A relay's shared state as it is told to a person. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "relay_state.h"

#define NOW_MS 1800000000000 /* 2027-01-15T08:00:00Z */

static void fields_are_taken_by_name(void **unused)
{
    struct relay_state state = {.known = false};

    (void)unused;
    relay_state_field(&state, "unheard_of", "1");
    assert_false(state.known);
    relay_state_field(&state, "st", "limited");
    relay_state_field(&state, "ep", "7");
    relay_state_field(&state, "reason", "overloaded.rate");
    relay_state_field(&state, "evidence", "1 busy reply");
    relay_state_field(&state, "factor", "0.700000");
    relay_state_field(&state, "factor_at", "1799999999000");
    relay_state_field(&state, "opens", "3");
    assert_true(state.known);
    assert_int_equal(state.epoch, 7);
    assert_string_equal(state.reason, "overloaded.rate");
    assert_int_equal(state.opens, 3);
    assert_true(relay_state_factor(&state, NOW_MS) > 0.719 && relay_state_factor(&state, NOW_MS) < 0.721);
    assert_true(relay_state_factor(&state, NOW_MS + 60000) >= 1);
    relay_state_field(&state, "reason", "a reason that is longer than any that a dispatcher would ever write");
    assert_int_equal(strlen(state.reason), sizeof(state.reason) - 1);
}

static void window_counts_the_last_30_seconds(void **unused)
{
    struct relay_window window = {0};

    (void)unused;
    relay_window_add(&window, "1800000000 100 2 3 100 1", NOW_MS);
    relay_window_add(&window, "1799999971 10 0 0 10 0", NOW_MS);
    relay_window_add(&window, "1799999970 1000 0 0 0 0", NOW_MS); /* 30 s old */
    relay_window_add(&window, "1800000001 1000 0 0 0 0", NOW_MS); /* to come */
    relay_window_add(&window, "1800000000 1000 0", NOW_MS);
    relay_window_add(&window, "", NOW_MS);
    assert_int_equal(window.accepted, 110);
    assert_int_equal(window.failed, 2);
    assert_int_equal(window.busy, 3);
    assert_int_equal(window.timed, 110);
    assert_int_equal(window.slow, 1);
}

static void what_bulk_may_do_is_said(void **unused)
{
    static const char *const row[][2] = {{"full", "goes through in full; warning above 2 %, a quarter above 4 %, none above 5.5 %"},
                                         {"warned", "bounces are surely above 2 %"},
                                         {"quarter", "gets a quarter of this relay"},
                                         {"stopped", "does not go through here, for bounces surely above 5.5 %"}};
    const struct td_relay_settings settings = {.bounce_warn = 200, .bounce_throttle = 400, .bounce_stop = 550};
    struct relay_state state = {.known = false};
    char level[2] = "0", words[240];

    (void)unused;
    relay_state_field(&state, "bounce_hard", "60");
    relay_state_field(&state, "bounce_taken", "1000");
    relay_state_field(&state, "bounces", "60 of 1000");
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        level[0] = (char)('0' + i);
        relay_state_field(&state, "level", level);
        relay_bulk_words(&state, &settings, words, sizeof(words));
        assert_string_equal(relay_bulk_word(&state), row[i][0]);
        assert_non_null(strstr(words, row[i][1]));
    }
    relay_state_field(&state, "level", "77"); /* of a newer version: the worst */
    assert_string_equal(relay_bulk_word(&state), "stopped");
    assert_int_equal(state.bounce_hard, 60);
    assert_int_equal(state.bounce_taken, 1000);
    assert_string_equal(state.bounces, "60 of 1000");
}

static void every_reason_has_words(void **unused)
{
    static const char *const rows[][2] = {
        {"down.refused", "it refuses connections, or what is sent first"},
        {"down.auth", "it refuses our credentials"},
        {"down.auth_service", "its service for credentials fails"},
        {"down.something_new", "it is down"},
        {"overloaded.quota", "its quota, of a day or a month, is used up"},
        {"overloaded.own_rule", "it says that it is busy"},
        {"well.ramp", "it went well on trial; its share of new mail grows"},
        {"odd.rule", "a rule of its own"},
        {"", "a rule of its own"},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_string_equal(relay_reason_words(rows[i][0]), rows[i][1]);
}

static void what_comes_next_is_said_by_state(void **unused)
{
    static const struct {
        struct relay_state state;
        const char *words;
    } rows[] = {
        {{.st = "open", .till_ms = NOW_MS + 2500}, "a probe without mail in 3 s, at 2027-01-15T08:00:02Z"},
        {{.st = "open", .till_ms = NOW_MS - 1}, "a probe without mail now, as soon as a dispatcher looks"},
        {{.st = "half-open"}, "closed when its trial goes well, open again when it does not"},
        {{.st = "paused", .by = "operator"}, "none until `tandemctl relay enable`"},
        {{.st = "paused", .by = "operator", .till_ms = NOW_MS + 60000}, "it is tried again in 60 s, at 2027-01-15T08:01:00Z"},
        {{.st = "paused", .by = "account", .next_mail_ms = NOW_MS + 600000}, "one mail tries it in 600 s, at 2027-01-15T08:10:00Z"},
        {{.st = "exhausted", .till_ms = NOW_MS + 3600000, .next_mail_ms = NOW_MS + 1000}, "one mail tries it in 1 s, at 2027-01-15T08:00:01Z"},
        {{.st = "limited", .factor = 0.5, .factor_at_ms = NOW_MS}, "its full rate in 25 s, unless it is busy again"},
        {{.st = "closed", .closed_at_ms = NOW_MS - 4000}, "its full share of mail in 6 s, at 2027-01-15T08:00:06Z"},
        {{.st = "closed", .closed_at_ms = NOW_MS - 40000}, "none"},
        {{.st = "closed"}, "none"},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char words[160];

        relay_next_words(&rows[i].state, NOW_MS, words, sizeof(words));
        assert_string_equal(words, rows[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_taken_by_name),
        cmocka_unit_test(window_counts_the_last_30_seconds),
        cmocka_unit_test(what_bulk_may_do_is_said),
        cmocka_unit_test(every_reason_has_words),
        cmocka_unit_test(what_comes_next_is_said_by_state),
    };

    return cmocka_run_group_tests_name("relay_state", tests, NULL, NULL);
}
