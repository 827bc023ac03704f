/* The consumer group "dispatch": a coordinator, and each process's member as kafka_in.c behaves (eager, static
 * members).
 *
 * The coordinator knows members by instance. A member that is not heard for the session timeout is out; a change
 * begins a rebalance, in which every member gives all its lanes back and joins again. A commit is taken only from
 * a member of the present generation, and is the proof of membership that td_kafka_in_alive_ms is about. */
#include "sim.h"

#include <string.h>

#include "tandem/clock.h"

enum {
    SESSION_MS = 6000,
    HEARTBEAT_MS = 1500,
    TICK_MS = 100,
    COMMIT_GAP_MS = 100,
    HURRY_GAP_MS = 20,
    FLUSH_MAX_MS = 5000,
    REVOKE_MAX_MS = 20000,
    REBALANCE_MAX_MS = 60000,
    A_TURN = 500,
    REQUEST_MS = 4000
};

enum in_state { IN_JOINING, IN_ASKING, IN_ASSIGNED, IN_REVOKING, IN_FLUSHING, IN_CLOSED };

struct in_lane {
    bool assigned, paused;
    int64_t position, start, wanted, acked, sent;
    const char *note;
    unsigned note_now, note_acked;
    size_t fetched; /* records that have come over while the broker could be reached */
};

struct td_kafka_in {
    struct proc *proc;
    struct td_kafka_in_ops ops;
    void *user;
    enum in_state state;
    struct in_lane lane[SIM_LANES];
    size_t turn;
    uint64_t since, pumped, pumped_before, joined, proof_ms, commit_sent, heartbeat_at, heard_at, generation;
    bool held, topic_held[TD_T_COUNT], lost, on_its_way, rejected, stop_wanted, freed, woken;
    unsigned lose_commits;
    uint64_t commit_serial;
    void (*stopped)(void *user);
    void *stopped_user;
};

static struct {
    uint64_t generation;
    bool rebalancing;
    uint64_t until, not_before;
    struct member {
        bool known, joined;
        uint64_t deadline;
        uint64_t generation; /* of the assignment it has */
        bool lane[SIM_LANES];
    } member[SIM_PROCS];
} group;

uint64_t sim_session_us(void)
{
    return SESSION_MS * MS;
}

static uint64_t latency(void)
{
    return sim_between(300, 4000);
}

/* ---- the coordinator ---- */

static void rebalance(const char *why)
{
    if (group.rebalancing)
        return;
    sim_trace("group rebalances: %s", why);
    group.rebalancing = true;
    group.until = sim.now + REBALANCE_MAX_MS * MS;
    group.not_before = sim.now + sim_between(100 * MS, SEC);
    for (size_t i = 0; i < SIM_PROCS; i++)
        group.member[i].joined = false;
}

static void on_assignment(void *arg, uint64_t generation);

static void give(size_t i)
{
    struct proc *proc = &sim.proc[i];

    if (proc->alive && proc->in && !proc->in->freed)
        sim_after(latency(), proc, on_assignment, proc->in, group.generation);
}

static void complete(void)
{
    size_t members[SIM_PROCS], count = 0, first;

    for (size_t i = 0; i < SIM_PROCS; i++) {
        struct member *m = &group.member[i];

        if (m->known && !m->joined)
            m->known = false; /* it did not come */
        memset(m->lane, 0, sizeof(m->lane));
        if (m->known)
            members[count++] = i;
    }
    group.rebalancing = false;
    group.generation++;
    if (count == 0)
        return;
    first = sim_below(count);
    for (size_t lane = 0; lane < SIM_LANES; lane++)
        group.member[members[(lane % SIM_PARTS + first) % count]].lane[lane] = true;
    sim_trace("group generation %llu: %zu members", (unsigned long long)group.generation, count);
    for (size_t i = 0; i < count; i++) {
        group.member[members[i]].generation = group.generation;
        group.member[members[i]].joined = false;
        group.member[members[i]].deadline = sim.now + SESSION_MS * MS;
        give(members[i]);
    }
}

static void on_coordinator(void *arg, uint64_t tag)
{
    bool all = true, any = false;

    (void)arg;
    (void)tag;
    for (size_t i = 0; i < SIM_PROCS; i++) {
        struct member *m = &group.member[i];

        if (m->known && sim.now > m->deadline) {
            m->known = false;
            sim_trace("group has lost %s", sim.proc[i].name);
            rebalance("a member was not heard");
        }
    }
    for (size_t i = 0; i < SIM_PROCS; i++)
        if (group.member[i].known) {
            any = true;
            all = all && group.member[i].joined;
        }
    if (group.rebalancing && any && ((all && sim.now >= group.not_before) || sim.now > group.until))
        complete();
    sim_after(100 * MS, NULL, on_coordinator, NULL, 0);
}

