#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bounce_classify.h"

static char *load(const char *name, size_t *ret_len)
{
    char path[512];
    FILE *f;
    char *data;

    snprintf(path, sizeof(path), "%s/corpus/bounces/%s", TD_TESTS_DIR, name);
    f = fopen(path, "rb");
    assert_non_null(f);
    data = malloc(DSN_BYTES_MAX);
    *ret_len = fread(data, 1, DSN_BYTES_MAX, f);
    fclose(f);
    return data;
}

static const char report[] = "From: MAILER-DAEMON@mx.example.net\r\n"
                             "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n"
                             "MIME-Version: 1.0\r\n\r\n"
                             "--b\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n"
                             "--b\r\nContent-Type: message/delivery-status\r\n\r\n"
                             "Reporting-MTA: dns; mx.example.net\r\n\r\n"
                             "Final-Recipient: rfc822; x@example.net\r\nAction: %s\r\nStatus: %s\r\n"
                             "Diagnostic-Code: smtp; %s\r\n\r\n"
                             "--b--\r\n";

static struct bounce_verdict verdict_of(const char *action, const char *status, const char *diagnostic,
                                        struct dsn *dsn)
{
    char raw[2048];
    int len = snprintf(raw, sizeof(raw), report, action, status, diagnostic);

    assert_int_equal(dsn_read(raw, (size_t)len, dsn, NULL), TD_OK);
    return bounce_classify(dsn);
}

static void a_report_is_read(void **unused)
{
    static const struct {
        const char *action, *status, *diagnostic;
        enum report_kind kind;
        enum bounce_class class;
        const char *reason;
    } row[] = {
        {"failed", "5.1.1", "550 5.1.1 user unknown", REPORT_FAILED, BOUNCE_HARD, "bounce.mailbox_unknown"},
        {"failed (really)", "5.2.2", "552 mailbox full", REPORT_FAILED, BOUNCE_SOFT, "bounce.mailbox_full"},
        {"failed", "5.7.1", "550 blocked", REPORT_FAILED, BOUNCE_BLOCK, "bounce.policy"},
        {"failed", "5.1.1", "550 5.1.1 rejected as spam", REPORT_FAILED, BOUNCE_BLOCK, "bounce.policy"},
        {"failed", "4.4.7", "451 gave up", REPORT_FAILED, BOUNCE_SOFT, "bounce.network"},
        {"failed", "5.4.4", "host not found", REPORT_FAILED, BOUNCE_HARD, "bounce.domain_unknown"},
        {"failed", "5.0.0", "550 no such user here", REPORT_FAILED, BOUNCE_HARD, "bounce.mailbox_unknown"},
        {"failed", "5.0.0", "554 something odd", REPORT_FAILED, BOUNCE_UNKNOWN, "bounce.unknown"},
        {"failed", "nonsense", "552 too big", REPORT_FAILED, BOUNCE_MESSAGE, "bounce.too_large"},
        {"failed", "5.1.8", "550 bad sender", REPORT_FAILED, BOUNCE_CAMPAIGN, "bounce.our_sender"},
        {"delayed", "4.4.1", "421 later", REPORT_DELAYED, BOUNCE_SOFT, "bounce.network"},
        {"delivered", "2.0.0", "250 ok", REPORT_DELAYED, BOUNCE_UNKNOWN, "bounce.unknown"},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        struct dsn dsn;
        struct bounce_verdict v = verdict_of(row[i].action, row[i].status, row[i].diagnostic, &dsn);

        assert_int_equal(dsn.kind, row[i].kind);
        assert_string_equal(v.reason, row[i].reason);
        assert_int_equal(v.class, row[i].class);
    }
}

