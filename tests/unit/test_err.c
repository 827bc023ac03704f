#include "unit.h"

#include <string.h>

#include "tandem/err.h"

static void fail_fills_code_and_text_and_returns_the_code(void **unused)
{
    struct td_err err = {TD_OK, ""};

    (void)unused;
    assert_int_equal(td_fail(&err, TD_EIO, "relay %s: %d", "a", 7), TD_EIO);
    assert_int_equal(err.code, TD_EIO);
    assert_string_equal(err.text, "relay a: 7");
}

static void fail_without_a_place_for_the_text_still_returns_the_code(void **unused)
{
    (void)unused;
    assert_int_equal(td_fail(NULL, TD_EBUG, "%s", "dropped"), TD_EBUG);
}

static void long_text_is_cut_and_terminated(void **unused)
{
    struct td_err err;
    char text[2 * TD_ERR_TEXT_MAX];

    (void)unused;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    td_fail(&err, TD_EINVAL, "%s", text);
    assert_int_equal(strlen(err.text), TD_ERR_TEXT_MAX - 1);
}

static void what_may_pass_by_itself_is_retriable(void **unused)
{
    static const enum td_code yes[] = {TD_ENOTFOUND, TD_ENOMEM, TD_EAGAIN, TD_EIO, TD_ETIMEOUT};
    static const enum td_code no[] = {TD_OK,      TD_EINVAL,  TD_ESYNTAX, TD_ETOOBIG,
                                      TD_EDENIED, TD_ECONFIG, TD_EFATAL,  TD_EBUG};

    (void)unused;
    for (size_t i = 0; i < COUNT(yes); i++)
        assert_true(td_code_retriable(yes[i]));
    for (size_t i = 0; i < COUNT(no); i++)
        assert_false(td_code_retriable(no[i]));
}

static void every_code_has_its_own_name(void **unused)
{
    (void)unused;
    for (int a = TD_EBUG; a <= TD_OK; a++) {
        assert_string_not_equal(td_code_name((enum td_code)a), "?");
        for (int b = TD_EBUG; b < a; b++)
            assert_string_not_equal(td_code_name((enum td_code)a), td_code_name((enum td_code)b));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_fills_code_and_text_and_returns_the_code),
        cmocka_unit_test(fail_without_a_place_for_the_text_still_returns_the_code),
        cmocka_unit_test(long_text_is_cut_and_terminated),
        cmocka_unit_test(what_may_pass_by_itself_is_retriable),
        cmocka_unit_test(every_code_has_its_own_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
