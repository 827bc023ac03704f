/* The pure parts of the rehearsal relay: what it reads, and what it enforces. tests/relaysim runs the whole. */
#include "unit.h"

#include <string.h>

#include "command.h"
#include "dsn.h"
#include "fault.h"
#include "http_request.h"
#include "sns_event.h"
#include "throttle.h"

#define MS UINT64_C(1000000)

static struct slice text(const char *str)
{
    return (struct slice){str, strlen(str)};
}

static void paths_without_controls_are_taken(void **unused)
{
    static const struct {
        const char *args, *path; /* NULL = refused */
    } row[] = {{"FROM:<a@x>", "a@x"},      {"from: <> SIZE=1", ""},     {"FROM:<\"a >\\\"b\"@x>", "\"a >\\\"b\"@x"},
               {"FROM:a@x", NULL},         {"FROM:<a b@x>", NULL},      {"FROM:<a\tb@x>", NULL},
               {"FROM:<\"a\\\tb\"@x>", NULL}, {"FROM:<a@x", NULL},      {"FROM:<a<@x>", NULL},
               {"FROM:<\"a\\", NULL},      {"TO:<a@x>", NULL},          {"FROM:<a\177@x>", NULL}};
    struct slice path, params;

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        int rc = command_path(text(row[i].args), "FROM:", &path, &params);

        assert_int_equal(rc, row[i].path ? TD_OK : TD_ESYNTAX);
        if (row[i].path) {
            assert_int_equal(path.len, strlen(row[i].path));
            assert_memory_equal(path.data, row[i].path, path.len);
        }
    }
}

static void numbers_over_their_limit_are_refused(void **unused)
{
    uint64_t bytes;
    bool last;

    (void)unused;
    assert_int_equal(command_bdat(text("10 last"), &bytes, &last), TD_OK);
    assert_true(bytes == 10 && last);
    assert_int_equal(command_bdat(text("99999999999999999999"), &bytes, &last), TD_ESYNTAX);
    assert_int_equal(command_bdat(text("10x"), &bytes, &last), TD_ESYNTAX);
    assert_int_equal(command_bdat(text("10 FIRST"), &bytes, &last), TD_ESYNTAX);
    assert_int_equal(command_bdat(text("-1"), &bytes, &last), TD_ESYNTAX);
    assert_int_equal(command_bdat(text(""), &bytes, &last), TD_ESYNTAX);
    assert_int_equal(command_size(text("BODY=8BITMIME SIZE=7"), &bytes), TD_OK);
    assert_int_equal(bytes, 7);
    assert_int_equal(command_size(text("SIZE=7a"), &bytes), TD_ESYNTAX);
}

static void only_crlf_dot_crlf_ends_a_message(void **unused)
{
    static const struct {
        const char *wire, *message; /* NULL = has not ended */
    } row[] = {{".\r\n", ""},
               {"a\r\n.\r\n", "a\r\n"},
               {"..a\r\n..\r\n.\r\n", ".a\r\n.\r\n"},
               {"a\n.\n\r\n.\r\n", "a\n.\n\r\n"},
               {"a\n.\r\n", NULL},
               {"a\r\n.\n", NULL},
               {"a\r.\r", NULL},
               {"a\r\n.", NULL},
               {".\r", NULL}};

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct dots dots = {.begun = false};
        struct slice rest = text(row[i].wire), piece;
        char out[64];
        size_t used, len = 0;
        bool ended;

        do {
            ended = dots_take(&dots, rest, &piece, &used);
            memcpy(out + len, piece.data, piece.len);
            len += piece.len;
            rest.data += used;
            rest.len -= used;
        } while (!ended && used);
        assert_int_equal(ended, row[i].message != NULL);
        if (ended) {
            assert_int_equal(len, strlen(row[i].message));
            assert_memory_equal(out, row[i].message, len);
            assert_int_equal(rest.len, 0);
        }
    }
}

