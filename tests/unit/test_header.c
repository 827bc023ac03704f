#include "unit.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/header.h"
#include "tandem/mimeenc.h"
#include "tandem/rng.h"

#define X10 "xxxxxxxxxx"
#define X100 X10 X10 X10 X10 X10 X10 X10 X10 X10 X10

static void value_may_be_any_text_without_controls(void **unused)
{
    static const char *const good[] = {"", "plain", "V\xc3\xa5rnyheter \xe2\x82\xac", "\xf0\x9f\x8e\x89 = ?",
                                       "a\xc2\xa0z"};
    static const char *const bad[] = {"a\rb",         "a\nBcc: b@x.se", "a\tb",         "\x1b[0m",
                                      "a\x7f",        "a\xc2\x85z",     "\xc2\x9b",     "\xe2\x80\xae",
                                      "\xe2\x81\xa6", "\xe2\x80\xaa",   "\xe2\x81\xa9", "\xc3",
                                      "\xff",         "\xc0\x8a",       "\xed\xa0\x80", "\xf4\x90\x80\x80"};

    (void)unused;
    for (size_t i = 0; i < COUNT(good); i++)
        assert_int_equal(td_header_value_check(good[i], strlen(good[i]), 100, NULL), TD_OK);
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(td_header_value_check(bad[i], strlen(bad[i]), 100, NULL), TD_EINVAL);
    assert_int_equal(td_header_value_check("a\0b", 3, 100, NULL), TD_EINVAL);
    assert_int_equal(td_header_value_check("abcd", 4, 3, NULL), TD_ETOOBIG);
}

static void campaign_sets_only_fields_of_its_own(void **unused)
{
    static const char *const good[] = {"X-Campaign", "x-a", "Organization", "KEYWORDS", "Comments", "X-SESAME"};
    static const char *const bad[] = {"",       "X-",         "X",          "Subject",     "From",
                                      "Bcc",    "X-SES-Tag",  "x-ses-tag",  "X-TANDEM-Id", "X-a:",
                                      "X-a b",  "X-a\r\nBcc", "X-\xc3\xa5", "X-a_b",       "Organization2",
                                      "X-" X100};

    (void)unused;
    for (size_t i = 0; i < COUNT(good); i++)
        assert_true(td_header_name_allowed(good[i]));
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(td_header_name_allowed(bad[i]));
}

static void check_text(const char *name, const char *value, const char *want)
{
    struct td_buf buf = TD_BUF_INIT(10000);

    assert_int_equal(td_header_add_text(&buf, name, value, strlen(value)), TD_OK);
    assert_string_equal(td_buf_str(&buf), want);
    td_buf_release(&buf);
}

static void text_is_plain_folded_or_encoded(void **unused)
{
    (void)unused;
    check_text("Subject", "News of the week", "Subject: News of the week\r\n");
    check_text("Subject", "", "Subject:\r\n");
    check_text("Subject", "V\xc3\xa5rnytt, nr 3.", "Subject: =?UTF-8?Q?V=C3=A5rnytt,_nr_3.?=\r\n");
    check_text("Subject", "\xe6\x96\xb0\xe8\x81\x9e", "Subject: =?UTF-8?B?5paw6IGe?=\r\n");
    check_text("Subject", "=?utf-8?q?hi?=", "Subject: =?UTF-8?B?PT91dGYtOD9xP2hpPz0=?=\r\n");
    check_text("Subject", " x", "Subject: =?UTF-8?Q?_x?=\r\n");
    check_text("Subject", "x ", "Subject: =?UTF-8?Q?x_?=\r\n");
    check_text(
        "Subject", "one two three four five six seven eight nine ten  eleven twelve thirteen fourteen",
        "Subject: one two three four five six seven eight nine ten  eleven twelve\r\n thirteen fourteen\r\n");
    check_text("X-Url", X100 "y z", "X-Url: " X100 "y\r\n z\r\n"); /* never cut inside a word */
    check_text("X-Url", "y " X100, "X-Url: y\r\n " X100 "\r\n");
}

