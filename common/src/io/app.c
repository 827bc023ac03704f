/* The life of a service:
 *
 *   options -> settings -> log -> loop, metrics, HTTP -> service->start -> READY
 *     -> SIGTERM -> service->stop -> td_app_stopped -> service->free -> all closed -> 0, or 75 when something is left
 *
 * Two things end a stop that does not end: a timer in the loop, and, in case the loop itself hangs, alarm(2). */
#include "tandem/app.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../app_int.h"
#include "../log_line.h"
#include "../notify.h"
#include "tandem/clock.h"
#include "tandem/kafka.h"
#include "tandem/log.h"
#include "tandem/stop.h"

enum { GRACE_MS = 5000, LAST_GRACE_S = 5, HEALTH_TIMEOUT_MS = 2000, CLOSE_MS = 1000 };

#ifdef __has_feature
#define CLANG_SANITIZER (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define CLANG_SANITIZER 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || CLANG_SANITIZER
enum { UNDER_SANITIZER = 1 };
#else
enum { UNDER_SANITIZER = 0 };
#endif
/* With LeakSanitizer: does it find a leak? */
__attribute__((weak)) int __lsan_do_recoverable_leak_check(void); /* NOLINT(bugprone-reserved-identifier): its name */

static struct td_app_run *run_of(struct td_app *app)
{
    return (struct td_app_run *)(void *)app;
}

/* A core dump or a debugger would show keys, addresses and mails. LeakSanitizer works by ptrace, so not under it.
 */
