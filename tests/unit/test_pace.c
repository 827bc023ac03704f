/* Pacing against a real redis-server that this program starts on its own port and stops. */
#include "redis_group.h"

#include <limits.h>

#include "pace.h"
#include "tandem/gcra.h"
#include "tandem/rng.h"
#include "tandem/scripts.h"

/* ---- the script, with a clock of our own ---- */

struct lease {
    bool done;
    long long n, first_us, apart_us, again_us, members, left;
    char why[16];
};

static void on_lease(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct lease *lease = user;

    if (err)
        fail_msg("%s", err->text);
    lease->done = true;
    lease->n = td_reply_int(td_reply_at(reply, 0));
    lease->first_us = td_reply_int(td_reply_at(reply, 1));
    lease->apart_us = td_reply_int(td_reply_at(reply, 2));
    snprintf(lease->why, sizeof(lease->why), "%s", td_reply_str(td_reply_at(reply, 3), NULL));
    lease->again_us = td_reply_int(td_reply_at(reply, 4));
    lease->members = td_reply_int(td_reply_at(reply, 5));
    lease->left = td_reply_int(td_reply_at(reply, 6));
}

struct ask {
    const char *relay, *rate, *me, *part; /* part: of the lanes; NULL: all */
    unsigned want;
    unsigned long long quota, alone, now_us;
};

static struct lease lease_of(const struct ask *ask)
{
    struct lease lease = {0};
    char key[3][64], want[16], quota[24], alone[24], now[24];
    static const char *const part[] = {"tat", "quota", "members"};
    struct td_arg keys[3];

    for (size_t i = 0; i < 3; i++) {
        snprintf(key[i], sizeof(key[i]), "td:{r:%s}:%s", ask->relay, part[i]);
        keys[i] = TD_ARG_STR(key[i]);
    }
    snprintf(want, sizeof(want), "%u", ask->want);
    snprintf(quota, sizeof(quota), "%llu", ask->quota);
    snprintf(alone, sizeof(alone), "%llu", ask->alone);
    snprintf(now, sizeof(now), "%llu", ask->now_us);
    td_redis_eval(redis, &td_script_pace, keys, 3,
                  (struct td_arg[]){TD_ARG_STR(ask->rate), TD_ARG_STR(want), TD_ARG_STR("250000"),
                                    TD_ARG_STR(quota), TD_ARG_STR(ask->me), TD_ARG_STR(alone),
                                    TD_ARG_STR(ask->part ? ask->part : "1"), TD_ARG_STR(now)},
                  8, on_lease, &lease);
    assert_true(loop_until(&loop, &lease.done, 3000));
    return lease;
}

#define T0 1700000000000000ull

static void slots_are_consecutive_and_evenly_apart(void **unused)
{
    struct ask ask = {.relay = "even", .rate = "200", .me = "a", .want = 10, .now_us = T0};
    struct lease lease = lease_of(&ask);

    (void)unused;
    assert_int_equal(lease.n, 10);
    assert_int_equal(lease.first_us, 0);
    assert_int_equal(lease.apart_us, 5000);
    lease = lease_of(&ask); /* the same moment: they follow */
    assert_int_equal(lease.n, 10);
    assert_int_equal(lease.first_us, 50000);
    ask.want = 1000;
    lease = lease_of(&ask); /* to the horizon and no further: slots due at 100, 105 ... 250 ms */
    assert_int_equal(lease.n, 31);
    assert_int_equal(lease.first_us, 100000);
    lease = lease_of(&ask);
    assert_int_equal(lease.n, 0);
    assert_string_equal(lease.why, "rate");
    assert_int_equal(lease.again_us, 5000);
    ask.now_us += 5000;
    lease = lease_of(&ask);
    assert_int_equal(lease.n, 1);
    assert_int_equal(lease.first_us, 250000);
}

