/* endings.h - recipients that end here without a mail: INVALID, EXPIRED, CANCELLED. Loop thread only.
 *
 *   (ask the ledger) -> ledger end -> mail.outcomes -> ledger published
 *
 * Each step is repeated until it succeeds; all of them may be repeated. While Redis is away endings wait, and with
 * them the offset of their chunk.
 *
 * INVALID follows from the recipient's data alone, so no other run can have rendered that mail, and nobody is
 * asked. EXPIRED and CANCELLED depend on the moment: an earlier run may have handed the mail to dispatch. So the
 * ledger is asked first (begin): done = somebody else ended it; tried = dispatch has it or had it, and it alone
 * may end it. */
#ifndef RENDERING_ENDINGS_H
#define RENDERING_ENDINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tandem/app.h"
#include "tandem/kafka.h"
#include "tandem/mail/v1/outcome.pb-c.h"
#include "tandem/redis.h"

struct ending {
    uint32_t index;
    size_t position;                          /* the caller's: where in its chunk */
    const uint8_t *hash;                      /* 16 bytes, copied; NULL: none */
    Tandem__Mail__V1__RecipientResult result; /* INVALID, EXPIRED or CANCELLED */
    const char *reason;                       /* static */
    bool ask;                                 /* ask the ledger first; the same for all of one call */
};

struct endings;

/** tried: the ledger says that dispatch has or had it; nothing was ended. */
typedef void ending_done(void *user, size_t position, bool tried);

struct endings *endings_new(struct td_app *app, struct td_redis *redis, struct td_kafka_out *out,
                            ending_done *done);
/** Callbacks are not called any more. After Redis and the producer are freed. NULL is fine. */
void endings_free(struct endings *endings);

/** End up to TD_LEDGER_BATCH recipients of a campaign. done is called once for each, later. @return TD_OK or
 * TD_ENOMEM */
int endings_add(struct endings *endings, const char *campaign_id, const struct ending *item, size_t count,
                void *user);
void endings_tick(struct endings *endings, uint64_t now_ms);
/** Recipients under way. */
size_t endings_pending(const struct endings *endings);

#endif /* RENDERING_ENDINGS_H */
