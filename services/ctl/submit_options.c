#include "submit_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "tandem/clock.h"
#include "template_compile.h"
#include "text.h"

enum {
    KEY_RECIPIENTS = 0x100,
    KEY_SUBJECT,
    KEY_HTML,
    KEY_TEXT,
    KEY_FROM,
    KEY_REPLY_TO,
    KEY_ATTACH,
    KEY_INLINE,
    KEY_ID,
    KEY_LIST_ID,
    KEY_UNSUBSCRIBE_URL,
    KEY_ONE_CLICK,
    KEY_UNSUBSCRIBE_MAILTO,
    KEY_ROUTE,
    KEY_COUNTRIES,
    KEY_ON_UNCONFIRMED,
    KEY_RATE,
    KEY_CEILING,
    KEY_DEADLINE,
    KEY_NOT_BEFORE,
    KEY_EXPRESS,
    KEY_LANGUAGE,
    KEY_DRY_RUN,
    KEY_PREVIEW,
    KEY_WATCH
};

static const struct argp_option option_table[] = {
    {NULL, 0, NULL, 0, "What is sent:", 1},
    {"recipients", KEY_RECIPIENTS, "FILE", 0,
     "CSV with a header line; a column email, the others are fields (- is stdin)", 1},
    {"from", KEY_FROM, "MAILBOX", 0, "Such as \"News <news@example.org>\"", 1},
    {"subject", KEY_SUBJECT, "TEXT", 0, "May use {{fields}}", 1},
    {"html", KEY_HTML, "FILE", 0, "HTML template", 1},
    {"text", KEY_TEXT, "FILE", 0, "Text template; at least one of the two", 1},
    {"reply-to", KEY_REPLY_TO, "MAILBOX", 0, "Where answers go", 1},
    {"attach", KEY_ATTACH, "FILE", 0, "A file that goes with every mail; may be given more than once", 1},
    {"inline", KEY_INLINE, "CID=FILE", 0, "An image that HTML names as cid:CID", 1},
    {"language", KEY_LANGUAGE, "TAG", 0, "Such as sv", 1},
    {NULL, 0, NULL, 0, "For readers and their mail programs:", 2},
    {"list-id", KEY_LIST_ID, "ID", 0, "Such as weekly.news.example.org", 2},
    {"unsubscribe-url", KEY_UNSUBSCRIBE_URL, "URL", 0, "https; {{token}} is the recipient's", 2},
    {"one-click", KEY_ONE_CLICK, NULL, 0, "The URL takes one-click requests (RFC 8058)", 2},
    {"unsubscribe-mailto", KEY_UNSUBSCRIBE_MAILTO, "ADDRESS", 0, "An address that takes unsubscribe mails", 2},
    {NULL, 0, NULL, 0, "How it is sent:", 3},
    {"route", KEY_ROUTE, "RELAY,...", 0, "Relays in order (default: the configuration's)", 3},
    {"countries", KEY_COUNTRIES, "CC,...", 0, "Only relays in these countries", 3},
    {"on-unconfirmed", KEY_ON_UNCONFIRMED, "hold|resend", 0, "When nobody knows whether a relay took a mail", 3},
    {"rate", KEY_RATE, "N", 0, "At most N mails per second", 3},
    {"bounce-ceiling", KEY_CEILING, "N", 0, "Hard bounces per 10,000 at which it leaves a relay (default 500)", 3},
    {"not-before", KEY_NOT_BEFORE, "TIME", 0, "RFC 3339, such as 2026-03-01T08:00:00+01:00", 3},
    {"deadline", KEY_DEADLINE, "TIME", 0, "Give up after, such as 24h", 3},
    {"express", KEY_EXPRESS, NULL, 0, "Past the newsletters: for receipts and the like", 3},
    {NULL, 0, NULL, 0, "What this command does:", 4},
    {"id", KEY_ID, "ID", 0,
     "The campaign's id (default: made of what is handed in, so the same twice is one campaign)", 4},
    {"dry-run", KEY_DRY_RUN, NULL, 0, "Check everything, hand in nothing", 4},
    {"preview", KEY_PREVIEW, "N", 0, "Write the first N mails to stdout, hand in nothing", 4},
    {"watch", KEY_WATCH, NULL, 0, "Then watch it until it is finished", 4},
    {0}};

