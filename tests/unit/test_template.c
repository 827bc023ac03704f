#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tandem/err.h"
#include "template_compile.h"

static const char *const known[] = {"first_name", "city", "last_order"};
enum { KNOWN = sizeof(known) / sizeof(known[0]) };

static struct template *compiled(const char *text)
{
    struct template *tpl = NULL;
    struct template_error err = {0};

    if (template_compile(text, strlen(text), NULL, 0, &tpl, &err) != TD_OK)
        fail_msg("%s", err.sentence);
    return tpl;
}

/* The segments in one line: literals as they are, values as <field|default>. */
static void show(const struct template *tpl, char *out, size_t size)
{
    size_t at = 0;

    out[0] = '\0';
    for (size_t i = 0; i < template_segment_count(tpl); i++) {
        const struct template_segment *s = template_segment(tpl, i);
        int n = s->kind == TEMPLATE_LITERAL ? snprintf(out + at, size - at, "%.*s", (int)s->len, s->text)
                : s->text ? snprintf(out + at, size - at, "<%s|%.*s>", template_field(tpl, s->field), (int)s->len, s->text)
                          : snprintf(out + at, size - at, "<%s>", template_field(tpl, s->field));

        at += (size_t)n;
        assert_true(at < size);
    }
}

static void tags_become_values_and_the_rest_stays(void **unused)
{
    static const char *const row[][2] = {
        {"", ""},
        {"plain } {x} }}", "plain } {x} }}"},
        {"Hej {{first_name}}!", "Hej <first_name>!"},
        {"{{a}}{{b}}{{a}}", "<a><b><a>"},
        {"{{ a }}|{{\tb\t}}", "<a>|<b>"},
        {"{{a|default:\"x\"}}", "<a|x>"},
        {"{{ a | default: 'du \\'där\\' \\\\ }} |' }}", "<a|du 'där' \\ }} |>"},
        {"{{ a | default: \"\" }}", "<a|>"},
        {"ett{{! två\n}}tre", "etttre"},
        {"{{!a}}x{{!b}}{{!c}}y{{k}}z", "xy<k>z"},
        {"{{a.b-c_9}}", "<a.b-c_9>"},
        {"😀{{name}}å", "😀<name>å"},
    };
    char out[256];

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct template *tpl = compiled(row[i][0]);

        show(tpl, out, sizeof(out));
        assert_string_equal(out, row[i][1]);
        template_free(tpl);
    }
}

static void literals_never_follow_each_other(void **unused)
{
    struct template *tpl = compiled("a{{!1}}b{{!2}}{{x}}{{!3}}c{{!4}}d");

    (void)unused;
    assert_int_equal(template_segment_count(tpl), 3);
    template_free(tpl);
}

static void fields_are_listed_once_in_order(void **unused)
{
    struct template *tpl = compiled("{{b}} {{a}} {{b}} {{email}} {{campaign.id}}");

    (void)unused;
    assert_int_equal(template_field_count(tpl), 4);
    assert_string_equal(template_field(tpl, 0), "b");
    assert_string_equal(template_field(tpl, 1), "a");
    assert_int_equal(template_field_reserved(tpl, 0), TEMPLATE_FIELD);
    assert_int_equal(template_field_reserved(tpl, 2), TEMPLATE_EMAIL);
    assert_int_equal(template_field_reserved(tpl, 3), TEMPLATE_CAMPAIGN_ID);
    template_free(tpl);
}

static void a_field_is_optional_when_all_its_uses_have_a_default(void **unused)
{
    struct template *tpl = compiled("{{a|default:\"x\"}}{{b|default:\"x\"}}{{b}}{{a|default:'y'}}");

    (void)unused;
    assert_true(template_field_optional(tpl, 0));
    assert_false(template_field_optional(tpl, 1));
    template_free(tpl);
}

static void errors_name_line_and_column_in_characters(void **unused)
{
    static const struct {
        const char *text;
        int code;
        const char *stable;
        unsigned line, column;
        const char *says; /* part of the sentence */
    } row[] = {
        {"{{", TD_ESYNTAX, "template.syntax", 1, 1, "field name"},
        {"å{{first_name", TD_ESYNTAX, "template.syntax", 1, 2, "not closed"},
        {"a\nb😀{{}}", TD_ESYNTAX, "template.syntax", 2, 3, "names no field"},
        {"a\r\nb\rc{{{x}}}", TD_ESYNTAX, "template.syntax", 3, 2, "raw values"},
        {"{{&x}}", TD_ESYNTAX, "template.syntax", 1, 1, "raw values"},
        {"{{#if x}}", TD_ESYNTAX, "template.syntax", 1, 1, "conditions"},
        {"{{first name}}", TD_ESYNTAX, "template.syntax", 1, 1, "not closed"},
        {"{{city | upper}}", TD_ESYNTAX, "template.syntax", 1, 10, "only filter"},
        {"{{city | default}}", TD_ESYNTAX, "template.syntax", 1, 17, "colon"},
        {"{{city | default: x}}", TD_ESYNTAX, "template.syntax", 1, 19, "quotes"},
        {"{{city | default: \"x}}", TD_ESYNTAX, "template.syntax", 1, 1, "never closed"},
        {"{{city | default: \"x\n\"}}", TD_ESYNTAX, "template.syntax", 1, 1, "never closed"},
        {"{{city\n}}", TD_ESYNTAX, "template.syntax", 1, 1, "not closed"},
        {"{{! never", TD_ESYNTAX, "template.syntax", 1, 1, "comment"},
        {"x\n {{frist_name}}", TD_EINVAL, "template.unknown_field", 2, 2, "did you mean \"first_name\""},
        {"{{zzzzzzzzzzzz}}", TD_EINVAL, "template.unknown_field", 1, 1, "no field \"zzzzzzzzzzzz\"."},
        {"{{emial}}", TD_EINVAL, "template.unknown_field", 1, 1, "\"email\""},
        {"{{City}}", TD_EINVAL, "template.unknown_field", 1, 1, "\"city\""},
        {"a\xFF", TD_ESYNTAX, "template.encoding", 1, 2, "UTF-8"},
        {"a\xC0\x80", TD_ESYNTAX, "template.encoding", 1, 2, "UTF-8"},
        {"\xED\xA0\x80", TD_ESYNTAX, "template.encoding", 1, 1, "UTF-8"},
        {"å\x01", TD_ESYNTAX, "template.encoding", 1, 2, "control"},
        {"\xC2\x85", TD_ESYNTAX, "template.encoding", 1, 1, "control"},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct template *tpl = NULL;
        struct template_error err = {0};
        char where[64];

        assert_int_equal(template_compile(row[i].text, strlen(row[i].text), known, KNOWN, &tpl, &err), row[i].code);
        assert_null(tpl);
        assert_string_equal(err.code, row[i].stable);
        assert_int_equal(err.line, row[i].line);
        assert_int_equal(err.column, row[i].column);
        snprintf(where, sizeof(where), "Line %u, column %u: ", row[i].line, row[i].column);
        assert_non_null(strstr(err.sentence, where));
        assert_non_null(strstr(err.sentence, row[i].says));
    }
}

