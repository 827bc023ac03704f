/* content.h - from a Campaign to the CampaignContent that other services read, and its later changes. Pure. */
#ifndef INGESTION_CONTENT_H
#define INGESTION_CONTENT_H

#include <stdbool.h>
#include <stdint.h>

#include "names.h"
#include "refusals.h"
#include "tandem/arena.h"
#include "tandem/settings.h"

/**
 * Take the attachments' bytes out of the campaign, which afterwards names them by SHA-256 only.
 * @return campaign->n_attachments entries (empty where the bytes come as chunks), in the arena; NULL when out of
 * memory
 */
ProtobufCBinaryData *content_detach(Campaign *campaign, struct td_arena *arena);

/**
 * SHA-256 of a detached campaign as it was handed in, but for its deadline: who says "24 hours from now" and hands
 * the campaign in again has not changed it, and the first deadline holds.
 * @return TD_OK or TD_ENOMEM
 */
int content_sha256(const Campaign *campaign, uint8_t out[32]);

/**
 * Fill in what the operator's settings say where the campaign says nothing: route (less relays outside the
 * countries), countries, deadline, unsubscribe address (bulk only).
 * @return TD_OK or TD_ENOMEM
 */
int content_defaults(Campaign *campaign, const struct td_settings *settings, int64_t now_ms,
                     struct td_arena *arena);

/** Revision 1. Everything is borrowed except the lanes, which are in the arena. @return TD_OK or TD_ENOMEM */
int content_new(CampaignContent *ret, const Submission *submission, Campaign *campaign, const uint8_t sha256[32],
                const struct td_settings *settings, int64_t now_ms, struct td_arena *arena);

/**
 * No more recipients will come.
 * @return true when content changed (its revision is raised): publish it. False: nothing to do, or refused.
 */
bool content_seal(CampaignContent *content, uint32_t recipient_count, struct refusals *refusals);

/** Pause, resume, cancel, set rate, set route. @return as content_seal */
bool content_command(CampaignContent *content, const Command *command, const struct td_settings *settings,
                     struct refusals *refusals);

#endif /* INGESTION_CONTENT_H */
