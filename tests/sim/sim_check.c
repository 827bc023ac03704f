/* What must hold: see README.md for the invariants' letters. */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

#include "flow.h"
#include "tandem/pb.h"

#define PATIENCE_US (60 * SEC)
#define IDLE_US (10 * SEC)
#define RESULT(name) TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_##name

int __real_pool_send(struct pool *pool, struct mail_job *job);
int __wrap_pool_send(struct pool *pool, struct mail_job *job);

/* ---- while it runs ---- */

uint32_t sim_id_of(const struct proc *proc)
{
    return proc->life * SIM_PROCS + proc->index + 1;
}

/* Done without the ledger, by this one. */
static void loosen(struct recipient *r, const struct proc *by)
{
    uint32_t id = sim_id_of(by);

    if (r->loose_by[0] == 0 || r->loose_by[0] == id)
        r->loose_by[0] = id;
    else
        r->loose_by[1] = id;
}

static bool in_route(const struct campaign_world *c, size_t relay)
{
    for (unsigned i = 0; i < c->route_len; i++)
        if (c->route[i] == relay)
            return !c->narrowed || c->only_country[relay];
    return false;
}

/* A mail is handed to a relay's connections: the last moment at which something could still be held against it. */
int __wrap_pool_send(struct pool *pool, struct mail_job *job)
{
    const struct mail *mail = job->user;
    const struct dispatch *d = sim.current->state;
    struct campaign_world *c = sim_campaign(mail->msg->campaign_id, strlen(mail->msg->campaign_id));
    struct recipient *r = &c->rcpt[mail->msg->index];
    size_t relay = (size_t)(pool_relay(pool) - sim.current->settings.relays);
    const struct sim_lease *lease;

    if (!in_route(c, relay))
        sim_violation("route", "%s goes to %s, which its route or countries do not allow", mail->key,
                      pool_relay(pool)->name);
    if (!mail->lane)
        sim_violation("lease", "%s is sent without a lane", mail->key);
    lease = mail->lane ? sim_lease_of(mail->lane->name) : NULL;
    if (lease && (strncmp(lease->owner, sim.current->instance, strlen(sim.current->instance)) != 0 ||
                  strcmp(lease->owner + strlen(sim.current->instance) + 1, d->run) != 0))
        sim_violation("lease", "%s sends %s while %s owns %s", sim.current->name, mail->key, lease->owner,
                      mail->lane->name);
    if (r->go_by != sim_id_of(sim.current)) {
        r->unledgered = true;
        loosen(r, sim.current);
    }
    return __real_pool_send(pool, job);
}

static int relay_by_name(const char *name)
{
    for (int i = 0; i < SIM_RELAYS; i++)
        if (strcmp(sim.proc[0].settings.relays[i].name, name) == 0)
            return i;
    return -1;
}

static void first_outcome(struct recipient *r, const Tandem__Mail__V1__RecipientOutcome *o, const void *value,
                          size_t len)
{
    r->outcome = sim_strdup(value, len);
    r->outcome_len = len;
    r->distinct = 1;
    r->result = o->result;
    r->relay = (int8_t)relay_by_name(o->relay);
    r->hard = o->hard_refusal;
    r->reason = sim_strdup(o->reason, strlen(o->reason));
    sim.unconfirmed += o->result == RESULT(UNCONFIRMED);
    sim.accepted += o->result == RESULT(ACCEPTED);
    sim.open--;
}

/* No fault any more, and relays have taken nothing for so long that it is no want of connections either. */
static bool is_idle(void)
{
    return sim.calm && sim.now > sim.calm_at + PATIENCE_US && sim.now > sim.taken_at + IDLE_US;
}

/* It has left each relay that it may use. */
static bool is_held(const struct campaign_world *c)
{
    for (size_t k = 0; k < SIM_RELAYS; k++)
        if (in_route(c, k) && !c->left[k])
            return false;
    return true;
}

