/* What a seed means: campaigns, their records, and what goes wrong when. */
#include "sim.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/id.h"
#include "tandem/pb.h"

#include "tandem/internal/v1/content.pb-c.h"
#include "tandem/internal/v1/outbound.pb-c.h"

enum { FAULTS_MAX = 9, FAULT_LAST_MS = 30000, LIMIT_S = 900 };

/* ---- names ---- */

struct campaign_world *sim_campaign(const char *id, size_t len)
{
    for (size_t i = 0; i < sim.campaigns; i++)
        if (strlen(sim.campaign[i].id) == len && memcmp(sim.campaign[i].id, id, len) == 0)
            return &sim.campaign[i];
    return NULL;
}

bool sim_mail_find(const void *key, size_t len, struct campaign_world **ret, uint32_t *ret_index)
{
    char id[TD_CAMPAIGN_ID_MAX + 1];

    if (!td_mail_key_parse(key, len, id, ret_index))
        return false;
    *ret = sim_campaign(id, strlen(id));
    return *ret && *ret_index < (*ret)->count;
}

/* ---- records ---- */

struct arrival {
    struct campaign_world *campaign;
    uint32_t index;
    int64_t not_before_ms;
};

static void on_arrival(void *arg, uint64_t tag)
{
    static char domain[] = "m@example";
    const struct arrival *a = arg;
    struct campaign_world *c = a->campaign;
    struct recipient *r = &c->rcpt[a->index];
    Tandem__Internal__V1__OutboundMessage msg = TANDEM__INTERNAL__V1__OUTBOUND_MESSAGE__INIT;
    Tandem__Internal__V1__Segment segment[2] = {TANDEM__INTERNAL__V1__SEGMENT__INIT,
                                                TANDEM__INTERNAL__V1__SEGMENT__INIT};
    Tandem__Internal__V1__Segment *segments[2] = {&segment[0], &segment[1]};
    char text[64], address[64], key[TD_MAIL_KEY_MAX], *route[SIM_RELAYS], *country[1];
    uint8_t hash[TD_HASH_BYTES] = {0};
    size_t len, key_len;
    void *packed;

    (void)tag;
    sim.to_come--;
    len = (size_t)snprintf(text, sizeof(text), "X-Sim: %s/%u\r\n", c->id, a->index);
    snprintf(address, sizeof(address), "r%u.%s@example", a->index, c->id);
    memcpy(hash, &a->index, sizeof(a->index));
    segment[0].inline_bytes.data = (uint8_t *)text;
    segment[0].inline_bytes.len = len;
    segment[1].static_length = (uint32_t)c->blob_len;
    msg.campaign_id = c->id;
    msg.index = a->index;
    msg.recipient = address;
    msg.address_hash.data = hash;
    msg.address_hash.len = sizeof(hash);
    msg.message_id = domain;
    msg.static_sha256.data = c->sha;
    msg.static_sha256.len = sizeof(c->sha);
    msg.static_bytes = (uint32_t)c->blob_len;
    msg.segments = segments;
    msg.n_segments = 2;
    msg.message_bytes = (uint32_t)(len + c->blob_len);
    msg.not_before_unix_ms = a->not_before_ms;
    msg.deadline_unix_ms = c->deadline_ms;
    for (unsigned i = 0; i < c->route_len; i++)
        route[i] = sim.proc[0].settings.relays[c->route[i]].name;
    msg.route = route;
    msg.n_route = c->route_len;
    if (c->narrowed) {
        country[0] = sim.proc[0].settings.relays[c->only_country[1] ? 1 : 0].country;
        msg.allowed_countries = country;
        msg.n_allowed_countries = 1;
    }
    msg.on_unconfirmed = c->resend ? TANDEM__MAIL__V1__ON_UNCONFIRMED__ON_UNCONFIRMED_RESEND
                                   : TANDEM__MAIL__V1__ON_UNCONFIRMED__ON_UNCONFIRMED_HOLD;
    msg.class_ = c->express ? TANDEM__MAIL__V1__CAMPAIGN_CLASS__CAMPAIGN_CLASS_EXPRESS
                            : TANDEM__MAIL__V1__CAMPAIGN_CLASS__CAMPAIGN_CLASS_BULK;
    key_len = td_mail_key(key, c->id, a->index);
    packed = td_pb_write(&msg.base, &len);
    sim_append((struct td_lane){c->express ? TD_T_EXPRESS : TD_T_OUTBOUND, r->partition}, key, key_len, packed,
               len);
    free(packed);
}

