/* Settings in layers: default, file, environment, command line; then what hangs together.
 *
 * Each layer assigns through td_settings_assign, which remembers where a value came from. Secrets named by a file
 * are read last, so one that a higher layer replaces need not exist. */
#include "tandem/settings.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../settings_int.h"

extern char **environ;

/* As compose and Kubernetes mount secrets: readable by all, but only processes of the container are there. */
#define CONTAINER_SECRETS "/run/secrets/"

int td_settings_fail_at(const struct td_settings *settings, size_t line, struct td_err *reterr, const char *fmt,
                        ...)
{
    const char *file = settings->origins ? settings->origins->file : NULL;
    char text[TD_ERR_TEXT_MAX];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (!file)
        return td_fail(reterr, TD_ECONFIG, "%s", text);
    if (line == 0)
        return td_fail(reterr, TD_ECONFIG, "%s: %s", file, text);
    return td_fail(reterr, TD_ECONFIG, "%s:%zu: %s", file, line, text);
}

static int fail_as(const struct td_settings *settings, enum td_layer layer, size_t line, const char *shown,
                   const char *why, struct td_err *reterr)
{
    if (layer == TD_LAYER_FILE)
        return td_settings_fail_at(settings, line, reterr, "%s: %s", shown, why);
    return td_fail(reterr, TD_ECONFIG, "%s: %s", shown, why);
}

static void *base_of(struct td_settings *settings, int relay)
{
    return relay < 0 ? (void *)settings : (void *)&settings->relays[relay];
}

static struct td_origin *origin_of(struct td_settings *settings, int relay, const struct td_opt *opt)
{
    return relay < 0 ? &settings->origins->global[opt - td_opts]
                     : &settings->origins->relay[relay][opt - td_relay_opts];
}

int td_settings_assign(struct td_settings *settings, int relay_index, const struct td_opt *opt,
                       const struct td_assignment *a, struct td_err *reterr)
{
    struct td_origin *origin = origin_of(settings, relay_index, opt);
    void *base = base_of(settings, relay_index);
    char why[TD_WHY_MAX] = "";
    char *path = NULL;
    int rc;

    if (origin->layer == a->layer && a->layer != TD_LAYER_SET) {
        snprintf(why, sizeof(why),
                 td_opt_has_file(opt) ? "given twice, or both as value and as file" : "given twice");
        return fail_as(settings, a->layer, a->line, a->shown, why, reterr);
    }
    if (a->is_list && opt->type != TD_OPT_STRINGS)
        return fail_as(settings, a->layer, a->line, a->shown, "takes one value, not a list", reterr);
    if (a->is_file) {
        if (a->is_list || !*a->items[0])
            return fail_as(settings, a->layer, a->line, a->shown, "takes the path of a file", reterr);
        path = strdup(a->items[0]);
        rc = path ? TD_OK : TD_ENOMEM;
    } else if (a->is_list) {
        rc = td_opt_assign(opt, base, a->items, a->count, why);
    } else {
        rc = td_opt_assign_text(opt, base, a->items[0], ',', why);
    }
    if (rc == TD_ECONFIG)
        return fail_as(settings, a->layer, a->line, a->shown, why, reterr);
    if (rc < 0)
        return td_fail(reterr, TD_ENOMEM, "no memory for settings");
    free(origin->secret_file);
    *origin = (struct td_origin){a->layer, a->line, path};
    return TD_OK;
}

/* At most limit bytes of a file. Caller frees; one NUL follows. */
static int read_file(const char *path, size_t limit, char **ret, size_t *ret_len, struct stat *ret_stat,
                     const char **ret_why)
{
    FILE *in = fopen(path, "rbe");
    char *text = malloc(limit + 2);
    size_t len = 0;
    int rc = TD_ECONFIG;

    if (!in || fstat(fileno(in), ret_stat) < 0) {
        *ret_why = strerror(errno);
        goto out;
    }
    if (!text) {
        *ret_why = "out of memory";
        goto out;
    }
    len = fread(text, 1, limit + 1, in);
    if (ferror(in))
        *ret_why = strerror(errno);
    else if (len > limit)
        *ret_why = "too long";
    else
        rc = TD_OK;
    text[len] = '\0';
out:
    if (in)
        fclose(in);
    if (rc < 0) {
        if (text)
            explicit_bzero(text, len);
        free(text);
        return rc;
    }
    *ret = text;
    *ret_len = len;
    return TD_OK;
}

