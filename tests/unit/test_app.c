/* td_app_main in a process of its own: exit codes, what is printed, signals, HTTP. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tandem/app.h"
#include "tandem/clock.h"
#include "tandem/log.h"
#include "tandem/stop.h"

enum { OUTPUT_MAX = 65536, PATIENCE_MS = 30000 };

/* A service with a handle of its own, so that what it leaves open would be seen. */
struct state {
    struct td_app *app;
    uv_timer_t *timer;
};

static const char *start_mode = ""; /* set in the child */

static void on_tick(uv_timer_t *timer)
{
    struct state *state = timer->data;
    struct td_err err;

    if (strcmp(start_mode, "breaks") == 0) {
        td_fail(&err, TD_EFATAL, "fenced");
        td_app_fail(state->app, &err);
    }
}

static int service_start(struct td_app *app, void **ret_state, struct td_err *reterr)
{
    struct state *state;

    if (strcmp(start_mode, "needs a key") == 0)
        return td_fail(reterr, TD_ECONFIG, "keys.token is not set");
    if (strcmp(start_mode, "no broker") == 0)
        return td_fail(reterr, TD_EIO, "no broker");
    state = calloc(1, sizeof(*state));
    state->app = app;
    state->timer = calloc(1, sizeof(*state->timer));
    uv_timer_init(app->loop, state->timer);
    state->timer->data = state;
    uv_timer_start(state->timer, on_tick, 50, 50);
    td_metric_add(td_metric(app->metrics, TD_COUNTER, "tandem_test_ticks_total", "Ticks.", ""), 1);
    *ret_state = state;
    return TD_OK;
}

static void service_stop(void *user)
{
    struct state *state = user;

    if (strcmp(start_mode, "stuck") != 0)
        td_app_stopped(state->app);
}

