/* redis_link.c - a link to Redis: connect, greet, write, match replies with commands, drop, try again.
 *
 * Two links: `main` carries commands, `sub` only messages (RESP2 cannot mix them). A link goes
 *
 *   WAITING --back-off over--> OPENING --connected--> GREETING --AUTH, SELECT, INFO (and the view's mark)
 * answered--> UP
 *      ^------------------------- anything goes wrong: link_drop, which alone goes back -----------+
 *
 * A connection on which anything went wrong is never used again: a late reply would answer the next command.
 * Replies come in the order of commands, all with the same timeout, so the queue of commands is also the queue of
 * deadlines. Bytes are gathered and written once a turn of the loop, which makes pipelining the normal case. */
#include "redis_int.h"

#include <stdlib.h>
#include <string.h>

#include "redis_reply.h"
#include "tandem/backoff.h"
#include "tandem/clock.h"
#include "tandem/log.h"
#include "tandem/stages.h"

#define OPEN_TIMEOUT_MS 2000 /* resolve, connect, TLS, greeting together */
#define BACKOFF_BASE_MS 50
#define BACKOFF_CAP_MS 2000
#define JITTER_PERCENT 20
#define OUT_MAX_BYTES (64u << 20)
#define SUB_PING_MS 5000 /* a silent sub link is asked, and dropped after as long again without an answer */

/* ---- queues ---- */

void redis_queue_init(struct queue *queue)
{
    queue->head = NULL;
    queue->tail = &queue->head;
    queue->count = 0;
}

static void queue_push(struct queue *queue, struct command *command)
{
    command->next = NULL;
    *queue->tail = command;
    queue->tail = &command->next;
    queue->count++;
}

struct command *redis_queue_pop(struct queue *queue)
{
    struct command *command = queue->head;

    if (!command)
        return NULL;
    queue->head = command->next;
    if (!queue->head)
        queue->tail = &queue->head;
    queue->count--;
    return command;
}

/* Tell the caller and drop the command. Callbacks may do anything, td_redis_free included: its memory stays until
 * libuv has closed its handles in a later turn. */
static void command_done(struct command *command, const struct td_reply *reply, const struct td_err *err)
{
    if (command->cb)
        command->cb(command->user, err ? NULL : reply, err);
    free(command->retry);
    free(command);
}

void redis_command_fail(struct command *command, enum td_code code, const char *why)
{
    struct td_err err;

    td_fail(&err, code, "redis: %s", why);
    command_done(command, NULL, &err);
}

/* ---- links ---- */

void redis_need_soon(struct td_redis *redis)
{
    if (!redis->closing)
        uv_idle_start(&redis->soon, redis_soon);
}

static void tell_listeners(struct td_redis *redis)
{
    for (size_t i = 0; i < TD_REDIS_LISTENERS_MAX && !redis->closing; i++) {
        struct listener *listener = &redis->listener[i];

        if (listener->cb) {
            listener->told = true;
            listener->cb(listener->user, td_redis_up(redis), td_redis_up(redis) ? redis->run_id : "");
        }
    }
}

static void on_timer(uv_timer_t *timer);

static void link_wait(struct link *link)
{
    uint64_t ms = td_backoff_ms(link->tries, BACKOFF_BASE_MS, BACKOFF_CAP_MS);

    link->state = LINK_WAITING;
    uv_timer_start(&link->timer, on_timer,
                   td_jitter_ms(ms, JITTER_PERCENT, (uint32_t)td_rng_next(&link->redis->rng)), 0);
}

void redis_fail_soon(struct td_redis *redis, struct command *command, enum td_code code, const char *why)
{
    command->code = code;
    command->why = why;
    queue_push(&redis->failed, command);
    redis_need_soon(redis);
}

