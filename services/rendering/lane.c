/* lane.c - a lane of mail.recipients: which campaign's turn it is, which chunks are in memory, what is done.
 *
 * Every record of the lane is read as it comes, up to DONE_NOTE_SPAN beyond the oldest that is not done. Of most
 * only the offset is kept: a share has the next few of its chunks in memory, and reads the others again when their
 * turn comes. So a campaign that waits costs its chunks' offsets and nothing else. */
#include <stdlib.h>
#include <string.h>

#include "service.h"
#include "tandem/clock.h"
#include "tandem/log.h"

enum {
    QUANTUM = 16,              /* mails a turn; also what chunk_step does at most */
    CHUNKS_AT_WORK = 8,        /* of a share: those behind wait until one is done */
    CHUNKS_KEPT = 4,           /* of a share in memory, as long as the lane has room */
    RAW_BYTES_A_LANE = 2 << 20 /* and that is its room; one chunk of each share goes beyond it */
};

int lane_open(struct lane *lane, struct td_lane id, const char *note)
{
    *lane = (struct lane){.id = id, .wm = td_watermark_new(DONE_NOTE_SPAN), .shares = td_map_new()};
    if (!lane->wm || !lane->shares) {
        td_watermark_free(lane->wm);
        td_map_free(lane->shares);
        *lane = (struct lane){.id = id};
        return TD_ENOMEM;
    }
    lane->assigned = true;
    td_turns_init(&lane->turns, QUANTUM);
    if (*note && !done_note_read(&lane->before, note))
        td_log(TD_WARN, "lane.note", "partition=%d msg=\"what is beside the offset cannot be read\"", (int)id.partition);
    return TD_OK;
}

void lane_wake(struct rendering *r, struct lane *lane)
{
    lane->idle = false;
    rendering_wake(r);
}

/* ---- memory ---- */

static void *copy(const void *data, size_t len)
{
    char *at = malloc(len + 1);

    if (at && len)
        memcpy(at, data, len);
    return at;
}

static void forget_record(struct chunk *chunk)
{
    free(chunk->key);
    free(chunk->raw);
    chunk->key = chunk->raw = NULL;
}

/* @return false when out of memory */
static bool keep_record(struct chunk *chunk, const void *key, size_t key_len, const void *value, size_t len)
{
    chunk->key = copy(key, key_len);
    chunk->raw = copy(value, len);
    if (!chunk->key || !chunk->raw) {
        forget_record(chunk);
        return false;
    }
    chunk->key_len = key_len;
    chunk->raw_len = len;
    return true;
}

static void count_in(struct chunk *chunk)
{
    chunk->share->in_memory++;
    chunk->lane->raw_bytes += chunk->raw_len;
}

static void count_out(struct chunk *chunk)
{
    chunk->share->in_memory--;
    chunk->lane->raw_bytes -= chunk->raw_len;
}

static bool may_keep(const struct share *share)
{
    return share->in_memory < CHUNKS_KEPT && share->lane->raw_bytes < RAW_BYTES_A_LANE;
}

/* ---- shares ---- */

/* "campaign_id/chunk"; "" when it is not that. */
static void read_key(char out[TD_CAMPAIGN_ID_MAX + 1], const struct td_record *rec)
{
    const char *key = rec->key, *slash = rec->key_len ? memrchr(key, '/', rec->key_len) : NULL;
    size_t len = slash ? (size_t)(slash - key) : 0;

    if (len > TD_CAMPAIGN_ID_MAX)
        len = 0;
    if (len)
        memcpy(out, key, len);
    out[len] = '\0';
    if (strlen(out) != len || !td_campaign_id_valid(out))
        *out = '\0';
}

/* A campaign whose content is not there yet counts as small: its first turn tells. */
static enum td_turn_class class_of(const struct share *share)
{
    const Tandem__Internal__V1__CampaignContent *content = share->campaign ? campaign_content(share->campaign) : NULL;