struct request {
    struct td_kafka_in *in;
    unsigned life;
    uint64_t generation, serial;
    int64_t offset[SIM_LANES]; /* -1: none */
    const char *note[SIM_LANES];
    unsigned note_now[SIM_LANES];
};

static void on_join(void *arg, uint64_t index)
{
    struct member *m = &group.member[index];
    struct request *request = arg;

    if (sim.proc[index].life != request->life || sim.proc[index].kafka_cut)
        return;
    m->deadline = sim.now + SESSION_MS * MS;
    if (m->known && !group.rebalancing && m->generation == group.generation) {
        sim_trace("group gives %s its lanes again", sim.proc[index].name); /* a static member is back */
        give(index);
        return;
    }
    if (!m->known)
        rebalance("a member joins");
    m->known = m->joined = true;
}

/* ---- the member ---- */

static void enter(struct td_kafka_in *in, enum in_state state)
{
    in->state = state;
    in->since = sim.now;
}

static void pump(struct td_kafka_in *in);

static void on_wake(void *arg, uint64_t tag)
{
    struct td_kafka_in *in = arg;

    (void)tag;
    in->woken = false;
    if (!in->freed)
        pump(in);
}

static void wake(struct td_kafka_in *in)
{
    if (in->woken || in->freed || !in->proc->alive)
        return;
    in->woken = true;
    sim_after(sim_between(10, 1000), in->proc, on_wake, in, 0);
}

static void on_tick(void *arg, uint64_t tag)
{
    struct td_kafka_in *in = arg;

    (void)tag;
    if (in->freed)
        return;
    pump(in);
    sim_after(TICK_MS * MS, in->proc, on_tick, in, 0);
}

static bool has_more(const struct in_lane *lane)
{
    return lane->assigned && (lane->wanted > lane->acked || lane->note_now != lane->note_acked);
}

static bool settled(const struct td_kafka_in *in)
{
    if (in->rejected)
        return true;
    for (size_t i = 0; i < SIM_LANES; i++)
        if (has_more(&in->lane[i]))
            return false;
    return true;
}

static size_t list(const struct td_kafka_in *in, struct td_lane *lanes, int64_t *offsets)
{
    size_t count = 0;

    for (size_t i = 0; i < SIM_LANES; i++) {
        if (!in->lane[i].assigned)
            continue;
        lanes[count] = sim_lane_at(i);
        offsets[count++] = in->lane[i].start;
    }
    return count;
}

static void begin_revoke(struct td_kafka_in *in, bool lost)
{
    struct td_lane lanes[SIM_LANES];
    int64_t offsets[SIM_LANES];
    size_t count = list(in, lanes, offsets);

    in->lost = lost;
    enter(in, IN_REVOKING);
    sim_trace("lanes are revoked%s", lost ? ", lost" : "");
    sim_proc_doubt(in->proc);
    if (count)
        in->ops.on_revoked(in->user, lanes, count, lost);
    else
        enter(in, IN_FLUSHING);
}

static void join(struct td_kafka_in *in)
{
    struct request *request = sim_alloc(sizeof(*request));

    enter(in, IN_JOINING);
    request->life = in->proc->life;
    if (!in->proc->kafka_cut)
        sim_after(latency(), NULL, on_join, request, in->proc->index);
}

static void on_offsets(void *arg, uint64_t generation)
{
    struct td_kafka_in *in = arg;
    struct td_lane lanes[SIM_LANES];
    int64_t offsets[SIM_LANES];
    size_t count;

    if (in->freed || in->state != IN_ASKING || generation != in->generation)
        return;
    if (in->proc->kafka_cut) {
        sim_after(500 * MS, in->proc, on_offsets, in, generation);
        return;
    }
    for (size_t i = 0; i < SIM_LANES; i++) {
        const struct sim_partition *p = sim_partition_of(sim_lane_at(i));

        in->lane[i] = (struct in_lane){.assigned = group.member[in->proc->index].lane[i],
                                       .start = p->committed < 0 ? 0 : p->committed,
                                       .position = p->committed < 0 ? 0 : p->committed,
                                       .note = p->note,
                                       .wanted = -1,
                                       .acked = -1};
    }
    in->proof_ms = in->joined;
    in->rejected = in->on_its_way = false;
    in->commit_serial++;
    enter(in, IN_ASSIGNED);
    count = list(in, lanes, offsets);
    if (count)
        in->ops.on_assigned(in->user, lanes, offsets, count);
    wake(in);
}

