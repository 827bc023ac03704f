/* tandemctl NOUN VERB: which command is meant; the rest is that command's own. */
#include <stdio.h>
#include <string.h>

#include "ctl.h"

struct command {
    const char *noun, *verb; /* verb NULL: the noun is the whole command */
    int (*run)(struct ctl *ctl, int argc, char **argv);
    const char *help;
};

static const struct command commands[] = {
    {"topics", "apply", ctl_topics_apply, "create the topics that are missing"},
    {"topics", "list", ctl_topics_list, "the topics, what is on them and how long it is kept"},
    {"campaign", "submit", ctl_campaign_submit, "hand in a newsletter and its recipients"},
    {"campaign", "status", ctl_campaign_status, "how far it is, once"},
    {"campaign", "watch", ctl_campaign_watch, "how far it is, until it is finished"},
    {"campaign", "audit", ctl_campaign_audit, "compare its outcomes with what relays wrote down"},
    {"campaign", "pause", ctl_campaign_pause, "stop sending it for now"},
    {"campaign", "resume", ctl_campaign_resume, "go on sending it"},
    {"campaign", "cancel", ctl_campaign_cancel, "never send what has not been sent"},
    {"campaign", "rate", ctl_campaign_rate, "cap its mails per second (0: no cap)"},
    {"campaign", "route", ctl_campaign_route, "choose its relays, in order"},
    {"unconfirmed", "list", ctl_unconfirmed_list, "mails of which nobody knows whether the relay has them"},
    {"unconfirmed", "settle", ctl_unconfirmed_settle, "note what became of some of them"},
    {"relay", "list", ctl_relay_list, "every relay and how it is"},
    {"relay", "show", ctl_relay_show, "one relay: its state, why, what comes next, its settings"},
    {"relay", "test", ctl_relay_test, "connect to it, TLS, EHLO, AUTH, QUIT: no mail"},
    {"relay", "pause", ctl_relay_pause, "give it no new mail for a time"},
    {"relay", "drain", ctl_relay_drain, "give it no new mail until it is enabled"},
    {"relay", "enable", ctl_relay_enable, "use it again, carefully at first"},
    {"decode", NULL, ctl_decode, "a record on stdin as JSON"},
    {"encode", NULL, ctl_encode, "JSON on stdin as a record"},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void list_commands(FILE *out, const char *noun)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (!noun || strcmp(commands[i].noun, noun) == 0)
            fprintf(out, "  %-11s %-7s %s\n", commands[i].noun, commands[i].verb ? commands[i].verb : "TYPE",
                    commands[i].help);
}

static char *help_filter(int key, const char *text, void *input)
{
    char *all = NULL;
    size_t len = 0;
    FILE *out;

    (void)input;
    if (key != ARGP_KEY_HELP_PRE_DOC)
        return (char *)(uintptr_t)text;
    out = open_memstream(&all, &len);
    if (!out)
        return NULL;
    fputs("Hand Tandem a newsletter, see what becomes of it, look after its relays.\n\nCommands:\n", out);
    list_commands(out, NULL);
    fputs("\n`tandemctl COMMAND --help` tells a command's own options.", out);
    fclose(out);
    return all;
}

/* Stops at the first word that is no option: what follows belongs to the command. */
static error_t parse_global(int key, char *arg, struct argp_state *state)
{
    const struct ctl_input *input = state->input;

    (void)arg;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = input->ctl;
        return 0;
    case ARGP_KEY_ARG:
        state->next--; /* the noun stays where it is */
        state->argc = state->next;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct command *find(const char *noun, const char *verb)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].noun, noun) == 0 &&
            (!commands[i].verb || (verb && strcmp(commands[i].verb, verb) == 0)))
            return &commands[i];
    return NULL;
}

static int unknown(const char *noun, const char *verb)
{
    bool known = false, asks = verb && (strcmp(verb, "--help") == 0 || strcmp(verb, "-?") == 0);

    for (size_t i = 0; i < COMMANDS; i++)
        known = known || strcmp(commands[i].noun, noun) == 0;
    if (!known)
        ctl_say("there is no command \"%s\"; `tandemctl --help` lists them", noun);
    else if (!asks)
        fprintf(stderr, "tandemctl: %s what?\n", noun);
    if (known)
        list_commands(asks ? stdout : stderr, noun);
    return asks && known ? CTL_OK : CTL_USAGE;
}

static void close_handle(uv_handle_t *handle, void *unused)
{
    (void)unused;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static int run(struct ctl *ctl, int argc, char **argv, int at)
{
    const char *verb = at + 1 < argc ? argv[at + 1] : NULL;
    const struct command *command = find(argv[at], verb);
    char name[64];
    int code;

    if (!command)
        return unknown(argv[at], verb);
    if (command->verb)
        at++;
    snprintf(name, sizeof(name), "tandemctl %s%s%s", command->noun, command->verb ? " " : "",
             command->verb ? command->verb : "");
    argv[at] = name;
    uv_loop_init(&ctl->loop);
    code = command->run(ctl, argc - at, argv + at);
    /* What was freed closes its handles in the loop; what is left open by then was forgotten only on an error's
     * way. */
    uv_run(&ctl->loop, UV_RUN_NOWAIT);
    uv_walk(&ctl->loop, close_handle, NULL);
    uv_run(&ctl->loop, UV_RUN_DEFAULT);
    uv_loop_close(&ctl->loop);
    return code;
}

int main(int argc, char **argv)
{
    static struct ctl ctl = {.timeout_ms = 60000};
    struct ctl_input input = {&ctl};
    const struct argp argp = {
        NULL,
        parse_global,
        "COMMAND [OPTION...]",
        "\v"
        "Exit codes: 0 fine, 1 failed, 2 usage, 3 partly delivered, 4 unreachable, 5 refused, 130 "
        "interrupted.",
        ctl_children,
        help_filter,
        NULL};
    int at = argc, code;

    argp_program_version = "tandemctl " TD_VERSION;
    argp_err_exit_status = CTL_USAGE;
    if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, &at, &input) != 0)
        return CTL_USAGE;
    if (at >= argc) {
        argp_help(&argp, stderr, ARGP_HELP_USAGE | ARGP_HELP_SEE, argv[0]);
        return CTL_USAGE;
    }
    code = run(&ctl, argc, argv, at);
    td_cmdline_release(&ctl.cmdline);
    if (ctl.loaded)
        td_settings_release(&ctl.settings);
    return code;
}