    if (!content)
        return td_turn_class(false, 0, 0);
    return td_turn_class(content->campaign->class_ == TANDEM__MAIL__V1__CAMPAIGN_CLASS__CAMPAIGN_CLASS_EXPRESS,
                         content->sealed ? content->recipient_count : content->campaign->expected_recipients,
                         campaign_served(share->campaign));
}

static struct share *share_new(struct rendering *r, struct lane *lane, const char *campaign_id)
{
    struct share *share = calloc(1, sizeof(*share));

    if (!share)
        return NULL;
    share->lane = lane;
    memcpy(share->campaign_id, campaign_id, strlen(campaign_id));
    if (*campaign_id)
        share->campaign = campaigns_use(r->campaigns, campaign_id);
    if ((*campaign_id && !share->campaign) || td_map_set(lane->shares, campaign_id, strlen(campaign_id), share) < 0) {
        if (share->campaign)
            campaigns_release(r->campaigns, share->campaign);
        free(share);
        return NULL;
    }
    td_turns_join(&lane->turns, &share->turn, class_of(share));
    return share;
}

static void share_free(struct rendering *r, struct share *share)
{
    td_turns_leave(&share->lane->turns, &share->turn);
    td_map_remove(share->lane->shares, share->campaign_id, strlen(share->campaign_id));
    if (share->campaign)
        campaigns_release(r->campaigns, share->campaign);
    free(share);
}

static void append(struct share *share, struct chunk *chunk)
{
    chunk->share = share;
    chunk->prev = share->last;
    if (share->last)
        share->last->next = chunk;
    else
        share->first = chunk;
    share->last = chunk;
    share->count++;
}

static void unlink_chunk(struct share *share, struct chunk *chunk)
{
    if (chunk->prev)
        chunk->prev->next = chunk->next;
    else
        share->first = chunk->next;
    if (chunk->next)
        chunk->next->prev = chunk->prev;
    else
        share->last = chunk->prev;
}

/* ---- records come ---- */

static void out_of_memory(struct rendering *r, size_t bytes)
{
    struct td_err err;

    td_fail(&err, TD_ENOMEM, "no memory for a chunk of %zu bytes", bytes);
    td_app_fail(r->app, &err); /* uncommitted: it comes again */
}

static void pause_when_full(struct rendering *r, struct lane *lane)
{
    bool full = td_watermark_spread(lane->wm) >= DONE_NOTE_SPAN;

    if (full && !lane->paused)
        td_kafka_in_pause(r->in, lane->id);
    else if (lane->paused && td_watermark_spread(lane->wm) <= DONE_NOTE_SPAN / 4 * 3) {
        lane->paused = false;
        td_kafka_in_resume(r->in, lane->id);
    }
    lane->paused = lane->paused || full;
}

/* Records were deleted between those that we have and this one: a new process begins behind the gap. */
static void gap_too_wide(struct rendering *r, const struct td_record *rec)
{
    struct td_err err;

    td_fail(&err, TD_EFATAL, "records of lane %d before offset %lld were deleted before they were read",
            (int)rec->lane.partition, (long long)rec->offset);
    td_app_fail(r->app, &err);
}

void lane_take(struct rendering *r, const struct td_record *rec)
{
    struct lane *lane = &r->lanes[rec->lane.partition];
    char campaign_id[TD_CAMPAIGN_ID_MAX + 1];
    struct share *share;
    struct chunk *chunk;
    bool in_order;

    if (!td_watermark_begin(lane->wm, rec->offset)) {
        if (rec->offset >= td_watermark_next(lane->wm) + DONE_NOTE_SPAN)
            gap_too_wide(r, rec);
        return; /* a repeat */
    }
    if (done_note_has(&lane->before, rec->offset)) {
        td_watermark_done(lane->wm, rec->offset);
        td_metric_add(r->m_repeats, 1);
        lane->dirty = true;
        return;
    }
    read_key(campaign_id, rec);
    share = td_map_get(lane->shares, campaign_id, strlen(campaign_id));
    if (!share)
        share = share_new(r, lane, campaign_id);
    chunk = share ? calloc(1, sizeof(*chunk)) : NULL;
    if (!chunk) {
        out_of_memory(r, rec->len);
        return;
    }
    chunk->r = r;
    chunk->lane = lane;
    chunk->offset = rec->offset;
    chunk->raw_len = rec->len;
    in_order = !share->last || share->last->state >= CHUNK_NEW; /* what is in memory is the front of the share */
    append(share, chunk);
    lane->chunk_count++;
    td_metric_add(r->m_chunks, 1);
    if (in_order && may_keep(share) && keep_record(chunk, rec->key, rec->key_len, rec->value, rec->len)) {
        chunk->state = CHUNK_NEW;
        count_in(chunk);
    }
    pause_when_full(r, lane);
    lane_wake(r, lane);
}

