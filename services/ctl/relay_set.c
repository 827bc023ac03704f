/* relay pause, drain, enable: what an operator says about a relay, by way of relay_set.lua. */
#include "relay_input.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "relay_ask.h"
#include "tandem/scripts.h"
#include "text.h"

static error_t parse_arguments(int key, char *arg, struct argp_state *state)
{
    struct relay_input *input = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        ctl_input_init(state);
        return 0;
    case ARGP_KEY_ARG:
        if (input->wants_name && !input->name)
            input->name = arg;
        else if (input->takes_more && !input->more)
            input->more = arg;
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

int relay_parse(struct ctl *ctl, int argc, char **argv, const char *args, const char *doc, struct relay_input *input)
{
    const struct argp argp = {NULL, parse_arguments, args, doc, ctl_children, NULL, NULL};
    struct relay_input none = {.wants_name = false};
    const struct td_relay_settings *relay;
    int code;

    input = input ? input : &none;
    input->ctl = ctl;
    code = ctl_parse(&argp, argc, argv, input);
    if (code == CTL_OK)
        code = ctl_load(ctl);
    if (code != CTL_OK || !input->wants_name)
        return code;
    relay = td_settings_relay(&ctl->settings, input->name);
    if (!relay) {
        ctl_say("no relay of this name is configured");
        return CTL_USAGE;
    }
    input->index = (size_t)(relay - ctl->settings.relays);
    return CTL_OK;
}

struct set {
    struct relay_ask ask; /* first */
    const char *name, *verb;
    char ms[24];
};

static void on_set(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct set *set = user;
    const struct ctl *ctl = set->ask.ctl;

    if (!relay_answered(&set->ask, err))
        return;
    if (ctl->json)
        printf("{\"relay\":\"%s\",\"state\":\"%s\",\"epoch\":%lld}\n", set->name, td_reply_str(td_reply_at(reply, 0), NULL),
               td_reply_int(td_reply_at(reply, 1)));
    else if (!ctl->quiet)
        printf("%s is %s\n", set->name, td_reply_str(td_reply_at(reply, 0), NULL));
    relay_ask_end(&set->ask, CTL_OK);
}

static void set_step(struct relay_ask *ask)
{
    struct set *set = (struct set *)ask;
    char key[2][64];

    snprintf(key[0], sizeof(key[0]), "td:{r:%s}:state", set->name);
    snprintf(key[1], sizeof(key[1]), "td:{r:%s}:hours", set->name);
    relay_asked(ask, td_redis_eval(ask->redis, &td_script_relay_set, (struct td_arg[]){TD_ARG_STR(key[0]), TD_ARG_STR(key[1])}, 2,
                                   (struct td_arg[]){TD_ARG_STR(set->verb), TD_ARG_STR(set->ms)}, 2, on_set, set));
}

/* ---- one campaign on one relay ---- */

struct let {
    struct relay_ask ask; /* first */
    const char *name, *campaign;
};

static void on_let(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct let *let = user;

    if (!relay_answered(&let->ask, err))
        return;
    if (td_reply_int(reply) == 0)
        ctl_say("campaign %s has not left relay %s", let->campaign, let->name);
    else
        ctl_note(let->ask.ctl, "campaign %s may use relay %s again, until it is judged at its next size", let->campaign, let->name);
    relay_ask_end(&let->ask, td_reply_int(reply) == 0 ? CTL_FAILED : CTL_OK);
}

static void let_step(struct relay_ask *ask)
{
    struct let *let = (struct let *)ask;
    char key[96], field[64];

    snprintf(key, sizeof(key), "td:{c:%s}:totals", let->campaign);
    snprintf(field, sizeof(field), "tripped:%s", let->name);
    relay_asked(ask, td_redis_command(ask->redis, (struct td_arg[]){TD_ARG_STR("HDEL"), TD_ARG_STR(key), TD_ARG_STR(field)}, 3,
                                      on_let, let));
    /* Rendering goes on now; should it be held still, a dispatcher says so again within a second. */
    td_redis_command(ask->redis, (struct td_arg[]){TD_ARG_STR("HDEL"), TD_ARG_STR(key), TD_ARG_STR("held")}, 3, NULL, NULL);
}

static int let_back(struct ctl *ctl, const struct relay_input *input)
{
    struct let let = {.ask = {.ctl = ctl, .step = let_step}, .name = input->name, .campaign = input->more};

    return ctl_campaign_id(input->more) ? relay_ask_run(&let.ask) : CTL_USAGE;
}

static int run_set(struct ctl *ctl, int argc, char **argv, const char *verb, const char *args, const char *doc)
{
    bool pause = strcmp(verb, "pause") == 0;
    struct relay_input input = {.wants_name = true, .takes_more = strcmp(verb, "drain") != 0};
    struct set set = {.ask = {.ctl = ctl, .step = set_step}, .verb = verb};
    int64_t ms = 0;
    int code = relay_parse(ctl, argc, argv, args, doc, &input);

    if (code == CTL_OK && pause && !text_duration_ms(input.more ? input.more : "10m", &ms)) {
        ctl_say("a time is such as 90s, 10m or 2h");
        code = CTL_USAGE;
    }
    if (code != CTL_OK)
        return code;
    if (!pause && input.more)
        return let_back(ctl, &input);
    set.name = input.name;
    snprintf(set.ms, sizeof(set.ms), "%" PRId64, ms);
    return relay_ask_run(&set.ask);
}

int ctl_relay_pause(struct ctl *ctl, int argc, char **argv)
{
    return run_set(ctl, argc, argv, "pause", "NAME [TIME]",
                   "Give a relay no new mail for a time (default 10m); then it is used again, carefully at first.");
}

int ctl_relay_drain(struct ctl *ctl, int argc, char **argv)
{
    return run_set(ctl, argc, argv, "drain", "NAME", "Give a relay no new mail until it is enabled.");
}

int ctl_relay_enable(struct ctl *ctl, int argc, char **argv)
{
    return run_set(ctl, argc, argv, "enable", "NAME [CAMPAIGN]",
                   "Use a relay again, carefully at first, and forget what went wrong there: waits, and bounces, which are counted "
                   "anew from now on, so that bulk mail may use it in full. With CAMPAIGN: let this campaign use it again that has left it because it "
                   "bounced too much there.");
}
