/* Relay health: relay_report.lua and relay_set.lua against a real redis-server, with a clock of our own. */
#include "health_fleet.h"

#include "tandem/rng.h"

static void three_connection_failures_in_a_row_open_it(void **unused)
{
    struct fleet fleet = fleet_of("row");

    (void)unused;
    tell(&fleet, "ok", "1");
    tell(&fleet, "hard", "1", "row", "1", "reason", "down.tls");
    fleet.now += 2000;
    tell(&fleet, "me", "two", "hard", "1", "row", "1", "reason", "down.tls"); /* another dispatcher */
    assert_string_equal(fleet.at.name, "closed");
    fleet.now += 2000;
    tell(&fleet, "hard", "1", "row", "1", "reason", "down.tls");
    assert_string_equal(fleet.at.name, "open");
    assert_string_equal(fleet.at.reason, "down.tls");
    assert_int_equal(fleet.at.changed, 1);
    assert_true(fleet.at.share < 0.001);
    assert_int_equal(fleet.at.next, fleet.now + 1000);
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.changed, 0); /* only the first hears that it changed it */
}

static void a_success_between_or_more_than_five_seconds_do_not(void **unused)
{
    struct fleet fleet = fleet_of("norow");

    (void)unused;
    for (int i = 0; i < 10; i++) {
        tell(&fleet, "hard", "2", "row", "2", "reason", "down.reset");
        tell(&fleet, "ok", "10");
        fleet.now += 100;
    }
    assert_string_equal(fleet.at.name, "closed");
    for (int i = 0; i < 10; i++) {
        tell(&fleet, "hard", "1", "row", "1", "reason", "down.connect");
        fleet.now += 2600;
    }
    assert_string_equal(fleet.at.name, "closed");
}

static void a_refused_connection_opens_it_unless_something_was_just_accepted(void **unused)
{
    struct fleet fleet = fleet_of("refused");

    (void)unused;
    tell(&fleet, "ok", "1");
    fleet.now += 900;
    tell(&fleet, "hard", "1", "row", "1", "refused", "1", "reason", "down.refused");
    assert_string_equal(fleet.at.name, "closed");
    fleet.now += 300;
    tell(&fleet, "hard", "1", "row", "1", "refused", "1", "reason", "down.refused");
    assert_string_equal(fleet.at.name, "open");
}

static void a_silence_opens_it_when_nobody_was_served_since_it_began(void **unused)
{
    struct fleet fleet = fleet_of("silent");

    (void)unused;
    tell(&fleet, "ok", "9", "ok_ago", "200"); /* 200 ms before this report */
    fleet.now += 500;
    tell(&fleet, "me", "two", "hard", "1", "row", "1", "silent", "650", "reason", "down.silent");
    assert_string_equal(fleet.at.name, "open"); /* served 700 ms ago, silent for 650 */
    assert_string_equal(fleet.at.reason, "down.silent");
}

static void a_silence_while_others_are_served_is_its_own_affair(void **unused)
{
    struct fleet fleet = fleet_of("cut");

    (void)unused;
    tell(&fleet, "me", "two", "hard", "1", "row", "1", "silent", "700", "reason", "down.silent"); /* with nobody else */
    assert_string_equal(fleet.at.name, "open");

    fleet = fleet_of("cut2");
    tell(&fleet, "ok", "9", "ok_ago", "10");
    for (int i = 0; i < 10; i++) { /* its silence grows, while another one sends 4 mails a second */
        char silent[24];

        snprintf(silent, sizeof(silent), "%d", 600 + i * 250);
        tell(&fleet, "me", "two", "hard", i == 0 ? "1" : "0", "row", i == 0 ? "1" : "0", "silent", silent, "reason", "down.silent");
        if (strcmp(fleet.at.name, "closed") != 0)
            fail_msg("%s after %d: %s, %s", fleet.at.name, i, fleet.at.reason, fleet.at.evidence);
        fleet.now += 125;
        tell(&fleet, "ok", "1", "ok_ago", "100");
        fleet.now += 125;
    }
    fleet.now += 1000; /* the other one is not served either */
    tell(&fleet, "me", "two", "silent", "2900", "reason", "down.silent");
    assert_string_equal(fleet.at.name, "open");
}

