/* TANDEM_... variables and --set: paths as flat names.
 *
 * A TANDEM_ variable that no setting owns is refused, as a misspelt key in the file is: it would otherwise do
 * nothing, in silence. Let through are TANDEM_CONFIG, TANDEM_TEST_..., and what Kubernetes puts into every pod for
 * a service called tandem-...: TANDEM_DISPATCH_SERVICE_HOST, TANDEM_DISPATCH_PORT=tcp://...,
 * TANDEM_DISPATCH_PORT_80_TCP_... */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "../settings_int.h"
#include "tandem/nearest.h"

#define PREFIX "TANDEM_"
#define RELAYS PREFIX "RELAYS_"
#define CREDENTIALS "CREDENTIALS_DIRECTORY="

enum { NAME_MAX_LEN = 160 };

struct target {
    const struct td_opt *opt;
    int relay; /* -1: none */
    bool is_file;
};

static void env_append(const char *text, char *out, size_t size)
{
    size_t n = strlen(out);

    for (; *text && n + 1 < size; text++)
        out[n++] = isalnum((unsigned char)*text) ? (char)toupper((unsigned char)*text) : '_';
    out[n] = '\0';
}

void td_env_name(const struct td_opt *opt, const char *relay, char *out, size_t size)
{
    out[0] = '\0';
    env_append(relay ? "tandem.relays." : "tandem.", out, size);
    if (relay) {
        env_append(relay, out, size);
        env_append(".", out, size);
    }
    env_append(opt->path, out, size);
}

/* Does name equal the variable of opt, or that with _FILE? */
static bool is_name_of(const struct td_opt *opt, const char *relay, const char *name, bool *ret_is_file)
{
    char want[NAME_MAX_LEN];
    size_t len;

    td_env_name(opt, relay, want, sizeof(want));
    len = strlen(want);
    if (strncmp(name, want, len) != 0)
        return false;
    *ret_is_file = name[len] != '\0';
    return !*ret_is_file || (td_opt_has_file(opt) && strcmp(name + len, "_FILE") == 0);
}

static bool find_variable(const struct td_settings *settings, const char *name, struct target *ret)
{
    *ret = (struct target){.relay = -1};
    for (size_t i = 0; i < td_opt_count; i++) {
        ret->opt = &td_opts[i];
        if (is_name_of(ret->opt, NULL, name, &ret->is_file))
            return true;
    }
    for (size_t i = 0; i < settings->relay_count; i++) {
        for (size_t j = 1; j < td_relay_opt_count && settings->relays[i].name;
             j++) { /* 0 is the name: it identifies */
            ret->opt = &td_relay_opts[j];
            ret->relay = (int)i;
            if (is_name_of(ret->opt, settings->relays[i].name, name, &ret->is_file))
                return true;
        }
    }
    return false;
}

static bool is_from_kubernetes(const char *name, const char *value)
{
    const char *port = strstr(name, "_PORT_");

    return strstr(name, "_SERVICE_HOST") || strstr(name, "_SERVICE_PORT") ||
           (strstr(name, "_PORT") && (strncmp(value, "tcp://", 6) == 0 || strncmp(value, "udp://", 6) == 0)) ||
           (port && isdigit((unsigned char)port[6]) && (strstr(port, "_TCP") || strstr(port, "_UDP")));
}

static int unknown_variable(const struct td_settings *settings, const char *name, struct td_err *reterr)
{
    enum { ALL = TD_OPTS_MAX + TD_RELAYS_MAX * TD_RELAY_OPTS_MAX };
    char(*store)[NAME_MAX_LEN] = calloc(ALL, sizeof(*store));
    const char **names = calloc(ALL, sizeof(*names)), *near = NULL;
    char clip[48];
    size_t n = 0;

    for (size_t i = 0; store && names && i < td_opt_count; i++, n++)
        td_env_name(&td_opts[i], NULL, store[n], sizeof(store[n]));
    for (size_t i = 0; store && names && i < settings->relay_count; i++)
        for (size_t j = 1; j < td_relay_opt_count && settings->relays[i].name; j++, n++)
            td_env_name(&td_relay_opts[j], settings->relays[i].name, store[n], sizeof(store[n]));
    for (size_t i = 0; i < n; i++)
        names[i] = store[i];
    near = names ? td_nearest(name, names, n) : NULL;
    if (near)
        td_fail(reterr, TD_ECONFIG, "%s: no such setting; did you mean %s?", td_clip(name, clip), near);
    else if (strncmp(name, RELAYS, strlen(RELAYS)) == 0)
        td_fail(reterr, TD_ECONFIG, "%s: no such setting, or no relay of that name in the file",
                td_clip(name, clip));
    else
        td_fail(reterr, TD_ECONFIG, "%s: no such setting; unset it, or see --help for all", td_clip(name, clip));
    free(names);
    free(store);
    return TD_ECONFIG;
}

