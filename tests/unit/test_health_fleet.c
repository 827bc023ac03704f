/* Relay health in real time: two dispatchers, one Redis, which goes away. */
#include "health_dispatcher.h"

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

static void a_silence_is_told_while_it_is_young(void **unused)
{
    struct dispatcher a;
    struct td_settings settings = settings_for("hush");

    (void)unused;
    dispatcher_open(&a, &settings, redis);
    assert_true(loop_until(&loop, &a.fit, 2000));
    a.silent_ms = 5000; /* others were served meanwhile, or it would have been opened */
    health_report(a.health, 0, HEALTH_HARD, "down.silent");
    loop_for(&loop, 1500);
    assert_false(a.open);
    a.silent_ms = 1200;
    assert_true(loop_until(&loop, &a.open, 1000)); /* without another event */
    assert_string_equal(health_view(a.health, 0)->reason, "down.silent");
    health_free(a.health);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_process_trusts_a_relay_only_after_a_look),
        cmocka_unit_test(two_dispatchers_hear_of_a_dead_relay_within_a_quarter_second),
        cmocka_unit_test(a_silence_is_told_while_it_is_young),
        cmocka_unit_test(a_well_relay_comes_back_by_itself),
        cmocka_unit_test(without_redis_it_decides_alone_and_tells_afterwards),
        cmocka_unit_test(a_hanging_redis_is_not_waited_for),
    };

    return cmocka_run_group_tests(tests, group_start, group_end);
}
