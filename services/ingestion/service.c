/* Lanes of mail.submissions: the jobs of a campaign (records with the same key) begin in order and are answered in
 * order. Of these only neighbouring recipient batches run at the same time; anything else waits until those before
 * it are through, since it changes what they are judged by. Campaigns do not wait for each other, as long as both
 * are in memory: a password reset does not stand behind a million recipients. Offsets are committed in order, so
 * that after a crash some jobs are done twice, each campaign's in their order. */
#include "service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "tandem/clock.h"
#include "tandem/log.h"
#include "tandem/stages.h"
#include "tandem/stop.h"
#include "view.h"

#define TICK_MS 50
#define SETTLE_MS 1000        /* a new lane waits so long, so that our table has read what its last owner wrote */
#define WINDOW_JOBS 8         /* of a campaign under way at once */
#define WINDOW_CAMPAIGNS 32   /* of a lane; those behind wait */
#define HOLD_BYTES (16 << 20) /* of a lane's records waiting: it is not read above, and read again below half */
#define HOLD_JOBS 1000
#define REVOKE_MS 10000
#define TABLE_CACHE_BYTES (32 << 20)
#define FLUSH_MS 5000

struct service {
    struct ingestion ingestion; /* first: what jobs see */
    struct lane *lanes[1024];
    size_t lane_count;
    struct view *view;
    uv_timer_t tick;
    bool tick_open;
    size_t waiting_bytes;
    uint64_t revoke_at_ms; /* 0: no revocation under way */
    bool redis_known, stopping, busy, again;
    struct td_metric *queue_bytes;
};

static void lanes_run(struct service *svc);

/* ---- lanes ---- */

static struct lane *lane_find(struct service *svc, struct td_lane id)
{
    for (size_t i = 0; i < svc->lane_count; i++)
        if (svc->lanes[i]->id.topic == id.topic && svc->lanes[i]->id.partition == id.partition)
            return svc->lanes[i];
    return NULL;
}

static void forget_bytes(struct service *svc, const struct job *job)
{
    svc->waiting_bytes -= job->key_len + job->len;
    job->lane->waiting_bytes -= job->key_len + job->len;
    job->lane->waiting_jobs--;
}

static void job_drop(struct service *svc, struct lane *lane)
{
    struct job *job = lane->head;

    lane->head = job->next;
    if (!lane->head)
        lane->tail = NULL;
    forget_bytes(svc, job);
}

static void count_job(struct service *svc, const struct job *job)
{
    struct td_metrics *metrics = svc->ingestion.app->metrics;
    char labels[96];
    const char *result = !job->submission ? "dead" : job->accepted ? "accepted" : "refused";

    snprintf(labels, sizeof(labels), "body=\"%s\",result=\"%s\"", job->body, result);
    td_metric_add(td_metric(metrics, TD_COUNTER, "tandem_ingestion_submissions_total",
                            "Submissions by body and result: accepted, refused, dead.", labels),
                  1);
    snprintf(labels, sizeof(labels), "body=\"%s\"", job->body);
    td_metric_observe(td_metric(metrics, TD_HISTOGRAM, "tandem_ingestion_seconds",
                                "From the beginning of the work on a submission to its acknowledged answer.",
                                labels),
                      (double)(td_mono_us() - job->begun_us) / 1e6);
    if (job->submission && !job->accepted)
        td_log(TD_INFO, "submission.refused", "campaign=%s body=%s code=%s refusals=%zu",
               job->submission->campaign_id, job->body, job->refusals->total ? job->refusals->item[0].code : "",
               job->refusals->total);
    else if (job->submission && strcmp(job->body, "recipient_batch") != 0)
        td_log(TD_INFO, "submission.accepted", "campaign=%s body=%s", job->submission->campaign_id, job->body);
}

/* A campaign met on a walk along a lane. */
struct front {
    const char *key;
    size_t key_len, under_way;
    bool running, all_parallel;
    bool stopped; /* its later jobs wait */
};

