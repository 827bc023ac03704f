/* health_campaign.h - the bounce trigger: does a campaign bounce more at a relay than its ceiling allows? What
 * counts is what the relay refused because the address takes no mail, and what it took and reported later. Reads the
 * ledger's totals in the background; a verdict sticks and is shared: field tripped:<relay> of the totals, which an
 * operator may delete. Loop thread only. */
#ifndef HEALTH_CAMPAIGN_H
#define HEALTH_CAMPAIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tandem/redis.h"
#include "tandem/settings.h"

/* Of a campaign that names none (submission.proto: 0). */
enum { CAMPAIGN_CEILING_PER_10000 = 500, CAMPAIGN_EVIDENCE_MAX = 160 };

/* Why a campaign is held: field `held` of the totals, for people and for rendering, which then renders next to nothing. */
#define HELD_BOUNCES "bounces" /* it has left every relay of its route: an operator must look */
#define HELD_RELAYS "relays"   /* a relay of its route has stopped bulk, the others too or it has left them: goes on by itself */

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
/** Whether it has relays left that may take it (why NULL), else HELD_...; a change is told, and kept in the totals' field `held`. */
void campaigns_hold(struct campaigns *campaigns, const char *campaign_id, const char *why);
/** A relay takes bulk again: those held for HELD_RELAYS are held no more, until their next mail says otherwise. */
void campaigns_release(struct campaigns *campaigns);
/** How long it has been held here, ms; 0: it is not. */
uint64_t campaigns_held_ms(const struct campaigns *campaigns, const char *campaign_id);
/** Call a few times a second: looks totals up again, forgets campaigns nobody asks for. */
void campaigns_tick(struct campaigns *campaigns);

/** The sizes at which a rate is tested: 100, 200, 400, 800, then every 1,000. Looking at every mail would call a
 * good list bad sooner or later. @param mails  accepted, or refused for the address's fault
 * @return the largest one <= mails, 0 below 100. Pure. */
uint64_t campaign_test_size(uint64_t mails);

#endif /* HEALTH_CAMPAIGN_H */
