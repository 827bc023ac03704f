/* What the table says to people: the page, --help and the effective values. */
#include <stdlib.h>
#include <string.h>

#include "../settings_int.h"

enum { TEXT_WIDTH = 76, SHOW_MAX = 1 << 20 };

static size_t section_len(const char *path)
{
    return strchr(path, '.') ? strcspn(path, ".") : 0;
}

static bool same_section(const struct td_opt *a, const struct td_opt *b)
{
    size_t len = section_len(a->path);

    return section_len(b->path) == len && strncmp(a->path, b->path, len) == 0;
}

static void number_range(const struct td_opt *opt, char text[80])
{
    char low[32], high[32];

    switch (opt->type) {
    case TD_OPT_INT:
        snprintf(text, 80, "%lld to %lld", (long long)opt->min, (long long)opt->max);
        break;
    case TD_OPT_DURATION:
        td_duration_text(opt->min, low);
        td_duration_text(opt->max, high);
        snprintf(text, 80, "%s to %s", low, high);
        break;
    case TD_OPT_SIZE:
        td_size_text(opt->min, low);
        td_size_text(opt->max, high);
        snprintf(text, 80, "%s to %s", low, high);
        break;
    case TD_OPT_PERCENT:
        td_percent_text(opt->min, low);
        td_percent_text(opt->max, high);
        snprintf(text, 80, "%s to %s", low, high);
        break;
    case TD_OPT_SECRET:
        text[0] = '\0';
        if (opt->min > 1)
            snprintf(text, 80, "at least %lld bytes", (long long)opt->min);
        break;
    case TD_OPT_STRING:
    case TD_OPT_WORD:
    case TD_OPT_BOOL:
    case TD_OPT_STRINGS:
        text[0] = '\0';
        break;
    }
    for (size_t i = 0; opt->words && opt->words[i]; i++) {
        size_t len = strlen(text);

        snprintf(text + len, 80 - len, "%s%s", i ? ", " : "", opt->words[i]);
    }
}

static const char *type_name(const struct td_opt *opt)
{
    switch (opt->type) {
    case TD_OPT_STRING:
        return opt->words ? "word" : "text";
    case TD_OPT_INT:
        return "number";
    case TD_OPT_DURATION:
        return "duration";
    case TD_OPT_SIZE:
        return "size";
    case TD_OPT_PERCENT:
        return "percentage";
    case TD_OPT_WORD:
        return "word";
    case TD_OPT_BOOL:
        return "true or false";
    case TD_OPT_SECRET:
        return "secret";
    case TD_OPT_STRINGS:
        return "list";
    }
    return "";
}

static void markdown_row(FILE *out, const struct td_opt *opt)
{
    char range[80];

    number_range(opt, range);
    fprintf(out, "| `%s` | %s%s%s | ", opt->path, type_name(opt), *range ? ", " : "", range);
    if (opt->required)
        fputs("required", out);
    else if (opt->def && strlen(opt->def) > 40)
        fputs("see right", out);
    else if (opt->def && *opt->def)
        fprintf(out, "`%s`", opt->def);
    else
        fputs(opt->def_note ? opt->def_note : "empty", out);
    fprintf(out, " | %s. |\n", opt->help);
}

static void markdown_head(FILE *out)
{
    fputs("\n| setting | kind | default | |\n| --- | --- | --- | --- |\n", out);
}

static void document_markdown(FILE *out)
{
    fputs(
        "# Settings\n\n"
        "Made from the option table (`common/src/core/settings_table.c`) and compared with it by a test: do not "
        "edit.\n\n"
        "Every program reads the same settings, and uses those that concern it. A value is taken from, first "
        "match wins:\n\n"
        "1. `--set dispatch.window=500`, not for secrets: every user can read a command line,\n"
        "2. the environment: `TANDEM_DISPATCH_WINDOW`, an item of `relays` by its name: "
        "`TANDEM_RELAYS_SES_EU_HOST`\n"
        "   (capitals, anything but letters and digits as `_`); an empty variable counts as not set,\n"
        "3. the YAML file: `--config`, else `$TANDEM_CONFIG`, else `/etc/tandem/tandem.yaml` when it exists,\n"
        "4. the default.\n\n"
        "A secret is better kept in a file: `password_file:` beside `password:`, `TANDEM_REDIS_PASSWORD_FILE` "
        "beside\n"
        "`TANDEM_REDIS_PASSWORD`. One line end at its end is cut. A relative path starts at the working "
        "directory.\n\n"
        "Durations are a whole number with `ms`, `s`, `m`, `h` or `d`; sizes bytes, or a number with `KiB`, `MiB` "
        "or\n"
        "`GiB`; percentages a number with at most two decimals and `%`. Lists are YAML lists, or text with commas. In the file `dispatch.window: 500` is the same as\n"
        "`window: 500` below `dispatch:`. Unknown names, in the file or beginning with `TANDEM_`, are refused "
        "with the\n"
        "nearest known one; so is a key given twice. YAML anchors and aliases are not supported.\n"
        "`--check-config` says `ok` or what is wrong, `--print-config` shows each value and where it came from.\n",
        out);
    for (size_t i = 0; i < td_opt_count; i++) {
        if (i == 0 || !same_section(&td_opts[i], &td_opts[i - 1])) {
            size_t len = section_len(td_opts[i].path);

            if (len)
                fprintf(out, "\n## %.*s\n", (int)len, td_opts[i].path);
            else
                fputs("\n## At the top\n", out);
            markdown_head(out);
        }
        markdown_row(out, &td_opts[i]);
    }
    fprintf(out, "\n## relays\n\nA list of at most %d, each with:\n", TD_RELAYS_MAX);
    markdown_head(out);
    for (size_t i = 0; i < td_relay_opt_count; i++)
        markdown_row(out, &td_relay_opts[i]);
}

