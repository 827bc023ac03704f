/* Kafka without its group: partitions, the producer of each process, and mail.contents as a table. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/id.h"
#include "tandem/pb.h"

#include "tandem/internal/v1/content.pb-c.h"

enum { LINGER_US = 5000, REQUEST_MS = 3000, HELD_US = 200000 };

static const enum td_topic_id lane_topics[SIM_TOPICS] = {TD_T_EXPRESS, TD_T_OUTBOUND, TD_T_RETRY_1M,
                                                         TD_T_RETRY_10M, TD_T_RETRY_1H};
static struct sim_partition partitions[SIM_LANES];

/* ---- partitions ---- */

size_t sim_lane_index(struct td_lane lane)
{
    for (size_t t = 0; t < SIM_TOPICS; t++)
        if (lane_topics[t] == lane.topic && lane.partition >= 0 && lane.partition < SIM_PARTS)
            return t * SIM_PARTS + (size_t)lane.partition;
    return SIM_LANES;
}

struct td_lane sim_lane_at(size_t index)
{
    return (struct td_lane){lane_topics[index / SIM_PARTS], (int32_t)(index % SIM_PARTS)};
}

struct sim_partition *sim_partition_of(struct td_lane lane)
{
    return &partitions[sim_lane_index(lane)];
}

void sim_append(struct td_lane lane, const void *key, size_t key_len, const void *value, size_t len)
{
    struct sim_partition *p = sim_partition_of(lane);

    if (p->count == p->size) {
        size_t size = p->size ? 2 * p->size : 64;
        struct sim_record *record = sim_alloc(size * sizeof(*record));

        if (p->count)
            memcpy(record, p->record, p->count * sizeof(*record));
        p->record = record;
        p->size = size;
    }
    p->record[p->count++] = (struct sim_record){.key = sim_strdup(key, key_len),
                                                .value = value ? sim_strdup(value, len) : NULL,
                                                .key_len = key_len,
                                                .len = len,
                                                .timestamp_ms = INT64_C(1800000000000) + (int64_t)(sim.now / MS)};
    sim_group_appended(lane);
}

/* Is there a record of this mail on a retry topic that no commit has passed? */
bool sim_log_covers(const char *key, size_t key_len)
{
    for (size_t i = 2 * SIM_PARTS; i < SIM_LANES; i++) {
        const struct sim_partition *p = &partitions[i];

        for (size_t at = p->committed < 0 ? 0 : (size_t)p->committed; at < p->count; at++)
            if (p->record[at].key_len == key_len && memcmp(p->record[at].key, key, key_len) == 0)
                return true;
    }
    return false;
}

void sim_lag(uint64_t *ret_lag)
{
    *ret_lag = 0;
    for (size_t i = 0; i < SIM_LANES; i++)
        *ret_lag += partitions[i].count - (partitions[i].committed < 0 ? 0 : (size_t)partitions[i].committed);
}

/* ---- the producer ---- */

struct produce {
    struct produce *next;
    struct td_kafka_out *out;
    enum td_topic_id topic;
    int32_t partition;
    const void *key, *value;
    size_t key_len, len;
    td_delivered_fn *cb;
    void *user;
    uint64_t since;
    bool written, lost, answered;
};

struct td_kafka_out {
    struct proc *proc;
    unsigned life;
    struct produce *first, *last;
    size_t pending;
    uint64_t reaches_at;
    int fault;
    bool broken;
};

static void done(struct produce *p, enum td_code code)
{
    struct td_kafka_out *out = p->out;

    p->answered = true;
    out->pending--;
    if (p->cb)
        p->cb(p->user, 1, code == TD_OK ? NULL : &(struct td_err){code, "produce: simulated"});
}

static void on_answer(void *arg, uint64_t code)
{
    struct produce *p = arg;

    if (!p->answered)
        done(p, (enum td_code)(int)code);
}

static int32_t by_key(const struct produce *p)
{
    uint32_t h = 2166136261u;

    for (size_t i = 0; i < p->key_len; i++)
        h = (h ^ ((const unsigned char *)p->key)[i]) * 16777619u;
    return (int32_t)(h % SIM_PARTS);
}

static void write_record(struct produce *p)
{
    struct td_lane lane = {p->topic, p->partition >= 0 ? p->partition : by_key(p)};

    p->written = true;
    if (p->topic == TD_T_OUTCOMES) {
        sim_check_outcome(p->out->proc, p->key, p->key_len, p->value, p->len);
    } else if (p->topic == TD_T_DEAD_LETTERS) {
        sim.dead_letters++;
    } else if (sim_lane_index(lane) < SIM_LANES) {
        sim_trace("  kafka %s-%d gets %.*s (from %s)", td_topics[p->topic].name, (int)lane.partition,
                  (int)p->key_len, (const char *)p->key, p->out->proc->name);
        sim_append(lane, p->key, p->key_len, p->value, p->len);
    } else {
        abort();
    }
}

