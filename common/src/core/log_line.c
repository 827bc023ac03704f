#include "../log_line.h"

#include <string.h>
#include <time.h>

#include "tandem/err.h"
#include "tandem/json.h"

enum { KEY_MAX = 64, NUMBER_DIGITS = 15 /* a double holds them all */ };

const char *td_level_name(enum td_level level)
{
    switch (level) {
    case TD_DEBUG:
        return "debug";
    case TD_INFO:
        return "info";
    case TD_WARN:
        return "warn";
    case TD_ERROR:
        return "error";
    }
    return "?";
}

int td_level_parse(const char *name)
{
    for (int level = TD_DEBUG; level <= TD_ERROR; level++)
        if (strcmp(name, td_level_name((enum td_level)level)) == 0)
            return level;
    return -1;
}

static size_t digits(const char *text, size_t len)
{
    size_t n = 0;

    while (n < len && text[n] >= '0' && text[n] <= '9')
        n++;
    return n;
}

/* -?(0|[1-9][0-9]*)(.[0-9]+)? : no exponent, which would turn a hash such as 12e34567 into a number. */
static bool is_number(const char *text, size_t len)
{
    size_t whole, part;

    if (len > 0 && *text == '-') {
        text++;
        len--;
    }
    whole = digits(text, len);
    if (whole == 0 || (whole > 1 && *text == '0'))
        return false;
    if (whole == len)
        return whole <= NUMBER_DIGITS;
    part = text[whole] == '.' ? digits(text + whole + 1, len - whole - 1) : 0;
    return part > 0 && whole + 1 + part == len && whole + part <= NUMBER_DIGITS;
}

struct pair {
    const char *key, *value; /* key NULL: a bare word */
    size_t key_len, value_len;
    bool quoted;
};

static bool is_key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == '-';
}

/* The quote that ends a value: at the end of the text or before " key=". Others belong to the value, which printf
 * put there unseen. NULL: cut off. */
static const char *closing_quote(const char *c)
{
    while ((c = strchr(c, '"')) != NULL) {
        const char *key = c + 1;

        if (!*key)
            return c;
        if (*key++ == ' ') {
            while (is_key_char(*key))
                key++;
            if (*key == '=' && key > c + 2)
                return c;
        }
        c++;
    }
    return NULL;
}

/* The next key=value, key="a b" or word. false at the end. */
static bool next_pair(const char **at, struct pair *ret)
{
    const char *c = *at;

    *ret = (struct pair){0};
    while (*c == ' ')
        c++;
    if (!*c)
        return false;
    ret->value = c;
    while (*c && *c != ' ' && *c != '=' && *c != '"')
        c++;
    if (*c == '=' && c > ret->value) {
        ret->key = ret->value;
        ret->key_len = (size_t)(c - ret->key);
        ret->value = ++c;
    }
    if (*c == '"' && c == ret->value) {
        ret->quoted = true;
        ret->value = ++c;
        c = closing_quote(c) ? closing_quote(c) : c + strlen(c);
    } else {
        c += strcspn(c, " ");
    }
    ret->value_len = (size_t)(c - ret->value);
    *at = *c == '"' ? c + 1 : c;
    return true;
}

static bool is_reserved(const char *key, size_t len)
{
    static const char *const head[] = {"ts", "level", "service", "instance", "event", "text"};

    for (size_t i = 0; i < sizeof(head) / sizeof(head[0]); i++)
        if (strlen(head[i]) == len && memcmp(head[i], key, len) == 0)
            return true;
    return false;
}

static int add_pair(struct td_buf *out, const struct pair *pair)
{
    size_t key_len = pair->key_len < KEY_MAX ? pair->key_len : KEY_MAX;
    int rc = td_buf_adds(out, ",\"");

    if (rc == TD_OK)
        rc = td_json_escape(out, pair->key, key_len);
    if (rc == TD_OK)
        rc = td_buf_adds(out, is_reserved(pair->key, key_len) ? "_\":" : "\":");
    if (rc < 0)
        return rc;
    if (!pair->quoted && is_number(pair->value, pair->value_len))
        return td_buf_add(out, pair->value, pair->value_len);
    return td_json_string(out, pair->value, pair->value_len);
}

/* The words without a key, in one string. */
static int add_words(struct td_buf *out, const char *text)
{
    struct pair pair;
    bool any = false;
    int rc = TD_OK;

    while (rc == TD_OK && next_pair(&text, &pair)) {
        if (pair.key)
            continue;
        rc = td_buf_adds(out, any ? " " : ",\"text\":\"");
        if (rc == TD_OK)
            rc = td_json_escape(out, pair.value, pair.value_len);
        any = true;
    }
    return rc == TD_OK && any ? td_buf_addc(out, '"') : rc;
}

static void split_time(int64_t wall_ms, struct tm *ret_tm, int *ret_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);

    *ret_ms = (int)(wall_ms % 1000);
    if (!gmtime_r(&seconds, ret_tm))
        memset(ret_tm, 0, sizeof(*ret_tm));
}

static int add_named(struct td_buf *out, const char *key, const char *value)
{
    int rc = td_buf_printf(out, ",\"%s\":", key);

    return rc == TD_OK ? td_json_string(out, value, strlen(value)) : rc;
}

int td_log_line_json(struct td_buf *out, const struct td_log_head *head, const char *text)
{
    const char *at = text;
    struct pair pair;
    struct tm tm;
    int ms, rc;

    split_time(head->wall_ms, &tm, &ms);
    rc =
        td_buf_printf(out, "{\"ts\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\",\"level\":\"%s\"", tm.tm_year + 1900,
                      tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ms, td_level_name(head->level));
    if (rc == TD_OK)
        rc = add_named(out, "service", head->service);
    if (rc == TD_OK)
        rc = add_named(out, "instance", head->instance);
    if (rc == TD_OK)
        rc = add_named(out, "event", head->event);
    while (rc == TD_OK && next_pair(&at, &pair))
        if (pair.key)
            rc = add_pair(out, &pair);
    if (rc == TD_OK)
        rc = add_words(out, text);
    return rc == TD_OK ? td_buf_adds(out, "}\n") : rc;
}

int td_log_line_plain(struct td_buf *out, const struct td_log_head *head, const char *text, bool coloured)
{
    static const char *const name[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};
    static const char *const colour[] = {"\033[2m", "\033[32m", "\033[33m", "\033[31m"};
    const char *event_on = coloured ? "\033[1m" : "", *off = coloured ? "\033[0m" : "";
    struct tm tm;
    int ms, rc;

    split_time(head->wall_ms, &tm, &ms);
    rc = td_buf_printf(out, "%02d:%02d:%02d.%03d %s%s%s %s%s%s", tm.tm_hour, tm.tm_min, tm.tm_sec, ms,
                       coloured ? colour[head->level] : "", name[head->level], off, event_on, head->event, off);
    if (rc == TD_OK && *text)
        rc = td_buf_addc(out, ' ');
    for (const char *c = text; *c && rc == TD_OK; c++)
        rc = td_buf_addc(out, (unsigned char)*c < ' ' || *c == 0x7f ? '?' : *c);
    return rc == TD_OK ? td_buf_addc(out, '\n') : rc;
}
