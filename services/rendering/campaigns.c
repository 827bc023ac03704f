/* One struct per campaign in a list. What is asked of the table or the producer carries the campaign's generation;
 * an answer of an older generation is dropped, since the campaign has been loaded anew meanwhile. A campaign lives
 * while anybody uses it or an answer is still due. */
#include "campaigns.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "held.h"
#include "tandem/buf.h"
#include "tandem/clock.h"
#include "tandem/id.h"
#include "tandem/log.h"
#include "tandem/pb.h"
#include "tandem/stages.h"

enum {
    KEEP_COUNT = 64,        /* campaigns kept although nobody uses them */
    KEEP_BYTES = 256 << 20, /* of static bytes */
    RETRY_MS = 1000,
    CONTENT_WAIT_MS = 10000, /* for a campaign's record: ingestion writes it before its recipients */
    PART_WAIT_MS = 5000,
    PART_BYTES = 900000, /* proto/tandem/internal/v1/content.proto */
    PART_KEY_MAX = 5 + 64 + 1 + 10 + 1
};

struct campaign {
    struct campaigns *all;
    struct campaign *next;
    char id[TD_CAMPAIGN_ID_MAX + 1];
    unsigned refs, answers_due;
    unsigned generation;
    uint64_t used; /* the larger the later, for eviction */
    uint64_t retry_at_ms;
    enum campaign_step step;
    struct held held;
    bool wanted;     /* somebody renders it */
    uint64_t served; /* mails */

    struct td_arena *arena; /* of content */
    Tandem__Internal__V1__CampaignContent *content;
    uint8_t digest[32]; /* of what program was compiled from */
    struct mime_program *program;

    struct td_buf *files;    /* one for each attachment while they are fetched */
    size_t file_count, file; /* file: the one being fetched */
    uint32_t part;

    uint32_t parts_due;
    bool part_failed;
    uint8_t published_sha256[32]; /* of the static bytes that are on mail.contents; program may come and go */
};

struct campaigns {
    struct td_app *app;
    struct td_kafka_out *out;
    struct td_kafka_table *table;
    struct td_redis *redis;
    void (*on_change)(void *user);
    void *user;
    struct campaign *first;
    uint64_t clock;
    struct td_metric *published_bytes, *compile_failures;
};

struct answer { /* what an asynchronous answer belongs to */
    struct campaign *campaign;
    unsigned generation;
};

static void load(struct campaign *c);
static void fetch_files(struct campaign *c);
static void publish(struct campaign *c);

static struct answer *answer_new(struct campaign *c)
{
    struct answer *answer = malloc(sizeof(*answer));

    if (answer) {
        *answer = (struct answer){c, c->generation};
        c->answers_due++;
    }
    return answer;
}

/* @return the campaign, or NULL when the answer is out of date */
static struct campaign *answer_take(struct answer *answer)
{
    struct campaign *c = answer->campaign;
    bool current = answer->generation == c->generation;

    c->answers_due--;
    free(answer);
    return current ? c : NULL;
}

static void again_later(struct campaign *c)
{
    c->retry_at_ms = td_mono_ms() + RETRY_MS;
}

static void step_to(struct campaign *c, enum campaign_step step)
{
    c->step = step;
    c->all->on_change(c->all->user);
}

static void drop_files(struct campaign *c)
{
    for (size_t i = 0; i < c->file_count; i++)
        td_buf_release(&c->files[i]);
    free(c->files);
    c->files = NULL;
    c->file_count = c->file = 0;
    c->part = 0;
}

static void drop_program(struct campaign *c)
{
    drop_files(c);
    mime_free(c->program);
    c->program = NULL;
}

/* ---- publish the static bytes ---- */

static void published(void *user, int64_t offset, const struct td_err *err)
{
    struct campaign *c = answer_take(user);

    (void)offset;
    if (!c)
        return;
    if (err && err->code == TD_EFATAL)
        td_app_fail(c->all->app, err);
    c->parts_due--;
    c->part_failed = c->part_failed || err;
    if (c->parts_due > 0)
        return;
    if (c->part_failed) {
        again_later(c);
        return;
    }
    memcpy(c->published_sha256, mime_static_sha256(c->program), 32);
    td_log(TD_INFO, "campaign.ready", "campaign=%s", c->id);
    step_to(c, CAMPAIGN_READY);
}