/* Exim writes Status: 5.0.0 into every report, some write none. */
static void status_comes_from_the_reply_when_the_field_is_general(void **unused)
{
    static const struct {
        const char *status, *diagnostic, *expected;
    } row[] = {
        {"5.0.0", "550 5.1.1 gone", "5.1.1"},
        {"5.0.0", "550-5.1.1 gone", "5.1.1"},
        {"5.0.0", "550 #5.1.0 Address rejected", "5.1.0"},
        {"nonsense", "550 5.7.1 no", "5.7.1"},
        {"5.0.0", "550 no code", "5.0.0"},
        {"5.2.2", "550 5.1.1 gone", "5.2.2"},
        {"5.0.0", "550 4.1.1 not of it", "5.0.0"},
        {"5.0.0", "5.1.1 no reply code", "5.0.0"},
        {"5.0.0", "550", "5.0.0"},
    };

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct dsn dsn;

        verdict_of("failed", row[i].status, row[i].diagnostic, &dsn);
        assert_string_equal(dsn.status, row[i].expected);
    }
}

static int read_text(const char *raw, struct dsn *dsn)
{
    return dsn_read(raw, strlen(raw), dsn, NULL);
}

#define PART "MIME-Version: 1.0\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\n"

static void shapes_of_reports(void **unused)
{
    static const struct {
        const char *what, *raw;
        enum report_kind kind;
        const char *status;
    } row[] = {
        {"cut after the status",
         PART "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n\r\nAction: failed\r\n"
              "Status: 5.1.1\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: cu",
         REPORT_FAILED, "5.1.1"},
        {"bare LF",
         "Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: "
         "message/delivery-status\n\nReporting-MTA: dns; a\n\n"
         "Action: failed\nStatus: 5.1.2\n\n--b--\n",
         REPORT_FAILED, "5.1.2"},
        {"RFC 6533",
         PART "Content-Type: message/global-delivery-status\r\n\r\nReporting-MTA: dns; a\r\n\r\nAction: "
              "failed\r\nStatus: 5.1.1\r\n\r\n--b--\r\n",
         REPORT_FAILED, "5.1.1"},
        {"base64",
         PART "Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\n"
              "UmVwb3J0aW5nLU1UQTogZG5zOyBhDQoNCkFjdGlvbjogZmFpbGVkDQpTdGF0dXM6IDUuMS4zDQo=\r\n--b--\r\n",
         REPORT_FAILED, "5.1.3"},
        {"first delayed, then failed",
         PART "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n\r\nAction: "
              "delayed\r\nStatus: 4.4.1\r\n"
              "Diagnostic-Code: smtp; 421 x\r\n\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--b--\r\n",
         REPORT_FAILED, "5.1.1"},
        {"status has a comment",
         PART "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n\r\nAction: "
              "Failed\r\nStatus: 5.1.1 (gone)\r\n\r\n--b--\r\n",
         REPORT_FAILED, "5.1.1"},
        {"a report inside the mail that came back",
         PART "Content-Type: message/rfc822\r\n\r\n" PART
              "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n\r\nAction: "
              "failed\r\n\r\n--b--\r\n",
         REPORT_NONE, ""},
        {"an auto-reply (RFC 3834)",
         "Auto-Submitted: auto-replied\r\nSubject: away\r\n\r\nAction: failed\r\nStatus: 5.1.1\r\n", REPORT_NONE,
         ""},
        {"a complaint (RFC 5965)",
         PART "Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\n\r\n--b--\r\n",
         REPORT_NONE, ""},
    };

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct dsn dsn;

        assert_int_equal(read_text(row[i].raw, &dsn), TD_OK);
        if (dsn.kind != row[i].kind || strcmp(dsn.status, row[i].status) != 0)
            fail_msg("%s: kind %d, status \"%s\"", row[i].what, (int)dsn.kind, dsn.status);
    }
}

