/* The bounces of all campaigns at one relay: counted once whoever tells it how often, over a window, and judged in levels. */
#include "health_dispatcher.h"

#include "hours.h"
#include "tandem/ledger.h"

#define HOUR_MS 3600000ull

struct told {
    bool done;
    enum td_code code;
    long long number;
    size_t texts;
    char text[4][96];
};

static void on_told(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct told *told = user;
    const struct td_reply *texts = td_reply_at(reply, 1);

    told->done = true;
    told->code = err ? err->code : TD_OK;
    told->number = td_reply_int(td_reply_type(reply) == TD_REPLY_ARRAY ? td_reply_at(reply, 0) : reply);
    told->texts = td_reply_count(texts);
    for (size_t i = 0; i < told->texts && i < COUNT(told->text); i++)
        snprintf(told->text[i], sizeof(told->text[i]), "%s", td_reply_str(td_reply_at(texts, i), NULL));
}

static struct told wait_for(struct told *told, int rc)
{
    assert_true(td_redis_answers(rc));
    assert_true(loop_until(&loop, &told->done, 3000));
    assert_int_equal(told->code, TD_OK);
    return *told;
}

/* One campaign's total in the hour of fleet->now less hours_ago. @return by how much the relay's sum grew */
static long long count(const struct fleet *fleet, unsigned hours_ago, const char *kind, const char *campaign, unsigned total)
{
    unsigned long long hour = fleet->now / HOUR_MS - hours_ago;
    char key[2][80], number[24], value[16], now[24];
    struct told told = {0};

    snprintf(key[0], sizeof(key[0]), "td:{r:%s}:hours", fleet->relay);
    snprintf(key[1], sizeof(key[1]), "td:{r:%s}:hour:%llu", fleet->relay, hour);
    snprintf(number, sizeof(number), "%llu", hour);
    snprintf(value, sizeof(value), "%u", total);
    snprintf(now, sizeof(now), "%llu", fleet->now / 1000);
    return wait_for(&told, td_redis_eval(redis, &td_script_relay_count,
                                         (struct td_arg[]){TD_ARG_STR(key[0]), TD_ARG_STR(key[1])}, 2,
                                         (struct td_arg[]){TD_ARG_STR(number), TD_ARG_STR(kind), TD_ARG_STR(campaign),
                                                           TD_ARG_STR(value), TD_ARG_STR(now)},
                                         5, on_told, &told))
        .number;
}

static void a_total_told_again_or_late_adds_nothing(void **unused)
{
    struct fleet fleet = fleet_of("once");

    (void)unused;
    assert_int_equal(count(&fleet, 0, "a", "x", 300), 300);
    assert_int_equal(count(&fleet, 0, "a", "x", 300), 0);
    assert_int_equal(count(&fleet, 0, "a", "x", 500), 200);
    assert_int_equal(count(&fleet, 0, "a", "x", 400), 0); /* overtaken on its way */
    assert_int_equal(count(&fleet, 0, "a", "y", 100), 100);
    assert_int_equal(count(&fleet, 3, "a", "x", 100), 100); /* another hour of the same campaign */
    assert_int_equal(count(&fleet, 24, "a", "x", 9999), 0); /* no longer of the window */
    assert_int_equal(count(&fleet, 0, "h", "x", 7), 7);
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.bounce_taken, 700);
    assert_int_equal(fleet.at.bounce_hard, 7);
}

static void the_level_is_raised_only_when_it_is_sure(void **unused)
{
    static const struct {
        const char *relay;
        unsigned taken, hard;
        int level;
    } row[] = {{"s499", 499, 499, 0},     {"s500a", 500, 16, 0},      {"s500b", 500, 17, 1},       {"s1000a", 1000, 28, 0},
               {"s1000b", 1000, 29, 1},   {"s1000c", 1000, 52, 1},    {"s1000d", 1000, 53, 2},    {"s1000e", 1000, 63, 2},
               {"s1000f", 1000, 64, 3},   {"s100ka", 100000, 2086, 0}, {"s100kb", 100000, 2087, 1}, {"s100kc", 100000, 5135, 2},
               {"s100kd", 100000, 5136, 3}};

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct fleet fleet = fleet_of(row[i].relay);

        count(&fleet, 0, "a", "x", row[i].taken);
        count(&fleet, 0, "h", "x", row[i].hard);
        tell(&fleet, "ok", "0");
        if (fleet.at.level != row[i].level)
            fail_msg("%u of %u: level %lld, not %d", row[i].hard, row[i].taken, fleet.at.level, row[i].level);
        assert_string_equal(fleet.at.name, "closed"); /* the relay itself is as well as before */
        assert_true(fleet.at.share > 0.999);
    }
}

