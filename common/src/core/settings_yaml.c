/* The YAML file:
 *
 *   top: mapping of { option | section: mapping of options | relays: sequence of mappings of relay options }
 *
 * Nothing nests deeper than that, so depth is bounded by the grammar. `key:` with nothing behind it leaves the
 * default, so a section whose lines are all comments is fine. */
#include <stdio.h>
#include <string.h>

#include "tandem/yaml.h"

#include "../settings_int.h"
#include "tandem/nearest.h"

enum { SECTION_MAX = 24, SECTIONS_MAX = 16, PATH_MAX_LEN = 96 };

struct reader {
    struct td_yaml *yaml;
    struct td_settings *settings;
    struct td_err *err;
};

#define FAIL(r, line, ...) td_settings_fail_at((r)->settings, (line), (r)->err, __VA_ARGS__)

static size_t line_of(const struct reader *r)
{
    return td_yaml_line(r->yaml);
}

static int next(struct reader *r)
{
    return td_yaml_next(r->yaml, r->err);
}

static const char *scalar(const struct reader *r)
{
    return td_yaml_text(r->yaml);
}

static bool is(const struct reader *r, enum td_yaml_kind kind)
{
    return td_yaml_kind(r->yaml) == kind;
}

static bool is_null(const struct reader *r)
{
    return td_yaml_null(r->yaml);
}

/* The next key of a mapping into key; ret_more false at the mapping's end. */
static int next_key(struct reader *r, char key[PATH_MAX_LEN], size_t *ret_line, bool *ret_more)
{
    char clip[48];
    int rc = next(r);

    if (rc < 0)
        return rc;
    *ret_more = !is(r, TD_YAML_MAP_END);
    if (!*ret_more)
        return TD_OK;
    *ret_line = line_of(r);
    if (!is(r, TD_YAML_SCALAR))
        return FAIL(r, line_of(r), "a key must be a word");
    if (td_yaml_len(r->yaml) >= SECTION_MAX * 2)
        return FAIL(r, line_of(r), "unknown key '%s'", td_clip(scalar(r), clip));
    memcpy(key, scalar(r), td_yaml_len(r->yaml) + 1);
    return TD_OK;
}

/* A sequence of scalars, up to its end, into list. */
static int read_list(struct reader *r, const char *shown, struct td_strings *list)
{
    for (;;) {
        int rc = next(r);

        if (rc < 0)
            return rc;
        if (is(r, TD_YAML_LIST_END))
            return TD_OK;
        if (!is(r, TD_YAML_SCALAR))
            return FAIL(r, line_of(r), "%s: takes a list of words", shown);
        if (list->count >= TD_ITEMS_MAX)
            return FAIL(r, line_of(r), "%s: a list of more than %d", shown, (int)TD_ITEMS_MAX);
        if (td_strings_add(list, scalar(r)) < 0)
            return td_fail(r->err, TD_ENOMEM, "no memory for settings");
    }
}

/* The value of one option; the current event is its first. */
static int read_value(struct reader *r, int relay, const struct td_opt *opt, bool is_file, const char *shown,
                      size_t line)
{
    struct td_assignment a = {.layer = TD_LAYER_FILE, .line = line, .shown = shown, .is_file = is_file};
    struct td_strings list = {NULL, 0};
    const char *one;
    int rc = TD_OK;

    if (is(r, TD_YAML_MAP))
        return FAIL(r, line_of(r), "%s: takes %s, not a mapping", shown,
                    opt->type == TD_OPT_STRINGS ? "a list" : "one value");
    if (is(r, TD_YAML_LIST)) {
        rc = read_list(r, shown, &list);
        a.items = (const char *const *)list.item;
        a.count = list.count;
        a.is_list = true;
    } else {
        if (is_null(r))
            return TD_OK;
        one = scalar(r);
        a.items = &one;
        a.count = 1;
    }
    if (rc == TD_OK)
        rc = td_settings_assign(r->settings, relay, opt, &a, r->err);
    td_strings_release(&list);
    return rc;
}

/* Names of a table that may stand in `section` (NULL: the top, or a relay), for the nearest one. */
static size_t candidates(const struct td_opt *table, size_t count, const char *section, const char **names)
{
    size_t n = 0, len = section ? strlen(section) : 0;

    for (size_t i = 0; i < count; i++) {
        const char *path = table[i].path;

        if (!section && !strchr(path, '.'))
            names[n++] = path;
        else if (section && strncmp(path, section, len) == 0 && path[len] == '.')
            names[n++] = path + len + 1;
    }
    return n;
}

static size_t section_names(const char **names, char store[SECTIONS_MAX][SECTION_MAX])
{
    size_t n = 0;

    for (size_t i = 0; i < td_opt_count && n < SECTIONS_MAX; i++) {
        size_t len = strcspn(td_opts[i].path, ".");

        if (!td_opts[i].path[len] || len >= SECTION_MAX ||
            (n > 0 && strlen(store[n - 1]) == len && strncmp(store[n - 1], td_opts[i].path, len) == 0))
            continue;
        memcpy(store[n], td_opts[i].path, len);
        store[n][len] = '\0';
        names[n] = store[n];
        n++;
    }
    return n;
}

