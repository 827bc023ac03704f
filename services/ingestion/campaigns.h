/* campaigns.h - what ingestion remembers of campaigns and attachments: a digest of mail.contents. Pure.
 *
 * Templates and bytes stay on the topic; here is what the next submission is judged by, some 200 bytes a campaign.
 */
#ifndef INGESTION_CAMPAIGNS_H
#define INGESTION_CAMPAIGNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "names.h"
#include "tandem/id.h"
#include "validate.h"

#define CAMPAIGNS_PARTS_MAX 256 /* parts of one attachment: 230 MB */

struct known_attachment { /* as a campaign names it */
    uint8_t sha256[32];
    uint64_t size_bytes;
};

struct known_campaign {
    char id[TD_CAMPAIGN_ID_MAX + 1];
    uint32_t revision;
    bool sealed, cancelled;
    bool taken; /* recipients were taken by this process */
    uint32_t recipient_count;
    uint32_t *lanes;
    size_t lane_count;
    uint8_t sha256[32]; /* CampaignContent.campaign_sha256 */
    struct known_attachment *attachments;
    size_t attachment_count;
    bool needed_known; /* else the templates have to be looked at first */
    struct needed_fields needed;
};

struct known_parts { /* of one attachment, whoever's it is */
    uint8_t sha256[32];
    uint32_t part_count;   /* 0: none seen yet */
    uint32_t seen;         /* how many different parts */
    bool verified;         /* all parts together have this SHA-256 */
    bool total_wrong;      /* a part was written without knowing the size of the whole */
    uint8_t (*digest)[32]; /* part_count entries; all zero: not seen */
};

struct campaigns;

struct campaigns *campaigns_new(void);
void campaigns_free(struct campaigns *campaigns); /* NULL is fine */

/** Take in a record of mail.contents, from the topic or as it was just written. An older revision changes nothing.
 * @return TD_OK; TD_ENOMEM; TD_ESYNTAX: not what such a key holds */
int campaigns_note(struct campaigns *campaigns, const void *key, size_t key_len, const void *value, size_t len);
/** The same of a content at hand. @return the campaign, NULL when out of memory */
struct known_campaign *campaigns_note_content(struct campaigns *campaigns, const CampaignContent *content);

/** The same of a part. @return TD_OK, TD_ENOMEM, TD_ESYNTAX */
int campaigns_note_part(struct campaigns *campaigns, const ContentPart *part);
/** The parts are gone from the topic. */
void campaigns_forget_parts(struct campaigns *campaigns, const uint8_t sha256[32]);

struct known_campaign *campaigns_find(const struct campaigns *campaigns, const char *id);
struct known_parts *campaigns_parts(const struct campaigns *campaigns, const uint8_t sha256[32]);
/** How large the campaign says that its attachment is; 0: it names no such one. campaign may be NULL. */
uint64_t campaign_attachment_bytes(const struct known_campaign *campaign, const uint8_t sha256[32]);

#endif /* INGESTION_CAMPAIGNS_H */
