/* main.c - tandem-relaysim: an SMTP relay to rehearse with. Options, wiring, loop, exit code. */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bouncer.h"
#include "control.h"
#include "session.h"
#include "sns.h"

enum { EXIT_AGAIN = 75, EXIT_CONFIG = 78 };

#define ACCEPTS_PER_ROUND 64

struct signals {
    struct watch watch;
    struct sim *sim;
};

static void on_signal(struct watch *watch, uint32_t events)
{
    (void)events;
    ((struct signals *)watch)->sim->loop.stop = true;
}

static int accept_one(struct listener *listener, uint16_t *ret_port)
{
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof(peer);
    int fd = accept4(listener->watch.fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): accept4 set it */
        *ret_port = ntohs(peer.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&peer)->sin6_port
                                                     : ((struct sockaddr_in *)&peer)->sin_port);
    return fd;
}

static void on_smtp_peer(struct watch *watch, uint32_t events)
{
    struct listener *listener = (struct listener *)watch;
    uint16_t port = 0;

    (void)events;
    for (int i = 0; i < ACCEPTS_PER_ROUND; i++) {
        int fd = accept_one(listener, &port);

        if (fd < 0)
            return;
        session_accept(listener, fd, port);
    }
}

static void on_control_peer(struct watch *watch, uint32_t events)
{
    uint16_t port = 0;
    int fd = accept_one((struct listener *)watch, &port);

    (void)events;
    if (fd >= 0)
        control_accept(((struct listener *)watch)->sim, fd);
}

static void on_refuse_timer(struct timer *timer)
{
    sim_check_refusing((struct sim *)((char *)timer - offsetof(struct sim, refuse_timer)));
}

static int listen_smtp(struct sim *sim, struct td_err *reterr)
{
    for (size_t i = 0; i < 2; i++)
        if (sim->listener[i].where) {
            int rc = listener_open(&sim->listener[i], on_smtp_peer, reterr);

            if (rc < 0)
                return rc;
        }
    return TD_OK;
}

void sim_check_refusing(struct sim *sim)
{
    uint64_t wake_ns = 0;
    bool refuse = fault_refusing(&sim->faults, sim->loop.now_ns, sim->taken_ever, &wake_ns);
    struct td_err err = {.code = TD_OK};

    if (wake_ns)
        loop_timer(&sim->loop, &sim->refuse_timer, wake_ns);
    if (refuse == sim->refusing)
        return;
    sim->refusing = refuse;
    if (refuse) {
        for (size_t i = 0; i < 2; i++)
            loop_close(&sim->loop, &sim->listener[i].watch);
        return;
    }
    if (listen_smtp(sim, &err) < 0) {
        /* Some other program may have the port for a moment: a relay that comes back later is still a relay. */
        fprintf(stderr, "relaysim: cannot listen again, will try: %s\n", err.text);
        for (size_t i = 0; i < 2; i++)
            loop_close(&sim->loop, &sim->listener[i].watch);
        sim->refusing = true;
        loop_timer(&sim->loop, &sim->refuse_timer, sim->loop.now_ns + 100000000u);
    }
}

static int read_password(struct sim *sim, struct td_err *reterr)
{
    const char *file = sim->options.password_file;
    FILE *in = fopen(file, "re");
    size_t cap = 0;
    ssize_t len = in ? getline(&sim->password, &cap, in) : -1;
    int rc = TD_OK;

    while (len > 0 && (sim->password[len - 1] == '\n' || sim->password[len - 1] == '\r'))
        sim->password[--len] = '\0';
    if (len <= 0)
        rc = td_fail(reterr, TD_ECONFIG, "no password in %s", file);
    if (in)
        fclose(in);
    return rc;
}

static int write_ready_file(const struct sim *sim, struct td_err *reterr)
{
    const char *file = sim->options.ready_file;
    char part[4096];
    FILE *out;
    bool wrote;

    if (!file)
        return TD_OK;
    if (snprintf(part, sizeof(part), "%s.part", file) >= (int)sizeof(part))
        return td_fail(reterr, TD_ECONFIG, "--ready-file: name too long");
    out = fopen(part, "we");
    if (!out)
        return td_fail(reterr, TD_ECONFIG, "%s: %s", part, strerror(errno));
    wrote = fprintf(out, "{\"pid\":%ld,\"port\":%u,\"tls_port\":%u,\"control_port\":%u}\n", (long)getpid(),
                    sim->listener[0].port, sim->listener[1].port, sim->control.port) > 0;
    if (fclose(out) != 0 || !wrote || rename(part, file) != 0) /* whoever waits for it never sees half of it */
        return td_fail(reterr, TD_ECONFIG, "%s: %s", file, strerror(errno));
    return TD_OK;
}