/* why: static, as all of libuv's and OpenSSL's are too. */
void redis_link_drop(struct link *link, enum td_code code, const char *why)
{
    struct td_redis *redis = link->redis;
    bool was_up = link->state == LINK_UP;
    struct command *command;

    redis_conn_close(link->conn);
    link->conn = NULL;
    td_buf_clear(&link->out);
    if (link->tries < 1000)
        link->tries++;
    if (link == &redis->main && link->tries == 1)
        td_log(TD_WARN, "redis.down", "why=\"%s\"", why);
    while ((command = redis_queue_pop(&link->sent)))
        redis_fail_soon(redis, command, code, why);
    if (redis->closing)
        return;
    link_wait(link);
    if (was_up && link == &redis->main)
        tell_listeners(redis);
}

static void on_conn_closed(void *user, const char *why)
{
    struct link *link = user;

    link->conn = NULL;
    redis_link_drop(link, TD_EIO, why);
}

static void link_arm_deadline(struct link *link)
{
    uint64_t now = td_mono_ms();
    uint64_t due = link->sent.head->deadline_ms;

    uv_timer_start(&link->timer, on_timer, due > now ? due - now : 1, 0);
}

/* Formats one command into buf, RESP: an array of bulk strings. */
static int format(struct td_buf *buf, const struct td_arg *args, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (td_buf_printf(buf, "$%zu\r\n", args[i].len) < 0 || td_buf_add(buf, args[i].data, args[i].len) < 0 ||
            td_buf_add(buf, "\r\n", 2) < 0)
            return TD_EAGAIN;
    return TD_OK;
}

/* prefix and args as one command at the end of link->out, which stays as it was on failure. */
int redis_link_write(struct link *link, const struct td_arg *prefix, size_t prefix_count,
                     const struct td_arg *args, size_t count)
{
    enum td_stage stage = td_stage(TD_STAGE_REDIS);
    size_t before = link->out.len;
    bool fits = td_buf_printf(&link->out, "*%zu\r\n", prefix_count + count) == TD_OK &&
                format(&link->out, prefix, prefix_count) == TD_OK && format(&link->out, args, count) == TD_OK;

    td_stage(stage);
    if (fits) {
        redis_need_soon(link->redis);
        return TD_OK;
    }
    if (link->out.data)
        link->out.data[before] = '\0';
    link->out.len = before;
    return TD_EAGAIN;
}

void redis_link_sent(struct link *link, struct command *command)
{
    command->deadline_ms = td_mono_ms() + link->redis->timeout_ms;
    queue_push(&link->sent, command);
    if (link->state == LINK_UP && link->sent.count == 1 && link == &link->redis->main)
        link_arm_deadline(link);
}

int redis_link_command(struct link *link, const struct td_arg *args, size_t count, td_redis_cb *cb, void *user)
{
    struct command *command = calloc(1, sizeof(*command));

    if (!command)
        return TD_ENOMEM;
    command->cb = cb;
    command->user = user;
    if (redis_link_write(link, NULL, 0, args, count) < 0) {
        free(command);
        return TD_ENOMEM;
    }
    redis_link_sent(link, command);
    return TD_OK;
}

/* ---- greeting ---- */

void redis_link_up(struct link *link)
{
    struct td_redis *redis = link->redis;

    link->state = LINK_UP;
    link->tries = 0;
    link->heard_ms = td_mono_ms();
    if (link == &redis->main) {
        uv_timer_stop(&link->timer);
        td_log(TD_INFO, "redis.up", "run_id=%s", redis->run_id);
        tell_listeners(redis);
        return;
    }
    uv_timer_start(&link->timer, on_timer, SUB_PING_MS, 0);
    for (size_t i = 0; i < TD_REDIS_CHANNELS_MAX; i++)
        if (redis->channel[i].name) {
            struct td_arg args[] = {TD_ARG_STR("SUBSCRIBE"), TD_ARG_STR(redis->channel[i].name)};

            redis_link_write(link, NULL, 0, args, 2);
        }
}

static void on_login(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct link *link = user;

    (void)reply;
    if (err && err->code == TD_EFATAL)
        redis_link_drop(link, TD_EIO, "login or SELECT refused: check user, password and database in redis.url");
}

