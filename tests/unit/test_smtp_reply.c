#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp_reply.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

struct row {
    const char *bytes;
    int code;
    const char *enhanced;
    const char *text;
};

static const struct row good[] = {
    {"250 Ok\r\n", 250, "", "Ok"},
    {"250\r\n", 250, "", ""},
    {"250 \r\n", 250, "", ""},
    {"250 bare LF\n", 250, "", "bare LF"},
    {"250 2.1.5 Ok\r\n", 250, "2.1.5", "Ok"},
    {"550 5.1.1\r\n", 550, "5.1.1", ""},
    {"550-5.1.1 no such\r\n550-5.1.1 user\r\n550 5.1.1 here\r\n", 550, "5.1.1", "no such user here"},
    {"550-no code first\r\n550 5.7.1 then one\r\n", 550, "5.7.1", "no code first then one"},
    {"550-5.7.1 two\r\n550 5.7.26 codes\r\n", 550, "5.7.1", "two 5.7.26 codes"},
    {"554 5.7.30 long detail\r\n", 554, "5.7.30", "long detail"},
    {"554 5.1234.1 no status\r\n", 554, "", "5.1234.1 no status"},
    {"554 5.1 no status\r\n", 554, "", "5.1 no status"},
    {"554 3.1.1 no status\r\n", 554, "", "3.1.1 no status"},
    {"554 5.1.1: glued\r\n", 554, "", "5.1.1: glued"},
    {"451 4.4.2 Timeout waiting for data from client.\r\n", 451, "4.4.2", "Timeout waiting for data from client."},
    {"443 quota\r\n", 443, "", "quota"},
    {"250-a\r\n250-\r\n250 b\r\n", 250, "", "a b"},
    {"550 gr\xc3\xbc\xc3\x9f \x01\x7f\r\n", 550, "", "gr???? ??"},
};

static void check(const struct row *row, size_t piece)
{
    struct smtp_reply_reader reader;
    struct smtp_reply reply = {0};
    size_t len = strlen(row->bytes), at = 0, used;
    int rc = 0;

    smtp_reply_reader_init(&reader);
    while (at < len && rc == 0) {
        size_t n = piece < len - at ? piece : len - at;

        rc = smtp_reply_feed(&reader, row->bytes + at, n, &used, &reply);
        assert_true(used <= n);
        at += used;
    }
    assert_int_equal(rc, 1);
    assert_int_equal(at, len);
    assert_int_equal(reply.code, row->code);
    assert_string_equal(reply.enhanced, row->enhanced);
    assert_string_equal(reply.text, row->text);
}

static void replies_are_read_whole_from_pieces_of_any_size(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < LENGTH(good); i++)
        for (size_t piece = 1; piece <= strlen(good[i].bytes); piece++)
            check(&good[i], piece);
}

static void one_call_takes_one_reply_and_leaves_the_next(void **unused)
{
    static const char bytes[] = "250 one\r\n250-two\r\n250 and more\r\n354 three\r\n";
    static const int codes[] = {250, 250, 354};
    struct smtp_reply_reader reader;
    struct smtp_reply reply;
    size_t at = 0, used;

    (void)unused;
    smtp_reply_reader_init(&reader);
    for (size_t i = 0; i < LENGTH(codes); i++) {
        assert_int_equal(smtp_reply_feed(&reader, bytes + at, sizeof(bytes) - 1 - at, &used, &reply), 1);
        assert_int_equal(reply.code, codes[i]);
        at += used;
    }
    assert_int_equal(at, sizeof(bytes) - 1);
}

static int feed_all(const char *bytes, size_t len)
{
    struct smtp_reply_reader reader;
    struct smtp_reply reply;
    size_t used;

    smtp_reply_reader_init(&reader);
    return smtp_reply_feed(&reader, bytes, len, &used, &reply);
}

static void what_is_not_smtp_is_refused(void **unused)
{
    static const char *const bad[] = {"HTTP/1.1 200 OK\r\n",       "\r\n",          "25\r\n",     "25 Ok\r\n",
                                      "150 mark\r\n",              "650 what\r\n",  "2x0 Ok\r\n", "250_Ok\r\n",
                                      "250-one\r\n251 another\r\n", "250-\r\n\r\n", " 250 Ok\r\n", "-250 Ok\r\n"};

    (void)unused;
    for (size_t i = 0; i < LENGTH(bad); i++)
        assert_int_equal(feed_all(bad[i], strlen(bad[i])), -1);
    assert_int_equal(feed_all("250 a\0b\r\n", 9), -1);
}

static void a_line_without_end_is_refused_at_its_limit(void **unused)
{
    char *bytes = malloc(4096);

    (void)unused;
    memset(bytes, 'x', 4096);
    memcpy(bytes, "250 ", 4);
    assert_int_equal(feed_all(bytes, 2048), 0);
    assert_int_equal(feed_all(bytes, 2049), -1);
    bytes[2048] = '\n';
    assert_int_equal(feed_all(bytes, 2049), 1);
    free(bytes);
}

static void a_reply_without_end_is_refused_at_its_limit(void **unused)
{
    char bytes[101 * 8 + 1];
    size_t len = 0;

    (void)unused;
    for (int i = 0; i < 101; i++)
        len += (size_t)snprintf(bytes + len, sizeof(bytes) - len, "250-a\r\n");
    assert_int_equal(feed_all(bytes, 100 * 7), 0);
    assert_int_equal(feed_all(bytes, 101 * 7), -1);
}

static void text_is_kept_up_to_its_limit(void **unused)
{
    struct smtp_reply_reader reader;
    struct smtp_reply reply;
    size_t used;
    char line[1200];

    (void)unused;
    memset(line, 'y', sizeof(line));
    memcpy(line, "550-", 4);
    memcpy(line + sizeof(line) - 2, "\r\n", 2);
    smtp_reply_reader_init(&reader);
    assert_int_equal(smtp_reply_feed(&reader, line, sizeof(line), &used, &reply), 0);
    assert_int_equal(smtp_reply_feed(&reader, "550 end\r\n", 9, &used, &reply), 1);
    assert_int_equal(strlen(reply.text), SMTP_REPLY_TEXT_MAX);
    assert_int_equal(reply.code, 550);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_are_read_whole_from_pieces_of_any_size),
        cmocka_unit_test(one_call_takes_one_reply_and_leaves_the_next),
        cmocka_unit_test(what_is_not_smtp_is_refused),
        cmocka_unit_test(a_line_without_end_is_refused_at_its_limit),
        cmocka_unit_test(a_reply_without_end_is_refused_at_its_limit),
        cmocka_unit_test(text_is_kept_up_to_its_limit),
    };

    return cmocka_run_group_tests_name("smtp_reply", tests, NULL, NULL);
}