static void a_pause_saves_nothing_up(void **unused)
{
    struct ask ask = {.relay = "pause", .rate = "100", .me = "a", .want = 100, .now_us = T0};

    (void)unused;
    assert_int_equal(lease_of(&ask).n, 25); /* its share of a horizon */
    ask.now_us += 3600 * 1000000ull;
    assert_int_equal(lease_of(&ask).n, 25);
    assert_int_equal(lease_of(&ask).n, 1); /* the one on the horizon's edge */
    assert_int_equal(lease_of(&ask).n, 0);
}

static void a_slow_relay_gets_its_mail_too(void **unused)
{
    struct ask ask = {.relay = "slow", .rate = "0.5", .me = "a", .want = 5, .now_us = T0};
    struct lease lease = lease_of(&ask);
    unsigned granted = 1;

    (void)unused;
    assert_int_equal(lease.n, 1);
    for (unsigned i = 0; i < 200; i++) { /* asked every 100 ms for 20 s */
        ask.now_us += 100000;
        granted += (unsigned)lease_of(&ask).n;
    }
    assert_in_range(granted, 10, 11);
}

static void script_and_c_hand_out_the_same_slots(void **unused)
{
    struct td_gcra gcra = {0};
    struct td_rng rng;
    struct ask ask = {.relay = "twin", .rate = "160", .me = "a", .now_us = T0};

    (void)unused;
    td_rng_seed(&rng, 7);
    for (int i = 0; i < 300; i++) {
        struct lease lease;
        uint64_t first = 0;
        uint32_t n;

        ask.now_us += td_rng_below(&rng, 90000);
        ask.want = 1 + (unsigned)td_rng_below(&rng, 30);
        n = td_gcra_take(&gcra, 160, ask.want, 250000, ask.now_us, &first);
        lease = lease_of(&ask);
        assert_int_equal(lease.n, n);
        if (n > 0)
            assert_int_equal(lease.first_us, first - ask.now_us);
    }
}

static void members_share_a_horizon(void **unused)
{
    struct ask ask = {.relay = "share", .rate = "100", .me = "a", .want = 0, .now_us = T0};

    (void)unused;
    assert_int_equal(lease_of(&ask).members, 1);
    ask.me = "b";
    assert_int_equal(lease_of(&ask).members, 2);
    ask.want = 100;
    assert_int_equal(lease_of(&ask).n, 13); /* of 26: the other half is for a */
    ask.me = "a";
    assert_int_equal(lease_of(&ask).n, 13);
    ask.now_us += 12 * 1000000ull; /* b has not been heard of for more than 10 s */
    assert_int_equal(lease_of(&ask).members, 1);
}

/* A dispatcher that is cut off from Redis sends at 0.8 of its part, a dead one at nothing until others have its lanes: in either
 * case all together stay within the quota. */
static void the_part_of_who_is_not_heard_is_left_free(void **unused)
{
    struct ask ask = {.relay = "unheard", .rate = "100", .me = "a", .part = "0.500000", .want = 1, .now_us = T0};

    (void)unused;
    lease_of(&ask);
    ask.me = "b";
    assert_int_equal(lease_of(&ask).apart_us, 10000);
    ask.now_us += 500 * 1000ull;
    assert_int_equal(lease_of(&ask).apart_us, 10000);
    ask.now_us += 200 * 1000ull; /* a: 0.7 s ago */
    assert_int_equal(lease_of(&ask).apart_us, 16667); /* 60 a second, and 40 for a */
    ask.part = "1.000000"; /* the group gave b all lanes */
    assert_int_equal(lease_of(&ask).apart_us, 10000);
}

struct turns {
    unsigned calls, slots, most, least; /* most and least of one member */
};

