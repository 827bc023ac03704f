#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lmtp.h"

enum { MAX = 64 * 1024, SHOWN_MAX = 16 * 1024 };

/* What the dialogue hands over, as text: "from>to,to:content;" */
struct far_side {
    struct lmtp *lmtp;
    struct td_buf seen;
};

static bool recipient(void *user, const char *address)
{
    (void)user;
    return strncmp(address, "b+", 2) == 0;
}

static void message(void *user)
{
    struct far_side *far = user;
    const struct td_buf *content = lmtp_content(far->lmtp);

    td_buf_printf(&far->seen, "%s>", lmtp_sender(far->lmtp));
    for (size_t i = 0; i < lmtp_recipient_count(far->lmtp); i++)
        td_buf_printf(&far->seen, "%s%s", i ? "," : "", lmtp_recipient(far->lmtp, i));
    td_buf_adds(&far->seen, lmtp_cut(far->lmtp) ? "!" : ":");
    if (content->len)
        td_buf_add(&far->seen, content->data, content->len);
    td_buf_adds(&far->seen, ";");
}

static const struct lmtp_ops ops = {recipient, message};

/* Feed `step` bytes at a time; each message gets its answers at once: 250, or 451 for those whose address has
 * "later".
 * @return what lmtp_feed or lmtp_answer said last */
static int talk(const char *in, size_t len, size_t step, size_t max_bytes, struct td_buf *out, struct td_buf *seen)
{
    struct far_side far = {.seen = TD_BUF_INIT(1024 * 1024)};
    int rc;

    far.lmtp = lmtp_new("mx.example.net", max_bytes, &ops, &far);
    assert_non_null(far.lmtp);
    td_buf_init(out, 1024 * 1024);
    rc = lmtp_feed(far.lmtp, NULL, 0, out);
    for (size_t at = 0; rc == 0 && at < len; at += step) {
        rc = lmtp_feed(far.lmtp, in + at, len - at < step ? len - at : step, out);
        for (size_t i = 0; rc == 0 && lmtp_waiting(far.lmtp);) {
            size_t count = lmtp_recipient_count(far.lmtp);

            rc = lmtp_answer(far.lmtp, !strstr(lmtp_recipient(far.lmtp, i), "later"), out);
            i = i + 1 == count ? 0 : i + 1;
        }
    }
    lmtp_free(far.lmtp);
    *seen = far.seen;
    return rc;
}

/* First digits of each reply's last line, and E when the session ends. */
static void codes(const struct td_buf *out, int rc, char shown[SHOWN_MAX])
{
    size_t n = 0;
    const char *at = td_buf_str(out);

    while (*at && n + 8 < SHOWN_MAX) {
        const char *end = strstr(at, "\r\n");

        assert_non_null(end);
        if (at[3] == ' ')
            n += (size_t)snprintf(shown + n, SHOWN_MAX - n, "%s%.3s", n ? " " : "", at);
        at = end + 2;
    }
    snprintf(shown + n, SHOWN_MAX - n, "%s", rc < 0 ? " E" : "");
}

#define HELLO "LHLO mta\r\nMAIL FROM:<>\r\nRCPT TO:<b+a@x>\r\nDATA\r\n"
#define OK "220 250 250 250 354 250"
#define IN(text) text, sizeof(text) - 1

