/* relay list, relay show: settings joined with the shared state that dispatchers keep in td:{r:<name>}:state. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "relay_ask.h"
#include "relay_input.h"
#include "relay_state.h"
#include "tandem/clock.h"

struct look {
    struct relay_ask ask; /* first */
    size_t at, end;       /* relays asked for; end is one past the last */
    bool show, asked_window;
    int64_t now_ms;
    struct relay_state state[TD_RELAYS_MAX];
    struct relay_window window;
};

/* ---- asking ---- */

static void on_state(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct look *look = user;
    struct relay_state *state = &look->state[look->at];

    if (!relay_answered(&look->ask, err))
        return;
    *state = (struct relay_state){.known = false};
    for (size_t i = 0; i + 1 < td_reply_count(reply); i += 2)
        relay_state_field(state, td_reply_str(td_reply_at(reply, i), NULL), td_reply_str(td_reply_at(reply, i + 1), NULL));
    look->at++;
    look->ask.step(&look->ask);
}

static void on_window(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct look *look = user;

    if (!relay_answered(&look->ask, err))
        return;
    for (size_t i = 1; i < td_reply_count(reply); i += 2)
        relay_window_add(&look->window, td_reply_str(td_reply_at(reply, i), NULL), look->now_ms);
    look->asked_window = true;
    look->ask.step(&look->ask);
}

static void on_time(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct look *look = user;

    if (!relay_answered(&look->ask, err))
        return;
    look->now_ms = td_reply_int(td_reply_at(reply, 0)) * 1000 + td_reply_int(td_reply_at(reply, 1)) / 1000;
    look->ask.step(&look->ask);
}

static int ask_hash(struct look *look, const char *relay, const char *what, td_redis_cb *cb)
{
    char key[64];

    snprintf(key, sizeof(key), "td:{r:%s}:%s", relay, what);
    return td_redis_command(look->ask.redis, (struct td_arg[]){TD_ARG_STR("HGETALL"), TD_ARG_STR(key)}, 2, cb, look);
}

static void look_step(struct relay_ask *ask)
{
    struct look *look = (struct look *)ask;
    const struct td_relay_settings *relays = ask->ctl->settings.relays;

    if (look->now_ms == 0) /* the state's times are by Redis' clock */
        relay_asked(ask, td_redis_command(ask->redis, (struct td_arg[]){TD_ARG_STR("TIME")}, 1, on_time, look));
    else if (look->at < look->end)
        relay_asked(ask, ask_hash(look, relays[look->at].name, "state", on_state));
    else if (look->show && !look->asked_window)
        relay_asked(ask, ask_hash(look, relays[look->end - 1].name, "window", on_window));
    else
        relay_ask_end(ask, CTL_OK);
}

/* ---- telling ---- */

static int json_window(struct td_buf *out, const struct relay_window *window)
{
    return td_buf_printf(out,
                         ",\"last_%d_s\":{\"accepted\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"busy\":%" PRIu64
                         ",\"final_replies_timed\":%" PRIu64 ",\"final_replies_over_10_s\":%" PRIu64 "}",
                         RELAY_WINDOW_S, window->accepted, window->failed, window->busy, window->timed, window->slow);
}

static void print_json(const struct look *look, size_t i)
{
    const struct td_relay_settings *relay = &look->ask.ctl->settings.relays[i];
    const struct relay_state *state = &look->state[i];
    struct td_buf out = TD_BUF_INIT(65536);
    const struct {
        const char *name, *value;
    } fields[] = {{"host", relay->host},
                  {"country", relay->country},
                  {"state", state->known ? state->st : "unknown"},
                  {"reason", state->reason},
                  {"reason_words", state->known ? relay_reason_words(state->reason) : ""},
                  {"evidence", state->evidence},
                  {"bulk", relay_bulk_word(state)},
                  {"bounces", state->bounces}};
    int rc = td_buf_adds(&out, "{\"relay\":");

    if (rc == TD_OK)
        rc = ctl_json_string(&out, relay->name);
    for (size_t k = 0; k < sizeof(fields) / sizeof(fields[0]) && rc == TD_OK; k++)
        rc = ctl_json_field(&out, fields[k].name, fields[k].value);
    if (rc == TD_OK)
        rc = td_buf_printf(&out,
                           ",\"port\":%" PRId64 ",\"epoch\":%" PRIu64 ",\"next_change_unix_ms\":%" PRId64
                           ",\"rate_factor\":%g,\"max_mails_per_s\":%" PRId64 ",\"max_connections\":%" PRId64,
                           relay->port, state->epoch, state->till_ms, relay_state_factor(state, look->now_ms),
                           relay->max_mails_per_s, relay->max_connections);
    if (rc == TD_OK)
        rc = td_buf_printf(&out, ",\"bounced_hard\":%" PRIu64 ",\"bounced_of\":%" PRIu64, state->bounce_hard, state->bounce_taken);
    if (rc == TD_OK && look->show)
        rc = json_window(&out, &look->window);
    if (rc == TD_OK)
        rc = td_buf_addc(&out, '}');
    if (rc == TD_OK)
        puts(td_buf_str(&out));
    td_buf_release(&out);
}