static void fatal_evidence_opens_it_at_once(void **unused)
{
    struct fleet fleet = fleet_of("fatal");

    (void)unused;
    tell(&fleet, "ok", "500", "fatal", "1", "reason", "down.account");
    assert_string_equal(fleet.at.name, "open");
    assert_string_equal(fleet.at.reason, "down.account");
}

static void a_rate_opens_it_only_when_it_is_sure(void **unused)
{
    static const struct {
        const char *relay, *ok, *hard, *state;
    } row[] = {{"w19", "0", "19", "closed"},   {"w20a", "9", "11", "open"},    {"w20b", "10", "10", "closed"},
               {"w40a", "22", "18", "open"},   {"w40b", "23", "17", "closed"}, {"w100a", "60", "40", "open"},
               {"w100b", "62", "38", "closed"}};

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) { /* hard without row: replies, not connections */
        struct fleet fleet = fleet_of(row[i].relay);

        tell(&fleet, "ok", row[i].ok, "hard", row[i].hard, "reason", "down.reply");
        if (strcmp(fleet.at.name, row[i].state) != 0)
            fail_msg("%s is %s", row[i].relay, fleet.at.name);
    }
}

static void failures_older_than_thirty_seconds_do_not_count(void **unused)
{
    struct fleet fleet = fleet_of("window");

    (void)unused;
    tell(&fleet, "hard", "10", "reason", "down.reply");
    fleet.now += 15000;
    tell(&fleet, "hard", "5", "reason", "down.reply");
    fleet.now += 16000;
    tell(&fleet, "hard", "14", "reason", "down.reply"); /* 19 in the window */
    assert_string_equal(fleet.at.name, "closed");
    tell(&fleet, "hard", "1", "reason", "down.reply");
    assert_string_equal(fleet.at.name, "open");
}

static void evidence_of_an_older_epoch_is_ignored(void **unused)
{
    struct fleet fleet = fleet_of("epoch");
    unsigned long long old = fleet.at.epoch;
    char epoch[24];

    (void)unused;
    set_relay(&fleet, "drain", "0");
    set_relay(&fleet, "enable", "0");
    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "half-open");
    snprintf(epoch, sizeof(epoch), "%llu", old);
    run_report(&fleet, (const char *const[]){"fatal", "5", "hard", "50", "reason", "down.late", NULL}, epoch);
    assert_string_equal(fleet.at.name, "half-open");
}

static void with_no_relay_fit_it_is_tried_every_two_seconds(void **unused)
{
    struct fleet fleet = fleet_of("hold");
    char epoch[24];

    (void)unused;
    for (int i = 0; i < 6; i++) { /* down, and found down again at every trial: waits of 1, 2, 4 ... s */
        tell(&fleet, "fatal", "1", "reason", "down.auth");
        fleet.now += 100000;
        tell(&fleet, "ok", "0");
        assert_string_equal(fleet.at.name, "half-open");
    }
    tell(&fleet, "fatal", "1", "reason", "down.auth");
    fleet.now += 2500;
    tell(&fleet, "hold", "0");
    assert_string_equal(fleet.at.name, "open"); /* another one is fit: as long as planned */
    for (int i = 0; i < 5; i++) {
        long long due = fleet.at.next;

        tell(&fleet, "hold", "1", "can", "1");
        assert_string_equal(fleet.at.name, "half-open");
        assert_int_equal(fleet.at.probe, 1);
        snprintf(epoch, sizeof(epoch), "%llu", fleet.at.epoch);
        tell(&fleet, "hold", "1", "probe", "bad", "probe_epoch", epoch, "reason", "down.auth");
        assert_string_equal(fleet.at.name, "open");
        assert_int_equal(fleet.at.next, due); /* trying early has cost nothing */
        fleet.now += 1900;
        tell(&fleet, "hold", "1");
        assert_string_equal(fleet.at.name, "open");
        fleet.now += 200;
    }
}