static const struct row {
    const char *what, *in;
    size_t len;
    const char *codes, *seen;
} rows[] = {
    {"one mail", IN(HELLO "Subject: a\r\n\r\nb\r\n.\r\nQUIT\r\n"), OK " 221 E", ">b+a@x:Subject: a\r\n\r\nb\r\n;"},
    {"an empty mail", IN(HELLO ".\r\n"), OK, ">b+a@x:;"},
    {"two mails in one session",
     IN(HELLO "1\r\n.\r\nMAIL FROM:<s@y>\r\nRCPT TO:<b+c@x>\r\nDATA\r\n2\r\n.\r\nQUIT\r\n"),
     OK " 250 250 354 250 221 E", ">b+a@x:1\r\n;s@y>b+c@x:2\r\n;"},
    {"one reply a recipient, in order (RFC 2033 s.4.2)",
     IN("LHLO m\r\nMAIL FROM:<>\r\nRCPT TO:<b+1@x>\r\nRCPT TO:<b+later@x>\r\nRCPT TO:<who@x>\r\nRCPT "
        "TO:<b+3@x>\r\nDATA\r\nx\r\n.\r\nNOOP\r\n"),
     "220 250 250 250 250 550 250 354 250 451 250 250", ">b+1@x,b+later@x,b+3@x:x\r\n;"},
    {"case and parameters",
     IN("lhlo m\r\nmail from:<A@b> SIZE=10 BODY=8BITMIME\r\nrcpt to:<b+A@x> NOTIFY=NEVER\r\ndata\r\nx\r\n.\r\n"),
     OK, "A@b>b+A@x:x\r\n;"},
    {"a blank after the colon is forgiven",
     IN("LHLO m\r\nMAIL FROM: <>\r\nRCPT TO: <b+a@x>\r\nDATA\r\nx\r\n.\r\n"), OK, ">b+a@x:x\r\n;"},

    {"dots are unstuffed", IN(HELLO "..\r\n...\r\n..a\r\n.b\r\na.\r\n\r\n.\r\n"), OK,
     ">b+a@x:.\r\n..\r\n.a\r\nb\r\na.\r\n\r\n;"},
    {"a bare LF ends no line: no smuggling", IN(HELLO "a\n.\nMAIL FROM:<evil@x>\n.\r\n.\r\n"), OK,
     ">b+a@x:a\n.\nMAIL FROM:<evil@x>\n.\r\n;"},
    {"LF dot CRLF is text", IN(HELLO "a\n.\r\nb\r\n.\r\n"), OK, ">b+a@x:a\n.\r\nb\r\n;"},
    {"CRLF dot LF is text", IN(HELLO "a\r\n.\nb\r\n.\r\n"), OK, ">b+a@x:a\r\n\nb\r\n;"},
    {"CR dot CR is text", IN(HELLO "a\r.\rb\r\n.\r\n"), OK, ">b+a@x:a\r.\rb\r\n;"},
    {"CR CR LF", IN(HELLO "a\r\r\n.\r\n"), OK, ">b+a@x:a\r\r\n;"},
    {"8-bit and NUL come through", IN(HELLO "\xc3\xa5\xff\0z\r\n.\r\n"), OK, ">b+a@x:\xc3\xa5\xff\0z\r\n;"},

    {"commands before LHLO", IN("MAIL FROM:<>\r\nRCPT TO:<b+a@x>\r\nDATA\r\nNOOP\r\nRSET\r\nMAIL FROM:<>\r\n"),
     "220 503 503 503 250 250 503", ""},
    {"HELO is not LMTP", IN("HELO a\r\nEHLO a\r\n"), "220 500 500", ""},
    {"RCPT and DATA out of order",
     IN("LHLO m\r\nRCPT TO:<b+a@x>\r\nDATA\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\n"),
     "220 250 503 503 250 503 503", ""},
    {"no valid recipient, no DATA", IN("LHLO m\r\nMAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\n"),
     "220 250 250 550 503", ""},
    {"RSET forgets",
     IN("LHLO m\r\nMAIL FROM:<s@x>\r\nRCPT TO:<b+1@x>\r\nRSET\r\nDATA\r\nMAIL FROM:<t@x>\r\nRCPT "
        "TO:<b+2@x>\r\nDATA\r\nx\r\n.\r\n"),
     "220 250 250 250 250 503 250 250 354 250", "t@x>b+2@x:x\r\n;"},
    {"LHLO forgets", IN("LHLO m\r\nMAIL FROM:<>\r\nRCPT TO:<b+1@x>\r\nLHLO m\r\nDATA\r\n"),
     "220 250 250 250 250 503", ""},
    {"QUIT in the middle", IN("LHLO m\r\nMAIL FROM:<>\r\nQUIT\r\nRCPT TO:<b+1@x>\r\n"), "220 250 250 221 E", ""},
    {"nothing after QUIT is read", IN("QUIT\r\n" HELLO "x\r\n.\r\n"), "220 221 E", ""},

    {"paths that are none",
     IN("LHLO m\r\nMAIL FROM:a@x\r\nMAIL FROM:<a@x\r\nMAIL FROM:<a>b\r\nMAIL TO:<a>\r\nMAIL\r\nMAIL "
        "FROM:<\x01>\r\nMAIL FROM:<\xc3\xa5@x>\r\n"),
     "220 250 501 501 501 501 501 501 501", ""},
    {"NUL in a command", IN("LHLO m\r\nMAIL FROM:<a\0b>\r\nNO\0OP\r\n"), "220 250 500 500", ""},
    {"LF in a command is no end of it", IN("LHLO m\r\nMAIL FROM:<>\nRCPT TO:<b+a@x>\nDATA\r\n"), "220 250 501",
     ""},
    {"unknown words", IN("LHLO m\r\nVRFY a\r\n\r\nSTARTTLS\r\nDATAX\r\n"), "220 250 500 500 500 500", ""},
};

