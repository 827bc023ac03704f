/* Redis: one server, and each process's client as redis.c and redis_link.c behave: commands in order, one deadline
 * for each, a connection on which anything went wrong is dropped and what was pending fails soon after the
 * listeners know.
 *
 * A command is carried out when it reaches the server, which its sender need not live to see, and an answer may
 * never come back. */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

enum { LISTENERS = 16, CHANNELS = 4, LATENCY_MIN_US = 100, LATENCY_MAX_US = 3000 };

struct call {
    struct call *next;
    struct td_redis *client;
    struct sim_call what;
    td_redis_cb *cb;
    void *user;
    uint64_t deadline;
    struct td_reply *reply;
    enum td_code code;
    bool carried_out, lost, mute; /* lost: never reaches the server; mute: its answer never comes */
};

struct calls {
    struct call *first, *last;
};

struct td_redis {
    struct proc *proc;
    unsigned life;
    bool up, closed;
    unsigned tries, link;            /* link: rises with every connection */
    uint64_t reaches_at, answers_at; /* both ways keep the order */
    uint64_t timeout_us;
    struct calls sent, failed;
    bool failing;
    struct listener {
        void (*cb)(void *user, bool up, const char *run_id);
        void *user;
        bool told;
    } listener[LISTENERS];
    struct {
        void (*cb)(void *user, const char *message, size_t len);
        void *user;
    } channel[CHANNELS];
    unsigned lose_replies;
};

struct td_reply {
    enum td_reply_type type;
    long long number;
    const char *str;
    size_t len;
    struct td_reply **item;
    size_t count;
};

static struct {
    bool down;
    uint64_t hangs_until, up_since;
    unsigned run;
} server;

/* ---- replies ---- */

static struct td_reply *reply_new(enum td_reply_type type)
{
    struct td_reply *reply = sim_alloc(sizeof(*reply));

    reply->type = type;
    reply->str = "";
    return reply;
}

struct td_reply *sim_reply_int(long long value)
{
    struct td_reply *reply = reply_new(TD_REPLY_INT);

    reply->number = value;
    return reply;
}

struct td_reply *sim_reply_str(const void *data, size_t len)
{
    struct td_reply *reply = reply_new(TD_REPLY_STR);

    reply->str = sim_strdup(data, len);
    reply->len = len;
    return reply;
}

struct td_reply *sim_reply_nil(void)
{
    return reply_new(TD_REPLY_NIL);
}

struct td_reply *sim_reply_array(size_t count)
{
    struct td_reply *reply = reply_new(TD_REPLY_ARRAY);

    reply->item = sim_alloc(count * sizeof(*reply->item) + 1);
    reply->count = count;
    return reply;
}

void sim_reply_set(struct td_reply *array, size_t i, struct td_reply *value)
{
    array->item[i] = value;
}

enum td_reply_type td_reply_type(const struct td_reply *reply)
{
    return reply ? reply->type : TD_REPLY_NIL;
}

long long td_reply_int(const struct td_reply *reply)
{
    if (!reply)
        return 0;
    return reply->type == TD_REPLY_STR ? strtoll(reply->str, NULL, 10) : reply->number;
}

const char *td_reply_str(const struct td_reply *reply, size_t *ret_len)
{
    if (ret_len)
        *ret_len = reply ? reply->len : 0;
    return reply ? reply->str : "";
}

size_t td_reply_count(const struct td_reply *reply)
{
    return reply ? reply->count : 0;
}

const struct td_reply *td_reply_at(const struct td_reply *reply, size_t i)
{
    return reply && i < reply->count ? reply->item[i] : NULL;
}

/* ---- lists ---- */

static void push(struct calls *calls, struct call *call)
{
    call->next = NULL;
    if (calls->last)
        calls->last->next = call;
    else
        calls->first = call;
    calls->last = call;
}

static struct call *pop(struct calls *calls)
{
    struct call *call = calls->first;

    if (!call)
        return NULL;
    calls->first = call->next;
    if (!calls->first)
        calls->last = NULL;
    return call;
}

