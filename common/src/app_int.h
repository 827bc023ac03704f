/* app_int.h - what app.c, app_options.c and app_routes.c share. Never leaves common/. */
#ifndef TD_APP_INT_H
#define TD_APP_INT_H

#include "tandem/app.h"
#include "tandem/cmdline.h"
#include "tandem/stages.h"

enum { TD_EXIT_OK = 0, TD_EXIT_USAGE = 64, TD_EXIT_INTERNAL = 70, TD_EXIT_AGAIN = 75, TD_EXIT_CONFIG = 78 };

enum { TD_APP_LEFT_MAX = 8 };

enum td_app_mode { TD_MODE_RUN = 0, TD_MODE_CHECK, TD_MODE_PRINT, TD_MODE_HEALTH };

struct td_app_options {
    enum td_app_mode mode;
    struct td_cmdline cmdline; /* the caller releases it */
};

struct td_app_run {
    struct td_app app; /* first, so that td_app_* get back to this by a cast */
    const struct td_service *service;
    void *state;
    uv_loop_t loop;
    uv_signal_t term, intr;
    uv_timer_t overdue, watchdog;
    uv_prepare_t turn; /* of the loop, for stages */
    struct td_stages stages;
    bool started, stopping, finished;
    int exit_code;
    struct {
        const char *what;
        size_t count;
    } left[TD_APP_LEFT_MAX]; /* what td_app_left was told */
    size_t left_count;
    struct td_metric *rss, *cpu; /* set when somebody looks */
    struct td_metric *stage[TD_STAGE_COUNT], *threads; /* so are these; NULL: nothing was spent on it yet */
};

/** Exits by itself for --help, --version (0) and misuse (64). */
int td_app_options_parse(int argc, char **argv, const struct td_service *service, struct td_app_options *ret,
                         struct td_err *reterr);

/** /metrics /healthz /readyz /version on run->app.http. */
int td_app_routes(struct td_app_run *run);

#endif /* TD_APP_INT_H */
