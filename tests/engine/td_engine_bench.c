/* td_engine_bench.c - how fast the engine alone gets mail into a relay: no Kafka, no Redis, one thread.
 *
 *   td_engine_bench PORT CA-FILE CONNECTIONS MAILS BYTES [pipelining=1] [user password]
 *
 * against 127.0.0.1 over implicit TLS (a relaysim on another core). Prints one line: mails, seconds, mails a second, CPU
 * microseconds a mail (user/system), results that were not accepted. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <curl/curl.h>
#include <uv.h>

#include "pool.h"
#include "tandem/clock.h"

struct bench {
    struct pool *pool;
    struct mail_job *jobs;
    struct mail_job *free; /* linked by user */
    size_t left, done, accepted;
    uint64_t began_us;
};

static void feed(struct bench *bench)
{
    while (bench->left > 0 && bench->free && pool_room(bench->pool) > 0) {
        struct mail_job *job = bench->free;

        bench->free = job->user;
        if (pool_send(bench->pool, job) < 0)
            return;
        bench->left--;
    }
}

static void stopped(void *user)
{
    (void)user;
}

static void heard_done(void *user, struct mail_job *job, const struct attempt_result *result)
{
    struct bench *bench = user;

    bench->done++;
    bench->accepted += result->kind == ATTEMPT_ACCEPTED;
    job->user = bench->free;
    bench->free = job;
    feed(bench);
}

static void heard_event(void *user, struct pool *pool, enum relay_event event, const char *detail)
{
    struct bench *bench = user;

    (void)pool;
    if (event == RELAY_UP && bench->began_us == 0)
        bench->began_us = td_mono_us();
    if (event != RELAY_UP)
        fprintf(stderr, "%s: %s\n", relay_event_name(event), detail);
}

static void heard_room(void *user, struct pool *pool)
{
    (void)pool;
    feed(user);
}

static char *message(size_t bytes)
{
    static const char head[] = "From: a@example.com\r\nSubject: bench\r\n\r\n";
    char *text = malloc(bytes + sizeof(head));

    if (!text)
        return NULL;
    memset(text, 'x', bytes + sizeof(head));
    memcpy(text, head, sizeof(head) - 1);
    for (size_t at = sizeof(head) - 1 + 76; at + 80 < bytes; at += 78)
        memcpy(text + at, "\r\n", 2);
    memcpy(text + bytes - 2, "\r\n", 2);
    return text;
}

static double cpu_us(const struct timeval *from, const struct timeval *to, size_t mails)
{
    return ((double)(to->tv_sec - from->tv_sec) * 1e6 + (double)(to->tv_usec - from->tv_usec)) / (double)mails;
}

static void run(uv_loop_t *loop, struct bench *bench, size_t mails)
{
    struct rusage before, after;
    double seconds;

    getrusage(RUSAGE_SELF, &before);
    feed(bench);
    while (bench->done < mails)
        uv_run(loop, UV_RUN_ONCE);
    getrusage(RUSAGE_SELF, &after);
    seconds = (double)(td_mono_us() - bench->began_us) / 1e6;
    printf("%zu mails in %.3f s: %.0f/s, CPU %.1f/%.1f us, %zu not accepted, %zu connections\n", mails, seconds,
           (double)mails / seconds, cpu_us(&before.ru_utime, &after.ru_utime, mails),
           cpu_us(&before.ru_stime, &after.ru_stime, mails), mails - bench->accepted, pool_connections(bench->pool));
}

int main(int argc, char **argv)
{
    static const struct pool_ops ops = {heard_done, heard_event, heard_room};
    struct td_relay_settings relay = {.name = (char *)"bench", .host = (char *)"127.0.0.1", .helo_name = (char *)"bench",
                                      .tls = TD_TLS_IMPLICIT, .connect_timeout_ms = 10000, .command_timeout_ms = 10000,
                                      .data_timeout_ms = 10000, .final_timeout_ms = 10000, .idle_timeout_ms = 8000};
    struct bench bench = {0};
    struct slice slice;
    size_t mails, slots;
    uv_loop_t loop;
    char *text;

    if (argc < 6) {
        fprintf(stderr, "usage: %s PORT CA-FILE CONNECTIONS MAILS BYTES [pipelining] [user password]\n", argv[0]);
        return 64;
    }
    relay.port = strtol(argv[1], NULL, 10);
    relay.ca_file = argv[2];
    relay.max_connections = strtol(argv[3], NULL, 10);
    mails = bench.left = strtoul(argv[4], NULL, 10);
    relay.pipelining = argc < 7 || argv[6][0] != '0';
    relay.user = argc > 8 ? argv[7] : NULL;
    relay.password = argc > 8 ? argv[8] : NULL;
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    uv_loop_init(&loop);
    text = message(strtoul(argv[5], NULL, 10));
    slots = (size_t)relay.max_connections * 2;
    bench.jobs = calloc(slots, sizeof(*bench.jobs));
    if (!text || !bench.jobs || pool_new(&loop, &relay, NULL, &ops, &bench, &bench.pool, NULL) < 0)
        return 75;
    slice = (struct slice){text, strtoul(argv[5], NULL, 10)};
    for (size_t i = 0; i < slots; i++) {
        bench.jobs[i] = (struct mail_job){.reverse_path = "b@example.com", .recipient = "r@example.net", .slices = &slice,
                                          .slice_count = 1, .bytes = slice.len, .user = bench.free};
        bench.free = &bench.jobs[i];
    }
    run(&loop, &bench, mails);
    pool_stop(bench.pool, stopped, NULL);
    while (pool_connections(bench.pool) > 0)
        uv_run(&loop, UV_RUN_ONCE);
    pool_free(bench.pool);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    free(bench.jobs);
    free(text);
    return bench.accepted == mails ? 0 : 1;
}