static void small_campaigns_count_together_and_one_dispatcher_tells(void **unused)
{
    struct fleet fleet = fleet_of("together");
    char campaign[16];

    (void)unused;
    for (unsigned i = 0; i < 30; i++) { /* each below every sample of its own */
        snprintf(campaign, sizeof(campaign), "c%u", i);
        count(&fleet, i % 20, "a", campaign, 50);
        count(&fleet, i % 20, "h", campaign, 5);
    }
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.level, 3);
    assert_int_equal(fleet.at.level_from, 0);
    assert_non_null(strstr(fleet.at.bounces, "150 of 1500 mails of the last 24 hours bounced hard, 10.00 %, surely above 5.00 %"));
    tell(&fleet, "me", "two", "ok", "0");
    assert_int_equal(fleet.at.level, 3);
    assert_int_equal(fleet.at.level_from, 3); /* told */
}

static void it_comes_down_a_level_at_a_time_and_does_not_flap(void **unused)
{
    struct fleet fleet = fleet_of("down");
    unsigned changes = 0, taken = 10000;
    long long before;

    (void)unused;
    count(&fleet, 0, "a", "x", taken);
    count(&fleet, 0, "h", "x", 600);
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.level, 3);
    count(&fleet, 0, "a", "x", 100000); /* 0.6 %: well at once, but each level is held for a while */
    for (unsigned minute = 0; minute < 44; minute++) {
        before = fleet.at.level;
        fleet.now += 60000;
        tell(&fleet, "ok", "0");
        changes += fleet.at.level != before;
        assert_int_equal(fleet.at.level, minute < 14 ? 3 : minute < 29 ? 2 : 1);
    }
    assert_int_equal(changes, 2);
    fleet.now += 60000;
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.level, 0);
    assert_int_equal(fleet.at.level_from, 1);

    /* A rate that stays a little below the limit it went over keeps the level. */
    count(&fleet, 0, "h", "x", 2500);
    fleet.now += 20000;
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.level, 1);
    changes = 0;
    for (unsigned minute = 0; minute < 600; minute++) {
        before = fleet.at.level;
        fleet.now += 60000;
        taken = 100000 + minute * 100;
        count(&fleet, 0, "a", "y", minute * 100);
        count(&fleet, 0, "h", "y", minute * (minute % 20 < 10 ? 1 : 3)); /* 1 % to 3 % of what is new */
        tell(&fleet, "ok", "0");
        changes += fleet.at.level != before;
    }
    assert_true(changes <= 1);
}

static void a_window_that_empties_lets_bulk_back(void **unused)
{
    struct fleet fleet = fleet_of("window24");

    (void)unused;
    count(&fleet, 0, "a", "x", 1000);
    count(&fleet, 0, "h", "x", 100);
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.level, 3);
    fleet.now += 23 * HOUR_MS;
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.level, 3);
    fleet.now += HOUR_MS;
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.bounce_taken, 0);
    assert_int_equal(fleet.at.level, 2);
    assert_non_null(strstr(fleet.at.bounces, "too few to tell"));
}

static void an_operator_lets_bulk_back_and_it_is_counted_anew(void **unused)
{
    struct fleet fleet = fleet_of("anew");

    (void)unused;
    count(&fleet, 0, "a", "x", 1000);
    count(&fleet, 0, "h", "x", 100);
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.level, 3);
    set_relay(&fleet, "enable", "0");
    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "closed");
    assert_int_equal(fleet.at.level, 0);
    assert_int_equal(fleet.at.level_from, 3); /* who reports first tells of it */
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.level_from, 0);
    count(&fleet, 0, "h", "x", 100); /* told again: it was counted before */
    fleet.now += 11000;
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.level, 0);
    count(&fleet, 0, "a", "x", 1600); /* new: 600 and 60 */
    count(&fleet, 0, "h", "x", 160);
    fleet.now += 11000;
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.bounce_taken, 600);
    assert_int_equal(fleet.at.level, 3);
}

/* ---- from the ledger to the relay ---- */

