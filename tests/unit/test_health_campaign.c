/* The bounces of one campaign at one relay: when it leaves, and when it is held. */
#include "health_dispatcher.h"

#include "health_campaign.h"

static void on_done(void *user, const struct td_reply *reply, const struct td_err *err)
{
    (void)reply;
    assert_null(err);
    *(bool *)user = true;
}

static void on_number(void *user, const struct td_reply *reply, const struct td_err *err)
{
    assert_null(err);
    *(long long *)user = td_reply_int(reply);
}

static void set_all(const char *campaign, const char *accepted, const char *refused, const char *hard)
{
    char key[96];
    bool done = false;

    snprintf(key, sizeof(key), "td:{c:%s}:totals", campaign);
    td_redis_command(redis,
                     (struct td_arg[]){TD_ARG_STR("HSET"), TD_ARG_STR(key), TD_ARG_STR("accepted:bounce"), TD_ARG_STR(accepted),
                                       TD_ARG_STR("refused:bounce"), TD_ARG_STR(refused), TD_ARG_STR("hard:bounce"),
                                       TD_ARG_STR(hard)},
                     8, on_done, &done);
    assert_true(loop_until(&loop, &done, 2000));
}

static void set_totals(const char *campaign, const char *accepted, const char *hard)
{
    set_all(campaign, accepted, "0", hard);
}

static bool fit_after(struct health *health, const char *campaign, unsigned ms)
{
    health_campaign_fit(health, 0, campaign, 500);
    loop_for(&loop, ms);
    return health_campaign_fit(health, 0, campaign, 500);
}

static void a_campaign_that_bounces_too_much_leaves_the_relay(void **unused)
{
    static const struct {
        const char *campaign, *accepted, *hard;
        bool fit;
    } row[] = {{"few", "99", "99", true},       {"n100ok", "100", "9", true},      {"n100bad", "100", "10", false},
               {"n1000ok", "1000", "63", true}, {"n1000bad", "1000", "64", false}, {"none", "0", "0", true}};
    struct dispatcher a, b;
    struct td_settings settings = settings_for("bounce");

    (void)unused;
    dispatcher_open(&a, &settings, redis);
    assert_true(loop_until(&loop, &a.fit, 2000));
    for (size_t i = 0; i < COUNT(row); i++) {
        set_totals(row[i].campaign, row[i].accepted, row[i].hard);
        assert_true(health_campaign_fit(a.health, 0, row[i].campaign, 500)); /* unknown yet */
        if (fit_after(a.health, row[i].campaign, 100) != row[i].fit)
            fail_msg("%s", row[i].campaign);
    }
    set_totals("n100bad", "5000", "10"); /* sticky, whatever comes */
    assert_false(fit_after(a.health, "n100bad", 1300));
    dispatcher_open(&b, &settings, redis);
    assert_false(fit_after(b.health, "n100bad", 100)); /* and all dispatchers agree */
    assert_true(health_campaign_fit(a.health, 0, "not a campaign id", 500));
    health_free(a.health);
    health_free(b.health);
}

/* Of what the relay had a final word on: taken or refused for the address. Reports are about what was taken. */
static void refusals_and_reports_count_together(void **unused)
{
    static const struct {
        const char *campaign, *accepted, *refused, *hard;
        bool fit;
    } row[] = {{"all99", "0", "99", "0", true},     {"all100", "0", "100", "0", false},   {"sync9", "91", "9", "0", true},
               {"sync10", "90", "10", "0", false},  {"both9", "95", "5", "4", true},      {"both10", "95", "5", "5", false},
               {"size", "199", "0", "50", true},    {"early", "96", "4", "1000", false},  {"reports", "0", "0", "1000", true}};
    struct dispatcher a;
    struct td_settings settings = settings_for("bounce");

    (void)unused;
    dispatcher_open(&a, &settings, redis);
    assert_true(loop_until(&loop, &a.fit, 2000));
    set_totals("size", "100", "0"); /* tested, and next at 200 */
    assert_true(fit_after(a.health, "size", 100));
    for (size_t i = 0; i < COUNT(row); i++)
        set_all(row[i].campaign, row[i].accepted, row[i].refused, row[i].hard);
    loop_for(&loop, 1100);
    for (size_t i = 0; i < COUNT(row); i++)
        if (fit_after(a.health, row[i].campaign, 100) != row[i].fit)
            fail_msg("%s", row[i].campaign);
    set_all("size", "199", "1", "50"); /* a refusal makes the size full */
    assert_false(fit_after(a.health, "size", 1300));
    assert_non_null(strstr(a.evidence, "51 of 200 bounced hard (1 refused by the relay, 50 reported later), surely above 19.9"));
    assert_non_null(strstr(a.evidence, " %, ceiling 5.00 %")); /* whole */
    health_free(a.health);
}