static void on_garbage(void *arg, uint64_t tag)
{
    static const char bytes[] = "\xff\xff this is no message";

    (void)arg;
    (void)tag;
    sim.to_come--;
    sim_append((struct td_lane){TD_T_OUTBOUND, (int32_t)sim_below(SIM_PARTS)}, "x", 1, bytes, sizeof(bytes));
}

static void arrive(struct campaign_world *c, uint32_t index, uint64_t at, int64_t not_before_ms)
{
    struct arrival *a = sim_alloc(sizeof(*a));

    *a = (struct arrival){c, index, not_before_ms};
    sim.to_come++;
    sim_at(at, NULL, on_arrival, a, 0);
}

/* ---- campaigns ---- */

static void make_recipient(struct campaign_world *c, uint32_t i, unsigned odd, uint64_t spread_us, unsigned lanes)
{
    struct recipient *r = &c->rcpt[i];
    uint64_t at = sim_chance(500) ? 0 : sim_below(spread_us + 1);

    r->partition = (uint8_t)((i / 7 + (unsigned)(c - sim.campaign)) % lanes);
    r->records = sim_chance(50) ? 2 : 1;
    r->relay = -1;
    for (size_t k = 0; k < SIM_RELAYS; k++)
        r->refusal[k] = c->bad[k] && sim_chance(200) ? REFUSAL_HARD
                        : sim_chance(odd)            ? (uint8_t)sim_between(REFUSAL_HARD, REFUSAL_FICKLE)
                                                     : REFUSAL_NONE;
    r->deferrals = (uint8_t)sim_between(1, 2);
    arrive(c, i, at, sim_chance(10) ? td_wall_ms() + (int64_t)(at / MS) + (int64_t)sim_below(15000) : 0);
    if (r->records == 2)
        arrive(c, i, at + sim_below(10 * SEC), 0);
}

static void make_campaign(size_t n)
{
    struct campaign_world *c = &sim.campaign[n];
    unsigned odd = sim_chance(400) ? (unsigned)sim_between(1, 60) : 0, lanes = (unsigned)sim_between(2, SIM_PARTS);
    uint64_t spread_us = sim_between(0, 20) * SEC;

    snprintf(c->id, sizeof(c->id), "camp-%zu", n + 1);
    c->count = (uint32_t)sim_between(200, 1000) / (uint32_t)sim.campaigns + 1;
    c->resend = sim_chance(300);
    c->express = n > 0 && sim_chance(400);
    c->deadline_ms = td_wall_ms() + (int64_t)sim_between(70, 240) * 1000;
    c->route_len = sim_chance(850) ? 2 : 1;
    c->route[0] = (uint8_t)sim_below(SIM_RELAYS);
    c->route[1] = (uint8_t)(1 - c->route[0]);
    c->narrowed = sim_chance(100);
    if (c->narrowed)
        c->only_country[c->route[sim_below(c->route_len)]] = true;
    c->state = TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_RUNNING;
    c->blob_len = (size_t)sim_between(20, 400);
    c->blob = sim_alloc(c->blob_len);
    for (size_t i = 0; i < c->blob_len; i++)
        c->blob[i] = (char)('a' + sim_below(26));
    SHA256((const unsigned char *)c->blob, c->blob_len, c->sha);
    c->bad[c->route[0]] = sim_chance(80);
    c->bad[c->route[1]] = c->bad[c->route[0]] && sim_chance(400);
    c->rcpt = sim_alloc(c->count * sizeof(*c->rcpt));
    for (uint32_t i = 0; i < c->count; i++)
        make_recipient(c, i, odd, spread_us, lanes);
    sim.recipients += c->count;
    sim_trace("%s: %u recipients, %s, %s, route %s%s, deadline in %lld s", c->id, c->count,
              c->resend ? "resend" : "hold", c->express ? "express" : "bulk",
              sim.proc[0].settings.relays[c->route[0]].name, c->route_len == 2 ? " and the other" : "",
              (long long)(c->deadline_ms - td_wall_ms()) / 1000);
}

/* ---- faults ---- */

enum fault {
    F_KILL,
    F_KILL_AT_EFFECT,
    F_STOP,
    F_SHAKE,
    F_KAFKA_CUT,
    F_KAFKA_AWAY,
    F_REDIS_CUT,
    F_REDIS_AWAY,
    F_REDIS_HANGS,
    F_REDIS_LOSES_REPLY,
    F_REDIS_DROPS,
    F_PRODUCE,
    F_COMMITS,
    F_RELAY_MODE,
    F_RELAY_RESET,
    F_RELAY_LOSES,
    F_RELAYS_DOWN,
    F_SIGSTOP,
    F_PAUSE,
    F_CANCEL,
    F_COUNT
};

