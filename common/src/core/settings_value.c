/* One value: text to field and back. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../settings_int.h"
#include "tandem/utf8.h"

static int say(char why[TD_WHY_MAX], const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int say(char why[TD_WHY_MAX], const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(why, TD_WHY_MAX, fmt, args);
    va_end(args);
    return TD_ECONFIG;
}

const char *td_clip(const char *value, char out[48])
{
    size_t n = 0;

    for (; value[n] && n < 40; n++)
        out[n] = value[n] >= ' ' && value[n] <= '~' ? value[n] : '?';
    if (value[n])
        out[n++] = '~';
    out[n] = '\0';
    return out;
}

int td_strings_add(struct td_strings *list, const char *item)
{
    char **grown = realloc(list->item, (list->count + 1) * sizeof(*grown));

    if (!grown)
        return TD_ENOMEM;
    list->item = grown;
    list->item[list->count] = strdup(item);
    if (!list->item[list->count])
        return TD_ENOMEM;
    list->count++;
    return TD_OK;
}

void td_strings_release(struct td_strings *list)
{
    for (size_t i = 0; i < list->count; i++) {
        explicit_bzero(list->item[i], strlen(list->item[i]));
        free(list->item[i]);
    }
    free(list->item);
    *list = (struct td_strings){NULL, 0};
}

const struct td_opt *td_opt_find(const struct td_opt *table, size_t count, const char *path)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(table[i].path, path) == 0)
            return &table[i];
    return NULL;
}

bool td_opt_has_file(const struct td_opt *opt)
{
    return opt->type == TD_OPT_SECRET || (opt->type == TD_OPT_STRINGS && opt->sensitive);
}

static char **string_field(const struct td_opt *opt, void *base)
{
    return (char **)(void *)((char *)base + opt->offset);
}

static int64_t *int_field(const struct td_opt *opt, void *base)
{
    return (int64_t *)(void *)((char *)base + opt->offset);
}

static bool *bool_field(const struct td_opt *opt, void *base)
{
    return (bool *)(void *)((char *)base + opt->offset);
}

static struct td_strings *strings_field(const struct td_opt *opt, void *base)
{
    return (struct td_strings *)(void *)((char *)base + opt->offset);
}

struct unit {
    const char *name;
    int64_t factor;
};
static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
static const struct unit size_units[] = {{"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
#define UNITS(u) (sizeof(u) / sizeof((u)[0]))

/* The largest unit that divides evenly, so that what is printed reads back as the same number. */
static void unit_text(int64_t n, const struct unit *units, size_t count, char text[32])
{
    size_t i = count - 1;

    while (i > 0 && (n == 0 || n % units[i].factor != 0))
        i--;
    snprintf(text, 32, "%" PRId64 "%s", n / units[i].factor, units[i].name);
}

void td_duration_text(int64_t ms, char text[32])
{
    /* 24 hours and 60 seconds are how people say these; days begin at two. */
    size_t count = ms >= 2 * duration_units[4].factor ? UNITS(duration_units) : UNITS(duration_units) - 1;

    unit_text(ms, duration_units, count, text);
}

void td_size_text(int64_t bytes, char text[32])
{
    unit_text(bytes, size_units, UNITS(size_units), text);
}

void td_percent_text(int64_t per_10000, char text[32])
{
    int64_t rest = per_10000 % 100;

    if (rest == 0)
        snprintf(text, 32, "%" PRId64 "%%", per_10000 / 100);
    else
        snprintf(text, 32, "%" PRId64 ".%0*" PRId64 "%%", per_10000 / 100, rest % 10 ? 2 : 1, rest % 10 ? rest : rest / 10);
}

static void number_text(enum td_opt_type type, int64_t n, char text[32])
{
    if (type == TD_OPT_DURATION)
        td_duration_text(n, text);
    else if (type == TD_OPT_SIZE)
        td_size_text(n, text);
    else if (type == TD_OPT_PERCENT)
        td_percent_text(n, text);
    else
        snprintf(text, 32, "%" PRId64, n);
}

/* Digits with a sign, then a unit. false: not of this form, or past int64. */
static bool number_read(const char *text, const struct unit *units, size_t unit_count, bool bare_ok, int64_t *ret)
{
    char *end = NULL;
    long long n;

    if (!((*text >= '0' && *text <= '9') || (*text == '-' && text[1] >= '0' && text[1] <= '9')))
        return false; /* strtoll would skip blanks and take a plus sign */
    errno = 0;
    n = strtoll(text, &end, 10);
    if (errno != 0)
        return false;
    *ret = n;
    if (*end == '\0')
        return bare_ok || n == 0;
    for (size_t i = 0; i < unit_count; i++)
        if (strcmp(end, units[i].name) == 0)
            return !__builtin_mul_overflow((int64_t)n, units[i].factor, ret);
    return false;
}

