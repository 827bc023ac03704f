/* Wiring, and the three clocks of the program: the worker renders in slices of some milliseconds while there is
 * something to do, lane after lane; the tick repeats what failed, polls what dispatch has committed and looks
 * after time; records, delivery reports and campaigns wake the worker. */
#include "service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/clock.h"
#include "tandem/id.h"
#include "tandem/log.h"
#include "tandem/stages.h"
#include "tandem/stop.h"

enum {
    TICK_MS = 200,
    SLICE_US = 4000,          /* then the loop gets its turn */
    IN_FLIGHT_MAX = 20000,    /* records that the producer may hold */
    HAND_BACK_MS = 5000,      /* what is under way may take so long when lanes are revoked */
    CONTENT_CACHE = 16 << 20, /* bytes */
    SCRATCH_BYTES = 16 << 20, /* of one mail's recipe */
    PACKED_MAX = 1000000,     /* of one record on mail.outbound */
    FLUSH_MS = 5000
};

static const enum td_topic_id paced_topic[PACED_TOPICS] = {TD_T_OUTBOUND, TD_T_EXPRESS};

/* ---- the worker ---- */

static void on_worker(uv_idle_t *worker)
{
    struct rendering *r = worker->data;
    uint64_t from_us = td_mono_us(), now_us = from_us;
    enum td_stage before = td_stage(TD_STAGE_TURN);
    size_t idle = 0;

    while (idle < TD_LANES_MAX && now_us - from_us < SLICE_US) {
        struct lane *lane = &r->lanes[r->next_lane];
        bool full = td_kafka_out_pending(r->out) >= IN_FLIGHT_MAX;

        r->next_lane = (r->next_lane + 1) % TD_LANES_MAX;
        if (lane->chunk_count == 0 || lane->idle || full) {
            idle++;
            continue;
        }
        idle = lane_work(r, lane, now_us / 1000) ? 0 : idle + 1;
        now_us = td_mono_us();
    }
    td_metric_add(r->m_busy, (double)(td_mono_us() - from_us) / 1e6);
    if (idle >= TD_LANES_MAX)
        uv_idle_stop(worker);
    td_stage(before);
}

void rendering_wake(struct rendering *r)
{
    if (!r->handing_back && !r->stopping)
        uv_idle_start(r->worker, on_worker);
}

/* What concerns all lanes: a campaign changed, dispatch has taken mails, time has passed. */
static void wake_all(struct rendering *r)
{
    for (size_t i = 0; i < TD_LANES_MAX; i++)
        r->lanes[i].idle = false;
    rendering_wake(r);
}

static void on_campaign(void *user)
{
    wake_all(user);
}

/* ---- pacing ---- */

/* The note of a dispatcher begins with it (services/dispatch/done_runs.h). */
static int64_t done_above(const char *note)
{
    char *end;
    long long done = strtoll(note, &end, 10);

    return end == note || (*end && *end != ' ') || done < 0 || done > UINT32_MAX ? 0 : done;
}

static void on_committed(void *user, const struct td_committed *list, size_t count, const struct td_err *err)
{
    struct poll *poll = user;
    struct rendering *r = poll->r;
    uint64_t now_ms = td_mono_ms();
    int64_t taken = 0;

    poll->due = false;
    if (err)
        return; /* the next poll */
    count = count < TD_LANES_MAX ? count : TD_LANES_MAX;
    for (size_t i = 0; i < count; i++)
        taken += pace_committed(&r->paces[poll->topic][i], list[i].offset, done_above(list[i].note), now_ms);
    pace_learn(&r->rates[poll->topic], r->paces[poll->topic], count, taken, now_ms);
    wake_all(r);
}

static void poll_committed(struct rendering *r, size_t topic)
{
    struct poll *poll = &r->polls[topic];

    if (poll->due)
        return;
    *poll = (struct poll){r, topic, true};
    if (td_kafka_committed(r->out, "dispatch", paced_topic[topic], on_committed, poll, NULL) < 0)
        poll->due = false;
}

/* ---- the tick ---- */

static void hand_back_when_idle(struct rendering *r);

static void on_tick(uv_timer_t *timer)
{
    struct rendering *r = timer->data;
    const struct td_settings *s = r->settings;
    uint64_t now_ms = td_mono_ms();
    enum td_stage before = td_stage(TD_STAGE_TURN);
    bool any = false;
    size_t full = 0;

    campaigns_tick(r->campaigns, now_ms);
    endings_tick(r->endings, now_ms);
    chunks_free_orphans(r);
    for (size_t i = 0; i < TD_LANES_MAX; i++) {
        struct lane *lane = &r->lanes[i];

        if (lane->chunk_count > 0) {
            any = true;
            full += !pace_allows(&r->paces[0][i], &r->rates[0], s->rendering_ahead_time_ms, s->rendering_ahead);
        }
        if (lane->assigned)
            lane_commit(r, lane);
    }
    td_metric_set(r->m_paced, (double)full);
    for (size_t i = 0; any && i < PACED_TOPICS; i++)
        poll_committed(r, i);
    if (r->handing_back)
        hand_back_when_idle(r);
    else if (any)
        wake_all(r);
    td_stage(before);
}

