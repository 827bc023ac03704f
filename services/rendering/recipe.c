#include "recipe.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "grow.h"
#include "tandem/stages.h"

int recipe_init(struct recipe *recipe)
{
    *recipe = (struct recipe){.own = TD_BUF_INIT(RECIPE_OWN_MAX), .scratch = TD_BUF_INIT(RECIPE_OWN_MAX)};
    recipe->digest = EVP_MD_CTX_new();
    return recipe->digest ? TD_OK : TD_ENOMEM;
}

void recipe_release(struct recipe *recipe)
{
    td_buf_release(&recipe->own);
    td_buf_release(&recipe->scratch);
    free(recipe->segments);
    EVP_MD_CTX_free(recipe->digest);
    *recipe = (struct recipe){0};
}

void recipe_start(struct recipe *recipe, const char *blob, size_t blob_len)
{
    recipe->blob = blob;
    recipe->blob_len = blob_len;
    recipe->count = 0;
    recipe->open = 0;
    td_buf_clear(&recipe->own);
}

static int add_segment(struct recipe *recipe, struct recipe_segment segment)
{
    struct recipe_segment *segments = grow(recipe->segments, &recipe->cap, recipe->count, sizeof(*segments));

    if (!segments)
        return TD_ENOMEM;
    recipe->segments = segments;
    recipe->segments[recipe->count++] = segment;
    return TD_OK;
}

/* What was appended to own since the last segment becomes one. */
static int close_own(struct recipe *recipe)
{
    size_t from = recipe->open, len = recipe->own.len - from;

    if (len == 0)
        return TD_OK;
    recipe->open = recipe->own.len;
    return add_segment(recipe, (struct recipe_segment){false, (uint32_t)from, (uint32_t)len});
}

int recipe_static(struct recipe *recipe, uint32_t offset, uint32_t len)
{
    struct recipe_segment *last = recipe->count ? &recipe->segments[recipe->count - 1] : NULL;
    int rc;

    if (offset > recipe->blob_len || len > recipe->blob_len - offset)
        return TD_EBUG;
    if (recipe->open == recipe->own.len && last && last->is_static && last->offset + last->len == offset) {
        last->len += len;
        return TD_OK;
    }
    if (len <= RECIPE_INLINE_MAX)
        return td_buf_add(&recipe->own, recipe->blob + offset, len);
    rc = close_own(recipe);
    return rc < 0 ? rc : add_segment(recipe, (struct recipe_segment){true, offset, len});
}

static const void *segment_bytes(const struct recipe *recipe, const struct recipe_segment *segment)
{
    return (segment->is_static ? recipe->blob : recipe->own.data) + segment->offset;
}

/* Size and SHA-256 of the mail, without putting it together. */
static int measure(struct recipe *recipe, struct td_arena *arena, Tandem__Internal__V1__OutboundMessage *msg)
{
    uint8_t *hash = td_arena_alloc(arena, 32);
    size_t total = 0;

    if (!hash || EVP_DigestInit_ex(recipe->digest, EVP_sha256(), NULL) != 1)
        return TD_ENOMEM;
    for (size_t i = 0; i < recipe->count; i++) {
        const struct recipe_segment *segment = &recipe->segments[i];

        total += segment->len;
        if (total > RECIPE_MESSAGE_MAX)
            return TD_ETOOBIG;
        if (EVP_DigestUpdate(recipe->digest, segment_bytes(recipe, segment), segment->len) != 1)
            return TD_ENOMEM;
    }
    if (EVP_DigestFinal_ex(recipe->digest, hash, NULL) != 1)
        return TD_ENOMEM;
    msg->message_bytes = (uint32_t)total;
    msg->message_sha256 = (ProtobufCBinaryData){32, hash};
    return TD_OK;
}

static int fill_segments(const struct recipe *recipe, struct td_arena *arena,
                         Tandem__Internal__V1__OutboundMessage *msg)
{
    Tandem__Internal__V1__Segment *item = td_arena_alloc(arena, (recipe->count + 1) * sizeof(*item));

    msg->segments = td_arena_alloc(arena, (recipe->count + 1) * sizeof(*msg->segments));
    if (!item || !msg->segments)
        return TD_ENOMEM;
    for (size_t i = 0; i < recipe->count; i++) {
        const struct recipe_segment *segment = &recipe->segments[i];

        tandem__internal__v1__segment__init(&item[i]);
        if (segment->is_static) {
            item[i].static_offset = segment->offset;
            item[i].static_length = segment->len;
        } else {
            item[i].inline_bytes =
                (ProtobufCBinaryData){segment->len, (uint8_t *)recipe->own.data + segment->offset};
        }
        msg->segments[i] = &item[i];
    }
    msg->n_segments = recipe->count;
    return TD_OK;
}

