#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "route.h"

#define WELL {.well = true, .room = true, .share = 10000}
#define FULL {.well = true, .share = 10000}
#define LIMITED_FULL {.well = true, .limited = true, .share = 10000}
#define RAMP(n) {.well = true, .room = true, .share = (n)}
#define DOWN {.room = true}
#define TRIAL {.grant = true, .room = true}
#define NEVER {.never = true, .well = true, .room = true, .share = 10000}
#define QUARTER {.well = true, .room = true, .share = 2500, .throttled = true}
#define QUARTER_SPARE {.well = true, .room = true, .share = 2500, .throttled = true, .spare = true}
#define AVOIDED {.avoided = true, .well = true, .room = true, .share = 10000}

static void takes_the_first_fit_relay(void **unused)
{
    static const struct {
        struct route_relay relay[2];
        uint32_t dice;
        enum route_answer answer;
        size_t chosen;
    } row[] = {
        {{WELL, WELL}, 9999, ROUTE_SEND, 0},
        {{DOWN, WELL}, 0, ROUTE_SEND, 1},
        {{FULL, WELL}, 0, ROUTE_WAIT, 0}, /* order is the operator's wish: wait */
        {{LIMITED_FULL, WELL}, 0, ROUTE_SEND, 1},
        {{LIMITED_FULL, FULL}, 0, ROUTE_WAIT, 0},
        {{LIMITED_FULL, DOWN}, 0, ROUTE_WAIT, 0},
        {{RAMP(1000), WELL}, 999, ROUTE_SEND, 0},
        {{RAMP(1000), WELL}, 1000, ROUTE_SEND, 1},
        {{RAMP(1000), DOWN}, 5000, ROUTE_SEND, 0}, /* nobody else: all to the one that ramps */
        {{TRIAL, WELL}, 0, ROUTE_SEND, 0},
        {{DOWN, DOWN}, 0, ROUTE_HOLD, 0},
        {{NEVER, DOWN}, 0, ROUTE_HOLD, 0},
        {{NEVER, NEVER}, 0, ROUTE_NEVER, 0}, /* not even when all else is down */
        {{NEVER, WELL}, 0, ROUTE_SEND, 1},
        {{AVOIDED, WELL}, 0, ROUTE_SEND, 1},
        {{AVOIDED, DOWN}, 0, ROUTE_HOLD, 0},
        {{QUARTER, WELL}, 2499, ROUTE_SEND, 0},
        {{QUARTER_SPARE, WELL}, 2500, ROUTE_SEND, 1}, /* what is beyond its part takes the next */
        {{QUARTER_SPARE, FULL}, 2500, ROUTE_WAIT, 1}, /* and waits for it */
        {{QUARTER, DOWN}, 2499, ROUTE_SEND, 0},
        {{QUARTER_SPARE, DOWN}, 2500, ROUTE_SEND, 0}, /* nobody else: by and by */
        {{QUARTER, DOWN}, 2500, ROUTE_WAIT, 0},
        {{QUARTER, RAMP(1000)}, 5000, ROUTE_SEND, 1},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
        size_t chosen = 0;

        assert_int_equal(route_choose(row[i].relay, 2, row[i].dice, &chosen), row[i].answer);
        if (row[i].answer == ROUTE_SEND || row[i].answer == ROUTE_WAIT)
            assert_int_equal(chosen, row[i].chosen);
    }
}

static void an_empty_route_never_sends(void **unused)
{
    size_t chosen = 0;

    (void)unused;
    assert_int_equal(route_choose(NULL, 0, 0, &chosen), ROUTE_NEVER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_the_first_fit_relay),
        cmocka_unit_test(an_empty_route_never_sends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
