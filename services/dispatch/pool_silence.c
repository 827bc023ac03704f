/* pool_silence.c - a relay that hangs without closing: packets dropped on the way, a stopped process, a frozen
 * disk.
 *
 * Nothing comes from it, but neither does anything from a slow one. So, when all that wait for it (be it one
 * connection) have heard nothing for twice as long as a final reply takes (its mean and four deviations, as TCP waits:
 * RFC 6298), at least 300 ms, it is asked: a probe connects. Not one octet within the time that a connection takes to be
 * secured (the same way), at least 250 ms, and the relay is silent. Anything at all, on any connection, and it is only slow:
 * then the patience is twice as long, until it is quick again. Where TLS is answered by something else in front of the
 * relay, the probe hears that and then nothing; such a relay is silent when at least three connections (or all, where
 * fewer are allowed) wait and heard nothing for five times a final reply, at least 1.3 s. When the probe is greeted and so
 * many still hear nothing for so long, it is their connections that are gone (a firewall or a balancer has forgotten them):
 * those that are not behind their final dot are given up. silence.c decides.
 *
 * Then all that provably was not taken goes elsewhere at once: handshakes, and mails whose final dot is not out.
 * Where the dot is out the reply is waited for as before (final_timeout), but such a connection no longer counts.
 *
 * It may be our own way to the relay that is cut, and others are served. So this process leaves it by itself, at once:
 * the pool takes nothing until something is heard again, and probes. Whether all leave it is the script's to say, which
 * hears how long it has been silent (pool_silent_ms) and what the others have. When it has said so, for the silence that
 * another one met, those whose patience is at an end need no answer of their own probe. */
#include "pool_int.h"
#include "tandem/clock.h"

enum {
    TICK_MS = 25,
    PROBE_GIVE_UP_MS = BACKOFF_MAX_MS, /* of a probe to a silent relay; the next one is a new connection */
};

static size_t waiting_for_relay(const struct pool *pool)
{
    size_t count = 0;

    for (const struct member *member = pool->members; member; member = member->next)
        count += (member->state == MEMBER_READY && member->jobs > 0) ||
                 (member->state == MEMBER_OPENING && connection_stage(member->conn) != CONNECTION_RESOLVING);
    return count;
}

static void leave(struct pool *pool)
{
    for (struct member *member = pool->members, *next; member; member = next) {
        next = member->next;
        if (member->state == MEMBER_OPENING)
            member_drop(member);
        else if (member->state == MEMBER_READY && member->jobs > 0)
            member_silent(member);
    }
    pool_give_back(pool);
}

/* Mails whose final dot is out wait on: a slow relay has them. */
static void give_up_stale(struct pool *pool)
{
    size_t given_up = 0;

    for (struct member *member = pool->members, *next; member; member = next) {
        next = member->next;
        if (member->state != MEMBER_READY || member->jobs == 0 || connection_final_out(member->conn))
            continue;
        given_up++;
        member_silent(member);
    }
    if (given_up > 0)
        pool_event(pool, RELAY_RESET, "connections without a reply, a new one was greeted");
}

static void gone(struct pool *pool, uint64_t deaf_us)
{
    pool_probe_drop(pool);
    pool->silent_since_ms = td_mono_ms() - deaf_us / 1000;
    pool_back_off(pool);
    leave(pool);
    pool_event(pool, RELAY_SILENT, "no reply to anyone, nor to a probe");
}

static void heard_again(struct pool *pool)
{
    if (pool->silent_since_ms == 0)
        return;
    pool->silent_since_ms = 0;
    pool->backoff_ms = pool->backoff_until_ms = 0;
    pool_dirty(pool);
    pool_event(pool, RELAY_UP, "");
}

static enum silence_probe probe_of(const struct pool *pool)
{
    if (!pool->probe.conn)
        return PROBE_NONE;
    switch (connection_stage(pool->probe.conn)) {
    case CONNECTION_RESOLVING:
        break;
    case CONNECTION_REACHING:
        return PROBE_REACHING;
    case CONNECTION_SECURED:
        return PROBE_SECURED;
    case CONNECTION_GREETED:
        return PROBE_GREETED;
    }
    return PROBE_NONE;
}

/* It was left: probe it until it says something. */
static void seek(struct pool *pool)
{
    uint64_t heard_us = connector_heard_us(pool->connector), now_ms = td_mono_ms();

    if (heard_us != pool->silence.heard_us || probe_of(pool) == PROBE_GREETED) {
        heard_again(pool); /* the latter, or the reply to a mail's dot at last */
    } else if (!pool->probe.conn && now_ms >= pool->backoff_until_ms) {
        pool_probe_own(pool);
        pool_back_off(pool);
        pool->probe_until_ms = now_ms + PROBE_GIVE_UP_MS;
    } else if (now_ms >= pool->probe_until_ms) {
        pool_probe_drop(pool);
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct pool *pool = timer->data;
    struct silence_view view = {.now_us = td_mono_us(),
                                .heard_us = connector_heard_us(pool->connector),
                                .waiting = waiting_for_relay(pool),
                                .most = pool_cap(pool),
                                .probe = probe_of(pool),
                                .others = pool->others_silent};
    uint64_t deaf_us = pool->silence.deaf_us;

    if (pool->stopping)
        return;
    if (pool->silent_since_ms > 0) {
        seek(pool);
        return;
    }
    switch (silence_look(&pool->silence, &view)) {
    case SILENCE_NONE:
        break;
    case SILENCE_ASK: /* anew: what an older one was told says nothing about now */
        pool_probe_drop(pool);
        pool_probe_own(pool);
        break;
    case SILENCE_STALE:
        give_up_stale(pool);
        break;
    case SILENCE_GONE:
        gone(pool, deaf_us);
        break;
    }
}

void pool_silence_probed(struct pool *pool, enum relay_event what, const char *detail)
{
    bool asked = pool->silence.asked, own = !pool->probe.cb;

    silence_answered(&pool->silence);
    if (what == RELAY_UP)
        heard_again(pool);
    else if (asked && own && what != RELAY_TOO_MANY) /* which is because it was one more than the pool may have */
        pool_event(pool, what, detail);
}

void pool_silence_start(struct pool *pool)
{
    pool->silence.looked_us = td_mono_us();
    uv_timer_init(pool->loop, &pool->silence_timer);
    pool->silence_timer.data = pool;
    uv_timer_start(&pool->silence_timer, on_tick, TICK_MS, TICK_MS);
}

void pool_others_silent(struct pool *pool, bool others)
{
    pool->others_silent = others;
}

uint64_t pool_silent_ms(const struct pool *pool)
{
    return pool->silent_since_ms > 0 ? td_mono_ms() - pool->silent_since_ms : 0;
}
