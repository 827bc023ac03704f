/* Two maps: campaigns by id, attachment parts by SHA-256. */
#include "campaigns.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "tandem/arena.h"
#include "tandem/map.h"
#include "tandem/pb.h"

static const char part_prefix[] = "part/";

struct campaigns {
    struct td_map *by_id;  /* struct known_campaign, owned */
    struct td_map *by_sha; /* struct known_parts, owned */
};

static void known_campaign_free(struct known_campaign *campaign)
{
    if (!campaign)
        return;
    free(campaign->lanes);
    free(campaign->attachments);
    needed_fields_release(&campaign->needed);
    free(campaign);
}

struct campaigns *campaigns_new(void)
{
    struct campaigns *campaigns = calloc(1, sizeof(*campaigns));

    if (!campaigns)
        return NULL;
    campaigns->by_id = td_map_new();
    campaigns->by_sha = td_map_new();
    if (!campaigns->by_id || !campaigns->by_sha) {
        campaigns_free(campaigns);
        return NULL;
    }
    return campaigns;
}

void campaigns_free(struct campaigns *campaigns)
{
    struct known_campaign *campaign;
    struct known_parts *parts;
    size_t cursor = 0;

    if (!campaigns)
        return;
    while (campaigns->by_id && (campaign = td_map_next(campaigns->by_id, &cursor)))
        known_campaign_free(campaign);
    cursor = 0;
    while (campaigns->by_sha && (parts = td_map_next(campaigns->by_sha, &cursor))) {
        free(parts->digest);
        free(parts);
    }
    td_map_free(campaigns->by_id);
    td_map_free(campaigns->by_sha);
    free(campaigns);
}

struct known_campaign *campaigns_find(const struct campaigns *campaigns, const char *id)
{
    return td_map_get(campaigns->by_id, id, strlen(id));
}

struct known_parts *campaigns_parts(const struct campaigns *campaigns, const uint8_t sha256[32])
{
    return td_map_get(campaigns->by_sha, sha256, 32);
}

uint64_t campaign_attachment_bytes(const struct known_campaign *campaign, const uint8_t sha256[32])
{
    for (size_t i = 0; campaign && i < campaign->attachment_count; i++)
        if (memcmp(campaign->attachments[i].sha256, sha256, 32) == 0)
            return campaign->attachments[i].size_bytes;
    return 0;
}

static int copy_lists(struct known_campaign *known, const CampaignContent *content)
{
    const Campaign *campaign = content->campaign;
    uint32_t *lanes = malloc((content->n_lanes + 1) * sizeof(*lanes));
    struct known_attachment *attachments = calloc(campaign->n_attachments + 1, sizeof(*attachments));

    if (!lanes || !attachments) {
        free(lanes);
        free(attachments);
        return TD_ENOMEM;
    }
    for (size_t i = 0; i < content->n_lanes; i++)
        lanes[i] = content->lanes[i];
    for (size_t i = 0; i < campaign->n_attachments; i++) {
        if (campaign->attachments[i]->sha256.len == 32)
            memcpy(attachments[i].sha256, campaign->attachments[i]->sha256.data, 32);
        attachments[i].size_bytes = campaign->attachments[i]->size_bytes;
    }
    free(known->lanes);
    free(known->attachments);
    known->lanes = lanes;
    known->lane_count = content->n_lanes;
    known->attachments = attachments;
    known->attachment_count = campaign->n_attachments;
    return TD_OK;
}

static struct known_campaign *campaign_add(struct campaigns *campaigns, const char *id)
{
    struct known_campaign *known = calloc(1, sizeof(*known));

    if (!known)
        return NULL;
    memcpy(known->id, id, strlen(id));
    if (td_map_set(campaigns->by_id, id, strlen(id), known) < 0) {
        free(known);
        return NULL;
    }
    return known;
}

struct known_campaign *campaigns_note_content(struct campaigns *campaigns, const CampaignContent *content)
{
    struct known_campaign *known = campaigns_find(campaigns, content->campaign_id);
    uint8_t sha256[32] = {0};

    if (!known)
        known = campaign_add(campaigns, content->campaign_id);
    if (!known || known->revision >= content->revision)
        return known;
    if (copy_lists(known, content) < 0)
        return NULL;
    if (content->campaign_sha256.len == sizeof(sha256))
        memcpy(sha256, content->campaign_sha256.data, sizeof(sha256));
    if (memcmp(sha256, known->sha256, sizeof(sha256)) != 0) {
        needed_fields_release(&known->needed);
        known->needed_known = false;
    }
    memcpy(known->sha256, sha256, sizeof(sha256));
    known->revision = content->revision;
    known->sealed = content->sealed;
    known->recipient_count = content->recipient_count;
    known->cancelled = content->state == TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_CANCELLED;
    return known;
}

