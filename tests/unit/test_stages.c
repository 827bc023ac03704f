/* Where CPU time goes: the clock is the test's, each reading of it costs what a system call does. */
#include "unit.h"

#include "tandem/stages.h"

enum { READING_NS = 400, TURNS = 200000, PERIOD = 64 };

static uint64_t now_ns, readings; /* the thread never waits: CPU time is time */

static uint64_t clock_ns(void)
{
    readings++;
    return now_ns += READING_NS;
}

static void spend(uint64_t ns)
{
    now_ns += ns;
}

static void begin(struct td_stages *stages, uint64_t seed)
{
    now_ns = 5000000000; /* before the loop began */
    td_stages_init(stages, clock_ns, seed);
    readings = 0;
}

static void turn(struct td_stages *stages)
{
    td_stages_turn(stages, now_ns / 1000000);
}

static double sum(const struct td_stages *stages)
{
    double all = 0;

    for (int i = 0; i < TD_STAGE_COUNT; i++)
        all += stages->seconds[i];
    return all;
}

static void assert_near(double value, double expected, double part)
{
    if (value < expected * (1 - part) || value > expected * (1 + part))
        fail_msg("%.4f is not within %.0f %% of %.4f", value, part * 100, expected);
}

/* Send 20 us, of which compose takes 15 more inside; reply 5. */
static void one_mail(void)
{
    enum td_stage outer = td_stage(TD_STAGE_SEND), inner;

    spend(12000);
    inner = td_stage(TD_STAGE_COMPOSE);
    spend(15000);
    td_stage(inner);
    spend(8000);
    td_stage(TD_STAGE_REPLY);
    spend(5000);
    td_stage(outer);
}

static void time_belongs_to_the_innermost_stage(void **unused)
{
    struct td_stages stages;

    (void)unused;
    begin(&stages, 1);
    for (int i = 0; i < TURNS; i++) {
        turn(&stages);
        spend(10000);
        one_mail();
    }
    td_stages_share(&stages);
    assert_near(stages.seconds[TD_STAGE_SEND], TURNS * 20e-6, 0.02);
    assert_near(stages.seconds[TD_STAGE_COMPOSE], TURNS * 15e-6, 0.02);
    assert_near(stages.seconds[TD_STAGE_REPLY], TURNS * 5e-6, 0.02);
    assert_near(stages.seconds[TD_STAGE_OTHER] - 5, TURNS * 10e-6, 0.06); /* and the clock's own time */
    assert_true(stages.seconds[TD_STAGE_RENDER] == 0);
    td_stages_end(&stages);
}

static void stages_add_up_to_what_the_thread_spent(void **unused)
{
    struct td_stages stages;

    (void)unused;
    begin(&stages, 2);
    for (int i = 0; i < TURNS; i++) {
        turn(&stages);
        one_mail();
        spend((uint64_t)i % 1000 == 0 ? 3000000 : 1000);
        if (i % 50000 == 49999) {
            double before = sum(&stages);

            td_stages_share(&stages);
            assert_true(sum(&stages) > before);
            assert_near(sum(&stages), (double)now_ns / 1e9, 1e-9);
        }
    }
    td_stages_end(&stages);
}

/* Turns differ a thousandfold; which are measured does not depend on it, whatever period the work has. */
static void what_is_measured_stands_for_the_rest(void **unused)
{
    struct td_stages stages;
    double render = 0, hash = 0;

    (void)unused;
    begin(&stages, 3);
    for (int i = 0; i < TURNS * 5; i++) {
        uint64_t ns = i % PERIOD == 0 ? 2000000 : i % 3 == 0 ? 2000 : 50000;
        enum td_stage before;

        turn(&stages);
        before = td_stage(i % PERIOD == 0 ? TD_STAGE_RENDER : TD_STAGE_HASH);
        spend(ns);
        td_stage(before);
        *(i % PERIOD == 0 ? &render : &hash) += (double)ns / 1e9;
    }
    td_stages_share(&stages);
    assert_near(stages.seconds[TD_STAGE_RENDER], render, 0.1);
    assert_near(stages.seconds[TD_STAGE_HASH], hash, 0.1);
    td_stages_end(&stages);
}

static void a_stage_that_begins_often_does_not_look_dear(void **unused)
{
    struct td_stages stages;

    (void)unused;
    begin(&stages, 4);
    for (int i = 0; i < TURNS; i++) {
        enum td_stage before;

        turn(&stages);
        for (int k = 0; k < 50; k++) {
            before = td_stage(TD_STAGE_REPLY);
            spend(200); /* half of what asking the clock costs */
            td_stage(before);
        }
        before = td_stage(TD_STAGE_SEND);
        spend(50 * 200);
        td_stage(before);
    }
    td_stages_share(&stages);
    assert_near(stages.seconds[TD_STAGE_REPLY], stages.seconds[TD_STAGE_SEND], 0.02);
    td_stages_end(&stages);
}