static void on_reached(void *arg, uint64_t fault)
{
    struct produce *p = arg;
    struct td_kafka_out *out = p->out;
    bool dead = out->life != out->proc->life;

    if (p->lost || p->answered)
        return;
    if (out->proc->kafka_cut && !dead) { /* the producer goes on trying */
        sim_after(HELD_US, NULL, on_reached, p, fault);
        return;
    }
    if (fault == PRODUCE_FATAL)
        out->broken = true;
    if (fault != PRODUCE_NOT_WRITTEN && !out->broken)
        write_record(p);
    if (dead)
        return;
    if (out->broken)
        sim_after(sim_between(300, 3000), out->proc, on_answer, p, (uint64_t)(int64_t)TD_EFATAL);
    else if (fault)
        sim_after(REQUEST_MS * MS, out->proc, on_answer, p, (uint64_t)(int64_t)TD_ETIMEOUT);
    else
        sim_after(sim_between(300, 3000), out->proc, on_answer, p, TD_OK);
}

int td_kafka_out_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics,
                     struct td_kafka_out **ret, struct td_err *reterr)
{
    struct td_kafka_out *out = sim_alloc(sizeof(*out));

    (void)settings;
    (void)metrics;
    (void)reterr;
    out->proc = loop->data;
    out->life = out->proc->life;
    out->proc->out = out;
    *ret = out;
    return TD_OK;
}

int td_kafka_out_send(struct td_kafka_out *out, enum td_topic_id topic, int32_t partition, const void *key,
                      size_t key_len, const void *value, size_t len, const struct td_kafka_header *headers,
                      size_t header_count, td_delivered_fn *cb, void *user, struct td_err *reterr)
{
    struct produce *p;
    uint64_t at = sim.now + LINGER_US + sim_between(300, 3000);

    (void)headers;
    (void)header_count;
    if (!sim_effect())
        return TD_OK;
    if (out->broken)
        return td_fail(reterr, TD_EFATAL, "producer: simulated");
    if (!sim.calm && sim_chance(2))
        return td_fail(reterr, TD_EAGAIN, "queue full: simulated");
    p = sim_alloc(sizeof(*p));
    *p = (struct produce){.out = out,
                          .topic = topic,
                          .partition = partition,
                          .key = sim_strdup(key, key_len),
                          .key_len = key_len,
                          .value = value ? sim_strdup(value, len) : NULL,
                          .len = len,
                          .cb = cb,
                          .user = user,
                          .since = sim.now};
    out->pending++;
    if (out->last)
        out->last->next = p;
    else
        out->first = p;
    out->last = p;
    if (at < out->reaches_at)
        at = out->reaches_at;
    out->reaches_at = at;
    sim_at(at, NULL, on_reached, p, (uint64_t)out->fault);
    out->fault = 0;
    return TD_OK;
}

size_t td_kafka_out_pending(const struct td_kafka_out *out)
{
    return out->pending;
}

size_t td_kafka_out_free(struct td_kafka_out *out, unsigned timeout_ms)
{
    size_t unsent = 0;

    (void)timeout_ms;
    if (!out)
        return 0;
    for (struct produce *p = out->first; p; p = p->next) {
        bool reaches = !out->proc->kafka_cut && !out->broken && !out->proc->doomed;

        if (p->answered)
            continue;
        if (reaches && !p->written)
            write_record(p);
        p->lost = true; /* no later event of it counts */
        unsent += !(p->written && reaches);
        done(p, p->written && reaches ? TD_OK : TD_EIO);
    }
    return unsent;
}

void sim_produce_fault(struct proc *proc, int kind)
{
    if (proc->alive && proc->out)
        proc->out->fault = kind;
}

/* Some of what was under way arrives, in order; the rest was only in memory. */
void sim_log_killed(struct proc *proc)
{
    size_t arrive = sim_chance(500) ? 0 : sim_below(20);

    for (struct produce *p = proc->out ? proc->out->first : NULL; p; p = p->next)
        if (!p->written && !p->answered && arrive-- == 0) {
            for (; p; p = p->next)
                p->lost = true;
            return;
        }
}

/* ---- mail.contents ---- */

struct get {
    struct td_kafka_table *table;
    td_table_get_fn *cb;
    void *user;
    struct campaign_world *campaign;
    bool answered;
    struct get *next;
};

struct td_kafka_table {
    struct proc *proc;
    void (*on_change)(void *user, const void *key, size_t key_len, const void *value, size_t len);
    void *user;
    bool loaded, freed;
    struct get *gets;
};