static void on_assignment(void *arg, uint64_t generation)
{
    struct td_kafka_in *in = arg;

    if (in->freed || in->state != IN_JOINING || generation != group.generation)
        return;
    in->generation = generation;
    in->joined = in->pumped_before;
    in->heard_at = sim.now;
    enter(in, IN_ASKING);
    sim_after(latency(), in->proc, on_offsets, in, generation);
}

/* ---- commits ---- */

static void on_commit_answer(void *arg, uint64_t taken)
{
    struct request *request = arg;
    struct td_kafka_in *in = request->in;

    if (in->freed || request->serial != in->commit_serial)
        return;
    in->on_its_way = false;
    if (taken == 2) {
        in->rejected = true;
        return;
    }
    if (taken != 1)
        return;
    in->proof_ms = in->commit_sent;
    for (size_t i = 0; i < SIM_LANES; i++)
        if (request->offset[i] >= 0) {
            if (request->offset[i] > in->lane[i].acked)
                in->lane[i].acked = request->offset[i];
            in->lane[i].note_acked = request->note_now[i];
        }
}

static void on_commit(void *arg, uint64_t index)
{
    struct request *request = arg;
    struct td_kafka_in *in = request->in;
    struct member *m = &group.member[index];
    struct proc *proc = &sim.proc[index];
    bool alive = proc->life == request->life;

    if (proc->kafka_cut || (in->lose_commits && sim_chance(500))) {
        in->lose_commits -= in->lose_commits > 0;
        if (alive)
            sim_after(REQUEST_MS * MS, proc, on_commit_answer, request, 0);
        return;
    }
    if (!m->known || m->generation != request->generation || m->generation != group.generation) {
        if (alive)
            sim_after(latency(), proc, on_commit_answer, request, 2);
        return;
    }
    m->deadline = sim.now + SESSION_MS * MS;
    for (size_t i = 0; i < SIM_LANES; i++) {
        struct sim_partition *p = sim_partition_of(sim_lane_at(i));

        if (request->offset[i] < 0)
            continue;
        sim_trace("  kafka commit %s-%d@%lld (from %s)", td_topics[sim_lane_at(i).topic].name,
                  (int)sim_lane_at(i).partition, (long long)request->offset[i], proc->name);
        sim_check_commit(sim_lane_at(i), p->committed < 0 ? 0 : p->committed, request->offset[i]);
        p->committed = request->offset[i];
        p->note = request->note[i];
    }
    if (!alive)
        return;
    if (in->lose_commits) { /* taken, but the answer never comes */
        in->lose_commits--;
        sim_after(REQUEST_MS * MS, proc, on_commit_answer, request, 0);
    } else {
        sim_after(latency(), proc, on_commit_answer, request, 1);
    }
}

static void pump_commits(struct td_kafka_in *in)
{
    uint64_t now = td_mono_ms(), gap = in->state == IN_ASSIGNED ? COMMIT_GAP_MS : HURRY_GAP_MS;
    struct request *request;
    bool any = false;
    size_t first = SIM_LANES;

    if (in->on_its_way || in->rejected || now - in->commit_sent < gap)
        return;
    for (size_t i = SIM_LANES; i-- > 0;)
        if (in->lane[i].assigned) {
            any = any || has_more(&in->lane[i]);
            first = i;
        }
    if (first == SIM_LANES ||
        (!any && (now - in->proof_ms < HEARTBEAT_MS || now - in->commit_sent < HEARTBEAT_MS)))
        return;
    if (!sim_effect())
        return;
    request = sim_alloc(sizeof(*request));
    request->in = in;
    request->life = in->proc->life;
    request->generation = in->generation;
    request->serial = in->commit_serial;
    for (size_t i = 0; i < SIM_LANES; i++) {
        const struct in_lane *lane = &in->lane[i];
        int64_t before = lane->acked > lane->start ? lane->acked : lane->start;

        request->offset[i] = -1;
        request->note[i] = lane->note;
        request->note_now[i] = lane->note_now;
        if (has_more(lane) || (!any && i == first))
            request->offset[i] = lane->wanted > before ? lane->wanted : before;
    }
    in->commit_sent = now;
    in->on_its_way = true;
    sim_after(latency(), NULL, on_commit, request, in->proc->index);
}

/* ---- heartbeats, records ---- */

