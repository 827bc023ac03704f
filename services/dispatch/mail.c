#include "mail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tandem/pb.h"

enum { MESSAGE_MAX = 64 * 1024 * 1024, SEGMENTS_MAX = 20000 };

/* Spreads consecutive recipients over 0..9999, the same in every process. */
static uint32_t dice_of(const uint8_t *hash, size_t len, uint32_t index)
{
    uint32_t h = 2166136261u ^ index;

    for (size_t i = 0; i < len; i++)
        h = (h ^ hash[i]) * 16777619u;
    h ^= h >> 15;
    h *= 0x2c1b3c6du;
    h ^= h >> 12;
    return h % 10000;
}

static int check(const Tandem__Internal__V1__OutboundMessage *msg, struct td_err *reterr)
{
    if (!td_campaign_id_valid(msg->campaign_id))
        return td_fail(reterr, TD_ESYNTAX, "campaign_id is not valid");
    if (msg->address_hash.len != TD_HASH_BYTES)
        return td_fail(reterr, TD_ESYNTAX, "address_hash has %zu bytes", msg->address_hash.len);
    if (msg->static_sha256.len != STATIC_SHA_BYTES)
        return td_fail(reterr, TD_ESYNTAX, "static_sha256 has %zu bytes", msg->static_sha256.len);
    if (msg->recipient[0] == '\0' || strpbrk(msg->recipient, "\r\n<>"))
        return td_fail(reterr, TD_ESYNTAX, "recipient is not fit for RCPT TO");
    if (msg->n_route == 0 || msg->n_route > TD_RELAYS_MAX)
        return td_fail(reterr, TD_ESYNTAX, "route of %zu relays", msg->n_route);
    if (msg->message_bytes > MESSAGE_MAX || msg->n_segments > SEGMENTS_MAX)
        return td_fail(reterr, TD_ETOOBIG, "message of %u bytes in %zu segments", msg->message_bytes, msg->n_segments);
    return TD_OK;
}

int mail_new(const struct td_record *rec, struct mail **ret, struct td_err *reterr)
{
    struct td_arena *arena = td_arena_new(td_pb_budget(rec->len));
    Tandem__Internal__V1__OutboundMessage *msg = NULL;
    struct mail *mail;
    int rc;

    if (!arena)
        return td_fail(reterr, TD_ENOMEM, "mail");
    rc = td_pb_read(&tandem__internal__v1__outbound_message__descriptor, rec->value, rec->len, arena,
                    (ProtobufCMessage **)&msg, reterr);
    if (rc == TD_OK)
        rc = check(msg, reterr);
    mail = rc == TD_OK ? td_arena_zalloc(arena, sizeof(*mail)) : NULL;
    if (rc == TD_OK && !mail)
        rc = td_fail(reterr, TD_ENOMEM, "mail");
    if (rc < 0) {
        td_arena_free(arena);
        return rc;
    }
    mail->arena = arena;
    mail->msg = msg;
    mail->offset = rec->offset;
    mail->timestamp_ms = rec->timestamp_ms;
    mail->pinned = -1;
    mail->attempts = msg->attempts;
    mail->reason = "";
    mail->dice = dice_of(msg->address_hash.data, msg->address_hash.len, msg->index);
    mail->key_len = td_mail_key(mail->key, msg->campaign_id, msg->index);
    *ret = mail;
    return TD_OK;
}

bool mail_is_express(const struct mail *mail)
{
    return mail->msg->class_ == TANDEM__MAIL__V1__CAMPAIGN_CLASS__CAMPAIGN_CLASS_EXPRESS;
}

void mail_free(struct mail *mail)
{
    td_arena_free(mail->arena); /* the mail lies in it */
}

int mail_slice(struct mail *mail, const struct static_blob *blob, struct td_err *reterr)
{
    const Tandem__Internal__V1__OutboundMessage *msg = mail->msg;
    size_t bytes = 0;

    if (!mail->slices)
        mail->slices = td_arena_alloc(mail->arena, (msg->n_segments + 1) * sizeof(*mail->slices));
    if (!mail->slices)
        return td_fail(reterr, TD_ENOMEM, "slices");
    mail->slices[0] = (struct slice){NULL, 0}; /* headers for the relay, see mail_for_relay */
    for (size_t i = 0; i < msg->n_segments; i++) {
        const Tandem__Internal__V1__Segment *seg = msg->segments[i];

        if (seg->inline_bytes.len) {
            mail->slices[i + 1] = (struct slice){(const char *)seg->inline_bytes.data, seg->inline_bytes.len};
        } else {
            if (seg->static_offset > blob->len || seg->static_length > blob->len - seg->static_offset)
                return td_fail(reterr, TD_ESYNTAX, "segment %zu lies outside the static pieces", i);
            mail->slices[i + 1] = (struct slice){blob->data + seg->static_offset, seg->static_length};
        }
        bytes += mail->slices[i + 1].len;
    }
    if (bytes != msg->message_bytes)
        return td_fail(reterr, TD_ESYNTAX, "segments have %zu bytes, not %u", bytes, msg->message_bytes);
    mail->job.slices = mail->slices;
    mail->job.slice_count = msg->n_segments + 1;
    mail->job.bytes = bytes;
    mail->job.recipient = msg->recipient;
    mail->job.user = mail;
    return TD_OK;
}