static void on_info(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct link *link = user;
    struct td_redis *redis = link->redis;
    char loading[8], role[16];

    if (link->state != LINK_GREETING || (err && err->code != TD_EFATAL))
        return; /* dropped meanwhile */
    if (err) {
        redis_link_drop(link, TD_EIO, "INFO refused");
        return;
    }
    redis_info_field(td_reply_str(reply, NULL), "loading", loading, sizeof(loading));
    redis_info_field(td_reply_str(reply, NULL), "role", role, sizeof(role));
    if (loading[0] == '1') {
        redis_link_drop(link, TD_EIO, "it is still loading its data");
        return;
    }
    if (strcmp(role, "slave") == 0) {
        redis_link_drop(link, TD_EIO, "it is a replica");
        return;
    }
    redis_info_field(td_reply_str(reply, NULL), "run_id", redis->run_id, sizeof(redis->run_id));
    if (!redis->run_id[0]) {
        redis_link_drop(link, TD_EIO, "it is no Redis");
        return;
    }
    if (link != &redis->main || !redis->need_view)
        redis_link_up(link);
    else if (redis_view_look(link) != TD_OK)
        redis_link_drop(link, TD_EIO, "out of memory");
}

static void on_conn_opened(void *user)
{
    struct link *link = user;
    const struct redis_target *target = &link->redis->target;
    struct td_arg login[3] = {TD_ARG_STR("AUTH")};
    struct td_arg choose[] = {TD_ARG_STR("SELECT"), TD_ARG_STR(target->db)};
    struct td_arg info[] = {TD_ARG_STR("INFO")};
    size_t n = 1;
    int rc = TD_OK;

    link->state = LINK_GREETING;
    for (size_t i = 0; i < SCRIPTS_MAX && link == &link->redis->main; i++)
        link->redis->script[i].sent = false;
    if (target->user[0])
        login[n++] = TD_ARG_STR(target->user);
    login[n++] = TD_ARG_STR(target->password);
    if (target->password[0])
        rc = redis_link_command(link, login, n, on_login, link);
    if (rc == TD_OK && target->db[0])
        rc = redis_link_command(link, choose, 2, on_login, link);
    if (rc == TD_OK)
        rc = redis_link_command(link, info, 1, on_info, link);
    if (rc != TD_OK)
        redis_link_drop(link, TD_EIO, "out of memory");
}

/* ---- what comes back ---- */

/* NOSCRIPT: what was sent is "*N $7 EVALSHA $40 <sha> rest"; the rest is sent again behind EVAL and the source. */
static bool resend_as_eval(struct link *link, struct command *command)
{
    static const char head[] = "$7\r\nEVALSHA\r\n$40\r\n";
    char *rest = memchr(command->retry, '\n', command->retry_len) + 1;
    size_t count_len = (size_t)(rest - command->retry);
    size_t before = link->out.len;

    rest += sizeof(head) - 1 + 40 + 2;
    if (td_buf_add(&link->out, command->retry, count_len) < 0 ||
        td_buf_printf(&link->out, "$4\r\nEVAL\r\n$%zu\r\n", strlen(command->script->source)) < 0 ||
        td_buf_adds(&link->out, command->script->source) < 0 || td_buf_add(&link->out, "\r\n", 2) < 0 ||
        td_buf_add(&link->out, rest, command->retry_len - (size_t)(rest - command->retry)) < 0) {
        link->out.len = before;
        return false;
    }
    free(command->retry);
    command->retry = NULL;
    redis_need_soon(link->redis);
    redis_link_sent(link, command);
    return true;
}

static void answer_error(struct link *link, struct command *command, const char *text)
{
    struct td_err err;
    bool away = redis_is_away(text);
    bool drop = redis_is_wrong_server(text);

    if (command->retry && strncmp(text, "NOSCRIPT", 8) == 0 && resend_as_eval(link, command))
        return;
    /* An error of a plain command may repeat its arguments; one of our scripts names lines only. */
    if (command->script)
        td_fail(&err, away ? TD_EIO : TD_EFATAL, "redis: script %s: %.160s", command->script->name, text);
    else
        td_fail(&err, away ? TD_EIO : TD_EFATAL, "redis: %.*s", (int)strcspn(text, " "), text);
    command_done(command, NULL, &err);
    if (drop && link->conn)
        redis_link_drop(link, TD_EIO, "the server cannot be worked with: read-only, loading, or without its data");
}

