/* The engine: phases, retries, answers. */
#include "job.h"

#include <stdlib.h>
#include <string.h>

#include "split.h"
#include "tandem/backoff.h"
#include "tandem/clock.h"
#include "tandem/dead_letter.h"
#include "tandem/log.h"
#include "tandem/pb.h"
#include "tandem/stages.h"
#include "validate.h"

#define RETRY_BASE_MS 100
#define RETRY_CAP_MS 5000
#define ECHO_ID_MAX 64          /* a campaign id that cannot be one is still answered up to this length */
#define SCRATCH_BYTES (1 << 20) /* what validation and splitting need besides the message */

struct job *job_new(struct ingestion *svc, struct lane *lane, const struct td_record *rec)
{
    struct job *job = calloc(1, sizeof(*job));

    if (!job)
        return NULL;
    job->key = malloc(rec->key_len + rec->len + 1);
    if (!job->key) {
        free(job);
        return NULL;
    }
    if (rec->key_len)
        memcpy(job->key, rec->key, rec->key_len);
    if (rec->len)
        memcpy(job->key + rec->key_len, rec->value, rec->len);
    job->svc = svc;
    job->lane = lane;
    job->offset = rec->offset;
    job->timestamp_ms = rec->timestamp_ms;
    job->key_len = rec->key_len;
    job->len = rec->len;
    return job;
}

void job_free(struct job *job)
{
    if (!job)
        return;
    verify_release(job->verify);
    td_arena_free(job->content_arena);
    needed_fields_release(&job->needed);
    td_arena_free(job->arena);
    free(job->key);
    free(job);
}

/* ---- what cannot be answered: the record goes to the dead letters as it came ---- */

static enum phase_result phase_dead_letter(struct job *job);
static phase_fn *const dead_phases[] = {phase_dead_letter, NULL};

static void delivered(void *user, int64_t offset, const struct td_err *err)
{
    (void)offset;
    job_came(user, err);
}

/* @return TD_OK or TD_ETOOBIG; anything else is tried again with the phase */
static int sent(struct job *job, int rc, const struct td_err *err)
{
    if (rc == TD_OK)
        return TD_OK;
    job->waiting--;
    if (rc == TD_ETOOBIG)
        return rc;
    job->failed = true;
    if (rc == TD_EFATAL)
        td_app_fail(job->svc->app, err);
    return TD_OK;
}

static enum phase_result phase_dead_letter(struct job *job)
{
    const struct td_record rec = {
        .lane = job->lane->id,
        .offset = job->offset,
        .key = job->key,
        .key_len = job->key_len,
        .value = job->key + job->key_len,
        .len = job->len,
    };
    struct td_err err = {TD_OK, ""};

    job_expect(job);
    sent(job, td_dead_letter(job->svc->out, "ingestion", &rec, job->dead_reason, delivered, job, &err), &err);
    return PHASE_NEXT;
}

/* ---- parse ---- */

struct body {
    Tandem__Mail__V1__Submission__BodyCase which;
    const char *name; /* as the answer says it */
    phase_fn *const *phases;
};

static const struct body bodies[] = {
    {TANDEM__MAIL__V1__SUBMISSION__BODY_CAMPAIGN, "campaign", campaign_phases},
    {TANDEM__MAIL__V1__SUBMISSION__BODY_ATTACHMENT_CHUNK, "attachment_chunk", chunk_phases},
    {TANDEM__MAIL__V1__SUBMISSION__BODY_RECIPIENT_BATCH, "recipient_batch", batch_phases},
    {TANDEM__MAIL__V1__SUBMISSION__BODY_SEAL, "seal", seal_phases},
    {TANDEM__MAIL__V1__SUBMISSION__BODY_COMMAND, "command", command_phases},
    {TANDEM__MAIL__V1__SUBMISSION__BODY_SINGLE_MAIL, "single_mail", single_phases},
};

