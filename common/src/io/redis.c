/* redis.c - the calls of tandem/redis.h: commands, scripts, channels, listeners, life. */
#include "redis_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>

#include "tandem/clock.h"
#include "tandem/id.h"
#include "tandem/log.h"
#include "tandem/stages.h"

void redis_soon(uv_idle_t *idle)
{
    struct td_redis *redis = idle->data;
    size_t failures = redis->failed.count; /* those that callbacks add wait for the next turn */
    enum td_stage before = td_stage(TD_STAGE_REDIS);

    uv_idle_stop(idle);
    redis_link_flush(&redis->main);
    redis_link_flush(&redis->sub);
    for (size_t i = 0; i < TD_REDIS_LISTENERS_MAX && !redis->closing; i++)
        if (redis->listener[i].cb && !redis->listener[i].told) {
            redis->listener[i].told = true;
            redis->listener[i].cb(redis->listener[i].user, td_redis_up(redis),
                                  td_redis_up(redis) ? redis->run_id : "");
        }
    while (failures-- > 0 && redis->failed.head) {
        struct command *command = redis_queue_pop(&redis->failed);

        redis_command_fail(command, command->code, command->why);
    }
    if (redis->failed.count > 0)
        redis_need_soon(redis);
    td_stage(before);
}

/* ---- life ---- */

int td_redis_new(uv_loop_t *loop, const char *url, const char *password, unsigned timeout_ms,
                 struct td_redis **ret, struct td_err *reterr)
{
    struct td_redis *redis = calloc(1, sizeof(*redis));
    int rc;

    if (!redis)
        return td_fail(reterr, TD_ENOMEM, "redis");
    rc = redis_url_parse(&redis->target, url, reterr);
    if (rc == TD_OK && (timeout_ms < 1 || timeout_ms > 60000))
        rc = td_fail(reterr, TD_ECONFIG, "redis.timeout_ms must be 1..60000");
    if (rc == TD_OK && !redis->target.password[0] && password &&
        (size_t)snprintf(redis->target.password, sizeof(redis->target.password), "%s", password) >=
            sizeof(redis->target.password))
        rc = td_fail(reterr, TD_ECONFIG, "redis.password is longer than %zu bytes",
                     sizeof(redis->target.password) - 1);
    if (rc == TD_OK && redis->target.tls) {
        redis->tls = redis_tls_new();
        if (!redis->tls)
            rc = td_fail(reterr, TD_ECONFIG, "redis: OpenSSL cannot make a TLS context");
    }
    if (rc != TD_OK) {
        free(redis);
        return rc;
    }
    redis->loop = loop;
    redis->timeout_ms = timeout_ms;
    td_rng_seed(&redis->rng, td_mono_us() ^ (uint64_t)uv_os_getpid() << 32);
    redis_queue_init(&redis->failed);
    redis_link_init(redis, &redis->main);
    redis_link_init(redis, &redis->sub);
    uv_idle_init(loop, &redis->soon);
    redis->soon.data = redis;
    redis->open_handles++;
    redis_link_open(&redis->main);
    *ret = redis;
    return TD_OK;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct td_redis *redis = handle->type == UV_IDLE ? handle->data : ((struct link *)handle->data)->redis;

    if (--redis->open_handles > 0)
        return;
    td_buf_release(&redis->main.out);
    td_buf_release(&redis->sub.out);
    for (size_t i = 0; i < TD_REDIS_CHANNELS_MAX; i++)
        free(redis->channel[i].name);
    SSL_CTX_free(redis->tls); /* connections hold their own reference */
    free(redis);
}

void td_redis_free(struct td_redis *redis)
{
    struct command *command;

    if (!redis || redis->closing)
        return;
    redis->closing = true;
    memset(redis->listener, 0, sizeof(redis->listener));
    redis->main.state = redis->sub.state = LINK_WAITING; /* down, without telling */
    redis->main.tries = 1;
    uv_close((uv_handle_t *)&redis->main.timer, on_handle_closed);
    uv_close((uv_handle_t *)&redis->sub.timer, on_handle_closed);
    uv_close((uv_handle_t *)&redis->soon, on_handle_closed);
    if (redis->need_view)
        uv_close((uv_handle_t *)&redis->look, on_handle_closed);
    redis_link_drop(&redis->main, TD_EIO, "closed");
    redis_link_drop(&redis->sub, TD_EIO, "closed");
    while ((command = redis_queue_pop(&redis->failed)))
        redis_command_fail(command, command->code, command->why);
}

bool td_redis_up(const struct td_redis *redis)
{
    return redis->main.state == LINK_UP;
}

void td_redis_on_state(struct td_redis *redis, void (*cb)(void *user, bool up, const char *run_id), void *user)
{
    for (size_t i = 0; i < TD_REDIS_LISTENERS_MAX; i++)
        if (!redis->listener[i].cb) {
            redis->listener[i] = (struct listener){cb, user, false};
            redis_need_soon(redis);
            return;
        }
    td_log(TD_ERROR, "redis.listeners", "max=%d", TD_REDIS_LISTENERS_MAX);
}

