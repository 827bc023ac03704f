/* health_campaign.h - the bounce trigger: does a campaign bounce more at a relay than its ceiling allows? Reads
 * the ledger's totals in the background; a verdict sticks and is shared: field tripped:<relay> of the totals,
 * which an operator may delete. Loop thread only. */
#ifndef HEALTH_CAMPAIGN_H
#define HEALTH_CAMPAIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tandem/redis.h"
#include "tandem/settings.h"

/* Of a campaign that names none (submission.proto: 0). */
enum { CAMPAIGN_CEILING_PER_10000 = 500 };

struct campaigns;

struct campaigns_ops {
    /** This campaign leaves this relay. Told once in the fleet: by the process whose verdict Redis took first. */
    void (*left)(void *user, size_t relay, const char *campaign_id, const char *evidence);
    /** No relay of its route is left to it here; later: one is again. */
    void (*held)(void *user, const char *campaign_id, bool held);
};

/** @return NULL: out of memory */
struct campaigns *campaigns_new(struct td_redis *redis, const struct td_settings *settings, const struct campaigns_ops *ops,
                                void *user);
void campaigns_free(struct campaigns *campaigns);
/** @param ceiling_per_10000  0: the default */
bool campaigns_fit(struct campaigns *campaigns, size_t relay, const char *campaign_id, uint32_t ceiling_per_10000);
/** Whether it has relays left that may take it; once this has changed it is told, and kept in the totals' field `held`. */
void campaigns_hold(struct campaigns *campaigns, const char *campaign_id, bool held);
/** How long it has been held here, ms; 0: it is not. */
uint64_t campaigns_held_ms(const struct campaigns *campaigns, const char *campaign_id);
/** Call a few times a second: looks totals up again, forgets campaigns nobody asks for. */
void campaigns_tick(struct campaigns *campaigns);

/** The sizes at which a rate is tested: 100, 200, 400, 800, then every 1,000. Looking at every mail would call a
 * good list bad sooner or later. @return the largest one <= accepted, 0 below 100. Pure. */
uint64_t campaign_test_size(uint64_t accepted);

#endif /* HEALTH_CAMPAIGN_H */