static long long totals_has(const char *campaign, const char *field)
{
    char key[96];
    long long has = -1;

    snprintf(key, sizeof(key), "td:{c:%s}:totals", campaign);
    td_redis_command(redis, (struct td_arg[]){TD_ARG_STR("HEXISTS"), TD_ARG_STR(key), TD_ARG_STR(field)}, 3, on_number, &has);
    for (int i = 0; i < 100 && has < 0; i++)
        loop_for(&loop, 10);
    return has;
}

static void of_a_campaign_that_leaves_one_dispatcher_tells(void **unused)
{
    struct dispatcher a, b;
    struct td_settings settings = settings_for("bounce");

    (void)unused;
    dispatcher_open(&a, &settings, redis);
    dispatcher_open(&b, &settings, redis);
    assert_true(loop_until(&loop, &a.fit, 2000));
    set_totals("leaves", "1000", "100");
    health_campaign_fit(a.health, 0, "leaves", 0); /* it names no ceiling: the default, 5 % */
    health_campaign_fit(b.health, 0, "leaves", 0);
    loop_for(&loop, 1300);
    assert_false(health_campaign_fit(a.health, 0, "leaves", 0));
    assert_false(health_campaign_fit(b.health, 0, "leaves", 0));
    assert_int_equal(a.campaigns_left + b.campaigns_left, 1);
    assert_non_null(strstr(a.campaigns_left ? a.evidence : b.evidence,
                           "100 of 1000 bounced hard (0 refused by the relay, 100 reported later), surely above 8."));
    health_free(a.health);
    health_free(b.health);
}

static void a_held_campaign_says_so_until_it_has_a_relay_again(void **unused)
{
    struct dispatcher a;
    struct td_settings settings = settings_for("bounce");

    (void)unused;
    dispatcher_open(&a, &settings, redis);
    assert_true(loop_until(&loop, &a.fit, 2000));
    health_campaign_hold(a.health, "unknown", HELD_BOUNCES); /* nobody has asked about it: nothing to hold */
    health_campaign_fit(a.health, 0, "hold", 500);
    health_campaign_hold(a.health, "hold", HELD_BOUNCES);
    health_campaign_hold(a.health, "hold", HELD_BOUNCES);
    assert_int_equal(a.campaigns_held, 1);
    assert_int_equal(totals_has("hold", "held"), 1);
    health_campaign_hold(a.health, "hold", NULL); /* not at once */
    assert_int_equal(a.campaigns_held, 1);
    loop_for(&loop, 1100);
    health_campaign_hold(a.health, "hold", NULL);
    assert_int_equal(a.campaigns_held, 0);
    assert_int_equal(totals_has("hold", "held"), 0);
    health_free(a.health);
}

static void a_rate_is_tested_only_at_growing_sizes(void **unused)
{
    static const uint64_t size[][2] = {{0, 0},       {99, 0},      {100, 100},   {199, 100},      {200, 200},
                                       {399, 200},   {400, 400},   {799, 400},   {800, 800},      {999, 800},
                                       {1000, 1000}, {1999, 1000}, {2000, 2000}, {123456, 123000}};
    struct dispatcher a;
    struct td_settings settings = settings_for("bounce");

    (void)unused;
    for (size_t i = 0; i < COUNT(size); i++)
        assert_int_equal(campaign_test_size(size[i][0]), size[i][1]);
    dispatcher_open(&a, &settings, redis);
    assert_true(loop_until(&loop, &a.fit, 2000));
    set_totals("sizes", "100", "9");
    assert_true(fit_after(a.health, "sizes", 100));
    set_totals("sizes", "150", "50"); /* not a size */
    assert_true(fit_after(a.health, "sizes", 1300));
    set_totals("sizes", "200", "50");
    assert_false(fit_after(a.health, "sizes", 1300));
    health_free(a.health);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_campaign_that_bounces_too_much_leaves_the_relay),
        cmocka_unit_test(refusals_and_reports_count_together),
        cmocka_unit_test(of_a_campaign_that_leaves_one_dispatcher_tells),
        cmocka_unit_test(a_held_campaign_says_so_until_it_has_a_relay_again),
        cmocka_unit_test(a_rate_is_tested_only_at_growing_sizes),
    };

    return cmocka_run_group_tests(tests, group_start, group_end);
}