static struct known_script *script_known(struct td_redis *redis, const struct td_script *script)
{
    unsigned char digest[20];

    for (size_t i = 0; i < SCRIPTS_MAX; i++) {
        struct known_script *known = &redis->script[i];

        if (!known->script) {
            if (EVP_Digest(script->source, strlen(script->source), digest, NULL, EVP_sha1(), NULL) != 1)
                return NULL;
            td_hex(known->sha, digest, sizeof(digest));
            known->script = script;
        }
        if (known->script == script)
            return known;
    }
    return NULL; /* always sent whole then */
}

/* prefix and args become one command of main; retry: keep a copy for NOSCRIPT. */
static int send_command(struct td_redis *redis, struct command *command, const struct td_arg *prefix,
                        size_t prefix_count, const struct td_arg *args, size_t count, bool retry)
{
    struct link *link = &redis->main;
    size_t before = link->out.len;

    if (redis->closing || link->state != LINK_UP) {
        redis_fail_soon(redis, command, TD_EIO, "away");
        return TD_EIO;
    }
    if (link->sent.count >= TD_REDIS_PENDING_MAX ||
        redis_link_write(link, prefix, prefix_count, args, count) < 0) {
        redis_fail_soon(redis, command, TD_EAGAIN, "too much waits for an answer");
        return TD_EAGAIN;
    }
    if (retry) {
        command->retry_len = link->out.len - before;
        command->retry = malloc(command->retry_len);
        if (command->retry)
            memcpy(command->retry, link->out.data + before, command->retry_len);
    }
    redis_link_sent(link, command);
    return TD_OK;
}

int td_redis_command(struct td_redis *redis, const struct td_arg *args, size_t count, td_redis_cb *cb, void *user)
{
    struct command *command = calloc(1, sizeof(*command));

    if (!command)
        return TD_ENOMEM;
    command->cb = cb;
    command->user = user;
    return send_command(redis, command, NULL, 0, args, count, false);
}

int td_redis_eval(struct td_redis *redis, const struct td_script *script, const struct td_arg *keys,
                  size_t key_count, const struct td_arg *args, size_t arg_count, td_redis_cb *cb, void *user)
{
    struct command *command = calloc(1, sizeof(*command));
    struct td_arg all[3 + TD_REDIS_KEYS_MAX];
    struct known_script *known = script_known(redis, script);
    bool by_sha = known && known->sent;
    char number[24];
    int rc;

    if (!command)
        return TD_ENOMEM;
    command->cb = cb;
    command->user = user;
    command->script = script;
    if (key_count > TD_REDIS_KEYS_MAX) {
        redis_fail_soon(redis, command, TD_EBUG, "too many keys");
        return TD_EBUG;
    }
    snprintf(number, sizeof(number), "%zu", key_count);
    all[0] = by_sha ? TD_ARG_STR("EVALSHA") : TD_ARG_STR("EVAL");
    all[1] = by_sha ? TD_ARG_STR(known->sha) : TD_ARG_STR(script->source);
    all[2] = TD_ARG_STR(number);
    for (size_t i = 0; i < key_count; i++)
        all[3 + i] = keys[i];
    rc = send_command(redis, command, all, 3 + key_count, args, arg_count, by_sha);
    if (rc == TD_OK && known)
        known->sent = true;
    return rc;
}

int td_redis_subscribe(struct td_redis *redis, const char *channel,
                       void (*cb)(void *user, const char *message, size_t len), void *user)
{
    struct td_arg args[] = {TD_ARG_STR("SUBSCRIBE"), TD_ARG_STR(channel)};

    for (size_t i = 0; i < TD_REDIS_CHANNELS_MAX; i++) {
        struct channel *at = &redis->channel[i];

        if (at->name)
            continue;
        at->name = strdup(channel);
        if (!at->name)
            return TD_ENOMEM;
        at->cb = cb;
        at->user = user;
        if (redis->sub.state == LINK_UP)
            return redis_link_write(&redis->sub, NULL, 0, args, 2);
        if (redis->sub.state == LINK_WAITING && !uv_is_active((uv_handle_t *)&redis->sub.timer))
            redis_link_open(&redis->sub);
        return TD_OK;
    }
    return TD_EAGAIN;
}

static void queue_forget(struct queue *queue, const void *user)
{
    for (struct command *command = queue->head; command; command = command->next)
        if (command->user == user)
            command->cb = NULL;
}

void td_redis_forget(struct td_redis *redis, const void *user)
{
    queue_forget(&redis->main.sent, user);
    queue_forget(&redis->failed, user);
    for (size_t i = 0; i < TD_REDIS_LISTENERS_MAX; i++)
        if (redis->listener[i].user == user)
            redis->listener[i] = (struct listener){0};
    for (size_t i = 0; i < TD_REDIS_CHANNELS_MAX; i++)
        if (redis->channel[i].name && redis->channel[i].user == user)
            redis->channel[i].cb = NULL; /* the name stays subscribed; nobody listens */
}