void mail_for_relay(struct mail *mail, const struct td_relay_settings *relay, const char *token_key)
{
    char local[TD_TOKEN_LOCAL_MAX], tag[TD_TOKEN_LOCAL_MAX];
    int len = 0;

    td_token_write(local, TD_TOKEN_BOUNCE, token_key, strlen(token_key), mail->msg->campaign_id, mail->msg->index, relay->name);
    snprintf(mail->reverse_path, sizeof(mail->reverse_path), "%s@%s", local, relay->return_path_domain);
    mail->job.reverse_path = mail->reverse_path;
    if (relay->ses_configuration_set && td_token_tag(tag, local))
        len = snprintf(mail->head, sizeof(mail->head), "X-SES-CONFIGURATION-SET: %s\r\nX-SES-MESSAGE-TAGS: " MAIL_SES_TAG "=%s\r\n",
                       relay->ses_configuration_set, tag);
    mail->job.bytes = mail->job.bytes - mail->slices[0].len + (size_t)len;
    mail->slices[0] = (struct slice){mail->head, (size_t)len};
}

/* SES and Postfix both name the mail in the first words: "Ok <id>", "2.0.0 Ok: queued as <id>". Only characters
 * of an id are kept, so that no address can ride along. */
static void relay_message_id(const struct smtp_reply *reply, char *out, size_t size)
{
    const char *at = strrchr(reply->text, ' ');
    size_t n = 0;

    at = at ? at + 1 : reply->text;
    while (at[n] && n + 1 < size && (strchr("-_.", at[n]) || (at[n] >= '0' && at[n] <= '9') ||
                                     (at[n] >= 'a' && at[n] <= 'z') || (at[n] >= 'A' && at[n] <= 'Z')))
        n++;
    if (at[n] != '\0')
        n = 0;
    memcpy(out, at, n);
    out[n] = '\0';
}

void *mail_outcome(const struct mail *mail, Tandem__Mail__V1__RecipientResult result, const char *relay,
                   const struct smtp_reply *reply, const char *reason, int64_t now_wall_ms, size_t *ret_len)
{
    Tandem__Mail__V1__Outcome outcome = TANDEM__MAIL__V1__OUTCOME__INIT;
    Tandem__Mail__V1__RecipientOutcome rcpt = TANDEM__MAIL__V1__RECIPIENT_OUTCOME__INIT;
    char id[80] = "";

    if (reply && reply->code) {
        rcpt.reply_code = (uint32_t)reply->code;
        rcpt.enhanced_status = (char *)(uintptr_t)reply->enhanced;
        rcpt.phase = (char *)(uintptr_t)smtp_phase_name(mail->phase);
        if (result == TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_ACCEPTED)
            relay_message_id(reply, id, sizeof(id));
    }
    rcpt.result = result;
    rcpt.relay = (char *)(uintptr_t)relay;
    rcpt.attempts = mail->attempts;
    rcpt.reason = (char *)(uintptr_t)reason;
    rcpt.address_hash = mail->msg->address_hash;
    rcpt.relay_message_id = id;
    rcpt.hard_refusal = mail->hard_refusal && result == TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_REFUSED;
    outcome.campaign_id = mail->msg->campaign_id;
    outcome.index = mail->msg->index;
    outcome.at_unix_ms = now_wall_ms;
    outcome.service = (char *)(uintptr_t) "dispatch";
    outcome.kind_case = TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT;
    outcome.recipient = &rcpt;
    return td_pb_write(&outcome.base, ret_len);
}

bool mail_accepted_by(const void *packed, size_t len, char ret_relay[RELAY_NAME_MAX + 1])
{
    struct td_arena *arena = td_arena_new(td_pb_budget(len));
    Tandem__Mail__V1__Outcome *outcome = NULL;
    bool is = arena &&
              td_pb_read(&tandem__mail__v1__outcome__descriptor, packed, len, arena, (ProtobufCMessage **)&outcome, NULL) == TD_OK &&
              outcome->kind_case == TANDEM__MAIL__V1__OUTCOME__KIND_RECIPIENT &&
              outcome->recipient->result == TANDEM__MAIL__V1__RECIPIENT_RESULT__RECIPIENT_RESULT_ACCEPTED &&
              strlen(outcome->recipient->relay) <= RELAY_NAME_MAX;

    if (is)
        snprintf(ret_relay, RELAY_NAME_MAX + 1, "%s", outcome->recipient->relay);
    td_arena_free(arena);
    return is;
}

const char *mail_result_name(Tandem__Mail__V1__RecipientResult result)
{
    static const char *const name[] = {"", "accepted", "refused", "invalid", "suppressed", "expired", "cancelled", "unconfirmed"};

    return (size_t)result < sizeof(name) / sizeof(name[0]) ? name[result] : "";
}

void mail_push(struct mail_list *list, struct mail *mail)
{
    mail->next = NULL;
    if (list->last)
        list->last->next = mail;
    else
        list->first = mail;
    list->last = mail;
    list->count++;
}

void mail_push_front(struct mail_list *list, struct mail *mail)
{
    mail->next = list->first;
    list->first = mail;
    if (!list->last)
        list->last = mail;
    list->count++;
}

struct mail *mail_pop(struct mail_list *list)
{
    struct mail *mail = list->first;

    if (!mail)
        return NULL;
    list->first = mail->next;
    if (!list->first)
        list->last = NULL;
    mail->next = NULL;
    list->count--;
    return mail;
}

void mail_unlink(struct mail_list *list, struct mail *mail)
{
    struct mail *before = NULL;

    for (struct mail *at = list->first; at; before = at, at = at->next) {
        if (at != mail)
            continue;
        if (before)
            before->next = at->next;
        else
            list->first = at->next;
        if (list->last == at)
            list->last = before;
        at->next = NULL;
        list->count--;
        return;
    }
}