/* Members that always have mail ask when they are told to, as pace.c does; one of them stops in the middle half. */
static struct turns take_turns(const char *relay, const char *rate, size_t members, unsigned seconds, bool one_stops)
{
    static const char *const name[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
    struct ask ask = {.relay = relay, .rate = rate, .want = 100};
    struct turns turns = {.least = UINT_MAX};
    uint64_t next[8], end = T0 + seconds * 1000000ull;
    unsigned got[8] = {0};

    for (size_t i = 0; i < members; i++) {
        next[i] = T0 + i;
        ask.me = name[i];
        ask.want = 0;
        ask.now_us = T0;
        lease_of(&ask);
    }
    ask.want = 100;
    for (;;) {
        uint64_t quarter = seconds * 1000000ull / 4;
        struct lease lease;
        size_t m = 0;

        for (size_t i = 1; i < members; i++)
            m = next[i] < next[m] ? i : m;
        if (next[m] >= end)
            break;
        if (one_stops && m == 3 && next[m] > T0 + quarter && next[m] < T0 + 3 * quarter) {
            next[m] = T0 + 3 * quarter;
            continue;
        }
        ask.me = name[m];
        ask.now_us = next[m];
        lease = lease_of(&ask);
        turns.calls++;
        turns.slots += (unsigned)lease.n;
        got[m] += (unsigned)lease.n;
        next[m] = ask.now_us + (lease.again_us > 1000 ? (uint64_t)lease.again_us : 1000);
        if (lease.n > 0) {
            uint64_t reach = ask.now_us + (uint64_t)(lease.first_us + (lease.n - 1) * lease.apart_us) - 125000;

            next[m] = next[m] > reach ? next[m] : reach;
        }
    }
    for (size_t i = 0; i < members; i++) {
        turns.most = got[i] > turns.most ? got[i] : turns.most;
        turns.least = got[i] < turns.least ? got[i] : turns.least;
    }
    return turns;
}

static void many_members_of_a_slow_relay_take_turns(void **unused)
{
    static const struct {
        const char *relay, *rate;
        size_t members;
        unsigned seconds, slots; /* as many as the rate allows, the horizon included */
    } rows[] = {{"turns14", "14", 8, 40, 563}, {"turns5", "5", 8, 40, 201},     {"turns1", "1", 8, 100, 100},
                {"two14", "14", 2, 40, 563},   {"three20", "20", 3, 40, 805},   {"four30", "30", 4, 40, 1207},
                {"eight50", "50", 8, 20, 1012}};

    (void)unused;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct turns turns = take_turns(rows[i].relay, rows[i].rate, rows[i].members, rows[i].seconds, false);

        assert_in_range(turns.slots, rows[i].slots * 99 / 100, rows[i].slots + 1);
        assert_true(turns.calls <= turns.slots + turns.slots / 10 + 16); /* in vain only at the start */
        assert_true(turns.most - turns.least <= turns.slots / 40 + 2);
    }
}

static void turns_that_nobody_takes_up_are_made_up_for(void **unused)
{
    struct turns turns = take_turns("gap", "14", 8, 80, true);

    (void)unused;
    assert_in_range(turns.slots, 1123 * 99 / 100, 1124);
    assert_true(turns.calls <= turns.slots + turns.slots / 5);
}

static void the_daily_quota_rolls_over_twenty_four_hours(void **unused)
{
    struct ask ask = {.relay = "quota", .rate = "100", .me = "a", .want = 10, .quota = 100, .now_us = T0};
    struct lease lease;
    unsigned granted = 0;

    (void)unused;
    for (int i = 0; i < 40; i++) { /* one lease an hour: all of it goes in the first ten hours */
        lease = lease_of(&ask);
        granted += (unsigned)lease.n;
        assert_true(granted <= 100 || i >= 24);
        if (i == 12) {
            assert_int_equal(granted, 100);
            assert_string_equal(lease.why, "quota");
            assert_int_equal(lease.left, 0);
        }
        ask.now_us += 3600 * 1000000ull;
    }
    assert_in_range(granted, 200, 260); /* the second day's ten leases and no more than the sixteen hours allow */
}

static void mails_sent_without_redis_are_added_to_the_quota(void **unused)
{
    struct ask ask = {
        .relay = "merge", .rate = "100", .me = "a", .want = 0, .quota = 100, .alone = 95, .now_us = T0};

    (void)unused;
    lease_of(&ask);
    ask.alone = 0;
    ask.want = 20;
    assert_int_equal(lease_of(&ask).n, 5);
    assert_string_equal(lease_of(&ask).why, "quota");
}