static void add_file(struct submit_options *options, char *arg, bool named, struct argp_state *state)
{
    struct submit_file *file;
    char *equals = named ? strchr(arg, '=') : NULL;

    if (named && (!equals || equals == arg || !equals[1]))
        argp_error(state, "--inline takes CID=FILE");
    if (options->file_count == SUBMIT_FILES_MAX)
        argp_error(state, "at most %d files", SUBMIT_FILES_MAX);
    file = &options->file[options->file_count++];
    if (named) {
        *equals = '\0'; /* NOLINT(clang-analyzer-core.NullDereference): argp_error does not return */
        file->content_id = arg;
    }
    file->path = named ? equals + 1 : arg;
}

static uint64_t number(const char *arg, const char *name, uint64_t max, struct argp_state *state)
{
    uint64_t value = 0;

    if (!text_number(arg, max, &value))
        argp_error(state, "--%s takes a number, at most %llu", name, (unsigned long long)max);
    return value;
}

static error_t parse_policy(int key, char *arg, struct argp_state *state, struct submit_options *options)
{
    switch (key) {
    case KEY_ON_UNCONFIRMED:
        if (strcmp(arg, "hold") != 0 && strcmp(arg, "resend") != 0)
            argp_error(state, "--on-unconfirmed takes hold or resend");
        options->on_unconfirmed = strcmp(arg, "hold") == 0
                                      ? TANDEM__MAIL__V1__ON_UNCONFIRMED__ON_UNCONFIRMED_HOLD
                                      : TANDEM__MAIL__V1__ON_UNCONFIRMED__ON_UNCONFIRMED_RESEND;
        return 0;
    case KEY_RATE:
        options->rate = number(arg, "rate", 1000000, state);
        return 0;
    case KEY_CEILING:
        options->bounce_ceiling = number(arg, "bounce-ceiling", 10000, state);
        return 0;
    case KEY_PREVIEW:
        options->preview = number(arg, "preview", 1000, state);
        return 0;
    case KEY_DEADLINE:
        if (!text_duration_ms(arg, &options->deadline_ms) || options->deadline_ms == 0)
            argp_error(state, "--deadline takes a time such as 24h");
        return 0;
    case KEY_NOT_BEFORE:
        if (!text_time_ms(arg, &options->not_before_ms))
            argp_error(state, "--not-before takes a time such as 2026-03-01T08:00:00+01:00");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void check_needed(const struct submit_options *options, struct argp_state *state)
{
    if (!options->recipients)
        argp_error(state, "--recipients is needed");
    if (!options->from)
        argp_error(state, "--from is needed");
    if (!options->subject)
        argp_error(state, "--subject is needed");
    if (!options->html && !options->text)
        argp_error(state, "--html or --text is needed");
}

static error_t parse_submit(int key, char *arg, struct argp_state *state)
{
    struct submit_options *options = state->input;
    const struct {
        int key;
        const char **at;
    } texts[] = {{KEY_RECIPIENTS, &options->recipients},
                 {KEY_SUBJECT, &options->subject},
                 {KEY_HTML, &options->html},
                 {KEY_TEXT, &options->text},
                 {KEY_FROM, &options->from},
                 {KEY_REPLY_TO, &options->reply_to},
                 {KEY_ID, &options->id},
                 {KEY_LIST_ID, &options->list_id},
                 {KEY_UNSUBSCRIBE_URL, &options->unsubscribe_url},
                 {KEY_UNSUBSCRIBE_MAILTO, &options->unsubscribe_mailto},
                 {KEY_LANGUAGE, &options->language}};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (key == texts[i].key) {
            *texts[i].at = arg;
            return 0;
        }
    switch (key) {
    case ARGP_KEY_INIT:
        ctl_input_init(state);
        return 0;
    case KEY_ATTACH:
    case KEY_INLINE:
        add_file(options, arg, key == KEY_INLINE, state);
        return 0;
    case KEY_ROUTE:
        options->route = arg;
        return 0;
    case KEY_COUNTRIES:
        options->countries = arg;
        return 0;
    case KEY_ONE_CLICK:
        options->one_click = true;
        return 0;
    case KEY_EXPRESS:
        options->express = true;
        return 0;
    case KEY_DRY_RUN:
        options->dry_run = true;
        return 0;
    case KEY_WATCH:
        options->watch = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "it takes options only");
        return 0;
    case ARGP_KEY_END:
        check_needed(options, state);
        return 0;
    default:
        return parse_policy(key, arg, state, options);
    }
}

int submit_options_parse(struct submit_options *options, struct ctl *ctl, int argc, char **argv)
{
    static const struct argp argp = {
        option_table,
        parse_submit,
        NULL,
        "Hand in a newsletter and its recipients. On stdout comes its id alone, or a summary on a "
        "terminal.\vHanding in the same again has no effect: an interrupted run is gone on with by "
        "the same command.",
        ctl_children,
        NULL,
        NULL};

    *options = (struct submit_options){.ctl = ctl};
    return ctl_parse(&argp, argc, argv, options);
}

void submit_options_release(struct submit_options *options)
{
    for (size_t i = 0; i < options->file_count; i++)
        free(options->file[i].data);
}

/* ---- files ---- */

static int read_file(const char *path, size_t max, char **ret, size_t *ret_len)
{
    FILE *in = fopen(path, "re");
    struct td_buf buf = TD_BUF_INIT(max);
    char chunk[65536];
    size_t got;
    int rc = TD_OK;

    if (!in) {
        ctl_say("%s: %s", path, strerror(errno));
        return CTL_USAGE;
    }
    while (rc == TD_OK && (got = fread(chunk, 1, sizeof(chunk), in)) > 0)
        rc = td_buf_add(&buf, chunk, got);
    if (rc == TD_OK && ferror(in)) {
        ctl_say("%s: %s", path, strerror(errno));
        rc = TD_EIO;
    } else if (rc < 0) {
        ctl_say("%s: more than %zu bytes", path, max);
    }
    fclose(in);
    if (rc == TD_OK && buf.len == 0) {
        ctl_say("%s: empty", path);
        rc = TD_EINVAL;
    }
    if (rc < 0) {
        td_buf_release(&buf);
        return CTL_USAGE;
    }
    *ret = td_buf_take(&buf, ret_len);
    return CTL_OK;
}

static int read_template(const char *path, struct td_arena *arena, char **ret)
{
    char *data;
    size_t len;
    int code = read_file(path, TEMPLATE_MAX_BYTES, &data, &len);

    if (code != CTL_OK)
        return code;
    if (memchr(data, '\0', len)) {
        ctl_say("%s: a NUL byte; is this a text file?", path);
        code = CTL_USAGE;
    } else {
        *ret = td_arena_strndup(arena, data, len);
        code = *ret ? CTL_OK : CTL_FAILED;
    }
    free(data);
    return code;
}

static int mailbox(const char *option, const char *text, struct td_arena *arena, Tandem__Mail__V1__Mailbox **ret)
{
    Tandem__Mail__V1__Mailbox *made = td_arena_alloc(arena, sizeof(*made));
    char name[TEXT_NAME_MAX], address[512];

    if (!text_mailbox(text, name, address, sizeof(address))) {
        ctl_say("--%s takes \"Name <user@example.org>\" or an address", option);
        return CTL_USAGE;
    }
    if (!made)
        return CTL_FAILED;
    tandem__mail__v1__mailbox__init(made);
    made->name = td_arena_strdup(arena, name);
    made->address = td_arena_strdup(arena, address);
    *ret = made;
    return made->name && made->address ? CTL_OK : CTL_FAILED;
}

static int list(char *text, struct td_arena *arena, char ***ret, size_t *ret_count)
{
    char **items;
    size_t count = 1;

    if (!text)
        return CTL_OK;
    for (const char *at = text; *at; at++)
        count += *at == ',';
    items = td_arena_alloc(arena, count * sizeof(*items));
    if (!items)
        return CTL_FAILED;
    for (char *at = text, *item; (item = strsep(&at, ","));)
        items[(*ret_count)++] = item;
    *ret = items;
    return CTL_OK;
}

static int unsubscribe(const struct submit_options *options, struct td_arena *arena,
                       Tandem__Mail__V1__Campaign *campaign)
{
    Tandem__Mail__V1__Unsubscribe *made;

    if (!options->unsubscribe_url && !options->unsubscribe_mailto && !options->one_click)
        return CTL_OK;
    made = td_arena_alloc(arena, sizeof(*made));
    if (!made)
        return CTL_FAILED;
    tandem__mail__v1__unsubscribe__init(made);
    if (options->unsubscribe_url)
        made->https_url = (char *)options->unsubscribe_url;
    if (options->unsubscribe_mailto)
        made->mailto = (char *)options->unsubscribe_mailto;
    made->one_click = options->one_click;
    campaign->unsubscribe = made;
    return CTL_OK;
}

static int attachments(struct submit_options *options, struct td_arena *arena,
                       Tandem__Mail__V1__Campaign *campaign)
{
    size_t room = SUBMIT_INLINE_MAX, used = strlen(campaign->html_template) + strlen(campaign->text_template);
    Tandem__Mail__V1__Attachment *made = td_arena_alloc(arena, (options->file_count + 1) * sizeof(*made));

    campaign->attachments = td_arena_alloc(arena, (options->file_count + 1) * sizeof(*campaign->attachments));
    if (!made || !campaign->attachments)
        return CTL_FAILED;
    room = used < room ? room - used : 0;
    for (size_t i = 0; i < options->file_count; i++) {
        struct submit_file *file = &options->file[i];
        const char *slash = strrchr(file->path, '/');
        int code = read_file(file->path, (size_t)options->ctl->settings.ingestion_max_attachment_bytes,
                             &file->data, &file->len);

        if (code != CTL_OK)
            return code;
        SHA256((const unsigned char *)file->data, file->len, file->sha256);
        tandem__mail__v1__attachment__init(&made[i]);
        made[i].filename = (char *)(slash ? slash + 1 : file->path);
        made[i].content_type = (char *)text_media_type(made[i].filename);
        if (file->content_id)
            made[i].content_id = (char *)file->content_id;
        made[i].sha256 = (ProtobufCBinaryData){32, file->sha256};
        made[i].size_bytes = file->len;
        file->chunked = file->len > room;
        if (!file->chunked) {
            made[i].content = (ProtobufCBinaryData){file->len, (uint8_t *)file->data};
            room -= file->len;
        }
        campaign->attachments[campaign->n_attachments++] = &made[i];
    }
    return CTL_OK;
}

int submit_campaign(struct submit_options *options, struct td_arena *arena, Tandem__Mail__V1__Campaign *ret)
{
    int code;

    tandem__mail__v1__campaign__init(ret);
    code = mailbox("from", options->from, arena, &ret->from);
    if (code == CTL_OK && options->reply_to)
        code = mailbox("reply-to", options->reply_to, arena, &ret->reply_to);
    if (code == CTL_OK && options->html)
        code = read_template(options->html, arena, &ret->html_template);
    if (code == CTL_OK && options->text)
        code = read_template(options->text, arena, &ret->text_template);
    if (code == CTL_OK)
        code = unsubscribe(options, arena, ret);
    if (code == CTL_OK)
        code = list(options->route, arena, &ret->route, &ret->n_route);
    if (code == CTL_OK)
        code = list(options->countries, arena, &ret->allowed_countries, &ret->n_allowed_countries);
    if (code == CTL_OK)
        code = attachments(options, arena, ret);
    ret->subject_template = (char *)options->subject;
    if (options->language)
        ret->language = (char *)options->language;
    if (options->list_id)
        ret->list_id = (char *)options->list_id;
    ret->on_unconfirmed = options->on_unconfirmed;
    ret->bounce_ceiling_per_10000 = (uint32_t)options->bounce_ceiling;
    ret->max_mails_per_s = (uint32_t)options->rate;
    ret->not_before_unix_ms = options->not_before_ms;
    if (options->express)
        ret->class_ = TANDEM__MAIL__V1__CAMPAIGN_CLASS__CAMPAIGN_CLASS_EXPRESS;
    return code;
}
