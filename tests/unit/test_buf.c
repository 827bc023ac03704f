#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "tandem/buf.h"
#include "tandem/err.h"

static void adds_keep_the_text_terminated(void **unused)
{
    struct td_buf buf = TD_BUF_INIT(1000);

    (void)unused;
    assert_string_equal(td_buf_str(&buf), "");
    assert_int_equal(td_buf_adds(&buf, "one"), TD_OK);
    assert_int_equal(td_buf_addc(&buf, ' '), TD_OK);
    assert_int_equal(td_buf_printf(&buf, "%d-%s", 2, "three"), TD_OK);
    assert_int_equal(td_buf_add(&buf, "\0x", 2), TD_OK);
    assert_int_equal(buf.len, 13);
    assert_memory_equal(buf.data, "one 2-three\0x\0", 14);
    td_buf_release(&buf);
}

static void nothing_grows_past_the_limit_and_a_refused_add_changes_nothing(void **unused)
{
    struct td_buf buf = TD_BUF_INIT(5);

    (void)unused;
    assert_int_equal(td_buf_adds(&buf, "1234"), TD_OK);
    assert_int_equal(td_buf_adds(&buf, "56"), TD_ETOOBIG);
    assert_int_equal(td_buf_printf(&buf, "%s", "56"), TD_ETOOBIG);
    assert_int_equal(td_buf_reserve(&buf, SIZE_MAX), TD_ETOOBIG);
    assert_string_equal(td_buf_str(&buf), "1234");
    assert_int_equal(td_buf_addc(&buf, '5'), TD_OK);
    assert_int_equal(td_buf_addc(&buf, '6'), TD_ETOOBIG);
    assert_int_equal(buf.cap, 5);
    td_buf_release(&buf);
}

static void an_empty_add_to_an_empty_buffer_is_fine(void **unused)
{
    struct td_buf buf = TD_BUF_INIT(0);

    (void)unused;
    assert_int_equal(td_buf_add(&buf, NULL, 0), TD_OK);
    assert_int_equal(td_buf_addc(&buf, 'x'), TD_ETOOBIG);
    td_buf_consume(&buf, 0);
    td_buf_clear(&buf);
    td_buf_release(&buf);
}

static void consume_drops_from_the_front(void **unused)
{
    struct td_buf buf = TD_BUF_INIT(100);

    (void)unused;
    td_buf_adds(&buf, "abcdef");
    td_buf_consume(&buf, 4);
    assert_string_equal(td_buf_str(&buf), "ef");
    td_buf_consume(&buf, 2);
    assert_string_equal(td_buf_str(&buf), "");
    td_buf_release(&buf);
}

static void take_hands_over_and_leaves_an_empty_buffer_with_its_limit(void **unused)
{
    struct td_buf buf = TD_BUF_INIT(100);
    size_t len = 99;
    char *text;

    (void)unused;
    assert_null(td_buf_take(&buf, &len));
    assert_int_equal(len, 0);
    td_buf_adds(&buf, "mine");
    text = td_buf_take(&buf, &len);
    assert_string_equal(text, "mine");
    assert_int_equal(len, 4);
    assert_null(buf.data);
    assert_int_equal(buf.limit, 100);
    free(text);
}

static void many_small_adds_equal_one_large_one(void **unused)
{
    struct td_buf small = TD_BUF_INIT(100000), large = TD_BUF_INIT(100000);
    char text[5000];

    (void)unused;
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (char)('a' + i % 26);
        assert_int_equal(td_buf_addc(&small, text[i]), TD_OK);
    }
    assert_int_equal(td_buf_add(&large, text, sizeof(text)), TD_OK);
    assert_int_equal(small.len, large.len);
    assert_memory_equal(small.data, large.data, large.len + 1);
    td_buf_release(&small);
    td_buf_release(&large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adds_keep_the_text_terminated),
        cmocka_unit_test(nothing_grows_past_the_limit_and_a_refused_add_changes_nothing),
        cmocka_unit_test(an_empty_add_to_an_empty_buffer_is_fine),
        cmocka_unit_test(consume_drops_from_the_front),
        cmocka_unit_test(take_hands_over_and_leaves_an_empty_buffer_with_its_limit),
        cmocka_unit_test(many_small_adds_equal_one_large_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
