#include "unit.h"

#include <stdbool.h>
#include <string.h>

#include "tandem/pb.h"
#include "tandem/topics.h"

static void every_topic_has_a_name_of_its_own(void **unused)
{
    (void)unused;
    for (size_t a = 0; a < TD_T_COUNT; a++) {
        assert_memory_equal(td_topics[a].name, "mail.", 5);
        for (size_t b = 0; b < a; b++)
            assert_string_not_equal(td_topics[a].name, td_topics[b].name);
    }
}

static void every_value_is_a_known_message(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < TD_T_COUNT; i++) {
        if (i == TD_T_DEAD_LETTERS)
            assert_null(td_topics[i].message);
        else
            assert_non_null(td_pb_type(td_topics[i].message));
    }
}

static void state_is_compacted_and_kept_and_the_rest_ages_out(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < TD_T_COUNT; i++) {
        bool state = i == TD_T_CONTENTS || i == TD_T_SUPPRESSIONS;

        assert_int_equal(td_topics[i].compacted, state);
        assert_true(state ? td_topics[i].retention_ms == -1 : td_topics[i].retention_ms >= 7LL * 24 * 3600 * 1000);
    }
}

static void all_lane_topics_have_as_many_partitions(void **unused)
{
    static const enum td_topic_id lanes[] = {TD_T_RECIPIENTS, TD_T_OUTBOUND,  TD_T_EXPRESS,
                                             TD_T_RETRY_1M,   TD_T_RETRY_10M, TD_T_RETRY_1H};

    (void)unused;
    for (size_t i = 0; i < COUNT(lanes); i++)
        assert_int_equal(td_topics[lanes[i]].partitions, 0);
}

static void prefix_stands_before_the_name_and_a_long_one_is_cut(void **unused)
{
    char name[24];

    (void)unused;
    td_topic_name(name, sizeof(name), "test.", TD_T_RETRY_10M);
    assert_string_equal(name, "test.mail.retry.10m");
    td_topic_name(name, sizeof(name), NULL, TD_T_CONTENTS);
    assert_string_equal(name, "mail.contents");
    td_topic_name(name, 6, "", TD_T_CONTENTS);
    assert_string_equal(name, "mail.");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_topic_has_a_name_of_its_own),
        cmocka_unit_test(every_value_is_a_known_message),
        cmocka_unit_test(state_is_compacted_and_kept_and_the_rest_ages_out),
        cmocka_unit_test(all_lane_topics_have_as_many_partitions),
        cmocka_unit_test(prefix_stands_before_the_name_and_a_long_one_is_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