static void check(const struct row *row, size_t step)
{
    struct td_buf out, seen;
    char shown[SHOWN_MAX];
    int rc = talk(row->in, row->len, step, MAX, &out, &seen);

    codes(&out, rc, shown);
    if (strcmp(shown, row->codes) != 0)
        fail_msg("%s, %zu bytes at a time: %s", row->what, step, shown);
    /* The row with a NUL is longer than its text says; the beginning is enough of it. */
    if (strncmp(td_buf_str(&seen), row->seen, strlen(row->seen)) != 0 ||
        (!memchr(row->in, 0, row->len) && seen.len != strlen(row->seen)))
        fail_msg("%s, %zu bytes at a time: seen %s", row->what, step, td_buf_str(&seen));
    td_buf_release(&out);
    td_buf_release(&seen);
}

/* All at once is pipelining; byte by byte is the slowest network. */
static void dialogues_do_not_depend_on_how_bytes_arrive(void **unused)
{
    static const size_t step[] = {100000, 1, 2, 3, 7};

    (void)unused;
    for (size_t i = 0; i < COUNT(rows); i++)
        for (size_t s = 0; s < COUNT(step); s++)
            check(&rows[i], step[s]);
}

static void nul_is_kept_inside_a_message(void **unused)
{
    static const char in[] = HELLO "a\0b\r\n.\r\n", wanted[] = ">b+a@x:a\0b\r\n;";
    struct td_buf out, seen;

    (void)unused;
    talk(in, sizeof(in) - 1, 5, MAX, &out, &seen);
    assert_int_equal(seen.len, sizeof(wanted) - 1);
    assert_memory_equal(seen.data, wanted, sizeof(wanted) - 1);
    td_buf_release(&out);
    td_buf_release(&seen);
}

static char *filled(const char *head, char with, size_t count, const char *tail, size_t *ret_len)
{
    size_t h = strlen(head), t = strlen(tail);
    char *in = malloc(h + count + t);

    assert_non_null(in);
    memcpy(in, head, h);
    memset(in + h, with, count);
    memcpy(in + h + count, tail, t);
    *ret_len = h + count + t;
    return in;
}

static void check_filled(char *in, size_t len, size_t max_bytes, const char *wanted_codes, size_t kept, bool cut)
{
    struct td_buf out, seen;
    char shown[SHOWN_MAX];
    int rc = talk(in, len, 4099, max_bytes, &out, &seen);

    codes(&out, rc, shown);
    assert_string_equal(shown, wanted_codes);
    if (kept) {
        assert_int_equal(seen.data[6], cut ? '!' : ':');
        assert_int_equal(seen.len, 8 + kept);
    } else {
        assert_int_equal(seen.len, 0);
    }
    td_buf_release(&out);
    td_buf_release(&seen);
    free(in);
}

