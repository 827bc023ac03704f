/* Relays: settings joined with the shared state that dispatchers keep in td:{r:<name>}:state. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ctl.h"
#include "tandem/clock.h"
#include "tandem/redis.h"
#include "tandem/scripts.h"
#include "text.h"

#define TICK_MS 50

struct relay_state { /* as relay_report.lua writes it */
    char st[16], reason[48], by[16], evidence[160];
    uint64_t epoch;
    int64_t till_ms;
    double factor;
    bool known;
};

struct ask {
    struct ctl *ctl;
    struct td_redis *redis;
    uv_timer_t timer;
    uint64_t begun_ms;
    /* list */
    struct relay_state state[TD_RELAYS_MAX];
    size_t asked; /* the relay whose answer is awaited */
    /* set */
    const char *name, *verb;
    char ms[24];
    bool waiting, done;
    int code;
};

static void end(struct ask *ask, int code)
{
    ask->done = true;
    ask->code = code;
    uv_stop(&ask->ctl->loop);
}

static void failed(struct ask *ask, const struct td_err *err)
{
    ask->waiting = false; /* the timer asks again */
    if (err->code != TD_EIO || td_mono_ms() - ask->begun_ms > ask->ctl->timeout_ms)
        end(ask, ctl_error(err));
}

/* ---- list ---- */

static void state_field(struct relay_state *state, const char *name, const char *value)
{
    const struct {
        const char *name;
        char *at;
        size_t size;
    } texts[] = {{"st", state->st, sizeof(state->st)},
                 {"reason", state->reason, sizeof(state->reason)},
                 {"by", state->by, sizeof(state->by)},
                 {"evidence", state->evidence, sizeof(state->evidence)}};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (strcmp(name, texts[i].name) == 0)
            snprintf(texts[i].at, texts[i].size, "%s", value);
    if (strcmp(name, "ep") == 0)
        state->epoch = strtoull(value, NULL, 10);
    else if (strcmp(name, "till") == 0)
        state->till_ms = strtoll(value, NULL, 10);
    else if (strcmp(name, "factor") == 0)
        state->factor = strtod(value, NULL);
}

static void ask_next(struct ask *ask);

static void on_state(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct ask *ask = user;
    struct relay_state *state = &ask->state[ask->asked];

    if (err) {
        failed(ask, err);
        return;
    }
    *state = (struct relay_state){.factor = 1};
    for (size_t i = 0; i + 1 < td_reply_count(reply); i += 2)
        state_field(state, td_reply_str(td_reply_at(reply, i), NULL),
                    td_reply_str(td_reply_at(reply, i + 1), NULL));
    state->known = state->st[0] != '\0';
    ask->waiting = false;
    ask->asked++;
    ask_next(ask);
}

static void ask_next(struct ask *ask)
{
    char key[64];

    if (ask->asked == ask->ctl->settings.relay_count) {
        end(ask, CTL_OK);
        return;
    }
    snprintf(key, sizeof(key), "td:{r:%s}:state", ask->ctl->settings.relays[ask->asked].name);
    const struct td_arg args[] = {TD_ARG_STR("HGETALL"), TD_ARG_STR(key)};
    ask->waiting = td_redis_command(ask->redis, args, 2, on_state, ask) != TD_ENOMEM;
}