static uint64_t latency(void)
{
    return sim_between(LATENCY_MIN_US, sim_chance(20) ? 100 * LATENCY_MAX_US : LATENCY_MAX_US);
}

/* ---- the client ---- */

static const char *run_id(const struct td_redis *client)
{
    static char text[16];

    text[0] = 'r';
    text[1] = (char)('a' + server.run % 26);
    text[2] = '\0';
    return client->up ? text : "";
}

static void tell(struct td_redis *client)
{
    for (size_t i = 0; i < LISTENERS && !client->closed; i++)
        if (client->listener[i].cb) {
            client->listener[i].told = true;
            client->listener[i].cb(client->listener[i].user, client->up, run_id(client));
        }
}

static void on_failing(void *arg, uint64_t tag)
{
    struct td_redis *client = arg;
    struct calls calls = client->failed;
    struct call *call;

    (void)tag;
    client->failed = (struct calls){NULL, NULL};
    client->failing = false;
    for (size_t i = 0; i < LISTENERS && !client->closed; i++)
        if (client->listener[i].cb && !client->listener[i].told) {
            client->listener[i].told = true;
            client->listener[i].cb(client->listener[i].user, client->up, run_id(client));
        }
    while ((call = pop(&calls)))
        if (call->cb)
            call->cb(call->user, NULL, &(struct td_err){call->code, "redis: simulated"});
}

static void soon(struct td_redis *client)
{
    if (client->failing || client->closed)
        return;
    client->failing = true;
    sim_at(sim.now, client->proc, on_failing, client, 0);
}

static void fail_soon(struct td_redis *client, struct call *call, enum td_code code)
{
    call->code = code;
    push(&client->failed, call);
    soon(client);
}

static void on_connect(void *arg, uint64_t link);

static void wait_and_connect(struct td_redis *client)
{
    uint64_t ms = UINT64_C(50) << (client->tries < 5 ? client->tries : 5);

    client->tries++;
    sim_after(sim_between(ms * 800, ms * 1200), client->proc, on_connect, client, client->link);
}

/* What is in flight may reach the server all the same: bytes already in its socket are read after the drop. */
static void drop(struct td_redis *client, enum td_code code)
{
    bool was_up = client->up, arrives = sim_chance(500);
    struct call *call;

    if (client->closed)
        return;
    client->up = false;
    client->link++;
    client->tries = 1;
    while ((call = pop(&client->sent))) {
        if (!call->carried_out && !arrives)
            call->lost = true;
        call->mute = true;
        fail_soon(client, call, code);
    }
    wait_and_connect(client);
    if (was_up) {
        sim_trace("redis link drops: %s", code == TD_ETIMEOUT ? "no answer in time" : "closed");
        tell(client);
    }
}

static void on_greeted(void *arg, uint64_t link)
{
    struct td_redis *client = arg;

    if (client->closed || link != client->link || client->up)
        return;
    if (server.down || client->proc->redis_cut || server.hangs_until > sim.now) {
        wait_and_connect(client);
        return;
    }
    client->up = true;
    client->tries = 0;
    client->reaches_at = client->answers_at = sim.now;
    tell(client);
}

static void on_connect(void *arg, uint64_t link)
{
    struct td_redis *client = arg;

    if (!client->closed && link == client->link)
        sim_after(latency(), client->proc, on_greeted, client, link);
}

static void on_answer(void *arg, uint64_t link)
{
    struct call *call = arg;
    struct td_redis *client = call->client;

    if (client->closed || link != client->link || client->sent.first != call || call->mute)
        return;
    pop(&client->sent);
    if (call->cb)
        call->cb(call->user, call->reply, NULL);
}

static void on_deadline(void *arg, uint64_t link)
{
    struct call *call = arg;
    struct td_redis *client = call->client;

    if (!client->closed && link == client->link && client->sent.first == call)
        drop(client, TD_ETIMEOUT);
}

/* ---- the server ---- */

