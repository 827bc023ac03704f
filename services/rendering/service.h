/* service.h - what the files of the program share. Loop thread only.
 *
 * lane (partition of mail.recipients) -> queue of chunks -> mails
 *
 * A chunk is done when each of its recipients is on mail.outbound or has its outcome, all acknowledged. Chunks of
 * a lane may become done in any order; the offset is committed up to the first that is not. */
#ifndef RENDERING_SERVICE_H
#define RENDERING_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "campaigns.h"
#include "endings.h"
#include "pacing.h"
#include "recipe.h"
#include "tandem/app.h"
#include "tandem/kafka.h"
#include "tandem/lanes.h"
#include "tandem/redis.h"

enum mail_state {
    MAIL_WAITING = 0,
    MAIL_SENT,   /* on its way to mail.outbound */
    MAIL_ENDING, /* in endings */
    MAIL_DONE
};

struct chunk;

struct mail { /* one recipient of a chunk */
    struct chunk *chunk;
    struct pace *pace;
    enum mail_state state;
    /* Dispatch has or had it, says the ledger: it must go there whatever the campaign's state, since dispatch
     * alone may end it now. */
    bool owed_to_dispatch;
};

enum chunk_state {
    CHUNK_NEW = 0, /* as it came */
    CHUNK_OPEN,    /* read; its campaign is in use */
    CHUNK_DEAD,    /* on its way to mail.dead-letters */
    CHUNK_DONE
};

struct lane;

struct chunk {
    struct rendering *r;
    struct lane *lane; /* NULL: the lane went away; freed when nothing is under way any more */
    struct chunk *next;
    int64_t offset;
    enum chunk_state state;
    const char *dead_reason;
    bool dead_sent;
    uint64_t retry_at_ms; /* nothing is done before; 0 = now */
    char *key, *raw;      /* the record, owned */
    size_t key_len, raw_len;
    struct td_arena *arena; /* of msg */
    Tandem__Internal__V1__RecipientChunk *msg;
    struct campaign *campaign;
    struct mail *mails; /* one for each recipient */
    size_t todo, cursor;
    size_t under_way; /* delivery reports and endings due */
};

struct lane {
    bool assigned, paused;
    struct td_lane id;
    struct chunk *first, **last;
    size_t chunk_count, raw_bytes;
};

enum { PACED_TOPICS = 2 }; /* outbound and express */

struct rendering {
    struct td_app *app;
    const struct td_settings *settings;
    struct td_redis *redis;
    struct td_kafka_out *out;
    struct td_kafka_in *in;
    struct td_kafka_table *contents;
    struct campaigns *campaigns;
    struct endings *endings;
    struct recipe recipe;
    struct td_arena *scratch; /* of one mail */
    struct td_buf packed;
    struct lane lanes[TD_LANES_MAX];
    size_t next_lane; /* where the next turn begins */
    struct pace paces[PACED_TOPICS][TD_LANES_MAX];
    struct poll {
        struct rendering *r;
        size_t topic;
        bool due; /* an answer of td_kafka_committed */
    } polls[PACED_TOPICS];
    uv_timer_t *tick;
    uv_idle_t *worker; /* runs while there is something to render */
    bool stopping, handing_back;
    uint64_t hand_back_by_ms;
    struct chunk *orphans; /* chunks whose lane went away, with something under way */
    struct td_metric *m_mails, *m_bytes, *m_busy, *m_chunks, *m_dead, *m_paced;
};

/* ---- chunk.c ---- */

/** Take a record into its lane's queue. */
void chunk_take(struct rendering *r, const struct td_record *rec);
/** Do some of a chunk's work. @return true when something was done, so that it is worth coming back at once */
bool chunk_step(struct chunk *chunk, uint64_t now_ms);
/** Commit what is done at the head of a lane, and let its records in again when there is room. */
void lane_advance(struct rendering *r, struct lane *lane);
/** Forget a lane's chunks; what is under way ends by itself. */
void lane_drop(struct rendering *r, struct lane *lane);
/** Is nothing of the lane's chunks under way? */
bool lane_idle(const struct lane *lane);
void chunks_free_orphans(struct rendering *r);
/** Callback of endings. */
void chunk_ended(void *user, size_t position, bool tried);

/* ---- service.c ---- */

/** There may be something to do. */
void rendering_wake(struct rendering *r);

extern const struct td_service rendering_service;

#endif /* RENDERING_SERVICE_H */