/* ---- the group ---- */

static void on_record(void *user, const struct td_record *rec)
{
    struct rendering *r = user;
    enum td_stage before = td_stage(TD_STAGE_TAKE);

    if (rec->lane.partition >= 0 && rec->lane.partition < TD_LANES_MAX && r->lanes[rec->lane.partition].assigned)
        lane_take(r, rec);
    td_stage(before);
}

static void on_assigned(void *user, const struct td_lane *lanes, const int64_t *offsets, size_t count)
{
    struct rendering *r = user;

    (void)offsets;
    for (size_t i = 0; i < count; i++) {
        struct lane *lane;

        if (lanes[i].partition >= TD_LANES_MAX) {
            td_log(TD_ERROR, "lane.ignored", "partition=%d max=%d", (int)lanes[i].partition, TD_LANES_MAX - 1);
            continue;
        }
        lane = &r->lanes[lanes[i].partition];
        lane_drop(r, lane);
        if (lane_open(lane, lanes[i], td_kafka_in_note(r->in, lanes[i])) < 0)
            td_app_fail(r->app, &(struct td_err){TD_ENOMEM, "no memory for a lane"});
    }
}

static void hand_back(struct rendering *r)
{
    for (size_t i = 0; i < TD_LANES_MAX; i++)
        lane_drop(r, &r->lanes[i]);
    r->handing_back = false;
    td_kafka_in_revoke_done(r->in);
}

/* Nothing new is begun. What is under way is acknowledged within moments; chunks that are whole then are
 * committed. The rest comes again to the next owner, which renders the same bytes; the ledger drops what was sent
 * twice. */
static void hand_back_when_idle(struct rendering *r)
{
    bool idle = true;

    for (size_t i = 0; i < TD_LANES_MAX; i++) {
        if (!r->lanes[i].assigned)
            continue;
        lane_advance(r, &r->lanes[i]);
        lane_commit(r, &r->lanes[i]);
        idle = idle && lane_idle(&r->lanes[i]);
    }
    if (idle || td_mono_ms() >= r->hand_back_by_ms)
        hand_back(r);
}

static void on_revoked(void *user, const struct td_lane *lanes, size_t count, bool lost)
{
    struct rendering *r = user;

    (void)lanes;
    (void)count;
    uv_idle_stop(r->worker);
    r->handing_back = true;
    r->hand_back_by_ms = td_stop_sooner(td_mono_ms() + (lost ? 0 : HAND_BACK_MS), TD_STOP_WORK);
    hand_back_when_idle(r);
}

static void on_fatal(void *user, const struct td_err *err)
{
    struct rendering *r = user;

    td_app_fail(r->app, err);
}

/* ---- contents ---- */

static void on_content(void *user, const void *key, size_t key_len, const void *value, size_t len)
{
    struct rendering *r = user;

    campaigns_changed(r->campaigns, key, key_len, value, len);
}

/* ---- start, stop ---- */

static void make_metrics(struct rendering *r)
{
    struct td_metrics *m = r->app->metrics;

    r->m_mails = td_metric(m, TD_COUNTER, "tandem_rendering_mails_total", "Mails rendered.", "");
    r->m_bytes =
        td_metric(m, TD_COUNTER, "tandem_rendering_message_bytes_total", "Bytes of the mails rendered.", "");
    r->m_busy = td_metric(m, TD_COUNTER, "tandem_rendering_busy_seconds_total", "Time spent rendering.", "");
    r->m_chunks = td_metric(m, TD_GAUGE, "tandem_rendering_chunks_waiting", "Chunks read and not yet done.", "");
    r->m_reread = td_metric(m, TD_COUNTER, "tandem_rendering_chunks_reread_total",
                            "Chunks read again when their campaign's turn came.", "");
    r->m_repeats = td_metric(m, TD_COUNTER, "tandem_rendering_chunks_done_before_total",
                             "Chunks that the lane's owner before had done, and that were not done again.", "");
    r->m_dead = td_metric(m, TD_COUNTER, "tandem_rendering_dead_letters_total", "Records nobody could read.", "");
    r->m_paced = td_metric(m, TD_GAUGE, "tandem_rendering_lanes_full",
                           "Lanes with work that hold as many mails ahead of dispatch as they may.", "");
}

static void closed(uv_handle_t *handle)
{
    free(handle);
}

static void rendering_free(void *state)
{
    struct rendering *r = state;

    if (!r)
        return;
    r->stopping = true;
    td_kafka_table_free(r->contents);
    td_app_left(r->app, "offsets_uncommitted", td_kafka_in_free(r->in));
    td_kafka_reader_free(r->reader);
    td_app_left(r->app, "records_unsent", td_kafka_out_free(r->out, FLUSH_MS));
    td_redis_free(r->redis);
    for (size_t i = 0; i < TD_LANES_MAX; i++)
        lane_drop(r, &r->lanes[i]);
    for (struct chunk *chunk = r->orphans; chunk; chunk = chunk->next)
        chunk->under_way = 0; /* the producer and Redis are gone: nothing comes back */
    chunks_free_orphans(r);
    endings_free(r->endings);
    campaigns_free(r->campaigns);
    recipe_release(&r->recipe);
    td_arena_free(r->scratch);
    td_buf_release(&r->packed);
    if (r->tick)
        uv_close((uv_handle_t *)r->tick, closed);
    if (r->worker)
        uv_close((uv_handle_t *)r->worker, closed);
    free(r);
}

