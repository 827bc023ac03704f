#include "unit.h"

#include <stdalign.h>
#include <string.h>

#include "tandem/arena.h"

static void memory_is_aligned_and_does_not_overlap(void **unused)
{
    struct td_arena *arena = td_arena_new(1000000);
    unsigned char *piece[200];

    (void)unused;
    for (size_t i = 0; i < COUNT(piece); i++) {
        piece[i] = td_arena_alloc(arena, i);
        assert_non_null(piece[i]);
        assert_int_equal((uintptr_t)piece[i] % alignof(max_align_t), 0);
        memset(piece[i], (int)i, i);
    }
    for (size_t i = 0; i < COUNT(piece); i++) {
        for (size_t k = 0; k < i; k++)
            assert_int_equal(piece[i][k], i);
    }
    td_arena_free(arena);
}

static void budget_is_never_exceeded_and_comes_back_with_clear(void **unused)
{
    struct td_arena *arena = td_arena_new(1024);
    size_t got = 0;

    (void)unused;
    while (td_arena_alloc(arena, 100))
        got++;
    assert_int_equal(got, 1024 / 112);
    assert_true(td_arena_used(arena) <= 1024);
    assert_null(td_arena_alloc(arena, SIZE_MAX));
    assert_null(td_arena_alloc(arena, SIZE_MAX - 3));
    td_arena_clear(arena);
    assert_int_equal(td_arena_used(arena), 0);
    assert_non_null(td_arena_alloc(arena, 1024));
    assert_null(td_arena_alloc(arena, 1));
    td_arena_free(arena);
}

static void copies_are_equal_and_strings_terminated(void **unused)
{
    struct td_arena *arena = td_arena_new(100000);
    char *zero;

    (void)unused;
    assert_string_equal(td_arena_strdup(arena, "text"), "text");
    assert_string_equal(td_arena_strndup(arena, "text", 2), "te");
    assert_memory_equal(td_arena_memdup(arena, "a\0b", 3), "a\0b", 3);
    assert_non_null(td_arena_memdup(arena, NULL, 0));
    assert_null(td_arena_strndup(arena, "x", SIZE_MAX));
    zero = td_arena_zalloc(arena, 9000); /* more than a chunk */
    for (size_t i = 0; i < 9000; i++)
        assert_int_equal(zero[i], 0);
    td_arena_free(arena);
    td_arena_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_aligned_and_does_not_overlap),
        cmocka_unit_test(budget_is_never_exceeded_and_comes_back_with_clear),
        cmocka_unit_test(copies_are_equal_and_strings_terminated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
