/* health_fleet.h - for tests of relay health: one real redis-server for the program, and relay_report.lua asked at a time of our
 * own. */
#ifndef HEALTH_FLEET_H
#define HEALTH_FLEET_H

#include "redis_server.h"

#include "health.h"
#include "tandem/scripts.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct redis_server server;
static uv_loop_t loop;
static struct td_redis *redis;

struct state {
    bool done;
    char name[16], reason[48], evidence[160];
    unsigned long long epoch, now;
    double share, factor;
    long long grants, probe, changed, next;
    long long level, level_from, bounce_hard, bounce_taken;
    char bounces[160];
};

/* One relay of the fleet as the script sees it, at our time. */
struct fleet {
    const char *relay;
    unsigned long long now; /* ms */
    struct state at;
};

#define T0 1700000000000ull

static inline void on_state(void *user, const struct td_reply *reply, const struct td_err *err)
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
    state->level = td_reply_int(td_reply_at(reply, 11));
    snprintf(state->bounces, sizeof(state->bounces), "%s", td_reply_str(td_reply_at(reply, 12), NULL));
    state->level_from = td_reply_int(td_reply_at(reply, 13));
    state->bounce_hard = td_reply_int(td_reply_at(reply, 14));
    state->bounce_taken = td_reply_int(td_reply_at(reply, 15));
}

static inline void run_report(struct fleet *fleet, const char *const *pairs, const char *epoch)
{
    struct td_arg args[48];
    char key[3][64], now[24];
    size_t n = 0;

    snprintf(key[0], sizeof(key[0]), "td:{r:%s}:state", fleet->relay);
    snprintf(key[1], sizeof(key[1]), "td:{r:%s}:window", fleet->relay);
    snprintf(key[2], sizeof(key[2]), "td:{r:%s}:hours", fleet->relay);
    snprintf(now, sizeof(now), "%llu", fleet->now);
    const char *const fixed[] = {"now", now,        "epoch", epoch,          "me",    "one",     "random",
                                 "0.5", "probe_ms", "1000",  "probe_max_ms", "60000", "ramp_ms", "10000",
                                 "bounce_warn", "200", "bounce_throttle", "400", "bounce_stop", "500"};

    for (size_t i = 0; i < COUNT(fixed); i++)
        args[n++] = TD_ARG_STR(fixed[i]);
    for (; *pairs; pairs++)
        args[n++] = TD_ARG_STR(*pairs); /* a later pair wins */
    memset(&fleet->at, 0, sizeof(fleet->at));
    td_redis_eval(redis, &td_script_relay_report,
                  (struct td_arg[]){TD_ARG_STR(key[0]), TD_ARG_STR(key[1]), TD_ARG_STR(key[2])}, 3, args, n, on_state, &fleet->at);
    assert_true(loop_until(&loop, &fleet->at.done, 3000));
}

/* Report under the epoch seen last. */
static inline void tell_pairs(struct fleet *fleet, const char *const *pairs)
{
    char epoch[24];

    snprintf(epoch, sizeof(epoch), "%llu", fleet->at.epoch);
    run_report(fleet, pairs, epoch);
}
#define tell(fleet, ...) tell_pairs(fleet, (const char *const[]){__VA_ARGS__, NULL})

static inline struct fleet fleet_of(const char *relay)
{
    struct fleet fleet = {.relay = relay, .now = T0};

    tell(&fleet, "ok", "0");
    assert_string_equal(fleet.at.name, "closed");
    assert_true(fleet.at.share > 0.999);
    return fleet;
}

static inline void set_relay(struct fleet *fleet, const char *verb, const char *ms)
{
    char key[2][64], now[24];
    struct state reply = {0};

    snprintf(key[0], sizeof(key[0]), "td:{r:%s}:state", fleet->relay);
    snprintf(key[1], sizeof(key[1]), "td:{r:%s}:hours", fleet->relay);
    snprintf(now, sizeof(now), "%llu", fleet->now);
    td_redis_eval(redis, &td_script_relay_set, (struct td_arg[]){TD_ARG_STR(key[0]), TD_ARG_STR(key[1])}, 2,
                  (struct td_arg[]){TD_ARG_STR(verb), TD_ARG_STR(ms), TD_ARG_STR(now)}, 3, on_state, &reply);
    assert_true(loop_until(&loop, &reply.done, 3000));
}

static inline int group_start(void **unused)
{
    struct td_err err;

    (void)unused;
    redis_server_start(&server, NULL);
    return uv_loop_init(&loop) || td_redis_new(&loop, server.url, NULL, 2000, &redis, &err) ||
           !redis_wait_up(&loop, redis, 3000);
}

static inline int group_end(void **unused)
{
    (void)unused;
    td_redis_free(redis);
    uv_run(&loop, UV_RUN_DEFAULT);
    redis_server_remove(&server);
    return uv_loop_close(&loop);
}

#endif /* HEALTH_FLEET_H */