/* From open to where mails are granted. */
static void probe_through(struct fleet *fleet)
{
    while (strcmp(fleet->at.name, "open") == 0) {
        fleet->now += 100;
        tell(fleet, "ok", "0");
    }
    for (int i = 0; i < 2; i++) {
        char epoch[24];

        tell(fleet, "can", "1");
        assert_int_equal(fleet->at.probe, 1);
        snprintf(epoch, sizeof(epoch), "%llu", fleet->at.epoch);
        tell(fleet, "probe", "well", "probe_epoch", epoch);
    }
    assert_string_equal(fleet->at.name, "half-open");
}

static void one_process_probes_and_mail_comes_after_two_good_ones(void **unused)
{
    struct fleet fleet = fleet_of("probe");
    char epoch[24];

    (void)unused;
    tell(&fleet, "fatal", "1", "reason", "down.x");
    fleet.now += 999;
    tell(&fleet, "can", "1", "want", "5");
    assert_string_equal(fleet.at.name, "open");
    fleet.now += 1;
    tell(&fleet, "can", "1", "want", "5");
    assert_string_equal(fleet.at.name, "half-open");
    assert_int_equal(fleet.at.probe, 1);
    assert_int_equal(fleet.at.grants, 0);
    tell(&fleet, "me", "two", "can", "1");
    assert_int_equal(fleet.at.probe, 0); /* the fleet's probe is out */
    fleet.now += 5000;
    tell(&fleet, "me", "two", "can", "1");
    assert_int_equal(fleet.at.probe, 1); /* its holder has died */
    snprintf(epoch, sizeof(epoch), "%llu", fleet.at.epoch);
    tell(&fleet, "probe", "well", "probe_epoch", epoch); /* of the holder before: does not count */
    tell(&fleet, "me", "two", "probe", "well", "probe_epoch", epoch, "can", "1", "want", "5");
    assert_int_equal(fleet.at.probe, 1);
    assert_int_equal(fleet.at.grants, 0);
    tell(&fleet, "me", "two", "probe", "well", "probe_epoch", epoch, "want", "3");
    assert_int_equal(fleet.at.grants, 3);
    tell(&fleet, "want", "9");
    assert_int_equal(fleet.at.grants, 2); /* five a second for all */
    tell(&fleet, "want", "9");
    assert_int_equal(fleet.at.grants, 0);
    fleet.now += 1000;
    tell(&fleet, "want", "9");
    assert_int_equal(fleet.at.grants, 5);
}

static void twenty_successes_close_it_and_its_share_ramps(void **unused)
{
    struct fleet fleet = fleet_of("ramp");

    (void)unused;
    tell(&fleet, "fatal", "1", "reason", "down.x");
    probe_through(&fleet);
    for (int i = 0; i < 4; i++) {
        tell(&fleet, "want", "5");
        assert_int_equal(fleet.at.grants, 5);
        fleet.now += i < 2 ? 1000 : 400; /* not yet 3 s on trial */
        if (i >= 2)
            fleet.now = (fleet.now / 1000 + 1) * 1000;
        if (i < 3)
            tell(&fleet, "ok", "5");
        if (strcmp(fleet.at.name, "closed") == 0)
            break;
    }
    tell(&fleet, "ok", "5");
    assert_string_equal(fleet.at.name, "closed");
    assert_true(fleet.at.share < 0.11);
    fleet.now += 5000;
    tell(&fleet, "ok", "0");
    assert_true(fleet.at.share > 0.54 && fleet.at.share < 0.56);
    fleet.now += 5000;
    tell(&fleet, "ok", "0");
    assert_true(fleet.at.share > 0.999);
}

static void at_low_traffic_three_over_three_seconds_close_it(void **unused)
{
    struct fleet fleet = fleet_of("low");

    (void)unused;
    tell(&fleet, "fatal", "1", "reason", "down.x");
    probe_through(&fleet);
    tell(&fleet, "want", "5");
    tell(&fleet, "ok", "2", "used", "2");
    fleet.now += 3000;
    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "half-open"); /* two are not enough */
    tell(&fleet, "ok", "1", "used", "1");
    assert_string_equal(fleet.at.name, "closed");
}