void sim_check_outcome(struct proc *by, const void *key, size_t key_len, const void *value, size_t len)
{
    struct td_arena *arena;
    Tandem__Mail__V1__Outcome *outcome;
    struct campaign_world *c;
    struct recipient *r;
    uint32_t index, publisher = sim_id_of(by);

    if (!sim_mail_find(key, key_len, &c, &index))
        return; /* a relay's change */
    r = &c->rcpt[index];
    arena = td_arena_new(len * 8 + 65536);
    if (td_pb_read(&tandem__mail__v1__outcome__descriptor, value, len, arena, (ProtobufCMessage **)&outcome,
                   NULL) < 0 ||
        outcome->kind_case != TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT || outcome->index != index) {
        sim_violation("L", "%s/%u: an outcome that is none", c->id, index);
        td_arena_free(arena);
        return;
    }
    sim_trace("  kafka outcome %s/%u: %d %s %s (from %s)%s", c->id, index, (int)outcome->recipient->result,
              outcome->recipient->relay, outcome->recipient->reason, by->name, r->done ? "" : " unledgered");
    if (!r->done || len != r->ended_len || memcmp(value, r->ended, len) != 0) {
        r->loose = true;
        loosen(r, by);
    }
    r->evidence = r->evidence || strncmp(outcome->recipient->reason, "evidence.", 9) == 0;
    r->publishers = r->publishers || (r->publisher && r->publisher != publisher);
    r->publisher = publisher;
    if (r->distinct == 0)
        first_outcome(r, outcome->recipient, value, len);
    else if (len != r->outcome_len || memcmp(value, r->outcome, len) != 0)
        r->distinct++;
    td_arena_free(arena);
    if (r->result == RESULT(EXPIRED) && strcmp(r->reason, "deadline") == 0 && is_idle() && !r->refusal[0] && !r->refusal[1] && !is_held(c))
        sim_violation("idle", "%s/%u has expired although all has been well for a minute and relays had nothing to do", c->id, index);
    if (r->distinct > 1 && r->evidence && !r->doubted)
        sim_violation("L", "%s/%u was ended by evidence, though nobody was in doubt, and by its dispatcher", c->id, index);
    if (r->distinct > 1 && !(r->loose && r->publishers) && !r->unledgered)
        sim_violation("L", "%s/%u has a second outcome that differs", c->id, index);
}

/* What a commit passes has its outcome, lies on a retry topic, or could not be read at all. */
void sim_check_commit(struct td_lane lane, int64_t from, int64_t to)
{
    const struct sim_partition *p = sim_partition_of(lane);

    if (to < from || to > (int64_t)p->count)
        sim_violation("offset", "%s-%d goes from %lld to %lld of %zu", td_topics[lane.topic].name,
                      (int)lane.partition, (long long)from, (long long)to, p->count);
    for (int64_t at = from; at < to && at < (int64_t)p->count; at++) {
        struct campaign_world *c;
        uint32_t index;

        if (!sim_mail_find(p->record[at].key, p->record[at].key_len, &c, &index))
            continue;
        if (c->rcpt[index].distinct == 0 && !sim_log_covers(p->record[at].key, p->record[at].key_len))
            sim_violation("offset", "%s-%d is committed past %s/%u, which has no outcome",
                          td_topics[lane.topic].name, (int)lane.partition, c->id, index);
    }
}

/* ---- when all is over ---- */

/* Redis was away when it mattered, and more went wrong besides: see README.md, "beyond the ledger's reach". */
void sim_check_died(const struct proc *proc)
{
    uint32_t id = sim_id_of(proc);

    for (size_t n = 0; n < sim.campaigns; n++)
        for (uint32_t i = 0; i < sim.campaign[n].count; i++) {
            struct recipient *r = &sim.campaign[n].rcpt[i];

            r->sender_died = r->sender_died || r->loose_by[0] == id || r->loose_by[1] == id;
        }
}

static void weaken(const struct recipient *r, const struct campaign_world *c, uint32_t i)
{
    sim_trace(
        "weak %s/%u: taken %u+%u, %zu outcomes, unledgered %d loose %d publishers %d records %d killed %d died %d",
        c->id, i, r->taken[0], r->taken[1], r->distinct, r->unledgered, r->loose, r->publishers, r->records,
        r->killed, r->sender_died);
    sim.weakened++;
    if (!r->sender_died && r->records > 1)
        sim.weakened_repeats++;
    else if (!r->sender_died)
        sim.weakened_alive++;
}

