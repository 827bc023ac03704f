/* The command line, by argp. */
#include <argp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../app_int.h"

enum { KEY_CONFIG = 'c', KEY_SET = 's', KEY_CHECK = 256, KEY_PRINT, KEY_HEALTH };

static const struct argp_option option_table[] = {
    {.name = "config", .key = KEY_CONFIG, .arg = "FILE", .doc = TD_CMDLINE_CONFIG_HELP},
    {.name = "set", .key = KEY_SET, .arg = "PATH=VALUE", .doc = TD_CMDLINE_SET_HELP},
    {.name = "check-config", .key = KEY_CHECK, .doc = "Say ok, or what is wrong (exit code 78)"},
    {.name = "print-config", .key = KEY_PRINT, .doc = "Show every setting and where it came from"},
    {.name = "healthcheck", .key = KEY_HEALTH, .doc = "Ask the running service's /readyz: exit code 0 or 1"},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct td_app_options *options = state->input;
    struct td_err err;

    switch (key) {
    case KEY_CONFIG:
        options->cmdline.config = arg;
        return 0;
    case KEY_SET:
        if (td_cmdline_set(&options->cmdline, arg, &err) < 0)
            argp_error(state, "%s", err.text);
        return 0;
    case KEY_CHECK:
        options->mode = TD_MODE_CHECK;
        return 0;
    case KEY_PRINT:
        options->mode = TD_MODE_PRINT;
        return 0;
    case KEY_HEALTH:
        options->mode = TD_MODE_HEALTH;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument"); /* exits */
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* The settings behind the options; argp frees what we return. */
static char *help_filter(int key, const char *text, void *input)
{
    char *all = NULL;
    size_t len = 0;
    FILE *out;

    (void)input;
    if (key != ARGP_KEY_HELP_POST_DOC)
        return (char *)(uintptr_t)text;
    out = open_memstream(&all, &len);
    if (!out)
        return NULL;
    fputs(text, out);
    td_settings_document(out, false);
    fclose(out);
    return all;
}

int td_app_options_parse(int argc, char **argv, const struct td_service *service, struct td_app_options *ret,
                         struct td_err *reterr)
{
    static char version[96];
    struct argp argp = {option_table, parse_option, NULL, NULL, NULL, help_filter, NULL};
    char *doc = NULL;
    int rc;

    *ret = (struct td_app_options){.mode = TD_MODE_RUN};
    snprintf(version, sizeof(version), "tandem-%s %s", service->name, TD_VERSION);
    argp_program_version = version;
    argp_err_exit_status = TD_EXIT_USAGE;
    if (asprintf(&doc,
                 "tandem-%s: %s\vExit codes: 0 drained, 64 usage, 70 internal, 75 try again, 78 configuration.\n\n"
                 "Settings, each also as TANDEM_SECTION_KEY in the environment:\n",
                 service->name, service->summary) < 0)
        return td_fail(reterr, TD_ENOMEM, "no memory for options");
    argp.doc = doc;
    rc = (int)argp_parse(&argp, argc, argv, 0, NULL, ret);
    free(doc);
    if (rc != 0) {
        td_cmdline_release(&ret->cmdline);
        return td_fail(reterr, TD_EINVAL, "options: %s", strerror(rc));
    }
    return TD_OK;
}
