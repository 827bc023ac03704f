/* pace.c - leases future slots from pace.lua a little ahead of need and hands them out when due.
 *
 * A slot is a moment on the server's clock, told on this process's monotonic one, so dispatchers need not agree on
 * the time. What lies between the two clocks is somewhere between when a call was sent and when its reply was
 * seen; keeping the estimate that all calls so far allow, a reply that came late (a busy machine) moves no slots.
 * One that came sooner than all before shows that slots were told late: those held are moved, those used count as
 * used late.
 *
 * A slot is good for LATE_US after its moment, then it is lost: at SAFETY x quota a second has 15 ms to spare, 10 for
 * slots used late and 5 for what happens behind the socket. Between the two (a busy machine, a new connection, a
 * relay that answers MAIL late) a mail may be held up for longer, and then comes close to those of later slots. So we
 * are told when its last octet went, and one of those slots is given up for it (pace_window.c).
 *
 * Behind the socket nobody sees, and a relay is slower with the first mails after a silence (nothing in a cache) than
 * with those behind them, which then come up to them: so with the first slot that is used, and with each SPARE_EVERY-th
 * of that second, the next one is given away. */
#include "pace.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pace_window.h"
#include "tandem/clock.h"
#include "tandem/gcra.h"
#include "tandem/log.h"
#include "tandem/scripts.h"

#define SAFETY 0.985
#define SAFETY_ALONE 0.8  /* Redis away: a lane may just be changing hands; pace.lua keeps as much free */
#define MEMBERS_MAX 10000

enum {
    HORIZON_US = 250000, /* a dispatcher that dies wastes no more than this */
    LATE_US = 10000,
    SLOTS_MAX = 1024,
    RETRY_US = 50000,
    SILENT_US = 1000000, /* as long as a relay counts */
    SPARE_EVERY = 16,
    LOOK_MS = 50, QUIET_US = 200000, /* a relay nobody asks for: heard before pace.lua takes us for gone */
    HEARD_US = 600000 + HORIZON_US,  /* which it does after 0.6 s; until then, and with slots leased then, others use our part, too */
    QUOTA_US = 60000000 /* how often a used-up quota is asked about */
};

struct relay {
    struct pace *pace;
    size_t index;
    char key[3][64];
    double mails_per_s; /* 0: not paced */
    uint64_t daily_quota;
    double factor;
    uint64_t slot[SLOTS_MAX]; /* due, monotonic us, rising: a ring */
    size_t head, count;
    uint64_t last_us; /* the last slot had, used or not */
    uint32_t waiting;
    struct pace_window window;
    uint64_t used_at, first_at; /* the last slot taken; the first one after a silence */
    uint32_t used;              /* since first_at */
    bool due_wanted; /* somebody was told to wait */
    bool under_way;
    uint64_t ask_at, next_slot_at; /* no lease before; no slot expected before */
    uint32_t members;
    int64_t left;                   /* of the daily quota when last heard; -1 none known */
    uint64_t alone_sent, reporting; /* slots used while Redis was away; of those, in the call under way */
    struct td_gcra alone;
    uint64_t asked_at; /* when the call under way was sent */
    uint64_t heard_at; /* when the last answer came */
    int64_t clock_us;  /* our clock less the server's, as far as known */
    bool clock_known;
    uv_timer_t timer;
};

struct pace {
    struct td_redis *redis;
    void (*due)(void *user, size_t relay);
    void *user;
    char me[40];
    double part; /* of all lanes, those of this process */
    uv_timer_t look;
    size_t count, open_handles;
    struct relay relay[];
};

static void push(struct relay *relay, uint64_t due_us)
{
    if (relay->count == SLOTS_MAX)
        return;
    relay->slot[(relay->head + relay->count++) % SLOTS_MAX] = relay->last_us = due_us;
}

static void pop(struct relay *relay)
{
    relay->head = (relay->head + 1) % SLOTS_MAX;
    relay->count--;
}

static void lose(struct relay *relay, uint64_t now)
{
    pace_window_slot(&relay->window, relay->slot[relay->head], false, now);
    pop(relay);
}

