/* pool_silence.c - a relay that hangs without closing: packets dropped on the way, a stopped process, a frozen
 * disk.
 *
 * Nothing tells it apart from a slow relay but that everybody waits. So the relay is called silent when at least
 * three connections (or all, where fewer are allowed) wait for it and not one octet came for five times as long as
 * a final reply takes (its mean and four deviations, as TCP waits: RFC 6298), at least 1.3 s. One slow mail, or
 * few mails at all, never make it silent: they have their own timeouts.
 *
 * Then all that provably was not taken goes elsewhere at once: handshakes, and mails whose final dot is not out.
 * Where the dot is out the reply is waited for as before (final_timeout), but such a connection no longer counts:
 * when the relay is well again, new ones take its place. */
#include "pool_int.h"
#include "tandem/clock.h"

enum {
    TICK_MS = 100,
    WAITING_MIN = 3,
    TIMES = 5,
    UNKNOWN_US = 5 * 1000 * 1000, /* before the first final reply */
    /* The script asks for a second in which nobody was served, reports of which come 250 ms late. */
    LEAST_US = 1300 * 1000,
};

static size_t waiting_for_relay(const struct pool *pool)
{
    size_t count = pool->opening;

    for (const struct member *member = pool->members; member; member = member->next)
        count += member->state == MEMBER_READY && member->jobs > 0;
    return count;
}

static uint64_t patience_us(const struct pool *pool)
{
    uint64_t us = (pool->final_mean_us + 4 * pool->final_deviation_us) * TIMES;

    if (pool->final_mean_us == 0)
        return UNKNOWN_US;
    return us < LEAST_US ? LEAST_US : us;
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

static void on_tick(uv_timer_t *timer)
{
    struct pool *pool = timer->data;
    uint64_t now_us = td_mono_us(), heard_us = connector_heard_us(pool->connector);
    bool slept = now_us - pool->silence_tick_us > 3 * TICK_MS * UINT64_C(1000);
    size_t enough = pool_cap(pool) < WAITING_MIN ? pool_cap(pool) : WAITING_MIN;

    pool->silence_tick_us = now_us;
    /* After a sleep of our own what the relay said lies unread in the sockets. */
    if (slept || waiting_for_relay(pool) < enough) {
        pool->awaited_since_us = now_us;
        return;
    }
    if (pool->awaited_since_us > heard_us)
        heard_us = pool->awaited_since_us;
    if (now_us - heard_us < patience_us(pool))
        return;
    pool->awaited_since_us = now_us;
    pool_back_off(pool);
    leave(pool);
    pool_event(pool, RELAY_SILENT, "no reply to anyone");
}

void pool_silence_start(struct pool *pool)
{
    pool->silence_tick_us = pool->awaited_since_us = td_mono_us();
    uv_timer_init(pool->loop, &pool->silence);
    pool->silence.data = pool;
    uv_timer_start(&pool->silence, on_tick, TICK_MS, TICK_MS);
}

void pool_final_took(struct pool *pool, uint64_t final_us)
{
    uint64_t off;

    if (pool->final_mean_us == 0) {
        pool->final_mean_us = final_us + 1;
        pool->final_deviation_us = final_us / 2;
        return;
    }
    off = final_us > pool->final_mean_us ? final_us - pool->final_mean_us : pool->final_mean_us - final_us;
    pool->final_deviation_us += off / 4 - pool->final_deviation_us / 4;
    pool->final_mean_us += final_us / 8 - pool->final_mean_us / 8;
}
