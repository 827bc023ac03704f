/* Whose turn it is: shares, no starvation, nobody pays for who waits. */
#include "unit.h"

#include "tandem/turns.h"

enum { MANY = 201 };

struct camp {
    struct td_turn turn; /* first: a turn is its campaign */
    uint64_t backlog, served;
    uint64_t recipients;
    bool express, blocked;
    unsigned portion; /* most at once; 0: 16 */
};

static unsigned serve(void *user, struct td_turn *turn, enum td_turn_class *class)
{
    struct camp *c = (struct camp *)turn;
    unsigned most = c->portion ? c->portion : 16, mails = c->backlog < most ? (unsigned)c->backlog : most;

    (void)user;
    if (c->blocked || c->backlog == 0)
        return 0;
    c->backlog -= mails;
    c->served += mails;
    *class = td_turn_class(c->express, c->recipients, c->served);
    return mails;
}

static void begin(struct td_turns *turns, struct camp *camps, size_t count)
{
    td_turns_init(turns, 16);
    for (size_t i = 0; i < count; i++)
        td_turns_join(turns, &camps[i].turn, td_turn_class(camps[i].express, camps[i].recipients, camps[i].served));
}

/* Until so many mails are served, or nobody can. */
static uint64_t run(struct td_turns *turns, uint64_t mails)
{
    uint64_t done = 0;
    unsigned count;

    while (done < mails && (count = td_turns_serve(turns, serve, NULL)) > 0)
        done += count;
    return done;
}

static void a_small_one_beside_a_large_one_gets_four_fifths(void **unused)
{
    struct camp c[] = {{.backlog = 1000000, .served = 50000}, {.backlog = 1000}};
    struct td_turns turns;

    (void)unused;
    begin(&turns, c, 2);
    run(&turns, 1000);
    assert_in_range(c[1].served, 790, 816);
    run(&turns, 300);
    assert_int_equal(c[1].served, 1000);
}

static void two_large_ones_run_side_by_side(void **unused)
{
    struct camp c[] = {{.backlog = 100000, .recipients = 150000, .served = 50000}, {.backlog = 100000, .recipients = 100000}};
    struct td_turns turns;

    (void)unused;
    begin(&turns, c, 2);
    run(&turns, 20000);
    assert_in_range(c[1].served, 9984, 10016);
    assert_in_range(c[0].served - 50000, 9984, 10016);
}

/* A campaign that did not say how many it has counts as small until it has shown that it is not. */
static void one_of_unknown_size_becomes_large(void **unused)
{
    struct camp c[] = {{.backlog = 100000, .recipients = 150000}, {.backlog = 100000}};
    struct td_turns turns;

    (void)unused;
    begin(&turns, c, 2);
    run(&turns, 22500);
    assert_in_range(c[1].served, 11900, 12200); /* its first 2,000 beside 500, then both the same */
    assert_in_range(c[0].served, 10300, 10600);
}

static void many_small_ones_leave_the_large_one_its_fifth(void **unused)
{
    static struct camp c[MANY];
    struct td_turns turns;

    (void)unused;
    c[0] = (struct camp){.backlog = 1000000, .served = 50000};
    for (size_t i = 1; i < MANY; i++)
        c[i] = (struct camp){.backlog = 1000};
    begin(&turns, c, MANY);
    run(&turns, 50000);
    assert_in_range(c[0].served - 50000, 9900, 10100);
    for (size_t i = 1; i < MANY; i++)
        assert_in_range(c[i].served, 184, 216);
    run(&turns, 200000);
    for (size_t i = 1; i < MANY; i++)
        assert_int_equal(c[i].served, 1000);
}

static void portions_of_any_size_come_to_the_same(void **unused)
{
    struct camp c[] = {{.backlog = 5000, .served = 50000, .portion = 16}, {.backlog = 5000, .served = 50000, .portion = 9},
                       {.backlog = 5000, .served = 50000, .portion = 1}};
    struct td_turns turns;

    (void)unused;
    begin(&turns, c, 3);
    run(&turns, 9000);
    for (size_t i = 0; i < 3; i++)
        assert_in_range(c[i].served, 52980, 53020);
}

static void who_waits_costs_the_others_nothing(void **unused)
{
    struct camp c[] = {{.backlog = 10000, .served = 50000}, {.backlog = 1000, .blocked = true}, {.backlog = 500}};
    struct td_turns turns;

    (void)unused;
    begin(&turns, c, 3);
    assert_int_equal(run(&turns, 1000000), 10500);
    assert_int_equal(c[1].served, 0);
    c[1].blocked = false;
    assert_int_equal(run(&turns, 1000000), 1000);
    assert_int_equal(run(&turns, 1), 0);
}

