#include "held.h"

#include <stdio.h>
#include <string.h>

#include "tandem/id.h"

enum { ASK_MS = 1000, BELIEVED_MS = 5000, LET_MS = 30000 };

bool held_ask(struct held *held, struct td_redis *redis, const char *campaign_id, uint64_t now_ms, td_redis_cb *cb, void *user)
{
    char key[TD_CAMPAIGN_ID_MAX + 32];

    if (held->asking || (held->asked_ms && now_ms - held->asked_ms < ASK_MS))
        return false;
    held->asked_ms = now_ms;
    snprintf(key, sizeof(key), "td:{c:%s}:totals", campaign_id);
    held->asking = td_redis_answers(td_redis_command(
        redis, (struct td_arg[]){TD_ARG_STR("HEXISTS"), TD_ARG_STR(key), TD_ARG_STR("held")}, 3, cb, user));
    return held->asking;
}

void held_answer(struct held *held, const struct td_reply *reply, const struct td_err *err, uint64_t now_ms)
{
    bool is = td_reply_int(reply) == 1;

    held->asking = false;
    if (err)
        return;
    if (is && !held->is)
        held->let_ms = now_ms;
    held->is = is;
    held->heard_ms = now_ms;
}

bool held_may_render(struct held *held, uint64_t now_ms)
{
    if (!held->is || now_ms - held->heard_ms > BELIEVED_MS)
        return true;
    if (now_ms - held->let_ms < LET_MS)
        return false;
    held->let_ms = now_ms;
    return true;
}