static int send_part(struct campaign *c, uint32_t part, uint32_t part_count)
{
    Tandem__Internal__V1__ContentPart record = TANDEM__INTERNAL__V1__CONTENT_PART__INIT;
    struct answer *answer = answer_new(c);
    size_t blob_len, packed_len, offset = (size_t)part * PART_BYTES;
    const char *blob = mime_static(c->program, &blob_len);
    char hex[65], key[PART_KEY_MAX];
    void *packed;
    int rc;

    record.sha256 = (ProtobufCBinaryData){32, (uint8_t *)(uintptr_t)mime_static_sha256(c->program)};
    record.part = part;
    record.part_count = part_count;
    record.total_bytes = blob_len;
    record.content.len = blob_len - offset < PART_BYTES ? blob_len - offset : PART_BYTES;
    record.content.data = (uint8_t *)(uintptr_t)(blob + offset);
    packed = td_pb_write(&record.base, &packed_len);
    td_hex(hex, mime_static_sha256(c->program), 32);
    snprintf(key, sizeof(key), "part/%s/%u", hex, part);
    rc = !answer || !packed ? TD_ENOMEM
                            : td_kafka_out_send(c->all->out, TD_T_CONTENTS, -1, key, strlen(key), packed,
                                                packed_len, NULL, 0, published, answer, NULL);
    free(packed);
    if (rc < 0 && answer)
        answer_take(answer);
    if (rc == TD_OK)
        td_metric_add(c->all->published_bytes, (double)record.content.len);
    return rc;
}

static void publish(struct campaign *c)
{
    size_t blob_len;
    uint32_t part_count;

    mime_static(c->program, &blob_len);
    part_count = (uint32_t)((blob_len + PART_BYTES - 1) / PART_BYTES);
    if (memcmp(c->published_sha256, mime_static_sha256(c->program), 32) == 0) {
        step_to(c, CAMPAIGN_READY);
        return;
    }
    step_to(c, CAMPAIGN_PUBLISHING);
    c->generation++; /* reports of an earlier try do not count */
    c->part_failed = false;
    c->parts_due = 0;
    for (uint32_t part = 0; part < part_count; part++) {
        if (send_part(c, part, part_count) < 0) {
            c->part_failed = true;
            break;
        }
        c->parts_due++;
    }
    if (c->parts_due == 0)
        again_later(c);
}

/* ---- compile ---- */

static struct mime_source source_of(const struct campaign *c)
{
    const struct td_settings *settings = c->all->app->settings;

    return (struct mime_source){.campaign_id = c->id,
                                .campaign = c->content->campaign,
                                .date_unix_ms = c->content->submitted_at_unix_ms,
                                .message_id_domain = settings->message_id_domain,
                                .unsubscribe_https_url = settings->unsubscribe_https_url,
                                .token_key = settings->keys_token,
                                .token_key_len = strlen(settings->keys_token)};
}

static void compile(struct campaign *c)
{
    struct mime_source source = source_of(c);
    struct mime_file *files = calloc(c->file_count + 1, sizeof(*files));
    struct td_err err = {0};
    enum td_stage before = td_stage(TD_STAGE_COMPILE);
    int rc = TD_ENOMEM;

    for (size_t i = 0; files && i < c->file_count; i++)
        files[i] = (struct mime_file){td_buf_str(&c->files[i]), c->files[i].len};
    source.files = files;
    if (files)
        rc = mime_compile(&source, &c->program, &err);
    free(files);
    td_stage(before);
    if (td_code_retriable((enum td_code)rc)) {
        again_later(c);
        return;
    }
    drop_files(c);
    if (rc < 0) {
        td_log(TD_ERROR, "campaign.broken", "campaign=%s code=%s msg=\"%s\"", c->id,
               td_code_name((enum td_code)rc), err.text);
        td_metric_add(c->all->compile_failures, 1);
        step_to(c, CAMPAIGN_BROKEN);
        return;
    }
    publish(c);
}