static void check_recipient(const struct campaign_world *c, uint32_t i)
{
    const struct recipient *r = &c->rcpt[i];
    unsigned copies = 0, more = r->unconfirmed + (unsigned)r->retried;
    bool weak = r->unledgered || (r->loose && r->publishers);

    for (size_t k = 0; k < SIM_RELAYS; k++)
        copies += r->taken[k];
    if (r->distinct == 0) {
        sim_violation("L", "%s/%u has no outcome", c->id, i);
        return;
    }
    if (copies > 1 + (c->resend ? more : 0)) {
        if (weak)
            weaken(r, c, i);
        else
            sim_violation("D", "%s/%u was taken %u times", c->id, i, copies);
        return;
    }
    if (r->distinct > 1) {
        weaken(r, c, i);
        return;
    }
    if (r->result == RESULT(ACCEPTED)) {
        if (r->relay < 0 || r->taken[r->relay] == 0 || (copies > r->taken[r->relay] && !weak && !c->resend))
            sim_violation("C", "%s/%u is ACCEPTED by %s, which does not have it, or another one does too", c->id,
                          i, r->relay < 0 ? "nobody" : sim.proc[0].settings.relays[r->relay].name);
    } else if (r->result != RESULT(UNCONFIRMED) && copies > 0) {
        if (weak)
            weaken(r, c, i);
        else
            sim_violation("C", "%s/%u is %d (%s), and a relay has it", c->id, i, (int)r->result, r->reason);
    }
}

/* What the ceiling counts is what mail.outcomes says; less when somebody died, or ended, who owed the ledger some. */
static void check_refused(const struct campaign_world *c)
{
    for (size_t k = 0; k < SIM_RELAYS; k++) {
        bool whole = sim.kills + sim.ends == 0 && sim.weakened == 0 && !sim.emptied;
        uint64_t said = 0;

        for (uint32_t i = 0; i < c->count; i++)
            said += c->rcpt[i].hard && c->rcpt[i].relay == (int8_t)k;
        if (c->refused[k] > said + sim.weakened || (whole && c->refused[k] != said))
            sim_violation("C", "%s has %llu refused by %s, and %llu outcomes say so", c->id, (unsigned long long)c->refused[k],
                          sim.proc[0].settings.relays[k].name, (unsigned long long)said);
    }
}

static void check_processes(void)
{
    for (size_t i = 0; i < SIM_PROCS; i++) {
        const struct proc *proc = &sim.proc[i];
        const struct dispatch *d = proc->state;

        if (!proc->alive || proc->stopping)
            continue;
        /* Mails without a lane may wait for a relay's last word a little longer. */
        for (const struct lane *lane = lane_first(d->lanes); lane; lane = lane->next)
            for (const struct mail *mail = lane->mails; mail; mail = mail->lane_next)
                sim_violation("idle", "%s still holds %s in state %d", proc->name, mail->key, (int)mail->state);
        if (d->begun[0] || d->begun[1])
            sim_violation("idle", "%s has nothing to do and %zu bulk and %zu express mails begun", proc->name, d->begun[0], d->begun[1]);
        if (!proc->redis_cut && sim_redis_well() && outcomes_owed(d->outcomes))
            sim_violation("idle", "%s still owes the ledger %zu ends", proc->name, outcomes_owed(d->outcomes));
    }
}

void sim_check_end(void)
{
    uint64_t lag;

    if (sim.failed)
        return;
    sim.current = NULL;
    for (size_t n = 0; n < sim.campaigns && !sim.failed; n++)
        for (uint32_t i = 0; i < sim.campaign[n].count && !sim.failed; i++)
            check_recipient(&sim.campaign[n], i);
    for (size_t n = 0; n < sim.campaigns && !sim.failed; n++)
        check_refused(&sim.campaign[n]);
    sim_lag(&lag);
    for (size_t i = 0; i < SIM_LANES && lag; i++) {
        const struct sim_partition *p = sim_partition_of(sim_lane_at(i));

        if (p->committed < (int64_t)p->count)
            sim_trace("%s-%d is committed up to %lld of %zu", td_topics[sim_lane_at(i).topic].name,
                      (int)sim_lane_at(i).partition, (long long)p->committed, p->count);
    }
    if (lag)
        sim_violation("offset", "%llu records have their end and are not committed", (unsigned long long)lag);
    if (sim.dead_letters < sim.garbage)
        sim_violation("L", "%u of %u unreadable records are dead letters", sim.dead_letters, sim.garbage);
    if (sim.unconfirmed > sim.may_doubt + sim.lost_replies)
        sim_violation("bound", "%llu UNCONFIRMED, at most %llu may be", (unsigned long long)sim.unconfirmed,
                      (unsigned long long)(sim.may_doubt + sim.lost_replies));
    check_processes();
}