/* What a reader makes of a field body: unfold, decode encoded words, drop blanks between two of them. Written from
 * RFC 2047, not from header.c. */
static void decode_field(const char *body, struct td_buf *out)
{
    bool after_word = false;
    const char *at = body + strspn(body, " \r\n"); /* blanks after "Name:" do not count */

    while (*at) {
        const char *end = strncmp(at, "=?UTF-8?", 8) == 0 ? strstr(at + 10, "?=") : NULL;
        const char *blanks = at;

        if (end && at[8] == 'B') {
            uint8_t bytes[100];
            int len = td_base64_decode(bytes, at + 10, (size_t)(end - at) - 10);

            assert_true(len > 0);
            td_buf_add(out, bytes, (size_t)len);
        } else if (end) {
            assert_int_equal(at[8], 'Q');
            for (const char *c = at + 10; c < end; c++) {
                char hex[3] = {c[0] == '=' ? c[1] : '0', c[0] == '=' ? c[2] : '0', '\0'};

                assert_true(*c > ' ' && *c != '?' && (unsigned char)*c < 0x7f);
                td_buf_addc(out, *c == '=' ? (char)strtol(hex, NULL, 16) : *c == '_' ? ' ' : *c);
                c += *c == '=' ? 2 : 0;
            }
        }
        if (end) {
            assert_true(end + 2 - at <= 75);
            at = end + 2;
            after_word = true;
            continue;
        }
        if (strncmp(at, "\r\n ", 3) == 0)
            blanks = at += 2;
        while (*at == ' ' || strncmp(at, "\r\n ", 3) == 0)
            at += *at == ' ' ? 1 : 2;
        if (after_word && (*at == '\0' || strncmp(at, "=?UTF-8?", 8) == 0))
            continue;
        after_word = false;
        for (; blanks < at; blanks++) {
            if (*blanks == ' ')
                td_buf_addc(out, ' ');
        }
        if (*at && *at != ' ' && *at != '\r' && strncmp(at, "=?UTF-8?", 8) != 0)
            td_buf_addc(out, *at++);
    }
}

static void check_lines(const char *text, size_t max)
{
    const char *end;

    for (; (end = strstr(text, "\r\n")); text = end + 2) {
        assert_true((size_t)(end - text) <= max);
        assert_true(end > text && end[-1] != ' '); /* a trailing blank may be lost on the way */
        for (const char *c = text; c < end; c++)
            assert_true(*c >= ' ' && *c <= '~');
    }
    assert_string_equal(text, "");
}

static void random_text(struct td_rng *rng, struct td_buf *value, unsigned characters)
{
    static const char *const piece[] = {"a",
                                        "Z",
                                        "7",
                                        " ",
                                        " ",
                                        "=",
                                        "?",
                                        "_",
                                        "\"",
                                        "\\",
                                        ",",
                                        ".",
                                        "(",
                                        "@",
                                        "=?",
                                        "\xc3\xa5",
                                        "\xc3\xb6",
                                        "\xe2\x82\xac",
                                        "\xe6\x96\xb0",
                                        "\xf0\x9f\x8e\x89"};
    size_t kinds = td_rng_below(rng, 3) == 0 ? 14 : COUNT(piece); /* some plain ASCII */

    td_buf_clear(value);
    while (characters--)
        td_buf_adds(value, piece[td_rng_below(rng, kinds)]);
}

static void random_text_reads_back_and_lines_are_short(void **unused)
{
    static const char *const names[] = {"Subject", "X-A", "X-" X10 X10 X10 X10 X10 X10 "y", "X-" X100};
    struct td_buf value = TD_BUF_INIT(10000), field = TD_BUF_INIT(100000), read = TD_BUF_INIT(10000);
    struct td_rng rng;

    (void)unused;
    td_rng_seed(&rng, 3);
    for (unsigned round = 0; round < 4000; round++) {
        const char *name = names[round % COUNT(names)];

        random_text(&rng, &value, 1 + (unsigned)td_rng_below(&rng, 120));
        td_buf_clear(&field);
        td_buf_clear(&read);
        assert_int_equal(td_header_add_text(&field, name, value.data, value.len), TD_OK);
        check_lines(field.data, 400); /* plain words may be long; encoded ones are checked when decoded */
        if (strstr(field.data, "=?UTF-8?"))
            check_lines(field.data + strlen(name), 76);
        field.len -= 2;
        field.data[field.len] = '\0';
        decode_field(field.data + strlen(name) + 1, &read);
        if (strcmp(td_buf_str(&read), td_buf_str(&value)) != 0)
            fail_msg("round %u\nwrote %s\nfield %s\nread  %s", round, value.data, field.data, td_buf_str(&read));
    }
    td_buf_release(&value);
    td_buf_release(&field);
    td_buf_release(&read);
}

