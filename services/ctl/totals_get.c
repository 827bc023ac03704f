#include "totals_get.h"

#include <stdio.h>
#include <string.h>

#include "tandem/id.h"

static void on_reply(void *user, const struct td_reply *reply, const struct td_err *err)
{
    const struct totals_get *get = user;
    struct totals totals = {0};

    if (err) {
        get->fn(get->user, NULL, err);
        return;
    }
    for (size_t i = 0; i + 1 < td_reply_count(reply); i += 2) {
        const char *name = td_reply_str(td_reply_at(reply, i), NULL);
        long long value = td_reply_int(td_reply_at(reply, i + 1));

        totals_field(&totals, name, value > 0 ? (uint64_t)value : 0);
        totals_text(&totals, name, td_reply_str(td_reply_at(reply, i + 1), NULL));
    }
    get->fn(get->user, &totals, NULL);
}

void totals_get(struct td_redis *redis, const char *campaign_id, struct totals_get *get)
{
    char key[TD_CAMPAIGN_ID_MAX + 24];
    struct td_err err = {TD_ENOMEM, "no memory for a question to Redis"};

    snprintf(key, sizeof(key), "td:{c:%s}:totals", campaign_id);
    const struct td_arg args[] = {TD_ARG_STR("HGETALL"), TD_ARG_STR(key)};
    if (td_redis_command(redis, args, 2, on_reply, get) == TD_ENOMEM)
        get->fn(get->user, NULL, &err);
}