static void without_any_mail_it_closes_after_a_minute(void **unused)
{
    struct fleet fleet = fleet_of("idle");

    (void)unused;
    tell(&fleet, "fatal", "1", "reason", "down.x");
    probe_through(&fleet);
    tell(&fleet, "want", "2");
    fleet.now += 59000;
    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "half-open");
    fleet.now += 1000;
    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "closed");
}

static void a_mail_without_answer_keeps_it_on_trial(void **unused)
{
    struct fleet fleet = fleet_of("hang");

    (void)unused;
    tell(&fleet, "fatal", "1", "reason", "down.x");
    probe_through(&fleet);
    tell(&fleet, "want", "1");
    tell(&fleet, "used", "1");
    fleet.now += 120000;
    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "half-open");
}

static void a_failure_on_trial_waits_longer(void **unused)
{
    struct fleet fleet = fleet_of("longer");
    long long wait[8];
    char epoch[24];

    (void)unused;
    tell(&fleet, "fatal", "1", "reason", "down.x");
    for (int i = 0; i < 8; i++) {
        wait[i] = fleet.at.next - (long long)fleet.now;
        fleet.now = (unsigned long long)fleet.at.next;
        tell(&fleet, "can", "1");
        assert_int_equal(fleet.at.probe, 1);
        snprintf(epoch, sizeof(epoch), "%llu", fleet.at.epoch);
        tell(&fleet, "probe", "bad", "probe_epoch", epoch, "reason", "down.connect");
        assert_string_equal(fleet.at.name, "open");
    }
    for (int i = 0; i < 8; i++)
        assert_int_equal(wait[i], i < 6 ? 1000 << i : 60000);
}

static void busy_cuts_the_rate_and_it_creeps_back_within_a_minute(void **unused)
{
    struct fleet fleet = fleet_of("busy");
    unsigned seconds = 0;

    (void)unused;
    tell(&fleet, "soft", "9", "ok", "10", "reason", "overloaded.rate");
    assert_string_equal(fleet.at.name, "limited");
    assert_true(fleet.at.factor > 0.699 && fleet.at.factor < 0.701);
    assert_true(fleet.at.share > 0.999);
    fleet.now += 400;
    tell(&fleet, "soft", "9", "reason", "overloaded.rate");
    assert_true(fleet.at.factor > 0.699 && fleet.at.factor < 0.72); /* once per 500 ms, whoever reports */
    fleet.now += 200;
    tell(&fleet, "soft", "9", "reason", "overloaded.rate");
    assert_true(fleet.at.factor > 0.48 && fleet.at.factor < 0.51);
    while (strcmp(fleet.at.name, "limited") == 0 && seconds < 100) {
        seconds++;
        for (int i = 0; i < 4; i++) {
            fleet.now += 250;
            tell(&fleet, "ok", "20");
        }
    }
    assert_in_range(seconds, 20, 30);
    assert_string_equal(fleet.at.name, "closed");
    assert_true(fleet.at.factor > 0.999);
}

static void busy_at_the_floor_for_half_a_minute_opens_it(void **unused)
{
    struct fleet fleet = fleet_of("floor");
    unsigned long long from;
    bool floored = false;

    (void)unused;
    for (from = fleet.now; fleet.now - from < 90000 && strcmp(fleet.at.name, "open") != 0; fleet.now += 250) {
        tell(&fleet, "soft", "2", "ok", "2", "reason", "overloaded.rate");
        floored = floored || fleet.at.factor < 0.051;
    }
    assert_true(floored);
    assert_string_equal(fleet.at.name, "open");
    assert_string_equal(fleet.at.reason, "overloaded.sustained");
    assert_in_range(fleet.now - from, 30000, 45000);
}

static void a_relay_with_room_for_most_of_the_rate_is_never_opened(void **unused)
{
    struct fleet fleet = fleet_of("partly");
    double low = 1, high = 0;

    (void)unused;
    for (unsigned i = 0; i < 4 * 300; i++) { /* five minutes; it takes 60 % of the rate */
        fleet.now += 250;
        tell(&fleet, "soft", fleet.at.factor > 0.6 ? "3" : "0", "ok", "30", "reason", "overloaded.rate");
        if (i > 40) {
            low = fleet.at.factor < low ? fleet.at.factor : low;
            high = fleet.at.factor > high ? fleet.at.factor : high;
        }
    }
    assert_string_equal(fleet.at.name, "limited");
    assert_true(low > 0.4 && high < 0.65);
}