static void long_runs_never_make_a_line_over_998(void **unused)
{
    struct td_buf field = TD_BUF_INIT(100000);
    char value[4000];

    (void)unused;
    for (unsigned blanks = 0; blanks < 2; blanks++) {
        memset(value, blanks ? ' ' : 'x', sizeof(value));
        value[0] = value[sizeof(value) - 1] = 'x';
        td_buf_clear(&field);
        assert_int_equal(td_header_add_text(&field, "Subject", value, sizeof(value)), TD_OK);
        check_lines(field.data, 76);
    }
    td_buf_release(&field);
}

static void check_mailbox(const char *phrase, const char *address, const char *want)
{
    struct td_buf buf = TD_BUF_INIT(10000);

    assert_int_equal(td_header_add_mailbox(&buf, "From", phrase, address), TD_OK);
    assert_string_equal(td_buf_str(&buf), want);
    td_buf_release(&buf);
}

static void phrase_is_atoms_quoted_or_encoded(void **unused)
{
    (void)unused;
    check_mailbox(NULL, "a@x.se", "From: a@x.se\r\n");
    check_mailbox("", "a@x.se", "From: a@x.se\r\n");
    check_mailbox("Info Desk", "a@x.se", "From: Info Desk <a@x.se>\r\n");
    check_mailbox("Acme, Inc.", "a@x.se", "From: \"Acme, Inc.\" <a@x.se>\r\n");
    check_mailbox("a  b", "a@x.se", "From: \"a  b\" <a@x.se>\r\n");
    check_mailbox("Say \"hi\" \\o/", "a@x.se", "From: \"Say \\\"hi\\\" \\\\o/\" <a@x.se>\r\n");
    check_mailbox("b@evil.se>", "a@x.se", "From: \"b@evil.se>\" <a@x.se>\r\n");
    check_mailbox("J\xc3\xb6rg, M.", "a@x.se", "From: =?UTF-8?B?SsO2cmcsIE0u?= <a@x.se>\r\n");
    check_mailbox("J\xc3\xb6rg Mattsson", "a@x.se", "From: =?UTF-8?Q?J=C3=B6rg_Mattsson?= <a@x.se>\r\n");
    check_mailbox("=?utf-8?q?x?=", "a@x.se", "From: =?UTF-8?B?PT91dGYtOD9xP3g/PQ==?= <a@x.se>\r\n");
    check_mailbox(" x", "a@x.se", "From: =?UTF-8?Q?_x?= <a@x.se>\r\n");
    check_mailbox(
        "The Rather Long Name of a Very Proud Company", "newsletter@lists.example-company.org",
        "From: The Rather Long Name of a Very Proud Company\r\n <newsletter@lists.example-company.org>\r\n");
}

static void check_param(const char *before, const char *value, const char *want)
{
    struct td_buf buf = TD_BUF_INIT(10000);

    td_buf_adds(&buf, before);
    assert_int_equal(td_header_add_param(&buf, "filename", value), TD_OK);
    assert_string_equal(td_buf_str(&buf), want);
    td_buf_release(&buf);
}