static void lengths_at_and_over_the_limits(void **unused)
{
    size_t len;
    char *in;

    (void)unused;
    in = filled(HELLO, 'a', 1000 - 2, "\r\n.\r\n", &len); /* exactly what is kept */
    check_filled(in, len, 1000, OK, 1000, false);
    in = filled(HELLO, 'a', 1000 - 1, "\r\n.\r\n", &len);
    check_filled(in, len, 1000, OK, 1000, true);
    in = filled(HELLO, 'a', 300000, "\r\n.\r\n", &len); /* one line, longer than all buffers */
    check_filled(in, len, MAX, OK, MAX, true);
    in = filled(HELLO, '.', 5000, "\r\n.\r\n",
                &len); /* a dot within a very long line is text, at its start it is unstuffed */
    check_filled(in, len, MAX, OK, 5001, false);
    in = filled(HELLO, '\r', 5000, "\r\n.\r\n", &len);
    check_filled(in, len, MAX, OK, 5002, false);
    in = filled("NOOP ", 'a', LMTP_LINE_MAX - 5, "\r\n", &len);
    check_filled(in, len, MAX, "220 250", 0, false);
    in = filled("NOOP ", 'a', LMTP_LINE_MAX - 4, "\r\n", &len);
    check_filled(in, len, MAX, "220 500 E", 0, false);
    in = filled("", 'a', 5000, "", &len); /* no end in sight */
    check_filled(in, len, MAX, "220 500 E", 0, false);
    in = filled("LHLO m\r\nMAIL FROM:<", 'a', 319, ">\r\n", &len);
    check_filled(in, len, MAX, "220 250 250", 0, false);
    in = filled("LHLO m\r\nMAIL FROM:<", 'a', 320, ">\r\n", &len);
    check_filled(in, len, MAX, "220 250 501", 0, false);
}

static void a_message_past_all_limits_is_refused_and_the_session_goes_on(void **unused)
{
    struct far_side far = {.seen = TD_BUF_INIT(1000)};
    struct td_buf out = TD_BUF_INIT(10000);
    char line[64 * 1024], shown[SHOWN_MAX];

    (void)unused;
    far.lmtp = lmtp_new("h", 1000, &ops, &far);
    memset(line, 'a', sizeof(line));
    memcpy(line + sizeof(line) - 2, "\r\n", 2);
    assert_int_equal(lmtp_feed(far.lmtp, HELLO, strlen(HELLO), &out), 0);
    for (size_t i = 0; i <= LMTP_MESSAGE_MAX / sizeof(line); i++)
        assert_int_equal(lmtp_feed(far.lmtp, line, sizeof(line), &out), 0);
    assert_int_equal(lmtp_feed(far.lmtp, ".\r\nNOOP\r\n", 9, &out), 0);
    codes(&out, 0, shown);
    assert_string_equal(shown, "220 250 250 250 354 552 250");
    assert_int_equal(far.seen.len, 0);
    lmtp_free(far.lmtp);
    td_buf_release(&out);
}

static void many_recipients_are_deferred_not_punished(void **unused)
{
    struct td_buf in = TD_BUF_INIT(65536), out, seen;
    char shown[SHOWN_MAX];
    int rc;

    (void)unused;
    td_buf_adds(&in, "LHLO m\r\nMAIL FROM:<>\r\n");
    for (int i = 0; i < 100; i++)
        td_buf_printf(&in, "RCPT TO:<%s%d@x>\r\n", i < 40 ? "no" : "b+", i);
    td_buf_adds(&in, "DATA\r\nx\r\n.\r\n");
    rc = talk(in.data, in.len, in.len, MAX, &out, &seen);
    codes(&out, rc, shown);
    assert_int_equal(rc, 0);
    for (size_t i = 0; i < 100; i++)
        assert_memory_equal(shown + 4 * (3 + i), i < 40 ? "550" : i < 90 ? "250" : "452", 3);
    assert_memory_equal(shown + 4 * 103, "354 250", 7);
    assert_int_equal(strlen(shown), 4 * (104 + 50) - 1);
    td_buf_release(&in);
    td_buf_release(&out);
    td_buf_release(&seen);
}

