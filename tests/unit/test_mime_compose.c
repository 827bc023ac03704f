#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "render_fixture.h"
#include "tandem/token.h"

static const char *rendered(struct fixture *f)
{
    struct td_err err = {0};

    if (fixture_render(f, &err) != TD_OK)
        fail_msg("%s %s", err.text, f->reason ? f->reason : "");
    return td_buf_str(&f->mail);
}

static void assert_holds(const char *mail, const char *what)
{
    if (!strstr(mail, what))
        fail_msg("no \"%s\" in:\n%s", what, mail);
}

static void assert_lacks(const char *mail, const char *what)
{
    if (strstr(mail, what))
        fail_msg("\"%s\" in:\n%s", what, mail);
}

static void a_text_mail_is_exactly_this(void **unused)
{
    struct fixture f;

    (void)unused;
    fixture_init(&f, "Hej {{first_name}}", "Hej {{first_name}}!\nVälkommen.", "");
    fixture_field(&f, "first_name", "Åsa");
    assert_string_equal(rendered(&f), "Date: Mon, 24 Nov 2025 16:00:00 +0000\r\n"
                                      "From: Nyhetsbrevet <nyheter@news.example.se>\r\n"
                                      "To: Eva <eva@example.org>\r\n"
                                      "Subject: =?UTF-8?Q?Hej_=C3=85sa?=\r\n"
                                      "Message-ID: <week-48.7@news.example.se>\r\n"
                                      "MIME-Version: 1.0\r\n"
                                      "Content-Type: text/plain; charset=utf-8\r\n"
                                      "Content-Transfer-Encoding: quoted-printable\r\n"
                                      "\r\n"
                                      "Hej=20=C3=85sa!\r\n"
                                      "V=C3=A4lkommen.\r\n");
    fixture_release(&f);
}

static void structure_is_only_as_deep_as_needed(void **unused)
{
    static const struct {
        const char *text, *html;
        bool attachment, image;
        const char *holds[4];
        const char *lacks[3];
    } row[] = {
        {"t", "", false, false, {"Content-Type: text/plain"}, {"multipart", "text/html"}},
        {"", "<p>h", false, false, {"Content-Type: text/html"}, {"multipart", "text/plain"}},
        {"t", "<p>h", false, false, {"multipart/alternative", "text/plain", "text/html"}, {"mixed", "related"}},
        {"", "<p>h", false, true, {"multipart/related; type=\"text/html\"", "Content-ID: <logo@x>", "inline"},
         {"mixed", "alternative"}},
        {"t", "<p>h", true, true, {"multipart/mixed", "multipart/related; type=\"multipart/alternative\"",
                                   "multipart/alternative;", "attachment; filename=\"a.pdf\""}, {NULL}},
        {"t", "", true, true, {"multipart/mixed", "Content-ID: <logo@x>"}, {"related", "alternative", "inline"}},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct fixture f;
        Tandem__Mail__V1__Attachment file[2] = {TANDEM__MAIL__V1__ATTACHMENT__INIT, TANDEM__MAIL__V1__ATTACHMENT__INIT};
        Tandem__Mail__V1__Attachment *files[2];
        const struct mime_file bytes[2] = {{"%PDF", 4}, {"png", 3}};

        fixture_init(&f, "s", row[i].text, row[i].html);
        file[0].filename = (char *)(uintptr_t)"a.pdf";
        file[0].content_type = (char *)(uintptr_t)"application/pdf";
        file[1].filename = (char *)(uintptr_t)"logo.png";
        file[1].content_type = (char *)(uintptr_t)"image/png";
        file[1].content_id = (char *)(uintptr_t)"logo@x";
        files[0] = row[i].attachment ? &file[0] : &file[1];
        files[1] = &file[1];
        f.campaign.attachments = files;
        f.campaign.n_attachments = (size_t)row[i].attachment + (size_t)row[i].image;
        f.source.files = row[i].attachment ? bytes : bytes + 1;
        rendered(&f);
        for (size_t k = 0; k < 4 && row[i].holds[k]; k++)
            assert_holds(td_buf_str(&f.mail), row[i].holds[k]);
        for (size_t k = 0; k < 3 && row[i].lacks[k]; k++)
            assert_lacks(td_buf_str(&f.mail), row[i].lacks[k]);
        fixture_release(&f);
    }
}

