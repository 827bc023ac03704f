/* common/lua/{ledger_*,lane,pace}.lua and the commands of health_campaign.c, modelled in C. relay_report.lua is in
 * sim_report.c. Each runs to its end before the next, as in the server. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_report.h"
#include "tandem/gcra.h"

enum { LEASES = SIM_LANES, BEGUN_S = 600 };

struct begun {
    struct begun *next;
    const char *token, *verdicts;
    uint64_t until;
};

static struct {
    char name[48];
    struct sim_lease lease;
} lanes[LEASES];
static size_t lane_count;
static uint64_t tat[SIM_RELAYS];

/* ---- arguments ---- */

static bool is(const struct td_arg *arg, const char *text)
{
    return arg->len == strlen(text) && memcmp(arg->data, text, arg->len) == 0;
}

static const char *text_of(const struct td_arg *arg)
{
    return arg->data; /* copies end with a NUL */
}

/* "td:{c:<id>}:tried" */
static struct campaign_world *campaign_of(const struct td_arg *key)
{
    const char *at = text_of(key) + strlen("td:{c:"), *end = strchr(at, '}');
    struct campaign_world *c = sim_campaign(at, (size_t)(end - at));

    if (!c)
        abort();
    return c;
}

static uint32_t index_at(const struct td_arg *arg, size_t i)
{
    const unsigned char *at = (const unsigned char *)arg->data + 4 * i;

    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* ---- ledger ---- */

static struct begun *begun_of(struct campaign_world *c, const char *token)
{
    for (struct begun *b = c->begun; b; b = b->next)
        if (b->until > sim.now && strcmp(b->token, token) == 0)
            return b;
    return NULL;
}

static struct td_reply *ledger_begin(const struct sim_call *call)
{
    struct campaign_world *c = campaign_of(&call->key[0]);
    const char *token = text_of(&call->arg[2]);
    struct begun *before = token[0] ? begun_of(c, token) : NULL;
    size_t count = call->arg[0].len / 4, known = 0, at = 1;
    char *verdicts = sim_alloc(count + 1);
    struct td_reply *reply;

    for (size_t i = 0; i < count; i++) {
        struct recipient *r = &c->rcpt[index_at(&call->arg[0], i)];

        if (r->done) {
            verdicts[i] = '1';
            known++;
        } else if (r->proof) {
            verdicts[i] = '3';
            r->doubted = true;
            known++;
        } else if (before) {
            verdicts[i] = before->verdicts[i] == '1' || before->verdicts[i] == '3' ? '2' : before->verdicts[i];
        } else {
            verdicts[i] = r->tried ? '2' : '0';
            r->tried = true;
        }
        if (verdicts[i] == '2' && !before)
            r->retried++;
        r->go_by = verdicts[i] == '1' || verdicts[i] == '3' ? r->go_by : sim_id_of(call->by);
        sim_trace("  redis begin %s/%u -> %c%s (for %s)", c->id, index_at(&call->arg[0], i), verdicts[i],
                  before ? " again" : "", call->by->name);
    }
    reply = sim_reply_array(1 + known);
    sim_reply_set(reply, 0, sim_reply_str(verdicts, count));
    for (size_t i = 0; i < count; i++) {
        const struct recipient *r = &c->rcpt[index_at(&call->arg[0], i)];

        if (verdicts[i] == '1')
            sim_reply_set(reply, at++, sim_reply_str(r->pending, r->pending_len));
        else if (verdicts[i] == '3')
            sim_reply_set(reply, at++, sim_reply_str(r->proof, r->proof_len));
    }
    if (token[0] && !before) {
        struct begun *b = sim_alloc(sizeof(*b));

        *b = (struct begun){c->begun, token, verdicts, sim.now + BEGUN_S * SEC};
        c->begun = b;
    }
    return reply;
}

static struct td_reply *ledger_end(const struct sim_call *call)
{
    struct campaign_world *c = campaign_of(&call->key[0]);
    size_t fresh = 0, others = 0, count = (call->args - 1) / 4, *other = sim_alloc(count * sizeof(*other) + 1);
    struct td_reply *reply;

    for (size_t i = 0; i < count; i++) {
        const struct td_arg *arg = &call->arg[1 + 4 * i];
        uint32_t index = (uint32_t)strtoul(text_of(&arg[0]), NULL, 10);
        struct recipient *r = &c->rcpt[index];
        bool same = r->pending && r->pending_len == arg[3].len && memcmp(r->pending, arg[3].data, arg[3].len) == 0;

        sim_trace("  redis end %s/%u %s %s%s (for %s)", c->id, index, text_of(&arg[1]), text_of(&arg[2]),
                  !r->done ? ""
                  : same   ? " again"
                           : " OVERTAKEN",
                  call->by->name);
        if (!r->done && r->proof && is(&arg[1], "unproven")) {
            other[others++] = i;
        } else if (!r->done) {
            r->done = true;
            r->doubt = false;
            r->proof = NULL;
            fresh++;
            r->pending = r->ended = arg[3].data;
            r->pending_len = r->ended_len = arg[3].len;
            for (size_t k = 0; k < SIM_RELAYS; k++) {
                bool its = is(&arg[2], sim.proc[0].settings.relays[k].name);

                c->accepted[k] += its && is(&arg[1], "accepted");
                c->refused[k] += its && is(&arg[1], "refused");
            }
        } else if (!same) {
            other[others++] = i;
        }
    }
    reply = sim_reply_array(2 + others);
    sim_reply_set(reply, 0, sim_reply_int((long long)fresh));
    sim_reply_set(reply, 1, sim_reply_array(0)); /* relays' bounce rates are not modelled */
    for (size_t i = 0; i < others; i++)
        sim_reply_set(reply, 2 + i, sim_reply_int((long long)other[i]));
    return reply;
}

static struct td_reply *ledger_doubt(const struct sim_call *call)
{
    struct campaign_world *c = campaign_of(&call->key[0]);
    uint32_t index = (uint32_t)strtoul(text_of(&call->arg[0]), NULL, 10);
    struct recipient *r = &c->rcpt[index];
    struct td_reply *reply = sim_reply_array(2);
    int verdict = r->done ? 1 : r->proof ? 3 : 2;

    sim_trace("  redis doubt %s/%u %s -> %d (for %s)", c->id, index, text_of(&call->arg[1]), verdict, call->by->name);
    if (!r->done)
        r->tried = r->doubted = true;
    r->doubt = r->doubt || verdict == 2;
    sim_reply_set(reply, 0, sim_reply_int(verdict));
    sim_reply_set(reply, 1, verdict == 1 ? sim_reply_str(r->pending, r->pending_len)
                            : verdict == 3 ? sim_reply_str(r->proof, r->proof_len)
                                           : sim_reply_str("", 0));
    return reply;
}

static struct td_reply *ledger_published(const struct sim_call *call)
{
    struct campaign_world *c = campaign_of(&call->key[0]);
    size_t count = call->arg[0].len / 4;
    long long gone = 0;

    for (size_t i = 0; i < count; i++) {
        struct recipient *r = &c->rcpt[index_at(&call->arg[0], i)];

        gone += r->pending != NULL;
        r->pending = NULL;
        r->pending_len = 0;
    }
    return sim_reply_int(gone);
}

static struct td_reply *ledger_undo(const struct sim_call *call)
{
    struct campaign_world *c = campaign_of(&call->key[0]);
    size_t count = call->arg[0].len / 4;
    long long changed = 0;

    for (size_t i = 0; i < count; i++) {
        struct recipient *r = &c->rcpt[index_at(&call->arg[0], i)];

        sim_trace("  redis undo %s/%u%s (for %s)", c->id, index_at(&call->arg[0], i), r->done ? " done" : "",
                  call->by->name);
        if (r->done)
            continue;
        changed += r->tried;
        r->tried = false;
        r->go_by = 0;
    }
    return sim_reply_int(changed);
}

/* ---- lanes ---- */

static struct sim_lease *lease(const char *name)
{
    for (size_t i = 0; i < lane_count; i++)
        if (strcmp(lanes[i].name, name) == 0)
            return &lanes[i].lease;
    if (lane_count == LEASES)
        abort();
    snprintf(lanes[lane_count].name, sizeof(lanes[0].name), "%s", name);
    return &lanes[lane_count++].lease;
}

const struct sim_lease *sim_lease_of(const char *name)
{
    const struct sim_lease *l = lease(name);

    return l->owner[0] && l->until > sim.now ? l : NULL;
}

/* KEYS[1] is "td:{lane:<name>}" */
static struct td_reply *lane(const struct sim_call *call)
{
    char name[48];
    const char *at = text_of(&call->key[0]) + strlen("td:{lane:");
    struct sim_lease *l;
    bool owned, mine;
    int clean = 0;
    struct td_reply *reply = sim_reply_array(2);

    snprintf(name, sizeof(name), "%.*s", (int)strcspn(at, "}"), at);
    l = lease(name);
    owned = l->owner[0] && l->until > sim.now;
    mine = owned && strcmp(l->owner, text_of(&call->arg[1])) == 0;
    if (is(&call->arg[0], "release")) {
        if (mine) {
            l->owner[0] = '\0';
            l->clean = is(&call->arg[2], "1");
            sim_trace("  redis lane %s is let go%s (for %s)", name, l->clean ? ", clean" : "", call->by->name);
        }
        return sim_reply_int(mine);
    }
    if (!mine && is(&call->arg[0], "renew"))
        return sim_reply_int(0);
    if (owned && !mine) {
        sim_reply_set(reply, 0,
                      sim_reply_int(-(long long)((l->until - sim.now) / MS > 1 ? (l->until - sim.now) / MS : 1)));
        return reply;
    }
    if (!mine) {
        clean = l->clean ? 1 : l->fence == 0 ? 2 : 0;
        l->fence++;
        l->clean = false;
        sim_trace("  redis lane %s is %s's (fence %llu)%s", name, call->by->name, (unsigned long long)l->fence,
                  clean == 1 ? ", clean" : clean == 2 ? ", the first" : "");
    }
    snprintf(l->owner, sizeof(l->owner), "%s", text_of(&call->arg[1]));
    l->until = sim.now + strtoull(text_of(&call->arg[2]), NULL, 10) * MS;
    sim_reply_set(reply, 0, sim_reply_int((long long)l->fence));
    sim_reply_set(reply, 1, sim_reply_int(clean));
    return reply;
}

/* ---- pace ---- */

static size_t relay_of(const struct td_arg *key)
{
    const char *at = text_of(key) + strlen("td:{r:");

    for (size_t i = 0; i < SIM_RELAYS; i++) {
        const char *name = sim.proc[0].settings.relays[i].name;

        if (strncmp(at, name, strlen(name)) == 0)
            return i;
    }
    abort();
}

static void number(struct td_reply *array, size_t i, uint64_t value)
{
    char text[24];
    int len = snprintf(text, sizeof(text), "%llu", (unsigned long long)value);

    sim_reply_set(array, i, sim_reply_str(text, (size_t)len));
}

/* Three members share the horizon; no daily quota here. */
static struct td_reply *pace(const struct sim_call *call)
{
    size_t relay = relay_of(&call->key[0]);
    double rate = strtod(text_of(&call->arg[0]), NULL), apart = 1e6 / rate;
    uint64_t want = strtoull(text_of(&call->arg[1]), NULL, 10),
             horizon = strtoull(text_of(&call->arg[2]), NULL, 10);
    uint64_t from = tat[relay] > sim.now ? tat[relay] : sim.now, n = 0, share;
    struct td_reply *reply = sim_reply_array(8);
    const char *why = "";
    uint64_t again = 0;

    if (want > 0 && from > sim.now + horizon) {
        why = "rate";
        again = from - sim.now - horizon;
    } else if (want > 0) {
        n = (uint64_t)((double)(sim.now + horizon - from) / apart) + 1;
        share = (uint64_t)((double)horizon / apart / SIM_PROCS) + 1;
        n = n > want ? want : n;
        n = n > share ? share : n;
        tat[relay] = from + (uint64_t)((double)n * apart);
    }
    sim_reply_set(reply, 0, sim_reply_int((long long)n));
    number(reply, 1, n ? from - sim.now : 0);
    number(reply, 2, (uint64_t)apart);
    sim_reply_set(reply, 3, sim_reply_str(why, strlen(why)));
    number(reply, 4, again);
    sim_reply_set(reply, 5, sim_reply_int(SIM_PROCS));
    sim_reply_set(reply, 6, sim_reply_str("-1", 2));
    number(reply, 7, UINT64_C(1800000000000000) + sim.now);
    return reply;
}

/* ---- totals ---- */

static bool starts(const struct td_arg *arg, const char *text)
{
    return arg->len > strlen(text) && memcmp(arg->data, text, strlen(text)) == 0;
}

/* Of "accepted:<relay>"; SIM_RELAYS: it names none. */
static size_t relay_named(const struct td_arg *field)
{
    const char *colon = strchr(text_of(field), ':');
    size_t k = 0;

    while (k < SIM_RELAYS && !(colon && strcmp(colon + 1, sim.proc[0].settings.relays[k].name) == 0))
        k++;
    return k;
}

static struct td_reply *hmget(const struct sim_call *call)
{
    struct campaign_world *c = campaign_of(&call->key[0]);
    struct td_reply *reply = sim_reply_array(call->args);

    for (size_t i = 0; i < call->args; i++) {
        size_t k = relay_named(&call->arg[i]);

        sim_reply_set(reply, i, sim_reply_nil());
        if (starts(&call->arg[i], "accepted:"))
            sim_reply_set(reply, i, sim_reply_int((long long)c->accepted[k]));
        else if (starts(&call->arg[i], "refused:"))
            sim_reply_set(reply, i, sim_reply_int((long long)c->refused[k]));
        else if (starts(&call->arg[i], "tripped:") && c->left[k])
            sim_reply_set(reply, i, sim_reply_str(c->left[k], strlen(c->left[k])));
        else if (is(&call->arg[i], "held") && c->held)
            sim_reply_set(reply, i, sim_reply_str("bounces", 7));
    }
    return reply;
}

/* tripped:<relay> */
static struct td_reply *hsetnx(const struct sim_call *call)
{
    struct campaign_world *c = campaign_of(&call->key[0]);
    const char **left = &c->left[relay_named(&call->arg[0])];

    if (*left)
        return sim_reply_int(0);
    *left = sim_strdup(call->arg[1].data, call->arg[1].len);
    sim_trace("  redis %s leaves a relay: %s (for %s)", c->id, *left, call->by->name);
    return sim_reply_int(1);
}

/* held */
static struct td_reply *hset(const struct sim_call *call)
{
    campaign_of(&call->key[0])->held = true;
    return sim_reply_int(1);
}

static struct td_reply *hdel(const struct sim_call *call)
{
    campaign_of(&call->key[0])->held = false;
    return sim_reply_int(1);
}

/* ---- */

struct td_reply *sim_script(const struct sim_call *call)
{
    static const struct {
        const char *name;
        struct td_reply *(*run)(const struct sim_call *call);
    } scripts[] = {{"ledger_begin", ledger_begin},
                   {"ledger_end", ledger_end},
                   {"ledger_doubt", ledger_doubt},
                   {"ledger_published", ledger_published},
                   {"ledger_undo", ledger_undo},
                   {"lane", lane},
                   {"pace", pace},
                   {"relay_report", sim_report},
                   {"HMGET", hmget},
                   {"HSETNX", hsetnx},
                   {"HSET", hset},
                   {"HDEL", hdel}};

    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++)
        if (strcmp(call->script, scripts[i].name) == 0)
            return scripts[i].run(call);
    fprintf(stderr, "td_sim: nothing models %s\n", call->script);
    abort();
}

void sim_scripts_reset(void)
{
    memset(lanes, 0, sizeof(lanes));
    memset(tat, 0, sizeof(tat));
    lane_count = 0;
    sim_report_reset();
    for (size_t i = 0; i < sim.campaigns; i++) {
        struct campaign_world *c = &sim.campaign[i];

        c->begun = NULL;
        for (size_t k = 0; k < SIM_RELAYS; k++) {
            c->accepted[k] = c->refused[k] = 0;
            c->left[k] = NULL;
        }
        c->held = false;
        for (uint32_t k = 0; k < c->count; k++) {
            c->rcpt[k].tried = c->rcpt[k].done = c->rcpt[k].doubt = false;
            c->rcpt[k].pending = c->rcpt[k].proof = NULL;
            c->rcpt[k].pending_len = 0;
        }
    }
}
