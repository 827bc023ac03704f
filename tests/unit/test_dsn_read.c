#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
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

static struct bounce_verdict verdict_of(const char *action, const char *status, const char *diagnostic, struct dsn *dsn)
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

static void hostile_bytes_are_no_report(void **unused)
{
    static const char *const raw[] = {"", "\n", "not mail at all", "Content-Type: multipart/report; boundary=b\r\n\r\n--b",
                                      "Content-Type: message/delivery-status\r\n\r\nAction: failed", "\xff\xfe\xfd\r\n\r\n\x80"};
    struct dsn dsn;
    char *deep = malloc(200000);
    size_t n = 0;

    (void)unused;
    for (size_t i = 0; i < sizeof(raw) / sizeof(raw[0]); i++)
        if (dsn_read(raw[i], strlen(raw[i]), &dsn, NULL) == TD_OK && i != 4)
            assert_int_equal(dsn.kind, REPORT_NONE);
    for (int level = 0; level < 500; level++)
        n += (size_t)snprintf(deep + n, 200000 - n, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", level, level);
    assert_int_not_equal(dsn_read(deep, n, &dsn, NULL), TD_ESYNTAX);
    assert_int_equal(dsn.kind, REPORT_NONE);
    free(deep);
    assert_int_equal(dsn_read("", DSN_BYTES_MAX + 1, &dsn, NULL), TD_ETOOBIG);
}

/* Where we call an address dead and the reference does not, with the reason why we may. */
static const char *const ours_hard[] = {
    "", /* none yet: every HARD of ours is one of the reference's, or named here */
};

static void real_bounces_agree_with_the_reference(void **unused)
{
    char path[512], line[512], file[128], hard[8], failed[8], reason[64];
    unsigned mails = 0, reports = 0, both = 0, theirs = 0, wrong = 0;
    FILE *labels;

    (void)unused;
    (void)ours_hard;
    snprintf(path, sizeof(path), "%s/corpus/bounces/labels.tsv", TD_TESTS_DIR);
    labels = fopen(path, "r");
    assert_non_null(labels);
    while (fgets(line, sizeof(line), labels)) {
        struct dsn dsn;
        size_t len;
        char *raw;

        if (line[0] == '#' || sscanf(line, "%127s %7s %7s %63s", file, hard, failed, reason) != 4)
            continue;
        raw = load(file, &len);
        mails++;
        if (dsn_read(raw, len, &dsn, NULL) == TD_OK && dsn.kind == REPORT_FAILED) {
            bool dead = bounce_classify(&dsn).class == BOUNCE_HARD;

            reports++;
            theirs += hard[0] == 'y';
            both += dead && hard[0] == 'y';
            if (dead && hard[0] != 'y') {
                wrong++;
                print_message("hard here only: %s (reference: %s; status %s)\n", file, reason, dsn.status);
            } else if (!dead && hard[0] == 'y') {
                print_message("hard there only: %s (reference: %s; status %s; we say %s)\n", file, reason, dsn.status,
                              bounce_classify(&dsn).reason);
            }
        }
        free(raw);
    }
    fclose(labels);
    print_message("%u mails, %u with a failed report; hard: %u of the reference's %u, %u more\n", mails, reports, both, theirs, wrong);
    assert_true(mails > 300 && reports > 100);
    assert_true(both * 10 >= theirs * 9);
    assert_true(wrong * 20 <= both);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_report_is_read),
        cmocka_unit_test(hostile_bytes_are_no_report),
        cmocka_unit_test(real_bounces_agree_with_the_reference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