static void harden(void)
{
    static const struct rlimit none = {0, 0};

    signal(SIGPIPE, SIG_IGN);
    if (UNDER_SANITIZER)
        return;
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static int exit_code_of(int code)
{
    if (code == TD_ECONFIG || code == TD_EDENIED || code == TD_EINVAL)
        return TD_EXIT_CONFIG;
    return code == TD_EFATAL || td_code_retriable((enum td_code)code) ? TD_EXIT_AGAIN : TD_EXIT_INTERNAL;
}

static void finish(struct td_app_run *run, int exit_code)
{
    if (run->finished)
        return; /* the first reason counts */
    run->finished = true;
    run->exit_code = exit_code;
    uv_stop(&run->loop);
}

void td_app_stopped(struct td_app *app)
{
    finish(run_of(app), TD_EXIT_OK);
}

void td_app_left(struct td_app *app, const char *what, size_t count)
{
    struct td_app_run *run = run_of(app);

    if (count == 0 || run->left_count == TD_APP_LEFT_MAX)
        return;
    run->left[run->left_count].what = what;
    run->left[run->left_count++].count = count;
}

/* A restart has something to do: that is what code 75 says. */
static void tell_left(struct td_app_run *run)
{
    char text[TD_APP_LEFT_MAX * 64] = "";
    size_t len = 0;

    for (size_t i = 0; i < run->left_count && len < sizeof(text); i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s=%zu ", run->left[i].what, run->left[i].count);
    if (run->left_count == 0)
        return;
    if (run->exit_code == TD_EXIT_OK)
        run->exit_code = TD_EXIT_AGAIN;
    td_log(TD_WARN, "stop.undone", "%sexit=%d", text, run->exit_code);
}

/* The state is not to be trusted any more: no destructor runs. */
static void leave_now(const char *why)
{
    td_log(TD_ERROR, "stop.overdue", "why=\"%s\" exit=%d", why, (int)TD_EXIT_AGAIN);
    _exit(TD_EXIT_AGAIN);
}

static void on_overdue(uv_timer_t *timer)
{
    (void)timer;
    leave_now("not drained in time");
}

static void on_alarm(int number)
{
    static const char line[] =
        "{\"level\":\"error\",\"event\":\"stop.overdue\",\"why\":\"the loop hangs\",\"exit\":75}\n";

    (void)number;
    (void)!write(STDERR_FILENO, line, sizeof(line) - 1); /* only what signal-safety(7) allows */
    _exit(TD_EXIT_AGAIN);
}

/* From here on the process will end, whatever hangs. */
static void stop_begin(struct td_app_run *run)
{
    uint64_t drain_ms = (uint64_t)run->app.settings->dispatch_drain_ms;

    td_stop_begin(drain_ms);
    td_notify("STOPPING=1");
    uv_timer_start(&run->overdue, on_overdue, drain_ms + GRACE_MS, 0);
    signal(SIGALRM, on_alarm);
    alarm((unsigned)((drain_ms + GRACE_MS) / 1000) + LAST_GRACE_S);
}

void td_app_fail(struct td_app *app, const struct td_err *err)
{
    struct td_app_run *run = run_of(app);

    td_log(TD_ERROR, "fail", "code=%s why=\"%s\"", td_code_name(err->code), err->text);
    if (!run->stopping)
        stop_begin(run);
    finish(run, TD_EXIT_AGAIN);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct td_app_run *run = handle->data;

    if (run->stopping)
        leave_now("second signal");
    run->stopping = true;
    td_log(TD_INFO, "stop.begin", "signal=%d drain_ms=%lld", number, (long long)run->app.settings->dispatch_drain_ms);
    stop_begin(run);
    run->service->stop(run->state);
}

static void on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    td_notify("WATCHDOG=1");
}

static void on_turn(uv_prepare_t *turn)
{
    struct td_app_run *run = turn->data;

    td_stages_turn(&run->stages, uv_now(&run->loop));
}

static int loop_begin(struct td_app_run *run, struct td_err *reterr)
{
    uint64_t watchdog_ms = td_notify_watchdog_ms();

    if (uv_loop_init(&run->loop) < 0)
        return td_fail(reterr, TD_EFATAL, "no event loop");
    run->app.loop = &run->loop;
    run->loop.data = run;
    uv_timer_init(&run->loop, &run->overdue);
    uv_timer_init(&run->loop, &run->watchdog);
    uv_signal_init(&run->loop, &run->term);
    uv_signal_init(&run->loop, &run->intr);
    uv_prepare_init(&run->loop, &run->turn);
    run->turn.data = run;
    run->term.data = run->intr.data = run;
    uv_signal_start(&run->term, on_signal, SIGTERM);
    uv_signal_start(&run->intr, on_signal, SIGINT);
    if (watchdog_ms)
        uv_timer_start(&run->watchdog, on_watchdog, 0, watchdog_ms);
    td_stages_init(&run->stages, td_thread_cpu_ns, td_mono_us());
    uv_prepare_start(&run->turn, on_turn);
    uv_unref((uv_handle_t *)&run->turn);
    return TD_OK;
}

/* Callbacks of uv_close need some rounds; work in the thread pool may wait for Kafka. */
static void loop_end(struct td_app_run *run)
{
    uint64_t until_ms = td_mono_ms() + CLOSE_MS, stop_ms = td_stop_by(TD_STOP_CLOSE);

    if (stop_ms != UINT64_MAX && stop_ms > until_ms)
        until_ms = stop_ms;
    uv_close((uv_handle_t *)&run->overdue, NULL);
    uv_close((uv_handle_t *)&run->watchdog, NULL);
    uv_close((uv_handle_t *)&run->term, NULL);
    uv_close((uv_handle_t *)&run->intr, NULL);
    uv_close((uv_handle_t *)&run->turn, NULL);
    td_stages_end(&run->stages);
    while (uv_run(&run->loop, UV_RUN_NOWAIT) && td_mono_ms() < until_ms)
        usleep(1000);
    if (uv_loop_close(&run->loop) < 0)
        td_log(TD_WARN, "loop.busy", "why=\"a handle was left open\"");
}

static int metrics_begin(struct td_app_run *run)
{
    char labels[128];

    run->app.metrics = td_metrics_new();
    if (!run->app.metrics)
        return TD_ENOMEM;
    snprintf(labels, sizeof(labels), "service=\"%s\",version=\"%s\"", run->service->name, TD_VERSION);
    td_metric_set(
        td_metric(run->app.metrics, TD_GAUGE, "tandem_build_info", "Always 1; the labels say what runs.", labels),
        1);
    td_metric_set(
        td_metric(run->app.metrics, TD_GAUGE, "process_start_time_seconds", "Start, Unix time in seconds.", ""),
        (double)td_wall_ms() / 1000);
    run->rss = td_metric(run->app.metrics, TD_GAUGE, "process_resident_memory_bytes", "Resident memory.", "");
    run->cpu =
        td_metric(run->app.metrics, TD_COUNTER, "process_cpu_seconds_total", "User and system CPU time.", "");
    return TD_OK;
}

static int begin(struct td_app_run *run, struct td_err *reterr)
{
    int rc = metrics_begin(run);

    if (rc == TD_OK)
        rc = td_http_new(&run->loop, run->app.settings->http_listen, &run->app.http, reterr);
    else
        td_fail(reterr, TD_ENOMEM, "no memory for metrics");
    if (rc < 0)
        return rc;
    if (td_app_routes(run) < 0)
        return td_fail(reterr, TD_ENOMEM, "no memory for routes");
    return run->service->start(&run->app, &run->state, reterr);
}

/* A client of Kafka that waits for a broker has not closed: it ends with the process, and nothing that runs at exit(3) may
 * run beside its threads. */
static void leave_beside_threads(struct td_app_run *run, size_t clients)
{
    td_log(TD_INFO, "exit", "exit=%d open_kafka_clients=%zu", run->exit_code, clients);
    if (__lsan_do_recoverable_leak_check && __lsan_do_recoverable_leak_check())
        run->exit_code = TD_EXIT_INTERNAL;
    fflush(NULL);
    _exit(run->exit_code);
}

static int run_service(const struct td_service *service, const struct td_settings *settings)
{
    size_t clients;
    struct td_app_run run = {.service = service, .app = {.settings = settings, .service = service->name}};
    struct td_err err = {TD_OK, ""};
    int rc = loop_begin(&run, &err);

    if (rc < 0) {
        td_log(TD_ERROR, "start.failed", "code=%s why=\"%s\"", td_code_name(err.code), err.text);
        return TD_EXIT_AGAIN;
    }
    rc = begin(&run, &err);
    if (rc == TD_OK) {
        run.started = true;
        td_log(TD_INFO, "start", "version=\"%s\" http_port=%d pid=%d", TD_VERSION, td_http_port(run.app.http),
               (int)getpid());
        td_notify("READY=1");
        while (!run.finished && uv_run(&run.loop, UV_RUN_DEFAULT))
            ; /* until td_app_stopped, td_app_fail or, in a broken service, nothing left to wait for */
        service->free(run.state);
    } else {
        run.exit_code = exit_code_of(rc);
        td_log(TD_ERROR, "start.failed", "code=%s why=\"%s\" exit=%d", td_code_name((enum td_code)rc), err.text,
               run.exit_code);
    }
    td_http_free(run.app.http);
    loop_end(&run);
    td_metrics_free(run.app.metrics);
    tell_left(&run);
    clients = td_kafka_ended(td_stop_by(TD_STOP_CLOSE));
    if (clients > 0)
        leave_beside_threads(&run, clients);
    td_log(TD_INFO, "exit", "exit=%d", run.exit_code);
    return run.exit_code;
}

static int check_health(const struct td_service *service, const struct td_settings *settings)
{
    int status = td_http_get_status(settings->http_listen, "/readyz", HEALTH_TIMEOUT_MS);

    if (status == 200)
        return 0;
    if (status < 0)
        fprintf(stderr, "tandem-%s: no answer at %s: %s\n", service->name, settings->http_listen,
                td_code_name((enum td_code)status));
    else
        fprintf(stderr, "tandem-%s: /readyz says %d\n", service->name, status);
    return 1;
}

static int check_config(const struct td_service *service, const struct td_settings *settings)
{
    const struct td_strings *warnings = td_settings_warnings(settings);
    struct td_err err = {TD_OK, ""};

    for (size_t i = 0; i < warnings->count; i++)
        fprintf(stderr, "tandem-%s: warning: %s\n", service->name, warnings->item[i]);
    if (service->check && service->check(settings, &err) < 0) {
        fprintf(stderr, "tandem-%s: %s\n", service->name, err.text);
        return TD_EXIT_CONFIG;
    }
    puts("ok");
    return TD_EXIT_OK;
}

static int act(const struct td_service *service, const struct td_settings *settings, enum td_app_mode mode)
{
    const struct td_strings *warnings = td_settings_warnings(settings);

    switch (mode) {
    case TD_MODE_CHECK:
        return check_config(service, settings);
    case TD_MODE_PRINT:
        td_settings_print(settings, stdout);
        return TD_EXIT_OK;
    case TD_MODE_HEALTH:
        return check_health(service, settings);
    case TD_MODE_RUN:
        break;
    }
    td_log_setup(service->name, settings->instance, (enum td_level)td_level_parse(settings->log_level));
    td_log_force_json(settings->log_json);
    for (size_t i = 0; i < warnings->count; i++)
        td_log(TD_WARN, "config.weak", "why=\"%s\"", warnings->item[i]);
    return run_service(service, settings);
}

int td_app_main(int argc, char **argv, const struct td_service *service)
{
    struct td_app_options options;
    struct td_settings settings;
    struct td_err err = {TD_OK, ""};
    int exit_code;

    harden();
    td_log_setup(service->name, "-", TD_INFO);
    if (td_app_options_parse(argc, argv, service, &options, &err) < 0) {
        fprintf(stderr, "tandem-%s: %s\n", service->name, err.text);
        return TD_EXIT_USAGE;
    }
    if (td_cmdline_load(&options.cmdline, &settings, &err) < 0) {
        exit_code = options.mode == TD_MODE_HEALTH ? 1 : TD_EXIT_CONFIG;
        if (options.mode == TD_MODE_RUN)
            td_log(TD_ERROR, "config.refused", "why=\"%s\" exit=%d", err.text, exit_code);
        else
            fprintf(stderr, "tandem-%s: %s\n", service->name, err.text);
    } else {
        exit_code = act(service, &settings, options.mode);
        td_settings_release(&settings);
    }
    td_cmdline_release(&options.cmdline);
    return exit_code;
}