/* ---- attachments ---- */

static bool file_is_whole(const struct campaign *c)
{
    const Tandem__Mail__V1__Attachment *file = c->content->campaign->attachments[c->file];
    uint8_t hash[32];

    return file->sha256.len == 32 &&
           EVP_Digest(td_buf_str(&c->files[c->file]), c->files[c->file].len, hash, NULL, EVP_sha256(), NULL) ==
               1 &&
           memcmp(hash, file->sha256.data, 32) == 0;
}

/* Add one record of a file. @return false when it is not the part that was asked for */
static bool add_part(struct campaign *c, const struct td_table_value *value, bool *ret_last)
{
    struct td_arena *arena = td_arena_new(td_pb_budget(value->len));
    const Tandem__Internal__V1__ContentPart *part;
    ProtobufCMessage *msg = NULL;
    bool fine = false;

    if (arena && td_pb_read(&tandem__internal__v1__content_part__descriptor, value->data, value->len, arena, &msg,
                            NULL) == TD_OK) {
        part = (const Tandem__Internal__V1__ContentPart *)msg;
        fine = part->part == c->part && part->part < part->part_count &&
               td_buf_add(&c->files[c->file], part->content.data, part->content.len) == TD_OK;
        *ret_last = part->part + 1 == part->part_count;
    }
    td_arena_free(arena);
    return fine;
}

static void got_part(void *user, struct td_table_value *value, const struct td_err *err)
{
    struct campaign *c = answer_take(user);
    bool last = false;

    if (!c)
        return;
    if (err || !value || !add_part(c, value, &last) || (last && !file_is_whole(c))) {
        td_log(TD_WARN, "campaign.attachment_missing", "campaign=%s file=%zu part=%u", c->id, c->file, c->part);
        td_buf_clear(&c->files[c->file]);
        c->part = 0;
        again_later(c);
        return;
    }
    c->part++;
    if (last) {
        c->file++;
        c->part = 0;
    }
    fetch_files(c);
}

/* Ask for the next part that is missing; when there is none, compile. */
static void fetch_files(struct campaign *c)
{
    const Tandem__Mail__V1__Attachment *file;
    char hex[65], key[PART_KEY_MAX];
    struct answer *answer;

    if (c->file == c->file_count) {
        compile(c);
        return;
    }
    file = c->content->campaign->attachments[c->file];
    if (file->sha256.len != 32) {
        td_log(TD_ERROR, "campaign.broken", "campaign=%s code=EINVAL msg=\"an attachment has no SHA-256\"", c->id);
        step_to(c, CAMPAIGN_BROKEN);
        return;
    }
    td_hex(hex, file->sha256.data, 32);
    snprintf(key, sizeof(key), "part/%s/%u", hex, c->part);
    answer = answer_new(c);
    if (!answer || td_kafka_table_get(c->all->table, key, strlen(key), PART_WAIT_MS, got_part, answer) != TD_OK) {
        if (answer)
            answer_take(answer);
        again_later(c);
    }
}

static void start_files(struct campaign *c)
{
    size_t count = c->content->campaign->n_attachments;

    drop_program(c);
    c->files = calloc(count + 1, sizeof(*c->files));
    if (!c->files) {
        again_later(c);
        c->step = CAMPAIGN_LOADING;
        return;
    }
    for (size_t i = 0; i < count; i++)
        td_buf_init(&c->files[i], MIME_BLOB_MAX);
    c->file_count = count;
    step_to(c, CAMPAIGN_FILES);
    fetch_files(c);
}

/* ---- content ---- */

/* Parse a campaign's record into memory of its own. @return NULL when it is none or memory is short */
static Tandem__Internal__V1__CampaignContent *parse_content(const struct campaign *c, const void *value,
                                                            size_t len, struct td_arena **ret_arena)
{
    struct td_arena *arena = td_arena_new(td_pb_budget(len));
    Tandem__Internal__V1__CampaignContent *content;
    ProtobufCMessage *msg = NULL;

    if (!arena ||
        td_pb_read(&tandem__internal__v1__campaign_content__descriptor, value, len, arena, &msg, NULL) < 0)
        goto failed;
    content = (Tandem__Internal__V1__CampaignContent *)msg;
    if (!content->campaign || strcmp(content->campaign_id, c->id) != 0)
        goto failed;
    *ret_arena = arena;
    return content;
failed:
    td_arena_free(arena);
    return NULL;
}

