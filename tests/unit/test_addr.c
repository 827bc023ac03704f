#include "unit.h"

#include <stdbool.h>
#include <string.h>

#include "tandem/addr.h"

#define L10 "abcdefghij"
#define L63 L10 L10 L10 L10 L10 L10 "abc"
#define L64 L63 "d"
#define D250 L63 "." L63 "." L63 "." L10 L10 L10 L10 L10 "abcdefgh"

static void good_addresses_come_out_fit_for_rcpt_to(void **unused)
{
    static const char *const row[][2] = {
        {"info@example.se", "info@example.se"},
        {"Info.Desk@EXAMPLE.Se", "Info.Desk@example.se"},
        {"a@b.cd", "a@b.cd"},
        {"user+tag@a-b.example.org", "user+tag@a-b.example.org"},
        {"!#$%&'*+-/=?^_`{|}~@x.se", "!#$%&'*+-/=?^_`{|}~@x.se"},
        {L64 "@x.se", L64 "@x.se"},
        {"a@" L63 ".se", "a@" L63 ".se"},
        {"a@1.2.3.4x", "a@1.2.3.4x"},
        {"a@4you.example.se", "a@4you.example.se"},
        {"a@xn--mller-kva.de", "a@xn--mller-kva.de"},
        {"a@r3--sn.example.com", "a@r3--sn.example.com"},
        {"\"john doe\"@x.se", "\"john doe\"@x.se"},
        {"\"a@b\"@x.se", "\"a@b\"@x.se"},
        {"\"..\"@x.se", "\"..\"@x.se"},
        {"\"a\\\"b\\\\c\"@x.se", "\"a\\\"b\\\\c\"@x.se"},
        {"\"john\"@x.se", "john@x.se"}, /* one mailbox, one hash */
        {"\"jo\\hn\"@x.se", "john@x.se"},
        {"info@m\xc3\xbcller.de", "info@xn--mller-kva.de"},
        {"info@M\xc3\x9cLLER.DE", "info@xn--mller-kva.de"},
        {"info@mu\xcc\x88ller.de", "info@xn--mller-kva.de"}, /* decomposed */
        {"info@stra\xc3\x9f"
         "e.de",
         "info@xn--strae-oqa.de"}, /* nontransitional: not strasse */
        {"info@\xe4\xbe\x8b\xe3\x81\x88\xe3\x80\x82\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88",
         "info@xn--r8jz45g.xn--zckzah"}, /* ideographic full stop is a dot */
    };
    char out[TD_ADDR_MAX];

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct td_err err = {TD_OK, ""};

        if (td_addr_check(row[i][0], strlen(row[i][0]), out, &err) != TD_OK)
            fail_msg("%s: %s", row[i][0], err.text);
        assert_string_equal(out, row[i][1]);
    }
}

static void hostile_and_broken_addresses_are_refused(void **unused)
{
    static const char *const row[] = {
        "",
        "@",
        "a",
        "a@",
        "@x.se",
        "a.x.se",
        "a@b@x.se",
        "a b@x.se",
        " a@x.se",
        "a@x.se ",
        "a@ x.se",
        "a\t@x.se",
        "a@x.se\r\nRCPT TO:<b@y.se>",
        "a\r\n@x.se",
        "a\n@x.se",
        "a@x.se\n",
        "a@x\r.se",
        "\"a\r\nb\"@x.se",
        "\"a\nb\"@x.se",
        "a\x7f@x.se",
        "\"a\x01\"@x.se",
        "a\x1b[31m@x.se",
        "<a@x.se>",
        "A <a@x.se>",
        "a@x.se>",
        "a@x.se> SIZE=1",
        "a@x.se,b@y.se",
        "a@x.se;b@y.se",
        "@relay.se:a@x.se",
        "@r1.se,@r2.se:a@x.se",
        "a%b:c@x.se",
        "(c)a@x.se",
        "a(c)@x.se",
        "a@x.se(c)",
        "a@(c)x.se",
        "a@[192.0.2.1]",
        "a@[IPv6:2001:db8::1]",
        "a@192.0.2.1",
        "a@x.123",
        ".a@x.se",
        "a.@x.se",
        "a..b@x.se",
        "a@.x.se",
        "a@x.se.",
        "a@x..se",
        "a@x",
        "a@localhost",
        "a@x_y.se",
        "a@-x.se",
        "a@x-.se",
        "a@x.-se",
        "a@x.se-",
        "a@x.s e",
        "a@x!y.se",
        "a@x.se:25",
        L64 "e@x.se",
        "a@" L64 ".se",
        "a@" D250 ".se",
        L64 "@" L63 "." L63 "." L63 ".se",
        "\"\"@x.se",
        "\"a@x.se",
        "\"a\"b@x.se",
        "\"a\"",
        "\"a\\\"@x.se",
        "a\"b\"@x.se",
        "\"a\".b@x.se",
        "\"a\"@",
        "j\xc3\xb6rg@m\xc3\xbcller.de",
        "j\xc3\xb6rg@x.se",
        "\"j\xc3\xb6rg\"@x.se",
        "a@x\xc3.se",
        "a@\xff\xfe.se",
        "a@\xc0\xae.se",
        "a@\xed\xa0\x80.se",   /* not UTF-8 */
        "a@b\xef\xbc\xa0x.se", /* full-width @ */
        "a@x\xef\xbc\x9e.se",
        "a@x\xe2\x80\xa8y.se",
        "a@x\xe2\x80\xae.se",
        "a@\xe2\x98\x83.se",
        "a@\xcc\x88x.se", /* begins with a combining mark */
        "a@m\xc3\xbcller",
        "a@m\xc3\xbcller.",
        "a@.m\xc3\xbcller.de",
        "a@m\xc3\xbcller_x.de",
        "a@m\xc3\xbc ller.de",
    };
    char out[TD_ADDR_MAX] = "kept";

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct td_err err = {TD_OK, ""};

        if (td_addr_check(row[i], strlen(row[i]), out, &err) != TD_EINVAL)
            fail_msg("row %zu was taken: %s", i, row[i]);
        assert_int_equal(err.code, TD_EINVAL);
        assert_string_equal(out, "kept");
    }
}