static void a_tarpit_is_cut_and_then_opened(void **unused)
{
    struct fleet fleet = fleet_of("tarpit");

    (void)unused;
    tell(&fleet, "ok", "18", "latencies", "18", "slow", "18");
    assert_string_equal(fleet.at.name, "closed"); /* too few */
    tell(&fleet, "ok", "82", "latencies", "82", "slow", "0");
    tell(&fleet, "ok", "2", "latencies", "2", "slow", "1");
    assert_string_equal(fleet.at.name, "limited");
    assert_string_equal(fleet.at.reason, "overloaded.latency");
    tell(&fleet, "ok", "60", "latencies", "60", "slow", "60");
    assert_string_equal(fleet.at.name, "open");
}

static void a_used_up_quota_sets_it_aside_and_asks_with_one_mail_every_ten_minutes(void **unused)
{
    struct fleet fleet = fleet_of("quota");

    (void)unused;
    tell(&fleet, "exhausted", "3", "reason", "overloaded.quota");
    assert_string_equal(fleet.at.name, "exhausted");
    tell(&fleet, "ok", "5", "want", "1"); /* those under way at that moment prove nothing */
    assert_string_equal(fleet.at.name, "exhausted");
    assert_int_equal(fleet.at.grants, 0);
    fleet.now += 600000;
    tell(&fleet, "want", "1");
    assert_int_equal(fleet.at.grants, 1);
    tell(&fleet, "me", "two", "want", "1");
    assert_int_equal(fleet.at.grants, 0);
    tell(&fleet, "exhausted", "1", "reason", "overloaded.quota");
    assert_int_equal(fleet.at.next, fleet.now + 600000);
    fleet.now += 600000;
    tell(&fleet, "want", "1");
    assert_int_equal(fleet.at.grants, 1);
    tell(&fleet, "ok", "1");
    assert_string_equal(fleet.at.name, "half-open");
    tell(&fleet, "want", "5");
    assert_true(fleet.at.grants > 0);
    tell(&fleet, "exhausted", "1", "reason", "overloaded.quota");
    fleet.now += 3600000;
    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "half-open"); /* an hour is over */
}

static void a_paused_account_waits_for_a_mail_or_an_operator(void **unused)
{
    struct fleet fleet = fleet_of("paused");

    (void)unused;
    tell(&fleet, "paused", "1", "reason", "down.paused");
    assert_string_equal(fleet.at.name, "paused");
    for (int i = 0; i < 24; i++) { /* no countdown ends it */
        fleet.now += 3600000;
        tell(&fleet, "ok", "0");
        assert_string_equal(fleet.at.name, "paused");
    }
    tell(&fleet, "want", "1");
    assert_int_equal(fleet.at.grants, 1);
    tell(&fleet, "paused", "1", "reason", "down.paused");
    assert_string_equal(fleet.at.name, "paused");
    set_relay(&fleet, "enable", "0");
    tell(&fleet, "can", "1");
    assert_string_equal(fleet.at.name, "half-open");
    assert_int_equal(fleet.at.probe, 1);
}

static void one_dispatcher_tells_of_what_an_operator_did(void **unused)
{
    struct fleet fleet = fleet_of("told");

    (void)unused;
    set_relay(&fleet, "drain", "0");
    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "paused");
    assert_int_equal(fleet.at.changed, 1);
    tell(&fleet, "me", "two", "ok", "0");
    assert_int_equal(fleet.at.changed, 0);
    set_relay(&fleet, "enable", "0");
    tell(&fleet, "me", "two", "ok", "0");
    assert_int_equal(fleet.at.changed, 1);
    tell(&fleet, "ok", "0");
    assert_int_equal(fleet.at.changed, 0);
}