/* Time that a class could not use is made up for by a few turns at most. */
static void nobody_saves_up(void **unused)
{
    struct camp c[] = {{.backlog = 100000, .served = 50000}, {.backlog = 1900, .blocked = true}};
    struct td_turns turns;

    (void)unused;
    begin(&turns, c, 2);
    run(&turns, 20000);
    c[1].blocked = false;
    c[0].served = 50000;
    run(&turns, 1000);
    assert_in_range(c[0].served - 50000, 160, 220);
}

static void express_goes_first(void **unused)
{
    struct camp c[] = {{.backlog = 10000, .served = 50000}, {.backlog = 1000}, {.backlog = 100, .express = true}};
    struct td_turns turns;

    (void)unused;
    begin(&turns, c, 3);
    assert_int_equal(run(&turns, 16), 16);
    assert_int_equal(c[2].served, 16);
    run(&turns, 124);
    assert_int_equal(c[2].served, 100);
}

/* Mails that come one by one are never behind bulk. */
static void a_single_express_mail_waits_for_nobody(void **unused)
{
    struct camp c[] = {{.backlog = 1000000, .served = 50000}, {.backlog = 1000000, .served = 50000}, {.express = true}};
    struct td_turns turns;

    (void)unused;
    begin(&turns, c, 2);
    for (uint64_t i = 0; i < 200; i++) {
        run(&turns, 16 * (i % 7 + 1));
        c[2].backlog = 1;
        td_turns_join(&turns, &c[2].turn, TD_TURN_EXPRESS);
        assert_int_equal(run(&turns, 1), 1);
        assert_int_equal(c[2].served, i + 1);
        td_turns_leave(&turns, &c[2].turn);
    }
}

static void an_express_campaign_leaves_bulk_its_fifth(void **unused)
{
    struct camp c[] = {{.backlog = 1000000, .express = true}, {.backlog = 1000000, .express = true, .portion = 7},
                       {.backlog = 1000000, .served = 50000}, {.backlog = 1900}};
    struct td_turns turns;

    (void)unused;
    begin(&turns, c, 4);
    run(&turns, 5000);
    assert_in_range(c[0].served + c[1].served, 3950, 4050);
    assert_in_range(c[3].served, 760, 840); /* of the fifth a small one has its four of five */
    assert_in_range(c[2].served - 50000, 160, 240);
    run(&turns, 95000);
    assert_in_range(c[2].served - 50000 + c[3].served, 19900, 20100);
    assert_int_equal(c[3].served, 1900);
}

/* Nor does bulk: it could not go for long, and then gets a turn at once, not all that it missed. */
static void bulk_saves_nothing_up_against_express(void **unused)
{
    struct camp c[] = {{.backlog = 1000000, .express = true}, {.backlog = 1000000, .served = 50000, .blocked = true}};
    struct td_turns turns;

    (void)unused;
    begin(&turns, c, 2);
    run(&turns, 20000);
    assert_int_equal(c[0].served, 20000);
    c[1].blocked = false;
    run(&turns, 1000);
    assert_in_range(c[1].served - 50000, 190, 230);
    c[0].blocked = true;
    run(&turns, 20000);
    c[0].blocked = false;
    c[1].served = 50000;
    run(&turns, 1000);
    assert_in_range(c[1].served - 50000, 160, 210);
}

static void joining_twice_and_leaving_twice_is_fine(void **unused)
{
    struct camp c[] = {{.backlog = 10}, {.backlog = 10}};
    struct td_turns turns;

    (void)unused;
    begin(&turns, c, 2);
    td_turns_join(&turns, &c[0].turn, TD_TURN_LARGE);
    assert_int_equal(turns.count[TD_TURN_SMALL], 2);
    td_turns_leave(&turns, &c[0].turn);
    td_turns_leave(&turns, &c[0].turn);
    assert_int_equal(turns.count[TD_TURN_SMALL], 1);
    assert_int_equal(run(&turns, 100), 10);
    td_turns_leave(&turns, &c[1].turn);
    assert_null(turns.first[TD_TURN_SMALL]);
    assert_null(turns.last[TD_TURN_SMALL]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_one_beside_a_large_one_gets_four_fifths),
        cmocka_unit_test(two_large_ones_run_side_by_side),
        cmocka_unit_test(one_of_unknown_size_becomes_large),
        cmocka_unit_test(many_small_ones_leave_the_large_one_its_fifth),
        cmocka_unit_test(portions_of_any_size_come_to_the_same),
        cmocka_unit_test(who_waits_costs_the_others_nothing),
        cmocka_unit_test(nobody_saves_up),
        cmocka_unit_test(express_goes_first),
        cmocka_unit_test(a_single_express_mail_waits_for_nobody),
        cmocka_unit_test(an_express_campaign_leaves_bulk_its_fifth),
        cmocka_unit_test(bulk_saves_nothing_up_against_express),
        cmocka_unit_test(joining_twice_and_leaving_twice_is_fine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
