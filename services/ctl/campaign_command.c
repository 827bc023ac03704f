/* One Command, one answer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "courier.h"
#include "ctl.h"
#include "text.h"

struct command_input {
    struct ctl *ctl; /* first: see ctl_input */
    const char *id, *value;
    bool wants_value;
};

struct asked {
    struct ctl *ctl;
    int code;
};

static error_t parse_command(int key, char *arg, struct argp_state *state)
{
    struct command_input *input = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        ctl_input_init(state);
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0)
            input->id = arg;
        else if (state->arg_num == 1 && input->wants_value)
            input->value = arg;
        else
            argp_error(state, "too many arguments");
        return 0;
    case ARGP_KEY_END:
        if (!input->id || (input->wants_value && !input->value))
            argp_error(state, "an argument is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void on_answer(void *user, uint32_t number, const Tandem__Mail__V1__SubmissionAnswer *answer)
{
    struct asked *asked = user;

    (void)number;
    asked->code = answer->accepted ? CTL_OK : CTL_REFUSED;
    if (!answer->accepted) {
        ctl_say("refused");
        courier_print_refusals(answer);
    }
    uv_stop(&asked->ctl->loop);
}

static void on_trouble(void *user, const struct td_err *err)
{
    struct asked *asked = user;

    asked->code = ctl_error(err);
    uv_stop(&asked->ctl->loop);
}

static int ask(struct ctl *ctl, const char *id, Tandem__Mail__V1__Command *command)
{
    static const struct courier_ops ops = {on_answer, on_trouble};
    Tandem__Mail__V1__Submission submission = TANDEM__MAIL__V1__SUBMISSION__INIT;
    struct asked asked = {ctl, CTL_FAILED};
    struct courier *courier = NULL;
    struct td_err err;
    uint32_t number;
    int rc;

    submission.body_case = TANDEM__MAIL__V1__SUBMISSION__BODY_COMMAND;
    submission.command = command;
    rc = courier_new(ctl, id, &ops, &asked, &courier, &err);
    if (rc == TD_OK)
        rc = courier_send(courier, &submission, &number, &err);
    if (rc == TD_OK)
        ctl_run(ctl);
    else
        asked.code = ctl_error(&err);
    courier_free(courier);
    if (asked.code == CTL_OK && ctl->json)
        printf("{\"campaign_id\":\"%s\",\"accepted\":true}\n", id);
    return asked.code;
}

static int run(struct ctl *ctl, int argc, char **argv, Tandem__Mail__V1__CommandKind kind, const char *args,
               const char *doc)
{
    const struct argp argp = {NULL, parse_command, args, doc, ctl_children, NULL, NULL};
    struct command_input input = {ctl, NULL, NULL, strchr(args, ' ') != NULL};
    Tandem__Mail__V1__Command command = TANDEM__MAIL__V1__COMMAND__INIT;
    char *route[TD_RELAYS_MAX];
    char *list = NULL;
    uint64_t rate = 0;
    int code = ctl_parse(&argp, argc, argv, &input);

    if (code == CTL_OK && !ctl_campaign_id(input.id))
        code = CTL_USAGE;
    command.kind = kind;
    if (code == CTL_OK && kind == TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_SET_RATE) {
        if (!text_number(input.value, 1000000, &rate)) {
            ctl_say("a rate is 0 to 1000000 mails per second");
            code = CTL_USAGE;
        }
        command.max_mails_per_s = (uint32_t)rate;
    }
    if (code == CTL_OK && kind == TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_SET_ROUTE) {
        list = strdup(input.value);
        for (char *at = list, *name; list && (name = strsep(&at, ",")) && command.n_route < TD_RELAYS_MAX;)
            route[command.n_route++] = name;
        command.route = route;
    }
    if (code == CTL_OK)
        code = ctl_load(ctl);
    if (code == CTL_OK)
        code = ask(ctl, input.id, &command);
    free(list);
    return code;
}

int ctl_campaign_pause(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv, TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_PAUSE, "ID",
               "Stop sending a campaign for now; what is on its way to a relay still goes.");
}

int ctl_campaign_resume(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv, TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_RESUME, "ID",
               "Go on sending a campaign.");
}

int ctl_campaign_cancel(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv, TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_CANCEL, "ID",
               "Never send what has not been sent: those recipients end as CANCELLED. That is final.");
}

int ctl_campaign_rate(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv, TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_SET_RATE, "ID MAILS_PER_SECOND",
               "Cap a campaign's own rate; 0 lifts the cap.");
}

int ctl_campaign_route(struct ctl *ctl, int argc, char **argv)
{
    return run(ctl, argc, argv, TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_SET_ROUTE, "ID RELAY,RELAY...",
               "Choose a campaign's relays, in order of preference.");
}