static int read_variable(struct td_settings *settings, const char *entry, struct td_err *reterr)
{
    const char *equal = strchr(entry, '=');
    size_t len = equal ? (size_t)(equal - entry) : 0;
    char name[NAME_MAX_LEN], clip[48];
    struct td_assignment a = {.layer = TD_LAYER_ENV, .shown = name, .count = 1};
    struct target target;
    const char *value;

    if (strncmp(entry, PREFIX, strlen(PREFIX)) != 0 || !equal)
        return TD_OK;
    if (len >= sizeof(name))
        return td_fail(reterr, TD_ECONFIG, "%s: no such setting", td_clip(entry, clip));
    memcpy(name, entry, len);
    name[len] = '\0';
    value = equal + 1;
    if (strcmp(name, PREFIX "CONFIG") == 0 || strncmp(name, PREFIX "TEST_", strlen(PREFIX "TEST_")) == 0)
        return TD_OK;
    if (!find_variable(settings, name, &target))
        return is_from_kubernetes(name, value) ? TD_OK : unknown_variable(settings, name, reterr);
    if (!*value)
        return TD_OK; /* `X: ${X:-}` of a compose file: not set */
    a.items = &value;
    a.is_file = target.is_file;
    return td_settings_assign(settings, target.relay, target.opt, &a, reterr);
}

static int read_credentials(struct td_settings *settings, const char *entry, struct td_err *reterr)
{
    if (strncmp(entry, CREDENTIALS, strlen(CREDENTIALS)) != 0 || settings->origins->credentials)
        return TD_OK;
    settings->origins->credentials = strdup(entry + strlen(CREDENTIALS));
    return settings->origins->credentials ? TD_OK : td_fail(reterr, TD_ENOMEM, "no memory for settings");
}

int td_settings_read_env(struct td_settings *settings, char *const *env, struct td_err *reterr)
{
    for (; env && *env; env++) {
        int rc = read_credentials(settings, *env, reterr);

        if (rc == TD_OK)
            rc = read_variable(settings, *env, reterr);
        if (rc < 0)
            return rc;
    }
    return TD_OK;
}

/* "relays.<name>.<key>" or a path of the table, each also with _file. */
static bool find_path(const struct td_settings *settings, const char *path, struct target *ret)
{
    char name[NAME_MAX_LEN] = "";

    env_append("tandem.", name, sizeof(name));
    env_append(path, name, sizeof(name));
    /* Only what is written as a path: HTTP_LISTEN is a variable, not a path. */
    return strlen(path) < 100 && strcspn(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == strlen(path) &&
           find_variable(settings, name, ret);
}

static int read_override(struct td_settings *settings, const struct td_override *override, struct td_err *reterr)
{
    struct td_assignment a = {.layer = TD_LAYER_SET, .items = &override->value, .count = 1};
    const char *names[TD_OPTS_MAX], *near;
    struct target target;
    char shown[64], clip[48];

    if (!find_path(settings, override->path, &target)) {
        for (size_t i = 0; i < td_opt_count; i++)
            names[i] = td_opts[i].path;
        near = td_nearest(override->path, names, td_opt_count);
        return td_fail(reterr, TD_ECONFIG, "--set %s: no such setting%s%s%s", td_clip(override->path, clip),
                       near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    }
    if (td_opt_has_file(target.opt) && !target.is_file && target.opt->type == TD_OPT_SECRET)
        return td_fail(reterr, TD_ECONFIG, "--set %s: every user can read a command line; use %s_file",
                       td_clip(override->path, clip), target.opt->path);
    snprintf(shown, sizeof(shown), "--set %s", td_clip(override->path, clip));
    a.shown = shown;
    a.is_file = target.is_file;
    return td_settings_assign(settings, target.relay, target.opt, &a, reterr);
}

int td_settings_read_overrides(struct td_settings *settings, const struct td_override *overrides, size_t count,
                               struct td_err *reterr)
{
    for (size_t i = 0; i < count; i++) {
        int rc = read_override(settings, &overrides[i], reterr);

        if (rc < 0)
            return rc;
    }
    return TD_OK;
}