static bool make_handles(struct rendering *r)
{
    r->tick = malloc(sizeof(*r->tick));
    if (!r->tick)
        return false;
    uv_timer_init(r->app->loop, r->tick);
    r->tick->data = r;
    r->worker = malloc(sizeof(*r->worker));
    if (!r->worker)
        return false;
    uv_idle_init(r->app->loop, r->worker);
    r->worker->data = r;
    return true;
}

static int make_parts(struct rendering *r, struct td_err *reterr)
{
    static const struct td_kafka_in_ops in_ops = {on_record, on_assigned, on_revoked, on_fatal};
    static const enum td_topic_id topics[] = {TD_T_RECIPIENTS};
    uv_loop_t *loop = r->app->loop;
    const struct td_settings *s = r->settings;
    struct td_metrics *m = r->app->metrics;
    int rc = td_redis_new(loop, s->redis_url, s->redis_password, (unsigned)s->redis_timeout_ms, &r->redis, reterr);

    if (rc == TD_OK) {
        td_redis_need_view(r->redis);
        rc = td_kafka_out_new(loop, s, m, &r->out, reterr);
    }
    if (rc < 0)
        return rc;
    r->campaigns = campaigns_new(r->app, r->out, on_campaign, r);
    r->endings = endings_new(r->app, r->redis, r->out, chunk_ended);
    r->scratch = td_arena_new(SCRATCH_BYTES);
    if (!r->campaigns || !r->endings || !r->scratch || recipe_init(&r->recipe) < 0 || !make_handles(r))
        return td_fail(reterr, TD_ENOMEM, "out of memory");
    rc = td_kafka_table_new(loop, s, m, TD_T_CONTENTS, CONTENT_CACHE, on_content, r, &r->contents, reterr);
    if (rc < 0)
        return rc;
    campaigns_set_redis(r->campaigns, r->redis);
    campaigns_set_table(r->campaigns, r->contents);
    rc = td_kafka_reader_new(loop, s, TD_T_RECIPIENTS, &r->reader, reterr);
    if (rc < 0)
        return rc;
    return td_kafka_in_new(loop, s, m, "rendering", topics, 1, &in_ops, r, &r->in, reterr);
}

static int rendering_start(struct td_app *app, void **ret_state, struct td_err *reterr)
{
    const struct td_settings *s = app->settings;
    struct rendering *r;
    int rc;

    if (!s->keys_token || strlen(s->keys_token) < TD_KEY_BYTES_MIN)
        return td_fail(reterr, TD_ECONFIG, "keys.token is needed: at least %d bytes, the same for all services",
                       TD_KEY_BYTES_MIN);
    if (!s->message_id_domain || !*s->message_id_domain)
        return td_fail(reterr, TD_ECONFIG, "message_id_domain is needed: the right side of Message-ID");
    r = calloc(1, sizeof(*r));
    if (!r)
        return td_fail(reterr, TD_ENOMEM, "out of memory");
    r->app = app;
    r->settings = s;
    td_buf_init(&r->packed, PACKED_MAX);
    for (size_t i = 0; i < TD_LANES_MAX; i++) {
        for (size_t k = 0; k < PACED_TOPICS; k++)
            pace_init(&r->paces[k][i]);
    }
    make_metrics(r);
    rc = make_parts(r, reterr);
    if (rc < 0) {
        rendering_free(r);
        return rc;
    }
    uv_timer_start(r->tick, on_tick, TICK_MS, TICK_MS);
    *ret_state = r;
    return TD_OK;
}

static void on_in_closed(void *user)
{
    struct rendering *r = user;

    td_app_stopped(r->app);
}

/* The group gives the lanes back (on_revoked finishes what is under way), then the loop ends and rendering_free
 * flushes. */
static void rendering_stop(void *state)
{
    struct rendering *r = state;

    r->stopping = true;
    uv_idle_stop(r->worker);
    td_kafka_in_stop(r->in, on_in_closed, r);
}

static bool rendering_ready(void *state, char *why, size_t size)
{
    const struct rendering *r = state;

    if (!td_kafka_table_loaded(r->contents)) {
        snprintf(why, size, "campaigns are still being read");
        return false;
    }
    if (!td_kafka_in_assigned(r->in)) {
        snprintf(why, size, "not a member of the group yet");
        return false;
    }
    return true; /* Redis away is a mode: mails are rendered, endings wait */
}

const struct td_service rendering_service = {
    .name = "rendering",
    .summary = "turn recipients and templates into mails",
    .start = rendering_start,
    .stop = rendering_stop,
    .ready = rendering_ready,
    .free = rendering_free,
};