static int unknown_key(struct reader *r, const char *key, size_t line, const char *where, const char *const *names,
                       size_t count)
{
    const char *near = td_nearest(key, names, count);
    char clip[48];

    return FAIL(r, line, "unknown key '%s'%s%s%s%s%s", td_clip(key, clip), *where ? " in " : "", where,
                near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* One key and its value in a section, a relay or the top. */
static int read_option(struct reader *r, int relay, const char *section, const char *where, const char *key,
                       size_t line)
{
    const struct td_opt *table = relay < 0 ? td_opts : td_relay_opts;
    size_t count = relay < 0 ? td_opt_count : td_relay_opt_count, len;
    char path[PATH_MAX_LEN * 2], shown[PATH_MAX_LEN * 2];
    const char *names[TD_OPTS_MAX + SECTIONS_MAX + 1];
    const struct td_opt *opt;
    bool is_file = false;
    int rc;

    snprintf(path, sizeof(path), "%s%s%s", section ? section : "", section ? "." : "", key);
    snprintf(shown, sizeof(shown), "%s%s%s", where, *where ? "." : "", key);
    opt = td_opt_find(table, count, path);
    len = strlen(path);
    if (!opt && len > 5 && strcmp(path + len - 5, "_file") == 0) {
        path[len - 5] = '\0';
        opt = td_opt_find(table, count, path);
        is_file = opt && td_opt_has_file(opt);
        opt = is_file ? opt : NULL;
    }
    if (!opt) {
        char store[SECTIONS_MAX][SECTION_MAX];
        size_t n = candidates(table, count, section, names);

        if (relay < 0 && !section) {
            n += section_names(names + n, store);
            names[n++] = "relays";
        }
        return unknown_key(r, key, line, where, names, n);
    }
    rc = next(r);
    return rc < 0 ? rc : read_value(r, relay, opt, is_file, shown, line);
}

/* A mapping of options; the current event is its start. */
static int read_options(struct reader *r, int relay, const char *section, const char *where)
{
    char key[PATH_MAX_LEN];
    size_t line = 0;
    bool more = true;
    int rc;

    if (is_null(r))
        return TD_OK;
    if (!is(r, TD_YAML_MAP))
        return FAIL(r, line_of(r), "%s: takes a mapping of key: value", where);
    while ((rc = next_key(r, key, &line, &more)) == TD_OK && more) {
        rc = read_option(r, relay, section, where, key, line);
        if (rc < 0)
            return rc;
    }
    return rc;
}

static int read_relays(struct reader *r)
{
    struct td_settings *settings = r->settings;
    char where[32];
    int rc;

    if (is_null(r))
        return TD_OK;
    if (!is(r, TD_YAML_LIST))
        return FAIL(r, line_of(r), "relays: takes a list; begin each relay with '- name: ...'");
    for (;;) {
        size_t index = settings->relay_count;

        rc = next(r);
        if (rc < 0 || is(r, TD_YAML_LIST_END))
            return rc;
        if (index == TD_RELAYS_MAX)
            return FAIL(r, line_of(r), "more than %d relays", TD_RELAYS_MAX);
        snprintf(where, sizeof(where), "relays[%zu]", index);
        settings->relay_count++;
        settings->origins->relay_line[index] = line_of(r);
        for (size_t i = 0; i < td_relay_opt_count; i++) {
            char why[TD_WHY_MAX];

            if (td_relay_opts[i].def && td_opt_assign_text(&td_relay_opts[i], &settings->relays[index],
                                                           td_relay_opts[i].def, ',', why) < 0)
                return td_fail(r->err, TD_ENOMEM, "no memory for settings");
        }
        rc = read_options(r, (int)index, NULL, where);
        if (rc < 0)
            return rc;
    }
}

static bool is_section(const char *key)
{
    char store[SECTIONS_MAX][SECTION_MAX];
    const char *names[SECTIONS_MAX];
    size_t n = section_names(names, store);

    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], key) == 0)
            return true;
    return false;
}

static int read_top(struct reader *r)
{
    char key[PATH_MAX_LEN], seen[SECTIONS_MAX][PATH_MAX_LEN];
    size_t line = 0, seen_count = 0;
    bool more = true;
    int rc;

    if (!is(r, TD_YAML_MAP))
        return FAIL(r, line_of(r), "takes a mapping of key: value");
    while ((rc = next_key(r, key, &line, &more)) == TD_OK && more) {
        bool relays = strcmp(key, "relays") == 0;

        if (!relays && !is_section(key)) {
            rc = read_option(r, -1, NULL, "", key, line);
        } else {
            for (size_t i = 0; i < seen_count; i++)
                if (strcmp(seen[i], key) == 0)
                    return FAIL(r, line, "'%s' stands there twice", key);
            memcpy(seen[seen_count++], key, sizeof(key)); /* at most every section and relays: both are few */
            rc = next(r);
            if (rc == TD_OK)
                rc = relays ? read_relays(r) : read_options(r, -1, key, key);
        }
        if (rc < 0)
            return rc;
    }
    return rc;
}

static int read_file(struct reader *r)
{
    int rc = next(r);

    if (rc < 0 || is(r, TD_YAML_END))
        return rc;
    if (!is_null(r)) /* not a file of comments only, behind --- */
        rc = read_top(r);
    return rc < 0 ? rc : next(r); /* its end: a second document is refused */
}

int td_settings_read_yaml(struct td_settings *settings, const char *text, size_t len, struct td_err *reterr)
{
    struct reader r = {.settings = settings, .err = reterr};
    int rc;

    if (len > TD_YAML_BYTES_MAX)
        return td_settings_fail_at(settings, 0, reterr, "longer than %d bytes", (int)TD_YAML_BYTES_MAX);
    rc = td_yaml_new(settings->origins->file, text, len, TD_YAML_NODES_MAX, &r.yaml, reterr);
    if (rc == TD_OK)
        rc = read_file(&r);
    td_yaml_free(r.yaml);
    return rc;
}
