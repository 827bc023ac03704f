/* outcomes.h - the end of a mail, in this order: ledger `end`, mail.outcomes, then whoever waits (DESIGN s.5).
 * Loop thread only. While Redis is away the ledger part is kept and written back when it returns. */
#ifndef OUTCOMES_H
#define OUTCOMES_H

#include "mail.h"
#include "tandem/kafka.h"
#include "tandem/redis.h"

struct outcomes;

struct outcomes_ops {
    /** The mail's outcome is durable on mail.outcomes: its offset may be committed. The mail is the caller's again. */
    void (*durable)(void *user, struct mail *mail);
    /** The producer is broken for good. */
    void (*fatal)(void *user, const struct td_err *err);
};

int outcomes_new(uv_loop_t *loop, struct td_redis *redis, struct td_kafka_out *out, const struct outcomes_ops *ops,
                 void *user, struct outcomes **ret, struct td_err *reterr);
void outcomes_free(struct outcomes *outcomes);

/**
 * @param packed  an Outcome (malloc'd, taken); result and relay name what totals count: as in td_ended
 * @param shared  others may end it, too, as it is in doubt: it waits for the ledger's word, however long Redis is away
 */
void outcomes_end(struct outcomes *outcomes, struct mail *mail, const char *result, const char *relay, void *packed,
                  size_t packed_len, bool shared);
/** The ledger says done, but mail.outcomes may lack this record: publish it again. packed is copied. */
void outcomes_again(struct outcomes *outcomes, struct mail *mail, const void *packed, size_t packed_len);
/** Before the end: tell Redis now what would be told a moment later. */
void outcomes_tell(struct outcomes *outcomes);
/** Redis has come back. */
void outcomes_redis_up(struct outcomes *outcomes);
/** Outcomes that are not on their topic; at exit, when Kafka's producer is gone. NULL is fine. */
size_t outcomes_unsent(const struct outcomes *outcomes);
/** Ends that the ledger is still owed. */
size_t outcomes_owed(const struct outcomes *outcomes);

#endif /* OUTCOMES_H */