static void tell_campaign(struct td_kafka_table *table, const struct campaign_world *c)
{
    Tandem__Internal__V1__CampaignContent content = TANDEM__INTERNAL__V1__CAMPAIGN_CONTENT__INIT;
    void *packed;
    size_t len;

    content.campaign_id = (char *)(uintptr_t)c->id;
    content.state = (Tandem__Internal__V1__CampaignState)c->state;
    content.revision = (uint32_t)c->revision;
    packed = td_pb_write(&content.base, &len);
    table->on_change(table->user, c->id, strlen(c->id), packed, len);
    free(packed);
}

static void on_load(void *arg, uint64_t tag)
{
    struct td_kafka_table *table = arg;

    (void)tag;
    if (table->freed)
        return;
    table->loaded = true;
    for (size_t i = 0; i < sim.campaigns; i++)
        tell_campaign(table, &sim.campaign[i]);
}

static void on_content(void *arg, uint64_t campaign)
{
    struct td_kafka_table *table = arg;

    if (!table->freed && table->loaded)
        tell_campaign(table, &sim.campaign[campaign]);
}

void sim_content_changed(struct campaign_world *campaign)
{
    for (size_t i = 0; i < SIM_PROCS; i++)
        if (sim.proc[i].alive && sim.proc[i].table)
            sim_after(sim_between(5 * MS, 300 * MS), &sim.proc[i], on_content, sim.proc[i].table,
                      (uint64_t)(campaign - sim.campaign));
}

int td_kafka_table_new(uv_loop_t *loop, const struct td_settings *settings, struct td_metrics *metrics,
                       enum td_topic_id topic, size_t cache_bytes,
                       void (*on_change)(void *user, const void *key, size_t key_len, const void *value,
                                         size_t len),
                       void *user, struct td_kafka_table **ret, struct td_err *reterr)
{
    struct td_kafka_table *table = sim_alloc(sizeof(*table));

    (void)settings;
    (void)metrics;
    (void)topic;
    (void)cache_bytes;
    (void)reterr;
    table->proc = loop->data;
    table->on_change = on_change;
    table->user = user;
    table->proc->table = table;
    sim_after(sim_between(10 * MS, 500 * MS), table->proc, on_load, table, 0);
    *ret = table;
    return TD_OK;
}

bool td_kafka_table_loaded(const struct td_kafka_table *table)
{
    return table->loaded;
}

static void give(struct get *get)
{
    Tandem__Internal__V1__ContentPart part = TANDEM__INTERNAL__V1__CONTENT_PART__INIT;
    struct campaign_world *c = get->campaign;
    struct td_table_value *value;
    void *packed;
    size_t len;

    get->answered = true;
    part.sha256.data = c->sha;
    part.sha256.len = sizeof(c->sha);
    part.part_count = 1;
    part.total_bytes = c->blob_len;
    part.content.data = (uint8_t *)c->blob;
    part.content.len = c->blob_len;
    packed = td_pb_write(&part.base, &len);
    value = malloc(sizeof(*value) + len);
    value->len = len;
    value->refs = 1;
    memcpy(value->data, packed, len);
    free(packed);
    get->cb(get->user, value, NULL);
    free(value);
}

static void on_get(void *arg, uint64_t timed_out)
{
    struct get *get = arg;

    if (get->answered || get->table->freed)
        return;
    if (timed_out) {
        get->answered = true;
        get->cb(get->user, NULL, NULL);
    } else if (!get->table->loaded || get->table->proc->kafka_cut) {
        sim_after(100 * MS, get->table->proc, on_get, get, 0);
    } else {
        give(get);
    }
}

/* "part/<hex>/0" */
static struct campaign_world *by_part(const void *key, size_t key_len)
{
    char hex[65];

    for (size_t i = 0; i < sim.campaigns; i++) {
        td_hex(hex, sim.campaign[i].sha, 32);
        if (key_len > 69 && memcmp((const char *)key + 5, hex, 64) == 0)
            return &sim.campaign[i];
    }
    abort();
}

int td_kafka_table_get(struct td_kafka_table *table, const void *key, size_t key_len, unsigned timeout_ms,
                       td_table_get_fn *cb, void *user)
{
    struct get *get = sim_alloc(sizeof(*get));

    *get = (struct get){table, cb, user, by_part(key, key_len), false, table->gets};
    table->gets = get;
    if (table->loaded && sim_chance(500)) {
        give(get);
        return TD_OK;
    }
    sim_after(sim_between(MS, 50 * MS), table->proc, on_get, get, 0);
    sim_after(timeout_ms * MS, table->proc, on_get, get, 1);
    return TD_OK;
}

void td_kafka_table_free(struct td_kafka_table *table)
{
    if (!table)
        return;
    table->freed = true;
    for (struct get *get = table->gets; get; get = get->next)
        if (!get->answered) {
            get->answered = true;
            get->cb(get->user, NULL, &(struct td_err){TD_EIO, "closing"});
        }
}

void sim_log_reset(void)
{
    memset(partitions, 0, sizeof(partitions));
    for (size_t i = 0; i < SIM_LANES; i++)
        partitions[i].committed = -1;
}
