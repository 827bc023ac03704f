#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tandem/map.h"
#include "tandem/rng.h"

enum { KEYS = 2000 };

static void behaves_like_an_array_of_flags(void **unused)
{
    static char there[KEYS];
    struct td_map *map = td_map_new();
    struct td_rng rng;
    size_t count = 0;

    (void)unused;
    td_rng_seed(&rng, 42);
    for (int round = 0; round < 40000; round++) {
        size_t k = (size_t)td_rng_below(&rng, KEYS);
        char key[16];
        size_t len = (size_t)snprintf(key, sizeof(key), "k%zu", k);

        if (td_rng_below(&rng, 2)) {
            assert_int_equal(td_map_set(map, key, len, &there[k]), 0);
            count += !there[k];
            there[k] = 1;
        } else {
            assert_ptr_equal(td_map_remove(map, key, len), there[k] ? &there[k] : NULL);
            count -= there[k] != 0;
            there[k] = 0;
        }
        assert_ptr_equal(td_map_get(map, key, len), there[k] ? &there[k] : NULL);
        assert_int_equal(td_map_count(map), count);
    }
    td_map_free(map);
}

static void every_entry_is_walked_once(void **unused)
{
    static char seen[KEYS];
    struct td_map *map = td_map_new();
    size_t cursor = 0;
    char *at;

    (void)unused;
    for (uint32_t k = 0; k < KEYS; k++)
        assert_int_equal(td_map_set(map, &k, sizeof(k), &seen[k]), 0);
    while ((at = td_map_next(map, &cursor)))
        ++*at;
    for (size_t k = 0; k < KEYS; k++)
        assert_int_equal(seen[k], 1);
    td_map_free(map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(behaves_like_an_array_of_flags),
        cmocka_unit_test(every_entry_is_walked_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
