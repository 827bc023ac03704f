/* One pass over the text. Literals and defaults point into `store`, a copy of the text in which nothing but the
 * backslashes of defaults is ever removed, so a compiled template costs about its own size. */
#include "template_compile.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grow.h"
#include "tandem/err.h"
#include "tandem/nearest.h"
#include "tandem/utf8.h"

enum { NAME_BUCKETS = 1024 }; /* power of two: field names are found by hash, since 10,000 tags may all differ */

struct field {
    char name[TEMPLATE_FIELD_MAX + 1];
    enum template_reserved reserved;
    bool optional;
    size_t next; /* in the bucket: 1 + number of the next field, 0 = last */
};

struct template
{
    char *store;
    struct template_segment *segments;
    size_t segment_count, segment_cap;
    struct field *fields;
    size_t field_count, field_cap;
    size_t buckets[NAME_BUCKETS]; /* 1 + number of the first field */
};

struct parse {
    struct template *tpl;
    const char *text; /* the caller's, for line and column of an error */
    size_t len, at;
    size_t tags;
    const char *const *known;
    size_t known_count;
    struct template_error *err;
};

/* Where byte `at` stands. Only called for an error, so it may walk from the start. */
static void place(const struct parse *p, size_t at, unsigned *ret_line, unsigned *ret_column)
{
    unsigned line = 1, column = 1;

    for (size_t i = 0; i < at && i < p->len; i++) {
        unsigned char c = (unsigned char)p->text[i];

        if (c == '\n' || (c == '\r' && !(i + 1 < p->len && p->text[i + 1] == '\n'))) {
            line++;
            column = 1;
        } else if ((c & 0xC0) != 0x80 && c != '\r') {
            column++;
        }
    }
    *ret_line = line;
    *ret_column = column;
}

static int fail(const struct parse *p, enum td_code code, const char *stable, size_t at, const char *what)
{
    struct template_error *err = p->err;

    if (!err)
        return code;
    err->code = stable;
    place(p, at, &err->line, &err->column);
    snprintf(err->sentence, sizeof(err->sentence), "Line %u, column %u: %s", err->line, err->column, what);
    return code;
}

static int fail_memory(const struct parse *p)
{
    return fail(p, TD_ENOMEM, "internal.memory", p->at, "out of memory.");
}

static bool name_char(unsigned char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == '-';
}

bool template_field_name_valid(const char *name, size_t len)
{
    if (len == 0 || len > TEMPLATE_FIELD_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!name_char((unsigned char)name[i]))
            return false;
    return true;
}

static const char *const reserved_names[] = {[TEMPLATE_EMAIL] = "email",
                                             [TEMPLATE_NAME] = "name",
                                             [TEMPLATE_CAMPAIGN_ID] = "campaign.id",
                                             [TEMPLATE_UNSUBSCRIBE_URL] = "unsubscribe_url"};
enum { RESERVED_COUNT = sizeof(reserved_names) / sizeof(reserved_names[0]) };

enum template_reserved template_reserved_of(const char *name, size_t len)
{
    for (size_t i = 1; i < RESERVED_COUNT; i++)
        if (strlen(reserved_names[i]) == len && memcmp(reserved_names[i], name, len) == 0)
            return (enum template_reserved)i;
    return TEMPLATE_FIELD;
}

static int check_text(const struct parse *p)
{
    uint32_t c = 0;
    size_t step;

    for (size_t i = 0; i < p->len; i += step) {
        step = td_utf8_next(p->text + i, p->len - i, &c);
        if (step == 0)
            return fail(p, TD_ESYNTAX, "template.encoding", i, "the text is not UTF-8 here.");
        if ((c < ' ' && c != '\t' && c != '\r' && c != '\n') || (c >= 0x7F && c <= 0x9F))
            return fail(p, TD_ESYNTAX, "template.encoding", i,
                        "a control character is not allowed in a template.");
    }
    return TD_OK;
}

static int add_segment(struct parse *p, struct template_segment segment)
{
    struct template *tpl = p->tpl;
    struct template_segment *segments;

    if (segment.kind == TEMPLATE_LITERAL && segment.len == 0)
        return TD_OK;
    segments = grow(tpl->segments, &tpl->segment_cap, tpl->segment_count, sizeof(*segments));
    if (!segments)
        return fail_memory(p);
    tpl->segments = segments;
    tpl->segments[tpl->segment_count++] = segment;
    return TD_OK;
}

/* A comment between two literals would leave them side by side: the second is moved up to the first. Both are in
 * `store` in order, so the gap is the comment's own bytes. */
static int add_literal(struct parse *p, size_t from, size_t to)
{
    struct template *tpl = p->tpl;
    struct template_segment *last = tpl->segment_count ? &tpl->segments[tpl->segment_count - 1] : NULL;

    if (last && last->kind == TEMPLATE_LITERAL) {
        memmove(tpl->store + (last->text - tpl->store) + last->len, tpl->store + from, to - from);
        last->len += to - from;
        return TD_OK;
    }
    return add_segment(p, (struct template_segment){TEMPLATE_LITERAL, tpl->store + from, to - from, 0});
}

