#include "tandem/nearest.h"

#include <string.h>

enum { NEAREST_MAX = 64 }; /* bytes of a name that edit distance looks at */

/* Levenshtein with one row. Long names are cut: a typing error far behind is not worth the time. */
static size_t distance(const char *a, const char *b)
{
    size_t row[NEAREST_MAX + 1], len_a = strnlen(a, NEAREST_MAX), len_b = strnlen(b, NEAREST_MAX);

    for (size_t j = 0; j <= len_b; j++)
        row[j] = j;
    for (size_t i = 1; i <= len_a; i++) {
        size_t corner = row[0];

        row[0] = i;
        for (size_t j = 1; j <= len_b; j++) {
            size_t change = corner + (a[i - 1] != b[j - 1]);
            size_t step = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;

            corner = row[j];
            row[j] = change < step ? change : step;
        }
    }
    return row[len_b];
}

const char *td_nearest(const char *name, const char *const *names, size_t count)
{
    size_t len = strnlen(name, NEAREST_MAX), best = 3;
    const char *found = NULL;

    if (len < 10)
        best = len < 5 ? 1 : 2;

    for (size_t i = 0; i < count; i++) {
        size_t d = distance(name, names[i]);

        if (d < best || (d == best && !found)) {
            best = d;
            found = names[i];
        }
    }
    return found;
}