static void drop_late(struct relay *relay, uint64_t now)
{
    while (relay->count > 0 && relay->slot[relay->head] + LATE_US < now)
        lose(relay, now);
}

static void on_timer(uv_timer_t *timer);

/* Wake up for the next slot, or to ask again: a turn that is not taken up is others'. */
static void arm(struct relay *relay, uint64_t now)
{
    uint64_t at = relay->count > 0 ? relay->slot[relay->head] : relay->ask_at;

    if (relay->ask_at > now && relay->ask_at < at && relay->waiting > relay->count)
        at = relay->ask_at;
    if (!relay->due_wanted || (relay->count == 0 && (relay->under_way || relay->waiting == 0)))
        return; /* the lease's reply, or the next call, arms it */
    uv_update_time(relay->timer.loop);
    uv_timer_start(&relay->timer, on_timer, at > now ? (at - now + 999) / 1000 : 0, 0);
}

unsigned pace_members(const struct pace *pace, size_t relay)
{
    unsigned members = pace->relay[relay].members;

    return members ? members : 1;
}

/* ---- Redis away ---- */

static void lease_alone(struct relay *relay, uint32_t want, uint64_t now)
{
    double part = relay->pace->part;
    double rate = relay->mails_per_s * SAFETY_ALONE * relay->factor * part;
    uint64_t first = now;
    uint32_t n;

    if (rate <= 0) {
        relay->ask_at = now + RETRY_US;
        return;
    }
    if (relay->left >= 0 && (double)relay->alone_sent >= SAFETY_ALONE * (double)relay->left * part) {
        relay->ask_at = relay->next_slot_at = now + QUOTA_US;
        return;
    }
    n = td_gcra_take(&relay->alone, rate, want, HORIZON_US, now, &first);
    for (uint32_t i = 0; i < n; i++)
        push(relay, first + (uint64_t)((double)i * 1e6 / rate));
    relay->alone_sent += n;
    if (n == 0) {
        relay->next_slot_at = relay->alone.tat_us;
        relay->ask_at = relay->alone.tat_us > now + HORIZON_US ? relay->alone.tat_us - HORIZON_US : now + 1000;
    }
}

/* ---- leases ---- */

static void on_lease(void *user, const struct td_reply *reply, const struct td_err *err);

static void ask(struct relay *relay, uint32_t want)
{
    char number[5][24];
    struct td_arg keys[3], args[7];
    double rate = relay->mails_per_s * SAFETY * relay->factor;

    for (size_t i = 0; i < 3; i++)
        keys[i] = TD_ARG_STR(relay->key[i]);
    relay->reporting = relay->alone_sent;
    snprintf(number[0], sizeof(number[0]), "%.4f", rate);
    snprintf(number[1], sizeof(number[1]), "%" PRIu32, want);
    snprintf(number[2], sizeof(number[2]), "%" PRIu64, relay->daily_quota);
    snprintf(number[3], sizeof(number[3]), "%" PRIu64, relay->reporting);
    snprintf(number[4], sizeof(number[4]), "%.6f", relay->pace->part);
    args[0] = TD_ARG_STR(number[0]);
    args[1] = TD_ARG_STR(number[1]);
    args[2] = TD_ARG_STR("250000"); /* HORIZON_US */
    args[3] = TD_ARG_STR(number[2]);
    args[4] = TD_ARG_STR(relay->pace->me);
    args[5] = TD_ARG_STR(number[3]);
    args[6] = TD_ARG_STR(number[4]);
    relay->asked_at = td_mono_us();
    relay->under_way =
        td_redis_eval(relay->pace->redis, &td_script_pace, keys, 3, args, 7, on_lease, relay) != TD_ENOMEM;
    if (!relay->under_way)
        relay->ask_at = td_mono_us() + RETRY_US;
}

/* How many slots to hold now; nothing is asked for before half of them are used. Were it more than this member's part of
 * the horizon, whoever asks first in each round could hold all of it, and the others would get what is left, round after round:
 * a tenth instead of a half was seen. When the others want nothing, it still gets every slot, only less far ahead. Where
 * there are fewer than two slots for each, pace.lua says whose turn it is. */
