/* Every change raises the revision, so that a reader can tell which of two contents is the later one. */
#include "content.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "split.h"
#include "tandem/lanes.h"
#include "tandem/pb.h"
#include "validate.h"

ProtobufCBinaryData *content_detach(Campaign *campaign, struct td_arena *arena)
{
    ProtobufCBinaryData *bytes = td_arena_zalloc(arena, (campaign->n_attachments + 1) * sizeof(*bytes));

    if (!bytes)
        return NULL;
    for (size_t i = 0; i < campaign->n_attachments; i++) {
        bytes[i] = campaign->attachments[i]->content;
        campaign->attachments[i]->content = (ProtobufCBinaryData){0, NULL};
    }
    return bytes;
}

int content_sha256(const Campaign *campaign, uint8_t out[32])
{
    Campaign timeless = *campaign;
    size_t len;
    void *packed;

    timeless.deadline_unix_ms = 0;
    packed = td_pb_write(&timeless.base, &len);

    if (!packed)
        return TD_ENOMEM;
    SHA256(packed, len, out);
    free(packed);
    return TD_OK;
}

static char **copy_strings(const struct td_strings *from, struct td_arena *arena)
{
    char **copy = td_arena_alloc(arena, (from->count + 1) * sizeof(*copy));

    for (size_t i = 0; copy && i < from->count; i++) {
        copy[i] = td_arena_strdup(arena, from->item[i]);
        if (!copy[i])
            return NULL;
    }
    return copy;
}

/* The default route may hold a relay that this campaign's own countries rule out: it then goes without that one.
 */
static int default_route(Campaign *campaign, const struct td_settings *settings, struct td_arena *arena)
{
    char **all = copy_strings(&settings->route, arena);

    if (!all)
        return TD_ENOMEM;
    campaign->route = all;
    campaign->n_route = 0;
    for (size_t i = 0; i < settings->route.count; i++) {
        const struct td_relay_settings *relay = td_settings_relay(settings, all[i]);

        if (relay && td_relay_allowed(settings, relay, (const char *const *)campaign->allowed_countries,
                                      campaign->n_allowed_countries))
            campaign->route[campaign->n_route++] = all[i];
    }
    return TD_OK;
}

static int default_unsubscribe(Campaign *campaign, const struct td_settings *settings, struct td_arena *arena)
{
    Unsubscribe *unsubscribe = campaign->unsubscribe;

    if (!settings->unsubscribe_https_url ||
        campaign->class_ == TANDEM__MAIL__V1__CAMPAIGN_CLASS__CAMPAIGN_CLASS_EXPRESS)
        return TD_OK;
    if (unsubscribe && (*unsubscribe->https_url || *unsubscribe->mailto))
        return TD_OK;
    unsubscribe = td_arena_alloc(arena, sizeof(*unsubscribe));
    if (!unsubscribe)
        return TD_ENOMEM;
    tandem__mail__v1__unsubscribe__init(unsubscribe);
    unsubscribe->https_url = td_arena_strdup(arena, settings->unsubscribe_https_url);
    if (!unsubscribe->https_url)
        return TD_ENOMEM;
    unsubscribe->one_click = true; /* Tandem's own address, or one that the operator vouches for */
    campaign->unsubscribe = unsubscribe;
    return TD_OK;
}

int content_defaults(Campaign *campaign, const struct td_settings *settings, int64_t now_ms,
                     struct td_arena *arena)
{
    int rc = TD_OK;

    if (campaign->n_allowed_countries == 0) {
        campaign->allowed_countries = copy_strings(&settings->allowed_countries, arena);
        if (!campaign->allowed_countries)
            return TD_ENOMEM;
        campaign->n_allowed_countries = settings->allowed_countries.count;
    }
    if (campaign->n_route == 0)
        rc = default_route(campaign, settings, arena);
    if (rc == TD_OK)
        rc = default_unsubscribe(campaign, settings, arena);
    if (campaign->deadline_unix_ms == 0) {
        int64_t from = campaign->not_before_unix_ms > now_ms ? campaign->not_before_unix_ms : now_ms;

        /* A far not_before is left for validation to refuse; added up here it could overflow. */
        if (from <= now_ms + VALIDATE_DEADLINE_MAX_MS)
            campaign->deadline_unix_ms = from + settings->ingestion_deadline_ms;
    }
    return rc;
}

