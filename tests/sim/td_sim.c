/* td_sim - run seeds of the simulation. See README.md. */
#include "sim.h"

#include <argp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { JOBS_MAX = 64 };

struct options {
    uint64_t from, to;
    unsigned jobs;
    bool verbose;
    struct sim_options sim;
};

/* One line a seed from a worker to the parent: fits into a pipe's atomic write. */
struct report {
    uint64_t seed, ran, virtual_ms, weakened, weakened_repeats, weakened_alive, unconfirmed, accepted, kills,
        recipients;
    bool begun, failed;
    char why[400];
};

static error_t on_option(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    char *end = NULL;

    switch (key) {
    case 's':
        o->from = strtoull(arg, &end, 10);
        o->to = *end == '-' ? strtoull(end + 1, &end, 10) : o->from;
        break;
    case 'n':
        o->from = o->to = strtoull(arg, &end, 10);
        break;
    case 'j':
        o->jobs = (unsigned)strtoul(arg, &end, 10);
        break;
    case 't':
        o->sim.trace = true;
        return 0;
    case 'v':
        o->verbose = true;
        return 0;
    case 'e':
        o->sim.empty_redis = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    if (*end || o->to < o->from || o->jobs < 1 || o->jobs > JOBS_MAX)
        argp_error(state, "not a number or a range: %s", arg);
    return 0;
}

static struct report run_one(uint64_t seed, const struct sim_options *options)
{
    bool well = sim_run(seed, options);
    struct report report = {.seed = seed,
                            .ran = sim.ran,
                            .virtual_ms = sim.now / MS,
                            .weakened = sim.weakened,
                            .weakened_repeats = sim.weakened_repeats,
                            .weakened_alive = sim.weakened_alive,
                            .unconfirmed = sim.unconfirmed,
                            .accepted = sim.accepted,
                            .kills = sim.kills,
                            .recipients = sim.recipients,
                            .failed = !well};

    memcpy(report.why, sim.why, sizeof(report.why));
    return report;
}

static void put(int fd, const struct report *report)
{
    if (write(fd, report, sizeof(*report)) != (ssize_t)sizeof(*report))
        _exit(1);
}

static void work(const struct options *o, unsigned job, int fd)
{
    for (uint64_t seed = o->from + job; seed <= o->to; seed += o->jobs) {
        struct report report = {.seed = seed, .begun = true};

        put(fd, &report);
        report = run_one(seed, &o->sim);
        put(fd, &report);
    }
}

struct sums {
    uint64_t seeds, failed, weakened, weakened_repeats, weakened_alive, weak_seeds, unconfirmed, accepted, kills,
        recipients, ran, virtual_ms;
};

static void add(struct sums *sums, const struct report *report, bool verbose)
{
    sums->seeds++;
    sums->failed += report->failed;
    sums->weakened += report->weakened;
    sums->weakened_repeats += report->weakened_repeats;
    sums->weakened_alive += report->weakened_alive;
    sums->weak_seeds += report->weakened > 0;
    sums->unconfirmed += report->unconfirmed;
    sums->accepted += report->accepted;
    sums->kills += report->kills;
    sums->recipients += report->recipients;
    sums->ran += report->ran;
    sums->virtual_ms += report->virtual_ms;
    if (report->failed)
        printf("FAIL seed %llu %s\n", (unsigned long long)report->seed, report->why);
    else if (verbose)
        printf("ok   seed %llu: %llu events, %llu ms, %llu unconfirmed, %llu weakened\n",
               (unsigned long long)report->seed, (unsigned long long)report->ran,
               (unsigned long long)report->virtual_ms, (unsigned long long)report->unconfirmed,
               (unsigned long long)report->weakened);
    fflush(stdout);
}

/* A worker that dies (a sanitizer, an assert) fails the seed it was at; its other seeds then did not run. */
static void ended(pid_t pid, struct report *last, const struct options *o, struct sums *sums)
{
    int status;

    if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    last->failed = true;
    snprintf(last->why, sizeof(last->why), "crash: the worker died at this seed");
    add(sums, last, o->verbose);
}

static pid_t begin(const struct options *o, unsigned job, int *ret_fd)
{
    int fd[2];
    pid_t pid;

    fflush(stdout);
    if (pipe(fd) < 0 || (pid = fork()) < 0)
        abort();
    if (pid == 0) {
        close(fd[0]);
        work(o, job, fd[1]);
        _exit(0);
    }
    close(fd[1]);
    *ret_fd = fd[0];
    return pid;
}

static void run_all(const struct options *o, struct sums *sums)
{
    struct pollfd fds[JOBS_MAX];
    pid_t pid[JOBS_MAX];
    static struct report last[JOBS_MAX];
    unsigned left = o->jobs;

    for (unsigned job = 0; job < o->jobs; job++) {
        pid[job] = begin(o, job, &fds[job].fd);
        fds[job].events = POLLIN;
    }
    while (left > 0 && poll(fds, o->jobs, -1) > 0)
        for (unsigned job = 0; job < o->jobs; job++) {
            struct report report;

            if (!fds[job].revents)
                continue;
            if (read(fds[job].fd, &report, sizeof(report)) == (ssize_t)sizeof(report)) {
                last[job] = report;
                if (!report.begun)
                    add(sums, &report, o->verbose);
                continue;
            }
            close(fds[job].fd);
            fds[job].fd = -1;
            left--;
            ended(pid[job], &last[job], o, sums);
        }
}

int main(int argc, char **argv)
{
    static const struct argp_option table[] = {
        {"seeds", 's', "FROM-TO", 0, "run these seeds, both ends included (default 1-1000)", 0},
        {"seed", 'n', "N", 0, "run one seed", 0},
        {"jobs", 'j', "N", 0, "processes (default: 2)", 0},
        {"trace", 't', NULL, 0, "with --seed: print all that happens", 0},
        {"verbose", 'v', NULL, 0, "a line for every seed", 0},
        {"empty-redis", 'e', NULL, 0, "Redis may come back without its data: L, C and D do not hold then", 0},
        {0}};
    static const struct argp argp = {
        table, on_option, NULL, "Simulate dispatchers, Kafka, Redis, relays and faults.", NULL, NULL, NULL};
    struct options options = {.from = 1, .to = 1000, .jobs = 2};
    struct sums sums = {0};

    if (argp_parse(&argp, argc, argv, 0, NULL, &options) != 0)
        return 64;
    if (options.from == options.to) {
        struct report report = run_one(options.from, &options.sim);

        add(&sums, &report, true);
    } else {
        options.sim.trace = false;
        run_all(&options, &sums);
    }
    printf("%llu recipients, %llu accepted, %llu unconfirmed, %llu kills, %llu events in %llu virtual hours; "
           "beyond the ledger's reach: %llu (%llu by nobody's death, and %llu repeats) in %llu seeds\n",
           (unsigned long long)sums.recipients, (unsigned long long)sums.accepted,
           (unsigned long long)sums.unconfirmed, (unsigned long long)sums.kills, (unsigned long long)sums.ran,
           (unsigned long long)(sums.virtual_ms / 3600000), (unsigned long long)sums.weakened,
           (unsigned long long)sums.weakened_alive, (unsigned long long)sums.weakened_repeats,
           (unsigned long long)sums.weak_seeds);
    printf("%llu seeds, %llu failed\n", (unsigned long long)sums.seeds, (unsigned long long)sums.failed);
    return sums.failed ? 1 : 0;
}