static void values_are_escaped_for_their_part(void **unused)
{
    struct fixture f;
    const char *mail;

    (void)unused;
    fixture_init(&f, "s", "T:{{v}}.", "<p title=\"{{v}}\">{{d | default: '<&>'}}</p>");
    fixture_field(&f, "v", "<a href='x'>&\"{{v}}");
    fixture_field(&f, "d", "");
    mail = rendered(&f);
    assert_holds(mail, "T:<a href=3D'x'>&\"{{v}}=2E"); /* a dot that might begin a line is encoded */
    assert_holds(mail, "&lt;a href=3D&#39;x&#39;&gt;&amp;&quot;{{v}}");
    assert_holds(mail, ">&lt;&amp;&gt;</p>");
    fixture_release(&f);
}

static void line_ends_in_values_become_crlf_and_blanks_before_them_survive(void **unused)
{
    struct fixture f;

    (void)unused;
    fixture_init(&f, "s", "{{v}}", "");
    fixture_field(&f, "v", "one \ntwo\r\nthree\rfour\t");
    assert_holds(rendered(&f), "\r\n\r\none=20\r\ntwo\r\nthree\r\nfour=09\r\n");
    fixture_release(&f);
}

static void lines_never_exceed_76_wherever_a_value_ends(void **unused)
{
    char value[200] = "", literal[200] = "", text[512];

    (void)unused;
    for (unsigned v = 0; v < 160; v += 1) {
        for (unsigned l = 1; l < 160; l += 7) {
            struct fixture f;
            const char *line, *end;

            memset(value, 'v', v);
            value[v] = '\0';
            memset(literal, 'l', l);
            literal[l] = '\0';
            snprintf(text, sizeof(text), "{{v}}%s{{v}}%s{{v}}.", literal, literal);
            fixture_init(&f, "s", text, "");
            fixture_field(&f, "v", value);
            line = strstr(rendered(&f), "\r\n\r\n") + 4;
            for (; (end = strstr(line, "\r\n")) != NULL; line = end + 2)
                assert_true(end - line <= 76);
            fixture_release(&f);
        }
    }
}

static void unsubscribe_headers_carry_the_token(void **unused)
{
    struct fixture f;
    char token[TD_TOKEN_LOCAL_MAX], expect[512];
    const char *mail;

    (void)unused;
    td_token_write(token, TD_TOKEN_UNSUBSCRIBE, FIXTURE_KEY, strlen(FIXTURE_KEY), "week-48", 7, "");
    assert_int_equal(token[1], '+');
    fixture_init(&f, "s", "{{unsubscribe_url}}", "");
    f.campaign.unsubscribe = &f.unsubscribe;
    f.unsubscribe.mailto = (char *)(uintptr_t)"av@news.example.se";
    f.unsubscribe.https_url = (char *)(uintptr_t)"https://u.example.se/u/{{token}}?t={{token}}";
    f.unsubscribe.one_click = true;
    mail = rendered(&f);
    snprintf(expect, sizeof(expect),
             "List-Unsubscribe: <mailto:av@news.example.se?subject=unsubscribe-u%%2B%s>,\r\n"
             " <https://u.example.se/u/u%%2B%s?t=u%%2B%s>\r\n"
             "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
             token + 2, token + 2, token + 2);
    assert_holds(mail, expect);
    assert_holds(mail, "\r\n\r\nhttps://u.example.se/u/u%2B");
    fixture_release(&f);
}

static void one_click_is_said_only_with_https(void **unused)
{
    static const struct {
        const char *mailto, *url, *operator_url;
        bool one_click, express, has_list, has_post;
    } row[] = {
        {"a@example.se", "", NULL, true, false, true, false},
        {"", "https://x.se/{{token}}", NULL, false, false, true, false},
        {"", "https://x.se/{{token}}", NULL, true, false, true, true},
        {"", "", NULL, true, false, false, false},
        {"", "", "https://op.se/u/{{token}}", false, false, true, true},
        {"", "", "https://op.se/u/{{token}}", false, true, false, false},
        {"a@example.se", "", "https://op.se/u/{{token}}", false, false, true, false},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct fixture f;

        fixture_init(&f, "s", "t", "");
        f.campaign.unsubscribe = &f.unsubscribe;
        f.unsubscribe.mailto = (char *)(uintptr_t)row[i].mailto;
        f.unsubscribe.https_url = (char *)(uintptr_t)row[i].url;
        f.unsubscribe.one_click = row[i].one_click;
        f.source.unsubscribe_https_url = row[i].operator_url;
        if (row[i].express)
            f.campaign.class_ = TANDEM__MAIL__V1__CAMPAIGN_CLASS__CAMPAIGN_CLASS_EXPRESS;
        rendered(&f);
        assert_int_equal(strstr(td_buf_str(&f.mail), "List-Unsubscribe: ") != NULL, row[i].has_list);
        assert_int_equal(strstr(td_buf_str(&f.mail), "List-Unsubscribe-Post: ") != NULL, row[i].has_post);
        fixture_release(&f);
    }
}

