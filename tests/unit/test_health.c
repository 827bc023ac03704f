/* Relay health: the scripts with a clock of our own, then the module in real time, against a real redis-server
 * that this program starts on its own port and stops. */
#include "redis_server.h"

#include "health.h"
#include "health_campaign.h"
#include "health_local.h"
#include "tandem/rng.h"
#include "tandem/scripts.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct redis_server server;
static uv_loop_t loop;
static struct td_redis *redis;

/* ---- the script ---- */

struct state {
    bool done;
    char name[16], reason[48], evidence[160];
    unsigned long long epoch, now;
    double share, factor;
    long long grants, probe, changed, next;
};

/* One relay of the fleet as the script sees it, at our time. */
struct fleet {
    const char *relay;
    unsigned long long now; /* ms */
    struct state at;
};

#define T0 1700000000000ull

static void on_state(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct state *state = user;

    if (err)
        fail_msg("%s", err->text);
    state->done = true;
    snprintf(state->name, sizeof(state->name), "%s", td_reply_str(td_reply_at(reply, 0), NULL));
    state->epoch = (unsigned long long)td_reply_int(td_reply_at(reply, 1));
    state->share = strtod(td_reply_str(td_reply_at(reply, 2), NULL), NULL);
    state->factor = strtod(td_reply_str(td_reply_at(reply, 3), NULL), NULL);
    state->grants = td_reply_int(td_reply_at(reply, 4));
    state->probe = td_reply_int(td_reply_at(reply, 5));
    state->next = td_reply_int(td_reply_at(reply, 6));
    snprintf(state->reason, sizeof(state->reason), "%s", td_reply_str(td_reply_at(reply, 7), NULL));
    snprintf(state->evidence, sizeof(state->evidence), "%s", td_reply_str(td_reply_at(reply, 8), NULL));
    state->changed = td_reply_int(td_reply_at(reply, 9));
}

static void run_report(struct fleet *fleet, const char *const *pairs, const char *epoch)
{
    struct td_arg args[48];
    char state_key[64], window_key[64], now[24];
    size_t n = 0;

    snprintf(state_key, sizeof(state_key), "td:{r:%s}:state", fleet->relay);
    snprintf(window_key, sizeof(window_key), "td:{r:%s}:window", fleet->relay);
    snprintf(now, sizeof(now), "%llu", fleet->now);
    const char *const fixed[] = {"now", now,        "epoch", epoch,          "me",    "one",     "random",
                                 "0.5", "probe_ms", "1000",  "probe_max_ms", "60000", "ramp_ms", "10000"};

    for (size_t i = 0; i < COUNT(fixed); i++)
        args[n++] = TD_ARG_STR(fixed[i]);
    for (; *pairs; pairs++)
        args[n++] = TD_ARG_STR(*pairs); /* a later pair wins */
    memset(&fleet->at, 0, sizeof(fleet->at));
    td_redis_eval(redis, &td_script_relay_report, (struct td_arg[]){TD_ARG_STR(state_key), TD_ARG_STR(window_key)},
                  2, args, n, on_state, &fleet->at);
    assert_true(loop_until(&loop, &fleet->at.done, 3000));
}

/* Report under the epoch seen last. */
static void tell_pairs(struct fleet *fleet, const char *const *pairs)
{
    char epoch[24];

    snprintf(epoch, sizeof(epoch), "%llu", fleet->at.epoch);
    run_report(fleet, pairs, epoch);
}
#define tell(fleet, ...) tell_pairs(fleet, (const char *const[]){__VA_ARGS__, NULL})

static struct fleet fleet_of(const char *relay)
{
    struct fleet fleet = {.relay = relay, .now = T0};

    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "closed");
    assert_true(fleet.at.share > 0.999);
    return fleet;
}

static void set_relay(struct fleet *fleet, const char *verb, const char *ms)
{
    char key[64], now[24];
    struct state reply = {0};

    snprintf(key, sizeof(key), "td:{r:%s}:state", fleet->relay);
    snprintf(now, sizeof(now), "%llu", fleet->now);
    td_redis_eval(redis, &td_script_relay_set, (struct td_arg[]){TD_ARG_STR(key)}, 1,
                  (struct td_arg[]){TD_ARG_STR(verb), TD_ARG_STR(ms), TD_ARG_STR(now)}, 3, on_state, &reply);
    assert_true(loop_until(&loop, &reply.done, 3000));
}

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

