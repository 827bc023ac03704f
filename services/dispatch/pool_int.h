/* pool_int.h - the inside of a pool, shared by pool.c (what is done when), pool_member.c (one connection of it)
 * and pool_probe.c. */
#ifndef POOL_INT_H
#define POOL_INT_H

#include "connection.h"
#include "pool.h"
#include "silence.h"

#define HANDSHAKES_MAX 8
#define BACKOFF_FIRST_MS 100
#define BACKOFF_MAX_MS 5000
#define LIMIT_RISE_MS (60 * 1000)

enum member_state { MEMBER_GONE = 0, MEMBER_OPENING, MEMBER_READY, MEMBER_QUITTING, MEMBER_STUCK };

struct member {
    struct pool *pool;
    struct connection *conn;
    enum member_state state;
    size_t slots; /* mails at once */
    size_t jobs;
    bool in_idle;
    bool told_reset;
    struct member *prev, *next;           /* all members */
    struct member *idle_prev, *idle_next; /* idle stack */
};

struct job_list {
    struct mail_job *first, *last;
    size_t count;
};

struct probe {
    struct connection *conn; /* NULL: none under way */
    /* NULL: the pool's own */
    void (*cb)(void *user, enum relay_event event, const char *detail);
    void *user;
    enum { PROBE_CONNECTING, PROBE_NOOP, PROBE_QUIT } stage;
};

struct pool {
    uv_loop_t *loop;
    const struct td_relay_settings *relay;
    const struct pool_ops *ops;
    void *user;
    struct connector *connector;
    struct member *members;
    struct member *idle; /* top of the stack */
    size_t opening, ready, quitting, idle_count;
    size_t slots; /* of all ready members */
    size_t in_flight;
    size_t warm;                                /* connections to be opened for mails to come */
    size_t stuck;                               /* mails on connections gone silent after their final dot */
    struct silence silence;
    bool others_silent;
    uint64_t silent_since_ms; /* 0: it is not silent */
    uint64_t probe_until_ms;  /* while it is: then our own probe is given up */
    struct job_list waiting;  /* for any connection */
    struct job_list retrying; /* for a fresh connection */
    struct job_list returned; /* to be given back as not taken */
    size_t limit;             /* now; rises again up to relay->max_connections */
    uint64_t limit_rise_ms;   /* 0 = at the top */
    uint64_t backoff_ms, backoff_until_ms;
    bool dirty;
    bool had_room;
    bool stopping;
    void (*stopped)(void *user);
    void *stopped_user;
    struct probe probe;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t awake; /* runs while dirty: the loop must not sleep on it */
    uv_timer_t timer;
    uv_timer_t silence_timer;
    int handles;
    struct td_metric *connections_gauge;
    struct td_metric *handshakes[RELAY_EVENT_COUNT];
    struct td_metric *attempts[ATTEMPT_INVALID + 1];
    struct td_metric *final_seconds;
    struct td_metric *retries;
    struct td_metric *resumed;
};

/* pool.c */
void pool_dirty(struct pool *pool); /* something has changed: pump will look */
size_t pool_cap(const struct pool *pool);
size_t pool_may_open(const struct pool *pool);
/** Jobs wait for a fresh connection and none will come soon: any may have them. */
bool pool_retry_anywhere(const struct pool *pool);
void pool_back_off(struct pool *pool);
void pool_give_back_excess(struct pool *pool);
void pool_job_append(struct job_list *list, struct mail_job *job);
struct mail_job *pool_job_shift(struct job_list *list);
void pool_job_done(struct pool *pool, struct mail_job *job, const struct attempt_result *result);
void pool_event(struct pool *pool, enum relay_event what, const char *detail);

/* pool_silence.c */
void pool_silence_start(struct pool *pool);
/** A probe is over, of whoever's. */
void pool_silence_probed(struct pool *pool, enum relay_event what, const char *detail);

/* pool_probe.c */
/** Probe for the pool itself, unless a probe is under way: pool_silence_probed. */
void pool_probe_own(struct pool *pool);
/** End such a probe without a word. Not from inside its callbacks. */
void pool_probe_drop(struct pool *pool);

/* pool_member.c */
bool member_open(struct pool *pool);
/** Take it off the stack of idle ones and let it pull a job. */
void member_run(struct member *member);
void member_quit(struct member *member);
/** It has mails and the relay says nothing: what was not taken goes back; else it only waits on, and counts no
 * more. */
void member_silent(struct member *member);
/** Drop it without a word. */
void member_drop(struct member *member);
bool member_worn_out(const struct member *member);
/** "timeout", "connection lost" and so on. */
const char *member_end_detail(enum smtp_end end);

#endif /* POOL_INT_H */