/* "2", "2%", "2.5 %": at most two decimals. */
static bool percent_read(const char *text, int64_t *ret)
{
    size_t whole = strspn(text, "0123456789"), digits = 0;
    int64_t n = 0;

    if (whole < 1 || whole > 9)
        return false;
    for (size_t i = 0; i < whole; i++)
        n = 10 * n + (text[i] - '0');
    text += whole;
    if (*text == '.') {
        digits = strspn(text + 1, "0123456789");
        if (digits < 1 || digits > 2)
            return false;
        for (size_t i = 1; i <= digits; i++)
            n = 10 * n + (text[i] - '0');
        text += 1 + digits;
    }
    *ret = digits == 2 ? n : digits == 1 ? 10 * n : 100 * n;
    return strcmp(text, "") == 0 || strcmp(text, "%") == 0 || strcmp(text, " %") == 0;
}

static int parse_number(const struct td_opt *opt, const char *text, int64_t *ret, char why[TD_WHY_MAX])
{
    char clip[48], low[32], high[32];
    int64_t n = 0;

    if (opt->type == TD_OPT_DURATION) {
        if (!number_read(text, duration_units, UNITS(duration_units), false, &n))
            return say(why, "'%s' is not a duration; write a whole number and ms, s, m, h or d, as in 30s",
                       td_clip(text, clip));
    } else if (opt->type == TD_OPT_SIZE) {
        if (!number_read(text, size_units, UNITS(size_units), true, &n))
            return say(why, "'%s' is not a size; write a whole number of bytes, or one with KiB, MiB or GiB",
                       td_clip(text, clip));
    } else if (opt->type == TD_OPT_PERCENT) {
        if (!percent_read(text, &n))
            return say(why, "'%s' is not a percentage; write a number, at most two decimals and %%, as in 2.5%%",
                       td_clip(text, clip));
    } else if (!number_read(text, NULL, 0, true, &n)) {
        return say(why, "'%s' is not a whole number", td_clip(text, clip));
    }
    if (n < opt->min || n > opt->max) {
        number_text(opt->type, opt->min, low);
        number_text(opt->type, opt->max, high);
        return say(why, "%s is out of range, %s to %s", td_clip(text, clip), low, high);
    }
    *ret = n;
    return TD_OK;
}