static size_t name_hash(const char *name, size_t len)
{
    uint32_t h = 2166136261U; /* FNV-1a */

    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)name[i]) * 16777619U;
    return h & (NAME_BUCKETS - 1);
}

static bool is_known(const struct parse *p, const char *name, size_t len)
{
    if (!p->known || template_reserved_of(name, len) != TEMPLATE_FIELD)
        return true;
    for (size_t i = 0; i < p->known_count; i++)
        if (strlen(p->known[i]) == len && memcmp(p->known[i], name, len) == 0)
            return true;
    return false;
}

static int fail_unknown(const struct parse *p, size_t at, const char *name, size_t len)
{
    char what[2 * TEMPLATE_FIELD_MAX + 64], text[TEMPLATE_FIELD_MAX + 1];
    const char *near;

    snprintf(text, sizeof(text), "%.*s", (int)len, name);
    near = td_nearest(text, p->known, p->known_count);
    if (!near)
        near = td_nearest(text, reserved_names + 1, RESERVED_COUNT - 1);
    if (near)
        snprintf(what, sizeof(what), "there is no field \"%s\"; did you mean \"%s\"?", text, near);
    else
        snprintf(what, sizeof(what), "there is no field \"%s\".", text);
    return fail(p, TD_EINVAL, "template.unknown_field", at, what);
}

/* Find or add a field. */
static int use_field(struct parse *p, const char *name, size_t len, bool has_default, size_t *ret_field)
{
    struct template *tpl = p->tpl;
    size_t *bucket = &tpl->buckets[name_hash(name, len)];
    struct field *field;

    for (size_t i = *bucket; i; i = tpl->fields[i - 1].next) {
        field = &tpl->fields[i - 1];
        if (strlen(field->name) == len && memcmp(field->name, name, len) == 0) {
            field->optional = field->optional && has_default;
            *ret_field = i - 1;
            return TD_OK;
        }
    }
    field = grow(tpl->fields, &tpl->field_cap, tpl->field_count, sizeof(*field));
    if (!field)
        return fail_memory(p);
    tpl->fields = field;
    field = &tpl->fields[tpl->field_count++];
    memcpy(field->name, name, len);
    field->name[len] = '\0';
    field->reserved = template_reserved_of(name, len);
    field->optional = has_default;
    field->next = *bucket;
    *bucket = tpl->field_count;
    *ret_field = tpl->field_count - 1;
    return TD_OK;
}

static void skip_blanks(struct parse *p)
{
    while (p->at < p->len && (p->text[p->at] == ' ' || p->text[p->at] == '\t'))
        p->at++;
}

static bool take(struct parse *p, const char *word)
{
    size_t len = strlen(word);

    if (p->len - p->at < len || memcmp(p->text + p->at, word, len) != 0)
        return false;
    p->at += len;
    return true;
}

/* The quoted text after `default:`. Backslashes are removed in `store`, which this tag alone uses here. */
static int read_quoted(struct parse *p, size_t tag_at, const char **ret_text, size_t *ret_len)
{
    char quote = p->at < p->len ? p->text[p->at] : '\0';
    char *out = p->tpl->store + p->at;

    if (quote != '"' && quote != '\'')
        return fail(p, TD_ESYNTAX, "template.syntax", p->at, "the default must be in quotes: default: \"text\".");
    *ret_text = out;
    for (p->at++; p->at < p->len; p->at++) {
        char c = p->text[p->at];

        if (c == quote) {
            p->at++;
            *ret_len = (size_t)(out - *ret_text);
            if (*ret_len > TEMPLATE_DEFAULT_MAX)
                return fail(p, TD_ETOOBIG, "template.too_large", tag_at, "the default text is over 1,024 bytes.");
            return TD_OK;
        }
        if (c == '\n' || c == '\r')
            break;
        if (c == '\\' && p->at + 1 < p->len &&
            (p->text[p->at + 1] == '"' || p->text[p->at + 1] == '\'' || p->text[p->at + 1] == '\\'))
            c = p->text[++p->at];
        *out++ = c;
    }
    return fail(p, TD_ESYNTAX, "template.syntax", tag_at, "the quote of this tag's default is never closed.");
}

static int read_comment(struct parse *p, size_t tag_at)
{
    for (; p->at + 1 < p->len; p->at++)
        if (take(p, "}}"))
            return TD_OK;
    return fail(p, TD_ESYNTAX, "template.syntax", tag_at, "this comment is never closed with }}.");
}

