#include "sim_report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROW = 3,
    ROW_MS = 5000,
    QUIET_MS = 1000,
    PROBES = 2,
    PROBE_LEASE_MS = 5000,
    GRANTS_PER_S = 5,
    WINS = 20,
    FEW = 3,
    FEW_MS = 3000,
    IDLE_MS = 60000,
    RARE_MS = 10000,
    CUT_MS = 500
};

enum state { CLOSED, LIMITED, OPEN, HALF_OPEN, PAUSED };
static const char *const name_of[] = {"closed", "limited", "open", "half-open", "paused"};

static struct shared {
    bool known;
    enum state state;
    uint64_t epoch, till, closed_at, half_at, probe_until, grant_sec, last_ok, cut_at, factor_at, next_mail;
    unsigned opens, probes, wins, used, granted, grant_n, row;
    uint64_t row_at[ROW];
    double factor;
    char reason[48];
    const struct proc *prober;
} relay[SIM_RELAYS];

static const char *arg(const struct sim_call *call, const char *name)
{
    for (size_t i = 0; i + 1 < call->args; i += 2)
        if (strcmp(call->arg[i].data, name) == 0)
            return call->arg[i + 1].data;
    return "";
}

static uint64_t count(const struct sim_call *call, const char *name)
{
    return strtoull(arg(call, name), NULL, 10);
}

static void move(struct shared *r, enum state to, const char *reason)
{
    if (r->state != to)
        r->epoch++;
    r->state = to;
    snprintf(r->reason, sizeof(r->reason), "%s", reason);
}

static void open_it(struct shared *r, const struct sim_call *call, const char *reason, uint64_t now)
{
    uint64_t wait;

    r->opens += r->opens < 16;
    wait = count(call, "probe_ms") << (r->opens - 1 < 10 ? r->opens - 1 : 10);
    if (wait > count(call, "probe_max_ms"))
        wait = count(call, "probe_max_ms");
    r->till = now + wait;
    r->row = 0;
    r->factor = 1;
    move(r, OPEN, reason);
}

static void half(struct shared *r, uint64_t now)
{
    r->probes = r->wins = r->used = r->granted = 0;
    r->probe_until = 0;
    r->half_at = now;
    move(r, HALF_OPEN, "well.probing");
}

static void judge(struct shared *r, const struct sim_call *call, bool current, uint64_t now)
{
    uint64_t silent = count(call, "silent");
    uint64_t ok = current ? count(call, "ok") : 0, row = current ? count(call, "row") : 0, recent = 0;

    if (r->state == LIMITED) {
        r->factor += 0.02 * (double)(now - r->factor_at) / 1000;
        r->factor_at = now;
        if (r->factor >= 1) {
            r->factor = 1;
            move(r, CLOSED, "well.recovered");
        }
    }
    if (!current)
        return;
    if (ok) {
        r->row = 0;
        r->last_ok = now - count(call, "ok_ago") > r->last_ok ? now - count(call, "ok_ago") : r->last_ok;
    }
    for (uint64_t i = 0; i < row && i < ROW; i++) {
        if (r->row == ROW)
            memmove(r->row_at, r->row_at + 1, (ROW - 1) * sizeof(r->row_at[0]));
        else
            r->row++;
        r->row_at[r->row - 1] = now;
    }
    for (unsigned i = 0; i < r->row; i++)
        recent += now - r->row_at[i] <= ROW_MS;
    if (count(call, "fatal") || (count(call, "refused") && now - r->last_ok > QUIET_MS) || recent >= ROW ||
        (silent && now - r->last_ok > (silent < QUIET_MS ? silent : QUIET_MS))) {
        open_it(r, call, silent ? "down.silent" : arg(call, "reason"), now);
    } else if (count(call, "soft") && now - r->cut_at >= CUT_MS) {
        r->factor = r->factor * 0.7 > 0.05 ? r->factor * 0.7 : 0.05;
        r->cut_at = r->factor_at = now;
        move(r, LIMITED, arg(call, "reason"));
    }
}

