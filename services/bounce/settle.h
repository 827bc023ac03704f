/* settle.h - the back of bounce: from a raw report to what it changes. Loop thread only. */
#ifndef SETTLE_H
#define SETTLE_H

#include "tandem/kafka.h"
#include "tandem/metrics.h"
#include "tandem/redis.h"
#include "tandem/settings.h"

struct settle;

/** done: the record at this lane and offset has had all its effects. retry: Redis or Kafka is away, it will be tried again. */
int settle_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics, struct td_redis *redis,
               struct td_kafka_out *out, void (*done)(void *user, struct td_lane lane, int64_t offset), void *user,
               struct settle **ret, struct td_err *reterr);
void settle_free(struct settle *settle);

/** Take a record of mail.feedback. Every step may be repeated, so a record may come again. */
void settle_record(struct settle *settle, const struct td_record *rec);
size_t settle_busy(const struct settle *settle);
/** Lanes went away: what is under way ends without `done`. */
void settle_forget(struct settle *settle);

#endif /* SETTLE_H */
