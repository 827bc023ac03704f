/* tandem/app.h - what every service's main does: options, settings, log, loop, signals, HTTP, stop, exit code. */
#ifndef TD_APP_H
#define TD_APP_H

#include <stdbool.h>
#include <uv.h>

#include "tandem/err.h"
#include "tandem/http.h"
#include "tandem/metrics.h"
#include "tandem/settings.h"

struct td_app {
    uv_loop_t *loop;
    const struct td_settings *settings;
    struct td_metrics *metrics;
    struct td_http *http;
    const char *service; /* "dispatch" */
};

struct td_service {
    const char *name;    /* "dispatch"; the program is tandem-dispatch */
    const char *summary; /* one line for --help */
    /** Make the state and begin. */
    int (*start)(struct td_app *app, void **ret_state, struct td_err *reterr);
    /** SIGTERM/SIGINT: finish within the stages of tandem/stop.h, then call td_app_stopped. 5 s after dispatch.drain the process
     * exits anyway (75). */
    void (*stop)(void *state);
    /** For /readyz; when false fill why. */
    bool (*ready)(void *state, char *why, size_t size);
    /** Of what is not done td_app_left says how much there was. */
    void (*free)(void *state);
    /** What td_settings_load cannot check, for --check-config; start finds it by itself. NULL: nothing more. */
    int (*check)(const struct td_settings *settings, struct td_err *reterr);
};

/**
 * Options: --config FILE (default $TANDEM_CONFIG or /etc/tandem/tandem.yaml when it exists), --set PATH=VALUE,
 * --check-config, --print-config, --healthcheck, --version, --help.
 * Exit codes: 0 drained, 64 usage, 70 internal, 75 try again (fatal Kafka error, something was left undone, drain took too
 * long), 78 configuration.
 */
int td_app_main(int argc, char **argv, const struct td_service *service);

/** The service has drained: leave the loop with exit code 0. */
void td_app_stopped(struct td_app *app);
/** Something broke that a restart may mend: log it, leave the loop with exit code 75. */
void td_app_fail(struct td_app *app, const struct td_err *err);

/**
 * So much is left undone that a restart will do: it is said in one line at the end, and the exit code is 75 in place of 0.
 * @param what   key of a log line, static
 * @param count  0: nothing
 */
void td_app_left(struct td_app *app, const char *what, size_t count);

#endif /* TD_APP_H */