/* ---- and are read again ---- */

static void on_reread(void *user, const void *key, size_t key_len, const void *value, size_t len,
                      const struct td_err *err)
{
    struct chunk *chunk = user;

    chunk->under_way--;
    if (!chunk->lane)
        return; /* an orphan */
    count_out(chunk);
    if (err || !keep_record(chunk, key, key_len, value, len)) {
        chunk->state = CHUNK_AWAY;
        chunk->retry_at_ms = td_mono_ms() + CHUNK_RETRY_MS;
        if (!err)
            out_of_memory(chunk->r, len);
        return;
    }
    chunk->state = CHUNK_NEW;
    count_in(chunk);
    if (!value) {
        td_log(TD_ERROR, "chunk.gone", "partition=%d offset=%lld msg=\"the topic does not keep it any more\"",
               (int)chunk->lane->id.partition, (long long)chunk->offset);
        lane_chunk_done(chunk);
    }
    lane_wake(chunk->r, chunk->lane);
}

static void reread(struct chunk *chunk, uint64_t now_ms)
{
    if (now_ms < chunk->retry_at_ms)
        return;
    if (td_kafka_reader_read(chunk->r->reader, chunk->lane->id.partition, chunk->offset, on_reread, chunk) < 0) {
        chunk->retry_at_ms = now_ms + CHUNK_RETRY_MS;
        return;
    }
    chunk->state = CHUNK_READING;
    chunk->under_way++;
    count_in(chunk);
    td_metric_add(chunk->r->m_reread, 1);
}

/* What is next of a share whose turn it is; the one at its front in any case. */
static void read_ahead(struct share *share, uint64_t now_ms)
{
    size_t looked = 0;

    for (struct chunk *chunk = share->first; chunk && looked < CHUNKS_AT_WORK; chunk = chunk->next, looked++)
        if (chunk->state == CHUNK_AWAY) {
            if (share->in_memory > 0 && !may_keep(share))
                return;
            reread(chunk, now_ms);
        }
}

/* The share waits for long: its records may go. */
static void put_away(struct share *share)
{
    size_t looked = 0;

    for (struct chunk *chunk = share->first; chunk && looked < CHUNKS_AT_WORK; chunk = chunk->next, looked++) {
        if (chunk->state != CHUNK_NEW)
            continue;
        count_out(chunk);
        forget_record(chunk);
        chunk->state = CHUNK_AWAY;
    }
}

/* ---- work ---- */

struct work {
    struct rendering *r;
    uint64_t now_ms;
    int64_t wall_ms;
};

/* Does it wait for its campaign? Who is cancelled, late, unknown or broken has something to do: to end. */
static bool waits(struct share *share, int64_t wall_ms)
{
    const Tandem__Internal__V1__CampaignContent *content;
    enum campaign_step step;

    if (!share->campaign)
        return false;
    step = campaign_step(share->campaign);
    content = campaign_content(share->campaign);
    if (step == CAMPAIGN_UNKNOWN || step == CAMPAIGN_BROKEN)
        return false;
    if (!content)
        return true;
    if (content->state == TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_CANCELLED ||
        (content->campaign->deadline_unix_ms > 0 && content->campaign->deadline_unix_ms <= wall_ms))
        return false;
    if (!must_wait(content, wall_ms))
        return false;
    put_away(share);
    return true;
}