static int parse_bool(const char *text, bool *ret, char why[TD_WHY_MAX])
{
    static const char *const word[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    char clip[48];

    for (size_t i = 0; i < sizeof(word) / sizeof(word[0]); i++) {
        if (strcasecmp(text, word[i]) == 0) {
            *ret = i % 2;
            return TD_OK;
        }
    }
    return say(why, "'%s' is not true or false", td_clip(text, clip));
}

/* Index of text in opt->words. */
static int parse_word(const struct td_opt *opt, const char *text, int64_t *ret, char why[TD_WHY_MAX])
{
    char clip[48], all[120] = "";
    size_t len = 0;

    for (int64_t i = 0; opt->words[i]; i++) {
        if (strcmp(text, opt->words[i]) == 0) {
            *ret = i;
            return TD_OK;
        }
        if (len < sizeof(all)) /* snprintf says what it would have needed */
            len += (size_t)snprintf(all + len, sizeof(all) - len, "%s%s", i ? ", " : "", opt->words[i]);
    }
    return say(why, "'%s' is none of: %s", td_clip(text, clip), all);
}

/* A CR or LF would start a new line in SMTP, in a log or in Redis: refused here for all. So is what YAML does not
 * take or takes for a line end (C1 controls, U+2028, U+FEFF). */
static const char *check_characters(const char *text)
{
    size_t len = strlen(text);
    uint32_t c = 0;

    for (size_t i = 0, n; i < len; i += n) {
        n = td_utf8_next(text + i, len - i, &c);
        if (n == 0)
            return "is not UTF-8";
        if (c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x2028 || c == 0x2029 || c == 0xfeff || c == 0xfffe ||
            c == 0xffff)
            return "holds a control character";
    }
    return NULL;
}

/* What holds for every text. */
static int check_text(const struct td_opt *opt, const char *text, char why[TD_WHY_MAX])
{
    size_t limit = opt->type == TD_OPT_SECRET ? TD_SECRET_MAX : TD_STRING_MAX;
    const char *wrong;
    char clip[48];
    int64_t word;

    if (strlen(text) > limit)
        return say(why, "longer than %zu bytes", limit);
    wrong = opt->type == TD_OPT_SECRET ? NULL : check_characters(text);
    if (wrong)
        return say(why, "%s", wrong);
    if (opt->words)
        return parse_word(opt, text, &word, why);
    wrong = opt->check && *text ? opt->check(text) : NULL;
    if (wrong)
        return opt->sensitive ? say(why, "%s", wrong) : say(why, "'%s' %s", td_clip(text, clip), wrong);
    if (opt->type == TD_OPT_SECRET && *text && (int64_t)strlen(text) < opt->min)
        return say(why, "a secret of at least %" PRId64 " bytes is needed, this one has %zu", opt->min,
                   strlen(text));
    return TD_OK;
}

static int assign_string(const struct td_opt *opt, void *base, const char *text, char why[TD_WHY_MAX])
{
    char *copy = NULL;
    int rc = check_text(opt, text, why);

    if (rc < 0)
        return rc;
    if (*text || opt->def) { /* an empty text unsets what has no default */
        copy = strdup(text);
        if (!copy)
            return TD_ENOMEM;
    }
    td_opt_release(opt, base);
    *string_field(opt, base) = copy;
    return TD_OK;
}

static int assign_strings(const struct td_opt *opt, void *base, const char *const *items, size_t count,
                          char why[TD_WHY_MAX])
{
    struct td_strings list = {NULL, 0};
    int rc = TD_OK;

    if (count > TD_ITEMS_MAX)
        return say(why, "a list of more than %d", (int)TD_ITEMS_MAX);
    for (size_t i = 0; i < count && rc == TD_OK; i++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): the caller has set count of them */
        rc = *items[i] ? check_text(opt, items[i], why) : say(why, "an empty item in the list");
        if (rc == TD_OK)
            rc = td_strings_add(&list, items[i]);
    }
    if (rc == TD_OK) {
        td_opt_release(opt, base);
        *strings_field(opt, base) = list;
    } else {
        td_strings_release(&list);
    }
    return rc;
}

int td_opt_assign(const struct td_opt *opt, void *base, const char *const *items, size_t count,
                  char why[TD_WHY_MAX])
{
    if (opt->type == TD_OPT_STRINGS)
        return assign_strings(opt, base, items, count, why);
    if (count != 1)
        return say(why, "takes one value, not a list");
    switch (opt->type) {
    case TD_OPT_STRING:
    case TD_OPT_SECRET:
        return assign_string(opt, base, items[0], why);
    case TD_OPT_INT:
    case TD_OPT_DURATION:
    case TD_OPT_SIZE:
    case TD_OPT_PERCENT:
        return parse_number(opt, items[0], int_field(opt, base), why);
    case TD_OPT_WORD:
        return parse_word(opt, items[0], int_field(opt, base), why);
    case TD_OPT_BOOL:
        return parse_bool(items[0], bool_field(opt, base), why);
    case TD_OPT_STRINGS:
        break;
    }
    return TD_EBUG;
}

static char *trim(char *text)
{
    size_t len;

    while (*text == ' ' || *text == '\t')
        text++;
    len = strlen(text);
    while (len > 0 && strchr(" \t\r", text[len - 1]))
        text[--len] = '\0';
    return text;
}

int td_opt_assign_text(const struct td_opt *opt, void *base, const char *text, char separator,
                       char why[TD_WHY_MAX])
{
    const char *items[TD_ITEMS_MAX + 1];
    char *copy, *at, *end;
    size_t count = 0;
    int rc;

    if (opt->type != TD_OPT_STRINGS)
        return td_opt_assign(opt, base, &text, 1, why);
    copy = strdup(text);
    if (!copy)
        return TD_ENOMEM;
    for (at = *trim(copy) ? copy : NULL; at && count <= TD_ITEMS_MAX; at = end) {
        end = strchr(at, separator);
        if (end)
            *end++ = '\0';
        items[count] = trim(at);
        count += separator == ',' || *items[count]; /* blank lines of a file are no items */
    }
    rc = td_opt_assign(opt, base, items, count, why);
    explicit_bzero(copy, strlen(text));
    free(copy);
    return rc;
}