static void on_reached(void *arg, uint64_t link)
{
    struct call *call = arg;
    struct td_redis *client = call->client;
    uint64_t at;

    if (call->lost || server.down)
        return;
    if (server.hangs_until > sim.now) {
        sim_at(server.hangs_until, NULL, on_reached, call, link);
        return;
    }
    if (client->proc->redis_cut && client->proc->life == client->life && sim_chance(500)) {
        call->mute = true;
        return;
    }
    call->what.by = client->proc;
    call->reply = sim_script(&call->what);
    call->carried_out = true;
    if (client->lose_replies > 0) {
        client->lose_replies--;
        call->mute = true;
    }
    if (call->mute || client->proc->redis_cut || link != client->link || client->life != client->proc->life) {
        call->mute = true;
        return;
    }
    at = sim.now + latency();
    if (at < client->answers_at)
        at = client->answers_at;
    client->answers_at = at;
    sim_at(at, client->proc, on_answer, call, link);
}

static struct td_arg *copy_args(const struct td_arg *args, size_t count)
{
    struct td_arg *copy = sim_alloc(count * sizeof(*copy) + 1);

    for (size_t i = 0; i < count; i++)
        copy[i] = (struct td_arg){sim_strdup(args[i].data, args[i].len), args[i].len};
    return copy;
}

static int command(struct td_redis *client, const char *script, const struct td_arg *keys, size_t key_count,
                   const struct td_arg *args, size_t arg_count, td_redis_cb *cb, void *user)
{
    struct call *call;
    uint64_t at;

    if (!sim_effect())
        return TD_OK; /* dead: no callback will be missed */
    call = sim_alloc(sizeof(*call));
    call->client = client;
    call->cb = cb;
    call->user = user;
    if (client->closed || !client->up) {
        fail_soon(client, call, TD_EIO);
        return TD_EIO;
    }
    call->what = (struct sim_call){
        script, copy_args(keys, key_count), copy_args(args, arg_count), key_count, arg_count, NULL};
    push(&client->sent, call);
    at = sim.now + latency();
    if (at < client->reaches_at)
        at = client->reaches_at;
    client->reaches_at = at;
    sim_at(at, NULL, on_reached, call, client->link);
    sim_after(client->timeout_us, client->proc, on_deadline, call, client->link);
    return TD_OK;
}

/* ---- tandem/redis.h ---- */

int td_redis_new(uv_loop_t *loop, const char *url, const char *password, unsigned timeout_ms,
                 struct td_redis **ret, struct td_err *reterr)
{
    struct td_redis *client = sim_alloc(sizeof(*client));

    (void)url;
    (void)password;
    (void)reterr;
    client->proc = loop->data;
    client->life = client->proc->life;
    client->timeout_us = timeout_ms * MS;
    client->proc->redis = client;
    sim_after(latency(), client->proc, on_connect, client, 0);
    *ret = client;
    return TD_OK;
}

void td_redis_free(struct td_redis *client)
{
    struct call *call;

    if (!client || client->closed)
        return;
    client->closed = true;
    client->up = false;
    while ((call = pop(&client->sent))) {
        call->mute = true;
        if (call->cb)
            call->cb(call->user, NULL, &(struct td_err){TD_EIO, "redis: closed"});
    }
    while ((call = pop(&client->failed)))
        if (call->cb)
            call->cb(call->user, NULL, &(struct td_err){call->code, "redis: closed"});
}

bool td_redis_up(const struct td_redis *client)
{
    return client->up;
}

/* Nothing rebuilds the view here (sim_redis_empty says what that costs): it is whole, and nothing was before it. */
void td_redis_need_view(struct td_redis *client)
{
    (void)client;
}

int64_t td_redis_view_ms(const struct td_redis *client)
{
    (void)client;
    return 0;
}

void td_redis_on_state(struct td_redis *client, void (*cb)(void *user, bool up, const char *run_id), void *user)
{
    for (size_t i = 0; i < LISTENERS; i++)
        if (!client->listener[i].cb) {
            client->listener[i] = (struct listener){cb, user, false};
            soon(client);
            return;
        }
    abort();
}