static void a_server_clock_set_back_does_not_stop_sending(void **unused)
{
    struct ask ask = {.relay = "back", .rate = "100", .me = "a", .want = 5, .now_us = T0};

    (void)unused;
    assert_int_equal(lease_of(&ask).n, 5);
    ask.now_us -= 3600 * 1000000ull;
    assert_int_equal(lease_of(&ask).n, 5);
}

/* ---- the module, in real time ---- */

static struct td_settings settings_with(char *name, int64_t rate)
{
    struct td_settings settings = {.relay_count = 1};

    settings.relays[0].name = name;
    settings.relays[0].max_mails_per_s = rate;
    return settings;
}

struct sender {
    struct pace *pace;
    unsigned sent, backlog, dues;
    uint64_t at[4000]; /* when each went, us */
};

static void drain(struct sender *sender)
{
    uint64_t slot_us;

    pace_want(sender->pace, 0, sender->backlog);
    while (sender->backlog > 0 && pace_take(sender->pace, 0, &slot_us) == 0) {
        uint64_t now = td_mono_us();

        if (sender->sent < 4000)
            sender->at[sender->sent] = now;
        pace_sent(sender->pace, 0, slot_us, now);
        sender->sent++;
        sender->backlog--;
    }
}

static void on_due(void *user, size_t relay)
{
    struct sender *sender = user;

    assert_int_equal(relay, 0);
    sender->dues++;
    drain(sender);
}

