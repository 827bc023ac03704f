#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "../../common/src/log_line.h"
#include "tandem/err.h"

#define HEAD                                                                                                      \
    "{\"ts\":\"2026-01-31T12:00:00.123Z\",\"level\":\"warn\",\"service\":\"dispatch\",\"instance\":\"d-1\","      \
    "\"event\":\"e\""

static const struct td_log_head head = {INT64_C(1769860800123), TD_WARN, "dispatch", "d-1", "e"};

static void json_of_each_kind_of_text(void **unused)
{
    static const struct {
        const char *text, *json;
    } row[] = {
        {"", ""},
        {"n=3 x=-2.5 z=0", ",\"n\":3,\"x\":-2.5,\"z\":0"},
        {"relay=ses", ",\"relay\":\"ses\""},
        /* Not JSON numbers, or no longer exact as a double. */
        {"a=007 b=1. c=.5 d=- e=1e5 f=+1 g=0x1",
         ",\"a\":\"007\",\"b\":\"1.\",\"c\":\".5\",\"d\":\"-\",\"e\":\"1e5\","
         "\"f\":\"+1\",\"g\":\"0x1\""},
        {"a=123456789012345 b=1234567890123456", ",\"a\":123456789012345,\"b\":\"1234567890123456\""},
        {"why=\"no route to host\" n=1", ",\"why\":\"no route to host\",\"n\":1"},
        {"id=\"12\"", ",\"id\":\"12\""}, /* quoted is text */
        {"why=\"he said \"no\" twice\" n=1", ",\"why\":\"he said \\\"no\\\" twice\",\"n\":1"},
        {"why=\"cut off", ",\"why\":\"cut off\""},
        {"empty= why=\"\"", ",\"empty\":\"\",\"why\":\"\""},
        {"two words n=1", ",\"n\":1,\"text\":\"two words\""},
        {"  n=1   m=2 ", ",\"n\":1,\"m\":2"},
        {"level=error event=x ts=1", ",\"level_\":\"error\",\"event_\":\"x\",\"ts_\":1"},
        {"url=a=b", ",\"url\":\"a=b\""},
        {"=x", ",\"text\":\"=x\""},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct td_buf line = TD_BUF_INIT(TD_LOG_LINE_MAX);
        char want[1024];

        snprintf(want, sizeof(want), HEAD "%s}\n", row[i].json);
        assert_int_equal(td_log_line_json(&line, &head, row[i].text), TD_OK);
        assert_string_equal(td_buf_str(&line), want);
        td_buf_release(&line);
    }
}

static void controls_and_broken_utf8_stay_inside_the_line(void **unused)
{
    struct td_buf line = TD_BUF_INIT(TD_LOG_LINE_MAX);

    (void)unused;
    assert_int_equal(
        td_log_line_json(&line, &head, "a=x\n{\"level\" b=\"\x1b[2J\\\" c=\xc3\xa4\xff\xc0\xaf\xed\xa0\x80"),
        TD_OK);
    assert_ptr_equal(strchr(td_buf_str(&line), '\n'), line.data + line.len - 1);
    assert_non_null(strstr(td_buf_str(&line), ",\"a\":\"x\\u000a{\\\"level\\\"\""));
    assert_non_null(strstr(td_buf_str(&line), ",\"b\":\"\\u001b[2J\\\\\""));
    /* A good character stays; each byte of an overlong form and of a surrogate becomes U+FFFD. */
    assert_non_null(strstr(td_buf_str(&line),
                           ",\"c\":\"\xc3\xa4"
                           "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"}\n"));
    td_buf_release(&line);
}

static void longest_text_of_worst_bytes_fits_a_line(void **unused)
{
    struct td_buf line = TD_BUF_INIT(TD_LOG_LINE_MAX);
    char text[TD_LOG_TEXT_MAX];

    (void)unused;
    memset(text, 1, sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    text[0] = 'a';
    text[1] = '=';
    assert_int_equal(td_log_line_json(&line, &head, text), TD_OK);
    assert_true(line.len > 6 * (sizeof(text) - 4));
    td_buf_release(&line);
}

static void plain_line_cannot_drive_the_terminal(void **unused)
{
    struct td_buf line = TD_BUF_INIT(TD_LOG_LINE_MAX);

    (void)unused;
    assert_int_equal(td_log_line_plain(&line, &head, "a=\x1b[2J\rb=\"x y\"", false), TD_OK);
    assert_string_equal(td_buf_str(&line), "12:00:00.123 WARN  e a=?[2J?b=\"x y\"\n");
    td_buf_clear(&line);
    assert_int_equal(td_log_line_plain(&line, &head, "", true), TD_OK);
    assert_string_equal(td_buf_str(&line), "12:00:00.123 \033[33mWARN \033[0m \033[1me\033[0m\n");
    td_buf_release(&line);
}

static void levels_have_names(void **unused)
{
    (void)unused;
    for (int level = TD_DEBUG; level <= TD_ERROR; level++)
        assert_int_equal(td_level_parse(td_level_name((enum td_level)level)), level);
    assert_int_equal(td_level_parse("loud"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_of_each_kind_of_text),
        cmocka_unit_test(controls_and_broken_utf8_stay_inside_the_line),
        cmocka_unit_test(longest_text_of_worst_bytes_fits_a_line),
        cmocka_unit_test(plain_line_cannot_drive_the_terminal),
        cmocka_unit_test(levels_have_names),
    };

    return cmocka_run_group_tests_name("log_line", tests, NULL, NULL);
}
