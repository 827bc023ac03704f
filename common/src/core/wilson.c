#include "tandem/wilson.h"

#include <math.h>

double td_wilson_lower(uint64_t hits, uint64_t n)
{
    static const double z = 1.959963984540054; /* 97.5 % quantile of the normal distribution */
    double count = (double)n, p, lower;

    if (n == 0)
        return 0;
    p = (double)hits / count;
    lower =
        (p + z * z / (2 * count) - z * sqrt((p * (1 - p) + z * z / (4 * count)) / count)) / (1 + z * z / count);
    return lower < 0 ? 0 : lower; /* rounding, when hits is 0 */
}
