/* What a dispatcher decides alone while Redis is away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "health_local.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- alone ---- */

static struct local_health local_of(enum relay_state state)
{
    struct local_health local = {.probe_ms = 1000, .probe_max_ms = 60000, .ramp_ms = 10000};
    struct relay_view view = {.state = state, .share = state == RELAY_CLOSED, .rate_factor = 1, .reason = "seed"};

    local_seed(&local, &view, 1000000);
    return local;
}

static void alone_it_opens_by_the_same_rules(void **unused)
{
    struct local_health local = local_of(RELAY_CLOSED);

    (void)unused;
    local_count(&local, HEALTH_HARD, true, false, "down.tls", 1000000);
    local_count(&local, HEALTH_HARD, true, false, "down.tls", 1000010);
    local_count(&local, HEALTH_OK, false, false, "", 1000020);
    local_count(&local, HEALTH_HARD, true, false, "down.tls", 1000030);
    local_count(&local, HEALTH_HARD, true, false, "down.tls", 1000040);
    assert_int_equal(local.state, RELAY_CLOSED);
    local_count(&local, HEALTH_HARD, true, false, "down.tls", 1000050);
    assert_int_equal(local.state, RELAY_OPEN);
    assert_true(local.found_down);

    local = local_of(RELAY_CLOSED);
    local_count(&local, HEALTH_FATAL, false, false, "down.account", 1000000);
    assert_int_equal(local.state, RELAY_OPEN);

    local = local_of(RELAY_CLOSED);
    local_count(&local, HEALTH_HARD, true, true, "down.refused", 1000000);
    assert_int_equal(local.state, RELAY_OPEN);

    local = local_of(RELAY_CLOSED);
    for (int i = 0; i < 9; i++)
        local_count(&local, HEALTH_OK, false, false, "", 1000000 + (uint64_t)i);
    for (int i = 0; i < 11; i++) {
        assert_int_equal(local.state, RELAY_CLOSED);
        local_count(&local, HEALTH_HARD, false, false, "down.reply", 1001000 + (uint64_t)i);
    }
    assert_int_equal(local.state, RELAY_OPEN); /* 11 of 20 */

    local = local_of(RELAY_CLOSED);
    for (int i = 0; i < 60; i++) /* one every 2 s: never 20 in 30 s */
        local_count(&local, HEALTH_HARD, false, false, "down.reply", 1000000 + (uint64_t)i * 2000);
    assert_int_equal(local.state, RELAY_CLOSED);
}

static void alone_it_believes_its_own_probe(void **unused)
{
    struct local_health local = local_of(RELAY_CLOSED);

    (void)unused;
    local_count(&local, HEALTH_OK, false, false, "", 1000000);
    local_count(&local, HEALTH_FATAL, true, false, "down.silent", 1000600); /* as health_report tells a silence */
    assert_int_equal(local.state, RELAY_OPEN);
    assert_string_equal(local.reason, "down.silent");
}

static void alone_it_comes_back_by_probes_then_mails(void **unused)
{
    struct local_health local = local_of(RELAY_CLOSED);
    struct relay_view view = {.epoch = 7};
    uint64_t now = 1000000;

    (void)unused;
    local_count(&local, HEALTH_FATAL, false, false, "down.x", now);
    assert_false(local_tick(&local, false, now + 900));
    assert_int_equal(local.state, RELAY_OPEN);
    assert_true(local_tick(&local, false, now += 1100));
    assert_false(local_tick(&local, false, now)); /* one at a time */
    local_probed(&local, false, "down.tls", now);
    assert_int_equal(local.state, RELAY_OPEN);
    assert_false(local_tick(&local, false, now + 1900)); /* twice as long */
    assert_true(local_tick(&local, false, now += 2100));
    local_probed(&local, true, "", now);
    assert_true(local_tick(&local, false, now));
    local_probed(&local, true, "", now);
    for (int i = 0; i < 3; i++) {
        local_tick(&local, false, now += 1000);
        local_fill(&local, &view, now);
        assert_int_equal(view.grants, 1);
        local.grants = 0;
        local_count(&local, HEALTH_OK, false, false, "", now);
    }
    assert_int_equal(local.state, RELAY_CLOSED);
    assert_false(local.found_down);
    local_fill(&local, &view, now + 5000);
    assert_true(view.share > 0.5 && view.share < 0.6);
    assert_true(view.local);
    assert_int_equal(view.epoch, 7);
}

static void alone_it_keeps_what_was_shared(void **unused)
{
    static const enum relay_state state[][2] = {{RELAY_OPEN, RELAY_OPEN},
                                                {RELAY_HALF_OPEN, RELAY_OPEN},
                                                {RELAY_PAUSED, RELAY_PAUSED},
                                                {RELAY_EXHAUSTED, RELAY_EXHAUSTED},
                                                {RELAY_CLOSED, RELAY_CLOSED}};

    (void)unused;
    for (size_t i = 0; i < COUNT(state); i++) {
        struct local_health local = local_of(state[i][0]);

        assert_int_equal(local.state, state[i][1]);
        assert_false(local.found_down); /* no news for the others */
    }
}

static void alone_a_busy_relay_is_slowed(void **unused)
{
    struct local_health local = local_of(RELAY_CLOSED);
    uint64_t now = 1000000;

    (void)unused;
    for (int i = 0; i < 10; i++)
        local_count(&local, HEALTH_SOFT, false, false, "overloaded.rate", now + (uint64_t)i);
    assert_int_equal(local.state, RELAY_LIMITED);
    assert_true(local.factor > 0.69 && local.factor < 0.71);
    for (int i = 0; i < 60; i++)
        local_tick(&local, false, now += 250);
    assert_int_equal(local.state, RELAY_CLOSED);
}

static void alone_with_no_relay_fit_it_is_tried_every_two_seconds(void **unused)
{
    struct local_health local = local_of(RELAY_CLOSED);
    uint64_t now = 1000000, due;
    unsigned probes = 0;

    (void)unused;
    for (int i = 0; i < 6; i++) { /* found down again at every trial: waits of 1, 2, 4 ... 32 s */
        local_count(&local, HEALTH_FATAL, false, false, "down.auth", now);
        assert_int_equal(local.state, RELAY_OPEN);
        now = local.till;
        assert_true(local_tick(&local, false, now));
        local_probed(&local, false, "down.auth", now);
    }
    due = local.till;
    assert_true(due - now >= 30000);
    assert_false(local_tick(&local, false, now + 5000)); /* another one is fit: as long as planned */
    for (; now < due - 2000; now += 100) {
        if (!local_tick(&local, true, now))
            continue;
        probes++;
        assert_int_equal(local.state, RELAY_HALF_OPEN);
        local_probed(&local, false, "down.auth", now);
        assert_int_equal(local.state, RELAY_OPEN);
        assert_int_equal(local.till, due); /* trying early has cost nothing */
    }
    assert_in_range(probes, 28, 32); /* of about 62 s */
    assert_true(local_tick(&local, true, now + 2000));
    local_probed(&local, true, "well.probe", now + 2000);
    assert_true(local_tick(&local, true, now + 2000) == true); /* the second one, at once */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_it_opens_by_the_same_rules),
        cmocka_unit_test(alone_it_believes_its_own_probe),
        cmocka_unit_test(alone_it_comes_back_by_probes_then_mails),
        cmocka_unit_test(alone_it_keeps_what_was_shared),
        cmocka_unit_test(alone_a_busy_relay_is_slowed),
        cmocka_unit_test(alone_with_no_relay_fit_it_is_tried_every_two_seconds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
