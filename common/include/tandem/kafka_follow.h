/* tandem/kafka_follow.h - read a whole topic, or what comes from now on, without a group. For tools, and for what
 * a service does once: _new blocks. Loop thread only. */
#ifndef TD_KAFKA_FOLLOW_H
#define TD_KAFKA_FOLLOW_H

#include <stdbool.h>
#include <uv.h>

#include "tandem/err.h"
#include "tandem/kafka.h"
#include "tandem/settings.h"

struct td_kafka_follow;

struct td_kafka_follow_ops {
    /** Each record once, in order of its partition. */
    void (*on_record)(void *user, const struct td_record *rec);
    /** Once: all that was there when it began has been read. May be NULL. Never called inside _new. */
    void (*on_end)(void *user);
};

/**
 * @param from_end    true: only records written after this call returns (or shortly before)
 * @param timeout_ms  for the questions to the brokers, which are asked before it returns
 * @return TD_OK; TD_EIO or TD_ETIMEOUT: no broker answers; TD_ENOTFOUND: no such topic
 */
int td_kafka_follow_new(uv_loop_t *loop, const struct td_settings *settings, enum td_topic_id topic, bool from_end,
                        unsigned timeout_ms, const struct td_kafka_follow_ops *ops, void *user,
                        struct td_kafka_follow **ret, struct td_err *reterr);
/** Stop or restart delivery: back-pressure. What is fetched meanwhile is bounded (16 MiB). */
void td_kafka_follow_hold(struct td_kafka_follow *follow, bool hold);
/** NULL is fine; may be called from a callback. Handles close in the loop's next turn. */
void td_kafka_follow_free(struct td_kafka_follow *follow);

#endif /* TD_KAFKA_FOLLOW_H */