int td_redis_command(struct td_redis *client, const struct td_arg *args, size_t count, td_redis_cb *cb, void *user)
{
    static const char *const known[] = {"HMGET", "HSETNX", "HSET", "HDEL"};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (args[0].len == strlen(known[i]) && memcmp(args[0].data, known[i], args[0].len) == 0)
            return command(client, known[i], &args[1], 1, &args[2], count - 2, cb, user);
    abort();
}

int td_redis_eval(struct td_redis *client, const struct td_script *script, const struct td_arg *keys,
                  size_t key_count, const struct td_arg *args, size_t arg_count, td_redis_cb *cb, void *user)
{
    return command(client, script->name, keys, key_count, args, arg_count, cb, user);
}

int td_redis_subscribe(struct td_redis *client, const char *channel,
                       void (*cb)(void *user, const char *message, size_t len), void *user)
{
    (void)channel;
    for (size_t i = 0; i < CHANNELS; i++)
        if (!client->channel[i].cb) {
            client->channel[i].cb = cb;
            client->channel[i].user = user;
            return TD_OK;
        }
    return TD_EAGAIN;
}

void td_redis_forget(struct td_redis *client, const void *user)
{
    for (struct call *call = client->sent.first; call; call = call->next)
        if (call->user == user)
            call->cb = NULL;
    for (struct call *call = client->failed.first; call; call = call->next)
        if (call->user == user)
            call->cb = NULL;
    for (size_t i = 0; i < LISTENERS; i++)
        if (client->listener[i].user == user)
            client->listener[i] = (struct listener){NULL, NULL, false};
    for (size_t i = 0; i < CHANNELS; i++)
        if (client->channel[i].user == user)
            client->channel[i].cb = NULL;
}

/* ---- messages ---- */

struct message {
    struct td_redis *client;
    const char *text;
};

static void on_message(void *arg, uint64_t link)
{
    struct message *message = arg;
    struct td_redis *client = message->client;

    for (size_t i = 0; i < CHANNELS && !client->closed && link == client->link; i++)
        if (client->channel[i].cb)
            client->channel[i].cb(client->channel[i].user, message->text, strlen(message->text));
}

void sim_publish(const char *text)
{
    for (size_t i = 0; i < SIM_PROCS; i++) {
        struct proc *proc = &sim.proc[i];
        struct message *message;

        if (!proc->alive || !proc->redis || !proc->redis->up || proc->redis_cut)
            continue;
        message = sim_alloc(sizeof(*message));
        message->client = proc->redis;
        message->text = sim_strdup(text, strlen(text));
        sim_after(latency(), proc, on_message, message, proc->redis->link);
    }
}

/* ---- faults ---- */

static void on_drop(void *arg, uint64_t link)
{
    struct td_redis *client = arg;

    if (link == client->link)
        drop(client, TD_EIO);
}

void sim_redis_drop(struct proc *proc)
{
    if (proc->alive && proc->redis && proc->redis->up)
        sim_at(sim.now, proc, on_drop, proc->redis, proc->redis->link);
}

void sim_redis_down(bool down)
{
    server.down = down;
    if (!down)
        server.up_since = sim.now;
    if (!down) {
        server.run++;
        return;
    }
    for (size_t i = 0; i < SIM_PROCS; i++)
        sim_redis_drop(&sim.proc[i]);
}

void sim_redis_hang(uint64_t until)
{
    server.hangs_until = until;
}

void sim_redis_lose_reply(struct proc *proc)
{
    if (proc->alive && proc->redis)
        proc->redis->lose_replies++;
}

/* What its kernel had already sent arrives, or nothing of it does. */
void sim_redis_killed(struct proc *proc)
{
    bool arrives = sim_chance(500);

    for (struct call *call = proc->redis ? proc->redis->sent.first : NULL; call; call = call->next)
        call->lost = call->lost || (!arrives && !call->carried_out);
}

uint64_t sim_redis_well_since(void)
{
    return server.up_since > server.hangs_until ? server.up_since : server.hangs_until;
}

bool sim_redis_well(void)
{
    return !server.down && server.hangs_until <= sim.now;
}

void sim_redis_reset(void)
{
    memset(&server, 0, sizeof(server));
}

void sim_redis_empty(void)
{
    sim.emptied = true;
    sim_scripts_reset();
}
