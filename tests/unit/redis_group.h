/* redis_group.h - for a test program that shares one redis-server, one loop and one client among its tests. */
#ifndef REDIS_GROUP_H
#define REDIS_GROUP_H

#include "redis_server.h"

static struct redis_server server;
static uv_loop_t loop;
static struct td_redis *redis;

static int redis_group_start(void **unused)
{
    struct td_err err;

    (void)unused;
    redis_server_start(&server, NULL);
    return uv_loop_init(&loop) || td_redis_new(&loop, server.url, NULL, 2000, &redis, &err) ||
           !redis_wait_up(&loop, redis, 3000);
}

static int redis_group_end(void **unused)
{
    (void)unused;
    td_redis_free(redis);
    uv_run(&loop, UV_RUN_DEFAULT);
    redis_server_remove(&server);
    return uv_loop_close(&loop);
}

#endif /* REDIS_GROUP_H */