static void sender_open(struct sender *sender, const struct td_settings *settings, struct td_redis *at)
{
    struct td_err err;

    memset(sender, 0, sizeof(*sender));
    assert_int_equal(pace_new(&loop, at, settings, on_due, sender, &sender->pace, &err), TD_OK);
    sender->backlog = 1000000;
    pace_part(sender->pace, 1);
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* The most mails of all senders in any window of this length. */
static unsigned worst_window(struct sender *const *senders, size_t count, uint64_t window_us)
{
    static uint64_t all[16000];
    size_t n = 0, tail = 0;
    unsigned worst = 0;

    for (size_t i = 0; i < count; i++)
        for (unsigned k = 0; k < senders[i]->sent; k++)
            all[n++] = senders[i]->at[k];
    qsort(all, n, sizeof(all[0]), by_time);
    for (size_t head = 0; head < n; head++) {
        while (all[head] - all[tail] >= window_us)
            tail++;
        if (head - tail + 1 > worst)
            worst = (unsigned)(head - tail + 1);
    }
    return worst;
}

static void three_dispatchers_together_keep_one_quota(void **unused)
{
    static struct sender a, b, c;
    struct sender *const all[] = {&a, &b, &c};
    char name[] = "fleet";
    struct td_settings settings = settings_with(name, 200);
    unsigned sum;

    (void)unused;
    for (size_t i = 0; i < 3; i++)
        sender_open(all[i], &settings, redis);
    for (size_t i = 0; i < 3; i++)
        drain(all[i]);
    loop_for(&loop, 3000);
    sum = a.sent + b.sent + c.sent;
    assert_true(worst_window(all, 3, 1000000) <= 200);
    assert_true(worst_window(all, 3, 100000) <= 30); /* 20 is even; slots may be 10 ms late */
    assert_in_range(sum, 300, 600);                  /* 591 at most; a busy machine loses some */
    for (size_t i = 0; i < 3; i++) {
        assert_true(all[i]->sent > sum / 6); /* nobody starves */
        pace_free(all[i]->pace);
    }
}

/* 197 slots a second; of the first second one in 16 taken takes another with it. */
static void the_first_second_after_a_silence_leaves_some_to_spare(void **unused)
{
    static struct sender a;
    char name[] = "first";
    struct td_settings settings = settings_with(name, 200);
    unsigned first = 0, after = 0;

    (void)unused;
    sender_open(&a, &settings, redis);
    drain(&a);
    loop_for(&loop, 2500);
    for (unsigned k = 0; k < a.sent; k++) {
        first += a.at[k] - a.at[0] < 1000000;
        after += a.at[k] - a.at[0] >= 1000000 && a.at[k] - a.at[0] < 2000000;
    }
    assert_in_range(first, 50, 187);
    assert_in_range(after, 50, 200);
    pace_free(a.pace);
}

/* Whoever comes second in each round must not live on what the first one leaves of the horizon. */
static void who_comes_later_gets_as_much(void **unused)
{
    static struct sender a, b;
    char name[] = "later";
    struct td_settings settings = settings_with(name, 200);
    unsigned sum;

    (void)unused;
    sender_open(&a, &settings, redis);
    sender_open(&b, &settings, redis);
    drain(&a);
    loop_for(&loop, 600);
    a.sent = 0;
    drain(&b);
    loop_for(&loop, 3000);
    sum = a.sent + b.sent;
    assert_in_range(sum, 300, 600);
    assert_true(a.sent > sum * 2 / 5);
    assert_true(b.sent > sum * 2 / 5);
    pace_free(a.pace);
    pace_free(b.pace);
}

static void half_the_factor_is_half_the_rate(void **unused)
{
    static struct sender a;
    struct sender *const all[] = {&a};
    char name[] = "half";
    struct td_settings settings = settings_with(name, 200);

    (void)unused;
    sender_open(&a, &settings, redis);
    pace_factor(a.pace, 0, 0.5);
    drain(&a);
    loop_for(&loop, 2000);
    assert_true(worst_window(all, 1, 1000000) <= 100);
    assert_true(a.sent > 100);
    assert_true(a.dues > 10);
    pace_free(a.pace);
}

static void on_number(void *user, const struct td_reply *reply, const struct td_err *err)
{
    if (err)
        fail_msg("%s", err->text);
    *(long long *)user = td_reply_int(reply);
}

/* All dispatchers tell both relays how many mails wait: what the standby has leased it has spent of its daily quota. */
static void a_standby_that_is_not_asked_leases_nothing(void **unused)
{
    static struct sender a;
    struct td_settings settings = {.relay_count = 2};
    char name[2][8] = {"busy", "standby"};
    long long slots[2] = {-1, -1};

    (void)unused;
    for (size_t i = 0; i < 2; i++) {
        settings.relays[i].name = name[i];
        settings.relays[i].max_mails_per_s = 200;
        settings.relays[i].daily_quota = 100000;
    }
    sender_open(&a, &settings, redis);
    for (int i = 0; i < 50; i++) {
        drain(&a);
        pace_want(a.pace, 1, a.backlog);
        loop_for(&loop, 20);
    }
    assert_true(a.sent > 50);
    for (size_t i = 0; i < 2; i++) {
        char key[40];

        snprintf(key, sizeof(key), "td:{r:%s}:quota", name[i]);
        td_redis_command(redis, (struct td_arg[]){TD_ARG_STR("EXISTS"), TD_ARG_STR(key)}, 2, on_number, &slots[i]);
    }
    loop_for(&loop, 100);
    assert_int_equal(slots[0], 1);
    assert_int_equal(slots[1], 0);
    pace_free(a.pace);
}

static void a_relay_without_a_quota_is_not_paced(void **unused)
{
    static struct sender a;
    char name[] = "free";
    struct td_settings settings = settings_with(name, 0);
    uint64_t slot_us = 1;

    (void)unused;
    sender_open(&a, &settings, redis);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(pace_take(a.pace, 0, &slot_us), 0);
    assert_int_equal(slot_us, 0);
    pace_sent(a.pace, 0, slot_us, td_mono_us());
    assert_false(pace_full(a.pace, 0, 0));
    pace_free(a.pace);
}

static void a_relay_is_full_when_others_hold_its_slots(void **unused)
{
    static struct sender a;
    char name[] = "full";
    struct td_settings settings = settings_with(name, 100);
    struct ask other = {.relay = "full", .rate = "97", .me = "x", .want = 1000};
    uint64_t slot_us;

    (void)unused;
    sender_open(&a, &settings, redis);
    assert_false(pace_full(a.pace, 0, 50000));
    other.now_us = (unsigned long long)td_wall_ms() * 1000;
    while (lease_of(&other).n > 0) /* the whole horizon */
        continue;
    pace_want(a.pace, 0, 5);
    assert_true(pace_take(a.pace, 0, &slot_us) > 0);
    loop_for(&loop, 20);
    assert_true(pace_full(a.pace, 0, 50000));
    assert_false(pace_full(a.pace, 0, 10000000));
    pace_free(a.pace);
}

static void without_redis_a_dispatcher_keeps_to_its_part_of_the_lanes(void **unused)
{
    static struct sender a;
    struct sender *const all[] = {&a};
    char name[] = "alone";
    struct td_settings settings = settings_with(name, 200);
    struct redis_server other = {0};
    struct td_redis *away = NULL;
    struct td_err err;

    (void)unused;
    redis_server_start(&other, NULL);
    assert_int_equal(td_redis_new(&loop, other.url, NULL, 500, &away, &err), TD_OK);
    assert_true(redis_wait_up(&loop, away, 3000));
    sender_open(&a, &settings, away);
    drain(&a);
    loop_for(&loop, 700);
    assert_in_range(a.sent, 50, 200); /* alone with Redis: 194 a second */
    redis_server_stop(&other);
    loop_for(&loop, 300);
    a.sent = 0;
    loop_for(&loop, 2000);
    assert_true(worst_window(all, 1, 1000000) <= 164); /* 0.8 x 200, 10 ms late at most */
    assert_true(a.sent > 150);
    pace_part(a.pace, 0.5); /* somebody has joined */
    loop_for(&loop, 300);   /* slots held already: a quarter of a second at 0.8 does not add up to the quota either */
    a.sent = 0;
    loop_for(&loop, 2000);
    assert_true(worst_window(all, 1, 1000000) <= 82);
    assert_true(a.sent > 75);
    redis_server_start(&other, NULL);
    assert_true(redis_wait_up(&loop, away, 5000));
    a.sent = 0;
    loop_for(&loop, 1000);
    assert_true(a.sent > 80);
    pace_free(a.pace);

    redis_server_stop(&other);
    loop_for(&loop, 300);
    sender_open(&a, &settings, away); /* a new process: it never saw Redis, and has no lanes yet */
    pace_part(a.pace, 0);
    drain(&a);
    loop_for(&loop, 300);
    assert_int_equal(a.sent, 0);
    pace_part(a.pace, 0.25);
    loop_for(&loop, 1500);
    assert_true(worst_window(all, 1, 1000000) <= 42);
    assert_true(a.sent > 30);
    pace_free(a.pace);
    td_redis_free(away);
    loop_for(&loop, 20);
    redis_server_remove(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_are_consecutive_and_evenly_apart),
        cmocka_unit_test(a_pause_saves_nothing_up),
        cmocka_unit_test(a_slow_relay_gets_its_mail_too),
        cmocka_unit_test(script_and_c_hand_out_the_same_slots),
        cmocka_unit_test(members_share_a_horizon),
        cmocka_unit_test(the_part_of_who_is_not_heard_is_left_free),
        cmocka_unit_test(many_members_of_a_slow_relay_take_turns),
        cmocka_unit_test(turns_that_nobody_takes_up_are_made_up_for),
        cmocka_unit_test(the_daily_quota_rolls_over_twenty_four_hours),
        cmocka_unit_test(mails_sent_without_redis_are_added_to_the_quota),
        cmocka_unit_test(a_server_clock_set_back_does_not_stop_sending),
        cmocka_unit_test(three_dispatchers_together_keep_one_quota),
        cmocka_unit_test(the_first_second_after_a_silence_leaves_some_to_spare),
        cmocka_unit_test(who_comes_later_gets_as_much),
        cmocka_unit_test(half_the_factor_is_half_the_rate),
        cmocka_unit_test(a_standby_that_is_not_asked_leases_nothing),
        cmocka_unit_test(a_relay_without_a_quota_is_not_paced),
        cmocka_unit_test(a_relay_is_full_when_others_hold_its_slots),
        cmocka_unit_test(without_redis_a_dispatcher_keeps_to_its_part_of_the_lanes),
    };

    return cmocka_run_group_tests(tests, redis_group_start, redis_group_end);
}
