/* A campaign's sums, once or until it is finished. They come from Redis; the campaign goes on whether or not
 * anybody looks. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "tandem/clock.h"
#include "totals_get.h"

#define ASK_MS 250
#define JSON_MS 1000
#define LINE_MS 10000 /* between lines when stderr is no terminal */
#define BAR 24

struct watch {
    struct ctl *ctl;
    const char *id;
    bool once, terminal, asking, ever, wrote;
    struct td_redis *redis;
    struct totals_get get;
    struct progress progress;
    uv_timer_t timer;
    uv_signal_t interrupt;
    uint64_t begun_ms, answered_ms, shown_ms;
    int code;
};

static void end(struct watch *watch, int code)
{
    watch->code = code;
    uv_stop(&watch->ctl->loop);
}

static void show_json(struct watch *watch)
{
    struct td_buf out = TD_BUF_INIT(65536);
    int rc = watch->once ? totals_json(&watch->progress.last, watch->id, &out)
                         : progress_json(&watch->progress, watch->id, &out);

    if (rc == TD_OK)
        puts(td_buf_str(&out));
    fflush(stdout);
    td_buf_release(&out);
}

static void show_line(struct watch *watch, bool last)
{
    struct td_buf out = TD_BUF_INIT(4096);
    FILE *to = watch->once ? stdout : stderr;

    if (progress_line(&watch->progress, watch->terminal ? BAR : 0, &out) == TD_OK) {
        if (watch->terminal && !watch->once)
            fprintf(to, "\r%s\033[K%s", td_buf_str(&out), last ? "\n" : "");
        else
            fprintf(to, "%s\n", td_buf_str(&out));
        fflush(to);
        watch->wrote = !last;
    }
    td_buf_release(&out);
}

/* Under the line of a campaign asked for once, and when a watch ends: what an operator should know. */
static void show_why(const struct watch *watch)
{
    struct td_buf out = TD_BUF_INIT(65536);

    if (totals_why(&watch->progress.last, &out) == TD_OK && out.len)
        fputs(td_buf_str(&out), watch->once ? stdout : stderr);
    td_buf_release(&out);
}

static void show(struct watch *watch, uint64_t now_ms, bool last)
{
    uint64_t every_ms = watch->ctl->json ? JSON_MS : watch->terminal ? ASK_MS : LINE_MS;

    if (!last && watch->shown_ms && now_ms - watch->shown_ms < every_ms)
        return;
    watch->shown_ms = now_ms;
    if (watch->ctl->json)
        show_json(watch);
    else if (!watch->ctl->quiet || watch->once) {
        show_line(watch, last);
        if (last)
            show_why(watch);
    }
}

static void on_totals(void *user, const struct totals *totals, const struct td_err *err)
{
    struct watch *watch = user;
    uint64_t now_ms = td_mono_ms();
    bool known, finished;

    watch->asking = false;
    if (err) {
        if (now_ms - watch->answered_ms > watch->ctl->timeout_ms)
            end(watch, ctl_error(err));
        return;
    }
    watch->answered_ms = now_ms;
    known = totals->submitted > 0 || totals->count > 0;
    if (!known && !watch->ever) {
        /* Its first recipients may be on their way: who watches waits, who asks once is told. */
        if (watch->once || now_ms - watch->begun_ms > watch->ctl->timeout_ms) {
            ctl_say("no recipients of campaign %s are known", watch->id);
            end(watch, CTL_FAILED);
        }
        return;
    }
    watch->ever = true;
    progress_add(&watch->progress, totals, now_ms);
    finished = totals_finished(totals);
    show(watch, now_ms, finished || watch->once);
    if (finished)
        end(watch, totals_partly(totals) ? CTL_PARTLY : CTL_OK);
    else if (watch->once)
        end(watch, CTL_OK);
}

static void on_timer(uv_timer_t *timer)
{
    struct watch *watch = timer->data;

    if (watch->asking)
        return;
    watch->asking = true;
    totals_get(watch->redis, watch->id, &watch->get);
}

static void on_interrupt(uv_signal_t *signal, int number)
{
    struct watch *watch = signal->data;

    (void)number;
    if (watch->wrote && watch->terminal)
        fputc('\n', stderr);
    if (!watch->once)
        ctl_say("the campaign goes on; `tandemctl campaign watch %s` shows it again, `tandemctl campaign cancel "
                "%s` stops it",
                watch->id, watch->id);
    end(watch, CTL_INTERRUPTED);
}

static int look(struct ctl *ctl, const char *id, bool once)
{
    struct watch watch = {.ctl = ctl, .id = id, .once = once, .get = {on_totals, NULL}, .code = CTL_FAILED};
    struct td_err err;

    watch.get.user = &watch;
    watch.terminal = !ctl->no_color && isatty(once ? STDOUT_FILENO : STDERR_FILENO);
    watch.begun_ms = watch.answered_ms = td_mono_ms();
    if (td_redis_new(&ctl->loop, ctl->settings.redis_url, ctl->settings.redis_password,
                     (unsigned)ctl->settings.redis_timeout_ms, &watch.redis, &err) < 0)
        return ctl_error(&err);
    uv_timer_init(&ctl->loop, &watch.timer);
    watch.timer.data = &watch;
    uv_timer_start(&watch.timer, on_timer, 20, once ? 50 : ASK_MS);
    uv_signal_init(&ctl->loop, &watch.interrupt);
    watch.interrupt.data = &watch;
    uv_signal_start(&watch.interrupt, on_interrupt, SIGINT);
    ctl_run(ctl);
    watch.get.fn = NULL;
    uv_close((uv_handle_t *)&watch.timer, NULL);
    uv_close((uv_handle_t *)&watch.interrupt, NULL);
    td_redis_forget(watch.redis, &watch.get);
    td_redis_free(watch.redis);
    uv_run(&ctl->loop, UV_RUN_DEFAULT); /* until the handles, which are on this stack, are closed */
    return watch.code;
}

int ctl_watch(struct ctl *ctl, const char *campaign_id)
{
    return look(ctl, campaign_id, false);
}

struct look_input {
    struct ctl *ctl; /* first: see ctl_input */
    const char *id;
};

static error_t parse_look(int key, char *arg, struct argp_state *state)
{
    struct look_input *input = state->input;

    if (key != ARGP_KEY_INIT)
        return ctl_one_campaign(key, arg, state, &input->id);
    ctl_input_init(state);
    return 0;
}

static int run(struct ctl *ctl, int argc, char **argv, bool once, const char *doc)
{
    const struct argp argp = {NULL, parse_look, "ID", doc, ctl_children, NULL, NULL};
    struct look_input input = {ctl, NULL};
    int code = ctl_parse(&argp, argc, argv, &input);

    if (code == CTL_OK && !ctl_campaign_id(input.id))
        code = CTL_USAGE;
    if (code == CTL_OK)
        code = ctl_load(ctl);
    return code == CTL_OK ? look(ctl, input.id, once) : code;
}

int ctl_campaign_status(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv, true,
               "How far a campaign is. Exit code 0, or 3 when it ended and not everybody got it.");
}

int ctl_campaign_watch(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv, false,
               "Show how far a campaign is until every recipient has an outcome. Ctrl-C stops watching, not the "
               "campaign. "
               "With --json one object a second.");
}
