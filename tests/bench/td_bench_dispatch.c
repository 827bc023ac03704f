/* td_bench_dispatch.c - how fast the engine alone gets mail into a relay: no Kafka, no Redis, one thread. Prints one line of
 * JSON. Linked twice: td_bench_dispatch speaks TLS as every build does, td_bench_dispatch_plain is the build for
 * benchmarks that speaks plaintext. */
#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <curl/curl.h>
#include <uv.h>

#include "pool.h"
#include "tandem/clock.h"
#include "tandem/stages.h"

#define HOLD_SAMPLES 8
#define STAGES_PARTS 16

struct options {
    struct td_relay_settings relay;
    size_t mails, bytes;
    bool stages;    /* what it costs to measure them */
    int64_t hold_s; /* 0: as fast as it goes; else keep all connections for so long, and look at the memory */
};

struct bench {
    const struct options *options;
    uv_loop_t loop;
    uv_prepare_t turn;
    struct td_stages stages;
    struct pool *pool;
    struct mail_job *jobs;
    struct mail_job *free; /* linked by user */
    size_t slots;
    size_t left; /* still to be sent in this part */
    size_t done, accepted, refused, events;
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

static void heard_done(void *user, struct mail_job *job, const struct attempt_result *result)
{
    struct bench *bench = user;

    bench->done++;
    bench->accepted += result->kind == ATTEMPT_ACCEPTED;
    bench->refused += result->kind == ATTEMPT_REPLIED;
    job->user = bench->free;
    bench->free = job;
    feed(bench);
}

static void heard_event(void *user, struct pool *pool, enum relay_event event, const char *detail)
{
    (void)pool;
    if (event == RELAY_UP)
        return;
    ((struct bench *)user)->events++;
    fprintf(stderr, "%s: %s\n", relay_event_name(event), detail);
}

static void heard_room(void *user, struct pool *pool)
{
    (void)pool;
    feed(user);
}

/* Lines of 76 octets, as a newsletter in quoted-printable has them. */
static char *message(size_t bytes)
{
    static const char head[] = "From: a@example.com\r\nSubject: bench\r\nMessage-ID: <1@bench.example>\r\n\r\n";
    char *text = malloc(bytes + sizeof(head) + 80);

    if (!text)
        return NULL;
    memset(text, 'x', bytes + sizeof(head));
    memcpy(text, head, sizeof(head) - 1);
    for (size_t at = sizeof(head) - 1 + 76; at + 80 < bytes; at += 78)
        memcpy(text + at, "\r\n", 2);
    memcpy(text + bytes - 2, "\r\n", 2);
    return text;
}

static size_t rss_kib(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long size = 0, resident = 0;

    if (file) {
        if (fscanf(file, "%lu %lu", &size, &resident) != 2)
            resident = 0;
        fclose(file);
    }
    return resident * (size_t)sysconf(_SC_PAGESIZE) / 1024;
}

static void on_turn(uv_prepare_t *turn)
{
    td_stages_turn(turn->data, uv_now(turn->loop));
}

/* Send so many mails and wait for their results. */
static void send_mails(struct bench *bench, size_t mails)
{
    bench->left = mails;
    bench->done = bench->accepted = bench->refused = 0;
    feed(bench);
    while (bench->done < mails)
        uv_run(&bench->loop, UV_RUN_ONCE);
}

static double us_between(const struct timeval *from, const struct timeval *to)
{
    return (double)(to->tv_sec - from->tv_sec) * 1e6 + (double)(to->tv_usec - from->tv_usec);
}

/* Handshakes are not what is measured: first as many mails as there are connections, then the clock starts. */
static void warm_up(struct bench *bench)
{
    while (bench->options->relay.mails_per_connection == 0 && bench->events == 0 &&
           pool_connections(bench->pool) < (size_t)bench->options->relay.max_connections)
        send_mails(bench, bench->slots / 2 + 1);
    send_mails(bench, bench->slots);
}

/* Without and with, in turn (A B B A), so that what else the machine does meets both. */
static int run_stages(struct bench *bench)
{
    size_t mails = bench->options->mails / STAGES_PARTS;
    double us[2] = {0, 0};

    td_stages_init(&bench->stages, td_thread_cpu_ns, td_mono_us());
    warm_up(bench);
    for (int i = 0; i < STAGES_PARTS; i++) {
        bool on = i % 4 == 1 || i % 4 == 2;
        uint64_t before_ns;

        bench->stages.window_ms = uv_now(&bench->loop); /* the part without is no quiet time */
        if (on)
            uv_prepare_start(&bench->turn, on_turn);
        before_ns = td_thread_cpu_ns();
        send_mails(bench, mails);
        us[on] += (double)(td_thread_cpu_ns() - before_ns) / 1e3;
        uv_prepare_stop(&bench->turn);
        td_stages_end(&bench->stages);
    }
    printf("{\"without_us\": %.3f, \"with_us\": %.3f}\n", us[0] * 2 / (double)(mails * STAGES_PARTS),
           us[1] * 2 / (double)(mails * STAGES_PARTS));
    return bench->events == 0 ? 0 : 1;
}

static int run_fast(struct bench *bench)
{
    size_t mails = bench->options->mails;
    struct rusage before, after;
    uint64_t began_us;
    double seconds;

    warm_up(bench);
    getrusage(RUSAGE_SELF, &before);
    began_us = td_mono_us();
    send_mails(bench, mails);
    seconds = (double)(td_mono_us() - began_us) / 1e6;
    getrusage(RUSAGE_SELF, &after);
    printf("{\"mails\": %zu, \"seconds\": %.6f, \"rate\": %.1f, \"user_us\": %.2f, \"system_us\": %.2f, \"accepted\": %zu, "
           "\"refused\": %zu, \"connections\": %zu, \"rss_kib\": %zu}\n",
           mails, seconds, (double)mails / seconds, us_between(&before.ru_utime, &after.ru_utime) / (double)mails,
           us_between(&before.ru_stime, &after.ru_stime) / (double)mails, bench->accepted, bench->refused,
           pool_connections(bench->pool), rss_kib());
    return bench->accepted + bench->refused == mails && bench->events == 0 ? 0 : 1;
}

static void on_hold_timer(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

/* What a connection costs, in use and over time. */
static int run_hold(struct bench *bench)
{
    size_t before = rss_kib(), sample[HOLD_SAMPLES];
    size_t want = (size_t)bench->options->relay.max_connections, mails = 0;
    bool over = false;
    uv_timer_t timer;

    uv_timer_init(&bench->loop, &timer);
    timer.data = &over;
    while (pool_connections(bench->pool) < want && bench->events == 0)
        send_mails(bench, bench->slots);
    for (size_t i = 0; i < HOLD_SAMPLES; i++) {
        over = false;
        uv_timer_start(&timer, on_hold_timer, (uint64_t)(bench->options->hold_s * 1000 / HOLD_SAMPLES), 0);
        while (!over) {
            send_mails(bench, want); /* every connection has one under way */
            mails += want;
        }
        sample[i] = rss_kib();
    }
    printf("{\"connections\": %zu, \"mails\": %zu, \"before_kib\": %zu, \"rss_kib\": [", pool_connections(bench->pool), mails,
           before);
    for (size_t i = 0; i < HOLD_SAMPLES; i++)
        printf("%s%zu", i ? ", " : "", sample[i]);
    printf("]}\n");
    uv_close((uv_handle_t *)&timer, NULL);
    return bench->events == 0 && pool_connections(bench->pool) == want ? 0 : 1;
}

static const struct argp_option option_table[] = {
    {"port", 'p', "PORT", 0, "of the relay on 127.0.0.1", 0},
    {"ca", 'a', "FILE", 0, "its CA", 0},
    {"connections", 'c', "N", 0, "", 0},
    {"mails", 'm', "N", 0, "", 0},
    {"bytes", 'b', "N", 0, "of each mail", 0},
    {"lock-step", 'l', NULL, 0, "do not use PIPELINING", 0},
    {"window", 'w', "N", 0, "mails in flight with BDAT", 0},
    {"starttls", 's', NULL, 0, "STARTTLS; without it implicit TLS. In the plaintext build: no TLS", 0},
    {"per-connection", 'n', "N", 0, "mails, then it is made anew: what is measured then is handshakes", 0},
    {"resume", 'r', "SECONDS", 0, "of TLS sessions", 0},
    {"stages", 'g', NULL, 0, "what it costs to measure stages, as a service does", 0},
    {"hold", 'h', "SECONDS", 0, "keep all connections, look at the memory", 0},
    {0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case 'p': o->relay.port = strtol(arg, NULL, 10); break;
    case 'a': o->relay.ca_file = arg; break;
    case 'c': o->relay.max_connections = strtol(arg, NULL, 10); break;
    case 'm': o->mails = strtoul(arg, NULL, 10); break;
    case 'b': o->bytes = strtoul(arg, NULL, 10); break;
    case 'l': o->relay.pipelining = false; break;
    case 'w': o->relay.bdat_window = strtol(arg, NULL, 10); break;
    case 's': o->relay.tls = TD_TLS_STARTTLS; break;
    case 'n': o->relay.mails_per_connection = strtol(arg, NULL, 10); break;
    case 'r': o->relay.tls_resume_ms = strtol(arg, NULL, 10) * 1000; break;
    case 'g': o->stages = true; break;
    case 'h': o->hold_s = strtol(arg, NULL, 10); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static void stopped(void *user)
{
    *(bool *)user = true;
}

static int run(const struct options *options)
{
    static const struct pool_ops ops = {.done = heard_done, .event = heard_event, .room = heard_room};
    char *text = message(options->bytes);
    struct slice slice = {text, options->bytes};
    struct bench bench = {.options = options};
    bool over = false;
    int rc;

    bench.slots = (size_t)options->relay.max_connections * (size_t)(options->relay.bdat_window > 2 ? options->relay.bdat_window : 2);
    bench.jobs = calloc(bench.slots, sizeof(*bench.jobs));
    uv_loop_init(&bench.loop);
    uv_prepare_init(&bench.loop, &bench.turn);
    bench.turn.data = &bench.stages;
    if (!text || !bench.jobs || pool_new(&bench.loop, &options->relay, NULL, &ops, &bench, &bench.pool, NULL) < 0)
        return 75;
    for (size_t i = 0; i < bench.slots; i++) {
        bench.jobs[i] = (struct mail_job){.reverse_path = "b@example.com", .recipient = "r@example.net", .slices = &slice,
                                          .slice_count = 1, .bytes = slice.len, .user = bench.free};
        bench.free = &bench.jobs[i];
    }
    rc = options->hold_s > 0 ? run_hold(&bench) : options->stages ? run_stages(&bench) : run_fast(&bench);
    pool_stop(bench.pool, stopped, &over);
    while (!over)
        uv_run(&bench.loop, UV_RUN_ONCE);
    pool_free(bench.pool);
    uv_close((uv_handle_t *)&bench.turn, NULL);
    uv_run(&bench.loop, UV_RUN_DEFAULT);
    uv_loop_close(&bench.loop);
    free(bench.jobs);
    free(text);
    return rc;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {option_table, parse, NULL, "How fast the engine gets mail into a relay.", NULL, NULL, NULL};
    struct options options = {
        .relay = {.name = (char *)"bench", .host = (char *)"127.0.0.1", .helo_name = (char *)"bench", .tls = TD_TLS_IMPLICIT,
                  .max_connections = 10, .pipelining = true, .bdat_window = 8, .connect_timeout_ms = 60000,
                  .command_timeout_ms = 60000, .data_timeout_ms = 60000, .final_timeout_ms = 60000, .idle_timeout_ms = 60000},
        .mails = 10000,
        .bytes = 10240,
    };

    if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0 || options.relay.port == 0 || options.bytes < 200 ||
        options.relay.max_connections < 1)
        return 64;
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    return run(&options);
}
