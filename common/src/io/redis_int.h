/* redis_int.h - what redis.c and redis_link.c share. Never leaves common/src/io. */
#ifndef TD_REDIS_INT_H
#define TD_REDIS_INT_H

#include "redis_conn.h"
#include "tandem/buf.h"
#include "tandem/redis.h"
#include "tandem/rng.h"

#define SCRIPTS_MAX 64

enum link_state { LINK_WAITING, LINK_OPENING, LINK_GREETING, LINK_UP };

struct command {
    struct command *next;
    td_redis_cb *cb;
    void *user;
    uint64_t deadline_ms;
    const struct td_script *script; /* NULL: a plain command */
    char *retry;                    /* EVALSHA as sent, for NOSCRIPT; owned */
    size_t retry_len;
    enum td_code code; /* why it failed, in td_redis.failed */
    const char *why;   /* static */
};

struct queue {
    struct command *head, **tail;
    size_t count;
};

struct link {
    struct td_redis *redis;
    struct redis_conn *conn;
    enum link_state state;
    unsigned tries; /* since it was last up */
    unsigned attempt;
    uv_timer_t timer; /* WAITING: open; OPENING, GREETING: give up; UP: the first deadline, or the next ping */
    struct queue sent;
    struct td_buf out;
    uint64_t heard_ms;
};

struct listener {
    void (*cb)(void *user, bool up, const char *run_id);
    void *user;
    bool told;
};

struct channel {
    char *name;
    void (*cb)(void *user, const char *message, size_t len);
    void *user;
};

struct known_script {
    const struct td_script *script;
    char sha[41];
    bool sent; /* on the present connection */
};

struct td_redis {
    uv_loop_t *loop;
    struct redis_target target;
    SSL_CTX *tls;
    unsigned timeout_ms;
    struct link main, sub;
    uv_idle_t soon; /* write what was gathered, tell failures: once, in the loop's next turn */
    struct queue failed;
    struct td_rng rng;
    char run_id[41];
    bool closing;
    bool need_view;   /* up only while the view is whole: redis_view.c */
    bool view_missed; /* its absence was logged */
    char view[64];    /* the mark as it was when the link came up */
    uv_timer_t look;  /* at the mark; open when need_view */
    unsigned open_handles;
    struct listener listener[TD_REDIS_LISTENERS_MAX];
    struct channel channel[TD_REDIS_CHANNELS_MAX];
    struct known_script script[SCRIPTS_MAX];
};

struct command *redis_queue_pop(struct queue *queue);
void redis_queue_init(struct queue *queue);

void redis_command_fail(struct command *command, enum td_code code, const char *why);
/** cb hears of it in the loop's next turn. why: static. */
void redis_fail_soon(struct td_redis *redis, struct command *command, enum td_code code, const char *why);
/** Have redis_soon called in the loop's next turn. */
void redis_need_soon(struct td_redis *redis);
void redis_soon(uv_idle_t *idle); /* in redis.c */

void redis_link_init(struct td_redis *redis, struct link *link);
void redis_link_open(struct link *link);
/** WAITING after this. why: static. */
void redis_link_drop(struct link *link, enum td_code code, const char *why);
/** prefix and args as one command at the end of link->out. @return TD_OK, or TD_EAGAIN: it is as it was */
int redis_link_write(struct link *link, const struct td_arg *prefix, size_t prefix_count,
                     const struct td_arg *args, size_t count);
/** What was written last is this command: queue it with its deadline. */
void redis_link_sent(struct link *link, struct command *command);
/** One command of the link itself, in any state from GREETING on. @return TD_OK or TD_ENOMEM, without a callback
 * then */
int redis_link_command(struct link *link, const struct td_arg *args, size_t count, td_redis_cb *cb, void *user);
/** The greeting is over. */
void redis_link_up(struct link *link);
/** Ask for the mark: the link comes up, stays up or is dropped by the answer. @return as redis_link_command */
int redis_view_look(struct link *link); /* in redis_view.c */
/** Hand what was gathered to the connection. */
void redis_link_flush(struct link *link);

#endif /* TD_REDIS_INT_H */