static uint32_t slots_wanted(const struct relay *relay, uint64_t now)
{
    double horizon = relay->mails_per_s * SAFETY * relay->factor * HORIZON_US / 1e6, share;
    uint64_t reach = relay->count > 0 ? relay->slot[(relay->head + relay->count - 1) % SLOTS_MAX] : now;

    if (relay->members <= 1 || horizon < 2 * relay->members) {
        if (reach > now + HORIZON_US / 2)
            return 0;
        share = ceil(horizon) + 1;
    } else {
        share = ceil(horizon / relay->members);
        if ((double)relay->count > share / 2)
            return 0;
    }
    return share > SLOTS_MAX ? SLOTS_MAX : (uint32_t)share;
}

/* Lease when few slots are left and somebody waits for more. */
static void refill(struct relay *relay, uint64_t now)
{
    uint32_t held, want, most;

    drop_late(relay, now);
    held = (uint32_t)relay->count;
    most = slots_wanted(relay, now);
    want = relay->waiting > held ? relay->waiting - held : 0;
    if (relay->under_way || now < relay->ask_at || want == 0 || most <= held)
        return;
    if (want > most - held)
        want = most - held;
    if (td_redis_up(relay->pace->redis))
        ask(relay, want);
    else
        lease_alone(relay, want, now);
}

/* What waits may be for other relays, and a slot that nobody uses is lost: only when somebody was told to wait for
 * one. */
static void refill_asked(struct relay *relay, uint64_t now)
{
    if (relay->due_wanted)
        refill(relay, now);
}

/* The replies so far came late, and slots were told late by as much: those that follow would come close to them. */
static void slots_earlier(struct relay *relay, uint64_t by_us, uint64_t now)
{
    if (by_us > HORIZON_US)
        return; /* a clock was set */
    for (size_t i = 0; i < relay->count; i++)
        relay->slot[(relay->head + i) % SLOTS_MAX] -= by_us;
    pace_window_earlier(&relay->window, by_us, now);
}

/* What this call says about the clocks: an interval. The former estimate stays when it lies within; else it was too
 * late, the clocks have drifted, or one was set, and the nearest end is taken. */
static void read_clock(struct relay *relay, long long server_us, uint64_t now)
{
    int64_t least = (int64_t)relay->asked_at - server_us, most = (int64_t)now - server_us;

    if (relay->clock_known && relay->clock_us > most)
        slots_earlier(relay, (uint64_t)(relay->clock_us - most), now);
    if (!relay->clock_known || relay->clock_us > most)
        relay->clock_us = most;
    else if (relay->clock_us < least)
        relay->clock_us = least;
    relay->clock_known = true;
}

static void take_lease(struct relay *relay, const struct td_reply *reply, uint64_t now)
{
    long long n = td_reply_int(td_reply_at(reply, 0));
    long long first = td_reply_int(td_reply_at(reply, 1));
    long long apart = td_reply_int(td_reply_at(reply, 2));
    const char *why = td_reply_str(td_reply_at(reply, 3), NULL);
    long long again = td_reply_int(td_reply_at(reply, 4));
    long long members = td_reply_int(td_reply_at(reply, 5));
    long long server_us = td_reply_int(td_reply_at(reply, 7));

    relay->members = members < 1 ? 1 : members > MEMBERS_MAX ? MEMBERS_MAX : (uint32_t)members;
    relay->left = td_reply_int(td_reply_at(reply, 6));
    relay->alone_sent -= relay->reporting;
    read_clock(relay, server_us, now);
    for (long long i = 0; i < n; i++)
        push(relay, (uint64_t)(server_us + relay->clock_us + first + i * apart));
    if (why[0] || again > 0) {
        relay->ask_at = now + (uint64_t)again;
        relay->next_slot_at = relay->ask_at + (strcmp(why, "quota") == 0 ? 0 : HORIZON_US);
    }
}

static void on_lease(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct relay *relay = user;
    uint64_t now = td_mono_us();

    relay->under_way = false;
    if (!err && td_reply_count(reply) == 8) {
        relay->heard_at = now;
        take_lease(relay, reply, now);
    } else if (td_redis_up(relay->pace->redis)) {
        relay->ask_at = now + RETRY_US;
        if (err && err->code == TD_EFATAL)
            td_log(TD_ERROR, "pace.lease", "error=\"%s\"", err->text);
    }
    relay->reporting = 0;
    refill_asked(relay, now);
    arm(relay, now);
}

