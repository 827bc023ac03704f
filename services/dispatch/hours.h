/* hours.h - carries what the ledger says a campaign has at a relay in an hour (accepted, bounced hard) to that relay's own sums,
 * on which its bounce rate rests. Loop thread only.
 *
 * Two keys of Redis that may lie on two nodes cannot change together. So totals are told, not increases: the latest of each is
 * kept until Redis has taken it, and one that is lost with this process is made good by the campaign's next. */
#ifndef HOURS_H
#define HOURS_H

#include "tandem/redis.h"

struct hours;

struct hours *hours_new(struct td_redis *redis); /* NULL: out of memory */
void hours_free(struct hours *hours);            /* after redis, which ends its calls; NULL is fine */
/** What td_ledger_end answered for this campaign: its array of hours. */
void hours_note(struct hours *hours, const char *campaign_id, const struct td_reply *texts);
/** Tell what is new. Call a few times a second, and at the end. */
void hours_flush(struct hours *hours);
size_t hours_waiting(const struct hours *hours); /* not yet taken by Redis */

#endif /* HOURS_H */