int recipe_render(struct recipe *recipe, const struct mime_program *program,
                  const Tandem__Internal__V1__ChunkRecipient *rcpt, struct td_arena *arena,
                  Tandem__Internal__V1__OutboundMessage **ret, const char **ret_reason)
{
    Tandem__Internal__V1__OutboundMessage *msg = td_arena_alloc(arena, sizeof(*msg));
    size_t blob_len;
    const char *blob = mime_static(program, &blob_len);
    enum td_stage before;
    int rc;

    if (!msg)
        return TD_ENOMEM;
    tandem__internal__v1__outbound_message__init(msg);
    recipe_start(recipe, blob, blob_len);
    rc = mime_render(program, rcpt, arena, recipe, ret_reason);
    if (rc < 0)
        return rc;
    rc = close_own(recipe);
    before = td_stage(TD_STAGE_HASH);
    if (rc == TD_OK)
        rc = measure(recipe, arena, msg);
    td_stage(before);
    if (rc == TD_OK)
        rc = fill_segments(recipe, arena, msg);
    if (rc == TD_ETOOBIG)
        *ret_reason = "message.too_large";
    if (rc < 0)
        return rc;
    msg->campaign_id = (char *)mime_campaign_id(program);
    msg->index = rcpt->index;
    msg->recipient = rcpt->address;
    msg->address_hash = rcpt->address_hash;
    msg->message_id = mime_message_id(program, rcpt->index, arena);
    msg->static_sha256 = (ProtobufCBinaryData){32, (uint8_t *)mime_static_sha256(program)};
    msg->static_bytes = (uint32_t)blob_len;
    if (!msg->message_id)
        return TD_ENOMEM;
    *ret = msg;
    return TD_OK;
}

void recipe_set_policy(Tandem__Internal__V1__OutboundMessage *msg, const Tandem__Mail__V1__Campaign *campaign)
{
    msg->not_before_unix_ms = campaign->not_before_unix_ms;
    msg->deadline_unix_ms = campaign->deadline_unix_ms;
    msg->n_route = campaign->n_route;
    msg->route = campaign->route;
    msg->n_allowed_countries = campaign->n_allowed_countries;
    msg->allowed_countries = campaign->allowed_countries;
    msg->on_unconfirmed = campaign->on_unconfirmed;
    msg->class_ = campaign->class_;
    msg->bounce_ceiling_per_10000 = campaign->bounce_ceiling_per_10000;
    msg->max_mails_per_s = campaign->max_mails_per_s;
}

int recipe_assemble(const char *blob, size_t blob_len, const Tandem__Internal__V1__OutboundMessage *msg,
                    struct td_buf *out, struct td_err *reterr)
{
    uint8_t hash[32];

    td_buf_clear(out);
    for (size_t i = 0; i < msg->n_segments; i++) {
        const Tandem__Internal__V1__Segment *segment = msg->segments[i];
        size_t offset = segment->static_offset, len = segment->static_length;
        int rc;

        if (segment->inline_bytes.len > 0) {
            rc = td_buf_add(out, segment->inline_bytes.data, segment->inline_bytes.len);
        } else {
            if (offset > blob_len || len > blob_len - offset)
                return td_fail(reterr, TD_EINVAL, "segment %zu points outside the static bytes", i);
            rc = td_buf_add(out, blob + offset, len);
        }
        if (rc < 0)
            return td_fail(reterr, (enum td_code)rc, "the message does not fit");
    }
    if (out->len != msg->message_bytes || msg->message_sha256.len != 32)
        return td_fail(reterr, TD_EINVAL, "the message has another size than its recipe says");
    if (EVP_Digest(td_buf_str(out), out->len, hash, NULL, EVP_sha256(), NULL) != 1)
        return td_fail(reterr, TD_ENOMEM, "SHA-256 failed");
    if (memcmp(hash, msg->message_sha256.data, 32) != 0)
        return td_fail(reterr, TD_EINVAL, "the message has another SHA-256 than its recipe says");
    return TD_OK;
}