static void message_id_is_found_in_the_header_only(void **unused)
{
    static const struct {
        const char *message, *id;
    } row[] = {{"A: b\r\nmessage-id: <x@y>\r\n\r\n", "x@y"},
               {"Message-ID:\r\n\t<x@y>\r\n\r\n", "x@y"},
               {"Message-ID: <1>\r\nMessage-ID: <2>\r\n\r\n", "1"},
               {"A: b\r\n Message-ID: <x@y>\r\n\r\n", ""},
               {"A: b\r\n\r\nMessage-ID: <x@y>\r\n\r\n", ""},
               {"Message-ID: x@y\r\n\r\n", ""},
               {"\r\n", ""}};
    struct slice id;
    size_t head;

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        assert_true(message_id_find(text(row[i].message), &id, &head));
        assert_int_equal(id.len, strlen(row[i].id));
        if (id.len)
            assert_memory_equal(id.data, row[i].id, id.len);
    }
    assert_false(message_id_find(text("Message-ID: <x@y>\r\n"), &id, &head));
}

/* Asks as often as it can for five seconds, from odd moments, and looks at every window that begins with a mail. */
static void no_second_holds_more_than_the_rate(void **unused)
{
    static uint64_t taken[10000];
    struct throttle throttle;
    size_t count = 0;
    uint64_t now = 123456789;

    (void)unused;
    assert_int_equal(throttle_init(&throttle, 50, 0, now), TD_OK);
    for (uint64_t i = 0; now < 5123456789; i++, now += i % 13 * 777777 + 1)
        if (throttle_take(&throttle, 1, now) == THROTTLE_FIT)
            taken[count++] = now;
    assert_in_range(count, 240, 250);
    for (size_t i = 0; i + 50 < count; i++)
        assert_true(taken[i + 50] - taken[i] >= 1000 * MS);
    assert_int_equal(throttle_take(&throttle, 51, now + 5000 * MS), THROTTLE_OVER_RATE);
    assert_int_equal(throttle_take(&throttle, 50, now + 5000 * MS), THROTTLE_FIT);
    throttle_release(&throttle);
}

static void quota_comes_back_after_a_day(void **unused)
{
    struct throttle throttle;
    uint64_t day = UINT64_C(86400000) * MS;

    (void)unused;
    assert_int_equal(throttle_init(&throttle, 0, 3, 0), TD_OK);
    assert_int_equal(throttle_take(&throttle, 2, 5), THROTTLE_FIT);
    assert_int_equal(throttle_take(&throttle, 2, 6), THROTTLE_OVER_DAY);
    assert_int_equal(throttle_take(&throttle, 1, 7), THROTTLE_FIT);
    assert_int_equal(throttle_take(&throttle, 1, day + 4), THROTTLE_OVER_DAY);
    assert_int_equal(throttle_take(&throttle, 3, day + 5), THROTTLE_FIT);
    throttle_release(&throttle);
}

static void windows_are_forgotten_after_a_minute(void **unused)
{
    struct throttle throttle;

    (void)unused;
    assert_int_equal(throttle_init(&throttle, 0, 0, 0), TD_OK);
    throttle_count(&throttle, 10 * MS);
    throttle_count(&throttle, 250 * MS);
    throttle_count(&throttle, 299 * MS);
    assert_int_equal(throttle_window(&throttle, 0, 299 * MS), 2);
    assert_int_equal(throttle_window(&throttle, 1, 299 * MS), 0);
    assert_int_equal(throttle_window(&throttle, 2, 299 * MS), 1);
    assert_int_equal(throttle_window(&throttle, 3, 299 * MS), 0);
    assert_int_equal(throttle_window(&throttle, 10, 1299 * MS), 2);
    assert_int_equal(throttle_window(&throttle, 599, 60150 * MS), 2); /* 601 - 599: the window from 200 ms on */
    assert_int_equal(throttle_window(&throttle, 599, 200000 * MS), 0);
    throttle_release(&throttle);
}

static uint64_t add(struct faults *faults, const char *json, uint64_t now_ns, uint64_t taken)
{
    json_t *object = json_loads(json, 0, NULL);
    uint64_t id = 0;

    assert_non_null(object);
    assert_int_equal(fault_add(faults, object, now_ns, taken, &id, NULL), TD_OK);
    json_decref(object);
    return id;
}