/* What stands after {{ where a name should begin, in words. */
static const char *name_problem(const struct parse *p, size_t name_len)
{
    char c = p->at < p->len ? p->text[p->at] : '\0';

    if (name_len > TEMPLATE_FIELD_MAX)
        return "a field name has at most 64 bytes.";
    if (c == '{' || c == '&')
        return "raw values are not allowed; write {{field}}.";
    if (c == '#' || c == '/' || c == '^' || c == '>')
        return "conditions, loops and partials are not known in this version.";
    if (c == '}')
        return "this tag names no field.";
    return "a field name is 1 to 64 of A-Z a-z 0-9 _ . - .";
}

static int read_filter(struct parse *p, size_t tag_at, struct template_segment *segment)
{
    if (!take(p, "|"))
        return TD_OK;
    skip_blanks(p);
    if (!take(p, "default"))
        return fail(p, TD_ESYNTAX, "template.syntax", p->at, "the only filter is default: \"text\".");
    skip_blanks(p);
    if (!take(p, ":"))
        return fail(p, TD_ESYNTAX, "template.syntax", p->at, "a colon must follow default.");
    skip_blanks(p);
    return read_quoted(p, tag_at, &segment->text, &segment->len);
}

/* p->at stands behind the {{ at tag_at. */
static int read_tag(struct parse *p, size_t tag_at)
{
    struct template_segment segment = {TEMPLATE_VALUE, NULL, 0, 0};
    size_t name_at, name_len;
    int rc;

    if (++p->tags > TEMPLATE_MAX_TAGS)
        return fail(p, TD_ETOOBIG, "template.too_large", tag_at, "there are more than 10,000 tags.");
    if (take(p, "!"))
        return read_comment(p, tag_at);
    skip_blanks(p);
    name_at = p->at;
    while (p->at < p->len && name_char((unsigned char)p->text[p->at]))
        p->at++;
    name_len = p->at - name_at;
    if (!template_field_name_valid(p->text + name_at, name_len))
        return fail(p, TD_ESYNTAX, "template.syntax", tag_at, name_problem(p, name_len));
    skip_blanks(p);
    rc = read_filter(p, tag_at, &segment);
    if (rc < 0)
        return rc;
    skip_blanks(p);
    if (!take(p, "}}"))
        return fail(p, TD_ESYNTAX, "template.syntax", tag_at, "this tag is not closed with }} after its field.");
    if (!is_known(p, p->text + name_at, name_len))
        return fail_unknown(p, tag_at, p->text + name_at, name_len);
    rc = use_field(p, p->text + name_at, name_len, segment.text != NULL, &segment.field);
    return rc < 0 ? rc : add_segment(p, segment);
}

static int parse(struct parse *p)
{
    while (p->at < p->len) {
        const char *tag = memmem(p->text + p->at, p->len - p->at, "{{", 2);
        size_t tag_at = tag ? (size_t)(tag - p->text) : p->len;
        int rc = add_literal(p, p->at, tag_at);

        if (rc < 0)
            return rc;
        if (!tag)
            return TD_OK;
        p->at = tag_at + 2;
        rc = read_tag(p, tag_at);
        if (rc < 0)
            return rc;
    }
    return TD_OK;
}

int template_compile(const char *text, size_t len, const char *const *known, size_t known_count,
                     struct template **ret, struct template_error *reterr)
{
    struct parse p = {
        .text = text, .len = len, .known = known, .known_count = known ? known_count : 0, .err = reterr};
    int rc;

    if (len > TEMPLATE_MAX_BYTES)
        return fail(&p, TD_ETOOBIG, "template.too_large", 0, "the template is over 512 KiB.");
    rc = check_text(&p);
    if (rc < 0)
        return rc;
    p.tpl = calloc(1, sizeof(*p.tpl));
    if (p.tpl)
        p.tpl->store = malloc(len + 1);
    if (!p.tpl || !p.tpl->store) {
        rc = fail_memory(&p);
        goto out;
    }
    if (len)
        memcpy(p.tpl->store, text, len);
    p.tpl->store[len] = '\0';
    rc = parse(&p);
    if (rc < 0)
        goto out;
    *ret = p.tpl;
    p.tpl = NULL;
out:
    template_free(p.tpl);
    return rc;
}

void template_free(struct template *tpl)
{
    if (!tpl)
        return;
    free(tpl->segments);
    free(tpl->fields);
    free(tpl->store);
    free(tpl);
}

size_t template_field_count(const struct template *tpl)
{
    return tpl->field_count;
}

const char *template_field(const struct template *tpl, size_t i)
{
    return tpl->fields[i].name;
}

enum template_reserved template_field_reserved(const struct template *tpl, size_t i)
{
    return tpl->fields[i].reserved;
}

bool template_field_optional(const struct template *tpl, size_t i)
{
    return tpl->fields[i].optional;
}

size_t template_segment_count(const struct template *tpl)
{
    return tpl->segment_count;
}

const struct template_segment *template_segment(const struct template *tpl, size_t i)
{
    return &tpl->segments[i];
}