static int warn_open_secret(struct td_settings *settings, const char *path, const struct stat *stat)
{
    char text[TD_WHY_MAX];

    if (!(stat->st_mode & S_IROTH) || !S_ISREG(stat->st_mode) ||
        strncmp(path, CONTAINER_SECRETS, strlen(CONTAINER_SECRETS)) == 0)
        return TD_OK;
    snprintf(text, sizeof(text), "every user can read the secret in %.120s; chmod o-r", path);
    for (size_t i = 0; i < settings->origins->warnings.count; i++)
        if (strcmp(settings->origins->warnings.item[i], text) == 0)
            return TD_OK; /* one file may serve several settings */
    return td_strings_add(&settings->origins->warnings, text);
}

static void shown_name(const struct td_settings *settings, int relay, const struct td_opt *opt,
                       const struct td_origin *origin, char *out, size_t size)
{
    if (origin->layer == TD_LAYER_ENV)
        td_env_name(opt, relay < 0 ? NULL : settings->relays[relay].name, out, size);
    else if (relay < 0)
        snprintf(out, size, "%s", opt->path);
    else
        snprintf(out, size, "relays[%d].%s", relay, opt->path);
}

/* A relative path under systemd: LoadCredential=secrets:/etc/tandem/secrets gives us the file secrets/ses-password
 * as $CREDENTIALS_DIRECTORY/secrets_ses-password, so one settings file serves with and without systemd. Else path.
 */
static const char *find_secret(const struct td_settings *settings, const char *path, char *out, size_t size)
{
    const char *directory = settings->origins->credentials;
    int n;

    if (!directory || !*directory || *path == '/')
        return path;
    n = snprintf(out, size, "%s/%s", directory, path);
    if (n < 0 || (size_t)n >= size)
        return path;
    for (char *c = out + strlen(directory) + 1; *c; c++)
        if (*c == '/')
            *c = '_';
    return access(out, F_OK) == 0 ? out : path;
}