static int watch_signals(struct signals *signals, struct td_err *reterr)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    signals->watch = (struct watch){.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), .ready = on_signal};
    if (signals->watch.fd < 0 || loop_watch(&signals->sim->loop, &signals->watch, EPOLLIN) < 0)
        return td_fail(reterr, TD_EFATAL, "signalfd: %s", strerror(errno));
    return TD_OK;
}

struct ending {
    struct sim *sim;
    struct td_err err;
};

/* No reply may go out when the ledger could not be written: then the relay ends, as if it had been killed. */
static void on_round_end(void *arg)
{
    struct ending *ending = arg;

    if (session_round_end(ending->sim, &ending->err) < 0)
        ending->sim->loop.stop = true;
}

static int sim_init(struct sim *sim, struct td_err *reterr)
{
    struct timespec unix_now;
    int rc = loop_init(&sim->loop, reterr);

    if (rc < 0)
        return rc;
    clock_gettime(CLOCK_REALTIME, &unix_now);
    sim->started_ns = loop_clock_ns();
    sim->unix_offset_ns = (uint64_t)unix_now.tv_sec * 1000000000u + (uint64_t)unix_now.tv_nsec - sim->started_ns;
    sim->refuse_timer.fire = on_refuse_timer;
    sim->listener[0] = (struct listener){.watch.fd = -1, .sim = sim, .where = sim->options.listen};
    sim->listener[1] =
        (struct listener){.watch.fd = -1, .sim = sim, .where = sim->options.listen_tls, .implicit_tls = true};
    sim->control = (struct listener){.watch.fd = -1, .sim = sim, .where = sim->options.control};
    sim->input = malloc(INPUT_MAX);
    if (!sim->input || throttle_init(&sim->throttle, sim->options.rate, sim->options.daily, sim->started_ns) < 0)
        return td_fail(reterr, TD_ENOMEM, "out of memory");
    if (sim->options.user && (rc = read_password(sim, reterr)) < 0)
        return rc;
    if ((rc = tls_init(&sim->tls, &sim->options, reterr)) < 0)
        return rc;
    if ((rc = ledger_open(&sim->ledger, sim->options.ledger_file, reterr)) < 0)
        return rc;
    if (sim->options.bounce_to && !(sim->bouncer = bouncer_new(sim, reterr)))
        return TD_ECONFIG;
    if (sim->options.sns_url && !(sim->sns = sns_new(sim, reterr)))
        return TD_ECONFIG;
    if ((rc = listen_smtp(sim, reterr)) < 0)
        return rc;
    return sim->control.where ? listener_open(&sim->control, on_control_peer, reterr) : TD_OK;
}

static void sim_release(struct sim *sim)
{
    session_free_all(sim);
    bouncer_free(sim->bouncer);
    sns_free(sim->sns);
    for (size_t i = 0; i < 2; i++)
        loop_close(&sim->loop, &sim->listener[i].watch);
    loop_close(&sim->loop, &sim->control.watch);
    ledger_close(&sim->ledger);
    tls_release(&sim->tls);
    throttle_release(&sim->throttle);
    free(sim->password);
    free(sim->input);
    loop_release(&sim->loop);
}

static void allow_many_files(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv)
{
    struct sim *sim = calloc(1, sizeof(*sim));
    struct ending ending = {.sim = sim};
    struct signals signals = {.watch.fd = -1, .sim = sim};
    int rc;

    if (!sim)
        return EXIT_AGAIN;
    sim->loop.epoll_fd = sim->ledger.fd = -1;
    options_parse(&sim->options, argc, argv);
    allow_many_files();
    rc = sim_init(sim, &ending.err);
    if (rc == TD_OK)
        rc = watch_signals(&signals, &ending.err);
    if (rc == TD_OK)
        rc = ledger_event(&sim->ledger, sim_unix_us(sim, loop_clock_ns()), "relaysim " TD_VERSION " started");
    if (rc == TD_OK)
        rc = ledger_flush(&sim->ledger, &ending.err); /* a ledger that cannot be written shows before any mail */
    if (rc == TD_OK)
        rc = write_ready_file(sim, &ending.err);
    if (rc == TD_OK) {
        sim->loop.round_end = on_round_end;
        sim->loop.arg = &ending;
        rc = loop_run(&sim->loop, &ending.err);
    }
    if (rc == TD_OK)
        rc = ending.err.code; /* TD_OK, or what ended the loop */
    if (rc < 0)
        fprintf(stderr, "relaysim: %s\n", ending.err.text);
    loop_close(&sim->loop, &signals.watch);
    sim_release(sim);
    free(sim);
    return rc == TD_OK ? 0 : rc == TD_ECONFIG ? EXIT_CONFIG : EXIT_AGAIN;
}
