/* Chunks and parts: the borders, and that a recipient's lane depends on its number alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "split.h"

static const uint32_t lanes[] = {3, 7, 11};

static size_t cut(uint32_t first, size_t count, size_t bytes, struct split_chunk *out)
{
    static struct split_item items[2000];

    for (size_t i = 0; i < count; i++)
        items[i] = (struct split_item){first + (uint32_t)i, bytes};
    return split_recipients(items, count, lanes, 3, out);
}

static void neighbours_share_a_lane(void **unused)
{
    static struct split_chunk out[2000];
    static const uint32_t expected[][4] = {{11, 131, 0, 250}, {3, 132, 250, 500}, {7, 133, 750, 500}, {11, 134, 1250, 250}};

    (void)unused;
    assert_int_equal(cut(10000, 500, 10, out), 1);
    assert_int_equal(out[0].group, 130);
    assert_int_equal(out[0].lane, 7);
    assert_int_equal(out[0].count, 500);
    assert_int_equal(cut(10750, 1500, 10, out), 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(out[i].lane, expected[i][0]);
        assert_int_equal(out[i].group, expected[i][1]);
        assert_int_equal(out[i].first, expected[i][2]);
        assert_int_equal(out[i].count, expected[i][3]);
    }
}

static void first_numbers_are_cut_small(void **unused)
{
    static const uint32_t row[][2] = {{0, 0},      {24, 0},     {25, 1},      {999, 39},     {1000, 40},
                                      {1099, 40},  {1100, 41},  {9999, 129},  {10000, 130},  {10499, 130},
                                      {10500, 131}, {SPLIT_INDEX_MAX, 33664}};

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++)
        assert_int_equal(split_group(row[i][0]), row[i][1]);
    for (uint32_t i = 1; i < 30000; i++)
        assert_in_range(split_group(i) - split_group(i - 1), 0, 1);
}

static void lane_does_not_depend_on_how_batches_are_cut(void **unused)
{
    static struct split_chunk out[2000];

    (void)unused;
    for (uint32_t first = 0; first < 3000; first += 97) {
        size_t chunks = cut(first, 97, 10, out);

        for (size_t i = 0; i < chunks; i++)
            for (size_t k = 0; k < out[i].count; k++)
                assert_int_equal(out[i].lane, lanes[split_group((uint32_t)(first + out[i].first + k)) % 3]);
    }
}

static void chunks_keep_below_the_byte_limit(void **unused)
{
    static struct split_chunk out[2000];

    (void)unused;
    assert_int_equal(cut(10000, 500, 1600, out), 1); /* exactly 800,000 */
    assert_int_equal(cut(10000, 500, 1601, out), 2);
    assert_int_equal(out[0].count, 499);
    assert_int_equal(cut(0, 10, SPLIT_BYTES, out), 10);
    assert_int_equal(cut(0, 0, 1, out), 0);
}

static void holes_in_the_numbers_are_fine(void **unused)
{
    static const struct split_item items[] = {{0, 1}, {24, 1}, {25, 1}, {16777215, 1}};
    struct split_chunk out[4];

    (void)unused;
    assert_int_equal(split_recipients(items, 4, lanes, 1, out), 3);
    assert_int_equal(out[0].count, 2);
    assert_int_equal(out[2].group, 33664);
    assert_int_equal(out[2].lane, 3);
}

static void parts_are_full_but_the_last(void **unused)
{
    static const uint64_t row[][4] = {/* bytes, parts, first part's bytes, last part's bytes */
                                      {1, 1, 1, 1},
                                      {900000, 1, 900000, 900000},
                                      {900001, 2, 900000, 1},
                                      {2700000, 3, 900000, 900000}};
    char key[SPLIT_PART_KEY_MAX];
    uint8_t sha256[32];

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        assert_int_equal(split_part_count(row[i][0]), row[i][1]);
        assert_int_equal(split_part_bytes(row[i][0], 0), row[i][2]);
        assert_int_equal(split_part_bytes(row[i][0], (uint32_t)row[i][1] - 1), row[i][3]);
        assert_int_equal(split_part_bytes(row[i][0], (uint32_t)row[i][1]), 0);
    }
    memset(sha256, 0xab, sizeof(sha256));
    assert_int_equal(split_part_key(key, sha256, UINT32_MAX), SPLIT_PART_KEY_MAX - 1);
    assert_memory_equal(key, "part/abab", 9);
    assert_string_equal(key + 69, "/4294967295");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_share_a_lane),
        cmocka_unit_test(first_numbers_are_cut_small),
        cmocka_unit_test(lane_does_not_depend_on_how_batches_are_cut),
        cmocka_unit_test(chunks_keep_below_the_byte_limit),
        cmocka_unit_test(holes_in_the_numbers_are_fine),
        cmocka_unit_test(parts_are_full_but_the_last),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
