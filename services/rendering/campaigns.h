/* campaigns.h - campaigns compiled and ready to render: read from mail.contents, static bytes published. Loop
 * thread only.
 *
 *   LOADING -> LOADED -> FILES -> PUBLISHING -> READY  each step asks, and is asked again a second after a failure
 *      |                   |
 *   UNKNOWN   BROKEN       no such campaign / it cannot be compiled: for good, until its content changes
 *
 * LOADED is as far as it goes until somebody wants to render it, and a paused one goes back there: many may wait, and
 * attachments are large. A new revision takes effect at once. It is compiled again only when what its mails show has changed. */
#ifndef RENDERING_CAMPAIGNS_H
#define RENDERING_CAMPAIGNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mime_compose.h"
#include "tandem/app.h"
#include "tandem/internal/v1/content.pb-c.h"
#include "tandem/kafka.h"
#include "tandem/redis.h"

enum campaign_step {
    CAMPAIGN_LOADING = 0,
    CAMPAIGN_LOADED,
    CAMPAIGN_FILES,
    CAMPAIGN_PUBLISHING,
    CAMPAIGN_READY,
    CAMPAIGN_UNKNOWN,
    CAMPAIGN_BROKEN
};

struct campaigns;
struct campaign; /* opaque */

/** @param on_change  called when a campaign took a step or its content changed */
struct campaigns *campaigns_new(struct td_app *app, struct td_kafka_out *out, void (*on_change)(void *user),
                                void *user);
/** Where it is asked whether campaigns are held. */
void campaigns_set_redis(struct campaigns *campaigns, struct td_redis *redis);
/** The table that contents are read from; made after campaigns, since its on_change feeds campaigns_changed. */
void campaigns_set_table(struct campaigns *campaigns, struct td_kafka_table *table);
void campaigns_free(struct campaigns *campaigns); /* after the table and the producer; NULL is fine */

/** Use a campaign, loading it if need be. Give it back with campaigns_release. NULL when out of memory. */
struct campaign *campaigns_use(struct campaigns *campaigns, const char *campaign_id);
void campaigns_release(struct campaigns *campaigns, struct campaign *campaign);

/** A record of mail.contents came. */
void campaigns_changed(struct campaigns *campaigns, const void *key, size_t key_len, const void *value,
                       size_t len);
/** Try again what failed; call every 200 ms or so. */
void campaigns_tick(struct campaigns *campaigns, uint64_t now_ms);

/** May a few of its mails be rendered now? Not while it is held for bounces: held.h. */
bool campaign_may_render(struct campaign *campaign, uint64_t now_ms);
/** Mails are to be rendered: go on from LOADED. */
void campaign_want(struct campaign *campaign);
/** Mails rendered in this process, as far as it remembers: what its turn is by. */
uint64_t campaign_served(const struct campaign *campaign);
void campaign_count_served(struct campaign *campaign, unsigned mails);

enum campaign_step campaign_step(const struct campaign *campaign);
/** NULL until it is loaded. Valid until the loop turns. */
const Tandem__Internal__V1__CampaignContent *campaign_content(const struct campaign *campaign);
/** NULL unless READY. Valid until the loop turns. */
const struct mime_program *campaign_program(const struct campaign *campaign);

#endif /* RENDERING_CAMPAIGNS_H */
