/* Usage: td_render_sample OUT-DIRECTORY SAMPLE-DIRECTORY
 * Renders the table, the newsletter of SAMPLE-DIRECTORY and 2,000 mails of seeded random pieces through rendering_core,
 * recipe and back, to OUT-DIRECTORY/<name>.eml. What each must hold goes to expected.jsonl, one object a line; it is made
 * here by plain search and replace, not by the code under test. */
#include "td_render_sample.h"

#include <jansson.h>
#include <openssl/sha.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/render_fixture.h"
#include "tandem/id.h"
#include "tandem/rng.h"

enum { RANDOM_MAILS = 2000, TEXT_MAX = 1 << 20 };

static const char *out_directory;
static FILE *expected;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "td_render_sample: %s: %s\n", what, why);
    exit(70);
}

static char *text_of(const char *text)
{
    return (char *)(uintptr_t)(text ? text : "");
}

/* ---- what a reader must find ---- */

/* One character, or one line end of any kind as LF. A line end never reaches across the seam of a value: CR at the end of
 * one and LF at the start of the other are two. @return what comes next */
static const char *add_char(struct td_buf *out, const char *at, bool html)
{
    static const char *const entity[][2] = {
        {"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}};
    size_t i = 0;

    while (html && i < 5 && entity[i][0][0] != *at)
        i++;
    if (html && i < 5)
        td_buf_adds(out, entity[i][1]);
    else
        td_buf_addc(out, *at == '\r' ? '\n' : *at);
    return at + (at[0] == '\r' && at[1] == '\n' ? 2 : 1);
}

static void add_value(struct td_buf *out, const char *value, bool html)
{
    while (*value)
        value = add_char(out, value, html);
}

/* Every {{name}} and {{name | default: "x"}} replaced; comments dropped. */
static json_t *filled(const struct sample *sample, const char *tpl, bool html)
{
    struct td_buf out = TD_BUF_INIT(TEXT_MAX);
    json_t *string;

    while (*tpl) {
        const char *end = strncmp(tpl, "{{", 2) == 0 ? strstr(tpl, "}}") : NULL;
        const char *bar, *name, *value = "";
        char fallback[256] = "";
        size_t name_len;

        if (!end) {
            tpl = add_char(&out, tpl, false);
            continue;
        }
        bar = memchr(tpl, '|', (size_t)(end - tpl));
        name = tpl + 2 + strspn(tpl + 2, " ");
        name_len = strcspn(name, " |}");
        for (size_t i = 0; i < SAMPLE_FIELDS && sample->field[i][0]; i++)
            if (strlen(sample->field[i][0]) == name_len && strncmp(sample->field[i][0], name, name_len) == 0)
                value = sample->field[i][1];
        if (strncmp(name, "email", name_len) == 0 && name_len == 5)
            value = sample->to_address;
        if (bar && !*value)
            sscanf(strchr(bar, '"') + 1, "%255[^\"]", fallback);
        add_value(&out, *value ? value : fallback, html);
        tpl = end + 2;
    }
    string = json_stringn(td_buf_str(&out), out.len);
    td_buf_release(&out);
    return string;
}

static json_t *expected_files(const struct sample *sample)
{
    json_t *list = json_array();

    for (size_t i = 0; i < SAMPLE_FILES && sample->file[i].filename; i++) {
        const struct sample_file *file = &sample->file[i];
        uint8_t hash[SHA256_DIGEST_LENGTH];
        char hex[2 * sizeof(hash) + 1];

        SHA256((const unsigned char *)file->data, file->len, hash);
        td_hex(hex, hash, sizeof(hash));
        json_array_append_new(list, json_pack("{s:s, s:s, s:s*, s:s, s:b}", "filename", file->filename, "type",
                                              file->content_type, "content_id", file->content_id, "sha256", hex, "inline",
                                              file->content_id && sample->html));
    }
    return list;
}

static void write_expected(const struct sample *sample)
{
    json_t *object = json_pack("{s:s, s:o, s:s, s:s, s:s, s:o*, s:o*, s:o, s:s*, s:s*}", "name", sample->name, "subject",
                               filled(sample, sample->subject, false), "from_name", sample->from_name, "to_name",
                               sample->to_name, "to", sample->to_address, "text",
                               sample->text ? filled(sample, sample->text, false) : NULL, "html",
                               sample->html ? filled(sample, sample->html, true) : NULL, "files", expected_files(sample),
                               "header_name", sample->header[0], "header_value", sample->header[1]);
    char *line = object ? json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;

    if (!line || fprintf(expected, "%s\n", line) < 0)
        die(sample->name, "expectation not written");
    free(line);
    json_decref(object);
}

/* ---- the mail ---- */

static void set_files(struct fixture *f, const struct sample *sample, Tandem__Mail__V1__Attachment *file,
                      Tandem__Mail__V1__Attachment **files, struct mime_file *bytes)
{
    for (size_t i = 0; i < SAMPLE_FILES && sample->file[i].filename; i++) {
        tandem__mail__v1__attachment__init(&file[i]);
        file[i].filename = text_of(sample->file[i].filename);
        file[i].content_type = text_of(sample->file[i].content_type);
        file[i].content_id = text_of(sample->file[i].content_id);
        files[i] = &file[i];
        bytes[i] = (struct mime_file){sample->file[i].data, sample->file[i].len};
        f->campaign.n_attachments++;
    }
    f->campaign.attachments = files;
    f->source.files = bytes;
}

static void write_mail(const struct sample *sample, const struct td_buf *mail)
{
    char path[4096];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s.eml", out_directory, sample->name);
    file = fopen(path, "wb");
    if (!file || fwrite(mail->data, 1, mail->len, file) != mail->len || fclose(file) != 0)
        die(path, "not written");
}

void sample_write(const struct sample *sample)
{
    struct fixture f;
    struct td_err err = {0};
    Tandem__Mail__V1__Attachment file[SAMPLE_FILES], *files[SAMPLE_FILES];
    Tandem__Mail__V1__HeaderField header = TANDEM__MAIL__V1__HEADER_FIELD__INIT, *headers[] = {&header};
    struct mime_file bytes[SAMPLE_FILES];

    fixture_init(&f, sample->subject, text_of(sample->text), text_of(sample->html));
    f.from.name = text_of(sample->from_name);
    f.rcpt.name = text_of(sample->to_name);
    f.rcpt.address = text_of(sample->to_address);
    f.campaign.language = text_of("sv");
    f.campaign.list_id = text_of("nyheter.news.example.se");
    f.campaign.unsubscribe = &f.unsubscribe;
    f.unsubscribe.mailto = text_of("av@news.example.se");
    f.unsubscribe.https_url = text_of("https://u.news.example.se/u/{{token}}");
    f.unsubscribe.one_click = true;
    for (size_t i = 0; i < SAMPLE_FIELDS && sample->field[i][0]; i++)
        fixture_field(&f, sample->field[i][0], sample->field[i][1]);
    if (sample->header[0]) {
        header.name = text_of(sample->header[0]);
        header.value = text_of(sample->header[1]);
        f.campaign.headers = headers;
        f.campaign.n_headers = 1;
    }
    set_files(&f, sample, file, files, bytes);
    if (fixture_render(&f, &err) != TD_OK)
        die(sample->name, f.reason ? f.reason : err.text);
    write_mail(sample, &f.mail);
    write_expected(sample);
    fixture_release(&f);
}

/* ---- random mails ---- */

static void add_random(struct td_rng *rng, struct td_buf *out, bool header)
{
    static const char *const piece[] = {"a",  "ordet", "å",  "Ö", "😀", "👩‍👩‍👧", " ", "  ",  ".",    "..",
                                        "=",  "=3D",   "F", "From ", "<b>", "&",  "\"", "'",  "?=",   "=?",
                                        ",",  "_",     "-", "--", "{{x}}", "\u2028", "é", "xyz", "0123456789012345678901234567890123456789",
                                        "\n", "\r\n",  "\r", "\t", ".\n",  " \n",  "\n.", "\n\n"};
    size_t count = header ? 29 : sizeof(piece) / sizeof(piece[0]); /* the rest are not allowed in headers */

    for (uint64_t n = td_rng_below(rng, 12); n > 0; n--)
        td_buf_adds(out, piece[td_rng_below(rng, count)]);
}

/* Literals without braces between tags: a, b and c are the fields. */
static void add_template(struct td_rng *rng, struct td_buf *out, bool header)
{
    static const char *const tag[] = {"{{a}}", "{{ b }}", "{{c}}", "{{a}}{{b}}"};
    struct td_buf literal = TD_BUF_INIT(TEXT_MAX);

    for (uint64_t n = 1 + td_rng_below(rng, 6); n > 0; n--) {
        td_buf_clear(&literal);
        add_random(rng, &literal, header);
        for (size_t i = 0; i < literal.len; i++)
            if (literal.data[i] != '{' && literal.data[i] != '}')
                td_buf_addc(out, literal.data[i]);
        td_buf_adds(out, header ? "{{s}}" : tag[td_rng_below(rng, 4)]);
    }
    if (!header)
        td_buf_adds(out, "slut");
    td_buf_release(&literal);
}

static void write_random(void)
{
    struct td_buf part[7] = {TD_BUF_INIT(TEXT_MAX), TD_BUF_INIT(TEXT_MAX), TD_BUF_INIT(TEXT_MAX), TD_BUF_INIT(TEXT_MAX),
                             TD_BUF_INIT(TEXT_MAX), TD_BUF_INIT(TEXT_MAX), TD_BUF_INIT(TEXT_MAX)};
    struct td_rng rng;

    td_rng_seed(&rng, 20250148);
    for (unsigned i = 0; i < RANDOM_MAILS; i++) {
        char name[32];

        for (size_t k = 0; k < 7; k++)
            td_buf_clear(&part[k]);
        for (size_t k = 0; k < 3; k++)
            add_template(&rng, &part[k], k == 0);
        for (size_t k = 3; k < 7; k++)
            add_random(&rng, &part[k], k == 6);
        snprintf(name, sizeof(name), "random_%04u", i);
        sample_write(&(struct sample){.name = name,
                                      .subject = td_buf_str(&part[0]),
                                      .text = i % 3 == 1 ? NULL : td_buf_str(&part[1]),
                                      .html = i % 3 == 2 ? NULL : td_buf_str(&part[2]),
                                      .from_name = "Nyhetsbrevet",
                                      .to_name = td_buf_str(&part[6]),
                                      .to_address = "eva@example.org",
                                      .field = {{"a", td_buf_str(&part[3])},
                                                {"b", td_buf_str(&part[4])},
                                                {"c", td_buf_str(&part[5])},
                                                {"s", td_buf_str(&part[6])}}});
    }
    for (size_t k = 0; k < 7; k++)
        td_buf_release(&part[k]);
}

/* ---- the newsletter ---- */

static char *read_file(const char *directory, const char *name, size_t *ret_len)
{
    char path[4096], *data = malloc(TEXT_MAX);
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    file = fopen(path, "rb");
    if (!file || !data)
        die(path, "not read");
    *ret_len = fread(data, 1, TEXT_MAX - 1, file);
    data[*ret_len] = '\0';
    fclose(file);
    return data;
}

static void write_newsletter(const char *directory)
{
    size_t subject_len, len, png_len, pdf_len;
    char *subject = read_file(directory, "subject.txt", &subject_len), *text = read_file(directory, "newsletter.txt", &len);
    char *html = read_file(directory, "newsletter.html", &len), *png = read_file(directory, "logo.png", &png_len);
    char *pdf = read_file(directory, "programme.pdf", &pdf_len);
    /* The unsubscribe link and the comment have tests of their own; a plain search would not know their values. */
    const char *comment = strstr(html, "{{!");

    subject[strcspn(subject, "\n")] = '\0';
    memmove((char *)(uintptr_t)comment, strstr(comment, "}}") + 2, strlen(strstr(comment, "}}") + 2) + 1);
    sample_write(&(struct sample){.name = "newsletter",
                                  .subject = subject,
                                  .text = text,
                                  .html = html,
                                  .from_name = "Föreningen Norrsken",
                                  .to_name = "Björn Ångström",
                                  .to_address = "bjorn@example.com",
                                  .field = {{"first_name", "Björn"}, {"city", ""}, {"member_no", "100002"},
                                            {"unsubscribe_url", "@unsubscribe@"}},
                                  .file = {{"logo.png", "image/png", "logo", png, png_len},
                                           {"programme.pdf", "application/pdf", NULL, pdf, pdf_len}}});
    free(subject);
    free(text);
    free(html);
    free(png);
    free(pdf);
}

int main(int argc, char **argv)
{
    char path[4096];

    if (argc != 3) {
        fprintf(stderr, "usage: td_render_sample OUT-DIRECTORY SAMPLE-DIRECTORY\n");
        return 64;
    }
    out_directory = argv[1];
    snprintf(path, sizeof(path), "%s/expected.jsonl", out_directory);
    expected = fopen(path, "w");
    if (!expected)
        die(path, "not written");
    for (size_t i = 0; i < sample_count; i++)
        sample_write(&samples[i]);
    write_newsletter(argv[2]);
    write_random();
    if (fclose(expected) != 0)
        die(path, "not written");
    return 0;
}
