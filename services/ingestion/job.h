/* job.h - one submission on its way: steps that each wait for Kafka or Redis and may be tried again. Loop thread
 * only.
 *
 *   QUEUED -> RUNNING -> READY -> ANSWERING -> DONE, then its offset can be committed
 *
 * A body is a list of phases. A phase starts what it needs; when all of that has come back without an error the
 * next phase begins, otherwise the same phase begins again a little later. Hence every phase may run twice: it
 * writes the same records under the same keys and makes the same changes in the ledger. Redis or Kafka away is
 * nothing but a phase that goes on being tried. */
#ifndef INGESTION_JOB_H
#define INGESTION_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "campaigns.h"
#include "names.h"
#include "refusals.h"
#include "tandem/app.h"
#include "tandem/arena.h"
#include "tandem/kafka.h"
#include "tandem/redis.h"

enum job_state { JOB_QUEUED = 0, JOB_RUNNING, JOB_READY, JOB_ANSWERING, JOB_DONE };

enum phase_result {
    PHASE_NEXT,   /* go on, once what was started has come back */
    PHASE_BACK,   /* go on two phases before this one: the three work through a list */
    PHASE_AGAIN,  /* the same phase again after a pause */
    PHASE_REFUSED /* answer with what was refused */
};

struct job;
struct batch;  /* phases_batch.c */
struct verify; /* phases_attachment.c */
typedef enum phase_result phase_fn(struct job *job);

struct ingestion {
    struct td_app *app;
    const struct td_settings *settings;
    struct td_kafka_in *in;
    struct td_kafka_out *out;
    struct td_kafka_table *contents;
    struct td_redis *redis;
    struct campaigns *campaigns;
    struct job *orphans; /* running jobs whose lane was taken away; they end at their next step */
};

struct lane {
    struct td_lane id;
    uint64_t since_ms;       /* monotonic: when it became ours */
    struct job *head, *tail; /* in order of their offsets */
    size_t waiting_bytes, waiting_jobs;
    bool held; /* it is not read: too much waits */
};

struct job {
    struct ingestion *svc;
    struct lane *lane; /* NULL: taken away, so nothing more may be written */
    struct job *next;
    enum job_state state;
    int64_t offset, timestamp_ms;
    char *key; /* key, then value; owned */
    size_t key_len, len;

    struct td_arena *arena;       /* dies with the job; holds all below */
    const Submission *submission; /* NULL: does not parse */
    const char *body, *dead_reason;
    struct refusals *refusals;
    bool accepted;

    phase_fn *const *phases; /* NULL-terminated */
    size_t phase;
    unsigned waiting; /* things started that have not come back */
    bool failed;      /* one of them with an error */
    unsigned tries;
    uint64_t retry_at_ms; /* 0: not waiting for a retry */
    uint64_t begun_us;

    Campaign *campaign; /* of a campaign or single_mail */
    uint8_t campaign_sha256[32];
    ProtobufCBinaryData *inline_bytes; /* the attachments that came with it */
    CampaignContent content;           /* to be written, or as fetched */
    struct td_arena *content_arena;    /* of a fetched one */
    bool fetched, publish;
    struct needed_fields needed;
    struct verify *verify; /* phases_attachment.c */
    struct batch *batch;
};

/* ---- the engine, job.c ---- */

/** Copies the record. @return NULL when out of memory */
struct job *job_new(struct ingestion *svc, struct lane *lane, const struct td_record *rec);
/** Only when nothing it started is still under way. */
void job_free(struct job *job);
/** Parse it and choose its phases. @return TD_OK or TD_ENOMEM (again later) */
int job_parse(struct job *job);
/** May it run beside others of its kind? True for recipient batches, which change nothing that others look at. */
bool job_parallel(const struct job *job);
void job_start(struct job *job);
/** Look at the clock: a phase whose pause is over begins again. */
void job_tick(struct job *job, uint64_t now_ms);
/** Its lane is gone: it is freed now, or when what it started comes back. */
void job_abandon(struct job *job);
/** Send the answer of a READY job. */
void job_answer(struct job *job);

/** For phases: one thing was started. Its callback calls job_came with its error (NULL: fine). */
void job_expect(struct job *job);
void job_came(struct job *job, const struct td_err *err);
/** After a call to Redis or the ledger: two codes mean that no callback comes. */
void job_asked(struct job *job, int rc);
/** Write a record; counted as expected. @return TD_OK, also when it has to be tried again; TD_ETOOBIG */
int job_send(struct job *job, enum td_topic_id topic, int32_t partition, const char *key, const void *value,
             size_t len);
/** The same for a message. */
int job_send_message(struct job *job, enum td_topic_id topic, int32_t partition, const char *key,
                     const ProtobufCMessage *message);

/* ---- what service.c does for them ---- */
void ingestion_job_changed(struct ingestion *svc, struct lane *lane);

/* ---- phases ---- */
extern phase_fn *const campaign_phases[],
    *const single_phases[], *const seal_phases[], *const command_phases[], *const batch_phases[],
                                                                               *const chunk_phases[];

enum phase_result phase_fetch(struct job *job); /* the campaign's content as it stands */
/* Attachments that came with the campaign. */
enum phase_result phase_parts_publish(struct job *job);
enum phase_result phase_parts_note(struct job *job);
/* Attachments put on the list by job_verify: read back, hashed, judged. */
enum phase_result phase_verify_read(struct job *job);
enum phase_result phase_verify_hash(struct job *job);
enum phase_result phase_verify_judge(struct job *job);
/* Recipients. */
enum phase_result phase_batch_fetch(struct job *job);
enum phase_result phase_batch_validate(struct job *job);
enum phase_result phase_batch_suppress(struct job *job);
enum phase_result phase_batch_admit(struct job *job);
enum phase_result phase_batch_first(struct job *job);
enum phase_result phase_batch_claim(struct job *job);
enum phase_result phase_batch_end(struct job *job);
enum phase_result phase_batch_pending(struct job *job);
enum phase_result phase_batch_outcomes(struct job *job);
enum phase_result phase_batch_published(struct job *job);
enum phase_result phase_batch_chunks(struct job *job);
enum phase_result phase_batch_count(struct job *job);

/** The campaign, or NULL with campaign.unknown refused. */
struct known_campaign *job_campaign(struct job *job);
/**
 * Put the attachments on the list of what phase_verify_* look at, but for those that were looked at before.
 * @return true; false when parts are missing (refused) or memory ran out (nothing refused)
 */
bool job_verify(struct job *job, const struct known_attachment *attachments, size_t count);
void verify_release(struct verify *verify); /* NULL is fine */

#endif /* INGESTION_JOB_H */