static void on_message(struct td_redis *redis, const struct td_reply *reply)
{
    const char *name = td_reply_str(td_reply_at(reply, 1), NULL);
    size_t len;
    const char *text = td_reply_str(td_reply_at(reply, 2), &len);

    if (strcmp(td_reply_str(td_reply_at(reply, 0), NULL), "message") != 0)
        return; /* "subscribe", "pong" */
    for (size_t i = 0; i < TD_REDIS_CHANNELS_MAX && !redis->closing; i++)
        if (redis->channel[i].name && redis->channel[i].cb && strcmp(redis->channel[i].name, name) == 0)
            redis->channel[i].cb(redis->channel[i].user, text, len);
}

static void on_conn_reply(void *user, const redisReply *reply)
{
    struct link *link = user;
    struct td_redis *redis = link->redis;
    struct command *command = redis_queue_pop(&link->sent);

    link->heard_ms = td_mono_ms();
    if (!command) {
        if (link == &redis->sub)
            on_message(redis, (const struct td_reply *)(const void *)reply);
        else
            redis_link_drop(link, TD_EIO, "a reply that nobody asked for");
        return;
    }
    if (reply->type == REDIS_REPLY_ERROR)
        answer_error(link, command, reply->str);
    else
        command_done(command, (const struct td_reply *)(const void *)reply, NULL);
}

static const struct redis_conn_ops conn_ops = {on_conn_opened, on_conn_reply, on_conn_closed};

/* ---- time ---- */

void redis_link_open(struct link *link)
{
    struct td_redis *redis = link->redis;
    int rc;

    link->state = LINK_OPENING;
    uv_timer_start(&link->timer, on_timer, OPEN_TIMEOUT_MS, 0);
    rc = redis_conn_open(redis->loop, &redis->target, link->attempt++, redis->tls, &conn_ops, link, &link->conn);
    if (rc < 0)
        redis_link_drop(link, TD_EIO, uv_strerror(rc));
}

static void sub_check(struct link *link)
{
    struct td_arg ping[] = {TD_ARG_STR("PING")};

    if (td_mono_ms() - link->heard_ms > 2 * SUB_PING_MS) {
        redis_link_drop(link, TD_EIO, "no sign of life");
        return;
    }
    redis_link_write(link, NULL, 0, ping, 1);
    uv_timer_start(&link->timer, on_timer, SUB_PING_MS, 0);
}

static void on_timer(uv_timer_t *timer)
{
    struct link *link = timer->data;

    if (link->state == LINK_WAITING)
        redis_link_open(link);
    else if (link->state != LINK_UP)
        redis_link_drop(link, TD_ETIMEOUT, "it did not answer in time");
    else if (link == &link->redis->sub)
        sub_check(link);
    else if (link->sent.head && link->sent.head->deadline_ms <= td_mono_ms())
        redis_link_drop(link, TD_ETIMEOUT, "no answer in time");
    else if (link->sent.head)
        link_arm_deadline(link);
}

void redis_link_flush(struct link *link)
{
    size_t len;
    char *bytes;
    int rc;

    if (link->out.len == 0 || !link->conn)
        return;
    bytes = td_buf_take(&link->out, &len);
    rc = redis_conn_write(link->conn, bytes, len);
    if (rc < 0)
        redis_link_drop(link, TD_EIO, uv_strerror(rc));
}

void redis_link_init(struct td_redis *redis, struct link *link)
{
    link->redis = redis;
    redis_queue_init(&link->sent);
    td_buf_init(&link->out, OUT_MAX_BYTES);
    uv_timer_init(redis->loop, &link->timer);
    link->timer.data = link;
    redis->open_handles++;
}