static void dead(struct job *job, const char *reason)
{
    job->submission = NULL;
    job->body = "unparsable";
    job->dead_reason = reason;
    job->phases = dead_phases;
}

int job_parse(struct job *job)
{
    ProtobufCMessage *message;
    enum td_stage before;
    struct td_err err;
    int rc;

    if (job->body)
        return TD_OK;
    if (!job->arena)
        job->arena = td_arena_new(16 * job->len + SCRATCH_BYTES);
    if (!job->arena)
        return TD_ENOMEM;
    job->refusals = td_arena_zalloc(job->arena, sizeof(*job->refusals));
    if (!job->refusals)
        return TD_ENOMEM;
    before = td_stage(TD_STAGE_PARSE);
    rc = td_pb_read(&tandem__mail__v1__submission__descriptor, job->key + job->key_len, job->len, job->arena,
                    &message, &err);
    td_stage(before);
    if (rc < 0) {
        dead(job, rc == TD_ETOOBIG ? "submission.too_large" : "submission.syntax");
        return TD_OK;
    }
    job->submission = (const Submission *)message;
    if (!*job->submission->campaign_id || strlen(job->submission->campaign_id) > ECHO_ID_MAX) {
        dead(job, "campaign_id.syntax"); /* there is nobody to answer to */
        return TD_OK;
    }
    job->body = "none";
    for (size_t i = 0; i < sizeof(bodies) / sizeof(*bodies); i++)
        if (bodies[i].which == job->submission->body_case) {
            job->body = bodies[i].name;
            job->phases = bodies[i].phases;
        }
    validate_envelope(job->submission, job->key, job->key_len, job->refusals);
    return TD_OK;
}

bool job_parallel(const struct job *job)
{
    return job->phases == batch_phases;
}

/* ---- phases ---- */

static void job_ready(struct job *job, bool accepted)
{
    job->accepted = accepted;
    job->state = job->submission ? JOB_READY : JOB_DONE; /* a dead letter is its own answer */
    ingestion_job_changed(job->svc, job->lane);
}

static void retry_later(struct job *job)
{
    job->tries++;
    job->retry_at_ms = td_mono_ms() + td_backoff_ms(job->tries, RETRY_BASE_MS, RETRY_CAP_MS);
    if (job->tries == 5)
        td_log(TD_WARN, "submission.waits", "campaign=%s body=%s phase=%zu redis=%s",
               job->submission ? job->submission->campaign_id : "", job->body, job->phase,
               td_redis_up(job->svc->redis) ? "up" : "away");
}

static void orphan_end(struct job *job)
{
    struct job **at = &job->svc->orphans;

    while (*at && *at != job)
        at = &(*at)->next;
    if (*at)
        *at = job->next;
    job_free(job);
}

/* Run phases until one has to wait. */
static void job_run(struct job *job)
{
    for (;;) {
        enum phase_result result;
        enum td_stage before;

        if (!job->phases[job->phase]) {
            job_ready(job, true);
            return;
        }
        job->failed = false;
        job->waiting = 1; /* holds back job_came while the phase is still starting things */
        before = td_stage(TD_STAGE_VALIDATE);
        result = job->phases[job->phase](job);
        td_stage(before);
        if (result == PHASE_AGAIN)
            job->failed = true;
        if (result == PHASE_REFUSED) {
            job->waiting--;
            job_ready(job, false);
            return;
        }
        if (result == PHASE_BACK)
            job->phase -= 2;
        else if (--job->waiting > 0)
            return;
        else if (job->failed) {
            retry_later(job);
            return;
        } else {
            job->tries = 0;
            job->phase++;
        }
    }
}

void job_expect(struct job *job)
{
    job->waiting++;
}

void job_came(struct job *job, const struct td_err *err)
{
    if (err)
        job->failed = true;
    if (--job->waiting > 0)
        return;
    if (!job->lane) {
        orphan_end(job);
        return;
    }
    if (job->failed) {
        retry_later(job);
        return;
    }
    job->tries = 0;
    job->phase++;
    job_run(job);
}

