/* tandem/redis.h - Redis on the loop: pipelined commands with a deadline, reconnect with back-off, scripts,
 * pub/sub. Loop thread only. While the server is away every call fails at once with TD_EIO: callers have a mode
 * without it. */
#ifndef TD_REDIS_H
#define TD_REDIS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "tandem/err.h"

#define TD_REDIS_PENDING_MAX 100000 /* commands without an answer; more: TD_EAGAIN */
#define TD_REDIS_KEYS_MAX 16        /* of one script */
#define TD_REDIS_LISTENERS_MAX 16
#define TD_REDIS_CHANNELS_MAX 16

struct td_redis;
struct td_reply; /* a reply inside its callback */

enum td_reply_type { TD_REPLY_NIL, TD_REPLY_INT, TD_REPLY_STR, TD_REPLY_ARRAY };

enum td_reply_type td_reply_type(const struct td_reply *reply);
long long td_reply_int(const struct td_reply *reply); /* also of a string of digits; else 0 */
const char *td_reply_str(const struct td_reply *reply,
                         size_t *ret_len); /* "" when it is none; ret_len may be NULL */
size_t td_reply_count(const struct td_reply *reply);
const struct td_reply *td_reply_at(const struct td_reply *reply, size_t i); /* NULL past the end */

/**
 * @param reply  valid during the call; NULL on failure
 * @param err    NULL on success. TD_EIO: not sent or connection lost (it may have been carried out);
 *               TD_ETIMEOUT: no answer in time (the connection is dropped, since a late reply would answer the
 * next command); TD_EFATAL: the server answered an error. READONLY, LOADING, MASTERDOWN, OOM and MISCONF count as
 * "away" (TD_EIO).
 */
typedef void td_redis_cb(void *user, const struct td_reply *reply, const struct td_err *err);

struct td_arg {
    const void *data;
    size_t len;
};
#define TD_ARG_STR(s) ((struct td_arg){(s), strlen(s)})

struct td_script {
    const char *name;
    const char *source;
};
/* Embedded from common/lua/<name>.lua at build time, as `td_script_<name>`. */

/**
 * Starts to connect; says so by td_redis_on_state. A host with several addresses is tried at each in turn.
 * @param url       redis://[[user]:password@]host[:port][/db]; rediss:// is TLS 1.2 or later, certificate and name
 * verified against the system's authorities (or $SSL_CERT_FILE)
 * @param password  when the URL has none; NULL or "" = none
 * @param timeout_ms  for each command, 1..60000
 * @return TD_OK, TD_ECONFIG (the text says what is wrong with the URL) or TD_ENOMEM
 */
int td_redis_new(uv_loop_t *loop, const char *url, const char *password, unsigned timeout_ms,
                 struct td_redis **ret, struct td_err *reterr);
/** Pending callbacks are called with TD_EIO before this returns; handles close in the loop's next turn. NULL is
 * fine. Safe inside callbacks. */
void td_redis_free(struct td_redis *redis);

bool td_redis_up(const struct td_redis *redis);
/**
 * From now on Redis counts as up only while its view of the topics is whole: the key td:{view}, which ingestion
 * sets when it has rebuilt the view, is looked at when the link comes up and once a second, and the ledger's
 * scripts refuse without it. A Redis that is new or has lost its data is therefore away, until it is not. Call it
 * once, right after td_redis_new.
 */
void td_redis_need_view(struct td_redis *redis);
/** With td_redis_need_view: when the view was built that the link last came up with, Unix ms; 0: nothing was
 * before it. */
int64_t td_redis_view_ms(const struct td_redis *redis);
/** Called at every change of up/down, and once soon after this call with the state then. run_id: the server's, ""
 * when down; a new one means that it may have lost everything. Up to TD_REDIS_LISTENERS_MAX listeners. */
void td_redis_on_state(struct td_redis *redis, void (*cb)(void *user, bool up, const char *run_id), void *user);

/**
 * @param cb  may be NULL. Arguments are copied. Failure is told by cb (soon, never inside) as well as returned;
 * only after TD_ENOMEM there is no callback.
 * @return TD_OK, TD_EIO (away), TD_EAGAIN (TD_REDIS_PENDING_MAX or 64 MiB wait) or TD_ENOMEM
 */
int td_redis_command(struct td_redis *redis, const struct td_arg *args, size_t count, td_redis_cb *cb, void *user);
/** Will the callback of a call (also those of ledger.h) that returned rc be called? */
static inline bool td_redis_answers(int rc)
{
    return rc != TD_EINVAL && rc != TD_ENOMEM;
}
/** EVALSHA (EVAL when this connection has not seen it); on NOSCRIPT once more with EVAL, which then runs after
 * commands sent meanwhile. Keys first, then args. */
int td_redis_eval(struct td_redis *redis, const struct td_script *script, const struct td_arg *keys,
                  size_t key_count, const struct td_arg *args, size_t arg_count, td_redis_cb *cb, void *user);
/** Messages of a channel (own connection, subscribed again after each reconnect). */
int td_redis_subscribe(struct td_redis *redis, const char *channel,
                       void (*cb)(void *user, const char *message, size_t len), void *user);
/** Whoever goes away before redis: no listener, message or command callback with this user is called any more. */
void td_redis_forget(struct td_redis *redis, const void *user);

#endif /* TD_REDIS_H */