static void heartbeat(struct td_kafka_in *in)
{
    struct member *m = &group.member[in->proc->index];

    if (sim.now >= in->heartbeat_at && !in->proc->kafka_cut) {
        in->heartbeat_at = sim.now + HEARTBEAT_MS * MS;
        in->heard_at = sim.now;
        if (m->known)
            m->deadline = sim.now + SESSION_MS * MS;
        if (in->state == IN_ASSIGNED &&
            (!m->known || m->generation != in->generation || group.generation != in->generation))
            begin_revoke(in, true);
        else if (in->state == IN_ASSIGNED && group.rebalancing)
            begin_revoke(in, false);
        else if (in->state == IN_JOINING &&
                 (!m->known || (!m->joined && (group.rebalancing || sim.now - in->since > 2 * SEC))))
            join(in);
        else if (in->state == IN_ASKING && (!m->known || group.rebalancing || group.generation != in->generation))
            join(in);
    } else if (in->state == IN_ASSIGNED && sim.now - in->heard_at > SESSION_MS * MS) {
        begin_revoke(in, true); /* librdkafka's own session timer */
    }
}

static bool reading(const struct td_kafka_in *in)
{
    return in->state == IN_ASSIGNED && !in->held && !in->stop_wanted && !in->freed;
}

static void drain(struct td_kafka_in *in)
{
    size_t idle = 0, left = A_TURN;

    for (size_t i = 0; i < SIM_LANES && !in->proc->kafka_cut; i++)
        in->lane[i].fetched = sim_partition_of(sim_lane_at(i))->count;
    while (idle < SIM_LANES && left > 0 && reading(in) && !in->proc->doomed) {
        size_t i = in->turn++ % SIM_LANES, count = 0;
        struct in_lane *lane = &in->lane[i];

        while (lane->assigned && !lane->paused && !in->topic_held[sim_lane_at(i).topic] && reading(in) && (size_t)lane->position < lane->fetched &&
               count < 32) {
            const struct sim_record *r = &sim_partition_of(sim_lane_at(i))->record[lane->position];
            struct td_record rec = {.lane = sim_lane_at(i),
                                    .offset = lane->position,
                                    .timestamp_ms = r->timestamp_ms,
                                    .key = r->key,
                                    .key_len = r->key_len,
                                    .value = r->value,
                                    .len = r->len};

            lane->position++;
            count++;
            sim_trace("  record %s-%d@%lld %.*s", td_topics[rec.lane.topic].name, (int)rec.lane.partition,
                      (long long)rec.offset, (int)rec.key_len, (const char *)rec.key);
            in->ops.on_record(in->user, &rec);
        }
        left = left > count ? left - count : 0;
        idle = count ? 0 : idle + 1;
    }
    if (left == 0)
        wake(in);
}

static void step(struct td_kafka_in *in)
{
    uint64_t awake = in->proc->stopped_until > in->since ? in->proc->stopped_until : in->since;

    if (in->state == IN_REVOKING && sim.now - awake > REVOKE_MAX_MS * MS) {
        sim_violation("revoke", "%s has not given its lanes back within %d s", in->proc->name,
                      REVOKE_MAX_MS / 1000);
        enter(in, IN_FLUSHING);
    }
    if (in->state == IN_FLUSHING && (in->lost || settled(in) || sim.now - in->since > FLUSH_MAX_MS * MS)) {
        for (size_t i = 0; i < SIM_LANES; i++)
            in->lane[i].assigned = false;
        in->commit_serial++;
        if (in->stop_wanted)
            enter(in, IN_CLOSED);
        else
            join(in);
    }
    if (in->stop_wanted && in->state == IN_ASSIGNED)
        begin_revoke(in, false);
    else if (in->stop_wanted && (in->state == IN_JOINING || in->state == IN_ASKING))
        enter(in, IN_CLOSED);
}

static void pump(struct td_kafka_in *in)
{
    void (*stopped)(void *) = in->stopped;

    if (in->state == IN_CLOSED && !stopped)
        return;
    in->pumped_before = in->pumped;
    in->pumped = td_mono_ms();
    heartbeat(in);
    step(in);
    if (in->state == IN_CLOSED) {
        in->stopped = NULL;
        if (stopped)
            stopped(in->stopped_user);
        return;
    }
    pump_commits(in);
    if (reading(in))
        drain(in);
}

/* ---- tandem/kafka.h ---- */