static void nonsense_ends_the_session(void **unused)
{
    struct td_buf in = TD_BUF_INIT(65536), out, seen;

    (void)unused;
    for (int i = 0; i < 100; i++)
        td_buf_adds(&in, "GET / HTTP/1.1\r\n");
    assert_int_equal(talk(in.data, in.len, in.len, MAX, &out, &seen), -1);
    assert_non_null(strstr(td_buf_str(&out), "421 4.7.0"));
    assert_true(out.len < 1000);
    td_buf_release(&in);
    td_buf_release(&out);
    td_buf_release(&seen);
}

/* What comes while the service has not answered is kept, up to a limit, and read after the last answer. */
static void nothing_is_read_while_an_answer_is_owed(void **unused)
{
    struct far_side far = {.seen = TD_BUF_INIT(10000)};
    struct td_buf out = TD_BUF_INIT(10000);
    char flood[LMTP_INPUT_MAX + 1];
    static const char first[] =
        "LHLO m\r\nMAIL FROM:<>\r\nRCPT TO:<b+1@x>\r\nRCPT TO:<b+2@x>\r\nDATA\r\nx\r\n.\r\n",
                      more[] = "MAIL FROM:<s@x>\r\nRCPT TO:<b+3@x>\r\nDATA\r\ny\r\n.\r\n";

    (void)unused;
    far.lmtp = lmtp_new("h", MAX, &ops, &far);
    assert_int_equal(lmtp_feed(far.lmtp, first, strlen(first), &out), 0);
    td_buf_clear(&out);
    assert_int_equal(lmtp_feed(far.lmtp, more, strlen(more), &out), 0);
    assert_int_equal(out.len, 0);
    assert_int_equal(lmtp_answer(far.lmtp, true, &out), 0);
    assert_string_equal(td_buf_str(&out), "250 2.0.0 Ok\r\n");
    assert_int_equal(lmtp_recipient_count(far.lmtp), 2);
    assert_int_equal(lmtp_answer(far.lmtp, false, &out), 0);
    assert_non_null(strstr(td_buf_str(&out), "451 4.3.0"));
    assert_true(lmtp_waiting(far.lmtp)); /* the second message */
    assert_string_equal(lmtp_recipient(far.lmtp, 0), "b+3@x");
    memset(flood, 'a', sizeof(flood));
    assert_int_equal(lmtp_feed(far.lmtp, flood, sizeof(flood), &out), -1);
    td_buf_clear(&out);
    assert_int_equal(lmtp_answer(far.lmtp, true, &out), -1); /* told all the same; then the flood is read */
    assert_string_equal(td_buf_str(&out), "250 2.0.0 Ok\r\n500 5.5.2 Line too long\r\n");
    assert_int_equal(lmtp_answer(far.lmtp, true, &out), -1); /* nothing is owed any more */
    lmtp_free(far.lmtp);
    td_buf_release(&out);
    td_buf_release(&far.seen);
}

static void a_reply_that_does_not_fit_ends_the_session(void **unused)
{
    struct far_side far = {.seen = TD_BUF_INIT(1000)};
    struct td_buf out = TD_BUF_INIT(100);

    (void)unused;
    far.lmtp = lmtp_new("h", 1000, &ops, &far);
    assert_int_equal(lmtp_feed(far.lmtp, "LHLO a\r\nLHLO b\r\nNOOP\r\n", 22, &out), -1);
    lmtp_free(far.lmtp);
    td_buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dialogues_do_not_depend_on_how_bytes_arrive),
        cmocka_unit_test(nul_is_kept_inside_a_message),
        cmocka_unit_test(lengths_at_and_over_the_limits),
        cmocka_unit_test(a_message_past_all_limits_is_refused_and_the_session_goes_on),
        cmocka_unit_test(many_recipients_are_deferred_not_punished),
        cmocka_unit_test(nonsense_ends_the_session),
        cmocka_unit_test(nothing_is_read_while_an_answer_is_owed),
        cmocka_unit_test(a_reply_that_does_not_fit_ends_the_session),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