static bool service_ready(void *user, char *why, size_t size)
{
    (void)user;
    if (strcmp(start_mode, "not ready") != 0)
        return true;
    snprintf(why, size, "no \"lanes\" yet");
    return false;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

static void service_free(void *user)
{
    struct state *state = user;

    if (strcmp(start_mode, "leaves") == 0) {
        td_app_left(state->app, "records_unsent", 3);
        td_app_left(state->app, "offsets_uncommitted", 0);
        td_app_left(state->app, "mails_without_outcome", 2);
    }
    uv_close((uv_handle_t *)state->timer, on_timer_closed);
    free(state);
}

static int service_check(const struct td_settings *settings, struct td_err *reterr)
{
    return settings->kafka_lanes == 13 ? td_fail(reterr, TD_ECONFIG, "thirteen lanes") : TD_OK;
}

static const struct td_service service = {.name = "test",
                                          .summary = "does nothing, well",
                                          .start = service_start,
                                          .stop = service_stop,
                                          .ready = service_ready,
                                          .free = service_free,
                                          .check = service_check};

struct child {
    pid_t pid;
    int out; /* stdout and stderr */
    char text[OUTPUT_MAX];
    size_t len;
};

static void spawn(struct child *child, const char *mode, int argc, char **argv)
{
    int pipes[2];

    memset(child, 0, sizeof(*child));
    assert_int_equal(pipe(pipes), 0);
    child->pid = fork();
    assert_true(child->pid >= 0);
    if (child->pid == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        close(pipes[0]);
        close(pipes[1]);
        start_mode = mode;
        exit(td_app_main(argc, argv, &service)); /* exit, so that LeakSanitizer looks */
    }
    close(pipes[1]);
    child->out = pipes[0];
}

/* Read until needle has come (true) or the child's output ends. */
static bool read_until(struct child *child, const char *needle)
{
    struct pollfd pfd = {.fd = child->out, .events = POLLIN};

    while (!needle || !strstr(child->text, needle)) {
        ssize_t n;

        if (poll(&pfd, 1, PATIENCE_MS) <= 0)
            fail_msg("no output in time; so far: %s", child->text);
        n = read(child->out, child->text + child->len, OUTPUT_MAX - 1 - child->len);
        if (n <= 0)
            return false;
        child->len += (size_t)n;
    }
    return true;
}

static int wait_exit(struct child *child)
{
    int status = 0;

    read_until(child, NULL);
    close(child->out);
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    if (!WIFEXITED(status))
        fail_msg("killed by signal %d: %s", WTERMSIG(status), child->text);
    return WEXITSTATUS(status);
}

#define ARGS(...)                                                                                                 \
    (int)(sizeof((char *[]){"tandem-test", __VA_ARGS__}) / sizeof(char *)), (char *[])                            \
    {                                                                                                             \
        "tandem-test", __VA_ARGS__, NULL                                                                          \
    }

static struct child child; /* large: not on the stack */

static int run(const char *mode, int argc, char **argv)
{
    spawn(&child, mode, argc, argv);
    return wait_exit(&child);
}

static int start_service(const char *mode)
{
    const char *port;

    spawn(&child, mode, ARGS("--set", "http.listen=127.0.0.1:0", "--set", "dispatch.drain=1s"));
    assert_true(read_until(&child, "\"event\":\"start\""));
    assert_true(read_until(&child, "}\n"));
    port = strstr(child.text, "\"http_port\":");
    assert_non_null(port);
    return (int)strtol(port + strlen("\"http_port\":"), NULL, 10);
}

static void options_and_their_exit_codes(void **unused)
{
    (void)unused;
    assert_int_equal(run("", ARGS("--version")), 0);
    assert_non_null(strstr(child.text, "tandem-test " TD_VERSION "\n"));
    assert_int_equal(run("", ARGS("--help")), 0);
    assert_non_null(strstr(child.text, "does nothing, well"));
    assert_non_null(strstr(child.text, "  dispatch.window = 2000  number, 1 to 100000\n"));
    assert_int_equal(run("", ARGS("--no-such-option")), 64);
    assert_int_equal(run("", ARGS("argument")), 64);
    assert_int_equal(run("", ARGS("--set", "no-equal-sign")), 64);
    assert_int_equal(run("", ARGS("--check-config")), 0);
    assert_string_equal(child.text, "ok\n");
    assert_int_equal(run("", ARGS("--check-config", "--set", "kafka.lanes=0")), 78);
    assert_string_equal(child.text, "tandem-test: --set kafka.lanes: 0 is out of range, 1 to 1000\n");
    assert_int_equal(run("", ARGS("--check-config", "--set", "kafka.lanes=13")), 78);
    assert_string_equal(child.text, "tandem-test: thirteen lanes\n"); /* what the service itself finds */
    assert_int_equal(run("", ARGS("--config", "/does/not/exist", "--check-config")), 78);
    assert_int_equal(run("", ARGS("--print-config", "--set", "kafka.lanes=3")), 0);
    assert_non_null(strstr(child.text, "  lanes: 3 # --set\n"));
    assert_int_equal(run("", ARGS("--set", "kafka.lanes=0")), 78);
    assert_non_null(strstr(child.text, "\"event\":\"config.refused\""));
    assert_int_equal(run("", ARGS("--healthcheck", "--set", "http.listen=127.0.0.1:1")), 1);
}

static void start_that_fails_says_why_and_how(void **unused)
{
    (void)unused;
    assert_int_equal(run("needs a key", ARGS("--set", "http.listen=127.0.0.1:0")), 78);
    assert_non_null(
        strstr(child.text,
               "\"event\":\"start.failed\",\"code\":\"ECONFIG\",\"why\":\"keys.token is not set\",\"exit\":78"));
    assert_int_equal(run("no broker", ARGS("--set", "http.listen=127.0.0.1:0")), 75);
    assert_int_equal(run("breaks", ARGS("--set", "http.listen=127.0.0.1:0")), 75);
    assert_non_null(strstr(child.text, "\"event\":\"fail\",\"code\":\"EFATAL\",\"why\":\"fenced\""));
    assert_null(strstr(child.text, "loop.busy"));
}

static void answers_then_drains_on_sigterm(void **unused)
{
    char listen_text[32], health[64];
    int port = start_service("");
    struct child service_child = child;

    (void)unused;
    snprintf(listen_text, sizeof(listen_text), "127.0.0.1:%d", port);
    snprintf(health, sizeof(health), "http.listen=%s", listen_text);
    assert_int_equal(td_http_get_status(listen_text, "/healthz", 5000), 200);
    assert_int_equal(td_http_get_status(listen_text, "/readyz", 5000), 200);
    assert_int_equal(td_http_get_status(listen_text, "/version", 5000), 200);
    assert_int_equal(td_http_get_status(listen_text, "/metrics", 5000), 200);
    assert_int_equal(td_http_get_status(listen_text, "/", 5000), 404);
    assert_int_equal(run("", ARGS("--healthcheck", "--set", health)), 0);

    assert_int_equal(run("", ARGS("--set", health)), 75); /* the port is taken: perhaps by who still drains */

    child = service_child;
    kill(child.pid, SIGTERM);
    assert_int_equal(wait_exit(&child), 0);
    assert_non_null(strstr(child.text, "\"event\":\"stop.begin\",\"signal\":15"));
    assert_non_null(strstr(child.text, "\"event\":\"exit\",\"exit\":0"));
    assert_null(strstr(child.text, "loop.busy"));
    assert_null(strstr(child.text, "LeakSanitizer"));
}

static void not_ready_is_503(void **unused)
{
    char listen_text[32];

    (void)unused;
    snprintf(listen_text, sizeof(listen_text), "127.0.0.1:%d", start_service("not ready"));
    assert_int_equal(td_http_get_status(listen_text, "/readyz", 5000), 503);
    assert_int_equal(td_http_get_status(listen_text, "/healthz", 5000), 200);
    kill(child.pid, SIGINT);
    assert_int_equal(wait_exit(&child), 0);
}

static void second_signal_ends_a_drain(void **unused)
{
    (void)unused;
    start_service("stuck");
    kill(child.pid, SIGTERM);
    assert_true(read_until(&child, "stop.begin"));
    kill(child.pid, SIGTERM);
    assert_int_equal(wait_exit(&child), 75);
    assert_non_null(strstr(child.text, "\"event\":\"stop.overdue\",\"why\":\"second signal\""));
}

static void drain_without_end_is_ended(void **unused)
{
    time_t begin = time(NULL);

    (void)unused;
    start_service("stuck");
    kill(child.pid, SIGTERM);
    assert_int_equal(wait_exit(&child), 75);
    assert_in_range(time(NULL) - begin, 5, 20); /* drain 1 s + 5 s */
    assert_non_null(strstr(child.text, "\"why\":\"not drained in time\""));
}

static void what_is_left_is_said_and_exits_75(void **unused)
{
    (void)unused;
    start_service("leaves");
    kill(child.pid, SIGTERM);
    assert_int_equal(wait_exit(&child), 75);
    assert_non_null(
        strstr(child.text, "\"event\":\"stop.undone\",\"records_unsent\":3,\"mails_without_outcome\":2,\"exit\":75}"));
    assert_null(strstr(child.text, "LeakSanitizer"));
}

static void stages_of_a_stop_are_parts_of_the_drain(void **unused)
{
    uint64_t now_ms = td_mono_ms(), end_ms;

    (void)unused;
    assert_true(td_stop_by(TD_STOP_WORK) == UINT64_MAX); /* nobody stops */
    assert_int_equal(td_stop_sooner(now_ms + 7, TD_STOP_WORK), now_ms + 7);
    td_stop_begin(16000);
    td_stop_begin(160000); /* says nothing new */
    end_ms = td_stop_by(TD_STOP_END);
    assert_in_range(end_ms, now_ms + 16000, now_ms + 17000);
    assert_int_equal(end_ms - td_stop_by(TD_STOP_WORK), 8000);
    assert_int_equal(end_ms - td_stop_by(TD_STOP_CLOSE), 1000);
    assert_int_equal(td_stop_sooner(end_ms, TD_STOP_FLUSH), end_ms - 2000);
    assert_int_equal(td_stop_sooner(now_ms, TD_STOP_FLUSH), now_ms);
}

static void systemd_hears_ready_and_stopping(void **unused)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    char message[64] = "", path[64];

    (void)unused;
    snprintf(path, sizeof(path), "@tandem-test-%d", (int)getpid());
    memcpy(name.sun_path + 1, path + 1, strlen(path) - 1);
    assert_int_equal(
        bind(fd, (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))), 0);
    setenv("NOTIFY_SOCKET", path, 1);
    start_service("");
    unsetenv("NOTIFY_SOCKET");
    assert_int_equal(recv(fd, message, sizeof(message), 0), strlen("READY=1"));
    assert_memory_equal(message, "READY=1", 7);
    kill(child.pid, SIGTERM);
    assert_int_equal(recv(fd, message, sizeof(message), 0), strlen("STOPPING=1"));
    assert_memory_equal(message, "STOPPING=1", 10);
    assert_int_equal(wait_exit(&child), 0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_their_exit_codes),     cmocka_unit_test(start_that_fails_says_why_and_how),
        cmocka_unit_test(answers_then_drains_on_sigterm),   cmocka_unit_test(not_ready_is_503),
        cmocka_unit_test(second_signal_ends_a_drain),       cmocka_unit_test(drain_without_end_is_ended),
        cmocka_unit_test(systemd_hears_ready_and_stopping), cmocka_unit_test(what_is_left_is_said_and_exits_75),
        cmocka_unit_test(stages_of_a_stop_are_parts_of_the_drain), /* last: every child of this process would stop */
    };

    unsetenv("TANDEM_CONFIG");
    return cmocka_run_group_tests_name("app", tests, NULL, NULL);
}