static void take_content(struct campaign *c, const void *value, size_t len)
{
    struct td_arena *arena = NULL;
    Tandem__Internal__V1__CampaignContent *content = parse_content(c, value, len, &arena);
    struct mime_source source;
    uint8_t digest[32];

    c->generation++; /* what was asked for an older revision does not count any more */
    c->retry_at_ms = 0;
    if (!content) {
        td_log(TD_ERROR, "campaign.broken", "campaign=%s code=ESYNTAX msg=\"its record cannot be read\"", c->id);
        step_to(c, CAMPAIGN_BROKEN);
        return;
    }
    td_arena_free(c->arena);
    c->arena = arena;
    c->content = content;
    if (content->state == TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_PAUSED) {
        c->wanted = false;
        drop_program(c);
    }
    source = source_of(c);
    if (mime_source_digest(&source, digest) < 0) {
        c->step = CAMPAIGN_LOADING;
        again_later(c);
        return;
    }
    if (c->program && memcmp(digest, c->digest, 32) == 0) {
        publish(c);
        return;
    }
    memcpy(c->digest, digest, 32);
    if (c->wanted) {
        start_files(c);
        return;
    }
    drop_program(c);
    step_to(c, CAMPAIGN_LOADED);
}

static void got_content(void *user, struct td_table_value *value, const struct td_err *err)
{
    struct campaign *c = answer_take(user);

    if (!c)
        return;
    if (value) {
        take_content(c, value->data, value->len);
    } else if (err || !td_kafka_table_loaded(c->all->table)) {
        again_later(c);
    } else {
        td_log(TD_WARN, "campaign.unknown", "campaign=%s", c->id);
        step_to(c, CAMPAIGN_UNKNOWN);
    }
}

static void load(struct campaign *c)
{
    struct answer *answer = answer_new(c);

    c->step = CAMPAIGN_LOADING;
    if (!answer ||
        td_kafka_table_get(c->all->table, c->id, strlen(c->id), CONTENT_WAIT_MS, got_content, answer) != TD_OK) {
        if (answer)
            answer_take(answer);
        again_later(c);
    }
}

/* ---- outside ---- */

static struct campaign *find(const struct campaigns *campaigns, const void *id, size_t len)
{
    for (struct campaign *c = campaigns->first; c; c = c->next)
        if (strlen(c->id) == len && memcmp(c->id, id, len) == 0)
            return c;
    return NULL;
}

static void campaign_free(struct campaign *c)
{
    drop_program(c);
    td_arena_free(c->arena);
    free(c);
}

static size_t static_bytes(const struct campaign *c)
{
    size_t len = 0;

    if (c->program)
        mime_static(c->program, &len);
    return len;
}

/* Let go of the campaigns that nobody has used for longest, beyond what may be kept. */
static void evict(struct campaigns *campaigns)
{
    for (;;) {
        struct campaign **oldest = NULL;
        size_t count = 0, bytes = 0;

        for (struct campaign **at = &campaigns->first; *at; at = &(*at)->next) {
            count++;
            bytes += static_bytes(*at);
            if ((*at)->refs == 0 && (*at)->answers_due == 0 && (!oldest || (*at)->used < (*oldest)->used))
                oldest = at;
        }
        if (!oldest || (count <= KEEP_COUNT && bytes <= KEEP_BYTES))
            return;
        struct campaign *gone = *oldest;

        *oldest = gone->next;
        campaign_free(gone);
    }
}

struct campaign *campaigns_use(struct campaigns *campaigns, const char *campaign_id)
{
    struct campaign *c = find(campaigns, campaign_id, strlen(campaign_id));

