#include "unit.h"

#include <stdio.h>
#include <string.h>

#include "tandem/rng.h"
#include "tandem/token.h"

static const char key[] = "a secret of this test";
static const char *const relays[] = {"ses", "backup", "own-server-3"};
static const char longest[] = "z23456789-123456789_123456789-123456";

static size_t write_bounce(char out[TD_TOKEN_LOCAL_MAX], const char *campaign, uint32_t index, const char *relay)
{
    return td_token_write(out, TD_TOKEN_BOUNCE, key, sizeof(key), campaign, index, relay);
}

static int read_bounce(const char *address, size_t len, struct td_token *ret)
{
    return td_token_read(address, len, TD_TOKEN_BOUNCE, key, sizeof(key), relays, COUNT(relays), ret, NULL);
}

/* Computed by a few lines of Python (hmac, hashlib) written from the comments in token.h and token.c. */
static void token_is_the_one_an_independent_writer_makes(void **unused)
{
    char local[TD_TOKEN_LOCAL_MAX];

    (void)unused;
    td_token_write(local, TD_TOKEN_BOUNCE, "0123456789abcdef", 16, "spring-news", 123456, "ses");
    assert_string_equal(local, "b+spring-news.2n9c.fm3fyo56mlvncptw");
    td_token_write(local, TD_TOKEN_UNSUBSCRIBE, "0123456789abcdef", 16, "spring-news", 123456, "ignored");
    assert_string_equal(local, "u+spring-news.2n9c.74lnoggs7sl24vgj");
}

static void every_campaign_and_index_reads_back_in_any_case(void **unused)
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz0123456789-_";
    struct td_rng rng;

    (void)unused;
    td_rng_seed(&rng, 1);
    for (unsigned round = 0; round < 3000; round++) {
        char campaign[TD_CAMPAIGN_ID_MAX + 1] = "", address[TD_TOKEN_LOCAL_MAX + 32];
        size_t campaign_len = 1 + round % TD_CAMPAIGN_ID_MAX, relay = round % COUNT(relays), len;
        uint32_t index = (uint32_t)(td_rng_next(&rng) >> (32 + round % 32));
        struct td_token token;

        for (size_t i = 0; i < campaign_len; i++)
            campaign[i] = alphabet[td_rng_below(&rng, i ? 38 : 36)];
        len = write_bounce(address, campaign, index, relays[relay]);
        assert_in_range(len, 1, TD_TOKEN_LOCAL_MAX - 1);
        assert_int_equal(len, strlen(address));
        for (size_t i = 0; i < len; i++) {
            if (address[i] >= 'a' && address[i] <= 'z' && td_rng_below(&rng, 2))
                address[i] = (char)(address[i] - 32);
        }
        memcpy(address + len, "@bounces.example.se", 20);
        assert_int_equal(read_bounce(address, len + 19, &token), TD_OK);
        assert_string_equal(token.campaign_id, campaign);
        assert_int_equal(token.index, index);
        assert_int_equal(token.relay, relay);
        assert_int_equal(read_bounce(address, len, &token), TD_OK); /* the local part alone */
    }
}

static void longest_token_fits_a_local_part(void **unused)
{
    char local[TD_TOKEN_LOCAL_MAX];
    struct td_token token;

    (void)unused;
    assert_int_equal(write_bounce(local, longest, UINT32_MAX, "ses"), 63);
    assert_int_equal(read_bounce(local, 63, &token), TD_OK);
    assert_int_equal(token.index, UINT32_MAX);
}

static void angle_brackets_around_the_address_are_ignored(void **unused)
{
    char local[TD_TOKEN_LOCAL_MAX], address[100] = "<";
    struct td_token token;
    size_t len = write_bounce(local, "c", 0, "backup");

    (void)unused;
    memcpy(address + 1, local, len);
    memcpy(address + 1 + len, "@x.se>", 6);
    assert_int_equal(read_bounce(address, len + 7, &token), TD_OK);
    assert_int_equal(token.relay, 1);
}

static void invalid_campaign_writes_nothing(void **unused)
{
    char local[TD_TOKEN_LOCAL_MAX];

    (void)unused;
    assert_int_equal(write_bounce(local, "", 0, "ses"), 0);
    assert_int_equal(write_bounce(local, "a\r\n", 0, "ses"), 0);
    assert_int_equal(write_bounce(local, "a.b", 0, "ses"), 0);
}

static void any_changed_character_is_denied_or_no_token(void **unused)
{
    static const char other[] = "abz0129.+-_@\r\n ";
    char local[TD_TOKEN_LOCAL_MAX], changed[TD_TOKEN_LOCAL_MAX];
    size_t len = write_bounce(local, "spring-news", 98765, "ses");

    (void)unused;
    for (size_t i = 0; i < len; i++) {
        for (size_t k = 0; k < sizeof(other); k++) { /* the NUL too */
            struct td_token token = {"kept", 1, 2};
            int rc;

            if (local[i] == other[k])
                continue;
            memcpy(changed, local, sizeof(changed));
            changed[i] = other[k];
            rc = read_bounce(changed, len, &token);
            assert_true(rc == TD_ESYNTAX || rc == TD_EDENIED);
            assert_string_equal(token.campaign_id, "kept");
        }
    }
    for (size_t cut = 0; cut < len; cut++) {
        struct td_token token;

        assert_int_not_equal(read_bounce(local, cut, &token), TD_OK);
    }
}

