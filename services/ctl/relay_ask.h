/* relay_ask.h - one command's questions to Redis, one after the other, asked again while it is away. */
#ifndef CTL_RELAY_ASK_H
#define CTL_RELAY_ASK_H

#include "ctl.h"
#include "tandem/redis.h"

struct relay_ask {
    struct ctl *ctl;
    /** Ask the next question: td_redis_..., then relay_asked; or call relay_ask_end. Called again after a failure. */
    void (*step)(struct relay_ask *ask);
    struct td_redis *redis;
    uv_timer_t timer;
    uint64_t begun_ms;
    bool waiting, done;
    int code;
};

/** Set ctl and step; the rest zero. @return exit code */
int relay_ask_run(struct relay_ask *ask);
/** rc of td_redis_command or td_redis_eval. */
void relay_asked(struct relay_ask *ask, int rc);
/** First in each callback. @return false when it failed and step will be called again, or all is over */
bool relay_answered(struct relay_ask *ask, const struct td_err *err);
void relay_ask_end(struct relay_ask *ask, int code);

#endif /* CTL_RELAY_ASK_H */