static void on_timer(uv_timer_t *timer)
{
    struct relay *relay = timer->data;
    uint64_t now = td_mono_us();

    drop_late(relay, now);
    if (relay->due_wanted && relay->count > 0 && relay->slot[relay->head] <= now) {
        relay->due_wanted = false;
        relay->pace->due(relay->pace->user, relay->index);
        return;
    }
    refill(relay, now);
    arm(relay, now);
}

/* @return its slot */
static uint64_t use(struct relay *relay, uint64_t now)
{
    uint64_t slot = relay->slot[relay->head];

    pace_window_slot(&relay->window, slot, true, now);
    pop(relay);
    relay->waiting--;
    if (relay->first_at == 0 || now - relay->used_at > SILENT_US) {
        relay->first_at = now;
        relay->used = 0;
    }
    relay->used_at = now;
    if (now - relay->first_at < SILENT_US && relay->used++ % SPARE_EVERY == 0 && relay->count > 0)
        pop(relay);
    return slot;
}

/* A slot for which a mail that came late has left no room is given up. */
static bool take_due(struct relay *relay, uint64_t now, uint64_t *ret_slot_us)
{
    while (relay->count > 0 && relay->slot[relay->head] <= now) {
        if (pace_window_fits(&relay->window, now)) {
            *ret_slot_us = use(relay, now);
            return true;
        }
        lose(relay, now);
    }
    return false;
}

uint64_t pace_take(struct pace *pace, size_t index, uint64_t *ret_slot_us)
{
    struct relay *relay = &pace->relay[index];
    uint64_t now = td_mono_us();
    uint64_t at;

    *ret_slot_us = 0;
    if (!(relay->mails_per_s > 0))
        return 0;
    drop_late(relay, now);
    if (relay->waiting == 0)
        relay->waiting = 1;
    if (relay->count == 0)
        refill(relay, now);
    if (take_due(relay, now, ret_slot_us)) {
        refill(relay, now);
        return 0;
    }
    relay->due_wanted = true;
    refill(relay, now);
    arm(relay, now);
    at = relay->count > 0 ? relay->slot[relay->head] : relay->ask_at;
    return at > now ? at - now : 1000; /* a lease is under way: it takes about that long */
}

void pace_sent(struct pace *pace, size_t index, uint64_t slot_us, uint64_t now_us)
{
    if (pace->relay[index].mails_per_s > 0)
        pace_window_sent(&pace->relay[index].window, slot_us, now_us);
}

void pace_want(struct pace *pace, size_t index, uint32_t waiting)
{
    struct relay *relay = &pace->relay[index];

    relay->waiting = waiting;
    if (relay->mails_per_s > 0)
        refill_asked(relay, td_mono_us());
}

void pace_factor(struct pace *pace, size_t relay, double factor)
{
    if (factor > 0 && factor <= 1)
        pace->relay[relay].factor = factor;
}

bool pace_full(const struct pace *pace, size_t index, uint64_t max_wait_us)
{
    const struct relay *relay = &pace->relay[index];
    uint64_t now = td_mono_us();
    uint64_t next = relay->next_slot_at;

    for (size_t i = 0; i < relay->count; i++) {
        next = relay->slot[(relay->head + i) % SLOTS_MAX];
        if (next + LATE_US >= now)
            break;
        next = relay->next_slot_at;
    }
    return relay->mails_per_s > 0 && next > now + max_wait_us;
}

/* ---- life ---- */

/* Be heard: of relays that were not asked for within quiet_us. */
static void tell(struct pace *pace, uint64_t quiet_us)
{
    uint64_t now = td_mono_us();

    for (size_t i = 0; i < pace->count; i++) {
        struct relay *relay = &pace->relay[i];

        if (relay->mails_per_s > 0 && !relay->under_way && now - relay->asked_at >= quiet_us && td_redis_up(pace->redis))
            ask(relay, 0);
    }
}

