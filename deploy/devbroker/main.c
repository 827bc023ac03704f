/* tandem-devbroker: librdkafka's mock cluster in a process of its own, with Tandem's topics. A Kafka for a first
 * look: nothing to install, ready at once, gone when it ends. README.md says what it is not. */
#include <argp.h>
#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/cmdline.h"
#include "tandem/settings.h"
#include "tandem/topics.h"

enum { EXIT_USAGE = 64, EXIT_INTERNAL = 70, EXIT_CONFIG = 78 };
enum { BROKERS_MAX = 10, KEY_BROKERS = 256, KEY_READY };

struct options {
    struct td_cmdline cmdline;
    const char *ready_file;
    int brokers;
};

static const struct argp_option option_table[] = {
    {.name = "config", .key = 'c', .arg = "FILE", .doc = TD_CMDLINE_CONFIG_HELP},
    {.name = "set", .key = 's', .arg = "PATH=VALUE", .doc = TD_CMDLINE_SET_HELP},
    {.name = "brokers", .key = KEY_BROKERS, .arg = "N", .doc = "Brokers of the cluster, 1 to 10 (1)"},
    {.name = "ready-file", .key = KEY_READY, .arg = "FILE", .doc = "Write the bootstrap address there when ready"},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct options *options = state->input;
    struct td_err err;
    char *end;
    long number;

    switch (key) {
    case 'c':
        options->cmdline.config = arg;
        return 0;
    case 's':
        if (td_cmdline_set(&options->cmdline, arg, &err) < 0)
            argp_error(state, "%s", err.text);
        return 0;
    case KEY_BROKERS:
        number = strtol(arg, &end, 10);
        if (end == arg || *end || number < 1 || number > BROKERS_MAX)
            argp_error(state, "--brokers takes 1 to %d", (int)BROKERS_MAX);
        options->brokers = (int)number;
        return 0;
    case KEY_READY:
        options->ready_file = arg;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument"); /* exits */
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int create_topics(rd_kafka_mock_cluster_t *cluster, const struct td_settings *settings, int brokers)
{
    for (enum td_topic_id id = 0; id < TD_T_COUNT; id++) {
        char name[256];
        int partitions = td_topics[id].partitions > 0 ? td_topics[id].partitions : (int)settings->kafka_lanes;
        rd_kafka_resp_err_t err;

        td_topic_name(name, sizeof(name), settings->kafka_topic_prefix, id);
        err = rd_kafka_mock_topic_create(cluster, name, partitions, brokers);
        if (err) {
            fprintf(stderr, "devbroker: topic %s: %s\n", name, rd_kafka_err2str(err));
            return EXIT_INTERNAL;
        }
    }
    return 0;
}

/* Whole or not at all: who waits for the file must not read half an address. */
static int write_ready_file(const char *file, const char *bootstrap)
{
    char part[4096];
    FILE *out;
    bool wrote;

    if (!file)
        return 0;
    if (snprintf(part, sizeof(part), "%s.part", file) >= (int)sizeof(part))
        return EXIT_USAGE;
    out = fopen(part, "we");
    wrote = out && fprintf(out, "%s\n", bootstrap) > 0;
    if (out)
        wrote = fclose(out) == 0 && wrote;
    if (!wrote || rename(part, file) != 0) {
        fprintf(stderr, "devbroker: cannot write %s: %s\n", file, strerror(errno));
        return EXIT_CONFIG;
    }
    return 0;
}

/* The cluster lives on threads of `rk`; this one sleeps until it is told to end. */
static int serve(rd_kafka_t *rk, const struct options *options, const struct td_settings *settings,
                 const sigset_t *ending)
{
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(rk, options->brokers);
    const char *bootstrap;
    int number, code;

    if (!cluster) {
        fprintf(stderr, "devbroker: librdkafka cannot make a mock cluster\n");
        return EXIT_INTERNAL;
    }
    code = create_topics(cluster, settings, options->brokers);
    bootstrap = rd_kafka_mock_cluster_bootstraps(cluster);
    if (code == 0)
        code = write_ready_file(options->ready_file, bootstrap);
    if (code == 0) {
        printf("%s  in memory, for a first look: a partition keeps its newest 5 MiB or 100,000 batches, all is "
               "gone at the "
               "end; not for real mail\n",
               bootstrap);
        fflush(stdout);
        sigwait(ending, &number);
        if (options->ready_file)
            remove(options->ready_file);
    }
    rd_kafka_mock_cluster_destroy(cluster);
    return code;
}

static int run(const struct options *options)
{
    struct td_settings settings;
    struct td_err err;
    rd_kafka_conf_t *conf;
    rd_kafka_t *rk;
    sigset_t ending;
    char text[200];
    int code;

    if (td_cmdline_load(&options->cmdline, &settings, &err) < 0) {
        fprintf(stderr, "devbroker: %s\n", err.text);
        return EXIT_CONFIG;
    }
    /* Before librdkafka makes its threads, so that none of them takes these. */
    sigemptyset(&ending);
    sigaddset(&ending, SIGTERM);
    sigaddset(&ending, SIGINT);
    sigprocmask(SIG_BLOCK, &ending, NULL);
    conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "log_level", "4", NULL, 0); /* or it remarks that it has no brokers: it is one */
    rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
    if (!rk) {
        rd_kafka_conf_destroy(conf);
        td_settings_release(&settings);
        fprintf(stderr, "devbroker: %s\n", text);
        return EXIT_INTERNAL;
    }
    code = serve(rk, options, &settings, &ending);
    rd_kafka_destroy(rk);
    td_settings_release(&settings);
    return code;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {option_table,
                                     parse_option,
                                     NULL,
                                     "tandem-devbroker: a Kafka in memory on this machine, with Tandem's topics\v"
                                     "Prints one line, first the bootstrap address. The port is chosen by the "
                                     "system. Of the settings, kafka.lanes and "
                                     "kafka.topic_prefix are looked at. Ends on SIGTERM.\n"
                                     "Exit codes: 0 ended, 64 usage, 70 internal, 78 configuration.",
                                     NULL,
                                     NULL,
                                     NULL};
    struct options options = {.brokers = 1};
    int code;

    argp_program_version = "tandem-devbroker " TD_VERSION;
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &options);
    code = run(&options);
    td_cmdline_release(&options.cmdline);
    return code;
}