/* At full speed readings take no more than they may; what they took before it was noticed is a moment's. */
static void a_rush_costs_what_it_may(void **unused)
{
    struct td_stages stages;
    uint64_t began_ns, most;

    (void)unused;
    begin(&stages, 5);
    for (int i = 0; i < 5000; i++) {
        turn(&stages);
        one_mail();
    }
    assert_in_range(readings, TD_STAGES_READINGS_PER_S / 10, 4 * TD_STAGES_READINGS_PER_S / 10);
    began_ns = now_ns;
    readings = 0;
    for (int i = 0; i < TURNS; i++) {
        turn(&stages);
        one_mail();
    }
    most = (now_ns - began_ns) / 1000000 * TD_STAGES_READINGS_PER_S / 1000;
    assert_in_range(readings, most / 2, most + most / 5);
    td_stages_end(&stages);
}

/* Five heavy turns among idle ones: all are measured, so it is known exactly what they did. */
static void with_little_to_do_all_is_measured(void **unused)
{
    struct td_stages stages;

    (void)unused;
    begin(&stages, 6);
    for (int i = 0; i < 2000; i++) {
        uint64_t wait_ms = now_ns / 1000000 + (uint64_t)i * 25;

        td_stages_turn(&stages, wait_ms);
        spend(10000);
        if (i % 400 == 399) {
            enum td_stage before = td_stage(TD_STAGE_VALIDATE);

            spend(3000000);
            td_stage(before);
        }
    }
    td_stages_share(&stages);
    assert_near(stages.seconds[TD_STAGE_VALIDATE], 5 * 3e-3, 0.06);
    td_stages_end(&stages);
}

/* Measured all when idle, one in many in a rush: either counts for what it stands for. */
static void a_measured_turn_stands_for_the_others(void **unused)
{
    struct td_stages stages;

    (void)unused;
    begin(&stages, 8);
    for (int i = 0; i < TURNS + 1000; i++) {
        enum td_stage before;

        td_stages_turn(&stages, now_ns / 1000000 + (i < 1000 ? (uint64_t)i * 25 : 25000));
        for (int k = 0; k < 10; k++) {
            before = td_stage(i < 1000 ? TD_STAGE_RENDER : TD_STAGE_HASH);
            spend(5000);
            td_stage(before);
        }
    }
    td_stages_share(&stages);
    assert_near(stages.seconds[TD_STAGE_RENDER], 1000 * 50e-6, 0.2); /* the clock's own time goes to all */
    assert_near(stages.seconds[TD_STAGE_HASH], TURNS * 50e-6, 0.05);
    td_stages_end(&stages);
}

static void too_few_turns_are_not_believed(void **unused)
{
    struct td_stages stages;
    double before;

    (void)unused;
    begin(&stages, 7);
    before = sum(&stages);
    for (int i = 0; i < TD_STAGES_TURNS_MIN; i++) { /* of the last one the end is not there yet */
        turn(&stages);
        one_mail();
    }
    td_stages_share(&stages);
    assert_true(sum(&stages) == before);
    turn(&stages);
    td_stages_share(&stages);
    assert_near(sum(&stages), (double)now_ns / 1e9, 1e-9); /* and nothing of what came before is lost */
    td_stages_end(&stages);
}

static void without_a_measured_turn_nothing_happens(void **unused)
{
    (void)unused;
    readings = 0;
    assert_int_equal(td_stage(TD_STAGE_SEND), TD_STAGE_OTHER);
    assert_int_equal(td_stage(TD_STAGE_OTHER), TD_STAGE_OTHER);
    assert_int_equal(readings, 0);
}

static void every_stage_has_a_name_of_its_own(void **unused)
{
    (void)unused;
    for (int i = 0; i < TD_STAGE_COUNT; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(td_stage_name((enum td_stage)i), td_stage_name((enum td_stage)k));
    assert_string_equal(td_stage_name(TD_STAGE_HTTP), "http");
    assert_string_equal(td_stage_name(TD_STAGE_COUNT), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_belongs_to_the_innermost_stage),
        cmocka_unit_test(stages_add_up_to_what_the_thread_spent),
        cmocka_unit_test(what_is_measured_stands_for_the_rest),
        cmocka_unit_test(a_stage_that_begins_often_does_not_look_dear),
        cmocka_unit_test(a_rush_costs_what_it_may),
        cmocka_unit_test(with_little_to_do_all_is_measured),
        cmocka_unit_test(a_measured_turn_stands_for_the_others),
        cmocka_unit_test(too_few_turns_are_not_believed),
        cmocka_unit_test(without_a_measured_turn_nothing_happens),
        cmocka_unit_test(every_stage_has_a_name_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
