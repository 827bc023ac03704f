/* Addresses, durations, times and progress as people write and read them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "progress.h"
#include "tandem/err.h"
#include "text.h"

static void mailboxes(void **unused)
{
    static const char *const row[][3] = {
        {"a@b.se", "", "a@b.se"},
        {" a@b.se ", "", "a@b.se"},
        {"<a@b.se>", "", "a@b.se"},
        {"Anna <a@b.se>", "Anna", "a@b.se"},
        {"Anna B. Ek  <a@b.se> ", "Anna B. Ek", "a@b.se"},
        {"\"Ek, \\\"Anna\\\" <x>\" <a@b.se>", "Ek, \"Anna\" <x>", "a@b.se"},
        {"Föreningen Norrsken <n@n.example.com>", "Föreningen Norrsken", "n@n.example.com"},
    };
    static const char *const bad[] = {
        "", " ", "a@b.se c@d.se", "Anna <a@b.se", "Anna <a@b.se> x", "\"Anna <a@b.se>", "<>"};
    char name[TEXT_NAME_MAX], address[64];

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        assert_true(text_mailbox(row[i][0], name, address, sizeof(address)));
        assert_string_equal(name, row[i][1]);
        assert_string_equal(address, row[i][2]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(text_mailbox(bad[i], name, address, sizeof(address)));
    assert_false(text_mailbox("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@b.se", name,
                              address, sizeof(address)));
}

static void durations(void **unused)
{
    int64_t ms;

    (void)unused;
    assert_true(text_duration_ms("24h", &ms));
    assert_int_equal(ms, 86400000);
    assert_true(text_duration_ms("1500ms", &ms));
    assert_int_equal(ms, 1500);
    assert_true(text_duration_ms("365d", &ms));
    assert_false(text_duration_ms("366d", &ms));
    assert_false(text_duration_ms("99999999999999999999d", &ms));
    assert_false(text_duration_ms("24", &ms));
    assert_false(text_duration_ms("h", &ms));
    assert_false(text_duration_ms("-1h", &ms));
    assert_false(text_duration_ms("1h ", &ms));
}

static void times(void **unused)
{
    int64_t ms;

    (void)unused;
    assert_true(text_time_ms("1970-01-01T00:00:01Z", &ms));
    assert_int_equal(ms, 1000);
    assert_true(text_time_ms("2026-03-01T08:00:00.25+01:00", &ms));
    assert_int_equal(ms, 1772348400250);
    assert_true(text_time_ms("2026-03-01T05:30:00-01:30", &ms));
    assert_int_equal(ms, 1772348400000);
    assert_false(text_time_ms("2026-03-01", &ms));
    assert_false(text_time_ms("2026-03-01T08:00:00", &ms));
    assert_false(text_time_ms("2026-03-01T08:00:00+1:00", &ms));
    assert_false(text_time_ms("2026-03-01T08:00:00+01", &ms));
    assert_false(text_time_ms("2026-03-01T08:00:00Zx", &ms));
}

static void numbers_do_not_wrap(void **unused)
{
    uint64_t n;

    (void)unused;
    assert_true(text_number("4294967295", UINT32_MAX, &n));
    assert_int_equal(n, UINT32_MAX);
    assert_false(text_number("4294967296", UINT32_MAX, &n));
    assert_false(text_number("18446744073709551616", UINT64_MAX, &n));
    assert_false(text_number("", 10, &n));
    assert_false(text_number("-1", 10, &n));
    assert_false(text_number("11", 10, &n));
    assert_false(text_number("6", 5, &n));
    assert_true(text_number("5", 5, &n));
}

static void a_hash_becomes_a_valid_campaign_id(void **unused)
{
    static const uint8_t hash[16] = {0, 1, 2, 3, 4, 5, 0xff, 7, 0xff, 9, 10, 11, 12, 13, 14, 15};
    char id[37];

    (void)unused;
    text_uuid(id, hash);
    assert_string_equal(id, "00010203-0405-8f07-bf09-0a0b0c0d0e0f");
}

static void progress_shows_rates_and_end(void **unused)
{
    struct totals totals = {0};
    struct progress progress = {0};
    struct td_buf out = TD_BUF_INIT(4096);

    (void)unused;
    totals_field(&totals, "submitted", 1000);
    totals_field(&totals, "count", 1000);
    totals_field(&totals, "nonsense", 7);
    progress_add(&progress, &totals, 10000);
    assert_int_equal(progress_eta_s(&progress), -1);
    totals_field(&totals, "accepted", 240);
    totals_field(&totals, "accepted:ses-eu", 240);
    totals_field(&totals, "refused:ses-eu", 3);
    totals_field(&totals, "invalid", 10);
    progress_add(&progress, &totals, 11000);
    assert_true(progress_rate_now(&progress) > 249.9 && progress_rate_now(&progress) < 250.1);
    assert_int_equal(progress_eta_s(&progress), 3);
    assert_int_equal(progress_line(&progress, 8, &out), TD_OK);
    assert_string_equal(td_buf_str(&out),
                        "[##......]  25 %  250/1000  250/s (mean 250/s), ETA 0:03, ses-eu* 240, invalid 10");
    totals_field(&totals, "accepted", 990);
    progress_add(&progress, &totals, 12000);
    assert_true(totals_finished(&totals));
    assert_true(totals_partly(&totals));
    td_buf_clear(&out);
    assert_int_equal(totals_json(&totals, "c1", &out), TD_OK);
    assert_non_null(strstr(td_buf_str(&out), "\"accepted\":990,"));
    assert_non_null(strstr(td_buf_str(&out), "\"by_relay\":{\"ses-eu\":240},\"hard_refused\":{\"ses-eu\":3},"));
    td_buf_release(&out);
}

static void a_campaign_that_left_its_relays_says_why(void **unused)
{
    struct totals totals = {0};
    struct progress progress = {0};
    struct td_buf out = TD_BUF_INIT(4096);

    (void)unused;
    totals_field(&totals, "submitted", 1000);
    totals_field(&totals, "tripped:ses-eu", 0);
    totals_text(&totals, "tripped:ses-eu", "100 of 1000 \"bounced\"\n");
    totals_text(&totals, "accepted:ses-eu", "1000");
    assert_int_equal(totals_why(&totals, &out), TD_OK);
    assert_string_equal(td_buf_str(&out), "left ses-eu: 100 of 1000 ?bounced??\n");
    td_buf_clear(&out);
    assert_int_equal(totals_json(&totals, "c1", &out), TD_OK);
    assert_non_null(strstr(td_buf_str(&out), ",\"left\":{\"ses-eu\":\"100 of 1000 ?bounced??\"},\"held\":false}"));
    totals_text(&totals, "held", "bounces");
    td_buf_clear(&out);
    assert_int_equal(totals_why(&totals, &out), TD_OK);
    assert_non_null(strstr(td_buf_str(&out), "\nHELD: it has left every relay of its route."));
    progress_add(&progress, &totals, 1000);
    td_buf_clear(&out);
    assert_int_equal(progress_line(&progress, 0, &out), TD_OK);
    assert_non_null(strstr(td_buf_str(&out), ", HELD"));
    td_buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mailboxes),
        cmocka_unit_test(durations),
        cmocka_unit_test(times),
        cmocka_unit_test(numbers_do_not_wrap),
        cmocka_unit_test(a_hash_becomes_a_valid_campaign_id),
        cmocka_unit_test(progress_shows_rates_and_end),
        cmocka_unit_test(a_campaign_that_left_its_relays_says_why),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