static void hostile_bytes_are_no_report(void **unused)
{
    static const char *const raw[] = {"",
                                      "\n",
                                      "not mail at all",
                                      "Content-Type: multipart/report; boundary=b\r\n\r\n--b",
                                      "\xff\xfe\xfd\r\n\r\n\x80",
                                      PART "Content-Type: message/delivery-status\r\n\r\n",
                                      PART "Content-Type: message/delivery-status\r\n\r\n\r\n\n\n\r\n\r"};
    struct dsn dsn;

    (void)unused;
    for (size_t i = 0; i < COUNT(raw); i++)
        if (read_text(raw[i], &dsn) == TD_OK)
            assert_int_equal(dsn.kind, REPORT_NONE);
    assert_int_equal(dsn_read("", DSN_BYTES_MAX + 1, &dsn, NULL), TD_ETOOBIG);
}

/* As deep and as many as DSN_BYTES_MAX allows: refused or no report, but no stack overflow and no minutes of work.
 */
static void depth_and_number_are_bounded(void **unused)
{
    static const char *const open[] = {NULL, "Content-Type: message/rfc822\r\n\r\n", "--b0\r\n\r\n"};
    static const char begin[] = "Content-Type: multipart/mixed; boundary=b0\r\n\r\n";
    char *deep = malloc(DSN_BYTES_MAX);
    struct dsn dsn;

    (void)unused;
    assert_non_null(deep);
    for (size_t i = 0; i < COUNT(open); i++) {
        size_t n = 0;
        char one[80];

        if (i == 2)
            n = (size_t)snprintf(deep, DSN_BYTES_MAX, "%s", begin);
        for (int level = 0;; level++) {
            int len = i == 0
                          ? snprintf(one, sizeof(one),
                                     "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", level, level)
                          : snprintf(one, sizeof(one), "%s", open[i]);

            if (n + (size_t)len > DSN_BYTES_MAX)
                break;
            memcpy(deep + n, one, (size_t)len);
            n += (size_t)len;
        }
        if (dsn_read(deep, n, &dsn, NULL) == TD_OK)
            assert_int_equal(dsn.kind, REPORT_NONE);
    }
    free(deep);
}

/* ---- real bounces ---- */

/* Where we and the reference (Sisimai 5.1, see labels.tsv) differ on whether the address is dead. Sisimai lists
 * what it finds in any text and for several recipients; we read the fields of RFC 3464 about one. */
static const struct difference {
    const char *file, *ours, *why;
} differences[] = {
    {"lhost-opensmtpd-17.eml", "bounce.unknown",
     "no Diagnostic-Code; the reference reads the text for people, which we do not trust"},
    {"lhost-outlook-03.eml", "bounce.network", "the domain was not reachable: no proof that it is gone"},
    {"lhost-postfix-01.eml", "bounce.mailbox_unknown", "5.1.1, and procmail says there is no such user"},
    {"lhost-postfix-03.eml", "bounce.mailbox_unknown",
     "550 Unknown user; the reference takes a refusal after DATA for a filter"},
    {"lhost-postfix-05.eml", "bounce.address_trouble", "4.1.1: the receiver says that it is not sure"},
    {"lhost-postfix-35.eml", "bounce.mailbox_unknown", "550 User unknown after DATA, as above"},
    {"lhost-receivingses-01.eml", "bounce.mailbox_unknown", "5.1.1 Mailbox does not exist, after DATA"},
    {"lhost-sendmail-19.eml", "bounce.mailbox_unknown", "550 Unknown user, after DATA"},
    {"lhost-sendmail-27.eml", "bounce.mailbox_unknown", "550 User unknown, after DATA"},
    {"lhost-sendmail-35.eml", "bounce.mailbox_disabled", "5.7.13: the account is disabled, nobody reads it"},
    {"lhost-sendmail-51.eml", "bounce.mailbox_unknown", "550 User unknown, after DATA"},
    {"lhost-surfcontrol-01.eml", "bounce.mailbox_unknown", "550 No such user, after DATA"},
    {"rfc3464-01.eml", "bounce.mailbox_unknown",
     "5.1.1 User Unknown in both fields; the reference reads the text for people"},
    {"rfc3464-57.eml", "bounce.mailbox_unknown", "550 User unknown, after DATA"},
    {"rfc3464-65.eml", "bounce.unknown", "no Diagnostic-Code, Status 5.0.0"},
    {"rhost-aol-03.eml", "bounce.mailbox_full", "of two recipients the first is read; our reports have one"},
    {"rhost-google-01.eml", "bounce.mailbox_disabled", "5.2.1: the account is disabled"},
    {"rhost-google-07.eml", "bounce.mailbox_disabled", "5.2.1: the account is inactive for good"},
    {"rhost-kddi-01.eml", "bounce.mailbox_unknown", "550 User unknown, after DATA"},
    {"rhost-messagelabs-03.eml", "bounce.unknown", "542 Rejected: does not say why"},
    {"rhost-nttdocomo-01.eml", "bounce.mailbox_unknown", "550 Unknown user, after DATA"},
    {"rhost-nttdocomo-03.eml", "bounce.mailbox_unknown", "550 Unknown user, after DATA"},
    {"rhost-outlook-03.eml", "bounce.network", "the domain was not reachable"},
};

