/* settings_int.h - what the files of settings share. Never leaves common/ (and its tests).
 *
 * One table says everything about an option. A value goes: text -> td_opt_assign -> field of the struct, whatever
 * layer it comes from; so a range or a word list is checked once, and documented from the same row. */
#ifndef TD_SETTINGS_INT_H
#define TD_SETTINGS_INT_H

#include "tandem/buf.h"
#include "tandem/settings.h"

enum {
    TD_OPTS_MAX = 64,            /* rows of td_opts, checked by a test */
    TD_RELAY_OPTS_MAX = 32,      /* rows of td_relay_opts */
    TD_STRING_MAX = 4096,        /* bytes of one value */
    TD_SECRET_MAX = 16384,       /* bytes of a secret file: a PEM key fits */
    TD_ITEMS_MAX = 64,           /* strings in a list */
    TD_YAML_BYTES_MAX = 1 << 20, /* of the whole file */
    TD_YAML_NODES_MAX = 10000,
    TD_WHY_MAX = 200
};

enum td_opt_type {
    TD_OPT_STRING, /* char * */
    TD_OPT_INT,    /* int64_t, as are the next three */
    TD_OPT_DURATION,
    TD_OPT_SIZE,
    TD_OPT_PERCENT, /* int64_t: per 10,000, so two decimals */
    TD_OPT_WORD, /* int64_t: index into words */
    TD_OPT_BOOL,
    TD_OPT_SECRET,  /* char *, also by <key>_file */
    TD_OPT_STRINGS, /* struct td_strings */
};

/** One string of an option (of a list: each item). NULL when fine, else what it should be: "must be ...". */
typedef const char *td_opt_check(const char *value);

struct td_opt {
    const char *path; /* "dispatch.window"; in relays just "host" */
    enum td_opt_type type;
    size_t offset;            /* in td_settings or td_relay_settings */
    const char *def;          /* as YAML would say it, lists with commas; NULL: unset */
    const char *help;         /* one sentence, no full stop */
    int64_t min, max;         /* of numbers; for a duration ms, for a size bytes, for a percentage per 10,000, for a secret its length */
    const char *const *words; /* NULL-terminated: the only values */
    td_opt_check *check;
    const char *def_note; /* for the page: what stands in when def is NULL */
    bool sensitive;       /* may carry a password: never shown in an error, masked when printed */
    bool required;
};

extern const struct td_opt td_opts[];
extern const size_t td_opt_count;
extern const struct td_opt td_relay_opts[];
extern const size_t td_relay_opt_count;

/* settings_value.c: one value */

/** NULL when there is none. */
const struct td_opt *td_opt_find(const struct td_opt *table, size_t count, const char *path);
/** May it also be given as <key>_file? */
bool td_opt_has_file(const struct td_opt *opt);
/**
 * Parse and store; what was there is freed.
 * @param base   the struct that opt->offset is in
 * @param items  the texts; for all types but TD_OPT_STRINGS exactly one. Length-checked, no NUL inside.
 * @param why    on failure what is wrong, without the name of the option and without the value of a secret
 * @return TD_OK, TD_ECONFIG (why is filled; the field is unchanged) or TD_ENOMEM
 */
int td_opt_assign(const struct td_opt *opt, void *base, const char *const *items, size_t count,
                  char why[TD_WHY_MAX]);
/** td_opt_assign of one text: a list is split at `separator`, blanks around items are dropped. */
int td_opt_assign_text(const struct td_opt *opt, void *base, const char *text, char separator,
                       char why[TD_WHY_MAX]);
void td_opt_release(const struct td_opt *opt, void *base); /* secrets are wiped */
/** The value as YAML text, secrets and passwords masked. */
int td_opt_show(const struct td_opt *opt, const void *base, struct td_buf *out);
void td_duration_text(int64_t ms, char text[32]); /* "30s" */
void td_size_text(int64_t bytes, char text[32]);  /* "10MiB" */
void td_percent_text(int64_t per_10000, char text[32]); /* "2.5%" */
/** Copy for an error text: at most 40 bytes, printable ASCII, the rest as '?'. */
const char *td_clip(const char *value, char out[48]);

int td_strings_add(struct td_strings *list, const char *item);
void td_strings_release(struct td_strings *list);

/* settings.c: layers */

enum td_layer { TD_LAYER_DEFAULT = 0, TD_LAYER_FILE, TD_LAYER_ENV, TD_LAYER_SET };

struct td_origin {
    enum td_layer layer;
    size_t line;       /* in the file */
    char *secret_file; /* read at the end, when no higher layer has replaced it */
};

struct td_origins {
    char *file; /* as given; NULL: none */
    struct td_origin global[TD_OPTS_MAX];
    struct td_origin relay[TD_RELAYS_MAX][TD_RELAY_OPTS_MAX];
    size_t relay_line[TD_RELAYS_MAX];
    char *credentials; /* $CREDENTIALS_DIRECTORY of systemd; NULL: none */
    struct td_strings warnings;
};

/** A value on its way in. */
struct td_assignment {
    enum td_layer layer;
    size_t line;       /* TD_LAYER_FILE */
    const char *shown; /* how whoever wrote it calls it: "relays[0].port", "TANDEM_HTTP_LISTEN" */
    const char *const *items;
    size_t count;
    bool is_list; /* a YAML sequence; else one text, which a list option splits at commas */
    bool is_file; /* the value is the path of a file that holds it */
};

int td_settings_assign(struct td_settings *settings, int relay_index, const struct td_opt *opt,
                       const struct td_assignment *a, struct td_err *reterr); /* relay_index -1: not in a relay */
/** "tandem.yaml:12: " + text as TD_ECONFIG. */
int td_settings_fail_at(const struct td_settings *settings, size_t line, struct td_err *reterr, const char *fmt,
                        ...) __attribute__((format(printf, 4, 5)));

/** td_settings_load with the file's text and the environment as arguments. text NULL: no file. */
int td_settings_load_text(struct td_settings *ret, const char *name, const char *text, size_t len,
                          char *const *env, const struct td_override *overrides, size_t override_count,
                          struct td_err *reterr);

/* settings_yaml.c */
int td_settings_read_yaml(struct td_settings *settings, const char *text, size_t len, struct td_err *reterr);

/* settings_env.c */
int td_settings_read_env(struct td_settings *settings, char *const *env, struct td_err *reterr);
int td_settings_read_overrides(struct td_settings *settings, const struct td_override *overrides, size_t count,
                               struct td_err *reterr);
/** "TANDEM_RELAYS_SES_HOST": relay NULL for the others. Cut when out is too small. */
void td_env_name(const struct td_opt *opt, const char *relay, char *out, size_t size);

/* settings_check.c: what belongs together, and the checks that the tables name */
int td_settings_complete(struct td_settings *settings, struct td_err *reterr); /* defaults that hang on others */
int td_settings_check(const struct td_settings *settings, struct td_err *reterr);
td_opt_check td_check_listen, td_check_country, td_check_domain, td_check_relay_name, td_check_redis_url,
    td_check_https_url, td_check_topic_prefix, td_check_instance, td_check_property, td_check_host,
    td_check_ses_name, td_check_sns_topic;

#endif /* TD_SETTINGS_INT_H */