static void token_of_another_key_relay_or_purpose_is_denied(void **unused)
{
    char local[TD_TOKEN_LOCAL_MAX];
    size_t len = write_bounce(local, "c", 3, "not-configured");
    struct td_token token;

    (void)unused;
    assert_int_equal(read_bounce(local, len, &token), TD_EDENIED);
    len = write_bounce(local, "c", 3, "ses");
    assert_int_equal(
        td_token_read(local, len, TD_TOKEN_BOUNCE, "another key of ours", 19, relays, COUNT(relays), &token, NULL),
        TD_EDENIED);
    assert_int_equal(td_token_read(local, len, TD_TOKEN_BOUNCE, key, sizeof(key), NULL, 0, &token, NULL),
                     TD_EDENIED);
    assert_int_equal(td_token_read(local, len, TD_TOKEN_UNSUBSCRIBE, key, sizeof(key), NULL, 0, &token, NULL),
                     TD_ESYNTAX);
    local[0] = 'u'; /* a bounce address must not unsubscribe anyone */
    assert_int_equal(td_token_read(local, len, TD_TOKEN_UNSUBSCRIBE, key, sizeof(key), NULL, 0, &token, NULL),
                     TD_EDENIED);
}

static void unsubscribe_token_reads_back_whatever_relays_there_are(void **unused)
{
    char local[TD_TOKEN_LOCAL_MAX];
    size_t len = td_token_write(local, TD_TOKEN_UNSUBSCRIBE, key, sizeof(key), "c", 7, "");
    struct td_token token;

    (void)unused;
    assert_int_equal(
        td_token_read(local, len, TD_TOKEN_UNSUBSCRIBE, key, sizeof(key), relays, COUNT(relays), &token, NULL),
        TD_OK);
    assert_int_equal(td_token_read(local, len, TD_TOKEN_UNSUBSCRIBE, key, sizeof(key), NULL, 0, &token, NULL),
                     TD_OK);
    assert_int_equal(token.index, 7);
}

static void relays_with_one_tag_are_told_apart(void **unused)
{
    char name[2][16] = {"r0", ""}, local[2][TD_TOKEN_LOCAL_MAX];
    const char *const both[] = {name[0], name[1]};
    size_t len[2];

    (void)unused;
    len[0] = write_bounce(local[0], "c", 0, name[0]);
    for (unsigned i = 1;; i++) { /* 10 bits: found after some hundreds */
        snprintf(name[1], sizeof(name[1]), "r%u", i);
        len[1] = write_bounce(local[1], "c", 0, name[1]);
        if (memcmp(local[0], local[1], len[0] - 14) == 0)
            break;
        assert_true(i < 100000);
    }
    for (size_t i = 0; i < 2; i++) {
        struct td_token token;

        assert_int_equal(td_token_read(local[i], len[i], TD_TOKEN_BOUNCE, key, sizeof(key), both, 2, &token, NULL),
                         TD_OK);
        assert_int_equal(token.relay, i);
    }
}

static void tag_is_letters_digits_and_dashes_and_reads_back(void **unused)
{
    static const char *const campaigns[] = {"spring", "a-b_c-d", "a--", longest};
    char local[TD_TOKEN_LOCAL_MAX], tag[TD_TOKEN_LOCAL_MAX], back[TD_TOKEN_LOCAL_MAX];
    struct td_token token;

    (void)unused;
    for (size_t i = 0; i < COUNT(campaigns); i++) {
        size_t len = write_bounce(local, campaigns[i], 4000000000u, "ses");

        assert_int_equal(td_token_tag(tag, local), len - 2);
        assert_int_equal(strspn(tag, "abcdefghijklmnopqrstuvwxyz0123456789-_"), len - 2);
        assert_int_equal(td_token_untag(back, tag, strlen(tag)), TD_OK);
        assert_string_equal(back, local);
        assert_int_equal(read_bounce(back, strlen(back), &token), TD_OK);
        assert_string_equal(token.campaign_id, campaigns[i]);
    }
    assert_int_equal(td_token_tag(tag, "u+a.1.abcdefghijklmnop"), 0);
    assert_int_equal(td_token_tag(tag, ""), 0);
    assert_int_equal(td_token_untag(back, "", 0), TD_ESYNTAX);
    assert_int_equal(td_token_untag(back, "a-b", 3), TD_ESYNTAX);
    assert_int_equal(td_token_untag(back, "a\0-b-c", 6), TD_ESYNTAX);
    assert_int_equal(td_token_untag(back, "0123456789-123456789-123456789-123456789-123456789-123456789-12", 63), TD_ESYNTAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_is_the_one_an_independent_writer_makes),
        cmocka_unit_test(every_campaign_and_index_reads_back_in_any_case),
        cmocka_unit_test(longest_token_fits_a_local_part),
        cmocka_unit_test(angle_brackets_around_the_address_are_ignored),
        cmocka_unit_test(invalid_campaign_writes_nothing),
        cmocka_unit_test(any_changed_character_is_denied_or_no_token),
        cmocka_unit_test(token_of_another_key_relay_or_purpose_is_denied),
        cmocka_unit_test(unsubscribe_token_reads_back_whatever_relays_there_are),
        cmocka_unit_test(relays_with_one_tag_are_told_apart),
        cmocka_unit_test(tag_is_letters_digits_and_dashes_and_reads_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