/* Words, wrapped and indented. */
static void plain_text(FILE *out, const char *text)
{
    size_t column = 0;

    while (*text) {
        size_t len = strcspn(text, " ");

        if (column == 0 || column + 1 + len > TEXT_WIDTH) {
            fputs(column ? "\n      " : "      ", out);
            column = 6;
        } else {
            fputc(' ', out);
            column++;
        }
        fwrite(text, 1, len, out);
        column += len;
        text += len + (text[len] == ' ');
    }
    fputc('\n', out);
}

static void plain_row(FILE *out, const char *prefix, const struct td_opt *opt)
{
    char range[80];

    number_range(opt, range);
    fprintf(out, "  %s%s", prefix, opt->path);
    if (opt->required)
        fputs(" (required)", out);
    else if (opt->def && strlen(opt->def) <= 40)
        fprintf(out, " = %s", *opt->def ? opt->def : "\"\"");
    fprintf(out, "  %s%s%s\n", type_name(opt), *range ? ", " : "", range);
    plain_text(out, opt->help);
}

void td_settings_document(FILE *out, bool markdown)
{
    if (markdown) {
        document_markdown(out);
        return;
    }
    for (size_t i = 0; i < td_opt_count; i++)
        plain_row(out, "", &td_opts[i]);
    for (size_t i = 0; i < td_relay_opt_count; i++)
        plain_row(out, "relays[].", &td_relay_opts[i]);
}

static void print_origin(const struct td_settings *settings, const struct td_opt *opt, const char *relay,
                         const struct td_origin *origin, FILE *out)
{
    char name[160];

    fputs(" # ", out);
    switch (origin->layer) {
    case TD_LAYER_DEFAULT:
        fputs("default", out);
        break;
    case TD_LAYER_FILE:
        fprintf(out, "%s:%zu", settings->origins->file, origin->line);
        break;
    case TD_LAYER_ENV:
        td_env_name(opt, relay, name, sizeof(name));
        fputs(name, out);
        break;
    case TD_LAYER_SET:
        fputs("--set", out);
        break;
    }
    if (origin->secret_file)
        fprintf(out, ", from %s", origin->secret_file);
    fputc('\n', out);
}

static void print_value(const struct td_settings *settings, const struct td_opt *opt, const void *base,
                        const char *relay, const struct td_origin *origin, FILE *out)
{
    static const struct td_origin unknown = {TD_LAYER_DEFAULT, 0, NULL};
    struct td_buf text = TD_BUF_INIT(SHOW_MAX);
    const char *dot = strchr(opt->path, '.');

    if (td_opt_show(opt, base, &text) == TD_OK) {
        fprintf(out, "%s: %s", dot ? dot + 1 : opt->path, td_buf_str(&text));
        print_origin(settings, opt, relay, origin ? origin : &unknown, out);
    }
    td_buf_release(&text);
}

void td_settings_print_relay(const struct td_settings *settings, size_t index, FILE *out)
{
    const struct td_relay_settings *relay = &settings->relays[index];

    for (size_t i = 0; i < td_relay_opt_count; i++) {
        fputs(i ? "    " : "  - ", out);
        print_value(settings, &td_relay_opts[i], relay, relay->name,
                    settings->origins ? &settings->origins->relay[index][i] : NULL, out);
    }
}

void td_settings_print(const struct td_settings *settings, FILE *out)
{
    const struct td_origins *origins = settings->origins;

    for (size_t i = 0; i < td_opt_count; i++) {
        size_t len = section_len(td_opts[i].path);

        if (len && !same_section(&td_opts[i], &td_opts[i - 1]))
            fprintf(out, "%.*s:\n", (int)len, td_opts[i].path);
        fputs(len ? "  " : "", out);
        print_value(settings, &td_opts[i], settings, NULL, origins ? &origins->global[i] : NULL, out);
    }
    if (settings->relay_count)
        fputs("relays:\n", out);
    for (size_t i = 0; i < settings->relay_count; i++)
        td_settings_print_relay(settings, i, out);
}