static void alone_it_comes_back_by_probes_then_mails(void **unused)
{
    struct local_health local = local_of(RELAY_CLOSED);
    struct relay_view view = {.epoch = 7};
    uint64_t now = 1000000;

    (void)unused;
    local_count(&local, HEALTH_FATAL, false, false, "down.x", now);
    assert_false(local_tick(&local, now + 900));
    assert_int_equal(local.state, RELAY_OPEN);
    assert_true(local_tick(&local, now += 1100));
    assert_false(local_tick(&local, now)); /* one at a time */
    local_probed(&local, false, "down.tls", now);
    assert_int_equal(local.state, RELAY_OPEN);
    assert_false(local_tick(&local, now + 1900)); /* twice as long */
    assert_true(local_tick(&local, now += 2100));
    local_probed(&local, true, "", now);
    assert_true(local_tick(&local, now));
    local_probed(&local, true, "", now);
    for (int i = 0; i < 3; i++) {
        local_tick(&local, now += 1000);
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
        local_tick(&local, now += 250);
    assert_int_equal(local.state, RELAY_CLOSED);
}

/* ---- the module, in real time ---- */

struct dispatcher {
    struct health *health;
    unsigned opened, firsts, probes, changes;
    bool probe_well, fit, open, half, local;
    unsigned campaigns_left;
    int campaigns_held;
    char evidence[96];
};

static void on_changed(void *user, size_t relay, enum relay_state from, const struct relay_view *view, bool first)
{
    struct dispatcher *dispatcher = user;

    assert_int_equal(relay, 0);
    dispatcher->changes++;
    dispatcher->opened += view->state == RELAY_OPEN && from != RELAY_OPEN;
    dispatcher->firsts += first;
    dispatcher->fit = view->state == RELAY_CLOSED;
    dispatcher->open = view->state == RELAY_OPEN;
    dispatcher->half = view->state == RELAY_HALF_OPEN;
    dispatcher->local = view->local;
}

static void on_probe(void *user, size_t relay)
{
    struct dispatcher *dispatcher = user;

    dispatcher->probes++;
    health_probed(dispatcher->health, relay, dispatcher->probe_well,
                  dispatcher->probe_well ? "well.probe" : "down.connect");
}

static void on_campaign_left(void *user, size_t relay, const char *campaign_id, const char *evidence)
{
    struct dispatcher *dispatcher = user;

    assert_int_equal(relay, 0);
    assert_true(campaign_id[0]);
    dispatcher->campaigns_left++;
    snprintf(dispatcher->evidence, sizeof(dispatcher->evidence), "%s", evidence);
}

static void on_campaign_held(void *user, const char *campaign_id, bool held)
{
    struct dispatcher *dispatcher = user;

    assert_true(campaign_id[0]);
    dispatcher->campaigns_held += held ? 1 : -1;
}

static char relay_name[32];

static struct td_settings settings_for(const char *name)
{
    struct td_settings settings = {
        .relay_count = 1, .dispatch_report_ms = 100, .health_probe_ms = 200, .health_probe_max_ms = 2000};

    snprintf(relay_name, sizeof(relay_name), "%s", name);
    settings.relays[0].name = relay_name;
    return settings;
}

static void dispatcher_open(struct dispatcher *dispatcher, const struct td_settings *settings, struct td_redis *at)
{
    static const struct health_ops ops = {on_changed, on_probe, on_campaign_left, on_campaign_held};
    struct td_err err;

    memset(dispatcher, 0, sizeof(*dispatcher));
    dispatcher->probe_well = true;
    assert_int_equal(health_new(&loop, at, settings, &ops, dispatcher, &dispatcher->health, &err), TD_OK);
}

static void a_new_process_trusts_a_relay_only_after_a_look(void **unused)
{
    struct dispatcher a;
    struct td_settings settings = settings_for("look");
    struct fleet fleet = fleet_of("look");

    (void)unused;
    set_relay(&fleet, "drain", "0");
    dispatcher_open(&a, &settings, redis);
    assert_int_equal(health_view(a.health, 0)->state, RELAY_OPEN);
    loop_for(&loop, 1300);
    assert_int_equal(health_view(a.health, 0)->state, RELAY_PAUSED);
    assert_false(health_view(a.health, 0)->local);
    health_free(a.health);
}

static void two_dispatchers_hear_of_a_dead_relay_within_a_quarter_second(void **unused)
{
    struct dispatcher a, b;
    struct td_settings settings = settings_for("both");
    uint64_t from;

    (void)unused;
    dispatcher_open(&a, &settings, redis);
    dispatcher_open(&b, &settings, redis);
    assert_true(loop_until(&loop, &a.fit, 2000) && loop_until(&loop, &b.fit, 2000));
    health_report(a.health, 0, HEALTH_OK, "");
    loop_for(&loop, 700); /* the channel is subscribed by now */
    from = td_mono_ms();
    for (int i = 0; i < 3; i++)
        health_report(i < 2 ? a.health : b.health, 0, HEALTH_HARD, "down.banner");
    assert_true(loop_until(&loop, &a.open, 2000) && loop_until(&loop, &b.open, 2000));
    assert_true(td_mono_ms() - from < 250);
    assert_int_equal(a.firsts + b.firsts, 1);
    assert_string_equal(health_view(b.health, 0)->reason, "down.banner");
    assert_true(health_view(a.health, 0)->epoch == health_view(b.health, 0)->epoch);
    health_free(a.health);
    health_free(b.health);
}

static void a_well_relay_comes_back_by_itself(void **unused)
{
    struct dispatcher a, b;
    struct td_settings settings = settings_for("back");
    uint64_t end;

    (void)unused;
    dispatcher_open(&a, &settings, redis);
    dispatcher_open(&b, &settings, redis);
    assert_true(loop_until(&loop, &a.fit, 2000) && loop_until(&loop, &b.fit, 2000));
    a.probe_well = b.probe_well = false;
    health_report(a.health, 0, HEALTH_FATAL, "down.account");
    assert_true(loop_until(&loop, &a.open, 1000));
    loop_for(&loop, 700);
    assert_true(a.probes + b.probes >= 1);
    assert_false(health_take_grant(a.health, 0));
    assert_true(a.opened >= 1);
    a.probe_well = b.probe_well = true;
    end = td_mono_ms() + 15000;
    while (!(a.fit && b.fit) && td_mono_ms() < end) { /* mail is there all the time; all of it is accepted */
        uv_run(&loop, UV_RUN_NOWAIT);
        if (health_take_grant(a.health, 0))
            health_report(a.health, 0, HEALTH_OK, "");
        if (health_take_grant(b.health, 0))
            health_report(b.health, 0, HEALTH_OK, "");
        usleep(1000);
    }
    assert_true(a.fit && b.fit);
    assert_true(health_view(a.health, 0)->share < 0.5); /* ramps */
    health_free(a.health);
    health_free(b.health);
}

static void on_text(void *user, const struct td_reply *reply, const struct td_err *err)
{
    assert_null(err);
    snprintf(user, 16, "%s", td_reply_str(reply, NULL));
}

/* What Redis says about the relay of settings_for. */
static const char *shared_state(struct td_redis *at)
{
    static char state[16];
    char key[64];

    state[0] = '\0';
    snprintf(key, sizeof(key), "td:{r:%s}:state", relay_name);
    td_redis_command(at, (struct td_arg[]){TD_ARG_STR("HGET"), TD_ARG_STR(key), TD_ARG_STR("st")}, 3, on_text,
                     state);
    loop_for(&loop, 50);
    return state;
}

static void without_redis_it_decides_alone_and_tells_afterwards(void **unused)
{
    struct redis_server other = {0};
    struct td_redis *away = NULL;
    struct dispatcher a;
    struct td_settings settings = settings_for("away");
    struct td_err err;

    (void)unused;
    redis_server_start(&other, NULL);
    assert_int_equal(td_redis_new(&loop, other.url, NULL, 300, &away, &err), TD_OK);
    dispatcher_open(&a, &settings, away);
    assert_true(loop_until(&loop, &a.fit, 3000));
    redis_server_stop(&other);
    loop_for(&loop, 600);
    assert_true(health_view(a.health, 0)->local);
    assert_int_equal(health_view(a.health, 0)->state, RELAY_CLOSED);
    a.probe_well = false;
    health_report(a.health, 0, HEALTH_FATAL, "down.account");
    assert_true(a.open); /* at once, here */
    loop_for(&loop, 600);
    assert_true(a.probes >= 1);
    redis_server_start(&other, NULL); /* empty: it hears what was known here */
    assert_true(redis_wait_up(&loop, away, 5000));
    loop_for(&loop, 300);
    assert_false(health_view(a.health, 0)->local);
    assert_int_not_equal(health_view(a.health, 0)->state, RELAY_CLOSED);
    assert_true(health_view(a.health, 0)->epoch >= 2);
    assert_string_not_equal(shared_state(away), "closed");
    health_free(a.health);
    td_redis_free(away);
    loop_for(&loop, 20);
    redis_server_remove(&other);
}

static void a_hanging_redis_is_not_waited_for(void **unused)
{
    struct redis_server other = {0};
    struct td_redis *away = NULL;
    struct dispatcher a;
    struct td_settings settings = settings_for("hang2");
    struct td_err err;

    (void)unused;
    redis_server_start(&other, NULL);
    assert_int_equal(td_redis_new(&loop, other.url, NULL, 200, &away, &err), TD_OK);
    dispatcher_open(&a, &settings, away);
    assert_true(loop_until(&loop, &a.fit, 3000));
    kill(other.pid, SIGSTOP);
    loop_for(&loop, 1200);
    health_report(a.health, 0, HEALTH_FATAL, "down.account");
    assert_true(a.open);
    kill(other.pid, SIGCONT); /* data kept: the shared state is opened by the report */
    assert_true(redis_wait_up(&loop, away, 5000));
    loop_for(&loop, 50);
    assert_false(health_view(a.health, 0)->local);
    assert_int_not_equal(health_view(a.health, 0)->state, RELAY_CLOSED);
    assert_string_not_equal(shared_state(away), "closed");
    health_free(a.health);
    td_redis_free(away);
    loop_for(&loop, 20);
    redis_server_remove(&other);
}

/* ---- bounces ---- */

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

static void set_totals(const char *campaign, const char *accepted, const char *hard)
{
    char key[96];
    bool done = false;

    snprintf(key, sizeof(key), "td:{c:%s}:totals", campaign);
    td_redis_command(redis,
                     (struct td_arg[]){TD_ARG_STR("HSET"), TD_ARG_STR(key), TD_ARG_STR("accepted:bounce"),
                                       TD_ARG_STR(accepted), TD_ARG_STR("hard:bounce"), TD_ARG_STR(hard)},
                     6, on_done, &done);
    assert_true(loop_until(&loop, &done, 2000));
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
    assert_non_null(strstr(a.campaigns_left ? a.evidence : b.evidence, "100 of 1000 bounced hard, surely above 8."));
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
    health_campaign_hold(a.health, "unknown", true); /* nobody has asked about it: nothing to hold */
    health_campaign_fit(a.health, 0, "hold", 500);
    health_campaign_hold(a.health, "hold", true);
    health_campaign_hold(a.health, "hold", true);
    assert_int_equal(a.campaigns_held, 1);
    assert_int_equal(totals_has("hold", "held"), 1);
    health_campaign_hold(a.health, "hold", false); /* not at once */
    assert_int_equal(a.campaigns_held, 1);
    loop_for(&loop, 1100);
    health_campaign_hold(a.health, "hold", false);
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

static int group_start(void **unused)
{
    struct td_err err;

    (void)unused;
    redis_server_start(&server, NULL);
    return uv_loop_init(&loop) || td_redis_new(&loop, server.url, NULL, 2000, &redis, &err) ||
           !redis_wait_up(&loop, redis, 3000);
}

static int group_end(void **unused)
{
    (void)unused;
    td_redis_free(redis);
    uv_run(&loop, UV_RUN_DEFAULT);
    redis_server_remove(&server);
    return uv_loop_close(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_connection_failures_in_a_row_open_it),
        cmocka_unit_test(a_success_between_or_more_than_five_seconds_do_not),
        cmocka_unit_test(a_refused_connection_opens_it_unless_something_was_just_accepted),
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
        cmocka_unit_test(alone_it_opens_by_the_same_rules),
        cmocka_unit_test(alone_it_comes_back_by_probes_then_mails),
        cmocka_unit_test(alone_it_keeps_what_was_shared),
        cmocka_unit_test(alone_a_busy_relay_is_slowed),
        cmocka_unit_test(a_new_process_trusts_a_relay_only_after_a_look),
        cmocka_unit_test(two_dispatchers_hear_of_a_dead_relay_within_a_quarter_second),
        cmocka_unit_test(a_well_relay_comes_back_by_itself),
        cmocka_unit_test(without_redis_it_decides_alone_and_tells_afterwards),
        cmocka_unit_test(a_hanging_redis_is_not_waited_for),
        cmocka_unit_test(a_campaign_that_bounces_too_much_leaves_the_relay),
        cmocka_unit_test(of_a_campaign_that_leaves_one_dispatcher_tells),
        cmocka_unit_test(a_held_campaign_says_so_until_it_has_a_relay_again),
        cmocka_unit_test(a_rate_is_tested_only_at_growing_sizes),
    };

    return cmocka_run_group_tests(tests, group_start, group_end);
}
