/* view.h - rebuilds what Redis holds when it is new or has lost everything. Loop thread only.
 *
 * All ingestion processes look; a lease gives the work to one. It reads mail.suppressions, mail.recipients and
 * mail.outcomes from their beginnings, merges what they say into Redis (ledger_restore.lua) and sets the mark
 * td:{view}, without which Redis counts as away for everybody (td_redis_need_view). */
#ifndef INGESTION_VIEW_H
#define INGESTION_VIEW_H

#include "campaigns.h"
#include "tandem/app.h"
#include "tandem/kafka.h"

struct view;

/** contents and campaigns are borrowed: whose counts are sealed. @return TD_OK, or what td_redis_new returns */
int view_new(struct td_app *app, const struct td_kafka_table *contents, const struct campaigns *campaigns,
             struct view **ret, struct td_err *reterr);
void view_free(struct view *view); /* NULL is fine */

#endif /* INGESTION_VIEW_H */
