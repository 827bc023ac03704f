/* Dispatchers over minutes of simulated time: slots as pace.lua gives them, mails that come late. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "pace_window.h"
#include "tandem/rng.h"

#define SECOND_US 1000000
#define LATE_US 10000
#define SENT_MAX 100000
#define MEMBERS_MAX 8

struct fault {
    double stalls;     /* a second: from one dispatcher no octet goes out for a while */
    uint64_t stall_us; /* at most */
    bool whole;        /* the whole process sleeps: it takes no slots meanwhile */
    unsigned slow;     /* per 1,000 mails: on its own it is later */
    uint64_t slow_us;  /* at most */
};

struct on_way {
    uint64_t slot_us, out_us;
};

struct member {
    struct pace_window window;
    struct on_way way[4096];
    size_t way_count;
    uint64_t stalled_until_us;
};

struct fleet {
    struct td_rng rng;
    struct member member[MEMBERS_MAX];
    uint64_t sent[SENT_MAX];
    size_t sent_count, slots, taken;
    double apart_us; /* slots */
};

static int by_out(const void *a, const void *b)
{
    uint64_t x = ((const struct on_way *)a)->out_us, y = ((const struct on_way *)b)->out_us;

    return x < y ? -1 : x > y;
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* What has gone out by now is told, in its order. */
static void tell(struct fleet *fleet, struct member *m, uint64_t now_us)
{
    size_t n = 0;

    qsort(m->way, m->way_count, sizeof(m->way[0]), by_out);
    for (; n < m->way_count && m->way[n].out_us <= now_us; n++) {
        pace_window_sent(&m->window, m->way[n].slot_us, m->way[n].out_us);
        assert_true(fleet->sent_count < SENT_MAX);
        fleet->sent[fleet->sent_count++] = m->way[n].out_us;
    }
    memmove(m->way, m->way + n, (m->way_count - n) * sizeof(m->way[0]));
    m->way_count -= n;
}

static void stall(struct fleet *fleet, struct member *m, const struct fault *fault, uint64_t now_us)
{
    m->stalled_until_us = now_us + td_rng_below(&fleet->rng, fault->stall_us);
    for (size_t i = 0; i < m->way_count; i++)
        if (m->way[i].out_us < m->stalled_until_us)
            m->way[i].out_us = m->stalled_until_us;
}

static void slot_comes(struct fleet *fleet, struct member *m, const struct fault *fault, uint64_t slot_us, bool guarded)
{
    uint64_t now_us = slot_us + td_rng_below(&fleet->rng, 2000), out_us;

    if (fault->whole && now_us < m->stalled_until_us)
        now_us = m->stalled_until_us;
    tell(fleet, m, now_us);
    if (now_us > slot_us + LATE_US || (guarded && !pace_window_fits(&m->window, now_us))) {
        pace_window_slot(&m->window, slot_us, false, now_us);
        return;
    }
    pace_window_slot(&m->window, slot_us, true, now_us);
    fleet->taken++;
    out_us = now_us + 20000 + td_rng_below(&fleet->rng, 2000);
    if (td_rng_below(&fleet->rng, 1000) < fault->slow)
        out_us += td_rng_below(&fleet->rng, fault->slow_us);
    if (out_us < m->stalled_until_us)
        out_us = m->stalled_until_us;
    m->way[m->way_count++] = (struct on_way){slot_us, out_us};
    if ((double)td_rng_below(&fleet->rng, 1000000) < fault->stalls * fleet->apart_us)
        stall(fleet, m, fault, now_us);
}

/* @return the most mails of all in any second */
static size_t run(struct fleet *fleet, uint64_t seed, size_t members, double quota, const struct fault *fault, bool guarded)
{
    size_t worst = 0, first = 0, turn = quota / 4 < 2 * (double)members ? 1 : 3; /* slots at once, as pace.lua gives them */

    memset(fleet, 0, sizeof(*fleet));
    fleet->apart_us = 1e6 / (0.985 * quota);
    td_rng_seed(&fleet->rng, seed);
    for (double at = 5e6; at < 45e6; at += fleet->apart_us, fleet->slots++)
        slot_comes(fleet, &fleet->member[fleet->slots / turn % members], fault, (uint64_t)at, guarded);
    for (size_t i = 0; i < members; i++)
        tell(fleet, &fleet->member[i], UINT64_MAX / 2);
    assert_int_equal(fleet->sent_count, fleet->taken);
    qsort(fleet->sent, fleet->sent_count, sizeof(fleet->sent[0]), by_time);
    for (size_t i = 0; i < fleet->sent_count; i++) {
        while (fleet->sent[i] - fleet->sent[first] >= SECOND_US)
            first++;
        worst = i - first + 1 > worst ? i - first + 1 : worst;
    }
    return worst;
}

static const struct fault well = {0};
static const struct fault faults[] = {
    {.stalls = 0.5, .stall_us = 60000}, /* the relay answers MAIL late: several become whole together */
    {.stalls = 0.1, .stall_us = 300000},
    {.stalls = 1, .stall_us = 60000, .whole = true}, /* this process waits for a processor */
    {.slow = 30, .slow_us = 150000},                 /* a new connection, a lost packet */
    {.stalls = 0.05, .stall_us = 500000, .slow = 20, .slow_us = 80000},
};

static struct fleet fleet; /* too large for a stack */

static void mails_in_time_cost_nothing(void **unused)
{
    static const double quotas[] = {2, 14, 50, 200, 1000};

    (void)unused;
    for (size_t i = 0; i < sizeof(quotas) / sizeof(quotas[0]); i++)
        for (size_t members = 1; members <= 8; members *= 2) {
            assert_true((double)run(&fleet, i, members, quotas[i], &well, true) <= quotas[i]);
            assert_in_range(fleet.taken, fleet.slots - 2 * members, fleet.slots); /* at first the way is not known */
        }
}

/* A member that has less than two slots a second has none to give up in time. */
static void no_second_passes_the_quota_when_mails_come_late(void **unused)
{
    static const double quotas[] = {14, 50, 200, 1000};
    size_t passed = 0, runs = 0;

    (void)unused;
    for (size_t f = 0; f < sizeof(faults) / sizeof(faults[0]); f++)
        for (size_t i = 0; i < sizeof(quotas) / sizeof(quotas[0]); i++)
            for (size_t members = 1; members <= 8 && quotas[i] > 2 * (double)members; members *= 2, runs++) {
                assert_true((double)run(&fleet, runs, members, quotas[i], &faults[f], true) <= quotas[i]);
                assert_true(fleet.taken * 100 >= fleet.slots * 94);
                passed += (double)run(&fleet, runs, members, quotas[i], &faults[f], false) > quotas[i];
            }
    assert_true(passed > runs / 2); /* without it */
}

/* Where every mail takes another time no rate can be both kept and used: some of it is given up, not all. */
static void ways_that_always_differ_cost_little(void **unused)
{
    static const struct {
        struct fault fault;
        size_t percent;
    } rows[] = {{{.slow = 1000, .slow_us = 10000}, 98},
                {{.slow = 1000, .slow_us = 20000}, 94},
                {{.slow = 1000, .slow_us = 100000}, 75}};

    (void)unused;
    for (size_t f = 0; f < sizeof(rows) / sizeof(rows[0]); f++)
        for (size_t members = 1; members <= 4; members++)
            for (double quota = 14; quota <= 1000; quota *= 3) {
                run(&fleet, members, members, quota, &rows[f].fault, true);
                assert_true(fleet.taken * 100 >= fleet.slots * rows[f].percent);
            }
}

#define T0 UINT64_C(7000000000)

/* Slots every 20 ms, a mail on each that fits, whole 3 ms later; but the one on slot `late` only after late_us, or never.
 * @return how many of 200 slots were given up */
static unsigned given_up(unsigned late, uint64_t late_us)
{
    struct pace_window w = {0};
    uint64_t late_at = late_us ? T0 + late * 20000 + late_us : UINT64_MAX;
    unsigned lost = 0;

    for (unsigned i = 0; i < 200; i++) {
        uint64_t slot = T0 + i * 20000;
        bool used;

        if (slot >= late_at) {
            pace_window_sent(&w, T0 + late * 20000, late_at);
            late_at = UINT64_MAX;
        }
        used = pace_window_fits(&w, slot);
        pace_window_slot(&w, slot, used, slot);
        if (used && i != late)
            pace_window_sent(&w, slot, slot + 3000);
        lost += !used;
    }
    return lost;
}

static void a_late_mail_takes_the_room_of_one(void **unused)
{
    (void)unused;
    assert_int_equal(given_up(200, 0), 0);
    assert_int_equal(given_up(100, 12000), 0); /* 9 ms later than the others: in time */
    assert_int_equal(given_up(100, 60000), 1);
    assert_int_equal(given_up(100, 500000), 1);
    assert_int_equal(given_up(100, 0), 0); /* it never went: it counts where its slot was */
    assert_int_equal(given_up(0, 60000), 1);
}

/* The clocks turn out to be 18 ms apart from what was thought: the next slot comes 2 ms behind the one before. */
static void slots_that_were_told_late_cost_one(void **unused)
{
    struct pace_window w = {0};
    unsigned lost = 0;

    (void)unused;
    for (unsigned i = 0; i < 200; i++) {
        uint64_t slot = T0 + i * 20000 - (i < 100 ? 0 : 18000);
        bool used;

        if (i == 100)
            pace_window_earlier(&w, 18000, slot);
        used = pace_window_fits(&w, slot);
        pace_window_slot(&w, slot, used, slot);
        if (used)
            pace_window_sent(&w, slot, slot + 3000);
        lost += !used;
    }
    assert_int_equal(lost, 1);
}

static void nothing_is_remembered_longer_than_a_second(void **unused)
{
    struct pace_window w = {0};

    (void)unused;
    for (unsigned i = 0; i < 5; i++)
        pace_window_sent(&w, T0, T0 + 3000 + i * 20000); /* without slots of their own */
    assert_false(pace_window_fits(&w, T0 + 100000));
    assert_true(pace_window_fits(&w, T0 + 1100000));
    pace_window_slot(&w, T0 + UINT64_C(86400000000), true, T0 + UINT64_C(86400000000));
    assert_true(pace_window_fits(&w, T0 + UINT64_C(86400000001)));
    pace_window_sent(&w, 0, T0 + UINT64_C(86405000000)); /* once more */
    assert_false(pace_window_fits(&w, T0 + UINT64_C(86405000001)));
    pace_window_slot(&w, T0 + UINT64_C(86405000002), false, T0 + UINT64_C(86405000002));
    assert_true(pace_window_fits(&w, T0 + UINT64_C(86405000003)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mails_in_time_cost_nothing),
        cmocka_unit_test(no_second_passes_the_quota_when_mails_come_late),
        cmocka_unit_test(ways_that_always_differ_cost_little),
        cmocka_unit_test(a_late_mail_takes_the_room_of_one),
        cmocka_unit_test(slots_that_were_told_late_cost_one),
        cmocka_unit_test(nothing_is_remembered_longer_than_a_second),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