static void a_campaign_that_could_forge_a_header_is_refused(void **unused)
{
    static const struct {
        const char *what, *value;
    } row[] = {
        {"from", "a@b.se\r\nBcc: x@y.se"}, {"from", ""},
        {"name", "Evil\nBcc: x"},          {"url", "https://x.se/>\r\nX: y"},
        {"url", "http://x.se/"},           {"url", "https://{{token}}"},
        {"mailto", "a@b.se>, <x"},         {"list", "a b"},
        {"list", "a.b>\r\nX: y"},          {"header", "Bcc"},
        {"header", "X-SES-TENANT"},        {"header", "X-A: b\r\nX-B"},
        {"value", "a\r\nBcc: x"},          {"type", "image/png\r\nX: y"},
        {"type", "multipart/mixed"},       {"type", "image/png; name=x"},
        {"cid", "a>b"},                    {"file", "a\r\nb"},
        {"language", "sv\r\nX: y"},        {"id", "../x"},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct fixture f;
        struct td_err err = {0};
        Tandem__Mail__V1__HeaderField header = TANDEM__MAIL__V1__HEADER_FIELD__INIT, *headers[] = {&header};
        Tandem__Mail__V1__Attachment file = TANDEM__MAIL__V1__ATTACHMENT__INIT, *files[] = {&file};
        const struct mime_file bytes = {"x", 1};
        char *value = (char *)(uintptr_t)row[i].value;
        const char *what = row[i].what;

        fixture_init(&f, "s", "t", "<p>");
        f.campaign.unsubscribe = &f.unsubscribe;
        header.name = (char *)(uintptr_t)"X-Ok";
        f.campaign.headers = headers;
        f.campaign.n_headers = 1;
        file.content_type = (char *)(uintptr_t)"image/png";
        f.campaign.attachments = files;
        f.campaign.n_attachments = 1;
        f.source.files = &bytes;
        assert_int_equal(fixture_render(&f, &err), TD_OK);
        mime_free(f.program);
        f.program = NULL;
        *(strcmp(what, "from") == 0       ? &f.from.address
          : strcmp(what, "name") == 0     ? &f.from.name
          : strcmp(what, "url") == 0      ? &f.unsubscribe.https_url
          : strcmp(what, "mailto") == 0   ? &f.unsubscribe.mailto
          : strcmp(what, "list") == 0     ? &f.campaign.list_id
          : strcmp(what, "header") == 0   ? &header.name
          : strcmp(what, "value") == 0    ? &header.value
          : strcmp(what, "type") == 0     ? &file.content_type
          : strcmp(what, "cid") == 0      ? &file.content_id
          : strcmp(what, "file") == 0     ? &file.filename
          : strcmp(what, "language") == 0 ? &f.campaign.language
                                          : (char **)(uintptr_t)&f.source.campaign_id) = value;
        if (mime_compile(&f.source, &f.program, &err) == TD_OK)
            fail_msg("%s: %s was taken", row[i].what, row[i].value);
        fixture_release(&f);
    }
}

static void the_digest_ignores_what_mails_do_not_show(void **unused)
{
    struct fixture f;
    uint8_t first[32], again[32], other[32];
    char *route[] = {(char *)(uintptr_t)"ses"};

    (void)unused;
    fixture_init(&f, "s", "t", "");
    assert_int_equal(mime_source_digest(&f.source, first), TD_OK);
    f.campaign.route = route;
    f.campaign.n_route = 1;
    f.campaign.max_mails_per_s = 5;
    f.campaign.deadline_unix_ms = 99;
    assert_int_equal(mime_source_digest(&f.source, again), TD_OK);
    assert_memory_equal(first, again, 32);
    f.campaign.subject_template = (char *)(uintptr_t)"S";
    assert_int_equal(mime_source_digest(&f.source, other), TD_OK);
    assert_memory_not_equal(first, other, 32);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_mail_is_exactly_this),
        cmocka_unit_test(structure_is_only_as_deep_as_needed),
        cmocka_unit_test(values_are_escaped_for_their_part),
        cmocka_unit_test(line_ends_in_values_become_crlf_and_blanks_before_them_survive),
        cmocka_unit_test(lines_never_exceed_76_wherever_a_value_ends),
        cmocka_unit_test(unsubscribe_headers_carry_the_token),
        cmocka_unit_test(one_click_is_said_only_with_https),
        cmocka_unit_test(a_campaign_that_could_forge_a_header_is_refused),
        cmocka_unit_test(the_digest_ignores_what_mails_do_not_show),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
