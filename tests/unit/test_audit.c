/* Outcomes against ledgers. Each row breaks one promise and must be told by its own sum. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "audit.h"

static int line(struct audit *audit, const char *text)
{
    return audit_ledger_line(audit, "c1", text, strlen(text));
}

static struct audit *whole(void)
{
    struct audit *audit = audit_new();

    assert_non_null(audit);
    assert_int_equal(audit_outcome(audit, 0, 1, "ses-eu"), TD_OK);
    assert_int_equal(audit_outcome(audit, 1, 1, "backup"), TD_OK);
    assert_int_equal(audit_outcome(audit, 2, 3, ""), TD_OK);
    assert_int_equal(audit_outcome(audit, 0, 1, "ses-eu"), TD_OK); /* seen twice */
    assert_int_equal(line(audit, "# 1 start"), TD_OK);
    assert_int_equal(line(audit, "17\t4\tr@e.se\t<c1.0@d>\t99\t-\t250"), TD_OK);
    assert_int_equal(line(audit, "17\t4\tr@e.se\tc1.1@d\t99\t-\tlost"), TD_OK);
    assert_int_equal(line(audit, "17\t4\tr@e.se\t<c1.1@d>\t99\t-\t554"), TD_OK);  /* not taken */
    assert_int_equal(line(audit, "17\t4\tr@e.se\t<c10.1@d>\t99\t-\t250"), TD_OK); /* another campaign */
    return audit;
}

static void a_whole_campaign_is_well(void **unused)
{
    struct audit *audit = whole();
    struct audit_sums sums;

    (void)unused;
    audit_sum(audit, 3, true, &sums);
    assert_true(sums.well);
    assert_int_equal(sums.results[1], 2);
    assert_int_equal(sums.results[3], 1);
    assert_int_equal(sums.relay_count, 2);
    assert_string_equal(sums.relay[1], "backup");
    assert_int_equal(sums.by_relay[1], 1);
    audit_free(audit);
}

static void each_broken_promise_is_counted(void **unused)
{
    struct audit_sums sums;
    struct audit *audit = whole();

    (void)unused;
    audit_sum(audit, 4, true, &sums); /* number 3 has no outcome */
    assert_int_equal(sums.lost, 1);
    assert_false(sums.well);
    audit_outcome(audit, 3, 1, "ses-eu"); /* accepted, and in no ledger */
    audit_sum(audit, 4, true, &sums);
    assert_int_equal(sums.lost, 1);
    audit_sum(audit, 4, false, &sums);
    assert_int_equal(sums.lost, 0);
    line(audit, "17\t4\tr@e.se\t<c1.3@d>\t99\t-\t250");
    line(audit, "18\t5\tr@e.se\t<c1.3@d>\t99\t-\t250");
    audit_sum(audit, 4, true, &sums);
    assert_int_equal(sums.lost, 0);
    assert_int_equal(sums.duplicates, 1);
    line(audit, "18\t5\tr@e.se\t<c1.2@d>\t99\t-\t250"); /* INVALID, yet taken */
    audit_sum(audit, 4, true, &sums);
    assert_int_equal(sums.extra, 1);
    line(audit, "18\t5\tr@e.se\t<c1.9@d>\t99\t-\t250"); /* never submitted */
    audit_sum(audit, 4, true, &sums);
    assert_int_equal(sums.extra, 2);
    audit_outcome(audit, 1, 7, "backup"); /* a second, different outcome */
    audit_sum(audit, 4, true, &sums);
    assert_int_equal(sums.conflicts, 1);
    audit_free(audit);
}

static void hostile_ledger_lines_are_refused_or_passed_over(void **unused)
{
    static const char *const bad[] = {"x", "\t\t\t\t\t\t", "1\t2\t3\t4\t5\t6", "1\t2\t3\t4\t5\t6\t250\t8"};
    static const char *const passed[] = {"1\t2\t3\tc1.\t5\t6\t250",
                                         "1\t2\t3\tc1.1\t5\t6\t250",
                                         "1\t2\t3\tc1.99999999999999999999@d\t5\t6\t250",
                                         "1\t2\t3\tc1.16777216@d\t5\t6\t250",
                                         "1\t2\t3\tc1.-1@d\t5\t6\t250",
                                         "1\t2\t3\t<\t5\t6\t250"};
    struct audit *audit = audit_new();

    (void)unused;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(line(audit, bad[i]), TD_ESYNTAX);
    for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++)
        assert_int_equal(line(audit, passed[i]), TD_OK);
    assert_int_equal(audit_seen(audit), 0);
    assert_int_equal(audit_outcome(audit, AUDIT_INDEX_MAX + 1, 1, ""), TD_EINVAL);
    assert_int_equal(audit_outcome(audit, 0, 0, ""), TD_EINVAL);
    assert_int_equal(audit_outcome(audit, 0, 8, ""), TD_EINVAL);
    audit_free(audit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_campaign_is_well),
        cmocka_unit_test(each_broken_promise_is_counted),
        cmocka_unit_test(hostile_ledger_lines_are_refused_or_passed_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
