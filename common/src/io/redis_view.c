/* redis_view.c - a link that is up only while Redis has its view of the topics (td_redis_need_view).
 *
 * The mark td:{view} is a time and a name, other after every rebuild. It has a slot of its own in a Redis Cluster
 * and is therefore not among the keys of scripts; they look at it by themselves (ledger_begin.lua), which notices
 * a FLUSHALL at once. This file notices it within a second when no script runs. */
#include "redis_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/log.h"

enum {
    LOOK_MS = 1000,
    TRIES = 2 /* the back-off does not grow while a view is built: it may be a matter of milliseconds */
};

static void missing(struct link *link)
{
    struct td_redis *redis = link->redis;

    if (!redis->view_missed)
        td_log(TD_WARN, "redis.no_view",
               "msg=\"it is new or has lost its data; ingestion rebuilds the view, until then it is away\"");
    redis->view_missed = true;
    link->tries = TRIES;
    redis_link_drop(link, TD_EIO, "its view is not whole");
}

static void on_mark(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct link *link = user;
    struct td_redis *redis = link->redis;
    const char *mark = td_reply_str(reply, NULL);

    if (redis->closing || (err && err->code != TD_EFATAL))
        return; /* dropped meanwhile */
    if (err) {
        redis_link_drop(link, TD_EIO, "GET of the view's mark refused");
    } else if (!mark[0]) {
        missing(link);
    } else if (link->state == LINK_GREETING) {
        redis->view_missed = false;
        snprintf(redis->view, sizeof(redis->view), "%s", mark);
        redis_link_up(link);
    } else if (strncmp(redis->view, mark, sizeof(redis->view) - 1) != 0) {
        redis_link_drop(link, TD_EIO, "its view was built anew");
    }
}

int redis_view_look(struct link *link)
{
    return redis_link_command(link, (struct td_arg[]){TD_ARG_STR("GET"), TD_ARG_STR("td:{view}")}, 2, on_mark,
                              link);
}

static void on_look(uv_timer_t *timer)
{
    struct link *link = timer->data;

    if (link->state == LINK_UP)
        redis_view_look(link);
}

void td_redis_need_view(struct td_redis *redis)
{
    redis->need_view = true;
    uv_timer_init(redis->loop, &redis->look);
    redis->look.data = &redis->main;
    redis->open_handles++;
    uv_timer_start(&redis->look, on_look, LOOK_MS, LOOK_MS);
}

int64_t td_redis_view_ms(const struct td_redis *redis)
{
    return strtoll(redis->view, NULL, 10);
}