static const char *const fault_name[F_COUNT] = {"kill -9",
                                                "kill -9 at a call",
                                                "stop",
                                                "rebalance",
                                                "cut from Kafka",
                                                "Kafka away",
                                                "cut from Redis",
                                                "Redis away",
                                                "Redis hangs",
                                                "Redis loses a reply",
                                                "Redis drops connections",
                                                "produce fails",
                                                "commits are lost",
                                                "relay mode",
                                                "relay resets",
                                                "relay loses replies",
                                                "both relays down",
                                                "SIGSTOP",
                                                "campaign paused",
                                                "campaign cancelled"};

struct fault_plan {
    enum fault what;
    struct proc *proc;
    size_t relay;
    uint64_t lasts_us;
    unsigned number;
};

static void campaign_state(unsigned number, int state)
{
    struct campaign_world *c = &sim.campaign[number % sim.campaigns];

    if (c->state == TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_CANCELLED)
        return;
    c->state = state;
    c->revision++;
    sim_content_changed(c);
}

static void on_over(void *arg, uint64_t tag)
{
    const struct fault_plan *f = arg;

    (void)tag;
    sim_trace("over: %s", fault_name[f->what]);
    if (f->what == F_KAFKA_CUT)
        f->proc->kafka_cut = false;
    else if (f->what == F_REDIS_CUT)
        f->proc->redis_cut = false;
    else if (f->what == F_REDIS_AWAY)
        sim_redis_down(false);
    else if (f->what == F_RELAY_MODE)
        sim_relay_mode(f->relay, MODE_WELL);
    else if (f->what == F_RELAY_LOSES)
        sim_relay_loses(f->relay, 0);
    else if (f->what == F_PAUSE)
        campaign_state(f->number, TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_RUNNING);
    for (size_t i = 0; i < SIM_PROCS && f->what == F_KAFKA_AWAY; i++)
        sim.proc[i].kafka_cut = false;
    for (size_t i = 0; i < SIM_RELAYS && f->what == F_RELAYS_DOWN; i++)
        sim_relay_mode(i, MODE_WELL);
}

static void relays_down(void)
{
    for (size_t i = 0; i < SIM_RELAYS; i++) {
        sim_relay_mode(i, MODE_REFUSING);
        sim_relay_reset(i);
    }
}

static void on_fault(void *arg, uint64_t empties)
{
    struct fault_plan *f = arg;

    sim_trace("FAULT %s (%s, relay %zu, %llu ms)", fault_name[f->what], f->proc->name, f->relay,
              (unsigned long long)(f->lasts_us / MS));
    switch (f->what) {
    case F_KILL:
        sim_proc_kill(f->proc, "fault");
        break;
    case F_KILL_AT_EFFECT:
        f->proc->die_at = f->proc->effects + 1 + f->number % 60;
        break;
    case F_STOP:
        sim_proc_stop(f->proc);
        break;
    case F_SHAKE:
        sim_group_shake();
        break;
    case F_KAFKA_CUT:
        f->proc->kafka_cut = true;
        break;
    case F_KAFKA_AWAY:
        for (size_t i = 0; i < SIM_PROCS; i++)
            sim.proc[i].kafka_cut = true;
        break;
    case F_REDIS_CUT:
        f->proc->redis_cut = true;
        if (f->number % 2)
            sim_redis_drop(f->proc);
        break;
    case F_REDIS_AWAY:
        sim_redis_down(true);
        if (empties)
            sim_redis_empty();
        break;
    case F_REDIS_HANGS:
        sim_redis_hang(sim.now + f->lasts_us / 4);
        break;
    case F_REDIS_LOSES_REPLY:
        sim_redis_lose_reply(f->proc);
        break;
    case F_REDIS_DROPS:
        for (size_t i = 0; i < SIM_PROCS; i++)
            sim_redis_drop(&sim.proc[i]);
        break;
    case F_PRODUCE:
        sim_produce_fault(f->proc, f->number % 10 == 0 ? PRODUCE_FATAL
                                   : f->number % 2     ? PRODUCE_WRITTEN
                                                       : PRODUCE_NOT_WRITTEN);
        break;
    case F_COMMITS:
        sim_group_lose_commits(f->proc, 1 + f->number % 5);
        break;
    case F_RELAY_MODE:
        sim_relay_mode(f->relay, (enum relay_mode)(1 + f->number % (MODE_COUNT - 1)));
        break;
    case F_RELAY_RESET:
        sim_relay_reset(f->relay);
        break;
    case F_RELAY_LOSES:
        sim_relay_loses(f->relay, 20 + f->number % 300);
        break;
    case F_RELAYS_DOWN:
        relays_down();
        break;
    case F_SIGSTOP:
        sim_proc_doubt(f->proc);
        f->proc->stopped_until = sim.now + f->lasts_us;
        break;
    case F_PAUSE:
        campaign_state(f->number, TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_PAUSED);
        break;
    case F_CANCEL:
        if (f->number % 4 == 0)
            campaign_state(f->number, TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_CANCELLED);
        break;
    case F_COUNT:
        break;
    }
    sim_after(f->lasts_us, NULL, on_over, f, 0);
}

