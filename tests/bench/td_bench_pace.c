/* td_bench_pace.c - one dispatcher as far as pacing goes: takes every slot it gets, as fast as services/dispatch/pace.c gives
 * them, and writes down when. td_bench_pace REDIS-URL MAILS-PER-SECOND LOG
 *
 * The log is a mapped file of monotonic microseconds, so that it is whole also after SIGKILL. Ends on SIGTERM, as a
 * dispatcher leaves; slots that it held are lost. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uv.h>

#include "pace.h"
#include "tandem/clock.h"
#include "tandem/redis.h"

#define SENDS_MAX (1u << 18)
#define BACKLOG 1000000

struct sender {
    struct pace *pace;
    uint64_t *at;
    size_t sent;
    bool leaving;
};

static void drain(struct sender *sender)
{
    uint64_t slot_us;

    if (sender->leaving)
        return;
    pace_want(sender->pace, 0, BACKLOG);
    while (pace_take(sender->pace, 0, &slot_us) == 0 && sender->sent < SENDS_MAX) {
        uint64_t now_us = td_mono_us();

        pace_sent(sender->pace, 0, slot_us, now_us);
        sender->at[sender->sent++] = now_us;
    }
}

static void on_due(void *user, size_t relay)
{
    (void)relay;
    drain(user);
}

static void on_redis(void *user, bool up, const char *run_id)
{
    (void)run_id;
    if (up)
        drain(user);
}

static void on_term(uv_signal_t *handle, int number)
{
    ((struct sender *)handle->data)->leaving = true;
    (void)number;
    uv_stop(handle->loop);
}

static uint64_t *map_log(const char *path)
{
    size_t bytes = SENDS_MAX * sizeof(uint64_t);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    void *map = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0)
        map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    return map == MAP_FAILED ? NULL : map;
}

int main(int argc, char **argv)
{
    struct td_settings settings = {.relay_count = 1};
    struct sender sender = {0};
    struct td_redis *redis = NULL;
    struct td_err err;
    uv_signal_t term;
    uv_loop_t loop;

    if (argc != 4) {
        fprintf(stderr, "usage: %s REDIS-URL MAILS-PER-SECOND LOG\n", argv[0]);
        return 64;
    }
    settings.relays[0].name = (char *)"bench";
    settings.relays[0].max_mails_per_s = strtol(argv[2], NULL, 10);
    sender.at = map_log(argv[3]);
    uv_loop_init(&loop);
    if (!sender.at || td_redis_new(&loop, argv[1], NULL, 2000, &redis, &err) < 0 ||
        pace_new(&loop, redis, &settings, on_due, &sender, &sender.pace, &err) < 0)
        return 75;
    pace_part(sender.pace, 1); /* nobody else has its lanes: none is ever missing */
    td_redis_on_state(redis, on_redis, &sender);
    uv_signal_init(&loop, &term);
    term.data = &sender;
    uv_signal_start(&term, on_term, SIGTERM);
    uv_run(&loop, UV_RUN_DEFAULT);
    pace_free(sender.pace);
    td_redis_forget(redis, &sender);
    td_redis_free(redis);
    uv_close((uv_handle_t *)&term, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    return 0;
}