static int read_secret(struct td_settings *settings, int relay, const struct td_opt *opt, struct td_err *reterr)
{
    struct td_origin *origin = origin_of(settings, relay, opt);
    char why[TD_WHY_MAX] = "", shown[160], found[PATH_MAX];
    const char *path, *reason = NULL;
    struct stat stat;
    char *text = NULL;
    size_t len = 0;
    int rc;

    if (!origin->secret_file)
        return TD_OK;
    path = find_secret(settings, origin->secret_file, found, sizeof(found));
    rc = read_file(path, TD_SECRET_MAX, &text, &len, &stat, &reason);
    if (rc < 0) {
        snprintf(why, sizeof(why), "cannot read %.100s: %s", path, reason);
        goto out;
    }
    if (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0'; /* editors and `echo` put it there; no password ends so */
    if (len > 0 && text[len - 1] == '\r')
        text[--len] = '\0';
    if (len == 0 || memchr(text, '\0', len)) {
        snprintf(why, sizeof(why), "%.100s is %s", path, len ? "not text" : "empty");
        rc = TD_ECONFIG;
    } else {
        rc = td_opt_assign_text(opt, base_of(settings, relay), text, '\n', why);
    }
    if (rc == TD_OK)
        rc = warn_open_secret(settings, path, &stat);
out:
    if (rc == TD_ECONFIG) {
        shown_name(settings, relay, opt, origin, shown, sizeof(shown));
        fail_as(settings, origin->layer, origin->line, shown, why, reterr);
    } else if (rc < 0) {
        td_fail(reterr, TD_ENOMEM, "no memory for settings");
    }
    if (text)
        explicit_bzero(text, len);
    free(text);
    return rc;
}

static int read_secrets(struct td_settings *settings, struct td_err *reterr)
{
    int rc = TD_OK;

    for (size_t i = 0; i < td_opt_count && rc == TD_OK; i++)
        rc = read_secret(settings, -1, &td_opts[i], reterr);
    for (size_t i = 0; i < settings->relay_count; i++)
        for (size_t j = 0; j < td_relay_opt_count && rc == TD_OK; j++)
            rc = read_secret(settings, (int)i, &td_relay_opts[j], reterr);
    return rc;
}

static int defaults(struct td_settings *settings, const char *name)
{
    char why[TD_WHY_MAX];
    int rc = TD_OK;

    settings->origins = calloc(1, sizeof(*settings->origins));
    if (!settings->origins)
        return TD_ENOMEM;
    settings->origins->file = name ? strdup(name) : NULL;
    if (name && !settings->origins->file)
        return TD_ENOMEM;
    for (size_t i = 0; i < td_opt_count && rc == TD_OK; i++)
        if (td_opts[i].def)
            rc = td_opt_assign_text(&td_opts[i], settings, td_opts[i].def, ',', why);
    return rc;
}

int td_settings_load_text(struct td_settings *ret, const char *name, const char *text, size_t len,
                          char *const *env, const struct td_override *overrides, size_t override_count,
                          struct td_err *reterr)
{
    int rc;

    *ret = (struct td_settings){0};
    rc = defaults(ret, name);
    if (rc < 0)
        td_fail(reterr, TD_ENOMEM, "no memory for settings");
    if (rc == TD_OK && text)
        rc = td_settings_read_yaml(ret, text, len, reterr);
    if (rc == TD_OK)
        rc = td_settings_read_env(ret, env, reterr);
    if (rc == TD_OK)
        rc = td_settings_read_overrides(ret, overrides, override_count, reterr);
    if (rc == TD_OK)
        rc = read_secrets(ret, reterr);
    if (rc == TD_OK)
        rc = td_settings_complete(ret, reterr);
    if (rc == TD_OK)
        rc = td_settings_check(ret, reterr);
    if (rc == TD_OK)
        return TD_OK;
    td_settings_release(ret);
    return TD_ECONFIG;
}

int td_settings_load(struct td_settings *ret, const char *file, const struct td_override *overrides,
                     size_t override_count, struct td_err *reterr)
{
    const char *why = NULL;
    struct stat stat;
    char *text = NULL;
    size_t len = 0;
    int rc;

    *ret = (struct td_settings){0};
    if (file && read_file(file, TD_YAML_BYTES_MAX, &text, &len, &stat, &why) < 0)
        return td_fail(reterr, TD_ECONFIG, "%s: %s", file, why);
    rc = td_settings_load_text(ret, file, text, len, environ, overrides, override_count, reterr);
    if (text)
        explicit_bzero(text, len); /* passwords may stand in it */
    free(text);
    return rc;
}

const struct td_strings *td_settings_warnings(const struct td_settings *settings)
{
    static const struct td_strings none = {NULL, 0};

    return settings->origins ? &settings->origins->warnings : &none;
}

static void origins_free(struct td_origins *origins)
{
    if (!origins)
        return;
    for (size_t i = 0; i < TD_OPTS_MAX; i++)
        free(origins->global[i].secret_file);
    for (size_t i = 0; i < TD_RELAYS_MAX; i++)
        for (size_t j = 0; j < TD_RELAY_OPTS_MAX; j++)
            free(origins->relay[i][j].secret_file);
    td_strings_release(&origins->warnings);
    free(origins->credentials);
    free(origins->file);
    free(origins);
}

void td_settings_release(struct td_settings *settings)
{
    for (size_t i = 0; i < td_opt_count; i++)
        td_opt_release(&td_opts[i], settings);
    for (size_t i = 0; i < TD_RELAYS_MAX; i++)
        for (size_t j = 0; j < td_relay_opt_count; j++)
            td_opt_release(&td_relay_opts[j], &settings->relays[i]);
    origins_free(settings->origins);
    *settings = (struct td_settings){0};
}