/* @return NULL when there are too many */
static struct front *front_of(struct front *fronts, size_t *count, const struct job *job)
{
    for (size_t i = 0; i < *count; i++)
        if (fronts[i].key_len == job->key_len && memcmp(fronts[i].key, job->key, job->key_len) == 0)
            return &fronts[i];
    if (*count == WINDOW_CAMPAIGNS)
        return NULL;
    fronts[*count] = (struct front){.key = job->key, .key_len = job->key_len, .all_parallel = true};
    return &fronts[(*count)++];
}

/* Answers of each campaign as they become ready; commits what is done. */
static void lane_finish(struct service *svc, struct lane *lane)
{
    struct front fronts[WINDOW_CAMPAIGNS];
    size_t count = 0;
    int64_t next = -1;

    while (lane->head && lane->head->state == JOB_DONE) {
        struct job *job = lane->head;

        next = job->offset + 1;
        count_job(svc, job);
        job_drop(svc, lane);
        job_free(job);
    }
    if (next >= 0)
        td_kafka_in_commit(svc->ingestion.in, lane->id, next);
    for (struct job *job = lane->head; job; job = job->next) {
        struct front *front = front_of(fronts, &count, job);

        if (!front)
            break;
        if (front->stopped)
            continue;
        if (job->state == JOB_READY && job->retry_at_ms == 0)
            job_answer(job);
        /* A later answer does not overtake this one. */
        front->stopped = job->state != JOB_ANSWERING && job->state != JOB_DONE;
    }
}

static void lane_start(struct service *svc, struct lane *lane)
{
    struct front fronts[WINDOW_CAMPAIGNS];
    size_t count = 0;

    if (svc->revoke_at_ms || td_mono_ms() - lane->since_ms < SETTLE_MS)
        return;
    for (struct job *job = lane->head; job; job = job->next) {
        struct front *front = front_of(fronts, &count, job);

        if (!front)
            return;
        if (front->stopped || job->state == JOB_DONE)
            continue;
        if (job->state == JOB_QUEUED) {
            front->stopped = front->under_way == WINDOW_JOBS || job_parse(job) < 0 ||
                             (front->running && !(front->all_parallel && job_parallel(job)));
            if (front->stopped)
                continue;
            job_start(job);
        }
        front->under_way++;
        if (job->state == JOB_RUNNING) {
            front->running = true;
            front->all_parallel = front->all_parallel && job_parallel(job);
        }
    }
}

static bool lane_idle(const struct lane *lane)
{
    for (const struct job *job = lane->head; job; job = job->next)
        if (job->state != JOB_QUEUED)
            return false;
    return true;
}

static void lane_close(struct service *svc, struct lane *lane)
{
    while (lane->head) {
        struct job *job = lane->head;

        job_drop(svc, lane);
        job_abandon(job);
    }
    free(lane);
}

static void revoke_finish(struct service *svc)
{
    svc->revoke_at_ms = 0;
    for (size_t i = 0; i < svc->lane_count; i++)
        lane_close(svc, svc->lanes[i]);
    svc->lane_count = 0;
    td_kafka_in_revoke_done(svc->ingestion.in);
}

/* What was begun is let finish, so that its answer and offset are not left to be made again. */
static void revoke_check(struct service *svc)
{
    if (!svc->revoke_at_ms)
        return;
    for (size_t i = 0; i < svc->lane_count; i++)
        if (!lane_idle(svc->lanes[i]) && td_mono_ms() < svc->revoke_at_ms)
            return;
    revoke_finish(svc);
}

static void hold_check(struct service *svc, struct lane *lane)
{
    if (!lane->held && (lane->waiting_bytes > HOLD_BYTES || lane->waiting_jobs > HOLD_JOBS)) {
        lane->held = true;
        td_kafka_in_pause(svc->ingestion.in, lane->id);
    } else if (lane->held && lane->waiting_bytes < HOLD_BYTES / 2 && lane->waiting_jobs < HOLD_JOBS / 2) {
        lane->held = false;
        td_kafka_in_resume(svc->ingestion.in, lane->id);
    }
}