static unsigned serve(void *user, struct td_turn *turn, enum td_turn_class *class)
{
    struct work *work = user;
    struct share *share = (struct share *)turn;
    struct chunk *next;
    size_t looked = 0;

    if (waits(share, work->wall_ms))
        return 0;
    read_ahead(share, work->now_ms);
    for (struct chunk *chunk = share->first; chunk && looked < CHUNKS_AT_WORK; chunk = next, looked++) {
        unsigned mails;

        next = chunk->next;
        if (chunk->state == CHUNK_AWAY || chunk->state == CHUNK_READING)
            break; /* in their order */
        mails = chunk_step(chunk, work->now_ms);
        if (mails > 0) {
            if (share->campaign)
                campaign_count_served(share->campaign, mails);
            *class = class_of(share);
            return mails;
        }
        if (chunk->state == CHUNK_OPEN && chunk->todo > 0 && work->now_ms >= chunk->retry_at_ms)
            break; /* what holds it holds those behind it too */
    }
    return 0;
}

bool lane_work(struct rendering *r, struct lane *lane, uint64_t now_ms)
{
    struct work work = {r, now_ms, td_wall_ms()};

    lane->idle = td_turns_serve(&lane->turns, serve, &work) == 0 && !lane->done;
    lane_advance(r, lane);
    return !lane->idle;
}

/* ---- done ---- */

void lane_chunk_done(struct chunk *chunk)
{
    chunk->state = CHUNK_DONE;
    if (!chunk->lane)
        return; /* an orphan */
    count_out(chunk);
    unlink_chunk(chunk->share, chunk);
    chunk->next = chunk->lane->done;
    chunk->lane->done = chunk;
}

void lane_advance(struct rendering *r, struct lane *lane)
{
    while (lane->done) {
        struct chunk *chunk = lane->done;
        struct share *share = chunk->share;

        lane->done = chunk->next;
        td_watermark_done(lane->wm, chunk->offset);
        lane->dirty = true;
        lane->chunk_count--;
        td_metric_add(r->m_chunks, -1);
        chunk_free(chunk);
        if (--share->count == 0)
            share_free(r, share);
    }
    pause_when_full(r, lane);
}

void lane_commit(struct rendering *r, struct lane *lane)
{
    char note[DONE_NOTE_MAX];

    if (!lane->dirty || td_watermark_next(lane->wm) < 0)
        return;
    lane->dirty = false;
    done_note_write(note, lane->wm);
    td_kafka_in_commit_note(r->in, lane->id, td_watermark_next(lane->wm), note);
}

bool lane_idle(const struct lane *lane)
{
    size_t cursor = 0;
    const struct share *share;

    while ((share = td_map_next(lane->shares, &cursor)))
        for (const struct chunk *chunk = share->first; chunk; chunk = chunk->next)
            if (chunk->under_way > 0 && chunk->state != CHUNK_READING)
                return false;
    return true;
}

static void orphan(struct rendering *r, struct chunk *first)
{
    for (struct chunk *chunk = first, *next; chunk; chunk = next) {
        next = chunk->next;
        td_metric_add(r->m_chunks, -1);
        chunk->lane = NULL;
        chunk->share = NULL;
        chunk->prev = NULL;
        chunk->next = r->orphans;
        r->orphans = chunk;
    }
}

void lane_drop(struct rendering *r, struct lane *lane)
{
    size_t cursor = 0;
    struct share *share;

    if (!lane->assigned)
        return;
    orphan(r, lane->done);
    while ((share = td_map_next(lane->shares, &cursor))) {
        orphan(r, share->first);
        if (share->campaign)
            campaigns_release(r->campaigns, share->campaign);
        free(share);
    }
    td_map_free(lane->shares);
    td_watermark_free(lane->wm);
    *lane = (struct lane){.id = lane->id};
}

void chunks_free_orphans(struct rendering *r)
{
    for (struct chunk **at = &r->orphans; *at;) {
        struct chunk *chunk = *at;

        if (chunk->under_way > 0) {
            at = &chunk->next;
            continue;
        }
        *at = chunk->next;
        chunk_free(chunk);
    }
}