static void parameter_is_quoted_or_extended(void **unused)
{
    (void)unused;
    check_param("X: a", "b c.pdf", "X: a; filename=\"b c.pdf\"");
    check_param("X: a", "q\"\\.pdf", "X: a; filename=\"q\\\"\\\\.pdf\"");
    check_param("X: a", "", "X: a; filename=\"\"");
    check_param("Y: z\r\nX: a", "\xc3\xa5 r.pdf", "Y: z\r\nX: a;\r\n filename*=UTF-8''%C3%A5%20r.pdf");
    check_param("X: a", "=?utf-8?q?x?=", "X: a;\r\n filename*=UTF-8''%3D%3Futf-8%3Fq%3Fx%3F%3D");
    check_param("X: " X10 X10 X10 X10 X10, "rather-long-name.pdf",
                "X: " X10 X10 X10 X10 X10 ";\r\n filename=\"rather-long-name.pdf\"");
    check_param("X: a", X100 "%.pdf",
                "X: a;\r\n filename*0*=UTF-8''" X10 X10 X10 X10 X10 "xx;\r\n filename*1*=" X10 X10 X10 X10
                "xxxxxxxx%25.;\r\n filename*2*=pdf");
}

static void random_parameters_read_back(void **unused)
{
    struct td_buf value = TD_BUF_INIT(10000), field = TD_BUF_INIT(100000), read = TD_BUF_INIT(10000);
    struct td_rng rng;

    (void)unused;
    td_rng_seed(&rng, 4);
    for (unsigned round = 0; round < 2000; round++) {
        const char *at;
        bool quoted;

        random_text(&rng, &value, 1 + (unsigned)td_rng_below(&rng, 100));
        td_buf_clear(&field);
        td_buf_clear(&read);
        assert_int_equal(td_header_add_param(&field, "name", value.data), TD_OK);
        at = field.data;
        quoted = strchr(at, '=')[1] == '"' && at[strcspn(at, "*=")] == '=';
        if (quoted) {
            for (at = strchr(at, '"') + 1; *at != '"'; at++) {
                at += *at == '\\';
                td_buf_addc(&read, *at);
            }
        }
        while (!quoted && (at = strchr(at, '='))) {
            at += strncmp(at, "=UTF-8''", 8) == 0 ? 8 : 1;
            for (; *at && *at != ';'; at++) {
                char hex[3] = {at[0] == '%' ? at[1] : '0', at[0] == '%' ? at[2] : '0', '\0'};

                td_buf_addc(&read, *at == '%' ? (char)strtol(hex, NULL, 16) : *at);
                at += *at == '%' ? 2 : 0;
            }
        }
        assert_string_equal(td_buf_str(&read), td_buf_str(&value));
        td_buf_adds(&field, "\r\n");
        check_lines(field.data, 76);
    }
    td_buf_release(&value);
    td_buf_release(&field);
    td_buf_release(&read);
}

static void a_full_buffer_is_said(void **unused)
{
    (void)unused;
    for (size_t limit = 0; limit < 60; limit++) {
        struct td_buf buf = TD_BUF_INIT(limit);

        assert_int_equal(td_header_add_text(&buf, "Subject", "V\xc3\xa5r nyhet " X10 X10 X10 X10, 52), TD_ETOOBIG);
        td_buf_clear(&buf);
        assert_int_equal(td_header_add_mailbox(&buf, "From", "V\xc3\xa5r nyhet " X10 X10 X10 X10, "a@x.se"),
                         TD_ETOOBIG);
        td_buf_clear(&buf);
        assert_int_equal(td_header_add_param(&buf, "filename", "V\xc3\xa5r nyhet " X10 X10 X10 X10), TD_ETOOBIG);
        td_buf_release(&buf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(value_may_be_any_text_without_controls),
        cmocka_unit_test(campaign_sets_only_fields_of_its_own),
        cmocka_unit_test(text_is_plain_folded_or_encoded),
        cmocka_unit_test(random_text_reads_back_and_lines_are_short),
        cmocka_unit_test(long_runs_never_make_a_line_over_998),
        cmocka_unit_test(phrase_is_atoms_quoted_or_encoded),
        cmocka_unit_test(parameter_is_quoted_or_extended),
        cmocka_unit_test(random_parameters_read_back),
        cmocka_unit_test(a_full_buffer_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