/* A job that starts may end at once and call this again: then one more round follows instead of a recursion. */
static void lanes_run(struct service *svc)
{
    enum td_stage before;

    svc->again = true;
    if (svc->busy)
        return;
    before = td_stage(TD_STAGE_TURN);
    svc->busy = true;
    while (svc->again) {
        svc->again = false;
        for (size_t i = 0; i < svc->lane_count; i++) {
            lane_finish(svc, svc->lanes[i]);
            if (td_kafka_table_loaded(svc->ingestion.contents))
                lane_start(svc, svc->lanes[i]);
        }
    }
    svc->busy = false;
    for (size_t i = 0; i < svc->lane_count; i++)
        hold_check(svc, svc->lanes[i]);
    revoke_check(svc);
    td_stage(before);
}

void ingestion_job_changed(struct ingestion *ingestion, struct lane *lane)
{
    (void)lane;
    lanes_run((struct service *)ingestion);
}

static void on_tick(uv_timer_t *timer)
{
    struct service *svc = timer->data;
    uint64_t now_ms = td_mono_ms();

    svc->busy = true; /* lists stay as they are while we walk them */
    for (size_t i = 0; i < svc->lane_count; i++)
        for (struct job *job = svc->lanes[i]->head; job; job = job->next)
            job_tick(job, now_ms);
    svc->busy = false;
    lanes_run(svc);
    td_metric_set(svc->queue_bytes, (double)svc->waiting_bytes);
}

/* ---- Kafka ---- */

static void on_record(void *user, const struct td_record *rec)
{
    struct service *svc = user;
    struct lane *lane = lane_find(svc, rec->lane);
    enum td_stage before;
    struct job *job;

    if (!lane)
        return;
    before = td_stage(TD_STAGE_TAKE);
    job = job_new(&svc->ingestion, lane, rec);
    td_stage(before);
    if (!job) {
        struct td_err err;

        /* It cannot be skipped and there is no memory to keep it: a restart reads it again. */
        td_fail(&err, TD_ENOMEM, "no memory for a submission of %zu bytes", rec->len);
        td_app_fail(svc->ingestion.app, &err);
        return;
    }
    if (lane->tail)
        lane->tail->next = job;
    else
        lane->head = job;
    lane->tail = job;
    svc->waiting_bytes += job->key_len + job->len;
    lane->waiting_bytes += job->key_len + job->len;
    lane->waiting_jobs++;
    lanes_run(svc);
}

static void on_assigned(void *user, const struct td_lane *lanes, const int64_t *offsets, size_t count)
{
    struct service *svc = user;

    (void)offsets;
    for (size_t i = 0; i < count && svc->lane_count < sizeof(svc->lanes) / sizeof(*svc->lanes); i++) {
        struct lane *lane = calloc(1, sizeof(*lane));
        struct td_err err;

        if (!lane) {
            td_fail(&err, TD_ENOMEM, "no memory for a lane");
            td_app_fail(svc->ingestion.app, &err);
            return;
        }
        lane->id = lanes[i];
        lane->since_ms = td_mono_ms();
        svc->lanes[svc->lane_count++] = lane;
    }
    td_log(TD_INFO, "lanes.assigned", "count=%zu", count);
}

static void on_revoked(void *user, const struct td_lane *lanes, size_t count, bool lost)
{
    struct service *svc = user;

    (void)lanes;
    td_log(TD_INFO, "lanes.revoked", "count=%zu lost=%d", count, lost);
    if (lost) {
        revoke_finish(svc);
        return;
    }
    svc->revoke_at_ms = td_stop_sooner(td_mono_ms() + REVOKE_MS, TD_STOP_WORK);
    lanes_run(svc);
}

static void on_fatal(void *user, const struct td_err *err)
{
    struct service *svc = user;

    td_app_fail(svc->ingestion.app, err);
}

static void on_content(void *user, const void *key, size_t key_len, const void *value, size_t len)
{
    struct service *svc = user;

    if (campaigns_note(svc->ingestion.campaigns, key, key_len, value, len) == TD_ESYNTAX)
        td_log(TD_WARN, "content.unreadable", "key_bytes=%zu bytes=%zu", key_len, len);
}

static void on_redis(void *user, bool up, const char *run_id)
{
    struct service *svc = user;

    (void)run_id;
    if (!up && svc->redis_known)
        td_log(TD_WARN, "intake.waits", "msg=\"recipients and seals wait until Redis is back\"");
    svc->redis_known = true;
}