static void faults_act_as_often_as_they_say(void **unused)
{
    static struct faults faults;
    size_t hits = 0;

    (void)unused;
    add(&faults, "{\"at\":\"mail\",\"do\":\"hang\",\"count\":2,\"share\":0.5,\"after\":10,\"for_ms\":100}", 0, 5);
    assert_null(fault_strike(&faults, FAULT_AT_MAIL, 1, 14));
    assert_null(fault_strike(&faults, FAULT_AT_RCPT, 1, 15));
    for (int i = 0; i < 10; i++)
        hits += fault_strike(&faults, FAULT_AT_MAIL, 1, 15) != NULL;
    assert_int_equal(hits, 2);
    add(&faults, "{\"at\":\"rcpt\",\"do\":\"reply\",\"code\":550,\"match\":\"@gone.\",\"share\":0.5,\"count\":2}", 0, 0);
    hits = 0;
    for (int i = 0; i < 10; i++) {
        assert_null(fault_strike_at(&faults, FAULT_AT_RCPT, (struct slice){"TO:<a@here.test>", 16}, 1, 0));
        assert_null(fault_strike(&faults, FAULT_AT_RCPT, 1, 0));
        hits += fault_strike_at(&faults, FAULT_AT_RCPT, (struct slice){"TO:<a@gone.test>", 16}, 1, 0) != NULL;
    }
    assert_int_equal(hits, 2);
    add(&faults, "{\"at\":\"any\",\"do\":\"close\",\"for_ms\":100}", 0, 0);
    assert_non_null(fault_strike(&faults, FAULT_AT_OTHER, 100 * MS - 1, 0));
    assert_null(fault_strike(&faults, FAULT_AT_CONNECT, 1, 0));
    assert_null(fault_strike(&faults, FAULT_AT_BANNER, 100 * MS, 0));
    assert_int_equal(faults.count, 0);
    for (int i = 0; i < 3; i++)
        add(&faults, "{\"certificate\":\"expired\"}", 0, 0);
    assert_int_equal(fault_lift(&faults, 5), 1);
    assert_int_equal(fault_lift(&faults, 0), 2);
    assert_int_equal(faults.points, 0);
}

static void dsn_too_long_for_its_buffer_is_an_error(void **unused)
{
    struct td_buf out = TD_BUF_INIT(500);
    struct dsn dsn = {.reporting_mta = "a.test", .status = "5.1.1", .return_path = {"a@x", 3},
                      .recipients = {"b@x", 4}, .head = {".a: b\r\n", 7}};

    (void)unused;
    assert_int_equal(dsn_compose(&dsn, &out), TD_ETOOBIG);
    out.limit = 4096;
    td_buf_clear(&out);
    assert_int_equal(dsn_compose(&dsn, &out), TD_OK);
    assert_non_null(strstr(td_buf_str(&out), "\r\n..a: b\r\n"));
    td_buf_release(&out);
}

static void requests_over_a_limit_are_refused(void **unused)
{
    static char big[HTTP_HEAD_MAX + 1];
    static const struct {
        const char *request;
        int rc;
    } row[] = {{"GET /status?a HTTP/1.1\r\n\r\n", TD_OK},
               {"GET /status HTTP/1.1\r\n", TD_EAGAIN},
               {"POST /f HTTP/1.1\r\ncontent-length: 2\r\n\r\n{", TD_EAGAIN},
               {"POST /f HTTP/1.1\r\ncontent-length: 65537\r\n\r\n", TD_ETOOBIG},
               {"POST /f HTTP/1.1\r\ncontent-length: 1x\r\n\r\n", TD_ESYNTAX},
               {"POST /f HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", TD_ESYNTAX},
               {"GET status HTTP/1.1\r\n\r\n", TD_ESYNTAX},
               {"GET /status\r\n\r\n", TD_ESYNTAX},
               {"\r\n\r\n", TD_ESYNTAX}};
    struct http_request request;

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++)
        assert_int_equal(http_request_read(text(row[i].request), &request), row[i].rc);
    memset(big, 'x', sizeof(big));
    assert_int_equal(http_request_read((struct slice){big, sizeof(big)}, &request), TD_ETOOBIG);
}