static void nul_anywhere_is_refused(void **unused)
{
    static const char address[] = "info@example.se";
    char out[TD_ADDR_MAX], hostile[sizeof(address)];

    (void)unused;
    for (size_t i = 0; i < sizeof(address); i++) {
        memcpy(hostile, address, sizeof(address));
        hostile[i] = '\0';
        assert_int_equal(td_addr_check(hostile, sizeof(address), out, NULL), TD_EINVAL);
    }
}

static void length_limit_counts_what_is_sent(void **unused)
{
    char address[2000], out[TD_ADDR_MAX];
    size_t at = 0;

    (void)unused;
    /* 64 + @ + 189 = 254 is the longest */
    memcpy(address, L64 "@" L63 "." L63 "." L10 L10 L10 L10 L10 "abcdefghi.x", 254);
    assert_int_equal(td_addr_check(address, 254, out, NULL), TD_OK);
    assert_int_equal(strlen(out), 254);
    memcpy(address, L64 "@" L63 "." L63 "." L10 L10 L10 L10 L10 "abcdefghij.x", 255);
    assert_int_equal(td_addr_check(address, 255, out, NULL), TD_EINVAL);
    /* far over any limit, and long labels for libidn2 */
    memcpy(address, "a@", 2);
    for (at = 2; at + 2 < sizeof(address); at += 2)
        memcpy(address + at, "\xc3\xbc", 2);
    assert_int_equal(td_addr_check(address, at, out, NULL), TD_EINVAL);
    assert_int_equal(td_addr_check(address, 1024, out, NULL), TD_EINVAL);
}

static void refusal_never_quotes_the_address(void **unused)
{
    static const char *const row[] = {
        "secretname@localhost",   "secretname\x01@x.se",        "secretname@x..se", "secretname",
        "secretname@[192.0.2.1]", "secretname@\xe2\x98\x83.se", "secretname.@x.se"};
    char out[TD_ADDR_MAX];

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        struct td_err err = {TD_OK, ""};

        assert_int_equal(td_addr_check(row[i], strlen(row[i]), out, &err), TD_EINVAL);
        assert_null(strstr(err.text, "secretname"));
        assert_true(strlen(err.text) > 10);
    }
}

static void what_comes_out_is_accepted_as_it_is(void **unused)
{
    static const char *const row[] = {"A.b@X.se", "\"a b\"@x.se", "\"x\\y z\"@x.se", "a@m\xc3\xbcller.de"};

    (void)unused;
    for (size_t i = 0; i < COUNT(row); i++) {
        char once[TD_ADDR_MAX], twice[TD_ADDR_MAX];

        assert_int_equal(td_addr_check(row[i], strlen(row[i]), once, NULL), TD_OK);
        assert_int_equal(td_addr_check(once, strlen(once), twice, NULL), TD_OK);
        assert_string_equal(once, twice);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_addresses_come_out_fit_for_rcpt_to),
        cmocka_unit_test(hostile_and_broken_addresses_are_refused),
        cmocka_unit_test(nul_anywhere_is_refused),
        cmocka_unit_test(length_limit_counts_what_is_sent),
        cmocka_unit_test(refusal_never_quotes_the_address),
        cmocka_unit_test(what_comes_out_is_accepted_as_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
