/* td_kafka_live BROKERS RUN DIR [CASE...] - what common/src/io/kafka_*.c promise, against a real broker that RUN
 * (deploy/kafka/run) has started in DIR. One line a case: "PASS kafka.<case>" or "FAIL kafka.<case>: why". */
#include "live.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tandem/clock.h"
#include "tandem/log.h"

struct live_case {
    const char *name;
    bool (*run)(struct live *live);
};

#define CASE(name)                                                                                                \
    {                                                                                                             \
#name, case_##name                                                                                        \
    }

static const struct live_case cases[] = {
    CASE(topics_apply_twice),
    CASE(fifty_thousand_arrive_once),
    CASE(two_members_share_and_one_leaves),
    CASE(the_last_member_stays),
    CASE(a_killed_member_is_replaced),
    CASE(revoke_may_take_two_seconds),
    CASE(commits_are_seen_and_never_fall),
    CASE(the_same_instance_twice_is_fatal),
    CASE(table_follows_a_topic),
    CASE(stopped_broker_loses_nothing),
    CASE(killed_broker_loses_nothing),
};

/* Everything a case made must have closed its handles, or the loop cannot be closed. */
static bool close_loop(struct live *live)
{
    for (int i = 0; i < 500 && uv_run(&live->loop, UV_RUN_NOWAIT); i++)
        usleep(10000);
    CHECK(uv_loop_close(&live->loop) == 0, "handles left open");
    return true;
}

static bool run_case(struct live *live, const struct live_case *one, size_t number)
{
    uint64_t began = td_mono_ms();
    bool ok;

    snprintf(live->prefix, sizeof(live->prefix), "%d.%zu.", (int)getpid(), number);
    live->settings = live_settings(live, "test");
    live->why[0] = '\0';
    uv_loop_init(&live->loop);
    ok = one->run(live);
    ok = close_loop(live) && ok;
    fprintf(stderr, "  (%s: %" PRIu64 " ms)\n", one->name, td_mono_ms() - began);
    if (ok)
        printf("PASS kafka.%s\n", one->name);
    else
        printf("FAIL kafka.%s: %s\n", one->name, live->why[0] ? live->why : "a check failed");
    fflush(stdout);
    return ok;
}

static bool chosen(const char *name, char **names)
{
    if (!*names)
        return true;
    for (; *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    struct live live = {.self = "/proc/self/exe"};
    bool ok = true;

    td_log_setup("kafka-live", "test", getenv("TD_LIVE_VERBOSE") ? TD_DEBUG : TD_ERROR);
    if (argc == 6 && strcmp(argv[1], "--member") == 0) {
        live.brokers = argv[2];
        snprintf(live.prefix, sizeof(live.prefix), "%s", argv[3]);
        uv_loop_init(&live.loop);
        return live_member_process(&live, argv[4], argv[5]);
    }
    if (argc < 4) {
        fprintf(stderr, "usage: td_kafka_live BROKERS RUN DIR [CASE...]\n");
        return 64;
    }
    live.brokers = argv[1];
    live.run = argv[2];
    live.dir = argv[3];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (chosen(cases[i].name, argv + 4))
            ok = run_case(&live, &cases[i], i) && ok;
    return ok ? 0 : 1;
}
