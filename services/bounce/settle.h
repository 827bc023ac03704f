/* settle.h - the back of bounce: from a raw report to what it changes. Loop thread only.
 *
 * A report is under way from settle_record to done. While Redis or Kafka is away it is tried again every half
 * second; nothing is lost and nothing counts twice, since each step may be repeated. */
#ifndef SETTLE_H
#define SETTLE_H

#include "tandem/kafka.h"
#include "tandem/metrics.h"
#include "tandem/redis.h"
#include "tandem/settings.h"

struct settle;

struct settle_ops {
    /** The record at this lane and offset has had all its effects. May come from inside settle_record. */
    void (*done)(void *user, struct td_lane lane, int64_t offset);
    /** This process can go on no more (TD_EFATAL, TD_ENOMEM). */
    void (*fatal)(void *user, const struct td_err *err);
};

/** settings, metrics, redis and out must live until settle_free. */
int settle_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics,
               struct td_redis *redis, struct td_kafka_out *out, const struct settle_ops *ops, void *user,
               struct settle **ret, struct td_err *reterr);
/** After redis and out have been freed, so that no callback comes any more. NULL is fine. */
void settle_free(struct settle *settle);

/** Take a record of mail.feedback. */
void settle_record(struct settle *settle, const struct td_record *rec);
/** Reports under way. */
size_t settle_busy(const struct settle *settle);
/**
 * The lanes go away: finish what is under way, but for no longer than 10 s and without waiting for Redis to come
 * back; the next owner reads the rest again. drained is called once, maybe from inside; `done` is not called after
 * it.
 */
void settle_drain(struct settle *settle, void (*drained)(void *user));
/** Like settle_drain, but now: `done` is not called any more. */
void settle_forget(struct settle *settle);

#endif /* SETTLE_H */
