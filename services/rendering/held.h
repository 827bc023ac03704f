/* held.h - does a campaign wait because no relay may take it, for bounces, its own or a relay's? Dispatch says so in field `held`
 * of the campaign's totals; what is rendered meanwhile would only go round on a retry topic. Loop thread only.
 *
 * The field is a hint, not a lock: who wrote it may be gone. So it is believed for 5 s without Redis, and every 30 s a few mails go
 * through all the same: dispatch then looks at the campaign anew, and says when it is held no longer. */
#ifndef RENDERING_HELD_H
#define RENDERING_HELD_H

#include <stdbool.h>
#include <stdint.h>

#include "tandem/redis.h"

struct held { /* all zero at first */
    bool asking, is;
    uint64_t asked_ms, heard_ms, let_ms; /* monotonic */
};

/** Ask Redis, once a second. @return true: cb will be called with user; it calls held_answer first */
bool held_ask(struct held *held, struct td_redis *redis, const char *campaign_id, uint64_t now_ms, td_redis_cb *cb, void *user);
void held_answer(struct held *held, const struct td_reply *reply, const struct td_err *err, uint64_t now_ms);
/** May a few mails be rendered now? While it is held: yes once in 30 s. */
bool held_may_render(struct held *held, uint64_t now_ms);

#endif /* RENDERING_HELD_H */