void td_opt_release(const struct td_opt *opt, void *base)
{
    if (opt->type == TD_OPT_STRINGS)
        td_strings_release(strings_field(opt, base));
    if (opt->type != TD_OPT_STRING && opt->type != TD_OPT_SECRET)
        return;
    if (*string_field(opt, base))
        explicit_bzero(*string_field(opt, base), strlen(*string_field(opt, base)));
    free(*string_field(opt, base));
    *string_field(opt, base) = NULL;
}

/* YAML's double-quoted style. Control characters never get this far. */
static int show_quoted(const char *text, size_t len, struct td_buf *out)
{
    int rc = td_buf_addc(out, '"');

    for (size_t i = 0; i < len && rc == TD_OK; i++) {
        if (text[i] == '"' || text[i] == '\\')
            rc = td_buf_addc(out, '\\');
        if (rc == TD_OK)
            rc = td_buf_addc(out, text[i]);
    }
    return rc == TD_OK ? td_buf_addc(out, '"') : rc;
}

/* keep bytes of text, then ***, then the end of it from `tail` on. */
static int show_cut(const char *text, size_t keep, const char *tail, struct td_buf *out)
{
    struct td_buf line = TD_BUF_INIT(TD_STRING_MAX + 4);
    int rc = td_buf_add(&line, text, keep);

    if (rc == TD_OK)
        rc = td_buf_printf(&line, "***%s", tail);
    if (rc == TD_OK)
        rc = show_quoted(td_buf_str(&line), line.len, out);
    td_buf_release(&line);
    return rc;
}

/* A URL without its password. */
static int show_url(const char *url, struct td_buf *out)
{
    const char *scheme = strstr(url, "://"), *at = strrchr(url, '@');
    const char *user = scheme ? scheme + 3 : url;
    const char *colon = at && at > user ? memchr(user, ':', (size_t)(at - user)) : NULL;

    return colon ? show_cut(url, (size_t)(colon - url) + 1, at, out) : show_quoted(url, strlen(url), out);
}

/* Librdkafka has many properties that are secrets (sasl.password, ssl.key.pem, sasl.oauthbearer.client.secret),
 * and will have more: what is not plainly harmless is masked. */
static int show_property(const char *property, struct td_buf *out)
{
    static const char *const harmless[] = {"security.protocol=", "sasl.mechanism",
                                           "debug=", "ssl.ca.location=", "client.rack="};

    for (size_t i = 0; i < sizeof(harmless) / sizeof(harmless[0]); i++)
        if (strncmp(property, harmless[i], strlen(harmless[i])) == 0)
            return show_quoted(property, strlen(property), out);
    return show_cut(property, strcspn(property, "=") + 1, "", out);
}

static int show_strings(const struct td_opt *opt, const struct td_strings *list, struct td_buf *out)
{
    int rc = td_buf_addc(out, '[');

    for (size_t i = 0; i < list->count && rc == TD_OK; i++) {
        rc = i ? td_buf_adds(out, ", ") : TD_OK;
        if (rc == TD_OK)
            rc = opt->sensitive ? show_property(list->item[i], out)
                                : show_quoted(list->item[i], strlen(list->item[i]), out);
    }
    return rc == TD_OK ? td_buf_addc(out, ']') : rc;
}

int td_opt_show(const struct td_opt *opt, const void *base, struct td_buf *out)
{
    void *at = (void *)(uintptr_t)base; /* the field helpers are for both; nothing is written here */
    const char *string;
    char text[32];

    switch (opt->type) {
    case TD_OPT_STRING:
    case TD_OPT_SECRET:
        string = *string_field(opt, at);
        if (!string)
            return td_buf_adds(out, "null");
        if (opt->type == TD_OPT_SECRET)
            return td_buf_adds(out, "\"***\"");
        return opt->sensitive ? show_url(string, out) : show_quoted(string, strlen(string), out);
    case TD_OPT_INT:
    case TD_OPT_DURATION:
    case TD_OPT_SIZE:
    case TD_OPT_PERCENT:
        number_text(opt->type, *int_field(opt, at), text);
        return td_buf_adds(out, text);
    case TD_OPT_WORD:
        return td_buf_adds(out, opt->words[*int_field(opt, at)]);
    case TD_OPT_BOOL:
        return td_buf_adds(out, *bool_field(opt, at) ? "true" : "false");
    case TD_OPT_STRINGS:
        return show_strings(opt, strings_field(opt, at), out);
    }
    return TD_EBUG;
}
