#include "tandem/gcra.h"

#include <math.h>

uint32_t td_gcra_take(struct td_gcra *gcra, double mails_per_s, uint32_t want, uint64_t horizon_us,
                      uint64_t now_us, uint64_t *ret_first_us)
{
    static const double longest_us = 1e15; /* thirty years: keeps the sums below 2^64 */
    uint64_t first = gcra->tat_us > now_us ? gcra->tat_us : now_us;
    double interval, fit;
    uint32_t granted;

    if (!(mails_per_s > 0) || want == 0 || first - now_us > horizon_us) /* also when the rate is not a number */
        return 0;
    interval = 1e6 / mails_per_s;
    if (interval > longest_us)
        interval = longest_us;
    /* A slot due exactly at the horizon still counts. */
    fit = floor((double)(horizon_us - (first - now_us)) / interval) + 1;
    granted = fit < (double)want ? (uint32_t)fit : want;
    /* Rounded up: a quota may be missed by a microsecond, but never passed. */
    gcra->tat_us = first + (uint64_t)ceil((double)granted * interval);
    *ret_first_us = first;
    return granted;
}
