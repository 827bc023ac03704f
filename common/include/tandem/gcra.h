/* tandem/gcra.h - even pacing: the generic cell rate algorithm with burst 1, handing out future slots. Pure.
 * The same arithmetic as common/lua/pace.lua; used alone while Redis is away. Not thread-safe. */
#ifndef TD_GCRA_H
#define TD_GCRA_H

#include <stdint.h>

struct td_gcra {
    uint64_t tat_us; /* when the next slot is due; 0 at first */
};

/**
 * Take up to `want` consecutive slots within the next horizon_us.
 * @param mails_per_s  > 0
 * @param ret_first_us  when the first one is due (>= now_us); later ones follow every 1e6 / mails_per_s
 * @return slots granted, 0..want. Unused time is never saved up, so no burst follows a pause.
 */
uint32_t td_gcra_take(struct td_gcra *gcra, double mails_per_s, uint32_t want, uint64_t horizon_us,
                      uint64_t now_us, uint64_t *ret_first_us);

#endif /* TD_GCRA_H */