static const char *paint_of(const struct look *look, const char *state)
{
    if (look->ask.ctl->no_color || !isatty(STDOUT_FILENO))
        return "";
    return strcmp(state, "closed") == 0 ? "\033[32m" : strcmp(state, "open") == 0 ? "\033[31m" : "\033[33m";
}

static void print_row(const struct look *look, size_t i)
{
    const struct td_relay_settings *relay = &look->ask.ctl->settings.relays[i];
    const struct relay_state *state = &look->state[i];
    const char *name = state->known ? state->st : "unknown"; /* no dispatcher has reported yet */
    const char *paint = paint_of(look, name);
    char till[32], rate[16] = "-";

    if (relay->max_mails_per_s > 0)
        snprintf(rate, sizeof(rate), "%.0f", (double)relay->max_mails_per_s * relay_state_factor(state, look->now_ms));
    relay_time_words(state->till_ms, till);
    printf("%-16s %s%-10s%s %-2s %6s %-8s %-24s %-20s %s\n", relay->name, paint, name, *paint ? "\033[0m" : "", relay->country, rate,
           relay_bulk_word(state), state->reason, till, state->evidence);
    if (state->level > 0)
        printf("%-16s %s\n", "", state->bounces);
}

static void print_list(const struct look *look)
{
    if (!look->ask.ctl->json)
        printf("%-16s %-10s %-2s %6s %-8s %-24s %-20s %s\n", "relay", "state", "in", "rate/s", "bulk", "reason", "next change",
               "evidence");
    for (size_t i = 0; i < look->end; i++)
        if (look->ask.ctl->json)
            print_json(look, i);
        else
            print_row(look, i);
}

static void print_rate(const struct td_relay_settings *relay, double factor)
{
    if (relay->max_mails_per_s > 0)
        printf("rate         %.0f mails/s of %" PRId64, (double)relay->max_mails_per_s * factor, relay->max_mails_per_s);
    else
        printf("rate         no limit known");
    if (factor < 1)
        printf(", cut to %.0f %%", factor * 100);
    putchar('\n');
}

static void print_show(const struct look *look)
{
    const struct td_settings *settings = &look->ask.ctl->settings;
    const struct td_relay_settings *relay = &settings->relays[look->end - 1];
    const struct relay_state *state = &look->state[look->end - 1];
    const char *name = state->known ? state->st : "unknown", *paint = paint_of(look, name);
    char next[240];

    printf("relay        %s\n", relay->name);
    printf("state        %s%s%s, epoch %" PRIu64 "\n", paint, name, *paint ? "\033[0m" : "", state->epoch);
    if (state->known) {
        relay_next_words(state, look->now_ms, next, sizeof(next));
        printf("reason       %s: %s\n", state->reason, relay_reason_words(state->reason));
        printf("evidence     %s\n", *state->evidence ? state->evidence : "-");
        printf("next change  %s\n", next);
        if (state->opens > 0)
            printf("             it has opened %u times lately, each time for longer\n", state->opens);
    } else {
        printf("reason       no dispatcher has reported on it yet\n");
    }
    print_rate(relay, relay_state_factor(state, look->now_ms));
    relay_bulk_words(state, relay, next, sizeof(next));
    printf("bulk mail    %s\n", next);
    printf("bounces      %s\n", *state->bounces ? state->bounces : "too few mails in 24 hours to tell");
    printf("last %d s    %" PRIu64 " accepted, %" PRIu64 " failed, %" PRIu64 " busy; %" PRIu64 " of %" PRIu64
           " final replies took over 10 s\n",
           RELAY_WINDOW_S, look->window.accepted, look->window.failed, look->window.busy, look->window.slow, look->window.timed);
    printf("allowed      %s\n", td_relay_allowed(settings, relay, NULL, 0) ? "yes" : "no: its country is not in allowed_countries");
    printf("settings\n");
    fflush(stdout);
    td_settings_print_relay(settings, look->end - 1, stdout);
}

/* ---- commands ---- */

int ctl_relay_list(struct ctl *ctl, int argc, char **argv)
{
    struct look look = {.ask = {.ctl = ctl, .step = look_step}};
    int code = relay_parse(ctl, argc, argv, NULL, "Every relay of the configuration and how it is.", NULL);

    if (code != CTL_OK)
        return code;
    look.end = ctl->settings.relay_count;
    code = relay_ask_run(&look.ask);
    if (code == CTL_OK)
        print_list(&look);
    return code;
}

int ctl_relay_show(struct ctl *ctl, int argc, char **argv)
{
    struct look look = {.ask = {.ctl = ctl, .step = look_step}, .show = true};
    struct relay_input input = {.wants_name = true};
    int code = relay_parse(ctl, argc, argv, "NAME", "All that is known of one relay: its state, why, what comes next, its settings.",
                           &input);

    if (code != CTL_OK)
        return code;
    look.at = input.index;
    look.end = input.index + 1;
    code = relay_ask_run(&look.ask);
    if (code == CTL_OK && ctl->json)
        print_json(&look, input.index);
    else if (code == CTL_OK)
        print_show(&look);
    return code;
}