static void a_mail_asks_for_events_by_its_headers(void **unused)
{
    static const struct {
        const char *head, *tags;
        bool asks;
    } row[] = {{"Subject: x\r\n\r\n", "", false},
               {"X-SES-CONFIGURATION-SET: a\r\nX-SES-MESSAGE-TAGS: k=v, l=w\r\n\r\n", "k=v, l=w", true},
               {"x-ses-configuration-set:a\r\n\r\n", "", true},
               {"X-SES-CONFIGURATION-SET: \r\n\r\n", "", false},
               {"X-SES-MESSAGE-TAGS: k=v\r\n\r\n", "k=v", false},
               {"X-SES-CONFIGURATION-SETS: a", "", false}};
    struct td_buf tags = TD_BUF_INIT(SES_TAGS_MAX);

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        assert_int_equal(sns_read_head(text(row[i].head), &tags), row[i].asks);
        assert_string_equal(td_buf_str(&tags), row[i].tags);
    }
    td_buf_release(&tags);
}

static void events_say_what_became_of_a_mail(void **unused)
{
    const struct sns_mail mail = {.message_id = "id-1", .source = text("b+a.1.x@y"), .recipient = "r@z",
                                  .tags = text("tandem=a-1-x, other=1,=, novalue"), .unix_ms = 1714611246655};
    json_t *event = sns_event(&mail, "Bounce", "5.1.1"), *about = json_object_get(event, "mail");

    (void)unused;
    assert_string_equal(json_string_value(json_object_get(event, "eventType")), "Bounce");
    assert_string_equal(json_string_value(json_object_get(about, "timestamp")), "2024-05-02T00:54:06.655Z");
    assert_string_equal(json_string_value(json_object_get(about, "source")), "b+a.1.x@y");
    assert_string_equal(json_string_value(json_array_get(json_object_get(json_object_get(about, "tags"), "tandem"), 0)), "a-1-x");
    assert_int_equal(json_object_size(json_object_get(about, "tags")), 2);
    assert_string_equal(json_string_value(json_object_get(json_object_get(event, "bounce"), "bounceType")), "Permanent");
    json_decref(event);
    event = sns_event(&mail, "Delivery", "");
    assert_non_null(json_object_get(event, "delivery"));
    json_decref(event);
}

static void answers_of_servers_are_read_whole_or_refused(void **unused)
{
    static const struct {
        const char *answer;
        int rc, status;
        size_t len;
    } row[] = {{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n", TD_OK, 200, 41},
               {"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\nHTTP/1.1", TD_OK, 503, 38},
               {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{}\n", TD_EAGAIN, 0, 0},
               {"HTTP/1.1 200 OK\r\n", TD_EAGAIN, 0, 0},
               {"HTTP/1.1 2x0 OK\r\n\r\n", TD_ESYNTAX, 0, 0},
               {"SSH-2.0-OpenSSH\r\n\r\n", TD_ESYNTAX, 0, 0},
               {"\r\n\r\n", TD_ESYNTAX, 0, 0},
               {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", TD_ESYNTAX, 0, 0},
               {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", TD_ETOOBIG, 0, 0}};

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        int status = 0;
        size_t len = 0;

        assert_int_equal(http_answer_read(text(row[i].answer), &status, &len), row[i].rc);
        assert_int_equal(status, row[i].status);
        assert_int_equal(len, row[i].len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_without_controls_are_taken),
        cmocka_unit_test(numbers_over_their_limit_are_refused),
        cmocka_unit_test(only_crlf_dot_crlf_ends_a_message),
        cmocka_unit_test(message_id_is_found_in_the_header_only),
        cmocka_unit_test(no_second_holds_more_than_the_rate),
        cmocka_unit_test(quota_comes_back_after_a_day),
        cmocka_unit_test(windows_are_forgotten_after_a_minute),
        cmocka_unit_test(faults_act_as_often_as_they_say),
        cmocka_unit_test(dsn_too_long_for_its_buffer_is_an_error),
        cmocka_unit_test(requests_over_a_limit_are_refused),
        cmocka_unit_test(a_mail_asks_for_events_by_its_headers),
        cmocka_unit_test(events_say_what_became_of_a_mail),
        cmocka_unit_test(answers_of_servers_are_read_whole_or_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