void job_start(struct job *job)
{
    job->state = JOB_RUNNING;
    job->begun_us = td_mono_us();
    if (job->submission && job->refusals->total > 0)
        job_ready(job, false);
    else
        job_run(job);
}

void job_tick(struct job *job, uint64_t now_ms)
{
    if (job->retry_at_ms == 0 || now_ms < job->retry_at_ms)
        return;
    job->retry_at_ms = 0;
    if (job->state == JOB_RUNNING)
        job_run(job);
    else if (job->state == JOB_READY)
        ingestion_job_changed(job->svc, job->lane);
}

void job_abandon(struct job *job)
{
    job->lane = NULL;
    if (job->waiting == 0) {
        job_free(job);
        return;
    }
    job->next = job->svc->orphans;
    job->svc->orphans = job;
}

void job_asked(struct job *job, int rc)
{
    if (rc != TD_EINVAL && rc != TD_ENOMEM)
        return;
    job->waiting--;
    job->failed = true;
    td_log(TD_ERROR, "ledger.refused", "campaign=%s body=%s phase=%zu code=%s", job->submission->campaign_id,
           job->body, job->phase, td_code_name((enum td_code)rc));
}

/* ---- records ---- */

int job_send(struct job *job, enum td_topic_id topic, int32_t partition, const char *key, const void *value,
             size_t len)
{
    struct td_err err = {TD_OK, ""};

    job_expect(job);
    return sent(job,
                td_kafka_out_send(job->svc->out, topic, partition, key, strlen(key), value, len, NULL, 0,
                                  delivered, job, &err),
                &err);
}

int job_send_message(struct job *job, enum td_topic_id topic, int32_t partition, const char *key,
                     const ProtobufCMessage *message)
{
    enum td_stage before = td_stage(TD_STAGE_PUBLISH);
    size_t len;
    void *packed = td_pb_write(message, &len);
    int rc = TD_OK;

    if (packed)
        rc = job_send(job, topic, partition, key, packed, len);
    else
        job->failed = true;
    free(packed);
    td_stage(before);
    return rc;
}

/* ---- the answer ---- */

static void answered(void *user, int64_t offset, const struct td_err *err)
{
    struct job *job = user;

    (void)offset;
    job->waiting--;
    if (!job->lane) {
        orphan_end(job);
        return;
    }
    job->state = err ? JOB_READY : JOB_DONE;
    if (err)
        retry_later(job);
    else
        ingestion_job_changed(job->svc, job->lane);
}

void job_answer(struct job *job)
{
    const Submission *submission = job->submission;
    struct answer answer = {
        submission->campaign_id, submission->submission_id, job->body, td_wall_ms(), job->accepted, 0, 0};
    struct td_err err = {TD_OK, ""};
    size_t len;
    void *packed;
    int rc;

    if (submission->body_case == TANDEM__MAIL__V1__SUBMISSION__BODY_RECIPIENT_BATCH) {
        answer.first_index = submission->recipient_batch->first_index;
        answer.recipient_count = (uint32_t)submission->recipient_batch->n_recipients;
    } else if (submission->body_case == TANDEM__MAIL__V1__SUBMISSION__BODY_SINGLE_MAIL) {
        answer.recipient_count = 1;
    }
    packed = refusals_answer(job->refusals, &answer, &len);
    if (!packed) {
        retry_later(job);
        return;
    }
    job->state = JOB_ANSWERING;
    job->waiting = 1;
    rc = td_kafka_out_send(job->svc->out, TD_T_OUTCOMES, -1, submission->campaign_id,
                           strlen(submission->campaign_id), packed, len, NULL, 0, answered, job, &err);
    free(packed);
    if (rc < 0) {
        job->state = JOB_READY;
        job->waiting = 0;
        retry_later(job);
        if (rc == TD_EFATAL)
            td_app_fail(job->svc->app, &err);
    }
}