static void trial(struct shared *r, const struct sim_call *call, bool current, uint64_t now, bool *ret_probe,
                  uint64_t *ret_grants)
{
    if (current && count(call, "hard") + count(call, "fatal") > 0) {
        open_it(r, call, arg(call, "reason"), now);
        return;
    }
    if (r->probes < PROBES && count(call, "probe_epoch") == r->epoch && r->prober == call->by) {
        if (strcmp(arg(call, "probe"), "bad") == 0) {
            open_it(r, call, arg(call, "reason"), now);
            return;
        }
        if (strcmp(arg(call, "probe"), "well") == 0) {
            r->probes++;
            r->probe_until = 0;
            r->half_at = now;
        }
    }
    if (r->probes < PROBES) {
        if (now >= r->probe_until && count(call, "can") == 1) {
            *ret_probe = true;
            r->prober = call->by;
            r->probe_until = now + PROBE_LEASE_MS;
        }
        return;
    }
    if (current) {
        uint64_t ok = count(call, "ok"), most = r->granted > r->wins ? r->granted - r->wins : 0;

        r->wins += (unsigned)(ok < most ? ok : most);
        r->used += (unsigned)count(call, "used");
    }
    if (r->wins >= WINS || (r->wins >= FEW && now - r->half_at >= FEW_MS) ||
        (r->used <= r->wins && now - r->half_at >= IDLE_MS)) {
        r->closed_at = now;
        r->row = 0;
        r->factor = 1;
        move(r, CLOSED, "well.ramp");
        return;
    }
    if (count(call, "want") > 0) {
        uint64_t want = count(call, "want"), left;

        if (r->grant_sec != now / 1000) {
            r->grant_sec = now / 1000;
            r->grant_n = 0;
        }
        left = GRANTS_PER_S > r->grant_n ? GRANTS_PER_S - r->grant_n : 0;
        *ret_grants = want < left ? want : left;
        r->grant_n += (unsigned)*ret_grants;
        r->granted += (unsigned)*ret_grants;
    }
}

/* The account is paused: a rare mail finds out when it no longer is. */
static void aside(struct shared *r, const struct sim_call *call, bool current, uint64_t now, uint64_t *ret_grants)
{
    if (current && count(call, "ok") > 0 && r->granted > 0) {
        half(r, now);
        r->probes = PROBES;
        r->wins = r->granted = 1;
    } else if (count(call, "want") > 0 && now >= r->next_mail) {
        *ret_grants = 1;
        r->granted++;
        r->next_mail = now + RARE_MS;
    }
}

static double share(const struct shared *r, const struct sim_call *call, uint64_t now)
{
    uint64_t ramp = count(call, "ramp_ms"), since = now - r->closed_at;

    if (r->state != CLOSED && r->state != LIMITED)
        return 0;
    return r->closed_at && since < ramp ? 0.1 + 0.9 * (double)since / (double)ramp : 1;
}

static void text(struct td_reply *array, size_t i, const char *value)
{
    sim_reply_set(array, i, sim_reply_str(value, strlen(value)));
}

struct td_reply *sim_report(const struct sim_call *call)
{
    size_t i = strncmp((const char *)call->key[0].data + strlen("td:{r:"), "alpha", 5) == 0 ? 0 : 1;
    struct shared *r = &relay[i];
    uint64_t now = 1000000 + sim.now / MS, grants = 0, before;
    bool probe = false, current;
    struct td_reply *reply = sim_reply_array(16);
    char number[32];

    if (!r->known) {
        *r =
            (struct shared){.known = true, .epoch = count(call, "epoch") + 1, .factor = 1, .reason = "well.start"};
        if (strcmp(arg(call, "state"), "open") == 0 && count(call, "epoch") > 0)
            open_it(r, call, arg(call, "reason"), now);
    }
    before = r->epoch;
    if (r->state == OPEN && now >= r->till)
        half(r, now);
    current = count(call, "epoch") == r->epoch;
    if (current && count(call, "paused") > 0) {
        r->next_mail = now + RARE_MS;
        r->granted = 0;
        move(r, PAUSED, arg(call, "reason"));
    } else if (r->state == CLOSED || r->state == LIMITED) {
        judge(r, call, current, now);
    } else if (r->state == HALF_OPEN) {
        trial(r, call, current, now, &probe, &grants);
    } else if (r->state == PAUSED) {
        aside(r, call, current, now, &grants);
    }
    text(reply, 0, name_of[r->state]);
    sim_reply_set(reply, 1, sim_reply_int((long long)r->epoch));
    snprintf(number, sizeof(number), "%.3f", share(r, call, now));
    text(reply, 2, number);
    snprintf(number, sizeof(number), "%.3f", r->factor);
    text(reply, 3, number);
    sim_reply_set(reply, 4, sim_reply_int((long long)grants));
    sim_reply_set(reply, 5, sim_reply_int(probe));
    sim_reply_set(reply, 6, sim_reply_int((long long)r->till));
    text(reply, 7, r->reason);
    text(reply, 8, "");
    sim_reply_set(reply, 9, sim_reply_int(r->epoch != before));
    sim_reply_set(reply, 10, sim_reply_int((long long)now));
    for (size_t k = 11; k < 16; k++) /* bounce level: well */
        sim_reply_set(reply, k, k == 12 ? sim_reply_str("", 0) : sim_reply_int(0));
    if (r->epoch != before) {
        char message[96];

        snprintf(message, sizeof(message), "relay=%s to=%s", i == 0 ? "alpha" : "beta", name_of[r->state]);
        sim_trace("  redis relay %s is %s: %s", i == 0 ? "alpha" : "beta", name_of[r->state], r->reason);
        sim_publish(message);
    }
    return reply;
}

void sim_report_reset(void)
{
    memset(relay, 0, sizeof(relay));
}