static void set_view(void)
{
    struct told told = {0};

    wait_for(&told, td_redis_command(redis, (struct td_arg[]){TD_ARG_STR("SET"), TD_ARG_STR("td:{view}"), TD_ARG_STR("0 test")}, 3,
                                     on_told, &told));
}

static long long sum_of(const char *relay, const char *kind)
{
    char key[64], field[40];
    struct told told = {0};
    long long sum = 0;
    unsigned long long hour = (unsigned long long)td_wall_ms() / HOUR_MS;

    snprintf(key, sizeof(key), "td:{r:%s}:hours", relay);
    for (int i = -1; i <= 24; i++) {
        snprintf(field, sizeof(field), "%llu %s", hour - (unsigned long long)i, kind);
        told = (struct told){0};
        sum += wait_for(&told, td_redis_command(redis, (struct td_arg[]){TD_ARG_STR("HGET"), TD_ARG_STR(key), TD_ARG_STR(field)}, 3,
                                                on_told, &told))
                   .number;
    }
    return sum;
}

struct noting {
    struct told told;
    struct hours *hours;
    const char *campaign;
};

static void on_ended(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct noting *noting = user;

    hours_note(noting->hours, noting->campaign, td_reply_at(reply, TD_ENDED_HOURS));
    on_told(&noting->told, reply, err);
}

static void end_mails(struct hours *hours, const char *campaign, const struct td_ended *ended, size_t n)
{
    struct noting noting = {.hours = hours, .campaign = campaign};

    wait_for(&noting.told, td_ledger_end(redis, campaign, ended, n, on_ended, &noting));
}

static void flush(struct hours *hours)
{
    for (int i = 0; i < 100 && (i == 0 || hours_waiting(hours)); i++) {
        hours_flush(hours);
        loop_for(&loop, 10);
    }
    assert_int_equal(hours_waiting(hours), 0);
}

static void tell_texts(const char *campaign, const struct told *from)
{
    for (size_t i = 0; i < from->texts; i++) {
        struct told told = {0};

        wait_for(&told, td_relay_count(redis, campaign, from->text[i], on_told, &told));
    }
}

static void what_the_ledger_counts_reaches_the_relay_once(void **unused)
{
    struct hours *hours = hours_new(redis);
    struct td_ended ended[100];
    struct told told = {0};

    (void)unused;
    set_view();
    for (uint32_t i = 0; i < COUNT(ended); i++)
        ended[i] = (struct td_ended){i, i < 10 ? "refused" : "accepted", "ledger", "o", 1};
    ended[9].relay = ""; /* refused, but not because the address takes no mail */
    end_mails(hours, "x", ended, COUNT(ended));
    end_mails(hours, "x", ended, COUNT(ended)); /* the answer was lost: asked again */
    flush(hours);
    assert_int_equal(sum_of("ledger", "a"), 99);
    assert_int_equal(sum_of("ledger", "h"), 9);
    end_mails(hours, "y", ended, COUNT(ended)); /* another campaign */
    flush(hours);
    assert_int_equal(sum_of("ledger", "a"), 198);

    for (int twice = 0; twice < 2; twice++) { /* a report that is settled twice; the first time nobody told the relay */
        told = (struct told){0};
        wait_for(&told, td_ledger_bounce(redis, "x", 50, "ledger", "hard", on_told, &told));
        assert_int_equal(told.number, twice == 0);
        assert_int_equal(told.texts, 1);
    }
    assert_int_equal(sum_of("ledger", "h"), 18);
    tell_texts("x", &told);
    assert_int_equal(sum_of("ledger", "h"), 19);
    tell_texts("x", &told);
    assert_int_equal(sum_of("ledger", "h"), 19);

    told = (struct told){0};
    wait_for(&told, td_ledger_bounce(redis, "x", 51, "ledger", "soft", on_told, &told));
    assert_int_equal(told.texts, 0);
    told = (struct told){0};
    wait_for(&told, td_ledger_bounce(redis, "early", 51, "ledger", "hard", on_told, &told));
    assert_int_equal(told.texts, 1); /* it has overtaken the outcome of its mail */
    told = (struct told){0};
    wait_for(&told, td_redis_command(redis, (struct td_arg[]){TD_ARG_STR("HSET"), TD_ARG_STR("td:{c:late}:totals"),
                                                              TD_ARG_STR("accepted:ledger"), TD_ARG_STR("100")},
                                     4, on_told, &told));
    told = (struct told){0};
    wait_for(&told, td_ledger_bounce(redis, "late", 51, "ledger", "hard", on_told, &told));
    assert_int_equal(told.texts, 0); /* the relay took nothing of this campaign within the window */
    hours_free(hours);
}