static const struct difference *difference_of(const char *file)
{
    for (size_t i = 0; i < COUNT(differences); i++)
        if (strcmp(differences[i].file, file) == 0)
            return &differences[i];
    return NULL;
}

/* @return 1 when the two agree, or differ as listed */
static int compare(const char *file, bool reference_hard)
{
    const struct difference *known = difference_of(file);
    struct bounce_verdict v;
    struct dsn dsn;
    size_t len;
    char *raw = load(file, &len);
    int rc = dsn_read(raw, len, &dsn, NULL);

    free(raw);
    if (rc < 0 || dsn.kind != REPORT_FAILED)
        return known ? 0
                     : 1; /* no RFC 3464 report: it changes nothing, whatever the reference finds in its text */
    v = bounce_classify(&dsn);
    if ((v.class == BOUNCE_HARD) == reference_hard) {
        if (known)
            print_message("%s: no difference any more\n", file);
        return known ? 0 : 1;
    }
    if (known && strcmp(known->ours, v.reason) == 0)
        return 1;
    print_message("%s: the reference says %s, we %s (status %s)\n", file, reference_hard ? "hard" : "not hard",
                  v.reason, dsn.status);
    return 0;
}

static bool is_failed_report(const char *file)
{
    struct dsn dsn;
    size_t len;
    char *raw = load(file, &len);
    bool yes = dsn_read(raw, len, &dsn, NULL) == TD_OK && dsn.kind == REPORT_FAILED;

    free(raw);
    return yes;
}

static void real_bounces_differ_from_the_reference_only_as_listed(void **unused)
{
    char path[512], line[512], file[128], hard[8], failed[8], reason[64];
    unsigned mails = 0, reports = 0, wrong = 0, dead = 0;
    FILE *labels;

    (void)unused;
    snprintf(path, sizeof(path), "%s/corpus/bounces/labels.tsv", TD_TESTS_DIR);
    labels = fopen(path, "r");
    assert_non_null(labels);
    while (fgets(line, sizeof(line), labels)) {
        if (line[0] == '#' || sscanf(line, "%127s %7s %7s %63s", file, hard, failed, reason) != 4)
            continue;
        mails++;
        if (is_failed_report(file)) {
            reports++;
            dead += hard[0] == 'y';
        }
        wrong += !compare(file, hard[0] == 'y');
    }
    fclose(labels);
    assert_int_equal(mails, 333);
    assert_int_equal(reports, 165);
    assert_int_equal(dead, 53);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_report_is_read),
        cmocka_unit_test(status_comes_from_the_reply_when_the_field_is_general),
        cmocka_unit_test(shapes_of_reports),
        cmocka_unit_test(hostile_bytes_are_no_report),
        cmocka_unit_test(depth_and_number_are_bounded),
        cmocka_unit_test(real_bounces_differ_from_the_reference_only_as_listed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
