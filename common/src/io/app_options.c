/* The command line, by argp. */
#include <argp.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../app_int.h"

#define DEFAULT_FILE "/etc/tandem/tandem.yaml"

enum { KEY_CONFIG = 'c', KEY_SET = 's', KEY_CHECK = 256, KEY_PRINT, KEY_HEALTH };

static const struct argp_option option_table[] = {
    {.name = "config",
     .key = KEY_CONFIG,
     .arg = "FILE",
     .doc = "Settings (default $TANDEM_CONFIG, else " DEFAULT_FILE " when it exists)"},
    {.name = "set", .key = KEY_SET, .arg = "PATH=VALUE", .doc = "One setting, before all other sources"},
    {.name = "check-config", .key = KEY_CHECK, .doc = "Say ok, or what is wrong (exit code 78)"},
    {.name = "print-config", .key = KEY_PRINT, .doc = "Show every setting and where it came from"},
    {.name = "healthcheck", .key = KEY_HEALTH, .doc = "Ask the running service's /readyz: exit code 0 or 1"},
    {0},
};

static int add_override(struct td_app_options *options, const char *arg)
{
    const char *equal = strchr(arg, '=');
    size_t i = options->override_count;

    if (!equal || equal == arg || i == TD_OVERRIDES_MAX)
        return EINVAL;
    options->path[i] = strndup(arg, (size_t)(equal - arg));
    if (!options->path[i])
        return ENOMEM;
    options->override[i] = (struct td_override){options->path[i], equal + 1};
    options->override_count++;
    return 0;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct td_app_options *options = state->input;

    switch (key) {
    case KEY_CONFIG:
        options->config = arg;
        return 0;
    case KEY_SET:
        if (add_override(options, arg) != 0)
            argp_error(state, "--set takes PATH=VALUE, at most %d times", (int)TD_OVERRIDES_MAX);
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
    const char *config = getenv("TANDEM_CONFIG");
    char *doc = NULL;
    int rc;

    *ret = (struct td_app_options){.config = config && *config ? config : NULL};
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
        td_app_options_release(ret);
        return td_fail(reterr, TD_EINVAL, "options: %s", strerror(rc));
    }
    if (!ret->config && access(DEFAULT_FILE, F_OK) == 0)
        ret->config = DEFAULT_FILE;
    return TD_OK;
}

void td_app_options_release(struct td_app_options *options)
{
    for (size_t i = 0; i < options->override_count; i++)
        free(options->path[i]);
    options->override_count = 0;
}
