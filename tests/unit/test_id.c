#include "unit.h"

#include <string.h>

#include "tandem/id.h"

static void campaign_ids_are_lower_case_words(void **unused)
{
    static const char *const good[] = {"a",
                                       "0",
                                       "2024-05-news",
                                       "a_b",
                                       "123e4567-e89b-12d3-a456-426614174000",
                                       "abcdefghijklmnopqrstuvwxyz0123456789"};
    static const char *const bad[] = {"",
                                      "-a",
                                      "_a",
                                      "A",
                                      "a b",
                                      "a.b",
                                      "a/b",
                                      "a+b",
                                      "a\n",
                                      "\xc3\xa5",
                                      "a\x7f",
                                      "a{b}",
                                      "abcdefghijklmnopqrstuvwxyz01234567890"};

    (void)unused;
    for (size_t i = 0; i < COUNT(good); i++)
        assert_true(td_campaign_id_valid(good[i]));
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(td_campaign_id_valid(bad[i]));
}

static void mail_key_reads_back(void **unused)
{
    static const uint32_t index[] = {0, 1, 9, 10, 999999, UINT32_MAX};
    static const char *const campaign[] = {"a", "abcdefghijklmnopqrstuvwxyz0123456789"};

    (void)unused;
    for (size_t c = 0; c < COUNT(campaign); c++) {
        for (size_t i = 0; i < COUNT(index); i++) {
            char key[TD_MAIL_KEY_MAX], read[TD_CAMPAIGN_ID_MAX + 1];
            uint32_t read_index = 77;
            size_t len = td_mail_key(key, campaign[c], index[i]);

            assert_int_equal(len, strlen(key));
            assert_true(td_mail_key_parse(key, len, read, &read_index));
            assert_string_equal(read, campaign[c]);
            assert_int_equal(read_index, index[i]);
        }
    }
}

static void what_is_no_mail_key_is_refused_and_changes_nothing(void **unused)
{
    static const char *const bad[] = {"",
                                      "a",
                                      "/1",
                                      "a/",
                                      "a/01",
                                      "a/1x",
                                      "a/ 1",
                                      "a/-1",
                                      "a/+1",
                                      "A/1",
                                      "a/1/2",
                                      "a/4294967296",
                                      "a/42949672950",
                                      "relay/x",
                                      "a//1",
                                      "abcdefghijklmnopqrstuvwxyz01234567890/1"};
    char campaign[TD_CAMPAIGN_ID_MAX + 1] = "kept";
    uint32_t index = 5;

    (void)unused;
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(td_mail_key_parse(bad[i], strlen(bad[i]), campaign, &index));
    assert_false(td_mail_key_parse("a\0/1", 4, campaign, &index));
    assert_false(td_mail_key_parse("a/1\0", 4, campaign, &index));
    assert_string_equal(campaign, "kept");
    assert_int_equal(index, 5);
}

/* printf %s info@example.se | openssl dgst -sha256 -hmac 0123456789abcdef */
static void address_hash_is_hmac_sha256_cut_to_16_bytes_without_regard_to_case(void **unused)
{
    uint8_t a[TD_HASH_BYTES], b[TD_HASH_BYTES];
    char hex[2 * TD_HASH_BYTES + 1];

    (void)unused;
    td_address_hash("0123456789abcdef", 16, "info@example.se", a);
    td_hex(hex, a, sizeof(a));
    assert_string_equal(hex, "9659c8f3263ae5c24962f3f344fd08be");
    td_address_hash("0123456789abcdef", 16, "INFO@Example.SE", b);
    assert_memory_equal(a, b, sizeof(a));
    td_address_hash("0123456789abcdeg", 16, "info@example.se", b);
    assert_memory_not_equal(a, b, sizeof(a));
    td_address_hash("0123456789abcdef", 16, "info@example.sf", b);
    assert_memory_not_equal(a, b, sizeof(a));
}

static void hex_reads_back_and_refuses_the_rest(void **unused)
{
    static const uint8_t bytes[] = {0, 1, 0x7f, 0x80, 0xff};
    static const char *const bad[] = {"", "00017f80f", "00017f80ff0", "00017f80fg", "0x017f80ff", " 0017f80ff"};
    char hex[2 * sizeof(bytes) + 1];
    uint8_t read[sizeof(bytes)];

    (void)unused;
    td_hex(hex, bytes, sizeof(bytes));
    assert_string_equal(hex, "00017f80ff");
    assert_true(td_unhex(read, sizeof(read), hex));
    assert_memory_equal(read, bytes, sizeof(bytes));
    assert_true(td_unhex(read, sizeof(read), "00017F80FF"));
    assert_memory_equal(read, bytes, sizeof(bytes));
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(td_unhex(read, sizeof(read), bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(campaign_ids_are_lower_case_words),
        cmocka_unit_test(mail_key_reads_back),
        cmocka_unit_test(what_is_no_mail_key_is_refused_and_changes_nothing),
        cmocka_unit_test(address_hash_is_hmac_sha256_cut_to_16_bytes_without_regard_to_case),
        cmocka_unit_test(hex_reads_back_and_refuses_the_rest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