static struct known_parts *parts_of(struct campaigns *campaigns, const ContentPart *part)
{
    struct known_parts *parts = campaigns_parts(campaigns, part->sha256.data);
    uint8_t(*digest)[32];

    if (parts && parts->part_count == part->part_count)
        return parts;
    digest = calloc(part->part_count, sizeof(*digest));
    if (!digest)
        return NULL;
    if (!parts) {
        parts = calloc(1, sizeof(*parts));
        if (!parts || td_map_set(campaigns->by_sha, part->sha256.data, 32, parts) < 0) {
            free(parts);
            free(digest);
            return NULL;
        }
        memcpy(parts->sha256, part->sha256.data, 32);
    }
    /* Cut into another number of parts than before: what was seen says nothing any more. */
    free(parts->digest);
    parts->digest = digest;
    parts->part_count = part->part_count;
    parts->seen = 0;
    parts->verified = false;
    parts->total_wrong = false;
    return parts;
}

int campaigns_note_part(struct campaigns *campaigns, const ContentPart *part)
{
    static const uint8_t none[32];
    struct known_parts *parts;
    uint8_t digest[32];

    if (part->sha256.len != 32 || part->part_count == 0 || part->part >= part->part_count)
        return TD_ESYNTAX;
    if (part->part_count > CAMPAIGNS_PARTS_MAX)
        return TD_OK; /* rendering's static pieces of an odd campaign; attachments are never that many */
    parts = parts_of(campaigns, part);
    if (!parts)
        return TD_ENOMEM;
    SHA256(part->content.data, part->content.len, digest);
    if (memcmp(parts->digest[part->part], none, sizeof(none)) == 0)
        parts->seen++;
    else if (memcmp(parts->digest[part->part], digest, sizeof(digest)) != 0)
        parts->verified =
            false; /* somebody wrote other bytes under the same name: look again before trusting it */
    memcpy(parts->digest[part->part], digest, sizeof(digest));
    if (part->total_bytes == 0)
        parts->total_wrong = true;
    return TD_OK;
}

void campaigns_forget_parts(struct campaigns *campaigns, const uint8_t sha256[32])
{
    struct known_parts *parts = td_map_remove(campaigns->by_sha, sha256, 32);

    if (parts)
        free(parts->digest);
    free(parts);
}

/* "part/<hex>/<n>" with an empty value: the attachment is gone from the topic. */
static int drop_parts(struct campaigns *campaigns, const char *key, size_t key_len)
{
    char hex[65] = {0};
    uint8_t sha256[32];

    if (key_len < sizeof(part_prefix) - 1 + 64)
        return TD_ESYNTAX;
    memcpy(hex, key + sizeof(part_prefix) - 1, 64);
    if (!td_unhex(sha256, sizeof(sha256), hex))
        return TD_ESYNTAX;
    campaigns_forget_parts(campaigns, sha256);
    return TD_OK;
}

static int note_message(struct campaigns *campaigns, bool is_part, const void *value, size_t len)
{
    const ProtobufCMessageDescriptor *type = is_part ? &tandem__internal__v1__content_part__descriptor
                                                     : &tandem__internal__v1__campaign_content__descriptor;
    struct td_arena *arena = td_arena_new(td_pb_budget(len));
    ProtobufCMessage *message;
    int rc;

    if (!arena)
        return TD_ENOMEM;
    rc = td_pb_read(type, value, len, arena, &message, NULL);
    if (rc == TD_OK && is_part) {
        rc = campaigns_note_part(campaigns, (const ContentPart *)message);
    } else if (rc == TD_OK) {
        const CampaignContent *content = (const CampaignContent *)message;

        if (!td_campaign_id_valid(content->campaign_id) || !content->campaign || content->n_lanes == 0)
            rc = TD_ESYNTAX;
        else
            rc = campaigns_note_content(campaigns, content) ? TD_OK : TD_ENOMEM;
    }
    td_arena_free(arena);
    return rc;
}

int campaigns_note(struct campaigns *campaigns, const void *key, size_t key_len, const void *value, size_t len)
{
    bool is_part = key_len >= sizeof(part_prefix) - 1 && memcmp(key, part_prefix, sizeof(part_prefix) - 1) == 0;

    if (value)
        return note_message(campaigns, is_part, value, len);
    if (is_part)
        return drop_parts(campaigns, key, key_len);
    if (key_len <= TD_CAMPAIGN_ID_MAX)
        known_campaign_free(td_map_remove(campaigns->by_id, key, key_len));
    return TD_OK;
}