static void on_calm(void *arg, uint64_t tag)
{
    (void)arg;
    (void)tag;
    sim_trace("calm: no more faults");
    sim.calm = true;
}

static void plan_faults(const struct sim_options *options)
{
    size_t count = sim_chance(100) ? 0 : sim_between(1, FAULTS_MAX);
    /* Some seeds crowd their faults into a few seconds: most of what goes wrong needs two at once. */
    uint64_t from = sim_chance(500) ? sim_below(8 * SEC) : 0, width = from ? 6 * SEC : FAULT_LAST_MS * MS,
             calm_at = SEC;

    for (size_t i = 0; i < count; i++) {
        struct fault_plan *f = sim_alloc(sizeof(*f));
        uint64_t at = from + 100 * MS + sim_below(width);

        f->what = (enum fault)sim_below(F_COUNT);
        f->proc = &sim.proc[sim_below(SIM_PROCS)];
        f->relay = sim_below(SIM_RELAYS);
        f->lasts_us = sim_chance(500) ? sim_below(3 * SEC) : sim_below(20 * SEC);
        f->number = (unsigned)sim_below(1000000);
        if (at + f->lasts_us > calm_at)
            calm_at = at + f->lasts_us;
        sim_at(at, NULL, on_fault, f, options->empty_redis && sim_chance(500));
    }
    sim.calm_at = calm_at + SEC;
    sim_at(sim.calm_at, NULL, on_calm, NULL, 0);
}

/* ---- a seed ---- */

static void on_first_start(void *arg, uint64_t tag)
{
    (void)tag;
    sim_proc_start(arg);
}

void sim_world_make(const struct sim_options *options)
{
    sim.campaigns = sim_chance(500) ? 1 : SIM_CAMPAIGNS;
    for (unsigned i = 0; i < SIM_PROCS; i++)
        sim_proc_init(&sim.proc[i], i);
    for (size_t i = 0; i < sim.campaigns; i++)
        make_campaign(i);
    sim.open = sim.recipients;
    sim.to_come += sim.garbage = (uint32_t)sim_below(3);
    for (uint32_t i = 0; i < sim.garbage; i++)
        sim_at(sim_below(10 * SEC), NULL, on_garbage, NULL, 0);
    for (unsigned i = 0; i < SIM_PROCS; i++)
        sim_at(sim_below(2 * SEC), NULL, on_first_start, &sim.proc[i], 0);
    plan_faults(options);
}

static void world_reset(uint64_t seed, const struct sim_options *options)
{
    struct event *heap = sim.heap;
    size_t size = sim.heap_size;

    memset(&sim, 0, sizeof(sim));
    sim.heap = heap;
    sim.heap_size = size;
    sim_arena_reset();
    sim.seed = seed;
    sim.trace = options->trace;
    td_rng_seed(&sim.rng, seed);
    sim_log_reset();
    sim_redis_reset();
    sim_relays_reset();
    sim_group_reset();
    sim_scripts_reset();
}

bool sim_run(uint64_t seed, const struct sim_options *options)
{
    uint64_t quiet = 0, lag;

    world_reset(seed, options);
    sim_world_make(options);
    while (!sim.failed && sim_step()) {
        if (!sim.calm)
            continue;
        if (sim.open > 0 || sim.to_come > 0) {
            quiet = 0;
        } else if (quiet == 0) {
            sim_lag(&lag);
            quiet = lag ? 0 : sim.now + 3 * SEC;
        } else if (sim.now > quiet) {
            break;
        }
        if (sim.now > sim.calm_at + LIMIT_S * SEC)
            break;
    }
    sim_check_end();
    for (unsigned i = 0; i < SIM_PROCS; i++)
        sim_memory_release(&sim.proc[i]);
    return !sim.failed;
}
