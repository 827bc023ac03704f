/* pool_probe.c - connect, TLS, EHLO, AUTH, NOOP, QUIT on a connection of its own: is the relay well, without a
 * mail? Somebody asks that (pool_probe), or the pool itself because nothing comes from the relay (pool_silence.c). */
#include "pool_int.h"

static void probe_over(struct pool *pool, enum relay_event what, const char *detail)
{
    pool->probe.conn = NULL;
    pool_dirty(pool);
    pool_silence_probed(pool, what, detail);
    if (pool->probe.cb)
        pool->probe.cb(pool->probe.user, what, detail);
}

static void probe_up(void *user)
{
    struct pool *pool = user;

    took_add(&pool->silence.secure, connection_secured_us(pool->probe.conn));
    pool->probe.stage = PROBE_NOOP;
    connection_noop(pool->probe.conn);
}

static void probe_failed(void *user, enum relay_event what, const char *detail)
{
    probe_over(user, what, detail);
}

static bool probe_next(void *user, struct smtp_mail *ret)
{
    (void)user;
    (void)ret;
    return false;
}

static void probe_result(void *user, void *mail_user, const struct attempt_result *result)
{
    (void)user;
    (void)mail_user;
    (void)result;
}

static void probe_idle(void *user)
{
    struct pool *pool = user;

    pool->probe.stage = PROBE_QUIT;
    connection_quit(pool->probe.conn);
}

static void probe_ended(void *user, enum smtp_end why)
{
    struct pool *pool = user;

    if (pool->probe.stage == PROBE_QUIT)
        probe_over(pool, RELAY_UP, "");
    else
        probe_over(pool, RELAY_BANNER, member_end_detail(why));
}

static const struct connection_ops probe_ops = {
    .up = probe_up,
    .failed = probe_failed,
    .next = probe_next,
    .result = probe_result,
    .idle = probe_idle,
    .stale = probe_idle,
    .ended = probe_ended,
};

static int probe_open(struct pool *pool, void (*cb)(void *user, enum relay_event event, const char *detail), void *user)
{
    int rc;

    pool->probe.cb = cb;
    pool->probe.user = user;
    pool->probe.stage = PROBE_CONNECTING;
    rc = connection_open(pool->connector, &probe_ops, pool, &pool->probe.conn, NULL);
    if (rc == TD_OK)
        connection_set_apart(pool->probe.conn);
    return rc;
}

int pool_probe(struct pool *pool, void (*cb)(void *user, enum relay_event event, const char *detail), void *user)
{
    pool_probe_drop(pool);
    if (pool->probe.conn || pool->stopping)
        return TD_EAGAIN;
    return probe_open(pool, cb, user);
}

void pool_probe_own(struct pool *pool)
{
    if (!pool->probe.conn && !pool->stopping)
        (void)probe_open(pool, NULL, NULL); /* out of memory: it is asked again */
}

void pool_probe_drop(struct pool *pool)
{
    struct connection *conn = pool->probe.conn;

    if (!conn || pool->probe.cb)
        return;
    pool->probe.conn = NULL;
    connection_close(conn);
    pool_dirty(pool);
}