static void after_a_loss_the_window_is_rebuilt_with_its_times(void **unused)
{
    static struct td_fact facts[240];
    int64_t now = td_wall_ms();
    struct told told = {0};

    (void)unused;
    wait_for(&told, td_redis_command(redis, (struct td_arg[]){TD_ARG_STR("FLUSHALL")}, 1, on_told, &told));
    for (uint32_t i = 0; i < 200; i++) /* half of them are too old */
        facts[i] = (struct td_fact){i, "accepted", "rebuilt", NULL, now - (i < 100 ? 30 : 2) * (int64_t)HOUR_MS};
    for (uint32_t i = 0; i < 20; i++)
        facts[200 + i] = (struct td_fact){i, "hard", "rebuilt", NULL, now};
    for (uint32_t i = 0; i < 20; i++)
        facts[220 + i] = (struct td_fact){300 + i, "refused", i < 5 ? "rebuilt" : "", NULL, now - (int64_t)HOUR_MS};
    for (int twice = 0; twice < 2; twice++) {
        told = (struct told){0};
        wait_for(&told, td_ledger_restore(redis, "x", -1, facts, COUNT(facts), on_told, &told));
        assert_true(twice ? told.number == 0 && told.texts == 0 : told.texts >= 3);
        tell_texts("x", &told);
        assert_int_equal(sum_of("rebuilt", "a"), 105);
        assert_int_equal(sum_of("rebuilt", "h"), 25);
    }
    set_view();
}

static void what_is_no_total_is_refused(void **unused)
{
    static const char *const text[] = {"", "ses", "ses 1 x 2", "ses 1 a", "ses -1 a 1", "{r} 1 a 2", "ses 1 a x", "SES 1 a 1"};

    (void)unused;
    for (size_t i = 0; i < COUNT(text); i++)
        assert_int_equal(td_relay_count(redis, "x", text[i], NULL, NULL), TD_EINVAL);
    assert_int_equal(td_relay_count(redis, "no campaign", "ses 1 a 1", NULL, NULL), TD_EINVAL);
}

/* ---- the module ---- */

static void all_dispatchers_hear_of_a_level_and_one_tells(void **unused)
{
    struct dispatcher a, b;
    struct td_settings settings = settings_for("levels");
    struct fleet now = {.relay = "levels", .now = (unsigned long long)td_wall_ms()};

    (void)unused;
    dispatcher_open(&a, &settings, redis);
    dispatcher_open(&b, &settings, redis);
    assert_true(loop_until(&loop, &a.fit, 2000));
    assert_true(loop_until(&loop, &b.fit, 2000));
    count(&now, 0, "a", "x", 1000);
    count(&now, 0, "h", "x", 60);
    loop_for(&loop, 1000);
    assert_int_equal(a.level, BOUNCES_THROTTLE);
    assert_int_equal(b.level, BOUNCES_THROTTLE);
    assert_int_equal(a.levels_told + b.levels_told, 1);
    assert_int_equal(health_view(a.health, 0)->bounce_hard, 60);
    assert_true(a.fit && b.fit);
    health_free(a.health);
    health_free(b.health);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_total_told_again_or_late_adds_nothing),
        cmocka_unit_test(the_level_is_raised_only_when_it_is_sure),
        cmocka_unit_test(small_campaigns_count_together_and_one_dispatcher_tells),
        cmocka_unit_test(it_comes_down_a_level_at_a_time_and_does_not_flap),
        cmocka_unit_test(a_window_that_empties_lets_bulk_back),
        cmocka_unit_test(an_operator_lets_bulk_back_and_it_is_counted_anew),
        cmocka_unit_test(what_the_ledger_counts_reaches_the_relay_once),
        cmocka_unit_test(after_a_loss_the_window_is_rebuilt_with_its_times),
        cmocka_unit_test(what_is_no_total_is_refused),
        cmocka_unit_test(all_dispatchers_hear_of_a_level_and_one_tells),
    };

    return cmocka_run_group_tests(tests, group_start, group_end);
}
