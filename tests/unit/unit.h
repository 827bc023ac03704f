/* What every cmocka test includes, in the order that cmocka wants. */
#ifndef TD_TESTS_UNIT_H
#define TD_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif /* TD_TESTS_UNIT_H */