static void utc(int64_t unix_ms, char out[32])
{
    time_t at = (time_t)(unix_ms / 1000);
    struct tm tm;

    if (unix_ms <= 0 || !gmtime_r(&at, &tm) || strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        out[0] = '\0';
}

static int json_field(struct td_buf *out, const char *name, const char *value)
{
    int rc = td_buf_printf(out, ",\"%s\":", name);

    return rc < 0 ? rc : ctl_json_string(out, value);
}

static void print_json(const struct td_relay_settings *relay, const struct relay_state *state)
{
    struct td_buf out = TD_BUF_INIT(65536);
    int rc = td_buf_adds(&out, "{\"relay\":");

    if (rc == TD_OK)
        rc = ctl_json_string(&out, relay->name);
    if (rc == TD_OK)
        rc = json_field(&out, "host", relay->host);
    if (rc == TD_OK)
        rc = json_field(&out, "country", relay->country);
    if (rc == TD_OK)
        rc = json_field(&out, "state", state->known ? state->st : "unknown");
    if (rc == TD_OK)
        rc = json_field(&out, "reason", state->reason);
    if (rc == TD_OK)
        rc = json_field(&out, "evidence", state->evidence);
    if (rc == TD_OK)
        rc = td_buf_printf(&out,
                           ",\"port\":%" PRId64 ",\"epoch\":%" PRIu64 ",\"next_change_unix_ms\":%" PRId64
                           ",\"rate_factor\":%g,\"max_mails_per_s\":%" PRId64 ",\"max_connections\":%" PRId64 "}",
                           relay->port, state->epoch, state->till_ms, state->factor, relay->max_mails_per_s,
                           relay->max_connections);
    if (rc == TD_OK)
        puts(td_buf_str(&out));
    td_buf_release(&out);
}

static void print_list(const struct ask *ask)
{
    const struct td_settings *settings = &ask->ctl->settings;
    bool color = isatty(STDOUT_FILENO) && !ask->ctl->no_color;

    if (!ask->ctl->json)
        printf("%-16s %-10s %-2s %6s %-24s %-20s %s\n", "relay", "state", "", "rate/s", "reason", "next change",
               "evidence");
    for (size_t i = 0; i < settings->relay_count; i++) {
        const struct td_relay_settings *relay = &settings->relays[i];
        const struct relay_state *state = &ask->state[i];
        const char *name = state->known ? state->st : "unknown"; /* no dispatcher has reported yet */
        const char *paint = strcmp(name, "closed") == 0 ? "\033[32m"
                            : strcmp(name, "open") == 0 ? "\033[31m"
                                                        : "\033[33m";
        char till[32], rate[16] = "-";

        if (ask->ctl->json) {
            print_json(relay, state);
            continue;
        }
        if (relay->max_mails_per_s > 0)
            snprintf(rate, sizeof(rate), "%.0f", (double)relay->max_mails_per_s * state->factor);
        utc(state->till_ms, till);
        printf("%-16s %s%-10s%s %-2s %6s %-24s %-20s %s\n", relay->name, color ? paint : "", name,
               color ? "\033[0m" : "", relay->country, rate, state->reason, till, state->evidence);
    }
}

/* ---- pause, drain, enable ---- */

static void on_set(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct ask *ask = user;

    if (err) {
        failed(ask, err);
        return;
    }
    if (ask->ctl->json)
        printf("{\"relay\":\"%s\",\"state\":\"%s\",\"epoch\":%lld}\n", ask->name,
               td_reply_str(td_reply_at(reply, 0), NULL), td_reply_int(td_reply_at(reply, 1)));
    else if (!ask->ctl->quiet)
        printf("%s is %s\n", ask->name, td_reply_str(td_reply_at(reply, 0), NULL));
    end(ask, CTL_OK);
}

static void set(struct ask *ask)
{
    char key[64];

    snprintf(key, sizeof(key), "td:{r:%s}:state", ask->name);
    const struct td_arg keys[] = {TD_ARG_STR(key)};
    const struct td_arg args[] = {TD_ARG_STR(ask->verb), TD_ARG_STR(ask->ms)};
    ask->waiting = td_redis_eval(ask->redis, &td_script_relay_set, keys, 1, args, 2, on_set, ask) != TD_ENOMEM;
}

/* ---- both ---- */

static void on_timer(uv_timer_t *timer)
{
    struct ask *ask = timer->data;

    if (ask->waiting || ask->done)
        return;
    if (ask->verb)
        set(ask);
    else
        ask_next(ask);
}

static int ask_redis(struct ask *ask)
{
    struct ctl *ctl = ask->ctl;
    struct td_err err;

    ask->begun_ms = td_mono_ms();
    if (td_redis_new(&ctl->loop, ctl->settings.redis_url, ctl->settings.redis_password,
                     (unsigned)ctl->settings.redis_timeout_ms, &ask->redis, &err) < 0)
        return ctl_error(&err);
    uv_timer_init(&ctl->loop, &ask->timer);
    ask->timer.data = ask;
    uv_timer_start(&ask->timer, on_timer, TICK_MS, TICK_MS);
    ctl_run(ctl);
    uv_close((uv_handle_t *)&ask->timer, NULL);
    td_redis_forget(ask->redis, ask);
    td_redis_free(ask->redis);
    uv_run(&ctl->loop, UV_RUN_DEFAULT);
    return ask->code;
}

struct relay_input {
    struct ctl *ctl; /* first: see ctl_input */
    const char *name, *time;
    bool wants_name, takes_time;
};

static error_t parse_relay(int key, char *arg, struct argp_state *state)
{
    struct relay_input *input = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        ctl_input_init(state);
        return 0;
    case ARGP_KEY_ARG:
        if (input->wants_name && !input->name)
            input->name = arg;
        else if (input->takes_time && !input->time)
            input->time = arg;
        else
            argp_error(state, "too many arguments");
        return 0;
    case ARGP_KEY_END:
        if (input->wants_name && !input->name)
            argp_error(state, "which relay?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int ctl_relay_list(struct ctl *ctl, int argc, char **argv)
{
    static const struct argp argp = {
        NULL, parse_relay, NULL, "Every relay of the configuration and how it is.", ctl_children, NULL, NULL};
    struct relay_input input = {ctl, NULL, NULL, false, false};
    struct ask ask = {.ctl = ctl, .code = CTL_FAILED};
    int code = ctl_parse(&argp, argc, argv, &input);

    if (code == CTL_OK)
        code = ctl_load(ctl);
    if (code == CTL_OK)
        code = ask_redis(&ask);
    if (code == CTL_OK)
        print_list(&ask);
    return code;
}

static int run_set(struct ctl *ctl, int argc, char **argv, const char *verb, const char *args, const char *doc)
{
    const struct argp argp = {NULL, parse_relay, args, doc, ctl_children, NULL, NULL};
    struct relay_input input = {ctl, NULL, NULL, true, strcmp(verb, "pause") == 0};
    struct ask ask = {.ctl = ctl, .verb = verb, .code = CTL_FAILED};
    int64_t ms = 0;
    int code = ctl_parse(&argp, argc, argv, &input);

    if (code == CTL_OK && input.takes_time && !text_duration_ms(input.time ? input.time : "10m", &ms)) {
        ctl_say("a time is such as 90s, 10m or 2h");
        code = CTL_USAGE;
    }
    if (code == CTL_OK)
        code = ctl_load(ctl);
    if (code == CTL_OK && !td_settings_relay(&ctl->settings, input.name)) {
        ctl_say("no relay of this name is configured");
        code = CTL_USAGE;
    }
    if (code != CTL_OK)
        return code;
    ask.name = input.name;
    snprintf(ask.ms, sizeof(ask.ms), "%" PRId64, ms);
    return ask_redis(&ask);
}

int ctl_relay_pause(struct ctl *ctl, int argc, char **argv)
{
    return run_set(
        ctl, argc, argv, "pause", "NAME [TIME]",
        "Give a relay no new mail for a time (default 10m); then it is used again, carefully at first.");
}

int ctl_relay_drain(struct ctl *ctl, int argc, char **argv)
{
    return run_set(ctl, argc, argv, "drain", "NAME", "Give a relay no new mail until it is enabled.");
}

int ctl_relay_enable(struct ctl *ctl, int argc, char **argv)
{
    return run_set(ctl, argc, argv, "enable", "NAME", "Use a relay again, carefully at first.");
}