static void a_drained_relay_stays_so_until_enabled(void **unused)
{
    struct fleet fleet = fleet_of("drain");

    (void)unused;
    set_relay(&fleet, "drain", "0");
    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "paused");
    assert_string_equal(fleet.at.reason, "operator.drain");
    fleet.now += 3600000;
    tell(&fleet, "want", "5", "can", "1", "paused", "1", "exhausted", "1", "fatal", "1", "reason", "x");
    assert_string_equal(fleet.at.name, "paused");
    assert_string_equal(fleet.at.reason, "operator.drain");
    assert_int_equal(fleet.at.grants + fleet.at.probe, 0);
    set_relay(&fleet, "enable", "0");
    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "half-open");
    set_relay(&fleet, "pause", "60000");
    fleet.now += 59999;
    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "paused");
    fleet.now += 1;
    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "half-open");
}

static void with_redis_emptied_the_last_known_state_is_taken_up(void **unused)
{
    static const struct {
        const char *relay, *known, *then;
    } row[] = {{"lost1", "open", "open"},     {"lost2", "half-open", "open"}, {"lost3", "exhausted", "exhausted"},
               {"lost4", "paused", "paused"}, {"lost5", "closed", "closed"},  {"lost6", "limited", "closed"}};

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct fleet fleet = {.relay = row[i].relay, .now = T0};

        run_report(&fleet, (const char *const[]){"state", row[i].known, "reason", "down.before", NULL}, "41");
        assert_string_equal(fleet.at.name, row[i].then);
        assert_true(fleet.at.epoch > 41);
        assert_true(fleet.at.share < 0.11); /* a well one ramps */
    }
}

static void a_server_clock_set_back_does_not_keep_it_open(void **unused)
{
    struct fleet fleet = fleet_of("clock");

    (void)unused;
    tell(&fleet, "fatal", "1", "reason", "down.x");
    fleet.now -= 7200000;
    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "half-open");
}

/* Half an hour of ten seconds up, ten down, one dispatcher at 20 mails a second that reports every 250 ms. Mail
 * that it gives this relay is accepted while it is up, refused otherwise. */
static unsigned switches_while_flapping(const char *relay, uint64_t seed, unsigned *ret_accepted)
{
    struct fleet fleet = fleet_of(relay);
    unsigned long long from = fleet.now;
    unsigned switches = 0;
    bool was_fit = true, probing = false;
    unsigned long long probe_epoch = 0, grants = 0;
    struct td_rng rng;

    td_rng_seed(&rng, seed);
    *ret_accepted = 0;
    for (; fleet.now - from < 1800000; fleet.now += 250) {
        bool up = (fleet.now - from) / 10000 % 2 == 0;
        bool fit = strcmp(fleet.at.name, "closed") == 0 || strcmp(fleet.at.name, "limited") == 0;
        unsigned mails = fit ? 5 : grants < 5 ? (unsigned)grants : 5;
        char ok[8], bad[8], used[8], want[8], epoch[24], random[16];

        switches += fit != was_fit;
        was_fit = fit;
        *ret_accepted += up ? mails : 0;
        snprintf(ok, sizeof(ok), "%u", up ? mails : 0);
        snprintf(bad, sizeof(bad), "%u", up ? 0 : mails);
        snprintf(used, sizeof(used), "%u", fit ? 0 : mails);
        snprintf(want, sizeof(want), "%u", grants < 2 ? 2 : 0);
        snprintf(epoch, sizeof(epoch), "%llu", probe_epoch);
        snprintf(random, sizeof(random), "0.%04u", (unsigned)td_rng_below(&rng, 10000));
        grants -= fit ? 0 : mails;
        tell(&fleet, "ok", ok, "hard", bad, "row", bad, "refused", bad, "reason", "down.refused", "used", used,
             "want", want, "can", probing ? "0" : "1", "probe", probing ? (up ? "well" : "bad") : "",
             "probe_epoch", epoch, "random", random);
        probing = fleet.at.probe == 1;
        probe_epoch = fleet.at.epoch;
        grants = strcmp(fleet.at.name, "half-open") == 0 ? grants + (unsigned long long)fleet.at.grants : 0;
    }
    return switches;
}