    if (!c) {
        evict(campaigns);
        c = calloc(1, sizeof(*c));
        if (!c)
            return NULL;
        c->all = campaigns;
        snprintf(c->id, sizeof(c->id), "%s", campaign_id);
        c->next = campaigns->first;
        campaigns->first = c;
        load(c);
    } else if (c->step == CAMPAIGN_UNKNOWN && c->refs == 0) {
        load(c); /* its record may have come meanwhile, before the table told */
    }
    c->refs++;
    c->used = ++campaigns->clock;
    return c;
}

void campaigns_release(struct campaigns *campaigns, struct campaign *campaign)
{
    (void)campaigns;
    campaign->refs--;
}

void campaigns_changed(struct campaigns *campaigns, const void *key, size_t key_len, const void *value, size_t len)
{
    struct campaign *c = find(campaigns, key, key_len);

    if (!c)
        return;
    if (value) {
        take_content(c, value, len);
        return;
    }
    c->generation++;
    c->retry_at_ms = 0;
    step_to(c, CAMPAIGN_UNKNOWN);
}

static void got_held(void *user, const struct td_reply *reply, const struct td_err *err)
{
    struct campaign *c = user;
    bool was = c->held.is;

    c->answers_due--;
    held_answer(&c->held, reply, err, td_mono_ms());
    if (was == c->held.is)
        return;
    td_log(TD_INFO, c->held.is ? "campaign.held" : "campaign.released", "campaign=%s", c->id);
    c->all->on_change(c->all->user);
}

bool campaign_may_render(struct campaign *campaign, uint64_t now_ms)
{
    return held_may_render(&campaign->held, now_ms);
}

void campaigns_tick(struct campaigns *campaigns, uint64_t now_ms)
{
    for (struct campaign *c = campaigns->first; c; c = c->next) {
        c->answers_due += c->refs > 0 && held_ask(&c->held, campaigns->redis, c->id, now_ms, got_held, c);
        if (!c->retry_at_ms || now_ms < c->retry_at_ms)
            continue;
        c->retry_at_ms = 0;
        if (c->step == CAMPAIGN_LOADING)
            load(c);
        else if (c->step == CAMPAIGN_FILES)
            fetch_files(c);
        else if (c->step == CAMPAIGN_PUBLISHING)
            publish(c);
    }
}

void campaign_want(struct campaign *campaign)
{
    campaign->wanted = true;
    if (campaign->step == CAMPAIGN_LOADED)
        start_files(campaign);
}

uint64_t campaign_served(const struct campaign *campaign)
{
    return campaign->served;
}

void campaign_count_served(struct campaign *campaign, unsigned mails)
{
    campaign->served += mails;
}

enum campaign_step campaign_step(const struct campaign *campaign)
{
    return campaign->step;
}

const Tandem__Internal__V1__CampaignContent *campaign_content(const struct campaign *campaign)
{
    return campaign->content;
}

const struct mime_program *campaign_program(const struct campaign *campaign)
{
    return campaign->step == CAMPAIGN_READY ? campaign->program : NULL;
}

struct campaigns *campaigns_new(struct td_app *app, struct td_kafka_out *out, void (*on_change)(void *user),
                                void *user)
{
    struct campaigns *campaigns = calloc(1, sizeof(*campaigns));

    if (!campaigns)
        return NULL;
    *campaigns = (struct campaigns){.app = app, .out = out, .on_change = on_change, .user = user};
    campaigns->published_bytes = td_metric(app->metrics, TD_COUNTER, "tandem_rendering_static_bytes_total",
                                           "Static bytes of campaigns written to mail.contents.", "");
    campaigns->compile_failures = td_metric(app->metrics, TD_COUNTER, "tandem_rendering_broken_campaigns_total",
                                            "Campaigns that could not be compiled.", "");
    return campaigns;
}

void campaigns_set_redis(struct campaigns *campaigns, struct td_redis *redis)
{
    campaigns->redis = redis;
}

void campaigns_set_table(struct campaigns *campaigns, struct td_kafka_table *table)
{
    campaigns->table = table;
}

void campaigns_free(struct campaigns *campaigns)
{
    if (!campaigns)
        return;
    while (campaigns->first) {
        struct campaign *c = campaigns->first;

        campaigns->first = c->next;
        campaign_free(c);
    }
    free(campaigns);
}