static void on_look(uv_timer_t *timer)
{
    tell(timer->data, QUIET_US);
}

void pace_part(struct pace *pace, double part)
{
    pace->part = part > 1 ? 1 : part;
    tell(pace, 0);
}

/* Slots of our own are given up: from now on they come from Redis. */
static void end_alone(struct relay *relay)
{
    relay->alone_sent -= relay->count < relay->alone_sent ? relay->count : relay->alone_sent;
    relay->count = 0;
}

static void begin_alone(struct relay *relay, uint64_t now)
{
    uint64_t next = relay->last_us + (uint64_t)(1e6 / relay->mails_per_s);

    relay->under_way = false;
    if (next < relay->heard_at + HEARD_US)
        next = relay->heard_at + HEARD_US;
    relay->alone.tat_us = next > now ? next : now;
    refill_asked(relay, now);
    arm(relay, now);
}

static void on_redis_state(void *user, bool up, const char *run_id)
{
    struct pace *pace = user;
    uint64_t now = td_mono_us();

    (void)run_id;
    for (size_t i = 0; i < pace->count; i++) {
        struct relay *relay = &pace->relay[i];

        relay->ask_at = now; /* what the other side said to wait for does not hold here */
        relay->next_slot_at = 0;
        if (up)
            end_alone(relay);
        else if (relay->mails_per_s > 0)
            begin_alone(relay, now);
    }
    if (up)
        tell(pace, 0);
}

static void relay_init(struct pace *pace, uv_loop_t *loop, const struct td_relay_settings *settings, size_t i)
{
    static const char *const part[] = {"tat", "quota", "members"};
    struct relay *relay = &pace->relay[i];

    relay->pace = pace;
    relay->index = i;
    relay->mails_per_s = (double)settings->max_mails_per_s;
    relay->daily_quota = (uint64_t)settings->daily_quota;
    relay->factor = 1;
    relay->left = -1;
    for (size_t k = 0; k < 3; k++)
        snprintf(relay->key[k], sizeof(relay->key[k]), "td:{r:%s}:%s", settings->name, part[k]);
    uv_timer_init(loop, &relay->timer);
    relay->timer.data = relay;
    pace->open_handles++;
}

int pace_new(uv_loop_t *loop, struct td_redis *redis, const struct td_settings *settings,
             void (*due)(void *user, size_t relay), void *user, struct pace **ret, struct td_err *reterr)
{
    struct pace *pace = calloc(1, sizeof(*pace) + settings->relay_count * sizeof(pace->relay[0]));
    uint64_t random[2];

    if (!pace)
        return td_fail(reterr, TD_ENOMEM, "pace");
    pace->redis = redis;
    pace->due = due;
    pace->user = user;
    pace->count = settings->relay_count;
    if (uv_random(NULL, NULL, random, sizeof(random), 0, NULL) < 0)
        random[0] = td_mono_us(), random[1] = (uint64_t)uv_os_getpid();
    snprintf(pace->me, sizeof(pace->me), "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
    for (size_t i = 0; i < pace->count; i++)
        relay_init(pace, loop, &settings->relays[i], i);
    uv_timer_init(loop, &pace->look);
    pace->look.data = pace;
    pace->open_handles++;
    uv_timer_start(&pace->look, on_look, LOOK_MS, LOOK_MS);
    td_redis_on_state(redis, on_redis_state, pace);
    *ret = pace;
    return TD_OK;
}

static void on_relay_closed(uv_handle_t *handle)
{
    struct pace *pace = ((struct relay *)handle->data)->pace;

    if (--pace->open_handles == 0)
        free(pace);
}

static void on_look_closed(uv_handle_t *handle)
{
    struct pace *pace = handle->data;

    if (--pace->open_handles == 0)
        free(pace);
}

void pace_free(struct pace *pace)
{
    if (!pace)
        return;
    td_redis_forget(pace->redis, pace);
    for (size_t i = 0; i < pace->count; i++) {
        td_redis_forget(pace->redis, &pace->relay[i]);
        uv_close((uv_handle_t *)&pace->relay[i].timer, on_relay_closed);
    }
    uv_close((uv_handle_t *)&pace->look, on_look_closed);
}
