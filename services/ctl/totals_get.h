/* totals_get.h - a campaign's sums from Redis. Loop thread only. */
#ifndef CTL_TOTALS_GET_H
#define CTL_TOTALS_GET_H

#include "progress.h"
#include "tandem/redis.h"

/** totals NULL: err says why. All zero when Redis knows no such campaign. */
typedef void totals_fn(void *user, const struct totals *totals, const struct td_err *err);

struct totals_get { /* must live until fn was called */
    totals_fn *fn;
    void *user;
};
void totals_get(struct td_redis *redis, const char *campaign_id, struct totals_get *get);

#endif /* CTL_TOTALS_GET_H */