int content_new(CampaignContent *ret, const Submission *submission, Campaign *campaign, const uint8_t sha256[32],
                const struct td_settings *settings, int64_t now_ms, struct td_arena *arena)
{
    uint32_t lanes[TD_LANES_MAX];
    uint32_t count = td_lanes_pick(submission->campaign_id, campaign->expected_recipients,
                                   (uint32_t)settings->kafka_lanes, lanes);

    tandem__internal__v1__campaign_content__init(ret);
    ret->campaign_id = submission->campaign_id;
    ret->tenant = submission->tenant;
    ret->campaign = campaign;
    ret->n_lanes = count;
    ret->lanes = td_arena_memdup(arena, lanes, count * sizeof(*lanes));
    ret->state = TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_RUNNING;
    ret->submitted_at_unix_ms = now_ms;
    ret->revision = 1;
    ret->campaign_sha256.len = 32;
    ret->campaign_sha256.data = td_arena_memdup(arena, sha256, 32);
    return ret->lanes && ret->campaign_sha256.data ? TD_OK : TD_ENOMEM;
}

bool content_seal(CampaignContent *content, uint32_t recipient_count, struct refusals *refusals)
{
    if (content->sealed && content->recipient_count == recipient_count)
        return false;
    if (content->sealed) {
        refuse(refusals, "seal.changed", "seal.recipient_count",
               "The campaign was sealed with %u recipients before.", content->recipient_count);
        return false;
    }
    if (recipient_count == 0 || recipient_count > SPLIT_INDEX_MAX + 1u) {
        refuse(refusals, "seal.range", "seal.recipient_count", "A campaign has 1 to %u recipients.",
               SPLIT_INDEX_MAX + 1u);
        return false;
    }
    content->sealed = true;
    content->recipient_count = recipient_count;
    content->revision++;
    return true;
}

static bool set_state(CampaignContent *content, Tandem__Internal__V1__CampaignState state)
{
    if (content->state == state)
        return false;
    content->state = state;
    return true;
}

static bool same_route(const Campaign *campaign, const Command *command)
{
    if (campaign->n_route != command->n_route)
        return false;
    for (size_t i = 0; i < command->n_route; i++)
        if (strcmp(campaign->route[i], command->route[i]) != 0)
            return false;
    return true;
}

static bool set_route(Campaign *campaign, const Command *command, const struct td_settings *settings,
                      struct refusals *refusals)
{
    size_t before = refusals->total;

    if (same_route(campaign, command))
        return false;
    validate_route(command->route, command->n_route, campaign, settings, "command.route", refusals);
    if (refusals->total > before)
        return false;
    campaign->route = command->route;
    campaign->n_route = command->n_route;
    return true;
}

static bool command_apply(CampaignContent *content, const Command *command, const struct td_settings *settings,
                          struct refusals *refusals)
{
    switch (command->kind) {
    case TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_PAUSE:
        return set_state(content, TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_PAUSED);
    case TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_RESUME:
        return set_state(content, TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_RUNNING);
    case TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_CANCEL:
        return set_state(content, TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_CANCELLED);
    case TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_SET_RATE:
        if (content->campaign->max_mails_per_s == command->max_mails_per_s)
            return false;
        content->campaign->max_mails_per_s = command->max_mails_per_s;
        return true;
    case TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_SET_ROUTE:
        return set_route(content->campaign, command, settings, refusals);
    case TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_UNSPECIFIED:
    case _TANDEM__MAIL__V1__COMMAND_KIND_IS_INT_SIZE:
        break;
    }
    refuse(refusals, "command.kind", "command.kind", "There is no command number %d.", (int)command->kind);
    return false;
}

bool content_command(CampaignContent *content, const Command *command, const struct td_settings *settings,
                     struct refusals *refusals)
{
    /* A cancelled campaign's recipients already have their outcomes or get them now: nothing can take that back.
     */
    if (content->state == TANDEM__INTERNAL__V1__CAMPAIGN_STATE__CAMPAIGN_STATE_CANCELLED) {
        if (command->kind != TANDEM__MAIL__V1__COMMAND_KIND__COMMAND_KIND_CANCEL)
            refuse(refusals, "campaign.cancelled", "command.kind", "The campaign was cancelled; that is final.");
        return false;
    }
    if (!command_apply(content, command, settings, refusals))
        return false;
    content->revision++;
    return true;
}