static void nul_is_refused(void **unused)
{
    struct template *tpl = NULL;

    (void)unused;
    assert_int_equal(template_compile("a\0b", 3, NULL, 0, &tpl, NULL), TD_ESYNTAX);
}

static void known_names_and_reserved_ones_pass(void **unused)
{
    static const char text[] = "{{first_name}}{{email}}{{name}}{{campaign.id}}{{unsubscribe_url}}";
    struct template *tpl = NULL;

    (void)unused;
    assert_int_equal(template_compile(text, strlen(text), known, KNOWN, &tpl, NULL), TD_OK);
    template_free(tpl);
    assert_int_equal(template_compile(text, strlen(text), known, 0, &tpl, NULL), TD_EINVAL);
}

static char *repeated(const char *unit, size_t count)
{
    size_t len = strlen(unit);
    char *text = malloc(len * count + 1);

    assert_non_null(text);
    for (size_t i = 0; i < count; i++)
        memcpy(text + i * len, unit, len);
    text[len * count] = '\0';
    return text;
}

static void limits_hold_exactly(void **unused)
{
    static const struct {
        const char *unit;
        size_t most;
    } row[] = {{"x", TEMPLATE_MAX_BYTES}, {"{{a}}", TEMPLATE_MAX_TAGS}, {"{{!a}}", TEMPLATE_MAX_TAGS}};

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        char *text = repeated(row[i].unit, row[i].most + 1);
        size_t len = strlen(row[i].unit) * row[i].most;
        struct template *tpl = NULL;
        struct template_error err = {0};

        assert_int_equal(template_compile(text, len, NULL, 0, &tpl, &err), TD_OK);
        template_free(tpl);
        assert_int_equal(template_compile(text, len + strlen(row[i].unit), NULL, 0, &tpl, &err), TD_ETOOBIG);
        assert_string_equal(err.code, "template.too_large");
        free(text);
    }
}

static void field_names_have_at_most_64_bytes(void **unused)
{
    char text[80];
    struct template *tpl = NULL;
    struct template_error err = {0};

    (void)unused;
    snprintf(text, sizeof(text), "{{%064d}}", 0);
    assert_int_equal(template_compile(text, strlen(text), NULL, 0, &tpl, &err), TD_OK);
    template_free(tpl);
    snprintf(text, sizeof(text), "{{%065d}}", 0);
    assert_int_equal(template_compile(text, strlen(text), NULL, 0, &tpl, &err), TD_ESYNTAX);
    assert_non_null(strstr(err.sentence, "64 bytes"));
}

static void ten_thousand_different_fields_compile(void **unused)
{
    char *text = malloc(TEMPLATE_MAX_TAGS * 11 + 1);
    struct template *tpl = NULL;
    char name[8];

    (void)unused;
    assert_non_null(text);
    for (size_t i = 0; i < TEMPLATE_MAX_TAGS; i++)
        snprintf(text + 11 * i, 12, "{{f%06zu}}", i);
    assert_int_equal(template_compile(text, strlen(text), NULL, 0, &tpl, NULL), TD_OK);
    assert_int_equal(template_field_count(tpl), TEMPLATE_MAX_TAGS);
    snprintf(name, sizeof(name), "f%06d", 7777);
    assert_string_equal(template_field(tpl, 7777), name);
    template_free(tpl);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tags_become_values_and_the_rest_stays),
        cmocka_unit_test(literals_never_follow_each_other),
        cmocka_unit_test(fields_are_listed_once_in_order),
        cmocka_unit_test(a_field_is_optional_when_all_its_uses_have_a_default),
        cmocka_unit_test(errors_name_line_and_column_in_characters),
        cmocka_unit_test(nul_is_refused),
        cmocka_unit_test(known_names_and_reserved_ones_pass),
        cmocka_unit_test(limits_hold_exactly),
        cmocka_unit_test(field_names_have_at_most_64_bytes),
        cmocka_unit_test(ten_thousand_different_fields_compile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