static void a_flapping_relay_switches_at_most_twelve_times_in_half_an_hour(void **unused)
{
    static const char *const relay[] = {"flap1", "flap2", "flap3"};
    unsigned accepted;

    (void)unused;
    for (size_t i = 0; i < COUNT(relay); i++) {
        unsigned switches = switches_while_flapping(relay[i], i + 1, &accepted);

        if (switches > 12 || switches < 3 || accepted < 200)
            fail_msg("%u switches, %u accepted with seed %zu", switches, accepted, i + 1);
    }
}

static void failures_are_forgiven_one_every_ten_healthy_minutes(void **unused)
{
    struct fleet fleet = fleet_of("forgive");

    (void)unused;
    for (int round = 0; round < 3; round++) { /* three short-lived returns: relapses */
        tell(&fleet, "fatal", "1", "reason", "down.x");
        probe_through(&fleet);
        tell(&fleet, "want", "5");
        fleet.now += 3000;
        tell(&fleet, "ok", "5");
        assert_string_equal(fleet.at.name, "closed");
    }
    fleet.now += 30000;
    tell(&fleet, "fatal", "1", "reason", "down.x");
    assert_int_equal(fleet.at.next - (long long)fleet.now, 8000 << 3); /* opens 4, relapses 3 */
    probe_through(&fleet);
    tell(&fleet, "want", "5");
    fleet.now += 3000;
    tell(&fleet, "ok", "5");
    for (int i = 0; i < 5; i++) {
        fleet.now += 600000;
        tell(&fleet, "ok", "1");
    }
    tell(&fleet, "fatal", "1", "reason", "down.x");
    assert_int_equal(fleet.at.next - (long long)fleet.now, 1000); /* as if it had never failed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_connection_failures_in_a_row_open_it),
        cmocka_unit_test(a_success_between_or_more_than_five_seconds_do_not),
        cmocka_unit_test(a_refused_connection_opens_it_unless_something_was_just_accepted),
        cmocka_unit_test(a_silence_opens_it_when_nobody_was_served_since_it_began),
        cmocka_unit_test(a_silence_while_others_are_served_is_its_own_affair),
        cmocka_unit_test(fatal_evidence_opens_it_at_once),
        cmocka_unit_test(a_rate_opens_it_only_when_it_is_sure),
        cmocka_unit_test(failures_older_than_thirty_seconds_do_not_count),
        cmocka_unit_test(evidence_of_an_older_epoch_is_ignored),
        cmocka_unit_test(one_process_probes_and_mail_comes_after_two_good_ones),
        cmocka_unit_test(twenty_successes_close_it_and_its_share_ramps),
        cmocka_unit_test(at_low_traffic_three_over_three_seconds_close_it),
        cmocka_unit_test(without_any_mail_it_closes_after_a_minute),
        cmocka_unit_test(a_mail_without_answer_keeps_it_on_trial),
        cmocka_unit_test(a_failure_on_trial_waits_longer),
        cmocka_unit_test(busy_cuts_the_rate_and_it_creeps_back_within_a_minute),
        cmocka_unit_test(busy_at_the_floor_for_half_a_minute_opens_it),
        cmocka_unit_test(a_relay_with_room_for_most_of_the_rate_is_never_opened),
        cmocka_unit_test(with_no_relay_fit_it_is_tried_every_two_seconds),
        cmocka_unit_test(a_tarpit_is_cut_and_then_opened),
        cmocka_unit_test(a_used_up_quota_sets_it_aside_and_asks_with_one_mail_every_ten_minutes),
        cmocka_unit_test(a_paused_account_waits_for_a_mail_or_an_operator),
        cmocka_unit_test(one_dispatcher_tells_of_what_an_operator_did),
        cmocka_unit_test(a_drained_relay_stays_so_until_enabled),
        cmocka_unit_test(with_redis_emptied_the_last_known_state_is_taken_up),
        cmocka_unit_test(a_server_clock_set_back_does_not_keep_it_open),
        cmocka_unit_test(a_flapping_relay_switches_at_most_twelve_times_in_half_an_hour),
        cmocka_unit_test(failures_are_forgiven_one_every_ten_healthy_minutes),
    };

    return cmocka_run_group_tests(tests, group_start, group_end);
}
