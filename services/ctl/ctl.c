/* Options that every command takes, and how it speaks. */
#include "ctl.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tandem/id.h"
#include "tandem/json.h"
#include "tandem/log.h"
#include "text.h"

enum { KEY_JSON = 0x2000, KEY_NO_COLOR, KEY_TIMEOUT, KEY_SET };

static const struct argp_option common_options[] = {
    {NULL, 0, NULL, 0, "Options of every command:", -2},
    {"config", 'c', "FILE", 0, TD_CMDLINE_CONFIG_HELP, -2},
    {"set", KEY_SET, "PATH=VALUE", 0, TD_CMDLINE_SET_HELP, -2},
    {"json", KEY_JSON, NULL, 0, "JSON on stdout", -2},
    {"quiet", 'q', NULL, 0, "Only results and errors", -2},
    {"no-color", KEY_NO_COLOR, NULL, 0, "No colours and no redrawn lines", -2},
    {"timeout", KEY_TIMEOUT, "TIME", 0, "How long to wait for an answer, such as 30s (default 60s)", -2},
    {0}};

static error_t parse_common(int key, char *arg, struct argp_state *state)
{
    struct ctl *ctl = state->input;
    struct td_err err;
    int64_t ms;

    switch (key) {
    case 'c':
        ctl->cmdline.config = arg;
        return 0;
    case KEY_SET:
        if (td_cmdline_set(&ctl->cmdline, arg, &err) < 0)
            argp_error(state, "%s", err.text);
        return 0;
    case KEY_JSON:
        ctl->json = true;
        return 0;
    case 'q':
        ctl->quiet = true;
        return 0;
    case KEY_NO_COLOR:
        ctl->no_color = true;
        return 0;
    case KEY_TIMEOUT:
        if (!text_duration_ms(arg, &ms) || ms == 0 || ms > 86400000)
            argp_error(state, "--timeout takes a time such as 30s, at most 24h");
        ctl->timeout_ms = (unsigned)ms;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp ctl_common_argp = {.options = common_options, .parser = parse_common};
const struct argp_child ctl_children[] = {{&ctl_common_argp, 0, NULL, -2}, {0}};

void ctl_input_init(struct argp_state *state)
{
    const struct ctl_input *input = state->input;

    state->child_inputs[0] = input->ctl;
}

int ctl_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    argp_err_exit_status = CTL_USAGE;
    return argp_parse(argp, argc, argv, 0, NULL, input) == 0 ? CTL_OK : CTL_USAGE;
}

int ctl_load(struct ctl *ctl)
{
    struct td_err err;

    if (ctl->loaded)
        return CTL_OK;
    if (td_cmdline_load(&ctl->cmdline, &ctl->settings, &err) < 0) {
        ctl_say("%s", err.text);
        return CTL_USAGE;
    }
    ctl->loaded = true;
    /* What a service would log about lost connections is said by the command itself, once, in its own words. */
    td_log_setup("tandemctl", ctl->settings.instance, TD_ERROR);
    return CTL_OK;
}

static void __attribute__((format(printf, 1, 0))) say(const char *fmt, va_list ap)
{
    fputs("tandemctl: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

void ctl_say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
}

void ctl_note(const struct ctl *ctl, const char *fmt, ...)
{
    va_list ap;

    if (ctl->quiet)
        return;
    va_start(ap, fmt);
    say(fmt, ap);
    va_end(ap);
}

int ctl_error(const struct td_err *err)
{
    ctl_say("%s", err->text);
    switch (err->code) {
    case TD_EIO:
    case TD_ETIMEOUT:
    case TD_EAGAIN:
        return CTL_UNREACHABLE;
    case TD_ECONFIG:
    case TD_EINVAL:
    case TD_ESYNTAX:
        return CTL_USAGE;
    case TD_OK:
    case TD_ETOOBIG:
    case TD_ENOTFOUND:
    case TD_ENOMEM:
    case TD_EDENIED:
    case TD_EFATAL:
    case TD_EBUG:
        break;
    }
    return CTL_FAILED;
}

void ctl_run(struct ctl *ctl)
{
    uv_run(&ctl->loop, UV_RUN_DEFAULT);
}

error_t ctl_one_campaign(int key, char *arg, struct argp_state *state, const char **id)
{
    switch (key) {
    case ARGP_KEY_ARG:
        if (*id)
            argp_error(state, "one campaign at a time");
        *id = arg;
        return 0;
    case ARGP_KEY_END:
        if (!*id)
            argp_error(state, "which campaign?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

bool ctl_campaign_id(const char *text)
{
    if (td_campaign_id_valid(text))
        return true;
    ctl_say("a campaign id has 1 to %d of a-z 0-9 - _ and begins with a letter or digit", TD_CAMPAIGN_ID_MAX);
    return false;
}

int ctl_json_string(struct td_buf *out, const char *text)
{
    return td_json_string(out, text, strlen(text));
}

int ctl_json_field(struct td_buf *out, const char *name, const char *value)
{
    int rc = td_buf_printf(out, ",\"%s\":", name);

    return rc < 0 ? rc : ctl_json_string(out, value);
}