int td_kafka_in_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics,
                    const char *group_id, const enum td_topic_id *topics, size_t topic_count,
                    const struct td_kafka_in_ops *ops, void *user, struct td_kafka_in **ret, struct td_err *reterr)
{
    struct td_kafka_in *in = sim_alloc(sizeof(*in));

    (void)settings;
    (void)metrics;
    (void)group_id;
    (void)topics;
    (void)topic_count;
    (void)reterr;
    in->proc = loop->data;
    in->ops = *ops;
    in->user = user;
    in->pumped = in->pumped_before = td_mono_ms();
    in->proc->in = in;
    in->heard_at = sim.now;
    join(in);
    sim_after(TICK_MS * MS, in->proc, on_tick, in, 0);
    *ret = in;
    return TD_OK;
}

static struct in_lane *lane_of(struct td_kafka_in *in, struct td_lane lane)
{
    size_t i = sim_lane_index(lane);

    return i < SIM_LANES && in->lane[i].assigned ? &in->lane[i] : NULL;
}

void td_kafka_in_pause(struct td_kafka_in *in, struct td_lane lane)
{
    struct in_lane *found = lane_of(in, lane);

    if (found)
        found->paused = true;
}

void td_kafka_in_resume(struct td_kafka_in *in, struct td_lane lane)
{
    struct in_lane *found = lane_of(in, lane);

    if (found && found->paused) {
        found->paused = false;
        wake(in);
    }
}

void td_kafka_in_hold(struct td_kafka_in *in, bool hold)
{
    if (in->held && !hold)
        wake(in);
    in->held = hold;
}

void td_kafka_in_commit(struct td_kafka_in *in, struct td_lane lane, int64_t next_offset)
{
    struct in_lane *found = lane_of(in, lane);

    if (found && next_offset > found->wanted && next_offset > found->start)
        found->wanted = next_offset;
}

void td_kafka_in_hold_topic(struct td_kafka_in *in, enum td_topic_id topic, bool hold)
{
    if (in->topic_held[topic] && !hold)
        wake(in);
    in->topic_held[topic] = hold;
}

void td_kafka_in_commit_note(struct td_kafka_in *in, struct td_lane lane, int64_t next_offset, const char *note)
{
    struct in_lane *found = lane_of(in, lane);
    char *copy;

    td_kafka_in_commit(in, lane, next_offset);
    if (!found || strcmp(found->note ? found->note : "", note) == 0)
        return;
    copy = sim_alloc(strlen(note) + 1);
    memcpy(copy, note, strlen(note) + 1);
    found->note = copy;
    found->note_now++;
}

const char *td_kafka_in_note(const struct td_kafka_in *in, struct td_lane lane)
{
    size_t i = sim_lane_index(lane);

    return i < SIM_LANES && in->lane[i].note ? in->lane[i].note : "";
}

bool td_kafka_in_committed(const struct td_kafka_in *in)
{
    return settled(in) && !in->rejected;
}

void td_kafka_in_revoke_done(struct td_kafka_in *in)
{
    if (in->state != IN_REVOKING)
        return;
    enter(in, IN_FLUSHING);
    wake(in);
}

uint64_t td_kafka_in_alive_ms(const struct td_kafka_in *in)
{
    for (size_t i = 0; i < SIM_LANES; i++)
        if (in->lane[i].assigned)
            return in->proof_ms;
    return in->pumped_before;
}

bool td_kafka_in_assigned(const struct td_kafka_in *in)
{
    return in->state == IN_ASSIGNED;
}

double td_kafka_in_part(const struct td_kafka_in *in)
{
    size_t count = 0;

    for (size_t i = 0; i < SIM_LANES; i++)
        count += in->lane[i].assigned;
    return (double)count / SIM_LANES;
}

void td_kafka_in_stop(struct td_kafka_in *in, void (*cb)(void *user), void *user)
{
    in->stop_wanted = true;
    in->stopped = cb;
    in->stopped_user = user;
    wake(in);
}

size_t td_kafka_in_free(struct td_kafka_in *in)
{
    if (in)
        in->freed = true;
    return 0;
}

/* ---- faults ---- */

void sim_group_appended(struct td_lane lane)
{
    size_t i = sim_lane_index(lane);

    for (size_t k = 0; k < SIM_PROCS; k++) {
        struct proc *proc = &sim.proc[k];

        if (proc->alive && proc->in && proc->in->lane[i].assigned && !proc->kafka_cut)
            wake(proc->in);
    }
}

void sim_group_killed(struct proc *proc)
{
    if (proc->in)
        proc->in->freed = true;
}

void sim_group_lose_commits(struct proc *proc, unsigned count)
{
    if (proc->alive && proc->in)
        proc->in->lose_commits = count;
}

void sim_group_shake(void)
{
    rebalance("for no reason");
}

void sim_group_reset(void)
{
    memset(&group, 0, sizeof(group));
    sim_after(100 * MS, NULL, on_coordinator, NULL, 0);
}