/* ---- life ---- */

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void service_free(void *state)
{
    struct service *svc = state;
    struct ingestion *ingestion = &svc->ingestion;

    for (size_t i = 0; i < svc->lane_count; i++)
        lane_close(svc, svc->lanes[i]);
    svc->lane_count = 0;
    td_app_left(ingestion->app, "offsets_uncommitted", td_kafka_in_free(ingestion->in));
    view_free(svc->view);
    /* These call back what is pending, which ends the orphans. */
    td_kafka_table_free(ingestion->contents);
    td_redis_free(ingestion->redis);
    td_app_left(ingestion->app, "records_unsent", td_kafka_out_free(ingestion->out, FLUSH_MS));
    campaigns_free(ingestion->campaigns);
    if (!svc->tick_open) {
        free(svc);
        return;
    }
    uv_timer_stop(&svc->tick);
    uv_close((uv_handle_t *)&svc->tick, on_closed);
}

static int service_start(struct td_app *app, void **ret_state, struct td_err *reterr)
{
    static const enum td_topic_id topics[] = {TD_T_SUBMISSIONS};
    static const struct td_kafka_in_ops ops = {on_record, on_assigned, on_revoked, on_fatal};
    const struct td_settings *settings = app->settings;
    struct service *svc = calloc(1, sizeof(*svc));
    struct ingestion *ingestion;
    int rc;

    if (!svc)
        return td_fail(reterr, TD_ENOMEM, "no memory for the service");
    ingestion = &svc->ingestion;
    ingestion->app = app;
    ingestion->settings = settings;
    ingestion->campaigns = campaigns_new();
    rc = ingestion->campaigns ? TD_OK : td_fail(reterr, TD_ENOMEM, "no memory for the campaigns");
    if (rc == TD_OK)
        rc = td_redis_new(app->loop, settings->redis_url, settings->redis_password,
                          (unsigned)settings->redis_timeout_ms, &ingestion->redis, reterr);
    if (rc == TD_OK) {
        td_redis_need_view(ingestion->redis);
        td_redis_on_state(ingestion->redis, on_redis, svc);
        rc = td_kafka_out_new(app->loop, settings, app->metrics, &ingestion->out, reterr);
    }
    if (rc == TD_OK)
        rc = td_kafka_table_new(app->loop, settings, app->metrics, TD_T_CONTENTS, TABLE_CACHE_BYTES, on_content,
                                svc, &ingestion->contents, reterr);
    if (rc == TD_OK)
        rc = view_new(app, ingestion->contents, ingestion->campaigns, &svc->view, reterr);
    if (rc == TD_OK)
        rc = td_kafka_in_new(app->loop, settings, app->metrics, "ingestion", topics, 1, &ops, svc, &ingestion->in,
                             reterr);
    if (rc < 0) {
        service_free(svc);
        return rc;
    }
    svc->queue_bytes = td_metric(app->metrics, TD_GAUGE, "tandem_ingestion_queue_bytes",
                                 "Submissions read and not yet answered.", "");
    uv_timer_init(app->loop, &svc->tick);
    svc->tick.data = svc;
    svc->tick_open = true;
    uv_timer_start(&svc->tick, on_tick, TICK_MS, TICK_MS);
    *ret_state = svc;
    return TD_OK;
}

static void on_stopped(void *user)
{
    struct service *svc = user;

    td_app_stopped(svc->ingestion.app);
}

static void service_stop(void *state)
{
    struct service *svc = state;

    if (svc->stopping)
        return;
    svc->stopping = true;
    td_kafka_in_stop(svc->ingestion.in, on_stopped, svc);
}

static bool service_ready(void *state, char *why, size_t size)
{
    struct service *svc = state;

    if (!td_kafka_in_assigned(svc->ingestion.in))
        snprintf(why, size, "no partitions of mail.submissions are assigned");
    else if (!td_kafka_table_loaded(svc->ingestion.contents))
        snprintf(why, size, "mail.contents is still being read");
    else if (!svc->redis_known)
        snprintf(why, size, "Redis has not answered yet");
    else
        return true;
    return false;
}

const struct td_service ingestion_service = {
    .name = "ingestion",
    .summary = "checks what is submitted and hands recipients to rendering",
    .start = service_start,
    .stop = service_stop,
    .ready = service_ready,
    .free = service_free,
};
