/* service.h - what the files of the program share. Loop thread only.
 *
 * lane (partition of mail.recipients) -> share (a campaign in it) -> chunks -> mails
 *
 * A lane is read far ahead, so that a campaign is seen however many chunks of others stand before its own; what
 * is not needed soon is let go and read again by its offset. The shares of a lane take turns (tandem/turns.h). A
 * chunk is done when each of its recipients is on mail.outbound or has its outcome, all acknowledged. Chunks of a
 * lane become done in any order; the offset is committed up to the first that is not, with a note of which are
 * done above it (done_note.h). */
#ifndef RENDERING_SERVICE_H
#define RENDERING_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "campaigns.h"
#include "done_note.h"
#include "endings.h"
#include "pacing.h"
#include "recipe.h"
#include "tandem/app.h"
#include "tandem/kafka.h"
#include "tandem/id.h"
#include "tandem/lanes.h"
#include "tandem/map.h"
#include "tandem/redis.h"
#include "tandem/turns.h"
#include "tandem/watermark.h"

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
    CHUNK_AWAY = 0, /* its record is on the topic alone */
    CHUNK_READING,  /* and is being read again */
    CHUNK_NEW,      /* as it came */
    CHUNK_OPEN,    /* read; its campaign is in use */
    CHUNK_DEAD,    /* on its way to mail.dead-letters */
    CHUNK_DONE
};

struct lane;

struct share { /* a campaign's chunks in a lane, by their offsets */
    struct td_turn turn; /* first: a turn is its share */
    struct lane *lane;
    char campaign_id[TD_CAMPAIGN_ID_MAX + 1];
    struct campaign *campaign; /* in use; NULL: the records' keys name none */
    struct chunk *first, *last;
    size_t count;     /* chunks, with those that are done and not let go yet */
    size_t in_memory; /* of those, not AWAY */
};

struct chunk {
    struct rendering *r;
    struct lane *lane; /* NULL: the lane went away; freed when nothing is under way any more */
    struct share *share;
    struct chunk *prev, *next; /* of its share; next: also of the lane's done ones, and of orphans */
    int64_t offset;
    enum chunk_state state;
    const char *dead_reason;
    bool dead_sent;
    uint64_t retry_at_ms; /* nothing is done before; 0 = now */
    char *key, *raw;      /* the record, owned; NULL: AWAY, READING */
    size_t key_len, raw_len;
    struct td_arena *arena; /* of msg */
    Tandem__Internal__V1__RecipientChunk *msg;
    struct campaign *campaign;
    struct mail *mails; /* one for each recipient */
    size_t todo, cursor;
    size_t under_way; /* delivery reports, endings and a read due */
};

struct lane {
    bool assigned, paused;
    bool idle;  /* nothing could be done: not looked at before something has changed */
    bool dirty; /* what is done has not been committed */
    struct td_lane id;
    struct td_watermark *wm;
    struct done_note before; /* what the owner before had done above the offset */
    struct td_map *shares;   /* by campaign id */
    struct td_turns turns;
    struct chunk *done;      /* let go by lane_advance */
    size_t chunk_count, raw_bytes;
};

enum { PACED_TOPICS = 2 }; /* outbound and express */

struct rendering {
    struct td_app *app;
    const struct td_settings *settings;
    struct td_redis *redis;
    struct td_kafka_out *out;
    struct td_kafka_in *in;
    struct td_kafka_reader *reader; /* chunks that were let go */
    struct td_kafka_table *contents;
    struct campaigns *campaigns;
    struct endings *endings;
    struct recipe recipe;
    struct td_arena *scratch; /* of one mail */
    struct td_buf packed;
    struct lane lanes[TD_LANES_MAX];
    size_t next_lane; /* where the next turn begins */
    struct pace paces[PACED_TOPICS][TD_LANES_MAX];
    struct pace_rate rates[PACED_TOPICS];
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
    struct td_metric *m_mails, *m_bytes, *m_busy, *m_chunks, *m_reread, *m_repeats, *m_dead, *m_paced;
};

/* ---- lane.c ---- */

/** Take over a lane, whose owner before left `note` beside its offset. @return TD_OK or TD_ENOMEM */
int lane_open(struct lane *lane, struct td_lane id, const char *note);
/** Take a record into its lane. */
void lane_take(struct rendering *r, const struct td_record *rec);
/** Do some of a lane's work. @return true when something was done, so that it is worth coming back at once */
bool lane_work(struct rendering *r, struct lane *lane, uint64_t now_ms);
/** Let go of what is done, and let records in again when there is room. */
void lane_advance(struct rendering *r, struct lane *lane);
void lane_commit(struct rendering *r, struct lane *lane);
/** Forget a lane's chunks; what is under way ends by itself. */
void lane_drop(struct rendering *r, struct lane *lane);
/** Is nothing of the lane's chunks under way? */
bool lane_idle(const struct lane *lane);
/** A chunk of the lane can do something again. */
void lane_wake(struct rendering *r, struct lane *lane);
/** All that the lane knows of the chunk changes with its state, so here. */
void lane_chunk_done(struct chunk *chunk);
void chunks_free_orphans(struct rendering *r);

/* ---- chunk.c ---- */

/** Do some of a chunk's work: it is NEW, OPEN or DEAD. @return mails rendered, 1 for other progress, 0: none */
unsigned chunk_step(struct chunk *chunk, uint64_t now_ms);
/** Must the campaign wait, although it is ready? */
bool must_wait(const Tandem__Internal__V1__CampaignContent *content, int64_t wall_ms);
void chunk_free(struct chunk *chunk);
/** Callback of endings. */
void chunk_ended(void *user, size_t position, bool tried);

enum { CHUNK_RETRY_MS = 1000 }; /* what failed is tried again after it */

/* ---- service.c ---- */

/** There may be something to do. */
void rendering_wake(struct rendering *r);

extern const struct td_service rendering_service;

#endif /* RENDERING_SERVICE_H */
